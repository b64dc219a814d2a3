/* norm.h - sums over sites, batch norm, and what follows a convolution in inference (17.3, 17.4 of
   calomu.c) */
#ifndef CM_NORM_H
#define CM_NORM_H
#include "launch.h"

/* What a value goes through: Swish before, the transform a v + b of a batch norm (a NULL: none),
   Swish behind it. */
typedef struct cm_tail {
    const float *a, *b;              /* per channel */
    int swish;
} cm_tail;

CM_HOST cm_tail cm_tail_of(const cm_record *r)
{
    cm_tail t;
    t.a = r->column[CM_NORM_A];
    t.b = r->column[CM_NORM_B];
    t.swish = r->swish;
    return t;
}

/* a, b: those of the value's channel. */
CM_DEVICE float cm_tail_value(const cm_tail *t, float a, float b, float v)
{
    if (t->swish == CM_SWISH_BEFORE) v = cm_swish_of(v);
    if (t->a) v = cm_fmaf(a, v, b);
    if (t->a && t->swish == CM_SWISH_BEHIND) v = cm_swish_of(v);
    return v;
}

typedef struct cm_args_tail {
    cm_view x, y;                    /* may be the same */
    cm_tail tail;
} cm_args_tail;

CM_EACH(tail)
{
    cm_column o = cm_column_of(&a->y, i);
    const float *x = cm_row_at(&a->x, o.k, o.z, o.x) + o.j;
    float *y = cm_row_at(&a->y, o.k, o.z, o.x) + o.j;
    float ka = a->tail.a ? a->tail.a[o.j / CM_LANES] : 0.0f;
    float kb = a->tail.a ? a->tail.b[o.j / CM_LANES] : 0.0f;
    int s;
    for (s = 0; s < a->y.ny; s++, x += a->x.site, y += a->y.site)
        *y = cm_tail_value(&a->tail, ka, kb, *x);
}

/* In inference: what follows a convolution, in place on its result. */
static void cm_device_row_done(cm_graph *g, cm_record *r)
{
    cm_args_tail a;
    if (cm_dry(g) || (!r->column[CM_NORM_A] && !r->swish)) return;
    a.x = a.y = cm_view_of(r->out, r->out->x);
    a.tail = cm_tail_of(r);
    cm_launch_tail(g->unit, &a, cm_columns(r->out));
}

/* Sums over sites (17.3) of one or two kinds: of rows in float, by as many threads as there are;
   then in double the rows of a plane in their order, and the planes of a group in theirs. */
typedef struct cm_site_sums {
    float *rows;                     /* [k][z][x][kind][c][l] */
    double *planes;                  /* [k][z][kind][c][l] */
    int kinds;
} cm_site_sums;

/* Taken and given back at once: nothing else is taken before the last launch that reads them. */
static cm_site_sums cm_site_sums_take(cm_graph *g, const cm_tensor *t, int kinds)
{
    cm_site_sums s;
    size_t per = (size_t)(kinds * t->nc) * CM_LANES;
    s.kinds = kinds;
    s.rows = cm_arena_take(g, cm_rows(t) * per);
    s.planes = (double *)(void *)cm_arena_take(g, (size_t)(t->groups * t->nz) * per
                                                      * (sizeof(double) / sizeof(float)));
    cm_give_back(g, s.planes);
    cm_give_back(g, s.rows);
    return s;
}

/* Where the sums of the row of item i go; of the second kind, `site` reals behind. */
CM_DEVICE float *cm_site_sums_at(const cm_site_sums *s, const cm_column *o, uint32_t i)
{
    return s->rows + (size_t)(i - (uint32_t)o->j) * (size_t)s->kinds + o->j;
}

typedef struct cm_args_stats {
    cm_view x;
    cm_site_sums sums;               /* values, and squares if there are two kinds */
} cm_args_stats;

CM_EACH(stats)
{
    cm_column o = cm_column_of(&a->x, i);
    const float *x = cm_row_at(&a->x, o.k, o.z, o.x) + o.j;
    float *to = cm_site_sums_at(&a->sums, &o, i), sum = 0.0f, square = 0.0f;
    int s;
    for (s = 0; s < a->x.ny; s++, x += a->x.site) {
        sum += *x;
        square = cm_fmaf(*x, *x, square);
    }
    to[0] = sum;
    if (a->sums.kinds == 2) to[a->x.site] = square;
}

