/* test_eval.c - debiasing, resolution and mean improvement

   The naive reference below ranks by counting and solves the normal equations; it shares neither
   sorting nor grouping nor the centred fit with the library.  The hard numbers come from numpy
   1.24 (Debian 12), once, by this program:

       import numpy as np
       def lcg(n, s):
           out = []
           for _ in range(n): s = (s*1103515245 + 12345) % 2**31; out.append(s/2**31)
           return np.array(out)
       def noise(u): return u[1::4] + u[2::4] + u[3::4] - 1.5
       u = lcg(12000, 1); t = 50 + 4100*u[0::4]; p = 40 + t*0.9*(1 + 0.5*noise(u))
       e = np.linspace(100, 4000, 40); m = [p[(t >= a) & (t < b)] for a, b in zip(e, e[1:])]
       c, v = np.polyfit((e[1:] + e[:-1])/2, [x.mean() for x in m], 1,
                         w=[len(x)**.5/x.std() for x in m], cov='unscaled')
       d = (p - c[1])/c[0]        # debiased; c[1], c[0] and the roots of v's diagonal: the line
       def res(groups):           # of (E, centre, debiased predictions)
           for E, x, q in groups:
               lo, med, hi = np.percentile(q, [15.865, 50, 84.135])
               r = np.sqrt((med - E)**2 + ((hi - lo)/2)**2)/E
               yield len(q), E, med, (hi - lo)/2, r, 1/np.sqrt(1/r**2 + 1/(x/5000)**2), x
       b = np.linspace(100, 4000, 21); i = [(t > a) & (t <= z) for a, z in zip(b, b[1:])]
       bins = list(res((np.median(t[k]), (a + z)/2, d[k]) for k, a, z in zip(i, b, b[1:])))
       mi = np.mean([20*x[6]/1000 - 100*x[5] for x in bins]); worst = max(x[5] for x in bins)
       # fixed points: the same with u = lcg(1760, 7), t = 100 + 400*(np.arange(440) % 11)
       # errors: sd over 4000 draws, rng = np.random.default_rng(1), in each bin of the resolution
       def draw(groups):          # (of the debiasing for the line of others)
           i = np.concatenate([rng.choice(np.flatnonzero(k), k.sum()) for k in groups])
           return t[i], p[i]      # and line, res, MI, worst of these, np.std(..., ddof=1)
*/
#include "test.h"

enum { MANY = 3000, FIXED = 440, ROOM = 128 };

/* ---------------------------------------------------------------- made-up muons */

static double lcg(uint32_t *state)
{
    *state = (*state * 1103515245u + 12345u) & 0x7fffffffu;
    return (double)*state / 2147483648.0;
}

static void make(double *truth, double *prediction, int n, uint32_t seed, int fixed)
{
    int i;
    for (i = 0; i < n; i++) {
        double u = lcg(&seed), noise = lcg(&seed);
        noise += lcg(&seed);
        noise += lcg(&seed);
        noise -= 1.5;
        truth[i] = fixed ? 100 + 400 * (i % 11) : 50 + 4100 * u;
        prediction[i] = 40 + truth[i] * 0.9 * (1 + 0.5 * noise);
    }
}

/* ---------------------------------------------------------------- naive reference */

/* Value of rank k (from 0) among those picked: the one with at most k smaller and more than k not
   larger. */
static double ranked(const double *x, const int *pick, int n, int k)
{
    int i, j;
    for (i = 0; i < n; i++) {
        int smaller = 0, not_larger = 0;
        for (j = 0; j < n; j++) {
            smaller += x[pick[j]] < x[pick[i]];
            not_larger += x[pick[j]] <= x[pick[i]];
        }
        if (smaller <= k && k < not_larger) return x[pick[i]];
    }
    return NAN;
}

static double percentile(const double *x, const int *pick, int n, double percent)
{
    double at = percent / 100 * (n - 1), low = floor(at);
    double a = ranked(x, pick, n, (int)low);
    double b = ranked(x, pick, n, (int)low + 1 < n ? (int)low + 1 : n - 1);
    return a * (1 - (at - low)) + b * (at - low);
}

static int naive_line(const calomu_eval_options *o, const double *truth, const double *prediction,
                      int n, calomu_line *line)
{
    long double s = 0, sx = 0, sy = 0, sxx = 0, sxy = 0, det;
    int b, i;
    memset(line, 0, sizeof *line);
    for (b = 0; b < o->fit_bins; b++) {
        long double sum = 0, square = 0, count = 0, mean, w, x;
        double low = o->low + (o->high - o->low) * b / o->fit_bins;
        double high = o->low + (o->high - o->low) * (b + 1) / o->fit_bins;
        for (i = 0; i < n; i++)
            if (truth[i] >= low && truth[i] < high) sum += prediction[i], count++;
        mean = sum / (count > 0 ? count : 1);
        for (i = 0; i < n; i++)
            if (truth[i] >= low && truth[i] < high)
                square += (prediction[i] - mean) * (prediction[i] - mean);
        if (count < 2 || square < 1e-20L) {
            line->skipped++;
            continue;
        }
        line->used++;
        w = count * count / square;
        x = (low + high) / 2;
        s += w, sx += w * x, sy += w * mean, sxx += w * x * x, sxy += w * x * mean;
    }
    det = s * sxx - sx * sx;
    line->slope = (double)((s * sxy - sx * sy) / det);
    line->intercept = (double)((sxx * sy - sx * sxy) / det);
    line->slope_error = (double)sqrtl(s / det);
    line->intercept_error = (double)sqrtl(sxx / det);
    return line->used >= 2 && line->slope > 0;
}

