/* bench.c - `calomu bench`: speed and memory of this machine, on real muons.

   Each measurement runs in a process of its own, made by fork, so that its peak resident memory is
   its own and no arena of another one is warm.  The child sends its rows through a pipe; the parent
   prints them as they come and writes the CSV.  The parent never runs anything parallel: OpenMP's
   threads do not survive a fork.

   A busy machine can only slow work down, so the minimum of the repetitions is the number that
   means something; the median beside it says how busy the machine was.  The processor time of all
   threads is told too: it hardly depends on what else runs, though a thread that waits for others
   may count.  */
#define CALOMU_INTERNALS             /* single operations; everything else is public interface */
#include "calomu_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

enum {
    BENCH_MUONS = 1024,              /* read from the file, at most */
    BENCH_BATCHES = 16,              /* in --batch, at most */
    BENCH_LARGEST = 65536,           /* muons in a batch, at most */
    BENCH_FOLDS = 8,                 /* of the training: one is monitored */
    BENCH_SAMPLES = 1000
};

typedef enum bench_section { BENCH_SPEED, BENCH_RATE, BENCH_CONV, BENCH_PASS } bench_section;
enum { BENCH_FORWARD, BENCH_TO_INPUT, BENCH_TO_WEIGHTS, BENCH_DIRECTIONS };

/* One result, as it goes through the pipe.  SPEED and RATE use element 0 only. */
typedef struct bench_row {
    bench_section section;
    char name[80];                   /* in the CSV */
    char text[80];                   /* for a person */
    char unit[16];
    double best[BENCH_DIRECTIONS], median[BENCH_DIRECTIONS];     /* NaN: there is no such thing */
    double milliseconds[BENCH_DIRECTIONS];   /* operations: per muon, at best */
    double work[BENCH_DIRECTIONS];   /* operations: GFLOP or GB per muon */
    double memory;                   /* MB resident at most, 0: not told */
    double processor;                /* SPEED: ms of all threads per muon, at best */
    int uses;                        /* how often the network has this convolution */
} bench_row;

typedef struct bench {
    const char *data_path, *model_path, *csv_path;
    int batch[BENCH_BATCHES], n_batches;
    int threads, operations;
    double seconds;
    calomu *c;                       /* the parent's; a child opens its own */
    tool_writer *csv;
    char made[256];                  /* the model file made here, "" if there is none */
    double peak;                     /* GFLOP/s of all threads together */
    double conv_time, conv_work;     /* sums over the convolutions of the network */
    int pipe;                        /* in a child: where rows go */
    int now_batch, now_threads;      /* what a child measures */
} bench;

/* ---------------------------------------------------------------- repetitions */

typedef struct bench_clock {
    double sample[BENCH_SAMPLES];
    double start, began, seconds;
    double processor, cpu_start;     /* least processor time, all threads */
    int n, least;
} bench_clock;

static double bench_processor(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0) return 0;
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void bench_clock_begin(bench_clock *k, double seconds, int least)
{
    k->n = 0;
    k->processor = INFINITY;
    k->least = least;
    k->seconds = seconds;
    k->began = tool_seconds();
}

/* Goes on for the time given, preparations included, and at least for `least` samples. */
static int bench_more(const bench_clock *k)
{
    return k->n < k->least
        || (k->n < BENCH_SAMPLES && tool_seconds() - k->began < k->seconds);
}

static void bench_start(bench_clock *k)
{
    k->cpu_start = bench_processor();
    k->start = tool_seconds();
}

static void bench_stop(bench_clock *k)
{
    k->sample[k->n++] = tool_seconds() - k->start;
    k->processor = fmin(k->processor, bench_processor() - k->cpu_start);
}

static int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Least and median time, never 0, so that rates stay finite on a coarse clock. */
static void bench_times(bench_clock *k, double *least, double *median)
{
    qsort(k->sample, (size_t)k->n, sizeof k->sample[0], bench_compare);
    *least = fmax(k->sample[0], 1e-9);
    *median = fmax(0.5 * (k->sample[(k->n - 1) / 2] + k->sample[k->n / 2]), 1e-9);
}

static double bench_resident(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#ifdef __APPLE__
    return (double)usage.ru_maxrss / 1e6;            /* bytes there, kB elsewhere */
#else
    return (double)usage.ru_maxrss * 1024 / 1e6;
#endif
}

/* ---------------------------------------------------------------- rows from child to parent */

/* A row is smaller than PIPE_BUF allows for one indivisible write (512 at least), or is sent in
   pieces: there is only one writer. */
static calomu_status bench_send(const bench *b, const bench_row *row)
{
    const char *p = (const char *)row;
    size_t left = sizeof *row;
    while (left > 0) {
        ssize_t n = write(b->pipe, p, left);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return tool_fail(CALOMU_EIO, "a result got lost: %s", strerror(errno));
        p += n;
        left -= (size_t)n;
    }
    return CALOMU_OK;
}

static bench_row bench_row_new(bench_section section, const char *unit)
{
    bench_row row;
    int i;
    memset(&row, 0, sizeof row);
    row.section = section;
    (void)snprintf(row.unit, sizeof row.unit, "%s", unit);
    for (i = 0; i < BENCH_DIRECTIONS; i++)
        row.best[i] = row.median[i] = row.milliseconds[i] = (double)CALOMU_ABSENT;
    return row;
}

/* Milliseconds per muon. */
static calomu_status bench_send_time(const bench *b, bench_clock *k, int muons, int memory,
                                     const char *name, const char *text)
{
    bench_row row = bench_row_new(BENCH_SPEED, "ms/muon");
    double least, median;
    bench_times(k, &least, &median);
    row.best[0] = 1e3 * least / muons;
    row.median[0] = 1e3 * median / muons;
    row.processor = 1e3 * k->processor / muons;
    row.memory = memory ? bench_resident() : 0;
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    (void)snprintf(row.text, sizeof row.text, "%s", text);
    return bench_send(b, &row);
}

/* `work` units per second. */
static calomu_status bench_send_rate(const bench *b, bench_clock *k, double work, const char *unit,
                                     const char *name, const char *text)
{
    bench_row row = bench_row_new(BENCH_RATE, unit);
    double least, median;
    bench_times(k, &least, &median);
    row.best[0] = work / least;
    row.median[0] = work / median;
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    (void)snprintf(row.text, sizeof row.text, "%s", text);
    return bench_send(b, &row);
}

/* ---------------------------------------------------------------- what the machine can do

   The peak is that of independent multiply-adds in registers.  A fused multiply-add takes 4 cycles
   and two start in each, so 8 chains would do; more hide jitter.  x < 1 keeps the values near 1:
   no overflow, no denormals.  The sum goes into a volatile, so that nothing is dead. */

enum { BENCH_TURNS = 100000 };       /* of the loop, about 0.5 ms */

#if defined(__GNUC__) && !defined(__clang__)
#define BENCH_UNROLL _Pragma("GCC unroll 32")
#elif defined(__clang__)
#define BENCH_UNROLL _Pragma("unroll")
#else
#define BENCH_UNROLL
#endif

typedef struct bench_peak {
    const char *name;
    float (*run)(float x, float y);
    double flops;                    /* of one run */
} bench_peak;

#if defined(__x86_64__) && defined(__GNUC__)
enum { BENCH_WIDE = 24, BENCH_NARROW = 12 };     /* chains: of 32 and of 16 registers */

