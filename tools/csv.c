/* csv.c - CSV in and out.

   The reader is for tables of numbers, as people's tools write them: commas, semicolons, tabs or
   blanks between fields; double quotes around fields (R); names in the first line, in the last line
   of comments before the numbers (numpy.savetxt) or in the lines `#column` of GEANT4's csv; LF or
   CRLF.  What could be meant in two ways is refused, with what to write instead.  It never holds
   more than one buffer of the file, so that pipes of any length can be read.  */
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
    uint64_t line, first;            /* first: line of the first row, 0 before it */
    const tool_column *column;
    int n, fields;                   /* columns wanted, fields of the header */
    const char *option;              /* renames columns: for messages; NULL: there is none */
    char mark;                       /* between fields of rows: , ; tab, or a blank for blanks */
    int geant4;                      /* 1: the header is GEANT4's: numbers have 6 digits */
    int row_names;                   /* 1: rows begin with a field that the header does not name */
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

static calomu_status tool_csv_returns(const tool_csv *csv)
{
    return tool_csv_fail(csv, CALOMU_EFORMAT, "lines end with carriage returns alone; in a shell, "
                         "tr '\\r' '\\n' makes them newlines");
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
    if (n > TOOL_CSV_LINE && memchr(start, '\r', n)) return tool_csv_returns(csv);
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

/* 1 if the next line begins with `mark`. */
static calomu_status tool_csv_peek(tool_csv *csv, char mark, int *is)
{
    calomu_status status = CALOMU_OK;
    while (status == CALOMU_OK && csv->from == csv->to && !csv->end) status = tool_csv_fill(csv);
    *is = csv->from < csv->to && csv->buffer[csv->from] == mark;
    return status;
}

/* ---------------------------------------------------------------- fields */

enum { TOOL_CUT_MANY = -1, TOOL_CUT_QUOTE = -2 };

/* A field in quotes, with "" for a quote, unpacked where it stands; what is behind it, or NULL if
   it has no end. */
static char *tool_csv_unquote(char *at, char **field)
{
    char *to = at;
    *field = to;
    for (at++; *at; at++) {
        if (*at == '"' && *++at != '"') {
            *to = 0;
            return at;
        }
        *to++ = *at;
    }
    return NULL;
}

/* Cuts a line at its marks (' ': at blanks and tabs), blanks around fields removed; how many
   fields, or TOOL_CUT_.... */
static int tool_csv_cut(char *line, char mark, char **field)
{
    char other = mark == ' ' ? '\t' : mark, blank = mark == '\t' ? ' ' : '\t', *end;
    int n = 0;
    for (;; line++) {
        if (n == TOOL_CSV_FIELDS) return TOOL_CUT_MANY;
        while (*line == ' ' || *line == blank) line++;
        if (mark == ' ' && n > 0 && !*line) return n;
        field[n] = line;
        if (*line == '"') {
            line = end = tool_csv_unquote(line, &field[n]);
            if (!line) return TOOL_CUT_QUOTE;
            while (mark != ' ' && (*line == ' ' || *line == blank)) line++;
            if (*line && *line != mark && *line != other) return TOOL_CUT_QUOTE;
        } else {
            while (*line && *line != mark && *line != other) line++;
            for (end = line; end > field[n] && (end[-1] == ' ' || end[-1] == '\t'); end--) continue;
        }
        n++;
        if (!*line) break;
        *end = 0;
    }
    *end = 0;
    return n;
}

/* What stands between the names of a header: the first of , ; tab outside quotes, else blanks. */
static char tool_csv_mark(const char *line)
{
    char mark = ' ';
    int quoted = 0;
    for (; *line; line++) {
        if (*line == '"') quoted = !quoted;
        else if (!quoted && *line == ',') return ',';
        else if (!quoted && mark == ' ' && (*line == ';' || *line == '\t')) mark = *line;
    }
    return mark;
}

/* ---------------------------------------------------------------- header */

/* What is no text of numbers, by its first bytes, and the way to one. */
static calomu_status tool_csv_kind(const tool_csv *csv)
{
    static const struct { const char *bytes, *what; } kind[] = {
        { "\037\213", "packed with gzip; give it through a pipe: zcat FILE | ... -" },
        { "PK\003\004", "a ZIP file (a spreadsheet, or numpy's npz): export it as CSV" },
        { "\3757zXZ", "packed with xz; give it through a pipe: xzcat FILE | ... -" },
        { "BZh", "packed with bzip2; give it through a pipe: bzcat FILE | ... -" },
        { "\050\265\057\375", "packed with zstd; give it through a pipe: zstdcat FILE | ... -" },
        { "\211HDF", "an HDF5 file: calomu-import-h5 reads it" },
        { "\223NUMPY", "an array of numpy: write it with numpy.savetxt" },
        { "root", "a ROOT file; in Python: "
                  "uproot.open(FILE)[TREE].arrays(library='pd').to_csv(CSV, index=False)" },
        { "PAR1", "a Parquet file; in Python: pandas.read_parquet(FILE).to_csv(CSV, index=False)" },
        { "ARROW1", "an Arrow file; in Python: "
                    "pandas.read_feather(FILE).to_csv(CSV, index=False)" },
        { "\377\376", "a text in UTF-16: save it in UTF-8 (iconv -f UTF-16 -t UTF-8)" },
        { "\376\377", "a text in UTF-16: save it in UTF-8 (iconv -f UTF-16 -t UTF-8)" }
    };
    size_t i, n;
    for (i = 0; i < sizeof kind / sizeof *kind; i++) {
        n = strlen(kind[i].bytes);
        if (csv->to >= n && memcmp(csv->buffer, kind[i].bytes, n) == 0)
            return tool_fail(CALOMU_EFORMAT, "%s: no table: it is %s", csv->path, kind[i].what);
    }
    return CALOMU_OK;
}

static int tool_csv_is_number(const char *text)
{
    double x;
    const char *end = calomu_parse(text, &x);
    return end && !*end;
}

static calomu_status tool_csv_lacks(const tool_csv *csv, const tool_column *column)
{
    const char *const *names = csv->name, *wanted = column->name;
    const char *near = tool_nearest(wanted, names, (size_t)csv->fields);
    int maybe = column->cell == TOOL_CELL_MAYBE;
    char hint[160] = "";
    if (csv->fields == 0)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "the header has no columns");
    if (tool_csv_is_number(names[0]) && !csv->geant4)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "the header has no column '%s': the line holds "
                             "numbers, but must name the columns", wanted);
    if (csv->option)
        (void)snprintf(hint, sizeof hint, "; --%s %.40s=NAME says which it is%s", csv->option,
                       wanted, maybe ? ", - that there is none" : "");
    return tool_csv_fail(csv, CALOMU_EFORMAT, "the header has no column '%s'%s%s%s%s%s", wanted,
                         near ? " (it has '" : "", near ? near : "", near ? "')" : "",
                         !near && !*names[0] ? " (the first has no name: R's row names, or the "
                         "index of pandas)" : "", hint);
}

