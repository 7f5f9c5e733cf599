/* The neural ODE of a continuous flow, solved for every row with steps of its own.

   LANES rows are solved side by side, each at a time and with a step of its own; a lane whose row is done takes the next
   row at once, so that none waits for the slowest. The steps that were accepted can be kept for the gradient, ode_back.h.
   Times and steps are doubles whatever REAL is. */

#include "ode.h"

#define KEPT 16 /* steps that are kept together */

enum status { DONE, TOO_MANY, NOT_FINITE, TOO_SMALL };

typedef struct {
    int64_t rows, features, frequencies, first, second, stages, limit;
    int32_t activation, log_det, kinetic, adaptive, fsal, order;
    double t0, t1, atol, rtol;
    const double *a, *b, *e, *c;
    /* Null may be: context, probe, m and time, which has the weights of time above those of gates. */
    const REAL *x, *context, *probe, *w1, *w2, *w3, *m, *time;
} problem;

/* Steps of a row that were accepted, and those before them. ``x`` has a row for each. */
typedef struct kept {
    struct kept *before;
    int64_t count;
    double t[KEPT], h[KEPT];
    REAL x[];
} kept;

typedef struct {
    REAL *x, *log_det, *kinetic, *jacobian;
    int32_t *evaluations, *accepted, *rejected, *status;
    kept **steps; /* the last steps of each row; null: they are not kept */
} results;

/* One call: what all threads share. */
typedef struct {
    const problem *p;
    const results *r;
    field f;
    double *first_step; /* of each row, and its rates at t0 */
    REAL *first_rates;
    int64_t next;       /* the first row that no lane has taken */
    int32_t no_memory;
    REAL *packed;
} job;

/* The rows in a thread's lanes; -1: none. */
typedef struct {
    int64_t row[LANES];
    double t[LANES], h[LANES];
    int32_t attempts[LANES], shrunk[LANES], counted[LANES], last[LANES];
    lanes *state, *tried, *rates, *context, *probe;
} crew;

static int pack_all(const problem *p, field *f, int back, REAL **packed) {
    *f = (field){.features = p->features, .frequencies = p->frequencies, .first = p->first, .second = p->second,
                 .activation = p->activation, .log_det = p->log_det, .kinetic = p->kinetic, .jacobian = p->probe != 0,
                 .gated = p->time != 0};
    int64_t d = p->features, inputs = inputs_of(f), first = p->first, second = p->second;
    int64_t rows[] = {first, second, d, p->log_det ? second : 0, f->gated ? 2 * first : 0};
    int64_t columns[] = {inputs, first + 1, second + 1, first, times_of(f)}, size = 0;
    for (int i = 0; i < 5; i++) size += rows[i] * columns[i];
    REAL *place = *packed = memory((1 + back) * size * sizeof(REAL));
    if (!place) return 1;
    const REAL *weights[] = {p->w1, p->w2, p->w3, p->m, p->time}, **to[] = {&f->w1, &f->w2, &f->w3, &f->m, &f->time};
    const REAL **to_back[] = {&f->w1_back, &f->w2_back, &f->w3_back, &f->m_back};
    for (int i = 0; i < 5; i++) {
        if (!rows[i]) continue;
        pack(weights[i], columns[i], 1, rows[i], columns[i], place);
        *to[i] = place, place += rows[i] * columns[i];
        if (!back || i == 4) continue; /* there is no way back to time */
        pack(weights[i], 1, columns[i], i ? columns[i] - (i < 3) : d, rows[i], place);
        *to_back[i] = place, place += rows[i] * columns[i];
    }
    return 0;
}

/* Stages that count where no error is estimated. */
static int64_t needed(const problem *p) {
    int64_t stages = p->stages;
    while (stages > 1 && p->b[stages - 1] == 0.0) stages--;
    return stages;
}

/* Lanes in which a number is not finite have NaN, all others 0. */
static lanes broken(const lanes *values, int64_t count) {
    lanes s = {0};
    for (int64_t i = 0; i < count; i++) s += values[i] - values[i];
    return s;
}

/* The root of the mean square of values, each divided by its tolerance at the larger of two states. */
static lanes norm(const problem *p, const lanes *values, const lanes *state, const lanes *other, int64_t count) {
    lanes s = {0};
    for (int64_t i = 0; i < count; i++) {
        lanes a = size_of(state[i]), b = size_of(other[i]);
        lanes v = values[i] / ((REAL)p->atol + (REAL)p->rtol * choose(a < b, b, a));
        s += v * v;
    }
    s /= (REAL)count;
    EACH s[l] = SINGLE ? (REAL)sqrtf((float)s[l]) : (REAL)sqrt((double)s[l]);
    return s;
}

