/* test_gradients.c - the loss against its definition, and gradients by central differences

   The loss is compared with a reference written from Sec. 3.2.2, in any build.  Whole
   networks are compared with central differences in the build with CALOMU_REAL=double: for each
   tensor of parameters in a random direction, with the buffers of the running batch norms put back
   and the thresholds of the loss frozen before each evaluation, since both are constants for the
   gradient.

   usage: test_gradients [TESTDATA [TMP [SEED]]] */
#include "test_net.h"

/* ---------------------------------------------------------------- the loss, by its definition */

static int by_value(const void *a, const void *b)
{
    double u = *(const double *)a, v = *(const double *)b;
    return (u > v) - (u < v);
}

/* Round half to even, of a number >= 0. */
static int half_even(double x)
{
    int n = (int)x;
    double rest = x - n;
    return n + (rest > 0.5 || (rest == 0.5 && n % 2 == 1));
}

static double ref_weight(const calomu_train_options *o, double y)
{
    double width = y > o->weight_centre ? o->weight_high : o->weight_low;
    return 1 - 1 / (1 + exp(-(y - o->weight_centre) / width));
}

static double ref_loss(const calomu_train_options *o, const double *y, const double *p, int n,
                       double *threshold, int update, double *dp)
{
    double *sorted = test_memory((size_t)n, sizeof *sorted), sum = 0;
    int i, j, m;
    for (j = 0; j < o->bins && update; j++) {
        double low = o->bin_low + j * (o->bin_high - o->bin_low) / o->bins;
        double high = o->bin_low + (j + 1) * (o->bin_high - o->bin_low) / o->bins, value;
        for (i = m = 0; i < n; i++)
            if (y[i] >= low && y[i] < high) sorted[m++] = (y[i] - p[i]) * (y[i] - p[i]);
        if (m == 0) continue;
        qsort(sorted, (size_t)m, sizeof *sorted, by_value);
        value = sorted[half_even(o->quantile * (m - 1))];
        threshold[j] = threshold[j] < 0 ? value : threshold[j] + 0.1 * (value - threshold[j]);
    }
    for (i = 0; i < n; i++) {
        double e = p[i] - y[i], t = -1, w = ref_weight(o, y[i]) / y[i], slope = 2 * e, v = e * e;
        for (j = 0; j < o->bins; j++)
            if (y[i] >= o->bin_low + j * (o->bin_high - o->bin_low) / o->bins
                && y[i] < o->bin_low + (j + 1) * (o->bin_high - o->bin_low) / o->bins)
                t = threshold[j];
        if (t >= 0 && v > t) {
            v = t + 2 * sqrt(t) * (fabs(e) - sqrt(t));
            slope = e > 0 ? 2 * sqrt(t) : -2 * sqrt(t);
        }
        sum += w * v;
        dp[i] = w * slope / n;
    }
    free(sorted);
    return sum / n;
}

/* True energies: mostly inside the bins, some on the edges and outside. */
static double draw_energy(const calomu_train_options *o, test_random *r)
{
    int kind = test_int(r, 0, 9);
    double step = (o->bin_high - o->bin_low) / o->bins;
    if (kind == 0) return o->bin_low + step * test_int(r, 0, o->bins);
    if (kind == 1) return test_uniform(r, 1, o->bin_low);
    if (kind == 2) return o->bin_high * test_uniform(r, 1, 1.3);
    return test_uniform(r, o->bin_low, o->bin_high);
}

static void check_loss(const calomu_train_options *o, test_random *r)
{
    enum { MAX = 300 };
    double y[MAX], p[MAX], dp[MAX], ref_dp[MAX], t[16], ref_t[16];
    int batch, i, n;
    for (i = 0; i < 16; i++) t[i] = ref_t[i] = -1;
    for (batch = 0; batch < 8; batch++) {
        int update = batch != 0 && batch != 5;       /* 0: validation with no threshold set */
        double loss, expected;
        n = batch == 2 ? 1 : test_int(r, 1, MAX);
        for (i = 0; i < n; i++) {
            y[i] = draw_energy(o, r);
            p[i] = y[i] * (1 + 0.3 * test_normal(r)) + 200 * test_normal(r);
        }
        p[0] = y[0];
        expected = ref_loss(o, y, p, n, ref_t, update, ref_dp);
        loss = cm_loss(o, y, p, n, t, update, dp);
        CHECK_NEAR(loss, expected, 1e-12 * fabs(expected));
        CHECK(test_distance(dp, ref_dp, (size_t)n) <= 1e-12, "batch %d of %d: gradient off by %g",
              batch, n, test_distance(dp, ref_dp, (size_t)n));
        CHECK(test_distance(t, ref_t, (size_t)o->bins) <= 1e-14, "batch %d: thresholds off by %g",
              batch, test_distance(t, ref_t, (size_t)o->bins));
        CHECK_NEAR(cm_loss(o, y, p, n, t, 0, NULL), cm_loss(o, y, p, n, t, 0, dp), 0);
        CHECK(test_distance(t, ref_t, (size_t)o->bins) <= 1e-14, "validation moved a threshold");
    }
}