__attribute__((target("avx512f"))) static float bench_run_avx512(float x, float y)
{
    __m512 a[BENCH_WIDE], xs = _mm512_set1_ps(x), ys = _mm512_set1_ps(y);
    float out[16];
    int i, k;
    for (k = 0; k < BENCH_WIDE; k++) a[k] = _mm512_set1_ps((float)k);
    for (i = 0; i < BENCH_TURNS; i++)
        BENCH_UNROLL
        for (k = 0; k < BENCH_WIDE; k++) a[k] = _mm512_fmadd_ps(a[k], xs, ys);
    for (k = 1; k < BENCH_WIDE; k++) a[0] = _mm512_add_ps(a[0], a[k]);
    _mm512_storeu_ps(out, a[0]);
    return out[0];
}

__attribute__((target("avx2,fma"))) static float bench_run_avx2(float x, float y)
{
    __m256 a[BENCH_NARROW], xs = _mm256_set1_ps(x), ys = _mm256_set1_ps(y);
    float out[8];
    int i, k;
    for (k = 0; k < BENCH_NARROW; k++) a[k] = _mm256_set1_ps((float)k);
    for (i = 0; i < BENCH_TURNS; i++)
        BENCH_UNROLL
        for (k = 0; k < BENCH_NARROW; k++) a[k] = _mm256_fmadd_ps(a[k], xs, ys);
    for (k = 1; k < BENCH_NARROW; k++) a[0] = _mm256_add_ps(a[0], a[k]);
    _mm256_storeu_ps(out, a[0]);
    return out[0];
}
#endif

/* Without a fused instruction, a multiplication and an addition: also two operations. */
#if defined(__FP_FAST_FMAF) || defined(__ARM_FEATURE_FMA)
#define BENCH_FMA(a, x, y) fmaf(a, x, y)
#else
#define BENCH_FMA(a, x, y) ((a) * (x) + (y))
#endif

enum { BENCH_CHAINS = 12, BENCH_WIDTH = 4 };

static float bench_run_plain(float x, float y)
{
    float a[BENCH_CHAINS][BENCH_WIDTH];
    int i, k, l;
    for (k = 0; k < BENCH_CHAINS; k++)
        for (l = 0; l < BENCH_WIDTH; l++) a[k][l] = (float)(k + l);
    for (i = 0; i < BENCH_TURNS; i++)
        BENCH_UNROLL
        for (k = 0; k < BENCH_CHAINS; k++)
            for (l = 0; l < BENCH_WIDTH; l++) a[k][l] = BENCH_FMA(a[k][l], x, y);
    for (k = 1; k < BENCH_CHAINS; k++)
        for (l = 0; l < BENCH_WIDTH; l++) a[0][0] += a[k][l];
    return a[0][0];
}

/* Two operations per lane, chain and turn. */
static bench_peak bench_peak_best(void)
{
    bench_peak p = { "plain C", bench_run_plain, 2.0 * BENCH_TURNS * BENCH_CHAINS * BENCH_WIDTH };
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512f")) {
        p.name = "AVX-512";
        p.run = bench_run_avx512;
        p.flops = 2.0 * BENCH_TURNS * BENCH_WIDE * 16;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        p.name = "AVX2";
        p.run = bench_run_avx2;
        p.flops = 2.0 * BENCH_TURNS * BENCH_NARROW * 8;
    }
#endif
    return p;
}

/* Every thread does the same work at the same time. */
static void bench_peak_run(const bench_peak *p, int threads)
{
    volatile float sink, y = 1e-7f;
    int i;
#ifdef _OPENMP
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
#endif
    for (i = 0; i < threads; i++) {
        float s = p->run(0.9999999f, y);
#ifdef _OPENMP
#pragma omp critical
#endif
        sink = s;
    }
    (void)sink;
}

static calomu_status bench_peak_job(bench *b)
{
    bench_peak p = bench_peak_best();
    bench_clock k;
    char name[64], text[80];
    bench_peak_run(&p, b->now_threads);              /* the clock frequency settles */
    bench_clock_begin(&k, fmin(b->seconds, 0.5), 20);
    while (bench_more(&k)) {
        bench_start(&k);
        bench_peak_run(&p, b->now_threads);
        bench_stop(&k);
    }
    (void)snprintf(name, sizeof name, "peak_t%d", b->now_threads);
    (void)snprintf(text, sizeof text, "multiply-adds in registers, %s, %d thread%s", p.name,
                   b->now_threads, b->now_threads > 1 ? "s" : "");
    return bench_send_rate(b, &k, p.flops * b->now_threads / 1e9, "GFLOP/s", name, text);
}

/* Copies between buffers larger than a second-level cache: bytes read plus bytes written. */
static calomu_status bench_copy_job(bench *b)
{
    const size_t bytes = (size_t)32 << 20;
    size_t threads = (size_t)b->now_threads;
    char *from = malloc(bytes * threads), *to = malloc(bytes * threads), name[64], text[80];
    bench_clock k;
    int i;
    if (!from || !to) {
        free(from);
        free(to);
        return tool_fail(CALOMU_EMEMORY, "no memory to measure copies");
    }
    memset(from, 1, bytes * threads);
    memset(to, 2, bytes * threads);
    bench_clock_begin(&k, fmin(b->seconds, 0.5), 5);
    while (bench_more(&k)) {
        bench_start(&k);
#ifdef _OPENMP
#pragma omp parallel for num_threads(b->now_threads) schedule(static) if (b->now_threads > 1)
#endif
        for (i = 0; i < b->now_threads; i++)
            memcpy(to + (size_t)i * bytes, from + (size_t)i * bytes, bytes);
        bench_stop(&k);
    }
    (void)snprintf(name, sizeof name, "copy_t%d", b->now_threads);
    (void)snprintf(text, sizeof text, "copying memory, %d thread%s", b->now_threads,
                   b->now_threads > 1 ? "s" : "");
    free(from);
    free(to);
    return bench_send_rate(b, &k, 2e-9 * (double)(bytes * threads), "GB/s", name, text);
}

/* ---------------------------------------------------------------- muons */

/* Muons of the file with features, in the order of their number of hits. */
typedef struct bench_muons {
    calomu_data_info info;
    calomu_events read;
    calomu_event *event;
    float *features;
    int n;
} bench_muons;

static int bench_fewer(const void *a, const void *b)
{
    const calomu_event *x = a, *y = b;
    return (x->n_hits > y->n_hits) - (x->n_hits < y->n_hits);
}

static void bench_muons_free(bench_muons *m)
{
    calomu_events_free(&m->read);
    free(m->event);
    free(m->features);
}

/* Features are computed anew, whatever the file has.  Where the true energy is absent, one is made
   up: the time of a step does not depend on it. */
static calomu_status bench_muons_fill(calomu *c, bench_muons *m, const calomu_feature_options *o)
{
    calomu_status s = CALOMU_OK;
    int i;
    m->n = (int)m->read.n;
    m->event = calloc((size_t)m->n, sizeof *m->event);
    m->features = calloc((size_t)m->n * CALOMU_FEATURES, sizeof *m->features);
    if (!m->event || !m->features) return tool_fail(CALOMU_EMEMORY, "no memory for the muons");
    for (i = 0; i < m->n && s == CALOMU_OK; i++) {
        float *row = m->features + (size_t)i * CALOMU_FEATURES;
        m->event[i] = m->read.event[i];
        if (!(m->event[i].energy > 0)) m->event[i].energy = (float)(100 + 37 * (i % 200));
        m->event[i].features = row;
        s = calomu_features(c, &m->info.geometry, &m->event[i], o, row);
    }
    if (s != CALOMU_OK) return tool_report(c, s == CALOMU_EUSAGE ? CALOMU_EFORMAT : s);
    qsort(m->event, (size_t)m->n, sizeof *m->event, bench_fewer);
    m->info.features = CALOMU_FEATURES_RAW;
    m->info.feature_options = *o;
    return CALOMU_OK;
}

