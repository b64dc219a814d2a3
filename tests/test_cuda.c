/* test_cuda.c - the kernels of the CUDA unit against the engine: equal to the last bit

   The kernels run on the processor here (cuda/emulated.c), or with CALOMU_TEST_CUDA on a GPU.
   Every scenario builds a small graph from random inputs; values, gradients of inputs and of
   weights and the buffers of batch norms are compared. */
#include "test.h"
#include "../cuda/calomu_cuda.h"

#ifdef CALOMU_TEST_CUDA
#define DEVICE calomu_cuda
#define DEVICE_PLAIN calomu_cuda_plain
#else
#define DEVICE calomu_emulated
#define DEVICE_PLAIN calomu_emulated_plain
#endif

#ifdef CALOMU_TEST_CUDA
#define calomu_emulated_limits(bytes, launches)
#endif

enum { MOST = 32 };

typedef struct place {               /* where a scenario runs: on a device, or u NULL */
    calomu *c;
    cm_unit *u;
    cm_graph *g;
    int dry, muons;
    int far;                         /* 1, 2: see far_value */
    test_random random;
    void *own[MOST];                 /* memory of weights, on the device if there is one */
    int n_own;
    cm_tensor *input[MOST];
    int n_inputs;
    struct { void *at; size_t n; } result[MOST];         /* reals to compare in the end */
    int n_results;
    float *out;                      /* what came out */
    size_t n_out, room;
    cm_hits hits;
} place;

typedef void scenario(place *p, const int *shape);

static void *take(place *p, const float *values, size_t n)
{
    void *memory = p->u ? p->u->device->allocate(p->u, n * sizeof(float) + 64)
                        : malloc(n * sizeof(float) + 64);
    if (!memory || p->n_own == MOST) {
        fprintf(stderr, "no memory for a test\n");
        exit(1);
    }
    if (p->u) p->u->device->put(p->u, memory, values, n * sizeof(float));
    else memcpy(memory, values, n * sizeof(float));
    p->own[p->n_own++] = memory;
    return memory;
}

static float *fetch(place *p, const void *from, size_t n)
{
    float *to = malloc(n * sizeof *to + 64);
    if (!to) exit(1);
    if (p->u) p->u->device->get(p->u, to, from, n * sizeof *to);
    else memcpy(to, from, n * sizeof *to);
    return to;
}

static float *random_reals(place *p, size_t n, double scale)
{
    float *x = malloc(n * sizeof *x + 64);
    size_t i;
    if (!x) exit(1);
    for (i = 0; i < n; i++) x[i] = (float)(scale * test_normal(&p->random));
    return x;
}

/* For sums whose order must show: gradients that cancel, with all products, between lanes 0 and 1,
   3 and 4, ... (far 1, of any magnitude), between the first two groups (far 2, the others are
   smaller) or the first and third (far 3).  The muon whose values v has, too, or v itself. */
static int twin_of(const place *p, int v)
{
    int lane = v % CM_LANES;
    if (p->far == 1) return lane % 3 == 1 ? v - 1 : v;
    return p->far > 0 && v == lane + (p->far - 1) * CM_LANES ? lane : v;
}

/* Of muon v, to be x[at]. */
static double far_value(place *p, const float *x, size_t at, size_t group, int v, int gradient,
                        double value)
{
    int lane = v % CM_LANES, away = v - twin_of(p, v);
    if (away) value = x[at - (size_t)(away / CM_LANES) * group - (size_t)(away % CM_LANES)];
    if (!gradient || p->far == 0) return value;
    if (away) return -value;
    if (p->far == 1) return lane % 3 || lane == 15 ? value
                                                   : ldexp(value, test_int(&p->random, 20, 60));
    return v == lane ? ldexp(value, 35) : value;
}

/* Random values of the live lanes of t's interior, to `base`; the rest is zero. */
static void fill(place *p, const cm_tensor *t, cm_real *base, double scale)
{
    size_t n = t->group * (size_t)t->groups;
    float *x = calloc(n + 16, sizeof *x);
    int v, z, i, j, c;
    if (!x) exit(1);
    for (v = 0; v < t->muons; v++)
        for (z = 0; z < t->nz; z++)
            for (i = 0; i < t->nx; i++)
                for (j = 0; j < t->ny; j++)
                    for (c = 0; c < t->nc; c++) {
                        size_t at = (size_t)(v / CM_LANES) * t->group + t->origin
                                  + (((size_t)z * t->row_z + (size_t)i * t->row_x + (size_t)j)
                                         * (size_t)t->nc + (size_t)c) * CM_LANES
                                  + (size_t)(v % CM_LANES);
                        x[at] = (float)far_value(p, x, at, t->group, v, base != t->x,
                                                 scale * test_normal(&p->random));
                    }
    if (!p->dry && p->u) p->u->device->put(p->u, base, x, n * sizeof *x);
    else if (!p->dry) memcpy(base, x, n * sizeof *x);
    free(x);
}

static void collect_reals(place *p, const float *x, size_t n)
{
    if (p->n_out + n > p->room) {
        p->room = 2 * p->room + n;
        p->out = realloc(p->out, p->room * sizeof *p->out);
        if (!p->out) exit(1);
    }
    memcpy(p->out + p->n_out, x, n * sizeof *x);
    p->n_out += n;
}

/* The live lanes of t's interior, of values or gradient at `base`. */
static void collect(place *p, const cm_tensor *t, const cm_real *base)
{
    size_t per = (size_t)(t->ny * t->nc * CM_LANES), u, i;
    for (u = 0; !p->dry && base && u < (size_t)(t->groups * t->nz * t->nx); u++) {
        size_t x = u % (size_t)t->nx, z = u / (size_t)t->nx % (size_t)t->nz;
        size_t k = u / (size_t)(t->nx * t->nz);
        /* row by row: a gradient's halo may be undefined */
        float *row = fetch(p, base + k * t->group + t->origin
                           + (z * t->row_z + x * t->row_x) * (size_t)t->nc * CM_LANES, per);
        for (i = 0; i < per; i++)
            if (k * CM_LANES + i % CM_LANES < (size_t)t->muons) collect_reals(p, row + i, 1);
        free(row);
    }
}

/* ---------------------------------------------------------------- what scenarios are made of */

static cm_tensor *input(place *p, int nz, int nx, int ny, int nc, int lo, int hi)
{
    cm_tensor *t = cm_input(p->g, p->muons, nz, nx, ny, nc, lo, hi, 1);
    if (!t || p->n_inputs == MOST) return NULL;
    fill(p, t, t->x, 1);
    p->input[p->n_inputs++] = t;
    return t;
}

