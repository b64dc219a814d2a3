/* train_files.c - the names of a training's files, and whether they are there. */
#include "train.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plot.h"

char *train_text(const char *format, ...)
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

char *train_model_path(const train_job *j, int member)
{
    return member < 0 ? train_text("%s", j->out) : train_text("%s.member%d", j->out, member);
}

char *train_log_path(const train_job *j, int member)
{
    const char *path = j->log ? j->log : j->out;
    const char *ending = j->log ? ".csv" : ".log.csv";
    int stem = train_stem(path, j->log ? ".csv" : ".safetensors");
    if (member < 0 && j->log) return train_text("%s", j->log);
    if (member < 0) return train_text("%.*s%s", stem, path, ending);
    return train_text("%.*s.member%d%s", stem, path, member, ending);
}

char *train_plot_prefix(const train_job *j, int member)
{
    const char *plots = j->plots;
    size_t stem = plot_stem(plots);
    return member < 0 ? train_text("%s", plots)
                      : train_text("%.*s_member%d%s", (int)stem, plots, member, plots + stem);
}

/* Whether there is a regular file: a device or pipe given as a checkpoint holds none, and is never
   removed.  Only "no such file" means that there is none: a folder that cannot be searched or a
   server that is away must not start a training anew. */
calomu_status train_look(const char *path, int *there)
{
    struct stat s;
    int found = stat(path, &s) == 0;
    *there = found && S_ISREG(s.st_mode);
    if (found || errno == ENOENT) return CALOMU_OK;
    return tool_fail(CALOMU_EIO, "%s: cannot see whether it is there: %s", path, strerror(errno));
}

void train_remove(const char *path)
{
    struct stat s;
    if (stat(path, &s) == 0 && S_ISREG(s.st_mode) && unlink(path) != 0)
        tool_notice("%s: cannot be removed (%s); it is no longer needed", path, strerror(errno));
}
