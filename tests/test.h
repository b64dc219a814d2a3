/* test.h - what every test program shares: checks that count, seeds, and the paths

   A test is a program of its own: argv[1] is the folder of test data (default "testdata"),
   argv[2] a folder it may write to (default "build/tmp", made if missing).  Failures go to stderr
   with file and line, the closing line to stdout; the exit status is 0 only if nothing failed. */
#ifndef CALOMU_TEST_H
#define CALOMU_TEST_H

/* strict C99 hides what tests need of POSIX */
#if !defined(_POSIX_C_SOURCE) && (defined(__unix__) || defined(__APPLE__))
#define _POSIX_C_SOURCE 200809L
#endif
#ifndef CALOMU_INTERNALS
#define CALOMU_INTERNALS
#endif
#include "../calomu.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

#if defined(__GNUC__)
#define TEST_UNUSED __attribute__((unused))
#define TEST_FORMAT(a, b) __attribute__((format(printf, a, b)))
#else
#define TEST_UNUSED
#define TEST_FORMAT(a, b)
#endif

static struct {
    long passed, failed, skipped;
    const char *data, *tmp;          /* folders of test data and of scratch files */
    int stop;                        /* TEST_STOP is set: the first failure ends the program */
    int brief;                       /* TEST_BRIEF is set: shorter sweeps, for slow builds */
} test = { 0, 0, 0, "testdata", "build/tmp", 0, 0 };

/* CHECK(cond, "what was expected, %d", got): one pass or one failure. */
#define CHECK(cond, ...) test_check((cond) ? 1 : 0, __FILE__, __LINE__, #cond, __VA_ARGS__)
/* |value - expected| <= tol; a NaN fails. */
#define CHECK_NEAR(value, expected, tol) \
    test_near((double)(value), (double)(expected), (double)(tol), __FILE__, __LINE__, #value)
/* A call that must succeed; prints the context's message if not. */
#define CHECK_OK(c, call) test_status((c), (call), CALOMU_OK, __FILE__, __LINE__, #call)
/* A call that must fail with the given status and leave a message. */
#define CHECK_FAILS(c, call, status) \
    test_status((c), (call), (status), __FILE__, __LINE__, #call)
#define SKIP(...) test_skip(__FILE__, __LINE__, __VA_ARGS__)

static TEST_UNUSED TEST_FORMAT(5, 6) int test_check(int good, const char *file, int line,
                                                    const char *text, const char *format, ...)
{
    va_list args;
    if (good) {
        test.passed++;
        return 1;
    }
    test.failed++;
    fprintf(stderr, "%s:%d: failed: %s: ", file, line, text);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    if (test.stop) exit(1);
    return 0;
}

static TEST_UNUSED int test_near(double value, double expected, double tol, const char *file,
                                 int line, const char *text)
{
    double err = fabs(value - expected);
    return test_check(err <= tol, file, line, text, "%.17g, expected %.17g, off by %.3g > %.3g",
                      value, expected, err, tol);
}

static TEST_UNUSED int test_status(const calomu *c, calomu_status got, calomu_status expected,
                                   const char *file, int line, const char *text)
{
    return test_check(got == expected && (got == CALOMU_OK || !c || *calomu_message(c)), file, line,
                      text, "status %d, expected %d; message '%s'", (int)got, (int)expected,
                      c ? calomu_message(c) : "");
}

static TEST_UNUSED TEST_FORMAT(3, 4) void test_skip(const char *file, int line,
                                                    const char *format, ...)
{
    va_list args;
    test.skipped++;
    fprintf(stderr, "%s:%d: SKIPPED: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

/* Makes the folder and its parents; failures show when a file in it cannot be made. */
static TEST_UNUSED void test_mkdir(const char *path)
{
    char part[1024];
    size_t i, n = strlen(path);
    if (n >= sizeof part) return;
    for (i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        (void)mkdir(part, 0777);
    }
}

static TEST_UNUSED void test_begin(int argc, char **argv)
{
    test.stop = getenv("TEST_STOP") != NULL;
    test.brief = getenv("TEST_BRIEF") != NULL;
    if (argc > 1) test.data = argv[1];
    if (argc > 2) test.tmp = argv[2];
    test_mkdir(test.tmp);
}

static TEST_UNUSED int test_end(const char *name)
{
    printf("%s: %ld passed, %ld failed, %ld skipped\n", name, test.passed, test.failed,
           test.skipped);
    fflush(stdout);
    return test.failed != 0 || test.passed + test.skipped == 0;
}

/* A context whose log is kept, a line each. */
static TEST_UNUSED char test_said[4096];

static TEST_UNUSED void test_note(void *user, const char *line)
{
    size_t n = strlen(test_said);
    (void)user;
    (void)snprintf(test_said + n, sizeof test_said - n, "%s\n", line);
}

static TEST_UNUSED calomu *test_open_noting(void)
{
    calomu_options o = { 0 };
    calomu *c = NULL;
    o.log = test_note;
    if (!CHECK(calomu_open(&c, &o) == CALOMU_OK, "no context")) exit(1);
    return c;
}

/* "folder/name" in a buffer of the caller's. */
static TEST_UNUSED const char *test_path(char *out, size_t size, const char *folder,
                                         const char *name)
{
    int n = snprintf(out, size, "%s/%s", folder, name);
    if (n < 0 || (size_t)n >= size) {
        fprintf(stderr, "path too long: %s/%s\n", folder, name);
        exit(1);
    }
    return out;
}

/* The tests' own random numbers (xorshift64*, Vigna 2016), so that a fault of the library's
   generator cannot hide in them. */
typedef struct test_random {
    uint64_t state;
} test_random;

static TEST_UNUSED test_random test_seed(uint64_t seed)
{
    test_random r;
    r.state = (seed + 1) * 0x9e3779b97f4a7c15u;
    if (!r.state) r.state = 1;
    return r;
}

/* The seed of a sweep: argv[3] if it is a number, else the default. */
static TEST_UNUSED uint64_t test_seed_of(int argc, char **argv, uint64_t seed)
{
    char *end = NULL;
    uint64_t given = argc > 3 ? strtoull(argv[3], &end, 0) : 0;
    return end && end != argv[3] && !*end ? given : seed;
}

static TEST_UNUSED uint64_t test_bits(test_random *r)
{
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1du;
}

/* Uniform in [0, 1), in [low, high), and an integer in low..high. */
static TEST_UNUSED double test_unit(test_random *r)
{
    return (double)(test_bits(r) >> 11) * 0x1p-53;
}

static TEST_UNUSED double test_uniform(test_random *r, double low, double high)
{
    return low + (high - low) * test_unit(r);
}

static TEST_UNUSED int test_int(test_random *r, int low, int high)
{
    return low + (int)(test_bits(r) % (uint64_t)(high - low + 1));
}

/* A standard normal number, near enough (12 uniforms). */
static TEST_UNUSED double test_normal(test_random *r)
{
    double sum = -6;
    int i;
    for (i = 0; i < 12; i++) sum += test_unit(r);
    return sum;
}

/* ||a - b|| / ||b||: 0 if both are 0, infinite if only b is; NaN stays NaN. */
static TEST_UNUSED double test_distance(const double *a, const double *b, size_t n)
{
    double d = 0, s = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        d += (a[i] - b[i]) * (a[i] - b[i]);
        s += b[i] * b[i];
    }
    if (d == 0) return 0;
    return s > 0 ? sqrt(d / s) : (double)INFINITY;
}

#endif /* CALOMU_TEST_H */
