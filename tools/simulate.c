/* simulate.c - muons in lead tungstate; see simulate.h

   Sections:
     1 arithmetic: random numbers, log, exp, angles    5 electrons and positrons
     2 material                                        6 the shower library
     3 block, cells, deposits                          7 photonuclear cascades
     4 photons                                         8 the muon: cross-sections, tables, transport
                                                       9 interface

   Units inside: MeV, cm; coordinates from the low corner of the block (z = 0: front face).
   Sources, cited as [..] at each formula:
     [PDG]   Review of Particle Physics, Prog. Theor. Exp. Phys. 2022, 083C01, chapter 34
     [PRM]   GEANT4 Collaboration, Physics Reference Manual, release 11
     [KKP]   S. R. Kelner, R. P. Kokoulin, A. A. Petrukhin, Phys. Atom. Nucl. 60 (1997) 576;
             R. P. Kokoulin, A. A. Petrukhin, 12th ICRC, Hobart (1971) 2436 (pairs)
     [BP]    V. V. Borog, A. A. Petrukhin, 14th ICRC, Munich (1975) 1949 (photonuclear)
     [T74]   Y.-S. Tsai, Rev. Mod. Phys. 46 (1974) 815; 49 (1977) 421
     [BS]    H. Bichsel, R. M. Sternheimer et al., as given in [PDG] (restricted loss, density)
     [M48]   G. Moliere, Z. Naturforsch. 3a (1948) 78; H. A. Bethe, Phys. Rev. 89 (1953) 1256
     [MF48]  W. A. McKinley, H. Feshbach, Phys. Rev. 74 (1948) 1759

   One shape of program: a muon flies through the block in short steps; what it radiates becomes
   photons, electrons and positrons on a stack; each is followed until it is absorbed or leaves
   ("engine M"), except that those of 0.1 MeV to 1 GeV are replaced at once by a rotated, scaled
   shower out of a library that engine M has filled at the start ("engine L").

   Bits: + - * / sqrt and our own exp, log, sine only, as they are written (CALOMU_EQUAL_BITS) and
   with the modes of the processor that calomu_modes_set sets, in every function of the interface
   and in every thread.  */
#define CALOMU_EQUAL_BITS
#include "simulate.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

/* ============================================================================================
   1 Arithmetic
   ============================================================================================ */

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

/* ============================================================================================
   2 Material: PbWO4, 8.28 g/cm3
   ============================================================================================ */

#define SIM_ME 0.51099895            /* MeV [PDG] */
#define SIM_MMU 105.6583755
#define SIM_MP 938.27208816
#define SIM_ALPHA (1 / 137.035999084)
#define SIM_RE 2.8179403262e-13      /* cm */
#define SIM_HBARC 1.973269804e-11    /* MeV cm */
#define SIM_DENSITY 8.28             /* g/cm3 (NIST as used by GEANT4; the PDG lists 8.30) */
#define SIM_NE 2.060117e24           /* electrons per cm3 */
#define SIM_KD 0.52524               /* 2 pi m_e r_e^2 n_e, MeV/cm */
#define SIM_I 542.74e-6              /* mean excitation, MeV (Bragg: O 95, W 727, Pb 823 eV) */
#define SIM_X0 0.892417              /* cm, [T74] */
#define SIM_TCUT 0.8425              /* thresholds of a 0.7 mm range cut, MeV: electrons, */
#define SIM_KCUT 0.0758              /*   photons */
#define SIM_SQRT_E 1.6487212707001281

enum { SIM_ELEMENTS = 3 };

typedef struct sim_element {
    double z, a;                     /* charge, mass in g/mol */
    double n;                        /* atoms per cm3 */
    double log_z, z13;               /* ln Z, Z^(-1/3) */
    double fc;                       /* Coulomb correction [T74] */
} sim_element;

/* f_c = a2 [0.0083 a4 + 0.20206 + 1/(1 + a2)] - a4 (0.0020 a4 + 0.0369), a2 = (alpha Z)^2: the sum
   of Davies, Bethe and Maximon as fitted in [T74, PDG]. */
static double sim_coulomb(double z)
{
    double a2 = SIM_ALPHA * z * SIM_ALPHA * z, a4 = a2 * a2;
    return a2 * (0.0083 * a4 + 0.20206 + 1 / (1 + a2)) - a4 * (0.0020 * a4 + 0.0369);
}

static void sim_material(sim_element e[SIM_ELEMENTS])
{
    static const double z[] = { 8, 74, 82 }, a[] = { 15.9994, 183.84, 207.2 };
    static const double n[] = { 4.38323e22, 1.09581e22, 1.09581e22 };
    int i;
    for (i = 0; i < SIM_ELEMENTS; i++) {
        e[i].z = z[i];
        e[i].a = a[i];
        e[i].n = n[i];
        e[i].log_z = sim_log(z[i]);
        e[i].z13 = sim_exp(-e[i].log_z / 3);
        e[i].fc = sim_coulomb(z[i]);
    }
}

/* Density effect of Sternheimer as parameterised in [PDG], constants by his recipe for this
   material (C = 1 + 2 ln(I/53.297 eV)), gamma^2 beta^2 = bg2. */
static double sim_density(double bg2)
{
    const double c = 5.64150, x0 = 0.33913, x1 = 3, a = 0.216552;
    double ln = sim_log(bg2) / 2, x = ln / 2.302585092994046, y = x1 - x;
    if (x < x0) return 0;
    return 2 * ln - c + (x < x1 ? a * y * y * y : 0);
}

/* ---- tables of energy: 16 nodes per octave, found from the bits of the energy, linear between.
   1 keV to 17 TeV. */

enum { SIM_OCTAVE = 16, SIM_LOWEST = -10, SIM_NODES = 34 * SIM_OCTAVE + 1 };

typedef struct sim_place { int i; double f; } sim_place;

static sim_place sim_find(double energy)
{
    uint64_t u = sim_bits(energy);
    sim_place p;
    p.i = (int)(u >> 48) - (1023 + SIM_LOWEST) * SIM_OCTAVE;
    p.f = (double)(int64_t)(u & 0xFFFFFFFFFFFFu) * 0x1p-48;
    if (p.i < 0) p.i = 0, p.f = 0;
    if (p.i > SIM_NODES - 2) p.i = SIM_NODES - 2, p.f = 1;
    return p;
}

static double sim_node_energy(int i)
{
    return sim_from_bits((uint64_t)(i + (1023 + SIM_LOWEST) * SIM_OCTAVE) << 48);
}

typedef struct sim_photon_node {     /* per cm; running sums */
    double photo, compton, total;
} sim_photon_node;

typedef struct sim_electron_node {
    double dedx, range;              /* MeV/cm, cm */
    double ion, brem, hard;          /* hard collisions per cm: running sums (hard: all) */
    double c, a;                     /* screened Rutherford law: dN/(dmu ds) = c/(mu + 2a)^2 */
    double lambda;                   /* first transport mean free path, cm */
} sim_electron_node;

/* Muon tables: nodes in ln E, for each process the cumulative of the transfer. */
enum { SIM_MU_NODES = 61, SIM_MU_BINS = 400 };
enum { SIM_DELTA, SIM_BREM, SIM_PAIR, SIM_NUCLEAR, SIM_PROCESSES };

typedef struct sim_muon_node {
    double dedx;                                     /* restricted, MeV/cm */
    double low[SIM_PROCESSES], high[SIM_PROCESSES];  /* ln of the range of transfers, MeV */
    double sum[SIM_PROCESSES][SIM_MU_BINS + 1];      /* per cm */
} sim_muon_node;

/* The library: showers of photons (kind 0) and of electrons or positrons (kind 1), 16 bins a
   decade. */
enum { SIM_LIB_DECADE = 16, SIM_LIB_BINS = 65, SIM_LIB_SHOWERS = 1000 };
#define SIM_LIB_LOW 0.1              /* MeV */
#define SIM_LIB_HIGH 1000.0

enum { SIM_BLOCK = 8 };

/* Eight spots in 64 bytes, a line of the cache, because reading the library is what takes time:
   positions in units of the shower's `scale`, shares of the energy as the upper half of a float. */
typedef struct sim_block {
    int16_t x[SIM_BLOCK], y[SIM_BLOCK], z[SIM_BLOCK];
    uint16_t e[SIM_BLOCK];
} sim_block;

typedef struct sim_shower_spots {
    int n;                           /* blocks */
    float scale;                     /* cm */
    sim_block *block;                /* on a multiple of 64 bytes */
    void *memory;
} sim_shower_spots;

struct sim {
    calomu_options memory;
    sim_options options;
    double size[3];                  /* of the block along x, y, z, cm */
    double inverse[3];               /* cells per cm */
    int cells[3];
    sim_element element[SIM_ELEMENTS];
    double choice[SIM_ELEMENTS];     /* running shares of elements in bremsstrahlung */
    sim_photon_node photon[SIM_NODES];
    sim_electron_node electron[2][SIM_NODES];        /* electron, positron */
    sim_muon_node muon[SIM_MU_NODES];
    sim_shower_spots library[2][SIM_LIB_BINS][SIM_LIB_SHOWERS];
};

typedef struct sim_particle {
    sim_kind kind;
    double energy;                   /* kinetic */
    sim_vector at, to;
    double most;                     /* of e+-: longest step in this cell, cm; 0: not known yet */
} sim_particle;

enum { SIM_STACK = 4096 };

/* Spots of a shower for the library while it is made (section 6). */
typedef struct sim_voxels {
    int n, size;
    struct sim_voxel { uint64_t key; double e, x, y, z; uint32_t slot; } *spot;
    int *slot;                       /* hash table, -1 empty */
    double across[2], along[2];      /* voxels per cm in the halo and near the axis */
} sim_voxels;

struct sim_worker {
    const sim *s;
    sim_random random;
    double low[3], high[3];          /* of the volume outside of which particles are dropped */
    double shift[3];                 /* of the cells against the coordinates, in cells */
    double library_top;              /* MeV: particles below come from the library; 0: none */
    double deposited, leaked, unseen;
    int n;                           /* particles on the stack */
    sim_particle stack[SIM_STACK];
    sim_voxels *voxels;              /* deposits go here instead of the grid */
    float *grid;                     /* MeV; zero between events */
    calomu_hit *hits;                /* of the last event: room for all cells */
};

/* The caller's functions run in the modes that we compute in, and may leave others behind. */
static void sim_modes_again(const calomu_modes *before)
{
    calomu_modes now;
    (void)calomu_modes_set(&now);
    calomu_modes_restore(before);
}

static void *sim_allocate_from(const calomu_options *m, size_t size)
{
    calomu_modes before;
    void *memory;
    if (!m->allocate) return malloc(size);
    (void)calomu_modes_set(&before);
    memory = m->allocate(m->user, size);
    sim_modes_again(&before);
    return memory;
}

static void *sim_allocate(const sim *s, size_t size) { return sim_allocate_from(&s->memory, size); }

static void sim_release(const sim *s, void *memory)
{
    calomu_modes before;
    if (!memory || !s->memory.allocate) {
        free(memory);
        return;
    }
    (void)calomu_modes_set(&before);
    s->memory.release(s->memory.user, memory);
    sim_modes_again(&before);
}

/* ============================================================================================
   3 Block, cells, deposits
   ============================================================================================ */

static void sim_voxel_add(sim_voxels *v, const sim_vector *at, double e);

static int sim_inside(const sim_worker *w, const sim_vector *p)
{
    return p->x >= w->low[0] && p->x < w->high[0] && p->y >= w->low[1] && p->y < w->high[1]
        && p->z >= w->low[2] && p->z < w->high[2];
}

/* Energy at a point: into its cell, its insensitive gap, or out of the block. */
static void sim_deposit(sim_worker *w, const sim_vector *at, double e)
{
    const sim *s = w->s;
    double z;
    int ix, iy, iz;
    if (!sim_inside(w, at)) {
        w->leaked += e;
        return;
    }
    if (w->voxels) {
        sim_voxel_add(w->voxels, at, e);
        return;
    }
    z = at->z * s->inverse[2];
    ix = (int)(at->x * s->inverse[0]);
    iy = (int)(at->y * s->inverse[1]);
    iz = (int)z;
    /* rounding may put the last point of the block into the cell behind it */
    ix = ix < s->cells[0] ? ix : s->cells[0] - 1;
    iy = iy < s->cells[1] ? iy : s->cells[1] - 1;
    iz = iz < s->cells[2] ? iz : s->cells[2] - 1;
    if (z - iz > s->options.active) {
        w->unseen += e;
        return;
    }
    w->grid[((size_t)iz * (size_t)s->cells[0] + (size_t)ix) * (size_t)s->cells[1] + (size_t)iy]
        += (float)e;
    w->deposited += e;
}

static sim_vector sim_ahead(const sim_vector *p, const sim_vector *d, double length)
{
    sim_vector q;
    q.x = p->x + length * d->x;
    q.y = p->y + length * d->y;
    q.z = p->z + length * d->z;
    return q;
}

/* Distance along d to the next wall of one axis; cell: coordinate in cells. */
static double sim_to_wall(double cell, double d, double inverse)
{
    double i = floor(cell), t;
    if (d > 1e-12) t = (i + 1 - cell) / (d * inverse);
    else if (d < -1e-12) t = (cell - i) / (-d * inverse);
    else return 1e30;
    return t;
}

