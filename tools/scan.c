/* scan.c - `calomu scan`: how a network's energies answer to the detector (Akchurin et al. 2021) */
#include "perturb.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SCAN_LIST = 64, SCAN_ENERGIES = 256, SCAN_CHUNK = 64, SCAN_MODEL = 16,
       SCAN_TEXT = 8192, SCAN_ROW = 1024 };

typedef struct scan_list {
    double x[SCAN_LIST];
    int n;
} scan_list;

typedef struct scan_work {
    calomu *c;
    const char *model_path[SCAN_MODEL], *data_path, *out, *fit;
    const char *lists[3], *module, *part;
    calomu_model *model[SCAN_MODEL];
    calomu_data *data;
    calomu_line line;
    electronics_options o;
    scan_list list[3];               /* s_c; s_e and b, MeV */
    int paper, gentle, n_models, n_energies;
    int32_t draws, share, shares;
    double mip, energy[SCAN_ENERGIES];
    uint64_t *number, first[SCAN_ENERGIES + 1];  /* muons by energy */
    double *prediction, *noise, *fired;          /* of the muons of one energy */
    calomu_events events;
    calomu_event seen[SCAN_CHUNK];
    calomu_hit *hits;                /* SCAN_CHUNK x cells */
    size_t cells;
    char header[SCAN_TEXT];
    tool_machine machine;
    FILE *file;
    tool_progress progress;
} scan_work;

/* ---------------------------------------------------------------- the file */

static calomu_status scan_hash(const char *path, uint64_t *hash)     /* FNV-1a */
{
    unsigned char bytes[65536];
    size_t n, i;
    int bad;
    FILE *f = fopen(path, "rb");
    if (!f) return tool_fail(CALOMU_EIO, "%s: cannot be read", path);
    *hash = 0xcbf29ce484222325u;
    while ((n = fread(bytes, 1, sizeof bytes, f)) > 0)
        for (i = 0; i < n; i++) *hash = (*hash ^ bytes[i]) * 0x100000001b3u;
    bad = ferror(f);
    (void)fclose(f);
    return bad ? tool_fail(CALOMU_EIO, "%s: cannot be read", path) : CALOMU_OK;
}

static int scan_settings(const scan_work *w)
{
    return w->list[0].n * w->list[1].n * w->list[2].n;
}

static void scan_say(scan_work *w, const char *format, ...) TOOL_PRINTF(2, 3);
static void scan_say(scan_work *w, const char *format, ...)
{
    size_t n = strlen(w->header);
    va_list list;
    va_start(list, format);
    (void)vsnprintf(w->header + n, sizeof w->header - n, format, list);
    va_end(list);
}

static void scan_say_list(scan_work *w, const char *name, const scan_list *l)
{
    int i;
    scan_say(w, "# %s:", name);
    for (i = 0; i < l->n; i++) scan_say(w, "%s%.9g", i ? "," : " ", l->x[i]);
    scan_say(w, "\n");
}

