/* files.c - the files of a command: none is written that it reads or writes under another name too,
   none that another command is writing, and what killed commands have left of it is removed.

   A command claims its files, one after the other, before it opens any.  A claim is compared with
   those before it: by what a path leads to (device and inode: any spelling, any link), or, for
   a file that does not exist yet, by its folder and its name there.

   The claim of an output takes its lock: the file .NAME.calomu-lock beside it, which says who holds
   it, and which is removed in the end.  The holder also has the kernel's lock on that file (fcntl):
   the kernel gives it back when a process ends in any way, so that a lock file that was left behind
   is taken over at once.  Between hosts the kernel's lock may not hold (NFS with nolock, Lustre
   with localflock), so that there the text decides: the holder touches the file every TOOL_BEAT
   seconds, and is dead after TOOL_DEAD seconds without.  Both times are the file system's, as hosts
   differ in theirs.  A holder that slept for longer, and wakes up when another has taken over, ends
   before it writes anything.

   A signal that ends the program takes locks and half-written files away, but for SIGKILL and a
   crash.  The text of a dead process of this host tells its number, which is in the names of its
   temporary files, .NAME.PID.K.tmp (calomu_output): these are removed.  No others are: a process of
   the same number on another host may be at work.  */
#include "calomu_tool.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    TOOL_BEAT = 15, TOOL_DEAD = 90,  /* seconds, see above */
    TOOL_YOUNG = 2,                  /* seconds: a lock without text may be about to get it */
    TOOL_PATH = 4096, TOOL_TEXT = 512
};

/* Where a path leads. */
typedef struct tool_place {
    int there;                       /* 1: exists; what and where: */
    mode_t mode;
    dev_t device, special;
    ino_t inode;
    int inside;                      /* 1: its folder exists; which: */
    dev_t folder_device;
    ino_t folder_inode;
    int descriptor;                  /* 1: -, /dev/fd/N and so on: open already */
    char path[TOOL_PATH];            /* behind links */
} tool_place;

typedef struct tool_claimed {
    struct tool_claimed *next;
    tool_file file;
    char *role, *path;
    tool_place at;
    char *lock;                      /* NULL: none */
    char *half;                      /* where calomu_output begins it; NULL: nowhere */
    int fd;                          /* of the lock */
} tool_claimed;

typedef struct tool_holder {         /* what a lock says */
    char text[TOOL_TEXT], program[64], host[256], boot[64], since[64];
    long pid;                        /* 0: nothing is said */
} tool_holder;

static tool_claimed *tool_claims;    /* the newest first */
static tool_holder tool_own;
static long tool_dead[16];           /* processes whose locks were taken over */
static int tool_n_dead;

/* ---------------------------------------------------------------- places */

static const char *tool_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Whether the name is that of a descriptor that is open already. */
static int tool_is_descriptor(const char *path)
{
    return strncmp(path, "/dev/std", 8) == 0 || strncmp(path, "/dev/fd/", 8) == 0
        || strncmp(path, "/proc/", 6) == 0;
}

/* Replaces a link by what it links to, as long as there is one; 40 at most, as by Linux. */
static void tool_follow(tool_place *p)
{
    char link[TOOL_PATH];
    int hops;
    for (hops = 0; hops < 40 && !tool_is_descriptor(p->path); hops++) {
        ssize_t n = readlink(p->path, link, sizeof link);
        size_t folder = n > 0 && link[0] == '/' ? 0 : (size_t)(tool_name(p->path) - p->path);
        if (n <= 0 || folder + (size_t)n >= sizeof p->path) return;
        memcpy(p->path + folder, link, (size_t)n);
        p->path[folder + (size_t)n] = 0;
    }
}

