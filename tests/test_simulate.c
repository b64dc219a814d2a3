/* test_simulate.c - the simulation: arithmetic, cross-sections, tables and sampling against numbers
   computed apart from the code, showers against GEANT4, energy balance, determinism, misuse

   usage: test_simulate [TESTDATA [TMP]] */
#include "../tools/simulation/simulate.c"
#include "test.h"

static sim *make(int library, int photonuclear, uint64_t seed)
{
    sim_options o = sim_options_default();
    const char *why = NULL;
    sim *s = NULL;
    o.library = library;
    o.photonuclear = photonuclear;
    o.seed = seed;
    CHECK(sim_new(NULL, &o, &s, &why) == CALOMU_OK, "%s", why ? why : "no reason given");
    return s;
}

static sim_worker *worker_of(const sim *s)
{
    sim_worker *w = NULL;
    CHECK(sim_worker_new(s, &w) == CALOMU_OK, "worker");
    return w;
}

/* ---------------------------------------------------------------- 1 arithmetic */

static void test_arithmetic(void)
{
    test_random r = test_seed(5);
    int i;
    double worst[4] = { 0, 0, 0, 0 }, c, s;
    for (i = 0; i < 100000; i++) {
        double x = exp(test_uniform(&r, -600, 600)), y = test_uniform(&r, -600, 600);
        double t = test_unit(&r), e;
        e = fabs(sim_log(x) - log(x)) / (fabs(log(x)) + 1e-3);
        worst[0] = e > worst[0] || isnan(e) ? e : worst[0];
        e = fabs(sim_exp(y) / exp(y) - 1);
        worst[1] = e > worst[1] || isnan(e) ? e : worst[1];
        sim_turn(t, &c, &s);
        e = fabs(c - cos(2 * SIM_PI * t));
        worst[2] = e > worst[2] || isnan(e) ? e : worst[2];
        e = fabs(s - sin(2 * SIM_PI * t));
        worst[3] = e > worst[3] || isnan(e) ? e : worst[3];
    }
    CHECK(worst[0] <= 1e-13, "log is off by %g", worst[0]);
    CHECK(worst[1] <= 1e-12, "exp is off by %g", worst[1]);
    CHECK(worst[2] <= 1e-13 && worst[3] <= 1e-13, "cos, sin are off by %g, %g", worst[2], worst[3]);
}

/* Drawn numbers: mean, variance, standard error of the mean. */
typedef struct tally { double n, sum, sum2; } tally;

static void tally_add(tally *t, double x)
{
    t->n++;
    t->sum += x;
    t->sum2 += x * x;
}

static double tally_mean(const tally *t) { return t->sum / t->n; }

static double tally_variance(const tally *t)
{
    return t->sum2 / t->n - tally_mean(t) * tally_mean(t);
}

static double tally_error(const tally *t) { return sqrt(tally_variance(t) / t->n); }

static double draw_poisson(sim_random *r, double mean) { return sim_poisson(r, mean); }

static double draw_gauss(sim_random *r, double unused)
{
    (void)unused;
    return sim_gauss(r);
}

/* Mean and variance within 5 standard errors; fourth: fourth cumulant. */
static void check_variate(sim_random *r, double (*draw)(sim_random *, double), double parameter,
                          double mean, double variance, double fourth)
{
    tally t = { 0, 0, 0 };
    int i;
    for (i = 0; i < 200000; i++) tally_add(&t, draw(r, parameter));
    CHECK_NEAR(tally_mean(&t), mean, 5 * sqrt(variance / t.n));
    CHECK_NEAR(tally_variance(&t), variance, 5 * sqrt((2 * variance * variance + fourth) / t.n));
}

static void test_variates(void)
{
    static const double shape[] = { 0.2, 1.5, 30 }, mean[] = { 0.05, 2, 12 };
    sim_random r;
    int k;
    sim_seed(&r, 1, 7, 1);
    for (k = 0; k < 3; k++) {
        check_variate(&r, sim_gamma, shape[k], shape[k], shape[k], 6 * shape[k]);
        check_variate(&r, draw_poisson, mean[k], mean[k], mean[k], mean[k]);
    }
    check_variate(&r, draw_gauss, 0, 0, 1, 0);
}

static void test_deflection(void)
{
    test_random r = test_seed(6);
    int i;
    for (i = 0; i < 2000; i++) {
        double a = test_uniform(&r, -1, 1), phi = test_uniform(&r, 0, 7), c, s;
        sim_vector d, o;
        d.z = i % 10 == 0 ? 1 : i % 10 == 1 ? -1 : a;
        s = sqrt(1 - d.z * d.z);
        d.x = s * cos(phi);
        d.y = s * sin(phi);
        o = d;
        c = test_uniform(&r, -1, 1);
        sim_deflect(&d, c, sim_sine(c), test_unit(&r));
        if (!(fabs(d.x * d.x + d.y * d.y + d.z * d.z - 1) <= 1e-12)
            || !(fabs(d.x * o.x + d.y * o.y + d.z * o.z - c) <= 1e-9)) {
            CHECK(0, "deflection %d: angle %g, expected %g", i,
                  d.x * o.x + d.y * o.y + d.z * o.z, c);
            return;
        }
    }
    CHECK(1, " ");
}

/* ---------------------------------------------------------------- 2 cross-sections */

/* 1/X0 of [T74] from the elements; radiated energy per X0 at 100 GeV; the muon's formulas at
   1 TeV, computed with another program in double (PbWO4: lead, tungsten, oxygen; cm2/MeV). */
