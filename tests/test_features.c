/* test_features.c - the 28 features against hand-made numbers and an independent reference

   The reference below is written from the definitions (paper, Sec. 6; two conventions): dense grid,
   one loop per feature, sums in long double, clusters by scans of the whole grid until nothing
   changes, every box by brute force, the circle as the paper writes it.  */
#define _POSIX_C_SOURCE 200809L
#include "test.h"
#include <dirent.h>
#include <float.h>
#include <time.h>

typedef long double real;

/* A muon of unknown energy and charge at (x, y). */
static calomu_event muon(const calomu_hit *hits, size_t n, double x, double y)
{
    calomu_event ev = { 0 };
    ev.hits = hits;
    ev.n_hits = n;
    ev.x = (float)x;
    ev.y = (float)y;
    ev.energy = ev.charge = CALOMU_ABSENT;
    return ev;
}

/* ---------------------------------------------------------------- the reference */

typedef struct ref {
    const calomu_geometry *g;
    int nz, nx, ny, authors;
    float *e;                        /* dense grid, 0 where nothing is */
    int *label;                      /* number of the cluster, 0: none */
    int mx, my;                      /* column of the muon */
    real x, y, px, py;               /* origin of dx, dy; impact point */
} ref;

static size_t ref_cell(const ref *r, int z, int x, int y)
{
    return (size_t)((z * r->nx + x) * r->ny + y);
}

static real ref_x(const ref *r, int ix)
{
    return (real)r->g->origin[1] + (real)r->g->pitch[1] * ((real)ix + 0.5L);
}

static real ref_y(const ref *r, int iy)
{
    return (real)r->g->origin[2] + (real)r->g->pitch[2] * ((real)iy + 0.5L);
}

static real ref_z(const ref *r, int iz)
{
    return (real)r->g->pitch[0] * ((real)iz + (r->authors ? 0.0L : 0.5L));
}

static void ref_impact(ref *r, const calomu_event *ev)
{
    int z, x, y;
    double best = -1;
    r->px = (real)ev->x;
    r->py = (real)ev->y;
    for (x = 0; x < r->nx; x++)
        for (y = 0; y < r->ny; y++) {
            double sum = 0;
            for (z = 0; z < r->nz; z++) sum += (double)r->e[ref_cell(r, z, x, y)];
            if (isnan(ev->x)) {
                if (sum > best) best = sum, r->mx = x, r->my = y;
            } else if (fabsl(ref_x(r, x) - r->px) <= 0.5L * (real)r->g->pitch[1]
                       && fabsl(ref_y(r, y) - r->py) <= 0.5L * (real)r->g->pitch[2]) {
                r->mx = x, r->my = y;        /* on an edge the later cell */
            }
        }
    if (isnan(ev->x)) r->px = ref_x(r, r->mx), r->py = ref_y(r, r->my);
    r->x = r->authors ? r->px : ref_x(r, r->mx);
    r->y = r->authors ? r->py : ref_y(r, r->my);
}

/* sum of E dx^a dy^b over cells with E > above and z in [z0, z1) */
static real ref_moment(const ref *r, int a, int b, float above, real z0, real z1)
{
    int z, x, y, k;
    real sum = 0;
    for (z = 0; z < r->nz; z++)
        for (x = 0; x < r->nx; x++)
            for (y = 0; y < r->ny; y++) {
                float e = r->e[ref_cell(r, z, x, y)];
                real term = (real)e;
                if (!(e > above) || ref_z(r, z) < z0 || ref_z(r, z) >= z1) continue;
                for (k = 0; k < a; k++) term *= ref_x(r, x) - r->x;
                for (k = 0; k < b; k++) term *= ref_y(r, y) - r->y;
                sum += term;
            }
    return sum;
}

static real ref_ratio(real a, real b) { return b == 0 ? 0 : a / b; }

static void ref_sums(const ref *r, double *v)
{
    const float none = 0, high = 0.1f, low = 0.01f;
    const real inf = (real)INFINITY;
    size_t i, n = ref_cell(r, r->nz, 0, 0);
    real all = ref_moment(r, 0, 0, none, 0, inf), hx, hy;
    int k;
    v[0] = (double)ref_moment(r, 0, 0, high, 0, inf);
    v[26] = v[27] = 0;
    for (i = 0; i < n; i++) {
        float e = r->e[i];
        if (r->authors ? e <= low : e < low) v[26] += (double)e;
        else if (e <= high) v[27] += (double)e;
    }
    hx = ref_moment(r, 1, 0, none, 0, inf);
    hy = ref_moment(r, 0, 1, none, 0, inf);
    v[1] = (double)ref_ratio(hypotl(hx, hy), all);
    v[22] = (double)(r->authors ? hx + ref_moment(r, 1, 0, high, 0, inf) : ref_ratio(hx, all));
    v[23] = (double)(r->authors ? hy + ref_moment(r, 0, 1, high, 0, inf) : ref_ratio(hy, all));
    v[2] = (double)ref_ratio(hypotl(ref_moment(r, 1, 0, high, 0, inf),
                                    ref_moment(r, 0, 1, high, 0, inf)), (real)v[0]);
    v[3] = (double)ref_ratio(ref_moment(r, 2, 0, none, 0, inf) + ref_moment(r, 0, 2, none, 0, inf),
                             all);
    for (k = 0; k < 5; k++) {
        real z0 = 400 * k, z1 = k == 4 ? inf : 400 * (k + 1);
        v[4 + k] = (double)ref_ratio(ref_moment(r, 2, 0, none, z0, z1)
                                     + ref_moment(r, 0, 2, none, z0, z1),
                                     ref_moment(r, 0, 0, none, z0, z1));
    }
}

