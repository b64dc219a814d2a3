/* muon.h - the muon: cross-sections, tables, transport */
#ifndef SIM_MUON_H
#define SIM_MUON_H

#include "nuclear.h"

static double sim_tmax(double e)     /* largest transfer to an electron [PDG] */
{
    double g = e / SIM_MMU, r = SIM_ME / SIM_MMU;
    return 2 * SIM_ME * (g * g - 1) / (1 + 2 * g * r + r * r);
}

/* Radiative correction to knock-on electrons (Kokoulin, as in [PRM, muon ionisation]). */
static double sim_knock_correction(double e, double t)
{
    double a1 = sim_log(1 + 2 * t / SIM_ME), a3 = sim_log(4 * e * (e - t) / (SIM_MMU * SIM_MMU));
    return SIM_ALPHA / (2 * SIM_PI) * a1 * (a3 - a1);
}

/* dN/dT dx of electrons knocked on by a muon of total energy e, per cm and MeV [PDG, PRM]. */
static double sim_delta_spectrum(double e, double t)
{
    double g = e / SIM_MMU, b2 = 1 - 1 / (g * g), tmax = sim_tmax(e);
    double shape = 1 - b2 * t / tmax + t * t / (2 * e * e);
    if (t > tmax) return 0;
    return SIM_KD / b2 / (t * t) * shape * (1 + (t > 0.1 ? sim_knock_correction(e, t) : 0));
}

/* dE/dx by transfers below `cut`, MeV/cm [PDG, PRM]; the correction's integral over ln T from
   0.1 MeV by midpoints. */
static double sim_muon_dedx(double e, double cut)
{
    enum { N = 64 };
    double g = e / SIM_MMU, b2 = 1 - 1 / (g * g), tmax = sim_tmax(e), tc = cut < tmax ? cut : tmax;
    double sum = 0, step = sim_log(tc / 0.1) / N, t;
    int i;
    for (i = 0; i < N && step > 0; i++) {
        t = 0.1 * sim_exp((i + 0.5) * step);
        sum += (1 - b2 * t / tmax + t * t / (2 * e * e)) * sim_knock_correction(e, t) * step;
    }
    return SIM_KD / b2 * (sim_log(2 * SIM_ME * (g * g - 1) * tc / (SIM_I * SIM_I))
                          - b2 * (1 + tc / tmax) + tc / (2 * e) * (tc / (2 * e))
                          - sim_density(g * g - 1) + sum);
}

/* Bremsstrahlung per atom, cm2/MeV [KKP 1997; PRM, muon bremsstrahlung]. */
static double sim_muon_brem(const sim_element *el, double e, double k)
{
    double v = k / e, d = SIM_MMU * SIM_MMU * v / (2 * (e - k)), q = SIM_SQRT_E;
    double dn = 1.54 * sim_power(el->a, 0.27), dp = sim_power(dn, 1 - 1 / el->z);
    double x = 183 * el->z13, y = 1429 * el->z13 * el->z13, c, fn, fe = 0;
    if (k >= e - SIM_MMU) return 0;
    fn = sim_log(x * (SIM_MMU + d * (dp * q - 2)) / (dp * (SIM_ME + d * q * x)));
    if (k < e / (1 + SIM_MMU * SIM_MMU / (2 * SIM_ME * e)))
        fe = sim_log(y * SIM_MMU / ((1 + d * SIM_MMU / (SIM_ME * SIM_ME * q))
                                    * (SIM_ME + d * q * y)));
    c = SIM_RE * SIM_ME / SIM_MMU;
    return 16.0 / 3 * SIM_ALPHA * c * c / k * (1 - v + 0.75 * v * v) * el->z
        * (el->z * (fn > 0 ? fn : 0) + (fe > 0 ? fe : 0));
}

typedef struct sim_pairs { double z13, b, xi0, k, eps; } sim_pairs;

