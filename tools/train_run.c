/* train_run.c - one network or an ensemble, from the first step or a checkpoint to the model

   What a kill leaves, and why a resumed run gives the same bytes.  The checkpoint is the whole
   state between two steps and replaces the last one atomically; a run that finds none starts from
   the beginning, which is the same training.  At the end of an epoch its line goes to the log
   first and the checkpoint follows, so no line is ever lost; lines of epochs that the checkpoint
   has not seen the end of are cut on resume, as these epochs are run again.  The checkpoint is
   removed only after the model is in place.  Where a log is there already it belongs to a model
   that is there: until that is replaced, lines go to LOG.new.  An ensemble uses one checkpoint for
   its members one after the other: the first checkpoint of member k + 1 is written after the model
   of member k.  */
#include "train.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "plot.h"

typedef struct train_run {           /* one network */
    train_job *job;
    char *out;
    calomu_trainer *trainer;
    train_log log;
    calomu_train_options options;    /* in force */
    calomu_train_report last;
    double epoch_start, saved, update_seconds;
    uint64_t updates;                /* of this process */
    int stepped;                     /* 1: there was something left to do */
    tool_progress progress;
    uint64_t base;                   /* muons that the progress does not count */
    int shown;                       /* 1: progress has begun */
} train_run;

/* ---------------------------------------------------------------- how to go on */

/* Whether the shell hands this word on as it stands. */
static int train_plain(const char *word)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "_-+=./,:@%";
    return *word && word[strspn(word, letters)] == 0;
}

/* Appends a word to a command, quoted for the shell where needed; returns the new end.  A quote
   takes 4 bytes, so 4 bytes per byte and 3 more are enough. */
static char *train_quote(char *to, const char *word)
{
    *to++ = ' ';
    if (train_plain(word)) {
        size_t n = strlen(word);
        memcpy(to, word, n);
        return to + n;
    }
    *to++ = '\'';
    for (; *word; word++) {
        if (*word == '\'') {
            memcpy(to, "'\\''", 4);
            to += 4;
        } else {
            *to++ = *word;
        }
    }
    *to++ = '\'';
    return to;
}

/* Says how to go on.  Nothing depends on it, so without memory it says less. */
static void train_say_resume(const train_job *j, const char *why)
{
    size_t room = 64;
    char *text, *end;
    int i;
    for (i = 0; i < j->argc; i++) room += 4 * strlen(j->argv[i]) + 4;
    text = malloc(room);
    if (!text) {
        tool_notice("%s: go on with the same command and --resume", why);
        return;
    }
    end = text;
    for (i = 0; i < j->argc; i++) end = train_quote(end, j->argv[i]);
    if (!j->resume) end = train_quote(end, "--resume");
    *end = 0;
    tool_notice("%s; go on with: calomu%s", why, text);
    free(text);
}

/* ---------------------------------------------------------------- one network */

/* Epochs whose end the record has seen. */
static int32_t train_completed(const calomu_train_report *r)
{
    if (r->kind == CALOMU_TRAIN_EPOCH || r->kind == CALOMU_TRAIN_DONE) return r->epoch;
    return r->epoch > 0 ? r->epoch - 1 : 0;
}

static calomu_status train_save(train_run *r)
{
    train_job *j = r->job;
    calomu_status s = calomu_trainer_save(j->c, r->trainer, j->checkpoint_path);
    r->saved = tool_seconds();
    return s == CALOMU_OK ? s : tool_report(j->c, s);
}

static int32_t train_more(const train_job *j, const char *option, int32_t here, int32_t there)
{
    return tool_given(j->usage, option) && here > there ? here : there;
}

