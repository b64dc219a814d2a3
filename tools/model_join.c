/* model_join.c - calomu model-join: models that were trained apart become one ensemble */
#include "calomu_tool.h"
#include <math.h>
#include <string.h>

enum { JOIN_MOST = 1000 };

typedef struct join_job {
    calomu *c;
    const char *path[JOIN_MOST], *out;
    calomu_model *model[JOIN_MOST];
    int n;
} join_job;

/* Which model it is that does not fit the first: the library counts, a person has names. */
static calomu_status join_blame(join_job *j, calomu_status status)
{
    calomu_model *pair[2], *both = NULL;
    int i;
    pair[0] = j->model[0];
    for (i = 1; i < j->n; i++) {
        calomu_status s;
        pair[1] = j->model[i];
        s = calomu_model_join(j->c, pair, 2, &both);
        calomu_model_free(both);
        both = NULL;
        if (s != CALOMU_OK)
            return tool_fail(s == CALOMU_EUSAGE ? CALOMU_EFORMAT : s, "%s does not fit %s: %s",
                             j->path[i], j->path[0], calomu_message(j->c));
    }
    return tool_report(j->c, status);
}

/* A member before number i that is of the same training, or -1. */
static int join_twin(const calomu_model *all, int i)
{
    const calomu_training *one = calomu_model_training(all, i), *other;
    int k;
    for (k = 0; one && k < i; k++) {
        other = calomu_model_training(all, k);
        if (other && other->fingerprint == one->fingerprint && other->epoch == one->epoch
            && other->options.seed == one->options.seed
            && other->options.member == one->options.member)
            return k;
    }
    return -1;
}

/* Members are weighted by 1/(validation loss): says where that is not what it seems. */
static void join_notices(const calomu_model *all)
{
    const calomu_training *first = calomu_model_training(all, 0), *one;
    int members = calomu_model_describe(all)->members, unknown = 0, elsewhere = 0, twin = -1, i;
    for (i = 0; i < members; i++) {
        one = calomu_model_training(all, i);
        unknown += isnan(calomu_model_loss(all, i)) != 0;
        elsewhere += first && one && one->fingerprint != first->fingerprint;
        if (twin < 0 && (twin = join_twin(all, i)) >= 0)
            tool_notice("members %d and %d are of the same data, seed and fold: equal networks"
                        " together are no better than one", twin, i);
    }
    if (unknown)
        tool_notice("the validation loss of %d of %d members is unknown: all weigh the same",
                    unknown, members);
    else if (elsewhere)
        tool_notice("%d of %d members were trained on other data than the first: the validation"
                    " losses, which weigh them, may not compare", elsewhere, members);
}

static calomu_status join_run(join_job *j)
{
    calomu_model *all = NULL;
    const calomu_model_info *info;
    int i;
    calomu_status s = CALOMU_OK;
    for (i = 0; i < j->n && s == CALOMU_OK; i++)
        s = calomu_model_load(j->c, j->path[i], &j->model[i]);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    s = calomu_model_join(j->c, j->model, j->n, &all);
    if (s != CALOMU_OK) return join_blame(j, s);
    s = calomu_model_save(j->c, all, j->out);
    if (s != CALOMU_OK) {
        (void)tool_report(j->c, s);
    } else {
        join_notices(all);
        info = calomu_model_describe(all);
        printf("model        %s\nmembers      %d\nparameters   %llu trainable per member\n",
               tool_shown(j->out), info->members, (unsigned long long)info->parameters);
    }
    calomu_model_free(all);
    return s;
}

int verb_model_join(int argc, char **argv)
{
    join_job j;
    int code, i;
    tool_operand operands[] = {
        { .name = "MODEL.safetensors", .target = j.path, .most = JOIN_MOST, .count = &j.n },
        { .name = NULL }
    };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &j.out, .value = "ENSEMBLE.safetensors",
          .file = TOOL_WRITES, .help = "ensemble to write", .needed = 1 },
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "model-join",
        .purpose = "Joins models that were trained apart (train --member K) to one ensemble.",
        .operands = operands, .options = options,
        .notes = "All must be for the same calorimeter, features and network.  A model may be\n"
                 "an ensemble itself: its members join.  predict weighs each member by\n"
                 "1/(its validation loss), or all the same where one is unknown."
    };
    memset(&j, 0, sizeof j);
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    code = (int)tool_open(&j.c, 1);
    if (code != CALOMU_OK) return code;
    code = (int)join_run(&j);
    for (i = 0; i < j.n; i++) calomu_model_free(j.model[i]);
    calomu_close(j.c);
    return code;
}