/* The integrand over the pair's asymmetry [KKP 1971; PRM, muon pair production], notation there. */
static double sim_muon_pair_at(const sim_pairs *c, double asymmetry2)
{
    double p2 = asymmetry2, b = c->b, xi = c->xi0 * (1 - p2), r = SIM_MMU / SIM_ME;
    double ye = (4 * b + 5 + (4 * b - 1) * p2)
              / ((6 * b + 2) * sim_log(3 + 1 / xi) + (2 * b - 1) * p2 - 4 * b);
    double ym = ((6 * b + 2) * (1 + p2) + 6)
              / ((4 * b + 3) * (1 + p2) * sim_log(3 + xi) + 2 - 3 * p2);
    double s = 2 * SIM_ME * SIM_SQRT_E * 183 * c->z13 * (1 + xi) / (c->eps * (1 - p2));
    double x = (1 + xi) * (1 + ye), m = 1.5 / (c->z13 * r), be, bm, le, lm;
    if (xi > 1000) be = 0.5 * (3 - p2 + 2 * b * (1 + p2)) / xi;
    else be = ((2 + p2) * (1 + b) + xi * (3 + p2)) * sim_log(1 + 1 / xi)
            + (1 - p2 - b) / (1 + xi) - (3 + p2);
    if (xi < 0.001) bm = 0.5 * (5 - p2 + b * (3 + p2)) * xi;
    else bm = ((1 + p2) * (1 + 1.5 * b) - (1 + 2 * b) * (1 - p2) / xi) * sim_log(1 + xi)
            + xi * (1 - p2 - b) / (1 + xi) + (1 + 2 * b) * (1 - p2);
    le = sim_log(183 * c->z13 * sqrt(x) / (1 + s * (1 + ye))) - 0.5 * sim_log(1 + m * m * x);
    lm = sim_log(2.0 / 3 * 183 * r * c->z13 * c->z13 / (1 + s * (1 + ym)));
    return (le * be > 0 ? le * be : 0) + (lm * bm > 0 ? lm * bm : 0) / (r * r);
}

/* Contribution of atomic electrons, as a shift of Z. */
static double sim_pair_zeta(const sim_element *el, double e)
{
    double z1 = e / (SIM_MMU + 1.95e-5 * e / (el->z13 * el->z13));
    double z2 = e / (SIM_MMU + 5.3e-5 * e / el->z13);
    if (z1 <= 35.221047) return 0;
    return (0.073 * sim_log(z1) - 0.26) / (0.058 * sim_log(z2) - 0.14);
}

/* Pair production per atom, cm2/MeV, pair energy eps; integral over t = ln(1 - asymmetry) by
   8-point Gauss-Legendre. */
static double sim_muon_pair(const sim_element *el, double e, double eps)
{
    static const double node[] = { 0.1834346424956498, 0.5255324099163290, 0.7966664774136267,
                                   0.9602898564975363 };
    static const double weight[] = { 0.3626837833783620, 0.3137066458778873, 0.2223810344533745,
                                     0.1012285362903763 };
    double left = e - eps, r0, tmin, sum = 0, c;
    sim_pairs p;
    int i, side;
    if (eps <= 4 * SIM_ME || left <= 0.75 * SIM_SQRT_E / el->z13 * SIM_MMU) return 0;
    r0 = sqrt(1 - 4 * SIM_ME / eps);
    tmin = 4 * SIM_ME / eps / (1 + r0) + 6 * SIM_MMU * SIM_MMU * r0 / (e * left);
    if (tmin >= 1) return 0;
    tmin = sim_log(tmin);
    p.z13 = el->z13;
    p.eps = eps;
    p.b = eps * eps / (2 * e * left);
    p.xi0 = SIM_MMU * SIM_MMU / (SIM_ME * SIM_ME) * p.b / 2;
    for (i = 0; i < 4; i++)
        for (side = -1; side <= 1; side += 2) {
            double share = sim_exp(0.5 * tmin * (1 + side * node[i])), a = 1 - share;
            sum += weight[i] * share * sim_muon_pair_at(&p, a * a);
        }
    c = 2 * SIM_ALPHA * SIM_RE;
    return c * c / (3 * SIM_PI) * el->z * (el->z + sim_pair_zeta(el, e)) * left / (e * eps)
        * sum * -tmin / 2;
}

