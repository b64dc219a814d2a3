/* test_blocks.c - one muon in blocks over the lanes, and packed weights, give the same bits

   usage: test_blocks [TESTDATA [TMP [SEED]]]

   Few muons are predicted one by one, each in blocks over all lanes; a batch has one muon in each
   lane.  Whatever the grid and the network, the bits are the same, with any instruction set; and
   whichever context made the model. */
#include "test_net.h"

enum { MUONS = 17 };

typedef struct shape {
    int nz, nx, ny, blocks, n_features;
    double growth;
} shape;

static calomu *open_with(int isa, int direct, int threads)
{
    calomu_options o;
    calomu *c = NULL;
    memset(&o, 0, sizeof o);
    o.isa = (calomu_isa)isa;
    o.direct = direct;
    o.threads = threads;
    (void)calomu_open(&c, &o);
    return c;
}

static calomu_architecture architecture(const shape *s)
{
    calomu_architecture a = calomu_architecture_default();
    a.geometry.nz = s->nz;
    a.geometry.nx = s->nx;
    a.geometry.ny = s->ny;
    a.blocks = s->blocks;
    a.n_features = s->n_features;
    a.growth = s->growth;
    a.body = 7;
    return a;
}

static calomu_model *make_model(calomu *c, const calomu_architecture *a, int members,
                                uint64_t seed)
{
    calomu_model *m = test_model_new(c, a, members, seed), *finished = NULL;
    CHECK_OK(c, cm_model_finish(c, CALOMU_OK, m, &finished));
    if (!finished) exit(1);
    CHECK(finished->packs.n > 0, "no packed weights");
    return finished;
}

static int differ(const double *a, const double *b, size_t n)
{
    return memcmp(a, b, n * sizeof *a) != 0;
}

/* The first muons, a few at a time: up to 8 are predicted one by one.  One alone has a context's
   threads from the third call on. */
static void check_splits(calomu *c, const calomu_model *m, const test_batch *b, const double *all,
                         const char *what)
{
    static const size_t each[] = { 1, 8, 3, 1, 1, 1 };
    double some[MUONS];
    size_t k, n = (size_t)b->n;
    for (k = 0; k < 6; k++) {
        size_t i = k < 2 ? 0 : k == 2 ? 5 : k % n, count = each[k] < n ? each[k] : n;
        if (i + count > n) continue;
        CHECK_OK(c, calomu_predict(c, m, NULL, b->event + i, count, some, NULL));
        CHECK(!differ(some, all + i, count), "%s: %zu muons differ from a batch", what, count);
    }
}

/* All instruction sets, the best first: the plain one is slow, so it gets only some muons. */
static uint64_t check_shape(const shape *s, int direct, uint64_t seed)
{
    calomu_architecture a = architecture(s);
    test_batch b = test_muons(&a.geometry, MUONS, 0, seed);
    double all[MUONS], out[MUONS];
    int isa, large = s->nz * s->nx * s->ny > 10000;
    char what[128];
    for (isa = CALOMU_ISA_BEST; isa <= CALOMU_ISA_AVX512; isa++) {
        calomu *c = open_with(isa, direct, isa == CALOMU_ISA_AVX512 ? 3 : 1 + isa % 2);
        calomu_model *m;
        if (!c) continue;            /* not in this machine */
        (void)snprintf(what, sizeof what, "%dx%dx%d, %d blocks, growth %g, %d features, set %d,"
                       " direct %d, seed %llu", s->nz, s->nx, s->ny, s->blocks, s->growth,
                       s->n_features, isa, direct, (unsigned long long)seed);
        m = make_model(c, &a, 1, seed);
        b.n = isa == CALOMU_ISA_PLAIN ? large ? 1 : 3 : large ? 10 : MUONS;
        if (isa == CALOMU_ISA_BEST) {
            CHECK_OK(c, calomu_predict(c, m, NULL, b.event, (size_t)b.n, all, NULL));
            CHECK(all[0] < all[2] || all[0] > all[2], "%s: all predictions are equal", what);
            if (direct) {
                calomu *other = open_with(isa, 0, 1);
                CHECK_OK(other, calomu_predict(other, m, NULL, b.event, (size_t)b.n, out, NULL));
                CHECK(test_distance(out, all, (size_t)b.n) <= 2e-5, "%s: by Winograd's method %g "
                      "against %g", what, out[0], all[0]);
                calomu_close(other);
            }
        } else if (isa != CALOMU_ISA_PLAIN && !large) {
            CHECK_OK(c, calomu_predict(c, m, NULL, b.event, (size_t)b.n, out, NULL));
            CHECK(!differ(out, all, (size_t)b.n), "%s: other bits", what);
        }
        check_splits(c, m, &b, all, what);
        calomu_model_free(m);
        calomu_close(c);
    }
    test_muons_free(&b);
    return cm_checksum(0, all, (size_t)(large ? 10 : MUONS) * sizeof *all);
}

