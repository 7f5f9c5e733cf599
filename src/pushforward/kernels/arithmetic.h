/* Functions of one number, without branches, so that compilers can turn loops over them into vector instructions. */

#include <stdint.h>
#include <string.h>

/* The argument's range is that of finite results; NaN stays NaN. Cephes' polynomial, below 2 ulp. */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float n = __builtin_floorf(x * 1.44269504088896341f + 0.5f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* Of positive normal numbers and NaN. */
static inline float logarithm(float x) {
    int32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t exponent = ((bits >> 23) & 255) - 126;
    int32_t mantissa = (bits & 0x007fffff) | 0x3f000000;
    float m;
    memcpy(&m, &mantissa, sizeof m);
    int32_t small = m < 0.707106781186547524f;
    float e = (float)(exponent - small);
    m = (small ? m + m : m) - 1.0f;
    float z = m * m;
    float p = 7.0376836292e-2f;
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float value = m + (p * m * z + e * -2.12194440e-4f - 0.5f * z) + e * 0.693359375f;
    return x != x ? x : value;
}

static inline float softplus(float x) {
    float e = exponential(x > 0.0f ? -x : x), one = 1.0f + e;
    float log1p = logarithm(one) - ((one - 1.0f) - e) / one;
    return (x > 0.0f ? x : 0.0f * x) + log1p;
}

/* Cephes' polynomial near 0, where 1 - e would cancel. */
static inline float hyperbolic_tangent(float x) {
    float size = x < 0.0f ? -x : x, square = x * x;
    float p = -5.70498872745e-3f;
    p = p * square + 2.06390887954e-2f;
    p = p * square - 5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square - 3.33332819422e-1f;
    float near = x + x * square * p;
    float e = exponential(-2.0f * size), far = (1.0f - e) / (1.0f + e);
    return size < 0.625f ? near : (x < 0.0f ? -far : far);
}
