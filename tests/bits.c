/* bits.c - hashes of all that calomu computes, for bits.sh and matrix.sh: the same lines whatever
   compiler, flags and machine, or one line "refused: ..."

   usage: bits TESTDATA TMP [MODE]
   MODE is the caller's rounding mode: up, down, zero; flush, small numbers become zero; traps, an
   exception ends the program; workers, the threads of OpenMP round up, not the caller; or
   callbacks, the caller's functions leave the processor rounding up.  Public interface only, like a
   host's program. */
#include "calomu.h"
#include "simulate.h"
#include <fenv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MUONS = 40, HITS = 40, NZ = 10, NX = 6, NY = 5, COUNT = 4 };

static void stop(const char *what, const char *why)
{
    printf("FAILED: %s: %s\n", what, why);
    exit(1);
}

/* FNV-1a of numbers as little-endian bytes. */
typedef uint64_t bits_hash;

#define BITS_START 0xcbf29ce484222325u

static void add(bits_hash *h, uint64_t u, int bytes)
{
    for (; bytes > 0; bytes--, u >>= 8) *h = (*h ^ (u & 255)) * 0x100000001b3u;
}

static void add_double(bits_hash *h, double x)
{
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    add(h, u, 8);
}

static void add_float(bits_hash *h, float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    add(h, u, 4);
}

static void add_file(bits_hash *h, const char *path)
{
    FILE *f = fopen(path, "rb");
    int c;
    if (!f) stop("cannot open", path);
    while ((c = getc(f)) != EOF) add(h, (uint64_t)c, 1);
    fclose(f);
}

/* ---------------------------------------------------------------- muons made of integers */

typedef struct sample {
    calomu_data_info info;
    calomu_event event[MUONS];
    calomu_hit hit[MUONS][HITS];
    double truth[MUONS];
} sample;

static void make_sample(sample *s)
{
    uint32_t w[4];
    int i, k;
    memset(s, 0, sizeof *s);
    s->info.geometry = calomu_geometry_default();
    s->info.geometry.nz = NZ;
    s->info.geometry.nx = NX;
    s->info.geometry.ny = NY;
    for (i = 0; i < MUONS; i++) {
        calomu_event *e = &s->event[i];
        uint32_t cell = 0;
        calomu_random(1, 2, (uint64_t)i, w);
        s->truth[i] = (double)(60 + w[0] % 7800);
        for (k = 0; k < HITS; k++) {
            calomu_random(1, 3, (uint64_t)(i * HITS + k), w);
            cell += 1 + w[0] % (NZ * NX * NY / HITS - 1);
            s->hit[i][k].cell = cell;
            s->hit[i][k].energy = (float)((int)(w[1] % 4096) * (60 + i)) / 65536;
        }
        e->hits = s->hit[i];
        e->n_hits = i == 3 ? 0 : HITS;
        e->x = e->y = -51;              /* inside the third cell */
        e->energy = (float)s->truth[i];
        e->charge = CALOMU_ABSENT;
    }
}

/* ---------------------------------------------------------------- what is computed */

/* The lines that are printed, a hash each; that of the simulation follows. */
enum { FEATURES, ALONE, NUMBERS, WEIGHTS, CHECKPOINT, GROUP, EVALUATION, LINES };

static const char *const line_name[LINES] = {
    "features", "alone", "numbers", "weights", "checkpoint", "group", "evaluation"
};

static const char *data_folder, *folder;

static const char *path_of(const char *where, const char *name)
{
    static char path[2][1024];
    static int which;
    which = !which;
    snprintf(path[which], sizeof path[which], "%s/%s", where, name);
    return path[which];
}

static void must(calomu *c, calomu_status s, const char *what)
{
    if (s != CALOMU_OK) stop(what, calomu_message(c));
}

