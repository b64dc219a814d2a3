/* bench.c - `calomu bench`: the speed and memory of this machine on real muons, against peers.

   Whatever is compared is measured at the same time.  Each side (our training on all threads, on
   one, PyTorch's ...) is a process of its own, a fork or a command, which prepares itself, says
   `ready UNITS TEXT` (units of work in a repetition: muons, GB), and then for each line `go` that
   it reads does one repetition and answers `SECONDS MEGABYTES` (most resident memory so far).  The
   sides of a group take turns, so what else the machine does hits all of them.  It can only slow
   work down: the least time counts; the median beside it says how busy the machine was.

   A parent of forks runs nothing parallel itself: OpenMP's threads do not survive one.  */
#define CALOMU_INTERNALS             /* the profile; everything else is public interface */
#include "calomu_tool.h"
#ifdef CALOMU_CUDA
#include "../cuda/calomu_cuda.h"
#endif

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

enum {
    BENCH_MUONS = 1024,              /* read from the file, at most */
    BENCH_MADE = 8,                  /* different muons, if they are made up */
    BENCH_FOLDS = 8,                 /* of the training: one is monitored */
    BENCH_SAMPLES = 1000,
    BENCH_SIDES = 8,                 /* in a group */
    BENCH_LEAST = 3                  /* repetitions */
};

/* ---------------------------------------------------------------- figures and their targets */

typedef struct bench_row {
    const char *name, *text, *unit;
    double target;
    int most;                        /* 1: the target is an upper bound */
} bench_row;

static const bench_row bench_rows[] = {
    { "train_vs_torch_256", "training step against PyTorch, both at 256", "times", 7, 0 },
    { "train_vs_torch_best", "the same, PyTorch at its best batch", "times", 4.5, 0 },
    { "infer_vs_torch_256", "inference against PyTorch, both at 256", "times", 6, 0 },
    { "infer_vs_torch_best", "the same, PyTorch at its best batch", "times", 4, 0 },
    { "train_vs_newest", "training step against the newest peer at its best", "times", 3, 0 },
    { "infer_vs_newest", "inference against the newest peer at its best", "times", 3, 0 },
    { "conv_forward_peak", "convolutions forward, of the peak", "%", 65, 0 },
    { "conv_backward_input_peak", "convolutions backward to input, of the peak", "%", 65, 0 },
    { "conv_backward_weight_peak", "convolutions backward to weights, of the peak", "%", 65, 0 },
    { "other_share", "all but convolutions, of a training step", "%", 15, 1 },
    { "one_muon_ms", "one muon alone, hits to GeV, 1 thread", "ms", 8, 1 },
    { "sixteen_muons_ms", "16 muons, hits to GeV, 1 thread", "ms", 60, 1 },
    { "train_gb", "memory of training", "GB", 2, 1 },
    { "train_recompute_gb", "memory of training with --recompute", "GB", 1.2, 1 },
    { "features_ms", "28 features of a muon, 1 thread", "ms", 0.3, 1 },
    { "read_gb_per_s", "reading a data file, decoded hits, 1 thread", "GB/s", 1, 0 },
    { "bytes_per_hit", "data file, bytes of a hit", "bytes", 4.2, 1 },
    { "bytes_per_hit_full", "the same, mantissas filled at random", "bytes", 5.3, 1 },
    { "start_ms", "calomu predict on one muon, whole process", "ms", 30, 1 },
    { "two_threads", "2 threads against 1, training or inference", "times", 1.85, 0 }
};

/* On a GPU, in equal and in fast math. */
#define BENCH_GPU_ROWS(train, infer, one) \
    { "gpu_train_256", "training, batch 256", "1/s", train, 0 }, \
    { "gpu_train_best", "training, its best batch", "1/s", train, 0 }, \
    { "gpu_infer_1024", "inference, batch 1024", "1/s", infer, 0 }, \
    { "gpu_one_muon_ms", "one muon alone, hits to GeV", "ms", one, 1 }, \
    { "gpu_train_gb", "memory of training on the device, batch 256", "GB", 3, 1 }, \
    { "gpu_train_vs_torch", "training against PyTorch there, each at its best", "times", 1, 0 }, \
    { "gpu_infer_vs_torch", "inference against PyTorch there, each at its best", "times", 1, 0 }
static const bench_row bench_equal_rows[] = { BENCH_GPU_ROWS(8000, 40000, 2) };
static const bench_row bench_fast_rows[] = { BENCH_GPU_ROWS(16000, 80000, 1) };
enum {
    BENCH_ROWS = sizeof bench_rows / sizeof bench_rows[0],
    BENCH_DEVICE_ROWS = sizeof bench_equal_rows / sizeof bench_equal_rows[0]
};

typedef struct bench bench;
typedef calomu_status (*bench_job)(bench *b, int batch);

typedef struct bench_side {
    char text[100];
    pid_t pid;
    FILE *to, *from;                 /* NULL: lost */
    double units;                    /* of a repetition */
    double sample[BENCH_SAMPLES];    /* seconds */
    int n;
    double memory;                   /* MB */
    calomu_status status;            /* of a process that ended too early */
} bench_side;

struct bench {
    const char *data_path, *model_path, *csv_path, *program, *yardstick, *newest, *batches;
    const char *scaling_path;
    int32_t batch;
    tool_machine machine;
    int profile;
    double seconds;
    calomu *c;                       /* the parent's; a child opens its own */
    const bench_row *row;            /* what is measured: those of the processor or of a GPU */
    int rows;
    double told;                     /* in a child: MB of a device's memory; 0: none */
    double value[BENCH_ROWS];        /* NaN: left out, for this reason: */
    const char *why[BENCH_ROWS];
    bench_side side[BENCH_SIDES];    /* the group */
    int n_sides;
    char command[1200];              /* of the next peer */
    calomu_geometry geometry;        /* of the file */
    int made;                        /* hits in made-up muons; 0: muons of the file */
    calomu_geometry made_geometry;
    int in, out;                     /* in a child: where turns come from and answers go */
    int job_threads;                 /* in a child */
    struct bench_profile *profiled;  /* shared with children */
};

/* Sets the row of this name, if this machine has it. */
static void bench_set(bench *b, const char *name, double value)
{
    int i;
    for (i = 0; i < b->rows; i++)
        if (strcmp(b->row[i].name, name) == 0) b->value[i] = value;
}

static void bench_leave(bench *b, const char *name, const char *why)
{
    int i;
    for (i = 0; i < b->rows; i++)
        if (strcmp(b->row[i].name, name) == 0) b->why[i] = why;
}

static int bench_on_device(const bench *b) { return strcmp(b->machine.device, "cpu") != 0; }

static int bench_met(const bench_row *row, double value)
{
    return row->most ? value <= row->target : value >= row->target;
}

static void bench_print(const bench *b)
{
    int i;
    printf("\n%-52s%10s%12s  %s\n", "", "measured", "target", "met");
    for (i = 0; i < b->rows; i++) {
        const bench_row *r = &b->row[i];
        if (isnan(b->value[i]))
            printf("%-52s  LEFT OUT: %s\n", r->text, b->why[i]);
        else
            printf("%-52s%10.3g%5s%7g %-6s %s\n", r->text, b->value[i], r->most ? "<=" : ">=",
                   r->target, r->unit, bench_met(r, b->value[i]) ? "yes" : "no");
    }
}