static void result(place *p, void *at, size_t n)
{
    if (p->n_results == MOST) exit(1);
    p->result[p->n_results].at = at;
    p->result[p->n_results++].n = n;
}

/* Random weights whose gradient is compared; it starts with random values, as it is added to. */
static cm_weight weight(place *p, size_t n, double scale)
{
    cm_weight w;
    float *x = random_reals(p, n, scale), *dx = random_reals(p, n, 1);
    w.x = take(p, x, n);
    w.dx = take(p, dx, n);
    result(p, w.dx, n);
    free(x);
    free(dx);
    return w;
}

static TEST_UNUSED cm_norm norm(place *p, int nc)
{
    cm_norm n;
    float *x = random_reals(p, (size_t)(2 * nc + 2), 1);
    int c;
    n.weight = weight(p, (size_t)nc, 1);
    n.bias = weight(p, (size_t)nc, 0.5);
    x[0] = 40;                       /* count; buffers as after a batch or two */
    x[1] = test_int(&p->random, 0, 1) ? 12 : 40;         /* batch: below 20 variances are clamped */
    for (c = 0; c < nc; c++) {
        x[2 + c] = 40 * 0.3f * x[2 + c];
        x[2 + nc + c] = x[2 + c] * x[2 + c] / 40 + (c % 3 ? 30.0f : 0.1f);
    }
    n.count = take(p, x, (size_t)(2 * nc + 2));
    n.batch = n.count + 1;
    n.sums = n.count + 2;
    n.squares = n.sums + nc;
    result(p, n.count, (size_t)(2 * nc + 2));
    free(x);
    return n;
}

/* The end of a scenario: values, random gradients of the results, backward. */
static void finish(place *p, cm_tensor *y, cm_tensor *y2)
{
    cm_tensor *both[2];
    int i;
    both[0] = y;
    both[1] = y2;
    for (i = 0; i < 2; i++) {
        cm_real *d;
        if (!both[i]) continue;
        collect(p, both[i], both[i]->x);
        d = p->g->training ? cm_gradient(p->g, both[i]) : NULL;
        if (d) fill(p, both[i], d, 1);
    }
    if (!p->g->training) return;
    cm_backward(p->g);
    for (i = 0; i < p->n_inputs; i++) collect(p, p->input[i], p->input[i]->dx);
}

/* ---------------------------------------------------------------- running them */

static void end_of_run(place *p)
{
    int i;
    for (i = 0; i < p->n_results && !p->dry; i++) {
        float *x = fetch(p, p->result[i].at, p->result[i].n);
        collect_reals(p, x, p->result[i].n);
        free(x);
    }
    for (i = 0; i < p->n_own; i++)
        if (p->u) p->u->device->release(p->u, p->own[i]);
        else free(p->own[i]);
}

/* One run; arena 0: a dry one, which returns the size it needs. */
static size_t run_once(place *p, scenario *f, const int *shape, int muons, int training,
                       uint64_t seed, size_t arena)
{
    void *memory = NULL, *aligned = NULL;
    size_t peak;
    p->n_own = p->n_inputs = p->n_results = 0;
    p->n_out = 0;
    p->far = 0;
    p->dry = arena == 0;
    p->muons = muons;
    p->random = test_seed(seed);
    if (arena && p->u) aligned = memory = p->u->device->allocate(p->u, arena);
    else if (arena) memory = malloc(arena + 64);
    if (arena && !memory) exit(1);
    if (arena && !p->u) aligned = (char *)memory + (64 - (uintptr_t)memory % 64) % 64;
    p->g = cm_graph_on(p->c, p->u, aligned, arena, 1, training);
    if (!p->g) exit(1);
    f(p, shape);
    CHECK_OK(p->c, cm_graph_status(p->g));
    if (p->u) CHECK(p->u->device->wait(p->u) == CALOMU_OK, "%s", p->u->message);
    end_of_run(p);
    peak = cm_graph_peak(p->g);
    cm_graph_free(p->g);
    if (memory && p->u) p->u->device->release(p->u, memory);
    else free(memory);
    return peak;
}

/* The scenario on the processor and on both tables of the device. */
static void compare(const char *name, scenario *f, const int *shape, int muons, int training,
                    int direct, uint64_t seed)
{
    static const calomu_device *device[3] = { NULL, &DEVICE, &DEVICE_PLAIN };
    static int called;
    calomu_options o = { 0 };
    place p[3];
    size_t i;
    int k;
    if (test.brief && called++ % 3) return;
    memset(p, 0, sizeof p);
    o.direct = direct;
    for (k = 0; k < 3; k++) {
        size_t arena;
        CHECK_OK(NULL, calomu_open(&p[k].c, &o));
        if (device[k])
            CHECK_OK(p[k].c, device[k]->open(p[k].c, device[k], 0, CALOMU_MATH_EQUAL, &p[k].u));
        arena = run_once(&p[k], f, shape, muons, training, seed, 0);
        run_once(&p[k], f, shape, muons, training, seed, arena);
        if (k > 0 && CHECK(p[k].n_out == p[0].n_out && p[0].n_out > 0,
                           "%s: %zu numbers, expected %zu", name, p[k].n_out, p[0].n_out)) {
            for (i = 0; i < p[0].n_out; i++)
                if (memcmp(&p[0].out[i], &p[k].out[i], sizeof(float)) != 0) break;
            CHECK(i == p[0].n_out, "%s on '%s', %d muons, shape %d %d %d %d %d %d, training %d, "
                  "direct %d, seed %llu: number %zu of %zu is %.9g, expected %.9g", name,
                  device[k]->name, muons, shape[0], shape[1], shape[2], shape[3], shape[4],
                  shape[5], training, direct, (unsigned long long)seed, i, p[0].n_out,
                  i < p[0].n_out ? (double)p[k].out[i] : 0,
                  i < p[0].n_out ? (double)p[0].out[i] : 0);
        }
        if (p[k].u) device[k]->close(p[k].u);
        calomu_close(p[k].c);
    }
    for (k = 0; k < 3; k++) free(p[k].out);
}

/* ---------------------------------------------------------------- services */

