/* The gradient of a solution: the exact derivative of the steps that were taken, their sizes held constant.

   Rows go back through their steps side by side, as they came. Weights' gradients are summed up by each thread, whose
   rows depend on nothing but the number of threads, and then thread by thread. */

#define SPAN(n) (((n) + LANES - 1) / LANES) /* vectors that hold so many numbers */

/* Gradients of the inputs, in rows as they are; null: not wanted. Those of weights are all wanted or none. */
typedef struct {
    REAL *x, *context, *w1, *w2, *w3, *m, *time;
} gradients;

typedef struct {
    const REAL *x, *log_det, *kinetic, *jacobian;
} cotangents;

/* A thread's sums: matrices whose rows are filled up to whole vectors, and a bias's gradient lane by lane. */
typedef struct {
    lanes *w1, *w2, *w3, *m, *b1, *b2, *b3, *time;
} sums;

/* What the way back through one evaluation needs beside its moment. What comes to the gates' logarithms, ``gate``, follows
   what comes to the first layer, ``g1``. */
typedef struct {
    lanes *g1, *gate, *g2, *t1, *t2, *more, *across;
} desk;

static int64_t sums_size(const field *f) {
    int64_t first = SPAN(f->first), second = SPAN(f->second);
    return f->first * SPAN(inputs_of(f) - 1) + f->second * first + f->features * second + f->log_det * f->second * first +
           f->first + f->second + f->features + f->gated * 2 * f->first * SPAN(times_of(f));
}

static sums sums_of(const field *f, lanes **place) {
    int64_t first = SPAN(f->first), second = SPAN(f->second), d = f->features;
    return (sums){
        room(place, f->first * SPAN(inputs_of(f) - 1)), room(place, f->second * first), room(place, d * second),
        room(place, f->log_det * f->second * first), room(place, f->first), room(place, f->second), room(place, d),
        room(place, f->gated * 2 * f->first * SPAN(times_of(f)))};
}

static int64_t longest(const field *f) {
    int64_t inputs = f->features + 1 + times_of(f), most = inputs > f->first ? inputs : f->first;
    return most > f->second ? most : f->second;
}

static desk desk_of(const field *f, lanes **place) {
    lanes *g1 = room(place, (1 + f->gated) * f->first);
    return (desk){g1, g1 + f->first, room(place, f->second), room(place, f->first), room(place, f->second),
                  room(place, longest(f)), room(place, LANES * SPAN(longest(f)))};
}

static int64_t desk_size(const field *f) {
    return 2 * (f->first + f->second) + f->gated * f->first + longest(f) + LANES * SPAN(longest(f));
}

/* Turn a square of numbers about its diagonal. */
ALWAYS void turn(lanes *square) {
#ifdef __clang__
    for (int i = 1; i < LANES; i++)
        for (int l = 0; l < i; l++) {
            REAL other = square[i][l];
            square[i][l] = square[l][i], square[l][i] = other;
        }
#else
#pragma GCC unroll 4
    for (int step = LANES / 2; step; step /= 2) {
        mask upper, lower;
        EACH upper[l] = l & step ? LANES + l - step : l, lower[l] = l & step ? LANES + l : l + step;
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            if (i & step) continue;
            lanes a = square[i], b = square[i + step];
            square[i] = __builtin_shuffle(a, b, upper), square[i + step] = __builtin_shuffle(a, b, lower);
        }
    }
#endif
}

/* Turn [unit][lane] to [lane][unit], each lane's units filled up with zeros. */
static void across(const lanes *from, int64_t units, lanes *to) {
    int64_t vectors = SPAN(units);
    for (int64_t v = 0; v < vectors; v++, from += LANES) {
        lanes square[LANES];
        for (int i = 0; i < LANES; i++) square[i] = v * LANES + i < units ? from[i] : all(0);
        turn(square);
        EACH to[l * vectors + v] = square[l];
    }
}

ALWAYS void outer_of(int rows, int halves, const lanes *left, const lanes *right, int64_t vectors, lanes *sum) {
    lanes s[8][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < halves; v++) s[r][v] = sum[r * vectors + v];
    EACH for (int r = 0; r < rows; r++)
        for (int v = 0; v < halves; v++) s[r][v] += right[l * vectors + v] * ((const REAL *)left)[r * LANES + l];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < halves; v++) sum[r * vectors + v] = s[r][v];
}

