/* A chain as its kernel sees it: the table of links and layers that the caller lays out, and the plan of one pass. */

#include <omp.h>

#include "products.h"

#define BLOCK 48           /* points that go through all layers together */
#define CHUNK 4096         /* points whose gradients are kept at a time */
#define FEW (1 << 20)      /* multiplications that are not worth a second thread */
#define SMALL (1 << 15)    /* weights of a link that each thread lays out for itself: what another core wrote comes slowly */
#define SHARES 4           /* parts of the points that are gone back through small links, each by one thread */

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
    int64_t in, out, panels, panel, packed, tiled, sums, weight;
    float *result; /* what it gives, if that is kept */
} stage;

typedef struct {
    const link *is;
    stage *stages;
    int64_t panels;
    const float *in;
    float *fixed, *out; /* elements that stay, if they are kept; what the link gives */
} step;

typedef struct {
    int64_t links, layers, wide, given, moves, parameters; /* numbers of both, and the largest widths */
    int64_t points, features, block, work;
    step *steps;
    stage *stages;
    int64_t biases;  /* of a link, at most */
    float *packed;   /* weights of a link in panels */
    int64_t *limits; /* of each panel, up to which input, or from which output on, it is not 0 */
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
        *s = (step){l, at, 0, i ? p.steps[i - 1].out : x, 0, y};
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
