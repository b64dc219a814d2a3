/* sparse.h - sparse convolution and sums straight from the hits (7.7 of calomu.c)

   A muon has a hit in about one cell of a hundred.  Forward gathers: an output looks through the
   rows of cells under it, most of which are empty, so what takes the time is to write the result.
   Backward has one chain of sums for every muon, cell of the kernel and channel, over its hits.
   Searching the rows along it would take far longer than the sums; so the hits are sorted by layer
   and class first.  The hits of a class are stride cells apart along x and y: they
   meet the same cells of the kernel. */
#ifndef CM_SPARSE_H
#define CM_SPARSE_H
#include "memory.h"
#include "norm.h"
#include "weights.h"

enum { CM_SPARSE_CHANNELS = 8, CM_SPARSE_HITS = 16, CM_SPARSE_KERNEL = 4 };

typedef struct cm_sparse_of {
    const calomu_hit *hit;
    const uint32_t *row;
    int muons, nz, nx, ny;           /* cells */
    int kernel, stride, pad;
} cm_sparse_of;

CM_HOST cm_sparse_of cm_sparse_of_record(const cm_record *r)
{
    const cm_resident *h = r->hits->resident;
    cm_sparse_of o;
    o.hit = h->hit;
    o.row = h->row;
    o.muons = r->out->muons;
    o.nz = r->hits->nz;
    o.nx = r->hits->nx;
    o.ny = r->hits->ny;
    o.kernel = r->kernel;
    o.stride = r->stride;
    o.pad = r->pad;
    return o;
}

/* The index of the rows of layer z of muon v: nx + 1 of them. */
CM_DEVICE const uint32_t *cm_sparse_layer(const cm_sparse_of *o, int v, int z)
{
    return o->row + ((size_t)v * (size_t)(o->nz * o->nx + 1) + (size_t)(z * o->nx));
}

typedef struct cm_args_sparse {
    cm_sparse_of of;
    cm_view y;
    const float *w;                  /* [channel][cell of the kernel]; NULL: all are `scale` */
    float scale;
    int channel, cell;               /* steps of w */
} cm_args_sparse;

/* Channels `first` to first + n - 1 of output (z, x, y) of one lane. */
CM_DEVICE void cm_sparse_site(const cm_args_sparse *a, const uint32_t *bound, cm_column o, int y,
                              int first, float *to)
{
    const cm_sparse_of *of = &a->of;
    const int kernel = of->kernel, n = a->y.nc - first;
    const float *all = a->w ? a->w + first * a->channel : &a->scale;
    float acc[CM_SPARSE_CHANNELS];
    int c, kz, kx;
    for (c = 0; c < CM_SPARSE_CHANNELS; c++) acc[c] = 0;
    for (kz = 0; kz < kernel; kz++)
        for (kx = 0; kx < kernel; kx++) {
            const uint32_t *b = bound + (kz * (kernel + 1) + kx) * CM_LANES;
            uint32_t i = b[0], end = b[CM_LANES];
            int row = (o.z * of->stride - of->pad + kz) * of->nx + o.x * of->stride - of->pad + kx;
            for (; i < end; i++) {
                int ky = (int)of->hit[i].cell - row * of->ny - (y * of->stride - of->pad);
                const float *w = all + ((kz * kernel + kx) * kernel + ky) * a->cell;
                if (ky < 0) continue;
                if (ky >= kernel) break;
                for (c = 0; c < CM_SPARSE_CHANNELS; c++)         /* those behind n: of no use */
                    acc[c] = cm_fmaf(of->hit[i].energy, w[(c < n ? c : 0) * a->channel], acc[c]);
            }
        }
    for (c = 0; c < CM_SPARSE_CHANNELS; c++)
        if (c < n) to[c * CM_LANES] = acc[c];
}

/* A block has a row of outputs (k, z, x), a thread a lane and every eighth site.  First, where the
   hits of the rows of cells under it begin, bound[kz][kx][lane], kx to `kernel`: outside the grid
   and in dead lanes no row has any. */