/* Sec. 6.2, word by word.  Returns -1 where x1 = x2 up to rounding: then it has no meaning. */
static double ref_curvature(const ref *r)
{
    real s[2] = { 0, 0 }, sx[2] = { 0, 0 }, sz[2] = { 0, 0 }, x1, x2, z1, z2, x0, radius;
    int z, x, y, row = 0;
    double best = -1;
    for (y = 0; y < r->ny; y++) {
        double sum = 0;
        for (z = 0; z < r->nz; z++)
            for (x = 0; x < r->nx; x++) sum += (double)r->e[ref_cell(r, z, x, y)];
        if (sum > best) best = sum, row = y;
    }
    if (r->authors) row = r->my;
    for (z = 0; z < r->nz; z++)
        for (x = 0; x < r->nx; x++)
            for (y = 0; y < r->ny; y++) {
                real w = (real)r->e[ref_cell(r, z, x, y)]
                    * expl(-fabsl(ref_y(r, y) - ref_y(r, row)) / 50);
                int half = (double)z < r->nz / 2.0 ? 0 : 1;
                s[half] += w;
                sx[half] += w * ref_x(r, x);
                sz[half] += w * ref_z(r, z);
            }
    x1 = ref_ratio(sx[0], s[0]);
    x2 = ref_ratio(sx[1], s[1]);
    z1 = ref_ratio(sz[0], s[0]);
    z2 = ref_ratio(sz[1], s[1]);
    if (fabsl(x2 - x1) <= 1e-15L * (fabsl(x1) + (real)r->g->pitch[1])) return -1;
    x0 = (z2 * z2 - z1 * z1 + x2 * x2 - x1 * x1) / (2 * (x2 - x1));
    radius = sqrtl(x1 * x1 - 2 * x1 * x0 + x0 * x0 + z1 * z1) / 1000;    /* m */
    radius = fabsl(0.3L * (real)r->g->field * radius);
    return radius > 10000 ? 10000 : (double)radius;
}

/* Gives the free neighbours of cluster k with E > grow its label; 1 if there were any. */
static int ref_spread(ref *r, int k, float grow)
{
    int z, x, y, changed = 0;
    for (z = 0; z < r->nz; z++)
        for (x = 0; x < r->nx; x++)
            for (y = 0; y < r->ny; y++) {
                size_t i = ref_cell(r, z, x, y);
                if (r->label[i] || !(r->e[i] > grow)) continue;
                if ((z > 0 && r->label[ref_cell(r, z - 1, x, y)] == k)
                    || (z < r->nz - 1 && r->label[ref_cell(r, z + 1, x, y)] == k)
                    || (x > 0 && r->label[ref_cell(r, z, x - 1, y)] == k)
                    || (x < r->nx - 1 && r->label[ref_cell(r, z, x + 1, y)] == k)
                    || (y > 0 && r->label[ref_cell(r, z, x, y - 1)] == k)
                    || (y < r->ny - 1 && r->label[ref_cell(r, z, x, y + 1)] == k)) {
                    r->label[i] = k;
                    changed = 1;
                }
            }
    return changed;
}

/* The highest free cell above 0.1 GeV, in the muon's column only if column; -1: none. */
static long ref_seed(const ref *r, int column)
{
    long best = -1;
    int z, x, y;
    for (z = 0; z < r->nz; z++)
        for (x = 0; x < r->nx; x++)
            for (y = 0; y < r->ny; y++) {
                long i = (long)ref_cell(r, z, x, y);
                if (column && (x != r->mx || y != r->my)) continue;
                if (r->label[i] || !(r->e[i] > 0.1f)) continue;
                if (best < 0 || r->e[i] > r->e[best]) best = i;
            }
    return best;
}