static void test_cross_sections(const sim *s)
{
    static const double k[] = { 1, 100, 1e4, 5e5 }, p[] = { 3, 100, 1e4, 5e5 };
    static const double nk[] = { 300, 1e4, 5e5 };
    static const double brem[3][4] = { { 4.7265e-29, 4.7259e-31, 4.6676e-33, 5.6514e-35 },
                                       { 2.9384e-27, 2.9381e-29, 2.9060e-31, 3.7122e-33 },
                                       { 3.5681e-27, 3.5677e-29, 3.5289e-31, 4.5151e-33 } };
    static const double pair[3][4] = { { 2.8846e-28, 7.7530e-29, 9.9070e-32, 1.4446e-36 },
                                       { 2.1100e-26, 5.4980e-27, 6.6110e-30, 1.0086e-34 },
                                       { 2.5793e-26, 6.7107e-27, 8.0492e-30, 1.2302e-34 } };
    static const double nucl[3][3] = { { 5.1428e-31, 4.1992e-33, 1.6300e-35 },
                                       { 4.9027e-30, 4.0031e-32, 1.5539e-34 },
                                       { 5.4775e-30, 4.4725e-32, 1.7361e-34 } };
    static const double delta[4] = { 0.542820, 5.75180e-5, 5.78142e-9, 1.40054e-12 };
    double x0 = 0, sum = 0;
    int e, i;
    for (e = 0; e < 3; e++) {
        const sim_element *el = &s->element[e];
        x0 += 4 * SIM_ALPHA * SIM_RE * SIM_RE * el->n * el->z
            * (el->z * (log(184.15 * el->z13) - el->fc) + log(1194 * el->z13 * el->z13));
        for (i = 0; i < 4; i++) {
            CHECK_NEAR(sim_muon_brem(el, 1e6, k[i]), brem[e][i], 1e-3 * brem[e][i]);
            CHECK_NEAR(sim_muon_pair(el, 1e6, p[i]), pair[e][i], 1e-3 * pair[e][i]);
            if (i < 3) CHECK_NEAR(sim_muon_nuclear(el, 1e6, nk[i]), nucl[e][i], 1e-3 * nucl[e][i]);
        }
    }
    for (i = 0; i < 4; i++)
        CHECK_NEAR(sim_delta_spectrum(1e6, k[i]), delta[i], 1e-3 * delta[i]);
    CHECK_NEAR(sim_tmax(1e6), 989194, 10);
    CHECK_NEAR(1 / x0, SIM_X0, 1e-5);
    for (i = 0; i < 20000; i++) {
        double y = 1e5 * (i + 0.5) / 20000;
        sum += sim_brem_spectrum(s, 1e5 + SIM_ME, y) * 1e5 / 20000;
    }
    CHECK_NEAR(sum * SIM_X0 / 1e5, 1.0155, 0.003);
}

/* a(E) without a cut and b = mean transfer per depth / E, by quadrature ten times finer than the
   tables'.  Columns: a (MeV cm2/g), b_brem, b_pair, b_nuclear (1e-6 cm2/g). */
static void test_b_values(const sim *s)
{
    static const struct { double e, a, b[3]; } row[] = {
        { 50, 1.899, { 4.085, 5.758, 0.366 } }, { 100, 1.961, { 4.587, 6.703, 0.351 } },
        { 500, 2.096, { 5.560, 8.248, 0.341 } }, { 1000, 2.155, { 5.871, 8.645, 0.346 } },
        { 2000, 2.215, { 6.114, 8.919, 0.355 } }, { 4000, 2.277, { 6.294, 9.103, 0.368 } },
        { 8000, 2.340, { 6.421, 9.223, 0.383 } }
    };
    int i, p, k, n = test.brief ? 800 : 4000;
    for (i = 0; i < 7; i++) {
        double e = row[i].e * 1e3, low, high, step, sum;
        CHECK_NEAR(sim_muon_dedx(e, 1e30) / SIM_DENSITY, row[i].a, 0.005 * row[i].a);
        for (p = SIM_BREM; p <= SIM_NUCLEAR; p++) {
            sim_transfers(s, p, e, &low, &high);
            if (p == SIM_BREM) low = 1e-3;
            step = log(high / low) / n;
            for (k = 0, sum = 0; k < n; k++) {
                double eps = low * exp((k + 0.5) * step);
                sum += eps * sim_muon_spectrum(s, p, e, eps) * step;
            }
            sum /= e * SIM_DENSITY * 1e-6;
            CHECK_NEAR(sum, row[i].b[p - 1], 0.005 * row[i].b[p - 1] + 0.0006);
        }
    }
}

/* Photons: mu/rho and share of Compton scattering; electrons: restricted loss, hard rates,
   transport mean free path of the bare law, ranges. */
static void test_rates(const sim *s)
{
    static const double e[] = { 0.1, 0.5623, 1, 3.162, 10, 100, 1000 };
    static const double mu[] = { 4.164, .1150, .0663, .0401, .0452, .0787, .1004 };
    static const double compton[] = { .026, .594, .799, .691, .280, .026, .003 };
    static const double t[] = { 1, 10, 100, 1000 }, dedx[] = { 1.121, 1.189, 1.245, 1.241 };
    static const double brem[] = { 2.001, 5.895, 9.859, 12.71 }, moller[] = { 0, .575, .620, .623 };
    static const double inverse[] = { 83.2, 2.021, .03008, 3.86e-4 };
    int i;
    for (i = 0; i < 7; i++) {
        sim_place at = sim_find(e[i]);
        const sim_photon_node *n = &s->photon[at.i];
        double total = sim_between(n[0].total, n[1].total, at.f);
        double share = sim_between(n[0].compton - n[0].photo, n[1].compton - n[1].photo, at.f)
                     / total;
        CHECK_NEAR(total / SIM_DENSITY, mu[i], 0.02 * mu[i]);
        CHECK_NEAR(share, compton[i], 0.002);
    }
    for (i = 0; i < 4; i++) {
        sim_electron_node n;
        sim_electron_entry(s, 0, t[i], &n);
        CHECK_NEAR(n.dedx / SIM_DENSITY, dedx[i], 0.01 * dedx[i]);
        CHECK_NEAR(n.brem - n.ion, brem[i], 0.01 * brem[i]);
        CHECK_NEAR(n.ion, moller[i], 0.01 * moller[i] + 1e-9);
        CHECK_NEAR(1 / (n.lambda * sim_scatter_scale(t[i])), inverse[i], 0.01 * inverse[i]);
    }
    CHECK_NEAR(s->electron[0][sim_find(1).i].range, 0.091, 0.003);
    CHECK_NEAR(s->electron[0][sim_find(10).i].range, 1.03, 0.05);
}

