/* A chain of elementwise maps, each of some elements of a point, under parameters that a perceptron with rectifiers,
   W_L r(... r(W_1 x + b_1 + c) ...) + b_L, makes of others; and its gradient. Couplings and autoregressive transforms are
   such links. A perceptron alone is a chain of one link without a map.

   A block of points goes through all layers of a link, and of a small chain, while it is in the cache of a core. What a
   point gives depends on no other point of the batch, and the order of every sum on nothing but sizes, not on threads.
   NaN stays NaN. */

#include <omp.h>

#include "products.h"

#define BLOCK 48           /* points that go through all layers together */
#define CHUNK 4096         /* points whose gradients are kept at a time */
#define FEW (1 << 20)      /* multiplications that are not worth a second thread */
#define TOGETHER (1 << 19) /* numbers of a small chain, whose links are done together */

/* An elementwise map of n numbers, and what its gradient makes of those of values and log-derivatives. ``at`` is the
   point in the model's own direction: what goes in, or comes out of the inverse. The gradient uses it and ``g_value`` up.
   */
typedef void (*map_of)(const void *how, const float *in, const float *parameters, int64_t n, float *out,
                       float *log_derivative);
typedef void (*gradient_of)(const void *how, float *at, const float *parameters, int64_t n, float *g_value,
                            const float *g_log, float *g_point, float *g_parameters);

/* What the caller lays out in a table of words of 8 bytes: links, and where each of them says so, its layers. A null
   pointer is something that is not there, or not wanted. */
typedef struct {
    int64_t outputs;
    const float *weight, *bias;
    const int64_t *reach, *first;
    float *g_weight, *g_bias;
} layer;

typedef struct {
    int64_t layers, place;      /* number of layers, and the word where they begin */
    const void *how;
    map_of map;
    gradient_of gradient;
    int64_t inverse;            /* whether the map goes against the model's own direction */
    const int64_t *stay, *move; /* elements that the perceptron is given, and that are mapped; null: all */
    int64_t given, moves;       /* their numbers */
    const float *context;       /* added before the first rectifier */
    int64_t context_row;        /* from point to point */
    float *g_first;             /* gradient of what the first layer gives */
} link;

/* A layer, and a link, in a pass; where the numbers of the layer begin in its memory. */
typedef struct {
    const layer *is;
    int64_t in, out, panels, panel, packed, tiled, sums;
    float *result; /* what it gives, if that is kept */
} stage;

typedef struct {
    const link *is;
    stage *stages;
    const float *in;
    float *fixed, *out; /* elements that stay, if they are kept; what the link gives */
} step;

typedef struct {
    int64_t links, layers, wide, given, moves, parameters; /* numbers of both, and the largest widths */
    int64_t points, features, block, work;
    step *steps;
    stage *stages;
    float *packed;   /* weights in panels */
    int64_t *limits; /* of each panel, up to which input, or from which output on, it is not 0 */
    float *tiled;    /* gradients of what layers give, in tiles */
} pass;

static void *memory(int64_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

ALWAYS int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Smaller blocks of few points, so that there are enough for all threads, whose number must not count. */
static int64_t block_of(int64_t points) {
    int64_t block = BLOCK;
    while (block > 2 * TILE && points < 16 * block) block /= 2;
    return block;
}

/* Read the table. ``kept`` gets one link after the other: elements that stay, what the layers give, what the link gives;
   if it is null nothing is kept, and all links change ``y``. The steps are to be freed. */
static pass plan(const int64_t *table, int64_t links, int64_t points, int64_t features, const float *x, float *kept,
                 float *y) {
    const link *all = (const link *)table;
    pass p = {.links = links, .points = points, .features = features, .block = block_of(points)};
    for (int64_t i = 0; i < links; i++) p.layers += all[i].layers;
    p.steps = memory(links * sizeof(step) + p.layers * sizeof(stage));
    if (!p.steps) return p;
    stage *at = p.stages = (stage *)(p.steps + links);
    for (int64_t i = 0; i < links; i++) {
        const link *l = all + i;
        const layer *layers = (const layer *)(table + l->place);
        step *s = p.steps + i;
        *s = (step){l, at, i ? p.steps[i - 1].out : x, 0, y};
        if (kept && l->stay) s->fixed = kept, kept += points * l->given;
        p.given = most(p.given, l->given), p.moves = most(p.moves, l->moves), p.wide = most(p.wide, l->given);
        for (int64_t j = 0, in = l->given; j < l->layers; j++, at++) {
            *at = (stage){.is = layers + j, .in = in, .out = layers[j].outputs};
            if (j == l->layers - 1 && !l->map) at->result = y;
            else if (kept) at->result = kept, kept += points * at->out;
            p.work += points * in * at->out, p.wide = most(p.wide, at->out);
            in = at->out;
        }
        p.parameters = most(p.parameters, at[-1].out);
        if (kept && i < links - 1) s->out = kept, kept += points * features;
    }
    return p;
}

static void end(const pass *p) { free(p->packed), free(p->limits), free(p->steps); }

static int threads_of(const pass *p) { return p->work < FEW ? 1 : omp_get_max_threads(); }

/* Which layer a panel belongs to, of these and those after them. */
static const stage *stage_of(const stage *stages, int64_t panel) {
    while (panel >= stages->panel + stages->panels) stages++;
    return stages;
}

ALWAYS void gather(const float *from, int64_t n, int64_t features, const int64_t *order, int64_t count, float *to) {
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < count; i++) to[r * count + i] = from[r * features + (order ? order[i] : i)];
}

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

