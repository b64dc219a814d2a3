/* electron.h - electrons and positrons: tables, sampling, steps */
#ifndef SIM_ELECTRON_H
#define SIM_ELECTRON_H

#include "photon.h"

#define SIM_ELECTRON_LOW 0.1         /* MeV: stopped below (range 0.03 mm) */
#define SIM_STEP_SHARE 0.04          /* steps: share of the range, */
#define SIM_STEP_LEAST 0.004         /*   but at least this, cm */
#define SIM_BREM_LOW 1.0             /* MeV: the relativistic spectrum does not hold below; no
                                        radiation there, as in the GEANT4 model */

/* F of the restricted loss [BS, PRM], tau = T/m_e, d = largest transfer/m_e, i = I/m_e. */
static double sim_loss_electron(double tau, double d)
{
    double g = tau + 1, b2 = tau * (tau + 2) / (g * g), i = SIM_I / SIM_ME;
    return sim_log(2 * (tau + 2) / (i * i)) - 1 - b2 + sim_log((tau - d) * d) + tau / (tau - d)
        + (d * d / 2 + (2 * tau + 1) * sim_log(1 - d / tau)) / (g * g);
}

static double sim_loss_positron(double tau, double d)
{
    double g = tau + 1, b2 = tau * (tau + 2) / (g * g), i = SIM_I / SIM_ME, y = 1 / (g + 1);
    double d2 = d * d / 2, d3 = d2 * d / 1.5, d4 = 0.75 * d3 * d;
    return sim_log(2 * (tau + 2) / (i * i)) + sim_log(tau * d)
        - b2 * (tau + 2 * d - y * (3 * d2 + y * (d - d3 + y * (d2 - tau * d3 + d4)))) / tau;
}

/* Bremsstrahlung of e+- [T74, PRM]: the bracket f(k) of one element; total energy e, photon k. */
static double sim_brem_shape(const sim_element *el, double e, double k)
{
    double y = k / e, d = 100 * SIM_ME * y / (e - k), ga = d * el->z13, ep = ga * el->z13, f;
    double ph1 = 16.863 - 2 * sim_log(1 + 0.311877 * ga * ga) + 2.4 * sim_exp(-0.9 * ga)
               + 1.6 * sim_exp(-1.5 * ga);
    double dph = 2 / (3 + ga * (19.5 + 18 * ga));
    double ps1 = 24.34 - 2 * sim_log(1 + 13.111641 * ep * ep) + 2.8 * sim_exp(-8 * ep)
               + 1.2 * sim_exp(-29.2 * ep);
    double dps = 2 / (3 + ep * (120 + 1200 * ep));
    f = (1 - y + 0.75 * y * y) * (ph1 / 4 - el->log_z / 3 - el->fc
                                  + (ps1 / 4 - 2 * el->log_z / 3) / el->z)
      + (1 - y) / 8 * (dph + dps / el->z);
    return f > 0 ? f : 0;
}

/* Dielectric suppression: momentum k_p = hw_p E/m_e. */
static double sim_dielectric(double e) { return 1.04300e-4 * e; }

/* k dSigma/dk per cm. */
static double sim_brem_spectrum(const sim *s, double e, double k)
{
    double sum = 0, kp = sim_dielectric(e);
    int i;
    for (i = 0; i < SIM_ELEMENTS; i++) {
        const sim_element *el = &s->element[i];
        sum += el->n * el->z * el->z * sim_brem_shape(el, e, k);
    }
    return 16.0 / 3 * SIM_ALPHA * SIM_RE * SIM_RE * sum / (1 + kp * kp / (k * k));
}

enum { SIM_QUADRATURE = 40 };        /* midpoints; the spectra are smooth */

/* Energy per cm that goes into photons below the threshold. */
static double sim_brem_soft(const sim *s, double t)
{
    double top = t < SIM_KCUT ? t : SIM_KCUT, sum = 0;
    int i;
    if (t < SIM_BREM_LOW) return 0;
    for (i = 0; i < SIM_QUADRATURE; i++)
        sum += sim_brem_spectrum(s, t + SIM_ME, top * (i + 0.5) / SIM_QUADRATURE);
    return sum * top / SIM_QUADRATURE;
}