static void tool_locate(tool_place *p, const char *path, int reads)
{
    char folder[TOOL_PATH];
    struct stat s;
    int standard = strcmp(path, "-") == 0;
    memset(p, 0, sizeof *p);
    (void)snprintf(p->path, sizeof p->path, "%s", path);
    if (!standard) tool_follow(p);
    p->descriptor = standard || tool_is_descriptor(p->path);
    if ((standard ? fstat(reads ? 0 : 1, &s) : stat(p->path, &s)) == 0) {
        p->there = 1;
        p->mode = s.st_mode;
        p->device = s.st_dev;
        p->inode = s.st_ino;
        p->special = s.st_rdev;
    }
    if (p->descriptor) return;
    (void)snprintf(folder, sizeof folder, "%.*s.", (int)(tool_name(p->path) - p->path), p->path);
    if (stat(folder, &s) != 0) return;
    p->inside = 1;
    p->folder_device = s.st_dev;
    p->folder_inode = s.st_ino;
}

static int tool_same_place(const tool_place *a, const tool_place *b)
{
    if (a->there && b->there) return a->device == b->device && a->inode == b->inode;
    return a->inside && b->inside && a->folder_device == b->folder_device
        && a->folder_inode == b->folder_inode
        && strcmp(tool_name(a->path), tool_name(b->path)) == 0;
}

static int tool_is_null(const tool_place *p)
{
    struct stat s;
    return S_ISCHR(p->mode) && stat("/dev/null", &s) == 0 && s.st_rdev == p->special;
}

/* Whether two claims cannot both be had.  Terminals and pipes may be read and written at once. */
static int tool_clash(const tool_claimed *a, const tool_claimed *b)
{
    int reads = (a->file == TOOL_READS) + (b->file == TOOL_READS);
    int replaces = a->file == TOOL_REPLACES || b->file == TOOL_REPLACES;
    int streams = (a->file == TOOL_STREAM) + (b->file == TOOL_STREAM);
    if (reads == 2 || (reads == 1 && replaces) || !tool_same_place(&a->at, &b->at)) return 0;
    if (a->at.there && !S_ISREG(a->at.mode) && (reads || streams || tool_is_null(&a->at))) return 0;
    /* --out - and /dev/stdout are what the stream is for */
    return !(streams && (a->file == b->file || (!reads && (a->file == TOOL_STREAM ? b : a)
                                                              ->at.descriptor)));
}

/* ---------------------------------------------------------------- what a lock says */

/* This run of the system: hosts may have the same name. */
static void tool_read_boot(char *boot, size_t size)
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "r");
    (void)snprintf(boot, size, "-");
    if (file && !fgets(boot, (int)size, file)) (void)snprintf(boot, size, "-");
    boot[strcspn(boot, "\n")] = 0;
    if (file) (void)fclose(file);
}

static void tool_make_own(void)
{
    time_t now = time(NULL);
    struct tm utc;
    tool_holder *h = &tool_own;
    if (gethostname(h->host, sizeof h->host) != 0) (void)snprintf(h->host, sizeof h->host, "-");
    h->host[sizeof h->host - 1] = 0;
    tool_read_boot(h->boot, 40);
    h->pid = (long)getpid();
    if (!gmtime_r(&now, &utc)
        || !strftime(h->since, sizeof h->since, "%Y-%m-%d %H:%M:%S UTC", &utc)) h->since[0] = 0;
    (void)snprintf(h->text, sizeof h->text, "program %.40s\nhost %.200s\nboot %.40s\npid %ld\n"
                   "since %s\n", tool_command(), h->host, h->boot, h->pid, h->since);
}

/* The line `word TEXT` of a lock; 0: there is none. */
static int tool_word(const char *text, const char *word, char *to, size_t size)
{
    size_t n = strlen(word), length;
    for (; text; text = strchr(text, '\n'), text += text != NULL) {
        if (strncmp(text, word, n) != 0 || text[n] != ' ') continue;
        length = strcspn(text + n + 1, "\n");
        if (length >= size) return 0;
        memcpy(to, text + n + 1, length);
        to[length] = 0;
        return 1;
    }
    return 0;
}