static calomu_status scan_header(scan_work *w)
{
    static const char *const vine[] = { "groups", "independent", "factor", "c", "d" };
    static const char *const family[] = { "gauss", "clayton", "frank", "mixed" };
    const calomu_geometry *g = &calomu_data_describe(w->data)->geometry;
    uint64_t hash;
    int k;
    scan_say(w, "# calomu: %d.%d.%d\n", CALOMU_VERSION / 10000, CALOMU_VERSION / 100 % 100,
             CALOMU_VERSION % 100);
    for (k = 0; k <= w->n_models; k++) {
        const char *path = k < w->n_models ? w->model_path[k] : w->data_path;
        const char *slash = strrchr(path, '/');  /* a file is known by name and contents */
        if (scan_hash(path, &hash) != CALOMU_OK) return CALOMU_EIO;
        scan_say(w, "# %s: %s %016" PRIx64 "\n", k < w->n_models ? "model" : "data",
                 tool_shown(slash ? slash + 1 : path), hash);
    }
    scan_say(w, "# cells: %dx%dx%d\n# mip: %.9g\n# zero: %.9g\n# seed: %" PRIu64 "\n",
             (int)g->nz, (int)g->nx, (int)g->ny, w->mip, w->o.zero, w->o.seed);
    scan_say(w, "# vine: %s %s trees %d rho %.9g\n# module: %d,%d,%d\n# draws: %d\n",
             vine[w->o.vine], family[w->o.family], (int)w->o.trees, w->o.rho,
             (int)w->o.module[0], (int)w->o.module[1], (int)w->o.module[2], (int)w->draws);
    scan_say_list(w, "miscalibrate", &w->list[0]);
    scan_say_list(w, "noise", &w->list[1]);
    scan_say_list(w, "bias", &w->list[2]);
    scan_say(w, "# settings: %d\n# energies: %d\n", scan_settings(w), w->n_energies);
    if (w->fit) scan_say(w, "# debias: %.17g %.17g\n", w->line.intercept, w->line.slope);
    else scan_say(w, "# debias: none\n");
    if (w->shares > 1) scan_say(w, "# part: %d/%d\n", (int)w->share, (int)w->shares);
    scan_say(w, "model,draw,setting,miscalibration,noise,bias,zero,correlation,energy,half,n,mean,"
                "mean_error,sigma,median,q16,q84,fired,noise_energy\n");
    return strlen(w->header) + 1 < sizeof w->header ? CALOMU_OK
         : tool_misuse("the names and lists are too long");
}

static uint64_t scan_jobs(const scan_work *w)
{
    return (uint64_t)(w->n_models * w->draws) * (uint64_t)scan_settings(w)
         * (uint64_t)w->n_energies;
}

typedef struct scan_point {          /* what a job is: energies fastest, then settings, draws */
    int model, draw, setting, energy;
    double scale[3];                 /* as scan_work's lists */
} scan_point;

static scan_point scan_point_of(const scan_work *w, uint64_t job)
{
    const uint64_t energies = (uint64_t)w->n_energies, settings = (uint64_t)scan_settings(w);
    const uint64_t round = job / energies / settings, draws = (uint64_t)w->draws;
    scan_point p;
    int k, rest;
    p.energy = (int)(job % energies);
    p.setting = rest = (int)(job / energies % settings);
    p.draw = (int)(round % draws);
    p.model = (int)(round / draws);
    for (k = 2; k >= 0; k--) {
        p.scale[k] = w->list[k].x[rest % w->list[k].n];
        rest /= w->list[k].n;
    }
    return p;
}

/* What a line says before its results. */
static void scan_key(const scan_work *w, uint64_t job, int half, char *text)
{
    const scan_point p = scan_point_of(w, job);
    (void)snprintf(text, SCAN_ROW, "%d,%d,%d,%.9g,%.9g,%.9g,%.9g,%d,%.9g,%d,", p.model, p.draw,
                   p.setting, p.scale[0], p.scale[1], p.scale[2], w->o.zero,
                   w->o.vine > ELECTRONICS_INDEPENDENT, w->energy[p.energy], half);
}

/* Passes over what an earlier run finished: pairs of whole lines with the keys that are due. */
static calomu_status scan_resume(scan_work *w, uint64_t *job, long *end)
{
    char line[SCAN_ROW], key[SCAN_ROW], *old = calloc(1, SCAN_TEXT);
    size_t want = strlen(w->header), n;
    int half = 0, same;
    if (!old) return tool_fail(CALOMU_EMEMORY, "no memory");
    n = fread(old, 1, want, w->file);
    same = memcmp(old, w->header, n) == 0;
    free(old);
    *end = 0;
    if (n == 0 || (n < want && same)) return CALOMU_OK;
    if (!same)
        return tool_fail(CALOMU_EFORMAT, "%s is of another model, data or options: its head "
                         "differs; give another --out", w->out);
    *end = (long)want;
    while (fgets(line, sizeof line, w->file) && strchr(line, '\n')) {
        if (*job >= scan_jobs(w))
            return tool_fail(CALOMU_EFORMAT, "%s has more lines than the scan", w->out);
        scan_key(w, *job, half, key);
        if (strncmp(line, key, strlen(key)) != 0)
            return tool_fail(CALOMU_EFORMAT, "%s: the line of %s is not where it is due; give "
                             "another --out", w->out, key);
        half = !half;
        if (half) continue;
        *end = ftell(w->file);
        *job += (uint64_t)w->shares;
    }
    return ferror(w->file) ? tool_fail(CALOMU_EIO, "%s: cannot be read", w->out) : CALOMU_OK;
}

