/* convolution.h - convolutions (7.5, 7.6 of calomu.c): forward and to the input; to the weights and
   the bias see weights.h

   `turned`: to the input.  Kernels then read dy and write dx, and inputs and outputs change places.
   Each has a plain version, an output after the other from the weights as they are, and a fast one
   from packed weights.  */
#ifndef CM_CONVOLUTION_H
#define CM_CONVOLUTION_H
#include "norm.h"
#include "tensor.h"
#include "weights.h"

typedef struct cm_args_conv {
    cm_view from, to;
    const float *w, *bias;           /* bias NULL: none */
    int kernel, stride, pad, turned, add;
    int strips, per_class;           /* fast: strips of a row, of one of its classes */
    int chunks;                      /* fast: of the channels of `to` */
    uint32_t units;                  /* fast: strips of all groups */
} cm_args_conv;

typedef cm_args_conv cm_args_conv_plain;
typedef cm_args_conv cm_args_input_plain;
typedef cm_args_conv cm_args_direct;
typedef cm_args_conv cm_args_wino_plain;

/* ---------------------------------------------------------------- plain */

/* Forward, a column of a row: kz, kx, ky, then the inputs in order. */
CM_EACH(conv_plain)
{
    cm_column o = cm_column_of(&a->to, i);
    float *y = cm_row_at(&a->to, o.k, o.z, o.x) + o.j;
    int c = o.j / CM_LANES, l = o.j % CM_LANES, kk = a->kernel * a->kernel, s, t, in;
    for (s = 0; s < a->to.ny; s++) {
        float sum = a->bias ? a->bias[c] : 0.0f;
        for (t = 0; t < kk * a->kernel; t++) {
            const float *x = cm_row_at(&a->from, o.k, o.z * a->stride - a->pad + t / kk,
                                       o.x * a->stride - a->pad + t / a->kernel % a->kernel)
                           + (s * a->stride - a->pad + t % a->kernel) * a->from.site + l;
            for (in = 0; in < a->from.nc; in++)
                sum = cm_fmaf(x[in * CM_LANES],
                              a->w[(c * a->from.nc + in) * (kk * a->kernel) + t], sum);
        }
        y[s * a->to.site] = sum;
    }
}

/* To the input: kz and kx rise, ky falls; only those that meet an output, which have j whole. */
CM_EACH(input_plain)
{
    cm_column o = cm_column_of(&a->to, i);
    float *dx = cm_row_at(&a->to, o.k, o.z, o.x) + o.j;
    int c = o.j / CM_LANES, l = o.j % CM_LANES, k = a->kernel, s, kz, kx, ky, out;
    for (s = 0; s < a->to.ny; s++) {
        float sum = a->add ? dx[s * a->to.site] : 0.0f;
        for (kz = (o.z + a->pad) % a->stride; kz < k; kz += a->stride)
            for (kx = (o.x + a->pad) % a->stride; kx < k; kx += a->stride)
                for (ky = k - 1; ky >= 0; ky--) {
                    int j = s + a->pad - ky, cell = (kz * k + kx) * k + ky;
                    const float *dy = cm_row_at(&a->from, o.k, (o.z + a->pad - kz) / a->stride,
                                                (o.x + a->pad - kx) / a->stride) + l;
                    if (j % a->stride != 0) continue;
                    for (out = 0; out < a->from.nc; out++)
                        sum = cm_fmaf(dy[j / a->stride * a->from.site + out * CM_LANES],
                                      a->w[(out * a->to.nc + c) * (k * k * k) + cell], sum);
                }
        dx[s * a->to.site] = sum;
    }
}

/* u[f] of a tap t = kz, ky, from the 27 cells of one input and output; in double. */
CM_DEVICE float cm_wino_u(const float *w, int f, int t, int turned)
{
    double u = 0;
    int kx;
    for (kx = 0; kx < 3; kx++) {
        int cell = t / 3 * 9 + kx * 3 + t % 3;
        u += cm_wino_g(f, kx) * (double)w[turned ? 26 - cell : cell];
    }
    return (float)u;
}

