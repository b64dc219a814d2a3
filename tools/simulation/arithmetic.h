/* arithmetic.h - random numbers, log, exp, angles; the same bits everywhere

   The references [..] of this file and of the others are at the head of simulate.c.  */
#ifndef SIM_ARITHMETIC_H
#define SIM_ARITHMETIC_H

#include "simulate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SIM_PI 3.14159265358979324

#ifdef __GNUC__                      /* what computes must not move before calomu_modes_set */
#define SIM_NOINLINE __attribute__((noinline))
#else
#define SIM_NOINLINE
#endif

static uint64_t sim_bits(double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double sim_from_bits(uint64_t u)
{
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* exp(x) = 2^k exp(r), |r| <= ln(2)/2, Taylor series to r^13 (next term 4e-18).  Clamped. */
double sim_exp(double x)
{
    static const double inverse[14] = { 1, 1, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600,
        1.0 / 6227020800.0 };
    double r, p = inverse[13];
    int k, i;
    x = x < -700 ? -700 : x;
    x = x > 700 ? 700 : x;
    k = (int)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5));
    r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
    for (i = 12; i >= 0; i--) p = p * r + inverse[i];
    return p * sim_from_bits((uint64_t)(k + 1023) << 52);
}

/* log(x), x > 0 and normal: x = 2^k m, m in [sqrt(1/2), sqrt(2)); with s = (m-1)/(m+1),
   log m = 2 (s + s^3/3 + s^5/5 + ... s^17/17): |s| <= 0.172, the next term is 1e-16 of it. */
double sim_log(double x)
{
    uint64_t u = sim_bits(x);
    int64_t k = (int64_t)((u + ((uint64_t)0x95F62 << 32)) >> 52) - 1023;
    double m = sim_from_bits(u - ((uint64_t)k << 52)), s = (m - 1) / (m + 1), q = s * s;
    double p = (1.0 / 13 + q * (1.0 / 15 + q * (1.0 / 17))) * q * q;
    p = 1 + q * (1.0 / 3 + q * (1.0 / 5)) + q * q * q * (1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11))
                                                         + q * p);
    return (double)k * 0.69314718055994531 + 2 * s * p;
}

static double sim_power(double x, double y) { return sim_exp(y * sim_log(x)); }

/* cos and sin of 2 pi t, t in [0, 1): t = k/4 + r/(2 pi), Taylor series for |r| <= pi/4. */
void sim_turn(double t, double *cosine, double *sine)
{
    int k = (int)(4 * t + 0.5);
    double r = (t - 0.25 * k) * (2 * SIM_PI), q = r * r;
    double c = 1 - q / 2 * (1 - q / 12 * (1 - q / 30 * (1 - q / 56 * (1 - q / 90
             * (1 - q / 132 * (1 - q / 182))))));
    double s = r * (1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72 * (1 - q / 110
             * (1 - q / 156))))));
    if (k & 1) {
        double swap = c;
        c = -s;
        s = swap;
    }
    *cosine = k & 2 ? -c : c;
    *sine = k & 2 ? -s : s;
}

/* xoshiro256++ of D. Blackman and S. Vigna (ACM TOMS 47 (2021) 36), seeded by Philox blocks. */
typedef struct sim_random { uint64_t s[4]; } sim_random;

enum { SIM_STREAM_PRIMARY, SIM_STREAM_TRANSPORT };

static void sim_seed(sim_random *r, uint64_t seed, uint64_t stream, uint64_t number)
{
    uint32_t w[8];
    int i;
    calomu_random(seed, number, stream << 32, w);
    calomu_random(seed, number, stream << 32 | 1, w + 4);
    for (i = 0; i < 4; i++) r->s[i] = (uint64_t)w[2 * i] << 32 | w[2 * i + 1];
    r->s[0] |= 1;                    /* never all zero */
}

/* Uniform in (0, 1), never an end: top 52 bits plus a half. */
static double sim_uniform(sim_random *r)
{
    uint64_t *s = r->s, x = s[0] + s[3], t = s[1] << 17;
    x = (x << 23 | x >> 41) + s[0];
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return ((double)(int64_t)(x >> 12) + 0.5) * 0x1p-52;
}

static double sim_exponential(sim_random *r) { return -sim_log(sim_uniform(r)); }

static double sim_gauss(sim_random *r)           /* Box and Muller 1958 */
{
    double c, s, length = sqrt(2 * sim_exponential(r));
    sim_turn(sim_uniform(r), &c, &s);
    return length * c;
}

/* Number of exponentials that fit into the mean. */
static int sim_poisson(sim_random *r, double mean)
{
    double limit = sim_exp(-mean), product = sim_uniform(r);
    int n = 0;
    while (product > limit) {
        product *= sim_uniform(r);
        n++;
    }
    return n;
}

/* Gamma variate of the given shape, scale 1: G. Marsaglia, W. W. Tsang, ACM TOMS 26 (2000) 363. */
static double sim_gamma(sim_random *r, double shape)
{
    double boost = shape < 1 ? sim_power(sim_uniform(r), 1 / shape) : 1;
    double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3, c = 1 / sqrt(9 * d), x, v;
    for (;;) {
        x = sim_gauss(r);
        v = 1 + c * x;
        if (v <= 0) continue;
        v = v * v * v;
        if (sim_log(sim_uniform(r)) < 0.5 * x * x + d - d * v + d * sim_log(v))
            return boost * d * v;
    }
}

typedef struct sim_vector { double x, y, z; } sim_vector;

/* Turns the unit vector d by the polar angle (cosine, sine) at azimuth 2 pi t. */
static void sim_deflect(sim_vector *d, double cosine, double sine, double t)
{
    double c, s, perp2 = d->x * d->x + d->y * d->y, perp, a, b, norm;
    sim_vector o = *d;
    sim_turn(t, &c, &s);
    a = sine * c;
    b = sine * s;
    if (perp2 < 1e-20) {
        d->x = a;
        d->y = b;
        d->z = o.z < 0 ? -cosine : cosine;
        return;
    }
    perp = sqrt(perp2);
    d->x = o.x * cosine + (o.x * o.z * a - o.y * b) / perp;
    d->y = o.y * cosine + (o.y * o.z * a + o.x * b) / perp;
    d->z = o.z * cosine - perp * a;
    norm = 1 / sqrt(d->x * d->x + d->y * d->y + d->z * d->z);
    d->x *= norm;
    d->y *= norm;
    d->z *= norm;
}

static double sim_sine(double cosine)
{
    double s2 = 1 - cosine * cosine;
    return s2 > 0 ? sqrt(s2) : 0;
}

static sim_vector sim_isotropic(sim_random *r)
{
    sim_vector d = { 0, 0, 1 };
    double c = 2 * sim_uniform(r) - 1;
    sim_deflect(&d, c, sim_sine(c), sim_uniform(r));
    return d;
}

#endif