/* GEANT4's muons: features, and the paper's network on one of them. */
static void run_file(calomu *c, bits_hash *h)
{
    calomu_model *m = NULL;
    calomu_data *d = NULL;
    calomu_events e = { 0 };
    float v[CALOMU_FEATURES];
    double p = 0;
    int i, k;
    must(c, calomu_model_load(c, path_of(data_folder, "model.safetensors"), &m), "model");
    must(c, calomu_data_open(c, path_of(data_folder, "muons.cmu"), &d), "data");
    must(c, calomu_data_read(c, d, 0, NULL, COUNT, &e), "muons");
    for (i = 0; i < COUNT; i++) {
        must(c, calomu_features(c, &calomu_data_describe(d)->geometry, &e.event[i], NULL, v),
             "features");
        for (k = 0; k < CALOMU_FEATURES; k++) add_float(&h[FEATURES], v[k]);
    }
    must(c, calomu_predict(c, m, d, e.event, 1, &p, NULL), "a muon alone");
    add_double(&h[ALONE], p);
    must(c, calomu_model_save(c, m, path_of(folder, "copy.model")), "saving");
    add_file(&h[NUMBERS], path_of(folder, "copy.model"));
    calomu_events_free(&e);
    calomu_data_close(d);
    calomu_model_free(m);
}

/* A training of two epochs with the state saved in between, its weights, and what they predict. */
static void run_training(calomu *c, bits_hash *h, sample *s)
{
    calomu_architecture a = calomu_architecture_default();
    calomu_train_options o = calomu_train_options_default();
    calomu_train_report r;
    calomu_data *d = NULL;
    calomu_trainer *t = NULL;
    calomu_model *m = NULL;
    double p[MUONS];
    int i, k = 0;
    a.geometry = s->info.geometry;
    a.blocks = 1;
    a.growth = 1.1;
    a.body = 12;
    o.batch = 8;
    o.folds = 5;
    o.epochs = o.cycle_epochs = 2;
    o.fit_bins = 5;
    o.mi_bins = 3;
    must(c, calomu_data_from_memory(c, &s->info, s->event, MUONS, &d), "set");
    must(c, calomu_trainer_create(c, d, &a, &o, &t), "trainer");
    do {
        must(c, calomu_trainer_step(c, t, &r), "step");
        add_double(&h[WEIGHTS], r.batch_loss);
        if (++k != 6) continue;
        must(c, calomu_trainer_save(c, t, path_of(folder, "bits.checkpoint")), "checkpoint");
        calomu_trainer_free(t);
        must(c, calomu_trainer_resume(c, d, path_of(folder, "bits.checkpoint"), &t), "resume");
        add_file(&h[CHECKPOINT], path_of(folder, "bits.checkpoint"));
    } while (r.kind != CALOMU_TRAIN_DONE);
    must(c, calomu_trainer_model(c, t, &m), "weights");
    must(c, calomu_model_save(c, m, path_of(folder, "bits.model")), "model");
    add_file(&h[WEIGHTS], path_of(folder, "bits.model"));
    must(c, calomu_predict(c, m, NULL, s->event, MUONS, p, NULL), "predictions");
    for (i = 0; i < MUONS; i++) add_double(&h[GROUP], p[i]);
    calomu_model_free(m);
    calomu_trainer_free(t);
    calomu_data_close(d);
}