/* An item is a plane, kind, channel and lane. */
typedef struct cm_args_planes {
    cm_site_sums sums;
    uint32_t nx, per;
} cm_args_planes;

CM_EACH(planes)
{
    uint32_t plane = i / a->per, x;
    const float *from = a->sums.rows + (size_t)plane * a->nx * a->per + (i - plane * a->per);
    double sum = 0;
    for (x = 0; x < a->nx; x++, from += a->per) sum += (double)*from;
    a->sums.planes[i] = sum;
}

/* The rows of t's planes. */
static void cm_device_planes(cm_graph *g, const cm_tensor *t, cm_site_sums sums)
{
    cm_args_planes a;
    a.sums = sums;
    a.nx = (uint32_t)t->nx;
    a.per = (uint32_t)(sums.kinds * t->nc * CM_LANES);
    cm_launch_planes(g->unit, &a, (size_t)(t->groups * t->nz) * a.per);
}

/* The planes of a group, j: kind, channel and lane. */
CM_DEVICE double cm_group_sum(const double *planes, int nz, int per, int k, int j)
{
    const double *p = planes + (size_t)(k * nz) * (size_t)per + j;
    double sum = *p;
    int z;
    for (z = 1; z < nz; z++) sum += p[(size_t)z * (size_t)per];
    return sum;
}

/* Batch norm.  Both kinds of sums over the muons, of channel c, by a block: over the planes of
   every muon in phase 0, into the first ones; over the lanes of every group in phase 1, into their
   first lanes; over the groups in phase 2, to shared. */
typedef struct cm_muon_sums {
    double *planes;
    int nz, nc, muons, groups;
} cm_muon_sums;

static cm_muon_sums cm_muon_sums_of(const cm_tensor *t, cm_site_sums sums)
{
    cm_muon_sums s;
    s.planes = sums.planes;
    s.nz = t->nz;
    s.nc = t->nc;
    s.muons = t->muons;
    s.groups = t->groups;
    return s;
}

CM_DEVICE void cm_muon_sums_phase(const cm_muon_sums *a, int c, cm_at at, double *shared)
{
    int per = 2 * a->nc * CM_LANES, i;
    size_t group = (size_t)a->nz * (size_t)per;
    for (i = at.thread; at.phase == 0 && i < 2 * a->muons; i += CM_THREADS) {
        int kind = i >= a->muons, v = i - kind * a->muons, k = v / CM_LANES;
        int j = (kind * a->nc + c) * CM_LANES + v % CM_LANES;
        a->planes[(size_t)k * group + (size_t)j] = cm_group_sum(a->planes, a->nz, per, k, j);
    }
    for (i = at.thread; at.phase == 1 && i < 2 * a->groups; i += CM_THREADS) {
        int kind = i >= a->groups, k = i - kind * a->groups, l;
        double *p = a->planes + (size_t)k * group + (kind * a->nc + c) * CM_LANES, s[CM_LANES];
        for (l = 0; l < CM_LANES; l++) s[l] = k * CM_LANES + l < a->muons ? p[l] : 0;
        *p = cm_lanes_sum(s);
    }
    if (at.phase == 2 && at.thread < 2)
        shared[at.thread] = cm_tree_sum(a->planes + (at.thread * a->nc + c) * CM_LANES, group,
                                        a->groups);
}

#define CM_NORM_EPS 1e-5

static double cm_norm_momentum(const cm_tensor *x)
{
    return 1 - 0.9 / sqrt(x->muons - 1 + CM_NORM_EPS);
}

typedef struct cm_args_norm_update {             /* a block is a channel */
    cm_muon_sums sums;
    cm_norm norm;
    double m, count;
} cm_args_norm_update;

CM_KERNEL(norm_update, 4, 2 * sizeof(double))
{
    double *sum = (double *)shared;
    const cm_norm *n = &a->norm;
    int c = (int)at.block;
    cm_muon_sums_phase(&a->sums, c, at, sum);
    if (at.phase < 3 || at.thread > 0) return;
    n->sums[c] = (float)cm_fmad(a->m, sum[0] - (double)n->sums[c], (double)n->sums[c]);
    n->squares[c] = (float)cm_fmad(a->m, sum[1] - (double)n->squares[c], (double)n->squares[c]);
    if (c > 0) return;
    *n->count = (float)cm_fmad(a->m, a->count - (double)*n->count, (double)*n->count);
    *n->batch += (float)a->sums.muons;
}

