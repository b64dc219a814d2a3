/* threads.c - how many threads there are to be had, and whether the system gives them. */
#include "calomu_tool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#include <pthread.h>
#endif

/* ---------------------------------------------------------------- what a container allows */

/* The first two numbers of a file; a missing one stays. */
static void tool_two_numbers(const char *path, double *a, double *b)
{
    FILE *file = fopen(path, "r");
    char text[128] = "";
    const char *next;
    if (!file) return;
    if (fgets(text, sizeof text, file) && (next = calomu_parse(text, a)) != NULL && *next == ' ')
        (void)calomu_parse(next + 1, b);
    (void)fclose(file);
}

/* Processors that a control group grants: version 2 has "quota period" in one file ("max period":
   no limit), version 1 has one in each of two (-1: no limit).  INFINITY: all. */
static double tool_grant(const char *folder)
{
    char path[4096 + 64];
    double quota = -1, period = 100000;
    (void)snprintf(path, sizeof path, "%s/cpu.max", folder);
    tool_two_numbers(path, &quota, &period);
    (void)snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    tool_two_numbers(path, &quota, &period);
    (void)snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    tool_two_numbers(path, &period, &quota);
    return quota > 0 && period > 0 ? quota / period : (double)INFINITY;
}

/* The least grant of a group and those above it.  Inside a container the group's path may be that
   of the host, of which only the top is mounted: folders that are not there grant all. */
static double tool_grants(const char *root, const char *mount, const char *group)
{
    char folder[4096];
    size_t top = strlen(root) + strlen(mount);
    double least = (double)INFINITY;
    char *slash;
    if (snprintf(folder, sizeof folder, "%s%s%s", root, mount, group) >= (int)sizeof folder)
        return least;
    do {
        least = fmin(least, tool_grant(folder));
        slash = strrchr(folder + top, '/');
        if (slash) *slash = 0;
    } while (slash);
    return least;
}

/* root: in front of /proc and /sys; "" but in tests. */
static double tool_quota(const char *root)
{
    static const char *const mounts[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified",
                                          "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct" };
    char line[4096];
    double least = (double)INFINITY;
    FILE *file;
    int i;
    (void)snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    file = fopen(line, "r");
    while (file && fgets(line, sizeof line, file)) {     /* NUMBER:CONTROLLERS:PATH */
        char *controllers = strchr(line, ':'), *path;
        path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        path[strcspn(path, "\n")] = 0;
        if (controllers[1] && !strstr(controllers, "cpu")) continue;
        for (i = 0; i < 4; i++) least = fmin(least, tool_grants(root, mounts[i], path));
    }
    if (file) (void)fclose(file);
    return least;
}

int tool_threads_default(void)
{
    int n = calomu_threads_available();
    double quota = ceil(tool_quota(""));
#ifdef _OPENMP
    if (n > omp_get_max_threads()) n = omp_get_max_threads();
    if (n > omp_get_thread_limit()) n = omp_get_thread_limit();
#endif
    if (n > quota) n = (int)quota;
    return n < 1 ? 1 : n > 4096 ? 4096 : n;
}

/* ---------------------------------------------------------------- whether they can be had */

#ifdef _OPENMP

/* OMP_STACKSIZE: a number with B, K (the default), M or G behind; 0: none, or not understood. */
static size_t tool_stack_size(const char *text)
{
    double size = 0;
    const char *next;
    if (!text) return 0;
    next = calomu_parse(text + strspn(text, " \t"), &size);
    if (!next || !(size > 0)) return 0;
    next += strspn(next, " \t");
    switch (*next) {
    case 'b': case 'B': break;
    case 'm': case 'M': size *= 1048576; break;
    case 'g': case 'G': size *= 1073741824; break;
    default: size *= 1024;
    }
    return size < 1e15 ? (size_t)size : 0;
}

static void *tool_wait_for(void *mutex)
{
    (void)pthread_mutex_lock(mutex);
    (void)pthread_mutex_unlock(mutex);
    return NULL;
}

/* Makes n threads that are there at once; returns how many there were. */
static int tool_make_threads(pthread_t *thread, int n)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_attr_t attributes;
    size_t stack = tool_stack_size(getenv("OMP_STACKSIZE"));
    int i, made = 0;
    if (pthread_attr_init(&attributes) != 0) return 0;
    if (stack) (void)pthread_attr_setstacksize(&attributes, stack);
    (void)pthread_mutex_lock(&mutex);
    while (made < n
           && pthread_create(&thread[made], &attributes, tool_wait_for, &mutex) == 0) made++;
    (void)pthread_mutex_unlock(&mutex);
    for (i = 0; i < made; i++) (void)pthread_join(thread[i], NULL);
    (void)pthread_attr_destroy(&attributes);
    (void)pthread_mutex_destroy(&mutex);
    return made;
}

/* How many OpenMP makes of n. */
static int tool_team(int n)
{
    int there = 0;
#pragma omp parallel num_threads(n) reduction(+ : there)
    there++;
    return there;
}

/* OpenMP ends the program with a text of its own where it gets no thread: so they are made once
   before, and by OpenMP at once, as long as they are to be had.  It keeps them. */
calomu_status tool_threads_start(int n)
{
    pthread_t *thread;
    int made;
    if (n == 0) n = tool_threads_default();
    if (n == 1) return CALOMU_OK;
    thread = calloc((size_t)n - 1, sizeof *thread);
    if (!thread) return tool_fail(CALOMU_EMEMORY, "no memory for %d threads", n);
    made = tool_make_threads(thread, n - 1) + 1;
    free(thread);
    if (made == n && tool_team(n) > 0) return CALOMU_OK;
    return tool_fail(CALOMU_EMEMORY, "the system gives %d of %d threads: give --threads %d, or"
                     " raise its limits of processes (ulimit -u, the container's pids) and of"
                     " memory (ulimit -v)", made, n, made);
}

#else

calomu_status tool_threads_start(int n)
{
    (void)n;
    return CALOMU_OK;
}

#endif