/* 1: a lock of calomu, or one without a text yet; 0: another file; -1: it cannot be read. */
static int tool_read_holder(int fd, tool_holder *h)
{
    char number[32];
    ssize_t n = pread(fd, h->text, sizeof h->text - 1, 0);
    h->pid = 0;
    if (n < 0) return -1;
    h->text[n] = 0;
    if (!h->text[0]) return 1;       /* a power cut may have left zeros: no text either */
    if (!tool_word(h->text, "program", h->program, sizeof h->program)
        || !tool_word(h->text, "host", h->host, sizeof h->host)
        || !tool_word(h->text, "boot", h->boot, sizeof h->boot)
        || !tool_word(h->text, "pid", number, sizeof number)
        || !tool_word(h->text, "since", h->since, sizeof h->since)) return 0;
    h->pid = strtol(number, NULL, 10);
    return h->pid > 0 && h->pid <= INT_MAX;
}

/* Seconds since the file was touched, by the clock of its file system: that of the host may be
   another.  Only the file's owner can ask for it; for others the host's clock has to do. */
static double tool_age(int fd)
{
    struct timespec ask[2];
    struct stat s;
    double now = (double)time(NULL);
    ask[0].tv_sec = ask[1].tv_sec = 0;
    ask[0].tv_nsec = UTIME_NOW;
    ask[1].tv_nsec = UTIME_OMIT;
    if (futimens(fd, ask) == 0 && fstat(fd, &s) == 0)
        now = (double)s.st_atime;
    else if (fstat(fd, &s) != 0)
        return 0;
    return now - (double)s.st_mtime;
}

static int tool_is_here(const tool_holder *h)
{
    return strcmp(h->host, tool_own.host) == 0 && strcmp(h->boot, tool_own.boot) == 0;
}

typedef enum tool_state { TOOL_FREE, TOOL_LEFT, TOOL_HELD, TOOL_WAIT } tool_state;

/* kernel: whether its lock is ours (1), another's (0), or not to be had on this system (-1). */
static tool_state tool_judge(const tool_holder *h, int kernel, double age)
{
    int here = tool_is_here(h);
    if (kernel == 0) return h->pid ? TOOL_HELD : TOOL_WAIT;
    if (!h->pid) return age < TOOL_YOUNG ? TOOL_WAIT : TOOL_FREE;
    if (here && (kernel == 1 || (kill((pid_t)h->pid, 0) != 0 && errno == ESRCH))) return TOOL_LEFT;
    return age < TOOL_DEAD ? TOOL_HELD : here ? TOOL_LEFT : TOOL_FREE;
}

/* ---------------------------------------------------------------- sweeping */

/* The name that calomu_output gives the file until it is complete. */
static void tool_half_name(char path[TOOL_PATH + 64], const tool_place *p, long pid, int k)
{
    const char *name = tool_name(p->path);
    (void)snprintf(path, TOOL_PATH + 64, "%.*s.%.200s.%ld.%d.tmp", (int)(name - p->path), p->path,
                   name, pid, k);
}

/* Removes .NAME.PID.K.tmp of dead processes.  A number that is in use again is passed by, but not
   our own: nothing has been written yet. */
static void tool_sweep(const tool_place *p)
{
    char path[TOOL_PATH + 64];
    int i, k;
    for (i = 0; i < tool_n_dead; i++) {
        long pid = tool_dead[i];
        if (pid != tool_own.pid && (kill((pid_t)pid, 0) == 0 || errno != ESRCH)) continue;
        for (k = 0; k < 100000; k++) {
            tool_half_name(path, p, pid, k);
            if (unlink(path) != 0) break;
        }
    }
}

static void tool_bury(long pid)
{
    int i;
    for (i = 0; i < tool_n_dead; i++)
        if (tool_dead[i] == pid) return;
    if (i < (int)(sizeof tool_dead / sizeof tool_dead[0])) tool_dead[tool_n_dead++] = pid;
}

/* ---------------------------------------------------------------- heartbeat */

/* The next three run in signals' handlers: only calls that are allowed there. */
static int tool_taken_over(const tool_claimed *c)
{
    char text[TOOL_TEXT];
    size_t n = strlen(tool_own.text);
    ssize_t got = pread(c->fd, text, sizeof text, 0);
    return got > 0 && ((size_t)got != n || memcmp(text, tool_own.text, n) != 0);
}