static calomu_status train_resume(train_run *r)
{
    train_job *j = r->job;
    train_file file = { "checkpoint", NULL, ", or start again without --resume" };
    calomu_train_options options;
    calomu_architecture architecture;
    calomu_status s = calomu_checkpoint_describe(j->c, j->checkpoint_path, &options, &architecture,
                                                 &r->last);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    file.path = j->checkpoint_path;
    s = train_agree(j, &options, &architecture, &file);
    if (s != CALOMU_OK) return s;
    if (options.started && j->members && !j->start)
        return tool_misuse("--start is needed again, for the members that follow");
    s = calomu_trainer_resume_with(j->c, j->data, j->validation, j->checkpoint_path, &r->trainer);
    if (s == CALOMU_OK && train_longer(j, &options))
        s = calomu_trainer_extend(j->c, r->trainer, train_more(j, "epochs", j->options.epochs,
                                                               options.epochs),
                                  train_more(j, "stop-after", j->options.stop_after,
                                             options.stop_after));
    if (s != CALOMU_OK) return tool_report(j->c, s);
    r->options = *calomu_trainer_options(r->trainer);
    /* for later members too; the learning rate in force is the same for all of them */
    j->options = r->options;
    j->options.start = j->start;
    j->architecture = *calomu_trainer_architecture(r->trainer);
    tool_notice("resuming from %s after %d whole epochs; options that were not given are those of"
                " the checkpoint", j->checkpoint_path, (int)train_completed(&r->last));
    s = train_log_open(&r->log, &r->options, &r->last, train_completed(&r->last));
    r->saved = tool_seconds();
    return s;
}

static calomu_status train_start(train_run *r)
{
    train_job *j = r->job;
    calomu_status s = calomu_trainer_create(j->c, j->data, &j->architecture, &r->options,
                                            &r->trainer);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    r->options = *calomu_trainer_options(r->trainer);
    if (r->options.shuffle)
        tool_notice("the muons are shuffled by seed %" PRIu64 " before they are cut into folds",
                    r->options.seed);
    s = train_log_open(&r->log, &r->options, NULL, 0);
    if (s != CALOMU_OK) return s;
    s = train_save(r);
    if (s != CALOMU_OK) train_remove(r->log.path);       /* it has no line yet */
    return s;
}

/* The total is an upper bound: training may stop early. */
static void train_show(train_run *r)
{
    const calomu_train_report *p = &r->last;
    uint64_t epochs = (uint64_t)r->options.epochs, at;
    char note[160];                  /* four numbers and 40 letters at most */
    size_t n;
    if (p->epoch < 1 || p->total == 0) return;
    at = (uint64_t)(p->epoch - 1) * p->total + p->done;
    if (!r->shown) {
        r->base = at;
        tool_progress_begin(&r->progress, "train", "muons",
                            epochs * p->total > at ? epochs * p->total - at : 0);
        r->shown = 1;
    }
    n = (size_t)snprintf(note, sizeof note, "epoch %d/%d, loss %.4g", (int)p->epoch,
                         (int)r->options.epochs, p->training_loss);
    if (r->log.best_epoch)
        n += (size_t)snprintf(note + n, sizeof note - n, ", best %.4g", r->log.best_loss);
    if (r->log.best_epoch && isfinite(r->log.mi))
        (void)snprintf(note + n, sizeof note - n, ", MI %.1f", r->log.mi);
    tool_progress_at(&r->progress, at - r->base, note);
}

static calomu_status train_epoch(train_run *r)
{
    double now = tool_seconds();
    calomu_status s = train_log_epoch(&r->log, &r->last, now - r->epoch_start);
    r->epoch_start = now;
    return s == CALOMU_OK ? train_save(r) : s;
}

/* Steps until all is done, a signal comes or something fails. */
static calomu_status train_loop(train_run *r)
{
    calomu_status s = CALOMU_OK;
    r->epoch_start = tool_seconds();
    while (s == CALOMU_OK) {
        double start = tool_seconds();
        if (tool_stop) {
            s = train_save(r);
            return s == CALOMU_OK ? CALOMU_STOPPED : s;
        }
        s = calomu_trainer_step(r->job->c, r->trainer, &r->last);
        if (s != CALOMU_OK) return tool_report(r->job->c, s);
        if (r->last.kind == CALOMU_TRAIN_DONE) return CALOMU_OK;
        r->stepped = 1;
        if (r->last.kind == CALOMU_TRAIN_UPDATE) {
            r->update_seconds += tool_seconds() - start;
            r->updates++;
        }
        train_show(r);
        if (r->last.kind == CALOMU_TRAIN_EPOCH) s = train_epoch(r);
        else if (tool_seconds() - r->saved >= 60 * r->job->minutes) s = train_save(r);
    }
    return s;
}

