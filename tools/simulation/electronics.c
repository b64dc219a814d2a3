/* electronics.c - calibration, bias, noise, zero suppression; see electronics.h. */
#include "electronics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "copula.h"
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
    int vine;                        /* 1: from here on */
    int size;                        /* cells of a sub-module */
    int pairs;                       /* with parameters, per cell */
    float *pair[2];                  /* their parameters, of the calibration and of the noise; */
    unsigned char *family[2];        /*   their families */
    uint32_t fires;                  /* an empty cell whose 32 bits are lower cannot fire */
    copula_table table;
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

/* ---------------------------------------------------------------- vines */

/* Blocks (seed, muon or draw, purpose | setting | four cells or a pair). */
enum { ELECTRONICS_NOISE = 3, ELECTRONICS_FACTORS, ELECTRONICS_PAIRS = 8 };
#define ELECTRONICS_LATENT 0x80000000u           /* | sub-module */

typedef struct electronics_source {  /* the block drawn last */
    uint64_t seed, number, stream, block;
    uint32_t w[4];
    int ready;
} electronics_source;

static electronics_source electronics_from(const electronics *e, int noise, uint64_t number)
{
    electronics_source s = { .seed = e->o.seed };
    s.number = noise ? number : ELECTRONICS_RUN | e->o.draw;
    s.stream = noise ? (uint64_t)ELECTRONICS_NOISE << 60 | (uint64_t)e->o.setting << 34
                     : (uint64_t)ELECTRONICS_FACTORS << 60;
    return s;
}

static uint32_t electronics_word(electronics_source *s, uint64_t cell)
{
    if (!s->ready || s->block != cell / 4) {
        s->block = cell / 4;
        s->ready = 1;
        calomu_random(s->seed, s->number, s->stream | s->block, s->w);
    }
    return s->w[cell % 4];
}

/* An independent variate of a cell: normal for Gaussian pairs, else uniform. */
static double electronics_fresh(const electronics *e, electronics_source *s, uint64_t cell)
{
    double c, d, length;
    uint32_t w = electronics_word(s, cell);
    if (e->o.family != COPULA_GAUSS) return electronics_unit(w);
    sim_turn(electronics_unit(s->w[(cell & 2) + 1]), &c, &d);
    length = sqrt(-2 * sim_log(electronics_unit(s->w[cell & 2])));
    return length * (cell & 1 ? d : c);
}

static void electronics_pair(const electronics *e, int noise, size_t cell, int k)
{
    size_t at = cell * (size_t)e->pairs + (size_t)k;
    uint32_t w[4];
    double r;
    int family = e->o.family;
    calomu_random(e->o.seed, ELECTRONICS_RUN | e->o.draw,
                  (uint64_t)(ELECTRONICS_PAIRS + noise) << 60 | at, w);
    r = e->o.rho * (k == 0 ? electronics_unit(w[0]) : electronics_unit(w[0]) - 0.5);
    if (family > COPULA_FRANK) family = (int)(w[1] % 3);
    e->family[noise][at] = (unsigned char)family;
    e->pair[noise][at] = (float)copula_parameter((copula_family)family, r);
}

/* x given the variate `root`: for Gaussian pairs both normal, else uniform. */
static double electronics_join(const electronics *e, int noise, size_t cell, int k, double x,
                               double root)
{
    size_t at = cell * (size_t)e->pairs + (size_t)k;
    double p = (double)e->pair[noise][at];
    if (e->o.family == COPULA_GAUSS) return x * sqrt(1 - p * p) + p * root;
    return copula_h_inverse((copula_family)e->family[noise][at], x, root, p);
}

static size_t electronics_cell(const electronics *e, int module, int i)
{
    const int32_t *m = e->o.module;
    int iy = module % e->gy * m[2] + i % m[2];
    int ix = module / e->gy % e->gx * m[1] + i / m[2] % m[1];
    int iz = module / e->gy / e->gx * m[0] + i / m[2] / m[1];
    return ((size_t)iz * (size_t)e->g.nx + (size_t)ix) * (size_t)e->g.ny + (size_t)iy;
}

/* The variates 2 B - 1 of a sub-module into out[cell].  C-vine: Aas et al., algorithm 1, whose
   conditioning variates given all earlier roots are the roots' own fresh ones. */
