/* options.c - long options and positional arguments, and the --help text made from their tables. */
#include "calomu_tool.h"

#include <float.h>
#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TOOL_MANY = 256 };            /* options in a table, at most */

/* ---------------------------------------------------------------- values as text */

/* The shortest decimal that reads back as x (as a float if `single`).  It is not always the one of
   fewest digits: 60 is 6e+01 with one and 60 with two. */
static char *tool_shortest(char text[32], double x, int single)
{
    char other[32];
    double back = 0;
    int digits = single ? 9 : 17;
    (void)calomu_number(text, x, digits);
    for (digits--; digits > 0; digits--) {
        (void)calomu_number(other, x, digits);
        if (strlen(other) < strlen(text) && calomu_parse(other, &back)
            && (single ? (float)back == (float)x : back == x))
            memcpy(text, other, sizeof other);
    }
    return text;
}

/* Word i of "a|b|c" into text; 0 if there is none. */
static int tool_choice(const char *words, int i, char text[64])
{
    size_t n;
    for (; i > 0; i--) {
        words = strchr(words, '|');
        if (!words) return 0;
        words++;
    }
    n = strcspn(words, "|");
    if (n > 63) n = 63;
    memcpy(text, words, n);
    text[n] = 0;
    return 1;
}

static void tool_geometry_text(char text[256], const calomu_geometry *g)
{
    char number[7][32];
    int i;
    for (i = 0; i < 3; i++) {
        (void)tool_shortest(number[i], g->pitch[i], 0);
        (void)tool_shortest(number[3 + i], g->origin[i], 0);
    }
    (void)tool_shortest(number[6], g->field, 0);
    (void)snprintf(text, 256, "%d,%d,%d,%s,%s,%s,%s,%s,%s,%s", (int)g->nz, (int)g->nx, (int)g->ny,
                   number[0], number[1], number[2], number[3], number[4], number[5], number[6]);
}

/* What --help shows as the default; "" if there is none. */
static void tool_default_text(const tool_option *o, char text[256])
{
    char number[32], word[64];
    const double *pair = o->target;
    text[0] = 0;
    if (o->preset) {
        (void)snprintf(text, 256, "%s", o->preset);
        return;
    }
    switch (o->type) {
    case TOOL_STRING:
        if (*(const char **)o->target) (void)snprintf(text, 256, "%s", *(const char **)o->target);
        break;
    case TOOL_INT: (void)snprintf(text, 256, "%ld", (long)*(int32_t *)o->target); break;
    case TOOL_U64:
        (void)snprintf(text, 256, "%llu", (unsigned long long)*(uint64_t *)o->target);
        break;
    case TOOL_DOUBLE:
        (void)snprintf(text, 256, "%s", tool_shortest(number, *(double *)o->target, 0));
        break;
    case TOOL_FLOAT:
        (void)snprintf(text, 256, "%s", tool_shortest(number, *(float *)o->target, 1));
        break;
    case TOOL_CHOICE:
        if (*(int *)o->target >= 0 && tool_choice(o->value, *(int *)o->target, word))
            (void)snprintf(text, 256, "%s", word);
        break;
    case TOOL_FLAG:
    case TOOL_FILES: break;
    case TOOL_GEOMETRY: tool_geometry_text(text, o->target); break;
    case TOOL_PAIR:
        (void)snprintf(text, 256, "%s,", tool_shortest(number, pair[0], 0));
        (void)tool_shortest(number, pair[1], 0);
        (void)snprintf(text + strlen(text), 256 - strlen(text), "%s", number);
        break;
    }
}

/* ---------------------------------------------------------------- help */

enum { TOOL_INDENT = 25, TOOL_WIDTH = 79 };    /* an 80th letter would wrap some terminals */

/* Words of text from the given column on, broken at TOOL_WIDTH; further lines begin at indent. */
static void tool_print_wrapped(const char *text, size_t length, size_t column, size_t indent)
{
    const char *end = text + length;
    size_t n, start = column;
    while (text < end) {
        n = strcspn(text, " \n");
        if (n > (size_t)(end - text)) n = (size_t)(end - text);
        if (column > start && column + 1 + n > TOOL_WIDTH) {
            printf("\n%*s", (int)indent, "");
            column = start = indent;
        } else if (column > start) {
            putchar(' ');
            column++;
        }
        printf("%.*s", (int)n, text);
        column += n;
        text += n;
        while (text < end && (*text == ' ' || *text == '\n')) text++;
    }
    putchar('\n');
}