/* Distance from p along d to the next wall of a cell. */
static double sim_next_wall(const sim_worker *w, const sim_vector *p, const sim_vector *d)
{
    const sim *s = w->s;
    double x = sim_to_wall(p->x * s->inverse[0] + w->shift[0], d->x, s->inverse[0]);
    double y = sim_to_wall(p->y * s->inverse[1] + w->shift[1], d->y, s->inverse[1]);
    double z = sim_to_wall(p->z * s->inverse[2] + w->shift[2], d->z, s->inverse[2]);
    x = x < y ? x : y;
    return x < z ? x : z;
}

/* Distance from p to the nearest wall of its cell. */
static double sim_nearest_wall(const sim_worker *w, const sim_vector *p)
{
    const double at[3] = { p->x, p->y, p->z };
    double least = 1e30, cell, t;
    int i;
    for (i = 0; i < 3; i++) {
        cell = at[i] * w->s->inverse[i] + w->shift[i];
        t = cell - floor(cell);
        t = (t < 0.5 ? t : 1 - t) / w->s->inverse[i];
        least = t < least ? t : least;
    }
    return least;
}

/* Energy spread evenly along a straight line, cell by cell.  The point of each piece is its
   middle; 1 um more than a wall's distance makes sure that the next piece starts behind it. */
static void sim_deposit_line(sim_worker *w, const sim_vector *from, const sim_vector *d,
                             double length, double e)
{
    double done = 0, piece;
    while (done < length) {
        sim_vector p = sim_ahead(from, d, done), middle;
        piece = sim_next_wall(w, &p, d) + 1e-4;
        if (piece > length - done) piece = length - done;
        middle = sim_ahead(&p, d, 0.5 * piece);
        sim_deposit(w, &middle, e * piece / length);
        done += piece;
    }
}

/* Puts a particle on the stack, or its energy on the spot where there is no room (never seen). */
static void sim_push(sim_worker *w, sim_kind kind, double energy, const sim_vector *at,
                     const sim_vector *to)
{
    sim_particle *p;
    if (energy <= 0) return;
    if (w->n == SIM_STACK) {
        sim_deposit(w, at, energy);
        return;
    }
    p = &w->stack[w->n++];
    p->kind = kind;
    p->energy = energy;
    p->at = *at;
    p->to = *to;
    p->most = 0;
}

/* ============================================================================================
   4 Photons: Compton, pairs, photoelectric
   ============================================================================================ */

#define SIM_PHOTON_LOW 0.06          /* MeV: absorbed on the spot below */

/* Compton scattering per atom, cm2; empirical fit of [PRM, Compton scattering]. */
static double sim_compton_atom(double z, double energy)
{
    static const double d[] = { 0.27965, -0.18300, 6.7527, -19.798 };
    static const double e[] = { 1.9756e-5, -1.0205e-2, -7.3913e-2, 2.7079e-2 };
    static const double f[] = { -3.9178e-7, 6.8241e-5, 6.0480e-5, 3.0274e-4 };
    double x = (energy > 0.015 ? energy : 0.015) / SIM_ME, p[4];
    int i;
    for (i = 0; i < 4; i++) p[i] = z * (d[i] + z * (e[i] + z * f[i]));
    return 1e-24 * (p[0] * sim_log(1 + 2 * x) / x + (p[1] + x * (p[2] + x * p[3]))
                    / (1 + x * (20 + x * (230 + x * 440))));
}

static double sim_polynomial(const double *c, int n, double x)
{
    double p = c[n - 1];
    while (--n > 0) p = p * x + c[n - 1];
    return p;
}

/* Pair production per atom, cm2; fit of [PRM, gamma conversion] to Hubbell's data. */
static double sim_pair_atom(double z, double energy)
{
    static const double f1[] = { 878.42, -1962.5, 1294.9, -200.28, 12.575, -0.28333 };
    static const double f2[] = { -10.342, 17.692, -8.2381, 1.3063, -0.090815, 0.0023586 };
    static const double f3[] = { -452.63, 1116.1, -867.49, 217.73, -20.467, 0.65372 };
    double e = energy < 1.5 ? 1.5 : energy > 1e5 ? 1e5 : energy, x = sim_log(e / SIM_ME), y, s;
    if (energy <= 2 * SIM_ME) return 0;
    s = (z + 1) * z * (sim_polynomial(f1, 6, x) + z * sim_polynomial(f2, 6, x)
                       + sim_polynomial(f3, 6, x) / z);
    y = energy < 1.5 ? (energy - 2 * SIM_ME) / (1.5 - 2 * SIM_ME) : 1;
    return s > 0 ? 1e-30 * s * y * y : 0;
}

/* Photoelectric effect, per cm: coefficients of Biggs and Lighthill (SAND87-0070, 1988) by
   intervals of energy (keV), cm2/g. */
static double sim_photoelectric(double energy)
{
    static const struct { double weight, from, c[4]; } row[] = {
        { 0.140642, 4.0, { 2.745, -174.7, 7159, -2213 } },
        { 0.140642, 20, { .03774, -15.59, 4045, 18100 } },
        { 0.140642, 100, { 3.169e-3, -1.146, 2194, 91310 } },
        { 0.140642, 500, { 1.367e-3, 1.473, 721.4, 4.048e5 } },
        { 0.404011, 10.204, { -62.06, 4525, 2.194e5, -1.223e5 } },
        { 0.404011, 11.541, { -121.1, 10580, 2.701e5, -2.556e5 } },
        { 0.404011, 12.098, { -21.05, 4623, 5.109e5, -1.835e6 } },
        { 0.404011, 69.525, { 5.276, 2999, 4.828e6, -1.030e8 } },
        { 0.404011, 500, { 3.099, 6112, 3.348e6, 1.310e8 } },
        { 0.455347, 13.035, { -71.25, 7126, 2.931e5, -2.779e5 } },
        { 0.455347, 15.2, { -136.3, 19920, 2.721e5, -4.887e5 } },
        { 0.455347, 15.861, { -8.206, 4058, 7.950e5, -4.115e6 } },
        { 0.455347, 88.004, { 7.595, 4692, 6.429e6, -1.747e8 } },
        { 0.455347, 500, { 4.240, 8883, 4.754e6, 3.448e7 } }
    };
    double k = energy * 1000, sum = 0;
    size_t i, n = sizeof row / sizeof row[0];
    if (k < 16) k = 16;
    for (i = 0; i < n; i++) {
        const double *c = row[i].c;
        if (k < row[i].from) continue;
        if (i + 1 < n && row[i + 1].weight == row[i].weight && k >= row[i + 1].from) continue;
        sum += row[i].weight * (c[0] + (c[1] + (c[2] + c[3] / k) / k) / k) / k;
    }
    return sum * SIM_DENSITY;
}

static void sim_photon_table(sim *s)
{
    int i, k;
    for (i = 0; i < SIM_NODES; i++) {
        double e = sim_node_energy(i);
        sim_photon_node *n = &s->photon[i];
        n->photo = n->compton = n->total = sim_photoelectric(e);
        for (k = 0; k < SIM_ELEMENTS; k++) {
            double compton = s->element[k].n * sim_compton_atom(s->element[k].z, e);
            n->compton += compton;
            n->total += compton + s->element[k].n * sim_pair_atom(s->element[k].z, e);
        }
    }
}

/* Klein-Nishina, sampled as in [PRM] (Butcher and Messel): the new energy's share h of the old. */
static double sim_compton_share(sim_random *r, double e0, double *one_minus_cos)
{
    double h0 = 1 / (1 + 2 * e0), a1 = -sim_log(h0), a2 = a1 + (1 - h0 * h0) / 2, h, q;
    do {
        if (sim_uniform(r) * a2 < a1) h = sim_exp(-a1 * sim_uniform(r));
        else h = sqrt(h0 * h0 + (1 - h0 * h0) * sim_uniform(r));
        q = (1 - h) / (h * e0);
    } while (sim_uniform(r) > 1 - h * q * (2 - q) / (1 + h * h));
    *one_minus_cos = q;
    return h;
}

/* The photon goes on with what is left; its electron goes on the stack. */
static void sim_compton(sim_worker *w, sim_particle *p)
{
    double q, h = sim_compton_share(&w->random, p->energy / SIM_ME, &q), e = p->energy;
    double t = e * (1 - h), phi = sim_uniform(&w->random), cosine = 1 - q;
    sim_vector before = p->to, d;
    sim_deflect(&p->to, cosine, sim_sine(cosine), phi);
    p->energy = e * h;
    if (t < 0.02) {
        sim_deposit(w, &p->at, t);
        return;
    }
    d.x = e * before.x - p->energy * p->to.x;
    d.y = e * before.y - p->energy * p->to.y;
    d.z = e * before.z - p->energy * p->to.z;
    q = 1 / sqrt(d.x * d.x + d.y * d.y + d.z * d.z);
    d.x *= q;
    d.y *= q;
    d.z *= q;
    sim_push(w, SIM_ELECTRON, t, &p->at, &d);
}

/* Angle of pairs and bremsstrahlung, th = a m_e/E with the spectrum of [T74] as sampled in [PRM]:
   returns 1 - cos. */
static double sim_tsai_angle(sim_random *r, double total)
{
    double most = 2 * total / SIM_ME, a, c;
    do {
        a = -sim_log(sim_uniform(r) * sim_uniform(r))
            * (sim_uniform(r) < 0.25 ? 1.6 : 1.6 / 3);
    } while (a > most);
    c = a / most;
    return 2 * c * c;
}

/* Screening functions of [PRM, gamma conversion] and what is taken off them. */
static double sim_screen(int second, double d)
{
    if (d > 1.4) return 42.038 - 8.29 * sim_log(d + 0.958);
    return second ? 41.326 - d * (5.848 - 0.902 * d) : 42.184 - d * (7.444 - 1.623 * d);
}

/* Share of the energy that the electron of a pair takes: Bethe-Heitler with screening and Coulomb
   correction [PRM], rejection from two powers. */
static double sim_pair_share(sim_worker *w, double energy)
{
    sim_random *r = &w->random;
    const sim_element *el = &w->s->element[sim_uniform(r) < 0.544 ? 2 : 1];
    double e0 = SIM_ME / energy, fz, df, dmin, dmax, h1, hm, range, n1, n2, h, d, weight, g1, g2;
    if (energy < 2) return e0 + (0.5 - e0) * sim_uniform(r);
    fz = 8.0 / 3 * el->log_z + (energy > 50 ? 8 * el->fc : 0);
    df = 136 * e0 * el->z13;
    dmin = 4 * df;
    dmax = sim_exp((42.038 - fz) / 8.29) - 0.958;
    h1 = dmin < dmax ? 0.5 - 0.5 * sqrt(1 - dmin / dmax) : 0.5;
    hm = e0 > h1 ? e0 : h1;
    range = 0.5 - hm;
    g1 = sim_screen(0, dmin) - fz;
    g2 = sim_screen(1, dmin) - fz;
    n1 = g1 > 0 ? g1 * range * range : 0;
    n2 = g2 > 0 ? 1.5 * g2 : 0;
    if (!(n1 + n2 > 0)) return 0.5;
    do {
        if (sim_uniform(r) * (n1 + n2) < n1) {
            h = 0.5 - range * sim_power(sim_uniform(r), 1.0 / 3);
            d = df / (h * (1 - h));
            weight = (sim_screen(0, d) - fz) / g1;
        } else {
            h = hm + range * sim_uniform(r);
            d = df / (h * (1 - h));
            weight = (sim_screen(1, d) - fz) / g2;
        }
    } while (weight < sim_uniform(r));
    return h;
}

static void sim_make_pair(sim_worker *w, const sim_particle *p)
{
    sim_random *r = &w->random;
    double h = sim_pair_share(w, p->energy), e1, e2, q, phi = sim_uniform(r), back;
    sim_vector d;
    if (sim_uniform(r) < 0.5) h = 1 - h;
    e1 = h * p->energy;
    e2 = p->energy - e1;
    back = phi < 0.5 ? phi + 0.5 : phi - 0.5;
    d = p->to;
    q = 1 - sim_tsai_angle(r, e1);
    sim_deflect(&d, q, sim_sine(q), phi);
    sim_push(w, SIM_ELECTRON, e1 - SIM_ME, &p->at, &d);
    d = p->to;
    q = 1 - sim_tsai_angle(r, e2);
    sim_deflect(&d, q, sim_sine(q), back);
    sim_push(w, SIM_POSITRON, e2 - SIM_ME, &p->at, &d);
}

/* The binding energy stays here (no fluorescence); the electron's direction as for relativistic
   energies, cos = (c + beta)/(1 + beta c), c uniform. */
static void sim_photo_effect(sim_worker *w, const sim_particle *p)
{
    sim_random *r = &w->random;
    int lead = sim_uniform(r) < 0.55;
    double k = lead ? 0.0880 : 0.0695, l = lead ? 0.0158 : 0.0120;
    double bound = p->energy > k ? k : l, t = p->energy - bound, beta, c;
    sim_vector d = p->to;
    if (t < 0.02) {
        sim_deposit(w, &p->at, p->energy);
        return;
    }
    sim_deposit(w, &p->at, bound);
    beta = sqrt(t * (t + 2 * SIM_ME)) / (t + SIM_ME);
    c = 2 * sim_uniform(r) - 1;
    c = (c + beta) / (1 + beta * c);
    sim_deflect(&d, c, sim_sine(c), sim_uniform(r));
    sim_push(w, SIM_ELECTRON, t, &p->at, &d);
}

