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
    const calomu_device *device;     /* NULL: the processor */
    calomu_math math;
    cm_unit *unit;                   /* set by test_step, as what follows */
    cm_resident *resident;
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

static TEST_UNUSED void test_put(const test_stepper *s, cm_real *to, const cm_real *from, size_t n)
{
    if (s->unit) s->device->put(s->unit, to, from, n * sizeof *to);
    else memcpy(to, from, n * sizeof *to);
}

static TEST_UNUSED void test_get(const test_stepper *s, cm_real *to, const cm_real *from, size_t n)
{
    if (s->unit) s->device->get(s->unit, to, from, n * sizeof *to);
    else memcpy(to, from, n * sizeof *to);
}

/* Between doubles [muon][channel] and the values or gradient of a tensor of one site. */
static TEST_UNUSED void test_lanes(const test_stepper *s, const cm_tensor *t, cm_real *at,
                                   double *values, int put)
{
    size_t n = t->group * (size_t)t->groups;
    cm_real *x = test_memory(n, sizeof *x);
    int i, k;
    if (!put) test_get(s, x, at, n);
    for (i = 0; i < t->muons; i++)
        for (k = 0; k < t->nc; k++)
            if (put) x[test_place(t, i, k)] = (cm_real)values[i * t->nc + k];
            else values[i * t->nc + k] = (double)x[test_place(t, i, k)];
    if (put) test_put(s, at, x, n);
    free(x);
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
    hits.event = b->event;
    hits.muons = b->n;
    hits.nz = a->geometry.nz; hits.nx = a->geometry.nx; hits.ny = a->geometry.ny;
    hits.resident = s->resident;
    if (b->n_features) features = cm_input(g, b->n, 1, 1, 1, b->n_features, 0, 0, 0);
    if (features && !dry) test_lanes(s, features, features->x, b->features, 1);
    out = cm_net_forward(g, s->net, a->head ? &hits : NULL, features,
                         s->training ? s->gradient : NULL);
    if (!out) return (double)NAN;
    d = s->training ? cm_gradient(g, out) : NULL;
    if (!dry) test_lanes(s, out, out->x, s->pred, 0);
    if (s->options && !dry) {
        dp = test_memory((size_t)b->n, sizeof *dp);
        loss = cm_loss(s->options, b->truth, s->pred, b->n, s->thresholds, s->update, dp);
        if (d) test_lanes(s, out, d, dp, 1);
        free(dp);
    }
    if (s->training && !s->no_backward) cm_backward(g);
    return loss;
}

/* One step in an arena of exactly the size that a dry graph asks for; NaN if the network cannot be
   run, with the reason in the context. */
static TEST_UNUSED double test_step_here(const test_stepper *s, const test_batch *b)
{
    cm_graph *g = cm_graph_on(s->c, s->unit, NULL, 0, s->threads, s->training);
    double loss;
    size_t size;
    char *memory, *arena;
    if (!g) return (double)NAN;
    (void)test_pass(s, b, g, 1);
    size = cm_graph_peak(g);
    cm_graph_free(g);
    memory = s->unit ? s->device->allocate(s->unit, size) : test_memory(size + 64, 1);
    arena = s->unit ? memory : memory + (64 - (uintptr_t)memory % 64) % 64;
    g = memory ? cm_graph_on(s->c, s->unit, arena, size, s->threads, s->training) : NULL;
    loss = g ? test_pass(s, b, g, 0) : (double)NAN;
    if (!g || cm_graph_status(g) != CALOMU_OK) loss = (double)NAN;
    cm_graph_free(g);
    if (s->unit) s->device->release(s->unit, memory);
    else free(memory);
    return loss;
}

/* The same on s->device, if there is one: weights go there and gradient and buffers come back. */
static TEST_UNUSED double test_step(const test_stepper *from, const test_batch *b)
{
    const cm_net *net = from->net;
    test_stepper s = *from;
    cm_net there = *net;
    cm_hits hits;
    double loss;
    if (!s.device) return test_step_here(&s, b);
    if (s.device->open(s.c, s.device, 0, s.math, &s.unit) != CALOMU_OK) return (double)NAN;
    there.trained = s.device->allocate(s.unit, (2 * net->n_trained + net->n_fixed
                                                + net->n_buffers) * sizeof(cm_real));
    there.fixed = there.trained + net->n_trained;
    there.buffers = there.fixed + net->n_fixed;
    test_put(&s, there.trained, net->trained, net->n_trained);
    test_put(&s, there.fixed, net->fixed, net->n_fixed);
    test_put(&s, there.buffers, net->buffers, net->n_buffers);
    s.net = &there;
    s.gradient = there.buffers + net->n_buffers;
    if (s.training) test_put(&s, s.gradient, from->gradient, net->n_trained);
    hits.event = b->event;
    hits.muons = b->n;
    hits.nz = net->arch.geometry.nz;
    hits.nx = net->arch.geometry.nx;
    hits.ny = net->arch.geometry.ny;
    s.resident = s.device->hits_new(s.unit);
    s.device->hits_put(s.unit, s.resident, &hits);
    loss = test_step_here(&s, b);
    if (s.training) test_get(&s, from->gradient, s.gradient, net->n_trained);
    test_get(&s, net->buffers, there.buffers, net->n_buffers);
    if (s.device->wait(s.unit) != CALOMU_OK) {
        cm_fail(s.c, s.unit->status, "%s", s.unit->message);
        loss = (double)NAN;
    }
    s.device->hits_free(s.unit, s.resident);
    s.device->release(s.unit, there.trained);
    s.device->close(s.unit);
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
