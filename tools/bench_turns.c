/* bench_turns.c - processes that take turns

   Whatever is compared is measured at the same time.  Each side (our training on all threads, on
   one, PyTorch's ...) is a process of its own, a fork or a command, which prepares itself, says
   `ready UNITS TEXT` (units of work in a repetition: muons, GB), and then for each line `go` that
   it reads does one repetition and answers `SECONDS MEGABYTES` (most resident memory so far).  The
   sides of a group take turns, so what else the machine does hits all of them.  It can only slow
   work down: the least time counts; the median beside it says how busy the machine was.

   A parent of forks runs nothing parallel itself: OpenMP's threads do not survive one.  */
#include "bench.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BENCH_LEAST = 3 };            /* repetitions */

/* ---------------------------------------------------------------- the child's part */

static double bench_resident(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0) return 0;
#ifdef __APPLE__
    return (double)usage.ru_maxrss / 1e6;            /* bytes there, kB elsewhere */
#else
    return (double)usage.ru_maxrss * 1024 / 1e6;
#endif
}

/* A line to the parent; one that is gone ends the turns. */
static void bench_say(const bench *b, const char *format, ...) TOOL_PRINTF(2, 3);
static void bench_say(const bench *b, const char *format, ...)
{
    char line[320];
    va_list args;
    int n;
    va_start(args, format);
    n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n > 0 && write(b->out, line, (size_t)n) < 0) _exit(CALOMU_EIO);
}

void bench_ready(const bench *b, double units, const char *text)
{
    bench_say(b, "ready %.17g %s\n", units, text);
}

