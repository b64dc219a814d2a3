/* test_engine.c - the engine's services: contexts, memory, numbers, random numbers, exp, Adam

   usage: test_engine [TESTDATA [TMP [SEED]]] */
#include "test_net.h"
#include <fenv.h>
#include <locale.h>

/* ---------------------------------------------------------------- random numbers */

/* Known answers of philox4x32-10 from the authors' library Random123 (kat_vectors). */
static void check_random(void)
{
    static const struct { uint64_t seed, stream, counter; uint32_t out[4]; } known[] = {
        { 0, 0, 0, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { UINT64_MAX, UINT64_MAX, UINT64_MAX,
          { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { 0x299f31d0a4093822u, 0x0370734413198a2eu, 0x85a308d3243f6a88u,
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } }
    };
    size_t i, k;
    uint32_t out[4];
    for (i = 0; i < 3; i++) {
        calomu_random(known[i].seed, known[i].stream, known[i].counter, out);
        for (k = 0; k < 4; k++)
            CHECK(out[k] == known[i].out[k], "vector %zu, word %zu: %08x, expected %08x", i, k,
                  (unsigned)out[k], (unsigned)known[i].out[k]);
    }
}

/* ---------------------------------------------------------------- fused products without them */

/* a, b, c and a*b + c rounded once, by Python's fractions: cancellation, halfway cases and just
   beside them, the largest and smallest numbers, zeros with signs. */
static void check_fused_known(void)
{
    static const double known[][4] = {
        { 0x1.0000000000001p+0, 0x1.0000000000001p+0, -0x1.0000000000002p+0, 0x1p-104 },
        { 321, 0x1.9852f0d8ec1p-9, 0x1p-120, 0x1.0000000000001p+0 },
        { 321, 0x1.9852f0d8ec1p-9, -0x1p-120, 1 },
        { 0x1.fffffffffffffp+1023, 2, -0x1.fffffffffffffp+1023, 0x1.fffffffffffffp+1023 },
        { 0x1.fffffffffffffp+1023, 0x1.0000000000001p+0, -0x1p+970, HUGE_VAL },
        { 0x1p+1023, 2, -0x1p+970, HUGE_VAL },
        { 0x1p+1023, 2, -0x1.0000000000001p+970, 0x1.fffffffffffffp+1023 },
        { 0x1p-537, 0x1p-538, 0, 0 },
        { 0x1p-537, -0x1.8p-538, 0, -0x1p-1074 },
        { 0x1p-1074, 0x1p-1074, 0x1p-1074, 0x1p-1074 },
        { 0x1p-1074, -0x1p-1074, 0x1p-1074, 0x1p-1074 },
        { 0x1p-1074, 0x1p-1074, 1, 1 },
        { 0x1p-538, 0x1.0000000000001p-537, -0x1p-1074, -0x0p+0 },
        { 0x1.8p-537, 0x1p-537, 0x1p-1022, 0x1.0000000000002p-1022 },
        { 0x1.fffffffffffffp-1, 0x1p-1022, 0, 0x1p-1022 },
        { 0x1.fffffffffffffp-1, 0x1p-1022, 0x1p-1074, 0x1p-1022 },
        { 0x1.0000000000001p-511, 0x1.fffffffffffffp-512, -0x1p-1022, 0 },
        { 0x1.0000000000001p+500, 0x1.0000000000001p+500, -0x1.0000000000002p+1000, 0x1p+896 },
        { 0x1.0000000000001p+500, 0x1.0000000000001p+500, 0x1p-1074, 0x1.0000000000002p+1000 },
        { 0x1.123456789abcdp+10, 0x1.fedcba9876543p-7, -0x1.1197afcf9a2c5p+4,
          0x1.517cb435c51d9p-13 },
        { 1, 0x1p-53, 1, 1 },
        { -1, 0x1p-53, 1, 0x1.fffffffffffffp-1 },
        { 1, 0x1.8p-53, 1, 0x1.0000000000001p+0 },
        { 1, 0x1p-54, 0x1.0000000000001p+0, 0x1.0000000000001p+0 },
        { 0x1.0000000000001p-53, 1, 1, 0x1.0000000000001p+0 },
        { 3, 0x1.5555555555555p-2, -1, -0x1p-54 },
        { 0x8000000000000p-1074, 0x1p-52, 0x1p-1074, 0x2p-1074 },
        { 0x8000000000000p-1074, 0x1.8p-52, 0x1p-1074, 0x2p-1074 }
    };
    static const float single[][4] = {
        { 97, 0x1.51d08p-7f, 0x1p-60f, 0x1.000002p+0f },
        { 97, 0x1.51d08p-7f, -0x1p-60f, 1 },
        { 0x1.000002p+0f, 0x1.000002p+0f, -0x1.000004p+0f, 0x1p-46f },
        { 0x1.fffffep+127f, 2, -0x1.fffffep+127f, 0x1.fffffep+127f },
        { 0x1p+127f, 2, -0x1p+103f, HUGE_VALF },
        { 0x1p+127f, 2, -0x1.000002p+103f, 0x1.fffffep+127f },
        { 0x1p-75f, 0x1p-75f, 0, 0 },
        { 0x1p-75f, -0x1.8p-75f, 0, -0x1p-149f },
        { 0x1p-149f, 0x1p-149f, 0x1p-149f, 0x1p-149f },
        { 0x1p-149f, -0x1p-149f, 0x1p-149f, 0x1p-149f },
        { 0x1.8p-75f, 0x1p-74f, 0x1p-126f, 0x1.000004p-126f },
        { 0x1.fffffep-1f, 0x1p-126f, 0, 0x1p-126f },
        { 0x1.fffffep-1f, 0x1p-126f, 0x1p-149f, 0x1p-126f },
        { 1, 0x1p-24f, 1, 1 },
        { 0x1.000002p-24f, 1, 1, 0x1.000002p+0f },
        { -1, 0x1p-24f, 1, 0x1.fffffep-1f },
        { 0x1.fffffep+0f, 0x1.fffffep+0f, 0x1p-149f, 0x1.fffffcp+1f },
        { 0x1.000002p+60f, 0x1.000002p+60f, 0x1p-149f, 0x1.000004p+120f }
    };
    size_t i;
    for (i = 0; i < sizeof known / sizeof *known; i++) {
        double x = cm_soft_fma(known[i][0], known[i][1], known[i][2]);
        CHECK(memcmp(&x, &known[i][3], sizeof x) == 0, "%a * %a + %a: %a, expected %a",
              known[i][0], known[i][1], known[i][2], x, known[i][3]);
    }
    for (i = 0; i < sizeof single / sizeof *single; i++) {
        float x = cm_soft_fmaf(single[i][0], single[i][1], single[i][2]);
        CHECK(memcmp(&x, &single[i][3], sizeof x) == 0, "%a * %a + %a: %a, expected %a",
              (double)single[i][0], (double)single[i][1], (double)single[i][2], (double)x,
              (double)single[i][3]);
    }
}

/* A number with an exponent and a significand of interest. */
static double fused_operand(test_random *r)
{
    uint64_t m = test_bits(r) >> 12, e = (uint64_t)test_int(r, 963, 1083), u;
    double x;
    switch (test_int(r, 0, 7)) {
    case 0: e = (uint64_t)test_int(r, 0, 2047); break;   /* infinities and NaN too */
    case 1: e = 0; break;
    case 2: e = 2046; break;
    }
    switch (test_int(r, 0, 5)) {
    case 0: m = 0; break;
    case 1: m = 0xfffffffffffffu; break;
    case 2: m &= 15; break;
    case 3: m &= 0xffffffff00000000u; break;
    }
    u = (test_bits(r) & (uint64_t)1 << 63) | e << 52 | m;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Against libm's, which is right where it is right on the first of the known ones (not mingw's).
   c cancels the product in a quarter of all cases, and is half a step of it in another. */
static void check_fused(test_random *r)
{
    volatile double factor = 28059810762433 * 0x1p-53;
    int i, wrong = 0, wrong_single = 0;
    check_fused_known();
    if (fma(321, factor, 0x1p-120) != 1 + 0x1p-52) {
        SKIP("this libm's fma rounds twice: nothing to compare with");
        return;
    }
    for (i = 0; i < 400000; i++) {
        double a = fused_operand(r), b = fused_operand(r), c = fused_operand(r), x, y;
        float p = (float)a, q = (float)b, s = (float)c, u, v;
        if (i % 4 == 0) c = -a * b;
        if (i % 4 == 1) c = ldexp(a * b, test_int(r, -1, 1) * 53);
        if (i % 4 == 0) s = -p * q;
        if (i % 4 == 1) s = ldexpf(p * q, test_int(r, -1, 1) * 24);
        x = cm_soft_fma(a, b, c);
        y = fma(a, b, c);
        u = cm_soft_fmaf(p, q, s);
        v = fmaf(p, q, s);
        wrong += memcmp(&x, &y, sizeof x) != 0 && !(isnan(x) && isnan(y));
        wrong_single += memcmp(&u, &v, sizeof u) != 0 && !(isnan(u) && isnan(v));
    }
    CHECK(wrong == 0, "%d of %d products and sums in double", wrong, i);
    CHECK(wrong_single == 0, "%d of %d products and sums in float", wrong_single, i);
}

/* ---------------------------------------------------------------- modes of the processor */

/* Whatever the caller's modes: numbers go to text and back as ever, and the modes stay. */
static void check_modes(void)
{
    static const int mode[] = {
#ifdef FE_UPWARD
        FE_UPWARD,
#endif
#ifdef FE_DOWNWARD
        FE_DOWNWARD,
#endif
#ifdef FE_TOWARDZERO
        FE_TOWARDZERO,
#endif
        FE_TONEAREST
    };
    size_t i;
    for (i = 0; i < sizeof mode / sizeof *mode; i++) {
        calomu_modes host;
        calomu_line line = { 0, 3, 0, 0, 0, 0 };
        calomu_train_options o = calomu_train_options_default();
        char text[32];
        double x = 0, third;
        int set, now, kept;
        if (fesetround(mode[i]) != 0) continue;
        (void)calomu_number(text, 2.0 / 65536 / 3, 3);
        (void)calomu_parse("0.1", &x);
        third = calomu_debias(&line, 5);
        calomu_train_options_range(&o, 0, 1);
        kept = fegetround() == mode[i];
        set = calomu_modes_set(&host);
        now = fegetround();
        calomu_modes_restore(&host);
        kept &= fegetround() == mode[i];
        (void)fesetround(FE_TONEAREST);
        CHECK(strcmp(text, "1.02e-05") == 0, "mode %d: text %s", mode[i], text);
        CHECK(x == 0.1, "mode %d: 0.1 is read as %.17g", mode[i], x);
        CHECK(third == 0x1.aaaaaaaaaaaabp+0, "mode %d: 5/3 is %a", mode[i], third);
        CHECK(o.weight_low == 300.0 / 7950, "mode %d: 300/7950 is %a", mode[i], o.weight_low);
        CHECK(set && now == FE_TONEAREST, "mode %d stays when nearest is asked for", mode[i]);
        CHECK(host.changed == (mode[i] != FE_TONEAREST), "mode %d: changed %d", mode[i],
              host.changed);
        CHECK(kept, "mode %d is lost", mode[i]);
    }
}

#ifdef FE_UPWARD
static void *take_upward(void *user, size_t size)
{
    (void)user;
    (void)fesetround(FE_UPWARD);
    return malloc(size);
}

static void give_upward(void *user, void *memory)
{
    (void)user;
    (void)fesetround(FE_UPWARD);
    free(memory);
}

static void hear_upward(void *user, const char *line)
{
    (void)user;
    (void)line;
    (void)fesetround(FE_UPWARD);
}

/* What the caller's functions leave behind is not what is computed in, nor what the caller gets. */
static void check_modes_left(void)
{
    calomu_options o = { 0 };
    calomu *c = NULL;
    void *memory;
    int now[4];
    o.allocate = take_upward;
    o.release = give_upward;
    o.log = hear_upward;
    if (!CHECK(calomu_open(&c, &o) == CALOMU_OK, "no context")) return;
    now[0] = fegetround();
    memory = cm_allocate(c, 1, 100);
    now[1] = fegetround();
    cm_log(c, "%d", 1);
    now[2] = fegetround();
    cm_release(c, memory);
    calomu_close(c);
    now[3] = fegetround();
    (void)fesetround(FE_TONEAREST);
    CHECK(now[0] == FE_TONEAREST && now[1] == FE_TONEAREST && now[2] == FE_TONEAREST
          && now[3] == FE_TONEAREST, "modes behind open, allocate, log, release: %d %d %d %d",
          now[0], now[1], now[2], now[3]);
}
#else
static void check_modes_left(void) {}
#endif

/* A host whose exceptions end the program: opening a context divides by zero, "0.1" is inexact. */
static void check_traps(void)
{
#if defined(__SSE__) && defined(__GNUC__)
    calomu *c = NULL;
    unsigned mode = __builtin_ia32_stmxcsr(), kept;
    calomu_geometry g = calomu_geometry_default(), bad = g;
    calomu_status s, t = CALOMU_OK;
    double x = 0;
    bad.pitch[0] = CALOMU_ABSENT;
    __builtin_ia32_ldmxcsr(0);
    s = calomu_open(&c, NULL);
    if (s == CALOMU_OK) t = calomu_geometry_check(c, &bad);
    (void)calomu_parse("0.1", &x);
    kept = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(mode);
    CHECK(s == CALOMU_OK && t == CALOMU_EUSAGE && x == 0.1, "with traps: %d, %d, %g", (int)s,
          (int)t, x);
    CHECK(kept == 0, "traps and flags are lost: %#x", kept);
    calomu_close(c);
#endif
}

/* ---------------------------------------------------------------- sigmoid, exp, log, cos */

/* Distance in units of the last place of the expected value. */
static double ulps(double got, double expected, int mantissa)
{
    int e;
    (void)frexp(expected, &e);
    return fabs(got - expected) / ldexp(1, e - mantissa);
}

static void check_functions(test_random *r)
{
    double worst_real = 0, worst_exp = 0, worst_log = 0, worst_cos = 0, x, e;
    int in_double = sizeof(cm_real) == 8, i;
    for (i = 0; i < 200000; i++) {
        float f = (float)(i % 2 ? test_uniform(r, -87, 87) : test_uniform(r, -4, 4));
        e = fabs((double)cm_sigmoid_value((cm_real)f) * (1 + exp(-(double)f)) - 1);
        if (!in_double) e -= 1.4e-8 * fabs((double)f);
        if (!(e <= worst_real)) worst_real = e;
        x = test_uniform(r, -700, 700);
        e = ulps(cm_exp_double(x), exp(x), 53);
        if (!(e <= worst_exp)) worst_exp = e;
        x = i % 2 ? exp(test_uniform(r, -300, 300)) : test_uniform(r, 0.5, 2);
        e = ulps(cm_log_double(x), log(x), 53);
        if (!(e <= worst_log)) worst_log = e;
        x = test_uniform(r, -7, 7);
        e = fabs(cm_cos_double(x) - cos(x));
        if (!(e <= worst_cos)) worst_cos = e;
    }
    CHECK(worst_real <= (in_double ? 5e-16 : 1.5e-7), "sigmoid is off by %.2g", worst_real);
    CHECK(worst_exp <= 2, "cm_exp_double is off by %.2f units of the last place", worst_exp);
    CHECK(worst_log <= 3, "cm_log_double is off by %.2f units of the last place", worst_log);
    CHECK(worst_cos <= 4e-16, "cm_cos_double is off by %.3g", worst_cos);
    CHECK((double)cm_sigmoid_value(0) == 0.5 && cm_exp_double(0) == 1 && cm_log_double(1) == 0,
          "not exact at 0, 0, 1");
    CHECK_NEAR(cm_cos_double(0), 1, 0);
    CHECK_NEAR(cm_cos_double(3.14159265358979323846), -1, 2e-16);
    CHECK((double)cm_sigmoid_value(-1000) > 0 && (double)cm_sigmoid_value(-1000) < 1e-37,
          "sigmoid(-1000) = %g", (double)cm_sigmoid_value(-1000));
    CHECK((double)cm_sigmoid_value(1000) == 1, "sigmoid(1000) = %g",
          (double)cm_sigmoid_value(1000));
    CHECK(isnan((double)cm_sigmoid_value((cm_real)NAN)) && isnan(cm_exp_double((double)NAN)),
          "NaN");
    printf("test_engine: sigmoid %.1e; units of the last place: double exp %.2f, log %.2f;"
           " cos %.1e\n", worst_real, worst_exp, worst_log, worst_cos);
}

/* ---------------------------------------------------------------- numbers as text */

static void check_round_trip(double x, int digits)
{
    char text[32];
    const char *end;
    double back = 0;
    CHECK(calomu_number(text, x, digits) == text, "not the caller's memory");
    end = calomu_parse(text, &back);
    if (digits == 17) CHECK(end && !*end && back == x, "%.17g -> '%s' -> %.17g", x, text, back);
    else CHECK(end && !*end && (float)back == (float)x, "%.9g -> '%s' -> %.9g", x, text, back);
}

static void check_text(const char *text, double expected, int used)
{
    double x = 12345;
    const char *end = calomu_parse(text, &x);
    CHECK(end == text + used && x == expected, "'%s': %.17g, %ld characters", text, x,
          end ? (long)(end - text) : -1L);
}

static void check_numbers(test_random *r)
{
    static const char *const bad[] = { "", " 1", "\t1", "nan", "NaN", "inf", "-inf", "infinity",
                                       "-", "+", ".", "-.", "e5", ".e5", "--1", "+-1", "x", ",5",
                                       "1e999", "-1e999", "\n" };
    double x;
    char text[32];
    size_t i;
    for (i = 0; i < 20000; i++) {
        x = ldexp(test_uniform(r, -1, 1), test_int(r, -1000, 1000));
        check_round_trip(x, 17);
        check_round_trip((double)(float)ldexp(test_uniform(r, -1, 1), test_int(r, -120, 120)), 9);
    }
    check_round_trip(0, 17);
    check_round_trip(1.7976931348623157e308, 17);
    check_round_trip(4.9406564584124654e-324, 17);
    check_text("1", 1, 1);
    check_text("-2.5e-3,", -2.5e-3, 7);
    check_text("+7.", 7, 3);
    check_text(".5;", 0.5, 2);
    check_text("1,5", 1, 1);
    check_text("0x10", 0, 1);
    check_text("3e", 3, 1);
    check_text("3e+x", 3, 1);
    check_text("1.5.2", 1.5, 3);
    check_text("1 2", 1, 1);
    check_text("0.1", 0.1, 3);
    check_text("1e-999", 0, 6);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        x = 12345;
        CHECK(calomu_parse(bad[i], &x) == NULL, "'%s' was read as %g", bad[i], x);
        CHECK(x == 12345, "'%s': the output was touched (%g)", bad[i], x);
    }
    CHECK(*calomu_number(text, (double)NAN, 9) == 0, "a NaN gives '%s'", text);
    CHECK(strcmp(calomu_number(text, 0.1, 3), "0.1") == 0, "'%s'", text);
    CHECK(strcmp(calomu_number(text, 123456789, 3), "1.23e+08") == 0, "'%s'", text);
}

/* The same in a locale whose decimal point is a comma. */
static void check_locale(test_random *r)
{
    static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "de_DE", "fr_FR.UTF-8",
                                         "fr_FR.utf8", "ru_RU.UTF-8" };
    char text[32];
    size_t i;
    for (i = 0; i < sizeof names / sizeof *names; i++)
        if (setlocale(LC_ALL, names[i])) break;
    if (i == sizeof names / sizeof *names || *localeconv()->decimal_point == '.') {
        SKIP("no locale with a decimal comma is installed");
    } else {
        CHECK(strcmp(calomu_number(text, 2.5, 9), "2.5") == 0, "'%s' in %s", text, names[i]);
        check_numbers(r);
    }
    (void)setlocale(LC_ALL, "C");
}

