/* Scale and shift y = x exp(s) + t with s = B tanh(raw / B), in one pass, with its gradient.

   The formulas are those of ``Affine``, which is also what they are tested against. Parameters are t and raw of each
   element, ``row`` from element to element and ``stride`` apart. RUN elements at a time are copied side by side, so that
   compilers turn the loops over them into vector instructions. */

#include "arithmetic.h"

#define RUN 64
#define STEP 16 /* elements that are computed together, so that few do not take the time of a whole run */
#define MANY 16384 /* elements that are worth a second thread */

typedef struct { float bound; int32_t inverse; } affine;

static inline int64_t whole(int64_t count) { return (count + STEP - 1) / STEP * STEP; }

static inline int64_t copy(const float *from, int64_t step, int64_t n, float *to) {
    int64_t count = n < RUN ? n : RUN;
    for (int64_t i = 0; i < count; i++) to[i] = from[i * step];
    for (int64_t i = count; i < whole(count); i++) to[i] = 0.0f;
    return count;
}

static void map_run(affine a, const float *in, const float *parameters, int64_t row, int64_t stride, int64_t n, float *out,
                    float *log_derivative) {
    float x[RUN], shift[RUN], s[RUN], inverse_bound = 1.0f / a.bound;
    int64_t count = copy(in, 1, n, x);
    copy(parameters, row, n, shift), copy(parameters + stride, row, n, s);
    if (a.inverse)
        for (int64_t i = 0; i < whole(count); i++) {
            s[i] = -a.bound * hyperbolic_tangent(s[i] * inverse_bound);
            x[i] = (x[i] - shift[i]) * exponential(s[i]);
        }
    else
        for (int64_t i = 0; i < whole(count); i++) {
            s[i] = a.bound * hyperbolic_tangent(s[i] * inverse_bound);
            x[i] = x[i] * exponential(s[i]) + shift[i];
        }
    memcpy(out, x, count * sizeof(float)), memcpy(log_derivative, s, count * sizeof(float));
}

/* From gradients with respect to value and log-derivative to those of the point and of shift and raw; ``at`` is the point
   in the model's own direction: what went in, or came out of the inverse. */
static void gradient_run(affine a, const float *at, const float *parameters, int64_t n, const float *g_value,
                         const float *g_log, float *g_point, float *g_parameters) {
    float x[RUN], t[RUN], value[RUN], log[RUN], inverse_bound = 1.0f / a.bound, sign = a.inverse ? -1.0f : 1.0f;
    int64_t count = copy(at, 1, n, x);
    copy(parameters + 1, 2, n, t), copy(g_value, 1, n, value), copy(g_log, 1, n, log);
    for (int64_t i = 0; i < whole(count); i++) {
        float tanh = hyperbolic_tangent(t[i] * inverse_bound);
        float g = value[i] * exponential(sign * a.bound * tanh);
        /* Of the inverse (y - t) exp(-s), the derivative by s is the negative of what comes out. */
        t[i] = sign * ((a.inverse ? value[i] : g) * x[i] + log[i]) * (1.0f - tanh * tanh);
        value[i] = a.inverse ? -g : value[i];
        x[i] = g;
    }
    memcpy(g_point, x, count * sizeof(float));
    for (int64_t i = 0; i < count; i++) g_parameters[2 * i] = value[i], g_parameters[2 * i + 1] = t[i];
}

void affine_map(const float *in, const float *parameters, int64_t row, int64_t stride, int64_t n, float bound,
                int32_t inverse, float *out, float *log_derivative) {
    affine a = {bound, inverse};
#pragma omp parallel for schedule(static) if (n > MANY)
    for (int64_t i = 0; i < n; i += RUN)
        map_run(a, in + i, parameters + i * row, row, stride, n - i, out + i, log_derivative + i);
}

void affine_gradient(const float *at, const float *parameters, int64_t n, float bound, int32_t inverse,
                     const float *g_value, const float *g_log, float *g_point, float *g_parameters) {
    affine a = {bound, inverse};
#pragma omp parallel for schedule(static) if (n > MANY)
    for (int64_t i = 0; i < n; i += RUN)
        gradient_run(a, at + i, parameters + 2 * i, n - i, g_value + i, g_log + i, g_point + i, g_parameters + 2 * i);
}

/* The same as part of a larger pass, with parameters in pairs. */
void affine_part(const void *how, const float *in, const float *parameters, int64_t n, float *out, float *log_derivative) {
    for (int64_t i = 0; i < n; i += RUN)
        map_run(*(const affine *)how, in + i, parameters + 2 * i, 2, 1, n - i, out + i, log_derivative + i);
}

void affine_part_gradient(const void *how, float *at, const float *parameters, int64_t n, float *g_value,
                          const float *g_log, float *g_point, float *g_parameters) {
    for (int64_t i = 0; i < n; i += RUN)
        gradient_run(*(const affine *)how, at + i, parameters + 2 * i, n - i, g_value + i, g_log + i, g_point + i,
                     g_parameters + 2 * i);
}
