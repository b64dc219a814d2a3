/* pool.h - pooling, mean and maximum over the sites (7.8, 7.10 of calomu.c) */
#ifndef CM_POOL_H
#define CM_POOL_H
#include "norm.h"

typedef struct cm_args_pool {
    cm_view x, y;
    int first;                       /* channel of x */
    float scale;
} cm_args_pool;

CM_EACH(pool)
{
    cm_column o = cm_column_of(&a->y, i);
    float *y = cm_row_at(&a->y, o.k, o.z, o.x) + o.j;
    int s;
    for (s = 0; s < a->y.ny; s++, y += a->y.site) {
        float sum = 0.0f;            /* what is outside the grid adds nothing to it */
        int t;
        for (t = 0; t < 8; t++) {
            int z = 2 * o.z - 1 + t / 4, c = 2 * o.x - 1 + t / 2 % 2, at = 2 * s - 1 + t % 2;
            if (z < 0 || z >= a->x.nz || c < 0 || c >= a->x.nx || at < 0 || at >= a->x.ny) continue;
            sum += cm_row_at(&a->x, o.k, z, c)[at * a->x.site + a->first * CM_LANES + o.j];
        }
        *y = a->scale * sum;
    }
}

static void cm_device_pool(cm_graph *g, cm_record *r)
{
    cm_args_pool a;
    if (cm_dry(g)) return;
    a.x = cm_view_of(r->in[0], r->in[0]->x);
    a.y = cm_view_of(r->out, r->out->x);
    a.first = r->first;
    a.scale = (float)r->scale;
    cm_launch_pool(g->unit, &a, cm_columns(r->out));
}

typedef struct cm_args_dpool {
    cm_view dy, dx;
    int first, add;
    float scale;
} cm_args_dpool;

CM_EACH(dpool)                       /* a column of the rows of x, of the channels of y */
{
    cm_view rows = a->dx;
    cm_column o;
    const float *dy;
    float *dx;
    int s;
    rows.site = a->dy.site;
    o = cm_column_of(&rows, i);
    dy = cm_row_at(&a->dy, o.k, (o.z + 1) / 2, (o.x + 1) / 2) + o.j;
    dx = cm_row_at(&a->dx, o.k, o.z, o.x) + a->first * CM_LANES + o.j;
    for (s = 0; s < a->dx.ny; s++, dx += a->dx.site) {
        float d = 0.0f + dy[(ptrdiff_t)((s + 1) / 2) * a->dy.site];      /* -0 becomes 0 */
        *dx = a->add ? cm_fmaf(a->scale, d, *dx) : a->scale * d;
    }
}

static void cm_device_pool_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    cm_args_dpool a;
    if (!x->needs) return;
    if (x->nc != y->nc) cm_gradient(g, x);       /* the other channels are zero */
    a.add = cm_grad_begin(g, x);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    a.dy = cm_view_of(y, y->dx);
    a.dx = cm_view_of(x, x->dx);
    a.first = r->first;
    a.scale = (float)r->scale;
    cm_launch_dpool(g->unit, &a, cm_rows(x) * (size_t)a.dy.site);
}

/* Mean: an item is a group, channel and lane. */
typedef struct cm_args_mean {
    cm_view y;
    const double *planes;
    int nz;
    double sites;
} cm_args_mean;

CM_EACH(mean)
{
    cm_column o = cm_column_of(&a->y, i);
    double sum = cm_group_sum(a->planes, a->nz, a->y.site, o.k, o.j);
    cm_row_at(&a->y, o.k, 0, 0)[o.j] = (float)(sum / a->sites);
}

static void cm_device_mean(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    cm_args_stats s;
    cm_args_mean a;
    s.sums = cm_site_sums_take(g, x, 1);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    s.x = cm_view_of(x, x->x);
    cm_launch_stats(g->unit, &s, cm_columns(x));
    cm_device_planes(g, x, s.sums);
    a.y = cm_view_of(y, y->x);
    a.planes = s.sums.planes;
    a.nz = x->nz;
    a.sites = r->scale;
    cm_launch_mean(g->unit, &a, cm_columns(y));
}

typedef struct cm_args_dmean {
    cm_view dy, dx;
    float inverse;                   /* of the number of sites */
    int add;
} cm_args_dmean;

CM_EACH(dmean)
{
    cm_column o = cm_column_of(&a->dx, i);
    float *dx = cm_row_at(&a->dx, o.k, o.z, o.x) + o.j;
    float d = cm_row_at(&a->dy, o.k, 0, 0)[o.j] * a->inverse;
    int s;
    for (s = 0; s < a->dx.ny; s++, dx += a->dx.site) *dx = a->add ? *dx + d : d;
}

static void cm_device_mean_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    cm_args_dmean a;
    if (!x->needs) return;
    a.add = cm_grad_begin(g, x);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    a.dy = cm_view_of(y, y->dx);
    a.dx = cm_view_of(x, x->dx);
    a.inverse = (float)(1 / r->scale);
    cm_launch_dmean(g->unit, &a, cm_columns(x));
}

/* Maximum: of rows with how many sites have it, of the rows of a plane, of the planes.  A NaN does
   not get lost; of 0 and -0 the first stays. */
typedef struct cm_top {
    float value, ties;               /* ties are whole, and below 2^24 like the sites */
} cm_top;

