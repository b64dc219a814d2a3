/* messages.c - what a program says: lines on stderr, names that cannot move a terminal's cursor,
   the nearest word; and the standard streams, from the program's start to its end. */
#include "calomu_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *tool_program = "calomu";
static const char *tool_running = "";        /* the verb */

/* ---------------------------------------------------------------- control bytes */

/* Bytes of the UTF-8 letter at text, or 1.  Two bytes C2 80 to C2 9F are no letter but a control
   character, as a bare byte 80 to 9F is to terminals of one byte a letter. */
static size_t tool_letter(const unsigned char *text)
{
    size_t n = *text >= 0xf0 ? 4 : *text >= 0xe0 ? 3 : *text >= 0xc2 ? 2 : 1, i;
    if (*text == 0xc2 && text[1] < 0xa0) return 1;
    for (i = 1; i < n; i++)
        if (text[i] < 0x80 || text[i] > 0xbf) return 1;
    return n;
}

/* Control bytes as \xHH.  A text that does not fit is cut; 4 bytes a byte and 1 more are enough. */
static void tool_escape(char *to, size_t room, const char *text)
{
    static const char digit[] = "0123456789abcdef";
    const unsigned char *p = (const unsigned char *)text;
    size_t n, at = 0;
    for (; *p; p += n) {
        n = tool_letter(p);
        if (at + 5 > room) break;
        if (n == 1 && (*p < 32 || (*p >= 127 && *p < 0xa0) || (*p == 0xc2 && p[1] < 0xa0
                                                               && p[1] >= 0x80))) {
            to[at++] = '\\';
            to[at++] = 'x';
            to[at++] = digit[*p >> 4];
            to[at++] = digit[*p & 15];
        } else {
            memcpy(to + at, p, n);
            at += n;
        }
    }
    to[at] = 0;
}

const char *tool_shown(const char *text)
{
    static char ring[4][4 * 4096 + 1];       /* four names of any length in one printf */
    static int next;
    char *to = ring[next = (next + 1) % 4];
    tool_escape(to, sizeof ring[0], text);
    return to;
}

/* ---------------------------------------------------------------- lines on stderr */

/* One line, whatever is in it.  Without memory for a long one it is cut. */
static void tool_vprint(const char *verb, const char *format, va_list args)
{
    char brief[1024], shown[4 * sizeof brief + 1], *text = brief, *line = shown, *more = NULL;
    size_t size = sizeof brief;
    va_list again;
    int n;
    va_copy(again, args);
    n = vsnprintf(brief, sizeof brief, format, args);
    if (n >= (int)sizeof brief) more = malloc(5 * ((size_t)n + 1) + 1);
    if (more) {
        size = (size_t)n + 1;
        text = more;
        line = more + size;
        (void)vsnprintf(text, size, format, again);
    }
    va_end(again);
    tool_escape(line, 4 * size + 1, text);
    /* A bar of progress may stand on this line of the terminal. */
    fprintf(stderr, "%s%s%s%s: %s\n", isatty(2) ? "\r\033[K" : "", tool_program, *verb ? " " : "",
            verb, line);
    free(more);
}

calomu_status tool_fail(calomu_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    tool_vprint(tool_running, format, args);
    va_end(args);
    return status;
}

calomu_status tool_report(const calomu *c, calomu_status status)
{
    return tool_fail(status, "%s", calomu_message(c));
}

void tool_notice(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    tool_vprint("", format, args);
    va_end(args);
}

calomu_status tool_misuse(const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return tool_fail(CALOMU_EUSAGE, "%s; see %s%s%s --help", text, tool_program,
                     *tool_running ? " " : "", tool_running);
}

/* ---------------------------------------------------------------- suggestions */

static size_t tool_least(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

/* Edits (insert, delete, replace, swap of neighbours) that turn a into b; words over 31 characters
   count as far from everything. */
static size_t tool_edits(const char *a, const char *b)
{
    enum { MOST = 32 };
    size_t d[MOST][MOST], n = strlen(a), m = strlen(b), i, j;
    if (n >= MOST || m >= MOST) return 99;
    for (i = 0; i <= n; i++) d[i][0] = i;
    for (j = 0; j <= m; j++) d[0][j] = j;
    for (i = 1; i <= n; i++) {
        for (j = 1; j <= m; j++) {
            d[i][j] = tool_least(d[i - 1][j] + 1, d[i][j - 1] + 1,
                                 d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]
                && d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    }
    return d[n][m];
}

const char *tool_nearest(const char *word, const char *const *words, size_t n)
{
    const char *best = NULL;
    size_t i, length, edits, least = 99;
    if (!word) return NULL;
    length = strlen(word);
    for (i = 0; i < n; i++) {
        if (!words[i]) continue;
        edits = tool_edits(word, words[i]);
        /* "eval" means evaluate, however many letters are missing. */
        if (length >= 3 && strncmp(word, words[i], length) == 0) edits = 1;
        if (edits < least) {
            least = edits;
            best = words[i];
        }
    }
    return least <= 1 + length / 4 && least < length ? best : NULL;
}

/* ---------------------------------------------------------------- start and end */

/* A file opened while 0, 1 or 2 is closed would get that number, and messages would go into it.
   1 and 2 are filled so that writing to them fails, as it does on a closed descriptor. */
static void tool_fill_descriptors(void)
{
    int fd, made;
    for (fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) != -1 || errno != EBADF) continue;
        made = open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
        if (made != fd && made > 2) (void)close(made);
    }
}

void tool_begin(const char *program)
{
    tool_fill_descriptors();
    tool_signals_ignore();
    tool_program = program;
}

void tool_run_as(const char *verb)
{
    tool_running = verb;
}

const char *tool_command(void)
{
    static char text[64];
    (void)snprintf(text, sizeof text, "%s%s%s", tool_program, *tool_running ? " " : "",
                   tool_running);
    return text;
}

/* Down to the disk, if that is where standard output goes: what a disk refuses at write-back, it
   tells only now.  0, or an error number. */
static int tool_sync_stdout(void)
{
    struct stat s;
    if (fstat(1, &s) != 0 || !S_ISREG(s.st_mode) || fsync(1) == 0) return 0;
    return errno == EINVAL || errno == ENOTSUP ? 0 : errno;
}

static int tool_finish_stdout(int code)
{
    int bad, error;
    errno = 0;
    bad = fflush(stdout) != 0;
    error = errno;
    bad |= ferror(stdout) != 0;
    if (!bad) bad = (error = tool_sync_stdout()) != 0;
    if (fclose(stdout) != 0) {
        bad = 1;
        if (error == 0) error = errno;
    }
    if (!bad) return code;
    (void)tool_fail(CALOMU_EIO, "cannot write to standard output: %s",
                    error ? strerror(error) : "an earlier write failed");
    return code == 0 ? (int)CALOMU_EIO : code;
}

int tool_finish(int code)
{
    code = tool_finish_stdout(code);
    tool_release();
    return code;
}