/* ---------------------------------------------------------------- sampling */

/* Energy and angle belong together; the mean share against the Klein-Nishina formula. */
static void test_compton(const sim *s)
{
    static const double e0[] = { 0.2, 2, 20 };
    sim_worker *w = worker_of(s);
    int i, k, n = test.brief ? 5000 : 50000;
    sim_seed(&w->random, 5, 7, 5);
    for (k = 0; k < 3; k++) {
        double top = 0, area = 0, q, h, worst = 0;
        tally drawn = { 0, 0, 0 };
        for (i = 0; i < n; i++) {
            h = sim_compton_share(&w->random, e0[k], &q);
            q = fabs(h * (1 + e0[k] * q) - 1);
            worst = q > worst || isnan(q) ? q : worst;
            tally_add(&drawn, h);
        }
        for (i = 0; i < 20000; i++) {
            double c = 1 - 2 * (i + 0.5) / 20000, weight;
            h = 1 / (1 + e0[k] * (1 - c));
            weight = h * h * (h + 1 / h - 1 + c * c);
            top += h * weight;
            area += weight;
        }
        CHECK(worst <= 1e-9, "angle and energy disagree by %g", worst);
        CHECK_NEAR(tally_mean(&drawn), top / area, 4.5 * tally_error(&drawn));
    }
    sim_worker_free(w);
}

/* Mean of f over the normalised spectrum x^-2 w(x) on [xm, 1/2], and the mean drawn share. */
static void test_moller(const sim *s)
{
    static const double t[] = { 3, 30, 1000 };
    sim_worker *w = worker_of(s);
    int i, k, n = test.brief ? 5000 : 50000;
    sim_seed(&w->random, 6, 7, 6);
    for (k = 0; k < 3; k++) {
        double g = t[k] / SIM_ME + 1, gg = (2 * g - 1) / (g * g), xm = SIM_TCUT / t[k];
        double top = 0, area = 0;
        tally drawn = { 0, 0, 0 };
        for (i = 0; i < n; i++) tally_add(&drawn, log(sim_moller_share(&w->random, t[k])));
        for (i = 0; i < 20000; i++) {        /* even in ln x; Moller's formula by its three terms */
            double x = xm * pow(0.5 / xm, (i + 0.5) / 20000), weight;
            weight = x * (1 / (x * x) + 1 / ((1 - x) * (1 - x)) + (1 - gg) - gg / (x * (1 - x)));
            top += log(x) * weight;
            area += weight;
        }
        CHECK_NEAR(tally_mean(&drawn), top / area, 4.5 * tally_error(&drawn));
    }
    sim_worker_free(w);
}

/* Photons of bremsstrahlung: mean of ln k against the spectrum summed over the elements.  The
   element is drawn for complete screening, which moves the mean by less than 1% of the range. */
static void test_bremsstrahlung(const sim *s)
{
    static const double t[] = { 5, 100, 10000 };
    sim_worker *w = worker_of(s);
    int i, k, n = test.brief ? 5000 : 30000;
    sim_seed(&w->random, 7, 7, 7);
    for (k = 0; k < 3; k++) {
        double top = 0, area = 0, range = log(t[k] / SIM_KCUT);
        tally drawn = { 0, 0, 0 };
        for (i = 0; i < n; i++) tally_add(&drawn, log(sim_brem_photon(w, t[k])));
        for (i = 0; i < 4000; i++) {
            double x = SIM_KCUT * exp(range * (i + 0.5) / 4000);
            double weight = sim_brem_spectrum(s, t[k] + SIM_ME, x);
            top += log(x) * weight;
            area += weight;
        }
        CHECK_NEAR(tally_mean(&drawn), top / area, 4.5 * tally_error(&drawn) + 0.01 * range);
    }
    sim_worker_free(w);
}

/* The frame of a library shower: its axis along the particle, perpendicular unit vectors across,
   any azimuth, mirrored half of the time. */
static void test_frame(const sim *s)
{
    sim_worker *w = worker_of(s);
    sim_particle p = { SIM_PHOTON, 1, { 1, 2, 3 }, { 0.48, -0.6, 0.64 }, 0 };
    double worst = 0, mirrored = 0, e, c[3][3];
    tally across = { 0, 0, 0 };
    float m[3][3], o[3];
    int i, j, k, n = 4000;
    sim_seed(&w->random, 9, 7, 9);
    for (i = 0; i < n; i++) {
        sim_library_frame(w, &p, 1, m, o);
        for (j = 0; j < 3; j++)
            for (k = 0; k < 3; k++) c[k][j] = (double)m[j][k] / s->inverse[j];
        e = fabs(c[2][0] - p.to.x) + fabs(c[2][1] - p.to.y) + fabs(c[2][2] - p.to.z);
        for (j = 0; j < 3; j++)
            for (k = 0; k <= j; k++)
                e += fabs(c[j][0] * c[k][0] + c[j][1] * c[k][1] + c[j][2] * c[k][2] - (j == k));
        worst = e > worst || isnan(e) ? e : worst;
        mirrored += c[0][0] * (c[1][1] * c[2][2] - c[1][2] * c[2][1])
                  + c[0][1] * (c[1][2] * c[2][0] - c[1][0] * c[2][2])
                  + c[0][2] * (c[1][0] * c[2][1] - c[1][1] * c[2][0]) < 0;
        tally_add(&across, c[0][0]);
    }
    CHECK(worst <= 1e-5, "no rotation: off by %g", worst);
    CHECK_NEAR(mirrored / n, 0.5, 4.5 * 0.5 / sqrt(n));
    CHECK_NEAR(tally_mean(&across), 0, 4.5 * sqrt(0.5 / n));
    /* mean square of a component across the axis: (1 - to.x^2)/2 */
    CHECK_NEAR(across.sum2 / n, (1 - 0.48 * 0.48) / 2, 4.5 * 0.3 / sqrt(n));
    CHECK_NEAR(o[0] / s->inverse[0], 1, 1e-5);
    CHECK_NEAR(o[2] / s->inverse[2], 3, 1e-5);
    sim_worker_free(w);
}

