/* test_scan.c - copulas against pyvinecopulib and closed forms, perturbed cells against theirs

   usage: test_scan [TESTDATA [TMP [SEED]]]  */
#include "../tools/simulation/simulate.c"
#include "../tools/simulation/copula.c"
#include "../tools/simulation/electronics.c"
#include "test.h"

/* By tests/scan_copulas.py, pyvinecopulib 1.0.1: family, parameter, u, v, h(u|v), its inverse. */
static const double golden[][6] = {
    { 0, 0.5, 0.1, 0.2, 0.16013625509035023, 0.062925877962208998 },
    { 0, 0.5, 0.3, 0.9, 0.089243255416727507, 0.57402526225659933 },
    { 0, 0.5, 0.7, 0.5, 0.72758507474898082, 0.67513746666228847 },
    { 1, 1.5, 0.1, 0.2, 0.1110223912067584, 0.094672221427414285 },
    { 1, 1.5, 0.3, 0.9, 0.061251181624106157, 0.58399570889358676 },
    { 1, 1.5, 0.7, 0.5, 0.68930125390560404, 0.7090329854941233 },
    { 2, -4, 0.1, 0.2, 0.020194793211738445, 0.31664307208848186 },
    { 2, -4, 0.3, 0.9, 0.62348225484437891, 0.12066494699683972 },
    { 2, -4, 0.7, 0.5, 0.74944319706498197, 0.65731189228245057 }
};

static void test_pairs(void)
{
    size_t i;
    for (i = 0; i < sizeof golden / sizeof golden[0]; i++) {
        const double *g = golden[i];
        copula_family family = (copula_family)(int)g[0];
        CHECK_NEAR(copula_h(family, g[2], g[3], g[1]), g[4], 1e-9);
        CHECK_NEAR(copula_h_inverse(family, g[2], g[3], g[1]), g[5], 1e-9);
    }
    CHECK_NEAR(copula_frank_tau(4), 0.38814802129793785, 1e-7);
    CHECK_NEAR(copula_tau(0.5), 1.0 / 3, 1e-11);
}

static void test_distributions(void)
{
    copula_table t;
    int i;
    copula_table_make(&t);
    for (i = 1; i < 1000; i++) {
        double u = i / 1000.0, z = 0.012 * (i - 500);
        CHECK_NEAR(copula_beta_inverse(u), 0.5 + sin(asin(2 * u - 1) / 3), 1e-12);
        CHECK_NEAR(copula_phi(z), 0.5 * erfc(-z / sqrt(2)), 1e-14);
        CHECK_NEAR(copula_phi(copula_phi_inverse(u)), u, 1e-14);
        CHECK_NEAR(copula_table_at(&t, z), 2 * copula_beta_inverse(copula_phi(z)) - 1, 1e-7);
    }
}

/* Firing probability and mean stored energy of empty cells, for all pairs of Table 1. */
static void test_empty(uint64_t seed, int vine)
{
    static const double noise[] = { 0, 0.1, 0.1, 0.3, 0.4, 0.5, 1, 1.5 };
    static const double bias[] = { -0.15, 0, 0.15 };
    calomu_geometry g = { 50, 32, 32, { 1, 1, 1 }, { 0, 0, 0 }, 0 };
    calomu_hit *hits = malloc(51200 * sizeof *hits);
    calomu_event none = { 0 };
    int a, b, k, events = 20;
    for (a = 0; a < 8 && hits; a++) for (b = 0; b < 3; b++) {
        electronics_options o = { .noise = noise[a], .bias = bias[b], .zero = 0.6, .seed = seed,
                                  .vine = vine, .trees = 2, .rho = 0.8 };
        double t = (0.6 - o.bias) / o.noise, p = 0, m = 0, n = events * 51200.0, fired = 0;
        double sum = 0, square = 0, wide;
        electronics *e = NULL;
        CHECK(electronics_new(&o, &g, &e) == CALOMU_OK, "new");
        for (k = 0; k < events && e; k++) {
            size_t i, f = electronics_apply(e, (uint64_t)k, &none, hits);
            double s = 0;
            for (i = 0; i < f; i++) s += 1e3 * (double)hits[i].energy;
            fired += (double)f;
            sum += s;
            square += s * s;
        }
        if (t < 1) {
            p = 0.5 - (3 * t - t * t * t) / 4;
            m = 3 * o.noise / 16 * (1 - t * t) * (1 - t * t) + o.bias * p;
        }
        /* cells of a sub-module go together: the spread is that seen between events */
        wide = vine == ELECTRONICS_INDEPENDENT ? sqrt(n * p)
             : 5 * sqrt(fabs(square - sum * sum / events)) + sqrt(n * p);
        CHECK_NEAR(fired, n * p, 5 * wide + 1e-9);
        CHECK_NEAR(sum, n * m, 5 * wide * (o.noise + fabs(o.bias)) + 1e-9);
        electronics_free(e);
    }
    free(hits);
}

/* A Gaussian C-vine is linear in its fresh normals, with the Cholesky rows of specification 3. */
static void test_cholesky(uint64_t seed)
{
    calomu_geometry g = { 2, 4, 4, { 1, 1, 1 }, { 0, 0, 0 }, 0 };
    electronics_options o = { .noise = 1, .seed = seed, .vine = ELECTRONICS_C_VINE, .trees = 3,
                              .rho = 0.8, .module = { 2, 4, 4 } };
    electronics *e = NULL;
    electronics_source s;
    float out[32];
    int i, k;
    CHECK(electronics_new(&o, &g, &e) == CALOMU_OK, "new");
    if (!e) return;
    s = electronics_from(e, 1, 7);
    electronics_module(e, 1, 0, &s, out);
    for (i = 3; i < 32; i++) {
        double z = 0, rest = 1;
        for (k = 0; k < 3; k++) {
            double p = (double)e->pair[1][i * 3 + k];
            z += p * rest * electronics_fresh(e, &s, (uint64_t)k);
            rest *= sqrt(1 - p * p);
        }
        z += rest * electronics_fresh(e, &s, (uint64_t)i);
        CHECK_NEAR((double)out[i], copula_table_at(&e->table, z), 1e-7);
    }
    electronics_free(e);
    o.module[0] = 3;
    CHECK(electronics_new(&o, &g, &e) == CALOMU_EUSAGE, "sub-modules that do not divide");
}

int main(int argc, char **argv)
{
    int vine;
    test_begin(argc, argv);
    test_pairs();
    test_distributions();
    for (vine = ELECTRONICS_INDEPENDENT; vine <= ELECTRONICS_D_VINE; vine++)
        test_empty(test_seed_of(argc, argv, 3), vine);
    test_cholesky(test_seed_of(argc, argv, 3));
    return test_end("scan");
}
