/* import.c - `calomu import` and `calomu export`: data files from and to CSV.

   Hits are `event,iz,ix,iy,energy`, truth is `event,energy,x,y,charge`, losses are
   `event,lost,deposited,leaked,unseen`, features are `event` and the 28 names; energies GeV (hits
   on import: as --energy-unit says), lengths mm.  Floats are written with 9 significant digits,
   from which they come back to the same bits.  */
#include "calomu_tool.h"

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- import: rows as they come */

typedef struct import_hit {          /* row i of the hits is line i + 2 of its file */
    uint32_t event, cell;
    float energy;
} import_hit;

typedef struct import_row {
    uint32_t event;
    float value[4];                  /* of the columns behind `event` */
} import_row;

typedef struct import_table {        /* truth, or losses: a row for each event */
    const char *path;                /* NULL: not given */
    import_row *row;
    size_t n, room;
    size_t *row_of;                  /* per event: its row */
} import_table;

typedef struct import_job {
    const char *hits_path, *out;
    calomu_geometry geometry;
    double scale;                    /* from the file's unit to GeV */
    import_hit *hit;
    size_t n_hits, room_hits;
    import_table truth, losses;
    size_t n_events;
    size_t *start, *order;           /* hits of event i: rows order[start[i]] ... start[i + 1] */
    int sorted;                      /* 1: hits came by rising event; order is not needed */
    uint32_t largest;                /* event of a hit, if there are hits */
    size_t largest_row;
} import_job;

/* The array with room for one more object; it doubles.  NULL: EMEMORY is reported, and the array
   is as it was. */
static void *import_grow(void *array, size_t *room, size_t n, size_t size, const char *path)
{
    void *more;
    size_t want = *room ? 2 * *room : 4096;
    if (n < *room) return array;
    more = want > SIZE_MAX / 2 / size ? NULL : realloc(array, want * size);
    if (more)
        *room = want;
    else
        (void)tool_fail(CALOMU_EMEMORY, "%s: no memory for more than %zu rows", path, n);
    return more;
}

static int import_standard(const char *path) { return path && strcmp(path, "-") == 0; }

static const char *import_name(const char *path)
{
    return import_standard(path) ? "standard input" : path;
}

/* A number of the file as a float.  The largest float, written with 9 digits, is a little more
   than itself, so up to half of its last place is rounded down to it. */
static calomu_status import_float(const tool_csv *csv, const char *name, double value, float *out)
{
    double most = (double)FLT_MAX, half_place = most / (1 << 25);
    if (fabs(value) > most + half_place)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is %g, which is too large", name, value);
    *out = fabs(value) > most ? (value > 0 ? FLT_MAX : -FLT_MAX) : (float)value;
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- import: hits */

static calomu_status import_hit_row(import_job *job, const tool_csv *csv, const double value[5])
{
    const calomu_geometry *g = &job->geometry;
    uint64_t event, iz, ix, iy;
    import_hit *hit;
    calomu_status status = tool_csv_whole(csv, 0, value[0], 0, UINT32_MAX - 1, &event);
    if (status == CALOMU_OK)
        status = tool_csv_whole(csv, 1, value[1], 0, (uint64_t)g->nz - 1, &iz);
    if (status == CALOMU_OK)
        status = tool_csv_whole(csv, 2, value[2], 0, (uint64_t)g->nx - 1, &ix);
    if (status == CALOMU_OK)
        status = tool_csv_whole(csv, 3, value[3], 0, (uint64_t)g->ny - 1, &iy);
    if (status != CALOMU_OK) return status;
    if (value[4] < 0)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'energy' is negative: %s",
                             tool_csv_text(csv, 4));
    if (job->truth.path && event >= job->n_events)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "event %llu, but %s has %zu events, numbered "
                             "from 0", (unsigned long long)event, import_name(job->truth.path),
                             job->n_events);
    hit = import_grow(job->hit, &job->room_hits, job->n_hits, sizeof *hit,
                      import_name(job->hits_path));
    if (!hit) return CALOMU_EMEMORY;
    job->hit = hit;
    hit += job->n_hits;
    hit->event = (uint32_t)event;
    hit->cell = (uint32_t)((iz * (uint64_t)g->nx + ix) * (uint64_t)g->ny + iy);
    status = import_float(csv, "energy", value[4] * job->scale, &hit->energy);
    if (status != CALOMU_OK) return status;
    if (job->n_hits > 0 && hit->event < hit[-1].event) job->sorted = 0;
    if (job->n_hits == 0 || hit->event > job->largest) {
        job->largest = hit->event;
        job->largest_row = job->n_hits;
    }
    job->n_hits++;
    return CALOMU_OK;
}

