/* calomu.c - the engine of calomu; see calomu.h.

   Three parts, each bottom up, so that nothing has to be looked up ahead:

     PART I    THE ALGORITHM, whole and plain: what is taught, and what an auditor reads
        1 numbers: random ones, sigmoid, exp, log, cos, sums over muons
        2 geometry and events
        3 high-level features (appendix 6)
        4 networks as lists of layers: Figs. 4 and 5, parameters
        5 plain layers, forward and backward, one muon at a time
            5.1 sums   5.2 convolution   5.3 of the hits   5.4 running batch norm
            5.5 functions of a value   5.6 mean, maximum, pooling   5.7 combinations
            5.8 convolution by Winograd   5.9 all muons of a batch
        6 loss   7 Adam   8 training: folds, learning rates, decisions
        9 debiasing and resolution
     PART II   SERVICE: around the algorithm
       10 context: errors, allocator, modes of the processor, numbers as text
       11 files: output, .cmu, safetensors   12 networks in memory
       13 the trainer, checkpoints   14 models, inference, ensembles
       15 errors of the resolution
     PART III  SPEED: the bits of part I, sooner (-DCALOMU_PLAIN compiles without it)
       16 tensors, arena, tape; 16.2 one muon in 16 lanes
       17 operations: 17.1 the table of kernels, 17.2 kernels of each instruction set,
          17.3 sums, 17.4 running batch norm, 17.5 convolution, 17.6 by Winograd, 17.7 sparse,
          17.8 pooling, 17.9 pointwise, 17.10 mean and maximum, 17.11 combinations, 17.12 join,
          17.13 by the plain function, 17.14 the table of operations
       18 the plan of a list: 18.1 layers computed together, 18.2 where values are,
          18.3 as text, 18.4 carried out, 18.5 gradients as text
       19 the fast engine   20 devices

   Letters used everywhere:
     B muons of a batch, L = 16 lanes of a group, K = ceil(B/L) groups,
     C channels, S sites, z, x, y axes of the calorimeter (y fastest).
   Muons are taken 16 at a time where they are added (1) and where they are computed at once (16):
   such a 16 is a group, and a lane is a muon's place in it.

   "The paper" is J. Kieseler et al., Eur. Phys. J. C 82 (2022) 79.  "Sec.", "Eq.", "Fig.", "Table",
   "footnote" and "appendix" are the paper's unless another author stands there; what is in double
   quotes with one of them is its text.  A bare number, as 5.9, is a section of this file.  Where
   the text is silent or the authors' published code does otherwise, the comment says which was
   followed.

   Bits.  The same input gives the same bits on every machine.  So products that are added are fused
   by hand (cm_fma, cm_fmad) or not at all, never by the compiler, nothing transcendental comes from
   libm, and every sum has one order that depends on neither threads nor batch splits.  The compiler
   is told to compute what is written (end of calomu.h), what it has made is looked at when a
   context is opened (cm_fault), and every call and thread sets the modes of the processor that it
   needs (cm_enter).

   What Part I uses of Part II (10), by name only:
     cm_fail(c, status, "...", ...)  writes the message into the context c and returns the status;
     cm_allocate(c, n, size), cm_release(c, p)  the caller's allocator, memory zeroed; NULL, with a
       message, where there is none; a NULL may be released.  */
#ifdef __cplusplus
#error "calomu.c is C, not C++: compile it with a C compiler and link it; calomu.h is both"
#else
#ifndef CM_ISA                       /* defined: this file includes itself, see 17.2 */
#if defined(__unix__) || defined(__APPLE__)
#define CM_POSIX 1
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#ifndef _FILE_OFFSET_BITS
#define _FILE_OFFSET_BITS 64         /* files over 2 GB on 32-bit systems */
#endif
#else
#define CM_POSIX 0
#endif
#ifdef __MINGW32__
#define __USE_MINGW_ANSI_STDIO 1     /* %zu, and 17 digits that round as they should */
#endif
#ifndef CALOMU_INTERNALS             /* then no name but calomu_* leaves this file */
#define CALOMU_INTERNALS
#ifdef __GNUC__
#define CM_LOCAL static __attribute__((unused))
#else
#define CM_LOCAL static
#endif
#endif
#define CALOMU_EQUAL_BITS
#include "calomu.h"
#if CALOMU_VERSION != 100
#error "calomu.c and calomu.h are of different versions"
#endif
#include <errno.h>
#include <fenv.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if CM_POSIX
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif
#if defined(_OPENMP) && !defined(CALOMU_PLAIN)
#define CM_THREADS
#include <omp.h>
#endif
#if defined(__GLIBC__) && !defined(__USE_GNU)
int fegetexcept(void);               /* of fenv.h, hidden without _GNU_SOURCE */
#endif

struct calomu {
    void *(*allocate)(void *user, size_t size);
    void (*release)(void *user, void *memory);
    void (*log)(void *user, const char *line);
    void *user;
    int threads;
    long process;                    /* that opened it */
    calomu_isa isa;                  /* never BEST: resolved in calomu_open */
    int direct;                      /* no Winograd */
    int plain;                       /* layer by layer (5.9) */
    int recompute, unfused;          /* of part III: values made again in backward; no fusion */
    const calomu_device *device;     /* NULL: the processor */
    int device_number;
    calomu_math math;
    struct cm_place *place;          /* what predictions keep on the device, or NULL */
    calomu_status failure;           /* of the last cm_fail */
    void *inference_arena;           /* from call to call, or NULL */
    size_t inference_arena_size;
    struct cm_ready *ready;          /* what else inference keeps (14), or NULL */
    void (*profile_mark)(void *user, const cm_profile_mark *mark);     /* or NULL */
    void *profile_user;
    const char *fault;               /* of the build, for which calls are refused; or NULL */
    calomu_modes host;               /* the caller's, while a call computes, */
    int entered;                     /*   and how many calls are under way, one within another */
    char message[512];
    char build[512];
};

#ifdef __GNUC__
#define CM_NOINLINE __attribute__((noinline))
#else
#define CM_NOINLINE
#endif

#ifdef __GNUC__
#define CM_INLINE static inline __attribute__((always_inline))
#else
#define CM_INLINE static inline
#endif

/* ---- products and sums that are rounded once

   fma(a, b, c) = a b + c, rounded once, to the nearest number, halfway to even.  C lets a compiler
   make an fma of a*b + c or not, and the two differ in the last bit.  So calomu.h forbids it, and
   each product that is to be fused says so here.  Without any fma bits would be equal as well, but
   where there is an instruction, two would be needed in place of one.

   Where the target has an instruction for them, the compiler's builtin is that instruction.  Where
   it may not, libm is no help: mingw's fma is not exact, glibc's takes 140 ns where the machine has
   no instruction.  These take 3 and 9 ns. */
#if defined(__GNUC__) && ((defined(__FP_FAST_FMA) && defined(__FP_FAST_FMAF)) || defined(__FMA__) \
    || defined(__aarch64__) || defined(__VSX__) || defined(__s390x__) \
    || (defined(__riscv_flen) && __riscv_flen >= 64))
#define CM_FUSED 1
#else
#define CM_FUSED 0
#endif
#ifdef __GNUC__
#define CM_HARD_FMA __builtin_fma
#define CM_HARD_FMAF __builtin_fmaf
#else                                /* never called: CM_FUSED is 0 */
#define CM_HARD_FMA fma
#define CM_HARD_FMAF fmaf
#endif

/* A double is (-1)^s 2^(e - 1075) (2^52 + m), with the sign s in bit 63, the biased exponent e in
   bits 52 to 62, and m in bits 0 to 51.  With e = 0 it is (-1)^s 2^-1074 m: 0 and the subnormal
   numbers; with e = 2047 infinity (m = 0) or a NaN.  Bits taken as an integer grow with |x|: adding
   1 to them gives the next double away from 0. */
static uint64_t cm_double_bits(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double cm_double_from_bits(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* fma of floats by doubles.  The product is exact: 24 + 24 bits are at most 53.  t is the sum and e
   what its rounding lost, t + e = p + c exactly (D. E. Knuth's TwoSum, The Art of Computer
   Programming 2, Sec. 4.2.2).

   (float)t alone would round twice: 97 * (172961 * 2^-24) is 1 + 2^-24, halfway between two floats;
   with c = 2^-60 it is above halfway, but t has lost that, and 1 comes out in place of 1 + 2^-23.
   So t is rounded to odd: if e is not 0, of the two doubles around the exact sum the one whose last
   bit is 1 is taken.  It cannot lie halfway between two floats, and rounds to float as the exact
   sum does, since 53 >= 24 + 2 bits (S. Boldo, G. Melquiond, IEEE Trans. Comput. 57 (2008) 462).

   Neither range nor infinities harm: products of floats are between 2^-298 and 2^256, so no double
   here over- or underflows; with an infinity or a NaN e is a NaN, which compares as false. */
CM_INLINE float cm_exact_fmaf(float a, float b, float c)
{
    double p = (double)a * (double)b, t = p + (double)c, q = t - p;
    double e = (p - (t - q)) + ((double)c - q);
    uint64_t u = cm_double_bits(t);
    if ((e > 0 || e < 0) && !(u & 1)) t = cm_double_from_bits((e > 0) == (t > 0) ? u + 1 : u - 1);
    return (float)t;
}

/* For the tests, which compare it with the instruction. */
float cm_soft_fmaf(float a, float b, float c) { return cm_exact_fmaf(a, b, c); }

/* fma of doubles needs 106 bits for the product, and no type of C99 has so many.  So cm_soft_fma
   computes in integers of 128 bits, high:low: product, shift to the same power, sum, one rounding.

   A finite number but 0: (-1)^negative (2^64 high + low) 2^power.  Bit 62 or 61 of high is its
   first, so that a sum of two has room for its carry in bit 63. */
typedef struct cm_wide {
    uint64_t high, low;
    int power, negative;
} cm_wide;

/* Number of zeros above the first 1 of u, which is not 0: the builtin is undefined there, and the
   loop would return 63. */
static int cm_leading_zeros(uint64_t u)
{
#ifdef __GNUC__
    return __builtin_clzll(u);
#else
    int n = 0, step;
    for (step = 32; step > 0; step /= 2)
        if (!(u >> (64 - step))) {
            u <<= step;
            n += step;
        }
    return n;
#endif
}

/* |x| = significand 2^power, bit 52 of the significand being its first; x is finite and not 0.  A
   subnormal number is shifted up until that holds, so that what follows need not know of it. */
static uint64_t cm_significand(double x, int *power)
{
    uint64_t u = cm_double_bits(x), m = u & 0xfffffffffffffu;
    int e = (int)(u >> 52 & 2047), n;
    if (e == 0) {
        n = cm_leading_zeros(m) - 11;
        *power = -1074 - n;
        return m << n;
    }
    *power = e - 1075;
    return m | 1llu << 52;
}

/* a b, exactly: 53 x 53 bits, as on paper from digits of 32 bits,
       (2^32 m1 + m0)(2^32 n1 + n0) = 2^64 m1 n1 + 2^32 (m1 n0 + m0 n1) + m0 n0.
   m1 and n1 are below 2^21, so `middle` is below 2^54.  `low` may carry: it is then smaller than a
   summand.  The product has 105 or 106 bits; 21 more make bit 61 or 62 of high the first, and leave
   the last 21 bits 0. */
static cm_wide cm_wide_product(double a, double b)
{
    int power_a, power_b;
    uint64_t m = cm_significand(a, &power_a), n = cm_significand(b, &power_b);
    uint64_t m0 = m & 0xffffffffu, m1 = m >> 32, n0 = n & 0xffffffffu, n1 = n >> 32;
    uint64_t middle = m1 * n0 + m0 * n1, low = m0 * n0 + (middle << 32);
    uint64_t high = m1 * n1 + (middle >> 32) + (low < m0 * n0);
    cm_wide w;
    w.high = high << 21 | low >> 43;
    w.low = low << 21;
    w.power = power_a + power_b - 21;
    w.negative = (int)((cm_double_bits(a) ^ cm_double_bits(b)) >> 63);
    return w;
}

/* c, exactly: 53 bits in the upper word, the first in its bit 61; the last 73 of 128 are 0. */
static cm_wide cm_wide_of(double c)
{
    cm_wide w;
    w.high = cm_significand(c, &w.power) << 9;
    w.low = 0;
    w.power -= 73;
    w.negative = (int)(cm_double_bits(c) >> 63);
    return w;
}

/* By n >= 1 bits to the right.  What is lost leaves a 1 in the last bit: a rounding far above that
   bit asks only whether the rest is 0, not what it is.  C does not define a shift of 64 bits by 64
   or more, so these have cases of their own. */
static void cm_wide_shift(cm_wide *w, int n)
{
    uint64_t lost;
    w->power += n;
    if (n >= 64) {
        lost = n >= 128 ? w->high : n > 64 ? w->high << (128 - n) : 0;
        lost |= w->low;
        w->low = n >= 128 ? 0 : w->high >> (n - 64);
        w->high = 0;
    } else {
        lost = w->low << (64 - n);
        w->low = w->low >> n | w->high << (64 - n);
        w->high >>= n;
    }
    w->low |= lost != 0;
}

/* a + b of the same power.  The first bit may be any one then, or none if they cancel: the
   difference is the larger magnitude less the smaller, with the sign of the larger. */
static cm_wide cm_wide_add(cm_wide a, cm_wide b)
{
    if (a.negative == b.negative) {
        a.low += b.low;
        a.high += b.high + (a.low < b.low);
        return a;
    }
    if (a.high < b.high || (a.high == b.high && a.low < b.low)) {
        cm_wide swap = a;
        a = b;
        b = swap;
    }
    a.high -= b.high + (a.low < b.low);
    a.low -= b.low;
    return a;
}

/* To nearest, halfway to even; w is 0 only where two summands cancelled, which gives +0 (IEEE 754,
   Sec. 6.3).  m: the first 64 bits, the first of them in bit 63, the rest of w as a 1 in bit 0.
   The upper 53 bits of m are the result; the last 11 decide: above 1024 = half of a step up, at
   1024 up if the result is odd, below not.

   The exponent e is added as e - 1, because bit 52 of the significand, always 1, adds the other 1.
   A carry out of the significand makes the next power of 2 by itself, above the largest double
   infinity.  Below the normal numbers (e < 1) bits go before the rounding, so that there is only
   one; what is far below 2^-1075, half the smallest number, becomes a 1 in bit 0, which rounds to
   0. */
static double cm_wide_round(cm_wide w)
{
    uint64_t m, u;
    int n;
    if (w.high == 0) {
        w.high = w.low;
        w.low = 0;
        w.power -= 64;
    }
    if (w.high == 0) return 0;
    n = cm_leading_zeros(w.high);
    m = n ? w.high << n | w.low >> (64 - n) : w.high;
    m |= (n ? w.low << n : w.low) != 0;
    n = w.power - n + 127 + 1023;    /* the exponent, biased */
    if (n < 1) {
        m = n < -62 ? 1 : m >> (1 - n) | ((m << (63 + n)) != 0);
        n = 1;
        u = m >> 11;
    } else {
        u = n > 2046 ? 2047llu << 52 : ((uint64_t)(n - 1) << 52) + (m >> 11);
    }
    m &= n > 2046 ? 0 : 2047;
    u += m > 1024 || (m == 1024 && (u & 1));
    return cm_double_from_bits(u | (uint64_t)w.negative << 63);
}

/* fma(a, b, c) in integers.  Three cases that look odd go first:
   with an a or b that is 0 or not finite the product is exact, so only the sum is rounded;
   with c = 0 only the product is, and a sum would turn a product that rounds to -0 into 0;
   with an infinite c or a NaN that is the result, and the product must not overflow to the opposite
   infinity first.

   The summand of the lower power is shifted.  Its last 21 bits are 0 (cm_wide_product, cm_wide_of),
   so bits are lost only where the powers are 22 or more apart.  The summand is then so much smaller
   that the sum keeps its first bit or the one below: the lost bits stay far below the 53 that are
   kept, and the 1 in their place is all that the rounding asks of them. */
double cm_soft_fma(double a, double b, double c)
{
    cm_wide w, v;
    if (a == 0 || b == 0 || !isfinite(a) || !isfinite(b)) return a * b + c;
    if (c == 0) return a * b;
    if (!isfinite(c)) return c;
    w = cm_wide_product(a, b);
    v = cm_wide_of(c);
    if (w.power < v.power) cm_wide_shift(&w, v.power - w.power);
    if (v.power < w.power) cm_wide_shift(&v, w.power - v.power);
    return cm_wide_round(cm_wide_add(w, v));
}

/* A build for every x86-64 may not use the instruction throughout.  It has one function that does,
   called where the processor has the instruction. */
#if !CM_FUSED && defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("fma"))) static double cm_x86_fma(double a, double b, double c)
{
    return __builtin_fma(a, b, c);
}
#endif

/* fma of doubles, for what is computed beside the network.  Whichever of the three ways is taken,
   the bits are the same, as each is exact but for one rounding. */
CM_INLINE double cm_fmad(double a, double b, double c)
{
#if CM_FUSED
    return CM_HARD_FMA(a, b, c);
#else
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("fma")) return cm_x86_fma(a, b, c);
#endif
    return cm_soft_fma(a, b, c);
#endif
}

/* fma of the network, whose type cm_real is float; a build in double (CALOMU_REAL) exists for the
   tests, which check gradients by differences.  fused: there is an instruction for it.  It is known
   when this is compiled, and differs between copies of one kernel for several instruction sets: so
   it is an argument, not the macro. */
CM_INLINE float cm_fusef(float a, float b, float c, const int fused)
{
    return fused ? CM_HARD_FMAF(a, b, c) : cm_exact_fmaf(a, b, c);
}

CM_INLINE cm_real cm_fuse(cm_real a, cm_real b, cm_real c, const int fused)
{
    if (sizeof(cm_real) == sizeof(float))
        return (cm_real)cm_fusef((float)a, (float)b, (float)c, fused);
    return (cm_real)(fused ? CM_HARD_FMA((double)a, (double)b, (double)c)
                           : cm_fmad((double)a, (double)b, (double)c));
}

CM_INLINE cm_real cm_fma(cm_real a, cm_real b, cm_real c) { return cm_fuse(a, b, c, CM_FUSED); }

/* What a compiler has made of single numbers; NULL: what is written.  Three questions:
     is a product fused with a sum?  (1 + e)^2 = 1 + 2e + e^2 is rounded to 1 + 2e first, and less
       (1 + 2e) is 0; fused it is e^2;
     are small numbers flushed?  half the smallest normal number is a subnormal one, not 0;
     does cm_fma round twice?  the example of cm_exact_fmaf, 97 x 172961 = 2^24 + 1 and c = 2^-60.
   volatile, or the compiler would answer by computing in its own arithmetic, and not the machine.
   (17.2 asks the same of vectors.) */
static CM_NOINLINE const char *cm_fault_single(void)
{
    volatile cm_real one = 1, least = sizeof(cm_real) == sizeof(float) ? (cm_real)FLT_MIN
                                                                       : (cm_real)DBL_MIN;
    volatile cm_real e = sizeof(cm_real) == sizeof(float) ? (cm_real)0x1p-12 : (cm_real)0x1p-27;
    volatile float a = 97, b = 172961 * 0x1p-24f, c = 0x1p-60f, half = 0.5f;
    cm_real x = one + e, y = -one - 2 * e;
    if (x * x + y != 0)
        return "this build fuses products on its own: compile calomu.c with -ffp-contract=off";
    if (!(least * (cm_real)half > 0))
        return "this build flushes small numbers to zero: compile calomu.c for a machine that keeps"
               " them";
    if (cm_fusef(a, b, c, CM_FUSED) != 1 + FLT_EPSILON)
        return "this build's fma rounds twice: compile calomu.c with another compiler";
    return NULL;
}

static int cm_enter(calomu *c);      /* 10: a call begins that computes, */
static void cm_look(calomu *c);      /*   or that only looks, */
static calomu_status cm_leave(calomu *c, calomu_status s);   /* and ends */

/* ============================================================================================
   ============================================================================================

   PART I   THE ALGORITHM

   ============================================================================================
   ============================================================================================ */

/* ============================================================================================
   1 Numbers: random ones, sigmoid, exp, log, cos, sums over muons
   ============================================================================================ */

/* IEEE 754 fixes the result of +, -, *, /, sqrt and fma to the last bit, but says nothing of exp,
   log or cos: those of two systems' libm differ in last places.  So whatever is not in that list is
   made of it here, in one order of operations, and comes out the same everywhere.  floor and frexp,
   which round nothing, are libm's. */

/* Philox4x32-10: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as
   easy as 1, 2, 3", SC'11.  A random number is a function of its place: (seed, stream, counter)
   gives four words of 32 bits, and no state goes from one draw to the next.  So muons may be drawn
   in any order and by any thread, and a checkpoint needs no state of a generator: Mersenne Twister
   would have 624 words of it, for each thread.

   A round of the 128-bit block (x0, x1, x2, x3) with the key (k0, k1), M0 and M1 being constants:
       p = M0 x0, q = M1 x2, of 64 bits each
       (x0, x1, x2, x3) <- (high(q) ^ x1 ^ k0, low(q), high(p) ^ x3 ^ k1, low(p))
       (k0, k1) <- (k0, k1) + (2^32 (sqrt(5) - 1)/2, 2^32 (sqrt(3) - 1)), rounded down, mod 2^32
   The first block is (counter, stream), the first key is the seed.  Each round can be undone,
   because M0 and M1 are odd: so different counters of one seed give different blocks.
   tests/test_engine.c has known answers of the authors' library; the first of them, for seed,
   stream and counter 0, is 6627e8d5 e169c58d bc57ac4c 9b00dbd8.

   Who draws has a stream of its own: a parameter's initial values the number of the parameter (4),
   shuffles numbers from 2^61 on (8), a bin's bootstrap the number of the bin (9). */
void calomu_random(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4])
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t x0 = (uint32_t)counter, x1 = (uint32_t)(counter >> 32);
    uint32_t x2 = (uint32_t)stream, x3 = (uint32_t)(stream >> 32);
    int round;
    for (round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53u * x0, q = (uint64_t)0xCD9E8D57u * x2;
        x0 = (uint32_t)(q >> 32) ^ x1 ^ k0;
        x1 = (uint32_t)q;
        x2 = (uint32_t)(p >> 32) ^ x3 ^ k1;
        x3 = (uint32_t)p;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = x0;
    out[1] = x1;
    out[2] = x2;
    out[3] = x3;
}

/* u = 2^-52 (k + 1/2), k = 0 .. 2^52 - 1 from 52 bits of two words: uniform in (0, 1).
   u is from 2^-53 to 1 - 2^-53 and never an end, so log(u) is finite.  k + 1/2 has 53 bits, which a
   double holds, so nothing is rounded.  The usual k/2^53 would give one bit more, and 0.  The first
   two words above, 6627e8d5 e169c58d, are k = 0x6627e8d5e169c and u = 0.399046. */
static double cm_uniform(const uint32_t w[2])
{
    uint64_t k = (uint64_t)w[0] << 20 | w[1] >> 12;
    return ((double)k + 0.5) / 4503599627370496.0;
}

/* sigmoid(v) = 1/(1 + exp(-v)).  Swish-1 is v sigmoid(v), and the gates of squeeze and excitation
   are sigmoids (Sec. 3.1).  Here in float, as the network is.

   exp(-v) = 2^(n + f), n the integer nearest to -v log2(e), |f| <= 1/2.  2^n is made from bits, and
   2^f = 1 + f q(f) with q of degree 5.  The largest relative error over |f| <= 1/2 is
       2.0e-9 with the best real coefficients (E. Remez's exchange),
       3.0e-9 with the floats below, of which 0x1.62e430p-1 is ln 2 rounded,
       1.6e-8 with the best ones rounded to float one by one, which is why they are not used,
       9.1e-8 with the best q of degree 4;
   rounding a float loses up to 6.0e-8.  That q is multiplied by f makes sigmoid(0) = 1/2 exact.

   log2(e) as a float is off by a relative 1.3e-8, which makes exp(-v) off by a relative 1.3e-8 |v|.
   The largest relative error of the sigmoid, tried with all floats of 4.8e-7 <= |v| (nearer 0 it
   is 1/2 to 1.2e-7, since it is 1/2 + v/4 there), is
       1.3e-7 for |v| <= 1, 2.4e-7 for |v| <= 10, 1.3e-6 for |v| <= 87, near v = -87;
   the largest absolute one is 9.0e-8.  log2(e) in two parts, as cm_exp_double has ln 2, would mend
   the tail, where the sigmoid itself is tiny, and cost one more fma each time.

   Adding 1.5*2^23 = 12582912 to a number below 2^22 leaves no bit for a fraction, so it rounds to
   the nearest integer.  n is then in the last bits of the sum; 23 bits to the left they are the
   exponent, less its bias of 127, and the rest of the sum is shifted out.  lrintf would round as
   well, but compilers make no vectors of it.

   v = 1 by hand: -log2(e) = -1.442695, n = -1, f = -0.442695, 2^f = 0.735759, 2^n 2^f = 0.367879,
   and 1/1.367879 = 0.731059.

   |v| is at most CM_SIGMOID_MOST, so that 2^n, and the result of at least 1.6e-38, stay normal.  In
   the build in double, whose sigmoid is made of cm_exp_double below, that is 708. */
#define CM_SIGMOID_MOST (sizeof(cm_real) == sizeof(float) ? 87 : 708)

CM_INLINE float cm_sigmoid_float(float v, const int fused)
{
    union { uint32_t u; float f; } scale;
    float n, f, q;
    scale.f = cm_fusef(v, -1.44269502f, 12582912.0f, fused);
    n = scale.f - 12582912.0f;
    f = cm_fusef(v, -1.44269502f, -n, fused);
    q = 0x1.416b6p-13f;
    q = cm_fusef(q, f, 0x1.5f082ep-10f, fused);
    q = cm_fusef(q, f, 0x1.3b2de0p-7f, fused);
    q = cm_fusef(q, f, 0x1.c6af7cp-5f, fused);
    q = cm_fusef(q, f, 0x1.ebfbdcp-3f, fused);
    q = cm_fusef(q, f, 0x1.62e430p-1f, fused);
    q = cm_fusef(q, f, 1.0f, fused);
    scale.u = (scale.u << 23) + (127u << 23);
    return 1 / cm_fusef(q, scale.f, 1.0f, fused);
}

/* exp(x) = 2^n exp(r), n the integer nearest to x/ln 2, r = x - n ln 2, |r| <= ln(2)/2 = 0.347.
   exp(r) is its Taylor series to r^13/13!: the next term is at most 4.2e-18, a 26th of what a
   rounding of 1 may lose.  A series in place of a best polynomial costs a few terms more, and needs
   no table that someone would have to believe.

   ln 2 is in two parts, hi of 32 bits and lo, together off by 1.2e-26; fdlibm has the same two.
   x - n hi is exact: where n is not 0, |x| is above 0.34, so both are multiples of 2^-54, and so is
   the difference, which is below 1/2 and thus has at most 53 bits.  So r has one rounding, that of
   the second fma.  1.5*2^52 = 6755399441055744 rounds to an integer as above.

   x is clamped to [-708, 709] so that 2^n stays a normal number; the result is never 0 or infinite.
   The largest error among 6 million random x, against quadruple precision, is one unit of the last
   place.  What is promised is not the exact result rounded, but equal bits. */
double cm_exp_double(double x)
{
    union { uint64_t u; double f; } scale;
    double n, r, p = 1.0 / 6227020800.0, term = 6227020800.0;
    int k;
    if (isnan(x)) return x;
    x = x < -708 ? -708 : x;
    x = x > 709 ? 709 : x;
    n = cm_fmad(x, 1.4426950408889634, 6755399441055744.0) - 6755399441055744.0;
    r = cm_fmad(n, -0x1.62e42fee00000p-1, x);
    r = cm_fmad(n, -0x1.a39ef35793c76p-33, r);
    /* Horner's scheme, in turn p = 1/k! + r (1/(k + 1)! + ...); factorials to 13! are exact. */
    for (k = 13; k > 0; k--) {
        term /= k;
        p = cm_fmad(p, r, 1 / term);
    }
    scale.u = (uint64_t)((int64_t)n + 1023) << 52;
    return p * scale.f;
}

/* sigmoid(v) of a v that is within CM_SIGMOID_MOST; in the build for tests by exp in double. */
CM_INLINE cm_real cm_sigmoid_lane(cm_real v, const int fused)
{
    return sizeof(cm_real) == sizeof(float) ? (cm_real)cm_sigmoid_float((float)v, fused)
                                            : (cm_real)(1 / (1 + cm_exp_double(-(double)v)));
}

/* The same of any v: farther out the sigmoid is taken at +-87, 1.6e-38 or 1 rounded.  A NaN fails
   both comparisons and stays one. */
cm_real cm_sigmoid_value(cm_real v)
{
    v = v < -CM_SIGMOID_MOST ? -CM_SIGMOID_MOST : v;
    return cm_sigmoid_lane(v > CM_SIGMOID_MOST ? CM_SIGMOID_MOST : v, CM_FUSED);
}

/* log(x), x > 0 and normal: x = 2^n m, m in [sqrt(1/2), sqrt(2)), log x = n ln 2 + log m.
   With s = (m - 1)/(m + 1), that is m = (1 + s)/(1 - s),
       log m = 2 (s + s^3/3 + s^5/5 + ... + s^23/23);
   |s| <= 0.172, so the first term left out, s^25/25, is below 2e-20 of the first.  The series in
   m - 1, which is up to 0.41, would need about 40 terms in place of 12.

   m is taken around 1 and not from [1/2, 1), as frexp gives it, so that x near 1 has n = 0: else
   -ln 2 and log m would cancel.  frexp is exact, it only takes bits apart.  s is rounded (m - 1 is
   exact, m + 1 and the quotient are not): the error of 6 million random x is below 2.9 units of the
   last place. */
double cm_log_double(double x)
{
    int n, k;
    double m = frexp(x, &n), s, q, p = 0;
    if (m < 0.70710678118654752) {
        m *= 2;
        n--;
    }
    s = (m - 1) / (m + 1);
    q = s * s;
    for (k = 23; k >= 1; k -= 2) p = cm_fmad(p, q, 1.0 / k);
    return cm_fmad(n, 0x1.62e42fee00000p-1, cm_fmad(n, 0x1.a39ef35793c76p-33, 2 * s * p));
}

/* cos(x): x = k pi/2 + r, k the nearest integer, |r| <= pi/4; then by k mod 4 cos r, -sin r, -cos r
   or sin r, each by its Taylor series to r^20 or r^21.  The next term is at most 4.4e-24.

   pi/2 is in two parts, hi of 53 bits and lo, that together are off by 1.5e-33.  x - k hi is exact
   although k hi is not: from |x| >= 0.78 on both are multiples of 2^-53, and so is the difference,
   which is below 1.  Then r has one rounding.

   For |x| up to 1e5 the error of millions of random x is below 1.5e-16.  It is absolute:
   beside a zero of the cosine the last bits of a tiny result are lost.  The callers (angles of
   Box and Muller, the cosine of the learning rate) have |x| <= 2 pi and add or scale the result. */
double cm_cos_double(double x)
{
    double k = floor(cm_fmad(x, 0.63661977236758134, 0.5)), r, q, p;
    int quadrant, i;
    r = cm_fmad(k, -0x1.921fb54442d18p+0, x);
    r = cm_fmad(k, -0x1.1a62633145c07p-54, r);
    q = r * r;
    quadrant = (int)(k - 4 * floor(k / 4));
    p = 1;
    if (quadrant % 2 == 0) {         /* 1 - r^2/(2*1) (1 - r^2/(4*3) (1 - ...)) */
        for (i = 20; i > 0; i -= 2) p = cm_fmad(-q / (i * (i - 1)), p, 1);
    } else {                         /* r (1 - r^2/(2*3) (1 - r^2/(4*5) (1 - ...))) */
        for (i = 20; i > 0; i -= 2) p = cm_fmad(-q / (i * (i + 1)), p, 1);
        p *= r;
    }
    return quadrant == 0 || quadrant == 3 ? p : -p;
}

/* A normal deviate of mean 0 and deviation 1, for the weights at the start of a training:
       sqrt(-2 log u) cos(2 pi v), u and v uniform
   (G. E. P. Box, M. E. Muller, Ann. Math. Statist. 29 (1958) 610).  The sine gives a second,
   independent one, which is not used: a counter would then stand for two numbers, and the first
   would have to be kept.  Why it is normal: two independent ones (a, b) have a density that falls
   as exp(-R^2/2), R^2 = a^2 + b^2, so their angle is uniform, and R^2/2 is above t with probability
   exp(-t), which holds for -log u as well.  a = R cos(angle). None is above 8.58: u is at least
   2^-53, and sqrt(-2 log 2^-53) = 8.572; a true normal deviate is beyond that once in 1e17 draws.
   Of seed, stream and counter 0 it is -0.121518. */
static double cm_normal(uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t w[4];
    calomu_random(seed, stream, counter, w);
    return sqrt(-2 * cm_log_double(cm_uniform(w)))
        * cm_cos_double(6.2831853071795865 * cm_uniform(w + 2));
}

/* ---- sums over muons

   The sum over the muons v = 0 .. B - 1 of a batch of numbers s_v, in double to its end:
       muon v is lane v % 16 of group v/16; lanes behind the last muon count as +0;
       a group is added by halves: t[l] = s[l] + s[l + 8] for l < 8, t[l] += t[l + 4] for l < 4,
       then (t[0] + t[2]) + (t[1] + t[3]);
       groups are added in a binary tree, level by level the neighbours (0, 1), (2, 3), ..., an odd
       last one passing unchanged: tree(n) = tree(p) + tree(n - p), p the largest power of two < n.
   So are added: sums of batch norms, gradients of weights and biases, the loss.  The order follows
   from B alone, so threads may come and go, and bits stay.  2^i groups that begin at a multiple of
   2^i are one summand, whoever adds them: a sum in rising v would have to be made in one place.

   B = 70 has groups of 16, 16, 16, 16 and 6 muons: ((g0 + g1) + (g2 + g3)) + g4, and lanes 6 to 15
   of g4 are +0.

   Rounding errors grow as log B, not as B (N. J. Higham, SIAM J. Sci. Comput. 14 (1993) 783): a
   summand of B = 256 goes through 4 + 4 sums on its way, each off by at most 2^-53 of itself, where
   one sum in rising v would take the first muon through 255. */

/* A group is added by halves because vectors of 8 and of 4 lanes can do just that: one instruction
   adds lanes 8..15 to lanes 0..7.  Neighbours, (0, 1), (2, 3), ..., would have to be brought side
   by side first. */
CM_INLINE double cm_lanes_sum(const double s[CM_LANES])
{
    double t[CM_LANES / 2];
    int l;
    for (l = 0; l < 8; l++) t[l] = s[l] + s[l + 8];
    for (l = 0; l < 4; l++) t[l] += t[l + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}

/* The tree of groups as they come, one after the other, in 32 numbers and without knowing how many
   there will be.  It is like counting in binary: sum[i] is of 2^i neighbouring groups, and is valid
   if bit i of the number of groups is 1.  One group more carries: where two sums of 2^i groups meet
   they are added, the earlier one on the left, and become one of 2^(i + 1).  After 5 groups, 101 in
   binary, sum[2] is of groups 0 to 3 and sum[0] of group 4. */
typedef struct cm_tree {
    double sum[32];
    uint32_t groups;
} cm_tree;

static void cm_tree_add(cm_tree *t, const double s[CM_LANES])
{
    double sum = cm_lanes_sum(s);
    int i;
    for (i = 0; t->groups >> i & 1; i++) sum = t->sum[i] + sum;
    t->sum[i] = sum;
    t->groups++;
}

/* The rest of the tree: from the latest and smallest sum up, each earlier one to its left, which is
   tree(p) + tree(n - p) from the inside.  It begins with -0, the one number that changes nothing to
   which it is added: +0 would turn a -0 into +0.  Of no groups the sum is -0; a batch has one. */
static double cm_tree_sum(const cm_tree *t)
{
    double sum = -0.0;
    int i;
    for (i = 0; t->groups >> i; i++)
        if (t->groups >> i & 1) sum = t->sum[i] + sum;
    return sum;
}

/* The sum of n numbers, one per muon: the order that all faster ways of adding are held to. */
double cm_muon_sum(const double *s, size_t n)
{
    cm_tree t = { { 0 }, 0 };
    size_t k, l;
    for (k = 0; k < n; k += CM_LANES) {
        double lane[CM_LANES] = { 0 };
        for (l = 0; l < CM_LANES && k + l < n; l++) lane[l] = s[k + l];
        cm_tree_add(&t, lane);
    }
    return cm_tree_sum(&t);
}

static int cm_smaller(int a, int b) { return a < b ? a : b; }

/* ============================================================================================
   2 Geometry and events
   ============================================================================================

   The calorimeter is a cuboid of nz * nx * ny equal cells.  z runs along the muon, from the front
   face into the depth; the field is along +y, so muons bend in the xz plane (Sec. 2).  Lengths are
   in mm, energies in GeV, fields in T.  Cell (iz, ix, iy), counted from 0, has the index
       (iz*nx + ix)*ny + iy,
   so that y runs fastest, and along axis a it lies from origin[a] + i*pitch[a] to one pitch more.
   Axes are numbered 0: z, 1: x, 2: y everywhere.  */

/* The paper's: 50 x 32 x 32 cells, 2032 x 120 x 120 mm, centred in x and y, 2 T (Sec. 2.1).  Its
   39.6 and 3.73 mm are the sizes of crystals: 50 of 39.6 mm are 1980 mm, not 2032.  The pitch is
   2032/50 and 120/32. */
calomu_geometry calomu_geometry_default(void)
{
    calomu_geometry g = { 50, 32, 32, { 40.64, 3.75, 3.75 }, { 0, -60, -60 }, 2 };
    return g;
}

/* What every calorimeter must fulfil.  At most 2^24 cells: so an index, and twice the number of
   hits (sorting them, below, doubles the lengths of runs), fit 32 bits, and an event's grid of
   floats has at most 64 MiB, whatever a hostile file claims.  Each size is looked at before it is
   multiplied: of two sizes up to 2^24 the product fits 64 bits, and the third factor comes only if
   that product is at most 2^24 as well.

   Lengths up to 1e9 mm and fields up to 1e6 T are far beyond any apparatus; the bounds keep every
   sum and square of them finite.  Comparisons are written so that a NaN fails them. */
static calomu_status cm_geometry_check(calomu *c, const calomu_geometry *g)
{
    int i;
    if (g->nz < 1 || g->nx < 1 || g->ny < 1)
        return cm_fail(c, CALOMU_EUSAGE, "geometry: %d x %d x %d cells: each must be at least 1",
                       g->nz, g->nx, g->ny);
    if (g->nz > 1 << 24 || g->nx > 1 << 24 || g->ny > 1 << 24
        || (int64_t)g->nz * g->nx > 1 << 24 || (int64_t)g->nz * g->nx * g->ny > 1 << 24)
        return cm_fail(c, CALOMU_EUSAGE, "geometry: %d x %d x %d cells: more than 2^24",
                       g->nz, g->nx, g->ny);
    for (i = 0; i < 3; i++) {
        if (!(g->pitch[i] > 0 && g->pitch[i] <= 1e9))
            return cm_fail(c, CALOMU_EUSAGE, "geometry: the pitch along %c must be positive (mm)",
                           "zxy"[i]);
        if (!(fabs(g->origin[i]) <= 1e9))
            return cm_fail(c, CALOMU_EUSAGE, "geometry: the origin along %c must be finite (mm)",
                           "zxy"[i]);
    }
    if (!(fabs(g->field) <= 1e6))
        return cm_fail(c, CALOMU_EUSAGE, "geometry: the field must be finite (T)");
    return CALOMU_OK;
}

calomu_status calomu_geometry_check(calomu *c, const calomu_geometry *g)
{
    cm_look(c);
    return cm_leave(c, cm_geometry_check(c, g));
}

/* The larger of two lengths whose signs do not matter. */
static double cm_longer(double a, double b)
{
    return fabs(a) > fabs(b) ? fabs(a) : fabs(b);
}

/* Whether a and b are one length that went through a float32, or not at all:
       |a - b| <= max(1e-6 pitch, min(2^-24 max(|a|, |b|), 1e-3 pitch)).
   1e-6 of a pitch is far below what a cell's place is known to.  Far from the origin a float32
   loses more: half of its last place, at most 2^-24 = 1/16777216 of the length, is allowed, but
   never more than a thousandth of a pitch.  Of the paper's geometry the first holds, 3.75e-6 mm: a
   corner at -60 mm is rounded by at most 60 * 2^-24 = 3.6e-6 mm.  An origin at 1e6 mm may be
   0.00375 mm off, the third bound; the second alone would allow 0.06 mm.  Equality to the last bit
   would refuse a model for files of its own calorimeter that another program has written in
   float32. */
static int cm_same_length(double a, double b, double pitch)
{
    double least = 1e-6 * pitch, rounded = cm_longer(a, b) / 16777216, most = 1e-3 * pitch;
    if (rounded > least) least = rounded < most ? rounded : most;
    return fabs(a - b) <= least;
}

/* The first thing in which two geometries differ, with both values, or "" if they are the same: the
   one rule, whoever compares.  The order is sizes, pitches, low corners, field: who mixes up two
   calorimeters reads of the sizes first.  15 digits, because two lengths that differ here may be
   equal in 6.  160 characters hold the longest text, and snprintf would cut a longer one. */
static void cm_geometry_differ(const calomu_geometry *a, const calomu_geometry *b, char text[160])
{
    char one[32], other[32];
    int i;
    text[0] = 0;
    if (a->nz != b->nz || a->nx != b->nx || a->ny != b->ny)
        (void)snprintf(text, 160, "%d x %d x %d cells against %d x %d x %d (z, x, y)", (int)a->nz,
                       (int)a->nx, (int)a->ny, (int)b->nz, (int)b->nx, (int)b->ny);
    for (i = 0; i < 6 && !text[0]; i++) {
        int axis = i % 3;
        double x = i < 3 ? a->pitch[axis] : a->origin[axis];
        double y = i < 3 ? b->pitch[axis] : b->origin[axis];
        if (!cm_same_length(x, y, cm_longer(a->pitch[axis], b->pitch[axis])))
            (void)snprintf(text, 160, "%s along %c: %s mm against %s mm",
                           i < 3 ? "pitch" : "low corner", "zxy"[axis], calomu_number(one, x, 15),
                           calomu_number(other, y, 15));
    }
    if (!text[0] && !(fabs(a->field - b->field) <= 1e-6 * cm_longer(a->field, b->field)))
        (void)snprintf(text, 160, "field: %s T against %s T", calomu_number(one, a->field, 15),
                       calomu_number(other, b->field, 15));
}

/* As a call of the interface: a difference is a message.  Numbers become text in it, which
   computes; so this call sets the processor's modes as every computing call does. */
static calomu_status cm_geometry_compare_call(calomu *c, const calomu_geometry *a,
                                              const calomu_geometry *b)
{
    char text[160];
    cm_geometry_differ(a, b, text);
    return text[0] ? cm_fail(c, CALOMU_EFORMAT, "%s", text) : CALOMU_OK;
}

calomu_status calomu_geometry_compare(calomu *c, const calomu_geometry *a, const calomu_geometry *b)
{
    return cm_enter(c) ? cm_leave(c, cm_geometry_compare_call(c, a, b)) : CALOMU_EUSAGE;
}

/* The same as yes or no, for callers with a message of their own. */
static int cm_same_geometry(const calomu_geometry *a, const calomu_geometry *b)
{
    char text[160];
    cm_geometry_differ(a, b, text);
    return !text[0];
}

/* Truth that is not known: a quiet NaN.  A comparison with it is false, so forgotten tests are
   seen.  There are 2^22 quiet NaNs of each sign, and 0/0 has another sign on x86 than on ARM.  This
   is one pattern for all, so that files with it are equal byte for byte. */
float calomu_absent(void)
{
    static const uint32_t bits = 0x7fc00000u;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- events: what every event from a caller or a file is checked for */

/* An event is one muon: hits, each the index of a cell and its energy in GeV, in any order, and
   what is known of the truth: energy in GeV, charge, and the impact point in mm.  What comes from
   outside is checked here once, and the algorithm then relies on it: cells exist, none comes twice,
   energies are finite and not negative, the impact point is on the face.  A message names the event
   by its number in the file; a single muon from a caller has none. */
#define CM_NO_NUMBER UINT64_MAX

/* 32 characters hold "event " and the 20 digits of 2^64 - 1. */
static const char *cm_event_name(char text[32], uint64_t number)
{
    if (number == CM_NO_NUMBER) return "the muon";
    (void)snprintf(text, 32, "event %llu", (unsigned long long)number);
    return text;
}

/* Number of cells; at most 2^24 (cm_geometry_check), so 32 bits never overflow. */
static uint32_t cm_cells(const calomu_geometry *g)
{
    return (uint32_t)g->nz * (uint32_t)g->nx * (uint32_t)g->ny;
}

/* Index along axis (1: x, 2: y) of the column at `at` mm, floor((at - origin)/pitch), or -1 outside
   the face (an impact point outside is an error).  The low edge of a column belongs to it, the high
   edge to the next, so the high edge of the face is outside.  A NaN is outside: it fails i >= 0.
   The index is compared before it becomes an integer, as C leaves the conversion of a number that
   does not fit undefined.  x = 1.9 mm of the paper's geometry: (1.9 + 60)/3.75 = 16.5, column 16.
   */
static int32_t cm_column(const calomu_geometry *g, int axis, double at)
{
    int32_t n = axis == 1 ? g->nx : g->ny;
    double i = floor((at - g->origin[axis]) / g->pitch[axis]);
    return i >= 0 && i < n ? (int32_t)i : -1;
}

/* Truth of one event: each of energy (GeV), charge and impact point (mm) is there and sensible, or
   absent; inference needs none of them.  Half an impact point is an error: it has been lost on the
   way, and to guess the other half would hide that.  An absent point is replaced by the column with
   most energy (footnote 5), one outside the face never is.

   The energy must be positive, because the loss divides by it (Eq. 1; section 6).  The charge is
   only passed on: no feature uses it, as the curvature, feature V24 of section 3, has no sign
   (footnote 4).  Comparisons with FLT_MAX refuse infinity.

   EUSAGE for a point outside, whose geometry or unit is likely another one; EFORMAT for the
   rest. */
static calomu_status cm_check_truth(calomu *c, const calomu_geometry *g, const calomu_event *e,
                                    uint64_t number)
{
    char text[32];
    if (!isnan(e->energy) && !(e->energy > 0 && e->energy <= FLT_MAX))
        return cm_fail(c, CALOMU_EFORMAT, "%s: true energy %g GeV: must be positive and finite",
                       cm_event_name(text, number), (double)e->energy);
    if (!isnan(e->charge) && !(e->charge == 1 || e->charge == -1))
        return cm_fail(c, CALOMU_EFORMAT, "%s: charge %g: must be 1 or -1",
                       cm_event_name(text, number), (double)e->charge);
    if (isnan(e->x) && isnan(e->y)) return CALOMU_OK;
    if (isnan(e->x) || isnan(e->y))
        return cm_fail(c, CALOMU_EFORMAT, "%s: impact point: %c is given but %c is not",
                       cm_event_name(text, number), isnan(e->x) ? 'y' : 'x',
                       isnan(e->x) ? 'x' : 'y');
    if (cm_column(g, 1, (double)e->x) < 0 || cm_column(g, 2, (double)e->y) < 0)
        return cm_fail(c, CALOMU_EUSAGE, "%s: impact point x = %g, y = %g mm is outside the face",
                       cm_event_name(text, number), (double)e->x, (double)e->y);
    return CALOMU_OK;
}

/* Truth and hits of one event, hits in any order.  More hits than cells means that one comes twice;
   which, and every other case of it, is seen once they are sorted (cm_sort_hits).  0 GeV is
   allowed: a program may write all its cells, and a cell without energy changes no result.  A
   negative energy (noise about a pedestal) is not: ratios and means weighted with E assume that
   their denominators are not negative. */
static calomu_status cm_check_event(calomu *c, const calomu_geometry *g, const calomu_event *e,
                                    uint64_t number)
{
    uint32_t cells = cm_cells(g);
    char text[32];
    size_t i;
    if (e->n_hits > cells)
        return cm_fail(c, CALOMU_EFORMAT, "%s: %zu hits, but the calorimeter has %lu cells",
                       cm_event_name(text, number), e->n_hits, (unsigned long)cells);
    for (i = 0; i < e->n_hits; i++) {
        if (e->hits[i].cell >= cells)
            return cm_fail(c, CALOMU_EFORMAT, "%s, hit %zu: cell %lu, but there are only %lu",
                           cm_event_name(text, number), i, (unsigned long)e->hits[i].cell,
                           (unsigned long)cells);
        if (!(e->hits[i].energy >= 0 && e->hits[i].energy <= FLT_MAX))
            return cm_fail(c, CALOMU_EFORMAT,
                           "%s, hit %zu: energy %g GeV: must be finite and not negative",
                           cm_event_name(text, number), i, (double)e->hits[i].energy);
    }
    return cm_check_truth(c, g, e, number);
}

/* Strictly rising cells also mean that none comes twice.  Files of this library are such, so the
   usual event is neither copied nor sorted. */
static int cm_hits_rising(const calomu_hit *hits, size_t n)
{
    size_t i;
    for (i = 1; i < n; i++)
        if (hits[i].cell <= hits[i - 1].cell) return 0;
    return 1;
}

/* Two hits in one cell are an error, not added: whether they are parts of one deposit or the same
   deposit written twice, only the one who wrote them knows.  The message has the cell by index and
   by its three coordinates, as the CSV files have them. */
static calomu_status cm_fail_twice(calomu *c, const calomu_geometry *g, uint32_t cell,
                                   uint64_t number)
{
    uint32_t nx = (uint32_t)g->nx, ny = (uint32_t)g->ny;
    char text[32];
    return cm_fail(c, CALOMU_EFORMAT, "%s: cell %lu (iz %lu, ix %lu, iy %lu) comes twice",
                   cm_event_name(text, number), (unsigned long)cell,
                   (unsigned long)(cell / ny / nx), (unsigned long)(cell / ny % nx),
                   (unsigned long)(cell % ny));
}

/* Merges the sorted runs [a, m) and [m, b) of `from` into `to`.  On equal cells the left run goes
   first, which keeps their order. */
static void cm_merge_hits(calomu_hit *to, const calomu_hit *from, size_t a, size_t m, size_t b)
{
    size_t i = a, j = m, k;
    for (k = a; k < b; k++)
        to[k] = i < m && (j >= b || from[i].cell <= from[j].cell) ? from[i++] : from[j++];
}

/* A sorted copy of n hits by rising cell, by merging runs of 1, 2, 4, ... hits: n log n steps
   whatever the order, no recursion.  libc's qsort promises neither, and may take memory that is not
   the caller's.  All later sums run over the hits in this order, so a muon has the same bits in
   whatever order its hits came.

   sorted and scratch: n hits each.  The runs go to and fro between them; after an odd number of
   passes the result is in scratch, and copied back.  n <= 2^24, so 2*run never overflows. */
static calomu_status cm_sort_hits(calomu *c, const calomu_geometry *g, const calomu_hit *hits,
                                  size_t n, calomu_hit *sorted, calomu_hit *scratch,
                                  uint64_t number)
{
    calomu_hit *from = sorted, *to = scratch, *swap;
    size_t run, a, i;
    if (n) memcpy(sorted, hits, n * sizeof *hits);
    if (cm_hits_rising(hits, n)) return CALOMU_OK;
    for (run = 1; run < n; run *= 2) {
        for (a = 0; a < n; a += 2 * run)
            cm_merge_hits(to, from, a, a + run < n ? a + run : n,
                          a + 2 * run < n ? a + 2 * run : n);
        swap = from;
        from = to;
        to = swap;
    }
    if (from != sorted) memcpy(sorted, from, n * sizeof *hits);
    for (i = 1; i < n; i++)
        if (sorted[i].cell == sorted[i - 1].cell)
            return cm_fail_twice(c, g, sorted[i].cell, number);
    return CALOMU_OK;
}

/* Two things may come with an event: its features (section 3), computed before, and its losses, the
   energies in GeV that a simulation knows the muon to have lost, and where they went (calomu.h).
   They are there exactly if the data set says so: "!a != !b" asks whether one of the two is there
   without the other.  Features must be finite: a NaN in one would make the mean over the
   training set, and so every prediction, a NaN.  A loss may be absent, where a simulation does not
   tell it, but is not infinite. */
static calomu_status cm_check_extra(calomu *c, const calomu_data_info *info,
                                    const calomu_event *e, uint64_t number)
{
    const float *f = e->features;
    const float *loss = e->losses;
    char text[32];
    int i;
    if ((info->features == CALOMU_FEATURES_NONE) != !f)
        return cm_fail(c, CALOMU_EFORMAT, "%s: %s", cm_event_name(text, number),
                       f ? "has features in a set without" : "lacks its features");
    for (i = 0; f && i < CALOMU_FEATURES; i++)
        if (!isfinite(f[i]))
            return cm_fail(c, CALOMU_EFORMAT, "%s: feature %d (counted from 0) is not finite",
                           cm_event_name(text, number), i);
    if (!info->losses != !loss)
        return cm_fail(c, CALOMU_EFORMAT, "%s: %s", cm_event_name(text, number),
                       loss ? "has losses in a set without" : "lacks its losses");
    for (i = 0; loss && i < CALOMU_LOSSES; i++)
        if (!isnan(loss[i]) && !isfinite(loss[i]))
            return cm_fail(c, CALOMU_EFORMAT, "%s: loss %d (counted from 0) is infinite",
                           cm_event_name(text, number), i);
    return CALOMU_OK;
}

/* What a data set says of itself: geometry, losses or not, and of its features the state (none,
   raw, standardised), the convention and E_grow in GeV (both are told in section 3: two readings of
   the paper's text, and the energy from which on a cell joins a cluster), and mean and deviation
   over the training set if they are known.  A feature is standardised as (V - mean)/deviation, so
   that all reach the network as numbers of the order of 1, whatever their units (Sec. 3.2.1); so
   the deviation must be positive, and for a feature that never varies it is 1, not 0.

   EUSAGE, because it comes from the caller of a writer; where it comes from a file, the reader
   turns this into EFORMAT.  Enumerations are compared as integers: a file may hold any number. */
static calomu_status cm_check_info(calomu *c, const calomu_data_info *info)
{
    calomu_status s = calomu_geometry_check(c, &info->geometry);
    int i;
    if (s) return s;
    if ((int)info->features < CALOMU_FEATURES_NONE
        || (int)info->features > CALOMU_FEATURES_STANDARDISED_UNKNOWN)
        return cm_fail(c, CALOMU_EUSAGE, "feature state %d is not known", (int)info->features);
    if (info->losses != 0 && info->losses != 1)
        return cm_fail(c, CALOMU_EUSAGE, "losses %d: must be 0 or 1", (int)info->losses);
    if (info->features == CALOMU_FEATURES_NONE) return CALOMU_OK;
    if ((int)info->feature_options.convention < CALOMU_CONVENTION_TEXT
        || (int)info->feature_options.convention > CALOMU_CONVENTION_AUTHORS)
        return cm_fail(c, CALOMU_EUSAGE, "feature convention %d is not known",
                       (int)info->feature_options.convention);
    if (!(info->feature_options.grow >= 0 && info->feature_options.grow <= FLT_MAX))
        return cm_fail(c, CALOMU_EUSAGE, "E_grow %g GeV: must be finite and not negative",
                       (double)info->feature_options.grow);
    for (i = 0; info->features == CALOMU_FEATURES_STANDARDISED && i < CALOMU_FEATURES; i++)
        if (!isfinite(info->mean[i]) || !(info->deviation[i] > 0 && isfinite(info->deviation[i])))
            return cm_fail(c, CALOMU_EUSAGE,
                           "feature %d: mean %g, deviation %g: must be finite, and the deviation "
                           "positive", i, info->mean[i], info->deviation[i]);
    return CALOMU_OK;
}

/* ============================================================================================
   3 High-level features (appendix 6)
   ============================================================================================

   V[0]..V[27] of one muon: what a physicist would ask of its energy deposits.  E is the energy of a
   cell in GeV, dx and dy its distance from the muon in mm; sums run over the cells with energy.

       V0, V26, V27          sums of E above 0.1, below 0.01, and between, GeV
       V1, V2, V22, V23      first moments in the transverse plane: imbalance, mm
       V3..V8                second moments in the transverse plane, in all and by depth, mm^2
       V9..V14, V16          clusters on the muon's column (type 1)
       V17..V21              clusters elsewhere (type 2)
       V15, V25              3x3x3 boxes of the cells in no cluster, GeV
       V24                   momentum from the curvature of the deposits' mean line, GeV

   Two conventions.  `text` is appendix 6 as it is written, but for E_grow (see there).  `authors`
   is what the public data set of the authors holds, which differs in places; models for that data
   need it.  Every difference is named where it is made.

   A ratio whose denominator is 0 is 0; so are V9..V14 and V16..V21 without clusters.  A muon
   without energy therefore has V = 0 but for V24, which is 10 TeV in `text`: no curvature has been
   seen.

   All sums are in double.  Addition of rounded numbers is not associative, so each sum has one
   order: over the hits by rising cell, where nothing else is said.  The same muon then has the same
   bits on every machine and in whatever order its hits come, and a tie, as of two columns with
   equal sums, is a tie everywhere.

   Only the comparisons with thresholds are in float, the type of a cell's energy: 0.1f is above 0.1
   and 0.01f below 0.01, so in double a cell of just 0.1f would be above the threshold.

   Example, `text`, to which the functions below come back: a muon that enters column (ix, iy) =
   (16, 16), centre (1.875, 1.875) mm, and leaves five hits,
       iz  ix  iy    GeV                    iz  ix  iy    GeV
       10  16  16  0.300                    40  16  16  0.040
       10  17  16  0.150                    40  16  17  0.005
       12  20  16  0.200
   has V0 = 0.65, V26 = 0.005, V27 = 0.04, in all 0.695 GeV; V22 = (0.15*3.75 + 0.2*15)/0.695 =
   5.126 mm, V23 = 0.005*3.75/0.695 = 0.027 mm, V1 = sqrt(V22^2 + V23^2) = 5.126 mm, and V2 = 3.5625
   /0.65 = 5.481 mm.  Layers 10 and 12, at z = 427 and 508 mm, are in V5, layer 40, at 1646 mm, in
   V8, and V4, V6, V7 are 0.  One cluster of type 1, of the two cells in layer 10 (V9 = 1, V10 = 2,
   V11 = 0.45, V12 = 1), one of type 2, of the cell in layer 12 (V17 = 1, V19 = 0.2).  The last two
   hits are in none; the box that has both gives V25 = 0.045, and V15 as well, since the box one
   cell farther on has both too. */

/* GeV: E_thr of the text, and the edge between V26 and V27. */
static const float cm_e_high = 0.1f, cm_e_low = 0.01f;
enum { CM_SECTIONS = 5 };                                    /* V4..V8 */

/* E_grow = 0.1 GeV.  The text says that clusters grow over any non-null cell (E_grow = 0), but then
   the halo of low energies about a real muon joins all into one cluster, and V17..V21 are always 0.
   The authors' code, and with it all numbers of the paper, has 0.1 GeV. */
calomu_feature_options calomu_feature_options_default(void)
{
    calomu_feature_options o = { CALOMU_CONVENTION_TEXT, 0.1f };
    return o;
}

/* The names of the columns in the authors' files, in their order.  Two mislead, and are kept so
   that files agree: V22 "ymom" is the moment along x, V23 "xmom" the one along y (Sec. 6.3). */
const char *calomu_feature_name(int i)
{
    static const char *const name[CALOMU_FEATURES] = {
        "eabove", "rmom", "rmom1", "r2m", "r2m1", "r2m2", "r2m3", "r2m4", "r2m5", "nclu",
        "ncellmax", "eclumax", "maxdepthx", "maxdepthy", "maxdepthz", "epercell", "avgcells",
        "nclu1", "ncellmax1", "eclumax1", "epercell1", "avgcells_off_trk", "ymom", "xmom", "emeas",
        "maxsum", "eb1", "ea1"
    };
    return i >= 0 && i < CALOMU_FEATURES ? name[i] : NULL;
}

const char *calomu_convention_name(calomu_convention convention)
{
    if (convention == CALOMU_CONVENTION_TEXT) return "text";
    return convention == CALOMU_CONVENTION_AUTHORS ? "authors" : NULL;
}

/* ---------------------------------------------------------------- scratch memory */

/* A muon gives energy to about a tenth of the paper's cells.  So it is held twice: as a list of the
   cells with energy, for sums, and in a grid of all cells, where neighbours are found.  The grid
   serves clusters and boxes: a cell that a cluster takes is set to 0 there, "removed from the list
   of unassigned cells" (Sec. 6.1), so what is left is what the boxes may count. */
typedef struct cm_site {             /* a cell with energy, GeV */
    int32_t iz, ix, iy;
    float e;
} cm_site;

/* Memory for the muons of one calorimeter, one after the other; one per thread, so that nothing is
   shared.  The grid is all 0 between muons.  It is cleared cell by cell, where the muon had hits:
   the whole grid would be ten times as much.  Sums of E are in double, the grid in float, the hits'
   type.

   The point that dx, dy are taken from, (x, y), and the impact point differ in `text`: the first is
   the centre of the cell in which the second lies. */
typedef struct cm_feature_scratch {
    calomu_geometry g;
    float *grid;                     /* energies of free cells: in no cluster (yet) */
    double *column;                  /* nx*ny: sums of E over z */
    double *row;                     /* ny: sums of E over z and x */
    double *weight;                  /* ny: exp(-k*pitch/50 mm), V24's weight k rows away */
    float *square;                   /* nz + 2 rows of sums over 3x3 cells in x, y */
    size_t row_of_8;                 /* floats in such a row: ny, rounded up, and 8 */
    size_t capacity;                 /* hits that the arrays below can hold */
    void *memory;                    /* of these arrays */
    cm_site *site;
    calomu_hit *hit, *spare;         /* sorted copy of hits that come unsorted, and for sorting */
    uint32_t *seed;                  /* numbers of sites that may start a cluster */
    uint32_t *stack;                 /* cells whose neighbours are still to be looked at */
    /* the muon at hand */
    size_t sites;
    int ix, iy;                      /* the column it enters */
    double x, y;                     /* the point that dx, dy of V1..V8 are taken from */
    double true_x, true_y;           /* its impact point */
} cm_feature_scratch;

static void cm_feature_scratch_free(calomu *c, cm_feature_scratch *s)
{
    if (!s) return;
    cm_release(c, s->grid);
    cm_release(c, s->square);
    cm_release(c, s->column);
    cm_release(c, s->memory);
    cm_release(c, s);
}

/* For muons of the geometry g; NULL, with a message, without memory.  V24's weights depend only on
   the distance of two rows, so ny of them do for all muons.  The grid has 8 floats more than cells,
   and `square` two rows more than layers, for the sums of boxes, which run over the end. */
static cm_feature_scratch *cm_feature_scratch_new(calomu *c, const calomu_geometry *g)
{
    size_t nz = (size_t)g->nz, nx = (size_t)g->nx, ny = (size_t)g->ny, k;
    cm_feature_scratch *s = cm_allocate(c, 1, sizeof *s);
    if (!s) return NULL;
    s->g = *g;
    s->row_of_8 = (ny + 7) / 8 * 8 + 8;
    s->grid = cm_allocate(c, nz * nx * ny + 8, sizeof *s->grid);
    s->square = cm_allocate(c, (nz + 2) * s->row_of_8, sizeof *s->square);
    s->column = cm_allocate(c, nx * ny + 2 * ny, sizeof *s->column);
    if (!s->grid || !s->square || !s->column) {
        cm_feature_scratch_free(c, s);
        return NULL;
    }
    s->row = s->column + nx * ny;
    s->weight = s->row + ny;
    for (k = 0; k < ny; k++) s->weight[k] = cm_exp_double(-((double)k * g->pitch[2] / 50));
    return s;
}

/* Room for n hits, one allocation for five arrays.  None is left on failure.  n is at most the
   number of cells, 2^24.  Muons are many and their sizes similar: the room only grows. */
static calomu_status cm_feature_reserve(calomu *c, cm_feature_scratch *s, size_t n)
{
    const size_t each = sizeof *s->site + 2 * sizeof *s->hit + 2 * sizeof *s->seed;
    if (n <= s->capacity) return CALOMU_OK;
    cm_release(c, s->memory);
    s->capacity = 0;
    s->memory = cm_allocate(c, n, each);
    if (!s->memory) return CALOMU_EMEMORY;
    s->capacity = n;
    s->site = s->memory;             /* falling alignment: no gaps */
    s->hit = (calomu_hit *)(s->site + n);
    s->spare = s->hit + n;
    s->seed = (uint32_t *)(s->spare + n);
    s->stack = s->seed + n;
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- the muon and its cells */

/* Centre of cell i along an axis, mm: origin + (i + 1/2) pitch. */
static double cm_centre(const calomu_geometry *g, int axis, int i)
{
    return g->origin[axis] + (i + 0.5) * g->pitch[axis];
}

/* The impact point is measured by a tracker upstream, or not (footnote 5).  Known are both of its
   coordinates or none (cm_check_truth). */
static int cm_impact_absent(const calomu_event *e)
{
    return isnan(e->x) || isnan(e->y);
}

/* "The impact position of muons is well determined as that of the xy position whose z-integrated
   recorded energy is the highest" (footnote 5): the column ix*ny + iy with the largest sum over z;
   the lowest on ties, so column 0 for a muon without energy.

   Hits by rising cell: the terms of a column's sum then come by rising z, and a tie is the same on
   every machine.  column: scratch for nx*ny sums. */
static int cm_hottest_column(const calomu_geometry *g, const calomu_hit *hit, size_t n,
                             double *column)
{
    size_t i, columns = (size_t)g->nx * (size_t)g->ny, best = 0;
    memset(column, 0, columns * sizeof *column);
    for (i = 0; i < n; i++) column[hit[i].cell % columns] += (double)hit[i].energy;
    for (i = 1; i < columns; i++)
        if (column[i] > column[best]) best = i;
    return (int)best;
}

/* Sets the column and the point of impact, and where dx, dy are taken from: "the centre of the cell
   which is hit by the muon at the calorimeter front face" (V1) in `text`, the point itself in
   `authors`.  Without a point the two are the same.

   The point is where the simulated muon starts, 50 mm before the face, and is not carried to it.
   Across a field B a charge e of momentum p runs on a circle of R = p/(e B), with p in GeV, B in T
   and R in m R = p/(0.3 B): 1 GeV/c is 1e9 e/2.998e8 kg m/s.  Over a length s it leaves the tangent
   by R - sqrt(R^2 - s^2), which is s^2/(2 R) for s far below R.  So a muon of 50 GeV in 2 T, R =
   83 m, is 0.015 mm aside after the 50 mm, where a cell has 3.75 mm. */
static void cm_feature_impact(cm_feature_scratch *s, const calomu_event *e, const calomu_hit *hit,
                              calomu_convention convention)
{
    const calomu_geometry *g = &s->g;
    int column;
    if (cm_impact_absent(e)) {
        column = cm_hottest_column(g, hit, e->n_hits, s->column);
        s->ix = column / g->ny;
        s->iy = column % g->ny;
        s->true_x = cm_centre(g, 1, s->ix);
        s->true_y = cm_centre(g, 2, s->iy);
    } else {
        s->true_x = (double)e->x;
        s->true_y = (double)e->y;
        s->ix = cm_column(g, 1, s->true_x);  /* in the face: cm_check_event has seen to it */
        s->iy = cm_column(g, 2, s->true_y);
    }
    s->x = convention == CALOMU_CONVENTION_TEXT ? cm_centre(g, 1, s->ix) : s->true_x;
    s->y = convention == CALOMU_CONVENTION_TEXT ? cm_centre(g, 2, s->iy) : s->true_y;
}

/* The hits of a muon by rising cell: its own if they are, else a sorted copy.  From here on an
   event is known to be sound. */
static calomu_status cm_feature_hits(calomu *c, cm_feature_scratch *s, const calomu_event *e,
                                     const calomu_hit **hit)
{
    calomu_status status = cm_check_event(c, &s->g, e, CM_NO_NUMBER);
    if (status == CALOMU_OK) status = cm_feature_reserve(c, s, e->n_hits);
    if (status != CALOMU_OK) return status;
    *hit = e->hits;
    if (cm_hits_rising(e->hits, e->n_hits)) return CALOMU_OK;
    *hit = s->hit;
    return cm_sort_hits(c, &s->g, e->hits, e->n_hits, s->hit, s->spare, CM_NO_NUMBER);
}

/* Lists the cells with energy and enters them into the grid.  A hit of 0 GeV is none: "non-null
   energy deposition" (Sec. 6.1).  The cells rise, so their coordinates are counted up, row (iz, ix)
   by row: three times faster than dividing. */
static void cm_feature_sites(cm_feature_scratch *s, const calomu_hit *hit, size_t n)
{
    const uint32_t nx = (uint32_t)s->g.nx, ny = (uint32_t)s->g.ny;
    uint32_t start = 0;              /* first cell of the row (iz, ix) */
    int32_t iz = 0, ix = 0;
    size_t i;
    s->sites = 0;
    for (i = 0; i < n; i++) {
        cm_site *site = &s->site[s->sites];
        if (!(hit[i].energy > 0)) continue;
        for (; hit[i].cell - start >= ny; start += ny) {
            ix = (uint32_t)ix + 1 < nx ? ix + 1 : 0;
            iz += ix == 0;
        }
        site->iz = iz;
        site->ix = ix;
        site->iy = (int32_t)(hit[i].cell - start);
        site->e = hit[i].energy;
        s->grid[hit[i].cell] = site->e;
        s->sites++;
    }
}

/* ---------------------------------------------------------------- sums and moments */

/* a/b of sums of energies, where b is 0 only if there is nothing to sum: then 0, a feature like any
   other, where a NaN would spoil the mean of all muons. */
static double cm_ratio(double a, double b) { return b > 0 ? a / b : 0; }

/* The measured energy in three parts, in GeV, each the sum of E over the cells with
             text                  authors
       V0    0.1 < E               0.1 < E               showers of radiated photons
       V27   0.01 <= E <= 0.1      0.01 < E <= 0.1       the muon's own ionisation
       V26   E < 0.01              E <= 0.01             the halo of showers
   Ionisation alone leaves about 10 MeV/cm in PbWO4 (Particle Data Group), so 0.04 GeV in a cell.
   The text says "above", "below" and "between", which leaves the edges open; every cell counts
   once.  Radiation grows with the muon's energy, ionisation hardly (Fig. 1), so the three together
   say more than their sum. */
static void cm_feature_energies(const cm_feature_scratch *s, calomu_convention convention,
                                double *v)
{
    double high = 0, middle = 0, low = 0;        /* adding 0 changes none of them */
    size_t i;
    for (i = 0; i < s->sites; i++) {
        float e = s->site[i].e;
        int is_high = e > cm_e_high;
        int is_low = convention == CALOMU_CONVENTION_TEXT ? e < cm_e_low : e <= cm_e_low;
        high += is_high ? (double)e : 0;
        middle += is_high | is_low ? 0 : (double)e;
        low += is_low ? (double)e : 0;
    }
    v[0] = high;
    v[26] = low;
    v[27] = middle;
}

/* Sums of E, E dx, E dy and E (dx^2 + dy^2), in GeV, GeV mm and GeV mm^2.  They are about the
   muon's line from the start: moved there from sums about x = 0 they would be small differences of
   large numbers. */
typedef struct cm_moment {
    double e, x, y, r2;
} cm_moment;

/* Products and sums are rounded each for itself here, not fused: a choice like the other, which
   every machine must share. */
static void cm_add_moment(cm_moment *m, double e, double dx, double dy)
{
    m->e += e;
    m->x += e * dx;
    m->y += e * dy;
    m->r2 += e * (dx * dx + dy * dy);
}

/* Section 0..4 of a layer: z < 400, < 800, < 1200, < 1600 mm from the front face, and the rest, for
   V4..V8.  z is the layer's centre in `text`, its front in `authors`.  An edge belongs to the
   section behind it, as "z >= 1600 mm" of V8 has it; in the paper's detector neither a centre nor a
   front lies on an edge.  Another calorimeter keeps the edges at these lengths. */
static int cm_section(const calomu_geometry *g, int iz, calomu_convention convention)
{
    double z = (iz + (convention == CALOMU_CONVENTION_TEXT ? 0.5 : 0)) * g->pitch[0];
    int section = 0;
    while (section < CM_SECTIONS - 1 && z >= 400 * (section + 1)) section++;
    return section;
}

/* Moments of the energy in the transverse plane, about the muon's line (Sec. 6.3):
       V1 = sqrt((sum E dx)^2 + (sum E dy)^2) / sum E      imbalance, mm
       V2 = the same over cells with E > 0.1 GeV           imbalance of the showers' cores
       V3 = sum E (dx^2 + dy^2) / sum E                    mean square width, mm^2
       V4..V8 = V3 with both sums over one section in z
       V22 = sum E dx / sum E, V23 = sum E dy / sum E      with sign, mm
   The field bends along x, so V22 leans with charge and curvature, V23 does not.

   `authors`: V22 is the sum of E dx over all cells plus that over E > 0.1 GeV, and not divided, in
   GeV mm; V23 likewise with dy.  Cells above the threshold count twice so.  It looks like a slip,
   but the data set has it, and models that were trained with it expect it. */
static void cm_feature_moments(const cm_feature_scratch *s, calomu_convention convention,
                               double *v)
{
    cm_moment all = { 0 }, above = { 0 }, section[CM_SECTIONS] = { { 0 } };
    size_t i;
    int k, layer = -1, at = 0;
    for (i = 0; i < s->sites; i++) {
        const cm_site *site = &s->site[i];
        double e = (double)site->e, dx = cm_centre(&s->g, 1, site->ix) - s->x;
        double dy = cm_centre(&s->g, 2, site->iy) - s->y;
        if (site->iz != layer) at = cm_section(&s->g, layer = site->iz, convention);
        cm_add_moment(&all, e, dx, dy);
        cm_add_moment(&section[at], e, dx, dy);
        if (site->e > cm_e_high) cm_add_moment(&above, e, dx, dy);
    }
    v[1] = cm_ratio(sqrt(all.x * all.x + all.y * all.y), all.e);
    v[2] = cm_ratio(sqrt(above.x * above.x + above.y * above.y), above.e);
    v[3] = cm_ratio(all.r2, all.e);
    for (k = 0; k < CM_SECTIONS; k++) v[4 + k] = cm_ratio(section[k].r2, section[k].e);
    v[22] = cm_ratio(all.x, all.e);
    v[23] = cm_ratio(all.y, all.e);
    if (convention == CALOMU_CONVENTION_AUTHORS) {
        v[22] = all.x + above.x;
        v[23] = all.y + above.y;
    }
}

/* ---------------------------------------------------------------- V24: curvature (Sec. 6.2) */

/* A muon of momentum p runs on a circle of radius R = p/(0.3 B), as told above, here in the xz
   plane.  It enters at right angles to the front face, so the circle's centre has z = 0, and two
   points fix it.  At 600 GeV R is 1000 m, and the muon leaves 2 m later 2 mm aside, half a cell: so
   the two points are means over many cells, one of each half of the depth.

   Photons fly off in all directions; cells near the plane of the track tell most about it, and are
   weighted so, by their distance in y from the track's row.  In `text` that is y_mu, "the center of
   the towers in the y plane containing the highest amount of measured energy": iy of the row with
   the largest sum of E over z and x; the lowest on ties.  In `authors` it is the row of the
   impact. */
static int cm_hottest_row(const cm_feature_scratch *s)
{
    size_t i;
    int iy, best = 0;
    memset(s->row, 0, (size_t)s->g.ny * sizeof *s->row);
    for (i = 0; i < s->sites; i++) s->row[s->site[i].iy] += (double)s->site[i].e;
    for (iy = 1; iy < s->g.ny; iy++)
        if (s->row[iy] > s->row[best]) best = iy;
    return best;
}

/* The mean points (x_h, z_h) of the front half (layers below nz/2) and of the back half, in mm:
       x_h = sum E w x / sum E w,  z_h = sum E w z / sum E w,  w = exp(-|y - y_row|/50 mm),
   and (0, 0) for a half without energy.  z is that of the layer's centre (shift 1/2) in `text`, of
   its front (0) in `authors`, from the front face.

   x is summed from the first site's column, as sum E w (ix - first): where all energy is in one
   plane x both sums are 0, and the two x are equal to the last bit, as they should be.  Summed as x
   itself they would differ by roundings, which make a circle of huge R in place of "no curvature";
   in `authors` that is 10 TeV in place of 0. */
static void cm_mean_points(const cm_feature_scratch *s, int row, double shift, double x[2],
                           double z[2])
{
    const int32_t first = s->sites ? s->site[0].ix : 0;
    size_t i = 0;
    int h;
    for (h = 0; h < 2; h++) {        /* layers rise, so the front half comes first */
        double sum = 0, sum_x = 0, sum_z = 0;
        for (; i < s->sites; i++) {
            const cm_site *site = &s->site[i];
            double ew = (double)site->e
                * s->weight[site->iy < row ? row - site->iy : site->iy - row];
            if (h == 0 && 2 * site->iz >= s->g.nz) break;
            sum += ew;
            sum_x += ew * (site->ix - first);
            sum_z += ew * (site->iz + shift);
        }
        x[h] = sum > 0 ? cm_centre(&s->g, 1, first) + sum_x / sum * s->g.pitch[1] : 0;
        z[h] = cm_ratio(sum_z, sum) * s->g.pitch[0];
    }
}

/* V24 = 0.3 B R (GeV, T, m) of the circle (x - x0)^2 + z^2 = R^2 through both points (Sec. 6.2):
       x0 = (z2^2 - z1^2 + x2^2 - x1^2) / (2 (x2 - x1)),  R^2 = (x1 - x0)^2 + z1^2.
   With d = x2 - x1 and u = x0 - x1 that is
       u = (z2^2 - z1^2 + d^2) / (2 d),  R^2 = u^2 + z1^2.
   The paper's R^2 = x1^2 - 2 x1 x0 + x0^2 + z1^2 is the same on paper.  In numbers x0 is about R,
   1.7e7 mm at 10 TeV and 2 T, where x1 is below 60 mm, so its terms cancel; here nothing does but
   z2 - z1 and x2 - x1 themselves.

   Where x0 comes from: both points have the distance R from (x0, 0), so
       (x1 - x0)^2 + z1^2 = (x2 - x0)^2 + z2^2;   x0^2 cancels, and what is left is linear in x0,
       2 x0 (x2 - x1) = x2^2 - x1^2 + z2^2 - z1^2.
   The example of the section's head: x2 - x1 = -5.481 mm, z1 = 452, z2 = 1646 mm, so u = -228.5 m,
   and 0.3 * 2 T * 228.5 m = 137 GeV.  A muon of 1200 GeV, R = 2000 m, has bent by z^2/(2 R), 0.0625
   mm at z = 500 and 0.5625 mm at 1500; from d = 0.5 mm, less than a seventh of a cell, comes u =
   (1500^2 - 500^2 + 0.25)/1 = 2,000,000 mm again.

   R is a length, so the sign of the bending, which the authors' code has first, is dropped
   (footnote 4).  V24 is clipped to 10 TeV (Sec. 3.2.1).  d = 0 is a straight line: R is infinite,
   10 TeV in `text`, but 0 in `authors`.  If one half has no energy, its point is (0, 0): V24 is
   then defined, but measures nothing. */
static double cm_feature_curvature(const cm_feature_scratch *s, calomu_convention convention)
{
    const int text = convention == CALOMU_CONVENTION_TEXT;
    double x[2], z[2], d, u, v;
    cm_mean_points(s, text ? cm_hottest_row(s) : s->iy, text ? 0.5 : 0, x, z);
    d = x[1] - x[0];
    if (d == 0) return text ? 10000 : 0;
    u = ((z[1] - z[0]) * (z[1] + z[0]) + d * d) / (2 * d);
    v = fabs(0.3 * s->g.field * (sqrt(u * u + z[0] * z[0]) / 1000));
    return v < 10000 ? v : 10000;    /* also where R is infinite and the field 0: a NaN */
}

/* ---------------------------------------------------------------- V9..V14, V16..V21: clusters */

/* A photon of high energy leaves a shower in several neighbouring cells.  Clusters collect them:
   type 1 begin on the muon's column, type 2 elsewhere (Sec. 6.1).

   What the features need of all clusters of one type: how many, cells in all, most cells in one,
   most energy in one (GeV); and along z, x, y the largest extent, highest index less lowest, so
   that a cluster of one cell extends over 0.  The largest energy, cells and extents may be of
   different clusters. */
typedef struct cm_clusters {
    double count, cells, max_cells;
    double max_energy;
    int extent[3];
} cm_clusters;

/* The order in which seeds are tried: by falling energy, on ties by rising cell.  The text has no
   rule for ties; without one the clusters would depend on the sort. */
static int cm_seed_before(const cm_site *site, uint32_t a, uint32_t b)
{
    return site[a].e > site[b].e || (site[a].e == site[b].e && a < b);
}

/* A heap is an array that is read as a tree, with seed[2i + 1] and seed[2i + 2] as the children of
   seed[i]; here every seed comes after both of its children in the order of cm_seed_before, so that
   seed[0], the root, comes last of all.  Moves seed[i] down in a heap of n until that holds.
   seed[i] is the only one for which it may not hold. */
static void cm_seed_sink(const cm_site *site, uint32_t *seed, size_t i, size_t n)
{
    uint32_t moved = seed[i];
    size_t child;
    for (; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && cm_seed_before(site, seed[child], seed[child + 1])) child++;
        if (!cm_seed_before(site, moved, seed[child])) break;
        seed[i] = seed[child];
    }
    seed[i] = moved;
}

/* The sites with E > E_thr = 0.1 GeV, in the order in which they are tried.  The text looks for
   "the highest-energy cell" again after each cluster; as energies do not change, one sort does the
   same if cells that have been taken are passed over.  Heapsort (J. W. J. Williams, Comm. ACM 7
   (1964) 347): libc's qsort may take memory, and hostile muons have 2^24 seeds, for which some
   qsorts need n^2 steps.  Its order is that of cm_seed_before to the last, no two seeds being equal
   there. */
static size_t cm_feature_seeds(cm_feature_scratch *s)
{
    size_t i, n = 0;
    for (i = 0; i < s->sites; i++)
        if (s->site[i].e > cm_e_high) s->seed[n++] = (uint32_t)i;
    for (i = n / 2; i-- > 0;) cm_seed_sink(s->site, s->seed, i, n);
    for (i = n; i-- > 1;) {
        uint32_t last = s->seed[0];
        s->seed[0] = s->seed[i];
        s->seed[i] = last;
        cm_seed_sink(s->site, s->seed, 0, i);
    }
    return n;
}

/* Takes a free cell into the cluster: it is free no more, and its neighbours are to be seen.  A
   taken cell has 0 in the grid, which is not above any E_grow >= 0, so none is taken twice. */
static void cm_take(cm_feature_scratch *s, size_t cell, size_t *waiting, double *energy)
{
    *energy += (double)s->grid[cell];
    s->grid[cell] = 0;
    s->stack[(*waiting)++] = (uint32_t)cell;
}

/* "Cells with non-null energy deposition are progressively added to the cluster if they are
   adjacent to already included cells" (Sec. 6.1): adjacent are the 6 neighbours along z, x and y,
   not across edges or corners; added are those with E > E_grow.  The seed itself has E > E_thr,
   whatever E_grow.

   Each cell that is taken is divided into its coordinates again: 32 bits hold its number, and a
   division in 64 is much slower.

   Which cells belong to a cluster does not depend on the order in which they are found, but the
   last bit of its energy does.  The order is: of the cell stacked last the neighbours are taken
   next, as -z, +z, -x, +x, -y, +y, and added as they are taken.  A cell is stacked once, so the
   stack never holds more than all sites.  A recursion would be shorter, and go 2^24 deep with a
   hostile muon. */
static void cm_grow(cm_feature_scratch *s, size_t cell, float grow, cm_clusters *all)
{
    const int n[3] = { s->g.nz, s->g.nx, s->g.ny };
    const size_t step[3] = { (size_t)n[1] * (size_t)n[2], (size_t)n[2], 1 };
    int low[3] = { INT_MAX, INT_MAX, INT_MAX }, high[3] = { 0, 0, 0 }, at[3], k;
    double energy = 0, cells = 0;
    size_t waiting = 0;
    for (cm_take(s, cell, &waiting, &energy); waiting > 0; cells++) {
        uint32_t number = s->stack[--waiting], row = number / (uint32_t)n[2];
        cell = number;
        at[0] = (int)(row / (uint32_t)n[1]);
        at[1] = (int)(row % (uint32_t)n[1]);
        at[2] = (int)(number % (uint32_t)n[2]);
        for (k = 0; k < 3; k++) {
            low[k] = at[k] < low[k] ? at[k] : low[k];
            high[k] = at[k] > high[k] ? at[k] : high[k];
            if (at[k] > 0 && s->grid[cell - step[k]] > grow)
                cm_take(s, cell - step[k], &waiting, &energy);
            if (at[k] + 1 < n[k] && s->grid[cell + step[k]] > grow)
                cm_take(s, cell + step[k], &waiting, &energy);
        }
    }
    all->count++;
    all->cells += cells;
    if (cells > all->max_cells) all->max_cells = cells;
    if (energy > all->max_energy) all->max_energy = energy;
    for (k = 0; k < 3; k++)
        if (high[k] - low[k] > all->extent[k]) all->extent[k] = high[k] - low[k];
}

/* First all clusters of type 1, from seeds in the column of the muon; then type 2, from any seed
   still free.  A seed is free while its cell in the grid is not 0.
       type 1   type 2
       V9       V17      number of clusters
       V10      V18      most cells in one
       V11      V19      most energy in one, GeV
       V12..14  -        largest extent along x, y, z, in cells (the struct has z first)
       V16      V21      mean number of cells
       -        V20      V19/V18, GeV
   V20 divides maxima that may be of two clusters: so the text has it.  `authors`: column 15 is the
   same ratio of type 1, V11/V10, and column 19 is overwritten by the boxes, after V20 is made. */
static void cm_feature_clusters(cm_feature_scratch *s, const calomu_feature_options *o, double *v)
{
    cm_clusters type[2] = { { 0, 0, 0, 0, { 0, 0, 0 } }, { 0, 0, 0, 0, { 0, 0, 0 } } };
    size_t i, n = cm_feature_seeds(s);
    int t;
    for (t = 0; t < 2; t++) {
        for (i = 0; i < n; i++) {
            const cm_site *p = &s->site[s->seed[i]];
            size_t cell = ((size_t)p->iz * (size_t)s->g.nx + (size_t)p->ix) * (size_t)s->g.ny
                + (size_t)p->iy;
            if (t == 0 && (p->ix != s->ix || p->iy != s->iy)) continue;
            if (s->grid[cell] > 0) cm_grow(s, cell, o->grow, &type[t]);
        }
    }
    v[9] = type[0].count;
    v[10] = type[0].max_cells;
    v[11] = type[0].max_energy;
    v[12] = type[0].extent[1];
    v[13] = type[0].extent[2];
    v[14] = type[0].extent[0];
    v[16] = cm_ratio(type[0].cells, type[0].count);
    v[17] = type[1].count;
    v[18] = type[1].max_cells;
    v[19] = type[1].max_energy;
    v[20] = cm_ratio(v[19], v[18]);
    v[21] = cm_ratio(type[1].cells, type[1].count);
    if (o->convention == CALOMU_CONVENTION_AUTHORS) v[15] = cm_ratio(v[11], v[10]);
}

/* ---------------------------------------------------------------- V15, V25: boxes */

/* What no cluster has taken may still hold a faint shower: the 3x3x3 box with most energy shows it.

   The sum of the free cells of the box with lower corner (iz, ix, iy), on its own and in the order
   of its cells, GeV.  Boxes that hold the same energies in the same places compare equal so;
   running sums, which add the cells that enter and take away those that leave, are faster, but
   their roundings depend on the way, and ties would be decided by them. */
static double cm_box_sum(const cm_feature_scratch *s, int iz, int ix, int iy)
{
    double sum = 0;
    int dz, dx, dy;
    for (dz = 0; dz < 3; dz++) {
        for (dx = 0; dx < 3; dx++) {
            const float *e = s->grid + ((size_t)(iz + dz) * (size_t)s->g.nx + (size_t)(ix + dx))
                * (size_t)s->g.ny + (size_t)iy;
            for (dy = 0; dy < 3; dy++) sum += (double)e[dy];
        }
    }
    return sum;
}

/* to[i] = a[i] + b[i] + c[i] for n floats, n a multiple of 8.  This and the next serve only a bound
   on boxes, no feature itself.  The inner loop of 8, whose length a compiler knows, becomes vectors
   in all of them; with one loop over n all features of 512 muons take 1.3 times as long with gcc 12
   at -O2 (clang 1.0), with the same bits. */
static void cm_add_three(const float *a, const float *b, const float *c, float *restrict to,
                         size_t n)
{
    size_t i;
    int k;
    for (i = 0; i < n; i += 8, a += 8, b += 8, c += 8, to += 8)
        for (k = 0; k < 8; k++) to[k] = a[k] + b[k] + c[k];
}

/* largest[i] = max(largest[i], a[i]). */
static void cm_keep_largest(const float *a, float *restrict largest, size_t n)
{
    size_t i;
    int k;
    for (i = 0; i < n; i += 8, a += 8, largest += 8)
        for (k = 0; k < 8; k++) largest[k] = a[k] > largest[k] ? a[k] : largest[k];
}

/* All boxes with lower corner at ix, roughly, from sums that boxes share.  Row iz of s->square:
   sums of the free cells (iz, ix..ix+2, iy..iy+2), in float; and behind the rows, for each iy, the
   largest sum of three of them, that is of a box.

   Rows are rounded up to a multiple of 8: what is behind iy = ny - 3 means nothing and is never
   used.  The last row reads up to 7 floats behind the grid, which has 8 more for that. */
static const float *cm_box_squares(const cm_feature_scratch *s, int ix)
{
    const size_t ny = (size_t)s->g.ny, nz = (size_t)s->g.nz, n = s->row_of_8 - 8;
    float *line = s->square + nz * s->row_of_8, *most = line + s->row_of_8, *to = s->square;
    size_t iz;
    memset(most, 0, n * sizeof *most);
    for (iz = 0; iz < nz; iz++, to += s->row_of_8) {
        const float *e = s->grid + (iz * (size_t)s->g.nx + (size_t)ix) * ny;
        cm_add_three(e, e + ny, e + 2 * ny, line, n);
        cm_add_three(line, line + 1, line + 2, to, n);
        if (iz < 2) continue;
        cm_add_three(to - 2 * s->row_of_8, to - s->row_of_8, to, line, n);
        cm_keep_largest(line, most, n);
    }
    return most;
}

/* `text`: V25 and V15 are the largest and the second-largest sum of all boxes that fit in the grid.
   Boxes may overlap: the second may be the first, moved by one cell.  They may be equal; 0 both
   in a grid with fewer than 3 cells along an axis.

   `authors`: V25 is the maximum of a scan over ix, then iy, then iz (innermost), beginning at 0,
   with strict >; corners with ix_mu - ix = 0 or 1 and iy_mu - iy = 1 are left out.  Column 19 is
   the value that the maximum had before its last increase: so it depends on the order of the scan,
   and is not the second-largest.  That order is part of the definition.

   Summing all 43,200 boxes of the paper's grid, 48 * 30 * 30, gives the same bits, and makes all
   features of a muon of 5,000 hits take 4.4 times as long.  So three squares give a sum in float
   first, and only boxes that may be above `bar` are summed again: the second-largest sum so far in
   `text`, the largest in `authors`.  No box is lost by that: one below or at the bar changes
   nothing, and the float sum of terms >= 0 goes through at most six roundings on the way of each
   term, so it is at least (1 - 2^-24)^6 of the exact sum; 1.000001 allows for more than these 6 *
   2^-24 = 3.6e-7, and for the roundings in double, which are far smaller.  A float sum that
   overflows is infinite, and is summed again. */
static void cm_feature_boxes(const cm_feature_scratch *s, calomu_convention convention, double *v)
{
    const int text = convention == CALOMU_CONVENTION_TEXT;
    const int fits = s->g.nz > 2 && s->g.nx > 2 && s->g.ny > 2;
    const size_t row = s->row_of_8;
    double largest = 0, before = 0, bar = 0, sum;
    int ix, iy, iz;
    for (ix = 0; fits && ix < s->g.nx - 2; ix++) {
        const float *most = cm_box_squares(s, ix);
        for (iy = 0; iy < s->g.ny - 2; iy++) {
            const float *square = s->square + iy;
            if ((double)most[iy] * 1.000001 <= bar) continue;
            if (!text && s->iy - iy == 1 && (s->ix == ix || s->ix - ix == 1)) continue;
            for (iz = 0; iz < s->g.nz - 2; iz++, square += row) {
                if ((double)(square[0] + square[row] + square[2 * row]) * 1.000001 <= bar) continue;
                sum = cm_box_sum(s, iz, ix, iy);
                if (sum > largest) {
                    before = largest;
                    largest = sum;
                } else if (text && sum > before) {
                    before = sum;
                }
                bar = text ? before : largest;
            }
        }
    }
    v[25] = largest;
    v[text ? 15 : 19] = before;
}

/* ---------------------------------------------------------------- all 28 */

/* E_grow may be 0, the text's rule, but not negative: cells that are taken are 0 in the grid, and a
   cluster would take them again and again. */
static calomu_status cm_feature_options_check(calomu *c, const calomu_feature_options *o)
{
    if (!calomu_convention_name(o->convention))
        return cm_fail(c, CALOMU_EUSAGE, "features: there is no convention %d; 0 is text, "
                       "1 is authors", (int)o->convention);
    if (!(o->grow >= 0 && o->grow <= FLT_MAX))
        return cm_fail(c, CALOMU_EUSAGE, "features: the energy above which clusters grow must be "
                       "0 GeV or more, and finite");
    return CALOMU_OK;
}

/* Rounds to the files' type, float, whether features are read or computed on the fly: so a network
   sees the same numbers either way.  Sums of float energies fit a double (at most 2^24 of 3e38),
   not always a float.  Too large a feature is an error, not an infinity, which would spoil the mean
   of all muons. */
static calomu_status cm_feature_round(calomu *c, const double *v, float out[CALOMU_FEATURES])
{
    int i;
    for (i = 0; i < CALOMU_FEATURES; i++)
        if (!(fabs(v[i]) <= (double)FLT_MAX))
            return cm_fail(c, CALOMU_EFORMAT, "feature %s is too large for a float: the hits' "
                           "energies are absurd; are they in GeV?", calomu_feature_name(i));
    for (i = 0; i < CALOMU_FEATURES; i++) out[i] = (float)v[i];
    return CALOMU_OK;
}

/* The 28 of one muon, with the scratch memory of a caller who has many; it must be of the same
   geometry, and the options must have been checked.  Only two steps have to wait for others: boxes
   count what clusters leave, and in `authors` write column 19 after V20 has used V19.  At the end
   the cells with hits are 0 again in the grid, ready for the next muon. */
static calomu_status cm_features(calomu *c, const calomu_geometry *g, const calomu_event *e,
                                 const calomu_feature_options *o, cm_feature_scratch *s,
                                 float out[CALOMU_FEATURES])
{
    double v[CALOMU_FEATURES] = { 0 };
    const calomu_hit *hit = NULL;
    calomu_status status;
    size_t i;
    if (!cm_same_geometry(g, &s->g))
        return cm_fail(c, CALOMU_EUSAGE, "features: scratch memory of another geometry");
    status = cm_feature_hits(c, s, e, &hit);
    if (status != CALOMU_OK) return status;
    cm_feature_impact(s, e, hit, o->convention);
    cm_feature_sites(s, hit, e->n_hits);
    cm_feature_energies(s, o->convention, v);
    cm_feature_moments(s, o->convention, v);
    v[24] = cm_feature_curvature(s, o->convention);
    cm_feature_clusters(s, o, v);
    cm_feature_boxes(s, o->convention, v);   /* after the clusters, whose cells it leaves out */
    for (i = 0; i < e->n_hits; i++) s->grid[hit[i].cell] = 0;
    return cm_feature_round(c, v, out);
}

/* As a call of the interface: checks, and scratch memory for this one muon. */
static calomu_status cm_features_call(calomu *c, const calomu_geometry *g,
                                      const calomu_event *event,
                                      const calomu_feature_options *options,
                                      float out[CALOMU_FEATURES])
{
    calomu_feature_options o = options ? *options : calomu_feature_options_default();
    calomu_status status = calomu_geometry_check(c, g);
    cm_feature_scratch *s;
    if (status == CALOMU_OK) status = cm_feature_options_check(c, &o);
    if (status != CALOMU_OK) return status;
    s = cm_feature_scratch_new(c, g);
    if (!s) return CALOMU_EMEMORY;
    status = cm_features(c, g, event, &o, s, out);
    cm_feature_scratch_free(c, s);
    return status;
}

calomu_status calomu_features(calomu *c, const calomu_geometry *g, const calomu_event *event,
                              const calomu_feature_options *options, float out[CALOMU_FEATURES])
{
    return cm_enter(c) ? cm_leave(c, cm_features_call(c, g, event, options, out)) : CALOMU_EUSAGE;
}

/* ============================================================================================
   4 Networks as lists of layers: Figs. 4 and 5, parameters
   ============================================================================================

   The paper's network (Fig. 3c) has two parts.  The head makes numbers of the hits, by 12 blocks of
   convolutions in three dimensions and then the maximum and the mean of each of 49 channels over
   the grid.  The body makes the energy of these 98 and the 28 features: three layers of 80 neurons,
   every one of which sees all of the layer before, and one neuron, the tail.

   A network is a list of plain layers, the same for training and inference.  Each reads what
   layers before it have made, or the hits, or the features.  Parameters with their names, order
   and initial values, the shapes of all results and the forward and backward pass follow from it
   and from nothing else.  A layer is known by its number in the list, which is what the functions
   that append one return; -1 stands for the hits.  The beginning of the paper's head,
       i = cm_layer_conv(s, "path.0", -1, 8, 4, 2, 2, 0);     out 8, kernel 4, stride 2, padding 2
       i = cm_layer_point(s, CM_SWISH, i);
       i = cm_layer_norm(s, "path.2", i);
   makes three layers, each with 26 x 17 x 17 sites (50/2 + 1, 32/2 + 1) of 8 channels:
       0  conv of hits  head.0.path.0  reads the hits   weight [8][1][4][4][4]
       1  Swish                        reads 0          no parameters, so no name
       2  norm          head.0.path.2  reads 1          weight, bias [8], and buffers
   To write a network as a function that calls one layer after the other would do for the forward
   pass, and leave shapes, parameters and the backward pass to be written down again.

   The head (Fig. 5), whose blocks halve the grid four times.  A block reads c_in channels, learns
   c_out and puts the energy sum, channel 0, in front: c_out + 1 leave it.  q is the width
   of its squeeze-excitation; "conv 1" and "conv 2" are its two convolutions' weights.

   What a block computes (Figs. 4b, 4c; under "Figs. 4 and 5" below it is written as a list):

       path      in -> norm -> Swish -> conv 1 -> norm -> Swish -> conv 2
       gate      path -> mean over sites -> Linear -> Swish -> Linear -> sigmoid            (SE)
       shortcut  in; where the grid is halved  in -> Swish -> norm -> average -> conv of one cell
       e         channel 0 of in; where the grid is halved summed over 2x2x2 sites
       out       e, and behind it shortcut + gate * path
   and of block 0, which reads the hits (Fig. 4a):
       path      hits -> conv 1 -> Swish -> norm -> conv 2 -> Swish -> norm
       shortcut  hits -> average -> conv of one cell;    e   sum of the hits over 2x2x2 cells

   The path finds patterns, squeeze-excitation (SE) decides from the means of all channels how much
   of each is let through, the shortcut lets the energies pass as they are, and e is the energy that
   was measured at the site, with which later blocks can compare what they have found.

     block    c_in  c_out  leaves [z][x][y][c]    q   conv 1   conv 2  norms    SE  shortcut
       0 down    1      8  26 x 17 x 17 x  9      2      512    1,728     32    42        16
       1         9      9  26 x 17 x 17 x 10      2    2,187    2,187     36    47
       2        10     10  26 x 17 x 17 x 11      2    2,700    2,700     40    52
       3 down   11     16  14 x  9 x  9 x 17      4   11,264    6,912     76   148       176
       4        17     17  14 x  9 x  9 x 18      4    7,803    7,803     68   157
       5        18     18  14 x  9 x  9 x 19      4    8,748    8,748     72   166
       6 down   19     28   8 x  5 x  5 x 29      7   34,048   21,168    132   427       532
       7        29     29   8 x  5 x  5 x 30      7   22,707   22,707    116   442
       8        30     30   8 x  5 x  5 x 31      7   24,300   24,300    120   457
       9 down   31     46   5 x  3 x  3 x 47     11   91,264   57,132    216 1,069     1,426
      10        47     47   5 x  3 x  3 x 48     11   59,643   59,643    188 1,092
      11        48     48   5 x  3 x  3 x 49     12   62,208   62,208    192 1,212

   Conv 1 has 27 c_in c_out weights, where the grid is halved 64 c_in c_out; conv 2 has 27 c_out^2.
   A norm of c channels has 2c: of c_in and c_out, in a block that halves once more of c_in in the
   shortcut (block 0, whose norms stand behind its two convolutions: twice of c_out).
   SE: (c_out + 1) q + (q + 1) c_out.
   Shortcut: c_in c_out, in block 0 a bias for each c_out as well.  The table adds up to 613,369.
   The body reads 28 features, 49 maxima and 49 means: 126 x 80 + 80 weights and biases, twice 80 x
   80 + 80, and 80 + 1 of the last neuron, 23,201.  Together 636,570, the number of Table 4. */

typedef struct cm_stage {            /* one block of the head (Figs. 4 and 5) */
    int in, out;                     /* channels in, learned channels out; one more leaves */
    int down, first;                 /* halves the grid; is block 0, which reads the hits */
} cm_stage;

/* Fig. 5: the grid is halved at the start of each of four resolutions; block 0 learns 8 channels.
   */
enum { CM_RESOLUTIONS = 4, CM_FIRST_CHANNELS = 8 };

/* Stage i of the head; channel counts are found by going through the ones before.  Only where the
   grid is halved do the learned channels grow, to floor(1.5 c_in); the paper says 1.5, and
   rounding down gives its number of parameters: 16 = floor(16.5) of 11, 28 of 19, 46 of 31. */
static cm_stage cm_stage_of(const calomu_architecture *a, int i)
{
    cm_stage s = { 1, CM_FIRST_CHANNELS, 1, 1 };
    int j;
    for (j = 1; j <= i; j++) {
        s.first = 0;
        s.in = s.out + 1;
        s.down = j % a->blocks == 0;
        s.out = s.down ? (int)floor(a->growth * s.in) : s.in;
    }
    return s;
}

/* 12 of the paper: four resolutions of three blocks, or no head at all (Fig. 3a). */
static int cm_stages(const calomu_architecture *a)
{
    return a->head ? CM_RESOLUTIONS * a->blocks : 0;
}

/* Channels that the head hands to the body: maxima and means. */
static int cm_head_outputs(const calomu_architecture *a)
{
    return a->head ? 2 * (cm_stage_of(a, cm_stages(a) - 1).out + 1) : 0;
}

/* Learned channels of the stage that has the fewest: a growth below 1 may leave none. */
static int cm_least_channels(const calomu_architecture *a)
{
    int i, least = CM_FIRST_CHANNELS;
    for (i = 0; i < cm_stages(a); i++)
        if (cm_stage_of(a, i).out < least) least = cm_stage_of(a, i).out;
    return least;
}

/* The paper's network: the hybrid model of Fig. 3c, which reads hits and features. */
calomu_architecture calomu_architecture_default(void)
{
    calomu_architecture a;
    memset(&a, 0, sizeof a);
    a.geometry = calomu_geometry_default();
    a.feature_options = calomu_feature_options_default();
    a.head = 1;
    a.n_features = CALOMU_FEATURES;
    a.blocks = 3;
    a.body = 80;
    a.growth = 1.5;
    return a;
}

/* The bounds keep every product of shapes within an int and the loop of cm_stage_of short; an
   architecture may come from a file that somebody else has written.  At most, with a growth of 8
   and 64 blocks, cm_stage_of comes to 8, 72 -> 576, 640 -> 5,120 and 5,184 -> 41,472 channels,
   which an int holds; the last check refuses all above 2,047, with which the widest convolution has
   64 * 2047 * 2047 = 2.7e8 weights, below 2^31.  Before it comes that of the least channels,
   because a growth below 1 may leave a stage without any. */
static calomu_status cm_architecture_check(calomu *c, const calomu_architecture *a)
{
    calomu_status s = calomu_geometry_check(c, &a->geometry);
    int convention = (int)a->feature_options.convention;
    if (s != CALOMU_OK) return s;
    if (a->n_features != 0 && a->n_features != 3 && a->n_features != CALOMU_FEATURES)
        return cm_fail(c, CALOMU_EUSAGE, "network: %d features; there are menus of 28, 3 and 0",
                       a->n_features);
    if ((a->head != 0 && a->head != 1) || (!a->head && a->n_features == 0))
        return cm_fail(c, CALOMU_EUSAGE, "network: neither features nor head, so no input");
    if (a->blocks < 1 || a->blocks > 64)
        return cm_fail(c, CALOMU_EUSAGE, "network: %d blocks per resolution; 1 to 64 are possible",
                       a->blocks);
    if (a->body < 1 || a->body > 4096)
        return cm_fail(c, CALOMU_EUSAGE, "network: a body of %d neurons; 1 to 4096 are possible",
                       a->body);
    if (!(a->growth >= 0.2 && a->growth <= 8))
        return cm_fail(c, CALOMU_EUSAGE, "network: the growth must be 0.2 to 8");
    if (convention < 0 || convention > CALOMU_CONVENTION_AUTHORS
        || !(a->feature_options.grow >= 0 && a->feature_options.grow <= FLT_MAX))
        return cm_fail(c, CALOMU_EUSAGE, "network: unknown feature convention or bad grow energy");
    if (a->head && cm_least_channels(a) < 1)
        return cm_fail(c, CALOMU_EUSAGE, "network: with a growth of %g a stage has no channels",
                       a->growth);
    if (a->head && cm_head_outputs(a) > 4096)
        return cm_fail(c, CALOMU_EUSAGE, "network: more than 2047 channels at the end of the head");
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- layers

   The kinds (cm_kind, calomu.h).  x, a, b, s, p, q are what is read, j is a site, c a channel:
       features      y = the muon's features                       an input          5.7
       conv of hits  y[o](j) = sum e w[o][k]                       an input, learns  5.3
       sum of hits   y(j) = scale * sum e                          an input          5.3
       conv          y[o](j) = bias[o] + sum w[o][i][k] x[i](..)   learns            5.2, 5.8
       linear        y[o] = bias[o] + sum w[o][i] x[i]             learns            5.2
       norm          y[c](j) = A[c] x[c](j) + B[c]                 learns, buffers   5.4, 5.9
       Swish         y = x sigmoid(x)                                                5.5
       sigmoid       y = 1/(1 + exp(-x))                                             5.5
       mean          y[c] = mean over j of x[c](j)                                   5.6
       maximum       y[c] = largest x[c](j)                                          5.6
       pool          y[c](j) = scale * sum of x[c] in 2x2x2                          5.6
       channel       y = x[0]                                                        5.7
       add scaled    y[c](j) = s[c](j) + q[c] p[c](j)                                5.7
       concat        y = the channels of a, then of b                                5.7
       window conv   as conv; a kernel, stride and padding of its own along          5.2
                     each axis, and padding of its own at either side
   No kind is a sum or a product of two layers: the networks of the paper need neither, and "add
   scaled" with its one rounding is not made of the two. */

/* What is not said of a layer follows: how many values it has from its shape, what its parameters
   are from its kind.  The names are as in a state_dict, PyTorch's table of a network's tensors by
   name, which is what its files of weights hold: layer "head.0.path.0" has in it the tensor
   "head.0.path.0.weight" and, where there is a bias, "head.0.path.0.bias". */
typedef struct cm_layer {
    double scale;
    int in[3];                       /* layers that it reads; -1: none, or the hits */
    int nz, nx, ny, nc;              /* of the result */
    int param;                       /* number of the first in the table of parameters */
    cm_window window;                /* of what slides one */
    unsigned char kind;              /* cm_kind */
    unsigned char bias;              /* 1: one that is learned */
    unsigned char init;              /* cm_init, of its weights */
    char name[34];                   /* in the state_dict, without .weight; "": no parameters */
} cm_layer;

struct cm_list {
    cm_layer *layer;
    int n, most;
    int hits[3];                     /* cells of the calorimeter */
    int features;
    int reads;                       /* inputs: CM_READS_HITS, CM_READS_FEATURES */
    int result;                      /* the layer that is the network's; -1: the last */
    int fault;                       /* CM_TOO_MANY layers, CM_TOO_LONG a name */
    char block[24];                  /* what names of layers begin with while it is made */
    struct cm_schedule *plan;        /* CM_PLANS of them: cm_plan_of, section 18; not of part I */
    int users;                       /* networks of this list */
};

enum { CM_READS_HITS = 1, CM_READS_FEATURES };
enum { CM_TOO_MANY = 1, CM_TOO_LONG };

/* A new layer, which has the shape of what it reads first until its own function says otherwise.
   Nothing fails here: a fault is noted and told by cm_list_check, so that the functions that write
   a network read like the network.  Behind the last layer that there is room for, the last one is
   overwritten. */
static cm_layer *cm_layer_add(cm_list *s, cm_kind kind, const char *name, int a, int b, int c)
{
    const cm_layer *x;
    cm_layer *l;
    int length;
    if (s->n == s->most) s->fault = CM_TOO_MANY;
    else s->n++;
    l = &s->layer[s->n - 1];
    memset(l, 0, sizeof *l);
    length = snprintf(l->name, sizeof l->name, "%s%s", *name ? s->block : "", name);
    if (length >= (int)sizeof l->name && !s->fault) s->fault = CM_TOO_LONG;
    l->kind = (unsigned char)kind;
    l->in[0] = a;
    l->in[1] = b;
    l->in[2] = c;
    x = a >= 0 && a < s->n - 1 ? &s->layer[a] : NULL;
    l->nz = x ? x->nz : s->hits[0];
    l->nx = x ? x->nx : s->hits[1];
    l->ny = x ? x->ny : s->hits[2];
    l->nc = x ? x->nc : 1;
    l->window = cm_window_cube(1, 1, 0);
    l->init = CM_KAIMING;
    if (kind == CM_HITS_CONV || kind == CM_HITS_SUM) s->reads |= CM_READS_HITS;
    if (kind == CM_FEATURES) s->reads |= CM_READS_FEATURES;
    return l;
}

/* Sites of what slides a window along an axis of n: floor((n + before + after - kernel)/stride)
   + 1; 0: the window does not fit, or is none that there is.  Padded, the axis has n + before +
   after cells; the window's first cell can stand on so many less kernel - 1 of them, and stands on
   every stride-th.  50 layers of cells, kernel 4, stride 2, padding 2: floor(50/2) + 1 = 26. */
static int cm_window_sites(const cm_window *w, int axis, int n)
{
    int beyond = n + w->before[axis] + w->after[axis] - w->kernel[axis];
    if (w->kernel[axis] < 1 || w->stride[axis] < 1 || beyond < 0) return 0;
    return beyond / w->stride[axis] + 1;
}

cm_window cm_window_cube(int kernel, int stride, int pad)
{
    cm_window w;
    int a;
    for (a = 0; a < 3; a++) {
        w.kernel[a] = kernel;
        w.stride[a] = stride;
        w.before[a] = w.after[a] = pad;
    }
    return w;
}

/* The same along all axes and at both sides. */
static int cm_window_is_cube(const cm_window *w)
{
    const cm_window cube = cm_window_cube(w->kernel[0], w->stride[0], w->before[0]);
    return memcmp(&cube, w, sizeof cube) == 0;
}

/* With a padding of the kernel's size or more, outputs at the edge would see nothing but
   padding. */
static int cm_window_fits(const cm_window *w)
{
    int a;
    for (a = 0; a < 3; a++)
        if (w->kernel[a] < 1 || w->kernel[a] > CM_KERNEL_MOST || w->stride[a] < 1
            || w->stride[a] > CM_KERNEL_MOST || w->before[a] < 0 || w->before[a] >= w->kernel[a]
            || w->after[a] < 0 || w->after[a] >= w->kernel[a]) return 0;
    return 1;
}

static size_t cm_window_cells(const cm_window *w)
{
    return (size_t)w->kernel[0] * (size_t)w->kernel[1] * (size_t)w->kernel[2];
}

/* A window that is refused is left to cm_list_check; the layer has no sites then. */
static void cm_layer_slide(cm_layer *l, const cm_window *w)
{
    int fits = cm_window_fits(w);
    l->window = *w;
    l->nz = fits ? cm_window_sites(w, 0, l->nz) : 0;
    l->nx = fits ? cm_window_sites(w, 1, l->nx) : 0;
    l->ny = fits ? cm_window_sites(w, 2, l->ny) : 0;
}

/* Functions that append a layer; each returns its number.  Shapes: sites z x y, then channels. */

/* [1][1][1][features] */
int cm_layer_features(cm_list *s)
{
    cm_layer *l = cm_layer_add(s, CM_FEATURES, "", -1, -1, -1);
    l->nz = l->nx = l->ny = 1;
    l->nc = s->features;
    return s->n - 1;
}

/* [sites of the window][out].  Of the hits (x = -1) it is a kind of its own, since most cells are
   empty. */
int cm_layer_window(cm_list *s, const char *name, int x, int out, const cm_window *w, int bias)
{
    int paper = cm_window_is_cube(w) && w->kernel[0] <= 4;
    cm_kind kind = x == -1 ? CM_HITS_CONV : paper ? CM_CONV : CM_WINDOW;
    cm_layer *l = cm_layer_add(s, kind, name, x, -1, -1);
    l->nc = out;
    l->bias = bias != 0;
    cm_layer_slide(l, w);
    return s->n - 1;
}

/* The same with a cube. */
int cm_layer_conv(cm_list *s, const char *name, int x, int out, int kernel, int stride, int pad,
                  int bias)
{
    const cm_window w = cm_window_cube(kernel, stride, pad);
    return cm_layer_window(s, name, x, out, &w, bias);
}

/* [n/2 + 1 sites][as many channels]: sums over 2x2x2, times scale.  An energy sum (its name is not
   empty) has fixed weights of 1 in the state_dict, as the "E-sum layers" of Sec. 3.1.1 have; they
   are kept for other programs, and not read here. */
int cm_layer_pool(cm_list *s, const char *name, int x, double scale)
{
    const cm_window w = cm_window_cube(2, 2, 1);
    cm_layer *l = cm_layer_add(s, x == -1 ? CM_HITS_SUM : CM_POOL, name, x, -1, -1);
    l->scale = scale;
    cm_layer_slide(l, &w);
    return s->n - 1;
}

/* [1][1][1][out], of one site, always with a bias. */
int cm_layer_linear(cm_list *s, const char *name, int x, int out, cm_init init)
{
    cm_layer *l = cm_layer_add(s, CM_LINEAR, name, x, -1, -1);
    l->nc = out;
    l->bias = 1;
    l->init = (unsigned char)init;
    return s->n - 1;
}

/* As x: the running batch norm. */
int cm_layer_norm(cm_list *s, const char *name, int x)
{
    (void)cm_layer_add(s, CM_NORM, name, x, -1, -1);
    return s->n - 1;
}

/* As x: Swish or sigmoid of each value. */
int cm_layer_point(cm_list *s, cm_kind kind, int x)
{
    (void)cm_layer_add(s, kind, "", x, -1, -1);
    return s->n - 1;
}

/* [1][1][1][as many channels]: mean or maximum of each channel. */
int cm_layer_over_sites(cm_list *s, cm_kind kind, int x)
{
    cm_layer *l = cm_layer_add(s, kind, "", x, -1, -1);
    l->nz = l->nx = l->ny = 1;
    return s->n - 1;
}

/* [as many sites][1]: channel 0. */
int cm_layer_channel(cm_list *s, int x)
{
    cm_layer_add(s, CM_CHANNEL, "", x, -1, -1)->nc = 1;
    return s->n - 1;
}

/* As the shortcut: shortcut + gate * path, the gate one value for each channel. */
int cm_layer_add_scaled(cm_list *s, int shortcut, int path, int gate)
{
    (void)cm_layer_add(s, CM_ADD_SCALED, "", shortcut, path, gate);
    return s->n - 1;
}

/* [as many sites][channels of a, then of b] */
int cm_layer_concat(cm_list *s, int a, int b)
{
    cm_layer *l = cm_layer_add(s, CM_CONCAT, "", a, b, -1);
    if (b >= 0 && b < s->n - 1) l->nc += s->layer[b].nc;
    return s->n - 1;
}

/* Usually the last layer's; another is for those who look into a network. */
void cm_list_result(cm_list *s, int layer) { s->result = layer; }

static int cm_result_of(const cm_list *s) { return s->result == -1 ? s->n - 1 : s->result; }

/* ---------------------------------------------------------------- a check of a list

   The paper's list needs none; any other comes from somebody else.  What passes here can be
   computed without a further question: every layer reads layers before it, so the list is in an
   order in which it can be computed; shapes fit; and every size is an int. */

static const char *const cm_kind_names[CM_KINDS] = {
    "features", "conv of hits", "sum of hits", "conv", "linear", "norm", "Swish", "sigmoid", "mean",
    "maximum", "pool", "channel", "add scaled", "concat", "window conv"
};

/* How many layers it reads; the order of cm_kind puts the three inputs first. */
static int cm_kind_reads(int kind)
{
    return kind <= CM_HITS_SUM ? 0 : kind == CM_ADD_SCALED ? 3 : kind == CM_CONCAT ? 2 : 1;
}

/* Whether parameters that training changes belong to it, which need a name.  The energy sums have
   weights too, all 1, which nothing changes. */
static int cm_kind_learns(int kind)
{
    return kind == CM_HITS_CONV || kind == CM_CONV || kind == CM_LINEAR || kind == CM_NORM
        || kind == CM_WINDOW;
}

/* What a linear layer can read and a gate must be: numbers of the whole muon, not of places. */
static int cm_layer_is_one_site(const cm_layer *l)
{
    return l->nz == 1 && l->nx == 1 && l->ny == 1;
}

static int cm_layers_same_sites(const cm_layer *a, const cm_layer *b)
{
    return a->nz == b->nz && a->nx == b->nx && a->ny == b->ny;
}

/* Why the layer's name cannot be; NULL: it can.  Names are those of tensors in files, where two of
   one name could not be told apart.  A sum of one channel may have one, as the energy sum has. */
static const char *cm_name_fault(const cm_list *s, int i)
{
    const cm_layer *l = &s->layer[i];
    int j, sum = l->kind == CM_HITS_SUM || (l->kind == CM_POOL && l->nc == 1);
    if (cm_kind_learns(l->kind) && !*l->name) return "its parameters have no name";
    if (!cm_kind_learns(l->kind) && !sum && *l->name) return "a name, but no parameters";
    for (j = 0; j < i && *l->name; j++)
        if (strcmp(s->layer[j].name, l->name) == 0) return "a layer before it has the same name";
    return NULL;
}

/* Why the shapes of what it reads do not fit; NULL: they do.  2^25 values of one muon are 134 MB in
   float; the largest layer of the paper has 82,654 (26 x 17 x 17 x 11). */
static const char *cm_shape_fault(const cm_list *s, const cm_layer *l)
{
    const cm_layer *x = l->in[0] < 0 ? NULL : &s->layer[l->in[0]];
    const cm_layer *b = l->in[1] < 0 ? NULL : &s->layer[l->in[1]];
    const cm_layer *q = l->in[2] < 0 ? NULL : &s->layer[l->in[2]];
    if (!cm_window_fits(&l->window))
        return "kernels and strides are 1 to 64 cells, and the padding is less than the kernel";
    if (l->kind == CM_HITS_CONV && l->bias) return "a convolution of the hits has no bias";
    if (l->kind == CM_HITS_CONV && (!cm_window_is_cube(&l->window) || l->window.kernel[0] > 4))
        return "a convolution of the hits has a kernel of 1 to 4 cells, the same along all axes";
    if (l->kind == CM_LINEAR && !cm_layer_is_one_site(x)) return "more than one site";
    if ((l->kind == CM_HITS_SUM || l->kind == CM_POOL) && !(fabs(l->scale) <= 1e30))
        return "the scale is no number, or too large";
    if (l->kind == CM_CONCAT && !cm_layers_same_sites(x, b)) return "other sites";
    if (l->kind == CM_ADD_SCALED && (!cm_layers_same_sites(x, b) || x->nc != b->nc))
        return "shortcut and path are of different shapes";
    if (l->kind == CM_ADD_SCALED && (!cm_layer_is_one_site(q) || q->nc != b->nc))
        return "the gate is not one value for each channel";
    if (l->nz < 1 || l->nx < 1 || l->ny < 1 || l->nc < 1) return "no sites or no channels";
    if ((double)l->nz * l->nx * l->ny * l->nc > 1 << 25) return "too large for any machine";
    if (x && cm_kind_learns(l->kind)
        && (double)cm_window_cells(&l->window) * x->nc * l->nc > 1 << 28) return "too many weights";
    return NULL;
}

/* What is read first, then shapes, which may only be looked at if what is read exists. */
static const char *cm_layer_fault(const cm_list *s, int i)
{
    const cm_layer *l = &s->layer[i];
    int k, reads = cm_kind_reads(l->kind);
    for (k = 0; k < 3; k++)
        if (k < reads ? l->in[k] < 0 || l->in[k] >= i : l->in[k] != -1)
            return "it reads a layer that is not before it";
    for (k = 0; k < i; k++)
        if (l->kind == CM_FEATURES && s->layer[k].kind == CM_FEATURES)
            return "the features are read by a layer before it";
    return cm_shape_fault(s, l) ? cm_shape_fault(s, l) : cm_name_fault(s, i);
}

/* The shapes of what layer l reads, as " 26x17x17x9, 26x17x17x1": three shapes of four numbers of
   up to 10 digits and the marks between them are at most 134 characters of the 160. */
static void cm_shapes_text(const cm_list *s, const cm_layer *l, char text[160])
{
    size_t n = 0;
    int k;
    if (l->kind == CM_HITS_CONV || l->kind == CM_HITS_SUM)
        n = (size_t)snprintf(text, 160, " %dx%dx%d hits", s->hits[0], s->hits[1], s->hits[2]);
    text[n] = 0;
    for (k = 0; k < 3; k++)
        if (l->in[k] >= 0 && l->in[k] < l - s->layer) {
            const cm_layer *x = &s->layer[l->in[k]];
            n += (size_t)snprintf(text + n, 160 - n, "%s %dx%dx%dx%d", n ? "," : "", x->nz, x->nx,
                                  x->ny, x->nc);
        }
}

/* The first fault, with the number, kind, name and shapes of its layer, as
       layer 2, concat: other sites (reads 26x17x17x8, 14x9x9x8; makes 26x17x17x16)
   What a user has to change stands there; only layers before it have been found sound, so what it
   reads may be looked at. */
calomu_status cm_list_check(calomu *c, const cm_list *s)
{
    char shapes[160];
    const char *why;
    int i;
    if (s->n == 0 || s->fault)
        return cm_fail(c, CALOMU_EUSAGE, "network: %s", s->n == 0 ? "no layers"
                       : s->fault == CM_TOO_MANY ? "more layers than there is room for"
                       : "a name of more than 33 letters");
    for (i = 0; i < s->n; i++) {
        const cm_layer *l = &s->layer[i];
        if (l->kind >= CM_KINDS) return cm_fail(c, CALOMU_EUSAGE, "layer %d: of no kind", i);
        why = cm_layer_fault(s, i);
        if (!why) continue;
        cm_shapes_text(s, l, shapes);
        return cm_fail(c, CALOMU_EUSAGE, "layer %d, %s%s%s: %s (reads%s; makes %dx%dx%dx%d)", i,
                       cm_kind_names[l->kind], *l->name ? " " : "", l->name, why,
                       *shapes ? shapes : " nothing", l->nz, l->nx, l->ny, l->nc);
    }
    if (s->result < -1 || s->result >= s->n)
        return cm_fail(c, CALOMU_EUSAGE, "network: there is no layer %d to be its result",
                       s->result);
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- Figs. 4 and 5 */

/* Width between the two linear layers of squeeze-excitation.  Sec. 3.1.1: "max(2, Nc//4)". */
static int cm_squeezed(int c) { return c / 4 > 2 ? c / 4 : 2; }

/* Squeeze-excitation: channel means -> Linear -> Swish -> Linear -> sigmoid, a weight between 0 and
   1 of each channel of x, from what all sites of all channels say together.  In block 0 8 means
   become 2 numbers and 8 weights: 8*2 + 2 + 2*8 + 8 = 42 parameters, where the convolutions beside
   have 2,240. */
static int cm_list_gate(cm_list *s, int x)
{
    int c = s->layer[x].nc, q = cm_layer_over_sites(s, CM_MEAN_OF, x);
    q = cm_layer_linear(s, "se.a", q, cm_squeezed(c), CM_KAIMING);
    q = cm_layer_linear(s, "se.b", cm_layer_point(s, CM_SWISH, q), c, CM_GLOROT);
    return cm_layer_point(s, CM_SIGMOID, q);
}

/* What every block ends with: the energy sum in front of shortcut + gate * path. */
static int cm_list_join(cm_list *s, int e, int shortcut, int path, int gate)
{
    return cm_layer_concat(s, e, cm_layer_add_scaled(s, shortcut, path, gate));
}

/* Fig. 4a, from the hits: conv4, Swish, norm, conv3, Swish, norm beside average, conv1.  Names are
   numbered as in a PyTorch Sequential, activations counted: path.0 conv, .1 Swish, .2 norm, ...
   The energies do not go through a norm first (Sec. 3.2.1: no preprocessing).  The convolution of
   the shortcut is the only one with a bias, in the authors' code; the text has none. */
static int cm_list_first_block(cm_list *s, int out)
{
    int x = cm_layer_conv(s, "path.0", -1, out, 4, 2, 2, 0), gate, shortcut;
    x = cm_layer_norm(s, "path.2", cm_layer_point(s, CM_SWISH, x));
    x = cm_layer_conv(s, "path.3", x, out, 3, 1, 1, 0);
    x = cm_layer_norm(s, "path.5", cm_layer_point(s, CM_SWISH, x));
    gate = cm_list_gate(s, x);
    shortcut = cm_layer_conv(s, "short.1", cm_layer_pool(s, "", -1, 0.125), out, 1, 1, 0, 1);
    return cm_list_join(s, cm_layer_pool(s, "esum", -1, 1), shortcut, x, gate);
}

/* Figs. 4b, 4c: norm, Swish, conv, norm, Swish, conv3 beside the identity or, where the grid is
   halved, Swish, norm, average, conv1.  Pre-activation (K. He et al., arXiv:1603.05027): norm and
   Swish stand before the convolution, so that the identity reaches from block to block with nothing
   on it.  Channel 0 of `in` is the energy sum.  Where the grid stays, the shortcut is all of `in`,
   so the first learned channel has the energy added to it as well; and that is why c_out = c_in
   there: shortcut and path are added channel by channel.  In the shortcut of a halving block Swish
   stands before the norm, as in block 0, in the path behind it: so Figs. 4b and 4c have it. */
static int cm_list_later_block(cm_list *s, int in, int out, int down)
{
    int x = cm_layer_point(s, CM_SWISH, cm_layer_norm(s, "path.0", in)), gate, shortcut = in, e;
    x = cm_layer_conv(s, "path.2", x, out, down ? 4 : 3, down ? 2 : 1, down ? 2 : 1, 0);
    x = cm_layer_point(s, CM_SWISH, cm_layer_norm(s, "path.3", x));
    x = cm_layer_conv(s, "path.5", x, out, 3, 1, 1, 0);
    gate = cm_list_gate(s, x);
    if (down) {
        shortcut = cm_layer_norm(s, "short.1", cm_layer_point(s, CM_SWISH, in));
        shortcut = cm_layer_pool(s, "", shortcut, 0.125);
        shortcut = cm_layer_conv(s, "short.3", shortcut, out, 1, 1, 0, 0);
    }
    e = cm_layer_channel(s, in);
    if (down) e = cm_layer_pool(s, "esum", e, 1);
    return cm_list_join(s, e, shortcut, x, gate);
}

/* Fig. 5 and Sec. 3.1.2: the head's maxima and means, behind the features, to 3 x (Linear, Swish)
   and one neuron without activation: the energy in GeV, as no prediction may be bounded.  With head
   and features 197 layers: block 0 has 16, the 8 that keep the grid 14 each, the 3 that halve it
   19; maximum, mean and their concatenation, the features and theirs; 6 of the body, and the last
   neuron.  Maxima say what the strongest place looks like, means how much of it there is. */
static void cm_list_network(cm_list *s, const calomu_architecture *a)
{
    int i, h = -1, t = -1;
    for (i = 0; i < cm_stages(a); i++) {
        cm_stage stage = cm_stage_of(a, i);
        (void)snprintf(s->block, sizeof s->block, "head.%d.", i);
        h = stage.first ? cm_list_first_block(s, stage.out)
                        : cm_list_later_block(s, h, stage.out, stage.down);
    }
    s->block[0] = 0;
    if (h >= 0) {
        i = cm_layer_over_sites(s, CM_MAX_OF, h);
        h = cm_layer_concat(s, i, cm_layer_over_sites(s, CM_MEAN_OF, h));
    }
    if (a->n_features) t = cm_layer_features(s);
    h = h < 0 ? t : t < 0 ? h : cm_layer_concat(s, t, h);
    h = cm_layer_point(s, CM_SWISH, cm_layer_linear(s, "body.0", h, a->body, CM_KAIMING));
    h = cm_layer_point(s, CM_SWISH, cm_layer_linear(s, "body.2", h, a->body, CM_KAIMING));
    h = cm_layer_point(s, CM_SWISH, cm_layer_linear(s, "body.4", h, a->body, CM_KAIMING));
    (void)cm_layer_linear(s, "tail", h, 1, CM_GLOROT);
}

/* ---------------------------------------------------------------- parameters

   One table per network names each tensor once, in the order of the PyTorch state_dict, which is
   the order of the layers.  There are three blocks of memory: what training changes, the fixed
   weights of the energy sums, and the buffers of the norms.  A tensor is at `offset` in its own.
   One block for all that is trained, so that Adam, a checkpoint and a sum of gradients are each one
   loop over it.  The table of block 0 begins:
       head.0.path.0.weight   trained  [8][1][4][4][4]   offset    0   512 values
       head.0.path.2.weight   trained  [8][1][1][1]              512     8
       head.0.path.2.bias     trained  [8][1][1][1]              520     8
       head.0.path.2.sums     buffer   [1][8][1][1][1]             0     8
       head.0.path.2.sqrs     buffer   [1][8][1][1][1]             8     8
       head.0.path.2.batch    buffer   []                         16     1
       head.0.path.2.count    buffer   []                         17     1
       head.0.path.3.weight   trained  [8][8][3][3][3]           528  1728
*/

/* Appends one tensor; without a table (net->param NULL) it only counts.  fan_in and fan_out, which
   initial values are scaled by (Kaiming, Glorot), are counted as PyTorch does: inputs times cells
   of the kernel, and outputs times cells.  So path.3 above, [8][8][3][3][3], has 216 of each. */
static void cm_param_add(cm_net *net, cm_role role, cm_init init, int rank, const int *shape,
                         const char *stem, const char *leaf)
{
    size_t *total = role == CM_TRAINED ? &net->n_trained
                  : role == CM_FIXED ? &net->n_fixed : &net->n_buffers;
    size_t count = 1;
    int i, inner = 1;
    for (i = 0; i < rank; i++) count *= (size_t)shape[i];
    for (i = 1; i < rank; i++) inner *= shape[i];
    if (net->param) {
        cm_param *p = &net->param[net->n_params];
        (void)snprintf(p->name, sizeof p->name, "%s.%s", stem, leaf);
        p->rank = rank;
        for (i = 0; i < rank; i++) p->shape[i] = shape[i];
        p->role = role;
        p->init = init;
        p->fan_in = inner;
        p->fan_out = rank > 0 ? shape[0] * (inner / (rank > 1 ? shape[1] : 1)) : 1;
        p->offset = *total;
        p->count = count;
    }
    net->n_params++;
    *total += count;
}

/* With ones around the channels, so that PyTorch extends them over [muon][C][z][x][y].  sums, sqrs
   and count are S, Q and N of 5.9, batch the muons seen. */
static void cm_param_norm(cm_net *net, const char *name, int c)
{
    int learned[4] = { 0, 1, 1, 1 }, sums[5] = { 1, 0, 1, 1, 1 };
    learned[0] = sums[1] = c;
    cm_param_add(net, CM_TRAINED, CM_ONE, 4, learned, name, "weight");
    cm_param_add(net, CM_TRAINED, CM_ZERO, 4, learned, name, "bias");
    cm_param_add(net, CM_BUFFER, CM_ZERO, 5, sums, name, "sums");
    cm_param_add(net, CM_BUFFER, CM_ZERO, 5, sums, name, "sqrs");
    cm_param_add(net, CM_BUFFER, CM_ZERO, 0, NULL, name, "batch");
    cm_param_add(net, CM_BUFFER, CM_ZERO, 0, NULL, name, "count");
}

/* weight [out][in][kz][kx][ky], of a linear layer [out][in]; then the bias [out]. */
static void cm_param_layer(cm_net *net, const cm_list *s, cm_layer *l)
{
    int shape[5], k;
    shape[0] = l->nc;
    shape[1] = l->in[0] < 0 ? 1 : s->layer[l->in[0]].nc;
    for (k = 2; k < 5; k++) shape[k] = l->window.kernel[k - 2];
    l->param = net->n_params;
    if (l->kind == CM_NORM)
        cm_param_norm(net, l->name, l->nc);
    else if (l->kind == CM_HITS_SUM || l->kind == CM_POOL)
        cm_param_add(net, CM_FIXED, CM_ONE, 5, shape, l->name, "weight");
    else
        cm_param_add(net, CM_TRAINED, l->init, l->kind == CM_LINEAR ? 2 : 5, shape, l->name,
                     "weight");
    if (l->bias) cm_param_add(net, CM_TRAINED, CM_ZERO, 1, shape, l->name, "bias");
}

/* Twice for every network: without a table to know the sizes, then with it. */
static void cm_param_all(cm_net *net)
{
    int i;
    net->n_params = 0;
    net->n_trained = net->n_fixed = net->n_buffers = 0;
    for (i = 0; i < net->list->n; i++)
        if (*net->list->layer[i].name) cm_param_layer(net, net->list, &net->list->layer[i]);
}

/* Parameter k of a layer: its values, and where their derivatives are added in `gradient`, a block
   like net->trained, or NULL. */
static cm_weight cm_weight_of(const cm_net *net, cm_real *gradient, const cm_layer *l, int k)
{
    const cm_param *p = &net->param[l->param + k];
    cm_weight w;
    w.x = cm_net_values(net, p);
    w.dx = p->role == CM_TRAINED && gradient ? gradient + p->offset : NULL;
    return w;
}

/* The six tensors of a norm, in the order of cm_param_norm. */
static cm_norm cm_norm_of(const cm_net *net, cm_real *gradient, const cm_layer *l)
{
    const cm_param *p = &net->param[l->param];
    cm_norm n;
    n.weight = cm_weight_of(net, gradient, l, 0);
    n.bias = cm_weight_of(net, gradient, l, 1);
    n.sums = cm_net_values(net, p + 2);
    n.squares = cm_net_values(net, p + 3);
    n.batch = cm_net_values(net, p + 4);
    n.count = cm_net_values(net, p + 5);
    return n;
}

cm_real *cm_net_values(const cm_net *net, const cm_param *p)
{
    cm_real *block = p->role == CM_TRAINED ? net->trained
                   : p->role == CM_FIXED ? net->fixed : net->buffers;
    return block + p->offset;
}

const cm_param *cm_net_find(const cm_net *net, const char *name)
{
    int i;
    for (i = 0; i < net->n_params; i++)
        if (strcmp(net->param[i].name, name) == 0) return &net->param[i];
    return NULL;
}

/* Kaiming: normal of variance 2/fan_in (K. He et al., arXiv:1502.01852); Glorot: 2/(fan_in +
   fan_out) (X. Glorot, Y. Bengio, AISTATS 2010); Sec. 3.1.  Why 2/fan_in: a value behind a layer is
   a sum of fan_in products w x, independent and of mean 0, so its variance is fan_in var(w)
   mean(x^2); an activation that passes about the positive half of what it is given leaves half of
   the mean square, and the 2 makes up for it: values neither fade nor grow from layer to layer.
   Glorot, half of it where fan_in = fan_out, stands where no such activation follows: before the
   sigmoid of a gate and at the end.  Nothing is halved there, so values would keep their size with
   1/fan_in and, going back, derivatives, which are sums of fan_out products, with 1/fan_out:
   2/(fan_in + fan_out) lies between.  The first convolution has fan_in 64 and deviation sqrt(2/64)
   = 0.177, the last neuron 80 and 1: sqrt(2/81) = 0.157.

   Parameter i has the random stream i, value j the counter j: so a network has its weights from its
   list and the seed alone, whatever computes them and in which order. */
void cm_net_init(cm_net *net, uint64_t seed)
{
    int i;
    size_t j;
    for (i = 0; i < net->n_params; i++) {
        const cm_param *p = &net->param[i];
        cm_real *x = cm_net_values(net, p);
        double deviation = sqrt(2.0 / (p->init == CM_GLOROT ? p->fan_in + p->fan_out : p->fan_in));
        for (j = 0; j < p->count; j++)
            x[j] = p->init == CM_ZERO ? 0 : p->init == CM_ONE ? 1
                 : (cm_real)(deviation * cm_normal(seed, (uint64_t)i, j));
    }
}

/* ============================================================================================
   5 Plain layers: what each computes, forward and backward
   ============================================================================================

   Each function here works on one muon.  A layer's result is y[z][x][y][channel], channels fastest:
   one site of the grid is C neighbouring numbers, and a row is the ny sites of one z and one x.

   Backward.  With L the loss (section 6; here any number that follows from the result), dy is
   written for dL/dy, one number for each of y.  A layer gets dy,
   complete, and adds its part of dL/dx to dx, for each x that it reads: adds, because x may have
   other readers, and L depends on x through all of them.  What it adds is the chain rule,
       dL/dx(m) = sum over j:  dL/dy(j) dy(j)/dx(m),
   and dy(j)/dx(m) is read off the line of the forward pass; each backward function quotes that line
   and the derivative.  A weight is used by all muons.  Each muon has a share of dL/dw of its own,
   and the shares are added afterwards (cm_muon_sum), in an order that does not depend on who
   computes which muon.

   Bits.  A sum of numbers with rounding depends on its order, so the order is part of the
   definition; every fast way to compute the same (part III) has to give the same bits.
     - A product that is added to something is rounded once, with the sum: cm_fma(a, b, c) = ab + c.
     - A convolution adds in float, cell by cell of the kernel, channel by channel.
     - A weight's share of one muon is added in float, site by site.
     - Sums over all sites are added in float along a row, in double over rows: a sum of up to 7,514
       values (26 x 17 x 17 sites of the first block) loses little, and a row still fits the vector
       registers of a processor.  In double throughout, every value would have to be widened.  A row
       of 17 takes a value through at most 17 roundings to float, each of at most 2^-24: together a
       relative 1.0e-6 of the sum of |x|, where 7,514 in one row would have up to 4.5e-4. */

typedef struct cm_work {             /* one layer and one muon */
    const cm_layer *l, *in[3];       /* the layer, and those that it reads; NULL: none */
    const int *cells;                /* of the calorimeter along z, x, y */
    const calomu_event *event;       /* the muon's hits, by rising cell */
    const cm_real *features;
    const cm_real *w, *bias;         /* weights [out][in][kz][kx][ky]; NULL: none */
    const cm_real *x[3];
    cm_real *y;
    const cm_real *dy;
    cm_real *dx[3];                  /* NULL: nobody wants it */
    cm_real *dw;                     /* this muon's shares, zero before; NULL: not wanted */
    double *dbias;
    double *saved;                   /* of a norm: CM_NORM_* [kind][channel]; of a maximum: ties */
    const cm_real *u;                /* of Winograd's method (5.8): u, backward transposed, */
    cm_real *scratch;                /*   and room for v */
} cm_work;

/* Where the channels of site (z, x, y) begin.  The order of the axes is that of the cells of the
   calorimeter; channels are fastest because a convolution multiplies all channels of a site.  Of
   the first convolution, 26 x 17 x 17 sites of 8 channels, (1, 2, 3) begins at ((1*17 + 2)*17 +
   3)*8 = 2,608. */
static size_t cm_site_at(const cm_layer *l, int z, int x, int y)
{
    return (((size_t)z * (size_t)l->nx + (size_t)x) * (size_t)l->ny + (size_t)y) * (size_t)l->nc;
}

static size_t cm_layer_size(const cm_layer *l)   /* values of one muon */
{
    return cm_site_at(l, l->nz, 0, 0);
}

/* The channels of a site, or NULL outside the grid, where everything is 0. */
static const cm_real *cm_site_of(const cm_layer *l, const cm_real *v, int z, int x, int y)
{
    if (z < 0 || z >= l->nz || x < 0 || x >= l->nx || y < 0 || y >= l->ny) return NULL;
    return v + cm_site_at(l, z, x, y);
}

/* ---------------------------------------------------------------- 5.1 sums */

/* Over a row (z, x), of channel c: of b, or of a (b - shift).
       a      b     shift   the sum is
       NULL   x     0       of x: a mean's, and what a batch norm (5.9) takes its mean from
       NULL   dy    0       of dy: a bias's derivative
       x      x     0       of x^2: what a batch norm takes its variance from
       dy     x     mean    of dy (x - mean): a batch norm's weight's derivative
       path   dy    0       a gate's derivative
   One function for all, so that their order of adding cannot differ. */
static cm_real cm_row_sum(const cm_layer *l, int z, int x, int c, const cm_real *a,
                          const cm_real *b, cm_real shift)
{
    size_t at = cm_site_at(l, z, x, 0) + (size_t)c;
    cm_real sum = 0;
    int y;
    for (y = 0; y < l->ny; y++, at += (size_t)l->nc)
        sum = a ? cm_fma(a[at], b[at] - shift, sum) : sum + b[at];
    return sum;
}

/* Over all sites: rows in float, planes and their sum in double.  Each plane has a sum of its own,
   so that planes can be summed by different threads and then be added in their order.  The bias of
   a convolution alone (5.2) is added row after row, without sums of planes; why is told there. */
static double cm_site_sum(const cm_layer *l, int c, const cm_real *a, const cm_real *b,
                          cm_real shift)
{
    double sum = 0;
    int z, x;
    for (z = 0; z < l->nz; z++) {
        double plane = 0;
        for (x = 0; x < l->nx; x++) plane += (double)cm_row_sum(l, z, x, c, a, b, shift);
        sum += plane;
    }
    return sum;
}

/* ---------------------------------------------------------------- 5.2 convolution

   y[o](j) = bias[o] + sum over k, i:  w[o][i][k] x[i](s j + k - pad)

   o is a channel of the result, i of the input.  j, a site of the result, k, a cell of the kernel,
   and the rest stand for three axes each; s is the stride.  x is 0 outside the grid (zero padding).
   Shapes: x[nz][nx][ny][in], w[out][in][kernel][kernel][kernel] as PyTorch has it, bias[out], and
   y with floor((n + 2 pad - kernel)/s) + 1 sites along an axis of n.  Example, along one axis, of
   kernel 4, stride 2 and padding 2 on 6 cells:
       cell of x      -2 -1  0  1  2  3  4  5  6  7      (those outside 0..5 are 0)
       y(0) sees      [           ]
       y(1) sees            [           ]
       y(2) sees                  [           ]
       y(3) sees                        [           ]
   A linear layer is the case of one site and a kernel of one cell.

   Example, one axis, one channel, kernel 3, stride 1, padding 1: x = (1, 2, 3) and w = (1, 0, -1)
   give y = (-2, -2, 2): y(0) = 1*0 + 0*1 - 1*2, y(1) = 1 + 0 - 3, y(2) = 2 + 0 - 0.  Their sum is
   x(0) - x(2), so L = y(0) + y(1) + y(2), which has dy = (1, 1, 1), must have dx = (1, 0, -1); and
   each weight what it has met: dw = (x(0) + x(1), x(0) + x(1) + x(2), x(1) + x(2)) = (3, 6, 5).
   The backward functions below give that: dx(0) = w[0] dy(1) + w[1] dy(0), as cell 2 of the kernel
   would need an output -1.

   This is what deep learning calls a convolution; mathematics calls it a correlation, since the
   kernel is not turned round.  In the pass to the input it is. */

/* Where w[out][in][kz][kx][ky] is, and how far it is to the next in and out. */
static size_t cm_weight_at(const cm_work *o, int out, int in, int kz, int kx, int ky)
{
    const int *kernel = o->l->window.kernel;
    size_t channel = (size_t)out * (size_t)(o->in[0] ? o->in[0]->nc : 1) + (size_t)in;
    size_t plane = channel * (size_t)kernel[0] + (size_t)kz;
    return (plane * (size_t)kernel[1] + (size_t)kx) * (size_t)kernel[2] + (size_t)ky;
}

static size_t cm_next_in(const cm_work *o) { return cm_weight_at(o, 0, 1, 0, 0, 0); }
static size_t cm_next_out(const cm_work *o) { return cm_weight_at(o, 1, 0, 0, 0, 0); }

/* x(s j + k - pad): what cell k = (kz, kx, ky) of the kernel lies on when output j = (z, x, y) is
   computed; NULL in the padding. */
static const cm_real *cm_under_cell(const cm_work *o, int z, int x, int y, int kz, int kx, int ky)
{
    const cm_window *w = &o->l->window;
    return cm_site_of(o->in[0], o->x[0], w->stride[0] * z + kz - w->before[0],
                      w->stride[1] * x + kx - w->before[1], w->stride[2] * y + ky - w->before[2]);
}

/* One output.  The sum is over kz, kx, ky, i in this order, from the bias on; of block 0 (kernel 4,
   padding 2) an inner output has 64 cells, one at a corner 2x2x2.  A cell of the kernel in the
   padding is left out: to add w times 0 would cost as much as any other product, and would turn an
   infinite weight into a NaN. */
static cm_real cm_conv_value(const cm_work *o, int z, int x, int y, int out)
{
    const int *kernel = o->l->window.kernel, channels = o->in[0]->nc;
    const size_t step = cm_next_in(o);
    cm_real sum = o->bias ? o->bias[out] : 0;
    int kz, kx, ky, i;
    for (kz = 0; kz < kernel[0]; kz++)
        for (kx = 0; kx < kernel[1]; kx++)
            for (ky = 0; ky < kernel[2]; ky++) {
                const cm_real *v = cm_under_cell(o, z, x, y, kz, kx, ky);
                const cm_real *w = o->w + cm_weight_at(o, out, 0, kz, kx, ky);
                for (i = 0; v && i < channels; i++, w += step) sum = cm_fma(v[i], *w, sum);
            }
    return sum;
}

static void cm_plain_conv(const cm_work *o)
{
    const cm_layer *l = o->l;
    cm_real *y = o->y;
    int z, x, j, c;
    for (z = 0; z < l->nz; z++)
        for (x = 0; x < l->nx; x++)
            for (j = 0; j < l->ny; j++)
                for (c = 0; c < l->nc; c++) *y++ = cm_conv_value(o, z, x, j, c);
}

/* Along one axis, the j with s j + k - pad = m: the output, of n, that has its cell k over input m.
   There is none (-1) where m + pad - k is no multiple of the stride, or j is outside the grid.  In
   the picture above input 3 has m + pad = 5: cells 1 and 3 of the kernel come over it, at j = 2 and
   1; cells 0 and 2 never do. */
static int cm_output_over(const cm_window *w, int axis, int m, int k, int n)
{
    int at = m + w->before[axis] - k, stride = w->stride[axis];
    return at >= 0 && at % stride == 0 && at / stride < n ? at / stride : -1;
}

/* Forward:   y[o](j) += w[o][i][k] x[i](s j + k - pad)
   x[i](m) is in it for all o, and for all j and k with s j + k - pad = m, each time times w, so
   dx[i](m) += sum over o, k with s j + k - pad = m:  w[o][i][k] dy[o](j)
   kz and kx rise.  ky falls: then j rises, and dy is read forwards.  The sum begins with what other
   readers have added to dx before; to add it at the end would be one rounding more. */
static cm_real cm_conv_slope(const cm_work *o, int z, int x, int y, int in, cm_real sum)
{
    const cm_layer *l = o->l;
    const int *kernel = l->window.kernel;
    const size_t step = cm_next_out(o);
    int kz, kx, ky, c;
    for (kz = 0; kz < kernel[0]; kz++)
        for (kx = 0; kx < kernel[1]; kx++)
            for (ky = kernel[2] - 1; ky >= 0; ky--) {
                const cm_real *d = cm_site_of(l, o->dy, cm_output_over(&l->window, 0, z, kz, l->nz),
                                              cm_output_over(&l->window, 1, x, kx, l->nx),
                                              cm_output_over(&l->window, 2, y, ky, l->ny));
                const cm_real *w = o->w + cm_weight_at(o, 0, in, kz, kx, ky);
                for (c = 0; d && c < l->nc; c++, w += step) sum = cm_fma(d[c], *w, sum);
            }
    return sum;
}

static void cm_conv_to_dx(const cm_work *o)
{
    const cm_layer *in = o->in[0];
    cm_real *dx = o->dx[0];
    int z, x, y, i;
    for (z = 0; z < in->nz; z++)
        for (x = 0; x < in->nx; x++)
            for (y = 0; y < in->ny; y++)
                for (i = 0; i < in->nc; i++, dx++) *dx = cm_conv_slope(o, z, x, y, i, *dx);
}

/* Forward:   y[o](j) += w[o][i][k] x[i](s j + k - pad)
   Every output j has the weight once, times x, so, summed over j by the caller,
   dw[o][i][k] += dy[o](j) x[i](s j + k - pad)
   The weight of a cell that lies in the padding of j gets nothing from j.  Here one output site at
   a time, as the forward pass has them, adds to all weights; the sum of one weight alone has its
   terms in the same order, by rising j, and could be computed by itself. */
static void cm_conv_site_to_dw(const cm_work *o, int z, int x, int y)
{
    const cm_layer *l = o->l;
    const cm_real *dy = o->dy + cm_site_at(l, z, x, y);
    const int *kernel = l->window.kernel;
    const size_t step = cm_next_out(o);
    int kz, kx, ky, i, c;
    for (kz = 0; kz < kernel[0]; kz++)
        for (kx = 0; kx < kernel[1]; kx++)
            for (ky = 0; ky < kernel[2]; ky++) {
                const cm_real *v = cm_under_cell(o, z, x, y, kz, kx, ky);
                for (i = 0; v && i < o->in[0]->nc; i++) {
                    cm_real *dw = o->dw + cm_weight_at(o, 0, i, kz, kx, ky);
                    for (c = 0; c < l->nc; c++, dw += step) *dw = cm_fma(v[i], dy[c], *dw);
                }
            }
}

/* Forward:   y[o](j) = bias[o] + ...
   The bias is in every output, times 1, so  dbias[o] = sum over j:  dy[o](j).
   Rows are added in float, their sums in double, one after the other: not plane by plane first, as
   cm_site_sum has it, where a muon's planes may be summed by several threads; a bias's rows are all
   there before they are added, and one thread adds a channel's.  The two orders differ in the last
   bits of a double, which the rounding to the gradient's float nearly always hides; but nearly is
   not equal, so this one is the definition. */
static void cm_conv_to_dbias(const cm_work *o)
{
    const cm_layer *l = o->l;
    int z, x, c;
    for (c = 0; c < l->nc; c++)
        for (z = 0; z < l->nz; z++)
            for (x = 0; x < l->nx; x++)
                o->dbias[c] += (double)cm_row_sum(l, z, x, c, NULL, o->dy, 0);
}

/* Three sums with the same terms: by weight, by bias, by input.  Each is wanted or not: the first
   block's input is data, and a layer behind which nothing is learned has no dx. */
static void cm_plain_conv_back(const cm_work *o)
{
    const cm_layer *l = o->l;
    int z, x, y;
    for (z = 0; o->dw && z < l->nz; z++)
        for (x = 0; x < l->nx; x++)
            for (y = 0; y < l->ny; y++) cm_conv_site_to_dw(o, z, x, y);
    if (o->dbias) cm_conv_to_dbias(o);
    if (o->dx[0]) cm_conv_to_dx(o);
}

/* ---------------------------------------------------------------- 5.3 convolution of the hits

   The same equation with one input channel that is 0 but for the hits.  Instead of asking of every
   output which inputs it sees, every hit is asked which outputs see it: a hit of energy e in cell m
   adds
       y[o](j) += e w[o][k]      for all k and j with s j + k - pad = m.
   That is 8 outputs of a kernel 4 with stride 2 (two k of each parity along an axis), for each hit;
   the 51,200 cells of the paper's calorimeter, most of them empty, are never made.  A muon of 5,000
   hits takes 5,000 * 8 * 8 = 320,000 products for the 8 channels of block 0, where asking every
   output would take 7,514 * 64 * 8 = 3.8 million.  Hits come by
   rising cell, and so the order of the sum in each y[o](j) is given.

   A sum of hits has one output channel, and all its weights are `scale`: 1 in the paper's energy
   sum ("E-sum", Sec. 3.1.1), 1/8 in the average that the first block's shortcut begins with. */

/* Where the channels of the output begin that has its cell k = (kz, kx, ky) over the hit; -1: there
   is none.  A cell's number is (iz nx + ix) ny + iy. */
static ptrdiff_t cm_over_hit(const cm_work *o, const calomu_hit *hit, int kz, int kx, int ky)
{
    const cm_layer *l = o->l;
    int row = (int)hit->cell / o->cells[2];
    int z = cm_output_over(&l->window, 0, row / o->cells[1], kz, l->nz);
    int x = cm_output_over(&l->window, 1, row % o->cells[1], kx, l->nx);
    int y = cm_output_over(&l->window, 2, (int)hit->cell % o->cells[2], ky, l->ny);
    return z < 0 || x < 0 || y < 0 ? -1 : (ptrdiff_t)cm_site_at(l, z, x, y);
}

/* A hit's energy is given as float, the type of the file, so that the conversion is exact. */
static void cm_hit_forward(const cm_work *o, const calomu_hit *hit)
{
    const cm_layer *l = o->l;
    const int *kernel = l->window.kernel;
    const cm_real e = (cm_real)hit->energy;
    int kz, kx, ky, c;
    for (kz = 0; kz < kernel[0]; kz++)
        for (kx = 0; kx < kernel[1]; kx++)
            for (ky = 0; ky < kernel[2]; ky++) {
                ptrdiff_t j = cm_over_hit(o, hit, kz, kx, ky);
                for (c = 0; j >= 0 && c < l->nc; c++)
                    o->y[j + c] = cm_fma(e, l->kind == CM_HITS_SUM ? (cm_real)l->scale
                                            : o->w[cm_weight_at(o, c, 0, kz, kx, ky)],
                                         o->y[j + c]);
            }
}

/* y is 0 before: outputs that no hit reaches stay 0.  That is why there is no bias.  Along the axis
   of the picture in 5.2 (kernel 4, stride 2, padding 2) a hit of 2 GeV in cell 3 adds 2 w[1] to
   y(2) and 2 w[3] to y(1), and a second one of 0.5 GeV in cell 4, m + pad = 6, adds 0.5 w[0] to
   y(3) and 0.5 w[2] to y(2); y(0) stays 0. */
static void cm_plain_hits(const cm_work *o)
{
    size_t i;
    for (i = 0; i < o->event->n_hits; i++) cm_hit_forward(o, &o->event->hits[i]);
}

/* Forward:   y[o](j) += e w[o][k]
   The weight is in it times e, so  dw[o][k] += e dy[o](j).  There is no dx: the hits are data.  The
   terms of one weight come by rising cell of the hits, where 5.2 has them by rising output: of the
   same numbers the two orders give other bits, and each is the definition of its kind. */
static void cm_hit_back(const cm_work *o, const calomu_hit *hit)
{
    const cm_layer *l = o->l;
    const int *kernel = l->window.kernel;
    int kz, kx, ky, c;
    for (kz = 0; kz < kernel[0]; kz++)
        for (kx = 0; kx < kernel[1]; kx++)
            for (ky = 0; ky < kernel[2]; ky++) {
                ptrdiff_t j = cm_over_hit(o, hit, kz, kx, ky);
                for (c = 0; j >= 0 && c < l->nc; c++) {
                    cm_real *dw = o->dw + cm_weight_at(o, c, 0, kz, kx, ky);
                    *dw = cm_fma((cm_real)hit->energy, o->dy[j + c], *dw);
                }
            }
}

static void cm_plain_hits_back(const cm_work *o)
{
    size_t i;
    for (i = 0; o->dw && i < o->event->n_hits; i++) cm_hit_back(o, &o->event->hits[i]);
}

/* ---------------------------------------------------------------- 5.4 running batch norm

   y[c](j) = A[c] x[c](j) + B[c]

   A and B are the same for all muons and sites; they follow from sums over all of them, which are
   taken in 5.9 before any muon is transformed.  So x has two ways to the loss:
     - through its own y, where dy/dx = A;
     - through the sums of x and of x^2, which A and B contain.  A sum changes by 1, and a sum of
       squares by 2x, with each of its x.  With ds and dq for the derivatives of L by the two sums
       of a channel, which 5.9 derives, this part is ds + 2 x dq, written f[c] + e[c] x.
   Together  dx[c](j) += A[c] dy[c](j) + e[c] x[c](j) + f[c].  In inference A and B are constants,
   and nothing is derived. */

/* A, B, e or f of a channel.  They are derived in double and rounded to the type of the values: in
   this form a value costs one product and one sum. */
static cm_real cm_norm_number(const cm_work *o, int kind, int c)
{
    return (cm_real)o->saved[kind * o->l->nc + c];
}

static void cm_plain_norm(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->l);
    for (i = 0; i < n; i++) {
        int c = (int)(i % (size_t)o->l->nc);
        o->y[i] = cm_fma(cm_norm_number(o, CM_NORM_A, c), o->x[0][i],
                         cm_norm_number(o, CM_NORM_B, c));
    }
}

/* Forward:   y = A x + B       so dx += A dy + (e x + f), the share through the sums added first.
   The weight's and the bias's derivatives are sums over all muons, and in 5.9. */
static void cm_plain_norm_back(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->l);
    for (i = 0; o->dx[0] && i < n; i++) {
        int c = (int)(i % (size_t)o->l->nc);
        cm_real share = cm_fma(cm_norm_number(o, CM_NORM_SLOPE, c), o->x[0][i],
                               cm_norm_number(o, CM_NORM_SHIFT, c));
        o->dx[0][i] += cm_fma(cm_norm_number(o, CM_NORM_A, c), o->dy[i], share);
    }
}

/* ---------------------------------------------------------------- 5.5 functions of a value */

/* Swish-1 (Ramachandran, Zoph, Le, arXiv:1710.05941, with beta = 1):
       y = x s(x),   s(x) = sigmoid(x) = 1/(1 + exp(-x)) */
static void cm_plain_swish(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->l);
    for (i = 0; i < n; i++) o->y[i] = o->x[0][i] * cm_sigmoid_value(o->x[0][i]);
}

/* Forward:   y = x s(x)
   ds/dx = exp(-x)/(1 + exp(-x))^2 = s (1 - s), and by the product rule dy/dx = s + x s (1 - s), so
   dx += dy (s + x s (1 - s))
   At 0 that is 1/2; at 1, s = 0.7311 and 0.7311 + 0.1966 = 0.9277; at -1.2785 it is 0, where Swish
   has its least value, -0.2785; far above it tends to 1, far below to 0.
   s is computed again: to keep it would double the memory of every Swish. */
static void cm_plain_swish_back(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->l);
    for (i = 0; o->dx[0] && i < n; i++) {
        cm_real x = o->x[0][i], s = cm_sigmoid_value(x);
        o->dx[0][i] = cm_fma(o->dy[i], cm_fma(x * s, 1 - s, s), o->dx[0][i]);
    }
}

/* y = sigmoid(x), the gate of a squeeze-excitation block: between 0 and 1. */
static void cm_plain_sigmoid(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->l);
    for (i = 0; i < n; i++) o->y[i] = cm_sigmoid_value(o->x[0][i]);
}

/* Forward:   y = sigmoid(x)
   dy/dx = y (1 - y), as above, with the y that is there:  dx += dy y (1 - y)
   It is largest, 1/4, in the middle, and tiny where a gate is nearly open or nearly shut: such a
   gate hardly learns.  Weights that start small (Glorot, section 4) put all gates near 1/2. */
static void cm_plain_sigmoid_back(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->l);
    for (i = 0; o->dx[0] && i < n; i++)
        o->dx[0][i] = cm_fma(o->dy[i], o->y[i] * (1 - o->y[i]), o->dx[0][i]);
}

/* ---------------------------------------------------------------- 5.6 mean, maximum, pooling */

static size_t cm_sites_of(const cm_layer *l) { return cm_layer_size(l) / (size_t)l->nc; }

/* y[c] = sum over j of x[c](j), divided by the number of sites.  Of every block's path it is what
   the squeeze-excitation reads, of the last block the second half of what the body reads. */
static void cm_plain_mean(const cm_work *o)
{
    int c;
    for (c = 0; c < o->l->nc; c++)
        o->y[c] = (cm_real)(cm_site_sum(o->in[0], c, NULL, o->x[0], 0)
                            / (double)cm_sites_of(o->in[0]));
}

/* Forward:   y[c] = (sum over j of x[c](j)) / sites
   Every x is in it times 1/sites, so every site gets the same:  dx[c](j) += dy[c] / sites.
   Of three sites x = (1, 2, 6) the mean is 3, and dy = 6 adds 2 to each.
   The reciprocal is rounded once and then multiplies: a division for every site would round once
   less, and take several times as long.  At the end of the head, 5 x 3 x 3 sites, part = 1/45. */
static void cm_plain_mean_back(const cm_work *o)
{
    const cm_real part = (cm_real)(1 / (double)cm_sites_of(o->in[0]));
    size_t i, n = cm_layer_size(o->in[0]);
    for (i = 0; o->dx[0] && i < n; i++) o->dx[0][i] += o->dy[i % (size_t)o->l->nc] * part;
}

/* y[c] = the largest x[c](j).  saved[c], 0 before, counts the sites that have it, the ties: a
   larger value starts again at 1, an equal one adds 1, and the first is equal to itself.  No
   rarity, since sites that see no hit all have the same value.  A NaN becomes the result and stays,
   where v > top alone would pass over it and a broken network look sound. */
static void cm_plain_max(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->in[0]), nc = (size_t)o->l->nc;
    for (i = 0; i < n; i++) {
        cm_real v = o->x[0][i], *top = &o->y[i % nc];
        double *ties = &o->saved[i % nc];
        if (i < nc) *top = v;
        *ties = v > *top ? 1 : *ties + (v == *top);
        if (v > *top || isnan(v)) *top = v;
    }
}

/* Forward:   y[c] = max over j of x[c](j)
   dy/dx is 1 at the largest and 0 elsewhere.  Where several are the largest the maximum has no
   derivative; they share it equally, as in PyTorch's amax:  dx[c](j) += dy[c] / ties.
   Of x = (5, 2, 5, 5) the maximum 5 has three, and dy = 6 becomes dx = (2, 0, 2, 2).  To give it to
   the first would prefer small z for no reason of physics. */
static void cm_plain_max_back(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->in[0]), nc = (size_t)o->l->nc;
    for (i = 0; o->dx[0] && i < n; i++)
        if (o->x[0][i] == o->y[i % nc])
            o->dx[0][i] += o->dy[i % nc] / (cm_real)o->saved[i % nc];
}

/* y[c](j) = scale * sum over k of x[c](2j + k - 1),  k in {0, 1}^3

   Kernel 2, stride 2, padding 1: of n sites along an axis n/2 + 1 remain, as many as the kernel 4,
   stride 2, padding 2 of the path beside it leaves, so that the two can be added.  With scale 1/8
   it is an average in which the padding counts: a corner output that sees one site is an eighth of
   it.  With scale 1 it is an energy sum: boxes tile the grid, so the sum over all sites stays what
   it was, block after block, but for rounding; 50 x 32 x 32 cells become 26 x 17 x 17, 14 x 9 x 9,
   8 x 5 x 5 and 5 x 3 x 3 sites.  Along an axis of n = 4: y(0) = x(0), y(1) = x(1) + x(2), y(2) =
   x(3).  (Sec. 3.1.1 gives 3 as the kernel of the average; with it the boxes would overlap.  The
   authors' code has 2, and so has this.) */
static cm_real cm_pool_value(const cm_work *o, int z, int x, int y, int c)
{
    cm_real sum = 0;
    int k;
    for (k = 0; k < 8; k++) {
        const cm_real *v = cm_under_cell(o, z, x, y, k / 4, k / 2 % 2, k % 2);
        if (v) sum += v[c];
    }
    return (cm_real)o->l->scale * sum;
}

static void cm_plain_pool(const cm_work *o)
{
    const cm_layer *l = o->l;
    cm_real *y = o->y;
    int z, x, j, c;
    for (z = 0; z < l->nz; z++)
        for (x = 0; x < l->nx; x++)
            for (j = 0; j < l->ny; j++)
                for (c = 0; c < l->nc; c++) *y++ = cm_pool_value(o, z, x, j, c);
}

/* Forward:   y[c](j) = scale * sum over k of x[c](2j + k - 1)
   Boxes of stride 2 and kernel 2 do not overlap: m = 2j + k - 1 with k of 0 or 1 has the one
   solution j = (m + 1)/2, rounded down, along each axis.  So every input is in exactly one output:
   dx[c](m) += scale dy[c]((m + 1)/2)
   Of the axis of 4 above with scale 1/8 and dy = (8, 16, 24): dx = (1, 2, 2, 3). */
static void cm_plain_pool_back(const cm_work *o)
{
    const cm_layer *in = o->in[0];
    cm_real *dx = o->dx[0];
    int z, x, y, c;
    for (z = 0; dx && z < in->nz; z++)
        for (x = 0; x < in->nx; x++)
            for (y = 0; y < in->ny; y++) {
                const cm_real *d = cm_site_of(o->l, o->dy, (z + 1) / 2, (x + 1) / 2, (y + 1) / 2);
                for (c = 0; c < in->nc; c++, dx++) *dx = cm_fma((cm_real)o->l->scale, d[c], *dx);
            }
}

/* ---------------------------------------------------------------- 5.7 combinations

   What joins the branches of a block, and the two halves of the network: one channel is taken out,
   channels are put side by side, and a gated path is added to a shortcut.  The first two choose and
   compute nothing: forward they copy, without a rounding, and backward the derivative of a copy is
   1, so dy goes back to where y came from and is added there.  In block 1, of 9 channels in and
   9 learned, one site is
       in    e  s1 .. s8                    channel 0 of block 0's result is its energy sum
       sum   e + q0 p0, s1 + q1 p1, ..      add scaled: 9 channels, the first of e as well
       out   e, e + q0 p0, s1 + q1 p1, ..   concat of channel 0 and that: 10 channels
   so dL/de gets three terms: dy[0] of the concat through channel 0 (left out, see there, as nothing
   is learned behind e), dy[1] of it through the shortcut, and what the path hands back. */

/* Copies (add 0) or adds nc channels, from `first` on, of every site of `from`, which has from_nc
   channels, to those from to_first on of the same site of `to`, which has to_nc.  Forward, channels
   are copied; backward, the same channels go the other way and are added. */
static void cm_channels(size_t sites, int nc, const cm_real *from, int from_nc, int first,
                        cm_real *to, int to_nc, int to_first, int add)
{
    size_t i;
    int c;
    for (i = 0; i < sites; i++)
        for (c = 0; c < nc; c++) {
            cm_real v = from[i * (size_t)from_nc + (size_t)(first + c)];
            cm_real *at = to + i * (size_t)to_nc + (size_t)(to_first + c);
            *at = add ? *at + v : v;
        }
}

/* y[0] = x[0]: the energy, channel 0 of every block's result (footnote 3).  A layer of its own,
   since a block that halves the grid sums it over 2x2x2 sites before it is put in front again. */
static void cm_plain_channel(const cm_work *o)
{
    cm_channels(cm_sites_of(o->l), 1, o->x[0], o->in[0]->nc, 0, o->y, 1, 0, 0);
}

/* Forward:   y[0] = x[0]
   dy[0]/dx[0] = 1, and no other channel was read:  dx[0] += dy[0].
   Of x = (7, 1, 4) y is 7, and dy = 3 adds (3, 0, 0) to dx. */
static void cm_plain_channel_back(const cm_work *o)
{
    if (o->dx[0]) cm_channels(cm_sites_of(o->l), 1, o->dy, 1, 0, o->dx[0], o->in[0]->nc, 0, 1);
}

/* y[c] = a[c] for c below a's channels, then b[c - a's channels]: of every site alone, as channels
   are fastest.  Of the end of the network it makes 49 maxima and 49 means 98 numbers, and with 28
   features in front the 126 of the body, in this order: a file's body.0.weight has 126 columns for
   each neuron, and column 28 is of the maximum of channel 0, the energy of the hottest site. */
static void cm_plain_concat(const cm_work *o)
{
    int k, nc = o->l->nc, first[2] = { 0 };
    first[1] = o->in[0]->nc;
    for (k = 0; k < 2; k++)
        cm_channels(cm_sites_of(o->l), o->in[k]->nc, o->x[k], o->in[k]->nc, 0, o->y, nc,
                    first[k], 0);
}

/* Forward:   y = a, then b
   Each channel is a copy of one:  da += the first channels of dy,  db += the others.
   Of a = (1), b = (5, 6) y is (1, 5, 6), and dy = (2, 3, 4) adds 2 to da and (3, 4) to db.  Either
   may be NULL: the derivative by an energy sum, in which nothing is learned, is never asked for. */
static void cm_plain_concat_back(const cm_work *o)
{
    int k, nc = o->l->nc, first[2] = { 0 };
    first[1] = o->in[0]->nc;
    for (k = 0; k < 2; k++)
        if (o->dx[k])
            cm_channels(cm_sites_of(o->l), o->in[k]->nc, o->dy, nc, first[k], o->dx[k],
                        o->in[k]->nc, 0, 1);
}

/* y[c](j) = s[c](j) + q[c] p[c](j): what a block's path p has found, weighted by the gate q of its
   channel, in addition to the shortcut s (Sec. 3.1.1; J. Hu et al., "Squeeze-and-Excitation
   Networks", CVPR 2018).  One layer, with one rounding, and not a product and a sum with two, since
   part III computes both at once, by one fused instruction.  A gate near 0 makes the block hand on
   its shortcut; at the start all gates are near 1/2 (5.5). */
static void cm_plain_add_scaled(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->l), nc = (size_t)o->l->nc;
    for (i = 0; i < n; i++) o->y[i] = cm_fma(o->x[2][i % nc], o->x[1][i], o->x[0][i]);
}

/* Forward:   y[c](j) = s[c](j) + q[c] p[c](j)
   ds[c](j) += dy[c](j)                 s is in it times 1
   dp[c](j) += q[c] dy[c](j)            p times q
   dq[c] += sum over j:  p[c](j) dy[c](j)    q, one number for all sites, times p in each of them
   One site of s = 1, p = 3, q = 1/2: y = 5/2, and dy = 2 gives ds = 2, dp = 1, dq = 6; a second
   site of p = -1 and dy = 4 adds -4, and dq is 2.  dy reaches s as it is, whatever the gate: where
   the grid stays it comes from block to block without having been multiplied by anything (K. He et
   al., arXiv:1603.05027, Eq. 5).  p and dy differ in sign from site to site, so terms of the sum
   cancel: rows are added in double (5.1), and the result is rounded once before it is added. */
static void cm_plain_add_scaled_back(const cm_work *o)
{
    size_t i, n = cm_layer_size(o->l), nc = (size_t)o->l->nc;
    for (i = 0; o->dx[0] && i < n; i++) o->dx[0][i] += o->dy[i];
    for (i = 0; o->dx[1] && i < n; i++)
        o->dx[1][i] = cm_fma(o->x[2][i % nc], o->dy[i], o->dx[1][i]);
    for (i = 0; o->dx[2] && i < nc; i++)
        o->dx[2][i] += (cm_real)cm_site_sum(o->l, (int)i, o->x[1], o->dy, 0);
}

/* y = the muon's features, standardised, (V - mean)/deviation with the training set's mean and
   deviation of each: an input, whose bits were settled where it was made.  Copied, so that a
   concatenation reads it as it reads any other layer. */
static void cm_plain_features(const cm_work *o)
{
    memcpy(o->y, o->features, cm_layer_size(o->l) * sizeof *o->y);
}

/* Backward of what reads data and has no weight that is learned: features, sums of hits. */
static void cm_no_input_back(const cm_work *o) { (void)o; }

/* ---------------------------------------------------------------- 5.8 convolution by Winograd

   Neighbouring outputs see nearly the same inputs, so their sums share work (S. Winograd,
   "Arithmetic Complexity of Computations", SIAM 1980; for networks A. Lavin, S. Gray,
   arXiv:1509.09308, Sec. 4).  F(n, 3) is the method that makes n outputs of a kernel of 3 from
   n + 2 inputs with n + 2 products, where the sum as written takes 3 n.

   F(2, 3) by hand.  Wanted, of inputs d0..d3 and weights w0..w2, with 4 products instead of 6:
       y0 = w0 d0 + w1 d1 + w2 d2,      y1 = w0 d1 + w1 d2 + w2 d3.
   Write the inputs as sums of powers of the points 0, 1, -1, with numbers v that are to be found:
   d[j] = v0 0^j + v1 1^j/2 + v2 (-1)^j/2, with 0^0 = 1, and one more, vi, for the last:
       d0 = v0 + (v1 + v2)/2   d1 = (v1 - v2)/2   d2 = (v1 + v2)/2   d3 = (v1 - v2)/2 + vi
       so   v0 = d0 - d2       v1 = d1 + d2       v2 = d2 - d1       vi = d3 - d1.
   A power p^j with a kernel is p^j again, times the polynomial w0 + w1 p + w2 p^2; so take
       u0 = w0   u1 = (w0 + w1 + w2)/2   u2 = (w0 - w1 + w2)/2   ui = w2     (they serve all tiles)
   and the outputs are y0 = u0 v0 + u1 v1 + u2 v2 and y1 = u1 v1 - u2 v2 + ui vi.  With d = 3, 5,
   -7, 11 and w = 2, -3, 4: v = 10, -2, -12, 6 and u = 2, 3/2, 9/2, 4, the products are 20, -3, -54,
   24, so y0 = -37 = 6 - 15 - 28, and y1 = -3 + 54 + 24 = 75 = 10 + 21 + 44.

   F(n, 3) with any points.  With n + 1 points p[f] and scales s[f], and the point at infinity for
   the last input, let v be what solves the n + 2 linear equations
       d[j] = sum over f:  s[f] p[f]^j v[f],   j = 0 .. n + 1,   the last one  + v[infinity].
   With u[f] = s[f] (w0 + w1 p[f] + w2 p[f]^2) and u[infinity] = w2, output r is
       y[r] = sum over k:  w[k] d[r + k] = sum over f:  p[f]^r u[f] v[f]    (r = n - 1: + u v of
   infinity).  In matrices v = B' d, u = G w, y = A' (u v), where ' transposes and u v is number by
   number.  The row of B' of a finite point is the polynomial that is 0 at all others,
   L(x) = product over the other points q of (x - q), divided by s L(p): put d[j] for x^j, and all
   but v[f] cancel.  That of infinity is the product over all points.  For F(6, 3) and F(4, 3):
       points: infinity, 0, 1, -1, 2, -2 and, with 6 outputs, 1/2, -1/2
       G  = 0 0 1; 1 0 0; s (1 p p^2),  s = -2/9 of 1 and -1, 1/90 of 2 and -2, 32/45 of 1/2, -1/2
       A' = p^row; in the column of infinity 1 in the last row, else 0
       B' of 6 outputs:  0 -1  0   21/4   0  -21/4  0  1   of 4 outputs, with the scales of this G:
                         1  0 -21/4 0   21/4   0   -1  0       0   4    0   -5    0    1
                         0  1  1  -17/4 -17/4   1   1  0       1   0  -5/4   0   1/4   0
                         0 -1  1   17/4 -17/4  -1   1  0       0  -3   -3   3/4  3/4   0
                         0 1/2 1/4 -5/2  -5/4   2   1  0       0   3   -3  -3/4  3/4   0
                         0 -1/2 1/4 5/2  -5/4  -2   1  0       0 -15/2 -15/4 15/2 15/4 0
                         0  2  4  -5/2   -5   1/2   1  0       0  15/2 -15/4 -15/2 15/4 0
                         0 -2  4   5/2   -5  -1/2   1  0
   The row of B' of 1, say, is x (x + 1)(x^2 - 4)(x^2 - 1/4) = x + x^2 - 17/4 x^3 - 17/4 x^4 + x^5
   + x^6.  These tables are the definition; part III repeats them.  One G for both sizes of tile: u
   is made once for a layer, and a tile of 4 takes the first 6 of its 8.

   Why these points.  All of B' and A' are then small whole numbers over powers of 2, which a float
   holds exactly; only G, with its 9ths and 45ths, is rounded, once, to u.  p and -p share their
   even and odd powers.  Powers stay small: 2^5 = 32 is the largest, where the point 3 would have
   3^5 = 243; and the larger the terms of a sum are against the sum, the more of it rounding takes.
   Errors are about three times those of the direct sum (random inputs of 8 channels, in float
   without fused products: 7.4e-7 of the results' deviation, 5.4e-7 with 4 rows, direct 2.8e-7).

   In three dimensions, for kernels 3 of stride 1 with padding 1 and no bias.  Along x, where a tile
   is n neighbouring rows of outputs; along z and y the sum as written: 72 products instead of 162
   for 6 outputs and one input channel.  (Winograd's method along all axes needs fewer still, and
   multiplies its roundings.)  With d the rows of inputs of a tile, one on either side more,
       v[f] = (B' d)[f]   of every site (z, y) and channel,     u[f] = (G w)[f]   of the cells of x,
       m[f](j) = sum over kz, ky, i:  u[f][i][kz][ky] v[f][i](j + (kz, ky) - 1),    y = A' m.
   Backward, each step has its transpose:
       y = A' m                          so   dm = A dy
       m[f](j) += u v(j + (kz, ky) - 1)  so   du[f][i][kz][ky] += v[f][i](j + (kz, ky) - 1) dm[f](j)
       u = G w                           so   dw = G' du
   while dx needs none of them: it is the direct sum of 5.2 with w turned round, a convolution of
   kernel 3, stride 1 and padding 1 like y, of dy, and made in the same way. */

/* f, and rows of outputs, at most: of F(6, 3) */
enum { CM_WINO_F = 8, CM_WINO_WIDE = 6 };

/* G of the introduction to 5.8: a row of infinity, of 0, 1, -1, 2, -2, 1/2 and -1/2.  The scale of
   a point p is 1 divided by the product of (p - q) over the other finite points q of F(6, 3): then
   s L(p) = 1 in the rule there, and B' has the coefficients of L as they are.  Of p = 1 the product
   is 1 * 2 * (-1) * 3 * (1/2) * (3/2) = -9/2, so s = -2/9; of p = 2 it is 2 * 1 * 3 * 4 * (3/2) *
   (5/2) = 90; of 0 it would be -1, and the sign is B''s. */
static const double cm_wino_g[CM_WINO_F][3] = {
    { 0, 0, 1 }, { 1, 0, 0 }, { -2. / 9, -2. / 9, -2. / 9 }, { -2. / 9, 2. / 9, -2. / 9 },
    { 1. / 90, 2. / 90, 4. / 90 }, { 1. / 90, -2. / 90, 4. / 90 },
    { 32. / 45, 16. / 45, 8. / 45 }, { 32. / 45, -16. / 45, 8. / 45 }
};

typedef struct cm_wino_tile {
    int number, x, rows, full;       /* x of the first row; rows (0: none), of 6 or 4 */
    int from, end;                   /* f that it takes */
} cm_wino_tile;

/* The tile from x on, of nx: the fewest products in all (tried for every nx up to 300 against all
   ways to cut it into tiles of 6 and 4, the last cut short or not).  A whole tile of 6 takes 8
   products for each cell (kz, ky) and channel, one of 4 takes 6; one with fewer rows does without
   infinity, so 7 and 5.  The sum as written takes 3 for each row.  Of the paper's grids:
       nx    rows of tiles   products   of 3 nx
       17    6, 6, 5         8 + 8 + 7  23 of 51
        9    6, 3            8 + 5      13 of 27
        5    5               7           7 of 15
        3    none (cm_wino_fits): the last resolution is computed as written */
static cm_wino_tile cm_wino_tile_at(int nx, int x, int number)
{
    cm_wino_tile t;
    int left = nx - x;
    t.number = number;
    t.x = x;
    t.full = left > 8 || left == 5 || left == 6 ? 6 : 4;
    t.rows = cm_smaller(left, t.full);
    t.from = t.rows < t.full;
    t.end = t.full + 2;
    return t;
}

static cm_wino_tile cm_wino_first(int nx) { return cm_wino_tile_at(nx, 0, 0); }

static cm_wino_tile cm_wino_next(int nx, const cm_wino_tile *t)
{
    return cm_wino_tile_at(nx, t->x + t->rows, t->number + 1);
}

/* Where Winograd's method (5.8) is used: on fewer rows it is no faster. */
static int cm_wino_fits(int nx, const cm_window *w)
{
    return cm_window_is_cube(w) && w->kernel[0] == 3 && w->stride[0] == 1 && w->before[0] == 1
        && nx >= 4;
}

/* v = B' d, of 8 rows for 6 outputs or 6 for 4.  v[0] is of infinity, v[1] of 0.  The rows of p and
   -p are even part plus odd part (times p) and even part minus it: p and q here.  The row of 1 in
   the table, 0 1 1 -17/4 -17/4 1 1 0, has the even part d2 - 17/4 d4 + d6 and the odd one d1 - 17/4
   d3 + d5; the row of -1 has the same two, the odd one with the other sign: two sums of three terms
   and two of two in place of two of six.  All factors are exact in binary, so each line rounds once
   for each sum in it.  The order of sums and what is fused is part of the definition. */
static void cm_wino_inputs(int full, const cm_real *d, cm_real *v)
{
    const cm_real half = (cm_real)0.5, quarter = (cm_real)0.25;
    cm_real p, q;
    if (full == 4) {
        v[0] = cm_fma(4, d[1], cm_fma(-5, d[3], d[5]));
        v[1] = cm_fma(quarter, d[4], cm_fma(-5 * quarter, d[2], d[0]));
        p = 3 * quarter * cm_fma(-4, d[2], d[4]);
        q = 3 * quarter * cm_fma(-4, d[1], d[3]);
        v[2] = p + q;
        v[3] = p - q;
        p = 15 * quarter * (d[4] - d[2]);
        q = 30 * quarter * (d[3] - d[1]);
        v[4] = p + q;
        v[5] = p - q;
        return;
    }
    v[0] = cm_fma(21 * quarter, d[3] - d[5], d[7] - d[1]);
    v[1] = cm_fma(21 * quarter, d[4] - d[2], d[0] - d[6]);
    p = cm_fma(-17 * quarter, d[4], d[6] + d[2]);
    q = cm_fma(-17 * quarter, d[3], d[5] + d[1]);
    v[2] = p + q;
    v[3] = p - q;
    p = cm_fma(-5 * quarter, d[4], cm_fma(quarter, d[2], d[6]));
    q = cm_fma(-5 * quarter, d[3], cm_fma(quarter, d[1], d[5]));
    v[4] = cm_fma(2, q, p);
    v[5] = cm_fma(-2, q, p);
    p = cm_fma(-5, d[4], cm_fma(4, d[2], d[6]));
    q = cm_fma(-5, d[3], cm_fma(4, d[1], d[5]));
    v[6] = cm_fma(half, q, p);
    v[7] = cm_fma(-half, q, p);
}

/* The rows of outputs, y = A' m: row r has the weights p^r at the points p = 1, -1, 2, -2, 1/2,
   -1/2.  Of p and -p an even r needs the sum, an odd one the difference.  Row 0 has the point 0 as
   well, m[1], since 0^0 = 1; the last of a whole tile has infinity, m[0].  A tile at the edge with
   fewer rows does not have that last row, and infinity is not needed (t->from is 1). */
static void cm_wino_outputs(const cm_wino_tile *t, const cm_real *m, cm_real *y)
{
    cm_real sum[3], difference[3], power = 1;
    int f, r;
    for (f = 0; f < 3; f++) {
        int there = 2 * f + 2 < t->full + 2;
        sum[f] = there ? m[2 * f + 2] + m[2 * f + 3] : 0;
        difference[f] = there ? m[2 * f + 2] - m[2 * f + 3] : 0;
    }
    y[0] = m[1] + (sum[0] + sum[1] + sum[2]);
    for (r = 1; r < t->rows; r++) {
        const cm_real *s = r % 2 ? difference : sum;
        power *= 2;
        y[r] = cm_fma(1 / power, s[2], cm_fma(power, s[1], s[0]));
    }
    if (t->rows == t->full) y[t->full - 1] += m[0];
}

/* Forward:   y = A' m, row r: y[r] = sum over f:  p[f]^r m[f]
   m[f] is in row r times p[f]^r, so  dm[f] = sum over r:  p[f]^r dy[r],  the transpose, A dy.
   d are the rows of dy of a tile; those that the tile does not have are 0.
   Of the point 2: dm = d0 + 2 d1 + 4 d2 + 8 d3 + 16 d4 + 32 d5, even rows p = d0 + 4 d2 + 16 d4 and
   odd ones q = 2 (d1 + 4 d3 + 16 d5); of -2 it is p - q.  Infinity has the last row alone, 0 the
   first. */
static void cm_wino_slopes(int full, const cm_real *d, cm_real *dm)
{
    static const double points[4] = { 0, 1, 2, 0.5 };
    int j;
    dm[0] = d[full - 1];
    dm[1] = d[0];
    for (j = 1; j < (full + 2) / 2; j++) {
        const cm_real k = (cm_real)points[j], kk = k * k;
        cm_real p = cm_fma(kk * kk, d[4], cm_fma(kk, d[2], d[0]));
        cm_real q = k * cm_fma(kk * kk, d[5], cm_fma(kk, d[3], d[1]));
        dm[2 * j] = p + q;
        dm[2 * j + 1] = p - q;
    }
}

/* u [out][in][kz][ky][f] = G w of a layer's weights, along kx; added in double, rounded once.  u
   has 8 numbers where w has 3 along x: 72 for the 27 cells of a kernel.  transposed: for the pass
   to the input.  There the outputs are the inputs and cell k is 2 - k: the output j = m + 1 - k of
   5.2 (stride 1, padding 1) is the input m + k' - 1 with k' = 2 - k. */
static void cm_wino_weights(const cm_work *o, int transposed, cm_real *u)
{
    int in = o->in[0]->nc, n = transposed ? in : o->l->nc, m = transposed ? o->l->nc : in;
    int b, a, t, f, kx;
    for (b = 0; b < n; b++)
        for (a = 0; a < m; a++)
            for (t = 0; t < 9; t++)
                for (f = 0; f < CM_WINO_F; f++) {
                    double sum = 0;
                    for (kx = 0; kx < 3; kx++) {
                        size_t w = transposed ? cm_weight_at(o, a, b, 2 - t / 3, 2 - kx, 2 - t % 3)
                                          : cm_weight_at(o, b, a, t / 3, kx, t % 3);
                        sum += cm_wino_g[f][kx] * (double)o->w[w];
                    }
                    *u++ = (cm_real)sum;
                }
}

/* v [z][y][channel][f] of all planes of a tile of x, the values or derivatives of layer l.  The
   tile's rows of inputs begin one before its rows of outputs: padding 1.  Rows outside are 0. */
static void cm_wino_transform(const cm_layer *l, const cm_real *x, const cm_wino_tile *t,
                              cm_real *v)
{
    int z, y, i, r;
    for (z = 0; z < l->nz; z++)
        for (y = 0; y < l->ny; y++)
            for (i = 0; i < l->nc; i++, v += CM_WINO_F) {
                cm_real d[CM_WINO_F];
                for (r = 0; r < t->full + 2; r++) {
                    const cm_real *at = cm_site_of(l, x, z, t->x - 1 + r, y);
                    d[r] = at ? at[i] : 0;
                }
                cm_wino_inputs(t->full, d, v);
            }
}

/* v of the neighbour (kz, ky) = (t/3, t%3) of a site (z, y), which is at (z, y) + (kz, ky) - 1; or
   NULL outside the grid, where all of v would be 0, since B' is linear. */
static const cm_real *cm_wino_neighbour(const cm_layer *l, const cm_real *v, int z, int y, int t)
{
    z += t / 3 - 1;
    y += t % 3 - 1;
    if (z < 0 || z >= l->nz || y < 0 || y >= l->ny) return NULL;
    return v + (size_t)((z * l->ny + y) * l->nc) * CM_WINO_F;
}

/* m[f] = sum over t = (kz, ky) and i:  u[f][i][t] v[f][i](neighbour t), of one output channel, with
   its u [in][kz][ky][f].  The sum is in float, each product fused with it, cell by cell and channel
   by channel within, as in 5.2.  This loop has all products of the method. */
static void cm_wino_product(const cm_layer *in, const cm_wino_tile *tile, const cm_real *v,
                            const cm_real *u, int z, int y, cm_real *m)
{
    int f, t, i;
    for (f = tile->from; f < tile->end; f++) m[f] = 0;
    for (t = 0; t < 9; t++) {
        const cm_real *at = cm_wino_neighbour(in, v, z, y, t);
        for (i = 0; at && i < in->nc; i++)
            for (f = tile->from; f < tile->end; f++)
                m[f] = cm_fma(at[i * CM_WINO_F + f], u[(i * 9 + t) * CM_WINO_F + f], m[f]);
    }
}

/* to(j) = the convolution of x by u or, with add, to(j) += it; v: scratch.  Forward `to` is y; in
   the pass to the input x is dy, `to` is dx, and others may have added to it. */
static void cm_wino_convolve(const cm_layer *in, const cm_real *x, const cm_layer *out, cm_real *to,
                             const cm_real *u, cm_real *v, int add)
{
    cm_wino_tile t = cm_wino_first(out->nx);
    int z, y, c, r;
    for (; t.rows > 0; t = cm_wino_next(out->nx, &t)) {
        cm_wino_transform(in, x, &t, v);
        for (z = 0; z < out->nz; z++)
            for (y = 0; y < out->ny; y++)
                for (c = 0; c < out->nc; c++) {
                    cm_real m[CM_WINO_F], row[CM_WINO_WIDE];
                    cm_wino_product(in, &t, v, u + (size_t)(c * in->nc * 9) * CM_WINO_F, z, y, m);
                    cm_wino_outputs(&t, m, row);
                    for (r = 0; r < t.rows; r++) {
                        cm_real *at = to + cm_site_at(out, z, t.x + r, y) + c;
                        *at = add ? *at + row[r] : row[r];
                    }
                }
    }
}

/* Forward:   m[f](j) += u[f][i][t] v[f][i](neighbour t of j)
   u is in it times v, so  du[f][i][t] += v[f][i](neighbour t of j) dm[f](j)
   for site j = (z, y) of a tile and all output channels c.  o->dw has du [in][c][kz][ky][f] here, 8
   numbers where w has 3: a muon's share stays in this form until all muons are added (5.9), since
   G' is linear, and G' of a sum costs what G' of a share does. */
static void cm_wino_site_to_du(const cm_work *o, const cm_wino_tile *tile, const cm_real *v, int z,
                               int y)
{
    const cm_layer *l = o->l, *in = o->in[0];
    int c, r, t, i, f;
    for (c = 0; c < l->nc; c++) {
        cm_real d[CM_WINO_WIDE] = { 0 }, dm[CM_WINO_F];
        for (r = 0; r < tile->rows; r++) d[r] = o->dy[cm_site_at(l, z, tile->x + r, y) + (size_t)c];
        cm_wino_slopes(tile->full, d, dm);
        for (t = 0; t < 9; t++) {
            const cm_real *at = cm_wino_neighbour(in, v, z, y, t);
            for (i = 0; at && i < in->nc; i++) {
                cm_real *du = o->dw + (size_t)((i * l->nc + c) * 9 + t) * CM_WINO_F;
                for (f = tile->from; f < tile->end; f++)
                    du[f] = cm_fma(at[i * CM_WINO_F + f], dm[f], du[f]);
            }
        }
    }
}

/* v is made again: kept from the forward pass it would be 8/6 of the layer's inputs. */
static void cm_wino_to_du(const cm_work *o)
{
    cm_wino_tile t = cm_wino_first(o->l->nx);
    int z, y;
    for (; t.rows > 0; t = cm_wino_next(o->l->nx, &t)) {
        cm_wino_transform(o->in[0], o->x[0], &t, o->scratch);
        for (z = 0; z < o->l->nz; z++)
            for (y = 0; y < o->l->ny; y++) cm_wino_site_to_du(o, &t, o->scratch, z, y);
    }
}

/* The two of this kind: the same equation as in 5.2, other roundings, so other bits.  Which of the
   two a layer has is a matter of its shape (cm_pass_wino) and of options.direct. */
static void cm_plain_wino(const cm_work *o)
{
    cm_wino_convolve(o->in[0], o->x[0], o->l, o->y, o->u, o->scratch, 0);
}

static void cm_plain_wino_back(const cm_work *o)
{
    if (o->dw) cm_wino_to_du(o);
    if (o->dx[0])
        cm_wino_convolve(o->l, o->dy, o->in[0], o->dx[0], o->u, o->scratch, 1);
}

/* ---------------------------------------------------------------- 5.9 all muons of a batch

   A pass computes the layers in their order, each for all muons, and backward in the reverse order:
   when layer i is reached, all that read it have added to its dx, which is complete then.  The list
   is the tape.  Muons do not know each other but for the running batch norm.

   The running batch norm (Sec. 3.1.1; the paper's reference 50).  An ordinary batch norm (S. Ioffe,
   C. Szegedy, arXiv:1502.03167) shifts and scales by the mean and deviation of the present batch,
   in inference by running averages of them, so that training and inference differ; with data as
   sparse as these validation became unstable (Sec. 7.4).  Here running averages of the sums are
   taken first, and then used, in training too.
   A norm keeps four buffers: S and Q of every channel, running averages of the sum of x and of x^2
   over a batch; N, that of the number of values in a batch; and the number of muons seen so far.
   With s, q, n of a batch of B muons:
       S += m (s - S),   Q += m (q - Q),   N += m (n - N),   m = 1 - 0.9/sqrt(B - 1 + eps)
       mean = S/N,   var = Q/N - mean^2,   r = 1/sqrt(var + eps),   y = w r (x - mean) + b.
   m is that of the authors' code: 0.1, as in the text, at B = 2, but 0.944 at B = 256.  With B = 1
   it would be -284: training needs two muons.  n is averaged like the sums, so that batches of
   different size and the start at 0 need no correction: N is too small by the same factor as S.
   In all of these a batch that is k batches old has the weight (1 - m)^k of the present one: 0.9^k
   at B = 2, 0.056^k at B = 256, where the present batch has nearly all of it.
   var is at least 0, where rounding may leave less, and at least 0.01 while fewer than 20 muons
   have been seen, whose own variance says little.

   Its derivative, for one channel; sums are over all values of the batch.  S, Q and N before the
   batch are constants, s and q are not.  With G0 = sum of dy and G1 = sum of dy (x - mean):
     1. by b, which is in every y times 1:            db = G0.
     2. by w, in y times r (x - mean):                dw = r G1.
     3. by r, in y times w (x - mean):                dr = w G1.
     4. by var; r = (var + eps)^(-1/2), so dr/dvar = -r^3/2:
                                                      dvar = -w r^3 G1/2, or 0 where var is clamped:
        a constant took its place.
     5. by mean, in y times -w r, and in var, whose derivative by it is -2 mean:
                                                      dmean = -w r G0 - 2 mean dvar.
     6. by S = N mean and Q, in mean and var times 1/N (var's mean was counted in 5):
                                                      dS = dmean/N,   dQ = dvar/N.
     7. by the batch's sums, in S and Q times m:      ds = m dS,   dq = m dQ.
     8. by x: in y times w r; in s times 1; in q its square, times 2x:
                                                      dx = w r dy + ds + 2 x dq
                                                         = A dy + e x + f
        with A = w r, e = 2 m dvar/N, f = m dmean/N: what 5.4 adds.

   Example, the first batch: two muons, one site, x = 1 and 3, w = 1, b = 0.  s = 4, q = 10, n = 2
   and m = 0.1, so S = 0.4, Q = 1, N = 0.2: mean = 2, var = 5 - 4 = 1 (eps left out), y = -1 and 1.
   With dy = (1, 0): G0 = 1, G1 = 1*(1 - 2) = -1, db = 1, dw = -1; dvar = 1/2, dmean = -1 - 4/2 =
   -3, e = 2*0.1*0.5/0.2 = 1/2, f = 0.1*(-3)/0.2 = -3/2, and dx = (1 + 1/2 - 3/2, 3/2 - 3/2) = (0,
   0).  That is right: after the first batch mean and var are the batch's own, and two values come
   out as -1 and 1 whatever they are.  In later batches S and Q remember others, and dx is not 0.
   The second batch, x = 4 and 8, s = 12 and q = 80:  S = 0.4 + 0.1*(12 - 0.4) = 1.56, Q = 1 +
   0.1*79 = 8.9, N = 0.2 + 0.1*1.8 = 0.38, so mean = 4.105, var = 23.421 - 16.853 = 6.568, r =
   0.3902, and y = -0.041 and 1.520, where an ordinary batch norm has -1 and 1.  With dy = (1, 0):
   G0 = 1, G1 = 4 - 4.105 = -0.105, dvar = 0.00313, dmean = -0.4159, e = 0.00165, f = -0.1094, and
   dx = (0.3902 + 0.0066 - 0.1094, 0.0132 - 0.1094) = (0.287, -0.096), which differences of y at
   x + h and x - h give too.

   What is kept.  Forward, every layer's y of all muons is; backward frees each when it is reached.
   The 197 layers of the paper's network have 2,840,838 values of a muon, 11 MB, of a batch of 256
   2.9 GB.  Part III makes many of them again where they are read, and needs much less.  Inference
   keeps only what is still to be read: at most 266,122 values of a muon, 273 MB of 256, at the norm
   of block 3's shortcut, with what the block reads, its Swish and the path at hand.

   What it takes.  The convolutions have 154 million products of a muon as written in 5.2 (of 192
   million if the padding were multiplied too), nearly all there are.  Backward has the same number
   twice, once for dw and once for dx: each product w x of the forward pass is in both, as dy x and
   as w dy.

   What proves it.  The derivative of L along any direction of the weights is also a difference,
   D(h) = (L(h) - L(-h))/(2 h), but for an error of order h^2; (4 D(h) - D(2h))/3 has one of h^4.
   tests/test_gradients.c compares backward with that, to 3e-8, in the build with
   CALOMU_REAL=double.  A forward pass that is wrong in the same way passes, so values are held to
   those of a network written in PyTorch (tests/test_golden.c). */

/* What a muon's layer computes, by the kind of the layer: forward reads x and sets y, backward
   reads dy and adds to dx, dw and dbias (section 5). */

typedef struct cm_plain_kind {
    void (*forward)(const cm_work *o);
    void (*backward)(const cm_work *o);
} cm_plain_kind;

static const cm_plain_kind cm_plain_kinds[] = {  /* in the order of cm_kind */
    { cm_plain_features, cm_no_input_back },
    { cm_plain_hits, cm_plain_hits_back },
    { cm_plain_hits, cm_no_input_back },
    { cm_plain_conv, cm_plain_conv_back },
    { cm_plain_conv, cm_plain_conv_back },       /* a linear layer: a kernel of one cell */
    { cm_plain_norm, cm_plain_norm_back },
    { cm_plain_swish, cm_plain_swish_back },
    { cm_plain_sigmoid, cm_plain_sigmoid_back },
    { cm_plain_mean, cm_plain_mean_back },
    { cm_plain_max, cm_plain_max_back },
    { cm_plain_pool, cm_plain_pool_back },
    { cm_plain_channel, cm_plain_channel_back },
    { cm_plain_add_scaled, cm_plain_add_scaled_back },
    { cm_plain_concat, cm_plain_concat_back },
    { cm_plain_conv, cm_plain_conv_back }        /* of any window */
};
static const cm_plain_kind cm_wino_kind = { cm_plain_wino, cm_plain_wino_back };

/* One pass of a batch: what is read, and what every layer has made.  x and dx are one table of
   2 * layers pointers, x first, so that one allocation can fail and one loop frees them. */
struct cm_pass {
    calomu *c;
    const cm_net *net;
    const calomu_event *event;       /* [muon], hits by rising cell; NULL: the network reads none */
    const cm_real *features;         /* [muon][feature], standardised */
    int muons, training, direct;
    cm_real *gradient;               /* a block like net->trained; NULL: none is wanted */
    cm_real **x, **dx;               /* [layer]: of all muons, [muon][site][channel]; NULL: none */
    double **saved;                  /* [layer]: cm_work's, of all muons; of a norm once */
    int *last;                       /* [layer]: the last that reads it */
    unsigned char *needs;            /* [layer]: a learned parameter is behind it */
};

static const cm_layer *cm_pass_layer(const cm_pass *p, int i) { return &p->net->list->layer[i]; }

/* Whether a layer is computed as in 5.8: of the paper's network conv 2 of blocks 0 to 8, and conv 1
   of those that keep the grid; the last resolution has 3 rows along x, too few (cm_wino_fits).  A
   bias would have to be added behind A', with a rounding of its own; the paper's only convolution
   with a bias has a kernel of one cell. */
static int cm_pass_wino(const cm_pass *p, const cm_layer *l)
{
    return !p->direct && l->kind == CM_CONV && !l->bias
        && cm_wino_fits(cm_pass_layer(p, l->in[0])->nx, &l->window);
}

/* Whether a learned parameter is behind layer i: of itself, or of what it reads, directly or not.
   Behind means towards the input: of conv 1 of block 0 only its own weights, the hits are data.
   Only then is its dL/dy wanted.  Channel 0 of a concatenation is its first part's: the energy sums
   of all blocks are read through such channels, and have none, back to the hits.  Of block 0 the
   energy sum has none, so of block 1 the channel that takes it from block 0's concatenation has
   none, so of its concatenation the first part has none, and so on.  Without this rule channel 0
   would be as learned as its concatenation: the channels of 11 blocks and the sums of 3 would get
   derivatives that no weight needs, and the gradient would be the same. */
static int cm_pass_needs(const cm_pass *p, int i)
{
    const cm_layer *l = cm_pass_layer(p, i), *x;
    int k;
    if (cm_kind_learns(l->kind)) return 1;
    if (l->kind == CM_CHANNEL) {
        x = cm_pass_layer(p, l->in[0]);
        if (x->kind == CM_CONCAT) return p->needs[x->in[0]];
    }
    for (k = 0; k < 3; k++)
        if (l->in[k] >= 0 && p->needs[l->in[k]]) return 1;
    return 0;
}

/* Values and derivatives that backward or cm_pass_drop have not freed, and the tables of pointers;
   p may be half made. */
void cm_pass_free(cm_pass *p)
{
    int i;
    if (!p) return;
    for (i = 0; p->x && i < 2 * p->net->list->n; i++) cm_release(p->c, p->x[i]);
    for (i = 0; p->saved && i < p->net->list->n; i++) cm_release(p->c, p->saved[i]);
    cm_release(p->c, p->x);
    cm_release(p->c, p->saved);
    cm_release(p->c, p->last);
    cm_release(p->c, p->needs);
    cm_release(p->c, p);
}

/* A pass in which nothing is computed yet; NULL, with a message, without memory.  gradient:
   training (the norms learn, values stay for backward); NULL: inference.  `last` is found going
   forward, so that the last reader is the one that stays; `needs` as well, since a layer's answer
   follows from those before it.  What block 1 reads (cm_list_later_block) is read by its first
   norm, by the channel of its energy and, last, by the sum with the gated path.  event and features
   are borrowed until cm_pass_free. */
cm_pass *cm_pass_new(calomu *c, const cm_net *net, const calomu_event *event,
                     const cm_real *features, int muons, cm_real *gradient)
{
    size_t n = (size_t)net->list->n;
    cm_pass *p = cm_allocate(c, 1, sizeof *p);
    int i, k;
    if (!p) return NULL;
    p->c = c;
    p->net = net;
    p->event = event;
    p->features = features;
    p->muons = muons;
    p->training = gradient != NULL;
    p->direct = c->direct;
    p->gradient = gradient;
    p->x = cm_allocate(c, 2 * n, sizeof *p->x);
    p->saved = cm_allocate(c, n, sizeof *p->saved);
    p->last = cm_allocate(c, n, sizeof *p->last);
    p->needs = cm_allocate(c, n, 1);
    if (!p->x || !p->saved || !p->last || !p->needs) {
        cm_pass_free(p);
        return NULL;
    }
    p->dx = p->x + n;
    for (i = 0; i < net->list->n; i++) {
        for (k = 0; k < 3; k++)
            if (cm_pass_layer(p, i)->in[k] >= 0) p->last[cm_pass_layer(p, i)->in[k]] = i;
        p->needs[i] = (unsigned char)cm_pass_needs(p, i);
    }
    return p;
}

/* Parameter k of a layer (0: weight, 1: bias): values, and where its derivative is added. */
static cm_weight cm_pass_weight(const cm_pass *p, const cm_layer *l, int k)
{
    return cm_weight_of(p->net, p->gradient, l, k);
}

/* Layer i and muon v: where this muon is in the values of the layer, of those that it reads, and in
   their derivatives.  A norm's `saved` is one for all muons, a maximum's is of each.  Muons are
   whole one after the other, so muon v is v times a muon's size into every array. */
static cm_work cm_pass_work(const cm_pass *p, int i, int v)
{
    const cm_layer *l = cm_pass_layer(p, i);
    cm_work o;
    int k;
    memset(&o, 0, sizeof o);
    o.l = l;
    o.cells = p->net->list->hits;
    o.event = p->event ? p->event + v : NULL;
    if (l->kind == CM_FEATURES) o.features = p->features + (size_t)v * cm_layer_size(l);
    if (*l->name) o.w = cm_pass_weight(p, l, 0).x;
    if (l->bias) o.bias = cm_pass_weight(p, l, 1).x;
    for (k = 0; k < 3; k++) {
        size_t size;
        if (l->in[k] < 0) continue;
        o.in[k] = cm_pass_layer(p, l->in[k]);
        size = (size_t)v * cm_layer_size(o.in[k]);
        o.x[k] = p->x[l->in[k]] + size;
        if (p->dx[l->in[k]]) o.dx[k] = p->dx[l->in[k]] + size;
    }
    o.y = p->x[i] + (size_t)v * cm_layer_size(l);
    if (p->dx[i]) o.dy = p->dx[i] + (size_t)v * cm_layer_size(l);
    if (p->saved[i]) o.saved = p->saved[i] + (l->kind == CM_MAX_OF ? v * l->nc : 0);
    return o;
}

/* ---- the running batch norm */

/* As PyTorch's batch norms have it: keeps 1/sqrt(var) finite.  A channel that is the same at all
   sites of all muons has var = 0, and r is 316 there. */
#define CM_NORM_EPS 1e-5

/* m of B muons, as above: 0.100 of 2, 0.768 of 16, 0.887 of 64, 0.944 of 256.  A large batch
   says more of the mean than a small one, and is followed faster. */
static double cm_norm_momentum(int muons) { return 1 - 0.9 / sqrt(muons - 1 + CM_NORM_EPS); }

/* The transform y = A x + B of every channel, from the buffers:
       y = w r (x - mean) + b = (w r) x + (b - mean w r).
   mean and var are ratios of buffers, so what S, Q and N have in common, their start at 0, is gone.
   var = Q/N - mean^2 is a small difference where |mean| is much larger than the deviation, and the
   buffers are rounded to the weights' type, float: an update moves each by a relative 6e-8.  That
   is up to 1.2e-7 of Q/N = var + mean^2, and twice that of mean^2, so of var up to 3.6e-7 (var +
   mean^2): with a mean of 10 deviations a relative 3.6e-5, with one of 1000 a third.  Fused, the
   square at least is not rounded before.

   floor_ (floor is libm's) is 0.01 in the first batches of small B, where two muons that happen to
   have nearly the same x would be blown up to -1 and 1.  B = 256 has passed the 20 in its first
   update, as the muons of the batch are counted before (cm_norm_learn). */
static void cm_norm_transform(const cm_norm *n, int nc, double *saved)
{
    int c;
    for (c = 0; c < nc; c++) {
        double count = (double)*n->count, mean = n->sums[c] / count;
        double var = cm_fmad(-mean, mean, n->squares[c] / count);
        double floor_ = *n->batch < 20 ? 0.01 : 0, r;
        int clamped = var < floor_;
        if (clamped) var = floor_;
        r = 1 / sqrt(var + CM_NORM_EPS);
        saved[CM_NORM_A * nc + c] = (double)n->weight.x[c] * r;
        saved[CM_NORM_B * nc + c] = cm_fmad(-mean, (double)n->weight.x[c] * r,
                                            (double)n->bias.x[c]);
        saved[CM_NORM_MEAN * nc + c] = mean;
        saved[CM_NORM_R * nc + c] = r;
        saved[CM_NORM_CLAMPED * nc + c] = clamped;
    }
}

/* Sum over the muons of their sums over sites, of b or a (b - shift): 5.1 within a muon, the tree
   of section 1 over muons.  muon: room for a number of each.  With 256 muons and 7,514 sites of the
   first norm that is 1,923,584 values, of which each goes through 17 roundings in float, and about
   26 + 17 + 8 in double, which are nothing beside them: a relative 1.0e-6 of the sum of |x| (5). */
static double cm_pass_sum(const cm_pass *p, const cm_layer *l, int c, const cm_real *a,
                          const cm_real *b, cm_real shift, double *muon)
{
    size_t v, size = cm_layer_size(l);
    for (v = 0; v < (size_t)p->muons; v++)
        muon[v] = cm_site_sum(l, c, a ? a + v * size : NULL, b + v * size, shift);
    return cm_muon_sum(muon, (size_t)p->muons);
}

/* S += m (s - S), Q += m (q - Q), N += m (n - N), and the muons seen.  In this form a buffer that
   is equal to the batch's sum stays as it is; (1 - m) S + m s would be rounded away from it.  The
   number of muons is a float like all buffers, exact up to 2^24; asked is only whether it is below
   20. */
static void cm_norm_learn(const cm_pass *p, const cm_norm *n, const cm_layer *l, const cm_real *x,
                          double *muon)
{
    const double m = cm_norm_momentum(p->muons);
    const double count = (double)p->muons * (double)cm_sites_of(l);
    int c;
    for (c = 0; c < l->nc; c++) {
        double s = n->sums[c], q = n->squares[c];
        n->sums[c] = (cm_real)cm_fmad(m, cm_pass_sum(p, l, c, NULL, x, 0, muon) - s, s);
        n->squares[c] = (cm_real)cm_fmad(m, cm_pass_sum(p, l, c, x, x, 0, muon) - q, q);
    }
    *n->count = (cm_real)cm_fmad(m, count - (double)*n->count, (double)*n->count);
    *n->batch += (cm_real)p->muons;
}

/* Of norm i, before its muons are transformed: in training the sums, then A, B, mean and r of every
   channel, and which are clamped.  In inference the buffers are read only; those of a network that
   was never trained are empty, and 0/0 would spread through all that follows. */
static calomu_status cm_pass_norm(const cm_pass *p, int i)
{
    const cm_layer *l = cm_pass_layer(p, i);
    const cm_norm n = cm_norm_of(p->net, p->gradient, l);
    double *muon = cm_allocate(p->c, (size_t)p->muons, sizeof *muon);
    p->saved[i] = cm_allocate(p->c, (size_t)(CM_NORM_KINDS * l->nc), sizeof *p->saved[i]);
    if (muon && p->saved[i]) {
        if (p->training) cm_norm_learn(p, &n, l, p->x[l->in[0]], muon);
        if (*n.count > 0) cm_norm_transform(&n, l->nc, p->saved[i]);
    }
    cm_release(p->c, muon);
    if (!p->saved[i] || !muon) return CALOMU_EMEMORY;
    if (*n.count > 0) return CALOMU_OK;
    return cm_fail(p->c, CALOMU_EFORMAT, "the network was never trained: a batch norm is empty");
}

/* Steps 1 to 8 above, of every channel:
     forward  y = w r (x - mean) + b            step 1 g0, into n.bias.dx; step 2 r g1, n.weight.dx
              r = 1/sqrt(var + eps)             steps 3 and 4: dvar
              mean = S/N, var = Q/N - mean^2    steps 5 and 6: dmean, both divided by N
              S += m (s - S), Q likewise        step 7: times m
   and step 8 is done muon by muon in 5.4, with e and f (CM_NORM_SLOPE, CM_NORM_SHIFT).  G1 is
   summed as dy (x - mean): the sum of dy x less mean times G0 is the same, but a small difference
   of large numbers where the mean is far from 0.  The mean is rounded to the type of x for it.
   N is read from the buffers again: no other pass may learn between forward and backward. */
static calomu_status cm_pass_norm_back(const cm_pass *p, int i)
{
    const cm_layer *l = cm_pass_layer(p, i);
    const cm_norm n = cm_norm_of(p->net, p->gradient, l);
    const double m = cm_norm_momentum(p->muons), count = (double)*n.count;
    double *saved = p->saved[i], *muon = cm_allocate(p->c, (size_t)p->muons, sizeof *muon);
    int c, nc = l->nc;
    for (c = 0; muon && c < nc; c++) {
        double mean = saved[CM_NORM_MEAN * nc + c], r = saved[CM_NORM_R * nc + c];
        double w = (double)n.weight.x[c];
        double g0 = cm_pass_sum(p, l, c, NULL, p->dx[i], 0, muon);
        double g1 = cm_pass_sum(p, l, c, p->dx[i], p->x[l->in[0]], (cm_real)mean, muon);
        double dvar = saved[CM_NORM_CLAMPED * nc + c] != 0 ? 0 : -0.5 * w * r * r * r * g1;
        double dmean = cm_fmad(-2 * mean, dvar, -w * r * g0);
        n.bias.dx[c] += (cm_real)g0;
        n.weight.dx[c] += (cm_real)(r * g1);
        saved[CM_NORM_SLOPE * nc + c] = 2 * m * dvar / count;
        saved[CM_NORM_SHIFT * nc + c] = m * dmean / count;
    }
    cm_release(p->c, muon);
    return muon ? CALOMU_OK : CALOMU_EMEMORY;
}

/* ---- forward */

/* Weights of Winograd's method, made once for all muons of a layer, and room for one tile's v. */
typedef struct cm_pass_scratch {
    cm_real *u, *v;
} cm_pass_scratch;

/* transposed: backward, where only the pass to the input reads u.  v is of the input and, backward,
   of dy as well, one after the other: room for the wider of the two.  At block 8, 30 channels in
   and out, u are 9 * 30 * 30 * 8 numbers, 0.26 MB; v are most at block 2, 26 * 17 sites of a plane
   z, y with 10 channels, 26 * 17 * 10 * 8, 0.14 MB. */
static calomu_status cm_pass_scratch_take(const cm_pass *p, int i, int transposed,
                                          cm_pass_scratch *r)
{
    const cm_work o = cm_pass_work(p, i, 0);
    size_t u, v;
    int most;
    memset(r, 0, sizeof *r);
    if (!cm_pass_wino(p, o.l)) return CALOMU_OK;
    most = o.l->nc > o.in[0]->nc ? o.l->nc : o.in[0]->nc;
    u = (size_t)(9 * o.l->nc * o.in[0]->nc) * CM_WINO_F;
    v = (size_t)(o.l->nz * o.l->ny * most) * CM_WINO_F;
    r->u = cm_allocate(p->c, u + v, sizeof *r->u);
    if (!r->u) return CALOMU_EMEMORY;
    r->v = r->u + u;
    cm_wino_weights(&o, transposed, r->u);
    return CALOMU_OK;
}

static cm_work cm_pass_work_with(const cm_pass *p, int i, int v, const cm_pass_scratch *r)
{
    cm_work o = cm_pass_work(p, i, v);
    o.u = r->u;
    o.scratch = r->v;
    return o;
}

/* Layer i forward: what it keeps, then muon by muon.  y is 0 before, as 5.3 needs.  Layer by layer,
   and not muon by muon through all layers, because a norm needs all muons of what it reads.  In
   inference, where the norms are constants, muon by muon would do; one order serves both, and gives
   the same bits, as no layer but the norm looks beyond its muon. */
calomu_status cm_pass_step(cm_pass *p, int i)
{
    const cm_layer *l = cm_pass_layer(p, i);
    const cm_plain_kind *kind = cm_pass_wino(p, l) ? &cm_wino_kind : &cm_plain_kinds[l->kind];
    calomu_status s = CALOMU_OK;
    cm_pass_scratch r;
    int v;
    p->x[i] = cm_allocate(p->c, cm_layer_size(l) * (size_t)p->muons, sizeof *p->x[i]);
    if (!p->x[i]) return CALOMU_EMEMORY;
    if (l->kind == CM_NORM) s = cm_pass_norm(p, i);
    if (l->kind == CM_MAX_OF) {
        p->saved[i] = cm_allocate(p->c, (size_t)(l->nc * p->muons), sizeof *p->saved[i]);
        if (!p->saved[i]) s = CALOMU_EMEMORY;
    }
    if (s == CALOMU_OK) s = cm_pass_scratch_take(p, i, 0, &r);
    if (s != CALOMU_OK) return s;
    for (v = 0; v < p->muons; v++) {
        cm_work o = cm_pass_work_with(p, i, v, &r);
        kind->forward(&o);
    }
    cm_release(p->c, r.u);
    return CALOMU_OK;
}

/* In inference values go when nobody reads them any more.  In training all stay, as backward needs
   nearly all: x of a convolution for dw, of a norm for G1, of Swish for its slope; only what sums,
   means and concatenations alone read could go.  A layer that reads one twice, as a concatenation
   of x with itself, frees it once: its pointer is NULL then, and to release NULL does nothing. */
static void cm_pass_drop(const cm_pass *p, int i)
{
    int k;
    for (k = 0; k < 3; k++) {
        int x = cm_pass_layer(p, i)->in[k];
        if (x < 0 || p->last[x] != i || x == cm_result_of(p->net->list)) continue;
        cm_release(p->c, p->x[x]);
        p->x[x] = NULL;
    }
}

/* All layers in their order: what a layer reads has been made before it.  The prediction of a muon
   is the one value of the list's result, the tail's neuron, in GeV; a result of more values, which
   those who look into a network may choose, is given whole, muon after muon. */
calomu_status cm_pass_forward(cm_pass *p, double *prediction)
{
    calomu_status s = CALOMU_OK;
    int i, result = cm_result_of(p->net->list);
    size_t n = cm_layer_size(cm_pass_layer(p, result)) * (size_t)p->muons, k;
    for (i = 0; i < p->net->list->n && s == CALOMU_OK; i++) {
        s = cm_pass_step(p, i);
        if (!p->training) cm_pass_drop(p, i);
    }
    for (k = 0; s == CALOMU_OK && k < n; k++) prediction[k] = (double)p->x[result][k];
    return s;
}

/* For those who show a pass layer by layer (tests/aloud.c): how many there are, which is the
   result, and of layer i what it is called, its shape z, x, y, channels, and its values, or NULL
   where they have not been made or are gone. */
int cm_pass_layers(const cm_pass *p) { return p->net->list->n; }
int cm_pass_result(const cm_pass *p) { return cm_result_of(p->net->list); }

const cm_real *cm_pass_values(const cm_pass *p, int i, const char **name, int shape[4])
{
    const cm_layer *l = cm_pass_layer(p, i);
    *name = *l->name ? l->name : cm_kind_names[l->kind];
    shape[0] = l->nz;
    shape[1] = l->nx;
    shape[2] = l->ny;
    shape[3] = l->nc;
    return p->x[i];
}

/* ---- backward */

/* Each muon's part of dL/dw and dL/dbias of one layer, until all are there and can be added in the
   one order of cm_muon_sum.  To add muon after muon to the gradient itself would need no memory,
   but be a sum in rising v, which two threads could not share. */
typedef struct cm_muon_shares {
    cm_real *dw;                     /* [muon][count], or NULL */
    double *dbias;                   /* [muon][output], or NULL */
    double *muon;                    /* [muon] */
    size_t count;
} cm_muon_shares;

/* Whether shares of the muons in the derivatives by its parameters are wanted.  A norm has none of
   muons: its weight is in sums over all of them. */
static int cm_pass_learns(const cm_pass *p, const cm_layer *l)
{
    return *l->name && l->kind != CM_NORM && cm_pass_weight(p, l, 0).dx;
}

/* Memory for the shares, 0 at first.  All muons' at once: 93 MB for the largest layer of the
   paper's network (91,264 weights) at B = 256.  Groups of 16 muons, one after the other, would need
   a sixteenth of it, and a tree of sums under way for every weight. */
static calomu_status cm_shares_take(const cm_pass *p, const cm_layer *l, cm_muon_shares *s)
{
    size_t n = (size_t)p->muons, in = l->in[0] < 0 ? 1 : (size_t)cm_pass_layer(p, l->in[0])->nc;
    memset(s, 0, sizeof *s);
    if (!cm_pass_learns(p, l)) return CALOMU_OK;
    s->count = in * (size_t)l->nc * (cm_pass_wino(p, l) ? 9 * CM_WINO_F
                                     : cm_window_cells(&l->window));
    s->dw = cm_allocate(p->c, n * s->count, sizeof *s->dw);
    if (l->bias) s->dbias = cm_allocate(p->c, n * (size_t)l->nc, sizeof *s->dbias);
    s->muon = cm_allocate(p->c, n, sizeof *s->muon);
    return s->dw && s->muon && (s->dbias || !l->bias) ? CALOMU_OK : CALOMU_EMEMORY;
}

/* dL/dw[k] = sum over muons of their shares: w is in this layer's y of every muon v, and the chain
   rule adds all ways from w to L, sum over v and j:  dL/dy_v(j) dy_v(j)/dw.  That muon v's dL/dy
   may have come through norms, where other muons have a part in it, changes nothing here. */
static double cm_shares_sum(const cm_pass *p, const cm_muon_shares *s, size_t k)
{
    size_t v;
    for (v = 0; v < (size_t)p->muons; v++) s->muon[v] = (double)s->dw[v * s->count + k];
    return cm_muon_sum(s->muon, (size_t)p->muons);
}

/* Forward:   u[f] = sum over kx:  G[f][kx] w[kx]
   w[kx] is in u[f] times G[f][kx], so  dw[kx] += sum over f:  G[f][kx] du[f],  for every input i,
   output c and cell t = (kz, ky).  du is [in][out][t][f], w is [out][in][kz][kx][ky], and 27 are
   the cells of its kernel. */
static void cm_shares_add_wino(const cm_pass *p, const cm_layer *l, const cm_muon_shares *s)
{
    int in = cm_pass_layer(p, l->in[0])->nc, i, c, t, f, kx;
    cm_real *dw = cm_pass_weight(p, l, 0).dx;
    for (i = 0; i < in * l->nc * 9; i++) {
        double sum[3] = { 0, 0, 0 };
        for (f = 0; f < CM_WINO_F; f++) {
            double du = cm_shares_sum(p, s, (size_t)(i * CM_WINO_F + f));
            for (kx = 0; kx < 3; kx++) sum[kx] = cm_fmad(cm_wino_g[f][kx], du, sum[kx]);
        }
        t = i % 9;
        c = i / 9 % l->nc;
        for (kx = 0; kx < 3; kx++)
            dw[(c * in + i / 9 / l->nc) * 27 + t / 3 * 9 + kx * 3 + t % 3] += (cm_real)sum[kx];
    }
}

/* The sums are rounded to the type of the gradient, and added to what is there: 0 at the start of
   an update, unless a caller adds several batches.  One rounding where the gradient was 0, however
   many the muons: dL/dw is off by the roundings within the shares and by this one. */
static void cm_shares_add(const cm_pass *p, const cm_layer *l, const cm_muon_shares *s)
{
    cm_real *dw = cm_pass_weight(p, l, 0).dx, *dbias;
    size_t k, v;
    int c;
    if (cm_pass_wino(p, l)) cm_shares_add_wino(p, l, s);
    else for (k = 0; k < s->count; k++) dw[k] += (cm_real)cm_shares_sum(p, s, k);
    for (c = 0; s->dbias && c < l->nc; c++) {
        dbias = cm_pass_weight(p, l, 1).dx;
        for (v = 0; v < (size_t)p->muons; v++) s->muon[v] = s->dbias[v * (size_t)l->nc + (size_t)c];
        dbias[c] += (cm_real)cm_muon_sum(s->muon, (size_t)p->muons);
    }
}

/* Layer i hands its derivatives on: memory for dx of what it reads where it is the first to add and
   somebody needs it, what depends on all muons, then muon by muon, then the sums of the shares.
   New memory is 0, so the first adds to 0 like any other.  To the dx of what block 1 reads the sum
   with the gated path adds first, as the list is gone through from its end, and the norm last: this
   order of the sum is part of the definition as well. */
static calomu_status cm_pass_step_back(cm_pass *p, int i)
{
    const cm_layer *l = cm_pass_layer(p, i);
    const cm_plain_kind *kind = cm_pass_wino(p, l) ? &cm_wino_kind : &cm_plain_kinds[l->kind];
    calomu_status s = CALOMU_OK;
    cm_muon_shares shares;
    cm_pass_scratch r = { NULL, NULL };
    int k, v;
    for (k = 0; k < 3; k++) {
        int x = l->in[k];
        if (x < 0 || p->dx[x] || !p->needs[x]) continue;
        p->dx[x] = cm_allocate(p->c, cm_layer_size(cm_pass_layer(p, x)) * (size_t)p->muons,
                               sizeof *p->dx[x]);
        if (!p->dx[x]) return CALOMU_EMEMORY;
    }
    s = cm_shares_take(p, l, &shares);
    if (s == CALOMU_OK && l->kind == CM_NORM) s = cm_pass_norm_back(p, i);
    if (s == CALOMU_OK) s = cm_pass_scratch_take(p, i, 1, &r);
    for (v = 0; s == CALOMU_OK && v < p->muons; v++) {
        cm_work o = cm_pass_work_with(p, i, v, &r);
        if (shares.dw) o.dw = shares.dw + (size_t)v * shares.count;
        if (shares.dbias) o.dbias = shares.dbias + (size_t)(v * l->nc);
        kind->backward(&o);
    }
    if (s == CALOMU_OK && shares.dw) cm_shares_add(p, l, &shares);
    cm_release(p->c, r.u);
    cm_release(p->c, shares.dw);
    cm_release(p->c, shares.dbias);
    cm_release(p->c, shares.muon);
    return s;
}

/* dp: dL/d(prediction) of every muon, with which the chain begins.  Layers behind which nothing is
   learned have no dx, and are passed over; what has been handed on is freed at once. */
calomu_status cm_pass_backward(cm_pass *p, const double *dp)
{
    calomu_status s = CALOMU_OK;
    int i, last = cm_result_of(p->net->list);
    size_t n = cm_layer_size(cm_pass_layer(p, last)) * (size_t)p->muons, k;
    p->dx[last] = cm_allocate(p->c, n, sizeof *p->dx[last]);
    if (!p->dx[last]) return CALOMU_EMEMORY;
    for (k = 0; k < n; k++) p->dx[last][k] = (cm_real)dp[k];
    for (i = last; i >= 0 && s == CALOMU_OK; i--) {
        if (p->dx[i]) s = cm_pass_step_back(p, i);
        cm_release(p->c, p->x[i]);
        cm_release(p->c, p->dx[i]);
        p->x[i] = p->dx[i] = NULL;
    }
    return s;
}

/* ============================================================================================
   6 Loss (Sec. 3.2.2)
   ============================================================================================

   L = 1/B sum over muons:  w(y) l(y, p) / y,  y the true energy in GeV, p the prediction (Eq. 1). l
   is the squared error (y - p)^2, and above a threshold t the straight line that continues it, Eq.
   (2):  l = t + 2 sqrt(t) (|y - p| - sqrt(t)).  At |y - p| = sqrt(t) both are t and rise with 2
   sqrt(t): value and slope go on without a step, and beyond it a muon in the tail of the
   distribution pulls as hard as one at the threshold and no harder (P. J. Huber, Ann. Math.
   Statist. 35 (1964) 73).  The straight line is the tangent: d/de e^2 = 2e, at e = sqrt(t) 2
   sqrt(t).  Divided by y, since the variance of a shower's measurement grows like the energy.  w,
   Eq. (3), takes weight from energies above those that are evaluated.  Not divided by the sum of w:
   "averaged over the data points in the batch".

   Example: y = 1000, p = 1100 GeV, w = 0.999998, here taken as 1.  As a square l = 100^2, the
   muon's part of L is 10, its slope 2*100/1000 = 0.2.  With a threshold t = 2500 GeV^2, of which
   the root is 50 GeV, l = 2500 + 100*(100 - 50) = 7500, the part 7.5 and the slope 2*50/1000 = 0.1:
   that of p = 1050.

   The threshold is of a bin in y, because one for all energies would cut the muons of high energy
   only: errors grow with y, and an error that is rare at 200 GeV is usual at 4000. */

/* Eq. (3): 1 - sigmoid((E - centre)/width) = 1/(1 + exp((E - centre)/width)).  centre 5000 GeV,
   width 300 GeV below and 600 GeV above: a quick fall beyond the range of evaluation, and a slow
   tail.  0.966 at 4000 GeV, 0.841 at 4500, 1/2 at 5000, 0.269 at 5600, 0.0067 at 8000. */
double cm_loss_weight(const calomu_train_options *o, double truth)
{
    double width = truth > o->weight_centre ? o->weight_high : o->weight_low;
    return 1 / (1 + cm_exp_double((truth - o->weight_centre) / width));
}

/* Bin of a true energy, lower edge inclusive; -1: outside all.  The paper's five equal bins over 50
   to 8000 GeV are 1590 GeV wide.  Edges are computed here whenever they are needed, in one way, so
   that no two callers disagree about a muon that lies on one. */
static int cm_loss_bin(const calomu_train_options *o, double truth)
{
    double step = (o->bin_high - o->bin_low) / o->bins;
    int j;
    for (j = 0; j < o->bins; j++)
        if (truth >= cm_fmad(j, step, o->bin_low)
            && truth < cm_fmad(j + 1, step, o->bin_low)) return j;
    return -1;
}

/* From the same difference as the loss of cm_loss_muon: the muon whose error is the threshold must
   not come out above it by a rounding. */
static double cm_squared_error(const double *truth, const double *pred, int i)
{
    double d = pred[i] - truth[i];
    return d * d;
}

/* k-th smallest (from 0) squared error of the muons of bin j: bisection over the bit patterns of
   non-negative doubles, which are in the order of the values.  63 times it is counted how many are
   at or below the middle.  It needs no memory and cannot fail, where a sorted copy would need room
   for a batch; n is a batch, so speed does not matter.  Without the sign bit a NaN's pattern is
   above that of infinity. */
static double cm_loss_kth(const calomu_train_options *o, const double *truth, const double *pred,
                          int n, int j, int k)
{
    uint64_t lo = 0, hi = UINT64_C(0x7fffffffffffffff);
    double value;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2, bits;
        int i, below = 0;            /* entries with pattern <= mid */
        for (i = 0; i < n; i++) {
            double e;
            if (cm_loss_bin(o, truth[i]) != j) continue;
            e = cm_squared_error(truth, pred, i);
            memcpy(&bits, &e, sizeof bits);
            below += (bits & UINT64_C(0x7fffffffffffffff)) <= mid;
        }
        if (below > k) hi = mid;
        else lo = mid + 1;
    }
    memcpy(&value, &lo, sizeof value);
    return value;
}

/* The threshold of a bin, "the 68th percentile", followed as a running average (Sec. 3.2.2):
       t = value in the first batch that has a muon in the bin, then  t += 0.1 (value - t),
   the paper's t <- 0.9 t + 0.1 value.  Averaged, because some 51 muons of a batch of 256 are in a
   bin.  value is the (1 + round(0.68 (m - 1)))-th smallest squared error of its m muons, the index
   of the authors' code, not interpolated; counted from 0 here: of m = 51 muons number 34, with 34
   below it and 16 above.  rint rounds halves to even.  A bin without a muon keeps its threshold.
   t < 0: not set yet.  A batch that is k batches old has the weight 0.9^k of the present one, so
   the average is of about 10 batches. */
static void cm_loss_update(const calomu_train_options *o, const double *truth, const double *pred,
                           int n, double *thresholds)
{
    int i, j;
    for (j = 0; j < o->bins; j++) {
        int m = 0;
        double value;
        for (i = 0; i < n; i++) m += cm_loss_bin(o, truth[i]) == j;
        if (m == 0) continue;
        value = cm_loss_kth(o, truth, pred, n, j, (int)rint(o->quantile * (m - 1)));
        thresholds[j] = thresholds[j] < 0 ? value
                                          : cm_fmad(0.1, value - thresholds[j], thresholds[j]);
    }
}

/* Of one muon; *slope: its derivative by the prediction.  With d = p - y and f = w/y:
       f d^2                                slope  f 2 d
       f (t + 2 sqrt(t) (|d| - sqrt(t)))    slope  f 2 sqrt(t) sign(d)
   The threshold is a constant for the derivative, although p has a part in it.  Muons outside all
   bins, and of a bin whose threshold is not set yet, keep the squared error. */
static double cm_loss_muon(const calomu_train_options *o, double truth, double pred,
                           const double *thresholds, double *slope)
{
    double d = pred - truth, loss = d * d, f = cm_loss_weight(o, truth) / truth;
    int j = cm_loss_bin(o, truth);
    *slope = f * (2 * d);
    if (j >= 0 && thresholds[j] >= 0 && loss > thresholds[j]) {
        double root = sqrt(thresholds[j]);       /* Eq. (2): t + 2 sqrt(t) (|y - p| - sqrt t) */
        loss = cm_fmad(2 * root, fabs(d) - root, thresholds[j]);
        *slope = f * (d > 0 ? 2 * root : -2 * root);
    }
    return f * loss;
}

/* In training the thresholds take in the batch before they are used on it; validation leaves them
   as they are.  The sum over muons is that of cm_muon_sum, group by group of CM_LANES.
   L = 1/n sum of ..., so a muon's derivative is its slope divided by n.  dp (NULL: not wanted) is
   what cm_pass_backward of 5.9 begins with. */
double cm_loss(const calomu_train_options *o, const double *truth, const double *pred, int n,
               double *thresholds, int update, double *dp)
{
    cm_tree sum = { { 0 }, 0 };
    int first, i;
    if (update) cm_loss_update(o, truth, pred, n, thresholds);
    for (first = 0; first < n; first += CM_LANES) {
        double s[CM_LANES] = { 0 }, slope;
        for (i = first; i < n && i < first + CM_LANES; i++) {
            s[i - first] = cm_loss_muon(o, truth[i], pred[i], thresholds, &slope);
            if (dp) dp[i] = slope / n;
        }
        cm_tree_add(&sum, s);
    }
    return cm_tree_sum(&sum) / n;
}

/* ============================================================================================
   7 Adam (Kingma and Ba, arXiv:1412.6980) with varying beta1 (Sec. 3.2.3)
   ============================================================================================

   With the gradient g of a weight w in update t = 1, 2, ...:
       m = beta1 m + (1 - beta1) g              a running mean of g,
       v = beta2 v + (1 - beta2) g^2            and of its square,
       w = w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
   m and v start at 0; after t updates with one g they are 1 - beta^t of what they should be, hence
   the divisions.  So the first step of every weight is lr long, whatever the size of its gradient:
   of g = 0.5 with beta1 = 0.95, m = 0.025 and v = 0.00025, divided by 0.05 and 0.001 they are 0.5
   and 0.25, and 0.5/sqrt(0.25) = 1.  After 100 updates 1 - beta1^t is 0.994, but 1 - beta2^t 0.095.
   beta2 = 0.999, eps = 1e-8; no weight decay and no clipping of gradients.  beta1 changes from
   update to update (8, cm_plan_rate); the correction takes beta1 of now to the t-th power, as
   PyTorch's Adam does, though the m that it corrects was made with others. */

/* b^t by squaring: pow of libm differs from machine to machine.  t in binary says which of b, b^2,
   b^4, ... are factors; a power that falls below all doubles is rightly 0. */
static double cm_power(double b, uint64_t t)
{
    double p = 1;
    for (; t; t >>= 1, b *= b)
        if (t & 1) p *= b;
    return p;
}

#define CM_BETA2 0.999

/* What corrects the moments of update `step` for their start at zero: lr/(1 - beta1^t), and the
   root of 1 - beta2^t. */
static void cm_adam_rates(double lr, double beta1, uint64_t step, double *rate, double *root)
{
    *rate = lr / (1 - cm_power(beta1, step));
    *root = sqrt(1 - cm_power(CM_BETA2, step));
}

/* In double, rounded to the weights' type three times: m, v, w.  eps is added behind the division
   by the root, as in PyTorch; added before, as in the shorter form that Adam's paper gives too, it
   would weigh more in the first updates.  A weight depends on none but its own numbers, so the
   order of the weights does not matter. */
void cm_adam(cm_real *w, const cm_real *dw, cm_real *m, cm_real *v, size_t n, double lr,
             double beta1, uint64_t step)
{
    const double beta2 = CM_BETA2, eps = 1e-8;
    double rate, root;
    size_t i;
    cm_adam_rates(lr, beta1, step, &rate, &root);
    for (i = 0; i < n; i++) {
        double d = (double)dw[i];
        m[i] = (cm_real)cm_fmad(beta1, (double)m[i], (1 - beta1) * d);
        v[i] = (cm_real)cm_fmad(beta2, (double)v[i], (1 - beta2) * d * d);
        w[i] = (cm_real)((double)w[i] - rate * (double)m[i] / (sqrt((double)v[i]) / root + eps));
    }
}

/* ============================================================================================
   8 Training: folds, learning rates, decisions (Secs. 3.2.3, 3.2.4)
   ============================================================================================ */

/* A training in one paragraph.  Muons are cut into folds; an epoch goes once through the training
   folds, in an order drawn anew, batch by batch: forward (5.9), loss (6), backward (5.9), Adam (7).
   After an epoch the loss of the monitored fold, which is never trained on, decides whether this
   state is the best so far, and what the rates do.  Here are the decisions; the loop that carries
   them out, with its files and signals, is the trainer (13). */

/* ---------------------------------------------------------------- plan: folds, shuffles */

/* Muons are cut into folds of equal size, the paper's 886,716 into 36 of 24,631; what is left over
   is unused.  Fold 0 is held out for comparing models, one fold is monitored, others trained on:
       member                    0       1         2        3        4
       monitors                  1       2         3        4        5
       all-fold, trains on       34 others of 1..35
       unique-fold, trains on    2..8    1, 9..14  15..21   22..28   29..35
   A fold that one member monitors may train another ("folds can be used to monitor performance for
   one model and also to train a different model", Sec. 3.2.4).  Where models are compared on muons
   of another file (holdout 0) fold 0 is trained on as well; where the validation has muons of its
   own (separate), so is the fold that the member would monitor. */

enum { CM_MEMBERS = 5 };             /* of the paper's ensemble; they share the unique folds */

/* "member k takes, in order, the first 7 of folds 1..35 that it does not monitor and no earlier
   member trains on" (Sec. 3.2.4); 7 is a fifth of the folds that are not held out.  To know what
   earlier members have taken, they are gone through from member 0; nothing has to be agreed on
   between the trainings, which may run on different machines. */
static void cm_folds_unique(const calomu_train_options *o, unsigned char *role)
{
    enum { TAKEN = 3 };
    int32_t quota = (o->folds - o->holdout) / CM_MEMBERS, k, f, left;
    for (k = 0; k <= o->member; k++)
        for (f = o->holdout, left = quota; f < o->folds && left > 0; f++) {
            if (f == k + 1 || role[f] == TAKEN) continue;
            role[f] = k == o->member ? CM_FOLD_TRAINING : TAKEN;
            left--;
        }
    for (f = 0; f < o->folds; f++)
        if (role[f] == TAKEN) role[f] = CM_FOLD_UNUSED;
}

/* Whatever leaves nothing to train on is an error with its reason and not a training without a
   batch.  Batches never cross folds, and the last short one of a fold is dropped: a fold smaller
   than a batch has none. */
calomu_status cm_plan_folds(calomu *c, const calomu_train_options *o, uint64_t n_events,
                            unsigned char *role)
{
    uint64_t size = n_events / (uint64_t)o->folds;
    int32_t f, n = 0;
    memset(role, CM_FOLD_UNUSED, (size_t)o->folds);
    if (o->member + 1 >= o->folds)
        return cm_fail(c, CALOMU_EUSAGE, "member %d monitors fold %d, but the folds are 0..%d",
                       (int)o->member, (int)o->member + 1, (int)o->folds - 1);
    if (o->unique && o->separate)
        return cm_fail(c, CALOMU_EUSAGE, "unique-fold training monitors a fold, and no validation"
                       " set of its own");
    if (o->unique && o->member >= CM_MEMBERS)
        return cm_fail(c, CALOMU_EUSAGE, "unique-fold training has members 0..%d, not %d",
                       CM_MEMBERS - 1, (int)o->member);
    if (o->unique)
        cm_folds_unique(o, role);
    else
        memset(role + o->holdout, CM_FOLD_TRAINING, (size_t)(o->folds - o->holdout));
    if (!o->separate) role[o->member + 1] = CM_FOLD_MONITORED;
    for (f = 0; f < o->folds; f++) n += role[f] == CM_FOLD_TRAINING;
    if (n == 0)
        return cm_fail(c, CALOMU_EUSAGE, "member %d of %d folds%s has no fold to train on: use more"
                       " folds", (int)o->member, (int)o->folds, o->unique ? ", unique," : "");
    if (size < (uint64_t)o->batch)
        return cm_fail(c, CALOMU_EUSAGE, "no training fold holds a full batch: %llu muons in %d"
                       " folds are %llu a fold, the batch is %d: use fewer folds or a smaller one",
                       (unsigned long long)n_events, (int)o->folds, (unsigned long long)size,
                       (int)o->batch);
    return CALOMU_OK;
}

/* Members of an ensemble start from different weights and see different orders.  The factor is 2^64
   divided by the golden ratio, 11,400,714,819,323,198,485: seeds 1 and 2 of a user do not meet
   those of members, as they would with seed + member, where member 1 of seed 1 would be member 0 of
   2. */
static uint64_t cm_train_seed(const calomu_train_options *o)
{
    return o->seed + (uint64_t)o->member * 0x9E3779B97F4A7C15u;
}

/* Streams of the shuffles lie far from those of the initialisation (parameters count from 0); fold
   -1 is the order of the folds.  Bit 62, then the epoch in bits 24 to 47, then the fold: no two
   shuffles of a training share a stream, whatever was drawn before.  Epochs and folds are below
   2^24, which the check of a training's options sees to (cm_train_fields, 13). */
static uint64_t cm_shuffle_stream(int32_t epoch, int32_t fold)
{
    return (uint64_t)1 << 62 | (uint64_t)epoch << 24 | (uint64_t)(fold + 1);
}

/* Of the order of the muons before the cut, which all members of an ensemble share. */
#define CM_CUT_STREAM ((uint64_t)1 << 61)

/* Uniform in 0..n-1 without bias.  x % n alone would prefer the small remainders where n does not
   divide 2^64; so the last 2^64 % n numbers, no full round of remainders, are drawn again.  With
   numbers of 0..9 and n = 4 it would be 8 and 9, which would give 0 and 1 a third chance.  For any
   n of muons that is next to none: below n/2^64, 5e-14 of a million.  2^64 itself does not fit, so
   2^64 % n is ((2^64 - 1) % n + 1) % n. */
static uint64_t cm_below(uint64_t seed, uint64_t stream, uint64_t *counter, uint64_t n)
{
    uint64_t x, excess = (UINT64_MAX % n + 1) % n;
    uint32_t w[4];
    do {
        calomu_random(seed, stream, (*counter)++, w);
        x = (uint64_t)w[0] << 32 | w[1];
    } while (x > UINT64_MAX - excess);
    return x % n;
}

/* R. A. Fisher, F. Yates; D. E. Knuth, "The Art of Computer Programming" 2, 3.4.2, algorithm P: the
   last place gets one of all, the next one of those that remain; every order is equally likely,
   with 1/n for the last place, 1/(n - 1) for the next, in all 1/n!.
   The order follows from (seed, stream) alone, so a training that goes on from a checkpoint makes
   it again instead of reading it. */
void cm_plan_shuffle(uint64_t seed, uint64_t stream, uint64_t *order, uint64_t n)
{
    uint64_t i, k, old, counter = 0;
    for (i = 0; i < n; i++) order[i] = i;
    for (i = n; i > 1; i--) {
        k = cm_below(seed, stream, &counter, i);
        old = order[k];
        order[k] = order[i - 1];
        order[i - 1] = old;
    }
}

/* ---------------------------------------------------------------- plan: rates, decisions */

/* beta1 of Adam where the LR is low and where it is high (Sec. 3.2.3). */
static const double cm_beta_high = 0.95, cm_beta_low = 0.85;

/* end + (start - end)(1 + cos(pi t/T))/2: `start` at t = 0, halfway at T/2, level at both ends.  Of
   t = 0 .. T - 1 the last does not quite reach `end`, which is the start of what follows. */
static double cm_cosine(double start, double end, uint64_t t, uint64_t T)
{
    double half = (1 + cm_cos_double(3.14159265358979324 * ((double)t / (double)T))) / 2;
    return cm_fmad(start - end, half, end);
}

/* "LR max/100 -> max and beta1 0.95 -> 0.85 over 2 epochs, then max -> max/10 and 0.85 -> 0.95
   over 18": the first tenth of the updates and the rest (1cycle, L. N. Smith, N. Topin,
   arXiv:1708.07120).  While the LR is high beta1 is low: long steps, short memory of the direction.
   A tenth of the updates and not two epochs, so that a cycle of other length keeps its form.  The
   paper's, 3,264 updates an epoch:
       epochs done     0        1        2        6.5      11        20
       LR            3.0e-7   1.52e-5  3.0e-5   2.60e-5   1.65e-5   3.0e-6
       beta1         0.95     0.90     0.85     0.865     0.90      0.95 */
void cm_plan_rate(const calomu_train_options *o, uint64_t per_epoch, uint64_t t, double *lr,
                  double *beta1)
{
    uint64_t all = (uint64_t)o->cycle_epochs * per_epoch, rise = all / 10;
    if (t < rise) {
        *lr = cm_cosine(o->lr / 100, o->lr, t, rise);
        *beta1 = cm_cosine(cm_beta_high, cm_beta_low, t, rise);
    } else {
        *lr = cm_cosine(o->lr, o->lr / 10, t - rise, all - rise);
        *beta1 = cm_cosine(cm_beta_low, cm_beta_high, t - rise, all - rise);
    }
}

/* "Default max = min(5e-3, 3e-5 * 65280 / updates of the 1cycle)".  The paper's 3e-5 belongs to its
   65,280 updates, 96 batches of 256 in each of 34 folds, for 20 epochs.  Adam moves a weight by
   about the LR in an update, so that with fewer updates the same way needs a higher LR: 1.46e-4 for
   the 7 folds of a unique-fold member, 20 * 7 * 96 = 13,440 updates; 5e-3 is where the authors'
   code begins.  A tenth for weights that have learnt already: a features-only network of 7,000
   GEANT4 muons, trained on with 1,250 more, ends 3% above the validation loss that it has untouched
   with all of it, 1% with a tenth. */
static double cm_default_lr(const calomu_train_options *o, uint64_t per_epoch)
{
    double lr = 3e-5 * 65280 / ((double)o->cycle_epochs * (double)per_epoch);
    if (!(lr < 5e-3)) lr = 5e-3;
    return o->started ? lr / 10 : lr;
}

/* After an epoch: the end, or the next one and what it starts from.  `waited` and `idle` count the
   epochs after the 1cycle without improvement; a reload restarts the first only.  So with a
   patience of 2 and stop_after 10 the LR is halved after 2, 4, 6 and 8 idle epochs, and after 10
   the training ends. */
static int cm_plan_next(const calomu_train_options *o, cm_plan *plan)
{
    int what = 0;
    plan->finished = plan->epoch >= o->epochs || plan->idle >= o->stop_after;
    if (plan->finished) return 0;
    if (plan->epoch == o->cycle_epochs) {
        plan->lr = plan->best_lr;
        plan->beta1 = plan->best_beta1;
        what = CM_PLAN_RELOAD;
    } else if (plan->waited >= o->patience) {
        plan->lr /= 2;
        plan->beta1 = cm_beta_high;
        plan->waited = 0;
        what = CM_PLAN_RELOAD;
    }
    plan->epoch++;
    return what;
}

/* Within the 1cycle an epoch only competes for the best state.  At its end, and then after every
   `patience` epochs without improvement, the best state comes back: the first time with its own
   rates, later with half of the LR now in use and beta1 0.95.  The counter of `stop_after`
   restarts on improvement only.  Half of the LR now in use, not of the best state's: the best state
   may be from before several halvings, and its LR would come back for ever.  Better is strictly
   below; a loss that is not a number is never better than one that is. */
int cm_plan_epoch(const calomu_train_options *o, cm_plan *plan, double validation_loss)
{
    int what = 0;
    if (plan->best_epoch == 0 || validation_loss < plan->best_loss) {
        plan->best_epoch = plan->epoch;
        plan->best_loss = validation_loss;
        plan->best_lr = plan->lr;
        plan->best_beta1 = plan->beta1;
        plan->waited = plan->idle = 0;
        what = CM_PLAN_BEST;
    } else if (plan->epoch > o->cycle_epochs) {
        plan->waited++;
        plan->idle++;
    }
    return what | cm_plan_next(o, plan);
}

/* ============================================================================================
   9 Debiasing and resolution (Secs. 4.1, 4.2)
   ============================================================================================

   What comes of predictions p of muons whose true energy y is known, in three steps:
     1. a straight line p = intercept + slope y through the mean predictions in bins of y, fitted on
        validation data, and its inverse applied to every prediction;
     2. in each bin the resolution, Eq. (4), from median and width of the debiased predictions;
     3. its combination with a tracker's resolution, and the mean over the bins of what the
        calorimeter improves (MI), the number by which the paper compares its models.
   Data that a line was fitted to and data that it is applied to may be the same, but need not.

   Example, one bin at 1000 GeV.  The line of step 1 has slope 0.9 and intercept 60 GeV, so a
   prediction of 960 becomes (960 - 60)/0.9 = 1000.  Debiased predictions of median 980 and half
   width 150 GeV give a resolution of sqrt(20^2 + 150^2)/1000 = 15.1%; a tracker has 20% there, both
   together 12.1%, and the bin's part of MI is 20 - 12.1 = 7.9 percent points.

   Bins are of the true energy, so the number that is wanted is at hand when a muon is put in one:
   what is measured is how predictions scatter about a known energy, as in a test beam.  Bins of the
   prediction would answer another question, that of a user who has one prediction and asks for the
   truth; the answer depends on the spectrum of the muons, and this one does not, within a bin.

   All sums are in double and in the order of the rows of the file, but for the medians and
   quantiles, which need no sums.  So the result is the same on every machine, and the same muons in
   another order give a line that may differ in its last bits and, with one line, the same
   resolution. */

enum { CM_EVAL_BINS = 100000 };      /* more make no sense; bounds the memory taken */

/* The paper's: 100 to 4000 GeV, 20 bins for the resolution, 39 of 100 GeV for the line, and a
   tracker of 20% at 1 TeV. */
calomu_eval_options calomu_eval_options_default(void)
{
    calomu_eval_options o;
    memset(&o, 0, sizeof o);
    o.low = 100;
    o.high = 4000;
    o.bins = 20;
    o.fit_bins = 39;
    o.points = -1;
    o.tracker = 0.2;
    o.errors = 200;
    return o;
}

/* What may come from a command line.  Each test is written so that a NaN fails it; two bins at
   least for the fit, as a line has two numbers, and not one resampling, whose means have no
   spread.  A low of 0 is allowed: a bin begins there, no muon has that energy. */
static calomu_status cm_eval_check(calomu *c, const calomu_eval_options *o)
{
    if (!(o->low >= 0 && o->low < o->high && isfinite(o->high)))
        return cm_fail(c, CALOMU_EUSAGE, "the range of evaluation must rise from 0 GeV or more,"
                       " not %g to %g GeV", o->low, o->high);
    if (o->bins < 1 || o->bins > CM_EVAL_BINS)
        return cm_fail(c, CALOMU_EUSAGE, "%d bins of resolution: give 1 to %d", (int)o->bins,
                       (int)CM_EVAL_BINS);
    if (o->fit_bins < 2 || o->fit_bins > CM_EVAL_BINS)
        return cm_fail(c, CALOMU_EUSAGE, "%d bins of the debiasing fit: give 2 to %d",
                       (int)o->fit_bins, (int)CM_EVAL_BINS);
    if (o->points < -1 || o->points > 1)
        return cm_fail(c, CALOMU_EUSAGE, "fixed points: give 1 (yes), 0 (no) or -1 (by itself),"
                       " not %d", (int)o->points);
    if (!(o->tracker > 0 && o->tracker <= 100))
        return cm_fail(c, CALOMU_EUSAGE, "the tracker's relative resolution per TeV must be above"
                       " 0 and at most 100, not %g", o->tracker);
    if (o->bootstrap < 0 || o->bootstrap == 1)
        return cm_fail(c, CALOMU_EUSAGE, "%d resamplings of the bootstrap: give 0 (none) or 2 and"
                       " more", (int)o->bootstrap);
    if (o->errors < 0 || o->errors == 1)
        return cm_fail(c, CALOMU_EUSAGE, "%d resamplings for errors: give 0 (none) or 2 and more",
                       (int)o->errors);
    return CALOMU_OK;
}

/* Rows count from 1, as a person counts the lines behind a header.  A prediction may be negative,
   which no true energy is: no activation bounds the network's last neuron. */
static calomu_status cm_eval_rows(calomu *c, const double *truth, const double *prediction,
                                  size_t n)
{
    size_t i;
    if (n == 0) return cm_fail(c, CALOMU_EFORMAT, "no muons to evaluate");
    for (i = 0; i < n; i++) {
        if (!isfinite(truth[i]) || truth[i] <= 0)
            return cm_fail(c, CALOMU_EFORMAT, "row %zu of %zu: true energy %g: evaluation needs"
                           " one that is finite and above 0 GeV", i + 1, n, truth[i]);
        if (!isfinite(prediction[i]))
            return cm_fail(c, CALOMU_EFORMAT, "row %zu of %zu: the prediction %g is not finite",
                           i + 1, n, prediction[i]);
    }
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- order and percentiles */

/* A heap is an array in which the children of x[i] are x[2i + 1] and x[2i + 2], and no parent is
   below its children, so that the largest is x[0] (J. W. J. Williams, CACM 7, 1964).  Here node i
   of n may be below its children, and is moved down until it is not. */
static void cm_sift(double *x, size_t i, size_t n)
{
    const double moved = x[i];
    /* i < n/2 has a left child 2i + 1 < n, and 2i + 2 cannot overflow. */
    while (i < n / 2) {
        size_t child = 2 * i + 1;
        if (child + 1 < n && x[child] < x[child + 1]) child++;
        if (!(moved < x[child])) break;
        x[i] = x[child];
        i = child;
    }
    x[i] = moved;
}

/* Heap sort: in place and O(n log n) on any input, where the C library's qsort promises neither.
   From the last parent to the first the array becomes a heap; then the largest goes behind the
   rest, again and again.  3 1 2 5 4: heap 5 4 2 1 3 (5 above 4 and 2, 4 above 1 and 3); 5 to the
   end leaves 4 3 2 1 | 5, then 3 1 2 | 4 5, 2 1 | 3 4 5.  Equal values cannot be told apart, so
   that it does not keep their order is no loss.  The values are finite (cm_eval_rows), so < orders
   them all. */
static void cm_sort(double *x, size_t n)
{
    size_t i;
    for (i = n / 2; i > 0; i--) cm_sift(x, i - 1, n);
    for (i = n; i > 1; i--) {
        const double largest = x[0];
        x[0] = x[i - 1];
        x[i - 1] = largest;
        cm_sift(x, 0, i - 1);
    }
}

/* The q-quantile of n > 0 sorted values, linear between neighbours (numpy's default): q (n - 1) is
   between places i and i + 1, by t, and the result x[i] + t (x[i + 1] - x[i]).  Of 5
   values the 0.84135-quantile is at 3.3654: x[3] and 0.3654 of the way to x[4].  Taken from the
   nearer neighbour, so that equal neighbours give their own value and the result never falls as q
   rises; in halves, so that values near the largest double do not overflow.  Halving and doubling
   are exact but for subnormal numbers, which energies in GeV are not. */
static double cm_quantile(const double *x, size_t n, double q)
{
    const double at = q * (double)(n - 1);
    const size_t i = (size_t)at;
    const double t = at - (double)i;
    double step;
    if (i + 1 >= n) return x[n - 1];
    step = x[i + 1] / 2 - x[i] / 2;
    if (t < 0.5) return 2 * cm_fmad(step, t, x[i] / 2);
    return 2 * cm_fmad(step, t - 1, x[i + 1] / 2);
}

/* ---------------------------------------------------------------- muons by true energy */

/* Bins of true energy and, bin by bin, the muons in them in the order of their rows.  Bin b has the
   muons start[b] to start[b + 1] - 1 of truth and prediction: one array for all bins, whose sizes
   are known only when the muons have been counted. */
typedef struct cm_groups {
    int bins;
    double *edge;                    /* bins + 1 edges; at fixed points the bins energies */
    size_t *start;                   /* bins + 1: where the muons of a bin begin */
    double *truth, *prediction;
} cm_groups;

/* Which edge belongs to a bin: the lower for the line, the upper for the resolution, as in the
   authors' analysis; at fixed points a bin is one energy.  It matters for true energies that are
   round numbers: the edges of the fit are 100, 200, 300 GeV, and 200 is in the second bin; those of
   20 bins are 100, 295, 490 GeV, and 295 is in the first, 100 in none. */
typedef enum cm_side { CM_LOW_INSIDE, CM_HIGH_INSIDE, CM_POINTS } cm_side;

/* Also of one that is half made: what was not allocated is NULL. */
static void cm_groups_free(calomu *c, cm_groups *g)
{
    cm_release(c, g->edge);
    cm_release(c, g->start);
    cm_release(c, g->truth);
    cm_release(c, g->prediction);
}

/* The bin of energy e, or -1: [a, b) with CM_LOW_INSIDE, (a, b] with CM_HIGH_INSIDE.  By bisection
   of the edges: (e - low)/width would be faster and, rounded, put an energy on an edge on either
   side.  At fixed points e is one of the energies.  The 21 edges of 20 bins take 5 comparisons.  An
   energy below all edges ends with below = -1, one above all with below = bins: neither is a bin.
   */
static int cm_groups_find(const cm_groups *g, cm_side side, double e)
{
    int below = -1, above = g->bins + (side != CM_POINTS);
    /* edge[below] is on the lower side of e, edge[above] is not; both ends are sentinels. */
    while (above - below > 1) {
        const int middle = below + (above - below) / 2;
        if (side == CM_HIGH_INSIDE ? g->edge[middle] < e : g->edge[middle] <= e) below = middle;
        else above = middle;
    }
    return below < g->bins ? below : -1;
}

/* Sorts the muons into the bins of g->edge, keeping their order (counting sort): bins are counted,
   the counts become places where each begins, and then every muon goes to the next place of its
   bin.  Of counts 2, 0, 3 the places are 0, 2, 2, and in the end 2, 2, 5: where each bin ends and
   the next begins.  Muons outside all bins are left out of both.  Two passes over n muons and no
   comparison between them, where sorting would take n log n.  The order is kept because sums over a
   bin, as all sums, have one: that of the rows of the file. */
static calomu_status cm_groups_fill(calomu *c, cm_groups *g, cm_side side, const double *truth,
                                    const double *prediction, size_t n)
{
    size_t i, inside = 0;
    int b;
    /* While filling, start[b + 1] is where bin b goes on; in the end it is where b ends. */
    g->start = cm_allocate(c, (size_t)g->bins + 1, sizeof *g->start);
    g->truth = cm_allocate(c, n, sizeof *g->truth);
    g->prediction = cm_allocate(c, n, sizeof *g->prediction);
    if (!g->start || !g->truth || !g->prediction) return CALOMU_EMEMORY;
    for (i = 0; i < n; i++) {
        b = cm_groups_find(g, side, truth[i]);
        if (b >= 0) g->start[b + 1]++;
    }
    for (b = 0; b < g->bins; b++) {
        const size_t count = g->start[b + 1];
        g->start[b + 1] = inside;
        inside += count;
    }
    for (i = 0; i < n; i++) {
        b = cm_groups_find(g, side, truth[i]);
        if (b < 0) continue;
        g->truth[g->start[b + 1]] = truth[i];
        g->prediction[g->start[b + 1]++] = prediction[i];
    }
    return CALOMU_OK;
}

/* Equal bins over [low, high].  The last edge is `high` itself and not low + bins * width, which
   may round to less.  A failure leaves g to cm_groups_free. */
static calomu_status cm_groups_bins(calomu *c, cm_groups *g, const calomu_eval_options *o,
                                    int bins)
{
    const double width = (o->high - o->low) / bins;
    int b;
    g->bins = bins;
    g->edge = cm_allocate(c, (size_t)bins + 1, sizeof *g->edge);
    if (!g->edge) return CALOMU_EMEMORY;
    for (b = 0; b < bins; b++) g->edge[b] = cm_fmad(width, b, o->low);
    g->edge[bins] = o->high;
    return CALOMU_OK;
}

/* The distinct true energies, rising.  No range cuts them: the paper's 11 points end at 4100 GeV,
   beyond the range of its bins, and count. */
static calomu_status cm_groups_points(calomu *c, cm_groups *g, const double *truth, size_t n)
{
    size_t i, distinct = 0;
    g->edge = cm_allocate(c, n, sizeof *g->edge);
    if (!g->edge) return CALOMU_EMEMORY;
    memcpy(g->edge, truth, n * sizeof *truth);
    cm_sort(g->edge, n);
    for (i = 0; i < n; i++)
        if (i == 0 || g->edge[i] > g->edge[distinct - 1]) g->edge[distinct++] = g->edge[i];
    if (distinct > CM_EVAL_BINS)
        return cm_fail(c, CALOMU_EUSAGE, "%zu different true energies are no fixed points: evaluate"
                       " in bins", distinct);
    g->bins = (int)distinct;
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- debiasing (Sec. 4.1) */

/* "The regressor overestimates medium energies, and underestimates high energies."  A squared error
   pulls to where most muons are: the best prediction, on average over the spectrum, is the mean of
   all true energies that look like this muon, and for one that looks like the highest these are
   lower.  A correction must not know the true energy, so it is a function of the prediction: the
   inverse of the line through the means.  Without it MI falls by 2.1% (Sec. 7.5).

   A line, as in the paper: what is not straight stays in the predictions, bin by bin as a bias, and
   Eq. (4) counts it. */

/* Mean and population variance's root of n > 0 values: mean = x0 + sum (x - x0)/n, variance = sum
   (x - mean)^2/n, in two passes, since sum x^2/n - mean^2 is a small difference of large numbers
   where energies are far from 0 and near each other.  Differences from the first value make
   equal values give exactly 0, where a rounded mean would give them a tiny spread and so a
   boundless weight in the fit.  Of 10, 12, 17: shift = (0 + 2 + 7)/3 = 3, mean 13, and the spread
   sqrt((9 + 1 + 16)/3) = 2.944. */
static double cm_mean_spread(const double *x, size_t n, double *spread)
{
    double sum = 0, squares = 0, shift;
    size_t i;
    for (i = 0; i < n; i++) sum += x[i] - x[0];
    shift = sum / (double)n;
    for (i = 0; i < n; i++) {
        const double d = x[i] - x[0] - shift;
        squares = cm_fmad(d, d, squares);
    }
    *spread = sqrt(squares / (double)n);
    return x[0] + shift;
}

/* The error of the mean of n values as the spread of the means of o->bootstrap resamplings: n of
   them drawn with replacement, as the paper does (B. Efron, Ann. Statist. 7 (1979) 1).  The default
   is its limit for many resamplings, spread/sqrt(n), 2.1 GeV of 5,000 muons of a spread of 150 GeV,
   which needs no random numbers: the mean of n draws has the variance of one draw, the population
   variance, divided by n.  With R resamplings the error itself has a relative error of about
   1/sqrt(2 R), that of a deviation from R normal numbers: 10% with 50, 5% with 200.  It only weighs
   the bins.  Each bin has its stream, each pair of draws its counter. */
static double cm_bootstrap(const calomu_eval_options *o, const double *x, size_t n, int bin,
                           double *means)
{
    uint64_t counter = 0;
    uint32_t word[4];
    double error;
    int32_t r;
    /* A uniform number below 1 times n can round up to n; word holds two of them. */
    for (r = 0; r < o->bootstrap; r++) {
        double sum = 0;
        size_t i;
        for (i = 0; i < n; i++) {
            size_t drawn;
            if (i % 2 == 0) calomu_random(o->seed, (uint64_t)bin, counter++, word);
            drawn = (size_t)(cm_uniform(word + i % 2 * 2) * (double)n);
            sum += x[drawn < n ? drawn : n - 1] - x[0];
        }
        means[r] = sum / (double)n;
    }
    cm_mean_spread(means, (size_t)o->bootstrap, &error);
    return error;
}

/* Straight line y = intercept + slope x through (x, y +- error), at least 2 points, by least
   squares: the sum of v (y - intercept - slope x)^2 with v = 1/error^2 is smallest where
       slope = sum v (x - X)(y - Y) / sum v (x - X)^2,      intercept = Y - slope X,
   X, Y the means weighted by v.  Weights 1/error^2 are those for which a line through independent
   points has the smallest errors (C. F. Gauss, Theoria combinationis, 1823).  Where the sum is
   smallest its derivatives are 0, that by the intercept and, with this intercept, that by the
   slope:
       sum v (y - intercept - slope x) = 0,      sum v (x - X)(y - Y - slope (x - X)) = 0.
   The errors of both follow from those of y:
       slope_error^2 = 1/sum v (x - X)^2,   intercept_error^2 = 1/sum v + X^2/sum v (x - X)^2.
   The first, because the slope is a sum of a y with a = v (x - X)/D, D = sum v (x - X)^2 (sum v (x
   - X) Y is 0), so its variance is sum a^2 error^2 = sum v (x - X)^2/D^2 = 1/D; the second, because
   Y, of variance 1/sum v, and slope are uncorrelated.  Three points x = 0, 1, 2 of y = 1, 3, 5 with
   errors 1: slope 2 +- 0.707, intercept 1 +- 0.913.  Weights are relative to the smallest error,
   and sums are about the weighted mean: neither overflows nor cancels.  The factor falls out of
   slope and intercept, and comes back into the errors as `best`. */
static void cm_line_fit(const double *x, const double *y, const double *error, int n,
                        calomu_line *line)
{
    double best = error[0], w = 0, wx = 0, wy = 0, sxx = 0, sxy = 0, mean_x, mean_y;
    int i;
    for (i = 1; i < n; i++)
        if (error[i] < best) best = error[i];
    for (i = 0; i < n; i++) {
        const double r = best / error[i], v = r * r;
        w += v;
        wx = cm_fmad(v, x[i], wx);
        wy = cm_fmad(v, y[i], wy);
    }
    mean_x = wx / w;
    mean_y = wy / w;
    for (i = 0; i < n; i++) {
        const double r = best / error[i], d = x[i] - mean_x;
        sxx = cm_fmad(r * r * d, d, sxx);
        sxy = cm_fmad(r * r * d, y[i] - mean_y, sxy);
    }
    line->slope = sxy / sxx;
    line->intercept = cm_fmad(-line->slope, mean_x, mean_y);
    line->slope_error = best / sqrt(sxx);
    line->intercept_error = best * sqrt(1 / w + mean_x * mean_x / sxx);
}

/* Means of the usable bins into x, y, error (room for g->bins each); *used counts them.  One muon
   has no spread, and equal predictions have none: the error would be 0, the weight infinite.  x is
   the centre of the bin and not the mean of its true energies, as in the authors' analysis.  With
   as many muons at all energies the two differ by 100 GeV/sqrt(12 n), 0.4 GeV of 5,000 muons in a
   bin of 100 GeV; with a spectrum that falls the centre is too high, and slope and intercept are
   those of this rule, which fit and correction share.

   A bin at 4000 GeV whose predictions spread by 600 GeV weighs a sixteenth of a bin at 1000 GeV of
   as many muons that spread by 150: so the line is fixed where the resolution is good. */
static calomu_status cm_debias_means(calomu *c, const calomu_eval_options *o, const cm_groups *g,
                                     double *x, double *y, double *error, int *used)
{
    double *means = NULL;
    int b, k = 0;
    if (o->bootstrap) {
        means = cm_allocate(c, (size_t)o->bootstrap, sizeof *means);
        if (!means) return CALOMU_EMEMORY;
    }
    for (b = 0; b < g->bins; b++) {
        const double *p = g->prediction + g->start[b];
        const size_t n = g->start[b + 1] - g->start[b];
        double spread;
        if (n < 2) continue;
        y[k] = cm_mean_spread(p, n, &spread);
        error[k] = means ? cm_bootstrap(o, p, n, b, means) : spread / sqrt((double)n);
        x[k] = g->edge[b] / 2 + g->edge[b + 1] / 2;
        if (error[k] > 0) k++;
    }
    cm_release(c, means);
    *used = k;
    return CALOMU_OK;
}

/* A line that falls or is level has no inverse that a correction could be.  memory: room for three
   numbers of each bin.  `line` is written only when all is well, so a failure leaves what the
   caller had. */
static calomu_status cm_debias_line(calomu *c, const calomu_eval_options *o, const cm_groups *g,
                                    double *memory, calomu_line *line)
{
    double *x = memory, *y = x + g->bins, *error = y + g->bins;
    calomu_line l;
    int used;
    calomu_status s = cm_debias_means(c, o, g, x, y, error, &used);
    if (s != CALOMU_OK) return s;
    if (used < 2)
        return cm_fail(c, CALOMU_EFORMAT, "debiasing: %d of %d bins over %g to %g GeV hold 2 or"
                       " more muons with different predictions, and a line needs 2: give more"
                       " muons, fewer --fit-bins or another --range", used, g->bins, o->low,
                       o->high);
    memset(&l, 0, sizeof l);
    cm_line_fit(x, y, error, used, &l);
    if (!(l.slope > 0) || !isfinite(l.slope) || !isfinite(l.intercept))
        return cm_fail(c, CALOMU_EFORMAT, "debiasing: the fitted line, slope %g and intercept %g"
                       " GeV, cannot be inverted: its slope must be finite and positive (do the"
                       " predictions follow the true energy?)", l.slope, l.intercept);
    l.used = used;
    l.skipped = g->bins - used;
    *line = l;
    return CALOMU_OK;
}

/* Step 1 of the section's introduction: checks, muons into the bins of the fit, line. */
static calomu_status cm_debias_fit_call(calomu *c, const calomu_eval_options *options,
                                        const double *truth, const double *prediction, size_t n,
                                        calomu_line *line)
{
    const calomu_eval_options o = options ? *options : calomu_eval_options_default();
    cm_groups g;
    double *memory = NULL;
    calomu_status s = cm_eval_check(c, &o);
    memset(&g, 0, sizeof g);
    if (s == CALOMU_OK) s = cm_eval_rows(c, truth, prediction, n);
    if (s == CALOMU_OK) s = cm_groups_bins(c, &g, &o, o.fit_bins);
    if (s == CALOMU_OK) s = cm_groups_fill(c, &g, CM_LOW_INSIDE, truth, prediction, n);
    if (s == CALOMU_OK) {
        memory = cm_allocate(c, (size_t)g.bins * 3, sizeof *memory);
        s = memory ? cm_debias_line(c, &o, &g, memory, line) : CALOMU_EMEMORY;
    }
    cm_release(c, memory);
    cm_groups_free(c, &g);
    return s;
}

calomu_status calomu_debias_fit(calomu *c, const calomu_eval_options *options, const double *truth,
                                const double *prediction, size_t n, calomu_line *line)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_debias_fit_call(c, options, truth, prediction, n, line));
}

/* p = intercept + slope y, solved for y.  A slope below 1 stretches: what the network draws towards
   the middle of the energies is put back, and its spread grows by 1/slope with it: the 150 GeV of
   the introduction's example were 135 before.  So a network cannot improve its resolution by always
   saying the same, which would have no spread, and a slope of 0.

   Not inlined: calomu_debias sets the processor's modes before the call, and a compiler that sees
   the division itself may move it in front of that. */
static CM_NOINLINE double cm_debias(const calomu_line *line, double prediction)
{
    return (prediction - line->intercept) / line->slope;
}

/* Without a context, so it sets the processor's modes (10) by itself and gives the caller's back.
   */
double calomu_debias(const calomu_line *line, double prediction)
{
    calomu_modes host;
    (void)calomu_modes_set(&host);
    prediction = cm_debias(line, prediction);
    calomu_modes_restore(&host);
    return prediction;
}

/* ---------------------------------------------------------------- resolution (Sec. 4.2) */

/* sqrt(a^2 + b^2) without overflow: large sqrt(1 + (small/large)^2), of 20 and 150 151.3.  hypot is
   one of libm's functions that need not be equal everywhere; sqrt is exact by IEEE 754. */
static double cm_length(double a, double b)
{
    const double large = fabs(a) > fabs(b) ? fabs(a) : fabs(b);
    const double small = fabs(a) > fabs(b) ? fabs(b) : fabs(a);
    const double r = large > 0 && isfinite(large) ? small / large : 0;
    return large * sqrt(cm_fmad(r, r, 1));
}

/* 1/sqrt(1/a^2 + 1/b^2), the resolution of the weighted average of two independent measurements of
   resolutions a and b.  (With weights v and 1 - v its variance is v^2 a^2 + (1 - v)^2 b^2, smallest
   at v = b^2/(a^2 + b^2), where it is a^2 b^2/(a^2 + b^2).)  Written with the better of the two in
   front, small/sqrt(1 + (small/large)^2), it is right when one is 0 (then so is the result) and
   when one is infinite; not when both are, but a tracker never is.  Of two equal ones it is 0.707
   of either; of 3.95% and 100% 3.947%. */
static double cm_combine(double a, double b)
{
    const double large = a > b ? a : b, small = a > b ? b : a;
    const double r = large > 0 ? small / large : 0;
    return small / sqrt(cm_fmad(r, r, 1));
}

/* What Eq. (4) needs of the n > 1 predictions of one bin, sorted: the median, and c68, HALF the
   width of the central 68.27 percent, from the quantiles at one standard deviation of a normal
   distribution to either side, 0.15865 and 0.84135.  So c68 of a normal distribution is its
   standard deviation, which is what a tracker's resolution is.  (The text says the width.)
   Predictions 10, 20, 30, 40, 100: median 30, quantiles 16.346 and 61.924, c68 = 22.789.

   How well n muons fix it.  Two quantiles at p <= q of n values have the covariance p (1 - q)/(n
   f(p) f(q)), f being the density there (H. Cramer, Mathematical Methods of Statistics, 1946, Sec.
   28.5).  A normal distribution of deviation d has f = 0.24197/d at both quantiles and 0.39894/d at
   the median; so half their difference has the variance (2*0.13348 - 2*0.02517) d^2/(4*0.05855 n),
   and c68 is known to 0.962 d/sqrt(n), the median to 1.253 d/sqrt(n): 2.0 and 2.7 GeV of 5,000
   muons of d = 150 GeV.  Standard deviation and mean would be known to 0.707 and 1 d/sqrt(n): that
   is the price for being deaf to tails.  (15 resamples instead, as predictions are not normal.) */
static void cm_bin_resolution(calomu_bin *bin, const double *prediction, size_t n)
{
    bin->median = cm_quantile(prediction, n, 0.5);
    bin->c68 = cm_quantile(prediction, n, 0.84135) / 2 - cm_quantile(prediction, n, 0.15865) / 2;
}

/* Eq. (4):  sqrt((median - E)^2 + c68^2) / E,  E the median true energy of the bin: what is left of
   the bias counts like the width, as in a mean square about E, which is variance + bias^2.  Medians
   and quantiles, since a few muons with a large loss of energy would decide about mean and standard
   deviation: 100 muons at 1000 GeV to +-150 and one more at 6000 have a mean of 1050 and a
   deviation of 517 GeV, but nearly the same median and quantiles.

   A bin has a width of its own: 195 GeV of true energies spread by 195/sqrt(12) = 56 GeV, which is
   in c68: 150 GeV of resolution become sqrt(150^2 + 56^2) = 160.  In the first bin, at 197.5 GeV,
   the 56 GeV alone are 28.5% of E; MI hardly sees it, since the tracker's 3.95% decide there.
   Fixed points have none of it. */
static void cm_bin_combine(calomu_bin *bin)
{
    bin->calorimeter = cm_length(bin->median - bin->energy, bin->c68) / bin->energy;
    bin->combined = cm_combine(bin->calorimeter, bin->tracker);
}

/* Adds a bin to MI, still a sum, and worst.  A bin that the tracker measures better than the
   calorimeter adds little, never less than 0, as combined is at most the tracker's alone.  MI =
   mean over bins of (tracker - combined), Sec. 4.2, in percent points: 22.1 for the paper's
   ensemble on 11 points, with a worst of 29.5%.

   So high energies decide about MI: a calorimeter of 20% adds 58.7 points at a tracker's 78.05%,
   5.9 at 20%, 0.07 at 3.95%.  It is below the mean of the tracker's resolutions, which a
   calorimeter without an error would reach: 41.0 of the paper's 20 bins.  MI of bins and of fixed
   points are different means, and not to be compared. */
static void cm_summary_add(calomu_summary *summary, const calomu_bin *bin)
{
    summary->mi += 100 * (bin->tracker - bin->combined);
    if (100 * bin->combined > summary->worst) summary->worst = 100 * bin->combined;
    summary->used++;
}

/* The tracker has 20% at 1 TeV, and more in proportion to the energy (Sec. 4.2).  A tracker of
   length l sees an arc of radius R as a sagitta of l^2/(8 R) = 0.3 B l^2/(8 p), and measures it to
   a fixed length d, so d(p)/p = d/sagitta rises with p (R. L. Gluckstern, Nucl. Instrum. Meth. 24
   (1963) 381); a calorimeter's does not, which is why the two complete each other.  The tracker's
   is taken at the bin's centre, at fixed points at the energy itself: of the paper's 20 bins, 195
   GeV wide, from 3.95% of the first, at 197.5 GeV, to 78.05% of the last, at 3902.5.

   A bin of one muon has a median, but no width: it is left out of MI, and counted.  At least one
   bin has more (cm_resolution_groups), so that `used` is not 0. */
static void cm_resolution_bins(const calomu_eval_options *o, cm_groups *g, int points,
                               calomu_bin *bins, calomu_summary *summary)
{
    const double absent = (double)calomu_absent();
    int b;
    memset(summary, 0, sizeof *summary);
    summary->points = points;
    summary->mi_error = summary->worst_error = absent;
    for (b = 0; b < g->bins; b++) {
        calomu_bin *bin = &bins[b];
        const size_t at = g->start[b];
        bin->n = g->start[b + 1] - at;
        bin->low = g->edge[b];
        bin->high = points ? g->edge[b] : g->edge[b + 1];
        bin->centre = bin->low / 2 + bin->high / 2;
        bin->tracker = o->tracker * (bin->centre / 1000);
        bin->energy = bin->median = bin->c68 = bin->calorimeter = bin->combined = absent;
        bin->calorimeter_error = bin->combined_error = absent;
        if (bin->n < 2) {
            summary->skipped++;
            continue;
        }
        cm_sort(g->truth + at, (size_t)bin->n);
        cm_sort(g->prediction + at, (size_t)bin->n);
        bin->energy = cm_quantile(g->truth + at, (size_t)bin->n, 0.5);
        cm_bin_resolution(bin, g->prediction + at, (size_t)bin->n);
        cm_bin_combine(bin);
        cm_summary_add(summary, bin);
    }
    summary->mi /= summary->used;
}

/* The muons into g by true energy, with debiased predictions (line NULL: as they are): which bin a
   muon is in does not depend on what was predicted. */
static calomu_status cm_resolution_groups(calomu *c, const calomu_eval_options *o, int points,
                                          const calomu_line *line, const double *truth,
                                          const double *prediction, size_t n, cm_groups *g)
{
    calomu_status s = points ? cm_groups_points(c, g, truth, n) : cm_groups_bins(c, g, o, o->bins);
    size_t i, inside;
    int b;
    if (s == CALOMU_OK)
        s = cm_groups_fill(c, g, points ? CM_POINTS : CM_HIGH_INSIDE, truth, prediction, n);
    if (s != CALOMU_OK) return s;
    for (b = 0; b < g->bins && g->start[b + 1] - g->start[b] < 2; b++) continue;
    if (b == g->bins)
        return cm_fail(c, CALOMU_EFORMAT, "resolution: none of the %d %s holds 2 muons: give more"
                       " muons, fewer --bins or another --range", g->bins,
                       points ? "fixed energies" : "bins");
    inside = line ? g->start[g->bins] : 0;
    for (i = 0; i < inside; i++) {
        const double p = g->prediction[i];
        g->prediction[i] = calomu_debias(line, p);
        if (!isfinite(g->prediction[i]))
            return cm_fail(c, CALOMU_EFORMAT, "debiasing the prediction %g with slope %g and"
                           " intercept %g GeV gives no finite energy", p, line->slope,
                           line->intercept);
    }
    return CALOMU_OK;
}

/* Steps 2 and 3.  Whether the muons are at fixed points is asked of calomu_is_points (15), unless
   the caller says: at most 64 energies with at least 10 muons each are.  bins: the caller's, with
   room for max_bins.  How many there will be is known before for bins of a range, o.bins; where
   each energy is a bin it shows only when they have been sorted, hence the room and the error.
   *n_bins and the bins are written only when all is well. */
static calomu_status cm_resolution_call(calomu *c, const calomu_eval_options *options,
                                        const calomu_line *line, const double *truth,
                                        const double *prediction, size_t n, calomu_bin *bins,
                                        int max_bins, int *n_bins, calomu_summary *summary)
{
    const calomu_eval_options o = options ? *options : calomu_eval_options_default();
    cm_groups g;
    int points;
    calomu_status s = cm_eval_check(c, &o);
    memset(&g, 0, sizeof g);
    if (s == CALOMU_OK) s = cm_eval_rows(c, truth, prediction, n);
    if (s != CALOMU_OK) return s;
    points = o.points < 0 ? calomu_is_points(c, truth, n) : o.points;
    s = cm_resolution_groups(c, &o, points, line, truth, prediction, n, &g);
    if (s == CALOMU_OK && g.bins > max_bins)
        s = cm_fail(c, CALOMU_EUSAGE, "%d %s, and room for %d", g.bins,
                    points ? "different true energies (are these fixed points?)" : "bins",
                    max_bins);
    if (s == CALOMU_OK) {
        cm_resolution_bins(&o, &g, points, bins, summary);
        *n_bins = g.bins;
    }
    cm_groups_free(c, &g);
    return s;
}

calomu_status calomu_resolution(calomu *c, const calomu_eval_options *options,
                                const calomu_line *line, const double *truth,
                                const double *prediction, size_t n, calomu_bin *bins, int max_bins,
                                int *n_bins, calomu_summary *summary)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_resolution_call(c, options, line, truth, prediction, n,
                                                         bins, max_bins, n_bins, summary));
}

/* ============================================================================================
   ============================================================================================

   PART II   SERVICE

   What a program needs around the algorithm: a context with its choices and its errors, files that
   are whole or absent, networks in memory, a training that can be killed at any time, predictions,
   and the errors of a resolution.  Each section uses those before it.

   Little is computed here that reaches a result: standardisation, fingerprints, the weighted mean
   of an ensemble, the bootstrap.  Layers and losses are those of part I, or of part III with the
   same bits.

   Rules that hold for every function of this part:
     Failure    A function that can fail returns a calomu_status, or NULL, and has left the reason
                in the context by cm_fail.  It hands an object out only on success, and what it has
                made by then is freed.
     Entry      calomu_X is cm_X_call, or cm_X, between cm_enter (or cm_look) and cm_leave.
     Ownership  An object that may outlive the context of the call (data, muons read, trainer,
                model) has a clone of it, `own` or `owner_`, with the allocator that frees the
                object.  An output and a writer have none: they are closed before their context.
     Hostility  Bytes of a file are an attacker's until a check has passed; a size in a file is
                held against the size of the file before memory is taken for it.
     Writing    A file appears under its name when it is complete, or not at all (section 11).
     Threads    A context serves one thread at a time.  A data set and a model are read-only once
                they are open, and any number of contexts may use them.  There is no lock, and no
                mutable object at file scope.

   ============================================================================================
   ============================================================================================ */

/* ---- what this part asks of part III; without it (CALOMU_PLAIN) the end of this part answers

   One static declaration for each, so that part II is compiled the same with and without part III.
   Three groups: the plan of a list (cm_plans_*), the engine that computes batches (cm_engine), and
   what is done on a device: cm_place_* for predictions, cm_remote_* for a training.  In a build
   with CALOMU_PLAIN no device can be opened, so the answers about devices are never asked for more
   than "no". */

typedef struct cm_engine cm_engine;
typedef struct cm_prediction cm_prediction;
struct cm_remote;
static const char *(*const cm_kernels_fault[4])(void);   /* what a set's code breaks (17.2) */
static calomu_status cm_plans_make(calomu *c, cm_list *s);
static void cm_plans_free(calomu *c, cm_list *s);
static const cm_engine *cm_engine_of(const calomu *c);   /* what computes batches */
static calomu_status cm_device_check(calomu *c);         /* that it can be used, if there is one */
static void cm_place_free(calomu *c, struct cm_place *p);
static calomu_status cm_predict_on_device(calomu *c, const cm_prediction *p);
static calomu_status cm_remote_ready(calomu *c, calomu_trainer *t);  /* on a device: t->remote */
static calomu_status cm_remote_update(calomu *c, calomu_trainer *t, double *loss);
static calomu_status cm_remote_validate(calomu *c, calomu_trainer *t, int n);
static calomu_status cm_remote_fetch(calomu *c, const calomu_trainer *t);
static void cm_remote_put(const calomu_trainer *t);
static calomu_status cm_remote_lost(calomu_trainer *t, calomu_status s);
static void cm_remote_epoch(calomu_trainer *t, int reload);
static size_t cm_remote_memory(const calomu_trainer *t);
static void cm_remote_free(calomu *c, struct cm_remote *r);

/* ============================================================================================
   10 Context: errors, allocator, numbers as text
   ============================================================================================

   A context (struct calomu, in the head of this file) is all that a call knows besides its
   arguments: the caller's allocator and log, the choices made in calomu_open, the message of the
   last failure, and what predictions keep from call to call (section 14).

   Words.  Modes: how the processor rounds, whether it flushes small numbers to zero, whether an
   exception traps.  Fault: an operation that this build computes otherwise than IEEE 754 says.
   Host: the program that calls; its modes are the host's.

   Equal bits need the right modes and no fault, and the library can rely on neither: a host may
   round up for its interval arithmetic, or be linked with -Ofast.  So the modes are set by every
   call and put back behind it, and the build is asked by a handful of sums when a context is
   opened.

   In this order: failures and log; memory; instruction sets; modes; entry and exit of calls;
   faults; open, clone, close; numbers as text; loops over threads. */

static void *cm_default_allocate(void *user, size_t size)
{
    (void)user;
    return malloc(size);
}

static void cm_default_release(void *user, void *memory)
{
    (void)user;
    free(memory);
}

/* Sets message and status of c, and returns the status, so that a failure is one `return`.  The
   text is cut at 511 bytes.  No argument may point into c->message, which is being written
   (vsnprintf with overlap is undefined): whoever lengthens a message copies it first, as cm_fail_in
   does.  The message of another context is allowed. */
calomu_status cm_fail(calomu *c, calomu_status s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(c->message, sizeof c->message, format, args);
    va_end(args);
    c->failure = s;
    return s;
}

/* Puts "muon N: " in front of the message.  At most 27 bytes and 480 of the message: 507, which
   leave a terminating zero in 512. */
static void cm_fail_at(calomu *c, size_t number)
{
    char text[512];
    (void)snprintf(text, sizeof text, "muon %zu: %.480s", number, c->message);
    memcpy(c->message, text, sizeof text);
}

/* The caller's functions (log, allocate, release) run in the modes that equal bits need, and may
   leave others behind: a log that prints through a library of the host, for example.  So there is a
   call before and one after: calomu_modes_set(&before) has noted what was set, this one sets the
   modes anew and then gives the caller back what `before` holds.  Within a call that computes that
   is nothing, as the modes were right; in calomu_close it is the host's own. */
static void cm_modes_again(const calomu_modes *before)
{
    calomu_modes now;
    (void)calomu_modes_set(&now);
    calomu_modes_restore(before);
}

/* A notice for a person, one line without its end; nothing where the caller has no log.  511 bytes
   at most, like a message: a path of 4095 is cut, and the notice with it. */
void cm_log(calomu *c, const char *format, ...)
{
    calomu_modes before;
    char line[512];
    va_list args;
    if (!c->log) return;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    (void)calomu_modes_set(&before);
    c->log(c->user, line);
    cm_modes_again(&before);
}

/* Memory of the caller's allocator.  malloc and free are called directly: they change no modes. */
static void *cm_ask(calomu *c, size_t bytes)
{
    calomu_modes before;
    void *memory;
    if (c->allocate == cm_default_allocate) return malloc(bytes);
    (void)calomu_modes_set(&before);
    memory = c->allocate(c->user, bytes);
    cm_modes_again(&before);
    return memory;
}

/* Memory as it comes, for an arena, whose users write before they read: clearing it would touch
   every page. */
static void *cm_allocate_raw(calomu *c, size_t bytes)
{
    void *memory = cm_ask(c, bytes);
    if (!memory) cm_fail(c, CALOMU_EMEMORY, "no memory for %zu bytes", bytes);
    return memory;
}

/* Zeroed memory for count objects of the given size.  Every size that follows from a file or a
   caller comes through here, and the product cannot wrap: count is at most SIZE_MAX/2/size.  Half,
   so that the difference of two pointers into the memory fits ptrdiff_t.  Half-made objects rely on
   the zeros: what frees them takes NULL for "not made yet".

   At least 64 bytes are asked for, so that a count of 0 is no special case: NULL always means
   failure. */
void *cm_allocate(calomu *c, size_t count, size_t size)
{
    size_t bytes;
    void *memory;
    if (size != 0 && count > SIZE_MAX / 2 / size) {
        cm_fail(c, CALOMU_EMEMORY, "no memory: %zu objects of %zu bytes are too many", count, size);
        return NULL;
    }
    bytes = count * size < 64 ? 64 : count * size;
    memory = cm_ask(c, bytes);
    if (!memory) {
        cm_fail(c, CALOMU_EMEMORY, "no memory for %zu bytes", bytes);
        return NULL;
    }
    return memset(memory, 0, bytes);
}

void cm_release(calomu *c, void *memory)
{
    calomu_modes before;
    if (!memory || c->release == cm_default_release) {
        free(memory);
        return;
    }
    (void)calomu_modes_set(&before);
    c->release(c->user, memory);
    cm_modes_again(&before);
}

/* What an instruction set needs, and what this machine has.  The builtin asks the processor, and
   whether the system saves the wide registers when it switches threads; the processor alone would
   say yes under a system that destroys them.  Four parts of AVX-512 are named because the kernels
   of 17.2 are compiled for all four, and early processors have only the first. */
static int cm_isa_here(calomu_isa isa)
{
    if (isa == CALOMU_ISA_PLAIN) return 1;
#if defined(__x86_64__) && defined(__GNUC__)
    if (isa == CALOMU_ISA_AVX2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == CALOMU_ISA_AVX512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
            && __builtin_cpu_supports("fma");
#endif
    return 0;
}

#ifdef CALOMU_PLAIN
#define CM_ONLY_PLAIN 1
#else
#define CM_ONLY_PLAIN 0
#endif

static const char *cm_isa_name(calomu_isa isa)
{
    if (isa == CALOMU_ISA_AVX512) return "AVX-512";
    return isa == CALOMU_ISA_AVX2 ? "AVX2" : "plain C";
}

/* 1: an exception of the processor may end the program (feenableexcept, as programs of physics
   like it).  Then nothing may be computed: 1/3 is inexact, a NaN that is compared is invalid.

   Bits 7 to 12 of MXCSR mask the six exceptions of SSE, 0x1f80: a 0 among them is a trap.  On other
   machines glibc's fegetexcept tells which traps are on; elsewhere C99 has no way to ask, and none
   is assumed. */
static int cm_traps(void)
{
#if defined(__GNUC__) && defined(__SSE__)
    if (~__builtin_ia32_stmxcsr() & 0x1f80) return 1;
#endif
#ifdef __GLIBC__
    return fegetexcept() != 0;
#else
    return 0;
#endif
}

/* Rounding to nearest, even where it is halfway, no flushing of small numbers to zero, no traps.
   With u = 2^-52, the step above 1: 1 + u/2 is halfway and goes down to 1, the even one; 1 + 0.75 u
   goes up.  Rounding up fails the first, rounding down and toward zero the second.  DBL_MIN/2 is a
   subnormal number, which is 0 where such are flushed.

   The operands are volatile, or the compiler computes for a mode that it takes for granted.
   fegetround knows of x87, where strtod looks on x86.  Three sums and a call: 30 ns, cheap enough
   for every entry. */
static CM_NOINLINE int cm_modes_right(void)
{
    volatile double one = 1, least = DBL_MIN, half = 0.5, ulp = DBL_EPSILON, down, up, small;
    if (cm_traps()) return 0;
    down = one + ulp * half;
    up = one + ulp * 0.75;
    small = least * half;
    return down == 1 && up > 1 && small > 0 && fegetround() == FE_TONEAREST;
}

/* Afterwards, 1: this thread's modes are right, and m holds what calomu_modes_restore has to bring
   back, which is nothing where they were right already; 0: they cannot be set, and are as they
   were.

   C99 gives FE_DFL_ENV rounding to nearest and no traps; that it stops flushing too is the habit of
   every libc of today, and looked at.  The calls are opaque and all that computes is in functions
   of its own behind them, so that no operation can move across: the pragma that would make the
   compiler see to that, FENV_ACCESS, is not implemented by gcc.

   m->host has 64 bytes for an fenv_t, whose size is the system's (32 on x86-64); the typedef does
   not compile where they are too few. */
int calomu_modes_set(calomu_modes *m)
{
    typedef char fits[sizeof(fenv_t) <= sizeof m->host ? 1 : -1];
    fenv_t host;
    m->changed = 0;
    if (cm_modes_right()) return 1;
    if (sizeof(fits) != 1 || fegetenv(&host) != 0) return 0;
    memcpy(m->host, &host, sizeof host);
    m->changed = fesetenv(FE_DFL_ENV) == 0;
    if (m->changed && cm_modes_right()) return 1;
    calomu_modes_restore(m);
    return 0;
}

void calomu_modes_restore(const calomu_modes *m)
{
    fenv_t host;
    if (!m->changed) return;
    memcpy(&host, m->host, sizeof host);
    (void)fesetenv(&host);
}

static const char cm_modes_fault[] = "this thread has another rounding mode than to nearest, "
    "flushes small numbers to zero, or traps exceptions, and here that cannot be changed";

static void cm_after_fork(calomu *c);

/* Begins a call that computes: calomu_X(c, ...) is cm_X_call(c, ...) between cm_enter and cm_leave.
   0: it cannot, with the reason in the message.  A call may use another, with the same context.

   Only the outermost call notes the host's modes; the modes found by an inner one are those that
   the outer one has set.  On failure nothing is counted, so cm_leave must not follow: hence
   `cm_enter(c) ? cm_leave(c, ...) : CALOMU_EUSAGE` in every function of the interface. */
CM_NOINLINE static int cm_enter(calomu *c)
{
    calomu_modes now;
    if (c->fault) {
        cm_fail(c, CALOMU_EUSAGE, "%s", c->fault);
        return 0;
    }
    if (!calomu_modes_set(c->entered == 0 ? &c->host : &now)) {
        cm_fail(c, CALOMU_EUSAGE, "%s", cm_modes_fault);
        return 0;
    }
    if (c->entered++ == 0) cm_after_fork(c);
    return 1;
}

/* Begins a call that looks at numbers, but computes nothing that could come out otherwise: a trap
   on a NaN must not end the program, and the build does not matter.

   So a build with a fault can still open a file and say what it is, and a person can find out what
   is wrong. */
CM_NOINLINE static void cm_look(calomu *c)
{
    if (c->entered++ == 0) (void)calomu_modes_set(&c->host);
}

/* Ends what cm_enter or cm_look began, with the status of the call in its hands; the outermost end
   brings the host's modes back. */
CM_NOINLINE static calomu_status cm_leave(calomu *c, calomu_status s)
{
    if (--c->entered == 0) calomu_modes_restore(&c->host);
    return s;
}

/* What a function returns, for cm_finite_results: not inlined, so that the compiler cannot know
   it. */
static CM_NOINLINE double cm_result(const volatile double *x) { return *x; }

/* How many of n are neither NaN nor infinite.  The pragma of clang 14 reaches operations, but not
   what functions return inside a loop: with -fno-honor-nans that is never NaN. */
static CM_NOINLINE int cm_finite_results(const volatile double *x, int n)
{
    int i, finite = 0;
    for (i = 0; i < n; i++) {
        double y = cm_result(x + i);
        if (!isnan(y) && !isinf(y)) finite++;
    }
    return finite;
}

/* What this build breaks of IEEE 754, and what to do; NULL: nothing.  (1 + 2^-53) - 1 is 0 unless
   sums are reassociated or held in wider registers; 5/3 is rounded up, 5 times 1/3 rounded is not;
   -0 + 0 is 0.

   Each question is one that a wrong flag answers wrongly; all operands come from volatile ones, or
   the compiler would answer by the rules of the language.  5/3 is 0x1.aaaaaaaaaaaab as a
   division, which rounds up; 5 times the double next to 1/3 comes out one step lower.  The exact
   0x1.aaaaaaaaaaaab in the source is no decimal number that a compiler may round otherwise.

   Asked when a context is opened and not in every call: a build does not change.  The plain kernels
   are asked in any case, since all that is not a kernel of AVX2 or AVX-512 has been compiled with
   their flags. */
static CM_NOINLINE const char *cm_fault(calomu_isa isa)
{
    volatile double one = 1, tiny = DBL_EPSILON / 4, five = 5, zero = 0, minus = -zero;
    volatile double strange[2];
    double a = one, b = tiny, third = five / 3.0;
    if ((a + b) - a != 0)
        return "this build reassociates sums, or holds them in wider registers: compile calomu.c "
               "without -funsafe-math-optimizations; for x87 with -msse2 -mfpmath=sse";
    if (third != 0x1.aaaaaaaaaaaabp+0)
        return "this build multiplies by reciprocals: compile calomu.c without -freciprocal-math";
    strange[0] = (double)calomu_absent();
    strange[1] = HUGE_VAL;
    if (strange[0] == strange[0] || isfinite(strange[0]) || cm_finite_results(strange, 2) != 0)
        return "this build takes NaN and infinities for numbers: compile calomu.c without "
               "-ffinite-math-only and -fno-honor-nans";
    if (1 / (minus + 0.0) < 0)
        return "this build takes -0 for 0: compile calomu.c without -fno-signed-zeros";
    if (cm_fault_single()) return cm_fault_single();
    if (cm_kernels_fault[CALOMU_ISA_PLAIN] && cm_kernels_fault[CALOMU_ISA_PLAIN]())
        return cm_kernels_fault[CALOMU_ISA_PLAIN]();     /* it is compiled as all the rest is */
    return cm_kernels_fault[isa] ? cm_kernels_fault[isa]() : NULL;
}

int calomu_threads_available(void)
{
#ifdef CM_THREADS
    return omp_get_num_procs();
#else
    return 1;
#endif
}

/* The number of this process, by which a child of fork is known. */
static long cm_process(void)
{
#if CM_POSIX
    return (long)getpid();
#else
    return 0;
#endif
}

/* Looks at the build with the modes that it will have, and describes it.

   The warning comes last and may be cut at 511 bytes; c->fault, which cm_enter shows, is a pointer
   to the whole text. */
static void cm_describe_build(calomu *c)
{
    calomu_modes host;
    int right = calomu_modes_set(&host);
#if defined(__clang__)
    const char *compiler = "clang " __clang_version__;
#elif defined(__GNUC__)
    const char *compiler = "gcc " __VERSION__;
#else
    const char *compiler = "C compiler";
#endif
#if defined(CALOMU_PLAIN)
    const char *openmp = "plain layers only";
#elif defined(CM_THREADS)
    const char *openmp = "OpenMP";
#else
    const char *openmp = "no OpenMP";
#endif
    c->fault = right ? cm_fault(c->isa) : cm_modes_fault;
    calomu_modes_restore(&host);
    (void)snprintf(c->build, sizeof c->build, "calomu %d.%d.%d, %s, %s, %s, %d thread%s%s%s%s",
                   CALOMU_VERSION / 10000, CALOMU_VERSION / 100 % 100, CALOMU_VERSION % 100,
                   compiler, openmp, cm_isa_name(c->isa), c->threads, c->threads > 1 ? "s" : "",
                   host.changed ? "; note: this thread has another rounding mode than to nearest, "
                   "flushes small numbers to zero, or traps exceptions: every call sets that right,"
                   " and back" : "",
                   c->fault ? "; WARNING: " : "", c->fault ? c->fault : "");
}

/* Before anything that may start threads.  A child of fork has none of its parent's, but libgomp
   (12) waits for them for ever; the child goes on with one, which gives the same bits.  Noticed by
   the number of the process and not by pthread_atfork, which would need a mutable object at file
   scope and a library of threads in builds without OpenMP. */
static void cm_after_fork(calomu *c)
{
    if (c->threads == 1 || c->process == cm_process()) return;
    c->threads = 1;
    cm_describe_build(c);
    cm_log(c, "this process was forked after its context was opened: one thread is used");
}

/* Everything that an option can be refused for is refused before memory is taken; *out is NULL
   unless there is a context.  EUSAGE comes without a text: there is no context yet to hold one.

   A fault of the build is no failure here.  The context opens, tells of the fault in
   calomu_build_info, and cm_enter refuses what computes: a program can still print its version, and
   what is wrong with it.

   BEST is 0 and the sets follow in the order of their speed, so counting down from AVX-512 ends at
   plain C, which every machine has.  4096 bounds the memory that a mistyped number of threads can
   ask for: each has scratch memory and an arena.  A network in double (CALOMU_REAL) has no device:
   the tests that need it run on the processor.

   What an option does to the bits of a result:

       threads, isa, plain, recompute, unfused   nothing
       device with MATH_EQUAL                    nothing
       direct                                    other last bits: another order of sums
       MATH_FAST (devices)                       other bits, the same from run to run
       allocate, release, log                    nothing, whatever modes they leave behind */
calomu_status calomu_open(calomu **out, const calomu_options *options)
{
    static const calomu_options defaults = { 0 };
    const calomu_options *o = options ? options : &defaults;
    calomu_modes host;
    calomu *c;
    calomu_isa isa = o->isa;
    if (!out) return CALOMU_EUSAGE;
    *out = NULL;
    if (!o->allocate != !o->release || o->threads < 0 || o->threads > 4096) return CALOMU_EUSAGE;
    if (o->device_number < 0 || (o->math != CALOMU_MATH_EQUAL && o->math != CALOMU_MATH_FAST)
        || (o->math == CALOMU_MATH_FAST && !o->device)
        || (o->device && sizeof(cm_real) != sizeof(float))) return CALOMU_EUSAGE;
    if (isa < CALOMU_ISA_BEST || isa > CALOMU_ISA_AVX512) return CALOMU_EUSAGE;
    if (CM_ONLY_PLAIN && (o->threads > 1 || isa > CALOMU_ISA_PLAIN || o->device))
        return CALOMU_EUSAGE;
    if (isa == CALOMU_ISA_BEST) {
        isa = CM_ONLY_PLAIN ? CALOMU_ISA_PLAIN : CALOMU_ISA_AVX512;
        while (!cm_isa_here(isa)) isa = (calomu_isa)(isa - 1);
    }
    if (!cm_isa_here(isa)) return CALOMU_EUSAGE;
    (void)calomu_modes_set(&host);
    c = (o->allocate ? o->allocate : cm_default_allocate)(o->user, sizeof *c);
    cm_modes_again(&host);
    if (!c) return CALOMU_EMEMORY;
    memset(c, 0, sizeof *c);
    c->allocate = o->allocate ? o->allocate : cm_default_allocate;
    c->release = o->release ? o->release : cm_default_release;
    c->log = o->log;
    c->user = o->user;
    c->threads = o->threads ? o->threads : 1;
#ifndef CM_THREADS
    c->threads = 1;
#endif
    c->process = cm_process();
    c->isa = isa;
    c->direct = o->direct != 0;
    c->plain = o->plain != 0 || CM_ONLY_PLAIN;
    c->recompute = o->recompute != 0;
    c->unfused = o->unfused != 0;
    c->device = o->device;
    c->device_number = o->device_number;
    c->math = o->math;
    cm_describe_build(c);
    *out = c;
    return CALOMU_OK;
}

static void cm_ready_free(calomu *c);                        /* 14 */

/* What the context keeps goes before the context: the networks on a device, the predictors (which
   are clones of it), the arena, then itself, by its own function.  Objects with a clone are left
   alone and may be used on; an output or a writer that is still open would keep a pointer to memory
   that is gone. */
void calomu_close(calomu *c)
{
    if (!c) return;
    cm_place_free(c, c->place);
    cm_ready_free(c);
    cm_release(c, c->inference_arena);
    cm_release(c, c);
}

/* Everything of c but what it keeps and has to say: choices, allocator, log, fault.  A clone must
   not share `place`, `ready` and the arena, or they would be freed twice; nor a count of calls that
   are under way. */
static void cm_clone_again(calomu *own, const calomu *c)
{
    *own = *c;
    own->place = NULL;
    own->inference_arena = NULL;
    own->inference_arena_size = 0;
    own->ready = NULL;
    own->entered = 0;
    own->message[0] = 0;
}

/* Two uses.  As `own` of an object, which is released by the allocator that made it even when c is
   closed.  As the context of a thread in a parallel loop: messages are written without a lock,
   since each thread writes its own, and the caller's thread copies the one that counts. */
calomu *cm_clone(calomu *c)
{
    calomu *own = cm_allocate(c, 1, sizeof *own);
    if (own) cm_clone_again(own, c);
    return own;
}

void cm_clone_free(calomu *own) { calomu_close(own); }

/* The clock of a profile; tools/bench_profile.c is its user. */
void cm_profile_set(calomu *c, void (*mark)(void *user, const cm_profile_mark *mark), void *user)
{
    c->profile_mark = mark;
    c->profile_user = user;
}

/* Never NULL, so that a program may print it without looking, even behind a calomu_open that
   failed. */
const char *calomu_message(const calomu *c)
{
    if (!c) return "no context";
    return c->message[0] ? c->message : "no failure";
}

const char *calomu_build_info(const calomu *c) { return c->build; }

const char *calomu_status_text(calomu_status status)
{
    switch (status) {
    case CALOMU_OK: return "done";
    case CALOMU_EUSAGE: return "bad argument";
    case CALOMU_EFORMAT: return "bad or inconsistent file";
    case CALOMU_EIO: return "input/output error";
    case CALOMU_EMEMORY: return "out of memory";
    case CALOMU_ENOTFINITE: return "not finite";
    case CALOMU_EDEVICE: return "the device failed";
    case CALOMU_STOPPED: return "stopped on request";
    }
    return "unknown status";
}

/* x as text, the same in every locale: "1.5", "-2e-07", "inf", "" for a NaN.

   17 digits bring every double back (IEEE 754-2008, Sec. 5.12.2), so 17 are what files of this
   library have: 40.64 is written as 40.640000000000001.  The shortest text that brings x back
   (Steele and White, PLDI 1990) would be easier on the eye, and needs long arithmetic or a table of
   powers of 5; nobody reads these files by eye.

   A host may have set a locale with another decimal point; snprintf and strtod follow it, and
   setlocale would change it for all threads of the host.  Here the only characters that %g gives
   besides the point are digits, sign and e: whatever else stands there is the point.  The longest
   text, "-1.2345678901234567e-308", has 24 characters and fits both arrays, with a point of several
   bytes too. */
static CM_NOINLINE char *cm_number_text(char text[32], double x, int digits)
{
    char local[64];
    size_t i, n = 0;
    int point = 0;
    if (digits < 1) digits = 1;
    if (digits > 17) digits = 17;
    text[0] = 0;
    if (isnan(x)) return text;
    if (isinf(x)) return strcpy(text, x > 0 ? "inf" : "-inf");
    (void)snprintf(local, sizeof local, "%.*g", digits, x);
    for (i = 0; local[i] && n < 31; i++) {
        if (strchr("0123456789+-e", local[i])) {
            text[n++] = local[i];
        } else if (!point) {
            text[n++] = '.';         /* a locale's point may be several bytes */
            point = 1;
        }
    }
    text[n] = 0;
    return text;
}

char *calomu_number(char text[32], double x, int digits)
{
    calomu_modes host;
    (void)calomu_modes_set(&host);   /* libc rounds as the modes say, in text too */
    (void)cm_number_text(text, x, digits);
    calomu_modes_restore(&host);
    return text;
}

/* Length of  [+-] digits [. digits] [e [+-] digits]  at s, 0 if there is none; *point: where the
   '.' is, or -1. */
static size_t cm_number_length(const char *s, long *point)
{
    size_t i = 0, digits = 0, e;
    *point = -1;
    if (s[i] == '+' || s[i] == '-') i++;
    for (; s[i] >= '0' && s[i] <= '9'; i++) digits++;
    if (s[i] == '.') {
        *point = (long)i++;
        for (; s[i] >= '0' && s[i] <= '9'; i++) digits++;
    }
    if (!digits) return 0;
    if (s[i] == 'e' || s[i] == 'E') {
        e = i + 1;
        if (s[e] == '+' || s[e] == '-') e++;
        if (s[e] >= '0' && s[e] <= '9') {
            while (s[e] >= '0' && s[e] <= '9') e++;
            i = e;
        }
    }
    return i;
}

/* The number at `text`; NULL: none, or one that is not finite or longer than 100 characters.
   strtod does the conversion but does not choose what is one: on its own it skips white space,
   takes "nan", "inf" and hexadecimal numbers, and wants the locale's point.  So the characters are
   taken by cm_number_length, and copied with the locale's point in place of the '.'.

   100 characters and a point of at most 13 bytes (the probe has 16) fit into 128.  What is too
   small for a double becomes 0 or a subnormal number; what is too large becomes infinity and is
   refused. */
static CM_NOINLINE const char *cm_parse(const char *text, double *x)
{
    char local[128], probe[16], *out = local;
    long point;
    size_t i, n = cm_number_length(text, &point), width;
    double value;
    if (n == 0 || n > 100) return NULL;
    (void)snprintf(probe, sizeof probe, "%.1f", 0.5);   /* "0", the locale's point, "5" */
    width = strlen(probe) - 2;
    for (i = 0; i < n; i++) {
        if ((long)i == point) {
            memcpy(out, probe + 1, width);
            out += width;
        } else {
            *out++ = text[i];
        }
    }
    *out = 0;
    value = strtod(local, NULL);
    if (!isfinite(value)) return NULL;
    *x = value;
    return text + n;
}

const char *calomu_parse(const char *text, double *x)
{
    calomu_modes host;
    (void)calomu_modes_set(&host);
    text = cm_parse(text, x);
    calomu_modes_restore(&host);
    return text;
}

/* Loops over independent units of work; which thread takes which does not matter to any bit: a unit
   writes memory of its own, and what is added up is added by one thread afterwards.

       CM_PARALLEL_FOR(threads)                    is, with OpenMP:
       for (u = 0; u < n; u++) call;                   in each of the threads:
                                                           set its modes
                                                           take one u after the other: call
                                                           bring its modes back
                                                   and without OpenMP the plain loop

   The threads of OpenMP live on between calls: each sets its own modes first (libgomp's keep those
   of the thread that made them when it did).  The `for` that CM_PARALLEL ends with runs once, as a
   scope with a beginning and an end; `nowait` leaves the only barrier to the end of the region.

   A loop cannot be left in the middle.  So a unit that fails notes its number under CM_CRITICAL,
   the lowest of all stays, and behind the loop that unit is done again by the caller's thread: the
   message is that of the first bad muon, whatever the threads did.  The memory for it may be there
   by then; then the failure is reported as one of memory (cm_predict_failed), or the result stands
   (cm_features_compute). */
#ifdef CM_THREADS
#define CM_PRAGMA(x) _Pragma(#x)
#define CM_PARALLEL_FOR(threads) CM_PARALLEL(threads) CM_PRAGMA(omp for schedule(dynamic) nowait)
#define CM_PARALLEL_FOR_STATIC(threads) \
    CM_PARALLEL(threads) CM_PRAGMA(omp for schedule(static) nowait)
#define CM_PARALLEL(threads) \
    CM_PRAGMA(omp parallel num_threads(threads) if (threads > 1)) \
    for (cm_shift shift = cm_shift_begin(); shift.on; cm_shift_end(&shift))
typedef struct cm_shift {            /* the work of a thread in a parallel loop */
    calomu_modes host;
    int on;
} cm_shift;

static cm_shift cm_shift_begin(void)
{
    cm_shift s;
    (void)calomu_modes_set(&s.host);  /* the caller's thread could (cm_enter), so can this one */
    s.on = 1;
    return s;
}

static void cm_shift_end(cm_shift *s)
{
    calomu_modes_restore(&s->host);
    s->on = 0;
}

#define CM_CRITICAL CM_PRAGMA(omp critical(calomu_failures))
static int cm_thread(void) { return omp_get_thread_num(); }
static double cm_seconds(void) { return omp_get_wtime(); }
#else
#define CM_PARALLEL_FOR(threads) (void)(threads);
#define CM_PARALLEL_FOR_STATIC(threads) (void)(threads);
#define CM_CRITICAL
static int cm_thread(void) { return 0; }
static double cm_seconds(void) { return 0; }
#endif

/* `call` for u = 0 to n - 1; fixed: each thread takes the same u every time.  One thread goes round
   OpenMP, which asks the kernel to wake nobody at the end of each loop (libgomp 12: 4% of the time
   of one muon). */
#define CM_EACH_UNIT(threads, fixed, u, n, call) \
    do { \
        if ((threads) == 1) { \
            for (u = 0; u < (n); u++) call; \
        } else if (fixed) { \
            CM_PARALLEL_FOR_STATIC(threads) \
            for (u = 0; u < (n); u++) call; \
        } else { \
            CM_PARALLEL_FOR(threads) \
            for (u = 0; u < (n); u++) call; \
        } \
    } while (0)

/* ============================================================================================
   11 Files: bytes, output, input, .cmu data, safetensors
   ============================================================================================

   Three kinds of files are written and read: data (.cmu), models and checkpoints (both
   safetensors).  In this order: bytes in a fixed order, and the checksum; output; input; .cmu, its
   format, writer and reader; safetensors, its parser, reader and writer; whether a file fits a
   network; which kind a file is.

   What a reader can rely on.  A file that has been opened is whole: it ends where it says, and its
   parts have the checksums that they should have.  That finds accidents.  A forger can compute
   checksums, too; so every number of a file is held against what it could do, as if there were
   none.  The tables at the reader of .cmu and at safetensors tell which check stops what.

   What a writer can rely on.  After a kill at any moment, a power cut included, there is under the
   file's name what was there before or all of the new file.  Who reads while another writes sees
   one of the two. */

/* ---- bytes: little-endian on every machine, at any address.  Compilers turn these shifts into
   one load or store where that is right; `inline` makes gcc do it in the loops below too.

   cm_get32 of 01 02 03 04 is 0x04030201.  A cast of the pointer to uint32_t * would be undefined
   where the address is odd, and wrong on big-endian machines. */

static inline uint32_t cm_get32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t cm_get64(const unsigned char *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 | (uint64_t)p[3] << 24
         | (uint64_t)p[4] << 32 | (uint64_t)p[5] << 40 | (uint64_t)p[6] << 48
         | (uint64_t)p[7] << 56;
}

static void cm_put32(unsigned char *p, uint32_t v)
{
    int i;
    for (i = 0; i < 4; i++) p[i] = (unsigned char)(v >> 8 * i);
}

static void cm_put64(unsigned char *p, uint64_t v)
{
    int i;
    for (i = 0; i < 8; i++) p[i] = (unsigned char)(v >> 8 * i);
}

/* Floats travel as their bit patterns.  memcpy is the one way to them that C99 defines for every
   compiler; it costs nothing.  Byte order of floats and integers is the same on every machine that
   has IEEE 754 arithmetic and runs C today. */
static uint32_t cm_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float cm_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* One step of the checksum.  Multiplying by an odd number, adding and rotating are bijections of
   the 64-bit words: given the word, different states stay different, and given the state,
   different words lead to different states.  The form is that of xxHash's round. */
static uint64_t cm_mix(uint64_t state, uint64_t word)
{
    state += word * 0xC2B2AE3D27D4EB4Fu;
    return (state << 31 | state >> 33) * 0x9E3779B185EBCA87u;
}

/* A change within any one aligned 8-byte word of the input always changes the result: it changes
   the state behind that word, and every later step is bijective in the state.  Any other change
   goes unseen with a chance of about 2^-64.  It protects against accidents, not against forgers.
   Four independent lanes hide the latency of the multiplication.  seed: whatever else the bytes
   belong to; the length is mixed in, so that zeros padding the last word mean nothing.

   CRC-32 would see every burst of 32 bits, but miss one of 2^32 other changes, and byte by byte
   with a table it is several times slower.  A cryptographic hash would stop forgers only with a
   key that nobody here has.

   For who writes it anew in another language, seed and bytes, with the results in hexadecimal:

       0  ""                                      c8d7880d14fbaeb3
       0  "calomu"                                c5321e9a449e2b8e
       1  "calomu"                                f641d3f870f8a953
       0  "abcdefghijklmnopqrstuvwxyz0123456789"  604e62621f1061a6 */
uint64_t cm_checksum(uint64_t seed, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t a = seed, b = seed + 0x165667B19E3779F9u, c = ~seed, d = seed ^ 0x27D4EB2F165667C5u;
    uint64_t word = 0;
    size_t i = 0;
    int j;
    for (; n - i >= 32; i += 32) {   /* word k goes to lane k % 4 */
        a = cm_mix(a, cm_get64(p + i));
        b = cm_mix(b, cm_get64(p + i + 8));
        c = cm_mix(c, cm_get64(p + i + 16));
        d = cm_mix(d, cm_get64(p + i + 24));
    }
    a = cm_mix(cm_mix(cm_mix(a, b), c), d);
    for (; n - i >= 8; i += 8) a = cm_mix(a, cm_get64(p + i));
    for (j = 0; i < n; i++, j += 8) word |= (uint64_t)p[i] << j;
    a = cm_mix(cm_mix(a, word), n);
    a = (a ^ a >> 32) * 0xC2B2AE3D27D4EB4Fu;
    return a ^ a >> 29;
}

/* ---- small services

   A file's name in front of a message, and memory that grows. */

/* Puts a file's name in front of the message that a deeper function left, and sets the status anew:
   what was a wrong argument for a writer (EUSAGE) is a bad file (EFORMAT) for a reader of the same
   numbers.  The message is copied first: cm_fail may not read what it writes. */
static calomu_status cm_fail_in(calomu *c, calomu_status s, const char *path)
{
    char why[sizeof c->message];
    memcpy(why, c->message, sizeof why);
    return cm_fail(c, s, "%s: %s", path, why);
}

/* Makes *memory at least `need` bytes, keeping the first `keep`; grows by half at least, so that
   appending costs constant time on average.  On failure the old memory stays as it is.

   Any pointer into the old memory is invalid afterwards, so callers keep offsets. */
static calomu_status cm_need(calomu *c, void **memory, size_t *size, size_t keep, size_t need)
{
    size_t wanted = *size + *size / 2;
    void *larger;
    if (need <= *size) return CALOMU_OK;
    if (wanted < need) wanted = need;
    larger = cm_allocate(c, wanted, 1);
    if (!larger) return CALOMU_EMEMORY;
    if (keep) memcpy(larger, *memory, keep);
    cm_release(c, *memory);
    *memory = larger;
    *size = wanted;
    return CALOMU_OK;
}

/* ---- what the system refuses */

/* The kernel has no memory: the same for the caller as if malloc had none. */
static calomu_status cm_system_status(int error)
{
    return error == ENOMEM ? CALOMU_EMEMORY : CALOMU_EIO;
}

/* ---- output that appears under its name only when complete

   Bytes go to a temporary neighbour, .NAME.PID.K.tmp in the same folder, which is flushed to the
   disk and renamed when everything is written.  Its name is taken with O_EXCL, so what a killed
   run left behind is passed by and never written to (nor removed: the program calomu does that,
   which knows whose it is).  Links are followed first: renaming replaces the file behind the link,
   not the link.  What exists and is no regular file is written directly.

   What a kill leaves (SIGKILL or a crash; on other signals the program calomu removes the temporary
   file before it ends):

       killed                               under the name            beside it
       before the temporary file is there   the old file, or none     nothing
       while bytes go into it               the old file, or none     .NAME.PID.K.tmp
       after the rename                     the new file              nothing
       power cut after the rename, before   the old file or the new   nothing, or the
         the folder has been flushed          one, whole either way     temporary file

   Rejected: writing in place and marking the end, which destroys the old file first; a temporary
   file in /tmp, since rename does not go across file systems; mkstemp, whose mode is 0600 and whose
   names do not tell whose they are.

   Two writers of one name do not disturb each other, as K differs; the last to close wins.  The
   program calomu takes a lock before (tools/files.c).

   A hard link keeps the old content: renaming replaces one name.  Access rights of a file that is
   replaced are kept, its owner and its extended attributes are not.

   In this order: the state; the failure; POSIX (what a path leads to, the temporary file, sending,
   flushing, the end); the same in ISO C; the five functions of the interface.

   The life of an output: open; any number of writes; close or abandon, which free it.  After a
   failure writes do nothing and repeat it, and the close turns into an abandon that fails.  So a
   caller may write without looking, and look at the close:

       o = NULL, s = calomu_output_open(c, path, &o);
       if (!s) s = calomu_output_write(o, a, n);          what failed here ...
       if (!s) s = calomu_output_write(o, b, m);
       if (o) s = calomu_output_close(o);                 ... is told again here */

enum { CM_PATH = 4096, CM_OUTPUT_BUFFER = 1 << 16 };

struct calomu_output {
    calomu *c;
    calomu_status status;            /* of the first failure; its text is kept because others */
    char message[512];               /*   may fail in the same context before the close */
    char path[CM_PATH];              /* as the caller named it */
    char target[CM_PATH];            /* behind links */
    char temporary[CM_PATH + 64];    /* "": the target is written directly */
#if CM_POSIX
    int fd;
#else
    FILE *file;
#endif
    size_t used;
    unsigned char buffer[CM_OUTPUT_BUFFER];
};

/* Every failure of writing comes through here: the file's name as the caller gave it, what was
   tried, and the system's reason.  An error number of 0 (a library that sets none) becomes EIO.

   The text is copied into o, because another call may fail in the same context before the file is
   closed, and the close must tell of the first failure. */
static calomu_status cm_output_fail(calomu_output *o, const char *doing, int error)
{
    o->status = cm_fail(o->c, cm_system_status(error), "%s: %s: %s", o->path, doing,
                        strerror(error ? error : EIO));
    memcpy(o->message, o->c->message, sizeof o->message);
    return o->status;
}

#if CM_POSIX

/* The number in /dev/stdout, /dev/fd/N and so on, or -1.  Opening these names anew would start at
   the beginning of a file that the shell has opened for appending; a duplicate does not.

   fd stays below 1,000,000, so the product cannot overflow; no system gives numbers that large.  -1
   for what only looks like such a name, "/dev/fd/1x", which then is a path like any other. */
static int cm_output_descriptor(const char *path)
{
    const char *digits = NULL;
    int fd = 0;
    if (!strcmp(path, "/dev/stdout")) return 1;
    if (!strcmp(path, "/dev/stderr")) return 2;
    if (!strncmp(path, "/dev/fd/", 8)) digits = path + 8;
    if (!strncmp(path, "/proc/self/fd/", 14)) digits = path + 14;
    if (!digits || !*digits) return -1;
    for (; *digits; digits++) {
        if (*digits < '0' || *digits > '9' || fd > 99999) return -1;
        fd = fd * 10 + (*digits - '0');
    }
    return fd;
}

/* Replaces o->target by what it links to; 0 or an error number.  At most 40 links are followed, as
   by Linux, which calls a longer chain ELOOP.  A relative link starts in the folder of the link.
   Only the last part of the path is looked at: links among its folders are the system's, as in
   every open.

   Between this and the rename somebody may put another link there.  Who can do that may write in
   the folder, and could as well replace the file itself: nothing is lost that the folder's rights
   protect. */
static int cm_output_follow(calomu_output *o)
{
    char link[CM_PATH];
    size_t folder;
    ssize_t n;
    int hops;
    for (hops = 0; hops < 40; hops++) {
        char *slash = strrchr(o->target, '/');
        if (cm_output_descriptor(o->target) >= 0) return 0;
        n = readlink(o->target, link, sizeof link);
        if (n < 0) return 0;         /* no link, or not there: what opens it will tell */
        folder = link[0] == '/' || !slash ? 0 : (size_t)(slash - o->target) + 1;
        if (n == 0 || folder + (size_t)n >= sizeof o->target) return ENAMETOOLONG;
        memcpy(o->target + folder, link, (size_t)n);
        o->target[folder + (size_t)n] = 0;
    }
    return ELOOP;
}

/* A new file beside the target; 0 or an error number.  O_EXCL: a name that is taken, whoever took
   it and be it by a link that leads nowhere, is passed by (POSIX, open: O_CREAT with O_EXCL does
   not follow links), so nobody can have another file written to by guessing the name.  Mode 0666
   less the umask, like any new file.  200 bytes of the name are enough to recognise it, and keep
   the whole below the 255 that file systems allow. */
static int cm_output_neighbour(calomu_output *o)
{
    const char *slash = strrchr(o->target, '/');
    const char *base = slash ? slash + 1 : o->target;
    int folder = (int)(base - o->target), k;
    for (k = 0; k < 100000; k++) {
        int n = snprintf(o->temporary, sizeof o->temporary, "%.*s.%.200s.%ld.%d.tmp", folder,
                         o->target, base, (long)getpid(), k);
        if (n < 0 || (size_t)n >= sizeof o->temporary) break;
        do o->fd = open(o->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        while (o->fd < 0 && errno == EINTR);
        if (o->fd >= 0) return 0;
        if (errno != EEXIST) {
            int error = errno;
            o->temporary[0] = 0;
            return error;
        }
    }
    o->temporary[0] = 0;
    return EEXIST;
}

/* Decides how the target is written (see above) and opens what is written to.
   Postcondition on success: o->fd is open, and o->temporary names a file of ours or is "".

   In the order of the code: a descriptor that the shell has opened is duplicated (above 2, so that
   a program without a standard output does not get it as such); what exists and is no regular file
   is opened as it is, which waits for a reader where it is a pipe; a regular file that may not be
   written is refused, although the folder's rights would allow the rename; a name that ends in a
   slash is a folder's.  fchmod comes after the creation, with the bits for reading, writing and
   executing only: a set-user-ID bit is not handed on to new content. */
static calomu_status cm_output_begin(calomu_output *o)
{
    struct stat st;
    int there, error = cm_output_follow(o), fd;
    o->fd = -1;
    if (error) return cm_output_fail(o, "cannot create", error);
    fd = cm_output_descriptor(o->target);
    if (fd >= 0) {
        o->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return o->fd < 0 ? cm_output_fail(o, "cannot write", errno) : CALOMU_OK;
    }
    there = stat(o->target, &st) == 0;
    if (!there && errno != ENOENT) return cm_output_fail(o, "cannot create", errno);
    if (there && !S_ISREG(st.st_mode)) {
        do o->fd = open(o->target, O_WRONLY | O_NOCTTY | O_CLOEXEC);
        while (o->fd < 0 && errno == EINTR);
        return o->fd < 0 ? cm_output_fail(o, "cannot write", errno) : CALOMU_OK;
    }
    /* renaming would replace even a file that its owner has protected */
    if (there && access(o->target, W_OK) != 0) return cm_output_fail(o, "cannot write", errno);
    if (o->target[0] == 0 || o->target[strlen(o->target) - 1] == '/')
        return cm_output_fail(o, "cannot create", ENOENT);
    error = cm_output_neighbour(o);
    if (error) return cm_output_fail(o, "cannot create a file in its folder", error);
    if (there) (void)fchmod(o->fd, st.st_mode & 0777);
    return CALOMU_OK;
}

/* All n bytes, however few the system takes at a time; 0 or an error number.  At most 1 GB per
   call: some systems refuse more than 2^31 bytes. */
static int cm_output_send(calomu_output *o, const unsigned char *p, size_t n)
{
    while (n > 0) {
        ssize_t sent = write(o->fd, p, n < 1 << 30 ? n : 1 << 30);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return sent < 0 ? errno : EIO;
        p += sent;
        n -= (size_t)sent;
    }
    return 0;
}

/* Down to the disk; 0 or an error number.  Pipes, devices and some file systems' folders cannot be
   flushed, and say so with EINVAL or ENOTSUP.

   Any other error is one: after a failed fsync Linux may have dropped the pages, so that a second
   fsync would succeed over lost bytes.  It is called once. */
static int cm_output_sync(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : errno;
}

/* Makes the new name itself survive a power cut.  Where a folder cannot be opened: no error.

   Cuts o->target at its last slash, which nobody needs any more; "/NAME" leaves "/".  A folder that
   may be searched but not read cannot be opened; then the file is there, and only the power cut is
   left to luck. */
static int cm_output_sync_folder(calomu_output *o)
{
    char *slash = strrchr(o->target, '/');
    int fd, error;
    if (slash) slash[slash == o->target] = 0;
    fd = open(slash ? o->target : ".", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    error = cm_output_sync(fd);
    (void)close(fd);
    return error;
}

/* Flush, close, rename, in this order: a crash of the machine leaves the old file or the new one,
   never a name without its content.  Where the order is cut by a failure, cm_output_drop, which
   every close and abandon calls, removes the temporary file.

   close may report EINTR with the descriptor gone (Linux) or still there (POSIX leaves it open): it
   is not closed again, which might hit a file that another thread has opened since.  After the
   rename o->temporary is empty, so the drop that follows finds nothing to remove. */
static int cm_output_end(calomu_output *o)
{
    int fd = o->fd, error = cm_output_sync(fd);
    if (error) return error;
    o->fd = -1;
    if (close(fd) != 0 && errno != EINTR) return errno;
    if (!o->temporary[0]) return 0;
    if (rename(o->temporary, o->target) != 0) return errno;
    o->temporary[0] = 0;
    return cm_output_sync_folder(o);
}

/* Harmless after cm_output_end: then there is nothing left to close or remove. */
static void cm_output_drop(calomu_output *o)
{
    if (o->fd >= 0) (void)close(o->fd);
    if (o->temporary[0]) (void)unlink(o->temporary);
}

#else /* ISO C alone: no exclusive creation, no flushing to the disk, every target is a file */

/* ISO C alone: fopen cannot create exclusively, there is no number of a process and no way to the
   disk but fclose.  Two writers of one name would share NAME.tmp; a machine that loses power may
   lose the file.  Where rename does not replace, the old file is removed first: a kill just there
   leaves only NAME.tmp, complete. */
static calomu_status cm_output_begin(calomu_output *o)
{
    (void)snprintf(o->temporary, sizeof o->temporary, "%s.tmp", o->target);
    errno = 0;
    o->file = fopen(o->temporary, "wb");
    return o->file ? CALOMU_OK : cm_output_fail(o, "cannot create", errno);
}

static int cm_output_send(calomu_output *o, const unsigned char *p, size_t n)
{
    errno = 0;
    return fwrite(p, 1, n, o->file) == n ? 0 : errno ? errno : EIO;
}

static int cm_output_end(calomu_output *o)
{
    FILE *file = o->file;
    errno = 0;
    o->file = NULL;
    if (fclose(file) != 0) return errno ? errno : EIO;
    if (rename(o->temporary, o->target) != 0) {
        (void)remove(o->target);     /* some systems do not rename onto a file that exists */
        if (rename(o->temporary, o->target) != 0) return errno ? errno : EIO;
    }
    o->temporary[0] = 0;
    return 0;
}

static void cm_output_drop(calomu_output *o)
{
    if (o->file) (void)fclose(o->file);
    if (o->temporary[0]) (void)remove(o->temporary);
}

#endif

/* Afterwards, on success: the folder can be written to and the temporary file is there, so that
   whoever opens an output before a long computation does not find at its end that it may not be
   written.  On failure nothing is left. */
calomu_status calomu_output_open(calomu *c, const char *path, calomu_output **output)
{
    calomu_output *o;
    calomu_status s;
    if (!path || !*path) return cm_fail(c, CALOMU_EUSAGE, "an output file needs a name");
    if (strlen(path) >= CM_PATH)
        return cm_fail(c, CALOMU_EUSAGE, "the name of an output file is longer than %d bytes",
                       CM_PATH - 1);
    o = cm_allocate(c, 1, sizeof *o);
    if (!o) return CALOMU_EMEMORY;
    o->c = c;
    strcpy(o->path, path);
    strcpy(o->target, path);
    s = cm_output_begin(o);
    if (s) {
        cm_release(c, o);
        return s;
    }
    *output = o;
    return CALOMU_OK;
}

/* Once a write has failed, every later call repeats the failure. */
static calomu_status cm_output_failed(calomu_output *o)
{
    return cm_fail(o->c, o->status, "%s", o->message);
}

/* The buffer counts as empty afterwards even on failure: the output is lost then anyway, and must
   not be tried again at the close. */
static calomu_status cm_output_flush(calomu_output *o)
{
    int error = cm_output_send(o, o->buffer, o->used);
    o->used = 0;
    return error ? cm_output_fail(o, "cannot write", error) : CALOMU_OK;
}

/* Bytes are gathered in 64 KB, so that rows of text do not cost a system call each; larger pieces
   go straight through behind them.  Success here means that the bytes are taken, not that they are
   on the disk: that is what the close says. */
calomu_status calomu_output_write(calomu_output *o, const void *bytes, size_t n)
{
    int error;
    if (o->status) return cm_output_failed(o);
    if (n > CM_OUTPUT_BUFFER - o->used && cm_output_flush(o)) return o->status;
    if (n > CM_OUTPUT_BUFFER) {      /* here the buffer is empty: the order of bytes is kept */
        error = cm_output_send(o, bytes, n);
        return error ? cm_output_fail(o, "cannot write", error) : CALOMU_OK;
    }
    if (n) memcpy(o->buffer + o->used, bytes, n);
    o->used += n;
    return CALOMU_OK;
}

/* The one place where a file appears.  After any failure, now or earlier, the temporary file goes
   and the old file stays; `o` is freed in every case.  The message comes from o and not from the
   context, where other failures may have come since. */
calomu_status calomu_output_close(calomu_output *o)
{
    calomu_status s = o->status;
    int error;
    if (s) {
        s = cm_output_failed(o);
    } else {
        s = cm_output_flush(o);
        error = s ? 0 : cm_output_end(o);
        if (error) s = cm_output_fail(o, "cannot complete", error);
    }
    cm_output_drop(o);
    cm_release(o->c, o);
    return s;
}

void calomu_output_abandon(calomu_output *o)
{
    if (!o) return;
    cm_output_drop(o);
    cm_release(o->c, o);
}

/* ---- input: regular files, read at offsets, from any number of threads at once

   The size is taken once, when the file is opened, and every offset is checked against it.  A file
   that another process lengthens is read as it was; one that is cut is an error where the bytes
   end.  A file that is replaced by rename (as every writer here does it) keeps its content for
   whoever has it open.

   Rejected: mmap.  A file that is cut while it is mapped ends the process with SIGBUS, a failed
   read on a network file system too, and neither can be told as an error. */

typedef struct cm_file {
    uint64_t size;
#if CM_POSIX
    int fd;
#else
    unsigned char *all;              /* ISO C has one position per stream: read it whole */
#endif
} cm_file;

static calomu_status cm_file_fail(calomu *c, const char *path, const char *doing, int error)
{
    return cm_fail(c, cm_system_status(error), "%s: %s: %s", path, doing,
                   strerror(error ? error : EIO));
}

#if CM_POSIX

/* Without O_NONBLOCK, opening a FIFO would wait for a writer.

   Regular files only: a device has no size to check against, a pipe no offsets.  What a name leads
   to is asked of the open descriptor (fstat) and not of the name, which could lead elsewhere by
   then.  O_CLOEXEC: programs that the host starts do not inherit it. */
static calomu_status cm_file_open(calomu *c, const char *path, cm_file *f)
{
    struct stat st;
    int fd, error;
    do fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return cm_file_fail(c, path, "cannot open", errno);
    if (fstat(fd, &st) != 0) {
        error = errno;
        (void)close(fd);
        return cm_file_fail(c, path, "cannot open", error);
    }
    if (!S_ISREG(st.st_mode)) {
        (void)close(fd);
        return cm_fail(c, CALOMU_EFORMAT, "%s: is %s, not a regular file", path,
                       S_ISDIR(st.st_mode) ? "a directory" : "a pipe or device");
    }
    f->fd = fd;
    f->size = (uint64_t)st.st_size;
    return CALOMU_OK;
}

/* Exactly n bytes at offset.  pread keeps no position, so threads do not disturb each other.  The
   caller has checked offset and n against f->size; a file that another process cuts meanwhile is
   an error and not a short result. */
static calomu_status cm_file_read(calomu *c, const cm_file *f, const char *path, uint64_t offset,
                                  void *to, size_t n)
{
    unsigned char *p = to;
    while (n > 0) {
        ssize_t got = pread(f->fd, p, n < 1 << 30 ? n : 1 << 30, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return cm_file_fail(c, path, "cannot read", errno);
        if (got == 0)
            return cm_fail(c, CALOMU_EIO, "%s: ends at byte %llu: it was cut while being read",
                           path, (unsigned long long)offset);
        p += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return CALOMU_OK;
}

static void cm_file_close(calomu *c, cm_file *f)
{
    (void)c;
    (void)close(f->fd);
}

#else

/* The size of a stream cannot be asked for in ISO C (fseek to the end need not work on binary
   streams), so it is read in growing memory. */
static calomu_status cm_file_open(calomu *c, const char *path, cm_file *f)
{
    void *all = NULL;
    size_t capacity = 0, used = 0, got = 1;
    calomu_status s = CALOMU_OK;
    FILE *file;
    errno = 0;
    file = fopen(path, "rb");
    if (!file) return cm_file_fail(c, path, "cannot open", errno);
    while (!s && got > 0) {
        s = cm_need(c, &all, &capacity, used, used + 65536);
        if (s) break;
        got = fread((unsigned char *)all + used, 1, 65536, file);
        used += got;
    }
    if (!s && ferror(file)) s = cm_file_fail(c, path, "cannot read", errno);
    (void)fclose(file);
    if (s) {
        cm_release(c, all);
        return s;
    }
    f->all = all;
    f->size = used;
    return CALOMU_OK;
}

static calomu_status cm_file_read(calomu *c, const cm_file *f, const char *path, uint64_t offset,
                                  void *to, size_t n)
{
    if (offset > f->size || n > f->size - offset)
        return cm_file_fail(c, path, "cannot read", EIO);
    if (n) memcpy(to, f->all + offset, n);
    return CALOMU_OK;
}

static void cm_file_close(calomu *c, cm_file *f) { cm_release(c, f->all); }

#endif

/* ---- .cmu, version 1, byte by byte

   Everything is little-endian: u16, u32, u64 unsigned integers, i32 two's complement, f32 and f64
   IEEE 754.  Energies are GeV, lengths mm, the field T.  A checksum is cm_checksum(seed, all bytes
   before it in its part), so a change within any aligned 8 bytes is always seen.  The file is
   written from front to back without seeking:

   header (568 bytes), event 0, event 1, ..., index (8 bytes per event), trailer (48 bytes)

   header                                         seed of its checksum: 0
       0   8  magic: 0x89 'C' 'M' 'U' 0x0D 0x0A 0x1A 0x0A (a transfer as text would break it)
       8  u32 0x01020304, the mark of byte order
      12  u32 version, 1
      16  u32 size of this header, 568
      20  u32 state of the features: 0 none, 1 raw, 2 standardised, 3 standardised by unknown means
      24  u32 convention of the features: 0 text, 1 authors; 0 without features
      28  f32 E_grow of the features; 0 without features
      32  i32 nz, nx, ny
      44  u32 1 if events have losses, else 0
      48   8  units: "GeV mm T"
      56  f64 pitch along z, x, y
      80  f64 origin along z, x, y
     104  f64 field
     112  f64 mean of each of the 28 features; 0 unless the state is 2
     336  f64 their deviations; 0 unless the state is 2
     560  u64 checksum H

   event i                                        seed: H + i
       0  u32 length of this event in bytes, checksum included
       4  u32 number of hits n
       8  f32 true energy, x, y, charge; what is not known is the NaN 0x7FC00000
      24  f32 28 features, only if the state is not 0
     then f32 lost, deposited, leaked, unseen, only if the header says that events have losses;
              what is not known is the NaN 0x7FC00000
     then, only if n > 0:
       0  u32 base: the smallest bit pattern of an energy
       4  u8  shift: number of low zero bits that all (pattern - base) share
       5  u8  width: bits of the largest (pattern - base) >> shift; width + shift <= 32
       6  u16 0
       8  u32 number of bytes of the gaps
      12      gaps: per hit, cell - (cell before) - 1, with -1 before the first: 7 bits per byte,
              low ones first, the high bit of a byte set if another follows; no more than needed
              codes: per hit `width` bits, (pattern - base) >> shift; bit k of this string is bit
              k%8 of byte k/8; up to 7 zero bits fill the last byte
     and at the end
          u64 checksum

   index                                          u64 offset of each event in the file
   trailer                                        seed: H
       0   8  magic: "CMU-end" 0x0A
       8  u64 number of events
      16  u64 number of hits in all
      24  u64 offset of the index
      32  u64 checksum of the index, seed H
      40  u64 checksum

   Positive floats sort like their bit patterns, so subtracting the smallest loses nothing and
   leaves small numbers; energies rounded to few mantissa bits share low zero bits.  GEANT4 hits
   with 12 mantissa bits take about 3.2 bytes instead of 8.

   Event 0 of testdata/points.cmu, a muon of 100 GeV with 717 hits, in 2441 bytes = 24 + 12 + 783 +
   1614 + 8:

        0   89 09 00 00  CD 02 00 00   length 2441, 717 hits
        8   00 00 C8 42 ...            100 GeV, x = -1.766 mm, y = 0.287 mm, charge 1
       24   00 10 03 2C  0B  12  00 00 base 0x2C031000 (1.9e-12 GeV), shift 11, width 18
       32   0F 03 00 00                783 bytes of gaps
       36   D0 03  1E  00  BB 07 ...   gaps 464, 30, 0, 955: cells 464, 495, 496, 1452
      819   ...                        717 codes of 18 bits: 12,906 bits in 1614 bytes
     2433   ...                        checksum

   Cell 496 is (iz 0, ix 15, iy 16), where the muon enters.  2441 bytes for 717 hits are 3.4 each.

   A general compressor behind plain numbers would be a dependency, and would not know that energies
   are floats; HDF5 would be a larger one.  Nothing is rounded here: who wants smaller files gives
   energies of fewer bits, and the shift makes use of them.

   A new version gets a new number, and readers refuse what they do not know: no field is reserved,
   nothing is skipped. */

enum { CM_HEADER = 568, CM_TRAILER = 48, CM_EVENT = 24, CM_PACKED = 12, CM_CMU_VERSION = 1 };

static const unsigned char cm_magic[9] = "\x89" "CMU\r\n\x1a\n";
static const unsigned char cm_end_magic[9] = "CMU-end\n";
static const unsigned char cm_hdf5_magic[9] = "\x89HDF\r\n\x1a\n";

/* Fields that mean nothing in this state are written as 0, so that equal sets give equal bytes.
   Returns H, the checksum, from which the rest of the file takes its seeds: an event, index or
   trailer copied from another file does not fit.

   Precondition: cm_check_info has passed, so that each number fits its field.  A file that is
   written from front to back does not know its number of events here; the trailer tells it. */
static uint64_t cm_put_header(unsigned char h[CM_HEADER], const calomu_data_info *info)
{
    const calomu_geometry *g = &info->geometry;
    int i, known = info->features == CALOMU_FEATURES_STANDARDISED;
    uint64_t sum;
    memset(h, 0, CM_HEADER);
    memcpy(h, cm_magic, 8);
    cm_put32(h + 8, 0x01020304);
    cm_put32(h + 12, CM_CMU_VERSION);
    cm_put32(h + 16, CM_HEADER);
    cm_put32(h + 20, (uint32_t)info->features);
    if (info->features != CALOMU_FEATURES_NONE) {
        cm_put32(h + 24, (uint32_t)info->feature_options.convention);
        cm_put32(h + 28, cm_bits(info->feature_options.grow));
    }
    cm_put32(h + 32, (uint32_t)g->nz);
    cm_put32(h + 36, (uint32_t)g->nx);
    cm_put32(h + 40, (uint32_t)g->ny);
    cm_put32(h + 44, (uint32_t)info->losses);
    memcpy(h + 48, "GeV mm T", 8);
    for (i = 0; i < 3; i++) {
        cm_put64(h + 56 + 8 * i, cm_double_bits(g->pitch[i]));
        cm_put64(h + 80 + 8 * i, cm_double_bits(g->origin[i]));
    }
    cm_put64(h + 104, cm_double_bits(g->field));
    for (i = 0; known && i < CALOMU_FEATURES; i++) {
        cm_put64(h + 112 + 8 * i, cm_double_bits(info->mean[i]));
        cm_put64(h + 336 + 8 * i, cm_double_bits(info->deviation[i]));
    }
    sum = cm_checksum(0, h, CM_HEADER - 8);
    cm_put64(h + CM_HEADER - 8, sum);
    return sum;
}

/* A number of cells; 0, which is refused later, for one that does not fit.

   The conversion of 2^31 and more to int32_t would be the compiler's own choice (C99, 6.3.1.3). */
static int32_t cm_get_size(const unsigned char *p)
{
    uint32_t n = cm_get32(p);
    return n <= INT32_MAX ? (int32_t)n : 0;
}

/* The reverse, for a header whose checksum is right.  Values out of range become ones that
   cm_check_info refuses.

   An enumeration must not be given any integer that a file holds: a compiler may take it for one of
   its values in a switch.  So a state above 3 becomes 4, a convention above 1 becomes 2, which are
   no values either but are small. */
static void cm_get_info(const unsigned char *h, calomu_data_info *info)
{
    calomu_geometry *g = &info->geometry;
    uint32_t state = cm_get32(h + 20), convention = cm_get32(h + 24);
    int i;
    memset(info, 0, sizeof *info);
    info->features = (calomu_feature_state)(state > 3 ? 4 : state);
    if (state) {
        info->feature_options.convention = (calomu_convention)(convention > 1 ? 2 : convention);
        info->feature_options.grow = cm_from_bits(cm_get32(h + 28));
    }
    g->nz = cm_get_size(h + 32);
    g->nx = cm_get_size(h + 36);
    g->ny = cm_get_size(h + 40);
    info->losses = cm_get32(h + 44) == 1;
    for (i = 0; i < 3; i++) {
        g->pitch[i] = cm_double_from_bits(cm_get64(h + 56 + 8 * i));
        g->origin[i] = cm_double_from_bits(cm_get64(h + 80 + 8 * i));
    }
    g->field = cm_double_from_bits(cm_get64(h + 104));
    for (i = 0; state == CALOMU_FEATURES_STANDARDISED && i < CALOMU_FEATURES; i++) {
        info->mean[i] = cm_double_from_bits(cm_get64(h + 112 + 8 * i));
        info->deviation[i] = cm_double_from_bits(cm_get64(h + 336 + 8 * i));
    }
}

/* How many floats each event has between its truth and its hits: features, then losses. */
static size_t cm_extra(const calomu_data_info *info)
{
    return (info->features == CALOMU_FEATURES_NONE ? 0u : CALOMU_FEATURES)
         + (info->losses ? CALOMU_LOSSES : 0u);
}

/* ---- writing .cmu

   Events are added one by one; what remains in memory of an event are the 8 bytes of its offset, 8
   MB for a million muons.  The writer owns its output and three pieces of memory that only grow.  A
   data set that is not closed, by a failure or a kill, leaves no file under its name. */

struct calomu_writer {
    calomu *c;
    calomu_output *out;
    calomu_data_info info;           /* n_events and n_hits: so far */
    uint64_t seed, offset;           /* H; bytes written */
    void *index, *block, *sorted;    /* offsets; the event in its packed form; hits in order */
    size_t index_size, block_size, sorted_size;
    calomu_status status;            /* of the first failure, with its text */
    char message[512];
};

/* Hits are dense along the muon and sparse in the halo: nine gaps of ten fit into one byte.

   In testdata/points.cmu 98.6% of 487,140 gaps are below 128.  Gaps of 128 to 16,383 take two
   bytes, and the largest, below 2^24, four.  The form is LEB128's; the last byte is never 0 behind
   another, so that a gap has one form only, and a reader refuses the others. */
static unsigned char *cm_put_gap(unsigned char *p, uint32_t gap)
{
    for (; gap >= 128; gap >>= 7) *p++ = (unsigned char)(gap | 128);
    *p++ = (unsigned char)gap;
    return p;
}

/* The bit pattern of an energy; -0 becomes 0.

   -0 >= 0 is true, so -0 passes the checks; its pattern 0x80000000 would be the largest of all. */
static uint32_t cm_energy_bits(float energy) { return energy > 0 ? cm_bits(energy) : 0; }

/* Writes n > 0 hits of rising cells in at most 12 + 8 n bytes: a gap is below 2^24, so it takes at
   most 4, and a code at most 4.  Returns the first byte behind.

   Three passes.  The first finds the smallest pattern (base); the second ORs all differences, whose
   common low zeros are the shift, and finds the largest, whose length is the width; the third
   writes.  With equal energies both are 0 and the codes take no byte.  `before` starts at 2^32 - 1,
   so that the gap of the first hit, cell - before - 1 modulo 2^32, is its cell.

   `pending` holds the bits that fill no byte yet, the oldest lowest. */
static unsigned char *cm_put_hits(unsigned char *p, const calomu_hit *hits, size_t n)
{
    uint32_t base = UINT32_MAX, all = 0, largest = 0, before = UINT32_MAX;
    unsigned char *gaps = p + CM_PACKED;
    unsigned char *to = gaps;
    uint64_t pending = 0;
    int shift = 0, width = 0, bits = 0;
    size_t i;
    for (i = 0; i < n; i++)
        if (cm_energy_bits(hits[i].energy) < base) base = cm_energy_bits(hits[i].energy);
    for (i = 0; i < n; i++) {
        uint32_t over = cm_energy_bits(hits[i].energy) - base;
        all |= over;
        if (over > largest) largest = over;
    }
    while (all && !(all >> shift & 1)) shift++;
    while (width < 32 && (uint64_t)largest >> shift >> width) width++;
    for (i = 0; i < n; i++) {
        to = cm_put_gap(to, hits[i].cell - before - 1);
        before = hits[i].cell;
    }
    cm_put32(p, base);
    p[4] = (unsigned char)shift;
    p[5] = (unsigned char)width;
    p[6] = p[7] = 0;
    cm_put32(p + 8, (uint32_t)(to - gaps));
    for (i = 0; i < n; i++) {        /* at most 7 + 32 bits are pending */
        pending |= (uint64_t)((cm_energy_bits(hits[i].energy) - base) >> shift) << bits;
        for (bits += width; bits >= 8; bits -= 8, pending >>= 8) *to++ = (unsigned char)pending;
    }
    if (bits) *to++ = (unsigned char)pending;
    return to;
}

/* Absent is one bit pattern, so that equal events give equal bytes. */
static uint32_t cm_truth_bits(float x) { return isnan(x) ? 0x7FC00000u : cm_bits(x); }

/* Packs a checked event with rising cells into w->block, which has room; returns its length.  It is
   packed in memory first, so that its length can stand in front without seeking back.
   Precondition: hits are e's, sorted.

   The seed of the checksum has the event's number: an event that is moved, doubled or taken from
   another file is found, as its bytes alone would not tell.  172 = 24 + 4*28 + 4*4 + 12 + 8, and 8
   bytes for each of 2^24 cells: 2^27 and some, far below 2^32. */
static size_t cm_put_event(calomu_writer *w, const calomu_event *e, const calomu_hit *hits)
{
    unsigned char *start = w->block;
    unsigned char *p = start + CM_EVENT;
    size_t length;
    int i;
    cm_put32(start + 4, (uint32_t)e->n_hits);
    cm_put32(start + 8, cm_truth_bits(e->energy));
    cm_put32(start + 12, cm_truth_bits(e->x));
    cm_put32(start + 16, cm_truth_bits(e->y));
    cm_put32(start + 20, cm_truth_bits(e->charge));
    for (i = 0; e->features && i < CALOMU_FEATURES; i++, p += 4)
        cm_put32(p, cm_bits(e->features[i]));
    for (i = 0; e->losses && i < CALOMU_LOSSES; i++, p += 4)
        cm_put32(p, cm_truth_bits(e->losses[i]));
    if (e->n_hits) p = cm_put_hits(p, hits, e->n_hits);
    length = (size_t)(p - start) + 8;
    cm_put32(start, (uint32_t)length);          /* at most 172 + 8 * 2^24 */
    cm_put64(p, cm_checksum(w->seed + w->info.n_events, start, length - 8));
    return length;
}

/* Nothing of an event reaches the output before all of it has been checked.  Memory is kept from
   event to event and only grows; the hits are copied only if they need sorting.

   The counters move even where the write fails: the failure is final (calomu_writer_add), so nobody
   reads them again.  In the order of the code: checks, sort, memory, pack, write; before the write
   a failure has changed nothing. */
static calomu_status cm_writer_add(calomu_writer *w, const calomu_event *e)
{
    const calomu_hit *hits = e->hits;
    uint64_t number = w->info.n_events;
    size_t n = e->n_hits, length, at = (size_t)number * 8;
    calomu_status s = cm_check_event(w->c, &w->info.geometry, e, number);
    if (!s) s = cm_check_extra(w->c, &w->info, e, number);
    if (s) return CALOMU_EFORMAT;    /* here also an impact point outside the face is bad data */
    if (!cm_hits_rising(hits, n)) {
        s = cm_need(w->c, &w->sorted, &w->sorted_size, 0, 2 * n * sizeof *hits);
        if (s) return s;
        s = cm_sort_hits(w->c, &w->info.geometry, hits, n, w->sorted,
                         (calomu_hit *)w->sorted + n, number);
        if (s) return s;
        hits = w->sorted;
    }
    s = cm_need(w->c, &w->block, &w->block_size, 0,
                CM_EVENT + 4 * cm_extra(&w->info) + CM_PACKED + 8 * n + 8);
    if (!s) s = cm_need(w->c, &w->index, &w->index_size, at, at + 8);
    if (s) return s;
    length = cm_put_event(w, e, hits);
    cm_put64((unsigned char *)w->index + at, w->offset);
    s = calomu_output_write(w->out, w->block, length);
    w->offset += length;
    w->info.n_events++;
    w->info.n_hits += n;
    return s;
}

/* Index and trailer.  The index has been kept in its form on disk: 8 bytes per event. */
static calomu_status cm_writer_end(calomu_writer *w)
{
    unsigned char t[CM_TRAILER];
    size_t bytes = (size_t)w->info.n_events * 8;
    calomu_status s;
    memcpy(t, cm_end_magic, 8);
    cm_put64(t + 8, w->info.n_events);
    cm_put64(t + 16, w->info.n_hits);
    cm_put64(t + 24, w->offset);
    cm_put64(t + 32, cm_checksum(w->seed, w->index, bytes));
    cm_put64(t + 40, cm_checksum(w->seed, t, CM_TRAILER - 8));
    s = calomu_output_write(w->out, w->index, bytes);
    return s ? s : calomu_output_write(w->out, t, sizeof t);
}

static void cm_writer_free(calomu_writer *w)
{
    cm_release(w->c, w->index);
    cm_release(w->c, w->block);
    cm_release(w->c, w->sorted);
    cm_release(w->c, w);
}

/* The temporary file is made here: a folder without rights is found before the first muon is
   simulated. */
static calomu_status cm_writer_open(calomu *c, const char *path, const calomu_data_info *info,
                                    calomu_writer **writer)
{
    unsigned char header[CM_HEADER];
    calomu_writer *w;
    calomu_status s = cm_check_info(c, info);
    if (s) return s;
    w = cm_allocate(c, 1, sizeof *w);
    if (!w) return CALOMU_EMEMORY;
    w->c = c;
    w->info = *info;
    w->info.n_events = w->info.n_hits = 0;
    w->seed = cm_put_header(header, info);
    w->offset = CM_HEADER;
    s = calomu_output_open(c, path, &w->out);
    if (s) {
        cm_writer_free(w);
        return s;
    }
    s = calomu_output_write(w->out, header, sizeof header);
    if (s) {
        calomu_writer_abandon(w);
        return s;
    }
    *writer = w;
    return CALOMU_OK;
}

calomu_status calomu_writer_open(calomu *c, const char *path, const calomu_data_info *info,
                                 calomu_writer **writer)
{
    cm_look(c);
    return cm_leave(c, cm_writer_open(c, path, info, writer));
}

/* A file that lacks an event would be silently wrong, so the first failure is final: the text is
   kept and given again by every later call, the close included. */
calomu_status calomu_writer_add(calomu_writer *w, const calomu_event *event)
{
    calomu_status s;
    if (w->status) return cm_fail(w->c, w->status, "%s", w->message);
    s = cm_enter(w->c) ? cm_leave(w->c, cm_writer_add(w, event)) : CALOMU_EUSAGE;
    if (s) {
        w->status = s;
        memcpy(w->message, w->c->message, sizeof w->message);
    }
    return s;
}

/* Index and trailer go in front of the flush and the rename: a file that has its name has its
   trailer.  `w` is freed in every case. */
calomu_status calomu_writer_close(calomu_writer *w)
{
    calomu_status s = w->status;
    calomu_output *out = w->out;
    if (s) cm_fail(w->c, s, "%s", w->message);
    else s = cm_writer_end(w);
    if (s) calomu_output_abandon(out);
    else s = calomu_output_close(out);
    cm_writer_free(w);
    return s;
}

void calomu_writer_abandon(calomu_writer *w)
{
    if (!w) return;
    calomu_output_abandon(w->out);
    cm_writer_free(w);
}

/* ---- reading .cmu

   What a forger with right checksums controls, and where it ends:

       header: sizes, state, convention, means    cm_check_info: 2^24 cells at most, known values
       trailer: events, offset of the index       cm_data_trailer: 8 bytes each, up to the trailer
       trailer: hits in all                       at most the bytes; no memory is taken by it
       index: offsets                             cm_data_index: from 568 on, rising, to the index
       event: length, hits, bytes of gaps         cm_unpack: they add up to the length
       gaps                                       cm_unpack_cells: the cells exist and rise
       base, shift, width, codes                  cm_unpack_energies: finite, not negative
       truth, features, losses                    cm_check_truth, cm_check_extra

   So a file of N bytes makes its reader take N/8 offsets of 8 bytes, and for the muons that are
   asked for at most 12 bytes for each byte of an event: 8 for the hit that takes one, and the half
   more that cm_need may add.  The sum of the events' hits is not compared with the trailer's
   number, which serves a person and the question whether there are hits at all.

   Two kinds of set behind one type: of a file, opened here; and of the caller's events, which are
   borrowed.  Reading leaves the set as it is, so contexts in many threads may read it at once.

   What a person sees of testdata/points.cmu after each accident:

       one bit of byte 700       "event 0, at byte 568, is damaged: its checksum is wrong"
       the last byte is missing  "ends without its index: cut off, or never completed"
       the version is 2          "format version 2, this program reads only 1: ..." */

struct calomu_data {
    calomu_data_info info;
    calomu *own;
    const calomu_event *event;       /* a set in memory: the caller's events; else NULL */
    cm_file file;
    int opened;
    char *path;
    uint64_t *offset;                /* n_events + 1: where event i starts; ends at the next */
    uint64_t seed;                   /* H */
    const calomu_data **part;        /* a set of sets: the caller's, one behind the other; */
    uint64_t *start;                 /*   the number of the first event of each */
    int parts;
};

/* A failure with the file's name in front.  Of the context of the call: d->own is for memory only,
   and many threads may fail at once. */
static calomu_status cm_data_fail(calomu *c, const calomu_data *d, const char *why)
{
    return cm_fail(c, CALOMU_EFORMAT, "%s: %s", d->path, why);
}

/* Header: what kind of file, then which version, then whether it is whole, then what it says.

   The order makes the message: a file of a later version is "version 2" and not "damaged", one that
   was cut is "cut off" and not a wrong checksum.  Fields are looked at as far as the file goes;
   what it lacks stays 0.  The magic has a byte above 127 and both ends of line: a transfer as text
   changes it, and the file is "not a .cmu data file". */
static calomu_status cm_data_header(calomu *c, calomu_data *d)
{
    unsigned char h[CM_HEADER] = { 0 };
    size_t n = d->file.size < CM_HEADER ? (size_t)d->file.size : CM_HEADER;
    calomu_status s = cm_file_read(c, &d->file, d->path, 0, h, n);
    if (s) return s;
    if (n >= 8 && !memcmp(h, cm_hdf5_magic, 8))
        return cm_data_fail(c, d, "is an HDF5 file: take it in with calomu-import-h5");
    if (n < 8 || memcmp(h, cm_magic, 8)) return cm_data_fail(c, d, "not a .cmu data file");
    if (n >= 12 && cm_get32(h + 8) != 0x01020304)
        return cm_data_fail(c, d, "wrong mark of byte order: damaged, or written by a program "
                            "that does not keep to the format");
    if (n >= 16 && cm_get32(h + 12) != CM_CMU_VERSION)
        return cm_fail(c, CALOMU_EFORMAT, "%s: format version %lu, this program reads only %d: "
                       "use a newer calomu", d->path, (unsigned long)cm_get32(h + 12),
                       CM_CMU_VERSION);
    if (d->file.size < CM_HEADER + CM_TRAILER)
        return cm_fail(c, CALOMU_EFORMAT, "%s: cut off after %llu bytes", d->path,
                       (unsigned long long)d->file.size);
    d->seed = cm_get64(h + CM_HEADER - 8);
    if (cm_checksum(0, h, CM_HEADER - 8) != d->seed)
        return cm_data_fail(c, d, "damaged header: its checksum is wrong");
    cm_get_info(h, &d->info);
    if (cm_get32(h + 16) != CM_HEADER || cm_get32(h + 44) > 1 || memcmp(h + 48, "GeV mm T", 8))
        return cm_data_fail(c, d, "header of unknown size, contents or units: use a newer calomu");
    return cm_check_info(c, &d->info) ? cm_fail_in(c, CALOMU_EFORMAT, d->path) : CALOMU_OK;
}

/* Trailer: the counts must fit the size of the file before memory is taken for the index.

   d->file.size is at least 616 here.  `end - index` is a multiple of 8 and exactly n entries long,
   so n is at most an eighth of the file, and 8 n cannot overflow.  *sum is the index's checksum,
   for cm_data_index. */
static calomu_status cm_data_trailer(calomu *c, calomu_data *d, uint64_t *sum)
{
    unsigned char t[CM_TRAILER];
    uint64_t end = d->file.size - CM_TRAILER, index, n;
    calomu_status s = cm_file_read(c, &d->file, d->path, end, t, sizeof t);
    if (s) return s;
    if (memcmp(t, cm_end_magic, 8))
        return cm_data_fail(c, d, "ends without its index: cut off, or never completed");
    if (cm_checksum(d->seed, t, CM_TRAILER - 8) != cm_get64(t + 40))
        return cm_data_fail(c, d, "damaged end: its checksum is wrong");
    n = cm_get64(t + 8);
    index = cm_get64(t + 24);
    *sum = cm_get64(t + 32);
    d->info.n_events = n;
    d->info.n_hits = cm_get64(t + 16);
    if (index < CM_HEADER || index > end || (end - index) % 8 || (end - index) / 8 != n)
        return cm_fail(c, CALOMU_EFORMAT, "%s: index of %llu events at byte %llu does not fit a "
                       "file of %llu bytes", d->path, (unsigned long long)n,
                       (unsigned long long)index, (unsigned long long)d->file.size);
    if (d->info.n_hits > index - CM_HEADER)     /* a hit takes at least one byte */
        return cm_fail(c, CALOMU_EFORMAT, "%s: %llu hits cannot be in %llu bytes", d->path,
                       (unsigned long long)d->info.n_hits, (unsigned long long)index);
    return CALOMU_OK;
}

/* Index: events follow each other without gaps, from the header to the index itself.

   n + 1 offsets of 8 bytes: on a 32-bit machine n could be too large for size_t, hence the first
   test.  The offsets are turned into the machine's own form in place, which on little-endian
   machines changes nothing.  Afterwards event i is [offset[i], offset[i + 1]): inside the file,
   long enough for truth and checksum, shorter than 4 GB. */
static calomu_status cm_data_index(calomu *c, calomu_data *d, uint64_t sum)
{
    size_t n = (size_t)d->info.n_events, i;
    uint64_t least = CM_EVENT + 4 * cm_extra(&d->info) + 8;
    uint64_t at = d->file.size - CM_TRAILER - 8 * d->info.n_events;
    calomu_status s;
    if (d->info.n_events >= SIZE_MAX / 16)
        return cm_fail(c, CALOMU_EMEMORY, "%s: too many events for this machine", d->path);
    d->offset = cm_allocate(c, n + 1, sizeof *d->offset);
    if (!d->offset) return CALOMU_EMEMORY;
    s = cm_file_read(c, &d->file, d->path, at, d->offset, 8 * n);
    if (s) return s;
    if (cm_checksum(d->seed, d->offset, 8 * n) != sum)
        return cm_data_fail(c, d, "damaged index: its checksum is wrong");
    for (i = 0; i < n; i++)          /* in place: each entry is read as bytes, then replaced */
        d->offset[i] = cm_get64((const unsigned char *)(d->offset + i));
    d->offset[n] = at;
    if (d->offset[0] != CM_HEADER) return cm_data_fail(c, d, "bytes that belong to no event");
    for (i = 0; i < n; i++)          /* a falling offset gives a difference above 2^32 */
        if (d->offset[i + 1] - d->offset[i] < least
            || d->offset[i + 1] - d->offset[i] > UINT32_MAX)
            return cm_fail(c, CALOMU_EFORMAT, "%s: event %zu: bad offset in the index", d->path, i);
    return CALOMU_OK;
}

/* Costs as much as the index is long, whatever the events hold; each event is verified when it is
   read.  calomu_data_close takes objects that are complete up to any point, so one exit is enough
   once the private context is there. */
static calomu_status cm_data_open(calomu *c, const char *path, calomu_data **data)
{
    calomu_data *d = cm_allocate(c, 1, sizeof *d);
    uint64_t sum = 0;
    calomu_status s = CALOMU_EMEMORY;
    if (!d) return s;
    d->own = cm_clone(c);
    if (!d->own) {
        cm_release(c, d);
        return s;
    }
    d->path = cm_allocate(c, strlen(path) + 1, 1);
    if (d->path) {
        strcpy(d->path, path);
        s = cm_file_open(c, path, &d->file);
        d->opened = !s;
    }
    if (!s) s = cm_data_header(c, d);
    if (!s) s = cm_data_trailer(c, d, &sum);
    if (!s) s = cm_data_index(c, d, sum);
    if (s) calomu_data_close(d);
    else *data = d;
    return s;
}

calomu_status calomu_data_open(calomu *c, const char *path, calomu_data **data)
{
    cm_look(c);
    return cm_leave(c, cm_data_open(c, path, data));
}

/* The same checks as for a writer: who trains from memory gets the same errors as who trains from
   a file, and nothing behind this point need check again.

   The events stay the caller's, and must stay as they are until the set is closed.  Hits must rise:
   sorting would need a copy of all of them. */
static calomu_status cm_data_from_memory_call(calomu *c, const calomu_data_info *info,
                                              const calomu_event *events, size_t n,
                                              calomu_data **data)
{
    calomu_status s = cm_check_info(c, info);
    uint64_t hits = 0;
    calomu_data *d;
    size_t i, j;
    for (i = 0; !s && i < n; i++) {
        const calomu_event *e = events + i;
        s = cm_check_event(c, &info->geometry, e, i);
        if (!s) s = cm_check_extra(c, info, e, i);
        for (j = 1; !s && j < e->n_hits; j++)
            if (e->hits[j].cell <= e->hits[j - 1].cell)
                s = cm_fail(c, CALOMU_EFORMAT, "event %zu, hit %zu: cells must be strictly rising",
                            i, j);
        hits += e->n_hits;
    }
    if (s) return s;
    d = cm_allocate(c, 1, sizeof *d);
    if (!d) return CALOMU_EMEMORY;
    d->own = cm_clone(c);
    if (!d->own) {
        cm_release(c, d);
        return CALOMU_EMEMORY;
    }
    d->info = *info;
    d->info.n_events = n;
    d->info.n_hits = hits;
    d->event = events;
    *data = d;
    return CALOMU_OK;
}

calomu_status calomu_data_from_memory(calomu *c, const calomu_data_info *info,
                                      const calomu_event *events, size_t n, calomu_data **data)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_data_from_memory_call(c, info, events, n, data));
}

/* What two sets must share to be one. */
static calomu_status cm_join_fits(calomu *c, const calomu_data_info *a, const calomu_data_info *b)
{
    calomu_status s = calomu_geometry_compare(c, &a->geometry, &b->geometry);
    if (s) return s;
    if (a->features != b->features)
        return cm_fail(c, CALOMU_EFORMAT, a->features == CALOMU_FEATURES_NONE
                       ? "features where the first set has none" : b->features
                       == CALOMU_FEATURES_NONE ? "no features where the first set has them"
                       : "features in another state (raw, standardised) than the first set's");
    if (a->features != CALOMU_FEATURES_NONE
        && (a->feature_options.convention != b->feature_options.convention
            || memcmp(&a->feature_options.grow, &b->feature_options.grow, sizeof(float))))
        return cm_fail(c, CALOMU_EFORMAT, "features of convention %s, grow %g GeV, the first set's "
                       "are %s, %g GeV", calomu_convention_name(b->feature_options.convention),
                       (double)b->feature_options.grow,
                       calomu_convention_name(a->feature_options.convention),
                       (double)a->feature_options.grow);
    if (a->features == CALOMU_FEATURES_STANDARDISED
        && (memcmp(a->mean, b->mean, sizeof a->mean)
            || memcmp(a->deviation, b->deviation, sizeof a->deviation)))
        return cm_fail(c, CALOMU_EFORMAT, "features standardised by other means and deviations");
    if (a->losses != b->losses)
        return cm_fail(c, CALOMU_EFORMAT, b->losses ? "losses where the first set has none"
                                                    : "no losses where the first set has them");
    return CALOMU_OK;
}

static calomu_status cm_data_join_call(calomu *c, calomu_data *const *sets, int n, int *misfit,
                                       calomu_data **data)
{
    calomu_data *d;
    calomu *own;
    int i;
    *data = NULL;
    if (n < 1) return cm_fail(c, CALOMU_EUSAGE, "no sets to join");
    for (i = 1; i < n; i++) {
        calomu_status s = cm_join_fits(c, &sets[0]->info, &sets[i]->info);
        if (s && misfit) *misfit = i;
        if (s) return s;
    }
    own = cm_clone(c);
    d = own ? cm_allocate(own, 1, sizeof *d) : NULL;
    if (d) {
        d->own = own;
        d->part = cm_allocate(own, (size_t)n, sizeof *d->part);
        d->start = cm_allocate(own, (size_t)n, sizeof *d->start);
    }
    if (!d || !d->part || !d->start) {
        if (d) calomu_data_close(d);
        else if (own) cm_clone_free(own);
        return cm_fail(c, CALOMU_EMEMORY, "no memory to join %d sets", n);
    }
    d->info = sets[0]->info;
    d->info.n_events = d->info.n_hits = 0;
    for (i = 0; i < n; i++) {
        d->part[i] = sets[i];
        d->start[i] = d->info.n_events;
        d->info.n_events += sets[i]->info.n_events;
        d->info.n_hits += sets[i]->info.n_hits;
    }
    d->parts = n;
    *data = d;
    return CALOMU_OK;
}

calomu_status calomu_data_join(calomu *c, calomu_data *const *sets, int n, int *misfit,
                               calomu_data **data)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_data_join_call(c, sets, n, misfit, data));
}

const calomu_data_info *calomu_data_describe(const calomu_data *data) { return &data->info; }

/* Takes a set that is complete up to any point; the context that opened it may be closed by
   then. */
void calomu_data_close(calomu_data *d)
{
    calomu *own;
    if (!d) return;
    own = d->own;
    if (d->opened) cm_file_close(own, &d->file);
    cm_release(own, d->path);
    cm_release(own, d->offset);
    cm_release(own, d->part);
    cm_release(own, d->start);
    cm_release(own, d);
    cm_clone_free(own);
}

/* The packed hits of one event, with all bounds proven: n gaps lie in gap[0..gap_bytes), n codes
   of `width` bits in the bytes behind, and at least the 8 bytes of the checksum follow. */
typedef struct cm_packed {
    size_t n, gap_bytes;
    const unsigned char *gap, *code;
    uint32_t base;
    int shift, width;
} cm_packed;

/* p: length bytes behind truth, features and losses, checksum included.  0 if they make no
   sense.

   Of the numbers that are a forger's, n is bounded by the cells before it is multiplied, so n*width
   has at most 24 + 8 bits; width and shift are single bytes, and together at most 32, so that code
   << shift fits 32 bits; the code's bytes must be exactly what remains.  shift < 32 because C
   leaves a shift by 32 undefined. */
static int cm_unpack(const unsigned char *p, size_t length, size_t n, uint32_t cells,
                     cm_packed *k)
{
    memset(k, 0, sizeof *k);
    k->gap = k->code = p;
    if (n == 0) return length == 8;
    if (n > cells || length < CM_PACKED + 8) return 0;
    length -= CM_PACKED + 8;
    k->n = n;
    k->base = cm_get32(p);
    k->shift = p[4];
    k->width = p[5];
    k->gap_bytes = cm_get32(p + 8);
    k->gap = p + CM_PACKED;
    k->code = k->gap + (k->gap_bytes <= length ? k->gap_bytes : 0);
    return k->width + k->shift <= 32 && k->shift < 32 && !(p[6] | p[7]) && k->gap_bytes >= n
        && k->gap_bytes <= length
        && ((uint64_t)n * (uint64_t)k->width + 7) / 8 == length - k->gap_bytes;
}

/* Cells from gaps.  A gap that starts in the last byte may run at most 3 bytes into the codes or
   the checksum: still inside the event.  n < 2^25 gaps below 2^28: the sum fits 64 bits.

   `next` only rises, so if the last cell exists all do; cells that were cut to 32 bits on the way
   are then thrown away with the event.  A gap that could be written shorter (a last byte of 0) is
   refused: one event, one form. */
static int cm_unpack_cells(const cm_packed *k, uint32_t cells, calomu_hit *hits)
{
    const unsigned char *p = k->gap;
    const unsigned char *end = p + k->gap_bytes;
    uint64_t next = 0;               /* the cell before, plus 1 */
    size_t i;
    for (i = 0; i < k->n && p < end; i++) {
        uint32_t gap = *p++;
        if (gap >= 128) {
            int at = 7;
            gap &= 127;
            for (; *p >= 128 && at < 21; at += 7) gap |= (uint32_t)(*p++ & 127) << at;
            if (*p == 0 || *p >= 128) return 0;
            gap |= (uint32_t)*p++ << at;
        }
        next += gap;
        hits[i].cell = (uint32_t)next++;
    }
    return i == k->n && p == end && next <= cells;
}

/* Energies from codes.  Code i is cut out of the 8 bytes that hold its first bit: at most 7 + 32
   of their 64 bits are used, and the load ends at most 7 bytes behind the codes, inside the
   checksum.  Finite and not negative: the largest pattern must stay below that of infinity.

   base + (code << shift) may wrap in 32 bits, which for unsigned numbers is defined; the sum in 64
   bits at the end, of the largest code, shows it.  Looked at once for all hits, not hit by hit: the
   loop has no branch. */
static int cm_unpack_energies(const cm_packed *k, calomu_hit *hits)
{
    const unsigned char *p = k->code;
    const uint32_t base = k->base;
    const int shift = k->shift;
    const size_t n = k->n, width = (size_t)k->width;
    const uint32_t mask = (uint32_t)(((uint64_t)1 << width) - 1);
    uint32_t largest = 0;
    size_t i, bit = 0;
    for (i = 0; i < n; i++, bit += width) {
        uint32_t code = (uint32_t)(cm_get64(p + (bit >> 3)) >> (bit & 7)) & mask;
        largest = code > largest ? code : largest;
        hits[i].energy = cm_from_bits(base + (code << shift));
    }
    return base + ((uint64_t)largest << shift) < 0x7F800000u;
}

/* One event from its bytes: verified, then unpacked behind the `used` hits already in out.
   Preconditions: length is at least fixed + 8 (cm_data_index).  A file may be forged with right
   checksums, so sizes, cells, energies and truth are checked all the same.  Memory for hits is
   taken only after cm_unpack has shown that the event has at least one byte for each.  extra: room
   for cm_extra floats.

   In the order of the code, and no other would do: checksum (nothing of an event with an accident
   is looked at), length and sizes, memory, hits, truth, features.  A message tells the event's
   number, and of a wrong checksum the byte in the file. */
static calomu_status cm_read_event(calomu *c, const calomu_data *d, uint64_t number,
                                   const unsigned char *p, size_t length, calomu_events *out,
                                   size_t used, calomu_event *e, float *extra)
{
    size_t n = cm_get32(p + 4), n_extra = cm_extra(&d->info), fixed = CM_EVENT + 4 * n_extra, i;
    uint32_t cells = cm_cells(&d->info.geometry);
    calomu_hit *hits;
    cm_packed k;
    calomu_status s;
    if (cm_checksum(d->seed + number, p, length - 8) != cm_get64(p + length - 8))
        return cm_fail(c, CALOMU_EFORMAT, "%s: event %llu, at byte %llu, is damaged: its checksum "
                       "is wrong", d->path, (unsigned long long)number,
                       (unsigned long long)d->offset[number]);
    if (cm_get32(p) != length || !cm_unpack(p + fixed, length - fixed, n, cells, &k))
        return cm_fail(c, CALOMU_EFORMAT, "%s: event %llu: sizes that do not fit its %zu bytes",
                       d->path, (unsigned long long)number, length);
    s = cm_need(out->owner_, &out->memory_[1], &out->size_[1], used * sizeof *hits,
                (used + n) * sizeof *hits);
    if (s) return cm_fail(c, s, "%s", calomu_message(out->owner_));
    hits = out->memory_[1];
    if (hits) hits += used;          /* NULL + 0 is not defined */
    if (!cm_unpack_cells(&k, cells, hits) || !cm_unpack_energies(&k, hits))
        return cm_fail(c, CALOMU_EFORMAT, "%s: event %llu: impossible cells or energies", d->path,
                       (unsigned long long)number);
    e->n_hits = n;
    e->energy = cm_from_bits(cm_get32(p + 8));
    e->x = cm_from_bits(cm_get32(p + 12));
    e->y = cm_from_bits(cm_get32(p + 16));
    e->charge = cm_from_bits(cm_get32(p + 20));
    for (i = 0; i < n_extra; i++) extra[i] = cm_from_bits(cm_get32(p + CM_EVENT + 4 * i));
    e->features = d->info.features == CALOMU_FEATURES_NONE ? NULL : extra;
    e->losses = d->info.losses ? extra + n_extra - CALOMU_LOSSES : NULL;
    s = cm_check_truth(c, &d->info.geometry, e, number);
    if (!s) s = cm_check_extra(c, &d->info, e, number);
    return s ? cm_fail_in(c, CALOMU_EFORMAT, d->path) : CALOMU_OK;
}

/* The set that has event *k of d itself, and its number there. */
static const calomu_data *cm_part_of(const calomu_data *d, uint64_t *k)
{
    while (d->parts) {
        int low = 0, high = d->parts, middle;        /* start[low] <= *k < start[high] */
        while (high - low > 1) {
            middle = low + (high - low) / 2;
            if (d->start[middle] <= *k) low = middle;
            else high = middle;
        }
        *k -= d->start[low];
        d = d->part[low];
    }
    return d;
}

/* Number of the i-th event asked for. */
static uint64_t cm_number(uint64_t first, const uint64_t *numbers, size_t i)
{
    return numbers ? numbers[i] : first + i;
}

/* Checks the numbers asked for and takes the memory of everything but hits: events, features and
   losses, and `block` bytes for the longest packed event among them.

   Numbers may come in any order and more than once.  The first memory belongs to `out`, with a
   clone of the first context that read into it: out->owner_.  No byte is taken for a number that
   does not exist. */
static calomu_status cm_read_prepare(calomu *c, const calomu_data *d, uint64_t first,
                                     const uint64_t *numbers, size_t n, calomu_events *out)
{
    uint64_t longest = 0, total = d->info.n_events;
    const calomu_data *part;
    size_t i, each = sizeof(calomu_event) + cm_extra(&d->info) * sizeof(float);
    calomu_status s;
    if (n > SIZE_MAX / 4 / each)
        return cm_fail(c, CALOMU_EMEMORY, "no memory for %zu events at once", n);
    if (!numbers && (n > total || first > total - n))
        return cm_fail(c, CALOMU_EUSAGE, "events %llu to %llu asked for, there are %llu",
                       (unsigned long long)first, (unsigned long long)(first + n - 1),
                       (unsigned long long)total);
    for (i = 0; i < n; i++) {
        uint64_t k = cm_number(first, numbers, i);
        if (k >= total)
            return cm_fail(c, CALOMU_EUSAGE, "event %llu asked for, there are %llu",
                           (unsigned long long)k, (unsigned long long)total);
        part = cm_part_of(d, &k);
        if (!part->event && part->offset[k + 1] - part->offset[k] > longest)
            longest = part->offset[k + 1] - part->offset[k];
    }
    if (!out->owner_) out->owner_ = cm_clone(c);
    if (!out->owner_) return CALOMU_EMEMORY;
    if (longest > SIZE_MAX / 4) return cm_fail(c, CALOMU_EMEMORY, "no memory for one event");
    s = cm_need(out->owner_, &out->memory_[0], &out->size_[0], 0,
                n * each + (size_t)longest + 1);         /* not NULL for no events either */
    return s ? cm_fail(c, s, "%s", calomu_message(out->owner_)) : CALOMU_OK;
}

/* One block of memory holds events, features and losses, and the packed bytes, another the hits,
   which grow while events are unpacked; so pointers to hits are set at the end.

   Memory stays with `out` from call to call and only grows, so a training reads its batches without
   asking for any; what was read before is gone with the next call.  On failure `out` has no events,
   and its memory is still there to be freed.  A set in memory hands out the caller's own hits.

       memory_[0]   event[n] | features and losses, [n][cm_extra] floats | bytes of one packed event
       memory_[1]   hits of event 0 | hits of event 1 | ...

   An event's pointers lead into both.  The floats follow structs, and the bytes follow floats: each
   begins where its type may. */
static calomu_status cm_data_read_call(calomu *c, const calomu_data *data, uint64_t first,
                                       const uint64_t *numbers, size_t n, calomu_events *out)
{
    size_t used = 0, i, at, n_extra = cm_extra(&data->info);
    calomu_event *event;
    float *extra;
    unsigned char *block;
    calomu_status s = cm_read_prepare(c, data, first, numbers, n, out);
    out->event = NULL;
    out->n = 0;
    if (s) return s;
    event = out->memory_[0];
    extra = (float *)(event + n);
    block = (unsigned char *)(extra + n * n_extra);
    for (i = 0; i < n; i++) {
        uint64_t k = cm_number(first, numbers, i);
        const calomu_data *d = cm_part_of(data, &k);
        if (d->event) {
            event[i] = d->event[k];
            continue;
        }
        at = (size_t)(d->offset[k + 1] - d->offset[k]);
        s = cm_file_read(c, &d->file, d->path, d->offset[k], block, at);
        if (!s) s = cm_read_event(c, d, k, block, at, out, used, event + i, extra + i * n_extra);
        if (s) return s;
        used += event[i].n_hits;
    }
    for (i = at = 0; i < n; i++) {   /* the hits do not move any more */
        uint64_t k = cm_number(first, numbers, i);
        if (cm_part_of(data, &k)->event) continue;
        event[i].hits = event[i].n_hits ? (calomu_hit *)out->memory_[1] + at : NULL;
        at += event[i].n_hits;
    }
    out->event = event;
    out->n = n;
    return CALOMU_OK;
}

calomu_status calomu_data_read(calomu *c, const calomu_data *data, uint64_t first,
                               const uint64_t *numbers, size_t n, calomu_events *out)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_data_read_call(c, data, first, numbers, n, out));
}

/* The true energy of one event without the rest of it, whose checksum is not looked at: NaN where
   it is unknown, and where the file is damaged anything.

   For the look at all true energies before a training (section 13), where whole events would cost
   the unpacking of all hits.  Every event that is trained on is read whole and verified
   afterwards. */
static calomu_status cm_read_energy(calomu *c, const calomu_data *d, uint64_t number,
                                    float *energy)
{
    unsigned char b[4];
    calomu_status s;
    d = cm_part_of(d, &number);
    if (d->event) {
        *energy = d->event[number].energy;
        return CALOMU_OK;
    }
    s = cm_file_read(c, &d->file, d->path, d->offset[number] + 8, b, sizeof b);
    if (s == CALOMU_OK) *energy = cm_from_bits(cm_get32(b));
    return s;
}

/* A zeroed struct, and one that was freed, have no owner: nothing is done. */
void calomu_events_free(calomu_events *e)
{
    if (!e || !e->owner_) return;
    cm_release(e->owner_, e->memory_[0]);
    cm_release(e->owner_, e->memory_[1]);
    cm_clone_free(e->owner_);
    memset(e, 0, sizeof *e);
}

/* ---- safetensors (models and checkpoints)

   u64 length of the header (little-endian), the header (JSON, then spaces), the data.  The header
   is one object: "__metadata__" with strings, and per tensor
       "NAME":{"dtype":"F32","shape":[2,3],"data_offsets":[begin,end]}
   with offsets counted from the end of the header; together the tensors must cover the data
   exactly.  The parser accepts nothing else, so nothing nests deeper than three.

   testdata/model.safetensors, byte by byte:

             0   B0 5A 00 00 00 00 00 00     23216 bytes of header follow
             8   {"__metadata__":{"calomu":"model","version":"1", ...
                 ... "checksum":"1d3bc0a90c6da4b7"},
                 "head.0.path.0.weight":{"dtype":"F32","shape":[8,1,4,4,4],
                                         "data_offsets":[0,2048]}, ... }  and spaces
         23224   the 512 floats of this tensor, those of the next, ...
       2575000   the end of the file, which is the end of the last tensor

   The format is another project's (Hugging Face), taken because Python reads and writes it in a
   line, and because it holds no program: a pickle, as torch.save writes, runs what it holds.

   What a forger controls, and where it ends:

       length of the header          fits the file, at most 100 MB (cm_st_load)
       the JSON                      one pass, no recursion, three levels; strings are decoded in
                                     place; tables of a size known before (cm_st_room)
       shape, dtype, data_offsets    agree, and lie in the file (cm_json_fits)
       tensors that overlap          refused: together they are the data (cm_st_verify)
       names that come twice         refused (cm_st_sum)
       values                        finite, where they are wanted (cm_part_decode)

   An attacker's file of N bytes makes its reader take at most 2 N + 1 MiB (cm_st_room) and n log n
   comparisons of names; heap sort has no bad case.

   In this order: the parser (cm_json_*); sorting and searching; checksum and verification; reading;
   writing (cm_text_*, cm_st_write).

   The header that is accepted, where W is any white space between two signs:

       header   {  [ entry { , entry } ]  }  { space }
       entry    "__metadata__" : {  [ string : string { , string : string } ]  }
              | string : {  key : value { , key : value }  }     each of the three keys once:
       key      "dtype" : string      "shape" : list      "data_offsets" : list of two
       list     [  [ whole { , whole } ]  ]
       whole    0, or digits without a 0 in front, below 2^64

   All else that JSON knows (numbers with a sign or a point, true, false, null, deeper objects) has
   no meaning here, and is a fault at a byte that the message names. */

enum { CM_ST_HEADER = 100 * 1000 * 1000 };          /* longest header, as in other readers */
#define CM_ST_LARGEST ((uint64_t)1 << 32)            /* longest file: no model is near */

typedef struct cm_json {
    calomu *c;
    const char *path;
    char *start, *at, *end;
    size_t tensors, meta;            /* room in the tables */
} cm_json;

static const struct { char name[8]; int size; } cm_dtypes[CM_DTYPES] = {     /* of cm_dtype */
    { "F32", 4 }, { "F64", 8 }, { "I64", 8 }, { "U8", 1 }, { "F16", 2 }, { "BF16", 2 },
    { "I32", 4 }, { "U32", 4 }, { "U64", 8 }, { "C64", 8 }, { "I16", 2 }, { "U16", 2 },
    { "I8", 1 }, { "BOOL", 1 }, { "F8_E4M3", 1 }, { "F8_E5M2", 1 }, { "F8_E8M0", 1 }
};

/* The byte in the message counts from the beginning of the file, as an editor of bytes shows it.
   At it, or a little behind: the parser goes forward only. */
static calomu_status cm_json_fail(const cm_json *j, const char *what)
{
    return cm_fail(j->c, CALOMU_EFORMAT, "%s: bad safetensors header, byte %zu: %s", j->path,
                   (size_t)(j->at - j->start) + 8, what);
}

static void cm_json_space(cm_json *j)
{
    while (j->at < j->end && *j->at && strchr(" \t\n\r", *j->at)) j->at++;
}

/* If the next character behind white space is the wanted one, takes it.

   If not, only white space has been passed.  Every function of the parser stops at j->end, which
   lies in memory, behind the header: the bytes there are data and no terminating zero.  strchr
   finds a zero byte in every string, hence the tests for it. */
static int cm_json_take(cm_json *j, char wanted)
{
    cm_json_space(j);
    if (j->at == j->end || *j->at != wanted) return 0;
    j->at++;
    return 1;
}

/* Four hexadecimal digits behind \u, or -1.

   j->at moves only on success. */
static long cm_json_hex(cm_json *j)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";   /* value: place mod 16 */
    long value = 0;
    int i;
    if (j->end - j->at < 4) return -1;
    for (i = 0; i < 4; i++) {
        const char *d = j->at[i] ? strchr(digits, j->at[i]) : NULL;
        if (!d) return -1;
        value = value * 16 + (long)((d - digits) % 16);
    }
    j->at += 4;
    return value;
}

/* One code point as UTF-8.

   Below 0x110000 and no half of a pair (cm_json_escape): the ranges of RFC 3629, Sec. 3. */
static char *cm_put_utf8(char *to, long u)
{
    if (u < 0x80) {
        *to++ = (char)u;
    } else if (u < 0x800) {
        *to++ = (char)(0xC0 | u >> 6);
        *to++ = (char)(0x80 | (u & 63));
    } else if (u < 0x10000) {
        *to++ = (char)(0xE0 | u >> 12);
        *to++ = (char)(0x80 | (u >> 6 & 63));
        *to++ = (char)(0x80 | (u & 63));
    } else {
        *to++ = (char)(0xF0 | u >> 18);
        *to++ = (char)(0x80 | (u >> 12 & 63));
        *to++ = (char)(0x80 | (u >> 6 & 63));
        *to++ = (char)(0x80 | (u & 63));
    }
    return to;
}

/* What follows a backslash, written to *to.  Its UTF-8 is never longer than the escape.

   A character above 0xFFFF comes as two escapes, \ud800 to \udbff and then \udc00 to \udfff (RFC
   8259, Sec. 7): 0x10000 + 1024 high + low.  Half of a pair stands for nothing and is refused; so
   is \u0000, which would end the string early, so that two names could compare as equal.  12 bytes
   of escapes become 4, 6 become at most 3.

   Other control characters may come as escapes, and reach messages so; the program calomu shows
   them as \x1b, so that a file cannot speak to a terminal. */
static calomu_status cm_json_escape(cm_json *j, char **to)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *at = j->at < j->end && *j->at ? strchr(names, *j->at) : NULL;
    long u, low;
    if (at) {
        j->at++;
        *(*to)++ = values[at - names];
        return CALOMU_OK;
    }
    if (j->at == j->end || *j->at != 'u') return cm_json_fail(j, "unknown escape in a string");
    j->at++;
    u = cm_json_hex(j);
    if (u >= 0xD800 && u < 0xDC00 && j->end - j->at >= 2 && j->at[0] == '\\' && j->at[1] == 'u') {
        j->at += 2;
        low = cm_json_hex(j);
        u = low >= 0xDC00 && low < 0xE000 ? 0x10000 + (u - 0xD800) * 1024 + (low - 0xDC00) : -1;
    }
    if (u <= 0 || (u >= 0xD800 && u < 0xE000))
        return cm_json_fail(j, "\\u in a string stands for no usable character");
    *to = cm_put_utf8(*to, u);
    return CALOMU_OK;
}

/* A string, decoded in place: the result is never longer, and the closing quote makes room for
   its terminating zero.

   *text points into the file's memory and lives as long.  Bytes above 127 are passed on as they
   are: names are compared, never taken apart, and no rule of UTF-8 is needed for that.  At the
   closing quote: to <= j->at - 1, so the zero overwrites the quote at most, which has been read. */
static calomu_status cm_json_string(cm_json *j, char **text)
{
    calomu_status s = CALOMU_OK;
    char *to;
    if (!cm_json_take(j, '"')) return cm_json_fail(j, "a string is missing");
    *text = to = j->at;
    while (j->at < j->end && *j->at != '"') {
        unsigned char u = (unsigned char)*j->at++;
        if (u < 0x20) return cm_json_fail(j, "control character in a string");
        if (u != '\\') *to++ = (char)u;
        else if ((s = cm_json_escape(j, &to)) != CALOMU_OK) return s;
    }
    if (j->at == j->end) return cm_json_fail(j, "a string does not end");
    j->at++;
    *to = 0;
    return CALOMU_OK;
}

/* [a, b, ...]: at most max integers without sign, fraction, exponent or leading zeros.

   JSON knows one kind of number; safetensors needs sizes only, so a sign, a point or an exponent is
   a fault.  v stays below 2^64: before each digit it is at most (2^64 - 1 - 9)/10. */
static calomu_status cm_json_array(cm_json *j, uint64_t *values, int max, int *n)
{
    *n = 0;
    if (!cm_json_take(j, '[')) return cm_json_fail(j, "a list of integers is missing");
    if (cm_json_take(j, ']')) return CALOMU_OK;
    do {
        uint64_t v = 0;
        const char *first;
        cm_json_space(j);
        first = j->at;
        if (*n == max) return cm_json_fail(j, "too many integers in a list");
        for (; j->at < j->end && *j->at >= '0' && *j->at <= '9'; j->at++) {
            if (v > (UINT64_MAX - 9) / 10) return cm_json_fail(j, "an integer is too large");
            v = v * 10 + (uint64_t)(*j->at - '0');
        }
        if (j->at == first || (*first == '0' && j->at - first > 1))
            return cm_json_fail(j, "an integer of decimal digits is missing");
        values[(*n)++] = v;
    } while (cm_json_take(j, ','));
    return cm_json_take(j, ']') ? CALOMU_OK : cm_json_fail(j, "a list does not end");
}

/* {"key":"value", ...}: strings only, as the format demands.

   An entry counts only when it is complete, so a failure leaves no half of one in the table.  Keys
   that come twice are found when the table is sorted (cm_st_sum). */
static calomu_status cm_json_metadata(cm_json *j, cm_st *st)
{
    cm_st_meta *m;
    calomu_status s;
    if (!cm_json_take(j, '{')) return cm_json_fail(j, "the metadata must be an object");
    if (cm_json_take(j, '}')) return CALOMU_OK;
    do {
        if ((size_t)st->n_meta == j->meta) return cm_json_fail(j, "too many entries of metadata");
        m = st->meta + st->n_meta;
        s = cm_json_string(j, &m->key);
        if (!s && !cm_json_take(j, ':')) s = cm_json_fail(j, "a colon is missing");
        if (!s) s = cm_json_string(j, &m->value);
        if (s) return s;
        st->n_meta++;
    } while (cm_json_take(j, ','));
    return cm_json_take(j, '}') ? CALOMU_OK : cm_json_fail(j, "the metadata do not end");
}

/* Type, shape and offsets must agree: count = product of the shape, bytes = end - begin.  No
   product overflows: before each multiplication the result is known to fit the bytes of the file,
   which are fewer than 2^32, and a 0 in the shape makes it 0 for good.

   Afterwards t->data and count elements behind it lie in the file.  The pointer is computed after
   the offsets have been compared: one beyond the memory is undefined even if nobody reads there.
   The data are not aligned, so elements are fetched byte by byte (cm_st_value).

   A shape of [4294967295, 4294967295] in a file of a few bytes fails at its first size: 4294967295
   is more than the file's bytes divided by 4. */
static calomu_status cm_json_fits(cm_json *j, cm_st_tensor *t, const uint64_t *shape,
                                  const uint64_t offsets[2], const char *data, uint64_t bytes)
{
    uint64_t size = (uint64_t)cm_dtypes[t->dtype].size, count = 1;
    int i;
    for (i = 0; i < t->rank; i++) {
        if (shape[i] > UINT32_MAX || (shape[i] && count > bytes / size / shape[i]))
            return cm_json_fail(j, "the shape of a tensor is larger than the file");
        count *= shape[i];
        t->shape[i] = (uint32_t)shape[i];
    }
    if (offsets[0] > offsets[1] || offsets[1] > bytes)
        return cm_json_fail(j, "data_offsets outside the file");
    if (offsets[1] - offsets[0] != count * size)
        return cm_json_fail(j, "data_offsets do not fit dtype and shape");
    t->count = (uint32_t)count;
    t->data = data + offsets[0];
    return CALOMU_OK;
}

/* Any type whose elements are whole bytes: which of them a network takes is seen where a tensor is
   wanted.

   A type of half a byte (F4) would make count * size no number of bytes. */
static calomu_status cm_json_dtype(cm_json *j, cm_st_tensor *t)
{
    char *text = NULL;
    int i;
    calomu_status s = cm_json_string(j, &text);
    if (s) return s;
    for (i = 0; i < CM_DTYPES; i++) {
        if (strcmp(text, cm_dtypes[i].name)) continue;
        t->dtype = (cm_dtype)i;
        return CALOMU_OK;
    }
    return cm_fail(j->c, CALOMU_EFORMAT, "%s: tensor %.100s has type %.16s, which is not known:"
                   " convert it to F32 first", j->path, t->name, text);
}

/* Eight dimensions are parsed so that a tensor of six is named with its fault; five are kept. */
static calomu_status cm_json_shape(cm_json *j, cm_st_tensor *t, uint64_t shape[8])
{
    calomu_status s = cm_json_array(j, shape, 8, &t->rank);
    if (s || t->rank <= CM_RANK) return s;
    return cm_fail(j->c, CALOMU_EFORMAT, "%s: tensor %.100s has %d dimensions; no network of calomu"
                   " has more than %d", j->path, t->name, t->rank, CM_RANK);
}

/* The object of one tensor, its three keys in any order.

   `seen` has a bit for each key: 7 says that all three came, and none twice.  Only then are shape
   and offsets read, so neither is used before it is set. */
static calomu_status cm_json_tensor(cm_json *j, cm_st_tensor *t, const char *data, uint64_t bytes)
{
    uint64_t offsets[2], shape[8];
    int seen = 0, key, n;
    char *text = NULL;
    calomu_status s;
    if (!cm_json_take(j, '{')) return cm_json_fail(j, "a tensor must be an object");
    do {
        s = cm_json_string(j, &text);
        if (s) return s;
        key = !strcmp(text, "dtype") ? 1 : !strcmp(text, "shape") ? 2
            : !strcmp(text, "data_offsets") ? 4 : 0;
        if (!key || (seen & key)) return cm_json_fail(j, "unknown or repeated key of a tensor");
        seen |= key;
        if (!cm_json_take(j, ':')) return cm_json_fail(j, "a colon is missing");
        if (key == 1) s = cm_json_dtype(j, t);
        else if (key == 2) s = cm_json_shape(j, t, shape);
        else if ((s = cm_json_array(j, offsets, 2, &n)) == CALOMU_OK && n != 2)
            s = cm_json_fail(j, "data_offsets must be two integers");
        if (s) return s;
    } while (cm_json_take(j, ','));
    if (!cm_json_take(j, '}')) return cm_json_fail(j, "a tensor does not end");
    if (seen != 7) return cm_json_fail(j, "a tensor lacks dtype, shape or data_offsets");
    return cm_json_fits(j, t, shape, offsets, data, bytes);
}

/* One entry of the outermost object.

   t is behind the last entry until it counts; the table has one more place than tensors
   (cm_st_room), so that the pointer is always a valid one. */
static calomu_status cm_json_entry(cm_json *j, cm_st *st, const char *data, uint64_t bytes,
                                   int *metadata)
{
    cm_st_tensor *t = st->tensor + st->n_tensors;
    char *name = NULL;
    calomu_status s = cm_json_string(j, &name);
    if (s) return s;
    if (!cm_json_take(j, ':')) return cm_json_fail(j, "a colon is missing");
    if (!strcmp(name, "__metadata__")) {
        if ((*metadata)++) return cm_json_fail(j, "__metadata__ comes twice");
        return cm_json_metadata(j, st);
    }
    if ((size_t)st->n_tensors == j->tensors) return cm_json_fail(j, "a tensor must be an object");
    t->name = name;
    st->n_tensors++;
    return cm_json_tensor(j, t, data, bytes);
}

/* The whole header: one object and then spaces, as writers pad it.  No white space before the first
   brace: the format asks for it, and cm_st_load tells other files by that byte. */
static calomu_status cm_json_header(cm_json *j, cm_st *st, const char *data, uint64_t bytes)
{
    int metadata = 0;
    calomu_status s;
    if (j->at == j->end || *j->at != '{') return cm_json_fail(j, "must start with {");
    j->at++;
    if (!cm_json_take(j, '}')) {
        do {
            s = cm_json_entry(j, st, data, bytes, &metadata);
            if (s) return s;
        } while (cm_json_take(j, ','));
        if (!cm_json_take(j, '}')) return cm_json_fail(j, "does not end with }");
    }
    while (j->at < j->end && *j->at == ' ') j->at++;
    return j->at == j->end ? CALOMU_OK : cm_json_fail(j, "something follows the header");
}

static uint64_t cm_st_bytes(const cm_st_tensor *t)
{
    return t->count * (uint64_t)cm_dtypes[t->dtype].size;
}

/* Orders: total, so that the result does not depend on how it is sorted.

   By data, so that gaps and overlaps show between neighbours; empty tensors of the same place come
   before the one that has bytes there, as they must for cm_st_verify.  By name and by key, for
   binary search and for a checksum that does not depend on the order in a file. */
static int cm_st_by_data(const void *a, const void *b)
{
    const cm_st_tensor *s = a, *t = b;
    const char *p = s->data, *q = t->data;
    if (p != q) return p < q ? -1 : 1;
    if (s->count != t->count) return s->count < t->count ? -1 : 1;
    return strcmp(s->name, t->name);
}

static int cm_st_by_name(const void *a, const void *b)
{
    return strcmp(((const cm_st_tensor *)a)->name, ((const cm_st_tensor *)b)->name);
}

static int cm_st_by_key(const void *a, const void *b)
{
    return strcmp(((const cm_st_meta *)a)->key, ((const cm_st_meta *)b)->key);
}

typedef int (*cm_st_order)(const void *a, const void *b);

static void cm_st_swap(unsigned char *a, unsigned char *b, size_t size)
{
    unsigned char keep[sizeof(cm_st_tensor)];
    memcpy(keep, a, size);
    memcpy(a, b, size);
    memcpy(b, keep, size);
}

static void cm_st_sink(unsigned char *x, size_t i, size_t n, size_t size, cm_st_order order)
{
    size_t child;
    for (; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && order(x + child * size, x + (child + 1) * size) < 0) child++;
        if (order(x + i * size, x + child * size) >= 0) return;
        cm_st_swap(x + i * size, x + child * size, size);
    }
}

/* Heap sort of n tensors or entries: qsort may take as much memory again, or quadratic time.

   A file's author chooses the order, and so could choose the worst case of a quicksort.  Sifting as
   in cm_sift (section 9), over elements of any size up to a tensor's. */
static void cm_st_sort(void *table, size_t n, size_t size, cm_st_order order)
{
    unsigned char *x = table;
    size_t i;
    for (i = n / 2; i-- > 0;) cm_st_sink(x, i, n, size, order);
    for (i = n; i-- > 1;) {
        cm_st_swap(x, x + i * size, size);
        cm_st_sink(x, 0, i, size, order);
    }
}

/* The one of n sorted ones that equals `wanted`, or NULL. */
static const void *cm_st_search(const void *table, size_t n, size_t size, cm_st_order order,
                                const void *wanted)
{
    const unsigned char *x = table;
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int side = order(x + middle * size, wanted);
        if (side == 0) return x + middle * size;
        if (side < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* Name, type and shape count as well as the data: renaming or reshaping a tensor is a change.

   The result of one is the seed of the next, so order counts too, which the caller has fixed by
   sorting.  80 bytes hold type, rank and 8 sizes; 5 are there. */
static uint64_t cm_st_sum_tensor(uint64_t sum, const cm_st_tensor *t)
{
    unsigned char shape[80];
    int i;
    cm_put64(shape, (uint64_t)t->dtype);
    cm_put64(shape + 8, (uint64_t)t->rank);
    for (i = 0; i < t->rank; i++) cm_put64(shape + 16 + 8 * i, t->shape[i]);
    sum = cm_checksum(sum, t->name, strlen(t->name));
    sum = cm_checksum(sum, shape, 16 + 8 * (size_t)t->rank);
    return cm_checksum(sum, t->data, (size_t)cm_st_bytes(t));
}

/* Whether an entry of the metadata is of a kind that calomu writes: what other programs add
   ("format") is no change of a model.

   An entry that begins with a dot belongs to a family ("train."), any other is compared whole; "K."
   of a member of an ensemble may stand in front.  Whoever gives models a new kind of entry adds it
   here, or its change goes unseen. */
static int cm_st_ours(const char *key)
{
    static const char *const begin[] = { "calomu", "version", "members", "mean", "deviation",
                                         "loss.", "architecture.", "train.", "training.",
                                         "state." };
    size_t i, member = strspn(key, "0123456789");
    if (member && key[member] == '.') key += member + 1;
    for (i = 0; i < sizeof begin / sizeof *begin; i++) {
        size_t n = strlen(begin[i]);
        if (!strncmp(key, begin[i], n) && (begin[i][n - 1] == '.' || !key[n])) return 1;
    }
    return 0;
}

/* The checksum over all tensors in order of name and all metadata of ours in order of key, except
   "checksum" itself: programs that reorder a file without changing it, or add to the metadata, keep
   it valid.  Both tables get sorted, which also shows names that come twice.

   Keys and values are summed up one behind the other, each with its length (cm_checksum): "ab", "c"
   differs from "a", "bc".  bad: the status of a name that comes twice, which is the file's fault
   when reading and the caller's when writing. */
static calomu_status cm_st_sum(calomu *c, calomu_status bad, const char *path,
                               cm_st_tensor *tensor, size_t nt, cm_st_meta *meta, size_t nm,
                               uint64_t *sum)
{
    const char *twice = NULL;
    size_t i;
    if (nt) cm_st_sort(tensor, nt, sizeof *tensor, cm_st_by_name);
    if (nm) cm_st_sort(meta, nm, sizeof *meta, cm_st_by_key);
    *sum = 0;
    for (i = 0; i < nt; i++) {
        if (i && !cm_st_by_name(tensor + i - 1, tensor + i)) twice = tensor[i].name;
        *sum = cm_st_sum_tensor(*sum, tensor + i);
    }
    for (i = 0; i < nm; i++) {
        if (i && !cm_st_by_key(meta + i - 1, meta + i)) twice = meta[i].key;
        if (!cm_st_ours(meta[i].key)) continue;
        *sum = cm_checksum(*sum, meta[i].key, strlen(meta[i].key));
        *sum = cm_checksum(*sum, meta[i].value, strlen(meta[i].value));
    }
    if (twice) return cm_fail(c, bad, "%s: the name %.100s comes twice", path, twice);
    return CALOMU_OK;
}

/* Only in tables that are sorted: of files that were read, and not of what is about to be written.
   Keys asked for have at most 63 characters; the copy is there because cm_st_meta points to
   characters that may be changed. */
const char *cm_st_find_meta(const cm_st *st, const char *key)
{
    char text[64];
    cm_st_meta wanted = { NULL, NULL };
    const cm_st_meta *m;
    (void)snprintf(text, sizeof text, "%s", key);
    wanted.key = text;
    m = cm_st_search(st->meta, (size_t)st->n_meta, sizeof wanted, cm_st_by_key, &wanted);
    return m ? m->value : NULL;
}

const cm_st_tensor *cm_st_find(const cm_st *st, const char *name)
{
    cm_st_tensor wanted = { 0 };
    wanted.name = name;
    return cm_st_search(st->tensor, (size_t)st->n_tensors, sizeof wanted, cm_st_by_name, &wanted);
}

/* What the metadata say that the file is, if it is ours: "model", "checkpoint", or NULL. */
static const char *cm_st_kind(const cm_st *st)
{
    const char *kind = cm_st_find_meta(st, "calomu");
    return kind && (!strcmp(kind, "model") || !strcmp(kind, "checkpoint")) ? kind : NULL;
}

/* Offsets without gap or overlap, names unique, and the checksum.  Ours always have one; in files
   of other programs "checksum" means what they like.

   A gap would be a place to hide bytes in, an overlap a way for a small file to fill a large
   network.  Afterwards the tensors are sorted by name.

   Two tensors of 4 bytes at [0, 4) and [2, 6): "tensor b leaves a gap or overlaps another". */
static calomu_status cm_st_verify(calomu *c, const char *path, cm_st *st, const char *data,
                                  uint64_t bytes)
{
    const char *at = data, *text;
    char right[17];
    uint64_t sum = 0;
    calomu_status s;
    int i;
    if (st->n_tensors)
        cm_st_sort(st->tensor, (size_t)st->n_tensors, sizeof *st->tensor, cm_st_by_data);
    for (i = 0; i < st->n_tensors; i++) {
        if ((const char *)st->tensor[i].data != at)
            return cm_fail(c, CALOMU_EFORMAT, "%s: tensor %.100s leaves a gap or overlaps another",
                           path, st->tensor[i].name);
        at += cm_st_bytes(st->tensor + i);
    }
    if (at != data + bytes)
        return cm_fail(c, CALOMU_EFORMAT, "%s: %llu bytes at the end belong to no tensor", path,
                       (unsigned long long)(bytes - (uint64_t)(at - data)));
    s = cm_st_sum(c, CALOMU_EFORMAT, path, st->tensor, (size_t)st->n_tensors, st->meta,
                  (size_t)st->n_meta, &sum);
    if (s) return s;
    text = cm_st_find_meta(st, "checksum");
    (void)snprintf(right, sizeof right, "%016llx", (unsigned long long)sum);
    st->changed = cm_st_kind(st) && (!text || strcmp(text, right) != 0);
    return CALOMU_OK;
}

enum { CM_ST_ENTRY = 50, CM_ST_METADATA = 32768 };   /* least bytes of a tensor; most entries */

/* Takes the tables, after counting objects and colons at their depth outside strings.  An entry of
   a tensor is longer than its place in the table, and the entries of the metadata are few: with
   the file itself that is at most twice the file and 1 MiB, whatever it holds.  What is no such
   header may be counted wrongly; the parser does not write beyond this room.

   50 bytes: the shortest entry of a tensor, "":{"dtype":"U8","shape":[],"data_offsets":[0,1]} with
   its comma, has 50, and takes 48 in the table.  32,768 entries of metadata take 512 KiB.  An
   ensemble writes a loss for each member, and the numbers by which trainings differ; one of 1000
   members that differ in 32 numbers each would be beyond, and the writer does not look at that. */
static calomu_status cm_st_room(calomu *c, cm_json *j, cm_st *st)
{
    size_t depth = 0, most = (size_t)(j->end - j->start) / CM_ST_ENTRY + 1;
    const char *p;
    int text = 0;
    for (p = j->start; p < j->end; p++) {
        if (*p == '"') text = !text;
        else if (text) p += *p == '\\' && p + 1 < j->end;
        else if (*p == '{') j->tensors += depth++ == 1;
        else if (*p == '}') depth -= depth > 0;
        else if (*p == ':') j->meta += depth == 2;
    }
    if (j->tensors > most) j->tensors = most;
    if (j->meta > CM_ST_METADATA) j->meta = CM_ST_METADATA;
    st->tensor = cm_allocate(c, j->tensors + 1, sizeof *st->tensor);
    if (st->tensor) st->meta = cm_allocate(c, j->meta, sizeof *st->meta);
    return st->meta ? CALOMU_OK : CALOMU_EMEMORY;
}

/* What people have instead, by its first bytes, with the way to what is read.

   A zip begins with "PK", 3, 4; a bare pickle with 0x80 and the number of its protocol, 2 to 5.
   Nothing of either is read: to take the weights out of a pickle is to run it. */
static calomu_status cm_st_other(calomu *c, const char *path, const unsigned char *first)
{
    if (!memcmp(first, "PK\3\4", 4) || (first[0] == 0x80 && first[1] >= 2 && first[1] <= 5))
        return cm_fail(c, CALOMU_EFORMAT, "%s: is a zip or pickle file, as torch.save writes: in "
                       "Python, safetensors.torch.save_file(network.state_dict(), PATH) writes"
                       " what is read here", path);
    if (!memcmp(first, cm_hdf5_magic, 8))
        return cm_fail(c, CALOMU_EFORMAT, "%s: is an HDF5 file: muons are taken in with "
                       "calomu-import-h5, networks as safetensors", path);
    if (!memcmp(first, cm_magic, 8))
        return cm_fail(c, CALOMU_EFORMAT, "%s: is a data file (.cmu), not a model or checkpoint",
                       path);
    return cm_fail(c, CALOMU_EFORMAT, "%s: not a safetensors file", path);
}

/* The file is read whole: a model is needed whole.  Before memory is taken, the length of the
   header must fit the file, and the file must be of a size that models have.

   Bounds in this order: 10 bytes are the shortest file ("{}" behind its length); the header has 2
   bytes to 100 MB and ends in the file; the file has at most 2^32 bytes, so that counts fit 32
   bits, and half of the address space.  On failure st owns what was taken so far;
   cm_st_read_changed frees it. */
static calomu_status cm_st_load(calomu *c, const char *path, const cm_file *f, cm_st *st)
{
    unsigned char first[9] = { 0 };
    uint64_t length;
    char *header;
    cm_json j;
    calomu_status s;
    if (f->size < 10) return cm_fail(c, CALOMU_EFORMAT, "%s: not a safetensors file", path);
    s = cm_file_read(c, f, path, 0, first, sizeof first);
    if (s) return s;
    length = cm_get64(first);
    if (first[8] != '{' || length < 2 || length > CM_ST_HEADER) return cm_st_other(c, path, first);
    if (length > f->size - 8 || f->size > CM_ST_LARGEST || f->size > SIZE_MAX / 2)
        return cm_fail(c, CALOMU_EFORMAT, "%s: a safetensors header of %llu bytes does not fit a "
                       "file of %llu bytes: cut off or damaged", path, (unsigned long long)length,
                       (unsigned long long)f->size);
    st->memory = header = cm_allocate(c, (size_t)f->size - 8, 1);
    if (!header) return CALOMU_EMEMORY;
    s = cm_file_read(c, f, path, 8, header, (size_t)f->size - 8);
    j.c = c;
    j.path = path;
    j.start = j.at = header;
    j.end = header + length;
    j.tensors = j.meta = 0;
    if (!s) s = cm_st_room(c, &j, st);
    if (!s) s = cm_json_header(&j, st, j.end, f->size - 8 - length);
    return s ? s : cm_st_verify(c, path, st, j.end, f->size - 8 - length);
}

/* A file of ours whose checksum is wrong is no error yet: cm_st_read makes it one, an import tells
   of it. */
static calomu_status cm_st_read_changed(calomu *c, const char *path, cm_st *st)
{
    cm_file f;
    calomu_status s;
    memset(st, 0, sizeof *st);
    s = cm_file_open(c, path, &f);
    if (s) return s;
    s = cm_st_load(c, path, &f, st);
    cm_file_close(c, &f);
    if (s) cm_st_free(c, st);
    return s;
}

/* For models and checkpoints that are used as they are.  Names and values point into st->memory:
   all of it lives until cm_st_free.  A file of ours without a checksum has been changed as well:
   that entry is the first that other programs drop. */
calomu_status cm_st_read(calomu *c, const char *path, cm_st *st)
{
    calomu_status s = cm_st_read_changed(c, path, st);
    const char *way;
    if (s || !st->changed) return s;
    way = strcmp(cm_st_kind(st), "model") ? ""
        : "; `calomu model-import` takes in a model that another program has changed on purpose";
    s = cm_fail(c, CALOMU_EFORMAT, "%s: its checksum is %s: damaged, or changed by another program"
                "%s", path, cm_st_find_meta(st, "checksum") ? "wrong" : "missing", way);
    cm_st_free(c, st);
    return s;
}

void cm_st_free(calomu *c, cm_st *st)
{
    cm_release(c, st->tensor);
    cm_release(c, st->meta);
    cm_release(c, st->memory);
    memset(st, 0, sizeof *st);
}

/* Text of a header: written where p is set, only counted where it is NULL.

   So one function makes the text and finds its length: two would have to agree to the byte. */
typedef struct cm_text { char *p; size_t n; } cm_text;

static void cm_text_add(cm_text *t, const char *s, size_t n)
{
    if (t->p) memcpy(t->p + t->n, s, n);
    t->n += n;
}

/* Quotes, backslashes and control characters are escaped; UTF-8 goes through as it is.

   What has come in as an escape goes out as the character, or as \u00XX where JSON allows no other
   form (RFC 8259, Sec. 7). */
static void cm_text_quoted(cm_text *t, const char *s)
{
    char escape[8];
    cm_text_add(t, "\"", 1);
    for (; *s; s++) {
        unsigned char u = (unsigned char)*s;
        if (u < 0x20) {
            (void)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)u);
            cm_text_add(t, escape, 6);
        } else {
            if (u == '"' || u == '\\') cm_text_add(t, "\\", 1);
            cm_text_add(t, s, 1);
        }
    }
    cm_text_add(t, "\"", 1);
}

/* One entry of the header; *at is the offset of its data, and moves behind them. */
static void cm_text_tensor(cm_text *t, const cm_st_tensor *x, uint64_t *at)
{
    char text[64];
    int i, n;
    cm_text_quoted(t, x->name);
    n = snprintf(text, sizeof text, ":{\"dtype\":\"%s\",\"shape\":[", cm_dtypes[x->dtype].name);
    cm_text_add(t, text, (size_t)n);
    for (i = 0; i < x->rank; i++) {
        n = snprintf(text, sizeof text, i ? ",%llu" : "%llu", (unsigned long long)x->shape[i]);
        cm_text_add(t, text, (size_t)n);
    }
    n = snprintf(text, sizeof text, "],\"data_offsets\":[%llu,", (unsigned long long)*at);
    cm_text_add(t, text, (size_t)n);
    *at += cm_st_bytes(x);
    n = snprintf(text, sizeof text, "%llu]}", (unsigned long long)*at);
    cm_text_add(t, text, (size_t)n);
}

/* The next tensor behind number i in the order of the file, or -1: 8-byte types come first, then
   4, 2 and 1, so that every element is aligned for readers that map the file.  *size: of the types
   being listed; start with i = -1, *size = 8.

   4 passes over the table instead of a sorted copy.  Readers that map a file want an F64 at a
   multiple of 8; the data begin at one (cm_st_header), and behind types of 8 bytes those of 4 are
   aligned by themselves. */
static int cm_st_next(const cm_st *st, int i, int *size)
{
    for (; *size; *size /= 2, i = -1)
        while (++i < st->n_tensors)
            if (cm_dtypes[st->tensor[i].dtype].size == *size) return i;
    return -1;
}

/* The whole header, padded with spaces so that the data start at a multiple of 8. */
static void cm_st_header(cm_text *t, const cm_st *st, uint64_t sum)
{
    uint64_t at = 0;
    char hex[17];
    int i, size = 8;
    cm_text_add(t, "{\"__metadata__\":{", 17);
    for (i = 0; i < st->n_meta; i++) {
        if (!strcmp(st->meta[i].key, "checksum")) continue;
        cm_text_quoted(t, st->meta[i].key);
        cm_text_add(t, ":", 1);
        cm_text_quoted(t, st->meta[i].value);
        cm_text_add(t, ",", 1);
    }
    (void)snprintf(hex, sizeof hex, "%016llx", (unsigned long long)sum);
    cm_text_add(t, "\"checksum\":", 11);
    cm_text_quoted(t, hex);
    cm_text_add(t, "}", 1);
    for (i = cm_st_next(st, -1, &size); i >= 0; i = cm_st_next(st, i, &size)) {
        cm_text_add(t, ",", 1);
        cm_text_tensor(t, st->tensor + i, &at);
    }
    cm_text_add(t, "}", 1);
    while (t->n % 8) cm_text_add(t, " ", 1);
}

/* What a caller might get wrong.

   2 GiB at most: with its header the file is then below the 4 GiB that are read. */
static calomu_status cm_st_check(calomu *c, const char *path, const cm_st *st)
{
    uint64_t total = 0;
    int i, k;
    for (i = 0; i < st->n_tensors; i++) {
        const cm_st_tensor *t = st->tensor + i;
        uint64_t count = 1;
        if (t->rank < 0 || t->rank > CM_RANK || (int)t->dtype < 0 || (int)t->dtype >= CM_DTYPES)
            return cm_fail(c, CALOMU_EUSAGE, "%s: tensor %d: bad rank or type", path, i);
        for (k = 0; k < t->rank; k++) {
            if (t->shape[k] && count > CM_ST_LARGEST / t->shape[k])
                return cm_fail(c, CALOMU_EUSAGE, "%s: tensor %s is too large", path, t->name);
            count *= t->shape[k];
        }
        if (count != t->count || !strcmp(t->name, "__metadata__"))
            return cm_fail(c, CALOMU_EUSAGE, "%s: tensor %s: count does not fit its shape, or "
                           "a reserved name", path, t->name);
        total += cm_st_bytes(t);     /* fewer than 2^31 tensors of at most 2^32 elements */
        if (total > CM_ST_LARGEST / 2)
            return cm_fail(c, CALOMU_EUSAGE, "%s: more than 2 GiB of tensors", path);
    }
    return CALOMU_OK;
}

/* The checksum of what is to be written, whose order stays.

   cm_st_sum sorts, and the caller's tables are const: hence two copies of pointers and shapes, not
   of values. */
static calomu_status cm_st_sum_of(calomu *c, const char *path, const cm_st *st, uint64_t *sum)
{
    size_t nt = (size_t)st->n_tensors, nm = (size_t)st->n_meta;
    cm_st_tensor *tensor = cm_allocate(c, nt, sizeof *tensor);
    cm_st_meta *meta = tensor ? cm_allocate(c, nm, sizeof *meta) : NULL;
    calomu_status s = CALOMU_EMEMORY;
    if (meta) {
        if (nt) memcpy(tensor, st->tensor, nt * sizeof *tensor);
        if (nm) memcpy(meta, st->meta, nm * sizeof *meta);
        s = cm_st_sum(c, CALOMU_EUSAGE, path, tensor, nt, meta, nm, sum);
    }
    cm_release(c, meta);
    cm_release(c, tensor);
    return s;
}

/* In this order: checks and checksum, the header's text, and only then the file: what the caller
   got wrong leaves no temporary file.  Data go out in the order in which cm_st_header has counted
   their offsets; both take it from cm_st_next. */
calomu_status cm_st_write(calomu *c, const char *path, const cm_st *st)
{
    calomu_output *o = NULL;
    cm_text t = { NULL, 0 };
    unsigned char length[8];
    uint64_t sum = 0;
    int i, size = 8;
    calomu_status s = cm_st_check(c, path, st);
    if (!s) s = cm_st_sum_of(c, path, st, &sum);
    if (s) return s;
    cm_st_header(&t, st, sum);       /* with no memory yet: counts the bytes */
    t.p = cm_allocate(c, t.n, 1);
    if (!t.p) return CALOMU_EMEMORY;
    t.n = 0;
    cm_st_header(&t, st, sum);
    cm_put64(length, t.n);
    s = calomu_output_open(c, path, &o);
    if (!s) s = calomu_output_write(o, length, 8);
    if (!s) s = calomu_output_write(o, t.p, t.n);
    for (i = cm_st_next(st, -1, &size); !s && i >= 0; i = cm_st_next(st, i, &size))
        s = calomu_output_write(o, st->tensor[i].data, (size_t)cm_st_bytes(st->tensor + i));
    cm_release(c, t.p);
    if (!s) return calomu_output_close(o);
    calomu_output_abandon(o);
    return s;
}

/* ---- whether a file's tensors are those that a network has

   Looked at before memory is taken for values.  Every tensor that does not fit is named, as far as
   the text goes, half of which is for those that the network lacks; the others are counted.

   A network's table gives names, shapes and types (section 4), a file's table what is there.  The
   difference is an error that a person mends, as of an export with another growth: so it says what
   is missing, what has another shape, and what is too much, in one message of 320 bytes.  A
   forger's shapes end here: those of the network are taken, and the file's only have to equal them.

   cm_fit_begin, cm_fit_tensor for each tensor that the network wants, cm_fit_end.

   The message of a state_dict with one name misspelt:

       m.safetensors: does not fit the network: body.0.weight is missing; body0.weight is no tensor
       of the network */

typedef struct cm_fit {
    const cm_st *st;
    unsigned char *seen;             /* 1: this tensor of the file is one of the network's */
    char text[320];
    size_t used, capacity;           /* bytes of the text; how many may be by now */
    int full, more;                  /* 1: the last fault did not fit; how many did not */
} cm_fit;

static calomu_status cm_fit_begin(calomu *c, const cm_st *st, cm_fit *f)
{
    memset(f, 0, sizeof *f);
    f->st = st;
    f->capacity = sizeof f->text / 2;
    f->seen = cm_allocate(c, (size_t)st->n_tensors, 1);
    return f->seen ? CALOMU_OK : CALOMU_EMEMORY;
}

/* Adds a fault to the text, or to the count of those without room.  snprintf has already cut a text
   that does not fit, so it is taken back to where it was.  Once one fault has not fitted, none is
   added, lest a short one come out of its order. */
static void cm_fit_fault(cm_fit *f, const char *name, const char *what)
{
    size_t left = f->capacity - f->used;
    int n = f->full ? 0 : snprintf(f->text + f->used, left, "%s%.80s %s", f->used ? "; " : "", name,
                                   what);
    if (n > 0 && (size_t)n < left) {
        f->used += (size_t)n;
        return;
    }
    f->text[f->used] = 0;
    f->full = 1;
    f->more++;
}

/* "[2, 28]".  Five numbers of ten digits with commas and brackets have 62 characters. */
static void cm_shape_text(char text[72], const cm_st_tensor *t)
{
    int i, n = snprintf(text, 72, "[");
    for (i = 0; i < t->rank; i++)
        n += snprintf(text + n, 72 - (size_t)n, i ? ", %lu" : "%lu", (unsigned long)t->shape[i]);
    (void)snprintf(text + n, 72 - (size_t)n, "]");
}

/* Types that convert to reals. */
static int cm_is_float(cm_dtype d)
{
    return d == CM_F32 || d == CM_F64 || d == CM_F16 || d == CM_BF16;
}

/* want: name, shape and type; strict: of exactly this type, and not of any floating one.

   strict serves checkpoints, from which a training goes on with the same bits: F16 would not do.
   optional: a state_dict may lack it (cm_model_fits). */
static void cm_fit_tensor(cm_fit *f, const cm_st_tensor *want, int strict, int optional)
{
    const cm_st_tensor *have = cm_st_find(f->st, want->name);
    char one[72], other[72], text[200];
    if (have) f->seen[have - f->st->tensor] = 1;
    if (!have) {
        if (!optional) cm_fit_fault(f, want->name, "is missing");
    } else if (have->rank != want->rank
               || memcmp(have->shape, want->shape, (size_t)want->rank * sizeof *want->shape)) {
        cm_shape_text(one, have);
        cm_shape_text(other, want);
        (void)snprintf(text, sizeof text, "is %s, not %s", one, other);
        cm_fit_fault(f, want->name, text);
    } else if (strict ? have->dtype != want->dtype : !cm_is_float(have->dtype)) {
        (void)snprintf(text, sizeof text, "has type %s, not %s", cm_dtypes[have->dtype].name,
                       cm_dtypes[want->dtype].name);
        cm_fit_fault(f, want->name, text);
    }
}

/* Also names what the network does not have; s: a failure before.

   The second half of the text opens for them: a file with a hundred strange tensors cannot hide
   what is missing.  Frees f->seen in every case. */
static calomu_status cm_fit_end(calomu *c, calomu_status s, const char *path, cm_fit *f)
{
    char more[40] = "";
    int i;
    f->capacity = sizeof f->text;
    f->full = 0;
    for (i = 0; s == CALOMU_OK && i < f->st->n_tensors; i++)
        if (!f->seen[i]) cm_fit_fault(f, f->st->tensor[i].name, "is no tensor of the network");
    cm_release(c, f->seen);
    if (s != CALOMU_OK || (!f->used && !f->more)) return s;
    if (f->more) (void)snprintf(more, sizeof more, "; and %d more", f->more);
    return cm_fail(c, CALOMU_EFORMAT, "%.120s: does not fit the network: %s%s", path, f->text,
                   more);
}

/* A model that another program has saved again is the likeliest. */
static calomu_status cm_st_foreign(calomu *c, const char *path)
{
    return cm_fail(c, CALOMU_EFORMAT, "%s: a safetensors file without calomu's metadata: `calomu "
                   "model-import` makes a model of a state_dict of PyTorch, with --like MODEL of a "
                   "model of calomu that was saved again in Python", path);
}

/* ---- which of our files this is */

/* By content, never by the name.  Data files are recognised by their magic alone; models and
   checkpoints are read and verified, which costs no more than loading them.  What people are most
   likely to have instead, HDF5 and bare state_dicts, is named with the way to take it in.

   *kind is set on success only.  A name tells nothing: muons.cmu may be a model that somebody
   renamed, and the wrong function would give a message about a format that the person has never
   heard of. */
calomu_status calomu_file_identify(calomu *c, const char *path, calomu_file_kind *kind)
{
    unsigned char first[9] = { 0 };
    const char *what;
    cm_file f;
    cm_st st;
    calomu_status s = cm_file_open(c, path, &f);
    if (s) return s;
    s = cm_file_read(c, &f, path, 0, first, f.size < 9 ? (size_t)f.size : 9);
    cm_file_close(c, &f);
    if (s) return s;
    if (!memcmp(first, cm_hdf5_magic, 8))
        return cm_fail(c, CALOMU_EFORMAT, "%s: is an HDF5 file: take it in with calomu-import-h5",
                       path);
    if (!memcmp(first, cm_magic, 8)) {
        *kind = CALOMU_FILE_DATA;
        return CALOMU_OK;
    }
    if (!memcmp(first, "PK\3\4", 4)) return cm_st_other(c, path, first);
    if (first[8] != '{' || cm_get64(first) > CM_ST_HEADER)
        return cm_fail(c, CALOMU_EFORMAT, "%s: neither a .cmu data file nor a model or checkpoint "
                       "(.safetensors)", path);
    s = cm_st_read(c, path, &st);
    if (s) return s;
    what = cm_st_kind(&st);
    if (what) *kind = strcmp(what, "model") ? CALOMU_FILE_CHECKPOINT : CALOMU_FILE_MODEL;
    else s = cm_st_foreign(c, path);
    cm_st_free(c, &st);
    return s;
}

/* ============================================================================================
   12 Networks in memory
   ============================================================================================

   A network (cm_net) is a list of layers, a table of parameters and three blocks of values:

       list      layers and plans (sections 4, 18); shared by the networks of an ensemble
       param     name, shape, role and offset of each parameter, in the order of the layers
       trained   weights that the training changes; 636,570 reals in the paper's network
       fixed     the weights of the energy sums, which are 1
       buffers   the running sums of the batch norms (section 5.4)

   Files, updates and copies go over the blocks or over the table, whatever the network is.  Only
   section 14 knows layers by their names, where it imports, joins and checks models.

   A network is made in two halves.  cm_net_table makes list and table, which a file is held
   against, and takes at most 0.8 MB; cm_net_room makes the values and the plans, which may take
   much.  A forged file of a large network is refused between the two, as its tensors are not there.

   Lists are counted (users): each network has one, and the last that goes frees it.  The count has
   no lock: the networks of a list belong to one model, which one thread makes and one frees. */

/* ---------------------------------------------------------------- networks in memory */

/* One user less; without users the list goes.  A list that was never a network's has one user as
   well, who made it. */
void cm_list_free(calomu *c, cm_list *s)
{
    if (!s || --s->users > 0) return;
    cm_plans_free(c, s);
    cm_release(c, s->layer);
    cm_release(c, s);
}

/* An empty list with one user.  Layers are not added beyond `most`: the list notes the fault, and
   cm_list_check tells of it, so that the code that writes a network down needs no test behind each
   layer. */
cm_list *cm_list_new(calomu *c, int nz, int nx, int ny, int features, int most)
{
    cm_list *s = cm_allocate(c, 1, sizeof *s);
    if (!s) return NULL;
    s->users = 1;
    s->hits[0] = nz;
    s->hits[1] = nx;
    s->hits[2] = ny;
    s->features = features;
    s->result = -1;
    s->most = most < 1 ? 1 : most;
    s->layer = cm_allocate(c, (size_t)s->most, sizeof *s->layer);
    if (s->layer) return s;
    cm_list_free(c, s);
    return NULL;
}

/* The paper's, without plans.  A block has 14 layers, 19 where it halves the grid, the rest 16.

   cm_architecture_check comes before: at most 64 blocks in each resolution, so at most 256 stages
   and 3,620 layers of 80 bytes. */
static cm_list *cm_list_paper(calomu *c, const calomu_architecture *a)
{
    const calomu_geometry *g = &a->geometry;
    cm_list *s = cm_list_new(c, g->nz, g->nx, g->ny, a->n_features,
                             14 * cm_stages(a) + 5 * CM_RESOLUTIONS + 16);
    if (s) cm_list_network(s, a);
    return s;
}

/* Takes a network that is complete up to any point. */
void cm_net_free(calomu *c, cm_net *net)
{
    if (!net) return;
    cm_release(c, net->trained);
    cm_release(c, net->fixed);
    cm_release(c, net->buffers);
    cm_release(c, net->param);
    cm_list_free(c, net->list);
    cm_release(c, net);
}

/* A network without values.  Takes over the user of `list` that it is given, in every case.

   cm_param_all runs twice: without a table it counts, with one it writes.  So the size of the table
   is never a guess, and counts and offsets come from one text. */
static calomu_status cm_net_with(calomu *c, const calomu_architecture *a, cm_list *list,
                                 cm_net **out)
{
    cm_net *net = list ? cm_allocate(c, 1, sizeof *net) : NULL;
    if (!net) {
        cm_list_free(c, list);
        return CALOMU_EMEMORY;
    }
    net->arch = *a;
    net->list = list;
    cm_param_all(net);
    net->param = cm_allocate(c, (size_t)net->n_params, sizeof *net->param);
    if (!net->param) {
        cm_net_free(c, net);
        return CALOMU_EMEMORY;
    }
    cm_param_all(net);
    *out = net;
    return CALOMU_OK;
}

/* Its values, all 0, and the plans.  The plans come first: a list that cannot be planned takes no
   memory for values.  A failure leaves the rest to cm_net_free. */
static calomu_status cm_net_room(calomu *c, cm_net *net)
{
    calomu_status s = cm_plans_make(c, net->list);
    if (s != CALOMU_OK) return s;
    net->trained = cm_allocate(c, net->n_trained, sizeof(cm_real));
    if (net->trained) net->fixed = cm_allocate(c, net->n_fixed, sizeof(cm_real));
    if (net->fixed) net->buffers = cm_allocate(c, net->n_buffers, sizeof(cm_real));
    return net->buffers ? CALOMU_OK : CALOMU_EMEMORY;
}

/* The table without values, and the list without plans: at most 0.8 megabytes. */
static calomu_status cm_net_table(calomu *c, const calomu_architecture *a, cm_net **out)
{
    calomu_status s = cm_architecture_check(c, a);
    return s == CALOMU_OK ? cm_net_with(c, a, cm_list_paper(c, a), out) : s;
}

/* A network that has its table so far (s: how that went): room for its values, or none of it.

   Frees the network on any failure, its own and the one that it is told of, so that callers end
   with one line. */
static calomu_status cm_net_finish(calomu *c, calomu_status s, cm_net *net, cm_net **out)
{
    if (s == CALOMU_OK) s = cm_net_room(c, net);
    if (s == CALOMU_OK) *out = net;
    else cm_net_free(c, net);
    return s;
}

/* The paper's network, or one of its relatives, with all values 0. */
calomu_status cm_net_new(calomu *c, const calomu_architecture *a, cm_net **out)
{
    cm_net *net = NULL;
    calomu_status s = cm_net_table(c, a, &net);
    return cm_net_finish(c, s, net, out);
}

/* A network of any list that passes cm_list_check.  The architecture tells of the paper's family
   only; here it is a default with the calorimeter and the inputs of the list, which is what the
   rest of this file asks of it. */
calomu_status cm_net_of_list(calomu *c, cm_list *s, cm_net **out)
{
    calomu_architecture a = calomu_architecture_default();
    calomu_status status = cm_list_check(c, s);
    cm_net *net = NULL;
    if (status != CALOMU_OK) {
        cm_list_free(c, s);
        return status;
    }
    a.geometry.nz = s->hits[0];
    a.geometry.nx = s->hits[1];
    a.geometry.ny = s->hits[2];
    a.head = (s->reads & CM_READS_HITS) != 0;
    a.n_features = s->reads & CM_READS_FEATURES ? s->features : 0;
    status = cm_net_with(c, &a, s, &net);
    return cm_net_finish(c, status, net, out);
}

/* Another network of the same list, which they share.

   The new user is counted before cm_net_with takes it over, also where that fails and gives it
   back. */
static calomu_status cm_net_like(calomu *c, const cm_net *first, cm_net **out)
{
    cm_net *net = NULL;
    calomu_status s;
    first->list->users++;
    s = cm_net_with(c, &first->arch, first->list, &net);
    return cm_net_finish(c, s, net, out);
}

/* ============================================================================================
   13 The trainer (Secs. 3.2.3, 3.2.4)
   ============================================================================================

   Bottom up: options, plan (folds, shuffles, rates, decisions), muons (truth, features,
   standardisation), step, checkpoint.  A trainer is a state machine: calomu_trainer_step does one
   batch, and between two steps everything that later bits depend on is in cm_state, the weight
   blocks and the thresholds, which is what a checkpoint holds.  Nothing random is kept: shuffles
   are functions of (seed, epoch, fold).

   The steps of an epoch, told apart by two counters of cm_state:

       update < per_epoch       one batch: forward, loss, backward, Adam       update + 1
       validated < monitored    one batch of monitored muons: forward          validated + n
       else                     losses, MI, decision (section 8)               both 0, epoch + 1

   In the paper's training an epoch has 34 folds of 96 batches of 256, 3,264 updates; then 97
   batches of 24,631 monitored muons; then the step that ends it.

   A step that fails has changed nothing that later bits depend on, so it may be tried again, and a
   checkpoint may be written after it.  (Where a device is lost, the training is back at the last
   state that the host knows: cm_remote_lost.)  A kill loses the steps since the last checkpoint and
   nothing else: a trainer has no file of its own.

   A training that is saved and resumed at any step ends with the same bits as one that ran through,
   on another machine, with other threads or on a device, too (tests/test_train.c saves and resumes
   at every step, tests/test_device.c moves to a device and back). */

/* ---------------------------------------------------------------- options as a table */

/* A number in a struct: name in files and messages, place, type, range.  Types: i int32_t,
   u uint64_t, f float, d double, n double that may be NaN. */
typedef struct cm_field {
    const char *key;
    size_t at;
    char type;
    double low, high;
} cm_field;

/* The name of a number in files and messages is the name of the struct's member (#member):
   "train.batch", "state.plan.epoch".  Renaming a member would change the format of models and
   checkpoints.  One table serves the checks of what a caller gives, the writing, the reading and
   the checks of what was read, so none of these can forget a number. */
#define CM_FIELD(type, member, letter, low, high) \
    { #member, offsetof(type, member), letter, low, high }
#define CM_COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

/* The ranges keep every product of two of them inside 64 bits and every list within memory that a
   machine may have; beyond that they are generous.

   A NaN is in no range.  lr may be 0, which stands for the default and is never in a checkpoint;
   bins end at 16, the length of `thresholds`; 2e19 is above 2^64, so every seed is in range.  The
   weights divide by weight_low and weight_high, the combination with a tracker by `tracker`: these
   are above 0. */
enum { CM_TRAIN_LATER = 4 };         /* the last of them: not in checkpoints of version 1 */
static const cm_field cm_train_fields[] = {
    CM_FIELD(calomu_train_options, batch, 'i', 1, 1048576),
    CM_FIELD(calomu_train_options, folds, 'i', 2, 1048576),
    CM_FIELD(calomu_train_options, holdout, 'i', 0, 1),
    CM_FIELD(calomu_train_options, unique, 'i', 0, 1),
    CM_FIELD(calomu_train_options, member, 'i', 0, 1048576),
    CM_FIELD(calomu_train_options, epochs, 'i', 1, 1000000),
    CM_FIELD(calomu_train_options, cycle_epochs, 'i', 1, 1000000),
    CM_FIELD(calomu_train_options, patience, 'i', 1, 1000000),
    CM_FIELD(calomu_train_options, stop_after, 'i', 1, 1000000),
    CM_FIELD(calomu_train_options, lr, 'd', 0, 1e300),
    CM_FIELD(calomu_train_options, seed, 'u', 0, 2e19),
    CM_FIELD(calomu_train_options, bin_low, 'd', 0, 1e12),
    CM_FIELD(calomu_train_options, bin_high, 'd', 0, 1e12),
    CM_FIELD(calomu_train_options, bins, 'i', 1, 16),
    CM_FIELD(calomu_train_options, quantile, 'd', 0, 1),
    CM_FIELD(calomu_train_options, weight_centre, 'd', 0, 1e12),
    CM_FIELD(calomu_train_options, weight_low, 'd', 1e-6, 1e12),
    CM_FIELD(calomu_train_options, weight_high, 'd', 1e-6, 1e12),
    CM_FIELD(calomu_train_options, range_low, 'd', 0, 1e12),
    CM_FIELD(calomu_train_options, range_high, 'd', 0, 1e12),
    CM_FIELD(calomu_train_options, fit_bins, 'i', 2, 10000),
    CM_FIELD(calomu_train_options, mi_bins, 'i', 1, 10000),
    CM_FIELD(calomu_train_options, tracker, 'd', 1e-9, 1e9),
    CM_FIELD(calomu_train_options, shuffle, 'i', 0, 1),
    CM_FIELD(calomu_train_options, outside, 'd', 0, 1),
    CM_FIELD(calomu_train_options, separate, 'i', 0, 1),
    CM_FIELD(calomu_train_options, started, 'i', 0, 1)
};

/* The paper's training (Secs. 3.2.2 to 3.2.4, 4.2): 36 folds, batches of 256, at most 50 epochs, of
   which the first 20 are the 1cycle.  `outside` is ours (cm_judge_part).  lr 0: cm_default_lr finds
   it when the number of updates is known. */
calomu_train_options calomu_train_options_default(void)
{
    calomu_train_options o = { 0 };
    o.batch = 256;
    o.folds = 36;
    o.holdout = 1;
    o.epochs = 50;
    o.cycle_epochs = 20;
    o.patience = 2;
    o.stop_after = 10;
    o.seed = 1;
    o.bin_low = 50;
    o.bin_high = 8000;
    o.bins = 5;
    o.quantile = 0.68;
    o.weight_centre = 5000;
    o.weight_low = 300;
    o.weight_high = 600;
    o.range_low = 100;
    o.range_high = 4000;
    o.fit_bins = 39;
    o.mi_bins = 20;
    o.tracker = 0.2;
    o.outside = 0.2;
    return o;
}

/* Loss bins, weights and range of the MI for muons of other energies, by the straight line that
   takes 50 to `low` and 8000 to `high`.  For 50 to 1000 GeV: centre of the weights 641.5, range of
   the MI 56.0 to 522.0. */
static CM_NOINLINE void cm_train_range(calomu_train_options *o, double low, double high)
{
    const calomu_train_options d = calomu_train_options_default();
    double from = d.bin_low, wide = d.bin_high - d.bin_low, to = high - low;
    /* products before the quotient: 50 and 8000 give the defaults to the last bit */
    o->bin_low = low;
    o->bin_high = high;
    o->weight_centre = low + (d.weight_centre - from) * to / wide;
    o->weight_low = d.weight_low * to / wide;
    o->weight_high = d.weight_high * to / wide;
    o->range_low = low + (d.range_low - from) * to / wide;
    o->range_high = low + (d.range_high - from) * to / wide;
}

void calomu_train_options_range(calomu_train_options *options, double low, double high)
{
    calomu_modes host;
    (void)calomu_modes_set(&host);
    cm_train_range(options, low, high);
    calomu_modes_restore(&host);
}

/* Value of a field as a double, for range checks: 64-bit integers lose low bits, which no range
   here can notice.

   memcpy and not a cast pointer: the place is a number of bytes, and C promises nothing of a double
   that is read by a pointer made from one of unsigned char. */
static double cm_field_value(const void *base, const cm_field *f)
{
    const unsigned char *p = (const unsigned char *)base + f->at;
    int32_t i;
    uint64_t u;
    float x;
    double d;
    switch (f->type) {
    case 'i': memcpy(&i, p, sizeof i); return i;
    case 'u': memcpy(&u, p, sizeof u); return (double)u;
    case 'f': memcpy(&x, p, sizeof x); return (double)x;
    default: memcpy(&d, p, sizeof d); return d;
    }
}

/* `where` opens the message: the name of a file and ": ", or "".

   A test that a NaN fails, since every comparison with it is false; only type 'n' may be one. */
static calomu_status cm_fields_check(calomu *c, calomu_status status, const char *where,
                                     const void *base, const cm_field *f, int n)
{
    int i;
    for (i = 0; i < n; i++) {
        double x = cm_field_value(base, f + i);
        char value[32], low[32], high[32];
        if ((x >= f[i].low && x <= f[i].high) || (f[i].type == 'n' && isnan(x))) continue;
        return cm_fail(c, status, "%s%s is %s, must be in %s..%s", where, f[i].key,
                       isnan(x) ? "not a number" : calomu_number(value, x, 9),
                       calomu_number(low, f[i].low, 9), calomu_number(high, f[i].high, 9));
    }
    return CALOMU_OK;
}

/* Ranges one by one, then what two numbers must be to each other.  The same for options of a caller
   (EUSAGE) and of a file (EFORMAT), as both reach the same code. */
static calomu_status cm_train_check(calomu *c, calomu_status status, const char *where,
                                    const calomu_train_options *o)
{
    calomu_status s = cm_fields_check(c, status, where, o, cm_train_fields,
                                      CM_COUNT(cm_train_fields));
    if (s != CALOMU_OK) return s;
    if (!(o->bin_low < o->bin_high))
        return cm_fail(c, status, "%sthe loss bins need bin_low < bin_high", where);
    if (!(o->range_low < o->range_high))
        return cm_fail(c, status, "%sthe evaluation range needs range_low < range_high", where);
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- the trainer

   What a training is made of, by how long it lives:

       for good       options, architecture, data set (borrowed)
       from the data  role, slot, training, cut, features, truth, mean, deviation: worked out when
                      the trainer is made, and again, to the same bits, when it is resumed
       state          `state`, `thresholds`, `live`, `best`, `prediction`: a checkpoint
       passing        gradient, buffers_before, orders, batch, inputs, events, arena: of one step

   For the paper's 886,716 muons: features 96.5 MB (35 folds of 24,631 rows of 28 floats), the two
   states 6 x 636,570 reals, 15.3 MB.  Hits are not kept: each batch is read from the file when it
   is wanted, so a data set may be larger than the memory. */

typedef struct cm_state {            /* numbers that a checkpoint holds besides options */
    cm_plan plan;
    uint64_t step, best_step;        /* Adam's count: of the live weights, of the best */
    uint64_t updates, update;        /* done in all, in this epoch */
    uint64_t validated;              /* muons of this epoch's validation pass */
    double loss_sum, batch_loss;     /* of this epoch's batches, of the last batch */
    uint64_t n_events, fingerprint;  /* of the data */
    uint64_t n_validation, hits;     /* muons of the validation set; fingerprint of the hits, 0: */
                                     /*   not known (a checkpoint from before it was taken) */
    calomu_train_report last;        /* of the last epoch that ended; epoch 0: none has */
} cm_state;

typedef struct cm_moments {          /* weights, Adam's moments, the norms' buffers */
    cm_real *w, *m, *v, *buffers;
} cm_moments;

struct calomu_trainer {
    calomu *own;
    const calomu_data *data;         /* NULL in a checkpoint that is only described */
    calomu_train_options options;    /* lr: the one in force, never 0 */
    calomu_architecture arch;
    cm_state state;
    double thresholds[16];
    double mean[CALOMU_FEATURES], deviation[CALOMU_FEATURES];

    uint64_t fold_size, per_epoch;   /* muons, updates */
    uint64_t monitored_first, monitored;     /* positions: a validation set's follow the */
                                     /*   last fold */
    uint64_t *cut;                   /* [position]: number of the muon there; NULL: the same */
    uint64_t *asked;                 /* [muon of a batch]: with `cut`, the numbers to read */
    int32_t n_training;              /* folds */
    unsigned char *role;             /* [fold] */
    int32_t *training;               /* the training folds, rising */
    int32_t *slot;                   /* [fold]: rank among the folds in use */
    float *features;                 /* [slot][muon of the fold][28], raw; NULL: not needed */
    double *truth;                   /* [monitored muon] */
    double *prediction;              /*   the first state.validated are there */

    cm_net *net;                     /* the live weights and buffers, fixed weights */
    cm_real *block;                  /* what follows, in one piece of memory */
    cm_moments live, best;           /* live.w and live.buffers are the net's */
    cm_real *gradient;
    cm_real *buffers_before;         /* the norms' buffers before an update */

    uint64_t *fold_order, *order;    /* shuffled training folds; muons of one fold */
    int32_t fold_epoch, order_epoch, order_fold;         /* which these are; 0: none */
    double *batch;                   /* truth, prediction, gradient: batch values each */
    cm_real *inputs;                 /* [muon of a batch][feature], standardised */
    calomu_events events;
    unsigned char *arena;            /* NULL: not made yet */
    size_t arena_size, arena_skip;   /* bytes from start on, to the next multiple of 64 */
    int arena_for;                   /* cm_arena_kind of the context that it was measured for */
    struct cm_remote *remote;        /* the training on a device, or NULL */
};

/* Takes a trainer that is complete up to any point: NULL members are ignored all the way down.
   Data sets are the caller's and stay open. */
void calomu_trainer_free(calomu_trainer *t)
{
    calomu *own;
    if (!t) return;
    own = t->own;
    calomu_events_free(&t->events);
    cm_release(own, t->role);
    cm_release(own, t->cut);
    cm_release(own, t->asked);
    cm_release(own, t->slot);
    cm_release(own, t->training);
    cm_release(own, t->features);
    cm_release(own, t->truth);
    cm_release(own, t->prediction);
    if (t->net) cm_net_free(own, t->net);
    cm_release(own, t->block);
    cm_release(own, t->fold_order);
    cm_release(own, t->order);
    cm_release(own, t->batch);
    cm_release(own, t->inputs);
    cm_release(own, t->arena);
    cm_remote_free(own, t->remote);
    cm_release(own, t);
    cm_clone_free(own);
}

enum { CM_READ_AT_ONCE = 256 };      /* muons, where a whole set is read */

/* A trainer with its clone and nothing else.  The clone has the allocator of c, so what is
   allocated by a later call with another context must come from an allocator that can free this
   one's: a program uses one for all of its contexts. */
static calomu_trainer *cm_trainer_new(calomu *c)
{
    calomu *own = cm_clone(c);
    calomu_trainer *t = own ? cm_allocate(c, 1, sizeof *t) : NULL;
    if (t)
        t->own = own;
    else
        cm_clone_free(own);
    return t;
}

/* Network and blocks for t->arch: weights 0.

   One piece of memory, so that it is there as a whole or not at all:

       live.m  live.v  gradient  best.w  best.m  best.v   n reals each
       best.buffers  buffers_before                       b reals each

   live.w and live.buffers are the network's own blocks: forward and backward work on them
   directly. */
static calomu_status cm_trainer_blocks(calomu *c, calomu_trainer *t)
{
    size_t n, b;
    cm_real *p;
    calomu_status s = t->net ? CALOMU_OK : cm_net_table(c, &t->arch, &t->net);
    if (s == CALOMU_OK) s = cm_net_room(c, t->net);
    if (s != CALOMU_OK) return s;
    n = t->net->n_trained;
    b = t->net->n_buffers;
    t->block = p = cm_allocate(c, 6 * n + 2 * b, sizeof *p);
    if (!p) return CALOMU_EMEMORY;
    t->live.w = t->net->trained;
    t->live.buffers = t->net->buffers;
    t->live.m = p;
    t->live.v = p + n;
    t->gradient = p + 2 * n;
    t->best.w = p + 3 * n;
    t->best.m = p + 4 * n;
    t->best.v = p + 5 * n;
    t->best.buffers = p + 6 * n;
    t->buffers_before = p + 6 * n + b;
    return CALOMU_OK;
}

/* The whole of a state: weights alone would go on with moments of another place, and batch norms
   with sums of other muons. */
static void cm_moments_copy(const calomu_trainer *t, const cm_moments *to, const cm_moments *from)
{
    size_t n = t->net->n_trained * sizeof(cm_real);
    memcpy(to->w, from->w, n);
    memcpy(to->m, from->m, n);
    memcpy(to->v, from->v, n);
    memcpy(to->buffers, from->buffers, t->net->n_buffers * sizeof(cm_real));
}

const calomu_train_options *calomu_trainer_options(const calomu_trainer *t) { return &t->options; }
const calomu_architecture *calomu_trainer_architecture(const calomu_trainer *t) { return &t->arch; }

/* ---------------------------------------------------------------- muons

   Three ways to name a muon:

       position  its place in what is cut into folds; fold f has [f*fold_size, (f + 1)*fold_size)
       number    its place in the file: cut[position] where the muons are shuffled before the cut,
                 else the position
       row       its place in `features`: the folds in use, one behind the other (slot)

   A validation set of its own has the positions from monitored_first on, behind the last fold; its
   numbers count from 0 in its own file.  Muons that are left over when the folds are cut, at most
   folds - 1, have no position below that.

   All muons in use are read once, in chunks of 256, when a trainer is made: for truth, features and
   fingerprints.  In this order: reading; where features come from; features in parallel;
   fingerprints; truth; folds; standardisation; memory; the two sets together.

   Example, the paper's training of member 1: 36 folds of 24,631 muons, fold 0 held out, fold 2
   monitored.  Position 50,000 lies in fold 50,000/24,631 = 2, so it is monitored, muon 738 of its
   fold.  Fold 2 is the second fold in use, slot 1: its row is 1*24,631 + 738 = 25,369.
   monitored_first is 49,262.  Positions of 886,716 and more do not exist: 36 folds leave no muon
   over. */

/* Where the features of the network's inputs come from. */
typedef enum cm_source { CM_SOURCE_NONE, CM_SOURCE_FILE, CM_SOURCE_HITS } cm_source;

/* A position is where a muon is in what is cut into folds; a validation set has those behind the
   last fold. */
static uint64_t cm_event_number(const calomu_trainer *t, uint64_t position)
{
    if (t->options.separate && position >= t->monitored_first) return position - t->monitored_first;
    return t->cut ? t->cut[position] : position;
}

/* Reads n muons, those at the given positions or from `first` on.

   t->events holds the muons until the next call.  n is at most a batch or a chunk, whichever is
   larger: so many numbers fit into t->asked. */
static calomu_status cm_muons_at(calomu *c, calomu_trainer *t, uint64_t first,
                                    const uint64_t *positions, size_t n)
{
    size_t i;
    if (t->options.separate && !positions && first >= t->monitored_first)
        return calomu_data_read(c, t->options.validation, first - t->monitored_first, NULL, n,
                                &t->events);
    if (!t->cut) return calomu_data_read(c, t->data, first, positions, n, &t->events);
    for (i = 0; i < n; i++) t->asked[i] = t->cut[positions ? positions[i] : first + i];
    return calomu_data_read(c, t->data, 0, t->asked, n, &t->events);
}

/* Decides, and says what a person should know.

   Features of the file are taken where convention and E_grow are the network's, else they are
   computed from the hits.  Those of another convention cannot be converted: sums over cells cannot
   be undone.  Standardised ones with unknown mean can be trained on, but not be brought to another
   standardisation; the architecture remembers it, and such a model refuses all other files. */
static calomu_status cm_train_source(calomu *c, calomu_trainer *t, const calomu_data_info *info,
                                     cm_source *source)
{
    const calomu_feature_options *want = &t->arch.feature_options, *have = &info->feature_options;
    *source = CM_SOURCE_NONE;
    t->arch.standardised_unknown = 0;
    if (t->arch.n_features == 0) return CALOMU_OK;
    *source = CM_SOURCE_FILE;
    if (info->features != CALOMU_FEATURES_NONE && have->convention == want->convention
        && have->grow == want->grow) {
        t->arch.standardised_unknown = info->features == CALOMU_FEATURES_STANDARDISED_UNKNOWN;
        if (t->arch.standardised_unknown)
            cm_log(c, "features are standardised with unknown mean and deviation: the model will"
                   " predict only such files");
        return CALOMU_OK;
    }
    *source = CM_SOURCE_HITS;
    if (info->n_hits == 0 && info->features != CALOMU_FEATURES_NONE)
        return cm_fail(c, CALOMU_EFORMAT, "the features of the data are of the convention %s with"
                       " growth over %g GeV, the model's %s over %g GeV, and there are no hits to"
                       " compute them from", calomu_convention_name(have->convention),
                       (double)have->grow, calomu_convention_name(want->convention),
                       (double)want->grow);
    cm_log(c, info->features == CALOMU_FEATURES_NONE
           ? "the data have no features: computing them from the hits"
           : "the data have features of another convention: computing them from the hits");
    return CALOMU_OK;
}

/* Raw features from what a file holds: undone standardisation is rounded to the file's type.

   V24 is clipped to 0..10,000 GeV before it is standardised (see cm_standardise); not where it is
   standardised by unknown numbers, since then nobody knows what 10,000 GeV is there. */
static calomu_status cm_features_take(calomu *c, const calomu_data_info *info,
                                      const calomu_event *e, uint64_t number, float *row)
{
    int i;
    if (!e->features)
        return cm_fail(c, CALOMU_EFORMAT, "event %llu has no features", (unsigned long long)number);
    for (i = 0; i < CALOMU_FEATURES; i++) {
        row[i] = e->features[i];
        if (info->features == CALOMU_FEATURES_STANDARDISED)
            row[i] = (float)cm_fmad((double)e->features[i], info->deviation[i], info->mean[i]);
        if (!isfinite(row[i]))
            return cm_fail(c, CALOMU_EFORMAT, "feature %d (%s) of event %llu is not finite", i,
                           calomu_feature_name(i), (unsigned long long)number);
    }
    if (info->features != CALOMU_FEATURES_STANDARDISED_UNKNOWN) {
        row[24] = row[24] < 0 ? 0 : row[24];
        row[24] = row[24] > 10000 ? 10000 : row[24];
    }
    return CALOMU_OK;
}

/* A thread that computes features: context for its messages, and scratch memory. */
typedef struct cm_worker {
    calomu *own;
    cm_feature_scratch *scratch;
} cm_worker;

/* `worker` has c->threads places; those that were not made are 0. */
static void cm_workers_free(calomu *c, cm_worker *worker)
{
    int i;
    for (i = 0; worker && i < c->threads; i++) {
        if (worker[i].own) cm_feature_scratch_free(worker[i].own, worker[i].scratch);
        cm_clone_free(worker[i].own);
    }
    cm_release(c, worker);
}

/* One for each thread, or NULL.  The message of a worker that could not be made is brought to c
   before the worker goes. */
static cm_worker *cm_workers_new(calomu *c, const calomu_geometry *g)
{
    cm_worker *w = cm_allocate(c, (size_t)c->threads, sizeof *w);
    int i;
    for (i = 0; w && i < c->threads; i++) {
        w[i].own = cm_clone(c);
        if (w[i].own) w[i].scratch = cm_feature_scratch_new(w[i].own, g);
        if (w[i].scratch) continue;
        if (w[i].own) cm_fail(c, CALOMU_EMEMORY, "%s", calomu_message(w[i].own));
        cm_workers_free(c, w);
        return NULL;
    }
    return w;
}

/* The features of n events from their hits, in parallel.  Where one fails it is done again here,
   so that the message is of the first bad event whatever the threads did.

   A row belongs to one muon, so threads write to different places, and the bits do not depend on
   who computed what. */
static calomu_status cm_features_compute(calomu *c, cm_worker *worker, const calomu_trainer *t,
                                         uint64_t first, int n, float *rows)
{
    const calomu_architecture *a = &t->arch;
    const calomu_feature_options *o = &a->feature_options;
    const calomu_event *e = t->events.event;
    int i, failed = n;
    CM_PARALLEL_FOR(c->threads)
    for (i = 0; i < n; i++) {
        cm_worker *w = worker + cm_thread();
        calomu_status s = cm_features(w->own, &a->geometry, e + i, o, w->scratch,
                                      rows + (size_t)i * CALOMU_FEATURES);
        if (s == CALOMU_OK) continue;
        CM_CRITICAL
        if (i < failed) failed = i;
    }
    for (i = failed; i < n; i++) {
        calomu_status s = cm_features(worker->own, &a->geometry, e + i, o, worker->scratch,
                                      rows + (size_t)i * CALOMU_FEATURES);
        if (s != CALOMU_OK)
            return cm_fail(c, s, "features of event %llu: %s",
                           (unsigned long long)cm_event_number(t, first + (uint64_t)i),
                           calomu_message(worker->own));
    }
    return CALOMU_OK;
}

/* A resumed training knows its data by two checksums, over all muons in use in the order in which
   they are read.  One of truth, impact point, number of hits and features: 20 bytes, and 112 of
   features where the network has any.  Changing an energy in its last bit changes it; the charge is
   left out, as nothing depends on it ... */
static uint64_t cm_event_fingerprint(uint64_t sum, const calomu_event *e, const float *row)
{
    unsigned char b[20 + 4 * CALOMU_FEATURES];
    int i;
    cm_put32(b, cm_bits(e->energy));
    cm_put32(b + 4, cm_bits(e->x));
    cm_put32(b + 8, cm_bits(e->y));
    cm_put64(b + 12, (uint64_t)e->n_hits);
    for (i = 0; row && i < CALOMU_FEATURES; i++) cm_put32(b + 20 + 4 * i, cm_bits(row[i]));
    return cm_checksum(sum, b, row ? sizeof b : 20);
}

/* ... and the other of every hit, as cell and energy in the bytes of a file: data in memory and in
   a file, on little- and big-endian machines, give the same.  The checksum of up to 64 hits is the
   seed of the next. */
static uint64_t cm_hits_fingerprint(uint64_t sum, const calomu_event *e)
{
    enum { CHUNK = 64 };
    unsigned char b[8 * CHUNK];
    size_t at, i, n;
    for (at = 0; at < e->n_hits; at += n) {
        n = e->n_hits - at < CHUNK ? e->n_hits - at : CHUNK;
        for (i = 0; i < n; i++) {
            cm_put32(b + 8 * i, e->hits[at + i].cell);
            cm_put32(b + 8 * i + 4, cm_bits(e->hits[at + i].energy));
        }
        sum = cm_checksum(sum, b, 8 * n);
    }
    return sum;
}

/* The number is the one in the file, not the position: a person looks there. */
static calomu_status cm_no_truth(calomu *c, const calomu_trainer *t, uint64_t position)
{
    return cm_fail(c, CALOMU_EFORMAT, "event %llu%s has no true energy: a training needs the truth"
                   " of every muon", (unsigned long long)cm_event_number(t, position),
                   t->options.separate && position >= t->monitored_first ? " of the validation set"
                                                                      : "");
}

/* Truth of the n events from position `first` on.  Where it is known, it is finite and positive:
   every set of muons is checked for that.

   Kept for the monitored muons only, which are needed all at once at the end of an epoch; a batch's
   truth comes with its hits.  *without: muons without an impact point, for one notice instead of
   thousands. */
static calomu_status cm_truth_take(calomu *c, calomu_trainer *t, uint64_t first, int n,
                                   uint64_t *without)
{
    const calomu_event *e = t->events.event;
    int i;
    for (i = 0; i < n; i++) {
        uint64_t position = first + (uint64_t)i;
        if (isnan(e[i].energy)) return cm_no_truth(c, t, position);
        if (position >= t->monitored_first && position - t->monitored_first < t->monitored)
            t->truth[position - t->monitored_first] = (double)e[i].energy;
        *without += cm_impact_absent(e + i) ? 1 : 0;
    }
    return CALOMU_OK;
}

/* The row of a muon in use.  The validation set's come behind those of the training folds; the
   monitored fold's are among the folds', as it is one. */
static float *cm_feature_row(const calomu_trainer *t, uint64_t position)
{
    uint64_t fold = position / t->fold_size;
    uint64_t row = t->options.separate && position >= t->monitored_first
        ? (uint64_t)t->n_training * t->fold_size + (position - t->monitored_first)
        : (uint64_t)t->slot[fold] * t->fold_size + position % t->fold_size;
    return t->features + (size_t)row * CALOMU_FEATURES;
}

/* The n muons from position `first` on: a fold, or the validation set.

   `rows` moves along with the muons.  A chunk is bounded by memory for hits: 256 muons of some
   4,000 hits take 8 MB. */
static calomu_status cm_fold_read(calomu *c, calomu_trainer *t, cm_worker *worker,
                                  cm_source source, uint64_t first, uint64_t many,
                                  uint64_t *without)
{
    enum { CHUNK = CM_READ_AT_ONCE };
    int validation = t->options.separate && first >= t->monitored_first;
    const calomu_data_info *info = calomu_data_describe(validation ? t->options.validation
                                                                   : t->data);
    float *rows = t->features ? cm_feature_row(t, first) : NULL;
    uint64_t done;
    calomu_status s = CALOMU_OK;
    for (done = 0; done < many && s == CALOMU_OK; done += CHUNK) {
        int i, n = many - done < CHUNK ? (int)(many - done) : CHUNK;
        s = cm_muons_at(c, t, first + done, NULL, (size_t)n);
        if (s != CALOMU_OK) return s;
        s = cm_truth_take(c, t, first + done, n, without);
        if (s == CALOMU_OK && source == CM_SOURCE_HITS)
            s = cm_features_compute(c, worker, t, first + done, n, rows);
        for (i = 0; i < n && s == CALOMU_OK && source == CM_SOURCE_FILE; i++)
            s = cm_features_take(c, info, t->events.event + i,
                                 cm_event_number(t, first + done + (uint64_t)i),
                                 rows + (size_t)i * CALOMU_FEATURES);
        for (i = 0; i < n && s == CALOMU_OK; i++) {
            t->state.fingerprint = cm_event_fingerprint(t->state.fingerprint, t->events.event + i,
                                                        rows);
            t->state.hits = cm_hits_fingerprint(t->state.hits, t->events.event + i);
            if (rows) rows += CALOMU_FEATURES;
        }
    }
    return s;
}

/* All folds in use, one after the other, or the validation set: truth, features, fingerprints.

   Folds not in use are not read, so a network that trains on 7 of 36 folds starts after a fifth of
   the work. */
static calomu_status cm_muons_read(calomu *c, calomu_trainer *t, cm_source source, int validation)
{
    cm_worker *worker = NULL;
    uint64_t without = 0;
    int32_t fold;
    calomu_status s = CALOMU_OK;
    if (source == CM_SOURCE_HITS) {
        s = cm_feature_options_check(c, &t->arch.feature_options);
        if (s == CALOMU_OK && !(worker = cm_workers_new(c, &t->arch.geometry)))
            s = CALOMU_EMEMORY;
    }
    for (fold = 0; !validation && fold < t->options.folds && s == CALOMU_OK; fold++)
        if (t->role[fold] != CM_FOLD_UNUSED)
            s = cm_fold_read(c, t, worker, source, (uint64_t)fold * t->fold_size, t->fold_size,
                             &without);
    if (validation && s == CALOMU_OK)
        s = cm_fold_read(c, t, worker, source, t->monitored_first, t->monitored, &without);
    cm_workers_free(c, worker);
    if (s == CALOMU_OK && source == CM_SOURCE_HITS && without > 0)
        cm_log(c, "%llu muons have no impact point: the centre of the column with the largest"
               " energy is used", (unsigned long long)without);
    return s;
}

/* "standardised with mean and population standard deviation, in double, over the training folds,
   after clipping V24; a deviation of 0 counts as 1".  Two passes in the order of the
   events.

   28 features, 2 passes of 34 folds for the paper: the mean first, then squares about it.  One pass
   with sums of x and x^2 loses the deviation of features whose mean is large against it.  One
   thread adds, in one order; the monitored fold takes no part, or its muons would not be unseen. */
static void cm_standardise(calomu_trainer *t)
{
    double n = (double)t->n_training * (double)t->fold_size;
    int i, pass;
    for (i = 0; i < CALOMU_FEATURES; i++) {
        double mean = 0, square = 0;
        t->mean[i] = 0;
        t->deviation[i] = 1;
        if (!t->features || t->arch.standardised_unknown) continue;
        for (pass = 0; pass < 2; pass++) {
            int32_t fold;
            for (fold = 0; fold < t->options.folds; fold++) {
                uint64_t k, start = (uint64_t)fold * t->fold_size;
                if (t->role[fold] != CM_FOLD_TRAINING) continue;
                for (k = 0; k < t->fold_size; k++) {
                    double x = (double)cm_feature_row(t, start + k)[i];
                    if (pass == 0)
                        mean += x;
                    else
                        square = cm_fmad(x - mean, x - mean, square);
                }
            }
            if (pass == 0) mean /= n;
        }
        t->mean[i] = mean;
        t->deviation[i] = square > 0 ? sqrt(square / n) : 1;
    }
}

/* The memory that depends on the data and the folds.

   A resumed trainer brings predictions of a validation pass that was interrupted: state.validated
   of them are carried over into memory for all.  state.validated <= monitored (cm_state_sane).

   (n_training*size + seen)*28*4 bytes must not wrap.  `most` itself wraps where `seen` is too
   large, which the first half of the test refuses before `most` is looked at. */
static calomu_status cm_trainer_room(calomu *c, calomu_trainer *t)
{
    size_t size = (size_t)t->fold_size, seen = (size_t)t->monitored, used = 0;
    int32_t fold, slot = 0, k = 0;
    double *prediction;
    t->slot = cm_allocate(c, (size_t)t->options.folds, sizeof *t->slot);
    t->training = cm_allocate(c, (size_t)t->n_training, sizeof *t->training);
    t->fold_order = cm_allocate(c, (size_t)t->n_training, sizeof *t->fold_order);
    t->order = cm_allocate(c, size, sizeof *t->order);
    t->truth = cm_allocate(c, seen, sizeof *t->truth);
    t->batch = cm_allocate(c, 3 * (size_t)t->options.batch, sizeof *t->batch);
    t->inputs = cm_allocate(c, (size_t)t->options.batch * CALOMU_FEATURES, sizeof *t->inputs);
    prediction = cm_allocate(c, seen, sizeof *prediction);
    if (prediction && t->prediction)             /* from a checkpoint */
        memcpy(prediction, t->prediction, (size_t)t->state.validated * sizeof *prediction);
    cm_release(c, t->prediction);
    t->prediction = prediction;
    if (!t->slot || !t->training || !t->fold_order || !t->order || !t->truth || !t->batch
        || !t->inputs || !prediction)
        return CALOMU_EMEMORY;
    if (t->arch.n_features > 0) {
        size_t most = SIZE_MAX / sizeof(float) / CALOMU_FEATURES - seen;
        if (seen >= SIZE_MAX / sizeof(float) / CALOMU_FEATURES
            || size > most / (size_t)t->n_training)
            return cm_fail(c, CALOMU_EMEMORY, "no memory for the features of %d folds of %zu"
                           " muons", (int)t->n_training, size);
        used = (size_t)t->n_training * size + seen;
        t->features = cm_allocate(c, used * CALOMU_FEATURES, sizeof *t->features);
        if (!t->features) return CALOMU_EMEMORY;
    }
    for (fold = 0; fold < t->options.folds; fold++)
        if (t->role[fold] != CM_FOLD_UNUSED) {
            t->slot[fold] = slot++;
            if (t->role[fold] == CM_FOLD_TRAINING) t->training[k++] = fold;
        }
    return CALOMU_OK;
}

/* What follows from options and the number of muons alone.

   INT_MAX bounds a fold and a validation set, because the loss of an epoch is computed over all of
   their muons at once with an int.  n_events may be a forger's (a checkpoint's): nothing here takes
   memory by it.  t->n_training counts from 0, so this runs once for a trainer. */
static calomu_status cm_trainer_plan(calomu *c, calomu_trainer *t, uint64_t n_events)
{
    int32_t fold;
    calomu_status s;
    t->role = cm_allocate(c, (size_t)t->options.folds, 1);
    if (!t->role) return CALOMU_EMEMORY;
    s = cm_plan_folds(c, &t->options, n_events, t->role);
    if (s != CALOMU_OK) return s;
    t->state.n_events = n_events;
    t->fold_size = n_events / (uint64_t)t->options.folds;
    if (t->fold_size > INT_MAX)
        return cm_fail(c, CALOMU_EUSAGE, "a fold holds more than %d muons: use more folds",
                       INT_MAX);
    if (t->options.separate && (t->state.n_validation < 1 || t->state.n_validation > INT_MAX))
        return cm_fail(c, CALOMU_EUSAGE, "a validation set has 1 to %d muons, not %llu", INT_MAX,
                       (unsigned long long)t->state.n_validation);
    fold = t->options.separate ? t->options.folds : t->options.member + 1;
    t->monitored_first = (uint64_t)fold * t->fold_size;
    t->monitored = t->options.separate ? t->state.n_validation : t->fold_size;
    for (fold = 0; fold < t->options.folds; fold++)
        t->n_training += t->role[fold] == CM_FOLD_TRAINING;
    t->per_epoch = (uint64_t)t->n_training * (t->fold_size / (uint64_t)t->options.batch);
    return CALOMU_OK;
}

/* The order in which the muons are cut into folds: the data's, or a shuffled one.

   8 bytes for each muon of the file.  The order follows from the seed alone: it is in no
   checkpoint. */
static calomu_status cm_trainer_cut(calomu *c, calomu_trainer *t)
{
    size_t most = CM_READ_AT_ONCE;
    if (!t->options.shuffle) return CALOMU_OK;
    if ((size_t)t->options.batch > most) most = (size_t)t->options.batch;
    if (t->state.n_events > SIZE_MAX / sizeof *t->cut)
        return cm_fail(c, CALOMU_EMEMORY, "no memory for the order of %llu muons",
                       (unsigned long long)t->state.n_events);
    t->cut = cm_allocate(c, (size_t)t->state.n_events, sizeof *t->cut);
    t->asked = cm_allocate(c, most, sizeof *t->asked);
    if (!t->cut || !t->asked) return CALOMU_EMEMORY;
    cm_plan_shuffle(t->options.seed, CM_CUT_STREAM, t->cut, t->state.n_events);
    return CALOMU_OK;
}

/* Muons of one set, whose calorimeter and features must be what the network wants.

   The memory for features is taken only after the calorimeter has been found right. */
static calomu_status cm_trainer_take(calomu *c, calomu_trainer *t, const calomu_data *data,
                                     int validation)
{
    const calomu_data_info *info = calomu_data_describe(data);
    int unknown = t->arch.standardised_unknown;
    cm_source source;
    calomu_status s;
    if (calomu_geometry_compare(c, &info->geometry, &t->arch.geometry) != CALOMU_OK)
        return cm_fail_in(c, CALOMU_EFORMAT, validation
                          ? "the validation set's calorimeter is not the network's"
                          : "the data's calorimeter is not the network's");
    s = cm_train_source(c, t, info, &source);
    if (s != CALOMU_OK) return s;
    if ((validation || t->options.started) && unknown != t->arch.standardised_unknown)
        return cm_fail(c, CALOMU_EFORMAT, "features standardised with unknown mean and deviation"
                       " go together with none but such: %s has others",
                       validation ? "the validation set" : "the network to start from");
    if (!validation) s = cm_trainer_room(c, t);
    return s == CALOMU_OK ? cm_muons_read(c, t, source, validation) : s;
}

/* Brings trainer and data together: truth, features, standardisation (that of a network to start
   from stays: its weights are for it).

   For a new training and a resumed one alike.  The fingerprints start at 0 here: what a checkpoint
   says of them has been put aside by then (cm_resume_attach). */
static calomu_status cm_trainer_attach(calomu *c, calomu_trainer *t, const calomu_data *data)
{
    calomu_status s;
    t->data = data;
    t->state.fingerprint = t->state.hits = 0;
    s = cm_trainer_take(c, t, data, 0);
    if (s == CALOMU_OK && t->options.separate)
        s = cm_trainer_take(c, t, t->options.validation, 1);
    if (s == CALOMU_OK && !t->options.started) cm_standardise(t);
    return s;
}

/* ---------------------------------------------------------------- do muons and options fit?

   Files in some order, another unit, options for other energies: each trains to nonsense without
   any other sign.  All of this is looked at before the first long piece of work.

   Errors are kept for what no sensible training has; what is only unusual is a notice.  `outside`
   (0.2; 1 switches all of this off but for the order) is the part of the muons that may be beyond.

       order of the file    Kolmogorov-Smirnov between the fold set apart and the others, p < 1e-6
       bins of the loss     too many muons outside; four of five bins empty
       weights of Eq. (3)   too many muons below 1e-3
       range of the MI      four fifths of it without a muon
       unit of the hits     sums above the true energy; no cell above 0.1 GeV

   All true energies in use are looked at, 4 bytes of each muon, and the hits of up to 1000.  The
   two-sample test asks whether two sets of numbers come from one distribution, by the largest
   distance of their cumulative distributions; with p < 1e-6 one in a million good files is refused.

   In this order: the test; the energies, in three sorted parts; the judgements; cm_trainer_judge;
   the range of energies that --energy-range auto asks for. */

enum { CM_LOOKED = 1000 };           /* muons whose hits are looked at */
static const double cm_ks_least = 1e-6;          /* probability of a distance that may be chance */
static const double cm_weight_least = 1e-3;      /* of Eq. (3): below it a muon teaches nothing */

/* n m times the largest distance of the distributions of two sorted samples.  Equal values count
   together; n and m are below 2^32.  end[k] becomes 1 where k values are not above the next.

   An integer, |i m - j n| with i values of x and j of y passed, so that no rounding decides which
   distances are equal.  A NaN would stop the loop for ever: truth has none (cm_energy_take). */
static uint64_t cm_ks_distance(const double *x, size_t n, const double *y, size_t m,
                               unsigned char *end)
{
    uint64_t i = 0, j = 0, most = 0;
    while (i < n || j < m) {
        double v = j == m || (i < n && x[i] < y[j]) ? x[i] : y[j];
        uint64_t gap;
        while (i < n && !(x[i] > v)) i++;
        while (j < m && !(y[j] > v)) j++;
        if (end) end[i + j] = 1;
        gap = i * m > j * n ? i * m - j * n : j * n - i * m;
        if (gap > most) most = gap;
    }
    return most;
}

/* Probability of this distance or more if n and m of all values are drawn by chance: a random path
   from (0, 0) to (n, m) that is looked at where equal values end (J. L. Hodges, Ark. Mat. 3 (1958)
   469).  Sums of positive terms, so small ones are right too.  w: m + 1 numbers.

   w[j] in row i: the probability that a path to (i, j) has been as far apart as `distance`.  It
   came from (i - 1, j) with probability i/(i + j), from (i, j - 1) with j/(i + j).  Of two against
   two values, all of x below all of y, two of six paths get as far: 1/3.  n m steps. */
static double cm_ks_exact(size_t n, size_t m, uint64_t distance, const unsigned char *end,
                          double *w)
{
    size_t i, j;
    for (i = 0; i <= n; i++)
        for (j = 0; j <= m; j++) {
            uint64_t a = (uint64_t)i * m, b = (uint64_t)j * n, gap = a > b ? a - b : b - a;
            double p = 0, k = (double)(i + j);
            if (i > 0) p = w[j] * ((double)i / k);
            if (j > 0) p += w[j - 1] * ((double)j / k);
            w[j] = end[i + j] && gap >= distance ? 1 : p;
        }
    return w[m];
}

/* Large samples: the first term of Kolmogorov's series, which is all of it at the small
   probabilities that matter, and too large rather than too small with equal values.

   A fold of the paper against the others, 24,631 against 837,454, is beyond 4,000,000 steps, and
   large enough for the series. */
calomu_status cm_ks(calomu *c, const double *x, size_t n, const double *y, size_t m, double *p)
{
    const size_t most = 4000000;
    uint64_t distance;
    double d, *w;
    unsigned char *end;
    if (n > most / m) {
        d = (double)cm_ks_distance(x, n, y, m, NULL) / ((double)n * (double)m);
        *p = 2 * cm_exp_double(-2 * d * d / (1 / (double)n + 1 / (double)m));
        if (*p > 1) *p = 1;
        return CALOMU_OK;
    }
    w = cm_allocate(c, m + 1, sizeof *w);
    end = cm_allocate(c, n + m + 1, 1);
    if (w && end) {
        distance = cm_ks_distance(x, n, y, m, end);
        *p = cm_ks_exact(n, m, distance, end, w);
    }
    d = w && end;
    cm_release(c, w);
    cm_release(c, end);
    return d > 0 ? CALOMU_OK : CALOMU_EMEMORY;
}

/* True energies, each part sorted: the folds trained on but one, that one fold (the monitored one,
   where it is no set of its own), and the validation set.

   One piece of memory for all, cut so that no part can reach into the next: the folds have room for
   all of them but one, the one fold for itself. */
enum { CM_REST, CM_PROBE, CM_VALIDATION, CM_PARTS };
typedef struct cm_energies {
    double *at[CM_PARTS], low, high;
    size_t n[CM_PARTS], all;
} cm_energies;

/* Four bytes of the file, not verified.  What cannot be a true energy is asked for again as a whole
   event, which tells damage from absence; what could be one, but is damaged, is found when the
   muons are read. */
static calomu_status cm_energy_take(calomu *c, calomu_trainer *t, uint64_t position, double *y)
{
    int validation = t->options.separate && position >= t->monitored_first;
    float energy = 0;
    calomu_status s = cm_read_energy(c, validation ? t->options.validation : t->data,
                                     cm_event_number(t, position), &energy);
    if (s == CALOMU_OK && !(energy > 0 && isfinite(energy))) {   /* the whole event tells why */
        s = cm_muons_at(c, t, position, NULL, 1);
        if (s != CALOMU_OK) return s;
        energy = t->events.event->energy;
        if (isnan(energy)) return cm_no_truth(c, t, position);
    }
    *y = (double)energy;
    return s;
}

/* Truth of n muons from a position on, behind what is there of a part.

   e->low and e->high are those of all parts together. */
static calomu_status cm_energies_add(calomu *c, calomu_trainer *t, uint64_t first, uint64_t n,
                                     cm_energies *e, int part)
{
    uint64_t i;
    calomu_status s = CALOMU_OK;
    for (i = 0; i < n && s == CALOMU_OK; i++) {
        double *y = e->at[part] + e->n[part]++;
        s = cm_energy_take(c, t, first + i, y);
        if (s != CALOMU_OK) break;
        if (e->all == 0 || *y < e->low) e->low = *y;
        if (e->all == 0 || *y > e->high) e->high = *y;
        e->all++;
    }
    return s;
}

/* e->at[0] is to be released, whatever is returned. */
static calomu_status cm_energies_read(calomu *c, calomu_trainer *t, cm_energies *e)
{
    size_t size = (size_t)t->fold_size, folds = (size_t)t->options.folds;
    int32_t fold, k;
    calomu_status s = CALOMU_OK;
    memset(e, 0, sizeof *e);
    e->at[0] = cm_allocate(c, folds * size + (size_t)t->state.n_validation, sizeof(double));
    if (!e->at[0]) return CALOMU_EMEMORY;
    e->at[CM_PROBE] = e->at[0] + (folds - 1) * size;
    e->at[CM_VALIDATION] = e->at[0] + folds * size;
    for (fold = 0; fold < t->options.folds && s == CALOMU_OK; fold++)
        if (t->role[fold] != CM_FOLD_UNUSED)
            s = cm_energies_add(c, t, (uint64_t)fold * t->fold_size, t->fold_size, e,
                                fold == t->options.member + 1 ? CM_PROBE : CM_REST);
    if (s == CALOMU_OK && t->options.separate)
        s = cm_energies_add(c, t, t->monitored_first, t->monitored, e, CM_VALIDATION);
    for (k = 0; k < CM_PARTS && s == CALOMU_OK; k++) cm_sort(e->at[k], e->n[k]);
    return s;
}

/* Folds are stretches of the file: of a file in some order the fold that is set apart is no sample
   of the others.

   A file that a simulation has written energy by energy is the usual case: fold 1 then holds
   energies that no other fold has.  A validation set of other energies is a notice only: it may be
   wanted. */
static calomu_status cm_judge_order(calomu *c, const calomu_trainer *t, const cm_energies *e)
{
    const double *x = e->at[CM_REST], *y = e->at[CM_PROBE], *z = e->at[CM_VALIDATION];
    size_t n = e->n[CM_REST], m = e->n[CM_PROBE];
    double p = 1;
    calomu_status s = CALOMU_OK;
    if (!t->options.shuffle && n > 0 && m > 0) s = cm_ks(c, x, n, y, m, &p);
    if (s == CALOMU_OK && p < cm_ks_least)
        return cm_fail(c, CALOMU_EFORMAT, "the true energies of fold %d (%g to %g GeV%s) are"
                       " distributed otherwise than those of the other folds (%g to %g GeV):"
                       " Kolmogorov-Smirnov p < 1e-6. Folds are stretches of the data, and these"
                       " muons lie in some order: shuffle them before the cut (--shuffle)",
                       (int)t->options.member + 1, y[0], y[m - 1],
                       t->options.separate ? "" : ", monitored", x[0], x[n - 1]);
    if (s != CALOMU_OK || !t->options.separate || n == 0) return s;
    s = cm_ks(c, x, n, z, e->n[CM_VALIDATION], &p);
    if (s == CALOMU_OK && p < cm_ks_least)
        cm_log(c, "the true energies of the validation set (%g to %g GeV) are distributed otherwise"
               " than those trained on (%g to %g GeV): its loss weighs them otherwise", z[0],
               z[e->n[CM_VALIDATION] - 1], x[0], x[n - 1]);
    return s;
}

/* Part of all muons, or a notice, or silence.

   `unit` guesses: if the lowest energy is above all bins, the numbers may be MeV. */
static calomu_status cm_judge_part(calomu *c, const calomu_trainer *t, size_t n,
                                   const cm_energies *e, const char *what, const char *option)
{
    const char *unit = e->low >= t->options.bin_high ? " (are they MeV?)"
                     : e->high < t->options.bin_low ? " (are they TeV?)" : "";
    if ((double)n > t->options.outside * (double)e->all)
        return cm_fail(c, CALOMU_EFORMAT, "%zu of %zu muons (%.3g%%) %s: true energies are GeV,"
                       " here %g to %g%s. Give the range of these muons (--energy-range auto or"
                       " LOW,HIGH; %s alone), or allow more of them (--outside)", n, e->all,
                       100 * (double)n / (double)e->all, what, e->low, e->high, unit, option);
    if (n > 0) cm_log(c, "%zu of %zu muons %s (%s)", n, e->all, what, option);
    return CALOMU_OK;
}

/* Loss bins that no muon to train on fills have no threshold: four of five empty, or as much of the
   MI's range without a muon, means options for other energies. */
static calomu_status cm_judge_bins(calomu *c, const calomu_trainer *t, const cm_energies *e,
                                   const size_t *filled)
{
    const calomu_train_options *o = &t->options;
    int j, empty = 0;
    for (j = 0; j < o->bins; j++) empty += filled[j] == 0;
    if (5 * empty >= 4 * o->bins && o->outside < 1)
        return cm_fail(c, CALOMU_EFORMAT, "%d of %d loss bins from %g to %g GeV hold no muon: true"
                       " energies are GeV, here %g to %g. Give the range of these muons"
                       " (--energy-range auto or LOW,HIGH; --loss-range alone), or fewer bins"
                       " (--loss-bins)", empty, (int)o->bins, o->bin_low, o->bin_high, e->low,
                       e->high);
    if (empty > 0)
        cm_log(c, "%d of %d loss bins from %g to %g GeV hold no muon (--loss-range)", empty,
               (int)o->bins, o->bin_low, o->bin_high);
    return CALOMU_OK;
}

/* Muons beyond the range of the MI are as usual: the paper has half of them there. */
static calomu_status cm_judge_range(calomu *c, const calomu_trainer *t, const cm_energies *e)
{
    const calomu_train_options *o = &t->options;
    double low = e->low > o->range_low ? e->low : o->range_low;
    double high = e->high < o->range_high ? e->high : o->range_high;
    double part = 1 - (high > low ? high - low : 0) / (o->range_high - o->range_low);
    if (part >= 0.8 && o->outside < 1)
        return cm_fail(c, CALOMU_EFORMAT, "no muon has a true energy in %.3g%% of the range of the"
                       " MI, %g to %g GeV: true energies are GeV, here %g to %g. Give the range of"
                       " these muons (--energy-range auto or LOW,HIGH; --range alone)", 100 * part,
                       o->range_low, o->range_high, e->low, e->high);
    if (part >= 0.02)
        cm_log(c, "no muon has a true energy in %.3g%% of the range of the MI, %g to %g GeV"
               " (--range)", 100 * part, o->range_low, o->range_high);
    return CALOMU_OK;
}

/* One pass over all energies for the three counts, then the judgements, of which the first error
   ends it.  A bin counts as filled by muons that are trained on or monitored in a fold, not by
   those of a validation set: thresholds are set in training. */
static calomu_status cm_judge_energies(calomu *c, const calomu_trainer *t, const cm_energies *e)
{
    const calomu_train_options *o = &t->options;
    size_t i, filled[16] = { 0 }, beyond = 0, light = 0;
    char what[160];
    int part;
    calomu_status s;
    for (part = 0; part < CM_PARTS; part++)
        for (i = 0; i < e->n[part]; i++) {
            double y = e->at[part][i];
            int bin = cm_loss_bin(o, y);
            if (bin >= 0) filled[bin] += part != CM_VALIDATION;
            beyond += bin < 0;
            light += cm_loss_weight(o, y) < cm_weight_least;
        }
    (void)snprintf(what, sizeof what, "are outside the loss bins of %g to %g GeV", o->bin_low,
                   o->bin_high);
    s = cm_judge_part(c, t, beyond, e, what, "--loss-range");
    (void)snprintf(what, sizeof what, "have a weight below %g by Eq. (3) with its centre at %g GeV",
                   cm_weight_least, o->weight_centre);
    if (s == CALOMU_OK) s = cm_judge_part(c, t, light, e, what, "--weight-centre");
    if (s == CALOMU_OK) s = cm_judge_bins(c, t, e, filled);
    return s == CALOMU_OK ? cm_judge_range(c, t, e) : s;
}

/* Muons with hits: whose hits sum up to more than the true energy, or to less than 5e-5 of it, and
   without a cell above 0.1 GeV, where clusters begin (appendix 6). */
typedef struct cm_units {
    size_t n, above, below, faint;
} cm_units;

static void cm_units_add(cm_units *k, const calomu_event *e)
{
    double sum = 0;
    float most = 0;
    size_t i;
    if (e->n_hits == 0) return;
    for (i = 0; i < e->n_hits; i++) {
        sum += (double)e->hits[i].energy;
        if (e->hits[i].energy > most) most = e->hits[i].energy;
    }
    k->n++;
    k->above += sum > (double)e->energy;
    k->below += sum < 5e-5 * (double)e->energy;
    k->faint += !(most > 0.1f);
}

/* GEANT4 muons of 50 to 8000 GeV in the paper's calorimeter: 0, 0 and 0.5%; hits 1000 times too
   large: all are above, too small: 99% are faint; of a sampling calorimeter that sees 1% of the
   energy 86% are faint, so only nearly all of them are an error. */
static calomu_status cm_judge_units(calomu *c, const calomu_train_options *o, const cm_units *k)
{
    double n = (double)k->n;
    if ((double)k->above > o->outside * n)
        return cm_fail(c, CALOMU_EFORMAT, "the hits of %zu of %zu muons sum up to more than the"
                       " true energy: are hits and true energies in GeV (import --energy-unit says"
                       " what the hits are in)? To train all the same: --outside 1", k->above,
                       k->n);
    if (k->above > 0)
        cm_log(c, "the hits of %zu of %zu muons sum up to more than the true energy", k->above,
               k->n);
    if ((double)k->faint > 0.95 * n && o->outside < 1)
        return cm_fail(c, CALOMU_EFORMAT, "%zu of %zu muons have no cell above 0.1 GeV, where"
                       " clusters begin, so most features are 0: are hits in GeV (import"
                       " --energy-unit says what they are in)? To train all the same: --outside 1",
                       k->faint, k->n);
    if ((double)k->faint > 0.2 * n)
        cm_log(c, "%zu of %zu muons have no cell above 0.1 GeV, where clusters begin: features of"
               " clusters are 0 for them", k->faint, k->n);
    if ((double)k->below > 0.2 * n)
        cm_log(c, "the hits of %zu of %zu muons sum up to less than 0.00005 of the true energy: are"
               " both in GeV?", k->below, k->n);
    return CALOMU_OK;
}

/* The unit of the hits, by up to CM_LOOKED muons spread over the folds.

   Every step-th muon, so that a file in some order is sampled all along. */
static calomu_status cm_judge_hits(calomu *c, calomu_trainer *t)
{
    uint64_t all = (uint64_t)t->options.folds * t->fold_size, step = all / CM_LOOKED + 1, at;
    cm_units k = { 0 };
    for (at = 0; at < all; at += step) {
        calomu_status s;
        if (t->role[at / t->fold_size] == CM_FOLD_UNUSED) continue;
        s = cm_muons_at(c, t, at, NULL, 1);
        if (s != CALOMU_OK) return s;
        cm_units_add(&k, t->events.event);
    }
    return cm_judge_units(c, &t->options, &k);
}

/* What can be said before weights and features are there.

   e.at[0] is released on every way out; it is NULL where there was no memory. */
static calomu_status cm_trainer_judge(calomu *c, calomu_trainer *t)
{
    cm_energies e;
    calomu_status s = cm_energies_read(c, t, &e);
    if (s == CALOMU_OK) s = cm_judge_order(c, t, &e);
    if (s == CALOMU_OK) s = cm_judge_energies(c, t, &e);
    cm_release(c, e.at[0]);
    if (s == CALOMU_OK && calomu_data_describe(t->data)->n_hits > 0) s = cm_judge_hits(c, t);
    return s;
}

/* x > 0 to two digits: the next such number at or below it, or above it (up 1).  p or q is 1.

   57.3 gives 57 and 58, 7841 gives 7800 and 7900, 100 gives 100 and 110: a true energy at the upper
   end must lie below it, as bins are open there. */
static double cm_two_digits(double x, int up)
{
    double p = 1, q = 1;
    while (x / p >= 100) p *= 10;
    while (x * q < 10) q *= 10;
    return (floor(x * q / p) + up) * p / q;
}

/* A trainer that knows its options and muons but no network.

   Enough to know the folds and their energies; cm_trainer_create_call goes on from here.
   options->start stays in t->options until the weights have been taken from it. */
static calomu_status cm_trainer_outline(calomu *c, const calomu_data *data,
                                        const calomu_train_options *options,
                                        calomu_trainer **trainer)
{
    calomu_trainer *t;
    calomu_status s = cm_train_check(c, CALOMU_EUSAGE, "training option ", options);
    if (s != CALOMU_OK) return s;
    t = cm_trainer_new(c);
    if (!t) return CALOMU_EMEMORY;
    t->data = data;
    t->options = *options;
    t->options.separate = options->validation != NULL;
    t->options.started = options->start != NULL;
    if (t->options.separate)
        t->state.n_validation = calomu_data_describe(options->validation)->n_events;
    s = cm_trainer_plan(c, t, calomu_data_describe(data)->n_events);
    if (s == CALOMU_OK) s = cm_trainer_cut(c, t);
    if (s == CALOMU_OK)
        *trainer = t;
    else
        calomu_trainer_free(t);
    return s;
}

/* The lowest and highest true energy in use, to two digits, outwards.  Refuses a file in some
   order, as a training would: the range of its folds would be no range of the data. */
static calomu_status cm_train_energies_call(calomu *c, const calomu_data *data,
                                            const calomu_train_options *options, double *low,
                                            double *high)
{
    calomu_trainer *t = NULL;
    cm_energies e;
    calomu_status s = cm_trainer_outline(c, data, options, &t);
    if (s != CALOMU_OK) return s;
    s = cm_energies_read(c, t, &e);
    if (s == CALOMU_OK) s = cm_judge_order(c, t, &e);
    if (s == CALOMU_OK) {
        *low = cm_two_digits(e.low, 0);
        *high = cm_two_digits(e.high, 1);
    }
    cm_release(c, e.at[0]);
    calomu_trainer_free(t);
    return s;
}

calomu_status calomu_train_energies(calomu *c, const calomu_data *data,
                                    const calomu_train_options *options, double *low, double *high)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_train_energies_call(c, data, options, low, high));
}

/* ---------------------------------------------------------------- one batch through the network

   An engine is a table of functions: the plain layers, or part III.  The trainer and the predictor
   know no more of it than this order, for a cm_batch that was zeroed first:

       measure    how much arena a batch of so many muons takes; nothing is computed
       forward    predictions of all muons; what backward needs is kept in `work`
       backward   derivatives are added to b->gradient; once, after forward
       end        frees `work`; allowed at any time, and twice

       predict    for inference: forward, and end where nothing is to be kept
       prepare, packed, arena    what predictions keep with a model (section 14)

   In this order: the plain engine; inputs; the batch; its arena; the gradient; a training's
   start. */

enum { CM_SPLIT_BELOW = 9 };         /* fewer muons are faster one by one, in blocks (16.2) */

/* Muons on their way through a network, which an engine computes: backward may follow forward, and
   end follows in any case.

   Everything but `work` is borrowed.  Muons and features must stay until end: the hits are read
   again by backward.

   A training step on the processor, with who owns what:

       cm_muons_at       t->events     the muons, until the next cm_muons_at
       cm_train_inputs   t->inputs     their standardised features, until the next
       forward           t->batch[n]   predictions, from there on; b.work is the engine's
       cm_loss           t->batch[2n]  derivatives, from there on; t->thresholds are updated
       backward          t->gradient   summed up from 0
       end               b.work goes; t->arena stays, and its contents mean nothing
       cm_adam           t->live       weights and moments */
typedef struct cm_batch {
    calomu *c;
    const cm_net *net;
    const calomu_event *event;       /* hits by rising cell */
    const cm_real *features;         /* standardised, [muon][feature] */
    int muons, threads;
    cm_real *gradient;               /* training: derivatives are added to it; NULL: inference */
    void *arena;                     /* memory, 64-byte aligned, of at least so many bytes as */
    size_t arena_size;               /*   measure asks for */
    const calomu_model *model;       /* in predictions: whose member the network is */
    void *work;                      /* the engine's; NULL before forward and after end */
} cm_batch;

struct cm_engine {
    calomu_status (*measure)(cm_batch *b, size_t *bytes);
    calomu_status (*forward)(cm_batch *b, double *prediction);
    calomu_status (*backward)(cm_batch *b, const double *dp);
    calomu_status (*predict)(cm_batch *b, double *prediction);   /* inference, up to 16 muons */
    void (*end)(cm_batch *b);
    calomu_status (*prepare)(calomu *c, calomu_model *m);        /* what predictions keep with it */
    int (*packed)(const calomu *c, const calomu_model *m);       /* whether that serves c */
    calomu_status (*arena)(calomu *c, const calomu_model *m, int threads, size_t *bytes);
                                     /* that predict needs */
};

static calomu_status cm_plain_measure(cm_batch *b, size_t *bytes)
{
    (void)b;                         /* each layer takes its own */
    *bytes = 0;
    return CALOMU_OK;
}

static void cm_plain_end(cm_batch *b)
{
    cm_pass_free(b->work);
    b->work = NULL;
}

/* A pass of section 5.9; one of an earlier batch is freed first. */
static calomu_status cm_plain_forward(cm_batch *b, double *prediction)
{
    cm_plain_end(b);
    b->work = cm_pass_new(b->c, b->net, b->event, b->features, b->muons, b->gradient);
    return b->work ? cm_pass_forward(b->work, prediction) : CALOMU_EMEMORY;
}

static calomu_status cm_plain_backward(cm_batch *b, const double *dp)
{
    return cm_pass_backward(b->work, dp);
}

static calomu_status cm_plain_predict(cm_batch *b, double *prediction)
{
    calomu_status s = cm_plain_forward(b, prediction);
    cm_plain_end(b);                 /* it borrows the model's network */
    return s;
}

/* The plain layers read weights as they are: nothing is packed, and no arena is asked for. */
static calomu_status cm_plain_prepare(calomu *c, calomu_model *m)
{
    (void)c;
    (void)m;
    return CALOMU_OK;
}

static int cm_plain_packed(const calomu *c, const calomu_model *m)
{
    (void)c;
    (void)m;
    return 0;
}

static calomu_status cm_plain_arena(calomu *c, const calomu_model *m, int threads, size_t *bytes)
{
    (void)c;
    (void)m;
    (void)threads;
    *bytes = 0;
    return CALOMU_OK;
}

static const cm_engine cm_plain_engine = {
    cm_plain_measure, cm_plain_forward, cm_plain_backward, cm_plain_predict, cm_plain_end,
    cm_plain_prepare, cm_plain_packed, cm_plain_arena
};

/* Which features an input of 3 takes: the energy sums.

   V0, V26 and V27 are three parts of the measured energy; the menu of 3 is a network of energy
   sums. */
static int cm_feature_of_input(int n_features, int k)
{
    static const int sums[3] = { 0, 26, 27 };
    return n_features == 3 ? sums[k] : k;
}

/* Standardised features of the batch; numbers NULL: muons first, first + 1, ... */
static void cm_train_inputs(const calomu_trainer *t, uint64_t first, const uint64_t *numbers, int n)
{
    cm_real *to = t->inputs;
    int i, k, j, nc = t->arch.n_features;
    for (i = 0; i < n && nc > 0; i++) {
        const float *row = cm_feature_row(t, numbers ? numbers[i] : first + (uint64_t)i);
        for (k = 0; k < nc; k++) {
            j = cm_feature_of_input(nc, k);
            *to++ = (cm_real)(((double)row[j] - t->mean[j]) / t->deviation[j]);
        }
    }
}

/* n muons that have been read, for training or validation.

   The muons are those of the last cm_muons_at, the inputs those of the last cm_train_inputs, which
   may follow: b.features is only a pointer. */
static cm_batch cm_train_batch(calomu *c, const calomu_trainer *t, int n, int training)
{
    cm_batch b;
    memset(&b, 0, sizeof b);
    b.c = c;
    b.net = t->net;
    b.event = t->events.event;
    b.features = t->inputs;
    b.muons = n;
    b.threads = c->threads;
    b.gradient = training ? t->gradient : NULL;
    if (t->arena) b.arena = t->arena + t->arena_skip;
    b.arena_size = t->arena_size;
    return b;
}

/* Bytes of arena of the largest batch: of training, or of validation, which keeps less but plans
   otherwise. */
static calomu_status cm_arena_measure(calomu *c, calomu_trainer *t, size_t *bytes)
{
    calomu_status s = CALOMU_OK;
    int training;
    *bytes = 0;
    for (training = 0; training < 2 && s == CALOMU_OK; training++) {
        cm_batch b = cm_train_batch(c, t, t->options.batch, training);
        size_t one = 0;
        s = cm_engine_of(c)->measure(&b, &one);
        if (one > *bytes) *bytes = one;
    }
    return s;
}

/* Threads have sums of their own in the arena, so another context may need another one.

   One number for each combination: four choices of one bit, and the threads above them. */
static int cm_arena_kind(const calomu *c)
{
    return 16 * c->threads + 8 * c->plain + 4 * c->direct + 2 * c->recompute + c->unfused;
}

/* Before every step: a trainer may be handed from context to context, to a device and back.  The
   arena is made when it is first wanted, measured again for another kind of context, and only ever
   grows; the new one is there before the old one goes, so a failure changes nothing.  Kernels want
   64-byte addresses, which allocators need not give: hence 64 bytes more and arena_skip. */
static calomu_status cm_trainer_arena(calomu *c, calomu_trainer *t)
{
    size_t bytes;
    calomu_status s = cm_remote_ready(c, t);
    if (s != CALOMU_OK || t->remote) return s;
    if (t->arena && t->arena_for == cm_arena_kind(c)) return CALOMU_OK;
    s = cm_arena_measure(c, t, &bytes);
    if (s != CALOMU_OK) return s;
    if (!t->arena || bytes > t->arena_size) {
        unsigned char *p = bytes < SIZE_MAX / 4 ? cm_allocate(c, bytes + 64, 1) : NULL;
        if (!p)
            return cm_fail(c, CALOMU_EMEMORY, "no memory for %zu bytes, which a batch of %d muons"
                           " needs: a smaller batch needs less", bytes, (int)t->options.batch);
        cm_release(c, t->arena);
        t->arena = p;
        t->arena_size = bytes;
        t->arena_skip = (64 - (size_t)((uintptr_t)p % 64)) % 64;
    }
    t->arena_for = cm_arena_kind(c);
    return CALOMU_OK;
}

/* Of every gradient before Adam sees it: one infinity would turn a weight, and its moments, into
   NaNs for good. */
static int cm_all_finite(const cm_real *x, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (!isfinite(x[i])) return 0;
    return 1;
}

static calomu_status cm_train_not_finite(calomu *c, const calomu_trainer *t, const char *what)
{
    return cm_fail(c, CALOMU_ENOTFINITE, "%s of update %llu in epoch %d is not finite: a smaller"
                   " learning rate may help; the best state so far is kept", what,
                   (unsigned long long)t->state.updates + 1, (int)t->state.plan.epoch);
}

/* Loss and gradient of one training batch; changes the norms' buffers and the thresholds.

   t->events holds the batch.  On failure buffers and thresholds may have changed, and
   cm_local_update puts them back; weights and moments have not.  A prediction that is not finite is
   found before the loss, whose thresholds would take it in, and counts as the loss's fault. */
static calomu_status cm_train_gradient(calomu *c, calomu_trainer *t, const uint64_t *numbers,
                                       double *loss)
{
    const cm_engine *engine = cm_engine_of(c);
    int i, n = t->options.batch, finite = 1;
    double *truth = t->batch, *pred = t->batch + n, *dp = t->batch + 2 * (size_t)n;
    cm_batch b = cm_train_batch(c, t, n, 1);
    calomu_status s;
    memset(t->gradient, 0, t->net->n_trained * sizeof *t->gradient);
    for (i = 0; i < n; i++) truth[i] = (double)t->events.event[i].energy;
    cm_train_inputs(t, 0, numbers, n);
    s = engine->forward(&b, pred);
    for (i = 0; s == CALOMU_OK && i < n; i++) finite = finite && isfinite(pred[i]);
    if (s == CALOMU_OK && finite) {
        *loss = cm_loss(&t->options, truth, pred, n, t->thresholds, 1, dp);
        finite = isfinite(*loss);
        if (finite) s = engine->backward(&b, dp);
    }
    engine->end(&b);
    if (s != CALOMU_OK) return s;
    if (finite && cm_all_finite(t->gradient, t->net->n_trained)) return CALOMU_OK;
    return cm_train_not_finite(c, t, finite ? "a gradient" : "the loss");
}

static int cm_same_architecture(const calomu_architecture *a, const calomu_architecture *b);
static void cm_net_copy(const cm_net *to, const cm_net *from);     /* both in 14 */

/* Member k of an ensemble starts from its member k. */
static int cm_start_member(const calomu_train_options *o)
{
    return o->start->info.members > 1 ? o->member : 0;
}

/* Weights of another architecture do not fit; weights of the same one with other means and
   deviations do, as those are taken along (cm_start_take). */
static calomu_status cm_start_check(calomu *c, const calomu_train_options *o,
                                    const calomu_architecture *a)
{
    if (cm_start_member(o) >= o->start->info.members)
        return cm_fail(c, CALOMU_EUSAGE, "member %d cannot start from an ensemble of %d",
                       (int)o->member, o->start->info.members);
    if (!cm_same_architecture(a, &o->start->info.architecture))
        return cm_fail(c, CALOMU_EUSAGE, "the model to start from has another architecture: give"
                       " its own (calomu_model_describe)");
    return CALOMU_OK;
}

/* Values and standardisation.  Moments and counters begin anew: a model has none. */
static void cm_start_take(calomu_trainer *t, const calomu_model *start)
{
    cm_net_copy(t->net, start->net[cm_start_member(&t->options)]);
    memcpy(t->mean, start->info.mean, sizeof t->mean);
    memcpy(t->deviation, start->info.deviation, sizeof t->deviation);
}

/* In the order of cost: options, architecture, device, folds; then the energies are looked at; then
   weights are made; then all muons are read.  A training that cannot work says so in seconds.

   A batch of one muon has no variance over the batch, hence the least batch of 2 where there is a
   head.  attach may change t->arch (standardised_unknown), so the network's copy is set behind it.
   The learning rate's default needs the number of updates of an epoch.  The arena comes last, and
   is made here already, so that a batch too large for the machine is found before the first
   step. */
static calomu_status cm_trainer_create_call(calomu *c, const calomu_data *data,
                                            const calomu_architecture *architecture,
                                            const calomu_train_options *options,
                                            calomu_trainer **trainer)
{
    calomu_trainer *t = NULL;
    calomu_status s;
    int i;
    s = cm_train_check(c, CALOMU_EUSAGE, "training option ", options);
    if (s == CALOMU_OK) s = cm_architecture_check(c, architecture);
    if (s == CALOMU_OK) s = cm_device_check(c);
    if (s != CALOMU_OK) return s;
    if (architecture->head && options->batch < 2)
        return cm_fail(c, CALOMU_EUSAGE, "running batch norm needs at least 2 muons in a batch");
    if (options->start) s = cm_start_check(c, options, architecture);
    if (s == CALOMU_OK) s = cm_trainer_outline(c, data, options, &t);
    if (s != CALOMU_OK) return s;
    t->arch = *architecture;
    t->state.plan.epoch = 1;
    for (i = 0; i < 16; i++) t->thresholds[i] = -1;
    s = cm_trainer_judge(c, t);
    if (s == CALOMU_OK) s = cm_trainer_blocks(c, t);
    if (s == CALOMU_OK && options->start) cm_start_take(t, options->start);
    if (s == CALOMU_OK) s = cm_trainer_attach(c, t, data);
    if (s == CALOMU_OK) {
        t->net->arch = t->arch;
        if (!options->start) cm_net_init(t->net, cm_train_seed(&t->options));
        t->options.start = NULL;     /* need not outlive this call */
        if (!(t->options.lr > 0)) t->options.lr = cm_default_lr(&t->options, t->per_epoch);
        s = cm_trainer_arena(c, t);
    }
    if (s == CALOMU_OK)
        *trainer = t;
    else
        calomu_trainer_free(t);
    return s;
}

calomu_status calomu_trainer_create(calomu *c, const calomu_data *data,
                                    const calomu_architecture *architecture,
                                    const calomu_train_options *options, calomu_trainer **trainer)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_trainer_create_call(c, data, architecture, options,
                                                             trainer));
}

/* ---------------------------------------------------------------- steps

   One update and one batch of validation on the processor: cm_local_*.  Those of a device
   (cm_remote_*, section 20) do the same with the weights there. */

/* The muons of an update of this epoch: the order of folds changes with the epoch, that of
   the muons of a fold too; "batches never cross folds", a last short one is dropped.

   Positions, as cm_muons_at wants them; valid until the next call.  Both orders are kept as long as
   they are those of this epoch and fold, and made again otherwise: at a new epoch, after a resume,
   or when a device asks for the next batch ahead. */
static const uint64_t *cm_train_numbers(calomu_trainer *t, uint64_t update)
{
    uint64_t batches = t->fold_size / (uint64_t)t->options.batch, i;
    uint64_t seed = cm_train_seed(&t->options);
    int32_t epoch = t->state.plan.epoch, fold;
    if (t->fold_epoch != epoch) {
        cm_plan_shuffle(seed, cm_shuffle_stream(epoch, -1), t->fold_order,
                        (uint64_t)t->n_training);
        t->fold_epoch = epoch;
    }
    fold = t->training[t->fold_order[update / batches]];
    if (t->order_epoch != epoch || t->order_fold != fold) {
        cm_plan_shuffle(seed, cm_shuffle_stream(epoch, fold), t->order, t->fold_size);
        for (i = 0; i < t->fold_size; i++) t->order[i] += (uint64_t)fold * t->fold_size;
        t->order_epoch = epoch;
        t->order_fold = fold;
    }
    return t->order + update % batches * (uint64_t)t->options.batch;
}

/* Learning rate and beta1 of the update that comes next.

   A function of the state alone: asked before the update and after it, as long as state->update has
   not moved, it gives the same. */
static void cm_train_rate(const calomu_trainer *t, double *lr, double *beta1)
{
    const cm_plan *plan = &t->state.plan;
    *lr = plan->lr;
    *beta1 = plan->beta1;
    if (plan->epoch <= t->options.cycle_epochs)
        cm_plan_rate(&t->options, t->per_epoch, (uint64_t)(plan->epoch - 1) * t->per_epoch
                     + t->state.update, lr, beta1);
}

/* One update of weights, buffers and thresholds.  On failure they are as before it.

   What can fail comes first.  Forward changes buffers, the loss changes thresholds; both are copied
   before (16 numbers, and some hundred sums of batch norms).  Weights change in cm_adam alone,
   which cannot fail. */
static calomu_status cm_local_update(calomu *c, calomu_trainer *t, double *loss)
{
    const uint64_t *numbers = cm_train_numbers(t, t->state.update);
    size_t bytes = t->net->n_buffers * sizeof(cm_real);
    double thresholds[16], lr, beta1;
    calomu_status s = cm_muons_at(c, t, 0, numbers, (size_t)t->options.batch);
    if (s != CALOMU_OK) return s;
    memcpy(thresholds, t->thresholds, sizeof thresholds);
    memcpy(t->buffers_before, t->live.buffers, bytes);
    s = cm_train_gradient(c, t, numbers, loss);
    if (s != CALOMU_OK) {
        memcpy(t->thresholds, thresholds, sizeof thresholds);
        memcpy(t->live.buffers, t->buffers_before, bytes);
        return s;
    }
    cm_train_rate(t, &lr, &beta1);
    cm_adam(t->live.w, t->gradient, t->live.m, t->live.v, t->net->n_trained, lr, beta1,
            t->state.step + 1);
    return CALOMU_OK;
}

/* One batch of the monitored muons: n from position `first` on.  Thresholds and the norms' buffers
   stay as they are.

   Predictions go to their place behind those that are there; they count only when state.validated
   moves. */
static calomu_status cm_local_validate(calomu *c, calomu_trainer *t, uint64_t first, int n)
{
    cm_batch b;
    calomu_status s = cm_muons_at(c, t, first, NULL, (size_t)n);
    if (s != CALOMU_OK) return s;
    b = cm_train_batch(c, t, n, 0);
    cm_train_inputs(t, first, NULL, n);
    s = cm_engine_of(c)->forward(&b, t->prediction + t->state.validated);
    cm_engine_of(c)->end(&b);
    return s;
}

/* ---------------------------------------------------------------- steps of either

   On the processor or on a device.  The counters move here, after everything that can fail: that is
   what makes a step all or nothing.

   cm_remote_lost is asked after every failure: if it was the device that failed, it takes the
   training back to the last state that the host knows, and otherwise hands the status on. */

size_t calomu_trainer_memory(const calomu_trainer *t)
{
    return t->remote ? cm_remote_memory(t) : t->arena_size;
}


/* One update.  On failure everything is as before it. */
static calomu_status cm_train_update(calomu *c, calomu_trainer *t)
{
    cm_state *state = &t->state;
    double loss = 0, lr, beta1;
    calomu_status s = t->remote ? cm_remote_update(c, t, &loss) : cm_local_update(c, t, &loss);
    if (s != CALOMU_OK) return cm_remote_lost(t, s);
    cm_train_rate(t, &lr, &beta1);
    state->plan.lr = lr;
    state->plan.beta1 = beta1;
    state->step++;
    state->updates++;
    state->update++;
    state->loss_sum += loss;
    state->batch_loss = loss;
    return CALOMU_OK;
}

/* One batch of the monitored muons, all of which count.

   The last batch is a short one: in training such a batch is dropped, since its norms would be of
   few muons; here norms use their running sums. */
static calomu_status cm_train_validate(calomu *c, calomu_trainer *t)
{
    uint64_t left = t->monitored - t->state.validated;
    uint64_t first = t->monitored_first + t->state.validated;
    int n = left < (uint64_t)t->options.batch ? (int)left : t->options.batch;
    calomu_status s = t->remote ? cm_remote_validate(c, t, n) : cm_local_validate(c, t, first, n);
    if (s != CALOMU_OK) return cm_remote_lost(t, s);
    t->state.validated += (uint64_t)n;
    return CALOMU_OK;
}

/* Mean improvement and worst point on the monitored muons, debiased on themselves; NaN where they
   are too few for that.

   An MI is told to a person and decides nothing: only memory is a failure, anything else a NaN.
   The validation loss is what decides (Sec. 3.2.4). */
static calomu_status cm_train_improvement(calomu *c, const calomu_trainer *t, double *mi,
                                          double *worst)
{
    const calomu_train_options *o = &t->options;
    calomu_eval_options e = calomu_eval_options_default();
    size_t n = (size_t)t->monitored;
    calomu_summary summary;
    calomu_line line;
    calomu_bin *bins;
    int n_bins;
    calomu_status s;
    *mi = *worst = (double)CALOMU_ABSENT;
    e.low = o->range_low;
    e.high = o->range_high;
    e.bins = o->mi_bins;
    e.fit_bins = o->fit_bins;
    e.points = 0;
    e.tracker = o->tracker;
    s = calomu_debias_fit(c, &e, t->truth, t->prediction, n, &line);
    if (s != CALOMU_OK) return s == CALOMU_EMEMORY ? s : CALOMU_OK;
    bins = cm_allocate(c, (size_t)o->mi_bins, sizeof *bins);
    if (!bins) return CALOMU_EMEMORY;
    s = calomu_resolution(c, &e, &line, t->truth, t->prediction, n, bins, o->mi_bins, &n_bins,
                          &summary);
    cm_release(c, bins);
    if (s == CALOMU_OK && summary.used > 0 && isfinite(summary.mi) && isfinite(summary.worst)) {
        *mi = summary.mi;
        *worst = summary.worst;
    }
    return s == CALOMU_EMEMORY ? s : CALOMU_OK;
}

/* What a step tells.  NaN for what is not known yet; done and total count muons of this epoch,
   monitored ones included. */
static void cm_train_report(const calomu_trainer *t, calomu_train_kind kind,
                            calomu_train_report *r)
{
    const cm_state *s = &t->state;
    uint64_t batch = (uint64_t)t->options.batch;
    memset(r, 0, sizeof *r);
    r->kind = kind;
    r->epoch = s->plan.epoch;
    r->updates = s->updates;
    r->done = s->update * batch + s->validated;
    r->total = t->per_epoch * batch + t->monitored;
    r->batch_loss = s->batch_loss;
    r->lr = s->plan.lr;
    r->beta1 = s->plan.beta1;
    r->training_loss = s->update ? s->loss_sum / (double)s->update : (double)CALOMU_ABSENT;
    r->validation_loss = r->mi = r->worst = (double)CALOMU_ABSENT;
    memcpy(r->thresholds, t->thresholds, sizeof r->thresholds);
    r->n_thresholds = t->options.bins;
}

/* Ends an epoch: losses, MI, and what the plan wants.

   All that can fail comes before cm_plan_epoch, which moves the plan: the device's values fetched,
   the loss, the MI.  A loss that is not finite leaves the epoch open; whoever steps again gets the
   same failure again, and the best state can still be taken.

   Best before reload: in one step both may be asked for (the last epoch of the 1cycle), and then
   the state that comes back is the one that was just stored.  The step count of Adam goes with the
   moments, or its corrections would not fit them. */
static calomu_status cm_train_epoch(calomu *c, calomu_trainer *t)
{
    cm_state *state = &t->state;
    calomu_train_report r;
    calomu_status s;
    int what;
    s = cm_remote_fetch(c, t);
    if (s != CALOMU_OK) return cm_remote_lost(t, s);
    cm_train_report(t, CALOMU_TRAIN_EPOCH, &r);
    r.validation_loss = cm_loss(&t->options, t->truth, t->prediction, (int)t->monitored,
                                t->thresholds, 0, NULL);
    if (!isfinite(r.validation_loss))
        return cm_fail(c, CALOMU_ENOTFINITE, "the validation loss of epoch %d is not finite: a"
                       " smaller learning rate may help; the best state so far is kept",
                       (int)state->plan.epoch);
    s = cm_train_improvement(c, t, &r.mi, &r.worst);
    if (s != CALOMU_OK) return s;
    what = cm_plan_epoch(&t->options, &state->plan, r.validation_loss);
    if (what & CM_PLAN_BEST) {
        cm_moments_copy(t, &t->best, &t->live);
        state->best_step = state->step;
    }
    if (what & CM_PLAN_RELOAD) {
        cm_moments_copy(t, &t->live, &t->best);
        state->step = state->best_step;
    }
    r.improved = (what & CM_PLAN_BEST) != 0;
    state->last = r;
    state->update = state->validated = 0;
    state->loss_sum = 0;
    cm_remote_epoch(t, (what & CM_PLAN_RELOAD) != 0);
    return CALOMU_OK;
}

/* One step, chosen by the counters; *report is written on success only. */
static calomu_status cm_trainer_step_call(calomu *c, calomu_trainer *t, calomu_train_report *report)
{
    calomu_status s;
    if (t->state.plan.finished) {
        *report = t->state.last;
        report->kind = CALOMU_TRAIN_DONE;
        return CALOMU_OK;
    }
    s = cm_trainer_arena(c, t);
    if (s != CALOMU_OK) return s;
    if (t->state.update < t->per_epoch) {
        s = cm_train_update(c, t);
        if (s == CALOMU_OK) cm_train_report(t, CALOMU_TRAIN_UPDATE, report);
    } else if (t->state.validated < t->monitored) {
        s = cm_train_validate(c, t);
        if (s == CALOMU_OK) cm_train_report(t, CALOMU_TRAIN_VALIDATION, report);
    } else {
        s = cm_train_epoch(c, t);
        if (s == CALOMU_OK) *report = t->state.last;
    }
    return s;
}

calomu_status calomu_trainer_step(calomu *c, calomu_trainer *t, calomu_train_report *report)
{
    return cm_enter(c) ? cm_leave(c, cm_trainer_step_call(c, t, report)) : CALOMU_EUSAGE;
}

/* A training that has ended stopped in cm_plan_next before it looked at what would follow.  With
   more epochs the same function is asked again, and answers as it would have then, a reload
   included: so the bits are those of a training that had these options from the start.  Shorter is
   refused: epochs that were run cannot be undone. */
static calomu_status cm_trainer_extend_call(calomu *c, calomu_trainer *t, int32_t epochs,
                                            int32_t stop_after)
{
    calomu_train_options o = t->options;
    calomu_status s = cm_remote_fetch(c, t);
    int what = 0;
    if (s != CALOMU_OK) return s;
    o.epochs = epochs;
    o.stop_after = stop_after;
    if (epochs < t->options.epochs || stop_after < t->options.stop_after)
        return cm_fail(c, CALOMU_EUSAGE, "a training can be made longer, not shorter: it has %d"
                       " epochs at most and stops after %d without improvement",
                       (int)t->options.epochs, (int)t->options.stop_after);
    s = cm_train_check(c, CALOMU_EUSAGE, "training option ", &o);
    if (s != CALOMU_OK) return s;
    t->options = o;
    if (t->state.plan.finished) what = cm_plan_next(&t->options, &t->state.plan);
    if (what & CM_PLAN_RELOAD) {
        cm_moments_copy(t, &t->live, &t->best);
        t->state.step = t->state.best_step;
    }
    if (t->remote) cm_remote_put(t);
    return CALOMU_OK;
}

calomu_status calomu_trainer_extend(calomu *c, calomu_trainer *t, int32_t epochs,
                                    int32_t stop_after)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_trainer_extend_call(c, t, epochs, stop_after));
}

/* ---------------------------------------------------------------- checkpoints

   A safetensors file.  Metadata: "calomu" = "checkpoint", "version" = "2", and every number of
   options, architecture and cm_state as text, integers in decimal, others with 17 digits (which
   give the same bits back), NaN as "".  Version 1 lacks the numbers of the tables `later`.
   Tensors: for each parameter NAME of the table live.NAME, adam.m.NAME, adam.v.NAME and, after the
   first epoch, best.NAME, best.m.NAME, best.v.NAME; buffers without moments; in float64 thresholds,
   last.thresholds, mean, deviation, and within a validation pass its predictions so far.

   The whole file, for p trained parameters and b buffers in the table:

       metadata   78 entries: calomu, version, architecture.convention; 27 train.*,
                  17 architecture.*, 31 state.*; and "checksum", which the writer adds
       F32        live.NAME  adam.m.NAME  adam.v.NAME     3 p tensors
                  live.NAME of the buffers                b
                  best.NAME  best.m.NAME  best.v.NAME     3 p + b, once an epoch has ended
       F64        thresholds  last.thresholds             `bins` numbers each
                  mean  deviation                         28 each
                  validation                              state.validated, if above 0

   A build in double (CALOMU_REAL) writes F64 throughout, and each refuses the other's.  The values
   of the paper's network take 7.6 MB in the first epoch and 15.3 MB from then on.

   What is not in it follows from what is: the orders of muons from seed and epoch; features, truth
   and standardisation from the data, which must be the same (fingerprints); the arena from the
   context.  The fixed weights are 1.

   A kill during the writing leaves the checkpoint before it, as of every output (section 11).

   A forger's checkpoint: numbers have the ranges of the tables; the tensors must be exactly those
   of the architecture, before memory is taken for it; counters must not contradict each other
   (cm_state_sane), so nothing is read beyond what is there; values are finite.  It can make a
   training bad, as can any weights, and no more.

   In this order: tables; numbers as entries; reading numbers; parts (tensors); writing; reading;
   resuming.

   What is compared when a training goes on, and what the person hears:

       number of muons, validation set or not     told at once, without reading muons
       calorimeter, features' convention          as for a new training
       fingerprint of truth and features          "this training had other muons than these data"
       fingerprint of hits, mean, deviation       the same */

#define CM_VERSION_OF_CHECKPOINTS "2"

/* Wider than cm_architecture_check allows in places: the tables keep numbers within their types,
   and the check follows (cm_architecture_read). */
static const cm_field cm_arch_fields[] = {
    CM_FIELD(calomu_architecture, geometry.nz, 'i', 1, 16777216),
    CM_FIELD(calomu_architecture, geometry.nx, 'i', 1, 16777216),
    CM_FIELD(calomu_architecture, geometry.ny, 'i', 1, 16777216),
    CM_FIELD(calomu_architecture, geometry.pitch[0], 'd', 0, 1e300),
    CM_FIELD(calomu_architecture, geometry.pitch[1], 'd', 0, 1e300),
    CM_FIELD(calomu_architecture, geometry.pitch[2], 'd', 0, 1e300),
    CM_FIELD(calomu_architecture, geometry.origin[0], 'd', -1e300, 1e300),
    CM_FIELD(calomu_architecture, geometry.origin[1], 'd', -1e300, 1e300),
    CM_FIELD(calomu_architecture, geometry.origin[2], 'd', -1e300, 1e300),
    CM_FIELD(calomu_architecture, geometry.field, 'd', -1e300, 1e300),
    CM_FIELD(calomu_architecture, feature_options.grow, 'f', 0, 1e30),
    CM_FIELD(calomu_architecture, head, 'i', 0, 1),
    CM_FIELD(calomu_architecture, n_features, 'i', 0, CALOMU_FEATURES),
    CM_FIELD(calomu_architecture, blocks, 'i', 0, 1000),
    CM_FIELD(calomu_architecture, body, 'i', 1, 100000),
    CM_FIELD(calomu_architecture, growth, 'd', 0, 1000),
    CM_FIELD(calomu_architecture, standardised_unknown, 'i', 0, 1)
};

/* A counter ends at 10^18: sums and differences of two stay within 64 bits.  Losses end at 10^308,
   so that none is infinite; mi and worst may be unknown (""). */
enum { CM_STATE_LATER = 2 };         /* the last of them: not in checkpoints of version 1 */
static const cm_field cm_state_fields[] = {
    CM_FIELD(cm_state, plan.epoch, 'i', 1, 1000000),
    CM_FIELD(cm_state, plan.finished, 'i', 0, 1),
    CM_FIELD(cm_state, plan.waited, 'i', 0, 1000000),
    CM_FIELD(cm_state, plan.idle, 'i', 0, 1000000),
    CM_FIELD(cm_state, plan.best_epoch, 'i', 0, 1000000),
    CM_FIELD(cm_state, plan.lr, 'd', 0, 1e300),
    CM_FIELD(cm_state, plan.beta1, 'd', 0, 1),
    CM_FIELD(cm_state, plan.best_loss, 'd', 0, 1e308),
    CM_FIELD(cm_state, plan.best_lr, 'd', 0, 1e300),
    CM_FIELD(cm_state, plan.best_beta1, 'd', 0, 1),
    CM_FIELD(cm_state, step, 'u', 0, 1e18),
    CM_FIELD(cm_state, best_step, 'u', 0, 1e18),
    CM_FIELD(cm_state, updates, 'u', 0, 1e18),
    CM_FIELD(cm_state, update, 'u', 0, 1e18),
    CM_FIELD(cm_state, validated, 'u', 0, 1e18),
    CM_FIELD(cm_state, loss_sum, 'd', 0, 1e308),
    CM_FIELD(cm_state, batch_loss, 'd', 0, 1e308),
    CM_FIELD(cm_state, n_events, 'u', 0, 1e18),
    CM_FIELD(cm_state, fingerprint, 'u', 0, 2e19),
    CM_FIELD(cm_state, last.epoch, 'i', 0, 1000000),
    CM_FIELD(cm_state, last.updates, 'u', 0, 1e18),
    CM_FIELD(cm_state, last.batch_loss, 'd', 0, 1e308),
    CM_FIELD(cm_state, last.lr, 'd', 0, 1e300),
    CM_FIELD(cm_state, last.beta1, 'd', 0, 1),
    CM_FIELD(cm_state, last.training_loss, 'd', 0, 1e308),
    CM_FIELD(cm_state, last.validation_loss, 'd', 0, 1e308),
    CM_FIELD(cm_state, last.mi, 'n', -1e308, 1e308),
    CM_FIELD(cm_state, last.worst, 'n', -1e308, 1e308),
    CM_FIELD(cm_state, last.improved, 'i', 0, 1),
    CM_FIELD(cm_state, n_validation, 'u', 0, 1e18),
    CM_FIELD(cm_state, hits, 'u', 0, 2e19)
};

typedef struct cm_entry {            /* of the metadata */
    char key[56], value[40];
} cm_entry;

enum { CM_ENTRIES = CM_COUNT(cm_train_fields) + CM_COUNT(cm_arch_fields)
                    + CM_COUNT(cm_state_fields) + 3 };

/* Returns how many entries were set, for callers that add up. */
static int cm_entry_set(cm_entry *e, const char *key, const char *value)
{
    (void)snprintf(e->key, sizeof e->key, "%s", key);
    (void)snprintf(e->value, sizeof e->value, "%s", value);
    return 1;
}

/* n entries from one table.  The longest key, "999.train.weight_centre" or
   "architecture.feature_options.grow", has 33 characters; a value at most 24. */
static int cm_entries_of(cm_entry *e, const char *prefix, const void *base, const cm_field *f,
                         int n)
{
    int i;
    for (i = 0; i < n; i++) {
        uint64_t u;
        (void)snprintf(e[i].key, sizeof e[i].key, "%s%s", prefix, f[i].key);
        if (f[i].type == 'u') {      /* beyond 2^53 no double holds it */
            memcpy(&u, (const unsigned char *)base + f[i].at, sizeof u);
            (void)snprintf(e[i].value, sizeof e[i].value, "%llu", (unsigned long long)u);
        } else {
            (void)calomu_number(e[i].value, cm_field_value(base, f + i), 17);
        }
    }
    return n;
}

/* All entries; CM_ENTRIES of them at least must fit behind e. */
static int cm_checkpoint_entries(const calomu_trainer *t, cm_entry *e)
{
    int n = 0;
    n += cm_entry_set(e + n, "calomu", "checkpoint");
    n += cm_entry_set(e + n, "version", CM_VERSION_OF_CHECKPOINTS);
    n += cm_entry_set(e + n, "architecture.convention",
                      calomu_convention_name(t->arch.feature_options.convention));
    n += cm_entries_of(e + n, "train.", &t->options, cm_train_fields, CM_COUNT(cm_train_fields));
    n += cm_entries_of(e + n, "architecture.", &t->arch, cm_arch_fields, CM_COUNT(cm_arch_fields));
    n += cm_entries_of(e + n, "state.", &t->state, cm_state_fields, CM_COUNT(cm_state_fields));
    return n;
}

/* Decimal digits and nothing else, below 2^64.

   No sign, no blank, no exponent: a number has one text. */
static int cm_parse_whole(const char *text, uint64_t *u)
{
    uint64_t x = 0;
    if (!*text) return 0;
    for (; *text; text++) {
        uint64_t digit = (uint64_t)(*text - '0');
        if (*text < '0' || *text > '9' || x > (UINT64_MAX - digit) / 10) return 0;
        x = 10 * x + digit;
    }
    *u = x;
    return 1;
}

/* A number into its place; 0: it is none of its kind, and nothing was written.  "" is NaN, where
   NaN may be.  Ranges are checked afterwards, for all numbers of a table (cm_fields_check): a float
   that overflows is infinite then, and in no range. */
static int cm_field_parse(void *base, const cm_field *f, const char *text)
{
    unsigned char *p = (unsigned char *)base + f->at;
    const char *end;
    uint64_t u;
    double d = (double)CALOMU_ABSENT;
    if (f->type == 'i' || f->type == 'u') {
        int32_t i;
        if (!cm_parse_whole(text, &u) || (f->type == 'i' && u > INT32_MAX)) return 0;
        i = (int32_t)(f->type == 'i' ? u : 0);
        if (f->type == 'i') memcpy(p, &i, sizeof i);
        else memcpy(p, &u, sizeof u);
        return 1;
    }
    if (*text || f->type != 'n') {
        end = calomu_parse(text, &d);
        if (!end || *end) return 0;
    }
    if (f->type == 'f') {
        float x = (float)d;
        memcpy(p, &x, sizeof x);
    } else {
        memcpy(p, &d, sizeof d);
    }
    return 1;
}

/* All numbers of a table, each of which must be there.  The message's path is cut at 300 bytes,
   which leaves 100 for the prefix. */
static calomu_status cm_fields_read(calomu *c, const char *path, const cm_st *st,
                                    const char *prefix, void *base, const cm_field *f, int n)
{
    char key[64], where[400];
    int i;
    for (i = 0; i < n; i++) {
        const char *text;
        (void)snprintf(key, sizeof key, "%s%s", prefix, f[i].key);
        text = cm_st_find_meta(st, key);
        if (!text) return cm_fail(c, CALOMU_EFORMAT, "%s: metadata \"%s\" is missing", path, key);
        if (!cm_field_parse(base, f + i, text))
            return cm_fail(c, CALOMU_EFORMAT, "%s: metadata \"%s\" is no number of its kind", path,
                           key);
    }
    (void)snprintf(where, sizeof where, "%.300s: %s", path, prefix);
    return cm_fields_check(c, CALOMU_EFORMAT, where, base, f, n);
}

/* A tensor of the file and its place in a trainer: reals or doubles. */
typedef struct cm_part {
    cm_st_tensor t;
    char name[64];                   /* t.name */
    cm_real *reals;
    double *doubles;
    int positive;                    /* 1: negative values are wrong */
} cm_part;

/* values: the block of the parameter's role; NULL: names and shapes only, for what is asked before
   there are values (cm_checkpoint_fits).  t.name points into the part itself, so parts must not be
   moved. */
static int cm_part_reals(cm_part *part, const char *prefix, const cm_param *p, cm_real *values)
{
    int i;
    (void)snprintf(part->name, sizeof part->name, "%s%s", prefix, p->name);
    part->t.name = part->name;
    part->t.dtype = sizeof(cm_real) == sizeof(float) ? CM_F32 : CM_F64;
    part->t.rank = p->rank;
    for (i = 0; i < p->rank; i++) part->t.shape[i] = (uint32_t)p->shape[i];
    part->t.count = (uint32_t)p->count;
    part->reals = values ? values + p->offset : NULL;
    return 1;
}

static int cm_part_doubles(cm_part *part, const char *name, double *values, uint64_t count)
{
    part->t.name = name;
    part->t.dtype = CM_F64;
    part->t.rank = 1;
    part->t.shape[0] = part->t.count = (uint32_t)count;
    part->doubles = values;
    return 1;
}

/* Tensors of one state.  Adam's v is a mean of squares: a negative one would make a NaN of its
   root. */
static int cm_parts_of(const cm_net *net, const cm_moments *x, const char *prefix, const char *m,
                       const char *v, cm_part *part)
{
    int i, n = 0;
    for (i = 0; i < net->n_params; i++) {
        const cm_param *p = net->param + i;
        if (p->role == CM_BUFFER) n += cm_part_reals(part + n, prefix, p, x->buffers);
        if (p->role != CM_TRAINED) continue;
        n += cm_part_reals(part + n, prefix, p, x->w);
        n += cm_part_reals(part + n, m, p, x->m);
        part[n].positive = 1;
        n += cm_part_reals(part + n, v, p, x->v);
    }
    return n;
}

/* The one list of tensors, by which a checkpoint is checked, written and read.

   6 places for each parameter and 5 more are enough: 3 for a trained one in each of two states.
   *parts is the caller's to release; NULL: no memory.

   So writer, check and reader cannot disagree about a name, a shape or a type.  For the first layer
   of the paper's network, before the first epoch has ended:

       live.head.0.path.0.weight     F32 [8, 1, 4, 4, 4]     its 512 weights
       adam.m.head.0.path.0.weight   the same                the mean of its gradients
       adam.v.head.0.path.0.weight   the same                the mean of their squares */
static int cm_checkpoint_parts(calomu *c, calomu_trainer *t, cm_part **parts)
{
    cm_part *part = cm_allocate(c, 6 * (size_t)t->net->n_params + 5, sizeof *part);
    int n = 0;
    *parts = part;
    if (!part) return 0;
    n += cm_parts_of(t->net, &t->live, "live.", "adam.m.", "adam.v.", part);
    if (t->state.plan.best_epoch > 0)
        n += cm_parts_of(t->net, &t->best, "best.", "best.m.", "best.v.", part + n);
    n += cm_part_doubles(part + n, "thresholds", t->thresholds, (uint64_t)t->options.bins);
    n += cm_part_doubles(part + n, "last.thresholds", t->state.last.thresholds,
                         (uint64_t)t->options.bins);
    part[n].positive = 1;
    n += cm_part_doubles(part + n, "deviation", t->deviation, CALOMU_FEATURES);
    n += cm_part_doubles(part + n, "mean", t->mean, CALOMU_FEATURES);
    if (t->state.validated > 0)
        n += cm_part_doubles(part + n, "validation", t->prediction, t->state.validated);
    return n;
}

/* A half-precision number; every one is a float.

   IEEE 754 binary16: sign, 5 bits of exponent e, 10 of significand m: (1024 + m) 2^(e - 25), with e
   = 0 m 2^-24, e = 31 infinity and NaN.  0x3C00 is 1, 0x7BFF is 65504, the largest.  ldexp by
   powers of two is exact. */
static double cm_from_half(uint32_t u)
{
    double x = ldexp((u & 1023) + (u & 0x7C00 ? 1024.0 : 0), (int)(u >> 10 & 31) - 25
                     + !(u & 0x7C00));
    if ((u & 0x7C00) == 0x7C00) x = u & 1023 ? (double)CALOMU_ABSENT : (double)INFINITY;
    return u & 0x8000 ? -x : x;
}

/* Element i of a floating type.

   BF16 is the upper half of a float.  All three are exact in double. */
static double cm_st_value(cm_dtype d, const unsigned char *from, uint64_t i)
{
    uint32_t half;
    if (d == CM_F64) return cm_double_from_bits(cm_get64(from + 8 * i));
    if (d == CM_F32) return (double)cm_from_bits(cm_get32(from + 4 * i));
    half = (uint32_t)from[2 * i] | (uint32_t)from[2 * i + 1] << 8;
    return d == CM_BF16 ? (double)cm_from_bits(half << 16) : cm_from_half(half);
}

/* Elements between memory and the little-endian bytes of a file. */
static void cm_part_encode(const cm_part *part, unsigned char *to)
{
    uint64_t i;
    for (i = 0; i < part->t.count; i++) {
        double x = part->reals ? (double)part->reals[i] : part->doubles[i];
        if (part->t.dtype == CM_F32)
            cm_put32(to + 4 * i, cm_bits((float)x));
        else
            cm_put64(to + 8 * i, cm_double_bits(x));
    }
}

/* Into memory of the part's own length, which cm_fit_tensor has found equal to the file's.  0: a
   value that cannot be; those before it have been written.  F64 into floats is rounded, which
   happens to imports only: checkpoints are of one type (strict). */
static int cm_part_decode(const cm_part *part, const unsigned char *from)
{
    uint64_t i;
    for (i = 0; i < part->t.count; i++) {
        double x = cm_st_value(part->t.dtype, from, i);
        if (!isfinite(x) || (part->positive && x < 0)) return 0;
        if (part->reals) part->reals[i] = (cm_real)x;
        else part->doubles[i] = x;
    }
    return 1;
}

/* Writes all parts with their metadata.

   The bytes of all tensors are made before the file is: at worst memory is missing for the file's
   length once more, and the file there was is untouched. */
static calomu_status cm_parts_write(calomu *c, const char *path, const cm_part *part, int n,
                                    cm_st_meta *meta, int n_meta)
{
    cm_st st = { 0 };
    size_t bytes = 0;
    unsigned char *data;
    calomu_status s = CALOMU_EMEMORY;
    int i;
    for (i = 0; i < n; i++) bytes += (size_t)part[i].t.count * (part[i].t.dtype == CM_F32 ? 4 : 8);
    data = cm_allocate(c, bytes, 1);
    st.tensor = cm_allocate(c, (size_t)n, sizeof *st.tensor);
    if (data && st.tensor) {
        for (i = 0, bytes = 0; i < n; i++) {
            cm_part_encode(part + i, data + bytes);
            st.tensor[i] = part[i].t;
            st.tensor[i].data = data + bytes;
            bytes += (size_t)part[i].t.count * (part[i].t.dtype == CM_F32 ? 4 : 8);
        }
        st.n_tensors = n;
        st.meta = meta;
        st.n_meta = n_meta;
        s = cm_st_write(c, path, &st);
    }
    cm_release(c, st.tensor);
    cm_release(c, data);
    return s;
}

static calomu_status cm_checkpoint_write(calomu *c, const char *path, const cm_part *part, int n,
                                         cm_entry *entry, int n_entries)
{
    cm_st_meta meta[CM_ENTRIES];
    int i;
    for (i = 0; i < n_entries; i++) {
        meta[i].key = entry[i].key;
        meta[i].value = entry[i].value;
    }
    return cm_parts_write(c, path, part, n, meta, n_entries);
}

/* On a device weights and moments are fetched first.  The copy is shallow and only there because
   cm_checkpoint_parts, which serves reading too, wants a trainer that may be changed; it changes
   none. */
static calomu_status cm_trainer_save_call(calomu *c, const calomu_trainer *t, const char *path)
{
    calomu_trainer copy = *t;        /* the list of parts serves reading too */
    cm_entry entry[CM_ENTRIES];
    cm_part *part;
    int n;
    calomu_status s = cm_remote_fetch(c, t);
    if (s != CALOMU_OK) return s;
    n = cm_checkpoint_parts(c, &copy, &part);
    if (!part) return CALOMU_EMEMORY;
    s = cm_checkpoint_write(c, path, part, n, entry, cm_checkpoint_entries(t, entry));
    cm_release(c, part);
    return s;
}

calomu_status calomu_trainer_save(calomu *c, const calomu_trainer *t, const char *path)
{
    return cm_enter(c) ? cm_leave(c, cm_trainer_save_call(c, t, path)) : CALOMU_EUSAGE;
}

/* The architecture of a checkpoint or model, checked.

   Afterwards shapes and their products are as bounded as those of a caller's architecture. */
static calomu_status cm_architecture_read(calomu *c, const char *path, const cm_st *st,
                                          calomu_architecture *a)
{
    const char *convention = cm_st_find_meta(st, "architecture.convention");
    calomu_status s;
    int i;
    for (i = 0; convention && i < 2; i++)
        if (strcmp(convention, calomu_convention_name((calomu_convention)i)) == 0) break;
    if (!convention || i == 2)
        return cm_fail(c, CALOMU_EFORMAT, "%s: metadata \"architecture.convention\" is not known",
                       path);
    a->feature_options.convention = (calomu_convention)i;
    s = cm_fields_read(c, path, st, "architecture.", a, cm_arch_fields, CM_COUNT(cm_arch_fields));
    if (s != CALOMU_OK) return s;
    return cm_architecture_check(c, a) == CALOMU_OK ? CALOMU_OK
                                                    : cm_fail_in(c, CALOMU_EFORMAT, path);
}

/* Kind, version, then every number.  Of version 1 the later fields keep their defaults, and the
   state's are 0, which was their meaning then: no shuffle, no validation set, a fingerprint of hits
   not known. */
static calomu_status cm_checkpoint_numbers(calomu *c, const char *path, const cm_st *st,
                                           calomu_trainer *t)
{
    const char *kind = cm_st_find_meta(st, "calomu"), *version = cm_st_find_meta(st, "version");
    int later = version && strcmp(version, CM_VERSION_OF_CHECKPOINTS) == 0;
    char where[400];
    calomu_status s;
    if (!kind || strcmp(kind, "checkpoint") != 0)
        return cm_fail(c, CALOMU_EFORMAT, "%s: no checkpoint of a training", path);
    if (!later && (!version || strcmp(version, "1") != 0))
        return cm_fail(c, CALOMU_EFORMAT, "%s: checkpoint of version %.20s; this program reads"
                       " versions 1 and %s", path, version ? version : "?",
                       CM_VERSION_OF_CHECKPOINTS);
    t->options = calomu_train_options_default();
    s = cm_fields_read(c, path, st, "train.", &t->options, cm_train_fields,
                       CM_COUNT(cm_train_fields) - (later ? 0 : CM_TRAIN_LATER));
    if (s == CALOMU_OK) s = cm_architecture_read(c, path, st, &t->arch);
    if (s == CALOMU_OK)
        s = cm_fields_read(c, path, st, "state.", &t->state, cm_state_fields,
                           CM_COUNT(cm_state_fields) - (later ? 0 : CM_STATE_LATER));
    if (s != CALOMU_OK) return s;
    (void)snprintf(where, sizeof where, "%.300s: ", path);
    return cm_train_check(c, CALOMU_EFORMAT, where, &t->options);
}

/* Counters that contradict each other would break what later code relies on.

   ended: epochs that have ended.  Where one has, one of them is the best; the last report is of the
   last of them.  A pass over the monitored muons begins when the updates are done.  A finished
   training has not begun the next epoch.  The products may wrap where n_events is a forger's, which
   is harmless: nothing takes memory by them, and resuming compares n_events with the data. */
static int cm_state_sane(const calomu_trainer *t)
{
    const cm_state *s = &t->state;
    uint64_t ended = (uint64_t)(s->plan.epoch - 1 + s->plan.finished);
    return s->plan.epoch <= t->options.epochs && (uint64_t)s->plan.best_epoch <= ended
        && (s->plan.best_epoch > 0) == (ended > 0) && (uint64_t)s->last.epoch == ended
        && s->plan.waited <= s->plan.idle && s->update <= t->per_epoch
        && s->validated <= t->monitored && (s->validated == 0 || s->update == t->per_epoch)
        && (!s->plan.finished || s->update == 0)
        && s->updates == ended * t->per_epoch + s->update
        && s->last.updates == ended * t->per_epoch
        && s->step <= s->updates && s->best_step <= s->updates && t->options.lr > 0
        && (s->n_validation > 0) == t->options.separate;
}

/* Names, shapes and types, before there is memory for values.

   Also that the file has no tensor beyond the list: a checkpoint is exactly this. */
static calomu_status cm_checkpoint_fits(calomu *c, const char *path, const cm_st *st,
                                        calomu_trainer *t)
{
    cm_fit f;
    cm_part *part;
    int i, n = cm_checkpoint_parts(c, t, &part);
    calomu_status s = part ? cm_fit_begin(c, st, &f) : CALOMU_EMEMORY;
    if (s == CALOMU_OK) {
        for (i = 0; i < n; i++) cm_fit_tensor(&f, &part[i].t, 1, 0);
        s = cm_fit_end(c, s, path, &f);
    }
    cm_release(c, part);
    return s;
}

/* Every tensor of the list is there: cm_checkpoint_fits has seen to it, by the same list. */
static calomu_status cm_checkpoint_tensors(calomu *c, const char *path, const cm_st *st,
                                           calomu_trainer *t)
{
    cm_part *part;
    int i, n = cm_checkpoint_parts(c, t, &part);
    calomu_status s = part ? CALOMU_OK : CALOMU_EMEMORY;
    for (i = 0; part && i < n && s == CALOMU_OK; i++)
        if (!cm_part_decode(part + i, cm_st_find(st, part[i].t.name)->data))
            s = cm_fail(c, CALOMU_EFORMAT, "%s: tensor %s holds values that cannot be", path,
                        part[i].t.name);
    cm_release(c, part);
    return s;
}

/* A trainer without data from an open file.

   The order is what makes a forged file harmless: numbers in range; table; tensors held against it;
   plan; then memory for weights; counters; memory for predictions, whose number is that of a tensor
   of the file; values last.  A failure leaves t to its caller. */
static calomu_status cm_checkpoint_fill(calomu *c, const char *path, const cm_st *st,
                                        calomu_trainer *t)
{
    const cm_st_tensor *validation = cm_st_find(st, "validation");
    calomu_status s = cm_checkpoint_numbers(c, path, st, t);
    if (s != CALOMU_OK) return s;
    s = cm_net_table(c, &t->arch, &t->net);
    if (s == CALOMU_OK) s = cm_checkpoint_fits(c, path, st, t);
    if (s != CALOMU_OK) return s;
    s = cm_trainer_plan(c, t, t->state.n_events);
    if (s == CALOMU_OK) s = cm_trainer_blocks(c, t);
    if (s != CALOMU_OK)
        return cm_fail_in(c, s == CALOMU_EUSAGE ? CALOMU_EFORMAT : s, path);
    if (!cm_state_sane(t) || (validation ? validation->count : 0) != t->state.validated)
        return cm_fail(c, CALOMU_EFORMAT, "%s: its counters contradict each other", path);
    cm_net_init(t->net, 0);          /* for the fixed weights: the others come from the file */
    t->prediction = cm_allocate(c, (size_t)t->state.validated, sizeof *t->prediction);
    if (!t->prediction) return CALOMU_EMEMORY;
    return cm_checkpoint_tensors(c, path, st, t);
}

/* A trainer that can be described, or have data attached.  What a report holds beyond the file's
   numbers is worked out again at the end. */
static calomu_status cm_checkpoint_read(calomu *c, const char *path, calomu_trainer **trainer)
{
    cm_st st = { 0 };
    calomu_trainer *t = NULL;
    calomu_status s = cm_st_read(c, path, &st);
    int i;
    if (s != CALOMU_OK) return s;
    t = cm_trainer_new(c);
    s = t ? cm_checkpoint_fill(c, path, &st, t) : CALOMU_EMEMORY;
    cm_st_free(c, &st);
    for (i = 0; s == CALOMU_OK && i < t->options.bins; i++)
        if (t->thresholds[i] < 0 && t->thresholds[i] != -1)
            s = cm_fail(c, CALOMU_EFORMAT, "%s: a threshold of the loss is negative", path);
    if (s != CALOMU_OK) {
        calomu_trainer_free(t);
        return s;
    }
    t->state.last.kind = CALOMU_TRAIN_EPOCH;
    t->state.last.n_thresholds = t->options.bins;
    t->state.last.done = t->state.last.total = t->per_epoch * (uint64_t)t->options.batch
        + t->monitored;
    *trainer = t;
    return CALOMU_OK;
}

/* The whole file is verified, values and all: what describes can be resumed, with the right
   data. */
static calomu_status cm_checkpoint_describe_call(calomu *c, const char *path,
                                                 calomu_train_options *options,
                                                 calomu_architecture *architecture,
                                                 calomu_train_report *last)
{
    calomu_trainer *t = NULL;
    calomu_status s = cm_checkpoint_read(c, path, &t);
    if (s != CALOMU_OK) return s;
    if (options) *options = t->options;
    if (architecture) *architecture = t->arch;
    if (last && t->state.last.epoch > 0) {
        *last = t->state.last;
        if (t->state.plan.finished) last->kind = CALOMU_TRAIN_DONE;
    } else if (last) {
        cm_train_report(t, CALOMU_TRAIN_UPDATE, last);
        last->epoch = 0;
    }
    calomu_trainer_free(t);
    return CALOMU_OK;
}

calomu_status calomu_checkpoint_describe(calomu *c, const char *path, calomu_train_options *options,
                                         calomu_architecture *architecture,
                                         calomu_train_report *last)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_checkpoint_describe_call(c, path, options, architecture,
                                                                  last));
}

/* What can be told without reading muons: how many there are, and whether a validation set is given
   where there was one. */
static calomu_status cm_resume_sets(calomu *c, const char *path, const calomu_data *data,
                                    const calomu_data *validation, calomu_trainer *t)
{
    const cm_state *s = &t->state;
    uint64_t n = calomu_data_describe(data)->n_events;
    if (n != s->n_events)
        return cm_fail(c, CALOMU_EFORMAT, "%s: this training had %llu muons, these data have %llu:"
                       " resume with the data it was started with", path,
                       (unsigned long long)s->n_events, (unsigned long long)n);
    if (t->options.separate != (validation != NULL))
        return cm_fail(c, CALOMU_EUSAGE, "%s: this training monitors %s", path, validation
                       ? "a fold: leave out the validation set (--validation)"
                       : "a validation set of its own: give it too (--validation)");
    if (validation && calomu_data_describe(validation)->n_events != s->n_validation)
        return cm_fail(c, CALOMU_EFORMAT, "%s: this training had a validation set of %llu muons,"
                       " this one has %llu", path, (unsigned long long)s->n_validation,
                       (unsigned long long)calomu_data_describe(validation)->n_events);
    t->options.validation = validation;
    return CALOMU_OK;
}

/* Everything that follows from data and options is worked out again; *same 0: what the file says of
   it was something else.

   Fingerprints, mean and deviation are compared as bits: the same data give the same on every
   machine, so there is nothing to tolerate.  The caller turns "not the same" into its own
   message. */
static calomu_status cm_resume_attach(calomu *c, const char *path, const calomu_data *data,
                                      const calomu_data *validation, calomu_trainer *t, int *same)
{
    double mean[CALOMU_FEATURES], deviation[CALOMU_FEATURES];
    uint64_t fingerprint = t->state.fingerprint, hits = t->state.hits;
    calomu_status s = cm_resume_sets(c, path, data, validation, t);
    if (s != CALOMU_OK) return s;
    if (calomu_geometry_compare(c, &calomu_data_describe(data)->geometry, &t->arch.geometry)) {
        (void)cm_fail_in(c, CALOMU_EFORMAT, "the data's calorimeter is not the network's");
        return cm_fail_in(c, CALOMU_EFORMAT, path);
    }
    memcpy(mean, t->mean, sizeof mean);
    memcpy(deviation, t->deviation, sizeof deviation);
    s = cm_trainer_cut(c, t);
    if (s == CALOMU_OK) s = cm_trainer_attach(c, t, data);
    *same = fingerprint == t->state.fingerprint && (hits == 0 || hits == t->state.hits)
        && memcmp(mean, t->mean, sizeof mean) == 0
        && memcmp(deviation, t->deviation, sizeof deviation) == 0;
    return s;
}

/* All muons are read again, which takes as long as at the start of the training: to trust the
   file's features and go on at once would let changed data pass. */
static calomu_status cm_trainer_resume_with_call(calomu *c, const calomu_data *data,
                                                 const calomu_data *validation, const char *path,
                                                 calomu_trainer **trainer)
{
    calomu_trainer *t = NULL;
    int same = 0;
    calomu_status s = cm_device_check(c);
    if (s == CALOMU_OK) s = cm_checkpoint_read(c, path, &t);
    if (s != CALOMU_OK) return s;
    s = cm_resume_attach(c, path, data, validation, t, &same);
    if (s == CALOMU_OK && !same)
        s = cm_fail(c, CALOMU_EFORMAT, "%s: this training had other muons than these data: resume"
                    " with the data it was started with", path);
    if (s == CALOMU_OK) {
        t->net->arch = t->arch;
        s = cm_trainer_arena(c, t);
    }
    if (s == CALOMU_OK)
        *trainer = t;
    else
        calomu_trainer_free(t);
    return s;
}

calomu_status calomu_trainer_resume_with(calomu *c, const calomu_data *data,
                                         const calomu_data *validation, const char *path,
                                         calomu_trainer **trainer)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_trainer_resume_with_call(c, data, validation, path,
                                                                  trainer));
}

calomu_status calomu_trainer_resume(calomu *c, const calomu_data *data, const char *path,
                                    calomu_trainer **trainer)
{
    return calomu_trainer_resume_with(c, data, NULL, path, trainer);
}

/* ---------------------------------------------------------------- the result

   The best state as a model, with how it was trained.  A model lives on its own: values are copied,
   and the pointers among the options (validation, start) are cleared, as what they point to may be
   gone. */

static calomu_training cm_training_of(const calomu_trainer *t)
{
    calomu_training r;
    memset(&r, 0, sizeof r);
    r.known = 1;
    r.version = CALOMU_VERSION;
    r.epoch = t->state.plan.best_epoch;
    r.epochs = t->state.plan.epoch;
    r.finished = t->state.plan.finished;
    r.muons = t->state.n_events;
    r.fingerprint = t->state.fingerprint;
    r.hits = t->state.hits;
    r.validation = t->state.n_validation;
    r.options = t->options;
    r.options.validation = NULL;
    r.options.start = NULL;
    return r;
}

/* The best state is in the trainer on a device, too: the host keeps it (cm_remote_fetch before each
   epoch's end). */
static calomu_status cm_trainer_model_call(calomu *c, const calomu_trainer *t, calomu_model **model)
{
    calomu_model *m = NULL;
    cm_net *net;
    calomu_status s;
    if (t->state.plan.best_epoch == 0)
        return cm_fail(c, CALOMU_EUSAGE, "no epoch has ended: there is no best state yet");
    s = cm_model_new(c, &t->arch, 1, &m);
    if (s != CALOMU_OK) return s;
    net = m->net[0];
    memcpy(net->trained, t->best.w, net->n_trained * sizeof *net->trained);
    memcpy(net->fixed, t->net->fixed, net->n_fixed * sizeof *net->fixed);
    memcpy(net->buffers, t->best.buffers, net->n_buffers * sizeof *net->buffers);
    memcpy(m->info.mean, t->mean, sizeof t->mean);
    memcpy(m->info.deviation, t->deviation, sizeof t->deviation);
    m->loss[0] = t->state.plan.best_loss;
    m->training[0] = cm_training_of(t);
    return cm_model_finish(c, CALOMU_OK, m, model);
}

calomu_status calomu_trainer_model(calomu *c, const calomu_trainer *t, calomu_model **model)
{
    return cm_enter(c) ? cm_leave(c, cm_trainer_model_call(c, t, model)) : CALOMU_EUSAGE;
}

/* ============================================================================================
   14 Models, inference, ensembles
   ============================================================================================

   A model is one trained network or an ensemble of them, with what is needed to predict:
   architecture, mean and deviation of the features, the validation loss of each member (their
   weight in the mean), and how each was trained, for a person and for the question whether a
   training has ended.

   A model does not change once it has been handed out, so contexts in many threads may predict with
   it at once.  It is handed out by cm_model_finish alone, behind everything that can fail: there is
   no half-made model outside this file.

   In this order: models in memory; joining; model files; has a training ended; weights from other
   programs; inference. */

/* ---------------------------------------------------------------- models in memory

   cm_model_new (values 0), then values, then cm_model_finish (packed weights): three callers, a
   training, a join and a file.  All members have one architecture and share one list with its
   plans; each has its own table and blocks. */

/* Takes a model that is complete up to any point.  Packed weights are freed by the clone, whichever
   context packed them. */
void calomu_model_free(calomu_model *m)
{
    calomu *own;
    int i;
    if (!m) return;
    own = m->own;
    for (i = 0; m->net && i < m->info.members; i++) cm_net_free(own, m->net[i]);
    for (i = 0; i < m->packs.n; i++) cm_release(own, m->packs.one[i].p);
    cm_release(own, m->packs.one);
    cm_release(own, m->net);
    cm_release(own, m->loss);
    cm_release(own, m->training);
    cm_release(own, m);
    cm_clone_free(own);
}

/* A deviation of 1 and a mean of 0 stand for features that are standardised already.  The loss of a
   member is unknown until somebody sets it. */
calomu_status cm_model_new(calomu *c, const calomu_architecture *a, int members,
                           calomu_model **model)
{
    calomu *own = cm_clone(c);
    calomu_model *m = own ? cm_allocate(c, 1, sizeof *m) : NULL;
    calomu_status s = CALOMU_OK;
    int i;
    if (!m) {
        cm_clone_free(own);
        return CALOMU_EMEMORY;
    }
    m->own = own;
    m->info.architecture = *a;
    m->info.members = members;
    m->net = cm_allocate(c, (size_t)members, sizeof(cm_net *));
    m->loss = cm_allocate(c, (size_t)members, sizeof *m->loss);
    m->training = cm_allocate(c, (size_t)members, sizeof *m->training);
    if (!m->net || !m->loss || !m->training) s = CALOMU_EMEMORY;
    for (i = 0; s == CALOMU_OK && i < members; i++) {
        m->loss[i] = (double)CALOMU_ABSENT;
        s = i == 0 ? cm_net_new(c, a, &m->net[i]) : cm_net_like(c, m->net[0], &m->net[i]);
    }
    for (i = 0; i < CALOMU_FEATURES; i++) m->info.deviation[i] = 1;
    if (s != CALOMU_OK) {
        calomu_model_free(m);
        return s;
    }
    m->info.parameters = m->net[0]->n_trained;
    *model = m;
    return CALOMU_OK;
}

/* Takes the model over in every case: hands it out, or frees it.  Weights are packed for the
   context's instruction set and choices; a context with others predicts from the plain weights, to
   the same bits. */
calomu_status cm_model_finish(calomu *c, calomu_status s, calomu_model *m, calomu_model **model)
{
    if (s == CALOMU_OK) s = cm_engine_of(c)->prepare(c, m);
    if (s == CALOMU_OK) *model = m;
    else calomu_model_free(m);
    return s;
}

const calomu_model_info *calomu_model_describe(const calomu_model *model) { return &model->info; }

double calomu_model_loss(const calomu_model *model, int member)
{
    return member >= 0 && member < model->info.members ? model->loss[member]
                                                       : (double)CALOMU_ABSENT;
}

const calomu_training *calomu_model_training(const calomu_model *model, int member)
{
    return member >= 0 && member < model->info.members && model->training[member].known
        ? model->training + member : NULL;
}

/* Values of one network into another of the same architecture: sizes of blocks follow from it. */
static void cm_net_copy(const cm_net *to, const cm_net *from)
{
    memcpy(to->trained, from->trained, to->n_trained * sizeof *to->trained);
    memcpy(to->fixed, from->fixed, to->n_fixed * sizeof *to->fixed);
    memcpy(to->buffers, from->buffers, to->n_buffers * sizeof *to->buffers);
}

/* The first thing in which two architectures differ, or "".  Different growths may give the same
   channels: one that was inferred from a state_dict is only one of them.

   In the order in which a person would look, and in words for a message.  Channels are compared
   instead of growths; without a head blocks and channels mean nothing. */
static void cm_architecture_differ(const calomu_architecture *a, const calomu_architecture *b,
                                   char text[160])
{
    int i;
    cm_geometry_differ(&a->geometry, &b->geometry, text);
    if (text[0]) return;
    if (a->head != b->head || a->n_features != b->n_features)
        (void)snprintf(text, 160, "inputs: hits %s, %d features against hits %s, %d features",
                       a->head ? "yes" : "no", (int)a->n_features, b->head ? "yes" : "no",
                       (int)b->n_features);
    else if (a->feature_options.convention != b->feature_options.convention)
        (void)snprintf(text, 160, "convention: %s against %s",
                       calomu_convention_name(a->feature_options.convention),
                       calomu_convention_name(b->feature_options.convention));
    else if (a->feature_options.grow != b->feature_options.grow)
        (void)snprintf(text, 160, "clusters grow above %g GeV against %g GeV",
                       (double)a->feature_options.grow, (double)b->feature_options.grow);
    else if (a->head && a->blocks != b->blocks)
        (void)snprintf(text, 160, "%d blocks against %d", (int)a->blocks, (int)b->blocks);
    else if (a->body != b->body)
        (void)snprintf(text, 160, "body of %d neurons against %d", (int)a->body, (int)b->body);
    else if (a->standardised_unknown != b->standardised_unknown)
        (void)snprintf(text, 160, "only one is for features of unknown mean and deviation");
    for (i = 0; !text[0] && i < cm_stages(a); i++)
        if (cm_stage_of(a, i).out != cm_stage_of(b, i).out)
            (void)snprintf(text, 160, "growth: %d channels against %d", cm_stage_of(a, i).out,
                           cm_stage_of(b, i).out);
}

static int cm_same_architecture(const calomu_architecture *a, const calomu_architecture *b)
{
    char text[160];
    cm_architecture_differ(a, b, text);
    return !text[0];
}

/* Standardisation belongs to the ensemble: members have it in their first layer's weights.  With
   mean m and deviation d of a member and M, D of the ensemble, w/d (x - m) = w' (x - M)/D with
   w' = w D/d, and the bias takes up sum of w (M - m)/d.

   One rounding to float for each weight and as many as features for a bias: predictions of a joined
   member differ from its own in the last bits, where its standardisation was another.  The sums
   over k run over the inputs of the features, which come first among the body's.

   With m = 10, d = 2, M = 12, D = 4, w = 6 and a feature of 14: before, 6/2 (14 - 10) = 12; after,
   w' = 12 and 12 (14 - 12)/4 = 6, and the bias has 6 (12 - 10)/2 = 6 more: 12 again. */
static void cm_restandardise(const cm_net *net, const calomu_model_info *from,
                             const calomu_model_info *to)
{
    cm_real *w = cm_net_values(net, cm_net_find(net, "body.0.weight"));
    cm_real *b = cm_net_values(net, cm_net_find(net, "body.0.bias"));
    int o, k, n = net->arch.n_features, in = cm_net_find(net, "body.0.weight")->shape[1];
    for (o = 0; o < net->arch.body; o++)
        for (k = 0; k < n; k++) {
            int j = cm_feature_of_input(n, k);
            double v = (double)w[o * in + k] / from->deviation[j];
            b[o] = (cm_real)cm_fmad(v, to->mean[j] - from->mean[j], (double)b[o]);
            w[o * in + k] = (cm_real)(v * to->deviation[j]);
        }
}

/* How many members the models have together, if they fit each other.

   The loop ends at 1000, so the total of many large ensembles cannot overflow. */
static calomu_status cm_join_members(calomu *c, calomu_model *const *models, int n, int *members)
{
    char why[160];
    int i, total = 0;
    for (i = 0; i < n && total <= 1000; i++) {
        cm_architecture_differ(&models[i]->info.architecture, &models[0]->info.architecture, why);
        if (why[0])
            return cm_fail(c, CALOMU_EUSAGE, "model %d is of another architecture than model 0: %s",
                           i, why);
        total += models[i]->info.members;
    }
    if (total < 1 || total > 1000)
        return cm_fail(c, CALOMU_EUSAGE, "an ensemble has 1 to 1000 members");
    *members = total;
    return CALOMU_OK;
}

/* The members of a model, from number `to` on in m. */
static void cm_join_add(const calomu_model *m, int to, const calomu_model *from)
{
    const calomu_model_info *info = &from->info;
    int i, same = memcmp(info->mean, m->info.mean, sizeof info->mean) == 0
        && memcmp(info->deviation, m->info.deviation, sizeof info->deviation) == 0;
    for (i = 0; i < info->members; i++) {
        cm_net_copy(m->net[to + i], from->net[i]);
        if (!same) cm_restandardise(m->net[to + i], info, &m->info);
        m->loss[to + i] = from->loss[i];
        m->training[to + i] = from->training[i];
    }
}

/* An ensemble of ensembles is an ensemble of all their members.  Mean and deviation are those of
   the first; n = 1 gives a copy. */
static calomu_status cm_model_join_call(calomu *c, calomu_model *const *models, int n,
                                        calomu_model **ensemble)
{
    calomu_model *m = NULL;
    int i, members = 0, at = 0;
    calomu_status s = cm_join_members(c, models, n, &members);
    if (s == CALOMU_OK) s = cm_model_new(c, &models[0]->info.architecture, members, &m);
    if (s != CALOMU_OK) return s;
    memcpy(m->info.mean, models[0]->info.mean, sizeof m->info.mean);
    memcpy(m->info.deviation, models[0]->info.deviation, sizeof m->info.deviation);
    for (i = 0; i < n; i++) {
        cm_join_add(m, at, models[i]);
        at += models[i]->info.members;
    }
    return cm_model_finish(c, CALOMU_OK, m, ensemble);
}

calomu_status calomu_model_join(calomu *c, calomu_model *const *models, int n,
                                calomu_model **ensemble)
{
    return cm_enter(c) ? cm_leave(c, cm_model_join_call(c, models, n, ensemble)) : CALOMU_EUSAGE;
}

/* ---------------------------------------------------------------- model files

   Safetensors.  Metadata: "calomu" = "model", "version", "members", the architecture as in a
   checkpoint, "mean" and "deviation" (28 numbers of 17 digits, a blank between), "loss.K" of
   member K ("": unknown).  How it was trained, if that is known: "train.NAME" as in a checkpoint
   and "training.NAME" of cm_training_fields, in an ensemble those of its first member;
   "K.train.NAME" and "K.training.NAME" where member K differs ("K.training.version" = "": unknown).
   Tensors: the names of the table, in an ensemble with "K." in front.

   The entries of testdata/model.safetensors, which is a single network and does not tell of its
   training:

       calomu model   version 1   members 1   architecture.convention text
       architecture.geometry.nz 50 ... architecture.standardised_unknown 0     17 numbers
       loss.0 263.42106366358303   mean, deviation: 28 numbers each
       checksum 1d3bc0a90c6da4b7
       251 tensors, of the head 0.path.0.weight [8, 1, 4, 4, 4] first

   What a forger controls, and where it ends: members, 1 to 1000, and the architecture
   (cm_model_numbers); then the tensors must be exactly those of so many networks, before memory is
   taken for one (cm_model_fits); values are finite and batch norms have counts and squares that are
   no nonsense (cm_model_sane); records of trainings have the ranges of their tables
   (cm_record_check).  A model can predict wrongly, and nothing else.

   A state_dict of PyTorch has the same names (section 4), so a model can be loaded in Python,
   changed and saved; calomu_model_load then refuses it, by its checksum, and calomu_model_import
   takes it. */

enum { CM_MODEL_VERSION = 1, CM_NUMBERS = CALOMU_FEATURES * 26 };

static const cm_field cm_training_fields[] = {
    CM_FIELD(calomu_training, version, 'i', 1, 1e9),
    CM_FIELD(calomu_training, epoch, 'i', 0, 1000000),
    CM_FIELD(calomu_training, changed, 'i', 0, 1),
    CM_FIELD(calomu_training, epochs, 'i', 0, 1000000),
    CM_FIELD(calomu_training, finished, 'i', 0, 1),
    CM_FIELD(calomu_training, muons, 'u', 0, 1e18),
    CM_FIELD(calomu_training, fingerprint, 'u', 0, 2e19),
    CM_FIELD(calomu_training, hits, 'u', 0, 2e19),
    CM_FIELD(calomu_training, validation, 'u', 0, 1e18)
};

/* 28 numbers of at most 24 characters and a blank each: 700 of 728 bytes. */
static void cm_numbers_text(const double *x, char text[CM_NUMBERS])
{
    size_t at = 0;
    int i;
    for (i = 0; i < CALOMU_FEATURES; i++) {
        if (i > 0) text[at++] = ' ';
        at += strlen(calomu_number(text + at, x[i], 17));
    }
}

/* 1: exactly 28 numbers with one blank between; text may be NULL, for an entry that is missing. */
static int cm_numbers_parse(const char *text, double *x)
{
    int i;
    for (i = 0; text && i < CALOMU_FEATURES; i++) {
        if (i > 0 && *text++ != ' ') return 0;
        text = calomu_parse(text, &x[i]);
    }
    return text && !*text;
}

/* Tensors of all members, for writing and for reading.

   cm_net_values is where a parameter's values are, cm_part_reals adds its offset again: the block's
   begin is what it wants.  *n: how many; NULL: no memory. */
static cm_part *cm_model_parts(calomu *c, const calomu_model *m, int *n)
{
    cm_part *part = cm_allocate(c, (size_t)m->info.members * (size_t)m->net[0]->n_params,
                                sizeof *part);
    char prefix[16] = "";
    int k, i;
    *n = 0;
    for (k = 0; part && k < m->info.members; k++) {
        const cm_net *net = m->net[k];
        if (m->info.members > 1) (void)snprintf(prefix, sizeof prefix, "%d.", k);
        for (i = 0; i < net->n_params; i++) {
            const cm_param *p = net->param + i;
            *n += cm_part_reals(part + *n, prefix, p, cm_net_values(net, p) - p->offset);
        }
    }
    return part;
}

/* Entries of a record that are not those of `common`; all of them if that is NULL.

   Both lists come from the same tables in the same order, so entry i of one is compared with entry
   i of the other, as text: what would be read back as the same is the same. */
static int cm_record_entries(const calomu_training *r, const calomu_training *common,
                             const char *own, cm_entry *e)
{
    cm_entry same[CM_COUNT(cm_train_fields) + CM_COUNT(cm_training_fields)];
    char prefix[48];
    int i, n = 0, kept = 0;
    (void)snprintf(prefix, sizeof prefix, "%strain.", own);
    n += cm_entries_of(e, prefix, &r->options, cm_train_fields, CM_COUNT(cm_train_fields));
    (void)snprintf(prefix, sizeof prefix, "%straining.", own);
    n += cm_entries_of(e + n, prefix, r, cm_training_fields, CM_COUNT(cm_training_fields));
    if (!common) return n;
    (void)cm_entries_of(same, "", &common->options, cm_train_fields, CM_COUNT(cm_train_fields));
    (void)cm_entries_of(same + CM_COUNT(cm_train_fields), "", common, cm_training_fields,
                        CM_COUNT(cm_training_fields));
    for (i = 0; i < n; i++)
        if (strcmp(e[i].value, same[i].value) != 0) e[kept++] = e[i];
    return kept;
}

/* How the members came about: of the first one that is known everything, of the others what is
   different.

   Members that were trained alike differ in member, epochs and the best epoch: three entries each
   instead of 36.  "" as the version of a member says that nothing is known of it, where the others'
   common entries would otherwise speak for it.

   The entries of an ensemble of three, of which the last came from elsewhere:

       train.batch 256  ...  train.member 0  ...  training.epoch 31  ...     member 0, all of it
       1.train.member 1    1.training.epoch 27                               member 1, what differs
       2.training.version ""                                                 member 2, unknown */
static int cm_model_record_entries(const calomu_model *m, cm_entry *e)
{
    const calomu_training *common = NULL;
    char own[16];
    int k, n = 0;
    for (k = m->info.members - 1; k >= 0; k--)
        if (m->training[k].known) common = m->training + k;
    if (!common) return 0;
    n += cm_record_entries(common, NULL, "", e);
    for (k = 0; k < m->info.members; k++) {
        (void)snprintf(own, sizeof own, "%d.", k);
        if (m->training[k].known) {
            n += cm_record_entries(m->training + k, common, own, e + n);
        } else {
            n += cm_entry_set(e + n, "", "");
            (void)snprintf(e[n - 1].key, sizeof e->key, "%straining.version", own);
        }
    }
    return n;
}

/* Every entry of the metadata but mean and deviation, which are longer. */
static int cm_model_entries(const calomu_model *m, cm_entry *e)
{
    const calomu_architecture *a = &m->info.architecture;
    int k, n = 0;
    n += cm_entry_set(e + n, "calomu", "model");
    n += cm_entry_set(e + n, "version", "1");
    n += cm_entry_set(e + n, "members", "");
    (void)snprintf(e[n - 1].value, sizeof e->value, "%d", m->info.members);
    n += cm_entry_set(e + n, "architecture.convention",
                      calomu_convention_name(a->feature_options.convention));
    n += cm_entries_of(e + n, "architecture.", a, cm_arch_fields, CM_COUNT(cm_arch_fields));
    for (k = 0; k < m->info.members; k++, n++) {
        (void)snprintf(e[n].key, sizeof e->key, "loss.%d", k);
        (void)calomu_number(e[n].value, m->loss[k], 17);
    }
    return n + cm_model_record_entries(m, e + n);
}

/* `most`, entries of metadata: 17 numbers of the architecture, 6 entries of the model, and
   for the common record and each member 36 numbers, its loss and one to spare. */
static calomu_status cm_model_save_call(calomu *c, const calomu_model *model, const char *path)
{
    enum { EACH = CM_COUNT(cm_train_fields) + CM_COUNT(cm_training_fields) + 2 };
    size_t most = (size_t)(CM_COUNT(cm_arch_fields) + 6 + EACH * (model->info.members + 1));
    char names[2][12] = { "mean", "deviation" }, text[2][CM_NUMBERS];
    cm_st_meta *meta = cm_allocate(c, most, sizeof *meta);
    cm_entry *e = cm_allocate(c, most, sizeof *e);
    int n, k, parts = 0;
    cm_part *part = cm_model_parts(c, model, &parts);
    calomu_status s = CALOMU_EMEMORY;
    if (meta && e && part) {
        n = cm_model_entries(model, e);
        for (k = 0; k < n; k++) {
            meta[k].key = e[k].key;
            meta[k].value = e[k].value;
        }
        cm_numbers_text(model->info.mean, text[0]);
        cm_numbers_text(model->info.deviation, text[1]);
        for (k = 0; k < 2; k++) {
            meta[n + k].key = names[k];
            meta[n + k].value = text[k];
        }
        s = cm_parts_write(c, path, part, parts, meta, n + 2);
    }
    cm_release(c, part);
    cm_release(c, e);
    cm_release(c, meta);
    return s;
}

calomu_status calomu_model_save(calomu *c, const calomu_model *model, const char *path)
{
    return cm_enter(c) ? cm_leave(c, cm_model_save_call(c, model, path)) : CALOMU_EUSAGE;
}

/* Names, shapes and types of all members, before there is memory for values.  The energy sums have
   no other weights than 1, so a state_dict may lack them: sums_too 0.

   One network's table serves all members.  Types need not be ours (strict 0): any floating type is
   converted when values are read. */
static calomu_status cm_model_fits(calomu *c, const char *path, const cm_st *st,
                                   const calomu_model_info *info, int sums_too)
{
    cm_net *net = NULL;
    cm_part part = { 0 };
    cm_fit f;
    char prefix[16] = "";
    int k, i;
    calomu_status s = cm_net_table(c, &info->architecture, &net);
    if (s == CALOMU_OK) s = cm_fit_begin(c, st, &f);
    if (s == CALOMU_OK) {
        for (k = 0; k < info->members; k++) {
            if (info->members > 1) (void)snprintf(prefix, sizeof prefix, "%d.", k);
            for (i = 0; i < net->n_params; i++) {
                (void)cm_part_reals(&part, prefix, net->param + i, NULL);
                cm_fit_tensor(&f, &part.t, 0, net->param[i].role == CM_FIXED && !sums_too);
            }
        }
        s = cm_fit_end(c, s, path, &f);
    }
    cm_net_free(c, net);
    return s;
}

/* Fills every part from a file that fits.  Where the energy sums have no weights, they are 1.

   Other weights than 1 are refused and not ignored: a network that was trained with others would
   predict something else here, without a word. */
static calomu_status cm_parts_read(calomu *c, const char *path, const cm_st *st, cm_part *part,
                                   int n)
{
    int i, j;
    for (i = 0; i < n; i++) {
        const cm_st_tensor *t = cm_st_find(st, part[i].t.name);
        int fixed = strstr(part[i].t.name, ".esum.") != NULL;
        for (j = 0; !t && j < (int)part[i].t.count; j++) part[i].reals[j] = 1;
        if (!t) continue;
        part[i].t.dtype = t->dtype;
        if (!cm_part_decode(part + i, t->data))
            return cm_fail(c, CALOMU_EFORMAT, "%s: tensor %s holds a value that is not finite%s",
                           path, t->name, t->dtype != CM_F16 ? ""
                           : ": F16 ends at 65504; keep the buffers of batch norms in F32");
        for (j = 0; fixed && j < (int)part[i].t.count; j++)
            if (part[i].reals[j] != 1)
                return cm_fail(c, CALOMU_EFORMAT, "%s: %s: the energy sum's weights must be 1",
                               path, t->name);
    }
    return CALOMU_OK;
}

/* Batch norms with negative counts or squares would give a NaN far from here; so would a float64
   value that is beyond the network's type.

   The buffers of a batch norm are sums (any sign), squares (not negative) and two numbers without
   dimensions, count and batch, of which 0 means that it has seen no muon. */
static calomu_status cm_model_sane(calomu *c, const char *path, const calomu_model *m)
{
    int k, i;
    size_t j;
    for (k = 0; k < m->info.members; k++)
        for (i = 0; i < m->net[k]->n_params; i++) {
            const cm_param *p = m->net[k]->param + i;
            const cm_real *x = cm_net_values(m->net[k], p);
            for (j = 0; j < p->count; j++)
                if (!isfinite(x[j]))
                    return cm_fail(c, CALOMU_EFORMAT, "%s: %s: a value is too large", path,
                                   p->name);
            if (p->role != CM_BUFFER || strstr(p->name, ".sums")) continue;
            for (j = 0; j < p->count; j++)
                if (x[j] < 0 || (p->rank == 0 && x[j] == 0))
                    return cm_fail(c, CALOMU_EFORMAT, "%s: %s: %s", path, p->name, x[j] < 0
                                   ? "must not be negative"
                                   : "is 0: the network was never trained");
        }
    return CALOMU_OK;
}

/* The networks of a file that fits.

   Members, values, sanity.  What the file says of losses and trainings comes later
   (cm_model_records). */
static calomu_status cm_model_fill(calomu *c, const char *path, const cm_st *st,
                                   const calomu_model_info *info, calomu_model **model)
{
    calomu_model *m = NULL;
    cm_part *part = NULL;
    int n = 0;
    calomu_status s = cm_model_new(c, &info->architecture, info->members, &m);
    if (s != CALOMU_OK) return s;
    memcpy(m->info.mean, info->mean, sizeof info->mean);
    memcpy(m->info.deviation, info->deviation, sizeof info->deviation);
    part = cm_model_parts(c, m, &n);
    s = part ? cm_parts_read(c, path, st, part, n) : CALOMU_EMEMORY;
    cm_release(c, part);
    if (s == CALOMU_OK) s = cm_model_sane(c, path, m);
    if (s != CALOMU_OK) calomu_model_free(m);
    else *model = m;
    return s;
}

/* The architecture and standardisation from the metadata.

   A deviation that is not positive would divide by 0 or turn a feature round.  1000 members bound
   the loops over them; memory is bounded by the file (cm_model_fits). */
static calomu_status cm_model_numbers(calomu *c, const char *path, const cm_st *st,
                                      calomu_model_info *info)
{
    const char *kind = cm_st_kind(st), *version = cm_st_find_meta(st, "version");
    const char *members = cm_st_find_meta(st, "members");
    uint64_t n = 0;
    calomu_status s;
    if (!kind) return cm_st_foreign(c, path);
    if (strcmp(kind, "model") != 0)
        return cm_fail(c, CALOMU_EFORMAT, "%s: is the checkpoint of a training, not a model", path);
    if (!version || !cm_parse_whole(version, &n) || n != CM_MODEL_VERSION)
        return cm_fail(c, CALOMU_EFORMAT, "%s: model of version %.20s; this program reads version"
                       " %d", path, version ? version : "?", CM_MODEL_VERSION);
    if (!members || !cm_parse_whole(members, &n) || n < 1 || n > 1000)
        return cm_fail(c, CALOMU_EFORMAT, "%s: the number of members must be 1 to 1000", path);
    info->members = (int)n;
    s = cm_architecture_read(c, path, st, &info->architecture);
    if (s != CALOMU_OK) return s;
    if (!cm_numbers_parse(cm_st_find_meta(st, "mean"), info->mean)
        || !cm_numbers_parse(cm_st_find_meta(st, "deviation"), info->deviation))
        return cm_fail(c, CALOMU_EFORMAT, "%s: mean or deviation are not 28 numbers", path);
    for (n = 0; n < CALOMU_FEATURES; n++)
        if (!(info->deviation[n] > 0))
            return cm_fail(c, CALOMU_EFORMAT, "%s: the deviation of %s is not positive", path,
                           calomu_feature_name((int)n));
    return CALOMU_OK;
}

/* "" is an unknown loss, a missing entry a fault.  Negative ones would give negative weights. */
static calomu_status cm_model_losses(calomu *c, const char *path, const cm_st *st,
                                     calomu_model *m)
{
    char key[16];
    int k;
    for (k = 0; k < m->info.members; k++) {
        const char *text, *end;
        (void)snprintf(key, sizeof key, "loss.%d", k);
        text = cm_st_find_meta(st, key);
        end = text && *text ? calomu_parse(text, &m->loss[k]) : text;
        if (!end || *end || m->loss[k] < 0)
            return cm_fail(c, CALOMU_EFORMAT, "%s: metadata \"%s\" is no loss", path, key);
    }
    return CALOMU_OK;
}

/* Fields of which the file tells something; the others stay.

   So records written by an older program, which knew fewer numbers, can be read, and a member's
   record is the common one with some numbers replaced. */
static calomu_status cm_fields_told(calomu *c, const char *path, const cm_st *st,
                                    const char *prefix, void *base, const cm_field *f, int n)
{
    char key[64];
    int i;
    for (i = 0; i < n; i++) {
        const char *text;
        (void)snprintf(key, sizeof key, "%s%s", prefix, f[i].key);
        text = cm_st_find_meta(st, key);
        if (text && !cm_field_parse(base, f + i, text))
            return cm_fail(c, CALOMU_EFORMAT, "%s: metadata \"%s\" is no number of its kind", path,
                           key);
    }
    return CALOMU_OK;
}

/* What a training cannot have been like: calomu_trainer_ended relies on it. */
static calomu_status cm_record_check(calomu *c, const char *path, const calomu_training *r)
{
    char where[400];
    calomu_status s;
    (void)snprintf(where, sizeof where, "%.300s: training option ", path);
    s = cm_train_check(c, CALOMU_EFORMAT, where, &r->options);
    if (s != CALOMU_OK) return s;
    (void)snprintf(where, sizeof where, "%.300s: training.", path);
    return cm_fields_check(c, CALOMU_EFORMAT, where, r, cm_training_fields,
                           CM_COUNT(cm_training_fields));
}

/* How the members came about: what they share, then what each has of its own.

   k = -1 is the common record.  Without it nothing is known of any member, and their records stay
   0. */
static calomu_status cm_model_records(calomu *c, const char *path, const cm_st *st,
                                      calomu_model *m)
{
    calomu_training common;
    char key[48];
    int k;
    calomu_status s = cm_model_losses(c, path, st, m);
    memset(&common, 0, sizeof common);
    if (!cm_st_find_meta(st, "training.version")) return s;
    common.known = 1;
    common.options = calomu_train_options_default();
    for (k = -1; s == CALOMU_OK && k < m->info.members; k++) {
        calomu_training *r = k < 0 ? &common : m->training + k;
        char own[16] = "";
        const char *version;
        if (k >= 0) (void)snprintf(own, sizeof own, "%d.", k);
        (void)snprintf(key, sizeof key, "%straining.version", own);
        version = cm_st_find_meta(st, key);
        if (k >= 0 && version && !*version) continue;    /* nothing is known of this one */
        if (k >= 0) *r = common;
        (void)snprintf(key, sizeof key, "%strain.", own);
        s = cm_fields_told(c, path, st, key, &r->options, cm_train_fields,
                           CM_COUNT(cm_train_fields));
        (void)snprintf(key, sizeof key, "%straining.", own);
        if (s == CALOMU_OK)
            s = cm_fields_told(c, path, st, key, r, cm_training_fields,
                               CM_COUNT(cm_training_fields));
        if (s == CALOMU_OK) s = cm_record_check(c, path, r);
    }
    return s;
}

/* A network that no machine can compute is the file's fault.

   Takes m over in every case, like cm_model_finish. */
static calomu_status cm_model_finish_file(calomu *c, calomu_status s, const char *path,
                                          calomu_model *m, calomu_model **model)
{
    calomu_model *done = NULL;
    if (s != CALOMU_OK) {
        calomu_model_free(m);
        return s;
    }
    s = cm_model_finish(c, s, m, &done);
    if (s == CALOMU_EUSAGE) return cm_fail_in(c, CALOMU_EFORMAT, path);
    if (s == CALOMU_OK) *model = done;
    return s;
}

/* The file's bytes (st) are in memory next to the networks until the values have been taken;
   weights are packed when they are gone. */
static calomu_status cm_model_load_call(calomu *c, const char *path, calomu_model **model)
{
    cm_st st = { 0 };
    calomu_model_info info;
    calomu_model *m = NULL;
    calomu_status s = cm_st_read(c, path, &st);
    if (s != CALOMU_OK) return s;
    memset(&info, 0, sizeof info);
    s = cm_model_numbers(c, path, &st, &info);
    if (s == CALOMU_OK) s = cm_model_fits(c, path, &st, &info, 1);
    if (s == CALOMU_OK) s = cm_model_fill(c, path, &st, &info, &m);
    if (s == CALOMU_OK) s = cm_model_records(c, path, &st, m);
    cm_st_free(c, &st);
    return cm_model_finish_file(c, s, path, m, model);
}

calomu_status calomu_model_load(calomu *c, const char *path, calomu_model **model)
{
    return cm_enter(c) ? cm_leave(c, cm_model_load_call(c, path, model)) : CALOMU_EUSAGE;
}

/* ---------------------------------------------------------------- has a training ended?

   A training that has ended leaves no checkpoint, but its options and what it knew its muons by are
   in the model.

   Who starts a training again, by mistake or because a later member of an ensemble was cut short,
   should not train for a day to make what is there.  Whether a model is the result of this training
   is asked as a resume asks it: by fingerprints of the muons and by the standardisation. */

/* A trainer with what the model tells, for cm_resume_attach: no weights, no state. */
static calomu_trainer *cm_ended_trainer(calomu *c, const calomu_model *m)
{
    const calomu_training *r = m->training;
    calomu_trainer *t = cm_trainer_new(c);
    if (!t) return NULL;
    t->options = r->options;
    t->arch = m->info.architecture;
    t->state.n_events = r->muons;
    t->state.n_validation = r->validation;
    t->state.fingerprint = r->fingerprint;
    t->state.hits = r->hits;
    memcpy(t->mean, m->info.mean, sizeof t->mean);
    memcpy(t->deviation, m->info.deviation, sizeof t->deviation);
    return t;
}

/* *members is above 0 as soon as the model tells of a training that has ended, also where the muons
   are then found to be others: the caller asks for a different message in the two cases. */
static calomu_status cm_trainer_ended_call(calomu *c, const calomu_data *data,
                                           const calomu_data *validation, const char *path,
                                           calomu_train_options *options,
                                           calomu_architecture *architecture, int *members)
{
    calomu_model *m = NULL;
    calomu_trainer *t = NULL;
    int same = 0;
    calomu_status s = calomu_model_load(c, path, &m);
    *members = 0;
    if (s != CALOMU_OK) return s;
    if (m->training->known && m->training->finished) {
        t = cm_ended_trainer(c, m);
        s = t ? cm_trainer_plan(c, t, t->state.n_events) : CALOMU_EMEMORY;
        if (t && s == CALOMU_EUSAGE) s = cm_fail_in(c, CALOMU_EFORMAT, path);
        if (s == CALOMU_OK) {
            *members = m->info.members;
            *options = t->options;
            *architecture = t->arch;
            s = cm_resume_attach(c, path, data, validation, t, &same);
        }
        if (s == CALOMU_OK && !same)
            s = cm_fail(c, CALOMU_EFORMAT, "%s: the model of a training on other muons than these"
                        " data: start anew, or into another file", path);
    }
    calomu_model_free(m);
    calomu_trainer_free(t);
    return s;
}

calomu_status calomu_trainer_ended(calomu *c, const calomu_data *data,
                                   const calomu_data *validation, const char *path,
                                   calomu_train_options *options, calomu_architecture *architecture,
                                   int *members)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_trainer_ended_call(c, data, validation, path, options,
                                                            architecture, members));
}

/* ---------------------------------------------------------------- weights from other programs

   State_dicts of PyTorch, bare or with metadata of ours, of one network or of an ensemble's members
   (names with "K." in front).

   A state_dict has names and shapes and no sizes of a network: these are found from the shapes, in
   the order body, stages, growth, features (cm_import_sizes), and afterwards the tensors are held
   against the network of these sizes, as of any file.  What is found wrong on the way is only a
   better message.

   Not in a state_dict: mean and deviation of the features.  Without them predictions are nonsense
   that looks like energies, so they must be given, unless no feature has a weight. */

/* Shape of a tensor of exactly this name and rank, or NULL; absurd sizes are refused here.

   4096 is the bound of cm_architecture_check for the body, and keeps quotients of shapes and sums
   in an int. */
static const uint32_t *cm_import_shape(const cm_st *st, const char *member, const char *name,
                                       int rank)
{
    char full[64];
    const cm_st_tensor *t;
    int i;
    (void)snprintf(full, sizeof full, "%s%s", member, name);
    t = cm_st_find(st, full);
    if (!t || t->rank != rank) return NULL;
    for (i = 0; i < rank; i++)
        if (t->shape[i] < 1 || t->shape[i] > 4096) return NULL;
    return t->shape;
}

/* Channels grow as out = floor(growth*in) at three places: the growth lies in all intervals
   [out/in, (out + 1)/in); 1.5 if that fits, else the lowest.

   The paper's network has 11 channels before the second resolution and 16 behind, then 19 and 28,
   31 and 46: [1.4545, 1.5455), [1.4737, 1.5263) and [1.4839, 1.5161) have 1.5 in common.  The
   lowest common growth is rounded up to a multiple of 2^-20, so that out = floor(growth*in) does
   not miss by a rounding of the quotient.  0: no growth gives these channels. */
static int cm_import_growth(const cm_st *st, const char *member, calomu_architecture *a)
{
    double low = 0, high = 1e9;
    int r;
    for (r = 1; r < CM_RESOLUTIONS; r++) {
        char name[32];
        const uint32_t *shape;
        (void)snprintf(name, sizeof name, "head.%d.path.2.weight", r * a->blocks);
        shape = cm_import_shape(st, member, name, 5);
        if (!shape) return 0;
        if ((double)shape[0] / (double)shape[1] > low) low = (double)shape[0] / (double)shape[1];
        if ((double)(shape[0] + 1) / (double)shape[1] < high)
            high = (double)(shape[0] + 1) / (double)shape[1];
    }
    a->growth = low <= 1.5 && 1.5 < high ? 1.5 : low;
    while (low < high && floor(a->growth * 1048576) < a->growth * 1048576)
        a->growth = floor(a->growth * 1048576 + 1) / 1048576;    /* few digits, rounded up */
    return low < high && a->growth <= 8;         /* beyond, channel counts could overflow */
}

/* How many stages the head of a network has, by the names of its tensors.

   Numbers above 1000 are not read on, so no name overflows k; too many stages are refused by the
   caller. */
static int cm_import_stages(const cm_st *st, const char *member)
{
    size_t n = strlen(member);
    int i, stages = 0;
    for (i = 0; i < st->n_tensors; i++) {
        const char *name = st->tensor[i].name;
        int digit, k = 0;
        if (strncmp(name, member, n) != 0 || strncmp(name + n, "head.", 5) != 0) continue;
        for (name += n + 5; *name >= '0' && *name <= '9' && k < 1000; name++) {
            digit = *name - '0';
            k = 10 * k + digit;
        }
        if (k + 1 > stages) stages = k + 1;
    }
    return stages;
}

/* Menu and sizes from names and shapes.

   The body's first layer sees the features and then what the head hands on; with the head's size
   known, what remains is the menu. */
static calomu_status cm_import_sizes(calomu *c, const char *path, const cm_st *st,
                                     const char *member, calomu_architecture *a)
{
    const uint32_t *body = cm_import_shape(st, member, "body.0.weight", 2);
    int stages = cm_import_stages(st, member), features;
    if (!body)
        return cm_fail(c, CALOMU_EFORMAT, "%s: no tensor body.0.weight of two dimensions: not a"
                       " state_dict of this network", path);
    a->head = stages > 0;
    a->blocks = a->head ? stages / CM_RESOLUTIONS : 3;
    a->body = (int32_t)body[0];
    a->growth = 1.5;
    if (a->head && (stages % CM_RESOLUTIONS != 0 || stages > 64 * CM_RESOLUTIONS
                    || !cm_import_growth(st, member, a)))
        return cm_fail(c, CALOMU_EFORMAT, "%s: a head of %d blocks that do not form %d resolutions"
                       " of equal depth and one growth of channels", path, stages,
                       CM_RESOLUTIONS);
    features = (int)body[1] - cm_head_outputs(a);
    if (features != 0 && features != 3 && features != CALOMU_FEATURES)
        return cm_fail(c, CALOMU_EFORMAT, "%s: body.0.weight has %d inputs, which leaves %d"
                       " features; there are menus of 28, 3 and 0", path, (int)body[1], features);
    a->n_features = features;
    return CALOMU_OK;
}

/* Bytes of what wrappers of PyTorch put before the names, of a name or of its start.

   They may be nested, as torch.compile of a DataParallel of a module: "_orig_mod.module.". */
static size_t cm_import_wrapped(const char *name)
{
    static const char *const wrapper[] = { "module.", "_orig_mod.", "model." };
    size_t n = 0;
    int i;
    for (i = 0; i < 3; i++)
        if (strncmp(name + n, wrapper[i], strlen(wrapper[i])) == 0) {
            n += strlen(wrapper[i]);
            i = -1;
        }
    return n;
}

/* The first layer's name behind a prefix of wrappers and perhaps the number of a member: bytes of
   the wrappers, or -1 if this is another name.

   "module.body.0.weight" gives 7, "model.3.body.0.weight" 6, "body.0.weight" 0, "body.0.bias"
   -1. */
static int cm_import_layer(const char *name)
{
    size_t n = cm_import_wrapped(name), member = strspn(name + n, "0123456789");
    member += member && name[n + member] == '.';
    return strcmp(name + n + member, "body.0.weight") == 0 ? (int)n : -1;
}

/* A name that ends like the first layer's, or NULL; *n: as cm_import_layer, or -1.

   The first kind of name is the answer; one with an unknown prefix is kept for the message only. */
static const char *cm_import_first(const cm_st *st, int *n)
{
    static const char last[] = ".body.0.weight";
    const char *any = NULL;
    int i;
    *n = -1;
    for (i = 0; i < st->n_tensors; i++) {
        const char *name = st->tensor[i].name;
        size_t length = strlen(name);
        *n = cm_import_layer(name);
        if (*n >= 0) return name;
        if (length >= sizeof last && strcmp(name + length - (sizeof last - 1), last) == 0)
            any = name;
    }
    return any;
}

/* Takes a prefix of wrappers off the names.  Names without it stay, and are found to be none of
   the network's.

   Names are pointers into the header, so taking a prefix off is moving a pointer; the table is
   sorted again, as searching wants it.  Other prefixes are refused and not guessed at: a file with
   several networks has several. */
static calomu_status cm_import_unwrap(calomu *c, const char *path, cm_st *st)
{
    int i, n = 0;
    const char *first;
    if (cm_st_find(st, "body.0.weight") || cm_st_find(st, "0.body.0.weight")) return CALOMU_OK;
    first = cm_import_first(st, &n);
    if (!first) return CALOMU_OK;    /* what is missing is said later */
    if (n < 0)
        return cm_fail(c, CALOMU_EFORMAT, "%s: its names have \"%.*s\" in front of them; only"
                       " module., _orig_mod. and model. are taken off: save the state_dict of the"
                       " network itself, or rename", path,
                       (int)(strlen(first) - strlen("body.0.weight")), first);
    if (n > 0)
        cm_log(c, "%s: its names have \"%.*s\" in front of them, which is taken off", path, n,
               first);
    for (i = 0; n > 0 && i < st->n_tensors; i++)
        if (strncmp(st->tensor[i].name, first, (size_t)n) == 0) st->tensor[i].name += n;
    cm_st_sort(st->tensor, (size_t)st->n_tensors, sizeof *st->tensor, cm_st_by_name);
    return CALOMU_OK;
}

/* 1, or how many members of an ensemble there are by their names.

   The members are 0, 1, 2, ... without a gap; 1000 at most. */
static int cm_import_members(const cm_st *st)
{
    char name[32];
    int n = 0;
    do (void)snprintf(name, sizeof name, "%d.body.0.weight", n);
    while (cm_st_find(st, name) && ++n < 1000);
    return n > 0 ? n : 1;
}

/* Says once what was done to get numbers of our type. */
static void cm_import_types(calomu *c, const char *path, const cm_st *st)
{
    static const struct { cm_dtype type; const char *how; } of[] = {
        { CM_F16, "every value is a float32 too" }, { CM_BF16, "every value is a float32 too" },
        { CM_F64, "they are rounded to float32" }
    };
    int i, k, n;
    for (k = 0; k < (sizeof(cm_real) == sizeof(float) ? 3 : 2); k++) {
        for (i = n = 0; i < st->n_tensors; i++) n += st->tensor[i].dtype == of[k].type;
        if (n) cm_log(c, "%s: %d of %d tensors are %s: %s", path, n, st->n_tensors,
                      cm_dtypes[of[k].type].name, of[k].how);
    }
}

/* Metadata of ours of which another program left a part, or changed it: the way out. */
static calomu_status cm_import_partly(calomu *c, calomu_status s)
{
    char said[512];                  /* as the message itself */
    if (s != CALOMU_EFORMAT) return s;
    (void)snprintf(said, sizeof said, "%s", calomu_message(c));
    return cm_fail(c, s, "%s: calomu's metadata of this file are not whole; --like MODEL (of"
                   " calomu) takes all but the weights from another", said);
}

/* What the weights are of, from the file's own metadata or from names and shapes.

   base: the caller's calorimeter and convention, which a state_dict lacks; of a file with metadata
   it replaces these and keeps the sizes. */
static calomu_status cm_import_info(calomu *c, const char *path, const cm_st *st,
                                    const calomu_architecture *base, calomu_model_info *info)
{
    calomu_architecture *a = &info->architecture;
    calomu_status s;
    if (cm_st_kind(st)) {
        s = cm_model_numbers(c, path, st, info);
        if (s == CALOMU_OK && base) {
            a->geometry = base->geometry;
            a->feature_options = base->feature_options;
            a->standardised_unknown = base->standardised_unknown;
        }
        return cm_import_partly(c, s);
    }
    *a = base ? *base : calomu_architecture_default();
    info->members = cm_import_members(st);
    return cm_import_sizes(c, path, st, cm_st_find(st, "0.body.0.weight") ? "0." : "", a);
}

/* Mean and deviation as the caller wants them, or of the file.

   A deviation of 0, as numpy gives for a feature that never varies, counts as 1, as in training
   (cm_standardise). */
static void cm_import_standard(const double *mean, const double *deviation,
                               calomu_model_info *info)
{
    int i;
    for (i = 0; i < CALOMU_FEATURES; i++) {
        if (mean) info->mean[i] = mean[i];
        if (deviation) info->deviation[i] = deviation[i];
        if (!(info->deviation[i] > 0)) info->deviation[i] = 1;
    }
}

/* Whether any feature has a weight other than 0. */
static int cm_model_uses_features(const calomu_model *m)
{
    int k, o, i, n = m->info.architecture.n_features;
    for (k = 0; k < m->info.members; k++) {
        const cm_param *p = cm_net_find(m->net[k], "body.0.weight");
        const cm_real *w = cm_net_values(m->net[k], p);
        for (o = 0; o < p->shape[0]; o++)
            for (i = 0; i < n; i++)
                if (w[o * p->shape[1] + i] != 0) return 1;
    }
    return 0;
}

/* The file, its names unwrapped.

   A checksum that is wrong is allowed here: changing weights on purpose is what an import is
   for. */
static calomu_status cm_import_read(calomu *c, const char *path, cm_st *st)
{
    calomu_status s = cm_st_read_changed(c, path, st);
    const char *kind = s == CALOMU_OK ? cm_st_kind(st) : NULL;
    if (kind && strcmp(kind, "checkpoint") == 0)
        s = cm_fail(c, CALOMU_EFORMAT, "%s: is the checkpoint of a training, not a model", path);
    if (s == CALOMU_OK) s = cm_import_unwrap(c, path, st);
    if (s != CALOMU_OK) cm_st_free(c, st);
    return s;
}

/* Says what was done to a file. */
static void cm_import_notices(calomu *c, const char *path, const cm_st *st,
                              const calomu_model_info *info)
{
    if (info->architecture.head && !cm_st_find(st, info->members > 1 ? "0.head.0.esum.weight"
                                                                     : "head.0.esum.weight"))
        cm_log(c, "%s: has no weights of the energy sums: they are 1", path);
    if (st->changed)
        cm_log(c, "%s: its checksum is wrong: another program has changed it, or it is damaged",
               path);
    cm_import_types(c, path, st);
}

/* The model, from a file and what it is of.  like: whose records it gets; NULL: the file's own.
   standard 0: without mean and deviation the network would predict nonsense, unless no feature has
   a weight.

   Weights that another program may have changed are marked in each member's record (changed), so
   that nobody takes the model for the result of that training. */
static calomu_status cm_import_model(calomu *c, const char *path, const cm_st *st,
                                     const calomu_model_info *info, int standard,
                                     const calomu_model *like, calomu_model **model)
{
    calomu_model *m = NULL;
    int k, members = info->members;
    calomu_status s = cm_model_fits(c, path, st, info, 0);
    if (s == CALOMU_OK) s = cm_model_fill(c, path, st, info, &m);
    if (s == CALOMU_OK && !standard && cm_model_uses_features(m))
        s = cm_fail(c, CALOMU_EFORMAT, "%s: a network of %d features, and their mean and standard"
                    " deviation are not given: add --like MODEL (of calomu), or"
                    " --features-mean-std FILE.csv or none", path,
                    (int)info->architecture.n_features);
    if (s == CALOMU_OK && like) {
        memcpy(m->loss, like->loss, (size_t)members * sizeof *m->loss);
        memcpy(m->training, like->training, (size_t)members * sizeof *m->training);
    } else if (s == CALOMU_OK && cm_st_kind(st)) {
        s = cm_import_partly(c, cm_model_records(c, path, st, m));
    }
    for (k = 0; s == CALOMU_OK && k < members && (like || st->changed); k++)
        m->training[k].changed = 1;
    if (s == CALOMU_OK) cm_import_notices(c, path, st, info);
    return cm_model_finish_file(c, s, path, m, model);
}

/* Numbers of the caller first (EUSAGE), then the file (EFORMAT). */
static calomu_status cm_model_import_call(calomu *c, const char *path,
                                          const calomu_architecture *base, const double *mean,
                                          const double *deviation, calomu_model **model)
{
    cm_st st = { 0 };
    calomu_model_info info;
    int i, standard;
    calomu_status s;
    for (i = 0; i < CALOMU_FEATURES; i++)
        if ((mean && !isfinite(mean[i]))
            || (deviation && !(deviation[i] >= 0 && isfinite(deviation[i]))))
            return cm_fail(c, CALOMU_EUSAGE, "mean or deviation of %s is not finite, or negative",
                           calomu_feature_name(i));
    s = cm_import_read(c, path, &st);
    if (s != CALOMU_OK) return s;
    memset(&info, 0, sizeof info);
    s = cm_import_info(c, path, &st, base, &info);
    cm_import_standard(mean, deviation, &info);
    standard = info.architecture.standardised_unknown || cm_st_kind(&st) || (mean && deviation);
    if (s == CALOMU_OK) s = cm_import_model(c, path, &st, &info, standard, NULL, model);
    cm_st_free(c, &st);
    return s;
}

calomu_status calomu_model_import(calomu *c, const char *path, const calomu_architecture *base,
                                  const double *mean, const double *deviation, calomu_model **model)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_model_import_call(c, path, base, mean, deviation, model));
}

/* Everything but the weights is that of `like`, whatever the file's metadata say. */
static calomu_status cm_model_import_like_call(calomu *c, const char *path,
                                               const calomu_model *like, calomu_model **model)
{
    cm_st st = { 0 };
    calomu_status s = cm_import_read(c, path, &st);
    int members;
    if (s != CALOMU_OK) return s;
    members = cm_import_members(&st);
    if (members != like->info.members)
        s = cm_fail(c, CALOMU_EFORMAT, "%s: weights of %d network%s, but the model to take the rest"
                    " from has %d", path, members, members > 1 ? "s" : "", like->info.members);
    if (s == CALOMU_OK) s = cm_import_model(c, path, &st, &like->info, 1, like, model);
    cm_st_free(c, &st);
    return s;
}

calomu_status calomu_model_import_like(calomu *c, const char *path, const calomu_model *like,
                                       calomu_model **model)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_model_import_like_call(c, path, like, model));
}

/* ---------------------------------------------------------------- inference

   One unit of work is a group of 16 muons, of few muons one: features, standardisation, the
   networks of all members.  Each thread has a context for its messages, scratch memory and an arena
   of its own; of a muon alone the operations share out their rows.

   The way of a muon: check, and sorting of the hits where they are the caller's; features, from the
   file or from the hits; standardisation; each member's network; the mean with weights 1/loss.

   From call to call a context keeps (all of it goes with the context, or when a call fails):

       ready           predictors: contexts, scratch memory, the engine's work
       inference_arena memory of the engine, one piece cut into as many as there are threads
       place           the networks on a device (section 20)

   Nothing of a model is kept but on a device, where weights are compared before they are used
   again: a model may be freed between two calls, and another one may have its address.

   The caller's arrays are written when all muons are done: a failure leaves them as they were.

   In this order: where features come from; a group of muons; members; what is kept; one muon alone;
   all muons. */

typedef struct cm_predictor {
    calomu *own;
    cm_feature_scratch *scratch;
    cm_batch b;
    cm_real *features;               /* standardised, of a group */
    calomu_hit *hits;                /* sorted hits of a group, and scratch for sorting */
    size_t hits_capacity;
} cm_predictor;

struct cm_prediction {       /* what all units share */
    const calomu_model *model;
    const calomu_data_info *info;    /* NULL: events of the caller, hits in any order */
    const calomu_event *event;
    size_t n;
    cm_source source;
    size_t each;                     /* muons of a unit: 16, of few 1 */
    double *weight;                  /* of the members */
    double *out, *members;
};

/* Where the model's features come from.

   info is NULL for events of the caller, which have no convention: their features are computed.  As
   in cm_train_source, features of another convention are computed again from the hits, if there are
   hits.  A set without muons is no error. */
static calomu_status cm_predict_source(calomu *c, const calomu_architecture *a,
                                       const calomu_data_info *info, cm_source *source)
{
    const calomu_feature_options *want = &a->feature_options;
    int fits;
    *source = CM_SOURCE_NONE;
    if (info && calomu_geometry_compare(c, &info->geometry, &a->geometry) != CALOMU_OK)
        return cm_fail_in(c, CALOMU_EFORMAT, "the data's calorimeter is not the model's");
    if (a->n_features == 0) return CALOMU_OK;
    fits = info && info->features != CALOMU_FEATURES_NONE
        && info->feature_options.convention == want->convention
        && info->feature_options.grow == want->grow;
    *source = CM_SOURCE_FILE;
    if (a->standardised_unknown) {
        if (fits && info->features == CALOMU_FEATURES_STANDARDISED_UNKNOWN) return CALOMU_OK;
        return cm_fail(c, CALOMU_EFORMAT, "the model was trained on features standardised with"
                       " unknown mean and deviation: it predicts only files with such features");
    }
    if (fits && info->features != CALOMU_FEATURES_STANDARDISED_UNKNOWN) return CALOMU_OK;
    *source = CM_SOURCE_HITS;
    if (info && info->features != CALOMU_FEATURES_NONE && info->n_hits == 0 && info->n_events > 0)
        return cm_fail(c, CALOMU_EFORMAT, "the data's features are of another convention than the"
                       " model's, and there are no hits to compute them from");
    return CALOMU_OK;
}

/* n events from `first` on, checked; the caller's hits are sorted into `to`, or into memory of w if
   that is NULL.

   Events of a data set are sorted and have been checked when they were read, but belong to a caller
   who may have changed them since: they are checked again, and not copied.  w->hits has room for
   the largest muon, as scratch for sorting, and behind it for all hits of the group, where `to` is
   NULL. */
static calomu_status cm_predict_events(cm_predictor *w, const cm_prediction *p, size_t first,
                                       int n, calomu_event *e, calomu_hit *to)
{
    const calomu_geometry *geometry = &p->model->info.architecture.geometry;
    size_t total = 0, most = 0, need;
    calomu_status s = CALOMU_OK;
    int i;
    for (i = 0; i < n && s == CALOMU_OK; i++) {
        e[i] = p->event[first + (size_t)i];
        s = cm_check_event(w->own, geometry, &e[i], CM_NO_NUMBER);
        total += e[i].n_hits;
        if (e[i].n_hits > most) most = e[i].n_hits;
    }
    if (s != CALOMU_OK) cm_fail_at(w->own, first + (size_t)i - 1);
    if (s != CALOMU_OK || p->info) return s;
    need = to ? most : total + most;
    if (need > w->hits_capacity || !w->hits) {
        cm_release(w->own, w->hits);
        w->hits = cm_allocate(w->own, need, sizeof *w->hits);
        w->hits_capacity = w->hits ? need : 0;
        if (!w->hits) return CALOMU_EMEMORY;
    }
    if (!to) to = w->hits + most;
    for (i = 0; i < n && s == CALOMU_OK; i++) {
        s = cm_sort_hits(w->own, geometry, e[i].hits, e[i].n_hits, to, w->hits, CM_NO_NUMBER);
        if (s != CALOMU_OK) cm_fail_at(w->own, first + (size_t)i);
        e[i].hits = to;
        to += e[i].n_hits;
    }
    return s;
}

/* Raw features of one muon of the batch.

   Features of the file's own convention were computed with an impact point that the file may lack;
   computed again without it they would come out otherwise for muons that are not at the hottest
   column.  That is an error, not a guess. */
static calomu_status cm_predict_features(cm_predictor *w, const cm_prediction *p, size_t number,
                                         const calomu_event *e, float *row)
{
    const calomu_architecture *a = &p->model->info.architecture;
    calomu_status s;
    if (p->source == CM_SOURCE_FILE) return cm_features_take(w->own, p->info, e, number, row);
    if (p->info && p->info->features != CALOMU_FEATURES_NONE && cm_impact_absent(e))
        return cm_fail(w->own, CALOMU_EFORMAT, "muon %zu: the data's features are of another"
                       " convention than the model's or standardised by unknown numbers, and"
                       " without an impact point they cannot be computed again", number);
    s = cm_features(w->own, &a->geometry, e, &a->feature_options, w->scratch, row);
    if (s != CALOMU_OK) cm_fail_at(w->own, number);
    return s;
}

/* Standardised features of n muons.

   The same arithmetic as in training (cm_train_inputs), in double and rounded once: a muon of the
   training set has the same inputs here. */
static void cm_predict_inputs(const calomu_model_info *info, const float *rows, int n, cm_real *to)
{
    int i, k, nc = info->architecture.n_features;
    for (i = 0; i < n; i++)
        for (k = 0; k < nc; k++) {
            int j = cm_feature_of_input(nc, k);
            *to++ = (cm_real)(((double)rows[i * CALOMU_FEATURES + j] - info->mean[j])
                              / info->deviation[j]);
        }
}

/* Events and, if the model wants them, features of a group of at most 16 muons. */
static calomu_status cm_predict_group(cm_predictor *w, const cm_prediction *p, size_t first, int n,
                                      calomu_event *e, float *rows, calomu_hit *to)
{
    calomu_status s = cm_predict_events(w, p, first, n, e, to);
    int i;
    for (i = 0; i < n && s == CALOMU_OK && p->source != CM_SOURCE_NONE; i++)
        s = cm_predict_features(w, p, first + (size_t)i, &e[i], rows + i * CALOMU_FEATURES);
    return s;
}

/* A member's predictions of n muons from `first` on.

   The mean is added up member by member, from 0 on, so its bits depend on the order of the members
   and on nothing else.  `sum` is the part of p->out of these muons: no other unit writes there. */
static calomu_status cm_predict_take(calomu *own, const cm_prediction *p, size_t first, int n,
                                     int member, const double *pred, double *sum)
{
    int i;
    for (i = 0; i < n; i++) {
        size_t at = (first + (size_t)i) * (size_t)p->model->info.members + (size_t)member;
        if (!isfinite(pred[i]))
            return cm_fail(own, CALOMU_ENOTFINITE, "muon %zu: the prediction is not finite:"
                           " its hits or features are far outside anything physical",
                           first + (size_t)i);
        sum[i] = cm_fmad(p->weight[member], pred[i], member ? sum[i] : 0);
        if (p->members) p->members[at] = pred[i];
    }
    return CALOMU_OK;
}

/* The muons from `first` on, as many as a unit has, by all members.  Events and rows are on the
   stack: 16 muons take 3 KB. */
static calomu_status cm_predict_unit(cm_predictor *w, const cm_prediction *p, size_t first)
{
    calomu_event e[CM_LANES];
    float rows[CM_LANES * CALOMU_FEATURES];
    double pred[CM_LANES];
    int k, n = p->n - first < p->each ? (int)(p->n - first) : (int)p->each;
    calomu_status s = cm_predict_group(w, p, first, n, e, rows, NULL);
    if (s == CALOMU_OK) cm_predict_inputs(&p->model->info, rows, n, w->features);
    w->b.event = e;
    w->b.features = w->features;
    w->b.muons = n;
    for (k = 0; s == CALOMU_OK && k < p->model->info.members; k++) {
        w->b.net = p->model->net[k];
        s = cm_engine_of(w->own)->predict(&w->b, pred);
        if (s == CALOMU_OK) s = cm_predict_take(w->own, p, first, n, k, pred, p->out + first);
    }
    return s;
}

/* Weights 1/(validation loss), normalised; equal where a loss is unknown.  A loss so small that
   the sum could overflow is no loss of a training.

   The sum of up to 1000 numbers below 1e300 is below 1e303.  NaN is not above 1e-300, so an unknown
   loss makes all weights equal.

   Losses of 263.4 and 300 give weights of 0.532 and 0.468. */
static void cm_member_weights(const calomu_model *m, double *weight)
{
    double sum = 0;
    int k, known = 1;
    for (k = 0; k < m->info.members; k++) known = known && m->loss[k] > 1e-300;
    for (k = 0; k < m->info.members; k++) {
        weight[k] = known ? 1 / m->loss[k] : 1;
        sum += weight[k];
    }
    for (k = 0; k < m->info.members; k++) weight[k] /= sum;
}

/* Those that were made.  `end` is the engine's of c, which the predictors were made with: a context
   does not change its engine. */
static void cm_predictors_free(calomu *c, cm_predictor *w, int n)
{
    int i;
    for (i = 0; w && i < n; i++) {
        if (!w[i].own) continue;
        cm_engine_of(c)->end(&w[i].b);
        cm_release(w[i].own, w[i].features);
        cm_feature_scratch_free(w[i].own, w[i].scratch);
        cm_release(w[i].own, w[i].hits);
        cm_clone_free(w[i].own);
    }
    cm_release(c, w);
}

/* The first unit that failed has been done again by w, for its message: s.

   A unit that fails a second time leaves its own message in w; what another thread said is not
   needed. */
static calomu_status cm_predict_failed(calomu *c, const cm_predictor *w, calomu_status s)
{
    if (s == CALOMU_OK)              /* it was memory, and there is some again */
        return cm_fail(c, CALOMU_EMEMORY, "no memory for inference");
    return cm_fail(c, s, "%s", calomu_message(w->own));
}

/* Memory that the context keeps from call to call, at least so large, 64-byte aligned.

   bytes counts from the aligned address: 64 more are asked for.  On failure nothing is kept, and
   the size says so. */
static void *cm_inference_arena(calomu *c, size_t bytes)
{
    unsigned char *p;
    if (c->inference_arena_size < bytes) {
        cm_release(c, c->inference_arena);
        c->inference_arena = cm_allocate_raw(c, bytes + 64);
        c->inference_arena_size = c->inference_arena ? bytes : 0;
    }
    p = c->inference_arena;
    return p ? p + (64 - (uintptr_t)p % 64) % 64 : NULL;
}

/* The context keeps the predictors of its last call, until it is closed: their contexts, scratch
   memory and graphs, and how large arenas are.  They hold nothing of a model, but were made for its
   architecture and whether its packed weights are used: a model that differs in these gets new
   ones, and so does a call that takes more of them.  A call that failed leaves none.

   Making them anew would cost more than the prediction of one muon: contexts, scratch memory of a
   calorimeter's size, two dry runs for the arena. */
typedef struct cm_ready {
    calomu_architecture architecture;
    int packed;
    int n;                           /* predictors */
    size_t bytes;                    /* of the arena of each with one thread, */
    size_t team_bytes;               /*   of the first with `team`, or 0 */
    int team;
    double alone;                    /* the least time of a muon with one thread, s, of `calls` */
    int calls, rest, pause;          /* calls to come with one thread; how many next time */
    cm_predictor *w;
} cm_ready;

/* Predictors first: they are clones, with memory of their own. */
static void cm_ready_free(calomu *c)
{
    if (!c->ready) return;
    cm_predictors_free(c, c->ready->w, c->ready->n);
    cm_release(c, c->ready);
    c->ready = NULL;
}

/* What the predictors were made for is compared, not the model's address. */
static int cm_ready_fits(const calomu *c, const calomu_model *m, int n)
{
    const cm_ready *o = c->ready;
    return o && o->n >= n && o->packed == cm_engine_of(c)->packed(c, m)
        && cm_same_architecture(&o->architecture, &m->info.architecture);
}

/* n predictors without arenas.

   A failure leaves them half made; cm_ready_free takes them so. */
static calomu_status cm_predictors_new(calomu *c, const calomu_model *m, int n, cm_predictor *w)
{
    int i;
    for (i = 0; i < n; i++) {
        calomu *own = w[i].own = w[i].b.c = cm_clone(c);
        if (own) w[i].scratch = cm_feature_scratch_new(own, &m->info.architecture.geometry);
        if (own) w[i].features = cm_allocate(own, CM_LANES * CALOMU_FEATURES,
                                             sizeof *w[i].features);
        if (!own || !w[i].scratch || !w[i].features)
            return cm_fail(c, CALOMU_EMEMORY, "no memory for inference in %d threads", n);
    }
    return CALOMU_OK;
}

/* In place of those that were there.  On failure c->ready may be half made: every caller frees it
   then (cm_predict_begin). */
static calomu_status cm_ready_new(calomu *c, const calomu_model *m, int n)
{
    size_t bytes = 0;
    calomu_status s = c->device ? CALOMU_OK : cm_engine_of(c)->arena(c, m, 1, &bytes);
    cm_ready *o;
    cm_ready_free(c);
    if (s != CALOMU_OK) return s;
    o = c->ready = cm_allocate(c, 1, sizeof *o);
    if (!o) return CALOMU_EMEMORY;
    o->architecture = m->info.architecture;
    o->packed = cm_engine_of(c)->packed(c, m);
    o->bytes = bytes;
    o->w = cm_allocate(c, (size_t)n, sizeof *o->w);
    if (!o->w) return CALOMU_EMEMORY;
    o->n = n;
    return cm_predictors_new(c, m, n, o->w);
}

/* n predictors with one thread each, or one with a team of more.

   The arena is one piece of memory, n times `bytes`, which is a multiple of 64: each part is
   aligned.  On a device the arena is there.

   Two ways to share c->threads threads: n predictors with one thread each, for muons in parallel;
   or one predictor with a team, for the operations of one muon.  They differ in the size of the
   arena, as each thread of a team has sums of its own. */
static calomu_status cm_ready_for(calomu *c, const calomu_model *m, int n, int team)
{
    calomu_status s = cm_ready_fits(c, m, n) ? CALOMU_OK : cm_ready_new(c, m, n);
    cm_ready *o = c->ready;
    unsigned char *memory = NULL;
    size_t bytes;
    int i;
    if (s == CALOMU_OK && team > 1 && o->team != team)
        s = cm_engine_of(c)->arena(c, m, o->team = team, &o->team_bytes);
    if (s != CALOMU_OK || c->device) return s;
    bytes = team > 1 ? o->team_bytes : o->bytes;
    if (bytes) memory = cm_inference_arena(c, bytes * (size_t)n);
    if (bytes && !memory)
        return cm_fail(c, CALOMU_EMEMORY, "no memory for inference: %zu bytes for each thread",
                       bytes);
    for (i = 0; i < n; i++) {
        o->w[i].b.arena = memory ? memory + bytes * (size_t)i : NULL;
        o->w[i].b.arena_size = bytes;
        o->w[i].b.threads = team;
        o->w[i].b.model = m;
    }
    return CALOMU_OK;
}

/* The same; cm_predict_end ends their use.

   What may have changed in the context since the last call (a profile's clock, the threads of a
   child of fork) reaches the predictors by cm_clone_again. */
static calomu_status cm_predict_begin(calomu *c, const calomu_model *m, int n, int team,
                                      cm_predictor **w)
{
    calomu_status s = cm_ready_for(c, m, n, team);
    int i;
    if (s != CALOMU_OK) {
        cm_ready_free(c);
        return s;
    }
    *w = c->ready->w;
    for (i = 0; i < n; i++) cm_clone_again((*w)[i].own, c);
    return CALOMU_OK;
}

/* Threads for a muon alone: of the first two calls one, to know how long it takes.

   Measured and not assumed: whether threads help one muon depends on the machine and on what else
   runs there.  Two calls, since the first of a process also meets cold caches. */
static int cm_team_now(const calomu *c, const calomu_model *m)
{
    const cm_ready *o = c->ready;
    if (!cm_ready_fits(c, m, 1) || o->calls < 2 || o->rest > 0) return 1;
    return c->threads;
}

/* If the team was no faster, it pauses, twice as long each time.

   1 call, then 2, 4, ... 1024 with one thread before the team is tried again; a team that was fast
   halves the next pause.  10% is allowed, as times of a muon vary by that.  Only times are
   affected: the bits do not depend on it. */
static void cm_team_took(cm_ready *o, int team, double seconds)
{
    if (team == 1) {
        if (o->calls == 0 || seconds < o->alone) o->alone = seconds;
        if (o->calls < 2) o->calls++;
        if (o->rest > 0) o->rest--;
    } else if (seconds > 1.1 * o->alone) {
        o->pause = o->pause < 1 ? 1 : o->pause < 1024 ? 2 * o->pause : 1024;
        o->rest = o->pause;
    } else {
        o->pause /= 2;
    }
}

/* The model is forgotten, and after a failure so is all that was kept: work that was cut short is
   not used again. */
static calomu_status cm_predict_end(calomu *c, calomu_status s)
{
    int i;
    if (s != CALOMU_OK) cm_ready_free(c);
    for (i = 0; c->ready && i < c->ready->n; i++) c->ready->w[i].b.model = NULL;
    return s;
}

/* One muon alone: its operations have all threads if that was faster lately.  Where other programs
   take the processors, each of its 60 meetings of threads may wait for a turn, and the muon takes
   100 times as long.  The bits are the same in any case. */
static calomu_status cm_predict_alone(calomu *c, const cm_prediction *p)
{
    int team = cm_team_now(c, p->model);
    double start = cm_seconds();
    cm_predictor *w;
    calomu_status s = cm_predict_begin(c, p->model, 1, team, &w);
    if (s != CALOMU_OK) return s;
    s = cm_predict_unit(w, p, 0);
    cm_team_took(c->ready, team, cm_seconds() - start);
    if (s != CALOMU_OK) s = cm_fail(c, s, "%s", calomu_message(w->own));
    return cm_predict_end(c, s);
}

/* Units in parallel, one thread for each muon's operations.  See CM_PARALLEL_FOR about the lowest
   unit that fails. */
static calomu_status cm_predict_all(calomu *c, const cm_prediction *p)
{
    ptrdiff_t units = (ptrdiff_t)((p->n + p->each - 1) / p->each), u, failed = units;
    int threads = units < c->threads ? (int)units : c->threads;
    cm_predictor *w;
    calomu_status s;
    if (p->n == 1) return cm_predict_alone(c, p);
    s = cm_predict_begin(c, p->model, threads, 1, &w);
    if (s != CALOMU_OK) return s;
    CM_PARALLEL_FOR(threads)
    for (u = 0; u < units; u++) {
        if (cm_predict_unit(w + cm_thread(), p, (size_t)u * p->each) == CALOMU_OK) continue;
        CM_CRITICAL
        if (u < failed) failed = u;
    }
    if (failed < units)
        s = cm_predict_failed(c, w, cm_predict_unit(w, p, (size_t)failed * p->each));
    return cm_predict_end(c, s);
}

/* Below 9 muons a unit is one muon, so that threads have something to share; a muon alone uses all
   16 lanes, by blocks of its grid (16.2).  The bits are the same either way.  members:
   [muon][member]. */
static calomu_status cm_predict_call(calomu *c, const calomu_model *model, const calomu_data *data,
                                     const calomu_event *events, size_t n, double *out,
                                     double *members)
{
    size_t width = (size_t)model->info.members * sizeof *members;
    cm_prediction p;
    calomu_status s;
    memset(&p, 0, sizeof p);
    p.model = model;
    p.info = data ? calomu_data_describe(data) : NULL;
    p.event = events;
    p.n = n;
    p.each = n < CM_SPLIT_BELOW ? 1 : CM_LANES;
    s = cm_predict_source(c, &model->info.architecture, p.info, &p.source);
    if (s != CALOMU_OK || n == 0) return s;
    p.weight = cm_allocate(c, (size_t)model->info.members, sizeof *p.weight);
    p.out = cm_allocate(c, n, sizeof *p.out);
    if (members) p.members = cm_allocate(c, n, width);
    s = p.weight && p.out && (p.members || !members) ? CALOMU_OK : CALOMU_EMEMORY;
    if (s == CALOMU_OK) {
        cm_member_weights(model, p.weight);
        s = c->device ? cm_predict_on_device(c, &p) : cm_predict_all(c, &p);
    }
    if (s == CALOMU_OK) memcpy(out, p.out, n * sizeof *out);
    if (s == CALOMU_OK && members) memcpy(members, p.members, n * width);
    cm_release(c, p.members);
    cm_release(c, p.out);
    cm_release(c, p.weight);
    return s;
}

calomu_status calomu_predict(calomu *c, const calomu_model *model, const calomu_data *data,
                             const calomu_event *events, size_t n, double *out, double *members)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_predict_call(c, model, data, events, n, out, members));
}

/* ============================================================================================
   15 Errors of the resolution
   ============================================================================================

   Section 9 gives numbers for a sample of muons; here it is asked how much they would move with
   another sample of the same size: what two networks must differ by for it to mean something.

   Words.  Bins: of true energy, in which resolutions are taken (r->g).  Bins of the debiasing:
   finer ones, through whose means the line is fitted (r->fit).  A draw: one resampling of the muons
   of all bins.  Row: what one draw gives, 2 numbers for each bin, MI and worst.

   In this order: sorting; the bins of the debiasing; drawing; one resampling; all of them; memory
   and the interface; calomu_is_points. */

/* ---------------------------------------------------------------- errors by resampling

   The bootstrap: in each resampling the muons of every bin are drawn again with replacement, as
   many as they are, so that no bin falls empty; the debiasing is fitted again, by sd/sqrt(n) and to
   the same draw where it was fitted to these muons, to a draw of its own where it was fitted to
   others; and resolutions, MI and worst are computed anew.  Their standard deviations are the
   errors.  Known to 1/sqrt(2 o->errors) themselves, 5% with 200; too small in bins of few muons,
   whose quantiles are one or two of them.

   What is drawn is how often each muon counts: muons lie sorted, and so does every draw.  Nothing
   depends on the order of the rows, but for rounding where muons of the debiasing are in no bin.
   A resampling has its own stream, and they are added up in their order: the number of threads
   changes nothing.  Cost: 13 ns per muon and resampling at fixed points, up to 30 in bins.

   The method is B. Efron's (Ann. Statist. 7 (1979) 1).  Of n muons drawn n times about 37% (1/e)
   do not come at all and 26% come more than once. */

enum { CM_RESAMPLE_AT_ONCE = 32 };   /* resamplings kept until they are added up */

typedef struct cm_resample {
    const calomu_eval_options *o;
    const calomu_bin *bins;
    cm_groups g;                     /* in a bin by prediction, then by true energy */
    size_t *by_truth;                /* in a bin: its muons in the order of true energy */
    int points;
    int debiased, same;              /* 1: by a line that was fitted to these muons */
    cm_groups fit;                   /* bins of the debiasing; other muons, in a bin sorted */
    int32_t *fit_bin;                /* same: the bin of each muon of g, or -1 */
    double *shift;                   /* a prediction in each bin of the debiasing, near its mean */
    double *base;                    /* same: sums over muons in no bin of g: these are not drawn */
} cm_resample;

/* Memory of one thread. */
typedef struct cm_redraw {
    uint32_t *count;                 /* how often each muon of a bin was drawn */
    double *drawn;                   /* their values, sorted */
    calomu_bin *bin;
    double *sums;                    /* 3 for each bin of the debiasing, and 3 of the fit */
} cm_redraw;

/* A total order but for muons that are equal in both numbers, which are interchangeable: so the
   order of the rows in the caller's arrays does not matter. */
static int cm_before(const double *x, const double *tie, size_t a, size_t b)
{
    return x[a] < x[b] || (x[a] == x[b] && tie[a] < tie[b]);
}

/* cm_sort for the order of n values instead of them; order holds 0 to n - 1.

   Williams's heap sort in one loop: `start` counts down while the heap is built, then `end` while
   it is emptied; `moved` is held in a variable and written once, where it comes to rest. */
static void cm_order(const double *x, const double *tie, size_t *order, size_t n)
{
    size_t start = n / 2, end = n;
    while (end > 1) {
        size_t i, child, moved;
        if (start > 0) {
            i = --start;
        } else {
            moved = order[--end];
            order[end] = order[0];
            order[i = 0] = moved;
        }
        for (moved = order[i]; (child = 2 * i + 1) < end; i = child) {
            if (child + 1 < end && cm_before(x, tie, order[child], order[child + 1])) child++;
            if (!cm_before(x, tie, moved, order[child])) break;
            order[i] = order[child];
        }
        order[i] = moved;
    }
}

/* The muons of each bin into the order of their predictions, and by_truth.

   Muons of a bin then lie by rising prediction, and a draw, which only says how often each counts,
   gives sorted values by one walk along them (cm_redraw_values).  Sorting each of 200 draws instead
   would take log n times as long.  by_truth gives the same walk by true energy. */
static calomu_status cm_resample_sort(calomu *c, cm_resample *r)
{
    const size_t all = r->g.start[r->g.bins];
    double *truth = cm_allocate(c, all, sizeof *truth);
    double *prediction = cm_allocate(c, all, sizeof *prediction);
    size_t i;
    int b;
    r->by_truth = cm_allocate(c, all, sizeof *r->by_truth);
    for (b = 0; b < r->g.bins && truth && prediction && r->by_truth; b++) {
        const size_t at = r->g.start[b], n = r->g.start[b + 1] - at;
        size_t *order = r->by_truth + at;
        for (i = 0; i < n; i++) order[i] = i;
        cm_order(r->g.prediction + at, r->g.truth + at, order, n);
        for (i = 0; i < n; i++) {
            truth[at + i] = r->g.truth[at + order[i]];
            prediction[at + i] = r->g.prediction[at + order[i]];
        }
        for (i = 0; i < n; i++) order[i] = i;
        cm_order(truth + at, prediction + at, order, n);
    }
    /* these take the place of the arrays that they were made from; a NULL means failure */
    cm_release(c, r->g.truth);
    cm_release(c, r->g.prediction);
    r->g.truth = truth;
    r->g.prediction = prediction;
    return truth && prediction && r->by_truth ? CALOMU_OK : CALOMU_EMEMORY;
}

/* Adds a prediction that counts `times` to number, sum and sum of squares of its bin. */
static void cm_fit_add(double *sums, int bin, double from_shift, double times)
{
    sums[3 * bin] += times;
    sums[3 * bin + 1] += times * from_shift;
    sums[3 * bin + 2] += times * from_shift * from_shift;
}

/* Bins of the debiasing for the muons of g.

   The line was fitted to the muons whose resolution is taken, so one draw serves both: their errors
   go together.  Muons that are in a bin of the debiasing and in no bin of g are never drawn; their
   sums are made once, in `base`, with which each draw begins.  shift: any prediction of the bin, so
   that sums of squares are of small numbers. */
static calomu_status cm_resample_same(calomu *c, cm_resample *r, const double *truth,
                                      const double *prediction, size_t n)
{
    const cm_side side = r->points ? CM_POINTS : CM_HIGH_INSIDE;
    const size_t all = r->g.start[r->g.bins];
    size_t i;
    int b;
    r->fit_bin = cm_allocate(c, all, sizeof *r->fit_bin);
    if (!r->fit_bin) return CALOMU_EMEMORY;
    for (i = 0; i < all; i++) {
        b = cm_groups_find(&r->fit, CM_LOW_INSIDE, r->g.truth[i]);
        r->fit_bin[i] = b;
        if (b >= 0) r->shift[b] = r->g.prediction[i];
    }
    for (i = 0; i < n; i++) {
        b = cm_groups_find(&r->fit, CM_LOW_INSIDE, truth[i]);
        if (b < 0 || cm_groups_find(&r->g, side, truth[i]) >= 0) continue;
        cm_fit_add(r->base, b, prediction[i] - r->shift[b], 1);
    }
    return CALOMU_OK;
}

/* The muons of the debiasing, if there is one.

   Muons of another sample are grouped and sorted like those of g, and have draws of their own;
   shift is the median of the bin. */
static calomu_status cm_resample_fit(calomu *c, cm_resample *r, const double *truth,
                                     const double *prediction, size_t n)
{
    calomu_status s = cm_groups_bins(c, &r->fit, r->o, r->o->fit_bins);
    int b;
    if (s != CALOMU_OK) return s;
    r->shift = cm_allocate(c, (size_t)r->fit.bins, sizeof *r->shift);
    r->base = cm_allocate(c, (size_t)r->fit.bins * 3, sizeof *r->base);
    if (!r->shift || !r->base) return CALOMU_EMEMORY;
    if (r->same) return cm_resample_same(c, r, truth, prediction, n);
    s = cm_groups_fill(c, &r->fit, CM_LOW_INSIDE, truth, prediction, n);
    for (b = 0; b < r->fit.bins && s == CALOMU_OK; b++) {
        const size_t at = r->fit.start[b], inside = r->fit.start[b + 1] - at;
        cm_sort(r->fit.prediction + at, inside);
        if (inside) r->shift[b] = r->fit.prediction[at + inside / 2];
    }
    return s;
}

static void cm_resample_free(calomu *c, cm_resample *r)
{
    cm_groups_free(c, &r->g);
    cm_groups_free(c, &r->fit);
    cm_release(c, r->by_truth);
    cm_release(c, r->fit_bin);
    cm_release(c, r->shift);
    cm_release(c, r->base);
}

/* Draws n of n muons.  w*n/2^32 is below n, and even to n/2^32: 1e-4 for 430,000 muons.

   Not cm_below (section 8), which draws anew what would be uneven: the unevenness here is far below
   what 200 resamplings can see, and one call of calomu_random gives four muons instead of one.  n
   is below 2^32 (cm_resolution_errors_call), so the product fits 64 bits. */
static void cm_redraw_counts(uint64_t seed, uint64_t stream, uint64_t *counter, uint32_t *count,
                             size_t n)
{
    uint32_t word[4];
    size_t i;
    memset(count, 0, n * sizeof *count);
    for (i = 0; i < n; i++) {
        if (i % 4 == 0) calomu_random(seed, stream, (*counter)++, word);
        count[(uint64_t)word[i % 4] * n >> 32]++;
    }
}

/* The values that were drawn, in the order of x or in the given one.

   Five predictions 98, 99, 100, 101, 103 that were drawn 0, 2, 1, 0 and 2 times give 99, 99, 100,
   103, 103: sorted, without sorting.  t->drawn has room for the largest bin; the result lives until
   the next draw. */
static const double *cm_redraw_values(const cm_redraw *t, const double *x, const size_t *order,
                                      size_t n)
{
    double *to = t->drawn;
    size_t i;
    for (i = 0; i < n; i++) {
        const size_t k = order ? order[i] : i;
        uint32_t times;
        for (times = t->count[k]; times > 0; times--) *to++ = x[k];
    }
    return t->drawn;
}

/* Draws the muons of all bins: medians and widths of raw predictions, and sums of the fit.

   Raw predictions: the debiasing is a line with a positive slope, which keeps the order, so medians
   and widths can be taken before it is known, and be mapped afterwards (cm_resample_once). */
static void cm_redraw_bins(const cm_resample *r, cm_redraw *t, uint64_t stream)
{
    uint64_t counter = 0;
    size_t i;
    int b;
    memcpy(t->bin, r->bins, (size_t)r->g.bins * sizeof *t->bin);
    for (b = 0; b < r->g.bins; b++) {
        const size_t at = r->g.start[b], n = r->g.start[b + 1] - at;
        cm_redraw_counts(r->o->seed, stream, &counter, t->count, n);
        if (r->same)
            for (i = 0; i < n; i++) {
                const int bin = r->fit_bin[at + i];
                if (bin >= 0)
                    cm_fit_add(t->sums, bin, r->g.prediction[at + i] - r->shift[bin], t->count[i]);
            }
        if (n < 2) continue;
        cm_bin_resolution(&t->bin[b], cm_redraw_values(t, r->g.prediction + at, NULL, n), n);
        if (!r->points)
            t->bin[b].energy = cm_quantile(cm_redraw_values(t, r->g.truth + at, r->by_truth + at,
                                                            n), n, 0.5);
    }
}

/* The same for muons of a debiasing of their own, by another stream of random numbers. */
static void cm_redraw_fit(const cm_resample *r, cm_redraw *t, uint64_t stream)
{
    uint64_t counter = 0;
    size_t i;
    int b;
    for (b = 0; b < r->fit.bins; b++) {
        const size_t at = r->fit.start[b], n = r->fit.start[b + 1] - at;
        cm_redraw_counts(r->o->seed, stream, &counter, t->count, n);
        for (i = 0; i < n; i++)
            cm_fit_add(t->sums, b, r->fit.prediction[at + i] - r->shift[b], t->count[i]);
    }
}

/* The line through the means of a draw; 0 if it cannot be inverted.

   mean and variance are about `shift`; the mean's error is sd/sqrt(n).  1e-12 of the squares is
   what is left of a variance of 0 by rounding.  x, y and error use memory behind the sums (6
   numbers for each bin in all). */
static int cm_redraw_line(const cm_resample *r, const cm_redraw *t, calomu_line *line)
{
    double *x = t->sums + 3 * r->fit.bins, *y = x + r->fit.bins, *error = y + r->fit.bins;
    int b, used = 0;
    for (b = 0; b < r->fit.bins; b++) {
        const double n = t->sums[3 * b] > 1 ? t->sums[3 * b] : 1;
        const double mean = t->sums[3 * b + 1] / n, squares = t->sums[3 * b + 2] / n;
        const double variance = squares - mean * mean;
        /* a spread of nothing but rounding would have a boundless weight */
        if (n < 2 || !(variance > 1e-12 * squares)) continue;
        x[used] = r->fit.edge[b] / 2 + r->fit.edge[b + 1] / 2;
        y[used] = r->shift[b] + mean;
        error[used++] = sqrt(variance / n);
    }
    if (used < 2) return 0;
    cm_line_fit(x, y, error, used, line);
    return line->slope > 0 && isfinite(line->slope) && isfinite(line->intercept);
}

/* One resampling: calorimeter and combined of each bin, MI, worst, into a row; all absent where the
   line of this draw cannot be inverted.

   Streams: 2^32 + number here, 2^33 + number for a debiasing of its own; cm_bootstrap (section 9)
   uses those below 2^32.  One seed serves all three.  sum.used may be 0, and the MI a NaN, where
   every bin has fewer than 2 muons. */
static void cm_resample_once(const cm_resample *r, cm_redraw *t, int32_t number, double *row)
{
    const uint64_t mine = (uint64_t)1 << 32 | (uint64_t)number;    /* below: cm_bootstrap's */
    const double absent = (double)calomu_absent();
    calomu_line line = { 0, 1, 0, 0, 0, 0 };
    calomu_summary sum;
    int b;
    memset(&sum, 0, sizeof sum);
    if (r->debiased) memcpy(t->sums, r->base, (size_t)r->fit.bins * 3 * sizeof *t->sums);
    cm_redraw_bins(r, t, mine);
    if (r->debiased && !r->same) cm_redraw_fit(r, t, mine + ((uint64_t)1 << 32));
    for (b = 0; b < 2 * r->g.bins + 2; b++) row[b] = absent;
    if (r->debiased && !cm_redraw_line(r, t, &line)) return;
    for (b = 0; b < r->g.bins; b++) {
        calomu_bin *bin = &t->bin[b];
        if (bin->n < 2) continue;
        bin->median = calomu_debias(&line, bin->median);
        bin->c68 /= line.slope;
        cm_bin_combine(bin);
        cm_summary_add(&sum, bin);
        row[2 * b] = bin->calorimeter;
        row[2 * b + 1] = bin->combined;
    }
    row[2 * b] = sum.mi / sum.used;
    row[2 * b + 1] = sum.worst;
}

/* Standard deviations of all resamplings into error[width], from sums about the first of them.
   rows: room for CM_RESAMPLE_AT_ONCE and two more.

   32 resamplings are computed in parallel, then added by one thread in the order of their numbers,
   so the sums are the same for any number of threads; memory does not grow with their number.
   About the first of them: the sum of squares of 200 numbers near 30 with a spread of 0.1 would
   lose five digits.  An absent row makes a NaN of what it touches, and that an absent error. */
static void cm_resample_all(const cm_resample *r, cm_redraw *t, int threads, double *rows,
                            double *error)
{
    const int width = 2 * r->g.bins + 2;
    const int32_t all = r->o->errors;
    double *centre = rows + (size_t)width * CM_RESAMPLE_AT_ONCE, *sum = centre + width;
    int32_t first, n;
    int i, k;
    for (k = 0; k < width; k++) sum[k] = error[k] = 0;
    for (first = 0; first < all; first += n) {
        n = all - first < CM_RESAMPLE_AT_ONCE ? all - first : CM_RESAMPLE_AT_ONCE;
        CM_PARALLEL_FOR(threads)
        for (i = 0; i < n; i++)
            cm_resample_once(r, &t[cm_thread()], first + i, rows + (size_t)i * (size_t)width);
        if (first == 0) memcpy(centre, rows, (size_t)width * sizeof *centre);
        for (i = 0; i < n; i++) {
            for (k = 0; k < width; k++) {
                const double d = rows[(size_t)i * (size_t)width + (size_t)k] - centre[k];
                sum[k] += d;
                error[k] += d * d;
            }
        }
    }
    for (k = 0; k < width; k++) {
        const double variance = (error[k] - sum[k] / all * sum[k]) / (all - 1);
        error[k] = isfinite(variance) ? sqrt(fmax(0, variance)) : (double)calomu_absent();
    }
}

/* Memory for the threads, with room for `most` muons in a bin; a failure leaves it to
   cm_redraws_free. */
static calomu_status cm_redraws_new(calomu *c, const cm_resample *r, size_t most, cm_redraw *t,
                                    int threads)
{
    int k;
    for (k = 0; k < threads; k++) {
        t[k].count = cm_allocate(c, most, sizeof *t[k].count);
        t[k].drawn = cm_allocate(c, most, sizeof *t[k].drawn);
        t[k].bin = cm_allocate(c, (size_t)r->g.bins, sizeof *t[k].bin);
        t[k].sums = cm_allocate(c, (size_t)r->fit.bins * 6 + 1, sizeof *t[k].sums);
        if (!t[k].count || !t[k].drawn || !t[k].bin || !t[k].sums) return CALOMU_EMEMORY;
    }
    return CALOMU_OK;
}

/* t was zeroed: what was not made is NULL. */
static void cm_redraws_free(calomu *c, cm_redraw *t, int threads)
{
    int k;
    for (k = 0; k < threads; k++) {
        cm_release(c, t[k].count);
        cm_release(c, t[k].drawn);
        cm_release(c, t[k].bin);
        cm_release(c, t[k].sums);
    }
}

/* Muons of the largest bin; 0 for groups that were never filled. */
static size_t cm_groups_most(const cm_groups *g)
{
    size_t most = 0;
    int b;
    for (b = 0; g->start && b < g->bins; b++)
        if (g->start[b + 1] - g->start[b] > most) most = g->start[b + 1] - g->start[b];
    return most;
}

/* Memory, all resamplings, and the errors to their places.  No more threads than rows at once: t
   has that many places. */
static calomu_status cm_resample_errors(calomu *c, const cm_resample *r, calomu_bin *bins,
                                        calomu_summary *summary)
{
    const size_t width = 2 * (size_t)r->g.bins + 2, of_fit = cm_groups_most(&r->fit);
    const size_t of_bins = cm_groups_most(&r->g), most = of_bins > of_fit ? of_bins : of_fit;
    double *rows = cm_allocate(c, width * (CM_RESAMPLE_AT_ONCE + 3), sizeof *rows), *error;
    cm_redraw t[CM_RESAMPLE_AT_ONCE];
    int threads = c->threads < CM_RESAMPLE_AT_ONCE ? c->threads : CM_RESAMPLE_AT_ONCE, b;
    calomu_status s = rows ? CALOMU_OK : CALOMU_EMEMORY;
    memset(t, 0, sizeof t);
    /* starting threads takes as long as drawing some thousand muons */
    if (r->g.start[r->g.bins] < 1000) threads = 1;
    if (s == CALOMU_OK) s = cm_redraws_new(c, r, most, t, threads);
    if (s == CALOMU_OK) {
        error = rows + width * (CM_RESAMPLE_AT_ONCE + 2);
        cm_resample_all(r, t, threads, rows, error);
        for (b = 0; b < r->g.bins; b++) {
            bins[b].calorimeter_error = error[2 * b];
            bins[b].combined_error = error[2 * b + 1];
        }
        summary->mi_error = error[2 * b];
        summary->worst_error = error[2 * b + 1];
    }
    cm_redraws_free(c, t, threads);
    cm_release(c, rows);
    return s;
}

/* The muons into the bins that calomu_resolution found for them.

   Counts are compared, as the cheapest sign that bins and muons belong together: errors of other
   bins would be numbers that look right. */
static calomu_status cm_resample_groups(calomu *c, cm_resample *r, const double *truth,
                                        const double *prediction, size_t n, int n_bins)
{
    calomu_status s = cm_resolution_groups(c, r->o, r->points, NULL, truth, prediction, n, &r->g);
    int b;
    if (s != CALOMU_OK) return s;
    for (b = 0; b < r->g.bins && b < n_bins; b++)
        if (r->bins[b].n != r->g.start[b + 1] - r->g.start[b]) break;
    if (r->g.bins != n_bins || b < n_bins)
        return cm_fail(c, CALOMU_EUSAGE, "errors of resolutions: the bins are not those that"
                       " calomu_resolution made of these muons with these options");
    return cm_resample_sort(c, r);
}

/* same: by the pointers and the count, which is what the interface says.  o.errors = 0 asks for
   nothing, behind the checks.  r is zeroed first, so that cm_resample_free can always follow. */
static calomu_status cm_resolution_errors_call(calomu *c, const calomu_eval_options *options,
                                               const double *fit_truth,
                                               const double *fit_prediction, size_t n_fit,
                                               const double *truth, const double *prediction,
                                               size_t n, calomu_bin *bins, int n_bins,
                                               calomu_summary *summary)
{
    const calomu_eval_options o = options ? *options : calomu_eval_options_default();
    cm_resample r;
    calomu_status s = cm_eval_check(c, &o);
    memset(&r, 0, sizeof r);
    r.o = &o;
    r.bins = bins;
    r.points = summary->points;
    r.debiased = fit_truth != NULL;
    r.same = fit_truth == truth && fit_prediction == prediction && n_fit == n;
    if (s == CALOMU_OK && (n > UINT32_MAX || n_fit > UINT32_MAX))
        s = cm_fail(c, CALOMU_EUSAGE, "errors of resolutions: more than 2^32 - 1 muons");
    if (s == CALOMU_OK) s = cm_eval_rows(c, truth, prediction, n);
    if (s == CALOMU_OK && r.debiased) s = cm_eval_rows(c, fit_truth, fit_prediction, n_fit);
    if (s != CALOMU_OK || o.errors == 0) return s;
    s = cm_resample_groups(c, &r, truth, prediction, n, n_bins);
    if (s == CALOMU_OK && r.debiased) s = cm_resample_fit(c, &r, fit_truth, fit_prediction, n_fit);
    if (s == CALOMU_OK) s = cm_resample_errors(c, &r, bins, summary);
    cm_resample_free(c, &r);
    return s;
}

calomu_status calomu_resolution_errors(calomu *c, const calomu_eval_options *options,
                                       const double *fit_truth, const double *fit_prediction,
                                       size_t n_fit, const double *truth, const double *prediction,
                                       size_t n, calomu_bin *bins, int n_bins,
                                       calomu_summary *summary)
{
    return !cm_enter(c) ? CALOMU_EUSAGE
                        : cm_leave(c, cm_resolution_errors_call(c, options, fit_truth,
                                                                fit_prediction, n_fit, truth,
                                                                prediction, n, bins, n_bins,
                                                                summary));
}

/* Needs no memory, so that "no" never means "no memory": at most 64 energies are kept.

   64 energies, each with 10 muons or more: simulations at fixed energies are such, and a continuous
   spectrum has its 65th value within the first 65 muons or a few more. */
int calomu_is_points(calomu *c, const double *truth, size_t n)
{
    double energy[64];
    size_t count[64], i;
    int distinct = 0, k;
    (void)c;
    for (i = 0; i < n; i++) {
        for (k = 0; k < distinct && energy[k] != truth[i]; k++) continue;
        if (k == distinct) {
            /* A NaN equals nothing, and so is caught here. */
            if (distinct == 64 || !isfinite(truth[i])) return 0;
            energy[distinct] = truth[i];
            count[distinct++] = 0;
        }
        count[k]++;
    }
    for (k = 0; k < distinct; k++)
        if (count[k] < 10) return 0;
    return distinct > 0;
}


#ifdef CALOMU_PLAIN                  /* only plain layers, on one thread: all is here */

static const char *(*const cm_kernels_fault[4])(void) = { NULL };
static const cm_engine *cm_engine_of(const calomu *c) { return c ? &cm_plain_engine : NULL; }

/* Plans are of part III, and calomu_open refuses devices.

   Each of what follows is an answer to a question at the begin of part II: no plan, no device, so
   t->remote and c->place are always NULL.  What a correct program cannot reach fails by name rather
   than silently. */
static calomu_status cm_plans_make(calomu *c, cm_list *s)
{
    return c && s ? CALOMU_OK : CALOMU_EUSAGE;
}

static void cm_plans_free(calomu *c, cm_list *s) { (void)c, (void)s; }

static calomu_status cm_device_check(calomu *c) { return c->device ? CALOMU_EUSAGE : CALOMU_OK; }
static void cm_place_free(calomu *c, struct cm_place *p) { (void)c, (void)p; }

static calomu_status cm_remote_ready(calomu *c, calomu_trainer *t)
{
    return t ? cm_device_check(c) : CALOMU_EUSAGE;
}

static calomu_status cm_remote_fetch(calomu *c, const calomu_trainer *t)
{
    return t ? cm_device_check(c) : CALOMU_EUSAGE;
}

static calomu_status cm_remote_lost(calomu_trainer *t, calomu_status s) { return (void)t, s; }
static void cm_remote_put(const calomu_trainer *t) { (void)t; }
static void cm_remote_epoch(calomu_trainer *t, int reload) { (void)t, (void)reload; }
static size_t cm_remote_memory(const calomu_trainer *t) { return t->arena_size; }
static void cm_remote_free(calomu *c, struct cm_remote *r) { (void)c, (void)r; }

static calomu_status cm_predict_on_device(calomu *c, const cm_prediction *p)
{
    (void)p;
    return cm_fail(c, CALOMU_EUSAGE, "this build computes on no device");
}

static calomu_status cm_remote_update(calomu *c, calomu_trainer *t, double *loss)
{
    (void)t, (void)loss;
    return cm_predict_on_device(c, NULL);
}

static calomu_status cm_remote_validate(calomu *c, calomu_trainer *t, int n)
{
    (void)t, (void)n;
    return cm_predict_on_device(c, NULL);
}

#endif /* CALOMU_PLAIN */
#endif /* CM_ISA */

#ifndef CALOMU_PLAIN
#ifndef CM_ISA
/* ============================================================================================
   ============================================================================================

   PART III   SPEED

   From here on nothing is new: everything below gives the bits of part I, faster
   (tests/test_plain.c).  -DCALOMU_PLAIN builds without it.

   ============================================================================================
   ============================================================================================ */

/* ============================================================================================
   16 Tensors, arena, tape
   ============================================================================================

   An operation called on tensors computes at once and appends a record to the graph's tape;
   cm_backward runs the records in reverse.  Tensors live in one arena.  A piece of the arena that
   nobody needs any more goes to a list of free pieces: in inference when cm_drop says so, in
   training when the record that made a tensor has run backward, so that gradients take the place
   of activations.  A dry graph takes the same decisions without memory: its peak is the size that
   a real one needs.  */

/* The layout of a tensor.  L = 16 muons are computed side by side, one in each lane, so that the
   lane is the fastest index and a vector instruction does the same to 4, 8 or 16 muons:

       group k    [z] [x] [y] [c] [lane]              z = -lo .. nz + hi - 1, x and y likewise
       a row      y = 0 .. ny - 1 of one (z, x):      what a kernel of 17.2 works on
       a plane    all rows of one z:                  what a thread works on, in most operations
       a group    all planes of 16 muons

   Block 1 of the paper has 26 x 17 x 17 sites of 9 channels.  There a lane vector is 64 bytes of
   float, a row 17 x 9 of them, 9.8 kB, a plane 166 kB, a group 4.3 MB, and a batch of 256 muons,
   16 groups, 69 MB.  So a row lives in the first-level cache, a plane in the second, and a tensor
   in main memory.  So several operations are done to a row while it is in the cache: all but a
   convolution compute less than it takes to fetch it again.

   Why muons and not sites in lanes: no muon knows of another (but for the sums over muons, section
   1), so no lane ever needs its neighbour, rows need not be multiples of 16 sites, and the order
   of each sum over sites and channels is that of part I, muon by muon.  Lanes behind the last muon
   of a batch compute with zeros or what is there; their numbers are masked where muons are added
   (cm_muons_sum).

   Words: small memory is for records and tensors' heads, some hundred bytes each, and lasts until
   the graph is reset; the arena is for values, gradients and scratch, megabytes each, with
   lifetimes of their own. */
typedef struct cm_small {            /* small memory: records, tensors, saved numbers */
    struct cm_small *next;
    size_t used, size;
} cm_small;

enum { CM_GUARD = 128 };             /* bytes at either end of the arena, at least 16 reals */

#define CM_EACH_LANE(l) for (l = 0; l < CM_LANES; l++)

static const cm_kernels *cm_kernels_of(calomu_isa isa);      /* the one table, 17.2 */

static void cm_graph_fail(cm_graph *g, calomu_status s, const char *text)
{
    if (g->status != CALOMU_OK) return;
    g->status = s;
    if (text) cm_fail(g->c, s, "%s", text);
}

static const cm_operations cm_processor;                     /* the one table, 17.14 */

cm_graph *cm_graph_on(calomu *c, cm_unit *unit, void *memory, size_t size, int threads,
                      int training)
{
    cm_graph *g = cm_allocate(c, 1, sizeof *g);
    if (!g) return NULL;
    g->c = c;
    g->unit = unit;
    g->o = unit ? &unit->device->o : &cm_processor;
    g->memory = memory;
    g->size = memory ? size : SIZE_MAX / 2;
    g->used = CM_GUARD;
    g->threads = threads < 1 ? 1 : threads;
    g->training = training;
    g->k = cm_kernels_of(c->isa);
    g->wino = !c->direct;
    g->fused = !c->unfused;
    g->recompute = c->recompute;
    return g;
}

cm_graph *cm_graph_new(calomu *c, void *memory, size_t size, int threads, int training)
{
    return cm_graph_on(c, NULL, memory, size, threads, training);
}

void cm_graph_reset(cm_graph *g)
{
    while (g->small && g->small->next) {         /* keep one piece of small memory */
        cm_small *next = g->small->next;
        cm_release(g->c, g->small);
        g->small = next;
    }
    if (g->small) g->small->used = 0;
    g->used = CM_GUARD;
    g->n_pieces = 0;
    g->last = NULL;
    g->status = CALOMU_OK;
}

void cm_graph_free(cm_graph *g)
{
    if (!g) return;
    cm_graph_reset(g);
    cm_release(g->c, g->small);
    cm_release(g->c, g->piece);
    cm_release(g->c, g);
}

size_t cm_graph_peak(const cm_graph *g) { return g->peak + CM_GUARD; }
calomu_status cm_graph_status(const cm_graph *g) { return g->status; }

int cm_dry(const cm_graph *g) { return g->memory == NULL; }

/* Zeroed small memory until the next reset. */
static void *cm_small_take(cm_graph *g, size_t bytes)
{
    enum { CHUNK = 1 << 16 };
    size_t head = (sizeof(cm_small) + 15) / 16 * 16;
    unsigned char *p;
    bytes = (bytes + 15) / 16 * 16;
    if (!g->small || g->small->size - g->small->used < bytes) {
        size_t size = bytes > CHUNK ? bytes : CHUNK;
        cm_small *s = cm_allocate(g->c, 1, head + size);
        if (!s) {
            cm_graph_fail(g, CALOMU_EMEMORY, NULL);
            return NULL;
        }
        s->size = size;
        s->next = g->small;
        g->small = s;
    }
    p = (unsigned char *)g->small + head + g->small->used;
    g->small->used += bytes;
    return memset(p, 0, bytes);
}

/* Index of the smallest free piece of at least `bytes`, or -1. */
static int cm_piece_find(const cm_graph *g, size_t bytes)
{
    int i, best = -1;
    for (i = 0; i < g->n_pieces; i++)
        if (g->piece[i].free && g->piece[i].size >= bytes
            && (best < 0 || g->piece[i].size < g->piece[best].size))
            best = i;
    return best;
}

static int cm_piece_capacity(cm_graph *g)
{
    cm_arena_piece *more;
    int capacity = g->capacity ? 2 * g->capacity : 256;
    if (g->n_pieces + 1 < g->capacity) return 1;
    more = cm_allocate(g->c, (size_t)capacity, sizeof *more);
    if (!more) {
        cm_graph_fail(g, CALOMU_EMEMORY, NULL);
        return 0;
    }
    if (g->piece) memcpy(more, g->piece, (size_t)g->n_pieces * sizeof *more);
    cm_release(g->c, g->piece);
    g->piece = more;
    g->capacity = capacity;
    return 1;
}

/* Pieces lie behind each other in rising offsets.  Makes piece i exactly `bytes` long; what is
   left becomes a free piece behind it. */
static void cm_piece_cut(cm_graph *g, int i, size_t bytes)
{
    cm_arena_piece *b = g->piece + i;
    size_t rest = b->size - bytes;
    if (rest == 0) return;
    memmove(b + 2, b + 1, (size_t)(g->n_pieces - i - 1) * sizeof *b);
    g->n_pieces++;
    b[1].offset = b->offset + bytes;
    b[1].size = rest;
    b[1].free = 1;
    b->size = bytes;
}

/* A new piece at the end, or the free one there made longer; -1 if the arena is full. */
static int cm_piece_append(cm_graph *g, size_t bytes)
{
    cm_arena_piece *last = g->n_pieces > 0 ? g->piece + g->n_pieces - 1 : NULL;
    size_t have = last && last->free ? last->size : 0;
    if (g->size < g->used + CM_GUARD || bytes - have > g->size - g->used - CM_GUARD) return -1;
    if (!have) {
        last = g->piece + g->n_pieces++;
        last->offset = g->used;
    }
    last->size = bytes;
    g->used += bytes - have;
    if (g->used > g->peak) g->peak = g->used;
    return g->n_pieces - 1;
}

/* A piece of `count` reals, contents undefined; NULL on failure.  In a dry graph the result is an
   address that is never read: the arena's imagined start is 64. */
cm_real *cm_arena_take(cm_graph *g, size_t count)
{
    size_t bytes = count > 0 ? (count * sizeof(cm_real) + 63) / 64 * 64 : 64;
    int i;
    if (g->status != CALOMU_OK || !cm_piece_capacity(g)) return NULL;
    i = cm_piece_find(g, bytes);
    if (i >= 0) cm_piece_cut(g, i, bytes);
    else i = cm_piece_append(g, bytes);
    if (i < 0) {
        cm_graph_fail(g, CALOMU_EMEMORY, "the arena is too small for this network and batch");
        return NULL;
    }
    g->piece[i].free = 0;
    if (cm_dry(g)) return (cm_real *)(uintptr_t)(64 + g->piece[i].offset);
    return (cm_real *)(void *)(g->memory + g->piece[i].offset);
}

/* Frees the piece at x; free neighbours become one. */
void cm_give_back(cm_graph *g, const void *x)
{
    uintptr_t start = cm_dry(g) ? 64 : (uintptr_t)g->memory;
    size_t offset;
    int i = 0, k;
    if (!x || (uintptr_t)x < start || (uintptr_t)x - start >= g->used) return;
    offset = (size_t)((uintptr_t)x - start);
    while (i < g->n_pieces && g->piece[i].offset != offset) i++;
    if (i == g->n_pieces) return;
    g->piece[i].free = 1;
    for (k = i; k >= i - 1; k--) {               /* with the one behind, then the one before */
        cm_arena_piece *b = g->piece + k;
        if (k < 0 || k + 1 >= g->n_pieces || !b[0].free || !b[1].free) continue;
        b->size += b[1].size;
        memmove(b + 1, b + 2, (size_t)(g->n_pieces - k - 2) * sizeof *b);
        g->n_pieces--;
    }
}

/* Capacity for one more in a list of n packed weights. */
static int cm_pack_capacity(cm_graph *g, cm_pack_of **one, int n, int *capacity)
{
    cm_pack_of *more;
    if (n < *capacity) return 1;
    more = cm_allocate(g->c, (size_t)(2 * *capacity + 16), sizeof *more);
    if (!more) return 0;
    if (n) memcpy(more, *one, (size_t)n * sizeof *more);
    cm_release(g->c, *one);
    *one = more;
    *capacity = 2 * *capacity + 16;
    return 1;
}

cm_real *cm_cached(cm_graph *g, const void *key, size_t count, int *fresh)
{
    cm_packed_cache *k = g->packed_cache;
    cm_real *p;
    int i;
    *fresh = 1;
    if (!k || g->training) return cm_arena_take(g, count);
    *fresh = 0;
    if (cm_dry(g)) return (cm_real *)(uintptr_t)8;       /* never read, and not the arena's */
    for (i = 0; i < k->n; i++)
        if (k->one[i].w == key) return k->one[i].p;
    p = cm_pack_capacity(g, &k->one, k->n, &k->capacity)
      ? g->unit->device->allocate(g->unit, count * sizeof *p) : NULL;
    if (!p) {
        cm_graph_fail(g, CALOMU_EMEMORY, "no memory on the device for packed weights");
        return NULL;
    }
    *fresh = 1;
    k->one[k->n].w = key;
    k->one[k->n++].p = p;
    return p;
}

/* The same for numbers of another type, zeroed: `bytes` of them; goes back with cm_give_back. */
static void *cm_scratch(cm_graph *g, size_t bytes)
{
    cm_real *x = cm_arena_take(g, (bytes + sizeof *x - 1) / sizeof *x);
    if (x && !cm_dry(g)) memset(x, 0, bytes);
    return x;
}

/* Reals of a whole tensor. */
static size_t cm_total(const cm_tensor *t) { return t->group * (size_t)t->groups; }

static void cm_zero(cm_graph *g, void *at, size_t bytes)
{
    if (!cm_dry(g)) memset(at, 0, bytes);
}

/* Sites of one group with the halo, in their order, tell the halo from the interior. */
static void cm_zero_halo(cm_graph *g, const cm_tensor *t, cm_real *x)
{
    size_t site = (size_t)t->nc * CM_LANES, row = t->row_x * site;
    int units = t->groups * (t->nz + t->lo + t->hi), u;
    if (cm_dry(g) || t->lo + t->hi == 0) return;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        int planes = t->nz + t->lo + t->hi, z = u % planes - t->lo, i;
        cm_real *p = x + t->group * (size_t)(u / planes) + t->row_z * site * (size_t)(z + t->lo);
        if (z < 0 || z >= t->nz) {
            memset(p, 0, t->row_z * site * sizeof *p);
            continue;
        }
        for (i = -t->lo; i < t->nx + t->hi; i++, p += row) {
            if (i < 0 || i >= t->nx) {
                memset(p, 0, row * sizeof *p);
            } else {
                memset(p, 0, (size_t)t->lo * site * sizeof *p);
                memset(p + (size_t)(t->lo + t->ny) * site, 0, (size_t)t->hi * site * sizeof *p);
            }
        }
    }
}

/* A tensor of B muons without memory. */
static cm_tensor *cm_tensor_shape(cm_graph *g, int muons, const int size[3], int nc, int lo, int hi)
{
    cm_tensor *t = cm_small_take(g, sizeof *t);
    double reals;
    if (!t) return NULL;
    t->muons = muons;
    t->groups = (muons + CM_LANES - 1) / CM_LANES;
    t->nz = size[0];
    t->nx = size[1];
    t->ny = size[2];
    t->nc = nc;
    t->lo = lo;
    t->hi = hi;
    t->row_x = (size_t)(t->ny + lo + hi);
    t->row_z = t->row_x * (size_t)(t->nx + lo + hi);
    t->group = t->row_z * (size_t)(t->nz + lo + hi) * (size_t)nc * CM_LANES;
    t->origin = ((t->row_z + t->row_x + 1) * (size_t)lo) * (size_t)nc * CM_LANES;
    reals = (double)t->row_z * (t->nz + lo + hi) * nc * CM_LANES * t->groups;
    if (muons < 1 || !(reals / t->groups < 1 << 30) || !(reals < 1e15)) {
        cm_graph_fail(g, CALOMU_EUSAGE, "a tensor without muons, or too large for any machine");
        return NULL;
    }
    return t;
}

/* With undefined interior and zero halo. */
static cm_tensor *cm_tensor_new(cm_graph *g, int muons, const int size[3], int nc, int lo, int hi)
{
    cm_tensor *t = cm_tensor_shape(g, muons, size, nc, lo, hi);
    if (!t) return NULL;
    t->x = cm_arena_take(g, cm_total(t));
    if (!t->x) return NULL;
    g->o->zero_halo(g, t, t->x);
    return t;
}

/* Address of interior site (z, x, 0) of group k in values or gradient. */
static cm_real *cm_row(const cm_tensor *t, cm_real *base, int k, int z, int x)
{
    ptrdiff_t site = (ptrdiff_t)t->row_z * z + (ptrdiff_t)t->row_x * x;
    return base + t->group * (size_t)k + t->origin + site * t->nc * CM_LANES;
}

/* A tensor of the sites of x. */
static cm_tensor *cm_tensor_like(cm_graph *g, const cm_tensor *x, int nc, int lo, int hi)
{
    cm_tensor *y;
    int size[3];
    size[0] = x->nz;
    size[1] = x->nx;
    size[2] = x->ny;
    y = x->blocks ? cm_tensor_new(g, x->muons, size, nc, 0, 0)
                  : cm_tensor_new(g, x->muons, size, nc, lo, hi);
    if (y) y->blocks = x->blocks;
    return y;
}

static cm_record *cm_record_new(cm_graph *g, void (*backward)(cm_graph *, cm_record *),
                                cm_tensor *out, cm_tensor *a, cm_tensor *b)
{
    cm_record *r = cm_small_take(g, sizeof *r);
    if (!r) return NULL;
    r->backward = backward;
    r->out = out;
    r->in[0] = a;
    r->in[1] = b;
    r->before = g->last;
    g->last = r;
    out->needs = 1;
    out->producer = r;
    r->share[0] = a ? CM_SHARE_WHOLE : CM_SHARE_NONE;
    r->share[1] = b ? CM_SHARE_WHOLE : CM_SHARE_NONE;
    if (a) a->users++;
    if (b) b->users++;
    return r;
}

/* For a profile: this part of the operation has just ended. */
void cm_profile_end(const cm_graph *g, const cm_record *r, const char *part)
{
    cm_profile_mark mark;
    if (!g->c->profile_mark || cm_dry(g)) return;
    if (g->unit) (void)g->unit->device->wait(g->unit);
    mark.name = r->name;
    mark.part = part;
    mark.in = r->in[0];
    mark.out = r->out;
    mark.hits = r->hits;
    mark.kernel = r->kernel;
    mark.stride = r->stride;
    g->c->profile_mark(g->c->profile_user, &mark);
}

/* The end of an operation's forward pass. */
static cm_tensor *cm_done(const cm_graph *g, cm_record *r, const char *name)
{
    r->name = name;
    cm_profile_end(g, r, "forward");
    return r->out;
}

/* Makes t->dx ready for a backward step that writes every interior site: returns whether it must
   add to what is there. */
int cm_grad_begin(cm_graph *g, cm_tensor *t)
{
    int add = t->written;
    if (!t->dx) {
        t->dx = cm_arena_take(g, cm_total(t));
        if (!t->dx) return 0;
        if (t->edge) g->o->zero_halo(g, t, t->dx);
    }
    t->written = 1;
    return add;
}

cm_real *cm_gradient(cm_graph *g, cm_tensor *t)
{
    if (!cm_grad_begin(g, t) && t->dx) g->o->zero(g, t->dx, cm_total(t) * sizeof *t->dx);
    return t->dx;
}

/* A result that can be made again from the inputs of its operation may be forgotten until backward
   asks for it: always where that is cheap, a batch norm that one operation reads, and anything if
   `recompute` asks for less memory.

   This is recomputation (T. Chen et al., arXiv:1604.06174): memory for activations is bought with
   a second forward pass.  It gives the same bits because `again` is the same function on the same
   inputs, and because nothing that changes from one pass to the next is read: a batch norm's
   buffers are updated by norm_prepare, once, and `again` applies the transform that was saved
   then. */
int cm_cheap(const cm_tensor *t) { return t->producer && t->producer->cheap && t->users == 1; }

void cm_forget(cm_graph *g, cm_tensor *t)
{
    if (!g->training || !t->producer || !t->producer->again) return;
    if (!g->recompute && !cm_cheap(t)) return;
    cm_give_back(g, t->x);
    t->x = NULL;
}

void cm_remember(cm_graph *g, cm_tensor *t)
{
    int k;
    if (t->x || !t->producer || !t->producer->again || g->status != CALOMU_OK) return;
    for (k = 0; k < 4; k++)
        if (t->producer->in[k]) cm_remember(g, t->producer->in[k]);
    t->x = cm_arena_take(g, cm_total(t));
    if (!t->x) return;
    g->o->zero_halo(g, t, t->x);
    t->producer->again(g, t->producer);
    cm_profile_end(g, t->producer, "again");
    for (k = 0; k < 4; k++)
        if (t->producer->in[k] && cm_cheap(t->producer->in[k])) cm_forget(g, t->producer->in[k]);
}

/* t is not needed any more in the forward pass, but for deferred joins (17.12); in
   training it is forgotten if it can be made again or, forward_only, in any case. */
static void cm_drop(cm_graph *g, cm_tensor *t, int forward_only)
{
    if (!t) return;
    if (g->training && forward_only) {
        cm_give_back(g, t->x);
        t->x = NULL;
    } else if (g->training) cm_forget(g, t);
    else if (t->pending_readers > 0) t->dropped = 1;
    else cm_give_back(g, t->x);
}

/* Gradients that are not yet added

   A share of a gradient costs a pass over main memory where it is added and another where the sum
   is read.  So a share that follows row by row from what is there anyway is left to the operation
   that made the tensor, which adds it to the row that it has just read (17.4): the same numbers in
   the same order, in the cache.  The order is that in which shares arise, from the last record
   back, so an unadded one must not be followed by an added one.  The rules below decide this for
   each share of the whole tape before backward starts, whether a list (section 18) or single calls
   have recorded it; a plan of the list alone could not: it depends on groups and threads too. */

static int cm_takes_unadded(const cm_graph *g, const cm_tensor *t);      /* 17.4 */

/* The shares of t that are known are added where they arise, by its readers, in the same order. */
static void cm_unadded_none(cm_tensor *t)
{
    cm_unadded *u = &t->unadded;
    int k;
    for (k = 0; u->join && k < 4; k++)
        if (u->join->in[k] == t && u->join->share[k] == CM_SHARE_ROWS) u->join->added[k] = 1;
    if (u->join) u->join->out->unadded.readers--;
    if (u->mean) {
        u->mean->producer->added[0] = 1;
        u->mean->unadded.readers--;
    }
    for (; u->norms; u->norms = u->norms->next_norm) {
        u->norms->added[0] = 1;
        u->norms->out->unadded.readers--;
    }
    u->join = NULL;
    u->mean = NULL;
}

/* A join or a pooling: if it is the first, for it fills a row and adds to none. */
static int cm_rule_unadded_rows(const cm_graph *g, cm_record *r, cm_tensor *t, int first)
{
    if (!first || !cm_takes_unadded(g, t)) return 0;
    t->unadded.join = r;
    return 1;
}

/* A mean: right behind that of the join, to whose row it is added. */
static int cm_rule_unadded_mean(const cm_record *r, cm_tensor *t)
{
    if (!t->unadded.join || t->unadded.mean || t->unadded.norms) return 0;
    t->unadded.mean = r->out;
    return 1;
}

/* A batch norm: always, behind all others, as its second pass adds to the row in place; but not to
   the result of another one, which would compute it in both its passes.  What its own result has
   unadded is then computed in the row itself: that must be empty, this share the first. */
static int cm_rule_unadded_norm(const cm_graph *g, cm_record *r, cm_tensor *t, int first)
{
    cm_record **last = &t->unadded.norms;
    if (!first) cm_unadded_none(r->out);
    if (!cm_takes_unadded(g, t) || t->producer->share[0] == CM_SHARE_NORM) return 0;
    while (*last) last = &(*last)->next_norm;
    *last = r;
    r->next_norm = NULL;
    return 1;
}

/* Record r's share for its input k, which comes behind those of all later records.

   An example: the result x of block 0's join (26 x 17 x 17 x 9) is read by the norm head.1.path.0
   and, as its shortcut, by the join of block 1.  From the last record back the join comes first:
   its share is the first, so it is left (rule rows).  The norm's comes behind it and is left, too.
   When the join of block 0 runs backward, it computes for each row: dy of block 1's join without
   channel 0, then on top of it the norm's second pass, and writes the sum once.  Added where they
   arise, the first share would be written, read and written again with the second, and read by
   block 0: two writes and two reads of a tensor of 69 MB (256 muons).
   Had a convolution read x between the two, it would add its share to x->dx before block 0 runs, so
   the join's, which comes first, would have to be added first (cm_unadded_none); the norm's, behind
   both, could still be left. */
static void cm_unadded_share(const cm_graph *g, cm_record *r, int k)
{
    cm_tensor *t = r->in[k];
    cm_share_kind share = (cm_share_kind)r->share[k];
    int first, unadded = 0;
    if (share == CM_SHARE_NONE || !t->needs) return;
    first = !t->reached;
    t->reached = 1;
    if (share == CM_SHARE_ROWS) unadded = cm_rule_unadded_rows(g, r, t, first);
    if (share == CM_SHARE_MEAN) unadded = cm_rule_unadded_mean(r, t);
    if (share == CM_SHARE_NORM) unadded = cm_rule_unadded_norm(g, r, t, first);
    r->added[k] = !unadded;
    if (unadded) r->out->unadded.readers++;
    else cm_unadded_none(t);
    /* A convolution is the only reader of a batch norm's result: it has each row in the cache. */
    if (share == CM_SHARE_CONV && g->fused && !g->unit && t->users == 1 && t->producer)
        t->unadded.first_pass = t->producer->share[0] == CM_SHARE_NORM;
}

static void cm_backward_plan(const cm_graph *g)
{
    cm_record *r;
    int k;
    for (r = g->last; r; r = r->before) {
        if (r->out->written) r->out->reached = 1;            /* set by the caller */
        for (k = 0; r->out->reached && k < 4; k++) cm_unadded_share(g, r, k);
    }
}

/* What t's unadded shares are computed from is not needed for it any more. */
static void cm_unadded_end(cm_graph *g, cm_tensor *t);

static void cm_unadded_release(cm_graph *g, cm_tensor *from)
{
    if (--from->unadded.readers > 0) return;
    cm_unadded_end(g, from);
    cm_give_back(g, from->dx);
    from->dx = NULL;
}

static void cm_unadded_end(cm_graph *g, cm_tensor *t)
{
    cm_unadded *u = &t->unadded;
    for (; u->norms; u->norms = u->norms->next_norm) cm_unadded_release(g, u->norms->out);
    if (u->join) cm_unadded_release(g, u->join->out);
    if (u->mean) cm_unadded_release(g, u->mean);
    u->join = NULL;
    u->mean = NULL;
}

/* Whether the second pass of a batch norm is still to come, which reads what the first one read. */
static int cm_half_done(const cm_record *r)
{
    return r->share[0] == CM_SHARE_NORM && r->in[0]->needs && !r->added[0];
}

/* The memory of every result goes back to the arena once its record is through and no unadded share
   is computed from it; values and gradients of inputs (cm_input) stay.

   Before r->backward, r->out->dx and the unadded shares of r->out are together its whole gradient:
   all readers of r->out were recorded after r, and so have run.  After it the shares of r's inputs
   are in their dx or, by what the plan says, unadded.  r->out->x is then read by nobody: readers
   of it that need it in backward have run.  r->out->dx is read longer if other tensors have shares
   that are computed from it; `readers` counts these, and cm_unadded_release frees it with the
   last.

   A batch norm whose second pass is left to another (cm_half_done) ends its own unadded shares
   when that one is through, since both passes compute the rows of its gradient from them. */
void cm_backward(cm_graph *g)
{
    cm_record *r;
    cm_backward_plan(g);
    for (r = g->last; r && g->status == CALOMU_OK; r = r->before) {
        cm_tensor *t = r->out;
        if (!t->reached) continue;
        r->backward(g, r);
        cm_profile_end(g, r, r->kernel > 0 && !r->hits ? "to input" : "backward");
        if (!cm_half_done(r)) cm_unadded_end(g, t);
        cm_give_back(g, t->unadded.readers > 0 ? NULL : t->dx);
        cm_give_back(g, t->x);
        cm_give_back(g, t->sums);
        if (t->unadded.readers == 0) t->dx = NULL;
        t->x = NULL;
    }
    g->last = NULL;
}

cm_tensor *cm_input(cm_graph *g, int muons, int nz, int nx, int ny, int nc, int lo, int hi,
                    int needs)
{
    const int size[3] = { nz, nx, ny };
    cm_tensor *t = cm_tensor_new(g, muons, size, nc, lo, hi);
    if (!t) return NULL;
    g->o->zero(g, t->x, cm_total(t) * sizeof *t->x);
    t->needs = needs;
    return t;
}

/* 16.2 One muon in 16 lanes

   In inference a single muon would leave 15 lanes idle.  Its grid is cut into blocks of rows, one
   for each lane; operations on sites need not know.  Those that read neighbours first copy the
   rows that their results need from wherever they are (cm_reblock), zeros outside the grid.  Every
   result is the same sum in the same order as with muons in lanes, so the bits are the same. */

void cm_graph_split(cm_graph *g, int split)
{
    g->split = split && !g->training && !g->unit;
}

/* Rows of the whole grid. */
static int cm_nz(const cm_tensor *t) { return t->blocks ? t->blocks->nz : t->nz; }
static int cm_nx(const cm_tensor *t) { return t->blocks ? t->blocks->nx : t->nx; }

/* The thread of a loop over units: 0 where it has one, which may be any of another loop (14). */
static int cm_thread_in(const cm_graph *g) { return g->threads > 1 ? cm_thread() : 0; }

/* Threads for a muon in lanes, and one for work that takes no longer than to wake them: products of
   lane vectors, 8 a nanosecond. */
static int cm_team(const cm_graph *g, double products)
{
    return g->split && products < 30000 ? 1 : g->threads;
}

/* The same of an operation that reads the lane vectors of t once. */
static int cm_row_team(const cm_graph *g, const cm_tensor *t)
{
    return cm_team(g, 10 * (double)(t->group / CM_LANES));
}

/* A unit of work of operations on rows: a plane of a group or, of a muon in blocks, some sites of
   every row, the same in all operations, so that they stay in the cache of a thread. */
typedef struct cm_share {
    int k, z, end;                   /* planes z to end - 1 */
    int y, n;                        /* first site and sites of their rows */
} cm_share;

static int cm_shares(const cm_tensor *t, int threads)
{
    return t->blocks ? threads : t->groups * t->nz;
}

static cm_share cm_share_of(const cm_tensor *t, int u, int shares)
{
    cm_share o;
    o.k = t->blocks ? 0 : u / t->nz;
    o.z = t->blocks ? 0 : u % t->nz;
    o.end = t->blocks ? t->nz : o.z + 1;
    o.y = t->blocks ? t->ny * u / shares : 0;
    o.n = t->blocks ? t->ny * (u + 1) / shares - o.y : t->ny;
    return o;
}

/* The blocks with the least rows for each lane; whole: planes are not cut.

   Examples, along x across lanes of blocks of z x x rows, of the paper's grids:
       26 x 17 rows: 13 x 1 lanes of 2 x 17, that is 34 rows for a lane in place of 442
       14 x  9 rows: 14 x 1 lanes of 1 x 9
        5 x  3 rows:  5 x 3 lanes of 1 x 1
   Lanes that are left over, and rows of the last blocks behind the grid, compute what nobody
   reads.  Winograd's method cuts no planes (whole): its tiles are neighbours in x, and a tile
   across two lanes would have to be gathered row by row. */
static const cm_blocks *cm_blocks_new(cm_graph *g, int nz, int nx, int whole)
{
    cm_blocks *b = cm_small_take(g, sizeof *b);
    int z, x, best = INT_MAX;
    if (!b) return NULL;
    for (z = 1; z <= nz; z++)
        for (x = whole ? nx : 1; x <= nx; x++) {
            int along = (nz + z - 1) / z, across = (nx + x - 1) / x;
            if (along > CM_LANES || across > CM_LANES / along || z * x >= best) continue;
            best = z * x;
            b->z = z;
            b->x = x;
            b->along = along;
            b->across = across;
        }
    b->nz = nz;
    b->nx = nx;
    return b;
}

/* The trees of n numbers at once, in place: group k has its sums at sum + k*step; those of all are
   the first group's in the end.

   It is cm_tree_sum of section 1, level by level in place of group by group: at level 1 groups (0,
   1), (2, 3), ... are added, at level 2 the sums (0, 2), (4, 6), ..., the earlier one always on
   the left, and an odd last one passes unchanged.  Of 5 groups: (0 + 1), (2 + 3); ((0 + 1) + (2 +
   3)); that + 4. */
static void cm_trees(double *sum, int groups, size_t step, size_t n)
{
    int level, k;
    size_t i;
    for (level = 1; level < groups; level *= 2)
        for (k = 0; k + level < groups; k += 2 * level) {
            double *to = sum + (size_t)k * step;
            const double *from = to + (size_t)level * step;
            for (i = 0; i < n; i++) to[i] += from[i];
        }
}

/* ============================================================================================
   17 Operations
   ============================================================================================

   17.1 The one table of kernels

   A kernel works on a row: n neighbouring sites of C channels of L lanes.  It knows nothing of
   groups, halos or threads. */

/* UNROLL_LANES: clang looks for the lane of a vector by comparisons where it is no constant. */
#if defined(__GNUC__) && !defined(__clang__)
#define CM_UNROLL _Pragma("GCC unroll 32")
#define CM_UNROLL_LANES
#elif defined(__clang__)
#define CM_UNROLL _Pragma("unroll")
#define CM_UNROLL_LANES CM_UNROLL
#else
#define CM_UNROLL
#define CM_UNROLL_LANES
#endif

/* Each kernel is written once for all instruction sets, as a loop over vectors of CM_VECTOR lanes
   (4, 8 or 16 of float), and is called through the table cm_kernels, for a whole row at a time.

   Bits.  A lane is a muon, or a block of rows of one (16.2), and no kernel adds lanes to each other
   but lanesum, in the order of section 1; sparse knows no lanes, but one muon.  So the width of
   vectors decides nothing about a sum.  What can differ between instruction sets is how many sites
   and channels are in registers at once; those are different sums, and each of them still takes its
   terms in the order of part I. */
typedef struct cm_tap {              /* cells of a convolution kernel that are neighbours in y */
    ptrdiff_t x;                     /* reals from the first input of a row */
    size_t w;                        /* reals from the first packed weight */
} cm_tap;

#define CM_CONV_PARAMS const cm_real *restrict x, size_t xstep, const cm_tap *restrict tap, \
    int taps, int in, const cm_real *restrict w, const cm_real *restrict bias, \
    cm_real *restrict y, size_t ystep, int n, int add, int C
typedef void cm_conv_row_fn(CM_CONV_PARAMS);
#define CM_WGRAD_PARAMS const cm_real *restrict x, const ptrdiff_t *restrict xo, \
    const cm_real *restrict dy, const ptrdiff_t *restrict yo, int n, cm_real *restrict out, \
    int add, int A, int C
typedef void cm_wgrad_fn(CM_WGRAD_PARAMS);
#define CM_STATS_PARAMS const cm_real *restrict x, int n, int C, int swish, \
    double *restrict sum, double *restrict square
typedef void cm_stats_fn(CM_STATS_PARAMS);
#define CM_SUM_PARAMS const cm_real *restrict x, int n, int C, double *restrict sum
typedef void cm_sum_fn(CM_SUM_PARAMS);
#define CM_AFFINE_PARAMS const cm_real *x, cm_real *y, int n, int C, \
    const cm_real *restrict a, const cm_real *restrict b, int swish
typedef void cm_affine_fn(CM_AFFINE_PARAMS);
#define CM_NORM1_PARAMS const cm_real *restrict x, cm_real *restrict dy, int n, int C, \
    const cm_real *restrict a, const cm_real *restrict b, const cm_real *restrict mean, \
    int swish, double *restrict s0, double *restrict s1
typedef void cm_norm1_fn(CM_NORM1_PARAMS);
#define CM_NORM2_PARAMS const cm_real *restrict x, const cm_real *dv, const cm_real *from, \
    cm_real *dx, int n, int C, const cm_real *restrict a, const cm_real *restrict e, \
    const cm_real *restrict f, const cm_real *restrict live, int swish
typedef void cm_norm2_fn(CM_NORM2_PARAMS);
#define CM_POINT_PARAMS const cm_real *x, cm_real *y, int n, int what
typedef void cm_point_fn(CM_POINT_PARAMS);
#define CM_DPOINT_PARAMS const cm_real *restrict x, const cm_real *restrict y, \
    const cm_real *restrict dy, cm_real *restrict dx, int n, int what, int add
typedef void cm_dpoint_fn(CM_DPOINT_PARAMS);
#define CM_BOX_PARAMS const cm_real *restrict x, size_t xstep, const cm_tap *restrict tap, \
    int taps, cm_real *restrict y, size_t ystep, int n, int C, cm_real scale, int add
typedef void cm_box_fn(CM_BOX_PARAMS);
#define CM_JOIN_PARAMS const cm_real *restrict e, size_t estep, cm_real scale, \
    const cm_real *restrict shortcut, const cm_real *restrict path, \
    const cm_real *restrict gate, cm_real *restrict y, int n, int C
typedef void cm_join_fn(CM_JOIN_PARAMS);
#define CM_DJOIN_PARAMS const cm_real *restrict dy, const cm_real *restrict path, \
    const cm_real *restrict gate, cm_real *restrict dshortcut, cm_real *restrict dpath, int n, \
    int C, int lead, int add, double *restrict sum
typedef void cm_djoin_fn(CM_DJOIN_PARAMS);
#define CM_PART_PARAMS const cm_real *restrict dy, const cm_real *restrict gate, \
    cm_real *restrict y, int n, int C
typedef void cm_part_fn(CM_PART_PARAMS);
#define CM_SPREAD_PARAMS const cm_real *restrict v, cm_real *restrict y, int n, int C, int add
typedef void cm_spread_fn(CM_SPREAD_PARAMS);

/* Part of a sparse convolution: n hits of one muon and one plane of outputs (17.7). */
typedef struct cm_sparse_job {
    const calomu_hit *hit;
    size_t n;
    int nx, ny;                      /* cells of the calorimeter */
    int low;                         /* first layer under the kernel */
    int kernel, stride, pad;
    int wide, C;                     /* sites from one x of the plane to the next, channels */
} cm_sparse_job;

#define CM_SPARSE_PARAMS const cm_sparse_job *j, cm_real *restrict w, cm_real *restrict plane, \
    int forward
typedef void cm_sparse_fn(CM_SPARSE_PARAMS);
#define CM_LANESUM_PARAMS const cm_real *restrict a, int n, double *restrict out, size_t step
typedef void cm_lanesum_fn(CM_LANESUM_PARAMS);
#define CM_PERMUTE_PARAMS const cm_real *from, const int *lane, int n, cm_real *to
typedef void cm_permute_fn(CM_PERMUTE_PARAMS);
#define CM_WINO_IN_PARAMS const cm_real *const *d, cm_real *restrict v, size_t step, int n, \
    int pairs, int full
typedef void cm_wino_in_fn(CM_WINO_IN_PARAMS);
#define CM_WINO_OUT_PARAMS const cm_real *restrict m, size_t step, cm_real *const *y, int n, \
    int C, int rows, int full, int add, const cm_real *a, const cm_real *b, int swish
typedef void cm_wino_out_fn(CM_WINO_OUT_PARAMS);

struct cm_kernels {
    int max_conv, max_in, max_out;   /* channels per tile: convolution; weight gradient */
    cm_conv_row_fn *conv_row;
    cm_wgrad_fn *wgrad;
    cm_stats_fn *stats;
    cm_sum_fn *sum;
    cm_affine_fn *affine;
    cm_norm1_fn *norm1;
    cm_norm2_fn *norm2;
    cm_point_fn *point;
    cm_dpoint_fn *dpoint;
    cm_box_fn *box;
    cm_join_fn *join;
    cm_djoin_fn *djoin;
    cm_part_fn *part;
    cm_spread_fn *spread;
    cm_sparse_fn *sparse;
    cm_lanesum_fn *lanesum;
    cm_permute_fn *permute;
    cm_wino_in_fn *wino_in, *wino_dm;
    cm_wino_out_fn *wino_out;
};

/* Cells k = p, p + stride, ... of an axis, and how many cells of the p before are packed first. */
static inline int cm_class_cells(int kernel, int stride, int p)
{
    return kernel % stride == 0 ? kernel / stride : (kernel - p + stride - 1) / stride;
}

static inline int cm_class_first(int kernel, int stride, int p)
{
    return kernel / stride * p + (p < kernel % stride ? p : kernel % stride);
}

/* Visits all pairs (output, kernel cell) of every hit: forward adds e*w[cell] [C] to
   plane[output] [C], backward e*plane[output] to w[cell].  The outputs of one kx are neighbours,
   and so are their cells, packed by falling ky. */
CM_INLINE void cm_sparse_visit(const cm_sparse_job *j, cm_real *restrict w, cm_real *restrict plane,
                               int forward, const int kernel, const int stride, const int C,
                               const int fused)
{
    const unsigned nx = (unsigned)j->nx, ny = (unsigned)j->ny, pad = (unsigned)j->pad;
    const unsigned step = (unsigned)stride;
    unsigned row = 0, end = 0;       /* cells of the row of the calorimeter: [row, end) */
    size_t i;
    int c, m, q, kz = 0, px = 0, x = 0;
    for (i = 0; i < j->n; i++) {
        cm_real e = (cm_real)j->hit[i].energy;
        unsigned iy;
        int py, cells;
        if (j->hit[i].cell >= end) {             /* divisions are slow */
            unsigned column = j->hit[i].cell / ny, ix = column % nx + pad;
            kz = (int)(column / nx) - j->low;
            px = (int)(ix % step);
            x = (int)(ix / step);
            row = column * ny;
            end = row + ny;
        }
        iy = j->hit[i].cell - row + pad;
        py = (int)(iy % step);
        cells = cm_class_cells(kernel, stride, py);
        for (m = 0; m < cm_class_cells(kernel, stride, px); m++) {
            cm_real *a = w + ((kz * kernel + px + m * stride) * kernel
                              + cm_class_first(kernel, stride, py)) * C;
            cm_real *b = plane + ((x - m) * j->wide + (int)(iy / step) - cells + 1) * C;
            for (q = 0; q < cells; q++, a += C, b += C)
                if (forward)
                    for (c = 0; c < C; c++) b[c] = cm_fuse(e, a[c], b[c], fused);
                else
                    for (c = 0; c < C; c++) a[c] = cm_fuse(e, b[c], a[c], fused);
        }
    }
}

/* 17.2 Kernels

   This file includes itself here, once for each instruction set, and skips all but this part: the
   same bodies with vectors of the size of the registers, CM_TILE of which hold accumulators.
   Products that are added are fused by hand, so that all sets give the same bits. */

#define CM_CONCAT2(name, isa) cm_##name##_##isa
#define CM_CONCAT(name, isa) CM_CONCAT2(name, isa)
#define CM_KERNEL(name) CM_CONCAT(name, CM_ISA)
#endif /* CM_ISA */

#ifdef CM_ISA
#define cm_vec CM_KERNEL(vec)
#define cm_vec_at CM_KERNEL(vec_at)
#define cm_vfma CM_KERNEL(vfma)
#define cm_vmax CM_KERNEL(vmax)
#define cm_vmin CM_KERNEL(vmin)
#define cm_vsigmoid CM_KERNEL(vsigmoid)
#define cm_vswish CM_KERNEL(vswish)
#define cm_vdswish CM_KERNEL(vdswish)
#ifdef __GNUC__
typedef cm_real cm_vec __attribute__((vector_size(CM_VECTOR_BYTES)));
typedef cm_vec cm_vec_at __attribute__((aligned(sizeof(cm_real)), may_alias));   /* in memory */
#define CM_VECTOR (CM_VECTOR_BYTES / (int)sizeof(cm_real))
#define CM_LANE(v, l) (v)[l]
CM_INLINE cm_vec cm_vfma(cm_vec a, cm_vec b, cm_vec c)
{
    int l;
    CM_UNROLL_LANES
    for (l = 0; l < CM_VECTOR; l++) c[l] = cm_fuse(a[l], b[l], c[l], CM_FUSE);
    return c;
}
#else
typedef cm_real cm_vec, cm_vec_at;
#define CM_VECTOR 1
#define CM_LANE(v, l) (v)
CM_INLINE cm_vec cm_vfma(cm_vec a, cm_vec b, cm_vec c) { return cm_fuse(a, b, c, CM_FUSE); }
#endif
#define CM_EACH_VECTOR(h) for (h = 0; h < CM_LANES; h += CM_VECTOR)
#define CM_LOAD(p) ((cm_vec)*(const cm_vec_at *)(const void *)(p))
#define CM_STORE(p, v) (*(cm_vec_at *)(void *)(p) = (v))

/* Bounds, each a loop of its own: gcc makes one masked move of it.  NaN stays. */
CM_INLINE cm_vec cm_vmax(cm_vec v, cm_real least)
{
    int l;
    for (l = 0; l < CM_VECTOR; l++) CM_LANE(v, l) = CM_LANE(v, l) < least ? least : CM_LANE(v, l);
    return v;
}

CM_INLINE cm_vec cm_vmin(cm_vec v, cm_real most)
{
    int l;
    for (l = 0; l < CM_VECTOR; l++) CM_LANE(v, l) = CM_LANE(v, l) > most ? most : CM_LANE(v, l);
    return v;
}

/* Swish, and its derivative s + v s (1 - s), s = sigmoid(v) = 1/(1 + exp(-v)). */
CM_INLINE cm_vec cm_vsigmoid(cm_vec v)
{
    cm_real s[CM_VECTOR];            /* clang makes vectors of arrays, not of lanes in a loop */
    int l;
    CM_STORE(s, cm_vmin(cm_vmax(v, -CM_SIGMOID_MOST), CM_SIGMOID_MOST));
    for (l = 0; l < CM_VECTOR; l++) s[l] = cm_sigmoid_lane(s[l], CM_FUSE);
    return CM_LOAD(s);
}

CM_INLINE cm_vec cm_vswish(cm_vec v) { return v * cm_vsigmoid(v); }

CM_INLINE cm_vec cm_vdswish(cm_vec v)
{
    const cm_vec zero = { 0 };
    cm_vec s = cm_vsigmoid(v);
    return cm_vfma(v * s, zero + 1 - s, s);
}

#ifdef __GNUC__
#define CM_AHEAD(p) __builtin_prefetch((p))
#else
#define CM_AHEAD(p) ((void)0)
#endif

/* Row of a convolution, A neighbouring outputs of C channels in registers:
   y[s][c] = (bias ? bias[c] : add ? y[s][c] : 0)
             + sum over taps t, i < in:  x[s*xstep + t.x][i] * w[t.w][i][c]
   where `in` counts the inputs of all cells of a tap: they lie one behind the other in x and w.
   Where accumulators leave few registers, one weight at a time is held, else one input.

   One tap is a run of ky = 0 .. kernel - 1: neighbours in y are neighbours in memory, so that
   kernel x in inputs follow each other, in the order (ky, i) of part I's sum:

       x      s=0: [y=0: i=0 1 .. | y=1: i=0 1 .. | y=2: i=0 1 .. ]      each a vector of lanes
              s=1:                 [y=1: ...      | y=2:          | y=3: ...
       w           (0,0)[c..] (0,1)[c..] ...                             each a real, broadcast

   For each input of a tap A vectors of x and C weights are loaded, for A*C fused products.  With
   512-bit vectors, A = 3 and C = 9 that is 12 loads for 27 products, and 27 + 3 + 1 of 32 registers
   are in use; A = 1 would need 10 loads for 9.

   Bits: acc[s][c] begins with the bias and takes the terms in the order kz, kx, ky, i, as
   cm_conv_value does; it stays in a register to the end, so nothing is rounded but the fused
   products themselves.  Chunks of channels and tiles of sites are different sums, whose order does
   not depend on each other. */
CM_INLINE void CM_KERNEL(conv_tile)(const cm_real *restrict x, size_t xstep,
                                    const cm_tap *restrict tap, int taps, int in,
                                    const cm_real *restrict w, const cm_real *restrict bias,
                                    cm_real *restrict y, size_t ystep, int add, const int A,
                                    const int C)
{
    const cm_vec zero = { 0 };
    const int full = A > 1 && 5 * A * C > 4 * CM_TILE, early = full ? 0 : C, late = C - early;
    cm_vec acc[CM_TILE], v[4];
    int t, i, s, c;
    CM_UNROLL
    for (s = 0; s < A; s++)
        CM_UNROLL
        for (c = 0; c < C; c++)
            acc[s * C + c] = bias ? bias[c] - zero
                           : add ? CM_LOAD(y + (size_t)s * ystep + (size_t)(c * CM_LANES)) : zero;
    for (t = 0; t < taps; t++) {
        const cm_real *xt = x + tap[t].x, *wt = w + tap[t].w;
        for (i = 0; i < in; i++, xt += CM_LANES, wt += C) {
            CM_UNROLL
            for (s = 0; s < A; s++) {
                v[s] = CM_LOAD(xt + (size_t)s * xstep);
                CM_UNROLL
                for (c = 0; c < early; c++)
                    acc[s * C + c] = cm_vfma(v[s], wt[c] - zero, acc[s * C + c]);
            }
            CM_UNROLL
            for (c = 0; c < late; c++)
                CM_UNROLL
                for (s = 0; s < A; s++)
                    acc[s * C + c] = cm_vfma(v[s], wt[c] - zero, acc[s * C + c]);
        }
    }
    CM_UNROLL
    for (s = 0; s < A; s++)
        CM_UNROLL
        for (c = 0; c < C; c++)
            CM_STORE(y + (size_t)s * ystep + (size_t)(c * CM_LANES), acc[s * C + c]);
}

CM_INLINE void CM_KERNEL(conv_tiles)(CM_CONV_PARAMS, const int A, const int width)
{
    int h, s;
    (void)C;
    CM_EACH_VECTOR(h) {
        const cm_real *xh = x + h;
        cm_real *yh = y + h;
        for (s = n; s >= A; s -= A, xh += (size_t)A * xstep, yh += (size_t)A * ystep)
            CM_KERNEL(conv_tile)(xh, xstep, tap, taps, in, w, bias, yh, ystep, add, A, width);
        if (A > 2 && s == 2)
            CM_KERNEL(conv_tile)(xh, xstep, tap, taps, in, w, bias, yh, ystep, add, 2, width);
        else
            for (; A > 1 && s > 0; s--, xh += xstep, yh += ystep)
                CM_KERNEL(conv_tile)(xh, xstep, tap, taps, in, w, bias, yh, ystep, add, 1, width);
    }
}

#define CM_CONV_CASE(width, A) case width: \
    CM_KERNEL(conv_tiles)(x, xstep, tap, taps, in, w, bias, y, ystep, n, add, C, A, width); break;
static void CM_KERNEL(conv_row)(CM_CONV_PARAMS)
{
    switch (C) {
#if CM_TILE > 24
    CM_CONV_CASE(12, 2)
    CM_CONV_CASE(11, 2)
    CM_CONV_CASE(10, 2)
    CM_CONV_CASE(9, 3)
    CM_CONV_CASE(8, 3)
    CM_CONV_CASE(7, 3)
    CM_CONV_CASE(6, 4)
    CM_CONV_CASE(5, 4)
    CM_CONV_CASE(4, 4)
    CM_CONV_CASE(3, 4)
#elif CM_TILE > 8
    CM_CONV_CASE(6, 2)
    CM_CONV_CASE(5, 2)
    CM_CONV_CASE(4, 3)
    CM_CONV_CASE(3, 4)
#endif
    CM_CONV_CASE(2, 4)
    CM_CONV_CASE(1, 4)
    default: break;
    }
}

/* Weight gradient of A inputs x C outputs for one tap, over the n sites of a block:
   acc[a][c] = (add ? acc[a][c] : 0) + sum over sites s:  x[xo[s]][a] * dy[yo[s]][c], per lane

   A site costs A + C loads and A*C fused products: 10 and 25 of the largest tile, 6 and 9 of
   AVX2's, where registers are 16.  Sites come in blocks that fit the first cache, since each tile
   of channels passes over them again; between two blocks the accumulators are stored and loaded,
   which rounds nothing.  So each lane has the sum over all sites of one muon in the order of part
   I, in float; muons are added by lanesum and cm_trees. */
CM_INLINE void CM_KERNEL(wgrad_tile)(CM_WGRAD_PARAMS, const int ins, const int outs)
{
    const cm_vec zero = { 0 };
    cm_vec acc[CM_TILE];
    int s, a, c, h;
    (void)A;
    (void)C;
    CM_EACH_VECTOR(h) {
        CM_UNROLL
        for (a = 0; a < ins * outs; a++) acc[a] = add ? CM_LOAD(out + a * CM_LANES + h) : zero;
        for (s = 0; s < n; s++) {
            const cm_real *xs = x + xo[s] + h, *ys = dy + yo[s] + h;
            CM_UNROLL
            for (a = 0; a < ins; a++) {
                cm_vec v = CM_LOAD(xs + a * CM_LANES);
                CM_UNROLL
                for (c = 0; c < outs; c++)
                    acc[a * outs + c] = cm_vfma(v, CM_LOAD(ys + c * CM_LANES), acc[a * outs + c]);
            }
        }
        CM_UNROLL
        for (a = 0; a < ins * outs; a++) CM_STORE(out + a * CM_LANES + h, acc[a]);
    }
}

#define CM_WGRAD_CASE(ins, outs) case ins * 8 + outs: \
    CM_KERNEL(wgrad_tile)(x, xo, dy, yo, n, out, add, A, C, ins, outs); break;
static void CM_KERNEL(wgrad)(CM_WGRAD_PARAMS)
{
    switch (A * 8 + C) {
    CM_WGRAD_CASE(1, 1)
#if CM_TILE > 8
    CM_WGRAD_CASE(1, 2)
    CM_WGRAD_CASE(1, 3)
    CM_WGRAD_CASE(2, 1)
    CM_WGRAD_CASE(2, 2)
    CM_WGRAD_CASE(2, 3)
    CM_WGRAD_CASE(3, 1)
    CM_WGRAD_CASE(3, 2)
    CM_WGRAD_CASE(3, 3)
#endif
#if CM_TILE > 24
    CM_WGRAD_CASE(1, 4)
    CM_WGRAD_CASE(1, 5)
    CM_WGRAD_CASE(2, 4)
    CM_WGRAD_CASE(2, 5)
    CM_WGRAD_CASE(3, 4)
    CM_WGRAD_CASE(3, 5)
    CM_WGRAD_CASE(4, 1)
    CM_WGRAD_CASE(4, 2)
    CM_WGRAD_CASE(4, 3)
    CM_WGRAD_CASE(4, 4)
    CM_WGRAD_CASE(4, 5)
    CM_WGRAD_CASE(5, 1)
    CM_WGRAD_CASE(5, 2)
    CM_WGRAD_CASE(5, 3)
    CM_WGRAD_CASE(5, 4)
    CM_WGRAD_CASE(5, 5)
#endif
    default: break;
    }
}

/* Sums and sums of squares of a row, of its Swish if wanted, per channel and lane, added to s and q
   (C x L each). */
static void CM_KERNEL(stats)(CM_STATS_PARAMS)
{
    const cm_vec zero = { 0 };
    int s, c, h, l;
    for (c = 0; c < C; c++)
        CM_EACH_VECTOR(h) {
            cm_vec a = zero, b = zero;
            for (s = 0; s < n; s++) {
                cm_vec v = CM_LOAD(x + (s * C + c) * CM_LANES + h);
                CM_AHEAD(x + (s * C + c) * CM_LANES + h + n * C * CM_LANES);
                if (swish) v = cm_vswish(v);
                a = a + v;
                b = cm_vfma(v, v, b);
            }
            for (l = 0; l < CM_VECTOR; l++) {
                sum[c * CM_LANES + h + l] += (double)CM_LANE(a, l);
                square[c * CM_LANES + h + l] += (double)CM_LANE(b, l);
            }
        }
}

static void CM_KERNEL(sum)(CM_SUM_PARAMS)
{
    int s, c, l;
    for (c = 0; c < C; c++) {
        cm_real a[CM_LANES] = { 0 };
        for (s = 0; s < n; s++)
            CM_EACH_LANE(l) a[l] += x[(s * C + c) * CM_LANES + l];
        CM_EACH_LANE(l) sum[c * CM_LANES + l] += (double)a[l];
    }
}

/* y = a[c]*x + b[c], Swish before or behind it; y may be x. */
static void CM_KERNEL(affine)(CM_AFFINE_PARAMS)
{
    const cm_vec zero = { 0 };
    int s, c, h;
    for (c = 0; c < C; c++)
        CM_EACH_VECTOR(h) {
            cm_vec va = a[c] - zero, vb = b[c] - zero;
            for (s = 0; s < n; s++) {
                int i = (s * C + c) * CM_LANES + h;
                cm_vec v = CM_LOAD(x + i);
                CM_AHEAD(x + i + n * C * CM_LANES);
                if (swish == CM_SWISH_BEFORE) v = cm_vswish(v);
                v = cm_vfma(va, v, vb);
                if (swish == CM_SWISH_BEHIND) v = cm_vswish(v);
                CM_STORE(y + i, v);
            }
        }
}

/* First pass of batch norm backward: with v = a*x + b, dy becomes dv (in place, times the
   derivative of a Swish behind it), and the sums of dv and of dv*(x - mean) are added to s0 and s1;
   x stands for its Swish where that is before the batch norm.

   Two passes are needed because dx of any site depends on G0 and G1, which are sums over all sites
   of all muons.  v is computed again and not kept: a fused product in place of a read of 4 bytes
   from main memory.  Of Swish behind the norm the derivative is in dv already, so that the second
   pass does not need it. */
static void CM_KERNEL(norm1)(CM_NORM1_PARAMS)
{
    const cm_vec zero = { 0 };
    int s, c, h, l;
    for (c = 0; c < C; c++)
        CM_EACH_VECTOR(h) {
            cm_vec va = a[c] - zero, vb = b[c] - zero, m = mean[c] - zero, p = zero, q = zero;
            for (s = 0; s < n; s++) {
                cm_real *at = dy + (s * C + c) * CM_LANES + h;
                cm_vec v = CM_LOAD(x + (s * C + c) * CM_LANES + h), d = CM_LOAD(at);
                CM_AHEAD(x + (s * C + c) * CM_LANES + h + n * C * CM_LANES);
                CM_AHEAD(at + n * C * CM_LANES);
                if (swish == CM_SWISH_BEFORE) v = cm_vswish(v);
                if (swish == CM_SWISH_BEHIND) {
                    d = d * cm_vdswish(cm_vfma(va, v, vb));
                    CM_STORE(at, d);
                }
                p = p + d;
                q = cm_vfma(d, v - m, q);
            }
            for (l = 0; l < CM_VECTOR; l++) {
                s0[c * CM_LANES + h + l] += (double)CM_LANE(p, l);
                s1[c * CM_LANES + h + l] += (double)CM_LANE(q, l);
            }
        }
}

/* Second pass: dx = (from ? from : 0) + live*(a*dv + e*x + f), a, e, f per channel; dv or
   from may be dx.  With Swish before the batch norm: e times that, and then its derivative. */
static void CM_KERNEL(norm2)(CM_NORM2_PARAMS)
{
    const cm_vec zero = { 0 };
    int s, c, h;
    for (c = 0; c < C; c++)
        CM_EACH_VECTOR(h) {
            cm_vec va = a[c] - zero, ve = e[c] - zero, vf = f[c] - zero, on = CM_LOAD(live + h);
            for (s = 0; s < n; s++) {
                int i = (s * C + c) * CM_LANES + h;
                CM_AHEAD(x + i + n * C * CM_LANES);
                CM_AHEAD(dv + i + n * C * CM_LANES);
                cm_vec v = CM_LOAD(x + i), u = swish == CM_SWISH_BEFORE ? cm_vswish(v) : v;
                cm_vec d = cm_vfma(va, CM_LOAD(dv + i), cm_vfma(ve, u, vf));
                if (swish == CM_SWISH_BEFORE)
                    d = cm_vfma(on * d, cm_vdswish(v), from ? CM_LOAD(from + i) : zero);
                else
                    d = from ? cm_vfma(on, d, CM_LOAD(from + i)) : on * d;
                CM_STORE(dx + i, d);
            }
        }
}

/* Pointwise: what 0 Swish, 1 sigmoid; y may be x.  Backward dx (+)= dy * derivative; y is the
   result. */
static void CM_KERNEL(point)(CM_POINT_PARAMS)
{
    int i;
    for (i = 0; i < n * CM_LANES; i += CM_VECTOR) {
        cm_vec v = CM_LOAD(x + i), s = cm_vsigmoid(v);
        CM_STORE(y + i, what == 0 ? v * s : s);
    }
}

static void CM_KERNEL(dpoint)(CM_DPOINT_PARAMS)
{
    const cm_vec zero = { 0 };
    int i;
    for (i = 0; i < n * CM_LANES; i += CM_VECTOR) {
        cm_vec d = what == 0 ? cm_vdswish(CM_LOAD(x + i))
                             : CM_LOAD(y + i) * (zero + 1 - CM_LOAD(y + i));
        cm_vec to = add ? CM_LOAD(dx + i) : zero;
        CM_STORE(dx + i, cm_vfma(CM_LOAD(dy + i), d, to));
    }
}

/* Row of a sum over `taps` inputs: y[s][c] = scale * sum of x[s*xstep + tap.x][c]. */
static void CM_KERNEL(box)(CM_BOX_PARAMS)
{
    const cm_vec zero = { 0 };
    cm_vec vs = scale - zero;
    int s, i, t;
    for (s = 0; s < n; s++, x += xstep, y += ystep)
        for (i = 0; i < C * CM_LANES; i += CM_VECTOR) {
            cm_vec a = zero;
            for (t = 0; t < taps; t++) a = a + CM_LOAD(x + tap[t].x + i);
            a = add ? cm_vfma(vs, a, CM_LOAD(y + i)) : vs * a;
            CM_STORE(y + i, a);
        }
}

/* Row of cm_join: y[0] = scale*e[0], y[1 + c] = gate[c]*path[c] + shortcut[c]; estep: reals from
   one site of e to the next; e NULL: no such channel. */
static void CM_KERNEL(join)(CM_JOIN_PARAMS)
{
    int s, c, l;
    for (s = 0; s < n; s++) {
        if (e) {
            CM_EACH_LANE(l) y[l] = scale * e[l];
            e += estep;
            y += CM_LANES;
        }
        for (c = 0; c < C * CM_LANES; c += CM_LANES)
            CM_EACH_LANE(l) y[c + l] = cm_fuse(gate[c + l], path[c + l], shortcut[c + l], CM_FUSE);
        y += C * CM_LANES;
        path += C * CM_LANES;
        shortcut += C * CM_LANES;
    }
}

/* Backward: dshortcut (+)= dy, dpath (+)= gate*dy, each unless it is NULL, and path*dy is added to
   sum.  add: bit 0 for the shortcut, bit 1 for the path; lead: channels of dy before these, 1 or 0
   (of cm_add_scaled). */
static void CM_KERNEL(djoin)(CM_DJOIN_PARAMS)
{
    const cm_vec zero = { 0 };
    int s, c, h, l;
    for (c = 0; c < C; c++)
        CM_EACH_VECTOR(h) {
            cm_vec w = CM_LOAD(gate + c * CM_LANES + h), a = zero;
            for (s = 0; s < n; s++) {
                int i = (s * C + c) * CM_LANES + h, j = i + (s + 1) * lead * CM_LANES;
                cm_vec d = CM_LOAD(dy + j);
                CM_AHEAD(dy + j + n * (C + lead) * CM_LANES);
                CM_AHEAD(path + i + n * C * CM_LANES);
                a = cm_vfma(CM_LOAD(path + i), d, a);
                if (dpath) CM_STORE(dpath + i, add & 2 ? cm_vfma(w, d, CM_LOAD(dpath + i)) : w * d);
                if (dshortcut) CM_STORE(dshortcut + i, add & 1 ? CM_LOAD(dshortcut + i) + d : d);
            }
            for (l = 0; l < CM_VECTOR; l++) sum[c * CM_LANES + h + l] += (double)CM_LANE(a, l);
        }
}

/* One part alone: y = gate*dy, or dy if gate is NULL. */
static void CM_KERNEL(part)(CM_PART_PARAMS)
{
    int s, i;
    for (s = 0; s < n; s++, y += C * CM_LANES) {
        dy += CM_LANES;
        for (i = 0; i < C * CM_LANES; i += CM_VECTOR) {
            cm_vec d = CM_LOAD(dy + i);
            if (gate) d = d * CM_LOAD(gate + i);
            CM_STORE(y + i, d);
        }
        dy += C * CM_LANES;
    }
}

/* y[s][c] (+)= v[c]: adds one vector per channel to a row. */
static void CM_KERNEL(spread)(CM_SPREAD_PARAMS)
{
    int s, c, l;
    for (s = 0; s < n; s++)
        for (c = 0; c < C * CM_LANES; c += CM_LANES, y += CM_LANES)
            CM_EACH_LANE(l) y[l] = add ? y[l] + v[c + l] : v[c + l];
}

static void CM_KERNEL(sparse)(CM_SPARSE_PARAMS)
{
    if (j->kernel == 4 && j->stride == 2 && j->C == 8) {     /* the paper's first convolution */
        if (forward) cm_sparse_visit(j, w, plane, 1, 4, 2, 8, CM_FUSE);
        else cm_sparse_visit(j, w, plane, 0, 4, 2, 8, CM_FUSE);
    } else if (j->kernel == 2 && j->stride == 2 && j->C == 1 && forward) {   /* its sums */
        cm_sparse_visit(j, w, plane, 1, 2, 2, 1, CM_FUSE);
    } else {
        cm_sparse_visit(j, w, plane, forward, j->kernel, j->stride, j->C, CM_FUSE);
    }
}

/* Sums of n lane vectors: out[i*step] = sum of a[i]. */
static void CM_KERNEL(lanesum)(CM_LANESUM_PARAMS)
{
    int i, l;
    for (i = 0; i < n; i++, a += CM_LANES, out += step) {
        double s[CM_LANES];
        CM_EACH_LANE(l) s[l] = (double)a[l];
        *out = cm_lanes_sum(s);
    }
}

/* Lane l of each of n vectors becomes lane[l] of the same, or 0 where that is negative: any, by an
   instruction of gcc's where a vector has all lanes, */
static void CM_KERNEL(shuffle)(CM_PERMUTE_PARAMS)
{
    int s, l;
#if defined(__GNUC__) && !defined(__clang__)
    if (CM_VECTOR == CM_LANES) {
        const cm_vec zero = { 0 };
        __typeof__(zero < zero) at;
        for (l = 0; l < CM_VECTOR; l++) at[l] = lane[l] < 0 ? CM_VECTOR : lane[l];
        for (s = 0; s < n * CM_LANES; s += CM_LANES)
            CM_STORE(to + s, __builtin_shuffle(CM_LOAD(from + s), zero, at));
        return;
    }
#endif
    for (s = 0; s < n * CM_LANES; s += CM_LANES)
        CM_EACH_LANE(l) to[s + l] = lane[l] < 0 ? 0 : from[s + lane[l]];
}

/* or all as many lanes away, which are read shifted. */
static void CM_KERNEL(permute)(CM_PERMUTE_PARAMS)
{
    const cm_vec zero = { 0 };
    cm_real on[CM_LANES];
    int s, h, l, shift = CM_LANES, even = 1;
    CM_EACH_LANE(l) {
        on[l] = lane[l] >= 0 ? 1 : 0;
        if (lane[l] >= 0 && shift == CM_LANES) shift = lane[l] - l;
        if (lane[l] >= 0 && shift != lane[l] - l) even = 0;
    }
    if (!even) {
        CM_KERNEL(shuffle)(from, lane, n, to);
        return;
    }
    if (shift == CM_LANES) shift = 0;            /* all are 0 */
    CM_EACH_VECTOR(h) {
        cm_vec m = CM_LOAD(on + h);
        for (s = h; s < n * CM_LANES; s += CM_LANES) {
            cm_vec a = CM_LOAD(from + s + shift), b = zero;
            for (l = 0; l < CM_VECTOR; l++)
                CM_LANE(b, l) = CM_LANE(m, l) != 0 ? CM_LANE(a, l) : CM_LANE(b, l);
            CM_STORE(to + s, b);
        }
    }
}

/* Winograd's transforms (17.6) of rows of n lane vectors, results `step` reals apart, of tiles of
   `full` rows, 6 or 4.  Inputs: full + 2 rows d to v[f] = (B' d)[f], for f in pairs: bit i for f =
   2i and 2i + 1.

   All sites and channels of a row are alike here: the transform takes its terms from the 8 (or 6)
   rows of a tile, at the same site and channel.  Points come in pairs p and -p, whose even and odd
   parts p and q are computed once: 8 loads, 8 stores and 24 operations of a vector for 6 rows of
   outputs.  Each v is then used in 9 products for every channel of the result.

   Bits: cm_wino_inputs, cm_wino_slopes and cm_wino_outputs of 5.8, with the same fused products; a
   pair that is left out (pairs) belongs to another unit of work. */
CM_INLINE void CM_KERNEL(wino_in6)(const cm_real *const *d, cm_real *restrict v, size_t step,
                                   int n, int pairs)
{
    const cm_vec zero = { 0 }, a = zero + 21 / (cm_real)4, b = zero - 17 / (cm_real)4;
    const cm_vec c = zero - 5 / (cm_real)4, e = zero - 5, half = zero + 1 / (cm_real)2;
    const cm_vec quarter = zero + 1 / (cm_real)4, two = zero + 2, four = zero + 4;
    int i;
    for (i = 0; i < n * CM_LANES; i += CM_VECTOR, v += CM_VECTOR) {
        cm_vec r1 = CM_LOAD(d[1] + i), r2 = CM_LOAD(d[2] + i), r3 = CM_LOAD(d[3] + i);
        cm_vec r4 = CM_LOAD(d[4] + i), r5 = CM_LOAD(d[5] + i), r6 = CM_LOAD(d[6] + i), p, q;
        if (pairs & 1) {
            CM_STORE(v, cm_vfma(a, r3 - r5, CM_LOAD(d[7] + i) - r1));
            CM_STORE(v + step, cm_vfma(a, r4 - r2, CM_LOAD(d[0] + i) - r6));
        }
        if (pairs & 2) {
            p = cm_vfma(b, r4, r6 + r2);
            q = cm_vfma(b, r3, r5 + r1);
            CM_STORE(v + 2 * step, p + q);
            CM_STORE(v + 3 * step, p - q);
        }
        if (pairs & 4) {
            p = cm_vfma(c, r4, cm_vfma(quarter, r2, r6));
            q = cm_vfma(c, r3, cm_vfma(quarter, r1, r5));
            CM_STORE(v + 4 * step, cm_vfma(two, q, p));
            CM_STORE(v + 5 * step, cm_vfma(-two, q, p));
        }
        if (pairs & 8) {
            p = cm_vfma(e, r4, cm_vfma(four, r2, r6));
            q = cm_vfma(e, r3, cm_vfma(four, r1, r5));
            CM_STORE(v + 6 * step, cm_vfma(half, q, p));
            CM_STORE(v + 7 * step, cm_vfma(-half, q, p));
        }
    }
}

CM_INLINE void CM_KERNEL(wino_in4)(const cm_real *const *d, cm_real *restrict v, size_t step,
                                   int n, int pairs)
{
    const cm_vec zero = { 0 }, a = zero - 5 / (cm_real)4, b = zero + 3 / (cm_real)4;
    const cm_vec c = zero + 15 / (cm_real)4, quarter = zero + 1 / (cm_real)4, four = zero + 4;
    int i;
    for (i = 0; i < n * CM_LANES; i += CM_VECTOR, v += CM_VECTOR) {
        cm_vec r1 = CM_LOAD(d[1] + i), r2 = CM_LOAD(d[2] + i), r3 = CM_LOAD(d[3] + i);
        cm_vec r4 = CM_LOAD(d[4] + i), p, q;
        if (pairs & 1) {
            CM_STORE(v, cm_vfma(four, r1, cm_vfma(zero - 5, r3, CM_LOAD(d[5] + i))));
            CM_STORE(v + step, cm_vfma(quarter, r4, cm_vfma(a, r2, CM_LOAD(d[0] + i))));
        }
        if (pairs & 2) {
            p = b * cm_vfma(-four, r2, r4);
            q = b * cm_vfma(-four, r1, r3);
            CM_STORE(v + 2 * step, p + q);
            CM_STORE(v + 3 * step, p - q);
        }
        if (pairs & 4) {
            p = c * (r4 - r2);
            q = (c + c) * (r3 - r1);
            CM_STORE(v + 4 * step, p + q);
            CM_STORE(v + 5 * step, p - q);
        }
    }
}

static void CM_KERNEL(wino_in)(CM_WINO_IN_PARAMS)
{
    if (full == 6) CM_KERNEL(wino_in6)(d, v, step, n, pairs);
    else CM_KERNEL(wino_in4)(d, v, step, n, pairs);
}

/* Gradients of outputs: six rows d, of 4 with zeros behind, and once more the last of the `full`,
   to dm[f] = (A d)[f], at v. */
static void CM_KERNEL(wino_dm)(CM_WINO_IN_PARAMS)
{
    const cm_vec zero = { 0 }, one = zero + 1;
    int i, j;
    for (i = 0; i < n * CM_LANES; i += CM_VECTOR, v += CM_VECTOR) {
        cm_vec r[6], p, q;
        for (j = 0; j < 6; j++) r[j] = CM_LOAD(d[j] + i);
        if (pairs & 1) {
            CM_STORE(v, CM_LOAD(d[6] + i));
            CM_STORE(v + step, r[0]);
        }
        for (j = 1; j < (full + 2) / 2; j++) {
            const cm_vec k = j == 1 ? one : j == 2 ? one + one : one / 2, kk = k * k;
            if (!(pairs >> j & 1)) continue;
            p = cm_vfma(kk * kk, r[4], cm_vfma(kk, r[2], r[0]));
            q = k * cm_vfma(kk * kk, r[5], cm_vfma(kk, r[3], r[1]));
            CM_STORE(v + (size_t)(2 * j) * step, p + q);
            CM_STORE(v + (size_t)(2 * j + 1) * step, p - q);
        }
    }
}

/* Outputs of n sites: m[f], `step` reals apart, to the first `rows` of the `full` rows y = A' m
   (m[0] is read for the last of these alone), added to what is there if `add`; with a, b: a[c]*y +
   b[c], Swish before or behind it. */
static void CM_KERNEL(wino_out)(CM_WINO_OUT_PARAMS)
{
    const cm_vec zero = { 0 };
    int i, j, c = 0;
    for (i = 0; i < n * C * CM_LANES; i += CM_VECTOR, m += CM_VECTOR) {
        cm_vec m2 = CM_LOAD(m + 2 * step), m3 = CM_LOAD(m + 3 * step), p1 = m2 + m3, q1 = m2 - m3;
        cm_vec m4 = CM_LOAD(m + 4 * step), m5 = CM_LOAD(m + 5 * step), p2 = m4 + m5, q2 = m4 - m5;
        cm_vec p3 = zero, q3 = zero, t[6];
        if (full == 6) {
            cm_vec m6 = CM_LOAD(m + 6 * step), m7 = CM_LOAD(m + 7 * step);
            p3 = m6 + m7;
            q3 = m6 - m7;
        }
        t[0] = CM_LOAD(m + step) + (p1 + p2 + p3);
        t[1] = cm_vfma(zero + (cm_real)0.5, q3, cm_vfma(zero + 2, q2, q1));
        t[2] = cm_vfma(zero + (cm_real)0.25, p3, cm_vfma(zero + 4, p2, p1));
        t[3] = cm_vfma(zero + (cm_real)0.125, q3, cm_vfma(zero + 8, q2, q1));
        t[4] = cm_vfma(zero + (cm_real)0.0625, p3, cm_vfma(zero + 16, p2, p1));
        t[5] = cm_vfma(zero + (cm_real)0.03125, q3, cm_vfma(zero + 32, q2, q1));
        if (rows == 6) t[5] += CM_LOAD(m);
        else if (rows == full) t[3] += CM_LOAD(m);
        CM_UNROLL
        for (j = 0; j < 6; j++) {
            if (j < rows) {
                if (add) t[j] = t[j] + CM_LOAD(y[j] + i);
                if (swish == CM_SWISH_BEFORE) t[j] = cm_vswish(t[j]);
                if (a) t[j] = cm_vfma(a[c] - zero, t[j], b[c] - zero);
                if (swish == CM_SWISH_BEHIND) t[j] = cm_vswish(t[j]);
                CM_STORE(y[j] + i, t[j]);
            }
        }
        if ((i + CM_VECTOR) % CM_LANES == 0) c = c + 1 < C ? c + 1 : 0;
    }
}

/* What the compiler has made of this copy, in vectors and in doubles.  The operands come from
   volatile objects, or it computes the probe itself, by other rules than its code has (gcc 12 does
   not fuse there, clang 14 does where the machine cannot).  (1 + e)^2 - (1 + 2e) is 0 rounded twice
   and e^2 fused; 97 x 172961 is 2^24 + 1, so the last sum is above half a step, if only in the
   60th bit. */
static const char *CM_KERNEL(fault)(void)
{
    const int single = sizeof(cm_real) == sizeof(float);
    volatile cm_real one = 1, e = single ? (cm_real)0x1p-12 : (cm_real)0x1p-27;
    volatile cm_real least = single ? (cm_real)FLT_MIN : (cm_real)DBL_MIN;
    volatile double wide = 1, step = 0x1p-27;
    double x = wide + step, y = wide + 2 * step;
    cm_real a[CM_LANES], b[CM_LANES], c[CM_LANES], s[CM_LANES], f[CM_LANES];
    cm_real most = one + (single ? (cm_real)FLT_EPSILON : (cm_real)DBL_EPSILON);
    int l, fuses = x * x - y != 0, flushes = 0, exact = 1;
    CM_EACH_LANE(l) {
        a[l] = one + e;
        c[l] = -one - 2 * e;
        b[l] = one / 2;
        s[l] = least;
    }
    CM_EACH_VECTOR(l) {
        CM_STORE(f + l, CM_LOAD(a + l) * CM_LOAD(a + l) + CM_LOAD(c + l));
        CM_STORE(s + l, CM_LOAD(s + l) * CM_LOAD(b + l));
    }
    CM_EACH_LANE(l) {
        fuses |= f[l] != 0;
        flushes |= !(s[l] > 0);
        a[l] = one * (single ? 97 : 321);
        b[l] = one * (single ? 172961 * (cm_real)0x1p-24 : (cm_real)(28059810762433 * 0x1p-53));
        c[l] = one * (single ? (cm_real)0x1p-60 : (cm_real)0x1p-120);
    }
    CM_EACH_VECTOR(l) CM_STORE(f + l, cm_vfma(CM_LOAD(a + l), CM_LOAD(b + l), CM_LOAD(c + l)));
    CM_EACH_LANE(l) exact &= f[l] == most;
    if (fuses) return "this build fuses products on its own: compile calomu.c with "
                      "-ffp-contract=off";
    if (flushes) return "this build flushes small numbers to zero in vectors: compile calomu.c for "
                        "a machine that keeps them";
    return exact ? NULL : "this build's fma rounds twice: compile calomu.c with another compiler";
}

static const cm_kernels CM_KERNEL(kernels) = {
    CM_MOST_CONV, CM_MOST_IN, CM_MOST_OUT,
    CM_KERNEL(conv_row), CM_KERNEL(wgrad), CM_KERNEL(stats), CM_KERNEL(sum), CM_KERNEL(affine),
    CM_KERNEL(norm1), CM_KERNEL(norm2), CM_KERNEL(point), CM_KERNEL(dpoint), CM_KERNEL(box),
    CM_KERNEL(join), CM_KERNEL(djoin), CM_KERNEL(part), CM_KERNEL(spread), CM_KERNEL(sparse),
    CM_KERNEL(lanesum), CM_KERNEL(permute),
    CM_KERNEL(wino_in), CM_KERNEL(wino_dm), CM_KERNEL(wino_out)
};

#undef cm_vec
#undef cm_vec_at
#undef cm_vfma
#undef cm_vmax
#undef cm_vmin
#undef cm_vsigmoid
#undef cm_vswish
#undef cm_vdswish
#undef CM_VECTOR
#undef CM_LANE
#undef CM_EACH_VECTOR
#undef CM_LOAD
#undef CM_STORE
#undef CM_CONV_CASE
#undef CM_WGRAD_CASE
#undef CM_ISA
#undef CM_FUSE
#undef CM_VECTOR_BYTES
#undef CM_TILE
#undef CM_MOST_CONV
#undef CM_MOST_IN
#undef CM_MOST_OUT
#else                                /* CM_ISA */

#define CM_ISA plain
#define CM_FUSE CM_FUSED
#if defined(__ARM_NEON) && !defined(__aarch64__)
#define CM_VECTOR_BYTES ((int)sizeof(cm_real))   /* vectors of 32-bit ARM flush small numbers */
#else
#define CM_VECTOR_BYTES 16
#endif
#ifdef __aarch64__                   /* NEON: 32 registers, fused products */
#define CM_TILE 27
#define CM_MOST_CONV 12
#define CM_MOST_IN 5
#define CM_MOST_OUT 5
#else
#define CM_TILE 8
#define CM_MOST_CONV 2
#define CM_MOST_IN 1
#define CM_MOST_OUT 1
#endif
#include "calomu.c"

#if defined(__x86_64__) && defined(__GNUC__)
#define CM_ISA avx2
#define CM_FUSE 1
#define CM_VECTOR_BYTES 32
#define CM_TILE 12
#define CM_MOST_CONV 6
#define CM_MOST_IN 3
#define CM_MOST_OUT 3
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#include "calomu.c"
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include "calomu.c"
#pragma GCC pop_options
#endif

#define CM_ISA avx512
#define CM_FUSE 1
#define CM_VECTOR_BYTES 64
#define CM_TILE 27
#define CM_MOST_CONV 12
#define CM_MOST_IN 5
#define CM_MOST_OUT 5
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma"))), apply_to = function)
#include "calomu.c"
#pragma clang attribute pop
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,prefer-vector-width=512")
#include "calomu.c"
#pragma GCC pop_options
#endif
#endif

static const cm_kernels *cm_kernels_of(calomu_isa isa)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (isa == CALOMU_ISA_AVX512) return &cm_kernels_avx512;
    if (isa == CALOMU_ISA_AVX2) return &cm_kernels_avx2;
#endif
    (void)isa;
    return &cm_kernels_plain;
}

static const char *(*const cm_kernels_fault[4])(void) = {
    NULL, cm_fault_plain,
#if defined(__x86_64__) && defined(__GNUC__)
    cm_fault_avx2, cm_fault_avx512
#endif
};

static int cm_larger(int a, int b) { return a > b ? a : b; }

static int cm_has_wino(const cm_graph *g)
{
    return g->wino && !(g->unit && g->unit->math == CALOMU_MATH_FAST);   /* cores: direct sums */
}

static int cm_conv_wino(const cm_graph *g, int nx, int kernel, int stride, int pad)
{
    const cm_window w = cm_window_cube(kernel, stride, pad);
    return cm_has_wino(g) && cm_wino_fits(nx, &w);
}

/* Blocks of a result of these sites, which becomes the size of one block. */
static const cm_blocks *cm_result_blocks(cm_graph *g, int size[3])
{
    const cm_blocks *b = cm_blocks_new(g, size[0], size[1], cm_conv_wino(g, size[1], 3, 1, 1));
    if (!b) return NULL;
    size[0] = b->z;
    size[1] = b->x;
    return b;
}

/* Rows at, at + step, ... of an axis of n rows in blocks of `size`: which of its block each is, -1
   outside, and the block. */
static void cm_block_rows(int n, int size, int at, int step, int count, int *row, int *block)
{
    int k;
    for (k = 0; k < count; k++, at += step) {
        int inside = at >= 0 && at < n;
        row[k] = inside ? at % size : -1;
        block[k] = inside ? at / size : 0;
    }
}

/* A row of the result of cm_reblock, n lane vectors: lane l from lane[l] of the row from[l], or
   zeros if that is NULL.  A row may be read shifted, up to 15 reals before or behind it (which is
   why nothing begins or ends an arena). */
static void cm_gather_row(const cm_graph *g, const cm_real *const *from, const int *lane, int n,
                          cm_real *to)
{
    const cm_real *row = NULL;
    int l, i, one = 1, where[CM_LANES];
    CM_EACH_LANE(l) {
        if (from[l] && !row) row = from[l];
        if (from[l] && from[l] != row) one = 0;
        where[l] = from[l] ? lane[l] : -1;
    }
    if (row && one) {
        g->k->permute(row, where, n, to);
        return;
    }
    memset(to, 0, (size_t)(n * CM_LANES) * sizeof *to);
    CM_EACH_LANE(l)
        for (i = 0; from[l] && i < n; i++) to[i * CM_LANES + l] = from[l][i * CM_LANES + lane[l]];
}

/* Plane z of the result of cm_reblock, whose blocks are nz times nx rows of x. */
static void cm_reblock_plane(const cm_graph *g, const cm_tensor *x, const cm_tensor *t,
                             const cm_blocks *to, int nz, int nx, int z)
{
    const cm_blocks *b = x->blocks;
    int row_z[CM_LANES], at_z[CM_LANES], row_x[CM_LANES], at_x[CM_LANES], l, i, n = x->ny * x->nc;
    size_t halo = (size_t)x->nc * CM_LANES * sizeof(cm_real);
    cm_block_rows(b->nz, b->z, z, nz, to->along, row_z, at_z);
    for (i = -t->lo; i < nx + t->hi; i++) {
        const cm_real *from[CM_LANES] = { NULL };
        cm_real *row = cm_row(t, t->x, 0, z, i);
        int lane[CM_LANES] = { 0 };
        cm_block_rows(b->nx, b->x, i, nx, to->across, row_x, at_x);
        for (l = 0; l < to->along * to->across; l++) {
            int v = l / to->across, w = l % to->across;
            if (row_z[v] < 0 || row_x[w] < 0) continue;
            from[l] = cm_row(x, x->x, 0, row_z[v], row_x[w]);
            lane[l] = at_z[v] * b->across + at_x[w];
        }
        cm_gather_row(g, from, lane, n, row);
        memset(row - t->lo * x->nc * CM_LANES, 0, halo * (size_t)t->lo);
        memset(row + n * CM_LANES, 0, halo * (size_t)t->hi);
    }
}

/* The rows of x that results in blocks `to` need: block (i, j) from row (stride*i*to->z - lo,
   stride*j*to->x - lo) on, in the halo of the new tensor or its interior. */
static cm_tensor *cm_reblock(cm_graph *g, const cm_tensor *x, const cm_blocks *to, int stride,
                             int lo, int hi)
{
    int size[3], u, nz = stride * to->z, nx = stride * to->x, planes = nz + lo + hi, threads;
    cm_tensor *t;
    size[0] = planes;
    size[1] = nx + lo + hi;
    size[2] = x->ny + lo + hi;
    t = cm_tensor_new(g, 1, size, x->nc, 0, 0);          /* its halo is filled, too */
    if (!t) return NULL;
    t->nz = nz;
    t->nx = to->across == 1 ? x->blocks->nx : nx;        /* of planes that are not cut: no more */
    t->ny = x->ny;
    t->lo = lo;
    t->hi = hi;
    t->origin = (t->row_z + t->row_x + 1) * (size_t)lo * (size_t)x->nc * CM_LANES;
    if (cm_dry(g)) return t;
    threads = cm_row_team(g, t);
    CM_EACH_UNIT(threads, 1, u, planes, cm_reblock_plane(g, x, t, to, nz, nx, u - lo));
    return t;
}

/* The muon in lane 0. */
static cm_tensor *cm_whole(cm_graph *g, const cm_tensor *x)
{
    cm_blocks *b = cm_small_take(g, sizeof *b);
    if (!b) return NULL;
    b->nz = b->z = x->blocks->nz;
    b->nx = b->x = x->blocks->nx;
    b->along = b->across = 1;
    return cm_reblock(g, x, b, 1, 0, 0);
}

/* Channels first to first + n - 1 of a muon in blocks, so that no others are copied. */
static cm_tensor *cm_block_channels(cm_graph *g, const cm_tensor *x, int first, int n)
{
    cm_tensor *y = cm_tensor_like(g, x, n, 0, 0);
    int site;
    if (!y || cm_dry(g)) return y;
    for (site = 0; site < x->nz * x->nx * x->ny; site++)
        memcpy(y->x + site * n * CM_LANES, x->x + (site * x->nc + first) * CM_LANES,
               (size_t)(n * CM_LANES) * sizeof *y->x);
    return y;
}

/* Memory for a row of t for each thread, and a row apart: kernels fetch the row behind theirs into
   the cache, which must not be another thread's. */
static size_t cm_scratch_step(const cm_tensor *t)
{
    return 2 * (size_t)(t->ny * t->nc) * CM_LANES;
}

static cm_real *cm_rows_scratch(cm_graph *g, const cm_tensor *t)
{
    return cm_arena_take(g, cm_scratch_step(t) * (size_t)g->threads);
}

/* The same, returned to the arena at once: an operation takes it last.  NULL: it is not wanted. */
static cm_real *cm_row_scratch(cm_graph *g, const cm_tensor *t, int wanted)
{
    cm_real *scratch = wanted ? cm_rows_scratch(g, t) : NULL;
    cm_give_back(g, scratch);
    return scratch;
}

static cm_real *cm_scratch_here(const cm_tensor *t, cm_real *scratch)
{
    return scratch ? scratch + cm_scratch_step(t) * (size_t)cm_thread() : NULL;
}

/* 17.3 Sums over sites, one for each channel and lane, in double: of every plane apart (so that
   planes can run in any thread), then added in the order of the planes.  cm_give_back ends them. */

static double *cm_plane_sums(cm_graph *g, const cm_tensor *t, int kinds)
{
    return cm_scratch(g, (size_t)t->groups * (size_t)t->nz * (size_t)(kinds * t->nc) * CM_LANES
                             * sizeof(double));
}

/* Adds the planes of each group into its first plane. */
static void cm_plane_add(const cm_tensor *t, double *sum, int kinds)
{
    size_t n = (size_t)(kinds * t->nc * CM_LANES), i;
    int k, z;
    for (k = 0; k < t->groups; k++) {
        double *to = sum + (size_t)k * (size_t)t->nz * n;
        for (z = 1; z < t->nz; z++)
            for (i = 0; i < n; i++) to[i] += to[(size_t)z * n + i];
    }
}

/* Sum of channel c over the muons, of kind `kind`: dead lanes have values, too. */
static double cm_muons_sum(const cm_tensor *t, const double *sum, int kinds, int kind, int c)
{
    size_t n = (size_t)(kinds * t->nc * CM_LANES);
    cm_tree tree = { { 0 }, 0 };
    int k, l;
    for (k = 0; k < t->groups; k++) {
        const double *from = sum + (size_t)(k * t->nz) * n + (kind * t->nc + c) * CM_LANES;
        double s[CM_LANES];
        CM_EACH_LANE(l) s[l] = k * CM_LANES + l < t->muons ? from[l] : 0;
        cm_tree_add(&tree, s);
    }
    return cm_tree_sum(&tree);
}

/* Convolutions, joins and Swish sum their results, or Swish of them, while these are in the cache,
   in training for the batch norm or the mean behind them, in inference for a mean alone, and then
   without squares.  A row of plane z of group k is complete: */
static void cm_sums_take(cm_graph *g, cm_tensor *t, int swished, int mean)
{
    t->swished = swished;
    if (!g->fused || (!g->training && !mean)) return;
    if (!g->unit && !t->blocks && t->nz * t->nx * t->ny > 1) t->sums = cm_plane_sums(g, t, 2);
}

static void cm_sums_row(const cm_graph *g, const cm_tensor *t, int k, int z, const cm_real *row)
{
    double *s;
    if (!t->sums) return;
    s = t->sums + (size_t)(k * t->nz + z) * (size_t)(2 * t->nc * CM_LANES);
    if (!g->training) g->k->sum(row, t->ny, t->nc, s);
    else g->k->stats(row, t->ny, t->nc, t->swished, s, s + t->nc * CM_LANES);
}

static const cm_real *cm_value_row(const cm_graph *g, const cm_tensor *t, int k, int z, int i,
                                   cm_real *scratch);        /* 17.4 */

/* Sums and squares of the planes, of t or of Swish of it, of the groups in their first; the caller
   gives them back. */
static double *cm_sums(cm_graph *g, cm_tensor *t, int swished)
{
    int units = t->groups * t->nz, u;
    double *sums;
    if (t->sums && t->swished != swished) {
        cm_give_back(g, t->sums);
        t->sums = NULL;
    }
    if (!t->sums) {
        cm_real *scratch;
        t->sums = cm_plane_sums(g, t, 2);
        t->swished = swished;
        scratch = cm_row_scratch(g, t, !t->x);
        if (g->status != CALOMU_OK) return NULL;
        if (!cm_dry(g)) {
            CM_PARALLEL_FOR(g->threads)
            for (u = 0; u < units; u++) {
                int i, k = u / t->nz, z = u % t->nz;
                for (i = 0; i < t->nx; i++)
                    cm_sums_row(g, t, k, z,
                                cm_value_row(g, t, k, z, i, cm_scratch_here(t, scratch)));
            }
        }
    }
    sums = t->sums;
    t->sums = NULL;
    if (!cm_dry(g)) cm_plane_add(t, sums, 2);
    return sums;
}

/* 17.4 Running batch norm (Sec. 3.1.1, with the momentum of the authors' code)

   mean = sums/count, var = squares/count - mean^2, y = w (x - mean)/sqrt(var + eps) + b.
   In training first buffer += m (new - buffer), m = 1 - 0.9/sqrt(B - 1 + eps).
   Backward, with G0 = sum dy, G1 = sum dy (x - mean), r = 1/sqrt(var + eps):
       db = G0,  dw = r G1,  dvar = -w r^3 G1/2 (0 where var is clamped),
       dmean = -w r G0 - 2 mean dvar,  d sums = dmean/count,  d squares = dvar/count,
       dx = w r dy + m (d sums + 2 x d squares). */

static void cm_norm_update(cm_graph *g, cm_tensor *x, const cm_norm *n, int swished)
{
    double m = 1 - 0.9 / sqrt(x->muons - 1 + CM_NORM_EPS);
    double count = (double)x->muons * x->nz * x->nx * x->ny;
    double *sum = cm_sums(g, x, swished);
    int c;
    cm_give_back(g, sum);            /* nothing else is taken before the end */
    if (!sum || cm_dry(g)) return;
    for (c = 0; c < x->nc; c++) {
        double s = n->sums[c], q = n->squares[c];
        n->sums[c] = (cm_real)cm_fmad(m, cm_muons_sum(x, sum, 2, 0, c) - s, s);
        n->squares[c] = (cm_real)cm_fmad(m, cm_muons_sum(x, sum, 2, 1, c) - q, q);
    }
    *n->count = (cm_real)cm_fmad(m, count - (double)*n->count, (double)*n->count);
    *n->batch += (cm_real)x->muons;
}

static int cm_norm_trained(cm_graph *g, const cm_norm *n)
{
    if (cm_dry(g) || g->unit || *n->count > 0) return 1;
    cm_graph_fail(g, CALOMU_EFORMAT, "the network was never trained: a batch norm is empty");
    return 0;
}

/* Column `kind` of what the forward pass kept, in the type of the kernels. */
static cm_real *cm_norm_column(cm_graph *g, const double *saved, int kind, int nc)
{
    cm_real *v = cm_small_take(g, (size_t)nc * sizeof *v);
    int c;
    if (v)
        for (c = 0; c < nc; c++) v[c] = (cm_real)saved[kind * nc + c];
    return v;
}

static void cm_norm_prepare(cm_graph *g, cm_record *r)
{
    int c = r->out->nc, kind;
    if (g->training) cm_norm_update(g, r->in[0], &r->norm, r->swish == CM_SWISH_BEFORE);
    if (!cm_norm_trained(g, &r->norm)) return;
    r->saved = cm_small_take(g, (size_t)(CM_NORM_KINDS * c) * sizeof *r->saved);
    if (!r->saved) return;
    if (!cm_dry(g)) {
        cm_norm_transform(&r->norm, c, r->saved);
        r->scale = (double)*r->norm.count;
    }
    for (kind = CM_NORM_A; kind <= CM_NORM_MEAN; kind++)
        r->column[kind] = cm_norm_column(g, r->saved, kind, c);
}

static void cm_join_row(const cm_graph *g, const cm_record *r, int k, int z, int i,
                        cm_real *scratch);       /* 17.12 */

/* A row of the result. */
static void cm_norm_value(const cm_graph *g, const cm_record *r, int k, int z, int i, cm_real *to)
{
    const cm_tensor *x = r->in[0];
    if (x->deferred) cm_join_row(g, x->deferred, k, z, i, NULL);
    g->k->affine(cm_row(x, x->x, k, z, i), to, x->ny, x->nc, r->column[CM_NORM_A],
                 r->column[CM_NORM_B], r->swish);
}

/* Backward, first pass: dy becomes the gradient before Swish, row by row, and is summed.  It may
   begin before its turn, in the operation that makes dy and has its rows in the cache. */
static void cm_norm_begin(cm_graph *g, cm_record *r)
{
    cm_remember(g, r->in[0]);
    r->sums = cm_plane_sums(g, r->out, 2);
}

static void cm_norm_dy(const cm_graph *g, const cm_record *r, int k, int z, int i, cm_real *dy)
{
    const cm_tensor *x = r->in[0];
    double *s = r->sums + (size_t)(k * x->nz + z) * (size_t)(2 * x->nc * CM_LANES);
    g->k->norm1(cm_row(x, x->x, k, z, i), dy, x->ny, x->nc,
                r->column[CM_NORM_A], r->column[CM_NORM_B], r->column[CM_NORM_MEAN], r->swish, s,
                s + x->nc * CM_LANES);
}

static void cm_norm_row(const cm_graph *g, const cm_record *r, int k, int z, int i)
{
    cm_norm_dy(g, r, k, z, i, cm_row(r->out, r->out->dx, k, z, i));
}

/* G0 and G1 into the gradients of bias and weight and, per channel, the e and f of the second
   pass (cm_norm2). */
static void cm_norm_sums(cm_record *r)
{
    cm_real *e = r->column[CM_NORM_E], *f = r->column[CM_NORM_F];
    const cm_tensor *x = r->in[0];
    double m = 1 - 0.9 / sqrt(x->muons - 1 + CM_NORM_EPS), count = r->scale;
    int c, nc = x->nc;
    cm_plane_add(x, r->sums, 2);
    for (c = 0; c < nc; c++) {
        double g0 = cm_muons_sum(x, r->sums, 2, 0, c), g1 = cm_muons_sum(x, r->sums, 2, 1, c);
        double w = (double)r->norm.weight.x[c], rr = r->saved[CM_NORM_R * nc + c];
        double mu = r->saved[CM_NORM_MEAN * nc + c];
        double dvar = r->saved[CM_NORM_CLAMPED * nc + c] != 0 ? 0 : -0.5 * w * rr * rr * rr * g1;
        double dmean = cm_fmad(-2 * mu, dvar, -w * rr * g0);
        if (r->norm.bias.dx) r->norm.bias.dx[c] += (cm_real)g0;
        if (r->norm.weight.dx) r->norm.weight.dx[c] += (cm_real)(rr * g1);
        e[c] = (cm_real)(2 * m * dvar / count);
        f[c] = (cm_real)(m * dmean / count);
    }
}

/* Second pass, one row: r adds its share, of its result's gradient dv, to `from`, a row of its
   input's gradient or NULL. */
static void cm_norm_second_row(const cm_graph *g, const cm_record *r, int k, int z, int i,
                         const cm_real *dv, const cm_real *from, cm_real *to)
{
    const cm_tensor *x = r->in[0];
    cm_real live[CM_LANES];
    int l;
    CM_EACH_LANE(l) live[l] = k * CM_LANES + l < x->muons ? 1 : 0;
    g->k->norm2(cm_row(x, x->x, k, z, i), dv, from, to, x->ny, x->nc,
                r->column[CM_NORM_A], r->column[CM_NORM_E], r->column[CM_NORM_F], live, r->swish);
}

/* Computed on read: main memory is slower than arithmetic.  The result of a batch norm in front of
   a convolution, of a mean and join or of a pooling has no memory; these compute it, in forward and
   in backward, row by row or plane by plane in memory of their threads.  In the same way shares of
   a gradient that are not added (section 16) are computed by the operation that made the tensor:
   that of a join or a pooling, the mean's, the second passes of batch norms.  The bits are those of
   writing all, which `unfused` does. */

static int cm_by_rows(const cm_graph *g, const cm_tensor *x)
{
    return g->fused && !g->unit && !x->blocks;
}

/* Whether a thread can have a group: there are groups for all of them. */
static int cm_by_groups(const cm_graph *g, const cm_tensor *x)
{
    return cm_by_rows(g, x) && x->groups >= g->threads;
}

static int cm_takes_unadded(const cm_graph *g, const cm_tensor *t)
{
    return g->fused && !g->unit && t->producer && t->producer->takes_unadded
        && (t->producer->takes_unadded == CM_ROWS || cm_by_groups(g, t));
}

/* Row of t's values: where it is or, of a batch norm that is not kept, made in `scratch`. */
static const cm_real *cm_value_row(const cm_graph *g, const cm_tensor *t, int k, int z, int i,
                                   cm_real *scratch)
{
    if (t->x) return cm_row(t, t->x, k, z, i);
    cm_norm_value(g, t->producer, k, z, i, scratch);
    return scratch;
}

static int cm_is_unadded(const cm_tensor *t) { return t->unadded.norms || t->unadded.join; }

static const cm_real *cm_gradient_row(const cm_graph *g, const cm_tensor *t, int k, int z, int i,
                                      cm_real *scratch);

/* Row of t's gradient: where it is or, with its unadded shares, computed: that of a join or a
   pooling and of the mean behind it, in `scratch`, or what is there; then, in `to`, those of
   norms. */
static const cm_real *cm_gradient_row_to(const cm_graph *g, const cm_tensor *t, int k, int z, int i,
                                         cm_real *scratch, cm_real *to)
{
    const cm_unadded *u = &t->unadded;
    const cm_real *row = t->written ? cm_row(t, t->dx, k, z, i) : NULL;
    const cm_record *n;
    if (u->join) {
        u->join->share_row(g, u->join, t, k, z, i, scratch);
        row = scratch;
    }
    if (u->mean) g->k->spread(cm_row(u->mean, u->mean->dx, k, 0, 0), scratch, t->ny, t->nc, 1);
    for (n = u->norms; n; n = n->next_norm) {
        cm_norm_second_row(g, n, k, z, i, cm_gradient_row(g, n->out, k, z, i, to), row, to);
        row = to;
    }
    return row;
}

/* The same where both may be one. */
static const cm_real *cm_gradient_row(const cm_graph *g, const cm_tensor *t, int k, int z, int i,
                                      cm_real *scratch)
{
    return cm_gradient_row_to(g, t, k, z, i, scratch, scratch);
}

/* Either: whether its rows are made, and row i of plane z, in `scratch` if it is. */
static int cm_computed_on_read(const cm_tensor *t, int gradient)
{
    return gradient ? cm_is_unadded(t) : !t->x;
}

static const cm_real *cm_any_row(const cm_graph *g, const cm_tensor *t, int gradient, int k, int z,
                                 int i, cm_real *scratch)
{
    return gradient ? cm_gradient_row(g, t, k, z, i, scratch)
                    : cm_value_row(g, t, k, z, i, scratch);
}

/* First pass, if it did not run ahead. */
static void cm_norm_first(const cm_graph *g, cm_record *r, cm_real *scratch)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int units = x->groups * x->nz, u;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        cm_real *dy = cm_scratch_here(y, scratch);
        int i, k = u / x->nz, z = u % x->nz;
        for (i = 0; i < x->nx; i++) {
            if (dy) (void)cm_gradient_row(g, y, k, z, i, dy);
            cm_norm_dy(g, r, k, z, i, dy ? dy : cm_row(y, y->dx, k, z, i));
        }
    }
}

/* Second pass, if it is not left to what made the input. */
static void cm_norm_second(cm_graph *g, const cm_record *r)
{
    cm_tensor *x = r->in[0];
    int units = x->groups * x->nz, u, add = cm_grad_begin(g, x);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        int i, k = u / x->nz, z = u % x->nz;
        for (i = 0; i < x->nx; i++) {
            cm_real *to = cm_row(x, x->dx, k, z, i);
            cm_norm_second_row(g, r, k, z, i, cm_gradient_row(g, r->out, k, z, i, to),
                               add ? to : NULL, to);
        }
    }
}

static void cm_norm_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    int begun = y->unadded.first_pass;
    cm_real *e = cm_small_take(g, 2 * (size_t)x->nc * sizeof *e), *scratch;
    if (!begun) cm_norm_begin(g, r);
    scratch = cm_row_scratch(g, y, cm_is_unadded(y));
    cm_give_back(g, r->sums);        /* nothing else is taken before they are read */
    if (!e || g->status != CALOMU_OK) return;
    r->column[CM_NORM_E] = e;
    r->column[CM_NORM_F] = e + x->nc;
    if (!begun && !cm_dry(g)) cm_norm_first(g, r, scratch);
    if (!cm_dry(g)) cm_norm_sums(r);
    if (r->added[0]) cm_norm_second(g, r);
}

/* A group of t or, in a ring, only `ring` planes of it. */
static cm_tensor cm_group_shape(const cm_tensor *t, int ring, int groups)
{
    cm_tensor o = *t;
    o.groups = groups;
    if (ring) o.nz = ring;
    o.group = o.row_z * (size_t)(o.nz + o.lo + o.hi) * (size_t)o.nc * CM_LANES;
    return o;
}

/* Memory for it for each thread, with a zero halo. */
static cm_real *cm_group_scratch(cm_graph *g, const cm_tensor *t, int ring)
{
    cm_tensor scratch = cm_group_shape(t, ring, g->threads);
    cm_real *x = cm_arena_take(g, cm_total(&scratch));
    if (x) cm_zero_halo(g, &scratch, x);
    return x;
}

/* x can be read by rows or groups. */
static void cm_values_ready(cm_graph *g, cm_tensor *x)
{
    if (x->on_the_fly) cm_remember(g, x->producer->in[0]);
    else cm_remember(g, x);
}

/* Values or gradients of group k: where they are or made in this thread's part of scratch, plane by
   plane, so that they are still in the cache when they are read. */
typedef struct cm_group {
    const cm_tensor *t;
    int gradient, k;
    int planes;                      /* that are there */
    int ring;                        /* only the last ones, z in the place of z % ring; or 0 */
    cm_real *at;                     /* as cm_row(t, at, 0, z, x) */
} cm_group;

enum { CM_RING = 4 };                /* planes that a kernel reads at once, at most */

static cm_group cm_group_begin(const cm_tensor *t, int gradient, int k, cm_real *scratch, int ring)
{
    cm_group o;
    int made = cm_computed_on_read(t, gradient);
    o.t = t;
    o.gradient = gradient;
    o.k = k;
    o.planes = made ? 0 : t->nz;
    o.ring = made ? ring : 0;
    o.at = made ? scratch + cm_group_shape(t, ring, 1).group * (size_t)cm_thread()
                : (gradient ? t->dx : t->x) + t->group * (size_t)k;
    return o;
}

/* Where plane z is. */
static int cm_group_plane(const cm_group *o, int z)
{
    return o->ring && z >= 0 ? z % o->ring : z;
}

/* Makes the planes below `end`. */
static void cm_group_until(const cm_graph *g, cm_group *o, int end)
{
    int i;
    for (; o->planes < end && o->planes < o->t->nz; o->planes++)
        for (i = 0; i < o->t->nx; i++)
            (void)cm_any_row(g, o->t, o->gradient, o->k, o->planes, i,
                             cm_row(o->t, o->at, 0, cm_group_plane(o, o->planes), i));
}

static void cm_norm_share(const cm_graph *g, const cm_record *r, cm_share s)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int at = s.y * x->nc * CM_LANES, i;
    for (; s.z < s.end; s.z++)
        for (i = 0; i < x->nx; i++)
            if (!x->blocks) cm_norm_value(g, r, s.k, s.z, i, cm_row(y, y->x, s.k, s.z, i));
            else g->k->affine(cm_row(x, x->x, 0, s.z, i) + at, cm_row(y, y->x, 0, s.z, i) + at, s.n,
                              x->nc, r->column[CM_NORM_A], r->column[CM_NORM_B], r->swish);
}

static void cm_norm_apply(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0];
    int threads = cm_row_team(g, x), shares = cm_shares(x, threads), u;
    if (cm_dry(g)) return;
    CM_EACH_UNIT(threads, x->blocks != NULL, u, shares,
                 cm_norm_share(g, r, cm_share_of(x, u, shares)));
}

/* In inference batch norm and Swish, before or behind it, are applied to the rows of the
   convolution before them. */

static void cm_norm_inline(cm_graph *g, cm_record *r, const cm_norm *n, int swish)
{
    r->norm = *n;
    r->swish = swish;
    g->o->norm_prepare(g, r);
}

/* A row of the result of a convolution is complete. */
static void cm_conv_row_done(const cm_graph *g, const cm_record *r, int k, int z, int x)
{
    const cm_tensor *y = r->out;
    cm_real *row = cm_row(y, y->x, k, z, x);
    if (r->column[CM_NORM_A])
        g->k->affine(row, row, y->ny, y->nc, r->column[CM_NORM_A], r->column[CM_NORM_B], r->swish);
    cm_sums_row(g, y, k, z, row);
}

/* Begins the batch norm that made t, if its first pass runs on the rows of t's gradient as they
   come: that norm, if anything is computed. */
static cm_record *cm_norm_ahead(cm_graph *g, const cm_tensor *t)
{
    if (!t->unadded.first_pass) return NULL;
    cm_norm_begin(g, t->producer);
    return g->status == CALOMU_OK && !cm_dry(g) ? t->producer : NULL;
}

/* With Swish before the batch norm its values are not kept, either; without these shortcuts it is
   an operation of its own. */
static cm_tensor *cm_norm_new(cm_graph *g, cm_tensor *x, cm_norm n, int swish, int lo, int hi,
                              int on_the_fly)
{
    int size[3];
    cm_tensor *y, *own = NULL;
    cm_record *r;
    if (!x || g->status != CALOMU_OK) return NULL;
    if (g->training && x->muons < 2) {
        cm_graph_fail(g, CALOMU_EUSAGE, "training needs batches of at least 2 muons");
        return NULL;
    }
    if (swish == CM_SWISH_BEFORE && !cm_by_rows(g, x)) {
        x = own = cm_swish(g, x);
        swish = 0;
        if (!x) return NULL;
    }
    size[0] = x->nz;
    size[1] = x->nx;
    size[2] = x->ny;
    y = on_the_fly ? cm_tensor_shape(g, x->muons, size, x->nc, lo, hi)
               : cm_tensor_like(g, x, x->nc, lo, hi);
    if (!y) return NULL;
    r = cm_record_new(g, g->o->norm.backward, y, x, NULL);
    if (!r) return NULL;
    y->on_the_fly = on_the_fly;
    r->again = g->o->norm.forward;
    r->share[0] = CM_SHARE_NORM;
    r->takes_unadded = swish == CM_SWISH_BEHIND ? 0 : CM_ROWS;   /* that changes dx in place */
    r->cheap = g->fused;
    r->norm = n;
    r->swish = swish;
    g->o->norm_prepare(g, r);
    if (g->status != CALOMU_OK) return NULL;
    if (!on_the_fly) g->o->norm.forward(g, r);
    cm_drop(g, own, 0);
    return cm_done(g, r, "batch norm");
}

cm_tensor *cm_batchnorm(cm_graph *g, cm_tensor *x, cm_norm n, int swish, int lo, int hi)
{
    return cm_norm_new(g, x, n, swish, lo, hi, 0);
}

cm_tensor *cm_batchnorm_by_rows(cm_graph *g, cm_tensor *x, cm_norm n, int swish, int halo)
{
    return cm_norm_new(g, x, n, swish, halo, halo, x && cm_by_rows(g, x));
}

/* For one convolution, which makes the values itself. */
static cm_tensor *cm_batchnorm_by_groups(cm_graph *g, cm_tensor *x, cm_norm n, int swish, int halo)
{
    return cm_norm_new(g, x, n, swish, halo, halo, x && cm_by_groups(g, x));
}

/* 17.5 Convolution:  y[o](j) = bias[o] + sum over i, k:  w[o][i][k] * x[i](stride*j + k - pad)

   k, j and the pads stand for three axes each.  Outputs are computed in chunks of channels that
   fit the registers; the weights are packed for that: [chunk][cell][input][channel of the chunk].
   The cells of one kz, kx are neighbours in y, so that they are one tap: one run through x and w.
   The input's halo holds the padding, so there is no border case. */

/* Equal chunks of at most `most`: size of chunk i and its first channel. */
static int cm_chunk(int n, int most, int i, int *first)
{
    int chunks = (n + most - 1) / most;
    *first = (int)((int64_t)n * i / chunks);
    return (int)((int64_t)n * (i + 1) / chunks) - *first;
}

/* Cell of the kernel that is packed as number t.  The forward pass takes them in order.  The pass
   to the input reads dy backwards, so it has the ky of each class ("To the input") falling. */
static int cm_packed_cell(int kernel, int stride, int transposed, int t)
{
    int row = t / kernel, n = t % kernel, p, ky;
    if (!transposed) return t;
    for (p = 0; p < stride; p++)
        for (ky = kernel - 1; ky >= 0; ky--)
            if (ky % stride == p && n-- == 0) return row * kernel + ky;
    return t;
}

/* Packs w [out][in][cells] for the forward pass or, transposed, in -> out for that to the input. */
static void cm_pack(const cm_record *r, int most, int transposed, cm_real *p)
{
    int in = r->in[0]->nc, out = r->out->nc, cells = r->kernel * r->kernel * r->kernel;
    int n = transposed ? in : out, m = transposed ? out : in, chunks = (n + most - 1) / most;
    int i, t, a, b;
    for (i = 0; i < chunks; i++) {
        int first, width = cm_chunk(n, most, i, &first);
        for (t = 0; t < cells; t++) {
            const cm_real *w = r->w.x + cm_packed_cell(r->kernel, r->stride, transposed, t);
            for (a = 0; a < m; a++)
                for (b = first; b < first + width; b++)
                    *p++ = w[(transposed ? (size_t)a * (size_t)in + (size_t)b
                                   : (size_t)b * (size_t)in + (size_t)a) * (size_t)cells];
        }
    }
}

static ptrdiff_t cm_site_offset(const cm_tensor *t, int z, int x, int y)
{
    return ((ptrdiff_t)t->row_z * z + (ptrdiff_t)t->row_x * x + y) * t->nc * CM_LANES;
}

typedef struct cm_taps {             /* of one row of outputs */
    cm_tap tap[16];                  /* w: number of the first packed cell */
    int n, run, cells;               /* taps, cells of each, cells of the kernel */
} cm_taps;

/* Chunk i of one row of outputs: y (n outputs, ystep apart, `channels` each) from x. */
static void cm_conv_chunk(const cm_graph *g, const cm_real *x, size_t xstep, const cm_taps *taps,
                          int in, const cm_real *packed, const cm_real *bias, cm_real *y,
                          size_t ystep, int n, int channels, int add, int i)
{
    int t, first, width = cm_chunk(channels, g->k->max_conv, i, &first);
    cm_tap tap[16];
    for (t = 0; t < taps->n; t++) {
        tap[t].x = taps->tap[t].x;
        tap[t].w = taps->tap[t].w * (size_t)in * (size_t)width;
    }
    g->k->conv_row(x, xstep, tap, taps->n, taps->run * in,
                   packed + (size_t)taps->cells * (size_t)in * (size_t)first,
                   bias ? bias + first : NULL, y + first * CM_LANES, ystep, n, add, width);
}

/* All of them. */
static void cm_conv_chunks(const cm_graph *g, const cm_real *x, size_t xstep, const cm_taps *taps,
                           int in, const cm_real *packed, const cm_real *bias, cm_real *y,
                           size_t ystep, int n, int channels, int add)
{
    int most = g->k->max_conv, i;
    for (i = 0; i < (channels + most - 1) / most; i++)
        cm_conv_chunk(g, x, xstep, taps, in, packed, bias, y, ystep, n, channels, add, i);
}

/* Whether (z, x) is a row of t.  Outside are zeros, which change no sum. */
static int cm_inside(const cm_tensor *t, int z, int x)
{
    return z >= 0 && z < t->nz && x >= 0 && x < t->nx;
}

/* Of a row of outputs whose first row of inputs is (z, i).  What is outside counts only if it is
   of other blocks of a muon (16.2), of which there are none along x if its planes are not cut. */
static void cm_forward_taps(const cm_record *r, const cm_group *values, int z, int i,
                            cm_taps *taps)
{
    const cm_tensor *x = r->in[0];
    const cm_blocks *b = r->out->blocks;
    int kernel = r->kernel, kz, kx;
    taps->n = 0;
    taps->run = kernel;
    taps->cells = kernel * kernel * kernel;
    for (kz = 0; kz < kernel; kz++)
        for (kx = 0; kx < kernel; kx++) {
            if (b ? b->across == 1 && !cm_inside(x, 0, i + kx) : !cm_inside(x, z + kz, i + kx))
                continue;
            taps->tap[taps->n].x = cm_site_offset(x, cm_group_plane(values, z + kz), i + kx, 0);
            taps->tap[taps->n++].w = (size_t)((kz * kernel + kx) * kernel);
        }
}

/* Plane z of group k, from the group's values. */
static void cm_conv_plane(const cm_graph *g, const cm_record *r, cm_group *values,
                          const cm_real *packed, int k, int z)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int first = z * r->stride - r->pad, i;
    cm_taps taps;
    cm_group_until(g, values, first + r->kernel);
    for (i = 0; i < y->nx; i++) {
        const cm_real *from = cm_row(x, values->at, 0, 0, 0)
                            - (ptrdiff_t)r->pad * x->nc * CM_LANES;
        cm_real *to = cm_row(y, y->x, k, z, i);
        cm_forward_taps(r, values, first, i * r->stride - r->pad, &taps);
        cm_conv_chunks(g, from, (size_t)(r->stride * x->nc * CM_LANES), &taps, x->nc, packed,
                       r->bias.x, to, (size_t)(y->nc * CM_LANES), y->ny, y->nc, 0);
        cm_conv_row_done(g, r, k, z, i);
    }
}

/* A unit of work is a group where its values are made, else a plane. */
static void cm_conv_forward(cm_graph *g, const cm_record *r, const cm_real *packed,
                            cm_real *scratch)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int parts = scratch ? 1 : y->nz, units = y->groups * parts, u;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        cm_group values = cm_group_begin(x, 0, u / parts, scratch, CM_RING);
        int z;
        for (z = u % parts; z < y->nz; z += parts)
            cm_conv_plane(g, r, &values, packed, u / parts, z);
    }
}

/* One muon, in blocks or of one site: a unit of work is a chunk of a row, and what is behind the
   convolution is done chunk by chunk. */
static void cm_conv_unit(const cm_graph *g, const cm_record *r, const cm_real *packed, int u)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int chunk = u / (y->nz * y->nx), row = u % (y->nz * y->nx), first, s;
    int z = row / y->nx, i = row % y->nx, width = cm_chunk(y->nc, g->k->max_conv, chunk, &first);
    cm_group values = cm_group_begin(x, 0, 0, NULL, 0);
    cm_real *to = cm_row(y, y->x, 0, z, i);
    cm_taps taps;
    cm_forward_taps(r, &values, z * r->stride - r->pad, i * r->stride - r->pad, &taps);
    cm_conv_chunk(g, cm_row(x, x->x, 0, 0, 0) - (ptrdiff_t)r->pad * x->nc * CM_LANES,
                  (size_t)(r->stride * x->nc * CM_LANES), &taps, x->nc, packed, r->bias.x, to,
                  (size_t)(y->nc * CM_LANES), y->ny, y->nc, 0, chunk);
    for (s = 0; r->column[CM_NORM_A] && s < y->ny; s++) {
        cm_real *at = to + (s * y->nc + first) * CM_LANES;
        g->k->affine(at, at, 1, width, r->column[CM_NORM_A] + first, r->column[CM_NORM_B] + first,
                     r->swish);
    }
}

static void cm_conv_lanes(const cm_graph *g, const cm_record *r, const cm_real *packed)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int rows = y->nz * y->nx, most = g->k->max_conv, units = (y->nc + most - 1) / most * rows, u;
    double cells = (double)r->kernel * r->kernel * r->kernel;
    int threads = cm_team(g, cells * x->nc * y->nc * rows * y->ny);
    CM_EACH_UNIT(threads, 1, u, units, cm_conv_unit(g, r, packed, u));
}

/* To the input: dx[i](m) = sum over o, k with m = stride*j + k - pad:  w[o][i][k] * dy[o](j).
   For a given m only the k with k = m + pad (mod stride) take part, so the inputs of one row fall
   into `stride` classes, each a convolution of dy with step 1. */
static void cm_backward_taps(const cm_tensor *dy, const cm_record *r, const int m[3],
                             cm_taps *taps)
{
    int kernel = r->kernel, stride = r->stride, start[3], kz, kx, ky, a;
    for (a = 0; a < 3; a++) start[a] = (m[a] + r->pad) % stride;
    taps->n = 0;
    taps->run = cm_class_cells(kernel, stride, start[2]);
    taps->cells = kernel * kernel * kernel;
    ky = start[2] + (taps->run - 1) * stride;    /* the last one is packed first */
    for (kz = start[0]; kz < kernel && taps->run > 0; kz += stride)
        for (kx = start[1]; kx < kernel; kx += stride) {
            int z = (m[0] + r->pad - kz) / stride, x = (m[1] + r->pad - kx) / stride;
            if (m[0] + r->pad < kz || m[1] + r->pad < kx || !cm_inside(dy, z, x)) continue;
            taps->tap[taps->n].x = cm_site_offset(dy, z - m[0] / stride, x - m[1] / stride,
                                                  (m[2] + r->pad - ky) / stride - m[2] / stride);
            taps->tap[taps->n++].w = (size_t)((kz * kernel + kx) * kernel
                                              + cm_class_first(kernel, stride, start[2]));
        }
}


/* To the weights: dw[o][i][k] = sum over groups, lanes, j:  dy[o](j) * x[i](stride*j + k - pad).
   One unit of work is a group and one kz.  Accumulators over lanes, [kx][ky][tile][in][out][L],
   stay in the second-level cache while blocks of outputs in the first pass by; then muons are added
   as all sums over them are (section 1). */
typedef struct cm_wgrad_sites {
    ptrdiff_t *x, *dy;               /* offset of every output site in the group */
    int n, block;
} cm_wgrad_sites;

static void cm_wgrad_fill(const cm_record *r, cm_wgrad_sites *s)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int z, i, j, n = 0;
    for (z = 0; z < y->nz; z++)
        for (i = 0; i < y->nx; i++)
            for (j = 0; j < y->ny; j++, n++) {
                s->x[n] = cm_site_offset(x, z * r->stride - r->pad, i * r->stride - r->pad,
                                  j * r->stride - r->pad);
                s->dy[n] = cm_site_offset(y, z, i, j);
            }
}

/* Accumulates the n sites of a block for all kx, ky, while a tile of channels stays in the first
   cache.  After the last ones the lanes of the tile are added into dw [out][in][taps]: the number
   of tiles and their order depend on the instruction set, the sum of each weight does not. */
static void cm_wgrad_block(const cm_graph *g, const cm_record *r, const cm_real *xs,
                           const cm_real *ys, const ptrdiff_t *xo, const ptrdiff_t *yo, int n,
                           int add, int last, cm_real *acc, double *dw)
{
    const cm_kernels *k = g->k;
    int in = r->in[0]->nc, out = r->out->nc, kernel = r->kernel, a, b, t, i, first_a, first_b;
    int taps = kernel * kernel * kernel;
    for (a = 0; a * k->max_in < in; a++) {
        int wa = cm_chunk(in, k->max_in, a, &first_a);
        for (b = 0; b * k->max_out < out; b++) {
            int wb = cm_chunk(out, k->max_out, b, &first_b);
            for (t = 0; t < kernel * kernel; t++) {
                k->wgrad(xs + cm_site_offset(r->in[0], 0, t / kernel, t % kernel)
                             + first_a * CM_LANES,
                         xo, ys + first_b * CM_LANES, yo, n, acc, add, wa, wb);
                for (i = 0; last && i < wa; i++)
                    k->lanesum(acc + i * wb * CM_LANES, wb,
                               dw + (size_t)((first_b * in + first_a + i) * taps + t),
                               (size_t)(in * taps));
                if (add || !last) acc += wa * wb * CM_LANES;           /* else nothing is kept */
            }
        }
    }
}

/* One kz of a group, from its values and gradients, without planes of outputs at the ends that
   meet nothing but zeros there; one is left in any case. */
static void cm_wgrad_unit(const cm_graph *g, const cm_record *r, const cm_wgrad_sites *s,
                          const cm_real *values, const cm_real *gradient, int kz, cm_real *acc,
                          double *partial)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    const cm_real *xs = values + x->origin, *ys = gradient + y->origin;
    cm_wgrad_sites part = *s;
    int first = 0, end = y->nz, at;
    while (first + 1 < end && first * r->stride - r->pad + kz < 0) first++;
    while (first + 1 < end && (end - 1) * r->stride - r->pad + kz >= x->nz) end--;
    part.x += first * y->nx * y->ny;
    part.dy += first * y->nx * y->ny;
    part.n = (end - first) * y->nx * y->ny;
    for (at = 0; at < part.n; at += s->block) {
        int n = cm_smaller(part.n - at, s->block);
        cm_wgrad_block(g, r, xs + cm_site_offset(x, kz, 0, 0), ys, part.x + at, part.dy + at, n,
                       at > 0, at + n == part.n, acc, partial + kz * r->kernel * r->kernel);
    }
}

/* Memory for values and gradients that are made, groups or, of a kernel 1, rows. */
typedef struct cm_wgrad_scratch {
    cm_real *x, *dy;
    int made;                        /* 1: either is, and a unit of work is a group */
} cm_wgrad_scratch;

/* Group k: each `step`-th kz from `first` on. */
static void cm_wgrad_group(const cm_graph *g, const cm_record *r, const cm_wgrad_sites *s, int k,
                           int first, int step, const cm_wgrad_scratch *scratch, cm_real *acc,
                           double *partial)
{
    cm_group values = cm_group_begin(r->in[0], 0, k, scratch->x, 0);
    cm_group gradient = cm_group_begin(r->out, 1, k, scratch->dy, 0);
    int kz;
    cm_group_until(g, &values, r->in[0]->nz);
    cm_group_until(g, &gradient, r->out->nz);
    for (kz = first; kz < r->kernel; kz += step)
        cm_wgrad_unit(g, r, s, values.at, gradient.at, kz, acc, partial);
}

/* A group of a convolution of kernel 1, row by row. */
static void cm_wgrad_rows(const cm_graph *g, const cm_record *r, const cm_wgrad_sites *s, int k,
                          const cm_wgrad_scratch *scratch, cm_real *acc, double *partial)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int u, rows = y->nz * y->nx;
    for (u = 0; u < rows; u++) {
        int z = u / y->nx, i = u % y->nx;
        cm_wgrad_block(g, r, cm_value_row(g, x, k, z * r->stride, i * r->stride,
                                          cm_scratch_here(x, scratch->x)),
                       cm_gradient_row(g, y, k, z, i, cm_scratch_here(y, scratch->dy)), s->x, s->dy,
                       y->ny, u > 0, u == rows - 1, acc, partial);
    }
}

/* Memory for partial sums, [group][n]. */
static double *cm_partials(cm_graph *g, int groups, size_t n)
{
    return (double *)(void *)cm_arena_take(g, (size_t)groups * n
                                                  * (sizeof(double) / sizeof(cm_real)));
}

/* Adds the groups into the first.  All levels of a block of numbers pass while it is in the
   second-level cache: of 16 groups 64 kB. */
static void cm_partials_sum(const cm_graph *g, double *partial, int groups, size_t n)
{
    const size_t block = 512;
    ptrdiff_t units = (ptrdiff_t)((n + block - 1) / block), u;
    CM_PARALLEL_FOR_STATIC(g->threads)
    for (u = 0; u < units; u++) {
        size_t first = (size_t)u * block;
        cm_trees(partial + first, groups, n, n - first < block ? n - first : block);
    }
}

/* dw += the partial sums. */
static void cm_add_partials(const cm_graph *g, double *partial, int groups, size_t n, cm_real *dw)
{
    size_t i;
    cm_partials_sum(g, partial, groups, n);
    for (i = 0; i < n; i++) dw[i] += (cm_real)partial[i];
}

static cm_wgrad_scratch cm_wgrad_scratch_take(cm_graph *g, const cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int rows = r->kernel == 1;
    int made_x = cm_computed_on_read(x, 0), made_dy = cm_computed_on_read(y, 1);
    cm_wgrad_scratch o = { NULL, NULL, 0 };
    if (made_x) o.x = rows ? cm_rows_scratch(g, x) : cm_group_scratch(g, x, 0);
    if (made_dy) o.dy = rows ? cm_rows_scratch(g, y) : cm_group_scratch(g, y, 0);
    o.made = made_x || made_dy;
    return o;
}

static void cm_wgrad_scratch_end(cm_graph *g, const cm_wgrad_scratch *o)
{
    cm_give_back(g, o->x);
    cm_give_back(g, o->dy);
}

static void cm_conv_to_weights(cm_graph *g, const cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    cm_wgrad_scratch scratch = cm_wgrad_scratch_take(g, r);
    int parts = scratch.made ? 1 : r->kernel, units = y->groups * parts;
    int u, sites = y->nz * y->nx * y->ny;
    size_t per_tap = (size_t)x->nc * (size_t)y->nc;
    size_t taps = (size_t)(r->kernel * r->kernel * r->kernel);
    size_t acc_size = per_tap * (size_t)(r->kernel * r->kernel) * CM_LANES;
    double *partial = cm_partials(g, y->groups, per_tap * taps);
    cm_real *acc = cm_arena_take(g, acc_size * (size_t)g->threads);
    cm_wgrad_sites s = { NULL, NULL, 0, 0 };
    s.x = cm_scratch(g, 2 * (size_t)sites * sizeof *s.x);
    if (!partial || !acc || !s.x) return;
    s.n = sites;
    s.block = 48;                    /* 5 channels of 48 sites of x and dy: 30 kB */
    if (!cm_dry(g)) {
        s.dy = s.x + sites;
        cm_wgrad_fill(r, &s);
        CM_PARALLEL_FOR(g->threads)
        for (u = 0; u < units; u++) {
            int k = u / parts;
            cm_real *sums = acc + acc_size * (size_t)cm_thread();
            double *to = partial + per_tap * taps * (size_t)k;
            if (r->kernel == 1) cm_wgrad_rows(g, r, &s, k, &scratch, sums, to);
            else cm_wgrad_group(g, r, &s, k, u % parts, parts, &scratch, sums, to);
        }
        cm_add_partials(g, partial, y->groups, per_tap * taps, r->w.dx);
    }
    cm_give_back(g, s.x);
    cm_give_back(g, acc);
    cm_give_back(g, partial);
    cm_wgrad_scratch_end(g, &scratch);
}

/* dbias[o] = sum of dy[o] over sites, muons: of a row in real, of the rows of a muon in double, in
   their order; the lanes behind the last muon hold zero gradients. */
static void cm_conv_to_bias(cm_graph *g, const cm_record *r)
{
    const cm_tensor *y = r->out;
    int planes = y->groups * y->nz, rows = y->nz * y->nx, u, c, n = y->nc * CM_LANES;
    double *sum = cm_scratch(g, (size_t)(y->groups * rows) * (size_t)n * sizeof *sum);
    cm_real *scratch = cm_row_scratch(g, y, cm_is_unadded(y));
    cm_give_back(g, sum);            /* nothing else is taken before the end */
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < planes; u++) {
        int i;
        for (i = 0; i < y->nx; i++)
            g->k->sum(cm_gradient_row(g, y, u / y->nz, u % y->nz, i, cm_scratch_here(y, scratch)),
                      y->ny, y->nc, sum + (size_t)(u * y->nx + i) * (size_t)n);
    }
    CM_PARALLEL_FOR_STATIC(g->threads)
    for (c = 0; c < y->nc; c++) {
        const double *from = sum + c * CM_LANES;
        cm_tree tree = { { 0 }, 0 };
        int k, i, l;
        for (k = 0; k < y->groups; k++) {
            double s[CM_LANES] = { 0 };
            for (i = 0; i < rows; i++, from += n) CM_EACH_LANE(l) s[l] += from[l];
            cm_tree_add(&tree, s);
        }
        r->bias.dx[c] += (cm_real)cm_tree_sum(&tree);
    }
}

/* 17.6 Convolution by Winograd's method: kernel 3, stride 1, padding 1

   F(6, 3) and F(4, 3) along x (S. Winograd, 1980; A. Lavin, S. Gray, arXiv:1509.09308, Sec. 4),
   direct along z and y: 72 products instead of 162, or 54 instead of 108.  A tile is 6 or 4 rows of
   outputs of a plane, neighbours in x:
       v[f] = (B' d)[f]  of its rows of inputs d and one on either side,
       u[f] = (G w)[f]   of the 3 cells along x,
       m[f](j) = sum over i, kz, ky:  u[f][i][kz][ky] v[f][i](j + (kz, ky) - 1),   y = A' m
   with the points f = infinity, 0, 1, -1, 2, -2 and, of 6 rows, 1/2, -1/2 = p:
       G  = 0 0 1; 1 0 0; s (1 p p^2),  s = -2/9 of 1 and -1, 1/90 of 2 and -2, 32/45 of 1/2, -1/2
       A' = 1 in the column of infinity in the last row, else p^row
       B' of 6 rows:  0 -1  0   21/4   0  -21/4  0  1      of 4 rows, with the scales of this G:
                      1  0 -21/4 0   21/4   0   -1  0         0   4    0   -5    0    1
                      0  1  1  -17/4 -17/4   1   1  0         1   0  -5/4   0   1/4   0
                      0 -1  1   17/4 -17/4  -1   1  0         0  -3   -3   3/4  3/4   0
                      0 1/2 1/4 -5/2  -5/4   2   1  0         0   3   -3  -3/4  3/4   0
                      0 -1/2 1/4 5/2  -5/4  -2   1  0         0 -15/2 -15/4 15/2 15/4 0
                      0  2  4  -5/2   -5   1/2   1  0         0  15/2 -15/4 -15/2 15/4 0
                      0 -2  4   5/2   -5  -1/2   1  0
   All but G is exact.  The last tile may have fewer rows; infinity is needed for the row that is
   missing then.  Backward: to the input it is the same method on dy with the kernel turned round;
   to the weights
   du[f] = sum over sites  v[f](j + (kz, ky) - 1) dm[f](j),  dm = A dy,  dw = G' du.
   Rounding errors are about three times those of the direct sum (random inputs of 8 channels, in
   float without fused products: 7.4e-7 of the results' deviation, 5.4e-7 with 4 rows, direct
   2.8e-7). */

/* Packs u for cm_conv_row: [f][chunk][kz][ky][input][channel of the chunk]; transposed: for
   the pass to the input, where the outputs are the inputs and the kernel is turned round. */
static void cm_wino_pack(const cm_graph *g, const cm_record *r, int transposed, cm_real *p)
{
    int in = r->in[0]->nc, out = r->out->nc, b;
    int n = transposed ? in : out, m = transposed ? out : in;
    CM_PARALLEL_FOR_STATIC(g->threads)
    for (b = 0; b < n; b++) {
        int i = 0, first, width = cm_chunk(n, g->k->max_conv, 0, &first), a, f, t, kx;
        while (b >= first + width) width = cm_chunk(n, g->k->max_conv, ++i, &first);
        for (a = 0; a < m; a++) {
            const cm_real *w = r->w.x + (size_t)(transposed ? a * in + b : b * in + a) * 27;
            for (t = 0; t < 9; t++)
                for (f = 0; f < CM_WINO_F; f++) {
                    double u = 0;
                    for (kx = 0; kx < 3; kx++) {
                        int cell = t / 3 * 9 + kx * 3 + t % 3;
                        u += cm_wino_g[f][kx] * (double)w[transposed ? 26 - cell : cell];
                    }
                    p[(size_t)(f * n + first) * (size_t)(9 * m)
                      + (size_t)((t * m + a) * width + b - first)] = (cm_real)u;
                }
        }
    }
}

/* Adds p, in memory of its own, to the packed weights that are being collected. */
static void cm_packs_add(cm_graph *g, const cm_record *r, size_t count, int wino)
{
    cm_packs *packs = g->packing;
    if (cm_pack_capacity(g, &packs->one, packs->n, &packs->capacity)) {
        cm_real *p = cm_allocate(g->c, count, sizeof *p);
        packs->one[packs->n].w = r->w.x;
        packs->one[packs->n].p = p;
        if (p && wino) cm_wino_pack(g, r, 0, p);
        else if (p) cm_pack(r, g->k->max_conv, 0, p);
        if (p) packs->n++;
        if (p) return;
    }
    cm_graph_fail(g, CALOMU_EMEMORY, NULL);
}

/* Packed weights for the forward pass or, transposed, the pass to the input: from the cache or made
   in the arena.  cm_give_back ends them. */
static const cm_real *cm_weights(cm_graph *g, const cm_record *r, int transposed)
{
    size_t cells = r->wino ? 9 * CM_WINO_F : (size_t)(r->kernel * r->kernel * r->kernel);
    size_t count = (size_t)r->in[0]->nc * (size_t)r->out->nc * cells;
    cm_real *p;
    int i;
    if (g->packing) cm_packs_add(g, r, count, r->wino);
    for (i = 0; g->packs && !transposed && i < g->packs->n; i++)
        if (g->packs->one[i].w == r->w.x) return g->packs->one[i].p;
    p = cm_arena_take(g, count);
    if (!p || cm_dry(g)) return p;
    if (r->wino) cm_wino_pack(g, r, transposed, p);
    else cm_pack(r, g->k->max_conv, transposed, p);
    return p;
}

/* Rows of inputs of a group, for one tile behind the other and for its planes in order: where they
   are, or made here, each once but for planes at the ends of a unit.  A tile shares two rows with
   the next one: these are kept of all planes, the others in a ring of planes. */
typedef struct cm_wino_rows {
    const cm_tensor *t;
    int gradient, k;
    int first, ring;                 /* first plane of a unit; how many the ring has */
    int next;                        /* plane to make of this tile */
    cm_real *at;                     /* memory: ring, rows shared with the last tile, the next */
} cm_wino_rows;

/* Reals of it, if any are made. */
static size_t cm_wino_rows_size(const cm_tensor *t, int gradient, int ring)
{
    size_t row = (size_t)(t->ny * t->nc) * CM_LANES;
    return cm_computed_on_read(t, gradient) ? (size_t)(4 * ring + 4 * t->nz) * row : 0;
}

static cm_wino_rows cm_wino_rows_of(const cm_tensor *t, int gradient, int k, int first, int ring,
                                    cm_real *memory)
{
    cm_wino_rows o;
    o.t = t;
    o.gradient = gradient;
    o.k = k;
    o.first = o.next = first;
    o.ring = ring;
    o.at = cm_computed_on_read(t, gradient) ? memory : NULL;
    return o;
}

/* Where row j of plane z is made. */
static cm_real *cm_wino_row(const cm_wino_rows *o, const cm_wino_tile *tile, int z, int j)
{
    int shared = j < 2 || j >= tile->full, behind = (tile->number + (j >= 2)) % 2;
    int row = shared ? 4 * o->ring + (behind * o->t->nz + z - o->first) * 2 + j % tile->full % 2
                     : z % o->ring * 4 + j - 2;
    return o->at + (size_t)row * (size_t)(o->t->ny * o->t->nc) * CM_LANES;
}

/* Rows d of plane z; outside the grid a row of zeros. */
static void cm_wino_read(const cm_graph *g, cm_wino_rows *o, const cm_wino_tile *tile, int z,
                         const cm_real *zero, const cm_real **d)
{
    int j, x = tile->x - 1;
    for (j = 0; j < tile->full + 2; j++, x++) {
        cm_real *row = o->at ? cm_wino_row(o, tile, z, j) : NULL;
        if (x < 0 || x >= o->t->nx) d[j] = zero;
        else if (o->at && (z < o->next || (j < 2 && tile->number > 0))) d[j] = row;
        else d[j] = cm_any_row(g, o->t, o->gradient, o->k, z, x, row);
    }
    o->next = cm_larger(o->next, z + 1);
}

/* Scratch of one thread: v of three neighbouring planes (slot z % 3) or, of a muon in blocks, of
   all and two more, with a zero before and behind each row, m of one of them, a row of zeros, and
   inputs that are made here. */
typedef struct cm_wino_scratch {
    cm_real *v, *m, *zero, *rows;
    int slots;
    size_t v_step, slot, m_step, per;            /* reals from f to f + 1, z to z + 1; all */
} cm_wino_scratch;

static cm_wino_scratch cm_wino_scratch_of(const cm_tensor *x, const cm_tensor *y, int transposed,
                                          cm_real *memory, int thread)
{
    cm_wino_scratch o;
    o.v_step = (size_t)((x->ny + 2) * x->nc) * CM_LANES;
    o.slot = CM_WINO_F * o.v_step;
    o.m_step = (size_t)(y->ny * y->nc) * CM_LANES;
    o.slots = x->blocks ? x->nz + 2 : 3;
    o.per = (size_t)o.slots * o.slot + o.v_step + CM_WINO_F * o.m_step
          + cm_wino_rows_size(x, transposed, 1);
    o.v = o.zero = o.m = o.rows = NULL;
    if (!memory) return o;           /* only sizes are wanted */
    o.v = memory + o.per * (size_t)thread;
    o.zero = o.v + (size_t)o.slots * o.slot;
    o.m = o.zero + o.v_step;
    o.rows = o.m + CM_WINO_F * o.m_step;
    return o;
}

/* Zeros, which stay: the ends of all rows of v, and the row of zeros. */
static void cm_wino_clear(const cm_wino_scratch *o, const cm_tensor *x)
{
    size_t site = (size_t)x->nc * CM_LANES;
    cm_real *v;
    for (v = o->v; v < o->zero; v += o->v_step) {
        memset(v, 0, site * sizeof *v);
        memset(v + o->v_step - site, 0, site * sizeof *v);
    }
    memset(o->zero, 0, o->v_step * sizeof *o->zero);
}

/* m of a tile of plane z from v: taps are the three kz, whose slots follow each other round; `taps`
   of them from `first` on, without those that lie outside the grid. */
static void cm_wino_products(const cm_graph *g, const cm_wino_scratch *o, const cm_wino_tile *tile,
                             int in, const cm_real *u, int n, int channels, int z, int first,
                             int taps)
{
    int f, i, t, most = g->k->max_conv;
    for (f = tile->from; f < tile->end; f++)
        for (i = 0; i * most < channels; i++) {
            int channel, width = cm_chunk(channels, most, i, &channel);
            cm_tap tap[3];
            for (t = 0; t < taps; t++) {
                tap[t].x = (ptrdiff_t)((size_t)((z + first + t) % o->slots) * o->slot);
                tap[t].w = (size_t)((first + t) * 3 * in * width);
            }
            g->k->conv_row(o->v + (size_t)f * o->v_step, (size_t)(in * CM_LANES), tap, taps,
                           3 * in, u + (size_t)(f * channels + channel) * (size_t)(9 * in), NULL,
                           o->m + (size_t)f * o->m_step + channel * CM_LANES,
                           (size_t)(channels * CM_LANES), n, 0, width);
        }
}

/* A tile of plane z of y, from the products. */
static void cm_wino_result(const cm_graph *g, const cm_record *r, const cm_wino_scratch *o,
                           const cm_wino_tile *tile, int transposed, int k, int z, int add,
                           const cm_record *norm)
{
    const cm_tensor *y = transposed ? r->in[0] : r->out;
    cm_real *row[CM_WINO_WIDE];
    int j;
    for (j = 0; j < tile->rows; j++)
        row[j] = cm_row(y, transposed ? y->dx : y->x, k, z, tile->x + j);
    g->k->wino_out(o->m, o->m_step, row, y->ny, y->nc, tile->rows, tile->full, add,
                   r->column[CM_NORM_A], r->column[CM_NORM_B], r->swish);
    for (j = 0; j < tile->rows; j++) {           /* columns: in inference; else NULL */
        if (!transposed) cm_sums_row(g, y, k, z, row[j]);
        if (norm) cm_norm_row(g, norm, k, z, tile->x + j);
    }
}

/* Planes `first` to `end` - 1 of a tile of y.  Planes outside the grid are zero. */
static void cm_wino_planes(const cm_graph *g, const cm_record *r, int transposed, const cm_real *u,
                           const cm_wino_scratch *o, cm_wino_rows *rows, const cm_wino_tile *tile,
                           int first, int end, int add, const cm_record *norm)
{
    const cm_tensor *x = rows->t, *y = transposed ? r->in[0] : r->out;
    int z;
    rows->next = rows->first;
    for (z = first - 1; z <= end; z++) {         /* v of z, then y of z - 1 */
        int above = z > 1, below = z < y->nz;
        const cm_real *d[CM_WINO_F];
        if (z >= 0 && below) {
            cm_wino_read(g, rows, tile, z, o->zero, d);
            g->k->wino_in(d, o->v + (size_t)((z + 1) % 3) * o->slot + x->nc * CM_LANES, o->v_step,
                          x->ny * x->nc, 15, tile->full);
        }
        if (z <= first) continue;
        cm_wino_products(g, o, tile, x->nc, u, y->ny, y->nc, z - 1, !above, 3 - !above - !below);
        cm_wino_result(g, r, o, tile, transposed, rows->k, z - 1, add, norm);
    }
}

/* Forward or, transposed, to the input.  One unit of work is a group or, where the threads do not
   share the groups out well, some planes of it: two more are made for these. */
static void cm_wino(cm_graph *g, const cm_record *r, int transposed, int add, const cm_record *norm)
{
    const cm_tensor *x = transposed ? r->out : r->in[0], *y = transposed ? r->in[0] : r->out;
    size_t per = cm_wino_scratch_of(x, y, transposed, NULL, 0).per;
    const cm_real *u = cm_weights(g, r, transposed);
    cm_real *memory = cm_arena_take(g, per * (size_t)g->threads);
    int even = y->groups % g->threads == 0 || y->groups >= 4 * g->threads;
    int parts = even ? 1 : cm_smaller(2 * g->threads, y->nz), i;
    if (!u || !memory) return;
    if (!cm_dry(g)) {
        for (i = 0; i < g->threads; i++) {
            cm_wino_scratch o = cm_wino_scratch_of(x, y, transposed, memory, i);
            cm_wino_clear(&o, x);
        }
        CM_PARALLEL_FOR(g->threads)
        for (i = 0; i < y->groups * parts; i++) {
            cm_wino_scratch o = cm_wino_scratch_of(x, y, transposed, memory, cm_thread());
            int first = y->nz * (i % parts) / parts, end = y->nz * (i % parts + 1) / parts;
            cm_wino_rows rows = cm_wino_rows_of(x, transposed, i / parts, cm_larger(0, first - 1),
                                                1, o.rows);
            cm_wino_tile tile = cm_wino_first(y->nx);
            for (; tile.rows > 0; tile = cm_wino_next(y->nx, &tile))
                cm_wino_planes(g, r, transposed, u, &o, &rows, &tile, first, end, add, norm);
        }
    }
    cm_give_back(g, memory);
    cm_give_back(g, u);
}

/* A muon in blocks of whole planes (16.2).  The planes before and behind those of a lane are in the
   lanes beside it, and so is v of them, in slots 1 to nz; slots 0 and nz + 1 are filled from there.
   A last lane with fewer planes has zeros behind them. */
static void cm_wino_neighbours(const cm_graph *g, const cm_tensor *x, const cm_wino_scratch *o,
                               const cm_wino_tile *tile, size_t at, int n)
{
    const cm_blocks *b = x->blocks;
    int lane[3][CM_LANES], full = b->nz - (b->along - 1) * b->z, l, f, z;
    CM_EACH_LANE(l) {
        lane[0][l] = l > 0 && l < b->along ? l - 1 : -1;
        lane[1][l] = l + 1 < b->along ? l : -1;
        lane[2][l] = l + 1 < b->along ? l + 1 : -1;
    }
    for (f = tile->from; f < tile->end; f++) {
        cm_real *v = o->v + (size_t)f * o->v_step + at, *last = v + (size_t)x->nz * o->slot;
        for (z = full; z < x->nz; z++)
            g->k->permute(v + (size_t)(z + 1) * o->slot, lane[1], n, v + (size_t)(z + 1) * o->slot);
        g->k->permute(last, lane[0], n, v);
        g->k->permute(v + o->slot, lane[2], n, last + o->slot);
    }
}

/* Sites `first` to `end` - 1 of the rows of a tile. */
static void cm_wino_lanes_tile(const cm_graph *g, const cm_record *r, const cm_real *u,
                               const cm_wino_scratch *scratch, const cm_wino_tile *tile, int first,
                               int end)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int from = cm_larger(0, first - 1), n = cm_smaller(x->ny, end + 1) - from, z, j;
    size_t site = (size_t)(x->nc * CM_LANES), at = (size_t)(from + 1) * site;
    cm_wino_scratch o = *scratch;
    for (z = 0; z < x->nz; z++) {
        const cm_real *d[CM_WINO_F];
        for (j = 0; j < tile->full + 2; j++) {
            int i = tile->x - 1 + j;
            d[j] = cm_inside(x, z, i) ? cm_row(x, x->x, 0, z, i) + (size_t)from * site : o.zero;
        }
        g->k->wino_in(d, o.v + (size_t)(z + 1) * o.slot + at, o.v_step, n * x->nc, 15, tile->full);
    }
    cm_wino_neighbours(g, x, &o, tile, at, n * x->nc);
    o.v += (size_t)first * site;
    for (z = 0; z < y->nz; z++) {
        cm_real *row[CM_WINO_WIDE];
        for (j = 0; j < tile->rows; j++)
            row[j] = cm_row(y, y->x, 0, z, tile->x + j) + first * y->nc * CM_LANES;
        cm_wino_products(g, &o, tile, x->nc, u, end - first, y->nc, z, 0, 3);
        g->k->wino_out(o.m, o.m_step, row, end - first, y->nc, tile->rows, tile->full, 0,
                       r->column[CM_NORM_A], r->column[CM_NORM_B], r->swish);
    }
}

static void cm_wino_share(const cm_graph *g, const cm_record *r, const cm_real *u, cm_real *memory,
                          cm_share s)
{
    cm_wino_scratch o = cm_wino_scratch_of(r->in[0], r->out, 0, memory, cm_thread_in(g));
    cm_wino_tile tile = cm_wino_first(r->out->nx);
    cm_wino_clear(&o, r->in[0]);
    for (; tile.rows > 0 && s.n > 0; tile = cm_wino_next(r->out->nx, &tile))
        cm_wino_lanes_tile(g, r, u, &o, &tile, s.y, s.y + s.n);
}

static void cm_wino_lanes(cm_graph *g, const cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    const cm_real *u = cm_weights(g, r, 0);
    size_t per = cm_wino_scratch_of(x, y, 0, NULL, 0).per;
    cm_real *memory = cm_arena_take(g, per * (size_t)g->threads);
    int threads = cm_team(g, 9. * y->nx * y->nz * y->ny * x->nc * y->nc), i;
    cm_give_back(g, memory);         /* nothing else is taken before the end */
    cm_give_back(g, u);
    if (!u || !memory || cm_dry(g)) return;
    CM_EACH_UNIT(threads, 1, i, threads,
                 cm_wino_share(g, r, u, memory, cm_share_of(y, i, threads)));
}

/* To the weights.  v and dm of a slab, some planes of a tile, are made for all f from rows that are
   read once, and are added while they are in the cache.  Each plane of v at the border of two slabs
   is made for both, which takes no longer than to keep it.  One unit of work is a group or, where
   the threads do not share the groups out well, a pair of f of one. */
typedef struct cm_wino_slab {
    ptrdiff_t *x, *dy;               /* offsets of its sites in v and dm of one f */
    int planes;
    int parts;                       /* units of a group: 1 or 4 */
    int first[CM_WINO_F], last[CM_WINO_F];       /* tiles that have f, or -1 */
    size_t v_step, m_step, acc, per; /* reals from f to f + 1, accumulators too; all of a thread */
} cm_wino_slab;

enum { CM_WINO_PAIRS = CM_WINO_F / 2 };

/* About 45 sites stay in the first cache while the tiles of channels pass (27 were as fast, 70 and
   more slower).  Pairs apart cost about a fifth more (measured with three): their rows are read
   four times. */
static cm_wino_slab cm_wino_slab_of(const cm_graph *g, const cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int whole = CM_WINO_PAIRS * ((y->groups + g->threads - 1) / g->threads);   /* for a thread */
    int split = (CM_WINO_PAIRS * y->groups + g->threads - 1) / g->threads;
    int made = cm_computed_on_read(x, 0) || cm_computed_on_read(y, 1), f;
    cm_wino_tile tile = cm_wino_first(y->nx);
    cm_wino_slab s;
    s.x = s.dy = NULL;
    s.planes = cm_smaller((45 + y->ny - 1) / y->ny, y->nz);
    s.parts = !made && 6 * split < 5 * whole ? CM_WINO_PAIRS : 1;
    s.v_step = (size_t)((s.planes + 2) * (x->ny + 2) * x->nc) * CM_LANES;
    s.m_step = (size_t)(s.planes * y->ny * y->nc) * CM_LANES;
    s.acc = 9 * (size_t)x->nc * (size_t)y->nc * CM_LANES;
    s.per = CM_WINO_F * (s.v_step + s.m_step + s.acc / (size_t)s.parts)
          + (size_t)((cm_larger(x->nc, y->nc) + CM_WINO_WIDE * y->nc) * y->ny) * CM_LANES
          + cm_wino_rows_size(x, 0, s.planes + 2);
    for (f = 0; f < CM_WINO_F; f++) s.first[f] = s.last[f] = -1;
    for (; tile.rows > 0; tile = cm_wino_next(y->nx, &tile))
        for (f = tile.from; f < tile.end; f++) {
            if (s.first[f] < 0) s.first[f] = tile.number;
            s.last[f] = tile.number;
        }
    return s;
}

static void cm_wino_sites_fill(const cm_tensor *x, const cm_tensor *y, const cm_wino_slab *s)
{
    int i, j, n = 0;
    for (i = 0; i < s->planes; i++)
        for (j = 0; j < y->ny; j++, n++) {
            s->x[n] = (ptrdiff_t)(i * (x->ny + 2) + j) * x->nc * CM_LANES;
            s->dy[n] = (ptrdiff_t)n * y->nc * CM_LANES;
        }
}

/* Rows of gradients d of a tile of plane z, computed in `scratch` where shares are unadded, and
   once more the last. */
static void cm_wino_gradients(const cm_graph *g, const cm_tensor *y, int k, int z,
                              const cm_wino_tile *tile, cm_real *scratch, const cm_real *zero,
                              const cm_real **d)
{
    int j;
    for (j = 0; j < CM_WINO_WIDE; j++, scratch += y->ny * y->nc * CM_LANES)
        d[j] = j < tile->rows ? cm_gradient_row(g, y, k, z, tile->x + j, scratch) : zero;
    d[CM_WINO_WIDE] = d[tile->full - 1];
}

/* v and dm of `planes` planes of a tile, from `first` on; v outside the grid is not read. */
static void cm_wino_make(const cm_graph *g, const cm_record *r, const cm_wino_slab *s,
                         cm_wino_rows *values, const cm_wino_tile *tile, int pairs, int first,
                         int planes, cm_real *scratch, const cm_real *zero, cm_real *v, cm_real *dm)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    const cm_real *d[CM_WINO_F];
    int z;
    v += x->nc * CM_LANES;
    for (z = first - 1; z <= first + planes; z++, v += (x->ny + 2) * x->nc * CM_LANES) {
        if (z < 0 || z >= x->nz) continue;
        cm_wino_read(g, values, tile, z, zero, d);
        g->k->wino_in(d, v, s->v_step, x->ny * x->nc, pairs, tile->full);
    }
    for (z = first; z < first + planes; z++, dm += y->ny * y->nc * CM_LANES) {
        cm_wino_gradients(g, y, values->k, z, tile, scratch, zero, d);
        g->k->wino_dm(d, dm, s->m_step, y->ny * y->nc, pairs, tile->full);
    }
}

/* Adds n sites to the accumulators [tile of channels][kz][ky][in][out][L] of one f; after the last
   sites the lanes are added into partial [kz][ky][in][out].  lo, hi: the first and last of them,
   left out for the kz whose v is outside the grid. */
static void cm_wino_accumulate(const cm_graph *g, const cm_record *r, const cm_wino_slab *s,
                               const cm_real *v, const cm_real *dm, int n, int lo, int hi, int add,
                               int last, cm_real *acc, double *partial)
{
    const cm_kernels *k = g->k;
    int in = r->in[0]->nc, out = r->out->nc, t, i, j, a, first_a, first_b;
    for (i = 0; i * k->max_in < in; i++) {
        int wa = cm_chunk(in, k->max_in, i, &first_a);
        for (j = 0; j * k->max_out < out; j++) {
            int wb = cm_chunk(out, k->max_out, j, &first_b);
            for (t = 0; t < 9; t++) {
                int tap = (t / 3 * (r->in[0]->ny + 2) + t % 3) * in + first_a;
                int from = t / 3 == 0 ? lo : 0, end = t / 3 == 2 ? n - hi : n;
                k->wgrad(v + tap * CM_LANES, s->x + from, dm + first_b * CM_LANES, s->dy + from,
                         end - from, acc, add, wa, wb);
                for (a = 0; last && a < wa; a++)
                    k->lanesum(acc + a * wb * CM_LANES, wb,
                               partial + (t * in + first_a + a) * out + first_b, 1);
                if (add || !last) acc += wa * wb * CM_LANES;           /* else nothing is kept */
            }
        }
    }
}

/* A slab of one tile: f of pair `part`, or all. */
static void cm_wino_slab_add(const cm_graph *g, const cm_record *r, const cm_wino_slab *s,
                             const cm_wino_tile *tile, int part, int first, int planes,
                             const cm_real *v, const cm_real *dm, cm_real *acc, double *partial)
{
    const cm_tensor *y = r->out;
    int each = CM_WINO_F / s->parts, f, end = cm_smaller(tile->end, (part + 1) * each);
    int below = first + planes == y->nz;         /* the last planes */
    for (f = cm_larger(tile->from, part * each); f < end; f++)
        cm_wino_accumulate(g, r, s, v + (size_t)f * s->v_step, dm + (size_t)f * s->m_step,
                           planes * y->ny, first == 0 ? y->ny : 0, below ? y->ny : 0,
                           first > 0 || tile->number > s->first[f],
                           below && tile->number == s->last[f],
                           acc + (size_t)(f - part * each) * s->acc,
                           partial + (size_t)f * s->acc / CM_LANES);
}

/* Pair `part`, or all, of group k. */
static void cm_wino_unit(const cm_graph *g, const cm_record *r, const cm_wino_slab *s, int k,
                         int part, cm_real *memory, double *partial)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    size_t row = (size_t)(cm_larger(x->nc, y->nc) * y->ny) * CM_LANES;
    cm_real *zero = memory + s->per * (size_t)cm_thread(), *v = zero + row;
    cm_real *dm = v + CM_WINO_F * s->v_step, *acc = dm + CM_WINO_F * s->m_step;
    cm_real *scratch = acc + CM_WINO_F * s->acc / (size_t)s->parts;
    cm_wino_rows values = cm_wino_rows_of(x, 0, k, 0, s->planes + 2,
                                          scratch + CM_WINO_WIDE * y->ny * y->nc * CM_LANES);
    cm_wino_tile tile = cm_wino_first(y->nx);
    int first, planes, f, each = CM_WINO_F / s->parts;
    memset(zero, 0, (row + CM_WINO_F * s->v_step) * sizeof *zero);
    for (f = part * each; f < (part + 1) * each; f++)
        if (s->first[f] < 0)
            memset(partial + (size_t)f * s->acc / CM_LANES, 0,
                   s->acc / CM_LANES * sizeof *partial);
    for (; tile.rows > 0; tile = cm_wino_next(y->nx, &tile)) {
        values.next = 0;
        for (first = 0; first < y->nz; first += planes) {
            planes = cm_smaller(s->planes, y->nz - first);
            cm_wino_make(g, r, s, &values, &tile, s->parts == 1 ? 15 : 1 << part, first, planes,
                         scratch, zero, v, dm);
            cm_wino_slab_add(g, r, s, &tile, part, first, planes, v, dm, acc, partial);
        }
    }
}

/* dw += G' of the partial sums [group][f][kz][ky][in][out]. */
static void cm_wino_add_partials(const cm_graph *g, const cm_record *r, double *partial)
{
    int in = r->in[0]->nc, out = r->out->nc, i;
    cm_partials_sum(g, partial, r->out->groups, (size_t)(CM_WINO_F * 9 * in * out));
    CM_PARALLEL_FOR_STATIC(g->threads)
    for (i = 0; i < in * 9; i++) {
        int a = i / 9, t = i % 9, b, f, kx;
        for (b = 0; b < out; b++) {
            cm_real *dw = r->w.dx + (size_t)(b * in + a) * 27 + t / 3 * 9 + t % 3;
            double s[3] = { 0, 0, 0 };
            for (f = 0; f < CM_WINO_F; f++) {
                double du = partial[((f * 9 + t) * in + a) * out + b];
                for (kx = 0; kx < 3; kx++) s[kx] = cm_fmad(cm_wino_g[f][kx], du, s[kx]);
            }
            for (kx = 0; kx < 3; kx++) dw[kx * 3] += (cm_real)s[kx];
        }
    }
}

static void cm_wino_to_weights(cm_graph *g, const cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    cm_wino_slab s = cm_wino_slab_of(g, r);
    size_t sites = (size_t)(s.planes * y->ny), count = CM_WINO_F * s.acc / CM_LANES;
    double *partial = cm_partials(g, y->groups, count);
    cm_real *memory = cm_arena_take(g, s.per * (size_t)g->threads);
    int u;
    s.x = cm_scratch(g, 2 * sites * sizeof *s.x);
    if (!partial || !memory || !s.x) return;
    if (!cm_dry(g)) {
        s.dy = s.x + sites;
        cm_wino_sites_fill(x, y, &s);
        CM_PARALLEL_FOR(g->threads)
        for (u = 0; u < y->groups * s.parts; u++)
            cm_wino_unit(g, r, &s, u / s.parts, u % s.parts, memory,
                         partial + count * (size_t)(u / s.parts));
        cm_wino_add_partials(g, r, partial);
    }
    cm_give_back(g, s.x);
    cm_give_back(g, memory);
    cm_give_back(g, partial);
}

/* Plane z of group k of the input's gradient, from the group of the result's. */
static void cm_input_plane(const cm_graph *g, const cm_record *r, cm_group *gradient,
                           const cm_real *packed, int k, int z, int add, const cm_record *norm)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    size_t site = (size_t)x->nc * CM_LANES;
    cm_taps taps;
    int m[3];
    cm_group_until(g, gradient, (z + r->pad) / r->stride + 1);
    m[0] = z;
    for (m[1] = 0; m[1] < x->nx; m[1]++) {
        for (m[2] = 0; m[2] < r->stride && m[2] < x->ny; m[2]++) {
            int n = (x->ny - m[2] + r->stride - 1) / r->stride;
            const cm_real *from = cm_row(y, gradient->at, 0, z / r->stride, m[1] / r->stride);
            cm_real *to = cm_row(x, x->dx, k, z, m[1]) + (size_t)m[2] * site;
            cm_backward_taps(y, r, m, &taps);
            cm_conv_chunks(g, from, (size_t)(y->nc * CM_LANES), &taps, y->nc, packed,
                           NULL, to, (size_t)r->stride * site, n, x->nc, add);
        }
        if (norm) cm_norm_row(g, norm, k, z, m[1]);
    }
}

static void cm_conv_to_input(cm_graph *g, const cm_record *r, int add, const cm_record *norm)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    const cm_real *packed = cm_weights(g, r, 1);
    cm_real *scratch = cm_is_unadded(y) ? cm_group_scratch(g, y, 0) : NULL;
    int parts = scratch ? 1 : x->nz, units = x->groups * parts, u;
    cm_give_back(g, packed);         /* nothing else is taken before the end */
    cm_give_back(g, scratch);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        cm_group gradient = cm_group_begin(y, 1, u / parts, scratch, 0);
        int z;
        for (z = u % parts; z < x->nz; z += parts)
            cm_input_plane(g, r, &gradient, packed, u / parts, z, add, norm);
    }
}

static void cm_conv_direct(cm_graph *g, cm_record *r)
{
    const cm_real *packed = cm_weights(g, r, 0);
    cm_real *scratch = r->in[0]->x ? NULL : cm_group_scratch(g, r->in[0], CM_RING);
    if (g->status == CALOMU_OK && !cm_dry(g)) {
        if (g->split && r->in[0]->x && !r->out->sums) cm_conv_lanes(g, r, packed);
        else cm_conv_forward(g, r, packed, scratch);
    }
    cm_give_back(g, scratch);
    cm_give_back(g, packed);
}

static void cm_join_end(cm_graph *g, cm_tensor *t);          /* 17.12 */

static void cm_conv_compute(cm_graph *g, cm_record *r)
{
    cm_values_ready(g, r->in[0]);
    if (r->wino && r->in[0]->blocks) cm_wino_lanes(g, r);
    else if (r->wino) cm_wino(g, r, 0, 0, NULL);
    else cm_conv_direct(g, r);
    if (r->in[0]->on_the_fly) cm_join_end(g, r->in[0]->producer->in[0]);
}

static void cm_conv_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0];
    cm_record *norm;
    int add;
    if (r->w.dx) {
        cm_values_ready(g, x);
        if (r->wino) cm_wino_to_weights(g, r);
        else cm_conv_to_weights(g, r);
        if (cm_cheap(x)) cm_forget(g, x);
    }
    if (r->bias.dx) cm_conv_to_bias(g, r);
    cm_profile_end(g, r, "to weights");
    if (!x->needs) return;
    add = cm_grad_begin(g, x);
    norm = cm_norm_ahead(g, x);
    if (r->wino) cm_wino(g, r, 1, add, norm);
    else cm_conv_to_input(g, r, add, norm);
}

/* Sites per axis of a result; how far the taps of the input reach behind it; and how far the
   backward pass reaches outside the result.  Returns 0 if there is no result. */
static int cm_conv_sizes(const int n[3], int kernel, int stride, int pad, int size[3], int *hi,
                         int *back_lo, int *back_hi)
{
    int a, reach;
    *hi = *back_hi = 0;
    *back_lo = kernel - 1 - pad > 0 ? (kernel - 1 - pad + stride - 1) / stride : 0;
    for (a = 0; a < 3; a++) {
        if (n[a] + 2 * pad < kernel) return 0;
        size[a] = (n[a] + 2 * pad - kernel) / stride + 1;
        reach = (size[a] - 1) * stride - pad + kernel - n[a];
        if (reach > *hi) *hi = reach;
        reach = (n[a] - 1 + pad) / stride - (size[a] - 1);
        if (reach > *back_hi) *back_hi = reach;
    }
    return 1;
}

/* then: what the network does with the result: Swish and `norm`, or the mean of it (CM_MEAN). */
static cm_tensor *cm_conv_then(cm_graph *g, cm_tensor *x, cm_weight w, cm_weight bias, int out,
                               int kernel, int stride, int pad, int halo, const cm_norm *norm,
                               int then)
{
    int size[3], n[3], hi, back_lo, back_hi, wino;
    cm_tensor *y, *own = NULL;
    const cm_blocks *blocks = NULL;
    cm_record *r;
    if (!x || g->status != CALOMU_OK) return NULL;
    n[0] = cm_nz(x);
    n[1] = cm_nx(x);
    n[2] = x->ny;
    wino = !bias.x && cm_conv_wino(g, n[1], kernel, stride, pad);
    if (kernel < 1 || kernel > 4 || stride < 1 || pad < 0 || pad >= kernel || out < 1
        || !cm_conv_sizes(n, kernel, stride, pad, size, &hi, &back_lo, &back_hi)
        || (!wino && !x->blocks && (x->lo < pad || x->hi < hi))) {
        cm_graph_fail(g, CALOMU_EUSAGE, "convolution: sizes do not fit, or the halo is too small");
        return NULL;
    }
    if (!g->training || wino) back_lo = back_hi = 0;
    if (x->blocks) {
        blocks = cm_result_blocks(g, size);
        if (!blocks) return NULL;
        if (!wino)                   /* else the result has the same blocks, of whole planes */
            x = own = cm_reblock(g, x, blocks, stride, pad, cm_larger(hi, kernel - stride - pad));
        halo = 0;
    }
    y = cm_tensor_new(g, x ? x->muons : 1, size, out, cm_larger(halo, back_lo),
                      cm_larger(halo, back_hi));
    if (!y || !x) return NULL;
    y->blocks = blocks;
    y->edge = !wino;                 /* Winograd's method reads no halo of the gradient */
    r = cm_record_new(g, g->o->conv.backward, y, x, NULL);
    if (!r) return NULL;
    r->w = w;
    r->bias = bias;
    r->kernel = kernel;
    r->stride = stride;
    r->pad = pad;
    r->wino = wino;
    r->share[0] = CM_SHARE_CONV;
    r->takes_unadded = CM_GROUPS;
    if (norm) cm_norm_inline(g, r, norm, then & ~CM_MEAN);
    if (norm && g->status != CALOMU_OK) return NULL;
    cm_sums_take(g, y, !norm && then == CM_SWISH_BEFORE, then & CM_MEAN);
    r->again = g->o->conv.forward;
    g->o->conv.forward(g, r);
    if (own) cm_give_back(g, own->x);
    return g->status == CALOMU_OK ? cm_done(g, r, "convolution") : NULL;
}

cm_tensor *cm_conv(cm_graph *g, cm_tensor *x, cm_weight w, cm_weight bias, int out, int kernel,
                   int stride, int pad, int halo)
{
    return cm_conv_then(g, x, w, bias, out, kernel, stride, pad, halo, NULL, 0);
}

/* A fully connected layer is a convolution of one site: y[o] = bias[o] + sum w[o][i] x[i]. */
cm_tensor *cm_linear(cm_graph *g, cm_tensor *x, cm_weight w, cm_weight bias, int out)
{
    return cm_conv(g, x, w, bias, out, 1, 1, 0, 0);
}

/* 17.7 Sparse convolution and sums straight from the hits

   The same equation as 17.5 with one input channel that is zero but for the hits, so the sum runs
   over hits: each adds e*w[.][k] to the outputs j with stride*j + k - pad = cell.  One unit of
   work is one plane of outputs of one group, built muon by muon as [site][channel] in the first
   cache and then turned into lanes.  Hits are in rising cells, so each output has one order. */

/* Hits of event v in layers [first, last]: their range, by bisection. */
static void cm_hit_range(const cm_hits *h, int v, int first, int last, size_t *a, size_t *b)
{
    size_t layer = (size_t)h->nx * (size_t)h->ny, bound[2], found[2];
    int side;
    bound[0] = (size_t)(first < 0 ? 0 : first) * layer;
    bound[1] = (size_t)(last < 0 ? 0 : last + 1) * layer;
    for (side = 0; side < 2; side++) {
        size_t lo = 0, hi = h->event[v].n_hits;
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;
            if (h->event[v].hits[mid].cell < bound[side]) lo = mid + 1;
            else hi = mid;
        }
        found[side] = lo;
    }
    *a = found[0];
    *b = found[1];
}

/* Outputs of one plane and muon, [x][y][C], with a margin: what hits add outside goes there. */
typedef struct cm_flat {
    int wide;                        /* sites from one x to the next */
    size_t size, origin;             /* reals in all, and before (0, 0) */
} cm_flat;

static cm_flat cm_flat_of(const cm_record *r)
{
    int n[3], size[3], hi, lo_out, hi_out;
    cm_flat f;
    n[0] = r->hits->nz;
    n[1] = r->hits->nx;
    n[2] = r->hits->ny;
    (void)cm_conv_sizes(n, r->kernel, r->stride, r->pad, size, &hi, &lo_out, &hi_out);
    f.wide = lo_out + size[2] + hi_out;
    f.size = (size_t)((lo_out + size[1] + hi_out) * f.wide * r->out->nc);
    f.origin = (size_t)((lo_out * f.wide + lo_out) * r->out->nc);
    return f;
}

/* One muon and output plane z: between w [packed cell][C] and the plane. */
static void cm_sparse_plane(const cm_graph *g, const cm_record *r, int v, int z, cm_real *w,
                            cm_real *plane, const cm_flat *f, int forward)
{
    const cm_hits *h = r->hits;
    size_t first, end;
    cm_sparse_job j;
    j.low = z * r->stride - r->pad;
    cm_hit_range(h, v, j.low, j.low + r->kernel - 1, &first, &end);
    j.n = end - first;
    j.hit = j.n > 0 ? h->event[v].hits + first : NULL;
    j.nx = h->nx;
    j.ny = h->ny;
    j.kernel = r->kernel;
    j.stride = r->stride;
    j.pad = r->pad;
    j.wide = f->wide;
    j.C = r->out->nc;
    if (j.n > 0) g->k->sparse(&j, w, plane + f->origin, forward);
}

/* The planes of all lanes, which lie behind each other, to rows of the result; they are zero then,
   but for their margins. */
static void cm_planes_out(const cm_tensor *t, int k, int z, cm_real *plane, const cm_flat *f)
{
    int x, i, l, n = t->ny * t->nc;
    plane += f->origin;
    for (x = 0; x < t->nx; x++, plane += f->wide * t->nc) {
        cm_real *row = cm_row(t, t->x, k, z, x);
        for (i = 0; i < n; i++, row += CM_LANES)
            CM_EACH_LANE(l) row[l] = plane[(size_t)l * f->size + (size_t)i];
        CM_EACH_LANE(l) memset(plane + (size_t)l * f->size, 0, (size_t)n * sizeof *plane);
    }
}

/* And from rows of the result's gradient. */
static void cm_planes_in(const cm_graph *g, const cm_tensor *t, int k, int z, cm_real *scratch,
                         cm_real *plane, const cm_flat *f)
{
    int x, i, l;
    plane += f->origin;
    for (x = 0; x < t->nx; x++, plane += f->wide * t->nc) {
        const cm_real *row = cm_gradient_row(g, t, k, z, x, scratch);
        for (i = 0; i < t->ny * t->nc; i++, row += CM_LANES)
            CM_EACH_LANE(l) plane[(size_t)l * f->size + (size_t)i] = row[l];
    }
}

static void cm_sparse_forward(cm_graph *g, const cm_record *r, cm_real *w, cm_real *scratch)
{
    const cm_tensor *t = r->out;
    const cm_flat f = cm_flat_of(r);
    int units = t->groups * t->nz, u;
    memset(scratch, 0, f.size * (size_t)(CM_LANES * g->threads) * sizeof *scratch);
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        cm_real *plane = scratch + f.size * (size_t)(CM_LANES * cm_thread());
        int k = u / t->nz, z = u % t->nz, l;
        for (l = 0; l < CM_LANES && k * CM_LANES + l < t->muons; l++)
            cm_sparse_plane(g, r, k * CM_LANES + l, z, w, plane + f.size * (size_t)l, &f, 1);
        cm_planes_out(t, k, z, plane, &f);
        for (l = 0; l < t->nx; l++) cm_conv_row_done(g, r, k, z, l);
    }
}

/* One muon: a row of all blocks from its planes, which lie behind each other, one for each block
   along z. */
static void cm_blocks_out(const cm_tensor *t, int z, int x, const cm_real *planes,
                          const cm_flat *f)
{
    const cm_blocks *b = t->blocks;
    cm_real *row = cm_row(t, t->x, 0, z, x);
    const cm_real *from[CM_LANES] = { NULL };
    int l, i, n = t->ny * t->nc;
    for (l = 0; l < b->along * b->across; l++) {
        int gz = l / b->across * b->z + z, gx = l % b->across * b->x + x;
        if (gz < b->nz && gx < b->nx)
            from[l] = planes + f->size * (size_t)(l / b->across) + f->origin + gx * f->wide * t->nc;
    }
    memset(row, 0, (size_t)(n * CM_LANES) * sizeof *row);
    for (i = 0; i < n; i++, row += CM_LANES)
        CM_EACH_LANE(l) if (from[l]) row[l] = from[l][i];
}

/* Plane z of all blocks. */
static void cm_sparse_block(const cm_graph *g, const cm_record *r, cm_real *w, cm_real *scratch,
                            const cm_flat *f, int z)
{
    const cm_tensor *t = r->out;
    const cm_blocks *b = t->blocks;
    cm_real *planes = scratch + f->size * (size_t)(CM_LANES * cm_thread_in(g));
    int i;
    memset(planes, 0, f->size * (size_t)b->along * sizeof *planes);
    for (i = 0; i < b->along && i * b->z + z < b->nz; i++)
        cm_sparse_plane(g, r, 0, i * b->z + z, w, planes + f->size * (size_t)i, f, 1);
    for (i = 0; i < t->nx; i++) {
        cm_blocks_out(t, z, i, planes, f);
        cm_conv_row_done(g, r, 0, z, i);
    }
}

static void cm_sparse_blocks(cm_graph *g, const cm_record *r, cm_real *w, cm_real *scratch)
{
    const cm_tensor *t = r->out;
    const cm_flat f = cm_flat_of(r);
    int threads = t->nz > 1 ? cm_row_team(g, t) : 1, z;
    CM_EACH_UNIT(threads, 1, z, t->nz, cm_sparse_block(g, r, w, scratch, &f, z));
}

/* Weights [out][cells] to [packed cell][out]. */
static void cm_sparse_pack(const cm_record *r, const cm_real *w, cm_real *packed)
{
    int cells = r->kernel * r->kernel * r->kernel, out = r->out->nc, t, c;
    for (t = 0; t < cells; t++)
        for (c = 0; c < out; c++)
            *packed++ = w[c * cells + cm_packed_cell(r->kernel, r->stride, 1, t)];
}

/* And their gradients back, [L][packed cell][out] to sums over the lanes. */
static void cm_sparse_lanes(const cm_record *r, const cm_real *w, double *partial)
{
    int cells = r->kernel * r->kernel * r->kernel, out = r->out->nc, t, c, l;
    for (t = 0; t < cells; t++)
        for (c = 0; c < out; c++, w++) {
            double s[CM_LANES];
            CM_EACH_LANE(l) s[l] = (double)w[l * cells * out];
            partial[c * cells + cm_packed_cell(r->kernel, r->stride, 1, t)] = cm_lanes_sum(s);
        }
}

static void cm_sparse_backward(cm_graph *g, cm_record *r)
{
    const cm_tensor *t = r->out;
    const cm_flat f = cm_flat_of(r);
    int units = t->groups, u;
    size_t nw = (size_t)(r->kernel * r->kernel * r->kernel * t->nc), per = CM_LANES * (f.size + nw);
    cm_real *scratch, *rows;
    double *partial;
    if (!r->w.dx) return;
    scratch = cm_arena_take(g, per * (size_t)g->threads);
    partial = cm_partials(g, units, nw);
    rows = cm_row_scratch(g, t, cm_is_unadded(t));
    if (!scratch || !partial || g->status != CALOMU_OK) return;
    if (!cm_dry(g)) {
        CM_PARALLEL_FOR(g->threads)
        for (u = 0; u < units; u++) {
            cm_real *plane = scratch + per * (size_t)cm_thread(), *w = plane + CM_LANES * f.size;
            int z, l;
            memset(plane, 0, per * sizeof *plane);
            for (z = 0; z < t->nz; z++) {
                cm_planes_in(g, t, u, z, cm_scratch_here(t, rows), plane, &f);
                for (l = 0; l < CM_LANES && u * CM_LANES + l < t->muons; l++)
                    cm_sparse_plane(g, r, u * CM_LANES + l, z, w + nw * (size_t)l,
                                    plane + f.size * (size_t)l, &f, 0);
            }
            cm_sparse_lanes(r, w, partial + nw * (size_t)u);
        }
        cm_add_partials(g, partial, units, nw, r->w.dx);
    }
    cm_give_back(g, partial);
    cm_give_back(g, scratch);
}

static void cm_sparse_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *t = r->out;
    int n = r->kernel * r->kernel * r->kernel * t->nc, i;
    cm_real *packed = cm_arena_take(g, (size_t)n);
    cm_real *scratch = cm_arena_take(g, cm_flat_of(r).size * (size_t)(CM_LANES * g->threads));
    cm_give_back(g, scratch);        /* nothing else is taken before the end */
    cm_give_back(g, packed);
    if (!packed || !scratch || cm_dry(g)) return;
    if (r->w.x) cm_sparse_pack(r, r->w.x, packed);
    else for (i = 0; i < n; i++) packed[i] = (cm_real)r->scale;
    if (t->blocks) cm_sparse_blocks(g, r, packed, scratch);
    else cm_sparse_forward(g, r, packed, scratch);
}

static cm_tensor *cm_sparse(cm_graph *g, const cm_hits *hits, cm_weight w, double scale, int out,
                            int kernel, int stride, int pad, int halo, const cm_norm *norm,
                            int swish)
{
    int size[3], n[3], hi, back_lo, back_hi;
    const cm_blocks *blocks = NULL;
    cm_tensor *t;
    cm_record *r;
    n[0] = hits->nz;
    n[1] = hits->nx;
    n[2] = hits->ny;
    if (kernel < 1 || kernel > 4 || stride < 1 || pad < 0 || pad >= kernel || out < 1
        || !cm_conv_sizes(n, kernel, stride, pad, size, &hi, &back_lo, &back_hi)) {
        cm_graph_fail(g, CALOMU_EUSAGE, "sparse convolution: sizes do not fit");
        return NULL;
    }
    if (g->split && hits->muons == 1) {
        blocks = cm_result_blocks(g, size);
        if (!blocks) return NULL;
        halo = 0;
    }
    t = cm_tensor_new(g, hits->muons, size, out, halo, halo);
    if (!t) return NULL;
    t->blocks = blocks;
    r = cm_record_new(g, g->o->sparse.backward, t, NULL, NULL);
    if (!r) return NULL;
    r->w = w;
    r->scale = scale;
    r->hits = hits;
    r->kernel = kernel;
    r->stride = stride;
    r->pad = pad;
    r->takes_unadded = CM_ROWS;
    if (norm) cm_norm_inline(g, r, norm, swish);
    else if (swish) cm_sums_take(g, t, 1, 0);
    if (g->status != CALOMU_OK) return NULL;
    g->o->sparse.forward(g, r);
    return g->status == CALOMU_OK ? cm_done(g, r, "sparse convolution") : NULL;
}

cm_tensor *cm_sparse_conv(cm_graph *g, const cm_hits *hits, cm_weight w, int out, int kernel,
                          int stride, int pad, int halo)
{
    if (!hits || g->status != CALOMU_OK) return NULL;
    return cm_sparse(g, hits, w, 0, out, kernel, stride, pad, halo, NULL, 0);
}

/* Sums over 2x2x2 cells, stride 2, padding 1, times scale: the first energy sum (scale 1) and the
   first average pooling (1/8).  No gradient goes to the hits. */
cm_tensor *cm_sparse_sum(cm_graph *g, const cm_hits *hits, double scale, int halo)
{
    cm_weight none = { NULL, NULL };
    cm_tensor *t;
    if (!hits || g->status != CALOMU_OK) return NULL;
    t = cm_sparse(g, hits, none, scale, 1, 2, 2, 1, halo, NULL, 0);
    if (t) t->needs = 0;
    return t;
}

/* 17.8 Pooling:  y[c](j) = scale * sum over k in {0, 1}^3 of x[first + c](2j + k - 1)

   With scale 1/8 the average pooling of the shortcut (padding counts), with scale 1 on channel 0
   the energy sum.  Backward: every input has exactly one output, j = (i + 1)/2. */

static void cm_pool_drow(const cm_graph *g, const cm_record *r, int k, int z, int i, cm_real *to,
                         int add)
{
    static const cm_tap here = { 0, 0 };
    const cm_tensor *x = r->in[0], *y = r->out;
    const cm_real *from = cm_row(y, y->dx, k, (z + 1) / 2, (i + 1) / 2);
    size_t in = (size_t)(x->nc * CM_LANES), out = (size_t)(y->nc * CM_LANES);
    int j;
    for (j = 0; j < x->ny; j++)
        g->k->box(from + out * (size_t)((j + 1) / 2), 0, &here, 1, to + in * (size_t)j, 0, 1,
                  y->nc, (cm_real)r->scale, add);
}

static void cm_pool_share_row(const cm_graph *g, const cm_record *r, const cm_tensor *t, int k,
                              int z, int i, cm_real *to)
{
    (void)t;
    cm_pool_drow(g, r, k, z, i, to, 0);
}

static void cm_pool_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0];
    int units = x->groups * x->nz, u, add;
    if (!r->added[0]) return;
    if (x->nc != r->out->nc) cm_gradient(g, x);  /* the other channels are zero */
    add = cm_grad_begin(g, x);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        int k = u / x->nz, z = u % x->nz, i;
        for (i = 0; i < x->nx; i++)
            cm_pool_drow(g, r, k, z, i, cm_row(x, x->dx, k, z, i) + r->first * CM_LANES, add);
    }
}

/* Sites `from` to `end` - 1 of a row of the result, of whose cells along y those from `low` to
   `high` are in the grid; row: where the rows of x are, from `base`. */
static void cm_pool_sites(const cm_graph *g, const cm_record *r, const cm_real *base,
                          const ptrdiff_t *row, int rows, int from, int end, int low, int high,
                          cm_real *to)
{
    int in = r->in[0]->nc * CM_LANES, out = r->out->nc * CM_LANES, n = 0, t, q;
    cm_tap tap[8];
    for (t = 0; t < rows; t++)
        for (q = low; q <= high; q++) {
            tap[n].x = row[t] + (q - 1) * in;
            tap[n++].w = 0;
        }
    if (from >= end) return;
    g->k->box(base + (size_t)(2 * from * in) + r->first * CM_LANES, (size_t)(2 * in), tap, n,
              to + from * out, (size_t)out, end - from, r->out->nc, (cm_real)r->scale, 0);
}

/* A row of the result from the rows of x that are in the grid, up to 2 x 2, or of other blocks of a
   muon (16.2), which are in the halo; no other halo is read.  Outside are zeros, and 0 + 0 and
   a + 0 are 0 and a: a sum that begins with 0 is never -0.  scratch: for rows that are made. */
static void cm_pool_row(const cm_graph *g, const cm_record *r, int k, int z, int i,
                        cm_real *scratch)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    const cm_real *base = scratch ? scratch : cm_row(x, x->x, k, 0, 0);
    cm_real *to = cm_row(y, y->x, k, z, i);
    int both = (x->ny + 1) / 2, rows = 0, t;     /* sites but the first that have both cells */
    ptrdiff_t row[4];
    for (t = 0; t < 4; t++) {
        int a = 2 * z - 1 + t / 2, b = 2 * i - 1 + t % 2;
        if (!y->blocks && !cm_inside(x, a, b)) continue;
        row[rows] = scratch ? (ptrdiff_t)t * x->ny * x->nc * CM_LANES : cm_site_offset(x, a, b, 0);
        if (scratch) (void)cm_value_row(g, x, k, a, b, scratch + row[rows]);
        rows++;
    }
    cm_pool_sites(g, r, base, row, rows, 0, 1, 1, 1, to);
    cm_pool_sites(g, r, base, row, rows, 1, both, 0, 1, to);
    cm_pool_sites(g, r, base, row, rows, both, y->ny, 0, 0, to);
}

static void cm_pool_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int units = y->groups * y->nz, u;
    size_t size = (size_t)(4 * x->ny * x->nc * CM_LANES);
    cm_real *scratch = x->x ? NULL : cm_arena_take(g, size * (size_t)g->threads);
    cm_give_back(g, scratch);        /* nothing else is taken before the end */
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        cm_real *made = scratch ? scratch + size * (size_t)cm_thread() : NULL;
        int i;
        for (i = 0; i < y->nx; i++) cm_pool_row(g, r, u / y->nz, u % y->nz, i, made);
    }
}

cm_tensor *cm_pool(cm_graph *g, cm_tensor *x, int first, int n, double scale, int halo)
{
    int size[3], in[3], hi, lo, back;
    cm_tensor *y, *own = NULL;
    const cm_blocks *blocks = NULL;
    cm_record *r;
    if (!x || g->status != CALOMU_OK) return NULL;
    in[0] = cm_nz(x);
    in[1] = cm_nx(x);
    in[2] = x->ny;
    if (first < 0 || n < 1 || first + n > x->nc
        || !cm_conv_sizes(in, 2, 2, 1, size, &hi, &lo, &back)) {
        cm_graph_fail(g, CALOMU_EUSAGE, "pooling: sizes do not fit");
        return NULL;
    }
    if (x->blocks) {
        cm_tensor *some = n == x->nc ? x : cm_block_channels(g, x, first, n);
        blocks = some ? cm_result_blocks(g, size) : NULL;
        own = blocks ? cm_reblock(g, some, blocks, 2, 1, cm_larger(hi, 0)) : NULL;
        if (!own) return NULL;
        if (some != x) cm_give_back(g, some->x);
        x = own;
        first = halo = 0;
    }
    y = cm_tensor_new(g, x->muons, size, n, halo, halo);
    if (!y) return NULL;
    y->blocks = blocks;
    r = cm_record_new(g, g->o->pool.backward, y, x, NULL);
    if (!r) return NULL;
    r->first = first;
    r->scale = scale;
    if (n == x->nc) r->share[0] = CM_SHARE_ROWS;
    r->share_row = cm_pool_share_row;
    y->needs = x->needs;
    g->o->pool.forward(g, r);
    if (own) cm_give_back(g, own->x);
    return cm_done(g, r, "pooling");
}

/* 17.9 Pointwise: Swish-1, y = x sigmoid(x); sigmoid, y = 1/(1 + exp(-x)). */

static void cm_point_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    int units = x->groups * x->nz, u, add;
    cm_real *scratch;
    if (!x->needs) return;
    cm_remember(g, x);
    add = cm_grad_begin(g, x);
    scratch = cm_row_scratch(g, y, cm_is_unadded(y));
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        int i, k = u / x->nz, z = u % x->nz;
        for (i = 0; i < x->nx; i++)
            g->k->dpoint(cm_row(x, x->x, k, z, i),
                         y->x ? cm_row(y, y->x, k, z, i) : NULL,     /* sigmoid reads it */
                         cm_gradient_row(g, y, k, z, i, cm_scratch_here(y, scratch)),
                         cm_row(x, x->dx, k, z, i), x->ny * x->nc, r->first, add);
    }
}

static void cm_point_share(const cm_graph *g, const cm_record *r, cm_share s)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int at = s.y * x->nc * CM_LANES, i;
    for (; s.z < s.end; s.z++)
        for (i = 0; i < x->nx; i++) {
            cm_real *row = cm_row(y, y->x, s.k, s.z, i);
            g->k->point(cm_row(x, x->x, s.k, s.z, i) + at, row + at, s.n * x->nc, r->first);
            cm_sums_row(g, y, s.k, s.z, row);    /* of whole rows: there are none in blocks */
        }
}

static void cm_point_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0];
    int threads = cm_row_team(g, x), shares = cm_shares(x, threads), u;
    if (cm_dry(g)) return;
    CM_EACH_UNIT(threads, x->blocks != NULL, u, shares,
                 cm_point_share(g, r, cm_share_of(x, u, shares)));
}

static cm_tensor *cm_pointwise(cm_graph *g, cm_tensor *x, int what, int halo)
{
    cm_tensor *y;
    cm_record *r;
    if (!x || g->status != CALOMU_OK) return NULL;
    y = cm_tensor_like(g, x, x->nc, halo, halo);
    if (!y) return NULL;
    r = cm_record_new(g, g->o->point.backward, y, x, NULL);
    if (!r) return NULL;
    r->first = what;
    r->takes_unadded = CM_ROWS;
    cm_sums_take(g, y, 0, 0);
    if (what == 0) r->again = g->o->point.forward;
    g->o->point.forward(g, r);
    return cm_done(g, r, what == 0 ? "Swish" : "sigmoid");
}

cm_tensor *cm_swish(cm_graph *g, cm_tensor *x) { return cm_pointwise(g, x, 0, 0); }
cm_tensor *cm_sigmoid(cm_graph *g, cm_tensor *x) { return cm_pointwise(g, x, 1, 0); }

/* 17.10 Mean and maximum over the sites, per channel: one site of C channels. */

static const int cm_one_site[3] = { 1, 1, 1 };

static void cm_mean_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    int units = x->groups * x->nz, per = x->nc * CM_LANES, u, add;
    cm_real inverse = (cm_real)(1 / r->scale);
    if (!x->needs) return;
    for (u = 0; !cm_dry(g) && u < y->groups * per; u++)
        cm_row(y, y->dx, u / per, 0, 0)[u % per] *= inverse;
    if (!r->added[0]) return;
    add = cm_grad_begin(g, x);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        int i, k = u / x->nz;
        for (i = 0; i < x->nx; i++)
            g->k->spread(cm_row(y, y->dx, k, 0, 0), cm_row(x, x->dx, k, u % x->nz, i), x->ny,
                         x->nc, add);
    }
}

/* The same sums in the same order for a muon in blocks: of a row in float, of rows and planes in
   double. */
static void cm_mean_blocks(cm_graph *g, const cm_tensor *x, const cm_tensor *y)
{
    const cm_blocks *b = x->blocks;
    int per = x->nc * CM_LANES, z, i, c, rows = x->nz * x->nx;
    double *row = cm_scratch(g, (size_t)(rows * per + 2 * x->nc) * sizeof *row);
    double *sum = row + rows * per, *plane = sum + x->nc;        /* of each channel */
    cm_give_back(g, row);            /* nothing else is taken before the end */
    if (!row || cm_dry(g)) return;
    memset(y->x, 0, cm_total(y) * sizeof *y->x);         /* other lanes, and the halo */
    for (i = 0; i < rows; i++)
        g->k->sum(cm_row(x, x->x, 0, i / x->nx, i % x->nx), x->ny, x->nc, row + i * per);
    for (z = 0; z < b->nz; z++) {
        for (c = 0; c < x->nc; c++) plane[c] = 0;
        for (i = 0; i < b->nx; i++) {
            const double *from = row + (z % b->z * x->nx + i % b->x) * per;
            from += z / b->z * b->across + i / b->x;
            for (c = 0; c < x->nc; c++) plane[c] += from[c * CM_LANES];
        }
        for (c = 0; c < x->nc; c++) sum[c] = z > 0 ? sum[c] + plane[c] : plane[c];
    }
    for (c = 0; c < x->nc; c++)
        cm_row(y, y->x, 0, 0, 0)[c * CM_LANES]
            = (cm_real)(sum[c] / ((double)b->nz * b->nx * x->ny));
}

static void cm_mean_compute(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    int per = x->nc * CM_LANES, u;
    double *sum;
    if (x->blocks) {
        cm_mean_blocks(g, x, y);
        return;
    }
    sum = cm_sums(g, x, 0);
    cm_give_back(g, sum);            /* nothing else is taken before the end */
    for (u = 0; sum && !cm_dry(g) && u < y->groups * per; u++) {
        size_t first = (size_t)(u / per * x->nz) * (size_t)(2 * per) + (size_t)(u % per);
        cm_row(y, y->x, u / per, 0, 0)[u % per] = (cm_real)(sum[first] / r->scale);
    }
}

static cm_tensor *cm_mean_of(cm_graph *g, cm_tensor *x, int halo)
{
    cm_tensor *y;
    cm_record *r;
    if (!x || g->status != CALOMU_OK) return NULL;
    y = cm_tensor_new(g, x->muons, cm_one_site, x->nc, halo, halo);
    if (!y) return NULL;
    r = cm_record_new(g, g->o->mean.backward, y, x, NULL);
    if (!r) return NULL;
    r->share[0] = CM_SHARE_MEAN;
    r->scale = (double)x->nz * x->nx * x->ny;
    g->o->mean.forward(g, r);
    return g->status == CALOMU_OK ? cm_done(g, r, "mean") : NULL;
}

cm_tensor *cm_mean(cm_graph *g, cm_tensor *x) { return cm_mean_of(g, x, 0); }

/* Sites that share the maximum share its gradient, as PyTorch's amax does. */
static void cm_max_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    int k, per = x->nc * CM_LANES, rows = x->nz * x->nx;
    cm_real *d;
    if (!x->needs) return;
    cm_remember(g, x);               /* the ties are found in its values */
    d = cm_gradient(g, x);
    if (!d || g->status != CALOMU_OK || cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (k = 0; k < x->groups; k++) {
        const cm_real *top = cm_row(y, y->x, k, 0, 0);
        cm_real *dy = cm_row(y, y->dx, k, 0, 0);
        const double *ties = r->saved + (size_t)k * (size_t)per;
        int i, s, j;
        for (j = 0; j < per; j++) dy[j] /= (cm_real)ties[j];
        for (i = 0; i < rows; i++) {
            const cm_real *v = cm_row(x, x->x, k, i / x->nx, i % x->nx);
            cm_real *dv = cm_row(x, d, k, i / x->nx, i % x->nx);
            for (s = 0; s < x->ny; s++, v += per, dv += per)
                for (j = 0; j < per; j++) dv[j] = v[j] == top[j] ? dv[j] + dy[j] : dv[j];
        }
    }
}

/* The same of a muon in blocks, site by site in the order of the grid. */
static void cm_max_blocks(const cm_graph *g, const cm_tensor *x, const cm_tensor *y)
{
    const cm_blocks *b = x->blocks;
    cm_real *most = cm_row(y, y->x, 0, 0, 0);
    int z, i, s, c;
    if (cm_dry(g)) return;
    memset(y->x, 0, cm_total(y) * sizeof *y->x);         /* other lanes, and the halo */
    for (c = 0; c < x->nc; c++) most[c * CM_LANES] = x->x[c * CM_LANES];
    for (z = 0; z < b->nz; z++)
        for (i = 0; i < b->nx; i++) {
            const cm_real *v = cm_row(x, x->x, 0, z % b->z, i % b->x);
            v += z / b->z * b->across + i / b->x;
            for (s = 0; s < x->ny; s++)
                for (c = 0; c < x->nc; c++, v += CM_LANES) {
                    cm_real *top = most + c * CM_LANES;
                    *top = *v > *top || *v != *v ? *v : *top;            /* NaN stays */
                }
        }
}

static void cm_max_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    int k, per = x->nc * CM_LANES, rows = x->nz * x->nx;
    if (x->blocks) {
        cm_max_blocks(g, x, y);
        return;
    }
    r->saved = cm_small_take(g, (size_t)x->groups * (size_t)per * sizeof *r->saved);
    if (!r->saved || cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (k = 0; k < x->groups; k++) {
        cm_real *top = cm_row(y, y->x, k, 0, 0);
        double *ties = r->saved + (size_t)k * (size_t)per;
        int i, s, j;
        memcpy(top, cm_row(x, x->x, k, 0, 0), (size_t)per * sizeof *top);
        for (i = 0; i < rows; i++) {
            const cm_real *v = cm_row(x, x->x, k, i / x->nx, i % x->nx);
            for (s = 0; s < x->ny; s++, v += per)
                for (j = 0; j < per; j++) {
                    ties[j] = v[j] > top[j] ? 1 : ties[j] + (v[j] == top[j]);
                    top[j] = v[j] > top[j] || v[j] != v[j] ? v[j] : top[j];  /* NaN stays */
                }
        }
    }
}

static cm_tensor *cm_max_of(cm_graph *g, cm_tensor *x, int halo)
{
    cm_tensor *y;
    cm_record *r;
    if (!x || g->status != CALOMU_OK) return NULL;
    y = cm_tensor_new(g, x->muons, cm_one_site, x->nc, halo, halo);
    if (!y) return NULL;
    r = cm_record_new(g, g->o->max.backward, y, x, NULL);
    if (!r) return NULL;
    g->o->max.forward(g, r);
    return g->status == CALOMU_OK ? cm_done(g, r, "maximum") : NULL;
}

cm_tensor *cm_max(cm_graph *g, cm_tensor *x) { return cm_max_of(g, x, 0); }

/* 17.11 Plain combinations: add, scale, concatenate, channel 0, shortcut + gate*path.  cm_join does
   those at the end of a block in one pass. */

/* A row of `from`, n sites, times f to a row of `to`: channels of `from` start at c0, those of `to`
   at c1, C of them; f NULL: 1; else one value per channel and lane, of the same c0.  add: to what
   is there. */
static void cm_add_row(const cm_real *from, int from_nc, int c0, cm_real *to, int to_nc, int c1,
                       int n, int C, const cm_real *f, int add)
{
    int s, c, l;
    for (s = 0; s < n; s++)
        for (c = 0; c < C; c++) {
            const cm_real *a = from + (s * from_nc + c0 + c) * CM_LANES, *w = f;
            cm_real *b = to + (s * to_nc + c1 + c) * CM_LANES;
            if (f) w += c * CM_LANES;
            if (!f && !add) memcpy(b, a, CM_LANES * sizeof *b);
            else if (!f) CM_EACH_LANE(l) b[l] += a[l];
            else if (!add) CM_EACH_LANE(l) b[l] = w[l] * a[l];
            else CM_EACH_LANE(l) b[l] = cm_fma(w[l], a[l], b[l]);
        }
}

/* cm_add_row over all rows of two tensors; f: a tensor of one site, or NULL. */
static void cm_add_tensor(const cm_graph *g, const cm_tensor *from, cm_real *a, int c0,
                          const cm_tensor *to, cm_real *b, int c1, int C, const cm_tensor *f,
                          int add)
{
    int units = to->groups * to->nz, threads = to->nz * to->nx > 1 ? g->threads : 1, u;
    CM_PARALLEL_FOR(threads)
    for (u = 0; u < units; u++) {
        int k = u / to->nz, z = u % to->nz, x;
        for (x = 0; x < to->nx; x++)
            cm_add_row(cm_row(from, a, k, z, x), from->nc, c0, cm_row(to, b, k, z, x), to->nc, c1,
                       to->ny, C, f ? cm_row(f, f->x, k, 0, 0) : NULL, add);
    }
}

static int cm_same_sites(const cm_tensor *a, const cm_tensor *b)
{
    return a->muons == b->muons && a->nz == b->nz && a->nx == b->nx && a->ny == b->ny
        && !a->blocks == !b->blocks;
}

/* Whether two tensors have the same sites.  If only one of them is in blocks (16.2: the other came
   from the features), it becomes the whole muon in one lane, as the other is. */
static int cm_match(cm_graph *g, cm_tensor **a, cm_tensor **b)
{
    if (!*a || !*b || g->status != CALOMU_OK) return 0;
    if ((*a)->blocks && !(*b)->blocks) *a = cm_whole(g, *a);
    else if ((*b)->blocks && !(*a)->blocks) *b = cm_whole(g, *b);
    return *a && *b && cm_same_sites(*a, *b);
}

static cm_tensor *cm_misfit(cm_graph *g, const char *text)
{
    cm_graph_fail(g, CALOMU_EUSAGE, text);
    return NULL;
}

/* A result of nc channels with the sites of a; b may be NULL. */
static cm_tensor *cm_combination(cm_graph *g, const cm_operation *o, const char *name,
                                 cm_tensor *a, cm_tensor *b, int nc, int halo)
{
    cm_tensor *y = cm_tensor_like(g, a, nc, halo, halo);
    cm_record *r = y ? cm_record_new(g, o->backward, y, a, b) : NULL;
    if (!r) return NULL;
    o->forward(g, r);
    return cm_done(g, r, name);
}

/* Adds y's gradient, channels c1 .. c1 + C - 1, to all channels of an input. */
static void cm_pass_back(cm_graph *g, cm_tensor *to, const cm_tensor *y, int c1,
                         const cm_tensor *f)
{
    int add;
    if (!to->needs) return;
    add = cm_grad_begin(g, to);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    cm_add_tensor(g, y, y->dx, c1, to, to->dx, 0, to->nc, f, add);
}

static void cm_add_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *a = r->in[0], *b = r->in[1], *y = r->out;
    if (cm_dry(g)) return;
    cm_add_tensor(g, a, a->x, 0, y, y->x, 0, a->nc, NULL, 0);
    cm_add_tensor(g, b, b->x, 0, y, y->x, 0, b->nc, NULL, 1);
}

static void cm_add_backward(cm_graph *g, cm_record *r)
{
    cm_pass_back(g, r->in[0], r->out, 0, NULL);
    cm_pass_back(g, r->in[1], r->out, 0, NULL);
}

cm_tensor *cm_add(cm_graph *g, cm_tensor *a, cm_tensor *b)
{
    if (!a || !b || g->status != CALOMU_OK) return NULL;
    if (!cm_match(g, &a, &b) || a->nc != b->nc) return cm_misfit(g, "sum: different shapes");
    return cm_combination(g, &g->o->add, "sum", a, b, a->nc, 0);
}

static void cm_concat_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *a = r->in[0], *b = r->in[1], *y = r->out;
    if (cm_dry(g)) return;
    cm_add_tensor(g, a, a->x, 0, y, y->x, 0, a->nc, NULL, 0);
    cm_add_tensor(g, b, b->x, 0, y, y->x, a->nc, b->nc, NULL, 0);
}

static void cm_concat_backward(cm_graph *g, cm_record *r)
{
    cm_pass_back(g, r->in[0], r->out, 0, NULL);
    cm_pass_back(g, r->in[1], r->out, r->in[0]->nc, NULL);
}

static cm_tensor *cm_concat_of(cm_graph *g, cm_tensor *a, cm_tensor *b, int halo)
{
    if (!a || !b || g->status != CALOMU_OK) return NULL;
    if (!cm_match(g, &a, &b)) return cm_misfit(g, "concatenation: different sites");
    return cm_combination(g, &g->o->concat, "concatenation", a, b, a->nc + b->nc, halo);
}

cm_tensor *cm_concat(cm_graph *g, cm_tensor *a, cm_tensor *b) { return cm_concat_of(g, a, b, 0); }

/* y[c] = x[c] for the first channels. */
static void cm_channel_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    if (!cm_dry(g)) cm_add_tensor(g, x, x->x, 0, y, y->x, 0, y->nc, NULL, 0);
}

static void cm_channel_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *y = r->out;
    if (!x->needs || !cm_gradient(g, x) || cm_dry(g)) return;    /* the others get zero */
    cm_add_tensor(g, y, y->dx, 0, x, x->dx, 0, y->nc, NULL, 1);
}

/* The first nc channels of x as a tensor of its own. */
static cm_tensor *cm_channel(cm_graph *g, cm_tensor *x, int nc, int halo)
{
    if (!x || g->status != CALOMU_OK) return NULL;
    return cm_combination(g, &g->o->channel, "channel", x, NULL, nc, halo);
}

/* The muon's gate, in lane 0, for the blocks of all lanes. */
static void cm_gate_spread(const cm_graph *g, const cm_tensor *gate)
{
    cm_real *x = cm_dry(g) ? NULL : cm_row(gate, gate->x, 0, 0, 0);
    int c, l;
    for (c = 0; x && c < gate->nc; c++)
        CM_EACH_LANE(l) x[c * CM_LANES + l] = x[c * CM_LANES];
}

/* One value for each channel of x. */
static int cm_is_gate(const cm_tensor *gate, const cm_tensor *x)
{
    return gate->muons == x->muons && gate->nc == x->nc && gate->nz * gate->nx * gate->ny == 1;
}

static void cm_scale_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    if (!cm_dry(g)) cm_add_tensor(g, x, x->x, 0, y, y->x, 0, x->nc, r->in[1], 0);
}

static void cm_scale_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0], *gate = r->in[1], *y = r->out;
    int k, z, i, j, per = x->nc * CM_LANES;
    cm_pass_back(g, x, y, 0, gate);
    if (!gate->needs || !cm_gradient(g, gate) || cm_dry(g)) return;
    for (k = 0; k < x->groups; k++)
        for (z = 0; z < x->nz; z++)
            for (i = 0; i < x->nx; i++) {
                const cm_real *v = cm_row(x, x->x, k, z, i), *d = cm_row(y, y->dx, k, z, i);
                cm_real *dg = cm_row(gate, gate->dx, k, 0, 0);
                for (j = 0; j < x->ny * per; j++) dg[j % per] = cm_fma(v[j], d[j], dg[j % per]);
            }
}

cm_tensor *cm_scale(cm_graph *g, cm_tensor *x, cm_tensor *gate)
{
    if (!x || !gate || g->status != CALOMU_OK) return NULL;
    if (!cm_is_gate(gate, x)) return cm_misfit(g, "scale: no gate of these channels");
    return cm_combination(g, &g->o->scale, "scale", x, gate, x->nc, 0);
}

/* y = shortcut + gate*path, one rounding.  Any two of the three may be the same tensor, so backward
   adds to one after the other: ds += dy, dp += gate*dy, one rounding, then
   dgate[c] += sum over sites: path[c] dy[c], of a row in real, of rows and planes in double. */

static void cm_add_scaled_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *s = r->in[1], *p = r->in[2], *gate = r->in[3], *y = r->out;
    int units = y->groups * y->nz, u;
    if (p->blocks) cm_gate_spread(g, gate);
    if (cm_dry(g)) return;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        int i, k = u / y->nz, z = u % y->nz;
        for (i = 0; i < y->nx; i++)
            g->k->join(NULL, 0, 1, cm_row(s, s->x, k, z, i), cm_row(p, p->x, k, z, i),
                       cm_row(gate, gate->x, k, 0, 0), cm_row(y, y->x, k, z, i), y->ny, y->nc);
    }
}

/* To the shortcut s or to the path p (NULL: not), and sums for the gate, of planes. */
static void cm_add_scaled_pass(cm_graph *g, const cm_record *r, cm_tensor *s, cm_tensor *p,
                               double *sum)
{
    const cm_tensor *path = r->in[2], *gate = r->in[3], *y = r->out;
    int units = y->groups * y->nz, per = y->nc * CM_LANES, u, add;
    add = s ? cm_grad_begin(g, s) : p ? cm_grad_begin(g, p) << 1 : 0;
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    memset(sum, 0, (size_t)(units * per) * sizeof *sum);
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        int i, k = u / y->nz, z = u % y->nz;
        for (i = 0; i < y->nx; i++)
            g->k->djoin(cm_row(y, y->dx, k, z, i), cm_row(path, path->x, k, z, i),
                        cm_row(gate, gate->x, k, 0, 0), s ? cm_row(s, s->dx, k, z, i) : NULL,
                        p ? cm_row(p, p->dx, k, z, i) : NULL, y->ny, y->nc, 0, add,
                        sum + (size_t)(u * per));
    }
}

/* dgate from the sums of the planes. */
static void cm_gate_gradient(const cm_tensor *gate, const cm_tensor *path, double *sum, int add)
{
    int per = path->nc * CM_LANES, u;
    cm_plane_add(path, sum, 1);
    for (u = 0; u < path->groups * per; u++) {
        cm_real d = (cm_real)sum[(size_t)(u / per * path->nz * per + u % per)];
        cm_real *to = cm_row(gate, gate->dx, u / per, 0, 0) + u % per;
        *to = add ? *to + d : d;
    }
}

static void cm_add_scaled_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *s = r->in[1], *p = r->in[2], *gate = r->in[3];
    double *sum;
    int add;
    cm_remember(g, p);
    cm_remember(g, gate);
    sum = cm_plane_sums(g, p, 1);
    if (s->needs) cm_add_scaled_pass(g, r, s, NULL, sum);
    if (p->needs) cm_add_scaled_pass(g, r, NULL, p, sum);
    if (gate->needs) {
        add = cm_grad_begin(g, gate);
        cm_add_scaled_pass(g, r, NULL, NULL, sum);
        if (g->status == CALOMU_OK && !cm_dry(g)) cm_gate_gradient(gate, p, sum, add);
    }
    cm_give_back(g, sum);
}

static cm_tensor *cm_add_scaled(cm_graph *g, cm_tensor *shortcut, cm_tensor *path, cm_tensor *gate,
                                int halo)
{
    cm_tensor *y;
    cm_record *r;
    if (!shortcut || !path || !gate || g->status != CALOMU_OK) return NULL;
    if (!cm_match(g, &shortcut, &path) || shortcut->nc != path->nc || !cm_is_gate(gate, path))
        return cm_misfit(g, "shortcut + gate * path: different shapes");
    y = cm_tensor_like(g, path, path->nc, halo, halo);
    r = y ? cm_record_new(g, g->o->add_scaled.backward, y, NULL, shortcut) : NULL;
    if (!r) return NULL;
    r->in[2] = path;
    r->in[3] = gate;
    r->share[2] = r->share[3] = CM_SHARE_WHOLE;
    path->users++;
    gate->users++;
    g->o->add_scaled.forward(g, r);
    return cm_done(g, r, "add scaled");
}

/* 17.12 Join, the end of every block (Fig. 4): concat(scale*e, shortcut + gate*path).  Sums e come
   from the hits with fixed weights, so no parameter is behind them and they get no gradient. */

/* A row of the share of the shortcut or the path. */
static void cm_join_share_row(const cm_graph *g, const cm_record *r, const cm_tensor *t, int k,
                              int z, int i, cm_real *to)
{
    const cm_tensor *y = r->out;
    const cm_real *gate = t == r->in[2] ? r->gate : NULL;
    if (gate) gate += (size_t)(k * t->nc * CM_LANES);
    g->k->part(cm_row(y, y->dx, k, z, i), gate, to, t->ny, t->nc);
}

/* Where y's gradient is written with its unadded shares: over that of the batch norm they are made
   of, which nobody else reads, if their rows are alike; else NULL. */
static cm_real *cm_join_over(const cm_tensor *y)
{
    const cm_record *n = y->unadded.norms;
    const cm_tensor *v = n && !n->next_norm ? n->out : NULL;
    if (!v || y->dx || cm_is_unadded(v)) return NULL;
    return v->lo == y->lo && v->group == y->group ? v->dx : NULL;
}

typedef struct cm_join_pass {
    int add;                         /* which shares are added to what is there (djoin) */
    cm_real *value, *part;           /* rows of the threads, for the path and for y; or NULL */
    double *sum;
} cm_join_pass;

static void cm_join_differentiate(const cm_graph *g, const cm_record *r, const cm_join_pass *o)
{
    const cm_tensor *s = r->in[1], *p = r->in[2], *y = r->out;
    int units = y->groups * y->nz, u, per = p->nc * CM_LANES;
    CM_PARALLEL_FOR(g->threads)
    for (u = 0; u < units; u++) {
        int i, k = u / y->nz, z = u % y->nz;
        for (i = 0; i < y->nx; i++) {
            cm_real *dy = cm_row(y, y->dx, k, z, i), *part = cm_scratch_here(y, o->part);
            g->k->djoin(cm_gradient_row_to(g, y, k, z, i, part ? part : dy, dy),
                        cm_value_row(g, p, k, z, i, cm_scratch_here(p, o->value)),
                        r->gate + k * per, r->added[1] ? cm_row(s, s->dx, k, z, i) : NULL,
                        r->added[2] ? cm_row(p, p->dx, k, z, i) : NULL, y->ny, p->nc, 1, o->add,
                        o->sum + (size_t)(u * per));
        }
    }
}

static void cm_join_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *s = r->in[1], *p = r->in[2], *gate = r->in[3], *y = r->out;
    int per = p->nc * CM_LANES, add_gate, k;
    cm_real *over = cm_join_over(y);
    cm_join_pass o;
    cm_values_ready(g, p);
    o.sum = cm_plane_sums(g, p, 1);
    o.add = r->added[1] && cm_grad_begin(g, s);
    if (r->added[2] && cm_grad_begin(g, p)) o.add |= 2;
    add_gate = cm_grad_begin(g, gate);
    if (!y->dx) y->dx = over ? over : cm_arena_take(g, cm_total(y));
    r->gate = cm_small_take(g, (size_t)(y->groups * per) * sizeof *r->gate);
    o.part = over ? cm_rows_scratch(g, y) : NULL;
    o.value = cm_row_scratch(g, p, !p->x);
    cm_give_back(g, o.part);         /* nothing else is taken before the end */
    cm_give_back(g, o.sum);
    if (g->status != CALOMU_OK) return;
    if (!cm_dry(g)) {
        for (k = 0; k < y->groups; k++)
            memcpy(r->gate + k * per, cm_row(gate, gate->x, k, 0, 0),
                   (size_t)per * sizeof *r->gate);
        cm_join_differentiate(g, r, &o);
        cm_gate_gradient(gate, p, o.sum, add_gate);
    }
    if (over) y->unadded.norms->out->dx = NULL;  /* it is y's now */
}

/* scratch: for a row of the path, should it be made. */
static void cm_join_row(const cm_graph *g, const cm_record *r, int k, int z, int i,
                        cm_real *scratch)
{
    const cm_tensor *e = r->in[0], *s = r->in[1], *p = r->in[2], *gate = r->in[3], *y = r->out;
    cm_real *row = cm_row(y, y->x, k, z, i);
    g->k->join(cm_row(e, e->x, k, z, i), (size_t)(e->nc * CM_LANES), (cm_real)r->scale,
               cm_row(s, s->x, k, z, i), cm_value_row(g, p, k, z, i, scratch),
               cm_row(gate, gate->x, k, 0, 0), row, y->ny, p->nc);
    cm_sums_row(g, y, k, z, row);
}

/* The same of a muon in blocks: a share. */
static void cm_join_blocks(const cm_graph *g, const cm_record *r, cm_share o)
{
    const cm_tensor *e = r->in[0], *s = r->in[1], *p = r->in[2], *gate = r->in[3], *y = r->out;
    int at = o.y * CM_LANES, i;
    for (; o.z < o.end; o.z++)
        for (i = 0; i < y->nx; i++)
            g->k->join(cm_row(e, e->x, 0, o.z, i) + at * e->nc, (size_t)(e->nc * CM_LANES),
                       (cm_real)r->scale, cm_row(s, s->x, 0, o.z, i) + at * s->nc,
                       cm_row(p, p->x, 0, o.z, i) + at * p->nc, cm_row(gate, gate->x, 0, 0, 0),
                       cm_row(y, y->x, 0, o.z, i) + at * y->nc, o.n, p->nc);
}

static void cm_join_share(const cm_graph *g, const cm_record *r, cm_real *scratch, cm_share o)
{
    const cm_tensor *p = r->in[2];
    int i;
    if (p->blocks) cm_join_blocks(g, r, o);
    else
        for (i = 0; i < p->nx; i++)
            cm_join_row(g, r, o.k, o.z, i, g->threads > 1 ? cm_scratch_here(p, scratch) : scratch);
}

static void cm_join_compute(cm_graph *g, cm_record *r)
{
    const cm_tensor *p = r->in[2], *y = r->out;
    int threads = cm_row_team(g, y), shares = cm_shares(y, threads), u;
    cm_real *scratch = cm_row_scratch(g, p, !p->x);
    if (p->blocks) cm_gate_spread(g, r->in[3]);
    if (g->status != CALOMU_OK || cm_dry(g)) return;
    CM_EACH_UNIT(threads, y->blocks != NULL, u, shares,
                 cm_join_share(g, r, scratch, cm_share_of(y, u, shares)));
}

/* In inference a join may wait: the convolution of its values behind a batch norm, the first to
   read them, makes each row once and in one thread, and then it has them in the cache.  The join's
   inputs are kept until then. */
static void cm_join_defer(cm_record *r)
{
    int k;
    r->out->deferred = r;
    for (k = 0; k < 3; k++) r->in[k]->pending_readers++;
}

static void cm_join_end(cm_graph *g, cm_tensor *t)
{
    cm_record *r = t->deferred;
    int k;
    t->deferred = NULL;
    for (k = 0; r && k < 3; k++)
        if (--r->in[k]->pending_readers == 0 && r->in[k]->dropped) cm_give_back(g, r->in[k]->x);
}

/* wait: the next operation is a batch norm in front of a convolution (cm_batchnorm_by_groups). */
static cm_tensor *cm_join_for(cm_graph *g, cm_tensor *e, double scale, cm_tensor *shortcut,
                              cm_tensor *path, cm_tensor *gate, int halo, int defer)
{
    cm_tensor *y;
    cm_record *r;
    if (!e || !shortcut || !path || !gate || g->status != CALOMU_OK) return NULL;
    if (!cm_match(g, &e, &path) || !cm_match(g, &shortcut, &path) || !cm_match(g, &e, &path)
        || shortcut->nc != path->nc || shortcut == path || !cm_is_gate(gate, path))
        return cm_misfit(g, "join: tensors of different shapes");
    y = cm_tensor_like(g, path, path->nc + 1, halo, halo);
    if (!y) return NULL;
    r = cm_record_new(g, g->o->join.backward, y, e, shortcut);
    if (!r) return NULL;
    r->in[2] = path;
    r->in[3] = gate;
    r->takes_unadded = CM_ROWS;
    r->scale = scale;
    r->share[0] = CM_SHARE_NONE;
    r->share[1] = r->share[2] = CM_SHARE_ROWS;
    r->share[3] = CM_SHARE_WHOLE;
    r->share_row = cm_join_share_row;
    path->users++;
    gate->users++;
    cm_sums_take(g, y, 0, 0);
    if (defer && !g->training && g->threads == 1 && path->x && cm_by_groups(g, y)) cm_join_defer(r);
    else g->o->join.forward(g, r);
    return cm_done(g, r, "join");
}

cm_tensor *cm_join(cm_graph *g, cm_tensor *e, double scale, cm_tensor *shortcut, cm_tensor *path,
                   cm_tensor *gate, int halo)
{
    return cm_join_for(g, e, scale, shortcut, path, gate, halo, 0);
}

/* ---------------------------------------------------------------- 17.13 by the plain function

   A layer that has no kernels here is computed by its plain function (5), muon by muon: its values
   are taken out of the lanes, and what it makes is put back.  The same function gives the same
   bits.  It is as slow as part I, but for threads: it serves whoever has a layer like no other, and
   every operation before it is worth kernels.  A group's shares in the derivatives by weights are
   kept, added over its lanes, and the groups by their tree (17.3), as in 5.9. */

/* The values of muon v, out of the lanes of `from` (t's values or gradient), [z][x][y][channel]. */
static void cm_muon_take(const cm_tensor *t, cm_real *from, int v, cm_real *to)
{
    int z, x, i, row = t->ny * t->nc;
    for (z = 0; z < t->nz; z++)
        for (x = 0; x < t->nx; x++) {
            const cm_real *at = cm_row(t, from, v / CM_LANES, z, x) + v % CM_LANES;
            for (i = 0; i < row; i++) *to++ = at[i * CM_LANES];
        }
}

/* The way back; from NULL: zeros, of a lane behind the last muon. */
static void cm_muon_put(const cm_tensor *t, const cm_real *from, int v, cm_real *to)
{
    int z, x, i, row = t->ny * t->nc;
    for (z = 0; z < t->nz; z++)
        for (x = 0; x < t->nx; x++) {
            cm_real *at = cm_row(t, to, v / CM_LANES, z, x) + v % CM_LANES;
            for (i = 0; i < row; i++) at[i * CM_LANES] = from ? *from++ : 0;
        }
}

/* One muon's work: its x in memory of a thread, y behind it. */
static cm_work cm_plain_work(const cm_record *r, cm_real *memory)
{
    cm_work o;
    memset(&o, 0, sizeof o);
    o.l = r->layer;
    o.in[0] = r->reads;
    o.w = r->w.x;
    o.bias = r->bias.x;
    o.x[0] = memory;
    o.y = memory + cm_layer_size(r->reads);
    return o;
}

static void cm_by_plain_forward(cm_graph *g, cm_record *r)
{
    const cm_tensor *x = r->in[0], *y = r->out;
    size_t size = cm_layer_size(r->layer), each = size + cm_layer_size(r->reads);
    cm_real *memory = cm_arena_take(g, each * (size_t)g->threads);
    int k;
    if (memory && !cm_dry(g)) {
        CM_PARALLEL_FOR(g->threads)
        for (k = 0; k < y->groups; k++) {
            cm_real *own = memory + each * (size_t)cm_thread_in(g);
            cm_work o = cm_plain_work(r, own);
            int v;
            for (v = k * CM_LANES; v < (k + 1) * CM_LANES; v++) {
                if (v < y->muons) {
                    cm_muon_take(x, x->x, v, own);
                    cm_plain_kinds[r->layer->kind].forward(&o);
                }
                cm_muon_put(y, v < y->muons ? o.y : NULL, v, y->x);
            }
        }
    }
    cm_give_back(g, memory);
}

/* Memory of a thread, in backward. */
typedef struct cm_plain_scratch {
    cm_real *x, *dy, *dx, *dw;       /* of one muon */
    double *dbias;
    double *share;                   /* [weight, then bias][lane] */
} cm_plain_scratch;

/* Muon k L + l: dx, and its shares of n weights and the biases. */
static void cm_by_plain_muon(const cm_record *r, int v, size_t n, const cm_plain_scratch *m)
{
    cm_tensor *x = r->in[0], *y = r->out;
    cm_work o = cm_plain_work(r, m->x);
    size_t i, biases = r->bias.dx ? (size_t)y->nc : 0;
    double *share = m->share + v % CM_LANES;
    cm_muon_take(x, x->x, v, m->x);
    cm_muon_take(y, y->dx, v, m->dy);
    if (x->needs) cm_muon_take(x, x->dx, v, m->dx);
    o.dy = m->dy;
    o.dx[0] = x->needs ? m->dx : NULL;
    o.dw = n > 0 ? memset(m->dw, 0, n * sizeof *m->dw) : NULL;
    o.dbias = biases > 0 ? memset(m->dbias, 0, biases * sizeof *m->dbias) : NULL;
    cm_plain_kinds[r->layer->kind].backward(&o);
    if (x->needs) cm_muon_put(x, m->dx, v, x->dx);
    for (i = 0; i < n; i++, share += CM_LANES) *share = (double)m->dw[i];
    for (i = 0; i < biases; i++, share += CM_LANES) *share = m->dbias[i];
}

/* Group k: sums over its lanes, of `all` shares. */
static void cm_by_plain_group(const cm_record *r, int k, size_t n, size_t all,
                              const cm_plain_scratch *m, double *sums)
{
    int v, end = cm_smaller((k + 1) * CM_LANES, r->out->muons);
    size_t i;
    memset(m->share, 0, CM_LANES * all * sizeof *m->share);
    for (v = k * CM_LANES; v < end; v++) cm_by_plain_muon(r, v, n, m);
    for (i = 0; i < all; i++) sums[i] = cm_lanes_sum(m->share + i * CM_LANES);
}

/* All groups, and their sums. */
static void cm_by_plain_groups(cm_graph *g, const cm_record *r, size_t n, size_t all,
                               cm_real *memory, double *shares, double *partial)
{
    const size_t in = cm_layer_size(r->reads), out = cm_layer_size(r->layer);
    const size_t each = 2 * in + out + n, biases = (size_t)r->out->nc;
    size_t i;
    int k;
    CM_PARALLEL_FOR(g->threads)
    for (k = 0; k < r->out->groups; k++) {
        cm_plain_scratch m;
        m.x = memory + each * (size_t)cm_thread_in(g);
        m.dy = m.x + in;
        m.dx = m.dy + out;
        m.dw = m.dx + in;
        m.dbias = shares + (CM_LANES * all + biases) * (size_t)cm_thread_in(g);
        m.share = m.dbias + biases;
        cm_by_plain_group(r, k, n, all, &m, partial + all * (size_t)k);
    }
    cm_partials_sum(g, partial, r->out->groups, all);
    for (i = 0; i < n; i++) r->w.dx[i] += (cm_real)partial[i];
    for (i = n; i < all; i++) r->bias.dx[i - n] += (cm_real)partial[i];
}

static void cm_by_plain_backward(cm_graph *g, cm_record *r)
{
    cm_tensor *x = r->in[0];
    const size_t channels = (size_t)(r->reads->nc * r->layer->nc), threads = (size_t)g->threads;
    const size_t n = r->w.dx ? channels * cm_window_cells(&r->layer->window) : 0;
    const size_t all = n + (r->bias.dx ? (size_t)r->layer->nc : 0);
    const size_t each = 2 * cm_layer_size(r->reads) + cm_layer_size(r->layer) + n;
    double *partial, *shares;
    cm_real *memory;
    cm_remember(g, x);
    if (x->needs && !cm_gradient(g, x)) return;
    partial = cm_partials(g, r->out->groups, all);
    memory = cm_arena_take(g, each * threads);
    shares = cm_scratch(g, (CM_LANES * all + (size_t)r->layer->nc) * threads * sizeof *shares);
    if (partial && memory && shares && !cm_dry(g))
        cm_by_plain_groups(g, r, n, all, memory, shares, partial);
    cm_give_back(g, shares);
    cm_give_back(g, memory);
    cm_give_back(g, partial);
}

/* Layer l, which reads layer `reads`, the tensor x. */
static cm_tensor *cm_by_plain(cm_graph *g, cm_tensor *x, const cm_layer *l, const cm_layer *reads,
                              int halo, cm_weight w, cm_weight bias)
{
    const int size[3] = { l->nz, l->nx, l->ny };
    cm_tensor *y;
    cm_record *r;
    if (!x || g->status != CALOMU_OK) return NULL;
    if (g->unit) return cm_misfit(g, "a convolution of this window is not on the GPU yet");
    if (x->blocks) x = cm_whole(g, x);
    y = x ? cm_tensor_new(g, x->muons, size, l->nc, halo, halo) : NULL;
    r = y ? cm_record_new(g, cm_by_plain_backward, y, x, NULL) : NULL;
    if (!r) return NULL;
    r->layer = l;
    r->reads = reads;
    r->w = w;
    r->bias = bias;
    cm_by_plain_forward(g, r);
    return cm_done(g, r, cm_kind_names[l->kind]);
}

/* 17.14 The one table of operations, the processor's */

static const cm_operations cm_processor = {
    { cm_sparse_compute, cm_sparse_backward },
    { cm_conv_compute, cm_conv_backward },
    { cm_pool_compute, cm_pool_backward },
    { cm_point_compute, cm_point_backward },
    { cm_norm_apply, cm_norm_backward },
    { cm_mean_compute, cm_mean_backward },
    { cm_max_compute, cm_max_backward },
    { cm_add_compute, cm_add_backward },
    { cm_concat_compute, cm_concat_backward },
    { cm_scale_compute, cm_scale_backward },
    { cm_join_compute, cm_join_backward },
    { cm_channel_compute, cm_channel_backward },
    { cm_add_scaled_compute, cm_add_scaled_backward },
    cm_norm_prepare, cm_zero, cm_zero_halo
};

/* ============================================================================================
   18 The plan of a list
   ============================================================================================

   The list says what is computed; the plan says how: which layers one operation computes together
   (18.1), where its values are and for how long (18.2).  It follows by rules from who reads what,
   is made once for a list and a mode, and gives the same bits as the plain layers one by one:
   every rule says why.  calomu bench --plan prints it. */

typedef enum cm_values {             /* where the values of a step are */
    CM_KEPT,                         /* in memory, until the last that reads them */
    CM_BY_GROUPS, CM_BY_ROWS         /* in none: made by those that read them (17.4) */
} cm_values;

enum {                               /* rules that have changed a step: bits, in this order */
    CM_RULE_SWISH, CM_RULE_JOIN, CM_RULE_SAME_SUMS, CM_RULE_CHANNEL, CM_RULE_NORM_IN_CONV,
    CM_RULE_ON_THE_FLY, CM_RULE_SUMS, CM_RULE_HALO, CM_RULE_DEFERRED, CM_RULE_FORWARD_ONLY, CM_RULES
};

typedef struct cm_step {             /* one operation */
    int layer;                       /* whose result it is */
    int in[4];                       /* steps that it reads, in the order of its arguments; -1 */
    int join;                        /* 1: concatenation and the addition in it */
    int swish;                       /* of a norm: CM_SWISH_BEHIND, CM_SWISH_BEFORE or 0 */
    int norm;                        /* of a convolution: the layer of the norm in it, or -1 */
    double scale;                    /* of the energy sum of a join */
    int sums;                        /* what is summed on the way: CM_SWISH_BEFORE, CM_MEAN */
    cm_values values;
    int halo, deferred, needs;       /* needs: a gradient */
    int until;                       /* the last step for which its values are needed, */
    int forward_only;                /*   and 1: not in backward */
    int next;                        /* of the steps with the same `until`, or -1 */
    unsigned rules;
} cm_step;

typedef struct cm_schedule {         /* a plan */
    const cm_list *list;
    int training, wino, fused;       /* what it is for */
    cm_step *step;
    int n, result;                   /* steps; the one of the network's result */
    int *drop;                       /* for each step the first whose values end with it, or -1 */
    int *at;                         /* for each layer its step, or -1 */
    int *readers, *reader;           /* for each layer how many read it; the last of them */
    int *needs;                      /* of each layer: CM_NEEDS, CM_NEEDS_FIRST */
} cm_schedule;

enum { CM_NEEDS = 1, CM_NEEDS_FIRST };           /* a gradient is needed, and of channel 0 */

/* ---------------------------------------------------------------- 18.1 layers computed together

   Plain layers add to the gradient of what they read from the last layer to the first.  A rule that
   computes a layer later than its place in the list, with one behind it, holds only where nobody
   between the two adds to the same gradients (cm_read_between). */

static const cm_layer *cm_layer_of(const cm_schedule *p, const cm_step *t)
{
    return &p->list->layer[t->layer];
}

/* A gradient is needed where a parameter that is learned is behind a layer.  The energy sums are in
   channel 0 and behind no parameter, so they get none, as far as they are handed on. */
static void cm_plan_needs(cm_schedule *p)
{
    int i, k;
    for (i = 0; p->training && i < p->list->n; i++) {
        const cm_layer *l = &p->list->layer[i];
        for (k = 0; k < 3; k++)
            if (l->in[k] >= 0) p->needs[i] |= p->needs[l->in[k]];
        if (cm_kind_learns(l->kind)) p->needs[i] = CM_NEEDS | CM_NEEDS_FIRST;
        if (l->kind == CM_CONCAT && !(p->needs[l->in[0]] & CM_NEEDS_FIRST))
            p->needs[i] &= ~CM_NEEDS_FIRST;
        if (l->kind == CM_CHANNEL && !(p->needs[i] & CM_NEEDS_FIRST)) p->needs[i] = 0;
    }
}

/* The only layer that reads layer i, and only once; -1: there is not one. */
static int cm_only_reader(const cm_schedule *p, int i)
{
    return p->readers[i] == 1 && i != cm_result_of(p->list) ? p->reader[i] : -1;
}

/* Its kind. */
static int cm_read_only_by(const cm_schedule *p, int i)
{
    int r = cm_only_reader(p, i);
    return r < 0 ? -1 : (int)p->list->layer[r].kind;
}

/* Whether, in training, a layer between the layers `from` and `to` reads layer x. */
static int cm_read_between(const cm_schedule *p, int x, int from, int to)
{
    int i, k;
    for (i = from + 1; p->training && i < to; i++)
        for (k = 0; k < 3; k++)
            if (p->list->layer[i].in[k] == x) return 1;
    return 0;
}

static cm_step *cm_step_add(cm_schedule *p, int layer)
{
    const cm_layer *l = &p->list->layer[layer];
    cm_step *t = &p->step[p->n];
    int k;
    memset(t, 0, sizeof *t);
    t->layer = layer;
    for (k = 0; k < 3; k++) t->in[k] = l->in[k] < 0 ? -1 : p->at[l->in[k]];
    t->in[3] = t->norm = -1;
    t->scale = 1;
    t->needs = p->needs[layer] & CM_NEEDS;
    p->at[layer] = p->n++;
    return t;
}

/* Layer i is computed by the step of layer `by`. */
static void cm_step_share(cm_schedule *p, int i, int by, int rule)
{
    p->at[i] = p->at[by];
    p->step[p->at[i]].rules |= 1u << rule;
}

/* Whether the Swish of layer i goes to the norm behind it: nobody else reads it, and nobody between
   the two reads what it reads. */
static int cm_swish_to_norm(const cm_schedule *p, int i)
{
    return p->list->layer[i].kind == CM_SWISH && cm_read_only_by(p, i) == CM_NORM
        && !cm_read_between(p, p->list->layer[i].in[0], i, cm_only_reader(p, i));
}

/* Whether the norm of layer i takes in the Swish in front of it, which is no part of another. */
static int cm_swish_before(const cm_schedule *p, int i)
{
    int x = p->list->layer[i].in[0];
    return cm_swish_to_norm(p, x) && (p->list->layer[p->list->layer[x].in[0]].kind != CM_NORM
                                      || p->step[p->at[x]].swish != CM_SWISH_BEHIND);
}

/* Swish of a norm that nobody else reads is made with it, and one in front of a norm, too: each
   value goes through the same two functions, in registers.  So does each gradient, but that a
   product of Swish's slope is not added to 0 first, which only turns -0 to 0: the sums of the norm
   begin with 0 and are the same. */
static int cm_rule_swish(cm_schedule *p, int i)
{
    const cm_layer *l = &p->list->layer[i];
    cm_step *t;
    if (l->kind == CM_SWISH && p->list->layer[l->in[0]].kind == CM_NORM
        && cm_only_reader(p, l->in[0]) == i && p->step[p->at[l->in[0]]].swish == 0) {
        cm_step_share(p, i, l->in[0], CM_RULE_SWISH);
        p->step[p->at[i]].swish = CM_SWISH_BEHIND;
        return 1;
    }
    if (cm_swish_to_norm(p, i)) {
        p->at[i] = p->at[l->in[0]];              /* the norm reads what Swish would read */
        return 1;
    }
    if (l->kind != CM_NORM || !cm_swish_before(p, i)) return 0;
    t = cm_step_add(p, i);
    t->swish = CM_SWISH_BEFORE;
    t->rules |= 1u << CM_RULE_SWISH;
    return 1;
}

/* In inference a norm's transform is known before its convolution, which applies it to its rows
   while they are in registers, if nobody else reads them: the same a*x + b, and Swish before or
   behind it. */
static int cm_rule_norm_in_conv(cm_schedule *p, int i)
{
    const cm_layer *l = &p->list->layer[i], *x;
    int from = l->in[0], by = i, before;
    if (p->training || l->kind != CM_NORM) return 0;
    x = &p->list->layer[from];
    before = cm_swish_before(p, i);
    if (before) {
        by = from;
        from = x->in[0];
        x = &p->list->layer[from];
    }
    if ((x->kind != CM_CONV && x->kind != CM_HITS_CONV) || cm_only_reader(p, from) != by) return 0;
    cm_step_share(p, i, from, CM_RULE_NORM_IN_CONV);
    p->step[p->at[i]].norm = i;
    p->step[p->at[i]].swish = before ? CM_SWISH_BEFORE : 0;
    return 1;
}

/* Whether layer i is a join: concat(e, s + q*p) where e is one channel and nobody else reads the
   sum.  In training e gets no gradient and s, p and q do; they are three layers, each of which gets
   its share from the join at once, so that nobody may read one of them between sum and join. */
static int cm_is_join(const cm_schedule *p, int i)
{
    const cm_layer *l = &p->list->layer[i], *sum;
    int k;
    if (l->kind != CM_CONCAT || p->list->layer[l->in[1]].kind != CM_ADD_SCALED
        || cm_only_reader(p, l->in[1]) != i || p->list->layer[l->in[0]].nc != 1) return 0;
    sum = &p->list->layer[l->in[1]];
    if (p->training && p->needs[l->in[0]]) return 0;
    for (k = 0; k < 3; k++)
        if (sum->in[k] == sum->in[(k + 1) % 3] || cm_read_between(p, sum->in[k], l->in[1], i)
            || (p->training && !p->needs[sum->in[k]])) return 0;
    return 1;
}

/* A join is one pass over the rows; s + q*p is one rounding in the plain layer as well, and both
   have one kernel. */
static int cm_rule_join(cm_schedule *p, int i)
{
    const cm_layer *l = &p->list->layer[i], *sum;
    cm_step *t;
    int k;
    if (l->kind == CM_ADD_SCALED && cm_only_reader(p, i) >= 0 && cm_is_join(p, p->reader[i])
        && p->list->layer[p->reader[i]].in[1] == i) return 1;
    if (!cm_is_join(p, i)) return 0;
    sum = &p->list->layer[l->in[1]];
    t = cm_step_add(p, i);
    t->join = 1;
    for (k = 0; k < 3; k++) t->in[1 + k] = p->at[sum->in[k]];
    t->rules |= 1u << CM_RULE_JOIN;
    return 1;
}

/* Whether layer i is read once, by a join, as what it copies. */
static int cm_read_only_by_join(const cm_schedule *p, int i)
{
    return cm_only_reader(p, i) >= 0 && cm_is_join(p, p->reader[i])
        && p->list->layer[p->reader[i]].in[0] == i;
}

/* Two sums of the hits, whose windows are all alike (cm_layer_pool), are one: the join that reads
   the second multiplies the first by the ratio of their scales.  That is a power of two, so all
   products and sums are the same but for the exponent.  Its limits are far: the ratio is at most
   256, and energies of hits are neither below 1e-33 nor above 1e33 GeV. */
static int cm_rule_same_sums(cm_schedule *p, int i)
{
    const cm_layer *l = &p->list->layer[i], *x;
    int j, power;
    if (l->kind != CM_HITS_SUM || !cm_read_only_by_join(p, i)) return 0;
    if (!(fabs(l->scale) > 1e-3 && fabs(l->scale) < 1e3)) return 0;
    for (j = i - 1; j >= 0; j--) {
        x = &p->list->layer[j];
        if (x->kind != CM_HITS_SUM || p->step[p->at[j]].layer != j
            || frexp(l->scale / x->scale, &power) != 0.5 || power < -7 || power > 9) continue;
        p->at[i] = p->at[j];
        return 1;
    }
    return 0;
}

/* A pooling or a join reads one channel where it is, if that gets no gradient. */
static int cm_rule_channel(cm_schedule *p, int i)
{
    const cm_layer *l = &p->list->layer[i];
    if (l->kind != CM_CHANNEL || p->needs[i]
        || (cm_read_only_by(p, i) != CM_POOL && !cm_read_only_by_join(p, i))) return 0;
    p->at[i] = p->at[l->in[0]];
    return 1;
}

/* The step of layer i, or of which step it becomes a part. */
static void cm_plan_layer(cm_schedule *p, int i)
{
    const cm_layer *l = &p->list->layer[i], *x;
    cm_step *t;
    if (!p->fused) {
        (void)cm_step_add(p, i);
        return;
    }
    if (cm_rule_norm_in_conv(p, i) || cm_rule_swish(p, i) || cm_rule_same_sums(p, i)
        || cm_rule_channel(p, i)) return;
    if (!cm_rule_join(p, i)) (void)cm_step_add(p, i);
    t = &p->step[p->n - 1];
    x = l->in[0] < 0 ? NULL : &p->list->layer[l->in[0]];
    if (t->layer != i || !x || p->step[t->in[0]].layer == l->in[0]) return;
    if (x->kind == CM_CHANNEL) t->rules |= 1u << CM_RULE_CHANNEL;
    if (x->kind == CM_HITS_SUM) {
        t->scale = x->scale / cm_layer_of(p, &p->step[t->in[0]])->scale;
        t->rules |= 1u << CM_RULE_SAME_SUMS;
    }
}

/* ---------------------------------------------------------------- 18.2 where values are */

/* Whether step r reads the values of step i, and as which argument; -1: it does not. */
static int cm_reads(const cm_schedule *p, int r, int i)
{
    int k;
    for (k = 0; k < 4; k++)
        if (p->step[r].in[k] == i) return k;
    return -1;
}

static int cm_is_conv(const cm_layer *l)
{
    return l->kind == CM_CONV || l->kind == CM_HITS_CONV;
}

/* A norm that one convolution reads is made by it, group by group; one that only means, poolings
   and the path of a join read is made by each of them, row by row: a*x + b of the same x. */
static void cm_rule_on_the_fly(cm_schedule *p, int i, int last)
{
    cm_step *t = &p->step[i];
    int r, convolutions = 0, rows = 0, others = 0;
    if (!p->fused || i == p->result || cm_layer_of(p, t)->kind != CM_NORM) return;
    for (r = i + 1; r <= last; r++) {
        const cm_step *s = &p->step[r];
        cm_kind kind = cm_layer_of(p, s)->kind;
        int k = cm_reads(p, r, i);
        if (k < 0) continue;
        if (kind == CM_CONV) convolutions++;
        else if (kind == CM_MEAN_OF || kind == CM_POOL || (s->join && k == 2)) rows++;
        else others++;
    }
    if (others == 0 && rows == 0 && convolutions == 1) t->values = CM_BY_GROUPS;
    if (others == 0 && convolutions == 0 && rows > 0) t->values = CM_BY_ROWS;
    if (t->values != CM_KEPT) t->rules |= 1u << CM_RULE_ON_THE_FLY;
}

/* Sites beyond the edge that a reader takes: the padding of direct convolutions.  Winograd's method
   (kernel 3, no bias) makes its own, and poolings leave out what is outside. */
static int cm_halo_read(const cm_schedule *p, const cm_layer *reader, const cm_layer *x)
{
    const cm_window *w = &reader->window;
    if (reader->kind != CM_CONV || w->before[0] == 0) return 0;
    if (p->wino && !reader->bias
        && cm_wino_fits(x->nx, w)) return 0;
    return cm_larger(w->before[0], w->kernel[0] - w->stride[0] - w->before[0]);
}

/* Step r reads step i: the halo is the most that any reader needs, and what a norm or a mean needs
   to know of the values is summed as they are made, in the order of the plain sums. */
static void cm_rule_reader(cm_schedule *p, int i, int r)
{
    cm_step *t = &p->step[i];
    const cm_step *s = &p->step[r];
    const cm_layer *l = cm_layer_of(p, t), *reader = cm_layer_of(p, s);
    int halo = cm_halo_read(p, reader, l);
    if (halo > t->halo) t->halo = halo;
    if (halo > 0) t->rules |= 1u << CM_RULE_HALO;
    if (!p->fused) return;
    if (cm_is_conv(l) && t->norm < 0 && reader->kind == CM_NORM && s->swish == CM_SWISH_BEFORE)
        t->sums |= CM_SWISH_BEFORE;
    if (l->kind == CM_CONV && reader->kind == CM_MEAN_OF) t->sums |= CM_MEAN;
    if (t->sums) t->rules |= 1u << CM_RULE_SUMS;
}

/* A join whose first reader is a norm made by groups may leave its rows to that one's convolution
   (17.12): the same rows, in the cache.  Nobody may read the join before the convolution has run,
   which must reach the last plane. */
static void cm_rule_deferred(cm_schedule *p, int i, int first)
{
    cm_step *t = &p->step[i];
    const cm_layer *conv;
    const cm_window *w;
    int r;
    if (p->training || !t->join || first < 0 || p->step[first].values != CM_BY_GROUPS) return;
    for (r = first + 1; cm_reads(p, r, first) < 0; r++)
        if (cm_reads(p, r, i) >= 0) return;
    conv = cm_layer_of(p, &p->step[r]);
    w = &conv->window;
    if ((conv->nz - 1) * w->stride[0] - w->before[0] + w->kernel[0] < cm_layer_of(p, t)->nz) return;
    t->deferred = 1;
    t->rules |= 1u << CM_RULE_DEFERRED;
}

/* Whether the derivatives of step s read its argument k: those of sums do not, and of s + q*p only
   q and p. */
static int cm_read_in_backward(const cm_schedule *p, const cm_step *s, int k)
{
    cm_kind kind = cm_layer_of(p, s)->kind;
    if (s->join) return k >= 2;
    if (kind == CM_ADD_SCALED) return k >= 1;
    return kind != CM_MEAN_OF && kind != CM_POOL && kind != CM_CONCAT && kind != CM_CHANNEL;
}

/* Values that no derivative reads are given back in training as in inference, behind the last step
   that reads them. */
static void cm_rule_forward_only(cm_schedule *p, int i, int last)
{
    cm_step *t = &p->step[i];
    cm_kind kind = cm_layer_of(p, t)->kind;
    int r, k;
    if (!p->training || !p->fused || t->values != CM_KEPT || kind == CM_SIGMOID
        || kind == CM_MAX_OF) return;
    for (r = i + 1; r <= last; r++)
        for (k = 0; k < 4; k++)
            if (p->step[r].in[k] == i && cm_read_in_backward(p, &p->step[r], k)) return;
    t->forward_only = 1;
    t->rules |= 1u << CM_RULE_FORWARD_ONLY;
}

/* Last step that reads each, in `until`; of what is made on the fly the inputs must stay as long as
   itself is read. */
static void cm_plan_lifetimes(cm_schedule *p)
{
    int i, k;
    for (i = 0; i < p->n; i++) p->step[i].until = i;
    for (i = p->n - 1; i >= 0; i--)
        for (k = 0; k < 4; k++) {
            int x = p->step[i].in[k];
            int last = p->step[i].values == CM_KEPT ? i : p->step[i].until;
            if (x >= 0 && p->step[x].until < last) p->step[x].until = last;
        }
}

static void cm_plan_values(cm_schedule *p)
{
    int i, r, first, *last = p->readers;         /* of steps from here on; not needed any more */
    for (i = 0; i < p->n; i++) last[i] = i;
    for (i = 0; i < p->n; i++)
        for (r = 0; r < 4; r++)
            if (p->step[i].in[r] >= 0) last[p->step[i].in[r]] = i;
    for (i = 0; i < p->n; i++) cm_rule_on_the_fly(p, i, last[i]);
    for (i = 0; i < p->n; i++) {
        for (first = -1, r = i + 1; r <= last[i]; r++) {
            if (cm_reads(p, r, i) < 0) continue;
            if (first < 0) first = r;
            cm_rule_reader(p, i, r);
        }
        cm_rule_deferred(p, i, first);
        cm_rule_forward_only(p, i, last[i]);
    }
    cm_plan_lifetimes(p);
    p->step[p->result].until = p->n - 1;
}

/* Values of one site stay: they are small.  So does the network's result. */
static void cm_plan_drops(cm_schedule *p)
{
    int i;
    for (i = 0; i < p->n; i++) p->drop[i] = -1;
    for (i = 0; i < p->n; i++) {
        const cm_layer *l = cm_layer_of(p, &p->step[i]);
        if (cm_layer_is_one_site(l) || p->step[i].until == i || i == p->result) continue;
        p->step[i].next = p->drop[p->step[i].until];
        p->drop[p->step[i].until] = i;
    }
}

/* Lists and plans are of one network and its like (cm_net_like), which share them. */
static calomu_status cm_plan_make(calomu *c, cm_schedule *p, const cm_list *list)
{
    size_t n = (size_t)list->n;
    int i, k;
    p->list = list;
    p->step = cm_allocate(c, n, sizeof *p->step);
    p->drop = cm_allocate(c, 5 * n, sizeof *p->drop);
    if (!p->step || !p->drop) return CALOMU_EMEMORY;
    p->at = p->drop + n;
    p->readers = p->at + n;
    p->reader = p->readers + n;
    p->needs = p->reader + n;
    for (i = 0; i < list->n; i++) {
        p->at[i] = p->reader[i] = -1;
        for (k = 0; k < 3; k++) {
            int x = list->layer[i].in[k];
            if (x < 0) continue;
            p->readers[x]++;
            p->reader[x] = i;
        }
    }
    cm_plan_needs(p);
    for (i = 0; i < list->n; i++) cm_plan_layer(p, i);
    p->result = p->at[cm_result_of(list)];
    cm_plan_values(p);
    cm_plan_drops(p);
    return CALOMU_OK;
}

/* Those of a list, for all modes. */

enum { CM_PLANS = 8 };

static cm_schedule *cm_plan_of(const cm_list *s, int training, int wino, int fused)
{
    return &s->plan[4 * (fused != 0) + 2 * (training != 0) + (wino != 0)];
}

static calomu_status cm_plans_make(calomu *c, cm_list *s)
{
    calomu_status status = CALOMU_OK;
    int i;
    if (s->plan) return CALOMU_OK;
    s->plan = cm_allocate(c, CM_PLANS, sizeof *s->plan);
    if (!s->plan) return CALOMU_EMEMORY;
    for (i = 0; status == CALOMU_OK && i < CM_PLANS; i++) {
        cm_schedule *p = cm_plan_of(s, i / 2 % 2, i % 2, i / 4);
        p->training = i / 2 % 2;
        p->wino = i % 2;
        p->fused = i / 4;
        status = cm_plan_make(c, p, s);
    }
    return status;
}

static void cm_plans_free(calomu *c, cm_list *s)
{
    int i;
    for (i = 0; s->plan && i < CM_PLANS; i++) {
        cm_release(c, s->plan[i].step);
        cm_release(c, s->plan[i].drop);
    }
    cm_release(c, s->plan);
    s->plan = NULL;
}

/* ---------------------------------------------------------------- 18.3 a plan as text */

static const char *const cm_rule_names[CM_RULES] = {
    "Swish joins", "join", "same sums", "channel in place", "norm joins", "made where read",
    "sums on the way", "halo", "deferred", "forward only"
};

static void cm_step_operation(const cm_schedule *p, const cm_step *t, char text[48])
{
    const cm_layer *l = cm_layer_of(p, t);
    int norm = l->kind == CM_NORM || t->norm >= 0;
    char size[16] = "";
    if (cm_is_conv(l))
        (void)snprintf(size, sizeof size, " %d/%d", l->window.kernel[0], l->window.stride[0]);
    (void)snprintf(text, 48, "%s%s%s%s%s", norm && t->swish == CM_SWISH_BEFORE && t->norm < 0
                                               ? "Swish, " : "",
                   t->join ? "join" : cm_kind_names[l->kind], size,
                   t->norm < 0 ? "" : t->swish == CM_SWISH_BEFORE ? ", Swish, norm" : ", norm",
                   norm && t->swish == CM_SWISH_BEHIND ? ", Swish" : "");
}

int cm_net_plan(const cm_net *net, int training, int direct, int unfused, int step,
                char text[320])
{
    static const char *const halo[] = { "", ", halo 1", ", halo 2", ", halo 3" };
    const cm_schedule *p = cm_plan_of(net->list, training, !direct, !unfused);
    char operation[48], reads[40] = "", where[32], rules[100] = "";
    const cm_step *t;
    const cm_layer *l;
    size_t n = 0;
    int k;
    if (step < 0 || step >= p->n) return 0;
    t = &p->step[step];
    l = cm_layer_of(p, t);
    cm_step_operation(p, t, operation);
    for (k = 0; k < 4; k++)
        if (t->in[k] >= 0)
            n += (size_t)snprintf(reads + n, sizeof reads - n, " %d", t->in[k]);
    if (t->values == CM_KEPT)
        (void)snprintf(where, sizeof where, "kept to %d%s", t->until, halo[t->halo]);
    else
        (void)snprintf(where, sizeof where, "by %s%s",
                       t->values == CM_BY_GROUPS ? "groups" : "rows", halo[t->halo]);
    for (n = 0, k = 0; k < CM_RULES; k++)
        if (t->rules >> k & 1)
            n += (size_t)snprintf(rules + n, sizeof rules - n, "%s%s", n ? ", " : "",
                                  cm_rule_names[k]);
    (void)snprintf(text, 320, "%3d %-15s %-26s%-16s %dx%dx%dx%d  %s%s%s", step, l->name, operation,
                   reads, l->nz, l->nx, l->ny, l->nc, where, n ? "; " : "", rules);
    return 1;
}

/* ---------------------------------------------------------------- 18.4 a plan carried out */

typedef struct cm_run {
    const cm_net *net;
    const cm_schedule *p;
    const cm_hits *hits;
    cm_tensor *features;
    cm_real *gradient;               /* a block like net->trained, or NULL */
    cm_tensor **value;               /* of each step */
} cm_run;

static cm_tensor *cm_run_conv(cm_graph *g, const cm_run *u, const cm_step *t, cm_tensor *x)
{
    static const cm_weight none = { NULL, NULL };
    const cm_layer *l = cm_layer_of(u->p, t);
    cm_norm norm;
    const cm_norm *n = t->norm < 0 ? NULL : &norm;
    int then = n ? t->swish | (t->sums & CM_MEAN) : t->sums;
    cm_weight w = cm_weight_of(u->net, u->gradient, l, 0);
    cm_weight bias = l->bias ? cm_weight_of(u->net, u->gradient, l, 1) : none;
    int kernel = l->window.kernel[0], stride = l->window.stride[0], pad = l->window.before[0];
    if (n) norm = cm_norm_of(u->net, u->gradient, &u->p->list->layer[t->norm]);
    if (l->kind == CM_HITS_CONV)
        return cm_sparse(g, u->hits, w, 0, l->nc, kernel, stride, pad, t->halo, n, then);
    return cm_conv_then(g, x, w, bias, l->nc, kernel, stride, pad, t->halo, n, then);
}

static cm_tensor *cm_run_norm(cm_graph *g, const cm_run *u, const cm_step *t, cm_tensor *x)
{
    cm_norm n = cm_norm_of(u->net, u->gradient, cm_layer_of(u->p, t));
    if (t->values == CM_BY_GROUPS) return cm_batchnorm_by_groups(g, x, n, t->swish, t->halo);
    if (t->values == CM_BY_ROWS) return cm_batchnorm_by_rows(g, x, n, t->swish, t->halo);
    return cm_batchnorm(g, x, n, t->swish, t->halo, t->halo);
}

static cm_tensor *cm_run_step(cm_graph *g, const cm_run *u, const cm_step *t)
{
    static const cm_weight none = { NULL, NULL };
    const cm_layer *l = cm_layer_of(u->p, t);
    cm_tensor *in[4];
    int k;
    for (k = 0; k < 4; k++) in[k] = t->in[k] < 0 ? NULL : u->value[t->in[k]];
    if (t->join) return cm_join_for(g, in[0], t->scale, in[1], in[2], in[3], t->halo, t->deferred);
    switch ((cm_kind)l->kind) {
    case CM_FEATURES:
        return t->halo ? cm_channel(g, u->features, l->nc, t->halo) : u->features;
    case CM_HITS_CONV:
    case CM_CONV: return cm_run_conv(g, u, t, in[0]);
    case CM_HITS_SUM: return cm_sparse_sum(g, u->hits, l->scale, t->halo);
    case CM_LINEAR:
        return cm_conv_then(g, in[0], cm_weight_of(u->net, u->gradient, l, 0),
                            cm_weight_of(u->net, u->gradient, l, 1), l->nc, 1, 1, 0, t->halo, NULL,
                            0);
    case CM_NORM: return cm_run_norm(g, u, t, in[0]);
    case CM_SWISH: return cm_pointwise(g, in[0], 0, t->halo);
    case CM_SIGMOID: return cm_pointwise(g, in[0], 1, t->halo);
    case CM_MEAN_OF: return cm_mean_of(g, in[0], t->halo);
    case CM_MAX_OF: return cm_max_of(g, in[0], t->halo);
    case CM_POOL: return cm_pool(g, in[0], 0, l->nc, l->scale, t->halo);
    case CM_CHANNEL: return cm_channel(g, in[0], 1, t->halo);
    case CM_ADD_SCALED: return cm_add_scaled(g, in[0], in[1], in[2], t->halo);
    case CM_CONCAT: return cm_concat_of(g, in[0], in[1], t->halo);
    case CM_WINDOW:
        return cm_by_plain(g, in[0], l, &u->p->list->layer[l->in[0]], t->halo,
                           cm_weight_of(u->net, u->gradient, l, 0),
                           l->bias ? cm_weight_of(u->net, u->gradient, l, 1) : none);
    case CM_KINDS: break;
    }
    return NULL;
}

/* Whether the inputs that the list reads are there and have its shapes. */
static int cm_inputs_fit(const cm_list *s, const cm_hits *h, const cm_tensor *features)
{
    if ((s->reads & CM_READS_HITS)
        && (!h || h->nz != s->hits[0] || h->nx != s->hits[1] || h->ny != s->hits[2])) return 0;
    return !(s->reads & CM_READS_FEATURES) || (features && features->nc == s->features);
}

static cm_tensor *cm_run_all(cm_graph *g, cm_run *u)
{
    const cm_schedule *p = cm_plan_of(u->net->list, g->training, cm_has_wino(g), g->fused);
    int i, k;
    u->p = p;
    if (!cm_inputs_fit(u->net->list, u->hits, u->features))
        return cm_misfit(g, "the network's input is missing, or of another shape");
    u->value = cm_small_take(g, (size_t)p->n * sizeof *u->value);
    if (!u->value) return NULL;
    for (i = 0; i < p->n; i++) {
        u->value[i] = cm_run_step(g, u, &p->step[i]);
        if (!u->value[i]) return NULL;
        if (g->training) u->value[i]->needs = p->step[i].needs;
        for (k = p->drop[i]; k >= 0; k = p->step[k].next)
            cm_drop(g, u->value[k], p->step[k].forward_only);
    }
    return u->value[p->result]->blocks ? cm_whole(g, u->value[p->result]) : u->value[p->result];
}

cm_tensor *cm_net_forward(cm_graph *g, const cm_net *net, const cm_hits *hits, cm_tensor *features,
                          cm_real *gradient)
{
    cm_run u;
    memset(&u, 0, sizeof u);
    u.net = net;
    u.hits = hits;
    u.features = features;
    u.gradient = gradient;
    return cm_run_all(g, &u);
}

/* ---------------------------------------------------------------- 18.5 gradients as text

   Who adds which gradient is decided on the tape, before backward starts (16).  So a tape is
   recorded without memory, and told step by step. */

/* What step i gets from those behind it, in the order in which it is added. */
static void cm_gradient_text(const cm_run *u, int i, char text[320])
{
    const cm_tensor *t = u->value[i];
    size_t n = (size_t)snprintf(text, 320, "%3d %-15s", i, cm_layer_of(u->p, &u->p->step[i])->name);
    int r, k;
    if (i == u->p->result) n += (size_t)snprintf(text + n, 320 - n, "  the loss adds");
    for (r = u->p->n - 1; r > i && n < 300; r--) {
        const cm_record *from = u->value[r]->producer;
        for (k = 0; from && k < 4 && n < 300; k++) {
            if (from->in[k] != t || !from->share[k] || !from->out->reached) continue;
            n += (size_t)snprintf(text + n, 320 - n, "  %d %s", r,
                                  from->added[k] ? "adds" : "leaves it");
        }
    }
}

/* The tape of the run is recorded and told. */
static calomu_status cm_gradients_tell(cm_graph *g, cm_run *u,
                                       void (*tell)(void *user, const char *line), void *user)
{
    cm_tensor *y = cm_run_all(g, u);
    char line[320];
    int i;
    if (!y || !cm_gradient(g, y)) return cm_graph_status(g);
    cm_backward_plan(g);
    for (i = u->p->n - 1; i >= 0; i--) {
        if (!u->value[i]->needs) continue;
        cm_gradient_text(u, i, line);
        tell(user, line);
    }
    return CALOMU_OK;
}

calomu_status cm_net_gradients(calomu *c, const cm_net *net, int muons, int threads,
                               void (*tell)(void *user, const char *line), void *user)
{
    const cm_list *list = net->list;
    cm_hits hits;
    cm_run u;
    cm_graph *g = cm_graph_new(c, NULL, 0, threads, 1);
    calomu_status s;
    if (!g) return CALOMU_EMEMORY;
    memset(&hits, 0, sizeof hits);
    hits.muons = muons;
    hits.nz = list->hits[0];
    hits.nx = list->hits[1];
    hits.ny = list->hits[2];
    memset(&u, 0, sizeof u);
    u.net = net;
    if (list->reads & CM_READS_HITS) u.hits = &hits;
    if (list->reads & CM_READS_FEATURES)
        u.features = cm_input(g, muons, 1, 1, 1, list->features, 0, 0, 0);
    s = cm_gradients_tell(g, &u, tell, user);
    cm_graph_free(g);
    return s;
}

/* ============================================================================================
   19 The fast engine
   ============================================================================================ */

/* Values of a tensor of one site: muon i, channel k. */
static size_t cm_lane(const cm_tensor *x, int i, int k)
{
    return x->group * (size_t)(i / CM_LANES) + x->origin + (size_t)(k * CM_LANES + i % CM_LANES);
}

static void cm_lanes_put(const cm_tensor *x, const cm_real *rows, int n)
{
    int i, k;
    for (i = 0; i < n; i++)
        for (k = 0; k < x->nc; k++) x->x[cm_lane(x, i, k)] = *rows++;
}

typedef struct cm_fast_work {
    cm_graph *g;
    cm_hits hits;                    /* borrowed by what is recorded */
    cm_tensor *y;                    /* the network's result */
} cm_fast_work;

static void cm_fast_end(cm_batch *b)
{
    cm_fast_work *w = b->work;
    if (w) cm_graph_free(w->g);
    cm_release(b->c, w);
    b->work = NULL;
}

/* Work with an empty graph; dry: it only counts. */
static cm_fast_work *cm_fast_begin(cm_batch *b, int dry)
{
    const calomu_geometry *geometry = &b->net->arch.geometry;
    cm_fast_work *w = b->work;
    if (!w) b->work = w = cm_allocate(b->c, 1, sizeof *w);
    if (w && !w->g) w->g = cm_graph_new(b->c, NULL, 0, b->threads, b->gradient != NULL);
    if (!w || !w->g) return NULL;
    if (!dry) {
        w->g->memory = b->arena;
        w->g->size = b->arena_size;
        w->g->threads = b->threads;
    }
    cm_graph_reset(w->g);
    w->hits.event = b->event;
    w->hits.muons = b->muons;
    w->hits.nz = geometry->nz;
    w->hits.nx = geometry->nx;
    w->hits.ny = geometry->ny;
    return w;
}

/* Records the network on the graph; in a dry one prediction is NULL. */
static void cm_fast_record(const cm_batch *b, double *prediction)
{
    const calomu_architecture *a = &b->net->arch;
    cm_fast_work *w = b->work;
    cm_tensor *x = NULL, *y;
    int i;
    w->y = NULL;
    if (a->n_features > 0) {
        x = cm_input(w->g, b->muons, 1, 1, 1, a->n_features, 0, 0, 0);
        if (!x) return;
        if (prediction) cm_lanes_put(x, b->features, b->muons);
    }
    w->y = y = cm_net_forward(w->g, b->net, a->head ? &w->hits : NULL, x, b->gradient);
    for (i = 0; y && prediction && i < b->muons; i++)
        prediction[i] = (double)y->x[cm_lane(y, i, 0)];
}

static calomu_status cm_fast_forward(cm_batch *b, double *prediction)
{
    cm_fast_work *w = cm_fast_begin(b, 0);
    if (!w) return CALOMU_EMEMORY;
    cm_fast_record(b, prediction);
    return cm_graph_status(w->g);
}

static calomu_status cm_fast_backward(cm_batch *b, const double *dp)
{
    cm_fast_work *w = b->work;
    cm_real *d = cm_gradient(w->g, w->y);
    int i;
    for (i = 0; d && dp && i < b->muons; i++) d[cm_lane(w->y, i, 0)] = (cm_real)dp[i];
    if (d) cm_backward(w->g);
    return cm_graph_status(w->g);
}

/* By a dry run. */
static calomu_status cm_fast_measure(cm_batch *b, size_t *bytes)
{
    cm_fast_work *w = cm_fast_begin(b, 1);
    calomu_status s = w ? CALOMU_OK : CALOMU_EMEMORY;
    if (s == CALOMU_OK) {
        cm_fast_record(b, NULL);
        s = cm_graph_status(w->g);
        if (s == CALOMU_OK && b->gradient) s = cm_fast_backward(b, NULL);
        *bytes = cm_graph_peak(w->g);
    }
    cm_fast_end(b);
    return s;
}

/* Whether the model's packed weights suit this context. */
static int cm_packs_fit(const calomu *c, const calomu_model *m)
{
    return m->packs.isa == c->isa && m->packs.direct == c->direct
        && m->packs.unfused == c->unfused;
}

static calomu_status cm_fast_predict(cm_batch *b, double *prediction)
{
    const int n = b->muons, step = n < CM_SPLIT_BELOW ? 1 : n;   /* the same bits either way */
    cm_batch part = *b;
    calomu_status s = CALOMU_OK;
    int i;
    for (i = 0; i < n && s == CALOMU_OK; i += step) {
        cm_fast_work *w;
        part.muons = step;
        part.event = b->event + i;
        part.features = b->features + i * b->net->arch.n_features;
        w = cm_fast_begin(&part, 0);
        b->work = part.work;
        if (!w) return CALOMU_EMEMORY;
        w->g->packs = cm_packs_fit(b->c, b->model) ? &b->model->packs : NULL;
        cm_graph_split(w->g, step == 1);
        cm_fast_record(&part, prediction + i);
        w->g->packs = NULL;          /* the model's */
        s = cm_graph_status(w->g);
    }
    return s;
}

/* The arena for a group of muons and for a muon in blocks, by dry runs. */
static calomu_status cm_fast_arena(calomu *c, const calomu_model *m, int threads, size_t *bytes)
{
    cm_batch b;
    cm_fast_work *w = NULL;
    calomu_status s = CALOMU_OK;
    int one;
    memset(&b, 0, sizeof b);
    b.c = c;
    b.net = m->net[0];
    b.threads = threads;
    for (one = 0; one < 2 && s == CALOMU_OK; one++) {
        b.muons = one ? 1 : CM_LANES;
        w = cm_fast_begin(&b, 1);
        if (!w) s = CALOMU_EMEMORY;
        if (s != CALOMU_OK) break;
        w->g->packs = cm_packs_fit(c, m) ? &m->packs : NULL;
        cm_graph_split(w->g, one);
        cm_fast_record(&b, NULL);
        s = cm_graph_status(w->g);
    }
    if (s == CALOMU_OK) *bytes = (cm_graph_peak(w->g) + 63) / 64 * 64;
    cm_fast_end(&b);
    return s;
}

/* Packs the weights of all members. */
static calomu_status cm_fast_prepare(calomu *c, calomu_model *m)
{
    calomu_status s = CALOMU_OK;
    cm_batch b;
    int i;
    memset(&b, 0, sizeof b);
    b.c = c;
    b.threads = 1;
    b.muons = CM_LANES;
    m->packs.isa = c->isa;
    m->packs.direct = c->direct;
    m->packs.unfused = c->unfused;
    for (i = 0; i < m->info.members && s == CALOMU_OK; i++) {
        cm_fast_work *w;
        b.net = m->net[i];
        w = cm_fast_begin(&b, 1);
        if (w) {
            w->g->packing = &m->packs;
            cm_fast_record(&b, NULL);
            s = cm_graph_status(w->g);
        } else {
            s = CALOMU_EMEMORY;
        }
        cm_fast_end(&b);
    }
    return s == CALOMU_OK ? cm_fast_arena(c, m, 1, &m->arena) : s;
}

static calomu_status cm_fast_predict_arena(calomu *c, const calomu_model *m, int threads,
                                           size_t *bytes)
{
    *bytes = m->arena;
    return threads == 1 && cm_packs_fit(c, m) ? CALOMU_OK : cm_fast_arena(c, m, threads, bytes);
}

static const cm_engine cm_fast_engine = {
    cm_fast_measure, cm_fast_forward, cm_fast_backward, cm_fast_predict, cm_fast_end,
    cm_fast_prepare, cm_packs_fit, cm_fast_predict_arena
};

static const cm_engine *cm_engine_of(const calomu *c)
{
    return c->plain ? &cm_plain_engine : &cm_fast_engine;
}

/* ============================================================================================
   20 Devices
   ============================================================================================ */

/* ---------------------------------------------------------------- networks on a device

   A copy of the weights of one network or more, an arena, and two batches of muons: one that is
   computed and the next, which comes while it is. */

typedef struct cm_place {
    cm_unit *unit;
    int number, math, direct, recompute, unfused;        /* of the context that it was made for */
    cm_net *net;                     /* tables of the host, blocks of the device */
    int members;
    int capacity, batch;             /* muons: that fit into inputs and outputs, and the arena */
    unsigned char *arena;
    size_t arena_size;
    size_t taken;                    /* bytes in all, but for the hits */
    cm_hits hits[2];
    cm_real *inputs[2];              /* features, as a tensor of one site holds them */
    cm_real *outputs;                /* of the members, one behind the other */
    cm_real *host_inputs, *result;   /* on the host: inputs of a batch, outputs */
    cm_real *known;                  /* on the host: weights that are there; NULL: they change */
    cm_packed_cache packed_cache;    /* what is made of them, while they do not */
} cm_place;

static void cm_place_free(calomu *c, cm_place *p)
{
    const calomu_device *d;
    int i;
    if (!p) return;
    d = p->unit ? p->unit->device : NULL;
    for (i = 0; d && p->net && i < p->members; i++) d->release(p->unit, p->net[i].trained);
    for (i = 0; d && i < 2; i++) {
        if (p->hits[i].resident) d->hits_free(p->unit, p->hits[i].resident);
        d->release(p->unit, p->inputs[i]);
    }
    for (i = 0; d && i < p->packed_cache.n; i++) d->release(p->unit, p->packed_cache.one[i].p);
    if (d) d->release(p->unit, p->arena);
    if (d) d->release(p->unit, p->outputs);
    if (d) d->close(p->unit);
    cm_release(c, p->net);
    cm_release(c, p->host_inputs);
    cm_release(c, p->result);
    cm_release(c, p->known);
    cm_release(c, p->packed_cache.one);
    cm_release(c, p);
}

/* The device's first failure, if there was one, as the context's. */
static calomu_status cm_place_status(calomu *c, const cm_place *p)
{
    if (p->unit->status == CALOMU_OK) return CALOMU_OK;
    return cm_fail(c, p->unit->status, "%s", p->unit->message);
}

/* Memory of the device; NULL: a failure is set. */
static void *cm_place_take(calomu *c, cm_place *p, size_t bytes)
{
    void *memory = p->unit->device->allocate(p->unit, bytes > 0 ? bytes : 64);
    if (memory) p->taken += bytes;
    if (!memory && cm_place_status(c, p) == CALOMU_OK)
        cm_fail(c, CALOMU_EMEMORY, "no memory for %zu bytes on the device", bytes);
    return memory;
}

static size_t cm_inputs_size(const cm_net *net, int muons)
{
    size_t groups = ((size_t)muons + CM_LANES - 1) / CM_LANES;
    return groups * (size_t)net->arch.n_features * CM_LANES;
}

/* Outputs of a member: a tensor of one site and one channel. */
static size_t cm_outputs_size(int muons)
{
    return ((size_t)muons + CM_LANES - 1) / CM_LANES * CM_LANES;
}

/* Whether the context still wants what p was made for. */
static int cm_place_fits(const calomu *c, const cm_place *p)
{
    return c->device == p->unit->device && c->device_number == p->number
        && (int)c->math == p->math && c->direct == p->direct && c->recompute == p->recompute
        && c->unfused == p->unfused;
}

/* A device that cannot be used is found before anything is read for it. */
static calomu_status cm_device_check(calomu *c)
{
    cm_unit *u = NULL;
    calomu_status s = CALOMU_OK;
    if (c->device) s = c->device->open(c, c->device, c->device_number, c->math, &u);
    if (u) c->device->close(u);
    return s;
}

/* Opens the context's device for networks like this one, without an arena. */
static calomu_status cm_place_new(calomu *c, const cm_net *like, int members, int capacity,
                                  cm_place **place)
{
    size_t reals = like->n_trained + like->n_fixed + like->n_buffers;
    cm_place *p = cm_allocate(c, 1, sizeof *p);
    calomu_status s;
    int i;
    *place = p;
    if (!p) return CALOMU_EMEMORY;
    p->number = c->device_number;
    p->math = (int)c->math;
    p->direct = c->direct;
    p->recompute = c->recompute;
    p->unfused = c->unfused;
    p->capacity = p->batch = capacity;
    s = c->device->open(c, c->device, c->device_number, c->math, &p->unit);
    if (s != CALOMU_OK) return s;
    p->net = cm_allocate(c, (size_t)members, sizeof *p->net);
    p->host_inputs = cm_allocate(c, cm_inputs_size(like, capacity), sizeof *p->host_inputs);
    p->result = cm_allocate(c, cm_outputs_size(capacity) * (size_t)members, sizeof *p->result);
    if (!p->net || !p->host_inputs || !p->result) return CALOMU_EMEMORY;
    p->members = members;
    p->outputs = cm_place_take(c, p, cm_outputs_size(capacity) * (size_t)members * sizeof(cm_real));
    if (!p->outputs) return c->failure;
    for (i = 0; i < members; i++) {
        p->net[i] = *like;
        p->net[i].trained = cm_place_take(c, p, reals * sizeof(cm_real));
        if (!p->net[i].trained) return c->failure;
        p->net[i].fixed = p->net[i].trained + like->n_trained;
        p->net[i].buffers = p->net[i].fixed + like->n_fixed;
    }
    for (i = 0; i < 2; i++) {
        p->hits[i].nz = like->arch.geometry.nz;
        p->hits[i].nx = like->arch.geometry.nx;
        p->hits[i].ny = like->arch.geometry.ny;
        p->inputs[i] = cm_place_take(c, p, cm_inputs_size(like, capacity) * sizeof(cm_real));
        p->hits[i].resident = p->unit->device->hits_new(p->unit);
        if (!p->inputs[i]) return c->failure;
        if (!p->hits[i].resident) return cm_fail(c, CALOMU_EMEMORY, "no memory for a device");
    }
    return CALOMU_OK;
}

/* Values of a network to its copy. */
static void cm_place_put(cm_place *p, int member, const cm_net *net)
{
    const cm_net *to = p->net + member;
    const calomu_device *d = p->unit->device;
    d->put(p->unit, to->trained, net->trained, net->n_trained * sizeof(cm_real));
    d->put(p->unit, to->fixed, net->fixed, net->n_fixed * sizeof(cm_real));
    d->put(p->unit, to->buffers, net->buffers, net->n_buffers * sizeof(cm_real));
}

/* p->host_inputs as the tensor of the inputs of n muons, zeroed. */
static cm_tensor cm_place_host_inputs(cm_place *p, int n)
{
    cm_tensor x;
    memset(&x, 0, sizeof x);
    x.x = p->host_inputs;
    x.nc = p->net->arch.n_features;
    x.group = (size_t)x.nc * CM_LANES;
    memset(x.x, 0, cm_inputs_size(p->net, n) * sizeof *x.x);
    return x;
}

/* The n events and the inputs in p->host_inputs become batch `slot`, which nothing computes any
   more. */
static void cm_place_load(cm_place *p, int slot, const calomu_event *event, int n)
{
    const calomu_device *d = p->unit->device;
    p->hits[slot].event = event;
    p->hits[slot].muons = n;
    if (p->net->arch.head) d->hits_put(p->unit, p->hits[slot].resident, &p->hits[slot]);
    p->hits[slot].event = NULL;      /* the hits are there now */
    d->put(p->unit, p->inputs[slot], p->host_inputs, cm_inputs_size(p->net, n) * sizeof(cm_real));
}

/* A member's forward pass of batch `slot`, of `muons` muons. */
static cm_tensor *cm_place_forward(cm_graph *g, cm_place *p, int member, int slot, int muons,
                                   cm_real *gradient)
{
    const cm_net *net = p->net + member;
    cm_tensor *x = NULL;
    p->hits[slot].muons = muons;
    if (net->arch.n_features > 0) {
        x = cm_input(g, muons, 1, 1, 1, net->arch.n_features, 0, 0, 0);
        if (x && !cm_dry(g))
            p->unit->device->copy(p->unit, x->x, p->inputs[slot],
                                  cm_inputs_size(net, muons) * sizeof(cm_real));
    }
    return cm_net_forward(g, net, net->arch.head ? &p->hits[slot] : NULL, x, gradient);
}

/* An arena that is large enough for `muons`, in training with gradients too. */
static calomu_status cm_place_arena(calomu *c, cm_place *p, int muons, cm_real *gradient)
{
    size_t most = 0;
    int training;
    for (training = 0; training <= (gradient != NULL); training++) {
        cm_graph *g = cm_graph_on(c, p->unit, NULL, 0, 1, training);
        cm_tensor *y;
        calomu_status s;
        if (!g) return CALOMU_EMEMORY;
        if (p->known) g->packed_cache = &p->packed_cache;
        y = cm_place_forward(g, p, 0, 0, muons, training ? gradient : NULL);
        if (y && training && cm_gradient(g, y)) cm_backward(g);
        s = cm_graph_status(g);
        if (cm_graph_peak(g) > most) most = cm_graph_peak(g);
        cm_graph_free(g);
        if (s != CALOMU_OK) return s;
    }
    if (p->arena && most <= p->arena_size) return CALOMU_OK;
    p->unit->device->release(p->unit, p->arena);
    p->taken -= p->arena_size;
    p->arena = cm_place_take(c, p, most);
    p->arena_size = p->arena ? most : 0;
    return p->arena ? CALOMU_OK : c->failure;
}

/* ---------------------------------------------------------------- the same on a device

   Weights, moments, buffers and thresholds live there; what the host holds is as old as the last
   cm_remote_fetch, which is where a failure of the device takes the training back to. */

typedef struct cm_remote_batch { int there, validation, epoch; uint64_t at; } cm_remote_batch;

enum { CM_REMOTE_LOSS, CM_REMOTE_THRESHOLDS, CM_REMOTE_FLAGS = 17, CM_REMOTE_NUMBERS };

typedef struct cm_remote {
    cm_place *place;
    cm_moments live;                 /* there */
    cm_real *gradient;               /* there */
    cm_real *buffers_before;         /* there: the norms', before an update */
    double *truth[2];                /* there, of the two batches */
    double *work, *numbers;          /* there; numbers: loss, 16 thresholds, two ints */
    cm_remote_batch batch[2];        /* which they are: of an epoch, update or first muon `at` */
    cm_real *fetched;                /* on the host: where `live` comes to */
    cm_state state;                  /* when it was fetched */
    double thresholds[16];
    int ahead;                       /* 1: updates since then */
} cm_remote;

static void cm_remote_free(calomu *c, cm_remote *r)
{
    if (!r) return;
    if (r->place && r->place->unit) {
        r->place->unit->device->release(r->place->unit, r->live.m);
        r->place->unit->device->release(r->place->unit, r->numbers);
    }
    cm_place_free(c, r->place);
    cm_release(c, r->fetched);
    cm_release(c, r);
}

/* Weights, moments, buffers and thresholds from the host to the device. */
static void cm_remote_put(const calomu_trainer *t)
{
    cm_remote *r = t->remote;
    cm_unit *u = r->place->unit;
    size_t n = t->net->n_trained * sizeof(cm_real);
    cm_place_put(r->place, 0, t->net);
    u->device->put(u, r->live.m, t->live.m, n);
    u->device->put(u, r->live.v, t->live.v, n);
    u->device->put(u, r->numbers + CM_REMOTE_THRESHOLDS, t->thresholds, sizeof t->thresholds);
    r->state = t->state;
    memcpy(r->thresholds, t->thresholds, sizeof r->thresholds);
    r->ahead = 0;
}

/* And back, all or nothing. */
static calomu_status cm_remote_fetch(calomu *c, const calomu_trainer *t)
{
    cm_remote *r = t->remote;
    cm_unit *u;
    size_t n = t->net->n_trained, b = t->net->n_buffers;
    if (!r || !r->ahead) return CALOMU_OK;
    u = r->place->unit;
    u->device->get(u, r->fetched, r->live.w, n * sizeof *r->fetched);
    u->device->get(u, r->fetched + n, r->live.m, 2 * n * sizeof *r->fetched);
    u->device->get(u, r->fetched + 3 * n, r->live.buffers, b * sizeof *r->fetched);
    if (cm_place_status(c, r->place) != CALOMU_OK) return c->failure;
    memcpy(t->live.w, r->fetched, n * sizeof *r->fetched);
    memcpy(t->live.m, r->fetched + n, n * sizeof *r->fetched);
    memcpy(t->live.v, r->fetched + 2 * n, n * sizeof *r->fetched);
    memcpy(t->live.buffers, r->fetched + 3 * n, b * sizeof *r->fetched);
    r->state = t->state;
    memcpy(r->thresholds, t->thresholds, sizeof r->thresholds);
    r->ahead = 0;
    return CALOMU_OK;
}

/* Memory for a training there. */
static calomu_status cm_remote_new(calomu *c, calomu_trainer *t)
{
    size_t n = t->net->n_trained, b = t->net->n_buffers, batch = (size_t)t->options.batch;
    cm_remote *r = t->remote = cm_allocate(t->own, 1, sizeof *r);
    calomu_status s;
    if (!r) return cm_fail(c, CALOMU_EMEMORY, "no memory for a training on a device");
    r->fetched = cm_allocate(t->own, 3 * n + b, sizeof *r->fetched);
    if (!r->fetched) return cm_fail(c, CALOMU_EMEMORY, "no memory for a training on a device");
    s = cm_place_new(c, t->net, 1, t->options.batch, &r->place);
    if (s != CALOMU_OK) return s;
    r->live.m = cm_place_take(c, r->place, (3 * n + b) * sizeof(cm_real));
    r->numbers = cm_place_take(c, r->place, (CM_REMOTE_NUMBERS + 6 * batch + 64) * sizeof(double));
    if (!r->live.m || !r->numbers) return c->failure;
    r->live.w = r->place->net->trained;
    r->live.buffers = r->place->net->buffers;
    r->live.v = r->live.m + n;
    r->gradient = r->live.v + n;
    r->buffers_before = r->gradient + n;
    r->truth[0] = r->numbers + CM_REMOTE_NUMBERS;
    r->truth[1] = r->truth[0] + batch;
    r->work = r->truth[1] + batch;
    s = cm_place_arena(c, r->place, t->options.batch, r->gradient);
    if (s == CALOMU_EMEMORY)
        return cm_fail(c, s, "no memory on the device for a batch of %d muons: a smaller batch"
                       " needs less", (int)t->options.batch);
    if (s == CALOMU_OK) cm_remote_put(t);
    return s == CALOMU_OK ? cm_place_status(c, r->place) : s;
}

/* The training is where the context wants it. */
static calomu_status cm_remote_ready(calomu *c, calomu_trainer *t)
{
    calomu_status s = CALOMU_OK;
    if (t->remote && c->device && cm_place_fits(c, t->remote->place))
        return cm_place_status(c, t->remote->place);
    s = cm_remote_fetch(c, t);
    if (s != CALOMU_OK) return s;
    cm_remote_free(t->own, t->remote);
    t->remote = NULL;
    if (!c->device) return CALOMU_OK;
    s = cm_remote_new(c, t);
    if (s != CALOMU_OK) {
        cm_remote_free(t->own, t->remote);
        t->remote = NULL;
    }
    return s;
}

/* The slot that holds update `at` of this epoch, or the monitored fold's muons from `at` on; -1:
   none. */
static int cm_remote_find(const calomu_trainer *t, int validation, uint64_t at)
{
    const cm_remote_batch *b = t->remote->batch;
    int i;
    for (i = 0; i < 2; i++)
        if (b[i].there && b[i].validation == validation && b[i].epoch == t->state.plan.epoch
            && b[i].at == at) return i;
    return -1;
}

/* Brings it into a slot that nothing computes. */
static calomu_status cm_remote_load(calomu *c, calomu_trainer *t, int slot, int validation,
                                    uint64_t at)
{
    cm_remote *r = t->remote;
    cm_place *p = r->place;
    uint64_t first = t->monitored_first + at, left = t->monitored - at;
    int i, batch = t->options.batch, n = validation && left < (uint64_t)batch ? (int)left : batch;
    const uint64_t *numbers = validation ? NULL : cm_train_numbers(t, at);
    cm_tensor x;
    calomu_status s = cm_muons_at(c, t, first, numbers, (size_t)n);
    if (s != CALOMU_OK) return s;
    r->batch[slot].there = 0;
    x = cm_place_host_inputs(p, n);
    cm_train_inputs(t, first, numbers, n);
    cm_lanes_put(&x, t->inputs, n);
    cm_place_load(p, slot, t->events.event, n);
    for (i = 0; i < n; i++) t->batch[i] = (double)t->events.event[i].energy;
    p->unit->device->put(p->unit, r->truth[slot], t->batch, (size_t)n * sizeof *t->batch);
    s = cm_place_status(c, p);
    if (s != CALOMU_OK) return s;
    r->batch[slot].there = 1;
    r->batch[slot].validation = validation;
    r->batch[slot].epoch = t->state.plan.epoch;
    r->batch[slot].at = at;
    return CALOMU_OK;
}

/* While a batch is computed, the next one comes.  A failure is found again when it is wanted. */
static void cm_remote_next(calomu *c, calomu_trainer *t, int slot)
{
    const cm_state *state = &t->state;
    uint64_t at = state->update + 1, batch = (uint64_t)t->options.batch;
    int validation = at >= t->per_epoch;
    if (validation) at = state->update < t->per_epoch ? 0 : state->validated + batch;
    if (validation && at >= t->monitored) return;
    if (cm_remote_find(t, validation, at) < 0)
        (void)cm_remote_load(c, t, 1 - slot, validation, at);
}

/* All of an update, asked of the device. */
static void cm_remote_launch(cm_graph *g, calomu_trainer *t, int slot)
{
    cm_remote *r = t->remote;
    cm_place *p = r->place;
    const calomu_device *d = p->unit->device;
    size_t bytes = t->net->n_buffers * sizeof(cm_real);
    int *flags = (int *)(void *)(r->numbers + CM_REMOTE_FLAGS);
    cm_loss_job loss;
    cm_adam_job adam;
    double lr, beta1;
    d->fill(p->unit, r->gradient, t->net->n_trained * sizeof(cm_real));
    d->copy(p->unit, r->buffers_before, r->live.buffers, bytes);
    loss.options = &t->options;
    loss.y = cm_place_forward(g, p, 0, slot, t->options.batch, r->gradient);
    if (!loss.y || !cm_gradient(g, loss.y)) return;
    loss.truth = r->truth[slot];
    loss.thresholds = r->numbers + CM_REMOTE_THRESHOLDS;
    loss.work = r->work;
    loss.loss = r->numbers + CM_REMOTE_LOSS;
    loss.finite = flags;
    d->loss(p->unit, &loss);
    cm_backward(g);
    cm_train_rate(t, &lr, &beta1);
    adam.w = r->live.w;
    adam.m = r->live.m;
    adam.v = r->live.v;
    adam.dw = r->gradient;
    adam.n = t->net->n_trained;
    adam.beta1 = beta1;
    cm_adam_rates(lr, beta1, t->state.step + 1, &adam.rate, &adam.root);
    adam.finite = flags;
    adam.gradient_finite = flags + 1;
    d->adam(p->unit, &adam);
}

static calomu_status cm_remote_update(calomu *c, calomu_trainer *t, double *loss)
{
    cm_remote *r = t->remote;
    cm_place *p = r->place;
    double numbers[CM_REMOTE_NUMBERS] = { 0 };
    int flags[2], slot = cm_remote_find(t, 0, t->state.update);
    calomu_status s = slot < 0 ? cm_remote_load(c, t, slot = 0, 0, t->state.update) : CALOMU_OK;
    cm_graph *g = s == CALOMU_OK ? cm_graph_on(c, p->unit, p->arena, p->arena_size, 1, 1) : NULL;
    if (!g) return s != CALOMU_OK ? s : CALOMU_EMEMORY;
    cm_remote_launch(g, t, slot);
    s = cm_graph_status(g);
    cm_graph_free(g);
    if (s == CALOMU_OK) cm_remote_next(c, t, slot);
    p->unit->device->get(p->unit, numbers, r->numbers, sizeof numbers);
    if (s == CALOMU_OK) s = cm_place_status(c, p);
    if (s != CALOMU_OK) return s;
    memcpy(flags, numbers + CM_REMOTE_FLAGS, sizeof flags);
    if (!flags[0] || !flags[1]) {
        p->unit->device->copy(p->unit, r->live.buffers, r->buffers_before,
                              t->net->n_buffers * sizeof(cm_real));
        p->unit->device->put(p->unit, r->numbers + CM_REMOTE_THRESHOLDS, t->thresholds,
                             sizeof t->thresholds);
        return cm_train_not_finite(c, t, flags[0] ? "a gradient" : "the loss");
    }
    *loss = numbers[CM_REMOTE_LOSS];
    memcpy(t->thresholds, numbers + CM_REMOTE_THRESHOLDS, sizeof t->thresholds);
    r->ahead = 1;
    return CALOMU_OK;
}

static calomu_status cm_remote_validate(calomu *c, calomu_trainer *t, int n)
{
    cm_place *p = t->remote->place;
    uint64_t at = t->state.validated;
    int i, slot = cm_remote_find(t, 1, at);
    calomu_status s = slot < 0 ? cm_remote_load(c, t, slot = 0, 1, at) : CALOMU_OK;
    cm_graph *g = s == CALOMU_OK ? cm_graph_on(c, p->unit, p->arena, p->arena_size, 1, 0) : NULL;
    cm_tensor *y;
    if (!g) return s != CALOMU_OK ? s : CALOMU_EMEMORY;
    y = cm_place_forward(g, p, 0, slot, n, NULL);
    s = cm_graph_status(g);
    if (s == CALOMU_OK) cm_remote_next(c, t, slot);
    if (s == CALOMU_OK) p->unit->device->get(p->unit, p->result, y->x,
                                             cm_total(y) * sizeof *p->result);
    if (s == CALOMU_OK) s = cm_place_status(c, p);
    for (i = 0; s == CALOMU_OK && i < n; i++)
        t->prediction[at + (uint64_t)i] = (double)p->result[cm_lane(y, i, 0)];
    cm_graph_free(g);
    return s;
}

/* A failure of the device takes the training back to where the host knows it. */
static calomu_status cm_remote_lost(calomu_trainer *t, calomu_status s)
{
    cm_remote *r = t->remote;
    if (!r || r->place->unit->status == CALOMU_OK) return s;
    t->state = r->state;
    memcpy(t->thresholds, r->thresholds, sizeof r->thresholds);
    r->ahead = 0;
    return s;
}

/* An epoch has ended; reload: the host has taken the best weights back. */
static void cm_remote_epoch(calomu_trainer *t, int reload)
{
    if (t->remote && reload) cm_remote_put(t);
    if (t->remote) t->remote->state = t->state;
}

static size_t cm_remote_memory(const calomu_trainer *t) { return t->remote->place->taken; }

/* ---------------------------------------------------------------- the same on a device

   In batches of up to CM_DEVICE_BATCH muons: while one is computed the processor prepares the
   next.  The context keeps the place, so that the next call finds the weights there. */

enum { CM_DEVICE_BATCH = 1024 };

static size_t cm_net_size(const cm_net *net)
{
    return net->n_trained + net->n_fixed + net->n_buffers;
}

/* Copies the values of a network to `known`, or tells whether they are the same. */
static int cm_known(cm_real *known, const cm_net *net, int copy)
{
    cm_real *block[3];
    size_t n[3];
    int i, same = 1;
    block[0] = net->trained;
    block[1] = net->fixed;
    block[2] = net->buffers;
    n[0] = net->n_trained;
    n[1] = net->n_fixed;
    n[2] = net->n_buffers;
    for (i = 0; i < 3; known += n[i++])
        if (copy) memcpy(known, block[i], n[i] * sizeof *known);
        else same = same && memcmp(known, block[i], n[i] * sizeof *known) == 0;
    return same;
}

static int cm_place_has(const calomu *c, const cm_place *p, const calomu_model *m, int capacity)
{
    int k, same = p && p->unit && p->known && p->unit->status == CALOMU_OK && cm_place_fits(c, p)
               && p->capacity >= capacity && p->members == m->info.members
               && cm_same_architecture(&p->net->arch, &m->info.architecture)
               && cm_net_size(p->net) == cm_net_size(m->net[0]);
    for (k = 0; same && k < p->members; k++)
        same = cm_known(p->known + (size_t)k * cm_net_size(p->net), m->net[k], 0);
    return same;
}

static int cm_trained_net(const cm_net *net)
{
    int i;
    for (i = 0; i < net->n_params; i++)
        if (net->param[i].role == CM_BUFFER && strstr(net->param[i].name, ".count")
            && !(*cm_net_values(net, &net->param[i]) > 0)) return 0;
    return 1;
}

/* The model on the context's device, with memory for a batch. */
static calomu_status cm_place_for(calomu *c, const calomu_model *m, int capacity)
{
    calomu_status s;
    int k;
    if (cm_place_has(c, c->place, m, capacity)) return CALOMU_OK;
    for (k = 0; k < m->info.members; k++)
        if (!cm_trained_net(m->net[k]))
            return cm_fail(c, CALOMU_EFORMAT, "the network was never trained: a batch norm is"
                           " empty");
    cm_place_free(c, c->place);
    c->place = NULL;
    s = cm_place_new(c, m->net[0], m->info.members, capacity, &c->place);
    if (s != CALOMU_OK) return s;
    c->place->known = cm_allocate(c, cm_net_size(m->net[0]) * (size_t)m->info.members,
                                  sizeof *c->place->known);
    if (!c->place->known) return CALOMU_EMEMORY;
    for (k = 0; k < m->info.members; k++) {
        cm_place_put(c->place, k, m->net[k]);
        (void)cm_known(c->place->known + (size_t)k * cm_net_size(m->net[0]), m->net[k], 1);
    }
    while ((s = cm_place_arena(c, c->place, c->place->batch, NULL)) == CALOMU_EMEMORY
           && c->place->batch > CM_LANES)        /* smaller batches give the same bits */
        c->place->batch = (int)cm_outputs_size(c->place->batch / 2);
    return s == CALOMU_OK ? cm_place_status(c, c->place) : s;
}

typedef struct cm_shipment {         /* a batch on its way to the device */
    size_t first;
    int n;
    calomu_event *event;             /* [capacity] */
    float *rows;                     /* [capacity][28] */
    cm_real *features;               /* [capacity][feature], standardised */
    calomu_hit *hits;                /* sorted, of the caller's events */
    size_t hits_capacity;
} cm_shipment;

/* Memory for the caller's hits of the batch; *at[u]: where those of group u begin. */
static calomu_status cm_ship_capacity(calomu *c, const cm_prediction *p, cm_shipment *b, size_t *at)
{
    size_t total = 0;
    int i;
    for (i = 0; i < b->n; i++) {
        if (i % CM_LANES == 0) at[i / CM_LANES] = total;
        total += p->info ? 0 : p->event[b->first + (size_t)i].n_hits;
    }
    if (total <= b->hits_capacity && b->hits) return CALOMU_OK;
    cm_release(c, b->hits);
    b->hits = cm_allocate(c, total, sizeof *b->hits);
    b->hits_capacity = b->hits ? total : 0;
    return b->hits ? CALOMU_OK : CALOMU_EMEMORY;
}

static calomu_status cm_ship_group(cm_predictor *w, const cm_prediction *p, cm_shipment *b,
                                   const size_t *at, int u)
{
    int i = u * CM_LANES, n = b->n - i < CM_LANES ? b->n - i : CM_LANES;
    return cm_predict_group(w, p, b->first + (size_t)i, n, b->event + i,
                            b->rows + (size_t)i * CALOMU_FEATURES, b->hits + at[u]);
}

/* Prepares n muons from `first` on and sends them to slot. */
static calomu_status cm_ship(calomu *c, const cm_prediction *p, cm_predictor *w, int threads,
                             cm_shipment *b, size_t first, int slot)
{
    size_t at[CM_DEVICE_BATCH / CM_LANES];
    cm_tensor x;
    int u, units, failed;
    calomu_status s;
    b->first = first;
    b->n = p->n - first < (size_t)c->place->batch ? (int)(p->n - first) : c->place->batch;
    failed = units = (b->n + CM_LANES - 1) / CM_LANES;
    s = cm_ship_capacity(c, p, b, at);
    if (s != CALOMU_OK) return s;
    CM_PARALLEL_FOR(threads)
    for (u = 0; u < units; u++) {
        if (cm_ship_group(w + cm_thread(), p, b, at, u) == CALOMU_OK) continue;
        CM_CRITICAL
        if (u < failed) failed = u;
    }
    if (failed < units)
        return cm_predict_failed(c, w, cm_ship_group(w, p, b, at, failed));
    x = cm_place_host_inputs(c->place, b->n);
    cm_predict_inputs(&p->model->info, b->rows, b->n, b->features);
    cm_lanes_put(&x, b->features, b->n);
    cm_place_load(c->place, slot, b->event, b->n);
    return cm_place_status(c, c->place);
}

/* All members on the batch in slot, asked of the device. */
static calomu_status cm_predict_launch(calomu *c, const cm_prediction *p, int slot, int n)
{
    cm_place *o = c->place;
    cm_graph *g;
    calomu_status s = cm_place_arena(c, o, n, NULL);
    int k;
    if (s != CALOMU_OK) return s;
    g = cm_graph_on(c, o->unit, o->arena, o->arena_size, 1, 0);
    if (!g) return CALOMU_EMEMORY;
    g->packed_cache = &o->packed_cache;
    for (k = 0; k < p->model->info.members && s == CALOMU_OK; k++) {
        cm_tensor *y;
        cm_graph_reset(g);
        y = cm_place_forward(g, o, k, slot, n, NULL);
        s = cm_graph_status(g);
        if (s == CALOMU_OK)
            o->unit->device->copy(o->unit, o->outputs + cm_outputs_size(n) * (size_t)k, y->x,
                                  cm_outputs_size(n) * sizeof *o->outputs);
    }
    cm_graph_free(g);
    return s;
}

static calomu_status cm_predict_fetch(calomu *c, const cm_prediction *p, size_t first, int n)
{
    cm_place *o = c->place;
    size_t per = cm_outputs_size(n);
    int i, k, members = p->model->info.members;
    calomu_status s;
    o->unit->device->get(o->unit, o->result, o->outputs, per * (size_t)members * sizeof *o->result);
    s = cm_place_status(c, o);
    for (k = 0; k < members && s == CALOMU_OK; k++)
        for (i = 0; i < n && s == CALOMU_OK; i++) {
            double pred = (double)o->result[per * (size_t)k + (size_t)i];
            s = cm_predict_take(c, p, first + (size_t)i, 1, k, &pred, p->out + first + i);
        }
    return s;
}

static calomu_status cm_predict_batches(calomu *c, const cm_prediction *p, cm_predictor *w,
                                        int threads, cm_shipment *b)
{
    calomu_status s = cm_ship(c, p, w, threads, b, 0, 0), next = CALOMU_OK;
    int slot = 0;
    while (s == CALOMU_OK) {
        size_t first = b->first, end = first + (size_t)b->n;
        int n = b->n;
        s = cm_predict_launch(c, p, slot, n);
        if (s == CALOMU_OK && end < p->n) next = cm_ship(c, p, w, threads, b, end, 1 - slot);
        if (next != CALOMU_OK) return next;
        if (s == CALOMU_OK) s = cm_predict_fetch(c, p, first, n);
        if (s != CALOMU_OK || end == p->n) break;
        slot = 1 - slot;
    }
    return s;
}

static calomu_status cm_predict_on_device(calomu *c, const cm_prediction *p)
{
    int capacity = p->n < CM_DEVICE_BATCH ? (int)cm_outputs_size((int)p->n) : CM_DEVICE_BATCH;
    int groups = capacity / CM_LANES, threads = groups < c->threads ? groups : c->threads;
    cm_predictor *w = NULL;
    cm_shipment b;
    calomu_status s = cm_place_for(c, p->model, capacity);
    memset(&b, 0, sizeof b);
    if (s == CALOMU_OK) s = cm_predict_begin(c, p->model, threads, 1, &w);
    if (s != CALOMU_OK) return s;
    b.event = cm_allocate(c, (size_t)c->place->capacity, sizeof *b.event);
    b.rows = cm_allocate(c, (size_t)c->place->capacity * CALOMU_FEATURES, sizeof *b.rows);
    b.features = cm_allocate(c, (size_t)c->place->capacity * CALOMU_FEATURES, sizeof *b.features);
    s = b.event && b.rows && b.features ? cm_predict_batches(c, p, w, threads, &b) : CALOMU_EMEMORY;
    cm_release(c, b.event);
    cm_release(c, b.rows);
    cm_release(c, b.features);
    cm_release(c, b.hits);
    return cm_predict_end(c, s);
}

#endif /* CM_ISA */
#endif /* CALOMU_PLAIN */
#endif /* __cplusplus */
