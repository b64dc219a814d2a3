/* test_lists.c - lists of layers: what the plan saves changes no bit, whatever reads what

   usage: test_lists [TESTDATA [TMP [SEED]]]

   Random lists of all kinds of layers, in training and inference: every layer on its own
   (`unfused`), one thread, against the plan with its rules, threads, instruction sets, recomputed
   values, a muon in the lanes, the emulated device.  Results, gradients and the buffers of norms
   are equal to the last bit, the sign of zeros too.  And lists that the check refuses. */
#include "test_net.h"
#include "../cuda/calomu_cuda.h"

enum { MOST = 128 };

typedef struct shape {
    int nz, nx, ny, nc;
} shape;

/* A list under way. */
typedef struct maker {
    test_random *r;
    cm_list *list;
    shape hits, at[MOST];
    int is_read[MOST];
    int n, features, has_hits;
    int has_window;                  /* that the device has no kernels for */
} maker;

static int one_of(maker *m, int n) { return test_int(m->r, 0, n - 1); }

static int add(maker *m, int layer, shape s)
{
    if (layer != m->n || layer >= MOST) {
        fprintf(stderr, "layer %d is number %d\n", m->n, layer);
        exit(1);
    }
    m->at[m->n] = s;
    return m->n++;
}

/* x is read by what is made next. */
static int reads(maker *m, int x)
{
    if (x >= 0) m->is_read[x] = 1;
    return x;
}

static const char *name_of(maker *m)
{
    static char name[16];
    (void)snprintf(name, sizeof name, "l%d", m->n);
    return name;
}

/* A layer that is there, most often one of the last two. */
static int some(maker *m)
{
    int last = one_of(m, 3);
    return last < 2 && last < m->n ? m->n - 1 - last : one_of(m, m->n);
}

static int small(const shape *s)
{
    return s->nz > 0 && s->nx > 0 && s->ny > 0 && s->nz * s->nx * s->ny * s->nc <= 4000;
}

static int slid(int n, int kernel, int stride, int pads)
{
    return n + pads < kernel ? 0 : (n + pads - kernel) / stride + 1;
}

static shape window(shape s, int kernel, int stride, int pad)
{
    s.nz = slid(s.nz, kernel, stride, 2 * pad);
    s.nx = slid(s.nx, kernel, stride, 2 * pad);
    s.ny = slid(s.ny, kernel, stride, 2 * pad);
    return s;
}

/* Each returns the layer's number, or that of x where it would be too large. */
static int conv_of(maker *m, int x, int out, int kernel, int stride, int pad)
{
    shape s = window(x < 0 ? m->hits : m->at[x], kernel, stride, pad);
    s.nc = out;
    if (!small(&s)) return x < 0 ? m->n - 1 : x;
    return add(m, cm_layer_conv(m->list, name_of(m), reads(m, x), out, kernel, stride, pad,
                                x >= 0 && one_of(m, 4) == 0), s);
}

/* A kernel, a stride and paddings of its own along each axis. */
static int window_conv(maker *m, int x)
{
    cm_window w;
    shape s = m->at[x];
    int *sites[3], out = 1 + one_of(m, 4), a, cube = 1;
    sites[0] = &s.nz;
    sites[1] = &s.nx;
    sites[2] = &s.ny;
    for (a = 0; a < 3; a++) {
        w.kernel[a] = 1 + one_of(m, 7);
        w.stride[a] = 1 + one_of(m, 3);
        w.before[a] = one_of(m, w.kernel[a]);
        w.after[a] = one_of(m, w.kernel[a]);
        *sites[a] = slid(*sites[a], w.kernel[a], w.stride[a], w.before[a] + w.after[a]);
        cube &= w.kernel[a] == w.kernel[0] && w.stride[a] == w.stride[0]
             && w.before[a] == w.before[0] && w.after[a] == w.before[0];
    }
    s.nc = out;
    if (!small(&s)) return x;
    if (!cube || w.kernel[0] > 4) m->has_window = 1;
    return add(m, cm_layer_window(m->list, name_of(m), reads(m, x), out, &w, one_of(m, 2)), s);
}

static int conv(maker *m, int x)
{
    int kernel = 1 + one_of(m, 4), stride = 1 + one_of(m, 3), out = 1 + one_of(m, 5);
    if (x >= 0 && one_of(m, 6) == 0) return window_conv(m, x);
    switch (one_of(m, 8)) {
    case 0: return conv_of(m, x, out, 4, 2, 2);
    case 1: return conv_of(m, x, out, 1, 1, 0);
    case 2: return conv_of(m, x, out, kernel, stride + 2 * one_of(m, 2), one_of(m, kernel));
    case 3: return conv_of(m, x, out, kernel, stride, one_of(m, kernel));
    default: return conv_of(m, x, out, 3, 1, 1);
    }
}

static int pool(maker *m, int x)
{
    static const double scales[] = { 0.125, 1, 0.3, 0.7 };
    shape s = window(x < 0 ? m->hits : m->at[x], 2, 2, 1);
    const char *name = x < 0 && one_of(m, 2) ? name_of(m) : "";
    if (!small(&s)) return x;
    return add(m, cm_layer_pool(m->list, name, reads(m, x), scales[one_of(m, 4)]), s);
}