static double sim_brem_hard(const sim *s, double t)
{
    double step, sum = 0;
    int i;
    if (t < SIM_BREM_LOW) return 0;
    step = sim_log(t / SIM_KCUT) / SIM_QUADRATURE;
    for (i = 0; i < SIM_QUADRATURE; i++)
        sum += sim_brem_spectrum(s, t + SIM_ME, SIM_KCUT * sim_exp((i + 0.5) * step));
    return sum * step;
}

/* Hard Moller and Bhabha collisions per cm [PRM, ionisation]. */
static double sim_moller_hard(double t)
{
    double g = t / SIM_ME + 1, b2 = 1 - 1 / (g * g), gg = (2 * g - 1) / (g * g);
    double xm = SIM_TCUT / t, xM = 0.5;
    if (xm >= xM) return 0;
    return SIM_KD / t / b2
        * ((xM - xm) * (1 - gg + 1 / (xm * xM) + 1 / ((1 - xm) * (1 - xM)))
           - gg * sim_log(xM * (1 - xm) / (xm * (1 - xM))));
}

typedef struct sim_bhabha { double b2, b[5]; } sim_bhabha;

static sim_bhabha sim_bhabha_of(double t)
{
    double g = t / SIM_ME + 1, y = 1 / (1 + g), y12 = 1 - 2 * y;
    sim_bhabha b;
    b.b2 = 1 - 1 / (g * g);
    b.b[0] = 0;
    b.b[1] = 2 - y * y;
    b.b[2] = y12 * (3 + y * y);
    b.b[4] = y12 * y12 * y12;
    b.b[3] = b.b[4] + y12 * y12;
    return b;
}

static double sim_bhabha_hard(double t)
{
    double xm = SIM_TCUT / t, xM = 1;
    sim_bhabha b = sim_bhabha_of(t);
    if (xm >= xM) return 0;
    return SIM_KD / t
        * ((xM - xm) * (1 / (b.b2 * xm * xM) + b.b[2] - b.b[3] * (xm + xM) / 2
                        + b.b[4] * (xm * xm + xm * xM + xM * xM) / 3)
           - b.b[1] * sim_log(xM / xm));
}

/* Annihilation in flight, per cm (Heitler; [PRM, positron annihilation]). */
static double sim_annihilation(double t)
{
    double g = t / SIM_ME + 1, g2 = g * g, root = sqrt(g2 - 1);
    return SIM_NE * SIM_PI * SIM_RE * SIM_RE
        * ((g2 + 4 * g + 1) * sim_log(g + root) - (g + 3) * root) / ((g2 - 1) * (g + 1));
}

/* Factor on Moliere's law: the transport cross-sections of partial-wave calculations (R. Mayol,
   F. Salvat, At. Data Nucl. Data Tables 65 (1997) 55, as parameterised in [PRM, Urban]: 113 b for
   lead and 91 b for tungsten at 10 MeV, above with 1/(beta gamma)^2) over what the law below gives
   with R and F.  Nodes in ln T. */
static double sim_scatter_scale(double t)
{
    static const double energy[] = { 1, 3, 10, 30 }, factor[] = { 1.16, 1.14, 1.11, 0.95 };
    int i;
    if (t <= energy[0]) return factor[0];
    for (i = 0; i < 3; i++)
        if (t < energy[i + 1])
            return factor[i] + (factor[i + 1] - factor[i]) * sim_log(t / energy[i])
                                   / sim_log(energy[i + 1] / energy[i]);
    return factor[3];
}