static void naive_bin(calomu_bin *bin, const double *truth, const double *prediction,
                      const int *pick, int n)
{
    bin->energy = percentile(truth, pick, n, 50);
    bin->median = percentile(prediction, pick, n, 50);
    bin->c68 = (percentile(prediction, pick, n, 84.135) - percentile(prediction, pick, n, 15.865))
        / 2;
    bin->calorimeter = sqrt((bin->median - bin->energy) * (bin->median - bin->energy)
                            + bin->c68 * bin->c68) / bin->energy;
    bin->combined = 1 / sqrt(1 / (bin->calorimeter * bin->calorimeter)
                             + 1 / (bin->tracker * bin->tracker));
}

/* Bins (a, b]; at fixed points the energies 100 + 400k of make(). */
static void naive_resolution(const calomu_eval_options *o, const double *truth,
                             const double *prediction, int n, calomu_bin *bins,
                             calomu_summary *summary)
{
    int *pick = malloc((size_t)n * sizeof *pick), count = o->points ? 11 : o->bins, b, i;
    memset(summary, 0, sizeof *summary);
    for (b = 0; pick && b < count; b++) {
        int k = 0;
        bins[b].low = o->points ? 100 + 400 * b : o->low + (o->high - o->low) * b / count;
        bins[b].high = o->points ? 100 + 400 * b : o->low + (o->high - o->low) * (b + 1) / count;
        for (i = 0; i < n; i++)
            if (o->points ? truth[i] == bins[b].low
                          : truth[i] > bins[b].low && truth[i] <= bins[b].high) pick[k++] = i;
        bins[b].n = (uint64_t)k;
        bins[b].tracker = o->tracker * (bins[b].low + bins[b].high) / 2000;
        if (k < 2) {
            summary->skipped++;
            continue;
        }
        naive_bin(&bins[b], truth, prediction, pick, k);
        summary->mi += 100 * (bins[b].tracker - bins[b].combined);
        summary->worst = fmax(summary->worst, 100 * bins[b].combined);
        summary->used++;
    }
    summary->mi /= summary->used;
    free(pick);
}

static void compare(const calomu_bin *got, const calomu_bin *expected, int n)
{
    int b;
    for (b = 0; b < n; b++) {
        CHECK(got[b].n == expected[b].n, "bin %d holds %ld, not %ld", b, (long)got[b].n,
              (long)expected[b].n);
        CHECK_NEAR(got[b].low, expected[b].low, 1e-9);
        CHECK_NEAR(got[b].high, expected[b].high, 1e-9);
        CHECK_NEAR(got[b].tracker, expected[b].tracker, 1e-12);
        if (got[b].n < 2) {
            CHECK(isnan(got[b].calorimeter) && isnan(got[b].combined) && isnan(got[b].c68)
                  && isnan(got[b].median) && isnan(got[b].energy), "bin %d is left out", b);
            continue;
        }
        CHECK_NEAR(got[b].energy, expected[b].energy, 1e-9);
        CHECK_NEAR(got[b].median, expected[b].median, 1e-8);
        CHECK_NEAR(got[b].c68, expected[b].c68, 1e-8);
        CHECK_NEAR(got[b].calorimeter, expected[b].calorimeter, 1e-11);
        CHECK_NEAR(got[b].combined, expected[b].combined, 1e-11);
    }
}

/* ---------------------------------------------------------------- against numpy */

static void test_numpy(calomu *c)
{
    static double truth[MANY], prediction[MANY];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_line line;
    calomu_bin bins[ROOM];
    calomu_summary summary;
    int n = 0;
    make(truth, prediction, MANY, 1, 0);
    if (!CHECK_OK(c, calomu_debias_fit(c, &o, truth, prediction, MANY, &line))) return;
    CHECK_NEAR(line.intercept, 36.90540655148194, 1e-9);
    CHECK_NEAR(line.slope, 0.9081701634939047, 1e-12);
    CHECK_NEAR(line.intercept_error, 3.5420927999036875, 1e-9);
    CHECK_NEAR(line.slope_error, 0.005335751396863673, 1e-12);
    CHECK(line.used == 39 && line.skipped == 0, "%d used", (int)line.used);
    CHECK_NEAR(calomu_debias(&line, 945.0755700453866), 1000, 1e-9);
    if (!CHECK_OK(c, calomu_resolution(c, &o, &line, truth, prediction, MANY, bins, ROOM, &n,
                                       &summary))) return;
    CHECK(n == 20 && summary.used == 20 && !summary.points, "%d bins", n);
    CHECK_NEAR(summary.mi, 21.690031873210774, 1e-10);
    CHECK_NEAR(summary.worst, 25.613947795815196, 1e-10);
    CHECK(bins[7].n == 147, "%ld", (long)bins[7].n);
    CHECK_NEAR(bins[7].energy, 1561.4737120456994, 1e-9);
    CHECK_NEAR(bins[7].centre, 1562.5, 0);
    CHECK_NEAR(bins[7].median, 1574.9454030826325, 1e-8);
    CHECK_NEAR(bins[7].c68, 377.70543818906924, 1e-8);
    CHECK_NEAR(bins[7].calorimeter, 0.242044171211742, 1e-11);
    CHECK_NEAR(bins[7].combined, 0.19135784374568868, 1e-11);
    make(truth, prediction, FIXED, 7, 1);
    if (!CHECK_OK(c, calomu_resolution(c, &o, &line, truth, prediction, FIXED, bins, ROOM, &n,
                                       &summary))) return;
    CHECK(n == 11 && summary.points == 1, "%d points, found by itself: %d", n,
          (int)summary.points);
    CHECK_NEAR(summary.mi, 23.24681566562273, 1e-10);
    CHECK_NEAR(summary.worst, 30.705440462374806, 1e-10);
    CHECK_NEAR(bins[10].energy, 4100, 0);
    CHECK_NEAR(bins[10].median, 3807.7106698633906, 1e-8);
    CHECK_NEAR(bins[0].c68, 22.568904291444007, 1e-8);
    CHECK_NEAR(bins[0].combined, 0.01992329144959847, 1e-11);
}

