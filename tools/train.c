/* train.c - `calomu train`: what the command line asks for, checked against the files that are
   there; train_run.c does it. */
#include "train.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "plot.h"

enum { TRAIN_HYBRID, TRAIN_HITS, TRAIN_FEATURES, TRAIN_SUMS };   /* as in --inputs */

/* The network of the model to start from: options may repeat what it is. */
static calomu_status train_start_from(train_job *j)
{
    train_file file = { "model", j->start_path, "" };
    const calomu_model_info *info;
    calomu_status s = calomu_model_load(j->c, j->start_path, &j->start);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    info = calomu_model_describe(j->start);
    s = train_agree_network(j, &info->architecture, &file);
    j->architecture = info->architecture;
    j->options.start = j->start;
    return s;
}

/* The network's geometry and features: as the file has them unless options say otherwise. */
static calomu_status train_architecture(train_job *j)
{
    const calomu_data_info *d = calomu_data_describe(j->data);
    calomu_feature_options *f = &j->architecture.feature_options;
    int unknown = d->features == CALOMU_FEATURES_STANDARDISED_UNKNOWN;
    if (j->start_path) return train_start_from(j);
    j->architecture.geometry = d->geometry;
    if (!j->architecture.n_features) return CALOMU_OK;
    j->architecture.standardised_unknown = unknown;
    if (d->features != CALOMU_FEATURES_NONE) *f = d->feature_options;
    if (unknown && ((tool_given(j->usage, "convention")
                     && j->convention != (int)f->convention)
                    || (tool_given(j->usage, "grow")
                        && (j->grow < f->grow || j->grow > f->grow))))
        return tool_misuse("%s carries standardised features that cannot be computed anew: leave"
                           " out --convention and --grow", j->data_path);
    if (tool_given(j->usage, "convention")) f->convention = (calomu_convention)j->convention;
    if (tool_given(j->usage, "grow")) f->grow = j->grow;
    return CALOMU_OK;
}

/* Bins, weights and range of the MI for muons of these energies; single options go before it. */
static void train_set_range(train_job *j, double low, double high)
{
    const calomu_train_options given = j->options;
    calomu_train_options *o = &j->options;
    calomu_train_options_range(o, low, high);
    if (tool_given(j->usage, "loss-range")) {
        o->bin_low = given.bin_low;
        o->bin_high = given.bin_high;
    }
    if (tool_given(j->usage, "weight-centre")) o->weight_centre = given.weight_centre;
    if (tool_given(j->usage, "weight-low")) o->weight_low = given.weight_low;
    if (tool_given(j->usage, "weight-high")) o->weight_high = given.weight_high;
    if (tool_given(j->usage, "range")) {
        o->range_low = given.range_low;
        o->range_high = given.range_high;
    }
}

/* "auto" waits for the muons. */
static calomu_status train_check_range(train_job *j)
{
    double end[2];
    if (!j->energy_range || strcmp(j->energy_range, "auto") == 0) return CALOMU_OK;
    if (tool_numbers(j->energy_range, TOOL_PAIR_BETWEEN, end, 2) != 2
        || !(end[0] >= 0 && end[0] < end[1] && end[1] <= 1e9))
        return tool_misuse("--energy-range: '%s' is neither auto nor LOW,HIGH with 0 <= LOW < HIGH"
                           " (GeV)", j->energy_range);
    train_set_range(j, end[0], end[1]);
    return CALOMU_OK;
}

/* What tool_parse cannot see. */
static calomu_status train_check(train_job *j)
{
    calomu_train_options *o = &j->options;
    j->architecture.head = j->inputs == TRAIN_HYBRID || j->inputs == TRAIN_HITS;
    j->architecture.n_features = j->inputs == TRAIN_HITS ? 0 : j->inputs == TRAIN_SUMS ? 3
                               : CALOMU_FEATURES;
    o->holdout = j->holdout;
    o->unique = j->unique;
    o->shuffle = j->shuffle;
    o->range_low = j->range[0];
    o->range_high = j->range[1];
    o->bin_low = j->loss_range[0];
    o->bin_high = j->loss_range[1];
    if (tool_given(j->usage, "members") && tool_given(j->usage, "member"))
        return tool_misuse("--member is one network and --members an ensemble: give one of them");
    if (j->keep && j->members)
        return tool_misuse("--keep-checkpoint is for a single network: an ensemble's checkpoint is"
                           " of one member at a time");
    if (j->unique && j->validation_path)
        return tool_misuse("--unique monitors folds, and --validation a file: give one of them");
    return train_check_range(j);
}