/* No device, no test: then the line says why. */
static int device_opens(void)
{
    calomu *c = NULL;
    cm_unit *u = NULL;
    calomu_status s;
    CHECK_OK(NULL, calomu_open(&c, NULL));
    s = DEVICE.open(c, &DEVICE, 0, CALOMU_MATH_EQUAL, &u);
    if (s != CALOMU_OK) fprintf(stderr, "test_cuda: NOTHING TESTED: %s\n", calomu_message(c));
    CHECK_OK(c, s);
    CHECK(!u == (s != CALOMU_OK), "a unit if and only if it opens");
    if (u) DEVICE.close(u);
    CHECK_FAILS(c, DEVICE.open(c, &DEVICE, 1000, CALOMU_MATH_EQUAL, &u), CALOMU_EDEVICE);
    CHECK(!u, "no unit");
    calomu_close(c);
    return s == CALOMU_OK;
}

/* Memory there and back, in pieces, the source overwritten at once. */
static void memory_of(const calomu_device *d, size_t n, size_t piece)
{
    unsigned char *a = malloc(n), *b = malloc(n), *from = malloc(piece), *x, *y;
    calomu *c = NULL;
    cm_unit *u = NULL;
    size_t i, part;
    CHECK_OK(NULL, calomu_open(&c, NULL));
    CHECK_OK(c, d->open(c, d, 0, CALOMU_MATH_EQUAL, &u));
    if (!a || !b || !from || !u) exit(1);
    x = d->allocate(u, n);
    y = d->allocate(u, n);
    CHECK(x && y && (uintptr_t)x % 256 == 0 && (uintptr_t)y % 256 == 0, "aligned memory");
    for (i = 0; i < n; i++) a[i] = (unsigned char)(i * 2654435761u >> 24);
    for (i = 0; i < n; i += part) {
        part = piece < n - i ? piece : n - i;
        memcpy(from, a + i, part);
        d->put(u, x + i, from, part);
        memset(from, 0xee, part);
    }
    d->copy(u, y, x, n);
    d->fill(u, x + n / 3, n / 3);
    d->get(u, b, y, n);
    CHECK(memcmp(a, b, n) == 0, "%s: %zu bytes in pieces of %zu", d->name, n, piece);
    memset(a + n / 3, 0, n / 3);
    d->get(u, b, x, n);
    CHECK(memcmp(a, b, n) == 0, "%s: zeros in %zu bytes", d->name, n);
    d->put(u, x, a, 0);
    d->get(u, b, x, 0);
    CHECK(d->wait(u) == CALOMU_OK, "%s", u->message);
    d->release(u, x);
    d->release(u, y);
    d->release(u, NULL);
    calomu_emulated_limits(1000, 0);
    CHECK(!d->allocate(u, (size_t)1 << 60), "no memory of 2^60 bytes");
    calomu_emulated_limits(0, 0);
    CHECK(d->wait(u) == CALOMU_OK, "which is no failure of the unit: %s", u->message);
    d->hits_free(u, d->hits_new(u));
    d->hits_free(u, NULL);
    d->close(u);
    calomu_close(c);
    free(a);
    free(b);
    free(from);
}

/* ---------------------------------------------------------------- scenarios; shape: nz, nx, ny,
   channels in, channels out, kernel */

static void pointwise(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 1, 0);
    cm_tensor *a = cm_swish(p->g, x), *b = cm_sigmoid(p->g, x);
    finish(p, cm_swish(p->g, a), b);
}

/* All lanes of a gradient, dead ones too: those of a batch norm's input are summed by others. */
static void collect_lanes(place *p, const cm_tensor *t)
{
    cm_tensor all = *t;
    all.muons = t->groups * CM_LANES;
    if (p->g->training) collect(p, &all, t->dx);
}

/* The gradient of x comes twice. */
static void batchnorm(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 1, 0);
    cm_tensor *a = cm_batchnorm(p->g, x, norm(p, s[3]), 1, 1, 2);
    finish(p, a, cm_batchnorm(p->g, x, norm(p, s[3]), 0, 0, 0));
    collect_lanes(p, x);
}

static void batchnorms(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 0, 1);
    cm_tensor *a = cm_batchnorm(p->g, x, norm(p, s[3]), 0, 1, 0);
    cm_norm n = norm(p, s[3]), plain = norm(p, s[3]);
    n.weight.dx = n.bias.dx = NULL;
    a = cm_batchnorm(p->g, cm_batchnorm(p->g, a, n, 1, 0, 0), plain, 1, 1, 1);
    finish(p, a, NULL);
    collect_lanes(p, x);
}

/* An input that wants no gradient. */
static void batchnorm_first(place *p, const int *s)
{
    cm_tensor *x = cm_input(p->g, p->muons, s[0], s[1], s[2], s[3], 1, 1, 0);
    fill(p, x, x->x, 2);
    finish(p, cm_batchnorm(p->g, x, norm(p, s[3]), 1, 0, 0), NULL);
    CHECK(!x->dx, "a gradient for nothing");
}

/* Results that are made again for the backward pass. */
static void forgotten(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 1, 0), *gate = input(p, 1, 1, 1, s[3], 0, 0);
    cm_tensor *e = input(p, s[0], s[1], s[2], s[4], 1, 1), *a, *b, *y;
    a = cm_batchnorm(p->g, x, norm(p, s[3]), 1, 1, 0);
    b = cm_batchnorm(p->g, a, norm(p, s[3]), 1, 0, 0);
    cm_forget(p->g, a);
    y = cm_join(p->g, e, 2, x, b, gate, 1);
    cm_forget(p->g, b);
    finish(p, cm_mean(p->g, y), NULL);
}

/* As in a block of the network; all gradients but that of the first norm come twice. */
static void block(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 1, 1);
    cm_tensor *e = input(p, s[0], s[1], s[2], s[4], 0, 1);
    cm_tensor *shortcut = input(p, s[0], s[1], s[2], s[3], 1, 0);
    cm_tensor *path = cm_swish(p->g, cm_batchnorm(p->g, x, norm(p, s[3]), 0, 0, 0));
    cm_tensor *gate = cm_sigmoid(p->g, cm_mean(p->g, path));
    cm_tensor *y = cm_join(p->g, e, 0.7, shortcut, path, gate, 1), *z;
    z = cm_join(p->g, y, 1.3, path, cm_swish(p->g, shortcut), gate, 0);
    z = cm_concat(p->g, cm_mean(p->g, z), cm_max(p->g, z));
    finish(p, z, cm_batchnorm(p->g, y, norm(p, s[3] + 1), 1, 0, 1));
}

