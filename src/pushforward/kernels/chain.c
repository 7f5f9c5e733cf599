/* A chain of elementwise maps, each of some elements of a point, under parameters that a perceptron with rectifiers,
   W_L r(... r(W_1 x + b_1 + c) ...) + b_L, makes of others; and its gradient. Couplings and autoregressive transforms are
   such links. A perceptron alone is a chain of one link without a map.

   A block of points goes through all layers of a link while it is in the cache of a core. What a point gives depends on
   no other point of the batch, and the order of every sum on nothing but sizes, not on threads. NaN stays NaN. */

#include "links.h"
#include "lanes.h"

/* Map the elements that move of n points, perhaps in place; ``own`` has room for three numbers for each. */
static void move(const link *l, int64_t features, const float *x, const float *parameters, int64_t n, float *own, float *y,
                 float *log, int again) {
    int64_t size = n * l->moves;
    float *in = own, *out = own + size, *each = out + size;
    gather(x, n, features, l->move, l->moves, in);
    l->map(l->how, in, parameters, size, out, each);
    if (l->move && y != x) memcpy(y, x, n * features * sizeof(float));
    for (int64_t r = 0; r < n; r++) {
        float sum = 0.0f;
        for (int64_t i = 0; i < l->moves; i++) {
            y[r * features + (l->move ? l->move[i] : i)] = out[r * l->moves + i];
            sum += each[r * l->moves + i];
        }
        log[r] = again ? log[r] + sum : sum;
    }
}

/* Take the block of points that begins with a row through a link, ``own`` being memory of the thread. */
static void through(const pass *p, const step *s, int64_t row, float *own, float *log) {
    const link *l = s->is;
    int64_t n = least(p->block, p->points - row);
    const float *from = s->in + row * p->features, *given = from;
    float *more = own + 2 * p->block * p->wide;
    if (l->stay) {
        float *fixed = s->fixed ? s->fixed + row * l->given : more + 3 * p->block * p->moves;
        gather(from, n, p->features, l->stay, l->given, fixed);
        given = fixed;
    }
    for (int64_t i = 0; i < l->layers; i++) {
        const stage *t = s->stages + i;
        float *to = t->result ? t->result + row * t->out : own + i % 2 * p->block * p->wide;
        const float *weights = p->packed + t->packed;
        const int64_t *ends = p->limits + t->panel;
        int last = i == l->layers - 1;
        if (last || (i == 0 && l->context))
            product(LINEAR, given, n, t->in, weights, 0, ends, t->is->bias, 0, to, t->out);
        else
            product(RECTIFY, given, n, t->in, weights, 0, ends, t->is->bias, 0, to, t->out);
        for (int64_t r = 0; i == 0 && l->context && r < n; r++) {
            const float *context = l->context + (row + r) * l->context_row;
            for (int64_t o = 0; o < t->out; o++) {
                float sum = to[r * t->out + o] + context[o];
                to[r * t->out + o] = !last && sum <= 0.0f ? 0.0f : sum;
            }
        }
        given = to;
    }
    if (l->map) move(l, p->features, from, given, n, more, s->out + row * p->features, log + row, s > p->steps);
}

/* Memory for the weights of one link, in panels of what layers give, or are given: the numbers of it and of panels, and
   whether all links are small, so that each thread has its own. */
typedef struct { int64_t size, count; int own; } packing;

static packing packing_of(pass *p, int back) {
    packing k = {0, 0, 1};
    for (step *s = p->steps; s < p->steps + p->links; s++) {
        int64_t size = 0;
        for (stage *t = s->stages; t < s->stages + s->is->layers; t++) {
            t->panels = panels(back ? t->in : t->out), t->panel = s->panels, t->packed = size;
            s->panels += t->panels, size += t->panels * PANEL * (back ? t->out : t->in);
        }
        k.size = most(k.size, size), k.count = most(k.count, s->panels);
    }
    k.own = k.size <= SMALL;
    return k;
}

/* The pass as a thread sees it. */
static pass view_of(const pass *p, packing k) {
    pass view = *p;
    if (k.own) view.packed += omp_get_thread_num() * k.size, view.limits += omp_get_thread_num() * k.count;
    return view;
}

static void pack_at(const pass *p, const step *s, int64_t i) {
    const stage *t = stage_of(s->stages, i);
    int64_t j = (i - t->panel) * PANEL;
    p->limits[i] = pack(t->is->weight, t->is->reach, t->in, t->out, j, p->packed + t->packed + j * t->in);
}