/* Whether there are folds for all members: found now, not after days at the last of them. */
static calomu_status train_folds(const train_job *j)
{
    const calomu_train_options *o = &j->options;
    if (j->members >= o->folds)
        return tool_misuse("--members %d: member k monitors fold k+1, and %d folds are too few",
                           (int)j->members, (int)o->folds);
    if (o->unique && j->members > 5)
        return tool_misuse("--members %d: --unique shares the folds among 5 members",
                           (int)j->members);
    return CALOMU_OK;
}

/* Where the checkpoint is and whether to resume; the other form's checkpoint must not be there,
   or an ensemble would be resumed as a single network. */
static calomu_status train_checkpoint(train_job *j, int *resume)
{
    const char *base = j->checkpoint ? j->checkpoint : j->out;
    const char *ending = j->checkpoint ? "" : ".checkpoint";
    char *single = train_text("%s%s", base, ending);
    char *several = train_text("%s%s.members", base, ending);
    const char *other = j->members ? single : several;
    int there = 0, others = 0;
    calomu_status s = single && several ? CALOMU_OK : CALOMU_EMEMORY;
    j->checkpoint_path = j->members ? several : single;
    if (s == CALOMU_OK) s = train_look(other, &others);
    if (s == CALOMU_OK) s = train_look(j->checkpoint_path, &there);
    if (s == CALOMU_OK && others) {
        s = tool_misuse("%s is the checkpoint of %s; %s, or remove it", other,
                        j->members ? "a single network" : "an ensemble",
                        j->members ? "leave out --members" : "give --members N");
    } else if (s == CALOMU_OK && there && !j->resume) {
        s = tool_misuse("%s is there from a training that has not ended, or whose checkpoint was"
                        " kept: give --resume to go on with it, or remove it",
                        j->checkpoint_path);
    }
    *resume = j->resume && there;
    free(j->members ? single : several);
    return s;
}

/* --resume without a checkpoint: the model may be what this training has already ended with. */
static calomu_status train_already(const train_job *j, int *already)
{
    train_file file = { "model", j->out, ", or start again without --resume" };
    calomu_train_options o;
    calomu_architecture a;
    int there, members = 0;
    calomu_status s = train_look(j->out, &there), agree;
    if (s != CALOMU_OK) return s;
    if (there)
        s = calomu_trainer_ended(j->c, j->data, j->validation, j->out, &o, &a, &members);
    if (!members) {                    /* no model, or one that was not trained to its end here */
        if (s == CALOMU_EIO || s == CALOMU_EMEMORY) return tool_report(j->c, s);
        tool_notice("no checkpoint %s%s: training starts from the beginning", j->checkpoint_path,
                    there ? ", and the model does not tell of a training that has ended" : "");
        return CALOMU_OK;
    }
    if (members != (j->members ? j->members : 1))
        return tool_misuse("--members: %s is %d network%s; leave out --resume to train it anew,"
                           " or train --member K apart and model-join them", j->out, members,
                           members > 1 ? "s" : "");
    if (train_longer(j, &o))
        return tool_misuse("%s: this training has ended after at most %d epochs and left no"
                           " checkpoint to go on from (--keep-checkpoint keeps it); --start %s"
                           " --out OTHER goes on from its weights", j->out, (int)o.epochs,
                           j->out);
    agree = train_agree(j, &o, &a, &file);
    if (agree != CALOMU_OK) return agree;
    if (s != CALOMU_OK) return tool_report(j->c, s);
    tool_notice("%s is the result of this training, which has ended: nothing to do (without"
                " --resume it starts anew)", j->out);
    *already = 1;
    return CALOMU_OK;
}

/* The energies that all members are to be trained for, and whether the folds of all are fit: found
   now, not after days at the last of them. */