/* x + h sum a_j k_j, of the first so many numbers of a state. */
static void combine(const lanes *x, lanes h, const double *a, int64_t stages, const lanes *rates, int64_t wide,
                    int64_t count, lanes *out) {
    for (int64_t i = 0; i < count; i++) {
        lanes s = {0};
        for (int64_t j = 0; j < stages; j++) s += rates[j * wide + i] * (REAL)a[j];
        out[i] = x ? x[i] + h * s : h * s;
    }
}

/* Hairer, Norsett and Wanner's first step, II.4, from the norms of the rates and of their change. */
static double first_step(const problem *p, double d1, double d2, double h0) {
    double most = d1 > d2 ? d1 : d2, h1 = pow(0.01 / most, 1.0 / p->order), span = fabs(p->t1 - p->t0);
    if (!(most > 1e-15) || !isfinite(d2)) h1 = 1e-3 * h0 > 1e-6 ? 1e-3 * h0 : 1e-6;
    double h = 100.0 * h0 < h1 ? 100.0 * h0 : h1;
    return h < span ? h : span;
}

/* Read a row of a matrix into a lane, or zeros. */
ALWAYS void read_row(const REAL *from, int64_t row, int64_t count, int l, lanes *to) {
    for (int64_t i = 0; i < count; i++) ((REAL *)to)[i * LANES + l] = from && row >= 0 ? from[row * count + i] : 0;
}

/* Find the first rates and steps of a block of rows. */
static void begin(job *j, int64_t first, crew *c, const moment *m) {
    const problem *p = j->p;
    int64_t n = least(LANES, p->rows - first), d = p->features, wide = wide_of(&j->f), count = d + p->log_det;
    double sign = p->t1 < p->t0 ? -1.0 : 1.0, h0[LANES], d0[LANES], d1[LANES], at[LANES];
    lanes *scaled = c->tried, *rates = c->rates, *later = rates + wide, step;
    EACH {
        int64_t row = l < n ? first + l : -1;
        read_row(p->x, row, d, l, c->state);
        if (p->context) read_row(p->context, row, p->first, l, c->context);
        if (p->probe) read_row(p->probe, row, d, l, c->probe);
        at[l] = p->t0;
    }
    for (int64_t i = d; i < wide; i++) c->state[i] = (lanes){0};
    const lanes *context = p->context ? c->context : 0;
    evaluate(&j->f, at, c->state, context, c->probe, 0, m, rates);
    lanes lost = broken(rates, count), of_state = norm(p, c->state, c->state, c->state, count);
    lanes of_rates = norm(p, rates, c->state, c->state, count);
    EACH {
        d0[l] = of_state[l], d1[l] = of_rates[l];
        h0[l] = d0[l] < 1e-5 || d1[l] < 1e-5 ? 1e-6 : 0.01 * d0[l] / d1[l];
        at[l] = p->t0 + sign * h0[l], step[l] = (REAL)(sign * h0[l]);
    }
    for (int64_t i = 0; i < d; i++) scaled[i] = c->state[i] + step * rates[i];
    evaluate(&j->f, at, scaled, context, c->probe, 0, m, later);
    for (int64_t i = 0; i < count; i++) scaled[i] = later[i] - rates[i];
    lanes change = norm(p, scaled, c->state, c->state, count);
    for (int l = 0; l < n; l++) {
        int64_t row = first + l;
        j->first_step[row] = sign * first_step(p, d1[l], change[l] / h0[l], h0[l]);
        for (int64_t i = 0; i < wide; i++) j->first_rates[row * wide + i] = rates[i][l];
        j->r->evaluations[row] = 2;
        j->r->status[row] = lost[l] == 0 ? DONE : NOT_FINITE;
    }
}

static void write_row(const job *j, int64_t row, enum status status, const lanes *state, int l) {
    const problem *p = j->p;
    const lanes *more = state + p->features;
    REAL spoilt = status == DONE ? 0 : (REAL)NAN;
    j->r->status[row] = status;
    for (int64_t i = 0; i < p->features; i++) j->r->x[row * p->features + i] = state[i][l] + spoilt;
    if (p->log_det) j->r->log_det[row] = (*more++)[l] + spoilt;
    if (p->kinetic) j->r->kinetic[row] = (*more++)[l] + spoilt;
    if (p->probe) j->r->jacobian[row] = (*more)[l] + spoilt;
}

