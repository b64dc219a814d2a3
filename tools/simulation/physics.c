/* physics.c - the simulation side by side with GEANT4, at fixed energies (make physics)

   usage: physics SIMULATED.cmu GEANT4.cmu OUT_PREFIX [GEANT4.bin ...]

   The .bin files are records of g4ref: float energy (GeV), x, y (mm), charge; uint32 n; n times
   {uint16 cell, float GeV}.  Cells up to 1 keV are dropped on both sides first.  Writes
   OUT_PREFIX.csv, one line per energy and observable, and OUT_PREFIX_histograms.csv and .gp;
   prints what failed of the bar.

   Bar: medians within 5%, 90% quantiles within 10%, or within 3 standard errors (bootstrap of both
   samples), medians of counts below 20 within 1; the mean log ratio of the medians over the
   energies within 2% or 3 standard errors; Kolmogorov-Smirnov not significant at 1% for 90% of the
   pairs.  */
#define CALOMU_EQUAL_BITS
#include "calomu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OBSERVABLES = 21, POINTS = 16, QUANTILES = 6, RESAMPLES = 200, BINS = 24 };

static const struct { const char *name, *text; int count; } observable[OBSERVABLES] = {
    { "energy", "energy sum, GeV", 0 },
    { "V0", "V0: cells above 0.1 GeV, GeV", 0 },
    { "V26", "V26: cells below 0.01 GeV, GeV", 0 },
    { "V27", "V27: cells of 0.01 to 0.1 GeV, GeV", 0 },
    { "hits", "cells above 0.1 MeV", 1 },
    { "hits10", "cells above 10 MeV", 1 },
    { "hits100", "cells above 100 MeV", 1 },
    { "V3", "V3: second moment, mm^2", 0 },
    { "V4", "V4", 0 }, { "V5", "V5", 0 }, { "V6", "V6", 0 }, { "V7", "V7", 0 }, { "V8", "V8", 0 },
    { "V9", "V9: clusters", 1 },
    { "V11", "V11: energy of the largest cluster, GeV", 0 },
    { "V17", "V17: clusters off the track", 1 },
    { "V18", "V18: cells of the largest of them", 1 },
    { "V25", "V25: largest 3x3x3 sum, GeV", 0 },
    { "depth", "mean depth, mm", 0 },
    { "spread", "spread of the depth, mm", 0 },
    { "highest", "highest cell, GeV", 0 }
};
static const double quantile[QUANTILES] = { 0.05, 0.25, 0.5, 0.75, 0.9, 0.95 };

/* The values of one observable at one energy. */
typedef struct sample { double *x; size_t n, room; } sample;

typedef struct measured {
    int points;
    double energy[POINTS];
    sample s[POINTS][OBSERVABLES];
} measured;

static void die(const char *what)
{
    fprintf(stderr, "physics: %s\n", what);
    exit(1);
}

static void add(sample *s, double x)
{
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 256;
        s->x = realloc(s->x, s->room * sizeof *s->x);
        if (!s->x) die("no memory");
    }
    s->x[s->n++] = x;
}

static int point_of(measured *m, double energy)
{
    int i;
    for (i = 0; i < m->points; i++)
        if (fabs(m->energy[i] - energy) < 0.5) return i;
    if (m->points == POINTS) die("more than 16 energies");
    m->energy[m->points] = energy;
    return m->points++;
}

/* ---------------------------------------------------------------- observables of one muon */