/* Returns 1 where there is not enough memory. ``kept`` has room for what the gradient needs, or is null. Without a map y
   is what the perceptron gives, and there is no log_abs_det. */
int32_t chain_forward(const int64_t *table, int64_t links, const float *x, int64_t points, int64_t features, float *kept,
                      float *y, float *log_abs_det) {
    pass p = plan(table, links, points, features, x, kept, y);
    if (!p.steps) return 1;
    packing k = packing_of(&p, 0);
    if (k.own && in_lanes(&p, kept)) return forward_in_lanes(&p, y, log_abs_det);
    int threads = threads_of(&p), copies = k.own ? threads : 1;
    int64_t own_size = panels(p.block * (2 * p.wide + 3 * p.moves + p.given)) * PANEL;
    p.packed = memory((copies * k.size + threads * own_size) * sizeof(float));
    p.limits = memory(copies * k.count * sizeof(int64_t));
    if (!p.packed || !p.limits) return end(&p), 1;
    float *scratch = p.packed + copies * k.size;
#pragma omp parallel num_threads(threads)
    {
        pass view = view_of(&p, k);
        float *own = scratch + omp_get_thread_num() * own_size;
        for (const step *s = p.steps; s < p.steps + links; s++)
            if (k.own) {
                for (int64_t i = 0; i < s->panels; i++) pack_at(&view, s, i);
                /* The same points for every link, so that no thread waits for another. */
#pragma omp for schedule(static) nowait
                for (int64_t row = 0; row < points; row += p.block) through(&view, s, row, own, log_abs_det);
            } else {
#pragma omp for schedule(static)
                for (int64_t i = 0; i < s->panels; i++) pack_at(&p, s, i);
#pragma omp for schedule(dynamic)
                for (int64_t row = 0; row < points; row += p.block) through(&p, s, row, own, log_abs_det);
            }
    }
    end(&p);
    return 0;
}

/* The gradient of the map: that of the parameters, and of the elements that move, which are left in ``own`` with room
   for four numbers for each. */
static const float *unmove(const pass *p, const step *s, int64_t row, int64_t n, const float *g_y, const float *g_log,
                           float *own, float *g_parameters) {
    const link *l = s->is;
    const stage *last = s->stages + l->layers - 1;
    int64_t size = n * l->moves;
    float *at = own, *g_value = own + size, *g_each = g_value + size, *g_point = g_each + size;
    gather((l->inverse ? s->out : s->in) + row * p->features, n, p->features, l->move, l->moves, at);
    gather(g_y, n, p->features, l->move, l->moves, g_value);
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < l->moves; i++) g_each[r * l->moves + i] = g_log[row + r];
    l->gradient(l->how, at, last->result + row * last->out, size, g_value, g_each, g_point, g_parameters);
    return g_point;
}

/* Put the gradients of a point's elements together, perhaps in place. */
static void put(const link *l, int64_t features, int64_t n, const float *g_y, const float *g_point, const float *g_fixed,
                float *g_x) {
    if (g_x != g_y) memcpy(g_x, g_y, n * features * sizeof(float));
    for (int64_t r = 0; r < n; r++, g_x += features) {
        for (int64_t i = 0; i < l->moves; i++) g_x[l->move ? l->move[i] : i] = g_point[r * l->moves + i];
        for (int64_t i = 0; i < l->given; i++) g_x[l->stay ? l->stay[i] : i] += g_fixed[r * l->given + i];
    }
}

/* Points whose gradients are kept at a time; where they and their sums lie, one link after the other; and whether those
   of points before are added to. ``weights`` is where gradients of weights and biases go, side by side; null: to where the
   caller wants them. */
typedef struct {
    int64_t begin, points;
    float *tiled, *sums, *weights;
    int again;
} chunk;