/* Screened Rutherford law summed over the elements [M48]: c, a and 1/lambda. */
static void sim_rutherford(const sim *s, double t, sim_electron_node *n)
{
    double p2 = t * (t + 2 * SIM_ME), b2 = p2 / ((t + SIM_ME) * (t + SIM_ME)), p = sqrt(p2);
    double log_a = 0, inverse = 0, sum = 0;
    int i;
    for (i = 0; i < SIM_ELEMENTS; i++) {
        const sim_element *el = &s->element[i];
        double r = SIM_RE * SIM_ME / (p * sqrt(b2)), radius = 0.88534 * 0.529177e-8 * el->z13;
        double c = el->n * 2 * SIM_PI * el->z * (el->z + 1) * r * r;
        double x = SIM_HBARC / (p * radius), az = SIM_ALPHA * el->z;
        double a = 0.25 * x * x * (1.13 + 3.76 * az * az / b2);
        sum += c;
        log_a += c * sim_log(a);
        inverse += c * (sim_log(1 + 1 / a) - 1 / (1 + a));
    }
    n->c = sim_scatter_scale(t) * sum;
    n->a = sim_exp(log_a / sum);
    n->lambda = 1 / (sim_scatter_scale(t) * inverse);
}

static void sim_electron_entry(const sim *s, int positron, double t, sim_electron_node *n)
{
    double tau = t / SIM_ME, g = tau + 1, b2 = tau * (tau + 2) / (g * g);
    double most = positron ? t : t / 2, d = (most < SIM_TCUT ? most : SIM_TCUT) / SIM_ME;
    double f = positron ? sim_loss_positron(tau, d) : sim_loss_electron(tau, d);
    n->dedx = SIM_KD / b2 * (f - sim_density(tau * (tau + 2))) + sim_brem_soft(s, t);
    n->ion = positron ? sim_bhabha_hard(t) : sim_moller_hard(t);
    n->brem = n->ion + sim_brem_hard(s, t);
    n->hard = n->brem + (positron ? sim_annihilation(t) : 0);
    sim_rutherford(s, t, n);
}

static void sim_electron_table(sim *s)
{
    int i, k;
    double sum;
    for (k = 0; k < 2; k++) {
        sim_electron_node *n = s->electron[k];
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 8) num_threads(s->memory.threads)
#endif
        for (i = 0; i < SIM_NODES; i++) {
            calomu_modes host;
            (void)calomu_modes_set(&host);
            sim_electron_entry(s, k, sim_node_energy(i), &n[i]);
            calomu_modes_restore(&host);
        }
        n[0].range = sim_node_energy(0) / n[0].dedx;
        for (i = 1; i < SIM_NODES; i++) {
            sum = 0.5 * (1 / n[i - 1].dedx + 1 / n[i].dedx);
            n[i].range = n[i - 1].range + sum * (sim_node_energy(i) - sim_node_energy(i - 1));
        }
    }
    sum = 0;
    for (k = 0; k < SIM_ELEMENTS; k++) {
        const sim_element *el = &s->element[k];
        double lz = sim_log(184.15 * el->z13) - el->fc + sim_log(1194 * el->z13 * el->z13) / el->z;
        sum += el->n * el->z * el->z * lz;
        s->choice[k] = sum;
    }
    for (k = 0; k < SIM_ELEMENTS; k++) s->choice[k] /= sum;
}

/* ---- sampling */

/* Energy of a bremsstrahlung photon: 1/k with dielectric suppression, then rejection by f(k). */
static double sim_brem_photon(sim_worker *w, double t)
{
    sim_random *r = &w->random;
    double u = sim_uniform(r), e = t + SIM_ME, kp2 = sim_dielectric(e) * sim_dielectric(e), k, top;
    const sim_element *el = w->s->element;
    double low = SIM_KCUT * SIM_KCUT + kp2, ratio = sim_log((t * t + kp2) / low);
    while (u > w->s->choice[el - w->s->element] && el < w->s->element + SIM_ELEMENTS - 1) el++;
    top = sim_log(184.15 * el->z13) - el->fc + sim_log(1194 * el->z13 * el->z13) / el->z
        + (1 + 1 / el->z) / 12;
    do {
        k = low * sim_exp(ratio * sim_uniform(r)) - kp2;
        k = k > SIM_KCUT * SIM_KCUT ? sqrt(k) : SIM_KCUT;
        if (k > t) k = t;
    } while (sim_brem_shape(el, e, k) < top * sim_uniform(r));
    return k;
}