static void train_summary(const train_run *r, const calomu_model *model)
{
    const train_log *l = &r->log;
    uint64_t muons = r->updates * (uint64_t)r->options.batch;
    char monitored[32];
    (void)snprintf(monitored, sizeof monitored, "fold %d", (int)r->options.member + 1);
    printf("model            %s\n", tool_shown(r->out));
    printf("parameters       %" PRIu64 "\n", calomu_model_describe(model)->parameters);
    printf("epochs           %d, %" PRIu64 " updates of %d muons\n", (int)r->last.epoch,
           r->last.updates, (int)r->options.batch);
    if (l->best_epoch) printf("best epoch       %d\n", (int)l->best_epoch);
    printf("validation loss  %.6g\n", calomu_model_loss(model, 0));
    if (r->options.separate)
        (void)snprintf(monitored, sizeof monitored, "validation set");
    if (l->best_epoch && !isnan(l->mi))
        printf("MI               %.2f points, worst combined resolution %.2f%% (%s, %g to %g"
               " GeV)\n", l->mi, l->worst, monitored, r->options.range_low,
               r->options.range_high);
    if (r->options.shuffle) printf("shuffle          by seed %" PRIu64 "\n", r->options.seed);
    if (calomu_trainer_memory(r->trainer))
        printf("memory of a step %.1f MB\n", (double)calomu_trainer_memory(r->trainer) / 1e6);
    if (muons)
        printf("training time    %.3f ms per muon and update\n",
               1000 * r->update_seconds / (double)muons);
    printf("log              %s\n", tool_shown(l->path));
}

/* Saves the best state, with its log; the checkpoint stays, whatever happens. */
static calomu_status train_model(train_run *r)
{
    train_job *j = r->job;
    calomu_model *model = NULL;
    calomu_status s = calomu_trainer_model(j->c, r->trainer, &model);
    if (s == CALOMU_OK) s = calomu_model_save(j->c, model, r->out);
    if (s != CALOMU_OK) tool_report(j->c, s);
    /* of an ensemble the old model, and with it the old logs, stay until all are joined */
    else if (j->members == 0) s = train_log_place(&r->log);
    if (s == CALOMU_OK) train_summary(r, model);
    calomu_model_free(model);
    return s;
}

/* A loss that is not finite: the best state so far, if there is one, becomes the model. */
static void train_rescue(train_run *r)
{
    train_job *j = r->job;
    calomu_model *model = NULL;
    if (calomu_trainer_model(j->c, r->trainer, &model) != CALOMU_OK) {
        tool_notice("no epoch had ended: there is no model to keep; try a lower --lr (and remove"
                    " %s first)", j->checkpoint_path);
        return;
    }
    if (calomu_model_save(j->c, model, r->out) != CALOMU_OK)
        tool_notice("the best state so far could not be kept: %s", calomu_message(j->c));
    else if (j->members > 0 || train_log_place(&r->log) == CALOMU_OK)
        tool_notice("the best state so far (epoch %d, validation loss %.6g) is kept as %s; to"
                    " train further try a lower --lr (and remove %s first)",
                    (int)r->log.best_epoch, calomu_model_loss(model, 0), r->out,
                    j->checkpoint_path);
    calomu_model_free(model);
}

static calomu_status train_drive(train_run *r, int resume)
{
    train_job *j = r->job;
    calomu_status s = resume ? train_resume(r) : train_start(r);
    if (s != CALOMU_OK) return s;
    tool_notice("training on %s; checkpoint %s, log %s", j->data_path, j->checkpoint_path,
                r->log.path);
    s = train_loop(r);
    tool_progress_end(&r->progress);
    if (s == CALOMU_OK) s = train_model(r);
    else if (s == CALOMU_ENOTFINITE) train_rescue(r);
    if (s == CALOMU_STOPPED)
        train_say_resume(j, tool_stop == SIGINT ? "stopped by an interrupt, state kept"
                                                : "stopped by a signal, state kept");
    else if (s != CALOMU_OK && s != CALOMU_ENOTFINITE)
        train_say_resume(j, "the last checkpoint stays");
    return s;
}

static calomu_status train_plot(const train_run *r, int member)
{
    char *prefix = train_plot_prefix(r->job, member);
    calomu_status s = prefix ? plot_history(r->job->c, prefix, r->log.path) : CALOMU_EMEMORY;
    free(prefix);
    return s;
}