static void ref_clusters(ref *r, float grow, double *v)
{
    int type, k = 0, a;
    double max_cells[2] = { 0, 0 }, max_energy[2] = { 0, 0 }, cells[2] = { 0, 0 };
    double count[2] = { 0, 0 }, extent[3] = { 0, 0, 0 };
    for (type = 0; type < 2; type++) {
        long seed;
        while ((seed = ref_seed(r, type == 0)) >= 0) {
            int low[3] = { 1 << 30, 1 << 30, 1 << 30 }, high[3] = { -1, -1, -1 }, z, x, y;
            double n = 0, energy = 0;
            r->label[seed] = ++k;
            while (ref_spread(r, k, grow)) continue;
            for (z = 0; z < r->nz; z++)
                for (x = 0; x < r->nx; x++)
                    for (y = 0; y < r->ny; y++) {
                        int at[3];
                        if (r->label[ref_cell(r, z, x, y)] != k) continue;
                        n++;
                        energy += (double)r->e[ref_cell(r, z, x, y)];
                        at[0] = x, at[1] = y, at[2] = z;
                        for (a = 0; a < 3; a++) {
                            if (at[a] < low[a]) low[a] = at[a];
                            if (at[a] > high[a]) high[a] = at[a];
                        }
                    }
            count[type]++;
            cells[type] += n;
            max_cells[type] = fmax(max_cells[type], n);
            max_energy[type] = fmax(max_energy[type], energy);
            for (a = 0; a < 3 && type == 0; a++) extent[a] = fmax(extent[a], high[a] - low[a]);
        }
    }
    v[9] = count[0], v[10] = max_cells[0], v[11] = max_energy[0];
    for (a = 0; a < 3; a++) v[12 + a] = extent[a];
    v[16] = count[0] > 0 ? cells[0] / count[0] : 0;
    v[17] = count[1], v[18] = max_cells[1], v[19] = max_energy[1];
    v[20] = count[1] > 0 ? max_energy[1] / max_cells[1] : 0;
    v[21] = count[1] > 0 ? cells[1] / count[1] : 0;
    if (r->authors) v[15] = count[0] > 0 ? max_energy[0] / max_cells[0] : 0;
}

static void ref_boxes(const ref *r, double *v)
{
    int z, x, y, a, b, c;
    double most = 0, second = 0, running = 0, last = 0;
    for (x = 0; x + 3 <= r->nx; x++)
        for (y = 0; y + 3 <= r->ny; y++)
            for (z = 0; z + 3 <= r->nz; z++) {
                double sum = 0;
                for (a = 0; a < 3; a++)
                    for (b = 0; b < 3; b++)
                        for (c = 0; c < 3; c++) {
                            size_t i = ref_cell(r, z + a, x + b, y + c);
                            if (!r->label[i]) sum += (double)r->e[i];
                        }
                if (sum >= most) second = most, most = sum;
                else if (sum > second) second = sum;
                if ((r->mx - x == 0 || r->mx - x == 1) && r->my - y == 1) continue;
                if (sum > running) last = running, running = sum;
            }
    v[25] = r->authors ? running : most;
    v[r->authors ? 19 : 15] = r->authors ? last : second;
}

static void reference(const calomu_geometry *g, const calomu_event *ev,
                      const calomu_feature_options *o, double *v)
{
    ref r;
    size_t i, n = (size_t)g->nz * (size_t)g->nx * (size_t)g->ny;
    memset(&r, 0, sizeof r);
    r.g = g;
    r.nz = g->nz, r.nx = g->nx, r.ny = g->ny;
    r.authors = o->convention == CALOMU_CONVENTION_AUTHORS;
    r.e = calloc(n, sizeof *r.e);
    r.label = calloc(n, sizeof *r.label);
    if (!r.e || !r.label) exit(1);
    for (i = 0; i < ev->n_hits; i++) r.e[ev->hits[i].cell] = ev->hits[i].energy;
    ref_impact(&r, ev);
    ref_sums(&r, v);
    v[24] = ref_curvature(&r);
    ref_clusters(&r, o->grow, v);
    ref_boxes(&r, v);
    free(r.e);
    free(r.label);
}

/* ---------------------------------------------------------------- comparison */

/* A float's rounding, and for sums that cancel 1e-9 of the largest term. */
static int compare(const calomu_geometry *g, const float *got, const double *expected,
                   const calomu_feature_options *o, const char *what, long number)
{
    double reach = g->nx * g->pitch[1] + g->ny * g->pitch[2] + 1;
    int i, good = 1;
    for (i = 0; i < CALOMU_FEATURES; i++) {
        double tol = 1.2e-7 * fabs(expected[i]) + 1e-30, want = expected[i];
        if (i == 1 || i == 2 || i == 22 || i == 23) tol += 1e-11 * reach * (1 + expected[0]);
        if (i == 24) {
            tol = 1e-6 * fabs(want);
            if (want < 0) want = o->convention == CALOMU_CONVENTION_AUTHORS ? 0 : 10000;
            /* the reference's "equal up to rounding" may be a real difference of 1e-16 */
            if (expected[i] < 0 && got[i] >= 10000) want = 10000;
        }
        good &= CHECK(fabs((double)got[i] - want) <= tol,
                      "%s %ld, %s, grow %g: V%d %s = %.9g, expected %.9g", what, number,
                      calomu_convention_name(o->convention), (double)o->grow, i,
                      calomu_feature_name(i), (double)got[i], want);
    }
    return good;
}

static void check_event(calomu *c, const calomu_geometry *g, const calomu_event *ev,
                        calomu_feature_options o, const char *what, long number)
{
    float v[CALOMU_FEATURES];
    double expected[CALOMU_FEATURES];
    if (!CHECK_OK(c, calomu_features(c, g, ev, &o, v))) return;
    reference(g, ev, &o, expected);
    compare(g, v, expected, &o, what, number);
}

