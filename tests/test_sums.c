/* test_sums.c - sums over muons against their definition (section 1 of calomu.c)

   The definition is written here once more, by recursion, and for some sums the result is written
   out.  The numbers cancel: added in another order they give another sum, which is checked, too.
   What a muon adds to the gradient of a weight is what a batch of it alone gives.

   usage: test_sums [TESTDATA [TMP [SEED]]] */
#include "test_net.h"

enum { MOST = 300, CHANNELS = 3, MOST_WEIGHTS = 64 * CHANNELS, ARENA = 1 << 25 };

/* Lanes l, l + step, ... of the n live ones; step 1 and 0: all. */
static double halves(const double *s, int n, int lane, int step)
{
    if (step == CM_LANES) return lane < n ? s[lane] : 0;
    return halves(s, n, lane, 2 * step) + halves(s, n, lane + step, 2 * step);
}

static double tree(const double *s, int n)
{
    int p = CM_LANES;
    if (n <= p) return halves(s, n, 0, 1);
    while (2 * p < n) p *= 2;
    return tree(s, p) + tree(s + p, n - p);
}

static double in_order(const double *s, int n)
{
    double sum = 0;
    int v;
    for (v = 0; v < n; v++) sum += s[v];
    return sum;
}

/* ---------------------------------------------------------------- batches */

/* Muon v is random, from seed + twin[v]; its gradients are times factor[v].  Half of the muons are
   two and two alike but for the sign of a huge factor. */
typedef struct batch {
    int n, twin[MOST];
    double factor[MOST];
    uint64_t seed;
} batch;

static batch draw(int n, test_random *r)
{
    batch b;
    int v, huge = n / 4 * 2;
    b.n = n;
    b.seed = test_bits(r);
    for (v = 0; v < n; v++) {
        b.twin[v] = v < huge ? v / 2 : v;
        b.factor[v] = v < huge ? ldexp(v % 2 ? -1 : 1, 60) : ldexp(1, test_int(r, 6, 12));
    }
    for (v = n - 1; v > 0; v--) {    /* shuffled */
        int k = test_int(r, 0, v), twin = b.twin[v];
        double factor = b.factor[v];
        b.twin[v] = b.twin[k]; b.factor[v] = b.factor[k];
        b.twin[k] = twin; b.factor[k] = factor;
    }
    return b;
}

/* Number `at` of muon v, the same whoever asks. */
static cm_real value(const batch *b, int v, int gradient, int at)
{
    test_random r = test_seed(b->seed + (uint64_t)(b->twin[v] * 100000 + 2 * at + gradient));
    double x = test_uniform(&r, -1, 1) * (gradient ? b->factor[v] : 1);
    return (cm_real)x;
}

/* ---------------------------------------------------------------- gradients of weights, biases */

typedef struct kind {
    const char *name;
    int nz, nx, ny, in, out, kernel, stride, pad, bias;
    int x, dy;                       /* the only x whose values, gradients are not 0; -1: all */
    int sparse;
} kind;

/* By Winograd's method one row of either, so that du of one f, with G' = 1 for kx = 0, is all that
   there is: rows 5 and 6 are the one before the second tile of 9 rows and its first. */
static const kind kinds[] = {
    { "linear", 1, 1, 1, 3, 2, 1, 1, 0, 1, -1, -1, 0 },
    { "kernel 1", 2, 2, 3, 2, 3, 1, 1, 0, 1, -1, -1, 0 },
    { "kernel 3", 5, 4, 5, 2, 3, 3, 2, 1, 0, -1, -1, 0 },
    { "kernel 4", 4, 5, 4, 1, 2, 4, 2, 2, 1, -1, -1, 0 },
    { "Winograd", 2, 9, 3, 2, 3, 3, 1, 1, 0, 5, 6, 0 },
    { "sparse", 5, 6, 7, 1, 3, 4, 2, 2, 0, -1, -1, 1 }
};

static int number_of_weights(const kind *k)
{
    return k->in * k->out * k->kernel * k->kernel * k->kernel;
}