static calomu_status tool_csv_match(tool_csv *csv)
{
    int i, k, found;
    for (i = 0; i < csv->fields; i++) csv->place[i] = -1;
    for (k = 0; k < csv->n; k++) {
        found = -1;
        for (i = 0; i < csv->fields; i++) {
            if (strcmp(csv->name[i], csv->column[k].name) != 0) continue;
            if (found >= 0)
                return tool_csv_fail(csv, CALOMU_EFORMAT, "the header names column '%s' twice",
                                     csv->column[k].name);
            found = i;
        }
        if (found >= 0)
            csv->place[found] = k;
        else if (!csv->column[k].optional)
            return tool_csv_lacks(csv, &csv->column[k]);
    }
    return CALOMU_OK;
}

static calomu_status tool_csv_quote(const tool_csv *csv)
{
    return tool_csv_fail(csv, CALOMU_EFORMAT, "a quote has no end in this line, or is followed by "
                         "something else");
}

/* The names in a line of text, which is kept. */
static calomu_status tool_csv_names(tool_csv *csv, const char *line)
{
    char *field[TOOL_CSV_FIELDS];
    int i;
    csv->header = strdup(line);
    if (!csv->header) return tool_fail(CALOMU_EMEMORY, "%s: no memory", csv->path);
    if (!csv->mark) csv->mark = tool_csv_mark(line);
    csv->fields = tool_csv_cut(csv->header, csv->mark, field);
    if (csv->fields == TOOL_CUT_MANY)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "more than %d columns", (int)TOOL_CSV_FIELDS);
    if (csv->fields < 0) return tool_csv_quote(csv);
    for (i = 0; i < csv->fields; i++) csv->name[i] = field[i];
    return CALOMU_OK;
}

/* GEANT4's header, behind the line `#class tools::wcsv::ntuple`: `#separator 44` and, for each
   column, `#column TYPE NAME`.  Names may hold anything but an end of line. */
