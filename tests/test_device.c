/* test_device.c - training and prediction on a device: the bits of the processor, and failures

   The device is cuda/emulated.c, or with CALOMU_TEST_CUDA a GPU.  Checkpoints of a training there
   are compared byte for byte with those of the same training on the processor. */
#include "test_net.h"
#include "../cuda/calomu_cuda.h"

#ifdef CALOMU_TEST_CUDA
static const calomu_device *const device = &calomu_cuda;
static const calomu_device *const plain = &calomu_cuda_plain;
#else
static const calomu_device *const device = &calomu_emulated;
static const calomu_device *const plain = &calomu_emulated_plain;
#endif

enum { N = 96, FOLDS = 4 };

static calomu_geometry grid(int nz, int nx, int ny)
{
    calomu_geometry g = calomu_geometry_default();
    g.nz = nz;
    g.nx = nx;
    g.ny = ny;
    g.origin[1] = -0.5 * nx * g.pitch[1];
    g.origin[2] = -0.5 * ny * g.pitch[2];
    return g;
}

static calomu *context(const calomu_device *d, int direct, int recompute, calomu_math math)
{
    calomu_options o = { 0 };
    calomu *c = NULL;
    o.device = d;
    o.direct = direct;
    o.recompute = recompute;
    o.math = math;
    o.threads = d ? 2 : 1;
    CHECK(calomu_open(&c, &o) == CALOMU_OK && c, "no context");
    if (!c) exit(1);
    return c;
}

static calomu_architecture network(const calomu_geometry *g, int head, int features, int blocks)
{
    calomu_architecture a = calomu_architecture_default();
    a.geometry = *g;
    a.head = head;
    a.n_features = features;
    a.blocks = blocks;
    a.body = 10;
    a.growth = 1.2;
    return a;
}

static calomu_train_options options(int batch)
{
    calomu_train_options o = calomu_train_options_default();
    o.batch = batch;
    o.folds = FOLDS;
    o.holdout = 0;
    o.epochs = 3;
    o.cycle_epochs = 2;
    o.lr = 0.01;
    o.fit_bins = 4;
    o.mi_bins = 3;
    return o;
}

static calomu_data *muons(calomu *c, const test_batch *b, const calomu_geometry *g)
{
    static float features[N][CALOMU_FEATURES];
    calomu_data_info info;
    calomu_data *data = NULL;
    int i, k;
    memset(&info, 0, sizeof info);
    info.geometry = *g;
    info.features = CALOMU_FEATURES_RAW;
    info.feature_options = calomu_feature_options_default();
    for (i = 0; i < N; i++) {
        for (k = 0; k < CALOMU_FEATURES; k++)
            features[i][k] = (float)(b->features[i * CALOMU_FEATURES + k] + k);
        features[i][0] = (float)(b->truth[i] * (1 + 0.1 * b->features[i * CALOMU_FEATURES]));
        b->event[i].features = features[i];
        b->event[i].x = b->event[i].y = 0;
    }
    CHECK_OK(c, calomu_data_from_memory(c, &info, b->event, N, &data));
    return data;
}

typedef struct bytes { unsigned char *at; size_t n; } bytes;

static bytes saved(calomu *c, const calomu_trainer *t)
{
    char path[1024];
    bytes b = { NULL, 0 };
    FILE *f;
    test_path(path, sizeof path, test.tmp, "device.checkpoint");
    if (!CHECK_OK(c, calomu_trainer_save(c, t, path))) return b;
    f = fopen(path, "rb");
    b.at = malloc(1 << 22);
    if (f && b.at) b.n = fread(b.at, 1, 1 << 22, f);
    if (f) fclose(f);
    return b;
}

static int same(bytes *a, bytes *b)
{
    int equal = a->n == b->n && a->n > 100 && memcmp(a->at, b->at, a->n) == 0;
    free(a->at);
    free(b->at);
    return equal;
}

