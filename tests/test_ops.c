/* test_ops.c - every operation of the engine against its equation

   References are naive loops in double over plain arrays [muon][channel][z][x][y], written from
   the equations of Sec. 3.1; their backward parts scatter what the forward parts gather.  Each
   operation is called twice on the same inputs with different outgoing gradients, so that
   gradients must add up, on top of weight gradients that are not zero at the start.

   usage: test_ops [TESTDATA [TMP [SEED]]] */
#include "test.h"

enum { CONV, SPARSE_CONV, SPARSE_SUM, LINEAR, POOL, NORM, SWISH, SIGMOID, MEAN, MAX, SCALE, ADD,
       CONCAT, JOIN, N_OPS };
static const char *const op_name[] = { "conv", "sparse conv", "sparse sum", "linear", "pool",
                                       "batchnorm", "swish", "sigmoid", "mean", "max", "scale",
                                       "add", "concat", "join" };

typedef struct grid {                /* [muon][channel][z][x][y] */
    int b, c, z, x, y;
    double *v;
} grid;

typedef struct job {
    int op, b, z, x, y, c;           /* shape of the first input */
    int out, kernel, stride, pad, halo;
    int in_halo;                     /* of the input, -1: as large as any operation wants */
    int direct;                      /* convolution by the direct sum */
    int bias, swish, training, needs;
    int first, n;                    /* pool: channels; concat: n channels of the second input */
    double scale, spread;            /* norm: standard deviation of the input */
    double batch, count;             /* norm: buffers before the call */
    int same;                        /* inputs 0 and 1 are one tensor, listed as input 1 */
    int mismatch;                    /* norm: buffers that give a negative variance */
    uint64_t seed;
} job;

typedef struct state {               /* inputs and what the reference makes of them */
    job j;
    int n_in;
    grid in[4], din[4], out, r[2];   /* r: outgoing gradients of the two calls */
    size_t n_w, n_bias;
    double *w, *bias, *dw, *dbias, *w0, *bias0;      /* w0, bias0: gradients at the start */
    double *before, *after;          /* norm: sums, squares, count, batch */
    calomu_event *event;
    calomu_hit *hit;
} state;

static const double tolerance = sizeof(cm_real) == 8 ? 1e-11 : 2e-5;
/* of a single convolution with random inputs, direct and by Winograd's method */
static const double conv_tolerance = sizeof(cm_real) == 8 ? 1e-14 : 1.5e-6;
static const double wino_tolerance = sizeof(cm_real) == 8 ? 2e-14 : 3e-6;

/* ---------------------------------------------------------------- plain arrays */

static void *need(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);
    if (!memory) {
        fprintf(stderr, "no memory for a test\n");
        exit(1);
    }
    return memory;
}

static size_t volume(const grid *g)
{
    return (size_t)g->b * (size_t)g->c * (size_t)g->z * (size_t)g->x * (size_t)g->y;
}

static grid make_grid(int b, int c, int z, int x, int y)
{
    grid g;
    g.b = b; g.c = c; g.z = z; g.x = x; g.y = y;
    g.v = need(volume(&g), sizeof(double));
    return g;
}

static double *at(const grid *g, int b, int c, int z, int x, int y)
{
    return g->v + ((((size_t)b * (size_t)g->c + (size_t)c) * (size_t)g->z + (size_t)z)
                   * (size_t)g->x + (size_t)x) * (size_t)g->y + (size_t)y;
}

/* Random numbers that are exact in cm_real, so that both sides start from the same values. */
static void fill(double *v, size_t n, double mean, double spread, test_random *r)
{
    size_t i;
    for (i = 0; i < n; i++) v[i] = (double)(cm_real)(mean + spread * test_normal(r));
}

static int out_size(int n, int kernel, int stride, int pad)
{
    int room = n + 2 * pad - kernel;
    return room < 0 ? 0 : room / stride + 1;
}

/* ---------------------------------------------------------------- references */

/* y[o](z,x,y) = bias[o] + sum over i, k of w[o][i][k] x[i](stride*(z,x,y) - pad + k); with dy the
   adjoint is scattered into dx, dw and dbias instead (dx may be NULL). */
static void ref_conv(const job *j, const grid *in, const double *w, const double *bias, grid *out,
                     const grid *dy, grid *dx, double *dw, double *dbias)
{
    int b, o, i, z, x, y, k, k3 = j->kernel * j->kernel * j->kernel;
    const grid *shape = dy ? dy : out;
    for (b = 0; b < shape->b; b++)
    for (o = 0; o < shape->c; o++)
    for (z = 0; z < shape->z; z++)
    for (x = 0; x < shape->x; x++)
    for (y = 0; y < shape->y; y++) {
        double sum = bias ? bias[o] : 0, d = dy ? *at(dy, b, o, z, x, y) : 0;
        for (i = 0; i < in->c; i++)
        for (k = 0; k < k3; k++) {
            int zz = z * j->stride - j->pad + k / (j->kernel * j->kernel);
            int xx = x * j->stride - j->pad + k / j->kernel % j->kernel;
            int yy = y * j->stride - j->pad + k % j->kernel;
            size_t q = ((size_t)o * (size_t)in->c + (size_t)i) * (size_t)k3 + (size_t)k;
            if (zz < 0 || xx < 0 || yy < 0 || zz >= in->z || xx >= in->x || yy >= in->y) continue;
            if (dy) {
                dw[q] += d * *at(in, b, i, zz, xx, yy);
                if (dx) *at(dx, b, i, zz, xx, yy) += d * w[q];
            } else {
                sum += w[q] * *at(in, b, i, zz, xx, yy);
            }
        }
        if (dy) {
            if (dbias) dbias[o] += d;
        } else {
            *at(out, b, o, z, x, y) = sum;
        }
    }
}

/* Sums over boxes [2z-1, 2z] x [2x-1, 2x] x [2y-1, 2y], times scale: cell (z, x, y) belongs to box
   ((z+1)/2, (x+1)/2, (y+1)/2) and to no other, so forward scatters and backward gathers. */