static void sim_follow_photon(sim_worker *w, sim_particle *p)
{
    while (p->energy >= SIM_PHOTON_LOW) {
        sim_place at = sim_find(p->energy);
        const sim_photon_node *n = &w->s->photon[at.i];
        double total = n[0].total + at.f * (n[1].total - n[0].total), u;
        p->at = sim_ahead(&p->at, &p->to, sim_exponential(&w->random) / total);
        if (!sim_inside(w, &p->at)) {
            w->leaked += p->energy;
            return;
        }
        u = sim_uniform(&w->random) * total;
        if (u < n[0].photo + at.f * (n[1].photo - n[0].photo)) {
            sim_photo_effect(w, p);
            return;
        }
        if (u >= n[0].compton + at.f * (n[1].compton - n[0].compton)) {
            sim_make_pair(w, p);
            return;
        }
        sim_compton(w, p);
    }
    sim_deposit(w, &p->at, p->energy);
}

/* ============================================================================================
   5 Electrons and positrons
   ============================================================================================ */

#define SIM_ELECTRON_LOW 0.1         /* MeV: stopped below (range 0.03 mm) */
#define SIM_STEP_SHARE 0.04          /* steps: share of the range, */
#define SIM_STEP_LEAST 0.004         /*   but at least this, cm */
#define SIM_BREM_LOW 1.0             /* MeV: the relativistic spectrum does not hold below; no
                                        radiation there, as in the GEANT4 model */

/* F of the restricted loss [BS, PRM], tau = T/m_e, d = largest transfer/m_e, i = I/m_e. */
static double sim_loss_electron(double tau, double d)
{
    double g = tau + 1, b2 = tau * (tau + 2) / (g * g), i = SIM_I / SIM_ME;
    return sim_log(2 * (tau + 2) / (i * i)) - 1 - b2 + sim_log((tau - d) * d) + tau / (tau - d)
        + (d * d / 2 + (2 * tau + 1) * sim_log(1 - d / tau)) / (g * g);
}

static double sim_loss_positron(double tau, double d)
{
    double g = tau + 1, b2 = tau * (tau + 2) / (g * g), i = SIM_I / SIM_ME, y = 1 / (g + 1);
    double d2 = d * d / 2, d3 = d2 * d / 1.5, d4 = 0.75 * d3 * d;
    return sim_log(2 * (tau + 2) / (i * i)) + sim_log(tau * d)
        - b2 * (tau + 2 * d - y * (3 * d2 + y * (d - d3 + y * (d2 - tau * d3 + d4)))) / tau;
}

/* Bremsstrahlung of e+- [T74, PRM]: the bracket f(k) of one element; total energy e, photon k. */
static double sim_brem_shape(const sim_element *el, double e, double k)
{
    double y = k / e, d = 100 * SIM_ME * y / (e - k), ga = d * el->z13, ep = ga * el->z13, f;
    double ph1 = 16.863 - 2 * sim_log(1 + 0.311877 * ga * ga) + 2.4 * sim_exp(-0.9 * ga)
               + 1.6 * sim_exp(-1.5 * ga);
    double dph = 2 / (3 + ga * (19.5 + 18 * ga));
    double ps1 = 24.34 - 2 * sim_log(1 + 13.111641 * ep * ep) + 2.8 * sim_exp(-8 * ep)
               + 1.2 * sim_exp(-29.2 * ep);
    double dps = 2 / (3 + ep * (120 + 1200 * ep));
    f = (1 - y + 0.75 * y * y) * (ph1 / 4 - el->log_z / 3 - el->fc
                                  + (ps1 / 4 - 2 * el->log_z / 3) / el->z)
      + (1 - y) / 8 * (dph + dps / el->z);
    return f > 0 ? f : 0;
}

/* Dielectric suppression: momentum k_p = hw_p E/m_e. */
static double sim_dielectric(double e) { return 1.04300e-4 * e; }

/* k dSigma/dk per cm. */
static double sim_brem_spectrum(const sim *s, double e, double k)
{
    double sum = 0, kp = sim_dielectric(e);
    int i;
    for (i = 0; i < SIM_ELEMENTS; i++) {
        const sim_element *el = &s->element[i];
        sum += el->n * el->z * el->z * sim_brem_shape(el, e, k);
    }
    return 16.0 / 3 * SIM_ALPHA * SIM_RE * SIM_RE * sum / (1 + kp * kp / (k * k));
}

enum { SIM_QUADRATURE = 40 };        /* midpoints; the spectra are smooth */

/* Energy per cm that goes into photons below the threshold. */
static double sim_brem_soft(const sim *s, double t)
{
    double top = t < SIM_KCUT ? t : SIM_KCUT, sum = 0;
    int i;
    if (t < SIM_BREM_LOW) return 0;
    for (i = 0; i < SIM_QUADRATURE; i++)
        sum += sim_brem_spectrum(s, t + SIM_ME, top * (i + 0.5) / SIM_QUADRATURE);
    return sum * top / SIM_QUADRATURE;
}

static double sim_brem_hard(const sim *s, double t)
{
    double step, sum = 0;
    int i;
    if (t < SIM_BREM_LOW) return 0;
    step = sim_log(t / SIM_KCUT) / SIM_QUADRATURE;
    for (i = 0; i < SIM_QUADRATURE; i++)
        sum += sim_brem_spectrum(s, t + SIM_ME, SIM_KCUT * sim_exp((i + 0.5) * step));
    return sum * step;
}

/* Hard Moller and Bhabha collisions per cm [PRM, ionisation]. */
static double sim_moller_hard(double t)
{
    double g = t / SIM_ME + 1, b2 = 1 - 1 / (g * g), gg = (2 * g - 1) / (g * g);
    double xm = SIM_TCUT / t, xM = 0.5;
    if (xm >= xM) return 0;
    return SIM_KD / t / b2
        * ((xM - xm) * (1 - gg + 1 / (xm * xM) + 1 / ((1 - xm) * (1 - xM)))
           - gg * sim_log(xM * (1 - xm) / (xm * (1 - xM))));
}

typedef struct sim_bhabha { double b2, b[5]; } sim_bhabha;

static sim_bhabha sim_bhabha_of(double t)
{
    double g = t / SIM_ME + 1, y = 1 / (1 + g), y12 = 1 - 2 * y;
    sim_bhabha b;
    b.b2 = 1 - 1 / (g * g);
    b.b[0] = 0;
    b.b[1] = 2 - y * y;
    b.b[2] = y12 * (3 + y * y);
    b.b[4] = y12 * y12 * y12;
    b.b[3] = b.b[4] + y12 * y12;
    return b;
}

static double sim_bhabha_hard(double t)
{
    double xm = SIM_TCUT / t, xM = 1;
    sim_bhabha b = sim_bhabha_of(t);
    if (xm >= xM) return 0;
    return SIM_KD / t
        * ((xM - xm) * (1 / (b.b2 * xm * xM) + b.b[2] - b.b[3] * (xm + xM) / 2
                        + b.b[4] * (xm * xm + xm * xM + xM * xM) / 3)
           - b.b[1] * sim_log(xM / xm));
}

/* Annihilation in flight, per cm (Heitler; [PRM, positron annihilation]). */
static double sim_annihilation(double t)
{
    double g = t / SIM_ME + 1, g2 = g * g, root = sqrt(g2 - 1);
    return SIM_NE * SIM_PI * SIM_RE * SIM_RE
        * ((g2 + 4 * g + 1) * sim_log(g + root) - (g + 3) * root) / ((g2 - 1) * (g + 1));
}

/* Factor on Moliere's law: the transport cross-sections of partial-wave calculations (R. Mayol,
   F. Salvat, At. Data Nucl. Data Tables 65 (1997) 55, as parameterised in [PRM, Urban]: 113 b for
   lead and 91 b for tungsten at 10 MeV, above with 1/(beta gamma)^2) over what the law below gives
   with R and F.  Nodes in ln T. */
static double sim_scatter_scale(double t)
{
    static const double energy[] = { 1, 3, 10, 30 }, factor[] = { 1.16, 1.14, 1.11, 0.95 };
    int i;
    if (t <= energy[0]) return factor[0];
    for (i = 0; i < 3; i++)
        if (t < energy[i + 1])
            return factor[i] + (factor[i + 1] - factor[i]) * sim_log(t / energy[i])
                                   / sim_log(energy[i + 1] / energy[i]);
    return factor[3];
}

/* Screened Rutherford law summed over the elements [M48]: c, a and 1/lambda. */
static void sim_rutherford(const sim *s, double t, sim_electron_node *n)
{
    double p2 = t * (t + 2 * SIM_ME), b2 = p2 / ((t + SIM_ME) * (t + SIM_ME)), p = sqrt(p2);
    double log_a = 0, inverse = 0, sum = 0;
    int i;
    for (i = 0; i < SIM_ELEMENTS; i++) {
        const sim_element *el = &s->element[i];
        double r = SIM_RE * SIM_ME / (p * sqrt(b2)), radius = 0.88534 * 0.529177e-8 * el->z13;
        double c = el->n * 2 * SIM_PI * el->z * (el->z + 1) * r * r;
        double x = SIM_HBARC / (p * radius), az = SIM_ALPHA * el->z;
        double a = 0.25 * x * x * (1.13 + 3.76 * az * az / b2);
        sum += c;
        log_a += c * sim_log(a);
        inverse += c * (sim_log(1 + 1 / a) - 1 / (1 + a));
    }
    n->c = sim_scatter_scale(t) * sum;
    n->a = sim_exp(log_a / sum);
    n->lambda = 1 / (sim_scatter_scale(t) * inverse);
}

static void sim_electron_entry(const sim *s, int positron, double t, sim_electron_node *n)
{
    double tau = t / SIM_ME, g = tau + 1, b2 = tau * (tau + 2) / (g * g);
    double most = positron ? t : t / 2, d = (most < SIM_TCUT ? most : SIM_TCUT) / SIM_ME;
    double f = positron ? sim_loss_positron(tau, d) : sim_loss_electron(tau, d);
    n->dedx = SIM_KD / b2 * (f - sim_density(tau * (tau + 2))) + sim_brem_soft(s, t);
    n->ion = positron ? sim_bhabha_hard(t) : sim_moller_hard(t);
    n->brem = n->ion + sim_brem_hard(s, t);
    n->hard = n->brem + (positron ? sim_annihilation(t) : 0);
    sim_rutherford(s, t, n);
}

static void sim_electron_table(sim *s)
{
    int i, k;
    double sum;
    for (k = 0; k < 2; k++) {
        sim_electron_node *n = s->electron[k];
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 8) num_threads(s->memory.threads)
#endif
        for (i = 0; i < SIM_NODES; i++) {
            calomu_modes host;
            (void)calomu_modes_set(&host);
            sim_electron_entry(s, k, sim_node_energy(i), &n[i]);
            calomu_modes_restore(&host);
        }
        n[0].range = sim_node_energy(0) / n[0].dedx;
        for (i = 1; i < SIM_NODES; i++) {
            sum = 0.5 * (1 / n[i - 1].dedx + 1 / n[i].dedx);
            n[i].range = n[i - 1].range + sum * (sim_node_energy(i) - sim_node_energy(i - 1));
        }
    }
    sum = 0;
    for (k = 0; k < SIM_ELEMENTS; k++) {
        const sim_element *el = &s->element[k];
        double lz = sim_log(184.15 * el->z13) - el->fc + sim_log(1194 * el->z13 * el->z13) / el->z;
        sum += el->n * el->z * el->z * lz;
        s->choice[k] = sum;
    }
    for (k = 0; k < SIM_ELEMENTS; k++) s->choice[k] /= sum;
}

/* ---- sampling */

/* Energy of a bremsstrahlung photon: 1/k with dielectric suppression, then rejection by f(k). */
static double sim_brem_photon(sim_worker *w, double t)
{
    sim_random *r = &w->random;
    double u = sim_uniform(r), e = t + SIM_ME, kp2 = sim_dielectric(e) * sim_dielectric(e), k, top;
    const sim_element *el = w->s->element;
    double low = SIM_KCUT * SIM_KCUT + kp2, ratio = sim_log((t * t + kp2) / low);
    while (u > w->s->choice[el - w->s->element] && el < w->s->element + SIM_ELEMENTS - 1) el++;
    top = sim_log(184.15 * el->z13) - el->fc + sim_log(1194 * el->z13 * el->z13) / el->z
        + (1 + 1 / el->z) / 12;
    do {
        k = low * sim_exp(ratio * sim_uniform(r)) - kp2;
        k = k > SIM_KCUT * SIM_KCUT ? sqrt(k) : SIM_KCUT;
        if (k > t) k = t;
    } while (sim_brem_shape(el, e, k) < top * sim_uniform(r));
    return k;
}

static void sim_radiate(sim_worker *w, sim_particle *p)
{
    double k = sim_brem_photon(w, p->energy);
    double c = 1 - sim_tsai_angle(&w->random, p->energy + SIM_ME);
    sim_vector d = p->to;
    sim_deflect(&d, c, sim_sine(c), sim_uniform(&w->random));
    sim_push(w, SIM_PHOTON, k, &p->at, &d);
    p->energy -= k;
}

/* Energy of the knocked electron as a share of t: from 1/x^2, rejection by the rest. */
static double sim_moller_share(sim_random *r, double t)
{
    double g = t / SIM_ME + 1, gg = (2 * g - 1) / (g * g), xm = SIM_TCUT / t, xM = 0.5, x, y, top;
    y = 1 - xM;
    top = 1 - gg * xM + xM * xM * (1 - gg + (1 - gg * y) / (y * y));
    do {
        x = xm * xM / (xm + (xM - xm) * sim_uniform(r));
        y = 1 - x;
    } while (top * sim_uniform(r) > 1 - gg * x + x * x * (1 - gg + (1 - gg * y) / (y * y)));
    return x;
}