static void sim_radiate(sim_worker *w, sim_particle *p)
{
    double k = sim_brem_photon(w, p->energy);
    double c = 1 - sim_tsai_angle(&w->random, p->energy + SIM_ME);
    sim_vector d = p->to;
    sim_deflect(&d, c, sim_sine(c), sim_uniform(&w->random));
    sim_push(w, SIM_PHOTON, k, &p->at, &d);
    p->energy -= k;
}

/* Energy of the knocked electron as a share of t: from 1/x^2, rejection by the rest. */
static double sim_moller_share(sim_random *r, double t)
{
    double g = t / SIM_ME + 1, gg = (2 * g - 1) / (g * g), xm = SIM_TCUT / t, xM = 0.5, x, y, top;
    y = 1 - xM;
    top = 1 - gg * xM + xM * xM * (1 - gg + (1 - gg * y) / (y * y));
    do {
        x = xm * xM / (xm + (xM - xm) * sim_uniform(r));
        y = 1 - x;
    } while (top * sim_uniform(r) > 1 - gg * x + x * x * (1 - gg + (1 - gg * y) / (y * y)));
    return x;
}

static double sim_bhabha_share(sim_random *r, double t)
{
    sim_bhabha b = sim_bhabha_of(t);
    double xm = SIM_TCUT / t, x, top;
    top = 1 + b.b2 * (b.b[4] - xm * xm * xm * b.b[3] + b.b[2] - xm * b.b[1]);
    do {
        x = xm / (xm + (1 - xm) * sim_uniform(r));
    } while (top * sim_uniform(r)
             > 1 + b.b2 * x * (x * (x * (x * b.b[4] - b.b[3]) + b.b[2]) - b.b[1]));
    return x;
}

/* Two-body kinematics: the electron knocked on by T of t goes off at cos = T(E + m)/(p_T p). */
static double sim_knock_cosine(double knocked, double t)
{
    double c = sqrt(knocked * (t + 2 * SIM_ME) / (t * (knocked + 2 * SIM_ME)));
    return c < 1 ? c : 1;
}

static void sim_knock(sim_worker *w, sim_particle *p)
{
    sim_random *r = &w->random;
    double t = p->energy, x = p->kind == SIM_POSITRON ? sim_bhabha_share(r, t)
                                                     : sim_moller_share(r, t);
    double knocked = x * t, phi = sim_uniform(r), c = sim_knock_cosine(knocked, t);
    sim_vector d = p->to;
    sim_deflect(&d, c, sim_sine(c), phi);
    sim_push(w, SIM_ELECTRON, knocked, &p->at, &d);
    p->energy = t - knocked;
    c = sim_knock_cosine(p->energy, t);
    sim_deflect(&p->to, c, sim_sine(c), phi < 0.5 ? phi + 0.5 : phi - 0.5);
}

/* Two photons; share e of one by rejection from 1/e (Heitler; [PRM]). */
static void sim_annihilate(sim_worker *w, const sim_particle *p)
{
    sim_random *r = &w->random;
    double g = p->energy / SIM_ME + 1, total = p->energy + 2 * SIM_ME, root = sqrt(g * g - 1);
    double low = 0.5 * (1 - sqrt((g - 1) / (g + 1))), high = 1 - low, e, c, q, momentum;
    sim_vector d = p->to, other;
    do {
        e = low * sim_power(high / low, sim_uniform(r));
    } while (sim_uniform(r) > 1 - e + (2 * g * e - 1) / (e * (g + 1) * (g + 1)));
    c = (e * (g + 1) - 1) / (e * root);
    c = c > 1 ? 1 : c < -1 ? -1 : c;
    sim_deflect(&d, c, sim_sine(c), sim_uniform(r));
    e *= total;
    momentum = root * SIM_ME;
    other.x = momentum * p->to.x - e * d.x;
    other.y = momentum * p->to.y - e * d.y;
    other.z = momentum * p->to.z - e * d.z;
    q = 1 / sqrt(other.x * other.x + other.y * other.y + other.z * other.z);
    other.x *= q;
    other.y *= q;
    other.z *= q;
    sim_push(w, SIM_PHOTON, e, &p->at, &d);
    sim_push(w, SIM_PHOTON, total - e, &p->at, &other);
}

