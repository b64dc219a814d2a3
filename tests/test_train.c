/* test_train.c - training (Secs. 3.2.3, 3.2.4): plan, standardisation, losses, resuming, files

   References are written here from the paper: lists of folds and rates, the loss in double, means
   in long double.  The muons are synthetic, made by the tests' own generator. */
#include "test.h"

enum { FOLDS = 6, FOLD = 24, N = FOLDS * FOLD + 3, MAX_HITS = 12 };

/* ---------------------------------------------------------------- synthetic muons */

typedef struct muons {
    calomu_data_info info;
    calomu_event event[N];
    calomu_hit hit[N][MAX_HITS];
    float feature[N][CALOMU_FEATURES];
} muons;

static muons sample;                 /* the one most tests use; tests that change it put it back */

/* Feature 0 tells the energy within 10%, feature 1 its logarithm roughly, 5 is constant, 24 wants
   clipping, the others are noise. */
static void make_muons(muons *s, calomu_feature_state state)
{
    test_random r = test_seed(17);
    int i, k;
    memset(s, 0, sizeof *s);
    s->info.geometry = calomu_geometry_default();
    s->info.geometry.nz = 9;
    s->info.geometry.nx = 7;
    s->info.geometry.ny = 6;
    s->info.geometry.origin[1] = -13;
    s->info.geometry.origin[2] = -11.25;
    s->info.features = state;
    s->info.feature_options = calomu_feature_options_default();
    for (i = 0; i < N; i++) {
        calomu_event *e = s->event + i;
        uint32_t cell = 0;
        double energy = test_uniform(&r, 60, 4000);
        e->energy = (float)energy;
        e->x = (float)test_uniform(&r, -10, 10);
        e->y = (float)test_uniform(&r, -10, 10);
        e->charge = 1;
        e->hits = s->hit[i];
        e->n_hits = (size_t)test_int(&r, 0, MAX_HITS);
        for (k = 0; k < (int)e->n_hits; k++) {
            cell += (uint32_t)test_int(&r, 1, 30);
            s->hit[i][k].cell = cell;
            s->hit[i][k].energy = (float)(energy * test_uniform(&r, 0, 2e-3));
        }
        for (k = 0; k < CALOMU_FEATURES; k++)
            s->feature[i][k] = (float)(10 * k + test_normal(&r));
        s->feature[i][0] = (float)(energy * (1 + 0.1 * test_normal(&r)));
        s->feature[i][1] = (float)(log(energy) + test_normal(&r));
        s->feature[i][5] = 3.25f;
        s->feature[i][24] = (float)test_uniform(&r, -2000, 12000);
        e->features = state == CALOMU_FEATURES_NONE ? NULL : s->feature[i];
    }
}

/* The sample in memory of its own, to be changed. */
static void copy_sample(muons *to)
{
    int i;
    *to = sample;
    for (i = 0; i < N; i++) {
        to->event[i].hits = to->hit[i];
        if (to->event[i].features) to->event[i].features = to->feature[i];
    }
}

/* The first muon from i on that has hits. */
static int with_hits(const muons *s, int i)
{
    while (s->event[i].n_hits == 0) i++;
    return i;
}

static calomu_data *open_muons(calomu *c, const muons *s)
{
    calomu_data *data = NULL;
    CHECK_OK(c, calomu_data_from_memory(c, &s->info, s->event, N, &data));
    return data;
}

static calomu *open_context(int threads)
{
    calomu_options o = { 0 };
    calomu *c = NULL;
    o.threads = threads;
    CHECK(calomu_open(&c, &o) == CALOMU_OK, "no context of %d threads", threads);
    return c;
}

static calomu_architecture features_only(void)
{
    calomu_architecture a = calomu_architecture_default();
    a.geometry = sample.info.geometry;
    a.head = 0;
    a.body = 8;
    return a;
}

static calomu_architecture small_hybrid(void)
{
    calomu_architecture a = features_only();
    a.head = 1;
    a.blocks = 1;
    a.growth = 0.5;                  /* 8, 4, 2, 1 channels: quick under sanitizers too */
    return a;
}

static calomu_train_options small_options(void)
{
    calomu_train_options o = calomu_train_options_default();
    o.batch = 8;
    o.folds = FOLDS;
    o.epochs = 6;
    o.cycle_epochs = 3;
    o.lr = 0.05;
    o.seed = 5;
    o.fit_bins = 4;
    o.mi_bins = 3;
    return o;
}

static calomu_trainer *start(calomu *c, const calomu_data *data, const calomu_architecture *a,
                             const calomu_train_options *o)
{
    calomu_trainer *t = NULL;
    CHECK_OK(c, calomu_trainer_create(c, data, a, o, &t));
    return t;
}

/* Steps until the given kind has come; the report of that step. */
static calomu_train_report run_to(calomu *c, calomu_trainer *t, calomu_train_kind kind)
{
    calomu_train_report r = { 0 };
    int i;
    for (i = 0; i < 100000; i++) {
        if (!CHECK_OK(c, calomu_trainer_step(c, t, &r)) || r.kind == kind) return r;
        if (r.kind == CALOMU_TRAIN_DONE) break;
    }
    CHECK(0, "step kind %d never came", (int)kind);
    return r;
}

/* ---------------------------------------------------------------- files as bytes */

typedef struct bytes {
    unsigned char *at;
    size_t n;
} bytes;

static const char *scratch(const char *name)
{
    static char path[8][1024];
    static int turn;
    turn = (turn + 1) % 8;
    return test_path(path[turn], sizeof path[turn], test.tmp, name);
}

static bytes read_bytes(const char *path)
{
    bytes b = { NULL, 0 };
    FILE *f = fopen(path, "rb");
    long n = -1;
    if (f && fseek(f, 0, SEEK_END) == 0) n = ftell(f);
    if (!CHECK(n >= 0, "cannot read %s", path)) return b;
    rewind(f);
    b.at = malloc((size_t)n + 1);
    if (b.at) b.n = fread(b.at, 1, (size_t)n, f);
    fclose(f);
    CHECK(b.n == (size_t)n, "%s is short", path);
    return b;
}

static void write_bytes(const char *path, const unsigned char *at, size_t n)
{
    FILE *f = fopen(path, "wb");
    int good = f != NULL && fwrite(at, 1, n, f) == n;
    if (f && fclose(f) != 0) good = 0;
    CHECK(good, "cannot write %s", path);
}

static bytes saved(calomu *c, const calomu_trainer *t)
{
    const char *path = scratch("train_saved.ckpt");
    bytes none = { NULL, 0 };
    return CHECK_OK(c, calomu_trainer_save(c, t, path)) ? read_bytes(path) : none;
}

static int same(bytes a, bytes b)
{
    return a.n > 0 && a.n == b.n && memcmp(a.at, b.at, a.n) == 0;
}

/* The bits at the end of a training, and no trainer any more. */
static bytes ended(calomu *c, calomu_trainer *t)
{
    bytes b;
    run_to(c, t, CALOMU_TRAIN_DONE);
    b = saved(c, t);
    calomu_trainer_free(t);
    return b;
}

/* Copies a checkpoint or model, to itself too, with another value of one entry of the metadata. */
static void edit_file(calomu *c, const char *from, const char *to, const char *key,
                      const char *value)
{
    char text[32];
    cm_st st;
    int i, found = 0;
    (void)snprintf(text, sizeof text, "%s", value);
    if (!CHECK_OK(c, cm_st_read(c, from, &st))) return;
    for (i = 0; i < st.n_meta; i++)
        if (strcmp(st.meta[i].key, key) == 0) {
            st.meta[i].value = text;
            found++;
        }
    CHECK(found == 1, "no %s", key);
    CHECK_OK(c, cm_st_write(c, to, &st));
    cm_st_free(c, &st);
}

/* ---------------------------------------------------------------- plan */

static void test_rates(void)
{
    const double pi = acos(-1.0);
    calomu_train_options o = calomu_train_options_default();
    double lr, beta1;
    int t;
    o.lr = 1e-3;
    for (t = 0; t < 140; t++) {      /* 7 updates an epoch: 14 up, 126 down */
        int up = t < 14;
        double part = up ? t / 14.0 : (t - 14) / 126.0;
        double a = up ? 1e-5 : 1e-3, b = up ? 1e-3 : 1e-4;
        double p = up ? 0.95 : 0.85, q = up ? 0.85 : 0.95;
        cm_plan_rate(&o, 7, (uint64_t)t, &lr, &beta1);
        CHECK_NEAR(lr, b + (a - b) * (1 + cos(pi * part)) / 2, 1e-15);
        CHECK_NEAR(beta1, q + (p - q) * (1 + cos(pi * part)) / 2, 1e-14);
    }
    cm_plan_rate(&o, 7, 7, &lr, &beta1);         /* half way up: the mean of both ends */
    CHECK_NEAR(lr, 5.05e-4, 1e-15);
    CHECK_NEAR(beta1, 0.9, 1e-14);
    o.cycle_epochs = 1;                          /* 5 updates: no rise */
    cm_plan_rate(&o, 5, 0, &lr, &beta1);
    CHECK_NEAR(lr, 1e-3, 1e-15);
}

/* The roles as text: t training, m monitored, - unused. */
static void check_folds(calomu *c, const calomu_train_options *o, const char *expected)
{
    unsigned char role[64];
    char text[65];
    int i;
    if (!CHECK_OK(c, cm_plan_folds(c, o, 36 * 300, role))) return;
    for (i = 0; i < o->folds; i++)
        text[i] = role[i] == CM_FOLD_TRAINING ? 't' : role[i] == CM_FOLD_MONITORED ? 'm' : '-';
    text[i] = 0;
    CHECK(strcmp(text, expected) == 0, "member %d: %s, not %s", (int)o->member, text, expected);
}

