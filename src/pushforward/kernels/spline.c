/* The rational-quadratic spline on [-1, 1], fused: knots, search, formula and gradient of 16 elements at a time.

   The formulas are those of ``RationalQuadraticSpline``, which is also what they are tested against. BINS is given by
   the compiler's command line; FREE_ENDS says that each element has two more parameters, for the slopes at the ends.
   Every loop over LANES is independent elementwise arithmetic, which compilers turn into vector instructions. */

#include "arithmetic.h"

#define LANES 16
#define EACH for (int l = 0; l < LANES; l++)
#ifdef FREE_ENDS
#define PARAMETERS (3 * BINS + 1)
#else
#define PARAMETERS (3 * BINS - 1)
#endif

enum { LINEAR, BOUNDED, CIRCULAR };

typedef float lanes[LANES];

/* Where an element lies: corners, widths and slopes of its bin, and what the gradient needs to come back. */
typedef struct {
    lanes width[BINS], height[BINS];       /* shares of the interval, after the softmax */
    lanes x0, w, y0, h, d0, d1;
    lanes raw0, raw1;                      /* slopes before the softplus */
    lanes fixed0, fixed1;                  /* 1 where the slope is 1 whatever the parameters */
    lanes bin;
} place;

static inline void softmax(lanes *raw) {
    lanes top, sum;
    EACH top[l] = raw[0][l];
    for (int k = 1; k < BINS; k++) EACH top[l] = raw[k][l] > top[l] ? raw[k][l] : top[l];
    EACH sum[l] = 0.0f;
    for (int k = 0; k < BINS; k++) EACH {
        raw[k][l] = exponential(raw[k][l] - top[l]);
        sum[l] += raw[k][l];
    }
    EACH sum[l] = 1.0f / sum[l];
    for (int k = 0; k < BINS; k++) EACH raw[k][l] *= sum[l];
}

/* Read the parameters of LANES elements and find their bins, among the knots' x, or their y for the inverse. */
static inline void find(place *s, const lanes at, const float *parameters, const int64_t *row, int64_t stride,
                        const int32_t *tail, float minimum, float offset, int inverse) {
    lanes slope[BINS + 1], x, y, x1, y1, fixed;
    for (int k = 0; k < BINS; k++) EACH s->width[k][l] = parameters[row[l] + k * stride];
    for (int k = 0; k < BINS; k++) EACH s->height[k][l] = parameters[row[l] + (BINS + k) * stride];
    for (int k = 1; k < BINS; k++) EACH slope[k][l] = parameters[row[l] + (2 * BINS - 1 + k) * stride];
#ifdef FREE_ENDS
    EACH {
        slope[0][l] = parameters[row[l] + (3 * BINS - 1) * stride];
        slope[BINS][l] = tail[l] == CIRCULAR ? slope[0][l] : parameters[row[l] + 3 * BINS * stride];
        fixed[l] = tail[l] == LINEAR ? 1.0f : 0.0f;
    }
#else
    (void)tail;
    EACH slope[0][l] = slope[BINS][l] = 0.0f;
    EACH fixed[l] = 1.0f;
#endif
    softmax(s->width);
    softmax(s->height);
    float least = 2.0f * minimum, rest = 2.0f - least * BINS;
    EACH {
        s->x0[l] = s->y0[l] = -1.0f;
        x[l] = x1[l] = -1.0f + (least + rest * s->width[0][l]);
        y[l] = y1[l] = -1.0f + (least + rest * s->height[0][l]);
        s->raw0[l] = slope[0][l], s->raw1[l] = slope[1][l];
        s->fixed0[l] = fixed[l], s->fixed1[l] = 0.0f;
        s->bin[l] = 0.0f;
    }
    for (int k = 1; k < BINS; k++) EACH {
        /* The last corner is 1 and not what rounding makes of it. */
        float right = k == BINS - 1 ? 1.0f : x[l] + (least + rest * s->width[k][l]);
        float top = k == BINS - 1 ? 1.0f : y[l] + (least + rest * s->height[k][l]);
        int beyond = at[l] >= (inverse ? y[l] : x[l]);
        s->x0[l] = beyond ? x[l] : s->x0[l];
        s->y0[l] = beyond ? y[l] : s->y0[l];
        x1[l] = beyond ? right : x1[l];
        y1[l] = beyond ? top : y1[l];
        s->raw0[l] = beyond ? slope[k][l] : s->raw0[l];
        s->raw1[l] = beyond ? slope[k + 1][l] : s->raw1[l];
        s->fixed0[l] = beyond ? 0.0f : s->fixed0[l];
        s->fixed1[l] = beyond ? (k == BINS - 1 ? fixed[l] : 0.0f) : s->fixed1[l];
        s->bin[l] += beyond ? 1.0f : 0.0f;
        x[l] = right, y[l] = top;
    }
    EACH {
        s->w[l] = x1[l] - s->x0[l];
        s->h[l] = y1[l] - s->y0[l];
        s->d0[l] = s->fixed0[l] > 0.0f ? 1.0f : minimum + softplus(s->raw0[l] + offset);
        s->d1[l] = s->fixed1[l] > 0.0f ? 1.0f : minimum + softplus(s->raw1[l] + offset);
    }
}

