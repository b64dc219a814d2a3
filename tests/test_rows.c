/* test_rows.c - rows of hits, truth and losses to muons, against a plain search over all rows

   usage: test_rows [TESTDATA [TMP [SEED]]] */
#include "../tools/rows.c"
#include "test.h"

enum { NZ = 3, NX = 4, NY = 5, CELLS = NZ * NX * NY, MOST = 400 };

typedef struct sample {              /* rows as a file has them */
    uint64_t event[MOST];
    uint32_t cell[MOST];
    double energy[MOST];
    int n;
    uint64_t known[40];              /* events of truth, in the order of its rows */
    int muons;
} sample;

static tool_rows begin(const char *truth, const char *losses)
{
    tool_rows r;
    memset(&r, 0, sizeof r);
    r.geometry = calomu_geometry_default();
    r.geometry.nz = NZ;
    r.geometry.nx = NX;
    r.geometry.ny = NY;
    r.name[TOOL_ROWS_HITS] = "h.csv";
    r.name[TOOL_ROWS_TRUTH] = truth;
    r.name[TOOL_ROWS_LOSSES] = losses;
    r.row_word = "line";
    r.first[0] = r.first[1] = r.first[2] = 2;
    return r;
}

/* Muons of numbers far apart, some without hits; rows in any order, some cells several times. */
static void draw(test_random *rnd, sample *s, int twice)
{
    char used[40][CELLS];
    int i, k, m, c;
    memset(used, 0, sizeof used);
    s->muons = test_int(rnd, 1, 40);
    for (i = 0; i < s->muons; i++) s->known[i] = (uint64_t)i * (1 + test_bits(rnd) % 3) + 7;
    for (i = 1; i < s->muons; i++)
        while (s->known[i] <= s->known[i - 1]) s->known[i] = s->known[i - 1] + 1;
    if (test_int(rnd, 0, 1)) s->known[s->muons - 1] = 9007199254740991u;
    for (i = s->muons - 1; i > 0; i--) {
        uint64_t t = s->known[i];
        k = test_int(rnd, 0, i);
        s->known[i] = s->known[k];
        s->known[k] = t;
    }
    for (s->n = 0, i = 0; i < MOST; i++) {
        m = test_int(rnd, 0, s->muons - 1);
        c = test_int(rnd, 0, CELLS - 1);
        if (m % 5 == 4 || (!twice && used[m][c])) continue;
        used[m][c] = 1;
        s->event[s->n] = s->known[m];
        s->cell[s->n] = (uint32_t)c;
        s->energy[s->n++] = test_uniform(rnd, twice ? -0.2 : 0, 1);
    }
}

static void fill(tool_rows *r, const sample *s)
{
    double value[4];
    int i;
    for (i = 0; i < s->muons; i++) {
        value[0] = (double)s->known[i] / 16 + 1;
        value[1] = value[2] = -50;
        value[3] = i % 2 ? 1 : -1;
        CHECK(tool_rows_truth(r, TOOL_ROWS_TRUTH, s->known[i], value) == CALOMU_OK, "%s",
              r->message);
    }
    CHECK(tool_rows_number(r, TOOL_ROWS_TRUTH) == CALOMU_OK, "%s", r->message);
    for (i = 0; i < s->n; i++)
        CHECK(tool_rows_hit(r, s->event[i], s->cell[i], s->energy[i]) == CALOMU_OK, "%s",
              r->message);
    CHECK(tool_rows_finish(r) == CALOMU_OK, "%s", r->message);
}

/* The k-th event by rising number. */
static uint64_t ranked(const sample *s, int k)
{
    int i, j, below;
    for (i = 0; i < s->muons; i++) {
        for (below = j = 0; j < s->muons; j++) below += s->known[j] < s->known[i];
        if (below == k) return s->known[i];
    }
    return UINT64_MAX;
}

static void compare(const sample *s, const calomu_event *e, uint64_t number)
{
    size_t hits = 0;
    int c, i, rows;
    for (c = 0; c < CELLS; c++) {
        double sum = 0;
        for (rows = i = 0; i < s->n; i++) {
            if (s->event[i] != number || s->cell[i] != (uint32_t)c) continue;
            sum = rows++ ? sum + s->energy[i] : s->energy[i];
        }
        if (rows == 0) continue;
        CHECK(hits < e->n_hits && e->hits[hits].cell == (uint32_t)c, "cell %d", c);
        if (hits < e->n_hits)
            CHECK(e->hits[hits].energy == (float)(sum < 0 ? 0 : sum), "cell %d: %g, not %g", c,
                  (double)e->hits[hits].energy, sum);
        hits++;
    }
    CHECK(hits == e->n_hits, "%zu hits, not %zu", e->n_hits, hits);
    CHECK(e->energy == (float)((double)number / 16 + 1), "truth of another event");
}

