/* bench_profile.c - where the time of a training step goes, and how the network is computed. */
#define CALOMU_INTERNALS             /* marks of a step, the plan; else all is public interface */
#include "bench.h"
#ifdef CALOMU_CUDA
#include "../cuda/calomu_cuda.h"
#endif

#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

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

/* ---------------------------------------------------------------- a training step

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

static double bench_flops(const cm_profile_mark *l)
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

static void bench_lap(void *user, const cm_profile_mark *l)
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

void bench_profile_begin(bench_profile *p)
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
    if (s == CALOMU_OK) cm_profile_set(t.c, bench_lap, b->profiled);
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

calomu_status bench_profile_share(bench *b)
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

calomu_status bench_profile_visit(bench *b)
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

void bench_profile_end(bench *b, calomu_status s)
{
    if (s == CALOMU_OK) bench_profile_tell(b, b->profiled);
    if (b->profiled) (void)munmap(b->profiled, sizeof *b->profiled);
    b->profiled = NULL;
}

calomu_status bench_profile_run(bench *b)
{
    calomu_status s = bench_profile_share(b);
    if (s == CALOMU_OK) s = bench_profile_visit(b);
    bench_profile_end(b, s);
    return s;
}

/* ---------------------------------------------------------------- the plan */

#ifdef CALOMU_PLAIN
calomu_status bench_plan(bench *b, int given)
{
    (void)b;
    (void)given;
    return tool_fail(CALOMU_EUSAGE, "this program was built with -DCALOMU_PLAIN, which plans "
                     "nothing: every layer is computed as it is written");
}
#else
static void bench_plan_line(void *user, const char *line)
{
    (void)user;
    printf("%s\n", line);
}

calomu_status bench_plan(bench *b, int given)
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
        for (i = 0; cm_net_plan(m->net[0], training, 0, b->machine.unfused, i, line); i++)
            printf("%s\n", line);
    }
    printf("\nBackward, %d muons, threads: %d: step, layer; steps that add to its gradient, and "
           "that leave it to the step itself\n", b->batch, (int)b->machine.threads);
    s = cm_net_gradients(b->c, m->net[0], b->batch, (int)b->machine.threads, bench_plan_line, NULL);
    calomu_model_free(m);
    return s == CALOMU_OK ? s : tool_report(b->c, s);
}
#endif