static calomu_status train_energies(train_job *j)
{
    int automatic = j->energy_range && strcmp(j->energy_range, "auto") == 0;
    calomu_train_options o = j->options;
    double low, high, least = 0, most = 0;
    int k;
    if (!automatic && j->members < 2) return CALOMU_OK;
    for (k = 0; k < (j->members ? j->members : 1); k++) {
        calomu_status s;
        if (j->members) o.member = k;
        s = calomu_train_energies(j->c, j->data, &o, &low, &high);
        if (s != CALOMU_OK) return tool_report(j->c, s);
        if (k == 0 || low < least) least = low;
        if (k == 0 || high > most) most = high;
    }
    if (!automatic) return CALOMU_OK;
    train_set_range(j, least, most);
    tool_notice("energies of %g to %g GeV: loss bins from %g to %g, weights fall at %g, MI from %g"
                " to %g GeV", least, most, j->options.bin_low, j->options.bin_high,
                j->options.weight_centre, j->options.range_low, j->options.range_high);
    return CALOMU_OK;
}

static calomu_status train_open(train_job *j)
{
    calomu_status s = tool_set_open(j->c, (const char *const *)j->data_files.path,
                                    j->data_files.n, &j->data_set);
    if (s == CALOMU_OK && j->validation_files.n)
        s = tool_set_open(j->c, (const char *const *)j->validation_files.path,
                          j->validation_files.n, &j->validation_set);
    if (s != CALOMU_OK) return s;
    j->data = j->data_set.data;
    j->data_path = j->data_set.name;
    j->options.validation = j->validation = j->validation_set.data;
    if (j->validation) j->validation_path = j->validation_set.name;
    return s;
}

/* A target that cannot be written is found before the training, not after it. */
static calomu_status train_try_output(train_job *j)
{
    calomu_output *output = NULL;
    struct stat there;
    calomu_status s;
    if (stat(j->out, &there) == 0 && !S_ISREG(there.st_mode) && !S_ISDIR(there.st_mode))
        return CALOMU_OK;            /* who reads from a pipe takes its closing for the end */
    s = calomu_output_open(j->c, j->out, &output);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    calomu_output_abandon(output);
    return CALOMU_OK;
}

/* The files of member k, or of a single network (-1), whose names are made up here.  The locks of
   member 0 stand for those of all members. */
static calomu_status train_claim_member(const train_job *j, int member)
{
    tool_file file = member > 0 ? TOOL_DERIVED : TOOL_WRITES;
    char *log = train_log_path(j, member), *model = NULL, *plots = NULL;
    char *fresh = log ? train_text("%s.new", log) : NULL;
    calomu_status s = fresh ? CALOMU_OK : CALOMU_EMEMORY;
    if (s == CALOMU_OK && (member >= 0 || !j->log)) s = tool_claim(file, "the log", log);
    if (s == CALOMU_OK) s = tool_claim(TOOL_DERIVED, "the new log", fresh);
    if (s == CALOMU_OK && member >= 0) {
        model = train_model_path(j, member);
        s = model ? tool_claim(TOOL_DERIVED, "the member", model) : CALOMU_EMEMORY;
    }
    if (s == CALOMU_OK && j->plots) {
        plots = train_plot_prefix(j, member);
        s = plots ? plot_claim(file, plots, "history") : CALOMU_EMEMORY;
    }
    free(log);
    free(fresh);
    free(model);
    free(plots);
    return s;
}

static calomu_status train_claim(const train_job *j)
{
    calomu_status s = CALOMU_OK;
    int k;
    if (j->members || !j->checkpoint) s = tool_claim(TOOL_WRITES, "the checkpoint",
                                                     j->checkpoint_path);
    if (!j->members && s == CALOMU_OK) s = train_claim_member(j, -1);
    for (k = 0; k < j->members && s == CALOMU_OK; k++) s = train_claim_member(j, k);
    return s;
}