static int norm(maker *m, int x)
{
    return add(m, cm_layer_norm(m->list, name_of(m), reads(m, x)), m->at[x]);
}

static int point(maker *m, cm_kind kind, int x)
{
    return add(m, cm_layer_point(m->list, kind, reads(m, x)), m->at[x]);
}

static int over(maker *m, cm_kind kind, int x)
{
    shape s = m->at[x];
    s.nz = s.nx = s.ny = 1;
    return add(m, cm_layer_over_sites(m->list, kind, reads(m, x)), s);
}

static int channel(maker *m, int x)
{
    shape s = m->at[x];
    s.nc = 1;
    return add(m, cm_layer_channel(m->list, reads(m, x)), s);
}

static int is_one_site(const shape *s) { return s->nz * s->nx * s->ny == 1; }

static int linear(maker *m, int x, int out)
{
    shape s = m->at[x];
    if (!is_one_site(&s)) return x;
    s.nc = out;
    return add(m, cm_layer_linear(m->list, name_of(m), reads(m, x), out, CM_GLOROT), s);
}

/* A layer of the sites of x and, if nc is not 0, of so many channels, or x: some way to it. */
static int like(maker *m, int x, int nc)
{
    int i, from = one_of(m, m->n);
    for (i = 0; i < m->n; i++) {
        int k = (from + i) % m->n;
        const shape *s = &m->at[k];
        if (s->nz == m->at[x].nz && s->nx == m->at[x].nx && s->ny == m->at[x].ny
            && (k != x || one_of(m, 5) == 0) && (nc == 0 || s->nc == nc)) return k;
    }
    return nc && nc != m->at[x].nc ? conv_of(m, x, nc, 1, 1, 0) : x;
}

/* A gate for x: one that is there, or one made from its means. */
static int gate(maker *m, int x)
{
    int i, q, from = one_of(m, m->n);
    for (i = 0; i < m->n && one_of(m, 3) > 0; i++) {
        q = (from + i) % m->n;
        if (is_one_site(&m->at[q]) && m->at[q].nc == m->at[x].nc) return q;
    }
    q = over(m, one_of(m, 4) ? CM_MEAN_OF : CM_MAX_OF, x);
    if (one_of(m, 2)) q = linear(m, q, m->at[x].nc);
    return point(m, one_of(m, 4) ? CM_SIGMOID : CM_SWISH, q);
}

static int add_scaled(maker *m, int path)
{
    int s = one_of(m, 6) ? like(m, path, m->at[path].nc) : path, q = gate(m, path);
    return add(m, cm_layer_add_scaled(m->list, reads(m, s), reads(m, path), reads(m, q)),
               m->at[path]);
}

static int concat(maker *m, int a, int b)
{
    shape s = m->at[a];
    s.nc += m->at[b].nc;
    return small(&s) ? add(m, cm_layer_concat(m->list, reads(m, a), reads(m, b)), s) : b;
}

/* The energy sums that stand in front of a join: one channel of x's sites. */
static int energy(maker *m, int x)
{
    int i;
    if (one_of(m, 8) == 0) return add_scaled(m, like(m, x, 1));
    for (i = 0; i < 3 && m->has_hits; i++) {
        shape s = window(m->hits, 2, 2, 1);
        if (s.nz != m->at[x].nz || s.nx != m->at[x].nx || s.ny != m->at[x].ny) break;
        if (one_of(m, 2)) return pool(m, -1);
    }
    return one_of(m, 3) ? channel(m, like(m, x, 0)) : like(m, x, 1);
}

static int join(maker *m, int x)
{
    int e = one_of(m, 4) ? energy(m, x) : -1, y = add_scaled(m, x);
    if (one_of(m, 6) == 0) (void)point(m, CM_SWISH, x);      /* reads between sum and join */
    return concat(m, e < 0 ? energy(m, y) : e, y);
}

/* As the network's blocks go. */
static int block(maker *m, int x)
{
    x = conv(m, point(m, CM_SWISH, norm(m, x)));
    if (one_of(m, 2)) x = conv_of(m, norm(m, point(m, CM_SWISH, x)), 1 + one_of(m, 4), 3, 1, 1);
    if (one_of(m, 2)) x = norm(m, one_of(m, 2) ? point(m, CM_SWISH, x) : x);
    return x;
}