/* Muons from `first` on into the interior of t; only: the only x, or -1. */
static void fill(const cm_tensor *t, cm_real *to, const batch *b, int first, int gradient, int only)
{
    int v, z, x, y, c;
    for (v = 0; v < t->muons; v++)
        for (z = 0; z < t->nz; z++)
            for (x = 0; x < t->nx; x++)
                for (y = 0; y < t->ny; y++)
                    for (c = 0; c < t->nc; c++) {
                        size_t site = (size_t)z * t->row_z + (size_t)x * t->row_x + (size_t)y;
                        cm_real *at = to + (size_t)(v / CM_LANES) * t->group + t->origin
                                    + (site * (size_t)t->nc + (size_t)c) * CM_LANES + v % CM_LANES;
                        if (only < 0 || x == only)
                            *at = value(b, first + v, gradient,
                                        ((z * t->nx + x) * t->ny + y) * t->nc + c);
                    }
}

/* A third of the cells. */
static cm_hits hits_of(const kind *k, const batch *b, int first, int n)
{
    static calomu_hit hit[MOST][256];
    static calomu_event event[MOST];
    cm_hits h = { NULL, 0, 0, 0, 0, NULL };
    int v, i;
    for (v = 0; v < n; v++) {
        memset(&event[v], 0, sizeof event[v]);
        event[v].hits = hit[v];
        for (i = 0; i < k->nz * k->nx * k->ny; i++) {
            double e = (double)value(b, first + v, 0, i);
            if (e < 0.3) continue;
            hit[v][event[v].n_hits].cell = (uint32_t)i;
            hit[v][event[v].n_hits++].energy = (float)e;
        }
    }
    h.event = event;
    h.muons = n;
    h.nz = k->nz; h.nx = k->nx; h.ny = k->ny;
    return h;
}

/* Gradients of weights and biases, of muons first to first + n - 1. */
static void gradients(calomu *c, const kind *k, const batch *b, int first, int n, int threads,
                      cm_real *dw, cm_real *dbias)
{
    static cm_real memory[ARENA / sizeof(cm_real) + 16], zero[MOST_WEIGHTS];
    char *arena = (char *)memory + (64 - (uintptr_t)memory % 64) % 64;
    cm_graph *g = cm_graph_new(c, arena, ARENA, threads, 1);
    cm_hits hits;
    cm_weight w, bias = { NULL, NULL };
    cm_tensor *x, *y;
    cm_real *dy = NULL;
    w.x = zero;
    w.dx = dw;
    memset(dw, 0, MOST_WEIGHTS * sizeof *dw);
    memset(dbias, 0, CHANNELS * sizeof *dbias);
    if (k->bias) bias.x = zero, bias.dx = dbias;
    if (!CHECK(g != NULL, "no graph")) exit(1);
    if (k->sparse) {
        hits = hits_of(k, b, first, n);
        y = cm_sparse_conv(g, &hits, w, k->out, k->kernel, k->stride, k->pad, 0);
    } else {
        x = cm_input(g, n, k->nz, k->nx, k->ny, k->in, 4, 4, 0);
        if (x) fill(x, x->x, b, first, 0, k->x);
        y = cm_conv(g, x, w, bias, k->out, k->kernel, k->stride, k->pad, 0);
    }
    if (y) dy = cm_gradient(g, y);
    if (dy) fill(y, dy, b, first, 1, k->dy);
    if (dy) cm_backward(g);
    CHECK(dy && cm_graph_status(g) == CALOMU_OK, "%s: %s", k->name, calomu_message(c));
    cm_graph_free(g);
}

/* What muon v adds to the bias of channel o. */
static double bias_part(const kind *k, const batch *b, int v, int o)
{
    int size[3], a, row, y;
    double sum = 0;
    size[0] = k->nz; size[1] = k->nx; size[2] = k->ny;
    for (a = 0; a < 3; a++) size[a] = (size[a] + 2 * k->pad - k->kernel) / k->stride + 1;
    for (row = 0; row < size[0] * size[1]; row++) {
        cm_real s = 0;
        for (y = 0; y < size[2]; y++) s += value(b, v, 1, (row * size[2] + y) * k->out + o);
        sum += (double)s;
    }
    return sum;
}

static double part[MOST_WEIGHTS + CHANNELS][MOST];       /* of every weight, of every muon */

/* The batch by these threads; returns how many weights would be others if muons were added in
   their order. */