static double sim_bhabha_share(sim_random *r, double t)
{
    sim_bhabha b = sim_bhabha_of(t);
    double xm = SIM_TCUT / t, x, top;
    top = 1 + b.b2 * (b.b[4] - xm * xm * xm * b.b[3] + b.b[2] - xm * b.b[1]);
    do {
        x = xm / (xm + (1 - xm) * sim_uniform(r));
    } while (top * sim_uniform(r)
             > 1 + b.b2 * x * (x * (x * (x * b.b[4] - b.b[3]) + b.b[2]) - b.b[1]));
    return x;
}

/* Two-body kinematics: the electron knocked on by T of t goes off at cos = T(E + m)/(p_T p). */
static double sim_knock_cosine(double knocked, double t)
{
    double c = sqrt(knocked * (t + 2 * SIM_ME) / (t * (knocked + 2 * SIM_ME)));
    return c < 1 ? c : 1;
}

static void sim_knock(sim_worker *w, sim_particle *p)
{
    sim_random *r = &w->random;
    double t = p->energy, x = p->kind == SIM_POSITRON ? sim_bhabha_share(r, t)
                                                     : sim_moller_share(r, t);
    double knocked = x * t, phi = sim_uniform(r), c = sim_knock_cosine(knocked, t);
    sim_vector d = p->to;
    sim_deflect(&d, c, sim_sine(c), phi);
    sim_push(w, SIM_ELECTRON, knocked, &p->at, &d);
    p->energy = t - knocked;
    c = sim_knock_cosine(p->energy, t);
    sim_deflect(&p->to, c, sim_sine(c), phi < 0.5 ? phi + 0.5 : phi - 0.5);
}

/* Two photons; share e of one by rejection from 1/e (Heitler; [PRM]). */
static void sim_annihilate(sim_worker *w, const sim_particle *p)
{
    sim_random *r = &w->random;
    double g = p->energy / SIM_ME + 1, total = p->energy + 2 * SIM_ME, root = sqrt(g * g - 1);
    double low = 0.5 * (1 - sqrt((g - 1) / (g + 1))), high = 1 - low, e, c, q, momentum;
    sim_vector d = p->to, other;
    do {
        e = low * sim_power(high / low, sim_uniform(r));
    } while (sim_uniform(r) > 1 - e + (2 * g * e - 1) / (e * (g + 1) * (g + 1)));
    c = (e * (g + 1) - 1) / (e * root);
    c = c > 1 ? 1 : c < -1 ? -1 : c;
    sim_deflect(&d, c, sim_sine(c), sim_uniform(r));
    e *= total;
    momentum = root * SIM_ME;
    other.x = momentum * p->to.x - e * d.x;
    other.y = momentum * p->to.y - e * d.y;
    other.z = momentum * p->to.z - e * d.z;
    q = 1 / sqrt(other.x * other.x + other.y * other.y + other.z * other.z);
    other.x *= q;
    other.y *= q;
    other.z *= q;
    sim_push(w, SIM_PHOTON, e, &p->at, &d);
    sim_push(w, SIM_PHOTON, total - e, &p->at, &other);
}

static void sim_annihilate_at_rest(sim_worker *w, const sim_vector *at)
{
    sim_vector d = sim_isotropic(&w->random), back;
    back.x = -d.x;
    back.y = -d.y;
    back.z = -d.z;
    sim_push(w, SIM_PHOTON, SIM_ME, at, &d);
    sim_push(w, SIM_PHOTON, SIM_ME, at, &back);
}

/* What the Rutherford law lacks at large angles, s = sin(theta/2).  Spin and Coulomb distortion:
   R = 1 - beta^2 s^2 + beta s (1 - s) x(s), x = pi alpha Z in [MF48], which is for light nuclei;
   for lead Mott's series summed (N. Sherman, Phys. Rev. 103 (1956) 1601) gives, within 0.02 at 1 to
   10 MeV, x = 0.89 + 1.32 s for electrons and -1.24 + 4.4 (s - 0.45)^2 for positrons.  The size of
   the nucleus: |F|^2 = (1 + q^2 r^2/12)^-4, q = 2 p s, an exponential charge density of
   r = 1.27 A^0.27 fm [PRM, single scattering], mean of tungsten and lead. */
#define SIM_NUCLEUS 5.28e-13         /* cm */

typedef struct sim_law {
    double b, x0;                    /* beta, x(0) */
    double size;                     /* p^2 r^2/3 */
    int positron;
} sim_law;

static sim_law sim_law_of(double energy, int positron)
{
    double p2 = energy * (energy + 2 * SIM_ME), e = energy + SIM_ME;
    sim_law l;
    l.b = sqrt(p2) / e;
    l.x0 = positron ? -1.24 + 4.4 * 0.45 * 0.45 : 0.89;
    l.size = p2 * (SIM_NUCLEUS / SIM_HBARC) * (SIM_NUCLEUS / SIM_HBARC) / 3;
    l.positron = positron;
    return l;
}

#define SIM_LAW_TOP 1.2              /* more than R ever is */

static double sim_law_ratio(const sim_law *l, double mu)
{
    double s2 = mu / 2, s = sqrt(s2), f = 1 / (1 + l->size * s2), x;
    x = l->positron ? -1.24 + 4.4 * (s - 0.45) * (s - 0.45) : 0.89 + 1.32 * s;
    f *= f;
    return (1 - l->b * l->b * s2 + l->b * s * (1 - s) * x) * f * f;
}

/* Multiple scattering over a step: the screened Rutherford law (Moliere's), the collisions below
   mc in one soft deflection with their mean, the few above one by one. */
static void sim_scatter(sim_worker *w, sim_particle *p, double s, double c, double a)
{
    sim_random *r = &w->random;
    double sc = s * c, mc = sc < 1 ? sc : 1, a2 = 2 * a, mean, mu, most, least, sum, half;
    sim_law law = sim_law_of(p->energy, p->kind == SIM_POSITRON);
    half = sqrt(mc / 2);             /* the mean of mu with R, to first order in a: */
    mean = sc * (sim_log((mc + a2) / a2) - mc / (mc + a2)
                 + 2 * law.b * law.x0 * half - law.b * (law.x0 + law.b) * half * half);
    mean = mean < 0 ? 0 : mean < 0.3 ? mean : 1 - sim_exp(-mean);    /* < 0: the shortest steps */
    mu = mean * sim_exponential(r);
    if (mu > 2) mu = 2 * sim_uniform(r);
    sim_deflect(&p->to, 1 - mu, sqrt(mu * (2 - mu)), sim_uniform(r));
    most = 1 / (mc + a2);
    least = 1 / (2 + a2);
    sc *= SIM_LAW_TOP;
    for (sum = sim_exponential(r); sum < sc * (most - least); sum += sim_exponential(r)) {
        mu = 1 / (least + (most - least) * sim_uniform(r)) - a2;
        mu = mu < 0 ? 0 : mu > 2 ? 2 : mu;
        if (sim_uniform(r) * SIM_LAW_TOP > sim_law_ratio(&law, mu)) continue;
        sim_deflect(&p->to, 1 - mu, sqrt(mu * (2 - mu)), sim_uniform(r));
    }
}

static int sim_library_use(sim_worker *w, const sim_particle *p);

/* Steps as GEANT4 takes them (L. Urban's model of multiple scattering with its limit "UseSafety",
   [PRM]), because what electrons of 10 MeV do there depends on them: a step goes straight by its
   mean length, turns at its end and is displaced sideways, less than by the exact law, not at the
   walls of cells and not through them.  With fine steps and the exact law they spread 5% farther:
   10 MeV electrons have 5.6% more cells above 1 MeV. */

/* Share of the range that a step may take, set where a particle starts and behind each wall;
   ranges shorter than the mean free path count as that. */
static double sim_step_most(double range, double lambda)
{
    double share = SIM_STEP_SHARE * (lambda > 0.1 ? 0.75 + 0.25 * lambda / 0.1 : 1);
    return share * (range > lambda ? range : lambda);
}

/* Longest path of the next step; near: the nearest wall. */
static double sim_step_limit(sim_particle *p, double range, double lambda, double near)
{
    double loss = range > 0.1 ? 0.2 * range + 0.08 * (2 - 0.1 / range) : range, most;
    if (range < near) return range;              /* it cannot leave the cell */
    if (!(p->most > 0)) p->most = sim_step_most(range, lambda);
    most = p->most > 0.6 * near ? p->most : 0.6 * near;
    most = most > SIM_STEP_LEAST ? most : SIM_STEP_LEAST;
    return most < loss ? most : loss;
}

/* Sideways by 0.73 of what a path of `length` that ends `forward` cm ahead allows, but not as far
   as the nearest wall, towards the side to which the direction has turned from `before`, off it
   by an angle psi < pi of density exp(-2.16 psi). */
static void sim_displace(sim_worker *w, sim_particle *p, const sim_vector *before, double length,
                         double forward)
{
    sim_random *r = &w->random;
    double side = 0.73 * sqrt((length - forward) * (length + forward)), near, norm, psi, c, s;
    sim_vector e, f;
    if (!(side > 1e-4)) return;
    near = 0.99 * sim_nearest_wall(w, &p->at);
    side = side < near ? side : near;
    c = p->to.x * before->x + p->to.y * before->y + p->to.z * before->z;
    e.x = p->to.x - c * before->x;
    e.y = p->to.y - c * before->y;
    e.z = p->to.z - c * before->z;
    norm = sqrt(e.x * e.x + e.y * e.y + e.z * e.z);
    if (!(norm > 1e-9)) return;
    f.x = before->y * e.z - before->z * e.y;
    f.y = before->z * e.x - before->x * e.z;
    f.z = before->x * e.y - before->y * e.x;
    psi = -sim_log(1 - sim_uniform(r) * (1 - 0.0011292)) / 2.16;       /* exp(-2.16 pi) */
    sim_turn(psi / (2 * SIM_PI), &c, &s);
    if (sim_uniform(r) < 0.5) s = -s;
    p->at = sim_ahead(&p->at, &e, side / norm * c);
    p->at = sim_ahead(&p->at, &f, side / norm * s);
}

/* One step, `forward` cm straight ahead on a path of `length`.  Its loss is spread along it; it
   stays in one cell, but the cells of a shower for the library are not those it will be used in.
   0: the particle has left. */
static int sim_step(sim_worker *w, sim_particle *p, double length, double forward, double loss,
                    int wall, double c, double a)
{
    sim_vector before = p->to, at;
    int i, n = w->voxels ? 1 + (int)(forward / 0.05) : 1;
    for (i = 0; i < n; i++) {
        at = sim_ahead(&p->at, &before, forward * (i + 0.5) / n);
        sim_deposit(w, &at, loss / n);
    }
    p->energy -= loss;
    p->at = sim_ahead(&p->at, &before, forward);
    if (p->energy > 0) {
        sim_scatter(w, p, length, c, a);
        if (!wall) sim_displace(w, p, &before, length, forward);
    }
    if (sim_inside(w, &p->at)) return 1;
    w->leaked += p->energy + (p->kind == SIM_POSITRON ? 2 * SIM_ME : 0);
    return 0;
}

static double sim_between(double a, double b, double f) { return a + f * (b - a); }

/* Flies to the next hard collision.  0: stopped or left before it.  Rates and losses are those at
   the middle of a step: a step takes up to a fifth of the energy, and at its start the rate of
   bremsstrahlung is 5% higher. */
static int sim_fly(sim_worker *w, sim_particle *p)
{
    const sim_electron_node *table = w->s->electron[p->kind == SIM_POSITRON], *n;
    double left = sim_exponential(&w->random), length, range, lambda, middle, hard, out, forward;
    while (p->energy >= SIM_ELECTRON_LOW) {
        sim_place at = sim_find(p->energy);
        int collides, wall, stops;
        double loss;
        n = &table[at.i];
        range = sim_between(n[0].range, n[1].range, at.f);
        lambda = sim_between(n[0].lambda, n[1].lambda, at.f);
        length = sim_step_limit(p, range, lambda, sim_nearest_wall(w, &p->at));
        hard = sim_between(n[0].hard, n[1].hard, at.f);
        collides = length * hard > left;
        if (collides) length = left / hard;
        if (length > range) length = range;
        middle = p->energy - 0.5 * length * sim_between(n[0].dedx, n[1].dedx, at.f);
        at = sim_find(middle > 0 ? middle : 0.5 * p->energy);
        n = &table[at.i];
        hard = sim_between(n[0].hard, n[1].hard, at.f);
        if (collides) length = left / hard;
        lambda = sim_between(n[0].lambda, n[1].lambda, at.f);
        forward = lambda * (1 - sim_exp(-length / lambda));
        out = sim_next_wall(w, &p->at, &p->to);
        wall = out < forward;
        if (wall) {                  /* just behind the wall */
            forward = out + 1e-7;
            length = -lambda * sim_log(1 - forward / lambda);
            p->most = 0;
        }
        left -= length * hard;
        loss = length * sim_between(n[0].dedx, n[1].dedx, at.f);
        stops = length >= range || loss > p->energy;
        if (!sim_step(w, p, length, forward, stops ? p->energy : loss, wall,
                      sim_between(n[0].c, n[1].c, at.f), sim_between(n[0].a, n[1].a, at.f)))
            return 0;
        if (collides && !wall && !stops) return 1;
    }
    sim_deposit(w, &p->at, p->energy);
    if (p->kind == SIM_POSITRON) sim_annihilate_at_rest(w, &p->at);
    return 0;
}

