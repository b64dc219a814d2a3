/* test_model.c - models and inference: files, ensembles, state_dicts, predictions

   usage: test_model [TESTDATA [TMP [SEED]]]

   What the numbers should be is checked against PyTorch (test_golden.c, cli_torch.sh); here it is
   that they are the same however they are asked for, and that nothing hostile is believed. */
#include "test_net.h"
#ifdef _OPENMP
#include <omp.h>
#endif

enum { MUONS = 40, NZ = 7, NX = 5, NY = 4 };

static char path_[4][1024];          /* scratch files */
static const char *model_file, *other_file, *data_file, *bare_file;

/* ---------------------------------------------------------------- small networks and muons */

static calomu_architecture small_architecture(int head, int n_features)
{
    calomu_architecture a = calomu_architecture_default();
    a.geometry.nz = NZ;
    a.geometry.nx = NX;
    a.geometry.ny = NY;
    a.head = head;
    a.n_features = n_features;
    a.blocks = 1;
    a.body = 5;
    a.growth = 1.1;
    return a;
}

/* Random muons, the last with an impact point that is not in the middle of a cell. */
static test_batch small_muons(const calomu_geometry *g, uint64_t seed)
{
    test_random r = test_seed(seed);
    test_batch b = test_muons(g, MUONS, 0, seed);
    int i;
    for (i = 0; i < MUONS; i++) {
        b.event[i].x = (float)(g->origin[1] + g->pitch[1] * test_uniform(&r, 0, g->nx));
        b.event[i].y = (float)(g->origin[2] + g->pitch[2] * test_uniform(&r, 0, g->ny));
        b.event[i].charge = i % 2 ? 1.0f : -1.0f;
    }
    return b;
}

static int same_bits(const double *a, const double *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) == 0;
}

/* ---------------------------------------------------------------- bytes of files */

static size_t read_bytes(const char *path, unsigned char **bytes)
{
    FILE *f = fopen(path, "rb");
    long n = -1;
    *bytes = NULL;
    if (f && fseek(f, 0, SEEK_END) == 0) n = ftell(f);
    if (n > 0) {
        *bytes = test_memory((size_t)n, 1);
        rewind(f);
        if (fread(*bytes, 1, (size_t)n, f) != (size_t)n) n = -1;
    }
    if (f) (void)fclose(f);
    if (n <= 0) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    return (size_t)n;
}

static void write_bytes(const char *path, const unsigned char *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) {
        fprintf(stderr, "%s: cannot be written\n", path);
        exit(1);
    }
}

static void same_files(const char *a, const char *b, const char *what)
{
    unsigned char *p, *q;
    size_t n = read_bytes(a, &p), m = read_bytes(b, &q);
    CHECK(n == m && memcmp(p, q, n) == 0, "%s: %zu and %zu bytes, or they differ", what, n, m);
    free(p);
    free(q);
}

/* Loads what must be refused. */
static void refused(calomu *c, const char *path, const char *what)
{
    calomu_model *m = NULL;
    calomu_status s = calomu_model_load(c, path, &m);
    CHECK(s == CALOMU_EFORMAT && !m && *calomu_message(c) && !strchr(calomu_message(c), '\n'),
          "%s: status %d, '%s'", what, (int)s, calomu_message(c));
    calomu_model_free(m);
}

/* ---------------------------------------------------------------- what a prediction is */

/* One member by hand: raw features, standardised, through the network as the training runs it. */
static void predict_by_hand(calomu *c, const calomu_model *m, int member, const test_batch *muons,
                            double *out)
{
    const calomu_architecture *a = &m->info.architecture;
    static const int sums[3] = { 0, 26, 27 };
    float row[CALOMU_FEATURES];
    test_batch b = *muons;
    test_stepper s;
    int i, k, n = a->n_features;
    b.n_features = n;
    b.features = test_memory((size_t)(b.n * n), sizeof(double));
    for (i = 0; i < b.n && n; i++) {
        CHECK_OK(c, calomu_features(c, &a->geometry, &b.event[i], &a->feature_options, row));
        for (k = 0; k < n; k++) {
            int j = n == 3 ? sums[k] : k;
            b.features[i * n + k] = ((double)row[j] - m->info.mean[j]) / m->info.deviation[j];
        }
    }
    memset(&s, 0, sizeof s);
    s.c = c;
    s.net = m->net[member];
    s.threads = 1;
    s.pred = out;
    (void)test_step(&s, &b);
    free(b.features);
}

static void check_members(calomu *c, const calomu_model *m, const test_batch *b)
{
    double *each = test_memory((size_t)(MUONS * m->info.members), sizeof *each);
    double out[MUONS], hand[MUONS], mean[MUONS] = { 0 }, weight = 0;
    int i, k, n = m->info.members;
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, out, each));
    for (k = 0; k < n; k++) {
        double w = isnan(m->loss[0]) ? 1 : 1 / m->loss[k];
        weight += w;
        predict_by_hand(c, m, k, b, hand);
        for (i = 0; i < MUONS; i++) {
            mean[i] += w * hand[i];
            CHECK(each[i * n + k] == hand[i], "muon %d, member %d: %.9g, by hand %.9g", i, k,
                  each[i * n + k], hand[i]);
        }
        CHECK(hand[0] < hand[3] || hand[0] > hand[3], "all predictions are equal");
    }
    for (i = 0; i < MUONS; i++)
        CHECK_NEAR(out[i], mean[i] / weight, 1e-9 * (1 + fabs(mean[i] / weight)));
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, mean, NULL));
    CHECK(same_bits(mean, out, MUONS), "without room for the members it is another prediction");
    free(each);
}

static void check_menus(calomu *c)
{
    static const int menu[4][2] = { { 1, 28 }, { 1, 0 }, { 0, 28 }, { 0, 3 } };
    int i;
    for (i = 0; i < 4; i++) {
        calomu_architecture a = small_architecture(menu[i][0], menu[i][1]);
        test_batch b = small_muons(&a.geometry, 5);
        calomu_model *m = test_model_new(c, &a, 1, 7 + (uint64_t)i);
        check_members(c, m, &b);
        calomu_model_free(m);
        m = test_model_new(c, &a, 3, 70 + (uint64_t)i);
        check_members(c, m, &b);
        m->loss[0] = m->loss[1] = m->loss[2] = (double)NAN;
        check_members(c, m, &b);
        CHECK(isnan(calomu_model_loss(m, 0)) && isnan(calomu_model_loss(m, 3))
              && isnan(calomu_model_loss(m, -1)), "a loss that nobody knows");
        calomu_model_free(m);
        test_muons_free(&b);
    }
}

/* Each muon alone, in any company, in any order of its hits, on any core: the same bits. */
static void check_splits(calomu *c, const calomu_model *m, const test_batch *b)
{
    double all[MUONS], out[MUONS], alone[MUONS];
    calomu_event back[MUONS];
    int i, n;
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, all, NULL));
    for (i = 0; i < MUONS; i++) {
        CHECK_OK(c, calomu_predict(c, m, NULL, b->event + i, 1, &alone[i], NULL));
        back[i] = b->event[MUONS - 1 - i];
    }
    CHECK(same_bits(all, alone, MUONS), "muons alone differ from muons in a batch");
    for (n = 1; n < MUONS; n++) {
        memset(out, 0, sizeof out);
        CHECK_OK(c, calomu_predict(c, m, NULL, b->event, (size_t)n, out, NULL));
        CHECK(same_bits(all, out, (size_t)n) && out[n] == 0, "a batch of %d", n);
    }
    CHECK_OK(c, calomu_predict(c, m, NULL, back, MUONS, out, NULL));
    for (i = 0; i < MUONS; i++)
        CHECK(out[i] == all[MUONS - 1 - i], "muon %d behind others", MUONS - 1 - i);
}

static void check_order(calomu *c, const calomu_model *m, const test_batch *b)
{
    test_random r = test_seed(3);
    double expected[MUONS], out[MUONS];
    calomu_event event[MUONS];
    calomu_hit *hit[MUONS];
    int i;
    size_t k, j;
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, expected, NULL));
    for (i = 0; i < MUONS; i++) {
        event[i] = b->event[i];
        hit[i] = test_memory(event[i].n_hits, sizeof **hit);
        for (k = 0; k < event[i].n_hits; k++) {              /* a random permutation */
            j = (size_t)test_int(&r, 0, (int)k);
            hit[i][k] = hit[i][j];
            hit[i][j] = event[i].hits[k];
        }
        event[i].hits = event[i].n_hits ? hit[i] : NULL;
    }
    CHECK_OK(c, calomu_predict(c, m, NULL, event, MUONS, out, NULL));
    CHECK(same_bits(out, expected, MUONS), "another order of the hits gives another prediction");
    for (i = 0; i < MUONS; i++) free(hit[i]);
}

/* Without an impact point: as from the middle of the column with the largest sum. */
static void check_no_impact(calomu *c, const calomu_model *m, const test_batch *b)
{
    const calomu_geometry *g = &m->info.architecture.geometry;
    double expected[MUONS], out[MUONS];
    calomu_event with[MUONS], without[MUONS];
    int i, ix, iy, best;
    size_t k;
    for (i = 0; i < MUONS; i++) {
        double *column = test_memory((size_t)(g->nx * g->ny), sizeof *column);
        for (k = 0; k < b->event[i].n_hits; k++)
            column[(int)b->event[i].hits[k].cell % (g->nx * g->ny)] +=
                (double)b->event[i].hits[k].energy;
        for (best = 0, ix = 1; ix < g->nx * g->ny; ix++)
            if (column[ix] > column[best]) best = ix;
        ix = best / g->ny;
        iy = best % g->ny;
        with[i] = without[i] = b->event[i];
        with[i].x = (float)(g->origin[1] + (ix + 0.5) * g->pitch[1]);
        with[i].y = (float)(g->origin[2] + (iy + 0.5) * g->pitch[2]);
        without[i].x = without[i].y = CALOMU_ABSENT;
        free(column);
    }
    CHECK_OK(c, calomu_predict(c, m, NULL, with, MUONS, expected, NULL));
    CHECK_OK(c, calomu_predict(c, m, NULL, without, MUONS, out, NULL));
    CHECK(same_bits(out, expected, MUONS), "not from the column with the largest sum");
}

/* ---------------------------------------------------------------- threads, instruction sets */