static calomu_status bench_csv(const bench *b)
{
    tool_writer *w;
    int i;
    calomu_status s = tool_writer_open(b->c, b->csv_path, &w);
    if (s != CALOMU_OK) return s;
    tool_write_text(w, "row,value,unit,target,met\n");
    for (i = 0; i < b->rows; i++) {
        const bench_row *r = &b->row[i];
        if (isnan(b->value[i])) continue;
        tool_write_format(w, "%s,", r->name);
        tool_write_number(w, b->value[i], 6);
        tool_write_format(w, ",%s,", r->unit);
        tool_write_number(w, r->target, 6);
        tool_write_format(w, ",%s\n", bench_met(r, b->value[i]) ? "yes" : "no");
    }
    return tool_writer_close(w);
}

/* ---------------------------------------------------------------- sides: the child's part */

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

/* A line to the parent; one that is gone ends the turns. */
static void bench_say(const bench *b, const char *format, ...) TOOL_PRINTF(2, 3);
static void bench_say(const bench *b, const char *format, ...)
{
    char line[320];
    va_list args;
    int n;
    va_start(args, format);
    n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n > 0 && write(b->out, line, (size_t)n) < 0) _exit(CALOMU_EIO);
}

static void bench_ready(const bench *b, double units, const char *text)
{
    bench_say(b, "ready %.17g %s\n", units, text);
}