/* ---------------------------------------------------------------- against the naive reference */

static void one_sweep(calomu *c, test_random *r, int n)
{
    static double truth[600], prediction[600];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_line line, expected_line;
    calomu_bin bins[ROOM], expected[ROOM];
    calomu_summary summary, expected_summary;
    calomu_status s;
    int i, count = 0;
    o.bins = test_int(r, 1, 24);
    o.fit_bins = test_int(r, 2, 45);
    o.points = test_int(r, 0, 3) == 0;
    make(truth, prediction, n, (uint32_t)test_int(r, 1, 1000000), o.points);
    for (i = 0; i < n; i++) {
        /* energies on an edge, and repeated predictions */
        if (!o.points && test_int(r, 0, 3) == 0)
            truth[i] = 100 + 3900 / o.bins * test_int(r, 0, o.bins);
        if (test_int(r, 0, 3) == 0) prediction[i] = prediction[test_int(r, 0, i)];
    }
    s = calomu_debias_fit(c, &o, truth, prediction, (size_t)n, &line);
    if (naive_line(&o, truth, prediction, n, &expected_line)) {
        CHECK_OK(c, s);
        CHECK_NEAR(line.slope, expected_line.slope, 1e-7 * expected_line.slope);
        CHECK_NEAR(line.intercept, expected_line.intercept, 1e-7 * 4000);
        CHECK_NEAR(line.slope_error / expected_line.slope_error, 1, 1e-7);
        CHECK_NEAR(line.intercept_error / expected_line.intercept_error, 1, 1e-7);
        CHECK(line.used == expected_line.used && line.skipped == expected_line.skipped,
              "%d used of %d", (int)line.used, (int)expected_line.used);
    } else {
        CHECK(s == CALOMU_EFORMAT, "status %d", (int)s);
    }
    s = calomu_resolution(c, &o, NULL, truth, prediction, (size_t)n, bins, ROOM, &count, &summary);
    naive_resolution(&o, truth, prediction, n, expected, &expected_summary);
    if (expected_summary.used == 0 || (o.points && n < 11)) return;
    if (!CHECK_OK(c, s)) return;
    CHECK(count == (o.points ? 11 : o.bins), "%d bins", count);
    compare(bins, expected, count);
    CHECK(summary.used == expected_summary.used && summary.skipped == expected_summary.skipped,
          "%d used, %d expected", (int)summary.used, (int)expected_summary.used);
    CHECK_NEAR(summary.mi, expected_summary.mi, 1e-9);
    CHECK_NEAR(summary.worst, expected_summary.worst, 1e-9);
}

static void test_sweep(calomu *c)
{
    test_random r = test_seed(3);
    int i;
    for (i = 0; i < 150; i++) one_sweep(c, &r, i < 20 ? i + 2 : test_int(&r, 2, 600));
}

/* ---------------------------------------------------------------- edges by hand */

/* Percentiles of 1, 2, 4, 8, 16: position 0.15865*4 = 0.6346 gives 1.6346, 3.3654 gives
   8 + 0.3654*8 = 10.9232; c68 = 4.6443, median 4. */
static void test_by_hand(calomu *c)
{
    const double truth[] = { 10, 10, 10, 10, 10 }, prediction[] = { 16, 1, 8, 2, 4 };
    calomu_eval_options o = calomu_eval_options_default();
    calomu_bin bin;
    calomu_summary summary;
    int n;
    o.points = 1;
    CHECK_OK(c, calomu_resolution(c, &o, NULL, truth, prediction, 5, &bin, 1, &n, &summary));
    CHECK_NEAR(bin.median, 4, 0);
    CHECK_NEAR(bin.c68, 4.6443, 1e-13);
    CHECK_NEAR(bin.calorimeter, sqrt(36 + 4.6443 * 4.6443) / 10, 1e-13);
    CHECK_NEAR(bin.tracker, 0.002, 1e-18);
    CHECK(bin.n == 5 && n == 1 && summary.used == 1, "%d", n);
}

/* Which side of a bin is closed: (a, b] for resolution, [a, b) for the fit. */
static void test_sides(calomu *c)
{
    const double truth[] = { 100, 100, 295, 295, 295, 4000, 4000 };
    const double prediction[] = { 90, 110, 280, 300, 310, 3900, 4100 };
    const double fit_truth[] = { 100, 100, 200, 200, 4000, 4000 };
    const double fit_prediction[] = { 149, 151, 249, 251, 1, 2 };
    calomu_eval_options o = calomu_eval_options_default();
    calomu_line line;
    calomu_bin bins[20];
    calomu_summary summary;
    int n;
    o.points = 0;
    CHECK_OK(c, calomu_resolution(c, &o, NULL, truth, prediction, 7, bins, 20, &n, &summary));
    CHECK(bins[0].n == 3 && bins[1].n == 0 && bins[19].n == 2, "%ld %ld %ld", (long)bins[0].n,
          (long)bins[1].n, (long)bins[19].n);
    CHECK(summary.used == 2 && summary.skipped == 18, "%d used", (int)summary.used);
    CHECK_OK(c, calomu_debias_fit(c, &o, fit_truth, fit_prediction, 6, &line));
    CHECK(line.used == 2 && line.skipped == 37, "%d used", (int)line.used);
    CHECK_NEAR(line.slope, 1, 1e-12);
    CHECK_NEAR(line.intercept, 0, 1e-10);
}

