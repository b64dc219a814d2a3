/* csv.c - CSV in and out.

   The reader is for tables of numbers: commas, no quotes, one header line, LF or CRLF.  It never
   holds more than one buffer of the file, so that pipes of any length can be read.  */
#include "calomu_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TOOL_CSV_BUFFER = 1 << 18,
    TOOL_CSV_LINE = 1 << 16,         /* longest line: smaller than the buffer */
    TOOL_CSV_FIELDS = 1024
};

struct tool_csv {
    char *path;                      /* as messages name it */
    int fd, end;                     /* end 1: nothing more to read from fd */
    char *buffer;                    /* bytes [from, to) are not used yet; one more for a NUL */
    size_t from, to;
    uint64_t line;
    const tool_column *column;
    int n, fields;                   /* columns wanted, fields of the header */
    int place[TOOL_CSV_FIELDS];      /* field i is column place[i], or -1 */
    char *header;                    /* the names, NUL after each */
    const char *name[TOOL_CSV_FIELDS];
    const char *text[TOOL_CSV_FIELDS];   /* per column, of this row */
};

calomu_status tool_csv_fail(const tool_csv *csv, calomu_status status, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return tool_fail(status, "%s:%llu: %s", csv->path, (unsigned long long)csv->line, text);
}

/* ---------------------------------------------------------------- bytes and lines */

/* More bytes behind `to`.  poll comes first because, unlike read, it returns when a signal comes:
   a reader that waits for a pipe must notice that it is asked to stop. */
static calomu_status tool_csv_fill(tool_csv *csv)
{
    struct pollfd wait;
    ssize_t got;
    if (csv->from > 0) {
        memmove(csv->buffer, csv->buffer + csv->from, csv->to - csv->from);
        csv->to -= csv->from;
        csv->from = 0;
    }
    wait.fd = csv->fd;
    wait.events = POLLIN;
    wait.revents = 0;
    do {
        if (tool_stop) return tool_fail(CALOMU_STOPPED, "%s: stopped while reading", csv->path);
    } while (poll(&wait, 1, -1) < 0 && errno == EINTR);
    do
        got = read(csv->fd, csv->buffer + csv->to, TOOL_CSV_BUFFER - csv->to);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return tool_fail(CALOMU_EIO, "%s: cannot read: %s", csv->path, strerror(errno));
    if (got == 0) csv->end = 1;
    csv->to += (size_t)got;
    return CALOMU_OK;
}

/* The next line without its end, NUL-terminated, in the buffer; *line NULL: there is none. */
static calomu_status tool_csv_line_text(tool_csv *csv, char **line, size_t *length)
{
    calomu_status status;
    size_t seen = 0, n;
    char *start, *newline = NULL;
    *line = NULL;
    csv->line++;
    for (;;) {
        start = csv->buffer + csv->from;
        n = csv->to - csv->from;
        newline = n > seen ? memchr(start + seen, '\n', n - seen) : NULL;
        if (newline || csv->end || n > TOOL_CSV_LINE) break;
        seen = n;
        status = tool_csv_fill(csv);
        if (status != CALOMU_OK) return status;
    }
    if (newline) n = (size_t)(newline - start);
    if (n > TOOL_CSV_LINE)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "the line is longer than %d bytes",
                             (int)TOOL_CSV_LINE);
    if (!newline && n == 0) return CALOMU_OK;
    csv->from += n + (newline != NULL);
    if (n > 0 && start[n - 1] == '\r') n--;
    if (memchr(start, 0, n)) return tool_csv_fail(csv, CALOMU_EFORMAT, "the line has a NUL byte");
    start[n] = 0;
    *line = start;
    *length = n;
    return CALOMU_OK;
}

/* Cuts a line at its commas, blanks around fields removed; how many fields, or -1 if too many. */
static int tool_csv_cut(char *line, char **field)
{
    int n = 0;
    char *end;
    for (;;) {
        if (n == TOOL_CSV_FIELDS) return -1;
        while (*line == ' ' || *line == '\t') line++;
        field[n++] = line;
        while (*line && *line != ',') line++;
        end = line;
        while (end > field[n - 1] && (end[-1] == ' ' || end[-1] == '\t')) end--;
        if (!*line) {
            *end = 0;
            return n;
        }
        line++;
        *end = 0;
    }
}

/* ---------------------------------------------------------------- header */

static calomu_status tool_csv_match(tool_csv *csv)
{
    const char *names[TOOL_CSV_FIELDS], *near;
    int i, k, found;
    for (i = 0; i < csv->fields; i++) {
        names[i] = csv->name[i];
        csv->place[i] = -1;
    }
    for (k = 0; k < csv->n; k++) {
        found = -1;
        for (i = 0; i < csv->fields; i++) {
            if (strcmp(csv->name[i], csv->column[k].name) != 0) continue;
            if (found >= 0)
                return tool_csv_fail(csv, CALOMU_EFORMAT, "the header names column '%s' twice",
                                     csv->column[k].name);
            found = i;
        }
        if (found >= 0) {
            csv->place[found] = k;
        } else if (!csv->column[k].optional) {
            near = tool_nearest(csv->column[k].name, names, (size_t)csv->fields);
            return tool_csv_fail(csv, CALOMU_EFORMAT, "the header has no column '%s'%s%s%s",
                                 csv->column[k].name, near ? " (it has '" : "", near ? near : "",
                                 near ? "')" : "");
        }
    }
    return CALOMU_OK;
}