static void sim_follow_electron(sim_worker *w, sim_particle *p)
{
    while (sim_fly(w, p)) {
        sim_place at = sim_find(p->energy);
        const sim_electron_node *n = &w->s->electron[p->kind == SIM_POSITRON][at.i];
        double u = sim_uniform(&w->random) * (n[0].hard + at.f * (n[1].hard - n[0].hard));
        if (u < n[0].ion + at.f * (n[1].ion - n[0].ion)) {
            if (p->energy > (p->kind == SIM_POSITRON ? 1 : 2) * SIM_TCUT) sim_knock(w, p);
        } else if (u < n[0].brem + at.f * (n[1].brem - n[0].brem)) {
            if (p->energy > SIM_KCUT) sim_radiate(w, p);
        } else if (p->kind == SIM_POSITRON) {
            sim_annihilate(w, p);
            return;
        }
        if (sim_library_use(w, p)) return;
    }
}

/* Follows everything on the stack until it is empty. */
static void sim_follow(sim_worker *w)
{
    while (w->n > 0) {
        sim_particle p = w->stack[--w->n];
        if (sim_library_use(w, &p)) continue;
        if (p.kind == SIM_PHOTON) sim_follow_photon(w, &p);
        else sim_follow_electron(w, &p);
    }
}

/* Starts one shower and follows it. */
static void sim_cascade(sim_worker *w, sim_kind kind, double energy, const sim_vector *at,
                        const sim_vector *to)
{
    sim_push(w, kind, energy, at, to);
    sim_follow(w);
}

/* ============================================================================================
   6 The shower library (engine L; frozen showers, as E. Barberio et al., J. Phys. Conf. Ser. 160
     (2009) 012082, but made at the start and turned at random)
   ============================================================================================ */

enum { SIM_HASH = 1 << 15 };

/* Deposits are merged over voxels: 0.2 x 0.2 x 0.3 mm below 10 MeV (coarser ones lose 6% of the
   hits of delta rays), 0.4 x 0.4 x 1.5 mm below 100 MeV, 1 x 1 x 5 mm above; farther than 1 cm from
   the axis, where a cell often holds one deposit only, never over more than 0.3 x 0.3 x 1 mm. */
static void sim_voxels_scale(sim_voxels *v, double energy)
{
    v->across[1] = energy <= 10 ? 50 : energy <= 100 ? 25 : 10;
    v->along[1] = energy <= 10 ? 33 : energy <= 100 ? 7 : 2;
    v->across[0] = energy <= 10 ? 50 : 33;
    v->along[0] = energy <= 10 ? 33 : 10;
}

static uint64_t sim_voxel_key(const sim_voxels *v, const sim_vector *p)
{
    int core = fabs(p->x) < 1 && fabs(p->y) < 1;
    double across = v->across[core], along = v->along[core];
    uint64_t x = (uint64_t)((p->x + 100) * across), y = (uint64_t)((p->y + 100) * across);
    uint64_t z = (uint64_t)((p->z + 100) * along);
    return (uint64_t)core << 63 | z << 36 | x << 18 | y;
}

/* Adds to the voxel's sum.  The order of voxels is that of their first deposit. */
static void sim_voxel_add(sim_voxels *v, const sim_vector *at, double e)
{
    uint64_t key = sim_voxel_key(v, at);
    uint32_t i = (uint32_t)(key * 0x9E3779B97F4A7C15u >> 49);
    struct sim_voxel *p;
    while (v->slot[i] >= 0 && v->spot[v->slot[i]].key != key) i = (i + 1) % SIM_HASH;
    if (v->slot[i] < 0) {
        if (v->n == v->size) return;             /* half of SIM_HASH; never reached at 1 GeV */
        v->slot[i] = v->n;
        p = &v->spot[v->n++];
        p->key = key;
        p->slot = i;
        p->e = p->x = p->y = p->z = 0;
    }
    p = &v->spot[v->slot[i]];
    p->e += e;
    p->x += e * at->x;
    p->y += e * at->y;
    p->z += e * at->z;
}

static void sim_voxels_clear(sim_voxels *v)
{
    int i;
    if (v->n > SIM_HASH / 64) {
        for (i = 0; i < SIM_HASH; i++) v->slot[i] = -1;
    } else {
        for (i = 0; i < v->n; i++) v->slot[v->spot[i].slot] = -1;
    }
    v->n = 0;
}

/* Showers in a bin: many below 100 MeV, where they cost little and differ most.  With 100 in every
   bin the mean square width of TeV muons was 5% off. */
static int sim_library_count(int bin)
{
    return bin <= 2 * SIM_LIB_DECADE ? SIM_LIB_SHOWERS : bin <= 3 * SIM_LIB_DECADE ? 500 : 160;
}

static double sim_library_energy(int bin)
{
    return SIM_LIB_LOW * sim_power(10, (double)bin / SIM_LIB_DECADE);
}

static float sim_share(uint16_t e)
{
    uint32_t u = (uint32_t)e << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* To nearest of the floats whose lower half is zero. */
static uint16_t sim_pack_share(double e)
{
    float x = (float)e;
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)((u + 0x8000u) >> 16);
}

static int16_t sim_pack(double x, double scale)
{
    return (int16_t)floor(x / scale + 0.5);
}

static double sim_farthest(const sim_voxels *v)
{
    double most = 1e-3;
    int i;
    for (i = 0; i < v->n; i++) {
        const struct sim_voxel *p = &v->spot[i];
        most = fabs(p->x) > most * p->e ? fabs(p->x) / p->e : most;
        most = fabs(p->y) > most * p->e ? fabs(p->y) / p->e : most;
        most = fabs(p->z) > most * p->e ? fabs(p->z) / p->e : most;
    }
    return most;
}

/* The voxels as spots: mean positions and shares of the energy.  What the rounding of the shares
   leaves goes back onto them, so that energy is kept to 1e-4 of a shower. */
static calomu_status sim_library_store(sim *s, const sim_voxels *v, double energy,
                                       sim_shower_spots *out)
{
    size_t n = ((size_t)v->n + SIM_BLOCK - 1) / SIM_BLOCK, i;
    double scale = sim_farthest(v) / 32766, sum = 0, packed = 0;
    out->memory = sim_allocate(s, n * sizeof(sim_block) + 64);
    if (!out->memory) return CALOMU_EMEMORY;
    memset(out->memory, 0, n * sizeof(sim_block) + 64);
    out->block = (sim_block *)(void *)((char *)out->memory
                                       + (64 - (uintptr_t)out->memory % 64) % 64);
    for (i = 0; i < (size_t)v->n; i++) {
        sum += v->spot[i].e;
        packed += (double)sim_share(sim_pack_share(v->spot[i].e / energy));
    }
    for (i = 0; i < (size_t)v->n; i++) {
        const struct sim_voxel *p = &v->spot[i];
        sim_block *b = &out->block[i / SIM_BLOCK];
        b->x[i % SIM_BLOCK] = sim_pack(p->x / p->e, scale);
        b->y[i % SIM_BLOCK] = sim_pack(p->y / p->e, scale);
        b->z[i % SIM_BLOCK] = sim_pack(p->z / p->e, scale);
        b->e[i % SIM_BLOCK] = sim_pack_share(p->e / energy * (sum / energy / packed));
    }
    out->n = (int)n;
    out->scale = (float)scale;
    return CALOMU_OK;
}

/* Shower i of a bin: its own random stream, so that the library is the same for every seed of
   events and any number of threads.  i even: electron, odd: positron. */
static calomu_status sim_library_shower(sim *s, sim_worker *w, int kind, int bin, int i)
{
    sim_vector at = { 0, 0, 0 }, to = { 0, 0, 1 };
    sim_kind what = kind == 0 ? SIM_PHOTON : i % 2 ? SIM_POSITRON : SIM_ELECTRON;
    double energy = sim_library_energy(bin), rest = what == SIM_POSITRON ? 2 * SIM_ME : 0;
    uint64_t number = ((uint64_t)kind * SIM_LIB_BINS + (uint64_t)bin) * SIM_LIB_SHOWERS
                    + (uint64_t)i;
    int k;
    sim_voxels_clear(w->voxels);
    sim_voxels_scale(w->voxels, energy);
    sim_seed(&w->random, 0x6C69627261727900u + SIM_VERSION, SIM_STREAM_TRANSPORT, number);
    for (k = 0; k < 3; k++) w->shift[k] = sim_uniform(&w->random);   /* somewhere in a cell */
    sim_cascade(w, what, energy, &at, &to);
    return sim_library_store(s, w->voxels, energy + rest, &s->library[kind][bin][i]);
}

static void sim_voxels_free(const sim *s, sim_voxels *v)
{
    if (!v) return;
    sim_release(s, v->spot);
    sim_release(s, v->slot);
    sim_release(s, v);
}

static sim_voxels *sim_voxels_new(const sim *s)
{
    sim_voxels *v = sim_allocate(s, sizeof *v);
    if (!v) return NULL;
    v->n = SIM_HASH;                 /* all slots must be cleared at first */
    v->size = SIM_HASH / 2;
    v->spot = sim_allocate(s, (size_t)v->size * sizeof *v->spot);
    v->slot = sim_allocate(s, SIM_HASH * sizeof *v->slot);
    if (v->spot && v->slot) return v;
    sim_voxels_free(s, v);
    return NULL;
}

/* A worker for the library: 28 x 28 cm across, 14 cm backwards (without the backward half space
   hits drop by 1.6%), no end forwards. */
static sim_worker *sim_library_worker(const sim *s)
{
    sim_worker *w = sim_allocate(s, sizeof *w);
    int i;
    if (!w) return NULL;
    memset(w, 0, sizeof *w);
    w->s = s;
    for (i = 0; i < 3; i++) {
        w->low[i] = -14;
        w->high[i] = i < 2 ? 14 : 90;
    }
    w->voxels = sim_voxels_new(s);
    if (w->voxels) return w;
    sim_release(s, w);
    return NULL;
}

/* Makes the showers of bins first..last; particles below `top` come from the bins before. */
static calomu_status sim_library_stage(sim *s, int first, int last, double top)
{
    int failed = 0, n = 2 * (last - first + 1);
#ifdef _OPENMP
#pragma omp parallel num_threads(s->memory.threads) reduction(| : failed)
#endif
    {
        calomu_modes host;
        int modes = calomu_modes_set(&host), k, i;
        sim_worker *w = sim_library_worker(s);
        failed |= !w || !modes;
        if (w) w->library_top = top;
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
        for (k = 0; k < n; k++)      /* the long ones first */
            for (i = 0; i < sim_library_count(last - k / 2) && w && !failed; i++)
                failed |= sim_library_shower(s, w, k % 2, last - k / 2, i) != CALOMU_OK;
        if (w) sim_voxels_free(s, w->voxels);
        sim_release(s, w);
        calomu_modes_restore(&host);
    }
    return failed ? CALOMU_EMEMORY : CALOMU_OK;
}

/* Three stages: following every electron down to 0.1 MeV is what takes the time, so showers above
   10 and 100 MeV are made with those below. */
static calomu_status sim_library_make(sim *s)
{
    calomu_status status = sim_library_stage(s, 0, 2 * SIM_LIB_DECADE, 0);
    if (status != CALOMU_OK) return status;
    status = sim_library_stage(s, 2 * SIM_LIB_DECADE + 1, 3 * SIM_LIB_DECADE, 10);
    if (status != CALOMU_OK) return status;
    return sim_library_stage(s, 3 * SIM_LIB_DECADE + 1, SIM_LIB_BINS - 1, 100);
}

/* Affine map from a shower's units to cells: c = o + m p; the frame is turned at random about its
   axis and mirrored half of the time. */
static void sim_library_frame(sim_worker *w, const sim_particle *p, double unit, float m[3][3],
                              float o[3])
{
    const sim *s = w->s;
    sim_vector a = p->to, b;
    double phi = sim_uniform(&w->random), sign = sim_uniform(&w->random) < 0.5 ? -1 : 1, scale;
    sim_deflect(&a, 0, 1, phi);                  /* perpendicular to p->to */
    b.x = sign * (p->to.y * a.z - p->to.z * a.y);
    b.y = sign * (p->to.z * a.x - p->to.x * a.z);
    b.z = sign * (p->to.x * a.y - p->to.y * a.x);
    scale = unit * s->inverse[0];
    m[0][0] = (float)(a.x * scale), m[0][1] = (float)(b.x * scale);
    m[0][2] = (float)(p->to.x * scale), o[0] = (float)(p->at.x * s->inverse[0]);
    scale = unit * s->inverse[1];
    m[1][0] = (float)(a.y * scale), m[1][1] = (float)(b.y * scale);
    m[1][2] = (float)(p->to.y * scale), o[1] = (float)(p->at.y * s->inverse[1]);
    scale = unit * s->inverse[2];
    m[2][0] = (float)(a.z * scale), m[2][1] = (float)(b.z * scale);
    m[2][2] = (float)(p->to.z * scale), o[2] = (float)(p->at.z * s->inverse[2]);
}

/* Adds a library shower to the cells.  Spots are mapped in blocks, in a loop without branches that
   compilers make vectors of.  Cells count from 1 here, so that rounding towards zero takes what
   lies below the block to 0. */