static void test_muons(uint64_t seed)
{
    test_random rnd = test_seed(seed);
    int round, i;
    for (round = 0; round < 200; round++) {
        sample s;
        calomu_event e;
        tool_rows r = begin("t.csv", NULL);
        draw(&rnd, &s, round % 2);
        r.rules.sum = round % 2;
        r.rules.negative = TOOL_NEGATIVE_ZERO;
        fill(&r, &s);
        CHECK(r.n_muons == (size_t)s.muons, "%zu muons, not %d", r.n_muons, s.muons);
        for (i = 0; i < s.muons; i++) {
            CHECK(tool_rows_muon(&r, (size_t)i, &e) == CALOMU_OK, "%s", r.message);
            compare(&s, &e, ranked(&s, i));
        }
        tool_rows_free(&r);
    }
}

static calomu_status hit(tool_rows *r, uint64_t event, uint32_t cell, double energy)
{
    return tool_rows_hit(r, event, cell, energy);
}

static void says(const tool_rows *r, calomu_status status, calomu_status wanted, const char *text)
{
    CHECK(status == wanted && strstr(r->message, text), "status %d, '%s', not '%s'", (int)status,
          r->message, text);
}

/* Without truth: numbers up to the largest, or those that hits have. */
static void test_gaps(void)
{
    calomu_event e;
    char text[300];
    int skip;
    for (skip = 0; skip < 2; skip++) {
        tool_rows r = begin(NULL, NULL);
        r.rules.gaps = skip ? TOOL_GAPS_SKIP : TOOL_GAPS_EMPTY;
        CHECK(hit(&r, 9, 1, 1) == CALOMU_OK && hit(&r, 4, 2, 2) == CALOMU_OK
              && hit(&r, 9, 0, 3) == CALOMU_OK && tool_rows_finish(&r) == CALOMU_OK, "%s",
              r.message);
        CHECK(r.n_muons == (skip ? 2u : 10u), "%zu muons", r.n_muons);
        CHECK(tool_rows_muon(&r, skip ? 1 : 9, &e) == CALOMU_OK && e.n_hits == 2
              && e.hits[0].cell == 0 && e.hits[0].energy == 3, "the hits of event 9");
        CHECK(tool_rows_muon(&r, skip ? 0 : 4, &e) == CALOMU_OK && e.n_hits == 1, "of event 4");
        CHECK(!(e.energy == e.energy) && !e.losses, "truth is unknown");
        CHECK(tool_rows_remark(&r, text), "gaps are said");
        CHECK(strstr(text, skip ? "muon 0 is event 4, muon 1 event 9" : "8 of the events 0 to 9"),
              "%s", text);
        tool_rows_free(&r);
    }
}

static void test_far(void)
{
    tool_rows r = begin(NULL, NULL);
    says(&r, hit(&r, 4294967295u, 0, 1), CALOMU_EFORMAT, "h.csv:2: event 4294967295: numbers");
    CHECK(hit(&r, 1000099, 0, 1) == CALOMU_OK && tool_rows_finish(&r) == CALOMU_OK, "%s",
          r.message);
    tool_rows_free(&r);
    r = begin(NULL, NULL);
    CHECK(hit(&r, 0, 0, 1) == CALOMU_OK && hit(&r, 1000200, 0, 1) == CALOMU_OK, "%s", r.message);
    says(&r, tool_rows_finish(&r), CALOMU_EFORMAT, "h.csv:3: event 1000200, but there are only 2");
    tool_rows_free(&r);
}