CM_KERNEL(sparse, 2, CM_SPARSE_KERNEL * (CM_SPARSE_KERNEL + 1) * CM_LANES * 4)
{
    const cm_sparse_of *of = &a->of;
    uint32_t *bound = (uint32_t *)shared;
    cm_column o = cm_column_of(&a->y, at.block * (uint32_t)a->y.site);
    int l = at.thread % CM_LANES, s = at.thread / CM_LANES, v = o.k * CM_LANES + l, c;
    if (at.phase == 0) {
        for (; s < of->kernel * (of->kernel + 1); s += CM_THREADS / CM_LANES) {
            int z = o.z * of->stride - of->pad + s / (of->kernel + 1);
            int x = o.x * of->stride - of->pad + s % (of->kernel + 1);
            x = x < 0 ? 0 : x > of->nx ? of->nx : x;
            bound[s * CM_LANES + l] = v < of->muons && z >= 0 && z < of->nz
                                          ? cm_sparse_layer(of, v, z)[x] : 0;
        }
        return;
    }
    for (; s < a->y.ny; s += CM_THREADS / CM_LANES)
        for (c = 0; c < a->y.nc; c += CM_SPARSE_CHANNELS)
            cm_sparse_site(a, bound + l, o, s, c, cm_row_at(&a->y, o.k, o.z, o.x)
                               + ((ptrdiff_t)s * a->y.site + c * CM_LANES + l));
}

static void cm_device_sparse(cm_graph *g, cm_record *r)
{
    cm_args_sparse a;
    if (!cm_dry(g)) {
        a.of = cm_sparse_of_record(r);
        a.y = cm_view_of(r->out, r->out->x);
        a.w = r->w.x;
        a.scale = (float)r->scale;
        a.cell = r->w.x != NULL;
        a.channel = a.cell * r->kernel * r->kernel * r->kernel;
        cm_launch_sparse(g->unit, &a, cm_rows(r->out));
    }
    cm_device_row_done(g, r);
}

/* A hit of a class: with x' = (x + pad)/stride rounded down, y' likewise, it meets cell kx, ky of
   the kernel at output x' - kx/stride, y' - ky/stride.  place = x' << shift | y'. */
typedef struct cm_sparse_hit {
    float energy;
    uint32_t place;
} cm_sparse_hit;

typedef struct cm_sparse_lists {     /* of a group, layer, class and lane, `room` hits each */
    cm_sparse_hit *hit;
    uint32_t *n;
    int side, shift;                 /* side^2 classes */
    size_t room;
} cm_sparse_lists;

CM_DEVICE size_t cm_sparse_list(const cm_sparse_of *of, const cm_sparse_lists *to, int k, int z,
                                int q, int l)
{
    size_t classes = (size_t)(to->side * to->side);
    return ((size_t)(k * of->nz + z) * classes + (size_t)q) * CM_LANES + (size_t)l;
}

typedef struct cm_args_sparse_sort {
    cm_sparse_of of;
    cm_sparse_lists to;
} cm_args_sparse_sort;

/* Writes the hits of muon v in layer z and class q to `to` and counts them. */
CM_DEVICE uint32_t cm_sparse_walk(const cm_args_sparse_sort *a, int v, int z, int q,
                                  cm_sparse_hit *to)
{
    const cm_sparse_of *of = &a->of;
    const uint32_t *row = cm_sparse_layer(of, v, z);
    const int s = of->stride, qx = q / a->to.side, qy = q % a->to.side;
    uint32_t n = 0, i;
    int x = (qx + s - of->pad % s) % s, out = (x + of->pad) / s;
    for (; x < of->nx; x += s, out++)
        for (i = row[x]; i < row[x + 1]; i++) {
            int y = (int)of->hit[i].cell - (z * of->nx + x) * of->ny + of->pad;
            if (y % s != qy) continue;
            to[n].energy = of->hit[i].energy;
            to[n++].place = (uint32_t)out << a->to.shift | (uint32_t)(y / s);
        }
    return n;
}