static void check_bits(const calomu_model *m, const test_batch *b)
{
    static const int threads[] = { 1, 2, 3, 7 };
    double first[MUONS] = { 0 }, out[MUONS];
    int isa, t, seen = 0;
    for (isa = CALOMU_ISA_BEST; isa <= CALOMU_ISA_AVX512; isa++)
        for (t = 0; t < 4; t++) {
            calomu_options o;
            calomu *c;
            memset(&o, 0, sizeof o);
            o.threads = threads[t];
            o.isa = (calomu_isa)isa;
            if (calomu_open(&c, &o) != CALOMU_OK) {
                CHECK(isa != CALOMU_ISA_BEST && isa != CALOMU_ISA_PLAIN, "set %d is missing", isa);
                continue;
            }
            CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, out, NULL));
            if (!seen++) memcpy(first, out, sizeof out);
            CHECK(same_bits(out, first, MUONS), "%d threads, instruction set %d: other bits",
                  threads[t], isa);
            calomu_close(c);
        }
    printf("test_model: %d combinations of threads and instruction sets, hash of predictions"
           " %016llx\n", seen, (unsigned long long)cm_checksum(0, first, sizeof first));
}

/* One model in several threads at once, each with a context of its own. */
static void check_concurrent(calomu *c, const calomu_model *m, const test_batch *b)
{
#ifdef _OPENMP
    double expected[MUONS];
    int wrong = 0, k;
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, expected, NULL));
#pragma omp parallel for num_threads(4) schedule(static, 1) reduction(+ : wrong)
    for (k = 0; k < 8; k++) {
        double out[MUONS];
        calomu *own = NULL;
        size_t n = (size_t)(MUONS - k), i;
        if (calomu_open(&own, NULL) != CALOMU_OK) wrong++;
        else if (calomu_predict(own, m, NULL, b->event, n, out, NULL) != CALOMU_OK) wrong++;
        else for (i = 0; i < n; i++) wrong += out[i] < expected[i] || out[i] > expected[i];
        calomu_close(own);
    }
    CHECK(wrong == 0, "%d predictions differ or failed", wrong);
#else
    (void)c;
    (void)m;
    (void)b;
    SKIP("built without OpenMP: one thread only");
#endif
}

/* ---------------------------------------------------------------- bad muons, bad numbers */

/* The event must fail, by number, and no output may be touched. */
static void bad_muon(calomu *c, const calomu_model *m, const test_batch *b, const calomu_event *e,
                     calomu_status status, const char *what)
{
    calomu_event event[MUONS];
    double out[MUONS], each[MUONS];
    int i, touched = 0;
    memcpy(event, b->event, sizeof event);
    event[37] = *e;
    for (i = 0; i < MUONS; i++) out[i] = each[i] = -7;
    CHECK(calomu_predict(c, m, NULL, event, MUONS, out, each) == status, "%s: not status %d: %s",
          what, (int)status, calomu_message(c));
    CHECK(strstr(calomu_message(c), "37") != NULL, "%s: the message does not say which muon: %s",
          what, calomu_message(c));
    for (i = 0; i < MUONS; i++) touched += out[i] > -7 || out[i] < -7 || each[i] > -7;
    CHECK(touched == 0, "%s: %d outputs were touched", what, touched);
}

static void check_bad_muons(calomu *c, const calomu_model *m, const test_batch *b)
{
    calomu_hit hits[3] = { { 3, 1 }, { 5, 2 }, { 9, 3 } };
    const calomu_event good = { hits, 3, b->event[0].x, b->event[0].y, CALOMU_ABSENT,
                                CALOMU_ABSENT, NULL, NULL };
    calomu_event e = good;
    calomu_hit *many;
#define BAD(change, undo, status) change; bad_muon(c, m, b, &e, status, #change); undo; e = good
    BAD(hits[1].cell = NZ * NX * NY, hits[1].cell = 5, CALOMU_EFORMAT);
    BAD(hits[1].cell = UINT32_MAX, hits[1].cell = 5, CALOMU_EFORMAT);
    BAD(hits[1].cell = 9, hits[1].cell = 5, CALOMU_EFORMAT);
    BAD(hits[1].energy = (float)NAN, hits[1].energy = 2, CALOMU_EFORMAT);
    BAD(hits[1].energy = (float)INFINITY, hits[1].energy = 2, CALOMU_EFORMAT);
    BAD(hits[1].energy = -1, hits[1].energy = 2, CALOMU_EFORMAT);
    BAD(e.n_hits = SIZE_MAX / 2, e.n_hits = 3, CALOMU_EFORMAT);
    BAD(e.x = 1000, e.x = 0, CALOMU_EUSAGE);
    BAD(e.x = CALOMU_ABSENT, e.x = 0, CALOMU_EFORMAT);
    BAD(hits[0].energy = hits[1].energy = 3e38f, hits[0].energy = hits[1].energy = 1,
        CALOMU_EFORMAT);
#undef BAD
    many = test_memory(NZ * NX * NY + 1, sizeof *many);
    e.hits = many;
    e.n_hits = NZ * NX * NY + 1;
    bad_muon(c, m, b, &e, CALOMU_EFORMAT, "more hits than cells");
    free(many);
}

static void check_not_finite(calomu *c, const test_batch *b)
{
    calomu_architecture a = small_architecture(1, 28);
    calomu_model *m = test_model_new(c, &a, 2, 8);
    double out = -7, each[2] = { -7, -7 };
    cm_net_values(m->net[1], cm_net_find(m->net[1], "tail.weight"))[0] = (cm_real)3e38;
    cm_net_values(m->net[1], cm_net_find(m->net[1], "body.4.bias"))[0] = (cm_real)3e38;
    CHECK_FAILS(c, calomu_predict(c, m, NULL, b->event, 1, &out, each), CALOMU_ENOTFINITE);
    CHECK(out == -7 && each[0] == -7 && each[1] == -7, "outputs were touched");
    CHECK(strstr(calomu_message(c), "muon 0"), "which muon? %s", calomu_message(c));
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, 0, &out, each));
    CHECK_OK(c, calomu_predict(c, m, NULL, NULL, 0, NULL, NULL));
    CHECK(out == -7, "no muons, but a prediction");
    calomu_model_free(m);
}

/* ---------------------------------------------------------------- data files and their features */

/* Writes the muons with what their features are called and how they were made; NONE: none. */
static void write_data(calomu *c, const calomu_model *m, const test_batch *b,
                       const calomu_data_info *info, int impact)
{
    calomu_writer *w = NULL;
    float row[CALOMU_FEATURES];
    int i, k;
    CHECK_OK(c, calomu_writer_open(c, data_file, info, &w));
    for (i = 0; w && i < MUONS; i++) {
        calomu_event e = b->event[i];
        if (info->features != CALOMU_FEATURES_NONE) {
            CHECK_OK(c, calomu_features(c, &m->info.architecture.geometry, &e,
                                        &info->feature_options, row));
            for (k = 0; k < CALOMU_FEATURES && info->features != CALOMU_FEATURES_RAW; k++)
                row[k] = (float)(((double)row[k] - info->mean[k]) / info->deviation[k]);
            e.features = row;
        }
        if (!impact) e.x = e.y = CALOMU_ABSENT;
        CHECK_OK(c, calomu_writer_add(w, &e));
    }
    if (w) CHECK_OK(c, calomu_writer_close(w));
}

static calomu_status predict_file(calomu *c, const calomu_model *m, double out[MUONS])
{
    calomu_data *d = NULL;
    calomu_events events;
    calomu_status s;
    memset(&events, 0, sizeof events);
    CHECK_OK(c, calomu_data_open(c, data_file, &d));
    CHECK_OK(c, calomu_data_read(c, d, 0, NULL, MUONS, &events));
    s = calomu_predict(c, m, d, events.event, MUONS, out, NULL);
    calomu_events_free(&events);
    calomu_data_close(d);
    return s;
}

/* The three kinds of known features give what the hits give. */
static void check_known_features(calomu *c, const calomu_model *m, const test_batch *b)
{
    double expected[MUONS], out[MUONS];
    calomu_data_info info;
    int k;
    memset(&info, 0, sizeof info);
    info.geometry = m->info.architecture.geometry;
    info.feature_options = m->info.architecture.feature_options;
    for (k = 0; k < CALOMU_FEATURES; k++) {
        info.mean[k] = 3 * k - 11;
        info.deviation[k] = 1 + k;
    }
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, expected, NULL));
    write_data(c, m, b, &info, 1);
    CHECK_OK(c, predict_file(c, m, out));
    CHECK(same_bits(out, expected, MUONS), "features computed for a file");
    info.features = CALOMU_FEATURES_RAW;
    write_data(c, m, b, &info, 1);
    CHECK_OK(c, predict_file(c, m, out));
    CHECK(same_bits(out, expected, MUONS), "raw features of a file");
    info.features = CALOMU_FEATURES_STANDARDISED;
    write_data(c, m, b, &info, 0);
    CHECK_OK(c, predict_file(c, m, out));
    CHECK(test_distance(out, expected, MUONS) <= 1e-4, "standardised features: off by %g",
          test_distance(out, expected, MUONS));
    CHECK(m->info.architecture.n_features == 0 || !same_bits(out, expected, MUONS),
          "the file's features were not used");
}

/* Of another convention or growth: computed again where that is possible, refused where not. */
static void check_other_features(calomu *c, const calomu_model *m, const test_batch *b)
{
    double expected[MUONS], out[MUONS];
    calomu_data_info info;
    int other;
    memset(&info, 0, sizeof info);
    info.geometry = m->info.architecture.geometry;
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, expected, NULL));
    for (other = 0; other < 3; other++) {
        info.features = other == 2 ? CALOMU_FEATURES_STANDARDISED_UNKNOWN : CALOMU_FEATURES_RAW;
        info.feature_options = m->info.architecture.feature_options;
        if (other == 0) info.feature_options.convention = CALOMU_CONVENTION_AUTHORS;
        if (other == 1) info.feature_options.grow = 0.5f;
        memset(info.mean, 0, sizeof info.mean);
        info.deviation[0] = 1;
        memcpy(info.deviation, m->info.deviation, sizeof info.deviation);
        write_data(c, m, b, &info, 1);
        CHECK_OK(c, predict_file(c, m, out));
        CHECK(same_bits(out, expected, MUONS), "case %d: not computed again", other);
        write_data(c, m, b, &info, 0);
        CHECK_FAILS(c, predict_file(c, m, out), CALOMU_EFORMAT);
    }
}

