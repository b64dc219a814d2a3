/* test_tool.c - what the programs share: names without control bytes, claims and locks of files,
   signals that ask for an end, threads that a container allows

   usage: test_tool [TESTDATA [TMP]] */
#include "../tools/files.c"
#include "../tools/messages.c"
#include "../tools/signals.c"
#include "../tools/threads.c"
#include "test.h"
#include <sys/wait.h>

/* ---------------------------------------------------------------- helpers */

static char test_paths[8][4096];

/* Path of a name in the folder of scratch files; eight at a time. */
static const char *at(const char *name)
{
    static int next;
    char *to = test_paths[next = (next + 1) % 8];
    (void)snprintf(to, sizeof test_paths[0], "%s/%s", test.tmp, name);
    return to;
}

static void put(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
}

static int there(const char *name)
{
    struct stat s;
    return lstat(at(name), &s) == 0;
}

/* As if the program ended and another began. */
static void anew(void)
{
    tool_claimed *c;
    tool_release();
    while ((c = tool_claims) != NULL) {
        tool_claims = c->next;
        free(c->lock);
        tool_forget(c);
    }
    tool_own.pid = 0;
    tool_n_dead = 0;
}

/* Two claims of one command, the second's status. */
static calomu_status pair(tool_file a, const char *first, tool_file b, const char *second)
{
    calomu_status s = tool_claim(a, "--first", first);
    CHECK(s == CALOMU_OK, "%s", first);
    s = tool_claim(b, "--second", second);
    anew();
    return s;
}

/* ---------------------------------------------------------------- names */

static void test_names(void)
{
    static const char *const cases[][2] = {
        { "plain name.cmu", "plain name.cmu" }, { "a\033[31mb", "a\\x1b[31mb" },
        { "a\nb\tc\r\177", "a\\x0ab\\x09c\\x0d\\x7f" },
        { "M\303\274on \342\202\254", "M\303\274on \342\202\254" },
        { "\360\237\230\200", "\360\237\230\200" },
        { "\302\233" "31m", "\\xc2\\x9b31m" }, { "\233" "31m", "\\x9b31m" },
        { "\302\240", "\302\240" }, { "\351t\351", "\351t\351" }, { "", "" },
        { "\303", "\303" }, { "\302", "\302" }, { "\342\202", "\342\\x82" }
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK(strcmp(tool_shown(cases[i][0]), cases[i][1]) == 0, "case %d: %s", (int)i,
              tool_shown(cases[i][0]));
}

/* ---------------------------------------------------------------- claims */

static void test_clashes(void)
{
    char spelled[4096];
    put(at("a"), "x");
    put(at("b"), "x");
    CHECK(symlink("a", at("soft")) == 0 && link(at("a"), at("hard")) == 0
          && symlink("none", at("dangling")) == 0 && mkdir(at("folder"), 0777) == 0, "links");
    (void)snprintf(spelled, sizeof spelled, "%s/folder/.././/a", test.tmp);
    CHECK(pair(TOOL_READS, at("a"), TOOL_WRITES, at("a")) == CALOMU_EUSAGE, "the same name");
    CHECK(pair(TOOL_READS, at("a"), TOOL_WRITES, spelled) == CALOMU_EUSAGE, "other spelling");
    CHECK(pair(TOOL_READS, at("a"), TOOL_WRITES, at("soft")) == CALOMU_EUSAGE, "symbolic link");
    CHECK(pair(TOOL_READS, at("soft"), TOOL_WRITES, at("hard")) == CALOMU_EUSAGE, "hard link");
    CHECK(pair(TOOL_WRITES, at("a"), TOOL_READS, at("hard")) == CALOMU_EUSAGE, "the other order");
    CHECK(pair(TOOL_READS, at("a"), TOOL_DERIVED, at("soft")) == CALOMU_EUSAGE, "derived");
    CHECK(pair(TOOL_READS, at("a"), TOOL_REPLACES, at("soft")) == CALOMU_OK, "in place");
    CHECK(pair(TOOL_WRITES, at("a"), TOOL_REPLACES, at("soft")) == CALOMU_EUSAGE, "two outputs");
    CHECK(pair(TOOL_READS, at("a"), TOOL_READS, at("soft")) == CALOMU_OK, "two inputs");
    CHECK(pair(TOOL_READS, at("a"), TOOL_WRITES, at("b")) == CALOMU_OK, "two files");
    CHECK(pair(TOOL_WRITES, at("none"), TOOL_WRITES, at("folder/../none")) == CALOMU_EUSAGE,
          "not there yet");
    CHECK(pair(TOOL_WRITES, at("none"), TOOL_WRITES, at("dangling")) == CALOMU_EUSAGE,
          "a link to what is not there");
    CHECK(pair(TOOL_WRITES, at("none"), TOOL_WRITES, at("folder/none")) == CALOMU_OK,
          "a name in two folders");
    CHECK(pair(TOOL_WRITES, "/dev/null", TOOL_WRITES, "/dev/null") == CALOMU_OK, "nowhere");
    CHECK(!there(".a.calomu-lock") && !there(".none.calomu-lock"), "locks are gone");
}

/* ---------------------------------------------------------------- locks */

static void test_judgement(void)
{
    static const struct { int host, boot, pid, kernel; double age; tool_state state; } cases[] = {
        { 1, 1, 1, 0, 0, TOOL_HELD }, { 1, 1, 1, 0, 1e6, TOOL_HELD },
        { 0, 0, 1, 0, 1e6, TOOL_HELD },
        { 1, 1, 1, 1, 0, TOOL_LEFT }, { 1, 0, 1, 1, 5, TOOL_HELD }, { 0, 1, 1, 1, 5, TOOL_HELD },
        { 0, 1, 1, 1, 89, TOOL_HELD }, { 0, 1, 1, 1, 91, TOOL_FREE }, { 1, 0, 1, 1, 91, TOOL_FREE },
        { 1, 1, 1, -1, 5, TOOL_HELD }, { 1, 1, 1, -1, 91, TOOL_LEFT },
        { 0, 0, 0, 1, 1, TOOL_WAIT }, { 0, 0, 0, 1, 3, TOOL_FREE }, { 0, 0, 0, 0, 9, TOOL_WAIT }
    };
    size_t i;
    tool_make_own();
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tool_holder h = tool_own;    /* this process lives */
        if (!cases[i].host) strcpy(h.host, "another");
        if (!cases[i].boot) strcpy(h.boot, "another");
        if (!cases[i].pid) h.pid = 0;
        CHECK(tool_judge(&h, cases[i].kernel, cases[i].age) == cases[i].state, "case %d", (int)i);
    }
    anew();
}