/* A block has a layer of a group, a thread a lane and every eighth class. */
CM_KERNEL(sparse_sort, 1, 0)
{
    int k = (int)(at.block / (uint32_t)a->of.nz), z = (int)(at.block % (uint32_t)a->of.nz);
    int l = at.thread % CM_LANES, q = at.thread / CM_LANES, v = k * CM_LANES + l;
    (void)shared;
    for (; q < a->to.side * a->to.side; q += CM_THREADS / CM_LANES) {
        size_t list = cm_sparse_list(&a->of, &a->to, k, z, q, l);
        a->to.n[list] = v < a->of.muons
                      ? cm_sparse_walk(a, v, z, q, a->to.hit + list * a->to.room) : 0;
    }
}

/* Outputs of a plane, and where cell kx, ky of the kernel meets them. */
typedef struct cm_sparse_plane {
    const float *dy;                 /* output (z, 0, 0) of a lane */
    int nx, ny, row_x, site;
    int x, y, shift;                 /* kx/stride, ky/stride */
} cm_sparse_plane;

/* Where the output of a hit is, counted from dy; -1: outside. */
CM_DEVICE int cm_sparse_output(const cm_sparse_plane *p, uint32_t place)
{
    const uint32_t mask = ((uint32_t)1 << p->shift) - 1;
    int x = (int)(place >> p->shift) - p->x, y = (int)(place & mask) - p->y;
    if (x < 0 || x >= p->nx || y < 0 || y >= p->ny) return -1;
    return p->row_x * x + p->site * y;
}

/* Adds the n hits of a list to the sum of one cell of the kernel and channel.  No load waits for
   another hit's or for the sum: those of 16 hits are under way together. */
CM_DEVICE float cm_sparse_chain(const cm_sparse_plane *p, const cm_sparse_hit *hit, int n,
                                float sum)
{
    int first, i;
    for (first = 0; first < n; first += CM_SPARSE_HITS) {
        float e[CM_SPARSE_HITS], d[CM_SPARSE_HITS];
        int at[CM_SPARSE_HITS];
        for (i = 0; i < CM_SPARSE_HITS; i++) {
            const cm_sparse_hit *h = hit + (first + i < n ? first + i : n - 1);
            e[i] = h->energy;
            at[i] = (int)h->place;
        }
        for (i = 0; i < CM_SPARSE_HITS; i++) {
            at[i] = cm_sparse_output(p, (uint32_t)at[i]);
            d[i] = p->dy[at[i] < 0 ? 0 : at[i]];
        }
        for (i = 0; i < CM_SPARSE_HITS; i++) {
            float next = cm_fmaf(e[i], d[i], sum);       /* always: no branch before loads */
            sum = at[i] >= 0 && first + i < n ? next : sum;
        }
    }
    return sum;
}

typedef struct cm_args_dsparse {
    cm_sparse_of of;
    cm_sparse_lists from;
    cm_view dy;
    double *partial;                 /* [group][channel][cell of the kernel] */
} cm_args_dsparse;

/* The chain of cell kz, kx, ky of the kernel, channel c, lane l of group k. */
CM_DEVICE float cm_dsparse_lane(const cm_args_dsparse *a, int k, int l, int tap, int c)
{
    const cm_sparse_of *of = &a->of;
    const int kernel = of->kernel, s = of->stride, kz = tap / (kernel * kernel);
    const int kx = tap / kernel % kernel, ky = tap % kernel;
    cm_sparse_plane p;
    float sum = 0;
    int z, cell;
    p.nx = a->dy.nx;
    p.ny = a->dy.ny;
    p.row_x = a->dy.row_x;
    p.site = a->dy.site;
    p.x = kx / s;
    p.y = ky / s;
    p.shift = a->from.shift;
    for (z = 0, cell = kz - of->pad; z < a->dy.nz; z++, cell += s) {
        size_t list;
        if (cell < 0 || cell >= of->nz) continue;
        list = cm_sparse_list(of, &a->from, k, cell, kx % s * a->from.side + ky % s, l);
        p.dy = cm_row_at(&a->dy, k, z, 0) + (c * CM_LANES + l);
        sum = cm_sparse_chain(&p, a->from.hit + list * a->from.room, (int)a->from.n[list], sum);
    }
    return sum;
}

