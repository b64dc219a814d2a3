/* test_api.c - everything through the public interface alone: train from memory, save, load,
   predict, evaluate; for any number of threads and instruction set the same bytes

   usage: test_api [TESTDATA [TMP]] */
#undef CALOMU_INTERNALS
#include "../calomu.h"
#ifdef CALOMU_INTERNALS
#error "the internals are visible"
#endif
#include "test.h"                    /* includes calomu.h again, which has no effect */
#include <sys/wait.h>
#include <unistd.h>

enum { MUONS = 120, HITS = 40, NZ = 10, NX = 6, NY = 5 };

typedef struct sample {
    calomu_data_info info;
    calomu_event event[MUONS];
    calomu_hit hit[MUONS][HITS];
    double truth[MUONS];
} sample;

/* Muons whose hits carry more energy the more energy they have, as radiation makes it. */
static void make_sample(sample *s)
{
    test_random r = test_seed(20220081);
    int i, k;
    memset(s, 0, sizeof *s);
    s->info.geometry = calomu_geometry_default();
    s->info.geometry.nz = NZ;
    s->info.geometry.nx = NX;
    s->info.geometry.ny = NY;
    for (i = 0; i < MUONS; i++) {
        calomu_event *e = &s->event[i];
        uint32_t cell = 0;
        s->truth[i] = test_uniform(&r, 60, 7900);
        for (k = 0; k < HITS; k++) {
            cell += (uint32_t)test_int(&r, 1, NZ * NX * NY / HITS - 1);
            s->hit[i][k].cell = cell;
            s->hit[i][k].energy = (float)(s->truth[i] * 1e-4 * test_uniform(&r, 0.5, 1.5));
        }
        e->hits = s->hit[i];
        e->n_hits = i == 3 ? 0 : HITS;
        e->x = (float)(s->info.geometry.origin[1] + s->info.geometry.pitch[1] * 2.3);
        e->y = (float)(s->info.geometry.origin[2] + s->info.geometry.pitch[2] * 2.6);
        e->energy = (float)s->truth[i];
        s->truth[i] = (double)e->energy;
        e->charge = CALOMU_ABSENT;
    }
}

static void count_notice(void *user, const char *line)
{
    if (*line && !strchr(line, '\n')) ++*(int *)user;
}

static calomu_architecture small_architecture(const sample *s, int head)
{
    calomu_architecture a = calomu_architecture_default();
    a.geometry = s->info.geometry;
    a.feature_options = calomu_feature_options_default();
    a.head = head;
    a.blocks = 1;
    a.growth = 1.1;
    a.body = 12;
    return a;
}

static calomu_train_options short_training(int epochs)
{
    calomu_train_options o = calomu_train_options_default();
    o.batch = 10;
    o.folds = 6;
    o.epochs = epochs;
    o.cycle_epochs = epochs;
    o.seed = 3;
    o.fit_bins = 5;
    o.mi_bins = 3;
    return o;
}

/* ---------------------------------------------------------------- training */

/* Steps until the end; returns the best validation loss, *first: that of the first epoch. */
static double run(calomu *c, calomu_trainer *t, double *first)
{
    calomu_train_report r;
    double best = (double)INFINITY;
    uint64_t updates = 0;
    int epochs = 0;
    *first = (double)NAN;
    memset(&r, 0, sizeof r);
    do {
        if (!CHECK_OK(c, calomu_trainer_step(c, t, &r))) break;
        if (r.kind == CALOMU_TRAIN_UPDATE) updates++;
        if (r.kind == CALOMU_TRAIN_EPOCH) {
            CHECK(r.epoch == ++epochs && r.improved == (r.validation_loss < best),
                  "epoch %d: improved %d", (int)r.epoch, (int)r.improved);
            CHECK(r.done == r.total && r.n_thresholds == 5, "%llu of %llu muons",
                  (unsigned long long)r.done, (unsigned long long)r.total);
            if (epochs == 1) *first = r.validation_loss;
            if (r.validation_loss < best) best = r.validation_loss;
        }
        CHECK(r.kind != CALOMU_TRAIN_UPDATE || isfinite(r.batch_loss), "loss %g", r.batch_loss);
    } while (r.kind != CALOMU_TRAIN_DONE);
    CHECK(epochs == calomu_trainer_options(t)->epochs && r.updates == updates && updates > 0,
          "%d epochs, %llu updates, %llu told", epochs, (unsigned long long)updates,
          (unsigned long long)r.updates);
    return best;
}