/* y = A' m, rows of outputs of a tile of `full`; m of f that it has not are zero. */
CM_DEVICE void cm_wino_out(const float m[CM_WINO_F], int full, float y[CM_WINO_ROWS])
{
    float p1 = m[2] + m[3], q1 = m[2] - m[3], p2 = m[4] + m[5], q2 = m[4] - m[5];
    float p3 = m[6] + m[7], q3 = m[6] - m[7];
    y[0] = m[1] + (p1 + p2 + p3);
    y[1] = cm_fmaf(0.5f, q3, cm_fmaf(2.0f, q2, q1));
    y[2] = cm_fmaf(0.25f, p3, cm_fmaf(4.0f, p2, p1));
    y[3] = cm_fmaf(0.125f, q3, cm_fmaf(8.0f, q2, q1));
    y[4] = cm_fmaf(0.0625f, p3, cm_fmaf(16.0f, p2, p1));
    y[5] = cm_fmaf(0.03125f, q3, cm_fmaf(32.0f, q2, q1));
    if (full == 6) y[5] += m[0];
    else y[3] += m[0];
}

/* The rows of a tile from x on, in plane z, at y; zeros outside. */
CM_DEVICE void cm_wino_cells(const cm_view *t, int k, int z, int x, int y, int j,
                             float d[CM_WINO_F])
{
    int p, inside = z >= 0 && z < t->nz && y >= 0 && y < t->ny;
    for (p = 0; p < CM_WINO_F; p++, x++)
        d[p] = inside && x >= 0 && x < t->nx ? cm_row_at(t, k, z, x)[y * t->site + j] : 0.0f;
}

CM_EACH(wino_plain)                  /* a column of a tile of a plane */
{
    cm_view tiles = cm_wino_tiled(&a->to);
    cm_column o = cm_column_of(&tiles, i);
    cm_wino_tile tile = cm_wino_tile_of(a->to.nx, o.z);
    int c = o.j / CM_LANES, l = o.j % CM_LANES, s, t, in, f, p;
    for (s = 0; s < a->to.ny; s++) {
        float m[CM_WINO_F] = { 0, 0, 0, 0, 0, 0, 0, 0 }, d[CM_WINO_F], v[CM_WINO_F];
        float y[CM_WINO_ROWS];
        for (t = 0; t < 9; t++)
            for (in = 0; in < a->from.nc; in++) {
                const float *w = a->w + (a->turned ? in * a->to.nc + c : c * a->from.nc + in) * 27;
                cm_wino_cells(&a->from, o.k, o.x + t / 3 - 1, tile.x - 1, s + t % 3 - 1,
                              in * CM_LANES + l, d);
                cm_wino_in(d, v, tile.full);
                for (f = 0; f < CM_WINO_F; f++)
                    m[f] = cm_fmaf(v[f], cm_wino_u(w, f, t, a->turned), m[f]);
            }
        cm_wino_out(m, tile.full, y);
        for (p = 0; p < tile.rows; p++) {
            float *at = cm_row_at(&a->to, o.k, o.x, tile.x + p) + s * a->to.site + o.j;
            *at = a->add ? y[p] + *at : y[p];
        }
    }
}

/* ---------------------------------------------------------------- packed weights

   Fast kernels compute chunks of up to 8 channels, equal in size.  What they read for an input is
   in one place, 8 weights (zeros behind the chunk's last), so that a warp, whose lanes all want the
   same, reads them as two times 16 bytes. */

enum { CM_WIDE = 8, CM_STRIP = 4, CM_PAIR = 2 };         /* channels, sites, sites with Winograd */

CM_DEVICE int cm_chunk_of(int n, int chunks, int i, int *first)
{
    *first = n * i / chunks;
    return n * (i + 1) / chunks - *first;
}

/* Direct: [chunk][cell][input][8]; Winograd: [chunk][kz][ky][input][f][8]. */
typedef struct cm_args_pack {
    const float *w;                  /* [out][in][cells] */
    float *packed;
    int ins, outs, cells, chunks, turned, wino;  /* ins, outs: of the kernel, so turned */
} cm_args_pack;