/* ---------------------------------------------------------------- by hand */

static uint32_t at(const calomu_geometry *g, int z, int x, int y)
{
    return (uint32_t)((z * g->nx + x) * g->ny + y);
}

static void expect(calomu *c, const calomu_geometry *g, const calomu_event *ev,
                   calomu_convention convention, float grow, const double *expected,
                   const char *what)
{
    calomu_feature_options o = { CALOMU_CONVENTION_TEXT, 0.1f };
    float v[CALOMU_FEATURES];
    int i;
    o.convention = convention;
    o.grow = grow;
    if (!CHECK_OK(c, calomu_features(c, g, ev, &o, v))) return;
    for (i = 0; i < CALOMU_FEATURES; i++)
        CHECK(fabs((double)v[i] - expected[i]) <= 2e-7 * fabs(expected[i]) + 2e-8,
              "%s: V%d %s = %.9g, expected %.9g", what, i, calomu_feature_name(i), (double)v[i],
              expected[i]);
}

/* 4x4x4 cells of 500 x 10 x 10 mm from (0, 0, 0), so layers' centres are at 250, 750, 1250 and
   1750 mm.  The muon enters (ix, iy) = (1, 2), centre (15, 25).  Type 1: 0.5 + 0.25 + 0.125 GeV
   in layers 0 and 1, type 2: 1 + 0.5 in layers 2 and 3; 0.05 and 0.005 stay free. */
static void test_by_hand(calomu *c)
{
    const calomu_geometry g = { 4, 4, 4, { 500, 10, 10 }, { 0, 0, 0 }, 2 };
    const calomu_hit hits[] = {
        { 1 * 4 + 2, 0.5f }, { 16 + 1 * 4 + 2, 0.25f }, { 16 + 2 * 4 + 2, 0.125f },
        { 32 + 3 * 4, 1 }, { 48 + 1 * 4 + 2, 0.05f }, { 48 + 3 * 4, 0.5f }, { 63, 0.005f }
    };
    calomu_event ev = muon(hits, sizeof hits / sizeof *hits, 12, 24);
    /* dx = 0, 0, 10, 20, 0, 20, 20 and dy = 0, 0, 0, -20, 0, -20, 10: sum E = 2.43,
       sum E dx = 31.35, sum E dy = -29.95, sum E r^2 = 12.5 + 1200 + 2.5; above 0.1 GeV 31.25, -30.
       V24: row 0; x1, z1 = 16.428571, 464.28571; x2, z2 = 34.563668, 1424.534271;
       x0 = 50031.756, R = 50017.482 mm, 0.6 R = 30.0104894 GeV.
       Boxes at (1, x, y): 0.05 three times and 0.055. */
    const double text[CALOMU_FEATURES] = {
        2.375, 17.8423657174, 18.2397088960, 500, 0, 12.5 / 0.375, 0, 800, 402.5 / 0.555,
        1, 3, 0.875, 1, 0, 1, 0.05, 3, 1, 2, 1.5, 0.75, 2,
        31.35 / 2.43, -29.95 / 2.43, 30.0104894327, 0.055, 0.005, 0.05
    };
    /* From the point (12, 24): dx = 3, 3, 13, 23, 3, 23, 23, dy = 1, 1, 1, -19, 1, -19, 11.
       Layers at 0, 500, 1000, 1500 mm: sections 1, 2, 3, 4.  sum E dx = 38.64 + 38.375, sum E dy =
       -27.52 - 27.625.  V24 with row 2: x1, z1 = 16.428571, 214.28571; x2, z2 = 34.056224,
       1183.684093; R = 38448.722 mm.  The corners with iy = 1 are left out: 0.05 comes first. */
    const double authors[CALOMU_FEATURES] = {
        2.375, 19.5219675248, 19.9090730858, 562.757201646, 10, 190.0 / 3, 890, 808.558558559, 0,
        1, 3, 0.875, 1, 0, 1, 0.875 / 3, 3, 1, 2, 0, 0.75, 2,
        77.015, -55.145, 23.0692333190, 0.05, 0.005, 0.05
    };
    /* grow 0: 0.05 in cell (3, 1, 2) touches nothing of a cluster, so only the lists of free cells
       stay as they are; with 0.3 the 0.25 and the 0.125 are not joined: 0.25 is a seed of the
       column, 0.125 of type 2. */
    double coarse[CALOMU_FEATURES];
    memcpy(coarse, text, sizeof coarse);
    coarse[9] = 2, coarse[10] = 1, coarse[11] = 0.5, coarse[12] = 0, coarse[14] = 0;
    coarse[16] = 1, coarse[17] = 2, coarse[21] = 1.5;
    expect(c, &g, &ev, CALOMU_CONVENTION_TEXT, 0.1f, text, "by hand, text");
    expect(c, &g, &ev, CALOMU_CONVENTION_TEXT, 0, text, "by hand, grow 0");
    expect(c, &g, &ev, CALOMU_CONVENTION_TEXT, 0.3f, coarse, "by hand, grow 0.3");
    expect(c, &g, &ev, CALOMU_CONVENTION_AUTHORS, 0.1f, authors, "by hand, authors");
}

