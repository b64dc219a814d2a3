/* scan_fit.c - lines of a scan to responses, straight lines, and calibrations after the model */
#include "scan_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SCAN_MODEL, SCAN_DRAW, SCAN_SETTING, SCAN_MISCALIBRATION, SCAN_NOISE, SCAN_BIAS, SCAN_ZERO,
       SCAN_CORRELATION, SCAN_ENERGY, SCAN_HALF, SCAN_N, SCAN_MEAN, SCAN_ERROR, SCAN_SIGMA,
       SCAN_FIRED, SCAN_NOISE_ENERGY, SCAN_FIELDS };

static const tool_column scan_columns[SCAN_FIELDS] = {
    { "model", TOOL_CELL_TEXT, 0 }, { "draw", TOOL_CELL_NUMBER, 0 },
    { "setting", TOOL_CELL_NUMBER, 0 }, { "miscalibration", TOOL_CELL_NUMBER, 0 },
    { "noise", TOOL_CELL_NUMBER, 0 }, { "bias", TOOL_CELL_NUMBER, 0 },
    { "zero", TOOL_CELL_NUMBER, 0 }, { "correlation", TOOL_CELL_NUMBER, 0 },
    { "energy", TOOL_CELL_NUMBER, 0 }, { "half", TOOL_CELL_NUMBER, 0 },
    { "n", TOOL_CELL_NUMBER, 0 }, { "mean", TOOL_CELL_NUMBER, 0 },
    { "mean_error", TOOL_CELL_MAYBE, 0 }, { "sigma", TOOL_CELL_MAYBE, 0 },
    { "fired", TOOL_CELL_NUMBER, 0 }, { "noise_energy", TOOL_CELL_NUMBER, 0 }
};

void scan_empty_cell(double s, double offset, double zero, double *fires, double *survives)
{
    double t = s > 0 ? (zero - offset) / s : offset >= zero ? -1 : 1;
    t = t < -1 ? -1 : t > 1 ? 1 : t;
    *fires = 0.5 - (3 * t - t * t * t) / 4;
    *survives = 3 * s / 16 * (1 - t * t) * (1 - t * t) + offset * *fires;
}

/* ---------------------------------------------------------------- lines */

static calomu_status scan_model(const tool_csv *csv, scan_set *set, int *model)
{
    const char *name = tool_csv_text(csv, SCAN_MODEL);
    int i;
    for (i = 0; i < set->n_models && strcmp(set->model[i], name) != 0; i++) continue;
    *model = i;
    if (i < set->n_models) return CALOMU_OK;
    if (!*name) return tool_csv_fail(csv, CALOMU_EFORMAT, "column 'model' is empty");
    if (i == SCAN_MODELS)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "more than %d models", (int)SCAN_MODELS);
    set->model[i] = strdup(name);
    if (!set->model[i]) return tool_fail(CALOMU_EMEMORY, "%s: no memory", set->path);
    set->n_models++;
    return CALOMU_OK;
}

static calomu_status scan_whole(const tool_csv *csv, int column, const double *value,
                                uint64_t low, uint64_t high, int *out)
{
    uint64_t n = 0;
    calomu_status s = tool_csv_whole(csv, column, value[column], low, high, &n);
    *out = (int)n;
    return s;
}

/* What no scan writes. */
static calomu_status scan_check(const tool_csv *csv, const double *value)
{
    static const int positive[] = { SCAN_MISCALIBRATION, SCAN_NOISE, SCAN_ZERO, SCAN_SIGMA,
                                    SCAN_ERROR, SCAN_FIRED };
    size_t i;
    int k;
    for (k = SCAN_DRAW; k < SCAN_FIELDS; k++)
        if (isinf(value[k]) || (isnan(value[k]) && k != SCAN_ERROR && k != SCAN_SIGMA))
            return tool_csv_fail(csv, CALOMU_EFORMAT, "column '%s': the number is not finite",
                                 scan_columns[k].name);
    for (i = 0; i < sizeof positive / sizeof *positive; i++)
        if (value[positive[i]] < 0)
            return tool_csv_fail(csv, CALOMU_EFORMAT, "column '%s': %g is below 0",
                                 scan_columns[positive[i]].name, value[positive[i]]);
    if (!(value[SCAN_ENERGY] > 0))
        return tool_csv_fail(csv, CALOMU_EFORMAT, "column 'energy': %g is not above 0",
                             value[SCAN_ENERGY]);
    return CALOMU_OK;
}