/* A process that claims the file and waits, *pid; it has the lock when this returns. */
static void holder_begin(const char *path, pid_t *pid)
{
    int ends[2];
    char letter = 0;
    CHECK(pipe(ends) == 0, "pipe");
    *pid = fork();
    if (*pid == 0) {
        anew();
        letter = tool_claim(TOOL_WRITES, "--out", path) == CALOMU_OK ? 'y' : 'n';
        if (write(ends[1], &letter, 1) != 1) _exit(1);
        for (;;) (void)pause();
    }
    CHECK(*pid > 0 && read(ends[0], &letter, 1) == 1 && letter == 'y', "no holder");
    (void)close(ends[0]);
    (void)close(ends[1]);
}

static calomu_status claim_again(const char *path)
{
    calomu_status s = tool_claim(TOOL_WRITES, "--out", path);
    anew();
    return s;
}

/* Makes the lock one of another host, last touched some seconds ago. */
static void disguise(const char *path, int seconds)
{
    char text[1024] = "", *host;
    struct timespec when[2];
    FILE *file = fopen(path, "r+");
    CHECK(file && fread(text, 1, sizeof text - 1, file) > 0, "%s", path);
    host = strstr(text, "host ");
    if (!file || !host) return;
    host[5] = host[5] == 'X' ? 'Y' : 'X';
    rewind(file);
    (void)fputs(text, file);
    (void)fclose(file);
    when[0].tv_sec = when[1].tv_sec = time(NULL) - seconds;
    when[0].tv_nsec = when[1].tv_nsec = 0;
    CHECK(utimensat(AT_FDCWD, path, when, 0) == 0, "%s", path);
}

static void test_locks(void)
{
    char name[64];
    pid_t pid;
    int how;
    holder_begin(at("held"), &pid);
    CHECK(there(".held.calomu-lock"), "no lock file");
    CHECK(claim_again(at("held")) == CALOMU_EIO, "held by another process");
    CHECK(there(".held.calomu-lock"), "the lock of a living process was removed");
    (void)snprintf(name, sizeof name, ".held.%ld.0.tmp", (long)pid);
    put(at(name), "half");
    put(at(".held.1.0.tmp"), "of a process that lives");
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &how, 0);
    CHECK(there(".held.calomu-lock"), "a killed process cannot remove its lock");
    CHECK(claim_again(at("held")) == CALOMU_OK, "of a dead process");
    CHECK(!there(name), "what it had left was not removed");
    CHECK(there(".held.1.0.tmp"), "what is another's was removed");
    CHECK(!there(".held.calomu-lock"), "the lock stays");
}