/* Calorimeters of resolution 0 and without bounds. */
static void test_extremes(calomu *c)
{
    double truth[40], prediction[40];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_bin bins[2];
    calomu_summary summary;
    int i, n;
    for (i = 0; i < 40; i++) {
        truth[i] = i < 20 ? 500 : 1000;
        prediction[i] = truth[i];
    }
    CHECK_OK(c, calomu_resolution(c, &o, NULL, truth, prediction, 40, bins, 2, &n, &summary));
    CHECK(bins[0].calorimeter == 0 && bins[0].combined == 0, "%g", bins[0].combined);
    CHECK_NEAR(summary.mi, 15, 1e-12);
    CHECK_NEAR(summary.worst, 0, 0);
    for (i = 0; i < 40; i++) prediction[i] = (i % 2 ? 1 : -1) * 1.7e308;
    CHECK_OK(c, calomu_resolution(c, &o, NULL, truth, prediction, 40, bins, 2, &n, &summary));
    CHECK(bins[1].combined == bins[1].tracker, "%g", bins[1].combined);
    CHECK_NEAR(summary.mi, 0, 0);
    CHECK_NEAR(summary.worst, 20, 1e-12);
    for (i = 0; i < 40; i++) prediction[i] = truth[i] * 1.2;
    CHECK_OK(c, calomu_resolution(c, &o, NULL, truth, prediction, 40, bins, 2, &n, &summary));
    CHECK_NEAR(bins[1].calorimeter, 0.2, 1e-12);
    CHECK_NEAR(bins[1].combined, 0.2 / sqrt(2), 1e-12);
}

/* Equal predictions have spread 0 although their mean is rounded: 0.1 + 0.1 + 0.1 > 0.3. */
static void test_equal(calomu *c)
{
    double truth[30], prediction[30];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_line line;
    int i;
    for (i = 0; i < 30; i++) {
        truth[i] = 150 + 100 * (i / 3);
        prediction[i] = i < 3 ? 0.1 : truth[i] + i % 3 - 1;
    }
    CHECK_OK(c, calomu_debias_fit(c, &o, truth, prediction, 30, &line));
    CHECK(line.used == 9 && line.skipped == 30, "%d used", (int)line.used);
    CHECK_NEAR(line.slope, 1, 1e-12);
    CHECK_NEAR(line.intercept, 0, 1e-9);
}

/* The order of the muons changes no bit of the resolution. */
static void test_order(calomu *c)
{
    static double truth[MANY], prediction[MANY];
    calomu_bin a[20], b[20];
    calomu_summary sa, sb;
    test_random r = test_seed(9);
    int i, n;
    make(truth, prediction, MANY, 5, 0);
    CHECK_OK(c, calomu_resolution(c, NULL, NULL, truth, prediction, MANY, a, 20, &n, &sa));
    for (i = MANY - 1; i > 0; i--) {
        int k = test_int(&r, 0, i);
        double t = truth[i], p = prediction[i];
        truth[i] = truth[k], prediction[i] = prediction[k];
        truth[k] = t, prediction[k] = p;
    }
    CHECK_OK(c, calomu_resolution(c, NULL, NULL, truth, prediction, MANY, b, 20, &n, &sb));
    CHECK(memcmp(a, b, sizeof a) == 0 && sa.mi == sb.mi, "%.17g and %.17g", sa.mi, sb.mi);
}

static void test_bootstrap(calomu *c)
{
    static double truth[MANY], prediction[MANY];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_line closed, a, b, other;
    make(truth, prediction, MANY, 1, 0);
    CHECK_OK(c, calomu_debias_fit(c, &o, truth, prediction, MANY, &closed));
    o.bootstrap = 400;
    o.seed = 12;
    CHECK_OK(c, calomu_debias_fit(c, &o, truth, prediction, MANY, &a));
    CHECK_OK(c, calomu_debias_fit(c, &o, truth, prediction, MANY, &b));
    o.seed = 13;
    CHECK_OK(c, calomu_debias_fit(c, &o, truth, prediction, MANY, &other));
    CHECK(a.slope == b.slope && a.intercept == b.intercept, "one seed, two results");
    CHECK(a.slope != other.slope, "the seed has no effect");
    /* 400 resamplings know an error to 1/sqrt(800) = 3.5%; the sum over 39 bins better */
    CHECK_NEAR(a.slope_error / closed.slope_error, 1, 0.05);
    CHECK_NEAR(a.intercept_error / closed.intercept_error, 1, 0.08);
    CHECK_NEAR(a.slope, closed.slope, closed.slope_error / 3);
    o.bootstrap = 2;
    CHECK_OK(c, calomu_debias_fit(c, &o, truth, prediction, MANY, &a));
}

static void test_points(calomu *c)
{
    double truth[660];
    int i;
    for (i = 0; i < 660; i++) truth[i] = 100 + i % 64;
    CHECK(calomu_is_points(c, truth, 660) == 1, "64 energies, 10 and 11 each");
    CHECK(calomu_is_points(c, truth, 639) == 0, "one energy 9 times");
    CHECK(calomu_is_points(c, truth, 640) == 1, "64 energies, 10 each");
    for (i = 0; i < 660; i++) truth[i] = 100 + i % 65;
    CHECK(calomu_is_points(c, truth, 660) == 0, "65 energies");
    CHECK(calomu_is_points(c, truth, 0) == 0, "no muon");
    for (i = 0; i < 10; i++) truth[i] = 500;
    CHECK(calomu_is_points(c, truth, 10) == 1, "one energy");
    CHECK(calomu_is_points(c, truth, 9) == 0, "one energy, 9 muons");
    truth[3] = (double)NAN;
    CHECK(calomu_is_points(c, truth, 10) == 0, "a NaN");
}