static void measure(calomu *c, const calomu_geometry *g, const calomu_event *in, measured *to)
{
    calomu_event event = *in;
    calomu_hit *hits = malloc((in->n_hits + 1) * sizeof *hits);
    float v[CALOMU_FEATURES];
    double sum = 0, z1 = 0, z2 = 0, most = 0, count[3] = { 0, 0, 0 }, z, e, value[OBSERVABLES];
    int p = point_of(to, (double)in->energy), k;
    size_t i, n = 0;
    if (!hits) die("no memory");
    for (i = 0; i < in->n_hits; i++)
        if (in->hits[i].energy > 1e-6f) hits[n++] = in->hits[i];
    event.hits = hits;
    event.n_hits = n;
    event.features = NULL;
    if (calomu_features(c, g, &event, NULL, v) != CALOMU_OK) die(calomu_message(c));
    for (i = 0; i < n; i++) {
        e = (double)hits[i].energy;
        z = (hits[i].cell / (uint32_t)(g->nx * g->ny) + 0.5) * g->pitch[0];
        sum += e;
        z1 += e * z;
        z2 += e * z * z;
        most = e > most ? e : most;
        count[0] += e > 1e-4;
        count[1] += e > 1e-2;
        count[2] += e > 1e-1;
    }
    free(hits);
    z1 = sum > 0 ? z1 / sum : 0;
    z2 = sum > 0 ? z2 / sum - z1 * z1 : 0;
    {
        const int feature[] = { 3, 4, 5, 6, 7, 8, 9, 11, 17, 18, 25 };
        value[0] = sum;
        value[1] = (double)v[0];
        value[2] = (double)v[26];
        value[3] = (double)v[27];
        for (k = 0; k < 3; k++) value[4 + k] = count[k];
        for (k = 0; k < 11; k++) value[7 + k] = (double)v[feature[k]];
        value[18] = z1;
        value[19] = z2 > 0 ? sqrt(z2) : 0;
        value[20] = most;
    }
    for (k = 0; k < OBSERVABLES; k++) add(&to->s[p][k], value[k]);
}

static void read_cmu(calomu *c, const char *path, measured *to)
{
    calomu_data *data = NULL;
    calomu_events batch;
    uint64_t i;
    size_t k;
    memset(&batch, 0, sizeof batch);
    if (calomu_data_open(c, path, &data) != CALOMU_OK) die(calomu_message(c));
    for (i = 0; i < calomu_data_describe(data)->n_events; i += batch.n) {
        uint64_t left = calomu_data_describe(data)->n_events - i;
        if (calomu_data_read(c, data, i, NULL, left < 64 ? (size_t)left : 64, &batch) != CALOMU_OK)
            die(calomu_message(c));
        for (k = 0; k < batch.n; k++)
            measure(c, &calomu_data_describe(data)->geometry, &batch.event[k], to);
    }
    calomu_events_free(&batch);
    calomu_data_close(data);
}

static void read_bin(calomu *c, const char *path, measured *to)
{
    calomu_geometry g = calomu_geometry_default();
    FILE *f = fopen(path, "rb");
    float head[4];
    uint32_t n, i;
    if (!f) die(path);
    while (fread(head, 4, 4, f) == 4 && fread(&n, 4, 1, f) == 1 && n <= 51200) {
        calomu_hit *hits = malloc((n + 1) * sizeof *hits);
        calomu_event event = { hits, n, head[1], head[2], head[0], head[3], NULL, NULL };
        if (!hits) die("no memory");
        for (i = 0; i < n; i++) {
            uint16_t cell;
            if (fread(&cell, 2, 1, f) != 1 || fread(&hits[i].energy, 4, 1, f) != 1) break;
            hits[i].cell = cell;
        }
        if (i == n) measure(c, &g, &event, to);
        free(hits);
        if (i < n) break;            /* the last record of a run that was cut short */
    }
    fclose(f);
}

/* ---------------------------------------------------------------- statistics */

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at(const double *sorted, size_t n, double q)
{
    double x = q * (double)(n - 1);
    size_t i = (size_t)x;
    if (i + 1 >= n) return sorted[n - 1];
    return sorted[i] + (x - (double)i) * (sorted[i + 1] - sorted[i]);
}

static uint64_t draws;               /* the bootstrap's own random numbers */

static size_t draw(size_t n)
{
    uint32_t w[4];
    calomu_random(20220082, 0, draws++, w);
    return (size_t)(((uint64_t)w[0] << 32 | w[1]) % n);
}