/* Take n points through a link, ``own`` being memory of the thread. */
static void through(const pass *p, const step *s, int64_t row, int64_t n, float *own, float *log, int again) {
    const link *l = s->is;
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
    if (l->map) move(l, p->features, from, given, n, more, s->out + row * p->features, log + row, again);
}

/* Returns 1 where there is not enough memory. ``kept`` has room for what the gradient needs, or is null. Without a map y
   is what the perceptron gives, and there is no log_abs_det. */
int32_t chain_forward(const int64_t *table, int64_t links, const float *x, int64_t points, int64_t features, float *kept,
                      float *y, float *log_abs_det) {
    pass p = plan(table, links, points, features, x, kept, y);
    if (!p.steps) return 1;
    int threads = threads_of(&p);
    int64_t size = 0, count = 0, own_size = p.block * (2 * p.wide + 3 * p.moves + p.given);
    for (stage *t = p.stages; t < p.stages + p.layers; t++) {
        t->panels = panels(t->out), t->panel = count, t->packed = size;
        count += t->panels, size += t->panels * PANEL * t->in;
    }
    p.packed = memory((size + threads * own_size) * sizeof(float)), p.limits = memory(count * sizeof(int64_t));
    if (!p.packed || !p.limits) return end(&p), 1;
    float *scratch = p.packed + size;
    int64_t group = size <= TOGETHER ? links : 1;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; i++) {
            const stage *t = stage_of(p.stages, i);
            int64_t j = (i - t->panel) * PANEL;
            p.limits[i] = pack(t->is->weight, t->is->reach, t->in, t->out, j, p.packed + t->packed + j * t->in);
        }
        float *own = scratch + omp_get_thread_num() * own_size;
        for (int64_t k = 0; k < links; k += group)
#pragma omp for schedule(dynamic)
            for (int64_t row = 0; row < points; row += p.block)
                for (int64_t i = k; i < k + group; i++)
                    through(&p, p.steps + i, row, least(p.block, points - row), own, log_abs_det, i > 0);
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

/* Points whose gradients are kept at a time. */
typedef struct { int64_t begin, points; } chunk;