static void electronics_module(const electronics *e, int noise, int module,
                               electronics_source *s, float *out)
{
    double root[ELECTRONICS_TREES], last = 0, x;
    int i, k;
    if (e->o.vine == ELECTRONICS_FACTOR)
        root[0] = electronics_fresh(e, s, ELECTRONICS_LATENT | (uint64_t)module * 4);
    for (i = 0; i < e->size; i++) {
        size_t cell = electronics_cell(e, module, i);
        x = electronics_fresh(e, s, cell);
        if (e->o.vine == ELECTRONICS_C_VINE) {
            k = i < e->pairs ? i : e->pairs;
            if (i < e->pairs) root[i] = x;
            while (k-- > 0) x = electronics_join(e, noise, cell, k, x, root[k]);
        } else if (e->o.vine == ELECTRONICS_FACTOR) {
            x = electronics_join(e, noise, cell, 0, x, root[0]);
        } else if (i > 0) {
            x = electronics_join(e, noise, cell, 0, x, last);
        }
        last = x;
        out[cell] = (float)(e->o.family == COPULA_GAUSS ? copula_table_at(&e->table, x)
                                                        : 2 * copula_beta_inverse(x) - 1);
    }
}

static double electronics_alone(uint32_t w)
{
    return 2 * copula_beta_inverse(electronics_unit(w)) - 1;
}

static void electronics_factors(electronics *e)
{
    electronics_source s = electronics_from(e, 0, 0);
    size_t i;
    int k;
    for (i = 0; i < e->cells && e->o.vine == ELECTRONICS_INDEPENDENT; i++)
        e->factor[i] = (float)electronics_alone(electronics_word(&s, i));
    for (k = 0; k < e->groups && e->o.vine > ELECTRONICS_INDEPENDENT; k++)
        electronics_module(e, 0, k, &s, e->factor);
    for (i = 0; i < e->cells; i++)
        e->factor[i] = (float)(1 + e->o.miscalibration * (double)e->factor[i]);
}

/* The highest word whose noise leaves an empty cell below the threshold: by halving, with the very
   arithmetic of electronics_keep. */
static uint32_t electronics_limit(const electronics *e)
{
    uint32_t low = 0;
    int bit;
    for (bit = 31; bit >= 0; bit--) {
        double x = e->o.bias + e->o.noise * electronics_alone(low + ((uint32_t)1 << bit) - 1);
        if (!(x > 0) || x < e->o.zero) low += (uint32_t)1 << bit;
    }
    return low;
}

static calomu_status electronics_vines(electronics *e)
{
    static const int32_t usual[3] = { GROUP_Z, GROUP_X, GROUP_Y };
    size_t i, n;
    int k, noise;
    for (k = 0; k < 3; k++) if (e->o.module[k] == 0) e->o.module[k] = usual[k];
    for (k = 0; k < 3; k++) {
        int side = k == 0 ? e->g.nz : k == 1 ? e->g.nx : e->g.ny;
        if (e->o.module[k] < 0 || side % e->o.module[k]) return CALOMU_EUSAGE;
    }
    e->gx = e->g.nx / e->o.module[1];
    e->gy = e->g.ny / e->o.module[2];
    e->groups = e->g.nz / e->o.module[0] * e->gx * e->gy;
    e->size = e->o.module[0] * e->o.module[1] * e->o.module[2];
    e->pairs = e->o.vine == ELECTRONICS_C_VINE ? e->o.trees : 1;
    if (e->pairs < 1 || e->pairs > ELECTRONICS_TREES) return CALOMU_EUSAGE;
    copula_table_make(&e->table);
    n = e->o.vine > ELECTRONICS_INDEPENDENT ? e->cells * (size_t)e->pairs : 1;
    for (noise = 0; noise < 2; noise++) {
        e->pair[noise] = malloc(n * sizeof *e->pair[noise]);
        e->family[noise] = malloc(n);
        if (!e->pair[noise] || !e->family[noise]) return CALOMU_EMEMORY;
        for (i = 0; i < n; i++)
            electronics_pair(e, noise, i / (size_t)e->pairs, (int)(i % (size_t)e->pairs));
    }
    electronics_factors(e);
    e->fires = electronics_limit(e);
    return CALOMU_OK;
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
    if (o->vine == ELECTRONICS_GROUPS) {
        electronics_calibrate(e);
    } else {
        calomu_status status = electronics_vines(e);
        if (status != CALOMU_OK) {
            electronics_free(e);
            return status;
        }
    }
    *made = e;
    return CALOMU_OK;
}

