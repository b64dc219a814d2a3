/* simulate.c - muons in lead tungstate; see simulate.h

   This is the one file to compile.  Its parts, each on those before it:
     arithmetic.h  random numbers, log, exp, angles    electron.h  electrons and positrons
     material.h    lead tungstate                      library.h   the library of showers
     state.h       tables, simulation, worker          nuclear.h   photonuclear events
     block.h       cells, walls, deposits              muon.h      cross-sections, tables, flight
     photon.h      Compton, pairs, photoelectric       and here: the interface

   Units inside: MeV, cm; coordinates from the low corner of the block (z = 0: front face).
   Sources, cited as [..] at each formula:
     [PDG]   Review of Particle Physics, Prog. Theor. Exp. Phys. 2022, 083C01, chapter 34
     [PRM]   GEANT4 Collaboration, Physics Reference Manual, release 11
     [KKP]   S. R. Kelner, R. P. Kokoulin, A. A. Petrukhin, Phys. Atom. Nucl. 60 (1997) 576;
             R. P. Kokoulin, A. A. Petrukhin, 12th ICRC, Hobart (1971) 2436 (pairs)
     [BP]    V. V. Borog, A. A. Petrukhin, 14th ICRC, Munich (1975) 1949 (photonuclear)
     [T74]   Y.-S. Tsai, Rev. Mod. Phys. 46 (1974) 815; 49 (1977) 421
     [BS]    H. Bichsel, R. M. Sternheimer et al., as given in [PDG] (restricted loss, density)
     [M48]   G. Moliere, Z. Naturforsch. 3a (1948) 78; H. A. Bethe, Phys. Rev. 89 (1953) 1256
     [MF48]  W. A. McKinley, H. Feshbach, Phys. Rev. 74 (1948) 1759

   One shape of program: a muon flies through the block in short steps; what it radiates becomes
   photons, electrons and positrons on a stack; each is followed until it is absorbed or leaves
   ("engine M"), except that those of 0.1 MeV to 1 GeV are replaced at once by a rotated, scaled
   shower out of a library that engine M has filled at the start ("engine L").

   Bits: + - * / sqrt and our own exp, log, sine only, as they are written (CALOMU_EQUAL_BITS) and
   with the modes of the processor that calomu_modes_set sets, in every function of the interface
   and in every thread.  */
#define CALOMU_EQUAL_BITS
#include "simulate.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "arithmetic.h"
#include "material.h"
#include "state.h"
#include "block.h"
#include "photon.h"
#include "electron.h"
#include "library.h"
#include "nuclear.h"
#include "muon.h"

sim_options sim_options_default(void)
{
    sim_options o;
    memset(&o, 0, sizeof o);
    o.geometry = calomu_geometry_default();
    o.active = 1;
    o.photonuclear = 1;
    o.library = 1;
    o.seed = 1;
    return o;
}

static const char sim_no_memory[] = "no memory";

/* What the compiler has made of this file, as cm_fault in calomu.c. */
static const char *sim_build_fault(void)
{
    volatile double one = 1, e = 1.0 / 134217728, tiny = DBL_EPSILON / 4, five = 5, zero = 0;
    volatile double minus = -zero;
    double a = one + e, b = one + 2 * e, c = one, d = tiny, third = five / 3.0;
    if (a * a - b != 0)
        return "this build fuses products on its own: compile simulate.c with -ffp-contract=off";
    if ((c + d) - c != 0 || third != 0x1.aaaaaaaaaaaabp+0 || 1 / (minus + 0.0) < 0)
        return "this build computes by other rules than IEEE 754: compile simulate.c without "
               "-funsafe-math-optimizations and its parts; for x87 with -msse2 -mfpmath=sse";
    return NULL;
}

/* The context of the engine knows what a geometry is. */
static const char *sim_options_fault(const sim_options *o)
{
    calomu *c = NULL;
    const calomu_geometry *g = &o->geometry;
    int good;
    if (calomu_open(&c, NULL) != CALOMU_OK) return sim_no_memory;
    good = calomu_geometry_check(c, g) == CALOMU_OK;
    calomu_close(c);
    if (!good) return "the geometry makes no sense";
    if (!(o->active > 0 && o->active <= 1)) return "the active share of a layer must be in (0, 1]";
    if (!(fabs(g->field) <= 20)) return "the field must be at most 20 T";
    if (g->pitch[0] < 0.01 || g->pitch[1] < 0.01 || g->pitch[2] < 0.01)
        return "cells must be at least 0.01 mm long and wide";
    if (g->nx * g->pitch[1] > 2e4 || g->ny * g->pitch[2] > 2e4 || g->nz * g->pitch[0] > 2e4)
        return "the block must be at most 20 m long and wide";
    return NULL;
}