static void test_locks_of_others(void)
{
    const char *lock = at(".far.calomu-lock");
    char name[64];
    pid_t pid;
    int how;
    holder_begin(at("far"), &pid);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &how, 0);
    (void)snprintf(name, sizeof name, ".far.%ld.0.tmp", (long)pid);
    put(at(name), "of a process of that number there");
    disguise(lock, 20);
    CHECK(claim_again(at("far")) == CALOMU_EIO, "another host, 20 s ago");
    disguise(lock, 300);
    CHECK(claim_again(at("far")) == CALOMU_OK, "another host, 5 minutes ago");
    CHECK(there(name), "another host's file was removed");
    put(lock, "what is this");
    CHECK(claim_again(at("far")) == CALOMU_EIO, "not a lock");
    CHECK(there(".far.calomu-lock"), "a stranger's file was removed");
    put(lock, "");
    CHECK(claim_again(at("far")) == CALOMU_OK, "a lock without text");
}

/* A signal that ends the program leaves nothing. */
static void test_ended(void)
{
    char name[64];
    pid_t pid;
    int how;
    holder_begin(at("ended"), &pid);
    (void)snprintf(name, sizeof name, ".ended.%ld.0.tmp", (long)pid);
    put(at(name), "half");
    (void)kill(pid, SIGTERM);
    CHECK(waitpid(pid, &how, 0) == pid && WIFSIGNALED(how) && WTERMSIG(how) == SIGTERM, "%d", how);
    CHECK(!there(".ended.calomu-lock"), "the lock stays");
    CHECK(!there(name), "a half-written file stays");
}

/* Of many that come at once, one gets it. */
static void test_many_at_once(void)
{
    enum { MANY = 16 };
    pid_t pid[MANY];
    int i, how, got = 0, go[2];
    char letter;
    CHECK(pipe(go) == 0, "pipe");
    for (i = 0; i < MANY; i++) {
        pid[i] = fork();
        if (pid[i] == 0) {
            anew();
            (void)close(go[1]);
            if (read(go[0], &letter, 1) != 0) _exit(9);      /* until all are there */
            how = (int)tool_claim(TOOL_WRITES, "--out", at("many"));
            if (how == 0) (void)sleep(2);
            tool_release();
            _exit(how);
        }
    }
    (void)close(go[0]);
    (void)close(go[1]);
    for (i = 0; i < MANY; i++) {
        CHECK(waitpid(pid[i], &how, 0) == pid[i] && WIFEXITED(how), "process %d", i);
        CHECK(WEXITSTATUS(how) == 0 || WEXITSTATUS(how) == CALOMU_EIO, "%d", WEXITSTATUS(how));
        got += WEXITSTATUS(how) == 0;
    }
    CHECK(got == 1, "%d of %d got the lock", got, MANY);
    CHECK(!there(".many.calomu-lock"), "the lock stays");
}

/* A holder whose lock another has taken over ends with the next beat. */
static void test_fence(void)
{
    const struct timespec moment = { 0, 10000000 };
    pid_t pid;
    int how = 0, tries;
    holder_begin(at("lost"), &pid);
    disguise(at(".lost.calomu-lock"), 0);
    (void)kill(pid, SIGALRM);
    for (tries = 0; tries < 500 && waitpid(pid, &how, WNOHANG) == 0; tries++)
        (void)nanosleep(&moment, NULL);
    CHECK(tries < 500 && WIFEXITED(how) && WEXITSTATUS(how) == CALOMU_EIO, "status %d", how);
    if (tries == 500) (void)kill(pid, SIGKILL);
    (void)unlink(at(".lost.calomu-lock"));
    CHECK(tool_claim(TOOL_WRITES, "--out", at("lost")) == CALOMU_OK, "a new one");
    disguise(at(".lost.calomu-lock"), 0);
    anew();
    CHECK(there(".lost.calomu-lock"), "the lock of the one that has taken over was removed");
}

/* ---------------------------------------------------------------- signals */

/* Sends a signal twice, `wait` ms apart, to a child that catches: what the child's end was. */
static int twice(int number, int wait)
{
    struct timespec pause_for = { wait / 1000, wait % 1000 * 1000000L };
    struct timespec moment = { 0, 100000000 };
    int how = 0;
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(number, SIG_DFL);   /* whatever who started the test lets be ignored */
        tool_signals_catch();
        (void)raise(number);
        (void)nanosleep(&pause_for, NULL);
        (void)raise(number);
        (void)nanosleep(&moment, NULL);
        _exit(tool_stop == number ? 85 : 1);
    }
    (void)waitpid(pid, &how, 0);
    return WIFSIGNALED(how) ? -WTERMSIG(how) : WEXITSTATUS(how);
}

