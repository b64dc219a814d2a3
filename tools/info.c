/* info.c - `calomu info`: describes one of our files and verifies all of it. */
#include "calomu_tool.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void info_number(const char *name, double x, int digits, const char *unit)
{
    char text[32];
    printf("  %-20s%s%s%s\n", name, isnan(x) ? "unknown" : calomu_number(text, x, digits),
           *unit && !isnan(x) ? " " : "", isnan(x) ? "" : unit);
}

static void info_whole(const char *name, uint64_t n, const char *unit)
{
    printf("  %-20s%llu%s%s\n", name, (unsigned long long)n, *unit ? " " : "", unit);
}

static void info_geometry(const calomu_geometry *g)
{
    char t[7][32];
    int i;
    for (i = 0; i < 3; i++) {
        (void)calomu_number(t[i], g->pitch[i], 10);
        (void)calomu_number(t[3 + i], g->origin[i], 10);
    }
    (void)calomu_number(t[6], g->field, 10);
    printf("  %-20s%d x %d x %d (z, x, y)\n", "cells", (int)g->nz, (int)g->nx, (int)g->ny);
    printf("  %-20s%s x %s x %s mm, low corner %s, %s, %s mm\n", "pitch", t[0], t[1], t[2], t[3],
           t[4], t[5]);
    printf("  %-20s%s T along +y\n", "field", t[6]);
}

static void info_standardisation(const double *mean, const double *deviation, int n)
{
    /* The network without clusters and moments takes the three energy sums. */
    static const int sums[3] = { 0, 26, 27 };
    char a[32], b[32];
    int i, k;
    if (n == 0) return;
    printf("  %-20s%-18s%-16s%s\n", "standardisation", "feature", "mean", "deviation");
    for (i = 0; i < n; i++) {
        k = n == 3 ? sums[i] : i;
        printf("  %-20s%-18s%-16s%s\n", "", calomu_feature_name(k),
               calomu_number(a, mean[k], 9), calomu_number(b, deviation[k], 9));
    }
}

static void info_feature_options(const calomu_feature_options *o)
{
    char text[32];
    printf("  %-20s%s, clusters grow over cells above %s GeV\n", "convention",
           calomu_convention_name(o->convention), calomu_number(text, (double)o->grow, 7));
}

/* ---------------------------------------------------------------- data files */

typedef struct info_range {
    double low, high;
    uint64_t absent;
} info_range;

typedef struct info_totals {
    info_range energy, x, y, hits, cell;     /* truth; hits per muon; energy of a hit */
    info_range losses[CALOMU_LOSSES];
    uint64_t positive, negative, empty, no_charge;
    double deposited;
} info_totals;

static void info_add(info_range *r, double value)
{
    if (isnan(value)) {
        r->absent++;
        return;
    }
    if (value < r->low) r->low = value;
    if (value > r->high) r->high = value;
}

static void info_event(info_totals *t, const calomu_event *e)
{
    size_t i;
    for (i = 0; e->losses && i < CALOMU_LOSSES; i++) info_add(&t->losses[i], (double)e->losses[i]);
    info_add(&t->energy, (double)e->energy);
    info_add(&t->x, (double)e->x);
    info_add(&t->y, (double)e->y);
    info_add(&t->hits, (double)e->n_hits);
    t->empty += e->n_hits == 0;
    t->positive += e->charge > 0;
    t->negative += e->charge < 0;
    t->no_charge += isnan(e->charge) != 0;
    for (i = 0; i < e->n_hits; i++) {
        info_add(&t->cell, (double)e->hits[i].energy);
        t->deposited += (double)e->hits[i].energy;
    }
}

static void info_print_range(const char *name, const info_range *r, const char *unit)
{
    char low[32], high[32];
    if (r->low > r->high) {
        printf("  %-20sunknown\n", name);
        return;
    }
    printf("  %-20s%s to %s%s%s", name, calomu_number(low, r->low, 6),
           calomu_number(high, r->high, 6), *unit ? " " : "", unit);
    if (r->absent) printf("; unknown for %llu muons", (unsigned long long)r->absent);
    putchar('\n');
}

static void info_print_features(const calomu_data_info *info)
{
    static const char *const state[] = {
        "none", "28, as computed", "28, standardised",
        "28, standardised with unknown mean and deviation"
    };
    printf("  %-20s%s\n", "features", state[info->features]);
    if (info->features != CALOMU_FEATURES_NONE) info_feature_options(&info->feature_options);
    if (info->features == CALOMU_FEATURES_STANDARDISED)
        info_standardisation(info->mean, info->deviation, CALOMU_FEATURES);
}

static void info_print_losses(const info_totals *t)
{
    info_print_range("energy lost", &t->losses[CALOMU_LOST], "GeV");
    info_print_range("energy deposited", &t->losses[CALOMU_DEPOSITED], "GeV");
    info_print_range("energy leaked", &t->losses[CALOMU_LEAKED], "GeV");
    info_print_range("energy unseen", &t->losses[CALOMU_UNSEEN], "GeV");
}

