/* electronics.c - calibration, bias, noise, zero suppression; see electronics.h. */
#include "electronics.h"

#include <math.h>
#include <stdlib.h>

#include "simulate.h"

/* Random numbers: stream 2; the event number of the calibration is one that no muon has.  Block:
   the cell, or beyond 2^31 the sub-module. */
#define ELECTRONICS_STREAM ((uint64_t)2 << 32)
#define ELECTRONICS_RUN ((uint64_t)1 << 63)
enum { GROUP_X = 8, GROUP_Y = 8, GROUP_Z = 10 };

struct electronics {
    electronics_options o;
    calomu_geometry g;
    size_t cells;
    int gx, gy, groups;              /* sub-modules along x, along y, in all */
    float *factor;                   /* C_i */
    float *share;                    /* per sub-module: rho of the noise */
};

int electronics_wanted(const electronics_options *o)
{
    return o->miscalibration > 0 || o->bias < 0 || o->bias > 0 || o->noise > 0 || o->zero > 0;
}

int electronics_fill(const electronics_options *o)
{
    return (o->noise > 0 || o->bias > 0) && !(o->zero > 0);
}

/* ---------------------------------------------------------------- Beta(2,2) variates */

static double electronics_unit(uint32_t w) { return ((double)w + 0.5) * 0x1p-32; }

/* The median of three uniform numbers. */
static double electronics_median(const uint32_t w[4])
{
    uint32_t low = w[0] < w[1] ? w[0] : w[1], high = w[0] < w[1] ? w[1] : w[0];
    return electronics_unit(w[2] < low ? low : w[2] > high ? high : w[2]);
}

static double electronics_normal(const uint32_t w[4])      /* Box and Muller 1958 */
{
    double c, s;
    sim_turn(electronics_unit(w[1]), &c, &s);
    return sqrt(-2 * sim_log(electronics_unit(w[0]))) * c;
}

/* Distribution function of the normal law: Abramowitz and Stegun 26.2.17, error below 7.5e-8. */
static double electronics_phi(double z)
{
    double t = 1 / (1 + 0.2316419 * fabs(z)), tail;
    tail = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978
         + t * 1.330274429)))) * 0.3989422804014327 * sim_exp(-z * z / 2);
    return z > 0 ? 1 - tail : tail;
}

/* The x with 3x^2 - 2x^3 = u: halving, whose 40 steps are exact on every machine. */
static double electronics_invert(double u)
{
    double low = 0, high = 1, x = 0.5;
    int i;
    for (i = 0; i < 40; i++) {
        x = 0.5 * (low + high);
        if (x * x * (3 - 2 * x) < u) low = x;
        else high = x;
    }
    return x;
}

static int electronics_group(const electronics *e, size_t cell)
{
    int iy = (int)(cell % (size_t)e->g.ny), ix = (int)(cell / (size_t)e->g.ny % (size_t)e->g.nx);
    int iz = (int)(cell / (size_t)e->g.ny / (size_t)e->g.nx);
    return (iz / GROUP_Z * e->gx + ix / GROUP_X) * e->gy + iy / GROUP_Y;
}

/* One variate of a cell: alone, or with a Gaussian factor in common within its sub-module,
   z = sqrt(rho) g + sqrt(1 - rho) h (a one-factor copula). */
static double electronics_draw(const electronics *e, uint64_t number, size_t cell, double rho,
                               double common)
{
    uint32_t w[4];
    calomu_random(e->o.seed, number, ELECTRONICS_STREAM | cell, w);
    if (!(rho > 0)) return electronics_median(w);
    return electronics_invert(electronics_phi(sqrt(rho) * common
                                              + sqrt(1 - rho) * electronics_normal(w)));
}

static double electronics_common(const electronics *e, uint64_t number, int group)
{
    uint32_t w[4];
    calomu_random(e->o.seed, number, ELECTRONICS_STREAM | 0x80000000u | (uint64_t)group, w);
    return electronics_normal(w);
}

/* rho of a sub-module: words 2 and 3 of its block, which electronics_common does not use. */
static double electronics_rho(const electronics *e, int group, int noise)
{
    uint32_t w[4];
    calomu_random(e->o.seed, ELECTRONICS_RUN,
                  ELECTRONICS_STREAM | 0x80000000u | (uint64_t)group, w);
    return electronics_unit(w[2 + noise]) * (noise ? e->o.group_noise : e->o.group_calibration);
}

/* ---------------------------------------------------------------- use */

static void electronics_calibrate(electronics *e)
{
    size_t i;
    int k;
    for (k = 0; k < e->groups; k++) e->share[k] = (float)electronics_rho(e, k, 1);
    for (i = 0; i < e->cells; i++) {
        double b, rho = 0, common = 0;
        k = electronics_group(e, i);
        if (e->o.group_calibration > 0) {
            rho = electronics_rho(e, k, 0);
            common = electronics_common(e, ELECTRONICS_RUN, k);
        }
        b = electronics_draw(e, ELECTRONICS_RUN, i, rho, common);
        e->factor[i] = (float)(1 + e->o.miscalibration * (2 * b - 1));
    }
}

calomu_status electronics_new(const electronics_options *o, const calomu_geometry *g,
                              electronics **made)
{
    electronics *e = calloc(1, sizeof *e);
    *made = NULL;
    if (!e) return CALOMU_EMEMORY;
    e->o = *o;
    e->g = *g;
    e->cells = (size_t)g->nz * (size_t)g->nx * (size_t)g->ny;
    e->gx = (g->nx + GROUP_X - 1) / GROUP_X;
    e->gy = (g->ny + GROUP_Y - 1) / GROUP_Y;
    e->groups = (g->nz + GROUP_Z - 1) / GROUP_Z * e->gx * e->gy;
    e->factor = malloc(e->cells * sizeof *e->factor);
    e->share = malloc((size_t)e->groups * sizeof *e->share);
    if (!e->factor || !e->share) {
        electronics_free(e);
        return CALOMU_EMEMORY;
    }
    electronics_calibrate(e);
    *made = e;
    return CALOMU_OK;
}

void electronics_free(electronics *e)
{
    if (!e) return;
    free(e->factor);
    free(e->share);
    free(e);
}

static double electronics_noise(const electronics *e, uint64_t number, size_t cell)
{
    int group = 0;
    double rho = 0, common = 0;
    if (!(e->o.noise > 0)) return 0;
    if (e->o.group_noise > 0) {
        group = electronics_group(e, cell);
        rho = (double)e->share[group];
        common = electronics_common(e, number, group);
    }
    return e->o.noise * (2 * electronics_draw(e, number, cell, rho, common) - 1);
}

/* Where nothing is added to empty cells only the hits need a look. */
size_t electronics_apply(const electronics *e, uint64_t number, const calomu_event *event,
                         calomu_hit *hits)
{
    int every = e->o.noise > 0 || e->o.bias > 0;
    size_t i, k = 0, n = 0, cells = every ? e->cells : event->n_hits;
    for (i = 0; i < cells; i++) {
        size_t cell = every ? i : event->hits[i].cell;
        double energy = 0;
        if (k < event->n_hits && event->hits[k].cell == cell)
            energy = (double)event->hits[k++].energy;
        energy = (double)e->factor[cell] * energy * 1e3 + e->o.bias
               + electronics_noise(e, number, cell);
        if (!(energy > 0) || energy < e->o.zero) continue;
        hits[n].cell = (uint32_t)cell;
        hits[n++].energy = (float)(energy * 1e-3);
    }
    return n;
}
