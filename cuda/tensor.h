/* tensor.h - convolutions on tensor cores, for --math fast

   The 16 muons of a group are the 16 rows of a matrix product of the hardware (m16n8k8, TF32), as
   they lie in memory:  y[muon][o] = sum over r of x[muon][r] w[r][o],  where r runs over the cells
   of the kernel that are neighbours in y and over their channels, which lie one behind the other.

   TF32 has 10 bits behind the point.  Each factor is split in two such numbers, a = a1 + a2 with
   a1 = round(a), a2 = round(a - a1), and a b is a1 b1 + a1 b2 + a2 b1: three products on tensor
   cores, about 21 bits, near float.  Sums are in the order of the hardware: results are the same
   from run to run, but not those of the processor.  Direct sums, no Winograd: its transforms would
   cost what the tensor cores gain.

   A warp works on fragments that are spread over its 32 threads, so these kernels are written for
   a warp: CM_EACH_OF_WARP(t) is the calling thread in CUDA and a loop over all of them in C. */
#ifndef CM_TENSOR_H
#define CM_TENSOR_H
#include "launch.h"

#ifdef __CUDACC__
enum { CM_WARP_HERE = 1 };           /* threads of the warp in one call */
#define CM_EACH_OF_WARP(t) for (t = (int)(threadIdx.x % 32), once = 1; once; once = 0)
#define CM_HERE(t) 0
#define CM_FIRST_OF_WARP(thread) ((void)(thread), 1)
#else
enum { CM_WARP_HERE = 32 };
#define CM_EACH_OF_WARP(t) for (t = 0, once = 0; t < 32; t++, (void)once)
#define CM_HERE(t) (t)
#define CM_FIRST_OF_WARP(thread) ((thread) % 32 == 0)
#endif

/* Fragments of a thread (NVIDIA, PTX ISA, mma.m16n8k8): with g = t/4, q = t%4
       a: (row g, column q), (g + 8, q), (g, q + 4), (g + 8, q + 4)
       b: (row q, column g), (q + 4, g)       c: (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1)
   each of a and b as its two parts. */
typedef struct cm_frag_a { float one[4], two[4]; } cm_frag_a;
typedef struct cm_frag_b { float one[2], two[2]; } cm_frag_b;
typedef struct cm_frag_c { float v[4]; } cm_frag_c;

CM_DEVICE float cm_tf32(float a)                 /* nearest, ties away from zero */
{
#ifdef __CUDACC__
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t u;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(u) : "f"(a));
    return __uint_as_float(u);
#else
    return a;                                    /* not called: the device is refused */
#endif
#else
    union { float f; uint32_t u; } v;
    v.f = a;
    if ((v.u & 0x7f800000u) != 0x7f800000u) v.u = (v.u + 0x1000u) & ~0x1fffu;
    return v.f;
#endif
}

CM_DEVICE void cm_split(float a, float *one, float *two)
{
    *one = cm_tf32(a);
    *two = cm_tf32(a - *one);
}

/* c += a b of a warp, for one pair of parts. */
#ifdef __CUDACC__
CM_DEVICE void cm_mma_part(cm_frag_c *c, const float *a, const float *b)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9},"
        " {%0,%1,%2,%3};"
        : "+f"(c->v[0]), "+f"(c->v[1]), "+f"(c->v[2]), "+f"(c->v[3])
        : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
          "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#else
    (void)c;
    (void)a;
    (void)b;
#endif
}

