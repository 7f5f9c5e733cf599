/* A chain with a point in each lane of the vectors: for narrow layers, which would fill a panel with zeros, and without
   laying out weights. Nothing is kept for a gradient. Every sum has the order that it has in panels. */

#define VECTORS 4
#define SPAN (VECTORS * LANES) /* points */

/* Outputs of one layer for SPAN points; ``in`` and ``out`` have a row for each number of a point. */
ALWAYS void rows(int count, const float *in, int64_t inputs, const float *weight, const float *bias, int rectify, float *out) {
    lanes s[HALF][VECTORS];
    for (int r = 0; r < count; r++)
        for (int v = 0; v < VECTORS; v++) s[r][v] = (lanes){0} + bias[r];
    for (int64_t k = 0; k < inputs; k++)
        for (int r = 0; r < count; r++)
            for (int v = 0; v < VECTORS; v++) s[r][v] += *(const lanes *)(in + k * SPAN + v * LANES) * weight[r * inputs + k];
    for (int r = 0; r < count; r++)
        for (int v = 0; v < VECTORS; v++)
            *(lanes *)(out + r * SPAN + v * LANES) = rectify ? rectified(s[r][v], s[r][v]) : s[r][v];
}

static void layer_in_lanes(const stage *t, const float *in, int rectify, float *out) {
    for (int64_t i = 0; i < t->out; i += t->out < HALF ? 1 : HALF) {
        int64_t o = t->out < HALF ? i : least(i, t->out - HALF);
        const float *weight = t->is->weight + o * t->in, *bias = t->is->bias + o;
        if (t->out < HALF) rows(1, in, t->in, weight, bias, rectify, out + o * SPAN);
        else rows(HALF, in, t->in, weight, bias, rectify, out + o * SPAN);
    }
}

static int in_lanes(const pass *p, const float *kept) {
    int narrow = !kept;
    for (const step *s = p->steps; s < p->steps + p->links; s++) {
        narrow = narrow && s->is->map && !s->is->context && s->stages[s->is->layers - 1].out <= PANEL;
        for (int64_t i = 0; i < s->is->layers; i++) narrow = narrow && !s->stages[i].is->reach;
    }
    return narrow;
}

/* Take up to SPAN points through all links. */
static void through_in_lanes(const pass *p, int64_t row, int64_t n, float *y, float *log, float *own) {
    int64_t wide = p->wide * SPAN, size = p->moves * SPAN;
    float *state = own, *in = state + p->features * SPAN, *parameters = in + 2 * wide;
    float *element = parameters + p->parameters * SPAN, *out = element + size, *each = out + size;
    const float *x = p->steps->in + row * p->features;
    for (int64_t f = 0; f < p->features; f++)
        for (int64_t r = 0; r < SPAN; r++) state[f * SPAN + r] = r < n ? x[r * p->features + f] : 0.0f;
    for (const step *s = p->steps; s < p->steps + p->links; s++) {
        const link *l = s->is;
        for (int64_t i = 0; i < l->given; i++)
            memcpy(in + i * SPAN, state + (l->stay ? l->stay[i] : i) * SPAN, SPAN * sizeof(float));
        float *given = in;
        for (int64_t i = 0; i < l->layers; i++) {
            float *to = in + (i + 1) % 2 * wide;
            layer_in_lanes(s->stages + i, given, i < l->layers - 1, to);
            given = to;
        }
        int64_t many = s->stages[l->layers - 1].out;
        for (int64_t r = 0; r < n; r++) {
            for (int64_t i = 0; i < l->moves; i++)
                element[r * l->moves + i] = state[(l->move ? l->move[i] : i) * SPAN + r];
            for (int64_t o = 0; o < many; o++) parameters[r * many + o] = given[o * SPAN + r];
        }
        l->map(l->how, element, parameters, n * l->moves, out, each);
        for (int64_t r = 0; r < n; r++) {
            float sum = 0.0f;
            for (int64_t i = 0; i < l->moves; i++) {
                state[(l->move ? l->move[i] : i) * SPAN + r] = out[r * l->moves + i];
                sum += each[r * l->moves + i];
            }
            log[row + r] = s > p->steps ? log[row + r] + sum : sum;
        }
    }
    for (int64_t r = 0; r < n; r++)
        for (int64_t f = 0; f < p->features; f++) y[(row + r) * p->features + f] = state[f * SPAN + r];
}

static int32_t forward_in_lanes(pass *p, float *y, float *log) {
    int threads = threads_of(p);
    int64_t own_size = (p->features + 2 * p->wide + p->parameters + 3 * p->moves) * SPAN;
    p->packed = memory(threads * own_size * sizeof(float));
    if (!p->packed) return end(p), 1;
#pragma omp parallel num_threads(threads)
    {
        float *own = p->packed + omp_get_thread_num() * own_size;
#pragma omp for schedule(static)
        for (int64_t row = 0; row < p->points; row += SPAN)
            through_in_lanes(p, row, least(SPAN, p->points - row), y, log, own);
    }
    end(p);
    return 0;
}