static calomu_status scan_append(scan_work *w, const char *text)
{
    if (fputs(text, w->file) < 0 || fflush(w->file) != 0 || fsync(fileno(w->file)) != 0)
        return tool_fail(CALOMU_EIO, "%s: cannot be written; run the same command again to go on",
                         w->out);
    return CALOMU_OK;
}

static calomu_status scan_begin(scan_work *w, uint64_t *job)
{
    long end = 0;
    calomu_status s;
    *job = (uint64_t)w->share - 1;
    w->file = fopen(w->out, "r+b");
    if (!w->file) w->file = fopen(w->out, "w+b");
    if (!w->file) return tool_fail(CALOMU_EIO, "%s: cannot be opened to write", w->out);
    s = scan_resume(w, job, &end);
    if (s != CALOMU_OK) return s;
    if (ftruncate(fileno(w->file), end) != 0 || fseek(w->file, end, SEEK_SET) != 0)
        return tool_fail(CALOMU_EIO, "%s: cannot be written", w->out);
    return end ? CALOMU_OK : scan_append(w, w->header);
}

/* ---------------------------------------------------------------- one line */

/* Appends the line of the muons of one half, which are sorted in place: x, then its sums. */
static void scan_line(const scan_work *w, uint64_t job, int half, double *x, size_t n, double noise,
                      double fired, char *text)
{
    double mean = 0, square = 0, sigma;
    size_t i;
    char *at;
    scan_key(w, job, half, text);
    at = text + strlen(text);
    for (i = 0; i < n; i++) mean += x[i];
    mean /= (double)n;
    for (i = 0; i < n; i++) square += (x[i] - mean) * (x[i] - mean);
    sigma = n > 1 ? sqrt(square / (double)(n - 1)) : 0;
    qsort(x, n, sizeof *x, tool_rising);
    (void)snprintf(at, SCAN_ROW - strlen(text), "%zu,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g\n", n,
                   mean, sigma / sqrt((double)n), sigma, tool_quantile(x, n, 0.5),
                   tool_quantile(x, n, 0.16), tool_quantile(x, n, 0.84), fired / (double)n,
                   noise / (double)n);
}

static double scan_sum(const calomu_hit *hit, size_t n)
{
    double sum = 0;
    size_t i;
    for (i = 0; i < n; i++) sum += (double)hit[i].energy;
    return sum;
}

static calomu_status scan_chunk(scan_work *w, const electronics *chain, calomu_model *model,
                                const uint64_t *number, size_t n, size_t at)
{
    calomu_status s = calomu_data_read(w->c, w->data, 0, number, n, &w->events);
    long i;
    int failed = 0;
    if (s != CALOMU_OK) return tool_report(w->c, s);
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1) num_threads(w->machine.threads) reduction(+ : failed)
#endif
    for (i = 0; i < (long)n; i++) {
        const calomu_event *e = &w->events.event[i];
        calomu_event *to = &w->seen[i];
        calomu_hit *hits = w->hits + (size_t)i * w->cells;
        *to = *e;
        to->hits = hits;
        to->features = NULL;
        to->n_hits = electronics_apply(chain, number[i], e, hits);
        if (to->n_hits == SIZE_MAX) {
            failed++;
            continue;
        }
        w->fired[at + (size_t)i] = (double)to->n_hits;
        w->noise[at + (size_t)i] = scan_sum(hits, to->n_hits) - scan_sum(e->hits, e->n_hits);
    }
    if (failed) return tool_fail(CALOMU_EMEMORY, "no memory");
    s = calomu_predict(w->c, model, NULL, w->seen, n, w->prediction + at, NULL);
    if (s != CALOMU_OK) return tool_report(w->c, s);
    for (i = 0; w->fit && i < (long)n; i++)
        w->prediction[at + (size_t)i] = calomu_debias(&w->line, w->prediction[at + (size_t)i]);
    return s;
}