/* Scattering on a step: the mean of 1 - cos against the integral of the law with its factors. */
static void test_scattering(const sim *s)
{
    static const double t[] = { 1.5, 10, 100, 100 }, step[] = { 0.001, 0.01, 0.05, 0.05 };
    int i, k, n = test.brief ? 20000 : 200000;
    sim_worker *w = worker_of(s);
    sim_seed(&w->random, 8, 7, 8);
    for (k = 0; k < 4; k++) {
        sim_kind kind = k == 3 ? SIM_POSITRON : SIM_ELECTRON;
        sim_law law = sim_law_of(t[k], k == 3);
        sim_electron_node node;
        double expected = 0, span;
        tally drawn = { 0, 0, 0 };
        sim_rutherford(s, t[k], &node);
        for (i = 0; i < n; i++) {
            sim_particle p = { kind, t[k], { 0, 0, 0 }, { 0, 0, 1 }, 0 };
            sim_scatter(w, &p, step[k], node.c, node.a);
            tally_add(&drawn, 1 - p.to.z);
        }
        span = log(2 / (1e-3 * node.a));
        for (i = 0; i < 20000; i++) {
            double mu = 1e-3 * node.a * exp(span * (i + 0.5) / 20000);
            double x = mu / (mu + 2 * node.a);
            expected += x * x * sim_law_ratio(&law, mu) * span / 20000;
        }
        expected *= step[k] * node.c;
        CHECK_NEAR(tally_mean(&drawn), expected, 4.5 * tally_error(&drawn) + 0.03 * expected);
    }
    /* the size of the nucleus halves the law at 100 MeV and theta = 0.75 */
    {
        sim_law law = sim_law_of(100, 0);
        double s2 = 0.366 * 0.366, r = 1 - s2 + 0.366 * 0.634 * (0.89 + 1.32 * 0.366), f;
        f = 1 / (1 + 4 * 100.51 * 100.51 * s2 * 5.28 * 5.28 / (197.327 * 197.327) / 12);
        CHECK_NEAR(sim_law_ratio(&law, 2 * s2), r * f * f * f * f, 0.01 * r);
    }
    sim_worker_free(w);
}

/* Steps of any length, down to 1 pm behind a wall: directions stay unit vectors.  Displacements: in
   the mean 0.73 of the most, as long as no wall is near, and never into another cell. */
static void test_steps(const sim *s)
{
    static const double energy[] = { 0.2, 3, 30 };
    sim_worker *w = worker_of(s);
    int i, k, out = 0, bent = 0;
    sim_vector z = { 0, 0, 1 };
    sim_seed(&w->random, 10, 7, 10);
    for (i = 0; i < 30000; i++) {
        double length = 1e-10 * pow(10, 9 * sim_uniform(&w->random)), d;
        sim_particle p = { SIM_POSITRON, energy[i % 3], { 0, 0, 0 }, { 0, 0, 1 }, 0 };
        sim_electron_node node;
        if (i < 3) CHECK_NEAR(sim_step_most(2, 1), 0.04 * 2 * 3.25, 1e-12);
        sim_rutherford(s, p.energy, &node);
        sim_scatter(w, &p, length, node.c, node.a);
        d = p.to.x * p.to.x + p.to.y * p.to.y + p.to.z * p.to.z;
        bent += !(fabs(d - 1) <= 1e-9);
    }
    CHECK(bent == 0, "%d directions are no unit vectors", bent);
    for (k = 0; k < 2; k++) {        /* 0: in the middle of cells, 1: anywhere */
        double most = 0.73 * sqrt(0.1 * 0.1 - 0.08 * 0.08), worst = 0, d;
        tally along = { 0, 0, 0 };
        for (i = 0; i < 4000; i++) {
            sim_particle p = { SIM_ELECTRON, 5, { 0.1875, 0.1875, 2 }, { 0.6, 0, 0.8 }, 0 };
            sim_vector from;
            if (k == 1) {
                p.at.x += 3 * sim_uniform(&w->random);
                p.at.y += 3 * sim_uniform(&w->random);
            }
            from = p.at;
            sim_displace(w, &p, &z, 0.1, 0.08);
            d = hypot(p.at.x - from.x, p.at.y - from.y);
            d = fabs(d - most) + fabs(p.at.z - from.z);
            worst = d > worst || isnan(d) ? d : worst;
            tally_add(&along, (p.at.x - from.x) / most);
            out += (int)(p.at.x / 0.375) != (int)(from.x / 0.375)
                || (int)(p.at.y / 0.375) != (int)(from.y / 0.375);
        }
        if (k == 1) break;
        CHECK(worst <= 1e-12, "displacement off by %g cm", worst);
        /* mean cosine of the angle: b^2/(1 + b^2) (1 + e)/(1 - e), b = 2.16, e = exp(-b pi) */
        CHECK_NEAR(tally_mean(&along), 0.82350 * 1.00113 / 0.99887, 5 * tally_error(&along));
    }
    CHECK(out == 0, "%d displacements into another cell", out);
    for (i = bent = 0; i < 200; i++) {       /* 1 TeV, 0.3 mm before a wall: loss on each side */
        sim_particle p = { SIM_ELECTRON, 1e6, { 0.345, 0.2, 0.2 }, { 1, 0, 0 }, 0 };
        const sim_electron_node *n = &s->electron[0][sim_find(1e6).i];
        sim_begin(w, (uint64_t)i);
        if (sim_fly(w, &p) && p.at.x > 0.3751)
            bent += !(fabs((double)w->grid[0] / (0.03 * n->dedx) - 1) <= 1e-3);
        memset(w->grid, 0, sim_cells(s) * sizeof *w->grid);
    }
    CHECK(bent == 0, "%d steps are not split at a wall", bent);
    CHECK_NEAR(sim_next_wall(w, &z, &z), 4.064 - 1, 1e-12);
    sim_worker_free(w);
}

/* ---------------------------------------------------------------- 8 the muon's tables */