/* Lines as their author broke them; paragraphs with one that is too long are broken anew.  A line
   that begins with a space stands for itself. */
static void tool_print_text(const char *text)
{
    while (*text) {
        const char *end = text, *line = text;
        size_t n, longest = 0;
        do {
            n = strcspn(line, "\n");
            longest = n > longest ? n : longest;
            end = line + n;
            line = *end ? end + 1 : end;
        } while (*text != ' ' && *text != '\n' && *line && *line != ' ' && *line != '\n');
        if (longest > TOOL_WIDTH && *text != ' ')
            tool_print_wrapped(text, (size_t)(end - text), 0, 0);
        else
            printf("%.*s\n", (int)(end - text), text);
        text = line;
    }
}

static void tool_print_option(const tool_option *o)
{
    char head[128], body[1024], preset[256];
    size_t n;
    (void)snprintf(head, sizeof head, "  --%s%s%s", o->name, o->type == TOOL_FLAG ? "" : " ",
                   o->type == TOOL_FLAG ? "" : o->value);
    tool_default_text(o, preset);
    if (o->needed)
        (void)snprintf(body, sizeof body, "%s (must be given)", o->help);
    else if (preset[0])
        (void)snprintf(body, sizeof body, "%s (default %s)", o->help, preset);
    else
        (void)snprintf(body, sizeof body, "%s", o->help);
    n = strlen(head);
    if (n + 2 > TOOL_INDENT)
        printf("%s\n%*s", head, TOOL_INDENT, "");
    else
        printf("%-*s", TOOL_INDENT, head);
    tool_print_wrapped(body, strlen(body), TOOL_INDENT, TOOL_INDENT);
}

static int tool_print_usage(const tool_usage *u)
{
    char line[1024];
    const tool_operand *p;
    const tool_option *o;
    size_t n = (size_t)snprintf(line, sizeof line, "Usage: %s%s", u->program ? u->program
                                : "calomu ", u->program ? "" : u->verb);
    for (p = u->operands; p && p->name && n < sizeof line; p++)
        n += (size_t)snprintf(line + n, sizeof line - n, " %s%s%s%s", p->optional ? "[" : "",
                              p->name, p->most > 1 ? " ..." : "", p->optional ? "]" : "");
    for (o = u->options; o && o->name && n < sizeof line; o++)
        if (o->needed)
            n += (size_t)snprintf(line + n, sizeof line - n, " --%s %s", o->name, o->value);
    if (n < sizeof line) (void)snprintf(line + n, sizeof line - n, " [options]");
    tool_print_wrapped(line, strlen(line), 0, 7);
    putchar('\n');
    tool_print_text(u->purpose);
    printf("\nOptions:\n");
    for (o = u->options; o && o->name; o++) tool_print_option(o);
    printf("  %-*s%s\n", TOOL_INDENT - 2, "--help", "this text");
    if (u->notes) {
        putchar('\n');
        tool_print_text(u->notes);
    }
    return 0;
}

/* ---------------------------------------------------------------- reading values */

static calomu_status tool_bad(const tool_option *o, const char *text, const char *what)
{
    return tool_misuse("--%s %.80s: %s", o->name, text, what);
}

/* One finite number, with one of `ends` or nothing behind it; NULL if it is not there. */
static const char *tool_number_at(const char *text, const char *ends, double *x)
{
    const char *behind = calomu_parse(text, x);
    if (!behind || (*behind && !strchr(ends, *behind))) return NULL;
    return *x - *x == 0 ? behind : NULL;
}

/* Digits only, at most `most`; 0: no such number, 1: read, 2: too large. */
static int tool_digits(const char *text, uint64_t most, uint64_t *out)
{
    uint64_t n = 0, digit;
    if (!*text) return 0;
    for (; *text; text++) {
        if (*text < '0' || *text > '9') return 0;
        digit = (uint64_t)(*text - '0');
        if (n > (UINT64_MAX - digit) / 10) n = UINT64_MAX;
        else n = 10 * n + digit;
    }
    if (n > most) return 2;
    *out = n;
    return 1;
}