/* Zero-initialised m; bench_muons_free in every case. */
static calomu_status bench_muons_load(const bench *b, calomu *c, const calomu_feature_options *o,
                                      bench_muons *m)
{
    calomu_data *data = NULL;
    calomu_status s = calomu_data_open(c, b->data_path, &data);
    if (s != CALOMU_OK) return tool_report(c, s);
    m->info = *calomu_data_describe(data);
    if (m->info.n_events == 0)
        s = tool_fail(CALOMU_EFORMAT, "%s holds no muons", b->data_path);
    else
        s = calomu_data_read(c, data, 0, NULL, m->info.n_events < BENCH_MUONS
                             ? (size_t)m->info.n_events : BENCH_MUONS, &m->read);
    if (s != CALOMU_OK && m->info.n_events > 0) (void)tool_report(c, s);
    calomu_data_close(data);
    return s == CALOMU_OK ? bench_muons_fill(c, m, o) : s;
}

/* A batch of n: the muons at the quantiles (i + 1/2)/n of the number of hits, some of them more
   than once if the file has fewer, so that a small batch is as much work per muon as a large one.
   NULL: no memory, said. */
static calomu_event *bench_batch(const bench_muons *m, int n, int copies)
{
    calomu_event *e = calloc((size_t)n * (size_t)copies, sizeof *e);
    int i;
    if (!e) (void)tool_fail(CALOMU_EMEMORY, "no memory for %d muons", n * copies);
    for (i = 0; e && i < n * copies; i++)
        e[i] = m->event[(2 * (int64_t)(i % n) + 1) * m->n / (2 * (int64_t)n)];
    return e;
}

/* A file just read is in the system's cache: this is the time of unpacking and of checksums. */
static calomu_status bench_read_job(bench *b)
{
    calomu *c = NULL;
    calomu_data *data = NULL;
    calomu_events events = { 0 };
    bench_clock k;
    double hits = 0;
    int muons = 0;
    calomu_status s = tool_open(&c, 1);
    if (s != CALOMU_OK) return s;
    s = calomu_data_open(c, b->data_path, &data);
    if (s == CALOMU_OK) {
        uint64_t n = calomu_data_describe(data)->n_events, first, step = 256;
        if (n > BENCH_MUONS) n = BENCH_MUONS;
        bench_clock_begin(&k, fmin(b->seconds, 0.5), 3);
        while (bench_more(&k) && s == CALOMU_OK) {
            size_t i;
            hits = 0;
            muons = 0;
            bench_start(&k);
            for (first = 0; first < n && s == CALOMU_OK; first += step) {
                s = calomu_data_read(c, data, first, NULL,
                                     (size_t)(n - first < step ? n - first : step), &events);
                for (i = 0; i < events.n && s == CALOMU_OK; i++, muons++)
                    hits += (double)events.event[i].n_hits;
            }
            bench_stop(&k);
        }
    }
    if (s != CALOMU_OK) (void)tool_report(c, s);
    if (s == CALOMU_OK)
        s = bench_send_time(b, &k, muons, 0, "reading", "reading a data file, 1 thread");
    if (s == CALOMU_OK)
        s = bench_send_rate(b, &k, hits / 1e6, "Mhit/s", "reading_rate", "reading a data file");
    calomu_events_free(&events);
    calomu_data_close(data);
    calomu_close(c);
    return s;
}

static calomu_status bench_features_job(bench *b)
{
    calomu *c = NULL;
    calomu_feature_options o = calomu_feature_options_default();
    bench_muons m;
    bench_clock k;
    float row[CALOMU_FEATURES];
    calomu_status s = tool_open(&c, 1);
    int i, n;
    if (s != CALOMU_OK) return s;
    memset(&m, 0, sizeof m);
    s = bench_muons_load(b, c, &o, &m);
    if (s == CALOMU_OK) {
        n = m.n < 256 ? m.n : 256;
        bench_clock_begin(&k, fmin(b->seconds, 1), 3);
        while (bench_more(&k) && s == CALOMU_OK) {
            bench_start(&k);
            for (i = 0; i < n && s == CALOMU_OK; i++)
                s = calomu_features(c, &m.info.geometry,
                                    &m.event[(2 * (int64_t)i + 1) * m.n / (2 * (int64_t)n)], &o,
                                    row);
            bench_stop(&k);
        }
        if (s != CALOMU_OK) (void)tool_report(c, s);
        else s = bench_send_time(b, &k, n, 0, "features", "28 features, 1 thread");
    }
    bench_muons_free(&m);
    calomu_close(c);
    return s;
}

/* ---------------------------------------------------------------- training */

typedef struct bench_training {
    calomu *c;
    bench_muons muons;
    calomu_event *event;
    calomu_data *data;
    calomu_trainer *trainer;
} bench_training;

static void bench_training_end(bench_training *t)
{
    calomu_trainer_free(t->trainer);
    calomu_data_close(t->data);
    free(t->event);
    bench_muons_free(&t->muons);
    calomu_close(t->c);
}

/* The paper's network on `folds` folds of one batch each, all the same muons.  The learning rate
   is small: the measurement must not run into a loss that is not finite. */
static calomu_status bench_training_begin(const bench *b, bench_training *t, int batch, int folds)
{
    calomu_train_options o = calomu_train_options_default();
    calomu_architecture a = calomu_architecture_default();
    calomu_status s;
    memset(t, 0, sizeof *t);
    s = tool_open(&t->c, b->now_threads);
    if (s == CALOMU_OK) s = bench_muons_load(b, t->c, &a.feature_options, &t->muons);
    if (s != CALOMU_OK) return s;
    t->event = bench_batch(&t->muons, batch, folds);
    if (!t->event) return CALOMU_EMEMORY;
    a.geometry = t->muons.info.geometry;
    o.batch = batch;
    o.folds = folds;
    o.holdout = 0;
    o.lr = 1e-5;
    o.epochs = o.cycle_epochs = 1000000;
    s = calomu_data_from_memory(t->c, &t->muons.info, t->event, (size_t)(batch * folds), &t->data);
    if (s == CALOMU_OK) s = calomu_trainer_create(t->c, t->data, &a, &o, &t->trainer);
    return s == CALOMU_OK ? s : tool_report(t->c, s);
}

static calomu_status bench_training_job(bench *b)
{
    int batch = b->now_batch < 2 ? 2 : b->now_batch;     /* batch norm learns from 2 and more */
    bench_training t;
    bench_clock k;
    calomu_train_report report = { 0 };
    char name[64], text[80];
    calomu_status s = bench_training_begin(b, &t, batch, BENCH_FOLDS);
    if (s == CALOMU_OK) {
        s = calomu_trainer_step(t.c, t.trainer, &report);    /* touches all memory */
        bench_clock_begin(&k, b->seconds, 2);
        while (s == CALOMU_OK && bench_more(&k)) {
            bench_start(&k);
            s = calomu_trainer_step(t.c, t.trainer, &report);
            if (s == CALOMU_OK && report.kind == CALOMU_TRAIN_UPDATE) bench_stop(&k);
        }
        if (s != CALOMU_OK) (void)tool_report(t.c, s);
    }
    (void)snprintf(name, sizeof name, "training_b%d_t%d", batch, b->now_threads);
    (void)snprintf(text, sizeof text, "training step, batch %d%s, %d thread%s", batch,
                   batch > b->now_batch ? " (the least)" : "", b->now_threads,
                   b->now_threads > 1 ? "s" : "");
    if (s == CALOMU_OK) s = bench_send_time(b, &k, batch, 1, name, text);
    bench_training_end(&t);
    return s;
}

