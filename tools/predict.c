/* predict.c - calomu predict: energies of the muons of a data file, as CSV */
#include "calomu_tool.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Muons per call of the engine: whole groups of 16 lanes, and enough of them for every core.
   Predictions do not depend on the split. */
enum { PREDICT_CHUNK = 256, PREDICT_MOST = 1024 };   /* muons at once; on a device */

typedef struct predict_job {
    calomu *c;
    const char *model_path, *data_path, *out, *fit;
    tool_files files;                /* the muons; */
    tool_set set;                    /*   open: data and data_path are its own */
    uint64_t first, count;
    calomu_model *model;
    calomu_data *data;
    int members;
    tool_machine machine;
    size_t chunk;                    /* muons that are predicted at once */
    double *prediction, *member;     /* chunk values, and those of each member */
    calomu_eval_options options;     /* of the fit; */
    double range[2];                 /*   its low and high */
    calomu_line line;
    int computed;                    /* 1: features are computed on the fly */
    int blind;                       /* 1: a muon without hits says nothing to the model */
    uint64_t no_impact, no_hits;     /* muons without an impact point, without hits, */
    uint64_t above, faint;           /*   with more energy than they can have, with little */
} predict_job;

/* Says once for the whole file what calomu_predict will do about the features. */
static void predict_features(predict_job *j)
{
    const calomu_architecture *a = &calomu_model_describe(j->model)->architecture;
    const calomu_data_info *d = calomu_data_describe(j->data);
    const calomu_feature_options *want = &a->feature_options, *have = &d->feature_options;
    int absent = d->features == CALOMU_FEATURES_NONE;
    int other = !absent && (want->convention != have->convention || want->grow < have->grow
                            || want->grow > have->grow);
    if (a->standardised_unknown && d->features == CALOMU_FEATURES_STANDARDISED_UNKNOWN)
        tool_notice("%s was trained on standardised features of unknown mean and deviation, as %s"
                    " has them: it predicts only such files", j->model_path, j->data_path);
    j->blind = a->head || absent || other;
    if (!a->n_features || (!absent && !other) || a->standardised_unknown) return;
    j->computed = 1;
    if (absent)
        tool_notice("%s has no features: they are computed (convention %s, grow %g GeV)",
                    j->data_path, calomu_convention_name(want->convention), (double)want->grow);
    else
        tool_notice("%s has features of convention %s, grow %g GeV; the model wants %s, %g GeV:"
                    " they are computed anew", j->data_path,
                    calomu_convention_name(have->convention), (double)have->grow,
                    calomu_convention_name(want->convention), (double)want->grow);
}

static void predict_header(const predict_job *j, tool_writer *w)
{
    int k;
    tool_write_text(w, "event,true_energy,pred");
    for (k = 0; j->members > 1 && k < j->members; k++) tool_write_format(w, ",pred%d", k);
    tool_write_text(w, j->fit ? ",debiased,hits\n" : ",hits\n");
}

/* One row.  A true energy that is absent is a NaN, which the writer leaves empty. */
static void predict_row(const predict_job *j, tool_writer *w, uint64_t number,
                        const calomu_event *event, size_t i)
{
    int k;
    tool_write_whole(w, number);
    tool_write_text(w, ",");
    tool_write_number(w, (double)event->energy, 9);
    tool_write_text(w, ",");
    tool_write_number(w, j->prediction[i], 9);
    for (k = 0; j->members > 1 && k < j->members; k++) {
        tool_write_text(w, ",");
        tool_write_number(w, j->member[i * (size_t)j->members + (size_t)k], 9);
    }
    if (j->fit) {
        tool_write_text(w, ",");
        tool_write_number(w, calomu_debias(&j->line, j->prediction[i]), 9);
    }
    tool_write_text(w, ",");
    tool_write_whole(w, event->n_hits);
    tool_write_text(w, "\n");
}

/* As train looks at the unit of the hits: their sum against the true energy, or, where that is not
   known, against the highest that the network was trained for; the highest hit against 0.1 GeV. */
static void predict_unit(predict_job *j, const calomu_event *e)
{
    const calomu_training *t = calomu_model_training(j->model, 0);
    double most = isnan(e->energy) ? t ? t->options.bin_high : 8000 : (double)e->energy, sum = 0;
    float highest = 0;
    size_t i;
    for (i = 0; i < e->n_hits; i++) {
        sum += (double)e->hits[i].energy;
        if (e->hits[i].energy > highest) highest = e->hits[i].energy;
    }
    j->above += sum > most;
    j->faint += e->n_hits > 0 && !(highest > 0.1f);
}