/* All muons of the job's energy; then even numbers come first. */
static calomu_status scan_muons(scan_work *w, const electronics *chain, calomu_model *model,
                                uint64_t job, char *text)
{
    int e = (int)(job % (uint64_t)w->n_energies), half;
    const uint64_t *number = w->number + w->first[e];
    size_t n = (size_t)(w->first[e + 1] - w->first[e]), at, i;
    double *x = w->prediction + n;
    calomu_status s = CALOMU_OK;
    for (at = 0; at < n && s == CALOMU_OK && !tool_stop; at += SCAN_CHUNK)
        s = scan_chunk(w, chain, model, number + at, n - at < SCAN_CHUNK ? n - at : SCAN_CHUNK,
                       at);
    if (s != CALOMU_OK || tool_stop) return s;
    for (half = 0; half < 2; half++) {
        double noise = 0, fired = 0;
        size_t m = 0;
        for (i = 0; i < n; i++) {
            if ((int)(number[i] & 1) != half) continue;
            x[m++] = w->prediction[i];
            noise += w->noise[i];
            fired += w->fired[i];
        }
        scan_line(w, job, half, x, m, noise, fired, text + strlen(text));
    }
    return s;
}

/* The electronics of a point: another for each setting and draw. */
static calomu_status scan_chain(scan_work *w, const scan_point *p, electronics **chain)
{
    w->o.setting = (uint32_t)p->setting;
    w->o.draw = (uint32_t)p->draw;
    w->o.miscalibration = p->scale[0];
    w->o.noise = p->scale[1];
    w->o.bias = p->scale[2];
    electronics_free(*chain);
    *chain = NULL;
    return perturb_electronics(&w->o, &calomu_data_describe(w->data)->geometry, chain);
}

static calomu_status scan_loop(scan_work *w, uint64_t job)
{
    uint64_t jobs = scan_jobs(w), group = UINT64_MAX;
    electronics *chain = NULL;
    char text[2 * SCAN_ROW];
    calomu_status s = CALOMU_OK;
    tool_progress_begin(&w->progress, "scan", "points", jobs > job ? (jobs - job - 1)
                        / (uint64_t)w->shares + 1 : 0);
    for (; job < jobs && s == CALOMU_OK && !tool_stop; job += (uint64_t)w->shares) {
        const scan_point p = scan_point_of(w, job);
        if (job / (uint64_t)w->n_energies != group) s = scan_chain(w, &p, &chain);
        group = job / (uint64_t)w->n_energies;
        text[0] = 0;
        if (s == CALOMU_OK) s = scan_muons(w, chain, w->model[p.model], job, text);
        if (s == CALOMU_OK && !tool_stop) s = scan_append(w, text);
        if (!tool_stop) tool_progress_at(&w->progress, w->progress.done + 1, NULL);
    }
    tool_progress_end(&w->progress);
    electronics_free(chain);
    return s;
}

/* ---------------------------------------------------------------- setting up */

/* Energies rising, muons of each in the order of their numbers. */
static calomu_status scan_sort(scan_work *w, const double *truth, uint64_t n)
{
    uint64_t i, at = 0;
    int k = 0, e;
    for (i = 0; i < n; i++) {
        for (k = 0; k < w->n_energies && w->energy[k] < truth[i]; k++) continue;
        if (k < w->n_energies && !(w->energy[k] > truth[i])) continue;
        if (w->n_energies == SCAN_ENERGIES || !(truth[i] > 0))
            return tool_fail(CALOMU_EFORMAT, "%s: muon %" PRIu64 ": a scan wants muons of at most "
                             "%d known energies", w->data_path, i, (int)SCAN_ENERGIES);
        memmove(w->energy + k + 1, w->energy + k,
                (size_t)(w->n_energies++ - k) * sizeof *w->energy);
        w->energy[k] = truth[i];
    }
    for (e = 0; e < w->n_energies; e++) {
        int odd[2] = { 0, 0 };
        w->first[e] = at;
        for (i = 0; i < n; i++) {
            if (truth[i] < w->energy[e] || truth[i] > w->energy[e]) continue;
            w->number[at++] = i;
            odd[i & 1] = 1;
        }
        if (!odd[0] || !odd[1])
            return tool_fail(CALOMU_EFORMAT, "%s: energy %g GeV has not both even and odd muons, "
                             "the two halves", w->data_path, w->energy[e]);
    }
    w->first[e] = at;
    return e ? CALOMU_OK : tool_fail(CALOMU_EFORMAT, "%s has no muons", w->data_path);
}

