/* simulate_verb.c - `calomu simulate`: a data file of simulated muons. */
#include "calomu_tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "perturb.h"
#include "simulation/simulate.h"

enum { SIMULATE_ENERGIES = 1024, SIMULATE_OPTIONS = 40 };

/* What a thread owns. */
typedef struct simulate_thread {
    sim_worker *worker;
    calomu *c;                       /* features use its scratch memory */
    calomu_hit *hits;                /* of a muon behind the electronics: room for all cells */
} simulate_thread;

/* A finished muon until it is written. */
typedef struct simulate_muon {
    int done;
    calomu_status status;
    calomu_event event;
    calomu_hit *hits;
    size_t room;
    float features[CALOMU_FEATURES], losses[CALOMU_LOSSES];
} simulate_muon;

typedef struct simulate_job {
    sim_options options;
    const char *out;
    uint64_t n, first;
    double low, high;                /* GeV */
    double energies[SIMULATE_ENERGIES];
    int n_energies;                  /* 0: uniform in low..high */
    int charge;
    int features;
    calomu_feature_options feature_options;
    electronics_options electronics;
    electronics *chain;              /* NULL: ideal electronics */
    int threads, chunk;
    calomu *c;
    sim *s;
    simulate_thread *thread;
    simulate_muon *muon;             /* chunk */
    calomu_writer *writer;
    uint64_t written;
} simulate_job;

/* ---------------------------------------------------------------- one muon */

static calomu_status simulate_keep(simulate_muon *m, const calomu_hit *hits, size_t n)
{
    if (n > m->room) {
        free(m->hits);
        m->room = 0;
        m->hits = malloc((n + n / 4) * sizeof *m->hits);
        if (!m->hits) return CALOMU_EMEMORY;
        m->room = n + n / 4;
    }
    if (n) memcpy(m->hits, hits, n * sizeof *hits);
    m->event.hits = m->hits;
    m->event.n_hits = n;
    return CALOMU_OK;
}

static void simulate_losses(simulate_muon *m, const sim_loss *loss)
{
    m->losses[CALOMU_LOST] = (float)loss->lost;
    m->losses[CALOMU_DEPOSITED] = (float)loss->deposited;
    m->losses[CALOMU_LEAKED] = (float)loss->leaked;
    m->losses[CALOMU_UNSEEN] = (float)loss->unseen;
    m->event.losses = m->losses;
}

static calomu_status simulate_one(simulate_job *job, simulate_thread *t, uint64_t number,
                                  simulate_muon *m)
{
    calomu_status status;
    size_t n;
    double low = job->low, high = job->high;
    sim_muon muon;
    sim_loss loss;
    if (job->n_energies > 0)
        low = high = job->energies[number % (uint64_t)job->n_energies];
    muon = sim_draw(job->s, number, low, high, job->charge);
    status = sim_run(t->worker, number, &muon, &m->event, &loss);
    if (status != CALOMU_OK) return status;
    simulate_losses(m, &loss);
    if (job->chain) {
        n = electronics_apply(job->chain, number, &m->event, t->hits);
        status = n == SIZE_MAX ? CALOMU_EMEMORY : simulate_keep(m, t->hits, n);
    } else {
        status = simulate_keep(m, m->event.hits, m->event.n_hits);
    }
    if (status != CALOMU_OK || !job->features) return status;
    status = calomu_features(t->c, &job->options.geometry, &m->event, &job->feature_options,
                             m->features);
    m->event.features = m->features;
    return status;
}

/* The muons first..first+n-1 of the set; each is independent of the others.  After a signal the
   ones not begun yet stay undone. */
static void simulate_chunk(simulate_job *job, uint64_t first, int n)
{
    int i;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(job->threads)
#endif
    for (i = 0; i < n; i++) {
        job->muon[i].done = 0;
        if (tool_stop) continue;
        job->muon[i].status = simulate_one(job, &job->thread[tool_thread()], first + (uint64_t)i,
                                           &job->muon[i]);
        job->muon[i].done = 1;
    }
}

/* ---------------------------------------------------------------- writing */

