/* evaluate.c - calomu evaluate: debiasing, resolution and mean improvement of predictions

   Secs. 4.1 and 4.2 of the paper: a straight line is fitted to the mean prediction against the
   true energy, its inverse is applied to the predictions, and the relative resolution of each bin
   is set against the tracker's and combined with it; errors by resampling.  */
#include "calomu_tool.h"
#include "plot.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EVALUATE_BINS = 100000, EVALUATE_OPTIONS = 20 };

/* Columns of a file of predictions with a known true energy. */
typedef struct evaluate_set {
    const char *path;
    double *truth, *prediction;      /* GeV */
    size_t n, room;
    uint64_t skipped;                /* rows without a true energy */
} evaluate_set;

typedef struct evaluate_job {
    calomu *c;
    const char *input, *fit, *column, *csv, *plots, *history;
    calomu_eval_options options;
    calomu_line line;
    calomu_bin *bin;
    int n_bins;
    calomu_summary summary;
    int32_t threads;
    int quiet;                       /* 1: no table */
} evaluate_job;

/* Room for one muon more.  The step doubles, so the sizes stay far from overflow: a file would
   need 2^60 rows. */
static calomu_status evaluate_grow(evaluate_set *set)
{
    size_t room = set->room ? 2 * set->room : 4096;
    double *truth, *prediction;
    if (set->n < set->room) return CALOMU_OK;
    truth = realloc(set->truth, room * sizeof *truth);
    if (truth) set->truth = truth;
    prediction = realloc(set->prediction, room * sizeof *prediction);
    if (prediction) set->prediction = prediction;
    if (!truth || !prediction)
        return tool_fail(CALOMU_EMEMORY, "%s: no memory for %zu muons", set->path, room);
    set->room = room;
    return CALOMU_OK;
}

static calomu_status evaluate_rows(tool_csv *csv, evaluate_set *set)
{
    double value[2];
    int more = 0;
    calomu_status s;
    while ((s = tool_csv_next(csv, value, &more)) == CALOMU_OK && more) {
        if (isnan(value[0])) {
            set->skipped++;
            continue;
        }
        if (!(value[0] > 0))
            return tool_csv_fail(csv, CALOMU_EFORMAT, "true_energy %g GeV is not positive",
                                 value[0]);
        s = evaluate_grow(set);
        if (s != CALOMU_OK) return s;
        set->truth[set->n] = value[0];
        set->prediction[set->n++] = value[1];
    }
    return s;
}

static calomu_status evaluate_read(const char *path, const char *column, evaluate_set *set)
{
    tool_column columns[2] = { { "true_energy", TOOL_CELL_MAYBE, 0 },
                               { NULL, TOOL_CELL_NUMBER, 0 } };
    tool_csv *csv = NULL;
    calomu_status s;
    columns[1].name = column;
    set->path = path;
    s = tool_csv_open(path, columns, 2, &csv);
    if (s == CALOMU_OK) s = evaluate_rows(csv, set);
    tool_csv_close(csv);
    if (s != CALOMU_OK) return s;
    if (set->skipped)
        tool_notice("%s: %llu of %llu muons have no true energy and are left out", path,
                    (unsigned long long)set->skipped,
                    (unsigned long long)(set->skipped + set->n));
    if (set->n == 0)
        return tool_fail(CALOMU_EFORMAT, "%s: no muon with a true energy: nothing to evaluate",
                         path);
    return CALOMU_OK;
}

/* Says how much of the range has no muons: those who forget --range see empty bins, not why. */
static void evaluate_range(const evaluate_set *set, const calomu_eval_options *o)
{
    double low = INFINITY, high = 0, part;
    size_t i;
    for (i = 0; i < set->n; i++) {
        if (set->truth[i] < low) low = set->truth[i];
        if (set->truth[i] > high) high = set->truth[i];
    }
    part = fmin(high, o->high) - fmax(low, o->low);
    part = 1 - fmax(part, 0) / (o->high - o->low);
    if (part >= 0.1)
        tool_notice("%s: no muon has a true energy in %.3g%% of %g to %g GeV; they have %g to %g"
                    " GeV: give another --range", set->path, 100 * part, o->low, o->high, low,
                    high);
}