/* A model trained on features standardised by nobody knows what: such files and nothing else. */
static void check_unknown(calomu *c, const test_batch *b)
{
    calomu_architecture a = small_architecture(0, 28);
    calomu_model *m;
    calomu_data_info info;
    double expected[MUONS], out[MUONS];
    int k;
    m = test_model_new(c, &a, 1, 21);
    memset(&info, 0, sizeof info);
    info.geometry = a.geometry;
    info.feature_options = a.feature_options;
    memcpy(info.mean, m->info.mean, sizeof info.mean);
    memcpy(info.deviation, m->info.deviation, sizeof info.deviation);
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, expected, NULL));
    m->info.architecture.standardised_unknown = 1;
    for (k = 0; k < CALOMU_FEATURES; k++) {
        m->info.mean[k] = 0;
        m->info.deviation[k] = 1;
    }
    CHECK_FAILS(c, calomu_predict(c, m, NULL, b->event, MUONS, out, NULL), CALOMU_EFORMAT);
    info.features = CALOMU_FEATURES_STANDARDISED_UNKNOWN;
    write_data(c, m, b, &info, 0);
    CHECK_OK(c, predict_file(c, m, out));
    CHECK(test_distance(out, expected, MUONS) <= 1e-6, "off by %g",
          test_distance(out, expected, MUONS));
    info.feature_options.convention = CALOMU_CONVENTION_AUTHORS;
    write_data(c, m, b, &info, 1);
    CHECK_FAILS(c, predict_file(c, m, out), CALOMU_EFORMAT);
    info.feature_options = a.feature_options;
    for (k = CALOMU_FEATURES_NONE; k <= CALOMU_FEATURES_STANDARDISED; k++) {
        info.features = (calomu_feature_state)k;
        write_data(c, m, b, &info, 1);
        CHECK_FAILS(c, predict_file(c, m, out), CALOMU_EFORMAT);
    }
    calomu_model_free(m);
}

static void check_geometries(calomu *c, calomu_model *m, const test_batch *b)
{
    calomu_geometry *g = &m->info.architecture.geometry, keep = *g;
    calomu_data_info info;
    double out[MUONS], again[MUONS];
    int i;
    memset(&info, 0, sizeof info);
    info.geometry = *g;
    write_data(c, m, b, &info, 1);
    CHECK_OK(c, predict_file(c, m, out));
    for (i = 0; i < 3; i++) {        /* lengths that went through a float32: the same bits */
        info.geometry.pitch[i] = (double)(float)(g->pitch[i] * (1 + 2e-8));
        info.geometry.origin[i] = (double)(float)(g->origin[i] * (1 + 2e-8));
    }
    write_data(c, m, b, &info, 1);
    CHECK_OK(c, predict_file(c, m, again));
    CHECK(memcmp(out, again, sizeof out) == 0, "other predictions with lengths of float32");
    info.geometry = *g;
    write_data(c, m, b, &info, 1);
#define OTHER(change) \
    change; \
    CHECK_FAILS(c, predict_file(c, m, out), CALOMU_EFORMAT); \
    *g = keep
    OTHER(g->nz++);
    OTHER(g->pitch[0] += 0.01);
    OTHER(g->pitch[2] += 0.01);
    OTHER(g->origin[1] += 1);
    OTHER(g->field = 0);
    CHECK(strstr(calomu_message(c), "not the model's: field: 2 T against 0 T"), "'%s'",
          calomu_message(c));
#undef OTHER
}

/* Features of another convention and no hits at all: nothing to compute them from. */
static void check_no_hits(calomu *c, const calomu_model *m, const test_batch *b)
{
    test_batch empty = *b;
    calomu_data_info info;
    double out[MUONS];
    int i;
    empty.event = test_memory(MUONS, sizeof *empty.event);
    for (i = 0; i < MUONS; i++) {
        empty.event[i] = b->event[i];
        empty.event[i].n_hits = 0;
    }
    memset(&info, 0, sizeof info);
    info.geometry = m->info.architecture.geometry;
    info.features = CALOMU_FEATURES_RAW;
    info.feature_options = m->info.architecture.feature_options;
    write_data(c, m, &empty, &info, 1);
    CHECK_OK(c, predict_file(c, m, out));
    for (i = 0; i < MUONS; i++) CHECK(isfinite(out[i]), "muon %d without hits: %g", i, out[i]);
    info.feature_options.convention = CALOMU_CONVENTION_AUTHORS;
    write_data(c, m, &empty, &info, 1);
    CHECK_FAILS(c, predict_file(c, m, out), CALOMU_EFORMAT);
    free(empty.event);
}

/* ---------------------------------------------------------------- files and ensembles */

static int same_info(const calomu_model_info *p, const calomu_model_info *q)
{
    const calomu_architecture *a = &p->architecture, *b = &q->architecture;
    const calomu_geometry *g = &a->geometry, *h = &b->geometry;
    return g->nz == h->nz && g->nx == h->nx && g->ny == h->ny
        && memcmp(g->pitch, h->pitch, sizeof g->pitch) == 0
        && memcmp(g->origin, h->origin, sizeof g->origin) == 0 && g->field == h->field
        && a->feature_options.convention == b->feature_options.convention
        && a->feature_options.grow == b->feature_options.grow && a->head == b->head
        && a->n_features == b->n_features && a->blocks == b->blocks && a->body == b->body
        && a->growth == b->growth && a->standardised_unknown == b->standardised_unknown
        && p->members == q->members && p->parameters == q->parameters
        && memcmp(p->mean, q->mean, sizeof p->mean) == 0
        && memcmp(p->deviation, q->deviation, sizeof p->deviation) == 0;
}

static void check_round_trip(calomu *c, const calomu_model *m, const test_batch *b)
{
    double out[MUONS], back[MUONS];
    calomu_model *again = NULL;
    calomu_file_kind kind = CALOMU_FILE_DATA;
    int k;
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, out, NULL));
    CHECK_OK(c, calomu_model_save(c, m, model_file));
    CHECK(calomu_file_identify(c, model_file, &kind) == CALOMU_OK && kind == CALOMU_FILE_MODEL,
          "it is not taken for a model");
    CHECK_OK(c, calomu_model_load(c, model_file, &again));
    if (!again) return;
    CHECK(same_info(&again->info, &m->info), "the descriptions differ");
    for (k = 0; k < m->info.members; k++) {
        double loss = calomu_model_loss(again, k);
        CHECK(loss == m->loss[k] || (isnan(loss) && isnan(m->loss[k])), "loss %d is %g", k, loss);
    }
    CHECK_OK(c, calomu_predict(c, again, NULL, b->event, MUONS, back, NULL));
    CHECK(same_bits(out, back, MUONS), "other predictions after saving and loading");
    CHECK_OK(c, calomu_model_save(c, again, other_file));
    same_files(model_file, other_file, "saved, loaded and saved again");
    calomu_model_free(again);
}

/* Members of different standardisation join; what each predicts stays (but for rounding). */
static void check_join(calomu *c, const test_batch *b)
{
    calomu_architecture a = small_architecture(1, 28);
    calomu_model *single[3], *all = NULL, *more = NULL, *none = NULL, *pair[3], *many[334];
    double alone[3][MUONS], out[MUONS], each[3 * MUONS], five[5 * MUONS], w[3], expected;
    static const int from[5] = { 2, 0, 1, 2, 0 };
    int i, k;
    for (k = 0; k < 3; k++) {
        single[k] = test_model_new(c, &a, 1, 90 + (uint64_t)k);
        CHECK_OK(c, calomu_predict(c, single[k], NULL, b->event, MUONS, alone[k], NULL));
        w[k] = 1 / single[k]->loss[0];
    }
    CHECK_OK(c, calomu_model_join(c, single, 3, &all));
    CHECK(all->info.members == 3 && all->info.parameters == single[0]->info.parameters,
          "%d members", all->info.members);
    CHECK_OK(c, calomu_predict(c, all, NULL, b->event, MUONS, out, each));
    for (i = 0; i < MUONS; i++) {
        for (k = 0, expected = 0; k < 3; k++) {
            double e = alone[k][i];
            CHECK_NEAR(each[3 * i + k], e, k ? 2e-4 * (1 + fabs(e)) : 0);
            expected += w[k] / (w[0] + w[1] + w[2]) * each[3 * i + k];
        }
        CHECK_NEAR(out[i], expected, 1e-9 * (1 + fabs(expected)));
    }
    check_round_trip(c, all, b);
    pair[0] = single[2];             /* an ensemble among the models: its members join */
    pair[1] = all;
    pair[2] = single[0];
    CHECK_OK(c, calomu_model_join(c, pair, 3, &more));
    CHECK(more->info.members == 5 && more->loss[0] == single[2]->loss[0]
          && more->loss[3] == single[2]->loss[0] && more->loss[1] == single[0]->loss[0]
          && more->loss[4] == single[0]->loss[0], "%d members", more->info.members);
    CHECK_OK(c, calomu_predict(c, more, NULL, b->event, MUONS, out, five));
    for (i = 0; i < MUONS; i++)
        for (k = 0; k < 5; k++) {
            double e = alone[from[k]][i];
            CHECK_NEAR(five[5 * i + k], e, k ? 4e-4 * (1 + fabs(e)) : 0);
        }
    CHECK_FAILS(c, calomu_model_join(c, single, 0, &all), CALOMU_EUSAGE);
    for (i = 0; i < 334; i++) many[i] = all;
    CHECK_FAILS(c, calomu_model_join(c, many, 334, &none), CALOMU_EUSAGE);   /* 1002 */
    single[1]->info.architecture.geometry.pitch[2] *= 1 + 0.5e-6;    /* the same calorimeter */
    CHECK_OK(c, calomu_model_join(c, single, 3, &none));
    calomu_model_free(none);
    single[1]->info.architecture.geometry.field = 1;
    CHECK_FAILS(c, calomu_model_join(c, single, 3, &none), CALOMU_EUSAGE);
    CHECK(strstr(calomu_message(c), "model 1 ") && strstr(calomu_message(c), "1 T against 2 T"),
          "'%s'", calomu_message(c));
    single[1]->info.architecture = a;
    single[2]->info.architecture.feature_options.grow = 0.25f;
    CHECK_FAILS(c, calomu_model_join(c, single, 3, &none), CALOMU_EUSAGE);
    CHECK(strstr(calomu_message(c), "0.25 GeV against"), "'%s'", calomu_message(c));
    calomu_model_free(more);
    calomu_model_free(all);
    for (k = 0; k < 3; k++) calomu_model_free(single[k]);
    calomu_model_free(NULL);
}