CM_EACH(pack)
{
    uint32_t fs = a->wino ? CM_WINO_F : 1, cells = (uint32_t)(a->wino ? 9 : a->cells);
    int f = (int)(i / CM_WIDE % fs), in, t, first, width, c = (int)(i % CM_WIDE);
    uint32_t u = i / CM_WIDE / fs;
    const float *w;
    in = (int)(u % (uint32_t)a->ins);
    u /= (uint32_t)a->ins;
    t = (int)(u % cells);
    width = cm_chunk_of(a->outs, a->chunks, (int)(u / cells), &first);
    w = a->w + (a->turned ? in * a->outs + first + c : (first + c) * a->ins + in) * a->cells;
    a->packed[i] = c >= width ? 0.0f : a->wino ? cm_wino_u(w, f, t, a->turned) : w[t];
}

CM_DEVICE void cm_eight(const float *w, float u[CM_WIDE])
{
    const cm_four *from = (const cm_four *)(const void *)w;
    cm_four p = from[0], q = from[1];
    int i;
    CM_UNROLL
    for (i = 0; i < 4; i++) {
        u[i] = p.at[i];
        u[i + 4] = q.at[i];
    }
}

/* A warp has two neighbouring units of one chunk, 16 lanes each; the chunks of two units are next
   to each other, as they read the same inputs. */
typedef struct cm_fast_at {
    uint32_t unit;
    int chunk, lane;
} cm_fast_at;

CM_DEVICE cm_fast_at cm_fast_of(int chunks, cm_at at)
{
    uint32_t warp = at.block * (CM_THREADS / 32) + (uint32_t)(at.thread / 32);
    cm_fast_at o;
    o.chunk = (int)(warp % (uint32_t)chunks);
    o.unit = warp / (uint32_t)chunks * 2 + (uint32_t)(at.thread / CM_LANES % 2);
    o.lane = at.thread % CM_LANES;
    return o;
}

CM_HOST size_t cm_fast_blocks(uint32_t units, int chunks)
{
    return (((size_t)units + 1) / 2 * (size_t)chunks + CM_THREADS / 32 - 1) / (CM_THREADS / 32);
}

/* ---------------------------------------------------------------- direct

   A thread has a strip of 4 sites along y and a chunk: 4 + 2 loads for 32 fused products, where the
   plain kernel has 64 (gains not measured yet on a GPU).  To the input, the sites of a strip are of
   one class, `stride` apart, so that they share their taps (17.5). */

typedef struct cm_walk {             /* taps z, x, y */
    int n[3], x[3], w[3];            /* how many, and reals from one to the next */
} cm_walk;

CM_DEVICE void cm_direct_strip(const cm_args_conv *a, const cm_walk *t, const float *x, int xstep,
                               const float *w, const float *bias, float *y, int ystep, int n,
                               const int S, const int W)
{
    float acc[CM_STRIP][CM_WIDE], u[CM_WIDE];
    int at[CM_STRIP], s, c, z, i, j, in;             /* sites behind the last: the last one again */
    CM_UNROLL
    for (s = 0; s < S; s++) {
        at[s] = (s < n ? s : n - 1) * xstep;
        CM_UNROLL
        for (c = 0; c < W; c++)
            acc[s][c] = bias ? bias[c]
                      : a->add ? y[(s < n ? s : n - 1) * ystep + c * CM_LANES] : 0.0f;
    }
    for (z = 0; z < t->n[0]; z++)
        for (i = 0; i < t->n[1]; i++)
            for (j = 0; j < t->n[2]; j++) {
                const float *xt = x + (z * t->x[0] + i * t->x[1] + j * t->x[2]);
                const float *wt = w + (z * t->w[0] + i * t->w[1] + j * t->w[2]);
                CM_UNROLL4
                for (in = 0; in < a->from.nc; in++) {
                    cm_eight(wt + in * CM_WIDE, u);
                    CM_UNROLL
                    for (s = 0; s < S; s++) {
                        float v = xt[at[s] + in * CM_LANES];
                        CM_UNROLL
                        for (c = 0; c < W; c++) acc[s][c] = cm_fmaf(v, u[c], acc[s][c]);
                    }
                }
            }
    CM_UNROLL
    for (s = 0; s < S; s++)
        CM_UNROLL
        for (c = 0; c < W; c++)
            if (s < n) y[s * ystep + c * CM_LANES] = acc[s][c];
}