static calomu_status scan_energies(scan_work *w)
{
    uint64_t n = calomu_data_describe(w->data)->n_events, i, k;
    double *truth = malloc((size_t)(n + 1) * sizeof *truth);
    calomu_status s = CALOMU_OK;
    w->number = malloc((size_t)(n + 1) * sizeof *w->number);
    w->prediction = malloc(2 * (size_t)(n + 1) * sizeof *w->prediction);
    w->noise = malloc((size_t)(n + 1) * sizeof *w->noise);
    w->fired = malloc((size_t)(n + 1) * sizeof *w->fired);
    w->hits = malloc(w->cells * SCAN_CHUNK * sizeof *w->hits);
    if (!truth || !w->number || !w->prediction || !w->noise || !w->fired || !w->hits)
        s = tool_fail(CALOMU_EMEMORY, "no memory");
    for (i = 0; i < n && s == CALOMU_OK; i += SCAN_CHUNK) {
        size_t m = n - i < SCAN_CHUNK ? (size_t)(n - i) : SCAN_CHUNK;
        s = calomu_data_read(w->c, w->data, i, NULL, m, &w->events);
        if (s != CALOMU_OK) (void)tool_report(w->c, s);
        for (k = 0; k < m && s == CALOMU_OK; k++) truth[i + k] = (double)w->events.event[k].energy;
    }
    if (s == CALOMU_OK) s = scan_sort(w, truth, n);
    free(truth);
    return s;
}

static calomu_status scan_open(scan_work *w)
{
    const calomu_geometry *g;
    calomu_eval_options options = calomu_eval_options_default();
    calomu_status s = calomu_data_open(w->c, w->data_path, &w->data);
    int k;
    for (k = 0; k < w->n_models && s == CALOMU_OK; k++)
        s = calomu_model_load(w->c, w->model_path[k], &w->model[k]);
    if (s != CALOMU_OK) return tool_report(w->c, s);
    g = &calomu_data_describe(w->data)->geometry;
    for (k = 0; k < w->n_models && s == CALOMU_OK; k++)
        s = calomu_geometry_compare(w->c, g, &calomu_model_describe(w->model[k])
                                    ->architecture.geometry);
    if (s != CALOMU_OK) return tool_report(w->c, s);
    w->cells = (size_t)g->nz * (size_t)g->nx * (size_t)g->ny;
    s = scan_energies(w);
    if (s == CALOMU_OK && w->fit) s = tool_debias_line(w->c, w->fit, &options, &w->line);
    return s == CALOMU_OK ? scan_header(w) : s;
}

static calomu_status scan_run(scan_work *w)
{
    uint64_t job = 0;
    electronics *chain = NULL;
    calomu_status s = scan_open(w);
    if (s == CALOMU_OK) {            /* sub-modules are looked at before anything is written */
        s = perturb_electronics(&w->o, &calomu_data_describe(w->data)->geometry, &chain);
        electronics_free(chain);
    }
    if (s == CALOMU_OK) s = scan_begin(w, &job);
    if (s == CALOMU_OK) fputs(w->header, stderr);
    if (s == CALOMU_OK) s = scan_loop(w, job);
    if (w->file && fclose(w->file) != 0 && s == CALOMU_OK)
        s = tool_fail(CALOMU_EIO, "%s: cannot be written", w->out);
    if (s == CALOMU_OK && tool_stop)
        s = tool_fail(CALOMU_STOPPED, "stopped; the same command goes on");
    return s;
}