static void pools(place *p, const int *s)
{
    int n = s[4] < s[3] ? s[4] : s[3], first = s[3] - n;
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 1, 1), *a, *b;
    a = cm_pool(p->g, x, s[3] / 2, 1, 1, 0);
    b = cm_pool(p->g, x, 0, s[3], 0.125, 1);
    finish(p, a, b);
    x = input(p, s[0], s[1], s[2], s[3], 2, 1);
    a = cm_pool(p->g, cm_pool(p->g, x, first, n, 0.3, 2), 0, n, 0.125, 0);
    p->n_inputs = 0;
    p->input[p->n_inputs++] = x;
    finish(p, a, cm_pool(p->g, x, first, 1, 1, 0));
}

/* Gradients that are -0, of paths behind negative gates that are not the maximum. */
static void pool_join(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 1, 1), *path, *e, *shortcut, *own;
    cm_tensor *gate = input(p, 1, 1, 1, s[3], 0, 0);
    path = cm_pool(p->g, x, 0, s[3], 0.125, 0);
    e = cm_pool(p->g, x, s[3] - 1, 1, 1, 1);
    shortcut = input(p, path->nz, path->nx, path->ny, s[3], 1, 1);
    own = input(p, path->nz, path->nx, path->ny, s[3], 0, 1);
    finish(p, cm_max(p->g, cm_join(p->g, e, 0.1, shortcut, path, gate, 0)),
           cm_max(p->g, cm_join(p->g, e, 1, shortcut, own, gate, 0)));
}

/* Values of few kinds, so that sites share the maximum; NaNs; 0 and -0. */
static void coarse(place *p, cm_tensor *t)
{
    size_t n = t->group * (size_t)t->groups, i;
    float *x;
    if (p->dry) return;
    x = fetch(p, t->x, n);
    for (i = 0; i < n; i++) x[i] = 0.5f * ceilf(x[i]);
    for (i = 0; i < n; i += 97) x[i] = i % 2 && x[i] > 0 ? (float)NAN : x[i];
    if (p->u) p->u->device->put(p->u, t->x, x, n * sizeof *x);
    else memcpy(t->x, x, n * sizeof *x);
    free(x);
}

static void maximum(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 1, 0);
    cm_tensor *y = input(p, s[0], s[1], s[2], s[3], 1, 1), *zeros;
    coarse(p, x);
    zeros = cm_pool(p->g, y, 0, s[3], 0, 0);
    finish(p, cm_concat(p->g, cm_max(p->g, x), cm_max(p->g, zeros)), cm_max(p->g, x));
}

static void mean(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 1, 2), *y = input(p, 1, 1, 1, s[4], 0, 0);
    cm_tensor *a = cm_mean(p->g, x);
    finish(p, cm_concat(p->g, cm_mean(p->g, x), cm_mean(p->g, y)), a);
}

/* Rows of large values that cancel, so that sums in double in another order round visibly. */
static void wide(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 0, 0);
    size_t row = (size_t)(s[2] * s[3] * CM_LANES), n = x->group * (size_t)x->groups, i;
    float *v = p->dry ? NULL : fetch(p, x->x, n);
    for (i = 0; v && i < n; i++) {
        size_t column = i % (row / (size_t)s[2]);
        uint64_t which = (i / row * 1000 + column) * 0x9e3779b97f4a7c15u >> 40;
        if (column / CM_LANES % 2 == 0) which = i / row + column;
        if (which % 3 < 2) v[i] = which % 3 ? 1099511627776.0f : -1099511627776.0f;
    }
    if (v && p->u) p->u->device->put(p->u, x->x, v, n * sizeof *v);
    else if (v) memcpy(x->x, v, n * sizeof *v);
    free(v);
    finish(p, cm_mean(p->g, x), cm_batchnorm(p->g, x, norm(p, s[3]), 0, 0, 0));
}

static void combinations(place *p, const int *s)
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 1, 0);
    cm_tensor *y = input(p, s[0], s[1], s[2], s[3], 0, 2);
    cm_tensor *gate = input(p, 1, 1, 1, s[3], 1, 1);
    cm_tensor *a = cm_add(p->g, x, y), *b = cm_concat(p->g, a, cm_add(p->g, y, y));
    cm_tensor *c = cm_add(p->g, cm_scale(p->g, x, gate), cm_scale(p->g, a, gate));
    finish(p, b, c);
}

/* Convolutions.  Shape, from [6] on: stride, pad, bias, halo of the result. */

static cm_weight no_bias(void)
{
    cm_weight none = { NULL, NULL };
    return none;
}

/* How far a convolution of x reads behind it. */
static int reach(int n, int kernel, int stride, int pad)
{
    return ((n + 2 * pad - kernel) / stride) * stride - pad + kernel - n;
}

static cm_tensor *conv_input(place *p, const int *s, int lo, int hi)
{
    int a;
    for (a = 0; a < 3; a++) hi = reach(s[a], s[5], s[6], s[7]) > hi ? reach(s[a], s[5], s[6], s[7])
                                                                      : hi;
    return input(p, s[0], s[1], s[2], s[3], s[7] > lo ? s[7] : lo, hi);
}

static cm_tensor *conv_of(place *p, cm_tensor *x, const int *s, int in, int out, int halo)
{
    int cells = s[5] * s[5] * s[5];
    cm_weight w = weight(p, (size_t)(in * out * cells), 1 / sqrt(in * cells));
    cm_weight b = s[8] ? weight(p, (size_t)out, 1) : no_bias();
    return cm_conv(p->g, x, w, b, out, s[5], s[6], s[7], halo);
}

static void convolution(place *p, const int *s)
{
    finish(p, conv_of(p, conv_input(p, s, 0, 0), s, s[3], s[4], s[9]), NULL);
}

/* Two users: the second adds to the gradient of x. */
static void two_convolutions(place *p, const int *s)
{
    cm_tensor *x = conv_input(p, s, 0, 0), *a = conv_of(p, x, s, s[3], s[4], s[9]);
    finish(p, a, conv_of(p, x, s, s[3], s[4] + 1, 0));
}

/* A chain; s fits a result of the same size (pad) or smaller.  Without Winograd the first result
   needs a halo. */
static void chain(place *p, const int *s)
{
    cm_tensor *x = conv_input(p, s, 0, 0), *a = conv_of(p, x, s, s[3], s[4], 3);
    cm_tensor *b = conv_of(p, cm_swish(p->g, a) ? a : NULL, s, s[4], s[3] + 1, 3);
    finish(p, conv_of(p, b, s, s[3] + 1, s[4], 0), NULL);
}

static void far_lanes(place *p, const int *s)
{
    p->far = 1;
    convolution(p, s);
}

static void far_groups(place *p, const int *s)
{
    p->far = 2;
    convolution(p, s);
}

static void far_trees(place *p, const int *s)
{
    p->far = 3;
    convolution(p, s);
}

