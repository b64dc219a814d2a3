/* test_files.c - output, .cmu data files, safetensors: round trips, an independent decoder, and
   everything that damaged or hostile files, full disks and lack of memory can do. */
#include "test.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { FIXED = 24, HEADER = 568, TRAILER = 48 };

static char tmp_a[1200], tmp_b[1200];

/* ---- small helpers */

static unsigned char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    unsigned char *p = NULL;
    long size = -1;
    if (f && fseek(f, 0, SEEK_END) == 0) size = ftell(f);
    if (size >= 0) {
        rewind(f);
        p = malloc((size_t)size + 1);
        if (p && fread(p, 1, (size_t)size, f) != (size_t)size) size = -1;
    }
    if (f) fclose(f);
    *n = size >= 0 ? (size_t)size : 0;
    return p;
}

static void spill(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) {
        fprintf(stderr, "cannot write %s\n", path);
        exit(1);
    }
}

/* The name of a device that is always full, or NULL.  Root gets it by the number of an open
   descriptor: a fault in what is tested here must never replace the machine's /dev/full. */
static const char *full_device(void)
{
    static char name[32];
    static int fd = -1;
    struct stat st;
    if (stat("/dev/full", &st) != 0 || !S_ISCHR(st.st_mode)) return NULL;
    if (geteuid() != 0) return "/dev/full";
    if (fd < 0) fd = open("/dev/full", O_WRONLY);
    (void)snprintf(name, sizeof name, "/dev/fd/%d", fd);
    return fd < 0 ? NULL : name;
}

/* Counts the entries of a folder whose names end in .tmp; wipe 1: and removes them. */
static int leftovers(const char *folder, int wipe)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    char path[2000];
    int n = 0;
    while (d && (e = readdir(d)) != NULL) {
        size_t k = strlen(e->d_name);
        if (k < 4 || strcmp(e->d_name + k - 4, ".tmp")) continue;
        n++;
        if (wipe) (void)unlink(test_path(path, sizeof path, folder, e->d_name));
    }
    if (d) closedir(d);
    return n;
}

static int says(const calomu *c, const char *words)
{
    int found = strstr(calomu_message(c), words) != NULL && !strchr(calomu_message(c), '\n');
    if (!found) fprintf(stderr, "message '%s' lacks '%s'\n", calomu_message(c), words);
    return found;
}

/* ---- random sets of events */

enum { MAX_EVENTS = 40, MAX_HITS = 4000 };

typedef struct set {
    calomu_data_info info;
    calomu_event event[MAX_EVENTS];
    float features[MAX_EVENTS][CALOMU_FEATURES];
    float losses[MAX_EVENTS][CALOMU_LOSSES];
    calomu_hit *hits[MAX_EVENTS];
    size_t n;
} set;

static uint32_t float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static void set_free(set *s)
{
    size_t i;
    for (i = 0; i < s->n; i++) free(s->hits[i]);
    free(s);
}

/* An energy of one of several kinds: full mantissa, 12 bits, equal, zero, tiny, any pattern. */
static float random_energy(test_random *r, int kind)
{
    float e = (float)exp(test_uniform(r, -14, 2));
    if (kind == 1) return bits_float(float_bits(e) & 0xFFFFF000u);
    if (kind == 2) return 0.25f;
    if (kind == 3) return test_int(r, 0, 3) ? e : test_int(r, 0, 1) ? 0.0f : -0.0f;
    if (kind == 4) return bits_float((uint32_t)test_bits(r) % 1000);
    if (kind == 5) return bits_float((uint32_t)test_bits(r) % 0x7F800000u);
    return e;
}

/* Rising cells: a walk with gaps of one, two and up to four bytes. */
static size_t random_hits(test_random *r, calomu_hit *hits, size_t room, uint32_t cells, int kind)
{
    uint32_t cell = (uint32_t)test_int(r, 0, 3);
    size_t n = 0;
    while (n < room && cell < cells) {
        hits[n].cell = cell;
        hits[n++].energy = random_energy(r, kind);
        cell += 1 + (uint32_t)(test_int(r, 0, 9) ? test_int(r, 0, 20)
                               : test_int(r, 0, 9) ? test_int(r, 100, 3000)
                               : test_int(r, 16000, 3000000));
    }
    return n;
}

static set *random_set(uint64_t seed, size_t n, size_t room)
{
    test_random r = test_seed(seed);
    set *s = calloc(1, sizeof *s);
    size_t i;
    int j;
    if (!s) exit(1);
    s->n = n;
    s->info.geometry = calomu_geometry_default();
    if (seed % 3 == 1) {
        calomu_geometry g = { 255, 256, 257, { 1.5, 2.5, 3.5 }, { -7, -300, -400 }, -1.25 };
        s->info.geometry = g;
    }
    if (seed % 7 == 2) {
        calomu_geometry g = { 1, 1, 1, { 40, 120, 120 }, { 0, -60, -60 }, 0 };
        s->info.geometry = g;
    }
    s->info.features = (calomu_feature_state)(seed % 4);
    s->info.losses = (int32_t)(seed / 4 % 2);
    if (s->info.features) {
        s->info.feature_options.convention = (calomu_convention)(seed / 4 % 2);
        s->info.feature_options.grow = 0.125f * (float)(seed % 3);
    }
    for (j = 0; j < CALOMU_FEATURES && s->info.features == CALOMU_FEATURES_STANDARDISED; j++) {
        s->info.mean[j] = test_normal(&r);
        s->info.deviation[j] = test_uniform(&r, 0.1, 5);
    }
    for (i = 0; i < n; i++) {
        calomu_event *e = s->event + i;
        calomu_geometry *g = &s->info.geometry;
        size_t k = room * (size_t)test_int(&r, 0, 4) / 4;
        s->hits[i] = malloc((k + 1) * sizeof(calomu_hit));
        if (!s->hits[i]) exit(1);
        e->n_hits = random_hits(&r, s->hits[i], i % 5 == 1 ? 1 : k,
                                (uint32_t)(g->nz * g->nx * g->ny), (int)(i % 6));
        e->hits = s->hits[i];
        e->energy = e->x = e->y = e->charge = CALOMU_ABSENT;
        if (test_int(&r, 0, 3)) e->energy = (float)test_uniform(&r, 50, 8000);
        if (test_int(&r, 0, 3)) e->charge = test_int(&r, 0, 1) ? 1.0f : -1.0f;
        if (test_int(&r, 0, 3)) {
            e->x = (float)(g->origin[1] + test_uniform(&r, 0.001, 0.999) * g->nx * g->pitch[1]);
            e->y = (float)(g->origin[2] + test_uniform(&r, 0.001, 0.999) * g->ny * g->pitch[2]);
        }
        for (j = 0; j < CALOMU_FEATURES; j++) s->features[i][j] = (float)test_normal(&r);
        e->features = s->info.features ? s->features[i] : NULL;
        for (j = 0; j < CALOMU_LOSSES; j++)
            s->losses[i][j] = test_int(&r, 0, 3) ? (float)test_normal(&r) : CALOMU_ABSENT;
        e->losses = s->info.losses ? s->losses[i] : NULL;
    }
    return s;
}

/* Same to the bit, but that -0 energies come back as 0. */
static int same_event(const calomu_event *a, const calomu_event *b)
{
    size_t i;
    int same = a->n_hits == b->n_hits && float_bits(a->energy) == float_bits(b->energy)
        && float_bits(a->x) == float_bits(b->x) && float_bits(a->y) == float_bits(b->y)
        && float_bits(a->charge) == float_bits(b->charge) && !a->features == !b->features
        && !a->losses == !b->losses;
    for (i = 0; same && i < a->n_hits; i++) {
        uint32_t ea = float_bits(a->hits[i].energy), eb = float_bits(b->hits[i].energy);
        same = a->hits[i].cell == b->hits[i].cell
            && (ea == 0x80000000u ? 0 : ea) == (eb == 0x80000000u ? 0 : eb);
    }
    if (same && a->features)
        same = !memcmp(a->features, b->features, CALOMU_FEATURES * sizeof(float));
    if (same && a->losses) same = !memcmp(a->losses, b->losses, CALOMU_LOSSES * sizeof(float));
    return same;
}

static int same_info(const calomu_data_info *a, const calomu_data_info *b)
{
    int i, same = a->geometry.nz == b->geometry.nz && a->geometry.nx == b->geometry.nx
        && a->geometry.ny == b->geometry.ny && a->geometry.field == b->geometry.field
        && a->features == b->features && a->losses == b->losses
        && a->feature_options.convention == b->feature_options.convention
        && a->feature_options.grow == b->feature_options.grow
        && !memcmp(a->mean, b->mean, sizeof a->mean)
        && !memcmp(a->deviation, b->deviation, sizeof a->deviation);
    for (i = 0; i < 3; i++)
        same = same && a->geometry.pitch[i] == b->geometry.pitch[i]
            && a->geometry.origin[i] == b->geometry.origin[i];
    return same;
}

static calomu_status write_set(calomu *c, const char *path, const set *s)
{
    calomu_writer *w = NULL;
    calomu_status status = calomu_writer_open(c, path, &s->info, &w);
    size_t i;
    if (status) return status;
    for (i = 0; i < s->n; i++) {
        status = calomu_writer_add(w, s->event + i);
        if (status) {
            calomu_writer_abandon(w);
            return status;
        }
    }
    return calomu_writer_close(w);
}

/* Opens and reads all, in batches of 7; the first failure. */
static calomu_status read_all(calomu *c, const char *path)
{
    calomu_data *d = NULL;
    calomu_events e = { 0 };
    uint64_t i, n = 0;
    calomu_status s = calomu_data_open(c, path, &d);
    if (!s) n = calomu_data_describe(d)->n_events;
    for (i = 0; !s && i < n; i += 7)
        s = calomu_data_read(c, d, i, NULL, (size_t)(n - i < 7 ? n - i : 7), &e);
    calomu_events_free(&e);
    calomu_data_close(d);
    return s;
}

/* ---- an independent decoder, bit by bit, from the description of the format alone */

static uint64_t number_at(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    while (bytes-- > 0) v = v * 256 + p[bytes];
    return v;
}

static int bit_at(const unsigned char *p, uint64_t bit) { return p[bit / 8] >> bit % 8 & 1; }