CM_DEVICE void cm_mma(cm_frag_c *c, const cm_frag_a *a, const cm_frag_b *b)
{
    cm_mma_part(c, a->two, b->one);              /* the small ones first */
    cm_mma_part(c, a->one, b->two);
    cm_mma_part(c, a->one, b->one);
}
#else
CM_DEVICE void cm_mma(cm_frag_c *c, const cm_frag_a *a, const cm_frag_b *b)
{
    float one[16][8], two[16][8], w1[8][8], w2[8][8], sum[8];    /* whole matrices */
    int t, i, j, k;
    for (t = 0; t < 32; t++)
        for (i = 0; i < 4; i++) {
            one[t / 4 + i % 2 * 8][t % 4 + i / 2 * 4] = a[t].one[i];
            two[t / 4 + i % 2 * 8][t % 4 + i / 2 * 4] = a[t].two[i];
            if (i < 2) w1[t % 4 + 4 * i][t / 4] = b[t].one[i];
            if (i < 2) w2[t % 4 + 4 * i][t / 4] = b[t].two[i];
        }
    for (i = 0; i < 16; i++) {
        for (j = 0; j < 8; j++) sum[j] = 0;
        for (k = 0; k < 8; k++)
            for (j = 0; j < 8; j++)
                sum[j] += two[i][k] * w1[k][j] + one[i][k] * w2[k][j] + one[i][k] * w1[k][j];
        for (j = 0; j < 8; j++) c[i % 8 * 4 + j / 2].v[j % 2 + i / 8 * 2] += sum[j];
    }
}
#endif

typedef struct cm_pair { float v[2]; } cm_pair;          /* 8 bytes at once */
#ifdef __CUDACC__
CM_DEVICE cm_pair cm_pair_at(const float *p)
{
    float2 f = *(const float2 *)(const void *)p;
    cm_pair o;
    o.v[0] = f.x;
    o.v[1] = f.y;
    return o;
}
#else
CM_DEVICE cm_pair cm_pair_at(const float *p)
{
    cm_pair o;
    o.v[0] = p[0];
    o.v[1] = p[1];
    return o;
}
#endif

/* ---------------------------------------------------------------- forward, and to the input

   Both are sums over taps of a source x, with steps: output m along an axis reads the positions
       forward    m*stride - pad + k            for k = 0 .. kernel - 1
       turned     (m + pad - k)/stride          for the k = m + pad (mod stride), falling
   where the source is the input, or the gradient of the result.  Outputs m with the same
   (m + pad) % stride, a class, use the same k; forward there is one class. */
typedef struct cm_args_tensor {
    cm_view x, y;
    const cm_four *w;                /* packed: see below */
    int kernel, stride, pad, turned, add;
    int classes, steps, chunks;      /* of outputs along y; of 8 numbers r; of 8 channels o */
    int strips;                      /* of CM_SITES outputs of a class along y */
} cm_args_tensor;

enum { CM_SITES = 4, CM_TENSOR_CHUNKS = 2 };            /* sites and chunks of channels of a warp */

/* Largest k of a class, and how many there are. */
CM_DEVICE int cm_class_last(int kernel, int stride, int c)
{
    return c < kernel ? (kernel - 1 - c) / stride * stride + c : -1;
}

CM_DEVICE int cm_class_count(int kernel, int stride, int c)
{
    return c < kernel ? (kernel - 1 - c) / stride + 1 : 0;
}

/* Packed weights: [class][kz][kx][chunk][step][t] of b's fragments with both parts. */
typedef struct cm_args_tpack {
    const float *w;                  /* [out][in][kernel^3] */
    float *packed;
    int in, out, kernel, stride, turned, steps, chunks;
} cm_args_tpack;

CM_DEVICE float cm_tensor_weight(const cm_args_tpack *a, int c, int kz, int kx, int r, int n)
{
    int from = a->turned ? a->out : a->in, to = a->turned ? a->in : a->out;
    int tap = r / from, i = r - tap * from, ky = tap;
    int count = a->turned ? cm_class_count(a->kernel, a->stride, c) : a->kernel;
    if (tap >= count || n >= to) return 0;
    if (a->turned) ky = cm_class_last(a->kernel, a->stride, c) - tap * a->stride;
    return a->w[(((size_t)(a->turned ? i * a->in + n : n * a->in + i) * (size_t)a->kernel
                  + (size_t)kz) * (size_t)a->kernel + (size_t)kx) * (size_t)a->kernel
                + (size_t)ky];
}

CM_EACH(tpack)
{
    uint32_t t = i % 32, rest = i / 32;
    int step = (int)(rest % (uint32_t)a->steps), chunk, kz, kx, j;
    rest /= (uint32_t)a->steps;
    chunk = (int)(rest % (uint32_t)a->chunks);
    rest /= (uint32_t)a->chunks;
    kx = (int)(rest % (uint32_t)a->kernel);
    rest /= (uint32_t)a->kernel;
    kz = (int)(rest % (uint32_t)a->kernel);
    for (j = 0; j < 2; j++) {
        float w = cm_tensor_weight(a, (int)(rest / (uint32_t)a->kernel), kz, kx,
                                   8 * step + (int)(t % 4) + 4 * j, 8 * chunk + (int)(t / 4));
        cm_split(w, a->packed + 4 * (size_t)i + j, a->packed + 4 * (size_t)i + 2 + j);
    }
}

