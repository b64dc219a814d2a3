/* join.h - combinations of tensors: add, concatenate, scale, channel 0, shortcut + gate*path, join
   (17.11, 17.12 of calomu.c) */
#ifndef CM_JOIN_H
#define CM_JOIN_H
#include "norm.h"

/* to (+)= factor * from, `n` channels from c0 of `from` to c1 of `to`; factor: of one site with
   the channels of `from`, or none. */
typedef struct cm_args_plus {
    cm_view from, to, factor;
    int c0, c1, n, add;
} cm_args_plus;

CM_EACH(plus)                        /* a column of the rows, of n channels */
{
    cm_view rows = a->to;
    cm_column o;
    const float *from;
    const float *factor = NULL;
    float *to, f = 1.0f;
    int s;
    rows.site = a->n * CM_LANES;
    o = cm_column_of(&rows, i);
    from = cm_row_at(&a->from, o.k, o.z, o.x) + a->c0 * CM_LANES + o.j;
    to = cm_row_at(&a->to, o.k, o.z, o.x) + a->c1 * CM_LANES + o.j;
    if (a->factor.at) factor = cm_row_at(&a->factor, o.k, 0, 0) + o.j;
    if (factor) f = *factor;
    for (s = 0; s < a->to.ny; s++, from += a->from.site, to += a->to.site)
        *to = a->add ? cm_fmaf(f, *from, *to) : factor ? f * *from : *from;
}

/* n channels of an input to channels c1 ... of the result. */
static void cm_device_plus(cm_graph *g, const cm_tensor *from, int n, const cm_tensor *to, int c1,
                           const cm_tensor *factor, int add)
{
    cm_args_plus a;
    if (cm_dry(g)) return;
    a.from = cm_view_of(from, from->x);
    a.to = cm_view_of(to, to->x);
    a.factor = cm_view_of(from, NULL);
    if (factor) a.factor = cm_view_of(factor, factor->x);
    a.c0 = 0;
    a.c1 = c1;
    a.n = n;
    a.add = add;
    cm_launch_plus(g->unit, &a, cm_rows(to) * (size_t)(a.n * CM_LANES));
}

/* The gradient of channels c0 ... of the result y to a whole input. */
static void cm_device_pass_back(cm_graph *g, cm_tensor *to, const cm_tensor *y, int c0,
                                const cm_tensor *factor)
{
    cm_args_plus a;
    if (!to->needs) return;
    a.add = cm_grad_begin(g, to);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    a.from = cm_view_of(y, y->dx);
    a.to = cm_view_of(to, to->dx);
    a.factor = cm_view_of(to, NULL);
    if (factor) a.factor = cm_view_of(factor, factor->x);
    a.c0 = c0;
    a.c1 = 0;
    a.n = to->nc;
    cm_launch_plus(g->unit, &a, cm_columns(to));
}

static void cm_device_add(cm_graph *g, cm_record *r)
{
    cm_device_plus(g, r->in[0], r->in[0]->nc, r->out, 0, NULL, 0);
    cm_device_plus(g, r->in[1], r->in[1]->nc, r->out, 0, NULL, 1);
}

static void cm_device_add_backward(cm_graph *g, cm_record *r)
{
    cm_device_pass_back(g, r->in[0], r->out, 0, NULL);
    cm_device_pass_back(g, r->in[1], r->out, 0, NULL);
}

static void cm_device_concat(cm_graph *g, cm_record *r)
{
    cm_device_plus(g, r->in[0], r->in[0]->nc, r->out, 0, NULL, 0);
    cm_device_plus(g, r->in[1], r->in[1]->nc, r->out, r->in[0]->nc, NULL, 0);
}

static void cm_device_concat_backward(cm_graph *g, cm_record *r)
{
    cm_device_pass_back(g, r->in[0], r->out, 0, NULL);
    cm_device_pass_back(g, r->in[1], r->out, r->in[0]->nc, NULL);
}

static void cm_device_scale(cm_graph *g, cm_record *r)
{
    cm_device_plus(g, r->in[0], r->in[0]->nc, r->out, 0, r->in[1], 0);
}