/* Whether the file holds exactly the set; checks every field that the description names. */
static int decodes_to(const unsigned char *f, size_t size, const set *s)
{
    const unsigned char *t = f + size - TRAILER;
    uint64_t index = number_at(t + 24, 8), at = HEADER, hits = 0;
    uint64_t h = number_at(f + 560, 8);
    size_t i, j;
    int k, ok = number_at(f + 8, 4) == 0x01020304 && number_at(f + 12, 4) == 1
        && number_at(f + 16, 4) == HEADER && number_at(f + 20, 4) == (uint64_t)s->info.features
        && (int64_t)number_at(f + 32, 4) == s->info.geometry.nz
        && (int64_t)number_at(f + 40, 4) == s->info.geometry.ny
        && (int64_t)number_at(f + 44, 4) == s->info.losses
        && h == cm_checksum(0, f, 560) && number_at(t + 8, 8) == s->n
        && number_at(t + 32, 8) == cm_checksum(h, f + index, 8 * s->n)
        && number_at(t + 40, 8) == cm_checksum(h, t, 40) && !memcmp(f + 48, "GeV mm T", 8)
        && !memcmp(t, "CMU-end\n", 8) && !memcmp(f, "\x89" "CMU\r\n\x1a\n", 8);
    for (i = 0; ok && i < s->n; i++) {
        const unsigned char *p = f + at;
        const unsigned char *l = p + FIXED + (s->info.features ? 4 * CALOMU_FEATURES : 0);
        const unsigned char *q = l + (s->info.losses ? 4 * CALOMU_LOSSES : 0);
        const calomu_event *e = s->event + i;
        uint64_t length = number_at(p, 4), n = number_at(p + 4, 4), cell = 0, bit = 0;
        ok = number_at(f + index + 8 * i, 8) == at && n == e->n_hits
            && number_at(p + length - 8, 8) == cm_checksum(h + i, p, length - 8)
            && number_at(p + 8, 4) == float_bits(e->energy)
            && number_at(p + 12, 4) == float_bits(e->x) && number_at(p + 16, 4) == float_bits(e->y)
            && number_at(p + 20, 4) == float_bits(e->charge);
        for (k = 0; k < CALOMU_FEATURES && s->info.features; k++)
            ok = ok && number_at(p + 24 + 4 * k, 4) == float_bits(e->features[k]);
        for (k = 0; k < CALOMU_LOSSES && s->info.losses; k++)
            ok = ok && number_at(l + 4 * k, 4) == float_bits(e->losses[k]);
        if (ok && n) {
            uint64_t base = number_at(q, 4), gaps = number_at(q + 8, 4);
            int shift = q[4], width = q[5];
            const unsigned char *gap = q + 12, *code = q + 12 + gaps;
            for (j = 0; j < n; j++) {
                uint64_t v = 0, pattern = 0;
                for (k = 0;; k += 7) {
                    v |= (uint64_t)(*gap & 127) << k;
                    if (*gap++ < 128) break;
                }
                cell += v;
                for (k = 0; k < width; k++) pattern |= (uint64_t)bit_at(code, bit++) << k;
                pattern = base + (pattern << shift);
                if (float_bits(e->hits[j].energy) != 0x80000000u)
                    ok = ok && pattern == float_bits(e->hits[j].energy);
                else
                    ok = ok && pattern == 0;
                ok = ok && cell++ == e->hits[j].cell;
            }
            ok = ok && gap == q + 12 + gaps && q + 12 + gaps + (bit + 7) / 8 + 8 == p + length;
        } else if (ok) {
            ok = q + 8 == p + length;
        }
        hits += n;
        at += length;
    }
    return ok && at == index && index + 8 * s->n + TRAILER == size && number_at(t + 16, 8) == hits;
}

/* ---- tests of the checksum */

static void test_checksum(void)
{
    unsigned char b[100];
    uint64_t was;
    size_t n, i;
    int missed = 0, equal = 0;
    for (i = 0; i < sizeof b; i++) b[i] = (unsigned char)(7 * i + 1);
    /* frozen: files depend on them.  From a calculation with Python's integers. */
    was = cm_checksum(0, b, 0);
    CHECK(was == 0xc8d7880d14fbaeb3u, "%llx", (unsigned long long)was);
    was = cm_checksum(1, b, 9);
    CHECK(was == 0x0e518ca5bef6c3bcu, "%llx", (unsigned long long)was);
    was = cm_checksum(2, b, 99);
    CHECK(was == 0xa5fc6020406334e8u, "%llx", (unsigned long long)was);
    for (n = 0; n <= 70; n++) {
        was = cm_checksum(5, b, n);
        for (i = 0; i < 8 * n; i++) {
            b[i / 8] ^= (unsigned char)(1 << i % 8);
            missed += cm_checksum(5, b, n) == was;
            b[i / 8] ^= (unsigned char)(1 << i % 8);
        }
        equal += was == cm_checksum(6, b, n) || (n && was == cm_checksum(5, b, n - 1));
    }
    CHECK(missed == 0, "%d flipped bits went unseen", missed);
    CHECK(equal == 0, "%d equal sums of different seeds or lengths", equal);
    memset(b, 0, sizeof b);
    equal = 0;
    for (n = 0; n < 99; n++) equal += cm_checksum(0, b, n) == cm_checksum(0, b, n + 1);
    CHECK(equal == 0, "%d equal sums of zeros of different lengths", equal);
}

/* ---- .cmu: round trips */

static void check_set(calomu *c, uint64_t seed, size_t n, size_t room)
{
    set *s = random_set(seed, n, room);
    calomu_data *d = NULL;
    calomu_events e = { 0 };
    unsigned char *a, *b;
    size_t na, nb, i, bad = 0;
    uint64_t hits = 0, order[3];
    CHECK_OK(c, write_set(c, tmp_a, s));
    a = slurp(tmp_a, &na);
    CHECK(a && decodes_to(a, na, s), "seed %d: the independent decoder disagrees", (int)seed);
    if (!CHECK_OK(c, calomu_data_open(c, tmp_a, &d))) return;
    for (i = 0; i < n; i++) hits += s->event[i].n_hits;
    CHECK(calomu_data_describe(d)->n_events == n && calomu_data_describe(d)->n_hits == hits,
          "counts of seed %d", (int)seed);
    CHECK(same_info(calomu_data_describe(d), &s->info), "info of seed %d", (int)seed);
    CHECK_OK(c, calomu_data_read(c, d, 0, NULL, n, &e));
    for (i = 0; i < n; i++) bad += !same_event(e.event + i, s->event + i);
    CHECK(e.n == n && bad == 0, "seed %d: %d of %d events differ", (int)seed, (int)bad, (int)n);
    if (n) {                         /* any event in any order, the batch's memory used again */
        order[0] = n - 1;
        order[1] = 0;
        order[2] = n - 1;
        CHECK_OK(c, calomu_data_read(c, d, 99, order, 3, &e));
        CHECK(e.n == 3 && same_event(e.event, s->event + n - 1) && same_event(e.event + 1, s->event)
              && same_event(e.event + 2, s->event + n - 1), "by number");
    }
    CHECK_FAILS(c, calomu_data_read(c, d, 1, NULL, n, &e), CALOMU_EUSAGE);
    CHECK_FAILS(c, calomu_data_read(c, d, UINT64_MAX, NULL, 1, &e), CALOMU_EUSAGE);
    order[0] = n;
    CHECK_FAILS(c, calomu_data_read(c, d, 0, order, 1, &e), CALOMU_EUSAGE);
    CHECK(e.n == 0, "a batch that failed holds nothing");
    calomu_events_free(&e);
    /* what was read, written again: the same bytes */
    CHECK_OK(c, calomu_data_read(c, d, 0, NULL, n, &e));
    for (i = 0; i < n && e.n == n; i++) s->event[i] = e.event[i];
    CHECK_OK(c, write_set(c, tmp_b, s));
    b = slurp(tmp_b, &nb);
    CHECK(a && b && na == nb && !memcmp(a, b, na), "rewriting seed %d gives other bytes",
          (int)seed);
    calomu_data_close(d);
    calomu_events_free(&e);
    calomu_events_free(&e);
    free(a);
    free(b);
    set_free(s);
}

/* Hits in any order give the same file. */
static void test_order(calomu *c)
{
    set *s = random_set(4, 20, 700);
    test_random r = test_seed(3);
    unsigned char *a, *b;
    size_t i, j, na, nb;
    CHECK_OK(c, write_set(c, tmp_a, s));
    for (i = 0; i < s->n; i++)
        for (j = 0; j < s->event[i].n_hits; j++) {
            size_t k = (size_t)test_int(&r, 0, (int)s->event[i].n_hits - 1);
            calomu_hit hit = s->hits[i][j];
            s->hits[i][j] = s->hits[i][k];
            s->hits[i][k] = hit;
        }
    CHECK_OK(c, write_set(c, tmp_b, s));
    a = slurp(tmp_a, &na);
    b = slurp(tmp_b, &nb);
    CHECK(a && b && na == nb && !memcmp(a, b, na), "the order of hits shows in the file");
    free(a);
    free(b);
    set_free(s);
}

/* Bytes per hit on energies like those of a full simulation: 10% of the cells. */
static void test_size(calomu *c)
{
    int kind;
    for (kind = 0; kind < 2; kind++) {
        set *s = random_set(0, 1, 1);
        test_random r = test_seed(9);
        size_t size = 0;
        uint32_t cell;
        calomu_hit *hits = malloc(51200 * sizeof *hits);
        if (!hits) exit(1);
        s->event[0].n_hits = 0;
        for (cell = 0; cell < 51200; cell++) {
            if (test_int(&r, 0, 9)) continue;
            hits[s->event[0].n_hits].cell = cell;
            hits[s->event[0].n_hits++].energy = random_energy(&r, kind);
        }
        s->event[0].hits = hits;
        CHECK_OK(c, write_set(c, tmp_a, s));
        free(slurp(tmp_a, &size));
        CHECK((double)size < (kind ? 4.2 : 5.3) * (double)s->event[0].n_hits, "%.3f bytes per hit",
              (double)size / (double)s->event[0].n_hits);
        free(hits);
        set_free(s);
    }
}

/* One file, several threads, each with its own context. */
static void test_threads(calomu *c)
{
    set *s = random_set(8, 40, 900);
    calomu_data *d = NULL;
    int k, bad = 0;
    CHECK_OK(c, write_set(c, tmp_a, s));
    CHECK_OK(c, calomu_data_open(c, tmp_a, &d));
#ifdef _OPENMP
#pragma omp parallel for num_threads(4) reduction(+ : bad)
#endif
    for (k = 0; k < 8; k++) {
        calomu *own = NULL;
        calomu_events e = { 0 };
        uint64_t i;
        if (calomu_open(&own, NULL)) {
            bad++;
            continue;
        }
        for (i = 0; i < 400; i++) {
            uint64_t n = (i * 7 + (uint64_t)k) % 40;
            bad += calomu_data_read(own, d, n, NULL, 1, &e) || !same_event(e.event, s->event + n);
        }
        calomu_events_free(&e);
        calomu_close(own);
    }
    CHECK(bad == 0, "%d of 3200 reads in threads were wrong", bad);
    calomu_data_close(d);
    set_free(s);
}