typedef struct rate_row { int process; double n[6]; } rate_row;

/* Losses above 0.8425 MeV, 10 MeV, 0.1, 1, 10, 100 GeV in 203.2 cm at constant energy. */
static const double rate_energy[4] = { 100, 1000, 4000, 8000 };
static const rate_row rates[16] = {
    { SIM_DELTA, { 130.9, 11.25, 1.127, 0.1069, 0.0077, 0 } },
    { SIM_BREM, { 0.157, 0.120, 0.0858, 0.0517, 0.0199, 0 } },
    { SIM_PAIR, { 5.819, 5.043, 2.016, 0.2009, 0.0030, 0 } },
    { SIM_NUCLEAR, { 0.0147, 0.0147, 0.0147, 0.0065, 0.0015, 0 } },
    { SIM_DELTA, { 132.5, 11.53, 1.175, 0.1177, 0.0112, 0.0008 } },
    { SIM_BREM, { 0.197, 0.160, 0.1258, 0.0915, 0.0573, 0.0244 } },
    { SIM_PAIR, { 14.79, 13.58, 8.079, 2.523, 0.2398, 0.0043 } },
    { SIM_NUCLEAR, { 0.0245, 0.0245, 0.0245, 0.0131, 0.0054, 0.0015 } },
    { SIM_DELTA, { 133.5, 11.69, 1.200, 0.1215, 0.0120, 0.0011 } },
    { SIM_BREM, { 0.219, 0.182, 0.1478, 0.1135, 0.0792, 0.0452 } },
    { SIM_PAIR, { 22.46, 20.99, 13.985, 5.976, 1.2317, 0.0604 } },
    { SIM_NUCLEAR, { 0.0315, 0.0315, 0.0315, 0.0182, 0.0089, 0.0037 } },
    { SIM_DELTA, { 133.9, 11.77, 1.212, 0.1232, 0.0123, 0.0012 } },
    { SIM_BREM, { 0.230, 0.193, 0.1584, 0.1241, 0.0898, 0.0557 } },
    { SIM_PAIR, { 26.93, 25.33, 17.581, 8.341, 2.2379, 0.1808 } },
    { SIM_NUCLEAR, { 0.0354, 0.0354, 0.0354, 0.0211, 0.0110, 0.0052 } }
};

/* N transfers drawn as the muon draws them: counts above each threshold.  Tolerance: 4.5 standard
   errors of the count, 1% (nodes are 16% apart in energy) and the last digit of the table. */
static void test_transfers(const sim *s)
{
    static const double threshold[6] = { 0.8425, 10, 100, 1e3, 1e4, 1e5 };
    int n = test.brief ? 20000 : 200000, i, j, k;
    sim_worker *w = worker_of(s);
    sim_seed(&w->random, 2, 7, 2);
    for (i = 0; i < 16; i++) {
        double e = rate_energy[i / 4] * 1e3, above[6] = { 0 }, eps;
        sim_place at = sim_muon_place(e);
        double rate = sim_muon_rate(s, at, rates[i].process) * 203.2;
        for (j = 0; j < n; j++) {
            eps = sim_muon_transfer(w, at, rates[i].process, e);
            for (k = 0; k < 6; k++) above[k] += eps > threshold[k];
        }
        for (k = 0; k < 6; k++)
            CHECK_NEAR(above[k] / n * rate, rates[i].n[k],
                       4.5 * rate / n * sqrt(above[k] + 1) + 0.01 * rates[i].n[k]
                           + (rates[i].n[k] < 0.1 ? 6e-5 : rates[i].n[k] < 10 ? 6e-4 : 0.06));
    }
    sim_worker_free(w);
}

static double mean_loss(const sim *s, double e)  /* MeV per cm, from the tables */
{
    sim_place at = sim_muon_place(e);
    double sum = 0;
    int side, p, k;
    for (side = 0; side < 2; side++) {
        const sim_muon_node *n = &s->muon[at.i + side];
        double weight = side ? at.f : 1 - at.f;
        sum += weight * n->dedx;
        for (p = 0; p < SIM_PROCESSES; p++) {
            double low, high;
            sim_transfers(s, p, e, &low, &high);
            for (k = 0; k < SIM_MU_BINS; k++)
                sum += weight * (n->sum[p][k + 1] - n->sum[p][k]) * low
                     * pow(high / low, (k + 0.5) / SIM_MU_BINS);
        }
    }
    return sum;
}

/* Mean loss in the block, the falling energy included, by steps of 1 cm. */
static void test_mean_loss(const sim *s)
{
    static const double e[] = { 50, 100, 500, 1000, 2000, 4000, 8000 };
    static const double loss[] = { 4.006, 5.194, 15.22, 28.23, 54.71, 108.3, 216.3 };
    int i, k;
    for (i = 0; i < 7; i++) {
        double energy = e[i] * 1e3;
        for (k = 0; k < 203; k++) energy -= mean_loss(s, energy) * 203.2 / 203;
        CHECK_NEAR(e[i] - energy * 1e-3, loss[i], 0.006 * loss[i]);
    }
}

/* Loss below the threshold in a layer: mean 41.77, deviation 1.34 MeV, skewness 0.31. */
static void test_straggling(const sim *s)
{
    enum { N = 20000 };
    sim_worker *w = worker_of(s);
    double m = 0, m2 = 0, m3 = 0, dedx = sim_muon_dedx(1e6, SIM_TCUT), x, sd;
    int i, k;
    CHECK_NEAR(dedx, 10.277, 0.002);
    sim_seed(&w->random, 3, 7, 3);
    for (i = 0; i < N; i++) {
        for (k = 0, x = 0; k < 4; k++) x += sim_muon_soft_loss(w, 1.016, dedx);
        m += x;
        m2 += x * x;
        m3 += x * x * x;
    }
    m /= N;
    m2 = m2 / N - m * m;
    m3 = m3 / N - 3 * m * m2 - m * m * m;
    sd = sqrt(m2);
    CHECK_NEAR(m, 41.77, 5 * 1.34 / sqrt(N));
    CHECK_NEAR(sd, 1.34, 0.04);
    CHECK_NEAR(m3 / (sd * sd * sd), 0.31, 0.11);
    sim_worker_free(w);
}