typedef struct cm_tensor_strip {            /* a warp's outputs: sites m = first + s*step, s < n */
    int k, z, x, c, first, step, n, chunk;
    int at, move;                    /* position along y of the first tap of s = 0; from s to s+1 */
    int run;                         /* numbers r */
} cm_tensor_strip;

CM_DEVICE cm_tensor_strip cm_tensor_strip_of(const cm_args_tensor *a, uint32_t u)
{
    cm_tensor_strip o;
    int pairs = (a->chunks + CM_TENSOR_CHUNKS - 1) / CM_TENSOR_CHUNKS, j, sites;
    o.chunk = (int)(u % (uint32_t)pairs) * CM_TENSOR_CHUNKS;
    u /= (uint32_t)pairs;
    j = (int)(u % (uint32_t)a->strips) * CM_SITES;
    u /= (uint32_t)a->strips;
    o.c = (int)(u % (uint32_t)a->classes);
    u /= (uint32_t)a->classes;
    o.x = (int)(u % (uint32_t)a->y.nx);
    u /= (uint32_t)a->y.nx;
    o.z = (int)(u % (uint32_t)a->y.nz);
    o.k = (int)(u / (uint32_t)a->y.nz);
    if (a->turned) {                 /* the first m of class c: (m + pad) % stride = c */
        int first = ((o.c - a->pad) % a->stride + a->stride) % a->stride;
        int last = cm_class_last(a->kernel, a->stride, o.c);
        o.step = a->stride;
        sites = (a->y.ny - first + a->stride - 1) / a->stride;
        o.first = first + j * a->stride;
        o.at = (o.first + a->pad - last) / a->stride;    /* exact, also below zero */
        o.move = 1;
        o.run = cm_class_count(a->kernel, a->stride, o.c) * a->x.nc;
    } else {
        o.step = 1;
        sites = a->y.ny;
        o.first = j;
        o.at = j * a->stride - a->pad;
        o.move = a->stride;
        o.run = a->kernel * a->x.nc;
    }
    o.n = sites - j < CM_SITES ? sites - j : CM_SITES;
    return o;
}

/* The fragments of one tap: all r of the sites of a strip.  Row g of the product is muon 2g, row
   g + 8 muon 2g + 1, so that a thread reads and writes pairs. */
CM_DEVICE void cm_tensor_tap(const cm_args_tensor *a, const cm_tensor_strip *o, const float *row,
                             const cm_four *w, cm_frag_c (*c)[CM_TENSOR_CHUNKS][CM_WARP_HERE])
{
    cm_frag_a fa[CM_SITES][CM_WARP_HERE];
    cm_frag_b fb[CM_TENSOR_CHUNKS][CM_WARP_HERE];
    int step, s, q, t, once, j;
    for (step = 0; 8 * step < o->run; step++) {
        CM_UNROLL
        for (s = 0; s < CM_SITES; s++)
            CM_EACH_OF_WARP(t)
                for (j = 0; j < 2; j++) {
                    int r = 8 * step + t % 4 + 4 * j;
                    cm_frag_a *f = &fa[s][CM_HERE(t)];
                    cm_pair v = { { 0, 0 } };
                    if (s < o->n && r < o->run)
                        v = cm_pair_at(row + (ptrdiff_t)s * o->move * a->x.site + r * CM_LANES
                                       + 2 * (t / 4));
                    cm_split(v.v[0], &f->one[2 * j], &f->two[2 * j]);
                    cm_split(v.v[1], &f->one[2 * j + 1], &f->two[2 * j + 1]);
                }
        CM_UNROLL
        for (q = 0; q < CM_TENSOR_CHUNKS; q++) {
            CM_EACH_OF_WARP(t) {
                cm_four v = { { 0, 0, 0, 0 } };
                cm_frag_b *f = &fb[q][CM_HERE(t)];
                if (o->chunk + q < a->chunks) v = w[(q * a->steps + step) * 32 + t];
                f->one[0] = v.at[0];
                f->one[1] = v.at[1];
                f->two[0] = v.at[2];
                f->two[1] = v.at[3];
            }
            CM_UNROLL
            for (s = 0; s < CM_SITES; s++) cm_mma(c[s][q], fa[s], fb[q]);
        }
    }
}

