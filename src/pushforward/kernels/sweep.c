/* The inverse of an autoregressive transform in one pass: the elements of a point one after the other, each found by an
   inverse map under parameters that a masked perceptron with rectifiers makes of those before it.

   With elements and units sorted by what they see, every turn finds some elements, and computes before that the units that
   see no later ones, each once. PANEL points take their turns together, their values of a unit side by side. What was
   known before a group of turns is summed up in tiles of units, the rest turn by turn. What a point gives depends on no
   other point of the batch, and the order of every sum on nothing but sizes, not on threads. NaN stays NaN. */

#include "links.h"

#define AHEAD 24 /* units of the last hidden layer that become known in a group of more than one turn */

/* A layer, and its weight with rows and columns in the order in which they become known. */
typedef struct {
    const layer *is;
    int64_t in;
    float *sorted;
} part;

/* Elements [first, end) are found together, under so many known elements and units of each hidden layer. */
typedef struct { int64_t first, end; const int64_t *known; } turn;

typedef struct {
    const link *is;
    part *parts;
    int64_t hidden, count, each; /* hidden layers, turns, parameters of an element */
    const int64_t *turns;        /* in rows; the first stands for the time when nothing is known */
    const int64_t *order;        /* the element at each position; null: as they stand */
    int64_t points, features;
    const float *y;
    float *x, *log_abs_det;
} search;

static turn turn_of(const search *s, int64_t i) {
    const int64_t *row = s->turns + (i + 1) * (s->hidden + 3);
    return (turn){row[0], row[1], row + 2};
}

/* The first turn after the group that begins with this one. */
static int64_t ahead_of(const search *s, int64_t i) {
    int64_t known = turn_of(s, i - 1).known[s->hidden], ahead = i + 1;
    while (ahead < s->count && turn_of(s, ahead).known[s->hidden] - known <= AHEAD) ahead++;
    return ahead;
}

/* Rows of a layer that a turn is the first to need. */
static void rows_of_turn(const search *s, int64_t i, int64_t k, int64_t *first, int64_t *end) {
    turn now = turn_of(s, i);
    *first = k < s->hidden ? turn_of(s, i - 1).known[k + 1] : now.first * s->each;
    *end = k < s->hidden ? now.known[k + 1] : now.end * s->each;
}

/* Where a row of a layer stands in the model. */
static int64_t standing(const search *s, int64_t k, int64_t row) {
    return k < s->hidden || !s->order ? row : s->order[row / s->each] * s->each + row % s->each;
}

/* Whether a weight is sorted as it stands, with numbers wherever it is read. */
static int is_sorted(const search *s, int64_t k) {
    if (s->order && (k == 0 || k == s->hidden)) return 0;
    const int64_t *reach = s->parts[k].is->reach;
    for (int64_t i = 0, row, last; reach && i < s->count; i++)
        for (rows_of_turn(s, i, k, &row, &last); row < last; row++)
            if (reach[row] < turn_of(s, i).known[k]) return 0;
    return 1;
}

/* Sort what a turn reads of a weight. */
static void sort(const search *s, int64_t i, int64_t k) {
    const part *t = s->parts + k;
    int64_t row, last, known = turn_of(s, i).known[k];
    for (rows_of_turn(s, i, k, &row, &last); row < last; row++) {
        int64_t from = standing(s, k, row), seen = t->is->reach ? t->is->reach[from] : t->in;
        const float *weight = t->is->weight + from * t->in;
        float *to = t->sorted + row * t->in;
        if (k == 0 && s->order)
            for (int64_t c = 0; c < known; c++) to[c] = s->order[c] < seen ? weight[s->order[c]] : 0.0f;
        else {
            memcpy(to, weight, least(seen, known) * sizeof(float));
            for (int64_t c = seen; c < known; c++) to[c] = 0.0f;
        }
    }
}

/* Begin the values of some rows, of n points, with what depends on no element. */
static void begin(const search *s, int64_t k, int64_t first, int64_t last, int64_t point, int64_t n, float *values) {
    const float *context = k ? 0 : s->is->context;
    int64_t step = s->is->context_row;
    for (int64_t row = first; row < last; row++, values += PANEL) {
        lanes bias = (lanes){0} + s->parts[k].is->bias[standing(s, k, row)];
        *(panel *)values = (panel){{bias, bias}};
        for (int64_t i = 0; context && i < n; i++) values[i] += context[(point + i) * step + row];
    }
}

/* Add to the values of some rows what they see of the columns [from, to). */
ALWAYS void see(int halves, const part *t, int64_t first, int64_t last, const float *given, int64_t from, int64_t to,
                float *values) {
    panel *sums = (panel *)values;
    int64_t rows = last - first, n = to - from, r = 0;
    if (n <= 0) return;
    const float *weight = t->sorted + first * t->in + from, *known = given + from * PANEL;
    for (; r + TILE <= rows; r += TILE) add(sums + r, TILE, halves, weight + r * t->in, t->in, 1, known, n);
    for (; r + 4 <= rows; r += 4) add(sums + r, 4, halves, weight + r * t->in, t->in, 1, known, n);
    for (; r + 2 <= rows; r += 2) add(sums + r, 2, halves, weight + r * t->in, t->in, 1, known, n);
    for (; r < rows; r++) add(sums + r, 1, halves, weight + r * t->in, t->in, 1, known, n);
}

static void rectify(float *values, int64_t units) {
    for (lanes *v = (lanes *)values; v < (lanes *)(values + units * PANEL); v++) *v = rectified(*v, *v);
}