/* The debiasing's line, fitted to these muons. */
static calomu_status evaluate_fit(calomu *c, const evaluate_set *set,
                                  const calomu_eval_options *options, calomu_line *line)
{
    calomu_status s;
    evaluate_range(set, options);
    s = calomu_debias_fit(c, options, set->truth, set->prediction, set->n, line);
    return s == CALOMU_OK ? s : tool_fail(s, "%s: %s", set->path, calomu_message(c));
}

static void evaluate_free(evaluate_set *set)
{
    free(set->truth);
    free(set->prediction);
}

/* ---------------------------------------------------------------- the table */

/* A line of the table has at most 79 columns, whatever is in it: a terminal of 80 does not wrap. */

/* A number right-aligned, with as many decimals as there is room for, or a dash where a bin has too
   few muons. */
static void evaluate_cell(double x, int width, int decimals)
{
    char text[32];
    int n;
    if (!isfinite(x)) {
        printf(" %*s", width, "-");
        return;
    }
    do n = snprintf(text, sizeof text, "%.*f", decimals, x);
    while (n > width && decimals-- > 0);
    if (n > width) (void)snprintf(text, sizeof text, "%.1g", x);
    printf(" %*s", width, text);
}

/* "17.4 +- 0.3": decimals for one digit of the error, two if the first is 1. */
static void evaluate_with_error(double x, double error, int width)
{
    char text[32];
    int decimals = 1, n;
    if (!isfinite(error) || !isfinite(x)) {
        evaluate_cell(x, width, 2);
        return;
    }
    if (error > 0 && error < 1) decimals = (int)ceil(-log10(error / 1.95));
    if (decimals < 1) decimals = 1;
    if (decimals > 4) decimals = 4;
    do n = snprintf(text, sizeof text, "%.*f +- %.*f", decimals, x, decimals, error);
    while (n > width && decimals-- > 0);
    if (n > width) (void)snprintf(text, sizeof text, "%.1g+-%.1g", x, error);
    printf(" %*s", width, text);
}

enum { EVALUATE_LABEL = 12 };        /* room for the ends of a bin */

static void evaluate_row(const calomu_bin *b)
{
    char range[64];
    int digits = 6, n;
    do n = b->low < b->high
            ? snprintf(range, sizeof range, "%.*g..%.*g", digits, b->low, digits, b->high)
            : snprintf(range, sizeof range, "%.*g", digits, b->low);
    while (n > EVALUATE_LABEL && --digits > 0);
    if (n > EVALUATE_LABEL) (void)snprintf(range, sizeof range, "%.0e..%.0e", b->low, b->high);
    printf("%-*s", EVALUATE_LABEL, range);
    evaluate_cell((double)b->n, 7, 0);
    evaluate_cell(b->energy, 7, 1);
    evaluate_cell(b->median, 7, 1);
    evaluate_cell(100 * (b->median / b->energy - 1), 6, 1);
    evaluate_with_error(100 * b->calorimeter, 100 * b->calorimeter_error, 13);
    evaluate_cell(100 * b->tracker, 7, 2);
    evaluate_with_error(100 * b->combined, 100 * b->combined_error, 13);
    printf("\n");
}

/* "WHAT 22.1 +- 0.3UNIT" */
static void evaluate_total(const char *what, double x, double error, const char *unit)
{
    printf("%s %.2f", what, x);
    if (isfinite(error)) printf(" +- %.2f", error);
    printf("%s\n", unit);
}

