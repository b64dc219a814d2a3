/* test_golden.c - two training steps and one inference of a PyTorch network, reproduced

   testdata/golden_small holds numbers of an independent implementation in float64: a network of
   one block per resolution, 20 muons, all of them in both steps.  manifest.txt lists `name type
   shape offset` of the arrays in golden.bin (little-endian, C order): hits (event, z, x, y, GeV),
   features (standardised), target (GeV), parameters before and after, predictions, loss, running
   thresholds, gradients of the first step and the buffers of the batch norms after each.

   usage: test_golden [TESTDATA [TMP [REF]]]    REF/golden/full: the paper's network, 8 muons
   Compiled with TEST_DEVICE it runs on that device of cuda/, in either math; emulated only one
   step in fast math. */
#include "test_net.h"
#ifdef TEST_DEVICE
#include "../cuda/calomu_cuda.h"
static const calomu_device *const device = &TEST_DEVICE;
#else
static const calomu_device *const device = NULL;
#endif
static calomu_math math = CALOMU_MATH_EQUAL;

static int emulated(void) { return device && strcmp(device->name, "emulated") == 0; }

typedef struct array {
    char name[80];
    int real64;
    size_t count, offset;
    size_t rows;                     /* first dimension */
} array;

typedef struct golden {
    array *list;
    size_t n;
    unsigned char *bytes;
    size_t size;
} golden;

/* Bounds, norm-wise per array.  Double: everything 1e-9.  Float: predictions and gradients as the
   project promises.  A running sum is a sum of rounded activations.  Adam's first update is the
   sign of each gradient times the rate, whatever its size: entries whose gradient is below its
   rounding error may go the other way, so parameters are compared with the length of the way that
   they went, and a few per cent of it is allowed. */
static const int real64 = sizeof(cm_real) == 8;
static double bound_value, bound_gradient, bound_buffer, bound_update, bound_later;

/* ---------------------------------------------------------------- the files */

static int parse_line(array *a, const char *line)
{
    char type[8], shape[80], *s;
    unsigned long long offset;
    if (sscanf(line, "%79s %7s %79s %llu", a->name, type, shape, &offset) != 4) return 0;
    a->real64 = strcmp(type, "f8") == 0;
    a->offset = (size_t)offset;
    a->count = 1;
    a->rows = (size_t)strtoul(shape, NULL, 10);
    for (s = shape; *s; s = *s == ',' ? s + 1 : s) a->count *= (size_t)strtoul(s, &s, 10);
    return 1;
}

static int open_golden(golden *g, const char *folder)
{
    char path[1024], line[256];
    long size;
    FILE *f = fopen(test_path(path, sizeof path, folder, "manifest.txt"), "r");
    memset(g, 0, sizeof *g);
    if (!f) return 0;
    g->list = test_memory(4096, sizeof *g->list);
    while (g->n < 4096 && fgets(line, sizeof line, f)) g->n += (size_t)parse_line(g->list + g->n,
                                                                                  line);
    (void)fclose(f);
    f = fopen(test_path(path, sizeof path, folder, "golden.bin"), "rb");
    if (!f) return 0;
    (void)fseek(f, 0, SEEK_END);
    size = ftell(f);
    rewind(f);
    g->size = (size_t)size;
    g->bytes = test_memory(g->size, 1);
    if (fread(g->bytes, 1, g->size, f) != g->size) g->size = 0;
    (void)fclose(f);
    return g->size > 0;
}

/* The array "prefix/name" as doubles (caller frees), or NULL. */
static double *fetch(const golden *g, const char *prefix, const char *name, size_t *count)
{
    char full[160];
    size_t i, k;
    (void)snprintf(full, sizeof full, "%s%s%s", prefix, *prefix ? "/" : "", name);
    for (i = 0; i < g->n; i++) {
        const array *a = g->list + i;
        double *out;
        if (strcmp(a->name, full) || a->offset + a->count * (a->real64 ? 8u : 4u) > g->size)
            continue;
        out = test_memory(a->count, sizeof *out);
        for (k = 0; k < a->count; k++) {
            if (a->real64) memcpy(out + k, g->bytes + a->offset + 8 * k, 8);
            else {
                float x;
                memcpy(&x, g->bytes + a->offset + 4 * k, 4);
                out[k] = (double)x;
            }
        }
        if (count) *count = a->count;
        return out;
    }
    CHECK(0, "no array %s in the golden files", full);
    if (count) *count = 0;
    return NULL;
}

/* ---------------------------------------------------------------- the network under test */

typedef struct trial {
    golden g;
    calomu *c;
    cm_net *net;
    calomu_architecture arch;
    calomu_train_options options;
    test_batch batch;
    double thresholds[16], *pred;
    cm_real *gradient, *m, *v;
} trial;

static int by_cell(const void *a, const void *b)
{
    uint32_t u = ((const calomu_hit *)a)->cell, v = ((const calomu_hit *)b)->cell;
    return (u > v) - (u < v);
}

