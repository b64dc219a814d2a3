/* signals.c - SIGINT and SIGTERM as a flag, SIGPIPE as a write error. */
#include "calomu_tool.h"

#include <string.h>

volatile sig_atomic_t tool_stop;

static void tool_on_signal(int number)
{
    tool_stop = number;
}

void tool_signals_ignore_pipe(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
}

void tool_signals_catch(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = tool_on_signal;
    (void)sigemptyset(&action.sa_mask);
    /* RESTART: no read or write of the library is cut short.  RESETHAND: the second signal has its
       usual effect, so that nothing can keep the program from being stopped. */
    action.sa_flags = (int)((unsigned)SA_RESTART | (unsigned)SA_RESETHAND);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

void tool_signals_obey(void)
{
    int number = tool_stop;
    if (number == 0) return;
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}
