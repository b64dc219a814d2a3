/* sets.c - calomu merge, split, select; and several files as one set of muons */
#include "calomu_tool.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Muons read and written together: memory stays bounded whatever the files hold. */
enum { SETS_CHUNK = 256, SETS_MOST = 1000, SETS_CUTS = 64 };

/* ---------------------------------------------------------------- several files as one set */

void tool_set_close(tool_set *set)
{
    int i;
    calomu_data_close(set->data);    /* before those that it borrows */
    for (i = 0; i < set->n; i++) calomu_data_close(set->file[i]);
    free(set->file);
    memset(set, 0, sizeof *set);
}

calomu_status tool_set_open(calomu *c, const char *const *path, int n, tool_set *set)
{
    calomu_status s = CALOMU_OK;
    int misfit = 0;
    set->file = calloc((size_t)n, sizeof *set->file);
    if (!set->file) return tool_fail(CALOMU_EMEMORY, "no memory for %d files", n);
    for (; set->n < n && s == CALOMU_OK; set->n += s == CALOMU_OK)
        s = calomu_data_open(c, path[set->n], &set->file[set->n]);
    if (s != CALOMU_OK) return tool_report(c, s);
    s = calomu_data_join(c, set->file, n, &misfit, &set->data);
    if (s != CALOMU_OK && misfit)
        return tool_fail(s, "%s does not fit %s: %s", path[misfit], path[0], calomu_message(c));
    if (s != CALOMU_OK) return tool_report(c, s);
    if (n == 1) (void)snprintf(set->name, sizeof set->name, "%.150s", path[0]);
    else (void)snprintf(set->name, sizeof set->name, "%.120s and %d other%s", path[0], n - 1,
                        n == 2 ? "" : "s");
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- what the three verbs share */

typedef struct sets_job {
    calomu *c;
    const char *in[SETS_MOST], *out;
    int n_in;
    tool_set set;
    calomu_events batch;
    tool_progress progress;
} sets_job;

static calomu_status sets_open(sets_job *j)
{
    calomu_status s = tool_open(&j->c, 1);
    if (s != CALOMU_OK) return s;
    tool_signals_catch();
    return tool_set_open(j->c, j->in, j->n_in, &j->set);
}

static int sets_close(sets_job *j, calomu_status s)
{
    calomu_events_free(&j->batch);
    tool_set_close(&j->set);
    calomu_close(j->c);
    free(j);
    if (s == CALOMU_STOPPED) tool_signals_obey();
    return (int)s;
}

static uint64_t sets_events(const sets_job *j)
{
    return calomu_data_describe(j->set.data)->n_events;
}

static calomu_status sets_stopped(void)
{
    return tool_fail(CALOMU_STOPPED, "stopped; the file in work is not written");
}

static calomu_status sets_add(sets_job *j, calomu_writer *w, uint64_t first,
                              const uint64_t *numbers, size_t n)
{
    calomu_status s = calomu_data_read(j->c, j->set.data, first, numbers, n, &j->batch);
    size_t i;
    for (i = 0; i < n && s == CALOMU_OK; i++) s = calomu_writer_add(w, &j->batch.event[i]);
    return s == CALOMU_OK ? s : tool_report(j->c, s);
}

/* Muons first ... first + n - 1, or those with the n numbers, in that order, as a file. */
static calomu_status sets_write(sets_job *j, const char *path, uint64_t first,
                                const uint64_t *numbers, uint64_t n)
{
    calomu_writer *w = NULL;
    uint64_t done = 0, count;
    calomu_status s = calomu_writer_open(j->c, path, calomu_data_describe(j->set.data), &w);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    for (; done < n && s == CALOMU_OK; done += count) {
        count = n - done < SETS_CHUNK ? n - done : SETS_CHUNK;
        s = tool_stop ? sets_stopped() : sets_add(j, w, first + done, numbers ? numbers + done
                                                  : NULL, (size_t)count);
        tool_progress_at(&j->progress, j->progress.done + count, NULL);
    }
    if (s != CALOMU_OK) {
        calomu_writer_abandon(w);
        return s;
    }
    s = calomu_writer_close(w);
    if (s != CALOMU_OK) return tool_report(j->c, s);
    tool_notice("%s: %" PRIu64 " muons", path, n);
    return s;
}

static sets_job *sets_new(void)
{
    sets_job *j = calloc(1, sizeof *j);
    if (!j) (void)tool_fail(CALOMU_EMEMORY, "no memory");
    return j;
}

#define SETS_OPERANDS(j) { .name = "IN.cmu", .target = (j)->in, .most = SETS_MOST, \
                           .count = &(j)->n_in }