/* No hits, or none with energy: every sum is empty; x1 = x2 = 0. */
static void test_empty(calomu *c)
{
    const calomu_geometry g = calomu_geometry_default();
    const calomu_hit zero[] = { { 5, 0 }, { 51199, 0 } };
    double text[CALOMU_FEATURES] = { 0 }, authors[CALOMU_FEATURES] = { 0 };
    calomu_event ev = muon(NULL, 0, 0, 0);
    text[24] = 10000;
    expect(c, &g, &ev, CALOMU_CONVENTION_TEXT, 0.1f, text, "no hits, text");
    expect(c, &g, &ev, CALOMU_CONVENTION_AUTHORS, 0.1f, authors, "no hits, authors");
    ev.x = ev.y = CALOMU_ABSENT;
    expect(c, &g, &ev, CALOMU_CONVENTION_TEXT, 0, text, "no hits, no impact point");
    ev.hits = zero;
    ev.n_hits = 2;
    expect(c, &g, &ev, CALOMU_CONVENTION_TEXT, 0, text, "hits of 0 GeV, text");
    expect(c, &g, &ev, CALOMU_CONVENTION_AUTHORS, 0, authors, "hits of 0 GeV, authors");
}

/* Cells exactly at the thresholds, and one float above or below. */
static void test_thresholds(calomu *c)
{
    const calomu_geometry g = { 1, 1, 8, { 40, 3, 3 }, { 0, 0, 0 }, 2 };
    calomu_feature_options o = calomu_feature_options_default();
    calomu_hit h[] = { { 0, 0 }, { 2, 0.1f }, { 4, 0.01f }, { 6, 0 }, { 7, 0 } };
    calomu_event ev = muon(h, 5, 1.5, 7.5);
    float v[CALOMU_FEATURES];
    h[0].energy = nextafterf(0.1f, 1);
    h[3].energy = nextafterf(0.01f, 0);
    h[4].energy = nextafterf(0.01f, 1);
    if (CHECK_OK(c, calomu_features(c, &g, &ev, &o, v))) {
        CHECK(v[0] == h[0].energy, "V0 %.9g: 0.1 is not above 0.1", (double)v[0]);
        CHECK(v[26] == h[3].energy, "V26 %.9g: 0.01 is not below 0.01", (double)v[26]);
        CHECK_NEAR(v[27], 0.12, 1e-8);
        CHECK(v[9] == 0 && v[17] == 1 && v[18] == 1, "seeds: %g, %g", (double)v[9], (double)v[17]);
        CHECK(v[15] == 0 && v[25] == 0, "a box of 3 does not fit into 1");
    }
    o.convention = CALOMU_CONVENTION_AUTHORS;
    if (CHECK_OK(c, calomu_features(c, &g, &ev, &o, v))) {
        CHECK_NEAR(v[26], 0.02, 1e-9);
        CHECK_NEAR(v[27], 0.11, 1e-8);
        /* the back half is empty: x1 = 1.5, z1 = x2 = z2 = 0, so x0 = R = 0.75 mm */
        CHECK_NEAR(v[24], 0.6 * 0.00075, 1e-10);
    }
}

/* A layer at the edge of a section belongs to the section behind it: in `authors` the layers of
   400 mm are at 0, 400, ..., 2000 mm, in `text` at 200, 600, ...; dx of layer k is 2 k. */
static void test_sections(calomu *c)
{
    const calomu_geometry g = { 6, 6, 1, { 400, 2, 2 }, { 7, 0, 0 }, 2 };
    calomu_feature_options o = calomu_feature_options_default();
    calomu_hit h[6];
    calomu_event ev = muon(h, 6, 1, 1);
    float v[CALOMU_FEATURES];
    int k, convention;
    for (k = 0; k < 6; k++) h[k].cell = at(&g, k, k, 0), h[k].energy = 0.25f;
    for (convention = 0; convention < 2; convention++) {
        o.convention = convention ? CALOMU_CONVENTION_AUTHORS : CALOMU_CONVENTION_TEXT;
        if (!CHECK_OK(c, calomu_features(c, &g, &ev, &o, v))) continue;
        for (k = 0; k < 4; k++) CHECK_NEAR(v[4 + k], 4 * k * k, 1e-6);
        CHECK_NEAR(v[8], (64 + 100) / 2, 1e-5);
    }
}

/* Columns and rows with equal sums: the lowest index counts; boxes with equal sums are both seen;
   energies all in one x plane give exactly x1 = x2, whatever the energies. */