/* Predictions that are no network's: 30 GeV and 3/4 E to E; exact, the modes may be others here. */
static void run_evaluation(calomu *c, bits_hash *h)
{
    enum { N = 2000 };
    static double truth[N], p[N];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_line line;
    calomu_bin bin[64];
    calomu_summary sum;
    calomu_train_options range = calomu_train_options_default();
    char text[32];
    uint32_t w[4];
    double x = 0;
    int i, n = 0;
    calomu_train_options_range(&range, 13, 511);
    add_double(&h[EVALUATION], range.weight_centre);
    add_double(&h[EVALUATION], range.range_low);
    for (i = 0; i < N; i++) {
        calomu_random(5, 1, (uint64_t)i, w);
        truth[i] = 100 + w[0] % 3900;
        p[i] = 30 + truth[i] * (double)(3072 + w[1] % 1024) / 4096;
    }
    must(c, calomu_debias_fit(c, &o, truth, p, N, &line), "debiasing");
    must(c, calomu_resolution(c, &o, &line, truth, p, N, bin, 64, &n, &sum), "resolution");
    must(c, calomu_resolution_errors(c, &o, truth, p, N, truth, p, N, bin, n, &sum), "errors");
    for (i = 0; i < n; i++) add_double(&h[EVALUATION], bin[i].combined);
    for (i = 0; i < n; i++) add_double(&h[EVALUATION], bin[i].combined_error);
    add_double(&h[EVALUATION], sum.mi);
    add_double(&h[EVALUATION], calomu_debias(&line, 1234.5));
    for (i = 0; i < 200; i++) {
        const char *at = calomu_number(text, bin[i % n].c68, 1 + i % 17);
        for (; *at; at++) add(&h[NUMBERS], (uint64_t)*at, 1);
        if (!calomu_parse(text, &x)) stop("number", text);
        add_double(&h[NUMBERS], x);
    }
}

static bits_hash run_simulation(calomu_options memory)
{
    static const double energy[] = { 1, 30, 700, 5000 };
    sim_options o = sim_options_default();
    sim *s = NULL;
    sim_worker *w = NULL;
    const char *why = "";
    bits_hash h = BITS_START;
    int i;
    size_t k;
    if (sim_new(&memory, &o, &s, &why) != CALOMU_OK) {
        printf("refused: %s\n", why);
        exit(0);
    }
    if (sim_worker_new(s, &w) != CALOMU_OK) stop("simulation", "no memory");
    for (i = 0; i < COUNT; i++) {
        sim_muon m = sim_draw(s, (uint64_t)i, energy[i], energy[i] * 1.5, 0);
        calomu_event e;
        sim_loss lost;
        if (sim_run(w, (uint64_t)i, &m, &e, &lost) != CALOMU_OK) stop("simulation", "a muon");
        for (k = 0; k < e.n_hits; k++) {
            add(&h, e.hits[k].cell, 4);
            add_float(&h, e.hits[k].energy);
        }
        add_double(&h, m.x);
        add_double(&h, lost.leaked);
    }
    sim_worker_free(w);
    sim_free(s);
    return h;
}

/* ---------------------------------------------------------------- what must be refused */

/* Where the build is at fault every call that computes says so, and none computes. */
static void run_refusal(calomu *c, sample *s)
{
    const char *fault = strstr(calomu_build_info(c), "WARNING: ");
    calomu_model *m = NULL;
    calomu_data *d = NULL;
    float v[CALOMU_FEATURES];
    calomu_status got[3];
    int i;
    if (!fault) return;
    fault += strlen("WARNING: ");
    got[0] = calomu_model_load(c, path_of(data_folder, "model.safetensors"), &m);
    got[1] = calomu_features(c, &s->info.geometry, s->event, NULL, v);
    got[2] = calomu_data_from_memory(c, &s->info, s->event, MUONS, &d);
    for (i = 0; i < 3; i++)
        if (got[i] != CALOMU_EUSAGE || strcmp(calomu_message(c), fault) != 0)
            stop("not refused", fault);
    printf("refused: %s\n", fault);
    exit(0);
}

/* NaN is no energy, and no impact point is no fault. */
static void run_nan(calomu *c, const sample *s)
{
    calomu_event e = s->event[0];
    calomu_hit hit = s->hit[0][0];
    float v[CALOMU_FEATURES];
    e.x = e.y = CALOMU_ABSENT;
    must(c, calomu_features(c, &s->info.geometry, &e, NULL, v), "no impact point");
    hit.energy = CALOMU_ABSENT;
    e.hits = &hit;
    e.n_hits = 1;
    if (calomu_features(c, &s->info.geometry, &e, NULL, v) != CALOMU_EFORMAT)
        stop("a hit of NaN GeV", "taken");
}

/* ---------------------------------------------------------------- modes */