static void sim_library_put(sim_worker *w, const sim_shower_spots *l, double energy,
                            float m[3][3], const float o[3])
{
    const sim *s = w->s;
    const unsigned nx = (unsigned)s->cells[0], ny = (unsigned)s->cells[1];
    const unsigned nz = (unsigned)s->cells[2];
    const float scale = (float)energy, active = (float)s->options.active;
    const float ox = o[0] + 1, oy = o[1] + 1, oz = o[2] + 1;
    float inside = 0, gap = 0, depth[SIM_BLOCK];
    int x[SIM_BLOCK], y[SIM_BLOCK], z[SIM_BLOCK], k, j;
    for (k = 0; k < l->n; k++) {
        const sim_block *b = &l->block[k];
        for (j = 0; j < SIM_BLOCK; j++) {
            float bx = (float)b->x[j], by = (float)b->y[j], bz = (float)b->z[j];
            x[j] = (int)(ox + m[0][0] * bx + m[0][1] * by + m[0][2] * bz);
            y[j] = (int)(oy + m[1][0] * bx + m[1][1] * by + m[1][2] * bz);
            depth[j] = oz + m[2][0] * bx + m[2][1] * by + m[2][2] * bz;
            z[j] = (int)depth[j];
        }
        for (j = 0; j < SIM_BLOCK; j++) {
            float add = scale * sim_share(b->e[j]);
            unsigned ix = (unsigned)x[j] - 1, iy = (unsigned)y[j] - 1, iz = (unsigned)z[j] - 1;
            if ((ix >= nx) | (iy >= ny) | (iz >= nz)) continue;
            if (depth[j] - (float)z[j] > active) {
                gap += add;
                continue;
            }
            inside += add;
            w->grid[(iz * nx + ix) * ny + iy] += add;
        }
    }
    w->deposited += (double)inside;
    w->unseen += (double)gap;
    w->leaked += energy - (double)inside - (double)gap;
}

/* The same into the voxels of another shower. */
static void sim_library_nest(sim_worker *w, const sim_shower_spots *l, double energy,
                             const sim_particle *p)
{
    sim_vector a = p->to, b, at;
    double scale = (double)l->scale;
    int k;
    sim_deflect(&a, 0, 1, sim_uniform(&w->random));
    b.x = p->to.y * a.z - p->to.z * a.y;
    b.y = p->to.z * a.x - p->to.x * a.z;
    b.z = p->to.x * a.y - p->to.y * a.x;
    for (k = 0; k < l->n * SIM_BLOCK; k++) {
        const sim_block *q = &l->block[k / SIM_BLOCK];
        int j = k % SIM_BLOCK;
        if (q->e[j] == 0) continue;
        at = sim_ahead(&p->at, &a, scale * q->x[j]);
        at = sim_ahead(&at, &b, scale * q->y[j]);
        at = sim_ahead(&at, &p->to, scale * q->z[j]);
        sim_deposit(w, &at, energy * (double)sim_share(q->e[j]));
    }
}

/* Whether the particle was replaced by a shower of the library.  Never a photon inside a shower
   that is being made: the few far photons of the lower bins, used again and again above, moved the
   mean square width of all 10 GeV showers by 1.5% from one library to another (now 0.7%). */
static int sim_library_use(sim_worker *w, const sim_particle *p)
{
    const sim_shower_spots *l;
    float m[3][3], o[3];
    double a, energy = p->energy + (p->kind == SIM_POSITRON ? 2 * SIM_ME : 0);
    int bin, i;
    if (!(p->energy <= w->library_top) || p->energy < SIM_LIB_LOW) return 0;
    if (w->voxels && p->kind == SIM_PHOTON) return 0;
    a = SIM_LIB_DECADE / 2.302585092994046 * sim_log(p->energy / SIM_LIB_LOW);
    bin = (int)(a + sim_uniform(&w->random));
    bin = bin < SIM_LIB_BINS ? bin : SIM_LIB_BINS - 1;
    i = (int)(sim_uniform(&w->random) * sim_library_count(bin));
    if (p->kind != SIM_PHOTON)       /* even: electrons, odd: positrons */
        i = i - i % 2 + (p->kind == SIM_POSITRON);
    l = &w->s->library[p->kind != SIM_PHOTON][bin][i];
    if (w->voxels) {
        sim_library_nest(w, l, energy, p);
        return 1;
    }
#ifdef __GNUC__
    __builtin_prefetch(l->block);    /* comes while the frame is computed */
    __builtin_prefetch(l->block + 1);
#endif
    sim_library_frame(w, p, (double)l->scale, m, o);
    sim_library_put(w, l, energy, m, o);
    return 1;
}

/* ============================================================================================
   7 Photonuclear events: a sketch of a hadronic cascade
   ============================================================================================ */

/* Plausible shares, not a model of nuclei: 1 to 2.4% of the mean loss, in 2 to 3.5% of the muons,
   goes this way. */

typedef struct sim_hadron {
    double energy;                   /* kinetic */
    int charged;
    sim_vector at, to;
} sim_hadron;

enum { SIM_HADRONS = 512 };

typedef struct sim_hadrons {
    int n;
    sim_hadron h[SIM_HADRONS];
} sim_hadrons;

/* Energy for the nucleus: local fragments, photons of 2 MeV, a halo of neutrons, binding. */
static void sim_evaporate(sim_worker *w, double energy, const sim_vector *at)
{
    sim_random *r = &w->random;
    double left = 0.175 * energy, e;
    sim_vector d, p;
    sim_deposit(w, at, 0.175 * energy);
    w->unseen += 0.40 * energy;
    for (; left > 0; left -= e) {
        e = left < 2 ? left : 2;
        d = sim_isotropic(r);
        sim_push(w, SIM_PHOTON, e, at, &d);
    }
    for (left = 0.25 * energy; left > 0; left -= e) {
        e = 0.5 + 3 * sim_uniform(r);
        e = left < e ? left : e;
        d = sim_isotropic(r);
        p = sim_ahead(at, &d, 8 * sim_exponential(r));
        sim_deposit(w, &p, e);
    }
}

/* One secondary: a neutral pion as two photons, or a hadron to follow. */
static void sim_secondary(sim_worker *w, sim_hadrons *h, double e, const sim_vector *at,
                          sim_vector d)
{
    sim_random *r = &w->random;
    double pt = 350 * sqrt(sim_exponential(r)) * (e < 300 ? sqrt(e / 300) : 1), u;
    double sine = pt / (e + 100);
    if (sine >= 1 || e < 60) d = sim_isotropic(r);
    else sim_deflect(&d, sqrt(1 - sine * sine), sine, sim_uniform(r));
    u = sim_uniform(r);
    if (u < 0.30 && e > 140) {
        double share = sim_uniform(r);
        sim_push(w, SIM_PHOTON, share * e, at, &d);
        sim_push(w, SIM_PHOTON, (1 - share) * e, at, &d);
    } else if (h->n < SIM_HADRONS) {
        sim_hadron *made = &h->h[h->n++];
        made->energy = e;
        made->charged = u < 0.85;
        made->at = *at;
        made->to = d;
    } else {
        sim_deposit(w, at, e);
    }
}

/* An interaction of energy `energy` at a point: nucleus and secondaries. */
static void sim_hadron_vertex(sim_worker *w, sim_hadrons *h, double energy, const sim_vector *at,
                              const sim_vector *to)
{
    sim_random *r = &w->random;
    double nuclear, share[40], sum = 0, u;
    int n, i;
    if (energy < 50) {
        sim_deposit(w, at, 0.7 * energy);
        w->unseen += 0.3 * energy;
        return;
    }
    nuclear = 150 + 0.10 * energy < 0.45 * energy ? 150 + 0.10 * energy : 0.45 * energy;
    nuclear *= 0.5 + sim_uniform(r);
    sim_evaporate(w, nuclear, at);
    energy -= nuclear;
    n = 1;
    if (energy >= 300)
        n = 2 + sim_poisson(r, 1.2 + (energy > 1000 ? 1.6 * sim_log(energy / 1000) : 0));
    if (n > 40) n = 40;
    for (i = 0; i < n; i++) {
        u = sim_exponential(r);
        share[i] = u * u;
        sum += share[i];
    }
    for (i = 0; i < n; i++) sim_secondary(w, h, energy * share[i] / sum, at, *to);
}

/* A hadron until it stops, leaves or interacts (22 cm); charged ones lose 10.4 MeV/cm, more below
   200 MeV. */
static void sim_follow_hadron(sim_worker *w, sim_hadrons *all, sim_hadron h)
{
    double left = 22 * sim_exponential(&w->random), step, loss;
    for (;;) {
        step = h.charged && left > 0.5 ? 0.5 : left;
        loss = 10.4 * (h.energy < 200 ? 1 + 0.3 * (200 / h.energy - 1) : 1) * step;
        h.at = sim_ahead(&h.at, &h.to, step);
        if (!sim_inside(w, &h.at)) {
            w->leaked += h.energy;
            return;
        }
        if (h.charged) {
            if (loss >= h.energy) {
                sim_deposit(w, &h.at, h.energy);
                return;
            }
            sim_deposit(w, &h.at, loss);
            h.energy -= loss;
        }
        left -= step;
        if (left <= 0) break;
    }
    sim_hadron_vertex(w, all, h.energy, &h.at, &h.to);
}

static void sim_hadron_cascade(sim_worker *w, double energy, const sim_vector *at,
                               const sim_vector *to)
{
    sim_hadrons h;
    h.n = 0;
    sim_hadron_vertex(w, &h, energy, at, to);
    while (h.n > 0) {
        h.n--;
        sim_follow_hadron(w, &h, h.h[h.n]);
    }
    sim_follow(w);
}

/* ============================================================================================
   8 The muon
   ============================================================================================ */

static double sim_tmax(double e)     /* largest transfer to an electron [PDG] */
{
    double g = e / SIM_MMU, r = SIM_ME / SIM_MMU;
    return 2 * SIM_ME * (g * g - 1) / (1 + 2 * g * r + r * r);
}

/* Radiative correction to knock-on electrons (Kokoulin, as in [PRM, muon ionisation]). */
static double sim_knock_correction(double e, double t)
{
    double a1 = sim_log(1 + 2 * t / SIM_ME), a3 = sim_log(4 * e * (e - t) / (SIM_MMU * SIM_MMU));
    return SIM_ALPHA / (2 * SIM_PI) * a1 * (a3 - a1);
}

/* dN/dT dx of electrons knocked on by a muon of total energy e, per cm and MeV [PDG, PRM]. */
static double sim_delta_spectrum(double e, double t)
{
    double g = e / SIM_MMU, b2 = 1 - 1 / (g * g), tmax = sim_tmax(e);
    double shape = 1 - b2 * t / tmax + t * t / (2 * e * e);
    if (t > tmax) return 0;
    return SIM_KD / b2 / (t * t) * shape * (1 + (t > 0.1 ? sim_knock_correction(e, t) : 0));
}

/* dE/dx by transfers below `cut`, MeV/cm [PDG, PRM]; the correction's integral over ln T from
   0.1 MeV by midpoints. */
static double sim_muon_dedx(double e, double cut)
{
    enum { N = 64 };
    double g = e / SIM_MMU, b2 = 1 - 1 / (g * g), tmax = sim_tmax(e), tc = cut < tmax ? cut : tmax;
    double sum = 0, step = sim_log(tc / 0.1) / N, t;
    int i;
    for (i = 0; i < N && step > 0; i++) {
        t = 0.1 * sim_exp((i + 0.5) * step);
        sum += (1 - b2 * t / tmax + t * t / (2 * e * e)) * sim_knock_correction(e, t) * step;
    }
    return SIM_KD / b2 * (sim_log(2 * SIM_ME * (g * g - 1) * tc / (SIM_I * SIM_I))
                          - b2 * (1 + tc / tmax) + tc / (2 * e) * (tc / (2 * e))
                          - sim_density(g * g - 1) + sum);
}

/* Bremsstrahlung per atom, cm2/MeV [KKP 1997; PRM, muon bremsstrahlung]. */
static double sim_muon_brem(const sim_element *el, double e, double k)
{
    double v = k / e, d = SIM_MMU * SIM_MMU * v / (2 * (e - k)), q = SIM_SQRT_E;
    double dn = 1.54 * sim_power(el->a, 0.27), dp = sim_power(dn, 1 - 1 / el->z);
    double x = 183 * el->z13, y = 1429 * el->z13 * el->z13, c, fn, fe = 0;
    if (k >= e - SIM_MMU) return 0;
    fn = sim_log(x * (SIM_MMU + d * (dp * q - 2)) / (dp * (SIM_ME + d * q * x)));
    if (k < e / (1 + SIM_MMU * SIM_MMU / (2 * SIM_ME * e)))
        fe = sim_log(y * SIM_MMU / ((1 + d * SIM_MMU / (SIM_ME * SIM_ME * q))
                                    * (SIM_ME + d * q * y)));
    c = SIM_RE * SIM_ME / SIM_MMU;
    return 16.0 / 3 * SIM_ALPHA * c * c / k * (1 - v + 0.75 * v * v) * el->z
        * (el->z * (fn > 0 ? fn : 0) + (fe > 0 ? fe : 0));
}

typedef struct sim_pairs { double z13, b, xi0, k, eps; } sim_pairs;