void electronics_free(electronics *e)
{
    if (!e) return;
    free(e->factor);
    free(e->share);
    free(e->pair[0]);
    free(e->pair[1]);
    free(e->family[0]);
    free(e->family[1]);
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

/* Suppression comes last: what is at the threshold stays, what is not positive goes. */
static int electronics_keep(const electronics *e, size_t cell, double energy, double noise,
                            calomu_hit *hit)
{
    energy = (double)e->factor[cell] * energy * 1e3 + e->o.bias + noise;
    if (!(energy > 0) || energy < e->o.zero) return 0;
    hit->cell = (uint32_t)cell;
    hit->energy = (float)(energy * 1e-3);
    return 1;
}

/* Sub-modules with hits, or all where empty cells can fire, into noise[cells]. */
static void electronics_noises(const electronics *e, uint64_t number, const calomu_event *event,
                               int every, float *noise, unsigned char *wanted)
{
    const int32_t *m = e->o.module;
    electronics_source s = electronics_from(e, 1, number);
    size_t i;
    int k;
    memset(wanted, every, (size_t)e->groups);
    for (i = 0; i < event->n_hits && !every; i++) {
        int cell = (int)event->hits[i].cell, iy = cell % e->g.ny, ix = cell / e->g.ny % e->g.nx;
        wanted[(cell / e->g.ny / e->g.nx / m[0] * e->gx + ix / m[1]) * e->gy + iy / m[2]] = 1;
    }
    for (k = 0; k < e->groups; k++)
        if (wanted[k]) electronics_module(e, 1, k, &s, noise);
}

static size_t electronics_correlated(const electronics *e, uint64_t number,
                                     const calomu_event *event, calomu_hit *hits)
{
    int every = e->o.noise + e->o.bias > 0 && e->o.noise + e->o.bias >= e->o.zero;
    float *noise = malloc(e->cells * sizeof *noise + (size_t)e->groups);
    size_t i, k = 0, n = 0, cells = every ? e->cells : event->n_hits;
    if (!noise) return SIZE_MAX;
    electronics_noises(e, number, event, every, noise, (unsigned char *)(noise + e->cells));
    for (i = 0; i < cells; i++) {
        size_t cell = every ? i : event->hits[i].cell;
        double energy = k < event->n_hits && event->hits[k].cell == cell
                      ? (double)event->hits[k++].energy : 0;
        n += (size_t)electronics_keep(e, cell, energy, e->o.noise * (double)noise[cell],
                                      hits + n);
    }
    free(noise);
    return n;
}

/* An empty cell is inverted only if its word is one that fires. */
static size_t electronics_single(const electronics *e, uint64_t number, const calomu_event *event,
                                 calomu_hit *hits)
{
    int every = e->o.noise + e->o.bias > 0 && e->o.noise + e->o.bias >= e->o.zero;
    int draws = e->o.noise > 0;
    electronics_source s = electronics_from(e, 1, number);
    size_t i, k = 0, n = 0, cells = every ? e->cells : event->n_hits;
    for (i = 0; i < cells; i++) {
        size_t cell = every ? i : event->hits[i].cell;
        int hit = k < event->n_hits && event->hits[k].cell == cell;
        uint32_t w = draws ? electronics_word(&s, cell) : UINT32_MAX;
        if (!hit && w < e->fires) continue;
        n += (size_t)electronics_keep(e, cell, hit ? (double)event->hits[k++].energy : 0,
                                      draws ? e->o.noise * electronics_alone(w) : 0, hits + n);
    }
    return n;
}

/* Where nothing is added to empty cells only the hits need a look. */
size_t electronics_apply(const electronics *e, uint64_t number, const calomu_event *event,
                         calomu_hit *hits)
{
    int every = e->o.noise > 0 || e->o.bias > 0;
    size_t i, k = 0, n = 0, cells = every ? e->cells : event->n_hits;
    if (e->o.vine == ELECTRONICS_INDEPENDENT) return electronics_single(e, number, event, hits);
    if (e->o.vine != ELECTRONICS_GROUPS)
        return (e->o.noise > 0 ? electronics_correlated : electronics_single)(e, number, event,
                                                                              hits);
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
