/* weights.h - convolutions: gradients of weights and biases (7.5, 7.6 of calomu.c) */
#ifndef CM_WEIGHTS_H
#define CM_WEIGHTS_H
#include "launch.h"

/* Reals of scratch for Winograd's v and dm: groups are done in parts that fit. */
#ifndef CM_SCRATCH
#define CM_SCRATCH (1 << 26)
#endif

/* ---------------------------------------------------------------- Winograd's transforms

   All have 8 f and, of outputs, 6 rows; tiles of 4 rows leave some of them zero. */

enum { CM_WINO_F = 8, CM_WINO_ROWS = 6 };

typedef struct cm_wino_tile {
    int x, rows, full;               /* x of the first row; rows, of 6 or 4 */
} cm_wino_tile;

/* The tile behind `t`, of nx rows, as in calomu.c; rows 0: there is none. */
CM_BOTH cm_wino_tile cm_wino_next(int nx, cm_wino_tile t)
{
    int left = nx - (t.x + t.rows);
    t.x += t.rows;
    t.full = left > 8 || left == 5 || left == 6 ? 6 : 4;
    t.rows = left < t.full ? left : t.full;
    return t;
}

CM_DEVICE cm_wino_tile cm_wino_tile_of(int nx, int number)
{
    cm_wino_tile t = { 0, 0, 0 };
    int n;
    for (n = 0; n <= number; n++) t = cm_wino_next(nx, t);
    return t;
}

CM_BOTH int cm_wino_tiles(int nx)
{
    cm_wino_tile t = { 0, 0, 0 };
    int n = -1;
    do {
        t = cm_wino_next(nx, t);
        n++;
    } while (t.rows > 0);
    return n;
}

/* v = B' d of one tile, fused as in wino_in of calomu.c. */
CM_DEVICE void cm_wino_in6(const float d[CM_WINO_F], float v[CM_WINO_F])
{
    float p = cm_fmaf(-4.25f, d[4], d[6] + d[2]), q = cm_fmaf(-4.25f, d[3], d[5] + d[1]);
    v[0] = cm_fmaf(5.25f, d[3] - d[5], d[7] - d[1]);
    v[1] = cm_fmaf(5.25f, d[4] - d[2], d[0] - d[6]);
    v[2] = p + q;
    v[3] = p - q;
    p = cm_fmaf(-1.25f, d[4], cm_fmaf(0.25f, d[2], d[6]));
    q = cm_fmaf(-1.25f, d[3], cm_fmaf(0.25f, d[1], d[5]));
    v[4] = cm_fmaf(2.0f, q, p);
    v[5] = cm_fmaf(-2.0f, q, p);
    p = cm_fmaf(-5.0f, d[4], cm_fmaf(4.0f, d[2], d[6]));
    q = cm_fmaf(-5.0f, d[3], cm_fmaf(4.0f, d[1], d[5]));
    v[6] = cm_fmaf(0.5f, q, p);
    v[7] = cm_fmaf(-0.5f, q, p);
}

CM_DEVICE void cm_wino_in4(const float d[CM_WINO_F], float v[CM_WINO_F])
{
    float p = 0.75f * cm_fmaf(-4.0f, d[2], d[4]), q = 0.75f * cm_fmaf(-4.0f, d[1], d[3]);
    v[0] = cm_fmaf(4.0f, d[1], cm_fmaf(-5.0f, d[3], d[5]));
    v[1] = cm_fmaf(0.25f, d[4], cm_fmaf(-1.25f, d[2], d[0]));
    v[2] = p + q;
    v[3] = p - q;
    p = 3.75f * (d[4] - d[2]);
    q = 7.5f * (d[3] - d[1]);
    v[4] = p + q;
    v[5] = p - q;
    v[6] = v[7] = 0.0f;
}

CM_DEVICE void cm_wino_in(const float d[CM_WINO_F], float v[CM_WINO_F], int full)
{
    if (full == 6) cm_wino_in6(d, v);
    else cm_wino_in4(d, v);
}