/* Like the paper's: a join at the end, and what begins the next one. */
static int stage(maker *m, int x)
{
    int q, y = block(m, x), s = one_of(m, 3) ? like(m, y, m->at[y].nc) : y;
    q = one_of(m, 3) ? gate(m, y) : point(m, CM_SIGMOID, over(m, CM_MEAN_OF, y));
    if (one_of(m, 6) == 0) (void)norm(m, y);
    y = add(m, cm_layer_add_scaled(m->list, reads(m, s), reads(m, y), reads(m, q)), m->at[y]);
    x = concat(m, energy(m, y), y);
    if (one_of(m, 3) == 0) return x;
    y = norm(m, one_of(m, 3) ? x : point(m, CM_SWISH, x));
    if (one_of(m, 6) == 0) (void)over(m, CM_MAX_OF, x);      /* before the convolution */
    y = one_of(m, 2) ? y : point(m, CM_SWISH, y);
    y = one_of(m, 4) ? conv(m, y) : conv_of(m, y, 2, 1, 2, 0);       /* not the last plane */
    if (one_of(m, 2)) (void)over(m, CM_MEAN_OF, x);      /* and behind it */
    return y;
}

/* Sums of the hits beside a convolution of the same sites. */
static void first_stage(maker *m)
{
    int x;
    if (one_of(m, 2)) (void)pool(m, -1);
    x = conv_of(m, -1, 1 + one_of(m, 4), 4, 2, 2);
    if (one_of(m, 2)) (void)pool(m, -1);
    (void)stage(m, x);
}

static void some_layer(maker *m)
{
    int x = m->n ? some(m) : -1, hits = m->has_hits && one_of(m, 5) == 0, y;
    if (x < 0 || hits) {
        x = one_of(m, 3) && window(m->hits, 2, 2, 1).nz > 0 ? conv(m, -1) : pool(m, -1);
        if (x < 0) (void)conv_of(m, -1, 2, 3, 1, 1);
        return;
    }
    switch (one_of(m, 20)) {
    case 0: case 1: (void)conv(m, x); break;
    case 2: (void)norm(m, x); break;
    case 3: (void)point(m, CM_SWISH, x); break;
    case 4:
        y = point(m, CM_SWISH, x);
        if (one_of(m, 3) == 0) (void)conv(m, x); /* reads between Swish and norm */
        if (one_of(m, 3) == 0) (void)pool(m, x);
        (void)norm(m, y);
        break;
    case 5: (void)point(m, CM_SWISH, norm(m, x)); break;
    case 6: (void)over(m, CM_MEAN_OF, x); break;
    case 7: (void)over(m, CM_MAX_OF, x); break;
    case 8: (void)pool(m, x); break;
    case 9:
        (void)pool(m, channel(m, x));
        if (one_of(m, 2)) (void)conv(m, x);
        break;
    case 10: (void)add_scaled(m, x); break;
    case 11: (void)concat(m, x, like(m, x, 0)); break;
    case 12: case 13: (void)join(m, x); break;
    case 14: (void)block(m, x); break;
    case 15: case 16: case 17: (void)stage(m, x); break;
    default: (void)(is_one_site(&m->at[x]) ? linear(m, x, 1 + one_of(m, 6))
                                           : point(m, CM_SIGMOID, x)); break;
    }
}

/* All that nobody reads becomes a part of the result, so that its gradient counts. */
static void tie_up(maker *m)
{
    int i, n = m->n, y = -1;
    for (i = 0; i < n; i++) {
        int x = i;
        if (m->is_read[i]) continue;
        if (!is_one_site(&m->at[i])) x = over(m, one_of(m, 3) ? CM_MEAN_OF : CM_MAX_OF, i);
        y = y < 0 ? x : concat(m, y, x);
    }
}

/* Layers until there are about n; the result is the last, or any. */
static void random_list(calomu *c, maker *m, test_random *r)
{
    int most = test_int(r, 0, 3) ? 5 : 9, few = test_int(r, 0, 9) == 0, n = test_int(r, 1, 24);
    m->r = r;
    m->n = 0;
    memset(m->is_read, 0, sizeof m->is_read);
    m->has_window = 0;
    m->has_hits = test_int(r, 0, 5) > 0;
    m->features = !m->has_hits || test_int(r, 0, 1) == 0 ? test_int(r, 1, 5) : 0;
    m->hits.nz = few ? 1 : test_int(r, 1, most);
    m->hits.nx = few ? 1 : test_int(r, 1, most);
    m->hits.ny = test_int(r, 1, most);
    m->hits.nc = 1;
    m->list = cm_list_new(c, m->hits.nz, m->hits.nx, m->hits.ny, m->features, MOST);
    if (!m->list) exit(1);
    if (m->features) {
        shape s = { 1, 1, 1, 0 };
        s.nc = m->features;
        (void)add(m, cm_layer_features(m->list), s);
    }
    if (m->has_hits && test_int(r, 0, 1)) first_stage(m);
    while (m->n < n) some_layer(m);
    if (test_int(r, 0, 3)) tie_up(m);
    if (test_int(r, 0, 3) == 0) cm_list_result(m->list, test_int(r, 0, m->n - 1));
}

/* ---------------------------------------------------------------- a run */

typedef struct way {                 /* how a list is computed */
    calomu_isa isa;
    int threads, direct, unfused, recompute, device;
} way;

typedef struct trial {
    const cm_net *net;               /* that it runs: of the device, should it be there */
    const cm_net *from;
    const test_batch *b;
    calomu *c;
    cm_unit *unit;
    cm_resident *resident;
    cm_real *gradient;
    double *out;                     /* results, [muon][site][channel] */
    size_t n_out;
} trial;

