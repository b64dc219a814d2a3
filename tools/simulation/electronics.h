/* electronics.h - what real electronics do to the cells' energies, for studies of robustness

   E' = C_i E + b + n_i per cell i: a miscalibration drawn once per run, a bias, a noise drawn per
   muon; then cells below a threshold are dropped (N. Akchurin et al., calibration study of the same
   kind of calorimeter).  C_i and n_i are Beta(2,2) variates in [1-s, 1+s] and [-s, s], independent
   or correlated within sub-modules of 8 x 8 x 10 cells (x, y, z).

   In a program of your own: electronics.c beside simulate.c and calomu.c.  Like them it never
   prints and has no globals.  */
#ifndef CALOMU_ELECTRONICS_H
#define CALOMU_ELECTRONICS_H

#include "calomu.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct electronics_options {
    double miscalibration;           /* s_c */
    double bias, noise;              /* b, s_n, MeV */
    double zero;                     /* E' below is dropped, MeV; 0: only what is not positive */
    double group_calibration;        /* largest correlation within a sub-module, 0..1 */
    double group_noise;
    uint64_t seed;
} electronics_options;

typedef struct electronics electronics;

int electronics_wanted(const electronics_options *o);      /* 1: they change anything */
/* Draws the calibration.  Borrowed by any number of threads afterwards.  EMEMORY. */
calomu_status electronics_new(const electronics_options *o, const calomu_geometry *g,
                              electronics **made);
void electronics_free(electronics *e);
/* Applies them to the muon with this number.  hits: room for all cells of the geometry; returns how
   many there are. */
size_t electronics_apply(const electronics *e, uint64_t number, const calomu_event *event,
                         calomu_hit *hits);
/* 1: without a threshold they hit nearly every cell of every muon. */
int electronics_fill(const electronics_options *o);

#ifdef __cplusplus
}
#endif

#endif /* CALOMU_ELECTRONICS_H */
