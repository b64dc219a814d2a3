/* launch.h - what a kernel is, in CUDA and in C

   A kernel here is a function of its arguments, its block and its thread, and of a phase: between
   two phases all threads of a block meet (__syncthreads).  Nothing but memory survives from one
   phase to the next.  nvcc makes GPU code of it (cuda.cu).  Any C compiler makes a function that
   emulated.c calls for every block, phase and thread in turn, so that the ordinary tests run every
   kernel without a GPU.

   Bits.  Additions, products, quotients, roots and fused products are IEEE on both.  Whatever is
   summed is summed in the order of calomu.c, over muons in its tree, without atomics: results are
   equal to the processor's to the last bit.  nvcc must not fuse products on its own
   (-fmad=false); those that calomu.c fuses are written as cm_fmaf.

   Letters: those of calomu.c; k group, z, x, y site, c channel, l lane, i item of a launch.  */
#ifndef CM_LAUNCH_H
#define CM_LAUNCH_H

#ifndef CALOMU_INTERNALS
#define CALOMU_INTERNALS
#endif
#include "../calomu.h"
#include <math.h>
#include <string.h>

/* One dimension of blocks of CM_THREADS threads; a warp is the 16 lanes of two neighbours. */
enum { CM_THREADS = 128 };

typedef struct cm_at {               /* where in the launch */
    uint32_t block;
    int thread, phase;
} cm_at;

#ifdef __CUDACC__
#define CM_DEVICE static __device__ __forceinline__
#define CM_HOST static __host__
#define CM_BOTH static __host__ __device__
#define cm_fmaf __fmaf_rn
#define cm_fmad __fma_rn
#else
#if defined(__GNUC__)
#define CM_DEVICE static inline __attribute__((unused))
#define CM_HOST static __attribute__((unused))
#define CM_BOTH CM_HOST
#define cm_fmaf __builtin_fmaf
#define cm_fmad __builtin_fma
#else
#define CM_DEVICE static inline
#define CM_HOST static
#define CM_BOTH static
#define cm_fmaf fmaf
#define cm_fmad fma
#endif
#endif

/* CM_KERNEL(name, phases, shared bytes) { body } defines kernel `name` with arguments `a` of type
   cm_args_NAME, position `at`, and memory `shared` of its block; and cm_launch_NAME(u, &args,
   blocks).  CM_EACH(name) { body } is the simple case, one phase and no shared memory: the body is
   run for items i < n of cm_launch_NAME(u, &args, n). */
