/* train_agree.c - the options of a training against those that a file tells of. */
#include "train.h"

#include <string.h>

typedef struct train_field {         /* one option and its value here and in the file */
    const char *name;
    char type;                       /* i: int32_t, c: int32_t that stands for a word, */
                                     /*   u: uint64_t, d: double, f: float */
    const void *here, *there;
} train_field;

static double train_value(const train_field *f, const void *at)
{
    int32_t i;
    double d;
    float x;
    if (f->type == 'i' || f->type == 'c') {
        memcpy(&i, at, sizeof i);
        return i;
    }
    if (f->type == 'f') {
        memcpy(&x, at, sizeof x);
        return (double)x;
    }
    memcpy(&d, at, sizeof d);
    return d;
}

static int train_differs(const train_field *f)
{
    double a, b;
    if (f->type == 'u') return memcmp(f->here, f->there, sizeof(uint64_t)) != 0;
    a = train_value(f, f->here);
    b = train_value(f, f->there);
    return a < b || a > b;
}

static calomu_status train_conflict(const train_field *f, const train_file *file)
{
    char here[32], there[32];
    if (f->type == 'u' || f->type == 'c')
        return tool_misuse("--%s is not that of the %s %s; leave it out%s", f->name, file->kind,
                           file->path, file->way_out);
    return tool_misuse("--%s: %s here but %s in the %s %s; leave it out%s", f->name,
                       calomu_number(here, train_value(f, f->here), 9),
                       calomu_number(there, train_value(f, f->there), 9), file->kind, file->path,
                       file->way_out);
}

static calomu_status train_compare(const train_job *j, const train_field *fields, size_t n,
                                   const train_file *file)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (tool_given(j->usage, fields[i].name) && train_differs(&fields[i]))
            return train_conflict(&fields[i], file);
    return CALOMU_OK;
}

calomu_status train_agree_network(const train_job *j, const calomu_architecture *a,
                                  const train_file *file)
{
    const calomu_architecture *b = &j->architecture;
    const int32_t convention = (int32_t)a->feature_options.convention;
    const int32_t want = (int32_t)j->convention;
    const train_field fields[] = {
        { "inputs", 'c', &b->head, &a->head }, { "inputs", 'c', &b->n_features, &a->n_features },
        { "blocks", 'i', &b->blocks, &a->blocks }, { "body", 'i', &b->body, &a->body },
        { "growth", 'd', &b->growth, &a->growth },
        { "convention", 'c', &want, &convention },
        { "grow", 'f', &j->grow, &a->feature_options.grow }
    };
    return train_compare(j, fields, sizeof fields / sizeof fields[0], file);
}

int train_longer(const train_job *j, const calomu_train_options *o)
{
    return !j->members
        && ((tool_given(j->usage, "epochs") && j->options.epochs > o->epochs)
            || (tool_given(j->usage, "stop-after") && j->options.stop_after > o->stop_after));
}

calomu_status train_agree(const train_job *j, const calomu_train_options *o,
                          const calomu_architecture *a, const train_file *file)
{
    const calomu_train_options *h = &j->options;
    const int32_t start = j->start_path != NULL, validation = j->validation_path != NULL;
    const char *numbers = j->energy_range && strcmp(j->energy_range, "auto") != 0 ? "energy-range"
                                                                                 : "";
    const train_field fields[] = {
        { "batch", 'i', &h->batch, &o->batch }, { "folds", 'i', &h->folds, &o->folds },
        { "holdout", 'c', &h->holdout, &o->holdout }, { "unique", 'c', &h->unique, &o->unique },
        { "shuffle", 'c', &h->shuffle, &o->shuffle },
        { "start", 'c', &start, &o->started }, { "validation", 'c', &validation, &o->separate },
        { "member", 'i', &h->member, &o->member },
        { "cycle-epochs", 'i', &h->cycle_epochs, &o->cycle_epochs },
        { "patience", 'i', &h->patience, &o->patience },
        { "lr", 'd', &h->lr, &o->lr }, { "seed", 'u', &h->seed, &o->seed },
        { "loss-bins", 'i', &h->bins, &o->bins },
        { "loss-range", 'd', &h->bin_low, &o->bin_low },
        { "loss-range", 'd', &h->bin_high, &o->bin_high },
        { numbers, 'd', &h->bin_low, &o->bin_low }, { numbers, 'd', &h->bin_high, &o->bin_high },
        { "quantile", 'd', &h->quantile, &o->quantile },
        { "weight-centre", 'd', &h->weight_centre, &o->weight_centre },
        { "weight-low", 'd', &h->weight_low, &o->weight_low },
        { "weight-high", 'd', &h->weight_high, &o->weight_high },
        { numbers, 'd', &h->weight_centre, &o->weight_centre },
        { "range", 'd', &h->range_low, &o->range_low },
        { "range", 'd', &h->range_high, &o->range_high },
        { numbers, 'd', &h->range_low, &o->range_low },
        { "fit-bins", 'i', &h->fit_bins, &o->fit_bins }, { "bins", 'i', &h->mi_bins, &o->mi_bins },
        { "tracker", 'd', &h->tracker, &o->tracker },
        { "outside", 'd', &h->outside, &o->outside }
    };
    const train_field length[] = {
        { "epochs", 'i', &h->epochs, &o->epochs },
        { "stop-after", 'i', &h->stop_after, &o->stop_after }
    };
    calomu_status s = train_compare(j, fields, sizeof fields / sizeof fields[0], file);
    if (s == CALOMU_OK) s = train_agree_network(j, a, file);
    if (s != CALOMU_OK || train_longer(j, o)) return s;
    return train_compare(j, length, sizeof length / sizeof length[0], file);
}