static void ref_pool(const grid *in, int first, double scale, grid *out, const grid *dy, grid *dx)
{
    const grid *shape = dy ? dy : out;
    int b, c, z, x, y;
    for (b = 0; b < in->b; b++)
    for (c = 0; c < shape->c; c++)
    for (z = 0; z < in->z; z++)
    for (x = 0; x < in->x; x++)
    for (y = 0; y < in->y; y++) {
        if (dy) {
            *at(dx, b, first + c, z, x, y) +=
                scale * *at(dy, b, c, (z + 1) / 2, (x + 1) / 2, (y + 1) / 2);
        } else {
            *at(out, b, c, (z + 1) / 2, (x + 1) / 2, (y + 1) / 2) +=
                scale * *at(in, b, first + c, z, x, y);
        }
    }
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Derivative of x*sigmoid(x). */
static double swish_slope(double x)
{
    double s = sigmoid(x);
    return s * (1 + x * (1 - s));
}

/* Spec 3, running batch norm, one channel.  buffer: sums, squares (nc each), count, batch. */
static void ref_norm(state *s, int c, grid *out, const grid *dy)
{
    const job *j = &s->j;
    const grid *in = &s->in[0];
    int b, z, x, y, clamped = 0;
    double sum = 0, square = 0, m, mean, var, r, count, batch, weight = s->w[c];
    double d_mean = 0, d_r = 0, d_var, d_sum, d_square;
    size_t nc = (size_t)j->c, k = (size_t)c;
    for (b = 0; b < in->b; b++)
    for (z = 0; z < in->z; z++)
    for (x = 0; x < in->x; x++)
    for (y = 0; y < in->y; y++) {
        double v = *at(in, b, c, z, x, y);
        sum += v;
        square += v * v;
    }
    m = 1 - 0.9 / sqrt(j->b - 1 + 1e-5);
    count = s->before[2 * nc];
    batch = s->before[2 * nc + 1];
    s->after[k] = s->before[k];
    s->after[nc + k] = s->before[nc + k];
    if (j->training) {
        s->after[k] += m * (sum - s->before[k]);
        s->after[nc + k] += m * (square - s->before[nc + k]);
        count += m * ((double)j->b * j->z * j->x * j->y - count);
        batch += j->b;
    }
    s->after[2 * nc] = count;
    s->after[2 * nc + 1] = batch;
    mean = s->after[k] / count;
    var = s->after[nc + k] / count - mean * mean;
    if (var < 0) var = 0, clamped = 1;
    if (batch < 20 && var < 0.01) var = 0.01, clamped = 1;
    r = 1 / sqrt(var + 1e-5);
    for (b = 0; b < in->b; b++)
    for (z = 0; z < in->z; z++)
    for (x = 0; x < in->x; x++)
    for (y = 0; y < in->y; y++) {
        double v = *at(in, b, c, z, x, y), u = weight * (v - mean) * r + s->bias[c], d;
        if (!dy) {
            *at(out, b, c, z, x, y) = j->swish ? u * sigmoid(u) : u;
            continue;
        }
        d = *at(dy, b, c, z, x, y) * (j->swish ? swish_slope(u) : 1);
        s->dw[c] += d * (v - mean) * r;
        s->dbias[c] += d;
        d_mean -= d * weight * r;
        d_r += d * weight * (v - mean);
        *at(&s->din[0], b, c, z, x, y) += d * weight * r;
    }
    if (!dy) return;
    /* r = (var + eps)^(-1/2); var = squares/count - mean^2; mean = sums/count; the present sums
       enter the buffers with the factor m */
    d_var = clamped ? 0 : -0.5 * d_r * r * r * r;
    d_sum = m * (d_mean - 2 * mean * d_var) / count;
    d_square = m * d_var / count;
    for (b = 0; b < in->b; b++)
    for (z = 0; z < in->z; z++)
    for (x = 0; x < in->x; x++)
    for (y = 0; y < in->y; y++)
        *at(&s->din[0], b, c, z, x, y) += d_sum + 2 * *at(in, b, c, z, x, y) * d_square;
}

/* Mean and maximum over the sites of each channel. */
static void ref_reduce(state *s, grid *out, const grid *dy)
{
    const grid *in = &s->in[0];
    int b, c, i, n = in->z * in->x * in->y, ties;
    for (b = 0; b < in->b; b++)
    for (c = 0; c < in->c; c++) {
        const double *v = at(in, b, c, 0, 0, 0);
        double sum = 0, top = v[0];
        for (i = 0, ties = 0; i < n; i++) {
            sum += v[i];
            if (v[i] > top) top = v[i], ties = 0;
            ties += v[i] == top;
        }
        if (!dy) *at(out, b, c, 0, 0, 0) = s->j.op == MEAN ? sum / n : top;
        for (i = 0; dy && i < n; i++) {
            double d = *at(dy, b, c, 0, 0, 0);
            if (s->j.op == MEAN) at(&s->din[0], b, c, 0, 0, 0)[i] += d / n;
            else if (v[i] == top) at(&s->din[0], b, c, 0, 0, 0)[i] += d / ties;
        }
    }
}

/* Operations without sums over sites: one output value each. */
static void ref_point(state *s, int b, int c, int z, int x, int y, grid *out, const grid *dy)
{
    const grid *a = &s->in[0], *e = &s->in[1];
    double d = dy ? *at(dy, b, c, z, x, y) : 0, v = 0, p, gate;
    switch (s->j.op) {
    case SWISH:
        v = *at(a, b, c, z, x, y);
        if (dy) *at(&s->din[0], b, c, z, x, y) += d * swish_slope(v);
        v *= sigmoid(v);
        break;
    case SIGMOID:
        v = sigmoid(*at(a, b, c, z, x, y));
        if (dy) *at(&s->din[0], b, c, z, x, y) += d * v * (1 - v);
        break;
    case SCALE:
        p = *at(a, b, c, z, x, y);
        gate = *at(e, b, c, 0, 0, 0);
        v = p * gate;
        if (dy) *at(&s->din[0], b, c, z, x, y) += d * gate;
        if (dy) *at(&s->din[1], b, c, 0, 0, 0) += d * p;
        break;
    case ADD:
        v = *at(a, b, c, z, x, y) + *at(e, b, c, z, x, y);
        if (dy) *at(&s->din[0], b, c, z, x, y) += d;
        if (dy) *at(&s->din[1], b, c, z, x, y) += d;
        break;
    case CONCAT:
        v = c < a->c ? *at(a, b, c, z, x, y) : *at(e, b, c - a->c, z, x, y);
        if (dy && c < a->c) *at(&s->din[0], b, c, z, x, y) += d;
        if (dy && c >= a->c) *at(&s->din[1], b, c - a->c, z, x, y) += d;
        break;
    default:                         /* JOIN: e, shortcut, path, gate */
        if (c == 0) {
            v = s->j.scale * *at(a, b, 0, z, x, y);
            if (dy) *at(&s->din[0], b, 0, z, x, y) += s->j.scale * d;
            break;
        }
        p = *at(&s->in[2], b, c - 1, z, x, y);
        gate = *at(&s->in[3], b, c - 1, 0, 0, 0);
        v = *at(e, b, c - 1, z, x, y) + gate * p;
        if (dy) *at(&s->din[1], b, c - 1, z, x, y) += d;
        if (dy) *at(&s->din[2], b, c - 1, z, x, y) += d * gate;
        if (dy) *at(&s->din[3], b, c - 1, 0, 0, 0) += d * p;
    }
    if (!dy) *at(out, b, c, z, x, y) = v;
}

/* Forward into s->out, or with dy backward into s->din, s->dw, s->dbias. */
static void reference(state *s, const grid *dy)
{
    const job *j = &s->j;
    const grid *o = &s->out;
    int b, c, z, x, y;
    switch (j->op) {
    case CONV: case SPARSE_CONV: case LINEAR:
        ref_conv(j, &s->in[0], s->w, s->n_bias ? s->bias : NULL, &s->out, dy,
                 j->op == SPARSE_CONV ? NULL : &s->din[0], s->dw, s->n_bias ? s->dbias : NULL);
        return;
    case POOL:
        ref_pool(&s->in[0], j->first, j->scale, &s->out, dy, &s->din[0]);
        return;
    case SPARSE_SUM:
        if (!dy) ref_pool(&s->in[0], 0, j->scale, &s->out, NULL, NULL);
        return;
    case NORM:
        for (c = 0; c < j->c; c++) ref_norm(s, c, &s->out, dy);
        return;
    case MEAN: case MAX:
        ref_reduce(s, &s->out, dy);
        return;
    default:
        for (b = 0; b < o->b; b++)
        for (c = 0; c < o->c; c++)
        for (z = 0; z < o->z; z++)
        for (x = 0; x < o->x; x++)
        for (y = 0; y < o->y; y++) ref_point(s, b, c, z, x, y, &s->out, dy);
    }
}

/* ---------------------------------------------------------------- making a job's inputs */

static void make_hits(state *s, test_random *r)
{
    const job *j = &s->j;
    int b, i, n = j->z * j->x * j->y;
    calomu_hit *h;
    s->event = need((size_t)j->b, sizeof *s->event);
    s->hit = h = need((size_t)j->b * (size_t)n, sizeof *s->hit);
    for (b = 0; b < j->b; b++) {
        int kind = test_int(r, 0, 5);        /* 0: no hits, 1: every cell, else about a third */
        s->event[b].hits = h;
        for (i = 0; i < n; i++) {
            if (kind == 0 || (kind > 1 && test_int(r, 0, 2))) continue;
            h->cell = (uint32_t)i;
            h->energy = (float)(test_unit(r) * test_unit(r) * 5);
            s->in[0].v[(size_t)b * (size_t)n + (size_t)i] = (double)h->energy;
            h++;
        }
        s->event[b].n_hits = (size_t)(h - s->event[b].hits);
    }
}

static void make_buffers(state *s, test_random *r)
{
    const job *j = &s->j;
    size_t c, nc = (size_t)j->c;
    s->before = need(2 * nc + 2, sizeof(double));
    s->after = need(2 * nc + 2, sizeof(double));
    for (c = 0; c < nc && j->count > 0; c++) {
        double mean = test_normal(r) * j->spread;
        double var = (0.2 + test_unit(r)) * j->spread * j->spread;
        if (j->mismatch) var = -0.5 * mean * mean;
        s->before[c] = (double)(cm_real)(mean * j->count);
        s->before[nc + c] = (double)(cm_real)((var + mean * mean) * j->count);
    }
    s->before[2 * nc] = (double)(cm_real)j->count;
    s->before[2 * nc + 1] = (double)(cm_real)j->batch;
}

/* Shapes of inputs and output; 0 if the job makes no sense (kernel larger than the grid). */
static int shape(state *s)
{
    const job *j = &s->j;
    int b = j->b, z = j->z, x = j->x, y = j->y, c = j->c;
    s->n_in = 1;
    s->in[0] = make_grid(b, c, z, x, y);
    switch (j->op) {
    case CONV: case SPARSE_CONV: case LINEAR:
        z = out_size(z, j->kernel, j->stride, j->pad);
        x = out_size(x, j->kernel, j->stride, j->pad);
        y = out_size(y, j->kernel, j->stride, j->pad);
        c = j->out;
        s->n_w = (size_t)j->out * (size_t)j->c * (size_t)(j->kernel * j->kernel * j->kernel);
        s->n_bias = j->bias ? (size_t)j->out : 0;
        break;
    case POOL: case SPARSE_SUM:
        z = z / 2 + 1; x = x / 2 + 1; y = y / 2 + 1;
        c = j->op == POOL ? j->n : 1;
        break;
    case NORM:
        s->n_w = s->n_bias = (size_t)c;
        break;
    case MEAN: case MAX:
        z = x = y = 1;
        break;
    case SCALE:
        s->in[s->n_in++] = make_grid(b, c, 1, 1, 1);
        break;
    case ADD:
        s->in[s->n_in++] = make_grid(b, c, z, x, y);
        break;
    case CONCAT:
        s->in[s->n_in++] = make_grid(b, j->n, z, x, y);
        c += j->n;
        break;
    case JOIN:
        s->in[s->n_in++] = make_grid(b, j->n, z, x, y);
        s->in[s->n_in++] = make_grid(b, j->n, z, x, y);
        s->in[s->n_in++] = make_grid(b, j->n, 1, 1, 1);
        c = j->n + 1;
        break;
    default:
        break;
    }
    if (z < 1 || x < 1 || y < 1) return 0;
    s->out = make_grid(b, c, z, x, y);
    return 1;
}

static int make_state(state *s, const job *j)
{
    test_random r = test_seed(j->seed);
    double mean = j->op == NORM ? 0.3 * j->spread : 0.1, spread = j->op == NORM ? j->spread : 1;
    size_t i;
    int k, good;
    memset(s, 0, sizeof *s);
    s->j = *j;
    good = shape(s);
    if (j->op == SPARSE_CONV || j->op == SPARSE_SUM) make_hits(s, &r);
    else for (k = 0; k < s->n_in; k++) fill(s->in[k].v, volume(&s->in[k]), mean, spread, &r);
    if (j->same) memcpy(s->in[1].v, s->in[0].v, volume(&s->in[0]) * sizeof(double));
    if (j->op == MAX)                /* a few values only: many ties */
        for (i = 0; i < volume(&s->in[0]); i++) s->in[0].v[i] = floor(s->in[0].v[i] * 1.5);
    s->w = need(s->n_w, sizeof(double));
    s->dw = need(s->n_w, sizeof(double));
    s->w0 = need(s->n_w, sizeof(double));
    s->bias = need(s->n_bias, sizeof(double));
    s->dbias = need(s->n_bias, sizeof(double));
    s->bias0 = need(s->n_bias, sizeof(double));
    fill(s->w, s->n_w, 0.1, 0.5, &r);
    fill(s->w0, s->n_w, 0, 1, &r);
    fill(s->bias, s->n_bias, 0, 1, &r);
    fill(s->bias0, s->n_bias, 0, 1, &r);
    if (j->op == NORM) make_buffers(s, &r);
    for (k = 0; k < s->n_in; k++)
        s->din[k] = make_grid(s->in[k].b, s->in[k].c, s->in[k].z, s->in[k].x, s->in[k].y);
    for (k = 0; good && k < 2; k++) {
        s->r[k] = make_grid(s->out.b, s->out.c, s->out.z, s->out.x, s->out.y);
        fill(s->r[k].v, volume(&s->r[k]), 0, 1, &r);
    }
    return good;
}

static void free_state(state *s)
{
    int k;
    for (k = 0; k < 4; k++) free(s->in[k].v), free(s->din[k].v);
    free(s->out.v); free(s->r[0].v); free(s->r[1].v);
    free(s->w); free(s->dw); free(s->w0); free(s->bias); free(s->dbias); free(s->bias0);
    free(s->before); free(s->after); free(s->event); free(s->hit);
}

/* ---------------------------------------------------------------- the engine's side */

typedef struct run {                 /* what the engine made of a job */
    calomu_status status;
    int null;                        /* the operation gave NULL */
    grid out[2], din[4];
    cm_real *w, *dw, *bias, *dbias, *buffer[2];
    cm_hits hits;                    /* the graph keeps a pointer until backward */
    uint64_t hash;
} run;

static size_t place(const cm_tensor *t, int b, int c, int z, int x, int y)
{
    ptrdiff_t site = z * (ptrdiff_t)t->row_z + x * (ptrdiff_t)t->row_x + y;
    return (size_t)((ptrdiff_t)((size_t)(b / CM_LANES) * t->group + t->origin)
                    + (site * t->nc + c) * CM_LANES + b % CM_LANES);
}

/* Copies the array into the values (which 0) or the gradient (1); dead lanes get junk in values,
   which is legal, and stay 0 in gradients. */
static void put(const cm_tensor *t, cm_real *to, const grid *from, int junk)
{
    int b, c, z, x, y;
    if (!to) return;
    for (b = 0; b < t->groups * CM_LANES; b++)
    for (c = 0; c < t->nc; c++)
    for (z = 0; z < t->nz; z++)
    for (x = 0; x < t->nx; x++)
    for (y = 0; y < t->ny; y++) {
        if (b < t->muons) to[place(t, b, c, z, x, y)] = (cm_real)*at(from, b, c, z, x, y);
        else if (junk) to[place(t, b, c, z, x, y)] = (cm_real)(37 - 3 * b + c + z - x + 2 * y);
    }
}

static uint64_t hash_real(uint64_t h, const double *v, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++) {
        cm_real x = (cm_real)v[i];
        h = cm_checksum(h, &x, sizeof x);
    }
    return h;
}