#define CM_DIRECT_CASE(S, W) case S * 10 + W: \
    cm_direct_strip(a, t, x, xstep, w, bias, y, ystep, n, S, W); break;
CM_DEVICE void cm_direct_any(const cm_args_conv *a, const cm_walk *t, const float *x, int xstep,
                             const float *w, const float *bias, float *y, int ystep, int n,
                             int width)
{
    switch ((a->to.ny > 1 ? 10 * CM_STRIP : 10) + width) {
    CM_DIRECT_CASE(4, 1)
    CM_DIRECT_CASE(4, 2)
    CM_DIRECT_CASE(4, 3)
    CM_DIRECT_CASE(4, 4)
    CM_DIRECT_CASE(4, 5)
    CM_DIRECT_CASE(4, 6)
    CM_DIRECT_CASE(4, 7)
    CM_DIRECT_CASE(4, 8)
    CM_DIRECT_CASE(1, 1)
    CM_DIRECT_CASE(1, 2)
    CM_DIRECT_CASE(1, 3)
    CM_DIRECT_CASE(1, 4)
    CM_DIRECT_CASE(1, 5)
    CM_DIRECT_CASE(1, 6)
    CM_DIRECT_CASE(1, 7)
    CM_DIRECT_CASE(1, 8)
    default: break;
    }
}

CM_DEVICE cm_walk cm_walk_forward(const cm_args_conv *a)
{
    int k = a->kernel, cell = a->from.nc * CM_WIDE;
    cm_walk t;
    t.n[0] = t.n[1] = t.n[2] = k;
    t.x[0] = a->from.row_z;
    t.x[1] = a->from.row_x;
    t.x[2] = a->from.site;
    t.w[0] = k * k * cell;
    t.w[1] = k * cell;
    t.w[2] = cell;
    return t;
}

/* Of the class of m, the ky falling; moves m to the site of dy under the first tap, and returns
   that tap's cell. */
CM_DEVICE int cm_walk_turned(const cm_args_conv *a, int m[3], cm_walk *t)
{
    int p, first[3];
    *t = cm_walk_forward(a);
    for (p = 0; p < 3; p++) {
        first[p] = (m[p] + a->pad) % a->stride;
        t->n[p] = first[p] < a->kernel ? (a->kernel - first[p] + a->stride - 1) / a->stride : 0;
        t->x[p] = -t->x[p];
        t->w[p] *= a->stride;
    }
    first[2] += (t->n[2] - 1) * a->stride;
    t->x[2] = -t->x[2];
    t->w[2] = -t->w[2];
    for (p = 0; p < 3; p++) m[p] = (m[p] + a->pad - first[p]) / a->stride;
    return (first[0] * a->kernel + first[1]) * a->kernel + first[2];
}

