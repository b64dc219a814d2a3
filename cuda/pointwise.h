/* pointwise.h - Swish, sigmoid (7.9 of calomu.c) */
#ifndef CM_POINTWISE_H
#define CM_POINTWISE_H
#include "launch.h"

typedef struct cm_args_point {
    cm_view x, y;
    int what;                        /* 0 Swish, 1 sigmoid */
} cm_args_point;

CM_EACH(point)
{
    cm_column o = cm_column_of(&a->y, i);
    const float *x = cm_row_at(&a->x, o.k, o.z, o.x) + o.j;
    float *y = cm_row_at(&a->y, o.k, o.z, o.x) + o.j;
    int s;
    for (s = 0; s < a->y.ny; s++, x += a->x.site, y += a->y.site)
        *y = a->what == 0 ? cm_swish_of(*x) : cm_sigmoid_of(*x);
}

static void cm_device_point(cm_graph *g, cm_record *r)
{
    cm_args_point a;
    if (cm_dry(g)) return;
    a.x = cm_view_of(r->in[0], r->in[0]->x);
    a.y = cm_view_of(r->out, r->out->x);
    a.what = r->first;
    cm_launch_point(g->unit, &a, cm_columns(r->out));
}

/* in the forward pass this was: y = x sigmoid(x), or y = sigmoid(x) */
typedef struct cm_args_dpoint {
    cm_view x, y, dy, dx;            /* y: the values, for sigmoid */
    int what, add;
} cm_args_dpoint;

CM_EACH(dpoint)
{
    cm_column o = cm_column_of(&a->dx, i);
    const float *dy = cm_row_at(&a->dy, o.k, o.z, o.x) + o.j;
    float *dx = cm_row_at(&a->dx, o.k, o.z, o.x) + o.j;
    const cm_view *from = a->what == 0 ? &a->x : &a->y;
    const float *v = cm_row_at(from, o.k, o.z, o.x) + o.j;
    int s;
    for (s = 0; s < a->dx.ny; s++, v += from->site, dy += a->dy.site, dx += a->dx.site) {
        float slope = a->what == 0 ? cm_swish_slope(*v) : *v * (1.0f - *v);
        *dx = cm_fmaf(*dy, slope, a->add ? *dx : 0.0f);
    }
}

static void cm_device_point_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    cm_args_dpoint a;
    if (!x->needs) return;
    cm_remember(g, x);
    a.add = cm_grad_begin(g, x);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    a.x = cm_view_of(x, x->x);
    a.y = cm_view_of(y, y->x);
    a.dy = cm_view_of(y, y->dx);
    a.dx = cm_view_of(x, x->dx);
    a.what = r->first;
    cm_launch_dpoint(g->unit, &a, cm_columns(x));
}

#endif