#ifdef __CUDACC__
#define CM_KERNEL(name, phases, bytes) \
    CM_DEVICE void cm_kernel_##name(const cm_args_##name *a, cm_at at, void *shared); \
    static __global__ void __launch_bounds__(CM_THREADS) \
    cm_global_##name(const __grid_constant__ cm_args_##name a) \
    { \
        __shared__ __align__(16) unsigned char shared[(bytes) > 0 ? (bytes) : 16]; \
        cm_at at; \
        at.block = blockIdx.x; \
        at.thread = (int)threadIdx.x; \
        for (at.phase = 0; at.phase < (phases); at.phase++) { \
            if (at.phase > 0) __syncthreads(); \
            cm_kernel_##name(&a, at, shared); \
        } \
    } \
    static void cm_launch_##name(cm_unit *u, const cm_args_##name *a, size_t blocks) \
    { \
        if (!cm_launch_begin(u, blocks)) return; \
        cm_global_##name<<<(unsigned)blocks, CM_THREADS, 0, cm_stream(u)>>>(*a); \
        cm_launch_end(u, #name); \
    } \
    CM_DEVICE void cm_kernel_##name(const cm_args_##name *a, cm_at at, void *shared)
#else
#define CM_KERNEL(name, phases, bytes) \
    CM_DEVICE void cm_kernel_##name(const cm_args_##name *a, cm_at at, void *shared); \
    static void cm_call_##name(const void *a, cm_at at, void *shared) \
    { \
        cm_kernel_##name((const cm_args_##name *)a, at, shared); \
    } \
    CM_HOST void cm_launch_##name(cm_unit *u, const cm_args_##name *a, size_t blocks) \
    { \
        cm_emulate(u, cm_call_##name, a, sizeof *a, blocks, (phases), (bytes)); \
    } \
    CM_DEVICE void cm_kernel_##name(const cm_args_##name *a, cm_at at, void *shared)
#endif

/* Blocks for n items; more than any launch can have, which is then refused, if they are too many
   for their numbers. */
CM_HOST size_t cm_blocks_for(size_t n)
{
    return n > (size_t)UINT32_MAX - CM_THREADS ? SIZE_MAX : (n + CM_THREADS - 1) / CM_THREADS;
}

#define CM_EACH(name) \
    typedef struct cm_args_each_##name { \
        cm_args_##name a; \
        uint32_t n; \
    } cm_args_each_##name; \
    CM_DEVICE void cm_item_##name(const cm_args_##name *a, uint32_t i); \
    CM_KERNEL(each_##name, 1, 0) \
    { \
        uint32_t i = at.block * (uint32_t)CM_THREADS + (uint32_t)at.thread; \
        (void)shared; \
        if (i < a->n) cm_item_##name(&a->a, i); \
    } \
    CM_HOST void cm_launch_##name(cm_unit *u, const cm_args_##name *a, size_t n) \
    { \
        cm_args_each_##name each; \
        each.a = *a; \
        each.n = (uint32_t)n; \
        cm_launch_each_##name(u, &each, cm_blocks_for(n)); \
    } \
    CM_DEVICE void cm_item_##name(const cm_args_##name *a, uint32_t i)

#ifdef __CUDACC__
#define CM_UNROLL _Pragma("unroll")
#define CM_UNROLL4 _Pragma("unroll 4")
#define CM_UNROLL16 _Pragma("unroll 16")
#else
#define CM_UNROLL
#define CM_UNROLL4
#define CM_UNROLL16
#endif

/* 16 bytes that are read at once. */
typedef struct
#ifdef __CUDACC__
    __align__(16)
#endif
    cm_four {
    float at[4];
} cm_four;

/* What cuda.cu or emulated.c brings. */
#ifdef __CUDACC__
static int cm_launch_begin(cm_unit *u, size_t blocks);   /* 0: nothing to do, or a failure before */
static void cm_launch_end(cm_unit *u, const char *name);
static cudaStream_t cm_stream(cm_unit *u);
#else
typedef void cm_call(const void *a, cm_at at, void *shared);
static void cm_emulate(cm_unit *u, cm_call *call, const void *a, size_t size, size_t blocks,
                       int phases, size_t bytes);
#endif

/* A tensor as kernels see it: values or gradient. */
typedef struct cm_view {
    float *at;                       /* interior site (0, 0, 0) of group 0 */
    int muons, groups, nz, nx, ny, nc;
    int site, row_x, row_z;          /* reals from site to site along y, x, z */
    size_t group;                    /* reals from group to group */
} cm_view;

CM_HOST cm_view cm_view_of(const cm_tensor *t, float *base)
{
    cm_view v;
    v.at = base ? base + t->origin : NULL;
    v.muons = t->muons;
    v.groups = t->groups;
    v.nz = t->nz;
    v.nx = t->nx;
    v.ny = t->ny;
    v.nc = t->nc;
    v.site = t->nc * CM_LANES;
    v.row_x = (int)t->row_x * v.site;
    v.row_z = (int)t->row_z * v.site;
    v.group = t->group;
    return v;
}

/* Rows (k, z, x) of a tensor are numbered; a column is a channel and lane, c*L + l, of a row.  Most
   kernels give a thread one column of one row, along whose sites it walks. */
CM_HOST size_t cm_rows(const cm_tensor *t) { return (size_t)t->groups * (size_t)(t->nz * t->nx); }
CM_HOST size_t cm_columns(const cm_tensor *t) { return cm_rows(t) * (size_t)(t->nc * CM_LANES); }

typedef struct cm_column {
    int k, z, x, j;                  /* j = c*L + l */
} cm_column;

CM_DEVICE cm_column cm_column_of(const cm_view *v, uint32_t i)
{
    cm_column o;
    uint32_t row = i / (uint32_t)v->site;
    o.j = (int)(i - row * (uint32_t)v->site);
    o.x = (int)(row % (uint32_t)v->nx);
    row /= (uint32_t)v->nx;
    o.z = (int)(row % (uint32_t)v->nz);
    o.k = (int)(row / (uint32_t)v->nz);
    return o;
}

/* The first site of row (k, z, x). */
CM_DEVICE float *cm_row_at(const cm_view *v, int k, int z, int x)
{
    return v->at + v->group * (size_t)k + ((ptrdiff_t)v->row_z * z + (ptrdiff_t)v->row_x * x);
}

/* Section 2 of calomu.c. */
CM_DEVICE float cm_sigmoid_of(float v)
{
    union { uint32_t u; float f; } scale;
    float n, f, q;
    v = v < -87 ? -87 : v;
    v = v > 87 ? 87 : v;
    scale.f = cm_fmaf(v, -1.44269502f, 12582912.0f);
    n = scale.f - 12582912.0f;
    f = cm_fmaf(v, -1.44269502f, -n);
    q = 0x1.416b6p-13f;
    q = cm_fmaf(q, f, 0x1.5f082ep-10f);
    q = cm_fmaf(q, f, 0x1.3b2de0p-7f);
    q = cm_fmaf(q, f, 0x1.c6af7cp-5f);
    q = cm_fmaf(q, f, 0x1.ebfbdcp-3f);
    q = cm_fmaf(q, f, 0x1.62e430p-1f);
    q = cm_fmaf(q, f, 1.0f);
    scale.u = (scale.u << 23) + (127u << 23);
    return 1.0f / cm_fmaf(q, scale.f, 1.0f);
}

CM_DEVICE double cm_exp_double_of(double x)
{
    union { uint64_t u; double f; } scale;
    double n, r, p = 1.0 / 6227020800.0, term = 6227020800.0;
    int k;
    if (x != x) return x;
    x = x < -708 ? -708 : x;
    x = x > 709 ? 709 : x;
    n = cm_fmad(x, 1.4426950408889634, 6755399441055744.0) - 6755399441055744.0;
    r = cm_fmad(n, -0x1.62e42fee00000p-1, x);
    r = cm_fmad(n, -0x1.a39ef35793c76p-33, r);
    for (k = 13; k > 0; k--) {
        term /= k;
        p = cm_fmad(p, r, 1 / term);
    }
    scale.u = (uint64_t)((int64_t)n + 1023) << 52;
    return p * scale.f;
}

/* Sums over muons (section 1 of calomu.c): of the lanes of a group. */
CM_DEVICE double cm_lanes_sum(const double s[CM_LANES])
{
    double t[CM_LANES / 2];
    int l;
    for (l = 0; l < 8; l++) t[l] = s[l] + s[l + 8];
    for (l = 0; l < 4; l++) t[l] += t[l + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}

/* The tree of `groups` sums, `step` apart, of which it makes others.  16 neighbours are four levels
   in registers, their loads under way together; then they are one of the groups that are left. */
CM_DEVICE double cm_tree_sum(double *sum, size_t step, int groups)
{
    for (; groups > 1; groups = (groups + 15) / 16, step *= 16) {
        int first, level, k;
        for (first = 0; first < groups; first += 16) {
            double v[16];
            CM_UNROLL
            for (k = 0; k < 16; k++)
                v[k] = first + k < groups ? sum[(size_t)(first + k) * step] : 0;
            CM_UNROLL
            for (level = 1; level < 16; level *= 2)
                CM_UNROLL
                for (k = 0; k < 16; k += 2 * level)
                    if (first + k + level < groups) v[k] += v[k + level];
            sum[(size_t)first * step] = v[0];
        }
    }
    return *sum;
}

CM_DEVICE int cm_finite(double x) { return x - x == 0; }

CM_DEVICE float cm_swish_of(float v) { return v * cm_sigmoid_of(v); }

CM_DEVICE float cm_swish_slope(float v)
{
    float s = cm_sigmoid_of(v);
    return cm_fmaf(v * s, 1.0f - s, s);
}

#endif