static void check_losses(test_random *r)
{
    calomu_train_options o = calomu_train_options_default();
    CHECK_NEAR(cm_loss_weight(&o, 5000), 0.5, 1e-15);
    CHECK_NEAR(cm_loss_weight(&o, 4700), 1 / (1 + exp(-1.0)), 1e-14);
    CHECK_NEAR(cm_loss_weight(&o, 5600), 1 / (1 + exp(1.0)), 1e-14);
    CHECK(cm_loss_weight(&o, 50) <= 1 && cm_loss_weight(&o, 1e6) >= 0, "a weight outside [0, 1]");
    check_loss(&o, r);
    o.quantile = 0.5;                /* meets halves */
    check_loss(&o, r);
    o.bins = 1;
    check_loss(&o, r);
    o.bins = 16;
    o.quantile = 1;
    check_loss(&o, r);
    o = calomu_train_options_default();
    o.bin_high = 4050;
    o.weight_centre = 3000;
    o.weight_low = o.weight_high = 150;
    check_loss(&o, r);
}

/* ---------------------------------------------------------------- whole networks */

typedef struct trial {
    calomu *c;
    cm_net *net;
    test_batch batch;
    calomu_train_options options;
    double thresholds[16];
    cm_real *gradient, *start, *direction, *buffers;
    double *pred, worst;
} trial;

static double evaluate(trial *t, int update, int backward)
{
    test_stepper s;
    memset(&s, 0, sizeof s);
    s.c = t->c;
    s.net = t->net;
    s.threads = 1;
    s.training = 1;
    s.no_backward = !backward;
    s.update = update;
    s.options = &t->options;
    s.thresholds = t->thresholds;
    s.gradient = t->gradient;
    s.pred = t->pred;
    return test_step(&s, &t->batch);
}

/* Loss at start + h*direction, in training mode, from the buffers put by. */
static double loss_at(trial *t, double h)
{
    size_t i;
    for (i = 0; i < t->net->n_trained; i++)
        t->net->trained[i] = (cm_real)((double)t->start[i] + h * (double)t->direction[i]);
    memcpy(t->net->buffers, t->buffers, t->net->n_buffers * sizeof(cm_real));
    return evaluate(t, 0, 0);
}

/* Five-point differences, error O(h^4); the best of several h, since rounding favours long steps
   and the kinks (maximum over sites, Huber) short ones.  A wrong gradient fits at none. */
static double difference_error(trial *t, double slope, double scale)
{
    static const double steps[] = { 1e-3, 1e-4, 1e-2, 1e-5, 3e-2, 3e-3, 3e-4, 3e-5, 1e-1, 1e-6 };
    double best = (double)INFINITY, d, e;
    size_t k;
    for (k = 0; k < sizeof steps / sizeof *steps && !(best <= 3e-8); k++) {
        double h = steps[k];
        d = (8 * (loss_at(t, h) - loss_at(t, -h)) - (loss_at(t, 2 * h) - loss_at(t, -2 * h)))
            / (12 * h);
        e = fabs(d - slope) / scale;
        if (e < best) best = e;
    }
    return best;
}

/* A direction within values first..first+count-1: half random, half along the gradient, so that
   the slope is no small difference of large terms; as long as the values themselves. */
static void check_direction(trial *t, const char *name, size_t first, size_t count,
                            test_random *r)
{
    double gradient = 0, values = 0, slope = 0, length = 0, e;
    size_t i;
    for (i = first; i < first + count; i++) {
        gradient += (double)t->gradient[i] * (double)t->gradient[i];
        values += (double)t->start[i] * (double)t->start[i];
    }
    if (!CHECK(gradient > 0, "%s: the gradient is 0", name)) return;
    gradient = sqrt(gradient);
    values = sqrt(values / (double)count) + 0.1;
    memset(t->direction, 0, t->net->n_trained * sizeof(cm_real));
    for (i = first; i < first + count; i++) {
        double d = values * (test_normal(r) + (double)t->gradient[i] / gradient
                             * sqrt((double)count)) / sqrt((double)count);
        t->direction[i] = (cm_real)d;
        slope += d * (double)t->gradient[i];
        length += d * d;
    }
    e = difference_error(t, slope, gradient * sqrt(length));
    if (!(e <= t->worst)) t->worst = e;
    CHECK(e <= 1e-7, "%s: slope %.10g, differences are off by %.3g of it", name, slope, e);
}

