/* model_import.c - calomu model-import: a bare PyTorch state_dict becomes a model of ours */
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
    if (a->head) return a->n_features ? "hybrid: hits and 28 features" : "hits only";
    return a->n_features == 3 ? "3 energy sums only" : "28 features only";
}

static void import_print(const calomu_model *model, const char *path, const char *standard)
{
    const calomu_model_info *info = calomu_model_describe(model);
    const calomu_architecture *a = &info->architecture;
    printf("model        %s\n", tool_shown(path));
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
    printf("standardised %s\n", standard ? tool_shown(standard)
                                         : "mean 0, deviation 1 (not given)");
}

static calomu_status import_run(calomu *c, const char *in, const char *out, const char *standard,
                                const calomu_architecture *base)
{
    import_standard values;
    calomu_model *model = NULL;
    calomu_file_kind kind;
    calomu_status s = CALOMU_OK;
    if (standard) s = import_standardisation(standard, &values);
    if (s != CALOMU_OK) return s;
    if (calomu_file_identify(c, in, &kind) == CALOMU_OK && kind == CALOMU_FILE_MODEL)
        tool_notice("%s is a model of calomu already: only its weights are taken, not its geometry,"
                    " convention or standardisation", in);
    s = calomu_model_import(c, in, base, standard ? values.mean : NULL,
                            standard ? values.deviation : NULL, &model);
    if (s == CALOMU_OK) s = calomu_model_save(c, model, out);
    if (s != CALOMU_OK) tool_report(c, s);
    else {
        if (standard && !calomu_model_describe(model)->architecture.n_features)
            tool_notice("%s is of no use: the network takes no features", standard);
        import_print(model, out, standard);
    }
    calomu_model_free(model);
    return s;
}

int verb_model_import(int argc, char **argv)
{
    const char *in = NULL, *out = NULL, *standard = NULL;
    calomu_architecture base = calomu_architecture_default();
    int convention = (int)base.feature_options.convention, code;
    calomu *c = NULL;
    tool_operand operands[] = { { .name = "STATE.safetensors", .target = &in }, { .name = NULL } };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &out, .value = "MODEL.safetensors",
          .file = TOOL_WRITES,
          .help = "model to write", .needed = 1 },
        { .name = "features-mean-std", .type = TOOL_STRING, .target = &standard,
          .value = "FILE.csv", .file = TOOL_READS,
          .help = "standardisation of the features: feature,mean,std",
          .preset = "mean 0, deviation 1" },
        TOOL_OPTION_CONVENTION(&convention),
        TOOL_OPTION_GROW(&base.feature_options.grow),
        TOOL_OPTION_GEOMETRY(&base.geometry),
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "model-import",
        .purpose = "Makes a model of a bare PyTorch state_dict in safetensors form.  Inputs,\n"
                   "blocks, growth and widths are inferred from names and shapes and printed.",
        .operands = operands, .options = options,
        .notes = "FILE.csv has one row for each of the 28 features, in any order, in GeV and mm.\n"
                 "Fixed weights of energy sums may be absent from the state_dict: they are 1."
    };
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    base.feature_options.convention = (calomu_convention)convention;
    code = (int)tool_open(&c, 1);
    if (code != CALOMU_OK) return code;
    code = (int)import_run(c, in, out, standard, &base);
    calomu_close(c);
    return code;
}
