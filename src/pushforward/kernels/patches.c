/* The square around each pixel of an image as a row, and its adjoint.

   Images have channels last, ``(n, h, w, c)``; a row has rows of the square, then columns, then channels: the first
   ``count`` numbers of these, and ``stride`` in all, those after them being left alone. Beyond the edges there are
   zeros. */

#include <stdint.h>
#include <string.h>

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The part of a square's columns that lies in the image, as numbers of columns left out before and after. */
static inline void cut(int64_t q, int64_t p, int64_t w, int64_t *before, int64_t *after) {
    *before = q < p ? p - q : 0;
    *after = q + p >= w ? q + p - w + 1 : 0;
}

void squares(const float *x, int64_t n, int64_t h, int64_t w, int64_t c, int64_t side,
             int64_t count, int64_t stride, float *out) {
    int64_t p = side / 2, line = side * c;
#pragma omp parallel for schedule(static) if (n * h * w > 4096)
    for (int64_t image = 0; image < n; image++) {
        const float *from = x + image * h * w * c;
        float *to = out + image * h * w * stride;
        for (int64_t r = 0; r < h; r++)
            for (int64_t q = 0; q < w; q++, to += stride) {
                int64_t before, after;
                cut(q, p, w, &before, &after);
                for (int64_t i = 0; i * line < count; i++) {
                    float *row = to + i * line;
                    int64_t s = r + i - p, end = least(line, count - i * line);
                    if (s < 0 || s >= h) {
                        for (int64_t k = 0; k < end; k++) row[k] = 0.0f;
                        continue;
                    }
                    const float *seen = from + (s * w + q - p) * c;
                    int64_t first = least(before * c, end), last = least(line - after * c, end);
                    for (int64_t k = 0; k < first; k++) row[k] = 0.0f;
                    for (int64_t k = first; k < last; k++) row[k] = seen[k];
                    for (int64_t k = last; k < end; k++) row[k] = 0.0f;
                }
            }
    }
}

void gather(const float *y, int64_t n, int64_t h, int64_t w, int64_t c, int64_t side,
             int64_t count, int64_t stride, float *out) {
    int64_t p = side / 2, line = side * c;
#pragma omp parallel for schedule(static) if (n * h * w > 4096)
    for (int64_t image = 0; image < n; image++) {
        const float *from = y + image * h * w * stride;
        float *to = out + image * h * w * c;
        memset(to, 0, h * w * c * sizeof(float));
        for (int64_t r = 0; r < h; r++)
            for (int64_t q = 0; q < w; q++, from += stride) {
                int64_t before, after;
                cut(q, p, w, &before, &after);
                for (int64_t i = 0; i * line < count; i++) {
                    int64_t s = r + i - p, last = least(line - after * c, count - i * line);
                    if (s < 0 || s >= h) continue;
                    float *written = to + (s * w + q - p) * c;
                    const float *row = from + i * line;
                    for (int64_t k = before * c; k < last; k++) written[k] += row[k];
                }
            }
    }
}