CM_KERNEL(tensor, 1, 0)
{
    cm_frag_c c[CM_SITES][CM_TENSOR_CHUNKS][CM_WARP_HERE];
    cm_tensor_strip o;
    int kz, kx, s, q, t, once, i, turned = a->turned, step = turned ? a->stride : 1;
    uint32_t units = (uint32_t)((a->chunks + CM_TENSOR_CHUNKS - 1) / CM_TENSOR_CHUNKS)
                   * (uint32_t)(a->strips * a->classes)
                   * (uint32_t)(a->y.nx * a->y.nz) * (uint32_t)a->y.groups;
    uint32_t u = at.block * (CM_THREADS / 32) + (uint32_t)at.thread / 32;
    (void)shared;
    if (u >= units || !CM_FIRST_OF_WARP(at.thread)) return;
    o = cm_tensor_strip_of(a, u);
    memset(c, 0, sizeof c);
    if (o.n <= 0) return;
    for (kz = turned ? (o.z + a->pad) % a->stride : 0; kz < a->kernel; kz += step)
        for (kx = turned ? (o.x + a->pad) % a->stride : 0; kx < a->kernel; kx += step) {
            int z = turned ? (o.z + a->pad - kz) / a->stride : o.z * a->stride - a->pad + kz;
            int x = turned ? (o.x + a->pad - kx) / a->stride : o.x * a->stride - a->pad + kx;
            const float *row = cm_row_at(&a->x, o.k, z, x) + (ptrdiff_t)o.at * a->x.site;
            size_t tap = (size_t)((o.c * a->kernel + kz) * a->kernel + kx) * (size_t)a->chunks
                       + (size_t)o.chunk;
            cm_tensor_tap(a, &o, row, a->w + tap * (size_t)a->steps * 32, c);
        }
    for (s = 0; s < CM_SITES && s < o.n; s++)
        for (q = 0; q < CM_TENSOR_CHUNKS; q++)
            CM_EACH_OF_WARP(t)
                for (i = 0; i < 4; i++) {
                    int n = 8 * (o.chunk + q) + 2 * (t % 4) + i % 2;
                    float *y = cm_row_at(&a->y, o.k, o.z, o.x)
                             + (o.first + s * o.step) * a->y.site + n * CM_LANES
                             + 2 * (t / 4) + i / 2;
                    if (n < a->y.nc)
                        *y = a->add ? *y + c[s][q][CM_HERE(t)].v[i] : c[s][q][CM_HERE(t)].v[i];
                }
}

static void cm_device_tensor(cm_graph *g, const cm_record *r, int turned, int add)
{
    const cm_tensor *x = turned ? r->out : r->in[0], *y = turned ? r->in[0] : r->out;
    cm_args_tensor a;
    cm_args_tpack p;
    size_t pairs, items;
    int most = turned ? (r->kernel + r->stride - 1) / r->stride : r->kernel, sites, fresh;
    float *packed;
    a.classes = turned ? r->stride : 1;
    a.steps = (most * x->nc + 7) / 8;
    a.chunks = (y->nc + 7) / 8;
    items = (size_t)(a.classes * r->kernel * r->kernel * a.chunks * a.steps) * 32;
    packed = cm_cached(g, r->w.x, 4 * items, &fresh);
    cm_give_back(g, packed);
    if (!packed || cm_dry(g)) return;
    p.w = r->w.x;
    p.packed = packed;
    p.in = r->in[0]->nc;
    p.out = r->out->nc;
    p.kernel = r->kernel;
    p.stride = r->stride;
    p.turned = turned;
    p.steps = a.steps;
    p.chunks = a.chunks;
    if (fresh) cm_launch_tpack(g->unit, &p, items);
    a.x = cm_view_of(x, turned ? x->dx : x->x);
    a.y = cm_view_of(y, turned ? y->dx : y->x);
    a.w = (const cm_four *)(const void *)packed;
    a.kernel = r->kernel;
    a.stride = r->stride;
    a.pad = r->pad;
    a.turned = turned;
    a.add = add;
    sites = (y->ny + a.classes - 1) / a.classes;
    a.strips = (sites + CM_SITES - 1) / CM_SITES;
    pairs = (size_t)((a.chunks + CM_TENSOR_CHUNKS - 1) / CM_TENSOR_CHUNKS * a.strips * a.classes)
          * (size_t)(y->nx * y->nz) * (size_t)y->groups;
    cm_launch_tensor(g->unit, &a, (pairs + CM_THREADS / 32 - 1) / (CM_THREADS / 32));
}