static calomu_status import_read_hits(import_job *job)
{
    static const tool_column columns[] = {
        { "event", TOOL_CELL_NUMBER, 0 }, { "iz", TOOL_CELL_NUMBER, 0 },
        { "ix", TOOL_CELL_NUMBER, 0 }, { "iy", TOOL_CELL_NUMBER, 0 },
        { "energy", TOOL_CELL_NUMBER, 0 }
    };
    double value[5];
    int more = 1;
    tool_csv *csv;
    tool_progress progress;
    calomu_status status = tool_csv_open(job->hits_path, columns, 5, &csv);
    if (status != CALOMU_OK) return status;
    tool_progress_begin(&progress, "reading hits", "hits", 0);
    job->sorted = 1;
    while (status == CALOMU_OK) {
        status = tool_csv_next(csv, value, &more);
        if (status != CALOMU_OK || !more) break;
        status = import_hit_row(job, csv, value);
        if ((job->n_hits & 4095) != 0) continue;
        tool_progress_at(&progress, job->n_hits, NULL);
        if (tool_stop) status = CALOMU_STOPPED;
    }
    tool_progress_end(&progress);
    tool_csv_close(csv);
    return status;
}

/* ---------------------------------------------------------------- import: truth, losses */

/* Inside the face, by the rule of the library: the low edge belongs to the cell. */
static int import_on_face(const calomu_geometry *g, int axis, double at)
{
    double index = floor((at - g->origin[axis]) / g->pitch[axis]);
    return index >= 0 && index < (double)(axis == 1 ? g->nx : g->ny);
}

/* What truth must obey; value: energy, x, y, charge, which are columns 1 to 4. */
static calomu_status import_check_truth(const import_job *job, const tool_csv *csv,
                                        const float value[4])
{
    int i;
    if (value[0] <= 0)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'energy' is %s, but must be above 0 GeV",
                             tool_csv_text(csv, 1));
    if (isnan(value[1]) != isnan(value[2]))
        return tool_csv_fail(csv, CALOMU_EFORMAT, "one of 'x' and 'y' is empty, the other not");
    for (i = 1; i < 3; i++)
        if (!isnan(value[i]) && !import_on_face(&job->geometry, i, (double)value[i]))
            return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is %s mm: outside the front face",
                                 i == 1 ? "x" : "y", tool_csv_text(csv, i + 1));
    if (!isnan(value[3]) && fabs((double)value[3]) != 1)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'charge' is %s, but must be 1, -1 or empty",
                             tool_csv_text(csv, 4));
    return CALOMU_OK;
}

/* Appends a row; columns: `event` and four more. */
static calomu_status import_table_row(import_table *t, const tool_csv *csv,
                                      const tool_column *columns, const double value[5])
{
    uint64_t event;
    import_row *row;
    int i;
    calomu_status status = tool_csv_whole(csv, 0, value[0], 0, UINT32_MAX - 1, &event);
    if (status != CALOMU_OK) return status;
    row = import_grow(t->row, &t->room, t->n, sizeof *row, import_name(t->path));
    if (!row) return CALOMU_EMEMORY;
    t->row = row;
    row += t->n;
    row->event = (uint32_t)event;
    for (i = 0; i < 4 && status == CALOMU_OK; i++)
        status = import_float(csv, columns[i + 1].name, value[i + 1], &row->value[i]);
    if (status == CALOMU_OK) t->n++;
    return status;
}