/* Take the gradients of n points of a chunk back through a link; leave their sums. */
static void back(const pass *p, const step *s, chunk c, int64_t at, int64_t n, const float *g_y, const float *g_log,
                 float *g_x, float *own, float *sums) {
    const link *l = s->is;
    int64_t row = c.begin + at;
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
        if (t->is->g_weight) spread(g, n, t->out, p->tiled + t->tiled + at * TILE, c.points, sums + t->sums);
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

/* The gradient of one panel of inputs of a layer's weight, from a chunk of points. */
static void weigh(const pass *p, const step *s, chunk c, int64_t panel, float *own) {
    const stage *t = stage_of(s->stages, panel);
    while (t >= s->stages + s->is->layers) s++;
    const float *given = t > s->stages ? t[-1].result : s->fixed ? s->fixed : s->in;
    if (t->is->g_weight)
        columns(given + c.begin * t->in, p->tiled + t->tiled, c.points, t->in, t->out, (panel - t->panel) * PANEL,
                t->is->reach, p->limits[panel], c.begin > 0, own, t->is->g_weight);
}

/* That of a bias, from what blocks of points left. */
static void add_up(const stage *t, chunk c, const float *sums, int64_t blocks, int64_t biases) {
    for (int64_t b = 0; t->is->g_bias && b < blocks; b++)
        for (int64_t o = 0; o < t->out; o++)
            t->is->g_bias[o] = (b || c.begin ? t->is->g_bias[o] : 0.0f) + sums[b * biases + t->sums + o];
}

/* Let links share the memory of gradients, one after the other: return how much that takes. */
static int64_t one_by_one(pass *p, int64_t *biases) {
    int64_t tiled = 0;
    *biases = 0;
    for (step *s = p->steps; s < p->steps + p->links; s++) {
        const stage first = s->stages[0], *last = s->stages + s->is->layers - 1;
        int64_t each = last->sums + last->out - first.sums;
        for (int64_t i = 0; i < s->is->layers; i++) s->stages[i].tiled -= first.tiled, s->stages[i].sums -= first.sums;
        tiled = most(tiled, last->tiled + tiles(last->out) * TILE * least(p->points, CHUNK)), *biases = most(*biases, each);
    }
    return tiled;
}

/* Returns 1 where there is not enough memory. x, ``kept`` and y are those of the way forward, y only needed where the last
   link is an inverse. ``g_x`` may be null. */
int32_t chain_backward(const int64_t *table, int64_t links, const float *x, int64_t points, int64_t features,
                       const float *kept, const float *y, const float *g_y, const float *g_log, float *g_x) {
    pass p = plan(table, links, points, features, x, (float *)kept, (float *)y);
    if (!p.steps) return 1;
    int threads = threads_of(&p);
    int64_t most_points = least(points, CHUNK), blocks = (most_points + p.block - 1) / p.block;
    int64_t size = 0, count = 0, tiled = 0, biases = 0;
    for (stage *t = p.stages; t < p.stages + p.layers; t++) {
        t->panels = panels(t->in), t->panel = count, t->packed = size, t->tiled = tiled, t->sums = biases;
        count += t->panels, size += t->panels * PANEL * t->out, tiled += tiles(t->out) * TILE * most_points;
        biases += t->out;
    }
    int64_t group = size + tiled <= TOGETHER ? links : 1;
    if (group < links) tiled = one_by_one(&p, &biases);
    int64_t spare = p.block * (2 * p.wide + 4 * p.moves + p.parameters + p.given) + PANEL - 1;
    spare -= spare % PANEL;
    int64_t own_size = spare + most_points * PANEL, between = links > 1 && !g_x ? points * features : 0;
    p.packed = memory((size + threads * own_size + tiled + biases * blocks + between) * sizeof(float));
    p.limits = memory(count * sizeof(int64_t));
    if (!p.packed || !p.limits) return end(&p), 1;
    float *scratch = p.packed + size, *sums = scratch + threads * own_size + tiled;
    float *g_between = g_x ? g_x : sums + biases * blocks;
    p.tiled = scratch + threads * own_size;
#pragma omp parallel num_threads(threads)
    {
        float *own = scratch + omp_get_thread_num() * own_size;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; i++) {
            const stage *t = stage_of(p.stages, i);
            int64_t j = (i - t->panel) * PANEL;
            float *to = t == p.stages && !g_x ? 0 : p.packed + t->packed + j * t->out;
            p.limits[i] = pack_back(t->is->weight, t->is->reach, t->is->first, t->in, t->out, j, to);
        }
        for (int64_t k = links; k > 0; k -= group) {
            const step *low = p.steps + k - group, *high = p.steps + k - 1;
            const stage *first = low->stages, *last = high->stages + high->is->layers - 1;
            int64_t begin = first->panel, own_panels = last->panel + last->panels - begin;
            for (chunk c = {0, least(CHUNK, points)}; c.begin < points;
                 c.begin += CHUNK, c.points = least(CHUNK, points - c.begin)) {
#pragma omp for schedule(dynamic)
                for (int64_t at = 0; at < c.points; at += p.block)
                    for (const step *s = high; s >= low; s--)
                        back(&p, s, c, at, least(p.block, c.points - at), s == p.steps + links - 1 ? g_y : g_between,
                             g_log, s == p.steps ? g_x : g_between, own, sums + at / p.block * biases);
#pragma omp for schedule(dynamic)
                for (int64_t i = 0; i < own_panels + (last - first + 1); i++)
                    if (i < own_panels)
                        weigh(&p, low, c, begin + i, own + spare);
                    else
                        add_up(first + i - own_panels, c, sums, (c.points + p.block - 1) / p.block, biases);
            }
        }
    }
    end(&p);
    return 0;
}