static void test_folds(calomu *c)
{
    static const char *const unique[5] = {   /* 2-8; 1,9-14; 15-21; 22-28; 29-35 */
        "-mttttttt---------------------------", "-tm------tttttt---------------------",
        "---m-----------ttttttt--------------", "----m-----------------ttttttt-------",
        "-----m-----------------------ttttttt" };
    static const char *const joined[2] = {
        "tmtttttt----------------------------", "-tm-----tttttt----------------------" };
    calomu_train_options o = calomu_train_options_default();
    unsigned char role[64];
    int k;
    for (o.unique = 1, k = 0; k < 5; k++) {
        o.member = k;
        check_folds(c, &o, unique[k]);
    }
    for (o.holdout = 0, k = 0; k < 2; k++) {
        o.member = k;
        check_folds(c, &o, joined[k]);
    }
    o.unique = 0;
    o.member = 2;
    check_folds(c, &o, "tttmtttttttttttttttttttttttttttttttt");
    o.holdout = 1;
    check_folds(c, &o, "-ttmtttttttttttttttttttttttttttttttt");
    CHECK_FAILS(c, cm_plan_folds(c, &o, 36 * 256 - 1, role), CALOMU_EUSAGE);
    CHECK(strstr(calomu_message(c), "full batch") != NULL, "%s", calomu_message(c));
    o.member = 35;
    CHECK_FAILS(c, cm_plan_folds(c, &o, 36 * 300, role), CALOMU_EUSAGE);
    o.member = 5;
    o.unique = 1;
    CHECK_FAILS(c, cm_plan_folds(c, &o, 36 * 300, role), CALOMU_EUSAGE);
    o.folds = 6;
    o.member = 4;                    /* 1 fold each of 1..5, all taken or monitored */
    CHECK_FAILS(c, cm_plan_folds(c, &o, 36 * 300, role), CALOMU_EUSAGE);
    o.unique = 0;
    o.folds = 2;
    o.member = 0;
    CHECK_FAILS(c, cm_plan_folds(c, &o, 36 * 300, role), CALOMU_EUSAGE);
}

static void test_shuffles(void)
{
    static const uint64_t sizes[] = { 0, 1, 2, 3, 17, 1000 };
    uint64_t order[1000], other[1000];
    int seen[1000], count[6] = { 0 };
    size_t k, i;
    for (k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int good = 1;
        memset(seen, 0, sizeof seen);
        cm_plan_shuffle(9, 4, order, sizes[k]);
        for (i = 0; i < sizes[k]; i++) good = good && order[i] < sizes[k] && !seen[order[i]]++;
        CHECK(good, "no permutation of %d", (int)sizes[k]);
    }
    cm_plan_shuffle(9, 4, other, 1000);
    CHECK(memcmp(order, other, sizeof order) == 0, "the same stream gives another order");
    cm_plan_shuffle(9, 5, other, 1000);
    CHECK(memcmp(order, other, sizeof order) != 0, "another stream gives the same order");
    cm_plan_shuffle(10, 4, other, 1000);
    CHECK(memcmp(order, other, sizeof order) != 0, "another seed gives the same order");
    for (i = 0; i < 6000; i++) {     /* the 6 orders of 3 are equally frequent: 1000 +- 29 */
        cm_plan_shuffle(1, i, order, 3);
        count[order[0] * 2 + (order[1] > order[2])]++;
    }
    for (i = 0; i < 6; i++) CHECK_NEAR(count[i], 1000, 150);
}

/* One line per epoch: validation loss, what must happen, LR and beta1 of the next epoch. */
typedef struct scripted {
    double loss;
    int what;
    double lr, beta1;
} scripted;

static void run_script(const calomu_train_options *o, const scripted *line, int n, int best_epoch)
{
    cm_plan plan = { 0 };
    int i;
    plan.epoch = 1;
    for (i = 0; i < n; i++) {
        CHECK(plan.epoch == i + 1 && !plan.finished, "epoch %d ends as %d", i + 1, (int)plan.epoch);
        if (plan.epoch <= o->cycle_epochs) {     /* rates that name their epoch */
            plan.lr = plan.epoch;
            plan.beta1 = 0.01 * plan.epoch;
        }
        CHECK(cm_plan_epoch(o, &plan, line[i].loss) == line[i].what, "epoch %d", i + 1);
        if (plan.epoch <= o->cycle_epochs) continue;
        CHECK_NEAR(plan.lr, line[i].lr, 0);
        CHECK_NEAR(plan.beta1, line[i].beta1, 1e-15);
    }
    CHECK(plan.finished == 1 && plan.best_epoch == best_epoch, "finished %d, best epoch %d",
          (int)plan.finished, (int)plan.best_epoch);
}

static void test_decisions(void)
{
    enum { NO = 0, BEST = CM_PLAN_BEST, RELOAD = CM_PLAN_RELOAD, BOTH = BEST | RELOAD };
    static const scripted halving[] = {          /* 1cycle of 3, patience 2, stop after 5 */
        { 9, BEST, 0, 0 }, { 7, BEST, 0, 0 },
        { 8, RELOAD, 2, 0.02 },                  /* end of the 1cycle: rates of epoch 2 */
        { 7, NO, 2, 0.02 },                      /* equal is no improvement */
        { 8, RELOAD, 1, 0.95 },                  /* 2 without: halved */
        { 6, BEST, 1, 0.95 },                    /* both counters restart */
        { 7, NO, 1, 0.95 }, { 7, RELOAD, 0.5, 0.95 },
        { 7, NO, 0.5, 0.95 }, { 7, RELOAD, 0.25, 0.95 },   /* of the LR in use, not the best's */
        { 7, NO, 0.25, 0.95 } };                 /* the fifth without: the end */
    static const scripted late[] = {             /* the 1cycle's last epoch is the best */
        { 9, BEST, 0, 0 }, { 8, BEST, 0, 0 }, { 7, BOTH, 3, 0.03 },
        { 6, BEST, 3, 0.03 }, { 7, NO, 3, 0.03 }, { 5, BEST, 3, 0.03 } };
    static const scripted idle[] = {             /* counters do not run within the 1cycle */
        { 1, BEST, 0, 0 }, { 2, NO, 0, 0 }, { 2, RELOAD, 1, 0.01 }, { 2, NO, 1, 0.01 },
        { 2, RELOAD, 0.5, 0.95 }, { 2, NO, 0.5, 0.95 }, { 2, RELOAD, 0.25, 0.95 },
        { 2, NO, 0.25, 0.95 } };
    calomu_train_options o = calomu_train_options_default();
    o.cycle_epochs = 3;
    o.stop_after = 5;
    run_script(&o, halving, (int)(sizeof halving / sizeof *halving), 6);
    run_script(&o, idle, (int)(sizeof idle / sizeof *idle), 1);
    o.epochs = 6;
    run_script(&o, late, (int)(sizeof late / sizeof *late), 6);
    o.epochs = 2;                    /* ends within the 1cycle */
    run_script(&o, late, 2, 2);
}

static void test_default_lr(calomu *c)
{
    calomu_architecture a = features_only();
    calomu_train_options o = small_options();
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t;
    o.lr = 0;
    t = start(c, data, &a, &o);      /* 4 training folds of 3 batches */
    CHECK_NEAR(calomu_trainer_options(t)->lr, 5e-3, 0);
    calomu_trainer_free(t);
    o.epochs = o.cycle_epochs = 1000;
    t = start(c, data, &a, &o);
    CHECK_NEAR(calomu_trainer_options(t)->lr, 3e-5 * 65280 / 12000, 1e-18);
    calomu_trainer_free(t);
    calomu_data_close(data);
}

/* ---------------------------------------------------------------- standardisation */

static int is_training(int i) { return i >= 2 * FOLD && i < FOLDS * FOLD; }

/* Mean and population deviation over folds 2..5 (0 held out, 1 monitored). */
static void reference_standardisation(float values[N][CALOMU_FEATURES], double *mean, double *dev)
{
    int i, k;
    for (k = 0; k < CALOMU_FEATURES; k++) {
        long double sum = 0, square = 0, n = 0;
        for (i = 0; i < N; i++) {
            long double x = values[i][k];
            if (!is_training(i)) continue;
            if (k == 24) x = x < 0 ? 0 : x > 10000 ? 10000 : x;
            sum += x;
            square += x * x;
            n++;
        }
        mean[k] = (double)(sum / n);
        square = square / n - sum / n * (sum / n);
        dev[k] = square > 1e-9L ? (double)sqrtl(square) : 1;
    }
}

static calomu_model *train_one_epoch(calomu *c, const muons *s, const calomu_architecture *a,
                                     const calomu_train_options *o, calomu_train_report *r)
{
    calomu_data *data = open_muons(c, s);
    calomu_trainer *t = start(c, data, a, o);
    calomu_model *m = NULL;
    if (t) {
        CHECK_FAILS(c, calomu_trainer_model(c, t, &m), CALOMU_EUSAGE);
        *r = run_to(c, t, CALOMU_TRAIN_EPOCH);
        CHECK_OK(c, calomu_trainer_model(c, t, &m));
    }
    calomu_trainer_free(t);
    calomu_data_close(data);
    return m;
}

static void check_standardisation(calomu *c, const muons *s, float values[N][CALOMU_FEATURES],
                                  double tolerance)
{
    calomu_architecture a = features_only();
    calomu_train_options o = small_options();
    calomu_train_report r;
    double mean[CALOMU_FEATURES], dev[CALOMU_FEATURES];
    calomu_model *m = train_one_epoch(c, s, &a, &o, &r);
    int k;
    reference_standardisation(values, mean, dev);
    for (k = 0; m && k < CALOMU_FEATURES; k++) {
        const calomu_model_info *info = calomu_model_describe(m);
        CHECK_NEAR(info->mean[k], mean[k], tolerance * (1 + fabs(mean[k])));
        CHECK_NEAR(info->deviation[k], dev[k], tolerance * (1 + dev[k]));
    }
    calomu_model_free(m);
}

static void test_standardisation(calomu *c)
{
    static muons other;
    static float computed[N][CALOMU_FEATURES];
    calomu_architecture a = features_only();
    calomu_train_options o = small_options();
    calomu_train_report r;
    calomu_model *m;
    int i, k;
    check_standardisation(c, &sample, sample.feature, 1e-12);

    make_muons(&other, CALOMU_FEATURES_STANDARDISED);
    for (k = 0; k < CALOMU_FEATURES; k++) {
        other.info.mean[k] = 3 * k;
        other.info.deviation[k] = 0.5 + k;
        for (i = 0; i < N; i++)
            other.feature[i][k] = (float)((sample.feature[i][k] - other.info.mean[k])
                                          / other.info.deviation[k]);
    }
    check_standardisation(c, &other, sample.feature, 1e-6);

    make_muons(&other, CALOMU_FEATURES_RAW);     /* another convention: from the hits */
    other.info.feature_options.convention = CALOMU_CONVENTION_AUTHORS;
    for (i = 0; i < N; i++)
        CHECK_OK(c, calomu_features(c, &other.info.geometry, other.event + i, NULL, computed[i]));
    check_standardisation(c, &other, computed, 1e-12);
    other.info.features = CALOMU_FEATURES_NONE;
    for (i = 0; i < N; i++) other.event[i].features = NULL;
    check_standardisation(c, &other, computed, 1e-12);

    make_muons(&other, CALOMU_FEATURES_STANDARDISED_UNKNOWN);
    m = train_one_epoch(c, &other, &a, &o, &r);
    for (k = 0; m && k < CALOMU_FEATURES; k++) {
        CHECK_NEAR(calomu_model_describe(m)->mean[k], 0, 0);
        CHECK_NEAR(calomu_model_describe(m)->deviation[k], 1, 0);
    }
    CHECK(m && calomu_model_describe(m)->architecture.standardised_unknown == 1, "not marked");
    calomu_model_free(m);
}