static void far_norm(place *p, const int *s)
{
    p->far = s[0] % 2 ? 1 : 3;
    batchnorm(p, s);
}

static void no_halo(place *p, const int *s)              /* as Winograd's method allows */
{
    cm_tensor *x = input(p, s[0], s[1], s[2], s[3], 0, 0), *a, *b;
    a = conv_of(p, x, s, s[3], s[4], 0);
    b = conv_of(p, a, s, s[4], s[3], 0);
    finish(p, b, conv_of(p, a, s, s[4], 2, 1));
}

static void linear(place *p, const int *s)
{
    cm_tensor *x = input(p, 1, 1, 1, s[3], 0, 0), *a;
    cm_weight w = weight(p, (size_t)(s[3] * s[4]), 0.5), b = weight(p, (size_t)s[4], 1);
    a = cm_linear(p->g, x, w, b, s[4]);
    w = weight(p, (size_t)(s[3] * s[4]), 0.5);
    b = weight(p, (size_t)s[3], 1);
    b.dx = NULL;
    finish(p, cm_linear(p->g, a, w, b, s[3]), NULL);
}

static const int conv_shapes[][10] = {
    { 1, 1, 1, 1, 1, 1, 1, 0, 0, 0 }, { 1, 1, 1, 7, 9, 1, 1, 0, 1, 0 },
    { 1, 1, 1, 3, 4, 3, 1, 1, 0, 0 }, { 3, 4, 5, 2, 3, 1, 1, 0, 1, 1 },
    { 4, 3, 6, 5, 8, 1, 2, 0, 0, 0 }, { 5, 4, 3, 3, 3, 3, 1, 0, 1, 0 },
    { 3, 5, 5, 4, 11, 3, 1, 1, 0, 1 }, { 4, 5, 9, 8, 6, 3, 1, 1, 1, 0 },
    { 4, 3, 6, 6, 7, 3, 1, 2, 0, 2 }, { 7, 6, 5, 10, 3, 3, 2, 1, 0, 0 },
    { 6, 7, 8, 3, 17, 3, 2, 0, 1, 1 }, { 5, 5, 4, 1, 13, 3, 2, 2, 0, 0 },
    { 6, 4, 5, 13, 14, 4, 1, 1, 0, 0 }, { 5, 6, 7, 3, 4, 4, 1, 2, 1, 1 },
    { 8, 7, 6, 5, 5, 4, 2, 1, 0, 1 }, { 6, 9, 10, 4, 19, 4, 2, 2, 1, 0 },
    { 4, 4, 4, 15, 2, 4, 2, 0, 0, 0 }, { 3, 4, 9, 16, 12, 3, 1, 1, 0, 0 },
    { 3, 8, 4, 19, 18, 3, 1, 1, 0, 1 }, { 2, 9, 5, 9, 16, 3, 1, 1, 0, 0 },
    { 6, 5, 4, 2, 1, 2, 1, 0, 0, 0 }, { 7, 6, 5, 4, 5, 2, 2, 1, 1, 0 },
    { 5, 4, 7, 4, 3, 2, 3, 0, 0, 1 }, { 5, 7, 8, 3, 5, 1, 3, 0, 0, 0 },
    { 3, 4, 3, 31, 46, 3, 1, 1, 0, 0 }, { 2, 17, 3, 5, 9, 3, 1, 1, 0, 0 }
};

static void convolutions(test_random *r)
{
    static const int chains[][10] = {
        { 3, 4, 5, 3, 5, 3, 1, 1, 0, 0 }, { 4, 9, 3, 9, 2, 3, 1, 1, 0, 0 },
        { 2, 8, 9, 17, 10, 3, 1, 1, 0, 0 }, { 7, 5, 6, 4, 6, 3, 1, 1, 1, 0 },
        { 13, 15, 14, 3, 4, 3, 2, 1, 0, 0 }, { 5, 6, 4, 2, 9, 2, 1, 1, 0, 0 }
    };
    static const int fars[][10] = {
        { 1, 1, 1, 4, 5, 1, 1, 0, 1, 0 }, { 3, 2, 4, 2, 4, 3, 1, 1, 1, 0 },
        { 4, 3, 2, 3, 4, 3, 1, 1, 0, 0 }, { 4, 5, 5, 4, 2, 3, 2, 1, 0, 0 }
    };
    static const int muons[] = { 1, 2, 3, 16, 17, 33, 40 };
    size_t i;
    int direct;
    for (i = 0; i < sizeof fars / sizeof fars[0]; i++) {
        compare("far lanes", far_lanes, fars[i], 16, 1, 0, test_bits(r));
        compare("far lanes", far_lanes, fars[i], 40, 1, 1, test_bits(r));
        compare("far groups", far_groups, fars[i], 40, 1, 0, test_bits(r));
        compare("far trees", far_trees, fars[i], i ? 64 : 300, 1, 0, test_bits(r));
        compare("far trees", far_trees, fars[i], i == 1 ? 260 : 75, 1, 1, test_bits(r));
    }
    for (i = 0; i < sizeof conv_shapes / sizeof conv_shapes[0]; i++)
        for (direct = 0; direct < 2; direct++) {
            const int *s = conv_shapes[i];
            int n = s[4] > 40 ? 17 : muons[test_int(r, 0, 6)];
            compare("convolution", convolution, s, n, 1, direct, test_bits(r));
            if (s[4] > 40) continue;
            compare("convolution", convolution, s, 1, 0, direct, test_bits(r));
            compare("two convolutions", two_convolutions, s, muons[test_int(r, 0, 6)], 1, direct,
                    test_bits(r));
            if (direct) continue;
            compare("linear", linear, s, muons[test_int(r, 0, 6)], 1, 0, test_bits(r));
        }
    for (i = 0; i < sizeof chains / sizeof chains[0]; i++)
        for (direct = 0; direct < 2; direct++) {
            compare("chain", chain, chains[i], muons[test_int(r, 0, 6)], 1, direct, test_bits(r));
            if (i < 3 && !direct)
                compare("no halo", no_halo, chains[i], 40, 1, direct, test_bits(r));
        }
}