/* Where LANES elements stand among n: past the end the last one stands again. */
static inline void stand(int64_t first, int64_t n, int64_t row_stride, const int32_t *tails, int64_t width,
                         int64_t *element, int64_t *row, int32_t *tail) {
    EACH {
        element[l] = first + l < n ? first + l : n - 1;
        row[l] = element[l] * row_stride;
        tail[l] = width == 1 ? tails[0] : tails[element[l] % width];
    }
}

/* Solve the quadratic equation of the bin for the place in it. */
static inline void solve(const place *s, const lanes at, lanes t) {
    EACH {
        float ratio = s->h[l] / s->w[l], rise = at[l] - s->y0[l];
        float excess = rise * (s->d0[l] + s->d1[l] - 2.0f * ratio);
        float a = s->h[l] * (ratio - s->d0[l]) + excess, b = s->h[l] * s->d0[l] - excess, c = -ratio * rise;
        float inner = b * b - 4.0f * a * c;
        /* The true discriminant is positive; rounding must not make it negative. */
        float root = __builtin_sqrtf(inner < 1.17549435e-38f ? 1.17549435e-38f : inner);
        /* Of the two forms of the solution the one in which nothing cancels. */
        float top = b >= 0.0f ? -2.0f * c : root - b, bottom = b >= 0.0f ? b + root : 2.0f * a;
        float place_in_bin = top / bottom;
        place_in_bin = place_in_bin < 0.0f ? 0.0f : place_in_bin;
        t[l] = place_in_bin > 1.0f ? 1.0f : place_in_bin;
    }
}

/* Map n elements and return the logarithms of the derivatives; outside the interval the identity. */
void spline_map(const float *in, const float *parameters, int64_t row_stride, int64_t stride, const int32_t *tails,
                int64_t width, int64_t n, float minimum, float offset, int32_t inverse, float *out,
                float *log_derivative) {
#pragma omp parallel for schedule(static) if (n > 2048)
    for (int64_t first = 0; first < n; first += LANES) {
        place s;
        lanes u, at, t, result, slope;
        int64_t element[LANES], row[LANES];
        int32_t tail[LANES];
        stand(first, n, row_stride, tails, width, element, row, tail);
        EACH u[l] = in[element[l]];
        EACH at[l] = u[l] >= -1.0f && u[l] <= 1.0f ? u[l] : 0.0f;
        find(&s, at, parameters, row, stride, tail, minimum, offset, inverse);
        if (inverse)
            solve(&s, at, t);
        else
            EACH t[l] = (at[l] - s.x0[l]) / s.w[l];
        EACH {
            float ratio = s.h[l] / s.w[l], product = t[l] * (1.0f - t[l]);
            float denominator = ratio + (s.d0[l] + s.d1[l] - 2.0f * ratio) * product;
            float numerator = s.d1[l] * t[l] * t[l] + 2.0f * ratio * product + s.d0[l] * (1.0f - t[l]) * (1.0f - t[l]);
            float forward = s.y0[l] + s.h[l] * (ratio * t[l] * t[l] + s.d0[l] * product) / denominator;
            float value = inverse ? s.x0[l] + t[l] * s.w[l] : forward;
            value = value < -1.0f ? -1.0f : value;
            result[l] = value > 1.0f ? 1.0f : value;
            slope[l] = 2.0f * (logarithm(ratio) - logarithm(denominator)) + logarithm(numerator);
        }
        EACH {
            int inside = u[l] >= -1.0f && u[l] <= 1.0f;
            result[l] = inside ? result[l] : u[l];
            slope[l] = inside ? (inverse ? -slope[l] : slope[l]) : 0.0f;
        }
        int64_t count = n - first < LANES ? n - first : LANES;
        for (int64_t l = 0; l < count; l++) out[first + l] = result[l], log_derivative[first + l] = slope[l];
    }
}

