/* features.c - `calomu features`: adds the 28 high-level features to a data file. */
#include "calomu_tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FEATURES_CHUNK = 512 };       /* muons read, computed and written together */

typedef struct features_job {
    calomu *c;                       /* reads and writes */
    calomu **worker;                 /* one context per thread: features use its scratch memory */
    int threads;
    calomu_data *data;
    calomu_writer *writer;
    calomu_feature_options options;
    calomu_events batch;
    uint64_t first;                  /* muon of the chunk */
    uint64_t without_impact;
    float value[FEATURES_CHUNK][CALOMU_FEATURES];
    calomu_status status[FEATURES_CHUNK];
} features_job;

/* The muons of a chunk are independent, so that the threads only share out the work. */
static void features_compute(features_job *job)
{
    const calomu_geometry *g = &calomu_data_describe(job->data)->geometry;
    int i, n = (int)job->batch.n;
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 4) num_threads(job->threads)
#endif
    for (i = 0; i < n; i++) {
        job->status[i] = calomu_features(job->worker[tool_thread()], g, &job->batch.event[i],
                                         &job->options, job->value[i]);
    }
}

/* The first muon that failed, whichever thread had it: computed again for its message. */
static calomu_status features_failure(features_job *job, const char *path)
{
    const calomu_geometry *g = &calomu_data_describe(job->data)->geometry;
    size_t i;
    for (i = 0; i < job->batch.n; i++) {
        calomu_status status;
        if (job->status[i] == CALOMU_OK) continue;
        status = calomu_features(job->c, g, &job->batch.event[i], &job->options, job->value[i]);
        if (status == CALOMU_OK)     /* memory that there was not for all threads */
            return tool_fail(job->status[i], "%s: event %llu: %s", path,
                             (unsigned long long)(job->first + i),
                             calomu_status_text(job->status[i]));
        /* An impact point outside the face is the caller's mistake for the library; here the
           caller's data are a file. */
        if (status == CALOMU_EUSAGE) status = CALOMU_EFORMAT;
        return tool_fail(status, "%s: event %llu: %s", path, (unsigned long long)(job->first + i),
                         calomu_message(job->c));
    }
    return CALOMU_OK;
}

static calomu_status features_chunk(features_job *job, const char *path, size_t n)
{
    size_t i;
    calomu_event event;
    calomu_status status = calomu_data_read(job->c, job->data, job->first, NULL, n, &job->batch);
    if (status != CALOMU_OK) return tool_report(job->c, status);
    features_compute(job);
    status = features_failure(job, path);
    for (i = 0; i < n && status == CALOMU_OK; i++) {
        event = job->batch.event[i];
        if (isnan(event.x) || isnan(event.y)) job->without_impact++;
        event.features = job->value[i];
        status = calomu_writer_add(job->writer, &event);
        if (status != CALOMU_OK) return tool_report(job->c, status);
    }
    return status;
}

static calomu_status features_loop(features_job *job, const char *path)
{
    uint64_t n = calomu_data_describe(job->data)->n_events, left;
    calomu_status status = CALOMU_OK;
    tool_progress progress;
    tool_progress_begin(&progress, "features", "muons", n);
    for (job->first = 0; job->first < n && status == CALOMU_OK && !tool_stop;) {
        left = n - job->first;
        left = left < FEATURES_CHUNK ? left : FEATURES_CHUNK;
        status = features_chunk(job, path, (size_t)left);
        job->first += left;
        tool_progress_at(&progress, job->first, NULL);
    }
    tool_progress_end(&progress);
    if (status == CALOMU_OK && tool_stop)
        status = tool_fail(CALOMU_STOPPED, "stopped; nothing is written");
    return status;
}

static void features_say_replaced(const calomu_data_info *info)
{
    if (info->features == CALOMU_FEATURES_STANDARDISED_UNKNOWN)
        tool_notice("the file has standardised features (mean and deviation unknown); "
                    "they are replaced");
    else if (info->features != CALOMU_FEATURES_NONE)
        tool_notice("the file has features already (convention %s, grow %g GeV); "
                    "they are replaced",
                    calomu_convention_name(info->feature_options.convention),
                    (double)info->feature_options.grow);
}