static calomu_trainer *begin(calomu *c, const calomu_data *d, const calomu_architecture *a,
                             const calomu_train_options *o)
{
    calomu_trainer *t = NULL;
    if (!CHECK_OK(c, calomu_trainer_create(c, d, a, o, &t))) exit(1);
    return t;
}

static calomu_status steps(calomu *c, calomu_trainer *t, int n)
{
    calomu_train_report r;
    calomu_status s = CALOMU_OK;
    while (n-- > 0 && s == CALOMU_OK) s = calomu_trainer_step(c, t, &r);
    return s;
}

/* ---------------------------------------------------------------- training */

static void test_training(const calomu_device *d, const calomu_architecture *a,
                          const calomu_train_options *o, const test_batch *b, int direct,
                          int recompute, const char *what)
{
    calomu *cpu = context(NULL, direct, recompute, CALOMU_MATH_EQUAL);
    calomu *c = context(d, direct, recompute, CALOMU_MATH_EQUAL);
    calomu_data *data = muons(cpu, b, &a->geometry);
    calomu_train_options use = *o;
    calomu_trainer *t, *u;
    int i;
    if (o->shuffle) use.validation = data;
    t = begin(cpu, data, a, &use);
    u = begin(c, data, a, &use);
    for (i = 0; i < (test.brief ? 14 : 40); i += 7) {    /* within an epoch, validation, behind */
        bytes x, y;
        CHECK_OK(cpu, steps(cpu, t, 7));
        CHECK_OK(c, steps(c, u, 7));
        x = saved(cpu, t);
        y = saved(c, u);
        CHECK(same(&x, &y), "%s: other bytes after %d steps on '%s'", what, i + 7, d->name);
    }
    calomu_trainer_free(t);
    calomu_trainer_free(u);
    calomu_data_close(data);
    calomu_close(c);
    calomu_close(cpu);
}

/* A training that moves between processor and device, within one trainer and by checkpoints. */
static void test_moving(const calomu_architecture *a, const test_batch *b)
{
    calomu_train_options o = options(20);
    calomu *cpu = context(NULL, 0, 0, CALOMU_MATH_EQUAL), *c = context(device, 0, 0,
                                                                      CALOMU_MATH_EQUAL);
    calomu_data *data = muons(cpu, b, &a->geometry);
    calomu_trainer *t = begin(cpu, data, a, &o), *u = begin(c, data, a, &o), *v = NULL;
    bytes x, y;
    char path[1024];
    CHECK_OK(cpu, steps(cpu, t, 13));
    CHECK_OK(c, steps(c, u, 2));
    CHECK_OK(cpu, steps(cpu, u, 3));
    CHECK_OK(c, steps(c, u, 1));
    test_path(path, sizeof path, test.tmp, "moving.checkpoint");
    CHECK_OK(c, calomu_trainer_save(c, u, path));
    calomu_trainer_free(u);
    CHECK_OK(cpu, calomu_trainer_resume(cpu, data, path, &v));
    CHECK_OK(cpu, steps(cpu, v, 2));
    CHECK_OK(c, steps(c, v, 5));
    x = saved(cpu, t);
    y = saved(cpu, v);               /* fetched from a device, whatever the context */
    CHECK(same(&x, &y), "a training that moved has other bytes");
    calomu_trainer_free(t);
    calomu_close(c);                 /* the trainer outlives its context */
    calomu_trainer_free(v);
    calomu_data_close(data);
    calomu_close(cpu);
}

/* ---------------------------------------------------------------- failures */

#ifndef CALOMU_TEST_CUDA
/* A kernel fails in the middle of a step: the training is where it was when it was saved last, and
   goes on from there on the processor to the bits of an undisturbed one. */
