/* scan_fit.h - a scan of `calomu scan`, read and fitted (Akchurin et al. 2021, Secs. 2 and 3) */
#ifndef CALOMU_SCAN_FIT_H
#define CALOMU_SCAN_FIT_H

#include "calomu_tool.h"
#include "least_squares.h"

enum { SCAN_MODELS = 64 };

/* One line of the file: one half of the muons of one energy at one setting. */
typedef struct scan_row {
    int model, draw, setting, correlation, half;
    double miscalibration, noise, bias, zero;    /* MeV but the first */
    double energy, n, mean, error, sigma, fired, noise_energy;   /* GeV but n and fired */
    size_t line;
} scan_row;

/* Both halves of an energy. */
typedef struct scan_response {
    double energy, n, mean, error, sigma, fired, noise_energy;
    const scan_row *half[2];         /* NULL: not there */
    double before, after;            /* of half 1: mean / E - 1, calibrated on half 0; NaN */
    double wide, calibrated;         /* of half 1: sigma / E, and after division by the slope */
} scan_response;

/* One setting of one model and draw, and its straight line. */
typedef struct scan_point {
    int model, draw, setting, correlation;
    double miscalibration, noise, bias, zero;
    double fires, survives;          /* P, and M in MeV, of an empty cell */
    double noise_energy, fired;      /* means over the energies: GeV, cells */
    int first, n, used;              /* its responses; used: those with an error */
    int fitted;
    double intercept, slope, intercept_error, slope_error, covariance;   /* GeV, 1 */
    double chi2, quadratic_t;        /* t NaN below 3 energies */
    double residual, residual_energy;            /* largest, in errors, and where */
    double calibration[2];           /* intercept and slope of half 0; NaN */
} scan_point;

typedef struct scan_set {
    const char *path;
    char *model[SCAN_MODELS];
    int n_models;
    scan_row *row;
    scan_response *response;
    scan_point *point;
    size_t n_rows, n_points, n_responses, twice, missing;
    double cells;                    /* of the grid; NaN: the file does not say */
} scan_set;

/* Reads and fits; every number of the file is checked, and messages name file, line and column.
   All failures are reported.  Free in every case. */
calomu_status scan_read(const char *path, scan_set *set);
void scan_free(scan_set *set);

/* Probability that an empty cell passes the threshold `zero`, and its mean stored energy, with
   noise s (2 B - 1), B ~ Beta(2,2), and an offset: MeV. */
void scan_empty_cell(double s, double offset, double zero, double *fires, double *survives);

#endif /* CALOMU_SCAN_FIT_H */