/* ---------------------------------------------------------------- inference */

/* One update from fresh weights: batch norms that are filled, hence activations of ordinary size.
   In a child and through a file, so that the arena of the update is not taken for inference's. */
static calomu_status bench_model_job(bench *b)
{
    bench_training t;
    calomu_model *model = NULL;
    calomu_train_report report = { 0 };
    calomu_status s = bench_training_begin(b, &t, 16, 2);
    while (s == CALOMU_OK && report.kind != CALOMU_TRAIN_EPOCH) {
        s = calomu_trainer_step(t.c, t.trainer, &report);
        if (s != CALOMU_OK) (void)tool_report(t.c, s);
    }
    if (s == CALOMU_OK) {
        s = calomu_trainer_model(t.c, t.trainer, &model);
        if (s == CALOMU_OK) s = calomu_model_save(t.c, model, b->model_path);
        if (s != CALOMU_OK) (void)tool_report(t.c, s);
    }
    calomu_model_free(model);
    bench_training_end(&t);
    return s;
}

static calomu_status bench_predict(bench *b, calomu *c, const calomu_model *model,
                                   const bench_muons *m, bench_clock *k)
{
    size_t n = (size_t)b->now_batch;
    calomu_event *event = bench_batch(m, b->now_batch, 1);
    double *out = calloc(n, sizeof *out);
    calomu_data *data = NULL;
    calomu_events batch = { 0 };
    calomu_status s = event && out ? CALOMU_OK : CALOMU_EMEMORY;
    if (s == CALOMU_OK) s = calomu_data_from_memory(c, &m->info, event, n, &data);
    if (s == CALOMU_OK) s = calomu_data_read(c, data, 0, NULL, n, &batch);
    if (s == CALOMU_OK) s = calomu_predict(c, model, data, batch.event, n, out, NULL);
    bench_clock_begin(k, b->seconds, 3);
    while (s == CALOMU_OK && bench_more(k)) {
        bench_start(k);
        s = calomu_predict(c, model, data, batch.event, n, out, NULL);
        bench_stop(k);
    }
    if (s != CALOMU_OK && event && out) (void)tool_report(c, s);
    calomu_events_free(&batch);
    calomu_data_close(data);
    free(out);
    free(event);
    return s;
}

static calomu_status bench_predict_job(bench *b)
{
    calomu *c = NULL;
    calomu_model *model = NULL;
    bench_muons m;
    bench_clock k;
    char name[64], text[80];
    calomu_status s = tool_open(&c, b->now_threads);
    if (s != CALOMU_OK) return s;
    memset(&m, 0, sizeof m);
    s = calomu_model_load(c, b->model_path, &model);
    if (s != CALOMU_OK) (void)tool_report(c, s);
    else s = bench_muons_load(b, c, &calomu_model_describe(model)->architecture.feature_options,
                              &m);
    if (s == CALOMU_OK) s = bench_predict(b, c, model, &m, &k);
    (void)snprintf(name, sizeof name, "inference_b%d_t%d", b->now_batch, b->now_threads);
    (void)snprintf(text, sizeof text, "inference, batch %d, %d thread%s", b->now_batch,
                   b->now_threads, b->now_threads > 1 ? "s" : "");
    if (s == CALOMU_OK) s = bench_send_time(b, &k, b->now_batch, 1, name, text);
    bench_muons_free(&m);
    calomu_model_free(model);
    calomu_close(c);
    return s;
}

/* ---------------------------------------------------------------- single operations

   Operations run in a training graph, on random numbers, with the shapes of the paper's network.
   A result's rate is its nominal work over its time: for convolutions 2 x out x in x kernel^3 x
   sites of the result, in all three directions; for the rest the bytes of inputs and result once,
   and twice that backward (values and gradients).  Passes over halos or twice over an input thus
   show as a lower rate. */

typedef enum bench_kind {
    BENCH_OP_CONV, BENCH_OP_SPARSE, BENCH_OP_SUM, BENCH_OP_POOL, BENCH_OP_NORM,
    BENCH_OP_NORM_SWISH, BENCH_OP_SWISH, BENCH_OP_SIGMOID, BENCH_OP_MEAN, BENCH_OP_MAX,
    BENCH_OP_JOIN, BENCH_OP_ADD, BENCH_OP_SCALE, BENCH_OP_CONCAT, BENCH_OPS
} bench_kind;

static const char *const bench_kind_name[BENCH_OPS] = {
    "conv", "sparse conv", "sparse sum", "pool", "batch norm", "batch norm + swish", "swish",
    "sigmoid", "mean", "max", "join", "add", "scale", "concat"
};

typedef struct bench_shape {
    bench_kind kind;
    int size[3], in, out;            /* sites and channels of the input, channels of the result */
    int kernel, stride, pad, uses;
} bench_shape;

typedef struct bench_ops {
    bench *b;
    calomu *c;
    cm_graph *g;                     /* NULL: not made yet */
    unsigned char *arena;
    size_t arena_size;
    int muons;
    cm_hits hits;
    double n_hits;
    cm_real *noise;                  /* for rows of activations and for weights */
    size_t n_noise;
    cm_real *gradient;               /* of weights, and a batch norm's buffers */
    size_t n_gradient;
    cm_tensor *in[3];                /* of the operation in the graph; NULL behind the last */
    cm_tensor *out;
} bench_ops;

static size_t bench_sites(const cm_tensor *t)
{
    return (size_t)t->nz * (size_t)t->nx * (size_t)t->ny;
}

/* Random numbers in the interior of values or gradient; the halo stays as it is. */
static void bench_noise_fill(const bench_ops *o, const cm_tensor *t, cm_real *base)
{
    size_t row = (size_t)(t->ny * t->nc) * CM_LANES, at = 0;
    int k, z, x;
    for (k = 0; k < t->groups; k++)
        for (z = 0; z < t->nz; z++)
            for (x = 0; x < t->nx; x++) {
                size_t site = t->row_z * (size_t)z + t->row_x * (size_t)x;
                cm_real *to = base + t->group * (size_t)k + t->origin
                    + site * (size_t)t->nc * CM_LANES;
                at = (at + 1009) % (o->n_noise - row);
                memcpy(to, o->noise + at, row * sizeof *to);
            }
}

static cm_tensor *bench_input(bench_ops *o, const int size[3], int nc, int needs, int dry)
{
    /* 2 sites of halo serve every kernel of the network. */
    int halo = size[0] * size[1] * size[2] == 1 ? 0 : 2;
    cm_tensor *t = cm_input(o->g, o->muons, size[0], size[1], size[2], nc, halo, halo, needs);
    if (t && !dry) bench_noise_fill(o, t, t->x);
    return t;
}

/* The inputs of an operation, in a graph without anything else. */
static void bench_op_inputs(bench_ops *o, const bench_shape *s, int needs, int dry)
{
    static const int one[3] = { 1, 1, 1 };
    memset(o->in, 0, sizeof o->in);
    cm_graph_reset(o->g);
    if (s->kind == BENCH_OP_SPARSE || s->kind == BENCH_OP_SUM) return;
    o->in[0] = bench_input(o, s->size, s->in, needs, dry);
    if (s->kind == BENCH_OP_JOIN || s->kind == BENCH_OP_ADD || s->kind == BENCH_OP_CONCAT)
        o->in[1] = bench_input(o, s->size, s->in, needs, dry);
    if (s->kind == BENCH_OP_JOIN) o->in[2] = bench_input(o, one, s->in, needs, dry);
    if (s->kind == BENCH_OP_SCALE) o->in[1] = bench_input(o, one, s->in, needs, dry);
}