static void test_signals(void)
{
    static const int wishes[] = { SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU };
    struct sigaction action;
    int i;
    for (i = 0; i < 6; i++) CHECK(twice(wishes[i], 0) == 85, "signal %d twice", wishes[i]);
    CHECK(twice(SIGTERM, 1200) == -SIGTERM, "a second TERM kills");
    CHECK(twice(SIGINT, 1200) == -SIGINT, "a second INT kills");
    CHECK(twice(SIGXCPU, 1200) == 85, "XCPU comes every second");
    (void)signal(SIGHUP, SIG_IGN);
    tool_signals_catch();
    CHECK(sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler == SIG_IGN, "HUP");
    CHECK(sigaction(SIGTERM, NULL, &action) == 0 && action.sa_handler == tool_on_signal, "TERM");
    tool_signals_default();
    CHECK(sigaction(SIGHUP, NULL, &action) == 0 && action.sa_handler == SIG_IGN, "HUP");
    CHECK(sigaction(SIGTERM, NULL, &action) == 0 && action.sa_handler == SIG_DFL, "TERM");
    tool_signals_ignore();
    CHECK(sigaction(SIGXFSZ, NULL, &action) == 0 && action.sa_handler == SIG_IGN, "XFSZ");
}

/* ---------------------------------------------------------------- threads */

static void make_folder(const char *path)
{
    char part[4096];
    size_t i;
    for (i = 1; path[i]; i++) {
        if (path[i] != '/') continue;
        (void)snprintf(part, sizeof part, "%.*s", (int)i, path);
        (void)mkdir(part, 0777);
    }
    (void)mkdir(path, 0777);
}

static void grant(const char *root, const char *file, const char *text)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s%s", root, file);
    *strrchr(path, '/') = 0;
    make_folder(path);
    path[strlen(path)] = '/';
    put(path, text);
}

static void test_quota(void)
{
    char two[4096], one[4096];
    (void)snprintf(two, sizeof two, "%s/v2", test.tmp);
    (void)snprintf(one, sizeof one, "%s/v1", test.tmp);
    CHECK(isinf(tool_quota(at("no such folder"))), "nothing there");
    grant(two, "/proc/self/cgroup", "0::/job/step\n");
    CHECK(isinf(tool_quota(two)), "no limits");
    grant(two, "/sys/fs/cgroup/job/step/cpu.max", "max 100000\n");
    CHECK(isinf(tool_quota(two)), "max");
    grant(two, "/sys/fs/cgroup/job/cpu.max", "350000 100000\n");
    CHECK_NEAR(tool_quota(two), 3.5, 1e-12);
    grant(two, "/sys/fs/cgroup/cpu.max", "50000 100000\n");
    CHECK_NEAR(tool_quota(two), 0.5, 1e-12);
    grant(two, "/sys/fs/cgroup/job/step/cpu.max", "20000 100000\n");
    CHECK_NEAR(tool_quota(two), 0.2, 1e-12);
    grant(one, "/proc/self/cgroup", "9:memory:/m\n3:cpu,cpuacct:/docker/0123\n1:name=x:/\n");
    grant(one, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    grant(one, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    CHECK(isinf(tool_quota(one)), "-1");
    grant(one, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n");
    grant(one, "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "50000\n");
    CHECK_NEAR(tool_quota(one), 3, 1e-12);
    CHECK(tool_threads_default() >= 1, "%d", tool_threads_default());
}

static void test_stack_size(void)
{
#ifdef _OPENMP
    static const struct { const char *text; double size; } cases[] = {
        { "64", 65536 }, { "64B", 64 }, { "3M", 3145728 }, { " 2 g ", 2147483648.0 },
        { "512k", 524288 }, { "x", 0 }, { "", 0 }, { "-1", 0 }
    };
    size_t i;
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++)
        CHECK_NEAR(tool_stack_size(cases[i].text), cases[i].size, 0);
    CHECK(tool_stack_size(NULL) == 0, "none");
#endif
}

int main(int argc, char **argv)
{
    char clear[4096 + 16];
    test_begin(argc, argv);
    (void)snprintf(clear, sizeof clear, "rm -rf '%s'/* '%s'/.[a-z]*", test.tmp, test.tmp);
    CHECK(system(clear) == 0, "%s", clear);
    test_names();
    test_clashes();
    test_judgement();
    test_locks();
    test_locks_of_others();
    test_ended();
    test_many_at_once();
    test_fence();
    test_signals();
    test_quota();
    test_stack_size();
    anew();
    return test_end("tool");
}
