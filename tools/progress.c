/* progress.c - how far the work is, on stderr. */
#include "calomu_tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

double tool_seconds(void)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0;
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* "0:07", "12:34", "3:01:59" */
static void tool_duration(char text[32], double seconds)
{
    unsigned long s = 0;
    if (seconds > 0) s = (unsigned long)((seconds < 1e8 ? seconds : 1e8) + 0.5);
    if (s < 3600)
        (void)snprintf(text, 32, "%lu:%02lu", s / 60, s % 60);
    else
        (void)snprintf(text, 32, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
}

static void tool_rate(char text[48], double per_second, const char *unit)
{
    if (per_second >= 9999.5)
        (void)snprintf(text, 48, "%.0fk %s/s", per_second / 1000, unit);
    else if (per_second >= 99.5)
        (void)snprintf(text, 48, "%.0f %s/s", per_second, unit);
    else
        (void)snprintf(text, 48, "%.2g %s/s", per_second, unit);
}

/* Columns of the terminal as it is now: it may have been resized since the last line. */
static int tool_columns(void)
{
    const char *text = getenv("COLUMNS");
    double columns = 0;
#ifdef TIOCGWINSZ
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
#endif
    /* some terminals do not know, and say 0 */
    if (text && calomu_parse(text, &columns) && columns >= 1 && columns <= 10000)
        return (int)columns;
    return 80;
}

enum { TOOL_BAR = 24, TOOL_BAR_STEP = 6, TOOL_LINE = 512 };

typedef struct tool_line {
    char text[TOOL_LINE], bar[TOOL_BAR + 4], rate[48], left[32];
    const char *note;
    double part;
} tool_line;

static size_t tool_line_write(tool_line *l, const char *what)
{
    const int n = snprintf(l->text, TOOL_LINE, "%s%s %3.0f%%%s%s  %s left%s%s", what, l->bar,
                           100 * l->part, *l->rate ? "  " : "", l->rate, l->left,
                           *l->note ? "  " : "", l->note);
    return n < TOOL_LINE ? (size_t)n : TOOL_LINE - 1;
}

static void tool_line_bar(tool_line *l, size_t width)
{
    memcpy(l->bar, " [", 2);
    memset(l->bar + 2, '.', width);
    memset(l->bar + 2, '#', (size_t)(l->part * (double)width));
    memcpy(l->bar + 2 + width, "]", 2);
}

/* On a terminal a line must stay below its width: one that wraps is not cleared by the next.  What
   does not fit goes in this order: the bar's length, the rate, the bar, the end of the note. */
static void tool_line_fit(tool_line *l, const char *what)
{
    const size_t room = (size_t)tool_columns() - 1;
    size_t n = tool_line_write(l, what), width;
    if (n + TOOL_BAR_STEP + 3 > room) {
        l->rate[0] = 0;
        n = tool_line_write(l, what);
    }
    if (n + TOOL_BAR_STEP + 3 > room) return;
    width = room - n - 3;
    /* in steps, so that a digit more in the rate does not move the bar */
    tool_line_bar(l, width < TOOL_BAR ? width - width % TOOL_BAR_STEP : TOOL_BAR);
    (void)tool_line_write(l, what);
}

static void tool_print_line(tool_progress *p, double now, const char *note)
{
    double seconds = now - p->start, per_second = seconds > 0 ? (double)p->done / seconds : 0;
    tool_line l;
    memset(&l, 0, sizeof l);
    l.note = note ? note : "";
    l.part = p->total ? fmin(1, (double)p->done / (double)p->total) : 0;
    tool_rate(l.rate, per_second, p->unit);
    tool_duration(l.left, per_second > 0 && p->total > p->done
                              ? (double)(p->total - p->done) / per_second : 0);
    if (p->total && p->terminal)
        tool_line_fit(&l, p->what);
    else if (p->total)
        (void)snprintf(l.text, sizeof l.text, "%s %3.0f%%, %s, %s left%s%s", p->what,
                       100 * l.part, l.rate, l.left, note ? ", " : "", l.note);
    else
        (void)snprintf(l.text, sizeof l.text, "%s: %llu %s, %s%s%s", p->what,
                       (unsigned long long)p->done, p->unit, l.rate, note ? ", " : "", l.note);
    if (p->terminal)
        fprintf(stderr, "\r\033[K%.*s", tool_columns() - 1, l.text);
    else
        fprintf(stderr, "calomu: %s\n", l.text);
    (void)fflush(stderr);
    p->printed = 1;
    p->shown = now;
    p->shown_done = p->done;
}

void tool_progress_begin(tool_progress *p, const char *what, const char *unit, uint64_t total)
{
    memset(p, 0, sizeof *p);
    p->what = what;
    p->unit = unit;
    p->total = total;
    p->start = p->shown = tool_seconds();
    p->terminal = isatty(2);
}

void tool_progress_at(tool_progress *p, uint64_t done, const char *note)
{
    double now = tool_seconds(), waited = now - p->shown;
    int due;
    p->done = done;
    if (p->total && done >= p->total) return;
    if (p->terminal) {
        due = waited >= (p->printed ? 0.2 : 1.0);
    } else {
        due = waited >= 10;
        if (p->total && waited >= 1 && done >= p->shown_done
            && (double)(done - p->shown_done) >= 0.1 * (double)p->total)
            due = 1;
    }
    if (due) tool_print_line(p, now, note);
}

void tool_progress_end(tool_progress *p)
{
    if (p->terminal && p->printed) fprintf(stderr, "\r\033[K");
    (void)fflush(stderr);
    p->printed = 0;
}