/* ---------------------------------------------------------------- losses of an epoch */

static double weight(double y) { return 1 - 1 / (1 + exp(-(y - 5000) / (y > 5000 ? 600 : 300))); }

/* Spec 4 with thresholds frozen; bins of 50..8000 in fifths. */
static double reference_loss(double y, double p, const double *threshold)
{
    double d = fabs(y - p), loss = d * d;
    int j = (int)floor((y - 50) / 1590);
    if (threshold && j >= 0 && j < 5 && threshold[j] >= 0 && loss > threshold[j])
        loss = threshold[j] + 2 * sqrt(threshold[j]) * (d - sqrt(threshold[j]));
    return weight(y) * loss / y;
}

/* The validation loss is that of the model over all muons of fold 1, MI that of its predictions. */
static void test_validation(calomu *c, int head)
{
    calomu_architecture a = head ? small_hybrid() : features_only();
    calomu_train_options o = small_options();
    calomu_train_report r;
    calomu_eval_options e = calomu_eval_options_default();
    calomu_data *data;
    calomu_model *m;
    calomu_line line;
    calomu_bin bins[3];
    calomu_summary summary;
    double pred[FOLD], truth[FOLD], loss = 0;
    int i, n;
    o.batch = 5;                     /* 4 batches of a fold, the last short one counts too */
    o.epochs = o.cycle_epochs = 1;
    o.lr = 0.02;
    m = train_one_epoch(c, &sample, &a, &o, &r);
    data = open_muons(c, &sample);
    CHECK_OK(c, calomu_predict(c, m, data, sample.event + FOLD, FOLD, pred, NULL));
    for (i = 0; i < FOLD; i++) {
        truth[i] = (double)sample.event[FOLD + i].energy;
        loss += reference_loss(truth[i], pred[i], r.thresholds) / FOLD;
    }
    CHECK_NEAR(r.validation_loss, loss, 1e-9 * loss);
    CHECK_NEAR(calomu_model_loss(m, 0), r.validation_loss, 0);
    CHECK(r.updates == 16 && r.done == 16 * 5 + FOLD && r.total == r.done && r.improved,
          "%d updates, %d of %d muons", (int)r.updates, (int)r.done, (int)r.total);
    e.bins = 3;
    e.fit_bins = 4;
    e.points = 0;
    if (calomu_debias_fit(c, &e, truth, pred, FOLD, &line) == CALOMU_OK) {
        CHECK_OK(c, calomu_resolution(c, &e, &line, truth, pred, FOLD, bins, 3, &n, &summary));
        CHECK_NEAR(r.mi, summary.mi, 0);
        CHECK_NEAR(r.worst, summary.worst, 0);
    } else {
        CHECK(isnan(r.mi) && isnan(r.worst), "an MI without a fit");
    }
    calomu_model_free(m);
    calomu_data_close(data);
}

/* With a vanishing rate and no loss bin in reach, the training loss of an epoch is the mean over
   all muons of the training folds: each is seen once. */
static void test_every_muon_once(calomu *c)
{
    calomu_architecture a = features_only();
    calomu_train_options o = small_options();
    calomu_train_report r;
    calomu_data *data = open_muons(c, &sample);
    calomu_model *m;
    double pred[N], loss = 0;
    int i, n = 0;
    o.bin_low = 1e6;
    o.bin_high = 2e6;
    o.outside = 1;                   /* they are wanted empty here */
    o.lr = 1e-200;
    o.epochs = o.cycle_epochs = 1;
    m = train_one_epoch(c, &sample, &a, &o, &r);
    CHECK_OK(c, calomu_predict(c, m, data, sample.event, N, pred, NULL));
    for (i = 0; i < N; i++)
        if (is_training(i)) {
            loss += reference_loss((double)sample.event[i].energy, pred[i], NULL);
            n++;
        }
    CHECK_NEAR(r.training_loss, loss / n, 1e-12 * loss / n);
    calomu_model_free(m);
    calomu_data_close(data);
}

/* ---------------------------------------------------------------- learning, threads */

static bytes train_all(int threads, const calomu_architecture *a, const calomu_train_options *o,
                       double *first, double *best)
{
    calomu *c = open_context(threads);
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t = start(c, data, a, o);
    calomu_train_report r = run_to(c, t, CALOMU_TRAIN_EPOCH);
    calomu_model *m = NULL;
    bytes b;
    *first = r.validation_loss;
    r = run_to(c, t, CALOMU_TRAIN_DONE);
    CHECK(r.kind == CALOMU_TRAIN_DONE && r.epoch >= 1, "epoch %d", (int)r.epoch);
    CHECK_OK(c, calomu_trainer_model(c, t, &m));
    *best = m ? calomu_model_loss(m, 0) : -1;
    b = saved(c, t);
    calomu_model_free(m);
    calomu_trainer_free(t);
    calomu_data_close(data);
    calomu_close(c);
    return b;
}

static void test_learning(const calomu_architecture *a, const calomu_train_options *o,
                          double factor)
{
    static const int threads[] = { 2, 3, 7 };
    double first, best, other;
    bytes one = train_all(1, a, o, &first, &best), b;
    calomu_train_options changed = *o;
    size_t i;
    CHECK(best > 0 && best < factor * first, "loss %g after one epoch, %g at best", first, best);
    for (i = 0; i < 3; i++) {
        b = train_all(threads[i], a, o, &first, &other);
        CHECK(same(one, b), "%d threads give other bits", threads[i]);
        free(b.at);
    }
    free(one.at);
    if (a->head) return;
    changed.seed++;
    b = train_all(1, a, &changed, &first, &other);
    CHECK(other != best, "another seed changes nothing");
    free(b.at);
}

/* The same seed, another member: another start. */
static void test_members(calomu *c)
{
    calomu_architecture a = features_only();
    calomu_train_options o = small_options();
    calomu_train_report r[2];
    int k;
    for (k = 0; k < 2; k++) {
        o.member = k;
        calomu_model_free(train_one_epoch(c, &sample, &a, &o, r + k));
    }
    CHECK(r[0].training_loss != r[1].training_loss, "two members train alike");
}

/* What is held out changes nothing; what is monitored changes no weight of the first epoch. */
static void test_untouched(calomu *c)
{
    static muons other;
    calomu_architecture a = features_only();
    calomu_train_options o = small_options();
    calomu_train_report r;
    calomu_data *data[3];
    calomu_trainer *t[3];
    calomu_model *m[3] = { NULL };
    double pred[3][FOLD];
    int i, k;
    copy_sample(&other);
    for (i = 0; i < FOLD; i++) {
        other.event[i].energy = 17;
        other.feature[i][3] = 1e6f;
    }
    for (k = 0; k < 3; k++) {
        if (k == 2)
            for (i = FOLD; i < 2 * FOLD; i++) other.event[i].energy *= 1.5f;
        data[k] = open_muons(c, k ? &other : &sample);
        t[k] = start(c, data[k], &a, &o);
        r = run_to(c, t[k], CALOMU_TRAIN_EPOCH);
        CHECK_OK(c, calomu_trainer_model(c, t[k], m + k));
        CHECK_OK(c, calomu_predict(c, m[k], data[0], sample.event, FOLD, pred[k], NULL));
    }
    (void)r;
    CHECK(calomu_model_loss(m[0], 0) == calomu_model_loss(m[1], 0), "fold 0 matters");
    CHECK(calomu_model_loss(m[0], 0) != calomu_model_loss(m[2], 0), "fold 1 is not monitored");
    CHECK(memcmp(pred[0], pred[1], sizeof *pred) == 0, "fold 0 is trained on");
    CHECK(memcmp(pred[0], pred[2], sizeof *pred) == 0, "the monitored fold is trained on");
    for (k = 0; k < 3; k++) {
        calomu_model_free(m[k]);
        calomu_trainer_free(t[k]);
        calomu_data_close(data[k]);
    }
}

/* ---------------------------------------------------------------- resuming */

/* Saves after every step; then each file resumed, one step made and saved, must give the next
   file.  So any chain of interruptions ends in the same bits. */
static void test_resume(calomu *c, const calomu_architecture *a, const calomu_train_options *o)
{
    enum { MOST = 400 };
    static bytes file[MOST];
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t = start(c, data, a, o);
    calomu_train_report r = { 0 };
    int n = 0, k, bad = 0;
    const char *path = scratch("train_resume.ckpt");
    file[n++] = saved(c, t);
    while (n < MOST && r.kind != CALOMU_TRAIN_DONE) {
        CHECK_OK(c, calomu_trainer_step(c, t, &r));
        file[n++] = saved(c, t);
    }
    calomu_trainer_free(t);
    CHECK(r.kind == CALOMU_TRAIN_DONE && n > 10, "%d steps", n);
    for (k = 0; k + 1 < n; k++) {
        bytes next;
        write_bytes(path, file[k].at, file[k].n);
        t = NULL;
        if (!CHECK_OK(c, calomu_trainer_resume(c, data, path, &t))) break;
        next = saved(c, t);
        bad += !same(next, file[k]);             /* reading and writing lose nothing */
        free(next.at);
        CHECK_OK(c, calomu_trainer_step(c, t, &r));
        next = saved(c, t);
        bad += !same(next, file[k + 1]);
        free(next.at);
        calomu_trainer_free(t);
    }
    CHECK(bad == 0, "%d of %d steps differ after resuming", bad, n);
    for (k = 0; k < n; k++) free(file[k].at);
    calomu_data_close(data);
}

/* ---------------------------------------------------------------- reloading the best state */

/* Live tensors against the best ones (1: all the same) and two numbers of the metadata. */
static int live_is_best(calomu *c, const calomu_trainer *t, int step, int updates)
{
    static const char *const pair[3][2] = { { "live.", "best." }, { "adam.m.", "best.m." },
                                            { "adam.v.", "best.v." } };
    const char *path = scratch("train_reloaded.ckpt");
    int i, k, good = 1, compared = 0;
    cm_st st;
    CHECK_OK(c, calomu_trainer_save(c, t, path));
    if (!CHECK_OK(c, cm_st_read(c, path, &st))) return 0;
    for (i = 0; i < st.n_tensors; i++)
        for (k = 0; k < 3; k++) {
            const cm_st_tensor *x = st.tensor + i, *y;
            char name[128];
            size_t n = strlen(pair[k][0]);
            if (strncmp(x->name, pair[k][0], n) != 0) continue;
            (void)snprintf(name, sizeof name, "%s%s", pair[k][1], x->name + n);
            y = cm_st_find(&st, name);
            good = good && y && y->count == x->count
                && memcmp(x->data, y->data, x->count * (x->dtype == CM_F32 ? 4 : 8)) == 0;
            compared++;
        }
    CHECK(compared > 20, "%d tensors", compared);
    CHECK(atoi(cm_st_find_meta(&st, "state.step")) == step
          && atoi(cm_st_find_meta(&st, "state.updates")) == updates, "step %s, %s updates",
          cm_st_find_meta(&st, "state.step"), cm_st_find_meta(&st, "state.updates"));
    cm_st_free(c, &st);
    return good;
}

