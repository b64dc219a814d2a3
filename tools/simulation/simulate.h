/* simulate.h - muons of 1 GeV to 10 TeV in a calorimeter of lead tungstate, simulated

   A fast Monte Carlo of what GEANT4 does in minutes per hundred muons.  To use it in a program of
   your own take this folder and compile simulate.c beside calomu.c; it needs calomu.h and the
   headers beside it, nothing else.

       sim *s = NULL;
       sim_worker *w = NULL;
       sim_muon muon = { 1000, 1.5, -3, 1 };               // GeV, mm, mm, charge
       calomu_event event;
       sim_options o = sim_options_default();
       if (sim_new(NULL, &o, &s, NULL) == CALOMU_OK && sim_worker_new(s, &w) == CALOMU_OK
           && sim_run(w, 0, &muon, &event, NULL) == CALOMU_OK)
           printf("%zu cells\n", event.n_hits);
       sim_worker_free(w);
       sim_free(s);

   An event is a function of (SIM_VERSION, options, event number, muon) alone: the same bits for any
   number of threads, whatever was simulated before, whatever the caller's rounding mode, and for
   any compiler and machine; flags that give up IEEE 754 (-ffast-math, ...) are an error of
   compilation or of sim_new, with what to do.  No globals; never prints.  */
#ifndef CALOMU_SIMULATE_H
#define CALOMU_SIMULATE_H

#include "calomu.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SIM_VERSION 2                /* changes whenever the same seed gives other events */

typedef struct sim_options {         /* start from sim_options_default() */
    calomu_geometry geometry;        /* a full block of PbWO4 in vacuum; field along +y */
    double active;                   /* sensitive fraction of each layer, from its front; 1 */
    int photonuclear;                /* 1: muon-nuclear interactions, 0: electromagnetic only */
    int library;                     /* 1: showers of 0.1 MeV to 1 GeV come from a library made at
                                        the start; 0: every particle is followed, 10 times slower */
    uint64_t seed;
} sim_options;

typedef struct sim_muon {
    double energy;                   /* momentum, GeV: 1 to 10000 */
    double x, y;                     /* mm, 50 mm before the front face, flying along +z */
    int charge;                      /* 1 or -1 */
} sim_muon;

/* Where the muon's energy went, GeV: lost = deposited + leaked + unseen, but for rounding. */
typedef struct sim_loss {
    double lost;                     /* by the muon inside the block */
    double deposited;                /* in the sensitive part of cells */
    double leaked;                   /* carried out of the block by secondaries */
    double unseen;                   /* nuclear binding, neutrinos; insensitive gaps */
} sim_loss;

typedef struct sim sim;              /* tables and library; read-only, for any number of threads */
typedef struct sim_worker sim_worker;    /* the memory of one thread */

sim_options sim_options_default(void);       /* the paper's calorimeter, everything on, seed 1 */

/* Builds tables and library, 1 s on one core, with memory->threads threads; memory: allocator and
   threads, NULL for the defaults.  *why (if why is not NULL): text of a failure.  EUSAGE: options
   or this build make no sense; EMEMORY. */
calomu_status sim_new(const calomu_options *memory, const sim_options *options, sim **s,
                      const char **why);
void sim_free(sim *s);                       /* NULL is allowed */
/* One per thread; s must outlive it.  EMEMORY. */
calomu_status sim_worker_new(const sim *s, sim_worker **w);
void sim_worker_free(sim_worker *w);         /* NULL is allowed */

/* Muon `number` of a set: momentum uniform in [low, high) GeV (low = high: that one), charge as
   given or, for 0, one or the other with equal chance, x and y uniform over the middle third of
   the face (the paper: +-20 mm).  All are floats, so that files keep them. */
sim_muon sim_draw(const sim *s, uint64_t number, double low, double high, int charge);

/* Simulates one muon.  The event's hits (above 1 keV, rising cells) stay valid until the next run
   of the worker; its features and losses are NULL.  loss may be NULL.  EUSAGE: energy, charge or
   impact point out of range. */
calomu_status sim_run(sim_worker *w, uint64_t number, const sim_muon *muon, calomu_event *event,
                      sim_loss *loss);

typedef enum sim_kind { SIM_PHOTON, SIM_ELECTRON, SIM_POSITRON } sim_kind;
/* One shower instead: a photon, electron or positron of the given kinetic energy (GeV) that starts
   at x, y, z (mm, z from the front face) along +z.  The event has no truth but its energy. */
calomu_status sim_shower(sim_worker *w, uint64_t number, sim_kind kind, double energy, double x,
                         double y, double z, calomu_event *event, sim_loss *loss);

/* Our own arithmetic, the same bits on every machine: for what else goes into simulated events.  In
   the modes that the caller has: see calomu_modes_set. */
double sim_exp(double x);
double sim_log(double x);                    /* x > 0 and normal */
void sim_turn(double t, double *cosine, double *sine);       /* of 2 pi t, t in [0, 1) */

#ifdef __cplusplus
}
#endif

#endif /* CALOMU_SIMULATE_H */