static calomu_status tool_csv_header(tool_csv *csv)
{
    char *line, *field[TOOL_CSV_FIELDS];
    size_t length = 0;
    int i;
    calomu_status status = tool_csv_line_text(csv, &line, &length);
    if (status != CALOMU_OK) return status;
    if (!line) return tool_csv_fail(csv, CALOMU_EFORMAT, "the file is empty; a header is needed");
    /* Spreadsheets put a byte order mark before UTF-8 text. */
    if (length >= 3 && memcmp(line, "\357\273\277", 3) == 0) {
        line += 3;
        length -= 3;
    }
    csv->header = malloc(length + 1);
    if (!csv->header) return tool_fail(CALOMU_EMEMORY, "%s: no memory", csv->path);
    memcpy(csv->header, line, length + 1);
    csv->fields = tool_csv_cut(csv->header, field);
    if (csv->fields < 0)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "more than %d columns", (int)TOOL_CSV_FIELDS);
    for (i = 0; i < csv->fields; i++) csv->name[i] = field[i];
    return tool_csv_match(csv);
}

/* ---------------------------------------------------------------- rows */

/* Most fields are short plain decimals.  With at most 15 digits and at most 22 places both m and
   10^places are exact in double, and their quotient is the correctly rounded value (Clinger 1990);
   everything else is left to calomu_parse.  Returns the end of the number or NULL. */
static const char *tool_csv_parse(const char *text, double *x)
{
    static const double power[] = { 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
                                    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21,
                                    1e22 };
    const char *p = text + (*text == '-');
    uint64_t m = 0;
    int digits = 0, places = 0, point = 0;
    for (; (*p >= '0' && *p <= '9') || (*p == '.' && !point); p++) {
        if (*p == '.') {
            point = 1;
            continue;
        }
        m = 10 * m + (uint64_t)(*p - '0');
        digits += m > 0;
        places += point;
        if (digits > 15 || places > 22) break;
    }
    if (*p || m == 0 || digits > 15 || places > 22) return calomu_parse(text, x);
    *x = (double)m / power[places];
    if (*text == '-') *x = -*x;
    return p;
}

static calomu_status tool_csv_value(tool_csv *csv, const tool_column *column, const char *text,
                                    double *value)
{
    const char *end;
    *value = (double)calomu_absent();
    if (column->cell == TOOL_CELL_TEXT) return CALOMU_OK;
    if (!*text) {
        if (column->cell == TOOL_CELL_MAYBE) return CALOMU_OK;
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is empty", column->name);
    }
    end = tool_csv_parse(text, value);
    if (!end || *end)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is '%.40s', which is not a number",
                             column->name, text);
    if (!(*value - *value == 0))
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is '%.40s', which is too large",
                             column->name, text);
    return CALOMU_OK;
}

/* Empty lines may end a file, but no row may come behind them. */
static calomu_status tool_csv_only_empty(tool_csv *csv)
{
    uint64_t first = csv->line;
    calomu_status status;
    size_t length;
    char *line;
    for (;;) {
        status = tool_csv_line_text(csv, &line, &length);
        if (status != CALOMU_OK || !line) return status;
        if (length == 0) continue;
        csv->line = first;
        return tool_csv_fail(csv, CALOMU_EFORMAT, "the line is empty, but the file goes on");
    }
}

calomu_status tool_csv_next(tool_csv *csv, double *value, int *more)
{
    char *line, *field[TOOL_CSV_FIELDS];
    size_t length = 0;
    int i, n;
    calomu_status status = tool_csv_line_text(csv, &line, &length);
    *more = 0;
    if (status != CALOMU_OK || !line) return status;
    if (length == 0) return tool_csv_only_empty(csv);
    n = tool_csv_cut(line, field);
    if (n != csv->fields)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "the line has %d fields, but the header has %d",
                             n < 0 ? TOOL_CSV_FIELDS + 1 : n, csv->fields);
    for (i = 0; i < csv->n; i++) {
        csv->text[i] = "";
        value[i] = (double)calomu_absent();
    }
    for (i = 0; i < n; i++) {
        if (csv->place[i] < 0) continue;
        csv->text[csv->place[i]] = field[i];
        status = tool_csv_value(csv, &csv->column[csv->place[i]], field[i], &value[csv->place[i]]);
        if (status != CALOMU_OK) return status;
    }
    *more = 1;
    return CALOMU_OK;
}

calomu_status tool_csv_whole(const tool_csv *csv, int column, double value, uint64_t low,
                             uint64_t high, uint64_t *out)
{
    const char *name = csv->column[column].name, *text = csv->text[column];
    /* Above 2^53 a double may already be another number than the text. */
    if (!(value >= (double)low && value <= (double)high && value <= 9007199254740992.0))
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is %.40s, but must be from %llu to %llu",
                             name, text, (unsigned long long)low, (unsigned long long)high);
    *out = (uint64_t)value;
    if ((double)*out != value)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is %.40s, which is not a whole number",
                             name, text);
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- open and close */