static calomu_status scan_take(const tool_csv *csv, scan_set *set, const double *v, scan_row *r)
{
    int n = 0;
    calomu_status s = scan_check(csv, v);
    memset(r, 0, sizeof *r);
    if (s == CALOMU_OK) s = scan_model(csv, set, &r->model);
    if (s == CALOMU_OK) s = scan_whole(csv, SCAN_DRAW, v, 0, 1000000000, &r->draw);
    if (s == CALOMU_OK) s = scan_whole(csv, SCAN_SETTING, v, 0, 1000000000, &r->setting);
    if (s == CALOMU_OK) s = scan_whole(csv, SCAN_CORRELATION, v, 0, 1, &r->correlation);
    if (s == CALOMU_OK) s = scan_whole(csv, SCAN_HALF, v, 0, 1, &r->half);
    if (s == CALOMU_OK) s = scan_whole(csv, SCAN_N, v, 1, 1000000000, &n);
    r->miscalibration = v[SCAN_MISCALIBRATION];
    r->noise = v[SCAN_NOISE];
    r->bias = v[SCAN_BIAS];
    r->zero = v[SCAN_ZERO];
    r->energy = v[SCAN_ENERGY];
    r->n = n;
    r->mean = v[SCAN_MEAN];
    r->error = v[SCAN_ERROR];
    r->sigma = v[SCAN_SIGMA];
    r->fired = v[SCAN_FIRED];
    r->noise_energy = v[SCAN_NOISE_ENERGY];
    return s;
}

static calomu_status scan_lines(tool_csv *csv, scan_set *set)
{
    double value[SCAN_FIELDS];
    size_t room = 0, line = 0;
    int more = 1;
    for (;; line++) {
        calomu_status s = tool_csv_next(csv, value, &more);
        if (s != CALOMU_OK || !more) return s;
        if (set->n_rows == room) {
            scan_row *row = realloc(set->row, (room = 2 * room + 256) * sizeof *row);
            if (!row) return tool_fail(CALOMU_EMEMORY, "%s: no memory", set->path);
            set->row = row;
        }
        s = scan_take(csv, set, value, &set->row[set->n_rows]);
        if (s != CALOMU_OK) return s;
        set->row[set->n_rows++].line = tool_csv_first(csv) + line;
    }
}

/* The grid's cells, from the comment `# cells: 50x32x32`, or the product itself. */
static double scan_cells(const char *path)
{
    char line[512];
    double cells = (double)NAN, x;
    FILE *file = strcmp(path, "-") == 0 ? NULL : fopen(path, "r");
    while (file && fgets(line, sizeof line, file) && line[0] == '#') {
        const char *at = line + 9;
        if (strncmp(line, "# cells: ", 9) != 0) continue;
        for (cells = 1; (at = calomu_parse(at, &x)) != NULL; at++) {
            cells *= x;
            if (*at != 'x' && *at != ',') break;
        }
    }
    if (file) (void)fclose(file);
    return cells >= 1 ? cells : (double)NAN;
}

/* ---------------------------------------------------------------- order */

static int scan_order_point(const scan_row *a, const scan_row *b)
{
    if (a->model != b->model) return a->model < b->model ? -1 : 1;
    if (a->draw != b->draw) return a->draw < b->draw ? -1 : 1;
    if (a->setting != b->setting) return a->setting < b->setting ? -1 : 1;
    return (a->correlation > b->correlation) - (a->correlation < b->correlation);
}

static int scan_order(const void *left, const void *right)
{
    const scan_row *a = left, *b = right;
    const int order = scan_order_point(a, b);
    if (order) return order;
    if (a->energy != b->energy) return a->energy < b->energy ? -1 : 1;
    if (a->half != b->half) return a->half < b->half ? -1 : 1;
    return (a->line > b->line) - (a->line < b->line);
}