/* Writes the muons that are done, up to the first that is not; *more 0: one was not. */
static calomu_status simulate_write(simulate_job *job, int n, int *more)
{
    calomu_status status = CALOMU_OK;
    int i;
    for (i = 0; i < n && status == CALOMU_OK; i++) {
        simulate_muon *m = &job->muon[i];
        if (!m->done) {
            *more = 0;
            return CALOMU_OK;
        }
        if (m->status != CALOMU_OK)
            return tool_fail(m->status, "muon %llu: %s",
                             (unsigned long long)(job->first + job->written),
                             calomu_status_text(m->status));
        status = calomu_writer_add(job->writer, &m->event);
        if (status == CALOMU_OK) job->written++;
    }
    return status == CALOMU_OK ? status : tool_report(job->c, status);
}

static calomu_status simulate_loop(simulate_job *job)
{
    calomu_status status = CALOMU_OK;
    int more = 1;
    tool_progress progress;
    tool_progress_begin(&progress, "simulation", "muons", job->n);
    while (job->written < job->n && more && status == CALOMU_OK) {
        uint64_t left = job->n - job->written;
        int n = left < (uint64_t)job->chunk ? (int)left : job->chunk;
        simulate_chunk(job, job->first + job->written, n);
        status = simulate_write(job, n, &more);
        tool_progress_at(&progress, job->written, NULL);
    }
    tool_progress_end(&progress);
    return status;
}

static calomu_status simulate_open(simulate_job *job)
{
    calomu_data_info info;
    calomu_status status;
    memset(&info, 0, sizeof info);
    info.geometry = job->options.geometry;
    info.features = job->features ? CALOMU_FEATURES_RAW : CALOMU_FEATURES_NONE;
    info.feature_options = job->feature_options;
    info.losses = 1;
    status = calomu_writer_open(job->c, job->out, &info, &job->writer);
    return status == CALOMU_OK ? status : tool_report(job->c, status);
}

static calomu_status simulate_close(simulate_job *job, calomu_status status)
{
    calomu_writer *writer = job->writer;
    job->writer = NULL;
    if (status == CALOMU_OK && job->written > 0) {
        status = calomu_writer_close(writer);
        if (status != CALOMU_OK) return tool_report(job->c, status);
    } else {
        calomu_writer_abandon(writer);
    }
    if (status != CALOMU_OK || !tool_stop) return status;
    if (job->written == 0) return tool_fail(CALOMU_STOPPED, "stopped; nothing is written");
    return tool_fail(CALOMU_STOPPED, "stopped: %s has the first %llu of %llu muons; --first %llu "
                     "--n %llu makes the rest", job->out, (unsigned long long)job->written,
                     (unsigned long long)job->n, (unsigned long long)(job->first + job->written),
                     (unsigned long long)(job->n - job->written));
}

/* ---------------------------------------------------------------- start and end */

static calomu_status simulate_prepare_thread(simulate_job *job, simulate_thread *t)
{
    const calomu_geometry *g = &job->options.geometry;
    size_t cells = (size_t)g->nz * (size_t)g->nx * (size_t)g->ny;
    calomu_status status = sim_worker_new(job->s, &t->worker);
    if (status == CALOMU_OK && job->chain) {
        t->hits = malloc(cells * sizeof *t->hits);
        if (!t->hits) status = CALOMU_EMEMORY;
    }
    if (status != CALOMU_OK) return tool_fail(status, "%s", calomu_status_text(status));
    return tool_open(&t->c, 1);
}

static calomu_status simulate_prepare(simulate_job *job)
{
    calomu_options memory = { 0 };
    const char *why = NULL;
    calomu_status status;
    int k;
    memory.threads = job->threads;
    status = sim_new(&memory, &job->options, &job->s, &why);
    if (status == CALOMU_EUSAGE) return tool_misuse("%s", why);
    if (status != CALOMU_OK) return tool_fail(status, "%s", why);
    if (electronics_wanted(&job->electronics)) {
        perturb_warn(&job->electronics);
        status = perturb_electronics(&job->electronics, &job->options.geometry,
                                     &job->chain);
        if (status != CALOMU_OK) return status;
    }
    job->thread = calloc((size_t)job->threads, sizeof *job->thread);
    job->muon = calloc((size_t)job->chunk, sizeof *job->muon);
    if (!job->thread || !job->muon) return tool_fail(CALOMU_EMEMORY, "no memory");
    for (k = 0; k < job->threads && status == CALOMU_OK; k++)
        status = simulate_prepare_thread(job, &job->thread[k]);
    return status;
}

