/* test_network.c - the table of parameters, initialisation, shapes, and the promise of equal bits

   usage: test_network [TESTDATA [TMP [SEED]]] */
#include "test_net.h"

/* ---------------------------------------------------------------- the table, by Figs. 4 and 5 */

typedef struct entry {
    char name[160];
    int rank, shape[5];
    cm_role role;
    double variance;                 /* of the initial values; 0: all equal to `mean` */
    double mean;
} entry;

typedef struct table {
    entry e[1024];
    int n;
} table;

/* Role, variance and constant of what is added next. */
static void add(table *t, const char *prefix, const char *name, cm_role role, double variance,
                double mean, int rank, int a, int b, int k)
{
    entry *e = &t->e[t->n++];
    int i;
    (void)snprintf(e->name, sizeof e->name, "%s%s", prefix, name);
    e->role = role;
    e->variance = variance;
    e->mean = mean;
    e->rank = rank;
    for (i = 0; i < 5; i++) e->shape[i] = k;
    e->shape[0] = a;
    e->shape[1] = b;
}

static void add_norm(table *t, const char *prefix, int at, int c)
{
    char p[64];
    (void)snprintf(p, sizeof p, "%s%d.", prefix, at);
    add(t, p, "weight", CM_TRAINED, 0, 1, 4, c, 1, 1);
    add(t, p, "bias", CM_TRAINED, 0, 0, 4, c, 1, 1);
    add(t, p, "sums", CM_BUFFER, 0, 0, 5, 1, c, 1);
    add(t, p, "sqrs", CM_BUFFER, 0, 0, 5, 1, c, 1);
    add(t, p, "batch", CM_BUFFER, 0, 0, 0, 1, 1, 1);
    add(t, p, "count", CM_BUFFER, 0, 0, 0, 1, 1, 1);
}

static void add_conv(table *t, const char *prefix, const char *name, int in, int out, int k)
{
    add(t, prefix, name, CM_TRAINED, 2.0 / (in * k * k * k), 0, 5, out, in, k);
}

static void add_linear(table *t, const char *prefix, const char *name, int in, int out, int glorot)
{
    char p[64];
    (void)snprintf(p, sizeof p, "%s%s.", prefix, name);
    add(t, p, "weight", CM_TRAINED, glorot ? 2.0 / (in + out) : 2.0 / in, 0, 2, out, in, 1);
    add(t, p, "bias", CM_TRAINED, 0, 0, 1, out, 1, 1);
}

/* One block; returns its number of output channels. */
static int add_block(table *t, int index, int in, int down, double growth)
{
    char p[32], q[48];
    int out = !down ? in : index == 0 ? 8 : (int)(growth * in), k = down ? 4 : 3;
    int width = out / 4 > 2 ? out / 4 : 2;
    (void)snprintf(p, sizeof p, "head.%d.", index);
    (void)snprintf(q, sizeof q, "%spath.", p);
    if (index == 0) {                /* conv, Swish, norm, conv, Swish, norm */
        add_conv(t, p, "path.0.weight", in, out, k);
        add_norm(t, q, 2, out);
        add_conv(t, p, "path.3.weight", out, out, 3);
        add_norm(t, q, 5, out);
    } else {                         /* norm, Swish, conv, norm, Swish, conv */
        add_norm(t, q, 0, in);
        add_conv(t, p, "path.2.weight", in, out, k);
        add_norm(t, q, 3, out);
        add_conv(t, p, "path.5.weight", out, out, 3);
    }
    add_linear(t, p, "se.a", out, width, 0);
    add_linear(t, p, "se.b", width, out, 1);
    if (!down) return out + 1;
    (void)snprintf(q, sizeof q, "%sshort.", p);
    add(t, p, "esum.weight", CM_FIXED, 0, 1, 5, 1, 1, 2);
    if (index > 0) {                 /* Swish, norm, pool, conv */
        add_norm(t, q, 1, in);
        add_conv(t, p, "short.3.weight", in, out, 1);
    } else {                         /* pool, conv with a bias */
        add_conv(t, p, "short.1.weight", in, out, 1);
        add(t, p, "short.1.bias", CM_TRAINED, 0, 0, 1, out, 1, 1);
    }
    return out + 1;
}