calomu_status train_one(train_job *j, int member, int resume)
{
    train_run r;
    calomu_status s = CALOMU_EMEMORY;
    memset(&r, 0, sizeof r);
    r.job = j;
    r.log.fd = -1;
    r.options = j->options;
    if (member >= 0) r.options.member = member;
    r.out = train_model_path(j, member);
    r.log.path = train_log_path(j, member);
    if (r.out && r.log.path) s = train_drive(&r, resume);
    if (r.log.fd >= 0 && close(r.log.fd) != 0 && s == CALOMU_OK) s = train_log_fail(&r.log);
    if (s == CALOMU_OK && j->plots) s = train_plot(&r, member);
    if (s == CALOMU_OK && resume && !r.stepped && member < 0 && !j->keep) {
        tool_notice("this training had ended: %s stays, for a longer one (--resume with --epochs"
                    " above %d)", j->checkpoint_path, (int)r.options.epochs);
        j->keep = 1;
    }
    calomu_trainer_free(r.trainer);
    free(r.log.path);
    free(r.log.final);
    free(r.out);
    return s;
}

/* ---------------------------------------------------------------- ensembles */

/* The member that a checkpoint belongs to; all before it must have left their models. */
static calomu_status train_first_member(const train_job *j, int *first)
{
    calomu_train_options options;
    calomu_file_kind kind;
    calomu_status s = calomu_checkpoint_describe(j->c, j->checkpoint_path, &options, NULL, NULL);
    int k;
    if (s != CALOMU_OK) return tool_report(j->c, s);
    if (options.member >= j->members)
        return tool_misuse("--members %d: the checkpoint %s is of member %d",
                           (int)j->members, j->checkpoint_path, (int)options.member);
    for (k = 0; k < options.member; k++) {
        char *path = train_model_path(j, k);
        if (!path) return CALOMU_EMEMORY;
        s = calomu_file_identify(j->c, path, &kind);
        if (s != CALOMU_OK) s = tool_report(j->c, s);
        else if (kind != CALOMU_FILE_MODEL)
            s = tool_fail(CALOMU_EFORMAT, "%s: not the model of member %d", path, k);
        free(path);
        if (s != CALOMU_OK) return s;
    }
    *first = options.member;
    return CALOMU_OK;
}

static calomu_status train_join(const train_job *j, calomu_model **models)
{
    calomu_model *ensemble = NULL;
    calomu_status s = CALOMU_OK;
    int k;
    for (k = 0; k < j->members; k++) {
        char *path = train_model_path(j, k);
        if (!path) return CALOMU_EMEMORY;
        s = calomu_model_load(j->c, path, &models[k]);
        free(path);
        if (s != CALOMU_OK) return tool_report(j->c, s);
    }
    s = calomu_model_join(j->c, models, (int)j->members, &ensemble);
    if (s == CALOMU_OK) s = calomu_model_save(j->c, ensemble, j->out);
    calomu_model_free(ensemble);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    printf("ensemble         %s\nmembers          %d\n", tool_shown(j->out), (int)j->members);
    for (k = 0; k < j->members; k++)
        printf("member %-9d validation loss %.6g\n", k, calomu_model_loss(models[k], 0));
    return CALOMU_OK;
}

/* The logs of all members take their names. */
static calomu_status train_join_logs(const train_job *j)
{
    calomu_status s = CALOMU_OK;
    int k, there = 0;
    for (k = 0; k < j->members && s == CALOMU_OK; k++) {
        train_log l = { 0 };
        l.final = train_log_path(j, k);
        l.path = l.final ? train_text("%s.new", l.final) : NULL;
        s = l.path ? train_look(l.path, &there) : CALOMU_EMEMORY;
        if (s == CALOMU_OK && there) s = train_log_place(&l);
        free(l.path);
        free(l.final);
    }
    return s;
}

void train_clear(const train_job *j)
{
    int k;
    if (!j->keep) train_remove(j->checkpoint_path);
    for (k = 0; k < j->members; k++) {
        char *path = train_model_path(j, k);
        if (path) train_remove(path);
        free(path);
    }
}

calomu_status train_members(train_job *j, int resume)
{
    calomu_model **models;
    calomu_status s = CALOMU_OK;
    int k, first = 0;
    if (resume) s = train_first_member(j, &first);
    for (k = first; s == CALOMU_OK && k < j->members; k++) {
        tool_notice("member %d of %d", k, (int)j->members);
        s = train_one(j, k, resume && k == first);
    }
    if (s != CALOMU_OK) return s;
    models = calloc((size_t)j->members, sizeof *models);
    if (!models) return tool_fail(CALOMU_EMEMORY, "no memory for %d members", (int)j->members);
    s = train_join(j, models);
    if (s == CALOMU_OK) s = train_join_logs(j);
    for (k = 0; k < j->members; k++) calomu_model_free(models[k]);
    free(models);
    return s;
}