/* Hits of random events: most sparse, one with none, one with all cells, one along the borders. */
static void make_hits(place *p, int nz, int nx, int ny)
{
    calomu_event *event = calloc((size_t)p->muons, sizeof *event);
    int v, z, x, y, odd = test_int(&p->random, 0, 4);
    if (!event) exit(1);
    for (v = 0; v < p->muons; v++) {
        calomu_hit *hit = malloc((size_t)(nz * nx * ny) * sizeof *hit);
        double part = test_unit(&p->random) * 0.3;
        size_t n = 0;
        if (!hit) exit(1);
        for (z = 0; z < nz; z++)
            for (x = 0; x < nx; x++)
                for (y = 0; y < ny; y++) {
                    int edge = z == 0 || x == 0 || y == 0 || z == nz - 1 || x == nx - 1
                             || y == ny - 1;
                    double chance = v == odd ? 0 : v == odd + 1 ? 1 : v == odd + 2 ? edge : part;
                    if (!(test_unit(&p->random) < chance)) continue;
                    hit[n].cell = (uint32_t)((z * nx + x) * ny + y);
                    hit[n++].energy = (float)fabs(test_normal(&p->random));
                }
        if (twin_of(p, v) != v) {
            n = event[twin_of(p, v)].n_hits;
            memcpy(hit, event[twin_of(p, v)].hits, n * sizeof *hit);
        }
        event[v].hits = hit;
        event[v].n_hits = n;
    }
    p->hits.event = event;
    p->hits.muons = p->muons;
    p->hits.nz = nz;
    p->hits.nx = nx;
    p->hits.ny = ny;
    p->hits.resident = NULL;
    if (!p->u || p->dry) return;
    p->hits.resident = p->u->device->hits_new(p->u);
    p->u->device->hits_put(p->u, p->hits.resident, &p->hits);
}

static void drop_hits(place *p)
{
    calomu_event *event = (calomu_event *)(uintptr_t)p->hits.event;
    int v;
    for (v = 0; v < p->hits.muons; v++) free((void *)(uintptr_t)event[v].hits);
    free(event);
    if (p->hits.resident) p->u->device->hits_free(p->u, p->hits.resident);
    memset(&p->hits, 0, sizeof p->hits);
}

/* All values of t, halo and dead lanes too. */
static void collect_all(place *p, const cm_tensor *t)
{
    size_t n = t->group * (size_t)t->groups;
    float *x = p->dry ? NULL : fetch(p, t->x, n);
    if (x) collect_reals(p, x, n);
    free(x);
}

/* Free memory of the arena holds numbers that look right to whoever reads what nobody wrote:
   energies 1 in lane 0 of output 0. */
static void dirty(place *p, size_t n)
{
    cm_real *memory = cm_arena_take(p->g, n);
    float *x = calloc(n, sizeof *x);
    size_t i;
    if (!x) exit(1);
    for (i = 0; i < n; i += 2) x[i] = 1;
    if (memory && !p->dry && p->u) p->u->device->put(p->u, memory, x, n * sizeof *x);
    cm_give_back(p->g, memory);
    free(x);
}

/* shape: nz, nx, ny, stride, channels, kernel; padding: half the kernel */
static void sparse(place *p, const int *s)
{
    cm_tensor *y, *sum;
    cm_weight w;
    make_hits(p, s[0], s[1], s[2]);
    w = weight(p, (size_t)(s[4] * s[5] * s[5] * s[5]), 0.3);
    y = cm_sparse_conv(p->g, &p->hits, w, s[4], s[5], s[3], s[5] / 2, test_int(&p->random, 0, 1));
    sum = cm_sparse_sum(p->g, &p->hits, 0.125, test_int(&p->random, 0, 1));
    if (y && sum) {
        collect_all(p, y);
        collect_all(p, sum);
        dirty(p, (size_t)(80 * p->muons * s[0] * s[1] * s[2]));
        finish(p, y, NULL);
    }
    drop_hits(p);
}

static void far_sparse(place *p, const int *s)
{
    p->far = s[0] % 2 ? 1 : 3;
    sparse(p, s);
}

/* ---------------------------------------------------------------- loss and Adam */

static void *on_device(cm_unit *u, const void *values, size_t bytes)
{
    void *memory = u->device->allocate(u, bytes);
    if (!memory) exit(1);
    u->device->put(u, memory, values, bytes);
    return memory;
}

static void compare_bytes(const char *name, cm_unit *u, const void *got, const void *expected,
                          size_t size, size_t n)
{
    unsigned char *x = malloc(n * size);
    size_t i;
    if (!x) exit(1);
    u->device->get(u, x, got, n * size);
    for (i = 0; i < n; i++)
        if (memcmp(x + i * size, (const unsigned char *)expected + i * size, size) != 0) break;
    CHECK(i == n, "%s of '%s': number %zu of %zu differs", name, u->device->name, i, n);
    free(x);
}

enum { LOSS_CLEAN, LOSS_TIES, LOSS_HUGE, LOSS_NAN, LOSS_INFINITE, LOSS_TRUTH, LOSS_CASES };

typedef struct loss_batch {
    calomu_train_options o;
    int n;
    float *y, *dy;                   /* of all lanes */
    double *truth, *pred, *dp;
} loss_batch;

static void loss_random(test_random *r, loss_batch *b, int what)
{
    int i, bad = test_int(r, 0, b->n - 1);
    for (i = 0; i < b->n; i++) {
        double truth = exp(test_uniform(r, log(b->o.bin_low / 2), log(b->o.bin_high * 2)));
        double d = what == LOSS_TIES ? 10.0 * test_int(r, -2, 2) : 0.2 * truth * test_normal(r);
        b->truth[i] = (double)(float)truth;
        if (what == LOSS_TIES) b->truth[i] = floor(truth);
        if (test_int(r, 0, 9) == 0) b->truth[i] = b->o.bin_low;          /* edges of bins */
        if (test_int(r, 0, 9) == 0) b->truth[i] = b->o.bin_high;
        b->y[i] = (float)(b->truth[i] + d);
        if (what == LOSS_HUGE && test_int(r, 0, 3) == 0) b->y[i] = (float)(d * 1e34);
        if (i == bad && what == LOSS_NAN) b->y[i] = NAN;
        if (i == bad && what == LOSS_INFINITE) b->y[i] = -INFINITY;
        if (i == bad && what == LOSS_TRUTH) b->truth[i] = 0;             /* the loss is infinite */
        b->pred[i] = (double)b->y[i];
    }
}