static calomu_status tool_read_whole(const tool_option *o, const char *text)
{
    char message[96];
    int negative = o->type == TOOL_INT && text[0] == '-', ok;
    double most = o->type == TOOL_INT ? 2147483647.0 : 18446744073709551615.0;
    double low = o->type == TOOL_INT ? -2147483648.0 : 0, high = most;
    uint64_t n = 0;
    ok = tool_digits(text + negative, o->type == TOOL_INT ? 2147483647U : UINT64_MAX, &n);
    if (ok == 0) return tool_bad(o, text, "not a whole number");
    if (o->low < o->high || o->low > 0) low = o->low;
    if (o->low < o->high) high = o->high;
    if (ok == 2 || (negative ? -(double)n : (double)n) < low
        || (negative ? -(double)n : (double)n) > high) {
        (void)snprintf(message, sizeof message, "must be from %.0f to %.0f", low, high);
        return tool_bad(o, text, message);
    }
    if (o->type == TOOL_U64)
        *(uint64_t *)o->target = n;
    else
        *(int32_t *)o->target = negative ? -(int32_t)n : (int32_t)n;
    return CALOMU_OK;
}

static calomu_status tool_read_real(const tool_option *o, const char *text)
{
    char message[128], low[32], high[32];
    double x = 0;
    const char *behind = tool_number_at(text, "", &x);
    if (!behind) return tool_bad(o, text, "not a number");
    if ((o->low < o->high || o->low > 0) && !(x >= o->low)) {
        (void)snprintf(message, sizeof message, "must be at least %s",
                       tool_shortest(low, o->low, 0));
        return tool_bad(o, text, message);
    }
    if (o->low < o->high && !(x <= o->high)) {
        (void)snprintf(message, sizeof message, "must be at most %s",
                       tool_shortest(high, o->high, 0));
        return tool_bad(o, text, message);
    }
    if (o->type == TOOL_FLOAT && fabs(x) > FLT_MAX) return tool_bad(o, text, "too large");
    if (o->type == TOOL_FLOAT)
        *(float *)o->target = (float)x;
    else
        *(double *)o->target = x;
    return CALOMU_OK;
}

static calomu_status tool_read_choice(const tool_option *o, const char *text)
{
    char word[64], message[160];
    int i;
    for (i = 0; tool_choice(o->value, i, word); i++) {
        if (strcmp(word, text) == 0) {
            *(int *)o->target = i;
            return CALOMU_OK;
        }
    }
    (void)snprintf(message, sizeof message, "must be one of %s", o->value);
    return tool_bad(o, text, message);
}

int tool_rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double tool_quantile(const double *x, size_t n, double q)
{
    const double at = q * (double)(n - 1);
    const size_t i = (size_t)at;
    return i + 1 < n ? x[i] + (x[i + 1] - x[i]) * (at - (double)i) : x[n - 1];
}

int tool_numbers(const char *text, const char *between, double *x, int most)
{
    int n = 0;
    for (;;) {
        if (n == most) return -1;
        text = tool_number_at(text, between, &x[n++]);
        if (!text) return -1;
        if (!*text) return n;
        text++;
    }
}

static calomu_status tool_read_pair(const tool_option *o, const char *text)
{
    double x[2], *pair = o->target;
    if (tool_numbers(text, TOOL_PAIR_BETWEEN, x, 2) != 2)
        return tool_bad(o, text, "must be two numbers LOW,HIGH");
    if (!(x[0] < x[1])) return tool_bad(o, text, "the first number must be below the second");
    if (o->low < o->high && (!(x[0] >= o->low) || !(x[1] <= o->high)))
        return tool_bad(o, text, "out of range");
    pair[0] = x[0];
    pair[1] = x[1];
    return CALOMU_OK;
}

static calomu_status tool_read_geometry(const tool_option *o, const char *text)
{
    calomu_geometry g = calomu_geometry_default();
    calomu_status status;
    calomu *c = NULL;
    double x[10];
    int i, n = tool_numbers(text, ",", x, 10);
    if (n != 6 && n != 9 && n != 10)
        return tool_bad(o, text, "must be 6, 9 or 10 numbers nz,nx,ny,pz,px,py[,z0,x0,y0[,B]]");
    for (i = 0; i < 3; i++)
        if (!(x[i] >= 1) || !(x[i] <= 1 << 24) || x[i] != floor(x[i]))
            return tool_bad(o, text, "numbers of cells must be whole and positive");
    g.nz = (int32_t)x[0];
    g.nx = (int32_t)x[1];
    g.ny = (int32_t)x[2];
    for (i = 0; i < 3; i++) g.pitch[i] = x[3 + i];
    g.origin[0] = 0;
    g.origin[1] = -x[1] * x[4] / 2;
    g.origin[2] = -x[2] * x[5] / 2;
    for (i = 6; i < 9 && i < n; i++) g.origin[i - 6] = x[i];
    if (n == 10) g.field = x[9];
    status = calomu_open(&c, NULL);
    if (status != CALOMU_OK) return tool_fail(status, "%s", calomu_status_text(status));
    status = calomu_geometry_check(c, &g);
    if (status != CALOMU_OK) status = tool_bad(o, text, calomu_message(c));
    else *(calomu_geometry *)o->target = g;
    calomu_close(c);
    return status;
}