/* dm = A d of the gradients of a tile, `last` the one of row full - 1. */
CM_DEVICE void cm_wino_dm(const float d[CM_WINO_ROWS], float last, int full, float dm[CM_WINO_F])
{
    const float point[4] = { 0.0f, 1.0f, 2.0f, 0.5f };
    int i;
    dm[0] = last;
    dm[1] = d[0];
    CM_UNROLL
    for (i = 1; i < 4; i++) {
        float k = point[i], kk = k * k;
        float p = cm_fmaf(kk * kk, d[4], cm_fmaf(kk, d[2], d[0]));
        float q = k * cm_fmaf(kk * kk, d[5], cm_fmaf(kk, d[3], d[1]));
        dm[2 * i] = 2 * i < full + 2 ? p + q : 0.0f;
        dm[2 * i + 1] = 2 * i < full + 2 ? p - q : 0.0f;
    }
}

CM_DEVICE double cm_wino_g(int f, int kx)
{
    static const double g[CM_WINO_F][3] = {
        { 0, 0, 1 }, { 1, 0, 0 }, { -2. / 9, -2. / 9, -2. / 9 }, { -2. / 9, 2. / 9, -2. / 9 },
        { 1. / 90, 2. / 90, 4. / 90 }, { 1. / 90, -2. / 90, 4. / 90 },
        { 32. / 45, 16. / 45, 8. / 45 }, { 32. / 45, -16. / 45, 8. / 45 }
    };
    return g[f][kx];
}

/* The tiles of a view, as planes whose rows are its planes. */
CM_DEVICE cm_view cm_wino_tiled(const cm_view *t)
{
    cm_view tiles = *t;
    tiles.nz = cm_wino_tiles(t->nx);
    tiles.nx = t->nz;
    return tiles;
}

/* v of n groups with a zero border in z and y, rows of an even number of sites.  Forward and to the
   input: [group][tile][z + 1][y + 1][channel][f][L]; to the weights: [group][f][tile][z + 1]
   [y + 1][channel][L]. */
typedef struct cm_args_wino_v {
    cm_view x;                       /* values, or gradients to the input */
    float *v;
    int group, row, channel;         /* the first group; sites of a row of v; reals from channel */
    size_t f, size;                  /*   to channel, from f to f, of a group */
} cm_args_wino_v;

CM_EACH(wino_v)                      /* a column of a row of v */
{
    cm_view rows = cm_wino_tiled(&a->x);
    cm_column o;
    cm_wino_tile tile;
    int s, j, f, x;
    float *to;
    rows.nx += 2;
    o = cm_column_of(&rows, i);
    tile = cm_wino_tile_of(a->x.nx, o.z);
    to = a->v + a->size * (size_t)o.k + o.j % CM_LANES
       + (size_t)((o.z * rows.nx + o.x) * a->row * a->x.nc + o.j / CM_LANES) * (size_t)a->channel;
    for (s = -1; s <= a->row - 2; s++, to += a->x.nc * a->channel) {
        float d[CM_WINO_F], v[CM_WINO_F];
        int inside = s >= 0 && s < a->x.ny && o.x > 0 && o.x <= a->x.nz;
        for (j = 0; j < CM_WINO_F; j++) {
            x = tile.x - 1 + j;
            d[j] = !inside || x < 0 || x >= a->x.nx ? 0.0f
                 : cm_row_at(&a->x, a->group + o.k, o.x - 1, x)[s * a->x.site + o.j];
        }
        cm_wino_in(d, v, tile.full);
        for (f = 0; f < CM_WINO_F; f++) to[a->f * (size_t)f] = v[f];
    }
}

CM_HOST cm_args_wino_v cm_wino_v_of(const cm_tensor *x, float *values, int forward)
{
    cm_args_wino_v a;
    size_t sites;
    memset(&a, 0, sizeof a);
    a.x = cm_view_of(x, values);
    a.row = (x->ny + 3) / 2 * 2;
    a.channel = forward ? CM_WINO_F * CM_LANES : CM_LANES;
    sites = (size_t)(cm_wino_tiles(x->nx) * (x->nz + 2)) * (size_t)a.row;
    a.f = forward ? (size_t)CM_LANES : sites * (size_t)a.x.site;
    a.size = CM_WINO_F * sites * (size_t)a.x.site;
    return a;
}