/* Says it for the whole file, with the shares at which train does. */
static void predict_units(const predict_job *j)
{
    double n = (double)(j->count - j->no_hits);
    if (n > 0 && (double)j->above > 0.2 * n)
        tool_notice("the hits of %" PRIu64 " of %" PRIu64 " muons sum up to more than the true"
                    " energy, or than any that the model knows: are they in GeV (import"
                    " --energy-unit)? Else the predictions are worthless", j->above, j->count);
    if (n > 0 && (double)j->faint > 0.95 * n)
        tool_notice("%" PRIu64 " of %" PRIu64 " muons have no cell above 0.1 GeV: are hits in GeV"
                    " (import --energy-unit)? Else the predictions are worthless", j->faint,
                    j->count);
}

static calomu_status predict_chunk(predict_job *j, tool_writer *w, uint64_t first, size_t n,
                                   calomu_events *events)
{
    size_t i;
    calomu_status s = calomu_data_read(j->c, j->data, first, NULL, n, events);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    s = calomu_predict(j->c, j->model, j->data, events->event, n, j->prediction, j->member);
    if (s == CALOMU_EUSAGE) s = CALOMU_EFORMAT;     /* an impact point outside the model's face */
    if (s != CALOMU_OK)
        return tool_fail(s, "%s with %s: %s", j->data_path, j->model_path, calomu_message(j->c));
    for (i = 0; i < n; i++) {
        const calomu_event *e = &events->event[i];
        if (isnan(e->x) || isnan(e->y)) j->no_impact++;
        if (e->n_hits == 0) j->no_hits++;
        predict_unit(j, e);
        predict_row(j, w, first + i, e, i);
    }
    return tool_writer_status(w);    /* a full disk is said by tool_writer_close */
}

static calomu_status predict_stream(predict_job *j, tool_writer *w)
{
    calomu_events events;
    tool_progress progress;
    uint64_t done = 0;
    calomu_status s = CALOMU_OK;
    memset(&events, 0, sizeof events);
    memset(&progress, 0, sizeof progress);
    tool_progress_begin(&progress, "predict", "muons", j->count);
    while (s == CALOMU_OK && done < j->count && !tool_stop) {
        uint64_t left = j->count - done;
        size_t n = left < j->chunk ? (size_t)left : j->chunk;
        s = predict_chunk(j, w, j->first + done, n, &events);
        if (s != CALOMU_OK) break;
        done += n;
        tool_progress_at(&progress, done, NULL);
    }
    tool_progress_end(&progress);
    calomu_events_free(&events);
    return s;
}

static calomu_status predict_write(predict_job *j)
{
    tool_writer *w = NULL;
    calomu_status s = tool_writer_open(j->c, j->out, &w);
    calomu_status closed;
    if (s != CALOMU_OK) return s;
    predict_header(j, w);
    s = predict_stream(j, w);
    if (tool_stop) {
        tool_writer_abandon(w);
        tool_signals_obey();
    }
    if (s != CALOMU_OK && tool_writer_status(w) == CALOMU_OK) {
        tool_writer_abandon(w);
        return s;
    }
    closed = tool_writer_close(w);
    if (closed != CALOMU_OK) return closed;
    if (j->computed && j->no_impact)
        tool_notice("%" PRIu64 " of %" PRIu64 " muons have no impact point: features were taken"
                    " from the column with the largest sum", j->no_impact, j->count);
    if (j->blind && j->no_hits)
        tool_notice("%" PRIu64 " of %" PRIu64 " muons have no hits (0 in the column hits): what is"
                    " predicted for them says nothing of their energy", j->no_hits, j->count);
    predict_units(j);
    return s;
}

/* Which muons. */
static calomu_status predict_range(predict_job *j, const tool_usage *usage)
{
    uint64_t n = calomu_data_describe(j->data)->n_events;
    if (j->first > n || (j->first == n && j->first > 0))
        return tool_misuse("--first %" PRIu64 ": %s has muons 0 to %" PRIu64 " only", j->first,
                           j->data_path, n ? n - 1 : 0);
    if (!tool_given(usage, "count")) j->count = n - j->first;
    if (j->count > n - j->first)
        return tool_misuse("--count %" PRIu64 ": %s has only %" PRIu64 " muons from --first on",
                           j->count, j->data_path, n - j->first);
    if (n == 0) tool_notice("%s has no muons: the table has a header only", j->data_path);
    return CALOMU_OK;
}