void tool_files_free(tool_files *files)
{
    int i;
    for (i = 0; i < files->n; i++) free(files->path[i]);
    free(files->path);
    files->path = NULL;
    files->n = 0;
}

static calomu_status tool_add_file(tool_files *files, const char *path)
{
    char **more = realloc(files->path, ((size_t)files->n + 1) * sizeof *more);
    if (more) files->path = more;
    if (!more || !(more[files->n] = strdup(path))) return tool_fail(CALOMU_EMEMORY, "no memory");
    files->n++;
    return CALOMU_OK;
}

/* A file of that very name goes before a pattern: names may hold brackets. */
static calomu_status tool_read_files(const tool_option *o, const char *text)
{
    calomu_status status = CALOMU_OK;
    struct stat there;
    glob_t found;
    size_t i;
    int code;
    if (lstat(text, &there) == 0 || !strpbrk(text, "*?["))
        return tool_add_file(o->target, text);
    code = glob(text, GLOB_ERR, NULL, &found);
    if (code == GLOB_NOMATCH) return tool_fail(CALOMU_EIO, "--%s %s: no file is named so", o->name,
                                               text);
    if (code != 0) return tool_fail(code == GLOB_NOSPACE ? CALOMU_EMEMORY : CALOMU_EIO,
                                    "--%s %s: a folder cannot be read", o->name, text);
    for (i = 0; i < found.gl_pathc && status == CALOMU_OK; i++)
        status = tool_add_file(o->target, found.gl_pathv[i]);
    globfree(&found);
    return status;
}