/* n rows must be the events 0..n-1, each once: anything else leaves an event out. */
static calomu_status import_number_rows(import_table *t)
{
    const char *path = import_name(t->path);
    size_t i, event, n = t->n;
    t->row_of = malloc((n ? n : 1) * sizeof *t->row_of);
    if (!t->row_of) return tool_fail(CALOMU_EMEMORY, "%s: no memory", path);
    for (i = 0; i < n; i++) t->row_of[i] = SIZE_MAX;
    for (i = 0; i < n; i++) {
        event = t->row[i].event;
        if (event >= n)
            return tool_fail(CALOMU_EFORMAT, "%s:%zu: event %zu, but the file has %zu events, "
                             "which must be numbered from 0 to %zu", path, i + 2, event, n, n - 1);
        if (t->row_of[event] != SIZE_MAX)
            return tool_fail(CALOMU_EFORMAT, "%s:%zu: event %zu was there before, in line %zu",
                             path, i + 2, event, t->row_of[event] + 2);
        t->row_of[event] = i;
    }
    return CALOMU_OK;
}

/* The values of an event; NULL if there is no such table. */
static const float *import_values(const import_table *t, size_t event)
{
    return t->path ? t->row[t->row_of[event]].value : NULL;
}

static calomu_status import_read_table(const import_job *job, import_table *t,
                                       const tool_column *columns)
{
    double value[5];
    int more = 1;
    tool_csv *csv;
    calomu_status status = tool_csv_open(t->path, columns, 5, &csv);
    if (status != CALOMU_OK) return status;
    while (status == CALOMU_OK) {
        status = tool_csv_next(csv, value, &more);
        if (status != CALOMU_OK || !more) break;
        status = import_table_row(t, csv, columns, value);
        if (status == CALOMU_OK && t == &job->truth)
            status = import_check_truth(job, csv, t->row[t->n - 1].value);
    }
    tool_csv_close(csv);
    return status == CALOMU_OK ? import_number_rows(t) : status;
}

static calomu_status import_read_truth(import_job *job)
{
    static const tool_column columns[] = {
        { "event", TOOL_CELL_NUMBER, 0 }, { "energy", TOOL_CELL_MAYBE, 0 },
        { "x", TOOL_CELL_MAYBE, 0 }, { "y", TOOL_CELL_MAYBE, 0 }, { "charge", TOOL_CELL_MAYBE, 0 }
    };
    calomu_status status = import_read_table(job, &job->truth, columns);
    job->n_events = job->truth.n;
    return status;
}

static calomu_status import_read_losses(import_job *job)
{
    static const tool_column columns[] = {
        { "event", TOOL_CELL_NUMBER, 0 }, { "lost", TOOL_CELL_MAYBE, 0 },
        { "deposited", TOOL_CELL_MAYBE, 0 }, { "leaked", TOOL_CELL_MAYBE, 0 },
        { "unseen", TOOL_CELL_MAYBE, 0 }
    };
    calomu_status status = import_read_table(job, &job->losses, columns);
    if (status == CALOMU_OK && job->losses.n != job->n_events)
        return tool_fail(CALOMU_EFORMAT, "%s has %zu events, but %s has %zu",
                         import_name(job->losses.path), job->losses.n,
                         import_name(job->truth.path), job->n_events);
    return status;
}

/* ---------------------------------------------------------------- import: order, and out */

/* Without truth, n is the largest event + 1.  A number that is far from the count of hits is a
   mistake in the file, and would otherwise make a huge file of empty events. */
static calomu_status import_number_hits(import_job *job)
{
    uint64_t most = 1000000 + 100 * (uint64_t)job->n_hits;
    if (job->truth.path) return CALOMU_OK;
    job->n_events = job->n_hits ? (size_t)job->largest + 1 : 0;
    if (job->n_events <= most) return CALOMU_OK;
    return tool_fail(CALOMU_EFORMAT, "%s:%zu: event %lu, but there are only %zu hits; if so many "
                     "events have none, name all events with --truth", import_name(job->hits_path),
                     job->largest_row + 2, (unsigned long)job->largest, job->n_hits);
}

/* A stable counting sort of the rows by event. */
static calomu_status import_sort(import_job *job)
{
    size_t i, n = job->n_events, *next;
    job->start = n < SIZE_MAX / 16 ? calloc(n + 2, sizeof *job->start) : NULL;
    if (!job->sorted) job->order = malloc((job->n_hits ? job->n_hits : 1) * sizeof *job->order);
    if (!job->start || (!job->sorted && !job->order))
        return tool_fail(CALOMU_EMEMORY, "no memory to sort %zu hits", job->n_hits);
    /* start is filled one place further on, so that it serves as the place of the next hit while
       the rows are dealt out, and is the start of each event afterwards. */
    next = job->start + 1;
    for (i = 0; i < job->n_hits; i++) next[job->hit[i].event + 1]++;
    for (i = 1; i <= n; i++) next[i] += next[i - 1];
    if (job->sorted) {
        memmove(job->start, next, (n + 1) * sizeof *next);
        return CALOMU_OK;
    }
    for (i = 0; i < job->n_hits; i++) job->order[next[job->hit[i].event]++] = i;
    return CALOMU_OK;
}