static int bench_turn(const bench *b)
{
    char c, first = 0;
    do {
        ssize_t n = read(b->in, &c, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        if (!first) first = c;
    } while (c != '\n');
    return first == 'g';
}

static void bench_tell(const bench *b, double seconds)
{
    bench_say(b, "%.17g %.6g\n", seconds, b->told > 0 ? b->told : bench_resident());
}

/* ---------------------------------------------------------------- sides: the parent's part */

/* The sides of other children are closed, so that each sees the end of its own. */
static void bench_child(bench *b, bench_job job, int batch, int threads, const int pipes[4])
{
    int i;
    for (i = 0; i < b->n_sides; i++)
        if (b->side[i].to) {
            (void)close(fileno(b->side[i].to));
            (void)close(fileno(b->side[i].from));
        }
    (void)close(pipes[1]);
    (void)close(pipes[2]);
    tool_signals_default();
    b->in = pipes[0];
    b->out = pipes[3];
    b->job_threads = threads;
    if (threads > 1 && tool_threads_start(threads) != CALOMU_OK) _exit(CALOMU_EMEMORY);
    _exit((int)job(b, batch));       /* the parent's buffered output must not be written again */
}

/* Ends a side: what its process returned. */
static void bench_end(bench_side *s)
{
    int status = 0;
    if (s->to) (void)fclose(s->to);
    if (s->from) (void)fclose(s->from);
    s->to = s->from = NULL;
    while (waitpid(s->pid, &status, 0) < 0)
        if (errno != EINTR) return;
    if (WIFEXITED(status)) s->status = (calomu_status)WEXITSTATUS(status);
    else if (WTERMSIG(status) == SIGKILL)
        s->status = tool_fail(CALOMU_EMEMORY, "the system killed a measurement, probably for want"
                              " of memory: %s", s->text);
    else s->status = tool_fail(CALOMU_EIO, "a measurement ended by signal %d: %s",
                               WTERMSIG(status), s->text);
}

/* One line of a side; 0: it has ended, and is no side any more. */
static int bench_line(bench_side *s, char *line, int size)
{
    if (s->from && fgets(line, size, s->from) && strchr(line, '\n')) return 1;
    if (s->from) bench_end(s);
    return 0;
}

/* Adds a side and waits until it is ready. */
static bench_side *bench_side_add(bench *b, bench_job job, int batch, int threads,
                                  const char *text)
{
    bench_side *s = &b->side[b->n_sides];
    int pipes[4];                    /* to the child: 0 read, 1 write; from it: 2 read, 3 write */
    char line[200] = "", what[100] = "";
    memset(s, 0, sizeof *s);
    (void)snprintf(s->text, sizeof s->text, "%s", text);
    (void)fflush(stdout);
    if (pipe(pipes) != 0) {
        s->status = tool_fail(CALOMU_EIO, "no pipe: %s", strerror(errno));
        return s;
    }
    if (pipe(pipes + 2) == 0) {
        s->pid = fork();
        if (s->pid == 0) bench_child(b, job, batch, threads, pipes);
        (void)close(pipes[0]);
        (void)close(pipes[3]);
        s->to = fdopen(pipes[1], "w");
        s->from = fdopen(pipes[2], "r");
    }
    if (s->pid <= 0 || !s->to || !s->from) {
        s->status = tool_fail(CALOMU_EMEMORY, "no process for a measurement: %s",
                              strerror(errno));
        return s;
    }
    b->n_sides++;
    if (!bench_line(s, line, sizeof line)) return s;
    if (sscanf(line, "ready %lf %99[^\n]", &s->units, what) < 2 || !(s->units > 0)) {
        bench_end(s);
        s->status = tool_fail(CALOMU_EFORMAT, "%s said '%.60s', not 'ready ...'", text, line);
    }
    (void)snprintf(s->text, sizeof s->text, "%s", what);
    return s;
}

/* A command in the place of a job: it speaks the same lines on its standard input and output. */
static calomu_status bench_peer_job(bench *b, int batch)
{
    (void)batch;
    if (dup2(b->in, 0) < 0 || dup2(b->out, 1) < 0) return CALOMU_EIO;
    (void)execl("/bin/sh", "sh", "-c", b->command, (char *)NULL);
    return tool_fail(CALOMU_EIO, "no shell: %s", strerror(errno));
}

static bench_side *bench_peer_add(bench *b, const char *command, const char *job,
                                  const char *batches)
{
    (void)snprintf(b->command, sizeof b->command, "exec %s --job %s --batch %s --threads %d",
                   command, job, batches, (int)b->machine.threads);
    return bench_side_add(b, bench_peer_job, 0, 0, command);
}

static int bench_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Least seconds per unit; NaN: the side got lost. */
static double bench_best(const bench_side *s)
{
    return s && s->n > 0 ? s->sample[0] / s->units : (double)CALOMU_ABSENT;
}

static int bench_take_turn(bench_side *s)
{
    char line[320];
    double seconds;
    if (!s->to || fputs("go\n", s->to) < 0 || fflush(s->to) != 0) return 0;
    if (!bench_line(s, line, sizeof line)) return 0;
    if (sscanf(line, "%lf %lf", &seconds, &s->memory) != 2 || !(seconds >= 0)) return 0;
    s->sample[s->n++] = fmax(seconds, 1e-9);     /* so that rates stay finite on a coarse clock */
    return 1;
}

/* All sides in turn, for the time given to each and for some rounds at least; ends them. */
static calomu_status bench_group(bench *b)
{
    double began = tool_seconds();
    int i, round, alive = 1;
    for (round = 0; alive && !tool_stop && round < BENCH_SAMPLES
         && (round < BENCH_LEAST || tool_seconds() - began < b->seconds * b->n_sides); round++)
        for (i = 0, alive = 0; i < b->n_sides && !tool_stop; i++)
            alive |= bench_take_turn(&b->side[i]);
    for (i = 0; i < b->n_sides; i++) {
        bench_side *s = &b->side[i];
        if (s->from) bench_end(s);
        if (s->n < BENCH_LEAST) s->n = 0;
        if (s->n == 0) continue;
        qsort(s->sample, (size_t)s->n, sizeof s->sample[0], bench_compare);
        printf("%-52s%10.4g%10.4g%9.0f\n", s->text, 1e3 * bench_best(s),
               1e3 * s->sample[s->n / 2] / s->units, s->memory);
    }
    (void)fflush(stdout);
    b->n_sides = 0;
    return tool_stop ? CALOMU_STOPPED : CALOMU_OK;
}

/* An own side that got lost ends the run; a peer does not. */
static calomu_status bench_lost(const bench_side *s)
{
    if (s->n > 0) return CALOMU_OK;
    return s->status != CALOMU_OK ? s->status : CALOMU_EIO;
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
    bench_peak p = { bench_run_plain, 2.0 * BENCH_TURNS * BENCH_CHAINS * BENCH_WIDTH };
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512f")) {
        p.run = bench_run_avx512;
        p.flops = 2.0 * BENCH_TURNS * BENCH_WIDE * 16;
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
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


/* FLOP/s, the best of some runs: 0.05 s of them at least. */
static double bench_peak_rate(int threads)
{
    bench_peak p = bench_peak_best();
    double best = INFINITY;
    int i;
    for (i = 0; i < 100; i++) {
        double start = tool_seconds();
        bench_peak_run(&p, threads);
        best = fmin(best, tool_seconds() - start);
    }
    return p.flops * threads / best;
}

/* ---------------------------------------------------------------- muons */

/* Muons of the file with features, in the order of their number of hits. */
typedef struct bench_muons {
    calomu_data_info info;
    calomu_events read;
    calomu_event made[BENCH_MADE];   /* for scaling: muons of any size, and their hits */
    calomu_hit *made_hit;
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
    free(m->made_hit);
    free(m->event);
    free(m->features);
}

/* Features are computed anew, whatever the file has.  Where the true energy is absent, one is made
   up: the time of a step does not depend on it. */
static calomu_status bench_muons_fill(calomu *c, bench_muons *m, const calomu_event *from, int n,
                                      const calomu_feature_options *o)
{
    calomu_status s = CALOMU_OK;
    int i;
    m->n = n;
    m->event = calloc((size_t)m->n, sizeof *m->event);
    m->features = calloc((size_t)m->n * CALOMU_FEATURES, sizeof *m->features);
    if (!m->event || !m->features) return tool_fail(CALOMU_EMEMORY, "no memory for the muons");
    for (i = 0; i < m->n && s == CALOMU_OK; i++) {
        float *row = m->features + (size_t)i * CALOMU_FEATURES;
        m->event[i] = from[i];
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

/* Hits of 1 to 51 MeV evenly over the cells, each somewhere in its share of them. */
static calomu_status bench_muons_make(const bench *b, calomu *c, const calomu_feature_options *o,
                                      bench_muons *m)
{
    const calomu_geometry *g = &b->made_geometry;
    uint64_t cells = (uint64_t)g->nz * (uint64_t)g->nx * (uint64_t)g->ny, n = (uint64_t)b->made, k;
    uint32_t word[4];
    int i;
    m->info.geometry = *g;
    m->made_hit = calloc(BENCH_MADE * (size_t)n, sizeof *m->made_hit);
    if (!m->made_hit) return tool_fail(CALOMU_EMEMORY, "no memory for muons");
    for (i = 0; i < BENCH_MADE; i++) {
        calomu_hit *hit = m->made_hit + (size_t)i * (size_t)n;
        for (k = 0; k < n; k++) {
            uint64_t first = k * cells / n, end = (k + 1) * cells / n;
            calomu_random(1, (uint64_t)i, k, word);
            hit[k].cell = (uint32_t)(first + word[0] % (end - first));
            hit[k].energy = 1e-3f + 0.05f * (float)(word[1] >> 8) / 16777216;
        }
        m->made[i].hits = hit;
        m->made[i].n_hits = (size_t)n;
        m->made[i].energy = m->made[i].charge = CALOMU_ABSENT;
    }
    return bench_muons_fill(c, m, m->made, BENCH_MADE, o);
}

/* Zero-initialised m; bench_muons_free in every case. */
static calomu_status bench_muons_load(const bench *b, calomu *c, const calomu_feature_options *o,
                                      bench_muons *m)
{
    calomu_data *data = NULL;
    calomu_status s;
    if (b->made) return bench_muons_make(b, c, o, m);
    s = calomu_data_open(c, b->data_path, &data);
    if (s != CALOMU_OK) return tool_report(c, s);
    m->info = *calomu_data_describe(data);
    if (m->info.n_events == 0)
        s = tool_fail(CALOMU_EFORMAT, "%s holds no muons", b->data_path);
    else
        s = calomu_data_read(c, data, 0, NULL, m->info.n_events < BENCH_MUONS
                             ? (size_t)m->info.n_events : BENCH_MUONS, &m->read);
    if (s != CALOMU_OK && m->info.n_events > 0) (void)tool_report(c, s);
    calomu_data_close(data);
    return s == CALOMU_OK ? bench_muons_fill(c, m, m->read.event, (int)m->read.n, o) : s;
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

/* ---------------------------------------------------------------- jobs: files and features */

/* A file just read is in the system's cache: this is the time of unpacking and of checksums. */
static calomu_status bench_read_loop(bench *b, calomu *c, const calomu_data *data)
{
    const uint64_t n = calomu_data_describe(data)->n_events, step = 256;
    calomu_events events = { 0 };
    calomu_status s = CALOMU_OK;
    uint64_t first;
    bench_ready(b, 1e-9 * (double)sizeof(calomu_hit) * (double)calomu_data_describe(data)->n_hits,
                "reading a data file (per GB decoded)");
    while (s == CALOMU_OK && bench_turn(b)) {
        double start = tool_seconds();
        for (first = 0; first < n && s == CALOMU_OK; first += step)
            s = calomu_data_read(c, data, first, NULL,
                                 (size_t)(n - first < step ? n - first : step), &events);
        bench_tell(b, tool_seconds() - start);
    }
    calomu_events_free(&events);
    return s == CALOMU_OK ? s : tool_report(c, s);
}

static calomu_status bench_read_job(bench *b, int batch)
{
    calomu *c = NULL;
    calomu_data *data = NULL;
    calomu_status s = tool_open(&c, 1);
    (void)batch;
    if (s != CALOMU_OK) return s;
    s = calomu_data_open(c, b->data_path, &data);
    s = s == CALOMU_OK ? bench_read_loop(b, c, data) : tool_report(c, s);
    calomu_data_close(data);
    calomu_close(c);
    return s;
}

static calomu_status bench_features_job(bench *b, int batch)
{
    calomu *c = NULL;
    calomu_feature_options o = calomu_feature_options_default();
    bench_muons m = { 0 };
    float row[CALOMU_FEATURES];
    calomu_status s = tool_open(&c, 1);
    calomu_event *event = NULL;
    int i;
    if (s == CALOMU_OK) s = bench_muons_load(b, c, &o, &m);
    if (s == CALOMU_OK) event = bench_batch(&m, batch, 1);
    if (event) bench_ready(b, batch, "28 features, 1 thread");
    while (event && s == CALOMU_OK && bench_turn(b)) {
        double start = tool_seconds();
        for (i = 0; i < batch && s == CALOMU_OK; i++)
            s = calomu_features(c, &m.info.geometry, &event[i], &o, row);
        bench_tell(b, tool_seconds() - start);
    }
    free(event);
    bench_muons_free(&m);
    calomu_close(c);
    return s;
}

/* The program itself on the first muon of the file. */
static calomu_status bench_start_job(bench *b, int batch)
{
    calomu_status s = CALOMU_OK;
    (void)batch;
    bench_ready(b, 1, "calomu predict on one muon, whole process");
    while (s == CALOMU_OK && bench_turn(b)) {
        double start = tool_seconds();
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            if (!freopen("/dev/null", "w", stdout) || dup2(1, 2) < 0) _exit(4);
            (void)execl(b->program, b->program, "predict", "--model", b->model_path, "--data",
                        b->data_path, "--count", "1", "--out", "-", (char *)NULL);
            _exit(127);
        }
        if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0)
            s = tool_fail(CALOMU_EIO, "%s predict does not run: give --program FILE", b->program);
        else
            bench_tell(b, tool_seconds() - start);
    }
    return s;
}

/* ---------------------------------------------------------------- jobs: training and inference */

typedef struct bench_profile bench_profile;
static void bench_profile_begin(bench_profile *p);

typedef struct bench_training {
    calomu *c;
    bench_profile *profile;          /* of the update, or NULL */
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

/* The paper's network on folds of one batch each, all the same muons.  The learning rate is small:
   the measurement must not run into a loss that is not finite. */
static calomu_status bench_training_begin(const bench *b, bench_training *t, int batch, int threads,
                                          int recompute)
{
    calomu_train_options o = calomu_train_options_default();
    calomu_architecture a = calomu_architecture_default();
    tool_machine machine = b->machine;
    calomu_status s;
    memset(t, 0, sizeof *t);
    machine.threads = threads;
    s = tool_open_on(&t->c, &machine, recompute);
    if (s == CALOMU_OK) s = bench_muons_load(b, t->c, &a.feature_options, &t->muons);
    if (s != CALOMU_OK) return s;
    t->event = bench_batch(&t->muons, batch, BENCH_FOLDS);
    if (!t->event) return CALOMU_EMEMORY;
    a.geometry = t->muons.info.geometry;
    o.batch = batch;
    o.folds = BENCH_FOLDS;
    o.holdout = 0;
    o.lr = 1e-5;
    o.outside = 1;                   /* any muons will do */
    o.epochs = o.cycle_epochs = 1000000;
    s = calomu_data_from_memory(t->c, &t->muons.info, t->event, (size_t)batch * BENCH_FOLDS,
                                &t->data);
    if (s == CALOMU_OK) s = calomu_trainer_create(t->c, t->data, &a, &o, &t->trainer);
    return s == CALOMU_OK ? s : tool_report(t->c, s);
}

/* Seconds of the next update; validation in between is not counted. */
static calomu_status bench_update(bench_training *t, double *seconds)
{
    calomu_train_report report = { 0 };
    calomu_status s = CALOMU_OK;
    while (s == CALOMU_OK && report.kind != CALOMU_TRAIN_UPDATE) {
        double start = tool_seconds();
        if (t->profile) bench_profile_begin(t->profile);
        s = calomu_trainer_step(t->c, t->trainer, &report);
        *seconds = tool_seconds() - start;
    }
    return s == CALOMU_OK ? s : tool_report(t->c, s);
}

static calomu_status bench_updates(bench *b, int batch, int recompute)
{
    bench_training t;
    double seconds;
    char text[100];
    calomu_status s = bench_training_begin(b, &t, batch, b->job_threads, recompute);
    if (s == CALOMU_OK) s = bench_update(&t, &seconds);  /* touches all memory */
    (void)snprintf(text, sizeof text, "training step, batch %d, %d thread%s%s", batch,
                   b->job_threads, b->job_threads > 1 ? "s" : "",
                   recompute ? ", --recompute" : "");
    if (s == CALOMU_OK && bench_on_device(b))
        b->told = 1e-6 * (double)calomu_trainer_memory(t.trainer);
    if (s == CALOMU_OK) bench_ready(b, batch, text);
    while (s == CALOMU_OK && bench_turn(b)) {
        s = bench_update(&t, &seconds);
        bench_tell(b, seconds);
    }
    bench_training_end(&t);
    return s;
}

static calomu_status bench_training_job(bench *b, int batch) { return bench_updates(b, batch, 0); }
static calomu_status bench_recompute_job(bench *b, int batch) { return bench_updates(b, batch, 1); }

/* Predictions of a batch again and again.  alone: hits and impact points only, features and all
   else is part of it, as a host calls it; else a data set with features. */
static calomu_status bench_predict(bench *b, calomu *c, const calomu_model *model,
                                   const bench_muons *m, int batch, int alone)
{
    size_t n = (size_t)batch;
    calomu_event *event = bench_batch(m, batch, 1);
    double *out = calloc(n, sizeof *out);
    calomu_data *data = NULL;
    calomu_events set = { 0 };
    char text[100];
    calomu_status s = event && out ? CALOMU_OK : CALOMU_EMEMORY;
    if (s == CALOMU_OK) s = calomu_data_from_memory(c, &m->info, event, n, &data);
    if (s == CALOMU_OK) s = calomu_data_read(c, data, 0, NULL, n, &set);
    if (s == CALOMU_OK) s = calomu_predict(c, model, alone ? NULL : data, set.event, n, out, NULL);
    (void)snprintf(text, sizeof text, "%s, batch %d, %d thread%s", alone ? "hits to GeV"
                   : "inference", batch, b->job_threads, b->job_threads > 1 ? "s" : "");
    if (s == CALOMU_OK) bench_ready(b, batch, text);
    while (s == CALOMU_OK && bench_turn(b)) {
        double start = tool_seconds();
        s = calomu_predict(c, model, alone ? NULL : data, set.event, n, out, NULL);
        bench_tell(b, tool_seconds() - start);
    }
    if (s != CALOMU_OK && event && out) (void)tool_report(c, s);
    calomu_events_free(&set);
    calomu_data_close(data);
    free(out);
    free(event);
    return s;
}

static calomu_status bench_model_job(bench *b, int batch, int alone)
{
    calomu *c = NULL;
    calomu_model *model = NULL;
    bench_muons m = { 0 };
    tool_machine machine = b->machine;
    calomu_status s;
    machine.threads = b->job_threads;
    s = tool_open_on(&c, &machine, 0);
    if (s != CALOMU_OK) return s;
    s = calomu_model_load(c, b->model_path, &model);
    if (s != CALOMU_OK) (void)tool_report(c, s);
    else s = bench_muons_load(b, c, &calomu_model_describe(model)->architecture.feature_options,
                              &m);
    if (s == CALOMU_OK) s = bench_predict(b, c, model, &m, batch, alone);
    bench_muons_free(&m);
    calomu_model_free(model);
    calomu_close(c);
    return s;
}

static calomu_status bench_infer_job(bench *b, int batch) { return bench_model_job(b, batch, 0); }
static calomu_status bench_host_job(bench *b, int batch) { return bench_model_job(b, batch, 1); }

/* ---------------------------------------------------------------- profile of a training step

   Every operation of the network tells when a part of it has ended.  The least time of each counts,
   of steps at the beginning and at the end of a run.  Batch norms in front of convolutions, and
   parts of gradients, are made by the convolutions that read them, in their time.  Rates are the
   multiply-adds of the direct method over time: 2 x out x in x kernel^3 x sites of the result
   (padding counted), in all three directions; of the convolution of the hits, what the hits need.
   That one works on a list, not a grid, so the share of the peak leaves it out; it is a convolution
   for the share of everything else. */

enum { BENCH_PARTS = 400, BENCH_DIRECTIONS = 3 };

static const char *const bench_direction[BENCH_DIRECTIONS] = { "forward", "to input",
                                                               "to weights" };

typedef struct bench_part {
    const char *name, *part;
    int kernel, stride, in, out, size[3], uses;
    double flops;                    /* of one use and muon */
    double now, best;                /* s per muon, all uses: of this step; the least */
} bench_part;

struct bench_profile {
    bench_part part[BENCH_PARTS];
    int n;
    int muons;
    double at;                       /* of the last lap */
    double rest, total;              /* s per muon, least: no operation's; all */
    double peak;                     /* FLOP/s of all threads */
};

static double bench_flops(const cm_lap *l)
{
    const cm_tensor *y = l->out;
    double cells = (double)l->kernel * l->kernel * l->kernel, hits = 0;
    int i, reach;
    if (l->kernel == 0) return 0;
    if (!l->hits) return 2 * cells * l->in->nc * y->nc * ((double)y->nz * y->nx * y->ny);
    reach = l->kernel / l->stride;               /* of a hit: results on an axis */
    for (i = 0; i < l->hits->muons; i++) hits += (double)l->hits->event[i].n_hits;
    return 2.0 * reach * reach * reach * y->nc * hits / l->hits->muons;
}

static void bench_lap(void *user, const cm_lap *l)
{
    bench_profile *p = user;
    double now = tool_seconds();
    const cm_tensor *x = l->in ? l->in : l->out;
    bench_part key, *k;
    int i;
    memset(&key, 0, sizeof key);
    key.name = l->name;
    key.part = l->part;
    key.kernel = l->kernel;
    key.stride = l->stride;
    key.in = l->in ? l->in->nc : 1;
    key.out = l->out->nc;
    key.size[0] = x->nz;
    key.size[1] = x->nx;
    key.size[2] = x->ny;
    for (i = 0; i < p->n; i++) {
        k = &p->part[i];
        if (k->name == key.name && k->part == key.part && k->kernel == key.kernel
            && k->stride == key.stride && k->in == key.in && k->out == key.out
            && memcmp(k->size, key.size, sizeof key.size) == 0)
            break;
    }
    if (i == BENCH_PARTS) i--;                   /* never: the network has fewer */
    if (i == p->n) {
        key.flops = bench_flops(l);
        key.best = INFINITY;
        p->part[p->n++] = key;
    }
    p->part[i].uses++;
    p->part[i].now += (now - p->at) / p->muons;
    p->at = tool_seconds();
}

static void bench_profile_begin(bench_profile *p)
{
    int i;
    for (i = 0; i < p->n; i++) p->part[i].now = p->part[i].uses = 0;
    p->at = tool_seconds();
}

/* One training step; what comes behind the last operation is Adam. */
static calomu_status bench_profile_step(bench_profile *p, bench_training *t)
{
    double seconds, rest;
    calomu_status s = bench_update(t, &seconds);
    int i;
    if (s != CALOMU_OK) return s;
    rest = seconds / p->muons;
    for (i = 0; i < p->n; i++) {
        bench_part *k = &p->part[i];
        if (k->uses > 0) k->best = fmin(k->best, k->now);        /* else of validation */
        rest -= k->now;
    }
    p->rest = fmin(p->rest, fmax(rest, 0));
    return CALOMU_OK;
}

static int bench_is(const bench_part *k, const char *name, const char *part)
{
    return strcmp(k->name, name) == 0 && (!part || strcmp(k->part, part) == 0);
}

/* Time (and work) of all parts of this name and direction, per muon. */
static double bench_profile_sum(const bench_profile *p, const char *name, const char *part,
                                double *flops)
{
    double sum = 0;
    int i;
    for (i = 0; i < p->n; i++)
        if (bench_is(&p->part[i], name, part)) {
            sum += p->part[i].best;
            if (flops) *flops += p->part[i].flops * p->part[i].uses;
        }
    return sum;
}

static void bench_profile_print(const bench_profile *p)
{
    int i;
    printf("\n%-46s%5s%10s%10s%8s\n", "convolutions, and parts above 0.1% of a step", "uses",
           "ms/muon", "GFLOP/s", "of peak");
    for (i = 0; i < p->n; i++) {
        const bench_part *k = &p->part[i];
        char text[100], kind[32] = "";
        double rate = k->flops * k->uses / fmax(k->best, 1e-12);
        if (k->kernel < 2 && k->best < 0.001 * p->total) continue;
        if (k->kernel) (void)snprintf(kind, sizeof kind, " %d/%d", k->kernel, k->stride);
        (void)snprintf(text, sizeof text, "%s%s %s %d > %d, %dx%dx%d", k->name, kind, k->part,
                       k->in, k->out, k->size[0], k->size[1], k->size[2]);
        printf("%-46s%5d%10.4f", text, k->uses, 1e3 * k->best);
        if (rate > 0) printf("%10.1f%7.0f%%", 1e-9 * rate, 100 * rate / p->peak);
        printf("\n");
    }
    printf("\n%-46s%5s%10s%10s\n", "all of a kind", "", "forward", "backward");
    for (i = 0; i < p->n; i++) {
        const char *name = p->part[i].name;
        double forward = bench_profile_sum(p, name, "forward", NULL);
        double all = bench_profile_sum(p, name, NULL, NULL);
        int j = 0;
        while (p->part[j].name != name) j++;
        if (j < i) continue;                     /* told already */
        printf("%-51s%10.4f%10.4f\n", name, 1e3 * forward, 1e3 * (all - forward));
    }
    printf("%-51s%10.4f\n%-51s%10.4f\n", "loss, Adam, batch", 1e3 * p->rest, "training step",
           1e3 * p->total);
}

static void bench_profile_rows(bench *b, const bench_profile *p)
{
    static const char *const row[BENCH_DIRECTIONS] = {
        "conv_forward_peak", "conv_backward_input_peak", "conv_backward_weight_peak"
    };
    double conv = bench_profile_sum(p, "sparse convolution", NULL, NULL);
    int i;
    for (i = 0; i < BENCH_DIRECTIONS; i++) {
        double flops = 0;
        double time = bench_profile_sum(p, "convolution", bench_direction[i], &flops);
        conv += time;
        bench_set(b, row[i], 100 * flops / fmax(time, 1e-12) / p->peak);
    }
    bench_set(b, "other_share", 100 * (1 - fmin(conv / p->total, 1)));
}

/* FLOP/s of the cores, or of the device. */
static double bench_peak_of(const bench *b)
{
#ifdef CALOMU_CUDA
    cm_unit *u = NULL;
    double rate = 0;
    if (bench_on_device(b)
        && calomu_cuda.open(b->c, &calomu_cuda, tool_device_number(&b->machine),
                            CALOMU_MATH_EQUAL, &u) == CALOMU_OK) {
        rate = calomu_cuda.peak(u);
        calomu_cuda.close(u);
    }
    if (bench_on_device(b)) return rate;
#endif
    return bench_peak_rate((int)b->machine.threads);
}

/* Steps of a side; what they find is added to b->profiled, which the parent sees. */
static calomu_status bench_profile_job(bench *b, int batch)
{
    bench_training t;
    double seconds;
    calomu_status s = bench_training_begin(b, &t, batch, b->job_threads, 0);
    if (s == CALOMU_OK) s = bench_update(&t, &seconds);
    if (s == CALOMU_OK) cm_lap_set(t.c, bench_lap, b->profiled);
    t.profile = b->profiled;
    if (s == CALOMU_OK) bench_ready(b, batch, "training step, operation by operation");
    while (s == CALOMU_OK && bench_turn(b)) {
        double start = tool_seconds();
        s = bench_profile_step(b->profiled, &t);
        bench_tell(b, tool_seconds() - start);
        b->profiled->peak = fmax(b->profiled->peak, bench_peak_of(b));
    }
    bench_training_end(&t);
    return s;
}

/* Memory for it that children share. */
static calomu_status bench_profile_share(bench *b)
{
    FILE *f = tmpfile();
    void *p = MAP_FAILED;
    if (f && ftruncate(fileno(f), sizeof *b->profiled) == 0)
        p = mmap(NULL, sizeof *b->profiled, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
    if (f) (void)fclose(f);
    if (p == MAP_FAILED)
        return tool_fail(CALOMU_EMEMORY, "no memory for the profile: %s", strerror(errno));
    b->profiled = p;                 /* all zero */
    b->profiled->muons = b->batch;
    b->profiled->rest = INFINITY;
    return CALOMU_OK;
}

static calomu_status bench_profile_visit(bench *b)
{
    bench_side *side = bench_side_add(b, bench_profile_job, b->batch, (int)b->machine.threads,
                                      "profile");
    calomu_status s = bench_group(b);
    return s == CALOMU_OK ? bench_lost(side) : s;
}

static void bench_profile_tell(bench *b, bench_profile *p)
{
    int i;
    p->total = p->rest;
    for (i = 0; i < p->n; i++) {
        if (isinf(p->part[i].best)) p->part[i].best = 0;         /* of validation alone */
        p->total += p->part[i].best;
    }
    printf("%-52s%10.4g GFLOP/s\n", bench_on_device(b) ? "fused products in registers, the GPU"
           : "multiply-adds in registers, all threads", 1e-9 * p->peak);
    if (b->profile) bench_profile_print(p);
    bench_profile_rows(b, p);
}

/* Behind the last visit; s: how the run went. */
static void bench_profile_end(bench *b, calomu_status s)
{
    if (s == CALOMU_OK) bench_profile_tell(b, b->profiled);
    if (b->profiled) (void)munmap(b->profiled, sizeof *b->profiled);
    b->profiled = NULL;
}

static calomu_status bench_profile_run(bench *b)
{
    calomu_status s = bench_profile_share(b);
    if (s == CALOMU_OK) s = bench_profile_visit(b);
    bench_profile_end(b, s);
    return s;
}

/* ---------------------------------------------------------------- sizes of files */

static double bench_size_per_hit(const char *path, double hits)
{
    struct stat st;
    return stat(path, &st) == 0 ? (double)st.st_size / hits : (double)CALOMU_ABSENT;
}

/* Low bits of the energies that no hit uses. */
static uint32_t bench_low_bits(const calomu_events *e)
{
    uint32_t used = 0, bits;
    size_t i, k;
    for (i = 0; i < e->n; i++)
        for (k = 0; k < e->event[i].n_hits; k++) {
            memcpy(&bits, &e->event[i].hits[k].energy, sizeof bits);
            used |= bits;
        }
    return used ? (used & (0u - used)) - 1 : 0;
}

/* Writes the same muons with these bits at random. */
static calomu_status bench_write_full(calomu *c, const char *path, const calomu_data_info *info,
                                      const calomu_events *e, uint32_t low)
{
    calomu_writer *w = NULL;
    calomu_status s = calomu_writer_open(c, path, info, &w);
    calomu_hit *hits = NULL;
    uint32_t word[4], bits;
    size_t i, k;
    for (i = 0; i < e->n && s == CALOMU_OK; i++) {
        calomu_event muon = e->event[i];
        void *more = realloc(hits, (muon.n_hits + 1) * sizeof *hits);
        if (!more) s = CALOMU_EMEMORY;
        else hits = more;
        for (k = 0; k < muon.n_hits && s == CALOMU_OK; k++) {
            hits[k] = muon.hits[k];
            calomu_random(1, i, k, word);
            memcpy(&bits, &hits[k].energy, sizeof bits);
            bits |= word[0] & low;
            memcpy(&hits[k].energy, &bits, sizeof bits);
        }
        muon.hits = hits;
        if (s == CALOMU_OK) s = calomu_writer_add(w, &muon);
    }
    free(hits);
    if (s == CALOMU_OK) return calomu_writer_close(w);
    calomu_writer_abandon(w);
    return s;
}

static calomu_status bench_sizes(bench *b)
{
    calomu_data *data = NULL;
    calomu_events e = { 0 };
    char path[256];
    double hits;
    const char *folder = getenv("TMPDIR");
    int fd, n = snprintf(path, sizeof path, "%s/calomu_bench_XXXXXX",
                         folder && *folder ? folder : "/tmp");
    calomu_status s = calomu_data_open(b->c, b->data_path, &data);
    if (s == CALOMU_OK)
        s = calomu_data_read(b->c, data, 0, NULL, (size_t)calomu_data_describe(data)->n_events, &e);
    fd = s == CALOMU_OK && n > 0 && (size_t)n < sizeof path ? mkstemp(path) : -1;
    if (fd >= 0) {
        hits = fmax((double)calomu_data_describe(data)->n_hits, 1);
        (void)close(fd);
        s = bench_write_full(b->c, path, calomu_data_describe(data), &e, bench_low_bits(&e));
        bench_set(b, "bytes_per_hit", bench_size_per_hit(b->data_path, hits));
        if (s == CALOMU_OK) bench_set(b, "bytes_per_hit_full", bench_size_per_hit(path, hits));
        (void)unlink(path);
    } else if (s == CALOMU_OK) {
        s = tool_fail(CALOMU_EIO, "no temporary file: %s", strerror(errno));
    }
    calomu_events_free(&e);
    calomu_data_close(data);
    return s == CALOMU_OK || fd < 0 ? s : tool_report(b->c, s);
}

/* ---------------------------------------------------------------- the run */

/* A peer, alone at its best batch (`best`) and at our batch (`same`, may be NULL), and us.  The one
   that tries several goes first: its trials need memory. */
static calomu_status bench_against(bench *b, bench_job job, const char *name, const char *command,
                                   const char *same, const char *best)
{
    bench_side *own, *at_same = NULL, *at_best = bench_peer_add(b, command, name, b->batches);
    char batch[16];
    calomu_status s;
    (void)snprintf(batch, sizeof batch, "%d", (int)b->batch);
    if (same) at_same = bench_peer_add(b, command, name, batch);
    own = bench_side_add(b, job, b->batch, (int)b->machine.threads, name);
    s = bench_group(b);
    if (s == CALOMU_OK) s = bench_lost(own);
    if (s != CALOMU_OK) return s;
    bench_set(b, best, bench_best(at_best) / bench_best(own));
    bench_leave(b, best, "the peer did not run, see above");
    if (!same) return CALOMU_OK;
    bench_set(b, same, bench_best(at_same) / bench_best(own));
    bench_leave(b, same, "the peer did not run, see above");
    return CALOMU_OK;
}

static calomu_status bench_peers(bench *b)
{
    calomu_status s = CALOMU_OK;
    if (b->yardstick)
        s = bench_against(b, bench_training_job, "training", b->yardstick, "train_vs_torch_256",
                          "train_vs_torch_best");
    if (s == CALOMU_OK && b->yardstick)
        s = bench_against(b, bench_infer_job, "inference", b->yardstick, "infer_vs_torch_256",
                          "infer_vs_torch_best");
    if (s == CALOMU_OK && b->newest)
        s = bench_against(b, bench_training_job, "training", b->newest, NULL, "train_vs_newest");
    if (s == CALOMU_OK && b->newest)
        s = bench_against(b, bench_infer_job, "inference", b->newest, NULL, "infer_vs_newest");
    return s;
}

/* Two threads against one; memory of training. */
static calomu_status bench_threads(bench *b)
{
    static const bench_job job[2] = { bench_training_job, bench_infer_job };
    double least = INFINITY;
    int i, both = b->machine.threads >= 2;
    for (i = 0; i < 2; i++) {
        bench_side *many = bench_side_add(b, job[i], b->batch, both ? 2 : 1, "2 threads");
        bench_side *one = bench_side_add(b, job[i], b->batch, 1, "1 thread");
        bench_side *less = i == 0 ? bench_side_add(b, bench_recompute_job, b->batch, both ? 2 : 1,
                                                   "--recompute") : NULL;
        calomu_status s = bench_group(b);
        if (s == CALOMU_OK && less) s = bench_lost(less);
        if (s == CALOMU_OK) s = bench_lost(many);
        if (s == CALOMU_OK) s = bench_lost(one);
        if (s != CALOMU_OK) return s;
        least = fmin(least, bench_best(one) / bench_best(many));
        if (i == 0) bench_set(b, "train_gb", 1e-3 * many->memory);
        if (less) bench_set(b, "train_recompute_gb", 1e-3 * less->memory);
    }
    if (both) bench_set(b, "two_threads", least);
    return CALOMU_OK;
}

static calomu_status bench_small(bench *b)
{
    bench_side *read = bench_side_add(b, bench_read_job, 0, 1, "reading");
    bench_side *features = bench_side_add(b, bench_features_job, 64, 1, "features");
    bench_side *one = bench_side_add(b, bench_host_job, 1, 1, "one muon");
    bench_side *sixteen = bench_side_add(b, bench_host_job, 16, 1, "16 muons");
    bench_side *start = bench_side_add(b, bench_start_job, 1, 1, "start");
    calomu_status s = bench_group(b);
    if (s == CALOMU_OK) s = bench_lost(read);
    if (s == CALOMU_OK) s = bench_lost(features);
    if (s == CALOMU_OK) s = bench_lost(one);
    if (s == CALOMU_OK) s = bench_lost(sixteen);
    if (s == CALOMU_OK) s = bench_lost(start);
    if (s != CALOMU_OK) return s;
    bench_set(b, "read_gb_per_s", 1 / bench_best(read));
    bench_set(b, "features_ms", 1e3 * bench_best(features));
    bench_set(b, "one_muon_ms", 1e3 * bench_best(one));
    bench_set(b, "sixteen_muons_ms", 16e3 * bench_best(sixteen));
    bench_set(b, "start_ms", 1e3 * bench_best(start));
    return CALOMU_OK;
}

static calomu_status bench_all(bench *b)
{
    calomu_status s = bench_sizes(b);
    if (s == CALOMU_OK) s = bench_profile_share(b);
    printf("%-52s%10s%10s%9s\n", "ms per muon", "least", "median", "MB");
    if (s == CALOMU_OK) s = bench_profile_visit(b);
    if (s == CALOMU_OK) s = bench_small(b);
    if (s == CALOMU_OK) s = bench_threads(b);
    if (s == CALOMU_OK) s = bench_peers(b);
    if (s == CALOMU_OK) s = bench_profile_visit(b);
    bench_profile_end(b, s);
    return s == CALOMU_OK && tool_stop ? CALOMU_STOPPED : s;
}

/* ---------------------------------------------------------------- the run on a GPU */

/* The fastest of several batches, muons/s; one that does not fit into the memory is left out. */
static calomu_status bench_device_job(bench *b, bench_job job, const int *batch, int n,
                                      double *first, double *most, double *memory)
{
    bench_side *side[BENCH_SIDES];
    calomu_status s;
    int i;
    for (i = 0; i < n; i++) {
        side[i] = bench_side_add(b, job, batch[i], (int)b->machine.threads, "on the device");
        if (side[i]->status == CALOMU_EDEVICE) return CALOMU_EDEVICE;        /* said */
    }
    s = bench_group(b);
    *most = 0;
    for (i = 0; i < n && s == CALOMU_OK; i++) {
        if (i > 0 && side[i]->status == CALOMU_EMEMORY) continue;
        s = bench_lost(side[i]);
        *most = fmax(*most, 1 / bench_best(side[i]));
    }
    *first = 1 / bench_best(side[0]);
    *memory = 1e-3 * side[0]->memory;
    return s;
}

static calomu_status bench_device_peer(bench *b, const char *name, const char *row, double ours)
{
    bench_side *peer = bench_peer_add(b, b->yardstick, name, "64,128,256,512,1024");
    calomu_status s = bench_group(b);
    bench_set(b, row, ours * bench_best(peer));
    bench_leave(b, row, "the peer did not run, see above");
    return s;
}

static calomu_status bench_device(bench *b)
{
    static const int train[] = { 256, 128, 512, 1024 }, infer[] = { 1024, 256 }, one[] = { 1 };
    double train_first, train_most, infer_first, infer_most, rate, memory, none;
    calomu_status s;
    printf("%-52s%10s%10s%9s\n", "ms per muon", "least", "median", "MB");
    s = bench_device_job(b, bench_training_job, train, 4, &train_first, &train_most, &memory);
    if (s == CALOMU_OK)
        s = bench_device_job(b, bench_infer_job, infer, 2, &infer_first, &infer_most, &none);
    if (s == CALOMU_OK) s = bench_device_job(b, bench_host_job, one, 1, &rate, &none, &none);
    if (s != CALOMU_OK) return s;
    bench_set(b, "gpu_train_256", train_first);
    bench_set(b, "gpu_train_best", train_most);
    bench_set(b, "gpu_infer_1024", infer_first);
    bench_set(b, "gpu_one_muon_ms", 1e3 / rate);
    bench_set(b, "gpu_train_gb", memory);
    if (b->yardstick) s = bench_device_peer(b, "training", "gpu_train_vs_torch", train_most);
    if (s == CALOMU_OK && b->yardstick)
        s = bench_device_peer(b, "inference", "gpu_infer_vs_torch", infer_most);
    b->profile = 1;                  /* the share of the peak of every operation */
    if (s == CALOMU_OK) s = bench_profile_run(b);
    return s == CALOMU_OK && tool_stop ? CALOMU_STOPPED : s;
}

/* ---------------------------------------------------------------- scaling */

/* ms per muon of a job, alone; NaN where it fails for want of memory. */
static calomu_status bench_alone(bench *b, bench_job job, int batch, double *ms)
{
    bench_side *side = bench_side_add(b, job, batch, (int)b->machine.threads, "scaling");
    calomu_status s = bench_group(b);
    *ms = 1e3 * bench_best(side);
    if (s != CALOMU_OK || side->status == CALOMU_EMEMORY) return s;
    return bench_lost(side);
}

/* One line: cost per muon where `axis` has this value. */
static calomu_status bench_scaling_line(bench *b, tool_writer *w, const char *axis, double value,
                                        int batch)
{
    static const bench_job job[3] = { bench_training_job, bench_infer_job, bench_features_job };
    calomu_status s = CALOMU_OK;
    int i;
    printf("%s %g\n", axis, value);
    tool_write_format(w, "%s,", axis);
    tool_write_number(w, value, 9);
    for (i = 0; i < 3 && s == CALOMU_OK; i++) {
        double ms = (double)CALOMU_ABSENT;
        /* batch norm learns from 2 and more; a model is of one grid; features come one by one */
        int absent = (i == 0 && batch < 2) || (i == 1 && strcmp(axis, "cells") == 0)
            || (i == 2 && strcmp(axis, "batch") == 0);
        if (!absent) s = bench_alone(b, job[i], batch, &ms);
        tool_write_text(w, ",");
        tool_write_number(w, ms, 6);
    }
    tool_write_text(w, "\n");
    return s;
}

/* Made-up muons of so many hits in a grid of f times as many cells on each axis. */
static int bench_make(bench *b, double f, double share)
{
    calomu_geometry *g = &b->made_geometry;
    *g = b->geometry;
    g->nz = (int32_t)fmax(round(f * g->nz), 1);
    g->nx = (int32_t)fmax(round(f * g->nx), 1);
    g->ny = (int32_t)fmax(round(f * g->ny), 1);
    g->origin[1] = -0.5 * g->nx * g->pitch[1];
    g->origin[2] = -0.5 * g->ny * g->pitch[2];
    b->made = (int)fmax(share * g->nz * g->nx * g->ny, 1);
    return g->nz * g->nx * g->ny;
}

/* Cost per muon against batch size (up to --batch), hits, and cells of the grid. */
static calomu_status bench_scaling(bench *b)
{
    static const double share[] = { 0.002, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1 };   /* hit */
    static const double factor[] = { 0.25, 0.5, 0.75, 1, 1.25, 1.5 };
    enum { SHARES = sizeof share / sizeof share[0], SIZES = sizeof factor / sizeof factor[0] };
    tool_writer *w = NULL;
    int n, batch = b->batch < 64 ? b->batch : 64;
    calomu_status s = tool_writer_open(b->c, b->scaling_path, &w);
    if (s != CALOMU_OK) return s;
    tool_write_text(w, "axis,value,training_ms,inference_ms,features_ms\n");
    for (n = 1; n <= b->batch && s == CALOMU_OK; n *= 2)
        s = bench_scaling_line(b, w, "batch", n, n);
    for (n = 0; n < SHARES && s == CALOMU_OK; n++) {
        (void)bench_make(b, 1, share[n]);
        s = bench_scaling_line(b, w, "hits", b->made, batch);
    }
    for (n = 0; n < SIZES && s == CALOMU_OK; n++) {
        int cells = bench_make(b, factor[n], 0.11);      /* as GEANT4 muons hit them */
        s = bench_scaling_line(b, w, "cells", cells, batch);
    }
    if (s == CALOMU_OK) return tool_writer_close(w);
    tool_writer_abandon(w);
    return s;
}

/* Bad files are found before anything is measured. */
static calomu_status bench_check(bench *b)
{
    calomu_data *data = NULL;
    calomu_model *model = NULL;
    calomu_status s = calomu_data_open(b->c, b->data_path, &data);
    if (s == CALOMU_OK) s = calomu_model_load(b->c, b->model_path, &model);
    if (s != CALOMU_OK)
        (void)tool_report(b->c, s);
    else if (calomu_data_describe(data)->n_events == 0)
        s = tool_fail(CALOMU_EFORMAT, "%s holds no muons", b->data_path);
    else b->geometry = calomu_data_describe(data)->geometry;
    calomu_model_free(model);
    calomu_data_close(data);
    return s;
}

static calomu_status bench_run(bench *b)
{
    int i, profile = b->profile;
    calomu_status s = bench_check(b);
    if (s != CALOMU_OK) return s;
    b->row = bench_rows;
    b->rows = BENCH_ROWS;
    if (bench_on_device(b)) {
        b->row = b->machine.math == CALOMU_MATH_FAST ? bench_fast_rows : bench_equal_rows;
        b->rows = BENCH_DEVICE_ROWS;
    }
    for (i = 0; i < b->rows; i++) {
        b->value[i] = (double)CALOMU_ABSENT;
        b->why[i] = strstr(b->row[i].name, "_torch") ? "no --yardstick is given"
            : strstr(b->row[i].name, "_newest") ? "no --newest is given" : "";
    }
    bench_leave(b, "two_threads", "there is one thread");
    printf("%s\nmuons: %s\n\n", calomu_build_info(b->c), tool_shown(b->data_path));
    if (b->scaling_path) return bench_scaling(b);
    if (profile) s = bench_profile_run(b);
    else s = bench_on_device(b) ? bench_device(b) : bench_all(b);
    if (s != CALOMU_OK) return s;
    if (!profile) bench_print(b);
    return b->csv_path ? bench_csv(b) : CALOMU_OK;
}

/* --plan: of the model, or of the paper's network. */
static calomu_status bench_plan(bench *b, int given)
{
    static const char *const modes[2] = { "Inference", "Training" };
    const calomu_architecture paper = calomu_architecture_default();
    calomu_model *m = NULL;
    calomu_status s;
    char line[320];
    int training, i;
    s = given ? calomu_model_load(b->c, b->model_path, &m) : cm_model_new(b->c, &paper, 1, &m);
    if (s != CALOMU_OK) return tool_report(b->c, s);
    for (training = 0; training < 2; training++) {
        printf("%s%s: step, layer, operation, what it reads, z x x x y x channels, values; rules\n",
               training ? "\n" : "", modes[training]);
        for (i = 0; cm_net_plan(m->net[0], training, 0, 0, i, line); i++) printf("%s\n", line);
    }
    calomu_model_free(m);
    return CALOMU_OK;
}

int verb_bench(int argc, char **argv)
{
    static bench b;
    int plan = 0;
    tool_option options[] = {
        { .name = "data", .type = TOOL_STRING, .target = &b.data_path, .value = "FILE.cmu",
          .file = TOOL_READS,
          .help = "muons to work on, again and again where a batch needs more" },
        { .name = "model", .type = TOOL_STRING, .target = &b.model_path, .value = "FILE",
          .file = TOOL_READS,
          .help = "model for the inference runs" },
        { .name = "batch", .type = TOOL_INT, .target = &b.batch, .value = "N",
          .help = "muons in a batch", .low = 2, .high = 65536 },
        TOOL_OPTIONS_MACHINE(b.machine),
        { .name = "seconds", .type = TOOL_DOUBLE, .target = &b.seconds, .value = "S",
          .help = "time for each measurement, at least (s)", .low = 0.01, .high = 3600 },
        { .name = "profile", .type = TOOL_FLAG, .target = &b.profile,
          .help = "only a training step, operation by operation" },
        { .name = "plan", .type = TOOL_FLAG, .target = &plan,
          .help = "only how the network is computed, of the paper or --model: each operation" },
        { .name = "scaling", .type = TOOL_STRING, .target = &b.scaling_path, .value = "OUT.csv",
          .file = TOOL_WRITES,
          .help = "only cost per muon against batch size up to --batch, hits and cells" },
        { .name = "yardstick", .type = TOOL_STRING, .target = &b.yardstick, .value = "COMMAND",
          .help = "a peer to compare with, at our batch and at its best" },
        { .name = "newest", .type = TOOL_STRING, .target = &b.newest, .value = "COMMAND",
          .help = "another, at its best" },
        { .name = "peer-batches", .type = TOOL_STRING, .target = &b.batches, .value = "N,M,...",
          .help = "batches among which a peer finds its best" },
        { .name = "program", .type = TOOL_STRING, .target = &b.program, .value = "FILE",
          .file = TOOL_READS,
          .help = "the program whose start is timed" },
        { .name = "csv", .type = TOOL_STRING, .target = &b.csv_path, .value = "OUT.csv",
          .file = TOOL_WRITES,
          .help = "results as row,value,unit,target,met" },
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "bench",
        .purpose = "Measures training, inference, features and files on this machine, against the\n"
                   "targets.",
        .options = options,
        .notes = "The least time of all repetitions counts: what the machine can do when nothing\n"
                 "disturbs it.  A peer is a command such as tools/bench_torch.py, which is given\n"
                 "--job training|inference --batch N,M,... --threads N and speaks the lines that\n"
                 "tools/bench.c describes.  Ends with 0 whether targets are met or not."
    };
    int code;
    b.data_path = "testdata/muons.cmu";
    b.model_path = "testdata/model.safetensors";
    b.program = "./calomu";
    b.batches = "16,32,64,256";
    b.batch = 256;
    b.seconds = 10;                  /* a step of 256 muons takes 1 to 3: several of each */
    b.machine.device = "cpu";
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    if (b.machine.threads == 0) b.machine.threads = tool_threads_default();
    code = (int)tool_open_on(&b.c, &b.machine, 0);
    if (code != CALOMU_OK) return code;
    tool_signals_catch();
    code = (int)(plan ? bench_plan(&b, tool_given(&usage, "model")) : bench_run(&b));
    calomu_close(b.c);
    if (tool_stop) tool_signals_obey();
    return code;
}