/* ---------------------------------------------------------------- damaged files */

static void check_cut(calomu *c)
{
    unsigned char *bytes;
    size_t n = read_bytes(model_file, &bytes), k;
    for (k = 1; k < n; k += 97) {
        write_bytes(other_file, bytes, k);
        refused(c, other_file, "cut");
    }
    write_bytes(other_file, bytes, n - 1);
    refused(c, other_file, "cut by a byte");
    write_bytes(other_file, bytes, 0);
    refused(c, other_file, "empty");
    bytes = realloc(bytes, n + 1);
    if (!bytes) exit(1);
    bytes[n] = 0;
    write_bytes(other_file, bytes, n + 1);
    refused(c, other_file, "a byte too long");
    free(bytes);
}

/* Every step-th byte of the header and of the weights with one bit changed. */
static void check_flips(calomu *c, size_t step, test_random *r)
{
    unsigned char *bytes;
    size_t n = read_bytes(model_file, &bytes), k;
    FILE *f;
    write_bytes(other_file, bytes, n);
    f = fopen(other_file, "r+b");
    for (k = 0; f && k < n; k += step) {
        int bit = 1 << test_int(r, 0, 7);
        if (fseek(f, (long)k, SEEK_SET) || fputc(bytes[k] ^ bit, f) == EOF || fflush(f)) break;
        refused(c, other_file, "a bit has changed");
        if (fseek(f, (long)k, SEEK_SET) || fputc(bytes[k], f) == EOF || fflush(f)) break;
    }
    CHECK(k >= n, "stopped at byte %zu of %zu", k, n);
    if (f) (void)fclose(f);
    same_files(model_file, other_file, "flipped and back");
    free(bytes);
}

/* ---------------------------------------------------------------- edited files

   The checksum of these is right: what they say is wrong. */

typedef struct edit {                /* a file that can be changed before it is written again */
    cm_st st, file;                  /* st: to write; its arrays are copies */
    unsigned char *data;             /* room for one tensor's changed values */
} edit;

static edit edit_begin(calomu *c, const char *path)
{
    edit e;
    size_t nt, nm;
    memset(&e, 0, sizeof e);
    CHECK_OK(c, cm_st_read(c, path, &e.file));
    nt = (size_t)e.file.n_tensors;
    nm = (size_t)e.file.n_meta;
    e.st = e.file;
    e.st.memory = NULL;
    e.st.tensor = test_memory(nt + 1, sizeof *e.st.tensor);
    e.st.meta = test_memory(nm + 1, sizeof *e.st.meta);
    memcpy(e.st.tensor, e.file.tensor, nt * sizeof *e.st.tensor);
    memcpy(e.st.meta, e.file.meta, nm * sizeof *e.st.meta);
    e.data = test_memory(1 << 20, 1);
    return e;
}

static void edit_end(calomu *c, edit *e, const char *path)
{
    CHECK_OK(c, cm_st_write(c, path, &e->st));
    free(e->st.tensor);
    free(e->st.meta);
    free(e->data);
    cm_st_free(c, &e->file);
}

static cm_st_tensor *edit_tensor(edit *e, const char *name)
{
    int i;
    for (i = 0; i < e->st.n_tensors; i++)
        if (strcmp(e->st.tensor[i].name, name) == 0) return &e->st.tensor[i];
    fprintf(stderr, "no tensor %s\n", name);
    exit(1);
}

static void edit_remove(edit *e, const char *name)
{
    cm_st_tensor *t = edit_tensor(e, name);
    *t = e->st.tensor[--e->st.n_tensors];
}

/* Value k of a float32 tensor; the machine of the tests is little-endian or this says so. */
static void edit_value(edit *e, const char *name, size_t k, float value)
{
    const uint16_t one = 1;
    cm_st_tensor *t = edit_tensor(e, name);
    CHECK(*(const unsigned char *)&one == 1 && t->dtype == CM_F32 && 4 * t->count <= 1 << 20,
          "%s cannot be edited", name);
    memcpy(e->data, t->data, 4 * (size_t)t->count);
    memcpy(e->data + 4 * k, &value, 4);
    t->data = e->data;
}

/* The same values in float64. */
static void edit_double(edit *e, const char *name, double factor)
{
    cm_st_tensor *t = edit_tensor(e, name);
    size_t k;
    for (k = 0; k < t->count; k++) {
        float f;
        double d;
        memcpy(&f, (const unsigned char *)t->data + 4 * k, 4);
        d = (double)f * factor;
        memcpy(e->data + 8 * k, &d, 8);
    }
    t->dtype = CM_F64;
    t->data = e->data;
}

/* An entry of the metadata with another value, which must outlive the edit; NULL: without it. */
static void edit_meta(edit *e, const char *key, char *value)
{
    cm_st *st = &e->st;
    int i;
    for (i = 0; i < st->n_meta && strcmp(st->meta[i].key, key); i++) continue;
    if (!CHECK(i < st->n_meta, "no metadata %s", key)) exit(1);
    if (value) st->meta[i].value = value;
    else st->meta[i] = st->meta[--st->n_meta];
}

static void check_meta(calomu *c, const char *key, const char *value, int must_fail)
{
    edit e = edit_begin(c, model_file);
    calomu_model *m = NULL;
    calomu_status s;
    char text[32];
    (void)snprintf(text, sizeof text, "%s", value ? value : "");
    edit_meta(&e, key, value ? text : NULL);
    edit_end(c, &e, other_file);
    s = calomu_model_load(c, other_file, &m);
    CHECK(must_fail ? s == CALOMU_EFORMAT && !m : s == CALOMU_OK || s == CALOMU_EFORMAT,
          "%s = '%s': status %d, %s", key, value ? value : "(missing)", (int)s,
          calomu_message(c));
    CHECK(s != CALOMU_OK || m, "%s = '%s': success, but no model", key, value ? value : "");
    calomu_model_free(m);
}

static void check_metadata(calomu *c)
{
    static const char *const wild[] = { "", " ", "-1", "nan", "inf", "1e400", "1e30", "x", "1x",
                                        "2147483648", "18446744073709551616", "0", "0.1" };
    static const char *const wrong[][2] = {
        { "version", "2" }, { "version", "1 " }, { "version", NULL }, { "calomu", "checkpoint" },
        { "calomu", NULL }, { "members", NULL }, { "members", "0" }, { "members", "2" },
        { "members", "1000" }, { "members", "4294967297" }, { "mean", NULL }, { "mean", "1 2 3" },
        { "deviation", NULL }, { "deviation", "" }, { "loss.0", NULL }, { "loss.0", "-1" },
        { "loss.0", "abc" }, { "loss.0", "1 " }, { "architecture.convention", "none" },
        { "architecture.blocks", "2" }, { "architecture.blocks", "64" },
        { "architecture.body", "4096" }, { "architecture.n_features", "3" },
        { "architecture.n_features", "0" }, { "architecture.head", "0" },
        { "architecture.growth", "8" }, { "architecture.growth", "" },
        { "architecture.geometry.nz", "16777216" }, { "architecture.geometry.nz", "0" },
        { "architecture.geometry.pitch[0]", "0" }, { "architecture.geometry.pitch[1]", "-1" },
        { "architecture.feature_options.grow", "-1" } };
    edit e = edit_begin(c, model_file);
    char key[64][64];
    int i, n = 0;
    size_t k;
    for (i = 0; i < e.st.n_meta && n < 64; i++)
        if (strncmp(e.st.meta[i].key, "architecture.", 13) == 0)
            (void)snprintf(key[n++], sizeof key[0], "%.60s", e.st.meta[i].key);
    edit_end(c, &e, other_file);
    CHECK(n > 10, "%d entries about the architecture", n);
    for (k = 0; k < sizeof wrong / sizeof *wrong; k++)
        check_meta(c, wrong[k][0], wrong[k][1], 1);
    for (i = 0; i < n; i++) {
        check_meta(c, key[i], NULL, 1);
        for (k = 0; k < sizeof wild / sizeof *wild; k++) check_meta(c, key[i], wild[k], 0);
    }
}

/* 28 numbers, one of them replaced. */
static void check_standardisation(calomu *c, const char *key, const char *value, int count)
{
    edit e = edit_begin(c, model_file);
    char text[28 * 26 + 64];
    size_t at = 0;
    int i;
    for (i = 0; i < count; i++)
        at += (size_t)snprintf(text + at, 32, "%s%s", i ? " " : "", i == 17 ? value : "1.5");
    edit_meta(&e, key, text);
    edit_end(c, &e, other_file);
    refused(c, other_file, text);
}

static void check_values(calomu *c, const char *name, size_t k, float value)
{
    edit e = edit_begin(c, model_file);
    edit_value(&e, name, k, value);
    edit_end(c, &e, other_file);
    refused(c, other_file, name);
    CHECK(strstr(calomu_message(c), name), "the message does not name %s: %s", name,
          calomu_message(c));
}

