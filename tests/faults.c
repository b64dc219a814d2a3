/* faults.c - preloaded by cli_output.sh: makes the FAULT_AT-th call of a kind fail

   FAULT: m malloc, calloc, realloc (ENOMEM); r read, pread, fread (EIO); o open, fopen (EIO);
   w write, pwrite, rename (EIO); f fsync (EIO); t pthread_create (EAGAIN); k rename kills.
   FAULT_AT 0: every one.  Only calls from files whose name contains FAULT_FROM count.  FAULT_MARK
   is made when one has failed.  */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);

static int busy;
static long calls;

static int due(char kind, const void *caller)
{
    const char *wanted = getenv("FAULT"), *at = getenv("FAULT_AT"), *from = getenv("FAULT_FROM");
    const char *mark = getenv("FAULT_MARK");
    Dl_info info;
    int counts, fd;
    if (busy || !wanted || wanted[0] != kind) return 0;
    busy = 1;
    counts = dladdr(caller, &info) && strstr(info.dli_fname, from ? from : "calomu");
    busy = 0;
    if (!counts || (++calls != (at ? atol(at) : 0) && at && atol(at) > 0)) return 0;
    busy = 1;
    fd = mark ? open(mark, O_CREAT | O_WRONLY, 0666) : -1;
    if (fd >= 0) close(fd);
    busy = 0;
    return 1;
}

#define CALLER __builtin_return_address(0)
#define FAIL(kind, error, value) \
    if (due(kind, CALLER)) { \
        errno = error; \
        return value; \
    }
#define NEXT(name) (*(void **)&next = dlsym(RTLD_NEXT, #name))

void *malloc(size_t n) { FAIL('m', ENOMEM, NULL) return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { FAIL('m', ENOMEM, NULL) return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { FAIL('m', ENOMEM, NULL) return __libc_realloc(p, n); }

#define READ(name, offset, pass) \
    ssize_t name(int fd, void *to, size_t n offset) \
    { \
        ssize_t (*next)(int, void *, size_t, ...); \
        FAIL('r', EIO, -1) \
        NEXT(name); \
        return next(fd, to, n pass); \
    }
#define WRITE(name, offset, pass) \
    ssize_t name(int fd, const void *from, size_t n offset) \
    { \
        ssize_t (*next)(int, const void *, size_t, ...); \
        FAIL('w', EIO, -1) \
        NEXT(name); \
        return next(fd, from, n pass); \
    }
#define COMMA ,
READ(read, , )
READ(pread, COMMA off_t at, COMMA at)
READ(pread64, COMMA off_t at, COMMA at)
WRITE(write, , )
WRITE(pwrite, COMMA off_t at, COMMA at)
WRITE(pwrite64, COMMA off_t at, COMMA at)

size_t fread(void *to, size_t size, size_t n, FILE *file)
{
    size_t (*next)(void *, size_t, size_t, FILE *);
    if (due('r', CALLER)) {
        file->_flags |= 0x20;        /* ferror */
        errno = EIO;
        return 0;
    }
    NEXT(fread);
    return next(to, size, n, file);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        int (*next)(const char *, int, ...), mode; \
        va_list args; \
        va_start(args, flags); \
        mode = va_arg(args, int); \
        va_end(args); \
        FAIL('o', EIO, -1) \
        NEXT(name); \
        return next(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        FILE *(*next)(const char *, const char *); \
        FAIL('o', EIO, NULL) \
        NEXT(name); \
        return next(path, mode); \
    }
FOPEN(fopen)
FOPEN(fopen64)

int fsync(int fd)
{
    int (*next)(int);
    FAIL('f', EIO, -1)
    NEXT(fsync);
    return next(fd);
}

int rename(const char *from, const char *to)
{
    int (*next)(const char *, const char *);
    if (due('k', CALLER)) kill(getpid(), SIGKILL);
    FAIL('w', EIO, -1)
    NEXT(rename);
    return next(from, to);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *a, void *(*f)(void *), void *user)
{
    int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (due('t', CALLER)) return EAGAIN;
    NEXT(pthread_create);
    return next(thread, a, f, user);
}