static void make_table(table *t, const calomu_architecture *a)
{
    int c = 1, index = 0, r, b;
    t->n = 0;
    for (r = 0; r < 4 && a->head; r++)
        for (b = 0; b < a->blocks; b++)
            c = add_block(t, index++, c, b == 0, a->growth);
    add_linear(t, "", "body.0", a->n_features + (a->head ? 2 * c : 0), a->body, 0);
    add_linear(t, "", "body.2", a->body, a->body, 0);
    add_linear(t, "", "body.4", a->body, a->body, 0);
    add_linear(t, "", "tail", a->body, 1, 1);
}

static size_t entry_count(const entry *e)
{
    size_t n = 1;
    int i;
    for (i = 0; i < e->rank; i++) n *= (size_t)e->shape[i];
    return n;
}

/* The net's table against ours: names, roles, shapes, and blocks filled without gap or overlap. */
static void check_table(const cm_net *net, const table *t)
{
    size_t next[3] = { 0, 0, 0 }, total[3] = { 0, 0, 0 };
    int i, k, same;
    CHECK(net->n_params == t->n, "%d entries, expected %d", net->n_params, t->n);
    for (i = 0; i < t->n; i++) {
        const entry *e = &t->e[i];
        const cm_param *p = cm_net_find(net, e->name);
        if (!CHECK(p != NULL, "no %s", e->name)) continue;
        for (k = 0, same = p->rank == e->rank; k < e->rank && same; k++)
            same = p->shape[k] == e->shape[k];
        CHECK(same && p->role == e->role && p->count == entry_count(e),
              "%s: rank %d, shape %d %d ..., role %d, count %zu", e->name, p->rank, p->shape[0],
              p->shape[1], (int)p->role, p->count);
        total[p->role] += p->count;
    }
    for (i = 0; i < net->n_params; i++) {
        const cm_param *p = net->param + i;
        const cm_real *block = p->role == CM_TRAINED ? net->trained
                             : p->role == CM_FIXED ? net->fixed : net->buffers;
        CHECK(p->offset == next[p->role], "%s starts at %zu, the one before ends at %zu", p->name,
              p->offset, next[p->role]);
        next[p->role] = p->offset + p->count;
        CHECK(cm_net_values(net, p) == block + p->offset, "%s: values elsewhere", p->name);
    }
    CHECK(total[CM_TRAINED] == net->n_trained && total[CM_FIXED] == net->n_fixed
          && total[CM_BUFFER] == net->n_buffers, "blocks of %zu, %zu, %zu", net->n_trained,
          net->n_fixed, net->n_buffers);
    CHECK(cm_net_find(net, "head.99.nothing") == NULL, "a name that is not there was found");
}

static void check_count(calomu *c, const char *what, const calomu_architecture *a, size_t expected)
{
    table *t = test_memory(1, sizeof *t);
    cm_net *net = NULL;
    calomu_model *m = NULL;
    size_t n = 0;
    int i;
    make_table(t, a);
    for (i = 0; i < t->n; i++) n += t->e[i].role == CM_TRAINED ? entry_count(&t->e[i]) : 0;
    if (expected) CHECK(n == expected, "%s: the test itself counts %zu", what, n);
    if (CHECK_OK(c, cm_net_new(c, a, &net))) {
        CHECK(net->n_trained == n, "%s: %zu parameters, expected %zu", what, net->n_trained, n);
        check_table(net, t);
        cm_net_free(c, net);
    }
    if (CHECK_OK(c, cm_model_new(c, a, 1, &m))) {
        CHECK(calomu_model_describe(m)->parameters == n, "%s: the model says %llu", what,
              (unsigned long long)calomu_model_describe(m)->parameters);
        calomu_model_free(m);
    }
    free(t);
}

static void check_counts(calomu *c)
{
    calomu_architecture a = calomu_architecture_default();
    check_count(c, "default", &a, 636570);
    a.n_features = 0;
    check_count(c, "hits only", &a, 634330);
    a.head = 0;
    a.n_features = 28;
    check_count(c, "features only", &a, 15361);
    a.n_features = 3;
    check_count(c, "energy sums only", &a, 13361);
    a = calomu_architecture_default();
    a.blocks = 1;
    check_count(c, "one block per resolution", &a, 144122);
    a.blocks = 2;
    a.growth = 1.25;
    a.body = 17;
    a.geometry.nz = 20; a.geometry.nx = 11; a.geometry.ny = 1;
    check_count(c, "other sizes", &a, 0);
    a.blocks = 5;
    a.growth = 2;
    check_count(c, "five blocks, growth 2", &a, 0);
}