/* A checkpoint whose best loss cannot be reached any more: the state of epoch 1 must come back at
   the end of the 1cycle (3 epochs) and two epochs later, without the thresholds. */
static void test_reload(calomu *c)
{
    const char *path = scratch("train_reload.ckpt");
    calomu_architecture a = small_hybrid();
    calomu_train_options o = small_options();
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t;
    calomu_train_report first, r, next = { 0 };
    o.batch = FOLD;                  /* 4 updates an epoch */
    t = start(c, data, &a, &o);
    first = run_to(c, t, CALOMU_TRAIN_EPOCH);
    CHECK(live_is_best(c, t, 4, 4) == 1, "the best state is not the one that was best");
    CHECK_OK(c, calomu_trainer_save(c, t, path));
    calomu_trainer_free(t);
    t = NULL;
    edit_file(c, path, path, "state.plan.best_loss", "1e-9");
    CHECK_OK(c, calomu_trainer_resume(c, data, path, &t));
    run_to(c, t, CALOMU_TRAIN_EPOCH);
    CHECK(live_is_best(c, t, 8, 8) == 0, "a state came back within the 1cycle");
    r = run_to(c, t, CALOMU_TRAIN_EPOCH);
    CHECK(r.epoch == 3 && !r.improved, "epoch %d", (int)r.epoch);
    CHECK(live_is_best(c, t, 4, 12) == 1, "the best state has not come back");
    CHECK_OK(c, calomu_trainer_step(c, t, &next));
    CHECK_NEAR(next.lr, first.lr, 0);
    CHECK_NEAR(next.beta1, first.beta1, 0);
    CHECK(r.thresholds[0] != first.thresholds[0]
          && fabs(next.thresholds[0] / r.thresholds[0] - 1) < 0.5, "thresholds came back: %g",
          next.thresholds[0]);
    run_to(c, t, CALOMU_TRAIN_EPOCH);
    CHECK(live_is_best(c, t, 8, 16) == 0, "patience of one epoch");
    run_to(c, t, CALOMU_TRAIN_EPOCH);
    CHECK(live_is_best(c, t, 4, 20) == 1, "the best state has not come back again");
    CHECK_OK(c, calomu_trainer_step(c, t, &next));
    CHECK_NEAR(next.lr, first.lr / 2, 0);
    CHECK_NEAR(next.beta1, 0.95, 0);
    calomu_trainer_free(t);
    calomu_data_close(data);
}

/* ---------------------------------------------------------------- hostile checkpoints */

/* A checkpoint in the middle of a validation pass of the second epoch: everything is in it. */
static void make_checkpoint(calomu *c, const char *path, const calomu_architecture *a)
{
    calomu_train_options o = small_options();
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t = start(c, data, a, &o);
    run_to(c, t, CALOMU_TRAIN_EPOCH);
    run_to(c, t, CALOMU_TRAIN_VALIDATION);
    CHECK_OK(c, calomu_trainer_save(c, t, path));
    calomu_trainer_free(t);
    calomu_data_close(data);
}

static void test_describe(calomu *c, const char *path)
{
    calomu_train_options o, want = small_options();
    calomu_architecture a;
    calomu_train_report last;
    calomu_file_kind kind;
    CHECK_OK(c, calomu_checkpoint_describe(c, path, &o, &a, &last));
    CHECK(o.batch == want.batch && o.seed == want.seed && o.lr == want.lr && a.body == 8,
          "options are not those of the training");
    CHECK(last.kind == CALOMU_TRAIN_EPOCH && last.epoch == 1 && last.updates == 12
          && last.n_thresholds == 5 && last.validation_loss > 0 && last.total == 4 * FOLD + FOLD,
          "epoch %d, %d updates", (int)last.epoch, (int)last.updates);
    CHECK_OK(c, calomu_checkpoint_describe(c, path, NULL, NULL, NULL));
    CHECK_OK(c, calomu_file_identify(c, path, &kind));
    CHECK(kind == CALOMU_FILE_CHECKPOINT, "kind %d", (int)kind);
}

static void test_damaged(calomu *c, const char *good)
{
    const char *path = scratch("train_damaged.ckpt");
    bytes b = read_bytes(good);
    size_t step = b.n / 61 + 1, n;
    for (n = 0; n < b.n; n += step) {
        write_bytes(path, b.at, n);
        CHECK_FAILS(c, calomu_checkpoint_describe(c, path, NULL, NULL, NULL), CALOMU_EFORMAT);
        write_bytes(path, b.at, b.n);
        b.at[n] ^= 0x10;
        write_bytes(path, b.at, b.n);
        CHECK_FAILS(c, calomu_checkpoint_describe(c, path, NULL, NULL, NULL), CALOMU_EFORMAT);
        b.at[n] ^= 0x10;
    }
    write_bytes(path, b.at, b.n - 1);
    CHECK_FAILS(c, calomu_checkpoint_describe(c, path, NULL, NULL, NULL), CALOMU_EFORMAT);
    free(b.at);
}

/* Writes a changed copy with a right checksum; it must be refused, without much memory. */
static void refuse(calomu *c, cm_st *st, const char *what)
{
    const char *path = scratch("train_hostile.ckpt");
    calomu_status s = cm_st_write(c, path, st);
    if (s == CALOMU_OK) s = calomu_checkpoint_describe(c, path, NULL, NULL, NULL);
    CHECK(s == CALOMU_EFORMAT, "%s: status %d, %s", what, (int)s, calomu_message(c));
}

static void test_hostile(calomu *c, const char *good)
{
    static char values[][32] = { "x", "", "-1", "nan", "inf", "1e400", "2 ", "1e18",
                                 "99999999999999999999999" };
    cm_st st;
    int i;
    size_t k;
    if (!CHECK_OK(c, cm_st_read(c, good, &st))) return;
    for (i = 0; i < st.n_meta; i++) {
        char *key = st.meta[i].key, *value = st.meta[i].value;
        static char other[] = "other";
        if (strcmp(key, "checksum") == 0) continue;
        for (k = 0; k < sizeof values / sizeof *values; k++) {
            int may = strstr(key, ".mi") || strstr(key, ".worst") || strstr(key, "origin")
                || strstr(key, "field") || strcmp(key, "state.fingerprint") == 0
                || strcmp(key, "train.seed") == 0 || strcmp(key, "state.loss_sum") == 0;
            if (may && k > 0) continue;
            if ((strstr(key, "loss") || strstr(key, "lr") || strstr(key, "pitch")
                 || strstr(key, "grow")) && k >= 7) continue;    /* odd but possible */
            st.meta[i].value = values[k];
            refuse(c, &st, key);
        }
        st.meta[i].value = value;
        st.meta[i].key = other;
        refuse(c, &st, key);
        st.meta[i].key = key;
    }
    for (i = 0; i < st.n_tensors; i++) {
        cm_st_tensor keep = st.tensor[i];
        static unsigned char wrong[1 << 20];
        size_t size = keep.dtype == CM_F32 ? 4 : 8;
        st.tensor[i].name = "other";
        refuse(c, &st, keep.name);
        st.tensor[i] = keep;
        st.tensor[i].rank++;
        st.tensor[i].shape[keep.rank] = 1;
        refuse(c, &st, keep.name);
        st.tensor[i] = keep;
        if (keep.count == 0 || keep.count * size > sizeof wrong) continue;
        memcpy(wrong, keep.data, keep.count * size);
        memset(wrong + (keep.count - 1) * size, 0xff, size);     /* a NaN */
        st.tensor[i].data = wrong;
        refuse(c, &st, keep.name);
        st.tensor[i] = keep;
    }
    CHECK_OK(c, cm_st_write(c, scratch("train_hostile.ckpt"), &st));
    CHECK_OK(c, calomu_checkpoint_describe(c, scratch("train_hostile.ckpt"), NULL, NULL, NULL));
    cm_st_free(c, &st);
}

/* Networks that the tensors do not hold are refused before their memory is taken. */
static void test_inflated(calomu *c, const char *good)
{
    static const char *const keys[] = { "architecture.body", "architecture.blocks",
                                        "architecture.growth", "train.folds", "state.n_events" };
    static char value[][16] = { "100000", "1000", "900", "1048576", "999999999999999" };
    cm_st st;
    int i, k;
    if (!CHECK_OK(c, cm_st_read(c, good, &st))) return;
    for (k = 0; k < 5; k++)
        for (i = 0; i < st.n_meta; i++)
            if (strcmp(st.meta[i].key, keys[k]) == 0) {
                char *keep = st.meta[i].value;
                st.meta[i].value = value[k];
                refuse(c, &st, keys[k]);
                st.meta[i].value = keep;
            }
    cm_st_free(c, &st);
}

static void test_other_data(calomu *c, const char *good)
{
    static muons other;
    calomu_data_info info = sample.info;
    calomu_data *data = NULL;
    calomu_trainer *t = NULL;
    int i = with_hits(&sample, FOLD), k;
    for (k = 0; k < 6; k++) {
        copy_sample(&other);
        if (k == 0) other.event[50].energy += 1;
        if (k == 1) other.feature[100][7] += 1;
        if (k == 2) other.info.geometry.pitch[1] = 3.8;
        if (k == 3) other.event[N - 4].energy = calomu_absent();
        if (k == 4) other.hit[i][0].energy += 0.001f;    /* hits count where only features are */
        if (k == 5) other.hit[i][other.event[i].n_hits - 1].cell++;          /* trained on too */
        data = open_muons(c, &other);
        CHECK_FAILS(c, calomu_trainer_resume(c, data, good, &t), CALOMU_EFORMAT);
        calomu_data_close(data);
    }
    CHECK_OK(c, calomu_data_from_memory(c, &info, sample.event, N - 1, &data));
    CHECK_FAILS(c, calomu_trainer_resume(c, data, good, &t), CALOMU_EFORMAT);
    calomu_data_close(data);
    CHECK(t == NULL, "a trainer came out of a failure");
}

/* ---------------------------------------------------------------- bad requests */