static void scan_close(scan_work *w)
{
    int k;
    for (k = 0; k < w->n_models; k++) calomu_model_free(w->model[k]);
    calomu_events_free(&w->events);
    calomu_data_close(w->data);
    free(w->number);
    free(w->prediction);
    free(w->noise);
    free(w->fired);
    free(w->hits);
    calomu_close(w->c);
    free(w);
}

/* Table 1 of the paper, in units of its 0.6 MeV; 0.1 MeV stands there twice. */
static calomu_status scan_lists(scan_work *w)
{
    static const double miscalibrate[] = { 0, 0.15, 0.2, 0.25, 0.3 }, bias[] = { 0, -0.25, 0.25 };
    static const double noise[] = { 0, 1.0 / 6, 1.0 / 6, 0.5, 2.0 / 3, 5.0 / 6, 5.0 / 3, 2.5 };
    static const double gentle[] = { 0, 1, 2, 4, 6, 8, 9, 10 };
    static const char *const name[] = { "miscalibrate", "noise", "bias" };
    int i, k, usual = w->paper || w->gentle;
    double unit = w->gentle ? 10 : w->mip;
    for (i = 0; i < 3; i++) w->list[i].n = 1;
    if (usual) {
        for (i = 0; i < 5; i++) w->list[0].x[i] = miscalibrate[i];
        for (i = 0; i < 8; i++) w->list[1].x[i] = w->gentle ? gentle[i] : noise[i] * unit;
        for (i = 0; i < 3; i++) w->list[2].x[i] = bias[i] * unit;
        w->list[0].n = 5;
        w->list[1].n = 8;
        w->list[2].n = 3;
        if (w->o.zero < 0) w->o.zero = unit;
    }
    if (w->o.zero < 0) w->o.zero = 0;
    for (k = 0; k < 3; k++) {
        if (!w->lists[k]) continue;
        w->list[k].n = tool_numbers(w->lists[k], ",", w->list[k].x, SCAN_LIST);
        if (w->list[k].n < 1)
            return tool_misuse("--%s %s: numbers a,b,... are wanted, at most %d", name[k],
                               w->lists[k], (int)SCAN_LIST);
        for (i = 0; i < w->list[k].n; i++)
            if ((k < 2 && w->list[k].x[i] < 0) || fabs(w->list[k].x[i]) > (k ? 1e6 : 1))
                return tool_misuse("--%s: %g is outside the allowed range", name[k],
                                   w->list[k].x[i]);
    }
    if (!usual && !w->lists[0] && !w->lists[1] && !w->lists[2])
        return tool_misuse("what to scan? --paper, --gentle, or --miscalibrate, --noise, --bias");
    return w->paper && w->gentle ? tool_misuse("give --paper or --gentle, not both") : CALOMU_OK;
}

static calomu_status scan_settle(scan_work *w)
{
    double x[2];
    char *comma, *names = (char *)(uintptr_t)w->model_path[0];
    calomu_status s = scan_lists(w);
    w->share = w->shares = 1;
    if (s == CALOMU_OK && w->part) {
        if (tool_numbers(w->part, "/", x, 2) != 2 || !(x[0] >= 1 && x[0] <= x[1] && x[1] <= 1e6)
            || floor(x[0]) < x[0] || floor(x[1]) < x[1])
            return tool_misuse("--part %s: k/n with k from 1 to n is wanted", w->part);
        w->share = (int32_t)x[0];
        w->shares = (int32_t)x[1];
    }
    for (w->n_models = 1; (comma = strchr(names, ',')) != NULL; w->n_models++) {
        if (w->n_models == SCAN_MODEL) return tool_misuse("--model: at most %d", (int)SCAN_MODEL);
        *comma = 0;
        w->model_path[w->n_models] = names = comma + 1;
    }
    return s == CALOMU_OK ? perturb_module(w->module, &w->o) : s;
}