/* Names and shapes against the arrays of an independent implementation. */
static void check_manifest(calomu *c)
{
    calomu_architecture a = calomu_architecture_default();
    char path[1024], line[256], name[80], type[8], shape[80];
    int found = 0, trained = 0, k;
    cm_net *net = NULL;
    FILE *f = fopen(test_path(path, sizeof path, test.data, "golden_small/manifest.txt"), "r");
    if (!CHECK(f != NULL, "%s cannot be read", path)) return;
    a.blocks = 1;
    if (CHECK_OK(c, cm_net_new(c, &a, &net))) {
        while (fgets(line, sizeof line, f)) {
            const cm_param *p;
            char text[80] = "";
            if (sscanf(line, "param0/%79s %7s %79s", name, type, shape) != 3) continue;
            p = cm_net_find(net, name);
            if (!CHECK(p != NULL, "no %s", name)) continue;
            for (k = 0; k < p->rank; k++)
                (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s%d",
                               k ? "," : "", p->shape[k]);
            CHECK(strcmp(text, shape) == 0, "%s: %s, expected %s", name, text, shape);
            found++;
        }
        for (k = 0; k < net->n_params; k++) trained += net->param[k].role == CM_TRAINED;
        CHECK(found == trained && found > 0, "%d of %d names in the manifest", found, trained);
        cm_net_free(c, net);
    }
    (void)fclose(f);
}

/* ---------------------------------------------------------------- initialisation */

/* Mean 0 and the given variance within 5 standard deviations of their estimates, and a fourth
   moment that is a normal distribution's. */
static void check_normal(const entry *e, const cm_real *v, size_t n)
{
    double mean = 0, square = 0, fourth = 0, sd = sqrt(e->variance);
    size_t i;
    for (i = 0; i < n; i++) {
        double x = (double)v[i] / sd;
        mean += x / (double)n;
        square += x * x / (double)n;
        fourth += x * x * x * x / (double)n;
    }
    CHECK(fabs(mean) <= 5 / sqrt((double)n), "%s: mean %g standard deviations", e->name, mean);
    if (n < 30) return;
    CHECK_NEAR(square, 1, 5 * sqrt(2 / (double)n));
    if (n > 1000) CHECK_NEAR(fourth, 3, 7 * sqrt(96 / (double)n));
}

static void check_init(calomu *c)
{
    calomu_architecture a = calomu_architecture_default();
    table *t = test_memory(1, sizeof *t);
    cm_net *net = NULL, *again = NULL;
    double first = 0;
    size_t k;
    int i;
    make_table(t, &a);
    if (CHECK_OK(c, cm_net_new(c, &a, &net)) && CHECK_OK(c, cm_net_new(c, &a, &again))) {
        size_t bytes = net->n_trained * sizeof(cm_real);
        for (k = 0; k < net->n_trained && net->trained[k] == 0; k++) {}
        CHECK(k == net->n_trained, "a new network's values are not 0");
        cm_net_init(net, 1);
        cm_net_init(again, 1);
        CHECK(memcmp(net->trained, again->trained, bytes) == 0, "the same seed, other values");
        cm_net_init(again, 2);
        CHECK(memcmp(net->trained, again->trained, bytes) != 0, "another seed, the same values");
        for (i = 0; i < t->n; i++) {
            const entry *e = &t->e[i];
            const cm_param *p = cm_net_find(net, e->name);
            const cm_real *v;
            double unit;
            if (!p) continue;        /* reported by check_table */
            v = cm_net_values(net, p);
            for (k = 0; k < p->count && (double)v[k] == e->mean; k++) {}
            if (e->variance == 0) {
                CHECK(k == p->count, "%s starts at %g", e->name, (double)v[k % p->count]);
                continue;
            }
            check_normal(e, v, p->count);
            unit = (double)v[0] / sqrt(e->variance);
            CHECK(fabs(unit - first) > 1e-5, "%s starts like the tensor before", e->name);
            first = unit;
        }
    }
    cm_net_free(c, net);
    cm_net_free(c, again);
    free(t);
}

