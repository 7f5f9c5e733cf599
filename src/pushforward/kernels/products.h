/* Products of points with weights, the weights packed into panels of PANEL outputs, input after input, so that a tile of
   TILE points by PANEL outputs is summed up in registers. A weight that is masked to a staircase counts as 0 outside of
   it and is not read there: row i has only its first ``reach[i]`` columns, column j only rows from ``first[j]`` on. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16
#define TILE 12
#else
#define LANES 8
#define TILE 6
#endif
#define PANEL (2 * LANES)
#define HALF (TILE / 2)
#define RUN 256 /* points whose panels stay in the nearest cache while weights' gradients are summed up */

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

/* How much of a panel is computed for so many outputs: the first half, or both. */
ALWAYS int halves_of(int64_t width) { return width <= LANES ? 1 : 2; }

/* Add up the products of ``rows`` numbers, ``row`` apart, with one panel of weights, over ``n`` inputs, ``step`` apart. */
ALWAYS void add(panel *sum, int rows, int halves, const float *x, int64_t row, int64_t step, const float *weights,
                int64_t n) {
    lanes s[TILE][2];
    for (int r = 0; r < rows; r++) s[r][0] = sum[r].half[0], s[r][1] = sum[r].half[1];
    for (int64_t k = 0; k < n; k++) {
        lanes left = *(const lanes *)(weights + k * PANEL), right = left;
        if (halves == 2) right = *(const lanes *)(weights + k * PANEL + LANES);
        for (int r = 0; r < rows; r++) {
            float a = x[r * row + k * step];
            s[r][0] += left * a;
            if (halves == 2) s[r][1] += right * a;
        }
    }
    for (int r = 0; r < rows; r++) sum[r].half[0] = s[r][0], sum[r].half[1] = s[r][1];
}

enum kind { LINEAR, RECTIFY, MASK };

ALWAYS void tile(int rows, int halves, enum kind kind, const float *x, int64_t inputs, const float *packed, int64_t from,
                 int64_t to, const float *bias, const float *given, float *y, int64_t outputs, int64_t width) {
    panel sum[TILE], start;
    memset(&start, 0, sizeof start);
    if (bias) start = load(bias, width);
    for (int r = 0; r < rows; r++) sum[r] = start;
    add(sum, rows, halves, x + from, inputs, 1, packed + from * PANEL, to - from);
    for (int r = 0; r < rows; r++) {
        panel sign = kind == MASK ? load(given + r * outputs, width) : sum[r];
        for (int h = 0; kind != LINEAR && h < halves; h++) sum[r].half[h] = rectified(sum[r].half[h], sign.half[h]);
        store(sum[r], y + r * outputs, width);
    }
}

/* One panel of a product, tile by tile. The last tile takes in points of the one before it, if there are enough. */
ALWAYS void panel_of(int halves, enum kind kind, const float *x, int64_t points, int64_t inputs, const float *packed,
                     int64_t from, int64_t to, const float *bias, const float *given, float *y, int64_t outputs,
                     int64_t width) {
    for (int64_t i = 0; i < points; i += points < TILE ? 1 : TILE) {
        if (points < TILE)
            tile(1, halves, kind, x + i * inputs, inputs, packed, from, to, bias, given ? given + i * outputs : 0,
                 y + i * outputs, outputs, width);
        else {
            int64_t at = least(i, points - TILE);
            tile(TILE, halves, kind, x + at * inputs, inputs, packed, from, to, bias, given ? given + at * outputs : 0,
                 y + at * outputs, outputs, width);
        }
    }
}

/* y = x W' + b of a block of points; the panel's inputs are those of [from, to). With MASK, 0 where ``given`` is. */
ALWAYS void product(enum kind kind, const float *x, int64_t points, int64_t inputs, const float *packed,
                    const int64_t *from, const int64_t *to, const float *bias, const float *given, float *y,
                    int64_t outputs) {
    for (int64_t p = 0, j = 0; j < outputs; p++, j += PANEL) {
        const float *weights = packed + j * inputs, *b = bias ? bias + j : 0, *g = given ? given + j : 0;
        int64_t width = outputs - j, first = from ? from[p] : 0, end = to ? to[p] : inputs;
        if (halves_of(width) == 1)
            panel_of(1, kind, x, points, inputs, weights, first, end, b, g, y + j, outputs, width);
        else
            panel_of(2, kind, x, points, inputs, weights, first, end, b, g, y + j, outputs, width);
    }
}