static void simulate_free(simulate_job *job)
{
    int k;
    for (k = 0; job->thread && k < job->threads; k++) {
        sim_worker_free(job->thread[k].worker);
        calomu_close(job->thread[k].c);
        free(job->thread[k].hits);
    }
    for (k = 0; job->muon && k < job->chunk; k++) free(job->muon[k].hits);
    free(job->thread);
    free(job->muon);
    electronics_free(job->chain);
    sim_free(job->s);
    calomu_close(job->c);
    free(job);
}

/* The output is opened first, so that a mistyped name costs no time. */
static calomu_status simulate_run(simulate_job *job)
{
    calomu_status status = tool_threads_start(job->threads);
    if (status == CALOMU_OK) status = tool_open(&job->c, job->threads);
    tool_signals_catch();            /* before the file is begun: nothing is left of it then */
    if (status == CALOMU_OK) status = simulate_open(job);
    if (status == CALOMU_OK) status = simulate_prepare(job);
    if (status == CALOMU_OK) status = simulate_loop(job);
    status = simulate_close(job, status);
    if (status == CALOMU_OK)
        tool_notice("%s: %llu muons", job->out, (unsigned long long)job->written);
    return status;
}

/* ---------------------------------------------------------------- options */

static int simulate_energy_fits(double e) { return e >= 1 && e <= 10000; }

static calomu_status simulate_energy_range(simulate_job *job, const char *text)
{
    double end[2] = { 0, 0 };
    const int n = tool_numbers(text, TOOL_PAIR_BETWEEN, end, 2);
    if (n == 1) end[1] = end[0];
    if (n < 1) return tool_misuse("--energy %.80s: must be LOW,HIGH or one energy", text);
    if (!simulate_energy_fits(end[0]) || !simulate_energy_fits(end[1]))
        return tool_misuse("--energy %.80s: energies must be from 1 to 10000 GeV", text);
    if (end[0] > end[1]) return tool_misuse("--energy %.80s: LOW is above HIGH", text);
    job->low = end[0];
    job->high = end[1];
    return CALOMU_OK;
}

static calomu_status simulate_energy_list(simulate_job *job, const char *text)
{
    const char *p = text;
    for (;;) {
        double e = 0;
        if (job->n_energies == SIMULATE_ENERGIES)
            return tool_misuse("--energies: more than %d", SIMULATE_ENERGIES);
        p = calomu_parse(p, &e);
        if (!p || (*p && *p != ','))
            return tool_misuse("--energies %.80s: must be numbers with commas between them", text);
        if (!simulate_energy_fits(e))
            return tool_misuse("--energies %.80s: energies must be from 1 to 10000 GeV", text);
        job->energies[job->n_energies++] = (double)(float)e;
        if (!*p) return CALOMU_OK;
        p++;
    }
}

static simulate_job *simulate_new(void)
{
    simulate_job *job = calloc(1, sizeof *job);
    if (!job) return NULL;
    job->options = sim_options_default();
    job->feature_options = calomu_feature_options_default();
    job->electronics = (electronics_options)PERTURB_DEFAULTS;
    job->low = 50;
    job->high = 8000;
    return job;
}

/* What the command line says beyond plain values. */
typedef struct simulate_words {
    const char *energy, *energies, *module;
    int charge, ideal, single, convention;
    int32_t threads, chunk;
    double field;
} simulate_words;

static calomu_status simulate_settle(simulate_job *job, const tool_usage *usage,
                                     const simulate_words *w)
{
    static const char *const mine[] = { "convention", "grow" };
    calomu_status status = CALOMU_OK;
    size_t i;
    if (w->energy && w->energies) return tool_misuse("give --energy or --energies, not both");
    if (w->energy) status = simulate_energy_range(job, w->energy);
    if (w->energies) status = simulate_energy_list(job, w->energies);
    for (i = 0; i < 2 && !job->features; i++)
        if (tool_given(usage, mine[i])) return tool_misuse("--%s needs --features", mine[i]);
    if (tool_given(usage, "field")) job->options.geometry.field = w->field;
    if (job->first > UINT64_MAX / 4 || job->n > UINT64_MAX / 4)
        return tool_misuse("--first and --n must be below 2^62");
    if (status == CALOMU_OK) status = perturb_module(w->module, &job->electronics);
    job->electronics.seed = job->options.seed;
    job->charge = w->charge == 2 ? 0 : w->charge == 1 ? 1 : -1;
    job->options.photonuclear = !w->ideal;
    job->options.library = !w->single;
    job->feature_options.convention = (calomu_convention)w->convention;
    job->threads = w->threads > 0 ? w->threads : tool_threads_default();
    job->chunk = w->chunk;
    if (job->chunk < 1) job->chunk = 16 * job->threads < 64 ? 64 : 16 * job->threads;
    return status;
}