/* Scattering and bending over the block: 2.5 mrad, 2.9 mm and 12.4 mm at 100 GeV. */
static void test_muon_moves(const sim *s)
{
    enum { N = 4000 };
    sim_worker *w = worker_of(s);
    double x = 0, y2 = 0, v2 = 0;
    int i, k;
    sim_seed(&w->random, 4, 7, 4);
    for (i = 0; i < N; i++) {
        sim_flight f = { 1e5, 1, { 6, 6, 0 }, { 0, 0, 1 } };
        for (k = 0; k < 10; k++) sim_muon_move(w, &f, 20.32);
        x += f.at.x - 6;
        y2 += (f.at.y - 6) * (f.at.y - 6);
        v2 += f.to.y * f.to.y;
    }
    CHECK_NEAR(10 * x / N, -12.4, 0.05 * 12.4);
    CHECK_NEAR(10 * sqrt(y2 / N), 2.9, 0.2);
    CHECK_NEAR(1e3 * sqrt(v2 / N), 2.5, 0.15);
    sim_worker_free(w);
}

/* ---------------------------------------------------------------- showers */

typedef struct shower_mean { double deposit, n01, n1, n10, r2; } shower_mean;

static shower_mean showers(const sim *s, sim_kind kind, double energy, int n)
{
    sim_worker *w = worker_of(s);
    test_random r = test_seed(9);
    shower_mean m = { 0, 0, 0, 0, 0 };
    int i;
    size_t k;
    for (i = 0; i < n; i++) {
        double x = test_uniform(&r, 0, 3.75), y = test_uniform(&r, 0, 3.75), dx, dy;
        double z = test_uniform(&r, 0, 40.64), sum = 0, r2 = 0;
        calomu_event event;
        sim_loss loss;
        if (sim_shower(w, (uint64_t)i, kind, energy, x, y, z, &event, &loss) != CALOMU_OK) {
            CHECK(0, "shower failed");
            break;
        }
        CHECK(fabs(loss.lost - loss.deposited - loss.leaked - loss.unseen
                   - (kind == SIM_POSITRON ? -2e-3 * SIM_ME : 0)) <= 1e-6 * energy,
              "balance: %g = %g + %g + %g", loss.lost, loss.deposited, loss.leaked, loss.unseen);
        for (k = 0; k < event.n_hits; k++) {
            double e = (double)event.hits[k].energy;
            dx = -60 + (event.hits[k].cell / 32 % 32 + 0.5) * 3.75 - x;
            dy = -60 + (event.hits[k].cell % 32 + 0.5) * 3.75 - y;
            m.n01 += e > 1e-4;
            m.n1 += e > 1e-3;
            m.n10 += e > 1e-2;
            sum += e;
            r2 += e * (dx * dx + dy * dy) / 100;
        }
        m.deposit += sum / energy;
        m.r2 += r2 / sum;
    }
    sim_worker_free(w);
    m.deposit /= n;
    m.n01 /= n;
    m.n1 /= n;
    m.n10 /= n;
    m.r2 /= n;
    return m;
}

static void check_share(double value, double expected, double tol, const char *what)
{
    CHECK(fabs(value / expected - 1) <= tol, "%s: %g, expected %g within %g%%", what, value,
          expected, 100 * tol);
}

/* GEANT4 11.4 with real cells, and the engines against each other.  Tolerances: the physics' 4%
   (r2 6%, for the library with one energy only: few showers) plus 4 standard errors. */
static void test_showers(const sim *m, const sim *l)
{
    int n = test.brief ? 20 : 150;
    double more = 4 * 20 / 260.0 / sqrt(n);
    shower_mean a = showers(m, SIM_ELECTRON, 1, n), b = showers(l, SIM_ELECTRON, 1, n);
    shower_mean c = showers(l, SIM_ELECTRON, 10, n / 3), d = showers(l, SIM_PHOTON, 0.1, 10 * n);
    shower_mean p = showers(l, SIM_POSITRON, 0.01, 40 * n);
    shower_mean e = showers(m, SIM_ELECTRON, 0.01, 100 * n);
    shower_mean f = showers(m, SIM_ELECTRON, 0.03, 40 * n);
    check_share(a.deposit, 0.983, 0.004, "M 1 GeV deposit");
    check_share(a.n01, 260, 0.04 + more, "M 1 GeV cells above 0.1 MeV");
    check_share(a.n1, 101, 0.04 + more, "M 1 GeV cells above 1 MeV");
    check_share(a.n10, 17.1, 0.04 + 2 * more, "M 1 GeV cells above 10 MeV");
    check_share(a.r2, 1.94, 0.06 + 4 * 0.22 / sqrt(n), "M 1 GeV r2");
    check_share(b.n01, a.n01, 0.02 + 2 * more, "L against M, cells above 0.1 MeV");
    check_share(b.n1, a.n1, 0.03 + 2 * more, "L against M, cells above 1 MeV");
    check_share(b.r2, a.r2, 0.06 + 6 * 0.22 / sqrt(n), "L against M, r2");
    check_share(c.n01, 1269, 0.03 + more, "L 10 GeV cells above 0.1 MeV");
    check_share(c.n1, 609, 0.04 + more, "L 10 GeV cells above 1 MeV");
    check_share(c.r2, 1.95, 0.05 + 4 * 0.06 / sqrt(n), "L 10 GeV r2");
    check_share(d.n01, 39.4, 0.05 + more, "L 100 MeV photon, cells above 0.1 MeV");
    check_share(p.deposit, 1.072, 0.01, "L 10 MeV positron, deposit with its rest energy");
    check_share(p.n01, 6.52, 0.04 + 4 * 0.07 / sqrt(n), "L 10 MeV positron, above 0.1 MeV");
    /* 40,000 and 20,000 electrons of GEANT4's; with fine steps and no walls 2.384 and 0.505 */
    check_share(e.n1, 2.258, 0.01 + 4 * 0.042 / sqrt(n), "M 10 MeV cells above 1 MeV");
    check_share(f.n10, 0.572, 0.02 + 4 * 0.14 / sqrt(n), "M 30 MeV cells above 10 MeV");
}