/* Groups `first` to `first + n - 1`. */
CM_HOST void cm_wino_make_v(cm_graph *g, const cm_args_wino_v *v, int first, int n)
{
    cm_args_wino_v a = *v;
    a.group = first;
    cm_launch_wino_v(g->unit, &a, (size_t)n * (size_t)(cm_wino_tiles(v->x.nx) * (v->x.nz + 2))
                                      * (size_t)v->x.site);
}

/* Groups that are done together: as many as have room in the scratch, in equal parts. */
CM_HOST int cm_wino_part(int groups, size_t size)
{
    size_t room = CM_SCRATCH / size;
    int most = room < 1 ? 1 : room < (size_t)groups ? (int)room : groups;
    int parts = (groups + most - 1) / most;
    return (groups + parts - 1) / parts;
}

/* dm, [group][f][tile][z][y][output][L]. */
typedef struct cm_args_wino_dm {
    cm_view dy;
    float *dm;
    int group;
} cm_args_wino_dm;

CM_EACH(wino_dm)
{
    cm_view rows = cm_wino_tiled(&a->dy);
    cm_column o = cm_column_of(&rows, i);
    cm_wino_tile tile = cm_wino_tile_of(a->dy.nx, o.z);
    size_t step = (size_t)(rows.nz * rows.nx) * (size_t)(a->dy.ny * a->dy.site);
    size_t at = CM_WINO_F * step * (size_t)o.k
              + (size_t)((o.z * rows.nx + o.x) * a->dy.ny) * (size_t)a->dy.site + (size_t)o.j;
    int s, j, f;
    for (s = 0; s < a->dy.ny; s++, at += (size_t)a->dy.site) {
        float d[CM_WINO_ROWS], dm[CM_WINO_F];
        for (j = 0; j < CM_WINO_ROWS; j++)
            d[j] = j >= tile.rows ? 0.0f
                 : cm_row_at(&a->dy, a->group + o.k, o.x, tile.x + j)[s * a->dy.site + o.j];
        cm_wino_dm(d, tile.full == 6 ? d[5] : d[3], tile.full, dm);
        for (f = 0; f < CM_WINO_F; f++) a->dm[at + (size_t)f * step] = dm[f];
    }
}

/* ---------------------------------------------------------------- sums over the sites

   partial[group] of every weight = sum over lanes, in double, of the sum over sites z, x, y of
   x[i](stride*j + k) dy[o](j).  Winograd's method is the same on v and dm, eight times (f), with
   tiles for z, planes for x, and taps in these and y only. */

typedef struct cm_args_outer {
    const float *x, *dy;             /* first site and tap of the first group and f */
    size_t x_group, x_f, dy_group, dy_f;     /* reals from group to group, from f to f */
    int x_step[3], dy_step[3];       /* reals from one site of the result to the next, z, x, y */
    int x_tap[3];                    /* and from tap to tap */
    int nz, nx, ny, in, out;
    int fs, planes, kernel;          /* taps: fs * planes * kernel * kernel */
    int roll;                        /* 1: the next site's taps are one x further */
    int ins, outs;                   /* weights of a thread: ins x outs x kernel (fast) */
    uint32_t units;
    size_t count;                    /* weights */
    double *partial;                 /* of the first group; Winograd: [f][kz][ky][in][out], else */
} cm_args_outer;                     /*   [out][in][kz][kx][ky] */

typedef struct cm_outer_unit {
    int k, f, kz, kx, in, out;       /* the first input and output */
} cm_outer_unit;

/* Neighbouring units read the same memory: they differ in kx, then in outputs, inputs, kz, f,
   groups.  The last tile of channels is moved back, so that it is full: some weights are computed
   twice, with equal bits. */