/* Give a lane the next row that is to be solved, or none; returns whether there was one. */
static int take(job *j, crew *c, int l) {
    const problem *p = j->p;
    int64_t row, d = p->features, wide = wide_of(&j->f);
    for (;;) {
#pragma omp atomic capture
        row = j->next++;
        if (row >= p->rows) row = -1;
        read_row(p->x, row, d, l, c->state);
        for (int64_t i = d; i < wide; i++) c->state[i][l] = 0;
        if (row < 0 || (j->r->status[row] == DONE && p->t0 != p->t1)) break;
        write_row(j, row, j->r->status[row], c->state, l);
    }
    c->row[l] = row, c->t[l] = p->t0, c->h[l] = 0.0;
    c->attempts[l] = c->shrunk[l] = 0, c->counted[l] = p->adaptive;
    if (row < 0) return 0;
    c->h[l] = p->adaptive ? j->first_step[row] : (p->t1 - p->t0) / p->limit;
    if (p->adaptive) read_row(j->first_rates, row, wide, l, c->rates);
    if (p->context) read_row(p->context, row, p->first, l, c->context);
    if (p->probe) read_row(p->probe, row, d, l, c->probe);
    return 1;
}

/* Keep the step that a lane is about to leave behind. */
static void keep(job *j, const crew *c, int l) {
    int64_t d = j->p->features;
    kept **tail = j->r->steps + c->row[l], *to = *tail;
    if (!to || to->count == KEPT) {
        to = malloc(sizeof(kept) + KEPT * d * sizeof(REAL));
        if (!to) {
            j->no_memory = 1;
            return;
        }
        to->before = *tail, to->count = 0, *tail = to;
    }
    to->t[to->count] = c->t[l], to->h[to->count] = c->h[l];
    for (int64_t i = 0; i < d; i++) to->x[to->count * d + i] = c->state[i][l];
    to->count++;
}

/* Judge a lane's attempt by its error; returns whether it is accepted. */
static int judge(job *j, crew *c, int l, double error) {
    const problem *p = j->p;
    int accepted = !p->adaptive || error <= 1.0;
    double factor = isfinite(error) ? 0.9 * pow(error, -1.0 / p->order) : 0.2;
    factor = factor < 0.2 ? 0.2 : factor > 10.0 ? 10.0 : factor;
    if (accepted && c->shrunk[l] && factor > 1.0) factor = 1.0;
    if (accepted && j->r->steps) keep(j, c, l);
    c->attempts[l]++, c->shrunk[l] = !accepted;
    (accepted ? j->r->accepted : j->r->rejected)[c->row[l]]++;
    if (accepted)
        c->t[l] = c->last[l] ? p->t1 : p->adaptive ? c->t[l] + c->h[l] : p->t0 + c->attempts[l] * c->h[l];
    if (p->adaptive) c->h[l] *= factor;
    return accepted;
}

/* What becomes of a lane's row after an attempt; -1: it goes on. */
static int after(const job *j, const crew *c, int l, int accepted, int lost) {
    const problem *p = j->p;
    double largest = fabs(p->t0) > fabs(p->t1) ? fabs(p->t0) : fabs(p->t1), span = fabs(p->t1 - p->t0);
    if (lost) return NOT_FINITE;
    if (accepted && c->last[l]) return DONE;
    if (!p->adaptive) return -1;
    if (c->attempts[l] >= p->limit) return TOO_MANY;
    /* A first step may be as small: only one that was made smaller fails. */
    double rounding = SINGLE ? 1.1920928955078125e-7 : 2.220446049250313e-16;
    double least_step = 10.0 * rounding * (largest > span ? largest : span);
    return !accepted && fabs(c->h[l]) < least_step ? TOO_SMALL : -1;
}