/* ---------------------------------------------------------------- merge */

int verb_merge(int argc, char **argv)
{
    sets_job *j = sets_new();
    if (!j) return CALOMU_EMEMORY;
    tool_operand operands[] = { SETS_OPERANDS(j), { .name = NULL } };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &j->out, .value = "OUT.cmu",
          .file = TOOL_WRITES, .help = "data file to write", .needed = 1 },
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "merge",
        .purpose = "Writes the muons of all files, one file behind the other, as one.  Features"
                   " and\nlosses are kept.  All files are of one geometry and one kind of"
                   " features.",
        .operands = operands, .options = options
    };
    calomu_status s;
    int code;
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return sets_close(j, (calomu_status)code);
    s = sets_open(j);
    if (s == CALOMU_OK) {
        tool_progress_begin(&j->progress, "merge", "muons", sets_events(j));
        s = sets_write(j, j->out, 0, NULL, sets_events(j));
        tool_progress_end(&j->progress);
    }
    return sets_close(j, s);
}

/* ---------------------------------------------------------------- split */

/* Name of part k: three digits, more where there are more parts, so that names sort as numbers. */
static void split_name(char path[4096], const char *prefix, uint64_t k)
{
    (void)snprintf(path, 4096, "%s-%03" PRIu64 ".cmu", prefix, k);
}

/* All outputs are locked before the first is written. */
static calomu_status split_run(sets_job *j, uint64_t parts, uint64_t each)
{
    uint64_t n, k;
    char path[4096];
    calomu_status s = (parts > 0) == (each > 0)
                    ? tool_misuse("one of --parts and --each must be given") : sets_open(j);
    if (s != CALOMU_OK) return s;
    n = sets_events(j);
    if (each) parts = n / each + (n % each != 0);
    if (parts > SETS_MOST)
        return tool_misuse("%" PRIu64 " parts of %" PRIu64 " muons: at most %d", parts, each,
                           SETS_MOST);
    if (!each && parts > n)
        return tool_misuse("--parts %" PRIu64 ": there are only %" PRIu64 " muons", parts, n);
    if (strlen(j->out) > 4000) return tool_misuse("--out: too long");
    for (k = 0; k < parts && s == CALOMU_OK; k++) {
        split_name(path, j->out, k);
        s = tool_claim(TOOL_WRITES, "--out", path);
    }
    tool_progress_begin(&j->progress, "split", "muons", n);
    for (k = 0; k < parts && s == CALOMU_OK; k++) {
        /* n k / parts without overflow: k, parts <= 1000 */
        uint64_t low = each ? k * each : n / parts * k + n % parts * k / parts;
        uint64_t high = each ? (n - low < each ? n : low + each)
                             : n / parts * (k + 1) + n % parts * (k + 1) / parts;
        split_name(path, j->out, k);
        s = sets_write(j, path, low, NULL, high - low);
    }
    tool_progress_end(&j->progress);
    return s;
}

int verb_split(int argc, char **argv)
{
    sets_job *j = sets_new();
    if (!j) return CALOMU_EMEMORY;
    int32_t parts = 0;
    uint64_t each = 0;
    tool_operand operands[] = { SETS_OPERANDS(j), { .name = NULL } };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &j->out, .value = "PREFIX",
          .help = "writes PREFIX-000.cmu, PREFIX-001.cmu ...", .needed = 1 },
        { .name = "parts", .type = TOOL_INT, .target = &parts, .value = "N", .preset = "",
          .help = "into N files of equal size, or sizes that differ by one", .low = 1,
          .high = SETS_MOST },
        { .name = "each", .type = TOOL_U64, .target = &each, .value = "N", .preset = "",
          .help = "into files of N muons, the last of what is left", .low = 1, .high = 1e18 },
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "split",
        .purpose = "Writes the muons of a file, or of several, in order, as several files.",
        .operands = operands, .options = options,
        .notes = "Each file appears when it is complete; those before a failure stay."
    };
    int code = tool_parse(&usage, argc, argv);
    return sets_close(j, code >= 0 ? (calomu_status)code : split_run(j, (uint64_t)parts, each));
}