static void test_requests(calomu *c)
{
    static muons other;
    calomu_architecture a = features_only();
    calomu_train_options o;
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t = NULL;
    int k;
    for (k = 0; k < 12; k++) {
        o = small_options();
        if (k == 0) o.batch = 0;
        if (k == 1) o.folds = 1;
        if (k == 2) o.folds = N + 1;
        if (k == 3) o.member = 5;
        if (k == 4) o.lr = (double)NAN;
        if (k == 5) o.bins = 17;
        if (k == 6) o.bin_high = o.bin_low;
        if (k == 7) o.epochs = 0;
        if (k == 8) o.batch = FOLD + 1;
        if (k == 9) o.lr = -1;
        if (k == 10) o.quantile = 1.5;
        if (k == 11) o.tracker = 0;
        CHECK_FAILS(c, calomu_trainer_create(c, data, &a, &o, &t), CALOMU_EUSAGE);
    }
    o = small_options();
    a.geometry.nz++;
    CHECK_FAILS(c, calomu_trainer_create(c, data, &a, &o, &t), CALOMU_EFORMAT);
    a = small_hybrid();
    o.batch = 1;
    CHECK_FAILS(c, calomu_trainer_create(c, data, &a, &o, &t), CALOMU_EUSAGE);
    calomu_data_close(data);
    a = features_only();
    o = small_options();
    other = sample;                  /* truth is needed where it is used, not in the hold-out */
    other.event[3].energy = calomu_absent();
    data = open_muons(c, &other);
    CHECK_OK(c, calomu_trainer_create(c, data, &a, &o, &t));
    calomu_trainer_free(t);
    t = NULL;
    calomu_data_close(data);
    other.event[40].energy = calomu_absent();
    data = open_muons(c, &other);
    CHECK_FAILS(c, calomu_trainer_create(c, data, &a, &o, &t), CALOMU_EFORMAT);
    CHECK(strstr(calomu_message(c), "event 40 ") != NULL, "%s", calomu_message(c));
    calomu_data_close(data);
    CHECK(t == NULL, "a trainer came out of a failure");
}

/* ---------------------------------------------------------------- not finite, validation */

/* An absurd rate put into a checkpoint after the first epoch; `what`: is not finite. */
static void test_not_finite(calomu *c, const char *rate, const char *what)
{
    const char *path = scratch("train_absurd.ckpt");
    calomu_architecture a = features_only();
    calomu_train_options o = small_options();
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t = start(c, data, &a, &o);
    calomu_train_report r = run_to(c, t, CALOMU_TRAIN_EPOCH);
    calomu_model *m = NULL, *before = NULL;
    calomu_status s = CALOMU_OK;
    bytes file[2];
    int i;
    CHECK_OK(c, calomu_trainer_model(c, t, &before));
    CHECK_OK(c, calomu_trainer_save(c, t, path));
    calomu_trainer_free(t);
    t = NULL;
    edit_file(c, path, path, "train.lr", rate);
    CHECK_OK(c, calomu_trainer_resume(c, data, path, &t));
    file[0].at = NULL;
    for (i = 0; i < 1000 && s == CALOMU_OK; i++) {
        free(file[0].at);
        file[0] = saved(c, t);
        s = calomu_trainer_step(c, t, &r);
    }
    CHECK(s == CALOMU_ENOTFINITE && strstr(calomu_message(c), what), "status %d: %s", (int)s,
          calomu_message(c));
    file[1] = saved(c, t);
    CHECK(same(file[0], file[1]), "the failed step left traces");
    CHECK(calomu_trainer_step(c, t, &r) == CALOMU_ENOTFINITE, "a second try goes on");
    CHECK_OK(c, calomu_trainer_model(c, t, &m));
    CHECK(memcmp(m->net[0]->trained, before->net[0]->trained,
                 m->net[0]->n_trained * sizeof(cm_real)) == 0, "the best state changed");
    free(file[0].at);
    free(file[1].at);
    calomu_model_free(m);
    calomu_model_free(before);
    calomu_trainer_free(t);
    calomu_data_close(data);
}

static void test_validation_is_passive(calomu *c)
{
    calomu_architecture a = small_hybrid();
    calomu_train_options o = small_options();
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t = start(c, data, &a, &o);
    calomu_train_report r = { 0 };
    cm_st st[2];
    int i, compared = 0;
    while (r.done < 4 * FOLD) CHECK_OK(c, calomu_trainer_step(c, t, &r));
    CHECK_OK(c, calomu_trainer_save(c, t, scratch("train_before.ckpt")));
    while (r.done < 5 * FOLD) CHECK_OK(c, calomu_trainer_step(c, t, &r));
    CHECK(r.kind == CALOMU_TRAIN_VALIDATION, "kind %d", (int)r.kind);
    CHECK_OK(c, calomu_trainer_save(c, t, scratch("train_after.ckpt")));
    CHECK_OK(c, cm_st_read(c, scratch("train_before.ckpt"), st));
    CHECK_OK(c, cm_st_read(c, scratch("train_after.ckpt"), st + 1));
    for (i = 0; i < st[0].n_tensors; i++) {
        const cm_st_tensor *x = st[0].tensor + i, *y = cm_st_find(st + 1, x->name);
        CHECK(y && y->count == x->count
              && memcmp(x->data, y->data, x->count * (x->dtype == CM_F32 ? 4 : 8)) == 0,
              "validation changed %s", x->name);
        compared += strstr(x->name, "sums") != NULL || strcmp(x->name, "thresholds") == 0;
    }
    CHECK(compared > 2, "no buffers compared");
    cm_st_free(c, st);
    cm_st_free(c, st + 1);
    calomu_trainer_free(t);
    calomu_data_close(data);
}

/* ---------------------------------------------------------------- failing allocations */

typedef struct allocator {
    long left, live;                 /* allocations until one fails; blocks not released */
} allocator;

static void *allocate(void *user, size_t size)
{
    allocator *a = user;
    void *p;
    if (a->left == 0) return NULL;
    a->left--;
    p = malloc(size);
    if (p) a->live++;
    return p;
}

static void release(void *user, void *memory)
{
    allocator *a = user;
    if (memory) a->live--;
    free(memory);
}

/* A whole life: energies, create, train an epoch, save, resume, take the model out, know it again,
   train longer, start from it. */
static calomu_status life(calomu *c, const calomu_architecture *a)
{
    const char *path = scratch("train_life.ckpt");
    calomu_train_options o = small_options();
    calomu_train_report r = { 0 };
    calomu_data *data = NULL;
    calomu_trainer *t = NULL;
    calomu_model *m = NULL;
    calomu_architecture there;
    calomu_train_options had;
    double low, high;
    int members;
    calomu_status s = calomu_data_from_memory(c, &sample.info, sample.event, 32, &data);
    o.folds = 2;                     /* one update and one batch of validation */
    o.holdout = 0;
    o.batch = 16;
    o.epochs = 1;
    if (s == CALOMU_OK) s = calomu_train_energies(c, data, &o, &low, &high);
    o.shuffle = 1;
    if (s == CALOMU_OK) s = calomu_trainer_create(c, data, a, &o, &t);
    while (s == CALOMU_OK && r.kind != CALOMU_TRAIN_EPOCH) s = calomu_trainer_step(c, t, &r);
    if (s == CALOMU_OK) s = calomu_trainer_save(c, t, path);
    calomu_trainer_free(t);
    t = NULL;
    if (s == CALOMU_OK) s = calomu_trainer_resume(c, data, path, &t);
    if (s == CALOMU_OK) s = calomu_trainer_model(c, t, &m);
    if (s == CALOMU_OK) s = calomu_model_save(c, m, path);
    if (s == CALOMU_OK) s = calomu_trainer_ended(c, data, NULL, path, &had, &there, &members);
    if (s == CALOMU_OK) s = calomu_trainer_extend(c, t, 2, 10);
    if (s == CALOMU_OK) s = calomu_trainer_step(c, t, &r);
    calomu_trainer_free(t);
    t = NULL;
    o.start = m;
    o.validation = data;
    if (s == CALOMU_OK) s = calomu_trainer_create(c, data, a, &o, &t);
    calomu_model_free(m);
    calomu_trainer_free(t);
    calomu_data_close(data);
    return s;
}

static void test_allocations(const calomu_architecture *a)
{
    allocator count = { 0, 0 };
    calomu_options o = { 0 };
    calomu_status s = CALOMU_EMEMORY;
    long n;
    o.allocate = allocate;
    o.release = release;
    o.user = &count;
    for (n = 0; n < 5000 && s != CALOMU_OK; n++) {
        calomu *c = NULL;
        count.left = n;
        s = calomu_open(&c, &o);
        if (s == CALOMU_OK) s = life(c, a);
        calomu_close(c);
        if (!CHECK(s == CALOMU_OK || s == CALOMU_EMEMORY, "allocation %ld: status %d", n, (int)s)
            || !CHECK(count.live == 0, "allocation %ld: %ld blocks lost", n, count.live)) break;
    }
    CHECK(s == CALOMU_OK && n > 20, "%ld allocations", n);
}

/* ---------------------------------------------------------------- do muons and options fit? */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void check_ks(calomu *c, double *x, size_t n, double *y, size_t m, double p, double tol)
{
    double here = -1;
    qsort(x, n, sizeof *x, by_value);
    qsort(y, m, sizeof *y, by_value);
    CHECK_OK(c, cm_ks(c, x, n, y, m, &here));
    CHECK_NEAR(here, p, tol * p);
    CHECK_OK(c, cm_ks(c, y, m, x, n, &here));
    CHECK_NEAR(here, p, tol * p);
}

/* scipy 1.15.3, ks_2samp(method="exact"); with equal values all arrangements were counted in
   Python (133 of 858, 8 of 33), as scipy counts as if there were none. */