static grid take(const cm_tensor *t, const cm_real *from, run *u)
{
    grid g = make_grid(t->muons, t->nc, t->nz, t->nx, t->ny);
    int b, c, z, x, y;
    for (b = 0; b < t->muons; b++)
    for (c = 0; c < t->nc; c++)
    for (z = 0; z < t->nz; z++)
    for (x = 0; x < t->nx; x++)
    for (y = 0; y < t->ny; y++)
        *at(&g, b, c, z, x, y) = (double)from[place(t, b, c, z, x, y)];
    u->hash = hash_real(u->hash, g.v, volume(&g));
    return g;
}

/* Counts values of the halo that are not 0, and dead lanes that are not finite. */
static long dirty(const cm_tensor *t, const cm_real *v)
{
    int b, c, z, x, y;
    long bad = 0;
    for (b = 0; b < t->groups * CM_LANES; b++)
    for (c = 0; c < t->nc; c++)
    for (z = -t->lo; z < t->nz + t->hi; z++)
    for (x = -t->lo; x < t->nx + t->hi; x++)
    for (y = -t->lo; y < t->ny + t->hi; y++) {
        double value = (double)v[place(t, b, c, z, x, y)];
        int inside = z >= 0 && x >= 0 && y >= 0 && z < t->nz && x < t->nx && y < t->ny;
        if (inside ? !isfinite(value) : value != 0) bad++;
    }
    return bad;
}

static cm_weight view(const cm_real *x, cm_real *dx, size_t n)
{
    cm_weight w;
    w.x = n ? x : NULL;
    w.dx = n ? dx : NULL;
    return w;
}

static cm_tensor *call(cm_graph *g, const state *s, cm_tensor **in, run *u, int which)
{
    const job *j = &s->j;
    cm_weight w = view(u->w, u->dw, s->n_w), bias = view(u->bias, u->dbias, s->n_bias);
    cm_norm norm;
    u->hits.event = s->event;
    u->hits.muons = j->b; u->hits.nz = j->z; u->hits.nx = j->x; u->hits.ny = j->y;
    switch (j->op) {
    case CONV: return cm_conv(g, in[0], w, bias, j->out, j->kernel, j->stride, j->pad, j->halo);
    case SPARSE_CONV:
        return cm_sparse_conv(g, &u->hits, w, j->out, j->kernel, j->stride, j->pad, j->halo);
    case SPARSE_SUM: return cm_sparse_sum(g, &u->hits, j->scale, j->halo);
    case LINEAR: return cm_linear(g, in[0], w, bias, j->out);
    case POOL: return cm_pool(g, in[0], j->first, j->n, j->scale, j->halo);
    case NORM:
        norm.weight = w;
        norm.bias = bias;
        norm.sums = u->buffer[which];
        norm.squares = norm.sums + j->c;
        norm.count = norm.squares + j->c;
        norm.batch = norm.count + 1;
        return cm_batchnorm(g, in[0], norm, j->swish, j->halo, j->halo + (j->halo & 1));
    case SWISH: return cm_swish(g, in[0]);
    case SIGMOID: return cm_sigmoid(g, in[0]);
    case MEAN: return cm_mean(g, in[0]);
    case MAX: return cm_max(g, in[0]);
    case SCALE: return cm_scale(g, in[0], in[1]);
    case ADD: return cm_add(g, in[0], in[1]);
    case CONCAT: return cm_concat(g, in[0], in[1]);
    default: return cm_join(g, in[0], j->scale, in[1], in[2], in[3], j->halo);
    }
}