static calomu_model *train(calomu *c, const sample *s, int head, int epochs, double *first)
{
    calomu_architecture a = small_architecture(s, head);
    calomu_train_options o = short_training(epochs);
    calomu_data *d = NULL;
    calomu_trainer *t = NULL;
    calomu_model *m = NULL;
    double best;
    CHECK_OK(c, calomu_data_from_memory(c, &s->info, s->event, MUONS, &d));
    CHECK(d && calomu_data_describe(d)->n_events == MUONS
          && calomu_data_describe(d)->n_hits == (MUONS - 1) * HITS, "not the sample");
    CHECK_OK(c, calomu_trainer_create(c, d, &a, &o, &t));
    if (!t) exit(1);
    CHECK_FAILS(c, calomu_trainer_model(c, t, &m), CALOMU_EUSAGE);
    CHECK(calomu_trainer_architecture(t)->body == 12 && calomu_trainer_memory(t) > 1000,
          "%zu bytes", calomu_trainer_memory(t));
    best = run(c, t, first);
    CHECK_OK(c, calomu_trainer_model(c, t, &m));
    if (!m) exit(1);
    CHECK(calomu_model_loss(m, 0) == best, "loss %g, best %g", calomu_model_loss(m, 0), best);
    calomu_trainer_free(t);
    calomu_data_close(d);
    return m;
}

/* Half of a training, a checkpoint, the other half: the model of a training in one go. */
static void check_resume(calomu *c, const sample *s, const char *whole)
{
    char checkpoint[1024], file[1024];
    calomu_architecture a = small_architecture(s, 0), found;
    calomu_train_options o = short_training(4);
    calomu_train_report r;
    calomu_file_kind kind = CALOMU_FILE_DATA;
    calomu_data *d = NULL;
    calomu_trainer *t = NULL;
    calomu_model *m = NULL;
    char command[2100];
    int i;
    (void)test_path(checkpoint, sizeof checkpoint, test.tmp, "api.ckpt");
    (void)test_path(file, sizeof file, test.tmp, "api_resumed.safetensors");
    CHECK_OK(c, calomu_data_from_memory(c, &s->info, s->event, MUONS, &d));
    CHECK_OK(c, calomu_trainer_create(c, d, &a, &o, &t));
    for (i = 0; i < 23; i++) CHECK_OK(c, calomu_trainer_step(c, t, &r));
    CHECK_OK(c, calomu_trainer_save(c, t, checkpoint));
    calomu_trainer_free(t);
    t = NULL;
    CHECK(calomu_file_identify(c, checkpoint, &kind) == CALOMU_OK
          && kind == CALOMU_FILE_CHECKPOINT, "kind %d", (int)kind);
    CHECK_OK(c, calomu_checkpoint_describe(c, checkpoint, &o, &found, NULL));
    CHECK(found.body == 12 && o.folds == 6, "body %d, %d folds", (int)found.body, (int)o.folds);
    CHECK_OK(c, calomu_trainer_resume(c, d, checkpoint, &t));
    do {
        if (!CHECK_OK(c, calomu_trainer_step(c, t, &r))) break;
    } while (r.kind != CALOMU_TRAIN_DONE);
    CHECK_OK(c, calomu_trainer_model(c, t, &m));
    CHECK_OK(c, calomu_model_save(c, m, file));
    (void)snprintf(command, sizeof command, "cmp '%s' '%s'", file, whole);
    CHECK(system(command) == 0, "the resumed training ends elsewhere");
    calomu_model_free(m);
    calomu_trainer_free(t);
    calomu_trainer_free(NULL);
    calomu_data_close(d);
}

/* ---------------------------------------------------------------- the same bytes everywhere */

static size_t file_bytes(const char *path, unsigned char *to, size_t size)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(to, 1, size, f) : 0;
    if (f) (void)fclose(f);
    return n;
}