static void sim_set_block(sim *s)
{
    const calomu_geometry *g = &s->options.geometry;
    const int cells[3] = { g->nx, g->ny, g->nz };
    const double pitch[3] = { g->pitch[1] / 10, g->pitch[2] / 10, g->pitch[0] / 10 };
    int i;
    for (i = 0; i < 3; i++) {
        s->cells[i] = cells[i];
        s->inverse[i] = 1 / pitch[i];
        s->size[i] = cells[i] * pitch[i];
    }
}

static calomu_status sim_make(const calomu_options *memory, const sim_options *options, sim **out,
                              const char **why)
{
    static const calomu_options none = { 0 };
    const char *fault = sim_build_fault();
    calomu_status status = CALOMU_OK;
    sim *s;
    *out = NULL;
    if (!fault) fault = sim_options_fault(options);
    if (why) *why = fault ? fault : sim_no_memory;
    if (fault) return fault == sim_no_memory ? CALOMU_EMEMORY : CALOMU_EUSAGE;
    if (!memory) memory = &none;
    s = sim_allocate_from(memory, sizeof *s);
    if (!s) return CALOMU_EMEMORY;
    memset(s, 0, sizeof *s);
    s->memory = *memory;
    if (s->memory.threads < 1) s->memory.threads = 1;
    s->options = *options;
    sim_set_block(s);
    sim_material(s->element);
    sim_photon_table(s);
    sim_electron_table(s);
    sim_muon_table(s);
    if (options->library) status = sim_library_make(s);
    if (status == CALOMU_OK) *out = s;
    else sim_free(s);
    return status;
}

calomu_status sim_new(const calomu_options *memory, const sim_options *options, sim **out,
                      const char **why)
{
    calomu_modes host;
    calomu_status status = CALOMU_EUSAGE;
    *out = NULL;
    if (why) *why = "this thread has another rounding mode than to nearest, flushes small "
                    "numbers to zero, or traps exceptions, and here that cannot be changed";
    if (calomu_modes_set(&host)) status = sim_make(memory, options, out, why);
    calomu_modes_restore(&host);
    return status;
}

void sim_free(sim *s)
{
    int k, b, i;
    if (!s) return;
    for (k = 0; k < 2; k++)
        for (b = 0; b < SIM_LIB_BINS; b++)
            for (i = 0; i < SIM_LIB_SHOWERS; i++) sim_release(s, s->library[k][b][i].memory);
    sim_release(s, s);
}

static size_t sim_cells(const sim *s)
{
    return (size_t)s->cells[0] * (size_t)s->cells[1] * (size_t)s->cells[2];
}

calomu_status sim_worker_new(const sim *s, sim_worker **out)
{
    sim_worker *w = sim_allocate(s, sizeof *w);
    int i;
    *out = NULL;
    if (!w) return CALOMU_EMEMORY;
    memset(w, 0, sizeof *w);
    w->s = s;
    for (i = 0; i < 3; i++) w->high[i] = s->size[i];
    w->library_top = s->options.library ? SIM_LIB_HIGH : 0;
    w->grid = sim_allocate(s, sim_cells(s) * sizeof *w->grid);
    w->hits = sim_allocate(s, sim_cells(s) * sizeof *w->hits);
    if (!w->grid || !w->hits) {
        sim_worker_free(w);
        return CALOMU_EMEMORY;
    }
    memset(w->grid, 0, sim_cells(s) * sizeof *w->grid);
    *out = w;
    return CALOMU_OK;
}

void sim_worker_free(sim_worker *w)
{
    if (!w) return;
    sim_release(w->s, w->grid);
    sim_release(w->s, w->hits);
    sim_release(w->s, w);
}

static SIM_NOINLINE sim_muon sim_draw_muon(const sim *s, uint64_t number, double low, double high,
                                           int charge)
{
    const calomu_geometry *g = &s->options.geometry;
    sim_random r;
    sim_muon m;
    double u, x, y;
    sim_seed(&r, s->options.seed, SIM_STREAM_PRIMARY, number);
    m.energy = (double)(float)(low + (high - low) * sim_uniform(&r));
    u = sim_uniform(&r);
    m.charge = charge ? charge : u < 0.5 ? -1 : 1;
    x = (sim_uniform(&r) - 0.5) / 3 + 0.5;
    y = (sim_uniform(&r) - 0.5) / 3 + 0.5;
    m.x = (double)(float)(g->origin[1] + x * g->nx * g->pitch[1]);
    m.y = (double)(float)(g->origin[2] + y * g->ny * g->pitch[2]);
    return m;
}