/* Standard errors of the quantiles. */
static void bootstrap(const sample *s, double error[QUANTILES])
{
    double *y = malloc(s->n * sizeof *y), sum[QUANTILES] = { 0 }, sum2[QUANTILES] = { 0 }, x;
    size_t i;
    int k, q;
    if (!y) die("no memory");
    for (k = 0; k < RESAMPLES; k++) {
        for (i = 0; i < s->n; i++) y[i] = s->x[draw(s->n)];
        qsort(y, s->n, sizeof *y, rising);
        for (q = 0; q < QUANTILES; q++) {
            x = at(y, s->n, quantile[q]);
            sum[q] += x;
            sum2[q] += x * x;
        }
    }
    for (q = 0; q < QUANTILES; q++) {
        x = sum2[q] / RESAMPLES - sum[q] / RESAMPLES * (sum[q] / RESAMPLES);
        error[q] = x > 0 ? sqrt(x) : 0;
    }
    free(y);
}

/* Two-sample Kolmogorov-Smirnov distance of sorted samples, and its significance. */
static double kolmogorov(const sample *a, const sample *b, double *p)
{
    size_t i = 0, j = 0;
    double d = 0, n, l, sum = 0, x, gap;
    int k;
    while (i < a->n && j < b->n) {
        x = a->x[i] < b->x[j] ? a->x[i] : b->x[j];
        while (i < a->n && a->x[i] <= x) i++;
        while (j < b->n && b->x[j] <= x) j++;
        gap = fabs((double)i / (double)a->n - (double)j / (double)b->n);
        d = gap > d ? gap : d;
    }
    n = sqrt((double)a->n * (double)b->n / (double)(a->n + b->n));
    l = (n + 0.12 + 0.11 / n) * d;
    for (k = 1; k < 100; k++) sum += (k % 2 ? 2 : -2) * exp(-2.0 * k * k * l * l);
    *p = l < 0.3 ? 1 : sum > 1 ? 1 : sum;
    return d;
}

/* ---------------------------------------------------------------- the comparison */

typedef struct verdict {
    int pairs, median, high, pooled, significant;        /* failures but for the first */
    double log_ratio[OBSERVABLES], variance[OBSERVABLES];
    int n[OBSERVABLES];
} verdict;

static int within(double sim, double g4, double error, double share)
{
    return fabs(sim - g4) <= share * fabs(g4) || fabs(sim - g4) <= 3 * error;
}

static void compare(const sample *g4, const sample *sim, double energy, int k, FILE *out,
                    verdict *v)
{
    double a[QUANTILES], b[QUANTILES], ea[QUANTILES], eb[QUANTILES], p, d, e;
    int q, bad_median, bad_high;
    for (q = 0; q < QUANTILES; q++) {
        a[q] = at(g4->x, g4->n, quantile[q]);
        b[q] = at(sim->x, sim->n, quantile[q]);
    }
    bootstrap(g4, ea);
    bootstrap(sim, eb);
    d = kolmogorov(g4, sim, &p);
    fprintf(out, "%g,%s,%zu,%zu", energy, observable[k].name, g4->n, sim->n);
    for (q = 0; q < QUANTILES; q++) {
        e = sqrt(ea[q] * ea[q] + eb[q] * eb[q]);
        fprintf(out, ",%g,%g,%g,%g", a[q], b[q], a[q] != 0 ? b[q] / a[q] : NAN,
                a[q] != 0 ? e / fabs(a[q]) : NAN);
    }
    fprintf(out, ",%g,%g\n", d, p);
    e = sqrt(ea[2] * ea[2] + eb[2] * eb[2]);
    bad_median = !(within(b[2], a[2], e, 0.05)
                   || (observable[k].count && a[2] < 20 && fabs(b[2] - a[2]) <= 1));
    bad_high = !within(b[4], a[4], sqrt(ea[4] * ea[4] + eb[4] * eb[4]), 0.10);
    if (bad_high && observable[k].count && a[4] < 20 && fabs(b[4] - a[4]) <= 1) bad_high = 0;
    v->pairs++;
    v->median += bad_median;
    v->high += bad_high;
    v->significant += !(p >= 0.01);
    if (bad_median || bad_high || !(p >= 0.01))
        printf("  %6g GeV %-8s median %.4g / %.4g = %.3f +- %.3f%s, 90%% %.3f +- %.3f%s, "
               "KS %.3f p %.2g%s\n", energy, observable[k].name, b[2], a[2], b[2] / a[2], e / a[2],
               bad_median ? " FAILS" : "", b[4] / a[4],
               sqrt(ea[4] * ea[4] + eb[4] * eb[4]) / a[4], bad_high ? " FAILS" : "", d, p,
               p >= 0.01 ? "" : " *");
    if (a[2] > 0 && b[2] > 0) {
        v->log_ratio[k] += log(b[2] / a[2]);
        v->variance[k] += e / a[2] * (e / a[2]);
        v->n[k]++;
    }
}