/* Photonuclear interaction per atom, cm2/MeV [BP; PRM, muon photonuclear interaction]. */
static double sim_muon_nuclear(const sim_element *el, double e, double eps)
{
    const double l2 = 0.4e6, l = 632.4555320336759;
    double g = eps / 1000, v = eps / e, u, d, f, s, atoms, m2 = SIM_MMU * SIM_MMU;
    if (eps < 200 || eps >= e - SIM_MP / 2) return 0;
    s = (49.2 + 11.1 * sim_log(g) + 151.8 / sqrt(g)) * 1e-30;
    atoms = 0.22 * el->a + 0.78 * sim_power(el->a, 0.89);
    u = e * e * (1 - v) / m2 * (1 + m2 * v * v / (l2 * (1 - v)));
    d = 1 + eps / l * (1 + l / (2 * SIM_MP) + eps / l);
    f = -(1 - v) + (1 - v + 0.5 * v * v * (1 + 2 * m2 / l2)) * sim_log(u / d);
    return f > 0 ? SIM_ALPHA / SIM_PI * atoms * s / eps * f : 0;
}

/* eps dSigma/d(eps), per cm. */
static double sim_muon_spectrum(const sim *s, int process, double e, double eps)
{
    double sum = 0;
    int i;
    if (process == SIM_DELTA) return eps * sim_delta_spectrum(e, eps);
    for (i = 0; i < SIM_ELEMENTS; i++) {
        const sim_element *el = &s->element[i];
        sum += el->n * (process == SIM_BREM ? sim_muon_brem(el, e, eps)
                        : process == SIM_PAIR ? sim_muon_pair(el, e, eps)
                        : sim_muon_nuclear(el, e, eps));
    }
    return eps * sum;
}

/* Range of the transfer, MeV, at total energy e (oxygen has the widest one for pairs). */
static void sim_transfers(const sim *s, int process, double e, double *low, double *high)
{
    switch (process) {
    case SIM_DELTA: *low = SIM_TCUT, *high = sim_tmax(e); break;
    case SIM_BREM: *low = SIM_KCUT, *high = e - SIM_MMU; break;
    case SIM_PAIR:
        *low = 4 * SIM_ME;
        *high = e - 0.75 * SIM_SQRT_E / s->element[0].z13 * SIM_MMU;
        break;
    default: *low = 200, *high = e - SIM_MP / 2; break;
    }
}

#define SIM_MU_LOW 1e3               /* nodes from 1 GeV to 10 TeV, evenly in ln E */
#define SIM_MU_SPAN 9.210340371976184

static void sim_muon_entry(sim *s, int i)
{
    sim_muon_node *n = &s->muon[i];
    double e = SIM_MU_LOW * sim_exp(SIM_MU_SPAN * i / (SIM_MU_NODES - 1)), low, high, step;
    int p, k;
    n->dedx = sim_muon_dedx(e, SIM_TCUT);
    for (p = 0; p < SIM_PROCESSES; p++) {
        sim_transfers(s, p, e, &low, &high);
        n->low[p] = sim_log(low);
        n->high[p] = high > low ? sim_log(high) : n->low[p];
        step = (n->high[p] - n->low[p]) / SIM_MU_BINS;
        n->sum[p][0] = 0;
        for (k = 0; k < SIM_MU_BINS; k++) {
            double eps = sim_exp(n->low[p] + (k + 0.5) * step);
            n->sum[p][k + 1] = n->sum[p][k] + step * sim_muon_spectrum(s, p, e, eps);
        }
        if (p == SIM_NUCLEAR && !s->options.photonuclear) memset(n->sum[p], 0, sizeof n->sum[p]);
    }
}

static void sim_muon_table(sim *s)
{
    int i;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(s->memory.threads)
#endif
    for (i = 0; i < SIM_MU_NODES; i++) {
        calomu_modes host;
        (void)calomu_modes_set(&host);
        sim_muon_entry(s, i);
        calomu_modes_restore(&host);
    }
}

/* ---- transport */

typedef struct sim_flight {
    double e;                        /* total energy */
    double charge;
    sim_vector at, to;
} sim_flight;