static calomu_status tool_csv_geant4(tool_csv *csv)
{
    calomu_status status;
    char *line, *name;
    size_t length;
    double mark;
    int is, n = 0;
    csv->geant4 = 1;
    csv->mark = ',';
    csv->header = malloc(TOOL_CSV_LINE + 1);
    if (!csv->header) return tool_fail(CALOMU_EMEMORY, "%s: no memory", csv->path);
    for (name = csv->header;;) {
        status = tool_csv_peek(csv, '#', &is);
        if (status == CALOMU_OK && is) status = tool_csv_line_text(csv, &line, &length);
        if (status != CALOMU_OK || !is) break;
        if (strncmp(line, "#separator ", 11) == 0 && calomu_parse(line + 11, &mark) && mark >= 9
            && mark < 127)
            csv->mark = (char)mark;
        if (strncmp(line, "#column ", 8) != 0) continue;
        line = strchr(line + 8, ' ');
        if (!line || n == TOOL_CSV_FIELDS
            || strlen(line) > (size_t)(csv->header + TOOL_CSV_LINE - name))
            return tool_csv_fail(csv, CALOMU_EFORMAT, "a column without a name, or too many");
        csv->name[n++] = name;
        name += 1 + (size_t)snprintf(name, strlen(line), "%s", line + 1);
    }
    csv->fields = n;
    return status;
}

/* Lines of comments: the header is the last of them if numbers follow, else the line behind. */
static calomu_status tool_csv_comments(tool_csv *csv, char *line, int *named)
{
    calomu_status status = CALOMU_OK;
    char *copy = NULL;
    size_t length;
    int is = 1, first;
    *named = 0;
    while (status == CALOMU_OK && is) {
        if (strncmp(line, "#class tools::wcsv::ntuple", 26) == 0) {
            *named = 1;
            free(copy);
            return tool_csv_geant4(csv);
        }
        free(copy);
        for (line++; *line == ' ' || *line == '\t' || *line == '#'; line++) continue;
        copy = strdup(line);
        if (!copy) return tool_fail(CALOMU_EMEMORY, "%s: no memory", csv->path);
        status = tool_csv_peek(csv, '#', &is);
        if (status == CALOMU_OK && is) status = tool_csv_line_text(csv, &line, &length);
    }
    first = csv->from < csv->to ? (unsigned char)csv->buffer[csv->from] : '0';
    *named = (first >= '0' && first <= '9') || first == '-' || first == '+' || first == '.'
             || first == ' ' || first == '\t';
    if (status == CALOMU_OK && *named) status = tool_csv_names(csv, copy);
    free(copy);
    return status;
}

static calomu_status tool_csv_header(tool_csv *csv)
{
    char *line;
    size_t length = 0;
    int named = 0;
    calomu_status status;
    do
        status = tool_csv_line_text(csv, &line, &length);
    while (status == CALOMU_OK && line && length == 0);
    if (status != CALOMU_OK) return status;
    if (!line) return tool_csv_fail(csv, CALOMU_EFORMAT, "the file is empty; a header is needed");
    if (strchr(line, '\r')) return tool_csv_returns(csv);
    /* Spreadsheets put a byte order mark before UTF-8 text, and say the separator. */
    if (length >= 3 && memcmp(line, "\357\273\277", 3) == 0) line += 3;
    if (strncmp(line, "sep=", 4) == 0 && line[4] && !line[5]) {
        csv->mark = line[4];
        status = tool_csv_line_text(csv, &line, &length);
    } else if (*line == '#') {
        status = tool_csv_comments(csv, line, &named);
        if (status == CALOMU_OK && !named) status = tool_csv_line_text(csv, &line, &length);
    }
    if (status == CALOMU_OK && !named && !line)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "no line that names the columns");
    if (status == CALOMU_OK && !named) status = tool_csv_names(csv, line);
    return status == CALOMU_OK ? tool_csv_match(csv) : status;
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

/* How tools write that a value is missing: R, pandas and numpy, databases. */
static int tool_csv_missing(const char *text)
{
    static const char *const words[] = { "", "NA", "NaN", "nan", "<NA>", "NULL", "null", "None" };
    size_t i;
    for (i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(text, words[i]) == 0) return 1;
    return 0;
}