static void test_ks(calomu *c)
{
    double tied[2][7] = { { 1, 1, 2, 3, 3, 5, 8 }, { 3, 4, 5, 5, 8, 9 } };
    double two[2][6] = { { 1, 1, 1, 1, 2, 2 }, { 1, 2, 2, 2, 2 } };
    static double x[3000], y[2500];
    int i;
    check_ks(c, tied[0], 7, tied[1], 6, 133.0 / 858, 1e-14);
    check_ks(c, two[0], 6, two[1], 5, 8.0 / 33, 1e-14);
    for (i = 0; i < 100; i++) x[i] = (i * 37) % 101;
    for (i = 0; i < 67; i++) y[i] = (i * 29) % 67 + 0.5;
    check_ks(c, x, 60, y, 45, 0.005118649295629492, 1e-12);
    for (i = 0; i < 100; i++) x[i] = (i * 37) % 101;
    for (i = 0; i < 67; i++) y[i] = (i * 29) % 67 + 40.5;
    check_ks(c, x, 100, y, 67, 1.4944148620993434e-06, 1e-12);
    for (i = 0; i < 40; i++) x[i] = 100 + i;
    for (i = 0; i < 10; i++) y[i] = i;
    check_ks(c, x, 40, y, 10, 1.9469877732098058e-10, 1e-12);    /* 2 in 50 over 10 */
    for (i = 0; i < 40; i++) x[i] = y[i % 7] = 5;
    check_ks(c, x, 40, y, 7, 1, 0);
    /* beyond 4e6 pairs, Kolmogorov's series: 2 exp(-2 D^2 nm/(n + m)); exact 9.53e-5 */
    for (i = 0; i < 3000; i++) x[i] = i / 3000.0;
    for (i = 0; i < 2500; i++) y[i] = 0.06 + i / 2500.0 * 0.94;
    check_ks(c, x, 3000, y, 2500, 9.978414008208618e-05, 1e-9);
}

/* Whether training starts, and the word that must be in its notices ("": anything, "-": there is
   none), or in the message. */
static void judged(const muons *s, const calomu_train_options *o, calomu_status status,
                   const char *word)
{
    calomu *c = test_open_noting();
    calomu_architecture a = features_only();
    calomu_data *data = open_muons(c, s);
    calomu_trainer *t = NULL;
    const char *said;
    test_said[0] = 0;
    if (status == CALOMU_OK) CHECK_OK(c, calomu_trainer_create(c, data, &a, o, &t));
    else CHECK_FAILS(c, calomu_trainer_create(c, data, &a, o, &t), status);
    said = status == CALOMU_OK ? test_said : calomu_message(c);
    CHECK(*word == '-' && !word[1] ? !*said : strstr(said, word) != NULL, "'%s' is not in '%s'",
          word, said);
    CHECK((t != NULL) == (status == CALOMU_OK), "a trainer came out of a failure");
    calomu_trainer_free(t);
    calomu_data_close(data);
    calomu_close(c);
}

/* The sample with other energies; features and hits stay what they are. */
static muons *with_energies(double factor)
{
    static muons other;
    int i;
    copy_sample(&other);
    for (i = 0; i < N; i++)
        other.event[i].energy = (float)(factor * (double)sample.event[i].energy);
    return &other;
}

static void in_order(muons *s)
{
    int i, k;
    for (i = 1; i < N; i++)
        for (k = i; k > 0 && s->event[k].energy < s->event[k - 1].energy; k--) {
            float e = s->event[k].energy;
            s->event[k].energy = s->event[k - 1].energy;
            s->event[k - 1].energy = e;
        }
}

/* Files in some order: rising, falling, two files one after the other, energy points. */
static void test_order(void)
{
    calomu_train_options o = small_options();
    muons *s;
    int i, k;
    for (k = 0; k < 5; k++) {
        s = with_energies(1);
        if (k < 3) in_order(s);
        for (i = 0; k == 1 && i < N / 2; i++) {
            float e = s->event[i].energy;
            s->event[i].energy = s->event[N - 1 - i].energy;
            s->event[N - 1 - i].energy = e;
        }
        for (i = 0; k >= 2 && i < N; i++) {
            if (k == 2 && i < N / 3) s->event[i].energy = 100 + (float)(i * 37 % 48);
            if (k == 3) s->event[i].energy = 100 + 800 * (float)(i / FOLD);
            if (k == 4) s->event[i].energy = 100 + 800 * (float)(i % FOLDS);
        }
        o.shuffle = 0;
        judged(s, &o, k == 4 ? CALOMU_OK : CALOMU_EFORMAT, k == 4 ? "" : "--shuffle");
        o.shuffle = 1;
        judged(s, &o, CALOMU_OK, "");
    }
    o.shuffle = 0;
    s = with_energies(1);            /* only the fold that this member monitors is looked at */
    for (i = 3 * FOLD; i < 4 * FOLD; i++) s->event[i].energy = 70;
    judged(s, &o, CALOMU_OK, "");
    o.member = 2;
    judged(s, &o, CALOMU_EFORMAT, "fold 3 (70 to 70 GeV, monitored)");
    o = small_options();             /* too few muons to be sure: 2 in 15 over 3 is 0.4% */
    o.batch = 2;
    o.folds = 49;
    o.unique = 0;
    s = with_energies(1);
    in_order(s);
    judged(s, &o, CALOMU_OK, "");
}

/* Energies of another unit or range; the sample's are 60 to 4000 GeV. */
static void test_energies(void)
{
    calomu_train_options o = small_options(), wide = o;
    muons *s;
    int i;
    calomu_train_options_range(&wide, 170, 4000);
    judged(&sample, &wide, CALOMU_OK, "-");
    judged(with_energies(1000), &o, CALOMU_EFORMAT, "are they MeV?");
    judged(with_energies(0.001), &o, CALOMU_EFORMAT, "are they TeV?");
    judged(with_energies(0.125), &o, CALOMU_EFORMAT, "--energy-range");   /* 7.5 to 500 GeV */
    calomu_train_options_range(&wide, 7, 500);
    judged(with_energies(0.125), &wide, CALOMU_OK, "");
    o.outside = 1;
    judged(with_energies(1000), &o, CALOMU_OK, "120 of 120 muons");
    o.outside = 0.2;
    o.bin_high = 3000;
    judged(&sample, &o, CALOMU_EFORMAT, "(--energy-range auto or LOW,HIGH; --loss-range alone)");
    o.bin_high = 3900;
    judged(&sample, &o, CALOMU_OK, " of 120 muons are outside the loss bins of 50 to 3900 GeV");
    o = small_options();
    o.weight_centre = 100;           /* weights fall below 0.001 6.9 widths above it */
    o.weight_high = 500;
    judged(&sample, &o, CALOMU_OK, "(--weight-centre)");
    o.weight_high = 300;
    judged(&sample, &o, CALOMU_EFORMAT, "--weight-centre");
    o = small_options();
    o.bin_high = 20000;              /* 4 of 5 bins are above all muons */
    judged(&sample, &o, CALOMU_EFORMAT, "4 of 5 loss bins");
    o.outside = 1;
    judged(&sample, &o, CALOMU_OK, "4 of 5 loss bins");
    o.outside = 0.2;
    o.bin_high = 10000;              /* bins of 1990: the second is filled */
    judged(&sample, &o, CALOMU_OK, "3 of 5 loss bins");
    o = small_options();
    o.range_high = 20100;
    judged(&sample, &o, CALOMU_EFORMAT, "81% of the range of the MI, 100 to 20100 GeV");
    o.range_high = 19000;
    judged(&sample, &o, CALOMU_OK, "(--range)");
    s = with_energies(1);            /* exactly a fifth outside is not over it; the hold-out does */
    for (i = 0; i < FOLD; i++) s->event[i].energy = 9000;    /* not count */
    for (i = 0; i < FOLD; i++) s->event[FOLD + 5 * i].energy = 8000;
    o = small_options();
    judged(s, &o, CALOMU_OK, "24 of 120 muons are outside");
    s->event[FOLD + 1].energy = 8000;
    judged(s, &o, CALOMU_EFORMAT, "25 of 120 muons (20.8%) are outside");
}

/* Hits of another unit. */
static void test_units(void)
{
    static const double factor[] = { 1000, 0.001, 0.01 };
    static const char *const said[] = { "sum up to more than the true energy",
                                        "have no cell above 0.1 GeV, where clusters begin, so",
                                        "have no cell above 0.1 GeV" };
    calomu_train_options o = small_options();
    int i, k, h;
    for (k = 0; k < 3; k++) {
        muons *s = with_energies(1);
        for (i = 0; i < N; i++)
            for (h = 0; h < (int)s->event[i].n_hits; h++)
                s->hit[i][h].energy *= (float)factor[k];
        o.outside = 0.2;
        judged(s, &o, CALOMU_EFORMAT, said[k]);
        o.outside = 1;
        judged(s, &o, CALOMU_OK, "");
    }
}

static void test_range_options(calomu *c)
{
    calomu_train_options d = calomu_train_options_default(), o = d;
    calomu_data *data = open_muons(c, &sample);
    double low = 0, high = 0, least = 1e9, most = 0;
    int i;
    calomu_train_options_range(&o, 50, 8000);
    CHECK(memcmp(&o, &d, sizeof o) == 0, "50 to 8000 GeV are not the defaults");
    calomu_train_options_range(&o, 10, 500);
    CHECK_NEAR(o.bin_low, 10, 0);
    CHECK_NEAR(o.bin_high, 500, 0);
    CHECK_NEAR(o.weight_centre, 10 + 4950 * 490.0 / 7950, 1e-12);
    CHECK_NEAR(o.weight_low, 300 * 490.0 / 7950, 1e-12);
    CHECK_NEAR(o.weight_high, 600 * 490.0 / 7950, 1e-12);
    CHECK_NEAR(o.range_low, 10 + 50 * 490.0 / 7950, 1e-12);
    CHECK_NEAR(o.range_high, 10 + 3950 * 490.0 / 7950, 1e-12);
    for (i = FOLD; i < FOLDS * FOLD; i++) {      /* not the hold-out */
        double e = (double)sample.event[i].energy;
        least = e < least ? e : least;
        most = e > most ? e : most;
    }
    o = small_options();
    CHECK_OK(c, calomu_train_energies(c, data, &o, &low, &high));
    CHECK_NEAR(low, floor(least / 10) * 10, 0);  /* 100 <= least < 1000 <= most < 10000 */
    CHECK_NEAR(high, floor(most / 100 + 1) * 100, 0);
    calomu_data_close(data);
    data = open_muons(c, with_energies(1e-4));
    CHECK_OK(c, calomu_train_energies(c, data, &o, &low, &high));
    CHECK_NEAR(low, floor(least / 10) / 1000, 0);
    CHECK_NEAR(high, floor(most / 100 + 1) / 100, 0);
    calomu_data_close(data);
}

/* ---------------------------------------------------------------- shuffle, validation, start */

/* The tensors of a model file, without the metadata. */
static bytes weights_of(calomu *c, const calomu_trainer *t)
{
    const char *path = scratch("train_weights.st");
    calomu_model *m = NULL;
    bytes b = { NULL, 0 };
    uint64_t head = 0;
    int i;
    CHECK_OK(c, calomu_trainer_model(c, t, &m));
    if (!m || !CHECK_OK(c, calomu_model_save(c, m, path))) return b;
    calomu_model_free(m);
    b = read_bytes(path);
    for (i = 0; i < 8; i++) head |= (uint64_t)b.at[i] << (8 * i);
    b.n -= 8 + (size_t)head;
    memmove(b.at, b.at + 8 + head, b.n);
    return b;
}

