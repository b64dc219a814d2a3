/* photon.h - photons: Compton, pairs, photoelectric */
#ifndef SIM_PHOTON_H
#define SIM_PHOTON_H

#include "block.h"

#define SIM_PHOTON_LOW 0.06          /* MeV: absorbed on the spot below */

/* Compton scattering per atom, cm2; empirical fit of [PRM, Compton scattering]. */
static double sim_compton_atom(double z, double energy)
{
    static const double d[] = { 0.27965, -0.18300, 6.7527, -19.798 };
    static const double e[] = { 1.9756e-5, -1.0205e-2, -7.3913e-2, 2.7079e-2 };
    static const double f[] = { -3.9178e-7, 6.8241e-5, 6.0480e-5, 3.0274e-4 };
    double x = (energy > 0.015 ? energy : 0.015) / SIM_ME, p[4];
    int i;
    for (i = 0; i < 4; i++) p[i] = z * (d[i] + z * (e[i] + z * f[i]));
    return 1e-24 * (p[0] * sim_log(1 + 2 * x) / x + (p[1] + x * (p[2] + x * p[3]))
                    / (1 + x * (20 + x * (230 + x * 440))));
}

static double sim_polynomial(const double *c, int n, double x)
{
    double p = c[n - 1];
    while (--n > 0) p = p * x + c[n - 1];
    return p;
}

/* Pair production per atom, cm2; fit of [PRM, gamma conversion] to Hubbell's data. */
static double sim_pair_atom(double z, double energy)
{
    static const double f1[] = { 878.42, -1962.5, 1294.9, -200.28, 12.575, -0.28333 };
    static const double f2[] = { -10.342, 17.692, -8.2381, 1.3063, -0.090815, 0.0023586 };
    static const double f3[] = { -452.63, 1116.1, -867.49, 217.73, -20.467, 0.65372 };
    double e = energy < 1.5 ? 1.5 : energy > 1e5 ? 1e5 : energy, x = sim_log(e / SIM_ME), y, s;
    if (energy <= 2 * SIM_ME) return 0;
    s = (z + 1) * z * (sim_polynomial(f1, 6, x) + z * sim_polynomial(f2, 6, x)
                       + sim_polynomial(f3, 6, x) / z);
    y = energy < 1.5 ? (energy - 2 * SIM_ME) / (1.5 - 2 * SIM_ME) : 1;
    return s > 0 ? 1e-30 * s * y * y : 0;
}

/* Photoelectric effect, per cm: coefficients of Biggs and Lighthill (SAND87-0070, 1988) by
   intervals of energy (keV), cm2/g. */
static double sim_photoelectric(double energy)
{
    static const struct { double weight, from, c[4]; } row[] = {
        { 0.140642, 4.0, { 2.745, -174.7, 7159, -2213 } },
        { 0.140642, 20, { .03774, -15.59, 4045, 18100 } },
        { 0.140642, 100, { 3.169e-3, -1.146, 2194, 91310 } },
        { 0.140642, 500, { 1.367e-3, 1.473, 721.4, 4.048e5 } },
        { 0.404011, 10.204, { -62.06, 4525, 2.194e5, -1.223e5 } },
        { 0.404011, 11.541, { -121.1, 10580, 2.701e5, -2.556e5 } },
        { 0.404011, 12.098, { -21.05, 4623, 5.109e5, -1.835e6 } },
        { 0.404011, 69.525, { 5.276, 2999, 4.828e6, -1.030e8 } },
        { 0.404011, 500, { 3.099, 6112, 3.348e6, 1.310e8 } },
        { 0.455347, 13.035, { -71.25, 7126, 2.931e5, -2.779e5 } },
        { 0.455347, 15.2, { -136.3, 19920, 2.721e5, -4.887e5 } },
        { 0.455347, 15.861, { -8.206, 4058, 7.950e5, -4.115e6 } },
        { 0.455347, 88.004, { 7.595, 4692, 6.429e6, -1.747e8 } },
        { 0.455347, 500, { 4.240, 8883, 4.754e6, 3.448e7 } }
    };
    double k = energy * 1000, sum = 0;
    size_t i, n = sizeof row / sizeof row[0];
    if (k < 16) k = 16;
    for (i = 0; i < n; i++) {
        const double *c = row[i].c;
        if (k < row[i].from) continue;
        if (i + 1 < n && row[i + 1].weight == row[i].weight && k >= row[i + 1].from) continue;
        sum += row[i].weight * (c[0] + (c[1] + (c[2] + c[3] / k) / k) / k) / k;
    }
    return sum * SIM_DENSITY;
}