static calomu_status tool_csv_start(tool_csv *csv, const char *path)
{
    struct stat about;
    int standard = strcmp(path, "-") == 0;
    size_t size = strlen(path) + 32;
    csv->path = malloc(size);
    csv->buffer = malloc(TOOL_CSV_BUFFER + 1);
    if (!csv->path || !csv->buffer) return tool_fail(CALOMU_EMEMORY, "%s: no memory", path);
    (void)snprintf(csv->path, size, "%s", standard ? "standard input" : path);
    csv->fd = standard ? 0 : open(path, O_RDONLY | O_NOCTTY);
    if (csv->fd < 0) return tool_fail(CALOMU_EIO, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(csv->fd, &about) == 0 && S_ISDIR(about.st_mode))
        return tool_fail(CALOMU_EIO, "%s: cannot read: it is a directory", csv->path);
    return tool_csv_header(csv);
}

calomu_status tool_csv_open(const char *path, const tool_column *columns, int n, tool_csv **csv)
{
    calomu_status status;
    *csv = calloc(1, sizeof **csv);
    if (!*csv) return tool_fail(CALOMU_EMEMORY, "%s: no memory", path);
    (*csv)->fd = -1;
    (*csv)->column = columns;
    (*csv)->n = n;
    status = tool_csv_start(*csv, path);
    if (status != CALOMU_OK) {
        tool_csv_close(*csv);
        *csv = NULL;
    }
    return status;
}

void tool_csv_close(tool_csv *csv)
{
    if (!csv) return;
    if (csv->fd > 0) (void)close(csv->fd);
    free(csv->path);
    free(csv->buffer);
    free(csv->header);
    free(csv);
}

const char *tool_csv_text(const tool_csv *csv, int column)
{
    return csv->text[column] ? csv->text[column] : "";
}

/* ---------------------------------------------------------------- writer */

struct tool_writer {
    calomu *c;                       /* for its message */
    calomu_output *output;           /* NULL: standard output */
    calomu_status status;
    size_t n;
    char buffer[1 << 16];
};

calomu_status tool_writer_open(calomu *c, const char *path, tool_writer **writer)
{
    calomu_status status;
    tool_writer *w = calloc(1, sizeof *w);
    *writer = NULL;
    if (!w) return tool_fail(CALOMU_EMEMORY, "%s: no memory", path);
    w->c = c;
    if (strcmp(path, "-") != 0) {
        status = calomu_output_open(c, path, &w->output);
        if (status != CALOMU_OK) {
            free(w);
            return tool_report(c, status);
        }
    }
    *writer = w;
    return CALOMU_OK;
}

static void tool_writer_flush(tool_writer *w)
{
    if (w->status == CALOMU_OK && w->n > 0) {
        if (w->output)
            w->status = calomu_output_write(w->output, w->buffer, w->n);
        else if (fwrite(w->buffer, 1, w->n, stdout) != w->n)
            w->status = CALOMU_EIO;
    }
    w->n = 0;
}

void tool_write_text(tool_writer *w, const char *text)
{
    size_t n = strlen(text), part;
    while (n > 0) {
        if (w->n == sizeof w->buffer) tool_writer_flush(w);
        part = sizeof w->buffer - w->n < n ? sizeof w->buffer - w->n : n;
        memcpy(w->buffer + w->n, text, part);
        w->n += part;
        text += part;
        n -= part;
    }
}

void tool_write_format(tool_writer *w, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    tool_write_text(w, text);
}

void tool_write_number(tool_writer *w, double x, int digits)
{
    char text[32];
    tool_write_text(w, calomu_number(text, x, digits));
}

void tool_write_whole(tool_writer *w, uint64_t x)
{
    char text[24], *p = text + sizeof text - 1;
    *p = 0;
    do {
        *--p = (char)('0' + (int)(x % 10));
        x /= 10;
    } while (x > 0);
    tool_write_text(w, p);
}

calomu_status tool_writer_status(const tool_writer *w)
{
    return w->status;
}

calomu_status tool_writer_close(tool_writer *w)
{
    calomu_status status;
    int standard = w->output == NULL;
    tool_writer_flush(w);
    status = w->status;
    if (standard) {
        if (status == CALOMU_OK && fflush(stdout) != 0) status = CALOMU_EIO;
        free(w);
        /* The end of main looks at stdout, and says so. */
        return status;
    }
    if (status != CALOMU_OK) {
        /* The message is taken before abandoning can change it. */
        (void)tool_report(w->c, status);
        calomu_output_abandon(w->output);
    } else {
        status = calomu_output_close(w->output);
        if (status != CALOMU_OK) (void)tool_report(w->c, status);
    }
    free(w);
    return status;
}

void tool_writer_abandon(tool_writer *w)
{
    if (!w) return;
    calomu_output_abandon(w->output);
    free(w);
}