/* ---------------------------------------------------------------- select: cuts */

static const char *const select_names[] = { "energy", "x", "y", "charge", "hits", "sum", "lost",
                                            "deposited", "leaked", "unseen" };
enum { SELECT_HITS = 4, SELECT_SUM = 5, SELECT_LOSSES = 6, SELECT_FEATURES = 10 };

typedef struct select_cut {
    int what;                        /* index in select_names; from SELECT_FEATURES on: V[...] */
    char op[3];                      /* "<", "<=", ">", ">=", "=" */
    double limit;
} select_cut;

typedef struct select_job {
    sets_job *j;
    const char *cuts, *list;
    select_cut cut[SETS_CUTS];
    int n_cuts;
    uint64_t first, count, every, seed;
    int shuffle;
    uint64_t *number, n;             /* of the muons chosen: 8 bytes each */
} select_job;

static int select_find(const char *name)
{
    char v[8];
    int i;
    for (i = 0; i < SELECT_FEATURES; i++)
        if (strcmp(name, select_names[i]) == 0) return i;
    for (i = 0; i < CALOMU_FEATURES; i++) {
        (void)snprintf(v, sizeof v, "V%d", i);
        if (strcmp(name, v) == 0 || strcmp(name, calomu_feature_name(i)) == 0)
            return SELECT_FEATURES + i;
    }
    return -1;
}

/* One condition NAME OP NUMBER; behind it a comma or the end.  NULL: said why not. */
static const char *select_read_cut(const char *text, select_cut *cut)
{
    size_t n = strcspn(text, "<>=,"), ops = strspn(text + n, "<>=");
    char name[32];
    (void)snprintf(name, sizeof name, "%.*s", (int)(n < 31 ? n : 31), text);
    cut->what = select_find(name);
    if (cut->what < 0) {
        (void)tool_misuse("--cuts: no quantity '%s'; there are energy, x, y, charge, hits, sum,"
                          " lost, deposited, leaked, unseen and the features V0 to V27", name);
        return NULL;
    }
    (void)snprintf(cut->op, sizeof cut->op, "%.*s", (int)(ops < 2 ? ops : 2), text + n);
    if (ops < 1 || ops > 2 || (ops == 2 && (cut->op[0] == '=' || cut->op[1] != '='))) {
        (void)tool_misuse("--cuts: behind %s comes <, <=, >, >= or =", name);
        return NULL;
    }
    text = calomu_parse(text + n + ops, &cut->limit);
    if (!text || (*text && *text != ',') || !(cut->limit - cut->limit == 0)) {
        (void)tool_misuse("--cuts: %s%s: a number comes here, and a comma between conditions",
                          name, cut->op);
        return NULL;
    }
    return text;
}

static calomu_status select_read_cuts(select_job *s)
{
    const char *text = s->cuts;
    while (text) {
        if (s->n_cuts == SETS_CUTS) return tool_misuse("--cuts: more than %d", SETS_CUTS);
        text = select_read_cut(text, &s->cut[s->n_cuts++]);
        if (!text) return CALOMU_EUSAGE;
        text = *text ? text + 1 : NULL;
    }
    return CALOMU_OK;
}

/* What the files do not have cannot be cut on. */
static calomu_status select_check(const select_job *s)
{
    const calomu_data_info *d = calomu_data_describe(s->j->set.data);
    int i;
    for (i = 0; i < s->n_cuts; i++) {
        int what = s->cut[i].what;
        if (what >= SELECT_FEATURES && d->features == CALOMU_FEATURES_NONE)
            return tool_fail(CALOMU_EFORMAT, "%s has no features to cut on: calomu features adds"
                             " them", s->j->set.name);
        if (what >= SELECT_LOSSES && what < SELECT_FEATURES && !d->losses)
            return tool_fail(CALOMU_EFORMAT, "%s has no losses to cut on (%s)", s->j->set.name,
                             select_names[what]);
    }
    return CALOMU_OK;
}

