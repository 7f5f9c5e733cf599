/* A perceptron with rectifiers, y = W_L r(... r(W_1 x + b_1 + c) ...) + b_L, and its gradient.

   A block of points goes through all layers while it is in the cache of a core. Weights are packed into panels of
   PANEL outputs, input after input, so that a tile of TILE points by PANEL outputs is summed up in registers. A weight
   that is masked to a staircase counts as 0 outside of it, is not read there and has the gradient 0: row i has only its
   first ``reach[i]`` columns, column j only rows from ``first[j]`` on. What a point gives depends on no other point of the batch, and the
   order of every sum on nothing but sizes, not on threads. NaN stays NaN.

   What the perceptron makes of some elements of a point may be the parameters of an elementwise map of others: with such
   a ``part`` a coupling, or an autoregressive transform, is one pass in each direction of differentiation. */

#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define PANEL (2 * LANES)
#define TILE 6
#define BLOCK 48          /* points that go through all layers together */
#define RUN 256           /* points whose panels stay in the nearest cache while weights' gradients are summed up */
#define CHUNK 4096        /* points whose gradients are kept at a time */
#define FEW (1 << 20)     /* multiplications that are not worth a second thread */

typedef float lanes __attribute__((vector_size(4 * LANES), may_alias));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t bits __attribute__((vector_size(4 * LANES), may_alias));
typedef struct { lanes half[2]; } panel;

#define ALWAYS static inline __attribute__((always_inline))

ALWAYS int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
ALWAYS int64_t panels(int64_t n) { return (n + PANEL - 1) / PANEL; }
ALWAYS int64_t tiles(int64_t n) { return (n + TILE - 1) / TILE; }

ALWAYS panel load(const float *from, int64_t width) {
    panel p;
    if (width >= PANEL) {
        p.half[0] = *(const loose *)from;
        p.half[1] = *(const loose *)(from + LANES);
    } else {
        memset(&p, 0, sizeof p);
        if (width > 0) memcpy(&p, from, width * sizeof(float));
    }
    return p;
}

/* The first numbers of a panel, and zeros. */
static panel cut(panel p, int64_t width) {
    float numbers[PANEL];
    memcpy(numbers, &p, sizeof numbers);
    return load(numbers, width);
}

ALWAYS void store(panel p, float *to, int64_t width) {
    if (width >= PANEL) {
        *(loose *)to = p.half[0];
        *(loose *)(to + LANES) = p.half[1];
    } else
        memcpy(to, &p, width * sizeof(float));
}

/* 0 where ``sign`` is not above 0, the value where it is, or is NaN. */
ALWAYS lanes rectified(lanes value, lanes sign) { return (lanes)((bits)value & ~(bits)(sign <= (lanes){0})); }

/* Add up the products of ``rows`` numbers, ``row`` apart, with one panel of weights, over ``n`` inputs, ``step`` apart. */
ALWAYS void add(panel *sum, int rows, const float *x, int64_t row, int64_t step, const float *weights, int64_t n) {
    lanes s[TILE][2];
    for (int r = 0; r < rows; r++) s[r][0] = sum[r].half[0], s[r][1] = sum[r].half[1];
    for (int64_t k = 0; k < n; k++) {
        lanes left = *(const lanes *)(weights + k * PANEL), right = *(const lanes *)(weights + k * PANEL + LANES);
        for (int r = 0; r < rows; r++) {
            float a = x[r * row + k * step];
            s[r][0] += left * a, s[r][1] += right * a;
        }
    }
    for (int r = 0; r < rows; r++) sum[r].half[0] = s[r][0], sum[r].half[1] = s[r][1];
}

enum kind { LINEAR, RECTIFY, MASK };

ALWAYS void tile(int rows, enum kind kind, const float *x, int64_t inputs, const float *packed, int64_t from, int64_t to,
                 const float *bias, const float *given, float *y, int64_t outputs, int64_t width) {
    panel sum[TILE], start;
    memset(&start, 0, sizeof start);
    if (bias) start = load(bias, width);
    for (int r = 0; r < rows; r++) sum[r] = start;
    add(sum, rows, x + from, inputs, 1, packed + from * PANEL, to - from);
    for (int r = 0; r < rows; r++) {
        panel sign = kind == MASK ? load(given + r * outputs, width) : sum[r];
        for (int h = 0; kind != LINEAR && h < 2; h++) sum[r].half[h] = rectified(sum[r].half[h], sign.half[h]);
        store(sum[r], y + r * outputs, width);
    }
}