/* ---------------------------------------------------------------- muons */

static uint64_t event_hash(const calomu_event *e)
{
    return cm_checksum(e->n_hits, e->hits, e->n_hits * sizeof *e->hits);
}

/* Muons against GEANT4's median energies and counts at 100 GeV (2930, 3724, 6546 MeV at 10, 50,
   90%; 537 cells above 0.1 MeV), balance, and what the options do. */
static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void test_muons(const sim *s)
{
    enum { N = 1200 };
    static double sum[N], count[N];
    sim_worker *w = worker_of(s);
    int i, plus = 0, n = test.brief ? 300 : N;
    size_t k;
    for (i = 0; i < n; i++) {
        sim_muon muon = sim_draw(s, (uint64_t)i, 100, 100, 0);
        calomu_event event;
        sim_loss loss;
        CHECK(sim_run(w, (uint64_t)i, &muon, &event, &loss) == CALOMU_OK, "run");
        CHECK(fabs(loss.lost - loss.deposited - loss.leaked - loss.unseen) <= 1e-6 * 100,
              "balance: %g = %g + %g + %g", loss.lost, loss.deposited, loss.leaked, loss.unseen);
        CHECK(fabs(muon.x) <= 20 && fabs(muon.y) <= 20, "start at %g, %g", muon.x, muon.y);
        plus += muon.charge > 0;
        sum[i] = count[i] = 0;
        for (k = 0; k < event.n_hits; k++) {
            sum[i] += (double)event.hits[k].energy;
            count[i] += event.hits[k].energy > 1e-4f;
            if (k > 0 && event.hits[k].cell <= event.hits[k - 1].cell) CHECK(0, "cells not rising");
        }
        CHECK(fabs(sum[i] - loss.deposited) <= 1e-3 * loss.deposited, "cells hold %g of %g GeV",
              sum[i], loss.deposited);
    }
    CHECK(abs(plus - n / 2) <= 4 * sqrt(n) / 2, "%d of %d are positive", plus, n);
    qsort(sum, (size_t)n, sizeof *sum, rising);
    qsort(count, (size_t)n, sizeof *count, rising);
    /* 4 standard errors of these quantiles at n = 1200, of GEANT4's 1000 muons too */
    CHECK_NEAR(sum[n / 10], 2.930, test.brief ? 0.25 : 0.06);
    CHECK_NEAR(sum[n / 2], 3.724, test.brief ? 0.5 : 0.28);
    CHECK_NEAR(count[n / 2], 537, test.brief ? 110 : 65);
    sim_worker_free(w);
}

/* The same muon with another seed. */
static void test_seeds(void)
{
    uint64_t hash[2];
    int i;
    for (i = 0; i < 2; i++) {
        sim_muon muon = { 100, 1, 2, 1 };
        sim *s = make(0, 1, (uint64_t)i + 1);
        sim_worker *w = worker_of(s);
        calomu_event event;
        CHECK(sim_run(w, 0, &muon, &event, NULL) == CALOMU_OK, "run");
        hash[i] = event_hash(&event);
        sim_worker_free(w);
        sim_free(s);
    }
    CHECK(hash[0] != hash[1], "seeds 1 and 2 give the same");
}

static void test_reproducible(const sim *s)
{
    sim_options o = s->options;
    calomu_options threads = { 0 };
    sim *other = NULL;
    sim_worker *w = worker_of(s), *v;
    calomu_event event;
    uint64_t hash[6];
    int i;
    threads.threads = 2;
    for (i = 0; i < 3; i++) {        /* the same muon: other numbers, other histories */
        sim_muon muon = { 1000, 1, 2, 1 };
        CHECK(sim_run(w, (uint64_t)i, &muon, &event, NULL) == CALOMU_OK, "run");
        hash[i] = event_hash(&event);
        CHECK(i == 0 || hash[i] != hash[0], "event %d is event 0", i);
    }
    for (i = 0; i < 6; i++) {
        sim_muon muon = sim_draw(s, (uint64_t)i, 500, 2000, 0);
        CHECK(sim_run(w, (uint64_t)i, &muon, &event, NULL) == CALOMU_OK, "run");
        hash[i] = event_hash(&event);
        CHECK(i == 0 || hash[i] != hash[i - 1], "two muons are equal");
    }
    CHECK(sim_new(&threads, &o, &other, NULL) == CALOMU_OK, "with two threads");
    v = worker_of(other);
    for (i = 5; i >= 0; i -= 2) {    /* other order, other threads, gaps between */
        sim_muon muon = sim_draw(other, (uint64_t)i, 500, 2000, 0);
        CHECK(sim_run(v, (uint64_t)i, &muon, &event, NULL) == CALOMU_OK, "run");
        CHECK(event_hash(&event) == hash[i], "muon %d differs", i);
    }
    sim_worker_free(v);
    sim_free(other);
    sim_worker_free(w);
}

/* Other seeds, other muons; photonuclear energy goes unseen only where it is on; a gap takes its
   share; another block works. */
static void test_options(void)
{
    sim_options o = sim_options_default();
    sim *s = NULL;
    sim_worker *w;
    calomu_event event;
    sim_loss loss, sum = { 0, 0, 0, 0 };
    int i;
    o.library = 0;
    o.photonuclear = 0;
    o.active = 0.75;
    o.geometry.nz = 7;
    o.geometry.nx = 5;
    o.geometry.ny = 9;
    o.geometry.pitch[0] = 30;
    o.geometry.origin[1] = 100;
    o.geometry.origin[2] = -500;
    CHECK(sim_new(NULL, &o, &s, NULL) == CALOMU_OK, "another block");
    w = worker_of(s);
    for (i = 0; i < 40; i++) {
        sim_muon muon = sim_draw(s, (uint64_t)i, 20, 60, -1);
        CHECK(muon.charge == -1 && muon.energy >= 20 && muon.energy <= 60, "drawn as asked");
        CHECK(muon.x > 100 && muon.x < 118.75 && muon.y > -500 && muon.y < -466.25, "on the face");
        CHECK(sim_run(w, (uint64_t)i, &muon, &event, &loss) == CALOMU_OK, "run");
        CHECK(event.n_hits > 0 && event.hits[event.n_hits - 1].cell < 7 * 5 * 9, "cells");
        sum.deposited += loss.deposited;
        sum.unseen += loss.unseen;
    }
    CHECK_NEAR(sum.unseen / (sum.unseen + sum.deposited), 0.25, 0.03);
    sim_worker_free(w);
    sim_free(s);
}