/* sum += left right', over lanes; ``right`` lies lane by lane. */
static void outer(const lanes *left, int64_t rows, const lanes *right, int64_t columns, lanes *sum) {
    int64_t vectors = SPAN(columns), i = 0;
    for (; i + 8 <= rows; i += 8) {
        int64_t v = 0;
        for (; v + 2 <= vectors; v += 2) outer_of(8, 2, left + i, right + v, vectors, sum + i * vectors + v);
        if (v < vectors) outer_of(8, 1, left + i, right + v, vectors, sum + i * vectors + v);
    }
    for (; i < rows; i++)
        for (int64_t v = 0; v < vectors; v++) outer_of(1, 1, left + i, right + v, vectors, sum + i * vectors + v);
}

ALWAYS void add(lanes *to, const lanes *from, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] += from[i];
}

ALWAYS void times(lanes *to, const lanes *from, const lanes *by, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] = from[i] * by[i];
}

/* The way back of the probe, g being the cotangent of its image; leaves in t1 and t2 what comes of its tangents before the
   activations, and what comes to the gates. The probe is filled up with zeros in the place of time. */
static void pull_probe(const field *f, const moment *m, const lanes *g, const lanes *probe, const desk *k, const sums *s) {
    int64_t d = f->features, first = f->first, second = f->second, inputs = inputs_of(f) - 1;
    product(f->w3_back, second, d, d, g, 0, k->t2);
    times(k->more, k->t2, m->d2, second);
    product(f->w2_back, first, second, second, k->more, 0, k->t1);
    if (s) across(m->s2, second, k->across), outer(g, d, k->across, second, s->w3);
    if (s) across(m->s1, first, k->across), outer(k->more, second, k->across, first, s->w2);
    times(k->more, k->t1, m->d1, first);
    if (f->gated) times(k->gate, k->more, m->p1, first);
    if (s) across(probe, inputs, k->across), outer(k->more, first, k->across, inputs, s->w1);
    for (int64_t i = 0; i < first; i++) k->t1[i] *= m->p1[i] * m->e1[i];
    for (int64_t i = 0; i < second; i++) k->t2[i] *= m->p2[i] * m->e2[i];
}

/* The way back through one evaluation, from cotangents of the velocity, the trace and the probe's image to the point's. */
static void pull(const field *f, const moment *m, const lanes *g, lanes g_trace, const lanes *g_image, const lanes *probe,
                 const desk *k, const sums *s, lanes *g_context, lanes *g_x) {
    int64_t d = f->features, first = f->first, second = f->second, inputs = inputs_of(f) - 1;
    const lanes *g_gated = k->g1;
    if (f->gated) memset(k->gate, 0, first * sizeof(lanes));
    if (f->jacobian) pull_probe(f, m, g_image, probe, k, s);
    product(f->w3_back, second, d, d, g, 0, k->g2);
    times(k->g2, k->g2, m->d2, second);
    for (int64_t i = 0; f->log_det && i < second; i++) k->g2[i] += g_trace * m->u[i] * m->e2[i];
    if (f->jacobian) add(k->g2, k->t2, second);
    product(f->w2_back, first, second, second, k->g2, 0, k->g1);
    times(k->g1, k->g1, m->slope, first);
    if (f->log_det) {
        product(f->m_back, first, second, second, m->d2, 0, k->more);
        for (int64_t i = 0; i < first; i++) k->g1[i] += g_trace * k->more[i] * m->e1[i];
        for (int64_t i = 0; f->gated && i < first; i++) k->gate[i] += g_trace * k->more[i] * m->d1[i];
    }
    if (f->jacobian) add(k->g1, k->t1, first);
    if (f->gated) {
        times(k->more, k->g1, m->gate, first), g_gated = k->more;
        for (int64_t i = 0; i < first; i++) k->gate[i] += k->more[i] * m->gated[i];
    }
    product(f->w1_back, d, first, first, g_gated, 0, g_x);
    if (g_context) add(g_context, k->g1, first);
    if (!s) return;
    across(m->h2, second, k->across), outer(g, d, k->across, second, s->w3), add(s->b3, g, d);
    across(m->h1, first, k->across), outer(k->g2, second, k->across, first, s->w2), add(s->b2, k->g2, second);
    across(m->in, inputs, k->across), outer(g_gated, first, k->across, inputs, s->w1), add(s->b1, g_gated, first);
    if (f->gated) {
        across(m->in + d + 1, times_of(f), k->across);
        outer(k->g1, 2 * first, k->across, times_of(f), s->time);
    }
    if (!f->log_det) return;
    for (int64_t i = 0; i < second; i++) k->more[i] = g_trace * m->d2[i];
    across(m->d1, first, k->across), outer(k->more, second, k->across, first, s->m);
}

