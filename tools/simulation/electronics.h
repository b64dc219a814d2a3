/* electronics.h - what real electronics do to the cells' energies, for studies of robustness

   E' = C_i E + b + n_i per cell i: a miscalibration drawn once per run, a bias, a noise drawn per
   muon; then cells below a threshold are dropped (N. Akchurin et al., calibration study of the same
   kind of calorimeter).  C_i and n_i are Beta(2,2) variates in [1-s, 1+s] and [-s, s], independent
   or correlated within sub-modules of cells, by default 8 x 8 x 10 (x, y, z).

   In a program of your own: electronics.c and copula.c beside simulate.c and calomu.c.  Like them
   it never prints and has no globals.  */
#ifndef CALOMU_ELECTRONICS_H
#define CALOMU_ELECTRONICS_H

#include "calomu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the cells of a sub-module hang together.  But for the first all draw by the exact inverse of
   Beta(2,2), the noise from (seed, setting, muon, cell), the calibration from (seed, draw, cell).
   The parameters of each pair are drawn once per draw: correlations of the first tree uniform in
   [0, rho], further ones in [-rho/2, rho/2]; those of the other families at equal Kendall tau. */
typedef enum electronics_vine {
    ELECTRONICS_GROUPS,              /* none: by the group_* */
    ELECTRONICS_INDEPENDENT,
    ELECTRONICS_FACTOR,              /* all cells hang on one latent root */
    ELECTRONICS_C_VINE,              /* on the first cells of the sub-module, a tree each */
    ELECTRONICS_D_VINE               /* a chain along the read-out order (iz, ix, iy), one tree */
} electronics_vine;

typedef struct electronics_options {
    double miscalibration;           /* s_c */
    double bias, noise;              /* b, s_n, MeV */
    double zero;                     /* E' below is dropped, MeV; 0: only what is not positive */
    double group_calibration;        /* largest correlation within a sub-module, 0..1 */
    double group_noise;
    uint64_t seed;
    int vine;                        /* an electronics_vine; with one the group_* do nothing */
    int family;                      /* a copula_family, or 3: one at random for each pair */
    int32_t trees;                   /* of the C-vine, at least 1 */
    int32_t module[3];               /* cells of a sub-module along z, x, y; 0: 10, 8, 8 */
    double rho;                      /* largest correlation in the first tree, below 1 */
    uint32_t setting, draw;          /* of a scan: other noise, another calibration */
} electronics_options;

enum { ELECTRONICS_TREES = 16 };     /* at most */
typedef struct electronics electronics;

int electronics_wanted(const electronics_options *o);      /* 1: they change anything */
/* Draws the calibration.  Borrowed by any number of threads afterwards.  EMEMORY; EUSAGE: the
   sub-modules of a vine do not divide the grid. */
calomu_status electronics_new(const electronics_options *o, const calomu_geometry *g,
                              electronics **made);
void electronics_free(electronics *e);
/* Applies them to the muon with this number.  hits: room for all cells of the geometry; returns how
   many there are; SIZE_MAX: no memory. */
size_t electronics_apply(const electronics *e, uint64_t number, const calomu_event *event,
                         calomu_hit *hits);
/* 1: without a threshold they hit nearly every cell of every muon. */
int electronics_fill(const electronics_options *o);

#ifdef __cplusplus
}
#endif

#endif /* CALOMU_ELECTRONICS_H */