static void sim_annihilate_at_rest(sim_worker *w, const sim_vector *at)
{
    sim_vector d = sim_isotropic(&w->random), back;
    back.x = -d.x;
    back.y = -d.y;
    back.z = -d.z;
    sim_push(w, SIM_PHOTON, SIM_ME, at, &d);
    sim_push(w, SIM_PHOTON, SIM_ME, at, &back);
}

/* What the Rutherford law lacks at large angles, s = sin(theta/2).  Spin and Coulomb distortion:
   R = 1 - beta^2 s^2 + beta s (1 - s) x(s), x = pi alpha Z in [MF48], which is for light nuclei;
   for lead Mott's series summed (N. Sherman, Phys. Rev. 103 (1956) 1601) gives, within 0.02 at 1 to
   10 MeV, x = 0.89 + 1.32 s for electrons and -1.24 + 4.4 (s - 0.45)^2 for positrons.  The size of
   the nucleus: |F|^2 = (1 + q^2 r^2/12)^-4, q = 2 p s, an exponential charge density of
   r = 1.27 A^0.27 fm [PRM, single scattering], mean of tungsten and lead. */
#define SIM_NUCLEUS 5.28e-13         /* cm */

typedef struct sim_law {
    double b, x0;                    /* beta, x(0) */
    double size;                     /* p^2 r^2/3 */
    int positron;
} sim_law;

static sim_law sim_law_of(double energy, int positron)
{
    double p2 = energy * (energy + 2 * SIM_ME), e = energy + SIM_ME;
    sim_law l;
    l.b = sqrt(p2) / e;
    l.x0 = positron ? -1.24 + 4.4 * 0.45 * 0.45 : 0.89;
    l.size = p2 * (SIM_NUCLEUS / SIM_HBARC) * (SIM_NUCLEUS / SIM_HBARC) / 3;
    l.positron = positron;
    return l;
}

#define SIM_LAW_TOP 1.2              /* more than R ever is */

static double sim_law_ratio(const sim_law *l, double mu)
{
    double s2 = mu / 2, s = sqrt(s2), f = 1 / (1 + l->size * s2), x;
    x = l->positron ? -1.24 + 4.4 * (s - 0.45) * (s - 0.45) : 0.89 + 1.32 * s;
    f *= f;
    return (1 - l->b * l->b * s2 + l->b * s * (1 - s) * x) * f * f;
}

/* Multiple scattering over a step: the screened Rutherford law (Moliere's), the collisions below
   mc in one soft deflection with their mean, the few above one by one. */
static void sim_scatter(sim_worker *w, sim_particle *p, double s, double c, double a)
{
    sim_random *r = &w->random;
    double sc = s * c, mc = sc < 1 ? sc : 1, a2 = 2 * a, mean, mu, most, least, sum, half;
    sim_law law = sim_law_of(p->energy, p->kind == SIM_POSITRON);
    half = sqrt(mc / 2);             /* the mean of mu with R, to first order in a: */
    mean = sc * (sim_log((mc + a2) / a2) - mc / (mc + a2)
                 + 2 * law.b * law.x0 * half - law.b * (law.x0 + law.b) * half * half);
    mean = mean < 0 ? 0 : mean < 0.3 ? mean : 1 - sim_exp(-mean);    /* < 0: the shortest steps */
    mu = mean * sim_exponential(r);
    if (mu > 2) mu = 2 * sim_uniform(r);
    sim_deflect(&p->to, 1 - mu, sqrt(mu * (2 - mu)), sim_uniform(r));
    most = 1 / (mc + a2);
    least = 1 / (2 + a2);
    sc *= SIM_LAW_TOP;
    for (sum = sim_exponential(r); sum < sc * (most - least); sum += sim_exponential(r)) {
        mu = 1 / (least + (most - least) * sim_uniform(r)) - a2;
        mu = mu < 0 ? 0 : mu > 2 ? 2 : mu;
        if (sim_uniform(r) * SIM_LAW_TOP > sim_law_ratio(&law, mu)) continue;
        sim_deflect(&p->to, 1 - mu, sqrt(mu * (2 - mu)), sim_uniform(r));
    }
}

