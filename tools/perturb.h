/* perturb.h - what `calomu simulate` and `calomu perturb` share: the options of the electronics */
#ifndef CALOMU_PERTURB_H
#define CALOMU_PERTURB_H

#include "calomu_tool.h"
#include "simulation/electronics.h"

/* electronics_new; reports failures. */
calomu_status perturb_electronics(const electronics_options *o, const calomu_geometry *g,
                                  electronics **made);
/* Says when every cell of every muon will be hit. */
void perturb_warn(const electronics_options *o);

/* The options of the command line; six entries of a table. */
#define PERTURB_OPTIONS(o) \
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

#endif /* CALOMU_PERTURB_H */