CM_KERNEL(direct, 1, 0)
{
    cm_fast_at o = cm_fast_of(a->chunks, at);
    int class_, k, m[3], n, first, width, apart = a->turned ? a->stride : 1, cell = 0, p;
    size_t per = (size_t)(a->kernel * a->kernel * a->kernel) * (size_t)(a->from.nc * CM_WIDE);
    uint32_t row = o.unit / (uint32_t)a->strips;
    cm_walk t = cm_walk_forward(a);
    float *y;
    (void)shared;
    if (o.unit >= a->units) return;
    class_ = (int)(o.unit - row * (uint32_t)a->strips);
    m[2] = class_ % a->per_class * CM_STRIP * apart + class_ / a->per_class;
    n = (a->to.ny - m[2] + apart - 1) / apart;
    if (n <= 0) return;
    if (n > CM_STRIP) n = CM_STRIP;
    m[1] = (int)(row % (uint32_t)a->to.nx);
    row /= (uint32_t)a->to.nx;
    m[0] = (int)(row % (uint32_t)a->to.nz);
    k = (int)(row / (uint32_t)a->to.nz);
    width = cm_chunk_of(a->to.nc, a->chunks, o.chunk, &first);
    y = cm_row_at(&a->to, k, m[0], m[1]) + m[2] * a->to.site + first * CM_LANES + o.lane;
    if (a->turned) cell = cm_walk_turned(a, m, &t);
    else
        for (p = 0; p < 3; p++) m[p] = m[p] * a->stride - a->pad;
    cm_direct_any(a, &t, cm_row_at(&a->from, k, m[0], m[1]) + (m[2] * a->from.site + o.lane),
                  (a->turned ? 1 : a->stride) * a->from.site,
                  a->w + per * (size_t)o.chunk + cell * (a->from.nc * CM_WIDE),
                  a->bias ? a->bias + first : NULL, y, apart * a->to.site, n, width);
}

/* ---------------------------------------------------------------- Winograd's method

   v is made first.  A thread has a tile, two neighbours in y, and a chunk: 16 + 16 loads for 128
   fused products, which are those of 288 direct ones, where the plain kernel has 72 loads and the
   transforms for 8 (gains not measured yet on a GPU); all loads of an input are at constant
   distances.  Tiles of 4 rows leave the last two f out. */

typedef struct cm_args_wino {
    cm_view to;
    const float *v, *w;
    size_t v_size;                   /* of a group */
    int in, row, add, chunks;        /* row: sites of a row of v */
    uint32_t units;
} cm_args_wino;

/* The inputs of one tap; fs: how many f the tile has. */
CM_DEVICE void cm_wino_tap(const float *v, const float *w, int inputs, int fs,
                           float m[CM_PAIR][CM_WINO_F][CM_WIDE], const int W)
{
    float u[CM_WIDE];
    const float *next = v + inputs * (CM_WINO_F * CM_LANES);
    int in, f, c;
    for (in = 0; in < inputs; in++) {
        CM_UNROLL
        for (f = 0; f < CM_WINO_F; f++) {
            float v0 = v[f * CM_LANES], v1 = next[f * CM_LANES];
            if (f >= fs) continue;
            cm_eight(w + f * CM_WIDE, u);
            CM_UNROLL
            for (c = 0; c < W; c++) {
                m[0][f][c] = cm_fmaf(v0, u[c], m[0][f][c]);
                m[1][f][c] = cm_fmaf(v1, u[c], m[1][f][c]);
            }
        }
        v += CM_WINO_F * CM_LANES;
        next += CM_WINO_F * CM_LANES;
        w += CM_WINO_F * CM_WIDE;
    }
}

CM_DEVICE void cm_wino_store(const cm_args_wino *a, const float m[CM_WINO_F],
                             const cm_wino_tile *tile, float *y)
{
    float out[CM_WINO_ROWS];
    int p;
    cm_wino_out(m, tile->full, out);
    CM_UNROLL
    for (p = 0; p < CM_WINO_ROWS; p++)
        if (p < tile->rows) {
            float *to = y + p * a->to.row_x;
            *to = a->add ? out[p] + *to : out[p];
        }
}

/* v: of the first tap; to: of the first site and channel. */
CM_DEVICE void cm_wino_pair(const cm_args_wino *a, const float *v, const float *w, float *to,
                            const cm_wino_tile *tile, int sites, const int W)
{
    float m[CM_PAIR][CM_WINO_F][CM_WIDE], one[CM_WINO_F];
    int s, f, c, t, site = a->in * (CM_WINO_F * CM_LANES);
    CM_UNROLL
    for (s = 0; s < CM_PAIR; s++)
        CM_UNROLL
        for (f = 0; f < CM_WINO_F; f++)
            CM_UNROLL
            for (c = 0; c < W; c++) m[s][f][c] = 0;
    for (t = 0; t < 9; t++, w += a->in * (CM_WINO_F * CM_WIDE))
        cm_wino_tap(v + (t / 3 * a->row + t % 3) * site, w, a->in, tile->full + 2, m, W);
    CM_UNROLL
    for (s = 0; s < CM_PAIR; s++)
        CM_UNROLL
        for (c = 0; c < W; c++) {
            CM_UNROLL
            for (f = 0; f < CM_WINO_F; f++) one[f] = m[s][f][c];
            if (s < sites) cm_wino_store(a, one, tile, to + s * a->to.site + c * CM_LANES);
        }
}