static calomu_status tool_csv_value(tool_csv *csv, const tool_column *column, const char *text,
                                    double *value)
{
    const char *end;
    *value = (double)calomu_absent();
    if (column->cell == TOOL_CELL_TEXT) return CALOMU_OK;
    if (column->cell == TOOL_CELL_MAYBE && tool_csv_missing(text)) return CALOMU_OK;
    if (!*text) return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is empty", column->name);
    end = tool_csv_parse(text, value);
    if (end && *end == ',')
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is '%.40s', which has a decimal comma: "
                             "write points (R: write.csv, not write.csv2; pandas: decimal='.'; "
                             "here: tr ',;' '.,')", column->name, text);
    if (end && *end == ';' && csv->geant4)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is '%.40s', several numbers: GEANT4's "
                             "vector columns are not read; fill one row per hit", column->name,
                             text);
    if (!end || *end)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is '%.40s', which is not a number",
                             column->name, text);
    if (!(*value - *value == 0))
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is '%.40s', which is too large",
                             column->name, text);
    return CALOMU_OK;
}

/* Empty lines and comments may end a file, but no row may come behind them. */
static calomu_status tool_csv_only_empty(tool_csv *csv, const char *line)
{
    uint64_t first = csv->line;
    calomu_status status;
    size_t length;
    char *next, begin = *line;
    int class_line = strncmp(line, "#class ", 7) == 0;
    for (;;) {
        status = tool_csv_line_text(csv, &next, &length);
        if (status != CALOMU_OK || !next) return status;
        if (length == 0 || *next == '#') continue;
        csv->line = first;
        if (class_line)
            return tool_csv_fail(csv, CALOMU_EFORMAT, "the header of a second file; to join the "
                                 "files of GEANT4's threads: { cat FIRST; grep -hv '^#' OTHERS; } "
                                 "| ... -");
        return tool_csv_fail(csv, CALOMU_EFORMAT, "the line is %s, but the file goes on",
                             begin ? "a comment" : "empty");
    }
}

/* The first row shows what stands between fields if it is not what stands between the names
   (numpy.savetxt), and whether there is one field more, in quotes: row names, as R's write.table
   writes them. */
static calomu_status tool_csv_learn(tool_csv *csv, const char *line)
{
    static const char marks[] = { ',', ';', '\t', ' ' };
    char *field[TOOL_CSV_FIELDS], *copy = strdup(line);
    size_t i;
    int n, at = -1;
    if (!copy) return tool_fail(CALOMU_EMEMORY, "%s: no memory", csv->path);
    csv->first = csv->line;
    n = tool_csv_cut(copy, csv->mark, field);
    csv->row_names = n == csv->fields + 1 && *line == '"';
    for (i = 0; n == 1 && csv->fields > 1 && i < sizeof marks; i++) {
        memcpy(copy, line, strlen(line) + 1);
        if (tool_csv_cut(copy, marks[i], field) == csv->fields) at = (int)i;
    }
    if (at >= 0) csv->mark = marks[at];
    free(copy);
    return CALOMU_OK;
}

/* last: the last of n fields */
static calomu_status tool_csv_misfit(const tool_csv *csv, int n, const char *last)
{
    const char *hint = "";
    if (n == TOOL_CUT_QUOTE) return tool_csv_quote(csv);
    if (n == csv->fields + 1 && csv->line == csv->first)
        hint = *last ? "; if the first is a row name of R: row.names = FALSE"
                     : "; the last is empty: name it in the header too, or take it off";
    return tool_csv_fail(csv, CALOMU_EFORMAT, "the line has %d fields, but the header has %d%s",
                         n < 0 ? TOOL_CSV_FIELDS + 1 : n, csv->fields + csv->row_names, hint);
}

calomu_status tool_csv_next(tool_csv *csv, double *value, int *more)
{
    char *line, *field[TOOL_CSV_FIELDS];
    size_t length = 0;
    int i, n, k;
    calomu_status status;
    *more = 0;
    do
        status = tool_csv_line_text(csv, &line, &length);
    while (status == CALOMU_OK && line && !csv->first && *line == '#');
    if (status != CALOMU_OK || !line) return status;
    if (length == 0 || *line == '#') return tool_csv_only_empty(csv, line);
    if (!csv->first) status = tool_csv_learn(csv, line);
    if (status != CALOMU_OK) return status;
    n = tool_csv_cut(line, csv->mark, field);
    if (n != csv->fields + csv->row_names)
        return tool_csv_misfit(csv, n, n > 0 ? field[n - 1] : "");
    for (i = 0; i < csv->n; i++) {
        csv->text[i] = "";
        value[i] = (double)calomu_absent();
    }
    for (i = 0; i < csv->fields; i++) {
        k = csv->place[i];
        if (k < 0) continue;
        csv->text[k] = field[i + csv->row_names];
        status = tool_csv_value(csv, &csv->column[k], csv->text[k], &value[k]);
        if (status != CALOMU_OK) return status;
    }
    *more = 1;
    return CALOMU_OK;
}