static void check_tensors(calomu *c, const calomu_model *m, const test_batch *b)
{
    calomu_model *again = NULL;
    double out[MUONS], back[MUONS];
    cm_st_tensor *t;
    edit e;
    uint32_t n;
#define EDIT(change) \
    e = edit_begin(c, model_file); \
    change; \
    edit_end(c, &e, other_file); \
    refused(c, other_file, #change)
    EDIT(t = edit_tensor(&e, "body.0.weight"); n = t->shape[0]; t->shape[0] = t->shape[1];
         t->shape[1] = n);
    EDIT(t = edit_tensor(&e, "body.2.weight"); t->rank = 1; t->shape[0] = t->count);
    EDIT(t = edit_tensor(&e, "body.2.weight"); t->rank = 3; t->shape[2] = 1);
    EDIT(t = edit_tensor(&e, "tail.bias"); t->rank = 0);
    EDIT(t = edit_tensor(&e, "body.2.bias"); t->count = t->shape[0] = 1);
    EDIT(t = edit_tensor(&e, "body.2.bias"); t->count = t->shape[0] = 0);
    EDIT(t = edit_tensor(&e, "head.0.path.2.batch"); t->dtype = CM_U8);
    EDIT(t = edit_tensor(&e, "body.2.weight"); t->data = e.data; t->dtype = CM_I64);
    EDIT(edit_tensor(&e, "tail.weight")->name = "tail.weighs");
    EDIT(edit_tensor(&e, "head.0.esum.weight")->name = "head.0.esum.weighs");
    EDIT(edit_remove(&e, "tail.bias"));
    EDIT(edit_remove(&e, "head.1.esum.weight"));
    EDIT(e.st.n_tensors = 0);
    EDIT(t = &e.st.tensor[e.st.n_tensors++]; *t = *edit_tensor(&e, "tail.bias");
         t->name = "tail.bios");
    EDIT(edit_double(&e, "body.2.bias", 1e300));
#undef EDIT
    e = edit_begin(c, model_file);
    edit_double(&e, "body.2.weight", 1);
    edit_end(c, &e, other_file);
    CHECK_OK(c, calomu_model_load(c, other_file, &again));
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, out, NULL));
    CHECK_OK(c, calomu_predict(c, again, NULL, b->event, MUONS, back, NULL));
    CHECK(same_bits(out, back, MUONS), "float64 weights: other predictions");
    calomu_model_free(again);
}

static void check_edits(calomu *c, const calomu_model *m, const test_batch *b)
{
    static const char *const numbers[] = { "", "nan", "inf", "x", "1,5", "1 2", "1e999" };
    size_t i;
    check_metadata(c);
    for (i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        check_standardisation(c, "mean", numbers[i], 28);
        check_standardisation(c, "deviation", numbers[i], 28);
    }
    check_standardisation(c, "deviation", "0", 28);
    check_standardisation(c, "deviation", "-2", 28);
    check_standardisation(c, "mean", "1", 27);
    check_standardisation(c, "mean", "1", 29);
    check_values(c, "body.2.weight", 3, (float)NAN);
    check_values(c, "head.1.path.2.weight", 77, (float)INFINITY);
    check_values(c, "head.2.se.a.bias", 1, -(float)INFINITY);
    check_values(c, "head.0.path.2.sums", 4, (float)NAN);
    check_values(c, "head.3.path.0.sqrs", 2, -1);
    check_values(c, "head.3.path.0.count", 0, 0);
    check_values(c, "head.3.path.0.count", 0, -5);
    check_values(c, "head.1.short.1.batch", 0, 0);
    check_values(c, "head.1.esum.weight", 7, 1.5f);
    check_tensors(c, m, b);
}

/* ---------------------------------------------------------------- bare state_dicts */

static double zeros[CALOMU_FEATURES], ones[CALOMU_FEATURES];     /* no standardisation */

/* The model's tensors without metadata, as PyTorch code would save them. */
static void write_bare(calomu *c, const calomu_model *m, int with_sums)
{
    edit e;
    int i, n = 0;
    CHECK_OK(c, calomu_model_save(c, m, other_file));
    e = edit_begin(c, other_file);
    e.st.n_meta = 0;
    for (i = 0; i < e.st.n_tensors; i++)
        if (with_sums || !strstr(e.st.tensor[i].name, ".esum.")) e.st.tensor[n++] = e.st.tensor[i];
    e.st.n_tensors = n;
    edit_end(c, &e, bare_file);
    e = edit_begin(c, bare_file);    /* what was written has a checksum, which PyTorch's lacks */
    CHECK(!cm_st_find_meta(&e.file, "calomu"), "the state_dict is not bare");
    edit_end(c, &e, bare_file);
}

static int same_values(const cm_net *a, const cm_net *b)
{
    return a->n_trained == b->n_trained && a->n_fixed == b->n_fixed
        && a->n_buffers == b->n_buffers
        && memcmp(a->trained, b->trained, a->n_trained * sizeof *a->trained) == 0
        && memcmp(a->fixed, b->fixed, a->n_fixed * sizeof *a->fixed) == 0
        && memcmp(a->buffers, b->buffers, a->n_buffers * sizeof *a->buffers) == 0;
}

static void check_import_of(calomu *c, const calomu_architecture *a, const test_batch *b)
{
    calomu_model *m = test_model_new(c, a, 1, 50), *got = NULL;
    calomu_architecture base = calomu_architecture_default();
    double out[MUONS], back[MUONS];
    int sums, i;
    base.geometry = a->geometry;
    base.feature_options = a->feature_options;
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, out, NULL));
    for (sums = 0; sums < 2; sums++) {
        const calomu_architecture *found;
        write_bare(c, m, sums);
        CHECK_OK(c, calomu_model_import(c, bare_file, &base, m->info.mean, m->info.deviation,
                                        &got));
        if (!got) break;
        found = &got->info.architecture;
        CHECK(found->head == a->head && found->n_features == a->n_features
              && found->body == a->body && (!a->head || found->blocks == a->blocks),
              "head %d, %d features, body %d, %d blocks", (int)found->head,
              (int)found->n_features, (int)found->body, (int)found->blocks);
        CHECK(got->info.parameters == m->info.parameters && isnan(got->loss[0]),
              "%llu parameters, loss %g", (unsigned long long)got->info.parameters, got->loss[0]);
        for (i = 0; i < m->net[0]->n_params; i++)
            CHECK(strcmp(m->net[0]->param[i].name, got->net[0]->param[i].name) == 0,
                  "tensor %d is %s", i, got->net[0]->param[i].name);
        CHECK(same_values(m->net[0], got->net[0]), "other weights");
        CHECK_OK(c, calomu_predict(c, got, NULL, b->event, MUONS, back, NULL));
        CHECK(same_bits(out, back, MUONS), "growth %g found as %g: other predictions", a->growth,
              found->growth);
        calomu_model_free(got);
        got = NULL;
    }
    calomu_model_free(m);
}

static void check_imports(calomu *c)
{
    static const double growths[] = { 0.5, 1, 1.45, 1.5, 1.7 };
    calomu_architecture a = small_architecture(0, 28);
    test_batch b = small_muons(&a.geometry, 6);
    size_t i;
    check_import_of(c, &a, &b);
    a = small_architecture(0, 3);
    a.body = 80;
    check_import_of(c, &a, &b);
    a = small_architecture(1, 0);
    a.blocks = 3;
    a.growth = 1;
    check_import_of(c, &a, &b);
    a = small_architecture(1, 3);
    check_import_of(c, &a, &b);
    a.feature_options.convention = CALOMU_CONVENTION_AUTHORS;
    a.feature_options.grow = 0;
    check_import_of(c, &a, &b);
    a = small_architecture(1, 28);
    for (i = 0; i < sizeof growths / sizeof *growths; i++) {
        a.growth = growths[i];
        a.blocks = i % 3 == 1 ? 2 : 1;
        check_import_of(c, &a, &b);
    }
    test_muons_free(&b);
}

static void import_refused(calomu *c, const char *what)
{
    calomu_architecture base = calomu_architecture_default();
    calomu_model *m = NULL;
    calomu_status s = calomu_model_import(c, bare_file, &base, zeros, ones, &m);
    CHECK(s == CALOMU_EFORMAT && !m && *calomu_message(c), "%s: status %d, %s", what, (int)s,
          calomu_message(c));
    calomu_model_free(m);
}

/* Shapes that are of no network of ours, some of them with absurd channel counts. */
static void check_bad_imports(calomu *c)
{
    calomu_architecture a = small_architecture(1, 28);
    calomu_model *m = test_model_new(c, &a, 1, 51), *none = NULL;
    double mean[CALOMU_FEATURES] = { 0 };
    cm_st_tensor *t;
    edit e;
    int i;
#define EDIT(change) \
    write_bare(c, m, 1); \
    e = edit_begin(c, bare_file); \
    change; \
    edit_end(c, &e, bare_file); \
    import_refused(c, #change)
    EDIT(edit_remove(&e, "body.0.weight"));
    EDIT(edit_remove(&e, "head.3.se.b.bias"));
    EDIT(edit_remove(&e, "head.2.path.2.weight"));
    EDIT(edit_tensor(&e, "head.3.se.b.bias")->name = "head.4.se.b.bias");
    EDIT(edit_tensor(&e, "head.3.se.b.bias")->name = "head.999999999.se.b.bias");
    EDIT(edit_tensor(&e, "head.3.se.b.bias")->name = "tail.weights");
    EDIT(t = edit_tensor(&e, "body.0.weight"); t->count -= t->shape[0]; t->shape[1]--);
    EDIT(t = edit_tensor(&e, "body.0.weight"); t->count = t->shape[0] = 0);
    EDIT(t = edit_tensor(&e, "body.0.weight"); t->rank = 1; t->shape[0] = t->count);
    for (i = 1; i < 4; i++) {        /* growth 4096 in all three: overflow if it were believed */
        char name[32];
        (void)snprintf(name, sizeof name, "head.%d.path.2.weight", i);
        if (i == 1) { write_bare(c, m, 1); e = edit_begin(c, bare_file); }
        t = edit_tensor(&e, name);
        t->shape[0] = i == 1 ? 4096 : 4095;
        t->shape[1] = t->shape[2] = t->shape[3] = t->shape[4] = 1;
        t->count = t->shape[0];
        t->data = e.data;
    }
    edit_end(c, &e, bare_file);
    import_refused(c, "absurd growth");
    write_bare(c, m, 1);
    mean[3] = (double)NAN;
    CHECK_FAILS(c, calomu_model_import(c, bare_file, &a, mean, ones, &none), CALOMU_EUSAGE);
    mean[3] = -1;
    CHECK_FAILS(c, calomu_model_import(c, bare_file, &a, zeros, mean, &none), CALOMU_EUSAGE);
    mean[3] = 0;                     /* nothing is assumed */
    CHECK_FAILS(c, calomu_model_import(c, bare_file, &a, NULL, NULL, &none), CALOMU_EFORMAT);
    CHECK_FAILS(c, calomu_model_import(c, bare_file, &a, mean, NULL, &none), CALOMU_EFORMAT);
    CHECK_FAILS(c, calomu_model_import(c, bare_file, &a, NULL, ones, &none), CALOMU_EFORMAT);
    CHECK_OK(c, calomu_model_import(c, bare_file, &a, zeros, mean, &none));
    CHECK(none->info.deviation[3] == 1 && none->info.mean[5] == 0, "a deviation of 0 counts as 1");
    refused(c, bare_file, "a state_dict where a model is wanted");
#undef EDIT
    calomu_model_free(none);
    calomu_model_free(m);
}

/* ---------------------------------------------------------------- weights back from Python */

/* The bare file with `prefix` in front of its names, but for the one called `except`. */
static void write_prefixed(calomu *c, const calomu_model *m, const char *prefix,
                           const char *except)
{
    static char name[400][100];
    edit e;
    int i;
    write_bare(c, m, 1);
    e = edit_begin(c, bare_file);
    for (i = 0; i < e.st.n_tensors && i < 400; i++) {
        int bare = except && strcmp(e.st.tensor[i].name, except) == 0;
        (void)snprintf(name[i], sizeof name[i], "%s%s", bare ? "" : prefix, e.st.tensor[i].name);
        e.st.tensor[i].name = name[i];
    }
    edit_end(c, &e, bare_file);
}

static void import_says(calomu *c, const calomu_model *like, const char *text, const char *what)
{
    calomu_model *m = NULL;
    calomu_status s = calomu_model_import_like(c, bare_file, like, &m);
    CHECK(s == CALOMU_EFORMAT && !m && strstr(calomu_message(c), text), "%s: status %d, '%s'", what,
          (int)s, calomu_message(c));
    calomu_model_free(m);
}

/* The same predictions, and what the log says about it. */
static void import_gives(calomu *c, const calomu_model *like, const test_batch *b,
                         const double *expected, const char *text)
{
    calomu_model *m = NULL;
    double out[MUONS];
    test_said[0] = 0;
    if (!CHECK_OK(c, calomu_model_import_like(c, bare_file, like, &m))) return;
    CHECK(same_info(&m->info, &like->info), "the descriptions differ");
    CHECK(m->loss[0] == like->loss[0], "loss %g, not %g", m->loss[0], like->loss[0]);
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, out, NULL));
    CHECK(same_bits(out, expected, MUONS), "%s: other predictions", text);
    CHECK(*text ? strstr(test_said, text) != NULL : !*test_said, "'%s', not '%s'", test_said,
          text);
    calomu_model_free(m);
}

