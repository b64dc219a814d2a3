/* plot_verb.c - `calomu plot`: figures of files that are there. */
#include "plot.h"

#include <string.h>

enum { PLOT_VERB_MUONS = 4, PLOT_OPTIONS = 17 };

typedef struct plot_job {
    const char *history, *predictions, *fit, *column, *out, *event, *numbers, *scan;
    calomu_eval_options options;
    double range[2];
    int points;
} plot_job;

/* Numbers with commas between them; how many, or -1. */
static int plot_numbers(const char *text, uint64_t number[PLOT_VERB_MUONS])
{
    int n = 0;
    for (;;) {
        uint64_t k = 0;
        int digits = 0;
        for (; *text >= '0' && *text <= '9' && digits < 18; text++, digits++)
            k = 10 * k + (uint64_t)(*text - '0');
        if (digits == 0 || n == PLOT_VERB_MUONS || (*text && *text != ',')) return -1;
        number[n++] = k;
        if (!*text) return n;
        text++;
    }
}

static calomu_status plot_job_claim(const plot_job *j)
{
    calomu_status s = CALOMU_OK;
    if (j->predictions) s = plot_claim_evaluation(j->out);
    if (s == CALOMU_OK && j->history) s = plot_claim(TOOL_WRITES, j->out, "history");
    if (s == CALOMU_OK && j->event) s = plot_claim(TOOL_WRITES, j->out, "event");
    if (s == CALOMU_OK && j->scan) s = plot_claim_scan(j->out);
    return s;
}

static calomu_status plot_job_run(plot_job *j)
{
    uint64_t number[PLOT_VERB_MUONS];
    int n = plot_numbers(j->numbers, number);
    calomu *c = NULL;
    calomu_status s;
    if (!j->history && !j->predictions && !j->event && !j->scan)
        return tool_misuse("nothing to plot: give --history LOG.csv, --predictions PRED.csv, "
                           "--event FILE.cmu or --scan SCAN.csv");
    if (n < 0)
        return tool_misuse("--numbers %.80s: must be one to four numbers of muons", j->numbers);
    if (j->fit && !j->predictions)
        return tool_misuse("--fit debiases predictions: it needs --predictions PRED.csv");
    j->options.low = j->range[0];
    j->options.high = j->range[1];
    j->options.points = j->points ? 1 : -1;
    s = plot_job_claim(j);
    if (s == CALOMU_OK) s = tool_threads_start(0);
    if (s == CALOMU_OK) s = tool_open(&c, 0);
    if (s != CALOMU_OK) return s;
    if (j->predictions)
        s = tool_plot_predictions(c, j->predictions, j->fit, j->column, &j->options, j->out);
    if (s == CALOMU_OK && j->history) s = plot_history(c, j->out, j->history);
    if (s == CALOMU_OK && j->event) s = plot_events(c, j->out, j->event, number, n);
    if (s == CALOMU_OK && j->scan) s = plot_scan(c, j->out, j->scan);
    calomu_close(c);
    return s;
}

/* The table ends with what follows, which is 0. */
static void plot_options(plot_job *j, tool_option *to)
{
    const tool_option options[] = {
        { .name = "history", .type = TOOL_STRING, .target = &j->history, .value = "LOG.csv",
          .file = TOOL_READS,
          .help = "plot the losses of this training log" },
        { .name = "predictions", .type = TOOL_STRING, .target = &j->predictions,
          .value = "PRED.csv", .file = TOOL_READS,
          .help = "plot predictions, their ratio to truth, and resolutions" },
        { .name = "event", .type = TOOL_STRING, .target = &j->event, .value = "FILE.cmu",
          .file = TOOL_READS,
          .help = "plot the cells of single muons of this data file" },
        { .name = "scan", .type = TOOL_STRING, .target = &j->scan, .value = "SCAN.csv",
          .file = TOOL_READS,
          .help = "plot responses, slopes, intercepts and resolutions of this scan" },
        { .name = "numbers", .type = TOOL_STRING, .target = &j->numbers, .value = "I,J,...",
          .help = "which muons, one to four" },
        { .name = "out", .type = TOOL_STRING, .target = &j->out, .value = "PREFIX", .needed = 1,
          .help = "how the names begin; with .png or .svg at the end: the images' format" },
        { .name = "fit", .type = TOOL_STRING, .target = &j->fit, .value = "VALID.csv",
          .file = TOOL_READS,
          .help = "fit the debiasing on these predictions", .preset = "PRED.csv" },
        { .name = "column", .type = TOOL_STRING, .target = &j->column, .value = "NAME",
          .help = "column of the predictions" },
        { .name = "points", .type = TOOL_FLAG, .target = &j->points,
          .help = "true energies are fixed points, not to be binned", .preset = "by itself" },
        { .name = "range", .type = TOOL_PAIR, .target = j->range, .value = "LOW,HIGH",
          .help = "true energies (GeV) that are binned" },
        { .name = "bins", .type = TOOL_INT, .target = &j->options.bins, .value = "N",
          .help = "bins of the resolution", .low = 1, .high = 100000 },
        { .name = "fit-bins", .type = TOOL_INT, .target = &j->options.fit_bins, .value = "N",
          .help = "bins of the debiasing fit", .low = 2, .high = 100000 },
        { .name = "tracker", .type = TOOL_DOUBLE, .target = &j->options.tracker, .value = "X",
          .help = "relative resolution of the tracker per TeV", .low = 1e-9, .high = 100 },
        { .name = "errors", .type = TOOL_INT, .target = &j->options.errors, .value = "N",
          .help = "resamplings for the errors of resolutions and MI; 0: no errors",
          .high = 1000000 }
    };
    memcpy(to, options, sizeof options);
}

int verb_plot(int argc, char **argv)
{
    plot_job j;
    int code;
    tool_option options[PLOT_OPTIONS];
    tool_usage usage = {
        .verb = "plot",
        .purpose = "Plots a training log, predictions, muons or a scan: data (CSV), a gnuplot\n"
                   "script, and the image (SVG, or PNG) where gnuplot is installed.",
        .options = options,
        .notes = "Writes PREFIX_history, PREFIX_prediction, PREFIX_ratio, PREFIX_resolution,\n"
                 "PREFIX_event; of a scan PREFIX_response, PREFIX_scales, PREFIX_linearity,\n"
                 "PREFIX_noise, PREFIX_calibration; each .csv, .gp and .svg.\n"
                 "To draw one again, from any folder:\n"
                 "gnuplot -d PREFIX_ratio.gp (-d: without your own settings)"
    };
    memset(options, 0, sizeof options);
    memset(&j, 0, sizeof j);
    j.column = "pred";
    j.numbers = "0";
    j.options = calomu_eval_options_default();
    j.range[0] = j.options.low;
    j.range[1] = j.options.high;
    plot_options(&j, options);
    code = tool_parse(&usage, argc, argv);
    return code >= 0 ? code : (int)plot_job_run(&j);
}
