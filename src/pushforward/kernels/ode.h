/* The field of a continuous flow at many points side by side, each in a lane of vectors and at a time of its own.

   REAL is given by the compiler's command line. Values of units lie as [unit][lane]; a bias is the weight of one more
   input that is 1. Every sum of a lane has an order that depends on sizes alone, so that no point is changed by those
   beside it. Times are doubles whatever REAL is. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __AVX512F__
#define BYTES 64
#define TILE 16
#else
#define BYTES 32
#define TILE 8
#endif
#define LANES ((int)(BYTES / sizeof(REAL)))
#define SINGLE (sizeof(REAL) == 4)
#define EACH for (int l = 0; l < LANES; l++)
#define ALWAYS static inline __attribute__((always_inline))

typedef REAL lanes __attribute__((vector_size(BYTES), may_alias));
typedef __typeof__((lanes){0} < (lanes){0}) mask;

enum activation { TANH, SILU, SOFTPLUS };

ALWAYS int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
ALWAYS lanes all(REAL x) { return x - (lanes){0}; } /* -0 stays so */
ALWAYS lanes choose(mask where, lanes a, lanes b) { return (lanes)(((mask)a & where) | ((mask)b & ~where)); }
ALWAYS mask sign_bit(void) { return (mask)all(-0.0); }
ALWAYS lanes size_of(lanes x) { return (lanes)((mask)x & ~sign_bit()); }
ALWAYS lanes with_sign(lanes size, lanes sign) { return (lanes)(((mask)size & ~sign_bit()) | ((mask)sign & sign_bit())); }

static void *memory(int64_t bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }

static lanes *room(lanes **place, int64_t count) {
    lanes *here = *place;
    *place += count;
    return here;
}

/* Taylor's coefficients of e^x from 1 / 2! on. */
static const double INVERSE_FACTORIALS[] = {
    1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800,
    1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0, 1.0 / 87178291200.0};

/* e^x for x <= 0, or while it has room, less 1 if asked for, with the relative error of a few roundings also near 0; NaN stays NaN. */
ALWAYS lanes exponential(lanes x, int less_one) {
    const REAL lowest = SINGLE ? -87 : -708, magic = SINGLE ? 12582912.0 : 6755399441055744.0;
    const REAL high = SINGLE ? 0.693359375 : 0.693145751953125, low = SINGLE ? -2.12194440e-4 : 1.42860682030941723212e-6;
    x = choose(x < lowest, all(lowest), x);
    /* The nearest whole number stands in the last bits of the sum with the magic number. */
    lanes sum = x * (REAL)1.44269504088896340736 + magic, n = sum - magic;
    lanes r = (x - n * high) - n * low, p = all(INVERSE_FACTORIALS[SINGLE ? 6 : 12]);
    for (int i = SINGLE ? 5 : 11; i >= 0; i--) p = p * r + (REAL)INVERSE_FACTORIALS[i];
    lanes power = (lanes)(((mask)sum + (SINGLE ? 127 : 1023)) << (SINGLE ? 23 : 52));
    lanes rest = power;
    if (less_one) rest -= 1;
    return (p * r * r + r) * power + rest;
}

/* e^x of any size. */
ALWAYS lanes exponential_of_any(lanes x) {
    return choose(x > (SINGLE ? 88 : 709), all(INFINITY), exponential(x, 0));
}

/* log(1 + e) for 0 <= e <= 1: twice the area tangent of e / (2 + e). */
ALWAYS lanes logarithm_plus_one(lanes e) {
    const int terms = SINGLE ? 8 : 17;
    lanes s = e / (e + 2), square = s * s, p = all((REAL)1 / (2 * terms + 1));
    for (int i = terms - 1; i >= 0; i--) p = p * square + (REAL)1 / (2 * i + 1);
    return 2 * s * p;
}

/* 1 / a and 1 / b by one division, for numbers between 1 and 2. */
ALWAYS void inverses(lanes a, lanes b, lanes *of_a, lanes *of_b) {
    lanes both = 1 / (a * b);
    *of_a = both * b, *of_b = both * a;
}

/* What an activation takes from the exponential of a number that is not above 0. */
ALWAYS lanes exponential_of(enum activation kind, lanes z) {
    return kind == TANH ? exponential(-2 * size_of(z), 1) : exponential(-size_of(z), 0);
}

ALWAYS void activated(enum activation kind, int bend, lanes z, lanes e, lanes inverse, lanes *value, lanes *slope,
                      lanes *second) {
    if (kind == TANH) {
        lanes h = with_sign(e * inverse, z);
        *value = h, *slope = 1 - h * h;
        if (bend) *second = -2 * h * *slope;
        return;
    }
    lanes sigmoid = choose(z < 0, e, all(1)) * inverse, spread = e * inverse * inverse;
    if (kind == SILU) {
        *value = z * sigmoid, *slope = sigmoid + z * spread;
        if (bend) *second = spread * (2 + z * (1 - 2 * sigmoid));
    } else {
        *value = choose(z < 0, (lanes){0}, z) + logarithm_plus_one(e), *slope = sigmoid;
        if (bend) *second = spread;
    }
}