static void scan_options(scan_work *w, tool_option *to)
{
    const tool_option options[] = {
        { .name = "model", .type = TOOL_STRING, .target = &w->model_path[0], .value = "M,...",
          .help = "network or ensemble, or several", .needed = 1 },
        { .name = "data", .type = TOOL_STRING, .target = &w->data_path, .value = "FILE.cmu",
          .file = TOOL_READS, .help = "unperturbed muons of fixed energies", .needed = 1 },
        { .name = "out", .type = TOOL_STRING, .target = &w->out, .value = "SCAN.csv",
          .file = TOOL_REPLACES, .help = "table; one that is begun goes on", .needed = 1 },
        { .name = "paper", .type = TOOL_FLAG, .target = &w->paper,
          .help = "the 120 settings of Table 1 in units of --mip" },
        { .name = "gentle", .type = TOOL_FLAG, .target = &w->gentle,
          .help = "120 settings with noise up to 10 MeV and a threshold of 10 MeV" },
        { .name = "mip", .type = TOOL_DOUBLE, .target = &w->mip, .value = "MEV",
          .help = "what --paper takes as 1 MIP (MeV)", .low = 1e-6, .high = 1e6 },
        { .name = "miscalibrate", .type = TOOL_STRING, .target = &w->lists[0], .value = "A,B,...",
          .help = "scales of the calibration factors" },
        { .name = "noise", .type = TOOL_STRING, .target = &w->lists[1], .value = "MEV,...",
          .help = "scales of the noise (MeV)" },
        { .name = "bias", .type = TOOL_STRING, .target = &w->lists[2], .value = "MEV,...",
          .help = "offsets of all cells (MeV)" },
        { .name = "zero", .type = TOOL_DOUBLE, .target = &w->o.zero, .value = "MEV",
          .help = "cells below are dropped (MeV)", .preset = "1 MIP, 10 MeV, or 0", .low = 0,
          .high = 1e6 },
        { .name = "draws", .type = TOOL_INT, .target = &w->draws, .value = "N",
          .help = "draws of the calibration factors", .low = 1, .high = 10000 },
        PERTURB_VINE_OPTIONS(w->o, &w->module),
        { .name = "seed", .type = TOOL_U64, .target = &w->o.seed, .value = "S",
          .help = "of all random numbers" },
        { .name = "fit", .type = TOOL_STRING, .target = &w->fit, .value = "VALID.csv",
          .file = TOOL_READS, .help = "nominal debiasing: unperturbed predictions, as in predict" },
        { .name = "part", .type = TOOL_STRING, .target = &w->part, .value = "K/N",
          .help = "every N-th point from the K-th on; --join puts them together" },
        TOOL_OPTIONS_MACHINE(w->machine),
        { .name = NULL }
    };
    memcpy(to, options, sizeof options);
}

/* ---------------------------------------------------------------- joining parts */

enum { SCAN_PARTS = 1000 };

/* Copies the head of part k of n without its own line, or compares it with the first part's. */
static calomu_status scan_join_head(FILE *f, const char *path, int k, int n, char *head,
                                    tool_writer *out)
{
    char line[SCAN_TEXT], part[64], all[SCAN_TEXT] = "";
    int found = 0;
    (void)snprintf(part, sizeof part, "# part: %d/%d\n", k + 1, n);
    while (fgets(line, sizeof line, f) && strlen(all) + strlen(line) < sizeof all) {
        if (strcmp(line, part) == 0) found = 1;
        else strcat(all, line);
        if (line[0] != '#') break;
    }
    if (!found)
        return tool_fail(CALOMU_EFORMAT, "%s is not part %d of %d: give all parts in their order",
                         path, k + 1, n);
    if (k == 0) {
        strcpy(head, all);
        tool_write_text(out, head);
    }
    return strcmp(head, all) == 0 ? CALOMU_OK
         : tool_fail(CALOMU_EFORMAT, "%s is of another model, data or options", path);
}

static double scan_join_number(const char *head, const char *key)
{
    const char *at = strstr(head, key);
    double x = 0;
    return at && calomu_parse(at + strlen(key), &x) ? x : 0;
}