/* The first channels of the input. */
static void cm_device_channel(cm_graph *g, cm_record *r)
{
    cm_device_plus(g, r->in[0], r->out->nc, r->out, 0, NULL, 0);
}

static void cm_device_channel_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    cm_args_plus a;
    if (!x->needs || !cm_gradient(g, x) || cm_dry(g)) return;    /* the others get zero */
    a.from = cm_view_of(y, y->dx);
    a.to = cm_view_of(x, x->dx);
    a.factor = cm_view_of(y, NULL);
    a.c0 = a.c1 = 0;
    a.n = y->nc;
    a.add = 1;
    cm_launch_plus(g->unit, &a, cm_rows(x) * (size_t)(a.n * CM_LANES));
}

/* The gate's gradient of cm_scale is one sum in float over all sites in their order. */
typedef struct cm_args_dscale {
    cm_view x, dy, dgate;
    int add;
} cm_args_dscale;

CM_EACH(dscale)
{
    cm_column o = cm_column_of(&a->dgate, i);
    float *to = cm_row_at(&a->dgate, o.k, 0, 0) + o.j, sum = a->add ? *to : 0.0f;
    int row, rows = a->x.nz * a->x.nx, s;
    for (row = 0; row < rows; row++) {
        const float *x = cm_row_at(&a->x, o.k, row / a->x.nx, row % a->x.nx) + o.j;
        const float *dy = cm_row_at(&a->dy, o.k, row / a->x.nx, row % a->x.nx) + o.j;
        for (s = 0; s < a->x.ny; s++, x += a->x.site, dy += a->dy.site)
            sum = cm_fmaf(*x, *dy, sum);
    }
    *to = sum;
}

static void cm_device_scale_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *gate = r->in[1], *y = r->out;
    cm_args_dscale a;
    cm_device_pass_back(g, x, y, 0, gate);
    if (!gate->needs) return;
    a.add = cm_grad_begin(g, gate);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    a.x = cm_view_of(x, x->x);
    a.dy = cm_view_of(y, y->dx);
    a.dgate = cm_view_of(gate, gate->dx);
    cm_launch_dscale(g->unit, &a, cm_columns(gate));
}

/* Join: y[0] = scale e[0], y[1 + c] = gate[c] path[c] + shortcut[c]. */
typedef struct cm_args_join {
    cm_view e, shortcut, path, gate, y;
    float scale;
} cm_args_join;

CM_EACH(join)
{
    cm_column o = cm_column_of(&a->y, i);
    const float *e = cm_row_at(&a->e, o.k, o.z, o.x) + o.j, *shortcut, *path;
    float *y = cm_row_at(&a->y, o.k, o.z, o.x) + o.j, gate;
    int j = o.j - CM_LANES, s;
    if (j < 0) {
        for (s = 0; s < a->y.ny; s++, e += a->e.site, y += a->y.site) *y = a->scale * *e;
        return;
    }
    shortcut = cm_row_at(&a->shortcut, o.k, o.z, o.x) + j;
    path = cm_row_at(&a->path, o.k, o.z, o.x) + j;
    gate = cm_row_at(&a->gate, o.k, 0, 0)[j];
    for (s = 0; s < a->y.ny; s++) {
        *y = cm_fmaf(gate, *path, *shortcut);
        y += a->y.site;
        path += a->path.site;
        shortcut += a->shortcut.site;
    }
}

static void cm_device_join(cm_graph *g, cm_record *r)
{
    cm_args_join a;
    if (cm_dry(g)) return;
    a.e = cm_view_of(r->in[0], r->in[0]->x);
    a.shortcut = cm_view_of(r->in[1], r->in[1]->x);
    a.path = cm_view_of(r->in[2], r->in[2]->x);
    a.gate = cm_view_of(r->in[3], r->in[3]->x);
    a.y = cm_view_of(r->out, r->out->x);
    a.scale = (float)r->scale;
    cm_launch_join(g->unit, &a, cm_columns(r->out));
}

/* Backward: dshortcut (+)= dy, dpath (+)= gate dy, and sums of path dy; lead: channels of dy before
   these; none: only the sums. */
typedef struct cm_args_djoin {
    cm_view dy, path, gate, dshortcut, dpath;
    cm_site_sums sums;
    int lead, none, add_shortcut, add_path;
} cm_args_djoin;