/* An activation with its first derivative and, for a gradient, its second. Two units share a division, the last of an odd
   number with a zero, for which there must be room. */
ALWAYS void activate_all(enum activation kind, int bend, int64_t units, lanes *value, lanes *slope, lanes *second) {
    const REAL more = kind == TANH ? 2 : 1;
    if (units & 1) value[units] = all(0);
    for (int64_t i = 0; i < units; i += 2) {
        lanes z = value[i], w = value[i + 1], e = exponential_of(kind, z), f = exponential_of(kind, w), of_z, of_w;
        inverses(e + more, f + more, &of_z, &of_w);
        activated(kind, bend, z, e, of_z, value + i, slope + i, second + i);
        activated(kind, bend, w, f, of_w, value + i + 1, slope + i + 1, second + i + 1);
    }
}

static void activate(enum activation kind, int bend, int64_t units, lanes *value, lanes *slope, lanes *second) {
    if (kind == TANH) activate_all(TANH, bend, units, value, slope, second);
    else if (kind == SILU) activate_all(SILU, bend, units, value, slope, second);
    else activate_all(SOFTPLUS, bend, units, value, slope, second);
}

/* Sine and cosine of an angle in half turns. */
ALWAYS void half_turns(double angle, double *sine, double *cosine) {
    const double magic = 6755399441055744.0;
    double r = angle - 2.0 * ((0.5 * angle + magic) - magic), quarter = (2.0 * r + magic) - magic;
    double x = 3.14159265358979323846 * (r - 0.5 * quarter), y = x * x;
    double s = -1.0 / 1307674368000.0, c = 1.0 / 20922789888000.0;
    s = s * y + 1.0 / 6227020800.0, c = c * y - 1.0 / 87178291200.0;
    s = s * y - 1.0 / 39916800.0, c = c * y + 1.0 / 479001600.0;
    s = s * y + 1.0 / 362880.0, c = c * y - 1.0 / 3628800.0;
    s = s * y - 1.0 / 5040.0, c = c * y + 1.0 / 40320.0;
    s = s * y + 1.0 / 120.0, c = c * y - 1.0 / 720.0;
    s = s * y - 1.0 / 6.0, c = c * y + 1.0 / 24.0;
    s = x + x * y * s, c = 1.0 - 0.5 * y + y * y * c;
    int odd = quarter == 1.0 || quarter == -1.0;
    double one = odd ? c : s, other = odd ? s : c;
    *sine = quarter == 0.0 || quarter == 1.0 ? one : -one;
    *cosine = quarter == 0.0 || quarter == -1.0 ? other : -other;
}

/* Lay out a matrix, or its transpose, in tiles of rows, column after column. */
static void pack(const REAL *weight, int64_t row, int64_t column, int64_t rows, int64_t columns, REAL *packed) {
    for (int64_t i = 0, tile; i < rows; i += tile, packed += tile * columns) {
        for (tile = TILE; tile > rows - i;) tile /= 2;
        for (int64_t k = 0; k < columns; k++)
            for (int64_t r = 0; r < tile; r++) packed[k * tile + r] = weight[(i + r) * row + k * column];
    }
}

ALWAYS void tile_of(int tile, const REAL *packed, int64_t count, const lanes *x, const lanes *start, lanes *out) {
    lanes s[TILE];
    for (int r = 0; r < tile; r++) s[r] = start ? start[r] : (lanes){0};
    for (int64_t k = 0; k < count; k++)
        for (int r = 0; r < tile; r++) s[r] += x[k] * packed[k * tile + r];
    for (int r = 0; r < tile; r++) out[r] = s[r];
}

/* out = start + W x over the first ``count`` columns of a packed matrix. */
static void product(const REAL *packed, int64_t rows, int64_t columns, int64_t count, const lanes *x, const lanes *start,
                    lanes *out) {
    for (int64_t i = 0, tile; i < rows; i += tile) {
        const REAL *here = packed + i * columns;
        const lanes *from = start ? start + i : 0;
        if (rows - i >= TILE) tile_of(tile = TILE, here, count, x, from, out + i);
#if TILE == 16
        else if (rows - i >= 8) tile_of(tile = 8, here, count, x, from, out + i);
#endif
        else if (rows - i >= 4) tile_of(tile = 4, here, count, x, from, out + i);
        else if (rows - i >= 2) tile_of(tile = 2, here, count, x, from, out + i);
        else tile_of(tile = 1, here, count, x, from, out + i);
    }
}