CM_DEVICE cm_outer_unit cm_outer_unit_of(const cm_args_outer *a, uint32_t u)
{
    uint32_t ins = (uint32_t)((a->in + a->ins - 1) / a->ins);
    uint32_t outs = (uint32_t)((a->out + a->outs - 1) / a->outs);
    cm_outer_unit o;
    o.kx = (int)(u % (uint32_t)a->kernel);
    u /= (uint32_t)a->kernel;
    o.out = (int)(u % outs) * a->outs;
    u /= outs;
    o.in = (int)(u % ins) * a->ins;
    u /= ins;
    o.kz = (int)(u % (uint32_t)a->planes);
    u /= (uint32_t)a->planes;
    o.f = (int)(u % (uint32_t)a->fs);
    o.k = (int)(u / (uint32_t)a->fs);
    if (o.in > a->in - a->ins) o.in = a->in - a->ins;
    if (o.out > a->out - a->outs) o.out = a->out - a->outs;
    return o;
}

CM_DEVICE const float *cm_outer_x(const cm_args_outer *a, const cm_outer_unit *o, int lane)
{
    return a->x + a->x_group * (size_t)o->k + a->x_f * (size_t)o->f
         + (o->kz * a->x_tap[0] + o->kx * a->x_tap[1] + o->in * CM_LANES + lane);
}

CM_DEVICE const float *cm_outer_dy(const cm_args_outer *a, const cm_outer_unit *o, int lane)
{
    return a->dy + a->dy_group * (size_t)o->k + a->dy_f * (size_t)o->f
         + (o->out * CM_LANES + lane);
}

CM_DEVICE void cm_outer_store(const cm_args_outer *a, const cm_outer_unit *o, int ky, int in,
                              int out, const float *lanes)
{
    int tap = (o->kz * a->kernel + o->kx) * a->kernel + ky, l;
    int taps = a->planes * a->kernel * a->kernel;
    int at = a->fs > 1 ? ((o->f * taps + tap) * a->in + in) * a->out + out
                       : (out * a->in + in) * taps + tap;
    double s[CM_LANES];
    for (l = 0; l < CM_LANES; l++) s[l] = (double)lanes[l];
    a->partial[a->count * (size_t)o->k + (size_t)at] = cm_lanes_sum(s);
}

/* Plain: a unit (8 a block, 16 lanes each) has one input and one output; ins = outs = 1. */
typedef cm_args_outer cm_args_outer_plain;

CM_KERNEL(outer_plain, 2, 8 * 4 * CM_LANES * 4)
{
    float *sum = (float *)shared + at.thread / CM_LANES * (4 * CM_LANES);      /* [ky][L] */
    uint32_t u = at.block * 8 + (uint32_t)(at.thread / CM_LANES);
    int lane = at.thread % CM_LANES, ky, z, x, y;
    cm_outer_unit o;
    if (u >= a->units) return;
    o = cm_outer_unit_of(a, u);
    if (at.phase == 1) {
        if (lane < a->kernel) cm_outer_store(a, &o, lane, o.in, o.out, sum + lane * CM_LANES);
        return;
    }
    for (ky = 0; ky < a->kernel; ky++) {
        const float *from = cm_outer_x(a, &o, lane) + ky * a->x_tap[2];
        const float *dy = cm_outer_dy(a, &o, lane);
        float s = 0;
        for (z = 0; z < a->nz; z++)
            for (x = 0; x < a->nx; x++)
                for (y = 0; y < a->ny; y++)
                    s = cm_fmaf(from[z * a->x_step[0] + x * a->x_step[1] + y * a->x_step[2]],
                                dy[z * a->dy_step[0] + x * a->dy_step[1] + y * a->dy_step[2]], s);
        sum[ky * CM_LANES + lane] = s;
    }
}

/* Fast (gains not measured yet on a GPU): a thread has the ky of up to 4 x 4 channels.  The sites
   under them are kept as it walks along y, so that in stride 1 it loads 8 reals for 48 fused
   products, where the plain kernel loads 96; sites that are loaded ahead hide the latency where
   channels, and so threads, are few. */
enum { CM_OUTER_MOST = 48 };         /* weights of a thread */

