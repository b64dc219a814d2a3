/* train.c - calomu train: one network or an ensemble, with checkpoints, resume and a log

   What a kill leaves, and why a resumed run gives the same bytes.  The checkpoint is the whole
   state between two steps and replaces the last one atomically; a run that finds none starts from
   the beginning, which is the same training.  At the end of an epoch its line goes to the log
   first and the checkpoint follows, so no line is ever lost; lines of epochs that the checkpoint
   has not seen the end of are cut on resume, as these epochs are run again.  The checkpoint is
   removed only after the model is in place.  Where a log is there already it belongs to a model
   that is there: until that is replaced, lines go to LOG.new.  An ensemble uses one checkpoint for
   its members one after the other: the first checkpoint of member k + 1 is written after the model
   of member k.  */
#include "calomu_tool.h"
#include "plot.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRAIN_HYBRID, TRAIN_HITS, TRAIN_FEATURES, TRAIN_SUMS };   /* as in --inputs */
enum { TRAIN_LOG_MOST = 64 << 20 };  /* bytes of a log that are believed: 50 epochs are 10 kB */

typedef struct train_job {           /* the command line, and what all members share */
    calomu *c;
    const tool_usage *usage;
    int argc;
    char **argv;
    const char *data_path, *validation_path, *start_path, *out, *log, *checkpoint, *plots;
    const char *energy_range;        /* NULL: not given */
    tool_machine machine;
    int32_t members;                 /* members 0: a single network */
    int inputs, holdout, unique, convention, shuffle, resume, keep, recompute;
    float grow;
    double range[2], loss_range[2], minutes;
    calomu_architecture architecture;
    calomu_train_options options;
    calomu_data *data, *validation;  /* validation NULL: a fold is monitored */
    calomu_model *start;             /* NULL: random weights */
    char *checkpoint_path;           /* of a single network, or of the ensemble's members */
} train_job;

typedef struct train_log {           /* the CSV file, one line per epoch */
    char *path;
    char *final;                     /* its name once the model is in place; NULL: the same */
    int fd;                          /* -1: not open */
    const calomu_train_options *options;
    int n_thresholds;
    int32_t best_epoch;              /* 0: no epoch has ended */
    double best_loss, mi, worst;     /* of the best epoch */
} train_log;

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

/* ---------------------------------------------------------------- text */

/* Formatted text in memory of its own; NULL: no memory (said). */
static char *train_text(const char *format, ...) TOOL_PRINTF(1, 2);

static char *train_text(const char *format, ...)
{
    va_list args;
    char *text;
    int n;
    va_start(args, format);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    text = n < 0 ? NULL : malloc((size_t)n + 1);
    if (!text) {
        tool_fail(CALOMU_EMEMORY, "no memory for a file name");
        return NULL;
    }
    va_start(args, format);
    (void)vsnprintf(text, (size_t)n + 1, format, args);
    va_end(args);
    return text;
}

/* Length of path without the given ending, or its whole length. */
static int train_stem(const char *path, const char *ending)
{
    size_t n = strlen(path), e = strlen(ending);
    return (int)(n > e && strcmp(path + n - e, ending) == 0 ? n - e : n);
}

/* The model of member k, until all are joined (-1: of a single network): OUT.memberK, OUT. */
static char *train_model_path(const train_job *j, int member)
{
    return member < 0 ? train_text("%s", j->out) : train_text("%s.member%d", j->out, member);
}

/* The log of member k (-1: of a single network): OUT.log.csv, OUT.memberK.log.csv. */
static char *train_log_path(const train_job *j, int member)
{
    const char *path = j->log ? j->log : j->out;
    const char *ending = j->log ? ".csv" : ".log.csv";
    int stem = train_stem(path, j->log ? ".csv" : ".safetensors");
    if (member < 0 && j->log) return train_text("%s", j->log);
    if (member < 0) return train_text("%.*s%s", stem, path, ending);
    return train_text("%.*s.member%d%s", stem, path, member, ending);
}

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

/* Whether there is a regular file: a device or pipe given as a checkpoint holds none, and is never
   removed.  Only "no such file" means that there is none: a folder that cannot be searched or a
   server that is away must not start a training anew. */
static calomu_status train_look(const char *path, int *there)
{
    struct stat s;
    int found = stat(path, &s) == 0;
    *there = found && S_ISREG(s.st_mode);
    if (found || errno == ENOENT) return CALOMU_OK;
    return tool_fail(CALOMU_EIO, "%s: cannot see whether it is there: %s", path, strerror(errno));
}

static void train_remove(const char *path)
{
    struct stat s;
    if (stat(path, &s) == 0 && S_ISREG(s.st_mode) && unlink(path) != 0)
        tool_notice("%s: cannot be removed (%s); it is no longer needed", path, strerror(errno));
}

/* ---------------------------------------------------------------- the log */