/* Both calls and the backward pass; on a dry graph it only counts. */
static void record(cm_graph *g, const state *s, run *u, int dry)
{
    const job *j = &s->j;
    cm_tensor *in[4] = { NULL, NULL, NULL, NULL }, *out[2];
    int k, sparse = j->op == SPARSE_CONV || j->op == SPARSE_SUM;
    for (k = 0; k < s->n_in && !sparse; k++) {       /* one tensor may be two inputs */
        const grid *v = &s->in[k];
        int halo = v->z * v->x * v->y == 1 && j->op != CONV ? 0 : 2;
        if (j->op == ADD || j->op == CONCAT || j->op == SIGMOID || j->op == POOL) halo = j->halo;
        if (j->in_halo >= 0) halo = j->in_halo;
        in[k] = cm_input(g, v->b, v->z, v->x, v->y, v->c, halo, halo, j->needs);
        if (!in[k]) return;
        if (!dry) put(in[k], in[k]->x, v, 1);
        if (k == 0 && j->same) in[++k] = in[0];
    }
    for (k = 0; k < 2; k++) {
        out[k] = call(g, s, in, u, k);
        u->null = !out[k];
        if (!out[k]) return;
    }
    for (k = 0; k < 2 && j->training && j->op != SPARSE_SUM; k++) {
        cm_real *d = cm_gradient(g, out[k]);
        if (!dry && d) put(out[k], d, &s->r[k], 0);
    }
    u->status = cm_graph_status(g);
    for (k = 0; k < 2 && !dry && u->status == CALOMU_OK; k++) {      /* backward frees results */
        CHECK(dirty(out[k], out[k]->x) == 0, "%s: %ld bad values in halo or dead lanes",
              op_name[j->op], dirty(out[k], out[k]->x));
        u->out[k] = take(out[k], out[k]->x, u);
    }
    if (j->training) cm_backward(g);
    u->status = cm_graph_status(g);
    if (dry || u->status != CALOMU_OK) return;
    for (k = j->same; k < s->n_in && !sparse && j->training; k++) {
        if (!j->needs) continue;
        if (j->op == JOIN && k == 0) {
            CHECK(!in[0]->dx, "join: a gradient of the energy sums");
            continue;
        }
        CHECK(in[k]->dx != NULL, "%s: no gradient of input %d", op_name[j->op], k);
        if (in[k]->dx) u->din[k] = take(in[k], in[k]->dx, u);
    }
}

static cm_real *narrow(const double *v, size_t n)
{
    cm_real *out = need(n, sizeof *out);
    size_t i;
    for (i = 0; i < n; i++) out[i] = (cm_real)v[i];
    return out;
}

static void load_run(run *u, const state *s)
{
    size_t n = s->before ? 2 * (size_t)s->j.c + 2 : 0;
    memset(u, 0, sizeof *u);
    u->w = narrow(s->w, s->n_w);
    u->dw = narrow(s->w0, s->n_w);
    u->bias = narrow(s->bias, s->n_bias);
    u->dbias = narrow(s->bias0, s->n_bias);
    u->buffer[0] = narrow(s->before, n);
    u->buffer[1] = narrow(s->before, n);
}

static void free_run(run *u)
{
    int k;
    for (k = 0; k < 4; k++) free(u->din[k].v);
    for (k = 0; k < 2; k++) free(u->out[k].v), free(u->buffer[k]);
    free(u->w); free(u->dw); free(u->bias); free(u->dbias);
}

/* Runs `go` on a dry graph, for the size of the arena, then in an arena of exactly this size, full
   of NaN before, with guard bytes behind it.  go returns 0 if nothing came of it. */
static calomu_status in_arena(calomu *c, const char *name, int threads, int training,
                              int (*go)(cm_graph *g, void *user, int dry), void *user)
{
    enum { GUARD = 256 };
    cm_graph *g = cm_graph_new(c, NULL, 0, threads, training);
    calomu_status status;
    size_t peak, i;
    char *memory, *arena;
    int result;
    if (!CHECK(g != NULL, "no dry graph: %s", calomu_message(c))) return CALOMU_EMEMORY;
    result = go(g, user, 1);
    status = cm_graph_status(g);
    peak = cm_graph_peak(g);
    cm_graph_free(g);
    if (!result || status != CALOMU_OK) return status;
    memory = need(peak + GUARD + 64, 1);
    arena = memory + (64 - (uintptr_t)memory % 64) % 64;
    memset(arena, 0xff, peak + GUARD);
    g = cm_graph_new(c, arena, peak, threads, training);
    if (CHECK(g != NULL, "no graph: %s", calomu_message(c))) {
        (void)go(g, user, 0);
        status = cm_graph_status(g);
        CHECK(status == CALOMU_OK, "%s: status %d: %s", name, (int)status, calomu_message(c));
        CHECK(cm_graph_peak(g) == peak, "dry peak %zu, real peak %zu", peak, cm_graph_peak(g));
        for (i = 0; i < GUARD && (unsigned char)arena[peak + i] == 0xff; i++) {}
        CHECK(i == GUARD, "%s: write %zu bytes behind the arena", name, i);
        cm_graph_free(g);
    }
    free(memory);
    return status;
}

static calomu *open_engine(calomu_isa isa, int direct)
{
    calomu_options o;
    calomu *c = NULL;
    memset(&o, 0, sizeof o);
    o.isa = isa;
    o.direct = direct;
    (void)calomu_open(&c, &o);
    return c;
}

typedef struct both {                /* of one job: the run, and one for the dry graph */
    const state *s;
    run *u, dry;
} both;

static int go_job(cm_graph *g, void *user, int dry)
{
    both *b = user;
    record(g, b->s, dry ? &b->dry : b->u, dry);
    b->u->null = dry ? b->dry.null : b->u->null;
    return !b->u->null;
}

static void engine(const state *s, run *u, int threads, calomu_isa isa, int training)
{
    calomu *c = open_engine(isa, s->j.direct);
    both b;
    load_run(u, s);
    u->null = 1;
    u->status = CALOMU_EMEMORY;
    if (!CHECK(c != NULL, "no context")) return;
    b.s = s;
    b.u = u;
    load_run(&b.dry, s);
    u->status = in_arena(c, op_name[s->j.op], threads, training, go_job, &b);
    u->hash = cm_checksum(u->hash, u->dw, s->n_w * sizeof(cm_real));
    u->hash = cm_checksum(u->hash, u->dbias, s->n_bias * sizeof(cm_real));
    if (s->before)
        u->hash = cm_checksum(u->hash, u->buffer[0], (2 * (size_t)s->j.c + 2) * sizeof(cm_real));
    free_run(&b.dry);
    calomu_close(c);
}

/* ---------------------------------------------------------------- one job */

static const char *describe(const job *j)
{
    static char text[256];
    (void)snprintf(text, sizeof text, "%s B%d %dx%dx%d c%d->%d k%d s%d p%d halo%d bias%d swish%d "
                   "training%d first%d n%d spread%g count%g batch%g in_halo%d direct%d",
                   op_name[j->op], j->b, j->z, j->x, j->y, j->c, j->out, j->kernel, j->stride,
                   j->pad, j->halo, j->bias, j->swish, j->training, j->first, j->n, j->spread,
                   j->count, j->batch, j->in_halo, j->direct);
    return text;
}

static int is_wino(const job *j)
{
    return j->op == CONV && !j->direct && !j->bias && j->kernel == 3 && j->stride == 1
        && j->pad == 1 && j->x >= 4;
}

static double tolerance_of(const job *j)
{
    return is_wino(j) ? wino_tolerance : j->op == CONV ? conv_tolerance : tolerance;
}

static void compare(const job *j, const char *what, const double *got, const double *expected,
                    size_t n, double tol)
{
    double d = test_distance(got, expected, n);
    CHECK(d <= tol, "%s of %s: relative distance %.3g > %.3g", what, describe(j), d, tol);
}

static void compare_real(const job *j, const char *what, const cm_real *got,
                         const double *expected, size_t n, double tol)
{
    double *wide = need(n, sizeof *wide);
    size_t i;
    for (i = 0; i < n; i++) wide[i] = (double)got[i];
    compare(j, what, wide, expected, n, tol);
    free(wide);
}

