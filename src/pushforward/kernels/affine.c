/* Scale and shift y = x exp(s) + t with s = B tanh(raw / B), in one pass, with its gradient.

   The formulas are those of ``Affine``, which is also what they are tested against. Parameters are pairs of t and raw. */

#include "arithmetic.h"

static inline void map(const float *in, const float *parameters, int64_t row, int64_t stride, int64_t n, float bound,
                       float sign, float *out, float *log_derivative) {
    float inverse_bound = 1.0f / bound;
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (int64_t i = 0; i < n; i++) {
        float shift = parameters[row * i];
        float s = bound * hyperbolic_tangent(parameters[row * i + stride] * inverse_bound);
        float scale = exponential(sign * s);
        out[i] = sign < 0.0f ? (in[i] - shift) * scale : in[i] * scale + shift;
        log_derivative[i] = sign * s;
    }
}

/* Parameters are pairs, or lie ``stride`` apart, all of a kind next to each other. */
void affine_map(const float *in, const float *parameters, int64_t row, int64_t stride, int64_t n, float bound,
                int32_t inverse, float *out, float *log_derivative) {
    float sign = inverse ? -1.0f : 1.0f;
    if (row == 2 && stride == 1)
        map(in, parameters, 2, 1, n, bound, sign, out, log_derivative);
    else if (row == 1)
        map(in, parameters, 1, stride, n, bound, sign, out, log_derivative);
    else
        map(in, parameters, row, stride, n, bound, sign, out, log_derivative);
}

/* From gradients with respect to value and log-derivative to those of the point and of shift and raw; ``x`` is the
   point in the model's own direction: what went in, or came out of the inverse. */
void affine_gradient(const float *x, const float *parameters, int64_t n, float bound, int32_t inverse,
                     const float *g_value, const float *g_log, float *g_point, float *g_parameters) {
    float inverse_bound = 1.0f / bound, sign = inverse ? -1.0f : 1.0f;
#pragma omp parallel for simd schedule(static) if (n > 16384)
    for (int64_t i = 0; i < n; i++) {
        float t = hyperbolic_tangent(parameters[2 * i + 1] * inverse_bound);
        float g = g_value[i] * exponential(sign * bound * t);
        float of_s = inverse ? -g_value[i] * x[i] - g_log[i] : g * x[i] + g_log[i];
        g_point[i] = g;
        g_parameters[2 * i] = inverse ? -g : g_value[i];
        g_parameters[2 * i + 1] = of_s * (1.0f - t * t);
    }
}

/* The same as part of a larger pass, with parameters in pairs. */
typedef struct { float bound; int32_t inverse; } affine;

void affine_part(const void *how, const float *in, const float *parameters, int64_t n, float *out, float *log_derivative) {
    const affine *a = how;
    map(in, parameters, 2, 1, n, a->bound, a->inverse ? -1.0f : 1.0f, out, log_derivative);
}

void affine_part_gradient(const void *how, float *at, const float *parameters, int64_t n, float *g_value,
                          const float *g_log, float *g_point, float *g_parameters) {
    const affine *a = how;
    affine_gradient(at, parameters, n, a->bound, a->inverse, g_value, g_log, g_point, g_parameters);
}