ALWAYS lanes dot(const lanes *a, const lanes *b, int64_t n) {
    lanes s[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int r = 0; r < 4; r++) s[r] += a[i + r] * b[i + r];
    for (; i < n; i++) s[0] += a[i] * b[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* A perceptron of two hidden layers over (x, time's features, 1), its weights packed, and what is asked of it. With gates it
   is over (x, 1), and what time adds and the logarithms of the gates come of a matrix of their own. */
typedef struct {
    int64_t features, frequencies, first, second;
    int32_t activation, log_det, kinetic, jacobian, gated;
    const REAL *w1, *w2, *w3, *m, *time;                   /* m: of the divergence, W2 * (W1 W3)' */
    const REAL *w1_back, *w2_back, *w3_back, *m_back;      /* transposes */
} field;

ALWAYS int64_t times_of(const field *f) { return 1 + 2 * f->frequencies; }
ALWAYS int64_t inputs_of(const field *f) { return f->features + 1 + (f->gated ? 0 : times_of(f)); }
ALWAYS int64_t wide_of(const field *f) { return f->features + f->log_det + f->kinetic + f->jacobian; }

/* What one evaluation leaves: values, slopes and bends of both layers, and the way of a probe through them. With gates,
   slope and bend of the first layer have them as a factor, and there are: what is gated, what time adds and the gates,
   which follow each other, and the slope without them; without gates, that slope is d1. */
typedef struct {
    lanes *in, *h1, *d1, *e1, *h2, *d2, *e2, *u, *p1, *s1, *p2, *s2, *w, *gated, *added, *gate, *slope;
} moment;

static moment moment_of(const field *f, lanes **place) {
    int64_t a = f->first + 1, b = f->second + 1, probe = f->jacobian;
    moment m = {
        room(place, f->features + 1 + times_of(f)), room(place, a), room(place, a), room(place, a), room(place, b),
        room(place, b), room(place, b), room(place, b), room(place, probe * a), room(place, probe * a),
        room(place, probe * b), room(place, probe * b), room(place, probe * f->features),
        room(place, f->gated * f->first), room(place, f->gated * 2 * f->first), 0, 0};
    m.gate = m.added + f->first, m.slope = f->gated ? room(place, a) : m.d1;
    return m;
}

ALWAYS int64_t moment_size(const field *f) {
    return f->features + 1 + times_of(f) + 5 * (f->first + 1) + 6 * (f->second + 1) + f->features +
           f->gated * 4 * (f->first + 1);
}

/* What the first activation is given, where there are gates. */
static void open_gates(const field *f, const lanes *context, const moment *m) {
    int64_t first = f->first, times = times_of(f);
    product(f->w1, first, inputs_of(f), inputs_of(f), m->in, 0, m->gated);
    product(f->time, 2 * first, times, times, m->in + inputs_of(f), 0, m->added);
    for (int64_t i = 0; i < first; i++) {
        m->gate[i] = exponential_of_any(m->gate[i]);
        m->h1[i] = m->gated[i] * m->gate[i] + m->added[i];
        if (context) m->h1[i] += context[i];
    }
}

/* The rates of (x, log-determinant, kinetic energy, energy of the probe), those that are asked for. */
static void evaluate(const field *f, const double *t, const lanes *x, const lanes *context, const lanes *probe, int bend,
                     const moment *m, lanes *out) {
    int64_t d = f->features, inputs = inputs_of(f), first = f->first, second = f->second;
    memcpy(m->in, x, d * sizeof(lanes));
    REAL *time = (REAL *)(m->in + d + f->gated);
    EACH time[l] = (REAL)t[l];
    for (int64_t k = 1; k <= f->frequencies; k++) {
        REAL *sine = time + (2 * k - 1) * LANES, *cosine = sine + LANES;
#pragma omp simd
        EACH {
            double s, c;
            half_turns((double)k * t[l], &s, &c);
            sine[l] = (REAL)s, cosine[l] = (REAL)c;
        }
    }
    m->in[inputs - 1] = all(1);
    if (f->gated) open_gates(f, context, m);
    else product(f->w1, first, inputs, inputs, m->in, context, m->h1);
    activate(f->activation, bend, first, m->h1, m->slope, m->e1);
    for (int64_t i = 0; f->gated && i < first; i++) {
        m->d1[i] = m->slope[i] * m->gate[i];
        if (bend) m->e1[i] *= m->gate[i];
    }
    m->h1[first] = all(1);
    product(f->w2, second, first + 1, first + 1, m->h1, 0, m->h2);
    activate(f->activation, bend, second, m->h2, m->d2, m->e2);
    m->h2[second] = all(1);
    product(f->w3, d, second + 1, second + 1, m->h2, 0, out);
    lanes *more = out + d;
    if (f->log_det) {
        product(f->m, second, first, first, m->d1, 0, m->u);
        *more++ = dot(m->d2, m->u, second);
    }
    if (f->kinetic) *more++ = dot(out, out, d);
    if (f->jacobian) {
        product(f->w1, first, inputs, d, probe, 0, m->p1);
        for (int64_t i = 0; i < first; i++) m->s1[i] = m->d1[i] * m->p1[i];
        product(f->w2, second, first + 1, first, m->s1, 0, m->p2);
        for (int64_t i = 0; i < second; i++) m->s2[i] = m->d2[i] * m->p2[i];
        product(f->w3, d, second + 1, second, m->s2, 0, m->w);
        *more = dot(m->w, m->w, d);
    }
}