static void get(const trial *t, cm_real *to, const cm_real *from, size_t n)
{
    if (t->unit) calomu_emulated.get(t->unit, to, from, n * sizeof *to);
    else memcpy(to, from, n * sizeof *to);
}

static void put(const trial *t, cm_real *to, const cm_real *from, size_t n)
{
    if (t->unit) calomu_emulated.put(t->unit, to, from, n * sizeof *to);
    else memcpy(to, from, n * sizeof *to);
}

/* Results of the muons, from muon `first` of the batch on, or their gradient, some numbers. */
static void exchange(trial *t, const cm_tensor *y, cm_real *at, int first, int give)
{
    size_t reals = y->group * (size_t)y->groups, sites = (size_t)(y->nz * y->nx * y->ny), i;
    cm_real *x = test_memory(reals, sizeof *x);
    int v;
    if (!give) get(t, x, at, reals);
    t->n_out = (size_t)t->b->n * sites * (size_t)y->nc;
    if (!t->out) t->out = test_memory(t->n_out, sizeof *t->out);
    for (v = 0; v < y->muons; v++)
        for (i = 0; i < sites * (size_t)y->nc; i++) {
            size_t site = i / (size_t)y->nc, c = i % (size_t)y->nc, ny = (size_t)y->ny;
            size_t z = site / ny / (size_t)y->nx, line = site / ny % (size_t)y->nx;
            size_t row = z * y->row_z + line * y->row_x;
            size_t k = (size_t)(v / CM_LANES) * y->group + y->origin
                     + ((row + site % ny) * (size_t)y->nc + c) * CM_LANES + (size_t)(v % CM_LANES);
            size_t number = (size_t)(first + v) * sites * (size_t)y->nc + i;
            if (give) x[k] = (cm_real)((double)(number * 2654435761u % 1000) / 500 - 1);
            else t->out[number] = (double)x[k];
        }
    if (give) put(t, at, x, reals);
    free(x);
}

/* n muons from `first` on; split: one in the lanes. */
static void pass(trial *t, cm_graph *g, int first, int n, int split, int training, int dry)
{
    const calomu_architecture *a = &t->net->arch;
    cm_tensor *features = NULL, *out;
    cm_hits h;
    memset(&h, 0, sizeof h);
    h.event = t->b->event + first;
    h.muons = n;
    h.nz = a->geometry.nz;
    h.nx = a->geometry.nx;
    h.ny = a->geometry.ny;
    h.resident = t->resident;
    cm_graph_split(g, split);
    if (a->n_features) {
        test_stepper s;
        memset(&s, 0, sizeof s);
        s.unit = t->unit;
        s.device = &calomu_emulated;
        features = cm_input(g, n, 1, 1, 1, a->n_features, 0, 0, 0);
        if (features && !dry)
            test_lanes(&s, features, features->x, t->b->features + first * a->n_features, 1);
    }
    out = cm_net_forward(g, t->net, a->head ? &h : NULL, features, training ? t->gradient : NULL);
    if (out && !dry) exchange(t, out, out->x, first, 0);
    if (!out || !training || !cm_gradient(g, out)) return;
    if (!dry) exchange(t, out, out->dx, first, 1);
    cm_backward(g);
}

/* In an arena of the size that a dry graph asks for. */
static int go(trial *t, int threads, int first, int n, int split, int training)
{
    char *memory, *arena;
    size_t size;
    cm_graph *g = cm_graph_on(t->c, t->unit, NULL, 0, threads, training);
    int good;
    pass(t, g, first, n, split, training, 1);
    size = cm_graph_peak(g);
    good = cm_graph_status(g) == CALOMU_OK;
    cm_graph_free(g);
    if (!good) return 0;
    memory = t->unit ? calomu_emulated.allocate(t->unit, size) : test_memory(size + 64, 1);
    arena = t->unit ? memory : memory + (64 - (uintptr_t)memory % 64) % 64;
    g = cm_graph_on(t->c, t->unit, arena, size, threads, training);
    pass(t, g, first, n, split, training, 0);
    good = cm_graph_status(g) == CALOMU_OK && (!t->unit || t->unit->status == CALOMU_OK);
    cm_graph_free(g);
    if (t->unit) calomu_emulated.release(t->unit, memory);
    else free(memory);
    return good;
}

/* On the device: the network's values, and all hits. */
static void there(trial *t, cm_net *copy)
{
    const cm_net *net = t->from;
    cm_hits h;
    *copy = *net;
    copy->trained = calomu_emulated.allocate(t->unit, (2 * net->n_trained + net->n_fixed
                                                       + net->n_buffers + 64) * sizeof(cm_real));
    copy->fixed = copy->trained + net->n_trained;
    copy->buffers = copy->fixed + net->n_fixed;
    put(t, copy->trained, net->trained, net->n_trained);
    put(t, copy->fixed, net->fixed, net->n_fixed);
    put(t, copy->buffers, net->buffers, net->n_buffers);
    put(t, copy->buffers + net->n_buffers, t->gradient, net->n_trained);
    memset(&h, 0, sizeof h);
    h.event = t->b->event;
    h.muons = t->b->n;
    h.nz = net->arch.geometry.nz;
    h.nx = net->arch.geometry.nx;
    h.ny = net->arch.geometry.ny;
    t->resident = calomu_emulated.hits_new(t->unit);
    calomu_emulated.hits_put(t->unit, t->resident, &h);
    t->net = copy;
}