/* From gradients with respect to value and log-derivative to those with respect to point and parameters.

   For the inverse, ``at_x`` is its result x, and with A = dL/dx = g_value - g_log l'(x) the implicit function theorem
   gives dL/dy = A/f'(x) and the gradient of the parameters as that of the forward map for (-A/f', -g_log). */
void spline_gradient(const float *at_x, const float *parameters, int64_t row_stride, int64_t stride,
                     const int32_t *tails, int64_t width, int64_t n, float minimum, float offset, int32_t inverse,
                     const float *g_value, const float *g_log, float *g_point, float *g_parameters) {
#pragma omp parallel for schedule(static) if (n > 2048)
    for (int64_t first = 0; first < n; first += LANES) {
        place s;
        lanes u, at, inside, gv, gl, g_u, g_x0, g_x1, g_y0, g_y1, g_s0, g_s1, dot_w, dot_h;
        lanes g[PARAMETERS];
        int64_t element[LANES], row[LANES];
        int32_t tail[LANES];
        stand(first, n, row_stride, tails, width, element, row, tail);
        EACH u[l] = at_x[element[l]];
        EACH inside[l] = u[l] >= -1.0f && u[l] <= 1.0f ? 1.0f : 0.0f;
        EACH at[l] = inside[l] > 0.0f ? u[l] : 0.0f;
        EACH gv[l] = g_value[element[l]];
        EACH gl[l] = inverse ? -g_log[element[l]] : g_log[element[l]];
        find(&s, at, parameters, row, stride, tail, minimum, offset, 0);
        EACH {
            float d0 = s.d0[l], d1 = s.d1[l], w = s.w[l], h = s.h[l], ratio = h / w;
            float t = (at[l] - s.x0[l]) / w, other = 1.0f - t, product = t * other, turn = 1.0f - 2.0f * t;
            float bend = d0 + d1 - 2.0f * ratio, den = ratio + bend * product;
            float num = ratio * t * t + d0 * product;
            float top = d1 * t * t + 2.0f * ratio * product + d0 * other * other;
            float top_t = 2.0f * (d1 * t + ratio * turn - d0 * other), den_t = bend * turn;
            float l_t = top_t / top - 2.0f * den_t / den; /* of the log-derivative, by t */
            float value_t = h * top * ratio / (den * den); /* of the value, by t: w times the derivative */
            float cotangent = gv[l];
            if (inverse) {
                float a = (gv[l] + gl[l] * l_t / w) * w / value_t;
                g_u[l] = a;
                cotangent = -a;
            } else {
                g_u[l] = (gv[l] * value_t + gl[l] * l_t) / w;
            }
            float g_t = cotangent * value_t + gl[l] * l_t;
            float g_num = cotangent * h / den, g_den = -g_num * num / den - 2.0f * gl[l] / den, g_top = gl[l] / top;
            float g_ratio = g_num * t * t + g_den * (1.0f - 2.0f * product) + 2.0f * g_top * product
                            + 2.0f * gl[l] / ratio;
            float g_d0 = (g_num + g_den) * product + g_top * other * other;
            float g_d1 = g_den * product + g_top * t * t;
            float g_h = cotangent * num / den + g_ratio / w;
            float g_w = -(g_ratio * ratio + g_t * t) / w;
            g_x0[l] = -g_t / w - g_w, g_x1[l] = g_w;
            g_y0[l] = cotangent - g_h, g_y1[l] = g_h;
            float e0 = exponential(-(s.raw0[l] + offset)), e1 = exponential(-(s.raw1[l] + offset));
            g_s0[l] = s.fixed0[l] > 0.0f ? 0.0f : g_d0 / (1.0f + e0);
            g_s1[l] = s.fixed1[l] > 0.0f ? 0.0f : g_d1 / (1.0f + e1);
            dot_w[l] = dot_h[l] = 0.0f;
        }
        /* A corner is -1 plus the sizes before it; the first and the last do not move. */
        float rest = 2.0f - 2.0f * minimum * BINS;
        for (int k = 0; k < BINS; k++) EACH {
            float before = k < s.bin[l] ? 1.0f : 0.0f;
            float within = k <= s.bin[l] && s.bin[l] < BINS - 1 ? 1.0f : 0.0f;
            g[k][l] = before * g_x0[l] + within * g_x1[l];
            g[BINS + k][l] = before * g_y0[l] + within * g_y1[l];
            dot_w[l] += g[k][l] * s.width[k][l];
            dot_h[l] += g[BINS + k][l] * s.height[k][l];
        }
        for (int k = 0; k < BINS; k++) EACH {
            g[k][l] = rest * s.width[k][l] * (g[k][l] - dot_w[l]);
            g[BINS + k][l] = rest * s.height[k][l] * (g[BINS + k][l] - dot_h[l]);
        }
        for (int k = 1; k < BINS; k++) EACH {
            g[2 * BINS - 1 + k][l] = (s.bin[l] == k ? g_s0[l] : 0.0f) + (s.bin[l] == k - 1 ? g_s1[l] : 0.0f);
        }
#ifdef FREE_ENDS
        EACH {
            float at_first = s.bin[l] == 0.0f ? g_s0[l] : 0.0f, at_last = s.bin[l] == BINS - 1 ? g_s1[l] : 0.0f;
            g[3 * BINS - 1][l] = at_first + (tail[l] == CIRCULAR ? at_last : 0.0f);
            g[3 * BINS][l] = tail[l] == CIRCULAR ? 0.0f : at_last;
        }
#endif
        int64_t count = n - first < LANES ? n - first : LANES;
        for (int64_t l = 0; l < count; l++) {
            g_point[first + l] = inside[l] > 0.0f ? g_u[l] : gv[l];
            float *target = g_parameters + (first + l) * PARAMETERS;
            for (int k = 0; k < PARAMETERS; k++) target[k] = inside[l] > 0.0f ? g[k][l] : 0.0f;
        }
    }
}