static double select_value(const calomu_event *e, int what)
{
    const float truth[4] = { e->energy, e->x, e->y, e->charge };
    double sum = 0;
    size_t i;
    if (what < SELECT_HITS) return (double)truth[what];
    if (what == SELECT_HITS) return (double)e->n_hits;
    if (what >= SELECT_FEATURES) return (double)e->features[what - SELECT_FEATURES];
    if (what >= SELECT_LOSSES) return (double)e->losses[what - SELECT_LOSSES];
    for (i = 0; i < e->n_hits; i++) sum += (double)e->hits[i].energy;
    return sum;
}

/* What is absent is a NaN, which meets no condition. */
static int select_meets(const select_job *s, const calomu_event *e)
{
    int i, ok = 1;
    for (i = 0; i < s->n_cuts && ok; i++) {
        const select_cut *cut = &s->cut[i];
        double x = select_value(e, cut->what);
        ok = (cut->op[0] == '<' && x < cut->limit) || (cut->op[0] == '>' && x > cut->limit)
             || (strchr(cut->op, '=') && x <= cut->limit && x >= cut->limit);
    }
    return ok;
}

/* ---------------------------------------------------------------- select: numbers */

/* "3,7,20:40": single muons and ranges low:high, both ends included, in this order.  Counts them,
   and with numbers there stores them. */
static calomu_status select_list(select_job *s, uint64_t *numbers)
{
    const char *text = s->list;
    uint64_t end = sets_events(s->j), low, high;
    s->n = 0;
    do {
        char *behind;
        text += *text == ',';
        low = high = strtoull(text, &behind, 10);
        if (*text < '0' || *text > '9') behind = NULL;
        if (behind && *behind == ':') {
            text = behind + 1;
            high = strtoull(text, &behind, 10);
            if (*text < '0' || *text > '9') behind = NULL;
        }
        if (!behind || (*behind && *behind != ',') || high < low)
            return tool_misuse("--numbers: muons N and ranges LOW:HIGH with commas between them");
        if (high >= end)
            return tool_misuse("--numbers: %s has muons 0 to %" PRIu64 " only", s->j->set.name,
                               end ? end - 1 : 0);
        if (s->n > UINT64_MAX / 16 - (high - low)) return tool_misuse("--numbers: too many");
        for (; numbers && low <= high; low++) numbers[s->n++] = low;
        if (!numbers) s->n += high - low + 1;
        text = behind;
    } while (*text);
    return CALOMU_OK;
}

/* The muons that are looked at, before cuts. */
static calomu_status select_numbers(select_job *s)
{
    uint64_t end = sets_events(s->j), i;
    calomu_status status = s->list ? select_list(s, NULL) : CALOMU_OK;
    if (status != CALOMU_OK) return status;
    if (!s->list && s->first > end)
        return tool_misuse("--first %" PRIu64 ": %s has only %" PRIu64 " muons", s->first,
                           s->j->set.name, end);
    if (!s->list) s->n = (end - s->first) / s->every + ((end - s->first) % s->every != 0);
    s->number = s->n < SIZE_MAX / 16 ? malloc((size_t)s->n * sizeof *s->number + 1) : NULL;
    if (!s->number) return tool_fail(CALOMU_EMEMORY, "no memory for %" PRIu64 " numbers", s->n);
    for (i = 0; !s->list && i < s->n; i++) s->number[i] = s->first + i * s->every;
    return s->list ? select_list(s, s->number) : CALOMU_OK;
}

static calomu_status select_cut_all(select_job *s)
{
    uint64_t kept = 0, at = 0, n, i;
    calomu_status status = CALOMU_OK;
    for (; at < s->n && s->n_cuts && status == CALOMU_OK; at += n) {
        n = s->n - at < SETS_CHUNK ? s->n - at : SETS_CHUNK;
        status = calomu_data_read(s->j->c, s->j->set.data, 0, s->number + at, (size_t)n,
                                  &s->j->batch);
        if (status != CALOMU_OK) return tool_report(s->j->c, status);
        for (i = 0; i < n; i++)
            if (select_meets(s, &s->j->batch.event[i])) s->number[kept++] = s->number[at + i];
        if (tool_stop) status = sets_stopped();
    }
    if (s->n_cuts) s->n = kept;
    return status;
}