static int scan_equal(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static int scan_same_setting(const scan_row *a, const scan_row *b)
{
    return a->miscalibration == b->miscalibration && a->noise == b->noise && a->bias == b->bias
        && a->zero == b->zero;
}

static int scan_same_values(const scan_row *a, const scan_row *b)
{
    return scan_same_setting(a, b) && a->n == b->n && a->mean == b->mean
        && scan_equal(a->error, b->error) && scan_equal(a->sigma, b->sigma)
        && a->fired == b->fired && a->noise_energy == b->noise_energy;
}

/* Equal lines are counted once: parts may have been joined by hand.  Others are refused. */
static calomu_status scan_settle(scan_set *set)
{
    size_t i, kept = 0;
    qsort(set->row, set->n_rows, sizeof *set->row, scan_order);
    for (i = 0; i < set->n_rows; i++) {
        const scan_row *r = &set->row[i], *p = kept ? &set->row[kept - 1] : NULL;
        const int point = p && scan_order_point(p, r) == 0;
        if (point && !scan_same_setting(p, r))
            return tool_fail(CALOMU_EFORMAT, "%s:%zu: columns 'miscalibration' to 'zero': setting"
                             " %d has other scales in line %zu", set->path, r->line, r->setting,
                             p->line);
        if (point && p->energy == r->energy && p->half == r->half) {
            if (!scan_same_values(p, r))
                return tool_fail(CALOMU_EFORMAT, "%s:%zu: draw %d, setting %d, %g GeV, half %d are"
                                 " in line %zu too, with other numbers", set->path, r->line,
                                 r->draw, r->setting, r->energy, r->half, p->line);
            set->twice++;
            continue;
        }
        set->row[kept++] = *r;
    }
    set->n_rows = kept;
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- responses */

static void scan_join(scan_response *r)
{
    double square = 0, error = 0;
    int h;
    for (h = 0; h < 2; h++) {
        const scan_row *x = r->half[h];
        if (!x) continue;
        r->n += x->n;
        r->mean += x->n * x->mean;
        r->fired += x->n * x->fired;
        r->noise_energy += x->n * x->noise_energy;
        error += x->n * x->error * (x->n * x->error);
    }
    r->mean /= r->n;
    r->fired /= r->n;
    r->noise_energy /= r->n;
    r->error = sqrt(error) / r->n;
    for (h = 0; h < 2; h++) {
        const scan_row *x = r->half[h];
        if (x) square += x->n * (x->sigma * x->sigma + (x->mean - r->mean) * (x->mean - r->mean));
    }
    r->sigma = sqrt(square / r->n);
}

static calomu_status scan_group(scan_set *set)
{
    size_t i;
    set->response = calloc(set->n_rows, sizeof *set->response);
    set->point = calloc(set->n_rows, sizeof *set->point);
    if (!set->response || !set->point)
        return tool_fail(CALOMU_EMEMORY, "%s: no memory", set->path);
    for (i = 0; i < set->n_rows; i++) {
        const scan_row *r = &set->row[i];
        const int same = i > 0 && scan_order_point(r - 1, r) == 0;
        scan_point *p = &set->point[set->n_points - (same ? 1 : 0)];
        if (!same) {
            set->n_points++;
            p->model = r->model;
            p->draw = r->draw;
            p->setting = r->setting;
            p->correlation = r->correlation;
            p->miscalibration = r->miscalibration;
            p->noise = r->noise;
            p->bias = r->bias;
            p->zero = r->zero;
            p->first = (int)set->n_responses;
            scan_empty_cell(p->noise, p->bias, p->zero, &p->fires, &p->survives);
        }
        if (!same || (r - 1)->energy != r->energy) {
            set->response[set->n_responses++].energy = r->energy;
            p->n++;
        }
        set->response[set->n_responses - 1].half[r->half] = r;
    }
    for (i = 0; i < set->n_responses; i++) scan_join(&set->response[i]);
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- straight lines */

typedef struct scan_sample {         /* of a fit; energies in units of the largest: condition */
    double *x, *y, *weight;
    double unit;
    size_t n;
} scan_sample;

/* Responses without an error (one muon, or all predictions equal) say nothing of their weight. */
static void scan_sample_take(scan_sample *s, const scan_set *set, const scan_point *p, int half,
                             int columns)
{
    int i, k;
    s->n = 0;
    s->unit = set->response[p->first + p->n - 1].energy;
    for (i = p->first; i < p->first + p->n; i++) {
        const scan_response *r = &set->response[i];
        const scan_row *h = half >= 0 ? r->half[half] : NULL;
        const double error = half < 0 ? r->error : h ? h->error : 0;
        double power = 1;
        if (!(error > 0)) continue;
        for (k = 0; k < columns; k++, power *= r->energy / s->unit)
            s->x[s->n * (size_t)columns + (size_t)k] = power;
        s->y[s->n] = half < 0 ? r->mean : h->mean;
        s->weight[s->n++] = 1 / (error * error);
    }
}

static void scan_residual(const scan_set *set, scan_point *p)
{
    int i;
    for (i = p->first; i < p->first + p->n; i++) {
        const scan_response *r = &set->response[i];
        const double x = (r->mean - p->intercept - p->slope * r->energy) / r->error;
        if (!(r->error > 0) || !(fabs(x) >= fabs(p->residual))) continue;
        p->residual = x;
        p->residual_energy = r->energy;
    }
}

static void scan_calibrate(const scan_set *set, scan_point *p)
{
    const double *line = p->calibration;
    int i;
    for (i = p->first; i < p->first + p->n; i++) {
        scan_response *r = &set->response[i];
        const scan_row *h = r->half[1];
        r->before = h ? h->mean / r->energy - 1 : (double)NAN;
        r->wide = h ? h->sigma / r->energy : (double)NAN;
        r->after = h ? (h->mean - line[0]) / line[1] / r->energy - 1 : (double)NAN;
        r->calibrated = line[1] > 0 ? r->wide / line[1] : (double)NAN;
        if (!(line[1] > 0)) r->after = (double)NAN;
    }
}

static lsq_result scan_line(const scan_set *set, scan_sample *s, scan_point *p)
{
    lsq_fit fit;
    lsq_result result;
    scan_sample_take(s, set, p, -1, 2);
    p->used = (int)s->n;
    p->quadratic_t = p->calibration[0] = p->calibration[1] = (double)NAN;
    result = lsq_solve(s->x, s->y, s->weight, s->n, 2, 1, &fit);
    if (result == LSQ_OK) {
        p->fitted = 1;
        p->intercept = fit.coefficient[0];
        p->intercept_error = fit.error[0];
        p->slope = fit.coefficient[1] / s->unit;
        p->slope_error = fit.error[1] / s->unit;
        p->covariance = fit.covariance[0][1] / s->unit;
        p->chi2 = fit.rss;
        scan_residual(set, p);
        scan_sample_take(s, set, p, -1, 3);
        if (lsq_solve(s->x, s->y, s->weight, s->n, 3, 1, &fit) == LSQ_OK)
            p->quadratic_t = fit.t[2];
        scan_sample_take(s, set, p, 0, 2);
        if (lsq_solve(s->x, s->y, s->weight, s->n, 2, 1, &fit) == LSQ_OK) {
            p->calibration[0] = fit.coefficient[0];
            p->calibration[1] = fit.coefficient[1] / s->unit;
        }
    }
    scan_calibrate(set, p);
    return result;
}

static calomu_status scan_all_lines(scan_set *set)
{
    scan_sample s;
    size_t i, most = 1;
    int k;
    for (i = 0; i < set->n_points; i++)
        if ((size_t)set->point[i].n > most) most = (size_t)set->point[i].n;
    s.x = malloc(most * 5 * sizeof *s.x);
    if (!s.x) return tool_fail(CALOMU_EMEMORY, "%s: no memory", set->path);
    s.y = s.x + 3 * most;
    s.weight = s.y + most;
    for (i = 0; i < set->n_points; i++) {
        scan_point *p = &set->point[i];
        for (k = p->first; k < p->first + p->n; k++) {
            p->noise_energy += set->response[k].noise_energy / p->n;
            p->fired += set->response[k].fired / p->n;
        }
        if (scan_line(set, &s, p) != LSQ_OK)
            tool_notice("%s: draw %d, setting %d: no line: %d of %d energies have a mean with an"
                        " error", set->path, p->draw, p->setting, p->used, p->n);
    }
    free(s.x);
    return CALOMU_OK;
}

/* A grid that is not full: which it should be follows from the largest of each. */
static void scan_unfinished(scan_set *set)
{
    size_t i, full = 0, halves = 0;
    for (i = 0; i < set->n_points; i++)
        if ((size_t)set->point[i].n > full) full = (size_t)set->point[i].n;
    for (i = 0; i < set->n_points; i++) set->missing += full - (size_t)set->point[i].n;
    for (i = 0; i < set->n_responses; i++)
        if (!set->response[i].half[0] || !set->response[i].half[1]) halves++;
    if (set->twice) tool_notice("%s: %zu lines are there twice", set->path, set->twice);
    if (set->missing || halves)
        tool_notice("%s: not finished: %zu energies and %zu halves of others are missing; what is"
                    " there is fitted", set->path, set->missing, halves);
}

calomu_status scan_read(const char *path, scan_set *set)
{
    tool_csv *csv = NULL;
    calomu_status s;
    memset(set, 0, sizeof *set);
    set->path = path;
    set->cells = scan_cells(path);
    s = tool_csv_open(path, scan_columns, SCAN_FIELDS, &csv);
    if (s == CALOMU_OK) s = scan_lines(csv, set);
    tool_csv_close(csv);
    if (s == CALOMU_OK && set->n_rows == 0)
        s = tool_fail(CALOMU_EFORMAT, "%s: no setting is finished yet", path);
    if (s == CALOMU_OK) s = scan_settle(set);
    if (s == CALOMU_OK) s = scan_group(set);
    if (s == CALOMU_OK) s = scan_all_lines(set);
    if (s == CALOMU_OK) scan_unfinished(set);
    return s;
}

void scan_free(scan_set *set)
{
    int i;
    for (i = 0; i < set->n_models; i++) free(set->model[i]);
    free(set->row);
    free(set->response);
    free(set->point);
}
