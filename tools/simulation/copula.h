/* copula.h - distribution functions and pair copulas; the same bits on every machine

   Normal law, Beta(2,2) and the h functions of vine copulas: K. Aas, C. Czado, A. Frigessi,
   H. Bakken, Insurance: Mathematics and Economics 44 (2009) 182.  Nothing has state; any thread
   may call anything.  */
#ifndef CALOMU_COPULA_H
#define CALOMU_COPULA_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum copula_family {
    COPULA_GAUSS,                    /* parameter r in (-1, 1) */
    COPULA_CLAYTON,                  /* q > 0; below 1e-6 as independent */
    COPULA_FRANK                     /* q, not 0; below 1e-6 in size as independent */
} copula_family;

/* Distribution function of the normal law and its inverse, p in (0, 1): relative error of both
   tails about 1e-14. */
double copula_phi(double z);
double copula_phi_inverse(double p);
/* The B with 3 B^2 - 2 B^3 = u, u in [0, 1]: 1/2 + sin(asin(2 u - 1) / 3), error below 1e-15. */
double copula_beta_inverse(double u);
/* 2 B(Phi(z)) - 1 from a table of cubics, error below 1e-7; z beyond 6.25 counts as 6.25. */
enum { COPULA_CELLS = 400, COPULA_RANGE = 25 };      /* 32 per unit of z; quarters of one */
typedef struct copula_table { double y[COPULA_CELLS + 3]; } copula_table;
void copula_table_make(copula_table *t);
double copula_table_at(const copula_table *t, double z);

/* Distribution function of u given v, both in (0, 1), and its inverse in u.  Results stay in
   [1e-12, 1 - 1e-12]. */
double copula_h(copula_family family, double u, double v, double parameter);
double copula_h_inverse(copula_family family, double w, double v, double parameter);
/* Parameter of the family with the Kendall tau of a Gaussian pair of correlation r, |r| < 1.
   Clayton has no negative tau: the size of r counts. */
double copula_parameter(copula_family family, double r);

#ifdef __cplusplus
}
#endif

#endif /* CALOMU_COPULA_H */