/* ---------------------------------------------------------------- to the weights

   dw[r][o] = sum over groups, sites, muons of x[r][muon] dy[o][muon]:  now the muons are summed, in
   two steps of 8.  Column q of the first step is muon 4q, column q + 4 muon 4q + 1, of the second
   4q + 2 and 4q + 3, so that a thread reads four at once.  A warp has 16 numbers r of one (kz, kx),
   16 channels o, and the sites of some planes of a group; parts are added in their order. */
typedef struct cm_args_twgrad {
    cm_view x, dy;
    float *partial;                  /* [part][kz][kx][r][o] */
    int kernel, stride, pad;
    int slices;                      /* parts of a group */
    int tiles, chunks;               /* of 16 numbers r; of 16 channels o */
} cm_args_twgrad;

CM_DEVICE cm_four cm_four_at(const float *p, int there)
{
    cm_four zero = { { 0, 0, 0, 0 } };
    return there ? *(const cm_four *)(const void *)p : zero;
}

/* One site: x at the first r of the warp, dy at its first o. */
CM_DEVICE void cm_twgrad_site(const float *x, int rs, const float *dy, int os,
                              cm_frag_c (*c)[CM_WARP_HERE])
{
    cm_frag_a fa[2][CM_WARP_HERE];
    cm_frag_b fb[2][2][CM_WARP_HERE];
    int t, once, h, q, i;
    CM_EACH_OF_WARP(t)
        for (h = 0; h < 2; h++) {                /* row g, g + 8; channel g of either chunk */
            int n = t / 4 + 8 * h;
            cm_four v = cm_four_at(x + n * CM_LANES + 4 * (t % 4), n < rs);
            cm_four d = cm_four_at(dy + n * CM_LANES + 4 * (t % 4), n < os);
            for (i = 0; i < 4; i++) {            /* step i/2, column q or q + 4 */
                cm_frag_a *f = &fa[i / 2][CM_HERE(t)];
                cm_frag_b *b = &fb[h][i / 2][CM_HERE(t)];
                cm_split(v.at[i], &f->one[h + 2 * (i % 2)], &f->two[h + 2 * (i % 2)]);
                cm_split(d.at[i], &b->one[i % 2], &b->two[i % 2]);
            }
        }
    CM_UNROLL
    for (q = 0; q < 2; q++)
        CM_UNROLL
        for (i = 0; i < 2; i++) cm_mma(c[q], fa[i], fb[q][i]);
}