static void tool_beat(int number)
{
    static const char lost[] = "calomu: this run was stopped for so long that another has taken"
                               " over its output: it ends here and writes nothing\n";
    const tool_claimed *c;
    int error = errno;
    (void)number;
    for (c = tool_claims; c; c = c->next) {
        if (!c->lock) continue;
        if (tool_taken_over(c)) {
            if (write(2, lost, sizeof lost - 1) < 0) _exit(CALOMU_EIO);
            _exit(CALOMU_EIO);
        }
        (void)futimens(c->fd, NULL);
    }
    errno = error;
}

/* For verbs that do not look at tool_stop: the usual end, and nothing is left. */
static void tool_leave(int number)
{
    const tool_claimed *c;
    for (c = tool_own.pid == (long)getpid() ? tool_claims : NULL; c; c = c->next) {
        if (c->half) (void)unlink(c->half);
        if (c->lock && !tool_taken_over(c)) (void)unlink(c->lock);
    }
    (void)raise(number);             /* SA_RESETHAND: now it ends the program */
}

static void tool_start_beating(void)
{
    struct sigaction action;
    struct itimerval every;
    sigset_t set;
    memset(&action, 0, sizeof action);
    action.sa_handler = tool_beat;
    action.sa_flags = SA_RESTART;
    (void)sigfillset(&action.sa_mask);
    (void)sigaction(SIGALRM, &action, NULL);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGALRM);
    (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
    tool_signals_end(tool_leave);
    every.it_value.tv_sec = every.it_interval.tv_sec = TOOL_BEAT;
    every.it_value.tv_usec = every.it_interval.tv_usec = 0;
    (void)setitimer(ITIMER_REAL, &every, NULL);
}

/* The list is the handler's too. */
static void tool_list_claim(tool_claimed *c)
{
    sigset_t set, old;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGALRM);
    (void)sigprocmask(SIG_BLOCK, &set, &old);
    c->next = tool_claims;
    tool_claims = c;
    (void)sigprocmask(SIG_SETMASK, &old, NULL);
}

/* ---------------------------------------------------------------- locks */

static calomu_status tool_held(const tool_claimed *c, const tool_holder *h, double age)
{
    if (tool_is_here(h))
        return tool_fail(CALOMU_EIO, "%s: another run is writing it: process %ld (%s), since %s",
                         c->path, h->pid, h->program, h->since);
    return tool_fail(CALOMU_EIO, "%s: another run is writing it: process %ld on %s (%s), since"
                     " %s; its last sign of life was %.0f s ago, and after %d s without one it"
                     " counts as dead: try again then", c->path, h->pid, h->host, h->program,
                     h->since, age > 0 ? age : 0, (int)TOOL_DEAD);
}

/* 1: ours, 0: another process has it, -1: this file system has none. */
static int tool_kernel_lock(int fd)
{
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    if (fcntl(fd, F_SETLK, &lock) == 0) return 1;
    return errno == EACCES || errno == EAGAIN ? 0 : -1;
}

static int tool_same_file(int fd, const char *path)
{
    struct stat a, b;
    return fstat(fd, &a) == 0 && stat(path, &b) == 0 && a.st_dev == b.st_dev
        && a.st_ino == b.st_ino;
}

/* The lock of another claim of ours: names that differ, but not for the file system (X and x).
   Closing fd would give the kernel's lock back, and is left to the end. */
static calomu_status tool_lock_is_ours(const tool_claimed *c, int fd)
{
    const tool_claimed *o;
    for (o = tool_claims; o; o = o->next)
        if (o->lock && tool_same_file(fd, o->lock))
            return tool_misuse("%s %s is the same file as %s %s", c->role, c->path, o->role,
                               o->path);
    return CALOMU_OK;
}

