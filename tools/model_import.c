/* model_import.c - calomu model-import: weights from PyTorch become a model of ours */
#include "calomu_tool.h"
#include <math.h>
#include <string.h>

typedef struct import_standard {
    double mean[CALOMU_FEATURES], deviation[CALOMU_FEATURES];
} import_standard;

static int import_feature(const char *name)
{
    int i;
    for (i = 0; i < CALOMU_FEATURES; i++)
        if (strcmp(name, calomu_feature_name(i)) == 0) return i;
    return -1;
}

static calomu_status import_row(const tool_csv *csv, const double *value, int *seen,
                                import_standard *out)
{
    const char *name = tool_csv_text(csv, 0);
    int i = import_feature(name);
    if (i < 0) return tool_csv_fail(csv, CALOMU_EFORMAT, "there is no feature '%.40s'", name);
    if (seen[i]) return tool_csv_fail(csv, CALOMU_EFORMAT, "feature '%s' comes twice", name);
    if (value[2] < 0)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "std %g of '%s' is negative", value[2], name);
    seen[i] = 1;
    out->mean[i] = value[1];
    out->deviation[i] = value[2] > 0 ? value[2] : 1;     /* 0 counts as 1 */
    return CALOMU_OK;
}

static calomu_status import_rows(tool_csv *csv, const char *path, import_standard *out)
{
    int seen[CALOMU_FEATURES] = { 0 }, more = 0, i;
    double value[3];
    calomu_status s;
    while ((s = tool_csv_next(csv, value, &more)) == CALOMU_OK && more) {
        s = import_row(csv, value, seen, out);
        if (s != CALOMU_OK) return s;
    }
    for (i = 0; i < CALOMU_FEATURES && s == CALOMU_OK; i++)
        if (!seen[i])
            s = tool_fail(CALOMU_EFORMAT, "%s: feature '%s' is missing; all %d are needed", path,
                          calomu_feature_name(i), CALOMU_FEATURES);
    return s;
}

static calomu_status import_standardisation(const char *path, import_standard *out)
{
    static const tool_column columns[3] = { { "feature", TOOL_CELL_TEXT, 0 },
                                            { "mean", TOOL_CELL_NUMBER, 0 },
                                            { "std", TOOL_CELL_NUMBER, 0 } };
    tool_csv *csv = NULL;
    calomu_status s = tool_csv_open(path, columns, 3, &csv);
    if (s == CALOMU_OK) s = import_rows(csv, path, out);
    tool_csv_close(csv);
    return s;
}

static const char *import_menu(const calomu_architecture *a)
{
    if (a->head && a->n_features)
        return a->n_features == 3 ? "hybrid: hits and 3 energy sums"
                                  : "hybrid: hits and 28 features";
    if (a->head) return "hits only";
    return a->n_features == 3 ? "3 energy sums only" : "28 features only";
}

typedef struct import_job {
    calomu *c;
    const char *in, *out, *standard, *like;
    calomu_architecture base;
    int convention;
    int lengths, conventions, grows; /* 1: --geometry, --convention, --grow are given */
} import_job;

static const char *import_source(const import_job *j)
{
    if (j->like) return j->like;
    if (!j->standard) return "by the file's own metadata";
    return strcmp(j->standard, "none") == 0 ? "no: mean 0, deviation 1" : j->standard;
}

static void import_print(const import_job *j, const calomu_model *model)
{
    const calomu_model_info *info = calomu_model_describe(model);
    const calomu_architecture *a = &info->architecture;
    printf("model        %s\n", tool_shown(j->out));
    printf("inputs       %s\n", import_menu(a));
    if (a->head) {
        printf("head         %d blocks per resolution, growth %g\n", (int)a->blocks, a->growth);
        printf("cells        %d x %d x %d (z, x, y)\n", (int)a->geometry.nz, (int)a->geometry.nx,
               (int)a->geometry.ny);
    }
    printf("body         %d neurons per layer\n", (int)a->body);
    printf("parameters   %llu trainable\n", (unsigned long long)info->parameters);
    printf("members      %d\n", info->members);
    if (!a->n_features) return;
    printf("features     convention %s, clusters grow above %g GeV\n",
           calomu_convention_name(a->feature_options.convention), (double)a->feature_options.grow);
    printf("standardised %s\n", tool_shown(import_source(j)));
}

/* What the options say, over what the file says of itself: without notices, as the file is read
   again. */
