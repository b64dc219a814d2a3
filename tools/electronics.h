/* electronics.h - what real electronics do to the cells' energies, for studies of robustness

   E' = C_i E + b + n_i per cell i: a miscalibration drawn once per run, a bias, a noise drawn per
   muon; then cells below a threshold are dropped (N. Akchurin et al., calibration study of the same
   kind of calorimeter).  C_i and n_i are Beta(2,2) variates in [1-s, 1+s] and [-s, s], independent
   or correlated within sub-modules of 8 x 8 x 10 cells (x, y, z).  */
#ifndef CALOMU_ELECTRONICS_H
#define CALOMU_ELECTRONICS_H

#include "calomu_tool.h"

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
/* Draws the calibration.  Borrowed by any number of threads afterwards.  Reports failures. */
calomu_status electronics_new(const electronics_options *o, const calomu_geometry *g,
                              electronics **made);
void electronics_free(electronics *e);
/* Applies them to the muon with this number.  hits: room for all cells of the geometry; returns how
   many there are. */
size_t electronics_apply(const electronics *e, uint64_t number, const calomu_event *event,
                         calomu_hit *hits);
/* Says when every cell of every muon will be hit. */
void electronics_warn(const electronics_options *o);

/* The options of the command line; six entries of a table. */
#define ELECTRONICS_OPTIONS(o) \
    { .name = "miscalibrate", .type = TOOL_DOUBLE, .target = &(o).miscalibration, .value = "S", \
      .help = "electronics: calibration factors in [1-S, 1+S], one per cell", .low = 0, \
      .high = 1 }, \
    { .name = "bias", .type = TOOL_DOUBLE, .target = &(o).bias, .value = "MEV", \
      .help = "electronics: added to every cell (MeV)", .low = -1e6, .high = 1e6 }, \
    { .name = "noise", .type = TOOL_DOUBLE, .target = &(o).noise, .value = "MEV", \
      .help = "electronics: noise in [-MEV, MEV] per cell and muon", .low = 0, .high = 1e6 }, \
    { .name = "zero", .type = TOOL_DOUBLE, .target = &(o).zero, .value = "MEV", \
      .help = "electronics: cells below this energy are dropped (MeV)", .low = 0, .high = 1e6 }, \
    { .name = "group-calibration", .type = TOOL_DOUBLE, .target = &(o).group_calibration, \
      .value = "RHO", .help = "electronics: correlation of calibration factors within a " \
      "sub-module of 8 x 8 x 10 cells, uniform in [0, RHO]", .low = 0, .high = 1 }, \
    { .name = "group-noise", .type = TOOL_DOUBLE, .target = &(o).group_noise, .value = "RHO", \
      .help = "electronics: the same for the noise", .low = 0, .high = 1 }

#endif /* CALOMU_ELECTRONICS_H */
