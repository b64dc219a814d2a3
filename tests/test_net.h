/* test_net.h - one step of a network on a batch of muons, for the tests of whole networks */
#ifndef CALOMU_TEST_NET_H
#define CALOMU_TEST_NET_H

#include "test.h"

typedef struct test_batch {
    int n, n_features;               /* muons; inputs of the body that are features */
    calomu_event *event;
    double *features, *truth;        /* n x n_features, standardised; n energies in GeV */
    calomu_hit *hit;                 /* memory of the events' hits */
} test_batch;

typedef struct test_stepper {        /* how to run it */
    calomu *c;
    const cm_net *net;
    int threads, training, update;   /* update: the loss moves its thresholds */
    int no_backward;                 /* training mode, but only for the loss */
    const calomu_train_options *options;
    double *thresholds;
    cm_real *gradient;               /* training: n_trained values to add to */
    double *pred;                    /* n */
} test_stepper;

static TEST_UNUSED void *test_memory(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        fprintf(stderr, "no memory for a test\n");
        exit(1);
    }
    return memory;
}

/* Index of channel c of muon i in a tensor of one site. */
static TEST_UNUSED size_t test_place(const cm_tensor *t, int i, int c)
{
    return (size_t)(i / CM_LANES) * t->group + t->origin + (size_t)(c * CM_LANES + i % CM_LANES);
}

/* Forward, and in training loss and backward, on graph g.  A dry graph only counts. */
static TEST_UNUSED double test_pass(const test_stepper *s, const test_batch *b, cm_graph *g,
                                    int dry)
{
    const calomu_architecture *a = &s->net->arch;
    cm_tensor *features = NULL, *out;
    cm_hits hits;
    double loss = 0, *dp;
    cm_real *d;
    int i, k;
    hits.event = b->event;
    hits.muons = b->n;
    hits.nz = a->geometry.nz; hits.nx = a->geometry.nx; hits.ny = a->geometry.ny;
    if (b->n_features) features = cm_input(g, b->n, 1, 1, 1, b->n_features, 0, 0, 0);
    for (i = 0; i < b->n && features && !dry; i++)
        for (k = 0; k < b->n_features; k++)
            features->x[test_place(features, i, k)] =
                (cm_real)b->features[i * b->n_features + k];
    out = cm_net_forward(g, s->net, a->head ? &hits : NULL, features,
                         s->training ? s->gradient : NULL);
    if (!out) return (double)NAN;
    d = s->training ? cm_gradient(g, out) : NULL;
    for (i = 0; i < b->n && !dry; i++) s->pred[i] = (double)out->x[test_place(out, i, 0)];
    if (s->options && !dry) {
        dp = test_memory((size_t)b->n, sizeof *dp);
        loss = cm_loss(s->options, b->truth, s->pred, b->n, s->thresholds, s->update, dp);
        for (i = 0; i < b->n && d; i++) d[test_place(out, i, 0)] = (cm_real)dp[i];
        free(dp);
    }
    if (s->training && !s->no_backward) cm_backward(g);
    return loss;
}

/* One step in an arena of exactly the size that a dry graph asks for; NaN if the network cannot be
   run, with the reason in the context. */
static TEST_UNUSED double test_step(const test_stepper *s, const test_batch *b)
{
    cm_graph *g = cm_graph_new(s->c, NULL, 0, s->threads, s->training);
    double loss;
    size_t size;
    char *memory;
    if (!g) return (double)NAN;
    (void)test_pass(s, b, g, 1);
    size = cm_graph_peak(g);
    cm_graph_free(g);
    memory = test_memory(size + 64, 1);
    g = cm_graph_new(s->c, memory + (64 - (uintptr_t)memory % 64) % 64, size, s->threads,
                     s->training);
    if (!g) {
        free(memory);
        return (double)NAN;
    }
    loss = test_pass(s, b, g, 0);
    if (cm_graph_status(g) != CALOMU_OK) loss = (double)NAN;
    cm_graph_free(g);
    free(memory);
    return loss;
}

/* Random muons: about a tenth of the cells hit, one event without hits, one with all cells. */
static TEST_UNUSED test_batch test_muons(const calomu_geometry *g, int n, int n_features,
                                         uint64_t seed)
{
    test_random r = test_seed(seed);
    test_batch b;
    uint32_t cell, cells = (uint32_t)(g->nz * g->nx * g->ny);
    calomu_hit *h;
    int i, k;
    b.n = n;
    b.n_features = n_features;
    b.event = test_memory((size_t)n, sizeof *b.event);
    b.features = test_memory((size_t)(n * n_features), sizeof(double));
    b.truth = test_memory((size_t)n, sizeof(double));
    b.hit = h = test_memory((size_t)n * cells, sizeof *b.hit);
    for (i = 0; i < n; i++) {
        b.truth[i] = test_uniform(&r, 60, 7900);
        for (k = 0; k < n_features; k++)
            b.features[i * n_features + k] = (double)(float)test_normal(&r);
        b.event[i].hits = h;
        for (cell = 0; cell < cells && i != 1; cell++) {
            if (i != 2 && test_int(&r, 0, 9)) continue;
            h->cell = cell;
            h->energy = (float)(-0.4 * log(1 - test_unit(&r)));
            h++;
        }
        b.event[i].n_hits = (size_t)(h - b.event[i].hits);
        b.event[i].x = b.event[i].y = b.event[i].charge = CALOMU_ABSENT;
        b.event[i].energy = (float)b.truth[i];
    }
    return b;
}

static TEST_UNUSED void test_muons_free(test_batch *b)
{
    free(b->event);
    free(b->features);
    free(b->truth);
    free(b->hit);
}

/* Buffers as after some training: a mean near 0 and a variance near 1. */
static TEST_UNUSED void test_fill_buffers(cm_net *net, test_random *r)
{
    int i;
    size_t k;
    for (i = 0; i < net->n_params; i++) {
        const cm_param *p = &net->param[i];
        cm_real *x = cm_net_values(net, p);
        for (k = 0; k < p->count && p->role == CM_BUFFER; k++)
            x[k] = (cm_real)(p->rank == 0 ? 64 : strstr(p->name, ".sums") ? 20 * test_normal(r)
                                                                        : test_uniform(r, 60, 90));
        for (k = 0; k < p->count && p->init == CM_ZERO && p->role == CM_TRAINED; k++)
            x[k] = (cm_real)(0.1 * test_normal(r));
    }
}

/* A complete model whose weights are not packed (cm_model_finish). */
static TEST_UNUSED calomu_model *test_model_new(calomu *c, const calomu_architecture *a,
                                                int members, uint64_t seed)
{
    test_random r = test_seed(seed);
    calomu_model *m = NULL;
    int k;
    CHECK_OK(c, cm_model_new(c, a, members, &m));
    if (!m) exit(1);
    for (k = 0; k < members; k++) {
        cm_net_init(m->net[k], seed + (uint64_t)k);
        test_fill_buffers(m->net[k], &r);
        m->loss[k] = test_uniform(&r, 10, 100);
    }
    for (k = 0; k < CALOMU_FEATURES && a->n_features; k++) {
        m->info.mean[k] = test_uniform(&r, -20, 20);
        m->info.deviation[k] = test_uniform(&r, 5, 50);
    }
    return m;
}

#endif /* CALOMU_TEST_NET_H */