/* y = x W' + b of a block of points; the panel's inputs are those of [from, to). With MASK, 0 where ``given`` is. */
ALWAYS void product(enum kind kind, const float *x, int64_t points, int64_t inputs, const float *packed,
                    const int64_t *from, const int64_t *to, const float *bias, const float *given, float *y,
                    int64_t outputs) {
    for (int64_t p = 0, j = 0; j < outputs; p++, j += PANEL) {
        const float *weights = packed + j * inputs, *b = bias ? bias + j : 0;
        int64_t width = outputs - j, i = 0, first = from ? from[p] : 0, end = to ? to[p] : inputs;
        for (; i + TILE <= points; i += TILE)
            tile(TILE, kind, x + i * inputs, inputs, weights, first, end, b, given ? given + i * outputs + j : 0,
                 y + i * outputs + j, outputs, width);
        for (; i < points; i++)
            tile(1, kind, x + i * inputs, inputs, weights, first, end, b, given ? given + i * outputs + j : 0,
                 y + i * outputs + j, outputs, width);
    }
}

/* An elementwise map of n numbers, and what its gradient makes of those of values and log-derivatives. ``at`` is the
   point in the model's own direction: what goes in, or comes out of the inverse. The gradient uses it and ``g_value`` up.
   */
typedef void (*map_of)(const void *how, const float *in, const float *parameters, int64_t n, float *out,
                       float *log_derivative);
typedef void (*gradient_of)(const void *how, float *at, const float *parameters, int64_t n, float *g_value,
                            const float *g_log, float *g_point, float *g_parameters);

/* Elements ``stay`` of a point (null: all) make the parameters under which its elements ``move`` (null: all) move. */
typedef struct {
    const void *how;
    map_of map;
    gradient_of gradient;
    const int64_t *stay, *move;
    int64_t features, moves;
    float *fixed, *y, *log_abs_det; /* forward: the elements that stay, to be kept unless null; results */
    const float *at, *g_y, *g_log;  /* backward */
} part;

ALWAYS void gather(const float *from, int64_t n, int64_t features, const int64_t *order, int64_t count, float *to) {
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < count; i++) to[r * count + i] = from[r * features + (order ? order[i] : i)];
}

/* Map the elements that move of n points; ``own`` has room for three numbers for each. */
static void move(const part *c, const float *x, const float *parameters, int64_t n, float *own, float *y, float *log) {
    int64_t size = n * c->moves;
    float *in = own, *out = own + size, *each = out + size;
    gather(x, n, c->features, c->move, c->moves, in);
    c->map(c->how, in, parameters, size, out, each);
    if (c->move) memcpy(y, x, n * c->features * sizeof(float));
    for (int64_t r = 0; r < n; r++) {
        float sum = 0.0f;
        for (int64_t i = 0; i < c->moves; i++) {
            y[r * c->features + (c->move ? c->move[i] : i)] = out[r * c->moves + i];
            sum += each[r * c->moves + i];
        }
        log[r] = sum;
    }
}

/* Its gradient: that of the parameters, and of the elements that move, which are left in ``own`` with room for four. */
static const float *unmove(const part *c, int64_t row, const float *parameters, int64_t n, float *own, float *g_parameters) {
    int64_t size = n * c->moves;
    float *at = own, *g_value = own + size, *g_log = g_value + size, *g_point = g_log + size;
    gather(c->at + row * c->features, n, c->features, c->move, c->moves, at);
    gather(c->g_y + row * c->features, n, c->features, c->move, c->moves, g_value);
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < c->moves; i++) g_log[r * c->moves + i] = c->g_log[row + r];
    c->gradient(c->how, at, parameters, size, g_value, g_log, g_point, g_parameters);
    return g_point;
}

/* Put the gradients of a point's elements together. */
static void put(const part *c, int64_t row, int64_t n, const float *g_point, const float *g_fixed, int64_t fixed, float *g_x) {
    g_x += row * c->features;
    memcpy(g_x, c->g_y + row * c->features, n * c->features * sizeof(float));
    for (int64_t r = 0; r < n; r++, g_x += c->features) {
        for (int64_t i = 0; i < c->moves; i++) g_x[c->move ? c->move[i] : i] = g_point[r * c->moves + i];
        for (int64_t i = 0; i < fixed; i++) g_x[c->stay ? c->stay[i] : i] += g_fixed[r * fixed + i];
    }
}