/* splitmix64 (Steele, Lea, Flood 2014): whole numbers only, the same on every machine. */
static uint64_t select_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Fisher and Yates.  The remainder of 64 bits favours some numbers by n/2^64: nothing. */
static void select_shuffle(select_job *s)
{
    uint64_t i, k, keep, state = s->seed;
    for (i = s->n; i > 1; i--) {
        k = select_random(&state) % i;
        keep = s->number[k];
        s->number[k] = s->number[i - 1];
        s->number[i - 1] = keep;
    }
}

static calomu_status select_run(select_job *s)
{
    calomu_status status = select_check(s);
    if (status == CALOMU_OK) status = select_numbers(s);
    if (status == CALOMU_OK) status = select_cut_all(s);
    if (status != CALOMU_OK) return status;
    if (s->shuffle) select_shuffle(s);
    if (s->count < s->n) s->n = s->count;
    if (s->n == 0) tool_notice("no muon is left");
    tool_progress_begin(&s->j->progress, "select", "muons", s->n);
    status = sets_write(s->j, s->j->out, 0, s->number, s->n);
    tool_progress_end(&s->j->progress);
    return status;
}

static const char select_notes[] =
    "Cuts: energy (GeV), x, y (mm), charge, hits (how many), sum (of hits, GeV), lost,\n"
    "deposited, leaked, unseen (GeV), V0 ... V27 or the names of the features as\n"
    "calomu help features has them.  What a muon does not have meets no cut.\n"
    "The order of work: numbers, cuts, shuffle, count.";

/* The usage has been parsed.  Frees what s holds, but not its job. */
static calomu_status select_verb(select_job *s, const tool_usage *usage)
{
    calomu_status status = CALOMU_OK;
    if (s->list && (tool_given(usage, "first") || tool_given(usage, "every")))
        status = tool_misuse("--numbers says all: without --first and --every");
    if (status == CALOMU_OK) status = select_read_cuts(s);
    if (status == CALOMU_OK) status = sets_open(s->j);
    if (status == CALOMU_OK) status = select_run(s);
    free(s->number);
    return status;
}

int verb_select(int argc, char **argv)
{
    sets_job *j = sets_new();
    if (!j) return CALOMU_EMEMORY;
    select_job s = { .j = j, .count = UINT64_MAX, .every = 1, .seed = 1 };
    tool_operand operands[] = { SETS_OPERANDS(j), { .name = NULL } };
    tool_option options[] = {
        { .name = "out", .type = TOOL_STRING, .target = &j->out, .value = "OUT.cmu",
          .file = TOOL_WRITES, .help = "data file to write", .needed = 1 },
        { .name = "first", .type = TOOL_U64, .target = &s.first, .value = "N",
          .help = "number of the first muon that is looked at" },
        { .name = "every", .type = TOOL_U64, .target = &s.every, .value = "K",
          .help = "looks at each K-th muon from the first on", .low = 1, .high = 1e18 },
        { .name = "numbers", .type = TOOL_STRING, .target = &s.list, .value = "LIST",
          .help = "looks at these muons, in this order: 3,7,20:40 (both ends included)" },
        { .name = "cuts", .type = TOOL_STRING, .target = &s.cuts, .value = "CUTS",
          .help = "keeps those that meet all: energy>=100,V0<50; < <= > >= =" },
        { .name = "shuffle", .type = TOOL_FLAG, .target = &s.shuffle,
          .help = "in an order drawn by --seed" },
        { .name = "seed", .type = TOOL_U64, .target = &s.seed, .value = "S",
          .help = "of --shuffle" },
        { .name = "count", .type = TOOL_U64, .target = &s.count, .value = "N",
          .help = "writes the first N of what is left", .preset = "all" },
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "select",
        .purpose = "Writes some muons of a file, or of several, as a file, with features and"
                   " losses.",
        .operands = operands, .options = options, .notes = select_notes
    };
    int code;
    code = tool_parse(&usage, argc, argv);
    return sets_close(j, code >= 0 ? (calomu_status)code : select_verb(&s, &usage));
}