static void sim_photon_table(sim *s)
{
    int i, k;
    for (i = 0; i < SIM_NODES; i++) {
        double e = sim_node_energy(i);
        sim_photon_node *n = &s->photon[i];
        n->photo = n->compton = n->total = sim_photoelectric(e);
        for (k = 0; k < SIM_ELEMENTS; k++) {
            double compton = s->element[k].n * sim_compton_atom(s->element[k].z, e);
            n->compton += compton;
            n->total += compton + s->element[k].n * sim_pair_atom(s->element[k].z, e);
        }
    }
}

/* Klein-Nishina, sampled as in [PRM] (Butcher and Messel): the new energy's share h of the old. */
static double sim_compton_share(sim_random *r, double e0, double *one_minus_cos)
{
    double h0 = 1 / (1 + 2 * e0), a1 = -sim_log(h0), a2 = a1 + (1 - h0 * h0) / 2, h, q;
    do {
        if (sim_uniform(r) * a2 < a1) h = sim_exp(-a1 * sim_uniform(r));
        else h = sqrt(h0 * h0 + (1 - h0 * h0) * sim_uniform(r));
        q = (1 - h) / (h * e0);
    } while (sim_uniform(r) > 1 - h * q * (2 - q) / (1 + h * h));
    *one_minus_cos = q;
    return h;
}

/* The photon goes on with what is left; its electron goes on the stack. */
static void sim_compton(sim_worker *w, sim_particle *p)
{
    double q, h = sim_compton_share(&w->random, p->energy / SIM_ME, &q), e = p->energy;
    double t = e * (1 - h), phi = sim_uniform(&w->random), cosine = 1 - q;
    sim_vector before = p->to, d;
    sim_deflect(&p->to, cosine, sim_sine(cosine), phi);
    p->energy = e * h;
    if (t < 0.02) {
        sim_deposit(w, &p->at, t);
        return;
    }
    d.x = e * before.x - p->energy * p->to.x;
    d.y = e * before.y - p->energy * p->to.y;
    d.z = e * before.z - p->energy * p->to.z;
    q = 1 / sqrt(d.x * d.x + d.y * d.y + d.z * d.z);
    d.x *= q;
    d.y *= q;
    d.z *= q;
    sim_push(w, SIM_ELECTRON, t, &p->at, &d);
}

/* Angle of pairs and bremsstrahlung, th = a m_e/E with the spectrum of [T74] as sampled in [PRM]:
   returns 1 - cos. */
static double sim_tsai_angle(sim_random *r, double total)
{
    double most = 2 * total / SIM_ME, a, c;
    do {
        a = -sim_log(sim_uniform(r) * sim_uniform(r))
            * (sim_uniform(r) < 0.25 ? 1.6 : 1.6 / 3);
    } while (a > most);
    c = a / most;
    return 2 * c * c;
}

/* Screening functions of [PRM, gamma conversion] and what is taken off them. */
static double sim_screen(int second, double d)
{
    if (d > 1.4) return 42.038 - 8.29 * sim_log(d + 0.958);
    return second ? 41.326 - d * (5.848 - 0.902 * d) : 42.184 - d * (7.444 - 1.623 * d);
}

/* Share of the energy that the electron of a pair takes: Bethe-Heitler with screening and Coulomb
   correction [PRM], rejection from two powers. */