/* ---------------------------------------------------------------- contexts */

typedef struct budget {              /* an allocator that fails at one call, and counts */
    long calls, fail_at, alive;
} budget;

static void *budget_take(void *user, size_t size)
{
    budget *b = user;
    void *memory;
    if (++b->calls == b->fail_at) return NULL;
    memory = malloc(size);
    if (memory) b->alive++;
    return memory;
}

static void budget_release(void *user, void *memory)
{
    ((budget *)user)->alive--;
    free(memory);
}

static void check_options(void)
{
    calomu_options o;
    calomu *c;
    int s;
    struct { int threads, isa, allocate; } bad[] = { { -1, 0, 0 }, { 1 << 20, 0, 0 }, { 1, 99, 0 },
                                                     { 1, -1, 0 }, { 1, 0, 1 } };
    size_t i;
    memset(&o, 0, sizeof o);
    CHECK(calomu_open(&c, &o) == CALOMU_OK && c && *calomu_message(c), "zeroed options");
    CHECK(*calomu_build_info(c) && !strchr(calomu_build_info(c), '\n'), "build: '%s'",
          calomu_build_info(c));
    calomu_close(c);
    calomu_close(NULL);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        memset(&o, 0, sizeof o);
        o.threads = bad[i].threads;
        o.isa = (calomu_isa)bad[i].isa;
        if (bad[i].allocate) o.allocate = budget_take;       /* one without the other */
        CHECK(calomu_open(&c, &o) == CALOMU_EUSAGE && !c, "bad options %zu were accepted", i);
    }
    CHECK(calomu_open(NULL, NULL) == CALOMU_EUSAGE, "nowhere to put the context");
    for (s = -1; s < 100; s++)
        CHECK(calomu_status_text((calomu_status)s) && *calomu_status_text((calomu_status)s),
              "no text of status %d", s);
    CHECK(calomu_threads_available() >= 1, "%d threads", calomu_threads_available());
}