/* Find an element of n points; ``own`` has room for two numbers and the parameters of PANEL points. */
static void find(const search *s, int64_t position, int64_t point, int64_t n, const float *parameters, float *own,
                 float *found, double *total) {
    float *in = own, *log = in + PANEL, *together = log + PANEL;
    int64_t at = point * s->features + (s->order ? s->order[position] : position);
    for (int64_t i = 0; i < n; i++) in[i] = s->y[at + i * s->features];
    for (int64_t k = 0; k < s->each; k++)
        for (int64_t i = 0; i < PANEL; i++) together[i * s->each + k] = parameters[k * PANEL + i];
    s->is->map(s->is->how, in, together, n, found, log);
    for (int64_t i = 0; i < n; i++) s->x[at + i * s->features] = found[i], total[i] += log[i];
    for (int64_t i = n; i < PANEL; i++) found[i] = 0.0f;
}

/* Take n points through all turns. Their values lie layer by layer, the elements first, a group's parameters last. */
ALWAYS void all_turns(int halves, const search *s, int64_t point, int64_t n, float *own) {
    const part *last = s->parts + s->hidden;
    double total[PANEL] = {0.0};
    float *outputs = own + s->features * PANEL;
    for (int64_t k = 0; k < s->hidden; outputs += s->parts[k++].is->outputs * PANEL)
        begin(s, k, 0, s->parts[k].is->outputs, point, n, outputs);
    float *units = outputs - last->in * PANEL, *more = outputs + last->is->outputs * PANEL;
    turn group = {0};
    for (int64_t i = 0, ahead = 0, alone = 0; i < s->count; i++) {
        turn now = turn_of(s, i), before = turn_of(s, i - 1);
        if (i == ahead) {
            ahead = ahead_of(s, i), alone = ahead == i + 1, group = (turn){now.first, 0, before.known};
            turn top = turn_of(s, ahead - 1);
            float *given = own;
            for (int64_t k = 0; k < s->hidden && !alone; k++) {
                float *to = given + s->parts[k].in * PANEL;
                int64_t row = before.known[k + 1];
                see(halves, s->parts + k, row, top.known[k + 1], given, 0, k ? before.known[k] : now.first, to + row * PANEL);
                given = to;
            }
            begin(s, s->hidden, now.first * s->each, top.end * s->each, point, n, outputs);
            see(halves, last, now.first * s->each, top.end * s->each, units, 0, alone ? 0 : before.known[s->hidden], outputs);
        }
        float *given = own;
        for (int64_t k = 0; k < s->hidden; k++) {
            float *to = given + s->parts[k].in * PANEL;
            int64_t row = before.known[k + 1], end = now.known[k + 1];
            see(halves, s->parts + k, row, end, given, alone ? 0 : k ? group.known[k] : group.first, now.known[k],
                to + row * PANEL);
            rectify(to + row * PANEL, end - row);
            given = to;
        }
        float *parameters = outputs + (now.first - group.first) * s->each * PANEL;
        see(halves, last, now.first * s->each, now.end * s->each, units, alone ? 0 : group.known[s->hidden],
            now.known[s->hidden], parameters);
        for (int64_t e = now.first; e < now.end; e++, parameters += s->each * PANEL)
            find(s, e, point, n, parameters, more, own + e * PANEL, total);
    }
    for (int64_t i = 0; i < n; i++) s->log_abs_det[point + i] = (float)total[i];
}

/* Returns 1 where there is not enough memory. The table is that of a chain of one link. */
int32_t sweep(const int64_t *table, const int64_t *turns, int64_t count, const int64_t *order, const float *y, int64_t points,
              int64_t features, float *x, float *log_abs_det) {
    const link *l = (const link *)table;
    part *parts = memory(l->layers * sizeof(part));
    if (!parts) return 1;
    search s = {l, parts, l->layers - 1, count, 0, turns, order, points, features, y, x, log_abs_det};
    for (int64_t k = 0; k < l->layers; k++)
        parts[k] = (part){(const layer *)(table + l->place) + k, k ? parts[k - 1].is->outputs : features, 0};
    s.each = parts[s.hidden].is->outputs / features;
    int64_t work = 0, size = (features + s.each + 2) * PANEL, copies = 0;
    for (part *t = parts; t < parts + l->layers; t++) {
        work += points * t->in * t->is->outputs, size += t->is->outputs * PANEL;
        if (is_sorted(&s, t - parts)) t->sorted = (float *)t->is->weight;
        else copies += t->in * t->is->outputs;
    }
    int threads = work < FEW ? 1 : omp_get_max_threads();
    float *scratch = memory((threads * size + copies) * sizeof(float)), *place = scratch + threads * size;
    if (!scratch) return free(parts), 1;
    for (part *t = parts; t < parts + l->layers; t++)
        if (!t->sorted) t->sorted = place, place += t->in * t->is->outputs;
#pragma omp parallel num_threads(threads)
    {
        for (int64_t k = 0; k < l->layers; k++)
            if (parts[k].sorted != parts[k].is->weight)
#pragma omp for schedule(static, 1)
                for (int64_t i = 0; i < count; i++) sort(&s, i, k);
        float *own = scratch + omp_get_thread_num() * size;
#pragma omp for schedule(dynamic)
        for (int64_t point = 0; point < points; point += PANEL)
            if (points - point <= LANES)
                all_turns(1, &s, point, points - point, own);
            else
                all_turns(2, &s, point, least(PANEL, points - point), own);
    }
    free(scratch), free(parts);
    return 0;
}