sim_muon sim_draw(const sim *s, uint64_t number, double low, double high, int charge)
{
    calomu_modes host;
    sim_muon m;
    (void)calomu_modes_set(&host);
    m = sim_draw_muon(s, number, low, high, charge);
    calomu_modes_restore(&host);
    return m;
}

/* The cells above 1 keV become hits; the grid is zero again. */
static void sim_collect(sim_worker *w, calomu_event *event, sim_loss *loss, double lost)
{
    const float least = 1e-3f;
    size_t n = 0, cells = sim_cells(w->s), i;
    for (i = 0; i < cells; i++) {
        if (!(w->grid[i] > least)) continue;
        w->hits[n].cell = (uint32_t)i;
        w->hits[n++].energy = w->grid[i] * 1e-3f;
    }
    memset(w->grid, 0, cells * sizeof *w->grid);
    if (loss) {
        loss->lost = lost * 1e-3;
        loss->deposited = w->deposited * 1e-3;
        loss->leaked = w->leaked * 1e-3;
        loss->unseen = w->unseen * 1e-3;
    }
    event->hits = w->hits;
    event->n_hits = n;
    event->features = event->losses = NULL;
}

static void sim_begin(sim_worker *w, uint64_t number)
{
    sim_seed(&w->random, w->s->options.seed, SIM_STREAM_TRANSPORT, number);
    w->deposited = w->leaked = w->unseen = 0;
    w->n = 0;
}

/* In the vacuum before the face the muon only bends: 50 mm. */
static sim_flight sim_muon_start(const sim *s, const sim_muon *m)
{
    const calomu_geometry *g = &s->options.geometry;
    double kappa = 0.299792458e-2 * g->field * m->charge / m->energy;
    double p = m->energy * 1e3;
    sim_flight f;
    f.e = sqrt(p * p + SIM_MMU * SIM_MMU);
    f.charge = m->charge;
    f.to.x = -kappa * 5;
    f.to.y = 0;
    f.to.z = sqrt(1 - f.to.x * f.to.x);
    f.at.x = (m->x - g->origin[1]) / 10 - kappa / 2 * 25;
    f.at.y = (m->y - g->origin[2]) / 10;
    f.at.z = 0;
    return f;
}

static SIM_NOINLINE calomu_status sim_run_muon(sim_worker *w, uint64_t number,
                                               const sim_muon *muon, calomu_event *event,
                                               sim_loss *loss)
{
    sim_flight f;
    double lost;
    if (!(muon->energy >= 1 && muon->energy <= 10000) || (muon->charge != 1 && muon->charge != -1))
        return CALOMU_EUSAGE;
    f = sim_muon_start(w->s, muon);
    if (!sim_inside(w, &f.at)) return CALOMU_EUSAGE;
    sim_begin(w, number);
    lost = sim_muon_fly(w, &f);
    event->x = (float)muon->x;
    event->y = (float)muon->y;
    event->energy = (float)muon->energy;
    event->charge = (float)muon->charge;
    sim_collect(w, event, loss, lost);
    return CALOMU_OK;
}

calomu_status sim_run(sim_worker *w, uint64_t number, const sim_muon *muon, calomu_event *event,
                      sim_loss *loss)
{
    calomu_modes host;
    calomu_status status = CALOMU_EUSAGE;
    if (calomu_modes_set(&host)) status = sim_run_muon(w, number, muon, event, loss);
    calomu_modes_restore(&host);
    return status;
}

static SIM_NOINLINE calomu_status sim_run_shower(sim_worker *w, uint64_t number, sim_kind kind,
                                                 double energy, double x, double y, double z,
                                                 calomu_event *event, sim_loss *loss)
{
    const calomu_geometry *g = &w->s->options.geometry;
    sim_vector at, to = { 0, 0, 1 };
    at.x = (x - g->origin[1]) / 10;
    at.y = (y - g->origin[2]) / 10;
    at.z = z / 10;
    if (!(energy > 0 && energy <= 10000) || !sim_inside(w, &at)) return CALOMU_EUSAGE;
    sim_begin(w, number);
    sim_cascade(w, kind, energy * 1e3, &at, &to);
    event->x = event->y = event->charge = CALOMU_ABSENT;
    event->energy = (float)energy;
    sim_collect(w, event, loss, energy * 1e3);
    return CALOMU_OK;
}

calomu_status sim_shower(sim_worker *w, uint64_t number, sim_kind kind, double energy, double x,
                         double y, double z, calomu_event *event, sim_loss *loss)
{
    calomu_modes host;
    calomu_status status = CALOMU_EUSAGE;
    if (calomu_modes_set(&host))
        status = sim_run_shower(w, number, kind, energy, x, y, z, event, loss);
    calomu_modes_restore(&host);
    return status;
}