static void evaluate_line(const calomu_line *l)
{
    char text[128];
    int fewer = 0, n;
    do n = snprintf(text, sizeof text, "mean prediction = (%.*f +- %.*f) GeV + (%.*f +- %.*f) * E",
                    3 - fewer, l->intercept, 3 - fewer, l->intercept_error, 5 - fewer, l->slope,
                    5 - fewer, l->slope_error);
    while (n > 79 && ++fewer <= 3);
    if (n > 79)
        (void)snprintf(text, sizeof text, "mean prediction = (%.4g +- %.2g) GeV + (%.4g +- %.2g)"
                       " * E", l->intercept, l->intercept_error, l->slope, l->slope_error);
    printf("%s\n", text);
}

static void evaluate_table(const evaluate_job *j, const evaluate_set *fitted)
{
    const calomu_line *l = &j->line;
    const calomu_summary *s = &j->summary;
    int i;
    printf("debiasing (%s): %d bins used, %d skipped\n", tool_shown(fitted->path), (int)l->used,
           (int)l->skipped);
    evaluate_line(l);
    printf("%-*s %7s %7s %7s %6s %13s %7s %13s\n", EVALUATE_LABEL,
           s->points ? "energy/GeV" : "bin/GeV", "muons", "true", "pred", "bias/%", "calo/%",
           "track/%", "comb/%");
    for (i = 0; i < j->n_bins; i++) evaluate_row(&j->bin[i]);
    evaluate_total("mean improvement (MI)", s->mi, s->mi_error, " points");
    evaluate_total("worst combined resolution", s->worst, s->worst_error, "%");
    printf("%d %s used, %d skipped with fewer than 2 muons\n", (int)s->used,
           s->points ? "points" : "bins", (int)s->skipped);
    if (isfinite(s->mi_error))
        printf("+-: standard deviation over %d resamplings of the muons, debiased anew\n",
               (int)j->options.errors);
}

static calomu_status evaluate_csv(const evaluate_job *j)
{
    tool_writer *w = NULL;
    calomu_status s = tool_writer_open(j->c, j->csv, &w);
    int i, k;
    if (s != CALOMU_OK) return s;
    tool_write_text(w, "low,high,energy,centre,muons,median,c68,calorimeter,tracker,combined,"
                    "calorimeter_error,combined_error\n");
    for (i = 0; i < j->n_bins; i++) {
        const calomu_bin *b = &j->bin[i];
        const double left[4] = { b->low, b->high, b->energy, b->centre };
        const double right[7] = { b->median, b->c68, b->calorimeter, b->tracker, b->combined,
                                  b->calorimeter_error, b->combined_error };
        for (k = 0; k < 4; k++) {
            tool_write_number(w, left[k], 9);
            tool_write_text(w, ",");
        }
        tool_write_whole(w, b->n);
        for (k = 0; k < 7; k++) {
            tool_write_text(w, ",");
            tool_write_number(w, right[k], 9);
        }
        tool_write_text(w, "\n");
    }
    return tool_writer_close(w);
}

/* ---------------------------------------------------------------- the verb */

static calomu_status evaluate_compute(evaluate_job *j, const evaluate_set *set,
                                      const evaluate_set *fitted)
{
    /* By itself at most 64 energies are points; --points takes as many as there are. */
    size_t room = j->options.points == 1 ? set->n : (size_t)j->options.bins;
    calomu_status s;
    if (room < 64) room = 64;
    if (room > EVALUATE_BINS) room = EVALUATE_BINS;
    j->bin = calloc(room, sizeof *j->bin);
    if (!j->bin) return tool_fail(CALOMU_EMEMORY, "no memory for %zu bins", room);
    s = evaluate_fit(j->c, fitted, &j->options, &j->line);
    if (s != CALOMU_OK) return s;
    s = calomu_resolution(j->c, &j->options, &j->line, set->truth, set->prediction, set->n,
                          j->bin, (int)room, &j->n_bins, &j->summary);
    if (s == CALOMU_OK)
        s = calomu_resolution_errors(j->c, &j->options, fitted->truth, fitted->prediction,
                                     fitted->n, set->truth, set->prediction, set->n, j->bin,
                                     j->n_bins, &j->summary);
    if (s != CALOMU_OK) return tool_fail(s, "%s: %s", set->path, calomu_message(j->c));
    if (set != fitted && !j->summary.points) evaluate_range(set, &j->options);
    if (j->options.errors && !isfinite(j->summary.mi_error))
        tool_notice("no errors: in some of the %d resamplings of these muons no line that rises can"
                    " be fitted", (int)j->options.errors);
    return CALOMU_OK;
}