static int load_events(trial *t)
{
    const calomu_geometry *geometry = &t->arch.geometry;
    test_batch *b = &t->batch;
    size_t count, i, k, at = 0;
    double *rows = fetch(&t->g, "", "hits", &count);
    b->features = fetch(&t->g, "", "features", &i);
    b->truth = fetch(&t->g, "", "target", &k);
    if (!rows || !b->features || !b->truth) return 0;
    b->n = (int)k;
    b->n_features = (int)(i / k);
    t->pred = test_memory(k, sizeof(double));
    b->event = test_memory(k, sizeof *b->event);
    b->hit = test_memory(count / 5, sizeof *b->hit);
    for (i = 0; i < k; i++) {
        size_t first = at, row;
        for (row = 0; row < count / 5; row++) {
            const double *r = rows + 5 * row;
            if ((size_t)r[0] != i) continue;
            b->hit[at].cell = (uint32_t)((r[1] * geometry->nx + r[2]) * geometry->ny + r[3]);
            b->hit[at++].energy = (float)r[4];
        }
        qsort(b->hit + first, at - first, sizeof *b->hit, by_cell);
        b->event[i].hits = b->hit + first;
        b->event[i].n_hits = at - first;
    }
    free(rows);
    return CHECK(at == count / 5, "%zu of %zu hits belong to an event", at, count / 5);
}

static void load_parameters(trial *t)
{
    int i;
    size_t k, count;
    for (i = 0; i < t->net->n_params; i++) {
        const cm_param *p = t->net->param + i;
        cm_real *to = cm_net_values(t->net, p);
        double *from;
        if (p->role == CM_FIXED)
            for (k = 0; k < p->count; k++) to[k] = 1;
        if (p->role != CM_TRAINED) continue;
        from = fetch(&t->g, "param0", p->name, &count);
        if (!CHECK(from && count == p->count, "%s: %zu values, table says %zu", p->name, count,
                   p->count)) continue;
        for (k = 0; k < count; k++) to[k] = (cm_real)from[k];
        free(from);
    }
}

/* Every array param0/... of the files must be a trained entry of the table. */
static void check_names(const trial *t)
{
    size_t i, trained = 0, in_files = 0;
    for (i = 0; i < t->g.n; i++) {
        const array *a = t->g.list + i;
        const cm_param *p;
        if (strncmp(a->name, "param0/", 7)) continue;
        p = cm_net_find(t->net, a->name + 7);
        CHECK(p && p->role == CM_TRAINED && p->count == a->count, "%s is not in the table",
              a->name);
        in_files += a->count;
        trained++;
    }
    CHECK(in_files == t->net->n_trained, "%zu parameters in the files, %zu in the table", in_files,
          t->net->n_trained);
    CHECK(trained > 0, "no parameters in the files");
}

static double run_net(trial *t, int training)
{
    test_stepper s;
    double loss;
    memset(&s, 0, sizeof s);
    s.c = t->c;
    s.net = t->net;
    s.threads = 1;
    s.training = s.update = training;
    s.options = training ? &t->options : NULL;
    s.thresholds = t->thresholds;
    s.gradient = t->gradient;
    s.pred = t->pred;
    s.device = device;
    s.math = math;
    loss = test_step(&s, &t->batch);
    CHECK(!isnan(loss), "the network does not run: %s", calomu_message(t->c));
    return loss;
}

/* ---------------------------------------------------------------- comparisons */

static double worst[8];              /* of each kind, reported at the end */
static const char *const kinds[] = { "predictions", "loss and thresholds", "gradients", "buffers",
                                     "updates", "step-1 predictions", "inference", "parameters" };

static void compare(const golden *g, int kind, const char *prefix, const char *name,
                    const double *got, size_t n, double bound)
{
    size_t count;
    double *expected = fetch(g, prefix, name, &count), d;
    if (expected && CHECK(count == n, "%s/%s: %zu values, %zu expected", prefix, name, n, count)) {
        d = test_distance(got, expected, n);
        if (!(d <= worst[kind])) worst[kind] = d;
        CHECK(d <= bound, "%s/%s: relative distance %.3g > %.3g", prefix, name, d, bound);
    }
    free(expected);
}

static void compare_gradients(const trial *t)
{
    int i;
    size_t k;
    for (i = 0; i < t->net->n_params; i++) {
        const cm_param *p = t->net->param + i;
        double *got;
        if (p->role != CM_TRAINED) continue;
        got = test_memory(p->count, sizeof *got);
        for (k = 0; k < p->count; k++) got[k] = (double)t->gradient[p->offset + k];
        compare(&t->g, 2, "grad0", p->name, got, p->count, bound_gradient);
        free(got);
    }
}

static void compare_buffers(const trial *t, const char *prefix, double bound)
{
    int i;
    size_t k;
    for (i = 0; i < t->net->n_params; i++) {
        const cm_param *p = t->net->param + i;
        const cm_real *from = cm_net_values(t->net, p);
        double *got;
        if (p->role != CM_BUFFER) continue;
        got = test_memory(p->count, sizeof *got);
        for (k = 0; k < p->count; k++) got[k] = (double)from[k];
        compare(&t->g, 3, prefix, p->name, got, p->count, bound);
        free(got);
    }
}