static void check_prefixes(calomu *c, const calomu_model *m, const test_batch *b,
                           const double *expected)
{
    static const char *const good[] = { "module.", "_orig_mod.", "model.", "module._orig_mod.",
                                        "_orig_mod.module.", "model.module._orig_mod.model." };
    static const char *const bad[] = { "net.", "ema.", "modul.", "module.net.", "models.0.",
                                       "9.x." };
    char text[100];
    edit e;
    size_t i;
    write_bare(c, m, 1);
    import_gives(c, m, b, expected, "");
    for (i = 0; i < sizeof good / sizeof *good; i++) {
        write_prefixed(c, m, good[i], NULL);
        (void)snprintf(text, sizeof text, "have \"%s\" in front", good[i]);
        import_gives(c, m, b, expected, text);
        write_prefixed(c, m, good[i], "tail.weight");
        import_gives(c, m, b, expected, text);   /* a name without it is still the network's */
    }
    write_prefixed(c, m, "module.", NULL);       /* beside a copy under another name */
    e = edit_begin(c, bare_file);
    e.st.tensor[e.st.n_tensors] = *edit_tensor(&e, "module.body.0.weight");
    e.st.tensor[e.st.n_tensors++].name = "ema.body.0.weight";
    edit_end(c, &e, bare_file);
    import_says(c, m, "network: ema.body.0.weight is no tensor of the network", "a copy");
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_prefixed(c, m, bad[i], NULL);
        (void)snprintf(text, sizeof text, "have \"%s\" in front", bad[i]);
        import_says(c, m, text, bad[i]);
    }
}