/* ---------------------------------------------------------------- errors */

/* Resolution and its errors; fit as for calomu_resolution_errors, 1: the same muons. */
static int with_errors(calomu *c, const calomu_eval_options *o, int same, const double *fit_truth,
                       const double *fit_prediction, size_t n_fit, const double *truth,
                       const double *prediction, size_t n, calomu_bin *bins,
                       calomu_summary *summary)
{
    calomu_line line;
    int n_bins = 0;
    if (same) fit_truth = truth, fit_prediction = prediction, n_fit = n;
    if (fit_truth) CHECK_OK(c, calomu_debias_fit(c, o, fit_truth, fit_prediction, n_fit, &line));
    CHECK_OK(c, calomu_resolution(c, o, fit_truth ? &line : NULL, truth, prediction, n, bins, ROOM,
                                  &n_bins, summary));
    CHECK(isnan(bins[0].combined_error) && isnan(summary->mi_error), "errors for nothing");
    CHECK_OK(c, calomu_resolution_errors(c, o, fit_truth, fit_prediction, n_fit, truth, prediction,
                                         n, bins, n_bins, summary));
    return n_bins;
}

/* 4000 resamplings here and there: each knows an error to 1.1%. */
static void errors_are(const calomu_bin *bin, double calorimeter, double combined,
                       const calomu_summary *s, double mi, double worst)
{
    CHECK_NEAR(bin->calorimeter_error / calorimeter, 1, 0.05);
    CHECK_NEAR(bin->combined_error / combined, 1, 0.05);
    CHECK_NEAR(s->mi_error / mi, 1, 0.05);
    CHECK_NEAR(s->worst_error / worst, 1, 0.05);
}

static void test_errors_numpy(calomu *c)
{
    static double truth[MANY], prediction[MANY], fixed[FIXED], other[FIXED];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_bin bins[ROOM];
    calomu_summary summary;
    o.errors = 4000;
    make(truth, prediction, MANY, 1, 0);
    with_errors(c, &o, 1, NULL, NULL, 0, truth, prediction, MANY, bins, &summary);
    errors_are(&bins[7], 0.02154047, 0.01036928, &summary, 0.2741334, 1.2226169);
    CHECK_NEAR(bins[0].calorimeter_error / 0.03347797, 1, 0.05);
    CHECK_NEAR(bins[19].combined_error / 0.01929701, 1, 0.05);
    with_errors(c, &o, 0, NULL, NULL, 0, truth, prediction, MANY, bins, &summary);
    errors_are(&bins[7], 0.02103798, 0.01085473, &summary, 0.25827914, 1.11615979);
    make(fixed, other, FIXED, 7, 1);
    with_errors(c, &o, 0, truth, prediction, MANY, fixed, other, FIXED, bins, &summary);
    errors_are(&bins[7], 0.03931006, 0.0280965, &summary, 0.64870071, 2.84173095);
    CHECK_NEAR(bins[0].combined_error / 1.640406e-5, 1, 0.05);
    CHECK_NEAR(bins[10].calorimeter_error / 0.04161103, 1, 0.05);
}

/* Normal deviates of n values: both quantiles have the variance p (1 - p)/(n f^2), the covariance
   p^2/(n f^2) with p = 0.15865 and f the density at them, 0.24197/sigma, so half their distance
   has p (1 - 2p)/(2 n f^2): sigma 0.9617/sqrt(n).  The median is too near the truth to count. */
static void test_errors_normal(calomu *c)
{
    enum { POINTS = 11, EACH = 4000 };
    static double truth[POINTS * EACH], prediction[POINTS * EACH];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_bin bins[ROOM];
    calomu_summary summary;
    uint32_t state = 5;
    double ratio = 0, sum = 0;
    int i;
    for (i = 0; i < POINTS * EACH; i++) {
        double u = lcg(&state), v = lcg(&state);
        truth[i] = 1000 + 100 * (i % POINTS);
        prediction[i] = truth[i] * (1 + 0.1 * sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * v));
    }
    with_errors(c, &o, 0, NULL, NULL, 0, truth, prediction, POINTS * EACH, bins, &summary);
    for (i = 0; i < POINTS; i++) {
        ratio += bins[i].calorimeter_error / (0.1 * 0.9617 / sqrt(EACH)) / POINTS;
        /* MI is a mean over points that are independent without a line */
        sum += bins[i].combined_error * bins[i].combined_error;
    }
    /* the bootstrap of a quantile of n values is off by n^(-1/4) = 13%, the mean of 11 by 4% */
    CHECK_NEAR(ratio, 1, 0.08);
    CHECK_NEAR(summary.mi_error / (100 * sqrt(sum) / POINTS), 1, 0.15);
}