static double sim_pair_share(sim_worker *w, double energy)
{
    sim_random *r = &w->random;
    const sim_element *el = &w->s->element[sim_uniform(r) < 0.544 ? 2 : 1];
    double e0 = SIM_ME / energy, fz, df, dmin, dmax, h1, hm, range, n1, n2, h, d, weight, g1, g2;
    if (energy < 2) return e0 + (0.5 - e0) * sim_uniform(r);
    fz = 8.0 / 3 * el->log_z + (energy > 50 ? 8 * el->fc : 0);
    df = 136 * e0 * el->z13;
    dmin = 4 * df;
    dmax = sim_exp((42.038 - fz) / 8.29) - 0.958;
    h1 = dmin < dmax ? 0.5 - 0.5 * sqrt(1 - dmin / dmax) : 0.5;
    hm = e0 > h1 ? e0 : h1;
    range = 0.5 - hm;
    g1 = sim_screen(0, dmin) - fz;
    g2 = sim_screen(1, dmin) - fz;
    n1 = g1 > 0 ? g1 * range * range : 0;
    n2 = g2 > 0 ? 1.5 * g2 : 0;
    if (!(n1 + n2 > 0)) return 0.5;
    do {
        if (sim_uniform(r) * (n1 + n2) < n1) {
            h = 0.5 - range * sim_power(sim_uniform(r), 1.0 / 3);
            d = df / (h * (1 - h));
            weight = (sim_screen(0, d) - fz) / g1;
        } else {
            h = hm + range * sim_uniform(r);
            d = df / (h * (1 - h));
            weight = (sim_screen(1, d) - fz) / g2;
        }
    } while (weight < sim_uniform(r));
    return h;
}

static void sim_make_pair(sim_worker *w, const sim_particle *p)
{
    sim_random *r = &w->random;
    double h = sim_pair_share(w, p->energy), e1, e2, q, phi = sim_uniform(r), back;
    sim_vector d;
    if (sim_uniform(r) < 0.5) h = 1 - h;
    e1 = h * p->energy;
    e2 = p->energy - e1;
    back = phi < 0.5 ? phi + 0.5 : phi - 0.5;
    d = p->to;
    q = 1 - sim_tsai_angle(r, e1);
    sim_deflect(&d, q, sim_sine(q), phi);
    sim_push(w, SIM_ELECTRON, e1 - SIM_ME, &p->at, &d);
    d = p->to;
    q = 1 - sim_tsai_angle(r, e2);
    sim_deflect(&d, q, sim_sine(q), back);
    sim_push(w, SIM_POSITRON, e2 - SIM_ME, &p->at, &d);
}

/* The binding energy stays here (no fluorescence); the electron's direction as for relativistic
   energies, cos = (c + beta)/(1 + beta c), c uniform. */
static void sim_photo_effect(sim_worker *w, const sim_particle *p)
{
    sim_random *r = &w->random;
    int lead = sim_uniform(r) < 0.55;
    double k = lead ? 0.0880 : 0.0695, l = lead ? 0.0158 : 0.0120;
    double bound = p->energy > k ? k : l, t = p->energy - bound, beta, c;
    sim_vector d = p->to;
    if (t < 0.02) {
        sim_deposit(w, &p->at, p->energy);
        return;
    }
    sim_deposit(w, &p->at, bound);
    beta = sqrt(t * (t + 2 * SIM_ME)) / (t + SIM_ME);
    c = 2 * sim_uniform(r) - 1;
    c = (c + beta) / (1 + beta * c);
    sim_deflect(&d, c, sim_sine(c), sim_uniform(r));
    sim_push(w, SIM_ELECTRON, t, &p->at, &d);
}

static void sim_follow_photon(sim_worker *w, sim_particle *p)
{
    while (p->energy >= SIM_PHOTON_LOW) {
        sim_place at = sim_find(p->energy);
        const sim_photon_node *n = &w->s->photon[at.i];
        double total = n[0].total + at.f * (n[1].total - n[0].total), u;
        p->at = sim_ahead(&p->at, &p->to, sim_exponential(&w->random) / total);
        if (!sim_inside(w, &p->at)) {
            w->leaked += p->energy;
            return;
        }
        u = sim_uniform(&w->random) * total;
        if (u < n[0].photo + at.f * (n[1].photo - n[0].photo)) {
            sim_photo_effect(w, p);
            return;
        }
        if (u >= n[0].compton + at.f * (n[1].compton - n[0].compton)) {
            sim_make_pair(w, p);
            return;
        }
        sim_compton(w, p);
    }
    sim_deposit(w, &p->at, p->energy);
}

#endif