/* Writes who we are; the place of one that was left. */
static calomu_status tool_take(tool_claimed *c, const char *path)
{
    size_t n = strlen(tool_own.text);
    ssize_t written = -1;
    if (ftruncate(c->fd, 0) == 0) written = pwrite(c->fd, tool_own.text, n, 0);
    if (written == (ssize_t)n) return CALOMU_OK;
    (void)tool_fail(CALOMU_EIO, "%s: cannot write its lock %s: %s", c->path, path,
                    strerror(written < 0 ? errno : ENOSPC));
    (void)unlink(path);
    return CALOMU_EIO;
}

/* One attempt; *state TOOL_WAIT: to be made again.  A lock that was removed while it was being
   opened is no lock. */
static calomu_status tool_try_lock(tool_claimed *c, const char *path, tool_state *state)
{
    tool_holder h;
    calomu_status s = CALOMU_OK;
    int made = 1, kernel, good;
    double age;
    *state = TOOL_FREE;
    c->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (c->fd < 0 && errno == EEXIST) {
        made = 0;
        c->fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
        if (c->fd < 0 && errno == ENOENT) *state = TOOL_WAIT;
        else if (c->fd < 0)
            return tool_fail(CALOMU_EIO, "%s: its lock %s cannot be opened (%s): another's run is"
                             " writing it, or has left the lock", c->path, path, strerror(errno));
    }
    if (c->fd < 0) return CALOMU_OK;
    s = tool_lock_is_ours(c, c->fd);
    if (s != CALOMU_OK) return s;
    kernel = tool_kernel_lock(c->fd);
    if (!tool_same_file(c->fd, path)) {
        *state = TOOL_WAIT;
        return CALOMU_OK;
    }
    if (made && kernel) return tool_take(c, path);
    good = tool_read_holder(c->fd, &h);
    if (good <= 0)
        return tool_fail(CALOMU_EIO, "%s: %s is in the place of its lock, but %s", c->path, path,
                         good ? strerror(errno) : "is none of calomu: move it away");
    age = tool_age(c->fd);
    *state = tool_judge(&h, kernel, age);
    if (*state == TOOL_HELD) return tool_held(c, &h, age);
    if (*state == TOOL_WAIT) return CALOMU_OK;
    if (*state == TOOL_LEFT) tool_bury(h.pid);
    tool_sweep(&c->at);              /* first: a kill between the two leaves the number there */
    return tool_take(c, path);
}

/* Where no lock can be made, as the folder is not there or is protected, writing will fail too and
   say why; or the file is written in place, and can be.  A disk that fails or is full is said. */
static calomu_status tool_no_lock(const tool_claimed *c)
{
    if (errno != ENOSPC && errno != EDQUOT && errno != EIO && errno != EMFILE && errno != ENFILE)
        return CALOMU_OK;
    return tool_fail(CALOMU_EIO, "%s: cannot make its lock: %s", c->path, strerror(errno));
}

static calomu_status tool_lock(tool_claimed *c)
{
    const struct timespec pause = { 0, 50000000 };
    const char *name = tool_name(c->at.path);
    size_t length = strlen(name), skip = length > 200 ? length - 200 : 0, size;
    calomu_status s = CALOMU_OK;
    tool_state state = TOOL_WAIT;
    char *path;
    int tries;
    if (!c->at.inside || !*name || (c->at.there && !S_ISREG(c->at.mode))) return CALOMU_OK;
    while (skip && ((unsigned char)name[skip] & 0xc0) == 0x80) skip++;   /* whole letters */
    size = strlen(c->at.path) + 32;
    path = malloc(size);
    if (!path) return tool_fail(CALOMU_EMEMORY, "%s: no memory", c->path);
    (void)snprintf(path, size, "%.*s.%s.calomu-lock", (int)(name - c->at.path), c->at.path,
                   name + skip);
    for (tries = 0; tries < 100 && s == CALOMU_OK && state == TOOL_WAIT; tries++) {
        if (tries) (void)nanosleep(&pause, NULL);
        c->fd = -1;
        s = tool_try_lock(c, path, &state);
        if (s == CALOMU_OK && state == TOOL_WAIT && c->fd >= 0) (void)close(c->fd);
    }
    if (s == CALOMU_OK && state == TOOL_WAIT)
        s = tool_fail(CALOMU_EIO, "%s: its lock %s is in use", c->path, path);
    else if (s == CALOMU_OK && c->fd < 0)
        s = tool_no_lock(c);
    if (s == CALOMU_OK && c->fd >= 0) c->lock = path;
    else free(path);
    return s;
}