/* Batches in a row: thresholds run on. */
static void loss_on(const calomu_device *device, loss_batch *b, test_random *r, int unset)
{
    int j, what, finite = -1, lanes = (b->n + CM_LANES - 1) / CM_LANES * CM_LANES;
    double thresholds[16], *zeros = calloc((size_t)(4 * b->n + 64), sizeof *zeros), expected;
    cm_loss_job job;
    cm_tensor y;
    calomu *c;
    cm_unit *u;
    memset(&y, 0, sizeof y);
    CHECK_OK(NULL, calomu_open(&c, NULL));
    CHECK_OK(c, device->open(c, device, 0, CALOMU_MATH_EQUAL, &u));
    if (!zeros || !u) exit(1);
    for (j = 0; j < 16; j++)
        thresholds[j] = j % 2 < unset ? -1 : pow(10, test_uniform(r, 1, 5));
    y.muons = b->n;
    y.groups = lanes / CM_LANES;
    y.nz = y.nx = y.ny = y.nc = 1;
    y.row_z = y.row_x = 1;
    y.group = CM_LANES;
    y.x = on_device(u, b->y, (size_t)lanes * sizeof *b->y);
    y.dx = on_device(u, b->dy, (size_t)lanes * sizeof *b->dy);
    job.options = &b->o;
    job.y = &y;
    job.truth = on_device(u, b->truth, (size_t)b->n * sizeof *b->truth);
    job.thresholds = on_device(u, thresholds, sizeof thresholds);
    job.work = on_device(u, zeros, (size_t)(4 * b->n + 64) * sizeof *zeros);
    job.loss = on_device(u, zeros, sizeof *zeros);
    job.finite = on_device(u, &finite, sizeof finite);
    for (j = 0; j < 8; j++) {
        what = j < 3 ? LOSS_CLEAN : test_int(r, LOSS_TIES, LOSS_CASES - 1);
        loss_random(r, b, what);
        u->device->put(u, y.x, b->y, (size_t)lanes * sizeof *b->y);
        u->device->put(u, (void *)(uintptr_t)job.truth, b->truth, (size_t)b->n * sizeof *b->truth);
        memset(b->dy, 0, (size_t)lanes * sizeof *b->dy);
        u->device->put(u, y.dx, b->dy, (size_t)lanes * sizeof *b->dy);
        device->loss(u, &job);
        CHECK(u->device->wait(u) == CALOMU_OK, "%s", u->message);
        u->device->get(u, &finite, job.finite, sizeof finite);
        if (what >= LOSS_NAN) {
            CHECK(finite == 0, "case %d: finite is %d", what, finite);
            u->device->put(u, job.thresholds, thresholds, sizeof thresholds);
            continue;
        }
        expected = cm_loss(&b->o, b->truth, b->pred, b->n, thresholds, 1, b->dp);
        CHECK(finite == 1 && isfinite(expected), "case %d: finite is %d", what, finite);
        compare_bytes("loss", u, job.loss, &expected, sizeof expected, 1);
        compare_bytes("thresholds", u, job.thresholds, thresholds, sizeof *thresholds, 16);
        for (finite = 0; finite < b->n; finite++) b->dy[finite] = (float)b->dp[finite];
        compare_bytes("gradient", u, y.dx, b->dy, sizeof *b->dy, (size_t)lanes);
    }
    u->device->release(u, y.x);
    u->device->release(u, y.dx);
    u->device->release(u, (void *)(uintptr_t)job.truth);
    u->device->release(u, job.thresholds);
    u->device->release(u, job.work);
    u->device->release(u, job.loss);
    u->device->release(u, job.finite);
    device->close(u);
    calomu_close(c);
    free(zeros);
}

static void test_loss(test_random *r, int n)
{
    size_t lanes = (size_t)(n + CM_LANES - 1) / CM_LANES * CM_LANES;
    loss_batch b;
    int k;
    b.n = n;
    b.y = calloc(lanes, sizeof *b.y);
    b.dy = calloc(lanes, sizeof *b.dy);
    b.truth = calloc(lanes, sizeof *b.truth);
    b.pred = calloc(lanes, sizeof *b.pred);
    b.dp = calloc(lanes, sizeof *b.dp);
    if (!b.y || !b.dy || !b.truth || !b.pred || !b.dp) exit(1);
    for (k = 0; k < 4; k++) {
        static const int bins[4] = { 5, 1, 16, 3 };
        static const double quantile[4] = { 0.68, 0, 1, 0.5 };
        b.o = calomu_train_options_default();
        b.o.bins = bins[k];
        b.o.quantile = quantile[k];
        if (k == 3) b.o.weight_low = b.o.weight_high = 1;        /* exp at its ends */
        loss_on(&DEVICE, &b, r, k == 0 ? 2 : 1);
        loss_on(&DEVICE_PLAIN, &b, r, k % 3);
    }
    free(b.y);
    free(b.dy);
    free(b.truth);
    free(b.pred);
    free(b.dp);
}

enum { ADAM_W, ADAM_M, ADAM_V, ADAM_DW, ADAM_ARRAYS };

static void adam_random(test_random *r, float *dw, size_t n, int step)
{
    size_t i;
    for (i = 0; i < n; i++) {
        dw[i] = (float)(test_normal(r) * pow(10, test_uniform(r, -9, 3)));
        if (step == 3 && test_int(r, 0, 9) == 0) dw[i] *= 1e30f;
        if (test_int(r, 0, 9) == 0) dw[i] = 0;
    }
    if (step == 1) dw[test_bits(r) % n] = NAN;
    if (step == 2) dw[n - 1] = INFINITY;
}

static double power(double b, int t)             /* in the order of cm_adam */
{
    double p = 1;
    for (; t; t >>= 1, b *= b)
        if (t & 1) p *= b;
    return p;
}