static calomu_status train_job_run(train_job *j)
{
    int resume = 0, already = 0;
    calomu_status s = train_checkpoint(j, &resume);
    if (s == CALOMU_OK) s = train_claim(j);
    if (s == CALOMU_OK && !resume) s = train_folds(j);
    if (s == CALOMU_OK) s = train_open(j);
    if (s == CALOMU_OK && j->resume && !resume) s = train_already(j, &already);
    if (s != CALOMU_OK || already) return s;
    if (!resume || j->members) s = train_architecture(j);
    if (s == CALOMU_OK && !resume) s = train_energies(j);
    if (s == CALOMU_OK) s = train_try_output(j);
    if (s == CALOMU_OK && j->plots) s = plot_try(j->c, j->plots, "history");
    if (s != CALOMU_OK) return s;
    tool_signals_catch();
    s = j->members ? train_members(j, resume) : train_one(j, -1, resume);
    if (s == CALOMU_OK) train_clear(j);
    return s;
}

static void train_defaults(train_job *j)
{
    memset(j, 0, sizeof *j);
    j->architecture = calomu_architecture_default();
    j->options = calomu_train_options_default();
    j->convention = (int)j->architecture.feature_options.convention;
    j->grow = j->architecture.feature_options.grow;
    j->holdout = j->options.holdout;
    j->range[0] = j->options.range_low;
    j->range[1] = j->options.range_high;
    j->loss_range[0] = j->options.bin_low;
    j->loss_range[1] = j->options.bin_high;
    j->minutes = 10;
    j->machine.device = "cpu";
}

/* The options, in the order of --help: each function fills some and says how many. */
static size_t train_network_options(train_job *j, tool_option *to)
{
    const tool_option options[] = {
        { .name = "data", .type = TOOL_FILES, .target = &j->data_files, .value = "FILE.cmu ...",
          .file = TOOL_READS,
          .help = "muons with true energies; several files or a pattern: as if merged",
          .needed = 1 },
        { .name = "out", .type = TOOL_STRING, .target = &j->out, .value = "MODEL.safetensors",
          .file = TOOL_WRITES,
          .help = "model to write: the state with the lowest validation loss", .needed = 1 },
        { .name = "start", .type = TOOL_STRING, .target = &j->start_path,
          .value = "MODEL.safetensors", .file = TOOL_READS,
          .help = "fine-tune this model: its network, weights and standardisation, Adam and the"
                  " 1cycle (see --lr) from their beginning", .preset = "random weights" },
        { .name = "inputs", .type = TOOL_CHOICE, .target = &j->inputs,
          .value = "hybrid|hits|features|sums",
          .help = "hits and 28 features, hits, 28 features, or 3 energy sums" },
        { .name = "blocks", .type = TOOL_INT, .target = &j->architecture.blocks, .value = "N",
          .help = "blocks per resolution of the head", .low = 1, .high = 64 },
        { .name = "growth", .type = TOOL_DOUBLE, .target = &j->architecture.growth, .value = "X",
          .help = "growth of the channels at each down-sampling", .low = 0.2, .high = 8 },
        { .name = "body", .type = TOOL_INT, .target = &j->architecture.body, .value = "N",
          .help = "neurons per layer of the body", .low = 1, .high = 4096 },
        { .name = "convention", .type = TOOL_CHOICE, .target = &j->convention,
          .value = "text|authors", .help = "convention of the 28 features",
          .preset = "as in FILE.cmu, or text" },
        { .name = "grow", .type = TOOL_FLOAT, .target = &j->grow, .value = "GEV",
          .help = "clusters grow over cells above this energy (GeV)",
          .preset = "as in FILE.cmu, or 0.1", .low = 0, .high = 1e30 }
    };
    memcpy(to, options, sizeof options);
    return sizeof options / sizeof options[0];
}