/* The integrand over the pair's asymmetry [KKP 1971; PRM, muon pair production], notation there. */
static double sim_muon_pair_at(const sim_pairs *c, double asymmetry2)
{
    double p2 = asymmetry2, b = c->b, xi = c->xi0 * (1 - p2), r = SIM_MMU / SIM_ME;
    double ye = (4 * b + 5 + (4 * b - 1) * p2)
              / ((6 * b + 2) * sim_log(3 + 1 / xi) + (2 * b - 1) * p2 - 4 * b);
    double ym = ((6 * b + 2) * (1 + p2) + 6)
              / ((4 * b + 3) * (1 + p2) * sim_log(3 + xi) + 2 - 3 * p2);
    double s = 2 * SIM_ME * SIM_SQRT_E * 183 * c->z13 * (1 + xi) / (c->eps * (1 - p2));
    double x = (1 + xi) * (1 + ye), m = 1.5 / (c->z13 * r), be, bm, le, lm;
    if (xi > 1000) be = 0.5 * (3 - p2 + 2 * b * (1 + p2)) / xi;
    else be = ((2 + p2) * (1 + b) + xi * (3 + p2)) * sim_log(1 + 1 / xi)
            + (1 - p2 - b) / (1 + xi) - (3 + p2);
    if (xi < 0.001) bm = 0.5 * (5 - p2 + b * (3 + p2)) * xi;
    else bm = ((1 + p2) * (1 + 1.5 * b) - (1 + 2 * b) * (1 - p2) / xi) * sim_log(1 + xi)
            + xi * (1 - p2 - b) / (1 + xi) + (1 + 2 * b) * (1 - p2);
    le = sim_log(183 * c->z13 * sqrt(x) / (1 + s * (1 + ye))) - 0.5 * sim_log(1 + m * m * x);
    lm = sim_log(2.0 / 3 * 183 * r * c->z13 * c->z13 / (1 + s * (1 + ym)));
    return (le * be > 0 ? le * be : 0) + (lm * bm > 0 ? lm * bm : 0) / (r * r);
}

/* Contribution of atomic electrons, as a shift of Z. */
static double sim_pair_zeta(const sim_element *el, double e)
{
    double z1 = e / (SIM_MMU + 1.95e-5 * e / (el->z13 * el->z13));
    double z2 = e / (SIM_MMU + 5.3e-5 * e / el->z13);
    if (z1 <= 35.221047) return 0;
    return (0.073 * sim_log(z1) - 0.26) / (0.058 * sim_log(z2) - 0.14);
}

/* Pair production per atom, cm2/MeV, pair energy eps; integral over t = ln(1 - asymmetry) by
   8-point Gauss-Legendre. */
static double sim_muon_pair(const sim_element *el, double e, double eps)
{
    static const double node[] = { 0.1834346424956498, 0.5255324099163290, 0.7966664774136267,
                                   0.9602898564975363 };
    static const double weight[] = { 0.3626837833783620, 0.3137066458778873, 0.2223810344533745,
                                     0.1012285362903763 };
    double left = e - eps, r0, tmin, sum = 0, c;
    sim_pairs p;
    int i, side;
    if (eps <= 4 * SIM_ME || left <= 0.75 * SIM_SQRT_E / el->z13 * SIM_MMU) return 0;
    r0 = sqrt(1 - 4 * SIM_ME / eps);
    tmin = 4 * SIM_ME / eps / (1 + r0) + 6 * SIM_MMU * SIM_MMU * r0 / (e * left);
    if (tmin >= 1) return 0;
    tmin = sim_log(tmin);
    p.z13 = el->z13;
    p.eps = eps;
    p.b = eps * eps / (2 * e * left);
    p.xi0 = SIM_MMU * SIM_MMU / (SIM_ME * SIM_ME) * p.b / 2;
    for (i = 0; i < 4; i++)
        for (side = -1; side <= 1; side += 2) {
            double share = sim_exp(0.5 * tmin * (1 + side * node[i])), a = 1 - share;
            sum += weight[i] * share * sim_muon_pair_at(&p, a * a);
        }
    c = 2 * SIM_ALPHA * SIM_RE;
    return c * c / (3 * SIM_PI) * el->z * (el->z + sim_pair_zeta(el, e)) * left / (e * eps)
        * sum * -tmin / 2;
}

/* Photonuclear interaction per atom, cm2/MeV [BP; PRM, muon photonuclear interaction]. */
static double sim_muon_nuclear(const sim_element *el, double e, double eps)
{
    const double l2 = 0.4e6, l = 632.4555320336759;
    double g = eps / 1000, v = eps / e, u, d, f, s, atoms, m2 = SIM_MMU * SIM_MMU;
    if (eps < 200 || eps >= e - SIM_MP / 2) return 0;
    s = (49.2 + 11.1 * sim_log(g) + 151.8 / sqrt(g)) * 1e-30;
    atoms = 0.22 * el->a + 0.78 * sim_power(el->a, 0.89);
    u = e * e * (1 - v) / m2 * (1 + m2 * v * v / (l2 * (1 - v)));
    d = 1 + eps / l * (1 + l / (2 * SIM_MP) + eps / l);
    f = -(1 - v) + (1 - v + 0.5 * v * v * (1 + 2 * m2 / l2)) * sim_log(u / d);
    return f > 0 ? SIM_ALPHA / SIM_PI * atoms * s / eps * f : 0;
}

/* eps dSigma/d(eps), per cm. */
static double sim_muon_spectrum(const sim *s, int process, double e, double eps)
{
    double sum = 0;
    int i;
    if (process == SIM_DELTA) return eps * sim_delta_spectrum(e, eps);
    for (i = 0; i < SIM_ELEMENTS; i++) {
        const sim_element *el = &s->element[i];
        sum += el->n * (process == SIM_BREM ? sim_muon_brem(el, e, eps)
                        : process == SIM_PAIR ? sim_muon_pair(el, e, eps)
                        : sim_muon_nuclear(el, e, eps));
    }
    return eps * sum;
}

/* Range of the transfer, MeV, at total energy e (oxygen has the widest one for pairs). */
static void sim_transfers(const sim *s, int process, double e, double *low, double *high)
{
    switch (process) {
    case SIM_DELTA: *low = SIM_TCUT, *high = sim_tmax(e); break;
    case SIM_BREM: *low = SIM_KCUT, *high = e - SIM_MMU; break;
    case SIM_PAIR:
        *low = 4 * SIM_ME;
        *high = e - 0.75 * SIM_SQRT_E / s->element[0].z13 * SIM_MMU;
        break;
    default: *low = 200, *high = e - SIM_MP / 2; break;
    }
}

#define SIM_MU_LOW 1e3               /* nodes from 1 GeV to 10 TeV, evenly in ln E */
#define SIM_MU_SPAN 9.210340371976184

static void sim_muon_entry(sim *s, int i)
{
    sim_muon_node *n = &s->muon[i];
    double e = SIM_MU_LOW * sim_exp(SIM_MU_SPAN * i / (SIM_MU_NODES - 1)), low, high, step;
    int p, k;
    n->dedx = sim_muon_dedx(e, SIM_TCUT);
    for (p = 0; p < SIM_PROCESSES; p++) {
        sim_transfers(s, p, e, &low, &high);
        n->low[p] = sim_log(low);
        n->high[p] = high > low ? sim_log(high) : n->low[p];
        step = (n->high[p] - n->low[p]) / SIM_MU_BINS;
        n->sum[p][0] = 0;
        for (k = 0; k < SIM_MU_BINS; k++) {
            double eps = sim_exp(n->low[p] + (k + 0.5) * step);
            n->sum[p][k + 1] = n->sum[p][k] + step * sim_muon_spectrum(s, p, e, eps);
        }
        if (p == SIM_NUCLEAR && !s->options.photonuclear) memset(n->sum[p], 0, sizeof n->sum[p]);
    }
}

static void sim_muon_table(sim *s)
{
    int i;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(s->memory.threads)
#endif
    for (i = 0; i < SIM_MU_NODES; i++) {
        calomu_modes host;
        (void)calomu_modes_set(&host);
        sim_muon_entry(s, i);
        calomu_modes_restore(&host);
    }
}

/* ---- transport */

typedef struct sim_flight {
    double e;                        /* total energy */
    double charge;
    sim_vector at, to;
} sim_flight;

static sim_place sim_muon_place(double e)
{
    double x = sim_log(e / SIM_MU_LOW) / SIM_MU_SPAN * (SIM_MU_NODES - 1);
    sim_place p;
    x = x < 0 ? 0 : x > SIM_MU_NODES - 1 ? SIM_MU_NODES - 1 : x;
    p.i = (int)x < SIM_MU_NODES - 2 ? (int)x : SIM_MU_NODES - 2;
    p.f = x - p.i;
    return p;
}

static double sim_muon_rate(const sim *s, sim_place at, int process)
{
    double a = s->muon[at.i].sum[process][SIM_MU_BINS];
    return a + at.f * (s->muon[at.i + 1].sum[process][SIM_MU_BINS] - a);
}

/* A transfer: the cumulative of one of the two nodes, chosen by nearness, stretched to the limits
   of the true energy. */
static double sim_muon_transfer(sim_worker *w, sim_place at, int process, double e)
{
    const sim_muon_node *n = &w->s->muon[at.i + (sim_uniform(&w->random) < at.f)];
    const double *sum = n->sum[process];
    double u = sim_uniform(&w->random) * sum[SIM_MU_BINS], low, high, x;
    int a = 0, b = SIM_MU_BINS, m;
    sim_transfers(w->s, process, e, &low, &high);
    if (high <= low) return 0;
    while (b - a > 1) {
        m = (a + b) / 2;
        if (sum[m] <= u) a = m;
        else b = m;
    }
    x = sum[b] > sum[a] ? (u - sum[a]) / (sum[b] - sum[a]) : 0.5;
    x = (a + x) / SIM_MU_BINS;
    x = low * sim_power(high / low, x);
    return x < high ? x : high;
}

/* Loss below the threshold on a step: collisions above 50 keV one by one from 1/T^2, the rest a
   gamma variate with the right mean and variance. */
static double sim_muon_soft_loss(sim_worker *w, double step, double dedx)
{
    const double t1 = 0.05, inverse = 1 / t1 - 1 / SIM_TCUT;
    double mean = (dedx - SIM_KD * sim_log(SIM_TCUT / t1)) * step, variance = SIM_KD * step * t1;
    double loss = variance / mean * sim_gamma(&w->random, mean * mean / variance);
    int n = sim_poisson(&w->random, SIM_KD * step * inverse);
    while (n-- > 0) loss += 1 / (1 / t1 - sim_uniform(&w->random) * inverse);
    return loss;
}

/* Moves by a step: bending by the field along y and multiple scattering [PDG, Highland with the
   depth of the whole block so that steps add up]. */
static void sim_muon_move(sim_worker *w, sim_flight *f, double step)
{
    sim_random *r = &w->random;
    double kappa = 0.299792458e-2 * w->s->options.geometry.field * f->charge / (f->e * 1e-3);
    double depth = w->s->size[2] > SIM_X0 ? w->s->size[2] / SIM_X0 : 1;
    double theta = 13.6 / f->e * sqrt(step / SIM_X0) * (1 + 0.038 * sim_log(depth));
    double a = sim_gauss(r), b = sim_gauss(r), c = sim_gauss(r), d = sim_gauss(r), u, v, s2;
    u = f->to.x + theta * b - kappa * step;
    v = f->to.y + theta * d;
    f->at = sim_ahead(&f->at, &f->to, step);
    f->at.x += step * (theta * (a * 0.28867513459481287 + b / 2) - kappa * step / 2);
    f->at.y += step * theta * (c * 0.28867513459481287 + d / 2);
    s2 = 1 - u * u - v * v;
    f->to.z = s2 > 0.01 ? sqrt(s2) : 0.1;
    s2 = 1 / sqrt(u * u + v * v + f->to.z * f->to.z);
    f->to.x = u * s2;
    f->to.y = v * s2;
    f->to.z *= s2;
}

static void sim_muon_delta(sim_worker *w, const sim_flight *f, double t)
{
    double p = sqrt(f->e * f->e - SIM_MMU * SIM_MMU);
    double c = t * (f->e + SIM_ME) / (p * sqrt(t * (t + 2 * SIM_ME)));
    sim_vector d = f->to;
    c = c < 1 ? c : 1;
    sim_deflect(&d, c, sim_sine(c), sim_uniform(&w->random));
    sim_cascade(w, SIM_ELECTRON, t, &f->at, &d);
}

/* The pair shares the energy evenly within the kinematic limits [PRM]. */
static void sim_muon_make_pair(sim_worker *w, const sim_flight *f, double eps)
{
    double most = (1 - 6 * SIM_MMU * SIM_MMU / (f->e * (f->e - eps))) * sqrt(1 - 4 * SIM_ME / eps);
    double r = most > 0 ? most * (2 * sim_uniform(&w->random) - 1) : 0;
    sim_push(w, SIM_ELECTRON, 0.5 * eps * (1 - r) - SIM_ME, &f->at, &f->to);
    sim_push(w, SIM_POSITRON, 0.5 * eps * (1 + r) - SIM_ME, &f->at, &f->to);
    sim_follow(w);
}

static void sim_muon_interact(sim_worker *w, sim_flight *f)
{
    sim_place at = sim_muon_place(f->e);
    double rate[SIM_PROCESSES], sum = 0, u, eps;
    int p;
    for (p = 0; p < SIM_PROCESSES; p++) sum += rate[p] = sim_muon_rate(w->s, at, p);
    u = sim_uniform(&w->random) * sum;
    for (p = 0; p < SIM_PROCESSES - 1 && u >= rate[p]; p++) u -= rate[p];
    eps = sim_muon_transfer(w, at, p, f->e);
    if (eps <= 0) return;
    switch (p) {
    case SIM_DELTA: sim_muon_delta(w, f, eps); break;
    case SIM_BREM: sim_cascade(w, SIM_PHOTON, eps, &f->at, &f->to); break;
    case SIM_PAIR: sim_muon_make_pair(w, f, eps); break;
    default: sim_hadron_cascade(w, eps, &f->at, &f->to); break;
    }
    f->e -= eps;
}