static void pooled(verdict *v)
{
    int k;
    printf("mean log ratio of the medians over the energies:\n");
    for (k = 0; k < OBSERVABLES; k++) {
        double n = v->n[k], mean = n > 0 ? v->log_ratio[k] / n : 0;
        double error = n > 0 ? sqrt(v->variance[k]) / n : 0;
        int bad = !(fabs(mean) <= 0.02 || fabs(mean) <= 3 * error);
        v->pooled += bad;
        printf("  %-8s %+.4f +- %.4f%s\n", observable[k].name, mean, error, bad ? " FAILS" : "");
    }
}

/* ---------------------------------------------------------------- the picture */

static const int drawn[12] = { 0, 1, 3, 2, 4, 5, 6, 7, 13, 14, 18, 20 };

/* Shares of the muons in 24 bins, even in the logarithm, over the range of both samples. */
static void histogram(FILE *f, int k, const sample *g4, const sample *sim)
{
    double low = 1e300, high = 0, share[2][BINS] = { { 0 } };
    const sample *s[2];
    size_t i;
    int side, b;
    s[0] = g4;
    s[1] = sim;
    for (side = 0; side < 2; side++)
        for (i = 0; i < s[side]->n; i++)
            if (s[side]->x[i] > 0) {
                low = s[side]->x[i] < low ? s[side]->x[i] : low;
                high = s[side]->x[i] > high ? s[side]->x[i] : high;
            }
    high *= 1.0001;
    for (side = 0; side < 2; side++)
        for (i = 0; i < s[side]->n; i++) {
            if (!(s[side]->x[i] > 0)) continue;
            b = (int)(BINS * log(s[side]->x[i] / low) / log(high / low));
            share[side][b < 0 ? 0 : b >= BINS ? BINS - 1 : b] += 1 / (double)s[side]->n;
        }
    for (b = 0; b < BINS; b++)
        fprintf(f, "%d,%g,%g,%g,%g\n", k, low * pow(high / low, (b + 0.5) / BINS), share[0][b],
                sqrt(share[0][b] / (double)g4->n), share[1][b]);
    fprintf(f, "\n\n");
}

static FILE *create(const char *prefix, const char *end)
{
    char path[1024];
    FILE *f;
    if (snprintf(path, sizeof path, "%s%s", prefix, end) >= (int)sizeof path) die("name too long");
    f = fopen(path, "w");
    if (!f) die(path);
    return f;
}

static void finish(FILE *f)
{
    if (ferror(f) | fclose(f)) die("cannot write");
}