/* The table ends with what follows, which is 0. */
static void simulate_options(simulate_job *job, simulate_words *w, tool_option *to)
{
    const tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &job->out, .value = "OUT.cmu",
          .file = TOOL_WRITES,
          .help = "data file to write", .needed = 1 },
        { .name = "n", .type = TOOL_U64, .target = &job->n, .value = "N",
          .help = "number of muons", .needed = 1, .low = 1, .high = 1e15 },
        { .name = "energy", .type = TOOL_STRING, .target = &w->energy, .value = "LOW,HIGH",
          .help = "momentum, uniform between the two (GeV)", .preset = "50,8000" },
        { .name = "energies", .type = TOOL_STRING, .target = &w->energies, .value = "A,B,...",
          .help = "fixed momenta instead (GeV): muon i has number i modulo their number" },
        { .name = "seed", .type = TOOL_U64, .target = &job->options.seed, .value = "S",
          .help = "a muon depends on seed and number alone" },
        { .name = "first", .type = TOOL_U64, .target = &job->first, .value = "K",
          .help = "number of the first muon: continues a set" },
        { .name = "charge", .type = TOOL_CHOICE, .target = &w->charge,
          .value = "minus|plus|both", .help = "charge of the muons" },
        TOOL_OPTION_GEOMETRY(&job->options.geometry),
        { .name = "field", .type = TOOL_DOUBLE, .target = &w->field, .value = "T",
          .help = "magnetic field along y (T), over that of --geometry", .low = -20,
          .high = 20 },
        { .name = "active", .type = TOOL_DOUBLE, .target = &job->options.active,
          .value = "SHARE", .help = "sensitive share of each layer along z; the rest is a "
          "gap (the authors' simulation: 0.99)", .low = 1e-6, .high = 1 },
        { .name = "no-photonuclear", .type = TOOL_FLAG, .target = &w->ideal,
          .help = "electromagnetic processes only" },
        { .name = "no-library", .type = TOOL_FLAG, .target = &w->single,
          .help = "follow every particle: ten times slower, a check of the library" },
        { .name = "features", .type = TOOL_FLAG, .target = &job->features,
          .help = "add the 28 high-level features" },
        TOOL_OPTION_CONVENTION(&w->convention),
        TOOL_OPTION_GROW(&job->feature_options.grow),
        PERTURB_OPTIONS(job->electronics, &w->module),
        TOOL_OPTION_THREADS(&w->threads),
        { .name = "chunk", .type = TOOL_INT, .target = &w->chunk, .value = "N",
          .help = "muons between two writes; changes no result", .preset = "64 or more",
          .low = 1, .high = 65536 }
    };
    memcpy(to, options, sizeof options);
}

int verb_simulate(int argc, char **argv)
{
    simulate_job *job = simulate_new();
    simulate_words w = { .charge = 2, .field = 2 };
    tool_option options[SIMULATE_OPTIONS];
    tool_usage usage = {
        .verb = "simulate",
        .purpose = "Simulates muons in the calorimeter, filled with lead tungstate, and "
                   "writes hits, truth and\nenergy losses (lost, deposited, leaked, unseen).  "
                   "The same seed gives the same file on\nany machine with any number of "
                   "threads.",
        .notes = "A signal ends the work early: OUT.cmu then has the muons that were complete, "
                 "and the\nexit code is 85.  GEANT4 without hadronic processes compares with "
                 "--no-photonuclear.",
        .options = options
    };
    calomu_status status;
    int code;
    if (!job) return (int)tool_fail(CALOMU_EMEMORY, "no memory");
    memset(options, 0, sizeof options);
    simulate_options(job, &w, options);
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) {
        simulate_free(job);
        return code;
    }
    status = simulate_settle(job, &usage, &w);
    if (status == CALOMU_OK) status = simulate_run(job);
    simulate_free(job);
    return (int)status;
}