#define SIM_MUON_LOW 50              /* MeV of kinetic energy: the rest of the range at 15 MeV/cm */

static void sim_muon_stop(sim_worker *w, sim_flight *f)
{
    double t = f->e - SIM_MMU;
    sim_deposit_line(w, &f->at, &f->to, t / 15, t);
    f->e = SIM_MMU;
}

/* Length of the straight line to the face it leaves by, and a little more (0.1 nm). */
static double sim_muon_exit(const sim_worker *w, const sim_flight *f)
{
    const double at[3] = { f->at.x, f->at.y, f->at.z }, to[3] = { f->to.x, f->to.y, f->to.z };
    double least = 1e30, t;
    int i;
    for (i = 0; i < 3; i++) {
        if (fabs(to[i]) < 1e-12) continue;
        t = ((to[i] > 0 ? w->high[i] : w->low[i]) - at[i]) / to[i];
        least = t < least ? t : least;
    }
    return least + 1e-8;
}

/* Through the block.  Returns what the muon has lost, MeV. */
static double sim_muon_fly(sim_worker *w, sim_flight *f)
{
    double start = f->e;
    while (sim_inside(w, &f->at)) {
        sim_place at = sim_muon_place(f->e);
        double sum = 0, step, out, loss, dedx = w->s->muon[at.i].dedx;
        int p, interacts;
        if (f->e - SIM_MMU < SIM_MUON_LOW) {
            sim_muon_stop(w, f);
            break;
        }
        dedx += at.f * (w->s->muon[at.i + 1].dedx - dedx);
        for (p = 0; p < SIM_PROCESSES; p++) sum += sim_muon_rate(w->s, at, p);
        out = sim_muon_exit(w, f);
        step = sim_exponential(&w->random) / sum;
        interacts = step < 1 && step < out;
        if (!interacts) step = out < 1 ? out : 1;
        loss = sim_muon_soft_loss(w, step, dedx);
        if (loss > f->e - SIM_MMU) loss = f->e - SIM_MMU;
        sim_deposit_line(w, &f->at, &f->to, step, loss);
        sim_muon_move(w, f, step);
        f->e -= loss;
        if (interacts && sim_inside(w, &f->at)) sim_muon_interact(w, f);
    }
    return start - f->e;
}

/* ============================================================================================
   9 Interface
   ============================================================================================ */

sim_options sim_options_default(void)
{
    sim_options o;
    memset(&o, 0, sizeof o);
    o.geometry = calomu_geometry_default();
    o.active = 1;
    o.photonuclear = 1;
    o.library = 1;
    o.seed = 1;
    return o;
}

static const char sim_no_memory[] = "no memory";

/* What the compiler has made of this file, as cm_fault in calomu.c. */
static const char *sim_build_fault(void)
{
    volatile double one = 1, e = 1.0 / 134217728, tiny = DBL_EPSILON / 4, five = 5, zero = 0;
    volatile double minus = -zero;
    double a = one + e, b = one + 2 * e, c = one, d = tiny, third = five / 3.0;
    if (a * a - b != 0)
        return "this build fuses products on its own: compile simulate.c with -ffp-contract=off";
    if ((c + d) - c != 0 || third != 0x1.aaaaaaaaaaaabp+0 || 1 / (minus + 0.0) < 0)
        return "this build computes by other rules than IEEE 754: compile simulate.c without "
               "-funsafe-math-optimizations and its parts; for x87 with -msse2 -mfpmath=sse";
    return NULL;
}

/* The context of the engine knows what a geometry is. */
static const char *sim_options_fault(const sim_options *o)
{
    calomu *c = NULL;
    const calomu_geometry *g = &o->geometry;
    int good;
    if (calomu_open(&c, NULL) != CALOMU_OK) return sim_no_memory;
    good = calomu_geometry_check(c, g) == CALOMU_OK;
    calomu_close(c);
    if (!good) return "the geometry makes no sense";
    if (!(o->active > 0 && o->active <= 1)) return "the active share of a layer must be in (0, 1]";
    if (!(fabs(g->field) <= 20)) return "the field must be at most 20 T";
    if (g->pitch[0] < 0.01 || g->pitch[1] < 0.01 || g->pitch[2] < 0.01)
        return "cells must be at least 0.01 mm long and wide";
    if (g->nx * g->pitch[1] > 2e4 || g->ny * g->pitch[2] > 2e4 || g->nz * g->pitch[0] > 2e4)
        return "the block must be at most 20 m long and wide";
    return NULL;
}

static void sim_set_block(sim *s)
{
    const calomu_geometry *g = &s->options.geometry;
    const int cells[3] = { g->nx, g->ny, g->nz };
    const double pitch[3] = { g->pitch[1] / 10, g->pitch[2] / 10, g->pitch[0] / 10 };
    int i;
    for (i = 0; i < 3; i++) {
        s->cells[i] = cells[i];
        s->inverse[i] = 1 / pitch[i];
        s->size[i] = cells[i] * pitch[i];
    }
}

static calomu_status sim_make(const calomu_options *memory, const sim_options *options, sim **out,
                              const char **why)
{
    static const calomu_options none = { 0 };
    const char *fault = sim_build_fault();
    calomu_status status = CALOMU_OK;
    sim *s;
    *out = NULL;
    if (!fault) fault = sim_options_fault(options);
    if (why) *why = fault ? fault : sim_no_memory;
    if (fault) return fault == sim_no_memory ? CALOMU_EMEMORY : CALOMU_EUSAGE;
    if (!memory) memory = &none;
    s = sim_allocate_from(memory, sizeof *s);
    if (!s) return CALOMU_EMEMORY;
    memset(s, 0, sizeof *s);
    s->memory = *memory;
    if (s->memory.threads < 1) s->memory.threads = 1;
    s->options = *options;
    sim_set_block(s);
    sim_material(s->element);
    sim_photon_table(s);
    sim_electron_table(s);
    sim_muon_table(s);
    if (options->library) status = sim_library_make(s);
    if (status == CALOMU_OK) *out = s;
    else sim_free(s);
    return status;
}

calomu_status sim_new(const calomu_options *memory, const sim_options *options, sim **out,
                      const char **why)
{
    calomu_modes host;
    calomu_status status = CALOMU_EUSAGE;
    *out = NULL;
    if (why) *why = "this thread has another rounding mode than to nearest, flushes small "
                    "numbers to zero, or traps exceptions, and here that cannot be changed";
    if (calomu_modes_set(&host)) status = sim_make(memory, options, out, why);
    calomu_modes_restore(&host);
    return status;
}

void sim_free(sim *s)
{
    int k, b, i;
    if (!s) return;
    for (k = 0; k < 2; k++)
        for (b = 0; b < SIM_LIB_BINS; b++)
            for (i = 0; i < SIM_LIB_SHOWERS; i++) sim_release(s, s->library[k][b][i].memory);
    sim_release(s, s);
}

static size_t sim_cells(const sim *s)
{
    return (size_t)s->cells[0] * (size_t)s->cells[1] * (size_t)s->cells[2];
}

calomu_status sim_worker_new(const sim *s, sim_worker **out)
{
    sim_worker *w = sim_allocate(s, sizeof *w);
    int i;
    *out = NULL;
    if (!w) return CALOMU_EMEMORY;
    memset(w, 0, sizeof *w);
    w->s = s;
    for (i = 0; i < 3; i++) w->high[i] = s->size[i];
    w->library_top = s->options.library ? SIM_LIB_HIGH : 0;
    w->grid = sim_allocate(s, sim_cells(s) * sizeof *w->grid);
    w->hits = sim_allocate(s, sim_cells(s) * sizeof *w->hits);
    if (!w->grid || !w->hits) {
        sim_worker_free(w);
        return CALOMU_EMEMORY;
    }
    memset(w->grid, 0, sim_cells(s) * sizeof *w->grid);
    *out = w;
    return CALOMU_OK;
}

void sim_worker_free(sim_worker *w)
{
    if (!w) return;
    sim_release(w->s, w->grid);
    sim_release(w->s, w->hits);
    sim_release(w->s, w);
}

static SIM_NOINLINE sim_muon sim_draw_muon(const sim *s, uint64_t number, double low, double high,
                                           int charge)
{
    const calomu_geometry *g = &s->options.geometry;
    sim_random r;
    sim_muon m;
    double u, x, y;
    sim_seed(&r, s->options.seed, SIM_STREAM_PRIMARY, number);
    m.energy = (double)(float)(low + (high - low) * sim_uniform(&r));
    u = sim_uniform(&r);
    m.charge = charge ? charge : u < 0.5 ? -1 : 1;
    x = (sim_uniform(&r) - 0.5) / 3 + 0.5;
    y = (sim_uniform(&r) - 0.5) / 3 + 0.5;
    m.x = (double)(float)(g->origin[1] + x * g->nx * g->pitch[1]);
    m.y = (double)(float)(g->origin[2] + y * g->ny * g->pitch[2]);
    return m;
}

sim_muon sim_draw(const sim *s, uint64_t number, double low, double high, int charge)
{
    calomu_modes host;
    sim_muon m;
    (void)calomu_modes_set(&host);
    m = sim_draw_muon(s, number, low, high, charge);
    calomu_modes_restore(&host);
    return m;
}

/* The cells above 1 keV become hits; the grid is zero again. */
static void sim_collect(sim_worker *w, calomu_event *event, sim_loss *loss, double lost)
{
    const float least = 1e-3f;
    size_t n = 0, cells = sim_cells(w->s), i;
    for (i = 0; i < cells; i++) {
        if (!(w->grid[i] > least)) continue;
        w->hits[n].cell = (uint32_t)i;
        w->hits[n++].energy = w->grid[i] * 1e-3f;
    }
    memset(w->grid, 0, cells * sizeof *w->grid);
    if (loss) {
        loss->lost = lost * 1e-3;
        loss->deposited = w->deposited * 1e-3;
        loss->leaked = w->leaked * 1e-3;
        loss->unseen = w->unseen * 1e-3;
    }
    event->hits = w->hits;
    event->n_hits = n;
    event->features = event->losses = NULL;
}

static void sim_begin(sim_worker *w, uint64_t number)
{
    sim_seed(&w->random, w->s->options.seed, SIM_STREAM_TRANSPORT, number);
    w->deposited = w->leaked = w->unseen = 0;
    w->n = 0;
}

/* In the vacuum before the face the muon only bends: 50 mm. */
static sim_flight sim_muon_start(const sim *s, const sim_muon *m)
{
    const calomu_geometry *g = &s->options.geometry;
    double kappa = 0.299792458e-2 * g->field * m->charge / m->energy;
    double p = m->energy * 1e3;
    sim_flight f;
    f.e = sqrt(p * p + SIM_MMU * SIM_MMU);
    f.charge = m->charge;
    f.to.x = -kappa * 5;
    f.to.y = 0;
    f.to.z = sqrt(1 - f.to.x * f.to.x);
    f.at.x = (m->x - g->origin[1]) / 10 - kappa / 2 * 25;
    f.at.y = (m->y - g->origin[2]) / 10;
    f.at.z = 0;
    return f;
}

static SIM_NOINLINE calomu_status sim_run_muon(sim_worker *w, uint64_t number,
                                               const sim_muon *muon, calomu_event *event,
                                               sim_loss *loss)
{
    sim_flight f;
    double lost;
    if (!(muon->energy >= 1 && muon->energy <= 10000) || (muon->charge != 1 && muon->charge != -1))
        return CALOMU_EUSAGE;
    f = sim_muon_start(w->s, muon);
    if (!sim_inside(w, &f.at)) return CALOMU_EUSAGE;
    sim_begin(w, number);
    lost = sim_muon_fly(w, &f);
    event->x = (float)muon->x;
    event->y = (float)muon->y;
    event->energy = (float)muon->energy;
    event->charge = (float)muon->charge;
    sim_collect(w, event, loss, lost);
    return CALOMU_OK;
}

calomu_status sim_run(sim_worker *w, uint64_t number, const sim_muon *muon, calomu_event *event,
                      sim_loss *loss)
{
    calomu_modes host;
    calomu_status status = CALOMU_EUSAGE;
    if (calomu_modes_set(&host)) status = sim_run_muon(w, number, muon, event, loss);
    calomu_modes_restore(&host);
    return status;
}

static SIM_NOINLINE calomu_status sim_run_shower(sim_worker *w, uint64_t number, sim_kind kind,
                                                 double energy, double x, double y, double z,
                                                 calomu_event *event, sim_loss *loss)
{
    const calomu_geometry *g = &w->s->options.geometry;
    sim_vector at, to = { 0, 0, 1 };
    at.x = (x - g->origin[1]) / 10;
    at.y = (y - g->origin[2]) / 10;
    at.z = z / 10;
    if (!(energy > 0 && energy <= 10000) || !sim_inside(w, &at)) return CALOMU_EUSAGE;
    sim_begin(w, number);
    sim_cascade(w, kind, energy * 1e3, &at, &to);
    event->x = event->y = event->charge = CALOMU_ABSENT;
    event->energy = (float)energy;
    sim_collect(w, event, loss, energy * 1e3);
    return CALOMU_OK;
}

calomu_status sim_shower(sim_worker *w, uint64_t number, sim_kind kind, double energy, double x,
                         double y, double z, calomu_event *event, sim_loss *loss)
{
    calomu_modes host;
    calomu_status status = CALOMU_EUSAGE;
    if (calomu_modes_set(&host))
        status = sim_run_shower(w, number, kind, energy, x, y, z, event, loss);
    calomu_modes_restore(&host);
    return status;
}