CM_EACH(djoin)
{
    cm_column o = cm_column_of(&a->path, i);
    const float *dy = cm_row_at(&a->dy, o.k, o.z, o.x) + a->lead * CM_LANES + o.j;
    const float *path = cm_row_at(&a->path, o.k, o.z, o.x) + o.j;
    float *dshortcut = a->none ? NULL : cm_row_at(&a->dshortcut, o.k, o.z, o.x) + o.j;
    float *dpath = a->none ? NULL : cm_row_at(&a->dpath, o.k, o.z, o.x) + o.j;
    float gate = cm_row_at(&a->gate, o.k, 0, 0)[o.j], sum = 0.0f;
    int s;
    for (s = 0; s < a->path.ny; s++) {
        float d = *dy;
        sum = cm_fmaf(*path, d, sum);
        dy += a->dy.site;
        path += a->path.site;
        if (a->none) continue;
        *dpath = a->add_path ? cm_fmaf(gate, d, *dpath) : gate * d;
        *dshortcut = a->add_shortcut ? *dshortcut + d : d;
        dpath += a->dpath.site;
        dshortcut += a->dshortcut.site;
    }
    *cm_site_sums_at(&a->sums, &o, i) = sum;
}

typedef struct cm_args_dgate {
    cm_view dgate;
    const double *planes;
    int nz, add;
} cm_args_dgate;

CM_EACH(dgate)
{
    cm_column o = cm_column_of(&a->dgate, i);
    float *to = cm_row_at(&a->dgate, o.k, 0, 0) + o.j;
    float d = (float)cm_group_sum(a->planes, a->nz, a->dgate.site, o.k, o.j);
    *to = a->add ? *to + d : d;
}

/* The rest of a's arguments is there. */
static void cm_device_djoin(cm_graph *g, const cm_record *r, cm_args_djoin *a, int add_gate)
{
    const cm_tensor *s = r->in[1], *p = r->in[2], *gate = r->in[3], *y = r->out;
    cm_args_dgate d;
    a->sums = cm_site_sums_take(g, p, 1);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    a->dy = cm_view_of(y, y->dx);
    a->path = cm_view_of(p, p->x);
    a->gate = cm_view_of(gate, gate->x);
    a->dshortcut = cm_view_of(s, a->none ? NULL : s->dx);
    a->dpath = cm_view_of(p, a->none ? NULL : p->dx);
    cm_launch_djoin(g->unit, a, cm_columns(p));
    cm_device_planes(g, p, a->sums);
    d.dgate = cm_view_of(gate, gate->dx);
    d.planes = a->sums.planes;
    d.nz = p->nz;
    d.add = add_gate;
    cm_launch_dgate(g->unit, &d, cm_columns(gate));
}

static void cm_device_join_backward(cm_graph *g, cm_record *r)
{
    cm_args_djoin a;
    cm_remember(g, r->in[2]);
    a.lead = 1;
    a.none = 0;
    a.add_shortcut = cm_grad_begin(g, r->in[1]);
    a.add_path = cm_grad_begin(g, r->in[2]);
    cm_device_djoin(g, r, &a, cm_grad_begin(g, r->in[3]));
}

/* shortcut + gate*path; backward adds to one after the other, which may be the same tensor. */
static void cm_device_add_scaled(cm_graph *g, cm_record *r)
{
    cm_device_plus(g, r->in[1], r->in[1]->nc, r->out, 0, NULL, 0);
    cm_device_plus(g, r->in[2], r->in[2]->nc, r->out, 0, r->in[3], 1);
}

static void cm_device_add_scaled_backward(cm_graph *g, cm_record *r)
{
    cm_args_djoin a;
    cm_remember(g, r->in[2]);
    cm_remember(g, r->in[3]);
    cm_device_pass_back(g, r->in[1], r->out, 0, NULL);
    cm_device_pass_back(g, r->in[2], r->out, 0, r->in[3]);
    if (!r->in[3]->needs) return;
    a.lead = a.add_shortcut = a.add_path = 0;
    a.none = 1;
    cm_device_djoin(g, r, &a, cm_grad_begin(g, r->in[3]));
}

#endif