/* The rows that go back in a thread's lanes, and which of their steps is next. */
typedef struct {
    int64_t row[LANES], left[LANES], next, stride;
    const kept *at[LANES];
    lanes *state, *g, *context, *g_context, *probe, *rates, *pulled, *image;
} return_crew;

/* One call: what all threads share. */
typedef struct {
    const problem *p;
    field f;
    kept *const *steps;
    const int64_t *order;
    int64_t count;
    const cotangents *of;
    const gradients *to;
} return_job;

static int take_back(const return_job *j, return_crew *c, int l) {
    const problem *p = j->p;
    int64_t row = c->next < j->count ? j->order[c->next] : -1, d = p->features;
    lanes *more = c->g + d;
    c->next += c->stride, c->row[l] = row;
    read_row(j->of->x, row, d, l, c->g);
    if (p->log_det) read_row(j->of->log_det, row, 1, l, more++);
    if (p->kinetic) read_row(j->of->kinetic, row, 1, l, more++);
    if (p->probe) read_row(j->of->jacobian, row, 1, l, more), read_row(p->probe, row, d, l, c->probe);
    if (p->context) read_row(p->context, row, p->first, l, c->context), read_row(0, -1, p->first, l, c->g_context);
    if (row < 0) return 0;
    c->at[l] = j->steps[row], c->left[l] = c->at[l]->count;
    return 1;
}

ALWAYS void write_back(const lanes *from, int64_t row, int64_t count, int l, REAL *to) {
    for (int64_t i = 0; to && i < count; i++) to[row * count + i] = from[i][l];
}

/* Take rows back until there are none. */
static void march_back(const return_job *j, return_crew *c, const moment *moments, const desk *k, const sums *s) {
    const problem *p = j->p;
    const field *f = &j->f;
    int64_t d = p->features, wide = wide_of(f), stages = needed(p), active = 0;
    lanes *log_det = c->g + d, *kinetic = log_det + p->log_det, *jacobian = kinetic + p->kinetic, *velocity = c->image + d;
    const lanes *context = p->context ? c->context : 0;
    EACH active += take_back(j, c, l);
    while (active) {
        double t[LANES], step[LANES], at[LANES];
        lanes h;
        EACH {
            const kept *from = c->row[l] < 0 ? 0 : c->at[l];
            t[l] = from ? from->t[c->left[l] - 1] : p->t0, step[l] = from ? from->h[c->left[l] - 1] : 0.0;
            h[l] = (REAL)step[l];
            read_row(from ? from->x : 0, c->left[l] - 1, d, l, c->state);
        }
        for (int64_t i = 0; i < stages; i++) {
            EACH at[l] = t[l] + p->c[i] * step[l];
            combine(c->state, h, p->a + i * p->stages, i, c->rates, wide, d, c->image);
            evaluate(f, at, c->image, context, c->probe, p->log_det || p->probe, moments + i, c->rates + i * wide);
        }
        for (int64_t i = stages - 1; i >= 0; i--) {
            const moment *m = moments + i;
            lanes share = h * (REAL)p->b[i], speed = {0}, g_trace = {0};
            if (p->kinetic) speed = 2 * share * *kinetic;
            if (p->log_det) g_trace = share * *log_det;
            for (int64_t n = 0; n < d; n++) {
                lanes g = share * c->g[n];
                for (int64_t later = i + 1; later < stages; later++)
                    g += h * (REAL)p->a[later * p->stages + i] * c->pulled[later * d + n];
                velocity[n] = g + speed * c->rates[i * wide + n];
                if (p->probe) c->image[n] = 2 * share * *jacobian * m->w[n];
            }
            pull(f, m, velocity, g_trace, c->image, c->probe, k, s, j->to->context ? c->g_context : 0, c->pulled + i * d);
        }
        for (int64_t i = 0; i < stages; i++) add(c->g, c->pulled + i * d, d);
        EACH {
            if (c->row[l] < 0 || --c->left[l]) continue;
            c->at[l] = c->at[l]->before;
            if (c->at[l]) {
                c->left[l] = c->at[l]->count;
                continue;
            }
            write_back(c->g, c->row[l], d, l, j->to->x);
            write_back(c->g_context, c->row[l], p->first, l, j->to->context);
            active -= !take_back(j, c, l);
        }
    }
}