CM_DEVICE cm_top cm_top_of(cm_top t, float value, float ties)
{
    if (value > t.value) {
        t.value = value;
        t.ties = ties;
    } else if (value == t.value) {
        t.ties += ties;
    } else if (value != value) {
        t.value = value;
    }
    return t;
}

/* Layout as of cm_site_sums: [row][value, ties][c][l], then the same of planes. */
typedef struct cm_args_max_rows {
    cm_view x;
    float *rows;
} cm_args_max_rows;

CM_EACH(max_rows)
{
    cm_column o = cm_column_of(&a->x, i);
    const float *x = cm_row_at(&a->x, o.k, o.z, o.x) + o.j;
    float *to = a->rows + (size_t)(i - (uint32_t)o.j) * 2 + o.j;
    cm_top t;
    int s;
    t.value = *x;
    t.ties = 1.0f;
    for (s = 1, x += a->x.site; s < a->x.ny; s++, x += a->x.site) t = cm_top_of(t, *x, 1.0f);
    to[0] = t.value;
    to[a->x.site] = t.ties;
}

/* n neighbours of `from` into one of `to`; an item is one of `to` with channel and lane. */
typedef struct cm_args_max_of {
    const float *from;
    float *to;
    uint32_t n, site;
} cm_args_max_of;

CM_EACH(max_of)
{
    uint32_t one = i / a->site, j = i - one * a->site, n;
    const float *from = a->from + (size_t)one * a->n * 2 * a->site + j;
    float *to = a->to + (size_t)one * 2 * a->site + j;
    cm_top t;
    t.value = from[0];
    t.ties = from[a->site];
    for (n = 1; n < a->n; n++) {
        from += 2 * a->site;
        t = cm_top_of(t, from[0], from[a->site]);
    }
    to[0] = t.value;
    to[a->site] = t.ties;
}

typedef struct cm_args_max_end {     /* of the groups to y and, in training, saved ties */
    cm_view y;
    const float *groups;
    double *ties;
} cm_args_max_end;

CM_EACH(max_end)
{
    cm_column o = cm_column_of(&a->y, i);
    const float *from = a->groups + (size_t)o.k * 2 * (size_t)a->y.site + o.j;
    cm_row_at(&a->y, o.k, 0, 0)[o.j] = from[0];
    if (a->ties) a->ties[i] = (double)from[a->y.site];
}

static void cm_device_max_launch(cm_graph *g, const cm_record *r, float *room[3])
{
    const cm_tensor *x = r->in[0], *y = r->out;
    cm_args_max_rows a;
    cm_args_max_of of;
    cm_args_max_end end;
    a.x = cm_view_of(x, x->x);
    a.rows = room[0];
    cm_launch_max_rows(g->unit, &a, cm_columns(x));
    of.site = (uint32_t)a.x.site;
    of.from = room[0];
    of.to = room[1];
    of.n = (uint32_t)x->nx;
    cm_launch_max_of(g->unit, &of, (size_t)(x->groups * x->nz) * of.site);
    of.from = room[1];
    of.to = room[2];
    of.n = (uint32_t)x->nz;
    cm_launch_max_of(g->unit, &of, (size_t)x->groups * of.site);
    end.y = cm_view_of(y, y->x);
    end.groups = room[2];
    end.ties = r->saved;
    cm_launch_max_end(g->unit, &end, cm_columns(y));
}

static void cm_device_max(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0];
    size_t per = (size_t)x->nc * CM_LANES;
    float *room[3];
    int i;
    if (g->training)
        r->saved = (double *)(void *)cm_arena_take(g, 2 * (size_t)x->groups * per);
    room[0] = cm_arena_take(g, 2 * cm_rows(x) * per);
    room[1] = cm_arena_take(g, 2 * (size_t)(x->groups * x->nz) * per);
    room[2] = cm_arena_take(g, 2 * (size_t)x->groups * per);
    for (i = 2; i >= 0; i--) cm_give_back(g, room[i]);   /* nothing else is taken before the end */
    if (g->status == CALOMU_OK && !cm_dry(g)) cm_device_max_launch(g, r, room);
}

typedef struct cm_args_dmax {
    cm_view x, y, dy, dx;
    const double *ties;
} cm_args_dmax;

CM_EACH(dmax)
{
    cm_column o = cm_column_of(&a->x, i);
    const float *x = cm_row_at(&a->x, o.k, o.z, o.x) + o.j;
    float *dx = cm_row_at(&a->dx, o.k, o.z, o.x) + o.j;
    float top = cm_row_at(&a->y, o.k, 0, 0)[o.j];
    float d = cm_row_at(&a->dy, o.k, 0, 0)[o.j] / (float)a->ties[o.k * a->x.site + o.j];
    int s;
    for (s = 0; s < a->x.ny; s++, x += a->x.site, dx += a->dx.site)
        if (*x == top) *dx += d;
}

static void cm_device_max_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    cm_args_dmax a;
    if (x->needs) cm_remember(g, x);
    if (x->needs && cm_gradient(g, x) && g->status == CALOMU_OK && !cm_dry(g)) {
        a.x = cm_view_of(x, x->x);
        a.y = cm_view_of(y, y->x);
        a.dy = cm_view_of(y, y->dx);
        a.dx = cm_view_of(x, x->dx);
        a.ties = r->saved;
        cm_launch_dmax(g->unit, &a, cm_columns(x));
    }
    cm_give_back(g, r->saved);
}

#endif