typedef struct import_cell {
    uint32_t cell;
    float energy;
    size_t row;
} import_cell;

static int import_by_cell(const void *a, const void *b)
{
    const import_cell *p = a, *q = b;
    if (p->cell != q->cell) return p->cell < q->cell ? -1 : 1;
    return p->row < q->row ? -1 : p->row > q->row;
}

/* The hits of one event by rising cell. */
static calomu_status import_gather(const import_job *job, size_t event, import_cell *cell,
                                   calomu_hit *hit)
{
    size_t i, row, n = job->start[event + 1] - job->start[event];
    const calomu_geometry *g = &job->geometry;
    uint32_t ny = (uint32_t)g->ny, nx = (uint32_t)g->nx;
    int rising = 1;
    for (i = 0; i < n; i++) {
        row = job->start[event] + i;
        if (!job->sorted) row = job->order[row];
        cell[i].cell = job->hit[row].cell;
        cell[i].energy = job->hit[row].energy;
        cell[i].row = row;
        if (i > 0 && cell[i].cell <= cell[i - 1].cell) rising = 0;
    }
    if (!rising) qsort(cell, n, sizeof *cell, import_by_cell);
    for (i = 0; i < n; i++) {
        if (i > 0 && cell[i].cell == cell[i - 1].cell)
            return tool_fail(CALOMU_EFORMAT, "%s:%zu: event %zu has cell %lu,%lu,%lu (iz,ix,iy) "
                             "twice: it was there in line %zu", import_name(job->hits_path),
                             cell[i].row + 2, event, (unsigned long)(cell[i].cell / (nx * ny)),
                             (unsigned long)(cell[i].cell / ny % nx),
                             (unsigned long)(cell[i].cell % ny), cell[i - 1].row + 2);
        hit[i].cell = cell[i].cell;
        hit[i].energy = cell[i].energy;
    }
    return CALOMU_OK;
}

static void import_event(const import_job *job, size_t i, calomu_hit *hit, calomu_event *event)
{
    const float *truth = import_values(&job->truth, i);
    memset(event, 0, sizeof *event);
    event->hits = hit;
    event->n_hits = job->start[i + 1] - job->start[i];
    event->energy = truth ? truth[0] : CALOMU_ABSENT;
    event->x = truth ? truth[1] : CALOMU_ABSENT;
    event->y = truth ? truth[2] : CALOMU_ABSENT;
    event->charge = truth ? truth[3] : CALOMU_ABSENT;
    event->losses = import_values(&job->losses, i);
}

static calomu_status import_write_events(calomu *c, const import_job *job, calomu_writer *writer,
                                         import_cell *cell, calomu_hit *hit)
{
    calomu_status status = CALOMU_OK;
    calomu_event event;
    size_t i;
    for (i = 0; i < job->n_events && status == CALOMU_OK; i++) {
        if (tool_stop) return CALOMU_STOPPED;
        status = import_gather(job, i, cell, hit);
        if (status != CALOMU_OK) return status;
        import_event(job, i, hit, &event);
        status = calomu_writer_add(writer, &event);
        if (status != CALOMU_OK) return tool_report(c, status);
    }
    return status;
}