static int compare(calomu *c, const kind *k, const batch *b, int threads, const char *how)
{
    static cm_real dw[MOST_WEIGHTS + CHANNELS];
    int i, n = number_of_weights(k), shows = 0;
    gradients(c, k, b, 0, b->n, threads, dw, dw + n);
    for (i = 0; i < n + (k->bias ? k->out : 0); i++) {
        cm_real expected = (cm_real)tree(part[i], b->n);
        CHECK(dw[i] == expected, "%s, %d muons, %d threads, %s: gradient %d is %.9g, not %.9g",
              k->name, b->n, threads, how, i, (double)dw[i], (double)expected);
        shows += expected != (cm_real)in_order(part[i], b->n);
    }
    return shows;
}

static void check_kind(calomu *c, const kind *k, int muons, test_random *r)
{
    static cm_real dw[MOST_WEIGHTS], unused[CHANNELS];
    static const char *const isa[] = { "", "plain", "AVX2", "AVX-512" };
    batch b = draw(muons, r);
    int v, i, n = number_of_weights(k), shows;
    for (v = 0; v < muons; v++) {
        gradients(c, k, &b, v, 1, 1, dw, unused);
        for (i = 0; i < n; i++) part[i][v] = (double)dw[i];
        for (i = 0; k->bias && i < k->out; i++) part[n + i][v] = bias_part(k, &b, v, i);
    }
    shows = compare(c, k, &b, 1, "best");
    CHECK(muons < 16 || shows > 0, "%s, %d muons: no order shows", k->name, muons);
    (void)compare(c, k, &b, 3, "best");
    for (i = 1; i <= 3 && muons == 40; i++) {
        calomu_options o;
        calomu *other = NULL;
        memset(&o, 0, sizeof o);
        o.isa = (calomu_isa)i;
        if (calomu_open(&other, &o) == CALOMU_OK) (void)compare(other, k, &b, 1, isa[i]);
        calomu_close(other);
    }
}

/* ---------------------------------------------------------------- one number of every muon */

/* Batch norm of one site: sums and squares of the values, and the gradient of the bias, G0. */
static void norms(calomu *c, const double *s, int n, double sum[3])
{
    static cm_real memory[1 << 14];
    char *arena = (char *)memory + (64 - (uintptr_t)memory % 64) % 64;
    cm_graph *g = cm_graph_new(c, arena, sizeof memory - 64, 1, 1);
    cm_real weight = 1, bias = 0, dbias = 0, buffer[4] = { 0 };
    cm_tensor *x, *y;
    cm_real *d = NULL;
    cm_norm norm;
    int v;
    memset(&norm, 0, sizeof norm);
    norm.weight.x = &weight;
    norm.bias.x = &bias;
    norm.bias.dx = &dbias;
    norm.sums = buffer; norm.squares = buffer + 1; norm.count = buffer + 2; norm.batch = buffer + 3;
    if (!CHECK(g != NULL, "no graph")) exit(1);
    x = cm_input(g, n, 1, 1, 1, 1, 0, 0, 0);
    for (v = 0; x && v < n; v++)
        x->x[(size_t)(v / CM_LANES) * x->group + (size_t)(v % CM_LANES)] = (cm_real)s[v];
    y = cm_batchnorm(g, x, norm, 0, 0, 0);
    if (y) d = cm_gradient(g, y);
    for (v = 0; d && v < n; v++)
        d[(size_t)(v / CM_LANES) * y->group + (size_t)(v % CM_LANES)] = (cm_real)s[v];
    if (d) cm_backward(g);
    CHECK(d && cm_graph_status(g) == CALOMU_OK, "batch norm: %s", calomu_message(c));
    cm_graph_free(g);
    sum[0] = (double)buffer[0];
    sum[1] = (double)buffer[1];
    sum[2] = (double)dbias;
}

/* Returns whether another order would show. */
static int check_norms(calomu *c, int n, test_random *r)
{
    double m = 1 - 0.9 / sqrt(n - 1 + 1e-5), s[MOST], square[MOST], sum[3];
    batch b = draw(n, r);
    int v;
    for (v = 0; v < n; v++) {
        s[v] = (double)value(&b, v, 1, 0);
        square[v] = (double)(cm_real)(s[v] * s[v]);
    }
    norms(c, s, n, sum);
    CHECK_NEAR(sum[0], (cm_real)(m * tree(s, n)), 0);
    CHECK_NEAR(sum[1], (cm_real)(m * tree(square, n)), 0);
    CHECK_NEAR(sum[2], (cm_real)tree(s, n), 0);
    return (cm_real)tree(s, n) != (cm_real)in_order(s, n);
}