/* Two lines from each part in turn, until all points of the head are there. */
static calomu_status scan_join_rows(FILE **f, const char **path, int n, const char *head,
                                    tool_writer *out)
{
    char line[SCAN_ROW];
    const char *at = head;
    double models = 0, points, i;
    int half;
    while ((at = strstr(at, "# model: ")) != NULL) {
        models++;
        at++;
    }
    points = models * scan_join_number(head, "# draws: ")
           * scan_join_number(head, "# settings: ") * scan_join_number(head, "# energies: ");
    for (i = 0; i < points; i++) {
        int k = (int)fmod(i, n);
        for (half = 0; half < 2; half++) {
            if (!fgets(line, sizeof line, f[k]) || !strchr(line, '\n'))
                return tool_fail(CALOMU_EFORMAT, "%s is not finished: run its scan again",
                                 path[k]);
            tool_write_text(out, line);
        }
    }
    return CALOMU_OK;
}

static calomu_status scan_join_files(const char **path, int n, const char *to)
{
    FILE *f[SCAN_PARTS] = { NULL };
    char head[SCAN_TEXT] = "";
    tool_writer *out = NULL;
    calomu *c = NULL;
    int k;
    calomu_status s = tool_open(&c, 1);
    if (s == CALOMU_OK) s = tool_writer_open(c, to, &out);
    for (k = 0; k < n && s == CALOMU_OK; k++) {
        f[k] = fopen(path[k], "rb");
        s = f[k] ? scan_join_head(f[k], path[k], k, n, head, out)
                 : tool_fail(CALOMU_EIO, "%s: cannot be read", path[k]);
    }
    if (s == CALOMU_OK) s = scan_join_rows(f, path, n, head, out);
    for (k = 0; k < n; k++) if (f[k]) (void)fclose(f[k]);
    if (s == CALOMU_OK) s = tool_writer_close(out);
    else tool_writer_abandon(out);
    calomu_close(c);
    return s;
}

static int scan_join(int argc, char **argv)
{
    const char *part[SCAN_PARTS], *out = NULL;
    int n = 0, code;
    tool_operand operands[] = { { .name = "PART.csv", .target = part, .most = SCAN_PARTS,
                                  .count = &n }, { .name = NULL } };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &out, .value = "SCAN.csv",
          .file = TOOL_WRITES, .help = "table to write", .needed = 1 },
        { .name = NULL }
    };
    tool_usage usage = { .verb = "scan", .program = "calomu scan --join", .operands = operands,
                         .options = options, .purpose = "Puts the parts 1/N to N/N together." };
    code = tool_parse(&usage, argc, argv);
    return code >= 0 ? code : (int)scan_join_files(part, n, out);
}

int verb_scan(int argc, char **argv)
{
    tool_option options[32];
    tool_usage usage = {
        .verb = "scan", .options = options,
        .purpose = "Predicts muons behind imperfect electronics, setting by setting: mean and "
                   "spread at each energy.",
        .notes = "Stopped or killed, the same command goes on where it was and ends with the same "
                 "bytes.\n`calomu scan-fit` fits the table."
    };
    scan_work *w;
    int code;
    if (argc > 1 && strcmp(argv[1], "--join") == 0) return scan_join(argc - 1, argv + 1);
    w = calloc(1, sizeof *w);
    if (!w) return (int)tool_fail(CALOMU_EMEMORY, "no memory");
    w->o = (electronics_options)PERTURB_DEFAULTS;
    w->o.vine = ELECTRONICS_INDEPENDENT;
    w->o.zero = -1;
    w->mip = 42;
    w->draws = 1;
    w->machine.device = "cpu";
    scan_options(w, options);
    code = tool_parse(&usage, argc, argv);
    if (code < 0) {
        code = (int)scan_settle(w);
        if (w->machine.threads < 1) w->machine.threads = tool_threads_default();
        if (code == CALOMU_OK) code = (int)tool_threads_start((int)w->machine.threads);
        if (code == CALOMU_OK) code = (int)tool_open_on(&w->c, &w->machine, 0);
        tool_signals_catch();
        if (code == CALOMU_OK) code = (int)scan_run(w);
    }
    scan_close(w);
    if (code == CALOMU_STOPPED) tool_signals_obey();
    return code;
}