static calomu_status import_write(calomu *c, const import_job *job)
{
    calomu_data_info info;
    calomu_writer *writer;
    import_cell *cell;
    calomu_hit *hit;
    size_t i, most = 1;
    calomu_status status;
    for (i = 0; i < job->n_events; i++)
        if (job->start[i + 1] - job->start[i] > most) most = job->start[i + 1] - job->start[i];
    memset(&info, 0, sizeof info);
    info.geometry = job->geometry;
    info.losses = job->losses.path != NULL;
    status = calomu_writer_open(c, job->out, &info, &writer);
    if (status != CALOMU_OK) return tool_report(c, status);
    cell = calloc(most, sizeof *cell);
    hit = calloc(most, sizeof *hit);
    status = cell && hit ? import_write_events(c, job, writer, cell, hit)
                         : tool_fail(CALOMU_EMEMORY, "no memory for %zu hits", most);
    free(cell);
    free(hit);
    if (status != CALOMU_OK) {
        calomu_writer_abandon(writer);
        return status;
    }
    status = calomu_writer_close(writer);
    if (status != CALOMU_OK) return tool_report(c, status);
    tool_notice("%s: %zu muons, %zu hits", job->out, job->n_events, job->n_hits);
    return CALOMU_OK;
}

static calomu_status import_run(import_job *job)
{
    calomu *c = NULL;
    calomu_status status = tool_open(&c, 1);
    if (status == CALOMU_OK && job->truth.path) status = import_read_truth(job);
    if (status == CALOMU_OK && job->losses.path) status = import_read_losses(job);
    if (status == CALOMU_OK) status = import_read_hits(job);
    if (status == CALOMU_OK) status = import_number_hits(job);
    if (status == CALOMU_OK) status = import_sort(job);
    if (status == CALOMU_OK) status = import_write(c, job);
    calomu_close(c);
    free(job->hit);
    free(job->truth.row);
    free(job->truth.row_of);
    free(job->losses.row);
    free(job->losses.row_of);
    free(job->start);
    free(job->order);
    if (tool_stop) tool_signals_obey();
    return status;
}

int verb_import(int argc, char **argv)
{
    import_job job = { 0 };
    int unit = -1;
    tool_option options[] = {
        { .name = "hits", .type = TOOL_STRING, .target = &job.hits_path, .value = "HITS.csv",
          .file = TOOL_READS,
          .help = "hits: columns event,iz,ix,iy,energy; - is standard input", .needed = 1 },
        { .name = "truth", .type = TOOL_STRING, .target = &job.truth.path, .value = "TRUTH.csv",
          .file = TOOL_READS,
          .help = "truth: columns event,energy,x,y,charge (GeV, mm); empty fields are unknown" },
        { .name = "losses", .type = TOOL_STRING, .target = &job.losses.path, .value = "LOSSES.csv",
          .file = TOOL_READS,
          .help = "where the energy went: columns event,lost,deposited,leaked,unseen (GeV); empty "
          "fields are unknown" },
        { .name = "energy-unit", .type = TOOL_CHOICE, .target = &unit, .value = "GeV|MeV",
          .help = "unit of the energies of the hits; truth and losses are in GeV always",
          .needed = 1 },
        { .name = "out", .type = TOOL_STRING, .target = &job.out, .value = "FILE.cmu",
          .file = TOOL_WRITES,
          .help = "data file to write", .needed = 1 },
        TOOL_OPTION_GEOMETRY(&job.geometry),
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "import",
        .purpose = "Makes a data file from CSV files.  Columns and rows may be in any order.",
        .options = options,
        .notes = "Events are numbered from 0.  TRUTH.csv and LOSSES.csv name each event once.  "
                 "Without --truth the\nlargest event of the hits is the last, and truth is unknown."
    };
    int code, standard;
    job.geometry = calomu_geometry_default();
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    if (job.losses.path && !job.truth.path) return (int)tool_misuse("--losses needs --truth");
    standard = import_standard(job.hits_path) + import_standard(job.truth.path)
             + import_standard(job.losses.path);
    if (standard > 1)
        return (int)tool_misuse("--hits, --truth and --losses cannot both be standard input");
    job.scale = unit == 1 ? 0.001 : 1.0;
    tool_signals_catch();
    return (int)import_run(&job);
}

/* ---------------------------------------------------------------- export */

enum { EXPORT_CHUNK = 256, EXPORT_DIGITS = 9 };
enum { EXPORT_HITS, EXPORT_TRUTH, EXPORT_FEATURES, EXPORT_LOSSES, EXPORT_FILES };

typedef struct export_job {
    calomu *c;
    calomu_data *data;
    calomu_events batch;
    const char *path[EXPORT_FILES];  /* NULL: not wanted */
    tool_writer *writer[EXPORT_FILES];
} export_job;