/* The spread of 200 samples of muons, with line, is what each of them says. */
static void test_errors_spread(calomu *c)
{
    enum { SAMPLES = 200, EACH = 1000 };
    static double truth[EACH], prediction[EACH];
    calomu_eval_options o = calomu_eval_options_default();
    double mi = 0, mi2 = 0, r = 0, r2 = 0, mi_error = 0, r_error = 0;
    test_random random = test_seed(17);
    calomu_bin bins[ROOM];
    calomu_summary summary;
    int i;
    o.bins = 5;
    o.errors = 50;
    for (i = 0; i < SAMPLES; i++) {
        make(truth, prediction, EACH, (uint32_t)test_bits(&random), 0);
        o.seed = (uint64_t)i;        /* else all samples would have the same draws' errors */
        with_errors(c, &o, 1, NULL, NULL, 0, truth, prediction, EACH, bins, &summary);
        mi += summary.mi, mi2 += summary.mi * summary.mi;
        r += bins[3].combined, r2 += bins[3].combined * bins[3].combined;
        mi_error += summary.mi_error * summary.mi_error;
        r_error += bins[3].combined_error * bins[3].combined_error;
    }
    /* 200 samples know their spread to 5%; the bootstrap of quantiles makes it up to 10% larger */
    CHECK_NEAR(sqrt((mi_error / SAMPLES) / (mi2 / SAMPLES - mi * mi / SAMPLES / SAMPLES)), 1, 0.2);
    CHECK_NEAR(sqrt((r_error / SAMPLES) / (r2 / SAMPLES - r * r / SAMPLES / SAMPLES)), 1, 0.2);
}

/* Neither the number of threads nor the order of the rows changes a bit; the seed does. */
static void test_errors_equal(void)
{
    static double truth[MANY], prediction[MANY];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_bin first[ROOM], bins[ROOM];
    calomu_summary summary = { 0, 0, 0, 0, 0, 0, 0 }, other;
    static const int threads[4] = { 1, 2, 3, 40 };
    int i, k, n;
    memset(first, 0, sizeof first);
    o.errors = 70;
    for (i = 0; i < 5; i++) {
        calomu_options options;
        calomu *c = NULL;
        memset(&options, 0, sizeof options);
        options.threads = threads[i % 4];
        if (!CHECK(calomu_open(&c, &options) == CALOMU_OK, "no context")) return;
        make(truth, prediction, MANY, 1, 0);
        truth[5] = truth[6] = 100;   /* in the debiasing's first bin, in none of the resolution's */
        for (k = 0; i == 3 && k < MANY / 2; k++) {
            double t = truth[k], p = prediction[k];
            truth[k] = truth[MANY - 1 - k], prediction[k] = prediction[MANY - 1 - k];
            truth[MANY - 1 - k] = t, prediction[MANY - 1 - k] = p;
        }
        o.seed = i == 4;
        n = with_errors(c, &o, 1, NULL, NULL, 0, truth, prediction, MANY, bins, &other);
        if (i == 0) memcpy(first, bins, sizeof first), summary = other;
        for (k = 0; i > 0 && i < 4 && k < n; k++)
            CHECK(first[k].calorimeter_error == bins[k].calorimeter_error
                  && first[k].combined_error == bins[k].combined_error, "bin %d", k);
        if (i > 0 && i < 4)
            CHECK(summary.mi_error == other.mi_error && summary.worst_error == other.worst_error,
                  "%.17g, not %.17g", other.mi_error, summary.mi_error);
        if (i == 4) CHECK(summary.mi_error != other.mi_error, "the seed has no effect");
        calomu_close(c);
    }
}

/* Muons that only the debiasing takes, and a bin of equal predictions, which it leaves out. */
static void test_errors_line(calomu *c)
{
    double truth[60], prediction[60];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_bin bins[ROOM];
    calomu_summary summary;
    int i;
    o.points = 0;
    for (i = 0; i < 60; i++) {
        truth[i] = i < 20 ? 100 : 550;   /* 100 is in [100, 200), not in (100, 295] */
        prediction[i] = truth[i] + (i * 37 % 20 - 9.5);
    }
    (void)with_errors(c, &o, 1, NULL, NULL, 0, truth, prediction, 60, bins, &summary);
    CHECK(summary.used == 1 && bins[2].calorimeter_error > 0, "%g", bins[2].calorimeter_error);
    for (i = 0; i < 60; i++) {
        truth[i] = i < 20 ? 150 : i < 40 ? 550 : 950;
        prediction[i] = truth[i] + (i < 20 ? 0.1 : i * 37 % 20 - 9.5);
    }
    (void)with_errors(c, &o, 1, NULL, NULL, 0, truth, prediction, 60, bins, &summary);
    CHECK(summary.mi_error > 0 && bins[0].calorimeter_error > 0, "%g %g", summary.mi_error,
          bins[0].calorimeter_error);
}

