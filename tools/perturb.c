/* perturb.c - `calomu perturb`: the muons of a data file behind imperfect electronics. */
#include "perturb.h"

#include <stdlib.h>
#include <string.h>

calomu_status perturb_electronics(const electronics_options *o, const calomu_geometry *g,
                                  electronics **made)
{
    calomu_status status = electronics_new(o, g, made);
    if (status == CALOMU_EUSAGE)
        return tool_misuse("--module: the sub-modules do not divide the %d x %d x %d cells (z, x, "
                           "y)", (int)g->nz, (int)g->nx, (int)g->ny);
    return status == CALOMU_OK ? status : tool_fail(status, "no memory");
}

calomu_status perturb_module(const char *text, electronics_options *o)
{
    double x[3];
    int k;
    if (!text) return CALOMU_OK;
    if (tool_numbers(text, ",", x, 3) != 3)
        return tool_misuse("--module %s: three whole numbers nz,nx,ny are wanted", text);
    for (k = 0; k < 3; k++) {
        if (!(x[k] >= 1 && x[k] <= 65535) || (double)(int32_t)x[k] < x[k])
            return tool_misuse("--module %s: three whole numbers from 1 on are wanted", text);
        o->module[k] = (int32_t)x[k];
    }
    return CALOMU_OK;
}

void perturb_warn(const electronics_options *o)
{
    if (electronics_fill(o))
        tool_notice("noise or bias without --zero: nearly every cell of every muon is hit, and "
                    "the file is large");
}

enum { PERTURB_CHUNK = 64 };         /* muons read at a time */

typedef struct perturb_job {
    calomu *c;
    calomu_data *data;
    calomu_writer *writer;
    electronics *chain;
    calomu_hit *hits;
    calomu_events batch;
    uint64_t number;                 /* of the file's first muon in its set */
    int features;
    calomu_feature_options feature_options;
} perturb_job;

static calomu_status perturb_one(perturb_job *job, const calomu_geometry *g, uint64_t number,
                                 const calomu_event *in)
{
    float features[CALOMU_FEATURES];
    calomu_event event = *in;
    calomu_status status = CALOMU_OK;
    event.n_hits = electronics_apply(job->chain, number, in, job->hits);
    if (event.n_hits == SIZE_MAX) return tool_fail(CALOMU_EMEMORY, "no memory");
    event.hits = job->hits;
    event.features = NULL;
    if (job->features) {
        status = calomu_features(job->c, g, &event, &job->feature_options, features);
        event.features = features;
    }
    if (status == CALOMU_OK) status = calomu_writer_add(job->writer, &event);
    return status == CALOMU_OK ? status : tool_report(job->c, status);
}

static calomu_status perturb_loop(perturb_job *job)
{
    const calomu_data_info *info = calomu_data_describe(job->data);
    uint64_t first = 0, n = info->n_events;
    calomu_status status = CALOMU_OK;
    tool_progress progress;
    tool_progress_begin(&progress, "electronics", "muons", n);
    while (first < n && status == CALOMU_OK && !tool_stop) {
        uint64_t count = n - first < PERTURB_CHUNK ? n - first : PERTURB_CHUNK, i;
        status = calomu_data_read(job->c, job->data, first, NULL, (size_t)count, &job->batch);
        if (status != CALOMU_OK) status = tool_report(job->c, status);
        for (i = 0; i < count && status == CALOMU_OK; i++)
            status = perturb_one(job, &info->geometry, job->number + first + i,
                                 &job->batch.event[i]);
        first += count;
        tool_progress_at(&progress, first, NULL);
    }
    tool_progress_end(&progress);
    if (status == CALOMU_OK && tool_stop)
        status = tool_fail(CALOMU_STOPPED, "stopped; nothing is written");
    return status;
}

static calomu_status perturb_open(perturb_job *job, const electronics_options *o, const char *in,
                                  const char *out)
{
    calomu_data_info info;
    size_t cells;
    calomu_status status = calomu_data_open(job->c, in, &job->data);
    if (status != CALOMU_OK) return tool_report(job->c, status);
    info = *calomu_data_describe(job->data);
    cells = (size_t)info.geometry.nz * (size_t)info.geometry.nx * (size_t)info.geometry.ny;
    if (info.features != CALOMU_FEATURES_NONE)
        tool_notice("the file's features no longer fit: they are %s",
                    job->features ? "computed again" : "left out");
    info.features = job->features ? CALOMU_FEATURES_RAW : CALOMU_FEATURES_NONE;
    info.feature_options = job->feature_options;
    memset(info.mean, 0, sizeof info.mean);
    memset(info.deviation, 0, sizeof info.deviation);
    job->hits = malloc(cells * sizeof *job->hits);
    if (!job->hits) return tool_fail(CALOMU_EMEMORY, "no memory");
    status = perturb_electronics(o, &info.geometry, &job->chain);
    if (status != CALOMU_OK) return status;
    status = calomu_writer_open(job->c, out, &info, &job->writer);
    return status == CALOMU_OK ? status : tool_report(job->c, status);
}

static calomu_status perturb_run(perturb_job *job, const electronics_options *o, const char *in,
                                 const char *out)
{
    calomu_status status = tool_open(&job->c, 1);
    if (status == CALOMU_OK) status = perturb_open(job, o, in, out);
    if (status == CALOMU_OK) status = perturb_loop(job);
    if (status == CALOMU_OK) {
        status = calomu_writer_close(job->writer);
        if (status != CALOMU_OK) (void)tool_report(job->c, status);
    } else {
        calomu_writer_abandon(job->writer);
    }
    calomu_events_free(&job->batch);
    calomu_data_close(job->data);
    electronics_free(job->chain);
    free(job->hits);
    calomu_close(job->c);
    return status;
}

int verb_perturb(int argc, char **argv)
{
    electronics_options o = PERTURB_DEFAULTS;
    perturb_job job;
    const char *in = NULL, *out = NULL, *module = NULL;
    int convention = 0, code;
    calomu_status status;
    tool_operand operands[] = { { .name = "IN.cmu", .target = &in }, { .name = NULL } };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &out, .value = "OUT.cmu",
          .file = TOOL_REPLACES,
          .help = "data file to write; may be the same as IN.cmu", .needed = 1 },
        PERTURB_OPTIONS(o, &module),
        { .name = "seed", .type = TOOL_U64, .target = &o.seed, .value = "S",
          .help = "calibration and noise depend on it, cell and muon number alone" },
        { .name = "first", .type = TOOL_U64, .target = &job.number, .value = "K",
          .help = "number of the file's first muon, as in simulate" },
        { .name = "features", .type = TOOL_FLAG, .target = &job.features,
          .help = "add the 28 high-level features" },
        TOOL_OPTION_CONVENTION(&convention),
        TOOL_OPTION_GROW(&job.feature_options.grow),
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "perturb",
        .purpose = "Writes the muons of IN.cmu as imperfect electronics see them: per cell "
                   "E' = C E + b + n, then\nzero suppression.  simulate has the same options.",
        .operands = operands, .options = options
    };
    memset(&job, 0, sizeof job);
    job.feature_options = calomu_feature_options_default();
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    job.feature_options.convention = (calomu_convention)convention;
    if (perturb_module(module, &o) != CALOMU_OK) return (int)CALOMU_EUSAGE;
    if (!electronics_wanted(&o)) return (int)tool_misuse("no effect was asked for");
    perturb_warn(&o);
    tool_signals_catch();
    status = perturb_run(&job, &o, in, out);
    if (status == CALOMU_STOPPED) tool_signals_obey();
    return (int)status;
}