static calomu_status tool_read_value(const tool_option *o, const char *text)
{
    if (!*text) return tool_misuse("--%s: the value is empty", o->name);
    switch (o->type) {
    case TOOL_STRING: *(const char **)o->target = text; break;
    case TOOL_INT:
    case TOOL_U64: return tool_read_whole(o, text);
    case TOOL_DOUBLE:
    case TOOL_FLOAT: return tool_read_real(o, text);
    case TOOL_CHOICE: return tool_read_choice(o, text);
    case TOOL_FLAG: break;           /* takes no value: tool_take_option has set it */
    case TOOL_GEOMETRY: return tool_read_geometry(o, text);
    case TOOL_PAIR: return tool_read_pair(o, text);
    case TOOL_FILES: return tool_read_files(o, text);
    }
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- reading arguments */

static tool_option *tool_find_option(const tool_usage *u, const char *name, size_t n)
{
    tool_option *o;
    for (o = u->options; o && o->name; o++)
        if (strlen(o->name) == n && strncmp(o->name, name, n) == 0) return o;
    return NULL;
}

static calomu_status tool_unknown_option(const tool_usage *u, const char *argument)
{
    const char *names[TOOL_MANY], *near;
    char word[64];
    size_t n = 0;
    const tool_option *o;
    (void)snprintf(word, sizeof word, "%.*s", (int)strcspn(argument, "="), argument);
    for (o = u->options; o && o->name && n < TOOL_MANY; o++) names[n++] = o->name;
    near = tool_nearest(word + strspn(word, "-"), names, n);
    if (near) return tool_misuse("no option '%s'; did you mean '--%s'?", word, near);
    return tool_misuse("no option '%s'", word);
}

/* The option at argv[*i], and its value, which may be the next argument. */
static calomu_status tool_take_option(tool_usage *u, int argc, char **argv, int *i)
{
    const char *argument = argv[*i], *name = argument + 2, *value;
    size_t n = strcspn(name, "=");
    tool_option *o = argument[1] == '-' ? tool_find_option(u, name, n) : NULL;
    calomu_status status;
    if (!o) return tool_unknown_option(u, argument);
    if (o->given) return tool_misuse("--%s is given twice", o->name);
    o->given = 1;
    value = name[n] == '=' ? name + n + 1 : NULL;
    if (o->type == TOOL_FLAG) {
        if (value) return tool_misuse("--%s takes no value", o->name);
        *(int *)o->target = 1;
        return CALOMU_OK;
    }
    if (!value) {
        /* A value that starts with -- is nearly always the next option; = takes it all the same. */
        if (*i + 1 >= argc || strncmp(argv[*i + 1], "--", 2) == 0)
            return tool_misuse("--%s needs a value (%s)", o->name, o->value);
        value = argv[++*i];
    }
    status = tool_read_value(o, value);
    while (o->type == TOOL_FILES && status == CALOMU_OK && *i + 1 < argc && argv[*i + 1][0] != '-')
        status = tool_read_value(o, argv[++*i]);
    return status;
}

static calomu_status tool_take_operand(tool_usage *u, const char *text, int *taken)
{
    const tool_operand *p;
    int before = 0, most;
    if (!*text) return tool_misuse("an argument is empty");
    for (p = u->operands; p && p->name; p++) {
        most = p->most > 1 ? p->most : 1;
        if (*taken < before + most) {
            p->target[*taken - before] = text;
            if (p->count) *p->count = *taken - before + 1;
            ++*taken;
            return CALOMU_OK;
        }
        before += most;
    }
    return tool_misuse("'%.80s' is one argument too many", text);
}

static calomu_status tool_check_all_there(const tool_usage *u, int taken)
{
    const tool_operand *p;
    const tool_option *o;
    int before = 0;
    for (p = u->operands; p && p->name; p++) {
        if (taken <= before && !p->optional) return tool_misuse("%s is missing", p->name);
        before += p->most > 1 ? p->most : 1;
    }
    for (o = u->options; o && o->name; o++)
        if (o->needed && !o->given) return tool_misuse("--%s %s is missing", o->name, o->value);
    return CALOMU_OK;
}

static calomu_status tool_claim_option(const tool_option *o)
{
    const tool_files *files = o->target;
    const char *path = NULL;
    char role[64];
    calomu_status status = CALOMU_OK;
    int i;
    (void)snprintf(role, sizeof role, "--%s", o->name);
    for (i = 0; o->type == TOOL_FILES && i < files->n && status == CALOMU_OK; i++)
        status = tool_claim(o->file, role, files->path[i]);
    if (o->type == TOOL_FILES) return status;
    if (o->file != TOOL_NO_FILE) path = *(const char **)o->target;
    return path ? tool_claim(o->file, role, path) : CALOMU_OK;
}

/* What is read comes first, so that messages are about what would be written. */
static calomu_status tool_claim_all(const tool_usage *u, int taken)
{
    const tool_operand *p;
    const tool_option *o;
    calomu_status status = CALOMU_OK;
    int i, n;
    for (p = u->operands; p && p->name; p++)
        for (n = p->most > 1 ? p->most : 1, i = 0; i < n && taken > 0 && status == CALOMU_OK;
             i++, taken--)
            status = tool_claim(TOOL_READS, p->name, p->target[i]);
    for (o = u->options; o && o->name; o++)
        if (o->file == TOOL_READS && status == CALOMU_OK) status = tool_claim_option(o);
    for (o = u->options; o && o->name; o++)
        if (o->file != TOOL_READS && status == CALOMU_OK) status = tool_claim_option(o);
    return status;
}

int tool_parse(tool_usage *u, int argc, char **argv)
{
    calomu_status status = CALOMU_OK;
    const tool_option *o;
    int i, taken = 0, plain = 0;
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) break;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return tool_print_usage(u);
    }
    for (i = 1; i < argc && status == CALOMU_OK; i++) {
        if (plain || argv[i][0] != '-' || argv[i][1] == 0)
            status = tool_take_operand(u, argv[i], &taken);
        else if (strcmp(argv[i], "--") == 0)
            plain = 1;
        else
            status = tool_take_option(u, argc, argv, &i);
    }
    if (status == CALOMU_OK) status = tool_check_all_there(u, taken);
    if (status == CALOMU_OK) status = tool_claim_all(u, taken);
    for (o = u->options; status != CALOMU_OK && o && o->name; o++)
        if (o->type == TOOL_FILES) tool_files_free(o->target);
    return status == CALOMU_OK ? -1 : (int)status;
}

int tool_given(const tool_usage *u, const char *name)
{
    const tool_option *o = tool_find_option(u, name, strlen(name));
    return o && o->given;
}
