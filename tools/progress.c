/* progress.c - how far the work is, on stderr. */
#include "calomu_tool.h"

#include <string.h>
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

static void tool_print_line(tool_progress *p, double now, const char *note)
{
    enum { WIDTH = 24 };
    char bar[WIDTH + 1], rate[48], left[32];
    double seconds = now - p->start, per_second = seconds > 0 ? (double)p->done / seconds : 0;
    double part = p->total ? (double)p->done / (double)p->total : 0;
    size_t full;
    if (part > 1) part = 1;
    full = (size_t)(part * WIDTH);
    memset(bar, '.', WIDTH);
    memset(bar, '#', full);
    bar[WIDTH] = 0;
    tool_rate(rate, per_second, p->unit);
    tool_duration(left, per_second > 0 && p->total > p->done
                            ? (double)(p->total - p->done) / per_second : 0);
    if (p->total && p->terminal)
        fprintf(stderr, "\r\033[K%s [%s] %3.0f%%  %s  %s left%s%s", p->what, bar, 100 * part, rate,
                left, note ? "  " : "", note ? note : "");
    else if (p->total)
        fprintf(stderr, "calomu: %s %3.0f%%, %s, %s left%s%s\n", p->what, 100 * part, rate, left,
                note ? ", " : "", note ? note : "");
    else
        fprintf(stderr, "%s%s: %llu %s, %s%s%s%s", p->terminal ? "\r\033[K" : "calomu: ", p->what,
                (unsigned long long)p->done, p->unit, rate, note ? ", " : "", note ? note : "",
                p->terminal ? "" : "\n");
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