static calomu_status predict_run(predict_job *j, const tool_usage *usage)
{
    calomu_status s = calomu_model_load(j->c, j->model_path, &j->model);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    s = tool_set_open(j->c, (const char *const *)j->files.path, j->files.n, &j->set);
    if (s != CALOMU_OK) return s;
    j->data = j->set.data;
    j->data_path = j->set.name;
    s = predict_range(j, usage);
    j->options.low = j->range[0];
    j->options.high = j->range[1];
    if (s == CALOMU_OK && j->fit) s = tool_debias_line(j->c, j->fit, &j->options, &j->line);
    if (s != CALOMU_OK) return s;
    j->members = calomu_model_describe(j->model)->members;
    j->chunk = strcmp(j->machine.device, "cpu") == 0 ? PREDICT_CHUNK : PREDICT_MOST;
    j->prediction = malloc(j->chunk * sizeof *j->prediction);
    j->member = calloc((size_t)j->members, j->chunk * sizeof *j->member);
    if (!j->prediction || !j->member)
        return tool_fail(CALOMU_EMEMORY, "no memory for %d predictions", (int)j->chunk);
    predict_features(j);
    return predict_write(j);
}

static void predict_free(predict_job *j)
{
    free(j->prediction);
    free(j->member);
    tool_set_close(&j->set);
    tool_files_free(&j->files);
    calomu_model_free(j->model);
    calomu_close(j->c);
}

static const char predict_notes[] =
    "Columns: event, true_energy (GeV, empty where absent), pred (GeV, not debiased),\n"
    "for an ensemble pred0, pred1 ... of its members, with --fit debiased (GeV, by\n"
    "the line that `calomu evaluate` fits to VALID.csv, which predict wrote), and\n"
    "hits: how many the muon has.  What is predicted for a muon without hits says\n"
    "nothing of its energy.";

int verb_predict(int argc, char **argv)
{
    predict_job j;
    int code;
    tool_option options[] = {
        { .name = "model", .type = TOOL_STRING, .target = &j.model_path,
          .value = "MODEL.safetensors", .file = TOOL_READS,
          .help = "network or ensemble", .needed = 1 },
        { .name = "data", .type = TOOL_FILES, .target = &j.files, .value = "FILE.cmu ...",
          .file = TOOL_READS,
          .help = "muons; several files or a pattern: as if merged", .needed = 1 },
        { .name = "out", .type = TOOL_STRING, .target = &j.out, .value = "PRED.csv",
          .file = TOOL_WRITES,
          .help = "table to write; - for standard output", .needed = 1 },
        { .name = "first", .type = TOOL_U64, .target = &j.first, .value = "N",
          .help = "number of the first muon" },
        { .name = "count", .type = TOOL_U64, .target = &j.count, .value = "N",
          .help = "how many muons", .preset = "all" },
        { .name = "fit", .type = TOOL_STRING, .target = &j.fit, .value = "VALID.csv",
          .file = TOOL_READS,
          .help = "also debias, by predictions of other muons whose true energy is known" },
        { .name = "range", .type = TOOL_PAIR, .target = j.range, .value = "LOW,HIGH",
          .help = "with --fit: true energies of the fit (GeV)" },
        { .name = "fit-bins", .type = TOOL_INT, .target = &j.options.fit_bins, .value = "N",
          .help = "with --fit: bins of the fit", .low = 2, .high = 1000000 },
        TOOL_OPTIONS_MACHINE(j.machine),
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "predict",
        .purpose = "Predicts the energies of the muons of a file.",
        .options = options,
        .notes = predict_notes
    };
    memset(&j, 0, sizeof j);
    j.machine.device = "cpu";
    j.options = calomu_eval_options_default();
    j.range[0] = j.options.low;
    j.range[1] = j.options.high;
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    if (!j.fit && (tool_given(&usage, "range") || tool_given(&usage, "fit-bins")))
        code = (int)tool_misuse("--range and --fit-bins are of --fit VALID.csv");
    else code = (int)tool_threads_start((int)j.machine.threads);
    if (code == CALOMU_OK) code = (int)tool_open_on(&j.c, &j.machine, 0);
    if (code == CALOMU_OK) tool_signals_catch();
    if (code == CALOMU_OK) code = (int)predict_run(&j, &usage);
    predict_free(&j);
    return code;
}