/* ---------------------------------------------------------------- shapes of the blocks */

static void check_shapes(calomu *c)
{
    static const int expected[4][3] = { { 26, 17, 17 }, { 14, 9, 9 }, { 8, 5, 5 }, { 5, 3, 3 } };
    calomu_event event;
    cm_graph *g = cm_graph_new(c, NULL, 0, 1, 0);
    cm_weight w = { NULL, NULL }, none = { NULL, NULL };
    cm_hits hits;
    cm_tensor *pool, *conv;
    cm_real one = 1;
    int i;
    memset(&event, 0, sizeof event);
    w.x = &one;                      /* a dry graph reads no weight */
    hits.event = &event;
    hits.muons = 1;
    hits.nz = 50; hits.nx = hits.ny = 32;
    pool = cm_sparse_sum(g, &hits, 1, 2);
    conv = cm_sparse_conv(g, &hits, w, 3, 4, 2, 2, 2);
    for (i = 0; i < 4; i++) {
        const int *e = expected[i];
        if (i) pool = cm_pool(g, pool, 0, 1, 1, 2);
        if (i) conv = cm_conv(g, conv, w, none, 3, 4, 2, 2, 2);
        if (!CHECK(pool && conv, "no tensor: %s", calomu_message(c))) break;
        CHECK(pool->nz == e[0] && pool->nx == e[1] && pool->ny == e[2], "sum %d: %d %d %d", i,
              pool->nz, pool->nx, pool->ny);
        CHECK(conv->nz == e[0] && conv->nx == e[1] && conv->ny == e[2], "convolution %d: %d %d %d",
              i, conv->nz, conv->nx, conv->ny);
    }
    cm_graph_free(g);
}

static void check_refusals(calomu *c)
{
    enum { CASES = 17 };
    calomu_architecture a[CASES];
    cm_net *net = NULL;
    int i;
    for (i = 0; i < CASES; i++) a[i] = calomu_architecture_default();
    a[0].blocks = 0;
    a[1].blocks = -1;
    a[2].blocks = 1 << 30;
    a[3].body = 0;
    a[4].body = -80;
    a[5].body = INT32_MAX;
    a[6].growth = 0;
    a[7].growth = (double)NAN;
    a[8].growth = 1e9;
    a[9].growth = 0.01;
    a[10].n_features = 5;
    a[11].n_features = -28;
    a[12].head = 0; a[12].n_features = 0;
    a[13].geometry.nz = 0;
    a[14].geometry.pitch[1] = -1;
    a[15].geometry.nx = 1 << 20; a[15].geometry.ny = 1 << 20;
    a[16].growth = -(double)INFINITY;
    for (i = 0; i < CASES; i++) {
        calomu_status s = cm_net_new(c, &a[i], &net);
        CHECK(s == CALOMU_EUSAGE && *calomu_message(c), "bad architecture %d: status %d, '%s'", i,
              (int)s, calomu_message(c));
        if (s == CALOMU_OK) cm_net_free(c, net);
        net = NULL;
    }
}

/* ---------------------------------------------------------------- running it; equal bits */

/* Some updates of a network from a seed, then predictions; returns the hash of the weights, the
   buffers and the predictions, 0 on failure. */
