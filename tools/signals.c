/* signals.c - the signals that ask for an end, as a flag; those that become errors of writing. */
#include "calomu_tool.h"

#include <string.h>
#include <time.h>

volatile sig_atomic_t tool_stop;

/* An interrupt, a batch system's end of time or warning of it (Slurm's --signal, submitit, Grid
   Engine's -notify; XCPU: the limit of processor time), a lost login. */
static const int tool_wishes[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU };
enum { TOOL_WISHES = sizeof tool_wishes / sizeof tool_wishes[0] };

/* A second interrupt or SIGTERM kills, so that nothing can keep the program from being stopped.
   Not one that comes within a second: timeout(1) sends its signal twice, to the process and to its
   group.  The others may come as often as they like: XCPU does every second. */
static void tool_on_signal(int number)
{
    static struct timespec first;
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    if (!tool_stop) {
        first = now;
        tool_stop = number;
    } else if ((number == SIGINT || number == SIGTERM)
               && (now.tv_sec - first.tv_sec > 1
                   || (now.tv_sec - first.tv_sec == 1 && now.tv_nsec >= first.tv_nsec))) {
        (void)signal(number, SIG_DFL);
        (void)raise(number);         /* takes effect when this handler returns */
    }
}

void tool_signals_ignore(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
}

/* What the parent ignores, as nohup does, stays ignored.  RESTART: no read or write of the library
   is cut short. */
void tool_signals_catch(void)
{
    struct sigaction action, old;
    int i;
    memset(&action, 0, sizeof action);
    action.sa_handler = tool_on_signal;
    action.sa_flags = SA_RESTART;
    (void)sigemptyset(&action.sa_mask);
    for (i = 0; i < TOOL_WISHES; i++)
        if (sigaction(tool_wishes[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(tool_wishes[i], &action, NULL);
}

void tool_signals_end(void (*handler)(int))
{
    struct sigaction action, old;
    int i;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = (int)((unsigned)SA_RESETHAND | (unsigned)SA_NODEFER);
    (void)sigemptyset(&action.sa_mask);
    for (i = 0; i < TOOL_WISHES; i++)
        if (sigaction(tool_wishes[i], NULL, &old) == 0 && old.sa_handler == SIG_DFL)
            (void)sigaction(tool_wishes[i], &action, NULL);
}

void tool_signals_default(void)
{
    struct sigaction old;
    int i;
    for (i = 0; i < TOOL_WISHES; i++)
        if (sigaction(tool_wishes[i], NULL, &old) == 0 && old.sa_handler == tool_on_signal)
            (void)signal(tool_wishes[i], SIG_DFL);
}

void tool_signals_obey(void)
{
    int number = tool_stop;
    if (number == 0) return;
    tool_release();
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}