/* Shuffled before the cut is the same as cutting muons that were shuffled before. */
static void test_shuffled(calomu *c, const calomu_architecture *a)
{
    static muons dealt;
    uint64_t order[N];
    calomu_train_options o = small_options();
    int i, k, moved = 0;
    dealt = sample;
    cm_plan_shuffle(o.seed, (uint64_t)1 << 61, order, N);
    for (i = 0; i < N; i++) {
        dealt.event[i] = sample.event[order[i]];
        moved += order[i] / FOLD != (uint64_t)i / FOLD;
    }
    CHECK(moved > N / 2, "%d muons change their fold", moved);
    for (k = 0; k < 3; k++) {        /* member 1 has the same folds */
        calomu_data *data[2];
        calomu_trainer *t[2];
        bytes w[2];
        int j;
        o.member = k == 1;
        o.unique = 0;
        o.batch = k == 2 ? 5 : 8;
        for (j = 0; j < 2; j++) {
            data[j] = open_muons(c, j ? &dealt : &sample);
            o.shuffle = !j;
            t[j] = start(c, data[j], a, &o);
            run_to(c, t[j], CALOMU_TRAIN_DONE);
            w[j] = weights_of(c, t[j]);
        }
        CHECK(same(w[0], w[1]), "member %d: shuffling is not shuffling", (int)o.member);
        for (j = 0; j < 2; j++) {
            free(w[j].at);
            calomu_trainer_free(t[j]);
            calomu_data_close(data[j]);
        }
    }
}

/* Monitored are all muons of the other set, trained on all folds but the hold-out. */
static void test_separate(calomu *c, const calomu_architecture *a)
{
    calomu_train_options o = small_options();
    calomu_data *data = open_muons(c, &sample), *other = NULL;
    calomu_train_report r;
    calomu_trainer *t;
    calomu_model *m = NULL;
    double pred[N], loss = 0;
    bytes whole, b;
    int i, n = 2 * FOLD + 5;         /* folds and batches are not its size */
    const char *path = scratch("train_separate.ckpt");
    CHECK_OK(c, calomu_data_from_memory(c, &sample.info, sample.event + FOLD, (size_t)n, &other));
    o.batch = 5;
    o.validation = other;
    t = start(c, data, a, &o);
    CHECK(calomu_trainer_options(t)->separate == 1, "not told");
    r = run_to(c, t, CALOMU_TRAIN_EPOCH);
    CHECK(r.updates == 20 && r.total == (uint64_t)(20 * 5 + n) && r.done == r.total,
          "%d updates, %d muons", (int)r.updates, (int)r.total);
    CHECK_OK(c, calomu_trainer_model(c, t, &m));
    CHECK_OK(c, calomu_predict(c, m, data, sample.event + FOLD, (size_t)n, pred, NULL));
    for (i = 0; i < n; i++)
        loss += reference_loss((double)sample.event[FOLD + i].energy, pred[i], r.thresholds) / n;
    CHECK_NEAR(r.validation_loss, loss, 1e-9 * loss);
    calomu_model_free(m);
    CHECK_OK(c, calomu_trainer_step(c, t, &r));
    CHECK_OK(c, calomu_trainer_save(c, t, path));
    whole = ended(c, t);
    t = NULL;
    CHECK_FAILS(c, calomu_trainer_resume(c, data, path, &t), CALOMU_EUSAGE);
    CHECK_FAILS(c, calomu_trainer_resume_with(c, data, data, path, &t), CALOMU_EFORMAT);
    CHECK_OK(c, calomu_trainer_resume_with(c, data, other, path, &t));
    b = ended(c, t);
    CHECK(same(b, whole), "resumed with a validation set: other bits");
    free(b.at);
    free(whole.at);
    calomu_data_close(other);
    calomu_data_close(data);
}

/* The standardisation and every muon of the training folds: fold 1 is one of them now. */
static void test_separate_folds(calomu *c)
{
    static muons other;
    calomu_architecture a = features_only();
    calomu_train_options o = small_options();
    calomu_data *data, *validation = open_muons(c, &sample);
    calomu_trainer *t = NULL;
    int k;
    o.validation = validation;
    for (k = 0; k < 5; k++) {
        copy_sample(&other);
        if (k == 0) other.event[2].energy = calomu_absent();     /* held out */
        if (k == 1) other.event[FOLD + 3].energy = calomu_absent();
        if (k == 2) other.info.geometry.pitch[0] = 41;
        if (k == 3) other.info.features = CALOMU_FEATURES_STANDARDISED_UNKNOWN;
        data = open_muons(c, &other);
        o.validation = k > 2 ? data : validation;
        if (k == 4) o.unique = 1;
        if (k == 0)
            CHECK_OK(c, calomu_trainer_create(c, data, &a, &o, &t));
        else
            CHECK_FAILS(c, calomu_trainer_create(c, k == 3 ? validation : data, &a, &o, &t),
                        k == 4 ? CALOMU_EUSAGE : CALOMU_EFORMAT);
        calomu_trainer_free(t);
        t = NULL;
        calomu_data_close(data);
    }
    o = small_options();
    other.event[5].energy = calomu_absent();
    data = open_muons(c, &other);
    o.validation = data;
    CHECK_FAILS(c, calomu_trainer_create(c, validation, &a, &o, &t), CALOMU_EFORMAT);
    CHECK(strstr(calomu_message(c), "event 5 of the validation set"), "%s", calomu_message(c));
    calomu_data_close(data);
    CHECK_OK(c, calomu_data_from_memory(c, &sample.info, sample.event, 0, &data));
    o.validation = data;
    CHECK_FAILS(c, calomu_trainer_create(c, validation, &a, &o, &t), CALOMU_EUSAGE);
    calomu_data_close(data);
    calomu_data_close(validation);
}

/* Starting from a model: with a vanishing rate it stays that model, standardisation and all. */
static void test_start(calomu *c, const calomu_architecture *a)
{
    calomu_train_options o = small_options();
    calomu_architecture other = *a;
    calomu_data *data = open_muons(c, &sample), *half = NULL;
    calomu_trainer *t = start(c, data, a, &o);
    calomu_model *m = NULL, *n = NULL, *team = NULL, *pair[2];
    const char *path = scratch("train_start.ckpt");
    bytes whole, b;
    double pred[2][N];
    run_to(c, t, CALOMU_TRAIN_DONE);
    CHECK_OK(c, calomu_trainer_model(c, t, &m));
    calomu_trainer_free(t);
    CHECK_OK(c, calomu_data_from_memory(c, &sample.info, sample.event + 3 * FOLD,
                                        (size_t)3 * FOLD, &half));
    o.start = m;
    o.folds = 3;
    o.lr = 1e-30;
    o.epochs = o.cycle_epochs = 1;
    t = start(c, half, a, &o);
    CHECK(calomu_trainer_options(t)->started == 1, "not told");
    run_to(c, t, CALOMU_TRAIN_EPOCH);
    CHECK_OK(c, calomu_trainer_model(c, t, &n));
    calomu_trainer_free(t);
    CHECK(memcmp(calomu_model_describe(m)->mean, calomu_model_describe(n)->mean,
                 sizeof calomu_model_describe(m)->mean) == 0
          && memcmp(calomu_model_describe(m)->deviation, calomu_model_describe(n)->deviation,
                    sizeof calomu_model_describe(m)->mean) == 0, "another standardisation");
    CHECK_OK(c, calomu_predict(c, m, data, sample.event, N, pred[0], NULL));
    CHECK_OK(c, calomu_predict(c, n, data, sample.event, N, pred[1], NULL));
    CHECK_NEAR(test_distance(pred[1], pred[0], N), 0, a->head ? 0.2 : 1e-6);  /* running norms */
    o = small_options();             /* resumed, without the model at hand */
    o.start = m;
    o.folds = 3;
    o.lr = 0;
    t = start(c, half, a, &o);
    CHECK_NEAR(calomu_trainer_options(t)->lr, 5e-4, 1e-18);
    run_to(c, t, CALOMU_TRAIN_EPOCH);
    CHECK_OK(c, calomu_trainer_save(c, t, path));
    whole = ended(c, t);
    CHECK_OK(c, calomu_trainer_resume(c, half, path, &t));
    b = ended(c, t);
    CHECK(same(b, whole), "resumed from a start: other bits");
    t = NULL;
    free(b.at);
    free(whole.at);
    other.body++;
    CHECK_FAILS(c, calomu_trainer_create(c, half, &other, &o, &t), CALOMU_EUSAGE);
    pair[0] = n;
    pair[1] = m;
    CHECK_OK(c, calomu_model_join(c, pair, 2, &team));
    o.start = team;
    o.folds = 4;
    o.member = 2;
    CHECK_FAILS(c, calomu_trainer_create(c, half, a, &o, &t), CALOMU_EUSAGE);
    calomu_model_free(team);
    calomu_model_free(m);
    calomu_model_free(n);
    calomu_data_close(half);
    calomu_data_close(data);
}

/* ---------------------------------------------------------------- longer trainings, ended ones */

/* Ended after n epochs and made longer, in memory or from its checkpoint: the bits of a training
   that was as long from the start. */
static void test_longer(calomu *c, const calomu_architecture *a)
{
    const char *path = scratch("train_longer.ckpt");
    calomu_train_options o = small_options();
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t;
    bytes b, whole;
    int n, reopened;
    o.epochs = 9;
    o.cycle_epochs = 3;
    o.lr = 0.2;                      /* so that epochs without improvement come, and reloads */
    whole = ended(c, start(c, data, a, &o));
    for (n = 1; n < 9; n++)
        for (reopened = 0; reopened < 2; reopened++) {
            o.epochs = n;
            t = start(c, data, a, &o);
            run_to(c, t, CALOMU_TRAIN_DONE);
            if (reopened) {
                CHECK_OK(c, calomu_trainer_save(c, t, path));
                calomu_trainer_free(t);
                t = NULL;
                CHECK_OK(c, calomu_trainer_resume(c, data, path, &t));
            }
            CHECK_FAILS(c, calomu_trainer_extend(c, t, n - 1, 10), CALOMU_EUSAGE);
            CHECK_FAILS(c, calomu_trainer_extend(c, t, n, 9), CALOMU_EUSAGE);
            CHECK_OK(c, calomu_trainer_extend(c, t, 9, 10));
            b = ended(c, t);
            CHECK(same(b, whole), "%d epochs and then 9: other bits", n);
            free(b.at);
        }
    free(whole.at);
    calomu_data_close(data);
}

