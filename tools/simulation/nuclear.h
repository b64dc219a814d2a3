/* nuclear.h - photonuclear events: a sketch of a hadronic cascade

   Plausible shares, not a model of nuclei: 1 to 2.4% of the mean loss, in 2 to 3.5% of the muons,
   goes this way.  */
#ifndef SIM_NUCLEAR_H
#define SIM_NUCLEAR_H

#include "library.h"

typedef struct sim_hadron {
    double energy;                   /* kinetic */
    int charged;
    sim_vector at, to;
} sim_hadron;

enum { SIM_HADRONS = 512 };

typedef struct sim_hadrons {
    int n;
    sim_hadron h[SIM_HADRONS];
} sim_hadrons;

/* Energy for the nucleus: local fragments, photons of 2 MeV, a halo of neutrons, binding. */
static void sim_evaporate(sim_worker *w, double energy, const sim_vector *at)
{
    sim_random *r = &w->random;
    double left = 0.175 * energy, e;
    sim_vector d, p;
    sim_deposit(w, at, 0.175 * energy);
    w->unseen += 0.40 * energy;
    for (; left > 0; left -= e) {
        e = left < 2 ? left : 2;
        d = sim_isotropic(r);
        sim_push(w, SIM_PHOTON, e, at, &d);
    }
    for (left = 0.25 * energy; left > 0; left -= e) {
        e = 0.5 + 3 * sim_uniform(r);
        e = left < e ? left : e;
        d = sim_isotropic(r);
        p = sim_ahead(at, &d, 8 * sim_exponential(r));
        sim_deposit(w, &p, e);
    }
}

/* One secondary: a neutral pion as two photons, or a hadron to follow. */
static void sim_secondary(sim_worker *w, sim_hadrons *h, double e, const sim_vector *at,
                          sim_vector d)
{
    sim_random *r = &w->random;
    double pt = 350 * sqrt(sim_exponential(r)) * (e < 300 ? sqrt(e / 300) : 1), u;
    double sine = pt / (e + 100);
    if (sine >= 1 || e < 60) d = sim_isotropic(r);
    else sim_deflect(&d, sqrt(1 - sine * sine), sine, sim_uniform(r));
    u = sim_uniform(r);
    if (u < 0.30 && e > 140) {
        double share = sim_uniform(r);
        sim_push(w, SIM_PHOTON, share * e, at, &d);
        sim_push(w, SIM_PHOTON, (1 - share) * e, at, &d);
    } else if (h->n < SIM_HADRONS) {
        sim_hadron *made = &h->h[h->n++];
        made->energy = e;
        made->charged = u < 0.85;
        made->at = *at;
        made->to = d;
    } else {
        sim_deposit(w, at, e);
    }
}

/* An interaction of energy `energy` at a point: nucleus and secondaries. */
static void sim_hadron_vertex(sim_worker *w, sim_hadrons *h, double energy, const sim_vector *at,
                              const sim_vector *to)
{
    sim_random *r = &w->random;
    double nuclear, share[40], sum = 0, u;
    int n, i;
    if (energy < 50) {
        sim_deposit(w, at, 0.7 * energy);
        w->unseen += 0.3 * energy;
        return;
    }
    nuclear = 150 + 0.10 * energy < 0.45 * energy ? 150 + 0.10 * energy : 0.45 * energy;
    nuclear *= 0.5 + sim_uniform(r);
    sim_evaporate(w, nuclear, at);
    energy -= nuclear;
    n = 1;
    if (energy >= 300)
        n = 2 + sim_poisson(r, 1.2 + (energy > 1000 ? 1.6 * sim_log(energy / 1000) : 0));
    if (n > 40) n = 40;
    for (i = 0; i < n; i++) {
        u = sim_exponential(r);
        share[i] = u * u;
        sum += share[i];
    }
    for (i = 0; i < n; i++) sim_secondary(w, h, energy * share[i] / sum, at, *to);
}

/* A hadron until it stops, leaves or interacts (22 cm); charged ones lose 10.4 MeV/cm, more below
   200 MeV. */
static void sim_follow_hadron(sim_worker *w, sim_hadrons *all, sim_hadron h)
{
    double left = 22 * sim_exponential(&w->random), step, loss;
    for (;;) {
        step = h.charged && left > 0.5 ? 0.5 : left;
        loss = 10.4 * (h.energy < 200 ? 1 + 0.3 * (200 / h.energy - 1) : 1) * step;
        h.at = sim_ahead(&h.at, &h.to, step);
        if (!sim_inside(w, &h.at)) {
            w->leaked += h.energy;
            return;
        }
        if (h.charged) {
            if (loss >= h.energy) {
                sim_deposit(w, &h.at, h.energy);
                return;
            }
            sim_deposit(w, &h.at, loss);
            h.energy -= loss;
        }
        left -= step;
        if (left <= 0) break;
    }
    sim_hadron_vertex(w, all, h.energy, &h.at, &h.to);
}

static void sim_hadron_cascade(sim_worker *w, double energy, const sim_vector *at,
                               const sim_vector *to)
{
    sim_hadrons h;
    h.n = 0;
    sim_hadron_vertex(w, &h, energy, at, to);
    while (h.n > 0) {
        h.n--;
        sim_follow_hadron(w, &h, h.h[h.n]);
    }
    sim_follow(w);
}

#endif