int bench_turn(const bench *b)
{
    char c, first = 0;
    do {
        ssize_t n = read(b->in, &c, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return 0;
        if (!first) first = c;
    } while (c != '\n');
    return first == 'g';
}

void bench_tell(const bench *b, double seconds)
{
    bench_say(b, "%.17g %.6g\n", seconds, b->told > 0 ? b->told : bench_resident());
}

/* ---------------------------------------------------------------- the parent's part */

/* The sides of other children are closed, so that each sees the end of its own. */
static void bench_child(bench *b, bench_job job, int batch, int threads, const int pipes[4])
{
    int i;
    for (i = 0; i < b->n_sides; i++)
        if (b->side[i].to) {
            (void)close(fileno(b->side[i].to));
            (void)close(fileno(b->side[i].from));
        }
    (void)close(pipes[1]);
    (void)close(pipes[2]);
    tool_signals_default();
    b->in = pipes[0];
    b->out = pipes[3];
    b->job_threads = threads;
    if (threads > 1 && tool_threads_start(threads) != CALOMU_OK) _exit(CALOMU_EMEMORY);
    _exit((int)job(b, batch));       /* the parent's buffered output must not be written again */
}

/* Ends a side: what its process returned. */
static void bench_end(bench_side *s)
{
    int status = 0;
    if (s->to) (void)fclose(s->to);
    if (s->from) (void)fclose(s->from);
    s->to = s->from = NULL;
    while (waitpid(s->pid, &status, 0) < 0)
        if (errno != EINTR) return;
    if (WIFEXITED(status)) s->status = (calomu_status)WEXITSTATUS(status);
    else if (WTERMSIG(status) == SIGKILL)
        s->status = tool_fail(CALOMU_EMEMORY, "the system killed a measurement, probably for want"
                              " of memory: %s", s->text);
    else s->status = tool_fail(CALOMU_EIO, "a measurement ended by signal %d: %s",
                               WTERMSIG(status), s->text);
}

/* One line of a side; 0: it has ended, and is no side any more. */
static int bench_line(bench_side *s, char *line, int size)
{
    if (s->from && fgets(line, size, s->from) && strchr(line, '\n')) return 1;
    if (s->from) bench_end(s);
    return 0;
}

bench_side *bench_side_add(bench *b, bench_job job, int batch, int threads,
                           const char *text)
{
    bench_side *s = &b->side[b->n_sides];
    int pipes[4];                    /* to the child: 0 read, 1 write; from it: 2 read, 3 write */
    char line[200] = "", what[100] = "";
    memset(s, 0, sizeof *s);
    (void)snprintf(s->text, sizeof s->text, "%s", text);
    (void)fflush(stdout);
    if (pipe(pipes) != 0) {
        s->status = tool_fail(CALOMU_EIO, "no pipe: %s", strerror(errno));
        return s;
    }
    if (pipe(pipes + 2) == 0) {
        s->pid = fork();
        if (s->pid == 0) bench_child(b, job, batch, threads, pipes);
        (void)close(pipes[0]);
        (void)close(pipes[3]);
        s->to = fdopen(pipes[1], "w");
        s->from = fdopen(pipes[2], "r");
    }
    if (s->pid <= 0 || !s->to || !s->from) {
        s->status = tool_fail(CALOMU_EMEMORY, "no process for a measurement: %s",
                              strerror(errno));
        return s;
    }
    b->n_sides++;
    if (!bench_line(s, line, sizeof line)) return s;
    if (sscanf(line, "ready %lf %99[^\n]", &s->units, what) < 2 || !(s->units > 0)) {
        bench_end(s);
        s->status = tool_fail(CALOMU_EFORMAT, "%s said '%.60s', not 'ready ...'", text, line);
    }
    (void)snprintf(s->text, sizeof s->text, "%s", what);
    return s;
}

/* A command in the place of a job: it speaks the same lines on its standard input and output. */
static calomu_status bench_peer_job(bench *b, int batch)
{
    (void)batch;
    if (dup2(b->in, 0) < 0 || dup2(b->out, 1) < 0) return CALOMU_EIO;
    (void)execl("/bin/sh", "sh", "-c", b->command, (char *)NULL);
    return tool_fail(CALOMU_EIO, "no shell: %s", strerror(errno));
}

bench_side *bench_peer_add(bench *b, const char *command, const char *job,
                           const char *batches)
{
    (void)snprintf(b->command, sizeof b->command, "exec %s --job %s --batch %s --threads %d",
                   command, job, batches, (int)b->machine.threads);
    return bench_side_add(b, bench_peer_job, 0, 0, command);
}

double bench_best(const bench_side *s)
{
    return s && s->n > 0 ? s->sample[0] / s->units : (double)CALOMU_ABSENT;
}

static int bench_take_turn(bench_side *s)
{
    char line[320];
    double seconds;
    if (!s->to || fputs("go\n", s->to) < 0 || fflush(s->to) != 0) return 0;
    if (!bench_line(s, line, sizeof line)) return 0;
    if (sscanf(line, "%lf %lf", &seconds, &s->memory) != 2 || !(seconds >= 0)) return 0;
    s->sample[s->n++] = fmax(seconds, 1e-9);     /* so that rates stay finite on a coarse clock */
    return 1;
}

calomu_status bench_group(bench *b)
{
    double began = tool_seconds();
    int i, round, alive = 1;
    for (round = 0; alive && !tool_stop && round < BENCH_SAMPLES
         && (round < BENCH_LEAST || tool_seconds() - began < b->seconds * b->n_sides); round++)
        for (i = 0, alive = 0; i < b->n_sides && !tool_stop; i++)
            alive |= bench_take_turn(&b->side[i]);
    for (i = 0; i < b->n_sides; i++) {
        bench_side *s = &b->side[i];
        if (s->from) bench_end(s);
        if (s->n < BENCH_LEAST) s->n = 0;
        if (s->n == 0) continue;
        qsort(s->sample, (size_t)s->n, sizeof s->sample[0], tool_rising);
        printf("%-52s%10.4g%10.4g%9.0f\n", s->text, 1e3 * bench_best(s),
               1e3 * s->sample[s->n / 2] / s->units, s->memory);
    }
    (void)fflush(stdout);
    b->n_sides = 0;
    return tool_stop ? CALOMU_STOPPED : CALOMU_OK;
}

calomu_status bench_lost(const bench_side *s)
{
    if (s->n > 0) return CALOMU_OK;
    return s->status != CALOMU_OK ? s->status : CALOMU_EIO;
}