/* One that stopped by itself goes on if it may wait longer. */
static void test_more_patience(calomu *c)
{
    calomu_architecture a = features_only();
    calomu_train_options o = small_options();
    calomu_data *data = open_muons(c, &sample);
    calomu_train_report r;
    calomu_trainer *t;
    bytes whole, b;
    o.epochs = 40;
    o.cycle_epochs = 1;
    o.batch = FOLD;
    o.stop_after = 12;
    o.lr = 2;
    whole = ended(c, start(c, data, &a, &o));
    o.stop_after = 1;
    t = start(c, data, &a, &o);
    r = run_to(c, t, CALOMU_TRAIN_DONE);
    CHECK(r.epoch < 40, "it did not stop early");
    CHECK_OK(c, calomu_trainer_extend(c, t, 40, 1));
    CHECK_OK(c, calomu_trainer_step(c, t, &r));
    CHECK(r.kind == CALOMU_TRAIN_DONE, "more epochs without patience");
    CHECK_OK(c, calomu_trainer_extend(c, t, 40, 12));
    b = ended(c, t);
    CHECK(same(b, whole), "patience given later: other bits");
    free(b.at);
    free(whole.at);
    calomu_data_close(data);
}

/* A model whose record of its training says what no training has been like, with a checksum that is
   right: nothing is computed from it. */
static void test_hostile_record(calomu *c, const calomu_data *data, const char *good)
{
    static const char *const bad[][2] = {
        { "train.folds", "0" }, { "train.folds", "1" }, { "train.folds", "2147483647" },
        { "train.batch", "0" }, { "train.holdout", "1000000" }, { "train.member", "2147483647" },
        { "train.bins", "17" }, { "train.unique", "5" }, { "train.quantile", "2" },
        { "train.bin_low", "9000" }, { "training.finished", "2" },
        { "training.muons", "18446744073709551615" }
    };
    const char *path = scratch("train_hostile.st");
    calomu_architecture there;
    calomu_train_options had;
    calomu_model *m = NULL;
    size_t k;
    int members;
    for (k = 0; k < sizeof bad / sizeof *bad; k++) {
        edit_file(c, good, path, bad[k][0], bad[k][1]);
        CHECK_FAILS(c, calomu_trainer_ended(c, data, NULL, path, &had, &there, &members),
                    CALOMU_EFORMAT);
        CHECK(strstr(calomu_message(c), "train_hostile.st"), "%s", calomu_message(c));
        CHECK_FAILS(c, calomu_model_load(c, path, &m), CALOMU_EFORMAT);
    }
}

/* Whether the model tells of the training that has ended, on these muons. */
static void test_ended(calomu *c)
{
    const char *path = scratch("train_ended.st");
    calomu_architecture a = small_hybrid(), there;
    calomu_train_options o = small_options(), had;
    calomu_data *data = open_muons(c, &sample), *other;
    calomu_trainer *t;
    calomu_model *m = NULL, *pair[2], *team = NULL;
    muons *s;
    int k, members = -1;
    o.batch = 20;
    o.epochs = o.cycle_epochs = 2;
    o.shuffle = 1;
    t = start(c, data, &a, &o);
    for (k = 0; k < 2; k++) {        /* after the first epoch, and at the end */
        run_to(c, t, CALOMU_TRAIN_EPOCH);
        calomu_model_free(m);
        CHECK_OK(c, calomu_trainer_model(c, t, &m));
        CHECK_OK(c, calomu_model_save(c, m, path));
        CHECK_OK(c, calomu_trainer_ended(c, data, NULL, path, &had, &there, &members));
        CHECK(members == k, "%d members after epoch %d", members, k + 1);
    }
    CHECK(had.batch == 20 && had.shuffle == 1 && had.seed == 5 && there.body == a.body,
          "other options");
    test_hostile_record(c, data, path);
    CHECK_FAILS(c, calomu_trainer_ended(c, data, data, path, &had, &there, &members),
                CALOMU_EUSAGE);
    for (k = 0; k < 3; k++) {
        s = with_energies(1);
        if (k == 0) s->event[60].energy += 1;
        if (k == 1) s->event[60].x += 1;
        if (k == 2) s->hit[with_hits(s, 60)][0].energy *= 2;
        other = open_muons(c, s);
        CHECK_FAILS(c, calomu_trainer_ended(c, other, NULL, path, &had, &there, &members),
                    CALOMU_EFORMAT);
        CHECK(members == 1, "%d", members);
        calomu_data_close(other);
    }
    pair[0] = pair[1] = m;
    CHECK_OK(c, calomu_model_join(c, pair, 2, &team));
    CHECK_OK(c, calomu_model_save(c, team, path));
    CHECK_OK(c, calomu_trainer_ended(c, data, NULL, path, &had, &there, &members));
    CHECK(members == 2, "%d members of two", members);
    CHECK_OK(c, calomu_trainer_save(c, t, path));    /* a checkpoint is no model */
    CHECK_FAILS(c, calomu_trainer_ended(c, data, NULL, path, &had, &there, &members),
                CALOMU_EFORMAT);
    CHECK(members == 0, "%d", members);
    calomu_model_free(team);
    calomu_model_free(m);
    calomu_trainer_free(t);
    calomu_data_close(data);
}

/* A checkpoint of version 1, which knew no hits and none of the later options, is taken. */
static void test_version_1(calomu *c, const char *good)
{
    static const char *const later[] = { "train.shuffle", "train.outside", "train.separate",
                                         "train.started", "state.n_validation", "state.hits" };
    const char *path = scratch("train_version_1.ckpt");
    calomu_data *data = open_muons(c, &sample);
    calomu_trainer *t = NULL;
    static char version[] = "1";
    bytes b[2];
    cm_st st;
    int i, j, n = 0;
    CHECK_OK(c, calomu_trainer_resume(c, data, good, &t));
    b[0] = saved(c, t);
    calomu_trainer_free(t);
    if (!CHECK_OK(c, cm_st_read(c, good, &st))) return;
    for (i = 0; i < st.n_meta; i++) {
        int gone = strcmp(st.meta[i].key, "checksum") == 0;
        for (j = 0; j < 6; j++) gone = gone || strcmp(st.meta[i].key, later[j]) == 0;
        if (strcmp(st.meta[i].key, "version") == 0) st.meta[i].value = version;
        if (!gone) st.meta[n++] = st.meta[i];
    }
    CHECK(st.n_meta - n >= 6, "%d keys are later", st.n_meta - n);
    st.n_meta = n;
    CHECK_OK(c, cm_st_write(c, path, &st));
    cm_st_free(c, &st);
    CHECK_OK(c, calomu_trainer_resume(c, data, path, &t));
    b[1] = saved(c, t);
    CHECK(same(b[0], b[1]), "resumed from version 1: other bits");
    calomu_trainer_free(t);
    free(b[0].at);
    free(b[1].at);
    calomu_data_close(data);
}

/* Each step by another context: less memory, more, other threads; the bits are those of one. */
static void test_contexts(const calomu_architecture *a, const calomu_train_options *o)
{
    static const int ways[][3] = { { 1, 1, 0 }, { 1, 0, 0 }, { 1, 0, 1 }, { 2, 1, 1 }, { 2, 0, 0 } };
    calomu *c[5] = { NULL }, *one = open_context(1);
    calomu_data *data = open_muons(one, &sample);
    calomu_trainer *t = start(one, data, a, o), *u = start(one, data, a, o);
    calomu_train_report r;
    bytes x, y;
    int i;
    for (i = 0; i < 5; i++) {
        calomu_options options = { 0 };
        options.threads = ways[i][0];
        options.recompute = ways[i][1];
        options.unfused = ways[i][2];
        CHECK(calomu_open(&c[i], &options) == CALOMU_OK, "no context");
    }
    for (i = 0; i < 12; i++) {
        CHECK_OK(one, calomu_trainer_step(one, t, &r));
        CHECK_OK(c[i % 5], calomu_trainer_step(c[i % 5], u, &r));
    }
    x = saved(one, t);
    y = saved(one, u);
    CHECK(same(x, y), "contexts in turn: other bits than one context's");
    free(x.at);
    free(y.at);
    calomu_trainer_free(t);
    calomu_trainer_free(u);
    for (i = 0; i < 5; i++) calomu_close(c[i]);
    calomu_data_close(data);
    calomu_close(one);
}

int main(int argc, char **argv)
{
    calomu_architecture a;
    calomu_train_options o;
    calomu *c;
    char path[1024];
    test_begin(argc, argv);
    make_muons(&sample, CALOMU_FEATURES_RAW);
    c = open_context(1);
    test_path(path, sizeof path, test.tmp, "train_good.ckpt");
    test_rates();
    test_folds(c);
    test_shuffles();
    test_decisions();
    test_default_lr(c);
    test_standardisation(c);
    test_validation(c, 0);
    test_validation(c, 1);
    test_every_muon_once(c);
    test_members(c);
    test_untouched(c);
    test_ks(c);
    test_order();
    test_energies();
    test_units();
    test_range_options(c);

    a = features_only();
    o = small_options();
    o.epochs = 20;
    o.cycle_epochs = 12;
    test_learning(&a, &o, 0.3);
    o = small_options();
    o.stop_after = 2;
    test_resume(c, &a, &o);
    make_checkpoint(c, path, &a);
    test_describe(c, path);
    test_damaged(c, path);
    test_hostile(c, path);
    test_inflated(c, path);
    test_other_data(c, path);
    test_version_1(c, path);
    test_shuffled(c, &a);
    test_separate(c, &a);
    test_separate_folds(c);
    test_start(c, &a);
    test_longer(c, &a);
    test_more_patience(c);
    test_ended(c);
    test_requests(c);
    test_not_finite(c, sizeof(cm_real) > 4 ? "1e+200" : "1e+30", "the loss");
    if (sizeof(cm_real) == 4) test_not_finite(c, "1e+8", "a gradient");
    test_allocations(&a);
    a.feature_options.convention = CALOMU_CONVENTION_AUTHORS;    /* recomputed from the hits */
    test_allocations(&a);

    test_reload(c);
    a = small_hybrid();
    o = small_options();
    o.batch = 20;                    /* a full group of lanes and a part of one */
    o.epochs = 3;
    o.lr = 0.1;
    test_learning(&a, &o, 0.9);
    o.epochs = 2;
    o.cycle_epochs = 1;
    test_resume(c, &a, &o);
    test_contexts(&a, &o);
    make_checkpoint(c, path, &a);
    test_inflated(c, path);
    test_validation_is_passive(c);
    test_shuffled(c, &a);
    test_separate(c, &a);
    test_start(c, &a);
    a.n_features = 0;
    test_allocations(&a);
    a = features_only();
    a.n_features = 3;
    o = small_options();
    test_resume(c, &a, &o);
    calomu_close(c);
    return test_end("train");
}