static void *memory(int64_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

static int threads_for(int64_t points, int64_t layers, const int64_t *widths) {
    int64_t work = 0;
    for (int64_t i = 0; i < layers; i++) work += points * widths[i] * widths[i + 1];
    return work < FEW ? 1 : omp_get_max_threads();
}

/* Smaller blocks of few points, so that there are enough for all threads, whose number must not count. */
static int64_t block_of(int64_t points) {
    int64_t block = BLOCK;
    while (block > 2 * TILE && points < 16 * block) block /= 2;
    return block;
}

static int64_t widest(int64_t layers, const int64_t *widths) {
    int64_t most = 1;
    for (int64_t i = 0; i <= layers; i++) most = widths[i] > most ? widths[i] : most;
    return most;
}

/* One panel of outputs: its inputs, up to the last that one of them sees. */
static int64_t pack(const float *weight, const int64_t *reach, int64_t inputs, int64_t outputs, int64_t j, float *packed) {
    int64_t width = least(PANEL, outputs - j), end = reach ? 0 : inputs;
    for (int64_t l = 0; reach && l < width; l++) end = reach[j + l] > end ? reach[j + l] : end;
    for (int64_t l = 0; l < PANEL; l++) {
        int64_t seen = l >= width ? 0 : reach ? reach[j + l] : inputs;
        for (int64_t k = 0; k < seen; k++) packed[k * PANEL + l] = weight[(j + l) * inputs + k];
        for (int64_t k = seen; k < end; k++) packed[k * PANEL + l] = 0.0f;
    }
    return end;
}

/* Returns 1 where there is not enough memory. ``results`` of layers are kept where they are not null; without a part the
   last has one. Contexts lie ``context_row`` apart. */
int32_t perceptron_forward(const float *x, int64_t points, int64_t layers, const int64_t *widths,
                           const float *const *weights, const float *const *biases, const int64_t *const *reach,
                           const float *context, int64_t context_row, float *const *results, const part *c) {
    int threads = threads_for(points, layers, widths);
    int64_t block = block_of(points), wide = widest(layers, widths), size = 0, count = 0;
    int64_t place[layers + 1], number[layers + 1];
    for (int64_t i = 0; i < layers; i++) {
        place[i] = size, number[i] = count;
        size += panels(widths[i + 1]) * PANEL * widths[i], count += panels(widths[i + 1]);
    }
    number[layers] = count;
    int64_t own_size = block * (2 * wide + (c ? widths[0] + 3 * c->moves : 0)), features = c ? c->features : widths[0];
    float *packed = memory((size + threads * own_size) * sizeof(float)), *scratch = packed + size;
    int64_t *end = memory(count * sizeof(int64_t));
    if (!packed || !end) return free(packed), free(end), 1;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t p = 0; p < count; p++) {
            int64_t i = 0;
            while (p >= number[i + 1]) i++;
            int64_t j = (p - number[i]) * PANEL;
            end[p] = pack(weights[i], reach[i], widths[i], widths[i + 1], j, packed + place[i] + j * widths[i]);
        }
        float *own = scratch + omp_get_thread_num() * own_size, *more = own + 2 * block * wide;
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < points; first += block) {
            int64_t n = least(block, points - first);
            const float *given = x + first * features;
            if (c && c->stay) {
                float *fixed = c->fixed ? c->fixed + first * widths[0] : more + 3 * block * c->moves;
                gather(given, n, features, c->stay, widths[0], fixed);
                given = fixed;
            }
            for (int64_t i = 0; i < layers; i++) {
                int64_t in = widths[i], out = widths[i + 1];
                float *to = results[i] ? results[i] + first * out : own + i % 2 * block * wide;
                const float *w = packed + place[i];
                if (i == layers - 1 || (i == 0 && context))
                    product(LINEAR, given, n, in, w, 0, end + number[i], biases[i], 0, to, out);
                else
                    product(RECTIFY, given, n, in, w, 0, end + number[i], biases[i], 0, to, out);
                if (i == 0 && context)
                    for (int64_t r = 0; r < n; r++) {
                        const float *c = context + (first + r) * context_row;
                        for (int64_t l = 0; l < out; l++) {
                            float sum = to[r * out + l] + c[l];
                            to[r * out + l] = layers > 1 && sum <= 0.0f ? 0.0f : sum;
                        }
                    }
                given = to;
            }
            if (c)
                move(c, x + first * features, given, n, more, c->y + first * features, c->log_abs_det + first);
        }
    }
    free(packed), free(end);
    return 0;
}