/* Gaps take their share of library showers too; showers() checks the balance. */
static void test_gaps(sim *l)
{
    double whole = showers(l, SIM_PHOTON, 5, 10).deposit, share;
    l->options.active = 0.75;
    share = showers(l, SIM_PHOTON, 5, 10).deposit / whole;
    l->options.active = 1;
    CHECK_NEAR(share, 0.75, 0.1);
}

static void test_photonuclear(const sim *s)
{
    sim_worker *w = worker_of(s);
    double visible = 0, all = 0;
    int i, n = test.brief ? 40 : 400;
    sim_vector at = { 6, 6, 40 }, to = { 0, 0, 1 };
    for (i = 0; i < n; i++) {
        sim_begin(w, (uint64_t)i);
        sim_hadron_cascade(w, 2e4, &at, &to);
        CHECK(fabs(w->deposited + w->leaked + w->unseen - 2e4) <= 1, "balance of a cascade");
        visible += w->deposited;
        all += w->deposited + w->leaked;
        memset(w->grid, 0, sim_cells(s) * sizeof *w->grid);
    }
    /* 20 GeV: 0.87 with full containment, 0.70 to 0.75 in the block (the sketch's own numbers) */
    CHECK_NEAR(all / (n * 2e4), 0.87, 0.04);
    CHECK_NEAR(visible / (n * 2e4), 0.72, 0.09);
    sim_worker_free(w);
}

/* ---------------------------------------------------------------- misuse */

typedef struct counter { long left, held; } counter;

static void *count_allocate(void *user, size_t size)
{
    counter *c = user;
    void *p;
    if (c->left-- <= 0) return NULL;
    p = malloc(size);
    c->held += p != NULL;
    return p;
}

static void count_release(void *user, void *memory)
{
    ((counter *)user)->held -= memory != NULL;
    free(memory);
}

static void test_misuse(const sim *s)
{
    static const double bad[] = { 0.5, 20000, -100, (double)NAN };
    sim_worker *w = worker_of(s);
    sim_options o = sim_options_default();
    sim_muon muon = { 100, 0, 0, 1 };
    calomu_event event;
    const char *why = NULL;
    sim *none = NULL;
    int i;
    for (i = 0; i < 4; i++) {
        muon.energy = bad[i];
        CHECK(sim_run(w, 0, &muon, &event, NULL) == CALOMU_EUSAGE, "energy %g", bad[i]);
    }
    muon.energy = 100;
    muon.charge = 0;
    CHECK(sim_run(w, 0, &muon, &event, NULL) == CALOMU_EUSAGE, "charge 0");
    muon.charge = 1;
    muon.x = 61;
    CHECK(sim_run(w, 0, &muon, &event, NULL) == CALOMU_EUSAGE, "beside the face");
    CHECK(sim_shower(w, 0, SIM_PHOTON, 1, 0, 0, 3000, &event, NULL) == CALOMU_EUSAGE, "behind");
    o.geometry.nx = 0;
    CHECK(sim_new(NULL, &o, &none, &why) == CALOMU_EUSAGE && !none && *why, "no cells");
    o = sim_options_default();
    o.active = (double)NAN;
    CHECK(sim_new(NULL, &o, &none, &why) == CALOMU_EUSAGE && !none && *why, "active share");
    sim_free(NULL);
    sim_worker_free(NULL);
    sim_worker_free(w);
}

/* Every allocation that can fail fails in turn: an error, and nothing is kept. */
static void test_memory(void)
{
    static const long left[] = { 0, 1, 2, 3, 4, 5, 6, 500 };
    calomu_options hooks = { 0 };
    sim_options o = sim_options_default();
    counter c;
    sim *s;
    sim_worker *w = NULL;
    size_t i;
    hooks.allocate = count_allocate;
    hooks.release = count_release;
    hooks.user = &c;
    for (i = 0; i < sizeof left / sizeof left[0]; i++) {
        c.left = left[i];
        c.held = 0;
        CHECK(sim_new(&hooks, &o, &s, NULL) == CALOMU_EMEMORY && !s, "%ld allocations", left[i]);
        CHECK(c.held == 0, "%ld blocks are kept", c.held);
    }
    o.library = 0;
    for (i = 1; i < 4; i++) {
        c.left = (long)i;
        c.held = 0;
        CHECK(sim_new(&hooks, &o, &s, NULL) == CALOMU_OK, "tables only");
        CHECK(sim_worker_new(s, &w) == CALOMU_EMEMORY && !w, "a worker with %zu", i - 1);
        sim_free(s);
        CHECK(c.held == 0, "%ld blocks are kept", c.held);
    }
}

int main(int argc, char **argv)
{
    sim *m, *l;
    test_begin(argc, argv);
    test_arithmetic();
    test_variates();
    test_deflection();
    m = make(0, 1, 1);
    l = make(1, 1, 1);
    test_cross_sections(m);
    test_b_values(m);
    test_rates(m);
    test_compton(m);
    test_moller(m);
    test_bremsstrahlung(m);
    test_scattering(m);
    test_steps(m);
    test_frame(m);
    test_transfers(m);
    test_mean_loss(m);
    test_straggling(m);
    test_muon_moves(m);
    test_showers(m, l);
    test_muons(l);
    test_reproducible(l);
    test_seeds();
    test_options();
    test_gaps(l);
    test_photonuclear(l);
    test_misuse(m);
    test_memory();
    sim_free(m);
    sim_free(l);
    return test_end("simulate");
}