calomu_status tool_debias_line(calomu *c, const char *path, const calomu_eval_options *options,
                               calomu_line *line)
{
    evaluate_set set;
    calomu_status s;
    memset(&set, 0, sizeof set);
    s = evaluate_read(path, "pred", &set);
    if (s == CALOMU_OK) s = evaluate_fit(c, &set, options, line);
    evaluate_free(&set);
    return s;
}

static calomu_status evaluate_run(evaluate_job *j, evaluate_set *set, evaluate_set *other)
{
    const evaluate_set *fitted = j->fit ? other : set;
    calomu_status s = evaluate_read(j->input, j->column, set);
    if (s == CALOMU_OK && j->fit) s = evaluate_read(j->fit, j->column, other);
    if (s == CALOMU_OK) s = evaluate_compute(j, set, fitted);
    if (s != CALOMU_OK) return s;
    if (!j->fit)
        tool_notice("the debiasing is fitted on %s itself; --fit takes it from other muons",
                    j->input);
    if (!j->quiet) evaluate_table(j, fitted);
    if (j->csv) s = evaluate_csv(j);
    if (s == CALOMU_OK && j->plots) {
        s = plot_evaluation(j->c, j->plots, &j->line, set->truth, set->prediction, set->n, j->bin,
                            j->n_bins, &j->summary);
        if (s == CALOMU_OK && j->history) s = plot_history(j->c, j->plots, j->history);
    }
    return s;
}

calomu_status tool_plot_predictions(calomu *c, const char *predictions, const char *fit,
                                    const char *column, const calomu_eval_options *options,
                                    const char *prefix)
{
    evaluate_job j;
    evaluate_set set = { 0 }, other = { 0 };
    calomu_status s;
    memset(&j, 0, sizeof j);
    j.c = c;
    j.input = predictions;
    j.fit = fit;
    j.column = column;
    j.options = *options;
    j.plots = prefix;
    j.quiet = 1;
    s = evaluate_run(&j, &set, &other);
    free(j.bin);
    evaluate_free(&set);
    evaluate_free(&other);
    return s;
}

/* What tool_parse cannot see. */
static calomu_status evaluate_check(const evaluate_job *j)
{
    if (j->fit && strcmp(j->input, "-") == 0 && strcmp(j->fit, "-") == 0)
        return tool_misuse("PRED.csv and --fit cannot both be standard input");
    if (j->history && !j->plots)
        return tool_misuse("--history is plotted: it needs --plots PREFIX");
    return CALOMU_OK;
}

static calomu_status evaluate_claim(const evaluate_job *j)
{
    calomu_status s = CALOMU_OK;
    if (j->plots) s = plot_claim_evaluation(j->plots);
    if (s == CALOMU_OK && j->history) s = plot_claim(TOOL_WRITES, j->plots, "history");
    return s;
}

