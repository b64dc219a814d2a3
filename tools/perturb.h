/* perturb.h - what `calomu simulate` and `calomu perturb` share: the options of the electronics */
#ifndef CALOMU_PERTURB_H
#define CALOMU_PERTURB_H

#include "calomu_tool.h"
#include "simulation/electronics.h"

/* electronics_new; reports failures. */
calomu_status perturb_electronics(const electronics_options *o, const calomu_geometry *g,
                                  electronics **made);
#define PERTURB_DEFAULTS { .seed = 1, .trees = 2, .rho = 0.8 }

/* --module nz,nx,ny (NULL: as it is); a usage error is reported. */
calomu_status perturb_module(const char *text, electronics_options *o);
/* Says when every cell of every muon will be hit. */
void perturb_warn(const electronics_options *o);

/* The options of the command line: eleven entries of a table, the last five those of the vine. */
#define PERTURB_OPTIONS(o, pointer_to_module) \
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
      .help = "electronics: the same for the noise", .low = 0, .high = 1 }, \
    PERTURB_VINE_OPTIONS(o, pointer_to_module)

#define PERTURB_VINE_OPTIONS(o, pointer_to_module) \
    { .name = "vine", .type = TOOL_CHOICE, .target = &(o).vine, \
      .value = "groups|independent|factor|c|d", .help = "electronics: how the cells of a " \
      "sub-module hang together; groups: by the two above" }, \
    { .name = "family", .type = TOOL_CHOICE, .target = &(o).family, \
      .value = "gauss|clayton|frank|mixed", .help = "electronics: pair copulas of the vine" }, \
    { .name = "trees", .type = TOOL_INT, .target = &(o).trees, .value = "T", \
      .help = "electronics: the C-vine is cut after this tree", .preset = "2", .low = 1, \
      .high = ELECTRONICS_TREES }, \
    { .name = "rho", .type = TOOL_DOUBLE, .target = &(o).rho, .value = "RHO", \
      .help = "electronics: largest correlation in the vine's first tree", .low = 0, \
      .high = 0.99 }, \
    { .name = "module", .type = TOOL_STRING, .target = (pointer_to_module), \
      .value = "nz,nx,ny", .help = "electronics: cells of a vine's sub-module", \
      .preset = "10,8,8" }

#endif /* CALOMU_PERTURB_H */