/* Write a matrix's gradient in rows, and its bias's as their last number. */
static void write_sums(const lanes *sum, const lanes *bias, int64_t rows, int64_t columns, REAL *to) {
    for (int64_t i = 0; i < rows; i++) {
        memcpy(to, sum + i * SPAN(columns), columns * sizeof(REAL)), to += columns;
        if (!bias) continue;
        REAL total = 0;
        EACH total += bias[i][l];
        *to++ = total;
    }
}

/* Pull cotangents back to what was solved. ``order`` has the rows that took steps, those with most of them first. Returns 1
   where there is not enough memory. */
int32_t pull_back(const problem *p, kept *const *steps, const int64_t *order, int64_t count, const cotangents *of,
                  const gradients *to) {
    return_job j = {.p = p, .steps = steps, .order = order, .count = count, .of = of, .to = to};
    REAL *packed;
    if (pack_all(p, &j.f, 1, &packed)) return 1;
    int64_t d = p->features, wide = wide_of(&j.f), stages = needed(p), inputs = inputs_of(&j.f);
    int64_t all_sums = sums_size(&j.f), each = moment_size(&j.f) + wide + d;
    int64_t size = all_sums + desk_size(&j.f) + stages * each + 3 * d + wide + 2 * p->first + inputs;
    int threads = (int)least(omp_get_max_threads(), count ? (count + LANES - 1) / LANES : 1);
    lanes *scratch = memory(threads * size * sizeof(lanes));
    moment *moments = memory(threads * stages * sizeof(moment));
    if (!scratch || !moments) return free(packed), free(scratch), free(moments), 1;
    memset(scratch, 0, threads * size * sizeof(lanes));
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num();
        lanes *place = scratch + thread * size;
        sums s = sums_of(&j.f, &place);
        desk k = desk_of(&j.f, &place);
        moment *own = moments + thread * stages;
        for (int64_t i = 0; i < stages; i++) own[i] = moment_of(&j.f, &place);
        return_crew c = {.next = thread, .stride = omp_get_num_threads()};
        c.rates = room(&place, stages * wide), c.pulled = room(&place, stages * d), c.image = room(&place, 2 * d);
        c.state = room(&place, d), c.g = room(&place, wide), c.context = room(&place, p->first);
        c.g_context = room(&place, p->first), c.probe = room(&place, inputs);
        march_back(&j, &c, own, &k, to->w1 ? &s : 0);
    }
    for (int t = 1; t < threads; t++) add(scratch, scratch + t * size, all_sums);
    if (to->w1) {
        lanes *place = scratch;
        sums s = sums_of(&j.f, &place);
        write_sums(s.w1, s.b1, p->first, inputs - 1, to->w1), write_sums(s.w2, s.b2, p->second, p->first, to->w2);
        write_sums(s.w3, s.b3, d, p->second, to->w3);
        if (p->log_det) write_sums(s.m, 0, p->second, p->first, to->m);
        if (p->time) write_sums(s.time, 0, 2 * p->first, times_of(&j.f), to->time);
    }
    free(packed), free(scratch), free(moments);
    return 0;
}