static void cm_device_norm_update(cm_graph *g, const cm_tensor *x, const cm_norm *n)
{
    cm_site_sums sums = cm_site_sums_take(g, x, 2);
    cm_args_stats s;
    cm_args_norm_update a;
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    s.x = cm_view_of(x, x->x);
    s.sums = sums;
    cm_launch_stats(g->unit, &s, cm_columns(x));
    cm_device_planes(g, x, sums);
    a.sums = cm_muon_sums_of(x, sums);
    a.norm = *n;
    a.m = cm_norm_momentum(x);
    a.count = (double)x->muons * x->nz * x->nx * x->ny;
    cm_launch_norm_update(g->unit, &a, (size_t)x->nc);
}

/* saved: [kind][channel], then the count; columns: [a, b, mean][channel]. */
typedef struct cm_args_transform {
    cm_norm norm;
    double *saved;
    float *columns;
    int nc;
} cm_args_transform;

CM_EACH(transform)
{
    const cm_norm *n = &a->norm;
    double count = (double)*n->count, mean = (double)n->sums[i] / count;
    double var = cm_fmad(-mean, mean, (double)n->squares[i] / count);
    double least = *n->batch < 20 ? 0.01 : 0, w = (double)n->weight.x[i], r;
    int clamped = var < least, nc = a->nc, kind;
    if (clamped) var = least;
    r = 1 / sqrt(var + CM_NORM_EPS);
    a->saved[CM_NORM_A * nc + (int)i] = w * r;
    a->saved[CM_NORM_B * nc + (int)i] = cm_fmad(-mean, w * r, (double)n->bias.x[i]);
    a->saved[CM_NORM_MEAN * nc + (int)i] = mean;
    a->saved[CM_NORM_R * nc + (int)i] = r;
    a->saved[CM_NORM_CLAMPED * nc + (int)i] = clamped;
    if (i == 0) a->saved[CM_NORM_KINDS * nc] = count;
    for (kind = CM_NORM_A; kind <= CM_NORM_MEAN; kind++)
        a->columns[kind * nc + (int)i] = (float)a->saved[kind * nc + (int)i];
}

/* What is kept, and the columns of forward and backward, in one block until the reset. */
static void cm_device_norm_prepare(cm_graph *g, cm_record *r)
{
    int nc = r->out->nc, doubles = CM_NORM_KINDS * nc + 1, kind, fresh;
    cm_args_transform a;
    r->saved = (double *)(void *)cm_cached(g, r->norm.weight.x, (size_t)(2 * doubles + 5 * nc),
                                           &fresh);
    if (!r->saved) return;
    a.columns = (float *)(void *)(r->saved + doubles);
    for (kind = 0; kind < 5; kind++) r->column[kind] = a.columns + kind * nc;
    if (g->training) cm_device_norm_update(g, r->in[0], &r->norm);
    if (g->status != CALOMU_OK || cm_dry(g) || !fresh) return;
    a.norm = r->norm;
    a.saved = r->saved;
    a.nc = nc;
    cm_launch_transform(g->unit, &a, (size_t)nc);
}

static void cm_device_norm(cm_graph *g, cm_record *r)
{
    cm_args_tail a;
    if (cm_dry(g)) return;
    a.x = cm_view_of(r->in[0], r->in[0]->x);
    a.y = cm_view_of(r->out, r->out->x);
    a.tail = cm_tail_of(r);
    cm_launch_tail(g->unit, &a, cm_columns(r->out));
}

/* Backward, first pass: dy becomes dv, the gradient before Swish; sums of dv and dv (x - mean). */
typedef struct cm_args_norm1 {
    cm_view x, dy;
    cm_site_sums sums;
    const float *column;             /* [a, b, mean][channel] */
    int swish;
} cm_args_norm1;

CM_EACH(norm1)
{
    cm_column o = cm_column_of(&a->x, i);
    const float *x = cm_row_at(&a->x, o.k, o.z, o.x) + o.j;
    const float *column = a->column + o.j / CM_LANES;
    float *dy = cm_row_at(&a->dy, o.k, o.z, o.x) + o.j;
    float *to = cm_site_sums_at(&a->sums, &o, i), p = 0.0f, q = 0.0f;
    float ka = column[0], kb = column[a->x.nc], mean = column[2 * a->x.nc];
    int s;
    for (s = 0; s < a->x.ny; s++, x += a->x.site, dy += a->dy.site) {
        float v = *x, d = *dy;
        if (a->swish) *dy = d = d * cm_swish_slope(cm_fmaf(ka, v, kb));
        p += d;
        q = cm_fmaf(d, v - mean, q);
    }
    to[0] = p;
    to[a->x.site] = q;
}