/* The weights of a few training steps, and predictions of them. */
static void check_bits(const sample *s)
{
    static const int threads[] = { 1, 2, 3, 7 };
    static unsigned char first[1 << 20], bytes[1 << 20];
    double expected[MUONS] = { 0 }, out[MUONS], loss;
    char path[1024];
    size_t size = 0, n;
    int isa, i, seen = 0;
    (void)test_path(path, sizeof path, test.tmp, "api_bits.safetensors");
    for (isa = CALOMU_ISA_PLAIN; isa <= CALOMU_ISA_AVX512; isa++)
        for (i = 0; i < 4; i++) {
            calomu_options o;
            calomu_model *m;
            calomu *c;
            memset(&o, 0, sizeof o);
            o.threads = threads[i];
            o.isa = (calomu_isa)isa;
            if (calomu_open(&c, &o) != CALOMU_OK) continue;  /* not in this machine */
            m = train(c, s, 1, 1, &loss);
            CHECK_OK(c, calomu_model_save(c, m, path));
            CHECK_OK(c, calomu_predict(c, m, NULL, s->event, MUONS, out, NULL));
            n = file_bytes(path, bytes, sizeof bytes);
            if (!seen++) {
                memcpy(first, bytes, n);
                memcpy(expected, out, sizeof out);
                size = n;
            }
            CHECK(n == size && n > 10000 && n < sizeof bytes && memcmp(bytes, first, n) == 0,
                  "%d threads, instruction set %d: other weights", threads[i], isa);
            CHECK(memcmp(out, expected, sizeof out) == 0,
                  "%d threads, instruction set %d: other predictions", threads[i], isa);
            calomu_model_free(m);
            calomu_close(c);
        }
    CHECK(seen >= 4, "%d combinations", seen);
    printf("test_api: weights and predictions of %d combinations of threads and instruction sets\n",
           seen);
}

/* ---------------------------------------------------------------- what follows a training */

static void check_evaluation(calomu *c, const sample *s, const double *prediction)
{
    calomu_eval_options o = calomu_eval_options_default();
    calomu_line line;
    calomu_summary summary;
    calomu_bin bins[8];
    int n = 0;
    o.low = 100;
    o.high = 7900;
    o.fit_bins = 6;
    o.bins = 4;
    CHECK_OK(c, calomu_debias_fit(c, &o, s->truth, prediction, MUONS, &line));
    CHECK(line.slope > 0.3 && line.slope < 2, "slope %g", line.slope);
    CHECK_NEAR(calomu_debias(&line, line.intercept + 1000 * line.slope), 1000, 1e-6);
    CHECK_OK(c, calomu_resolution(c, &o, &line, s->truth, prediction, MUONS, bins, 8, &n,
                                  &summary));
    CHECK(n == 4 && summary.used + summary.skipped == 4 && summary.points == 0
          && summary.worst > 0 && isfinite(summary.mi), "%d bins, MI %g", n, summary.mi);
    CHECK(!calomu_is_points(c, s->truth, MUONS), "points");
}

/* Through files and back. */
static void check_files(calomu *c, const sample *s, const calomu_model *m, const double *expected)
{
    char path[1024], file[1024];
    double out[MUONS];
    calomu_data *d = NULL;
    calomu_writer *w = NULL;
    calomu_model *again = NULL, *both = NULL, *pair[2];
    calomu_events events;
    int i;
    memset(&events, 0, sizeof events);
    (void)test_path(path, sizeof path, test.tmp, "api.cmu");
    (void)test_path(file, sizeof file, test.tmp, "api.safetensors");
    CHECK_OK(c, calomu_writer_open(c, path, &s->info, &w));
    for (i = 0; w && i < MUONS; i++) CHECK_OK(c, calomu_writer_add(w, &s->event[i]));
    CHECK_OK(c, calomu_writer_close(w));
    CHECK_OK(c, calomu_model_save(c, m, file));
    CHECK_OK(c, calomu_model_load(c, file, &again));
    CHECK_OK(c, calomu_data_open(c, path, &d));
    CHECK_OK(c, calomu_data_read(c, d, 0, NULL, MUONS, &events));
    CHECK_OK(c, calomu_predict(c, again, d, events.event, MUONS, out, NULL));
    CHECK(memcmp(out, expected, sizeof out) == 0, "from files: other predictions");
    pair[0] = again;
    pair[1] = again;
    CHECK_OK(c, calomu_model_join(c, pair, 2, &both));
    CHECK(calomu_model_describe(both)->members == 2, "no ensemble");
    CHECK_OK(c, calomu_predict(c, both, d, events.event, MUONS, out, NULL));
    CHECK(memcmp(out, expected, sizeof out) == 0, "a network with itself: other predictions");
    calomu_model_free(both);
    calomu_model_free(again);
    calomu_events_free(&events);
    calomu_data_close(d);
}