static calomu_status import_base(import_job *j, const double *mean, const double *deviation)
{
    calomu *quiet = NULL;
    calomu_model *model = NULL;
    calomu_architecture a;
    calomu_status s = calomu_open(&quiet, NULL);
    if (s != CALOMU_OK) return tool_fail(s, "cannot start: %s", calomu_status_text(s));
    s = calomu_model_import(quiet, j->in, NULL, mean, deviation, &model);
    if (s != CALOMU_OK) {
        (void)tool_report(quiet, s);
    } else {
        a = calomu_model_describe(model)->architecture;
        if (j->lengths) a.geometry = j->base.geometry;
        if (j->conventions) a.feature_options.convention = (calomu_convention)j->convention;
        if (j->grows) a.feature_options.grow = j->base.feature_options.grow;
        j->base = a;
    }
    calomu_model_free(model);
    calomu_close(quiet);
    return s;
}

static calomu_status import_given(import_job *j, calomu_model **model)
{
    import_standard values;
    const double *mean = j->standard ? values.mean : NULL;
    const double *deviation = j->standard ? values.deviation : NULL;
    int i, given = j->lengths || j->conventions || j->grows;
    calomu_status s = CALOMU_OK;
    for (i = 0; i < CALOMU_FEATURES; i++) {
        values.mean[i] = 0;
        values.deviation[i] = 1;
    }
    if (j->standard && strcmp(j->standard, "none") != 0)
        s = import_standardisation(j->standard, &values);
    if (s == CALOMU_OK && given) s = import_base(j, mean, deviation);
    if (s != CALOMU_OK) return s;
    s = calomu_model_import(j->c, j->in, given ? &j->base : NULL, mean, deviation, model);
    return s == CALOMU_OK ? s : tool_report(j->c, s);
}

static calomu_status import_like(import_job *j, calomu_model **model)
{
    calomu_model *like = NULL;
    calomu_status s = calomu_model_load(j->c, j->like, &like);
    if (s == CALOMU_OK) s = calomu_model_import_like(j->c, j->in, like, model);
    calomu_model_free(like);
    return s == CALOMU_OK ? s : tool_report(j->c, s);
}

static calomu_status import_run(import_job *j)
{
    calomu_model *model = NULL;
    calomu_status s = j->like ? import_like(j, &model) : import_given(j, &model);
    if (s != CALOMU_OK) return s;
    s = calomu_model_save(j->c, model, j->out);
    if (s != CALOMU_OK) (void)tool_report(j->c, s);
    else {
        if (j->standard && !calomu_model_describe(model)->architecture.n_features)
            tool_notice("--features-mean-std %s is of no use: the network takes no features",
                        j->standard);
        import_print(j, model);
    }
    calomu_model_free(model);
    return s;
}

int verb_model_import(int argc, char **argv)
{
    import_job j;
    int code, i;
    static const char *const taken[] = { "features-mean-std", "convention", "grow", "geometry" };
    tool_operand operands[] = { { .name = "STATE.safetensors", .target = &j.in },
                                { .name = NULL } };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &j.out, .value = "MODEL.safetensors",
          .file = TOOL_WRITES, .help = "model to write", .needed = 1 },
        { .name = "like", .type = TOOL_STRING, .target = &j.like, .value = "MODEL.safetensors",
          .file = TOOL_READS,
          .help = "a model of calomu: everything but the weights is taken from it" },
        { .name = "features-mean-std", .type = TOOL_STRING, .target = &j.standard,
          .value = "FILE.csv|none", .file = TOOL_READS,
          .help = "standardisation of the features: feature,mean,std",
          .preset = "the metadata's" },
        TOOL_OPTION_CONVENTION(&j.convention),
        TOOL_OPTION_GROW(&j.base.feature_options.grow),
        TOOL_OPTION_GEOMETRY(&j.base.geometry),
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "model-import",
        .purpose = "Makes a model of the weights of a PyTorch state_dict in safetensors form,\n"
                   "also of a model of calomu that was saved again in Python, or of an ensemble.",
        .operands = operands, .options = options,
        .notes = "Inputs, blocks, growth and widths come from names and shapes; everything else\n"
                 "from --like, or from the metadata of calomu that the file may have, over which\n"
                 "the other options go.  FILE.csv has one row for each of the 28 features, in any\n"
                 "order, in GeV and mm; none: mean 0, deviation 1.  Prefixes module., _orig_mod.\n"
                 "and model. are taken off the names; F16, BF16 and F64 become float32.  Fixed\n"
                 "weights of energy sums may be absent: they are 1."
    };
    memset(&j, 0, sizeof j);
    j.base = calomu_architecture_default();
    j.convention = (int)j.base.feature_options.convention;
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    for (i = 0; j.like && i < 4; i++)
        if (tool_given(&usage, taken[i]))
            return (int)tool_misuse("--like takes this from %s: leave out --%s", j.like, taken[i]);
    j.lengths = tool_given(&usage, "geometry");
    j.conventions = tool_given(&usage, "convention");
    j.grows = tool_given(&usage, "grow");
    code = (int)tool_open(&j.c, 1);
    if (code != CALOMU_OK) return code;
    code = (int)import_run(&j);
    calomu_close(j.c);
    return code;
}