static uint64_t train(const calomu_architecture *a, int threads, calomu_isa isa,
                      const test_batch *b, int updates, cm_net **keep, double *pred)
{
    calomu_train_options o = calomu_train_options_default();
    double thresholds[16];
    calomu_options open;
    test_stepper s;
    cm_net *net = NULL;
    cm_real *m, *v;
    uint64_t h = 0;
    int i, good;
    for (i = 0; i < 16; i++) thresholds[i] = -1;
    memset(&open, 0, sizeof open);
    memset(&s, 0, sizeof s);
    open.isa = isa;
    if (calomu_open(&s.c, &open) != CALOMU_OK) return 0;
    if (!CHECK_OK(s.c, cm_net_new(s.c, a, &net))) return 0;
    cm_net_init(net, 5);
    m = test_memory(net->n_trained, sizeof *m);
    v = test_memory(net->n_trained, sizeof *v);
    s.gradient = test_memory(net->n_trained, sizeof(cm_real));
    s.net = net;
    s.threads = threads;
    s.training = s.update = 1;
    s.options = &o;
    s.thresholds = thresholds;
    s.pred = pred;
    for (i = 0, good = 1; i < updates && good; i++) {
        memset(s.gradient, 0, net->n_trained * sizeof(cm_real));
        good = CHECK(isfinite(test_step(&s, b)), "the network does not run: %s",
                     calomu_message(s.c));
        cm_adam(net->trained, s.gradient, m, v, net->n_trained, 1e-3, 0.9, (uint64_t)i + 1);
    }
    s.training = 0;
    s.options = NULL;
    good = good && CHECK(!isnan(test_step(&s, b)), "no inference: %s", calomu_message(s.c));
    for (i = 0; i < b->n; i++) CHECK(isfinite(pred[i]), "prediction %d is %g", i, pred[i]);
    h = cm_checksum(h, net->trained, net->n_trained * sizeof(cm_real));
    h = cm_checksum(h, net->buffers, net->n_buffers * sizeof(cm_real));
    h = cm_checksum(h, pred, (size_t)b->n * sizeof *pred);
    free(m);
    free(v);
    free(s.gradient);
    if (keep) *keep = net;
    else cm_net_free(s.c, net);
    calomu_close(s.c);               /* a kept network is freed by a context like this one */
    return good ? h : 0;
}

static void check_bits(const calomu_architecture *a, const test_batch *b)
{
    static const int threads[] = { 2, 3, 7 };
    static const char *const name[] = { "best", "plain", "AVX2", "AVX-512" };
    double *pred = test_memory((size_t)b->n, sizeof *pred);
    uint64_t h = train(a, 1, CALOMU_ISA_BEST, b, 2, NULL, pred), other;
    size_t i;
    CHECK(h != 0, "no result");
    for (i = 0; i < 3; i++) {
        other = train(a, threads[i], CALOMU_ISA_BEST, b, 2, NULL, pred);
        CHECK(other == h, "%d threads: other bits", threads[i]);
    }
    for (i = 1; i < 4; i++) {
        other = train(a, 1, (calomu_isa)i, b, 2, NULL, pred);
        if (other == 0) SKIP("this machine has no %s", name[i]);
        else CHECK(other == h, "instruction set %s: other bits", name[i]);
    }
    printf("test_network: hash of predictions and weights after two updates %016llx\n",
           (unsigned long long)h);
    free(pred);
}

/* The muons of a batch in other batches, other places and with another number of threads. */
static void check_splits(calomu *c, const calomu_architecture *a, const test_batch *b)
{
    static const int sizes[] = { 1, 3, 16, 19 };
    double *all = test_memory((size_t)b->n, sizeof *all), *pred;
    cm_net *net = NULL;
    test_stepper s;
    size_t i;
    pred = test_memory((size_t)b->n, sizeof *pred);
    if (train(a, 1, CALOMU_ISA_BEST, b, 1, &net, all)) {
        memset(&s, 0, sizeof s);
        s.c = c;
        s.net = net;
        s.threads = 2;
        for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            int first;
            for (first = 0; first < b->n; first += sizes[i]) {
                test_batch part = *b;
                part.n = b->n - first < sizes[i] ? b->n - first : sizes[i];
                part.event += first;
                part.features += first * b->n_features;
                s.pred = pred + first;
                CHECK(!isnan(test_step(&s, &part)), "no inference: %s", calomu_message(c));
            }
            CHECK(memcmp(pred, all, (size_t)b->n * sizeof *all) == 0,
                  "batches of %d: other bits than a batch of %d", sizes[i], b->n);
        }
    }
    cm_net_free(c, net);
    free(all);
    free(pred);
}