/* What the gradient of one layer's weights is summed up from, for a chunk of points. */
typedef struct {
    int64_t in, out, panels, from, part; /* widths; panels of inputs; number of the first; where biases begin */
    const int64_t *reach;
    float *packed, *spread;              /* weights in panels of inputs; gradients in tiles of outputs, point by point */
} layer;

/* The gradient of one panel of columns of a weight, from a chunk of points. */
static void columns(const layer *l, int64_t j, int64_t first, const float *given, int64_t points, int again, float *panel_of,
                    float *gradient) {
    int64_t width = l->in - j, whole = first / TILE * TILE;
    for (int64_t r = 0; r < points; r++) {
        panel p = load(given + r * l->in + j, width);
        *(lanes *)(panel_of + r * PANEL) = p.half[0], *(lanes *)(panel_of + r * PANEL + LANES) = p.half[1];
    }
    panel zero;
    memset(&zero, 0, sizeof zero);
    for (int64_t o = 0; !again && o < least(whole, l->out); o++) store(zero, gradient + o * l->in + j, width);
    for (int64_t run = 0; run < points; run += RUN)
        for (int64_t o = whole; o < l->out; o += TILE) {
            int rows = (int)least(TILE, l->out - o);
            panel sum[TILE];
            for (int r = 0; r < TILE; r++)
                sum[r] = r < rows && (again || run) ? load(gradient + (o + r) * l->in + j, width) : zero;
            add(sum, TILE, l->spread + (o / TILE * points + run) * TILE, 1, TILE, panel_of + run * PANEL,
                least(RUN, points - run));
            for (int r = 0; r < rows; r++) {
                int64_t seen = (l->reach ? l->reach[o + r] : l->in) - j;
                store(seen < least(width, PANEL) ? cut(sum[r], seen) : sum[r], gradient + (o + r) * l->in + j, width);
            }
        }
}

/* Lay the gradients of a block of points out in tiles, and add them up over the points. */
static void spread(const float *gradient, int64_t n, int64_t out, float *tiled, int64_t points, float *sums) {
    memset(sums, 0, out * sizeof(float));
    for (int64_t r = 0; r < n; r++)
        for (int64_t o = 0; o < out; o++) sums[o] += gradient[r * out + o];
    int64_t t = 0;
    for (; (t + 1) * TILE <= out; t++)
        for (int64_t r = 0; r < n; r++)
            memcpy(tiled + (t * points + r) * TILE, gradient + r * out + t * TILE, TILE * sizeof(float));
    for (int64_t r = 0; t * TILE < out && r < n; r++)
        for (int64_t l = 0, o = t * TILE; l < TILE; l++, o++)
            tiled[(t * points + r) * TILE + l] = o < out ? gradient[r * out + o] : 0.0f;
}

/* Returns 1 where there is not enough memory. ``results`` are those of all layers, after the rectifier; ``x`` is what the
   first was given. ``gradient`` is of the last without a part. ``g_x``, and ``g_first``, the gradient of what the first
   layer gives, may be null; so may ``g_weights`` with ``g_biases``. */