/* A unit is a group, cell of the kernel and channel, 8 a block; neighbouring threads are channels,
   which meet the same hits. */
CM_KERNEL(dsparse, 2, CM_THREADS * 8)
{
    const int C = a->dy.nc, taps = a->of.kernel * a->of.kernel * a->of.kernel;
    const int unit = at.thread % CM_SPARSE_CHANNELS, l = at.thread / CM_SPARSE_CHANNELS;
    const uint32_t u = at.block * CM_SPARSE_CHANNELS + (uint32_t)unit, n = (uint32_t)(taps * C);
    const int k = (int)(u / n), tap = (int)(u % n) / C, c = (int)(u % n) % C;
    double *sum = (double *)shared + unit * CM_LANES;
    if (k >= a->dy.groups || (at.phase == 1 && l > 0)) return;
    if (at.phase == 0) sum[l] = (double)cm_dsparse_lane(a, k, l, tap, c);
    else a->partial[(size_t)k * n + (size_t)(c * taps + tap)] = cm_lanes_sum(sum);
}

/* The lists have room for every cell: the memory of a result of 16 channels of stride 2. */
static cm_sparse_lists cm_sparse_lists_take(cm_graph *g, const cm_record *r)
{
    const cm_hits *h = r->hits;
    int s = r->stride, classes;
    size_t lists;
    cm_sparse_lists o;
    o.side = s < r->kernel ? s : r->kernel;
    classes = o.side * o.side;
    for (o.shift = 0; (h->ny - 1 + r->pad) / s >> o.shift; o.shift++) continue;
    o.room = (size_t)((h->nx + s - 1) / s) * (size_t)((h->ny + s - 1) / s);
    lists = (size_t)(r->out->groups * CM_LANES) * (size_t)h->nz * (size_t)classes;
    o.hit = (cm_sparse_hit *)(void *)cm_arena_take(g, 2 * lists * o.room);
    o.n = (uint32_t *)(void *)cm_arena_take(g, lists);
    return o;
}

static void cm_sparse_launch(cm_graph *g, const cm_record *r, const cm_sparse_lists *lists,
                             double *partial)
{
    cm_args_sparse_sort sort;
    cm_args_dsparse d;
    cm_args_partials add;
    size_t units;
    sort.of = cm_sparse_of_record(r);
    sort.to = *lists;
    cm_launch_sparse_sort(g->unit, &sort, (size_t)r->out->groups * (size_t)r->hits->nz);
    d.of = sort.of;
    d.from = *lists;
    d.dy = cm_view_of(r->out, r->out->dx);
    d.partial = partial;
    memset(&add, 0, sizeof add);
    add.partial = partial;
    add.dw = r->w.dx;
    add.count = (size_t)(r->kernel * r->kernel * r->kernel * r->out->nc);
    add.groups = r->out->groups;
    units = add.count * (size_t)add.groups;
    cm_launch_dsparse(g->unit, &d, (units + CM_SPARSE_CHANNELS - 1) / CM_SPARSE_CHANNELS);
    cm_launch_partials(g->unit, &add, add.count);
}

static void cm_device_sparse_backward(cm_graph *g, cm_record *r)
{
    size_t taps = (size_t)(r->kernel * r->kernel * r->kernel);
    cm_sparse_lists lists;
    double *partial;
    if (!r->w.dx) return;
    lists = cm_sparse_lists_take(g, r);
    partial = cm_partials_take(g, r->out->groups, taps * (size_t)r->out->nc);
    cm_give_back(g, partial);        /* nothing else is taken before the end */
    cm_give_back(g, lists.n);
    cm_give_back(g, lists.hit);
    if (partial && !cm_dry(g)) cm_sparse_launch(g, r, &lists, partial);
}

#endif