static void info_print_data(const char *path, const calomu_data_info *info, const info_totals *t)
{
    struct stat about;
    info_geometry(&info->geometry);
    info_whole("muons", info->n_events, "");
    info_whole("hits", info->n_hits, "");
    if (stat(path, &about) == 0) {
        info_whole("size", (uint64_t)about.st_size, "bytes");
        if (info->n_hits > 0)
            info_number("per hit", (double)about.st_size / (double)info->n_hits, 3, "bytes");
    }
    if (info->n_events > 0) {
        info_print_range("true energy", &t->energy, "GeV");
        info_print_range("impact x", &t->x, "mm");
        info_print_range("impact y", &t->y, "mm");
        printf("  %-20s+1: %llu, -1: %llu, unknown: %llu\n", "charge",
               (unsigned long long)t->positive, (unsigned long long)t->negative,
               (unsigned long long)t->no_charge);
        if (info->losses) info_print_losses(t);
        info_print_range("hits per muon", &t->hits, "");
        info_whole("muons without hits", t->empty, "");
        info_print_range("energy of a hit", &t->cell, "GeV");
        info_number("mean energy sum", t->deposited / (double)info->n_events, 6, "GeV per muon");
    }
    info_print_features(info);
    printf("%s: header, index and all %llu muons are verified\n", tool_shown(path),
           (unsigned long long)info->n_events);
}

static calomu_status info_read_all(calomu *c, const calomu_data *data, info_totals *t)
{
    enum { CHUNK = 256 };
    uint64_t first, n = calomu_data_describe(data)->n_events;
    calomu_events batch;
    calomu_status status = CALOMU_OK;
    tool_progress progress;
    size_t i, part;
    memset(&batch, 0, sizeof batch);
    tool_progress_begin(&progress, "verifying", "muons", n);
    for (first = 0; first < n && status == CALOMU_OK; first += part) {
        part = n - first < CHUNK ? (size_t)(n - first) : CHUNK;
        status = calomu_data_read(c, data, first, NULL, part, &batch);
        for (i = 0; i < part && status == CALOMU_OK; i++) info_event(t, &batch.event[i]);
        tool_progress_at(&progress, first + part, NULL);
    }
    tool_progress_end(&progress);
    calomu_events_free(&batch);
    return status;
}

static calomu_status info_data(calomu *c, const char *path)
{
    const info_range none = { DBL_MAX, -DBL_MAX, 0 };
    info_totals totals;
    calomu_data *data;
    int i;
    calomu_status status = calomu_data_open(c, path, &data);
    if (status != CALOMU_OK) return tool_report(c, status);
    memset(&totals, 0, sizeof totals);
    for (i = 0; i < CALOMU_LOSSES; i++) totals.losses[i] = none;
    totals.energy = totals.x = totals.y = totals.hits = totals.cell = none;
    status = info_read_all(c, data, &totals);
    if (status == CALOMU_OK) {
        printf("%s: data\n", tool_shown(path));
        info_print_data(path, calomu_data_describe(data), &totals);
    } else {
        (void)tool_report(c, status);
    }
    calomu_data_close(data);
    return status;
}

/* ---------------------------------------------------------------- models and checkpoints */

static void info_architecture(const calomu_architecture *a)
{
    const char *features = a->n_features == CALOMU_FEATURES ? "28 features"
                         : a->n_features == 3 ? "3 energy sums" : "";
    printf("  %-20s%s%s%s\n", "inputs", a->head ? "hits" : "",
           a->head && a->n_features ? " and " : "", features);
    if (a->head) {
        info_geometry(&a->geometry);
        info_whole("blocks", (uint64_t)a->blocks, "per resolution");
        info_number("growth", a->growth, 6, "");
    }
    info_whole("body", (uint64_t)a->body, "neurons per layer");
    if (a->n_features) info_feature_options(&a->feature_options);
    if (a->standardised_unknown)
        printf("  %-20sonly files with features standardised as in the authors' data\n",
               "takes");
}

static void info_training(const calomu_train_options *o)
{
    char a[32], b[32];
    info_whole("batch", (uint64_t)o->batch, "muons");
    (void)snprintf(a, sizeof a, "fold %d", (int)o->member + 1);
    printf("  %-20s%d, %s%s\n", "folds", (int)o->folds,
           o->shuffle ? "cut after a shuffle by the seed, " : "",
           o->holdout ? "fold 0 held out" : "none held out");
    printf("  %-20smember %d monitors %s; %s training\n", "", (int)o->member,
           o->separate ? "a validation set" : a, o->unique ? "unique-fold" : "all-fold");
    if (o->started) printf("  %-20sthose of another model\n", "first weights");
    info_whole("epochs", (uint64_t)o->epochs, "at most");
    info_whole("1cycle", (uint64_t)o->cycle_epochs, "epochs");
    printf("  %-20shalve after %d, stop after %d epochs\n", "no improvement", (int)o->patience,
           (int)o->stop_after);
    if (o->lr > 0)
        info_number("maximum LR", o->lr, 9, "");
    else
        printf("  %-20sby the number of updates\n", "maximum LR");
    info_whole("seed", o->seed, "");
    printf("  %-20s%d over %s to %s GeV, quantile ", "loss bins", (int)o->bins,
           calomu_number(a, o->bin_low, 9), calomu_number(b, o->bin_high, 9));
    printf("%s\n", calomu_number(a, o->quantile, 6));
}