static void test_ties(calomu *c)
{
    const calomu_geometry g = { 6, 5, 7, { 300, 4, 4 }, { 0, -10, -14 }, 2 };
    calomu_hit h[12];
    calomu_event ev = muon(h, 2, (double)CALOMU_ABSENT, (double)CALOMU_ABSENT);
    calomu_feature_options o = calomu_feature_options_default();
    test_random r = test_seed(5);
    float v[CALOMU_FEATURES];
    int i;
    h[0].cell = at(&g, 0, 3, 5), h[1].cell = at(&g, 4, 1, 2);
    h[0].energy = h[1].energy = 0.0625f;
    if (CHECK_OK(c, calomu_features(c, &g, &ev, &o, v))) {
        /* the muon is in (1, 2): the other cell is 2 columns in x and 3 in y away */
        CHECK_NEAR(v[22], 4, 0);
        CHECK_NEAR(v[23], 6, 0);
        CHECK_NEAR(v[25], 0.0625, 0);
        CHECK_NEAR(v[15], 0.0625, 0);
    }
    /* rows 2 and 5 have the same sum, but hits at other x: V24 must take row 2 */
    h[2].cell = at(&g, 5, 4, 5), h[2].energy = 0.03125f;
    h[3].cell = at(&g, 1, 4, 2), h[3].energy = 0.03125f;
    ev.n_hits = 4;
    check_event(c, &g, &ev, o, "equal rows", 0);
    for (i = 0; i < 6; i++) {        /* columns (2, 1) and (2, 4) */
        h[2 * i].cell = at(&g, i, 2, 1), h[2 * i + 1].cell = at(&g, i, 2, 4);
        h[2 * i].energy = (float)test_unit(&r), h[2 * i + 1].energy = (float)test_unit(&r);
    }
    ev.n_hits = 12;
    if (CHECK_OK(c, calomu_features(c, &g, &ev, &o, v)))
        CHECK(v[24] == 10000, "V24 %.9g where x1 = x2", (double)v[24]);
    o.convention = CALOMU_CONVENTION_AUTHORS;
    if (CHECK_OK(c, calomu_features(c, &g, &ev, &o, v)))
        CHECK(v[24] == 0, "V24 %.9g where x1 = x2", (double)v[24]);
}

/* ---------------------------------------------------------------- random events */

/* Energies of all sizes, many equal, many exactly at a threshold or next to it. */
static float random_energy(test_random *r)
{
    static const float special[] = { 0.1f, 0.01f, 0.25f, 0.5f, 0, 0.05f, 0.003f, 1 };
    float e;
    switch (test_int(r, 0, 3)) {
    case 0: return special[test_int(r, 0, 7)];
    case 1:
        e = special[test_int(r, 0, 1)];
        return nextafterf(e, test_int(r, 0, 1) ? 1.0f : 0.0f);
    case 2: return (float)test_int(r, 0, 8) * 0.0625f;
    default: return (float)exp(2 * test_normal(r) - 4);
    }
}

static size_t random_hits(test_random *r, const calomu_geometry *g, calomu_hit *h, double density)
{
    uint32_t cell, cells = (uint32_t)(g->nz * g->nx * g->ny);
    size_t n = 0, i;
    for (cell = 0; cell < cells; cell++) {
        if (test_unit(r) >= density) continue;
        h[n].cell = cell;
        h[n++].energy = random_energy(r);
    }
    for (i = n; i > 1; i--) {        /* in any order */
        size_t k = (size_t)test_int(r, 0, (int)i - 1);
        calomu_hit t = h[k];
        h[k] = h[i - 1];
        h[i - 1] = t;
    }
    return n;
}

static int by_cell(const void *a, const void *b)
{
    uint32_t x = ((const calomu_hit *)a)->cell, y = ((const calomu_hit *)b)->cell;
    return x < y ? -1 : x > y;
}

static void test_random_events(calomu *c, int nz, int nx, int ny, int events, uint64_t seed)
{
    static const float grow[] = { 0, 0.1f, 0.01f, 0.05f, 0.3f };
    test_random r = test_seed(seed);
    calomu_hit *h = calloc((size_t)(nz * nx * ny), sizeof *h);
    char what[40];
    int i;
    if (!h) exit(1);
    (void)snprintf(what, sizeof what, "%dx%dx%d event", nz, nx, ny);
    for (i = 0; i < events; i++) {
        calomu_geometry g = calomu_geometry_default();
        calomu_feature_options o;
        calomu_event ev = muon(h, 0, 0, 0);
        float v[CALOMU_FEATURES], w[CALOMU_FEATURES];
        int k;
        if (nz != 50 || i % 2) {
            for (k = 0; k < 3; k++) g.pitch[k] = test_uniform(&r, k ? 1 : 100, k ? 20 : 900);
            for (k = 0; k < 3; k++) g.origin[k] = test_uniform(&r, -100, 100);
            g.field = test_uniform(&r, -4, 4);
        }
        g.nz = nz, g.nx = nx, g.ny = ny;
        o.convention = i / 2 % 2 ? CALOMU_CONVENTION_AUTHORS : CALOMU_CONVENTION_TEXT;
        o.grow = grow[test_int(&r, 0, 4)];
        ev.n_hits = random_hits(&r, &g, h, nz == 50 ? test_uniform(&r, 0.02, 0.15)
                                                    : test_uniform(&r, 0, 1));
        ev.x = (float)(g.origin[1] + test_uniform(&r, 0.01, 0.99) * nx * g.pitch[1]);
        ev.y = (float)(g.origin[2] + test_uniform(&r, 0.01, 0.99) * ny * g.pitch[2]);
        if (test_int(&r, 0, 3) == 0) ev.x = ev.y = CALOMU_ABSENT;
        check_event(c, &g, &ev, o, what, i);
        if (!CHECK_OK(c, calomu_features(c, &g, &ev, &o, v))) continue;
        qsort(h, ev.n_hits, sizeof *h, by_cell);
        if (CHECK_OK(c, calomu_features(c, &g, &ev, &o, w)))
            CHECK(memcmp(v, w, sizeof v) == 0, "%s %d: the order of hits changes bits", what, i);
    }
    free(h);
}