static void test_memory_sets(calomu *c)
{
    set *s = random_set(5, 6, 60);
    calomu_data *d = NULL;
    calomu_events e = { 0 };
    calomu_hit bad[2] = { { 5, 1 }, { 5, 1 } };
    calomu_event was;
    size_t i;
    CHECK_OK(c, calomu_data_from_memory(c, &s->info, s->event, s->n, &d));
    CHECK_OK(c, calomu_data_read(c, d, 1, NULL, 5, &e));
    for (i = 0; i < e.n; i++) CHECK(same_event(e.event + i, s->event + i + 1), "event %d", (int)i);
    CHECK_FAILS(c, calomu_data_read(c, d, 2, NULL, 5, &e), CALOMU_EUSAGE);
    calomu_events_free(&e);
    calomu_data_close(d);
    CHECK_OK(c, calomu_data_from_memory(c, &s->info, NULL, 0, &d));
    calomu_data_close(d);
    d = NULL;
    was = s->event[3];
    s->event[3].hits = bad;
    s->event[3].n_hits = 2;
    CHECK_FAILS(c, calomu_data_from_memory(c, &s->info, s->event, s->n, &d), CALOMU_EFORMAT);
    CHECK(says(c, "event 3"), "names the event");
    s->event[3] = was;
    s->event[4].losses = NULL;
    CHECK_FAILS(c, calomu_data_from_memory(c, &s->info, s->event, s->n, &d), CALOMU_EFORMAT);
    CHECK(says(c, "event 4: lacks its losses"), "losses");
    s->event[2].features = NULL;
    CHECK_FAILS(c, calomu_data_from_memory(c, &s->info, s->event, s->n, &d), CALOMU_EFORMAT);
    CHECK(says(c, "event 2: lacks its features"), "features");
    CHECK(d == NULL, "nothing is made on failure");
    calomu_data_close(NULL);
    set_free(s);
}

/* ---- .cmu: what the writer refuses */

/* Adds event 0 of a good set, then the event; both the add and the close must fail, and leave what
   was there before. */
static void refuse(calomu *c, const set *s, const calomu_event *e, const char *words)
{
    calomu_writer *w = NULL;
    calomu_status close;
    unsigned char *p;
    size_t n;
    spill(tmp_a, "old", 3);
    if (!CHECK_OK(c, calomu_writer_open(c, tmp_a, &s->info, &w))) return;
    CHECK_OK(c, calomu_writer_add(w, s->event));
    CHECK_FAILS(c, calomu_writer_add(w, e), CALOMU_EFORMAT);
    CHECK(says(c, "event 1") && says(c, words), "%s", words);
    CHECK_FAILS(c, calomu_writer_add(w, s->event), CALOMU_EFORMAT);
    close = calomu_writer_close(w);
    CHECK(close == CALOMU_EFORMAT && says(c, words), "close repeats the failure: %d", (int)close);
    p = slurp(tmp_a, &n);
    CHECK(n == 3 && p && !memcmp(p, "old", 3), "the old file is still there");
    free(p);
    CHECK(leftovers(test.tmp, 0) == 0, "no temporary file is left");
}

static void test_refusals(calomu *c)
{
    set *s = random_set(8, 2, 50);   /* no features */
    calomu_hit hits[3] = { { 10, 1 }, { 51199, 0 }, { 3, 2 } };
    const calomu_event good = { hits, 3, 0.5f, -1.5f, 100, -1, NULL, NULL };
    calomu_event e = good;
    calomu_hit *many;
    float f[CALOMU_FEATURES] = { 0 }, losses[CALOMU_LOSSES] = { 0 };
    int i;
    hits[1].cell = 51200; refuse(c, s, &e, "51200"); hits[1].cell = 51199;
    hits[2].cell = 10; refuse(c, s, &e, "iz 0, ix 0, iy 10) comes twice"); hits[2].cell = 3;
    hits[2].cell = 51199; refuse(c, s, &e, "iz 49, ix 31, iy 31) comes twice"); hits[2].cell = 3;
    hits[0].energy = -1e-30f; refuse(c, s, &e, "energy");
    hits[0].energy = (float)INFINITY; refuse(c, s, &e, "energy");
    hits[0].energy = (float)NAN; refuse(c, s, &e, "energy"); hits[0].energy = 1;
    e.energy = 0; refuse(c, s, &e, "true energy");
    e.energy = -5; refuse(c, s, &e, "true energy");
    e.energy = (float)INFINITY; refuse(c, s, &e, "true energy"); e = good;
    e.charge = 0; refuse(c, s, &e, "charge");
    e.charge = 2; refuse(c, s, &e, "charge"); e = good;
    e.x = 60; refuse(c, s, &e, "outside");
    e.x = -60.01f; refuse(c, s, &e, "outside");
    e.x = (float)INFINITY; refuse(c, s, &e, "outside");
    e.x = CALOMU_ABSENT; refuse(c, s, &e, "x is not"); e = good;
    e.y = -1e30f; refuse(c, s, &e, "outside");
    e.y = CALOMU_ABSENT; refuse(c, s, &e, "y is not"); e = good;
    e.features = f; refuse(c, s, &e, "features"); e = good;
    e.losses = losses; refuse(c, s, &e, "has losses in a set without"); e = good;
    many = calloc(51201, sizeof *many);
    e.hits = many;
    e.n_hits = 51201;
    refuse(c, s, &e, "51200 cells");
    free(many);
    e = good;
    s->info.features = CALOMU_FEATURES_RAW;
    s->event[0].features = f;
    refuse(c, s, &e, "lacks its features");
    e.features = s->features[0];
    s->features[0][27] = (float)NAN; refuse(c, s, &e, "feature 27");
    set_free(s);
    s = random_set(4, 2, 50);        /* losses, no features */
    s->info.geometry = calomu_geometry_default();
    s->event[0] = e = good;
    s->event[0].losses = losses;
    refuse(c, s, &e, "lacks its losses");
    e.losses = s->losses[1];
    s->losses[1][0] = (float)INFINITY; refuse(c, s, &e, "loss 0"); s->losses[1][0] = 1;
    s->losses[1][3] = -(float)INFINITY; refuse(c, s, &e, "loss 3");
    set_free(s);
    for (i = 0; i < 9; i++) {        /* bad descriptions */
        calomu_writer *w = NULL;
        s = random_set(2, 1, 1);
        s->info.geometry = calomu_geometry_default();
        if (i == 0) s->info.geometry.nx = 0;
        if (i == 1) s->info.geometry.pitch[2] = (double)NAN;
        if (i == 2) s->info.features = (calomu_feature_state)4;
        if (i == 3) s->info.feature_options.convention = (calomu_convention)2;
        if (i == 4) s->info.feature_options.grow = -1;
        if (i == 5) s->info.mean[3] = (double)NAN;
        if (i == 6) s->info.deviation[3] = 0;
        if (i == 7) s->info.losses = 2;
        if (i == 8) s->info.losses = -1;
        CHECK_FAILS(c, calomu_writer_open(c, tmp_a, &s->info, &w), CALOMU_EUSAGE);
        CHECK(!w, "no writer on failure");
        set_free(s);
    }
}

/* ---- .cmu: damage */

/* Every truncation and every flipped bit of a small file is noticed. */
static void test_damage(calomu *c, uint64_t seed)
{
    set *s = random_set(seed, 5, 12);
    unsigned char *a, *part;
    size_t n, i;
    int missed = 0;
    FILE *f;
    CHECK_OK(c, write_set(c, tmp_a, s));
    a = slurp(tmp_a, &n);
    CHECK(n > HEADER + TRAILER + 5 * FIXED, "%d bytes", (int)n);
    for (i = 0; i < n; i++) {
        spill(tmp_b, a, i);
        missed += read_all(c, tmp_b) != CALOMU_EFORMAT || !*calomu_message(c);
    }
    CHECK(missed == 0, "%d truncations went unseen or gave another status", missed);
    part = malloc(n + 1);
    if (!part) exit(1);
    memcpy(part, a, n);
    part[n] = 0;
    spill(tmp_b, part, n + 1);
    CHECK_FAILS(c, read_all(c, tmp_b), CALOMU_EFORMAT);
    free(part);
    spill(tmp_b, a, n);
    CHECK_OK(c, read_all(c, tmp_b));
    f = fopen(tmp_b, "r+b");
    missed = 0;
    for (i = 0; f && i < 8 * n; i++) {
        int byte = a[i / 8] ^ 1 << i % 8;
        if (fseek(f, (long)(i / 8), SEEK_SET) || putc(byte, f) == EOF || fflush(f)) exit(1);
        missed += read_all(c, tmp_b) != CALOMU_EFORMAT;
        if (fseek(f, (long)(i / 8), SEEK_SET) || putc(a[i / 8], f) == EOF || fflush(f)) exit(1);
    }
    CHECK(f && missed == 0, "%d flipped bits went unseen", missed);
    if (f) fclose(f);
    CHECK_OK(c, read_all(c, tmp_b));
    free(a);
    set_free(s);
}

static void put_number(unsigned char *p, uint64_t v, int bytes)
{
    int i;
    for (i = 0; i < bytes; i++) p[i] = (unsigned char)(v >> 8 * i);
}

/* Makes the checksums right again, as a forger would.  offsets: of the n events and the index,
   from the undamaged file. */
static void repair(unsigned char *f, size_t size, const uint64_t *offset, size_t n)
{
    unsigned char *t = f + size - TRAILER;
    uint64_t h = cm_checksum(0, f, 560);
    size_t i;
    put_number(f + 560, h, 8);
    for (i = 0; i < n; i++) {
        size_t length = (size_t)(offset[i + 1] - offset[i]);
        put_number(f + offset[i + 1] - 8, cm_checksum(h + i, f + offset[i], length - 8), 8);
    }
    put_number(t + 32, cm_checksum(h, f + offset[n], 8 * n), 8);
    put_number(t + 40, cm_checksum(h, t, 40), 8);
}

/* Damage behind right checksums: each field at extremes, and random bytes.  Nothing may crash, and
   what is accepted must obey the rules. */
static void test_hostile(calomu *c, uint64_t seed)
{
    set *s = random_set(seed, 4, 40);
    uint64_t offset[8], extreme[] = { 0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000u, UINT32_MAX,
                                      UINT64_MAX, (uint64_t)1 << 63, 0x7F800000 };
    test_random r = test_seed(77);
    unsigned char *a, *b;
    size_t n, i, round, refused = 0, wrong = 0;
    CHECK_OK(c, write_set(c, tmp_a, s));
    a = slurp(tmp_a, &n);
    b = malloc(n + 8);
    if (!a || !b) exit(1);
    for (i = 0; i <= s->n; i++)
        offset[i] = i < s->n ? number_at(a + n - TRAILER - 8 * (s->n - i), 8)
                             : n - TRAILER - 8 * s->n;
    for (round = 0; round < 6000; round++) {
        calomu_data *d = NULL;
        calomu_events e = { 0 };
        calomu_status status;
        int k, hits = test_int(&r, 1, 3);
        memcpy(b, a, n);
        for (k = 0; k < hits; k++) {
            size_t at = (size_t)(test_bits(&r) % n);
            if (round % 3 == 1)      /* the fields of sizes */
                at = (size_t)offset[test_int(&r, 0, 3)]
                    + (size_t)(test_int(&r, 0, 1) ? test_int(&r, 0, 8) : test_int(&r, 130, 180));
            if (round % 3 == 2) at = n - TRAILER - 32 + (size_t)test_int(&r, 0, 70);
            put_number(b + at, test_int(&r, 0, 1) ? extreme[test_int(&r, 0, 10)] : test_bits(&r),
                       1 << test_int(&r, 0, 3));
        }
        repair(b, n, offset, s->n);
        spill(tmp_b, b, n);
        status = calomu_data_open(c, tmp_b, &d);
        for (i = 0; !status && i < calomu_data_describe(d)->n_events; i++) {
            const calomu_geometry *g = &calomu_data_describe(d)->geometry;
            size_t j;
            status = calomu_data_read(c, d, i, NULL, 1, &e);
            for (j = 0; !status && e.event->losses && j < CALOMU_LOSSES; j++)
                wrong += !isnan(e.event->losses[j]) && !isfinite(e.event->losses[j]);
            for (j = 0; !status && j < e.event->n_hits; j++) {
                const calomu_hit *hit = e.event->hits + j;
                wrong += !(hit->energy >= 0 && hit->energy <= 3.4e38f)
                    || hit->cell >= (uint32_t)(g->nz * g->nx * g->ny)
                    || (j && hit->cell <= hit[-1].cell);
            }
        }
        refused += status != CALOMU_OK;
        wrong += status != CALOMU_OK && status != CALOMU_EFORMAT;
        calomu_events_free(&e);
        calomu_data_close(d);
    }
    CHECK(wrong == 0, "%d forged files gave impossible events or another status", (int)wrong);
    CHECK(refused > 3000 && refused < 6000, "%d of 6000 forged files refused", (int)refused);
    free(a);
    free(b);
    set_free(s);
}