/* The same bits of the errors of resolutions in the parent, which starts its threads for them, and
   in a child of fork, where these are not. */
static void errors_in_child(calomu *c)
{
    enum { N = 2000 };
    static double truth[N], p[N];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_bin bin[64], again[64];
    calomu_summary sum;
    int i, n = 0, code = 0;
    pid_t child;
    for (i = 0; i < N; i++) {
        truth[i] = 100 + i * 1.95;
        p[i] = truth[i] * (0.9 + i % 21 * 0.01);
    }
    CHECK_OK(c, calomu_resolution(c, &o, NULL, truth, p, N, bin, 64, &n, &sum));
    memcpy(again, bin, sizeof bin);
    CHECK_OK(c, calomu_resolution_errors(c, &o, NULL, NULL, 0, truth, p, N, bin, n, &sum));
    (void)fflush(NULL);
    child = fork();
    if (child == 0) {
        (void)alarm(60);
        code = calomu_resolution_errors(c, &o, NULL, NULL, 0, truth, p, N, again, n, &sum)
            != CALOMU_OK;
        for (i = 0; i < n; i++) code |= again[i].combined_error != bin[i].combined_error ? 2 : 0;
        _exit(code);
    }
    CHECK(child > 0 && waitpid(child, &code, 0) == child && code == 0,
          "errors of resolutions in a child of fork: wait status %#x", (unsigned)code);
}

/* A worker of a host that has computed with several threads before it forked. */
static void check_fork(calomu *c, const sample *s, const calomu_model *m, const double *expected)
{
    double out[MUONS];
    int code = 0;
    pid_t child;
    errors_in_child(c);
    (void)fflush(NULL);
    child = fork();
    if (child == 0) {
        (void)alarm(60);
        code = calomu_predict(c, m, NULL, s->event, MUONS, out, NULL) != CALOMU_OK;
        code |= memcmp(out, expected, sizeof out) != 0 ? 2 : 0;
        code |= strstr(calomu_build_info(c), " 1 thread") ? 0 : 4;
        _exit(code);
    }
    CHECK(child > 0 && waitpid(child, &code, 0) == child && code == 0,
          "predicting in a child of fork: wait status %#x", (unsigned)code);
}

int main(int argc, char **argv)
{
    static sample s;
    char whole[1024];
    double first, best, out[MUONS];
    int notices = 0;
    calomu_options o;
    calomu_model *m;
    calomu *c = NULL;
    test_begin(argc, argv);
    make_sample(&s);
    memset(&o, 0, sizeof o);
    o.log = count_notice;
    o.user = &notices;
    o.threads = calomu_threads_available() > 1 ? 2 : 1;
    if (!CHECK(calomu_open(&c, &o) == CALOMU_OK, "no context")) return 1;
    m = train(c, &s, 0, 4, &first);
    (void)test_path(whole, sizeof whole, test.tmp, "api_whole.safetensors");
    CHECK_OK(c, calomu_model_save(c, m, whole));
    calomu_model_free(m);
    check_resume(c, &s, whole);
    m = train(c, &s, 0, 40, &first);
    best = calomu_model_loss(m, 0);
    CHECK(best < first / 4, "nothing was learned: loss %g, then %g", first, best);
    CHECK(notices > 0, "nobody said that features had to be computed");
    CHECK_OK(c, calomu_predict(c, m, NULL, s.event, MUONS, out, NULL));
    check_fork(c, &s, m, out);
    check_evaluation(c, &s, out);
    check_files(c, &s, m, out);
    calomu_model_free(m);
    check_bits(&s);
    calomu_close(c);
    return test_end("test_api");
}