/* ---------------------------------------------------------------- GEANT4 muons */

static int is_cmu(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".cmu") == 0;
}

static void check_muon(calomu *c, const calomu_data_info *info, const calomu_event *ev, long number,
                       const char *name)
{
    static const float grow[] = { 0.1f, 0.1f, 0, 0.01f };
    calomu_feature_options o;
    calomu_event blind = *ev;
    o.convention = number % 2 ? CALOMU_CONVENTION_AUTHORS : CALOMU_CONVENTION_TEXT;
    o.grow = grow[number / 2 % 4];
    check_event(c, &info->geometry, ev, o, name, number);
    o.convention = number % 2 ? CALOMU_CONVENTION_TEXT : CALOMU_CONVENTION_AUTHORS;
    blind.x = blind.y = CALOMU_ABSENT;
    check_event(c, &info->geometry, &blind, o, name, number);
}

/* Up to `most` muons of a file against the reference; the time of up to 500. */
static void test_file(calomu *c, const char *name, long most)
{
    char path[1024];
    calomu_data *data = NULL;
    calomu_events ev = { 0 };
    const calomu_data_info *info;
    size_t i, n;
    float v[CALOMU_FEATURES];
    clock_t start;
    test_path(path, sizeof path, test.data, name);
    if (!CHECK_OK(c, calomu_data_open(c, path, &data))) return;
    info = calomu_data_describe(data);
    n = info->n_events < 500 ? (size_t)info->n_events : 500;
    if (CHECK_OK(c, calomu_data_read(c, data, 0, NULL, n, &ev))) {
        for (i = 0; i < n && (long)i < most; i++) check_muon(c, info, &ev.event[i], (long)i, name);
        start = clock();
        for (i = 0; i < n; i++)
            if (calomu_features(c, &info->geometry, &ev.event[i], NULL, v) != CALOMU_OK) break;
        CHECK(i == n, "muon %zu: %s", i, calomu_message(c));
        if (n > 0)
            printf("%s: %zu muons, %.3f ms per muon\n", name, n,
                   1e3 * (double)(clock() - start) / CLOCKS_PER_SEC / (double)n);
    }
    calomu_events_free(&ev);
    calomu_data_close(data);
}

static void test_muons(calomu *c)
{
    DIR *folder = opendir(test.data);
    struct dirent *entry;
    int files = 0;
    while (folder && (entry = readdir(folder)) != NULL) {
        if (!is_cmu(entry->d_name)) continue;
        test_file(c, entry->d_name, 8);
        files++;
    }
    if (folder) (void)closedir(folder);
    if (!files) SKIP("no .cmu file in %s: GEANT4 muons not tested", test.data);
}

/* ---------------------------------------------------------------- failures */

typedef struct counter {
    long left, held;                 /* allocations until one fails, those not released */
} counter;

static void *counted(void *user, size_t size)
{
    counter *k = user;
    void *memory = k->left-- > 0 ? malloc(size) : NULL;
    if (memory) k->held++;
    return memory;
}

static void uncounted(void *user, void *memory)
{
    counter *k = user;
    if (memory) k->held--;
    free(memory);
}

static void test_no_memory(void)
{
    const calomu_geometry g = calomu_geometry_default();
    const calomu_hit h[] = { { 40000, 1 }, { 7, 0.5f } };
    const calomu_event ev = muon(h, 2, 0, 0);
    calomu_options options = { 0 };
    counter k = { 1, 0 };
    calomu *c = NULL;
    float v[CALOMU_FEATURES];
    long n;
    calomu_status s = CALOMU_EMEMORY;
    options.allocate = counted;
    options.release = uncounted;
    options.user = &k;
    if (!CHECK_OK(c, calomu_open(&c, &options))) return;
    for (n = 0; n < 100 && s != CALOMU_OK; n++) {
        k.left = n;
        v[3] = -7;
        s = calomu_features(c, &g, &ev, NULL, v);
        CHECK(k.held == 1, "allocation %ld fails: %ld blocks leak", n, k.held - 1);
        if (s != CALOMU_OK)
            CHECK(s == CALOMU_EMEMORY && v[3] == -7 && *calomu_message(c), "allocation %ld: %d", n,
                  (int)s);
    }
    CHECK(s == CALOMU_OK && n >= 4, "succeeds after %ld allocations", n - 1);
    calomu_close(c);
    CHECK(k.held == 0, "the context leaks");
}