static void check_runs(calomu *c, test_random *r)
{
    static const int grids[][3] = { { 9, 7, 6 }, { 1, 1, 1 }, { 2, 5, 1 }, { 17, 3, 10 } };
    calomu_architecture a = calomu_architecture_default();
    size_t i;
    a.body = 10;
    for (i = 0; i < sizeof grids / sizeof *grids; i++) {
        test_batch b;
        double *pred;
        a.geometry.nz = grids[i][0]; a.geometry.nx = grids[i][1]; a.geometry.ny = grids[i][2];
        a.blocks = i % 2 || test.brief ? 1 : 2;
        a.growth = i % 2 ? 1.2 : 1.5;
        a.n_features = i == 1 ? 0 : 28;
        b = test_muons(&a.geometry, i ? 4 : test.brief ? 18 : 35, a.n_features, test_bits(r));
        pred = test_memory((size_t)b.n, sizeof *pred);
        CHECK(train(&a, 2, CALOMU_ISA_BEST, &b, 2, NULL, pred) != 0, "grid %zu does not run", i);
        if (i == 0) check_splits(c, &a, &b);
        free(pred);
        test_muons_free(&b);
    }
    a.blocks = 1;                    /* plain C is slow: keep this small */
    a.growth = 1.1;
    a.geometry.nz = 5; a.geometry.nx = 4; a.geometry.ny = 3;
    {
        test_batch b = test_muons(&a.geometry, 18, a.n_features, test_bits(r));
        check_bits(&a, &b);
        test_muons_free(&b);
    }
    /* So large that the sites of a weight gradient go by in several parts; one group is enough for
       one thread to make values and gradients where they are read, but not for two. */
    a.geometry.nz = 22; a.geometry.nx = a.geometry.ny = 34;
    {
        test_batch b = test_muons(&a.geometry, 3, a.n_features, test_bits(r));
        double pred[3];
        uint64_t h = train(&a, 1, CALOMU_ISA_BEST, &b, 1, NULL, pred);
        CHECK(h && h == train(&a, 2, CALOMU_ISA_BEST, &b, 1, NULL, pred),
              "a large grid: other bits with two threads");
        test_muons_free(&b);
    }
    a.head = 0;
    for (i = 0; i < 2; i++) {
        test_batch b;
        a.n_features = i ? 3 : 28;
        b = test_muons(&a.geometry, 21, a.n_features, test_bits(r));
        check_splits(c, &a, &b);
        test_muons_free(&b);
    }
}

static void next_line(FILE *f, const char *line)
{
    char expected[320];
    if (!CHECK(fgets(expected, sizeof expected, f), "plan: not stored: %s", line)) return;
    expected[strcspn(expected, "\n")] = 0;
    CHECK(strcmp(line, expected) == 0, "plan: %s\n    stored: %s", line, expected);
}

static void next_gradient(void *user, const char *line)
{
    next_line(user, line);
}

/* Line by line as calomu bench --plan --threads 1 prints it. */
static void check_plan(calomu *c)
{
    calomu_architecture a = calomu_architecture_default();
    cm_net *net = NULL;
    char path[1024], line[320], expected[320];
    FILE *f = fopen(test_path(path, sizeof path, test.data, "plan.txt"), "r");
    int training, i;
    if (!CHECK(f, "%s is missing", path) || !CHECK_OK(c, cm_net_new(c, &a, &net))) return;
    for (training = 0; training < 2; training++) {
        if (training) CHECK(fgets(expected, sizeof expected, f) && expected[0] == '\n', "a line");
        CHECK(fgets(expected, sizeof expected, f) && strstr(expected, training ? "Training"
                                                                               : "Inference"),
              "no title");
        for (i = 0; cm_net_plan(net, training, 0, 0, i, line); i++) next_line(f, line);
        CHECK(i > 100, "%d steps", i);
    }
    CHECK(fgets(expected, sizeof expected, f) && fgets(expected, sizeof expected, f)
          && strstr(expected, "Backward, 256 muons, threads: 1"), "no title of the gradients");
    CHECK_OK(c, cm_net_gradients(c, net, 256, 1, next_gradient, f));
    CHECK(!fgets(expected, sizeof expected, f), "stored, but no step: %s", expected);
    (void)fclose(f);
    cm_net_free(c, net);
}

int main(int argc, char **argv)
{
    uint64_t seed = test_seed_of(argc, argv, 20220081);
    test_random r = test_seed(seed);
    calomu *c = NULL;
    test_begin(argc, argv);
    printf("test_network: seed %llu\n", (unsigned long long)seed);
    if (CHECK(calomu_open(&c, NULL) == CALOMU_OK, "no context")) {
        check_counts(c);
        check_manifest(c);
        check_init(c);
        check_plan(c);
        check_shapes(c);
        check_refusals(c);
        check_runs(c, &r);
        calomu_close(c);
    }
    return test_end("test_network");
}