/* Sums that are known: of four numbers, all others 0, whose order shows. */
static void check_known(calomu *c)
{
    static const struct { int n, at[4]; double s[4], sum; } known[] = {
        { 16, { 0, 1, 8, 9 }, { 0x1p60, 1, -0x1p60, 1 }, 2 },    /* halves, not neighbours */
        { 16, { 0, 1, 4, 5 }, { 0x1p60, 1, -0x1p60, 1 }, 2 },
        { 16, { 0, 1, 2, 3 }, { 0x1p60, 1, -0x1p60, 1 }, 2 },
        { 16, { 0, 4, 8, 12 }, { 0x1p60, 1, -0x1p60, 1 }, 2 },
        { 16, { 0, 2, 4, 6 }, { 0x1p60, 1, -0x1p60, 1 }, 2 },
        { 33, { 0, 16, 32, 1 }, { 1, 0x1p60, -0x1p60, 0 }, 0 },  /* the last passes unchanged */
        { 33, { 0, 16, 32, 1 }, { 0x1p60, -0x1p60, 1, 0 }, 1 },
        { 64, { 0, 16, 32, 48 }, { 1, 1, 0x1p60, -0x1p60 }, 2 }, /* neighbours first */
        { 80, { 0, 16, 48, 64 }, { 1, 0x1p60, -0x1p60, 4 }, 4 },
        { 112, { 0, 64, 80, 96 }, { 0, 0x1p60, -0x1p60, 1 }, 1 },
        { 112, { 0, 64, 80, 96 }, { 0, 0x1p60, 1, -0x1p60 }, 0 },
        { 290, { 0, 240, 256, 288 }, { 1, 0x1p60, 1, -0x1p60 }, 0 }
    };
    size_t i;
    int k;
    for (i = 0; i < sizeof known / sizeof *known; i++) {
        double s[MOST] = { 0 }, sum[3];
        for (k = 0; k < 4; k++) s[known[i].at[k]] = known[i].s[k];
        CHECK_NEAR(tree(s, known[i].n), known[i].sum, 0);
        norms(c, s, known[i].n, sum);
        CHECK_NEAR(sum[2], known[i].sum, 0);
    }
}

static int check_loss(int n, int thresholded, test_random *r)
{
    calomu_train_options o = calomu_train_options_default();
    double truth[MOST], pred[MOST], s[MOST], thresholds[16], loss;
    int v, j;
    for (j = 0; j < 16; j++) thresholds[j] = thresholded ? 1e4 : -1;
    for (v = 0; v < n; v++) {
        truth[v] = test_uniform(r, o.bin_low, o.bin_high);
        pred[v] = truth[v] + ldexp(test_uniform(r, 1, 2), test_int(r, -9, 15));
        s[v] = cm_loss(&o, truth + v, pred + v, 1, thresholds, 0, NULL);
    }
    loss = cm_loss(&o, truth, pred, n, thresholds, 0, NULL);
    CHECK_NEAR(loss, tree(s, n) / n, 0);
    return loss != in_order(s, n) / n;
}

/* ---------------------------------------------------------------- networks */

/* Muon v of the new batch is muon ((v + shift) % end) ^ flip of b; those from `end` on stay. */
static test_batch reorder(const test_batch *b, int end, int shift, int flip)
{
    test_batch o = *b;
    size_t n = (size_t)b->n, per = (size_t)b->n_features;
    int v;
    o.event = test_memory(n, sizeof *o.event);
    o.features = test_memory(n * per, sizeof *o.features);
    o.truth = test_memory(n, sizeof *o.truth);
    for (v = 0; v < b->n; v++) {
        size_t from = (size_t)(v < end ? (v + shift) % end ^ flip : v);
        o.event[v] = b->event[from];
        o.truth[v] = b->truth[from];
        memcpy(o.features + (size_t)v * per, b->features + from * per, per * sizeof *o.features);
    }
    return o;
}