/* A file of events given as bytes (without their checksums), with right checksums everywhere; then
   what `change` asks for is wrong.  Read it: the status. */
typedef struct forged { unsigned char byte[64]; int n; } forged;

enum { NOTHING, LENGTH, FIRST, ORDER, SHORT, COUNT, INDEX, BEYOND, SUM, HITS };

static calomu_status forge(calomu *c, const forged *event, size_t n, int change)
{
    set *s = random_set(0, 0, 0);
    unsigned char f[2000], *header, *t;
    uint64_t offset[4], h, hits = 0;
    size_t size = HEADER, header_size, i;
    CHECK_OK(c, write_set(c, tmp_b, s));
    header = slurp(tmp_b, &header_size);
    if (!header || header_size != HEADER + TRAILER) exit(1);
    memcpy(f, header, HEADER);
    h = number_at(f + 560, 8);
    if (change == FIRST) f[size++] = 0;
    for (i = 0; i < n; i++) {
        unsigned char *p = f + size;
        size_t length = (size_t)event[i].n + 8;
        offset[i] = size;
        memcpy(p, event[i].byte, length - 8);
        put_number(p, length + (change == LENGTH), 4);
        put_number(p + length - 8, cm_checksum(h + i, p, length - 8), 8);
        hits += number_at(p + 4, 4);
        size += length;
    }
    offset[n] = size;
    if (change == ORDER) offset[1] = UINT64_MAX - 7;
    if (change == SHORT) offset[1] = HEADER + 1;
    for (i = 0; i < n; i++, size += 8) put_number(f + size, offset[i], 8);
    if (change == INDEX) f[size++] = 0;
    t = f + size;
    memcpy(t, "CMU-end\n", 8);
    put_number(t + 8, change == BEYOND ? UINT64_MAX / 8 : n + (change == COUNT), 8);
    put_number(t + 16, change == HITS ? 1000 : hits, 8);
    put_number(t + 24, change == BEYOND ? size + 8 : offset[n], 8);
    put_number(t + 32, cm_checksum(h, f + offset[n], 8 * n) ^ (change == SUM), 8);
    put_number(t + 40, cm_checksum(h, t, 40), 8);
    spill(tmp_b, f, size + TRAILER);
    free(header);
    set_free(s);
    return read_all(c, tmp_b);
}

/* One event of n hits: base, shift, width, then g bytes of gaps and k bytes of codes. */
static forged pack(uint32_t n, uint32_t base, int shift, int width, const char *gaps, int g,
                   const char *codes, int k)
{
    forged f;
    int i;
    memset(&f, 0, sizeof f);
    put_number(f.byte + 4, n, 4);
    for (i = 8; i < FIXED; i += 4) put_number(f.byte + i, 0x7FC00000u, 4);
    put_number(f.byte + 24, base, 4);
    f.byte[28] = (unsigned char)shift;
    f.byte[29] = (unsigned char)width;
    put_number(f.byte + 32, (uint64_t)g, 4);
    memcpy(f.byte + 36, gaps, (size_t)g);
    memcpy(f.byte + 36 + g, codes, (size_t)k);
    f.n = 36 + g + k;
    return f;
}

#define FORGED(event, status) \
    do { \
        forged one_ = event; \
        CHECK_FAILS(c, forge(c, &one_, 1, NOTHING), status); \
    } while (0)

static void test_forged(calomu *c)
{
    const calomu_status good = CALOMU_OK, bad = CALOMU_EFORMAT;
    forged two[2], f;
    int change;
    two[0] = two[1] = pack(2, 0x3F000000, 0, 1, "\5\0", 2, "\2", 1);
    CHECK_OK(c, forge(c, two, 2, NOTHING));
    for (change = LENGTH; change <= HITS; change++)
        CHECK(forge(c, two, 2, change) == bad && *calomu_message(c), "change %d: %s", change,
              calomu_message(c));
    FORGED(pack(1, 0, 0, 0, "\xFF\x8F\x03", 3, "", 0), good);          /* cell 51199 */
    FORGED(pack(1, 0, 0, 0, "\x80\x90\x03", 3, "", 0), bad);           /* cell 51200 */
    FORGED(pack(1, 0, 0, 0, "\x85\x00", 2, "", 0), bad);               /* not the shortest form */
    FORGED(pack(1, 0, 0, 0, "\x81\x80\x80\x80\x10", 5, "", 0), bad);   /* 1 + 2^32 */
    FORGED(pack(1, 0, 0, 0, "\x81\x80\x80\x80\x80\x80\x80", 7, "", 0), bad);
    FORGED(pack(1, 0, 0, 0, "\5\0", 2, "", 0), bad);                   /* a gap too many */
    FORGED(pack(2, 0, 0, 0, "\5", 1, "", 0), bad);                     /* too few */
    FORGED(pack(1, 0, 0, 0, "\x85", 1, "", 0), bad);                   /* the last one cut */
    FORGED(pack(1, 0x7F7FFFFF, 0, 0, "\5", 1, "", 0), good);           /* largest energy */
    FORGED(pack(1, 0x7F800000, 0, 0, "\5", 1, "", 0), bad);            /* infinite */
    FORGED(pack(1, 0x7FC00000, 0, 0, "\5", 1, "", 0), bad);            /* NaN */
    FORGED(pack(1, 0x80000000, 0, 0, "\5", 1, "", 0), bad);            /* -0 */
    FORGED(pack(1, 0x7F000000, 0, 32, "\5", 1, "\0\0\0\xFF", 4), bad); /* the sum wraps around */
    FORGED(pack(1, 0x7F000000, 24, 8, "\5", 1, "\xFF", 1), bad);
    FORGED(pack(1, 0, 0, 32, "\5", 1, "\0\0\0\1", 4), good);
    FORGED(pack(1, 0, 1, 32, "\5", 1, "\0\0\0\1", 4), bad);
    FORGED(pack(1, 0, 0, 33, "\5", 1, "\0\0\0\1\0", 5), bad);
    FORGED(pack(1, 0, 32, 0, "\5", 1, "", 0), bad);
    FORGED(pack(1, 0, 255, 1, "\5", 1, "\1", 1), bad);
    FORGED(pack(2, 0, 0, 5, "\5\0", 2, "\1\1", 2), good);
    FORGED(pack(2, 0, 0, 5, "\5\0", 2, "\1", 1), bad);                 /* a byte of codes missing */
    FORGED(pack(2, 0, 0, 5, "\5\0", 2, "\1\1\0", 3), bad);             /* or too many */
    FORGED(pack(0, 0, 0, 0, "", 0, "", 0), bad);                       /* packed hits, but none */
    FORGED(pack(51201, 0, 0, 0, "\5\0", 2, "", 0), bad);
    FORGED(pack(UINT32_MAX, 0, 0, 1, "\5\0", 2, "\1", 1), bad);
    f = two[0];
    put_number(f.byte + 32, UINT32_MAX, 4); FORGED(f, bad);            /* bytes of gaps */
    f = two[0]; f.byte[31] = 1; FORGED(f, bad);                        /* must be 0 */
    f = two[0]; put_number(f.byte + 8, float_bits(-5), 4); FORGED(f, bad);
    f = two[0]; put_number(f.byte + 12, float_bits(5), 4); FORGED(f, bad);     /* x without y */
    put_number(f.byte + 16, float_bits(5), 4); FORGED(f, good);
    put_number(f.byte + 16, float_bits(60), 4); FORGED(f, bad);
    f = two[0]; put_number(f.byte + 20, float_bits(0), 4); FORGED(f, bad);
    f = two[0]; f.n = 30; FORGED(f, bad);
}

/* What is unknown is written in one way, whichever NaN it was: equal events give equal bytes. */
static void test_unknown(calomu *c)
{
    set *s = random_set(4, 1, 30);   /* losses, no features */
    unsigned char *a;
    size_t n, k;
    CHECK(s->info.losses && !s->info.features, "the set");
    s->event[0].energy = s->event[0].charge = bits_float(0x7FC12345);
    s->event[0].x = s->event[0].y = bits_float(0xFFC00000);
    for (k = 0; k < CALOMU_LOSSES; k++)
        s->losses[0][k] = bits_float(k % 2 ? 0x7FC12345 : 0xFFC00000);
    CHECK_OK(c, write_set(c, tmp_a, s));
    a = slurp(tmp_a, &n);
    if (!a || n < HEADER + 40) exit(1);
    for (k = 8; k < 40; k += 4)
        CHECK(number_at(a + HEADER + k, 4) == 0x7FC00000, "byte %d of the event", (int)k);
    free(a);
    set_free(s);
}

/* The file tmp_a with byte `at` changed, behind right checksums, as tmp_b. */
static calomu_status forge_losses(calomu *c, size_t at, uint64_t value, int bytes)
{
    uint64_t offset[3];
    size_t n, i;
    unsigned char *a = slurp(tmp_a, &n);
    if (!a) exit(1);
    for (i = 0; i < 3; i++)
        offset[i] = i < 2 ? number_at(a + n - TRAILER - 8 * (2 - i), 8) : n - TRAILER - 16;
    put_number(a + at, value, bytes);
    repair(a, n, offset, 2);
    spill(tmp_b, a, n);
    free(a);
    return read_all(c, tmp_b);
}

