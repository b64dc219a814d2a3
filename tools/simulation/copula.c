/* copula.c - normal and Beta(2,2) distributions, pair copulas; see copula.h. */
#include "copula.h"

#include <math.h>

#include "simulate.h"

#define COPULA_EDGE 1e-12

static double copula_inside(double u)
{
    return u > COPULA_EDGE ? u < 1 - COPULA_EDGE ? u : 1 - COPULA_EDGE : COPULA_EDGE;
}

static double copula_density(double z) { return 0.3989422804014327 * sim_exp(-z * z / 2); }

/* Upper tail, z >= 2.5: the continued fraction of Laplace, 1/(z + 1/(z + 2/(z + ...))). */
static double copula_tail(double z)
{
    double f = z;
    int k;
    for (k = 150; k > 0; k--) f = z + k / f;
    return copula_density(z) / f;
}

/* Near 0 the series z + z^3/3 + z^5/15 + ... (G. Marsaglia, J. Stat. Softw. 11(4) (2004)): all its
   terms have one sign. */
double copula_phi(double z)
{
    double term = z, sum = z;
    int k;
    if (z >= 2.5) return 1 - copula_tail(z);
    if (z <= -2.5) return copula_tail(-z);
    for (k = 3; k < 80; k += 2) {
        term *= z * z / k;
        sum += term;
    }
    return 0.5 + copula_density(z) * sum;
}

/* Abramowitz and Stegun 26.2.23, error 4.5e-4, then two steps of Halley, each to the third power of
   the error.  Only the lower half is solved: there p keeps its digits. */
double copula_phi_inverse(double p)
{
    double low = p < 0.5 ? p : 1 - p, t = sqrt(-2 * sim_log(low)), z, e;
    int i;
    z = (2.515517 + t * (0.802853 + t * 0.010328))
      / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308))) - t;
    for (i = 0; i < 2; i++) {
        e = (copula_phi(z) - low) / copula_density(z);
        z -= e / (1 + z * e / 2);
    }
    return p < 0.5 ? z : -z;
}

/* Newton from sqrt(u/3) on the half where the root is simple or its square root known: the error of
   0.09 at u = 1/2 is below 1e-16 after five steps. */
double copula_beta_inverse(double u)
{
    double low = u < 0.5 ? u : 1 - u, b = sqrt(low / 3);
    int i;
    if (!(low > 0)) return u < 0.5 ? 0 : 1;
    for (i = 0; i < 5; i++) b -= (b * b * (3 - 2 * b) - low) / (6 * b * (1 - b));
    return u < 0.5 ? b : 1 - b;
}

void copula_table_make(copula_table *t)
{
    int i;
    for (i = 0; i < COPULA_CELLS + 3; i++)
        t->y[i] = 2 * copula_beta_inverse(copula_phi((i - 1) / 32.0 - COPULA_RANGE / 4.0)) - 1;
}

/* Lagrange's cubic through the four neighbours. */
double copula_table_at(const copula_table *t, double z)
{
    double x = (z + COPULA_RANGE / 4.0) * 32, s;
    const double *y;
    int i;
    x = x > 0 ? x < COPULA_CELLS ? x : COPULA_CELLS : 0;
    i = (int)x < COPULA_CELLS ? (int)x : COPULA_CELLS - 1;
    s = x - i;
    y = t->y + i;
    return -s * (s - 1) * (s - 2) / 6 * y[0] + (s + 1) * (s - 1) * (s - 2) / 2 * y[1]
         - (s + 1) * s * (s - 2) / 2 * y[2] + (s + 1) * s * (s - 1) / 6 * y[3];
}

/* ---------------------------------------------------------------- pair copulas */

static double copula_power(double x, double y) { return sim_exp(y * sim_log(x)); }

double copula_h(copula_family family, double u, double v, double q)
{
    double a, b;
    if (family == COPULA_GAUSS)
        return copula_inside(copula_phi((copula_phi_inverse(u) - q * copula_phi_inverse(v))
                                        / sqrt(1 - q * q)));
    if (fabs(q) < 1e-6) return copula_inside(u);
    if (family == COPULA_CLAYTON)    /* v^(-q-1) and the root in one power: neither overflows */
        return copula_inside(copula_power(1 + copula_power(v / u, q) - copula_power(v, q),
                                          -1 - 1 / q));
    a = sim_exp(-q * u);
    b = sim_exp(-q * v);
    return copula_inside(b * (1 - a) / (1 - sim_exp(-q) + (1 - a) * (b - 1)));
}

double copula_h_inverse(copula_family family, double w, double v, double q)
{
    double b;
    if (family == COPULA_GAUSS)
        return copula_inside(copula_phi(copula_phi_inverse(w) * sqrt(1 - q * q)
                                        + q * copula_phi_inverse(v)));
    if (fabs(q) < 1e-6) return copula_inside(w);
    if (family == COPULA_CLAYTON)
        return copula_inside(v * copula_power(copula_power(w, -q / (q + 1)) - 1
                                              + copula_power(v, q), -1 / q));
    b = sim_exp(-q * v);
    return copula_inside(-sim_log(1 - (1 - sim_exp(-q)) * w / ((1 - w) * b + w)) / q);
}

/* tau = (2/pi) asin r, by halving: sin(2 pi t) = r, tau = 4 t. */
static double copula_tau(double r)
{
    double low = 0, high = 0.25, t = 0, c, s;
    int i;
    for (i = 0; i < 40; i++) {
        t = 0.5 * (low + high);
        sim_turn(t, &c, &s);
        if (s < r) low = t;
        else high = t;
    }
    return 4 * t;
}

/* tau of Frank's copula: 1 - (4/q)(1 - D), D the mean of x/(e^x - 1) over [0, q]; Simpson. */
static double copula_frank_tau(double q)
{
    double sum = 1, x;
    int i;
    for (i = 1; i <= 64; i++) {
        x = q * i / 64;
        sum += (i == 64 ? 1 : i & 1 ? 4 : 2) * x / (sim_exp(x) - 1);
    }
    return 1 - 4 / q * (1 - sum / 192);
}

double copula_parameter(copula_family family, double r)
{
    double tau, low = 1e-3, high = 60, q = 0;
    int i;
    if (family == COPULA_GAUSS) return r;
    tau = copula_tau(fabs(r));
    if (family == COPULA_CLAYTON) return 2 * tau / (1 - tau);
    for (i = 0; i < 24; i++) {
        q = 0.5 * (low + high);
        if (copula_frank_tau(q) < tau) low = q;
        else high = q;
    }
    return r < 0 ? -q : q;
}