/* Take the gradients of n points of a chunk back through a link; leave their sums. */
static void back(const pass *p, const step *s, chunk c, int64_t at, int64_t n, const float *g_y, const float *g_log,
                 float *g_x, float *own) {
    const link *l = s->is;
    int64_t row = c.begin + at;
    float *sums = c.sums + at / p->block * p->biases;
    float *more = own + 2 * p->block * p->wide, *of_map = more + 4 * p->block * p->moves;
    float *of_given = l->map ? of_map + p->block * p->parameters : g_x + row * l->given;
    const float *g = g_y + row * s->stages[l->layers - 1].out, *of_point = 0;
    if (l->map) {
        of_point = unmove(p, s, row, n, g_y + row * p->features, g_log, more, of_map);
        g = of_map;
    }
    for (int64_t i = l->layers - 1; i >= 0; i--) {
        const stage *t = s->stages + i;
        const float *weights = p->packed + t->packed;
        const int64_t *starts = p->limits + t->panel;
        if (t->is->g_weight || t->is->g_bias) spread(g, n, t->out, c.tiled + t->tiled + at * TILE, c.points, sums + t->sums);
        if (i == 0 && l->g_first) memcpy(l->g_first + row * t->out, g, n * t->out * sizeof(float));
        if (i == 0 && !g_x) return;
        float *below = i ? own + i % 2 * p->block * p->wide : of_given;
        if (i)
            product(MASK, g, n, t->out, weights, starts, 0, 0, t[-1].result + row * t->in, below, t->in);
        else
            product(LINEAR, g, n, t->out, weights, starts, 0, 0, 0, below, t->in);
        g = below;
    }
    if (l->map) put(l, p->features, n, g_y + row * p->features, of_point, g, g_x + row * p->features);
}

/* Where the gradient of a layer's weight, or of its bias, goes. */
static float *weight_of(const stage *t, chunk c) { return c.weights && t->is->g_weight ? c.weights + t->weight : t->is->g_weight; }
static float *bias_of(const stage *t, chunk c) {
    return c.weights && t->is->g_bias ? c.weights + t->weight + t->out * t->in : t->is->g_bias;
}

/* The gradient of one panel of inputs of a layer's weight, from a chunk of points. */
static void weigh(const pass *p, const step *s, chunk c, int64_t panel, float *own) {
    const stage *t = stage_of(s->stages, panel);
    const float *given = t > s->stages ? t[-1].result : s->fixed ? s->fixed : s->in;
    if (t->is->g_weight)
        columns(given + c.begin * t->in, c.tiled + t->tiled, c.points, t->in, t->out, (panel - t->panel) * PANEL,
                t->is->reach, p->limits[panel], c.again, own, weight_of(t, c));
}

/* That of a bias, from what blocks of points left. */
static void add_up(const pass *p, const stage *t, chunk c) {
    float *bias = bias_of(t, c);
    for (int64_t b = 0; bias && b < (c.points + p->block - 1) / p->block; b++)
        for (int64_t o = 0; o < t->out; o++)
            bias[o] = (b || c.again ? bias[o] : 0.0f) + c.sums[b * p->biases + t->sums + o];
}

/* Gradients as they come into a chain and go through it. */
typedef struct { const float *g_y, *g_log; float *between, *g_x; } flow;

static void back_at(const pass *p, const step *s, chunk c, int64_t at, flow f, float *own) {
    const step *first = p->steps, *last = first + p->links - 1;
    back(p, s, c, at, least(p->block, c.points - at), s == last ? f.g_y : f.between, f.g_log,
         s == first ? f.g_x : f.between, own);
}

static void pack_back_at(const pass *p, const step *s, int64_t i, int wanted) {
    const stage *t = stage_of(s->stages, i);
    int64_t j = (i - t->panel) * PANEL;
    float *to = t == p->stages && !wanted ? 0 : p->packed + t->packed + j * t->out;
    p->limits[i] = pack_back(t->is->weight, t->is->reach, t->is->first, t->in, t->out, j, to);
}

/* Go back through one link after the other, all threads together, and over chunks of points. */
static void back_by_link(const pass *p, chunk c, flow f, float *own, float *side) {
    for (const step *s = p->steps + p->links - 1; s >= p->steps; s--) {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < s->panels; i++) pack_back_at(p, s, i, f.g_x != 0);
        for (c.begin = 0, c.again = 0; c.begin < p->points; c.begin += CHUNK, c.again = 1) {
            c.points = least(CHUNK, p->points - c.begin);
#pragma omp for schedule(dynamic)
            for (int64_t at = 0; at < c.points; at += p->block) back_at(p, s, c, at, f, own);
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < s->panels + s->is->layers; i++)
                if (i < s->panels) weigh(p, s, c, i, side);
                else add_up(p, s->stages + i - s->panels, c);
        }
    }
}