static int sim_library_use(sim_worker *w, const sim_particle *p);

/* Steps as GEANT4 takes them (L. Urban's model of multiple scattering with its limit "UseSafety",
   [PRM]), because what electrons of 10 MeV do there depends on them: a step goes straight by its
   mean length, turns at its end and is displaced sideways, less than by the exact law, not at the
   walls of cells and not through them.  With fine steps and the exact law they spread 5% farther:
   10 MeV electrons have 5.6% more cells above 1 MeV. */

/* Share of the range that a step may take, set where a particle starts and behind each wall;
   ranges shorter than the mean free path count as that. */
static double sim_step_most(double range, double lambda)
{
    double share = SIM_STEP_SHARE * (lambda > 0.1 ? 0.75 + 0.25 * lambda / 0.1 : 1);
    return share * (range > lambda ? range : lambda);
}

/* Longest path of the next step; near: the nearest wall. */
static double sim_step_limit(sim_particle *p, double range, double lambda, double near)
{
    double loss = range > 0.1 ? 0.2 * range + 0.08 * (2 - 0.1 / range) : range, most;
    if (range < near) return range;              /* it cannot leave the cell */
    if (!(p->most > 0)) p->most = sim_step_most(range, lambda);
    most = p->most > 0.6 * near ? p->most : 0.6 * near;
    most = most > SIM_STEP_LEAST ? most : SIM_STEP_LEAST;
    return most < loss ? most : loss;
}

/* Sideways by 0.73 of what a path of `length` that ends `forward` cm ahead allows, but not as far
   as the nearest wall, towards the side to which the direction has turned from `before`, off it
   by an angle psi < pi of density exp(-2.16 psi). */
static void sim_displace(sim_worker *w, sim_particle *p, const sim_vector *before, double length,
                         double forward)
{
    sim_random *r = &w->random;
    double side = 0.73 * sqrt((length - forward) * (length + forward)), near, norm, psi, c, s;
    sim_vector e, f;
    if (!(side > 1e-4)) return;
    near = 0.99 * sim_nearest_wall(w, &p->at);
    side = side < near ? side : near;
    c = p->to.x * before->x + p->to.y * before->y + p->to.z * before->z;
    e.x = p->to.x - c * before->x;
    e.y = p->to.y - c * before->y;
    e.z = p->to.z - c * before->z;
    norm = sqrt(e.x * e.x + e.y * e.y + e.z * e.z);
    if (!(norm > 1e-9)) return;
    f.x = before->y * e.z - before->z * e.y;
    f.y = before->z * e.x - before->x * e.z;
    f.z = before->x * e.y - before->y * e.x;
    psi = -sim_log(1 - sim_uniform(r) * (1 - 0.0011292)) / 2.16;       /* exp(-2.16 pi) */
    sim_turn(psi / (2 * SIM_PI), &c, &s);
    if (sim_uniform(r) < 0.5) s = -s;
    p->at = sim_ahead(&p->at, &e, side / norm * c);
    p->at = sim_ahead(&p->at, &f, side / norm * s);
}

/* One step, `forward` cm straight ahead on a path of `length`.  Its loss is spread along it; it
   stays in one cell, but the cells of a shower for the library are not those it will be used in.
   0: the particle has left. */
static int sim_step(sim_worker *w, sim_particle *p, double length, double forward, double loss,
                    int wall, double c, double a)
{
    sim_vector before = p->to, at;
    int i, n = w->voxels ? 1 + (int)(forward / 0.05) : 1;
    for (i = 0; i < n; i++) {
        at = sim_ahead(&p->at, &before, forward * (i + 0.5) / n);
        sim_deposit(w, &at, loss / n);
    }
    p->energy -= loss;
    p->at = sim_ahead(&p->at, &before, forward);
    if (p->energy > 0) {
        sim_scatter(w, p, length, c, a);
        if (!wall) sim_displace(w, p, &before, length, forward);
    }
    if (sim_inside(w, &p->at)) return 1;
    w->leaked += p->energy + (p->kind == SIM_POSITRON ? 2 * SIM_ME : 0);
    return 0;
}