/* Bins of one muon and of none, a line that some draws turn over, no resamplings, other bins. */
static void test_errors_edges(calomu *c)
{
    double truth[44], prediction[44];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_bin bins[ROOM];
    calomu_summary summary;
    int i, n;
    for (i = 0; i < 44; i++) {
        truth[i] = i < 20 ? 150 : i < 40 ? 550 : i == 40 ? 1000 : 1900 + 0.1 * i;
        prediction[i] = truth[i] + (i * 37 % 20 - 9.5);
    }
    o.points = 0;
    n = with_errors(c, &o, 1, NULL, NULL, 0, truth, prediction, 44, bins, &summary);
    CHECK(n == 20 && summary.used == 3, "%d used", (int)summary.used);
    CHECK(isnan(bins[4].combined_error) && isnan(bins[5].calorimeter_error), "one muon or none");
    CHECK(bins[0].combined_error > 0 && bins[2].combined_error > 0 && summary.mi_error > 0,
          "%g %g", bins[0].combined_error, bins[2].combined_error);
    for (i = 0; i < 44; i++) prediction[i] = truth[i] > 160 ? -10 : i % 2 ? 100 : -121;
    o.fit_bins = 2;
    o.high = 600;
    (void)with_errors(c, &o, 0, NULL, NULL, 0, truth, prediction, 44, bins, &summary);
    CHECK(summary.mi_error > 0, "no line, and no error");
    for (i = 0; i < 44; i++) prediction[i] = truth[i] > 160 ? 10 - i % 3 : i % 2 ? 100 : -121;
    (void)with_errors(c, &o, 1, NULL, NULL, 0, truth, prediction, 44, bins, &summary);
    CHECK(isnan(summary.mi_error) && isnan(summary.worst_error) && isnan(bins[0].combined_error),
          "errors beside a line that may fall: %g", summary.mi_error);
    CHECK_OK(c, calomu_resolution(c, &o, NULL, truth, prediction, 44, bins, ROOM, &n, &summary));
    bins[0].n++;
    CHECK_FAILS(c, calomu_resolution_errors(c, &o, NULL, NULL, 0, truth, prediction, 44, bins, n,
                                            &summary), CALOMU_EUSAGE);
    bins[0].n--;
    CHECK_FAILS(c, calomu_resolution_errors(c, &o, NULL, NULL, 0, truth, prediction, 44, bins,
                                            n - 1, &summary), CALOMU_EUSAGE);
    prediction[3] = (double)NAN;
    CHECK_FAILS(c, calomu_resolution_errors(c, &o, NULL, NULL, 0, truth, prediction, 44, bins, n,
                                            &summary), CALOMU_EFORMAT);
    prediction[3] = 1;
    o.errors = 0;
    CHECK_OK(c, calomu_resolution_errors(c, &o, NULL, NULL, 0, truth, prediction, 44, bins, n,
                                         &summary));
    CHECK(isnan(summary.mi_error), "errors of no resampling");
    o.errors = 1;
    CHECK_FAILS(c, calomu_resolution_errors(c, &o, NULL, NULL, 0, truth, prediction, 44, bins, n,
                                            &summary), CALOMU_EUSAGE);
}

/* ---------------------------------------------------------------- failures */

static void test_bad_options(calomu *c, const double *truth, const double *prediction, size_t n)
{
    calomu_eval_options bad[14];
    calomu_line line;
    calomu_bin bins[ROOM];
    calomu_summary summary;
    int count, i;
    for (i = 0; i < 14; i++) bad[i] = calomu_eval_options_default();
    bad[0].low = 5000;
    bad[1].low = -1;
    bad[2].high = (double)INFINITY;
    bad[3].low = (double)NAN;
    bad[4].bins = 0;
    bad[5].fit_bins = 1;
    bad[6].bins = 2000000000;
    bad[7].points = 2;
    bad[8].tracker = 0;
    bad[9].tracker = (double)NAN;
    bad[10].bootstrap = 1;
    bad[11].bootstrap = -5;
    bad[12].errors = 1;
    bad[13].errors = -1;
    for (i = 0; i < 14; i++) {
        CHECK_FAILS(c, calomu_debias_fit(c, &bad[i], truth, prediction, n, &line), CALOMU_EUSAGE);
        CHECK_FAILS(c, calomu_resolution(c, &bad[i], NULL, truth, prediction, n, bins, ROOM,
                                         &count, &summary), CALOMU_EUSAGE);
    }
}

/* One bad row among good ones; the message must name it. */
static void bad_row(calomu *c, double *where, double value, const double *truth,
                    const double *prediction, size_t n, const char *row)
{
    calomu_line line, line_before;
    calomu_bin bins[ROOM];
    calomu_summary summary;
    int count = -7;
    double good = *where;
    memset(&line, 0x55, sizeof line);
    line_before = line;
    *where = value;
    CHECK_FAILS(c, calomu_debias_fit(c, NULL, truth, prediction, n, &line), CALOMU_EFORMAT);
    CHECK(strstr(calomu_message(c), row) != NULL, "row not named: %s", calomu_message(c));
    CHECK(memcmp(&line, &line_before, sizeof line) == 0, "a failure touched the line");
    CHECK_FAILS(c, calomu_resolution(c, NULL, NULL, truth, prediction, n, bins, ROOM, &count,
                                     &summary), CALOMU_EFORMAT);
    CHECK(strstr(calomu_message(c), row) != NULL, "row not named: %s", calomu_message(c));
    CHECK(count == -7, "a failure touched the number of bins");
    *where = good;
}