/* Go back through all links with one share of the points. */
static void back_by_share(const pass *p, chunk c, int64_t size, flow f, float *own, float *side) {
    int64_t begin = c.begin, end = least(begin + size, p->points);
    for (const step *s = p->steps + p->links - 1; s >= p->steps; s--) {
        for (int64_t i = 0; i < s->panels; i++) pack_back_at(p, s, i, f.g_x != 0);
        for (c.begin = begin, c.again = 0; c.begin < end; c.begin += CHUNK, c.again = 1) {
            c.points = least(CHUNK, end - c.begin);
            for (int64_t at = 0; at < c.points; at += p->block) back_at(p, s, c, at, f, own);
            for (int64_t i = 0; i < s->panels; i++) weigh(p, s, c, i, side);
            for (int64_t i = 0; i < s->is->layers; i++) add_up(p, s->stages + i, c);
        }
    }
}

/* Add the gradients of the other shares to those of the first. */
static void join(const stage *t, const float *weights, int64_t size, int64_t shares) {
    for (int64_t k = 0; k < shares - 1; k++) {
        const float *from = weights + k * size + t->weight;
        for (int64_t i = 0; t->is->g_weight && i < t->out * t->in; i++) t->is->g_weight[i] += from[i];
        for (int64_t i = 0; t->is->g_bias && i < t->out; i++) t->is->g_bias[i] += from[t->out * t->in + i];
    }
}

/* Returns 1 where there is not enough memory. x, ``kept`` and y are those of the way forward, y only needed where the last
   link is an inverse. ``g_x`` may be null. */
int32_t chain_backward(const int64_t *table, int64_t links, const float *x, int64_t points, int64_t features,
                       const float *kept, const float *y, const float *g_y, const float *g_log, float *g_x) {
    pass p = plan(table, links, points, features, x, (float *)kept, (float *)y);
    if (!p.steps) return 1;
    packing k = packing_of(&p, 1);
    int threads = threads_of(&p), copies = k.own ? threads : 1;
    int64_t blocks = (points + p.block - 1) / p.block, share = (blocks + SHARES - 1) / SHARES * p.block;
    int64_t shares = k.own ? (points + share - 1) / share : 1, chunks = least(k.own ? share : points, CHUNK);
    int64_t tiled = 0, weights = 0;
    for (step *s = p.steps; s < p.steps + links; s++) {
        int64_t at = 0, bias = 0;
        for (stage *t = s->stages; t < s->stages + s->is->layers; t++) {
            t->tiled = at, t->sums = bias, t->weight = weights;
            at += tiles(t->out) * TILE * chunks, bias += t->out, weights += (t->in + 1) * t->out;
        }
        tiled = most(tiled, at), p.biases = most(p.biases, bias);
    }
    int64_t spare = panels(p.block * (2 * p.wide + 4 * p.moves + p.parameters + p.given)) * PANEL;
    int64_t own_size = spare + chunks * PANEL, between = links > 1 && !g_x ? points * features : 0;
    int64_t each = tiled + panels((chunks + p.block - 1) / p.block * p.biases) * PANEL, others = (shares - 1) * weights;
    p.packed = memory((copies * k.size + threads * own_size + shares * each + others + between) * sizeof(float));
    p.limits = memory(copies * k.count * sizeof(int64_t));
    if (!p.packed || !p.limits) return end(&p), 1;
    float *scratch = p.packed + copies * k.size, *gradients = scratch + threads * own_size;
    float *of_others = gradients + shares * each;
    flow f = {g_y, g_log, g_x ? g_x : of_others + others, g_x};
#pragma omp parallel num_threads(threads)
    {
        pass view = view_of(&p, k);
        float *own = scratch + omp_get_thread_num() * own_size;
        if (k.own) {
#pragma omp for schedule(static)
            for (int64_t i = 0; i < shares; i++) {
                float *at = gradients + i * each;
                chunk c = {i * share, 0, at, at + tiled, i ? of_others + (i - 1) * weights : 0, 0};
                back_by_share(&view, c, share, f, own, own + spare);
            }
#pragma omp for schedule(static)
            for (int64_t i = 0; i < p.layers; i++) join(p.stages + i, of_others, weights, shares);
        } else
            back_by_link(&p, (chunk){0, 0, gradients, gradients + tiled, 0, 0}, f, own, own + spare);
    }
    end(&p);
    return 0;
}