/* A model that another context made, with another instruction set or method: what predicts has
   the say, not what packed the weights.  The same context predicts with both, in turns. */
static void check_contexts(uint64_t seed)
{
    enum { N = 9, WAYS = 8 };        /* nine muons are a batch, eight would go one by one */
    static const shape s = { 5, 14, 3, 1, 0, 1.2 }, small = { 3, 6, 2, 1, 0, 0.6 };
    calomu_architecture a = architecture(test.brief ? &small : &s);
    test_batch b = test_muons(&a.geometry, N, 0, seed);
    double expected[WAYS][N], out[N];
    calomu *c[WAYS];
    calomu_model *m[WAYS];
    int from, to, i, slow;
    for (i = 0; i < WAYS; i++) {
        calomu *maker = open_with(i / 2, i % 2, 1);
        c[i] = open_with(i / 2, i % 2, 2);
        m[i] = maker ? make_model(maker, &a, 2, seed) : NULL;
        if (c[i]) CHECK_OK(c[i], calomu_predict(c[i], m[i], NULL, b.event, N, expected[i], NULL));
        calomu_close(maker);         /* a model outlives its context */
    }
    CHECK(differ(expected[0], expected[1], N), "both methods round alike: nothing is tested");
    for (from = 0; from < WAYS; from += test.brief ? 3 : 1)
        for (to = 0; to < WAYS; to++) {
            if (!m[from] || !c[to]) continue;
            slow = to / 2 == CALOMU_ISA_PLAIN;
            if (!slow) CHECK_OK(c[to], calomu_predict(c[to], m[from], NULL, b.event, N, out, NULL));
            CHECK(slow || !differ(out, expected[to], N), "made by %d, used by %d: a batch", from,
                  to);
            for (i = 0; i < (slow ? 1 : 3); i++) {
                CHECK_OK(c[to], calomu_predict(c[to], m[from], NULL, b.event + i, 2, out, NULL));
                CHECK(!differ(out, expected[to] + i, 2), "made by %d, used by %d: muon %d", from,
                      to, i);
            }
        }
    for (i = 0; i < WAYS; i++) {
        calomu_model_free(m[i]);
        calomu_close(c[i]);
    }
    test_muons_free(&b);
}

/* One context keeps its memory from call to call: smaller and larger networks in turns. */
static void check_kept(uint64_t seed)
{
    static const shape s[3] = { { 3, 2, 2, 1, 0, 1 }, { 12, 8, 7, 1, 0, 1.5 },
                                { 7, 6, 5, 2, 0, 1.1 } };
    calomu *c = open_with(CALOMU_ISA_BEST, 0, 2), *own;
    calomu_model *m[3];
    test_batch b[3];
    double expected[3][MUONS], out[MUONS];
    int i;
    for (i = 0; i < 3; i++) {
        calomu_architecture a = architecture(&s[i]);
        b[i] = test_muons(&a.geometry, MUONS, 0, seed);
        m[i] = make_model(c, &a, 1, seed);
        own = open_with(CALOMU_ISA_BEST, 0, 1);
        CHECK_OK(own, calomu_predict(own, m[i], NULL, b[i].event, MUONS, expected[i], NULL));
        calomu_close(own);
    }
    for (i = 0; i < 12; i++) {
        int k = i * 5 % 3, n = i % 4 == 0 ? 1 : MUONS;
        CHECK_OK(c, calomu_predict(c, m[k], NULL, b[k].event, (size_t)n, out, NULL));
        CHECK(!differ(out, expected[k], (size_t)n), "call %d: network %d, %d muons", i, k, n);
    }
    for (i = 0; i < 3; i++) {
        calomu_model_free(m[i]);
        test_muons_free(&b[i]);
    }
    calomu_close(c);
}