static void test_lost_device(const calomu_architecture *a, const test_batch *b)
{
    calomu_train_options o = options(20);
    calomu *cpu = context(NULL, 0, 0, CALOMU_MATH_EQUAL), *c = context(device, 0, 0,
                                                                      CALOMU_MATH_EQUAL);
    calomu_data *data = muons(cpu, b, &a->geometry);
    calomu_trainer *t = begin(cpu, data, a, &o), *u = begin(c, data, a, &o);
    bytes x, y;
    CHECK_OK(cpu, steps(cpu, t, 2));
    x = saved(cpu, t);
    CHECK_OK(c, steps(c, u, 2));
    y = saved(c, u);
    CHECK(same(&x, &y), "other bytes before the failure");
    CHECK_OK(c, steps(c, u, 1));
    calomu_emulated_limits(0, 1);
    CHECK_FAILS(c, steps(c, u, 1), CALOMU_EDEVICE);
    calomu_emulated_limits(0, 0);
    CHECK_FAILS(c, steps(c, u, 1), CALOMU_EDEVICE);      /* it stays lost */
    x = saved(cpu, t);
    y = saved(cpu, u);
    CHECK(same(&x, &y), "not where it was saved last");
    CHECK_OK(cpu, steps(cpu, t, 6));
    CHECK_OK(cpu, steps(cpu, u, 6));
    x = saved(cpu, t);
    y = saved(cpu, u);
    CHECK(same(&x, &y), "other bytes after going on on the processor");
    calomu_trainer_free(t);
    calomu_trainer_free(u);
    calomu_data_close(data);
    calomu_close(c);
    calomu_close(cpu);
}

static void test_device_memory(const calomu_architecture *a, const test_batch *b)
{
    calomu_train_options o = options(20);
    calomu *c = context(device, 0, 0, CALOMU_MATH_EQUAL);
    calomu_data *data = muons(c, b, &a->geometry);
    calomu_trainer *t = NULL;
    size_t limit, failures = 0;
    for (limit = 1000; limit < (size_t)1 << 40 && !t; limit *= 2) {
        calomu_status s;
        calomu_emulated_limits(limit, 0);
        s = calomu_trainer_create(c, data, a, &o, &t);
        failures += s != CALOMU_OK;
        CHECK(s == CALOMU_OK || (s == CALOMU_EMEMORY && !t), "status %d", (int)s);
    }
    CHECK(failures > 5 && t, "%zu failures", failures);
    CHECK(strstr(calomu_message(c), "smaller batch") != NULL, "%s", calomu_message(c));
    CHECK(t && calomu_trainer_memory(t) > 100000, "no memory is told");
    calomu_emulated_limits(0, 0);
    calomu_trainer_free(t);
    calomu_data_close(data);
    calomu_close(c);
}
#endif

static void test_not_finite(const calomu_architecture *a, const test_batch *b)
{
    calomu_train_options o = options(20);
    calomu *cpu = context(NULL, 0, 0, CALOMU_MATH_EQUAL), *c = context(device, 0, 0,
                                                                      CALOMU_MATH_EQUAL);
    calomu_data *data = muons(cpu, b, &a->geometry);
    calomu_trainer *t, *u;
    calomu_status s = CALOMU_OK;
    int i;
    o.lr = 1e30;
    t = begin(cpu, data, a, &o);
    u = begin(c, data, a, &o);
    for (i = 0; i < 12 && s == CALOMU_OK; i++) {
        s = steps(cpu, t, 1);
        if (s == CALOMU_OK) CHECK_OK(c, steps(c, u, 1));
        else CHECK_FAILS(c, steps(c, u, 1), s);
    }
    CHECK(s == CALOMU_ENOTFINITE, "a learning rate of 1e30 gave status %d", (int)s);
    CHECK(strcmp(calomu_message(c), calomu_message(cpu)) == 0, "'%s'", calomu_message(c));
    calomu_trainer_free(t);
    calomu_trainer_free(u);
    calomu_data_close(data);
    calomu_close(c);
    calomu_close(cpu);
}