static double sim_between(double a, double b, double f) { return a + f * (b - a); }

/* Flies to the next hard collision.  0: stopped or left before it.  Rates and losses are those at
   the middle of a step: a step takes up to a fifth of the energy, and at its start the rate of
   bremsstrahlung is 5% higher. */
static int sim_fly(sim_worker *w, sim_particle *p)
{
    const sim_electron_node *table = w->s->electron[p->kind == SIM_POSITRON], *n;
    double left = sim_exponential(&w->random), length, range, lambda, middle, hard, out, forward;
    while (p->energy >= SIM_ELECTRON_LOW) {
        sim_place at = sim_find(p->energy);
        int collides, wall, stops;
        double loss;
        n = &table[at.i];
        range = sim_between(n[0].range, n[1].range, at.f);
        lambda = sim_between(n[0].lambda, n[1].lambda, at.f);
        length = sim_step_limit(p, range, lambda, sim_nearest_wall(w, &p->at));
        hard = sim_between(n[0].hard, n[1].hard, at.f);
        collides = length * hard > left;
        if (collides) length = left / hard;
        if (length > range) length = range;
        middle = p->energy - 0.5 * length * sim_between(n[0].dedx, n[1].dedx, at.f);
        at = sim_find(middle > 0 ? middle : 0.5 * p->energy);
        n = &table[at.i];
        hard = sim_between(n[0].hard, n[1].hard, at.f);
        if (collides) length = left / hard;
        lambda = sim_between(n[0].lambda, n[1].lambda, at.f);
        forward = lambda * (1 - sim_exp(-length / lambda));
        out = sim_next_wall(w, &p->at, &p->to);
        wall = out < forward;
        if (wall) {                  /* just behind the wall */
            forward = out + 1e-7;
            length = -lambda * sim_log(1 - forward / lambda);
            p->most = 0;
        }
        left -= length * hard;
        loss = length * sim_between(n[0].dedx, n[1].dedx, at.f);
        stops = length >= range || loss > p->energy;
        if (!sim_step(w, p, length, forward, stops ? p->energy : loss, wall,
                      sim_between(n[0].c, n[1].c, at.f), sim_between(n[0].a, n[1].a, at.f)))
            return 0;
        if (collides && !wall && !stops) return 1;
    }
    sim_deposit(w, &p->at, p->energy);
    if (p->kind == SIM_POSITRON) sim_annihilate_at_rest(w, &p->at);
    return 0;
}

static void sim_follow_electron(sim_worker *w, sim_particle *p)
{
    while (sim_fly(w, p)) {
        sim_place at = sim_find(p->energy);
        const sim_electron_node *n = &w->s->electron[p->kind == SIM_POSITRON][at.i];
        double u = sim_uniform(&w->random) * (n[0].hard + at.f * (n[1].hard - n[0].hard));
        if (u < n[0].ion + at.f * (n[1].ion - n[0].ion)) {
            if (p->energy > (p->kind == SIM_POSITRON ? 1 : 2) * SIM_TCUT) sim_knock(w, p);
        } else if (u < n[0].brem + at.f * (n[1].brem - n[0].brem)) {
            if (p->energy > SIM_KCUT) sim_radiate(w, p);
        } else if (p->kind == SIM_POSITRON) {
            sim_annihilate(w, p);
            return;
        }
        if (sim_library_use(w, p)) return;
    }
}

/* Follows everything on the stack until it is empty. */
static void sim_follow(sim_worker *w)
{
    while (w->n > 0) {
        sim_particle p = w->stack[--w->n];
        if (sim_library_use(w, &p)) continue;
        if (p.kind == SIM_PHOTON) sim_follow_photon(w, &p);
        else sim_follow_electron(w, &p);
    }
}

/* Starts one shower and follows it. */
static void sim_cascade(sim_worker *w, sim_kind kind, double energy, const sim_vector *at,
                        const sim_vector *to)
{
    sim_push(w, kind, energy, at, to);
    sim_follow(w);
}

#endif