static calomu_status features_run(features_job *job, const char *in, const char *out)
{
    calomu_data_info info;
    calomu_status status = calomu_data_open(job->c, in, &job->data);
    if (status != CALOMU_OK) return tool_report(job->c, status);
    info = *calomu_data_describe(job->data);
    features_say_replaced(&info);
    info.features = CALOMU_FEATURES_RAW;
    info.feature_options = job->options;
    memset(info.mean, 0, sizeof info.mean);
    memset(info.deviation, 0, sizeof info.deviation);
    status = calomu_writer_open(job->c, out, &info, &job->writer);
    if (status != CALOMU_OK) return tool_report(job->c, status);
    status = features_loop(job, in);
    if (status != CALOMU_OK) {
        calomu_writer_abandon(job->writer);
        return status;
    }
    status = calomu_writer_close(job->writer);
    if (status != CALOMU_OK) return tool_report(job->c, status);
    if (job->without_impact > 0)
        tool_notice("%llu of %llu muons have no impact point: features are from the centre of "
                    "the column with the largest sum", (unsigned long long)job->without_impact,
                    (unsigned long long)info.n_events);
    tool_notice("%s: %llu muons with features (convention %s, grow %g GeV)", out,
                (unsigned long long)info.n_events,
                calomu_convention_name(job->options.convention), (double)job->options.grow);
    return CALOMU_OK;
}

static void features_free(features_job *job)
{
    int k;
    calomu_events_free(&job->batch);
    calomu_data_close(job->data);
    for (k = 0; job->worker && k < job->threads; k++) calomu_close(job->worker[k]);
    free(job->worker);
    calomu_close(job->c);
    free(job);
}

static calomu_status features_new(features_job **made, int threads)
{
    calomu_status status;
    int k;
    features_job *job = calloc(1, sizeof *job);
    *made = NULL;
    if (!job) return tool_fail(CALOMU_EMEMORY, "no memory");
    job->threads = threads > 0 ? threads : tool_threads_default();
    status = tool_threads_start(job->threads);
    if (status == CALOMU_OK) status = tool_open(&job->c, job->threads);
    if (status == CALOMU_OK) {
        job->worker = calloc((size_t)job->threads, sizeof *job->worker);
        if (!job->worker) status = tool_fail(CALOMU_EMEMORY, "no memory");
    }
    for (k = 0; k < job->threads && status == CALOMU_OK; k++)
        status = tool_open(&job->worker[k], 1);
    if (status == CALOMU_OK)
        *made = job;
    else
        features_free(job);
    return status;
}

int verb_features(int argc, char **argv)
{
    calomu_feature_options preset = calomu_feature_options_default();
    const char *in = NULL, *out = NULL;
    int convention = (int)preset.convention;
    int32_t threads = 0;
    calomu_status status;
    features_job *job;
    tool_operand operands[] = { { .name = "IN.cmu", .target = &in }, { .name = NULL } };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &out, .value = "OUT.cmu",
          .file = TOOL_REPLACES,
          .help = "data file to write; may be the same as IN.cmu", .needed = 1 },
        TOOL_OPTION_CONVENTION(&convention),
        TOOL_OPTION_GROW(&preset.grow),
        TOOL_OPTION_THREADS(&threads),
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "features",
        .purpose = "Computes the 28 high-level features (appendix 6 of the paper) of every muon of "
                   "IN.cmu\nand writes the muons with them to OUT.cmu.  Features that are there "
                   "are replaced.",
        .operands = operands, .options = options
    };
    int code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    status = features_new(&job, threads);
    if (status != CALOMU_OK) return (int)status;
    job->options.convention = (calomu_convention)convention;
    job->options.grow = preset.grow;
    tool_signals_catch();
    status = features_run(job, in, out);
    features_free(job);
    if (status == CALOMU_STOPPED) tool_signals_obey();
    return (int)status;
}