/* One site, x under its newest tap; v[ky][input] is of the site before if roll. */
CM_DEVICE void cm_outer_site(const cm_args_outer *a, const float *x, const float *dy,
                             float v[4][4], float *acc, const int K, const int A, const int B,
                             const int roll)
{
    float d[4];
    int t, i, c;
    CM_UNROLL
    for (t = 0; t < K; t++)
        CM_UNROLL
        for (i = 0; i < A; i++)
            v[t][i] = !roll ? x[t * a->x_tap[2] + i * CM_LANES]
                    : t < K - 1 ? v[t + 1 < 4 ? t + 1 : 3][i] : x[i * CM_LANES];
    CM_UNROLL
    for (c = 0; c < B; c++) d[c] = dy[c * CM_LANES];
    CM_UNROLL
    for (t = 0; t < K; t++)
        CM_UNROLL
        for (i = 0; i < A; i++)
            CM_UNROLL
            for (c = 0; c < B; c++)
                acc[(t * A + i) * B + c] = cm_fmaf(v[t][i], d[c], acc[(t * A + i) * B + c]);
}

CM_DEVICE void cm_outer_row(const cm_args_outer *a, const float *x, const float *dy, float *acc,
                            const int K, const int A, const int B, const int roll)
{
    float v[4][4];
    int y, t, i;
    if (roll) {
        CM_UNROLL
        for (t = 1; t < K; t++)
            CM_UNROLL
            for (i = 0; i < A; i++) v[t][i] = x[(t - 1) * a->x_tap[2] + i * CM_LANES];
        x += (K - 1) * a->x_tap[2];
    }
    for (y = 0; y + 4 <= a->ny; y += 4) {            /* the loads of four sites need not wait */
        CM_UNROLL
        for (i = 0; i < 4; i++, x += a->x_step[2], dy += a->dy_step[2])
            cm_outer_site(a, x, dy, v, acc, K, A, B, roll);
    }
    for (; y < a->ny; y++, x += a->x_step[2], dy += a->dy_step[2])
        cm_outer_site(a, x, dy, v, acc, K, A, B, roll);
}

/* sum: [weight of the thread][L + 1], so that the lanes of all are in different banks. */
CM_DEVICE void cm_outer_tile(const cm_args_outer *a, const float *x, const float *dy, float *sum,
                             const int K, const int A, const int B, const int roll)
{
    float acc[CM_OUTER_MOST];
    int z, i;
    CM_UNROLL
    for (i = 0; i < K * A * B; i++) acc[i] = 0;
    for (z = 0; z < a->nz; z++)
        for (i = 0; i < a->nx; i++)
            cm_outer_row(a, x + (z * a->x_step[0] + i * a->x_step[1]),
                         dy + (z * a->dy_step[0] + i * a->dy_step[1]), acc, K, A, B, roll);
    CM_UNROLL
    for (i = 0; i < K * A * B; i++) sum[i * (CM_LANES + 1)] = acc[i];
}

#define CM_OUTER_CASE(K, A, B) case K * 100 + A * 10 + B: \
    cm_outer_tile(a, x, dy, sum, K, A, B, 0); break;
#define CM_OUTER_ROLL(A, B) case 1000 + 300 + A * 10 + B: \
    cm_outer_tile(a, x, dy, sum, 3, A, B, 1); break;
CM_DEVICE void cm_outer_any(const cm_args_outer *a, const float *x, const float *dy, float *sum)
{
    switch (a->roll * 1000 + a->kernel * 100 + a->ins * 10 + a->outs) {
    CM_OUTER_ROLL(1, 1)
    CM_OUTER_ROLL(3, 3)
    CM_OUTER_ROLL(3, 4)
    CM_OUTER_ROLL(4, 3)
    CM_OUTER_ROLL(4, 4)
    CM_OUTER_CASE(1, 1, 1)
    CM_OUTER_CASE(1, 3, 3)
    CM_OUTER_CASE(1, 3, 4)
    CM_OUTER_CASE(1, 4, 3)
    CM_OUTER_CASE(1, 4, 4)
    CM_OUTER_CASE(2, 1, 1)
    CM_OUTER_CASE(2, 3, 3)
    CM_OUTER_CASE(2, 3, 4)
    CM_OUTER_CASE(2, 4, 3)
    CM_OUTER_CASE(2, 4, 4)
    CM_OUTER_CASE(3, 1, 1)
    CM_OUTER_CASE(3, 3, 3)
    CM_OUTER_CASE(3, 3, 4)
    CM_OUTER_CASE(3, 4, 3)
    CM_OUTER_CASE(3, 4, 4)
    CM_OUTER_CASE(4, 1, 1)
    CM_OUTER_CASE(4, 3, 3)
    CM_OUTER_CASE(4, 3, 4)
    default: break;
    }
}