/* Pack one panel of outputs; return how many of its inputs count: up to the last that one of them sees. */
static int64_t pack(const float *weight, const int64_t *reach, int64_t inputs, int64_t outputs, int64_t j, float *packed) {
    int64_t width = least(PANEL, outputs - j), end = reach ? 0 : inputs;
    for (int64_t l = 0; reach && l < width; l++) end = reach[j + l] > end ? reach[j + l] : end;
    for (int64_t l = 0; l < halves_of(width) * LANES; l++) {
        int64_t seen = l >= width ? 0 : reach ? reach[j + l] : inputs;
        for (int64_t k = 0; k < seen; k++) packed[k * PANEL + l] = weight[(j + l) * inputs + k];
        for (int64_t k = seen; k < end; k++) packed[k * PANEL + l] = 0.0f;
    }
    return end;
}

/* Pack one panel of inputs for the way back; return the first output that counts. */
static int64_t pack_back(const float *weight, const int64_t *reach, const int64_t *first, int64_t inputs, int64_t outputs,
                         int64_t j, float *packed) {
    int64_t start = first ? outputs : 0;
    for (int64_t c = j; first && c < least(j + PANEL, inputs); c++) start = least(start, first[c]);
    for (int64_t o = start; packed && o < outputs; o++)
        store(load(weight + o * inputs + j, (reach ? reach[o] : inputs) - j), packed + o * PANEL, PANEL);
    return start;
}

/* Some rows of the gradient of a panel of columns: ``tiled`` has those of what comes out, ``side`` what goes in. */
ALWAYS void rows_of(int size, int halves, int rows, const float *tiled, const float *side, int64_t points, int64_t inputs,
                    int64_t width, const int64_t *reach, int64_t j, int again, float *gradient) {
    panel sum[TILE];
    for (int r = 0; r < size; r++) {
        memset(sum + r, 0, sizeof(panel));
        if (r < rows && again) sum[r] = load(gradient + r * inputs, width);
    }
    add(sum, size, halves, tiled, 1, TILE, side, points);
    for (int r = 0; r < rows; r++) {
        int64_t seen = (reach ? reach[r] : j + width) - j;
        store(seen < least(width, PANEL) ? cut(sum[r], seen) : sum[r], gradient + r * inputs, width);
    }
}

/* The gradient of one panel of columns of a weight from that of what comes out, which lies in tiles of outputs, point by
   point; outputs before ``first`` see none of them. */
static void columns(const float *given, const float *tiled, int64_t points, int64_t inputs, int64_t outputs, int64_t j,
                    const int64_t *reach, int64_t first, int again, float *side, float *gradient) {
    int64_t width = inputs - j, whole = first / TILE * TILE;
    for (int64_t r = 0; r < points; r++) store(load(given + r * inputs + j, width), side + r * PANEL, PANEL);
    panel zero;
    memset(&zero, 0, sizeof zero);
    for (int64_t o = 0; !again && o < least(whole, outputs); o++) store(zero, gradient + o * inputs + j, width);
    for (int64_t run = 0; run < points; run += RUN)
        for (int64_t o = whole; o < outputs; o += TILE) {
            int rows = (int)least(TILE, outputs - o), small = rows <= HALF;
            const float *of = tiled + (o / TILE * points + run) * TILE, *in = side + run * PANEL;
            const int64_t *ends = reach ? reach + o : 0;
            float *to = gradient + o * inputs + j;
            int64_t n = least(RUN, points - run);
            if (halves_of(width) == 1 && small) rows_of(HALF, 1, rows, of, in, n, inputs, width, ends, j, again || run, to);
            else if (halves_of(width) == 1) rows_of(TILE, 1, rows, of, in, n, inputs, width, ends, j, again || run, to);
            else if (small) rows_of(HALF, 2, rows, of, in, n, inputs, width, ends, j, again || run, to);
            else rows_of(TILE, 2, rows, of, in, n, inputs, width, ends, j, again || run, to);
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