static void export_hits(tool_writer *w, const calomu_geometry *g, uint64_t number,
                        const calomu_event *e)
{
    uint32_t cell, nx = (uint32_t)g->nx, ny = (uint32_t)g->ny;
    size_t i;
    for (i = 0; i < e->n_hits; i++) {
        cell = e->hits[i].cell;
        tool_write_whole(w, number);
        tool_write_text(w, ",");
        tool_write_whole(w, cell / (nx * ny));
        tool_write_text(w, ",");
        tool_write_whole(w, cell / ny % nx);
        tool_write_text(w, ",");
        tool_write_whole(w, cell % ny);
        tool_write_text(w, ",");
        tool_write_number(w, (double)e->hits[i].energy, EXPORT_DIGITS);
        tool_write_text(w, "\n");
    }
}

static void export_numbers(tool_writer *w, uint64_t number, const float *x, int n)
{
    int i;
    tool_write_whole(w, number);
    for (i = 0; i < n; i++) {
        tool_write_text(w, ",");
        tool_write_number(w, (double)x[i], EXPORT_DIGITS);
    }
    tool_write_text(w, "\n");
}

static void export_event(export_job *job, uint64_t number, const calomu_event *e)
{
    const calomu_geometry *g = &calomu_data_describe(job->data)->geometry;
    tool_writer *const *w = job->writer;
    float truth[4];
    truth[0] = e->energy;
    truth[1] = e->x;
    truth[2] = e->y;
    truth[3] = e->charge;
    if (w[EXPORT_HITS]) export_hits(w[EXPORT_HITS], g, number, e);
    if (w[EXPORT_TRUTH]) export_numbers(w[EXPORT_TRUTH], number, truth, 4);
    if (w[EXPORT_FEATURES])
        export_numbers(w[EXPORT_FEATURES], number, e->features, CALOMU_FEATURES);
    if (w[EXPORT_LOSSES]) export_numbers(w[EXPORT_LOSSES], number, e->losses, CALOMU_LOSSES);
}

static calomu_status export_open(export_job *job)
{
    static const char *const head[EXPORT_FILES] = {
        "event,iz,ix,iy,energy", "event,energy,x,y,charge", "event",
        "event,lost,deposited,leaked,unseen"
    };
    calomu_status status = CALOMU_OK;
    int i, k;
    for (i = 0; i < EXPORT_FILES && status == CALOMU_OK; i++)
        if (job->path[i]) status = tool_writer_open(job->c, job->path[i], &job->writer[i]);
    for (i = 0; i < EXPORT_FILES && status == CALOMU_OK; i++) {
        if (!job->writer[i]) continue;
        tool_write_text(job->writer[i], head[i]);
        for (k = 0; i == EXPORT_FEATURES && k < CALOMU_FEATURES; k++)
            tool_write_format(job->writer[i], ",%s", calomu_feature_name(k));
        tool_write_text(job->writer[i], "\n");
    }
    return status;
}

static calomu_status export_writers(const export_job *job)
{
    calomu_status status;
    int i;
    for (i = 0; i < EXPORT_FILES; i++) {
        status = job->writer[i] ? tool_writer_status(job->writer[i]) : CALOMU_OK;
        if (status != CALOMU_OK) return status;
    }
    return CALOMU_OK;
}

/* Ends on a failure of a writer with OK: closing it reports the failure. */
static calomu_status export_loop(export_job *job)
{
    uint64_t first, n = calomu_data_describe(job->data)->n_events;
    size_t i, part;
    calomu_status status;
    tool_progress progress;
    tool_progress_begin(&progress, "export", "muons", n);
    for (first = 0; first < n && export_writers(job) == CALOMU_OK; first += part) {
        part = n - first < EXPORT_CHUNK ? (size_t)(n - first) : EXPORT_CHUNK;
        status = calomu_data_read(job->c, job->data, first, NULL, part, &job->batch);
        if (status != CALOMU_OK) return tool_report(job->c, status);
        if (tool_stop) return CALOMU_STOPPED;
        for (i = 0; i < part; i++) export_event(job, first + i, &job->batch.event[i]);
        tool_progress_at(&progress, first + part, NULL);
    }
    tool_progress_end(&progress);
    return CALOMU_OK;
}