/* Two updates; hash of weights and buffers. */
static uint64_t trained(calomu *c, const calomu_architecture *a, const test_batch *b)
{
    calomu_train_options o = calomu_train_options_default();
    double thresholds[16], *pred = test_memory((size_t)b->n, sizeof *pred);
    test_stepper s;
    cm_net *net = NULL;
    cm_real *moments;
    uint64_t h;
    int i;
    memset(&s, 0, sizeof s);
    for (i = 0; i < 16; i++) thresholds[i] = -1;
    if (!CHECK_OK(c, cm_net_new(c, a, &net))) exit(1);
    cm_net_init(net, 5);
    moments = test_memory(2 * net->n_trained, sizeof *moments);
    s.c = c;
    s.net = net;
    s.threads = s.training = s.update = 1;
    s.options = &o;
    s.thresholds = thresholds;
    s.pred = pred;
    s.gradient = test_memory(net->n_trained, sizeof *s.gradient);
    for (i = 0; i < 2; i++) {
        memset(s.gradient, 0, net->n_trained * sizeof *s.gradient);
        CHECK(isfinite(test_step(&s, b)), "the network does not run: %s", calomu_message(c));
        cm_adam(net->trained, s.gradient, moments, moments + net->n_trained, net->n_trained, 1e-3,
                0.9, (uint64_t)i + 1);
    }
    h = cm_checksum(cm_checksum(0, net->trained, net->n_trained * sizeof *net->trained),
                    net->buffers, net->n_buffers * sizeof *net->buffers);
    free(moments);
    free(s.gradient);
    free(pred);
    cm_net_free(c, net);
    return h;
}

/* The tree adds neighbours, of groups and of halves of groups, so a batch whose neighbours have
   changed places trains the same weights.  One whose groups or lanes are others does not, which
   shows where nothing is rounded to float behind the sums: in double. */
static void check_network(calomu *c, test_random *r)
{
    static const struct { int end, shift, flip, same; } places[] = {
        { 64, 0, 31, 1 }, { 64, 0, 37, 1 }, { 32, 0, 24, 1 }, { 16, 0, 15, 1 },
        { 64, 1, 0, 0 }, { 64, 16, 0, 0 }, { 48, 32, 0, 0 }
    };
    calomu_architecture a = calomu_architecture_default();
    test_batch b;
    uint64_t h;
    size_t i;
    a.body = 10;
    a.blocks = 1;
    a.growth = 1.1;
    a.geometry.nz = 5; a.geometry.nx = 6; a.geometry.ny = 3;
    b = test_muons(&a.geometry, 72, a.n_features, test_bits(r));
    h = trained(c, &a, &b);
    for (i = 0; i < sizeof places / sizeof *places; i++) {
        test_batch o = reorder(&b, places[i].end, places[i].shift, places[i].flip);
        int same = trained(c, &a, &o) == h;
        if (places[i].same || sizeof(cm_real) == sizeof(double))
            CHECK(same == places[i].same, "order %zu of the muons: %s weights", i,
                  same ? "the same" : "other");
        free(o.event);
        free(o.features);
        free(o.truth);
    }
    test_muons_free(&b);
}

int main(int argc, char **argv)
{
    static const int muons[] = { 2, 3, 16, 17, 33, 40, 63, 80, 112, 150, 272, 300 };
    uint64_t seed = test_seed_of(argc, argv, 20220084);
    test_random r = test_seed(seed);
    calomu *c = NULL;
    int shows[2] = { 0, 0 };
    size_t i, k;
    test_begin(argc, argv);
    if (!CHECK(calomu_open(&c, NULL) == CALOMU_OK, "no context")) return test_end("test_sums");
    check_known(c);
    for (i = 0; i < sizeof muons / sizeof *muons; i++) {
        for (k = 0; k < sizeof kinds / sizeof *kinds; k++) check_kind(c, &kinds[k], muons[i], &r);
        shows[0] += check_norms(c, muons[i], &r);
        shows[1] += check_loss(muons[i], 0, &r);
        shows[1] += check_loss(muons[i], 1, &r);
    }
    CHECK(shows[0] >= 6 && shows[1] >= 6, "an order shows in %d norms, %d losses", shows[0],
          shows[1]);
    check_network(c, &r);
    calomu_close(c);
    printf("test_sums: seed %llu\n", (unsigned long long)seed);
    return test_end("test_sums");
}