static sim_place sim_muon_place(double e)
{
    double x = sim_log(e / SIM_MU_LOW) / SIM_MU_SPAN * (SIM_MU_NODES - 1);
    sim_place p;
    x = x < 0 ? 0 : x > SIM_MU_NODES - 1 ? SIM_MU_NODES - 1 : x;
    p.i = (int)x < SIM_MU_NODES - 2 ? (int)x : SIM_MU_NODES - 2;
    p.f = x - p.i;
    return p;
}

static double sim_muon_rate(const sim *s, sim_place at, int process)
{
    double a = s->muon[at.i].sum[process][SIM_MU_BINS];
    return a + at.f * (s->muon[at.i + 1].sum[process][SIM_MU_BINS] - a);
}

/* A transfer: the cumulative of one of the two nodes, chosen by nearness, stretched to the limits
   of the true energy. */
static double sim_muon_transfer(sim_worker *w, sim_place at, int process, double e)
{
    const sim_muon_node *n = &w->s->muon[at.i + (sim_uniform(&w->random) < at.f)];
    const double *sum = n->sum[process];
    double u = sim_uniform(&w->random) * sum[SIM_MU_BINS], low, high, x;
    int a = 0, b = SIM_MU_BINS, m;
    sim_transfers(w->s, process, e, &low, &high);
    if (high <= low) return 0;
    while (b - a > 1) {
        m = (a + b) / 2;
        if (sum[m] <= u) a = m;
        else b = m;
    }
    x = sum[b] > sum[a] ? (u - sum[a]) / (sum[b] - sum[a]) : 0.5;
    x = (a + x) / SIM_MU_BINS;
    x = low * sim_power(high / low, x);
    return x < high ? x : high;
}

/* Loss below the threshold on a step: collisions above 50 keV one by one from 1/T^2, the rest a
   gamma variate with the right mean and variance. */
static double sim_muon_soft_loss(sim_worker *w, double step, double dedx)
{
    const double t1 = 0.05, inverse = 1 / t1 - 1 / SIM_TCUT;
    double mean = (dedx - SIM_KD * sim_log(SIM_TCUT / t1)) * step, variance = SIM_KD * step * t1;
    double loss = variance / mean * sim_gamma(&w->random, mean * mean / variance);
    int n = sim_poisson(&w->random, SIM_KD * step * inverse);
    while (n-- > 0) loss += 1 / (1 / t1 - sim_uniform(&w->random) * inverse);
    return loss;
}

/* Moves by a step: bending by the field along y and multiple scattering [PDG, Highland with the
   depth of the whole block so that steps add up]. */
static void sim_muon_move(sim_worker *w, sim_flight *f, double step)
{
    sim_random *r = &w->random;
    double kappa = 0.299792458e-2 * w->s->options.geometry.field * f->charge / (f->e * 1e-3);
    double depth = w->s->size[2] > SIM_X0 ? w->s->size[2] / SIM_X0 : 1;
    double theta = 13.6 / f->e * sqrt(step / SIM_X0) * (1 + 0.038 * sim_log(depth));
    double a = sim_gauss(r), b = sim_gauss(r), c = sim_gauss(r), d = sim_gauss(r), u, v, s2;
    u = f->to.x + theta * b - kappa * step;
    v = f->to.y + theta * d;
    f->at = sim_ahead(&f->at, &f->to, step);
    f->at.x += step * (theta * (a * 0.28867513459481287 + b / 2) - kappa * step / 2);
    f->at.y += step * theta * (c * 0.28867513459481287 + d / 2);
    s2 = 1 - u * u - v * v;
    f->to.z = s2 > 0.01 ? sqrt(s2) : 0.1;
    s2 = 1 / sqrt(u * u + v * v + f->to.z * f->to.z);
    f->to.x = u * s2;
    f->to.y = v * s2;
    f->to.z *= s2;
}

static void sim_muon_delta(sim_worker *w, const sim_flight *f, double t)
{
    double p = sqrt(f->e * f->e - SIM_MMU * SIM_MMU);
    double c = t * (f->e + SIM_ME) / (p * sqrt(t * (t + 2 * SIM_ME)));
    sim_vector d = f->to;
    c = c < 1 ? c : 1;
    sim_deflect(&d, c, sim_sine(c), sim_uniform(&w->random));
    sim_cascade(w, SIM_ELECTRON, t, &f->at, &d);
}