static void test_truth(void)
{
    static const double bad[5][4] = {
        { 0, -50, -50, 1 }, { 1, -45, -50, 1 }, { 1, NAN, -50, 1 }, { 1, -50, -50, 2 },
        { 1e39, -50, -50, 1 }
    };
    static const char *const text[5] = {
        "t.csv:2: 'energy' is 0", "'x' is -45 mm: outside", "one of 'x' and 'y'", "'charge' is 2",
        "'energy' is 1e+39, which is too large"
    };
    static const double good[4] = { 1, -60, -50, 1 };
    tool_rows r;
    int i;
    for (i = 0; i < 5; i++) {
        r = begin("t.csv", NULL);
        says(&r, tool_rows_truth(&r, TOOL_ROWS_TRUTH, 3, bad[i]), CALOMU_EFORMAT, text[i]);
        tool_rows_free(&r);
    }
    r = begin("t.csv", "l.csv");
    for (i = 0; i < 3; i++)
        CHECK(tool_rows_truth(&r, TOOL_ROWS_TRUTH, 9 - (uint64_t)i, good) == CALOMU_OK, "%s",
              r.message);
    CHECK(tool_rows_number(&r, TOOL_ROWS_TRUTH) == CALOMU_OK, "%s", r.message);
    CHECK(tool_rows_truth(&r, TOOL_ROWS_LOSSES, 7, good) == CALOMU_OK
          && tool_rows_truth(&r, TOOL_ROWS_LOSSES, 8, good) == CALOMU_OK, "%s", r.message);
    says(&r, tool_rows_number(&r, TOOL_ROWS_LOSSES), CALOMU_EFORMAT, "l.csv has no event 9");
    says(&r, hit(&r, 6, 0, 1), CALOMU_EFORMAT, "h.csv:2: event 6 is not in t.csv, which has 3");
    tool_rows_free(&r);
    r = begin("t.csv", NULL);
    for (i = 0; i < 3; i++) (void)tool_rows_truth(&r, TOOL_ROWS_TRUTH, i == 1 ? 5 : 7, good);
    says(&r, tool_rows_number(&r, TOOL_ROWS_TRUTH), CALOMU_EFORMAT,
         "t.csv:4: event 7 was there before, in line 2");
    tool_rows_free(&r);
}

/* Rows of a cell: their order decides the bits of the sum; what may not be is named by its row. */
static void test_cells(void)
{
    tool_cell_row up[3] = { { 5, 1e16, 0 }, { 5, 1, 1 }, { 5, -1e16, 2 } };
    tool_cell_row mixed[3] = { { 5, 1e16, 0 }, { 5, 1, 2 }, { 5, -1e16, 1 } };
    tool_cell_row twice[3] = { { 7, 1, 0 }, { 5, 1, 1 }, { 7, 1, 2 } };
    tool_cell_row below[2] = { { 7, 1, 0 }, { 5, -1, 1 } };
    tool_cell_row large[2] = { { 5, 3e38, 0 }, { 5, 3e38, 1 } };
    tool_rules rules = { 1, TOOL_NEGATIVE_REFUSE, 0 };
    calomu_hit out[3];
    size_t n = 0, bad = 0;
    tool_cells_fault why = TOOL_CELLS_TWICE;
    CHECK(tool_cells_settle(&rules, up, 3, out, &n, &bad, &why) == CALOMU_OK && n == 1
          && out[0].energy == 0, "1e16 + 1 - 1e16");
    CHECK(tool_cells_settle(&rules, mixed, 3, out, &n, &bad, &why) == CALOMU_OK
          && out[0].energy == 1, "1e16 - 1e16 + 1, by the number of the row");
    CHECK(tool_cells_settle(&rules, large, 2, out, &n, &bad, &why) == CALOMU_EFORMAT
          && why == TOOL_CELLS_LARGE, "too large");
    CHECK(tool_cells_settle(&rules, below, 2, out, &n, &bad, &why) == CALOMU_EFORMAT && bad == 0
          && why == TOOL_CELLS_NEGATIVE && below[bad].row == 1, "below 0");
    rules.sum = 0;
    CHECK(tool_cells_settle(&rules, twice, 3, out, &n, &bad, &why) == CALOMU_EFORMAT
          && why == TOOL_CELLS_TWICE && twice[bad].row == 2 && twice[bad - 1].row == 0, "twice");
    CHECK(tool_cells_settle(&rules, NULL, 0, out, &n, &bad, &why) == CALOMU_OK && n == 0, "none");
}

static void test_floats(void)
{
    float x = 0;
    CHECK(tool_to_float(3.40282347e38, &x) && x == FLT_MAX, "the largest, with 9 digits");
    CHECK(tool_to_float(-3.40282347e38, &x) && x == -FLT_MAX, "the least");
    CHECK(!tool_to_float(3.4028236e38, &x) && !tool_to_float(NAN, &x), "what is no float");
}

int main(int argc, char **argv)
{
    test_begin(argc, argv);
    test_muons(test_seed_of(argc, argv, 16));
    test_gaps();
    test_far();
    test_truth();
    test_cells();
    test_floats();
    return test_end("rows");
}