/* Solve rows until there are none. */
static void march(job *j, crew *c, const moment *m) {
    const problem *p = j->p;
    const field *f = &j->f;
    int64_t d = p->features, wide = wide_of(f), count = d + p->log_det, active = 0;
    int64_t stages = p->adaptive ? p->stages : needed(p), reuse = p->adaptive && p->fsal;
    lanes *rates = c->rates, *input = c->tried + wide, *error = input + d, *end = rates + (stages - 1) * wide;
    const lanes *context = p->context ? c->context : 0;
    EACH active += take(j, c, l);
    while (active) {
        lanes h, lost = {0}, size = {0};
        double at[LANES];
        EACH {
            double left = p->t1 - c->t[l];
            c->last[l] = p->adaptive ? fabs(left) <= fabs(c->h[l]) * (1.0 + 1e-6) : c->attempts[l] + 1 == p->limit;
            if (p->adaptive && c->last[l]) c->h[l] = left;
            h[l] = (REAL)(c->row[l] < 0 ? c->h[l] = 0.0 : c->h[l]);
        }
        for (int64_t s = reuse; s < stages; s++) {
            EACH at[l] = c->t[l] + p->c[s] * c->h[l];
            combine(c->state, h, p->a + s * p->stages, s, rates, wide, d, input);
            evaluate(f, at, input, context, c->probe, 0, m, rates + s * wide);
        }
        combine(c->state, h, p->b, stages, rates, wide, wide, c->tried);
        if (p->adaptive) {
            combine(0, h, p->e, stages, rates, wide, count, error);
            size = norm(p, error, c->state, c->tried, count);
        }
        /* Lost are a state whose rates are not finite, and what a step that nobody judges makes of it. */
        lost = reuse ? broken(end, count) : broken(rates, count);
        if (!p->adaptive) lost += broken(c->tried, count);
        int finished[LANES];
        mask accepted;
        EACH {
            finished[l] = -1, accepted[l] = 0;
            if (c->row[l] < 0) continue;
            j->r->evaluations[c->row[l]] += stages - (reuse || c->counted[l]);
            int good = judge(j, c, l, (double)size[l]);
            c->counted[l] = !good, accepted[l] = -good;
            finished[l] = after(j, c, l, good, lost[l] != 0 && (good || !reuse));
        }
        for (int64_t i = 0; i < wide; i++) {
            c->state[i] = choose(accepted, c->tried[i], c->state[i]);
            if (reuse) rates[i] = choose(accepted, end[i], rates[i]);
        }
        EACH {
            if (finished[l] < 0) continue;
            write_row(j, c->row[l], finished[l], c->state, l);
            active -= !take(j, c, l);
        }
    }
}

/* Returns 1 where there is not enough memory. Counts are zeros before, and so are the pointers to steps, if given. */
int32_t solve(const problem *p, const results *r) {
    job j = {.p = p, .r = r};
    if (p->rows == 0) return 0;
    if (pack_all(p, &j.f, 0, &j.packed)) return 1;
    int64_t d = p->features, wide = wide_of(&j.f), blocks = (p->rows + LANES - 1) / LANES;
    int64_t stages = p->stages < 2 ? 2 : p->stages; /* the first step takes two evaluations */
    int64_t size = moment_size(&j.f) + (3 + stages) * wide + p->first + 2 * d;
    int threads = (int)least(omp_get_max_threads(), blocks);
    lanes *scratch = memory(threads * size * sizeof(lanes));
    if (p->adaptive) {
        j.first_step = memory(p->rows * sizeof(double));
        j.first_rates = memory(p->rows * wide * sizeof(REAL));
        j.no_memory = !j.first_step || !j.first_rates;
    }
    j.no_memory |= !scratch;
    if (!j.no_memory) {
        memset(scratch, 0, threads * size * sizeof(lanes));
#pragma omp parallel num_threads(threads)
        {
            lanes *place = scratch + omp_get_thread_num() * size;
            moment m = moment_of(&j.f, &place);
            crew c;
            c.state = room(&place, wide), c.tried = room(&place, 2 * wide + d), c.rates = room(&place, stages * wide);
            c.context = room(&place, p->first), c.probe = room(&place, d);
            if (p->adaptive) {
#pragma omp for schedule(dynamic)
                for (int64_t b = 0; b < blocks; b++) begin(&j, b * LANES, &c, &m);
            }
            march(&j, &c, &m);
        }
    }
    free(scratch), free(j.first_step), free(j.first_rates), free(j.packed);
    return j.no_memory;
}

void release(kept **steps, int64_t rows) {
    for (int64_t row = 0; row < rows; row++)
        for (kept *s = steps[row], *before; s; s = before) before = s->before, free(s);
}

#include "ode_back.h"
