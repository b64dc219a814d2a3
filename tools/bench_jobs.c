/* bench_jobs.c - what is measured: each job prepares itself and does one repetition a turn. */
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    BENCH_MUONS = 1024,              /* read from the file, at most */
    BENCH_FOLDS = 8                  /* of the training: one is monitored */
};

/* ---------------------------------------------------------------- muons */

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

/* ---------------------------------------------------------------- files and features */

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

calomu_status bench_read_job(bench *b, int batch)
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

calomu_status bench_features_job(bench *b, int batch)
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
calomu_status bench_start_job(bench *b, int batch)
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

/* ---------------------------------------------------------------- training and inference */

void bench_training_end(bench_training *t)
{
    calomu_trainer_free(t->trainer);
    calomu_data_close(t->data);
    free(t->event);
    bench_muons_free(&t->muons);
    calomu_close(t->c);
}

/* The paper's network on folds of one batch each, all the same muons.  The learning rate is small:
   the measurement must not run into a loss that is not finite. */
calomu_status bench_training_begin(const bench *b, bench_training *t, int batch, int threads,
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

calomu_status bench_update(bench_training *t, double *seconds)
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

calomu_status bench_training_job(bench *b, int batch) { return bench_updates(b, batch, 0); }
calomu_status bench_recompute_job(bench *b, int batch) { return bench_updates(b, batch, 1); }

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

calomu_status bench_infer_job(bench *b, int batch) { return bench_model_job(b, batch, 0); }
calomu_status bench_host_job(bench *b, int batch) { return bench_model_job(b, batch, 1); }

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

calomu_status bench_sizes(bench *b)
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