/* The way that each parameter went in two updates, against the way it should have gone. */
static void compare_updates(const trial *t)
{
    int i;
    size_t k, count;
    for (i = 0; i < t->net->n_params; i++) {
        const cm_param *p = t->net->param + i;
        const cm_real *now = cm_net_values(t->net, p);
        double *before, *after, *got, d;
        if (p->role != CM_TRAINED) continue;
        before = fetch(&t->g, "param0", p->name, &count);
        after = fetch(&t->g, "param2", p->name, &count);
        got = test_memory(p->count, sizeof *got);
        for (k = 0; before && after && k < p->count; k++) {
            got[k] = (double)now[k] - before[k];
            after[k] -= before[k];
        }
        d = after ? test_distance(got, after, p->count) : (double)INFINITY;
        if (!(d <= worst[4])) worst[4] = d;
        CHECK(d <= bound_update, "param2/%s: the updates are off by %.3g > %.3g", p->name, d,
              bound_update);
        free(before);
        free(after);
        free(got);
    }
}

/* Emulated, a step takes seconds: one with its predictions, loss and gradients must do. */
static void two_steps(trial *t)
{
    size_t n = t->net->n_trained;
    double loss;
    int step, k, steps = emulated() ? 1 : 2;
    char prefix[16], buffer[16];
    for (k = 0; k < 16; k++) t->thresholds[k] = -1;
    for (step = 0; step < steps; step++) {
        double later = step ? bound_later : 1;
        memset(t->gradient, 0, n * sizeof(cm_real));
        (void)snprintf(prefix, sizeof prefix, "step%d", step);
        (void)snprintf(buffer, sizeof buffer, "buffer%d", step + 1);
        loss = run_net(t, 1);
        compare(&t->g, step ? 5 : 0, prefix, "pred", t->pred, (size_t)t->batch.n,
                bound_value * later);
        compare(&t->g, 1, prefix, "loss", &loss, 1, bound_value * later);
        compare(&t->g, 1, prefix, "thresholds", t->thresholds, (size_t)t->options.bins,
                2 * bound_value * later);
        compare_buffers(t, buffer, bound_buffer * later);
        if (step == 0) compare_gradients(t);
        cm_adam(t->net->trained, t->gradient, t->m, t->v, n, 1e-3, 0.9, (uint64_t)step + 1);
    }
    if (steps < 2) return;
    compare_updates(t);
    (void)run_net(t, 0);
    compare(&t->g, 6, "eval", "pred", t->pred, (size_t)t->batch.n, bound_value * bound_later);
    compare_buffers(t, "buffer2", bound_buffer * bound_later);       /* inference leaves them */
}

static void reproduce(const char *folder, int blocks)
{
    trial t;
    int i;
    memset(&t, 0, sizeof t);
    memset(worst, 0, sizeof worst);
    t.arch = calomu_architecture_default();
    t.arch.blocks = blocks;
    t.options = calomu_train_options_default();
    if (!CHECK(calomu_open(&t.c, NULL) == CALOMU_OK, "no context")) return;
    if (CHECK(open_golden(&t.g, folder), "%s cannot be read", folder)
        && CHECK_OK(t.c, cm_net_new(t.c, &t.arch, &t.net)) && load_events(&t)) {
        check_names(&t);
        load_parameters(&t);
        t.gradient = test_memory(t.net->n_trained, sizeof(cm_real));
        t.m = test_memory(t.net->n_trained, sizeof(cm_real));
        t.v = test_memory(t.net->n_trained, sizeof(cm_real));
        two_steps(&t);
        printf("test_golden: %s%s%s, worst relative distances:", folder, device ? ", " : "",
               device ? math == CALOMU_MATH_FAST ? "fast math" : device->name : "");
        for (i = 0; i < (emulated() ? 4 : 7); i++)
            printf("%s %s %.1e", i ? "," : "", kinds[i], worst[i]);
        printf("\n");
    }
    free(t.g.list); free(t.g.bytes); free(t.gradient); free(t.m); free(t.v); free(t.pred);
    test_muons_free(&t.batch);
    cm_net_free(t.c, t.net);
    calomu_close(t.c);
}

int main(int argc, char **argv)
{
    char path[1024];
    int k;
    test_begin(argc, argv);
    bound_value = real64 ? 1e-9 : 2e-5;
    bound_gradient = real64 ? 1e-9 : 2e-4;
    bound_buffer = real64 ? 1e-9 : 2e-5;
    bound_update = real64 ? 1e-8 : 5e-2;
    bound_later = real64 ? 1 : 20;
    if (device && test.brief) {      /* emulated, it is slow */
        SKIP("the golden numbers on a device");
        return test_end("test_golden");
    }
    for (k = emulated(); k <= (device != NULL); k++) {       /* equal: the processor's bits */
        math = k ? CALOMU_MATH_FAST : CALOMU_MATH_EQUAL;
        reproduce(test_path(path, sizeof path, test.data, "golden_small"), 1);
        if (argc > 3) reproduce(test_path(path, sizeof path, argv[3], "golden/full"), 3);
    }
    if (argc <= 3) SKIP("no reference folder given: the paper's full network is not compared");
    return test_end("test_golden");
}