/* All that does not fit is named, with both shapes; what is beyond the text is counted. */
static void check_named(calomu *c, const calomu_model *m)
{
    static char name[60][40];
    cm_st_tensor *t;
    edit e;
    int i;
#define EDIT(change, text) \
    write_bare(c, m, 1); \
    e = edit_begin(c, bare_file); \
    change; \
    edit_end(c, &e, bare_file); \
    import_says(c, m, text, #change)
    EDIT(t = edit_tensor(&e, "tail.weight"); t->shape[0] = t->shape[1]; t->shape[1] = 1,
         "does not fit the network: tail.weight is [5, 1], not [1, 5]");
    EDIT(edit_remove(&e, "tail.bias"), "network: tail.bias is missing");
    EDIT(t = edit_tensor(&e, "body.2.bias"); t->rank = 2; t->shape[1] = 1;
         edit_tensor(&e, "head.1.path.3.batch")->rank = 1;
         edit_tensor(&e, "head.1.path.3.batch")->shape[0] = 1;
         edit_remove(&e, "tail.bias"); edit_tensor(&e, "body.4.bias")->name = "body.4.bios",
         "body.2.bias is [5, 1], not [5]; body.4.bias is missing; tail.bias is missing;"
         " body.4.bios is no tensor of the network");
    CHECK(strstr(calomu_message(c), "head.1.path.3.batch is [1], not []; body.2"), "'%s'",
          calomu_message(c));
    EDIT(edit_tensor(&e, "head.1.path.3.batch")->dtype = CM_I32,
         "network: head.1.path.3.batch has type I32, not F32");
    write_bare(c, m, 1);
    e = edit_begin(c, bare_file);
    e.st.tensor = realloc(e.st.tensor, ((size_t)e.st.n_tensors + 60) * sizeof *e.st.tensor);
    if (!e.st.tensor) exit(1);
    for (i = 0; i < 60; i++) {
        t = &e.st.tensor[e.st.n_tensors++];
        *t = *edit_tensor(&e, "tail.bias");
        (void)snprintf(name[i], sizeof name[i], "ema.%02d.of.other.weights", i);
        t->name = name[i];
    }
    edit_end(c, &e, bare_file);
    import_says(c, m, "ema.00.of.other.weights is no tensor of the network; ema.01.",
                "60 too many");
    import_says(c, m, "; and 54 more", "60 too many");
#undef EDIT
}

/* Every float16 and bfloat16, by the definition of IEEE 754: sign, exponent, fraction. */
static double half_value(unsigned u, int exponent_bits)
{
    int fraction_bits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    int exponent = (int)(u >> fraction_bits) & ((1 << exponent_bits) - 1);
    double fraction = (double)(u & ((1u << fraction_bits) - 1)) / (double)(1 << fraction_bits);
    double x = exponent ? ldexp(1 + fraction, exponent - bias) : ldexp(fraction, 1 - bias);
    if (exponent == (1 << exponent_bits) - 1) return (double)NAN;
    return u & 0x8000 ? -x : x;
}

static void check_halves(calomu *c)
{
    calomu_architecture a = small_architecture(0, 28);
    calomu_model *m, *got = NULL;
    static const struct { cm_dtype type; int exponent; const char *text; } of[] = {
        { CM_F16, 5, "1 of 8 tensors are F16: every value is a float32 too" },
        { CM_BF16, 8, "1 of 8 tensors are BF16: every value is a float32 too" }
    };
    int k;
    a.body = 256;
    m = test_model_new(c, &a, 1, 77);
    for (k = 0; k < 2; k++) {
        cm_st_tensor *t;
        const cm_real *w;
        unsigned u, wrong = 0;
        edit e;
        write_bare(c, m, 1);
        e = edit_begin(c, bare_file);
        t = edit_tensor(&e, "body.2.weight");
        for (u = 0; u < 65536; u++) {            /* little-endian; infinities and NaN become 0 */
            int there = !isnan(half_value(u, of[k].exponent));
            e.data[2 * u] = there ? (unsigned char)u : 0;
            e.data[2 * u + 1] = there ? (unsigned char)(u >> 8) : 0;
        }
        CHECK(t->count == 65536, "%lu weights", (unsigned long)t->count);
        t->dtype = of[k].type;
        t->data = e.data;
        edit_end(c, &e, bare_file);
        test_said[0] = 0;
        if (!CHECK_OK(c, calomu_model_import_like(c, bare_file, m, &got))) continue;
        CHECK(strstr(test_said, of[k].text), "'%s'", test_said);
        w = cm_net_values(got->net[0], cm_net_find(got->net[0], "body.2.weight"));
        for (u = 0; u < 65536; u++) {
            double x = half_value(u, of[k].exponent);
            wrong += !((double)w[u] == (isnan(x) ? 0 : x));
        }
        CHECK(wrong == 0, "%u of 65536 values of %s are wrong", wrong, of[k].text);
        calomu_model_free(got);
        got = NULL;
        e = edit_begin(c, bare_file);            /* and an infinity */
        t = edit_tensor(&e, "body.2.weight");
        memcpy(e.data, t->data, 131072);
        e.data[1] = 0x7c | (k ? 3 : 0);
        e.data[0] = k ? 0x80 : 0;
        t->data = e.data;
        edit_end(c, &e, bare_file);
        import_says(c, m, k ? "not finite" : "F16 ends at 65504", "an infinity");
    }
    calomu_model_free(m);
}

/* A model whose weights another program has changed, and whose metadata it has kept. */
static void check_changed(calomu *c, const calomu_model *m, const test_batch *b)
{
    calomu_model *got = NULL, *again = NULL;
    calomu_architecture base;
    const cm_real *w, *v;
    unsigned char *bytes;
    uint64_t start = 0;
    size_t n, size;
    int i;
    CHECK_OK(c, calomu_model_save(c, m, model_file));
    size = read_bytes(model_file, &bytes);
    for (i = 8; i-- > 0;) start = start << 8 | bytes[i];
    bytes[start + 8 + 2] ^= 1;       /* the first weight's fraction */
    write_bytes(bare_file, bytes, size);
    refused(c, bare_file, "a changed weight");
    CHECK(strstr(calomu_message(c), "model-import"), "'%s'", calomu_message(c));
    test_said[0] = 0;
    if (!CHECK_OK(c, calomu_model_import(c, bare_file, NULL, NULL, NULL, &got))) exit(1);
    CHECK(strstr(test_said, "its checksum is wrong"), "'%s'", test_said);
    CHECK(same_info(&got->info, &m->info) && got->loss[0] == m->loss[0], "metadata are lost");
    CHECK(calomu_model_training(got, 0) && calomu_model_training(got, 0)->changed == 1
          && calomu_model_training(got, 0)->options.seed == 31, "its training");
    w = got->net[0]->trained;
    v = m->net[0]->trained;
    for (i = 0, n = 0; n < got->net[0]->n_trained; n++) i += w[n] != v[n];
    CHECK(i == 1, "%d weights differ", i);
    check_round_trip(c, got, b);
    base = m->info.architecture;     /* given lengths go over the metadata's */
    base.geometry.pitch[0] = 50;
    base.feature_options.grow = 0.5f;
    CHECK_OK(c, calomu_model_import(c, bare_file, &base, zeros, NULL, &again));
    CHECK(again->info.architecture.geometry.pitch[0] == 50
          && again->info.architecture.feature_options.grow == 0.5f && again->info.mean[4] == 0
          && again->info.deviation[4] == m->info.deviation[4], "given over the metadata");
    calomu_model_free(again);
    again = NULL;
    for (n = 0; n < start; n++)      /* without a checksum it is ours all the same */
        if (memcmp(bytes + n, "checksum", 8) == 0) bytes[n] = 'C';
    write_bytes(bare_file, bytes, size);
    refused(c, bare_file, "no checksum");
    CHECK_OK(c, calomu_model_import(c, bare_file, NULL, NULL, NULL, &again));
    CHECK(same_info(&again->info, &m->info), "metadata are lost without a checksum");
    calomu_model_free(got);
    calomu_model_free(again);
    free(bytes);
}

/* An ensemble of ours that lost its metadata. */
static void check_team(calomu *c, const calomu_model *one, const test_batch *b)
{
    calomu_model *pair[2], *all = NULL, *got = NULL;
    double out[MUONS], back[MUONS];
    edit e;
    pair[0] = test_model_new(c, &one->info.architecture, 1, 61);
    pair[1] = test_model_new(c, &one->info.architecture, 1, 62);
    CHECK_OK(c, calomu_model_join(c, pair, 2, &all));
    CHECK_OK(c, calomu_predict(c, all, NULL, b->event, MUONS, out, NULL));
    write_prefixed(c, all, "module.", NULL);
    if (CHECK_OK(c, calomu_model_import_like(c, bare_file, all, &got))) {
        CHECK(same_info(&got->info, &all->info), "the descriptions differ");
        CHECK_OK(c, calomu_predict(c, got, NULL, b->event, MUONS, back, NULL));
        CHECK(same_bits(out, back, MUONS), "an ensemble: other predictions");
    }
    calomu_model_free(got);
    got = NULL;
    import_says(c, one, "weights of 2 networks, but the model to take the rest from has 1", "two");
    CHECK_OK(c, calomu_model_import(c, bare_file, &one->info.architecture, all->info.mean,
                                    all->info.deviation, &got));
    CHECK(got && got->info.members == 2 && isnan(got->loss[1]), "an ensemble without losses");
    write_bare(c, all, 1);
    e = edit_begin(c, bare_file);
    edit_remove(&e, "1.body.2.bias");
    edit_end(c, &e, bare_file);
    import_says(c, all, "network: 1.body.2.bias is missing", "a member's tensor");
    e = edit_begin(c, bare_file);
    edit_remove(&e, "1.body.0.weight");
    edit_end(c, &e, bare_file);
    import_says(c, all, "weights of 1 network,", "a member's first tensor");
    calomu_model_free(got);
    calomu_model_free(all);
    calomu_model_free(pair[0]);
    calomu_model_free(pair[1]);
}

static void check_python(void)
{
    calomu *c = test_open_noting();
    calomu_architecture a = small_architecture(1, 28), other;
    calomu_model *m = test_model_new(c, &a, 1, 60), *unlike;
    test_batch b = small_muons(&a.geometry, 7);
    double out[MUONS];
    m->training[0].known = m->training[0].version = 1;
    m->training[0].options = calomu_train_options_default();
    m->training[0].options.seed = 31;
    CHECK_OK(c, calomu_predict(c, m, NULL, b.event, MUONS, out, NULL));
    check_prefixes(c, m, &b, out);
    check_named(c, m);
    check_halves(c);
    check_changed(c, m, &b);
    check_team(c, m, &b);
    write_bare(c, m, 1);             /* the shapes of another network */
    other = a;
    other.body = 6;
    unlike = test_model_new(c, &other, 1, 63);
    import_says(c, unlike, "body.0.bias is [5], not [6]", "another body");
    calomu_model_free(unlike);
    calomu_model_free(m);
    test_muons_free(&b);
    calomu_close(c);
}

/* ---------------------------------------------------------------- how members were trained */

static calomu_training some_training(uint64_t seed)
{
    calomu_training t;
    memset(&t, 0, sizeof t);
    t.known = 1;
    t.version = CALOMU_VERSION;
    t.epoch = (int32_t)(seed % 50);
    t.muons = 12345678901;
    t.fingerprint = UINT64_MAX - seed;
    t.options = calomu_train_options_default();
    t.options.seed = seed;
    t.options.member = (int32_t)(seed % 7);
    t.options.lr = 1.0 / 3;
    return t;
}

static int same_training(const calomu_training *t, const calomu_training *u)
{
    return t && u && t->version == u->version && t->epoch == u->epoch && t->changed == u->changed
        && t->muons == u->muons && t->fingerprint == u->fingerprint
        && t->options.seed == u->options.seed && t->options.member == u->options.member
        && t->options.batch == u->options.batch && t->options.lr == u->options.lr
        && t->options.bin_high == u->options.bin_high;
}

/* The file with one entry changed, or without it. */
static void write_entry(calomu *c, const char *key, char *value)
{
    edit e = edit_begin(c, model_file);
    edit_meta(&e, key, value);
    edit_end(c, &e, other_file);
}

static void check_records(calomu *c)
{
    calomu_architecture a = small_architecture(0, 28);
    calomu_model *m = test_model_new(c, &a, 4, 64), *got = NULL;
    int known, k;
    for (known = 0; known < 16; known++) {       /* which members' trainings are known */
        for (k = 0; k < 4; k++) {
            m->training[k] = some_training(k == 3 ? 1 : (uint64_t)k);    /* 1 and 3 are equal */
            if (!(known >> k & 1)) memset(&m->training[k], 0, sizeof m->training[k]);
        }
        if (known & 4) m->training[2].options.batch = 77;
        if (known & 8) m->training[3].changed = 1;
        CHECK_OK(c, calomu_model_save(c, m, model_file));
        if (!CHECK_OK(c, calomu_model_load(c, model_file, &got))) break;
        for (k = 0; k < 4; k++)
            CHECK(known >> k & 1 ? same_training(calomu_model_training(got, k), m->training + k)
                                 : !calomu_model_training(got, k), "member %d of %x", k, known);
        CHECK_OK(c, calomu_model_save(c, got, other_file));
        same_files(model_file, other_file, "saved, loaded and saved again");
        calomu_model_free(got);
        got = NULL;
    }
    CHECK(!calomu_model_training(m, -1) && !calomu_model_training(m, 4), "no such member");
    write_entry(c, "train.batch", NULL);         /* an older or newer program knows other options */
    CHECK_OK(c, calomu_model_load(c, other_file, &got));
    CHECK(calomu_model_training(got, 0)->options.batch == 256
          && calomu_model_training(got, 2)->options.batch == 77,
          "the default where nothing is said");
    write_entry(c, "train.batch", (char[]){ "x" });
    refused(c, other_file, "batch x");
    write_entry(c, "1.train.seed", (char[]){ "-1" });
    refused(c, other_file, "seed -1");
    write_entry(c, "training.fingerprint", (char[]){ "18446744073709551616" });
    refused(c, other_file, "2^64");
    calomu_model_free(got);
    calomu_model_free(m);
}

static void check_not_files(calomu *c)
{
    calomu_model *m = NULL;
    refused(c, test.tmp, "a folder");
    write_bytes(other_file, (const unsigned char *)"not a model", 11);
    refused(c, other_file, "text");
    CHECK_FAILS(c, calomu_model_load(c, "no/such/file", &m), CALOMU_EIO);
    CHECK(!m, "a model out of nothing");
}

/* ---------------------------------------------------------------- no memory */

typedef struct budget {              /* an allocator that fails at one call, and counts */
    long calls, fail_at, alive;
    size_t bytes;                    /* asked for in all */
} budget;

static void *budget_take(void *user, size_t size)
{
    budget *b = user;
    void *memory = NULL;
    int fails;
#ifdef _OPENMP
#pragma omp critical(test_budget)
#endif
    {
        fails = ++b->calls == b->fail_at;
        b->bytes += size;
        if (!fails) memory = malloc(size);
        if (memory) b->alive++;
    }
    return memory;
}

static void budget_release(void *user, void *memory)
{
#ifdef _OPENMP
#pragma omp critical(test_budget)
#endif
    ((budget *)user)->alive--;
    free(memory);
}

static calomu *budget_open(budget *b, int threads)
{
    calomu_options o;
    calomu *c = NULL;
    memset(&o, 0, sizeof o);
    o.allocate = budget_take;
    o.release = budget_release;
    o.user = b;
    o.threads = threads;
    (void)calomu_open(&c, &o);
    return c;
}

/* A file whose number of members is a lie must not cost more than itself. */
static void check_greed(calomu *c)
{
    edit e = edit_begin(c, model_file);
    char members[] = "1000";
    unsigned char *bytes;
    budget k = { 0, 0, 0, 0 };
    calomu *own;
    size_t n;
    edit_meta(&e, "members", members);
    edit_end(c, &e, other_file);
    n = read_bytes(other_file, &bytes);
    free(bytes);
    own = budget_open(&k, 1);
    refused(own, other_file, "a thousand members");
    CHECK(k.bytes < 8 * n + 65536, "%zu bytes of memory for a file of %zu", k.bytes, n);
    calomu_close(own);
    CHECK(k.alive == 0, "%ld blocks are lost", k.alive);
}

/* Loads, imports, joins, predicts and saves: 1 if all of it went well. */
static int try_all(calomu *c, const test_batch *b, const double *expected)
{
    calomu_architecture base = small_architecture(1, 28);
    calomu_model *single[2] = { NULL, NULL }, *all = NULL;
    double out[MUONS], each[2 * MUONS];
    calomu_status s;
    int i;
    for (i = 0; i < MUONS; i++) out[i] = each[i] = -7;
    s = calomu_model_load(c, model_file, &single[0]);
    if (s == CALOMU_OK)
        s = calomu_model_import(c, bare_file, &base, zeros, ones, &single[1]);
    if (s == CALOMU_OK) s = calomu_model_join(c, single, 2, &all);
    if (s == CALOMU_OK) s = calomu_predict(c, all, NULL, b->event, MUONS, out, each);
    if (s == CALOMU_OK) {
        CHECK(same_bits(out, expected, MUONS), "other predictions with little memory");
        s = calomu_model_save(c, all, other_file);
    } else {
        for (i = 0; i < MUONS; i++)
            if (out[i] > -7 || each[i] > -7) CHECK(0, "output %d was touched", i);
    }
    CHECK(s == CALOMU_OK || (s == CALOMU_EMEMORY && strstr(calomu_message(c), "memory")),
          "status %d, '%s'", (int)s, calomu_message(c));
    calomu_model_free(all);
    calomu_model_free(single[0]);
    calomu_model_free(single[1]);
    return s == CALOMU_OK;
}

static void check_no_memory(calomu *c, const calomu_model *m, const test_batch *b, int threads,
                            long step)
{
    calomu_architecture base = small_architecture(1, 28);
    calomu_model *single[2], *all = NULL;
    double expected[MUONS];
    long fail_at, done = 0;
    CHECK_OK(c, calomu_model_save(c, m, model_file));
    write_bare(c, m, 1);
    CHECK_OK(c, calomu_model_load(c, model_file, &single[0]));
    CHECK_OK(c, calomu_model_import(c, bare_file, &base, zeros, ones, &single[1]));
    CHECK_OK(c, calomu_model_join(c, single, 2, &all));
    CHECK_OK(c, calomu_predict(c, all, NULL, b->event, MUONS, expected, NULL));
    calomu_model_free(all);
    calomu_model_free(single[0]);
    calomu_model_free(single[1]);
    for (fail_at = 1; !done && fail_at < 20000; fail_at += step) {
        budget k = { 0, 0, 0, 0 };
        calomu *own;
        k.fail_at = fail_at;
        own = budget_open(&k, threads);
        done = own ? try_all(own, b, expected) : 0;
        calomu_close(own);
        CHECK(k.alive == 0, "allocation %ld fails: %ld blocks are lost", fail_at, k.alive);
        CHECK(done == (k.calls < fail_at), "allocation %ld fails: nobody noticed", fail_at);
    }
    CHECK(done && fail_at > 50, "%ld allocations", fail_at);
}

/* The allocation numbered fail_at, counted from here, fails; 0: none. */
static void budget_from_here(budget *b, long fail_at)
{
    b->calls = 0;
    b->fail_at = fail_at;
}

static int predicts(calomu *c, const calomu_model *m, const test_batch *b, size_t n,
                    const double *expected)
{
    double out[MUONS];
    return CHECK_OK(c, calomu_predict(c, m, NULL, b->event, n, out, NULL))
        && CHECK(same_bits(out, expected, n), "%zu muons: other predictions", n);
}

/* One call without memory: what follows in the same context is right. */
static void check_usable(calomu *c, const test_batch *b, size_t n, int threads)
{
    calomu_model *m = NULL;
    double expected[MUONS], out[MUONS];
    long fail_at, done = 0, failed = 0;
    int what;
    CHECK_OK(c, calomu_model_load(c, model_file, &m));
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, expected, NULL));
    calomu_model_free(m);
    for (what = 0; what < 2; what++, done = 0)   /* 0: load, 1: predict */
        for (fail_at = 1; !done && fail_at < 2000; fail_at++) {
            budget k = { 0, 0, 0, 0 };
            calomu *own = budget_open(&k, threads);
            calomu_status s;
            m = NULL;
            if (what == 1) CHECK_OK(own, calomu_model_load(own, model_file, &m));
            budget_from_here(&k, fail_at);
            s = what == 0 ? calomu_model_load(own, model_file, &m)
                          : calomu_predict(own, m, NULL, b->event, n, out, NULL);
            done = k.calls < fail_at;
            failed += !done;
            CHECK(s == (done ? CALOMU_OK : CALOMU_EMEMORY), "allocation %ld fails: status %d",
                  fail_at, (int)s);
            budget_from_here(&k, 0);
            if (what == 0 && s != CALOMU_OK) CHECK_OK(own, calomu_model_load(own, model_file, &m));
            if (m) (void)predicts(own, m, b, 1, expected);
            if (m) (void)predicts(own, m, b, n, expected);
            calomu_model_free(m);
            calomu_close(own);
            CHECK(k.alive == 0, "allocation %ld fails: %ld blocks are lost", fail_at, k.alive);
        }
    CHECK(failed > 50, "%ld allocations", failed);
}