static cm_norm bench_norm(const bench_ops *o, int nc, cm_weight w)
{
    cm_real *buffer = o->gradient + 2 * nc;      /* behind the gradients of weight and bias */
    cm_norm n;
    memset(&n, 0, sizeof n);
    n.weight = n.bias = w;
    if (w.dx) n.bias.dx = w.dx + nc;
    n.sums = buffer;
    n.squares = buffer + nc;
    n.count = buffer + 2 * nc;
    n.batch = buffer + 2 * nc + 1;
    return n;
}

/* The operation itself: the part that is timed.  weights: a gradient of weights is wanted. */
static void bench_op_apply(bench_ops *o, const bench_shape *s, int weights)
{
    static const cm_weight none = { NULL, NULL };
    cm_tensor *x = o->in[0], *y = o->in[1];
    cm_weight w;
    w.x = o->noise;
    w.dx = weights ? o->gradient : NULL;
    switch (s->kind) {
    case BENCH_OP_CONV:
        o->out = cm_conv(o->g, x, w, none, s->out, s->kernel, s->stride, s->pad, 0);
        break;
    case BENCH_OP_SPARSE:
        o->out = cm_sparse_conv(o->g, &o->hits, w, s->out, s->kernel, s->stride, s->pad, 0);
        break;
    case BENCH_OP_SUM: o->out = cm_sparse_sum(o->g, &o->hits, 1, 0); break;
    case BENCH_OP_POOL: o->out = cm_pool(o->g, x, 0, s->in, 0.125, 0); break;
    case BENCH_OP_NORM:
    case BENCH_OP_NORM_SWISH:
        o->out = cm_batchnorm(o->g, x, bench_norm(o, s->in, w), s->kind == BENCH_OP_NORM_SWISH, 1,
                              1);
        break;
    case BENCH_OP_SWISH: o->out = cm_swish(o->g, x); break;
    case BENCH_OP_SIGMOID: o->out = cm_sigmoid(o->g, x); break;
    case BENCH_OP_MEAN: o->out = cm_mean(o->g, x); break;
    case BENCH_OP_MAX: o->out = cm_max(o->g, x); break;
    case BENCH_OP_JOIN: o->out = cm_join(o->g, x, x, y, o->in[2], 2); break;
    case BENCH_OP_ADD: o->out = cm_add(o->g, x, y); break;
    case BENCH_OP_SCALE: o->out = cm_scale(o->g, x, y); break;
    case BENCH_OP_CONCAT: o->out = cm_concat(o->g, x, y); break;
    case BENCH_OPS: o->out = NULL; break;
    }
}

/* The gradient of the result, in place for cm_backward. */
static void bench_op_gradient(bench_ops *o, int dry)
{
    cm_real *d = o->out ? cm_gradient(o->g, o->out) : NULL;
    if (d && !dry) bench_noise_fill(o, o->out, d);
}

static int bench_has_weights(const bench_shape *s)
{
    return s->kind == BENCH_OP_CONV || s->kind == BENCH_OP_SPARSE;
}

/* Makes the arena large enough for the operation, by a dry run, and a graph in it. */
static calomu_status bench_op_arena(bench_ops *o, const bench_shape *s)
{
    calomu_status status;
    size_t need;
    cm_graph_free(o->g);
    o->g = cm_graph_new(o->c, NULL, 0, o->b->threads, 1);
    if (!o->g) return CALOMU_EMEMORY;
    bench_op_inputs(o, s, 1, 1);
    bench_op_apply(o, s, 1);
    bench_op_gradient(o, 1);
    cm_backward(o->g);
    status = cm_graph_status(o->g);
    need = cm_graph_peak(o->g);
    cm_graph_free(o->g);
    o->g = NULL;
    if (status != CALOMU_OK) return status;
    if (need > o->arena_size) {
        cm_release(o->c, o->arena);
        o->arena = cm_allocate(o->c, need + 64, 1);
        o->arena_size = o->arena ? need : 0;
        if (!o->arena) return CALOMU_EMEMORY;
    }
    o->g = cm_graph_new(o->c, o->arena + (64 - (uintptr_t)o->arena % 64) % 64, o->arena_size,
                        o->b->threads, 1);
    return o->g ? CALOMU_OK : CALOMU_EMEMORY;
}

/* Nominal work per muon in one direction, GFLOP or GB. */
static double bench_op_work(const bench_ops *o, const bench_shape *s, int direction)
{
    double sites = o->out ? (double)bench_sites(o->out) : 0, reals;
    int reach = s->stride > 0 ? s->kernel / s->stride : 0, i;
    if (s->kind == BENCH_OP_CONV)
        return 2e-9 * s->out * s->in * s->kernel * s->kernel * s->kernel * sites;
    if (s->kind == BENCH_OP_SPARSE)              /* each hit reaches so many results */
        return 2e-9 * s->out * reach * reach * reach * o->n_hits / o->muons;
    reals = o->out ? sites * o->out->nc : 0;
    for (i = 0; i < 3 && o->in[i]; i++) reals += (double)bench_sites(o->in[i]) * o->in[i]->nc;
    return 1e-9 * (double)sizeof(cm_real) * reals * (direction == BENCH_FORWARD ? 1 : 2)
        + (s->kind == BENCH_OP_SUM ? 1e-9 * (double)sizeof(calomu_hit) * o->n_hits / o->muons : 0);
}

static calomu_status bench_op_time(bench_ops *o, const bench_shape *s, int direction,
                                   bench_row *row)
{
    int weights = direction == BENCH_TO_WEIGHTS
        || (direction == BENCH_TO_INPUT && !bench_has_weights(s));
    double least, median, work = 0;
    bench_clock k;
    bench_clock_begin(&k, o->b->seconds / 10, 4);
    while (bench_more(&k)) {
        bench_op_inputs(o, s, direction != BENCH_TO_WEIGHTS, 0);
        if (direction == BENCH_FORWARD) bench_start(&k);
        bench_op_apply(o, s, weights);
        if (direction == BENCH_FORWARD) bench_stop(&k);
        if (cm_graph_status(o->g) != CALOMU_OK) return cm_graph_status(o->g);
        work = bench_op_work(o, s, direction) * o->muons;
        if (direction == BENCH_FORWARD) continue;
        bench_op_gradient(o, 0);
        bench_start(&k);
        cm_backward(o->g);
        bench_stop(&k);
        if (cm_graph_status(o->g) != CALOMU_OK) return cm_graph_status(o->g);
    }
    bench_times(&k, &least, &median);
    row->best[direction] = work / least;
    row->median[direction] = work / median;
    row->milliseconds[direction] = 1e3 * least / o->muons;
    row->work[direction] = work / o->muons;
    return CALOMU_OK;
}

static void bench_op_name(const bench_shape *s, bench_row *row)
{
    char *p, *to;
    int cube = s->kernel;
    if (s->kind == BENCH_OP_CONV && s->size[0] * s->size[1] * s->size[2] == 1)
        (void)snprintf(row->text, sizeof row->text, "linear %d > %d", s->in, s->out);
    else if (s->kind == BENCH_OP_CONV || s->kind == BENCH_OP_SPARSE)
        (void)snprintf(row->text, sizeof row->text, "%s %d/%d, %d > %d, %dx%dx%d",
                       bench_kind_name[s->kind], cube, s->stride, s->in, s->out, s->size[0],
                       s->size[1], s->size[2]);
    else
        (void)snprintf(row->text, sizeof row->text, "%s, %d, %dx%dx%d", bench_kind_name[s->kind],
                       s->in, s->size[0], s->size[1], s->size[2]);
    (void)snprintf(row->name, sizeof row->name, "%s", row->text);
    /* In the CSV one '_' for all that is no letter or digit. */
    for (p = to = row->name; *p; p++)
        if (strchr("abcdefghijklmnopqrstuvwxyz0123456789", *p)) *to++ = *p;
        else if (to > row->name && to[-1] != '_') *to++ = '_';
    *to = 0;
}