#if defined(__SSE__) && defined(__GNUC__)
#define BITS_FLUSH __builtin_ia32_ldmxcsr(0x9fc0)        /* FTZ and DAZ */
#define BITS_TRAPS __builtin_ia32_ldmxcsr(0x1900)        /* invalid, division by zero, overflow */
#elif defined(__aarch64__) && defined(__GNUC__)
#define BITS_FLUSH __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)1 << 24))
#endif

static void round_up(void)
{
#ifdef FE_UPWARD
    (void)fesetround(FE_UPWARD);
#endif
}

static void *take(void *user, size_t size)
{
    (void)user;
    round_up();
    return malloc(size);
}

static void give(void *user, void *memory)
{
    (void)user;
    round_up();
    free(memory);
}

static void heard(void *user, const char *line)
{
    (void)user;
    (void)line;
    round_up();
}

static int set_mode(const char *mode, calomu_options *o)
{
#ifdef FE_UPWARD
    if (!strcmp(mode, "up")) return fesetround(FE_UPWARD);
#endif
#ifdef FE_DOWNWARD
    if (!strcmp(mode, "down")) return fesetround(FE_DOWNWARD);
#endif
#ifdef FE_TOWARDZERO
    if (!strcmp(mode, "zero")) return fesetround(FE_TOWARDZERO);
#endif
#ifdef BITS_FLUSH
    if (!strcmp(mode, "flush")) {
        BITS_FLUSH;
        return 0;
    }
#endif
#ifdef BITS_TRAPS
    if (!strcmp(mode, "traps")) {
        BITS_TRAPS;
        return 0;
    }
#endif
    if (!strcmp(mode, "callbacks")) {
        o->allocate = take;
        o->release = give;
        o->log = heard;
        return 0;
    }
#if defined(_OPENMP) && defined(FE_UPWARD)
    if (!strcmp(mode, "workers")) {
        int bad = 0;
#pragma omp parallel num_threads(2) reduction(| : bad)
        bad |= fesetround(FE_UPWARD);
        return bad | fesetround(FE_TONEAREST);
    }
#endif
    printf("no such mode here: %s\n", mode);
    exit(0);
}

/* Whether small numbers are kept, and what is rounded to. */
static int mode_now(void)
{
    volatile double least = 2.2250738585072014e-308, half = 0.5;
    return (least * half > 0) | fegetround() << 1;
}

int main(int argc, char **argv)
{
    static const char *const name[] = { "", "plain C", "AVX2", "AVX-512" };
    static sample s;
    calomu_options o = { 0 };
    bits_hash first[LINES], h[LINES];    /* of plain C, and of each instruction set */
    int isa, mode, i;
    if (argc < 3) return 2;
    data_folder = argv[1];
    folder = argv[2];
    make_sample(&s);                 /* of exact numbers */
    if (argc > 3 && set_mode(argv[3], &o) != 0) stop("mode", argv[3]);
    mode = mode_now();
    o.threads = calomu_threads_available() > 1 ? 2 : 1;  /* a plain build has no more */
    for (isa = 1; isa <= 3; isa++) {
        calomu *c = NULL;
        o.isa = (calomu_isa)isa;
        if (calomu_open(&c, &o) != CALOMU_OK) {
            if (isa == 1) stop("no context", name[isa]);
            continue;                /* not on this machine */
        }
        if (isa == 1) fprintf(stderr, "%s\n", calomu_build_info(c));
        for (i = 0; i < LINES; i++) h[i] = BITS_START;
        run_refusal(c, &s);
        run_nan(c, &s);
        run_file(c, h);
        run_training(c, h, &s);
        run_evaluation(c, h);
        if (isa == 1) memcpy(first, h, sizeof h);
        else if (memcmp(first, h, sizeof h) != 0) stop("other bits", name[isa]);
        calomu_close(c);
    }
    for (i = 0; i < LINES; i++)
        printf("%s %016llx\n", line_name[i], (unsigned long long)first[i]);
    printf("simulation %016llx\n", (unsigned long long)run_simulation(o));
    if (mode_now() != mode) stop("modes", "the caller's are lost");
    return 0;
}