/* Biases and batch-norm weights start at 0 and 1, where some terms vanish: move them. */
static void stir(trial *t, test_random *r)
{
    size_t i;
    for (i = 0; i < t->net->n_trained; i++)
        t->net->trained[i] += (cm_real)(0.1 * test_normal(r));
}

static int begin(trial *t, const calomu_architecture *a, int muons, test_random *r)
{
    const cm_param *bias;
    int i;
    memset(t, 0, sizeof *t);
    t->options = calomu_train_options_default();
    t->options.bin_low /= 1000;      /* TeV here: small predictions are rounded less */
    t->options.bin_high /= 1000;
    t->options.weight_centre /= 1000;
    t->options.weight_low /= 1000;
    t->options.weight_high /= 1000;
    for (i = 0; i < 16; i++) t->thresholds[i] = -1;
    if (!CHECK(calomu_open(&t->c, NULL) == CALOMU_OK, "no context")
        || !CHECK_OK(t->c, cm_net_new(t->c, a, &t->net))) return 0;
    cm_net_init(t->net, 7);
    stir(t, r);
    bias = cm_net_find(t->net, "tail.bias");
    if (CHECK(bias != NULL, "no tail.bias")) cm_net_values(t->net, bias)[0] = 3;
    t->batch = test_muons(&a->geometry, muons, a->n_features, test_bits(r));
    for (i = 0; i < muons; i++) t->batch.truth[i] /= 1000;
    t->gradient = test_memory(t->net->n_trained, sizeof(cm_real));
    t->start = test_memory(t->net->n_trained, sizeof(cm_real));
    t->direction = test_memory(t->net->n_trained, sizeof(cm_real));
    t->buffers = test_memory(t->net->n_buffers, sizeof(cm_real));
    t->pred = test_memory((size_t)muons, sizeof(double));
    return 1;
}

static void end(trial *t)
{
    test_muons_free(&t->batch);
    free(t->gradient); free(t->start); free(t->direction); free(t->buffers); free(t->pred);
    cm_net_free(t->c, t->net);
    calomu_close(t->c);
}

/* tensors: 1 checks each tensor of parameters apart, of the first two resolutions (with two blocks
   each they hold every kind of block), then all parameters at once. */
static void check_network(const char *what, const calomu_architecture *a, int muons, int tensors,
                          test_random *r)
{
    trial t;
    int i;
    if (!begin(&t, a, muons, r)) return;
    (void)evaluate(&t, 1, 0);        /* sets the thresholds and the buffers */
    stir(&t, r);
    memcpy(t.start, t.net->trained, t.net->n_trained * sizeof(cm_real));
    memcpy(t.buffers, t.net->buffers, t.net->n_buffers * sizeof(cm_real));
    memset(t.gradient, 0, t.net->n_trained * sizeof(cm_real));
    CHECK(evaluate(&t, 0, 1) > 0, "%s does not run: %s", what, calomu_message(t.c));
    for (i = 0; i < t.net->n_params && tensors; i++) {
        const cm_param *p = t.net->param + i;
        if (p->role != CM_TRAINED || (strncmp(p->name, "head.", 5) == 0 && p->name[5] > '3'))
            continue;
        check_direction(&t, p->name, p->offset, p->count, r);
    }
    check_direction(&t, what, 0, t.net->n_trained, r);
    printf("test_gradients: %s, %d muons: worst relative error %.1e\n", what, muons, t.worst);
    end(&t);
}

static void check_networks(test_random *r)
{
    calomu_architecture a = calomu_architecture_default();
    a.body = 12;
    a.blocks = 1;
    if (!test.brief)
        check_network("one block per resolution, 50x32x32 cells", &a, 2, 0, r);
    a.blocks = 2;
    a.growth = 1.2;
    a.geometry.nz = 7; a.geometry.nx = 6; a.geometry.ny = 5;
    check_network("two blocks per resolution, 7x6x5 cells", &a, 12, 1, r);
    check_network("two blocks per resolution, 7x6x5 cells, inside the clamp", &a, 4, 0, r);
    a.n_features = 0;
    a.geometry.nz = 2; a.geometry.nx = 1; a.geometry.ny = 5;
    check_network("hits only, 2x1x5 cells", &a, 17, 0, r);
    a.head = 0;
    a.n_features = 28;
    check_network("features only", &a, 33, 1, r);
}

int main(int argc, char **argv)
{
    uint64_t seed = test_seed_of(argc, argv, 20220082);
    test_random r = test_seed(seed);
    test_begin(argc, argv);
    printf("test_gradients: seed %llu\n", (unsigned long long)seed);
    check_losses(&r);
    if (sizeof(cm_real) == sizeof(double)) check_networks(&r);
    else SKIP("central differences need the build with CALOMU_REAL=double");
    return test_end("test_gradients");
}