static void tool_unlock(tool_claimed *c)
{
    if (c->lock && tool_same_file(c->fd, c->lock) && !tool_taken_over(c))
        (void)unlink(c->lock);       /* before the kernel's lock goes with the descriptor */
    if (c->fd >= 0) (void)close(c->fd);
    c->fd = -1;
}

/* ---------------------------------------------------------------- claims */

static void tool_forget(tool_claimed *c)
{
    free(c->role);
    free(c->path);
    free(c->half);
    free(c);
}

static tool_claimed *tool_make_claim(tool_file file, const char *role, const char *path)
{
    tool_claimed *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->file = file;
    c->fd = -1;
    c->role = strdup(role);
    c->path = strdup(path);
    if (!c->role || !c->path) {
        tool_forget(c);
        return NULL;
    }
    return c;
}

/* Files that standard output and error have been redirected to are outputs as well. */
static calomu_status tool_claim_streams(void)
{
    static const char *const role[2] = { "standard output", "standard error" };
    struct stat s;
    int i;
    for (i = 0; i < 2; i++) {
        tool_claimed *c;
        if (fstat(i + 1, &s) != 0 || !S_ISREG(s.st_mode)) continue;
        c = tool_make_claim(TOOL_STREAM, role[i], "");
        if (!c) return tool_fail(CALOMU_EMEMORY, "no memory");
        c->at.there = 1;
        c->at.mode = s.st_mode;
        c->at.device = s.st_dev;
        c->at.inode = s.st_ino;
        tool_list_claim(c);
    }
    return CALOMU_OK;
}

static calomu_status tool_first_claim(void)
{
    if (tool_own.pid) return CALOMU_OK;
    tool_make_own();
    return tool_claim_streams();
}

static calomu_status tool_name_half(tool_claimed *c)
{
    char path[TOOL_PATH + 64];
    tool_half_name(path, &c->at, tool_own.pid, 0);
    c->half = strdup(path);
    return c->half ? CALOMU_OK : tool_fail(CALOMU_EMEMORY, "%s: no memory", c->path);
}

calomu_status tool_claim(tool_file file, const char *role, const char *path)
{
    calomu_status s = tool_first_claim();
    tool_claimed *c, *o;
    if (s != CALOMU_OK) return s;
    c = tool_make_claim(file, role, path);
    if (!c) return tool_fail(CALOMU_EMEMORY, "%s: no memory", path);
    tool_locate(&c->at, path, file == TOOL_READS);
    for (o = tool_claims; o && s == CALOMU_OK; o = o->next)
        if (tool_clash(o, c))
            s = tool_misuse("%s %s is the same file as %s%s%s", role, path, o->role,
                            *o->path ? " " : "", o->path);
    if (s == CALOMU_OK && (file == TOOL_WRITES || file == TOOL_REPLACES)) s = tool_lock(c);
    if (s == CALOMU_OK && file == TOOL_DERIVED) tool_sweep(&c->at);
    if (s == CALOMU_OK && (file == TOOL_DERIVED || c->lock)) s = tool_name_half(c);
    if (s != CALOMU_OK) {
        if (c->lock) tool_unlock(c);
        tool_forget(c);              /* another's lock, if open, is closed with the program */
        return s;
    }
    if (c->lock) tool_start_beating();
    tool_list_claim(c);
    return CALOMU_OK;
}

/* Nothing is freed: the handler may be at work in another thread. */
void tool_release(void)
{
    struct itimerval never;
    tool_claimed *c;
    memset(&never, 0, sizeof never);
    if (!tool_claims || tool_own.pid != (long)getpid()) return;
    (void)setitimer(ITIMER_REAL, &never, NULL);
    (void)signal(SIGALRM, SIG_IGN);
    for (c = tool_claims; c; c = c->next) tool_unlock(c);
}