static void check_messages(calomu *c)
{
    char longer[2000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    CHECK(cm_fail(c, CALOMU_EIO, "%s: %d", longer, 5) == CALOMU_EIO, "not its status");
    CHECK(strlen(calomu_message(c)) > 100 && strlen(calomu_message(c)) < sizeof longer, "%zu",
          strlen(calomu_message(c)));
    cm_fail(c, CALOMU_EFORMAT, "%s: byte %d", "file", 17);
    CHECK(strcmp(calomu_message(c), "file: byte 17") == 0, "'%s'", calomu_message(c));
    CHECK(cm_allocate(c, SIZE_MAX / 8, 16) == NULL, "2^64 bytes and more");
    CHECK(cm_allocate(c, SIZE_MAX, SIZE_MAX) == NULL, "far more than 2^64 bytes");
    CHECK(strstr(calomu_message(c), "memory"), "'%s'", calomu_message(c));
}

static void check_geometry(calomu *c)
{
    calomu_geometry g = calomu_geometry_default(), bad;
    CHECK(g.nz == 50 && g.nx == 32 && g.ny == 32 && g.pitch[0] == 40.64 && g.pitch[1] == 3.75
          && g.pitch[2] == 3.75 && g.origin[0] == 0 && g.origin[1] == -60 && g.origin[2] == -60
          && g.field == 2, "not the paper's calorimeter");
    CHECK_OK(c, calomu_geometry_check(c, &g));
#define BAD(change) \
    bad = g; \
    change; \
    CHECK_FAILS(c, calomu_geometry_check(c, &bad), CALOMU_EUSAGE)
    BAD(bad.nz = 0);
    BAD(bad.nx = -1);
    BAD(bad.ny = INT32_MAX; bad.nx = INT32_MAX);
    BAD(bad.nz = 1 << 8; bad.nx = 1 << 8; bad.ny = (1 << 8) + 1);
    BAD(bad.pitch[0] = 0);
    BAD(bad.pitch[1] = -3.75);
    BAD(bad.pitch[2] = (double)NAN);
    BAD(bad.pitch[2] = (double)INFINITY);
    BAD(bad.origin[1] = (double)INFINITY);
    BAD(bad.field = (double)NAN);
#undef BAD
    g.nz = g.nx = g.ny = 1 << 8;     /* 2^24 cells: the largest */
    CHECK_OK(c, calomu_geometry_check(c, &g));
}

/* The same length or not, on both sides of each bound, in both orders. */
static void check_geometry_compare(calomu *c)
{
    calomu_geometry g = calomu_geometry_default(), other;
#define ALIKE(change) \
    other = g; \
    change; \
    CHECK_OK(c, calomu_geometry_compare(c, &g, &other)); \
    CHECK_OK(c, calomu_geometry_compare(c, &other, &g))
#define UNLIKE(change, text) \
    other = g; \
    change; \
    CHECK_FAILS(c, calomu_geometry_compare(c, &other, &g), CALOMU_EFORMAT); \
    CHECK_FAILS(c, calomu_geometry_compare(c, &g, &other), CALOMU_EFORMAT); \
    CHECK(strcmp(calomu_message(c), text) == 0, "'%s'", calomu_message(c))
    ALIKE((void)other);
    ALIKE(other.pitch[0] = (double)40.64f);
    ALIKE(other.pitch[1] = 3.75 * (1 + 0.9e-6));
    ALIKE(other.origin[2] = -60 + 3.75 * 0.9e-6);
    ALIKE(other.origin[0] = -40.64 * 0.9e-6);
    ALIKE(other.field = 2 * (1 - 0.9e-6));
    UNLIKE(other.pitch[0] = 41, "pitch along z: 40.64 mm against 41 mm");
    UNLIKE(other.pitch[2] = 3.7500045, "pitch along y: 3.75 mm against 3.7500045 mm");
    UNLIKE(other.origin[0] = 0.000045, "low corner along z: 0 mm against 4.5e-05 mm");
    UNLIKE(other.origin[1] = -59.999995, "low corner along x: -60 mm against -59.999995 mm");
    UNLIKE(other.field = 2.000003, "field: 2 T against 2.000003 T");
    UNLIKE(other.field = 0, "field: 2 T against 0 T");
    UNLIKE(other.ny = 33, "50 x 32 x 32 cells against 50 x 32 x 33 (z, x, y)");
    UNLIKE(other.nz = 32; other.nx = 50, "50 x 32 x 32 cells against 32 x 50 x 32 (z, x, y)");
    UNLIKE(other.pitch[1] = (double)NAN, "pitch along x: 3.75 mm against  mm");
    g.origin[0] = 4123.7;            /* a float32 keeps it to 1.2e-4 mm, 3e-6 of the pitch */
    g.field = 3.8;
    ALIKE(other.origin[0] = (double)4123.7f);
    ALIKE(other.field = (double)3.8f);
    UNLIKE(other.origin[0] = 4123.701, "low corner along z: 4123.7 mm against 4123.701 mm");
    g.origin[1] = 1e8;               /* where it keeps 4 mm, that is no reason to allow 4 mm */
    UNLIKE(other.origin[1] = 1e8 + 0.004,
           "low corner along x: 100000000 mm against 100000000.004 mm");
#undef ALIKE
#undef UNLIKE
}

static void check_names(void)
{
    static const char *const names[] = {
        "eabove", "rmom", "rmom1", "r2m", "r2m1", "r2m2", "r2m3", "r2m4", "r2m5", "nclu",
        "ncellmax", "eclumax", "maxdepthx", "maxdepthy", "maxdepthz", "epercell", "avgcells",
        "nclu1", "ncellmax1", "eclumax1", "epercell1", "avgcells_off_trk", "ymom", "xmom", "emeas",
        "maxsum", "eb1", "ea1" };
    int i;
    for (i = 0; i < CALOMU_FEATURES; i++)
        CHECK(calomu_feature_name(i) && strcmp(calomu_feature_name(i), names[i]) == 0,
              "feature %d is '%s'", i, calomu_feature_name(i) ? calomu_feature_name(i) : "NULL");
    CHECK(!calomu_feature_name(-1) && !calomu_feature_name(CALOMU_FEATURES), "one name too many");
    CHECK(strcmp(calomu_convention_name(CALOMU_CONVENTION_TEXT), "text") == 0
          && strcmp(calomu_convention_name(CALOMU_CONVENTION_AUTHORS), "authors") == 0, "names");
    CHECK(isnan(CALOMU_ABSENT), "an absent value is a number");
}

/* ---------------------------------------------------------------- no memory */

/* A step of training: 1 done, 0 no memory.  memory: an arena that is large enough. */
static int try_step(calomu *c, const cm_net *net, const test_batch *b, void *memory, size_t size)
{
    static double thresholds[16];
    calomu_train_options o = calomu_train_options_default();
    cm_graph *g = cm_graph_new(c, memory, size, 1, 1);
    test_stepper s;
    calomu_status status;
    double loss;
    if (!g) return 0;
    memset(&s, 0, sizeof s);
    s.c = c;
    s.net = net;
    s.training = 1;
    s.options = &o;
    s.thresholds = thresholds;
    s.gradient = test_memory(net->n_trained, sizeof(cm_real));
    s.pred = test_memory((size_t)b->n, sizeof(double));
    loss = test_pass(&s, b, g, 0);
    status = cm_graph_status(g);
    CHECK(status == CALOMU_OK || status == CALOMU_EMEMORY, "status %d", (int)status);
    CHECK(status != CALOMU_OK || isfinite(loss), "a failure without a status");
    cm_graph_free(g);
    free(s.gradient);
    free(s.pred);
    return status == CALOMU_OK;
}

static int try_all(budget *k, const test_batch *b, const calomu_architecture *a, void *memory,
                   size_t size)
{
    calomu_options o;
    calomu *c = NULL, *own = NULL;
    cm_net *net = NULL;
    calomu_model *m = NULL;
    int done = 0;
    memset(&o, 0, sizeof o);
    o.allocate = budget_take;
    o.release = budget_release;
    o.user = k;
    if (calomu_open(&c, &o) != CALOMU_OK) {
        CHECK(c == NULL, "a context after a failure");
        return 0;
    }
    own = cm_clone(c);
    if (own) {
        calomu_status s = cm_net_new(c, a, &net);
        CHECK(s == CALOMU_OK || (s == CALOMU_EMEMORY && !net), "status %d", (int)s);
        if (s == CALOMU_OK) {
            cm_net_init(net, 3);
            s = cm_model_new(c, a, 2, &m);
            CHECK(s == CALOMU_OK || (s == CALOMU_EMEMORY && !m), "status %d", (int)s);
        }
        if (s == CALOMU_OK) done = try_step(c, net, b, memory, size);
    }
    CHECK(done || strstr(calomu_message(c), "memory"), "message '%s'", calomu_message(c));
    calomu_model_free(m);
    cm_net_free(c, net);
    cm_clone_free(own);
    calomu_close(c);
    return done;
}

static void check_no_memory(void)
{
    size_t size = (size_t)64 << 20;
    char *memory = test_memory(size + 64, 1);
    calomu_architecture a = calomu_architecture_default();
    test_batch b;
    budget k;
    long fail_at, done = 0;
    a.blocks = 1;
    a.body = 4;
    a.growth = 1.1;
    a.geometry.nz = 3; a.geometry.nx = 2; a.geometry.ny = 2;
    b = test_muons(&a.geometry, 4, a.n_features, 1);
    for (fail_at = 1; !done && fail_at < 2000; fail_at++) {
        k.calls = k.alive = 0;
        k.fail_at = fail_at;
        done = try_all(&k, &b, &a, memory + (64 - (uintptr_t)memory % 64) % 64, size);
        CHECK(k.alive == 0, "allocation %ld fails: %ld blocks are lost", fail_at, k.alive);
        CHECK(done == (k.calls < fail_at), "allocation %ld fails: nobody noticed", fail_at);
    }
    CHECK(done && fail_at > 5, "%ld allocations", fail_at);
    test_muons_free(&b);
    free(memory);
}

/* ---------------------------------------------------------------- Adam */

/* PyTorch's Adam with a varying first coefficient, in double. */
static void check_adam(test_random *r)
{
    enum { N = 257 };
    cm_real w[N], dw[N], m[N], v[N];
    double ref_w[N], ref_m[N], ref_v[N], moved[N], ref_moved[N];
    static const double beta[] = { 0.95, 0.9, 0.85, 0.93, 0.95 };
    static const uint64_t steps[] = { 1, 2, 3, 100, 65000 };
    double tol = sizeof(cm_real) == 8 ? 1e-12 : 1e-4;
    int i, t;
    for (i = 0; i < N; i++) {
        w[i] = (cm_real)test_normal(r);
        ref_w[i] = (double)w[i];
        m[i] = v[i] = 0;
        ref_m[i] = ref_v[i] = 0;
    }
    for (t = 0; t < 5; t++) {
        double lr = 0.01 / (t + 1);
        for (i = 0; i < N; i++) {
            double g = i == 0 ? 0 : test_normal(r) * pow(10, i % 9 - 6), before = ref_w[i];
            dw[i] = (cm_real)g;
            g = (double)dw[i];
            moved[i] = (double)w[i];
            ref_m[i] = beta[t] * ref_m[i] + (1 - beta[t]) * g;
            ref_v[i] = 0.999 * ref_v[i] + (1 - 0.999) * g * g;
            ref_w[i] -= lr / (1 - pow(beta[t], (double)steps[t])) * ref_m[i]
                        / (sqrt(ref_v[i]) / sqrt(1 - pow(0.999, (double)steps[t])) + 1e-8);
            ref_moved[i] = ref_w[i] - before;
        }
        cm_adam(w, dw, m, v, N, lr, beta[t], steps[t]);
        for (i = 0; i < N; i++) moved[i] = (double)w[i] - moved[i];
        CHECK(moved[0] == 0, "a weight without gradient moved by %g", moved[0]);
        CHECK(test_distance(moved, ref_moved, N) <= tol, "step %d: updates are off by %g", t,
              test_distance(moved, ref_moved, N));
        for (i = 0; i < N; i++) moved[i] = (double)m[i];
        CHECK(test_distance(moved, ref_m, N) <= tol, "step %d: first moments", t);
        for (i = 0; i < N; i++) moved[i] = (double)v[i];
        CHECK(test_distance(moved, ref_v, N) <= tol, "step %d: second moments", t);
    }
}

static void check_checksum(void)
{
    unsigned char bytes[64];
    uint64_t seen[64 * 8 + 65], h;
    size_t i, k, n = 0;
    memset(bytes, 0, sizeof bytes);
    for (i = 0; i <= 64; i++) seen[n++] = cm_checksum(0, bytes, i);      /* every length */
    for (i = 0; i < 64 * 8; i++) {   /* and every bit */
        bytes[i / 8] ^= (unsigned char)(1 << i % 8);
        seen[n++] = cm_checksum(0, bytes, 64);
        bytes[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    for (i = 0; i < n; i++)
        for (k = 0; k < i; k++)
            if (seen[i] == seen[k]) CHECK(0, "inputs %zu and %zu collide", i, k);
    h = cm_checksum(0, bytes, 64);
    CHECK(cm_checksum(1, bytes, 64) != h, "the seed makes no difference");
    CHECK(cm_checksum(0, bytes, 64) == h, "not the same twice");
}

/* ---------------------------------------------------------------- gaps in data files */

/* Hits whose distance is at the limits of 1, 2, 3 and 4 bytes of its code, through a file. */
static void check_gaps(calomu *c)
{
    static const uint32_t gap[] = { 0, 1, 127, 128, 129, 0, 16383, 16384, 16385, 2097151, 2097152,
                                    2097153, 127, 128 };
    enum { N = sizeof gap / sizeof *gap };
    calomu_hit hit[N];
    calomu_event e;
    calomu_events got;
    calomu_data_info info;
    calomu_writer *w = NULL;
    calomu_data *d = NULL;
    char path[1024];
    uint32_t cell = 0;
    size_t i;
    memset(&info, 0, sizeof info);
    memset(&e, 0, sizeof e);
    memset(&got, 0, sizeof got);
    info.geometry = calomu_geometry_default();
    info.geometry.nz = info.geometry.nx = info.geometry.ny = 256;
    for (i = 0; i < N; i++) {
        hit[i].cell = cell += gap[i];
        hit[i].energy = 0.001f * (float)(i + 1);
        cell++;
    }
    e.hits = hit;
    e.n_hits = N;
    e.x = e.y = e.energy = e.charge = CALOMU_ABSENT;
    (void)test_path(path, sizeof path, test.tmp, "gaps.cmu");
    if (!CHECK_OK(c, calomu_writer_open(c, path, &info, &w))) return;
    CHECK_OK(c, calomu_writer_add(w, &e));
    CHECK_OK(c, calomu_writer_close(w));
    if (!CHECK_OK(c, calomu_data_open(c, path, &d))) return;
    if (CHECK_OK(c, calomu_data_read(c, d, 0, NULL, 1, &got)) && CHECK(got.event[0].n_hits == N,
        "%zu hits", got.event[0].n_hits))
        for (i = 0; i < N; i++)
            CHECK(got.event[0].hits[i].cell == hit[i].cell
                  && got.event[0].hits[i].energy == hit[i].energy, "hit %zu: cell %lu, not %lu", i,
                  (unsigned long)got.event[0].hits[i].cell, (unsigned long)hit[i].cell);
    calomu_events_free(&got);
    calomu_data_close(d);
    (void)remove(path);
}

int main(int argc, char **argv)
{
    uint64_t seed = test_seed_of(argc, argv, 20220080);
    test_random r = test_seed(seed);
    calomu *c = NULL;
    test_begin(argc, argv);
    printf("test_engine: seed %llu\n", (unsigned long long)seed);
    check_random();
    check_fused(&r);
    check_modes();
    check_modes_left();
    check_traps();
    check_functions(&r);
    check_numbers(&r);
    check_locale(&r);
    check_options();
    check_names();
    check_checksum();
    check_adam(&r);
    check_no_memory();
    if (CHECK(calomu_open(&c, NULL) == CALOMU_OK, "no context")) {
        check_messages(c);
        check_geometry(c);
    check_geometry_compare(c);
        check_gaps(c);
        calomu_close(c);
    }
    return test_end("test_engine");
}