static void test_failures(calomu *c)
{
    static double truth[MANY], prediction[MANY], wrong[MANY];
    calomu_eval_options o = calomu_eval_options_default();
    calomu_line line, steep = { 0, 1e-300, 0, 0, 0, 0 };
    calomu_bin bins[ROOM];
    calomu_summary summary;
    int i, n;
    make(truth, prediction, MANY, 1, 0);
    test_bad_options(c, truth, prediction, MANY);
    bad_row(c, &truth[0], 0, truth, prediction, MANY, "row 1 of 3000");
    bad_row(c, &truth[1], -5, truth, prediction, MANY, "row 2 ");
    bad_row(c, &truth[2], (double)NAN, truth, prediction, MANY, "row 3 ");
    bad_row(c, &truth[2999], (double)INFINITY, truth, prediction, MANY, "row 3000 ");
    bad_row(c, &prediction[6], (double)NAN, truth, prediction, MANY, "row 7 ");
    bad_row(c, &prediction[7], -(double)INFINITY, truth, prediction, MANY, "row 8 ");
    CHECK_FAILS(c, calomu_debias_fit(c, &o, truth, prediction, 0, &line), CALOMU_EFORMAT);
    CHECK_FAILS(c, calomu_resolution(c, &o, NULL, truth, prediction, 0, bins, ROOM, &n, &summary),
                CALOMU_EFORMAT);
    CHECK_FAILS(c, calomu_resolution(c, &o, NULL, truth, prediction, MANY, bins, 19, &n, &summary),
                CALOMU_EUSAGE);
    o.points = 1;
    CHECK_FAILS(c, calomu_resolution(c, &o, NULL, truth, prediction, MANY, bins, ROOM, &n,
                                     &summary), CALOMU_EFORMAT);
    o.points = 0;
    for (i = 0; i < MANY; i++) wrong[i] = 5000 - prediction[i];
    CHECK_FAILS(c, calomu_debias_fit(c, &o, truth, wrong, MANY, &line), CALOMU_EFORMAT);
    for (i = 0; i < MANY; i++) wrong[i] = 77;
    CHECK_FAILS(c, calomu_debias_fit(c, &o, truth, wrong, MANY, &line), CALOMU_EFORMAT);
    for (i = 0; i < MANY; i++) wrong[i] = (i % 2 ? 1 : -1) * 1.7e308;
    CHECK_FAILS(c, calomu_debias_fit(c, &o, truth, wrong, MANY, &line), CALOMU_EFORMAT);
    for (i = 0; i < MANY; i++) wrong[i] = 150 + i % 2;
    CHECK_FAILS(c, calomu_debias_fit(c, &o, wrong, prediction, MANY, &line), CALOMU_EFORMAT);
    for (i = 0; i < MANY; i++) wrong[i] = 1e10;
    CHECK_FAILS(c, calomu_resolution(c, &o, &steep, truth, wrong, MANY, bins, ROOM, &n, &summary),
                CALOMU_EFORMAT);
    for (i = 0; i < MANY; i++) wrong[i] = 1e6 + i;
    CHECK_FAILS(c, calomu_resolution(c, &o, NULL, wrong, prediction, MANY, bins, ROOM, &n,
                                     &summary), CALOMU_EFORMAT);
}

/* ---------------------------------------------------------------- no memory */

typedef struct memory {
    long left, live;                 /* allocations before one fails; blocks not yet released */
} memory;

static void *take(void *user, size_t size)
{
    memory *m = user;
    if (m->left-- <= 0) return NULL;
    m->live++;
    return malloc(size);
}

static void give(void *user, void *block)
{
    memory *m = user;
    m->live--;
    free(block);
}

static calomu_status everything(calomu *c, const double *truth, const double *prediction)
{
    calomu_eval_options o = calomu_eval_options_default();
    calomu_line line;
    calomu_bin bins[ROOM];
    calomu_summary summary;
    calomu_status s;
    int n;
    o.bootstrap = 3;
    o.errors = 2;
    s = calomu_debias_fit(c, &o, truth, prediction, FIXED, &line);
    if (s == CALOMU_OK)
        s = calomu_resolution(c, &o, &line, truth, prediction, FIXED, bins, ROOM, &n, &summary);
    if (s == CALOMU_OK)
        s = calomu_resolution_errors(c, &o, truth, prediction, FIXED, truth, prediction, FIXED,
                                     bins, n, &summary);
    o.points = 0;
    if (s == CALOMU_OK)
        s = calomu_resolution(c, &o, &line, truth, prediction, FIXED, bins, ROOM, &n, &summary);
    /* the same values in another array are other muons */
    if (s == CALOMU_OK)
        s = calomu_resolution_errors(c, &o, truth, truth, FIXED, truth, prediction, FIXED, bins, n,
                                     &summary);
    return s;
}

static void test_no_memory(void)
{
    static double truth[FIXED], prediction[FIXED];
    calomu_options options;
    calomu *c = NULL;
    memory m = { 1000000, 0 };
    calomu_status s = CALOMU_EMEMORY;
    long fail, before;
    make(truth, prediction, FIXED, 7, 1);
    memset(&options, 0, sizeof options);
    options.allocate = take;
    options.release = give;
    options.user = &m;
    if (!CHECK(calomu_open(&c, &options) == CALOMU_OK, "no context")) return;
    before = m.live;
    for (fail = 0; fail < 100 && s == CALOMU_EMEMORY; fail++) {
        m.left = fail;
        s = everything(c, truth, prediction);
        CHECK(m.live == before, "%ld blocks lost at allocation %ld", m.live - before, fail);
        CHECK(s == CALOMU_OK || (s == CALOMU_EMEMORY && *calomu_message(c)), "status %d", (int)s);
    }
    /* edges, starts, truths and predictions of three groupings, and two blocks of the fit; errors:
       4 of a grouping, 3 to sort, 4 of the fit, rows, 4 of a thread, and the same again with 6 of a
       fit to other muons */
    CHECK(s == CALOMU_OK && fail == 49, "done after %ld tries with status %d", fail, (int)s);
    m.left = 1000000;
    calomu_close(c);
    CHECK(m.live == 0, "%ld blocks lost", m.live);
}

int main(int argc, char **argv)
{
    calomu *c = NULL;
    test_begin(argc, argv);
    if (CHECK(calomu_open(&c, NULL) == CALOMU_OK, "no context")) {
        test_numpy(c);
        test_sweep(c);
        test_by_hand(c);
        test_sides(c);
        test_extremes(c);
        test_equal(c);
        test_order(c);
        test_bootstrap(c);
        test_errors_numpy(c);
        test_errors_normal(c);
        test_errors_spread(c);
        test_errors_line(c);
        test_errors_edges(c);
        test_points(c);
        test_failures(c);
    }
    test_errors_equal();
    test_no_memory();
    calomu_close(c);
    return test_end("eval");
}
