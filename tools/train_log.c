/* train_log.c - the log of a training: a CSV file, one line per epoch; see train_run.c */
#include "train.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRAIN_LOG_MOST = 64 << 20 };  /* bytes of a log that are believed: 50 epochs are 10 kB */

calomu_status train_log_fail(const train_log *l)
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

calomu_status train_log_place(train_log *l)
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

calomu_status train_log_open(train_log *l, const calomu_train_options *options,
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

calomu_status train_log_epoch(train_log *l, const calomu_train_report *r, double seconds)
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