/* All directions of one operation. */
static calomu_status bench_op(bench_ops *o, const bench_shape *s)
{
    int conv = s->kind == BENCH_OP_CONV || s->kind == BENCH_OP_SPARSE;
    bench_row row = bench_row_new(conv ? BENCH_CONV : BENCH_PASS, conv ? "GFLOP/s" : "GB/s");
    calomu_status status = bench_op_arena(o, s);
    bench_op_name(s, &row);
    row.uses = s->uses;
    memset(o->gradient, 0, o->n_gradient * sizeof *o->gradient);
    if (status == CALOMU_OK) status = bench_op_time(o, s, BENCH_FORWARD, &row);
    if (status == CALOMU_OK && s->kind != BENCH_OP_SPARSE && s->kind != BENCH_OP_SUM)
        status = bench_op_time(o, s, BENCH_TO_INPUT, &row);
    if (status == CALOMU_OK && bench_has_weights(s))
        status = bench_op_time(o, s, BENCH_TO_WEIGHTS, &row);
    return status == CALOMU_OK ? bench_send(o->b, &row) : tool_report(o->c, status);
}

/* ---------------------------------------------------------------- the network's operations */

enum { BENCH_RESOLUTIONS = 4, BENCH_SHAPES = 128 };

typedef struct bench_list {
    bench_shape shape[BENCH_SHAPES];
    int n;
} bench_list;

/* Adds an operation, or another use of one that is there. */
static void bench_list_add(bench_list *l, bench_kind kind, const int size[3], int in, int out,
                           int kernel, int stride, int pad)
{
    bench_shape s;
    int i;
    memset(&s, 0, sizeof s);
    s.kind = kind;
    memcpy(s.size, size, sizeof s.size);
    s.in = in;
    s.out = out;
    s.kernel = kernel;
    s.stride = stride;
    s.pad = pad;
    for (i = 0; i < l->n; i++) {
        const bench_shape *p = &l->shape[i];
        if (p->kind == kind && memcmp(p->size, size, sizeof s.size) == 0 && p->in == in
            && p->out == out && p->kernel == kernel && p->stride == stride)
            break;
    }
    if (i == BENCH_SHAPES) return;
    if (i == l->n) l->shape[l->n++] = s;
    l->shape[i].uses++;
}

static void bench_list_linears(bench_list *l, const calomu_architecture *a, int head)
{
    static const int one[3] = { 1, 1, 1 };
    int i;
    bench_list_add(l, BENCH_OP_CONV, one, a->n_features + head, a->body, 1, 1, 0);
    for (i = 0; i < 2; i++) bench_list_add(l, BENCH_OP_CONV, one, a->body, a->body, 1, 1, 0);
}

/* The passes over memory of one resolution: what surrounds convolutions of C channels. */
static void bench_list_passes(bench_list *l, const int size[3], int C, int last)
{
    bench_list_add(l, BENCH_OP_NORM_SWISH, size, C, C, 0, 0, 0);
    bench_list_add(l, BENCH_OP_JOIN, size, C, C, 0, 0, 0);
    bench_list_add(l, BENCH_OP_MEAN, size, C, C, 0, 0, 0);
    if (!last) {
        bench_list_add(l, BENCH_OP_SWISH, size, C, C, 0, 0, 0);
        bench_list_add(l, BENCH_OP_NORM, size, C, C, 0, 0, 0);
        bench_list_add(l, BENCH_OP_POOL, size, C, C, 2, 2, 1);
        return;
    }
    bench_list_add(l, BENCH_OP_MAX, size, C, C, 0, 0, 0);
    bench_list_add(l, BENCH_OP_SIGMOID, size, C, C, 0, 0, 0);
    bench_list_add(l, BENCH_OP_ADD, size, C, C, 0, 0, 0);
    bench_list_add(l, BENCH_OP_SCALE, size, C, C, 0, 0, 0);
    bench_list_add(l, BENCH_OP_CONCAT, size, C, C, 0, 0, 0);
}

/* Walks the blocks of spec 3: channels grow by one in each block and by `growth` where the grid is
   halved; a halved axis of n sites has n/2 + 1. */
static void bench_list_fill(bench_list *l, const calomu_geometry *g)
{
    calomu_architecture a = calomu_architecture_default();
    int size[3], half[3], in = 1, out = 8, r, i, k;
    size[0] = g->nz;
    size[1] = g->nx;
    size[2] = g->ny;
    for (r = 0; r < BENCH_RESOLUTIONS; r++) {
        if (r > 0) out = (int)floor(a.growth * in);
        for (k = 0; k < 3; k++) half[k] = size[k] / 2 + 1;
        bench_list_add(l, r ? BENCH_OP_CONV : BENCH_OP_SPARSE, size, in, out, 4, 2, 2);
        bench_list_add(l, BENCH_OP_CONV, half, in, out, 1, 1, 0);
        bench_list_add(l, BENCH_OP_CONV, half, out, out, 3, 1, 1);
        if (r == 0) bench_list_add(l, BENCH_OP_SUM, size, 1, 1, 2, 2, 1);
        memcpy(size, half, sizeof size);
        for (i = 1, in = out + 1; i < a.blocks; i++, in++)
            for (k = 0; k < 2; k++) bench_list_add(l, BENCH_OP_CONV, size, in, in, 3, 1, 1);
        bench_list_passes(l, size, in, r == BENCH_RESOLUTIONS - 1);
    }
    bench_list_linears(l, &a, 2 * in);
}

/* Most reals in a row, and in the weights or buffers of an operation. */
static size_t bench_list_room(const bench_list *l)
{
    size_t most = 0;
    int i;
    for (i = 0; i < l->n; i++) {
        const bench_shape *s = &l->shape[i];
        size_t row = (size_t)(s->size[2] * (s->in + s->out + 1)) * CM_LANES;
        size_t weights = (size_t)(s->in * s->out) * (size_t)(s->kernel * s->kernel * s->kernel);
        if (row > most) most = row;
        if (weights > most) most = weights;
        if (8 * (size_t)s->in > most) most = 8 * (size_t)s->in;
    }
    return most;
}

static calomu_status bench_ops_begin(bench_ops *o, const bench_list *l)
{
    size_t room = bench_list_room(l), i;
    uint32_t word[4];
    o->n_noise = room + 65536;
    o->noise = cm_allocate(o->c, o->n_noise, sizeof *o->noise);
    o->n_gradient = room;
    o->gradient = cm_allocate(o->c, room, sizeof *o->gradient);
    if (!o->noise || !o->gradient) return tool_report(o->c, CALOMU_EMEMORY);
    for (i = 0; i < o->n_noise; i++) {           /* uniform in (-1, 1) */
        if (i % 4 == 0) calomu_random(1, 1, i / 4, word);
        o->noise[i] = (cm_real)(word[i % 4] / 2147483648.0 - 1);
    }
    for (i = 0; i < (size_t)o->muons; i++) o->n_hits += (double)o->hits.event[i].n_hits;
    return CALOMU_OK;
}