#define CM_WINO_CASE(W) case W: cm_wino_pair(a, v, w, to, &tile, a->to.ny - y, W); break;
CM_KERNEL(wino, 1, 0)
{
    cm_fast_at o = cm_fast_of(a->chunks, at);
    uint32_t pairs = (uint32_t)((a->to.ny + 1) / 2), u = o.unit;
    uint32_t tiles = (uint32_t)cm_wino_tiles(a->to.nx);
    int k, z, y, first, width = cm_chunk_of(a->to.nc, a->chunks, o.chunk, &first), number;
    const float *v, *w = a->w + (size_t)o.chunk * (size_t)(9 * CM_WINO_F * CM_WIDE * a->in);
    cm_wino_tile tile;
    float *to;
    (void)shared;
    if (u >= a->units) return;
    y = (int)(u % pairs) * CM_PAIR;
    u /= pairs;
    z = (int)(u % (uint32_t)a->to.nz);
    u /= (uint32_t)a->to.nz;
    number = (int)(u % tiles);
    k = (int)(u / tiles);
    tile = cm_wino_tile_of(a->to.nx, number);
    v = a->v + a->v_size * (size_t)k + o.lane
      + (size_t)((number * (a->to.nz + 2) + z) * a->row + y)
            * (size_t)(a->in * (CM_WINO_F * CM_LANES));
    to = cm_row_at(&a->to, k, z, tile.x) + y * a->to.site + first * CM_LANES + o.lane;
    switch (width) {
    CM_WINO_CASE(1)
    CM_WINO_CASE(2)
    CM_WINO_CASE(3)
    CM_WINO_CASE(4)
    CM_WINO_CASE(5)
    CM_WINO_CASE(6)
    CM_WINO_CASE(7)
    CM_WINO_CASE(8)
    default: break;
    }
}

/* ---------------------------------------------------------------- forward, to the input */

static void cm_device_conv_plain(cm_graph *g, const cm_record *r, const cm_args_conv *a,
                                 const cm_tensor *to)
{
    size_t tiles = (size_t)(to->groups * cm_wino_tiles(to->nx))
                 * (size_t)(to->nz * to->nc * CM_LANES);
    if (r->wino) cm_launch_wino_plain(g->unit, a, tiles);
    else if (a->turned) cm_launch_input_plain(g->unit, a, cm_columns(to));
    else cm_launch_conv_plain(g->unit, a, cm_columns(to));
}

static void cm_device_conv_pack(cm_graph *g, const cm_record *r, cm_args_conv *a, float *packed,
                                int fresh)
{
    cm_args_pack p;
    p.w = a->w;
    p.packed = packed;
    p.ins = a->from.nc;
    p.outs = a->to.nc;
    p.cells = r->kernel * r->kernel * r->kernel;
    p.chunks = a->chunks;
    p.turned = a->turned;
    p.wino = r->wino;
    a->w = packed;
    if (!fresh) return;
    cm_launch_pack(g->unit, &p, (size_t)(a->chunks * CM_WIDE)
                                    * (size_t)(a->from.nc * (r->wino ? 9 * CM_WINO_F : p.cells)));
}

static void cm_device_direct(cm_graph *g, cm_args_conv *a)
{
    int classes = a->turned ? a->stride : 1;
    a->per_class = ((a->to.ny + classes - 1) / classes + CM_STRIP - 1) / CM_STRIP;
    a->strips = classes * a->per_class;
    a->units = (uint32_t)(a->to.groups * a->to.nz * a->to.nx * a->strips);
    cm_launch_direct(g->unit, a, cm_fast_blocks(a->units, a->chunks));
}