/* Losses in forged files, and next to files without: a batch that is used again keeps nothing. */
static void test_losses(calomu *c)
{
    set *with = random_set(4, 2, 30), *without = random_set(0, 2, 30);
    const size_t at = HEADER + FIXED;
    calomu_data *d = NULL, *old = NULL;
    calomu_events e = { 0 };
    CHECK_OK(c, write_set(c, tmp_a, with));
    CHECK_OK(c, write_set(c, tmp_b, without));
    CHECK_OK(c, calomu_data_open(c, tmp_a, &d));
    CHECK_OK(c, calomu_data_open(c, tmp_b, &old));
    CHECK_OK(c, calomu_data_read(c, d, 0, NULL, 2, &e));
    CHECK(same_event(e.event, with->event) && same_event(e.event + 1, with->event + 1), "new");
    CHECK_OK(c, calomu_data_read(c, old, 0, NULL, 2, &e));
    CHECK(same_event(e.event, without->event) && !e.event->losses, "old after new");
    CHECK_OK(c, calomu_data_read(c, d, 1, NULL, 1, &e));
    CHECK(same_event(e.event, with->event + 1), "new after old");
    calomu_events_free(&e);
    calomu_data_close(d);
    calomu_data_close(old);
    CHECK_OK(c, forge_losses(c, at, float_bits(-5), 4));         /* other codes may count so */
    CHECK_OK(c, forge_losses(c, at + 12, 0xFFFFFFFF, 4));        /* any NaN is unknown */
    CHECK_FAILS(c, forge_losses(c, at, 0x7F800000, 4), CALOMU_EFORMAT);
    CHECK(says(c, tmp_b) && says(c, "event 0: loss 0"), "infinite");
    CHECK_FAILS(c, forge_losses(c, at + 12, 0xFF800000, 4), CALOMU_EFORMAT);
    CHECK(says(c, "loss 3"), "infinite");
    CHECK_FAILS(c, forge_losses(c, 44, 0, 4), CALOMU_EFORMAT);   /* losses are taken for hits */
    CHECK_FAILS(c, forge_losses(c, 44, 2, 4), CALOMU_EFORMAT);
    CHECK(says(c, "contents") && says(c, "newer"), "contents of a version to come");
    CHECK_FAILS(c, forge_losses(c, 44, 0x01000001, 4), CALOMU_EFORMAT);
    CHECK_OK(c, write_set(c, tmp_a, without));
    CHECK_FAILS(c, forge_losses(c, 44, 1, 4), CALOMU_EFORMAT);   /* hits are taken for losses */
    set_free(with);
    set_free(without);
}

/* Named faults, each with its own message. */
static void test_faults(calomu *c)
{
    set *s = random_set(0, 3, 20);
    unsigned char *a;
    size_t n;
    calomu_file_kind kind;
    CHECK_OK(c, write_set(c, tmp_a, s));
    CHECK_OK(c, calomu_file_identify(c, tmp_a, &kind));
    CHECK(kind == CALOMU_FILE_DATA, "%d", (int)kind);
    a = slurp(tmp_a, &n);
    if (!a) exit(1);
    a[1] = 'X'; spill(tmp_b, a, n); a[1] = 'C';
    CHECK_FAILS(c, read_all(c, tmp_b), CALOMU_EFORMAT);
    CHECK(says(c, "not a .cmu") && says(c, tmp_b), "magic");
    CHECK_FAILS(c, calomu_file_identify(c, tmp_b, &kind), CALOMU_EFORMAT);
    a[8] = 1; a[9] = 2; a[10] = 3; a[11] = 4; spill(tmp_b, a, n);
    CHECK_FAILS(c, read_all(c, tmp_b), CALOMU_EFORMAT);
    CHECK(says(c, "byte order"), "mark");
    a[8] = 4; a[9] = 3; a[10] = 2; a[11] = 1; a[12] = 2; spill(tmp_b, a, n); a[12] = 1;
    CHECK_FAILS(c, read_all(c, tmp_b), CALOMU_EFORMAT);
    CHECK(says(c, "version 2") && says(c, "newer"), "version");
    spill(tmp_b, a, n - 1);
    CHECK_FAILS(c, read_all(c, tmp_b), CALOMU_EFORMAT);
    CHECK(says(c, "cut off"), "truncated");
    a[HEADER + 9] ^= 1; spill(tmp_b, a, n); a[HEADER + 9] ^= 1;
    CHECK_FAILS(c, read_all(c, tmp_b), CALOMU_EFORMAT);
    CHECK(says(c, "event 0") && says(c, "byte 568"), "damaged event");
    spill(tmp_b, "\x89HDF\r\n\x1a\n12345678", 16);
    CHECK_FAILS(c, read_all(c, tmp_b), CALOMU_EFORMAT);
    CHECK(says(c, "calomu-import-h5"), "HDF5");
    CHECK_FAILS(c, calomu_file_identify(c, tmp_b, &kind), CALOMU_EFORMAT);
    CHECK(says(c, "calomu-import-h5"), "HDF5");
    spill(tmp_b, a, 0);
    CHECK_FAILS(c, read_all(c, tmp_b), CALOMU_EFORMAT);
    CHECK_FAILS(c, calomu_file_identify(c, tmp_b, &kind), CALOMU_EFORMAT);
    free(a);
    set_free(s);
}

/* ---- things that are no regular file, or not there */

static void test_kinds(calomu *c)
{
    calomu_file_kind kind;
    calomu_data *d = NULL;
    cm_st st;
    const char *bad[3];
    char missing[1300];
    int i;
    (void)snprintf(missing, sizeof missing, "%s/no/such/file", test.tmp);
    (void)unlink(tmp_b);
    if (mkfifo(tmp_b, 0600) != 0) {
        SKIP("no FIFO can be made here");
        return;
    }
    bad[0] = test.tmp;
    bad[1] = tmp_b;
    bad[2] = "/dev/null";
    for (i = 0; i < 3; i++) {
        CHECK_FAILS(c, calomu_data_open(c, bad[i], &d), CALOMU_EFORMAT);
        CHECK(says(c, "regular file") && says(c, bad[i]), "%s", bad[i]);
        CHECK_FAILS(c, cm_st_read(c, bad[i], &st), CALOMU_EFORMAT);
        CHECK_FAILS(c, calomu_file_identify(c, bad[i], &kind), CALOMU_EFORMAT);
    }
    CHECK_FAILS(c, calomu_data_open(c, missing, &d), CALOMU_EIO);
    CHECK(says(c, missing), "names the file");
    CHECK_FAILS(c, cm_st_read(c, missing, &st), CALOMU_EIO);
    CHECK_FAILS(c, calomu_file_identify(c, missing, &kind), CALOMU_EIO);
    CHECK(!d, "nothing is made on failure");
    (void)unlink(tmp_b);
}

/* ---- output */

static calomu_status write_text(calomu *c, const char *path, const char *text)
{
    calomu_output *o = NULL;
    calomu_status s = calomu_output_open(c, path, &o);
    if (s) return s;
    s = calomu_output_write(o, text, strlen(text));
    if (s) {
        calomu_output_abandon(o);
        return s;
    }
    return calomu_output_close(o);
}

static int holds(const char *path, const char *text)
{
    size_t n;
    unsigned char *p = slurp(path, &n);
    int same = p && n == strlen(text) && !memcmp(p, text, n);
    free(p);
    return same;
}

static void test_output(calomu *c)
{
    calomu_output *o = NULL;
    struct stat st;
    char big[1000], link[1300];
    mode_t mask = umask(027);
    size_t n, i;
    int bad = 0;
    (void)unlink(tmp_a);
    CHECK_OK(c, write_text(c, tmp_a, "one\n"));
    CHECK(holds(tmp_a, "one\n") && stat(tmp_a, &st) == 0 && (st.st_mode & 0777) == 0640,
          "text, and permissions as the mask says");
    (void)umask(mask);
    CHECK(chmod(tmp_a, 0600) == 0, "chmod");
    CHECK_OK(c, calomu_output_open(c, tmp_a, &o));
    CHECK_OK(c, calomu_output_write(o, "two", 3));
    CHECK(holds(tmp_a, "one\n"), "the old file is there until the new one is complete");
    calomu_output_abandon(o);
    calomu_output_abandon(NULL);
    CHECK(holds(tmp_a, "one\n") && leftovers(test.tmp, 0) == 0, "abandoned without a trace");
    CHECK_OK(c, write_text(c, tmp_a, "three"));
    CHECK(holds(tmp_a, "three") && stat(tmp_a, &st) == 0 && (st.st_mode & 0777) == 0600,
          "replaced, with the permissions it had");
    /* more than the buffer, in pieces of all sizes */
    memset(big, 'x', sizeof big);
    CHECK_OK(c, calomu_output_open(c, tmp_a, &o));
    for (i = n = 0; i < 1000; n += i++) bad += calomu_output_write(o, big, i) != CALOMU_OK;
    CHECK_OK(c, calomu_output_close(o));
    CHECK(bad == 0 && stat(tmp_a, &st) == 0 && (size_t)st.st_size == n, "%d of %d bytes",
          (int)st.st_size, (int)n);
    /* through links: the link stays */
    (void)snprintf(link, sizeof link, "%s/link", test.tmp);
    (void)unlink(link);
    CHECK(symlink(strrchr(tmp_a, '/') + 1, link) == 0, "symlink");
    CHECK_OK(c, write_text(c, link, "four"));
    CHECK(holds(tmp_a, "four") && lstat(link, &st) == 0 && S_ISLNK(st.st_mode), "link");
    (void)unlink(link);
    CHECK(symlink("link", link) == 0, "symlink");
    CHECK_FAILS(c, write_text(c, link, "five"), CALOMU_EIO);
    (void)unlink(link);
}

static void test_output_failures(calomu *c)
{
    char path[1300], left[1400];
    calomu_output *o = NULL;
    struct stat st;
    struct rlimit was, limit;
    size_t i;
    calomu_status s;
    int root;
    (void)snprintf(path, sizeof path, "%s/no/such", test.tmp);
    CHECK_FAILS(c, write_text(c, path, "x"), CALOMU_EIO);
    CHECK(says(c, path), "names the file");
    CHECK_FAILS(c, write_text(c, "", "x"), CALOMU_EUSAGE);
    CHECK_FAILS(c, write_text(c, test.tmp, "x"), CALOMU_EIO);
    (void)snprintf(path, sizeof path, "%s/nothing/", test.tmp);
    CHECK_FAILS(c, write_text(c, path, "x"), CALOMU_EIO);
    if (full_device()) {
        set *much = random_set(0, 30, 3000);
        CHECK_FAILS(c, write_text(c, full_device(), "x"), CALOMU_EIO);
        CHECK_FAILS(c, write_set(c, full_device(), much), CALOMU_EIO);
        CHECK(says(c, full_device()) && says(c, ": cannot write: "), "names file and reason");
        CHECK(stat("/dev/full", &st) == 0 && S_ISCHR(st.st_mode), "/dev/full is still a device");
        set_free(much);
    } else {
        SKIP("there is no /dev/full here");
    }
    (void)snprintf(path, sizeof path, "%s/locked", test.tmp);
    (void)mkdir(path, 0555);
    (void)snprintf(left, sizeof left, "%s/file", path);
    root = geteuid() == 0 && seteuid(65534) == 0;    /* nothing stops root: be nobody for this */
    CHECK_FAILS(c, write_text(c, left, "x"), CALOMU_EIO);
    CHECK(!root || seteuid(0) == 0, "root again");
    CHECK(rmdir(path) == 0, "the folder is empty");
    /* what killed runs left under the names that we would take is neither used nor lost */
    for (i = 0; i < 3; i++) {
        (void)snprintf(left, sizeof left, "%s/.a.cmu.%ld.%d.tmp", test.tmp, (long)getpid(), (int)i);
        spill(left, "left", 4);
    }
    CHECK_OK(c, write_text(c, tmp_a, "new"));
    CHECK(holds(tmp_a, "new") && leftovers(test.tmp, 0) == 3, "leftovers disturb nobody");
    for (i = 0; i < 3; i++) {
        (void)snprintf(left, sizeof left, "%s/.a.cmu.%ld.%d.tmp", test.tmp, (long)getpid(), (int)i);
        CHECK(holds(left, "left"), "leftover %d is untouched", (int)i);
        (void)unlink(left);
    }
    /* a file system that takes only 100,000 bytes */
    (void)signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_FSIZE, &was) != 0) return;
    limit = was;
    limit.rlim_cur = 100000;
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return;
    s = calomu_output_open(c, tmp_a, &o);
    for (i = 0; !s && i < 50000; i++) s = calomu_output_write(o, "12345678", 8);
    CHECK(s == CALOMU_EIO, "a full disk is noticed: %d", (int)s);
    CHECK_FAILS(c, calomu_output_write(o, "x", 1), CALOMU_EIO);
    CHECK_FAILS(c, calomu_output_close(o), CALOMU_EIO);
    CHECK(says(c, "cannot write"), "the close repeats it");
    (void)setrlimit(RLIMIT_FSIZE, &was);
    CHECK(holds(tmp_a, "new") && leftovers(test.tmp, 0) == 0, "the old file stays");
}