/* The table ends with what follows, which is 0. */
static void evaluate_options(evaluate_job *j, int *points, double range[2], tool_option *to)
{
    const tool_option options[] = {
        { .name = "fit", .type = TOOL_STRING, .target = &j->fit, .value = "VALID.csv",
          .file = TOOL_READS,
          .help = "fit the debiasing on these predictions", .preset = "PRED.csv" },
        { .name = "column", .type = TOOL_STRING, .target = &j->column, .value = "NAME",
          .help = "column of the predictions: pred, or pred0, pred1 ... for single members" },
        { .name = "points", .type = TOOL_FLAG, .target = points,
          .help = "true energies are fixed points, not to be binned", .preset = "by itself" },
        { .name = "range", .type = TOOL_PAIR, .target = range, .value = "LOW,HIGH",
          .help = "true energies (GeV) that are binned" },
        { .name = "bins", .type = TOOL_INT, .target = &j->options.bins, .value = "N",
          .help = "bins of the resolution", .low = 1, .high = EVALUATE_BINS },
        { .name = "fit-bins", .type = TOOL_INT, .target = &j->options.fit_bins, .value = "N",
          .help = "bins of the debiasing fit", .low = 2, .high = EVALUATE_BINS },
        { .name = "tracker", .type = TOOL_DOUBLE, .target = &j->options.tracker, .value = "X",
          .help = "relative resolution of the tracker per TeV", .low = 1e-9, .high = 100 },
        { .name = "bootstrap", .type = TOOL_INT, .target = &j->options.bootstrap, .value = "N",
          .help = "resamplings for the error of a bin's mean in the debiasing; 0: sd/sqrt(n)",
          .high = 1000000 },
        { .name = "errors", .type = TOOL_INT, .target = &j->options.errors, .value = "N",
          .help = "resamplings for the errors of resolutions and MI; 0: no errors",
          .high = 1000000 },
        { .name = "seed", .type = TOOL_U64, .target = &j->options.seed, .value = "N",
          .help = "seed of the resamplings" },
        { .name = "csv", .type = TOOL_STRING, .target = &j->csv, .value = "OUT.csv",
          .file = TOOL_WRITES,
          .help = "write the table (GeV, relative resolutions) here too" },
        { .name = "plots", .type = TOOL_STRING, .target = &j->plots, .value = "PREFIX",
          .help = "write plots (data, gnuplot scripts, images) with names that begin so" },
        { .name = "history", .type = TOOL_STRING, .target = &j->history, .value = "LOG.csv",
          .file = TOOL_READS,
          .help = "plot the losses of this training log too" },
        TOOL_OPTION_THREADS(&j->threads)
    };
    memcpy(to, options, sizeof options);
}

int verb_evaluate(int argc, char **argv)
{
    evaluate_job j;
    evaluate_set set = { 0 }, other = { 0 };
    int points = 0, code;
    double range[2];
    tool_operand operands[] = { { .name = "PRED.csv", .target = &j.input }, { .name = NULL } };
    tool_option options[EVALUATE_OPTIONS];
    tool_usage usage = {
        .verb = "evaluate",
        .purpose = "Debiases predictions and prints their resolution against true energy, its\n"
                   "combination with a tracker, and the mean improvement (MI) of the paper, with\n"
                   "statistical errors (+-).  calomu help mi explains these.",
        .operands = operands, .options = options,
        .notes = "PRED.csv, of `calomu predict`, has the columns true_energy and pred (GeV); it\n"
                 "may be a pipe or - for standard input.  Rows without true energy are left out.\n"
                 "Debias with the muons that chose the model, never with those of the test: --fit."
    };
    memset(options, 0, sizeof options);
    memset(&j, 0, sizeof j);
    j.column = "pred";
    j.options = calomu_eval_options_default();
    range[0] = j.options.low;
    range[1] = j.options.high;
    evaluate_options(&j, &points, range, options);
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    code = (int)evaluate_check(&j);
    if (code == CALOMU_OK) code = (int)evaluate_claim(&j);
    if (code != CALOMU_OK) return code;
    j.options.low = range[0];
    j.options.high = range[1];
    j.options.points = points ? 1 : -1;
    code = (int)tool_threads_start((int)j.threads);
    if (code == CALOMU_OK) code = (int)tool_open(&j.c, j.threads);
    if (code != CALOMU_OK) return code;
    code = (int)evaluate_run(&j, &set, &other);
    free(j.bin);
    evaluate_free(&set);
    evaluate_free(&other);
    calomu_close(j.c);
    return code;
}