static calomu_status export_check(const export_job *job, const char *path)
{
    const calomu_data_info *info = calomu_data_describe(job->data);
    if (job->path[EXPORT_LOSSES] && !info->losses)
        return tool_fail(CALOMU_EFORMAT, "%s: the file has no losses; calomu simulate writes "
                         "files that have", path);
    if (!job->path[EXPORT_FEATURES]) return CALOMU_OK;
    if (info->features == CALOMU_FEATURES_NONE)
        return tool_fail(CALOMU_EFORMAT, "%s: the file has no features; calomu features adds them",
                         path);
    if (info->features != CALOMU_FEATURES_RAW)
        tool_notice("the features of %s are standardised%s", path,
                    info->features == CALOMU_FEATURES_STANDARDISED
                        ? "" : " (mean and deviation unknown)");
    return CALOMU_OK;
}

/* All files are closed, that is appear, only if everything went well. */
static calomu_status export_close(export_job *job, calomu_status status)
{
    calomu_status closed;
    int i;
    if (status == CALOMU_OK && export_writers(job) != CALOMU_OK) {
        for (i = 0; i < EXPORT_FILES; i++) {
            if (job->writer[i] && tool_writer_status(job->writer[i]) != CALOMU_OK) {
                status = tool_writer_close(job->writer[i]);
                job->writer[i] = NULL;
                break;
            }
        }
    }
    for (i = 0; i < EXPORT_FILES; i++) {
        if (!job->writer[i]) continue;
        if (status != CALOMU_OK) {
            tool_writer_abandon(job->writer[i]);
            continue;
        }
        closed = tool_writer_close(job->writer[i]);
        if (closed != CALOMU_OK) status = closed;
    }
    return status;
}

static calomu_status export_run(export_job *job, const char *path)
{
    calomu_status status = tool_open(&job->c, 1);
    if (status != CALOMU_OK) return status;
    status = calomu_data_open(job->c, path, &job->data);
    if (status != CALOMU_OK)
        (void)tool_report(job->c, status);
    else
        status = export_check(job, path);
    if (status == CALOMU_OK) status = export_open(job);
    if (status == CALOMU_OK) status = export_loop(job);
    status = export_close(job, status);
    calomu_events_free(&job->batch);
    calomu_data_close(job->data);
    calomu_close(job->c);
    if (status == CALOMU_STOPPED) tool_signals_obey();
    return status;
}

int verb_export(int argc, char **argv)
{
    export_job job = { 0 };
    const char *in = NULL;
    tool_operand operands[] = { { .name = "FILE.cmu", .target = &in }, { .name = NULL } };
    tool_option options[] = {
        { .name = "hits", .type = TOOL_STRING, .target = &job.path[EXPORT_HITS],
          .value = "HITS.csv",
          .file = TOOL_WRITES,
          .help = "hits to write: event,iz,ix,iy,energy (GeV); - is standard output" },
        { .name = "truth", .type = TOOL_STRING, .target = &job.path[EXPORT_TRUTH],
          .value = "TRUTH.csv",
          .file = TOOL_WRITES,
          .help = "truth to write: event,energy,x,y,charge (GeV, mm); unknown: empty" },
        { .name = "features", .type = TOOL_STRING, .target = &job.path[EXPORT_FEATURES],
          .value = "FEATURES.csv", .file = TOOL_WRITES,
          .help = "features to write: event and the 28, as in the file" },
        { .name = "losses", .type = TOOL_STRING, .target = &job.path[EXPORT_LOSSES],
          .value = "LOSSES.csv",
          .file = TOOL_WRITES,
          .help = "losses to write: event,lost,deposited,leaked,unseen (GeV); unknown: empty" },
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "export",
        .purpose = "Writes hits, truth, features or losses of a data file as CSV; at least one of "
                   "them.",
        .operands = operands, .options = options,
        .notes = "Numbers have 9 significant digits: calomu import --energy-unit GeV makes the "
                 "same file of\nhits, truth and losses again (with --geometry if it is not the "
                 "default)."
    };
    int code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    if (!job.path[EXPORT_HITS] && !job.path[EXPORT_TRUTH] && !job.path[EXPORT_FEATURES]
        && !job.path[EXPORT_LOSSES])
        return (int)tool_misuse("nothing to write: give --hits, --truth, --features or --losses");
    tool_signals_catch();
    return (int)export_run(&job, in);
}