/* Every input that has a gradient, weight and bias: out = in + h*d; d is made from the seed. */
static void shift(const state *s, state *out, double h)
{
    test_random r = test_seed(s->j.seed + 1);
    int k, sparse = s->j.op == SPARSE_CONV;
    size_t i;
    for (k = 0; k < s->n_in && !sparse; k++)
        for (i = 0; i < volume(&s->in[k]); i++)
            out->in[k].v[i] = s->in[k].v[i] + h * test_normal(&r);
    for (i = 0; i < s->n_w; i++) out->w[i] = s->w[i] + h * test_normal(&r);
    for (i = 0; i < s->n_bias; i++) out->bias[i] = s->bias[i] + h * test_normal(&r);
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    size_t i;
    for (i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* The references themselves: their gradients against central differences of their values. */
static void check_reference(const state *s, const grid *d)
{
    test_random r = test_seed(s->j.seed + 1);
    double h = 1e-4 * (s->j.op == NORM && s->j.spread < 1 ? s->j.spread : 1);
    double slope = 0, expected = 0, norm = 0, g;
    size_t n = volume(&s->out), i;
    int k;
    state moved;
    for (k = -1; k <= 1; k += 2) {
        (void)make_state(&moved, &s->j);
        shift(s, &moved, k * h);
        reference(&moved, NULL);
        slope += k * dot(moved.out.v, d->v, n) / (2 * h);
        free_state(&moved);
    }
    for (k = 0; k < s->n_in && s->j.op != SPARSE_CONV; k++)
        for (i = 0; i < volume(&s->in[k]); i++) {
            g = s->din[k].v[i];
            expected += g * test_normal(&r);
            norm += g * g;
        }
    for (i = 0; i < s->n_w; i++) {
        g = s->dw[i] - s->w0[i];
        expected += g * test_normal(&r);
        norm += g * g;
    }
    for (i = 0; i < s->n_bias; i++) {
        g = s->dbias[i] - s->bias0[i];
        expected += g * test_normal(&r);
        norm += g * g;
    }
    CHECK(fabs(slope - expected) <= 1e-6 * sqrt(norm), "reference of %s: slope %.10g, differences "
          "%.10g", describe(&s->j), expected, slope);
}

static void check_gradients(state *s, const run *u)
{
    const job *j = &s->j;
    grid sum = make_grid(s->out.b, s->out.c, s->out.z, s->out.x, s->out.y);
    size_t i;
    int k;
    for (i = 0; i < volume(&sum); i++) sum.v[i] = s->r[0].v[i] + s->r[1].v[i];
    for (i = 0; i < s->n_w; i++) s->dw[i] = s->w0[i];
    for (i = 0; i < s->n_bias; i++) s->dbias[i] = s->bias0[i];
    reference(s, &sum);
    /* join gives e no gradient: no parameter is behind it */
    for (i = 0; i < volume(&s->din[0]) && j->same && j->op != JOIN; i++)
        s->din[1].v[i] += s->din[0].v[i];
    for (k = j->same; k < s->n_in; k++)
        if (u->din[k].v)
            compare(j, "input gradient", u->din[k].v, s->din[k].v, volume(&s->din[k]),
                    tolerance_of(j));
    compare_real(j, "weight gradient", u->dw, s->dw, s->n_w, tolerance_of(j));
    compare_real(j, "bias gradient", u->dbias, s->dbias, s->n_bias, tolerance_of(j));
    if (j->op != MAX && j->op != SPARSE_SUM && !j->same && !j->mismatch
        && volume(&s->out) < 5000)
        check_reference(s, &sum);
    free(sum.v);
}

/* The same bits for any number of threads and any instruction set; without gradients the same
   values. */
static void check_bits(const state *s, const run *u)
{
    static const int threads[] = { 2, 3, 7 };
    static const calomu_isa isa[] = { CALOMU_ISA_PLAIN, CALOMU_ISA_AVX2, CALOMU_ISA_AVX512 };
    calomu_options o;
    calomu *c = NULL;
    run v;
    size_t i, n = volume(&s->out) * sizeof(double);
    for (i = 0; i < 3; i++) {
        engine(s, &v, threads[i], CALOMU_ISA_BEST, s->j.training);
        CHECK(v.hash == u->hash, "%s: other bits with %d threads", describe(&s->j), threads[i]);
        free_run(&v);
    }
    for (i = 0; i < 3; i++) {
        memset(&o, 0, sizeof o);
        o.isa = isa[i];
        if (calomu_open(&c, &o) != CALOMU_OK) continue;      /* reported once, in main */
        calomu_close(c);
        engine(s, &v, 1, isa[i], s->j.training);
        CHECK(v.hash == u->hash, "%s: other bits with instruction set %d", describe(&s->j),
              (int)isa[i]);
        free_run(&v);
    }
    if (s->j.op == NORM || !s->j.training) return;
    {
        state copy = *s;
        copy.j.training = 0;
        engine(&copy, &v, 1, CALOMU_ISA_BEST, 0);
        CHECK(v.out[0].v && memcmp(v.out[0].v, u->out[0].v, n) == 0,
              "%s: other values without gradients", describe(&s->j));
        free_run(&v);
    }
}

static uint64_t all_hash;

static void do_job(const job *j, int bits)
{
    state s;
    run u;
    if (!make_state(&s, j)) {
        engine(&s, &u, 1, CALOMU_ISA_BEST, j->training);
        CHECK(u.null && u.status != CALOMU_OK, "%s: kernel beyond the grid was accepted",
              describe(j));
        free_run(&u);
        free_state(&s);
        return;
    }
    reference(&s, NULL);
    engine(&s, &u, 1, CALOMU_ISA_BEST, j->training);
    if (CHECK(!u.null && u.status == CALOMU_OK && u.out[0].v, "%s: status %d", describe(j),
              (int)u.status)) {
        const grid *o = &u.out[0];
        CHECK(o->b == s.out.b && o->c == s.out.c && o->z == s.out.z && o->x == s.out.x
              && o->y == s.out.y, "%s: shape %d %d %d %d %d", describe(j), o->b, o->c, o->z, o->x,
              o->y);
        if (volume(o) == volume(&s.out)) {
            compare(j, "result", o->v, s.out.v, volume(o), tolerance_of(j));
            CHECK(memcmp(o->v, u.out[1].v, volume(o) * sizeof(double)) == 0,
                  "%s: the second call differs", describe(j));
        }
        if (s.before)
            compare_real(j, "buffers", u.buffer[0], s.after, 2 * (size_t)j->c + 2, tolerance);
        if (j->training) check_gradients(&s, &u);
        if (bits) check_bits(&s, &u);
        all_hash = cm_checksum(all_hash, &u.hash, sizeof u.hash);
    }
    free_run(&u);
    free_state(&s);
}

/* ---------------------------------------------------------------- chains

   Convolution, batch norm with Swish, convolution: sums of the norm are made by the first
   convolution, and the first pass of its backward step in the second, if nobody else reads the
   norm's result.  Against the references in a row; and the same bits where they are not fused. */

enum { ALONE, DEAD_READER, TWO_READERS, SEEDED, UNREACHED, N_READERS };
static const char *const reader_name[] = { "alone", "with a reader without gradient",
                                           "with two readers", "with a gradient of its own",
                                           "without a reader that has a gradient" };

typedef struct chain {
    state a, n, b;                   /* their inputs and references */
    run ua, un, ub, wa, wn, wb;      /* u: real, w: for the dry graph */
    int readers;
    grid dx;                         /* gradient of the chain's input */
    uint64_t hash;
} chain;

static cm_tensor *chain_conv(cm_graph *g, const state *s, cm_tensor *x, run *u)
{
    return call(g, s, &x, u, 0);
}

static int go_chain(cm_graph *g, void *user, int dry)
{
    chain *c = user;
    run *ua = dry ? &c->wa : &c->ua, *un = dry ? &c->wn : &c->un, *ub = dry ? &c->wb : &c->ub;
    const grid *in = &c->a.in[0];
    cm_tensor *x = cm_input(g, in->b, in->z, in->x, in->y, in->c, 2, 2, 1), *t, *y, *z, *w = NULL;
    cm_real *d;
    if (!x) return 0;
    if (!dry) put(x, x->x, in, 1);
    t = chain_conv(g, &c->a, x, ua);
    y = call(g, &c->n, &t, un, 0);
    z = chain_conv(g, &c->b, y, ub);
    if (c->readers == DEAD_READER && !cm_swish(g, y)) return 0;
    if (c->readers == TWO_READERS) w = chain_conv(g, &c->b, y, ub);
    if (!z || (c->readers == TWO_READERS && !w)) return 0;
    d = c->readers == UNREACHED ? NULL : cm_gradient(g, z);
    if (d && !dry) put(z, d, &c->b.r[0], 0);
    d = w ? cm_gradient(g, w) : NULL;
    if (d && !dry) put(w, d, &c->b.r[1], 0);
    d = c->readers == SEEDED || c->readers == UNREACHED ? cm_gradient(g, y) : NULL;
    if (d && !dry) put(y, d, &c->n.r[0], 0);
    if (!dry) c->ub.out[0] = take(z, z->x, ub);
    cm_backward(g);
    if (dry || cm_graph_status(g) != CALOMU_OK || !x->dx) return 1;
    c->dx = take(x, x->dx, ua);
    return 1;
}

static void chain_load(chain *c, int readers)
{
    c->readers = readers;
    c->dx.v = NULL;
    load_run(&c->ua, &c->a);
    load_run(&c->un, &c->n);
    load_run(&c->ub, &c->b);
    load_run(&c->wa, &c->a);
    load_run(&c->wn, &c->n);
    load_run(&c->wb, &c->b);
}

static void chain_unload(chain *c)
{
    run *all[6];
    int i;
    all[0] = &c->ua; all[1] = &c->un; all[2] = &c->ub;
    all[3] = &c->wa; all[4] = &c->wn; all[5] = &c->wb;
    for (i = 0; i < 6; i++) free_run(all[i]);
    free(c->dx.v);
}

static void chain_engine(chain *c, int threads, calomu_isa isa)
{
    calomu *own = open_engine(isa, c->a.j.direct);
    uint64_t h;
    if (!CHECK(own != NULL, "no context")) return;
    (void)in_arena(own, "chain", threads, 1, go_chain, c);
    calomu_close(own);
    h = cm_checksum(c->ua.hash, &c->ub.hash, sizeof c->ub.hash);
    h = cm_checksum(h, c->ua.dw, c->a.n_w * sizeof(cm_real));
    h = cm_checksum(h, c->un.dw, c->n.n_w * sizeof(cm_real));
    h = cm_checksum(h, c->un.dbias, c->n.n_bias * sizeof(cm_real));
    h = cm_checksum(h, c->ub.dw, c->b.n_w * sizeof(cm_real));
    c->hash = h;
}

/* Gradients of all three by the references; the inputs of n and b are the results before. */
static void chain_reference(chain *c)
{
    grid dy = make_grid(c->b.out.b, c->b.out.c, c->b.out.z, c->b.out.x, c->b.out.y);
    size_t i;
    for (i = 0; i < volume(&dy); i++) {
        dy.v[i] = c->readers == UNREACHED ? 0 : c->b.r[0].v[i];
        if (c->readers == TWO_READERS) dy.v[i] += c->b.r[1].v[i];
    }
    memcpy(c->a.dw, c->a.w0, c->a.n_w * sizeof(double));
    memcpy(c->b.dw, c->b.w0, c->b.n_w * sizeof(double));
    memcpy(c->n.dw, c->n.w0, c->n.n_w * sizeof(double));
    memcpy(c->n.dbias, c->n.bias0, c->n.n_bias * sizeof(double));
    memset(c->a.din[0].v, 0, volume(&c->a.din[0]) * sizeof(double));
    memset(c->n.din[0].v, 0, volume(&c->n.din[0]) * sizeof(double));
    memset(c->b.din[0].v, 0, volume(&c->b.din[0]) * sizeof(double));
    reference(&c->b, &dy);
    for (i = 0; i < volume(&c->b.din[0]) && (c->readers == SEEDED || c->readers == UNREACHED); i++)
        c->b.din[0].v[i] += c->n.r[0].v[i];
    reference(&c->n, &c->b.din[0]);
    reference(&c->a, &c->n.din[0]);
    free(dy.v);
}

static void chain_compare(chain *c, const job *j)
{
    static const char *const what[] = { "first convolution", "norm", "second convolution" };
    state *s[3];
    run *u[3];
    int i;
    s[0] = &c->a; s[1] = &c->n; s[2] = &c->b;
    u[0] = &c->ua; u[1] = &c->un; u[2] = &c->ub;
    if (!CHECK(c->dx.v && c->ub.out[0].v, "a chain without results")) return;
    compare(j, "result of a chain", c->ub.out[0].v, c->b.out.v, volume(&c->b.out), tolerance);
    compare(j, reader_name[c->readers], c->dx.v, c->a.din[0].v, volume(&c->dx), tolerance);
    for (i = 0; i < 3; i++)
        compare_real(j, what[i], u[i]->dw, s[i]->dw, s[i]->n_w, tolerance);
    compare_real(j, "bias of the norm", c->un.dbias, c->n.dbias, c->n.n_bias, tolerance);
}

static void chain_bits(chain *c)
{
    static const int threads[] = { 1, 3 };
    uint64_t hash = c->hash;
    int isa, i;
    for (isa = CALOMU_ISA_PLAIN; isa <= CALOMU_ISA_AVX512; isa++)
        for (i = 0; i < 2; i++) {
            calomu *own = open_engine((calomu_isa)isa, 0);
            if (!own) continue;      /* reported once, in main */
            calomu_close(own);
            chain_unload(c);
            chain_load(c, c->readers);
            chain_engine(c, threads[i], (calomu_isa)isa);
            CHECK(c->hash == hash, "chain: other bits with %d threads, instruction set %d",
                  threads[i], isa);
        }
}

static void do_chain(const job *a, const job *n, const job *b, int bits)
{
    chain c;
    uint64_t alone = 0;
    int readers;
    memset(&c, 0, sizeof c);
    if (!CHECK(make_state(&c.a, a) && make_state(&c.n, n) && make_state(&c.b, b), "no chain"))
        return;
    reference(&c.a, NULL);
    memcpy(c.n.in[0].v, c.a.out.v, volume(&c.a.out) * sizeof(double));
    reference(&c.n, NULL);
    memcpy(c.b.in[0].v, c.n.out.v, volume(&c.n.out) * sizeof(double));
    reference(&c.b, NULL);
    for (readers = 0; readers < N_READERS; readers++) {
        chain_load(&c, readers);
        chain_engine(&c, 1, CALOMU_ISA_BEST);
        chain_reference(&c);
        chain_compare(&c, b);
        if (readers == ALONE) alone = c.hash;
        if (readers == DEAD_READER)
            CHECK(c.hash == alone, "%s: fused and not fused differ", describe(b));
        if (bits) chain_bits(&c);
        chain_unload(&c);
    }
    free_state(&c.a);
    free_state(&c.n);
    free_state(&c.b);
}

/* ---------------------------------------------------------------- gradients not yet added

   Where a gradient is made by its reader instead of being written, nothing may change: the result
   of a convolution read by a batch norm (whose own result another may read), a Swish, a pooling, a
   mean and a join with the mean for its gate (whose own result a batch norm may read, or a batch norm and,
   as the shortcut beside it, another join), or by a batch norm (of it or of Swish of it) that a
   join and mean or a pooling make by rows, in many orders, against a context with `unfused`, which
   writes all values and gradients. */

enum { LATE_NORM, LATE_SWISH, LATE_JOIN, LATE_JOIN_NORM, LATE_JOIN_JOIN, LATE_NORM_NORM, LATE_POOL,
       LATE_ROWS_JOIN, LATE_ROWS_POOL, LATE_ROWS_PART, LATE_SWISH_ROWS_JOIN, LATE_SWISH_ROWS_POOL,
       LATE_MEAN, LATE_READERS, LATE_MOST = 4, LATE_C = 5, LATE_W = LATE_C * LATE_C, LATE_N = LATE_C + 1 };

typedef struct late {
    int order[LATE_MOST], n;         /* the readers */
    cm_real w[2 * LATE_W], dw[2 * LATE_W], norm[2 * LATE_N], dnorm[2 * LATE_N];
    cm_real buffer[2 * LATE_N + 2];
    uint64_t hash;
} late;

static cm_tensor *late_join(cm_graph *g, late *l, cm_tensor *x, cm_tensor *c, cm_tensor *e)
{
    cm_weight w, none = { NULL, NULL };
    if (!c) return NULL;
    w.x = l->w + LATE_W; w.dx = l->dw + LATE_W;
    return cm_join(g, e, 1, cm_conv(g, x, w, none, LATE_C, 1, 1, 0, 0), c,
                   cm_sigmoid(g, cm_mean(g, c)), 0);
}

static cm_tensor *late_block(cm_graph *g, cm_norm n, cm_tensor *y, cm_tensor *e)
{
    cm_tensor *path = cm_batchnorm(g, y, n, 1, 0, 0);
    return cm_join(g, e, 1, y, path, cm_sigmoid(g, cm_mean(g, path)), 0);
}

static cm_tensor *late_reader(cm_graph *g, late *l, int kind, cm_norm n, cm_tensor *x,
                              cm_tensor *c, cm_tensor *e)
{
    switch (kind) {
    case LATE_NORM: return cm_batchnorm(g, c, n, 1, 0, 0);
    case LATE_SWISH: return cm_swish(g, c);
    case LATE_JOIN: return late_join(g, l, x, c, e);
    case LATE_JOIN_NORM: return cm_batchnorm(g, late_join(g, l, x, c, e), n, 1, 0, 0);
    case LATE_JOIN_JOIN: return late_block(g, n, late_join(g, l, x, c, e), e);
    case LATE_NORM_NORM: return cm_batchnorm(g, cm_batchnorm(g, c, n, 0, 0, 0), n, 1, 0, 0);
    case LATE_POOL: return cm_pool(g, c, 0, LATE_C, 0.125, 0);
    case LATE_MEAN: return cm_mean(g, c);
    case LATE_ROWS_JOIN: return late_join(g, l, x, cm_batchnorm_by_rows(g, c, n, 0, 0), e);
    case LATE_ROWS_POOL:
        return cm_pool(g, cm_batchnorm_by_rows(g, c, n, 0, 1), 0, LATE_C, 0.125, 0);
    case LATE_ROWS_PART:
        return cm_pool(g, cm_batchnorm_by_rows(g, c, n, 0, 1), 1, LATE_C - 1, 2, 0);
    case LATE_SWISH_ROWS_JOIN:
        return late_join(g, l, x, cm_batchnorm_by_rows(g, c, n, CM_SWISH_BEFORE, 0), e);
    default:
        return cm_pool(g, cm_batchnorm_by_rows(g, c, n, CM_SWISH_BEFORE, 1), 0, LATE_C, 0.125, 0);
    }
}

static int go_late(cm_graph *g, void *user, int dry)
{
    late *l = user;
    cm_weight w, none = { NULL, NULL };
    cm_norm n;
    cm_tensor *x = cm_input(g, 40, 3, 4, 5, LATE_C, 0, 0, 1), *e, *c, *y[LATE_MOST];
    test_random r = test_seed(7);
    size_t i;
    int k;
    w.x = l->w; w.dx = l->dw;
    n.weight.x = l->norm; n.weight.dx = l->dnorm;
    n.bias.x = l->norm + LATE_N; n.bias.dx = l->dnorm + LATE_N;
    n.sums = l->buffer; n.squares = l->buffer + LATE_N;
    n.count = l->buffer + 2 * LATE_N; n.batch = n.count + 1;
    if (!x) return 0;
    for (i = 0; !dry && i < x->group * 3; i++) x->x[i] = (cm_real)test_uniform(&r, -1, 1);
    e = cm_input(g, 40, 3, 4, 5, 1, 0, 0, 0);
    c = cm_conv(g, x, w, none, LATE_C, 1, 1, 0, 1);
    for (k = 0; k < l->n; k++) {
        y[k] = late_reader(g, l, l->order[k], n, x, c, e);
        if (!y[k]) return 0;
    }
    for (k = 0; k < l->n; k++) {
        cm_real *d = cm_gradient(g, y[k]);
        for (i = 0; d && !dry && i < y[k]->group * 3; i++)
            if (i / y[k]->group < 2 || i % CM_LANES < 8) d[i] = (cm_real)test_uniform(&r, -1, 1);
    }
    for (k = 0; k < l->n && !dry; k++)
        l->hash = cm_checksum(l->hash, y[k]->x, y[k]->group * 2 * sizeof(cm_real));
    cm_backward(g);
    if (dry || cm_graph_status(g) != CALOMU_OK || !x->dx) return 1;
    l->hash = cm_checksum(cm_checksum(l->hash, x->dx, x->group * 2 * sizeof(cm_real)), l->dw,
                          sizeof l->dw);
    l->hash = cm_checksum(l->hash, l->dnorm, sizeof l->dnorm);
    return 1;
}

static uint64_t late_run(late *l, int threads, int unfused)
{
    calomu_options o = { 0 };
    calomu *c = NULL;
    test_random r = test_seed(8);
    int i;
    o.unfused = unfused;
    if (!CHECK(calomu_open(&c, &o) == CALOMU_OK, "no context")) return 0;
    for (i = 0; i < 2 * LATE_W; i++) l->w[i] = (cm_real)test_uniform(&r, -1, 1);
    for (i = 0; i < 2 * LATE_N; i++) l->norm[i] = (cm_real)test_uniform(&r, 0.5, 1.5);
    memset(l->dw, 0, sizeof l->dw);
    memset(l->dnorm, 0, sizeof l->dnorm);
    memset(l->buffer, 0, sizeof l->buffer);
    l->hash = 0;
    (void)in_arena(c, "late gradients", threads, 1, go_late, l);
    calomu_close(c);
    return l->hash;
}

static void late_gradients(void)
{
    static const int threads[] = { 1, 3, 7 };        /* groups for all of them, and not */
    late l;
    int code, i, k;                  /* every fifth: all pairs come first, 5 does not divide 13 */
    for (code = 0; code < LATE_READERS * LATE_READERS * (LATE_READERS + 1); code += 5) {
        test_random r = test_seed((uint64_t)code);
        uint64_t written;
        l.n = code < LATE_READERS ? 1 : code < LATE_READERS * LATE_READERS ? 2 : 3 + code % 2;
        for (k = 0; k < l.n; k++)
            l.order[k] = k == 0 ? code % LATE_READERS
                       : k == 1 ? code / LATE_READERS % LATE_READERS
                       : test_int(&r, 0, LATE_READERS - 1);
        written = late_run(&l, 1, 1);
        CHECK(written != 0, "late gradients %d: no result", code);
        for (i = 0; i < 3; i++)
            CHECK(late_run(&l, threads[i], 0) == written,
                  "late gradients %d with %d threads: other bits than written ones", code,
                  threads[i]);
    }
}

/* ---------------------------------------------------------------- sweeps */

static const int muons[] = { 1, 2, 15, 16, 17, 33 };
static const int sizes[][3] = { { 1, 1, 1 }, { 1, 2, 3 }, { 5, 4, 7 }, { 2, 2, 2 }, { 3, 6, 5 },
                                { 7, 1, 4 }, { 4, 3, 2 } };
static const int kernels[][3] = { { 1, 1, 0 }, { 1, 2, 0 }, { 3, 1, 1 }, { 3, 1, 0 }, { 3, 2, 1 },
                                  { 3, 2, 0 }, { 4, 2, 2 }, { 4, 2, 1 }, { 4, 2, 0 }, { 4, 1, 2 },
                                  { 4, 1, 1 }, { 4, 1, 0 }, { 3, 1, 2 } };

static job base_job(int op, test_random *r)
{
    job j;
    memset(&j, 0, sizeof j);
    j.op = op;
    j.b = 3;
    j.z = j.x = j.y = j.c = j.out = j.kernel = j.stride = j.n = 1;
    j.scale = 1;
    j.spread = 1;
    j.training = 1;
    j.needs = 1;
    j.in_halo = -1;
    j.seed = test_bits(r);
    return j;
}

static job random_job(int op, test_random *r)
{
    job j = base_job(op, r);
    const int *size = sizes[test_int(r, 0, 6)], *kernel = kernels[test_int(r, 0, 12)];
    j.b = muons[test_int(r, 0, 5)];
    j.z = size[0]; j.x = size[1]; j.y = size[2];
    j.c = test_int(r, 1, 13);
    j.out = test_int(r, 1, 13);
    j.halo = test_int(r, 0, 2);
    j.needs = test_int(r, 0, 5) > 0;
    if (op == SPARSE_CONV || op == SPARSE_SUM) j.c = 1;
    if (op == CONV || op == SPARSE_CONV) {
        j.kernel = kernel[0]; j.stride = kernel[1]; j.pad = kernel[2];
    }
    if (op == LINEAR || op == SIGMOID) j.z = j.x = j.y = 1;
    if (op == LINEAR || op == SIGMOID) j.halo = 0;
    j.bias = op == CONV || op == LINEAR ? test_int(r, 0, 1) : 0;
    j.first = op == POOL ? test_int(r, 0, j.c - 1) : 0;
    j.n = op == POOL ? test_int(r, 1, j.c - j.first) : test_int(r, 1, 13);
    j.scale = op == POOL || op == SPARSE_SUM ? test_int(r, 0, 1) ? 0.125 : 1
            : op == JOIN && test_int(r, 0, 1) ? 8 : 1;
    j.same = (op == ADD || op == CONCAT || op == JOIN) && test_int(r, 0, 2) == 0;
    if (j.same) j.n = j.c;
    if (op == NORM) {
        static const double spreads[] = { 1, 0.02, 30 }, batches[] = { 0, 10, 17, 18, 500 };
        j.b = muons[test_int(r, 1, 5)];
        j.swish = test_int(r, 0, 1);
        j.spread = spreads[test_int(r, 0, 2)];
        j.batch = batches[test_int(r, 0, 4)];
        if (j.b * j.z * j.x * j.y < 8) j.batch = 500;        /* two values alone leave no slope */
        j.count = j.batch > 0 ? j.batch * j.z * j.x * j.y : 0;
        j.training = test_int(r, 0, 4) > 0 || j.count == 0;
        if (!j.training && test_int(r, 0, 1)) j.b = 1;
        j.mismatch = j.count > 0 && test_int(r, 0, 7) == 0;
    }
    return j;
}

/* Shapes of the real network and other sizes that a tile of a fast kernel may stumble over. */
static void large_jobs(test_random *r)
{
    static const int conv[][9] = {   /* B z x y in out kernel stride pad */
        { 2, 26, 17, 17, 10, 10, 3, 1, 1 }, { 17, 5, 3, 3, 48, 48, 3, 1, 1 },
        { 2, 14, 9, 9, 17, 28, 4, 2, 2 }, { 3, 8, 5, 5, 31, 46, 1, 1, 0 },
        { 33, 3, 3, 3, 19, 21, 3, 1, 1 }, { 2, 9, 8, 10, 12, 18, 4, 2, 2 },
        { 2, 3, 3, 21, 16, 32, 3, 1, 1 }, { 2, 2, 2, 3, 64, 65, 3, 1, 1 }
    };
    static const int linear[][3] = { { 17, 126, 80 }, { 33, 80, 80 }, { 15, 80, 1 }, { 2, 1, 8 } };
    size_t i;
    job j;
    for (i = test.brief ? 3 : 0; i < sizeof conv / sizeof *conv; i++) {
        const int *v = conv[i];
        j = base_job(CONV, r);
        j.b = v[0]; j.z = v[1]; j.x = v[2]; j.y = v[3]; j.c = v[4]; j.out = v[5];
        j.kernel = v[6]; j.stride = v[7]; j.pad = v[8];
        j.halo = 1;
        do_job(&j, i == 4);
    }
    for (i = 0; i < sizeof linear / sizeof *linear; i++) {
        j = base_job(LINEAR, r);
        j.b = linear[i][0]; j.c = linear[i][1]; j.out = linear[i][2];
        j.bias = 1;
        do_job(&j, 1);
    }
    j = base_job(SPARSE_CONV, r);
    j.b = 2; j.z = 50; j.x = 32; j.y = 32;
    j.out = 8; j.kernel = 4; j.stride = 2; j.pad = 2;
    do_job(&j, 0);
    j = base_job(SPARSE_CONV, r);    /* the first block on a smaller grid, odd sizes */
    j.b = 17; j.z = 13; j.x = 9; j.y = 8;
    j.out = 8; j.kernel = 4; j.stride = 2; j.pad = 2; j.halo = 1;
    do_job(&j, 1);
    for (i = MEAN; i <= MAX; i++) {
        j = base_job((int)i, r);
        j.b = 17; j.z = 5; j.x = 3; j.y = 3; j.c = 49;
        do_job(&j, 1);
    }
}

/* Winograd's method (kernel 3, stride 1, padding 1) with rows enough, and just too few; with tiles
   of both sizes, alone and together, full and not; on channel counts that no tile divides, and the
   direct sums of the same. */
static void wino_jobs(test_random *r)
{
    static const int rows[] = { 3, 4, 17, 8, 11, 12, 13, 26, 5, 6, 9 };
    static const int side[] = { 1, 2, 3, 5, 17 }, batch[] = { 1, 2, 16, 17, 40 };
    double many;
    int i, winograd = 0;
    for (i = 0; i < (test.brief ? 11 : 22); i++) {
        job j = base_job(CONV, r);
        j.b = batch[test_int(r, 0, 4)];
        j.z = side[test_int(r, 0, 4)];
        j.x = rows[i % 11];
        j.y = side[test_int(r, 0, 4)];
        j.c = test_int(r, 1, 49);
        j.out = test_int(r, 1, 49);
        for (many = 4e4 / (j.b * j.z * j.x * j.y); j.c * j.out > many && j.c * j.out > 2;)
            if (j.c > j.out) j.c = (j.c + 1) / 2;
            else j.out = (j.out + 1) / 2;
        j.kernel = 3; j.stride = 1; j.pad = 1;
        j.halo = test_int(r, 0, 2);
        j.in_halo = test_int(r, 0, 2);
        j.needs = test_int(r, 0, 5) > 0;
        if (!is_wino(&j)) j.in_halo = 1;
        winograd += is_wino(&j);
        do_job(&j, i % 4 == 0);
        j.direct = 1;
        j.in_halo = 1;
        do_job(&j, i % 8 == 0);
    }
    CHECK(winograd > 6, "%d convolutions by Winograd's method", winograd);
}

/* Both convolutions direct or by Winograd's method; a halo that nothing needs must not matter. */
static void chain_jobs(test_random *r)
{
    static const int shape[][7] = {  /* B z x y; kernel, stride, pad of the second */
        { 5, 3, 4, 5, 3, 1, 1 }, { 17, 3, 2, 3, 3, 1, 1 }, { 3, 5, 7, 2, 4, 2, 2 },
        { 33, 2, 3, 2, 3, 1, 1 }, { 4, 3, 4, 4, 1, 1, 0 }, { 9, 1, 8, 6, 3, 1, 1 }
    };
    int i;
    for (i = 0; i < (test.brief ? 6 : 12); i++) {
        const int *v = shape[i % 6];
        job a = base_job(CONV, r), n, b;
        a.b = v[0]; a.z = v[1]; a.x = v[2]; a.y = v[3];
        a.c = test_int(r, 1, 7);
        a.out = test_int(r, 1, 14);
        a.kernel = 3; a.pad = 1;
        a.halo = test_int(r, 0, 2);
        a.direct = i % 3 == 2;
        n = a;
        n.op = NORM;
        n.c = a.out;
        n.halo = 2;
        n.swish = i % 2;
        n.batch = i % 4 == 3 ? 500 : 0;
        n.count = n.batch * n.z * n.x * n.y;
        n.seed = test_bits(r);
        b = a;
        b.c = a.out;
        b.out = test_int(r, 1, 14);
        b.kernel = v[4]; b.stride = v[5]; b.pad = v[6];
        b.halo = test_int(r, 0, 2);
        b.seed = test_bits(r);
        do_chain(&a, &n, &b, i < 6);
    }
}

/* Where an operation must refuse. */
static void refusals(calomu *c)
{
    static cm_real arena[1 << 16], buffer[8];
    cm_graph *g;
    cm_tensor *t;
    cm_norm n;
    size_t i;
    char *start = (char *)arena + (64 - (uintptr_t)arena % 64) % 64;
    cm_real one = 1, zero = 0;
    memset(&n, 0, sizeof n);
    n.weight.x = &one; n.bias.x = &zero;
    n.sums = buffer; n.squares = buffer + 1; n.count = buffer + 2; n.batch = buffer + 3;
    g = cm_graph_new(c, start, sizeof arena - 64, 1, 0);
    if (!CHECK(g != NULL, "no graph")) return;
    t = cm_input(g, 2, 2, 2, 2, 1, 1, 1, 0);
    CHECK(cm_batchnorm(g, t, n, 0, 0, 0) == NULL && cm_graph_status(g) != CALOMU_OK,
          "inference before any training step went through");
    cm_graph_reset(g);
    CHECK(cm_graph_status(g) == CALOMU_OK, "a reset does not forget a failure");
    CHECK(cm_swish(g, NULL) == NULL, "an operation on nothing gave something");
    cm_graph_reset(g);
    for (i = 0; i < 1000; i++)
        if (!cm_input(g, 16, 3, 3, 3, 3, 0, 0, 0)) break;
    CHECK(i > 0 && i < 1000 && cm_graph_status(g) == CALOMU_EMEMORY,
          "a full arena: %zu tensors, status %d", i, (int)cm_graph_status(g));
    CHECK(cm_graph_peak(g) <= sizeof arena - 64, "peak %zu beyond the arena", cm_graph_peak(g));
    cm_graph_free(g);
    g = cm_graph_new(c, start, sizeof arena - 64, 1, 1);
    if (!CHECK(g != NULL, "no graph")) return;
    t = cm_input(g, 1, 2, 2, 2, 1, 1, 1, 0);
    CHECK(cm_batchnorm(g, t, n, 0, 0, 0) == NULL && cm_graph_status(g) != CALOMU_OK,
          "training with one muon went through");
    cm_graph_free(g);
}

int main(int argc, char **argv)
{
    static const char *const isa_name[] = { "", "plain", "AVX2", "AVX-512" };
    static const int runs[] = { 70, 50, 12, 30, 30, 70, 12, 10, 12, 20, 15, 12, 15, 20 };
    uint64_t seed = test_seed_of(argc, argv, 20220079);
    test_random r = test_seed(seed);
    calomu_options o;
    calomu *c = NULL;
    int i, op;
    test_begin(argc, argv);
    memset(&o, 0, sizeof o);
    for (i = 1; i <= 3; i++) {
        o.isa = (calomu_isa)i;
        if (calomu_open(&c, &o) != CALOMU_OK) SKIP("this machine has no %s", isa_name[i]);
        else calomu_close(c);
    }
    for (op = 0; op < N_OPS; op++)
        for (i = 0; i < (test.brief ? runs[op] / 4 : runs[op]); i++) {
            job j = random_job(op, &r);
            do_job(&j, i % 6 == 0);
        }
    large_jobs(&r);
    wino_jobs(&r);
    chain_jobs(&r);
    if (sizeof(cm_real) == sizeof(float)) late_gradients();     /* no number matters there */
    if (CHECK(calomu_open(&c, NULL) == CALOMU_OK, "no context")) refusals(c);
    calomu_close(c);
    printf("test_ops: seed %llu, hash of all results %016llx\n", (unsigned long long)seed,
           (unsigned long long)all_hash);
    return test_end("test_ops");
}