CM_KERNEL(twgrad, 1, 0)
{
    cm_frag_c c[2][CM_WARP_HERE];
    uint32_t units = (uint32_t)(a->chunks * a->tiles * a->kernel * a->kernel * a->slices)
                   * (uint32_t)a->x.groups;
    uint32_t u = at.block * (CM_THREADS / 32) + (uint32_t)at.thread / 32;
    int o, r, kx, kz, slice, k, z, x, y, q, t, once, i, run = a->kernel * a->x.nc;
    float *partial;
    (void)shared;
    if (u >= units || !CM_FIRST_OF_WARP(at.thread)) return;
    o = 16 * (int)(u % (uint32_t)a->chunks);
    u /= (uint32_t)a->chunks;
    r = 16 * (int)(u % (uint32_t)a->tiles);
    u /= (uint32_t)a->tiles;
    kx = (int)(u % (uint32_t)a->kernel);
    u /= (uint32_t)a->kernel;
    kz = (int)(u % (uint32_t)a->kernel);
    u /= (uint32_t)a->kernel;
    slice = (int)(u % (uint32_t)a->slices);
    k = (int)(u / (uint32_t)a->slices);
    memset(c, 0, sizeof c);
    for (z = slice; z < a->dy.nz; z += a->slices)
        for (x = 0; x < a->dy.nx; x++) {
            const float *from = cm_row_at(&a->x, k, z * a->stride - a->pad + kz,
                                          x * a->stride - a->pad + kx)
                              - a->pad * a->x.site + r * CM_LANES;
            const float *dy = cm_row_at(&a->dy, k, z, x) + o * CM_LANES;
            for (y = 0; y < a->dy.ny; y++, from += a->stride * a->x.site, dy += a->dy.site)
                cm_twgrad_site(from, run - r, dy, a->dy.nc - o, c);
        }
    partial = a->partial + (size_t)(((k * a->slices + slice) * a->kernel + kz) * a->kernel + kx)
                               * (size_t)(run * a->dy.nc);
    for (q = 0; q < 2; q++)
        CM_EACH_OF_WARP(t)
            for (i = 0; i < 4; i++) {
                int row = r + t / 4 + 8 * (i / 2), column = o + 8 * q + 2 * (t % 4) + i % 2;
                if (row < run && column < a->dy.nc)
                    partial[row * a->dy.nc + column] = c[q][CM_HERE(t)].v[i];
            }
}

/* dw[o][i][kz][kx][ky] += the parts, in their order. */
typedef struct cm_args_tadd {
    const float *partial;
    float *dw;
    int in, out, kernel, parts;
} cm_args_tadd;

CM_EACH(tadd)
{
    uint32_t taps = (uint32_t)(a->kernel * a->kernel), o, rest, run, r;
    size_t n = (size_t)taps * (size_t)(a->kernel * a->in) * (size_t)a->out;
    double sum = 0;
    int p;
    o = i % (uint32_t)a->out;        /* neighbouring threads read neighbouring parts */
    rest = i / (uint32_t)a->out;
    run = (uint32_t)(a->kernel * a->in);
    r = rest % run;
    rest /= run;
    for (p = 0; p < a->parts; p++) sum += (double)a->partial[(size_t)p * n + (size_t)i];
    a->dw[((size_t)(o * (uint32_t)a->in + r % (uint32_t)a->in) * taps + rest)
              * (size_t)a->kernel + r / (uint32_t)a->in] += (float)sum;
}

static void cm_device_tensor_weights(cm_graph *g, const cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    cm_args_twgrad a;
    cm_args_tadd s;
    size_t n = (size_t)(r->kernel * r->kernel * r->kernel) * (size_t)(x->nc * y->nc), units;
    float *partial;
    a.slices = y->nz < 8 ? y->nz : 8;            /* enough warps for all multiprocessors */
    a.tiles = (r->kernel * x->nc + 15) / 16;
    a.chunks = (y->nc + 15) / 16;
    partial = cm_arena_take(g, n * (size_t)(y->groups * a.slices));
    cm_give_back(g, partial);
    if (!partial || cm_dry(g)) return;
    a.x = cm_view_of(x, x->x);
    a.dy = cm_view_of(y, y->dx);
    a.partial = partial;
    a.kernel = r->kernel;
    a.stride = r->stride;
    a.pad = r->pad;
    units = (size_t)(a.chunks * a.tiles * a.kernel * a.kernel * a.slices) * (size_t)y->groups;
    cm_launch_twgrad(g->unit, &a, (units + CM_THREADS / 32 - 1) / (CM_THREADS / 32));
    s.partial = partial;
    s.dw = r->w.dx;
    s.in = x->nc;
    s.out = y->nc;
    s.kernel = r->kernel;
    s.parts = y->groups * a.slices;
    cm_launch_tadd(g->unit, &s, n);
}

/* Whether a convolution runs on tensor cores: not those of one site, which are too small. */
CM_HOST int cm_on_tensor_cores(const cm_graph *g, const cm_record *r)
{
    const cm_tensor *y = r->out;
    return g->unit->math == CALOMU_MATH_FAST && !r->bias.x && y->nz * y->nx * y->ny > 1;
}

#endif