/* The same on [-bound, bound] as part of a larger pass, for no circle, with the parameters of each element together. */
typedef struct { const int32_t *tails; int64_t width; float bound, minimum, offset; int32_t inverse; } spline;

void spline_part(const void *how, const float *in, const float *parameters, int64_t n, float *out, float *log_derivative) {
    const spline *s = how;
    for (int64_t i = 0; i < n; i++) out[i] = in[i] / s->bound;
    spline_map(out, parameters, PARAMETERS, 1, s->tails, s->width, n, s->minimum, s->offset, s->inverse, out,
               log_derivative);
    for (int64_t i = 0; i < n; i++) out[i] *= s->bound;
}

/* ``at`` and ``g_value`` are used up. */
void spline_part_gradient(const void *how, float *at, const float *parameters, int64_t n, float *g_value,
                          const float *g_log, float *g_point, float *g_parameters) {
    const spline *s = how;
    for (int64_t i = 0; i < n; i++) at[i] /= s->bound, g_value[i] *= s->bound;
    spline_gradient(at, parameters, PARAMETERS, 1, s->tails, s->width, n, s->minimum, s->offset, s->inverse, g_value,
                    g_log, g_point, g_parameters);
    for (int64_t i = 0; i < n; i++) g_point[i] /= s->bound;
}