static void test_no_such_device(void)
{
    calomu_options o = { 0 };
    calomu *c = NULL;
    calomu_geometry g = grid(3, 3, 3);
    calomu_architecture a = network(&g, 0, CALOMU_FEATURES, 1);
    calomu_model *m = NULL;
    calomu_event e = { 0 };
    double out = 3.5;
    o.math = CALOMU_MATH_FAST;
    CHECK(calomu_open(&c, &o) == CALOMU_EUSAGE && !c, "fast math on the processor");
    o.math = CALOMU_MATH_EQUAL;
    o.device_number = -1;
    CHECK(calomu_open(&c, &o) == CALOMU_EUSAGE && !c, "device -1");
    o.device = device;
    o.device_number = 4000;
    CHECK_OK(NULL, calomu_open(&c, &o));
    m = test_model_new(c, &a, 1, 3);
    CHECK_OK(c, cm_model_finish(c, CALOMU_OK, m, &m));
    CHECK_FAILS(c, calomu_predict(c, m, NULL, &e, 1, &out, NULL), CALOMU_EDEVICE);
    CHECK(out == 3.5 && strstr(calomu_message(c), "4000"), "%g, '%s'", out, calomu_message(c));
    calomu_model_free(m);
    calomu_close(c);
}

/* ---------------------------------------------------------------- prediction */

static void predict(calomu *c, const calomu_model *m, const test_batch *b, size_t n, double *out,
                    double *members)
{
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, n, out, members));
}

static void test_prediction(const calomu_architecture *a, const test_batch *b, int members)
{
    static const size_t count[] = { 1, 3, 16, 17, 40, N };
    calomu *cpu = context(NULL, 0, 0, CALOMU_MATH_EQUAL);
    double x[N], y[N], mx[3 * N], my[3 * N];
    size_t i;
    int k;
    calomu_model *m = test_model_new(cpu, a, members, 11), *other = test_model_new(cpu, a, members,
                                                                                  12);
    CHECK_OK(cpu, cm_model_finish(cpu, CALOMU_OK, m, &m));
    CHECK_OK(cpu, cm_model_finish(cpu, CALOMU_OK, other, &other));
    for (k = 0; k < 2; k++) {
        calomu *c = context(k ? plain : device, 0, 0, CALOMU_MATH_EQUAL);
        for (i = 0; i < sizeof count / sizeof *count; i++) {
            const calomu_model *now = i == 3 ? other : m;        /* other weights */
            predict(cpu, now, b, count[i], x, mx);
            predict(c, now, b, count[i], y, my);
            CHECK(memcmp(x, y, count[i] * sizeof *x) == 0, "%zu predictions differ on '%s'",
                  count[i], (k ? plain : device)->name);
            CHECK(memcmp(mx, my, count[i] * (size_t)members * sizeof *mx) == 0, "members differ");
        }
        calomu_close(c);
    }
    calomu_model_free(m);
    calomu_model_free(other);
    calomu_close(cpu);
}

/* Bad events are refused with the same words; a bad one in a later batch too. */
static void test_bad_events(const calomu_architecture *a, const test_batch *b)
{
    enum { MANY = 1100 };
    calomu *cpu = context(NULL, 0, 0, CALOMU_MATH_EQUAL), *c = context(device, 0, 0,
                                                                      CALOMU_MATH_EQUAL);
    static calomu_event e[MANY];
    static double out[MANY];
    calomu_hit bad[2] = { { 3, 1 }, { 3, 1 } };
    calomu_model *m = test_model_new(cpu, a, 1, 11);
    int i;
    CHECK_OK(cpu, cm_model_finish(cpu, CALOMU_OK, m, &m));
    for (i = 0; i < MANY; i++) e[i] = b->event[i == 5 ? 0 : 1];
    e[MANY - 3].hits = bad;
    e[MANY - 3].n_hits = 2;
    CHECK_FAILS(cpu, calomu_predict(cpu, m, NULL, e, MANY, out, NULL), CALOMU_EFORMAT);
    CHECK_FAILS(c, calomu_predict(c, m, NULL, e, MANY, out, NULL), CALOMU_EFORMAT);
    CHECK(strcmp(calomu_message(c), calomu_message(cpu)) == 0, "'%s' is not '%s'",
          calomu_message(c), calomu_message(cpu));
    calomu_model_free(m);
    calomu_close(c);
    calomu_close(cpu);
}