CM_KERNEL(outer, 2, 8 * CM_OUTER_MOST * (CM_LANES + 1) * 4)
{
    int per = a->kernel * a->ins * a->outs, i, lane = at.thread % CM_LANES;
    uint32_t first = at.block * 8, u;
    float *sum = (float *)shared;
    cm_outer_unit o;
    if (at.phase == 0) {
        u = first + (uint32_t)(at.thread / CM_LANES);
        if (u >= a->units) return;
        o = cm_outer_unit_of(a, u);
        cm_outer_any(a, cm_outer_x(a, &o, lane), cm_outer_dy(a, &o, lane),
                     sum + at.thread / CM_LANES * per * (CM_LANES + 1) + lane);
        return;
    }
    for (i = at.thread; i < 8 * per; i += CM_THREADS) {
        int w = i % per, c = w % (a->ins * a->outs);
        u = first + (uint32_t)(i / per);
        if (u >= a->units) return;
        o = cm_outer_unit_of(a, u);
        cm_outer_store(a, &o, w / (a->ins * a->outs), o.in + c / a->outs, o.out + c % a->outs,
                       sum + i * (CM_LANES + 1));
    }
}

/* ---------------------------------------------------------------- the tree of the groups */

typedef struct cm_args_partials {
    double *partial;                 /* [group][count] as cm_args_outer has it; it changes */
    float *dw;
    size_t count;
    int groups, in, out;
} cm_args_partials;

typedef cm_args_partials cm_args_wino_partials;

CM_EACH(partials)
{
    a->dw[i] += (float)cm_tree_sum(a->partial + i, a->count, a->groups);
}

CM_EACH(wino_partials)               /* an item is a tap, an input and an output */
{
    uint32_t pairs = (uint32_t)(a->in * a->out);
    int t = (int)(i / pairs), in = (int)(i % pairs) / a->out, out = (int)(i % pairs) % a->out;
    float *dw = a->dw + (size_t)((out * a->in + in) * 27 + t / 3 * 9 + t % 3);
    double s[3] = { 0, 0, 0 };
    int f, kx;
    for (f = 0; f < CM_WINO_F; f++) {
        double du = cm_tree_sum(a->partial + (size_t)f * 9 * pairs + i, a->count, a->groups);
        for (kx = 0; kx < 3; kx++) s[kx] = cm_fmad(cm_wino_g(f, kx), du, s[kx]);
    }
    for (kx = 0; kx < 3; kx++) dw[kx * 3] += (float)s[kx];
}

CM_HOST double *cm_partials_take(cm_graph *g, int groups, size_t count)
{
    return (double *)(void *)cm_arena_take(g, (size_t)groups * count
                                                  * (sizeof(double) / sizeof(float)));
}

/* ---------------------------------------------------------------- to the weights */

/* 3 or 4 channels of a tile, whatever computes fewer twice. */
CM_HOST int cm_outer_wide(int n)
{
    return (n + 2) / 3 * 3 < (n + 3) / 4 * 4 ? 3 : 4;
}

/* Groups `first` to `first + n - 1` of `a`. */
CM_HOST void cm_outer_groups(cm_graph *g, const cm_record *r, cm_args_outer *a, int first, int n)
{
    cm_args_outer part = *a;
    part.partial += a->count * (size_t)first;
    part.ins = part.outs = 1;
    if (!g->unit->device->plain && a->in >= 3 && a->out >= 3) {
        part.ins = r->kernel == 4 ? 3 : cm_outer_wide(a->in);
        part.outs = cm_outer_wide(a->out);
    }
    part.units = (uint32_t)(n * a->fs * a->planes * a->kernel)
               * (uint32_t)((a->in + part.ins - 1) / part.ins)
               * (uint32_t)((a->out + part.outs - 1) / part.outs);
    if (g->unit->device->plain) cm_launch_outer_plain(g->unit, &part, (part.units + 7) / 8);
    else cm_launch_outer(g->unit, &part, (part.units + 7) / 8);
}