/* The sums into the gradients of bias and weight, and e and f of the second pass. */
typedef struct cm_args_norm_sums {               /* a block is a channel */
    cm_muon_sums sums;
    cm_weight weight, bias;
    const double *saved;
    float *e, *f;
    double m;
} cm_args_norm_sums;

CM_KERNEL(norm_sums, 4, 2 * sizeof(double))
{
    double *sum = (double *)shared;
    int c = (int)at.block, nc = a->sums.nc;
    cm_muon_sums_phase(&a->sums, c, at, sum);
    if (at.phase == 3 && at.thread == 0) {
        double g0 = sum[0], g1 = sum[1], w = (double)a->weight.x[c];
        double rr = a->saved[CM_NORM_R * nc + c], mu = a->saved[CM_NORM_MEAN * nc + c];
        double count = a->saved[CM_NORM_KINDS * nc];
        double dvar = a->saved[CM_NORM_CLAMPED * nc + c] != 0 ? 0 : -0.5 * w * rr * rr * rr * g1;
        double dmean = cm_fmad(-2 * mu, dvar, -w * rr * g0);
        if (a->bias.dx) a->bias.dx[c] += (float)g0;
        if (a->weight.dx) a->weight.dx[c] += (float)(rr * g1);
        a->e[c] = (float)(2 * a->m * dvar / count);
        a->f[c] = (float)(a->m * dmean / count);
    }
}

static void cm_device_norm_first(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    cm_args_norm1 a;
    cm_args_norm_sums s;
    a.sums = cm_site_sums_take(g, x, 2);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    a.x = cm_view_of(x, x->x);
    a.dy = cm_view_of(y, y->dx);
    a.column = r->column[CM_NORM_A];
    a.swish = r->swish;
    cm_launch_norm1(g->unit, &a, cm_columns(x));
    cm_device_planes(g, x, a.sums);
    s.sums = cm_muon_sums_of(x, a.sums);
    s.weight = r->norm.weight;
    s.bias = r->norm.bias;
    s.saved = r->saved;
    s.e = r->column[CM_NORM_E];
    s.f = r->column[CM_NORM_F];
    s.m = cm_norm_momentum(x);
    cm_launch_norm_sums(g->unit, &s, (size_t)x->nc);
}

/* Second pass: dx (+)= a dv + e x + f in live lanes. */
typedef struct cm_args_norm2 {
    cm_view x, dv, dx;
    const float *a, *e, *f;          /* per channel */
    int add;
} cm_args_norm2;

CM_EACH(norm2)
{
    cm_column o = cm_column_of(&a->dx, i);
    const float *x = cm_row_at(&a->x, o.k, o.z, o.x) + o.j;
    const float *dv = cm_row_at(&a->dv, o.k, o.z, o.x) + o.j;
    float *dx = cm_row_at(&a->dx, o.k, o.z, o.x) + o.j;
    int c = o.j / CM_LANES, s;
    float live = o.k * CM_LANES + o.j % CM_LANES < a->x.muons ? 1.0f : 0.0f;
    float ka = a->a[c], ke = a->e[c], kf = a->f[c];
    for (s = 0; s < a->dx.ny; s++, x += a->x.site, dv += a->dv.site, dx += a->dx.site) {
        float d = cm_fmaf(ka, *dv, cm_fmaf(ke, *x, kf));
        *dx = a->add ? cm_fmaf(live, d, *dx) : live * d;
    }
}

static void cm_device_norm_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    cm_args_norm2 a;
    cm_remember(g, x);
    cm_device_norm_first(g, r);
    if (!x->needs) return;
    a.add = cm_grad_begin(g, x);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    a.x = cm_view_of(x, x->x);
    a.dv = cm_view_of(y, y->dx);
    a.dx = cm_view_of(x, x->dx);
    a.a = r->column[CM_NORM_A];
    a.e = r->column[CM_NORM_E];
    a.f = r->column[CM_NORM_F];
    cm_launch_norm2(g->unit, &a, cm_columns(x));
}

#endif