/* ---------------------------------------------------------------- fast math */

/* Near the equal mode, and the same from run to run. */
static void test_fast(const calomu_architecture *a, const test_batch *b)
{
    calomu *cpu = context(NULL, 1, 0, CALOMU_MATH_EQUAL);
    enum { FEW = 35 };               /* emulated it is slow */
    double x[FEW], y[FEW], z[FEW], d = 0, s = 0;
    calomu_train_options o = options(20);
    calomu_data *data = muons(cpu, b, &a->geometry);
    bytes saves[2];
    int i, k;
    calomu_model *m = test_model_new(cpu, a, 1, 11);
    CHECK_OK(cpu, cm_model_finish(cpu, CALOMU_OK, m, &m));
    predict(cpu, m, b, FEW, x, NULL);
    for (k = 0; k < 2; k++) {
        calomu *c = context(device, 0, 0, CALOMU_MATH_FAST);
        calomu_trainer *t = begin(c, data, a, &o);
        predict(c, m, b, FEW, k ? z : y, NULL);
        CHECK_OK(c, steps(c, t, 4));
        saves[k] = saved(c, t);
        calomu_trainer_free(t);
        calomu_close(c);
    }
    CHECK(memcmp(y, z, sizeof y) == 0, "fast predictions are not reproducible");
    CHECK(same(&saves[0], &saves[1]), "a fast training is not reproducible");
    for (i = 0; i < FEW; i++) {
        d += (x[i] - y[i]) * (x[i] - y[i]);
        s += x[i] * x[i];
    }
    CHECK_NEAR(sqrt(d / s), 0, 5e-6);
    CHECK(d > 0, "fast math has the very bits of the processor: it did not run");
    calomu_model_free(m);
    calomu_data_close(data);
    calomu_close(cpu);
}

int main(int argc, char **argv)
{
    calomu_geometry small = grid(9, 7, 6), odd = grid(13, 4, 9);
    calomu_architecture hybrid = network(&small, 1, CALOMU_FEATURES, 1);
    calomu_architecture hits = network(&odd, 1, 0, 2), sums = network(&odd, 0, 3, 1);
    calomu_train_options o = options(24), whole = options(17);
    test_batch a, b;
    test_begin(argc, argv);
    a = test_muons(&small, N, CALOMU_FEATURES, 7);
    b = test_muons(&odd, N, CALOMU_FEATURES, 8);
    test_no_such_device();
    test_training(device, &hybrid, &o, &a, 0, 0, "hybrid");
    test_training(device, &sums, &whole, &b, 0, 0, "energy sums");
    test_moving(&hybrid, &a);
    test_not_finite(&hybrid, &a);
    test_prediction(&sums, &b, 3);
    o.shuffle = 1;
    test_training(device, &sums, &o, &b, 0, 0, "shuffled, with a validation set");
    if (!test.brief) {
        test_training(plain, &hybrid, &whole, &a, 0, 0, "hybrid, batches of 17");
        test_training(device, &hybrid, &whole, &a, 1, 1, "hybrid, direct, recomputed");
        test_training(device, &hits, &whole, &b, 0, 0, "hits only, 2 blocks");
        test_prediction(&hybrid, &a, 1);
        test_prediction(&hits, &b, 2);
        test_bad_events(&hybrid, &a);
        test_fast(&hits, &b);
    }
    test_fast(&hybrid, &a);
#ifndef CALOMU_TEST_CUDA
    test_lost_device(&hybrid, &a);
    test_device_memory(&hybrid, &a);
    SKIP("no GPU here: the kernels ran on the processor; `make test-cuda` wants a GPU");
#endif
    test_muons_free(&a);
    test_muons_free(&b);
    return test_end("test_device");
}