static size_t train_course_options(train_job *j, tool_option *to)
{
    calomu_train_options *o = &j->options;
    const tool_option options[] = {
        { .name = "batch", .type = TOOL_INT, .target = &o->batch, .value = "N",
          .help = "muons per update", .low = 2, .high = 1048576 },
        { .name = "epochs", .type = TOOL_INT, .target = &o->epochs, .value = "N",
          .help = "epochs at most", .low = 1, .high = 1000000 },
        { .name = "cycle-epochs", .type = TOOL_INT, .target = &o->cycle_epochs, .value = "N",
          .help = "epochs of the 1cycle", .low = 1, .high = 1000000 },
        { .name = "patience", .type = TOOL_INT, .target = &o->patience, .value = "N",
          .help = "epochs without improvement that halve the learning rate", .low = 1,
          .high = 1000000 },
        { .name = "stop-after", .type = TOOL_INT, .target = &o->stop_after, .value = "N",
          .help = "epochs without improvement that end the training", .low = 1,
          .high = 1000000 },
        { .name = "lr", .type = TOOL_DOUBLE, .target = &o->lr, .value = "X",
          .help = "maximum of the learning rate",
          .preset = "by the number of updates; with --start a tenth of that",
          .low = 1e-12, .high = 1e300 },
        { .name = "seed", .type = TOOL_U64, .target = &o->seed, .value = "N",
          .help = "seed of weights and shuffles" },
        { .name = "folds", .type = TOOL_INT, .target = &o->folds, .value = "N",
          .help = "equal parts of the muons", .low = 2, .high = 1048576 },
        { .name = "holdout", .type = TOOL_CHOICE, .target = &j->holdout, .value = "no|yes",
          .help = "keep fold 0 out, as a sample for the end; no: train on it too" },
        { .name = "shuffle", .type = TOOL_FLAG, .target = &j->shuffle,
          .help = "shuffle the muons, by the seed, before they are cut into folds: for files in"
                  " some order" },
        { .name = "validation", .type = TOOL_FILES, .target = &j->validation_files,
          .value = "FILE.cmu", .file = TOOL_READS,
          .help = "monitor these muons, and train on the fold that would be monitored too" },
        { .name = "unique", .type = TOOL_FLAG, .target = &j->unique,
          .help = "member k trains on 7 folds that no earlier member trains on" },
        { .name = "member", .type = TOOL_INT, .target = &o->member, .value = "K",
          .help = "monitor fold K+1 (with --validation: another seed)", .high = 1000000 },
        { .name = "members", .type = TOOL_INT, .target = &j->members, .value = "N",
          .help = "train an ensemble: members 0 to N-1, one after the other",
          .preset = "a single network", .low = 1, .high = 1000 }
    };
    memcpy(to, options, sizeof options);
    return sizeof options / sizeof options[0];
}

static size_t train_loss_options(train_job *j, tool_option *to)
{
    calomu_train_options *o = &j->options;
    const tool_option options[] = {
        { .name = "energy-range", .type = TOOL_STRING, .target = &j->energy_range,
          .value = "auto|LOW,HIGH",
          .help = "true energies (GeV) of the muons: --loss-range, the three of the weights and"
                  " --range, where these are not given, as 50,8000 is to their defaults; auto: of"
                  " the muons used, to two digits", .preset = "50,8000" },
        { .name = "outside", .type = TOOL_DOUBLE, .target = &o->outside, .value = "X",
          .help = "part of the muons that may be outside of loss bins or weights; more is an"
                  " error; 1: what does not fit is never one",
          .high = 1 },
        { .name = "loss-bins", .type = TOOL_INT, .target = &o->bins, .value = "N",
          .help = "bins of true energy with a threshold of their own", .low = 1, .high = 16 },
        { .name = "loss-range", .type = TOOL_PAIR, .target = j->loss_range, .value = "LOW,HIGH",
          .help = "true energies (GeV) of these bins" },
        { .name = "quantile", .type = TOOL_DOUBLE, .target = &o->quantile, .value = "X",
          .help = "part of a bin below its threshold", .high = 1 },
        { .name = "weight-centre", .type = TOOL_DOUBLE, .target = &o->weight_centre,
          .value = "GEV", .help = "true energy (GeV) where the weights of Eq. (3) fall",
          .high = 1e12 },
        { .name = "weight-low", .type = TOOL_DOUBLE, .target = &o->weight_low, .value = "GEV",
          .help = "width (GeV) of that fall below it", .low = 1e-6, .high = 1e12 },
        { .name = "weight-high", .type = TOOL_DOUBLE, .target = &o->weight_high, .value = "GEV",
          .help = "width (GeV) of that fall above it", .low = 1e-6, .high = 1e12 },
        { .name = "range", .type = TOOL_PAIR, .target = j->range, .value = "LOW,HIGH",
          .help = "true energies (GeV) of the MI on the monitored fold" },
        { .name = "bins", .type = TOOL_INT, .target = &o->mi_bins, .value = "N",
          .help = "bins of this MI", .low = 1, .high = 10000 },
        { .name = "fit-bins", .type = TOOL_INT, .target = &o->fit_bins, .value = "N",
          .help = "bins of its debiasing", .low = 2, .high = 10000 },
        { .name = "tracker", .type = TOOL_DOUBLE, .target = &o->tracker, .value = "X",
          .help = "relative resolution of the tracker per TeV", .low = 1e-9, .high = 100 }
    };
    memcpy(to, options, sizeof options);
    return sizeof options / sizeof options[0];
}