static void picture(const char *prefix, const measured *g4, const measured *sim, int a, int b)
{
    FILE *f = create(prefix, "_histograms.csv"), *gp = create(prefix, "_histograms.gp");
    const char *base = strrchr(prefix, '/');
    int i;
    base = base ? base + 1 : prefix;
    fprintf(f, "# observable, value, share of muons in GEANT4, its error, in the simulation\n");
    for (i = 0; i < 12; i++) histogram(f, drawn[i], &g4->s[a][drawn[i]], &sim->s[b][drawn[i]]);
    finish(f);
    fprintf(gp, "# muons of %g GeV; gnuplot -d, from the folder of this file\n", g4->energy[a]);
    fprintf(gp, "set terminal svg size 1200,900 font ',11'\n"
                "set output '%s_histograms.svg'\n", base);
    fprintf(gp, "set datafile separator ','\nset logscale xy\n"
                "set format y '10^{%%L}'\nset key off\n"
                "set multiplot layout 3,4 title 'Muons of %g GeV: GEANT4 (points), calomu simulate "
                "(steps); share of muons'\n", g4->energy[a]);
    for (i = 0; i < 12; i++)
        fprintf(gp, "set xlabel '%s' noenhanced\nplot '%s_histograms.csv' index %d using 2:5 with "
                "histeps lw 2 lc rgb '#D55E00', '' index %d using 2:3:4 with yerrorbars pt 7 "
                "ps 0.5 lc rgb '#0072B2'\n", observable[drawn[i]].text, base, i, i);
    fprintf(gp, "unset multiplot\n");
    finish(gp);
}

/* ---------------------------------------------------------------- all */

static void sort_all(measured *s)
{
    int p, k;
    for (p = 0; p < s->points; p++)
        for (k = 0; k < OBSERVABLES; k++)
            qsort(s->s[p][k].x, s->s[p][k].n, sizeof(double), rising);
}

static void head(FILE *f)
{
    int q;
    fprintf(f, "energy,observable,n_geant4,n_simulated");
    for (q = 0; q < QUANTILES; q++)
        fprintf(f, ",geant4_%g,simulated_%g,ratio_%g,error_%g", 100 * quantile[q],
                100 * quantile[q], 100 * quantile[q], 100 * quantile[q]);
    fprintf(f, ",ks,ks_p\n");
}

static int compare_all(measured *g4, measured *sim, const char *prefix)
{
    verdict v;
    FILE *out = create(prefix, ".csv");
    int a, b, k, shown = 0;
    memset(&v, 0, sizeof v);
    head(out);
    for (a = 0; a < g4->points; a++) {
        b = point_of(sim, g4->energy[a]);
        if (sim->s[b][0].n < 50 || g4->s[a][0].n < 50) continue;
        if (g4->energy[a] < 1500) shown = a;     /* about 1.3 TeV */
        printf("%g GeV: %zu GEANT4, %zu simulated\n", g4->energy[a], g4->s[a][0].n,
               sim->s[b][0].n);
        for (k = 0; k < OBSERVABLES; k++)
            compare(&g4->s[a][k], &sim->s[b][k], g4->energy[a], k, out, &v);
    }
    finish(out);
    if (v.pairs == 0) die("no energy in common");
    picture(prefix, g4, sim, shown, point_of(sim, g4->energy[shown]));
    pooled(&v);
    printf("%d pairs: %d medians and %d 90%% quantiles off, %d of %d pooled medians off, KS "
           "significant at 1%% for %d (%.1f%%)\n", v.pairs, v.median, v.high, v.pooled, OBSERVABLES,
           v.significant, 100.0 * v.significant / v.pairs);
    return v.median == 0 && v.high == 0 && v.pooled == 0 && v.significant <= v.pairs / 10;
}

int main(int argc, char **argv)
{
    static measured g4, sim;
    calomu *c = NULL;
    int i, good;
    if (argc < 4) die("usage: physics SIMULATED.cmu GEANT4.cmu OUT_PREFIX [GEANT4.bin ...]");
    if (calomu_open(&c, NULL) != CALOMU_OK) die("cannot start");
    read_cmu(c, argv[1], &sim);
    read_cmu(c, argv[2], &g4);
    for (i = 4; i < argc; i++) read_bin(c, argv[i], &g4);
    sort_all(&g4);
    sort_all(&sim);
    good = compare_all(&g4, &sim, argv[3]);
    printf("the bar is %s\n", good ? "passed" : "NOT passed");
    calomu_close(c);
    return good ? 0 : 1;
}