/* Fails as it should, and leaves the output alone. */
static void fails(calomu *c, const calomu_geometry *g, const calomu_hit *h, size_t n, double x,
                  double y, calomu_feature_options o, calomu_status status)
{
    const calomu_event ev = muon(h, n, x, y);
    float v[CALOMU_FEATURES];
    int i;
    for (i = 0; i < CALOMU_FEATURES; i++) v[i] = -7;
    CHECK_FAILS(c, calomu_features(c, g, &ev, &o, v), status);
    for (i = 0; i < CALOMU_FEATURES; i++)
        if (v[i] != -7) break;
    CHECK(i == CALOMU_FEATURES, "V%d was written", i);
}

static void test_failures(calomu *c)
{
    const calomu_geometry g = calomu_geometry_default();
    calomu_geometry bad = g;
    const calomu_feature_options o = calomu_feature_options_default();
    calomu_feature_options p = o;
    const float inf = (float)INFINITY;
    calomu_hit h[] = { { 9, 1 }, { 51199, 0.5f } };
    fails(c, &g, h, 2, 60.01, 0, o, CALOMU_EUSAGE);
    fails(c, &g, h, 2, -60.01, 0, o, CALOMU_EUSAGE);
    fails(c, &g, h, 2, 0, 61, o, CALOMU_EUSAGE);
    fails(c, &g, h, 2, 0, -1e30, o, CALOMU_EUSAGE);
    p.grow = -0.1f;
    fails(c, &g, h, 2, 0, 0, p, CALOMU_EUSAGE);
    p.grow = CALOMU_ABSENT;
    fails(c, &g, h, 2, 0, 0, p, CALOMU_EUSAGE);
    p.grow = inf;
    fails(c, &g, h, 2, 0, 0, p, CALOMU_EUSAGE);
    p = o;
    p.convention = (calomu_convention)2;
    fails(c, &g, h, 2, 0, 0, p, CALOMU_EUSAGE);
    bad.ny = 0;
    fails(c, &bad, h, 2, 0, 0, o, CALOMU_EUSAGE);
    h[1].cell = 51200;
    fails(c, &g, h, 2, 0, 0, o, CALOMU_EFORMAT);
    h[1].cell = 9;
    fails(c, &g, h, 2, 0, 0, o, CALOMU_EFORMAT);
    h[1].cell = 3;
    h[1].energy = -1e-9f;
    fails(c, &g, h, 2, 0, 0, o, CALOMU_EFORMAT);
    h[1].energy = CALOMU_ABSENT;
    fails(c, &g, h, 2, 0, 0, o, CALOMU_EFORMAT);
    h[1].energy = inf;
    fails(c, &g, h, 2, 0, 0, o, CALOMU_EFORMAT);
    h[0].energy = h[1].energy = 3e38f;       /* V0 is no float any more */
    fails(c, &g, h, 2, 0, 0, o, CALOMU_EFORMAT);
    CHECK(strstr(calomu_message(c), "eabove") != NULL, "'%s' names no feature", calomu_message(c));
}

static void test_names(void)
{
    const calomu_feature_options o = calomu_feature_options_default();
    CHECK(o.convention == CALOMU_CONVENTION_TEXT && o.grow == 0.1f, "defaults");
    CHECK(strcmp(calomu_feature_name(0), "eabove") == 0, "V0");
    CHECK(strcmp(calomu_feature_name(15), "epercell") == 0, "V15");
    CHECK(strcmp(calomu_feature_name(22), "ymom") == 0, "V22");
    CHECK(strcmp(calomu_feature_name(27), "ea1") == 0, "V27");
    CHECK(!calomu_feature_name(28) && !calomu_feature_name(-1), "no such feature");
    CHECK(strcmp(calomu_convention_name(CALOMU_CONVENTION_TEXT), "text") == 0, "text");
    CHECK(strcmp(calomu_convention_name(CALOMU_CONVENTION_AUTHORS), "authors") == 0, "authors");
    CHECK(!calomu_convention_name((calomu_convention)2), "no such convention");
}

int main(int argc, char **argv)
{
    calomu *c = NULL;
    test_begin(argc, argv);
    if (calomu_open(&c, NULL) != CALOMU_OK) return 1;
    test_names();
    test_by_hand(c);
    test_empty(c);
    test_thresholds(c);
    test_sections(c);
    test_ties(c);
    test_random_events(c, 1, 1, 1, 60, 1);
    test_random_events(c, 2, 3, 4, 300, 2);
    test_random_events(c, 5, 4, 3, 300, 3);
    test_random_events(c, 3, 3, 3, 200, 4);
    test_random_events(c, 7, 5, 6, 300, 5);
    test_random_events(c, 1, 9, 2, 60, 6);
    test_random_events(c, 50, 32, 32, 8, 7);
    test_failures(c);
    test_no_memory();
    test_muons(c);
    calomu_close(c);
    return test_end("features");
}