static size_t train_file_options(train_job *j, tool_option *to)
{
    const tool_option options[] = {
        { .name = "log", .type = TOOL_STRING, .target = &j->log, .value = "LOG.csv",
          .file = TOOL_WRITES,
          .help = "one line per epoch", .preset = "MODEL.log.csv" },
        { .name = "plots", .type = TOOL_STRING, .target = &j->plots, .value = "PREFIX",
          .help = "plot the losses with names that begin so" },
        { .name = "checkpoint", .type = TOOL_STRING, .target = &j->checkpoint, .value = "FILE",
          .file = TOOL_WRITES,
          .help = "state, written after each epoch; removed when the model is in place",
          .preset = "MODEL.safetensors.checkpoint" },
        { .name = "checkpoint-minutes", .type = TOOL_DOUBLE, .target = &j->minutes, .value = "M",
          .help = "write it within an epoch too, every M minutes; 0: after every update",
          .high = 1e9 },
        { .name = "resume", .type = TOOL_FLAG, .target = &j->resume,
          .help = "go on from the checkpoint, if there is one; --epochs or --stop-after above its"
                  " own make the training longer" },
        { .name = "keep-checkpoint", .type = TOOL_FLAG, .target = &j->keep,
          .help = "leave the checkpoint at the end, for a longer training later" },
        { .name = "recompute", .type = TOOL_FLAG, .target = &j->recompute,
          .help = "keep less and compute it again: a fifth less memory, a quarter more time" },
        TOOL_OPTIONS_MACHINE(j->machine)
    };
    memcpy(to, options, sizeof options);
    return sizeof options / sizeof options[0];
}

int verb_train(int argc, char **argv)
{
    enum { MOST = 64 };              /* there are 45 */
    train_job j;
    tool_option options[MOST];
    size_t n = 0;
    int code;
    tool_usage usage = {
        .verb = "train",
        .purpose = "Trains a network, or an ensemble of them, to predict the energy of muons.",
        .options = options,
        .notes = "INT, TERM, HUP, USR1, USR2 and XCPU write a checkpoint and end with exit code\n"
                 "85; --resume then goes on to the same bytes as a run that was never stopped,\n"
                 "after a kill too.  Two runs never write the same files: the second is refused.\n"
                 "Options given with --resume must agree with the checkpoint; those left out are\n"
                 "taken from it.  Ensembles: member K leaves MODEL.safetensors.memberK until\n"
                 "all are joined, logs are MODEL.memberK.log.csv, and --resume needs --members.\n"
                 "--resume of a training that has ended does nothing.  Where a log is there\n"
                 "already it stays with its model until the new one is in place; until then the\n"
                 "new log is LOG.new."
    };
    memset(options, 0, sizeof options);
    train_defaults(&j);
    n += train_network_options(&j, options + n);
    n += train_course_options(&j, options + n);
    n += train_loss_options(&j, options + n);
    (void)train_file_options(&j, options + n);   /* what follows is 0 and ends the table */
    j.argc = argc;
    j.argv = argv;
    j.usage = &usage;
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    if (j.validation_files.n) j.validation_path = j.validation_files.path[0];
    code = (int)train_check(&j);
    if (code == CALOMU_OK) code = (int)tool_threads_start((int)j.machine.threads);
    if (code == CALOMU_OK) code = (int)tool_open_on(&j.c, &j.machine, j.recompute);
    if (code == CALOMU_OK) code = (int)train_job_run(&j);
    free(j.checkpoint_path);
    calomu_model_free(j.start);
    tool_set_close(&j.validation_set);
    tool_set_close(&j.data_set);
    tool_files_free(&j.validation_files);
    tool_files_free(&j.data_files);
    calomu_close(j.c);
    return code;
}