static void info_record(const calomu_training *r)
{
    int v = (int)r->version;
    printf("  %-20scalomu %d.%d.%d%s\n", "trained by", v / 10000, v / 100 % 100, v % 100,
           r->changed ? "; its weights were in another program since" : "");
    printf("  %-20s%llu, checksum %016llx\n", "on muons", (unsigned long long)r->muons,
           (unsigned long long)r->fingerprint);
    info_training(&r->options);
    info_whole("best epoch", (uint64_t)r->epoch, "");
}

/* Members of one training differ in little: a line for each.  first: whose record stands above. */
static void info_member(const calomu_model *model, int member, const calomu_training *first)
{
    const calomu_training *r = calomu_model_training(model, member);
    char loss[32];
    double x = calomu_model_loss(model, member);
    printf("  member %-13dloss %s", member, isnan(x) ? "unknown" : calomu_number(loss, x, 9));
    if (!r) {
        printf(", training unknown\n");
        return;
    }
    printf(", best epoch %d, fold %d, seed %llu", (int)r->epoch, (int)r->options.member + 1,
           (unsigned long long)r->options.seed);
    if (r->fingerprint != first->fingerprint)
        printf("\n  %-20son muons of checksum %016llx", "", (unsigned long long)r->fingerprint);
    printf("%s\n", r->changed ? ", in another program since" : "");
}

static void info_trainings(const calomu_model *model)
{
    int i, members = calomu_model_describe(model)->members;
    const calomu_training *r = NULL;
    for (i = 0; i < members && !r; i++) r = calomu_model_training(model, i);
    if (r) info_record(r);
    else printf("  %-20sunknown\n", "training");
    if (members == 1) info_number("validation loss", calomu_model_loss(model, 0), 9, "");
    for (i = 0; members > 1 && i < members; i++) info_member(model, i, r);
}

static calomu_status info_model(calomu *c, const char *path)
{
    const calomu_model_info *info;
    calomu_model *model;
    calomu_status status = calomu_model_load(c, path, &model);
    if (status != CALOMU_OK) return tool_report(c, status);
    info = calomu_model_describe(model);
    printf("%s: model\n", tool_shown(path));
    info_architecture(&info->architecture);
    info_whole("parameters", info->parameters, info->members > 1 ? "per member" : "");
    info_whole("members", (uint64_t)info->members, "");
    info_trainings(model);
    if (!info->architecture.standardised_unknown)
        info_standardisation(info->mean, info->deviation, info->architecture.n_features);
    printf("%s: metadata and all tensors are verified\n", tool_shown(path));
    calomu_model_free(model);
    return CALOMU_OK;
}

static calomu_status info_checkpoint(calomu *c, const char *path)
{
    calomu_train_options options;
    calomu_architecture architecture;
    calomu_train_report last;
    int i;
    calomu_status status;
    memset(&last, 0, sizeof last);
    status = calomu_checkpoint_describe(c, path, &options, &architecture, &last);
    if (status != CALOMU_OK) return tool_report(c, status);
    printf("%s: checkpoint of a training\n", tool_shown(path));
    info_architecture(&architecture);
    info_training(&options);
    info_whole("epoch", (uint64_t)last.epoch, "");
    info_whole("updates", last.updates, "");
    info_number("LR", last.lr, 9, "");
    info_number("beta1", last.beta1, 9, "");
    info_number("training loss", last.training_loss, 9, "");
    info_number("validation loss", last.validation_loss, 9, "");
    for (i = 0; i < last.n_thresholds && i < 16; i++)
        info_number("threshold", last.thresholds[i] < 0 ? (double)calomu_absent()
                                                        : last.thresholds[i], 9, "GeV^2");
    printf("%s: metadata and all tensors are verified\n", tool_shown(path));
    return CALOMU_OK;
}

int verb_info(int argc, char **argv)
{
    const char *path = NULL;
    calomu_file_kind kind;
    calomu *c = NULL;
    tool_operand operands[] = { { .name = "FILE", .target = &path }, { .name = NULL } };
    tool_option options[] = { { .name = NULL } };
    tool_usage usage = {
        .verb = "info",
        .purpose = "Describes a data file (.cmu), a model or a checkpoint (.safetensors), and "
                   "verifies\nevery byte of it.",
        .operands = operands, .options = options
    };
    calomu_status status;
    int code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    status = tool_open(&c, 0);
    if (status != CALOMU_OK) return (int)status;
    status = calomu_file_identify(c, path, &kind);
    if (status != CALOMU_OK)
        status = tool_report(c, status);
    else if (kind == CALOMU_FILE_DATA)
        status = info_data(c, path);
    else if (kind == CALOMU_FILE_MODEL)
        status = info_model(c, path);
    else
        status = info_checkpoint(c, path);
    calomu_close(c);
    return (int)status;
}