typedef struct outcome {             /* of a training step and of inference after it */
    double *trained, *predicted;
    cm_real *gradient, *buffers;
    size_t n;
} outcome;

static void outcome_free(outcome *o)
{
    free(o->trained);
    free(o->predicted);
    free(o->gradient);
    free(o->buffers);
}

/* ones: muons of the inference that are computed one by one, in the lanes. */
static int run(const cm_net *net, const test_batch *b, const way *w, const cm_real *buffers,
               int ones, outcome *o)
{
    calomu_options options = { 0 };
    cm_net copy;
    trial t;
    int i, good;
    memset(o, 0, sizeof *o);
    memset(&t, 0, sizeof t);
    options.isa = w->isa;
    options.direct = w->direct;
    options.unfused = w->unfused;
    options.recompute = w->recompute;
    if (calomu_open(&t.c, &options) != CALOMU_OK) return -1;         /* no such instructions */
    t.net = t.from = net;
    t.b = b;
    o->gradient = t.gradient = test_memory(net->n_trained, sizeof(cm_real));
    o->buffers = test_memory(net->n_buffers, sizeof(cm_real));
    memcpy(net->buffers, buffers, net->n_buffers * sizeof *buffers);
    if (w->device) {
        CHECK_OK(t.c, calomu_emulated.open(t.c, &calomu_emulated, 0, CALOMU_MATH_EQUAL, &t.unit));
        there(&t, &copy);
        t.gradient = copy.buffers + net->n_buffers;
    }
    good = go(&t, w->threads, 0, b->n, 0, 1);
    o->trained = t.out;
    o->n = t.n_out;
    t.out = NULL;
    for (i = 0; good && i < ones; i++) good = go(&t, w->threads, i, 1, 1, 0);
    if (good && ones < b->n) good = go(&t, w->threads, ones, b->n - ones, 0, 0);
    o->predicted = t.out;
    if (w->device) {
        get(&t, o->gradient, t.gradient, net->n_trained);
        get(&t, o->buffers, t.net->buffers, net->n_buffers);
        calomu_emulated.hits_free(t.unit, t.resident);
        calomu_emulated.release(t.unit, copy.trained);
        calomu_emulated.close(t.unit);
    } else {
        memcpy(o->buffers, net->buffers, net->n_buffers * sizeof *buffers);
    }
    if (!good) fprintf(stderr, "    %s\n", calomu_message(t.c));
    calomu_close(t.c);
    return good;
}

/* By the plain pass (part I of calomu.c): what all ways are compared with. */
static int run_plain(const cm_net *net, const test_batch *b, int direct, const cm_real *buffers,
                     outcome *o)
{
    calomu_options options = { 0 };
    size_t n = (size_t)b->n * (size_t)(b->n_features ? b->n_features : 1), k, size = 1;
    cm_real *features = test_memory(n, sizeof *features);
    calomu *c = NULL;
    cm_pass *p;
    double *slopes;
    const char *name;
    int sites[4], good, training;
    memset(o, 0, sizeof *o);
    options.direct = direct;
    if (!CHECK_OK(c, calomu_open(&c, &options))) return 0;
    for (k = 0; b->n_features && k < n; k++) features[k] = (cm_real)b->features[k];
    memcpy(net->buffers, buffers, net->n_buffers * sizeof *buffers);
    o->gradient = test_memory(net->n_trained, sizeof *o->gradient);
    o->buffers = test_memory(net->n_buffers, sizeof *o->buffers);
    for (training = 1, good = 1; training >= 0 && good; training--) {
        double *out;
        p = cm_pass_new(c, net, b->event, features, b->n, training ? o->gradient : NULL);
        good = CHECK(p != NULL, "%s", calomu_message(c));
        if (!good) break;
        (void)cm_pass_values(p, cm_pass_result(p), &name, sites);
        for (k = 0, size = 1; k < 4; k++) size *= (size_t)sites[k];
        o->n = size * (size_t)b->n;
        out = test_memory(o->n, sizeof *out);
        if (training) o->trained = out;
        else o->predicted = out;
        good = CHECK_OK(c, cm_pass_forward(p, out));
        slopes = test_memory(o->n, sizeof *slopes);
        for (k = 0; k < o->n; k++) slopes[k] = (double)(k * 2654435761u % 1000) / 500 - 1;
        if (training && good) good = CHECK_OK(c, cm_pass_backward(p, slopes));
        free(slopes);
        cm_pass_free(p);
    }
    memcpy(o->buffers, net->buffers, net->n_buffers * sizeof *buffers);
    free(features);
    calomu_close(c);
    return good;
}