static void cm_device_wino(cm_graph *g, const cm_args_conv *c, const cm_args_wino_v *v, int most)
{
    cm_args_wino a;
    int first, n;
    a.to = c->to;
    a.v = v->v;
    a.w = c->w;
    a.v_size = v->size;
    a.in = c->from.nc;
    a.row = v->row;
    a.add = c->add;
    a.chunks = c->chunks;
    for (first = 0; first < c->to.groups; first += n) {
        n = c->to.groups - first < most ? c->to.groups - first : most;
        a.units = (uint32_t)(n * cm_wino_tiles(a.to.nx) * a.to.nz * ((a.to.ny + 1) / 2));
        cm_wino_make_v(g, v, first, n);
        cm_launch_wino(g->unit, &a, cm_fast_blocks(a.units, a.chunks));
        a.to.at += a.to.group * (size_t)n;
    }
}

CM_HOST cm_args_conv cm_args_conv_of(const cm_record *r, int turned, int add)
{
    const cm_tensor *from = turned ? r->out : r->in[0], *to = turned ? r->in[0] : r->out;
    cm_args_conv a;
    memset(&a, 0, sizeof a);
    a.from = cm_view_of(from, turned ? from->dx : from->x);
    a.to = cm_view_of(to, turned ? to->dx : to->x);
    a.w = r->w.x;
    a.bias = turned ? NULL : r->bias.x;
    a.kernel = r->kernel;
    a.stride = r->stride;
    a.pad = r->pad;
    a.turned = turned;
    a.add = add;
    a.chunks = (to->nc + CM_WIDE - 1) / CM_WIDE;
    return a;
}

/* turned 0: y = w x + bias; 1: dx (+)= w' dy. */
static void cm_device_conv_sum(cm_graph *g, const cm_record *r, int turned, int add)
{
    const cm_tensor *from = turned ? r->out : r->in[0], *to = turned ? r->in[0] : r->out;
    int cells = r->wino ? 9 * CM_WINO_F : r->kernel * r->kernel * r->kernel;
    int plain = g->unit->device->plain;
    cm_args_conv a = cm_args_conv_of(r, turned, add);
    cm_args_wino_v v = cm_wino_v_of(from, turned ? from->dx : from->x, 1);
    int most = cm_wino_part(from->groups, v.size);
    float *packed = NULL;
    int fresh = 0;
    if (cm_on_tensor_cores(g, r)) {
        cm_device_tensor(g, r, turned, add);
        return;
    }
    if (!plain)
        packed = cm_cached(g, r->w.x, (size_t)(a.chunks * CM_WIDE * from->nc) * (size_t)cells,
                           &fresh);
    if (!plain && r->wino) v.v = cm_arena_take(g, v.size * (size_t)most);
    cm_give_back(g, v.v);            /* nothing else is taken before the end */
    cm_give_back(g, packed);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    if (plain) {
        cm_device_conv_plain(g, r, &a, to);
        return;
    }
    cm_device_conv_pack(g, r, &a, packed, fresh);
    if (r->wino) cm_device_wino(g, &a, &v, most);
    else cm_device_direct(g, &a);
}

static void cm_device_conv(cm_graph *g, cm_record *r)
{
    cm_remember(g, r->in[0]);
    cm_device_conv_sum(g, r, 0, 0);
    cm_device_row_done(g, r);
}

static void cm_device_conv_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0];
    int add;
    if (r->w.dx) {
        cm_remember(g, x);
        if (cm_on_tensor_cores(g, r)) cm_device_tensor_weights(g, r);
        else cm_device_conv_to_weights(g, r);
        if (cm_cheap(x)) cm_forget(g, x);
    }
    if (r->bias.dx) cm_device_conv_to_bias(g, r);
    cm_profile_end(g, r, "to weights");
    if (!x->needs) return;
    add = cm_grad_begin(g, x);
    cm_device_conv_sum(g, r, 1, add);
}

#endif
