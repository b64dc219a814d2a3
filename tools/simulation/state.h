/* state.h - what is kept: tables of energy, the shower library, simulation and worker, memory */
#ifndef SIM_STATE_H
#define SIM_STATE_H

#include "material.h"

/* Tables of energy: 16 nodes per octave, found from the bits of the energy, linear between.
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

/* Spots of a shower for the library while it is made (library.h). */
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

#endif