/* Pipes: /dev/fd/N and a FIFO are written directly, without seeking, and stay what they are. */
static void test_pipes(calomu *c)
{
    set *s = random_set(3, 8, 100);
    unsigned char *a, *b = malloc(1 << 16);
    char path[64];
    struct stat st;
    size_t n;
    ssize_t got;
    int ends[2], fd;
    CHECK_OK(c, write_set(c, tmp_a, s));
    a = slurp(tmp_a, &n);
    CHECK(n < 60000, "fits into a pipe: %d", (int)n);
    if (!a || !b || pipe(ends) != 0) exit(1);
    (void)snprintf(path, sizeof path, "/dev/fd/%d", ends[1]);
    CHECK_OK(c, write_set(c, path, s));
    got = read(ends[0], b, 1 << 16);
    CHECK(got == (ssize_t)n && !memcmp(a, b, n), "through a pipe: %d bytes", (int)got);
    (void)close(ends[0]);
    (void)close(ends[1]);
    CHECK_FAILS(c, write_set(c, path, s), CALOMU_EIO);   /* closed */
    (void)unlink(tmp_b);
    if (mkfifo(tmp_b, 0600) == 0 && (fd = open(tmp_b, O_RDWR | O_NONBLOCK)) >= 0) {
        CHECK_OK(c, write_set(c, tmp_b, s));
        got = read(fd, b, 1 << 16);
        CHECK(got == (ssize_t)n && !memcmp(a, b, n), "through a FIFO: %d bytes", (int)got);
        CHECK(stat(tmp_b, &st) == 0 && S_ISFIFO(st.st_mode), "a FIFO stays a FIFO");
        (void)close(fd);
    } else {
        SKIP("no FIFO can be made here");
    }
    (void)unlink(tmp_b);
    free(a);
    free(b);
    set_free(s);
}

/* ---- safetensors */

static void add_tensor(cm_st *st, const char *name, cm_dtype dtype, int rank, uint32_t n0,
                       uint32_t n1, const void *data)
{
    cm_st_tensor *t = st->tensor + st->n_tensors++;
    int i;
    memset(t, 0, sizeof *t);
    t->name = name;
    t->dtype = dtype;
    t->rank = rank;
    t->shape[0] = n0;
    t->shape[1] = n1;
    t->count = 1;
    for (i = 0; i < rank; i++) t->count *= t->shape[i];
    t->data = data;
}

/* A file like a small model; tensors and metadata in the caller's arrays. */
static void small_model(cm_st *st, cm_st_tensor *tensor, cm_st_meta *meta)
{
    static const unsigned char bytes[64] = "The bytes of tensors; what they mean is not at stake";
    static char text[5][40] = { "calomu", "model", "train.odd \"\\\n\x01/\xc3\xa9", "\t",
                                "loss.empty" };
    memset(st, 0, sizeof *st);
    st->tensor = tensor;
    st->meta = meta;
    add_tensor(st, "u8", CM_U8, 1, 3, 0, bytes);
    add_tensor(st, "weight.0", CM_F32, 2, 2, 3, bytes + 5);
    add_tensor(st, "scalar", CM_F32, 0, 0, 0, bytes + 1);
    add_tensor(st, "none", CM_F32, 2, 0, 7, NULL);
    add_tensor(st, "steps", CM_I64, 0, 0, 0, bytes + 3);
    add_tensor(st, "mean", CM_F64, 1, 2, 0, bytes + 7);
    meta[0].key = text[0];
    meta[0].value = text[1];
    meta[1].key = text[2];
    meta[1].value = text[3];
    meta[2].key = text[4];
    meta[2].value = text[4] + 10;
    st->n_meta = 3;
}

static size_t tensor_bytes(const cm_st_tensor *t)
{
    static const size_t size[CM_DTYPES] = { 4, 8, 8, 1, 2, 2, 4, 4, 8, 8, 2, 2, 1, 1, 1, 1, 1 };
    return (size_t)t->count * size[t->dtype];
}

/* Every tensor and entry of a is in b; counts: of b, which may have one entry more. */
static int same_st(const cm_st *a, const cm_st *b, int more)
{
    int i, k, same = a->n_tensors == b->n_tensors && a->n_meta + more == b->n_meta;
    for (i = 0; same && i < a->n_tensors; i++) {
        const cm_st_tensor *s = a->tensor + i, *t = cm_st_find(b, s->name);
        same = t && s->dtype == t->dtype && s->rank == t->rank && s->count == t->count;
        for (k = 0; same && k < s->rank; k++) same = s->shape[k] == t->shape[k];
        same = same && (!s->count || !memcmp(s->data, t->data, tensor_bytes(s)));
    }
    for (i = 0; same && i < a->n_meta; i++) {
        const char *value = cm_st_find_meta(b, a->meta[i].key);
        same = value && !strcmp(value, a->meta[i].value);
    }
    return same;
}

static void test_safetensors(calomu *c)
{
    cm_st_tensor tensor[8];
    cm_st_meta meta[4];
    cm_st st, got;
    unsigned char *a, *b;
    size_t na, nb;
    calomu_file_kind kind;
    int i;
    small_model(&st, tensor, meta);
    CHECK_OK(c, cm_st_write(c, tmp_a, &st));
    if (!CHECK_OK(c, cm_st_read(c, tmp_a, &got))) return;
    CHECK(same_st(&st, &got, 1), "read back");
    CHECK(!cm_st_find(&got, "nothing") && !cm_st_find_meta(&got, "nothing"), "absent");
    CHECK(cm_st_find_meta(&got, "checksum") && strlen(cm_st_find_meta(&got, "checksum")) == 16,
          "a checksum of 16 digits");
    a = slurp(tmp_a, &na);
    CHECK(a && number_at(a, 8) % 8 == 0, "the data start at a multiple of 8");
    for (i = 0; i < got.n_tensors && a; i++)     /* 8-byte types first: all are aligned */
        CHECK(((const char *)got.tensor[i].data - (const char *)got.memory)
              % (got.tensor[i].dtype == CM_U8 ? 1 : got.tensor[i].dtype == CM_F32 ? 4 : 8) == 0,
              "%s is not aligned", got.tensor[i].name);
    CHECK_OK(c, cm_st_write(c, tmp_b, &got));
    cm_st_free(c, &got);
    CHECK(got.tensor == NULL && got.n_tensors == 0, "freed");
    CHECK_OK(c, cm_st_read(c, tmp_b, &got));
    CHECK(same_st(&st, &got, 1), "read, written and read back");
    CHECK_OK(c, cm_st_write(c, tmp_a, &got));    /* the order is now that of the names */
    cm_st_free(c, &got);
    free(a);
    a = slurp(tmp_a, &na);
    b = slurp(tmp_b, &nb);
    CHECK(a && b && na == nb && !memcmp(a, b, na), "rewriting gives other bytes");
    free(a);
    free(b);
    CHECK_OK(c, calomu_file_identify(c, tmp_a, &kind));
    CHECK(kind == CALOMU_FILE_MODEL, "%d", (int)kind);
    strcpy(meta[0].value, "weird");
    CHECK_OK(c, cm_st_write(c, tmp_a, &st));
    CHECK_FAILS(c, calomu_file_identify(c, tmp_a, &kind), CALOMU_EFORMAT);
    strcpy(meta[0].value, "model");
    st.n_meta = st.n_tensors = 0;    /* nothing at all is a file too */
    CHECK_OK(c, cm_st_write(c, tmp_a, &st));
    CHECK_OK(c, cm_st_read(c, tmp_a, &got));
    CHECK(got.n_tensors == 0 && got.n_meta == 1, "only the checksum");
    cm_st_free(c, &got);
    small_model(&st, tensor, meta);  /* what the writer refuses */
    tensor[1].name = "u8";
    CHECK_FAILS(c, cm_st_write(c, tmp_b, &st), CALOMU_EUSAGE);
    small_model(&st, tensor, meta);
    tensor[0].count = 4;
    CHECK_FAILS(c, cm_st_write(c, tmp_b, &st), CALOMU_EUSAGE);
    small_model(&st, tensor, meta);
    tensor[0].rank = CM_RANK + 1;
    CHECK_FAILS(c, cm_st_write(c, tmp_b, &st), CALOMU_EUSAGE);
    small_model(&st, tensor, meta);
    meta[2].key = meta[0].key;
    CHECK_FAILS(c, cm_st_write(c, tmp_b, &st), CALOMU_EUSAGE);
    small_model(&st, tensor, meta);
    if (full_device()) CHECK_FAILS(c, cm_st_write(c, full_device(), &st), CALOMU_EIO);
}

/* Every truncation is noticed; a flipped bit is, or changes nothing that is read, or makes the file
   another program's, which is then not taken for ours. */
static void test_safetensors_damage(calomu *c)
{
    cm_st_tensor tensor[8];
    cm_st_meta meta[4];
    cm_st st, got, flipped;
    calomu_file_kind kind;
    unsigned char *a;
    size_t n, i;
    int missed = 0;
    small_model(&st, tensor, meta);
    CHECK_OK(c, cm_st_write(c, tmp_a, &st));
    CHECK_OK(c, cm_st_read(c, tmp_a, &got));
    a = slurp(tmp_a, &n);
    for (i = 0; a && i < n; i++) {
        spill(tmp_b, a, i);
        missed += cm_st_read(c, tmp_b, &flipped) != CALOMU_EFORMAT;
        cm_st_free(c, &flipped);
    }
    CHECK(missed == 0, "%d truncations went unseen", missed);
    missed = 0;
    for (i = 0; a && i < 8 * n; i++) {
        a[i / 8] ^= (unsigned char)(1 << i % 8);
        spill(tmp_b, a, n);
        a[i / 8] ^= (unsigned char)(1 << i % 8);
        if (cm_st_read(c, tmp_b, &flipped) == CALOMU_OK && !same_st(&got, &flipped, 0))
            missed += calomu_file_identify(c, tmp_b, &kind) == CALOMU_OK;
        cm_st_free(c, &flipped);
    }
    CHECK(missed == 0, "%d flipped bits changed what is read", missed);
    free(a);
    cm_st_free(c, &got);
}