int32_t perceptron_backward(const float *x, int64_t points, int64_t layers, const int64_t *widths,
                            const float *const *weights, const int64_t *const *reach, const int64_t *const *first,
                            const float *const *results, const float *gradient, float *g_x, float *g_first,
                            float *const *g_weights, float *const *g_biases, const part *c) {
    int threads = threads_for(points, layers, widths);
    int64_t block = block_of(points), wide = widest(layers, widths), chunk = least(points, CHUNK);
    int64_t blocks = (chunk + block - 1) / block, size = 0, count = 0, biases = 0, lowest = g_x ? 0 : 1;
    layer all[layers];
    for (int64_t i = 0; i < layers; i++) {
        int64_t in = widths[i], out = widths[i + 1];
        all[i] = (layer){in, out, panels(in), count, biases, reach[i], 0, 0};
        count += panels(in), biases += out;
        size += panels(in) * PANEL * out + (g_weights ? tiles(out) * TILE * chunk : 0);
    }
    int64_t moving = c ? block * (4 * c->moves + widths[layers] + widths[0]) : 0;
    int64_t spare = (2 * block * wide + moving + PANEL - 1) / PANEL * PANEL, own_size = spare + chunk * PANEL;
    float *space = memory((size + biases * blocks + threads * own_size) * sizeof(float)), *rest = space;
    int64_t *from = memory(count * sizeof(int64_t));
    if (!space || !from) return free(space), free(from), 1;
    for (int64_t i = 0; i < layers; i++) {
        all[i].packed = rest, rest += all[i].panels * PANEL * all[i].out;
    }
    float *scratch = rest;
    rest += threads * own_size;
    for (int64_t i = 0; g_weights && i < layers; i++) {
        all[i].spread = rest, rest += tiles(all[i].out) * TILE * chunk;
    }
    float *parts = rest;
#pragma omp parallel num_threads(threads)
    {
        float *own = scratch + omp_get_thread_num() * own_size, *more = own + 2 * block * wide;
        float *of_map = c ? more + 4 * block * c->moves : own, *of_fixed = c ? of_map + block * widths[layers] : own;
#pragma omp for schedule(static)
        for (int64_t p = 0; p < count; p++) {
            int64_t i = 0;
            while (i + 1 < layers && p >= all[i + 1].from) i++;
            const layer *l = all + i;
            int64_t j = (p - l->from) * PANEL, start = first[i] ? l->out : 0;
            for (int64_t c = j; first[i] && c < least(j + PANEL, l->in); c++) start = least(start, first[i][c]);
            from[p] = start;
            for (int64_t o = start; i >= lowest && o < l->out; o++) {
                panel row = load(weights[i] + o * l->in + j, (l->reach ? l->reach[o] : l->in) - j);
                store(row, l->packed + j * l->out + o * PANEL, PANEL);
            }
        }
        for (int64_t begin = 0; begin < points; begin += CHUNK) {
            int64_t now = least(CHUNK, points - begin);
#pragma omp for schedule(dynamic)
            for (int64_t at = 0; at < now; at += block) {
                int64_t n = least(block, now - at), row = begin + at;
                const float *g = c ? of_map : gradient + row * widths[layers], *of_point = 0;
                if (c) of_point = unmove(c, row, results[layers - 1] + row * widths[layers], n, more, of_map);
                for (int64_t i = layers - 1; i >= 0; i--) {
                    const layer *l = all + i;
                    if (g_weights)
                        spread(g, n, l->out, l->spread + at * TILE, now, parts + at / block * biases + l->part);
                    if (i == 0 && g_first) memcpy(g_first + row * l->out, g, n * l->out * sizeof(float));
                    if (i < lowest) break;
                    float *below = i ? own + i % 2 * block * wide : c ? of_fixed : g_x + row * l->in;
                    if (i)
                        product(MASK, g, n, l->out, l->packed, from + l->from, 0, 0, results[i - 1] + row * l->in, below,
                                l->in);
                    else
                        product(LINEAR, g, n, l->out, l->packed, from + l->from, 0, 0, 0, below, l->in);
                    g = below;
                }
                if (c && g_x) put(c, row, n, of_point, g, widths[0], g_x);
            }
#pragma omp for schedule(dynamic)
            for (int64_t p = 0; p < (g_weights ? count + layers : 0); p++) {
                int64_t i = 0;
                if (p >= count) {
                    i = p - count;
                    for (int64_t b = 0; b < (now + block - 1) / block; b++)
                        for (int64_t o = 0; o < all[i].out; o++)
                            g_biases[i][o] = (b || begin ? g_biases[i][o] : 0.0f) + parts[b * biases + all[i].part + o];
                    continue;
                }
                while (i + 1 < layers && p >= all[i + 1].from) i++;
                const float *given = i ? results[i - 1] : x;
                columns(all + i, (p - all[i].from) * PANEL, from[p], given + begin * all[i].in, now, begin > 0,
                        own + spare, g_weights[i]);
            }
        }
    }
    free(space), free(from);
    return 0;
}