CM_HOST void cm_outer_steps(int step[3], int row_z, int row_x, int site)
{
    step[0] = row_z;
    step[1] = row_x;
    step[2] = site;
}

CM_HOST cm_args_outer cm_outer_of(const cm_record *r, double *partial)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    cm_args_outer a;
    memset(&a, 0, sizeof a);
    a.ny = y->ny;
    a.in = x->nc;
    a.out = y->nc;
    a.kernel = r->kernel;
    a.roll = r->kernel == 3 && r->stride == 1;
    a.nz = r->wino ? cm_wino_tiles(y->nx) : y->nz;
    a.nx = r->wino ? y->nz : y->nx;
    a.fs = r->wino ? CM_WINO_F : 1;
    a.planes = r->wino ? 1 : r->kernel;
    a.count = (size_t)(a.fs * a.planes * r->kernel * r->kernel) * (size_t)(x->nc * y->nc);
    a.partial = partial;
    return a;
}

CM_HOST void cm_device_outer_direct(cm_graph *g, const cm_record *r, double *partial)
{
    cm_view x = cm_view_of(r->in[0], r->in[0]->x), dy = cm_view_of(r->out, r->out->dx);
    cm_args_outer a = cm_outer_of(r, partial);
    a.x = x.at - r->pad * (x.row_z + x.row_x + x.site);
    a.dy = dy.at;
    a.x_group = x.group;
    a.dy_group = dy.group;
    cm_outer_steps(a.x_step, r->stride * x.row_z, r->stride * x.row_x, r->stride * x.site);
    cm_outer_steps(a.dy_step, dy.row_z, dy.row_x, dy.site);
    cm_outer_steps(a.x_tap, x.row_z, x.row_x, x.site);
    cm_outer_groups(g, r, &a, 0, dy.groups);
}

/* Groups in parts of `most`, whose v and dm are made before their sums. */
CM_HOST void cm_device_outer_wino(cm_graph *g, const cm_record *r, double *partial,
                                  const cm_args_wino_v *v, float *dm, int most)
{
    cm_args_outer a = cm_outer_of(r, partial);
    cm_args_wino_dm am;
    int first, row = v->row * v->x.site;
    cm_view dy = cm_view_of(r->out, r->out->dx);
    cm_outer_steps(a.x_step, (v->x.nz + 2) * row, row, v->x.site);
    cm_outer_steps(a.dy_step, dy.nz * dy.ny * dy.site, dy.ny * dy.site, dy.site);
    cm_outer_steps(a.x_tap, 0, row, v->x.site);
    a.x_f = v->f;
    a.dy_f = (size_t)a.nz * (size_t)a.dy_step[0];
    a.x_group = v->size;
    a.dy_group = CM_WINO_F * a.dy_f;
    a.x = v->v;
    a.dy = am.dm = dm;
    am.dy = dy;
    for (first = 0; first < dy.groups; first += most) {
        int n = dy.groups - first < most ? dy.groups - first : most;
        am.group = first;
        cm_wino_make_v(g, v, first, n);
        cm_launch_wino_dm(g->unit, &am, (size_t)n * (size_t)(a.nz * dy.nz * dy.site));
        cm_outer_groups(g, r, &a, first, n);
    }
}

CM_HOST void cm_device_add_partials(cm_graph *g, const cm_record *r, double *partial)
{
    cm_args_outer outer = cm_outer_of(r, NULL);
    cm_args_partials a;
    a.partial = partial;
    a.dw = r->w.dx;
    a.count = outer.count;
    a.groups = r->out->groups;
    a.in = outer.in;
    a.out = outer.out;
    if (r->wino) cm_launch_wino_partials(g->unit, &a, outer.count / CM_WINO_F);
    else cm_launch_partials(g->unit, &a, outer.count);
}