/* A header as text, `data` bytes of zeros behind it. */
static calomu_status read_header(calomu *c, const char *header, size_t data, cm_st *st)
{
    size_t n = strlen(header);
    unsigned char *p = calloc(1, 8 + n + data);
    if (!p) exit(1);
    put_number(p, n, 8);
    memcpy(p + 8, header, n);
    spill(tmp_b, p, 8 + n + data);
    free(p);
    return cm_st_read(c, tmp_b, st);
}

#define T(name, shape, offsets) \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_headers(calomu *c)
{
    static const struct { const char *text; int data; } good[] = {
        { "{}", 0 }, { "{ }   ", 0 }, { "{" T("a", "[]", "[0,4]") "}", 4 },
        { "{ \n\"__metadata__\" :\t{ } ,\r\n" T("a", "[ 1 , 1 ]", "[ 0 , 4 ]") "  }  ", 4 },
        { "{" T("b", "[2]", "[4,12]") "," T("a", "[1]", "[0,4]") "}", 12 },
        { "{" T("z", "[0]", "[4,4]") "," T("a", "[1]", "[0,4]") "}", 4 },
        { "{\"__metadata__\":{\"k\":\"\\u00e9\\uD83D\\uDE00\\n\\/\"},"
          "\"\\u0061\":{\"shape\":[1],\"data_offsets\":[0,4],\"dtype\":\"F32\"}}", 4 },
        /* of other programs: names, types and metadata as they like */
        { "{\"0123456789012345678901234567890123456789012345678901234567890123\":"
          "{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4 },
        { "{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
          "\"b\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[4,6]},"
          "\"c\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[6,7]},"
          "\"d\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[7,8]}}", 8 },
        { "{\"__metadata__\":{\"checksum\":\"0123456789abcdef\"}}", 0 },
        { "{\"__metadata__\":{\"checksum\":\"sha256:00\",\"format\":\"pt\"}}", 0 },
        { "{\"__metadata__\":{\"calomu\":\"read by it\",\"checksum\":\"\"}}", 0 },
        { "{\"__metadata__\":{\"{\\\":{\":\"}:\\\\\",\"\":\"\"}}", 0 },
        { "{" T("a", "[0,4294967295]", "[0,0]") "}", 0 }
    };
    static const struct { const char *text; int data; } bad[] = {
        { " {}", 0 }, { "[]", 0 }, { "{}x", 0 }, { "{}\n", 0 }, { "{", 0 }, { "{\"a\"", 0 },
        { "{\"a\":}", 0 }, { "{\"a\":1}", 0 }, { "{\"a\":{}}", 0 }, { "{}", 1 },
        { "{" T("a", "[1]", "[0,4]") ",}", 4 }, { "{" T("a", "[1]", "[0,4]") "}", 5 },
        { "{" T("a", "[1]", "[0,4]") "}", 3 }, { "{" T("a", "[1]", "[4,0]") "}", 4 },
        { "{" T("a", "[1]", "[4,8]") "}", 8 }, { "{" T("a", "[2]", "[0,4]") "}", 4 },
        { "{" T("a", "[1]", "[0,4]") "," T("b", "[1]", "[0,4]") "}", 4 },
        { "{" T("a", "[1]", "[0,4]") "," T("a", "[1]", "[4,8]") "}", 8 },
        { "{" T("a", "[1]", "[0,4]") "," T("b", "[1]", "[8,12]") "}", 12 },
        { "{" T("a", "[-1]", "[0,4]") "}", 4 }, { "{" T("a", "[1.0]", "[0,4]") "}", 4 },
        { "{" T("a", "[01]", "[0,4]") "}", 4 }, { "{" T("a", "[1e0]", "[0,4]") "}", 4 },
        { "{" T("a", "[1,]", "[0,4]") "}", 4 }, { "{" T("a", "1", "[0,4]") "}", 4 },
        { "{" T("a", "[1]", "[0,4,8]") "}", 4 }, { "{" T("a", "[1]", "[0]") "}", 4 },
        { "{" T("a", "[[1]]", "[0,4]") "}", 4 },
        { "{" T("a", "[1,1,1,1,1,1,1,1,1]", "[0,4]") "}", 4 },
        { "{" T("a", "[4294967296,4294967296]", "[0,0]") "}", 0 },
        { "{" T("a", "[9223372036854775808,2]", "[0,0]") "}", 0 },
        { "{" T("a", "[18446744073709551617]", "[0,4]") "}", 4 },
        { "{" T("a", "[1]", "[18446744073709551612,18446744073709551616]") "}", 4 },
        { "{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1 },
        { "{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4 },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":{}}}", 4 },
        { "{\"__metadata__\":{\"k\":1}}", 0 }, { "{\"__metadata__\":[]}", 0 },
        { "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0 },
        { "{\"__metadata__\":{},\"__metadata__\":{}}", 0 },
        { "{\"__metadata__\":{\"k\":\"\\x\"}}", 0 },
        { "{\"__metadata__\":{\"k\":\"\\u12g4\"}}", 0 },
        { "{\"__metadata__\":{\"k\":\"\\u0000\"}}", 0 },
        { "{\"__metadata__\":{\"k\":\"\\uD83D\"}}", 0 },
        { "{\"__metadata__\":{\"k\":\"\\uD83D\\u0041\"}}", 0 },
        { "{\"__metadata__\":{\"k\":\"\\uDE00\"}}", 0 },
        { "{\"__metadata__\":{\"k\":\"a\nb\"}}", 0 }, { "{\"__metadata__\":{\"k\":\"\\", 0 },
        { "{\"__metadata__\":{\"k\":\"\\u00", 0 },
        { "{\"__metadata__\":{\"calomu\":\"model\"}}", 0 },
        { "{\"__metadata__\":{\"calomu\":\"checkpoint\",\"checksum\":\"0123456789abcdef\"}}", 0 },
        { "{\"__metadata__\":{\"\":\"\",\"\":\"\",\"\":\"\"}}", 0 },
        { "{" T("a", "[1,1,1,1,1,1]", "[0,4]") "}", 4 },
        { "{" T("a", "[0,4294967296]", "[0,0]") "}", 0 }
    };
    cm_st st;
    unsigned char length[16] = { 0 };
    char *deep;
    size_t i;
    for (i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK(read_header(c, good[i].text, (size_t)good[i].data, &st) == CALOMU_OK, "%s: %s",
              good[i].text, calomu_message(c));
        if (strstr(good[i].text, "uD83D")) {
            CHECK(cm_st_find(&st, "a") && cm_st_find_meta(&st, "k")
                  && !strcmp(cm_st_find_meta(&st, "k"), "\xc3\xa9\xf0\x9f\x98\x80\n/"), "escapes");
        }
        cm_st_free(c, &st);
    }
    for (i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(read_header(c, bad[i].text, (size_t)bad[i].data, &st) == CALOMU_EFORMAT
              && says(c, tmp_b), "accepted: %s", bad[i].text);
        CHECK(!st.memory && !st.tensor, "nothing is left of %s", bad[i].text);
    }
    deep = malloc(200001);           /* no recursion on nested brackets */
    if (!deep) exit(1);
    memset(deep, '[', 200000);
    deep[200000] = 0;
    memcpy(deep, "{\"a\":", 5);
    CHECK_FAILS(c, read_header(c, deep, 0, &st), CALOMU_EFORMAT);
    memset(deep, '{', 200000);
    CHECK_FAILS(c, read_header(c, deep, 0, &st), CALOMU_EFORMAT);
    free(deep);
    length[8] = '{';
    for (i = 0; i < 64; i++) {       /* absurd lengths of the header */
        put_number(length, (uint64_t)1 << i, 8);
        spill(tmp_b, length, sizeof length);
        CHECK_FAILS(c, cm_st_read(c, tmp_b, &st), CALOMU_EFORMAT);
    }
}

/* Random damage in a header of many tensors: never a crash, never a size that does not fit. */
static void test_headers_random(calomu *c)
{
    cm_st_tensor tensor[8];
    cm_st_meta meta[4];
    cm_st st;
    test_random r = test_seed(11);
    unsigned char *a, *b;
    size_t n, length;
    int round, k, i;
    long accepted = 0, wrong = 0;
    small_model(&st, tensor, meta);
    meta[0].key = meta[0].value;     /* no "calomu": the checksum may be damaged unseen */
    CHECK_OK(c, cm_st_write(c, tmp_a, &st));
    a = slurp(tmp_a, &n);
    b = malloc(n);
    if (!a || !b) exit(1);
    length = (size_t)number_at(a, 8);
    for (i = 0; (size_t)i + 8 < length; i++)     /* and here it is: renamed */
        if (!memcmp(a + i, "checksum", 8)) a[i] = 'C';
    for (round = 0; round < 5000; round++) {
        memcpy(b, a, n);
        for (k = test_int(&r, 1, 2); k > 0; k--) {
            static const char likely[] = "{}[]\":,0123456789\\u ";
            size_t at = 8 + (size_t)(test_bits(&r) % length);
            b[at] = test_int(&r, 0, 3) ? (unsigned char)likely[test_int(&r, 0, 19)]
                                       : (unsigned char)test_bits(&r);
        }
        spill(tmp_b, b, n);
        if (cm_st_read(c, tmp_b, &st) == CALOMU_OK) {
            size_t total = 0;
            accepted++;
            for (k = 0; k < st.n_tensors; k++) total += tensor_bytes(st.tensor + k);
            wrong += total != n - 8 - length;
        }
        cm_st_free(c, &st);
    }
    CHECK(wrong == 0 && accepted > 0 && accepted < 5000, "%ld wrong of %ld", wrong, accepted);
    free(a);
    free(b);
}

/* ---- no memory, at each allocation in turn */

typedef struct heap { long live, calls, fail_at; } heap;

static void *heap_allocate(void *user, size_t size)
{
    heap *h = user;
    void *p;
    if (++h->calls == h->fail_at) return NULL;
    p = malloc(size);
    h->live += p != NULL;
    return p;
}

static void heap_release(void *user, void *memory)
{
    heap *h = user;
    h->live--;
    free(memory);
}

/* Everything once: write, open, read, write tensors, read tensors, identify. */
static calomu_status everything(calomu *c, const set *s)
{
    cm_st_tensor tensor[8];
    cm_st_meta meta[4];
    cm_st st;
    calomu_data *d = NULL;
    calomu_events e = { 0 };
    calomu_file_kind kind;
    calomu_status status = write_set(c, tmp_a, s);
    if (!status) status = calomu_data_open(c, tmp_a, &d);
    if (!status) status = calomu_data_read(c, d, 0, NULL, 2, &e);
    if (!status) status = calomu_data_read(c, d, 0, NULL, s->n, &e);
    calomu_data_close(d);
    d = NULL;
    if (!status) status = calomu_data_from_memory(c, &s->info, e.event, e.n, &d);
    calomu_data_close(d);
    calomu_events_free(&e);
    small_model(&st, tensor, meta);
    if (!status) status = cm_st_write(c, tmp_b, &st);
    if (!status) status = calomu_file_identify(c, tmp_b, &kind);
    return status;
}

static void test_no_memory(void)
{
    set *s = random_set(21, 6, 80);  /* features and losses */
    calomu_hit swap = s->hits[0][0];
    heap h = { 0, 0, 0 };
    calomu_options o = { 0 };
    calomu *c = NULL;
    calomu_status status = CALOMU_EMEMORY;
    long k, before;
    size_t i;
    for (i = 0; i < s->n; i++) {     /* one event needs sorting */
        size_t n = s->event[i].n_hits;
        if (n < 2) continue;
        swap = s->hits[i][0];
        s->hits[i][0] = s->hits[i][n - 1];
        s->hits[i][n - 1] = swap;
        break;
    }
    o.allocate = heap_allocate;
    o.release = heap_release;
    o.user = &h;
    if (calomu_open(&c, &o)) exit(1);
    before = h.live;
    for (k = 1; k < 1000 && status != CALOMU_OK; k++) {
        h.calls = 0;
        h.fail_at = k;
        status = everything(c, s);
        CHECK(status == CALOMU_OK || (status == CALOMU_EMEMORY && says(c, "no memory")),
              "allocation %ld: status %d, '%s'", k, (int)status, calomu_message(c));
        CHECK(h.live == before, "allocation %ld: %ld pieces of memory lost", k, h.live - before);
        CHECK(leftovers(test.tmp, 0) == 0, "allocation %ld: a temporary file is left", k);
    }
    CHECK(k > 20 && status == CALOMU_OK, "%ld allocations were tried", k);
    calomu_close(c);
    CHECK(h.live == 0, "%ld pieces of memory lost", h.live);
    set_free(s);
}

/* ---- memory before validation: at most twice the file and 1 MiB, whatever the file holds */

typedef struct meter { size_t live, peak; } meter;

enum { METER_HEAD = 16 };            /* keeps the size, and the alignment of malloc */

static void *meter_allocate(void *user, size_t size)
{
    meter *m = user;
    unsigned char *p = malloc(size + METER_HEAD);
    if (!p) return NULL;
    memcpy(p, &size, sizeof size);
    m->live += size;
    if (m->live > m->peak) m->peak = m->live;
    return p + METER_HEAD;
}

static void meter_release(void *user, void *memory)
{
    meter *m = user;
    unsigned char *p = memory;
    size_t size;
    memcpy(&size, p - METER_HEAD, sizeof size);
    m->live -= size;
    free(p - METER_HEAD);
}

/* What tmp_b takes to be read as whatever it is. */
static void check_peak(const char *what, int whole)
{
    meter m = { 0, 0 };
    calomu_options o = { 0 };
    calomu *c = NULL;
    calomu_file_kind kind;
    calomu_model *model = NULL;
    calomu_data *data = NULL;
    size_t n, start;
    o.allocate = meter_allocate;
    o.release = meter_release;
    o.user = &m;
    free(slurp(tmp_b, &n));
    if (calomu_open(&c, &o)) exit(1);
    start = m.live;
    (void)calomu_file_identify(c, tmp_b, &kind);
    (void)calomu_model_load(c, tmp_b, &model);
    (void)calomu_checkpoint_describe(c, tmp_b, NULL, NULL, NULL);
    (void)calomu_data_open(c, tmp_b, &data);
    calomu_model_free(model);
    calomu_data_close(data);
    (void)calomu_model_import(c, tmp_b, NULL, NULL, NULL, &model);
    CHECK(!model && m.live == start, "%s: a model, or %zu bytes lost", what, m.live - start);
    CHECK(m.peak - start <= 2 * n + (1 << 20), "%s: %zu bytes for a file of %zu", what,
          m.peak - start, n);
    CHECK(!whole || m.peak - start >= n, "%s: %zu bytes for a file of %zu?", what, m.peak - start,
          n);
    calomu_close(c);
}

/* A header that repeats a text; %d in it becomes the number. */
static void write_repeated(const char *first, const char *format, int times, const char *last)
{
    char *header = malloc(strlen(first) + strlen(last) + (size_t)times * (strlen(format) + 8) + 9);
    size_t n;
    int i;
    if (!header) exit(1);
    n = (size_t)sprintf(header + 8, "%s", first);
    for (i = 0; i < times; i++) {
        const char *at = strchr(format, '%');
        int before = at ? (int)(at - format) : (int)strlen(format);
        n += (size_t)sprintf(header + 8 + n, "%.*s", before, format);
        if (at) n += (size_t)sprintf(header + 8 + n, "%d%s", i, at + 1);
    }
    n += (size_t)sprintf(header + 8 + n, "%s", last);
    put_number((unsigned char *)header, n, 8);
    spill(tmp_b, header, n + 8);
    free(header);
}

#define EMPTY_TENSOR "{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}"

static void test_memory_headers(calomu *c)
{
    cm_st st;
    write_repeated("{", "{:", 1500000, "");
    check_peak("braces and colons", 1);
    write_repeated("{", "\"\":{},", 500000, "}");
    check_peak("empty objects", 1);
    write_repeated("{\"\":", "{\"dtype\":", 500000, "");
    check_peak("objects in objects", 1);
    write_repeated("{\"__metadata__\":{", "\"\":\"\",", 500000, "\"k\":\"\"}}");
    check_peak("metadata", 1);
    CHECK_FAILS(c, cm_st_read(c, tmp_b, &st), CALOMU_EFORMAT);
    write_repeated("{\"__metadata__\":{\"", "{:\\\"", 500000, "\":\"\"}}");
    check_peak("a long key", 1);
    CHECK_OK(c, cm_st_read(c, tmp_b, &st));
    CHECK(st.n_meta == 1 && strlen(st.meta[0].key) == 1500000, "%d entries", st.n_meta);
    cm_st_free(c, &st);
    write_repeated("{", "\"%\":" EMPTY_TENSOR ",", 60000, "\"a\":" EMPTY_TENSOR "}");
    check_peak("many tensors", 1);
    CHECK_OK(c, cm_st_read(c, tmp_b, &st));
    CHECK(st.n_tensors == 60001 && cm_st_find(&st, "59999") && cm_st_find(&st, "0")
          && cm_st_find(&st, "a") && !cm_st_find(&st, "60000") && !cm_st_find(&st, ""),
          "%d tensors", st.n_tensors);
    cm_st_free(c, &st);
    write_repeated("{", "\"\":" EMPTY_TENSOR ",", 60000, "\"a\":" EMPTY_TENSOR "}");
    check_peak("many tensors of one name", 1);
    write_repeated("{\"__metadata__\":{", "\"%\":\"\",", 30000, "\"k\":\"v\"}}");
    CHECK_OK(c, cm_st_read(c, tmp_b, &st));      /* within limits, whatever they mean */
    CHECK(st.n_meta == 30001 && cm_st_find_meta(&st, "29999") && !cm_st_find_meta(&st, "30000")
          && !strcmp(cm_st_find_meta(&st, "k"), "v"), "%d entries", st.n_meta);
    cm_st_free(c, &st);
}

/* Metadata that name the largest network or ensemble, with the right checksum and no tensors. */
static void test_memory_networks(calomu *c)
{
    static const char *const key[] = { "architecture.head", "architecture.blocks",
                                       "architecture.body", "members", "architecture.growth" };
    static char value[5][8] = { "1", "64", "4096", "1000", "1.3" };
    calomu_architecture a = calomu_architecture_default();
    calomu_model *m = NULL;
    cm_st st;
    int i, k, keep;
    a.head = 0;
    a.body = 1;
    CHECK_OK(c, cm_model_new(c, &a, 1, &m));
    CHECK_OK(c, calomu_model_save(c, m, tmp_a));
    calomu_model_free(m);
    if (!CHECK_OK(c, cm_st_read(c, tmp_a, &st))) return;
    for (k = 0; k < 5; k++) {
        for (i = 0; i < st.n_meta; i++)
            if (!strcmp(st.meta[i].key, key[k])) st.meta[i].value = value[k];
        CHECK_OK(c, cm_st_write(c, tmp_b, &st));
        check_peak(key[k], 0);
        keep = st.n_tensors;
        st.n_tensors = 0;
        CHECK_OK(c, cm_st_write(c, tmp_b, &st));
        check_peak(key[k], 0);
        st.n_tensors = keep;
    }
    cm_st_free(c, &st);
}

/* An ensemble is read in a time that grows with its size: four times the members, about four times
   the time, and not sixteen. */
static void test_linear(calomu *c)
{
    calomu_architecture a = calomu_architecture_default();
    double seconds[2];
    int k;
    a.head = 0;
    a.body = 1;
    for (k = 0; k < 2; k++) {
        calomu_model *m = NULL;
        clock_t start, least = 0;
        int round;
        CHECK_OK(c, cm_model_new(c, &a, k ? 1000 : 250, &m));
        CHECK_OK(c, calomu_model_save(c, m, tmp_b));
        calomu_model_free(m);
        for (round = 0; round < 3; round++) {
            start = clock();
            CHECK_OK(c, calomu_model_load(c, tmp_b, &m));
            start = clock() - start;
            if (round == 0 || start < least) least = start;
            calomu_model_free(m);
        }
        seconds[k] = (double)least / CLOCKS_PER_SEC;
    }
    CHECK(seconds[1] <= 9 * seconds[0] + 0.01, "250 members %g s, 1000 members %g s", seconds[0],
          seconds[1]);
}

int main(int argc, char **argv)
{
    calomu *c = NULL;
    uint64_t seed;
    test_begin(argc, argv);
    /* a folder of our own, so that leftovers can be counted while other tests run */
    (void)snprintf(tmp_b, sizeof tmp_b, "%s/files", test.tmp);
    test_mkdir(tmp_b);
    test.tmp = strcpy(malloc(strlen(tmp_b) + 1), tmp_b);
    test_path(tmp_a, sizeof tmp_a, test.tmp, "a.cmu");
    test_path(tmp_b, sizeof tmp_b, test.tmp, "b.cmu");
    (void)leftovers(test.tmp, 1);    /* of a run that was killed */
    if (calomu_open(&c, NULL)) return 1;
    test_checksum();
    for (seed = 0; seed < 24; seed++)
        check_set(c, seed, seed == 5 || seed == 6 ? 0 : 1 + (size_t)seed, (size_t)seed * 31 % 300);
    check_set(c, 101, 40, 4000);
    check_set(c, 100, 1, 0);
    test_order(c);
    test_size(c);
    test_threads(c);
    test_memory_sets(c);
    test_refusals(c);
    test_damage(c, 1);               /* with features, */
    test_damage(c, 12);              /*   with losses, */
    test_damage(c, 5);               /*   with both */
    test_hostile(c, 9);
    test_hostile(c, 21);             /* the same with losses */
    test_forged(c);
    test_unknown(c);
    test_losses(c);
    test_faults(c);
    test_kinds(c);
    test_output(c);
    test_output_failures(c);
    test_pipes(c);
    test_safetensors(c);
    test_safetensors_damage(c);
    test_headers(c);
    test_headers_random(c);
    test_memory_headers(c);
    test_memory_networks(c);
    test_linear(c);
    test_no_memory();
    calomu_close(c);
    (void)unlink(tmp_a);
    (void)unlink(tmp_b);
    return test_end("files");
}