/* Updates in a row; the 1st and 2nd have a gradient, the 4th a loss that is not finite. */
static void test_adam(const calomu_device *device, test_random *r, size_t n)
{
    float *x[ADAM_ARRAYS], *on[ADAM_ARRAYS];
    int finite = 1, good, step, k;
    size_t i, bytes = n * sizeof **x;
    cm_adam_job job;
    calomu *c;
    cm_unit *u;
    CHECK_OK(NULL, calomu_open(&c, NULL));
    CHECK_OK(c, device->open(c, device, 0, CALOMU_MATH_EQUAL, &u));
    for (k = 0; k < ADAM_ARRAYS; k++) {
        x[k] = calloc(n, sizeof **x);
        if (!x[k] || !u) exit(1);
        for (i = 0; i < n && k == ADAM_W; i++) x[k][i] = (float)test_normal(r);
        on[k] = on_device(u, x[k], bytes);
    }
    job.w = on[ADAM_W];
    job.m = on[ADAM_M];
    job.v = on[ADAM_V];
    job.dw = on[ADAM_DW];
    job.n = n;
    job.finite = on_device(u, &finite, sizeof finite);
    job.gradient_finite = on_device(u, &finite, sizeof finite);
    for (step = 0; step < 8; step++) {
        double lr = test_uniform(r, 1e-4, 1e-2);
        adam_random(r, x[ADAM_DW], n, step);
        u->device->put(u, on[ADAM_DW], x[ADAM_DW], bytes);
        finite = step != 4;
        u->device->put(u, (void *)(uintptr_t)job.finite, &finite, sizeof finite);
        good = step != 1 && step != 2 && step != 4;
        job.beta1 = step == 6 ? 0.85 : 0.95;
        job.rate = lr / (1 - power(job.beta1, step + 1));
        job.root = sqrt(1 - power(0.999, step + 1));
        device->adam(u, &job);
        CHECK(u->device->wait(u) == CALOMU_OK, "%s", u->message);
        u->device->get(u, &finite, job.gradient_finite, sizeof finite);
        CHECK(finite == good, "step %d: gradient_finite is %d", step, finite);
        if (good)
            cm_adam(x[ADAM_W], x[ADAM_DW], x[ADAM_M], x[ADAM_V], n, lr, job.beta1,
                    (uint64_t)step + 1);
        for (k = 0; k < ADAM_ARRAYS; k++)
            compare_bytes("Adam", u, on[k], x[k], sizeof **x, n);
    }
    for (k = 0; k < ADAM_ARRAYS; k++) {
        u->device->release(u, on[k]);
        free(x[k]);
    }
    u->device->release(u, (void *)(uintptr_t)job.finite);
    u->device->release(u, job.gradient_finite);
    device->close(u);
    calomu_close(c);
}

static const int sparse_shapes[][6] = {          /* nz, nx, ny, stride, channels, kernel */
    { 1, 1, 1, 2, 1, 4 }, { 1, 1, 1, 1, 3, 3 }, { 1, 1, 1, 2, 2, 2 }, { 1, 1, 1, 1, 1, 1 },
    { 2, 3, 1, 2, 8, 4 }, { 3, 1, 2, 1, 5, 3 }, { 7, 6, 9, 2, 8, 4 }, { 6, 9, 7, 2, 9, 4 },
    { 9, 7, 6, 1, 17, 3 }, { 5, 6, 7, 2, 3, 2 }, { 6, 5, 5, 1, 2, 1 }, { 8, 5, 19, 1, 4, 3 },
    { 5, 7, 6, 1, 3, 4 }, { 7, 8, 9, 3, 4, 4 }, { 8, 7, 9, 3, 4, 2 }, { 9, 8, 6, 2, 3, 1 },
    { 6, 7, 33, 2, 10, 4 }
};

static const int shapes[][6] = {
    { 1, 1, 1, 1, 1, 1 }, { 1, 1, 1, 5, 3, 1 }, { 2, 3, 4, 3, 5, 3 }, { 5, 3, 5, 2, 9, 3 },
    { 4, 5, 3, 9, 8, 3 }, { 7, 2, 6, 10, 17, 3 }, { 6, 5, 5, 17, 4, 4 }, { 9, 4, 7, 4, 10, 4 }
};

static void far_sums(test_random *r)
{
    compare("far norm", far_norm, shapes[2], 300, 1, 1, test_bits(r));
    compare("far norm", far_norm, shapes[3], 75, 1, 0, test_bits(r));
    compare("far sparse", far_sparse, sparse_shapes[7], 75, 1, 0, test_bits(r));
    compare("far sparse", far_sparse, sparse_shapes[6], 34, 1, 0, test_bits(r));
    compare("far sparse", far_sparse, sparse_shapes[4], 300, 1, 0, test_bits(r));
}

int main(int argc, char **argv)
{
    static const int muons[] = { 2, 3, 16, 17, 33, 40 };
    test_random r;
    uint64_t seed;
    size_t i;
    test_begin(argc, argv);
    if (!device_opens()) return test_end("test_cuda");
    memory_of(&DEVICE, 5000011, 5000011);
    memory_of(&DEVICE, 3000017, 700001);
    memory_of(&DEVICE_PLAIN, 100003, 4);
    seed = test_seed_of(argc, argv, 6);
    r = test_seed(seed);
    for (i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        int n = muons[test_int(&r, 0, 5)];
        compare("Swish and sigmoid", pointwise, shapes[i], n, 1, 0, test_bits(&r));
        compare("Swish and sigmoid", pointwise, shapes[i], 1, 0, 0, test_bits(&r));
        {
            static const struct { const char *name; scenario *f; } some[] = {
                { "batch norm", batchnorm }, { "batch norms in a row", batchnorms },
                { "batch norm of an input", batchnorm_first }, { "block", block },
                { "pooling", pools }, { "pooling and join", pool_join }, { "maximum", maximum },
                { "mean", mean }, { "combinations", combinations }, { "forgotten", forgotten },
                { "rounding of sums", wide }
            };
            size_t j;
            for (j = 0; j < sizeof some / sizeof some[0]; j++) {
                compare(some[j].name, some[j].f, shapes[i], muons[test_int(&r, 0, 5)], 1,
                        (int)(i + j) % 2, test_bits(&r));
                compare(some[j].name, some[j].f, shapes[i], test_int(&r, 1, 40), 0, (int)i % 2,
                        test_bits(&r));
            }
        }
    }
    convolutions(&r);
    for (i = 0; i < sizeof sparse_shapes / sizeof sparse_shapes[0]; i++) {
        compare("sparse convolution", sparse, sparse_shapes[i], muons[test_int(&r, 0, 5)], 1, 0,
                test_bits(&r));
        compare("sparse convolution", sparse, sparse_shapes[i], test_int(&r, 1, 40), 1, 0,
                test_bits(&r));
        compare("sparse convolution", sparse, sparse_shapes[i], 1, 0, 0, test_bits(&r));
    }
    for (i = 0; i < 6; i++) {
        static const int batch[6] = { 1, 2, 17, 40, 256, 300 };
        static const size_t n[6] = { 1, 2, 127, 128, 129, 5000 };
        test_loss(&r, batch[i]);
        test_adam(&DEVICE, &r, n[i]);
        test_adam(&DEVICE_PLAIN, &r, n[i]);
    }
    compare("block", block, shapes[2], 150, 1, 0, test_bits(&r));
    compare("rounding of sums", wide, shapes[1], 33, 1, 0, test_bits(&r));
    compare("rounding of sums", wide, shapes[1], 300, 1, 0, test_bits(&r));
    far_sums(&r);
#ifndef CALOMU_TEST_CUDA
    SKIP("NO GPU: the kernels ran on the processor; make test-cuda runs them on a GPU");
#endif
    return test_end("test_cuda");
}