static void print_plan(const cm_net *net, int training, const way *w)
{
    char line[320];
    int i;
    for (i = 0; cm_net_plan(net, training, w->direct, w->unfused, i, line); i++)
        fprintf(stderr, "    %s\n", line);
}

/* What differs; "": nothing. */
static const char *difference(const cm_net *net, const outcome *a, const outcome *b)
{
    if (a->n != b->n) return "number of results";
    if (memcmp(a->trained, b->trained, a->n * sizeof *a->trained)) return "results in training";
    if (memcmp(a->buffers, b->buffers, net->n_buffers * sizeof *a->buffers)) return "buffers";
    if (memcmp(a->gradient, b->gradient, net->n_trained * sizeof *a->gradient)) return "gradients";
    if (memcmp(a->predicted, b->predicted, a->n * sizeof *a->predicted)) return "predictions";
    return "";
}

static int is_finite(const outcome *o, size_t trained)
{
    size_t i;
    for (i = 0; i < o->n; i++)
        if (!isfinite(o->trained[i]) || !isfinite(o->predicted[i])) return 0;
    for (i = 0; i < trained; i++)
        if (!isfinite((double)o->gradient[i])) return 0;
    return 1;
}

/* How often each rule was applied, and operations were of each kind, in all plans. */
static const char *const words[] = {
    "Swish joins", "join, ", "same sums", "channel in place", "norm joins", "made where read",
    "by groups", "by rows", "sums on the way", "halo 1", "halo 2", "halo 3", "deferred",
    " channel ", " add scaled ", " concat ", " maximum ", " mean ", " pool ", " linear ",
    " sigmoid ", " Swish ", " norm ", " sum of hits ", " conv of hits ", " window conv "
};
enum { WORDS = sizeof words / sizeof *words };
static int met[WORDS];

static void count_words(const cm_net *net, int direct)
{
    char line[320];
    int training, i, k;
    for (training = 0; training < 2; training++) {
        for (i = 0; cm_net_plan(net, training, direct, 0, i, line); i++)
            for (k = 0; k < WORDS; k++) met[k] += strstr(line, words[k]) != NULL;
        for (i = 0; cm_net_plan(net, training, direct, 1, i, line); i++) {
            const char *rules = strstr(line, "; ");
            CHECK(strstr(line, "kept to") && (!rules || strcmp(rules, "; halo") == 0),
                  "without fusion: %s", line);
        }
    }
}

/* The network as `first` was computed, in another way; ones: muons alone. */
static void check_way(const cm_net *net, const test_batch *b, const way *w, const cm_real *buffers,
                      int ones, const outcome *first, int number, uint64_t seed)
{
    outcome o;
    int good = run(net, b, w, buffers, ones, &o);
    if (good >= 0
        && !CHECK(good && !*difference(net, first, &o), "list %d, %d muons, seed %llu: set %d,"
                  " %d threads, direct %d, unfused %d, recompute %d, device %d: other %s", number,
                  b->n, (unsigned long long)seed, (int)w->isa, w->threads, w->direct, w->unfused,
                  w->recompute, w->device, good ? difference(net, first, &o) : "end")) {
        print_plan(net, 1, w);
        print_plan(net, 0, w);
    }
    outcome_free(&o);
}

/* One list in all ways; returns 1 if its numbers are finite, so that they were compared. */
static int check_list(calomu *c, const maker *m, int muons, int number, uint64_t seed)
{
    static const way ways[] = {      /* direct: by the number of the list */
        { CALOMU_ISA_BEST, 1, 0, 0, 0, 0 }, { CALOMU_ISA_BEST, 2, 0, 0, 0, 0 },
        { CALOMU_ISA_BEST, 3, 0, 0, 0, 0 }, { CALOMU_ISA_AVX2, 1, 0, 0, 0, 0 },
        { CALOMU_ISA_BEST, 1, 0, 0, 1, 0 }, { CALOMU_ISA_BEST, 2, 0, 1, 1, 0 },
        { CALOMU_ISA_BEST, 1, 0, 1, 0, 1 }, { CALOMU_ISA_BEST, 1, 0, 0, 0, 1 },
        { CALOMU_ISA_PLAIN, 1, 0, 0, 0, 0 }
    };
    test_random r = test_seed(seed);
    cm_real *buffers;
    outcome first;
    test_batch b;
    cm_net *net = NULL;
    way w = { CALOMU_ISA_BEST, 1, 0, 1, 0, 0 };
    int finite = 0;
    size_t i;
    if (!CHECK_OK(c, cm_net_of_list(c, m->list, &net))) return 0;
    b = test_muons(&net->arch.geometry, muons, m->features, seed);
    cm_net_init(net, seed);
    test_fill_buffers(net, &r);
    buffers = test_memory(net->n_buffers, sizeof *buffers);
    memcpy(buffers, net->buffers, net->n_buffers * sizeof *buffers);
    w.direct = number % 2;
    count_words(net, w.direct);
    if (CHECK(run_plain(net, &b, w.direct, buffers, &first), "list %d does not run", number))
        finite = is_finite(&first, net->n_trained);
    if (finite) check_way(net, &b, &w, buffers, 0, &first, number, seed);
    for (i = 0; finite && i < sizeof ways / sizeof *ways; i++) {
        w = ways[i];
        w.direct = number % 2;
        if (w.isa == CALOMU_ISA_PLAIN && number % 8) continue;
        if (w.device && (number % 4 > 1 || m->has_window)) continue;
        check_way(net, &b, &w, buffers, i == 0 || i == 3 || i == 5 ? 2 : 0, &first, number, seed);
    }
    outcome_free(&first);
    free(buffers);
    test_muons_free(&b);
    cm_net_free(c, net);
    return finite;
}