/* Of a muon alone the third call is the first with all threads, which want more memory. */
static void check_team_memory(calomu *c, const test_batch *b)
{
    calomu_model *m = NULL;
    double expected[MUONS], out[MUONS];
    long fail_at, done = 0;
    int i;
    CHECK_OK(c, calomu_model_load(c, model_file, &m));
    CHECK_OK(c, calomu_predict(c, m, NULL, b->event, MUONS, expected, NULL));
    for (fail_at = 1; !done && fail_at < 100; fail_at++) {
        budget k = { 0, 0, 0, 0 };
        calomu *own = budget_open(&k, 3);
        calomu_status s;
        for (i = 0; i < 2; i++) (void)predicts(own, m, b, 1, expected);
        budget_from_here(&k, fail_at);
        out[0] = -7;
        s = calomu_predict(own, m, NULL, b->event, 1, out, NULL);
        done = k.calls < fail_at;
        CHECK(s == (done ? CALOMU_OK : CALOMU_EMEMORY), "allocation %ld fails: status %d", fail_at,
              (int)s);
        CHECK(done ? same_bits(out, expected, 1) : out[0] < -6, "allocation %ld fails: output",
              fail_at);
        budget_from_here(&k, 0);
        for (i = 0; i < 3; i++) (void)predicts(own, m, b, 1, expected);
        calomu_close(own);
        CHECK(k.alive == 0, "allocation %ld fails: %ld blocks are lost", fail_at, k.alive);
    }
    CHECK(done && fail_at > 4, "%ld allocations", fail_at);
    calomu_model_free(m);
}

/* Networks of many widths, so that memory for small things ends at any of them. */
static void check_small_memory(void)
{
    calomu_architecture a = small_architecture(1, 0);
    test_batch b;
    double out[MUONS];
    long fail_at, done, failed = 0;
    int i;
    a.blocks = 3;
    a.geometry.nz = a.geometry.nx = a.geometry.ny = 1;
    b = small_muons(&a.geometry, 9);
    for (i = 0; i < 40; i += test.brief ? 13 : 1) {
        budget k = { 0, 0, 0, 0 };
        calomu *own = budget_open(&k, 1);
        calomu_model *m;
        a.growth = 0.8 + 0.02 * i;
        m = test_model_new(own, &a, 1, 77);
        CHECK_OK(own, cm_model_finish(own, CALOMU_OK, m, &m));
        for (fail_at = 1, done = 0; !done && fail_at < 100; fail_at++) {
            calomu_status s;
            budget_from_here(&k, fail_at);
            s = calomu_predict(own, m, NULL, b.event, 1, out, NULL);
            done = k.calls < fail_at;
            failed += !done;
            CHECK(s == (done ? CALOMU_OK : CALOMU_EMEMORY), "growth %g, allocation %ld: status %d",
                  a.growth, fail_at, (int)s);
        }
        calomu_model_free(m);
        calomu_close(own);
        CHECK(done && k.alive == 0, "growth %g: %ld blocks are lost", a.growth, k.alive);
    }
    CHECK(failed > (test.brief ? 40 : 400), "%ld allocations", failed);
    test_muons_free(&b);
}

/* ---------------------------------------------------------------- all */

static void check_hybrid(calomu *c, test_random *r)
{
    calomu_architecture a = small_architecture(1, 28);
    calomu_model *m = test_model_new(c, &a, 1, 11);
    test_batch b = small_muons(&a.geometry, 4);
    check_splits(c, m, &b);
    check_order(c, m, &b);
    check_no_impact(c, m, &b);
    check_bits(m, &b);
    check_concurrent(c, m, &b);
    check_bad_muons(c, m, &b);
    check_not_finite(c, &b);
    check_known_features(c, m, &b);
    check_other_features(c, m, &b);
    check_unknown(c, &b);
    check_geometries(c, m, &b);
    check_no_hits(c, m, &b);
    check_join(c, &b);
    check_no_memory(c, m, &b, 1, 1);
    check_no_memory(c, m, &b, 3, 13);
    check_usable(c, &b, 1, 1);
    check_usable(c, &b, 20, 1);
    check_usable(c, &b, MUONS, 3);
    check_team_memory(c, &b);
    check_round_trip(c, m, &b);
    m->loss[0] = (double)NAN;
    check_round_trip(c, m, &b);
    check_cut(c);
    check_flips(c, 211, r);
    check_greed(c);
    check_edits(c, m, &b);
    calomu_model_free(m);
    test_muons_free(&b);
}

/* Every byte of a file that is nearly all header. */
static void check_small_file(calomu *c, test_random *r)
{
    calomu_architecture a = small_architecture(0, 3);
    calomu_model *m;
    a.body = 2;
    m = test_model_new(c, &a, 1, 12);
    CHECK_OK(c, calomu_model_save(c, m, model_file));
    check_flips(c, 1, r);
    calomu_model_free(m);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 20220082;
    test_random r = test_seed(seed);
    calomu *c = NULL;
    int i = 0;
    test_begin(argc, argv);
    printf("test_model: seed %llu\n", (unsigned long long)seed);
    model_file = test_path(path_[0], sizeof path_[0], test.tmp, "model_a.safetensors");
    other_file = test_path(path_[1], sizeof path_[1], test.tmp, "model_b.safetensors");
    bare_file = test_path(path_[2], sizeof path_[2], test.tmp, "model_bare.safetensors");
    data_file = test_path(path_[3], sizeof path_[3], test.tmp, "model.cmu");
    while (i < CALOMU_FEATURES) ones[i++] = 1;
    if (calomu_open(&c, NULL) != CALOMU_OK) return 1;
    check_python();
    check_records(c);
    check_menus(c);
    check_hybrid(c, &r);
    check_small_file(c, &r);
    check_small_memory();
    check_imports(c);
    check_bad_imports(c);
    check_not_files(c);
    calomu_close(c);
    return test_end("test_model");
}