static void cm_device_conv_to_weights(cm_graph *g, const cm_record *r)
{
    const cm_tensor *y = r->out;
    cm_args_wino_v v = cm_wino_v_of(r->in[0], r->in[0]->x, 0);
    size_t m_size = (size_t)(CM_WINO_F * cm_wino_tiles(y->nx))
                  * (size_t)(y->nz * y->ny * y->nc * CM_LANES);
    int most = cm_wino_part(y->groups, v.size + m_size);
    double *partial = cm_partials_take(g, y->groups, cm_outer_of(r, NULL).count);
    float *dm = NULL;
    if (r->wino) v.v = cm_arena_take(g, v.size * (size_t)most);
    if (r->wino) dm = cm_arena_take(g, m_size * (size_t)most);
    cm_give_back(g, dm);             /* nothing else is taken before the end */
    cm_give_back(g, v.v);
    cm_give_back(g, partial);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    if (r->wino) cm_device_outer_wino(g, r, partial, &v, dm, most);
    else cm_device_outer_direct(g, r, partial);
    cm_device_add_partials(g, r, partial);
}

/* ---------------------------------------------------------------- to the bias

   Rows are summed in real, in parallel; those of a group in double per channel and lane, in their
   order; then its lanes, then the groups. */

typedef struct cm_args_bias_rows {
    cm_view dy;
    float *sum;                      /* [row][channel][L] */
} cm_args_bias_rows;

CM_EACH(bias_rows)
{
    cm_column o = cm_column_of(&a->dy, i);
    const float *dy = cm_row_at(&a->dy, o.k, o.z, o.x) + o.j;
    float sum = 0;
    int s;
    for (s = 0; s < a->dy.ny; s++, dy += a->dy.site) sum += *dy;
    a->sum[i] = sum;
}

typedef struct cm_args_bias {
    const float *sum;
    double *partial;                 /* [group][channel] */
    uint32_t rows;                   /* of a group */
    int groups, nc;
} cm_args_bias;

CM_KERNEL(bias, 2, CM_THREADS * 8)   /* a unit is a group and channel, 8 a block, 16 lanes each */
{
    const int per = CM_THREADS / CM_LANES, unit = at.phase == 0 ? at.thread / CM_LANES : at.thread;
    const uint32_t u = at.block * (uint32_t)per + (uint32_t)unit, nc = (uint32_t)a->nc;
    double *sum = (double *)shared, s = 0;
    uint32_t i;
    if (unit >= per || u >= (uint32_t)a->groups * nc) return;
    if (at.phase == 0) {
        const float *row = a->sum + (size_t)(u / nc) * a->rows * nc * CM_LANES
                         + (u % nc * CM_LANES + (uint32_t)(at.thread % CM_LANES));
        CM_UNROLL16                  /* loads need not wait for the sum */
        for (i = 0; i < a->rows; i++, row += nc * CM_LANES) s += (double)*row;
        sum[at.thread] = s;
    } else {
        a->partial[u] = cm_lanes_sum(sum + unit * CM_LANES);
    }
}

static void cm_device_conv_to_bias(cm_graph *g, const cm_record *r)
{
    const cm_tensor *y = r->out;
    cm_args_bias_rows rows;
    cm_args_bias a;
    cm_args_partials add;
    rows.sum = cm_arena_take(g, cm_columns(y));
    a.partial = cm_partials_take(g, y->groups, (size_t)y->nc);
    cm_give_back(g, a.partial);      /* nothing else is taken before the end */
    cm_give_back(g, rows.sum);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    rows.dy = cm_view_of(y, y->dx);
    cm_launch_bias_rows(g->unit, &rows, cm_columns(y));
    a.sum = rows.sum;
    a.rows = (uint32_t)(y->nz * y->nx);
    a.groups = y->groups;
    a.nc = y->nc;
    cm_launch_bias(g->unit, &a, (size_t)(y->groups * y->nc + CM_THREADS / CM_LANES - 1)
                                    / (CM_THREADS / CM_LANES));
    memset(&add, 0, sizeof add);
    add.partial = a.partial;
    add.dw = r->bias.dx;
    add.count = (size_t)y->nc;
    add.groups = y->groups;
    cm_launch_partials(g->unit, &add, add.count);
}

#endif