static calomu_status train_log_fail(const train_log *l)
{
    return tool_fail(CALOMU_EIO, "%s: cannot write the training log: %s", l->path,
                     strerror(errno));
}

static char *train_log_header(const train_log *l)
{
    char thresholds[16 * 16] = "";
    size_t n = 0;
    int i;
    for (i = 0; i < l->n_thresholds && i < 16; i++)
        n += (size_t)snprintf(thresholds + n, sizeof thresholds - n, "threshold%d,", i);
    return train_text("epoch,updates,lr,beta1,training_loss,validation_loss,%smi,worst,seconds%s\n",
                      thresholds, l->options->shuffle ? ",shuffle" : "");
}

/* One whole line in one write, and down to the disk before the checkpoint that follows. */
static calomu_status train_log_write(const train_log *l, const char *text)
{
    size_t n = strlen(text);
    while (n > 0) {
        ssize_t k = write(l->fd, text, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return train_log_fail(l);
        text += k;
        n -= (size_t)k;
    }
    /* a pipe or a terminal cannot be synchronised, and need not */
    if (fsync(l->fd) != 0 && errno != EINVAL && errno != ENOTSUP) return train_log_fail(l);
    return CALOMU_OK;
}

/* Appends to the log; without waiting for a reader where it is a FIFO. */
static calomu_status train_log_append(train_log *l, int fresh)
{
    struct stat s;
    int flags;
    l->fd = open(l->path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0666);
    if (l->fd < 0 || fstat(l->fd, &s) != 0) return train_log_fail(l);
    flags = fcntl(l->fd, F_GETFL);
    if (flags < 0 || fcntl(l->fd, F_SETFL, flags & ~O_NONBLOCK) < 0) return train_log_fail(l);
    if (fresh && S_ISREG(s.st_mode) && ftruncate(l->fd, 0) != 0) return train_log_fail(l);
    return CALOMU_OK;
}

static void train_log_best(train_log *l, int32_t epoch, double loss, double mi, double worst)
{
    if (l->best_epoch && !(loss < l->best_loss)) return;     /* strictly lower */
    l->best_epoch = epoch;
    l->best_loss = loss;
    l->mi = mi;
    l->worst = worst;
}

/* Field i of a line; NaN for an empty one.  Returns 0 if there is no such field or it is no
   number. */
static int train_log_field(const char *line, int i, double *x)
{
    const char *end;
    while (i > 0) {
        line = strchr(line, ',');
        if (!line) return 0;
        line++;
        i--;
    }
    *x = (double)calomu_absent();
    if (*line == ',' || *line == 0) return 1;
    end = calomu_parse(line, x);
    return end && (*end == ',' || *end == 0);
}

typedef struct train_line {          /* of a log, what is needed of it */
    int32_t epoch;
    double loss, mi, worst;
} train_line;

/* Reads one line of an earlier run; 0: it is none of ours. */
static int train_log_line(const train_log *l, const char *line, train_line *to)
{
    double number, seconds;
    if (!train_log_field(line, 0, &number) || !(number >= 1 && number <= 1e9)
        || !train_log_field(line, 5, &to->loss)
        || !train_log_field(line, 6 + l->n_thresholds, &to->mi)
        || !train_log_field(line, 7 + l->n_thresholds, &to->worst)
        || !train_log_field(line, 8 + l->n_thresholds, &seconds)) return 0;
    to->epoch = (int32_t)number;
    return 1;
}

/* Reads the file into memory with a 0 behind it; *text NULL: there is no file. */
static calomu_status train_log_load(const train_log *l, char **text)
{
    FILE *file = fopen(l->path, "rb");
    struct stat s;
    size_t n;
    *text = NULL;
    if (!file && errno == ENOENT) return CALOMU_OK;
    if (!file || fstat(fileno(file), &s) != 0) {
        if (file) (void)fclose(file);
        return tool_fail(CALOMU_EIO, "%s: cannot read the training log: %s", l->path,
                         strerror(errno));
    }
    if (s.st_size > TRAIN_LOG_MOST) {
        (void)fclose(file);
        return tool_fail(CALOMU_EFORMAT, "%s: too large for a training log", l->path);
    }
    *text = malloc((size_t)s.st_size + 1);
    n = *text ? fread(*text, 1, (size_t)s.st_size, file) : 0;
    if (*text) (*text)[n] = 0;
    (void)fclose(file);
    return *text ? CALOMU_OK : tool_fail(CALOMU_EMEMORY, "%s: no memory to read it", l->path);
}

/* A log of the same form may be of another training: the loss of the last epoch tells, or, before
   one has ended, that there are lines of several.  Its lines must not be cut. */
static int train_log_others(const calomu_train_report *last, int32_t completed,
                            const train_line *line, const char *rest)
{
    if (line->epoch == completed)
        return line->loss < last->validation_loss || line->loss > last->validation_loss;
    return completed == 0 && strchr(rest, '\n') != NULL;
}

/* Finds how much of the log of an earlier run is kept: the header and whole lines of epochs up to
   `completed`.  A last line without its newline was being written when the run was killed. */
static calomu_status train_log_keep(train_log *l, char *text, const char *header,
                                    const calomu_train_report *last, int32_t completed,
                                    size_t *keep, int32_t *lines)
{
    size_t head = strlen(header);
    char *at = text + head, *end;
    int32_t before = 0;
    *keep = 0;
    *lines = 0;
    if (strncmp(text, header, strlen(text) < head ? strlen(text) : head) != 0)
        return tool_fail(CALOMU_EFORMAT, "%s: not the log of this training (its first line is"
                         " another); give another --log", l->path);
    if (strlen(text) < head) return CALOMU_OK;
    for (*keep = head; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        train_line line;
        *end = 0;
        if (!train_log_line(l, at, &line) || line.epoch <= before)
            return tool_fail(CALOMU_EFORMAT, "%s:%d: not a line of a training log; give another"
                             " --log", l->path, (int)*lines + 2);
        if (train_log_others(last, completed, &line, end + 1))
            return tool_fail(CALOMU_EFORMAT, "%s: the log of another training (its epoch %d has"
                             " another loss); give another --log, or remove it", l->path,
                             (int)line.epoch);
        if (line.epoch > completed) break;
        train_log_best(l, line.epoch, line.loss, line.mi, line.worst);
        *keep = (size_t)(end - text) + 1;
        *lines += 1;
        before = line.epoch;
    }
    return CALOMU_OK;
}

/* Cuts the log of an earlier run to the epochs that the checkpoint has seen the end of; *fresh: it
   has no header then. */
static calomu_status train_log_cut(train_log *l, const char *header,
                                   const calomu_train_report *last, int32_t completed, int *fresh)
{
    struct stat s;
    char *text = NULL;
    size_t keep = 0;
    int32_t lines = 0;
    calomu_status status;
    if (stat(l->path, &s) == 0 && !S_ISREG(s.st_mode)) return CALOMU_OK;
    status = train_log_load(l, &text);
    if (status == CALOMU_OK && text)
        status = train_log_keep(l, text, header, last, completed, &keep, &lines);
    if (status == CALOMU_OK && text && truncate(l->path, (off_t)keep) != 0)
        status = train_log_fail(l);
    if (status == CALOMU_OK && lines < completed)
        tool_notice("%s: the lines of %d earlier epochs are not there", l->path,
                    (int)(completed - lines));
    free(text);
    *fresh = keep == 0;
    return status;
}

/* LOG, or LOG.new while a log that is there belongs to the model that is to be replaced. */
static calomu_status train_log_name(train_log *l, int fresh)
{
    struct stat old;
    char *other = train_text("%s.new", l->path);
    int there = 0, taken = stat(l->path, &old) == 0 && S_ISREG(old.st_mode) && old.st_size > 0;
    calomu_status s = other ? train_look(other, &there) : CALOMU_EMEMORY;
    if (s == CALOMU_OK && (fresh ? taken : there)) {
        l->final = l->path;
        l->path = other;
        return s;
    }
    if (s == CALOMU_OK && there) train_remove(other);
    free(other);
    return s;
}

/* The model is in place: its log takes the place of the old one. */
static calomu_status train_log_place(train_log *l)
{
    if (!l->final) return CALOMU_OK;
    if (rename(l->path, l->final) != 0)
        return tool_fail(CALOMU_EIO, "%s: cannot become %s: %s", l->path, l->final,
                         strerror(errno));
    free(l->path);
    l->path = l->final;
    l->final = NULL;
    return CALOMU_OK;
}

/* last NULL: a fresh start; else what the checkpoint has seen, `completed` epochs in all. */
static calomu_status train_log_open(train_log *l, const calomu_train_options *options,
                                    const calomu_train_report *last, int32_t completed)
{
    char *header;
    int fresh = last == NULL;
    calomu_status s = train_log_name(l, fresh);
    if (s != CALOMU_OK) return s;
    l->options = options;
    l->n_thresholds = options->bins;
    header = train_log_header(l);
    if (!header) return CALOMU_EMEMORY;
    if (last) s = train_log_cut(l, header, last, completed, &fresh);
    if (s == CALOMU_OK) s = train_log_append(l, fresh);
    if (s == CALOMU_OK && fresh) s = train_log_write(l, header);
    free(header);
    return s;
}

static calomu_status train_log_epoch(train_log *l, const calomu_train_report *r, double seconds)
{
    char line[32 * 32], number[32];
    size_t n = (size_t)snprintf(line, sizeof line, "%d,%" PRIu64, (int)r->epoch, r->updates);
    const double head[4] = { r->lr, r->beta1, r->training_loss, r->validation_loss };
    const double tail[3] = { r->mi, r->worst, seconds };
    int i;
    /* 10 fixed fields and at most 16 thresholds, each below 32 bytes: they fit */
    for (i = 0; i < 4; i++)
        n += (size_t)snprintf(line + n, sizeof line - n, ",%s",
                              calomu_number(number, head[i], i < 2 ? 9 : 17));
    for (i = 0; i < l->n_thresholds && i < 16; i++)   /* a bin not yet filled: empty */
        n += (size_t)snprintf(line + n, sizeof line - n, ",%s", r->thresholds[i] < 0 ? ""
                              : calomu_number(number, r->thresholds[i], 9));
    for (i = 0; i < 3; i++)
        n += (size_t)snprintf(line + n, sizeof line - n, ",%s",
                              calomu_number(number, tail[i], i < 2 ? 9 : 4));
    if (l->options->shuffle)
        n += (size_t)snprintf(line + n, sizeof line - n, ",%" PRIu64, l->options->seed);
    (void)snprintf(line + n, sizeof line - n, "\n");
    train_log_best(l, r->epoch, r->validation_loss, r->mi, r->worst);
    return train_log_write(l, line);
}

/* ---------------------------------------------------------------- options against a file */

typedef struct train_field {         /* one option and its value here and in the file */
    const char *name;
    char type;                       /* i: int32_t, c: int32_t that stands for a word, */
                                     /*   u: uint64_t, d: double, f: float */
    const void *here, *there;
} train_field;

typedef struct train_file {          /* what the options are compared with */
    const char *kind, *path;         /* "checkpoint" */
    const char *way_out;             /* besides leaving the option out */
} train_file;

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

/* The network's options against that of a file. */
static calomu_status train_agree_network(const train_job *j, const calomu_architecture *a,
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

/* A training can be made longer, so these two are not compared where more is wanted.  Of an
   ensemble earlier members have ended already. */
static int train_longer(const train_job *j, const calomu_train_options *o)
{
    return !j->members
        && ((tool_given(j->usage, "epochs") && j->options.epochs > o->epochs)
            || (tool_given(j->usage, "stop-after") && j->options.stop_after > o->stop_after));
}

/* Options given again must agree with the file; those left out are taken from it. */
static calomu_status train_agree(const train_job *j, const calomu_train_options *o,
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

/* The losses as a figure: PREFIX, or PREFIX_memberK, where an ending .png or .svg of the prefix is
   the format of the image and stays at the end. */
static char *train_plot_prefix(const train_job *j, int member)
{
    const char *plots = j->plots;
    size_t stem = plot_stem(plots);
    return member < 0 ? train_text("%s", plots)
                      : train_text("%.*s_member%d%s", (int)stem, plots, member, plots + stem);
}

static calomu_status train_plot(const train_run *r, int member)
{
    char *prefix = train_plot_prefix(r->job, member);
    calomu_status s = prefix ? plot_history(r->job->c, prefix, r->log.path) : CALOMU_EMEMORY;
    free(prefix);
    return s;
}

/* Trains one network, member k of an ensemble (-1: a single one), to its model file. */
static calomu_status train_one(train_job *j, int member, int resume)
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

/* The checkpoint goes first: with it the members' models are needed, without it none is. */
static void train_clear(const train_job *j)
{
    int k;
    if (!j->keep) train_remove(j->checkpoint_path);
    for (k = 0; k < j->members; k++) {
        char *path = train_model_path(j, k);
        if (path) train_remove(path);
        free(path);
    }
}

static calomu_status train_members(train_job *j, int resume)
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

/* ---------------------------------------------------------------- the verb */

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
    calomu_status s = calomu_data_open(j->c, j->data_path, &j->data);
    if (s == CALOMU_OK && j->validation_path)
        s = calomu_data_open(j->c, j->validation_path, &j->validation);
    j->options.validation = j->validation;
    return s == CALOMU_OK ? s : tool_report(j->c, s);
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
        { .name = "data", .type = TOOL_STRING, .target = &j->data_path, .value = "FILE.cmu",
          .file = TOOL_READS,
          .help = "muons with true energies", .needed = 1 },
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
        { .name = "validation", .type = TOOL_STRING, .target = &j->validation_path,
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
    code = (int)train_check(&j);
    if (code != CALOMU_OK) return code;
    code = (int)tool_threads_start((int)j.machine.threads);
    if (code == CALOMU_OK) code = (int)tool_open_on(&j.c, &j.machine, j.recompute);
    if (code != CALOMU_OK) return code;
    code = (int)train_job_run(&j);
    free(j.checkpoint_path);
    calomu_model_free(j.start);
    calomu_data_close(j.validation);
    calomu_data_close(j.data);
    calomu_close(j.c);
    return code;
}