size_t tool_csv_first(const tool_csv *csv) { return (size_t)csv->first; }

/* 1 if the text is a whole number that was rounded when it was written: 1.23457e+06, the six digits
   of C++ streams and GEANT4's csv.  Tools that keep all digits use an exponent only where it is
   shorter (R: 1e+05, 1.2e+08) or behind digits enough (numpy: 1.234567000000000000e+06). */
static int tool_csv_rounded(const tool_csv *csv, const char *text)
{
    const char *point = strchr(text, '.'), *e = strpbrk(text, "eE");
    double exponent;
    long digits;
    if (!e || !calomu_parse(e + 1, &exponent)) return 0;
    digits = point ? (long)(e - point) - 1 : 0;
    return (double)digits < exponent
           && (csv->geant4 || (digits > 0 && (double)digits >= exponent - 5));
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
    if (tool_csv_rounded(csv, text))
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is %.40s: rounded to the digits shown, so "
                             "that it may be another number; write all digits%s", name, text,
                             csv->geant4 ? " (GEANT4: an integer column, CreateNtupleIColumn)"
                                         : "");
    if ((double)*out != value)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is %.40s, which is not a whole number",
                             name, text);
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- other names */

/* One pair NAME=OTHER into the column that `usual` calls NAME; OTHER is - for one that is not
   there, if its values may be unknown. */
static calomu_status tool_column_rename(tool_column *columns, const tool_column *usual, int n,
                                        const char *option, char *at)
{
    const char *names[TOOL_CSV_FIELDS], *near;
    char *other = strchr(at, '=');
    int i;
    if (!other || other == at || !other[1])
        return tool_misuse("--%s: '%.40s' must be NAME=COLUMN", option, at);
    *other++ = 0;
    for (i = 0; i < n; i++) {
        names[i] = usual[i].name;
        if (strcmp(at, usual[i].name) != 0) continue;
        columns[i].name = other;
        columns[i].optional = strcmp(other, "-") == 0;
        if (columns[i].optional && usual[i].cell != TOOL_CELL_MAYBE)
            return tool_misuse("--%s: '%s' must be there", option, at);
        return CALOMU_OK;
    }
    near = tool_nearest(at, names, (size_t)n);
    return tool_misuse("--%s: no column '%.40s'%s%s%s", option, at, near ? "; did you mean '" : "",
                       near ? near : "", near ? "'?" : "");
}

calomu_status tool_columns_rename(tool_column *columns, const tool_column *usual, int n,
                                  const char *option, const char *text, char **names)
{
    calomu_status status = CALOMU_OK;
    char *at, *next;
    memcpy(columns, usual, (size_t)n * sizeof *columns);
    *names = text ? strdup(text) : NULL;
    if (text && !*names) return tool_fail(CALOMU_EMEMORY, "no memory");
    for (at = *names; at && status == CALOMU_OK; at = next) {
        next = strchr(at, ',');
        if (next) *next++ = 0;
        status = tool_column_rename(columns, usual, n, option, at);
    }
    return status;
}

/* ---------------------------------------------------------------- open and close */

static calomu_status tool_csv_start(tool_csv *csv, const char *path)
{
    calomu_status status;
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
    do
        status = tool_csv_fill(csv);
    while (status == CALOMU_OK && !csv->end && csv->to < 8);
    if (status == CALOMU_OK) status = tool_csv_kind(csv);
    return status == CALOMU_OK ? tool_csv_header(csv) : status;
}

calomu_status tool_csv_open(const char *path, const tool_column *columns, int n, tool_csv **csv)
{
    return tool_csv_open_as(path, columns, n, NULL, csv);
}

calomu_status tool_csv_open_as(const char *path, const tool_column *columns, int n,
                               const char *option, tool_csv **csv)
{
    calomu_status status;
    *csv = calloc(1, sizeof **csv);
    if (!*csv) return tool_fail(CALOMU_EMEMORY, "%s: no memory", path);
    (*csv)->fd = -1;
    (*csv)->column = columns;
    (*csv)->n = n;
    (*csv)->option = option;
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

const char *tool_csv_name(const tool_csv *csv, int column) { return csv->column[column].name; }

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
