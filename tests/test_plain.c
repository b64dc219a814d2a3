/* test_plain.c - the plain pass, layer by layer and muon by muon, against everything that is fast:
   the same bits of predictions, derivatives and buffers

   usage: test_plain [TESTDATA [TMP]] */
#include "test_net.h"

typedef struct outcome {             /* of one training step and of inference after it */
    double loss;
    double *pred;                    /* [muon], and of inference behind them */
    cm_real *gradient, *buffers;
} outcome;

static outcome outcome_new(const cm_net *net, int n)
{
    outcome o;
    o.loss = (double)NAN;
    o.pred = test_memory(2 * (size_t)n, sizeof *o.pred);
    o.gradient = test_memory(net->n_trained, sizeof *o.gradient);
    o.buffers = test_memory(net->n_buffers, sizeof *o.buffers);
    return o;
}

static void outcome_free(outcome *o)
{
    free(o->pred);
    free(o->gradient);
    free(o->buffers);
}

/* By the plain pass. */
static void run_plain(calomu *c, cm_net *net, const test_batch *b, outcome *o)
{
    calomu_train_options options = calomu_train_options_default();
    size_t n = (size_t)b->n, k, values = n * (size_t)b->n_features;
    double thresholds[16], *dp = test_memory(n, sizeof *dp);
    cm_real *features = test_memory(values, sizeof *features);
    cm_pass *p;
    for (k = 0; k < 16; k++) thresholds[k] = -1;
    for (k = 0; k < values; k++) features[k] = (cm_real)b->features[k];
    p = cm_pass_new(c, net, b->event, features, b->n, o->gradient);
    if (CHECK(p != NULL, "%s", calomu_message(c)) && CHECK_OK(c, cm_pass_forward(p, o->pred))) {
        o->loss = cm_loss(&options, b->truth, o->pred, b->n, thresholds, 1, dp);
        CHECK_OK(c, cm_pass_backward(p, dp));
    }
    cm_pass_free(p);
    memcpy(o->buffers, net->buffers, net->n_buffers * sizeof(cm_real));
    p = cm_pass_new(c, net, b->event, features, b->n, NULL);
    if (CHECK(p != NULL, "%s", calomu_message(c))) CHECK_OK(c, cm_pass_forward(p, o->pred + n));
    cm_pass_free(p);
    free(features);
    free(dp);
}

/* By the fast engine. */
static void run_fast(calomu *c, cm_net *net, const test_batch *b, int threads, outcome *o)
{
    calomu_train_options options = calomu_train_options_default();
    double thresholds[16];
    test_stepper s;
    int k;
    for (k = 0; k < 16; k++) thresholds[k] = -1;
    memset(&s, 0, sizeof s);
    s.c = c;
    s.net = net;
    s.threads = threads;
    s.training = s.update = 1;
    s.options = &options;
    s.thresholds = thresholds;
    s.gradient = o->gradient;
    s.pred = o->pred;
    o->loss = test_step(&s, b);
    CHECK(isfinite(o->loss), "the network does not run: %s", calomu_message(c));
    memcpy(o->buffers, net->buffers, net->n_buffers * sizeof(cm_real));
    s.training = 0;
    s.options = NULL;
    s.pred = o->pred + b->n;
    CHECK(!isnan(test_step(&s, b)), "no inference: %s", calomu_message(c));
}

static void compare(const cm_net *net, int n, const outcome *a, const outcome *b, const char *what)
{
    int i, bad = 0;
    size_t k;
    CHECK(memcmp(a->pred, b->pred, 2 * (size_t)n * sizeof *a->pred) == 0, "%s: predictions", what);
    CHECK(a->loss == b->loss, "%s: loss %.17g, plain %.17g", what, b->loss, a->loss);
    CHECK(memcmp(a->buffers, b->buffers, net->n_buffers * sizeof(cm_real)) == 0, "%s: buffers",
          what);
    for (i = net->n_params - 1; i >= 0 && bad < 3; i--) {
        const cm_param *p = &net->param[i];
        const cm_real *x = a->gradient + p->offset, *y = b->gradient + p->offset;
        if (p->role != CM_TRAINED) continue;
        for (k = 0; k < p->count && memcmp(x + k, y + k, sizeof *x) == 0; k++) continue;
        test.passed += k == p->count;
        if (k == p->count) continue;
        CHECK(0, "%s: d/d %s[%d] %.9g, plain %.9g", what, p->name, (int)k, (double)y[k],
              (double)x[k]);
        bad++;
    }
}

static void check_network(const calomu_architecture *a, int muons, int direct)
{
    static const char *const isa[] = { "", "plain C", "AVX2", "AVX-512" };
    test_batch b = test_muons(&a->geometry, muons, a->n_features, 7);
    cm_net *net = NULL;
    calomu_options o;
    calomu *c = NULL;
    cm_real *weights, *buffers;
    outcome plain, fast;
    test_random r = test_seed(5);
    char what[80];
    int i;
    memset(&o, 0, sizeof o);
    o.direct = direct;
    CHECK_OK(c, calomu_open(&c, &o));
    if (!CHECK_OK(c, cm_net_new(c, a, &net))) return;
    cm_net_init(net, 5);
    test_fill_buffers(net, &r);
    for (i = 0; i < net->n_params; i++) {        /* or a norm's A is its r */
        const cm_param *p = &net->param[i];
        size_t k;
        for (k = 0; k < p->count && p->init == CM_ONE && p->role == CM_TRAINED; k++)
            cm_net_values(net, p)[k] = (cm_real)test_uniform(&r, 0.5, 1.5);
    }
    buffers = test_memory(net->n_buffers, sizeof *buffers);
    weights = test_memory(net->n_trained, sizeof *weights);
    memcpy(buffers, net->buffers, net->n_buffers * sizeof *buffers);
    plain = outcome_new(net, muons);
    run_plain(c, net, &b, &plain);
    for (i = 1; i < 4; i++) {
        calomu *other = NULL;
        o.isa = (calomu_isa)i;
        if (calomu_open(&other, &o) != CALOMU_OK) {
            SKIP("this machine has no %s", isa[i]);
            continue;
        }
        memcpy(net->buffers, buffers, net->n_buffers * sizeof *buffers);
        fast = outcome_new(net, muons);
        run_fast(other, net, &b, i, &fast);
        (void)snprintf(what, sizeof what, "%s, %d muons, %s", direct ? "direct" : "Winograd",
                       muons, isa[i]);
        compare(net, muons, &plain, &fast, what);
        outcome_free(&fast);
        calomu_close(other);
    }
    outcome_free(&plain);
    free(buffers);
    free(weights);
    cm_net_free(c, net);
    test_muons_free(&b);
    calomu_close(c);
}

static void check_networks(void)
{
    calomu_architecture a = calomu_architecture_default();
    int direct;
    a.blocks = 2;
    a.body = 12;
    for (direct = 0; direct < 2; direct++) {
        a.geometry.nz = 13;
        a.geometry.nx = 18;
        a.geometry.ny = 9;
        check_network(&a, 2, direct);
        check_network(&a, 35, direct);
        a.geometry.nz = 7;
        a.geometry.nx = 35;
        a.geometry.ny = 5;
        check_network(&a, 19, direct);
        a.geometry.nx = 1;
        check_network(&a, 51, direct);
    }
    a.head = 0;
    check_network(&a, 33, 0);
}

int main(int argc, char **argv)
{
    test_begin(argc, argv);
    check_networks();
    return test_end("test_plain");
}