static void check_random(calomu *c, test_random *r)
{
    int i, finite = 0, lists = test.brief ? 150 : 1200;
    for (i = 0; i < lists; i++) {
        uint64_t seed = test_bits(r);
        test_random own = test_seed(seed);
        maker m;
        random_list(c, &m, &own);
        finite += check_list(c, &m, i % 5 ? test_int(&own, 2, 20) : test_int(&own, 17, 40), i,
                             seed);
    }
    printf("test_lists: %d of %d lists have finite numbers\n", finite, lists);
    for (i = 0; i < WORDS; i++)
        CHECK(met[i] > lists / 100, "'%s' %d times in the plans", words[i], met[i]);
    if (getenv("TEST_WORDS"))
        for (i = 0; i < WORDS; i++) printf("    '%s' %d times\n", words[i], met[i]);
    CHECK(finite > lists * 9 / 10, "%d of %d lists are finite", finite, lists);
}

/* ---------------------------------------------------------------- lists that are refused */

/* A list that is right, of 3x4x5 cells, then one more layer, by number; what the check says. */
static const char *bad_layer(cm_list *s, int bad)
{
    int f = cm_layer_features(s), x = cm_layer_conv(s, "a", -1, 2, 3, 1, 1, 0);
    int y = cm_layer_conv(s, "b", x, 2, 2, 1, 0, 1), m = cm_layer_over_sites(s, CM_MEAN_OF, x);
    int z = cm_layer_conv(s, "c", x, 3, 1, 1, 0, 0);
    switch (bad) {
    case 0: (void)cm_layer_linear(s, "d", m, 1, CM_GLOROT); return "";
    case 1: (void)cm_layer_conv(s, "d", x, 1, 65, 1, 64, 0);
            return "layer 5, window conv d: kernels and strides are 1";
    case 2: (void)cm_layer_conv(s, "d", x, 1, 3, 0, 1, 0); return "strides are 1 to 64";
    case 3: (void)cm_layer_conv(s, "d", x, 1, 3, 1, 3, 0); return "less than the kernel";
    case 4: (void)cm_layer_conv(s, "d", x, 0, 3, 1, 1, 0); return "no sites or no channels";
    case 5: (void)cm_layer_conv(s, "d", x, 1, 4, 1, 0, 0); return "(reads 3x4x5x2; makes 0x1x2x1)";
    case 6: (void)cm_layer_conv(s, "d", x, 1 << 24, 1, 1, 0, 0); return "too large";
    case 7: (void)cm_layer_conv(s, "d", 5, 1, 1, 1, 0, 0); return "not before it";
    case 8: (void)cm_layer_conv(s, "d", -2, 1, 1, 1, 0, 0); return "not before it";
    case 9: (void)cm_layer_conv(s, "d", -1, 1, 1, 1, 0, 1); return "no bias (reads 3x4x5 hits;";
    case 10: (void)cm_layer_conv(s, "a", x, 1, 1, 1, 0, 0); return "the same name";
    case 11: (void)cm_layer_norm(s, "", x); return "have no name";
    case 12: (void)cm_layer_pool(s, "d", x, 1); return "a name, but no parameters";
    case 13: (void)cm_layer_pool(s, "", x, (double)NAN); return "the scale is no number";
    case 14: (void)cm_layer_linear(s, "d", x, 1, CM_GLOROT); return "linear d: more than one site";
    case 15: (void)cm_layer_concat(s, x, y); return "concat: other sites (reads 3x4x5x2, 2x3x4x2;";
    case 16: (void)cm_layer_add_scaled(s, x, y, m); return "add scaled: shortcut and path";
    case 17: (void)cm_layer_add_scaled(s, x, z, m); return "shortcut and path";
    case 18: (void)cm_layer_add_scaled(s, z, z, m); return "the gate is not one value";
    case 19: (void)cm_layer_add_scaled(s, x, x, x); return "the gate is not one value";
    case 20: (void)cm_layer_features(s); return "are read by a layer before it";
    case 21: (void)cm_layer_norm(s, "d23456789012345678901234567890123", x); return "";
    case 22: (void)cm_layer_norm(s, "d234567890123456789012345678901234", x); return "33 letters";
    case 23: cm_list_result(s, 5); return "there is no layer 5";
    case 24: cm_list_result(s, -2); return "there is no layer -2";
    case 25: cm_list_result(s, f); return "";
    case 26: while (x < 6) x = cm_layer_point(s, CM_SWISH, x); return "";
    case 27: for (x = 0; x < 9; x++) (void)cm_layer_concat(s, y, z); return "more layers than";
    case 28: (void)cm_layer_conv(s, "d", -1, 1, 5, 1, 0, 0); return "a kernel of 1 to 4 cells";
    case 29: (void)cm_layer_conv(s, "d", z, 4096, 60, 60, 59, 0); return "too many weights";
    default: return NULL;
    }
}