/* The pair shares the energy evenly within the kinematic limits [PRM]. */
static void sim_muon_make_pair(sim_worker *w, const sim_flight *f, double eps)
{
    double most = (1 - 6 * SIM_MMU * SIM_MMU / (f->e * (f->e - eps))) * sqrt(1 - 4 * SIM_ME / eps);
    double r = most > 0 ? most * (2 * sim_uniform(&w->random) - 1) : 0;
    sim_push(w, SIM_ELECTRON, 0.5 * eps * (1 - r) - SIM_ME, &f->at, &f->to);
    sim_push(w, SIM_POSITRON, 0.5 * eps * (1 + r) - SIM_ME, &f->at, &f->to);
    sim_follow(w);
}

static void sim_muon_interact(sim_worker *w, sim_flight *f)
{
    sim_place at = sim_muon_place(f->e);
    double rate[SIM_PROCESSES], sum = 0, u, eps;
    int p;
    for (p = 0; p < SIM_PROCESSES; p++) sum += rate[p] = sim_muon_rate(w->s, at, p);
    u = sim_uniform(&w->random) * sum;
    for (p = 0; p < SIM_PROCESSES - 1 && u >= rate[p]; p++) u -= rate[p];
    eps = sim_muon_transfer(w, at, p, f->e);
    if (eps <= 0) return;
    switch (p) {
    case SIM_DELTA: sim_muon_delta(w, f, eps); break;
    case SIM_BREM: sim_cascade(w, SIM_PHOTON, eps, &f->at, &f->to); break;
    case SIM_PAIR: sim_muon_make_pair(w, f, eps); break;
    default: sim_hadron_cascade(w, eps, &f->at, &f->to); break;
    }
    f->e -= eps;
}

#define SIM_MUON_LOW 50              /* MeV of kinetic energy: the rest of the range at 15 MeV/cm */

static void sim_muon_stop(sim_worker *w, sim_flight *f)
{
    double t = f->e - SIM_MMU;
    sim_deposit_line(w, &f->at, &f->to, t / 15, t);
    f->e = SIM_MMU;
}

/* Length of the straight line to the face it leaves by, and a little more (0.1 nm). */
static double sim_muon_exit(const sim_worker *w, const sim_flight *f)
{
    const double at[3] = { f->at.x, f->at.y, f->at.z }, to[3] = { f->to.x, f->to.y, f->to.z };
    double least = 1e30, t;
    int i;
    for (i = 0; i < 3; i++) {
        if (fabs(to[i]) < 1e-12) continue;
        t = ((to[i] > 0 ? w->high[i] : w->low[i]) - at[i]) / to[i];
        least = t < least ? t : least;
    }
    return least + 1e-8;
}

/* Through the block.  Returns what the muon has lost, MeV. */
static double sim_muon_fly(sim_worker *w, sim_flight *f)
{
    double start = f->e;
    while (sim_inside(w, &f->at)) {
        sim_place at = sim_muon_place(f->e);
        double sum = 0, step, out, loss, dedx = w->s->muon[at.i].dedx;
        int p, interacts;
        if (f->e - SIM_MMU < SIM_MUON_LOW) {
            sim_muon_stop(w, f);
            break;
        }
        dedx += at.f * (w->s->muon[at.i + 1].dedx - dedx);
        for (p = 0; p < SIM_PROCESSES; p++) sum += sim_muon_rate(w->s, at, p);
        out = sim_muon_exit(w, f);
        step = sim_exponential(&w->random) / sum;
        interacts = step < 1 && step < out;
        if (!interacts) step = out < 1 ? out : 1;
        loss = sim_muon_soft_loss(w, step, dedx);
        if (loss > f->e - SIM_MMU) loss = f->e - SIM_MMU;
        sim_deposit_line(w, &f->at, &f->to, step, loss);
        sim_muon_move(w, f, step);
        f->e -= loss;
        if (interacts && sim_inside(w, &f->at)) sim_muon_interact(w, f);
    }
    return start - f->e;
}

#endif