/* What a context keeps is for an architecture, whatever the model: one that is freed, while another
   comes where it was, one that another context packed, and the next call with all threads. */
static void check_ready(uint64_t seed)
{
    enum { N = 4, MODELS = 5, CALLS = 7 };
    static const shape s = { 9, 7, 6, 1, 0, 1.3 };
    calomu_architecture a = architecture(&s);
    test_batch b = test_muons(&a.geometry, MUONS, 0, seed);
    calomu *c = open_with(CALOMU_ISA_BEST, 0, 24), *other = open_with(CALOMU_ISA_BEST, 1, 1);
    double expected[MUONS], last = 0, out[MUONS];
    int i, k;
    for (i = 0; i < MODELS; i++) {
        calomu *fresh = open_with(CALOMU_ISA_BEST, 0, 1);
        calomu_model *m = make_model(i == 2 ? other : c, &a, 1, seed + (uint64_t)i);
        CHECK_OK(fresh, calomu_predict(fresh, m, NULL, b.event, MUONS, expected, NULL));
        CHECK(expected[0] < last || expected[0] > last, "model %d is the last one", i);
        last = expected[0];
        for (k = 0; k < CALLS; k++) {
            int n = k == 4 ? MUONS : 1, at = k % N;
            CHECK_OK(c, calomu_predict(c, m, NULL, b.event + (n > 1 ? 0 : at), (size_t)n, out,
                                       NULL));
            CHECK(!differ(out, expected + (n > 1 ? 0 : at), (size_t)n), "model %d, call %d", i, k);
        }
        calomu_model_free(m);
        calomu_close(fresh);
    }
    calomu_close(other);
    calomu_close(c);
    test_muons_free(&b);
}

int main(int argc, char **argv)
{
    static const shape fixed[] = {
        { 1, 1, 1, 1, 0, 1 }, { 5, 3, 3, 1, 0, 1.5 }, { 7, 6, 5, 3, 0, 1.1 },
        { 13, 11, 9, 2, 28, 1.3 }, { 26, 3, 2, 1, 0, 1 }, { 2, 40, 3, 1, 0, 1 },
        { 5, 51, 3, 1, 3, 0.6 }
    };
    static const shape full = { 50, 32, 32, 1, 0, 1 };
    static const shape uneven = { 32, 8, 3, 1, 0, 1 };   /* 17 planes: the last lane has one */
    uint64_t seed = test_seed_of(argc, argv, 20220091), hash = 0, h;
    test_random r = test_seed(seed);
    size_t i;
    test_begin(argc, argv);
    for (i = 0; i < (test.brief ? 4 : 2 * sizeof fixed / sizeof *fixed); i++) {
        h = check_shape(&fixed[i / 2], i % 2, test_bits(&r));
        hash = cm_checksum(hash, &h, sizeof h);
    }
    for (i = 0; i < (test.brief ? 1 : 16); i++) {
        shape s;
        s.nz = test_int(&r, 1, 20);
        s.nx = test_int(&r, 1, 20);
        s.ny = test_int(&r, 1, 9);
        s.blocks = test_int(&r, 1, 2);
        s.n_features = test_int(&r, 0, 3) ? 0 : 3;
        s.growth = test_uniform(&r, 0.3, 1.6);
        h = check_shape(&s, i % 4 == 3, test_bits(&r));
        hash = cm_checksum(hash, &h, sizeof h);
    }
    if (!test.brief) {
        h = check_shape(&full, 0, test_bits(&r));
        hash = cm_checksum(hash, &h, sizeof h);
    }
    check_contexts(test_bits(&r));
    check_kept(test_bits(&r));
    check_ready(test_bits(&r));
    (void)check_shape(&uneven, 0, test_bits(&r));
    printf("test_blocks: seed %llu, hash of all predictions %016llx\n", (unsigned long long)seed,
           (unsigned long long)hash);
    return test_end("test_blocks");
}