static void check_refusals(calomu *c)
{
    const char *text;
    int bad;
    for (bad = 0; bad < 100; bad++) {
        cm_list *s = cm_list_new(c, 3, 4, 5, 2, 7);
        cm_net *net = NULL;
        if (!s) exit(1);
        text = bad_layer(s, bad);
        if (!text) {
            cm_list_free(c, s);
            break;
        }
        if (!*text) CHECK_OK(c, cm_net_of_list(c, s, &net));
        else {
            CHECK_FAILS(c, cm_net_of_list(c, s, &net), CALOMU_EUSAGE);
            CHECK(strstr(calomu_message(c), text), "list %d: '%s', expected '%s'", bad,
                  calomu_message(c), text);
        }
        CHECK(!net == (*text != 0), "list %d: a network if and only if it is right", bad);
        cm_net_free(c, net);
    }
    CHECK(bad == 30, "%d bad lists", bad);
    {
        cm_list *empty = cm_list_new(c, 1, 1, 1, 0, 0);
        CHECK_FAILS(c, cm_list_check(c, empty), CALOMU_EUSAGE);
        cm_list_free(c, empty);
    }
}

/* The paper's, too, passes the check; inputs of other shapes than the list's are refused. */
static void check_inputs(calomu *c)
{
    calomu_architecture a = calomu_architecture_default();
    cm_net *net = NULL;
    cm_graph *g;
    cm_hits h;
    int i;
    if (!CHECK_OK(c, cm_net_new(c, &a, &net))) return;
    CHECK_OK(c, cm_list_check(c, net->list));
    memset(&h, 0, sizeof h);
    for (i = 0; i < 6; i++) {
        cm_tensor *x, *y;
        h.muons = 16;
        h.nz = 50 + (i == 1);
        h.nx = 32 + (i == 2);
        h.ny = 32 + (i == 3);
        g = cm_graph_new(c, NULL, 0, 1, 0);
        x = cm_input(g, 16, 1, 1, 1, 28 - (i == 4), 0, 0, 0);
        y = cm_net_forward(g, net, i == 5 ? NULL : &h, x, NULL);
        CHECK(!y == (i > 0) && cm_graph_status(g) == (i > 0 ? CALOMU_EUSAGE : CALOMU_OK),
              "inputs %d: status %d", i, (int)cm_graph_status(g));
        cm_graph_free(g);
    }
    cm_net_free(c, net);
}

/* A model that another context has packed and measured, with and without fusion. */
static void check_model(void)
{
    enum { N = 17 };
    calomu_architecture a = calomu_architecture_default();
    double out[2][2][N];
    int by, from;
    a.geometry.nz = 9;
    a.geometry.nx = 7;
    a.geometry.ny = 8;
    a.blocks = 2;
    a.n_features = 0;
    for (from = 0; from < 2; from++)
        for (by = 0; by < 2; by++) {
            test_batch b = test_muons(&a.geometry, N, 0, 7);
            calomu_options o = { 0 };
            calomu *c[2];
            calomu_model *m = NULL;
            o.unfused = from;
            CHECK_OK(NULL, calomu_open(&c[0], &o));
            o.unfused = by;
            CHECK_OK(NULL, calomu_open(&c[1], &o));
            CHECK_OK(c[0], cm_model_finish(c[0], CALOMU_OK, test_model_new(c[0], &a, 1, 7), &m));
            CHECK_OK(c[1], calomu_predict(c[1], m, NULL, b.event, N, out[from][by], NULL));
            CHECK(memcmp(out[from][by], out[0][0], sizeof out[0][0]) == 0, "from %d, by %d", from,
                  by);
            CHECK_OK(c[1], calomu_predict(c[1], m, NULL, b.event, 2, out[from][by], NULL));
            CHECK(memcmp(out[from][by], out[0][0], 2 * sizeof(double)) == 0, "from %d, by %d: one"
                  " muon", from, by);
            calomu_model_free(m);
            calomu_close(c[0]);
            calomu_close(c[1]);
            test_muons_free(&b);
        }
}

int main(int argc, char **argv)
{
    uint64_t seed = test_seed_of(argc, argv, 20220117);
    test_random r = test_seed(seed);
    calomu *c = NULL;
    test_begin(argc, argv);
    printf("test_lists: seed %llu\n", (unsigned long long)seed);
    if (CHECK(calomu_open(&c, NULL) == CALOMU_OK, "no context")) {
        check_refusals(c);
        check_inputs(c);
        check_model();
        check_random(c, &r);
        calomu_close(c);
    }
    return test_end("test_lists");
}