/* All operations at the largest batch, in whole groups of lanes; convolutions first. */
static calomu_status bench_ops_job(bench *b)
{
    calomu_feature_options features = calomu_feature_options_default();
    calomu_event *event = NULL;
    bench_list list;
    bench_muons m;
    bench_ops o;
    calomu_status s;
    int i, convolutions;
    memset(&o, 0, sizeof o);
    memset(&m, 0, sizeof m);
    memset(&list, 0, sizeof list);
    o.b = b;
    s = tool_open(&o.c, b->threads);
    if (s == CALOMU_OK) s = bench_muons_load(b, o.c, &features, &m);
    if (s == CALOMU_OK) {
        o.muons = (b->now_batch + CM_LANES - 1) / CM_LANES * CM_LANES;
        o.hits.event = event = bench_batch(&m, o.muons, 1);
        o.hits.muons = o.muons;
        o.hits.nz = m.info.geometry.nz;
        o.hits.nx = m.info.geometry.nx;
        o.hits.ny = m.info.geometry.ny;
        bench_list_fill(&list, &m.info.geometry);
        s = event ? bench_ops_begin(&o, &list) : CALOMU_EMEMORY;
    }
    for (convolutions = 1; convolutions >= 0; convolutions--)
        for (i = 0; i < list.n && s == CALOMU_OK; i++)
            if (bench_has_weights(&list.shape[i]) == convolutions) s = bench_op(&o, &list.shape[i]);
    cm_graph_free(o.g);
    cm_release(o.c, o.arena);
    cm_release(o.c, o.noise);
    cm_release(o.c, o.gradient);
    free(event);
    bench_muons_free(&m);
    calomu_close(o.c);
    return s;
}

/* ---------------------------------------------------------------- table and CSV */

static void bench_csv(const bench *b, const char *name, const char *what, double x,
                      const char *unit)
{
    if (!b->csv || isnan(x)) return;
    tool_write_format(b->csv, "%s%s%s,", name, *what ? "_" : "", what);
    tool_write_number(b->csv, x, 6);
    tool_write_format(b->csv, ",%s\n", unit);
}

static void bench_heading(bench_section section)
{
    if (section == BENCH_SPEED)
        printf("\n%-46s %9s %9s %9s %10s\n", "ms per muon", "best", "median", "processor",
               "memory");
    else if (section == BENCH_RATE)
        printf("\n%-46s %9s %9s\n", "machine", "best", "median");
    else
        printf("\n%-32s%21s%21s%21s\n%-32s%21s%21s%21s\n",
               section == BENCH_CONV ? "GFLOP/s" : "GB/s", "forward", "backward to input",
               section == BENCH_CONV ? "backward to weights" : "", "",
               section == BENCH_CONV ? "best median  %peak" : "best  median",
               section == BENCH_CONV ? "best median  %peak" : "best  median",
               section == BENCH_CONV ? "best median  %peak" : "");
}

static void bench_print_operation(bench *b, const bench_row *row)
{
    static const char *const way[BENCH_DIRECTIONS] = { "forward", "to_input", "to_weights" };
    char name[112];
    int i;
    printf("%-32s", row->text);
    for (i = 0; i < BENCH_DIRECTIONS; i++) {
        if (isnan(row->best[i])) {
            if (i < BENCH_TO_WEIGHTS) printf("%21s", "");
            continue;
        }
        if (row->section == BENCH_CONV && b->peak > 0)
            printf("%9.1f%7.1f%4.0f%%", row->best[i], row->median[i],
                   100 * row->best[i] / b->peak);
        else
            printf("%13.1f%8.1f", row->best[i], row->median[i]);
        (void)snprintf(name, sizeof name, "%s_%s", row->name, way[i]);
        bench_csv(b, name, "best", row->best[i], row->unit);
        bench_csv(b, name, "median", row->median[i], row->unit);
        bench_csv(b, name, "time", row->milliseconds[i], "ms/muon");
        if (row->section == BENCH_CONV) {
            b->conv_time += row->uses * row->milliseconds[i];
            b->conv_work += row->uses * row->work[i];
        }
    }
    printf("\n");
}

static void bench_print(bench *b, const bench_row *row)
{
    int time = row->section == BENCH_SPEED;
    if (row->section == BENCH_CONV || row->section == BENCH_PASS) {
        bench_print_operation(b, row);
        return;
    }
    if (time) printf("%-46s %9.3f %9.3f %9.3f", row->text, row->best[0], row->median[0],
                     row->processor);
    else printf("%-46s %9.1f %9.1f %s", row->text, row->best[0], row->median[0], row->unit);
    if (row->memory > 0) printf(" %7.0f MB", row->memory);
    printf("\n");
    bench_csv(b, row->name, time ? "min" : "best", row->best[0], row->unit);
    bench_csv(b, row->name, "median", row->median[0], row->unit);
    if (time) bench_csv(b, row->name, "processor", row->processor, row->unit);
    if (row->memory > 0) bench_csv(b, row->name, "memory", row->memory, "MB");
    if (strncmp(row->name, "peak_", 5) == 0 && row->best[0] > b->peak) b->peak = row->best[0];
}

/* ---------------------------------------------------------------- measurements in children */

typedef calomu_status (*bench_job)(bench *b);

/* The child.  Its end must not write the parent's buffered output again. */
static void bench_child(bench *b, bench_job job, int fd)
{
    calomu_status s;
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    b->pipe = fd;
    s = job(b);
    _exit((int)s);
}

/* Prints the rows of a child until it closes the pipe, or a signal comes, which ends the child. */
static calomu_status bench_receive(bench *b, int fd, pid_t child)
{
    bench_row row;
    size_t have = 0;
    for (;;) {
        struct pollfd p;
        ssize_t n = 0;
        p.fd = fd;
        p.events = POLLIN;
        p.revents = 0;
        if (tool_stop) {
            (void)kill(child, SIGTERM);
            return CALOMU_STOPPED;
        }
        if (poll(&p, 1, 100) <= 0) continue;
        n = read(fd, (char *)&row + have, sizeof row - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return CALOMU_OK;
        have += (size_t)n;
        if (have < sizeof row) continue;
        have = 0;
        bench_print(b, &row);
        (void)fflush(stdout);
    }
}

static calomu_status bench_ended(pid_t child)
{
    int status = 0;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return tool_fail(CALOMU_EIO, "a measurement got lost: %s", strerror(errno));
    if (WIFEXITED(status)) return (calomu_status)WEXITSTATUS(status);
    if (tool_stop) return CALOMU_STOPPED;        /* the same signal may have come to the child */
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return tool_fail(CALOMU_EMEMORY, "the system killed a measurement, probably for want of"
                         " memory: give a smaller --batch");
    return tool_fail(CALOMU_EIO, "a measurement ended by signal %d", WTERMSIG(status));
}

static calomu_status bench_measure(bench *b, bench_job job, int batch, int threads)
{
    int fd[2];
    pid_t child;
    calomu_status s, end;
    b->now_batch = batch;
    b->now_threads = threads;
    (void)fflush(stdout);
    if (pipe(fd) != 0) return tool_fail(CALOMU_EIO, "no pipe: %s", strerror(errno));
    child = fork();
    if (child == 0) {
        (void)close(fd[0]);
        bench_child(b, job, fd[1]);
    }
    (void)close(fd[1]);
    if (child < 0) {
        s = tool_fail(CALOMU_EMEMORY, "no process for a measurement: %s", strerror(errno));
        (void)close(fd[0]);
        return s;
    }
    s = bench_receive(b, fd[0], child);
    (void)close(fd[0]);
    end = bench_ended(child);
    return s != CALOMU_OK ? s : end;
}

/* With all threads, then with one. */
static calomu_status bench_both(bench *b, bench_job job, int batch)
{
    calomu_status s = bench_measure(b, job, batch, b->threads);
    if (s == CALOMU_OK && b->threads > 1) s = bench_measure(b, job, batch, 1);
    return s;
}

/* ---------------------------------------------------------------- the verb */

static calomu_status bench_batches(bench *b, const char *text)
{
    const char *p = text;
    while (b->n_batches < BENCH_BATCHES) {
        int n = 0, digits = 0;
        for (; *p >= '0' && *p <= '9' && n <= BENCH_LARGEST; p++, digits++) n = 10 * n + (*p - '0');
        if (!digits || n < 1 || n > BENCH_LARGEST || (*p && *p != ',')) break;
        b->batch[b->n_batches++] = n;
        if (!*p++) return CALOMU_OK;
    }
    return tool_misuse("--batch %.80s: must be at most %d whole numbers from 1 to %d with commas"
                       " between them", text, (int)BENCH_BATCHES, (int)BENCH_LARGEST);
}

/* A name for the model of the inference runs, in TMPDIR or /tmp. */
static calomu_status bench_make_model(bench *b)
{
    const char *folder = getenv("TMPDIR");
    int fd, n = snprintf(b->made, sizeof b->made, "%s/calomu_bench_XXXXXX",
                         folder && *folder ? folder : "/tmp");
    fd = n > 0 && (size_t)n < sizeof b->made ? mkstemp(b->made) : -1;
    if (fd < 0) {
        b->made[0] = 0;
        return tool_fail(CALOMU_EIO, "no file for a model in %s: %s (--model FILE takes one that"
                         " is there)", folder && *folder ? folder : "/tmp", strerror(errno));
    }
    (void)close(fd);
    b->model_path = b->made;
    return bench_measure(b, bench_model_job, 16, b->threads);
}

static calomu_status bench_operations(bench *b)
{
    int i, batch = b->batch[0];
    calomu_status s;
    for (i = 1; i < b->n_batches; i++)
        if (b->batch[i] > batch) batch = b->batch[i];
    bench_heading(BENCH_CONV);
    s = bench_measure(b, bench_ops_job, batch, b->threads);
    if (s != CALOMU_OK || !(b->conv_time > 0)) return s;
    printf("\nAll convolutions of a training step: %.3f ms/muon, %.1f GFLOP/s, %.0f%% of peak.\n"
           "Work: a convolution 2 x in x out x kernel^3 x sites of the result, padding counted (so"
           " that a rate\nmay pass the peak where padding is skipped); the rest inputs and result"
           " once, twice backward.\n",
           b->conv_time, 1e3 * b->conv_work / b->conv_time,
           b->peak > 0 ? 1e5 * b->conv_work / b->conv_time / b->peak : 0);
    bench_csv(b, "convolutions_training", "min", b->conv_time, "ms/muon");
    bench_csv(b, "convolutions_training", "best", 1e3 * b->conv_work / b->conv_time, "GFLOP/s");
    return s;
}

static calomu_status bench_all(bench *b)
{
    calomu_status s;
    int i;
    bench_heading(BENCH_RATE);
    s = bench_both(b, bench_peak_job, 0);
    if (s == CALOMU_OK) s = bench_both(b, bench_copy_job, 0);
    if (s != CALOMU_OK) return s;
    bench_heading(BENCH_SPEED);
    s = bench_measure(b, bench_read_job, 0, 1);
    if (s == CALOMU_OK) s = bench_measure(b, bench_features_job, 0, 1);
    for (i = 0; i < b->n_batches && s == CALOMU_OK; i++)
        s = bench_both(b, bench_training_job, b->batch[i]);
    if (s == CALOMU_OK && !b->model_path) s = bench_make_model(b);
    for (i = 0; i < b->n_batches && s == CALOMU_OK; i++)
        s = bench_both(b, bench_predict_job, b->batch[i]);
    if (s == CALOMU_OK)
        printf("\nMuons are in memory with their features.  Processor: time of all threads"
               " together.  Memory:\nthe most that the process had resident.  Training needs"
               " batches of 2 and more: batch norm learns\nfrom them.\n");
    if (s == CALOMU_OK && b->operations) s = bench_operations(b);
    return s;
}

/* Bad files are found before anything is measured. */
static calomu_status bench_check(bench *b)
{
    calomu_data *data = NULL;
    calomu_model *model = NULL;
    calomu_status s = calomu_data_open(b->c, b->data_path, &data);
    if (s == CALOMU_OK && b->model_path) s = calomu_model_load(b->c, b->model_path, &model);
    if (s != CALOMU_OK)
        (void)tool_report(b->c, s);
    else if (calomu_data_describe(data)->n_events == 0)
        s = tool_fail(CALOMU_EFORMAT, "%s holds no muons", b->data_path);
    calomu_model_free(model);
    calomu_data_close(data);
    return s;
}

static calomu_status bench_run(bench *b)
{
    calomu_status s = bench_check(b);
    if (s == CALOMU_OK && b->csv_path) s = tool_writer_open(b->c, b->csv_path, &b->csv);
    if (s != CALOMU_OK) return s;
    if (b->csv) tool_write_text(b->csv, "row,value,unit\n");
    printf("%s\nmuons: %s; at least %g s for each measurement\n", calomu_build_info(b->c),
           b->data_path, b->seconds);
    s = bench_all(b);
    if (*b->made) (void)unlink(b->made);
    if (s != CALOMU_OK || !b->csv) {
        tool_writer_abandon(b->csv);
        return s;
    }
    return tool_writer_close(b->csv);
}

int verb_bench(int argc, char **argv)
{
    const char *batches = "256,64,1";
    int32_t threads = 0;
    bench b;
    tool_option options[] = {
        { .name = "data", .type = TOOL_STRING, .target = &b.data_path, .value = "FILE.cmu",
          .help = "muons to work on, again and again where a batch needs more" },
        { .name = "model", .type = TOOL_STRING, .target = &b.model_path, .value = "FILE",
          .help = "model for the inference runs", .preset = "the paper's, hardly trained" },
        { .name = "batch", .type = TOOL_STRING, .target = &batches, .value = "N,M,...",
          .help = "muons in a batch" },
        TOOL_OPTION_THREADS(&threads),
        { .name = "seconds", .type = TOOL_DOUBLE, .target = &b.seconds, .value = "S",
          .help = "time for each measurement, at least (s)", .low = 0.01, .high = 3600 },
        { .name = "operations", .type = TOOL_FLAG, .target = &b.operations,
          .help = "also each operation of the network, against the machine's peak" },
        { .name = "csv", .type = TOOL_STRING, .target = &b.csv_path, .value = "OUT.csv",
          .help = "results as row,value,unit" },
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "bench",
        .purpose = "Measures training, inference, features and reading on this machine, with all\n"
                   "threads and with one, and their peak memory.",
        .options = options,
        .notes = "Best is the least time or the highest rate of all repetitions: what the machine\n"
                 "can do when nothing disturbs it.  Processor time is that of all threads."
    };
    int code;
    memset(&b, 0, sizeof b);
    b.data_path = "testdata/muons.cmu";
    b.seconds = 3;
    code = tool_parse(&usage, argc, argv);
    if (code < 0) code = (int)bench_batches(&b, batches);
    else return code;
    if (code != CALOMU_OK) return code;
    b.threads = threads > 0 ? (int)threads : calomu_threads_available();
    code = (int)tool_open(&b.c, 1);
    if (code != CALOMU_OK) return code;
    tool_signals_catch();
    code = (int)bench_run(&b);
    calomu_close(b.c);
    if (tool_stop) tool_signals_obey();
    return code;
}
