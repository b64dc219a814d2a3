/* import.c - `calomu import` and `calomu export`: data files from and to CSV.

   Hits are `event,iz,ix,iy,energy`, truth is `event,energy,x,y,charge`, losses are
   `event,lost,deposited,leaked,unseen`, features are `event` and the 28 names; energies GeV (hits
   on import: as --energy-unit says), lengths mm.  Floats are written with 9 significant digits,
   from which they come back to the same bits.  */
#include "calomu_tool.h"
#include "rows.h"

#include <stdlib.h>
#include <string.h>

#define IMPORT_EVENT_MOST (((uint64_t)1 << 53) - 1)  /* numbers a double tells apart */

/* ---------------------------------------------------------------- import */

typedef struct import_job {
    const char *path[TOOL_ROWS_TABLES];      /* NULL: not given */
    const char *columns[TOOL_ROWS_TABLES];   /* --hits-columns ...; NULL: the usual names */
    const char *out;
    double scale;                    /* from the unit of the hits to GeV */
    tool_rows rows;
    char *renamed[TOOL_ROWS_TABLES]; /* where the names of `columns` lie */
    int given;                       /* 1: --geometry is there */
    uint64_t end[3];                 /* behind the last iz, ix, iy with a hit */
} import_job;

static int import_standard(const char *path) { return path && strcmp(path, "-") == 0; }

static calomu_status import_say(const tool_rows *rows, calomu_status status)
{
    return status == CALOMU_OK ? status : tool_fail(status, "%s", rows->message);
}

/* ---- hits */

/* Column i, 1 to 3, of a hit: a number of one of `cells` cells. */
static calomu_status import_cell(import_job *job, const tool_csv *csv, int i, double value,
                                 int32_t cells, uint64_t *out)
{
    calomu_status status;
    if (value >= (double)cells)
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'%s' is %.40s, but must be from 0 to %d: %s"
                             "--geometry gives other cells", tool_csv_name(csv, i),
                             tool_csv_text(csv, i), (int)cells - 1, value > (double)cells
                                 ? "" : "do numbers begin with 1 here? ");
    status = tool_csv_whole(csv, i, value, 0, (uint64_t)cells - 1, out);
    if (status == CALOMU_OK && *out >= job->end[i - 1]) job->end[i - 1] = *out + 1;
    return status;
}

static calomu_status import_hit_row(import_job *job, const tool_csv *csv, const double value[5])
{
    const calomu_geometry *g = &job->rows.geometry;
    uint64_t event, iz, ix, iy;
    calomu_status status = tool_csv_whole(csv, 0, value[0], 0, IMPORT_EVENT_MOST, &event);
    if (status == CALOMU_OK) status = import_cell(job, csv, 1, value[1], g->nz, &iz);
    if (status == CALOMU_OK) status = import_cell(job, csv, 2, value[2], g->nx, &ix);
    if (status == CALOMU_OK) status = import_cell(job, csv, 3, value[3], g->ny, &iy);
    if (status != CALOMU_OK) return status;
    if (tool_rules_refuse(&job->rows.rules, value[4]))
        return tool_csv_fail(csv, CALOMU_EFORMAT, "'energy' is negative: %s; --negative zero makes "
                             "it 0", tool_csv_text(csv, 4));
    return import_say(&job->rows, tool_rows_hit(&job->rows, event,
        (uint32_t)((iz * (uint64_t)g->nx + ix) * (uint64_t)g->ny + iy), value[4] * job->scale));
}

static calomu_status import_open(import_job *job, int table, tool_column column[5], tool_csv **csv)
{
    const char *option = tool_rows_option[table];
    calomu_status status = tool_columns_rename(column, tool_rows_columns[table], 5, option,
                                               job->columns[table], &job->renamed[table]);
    if (status != CALOMU_OK) return status;
    return tool_csv_open_as(job->path[table], column, 5, option, csv);
}

static calomu_status import_read_hits(import_job *job)
{
    tool_column columns[5];
    double value[5];
    int more = 1;
    tool_csv *csv;
    tool_progress progress;
    calomu_status status = import_open(job, TOOL_ROWS_HITS, columns, &csv);
    if (status != CALOMU_OK) return status;
    tool_progress_begin(&progress, "reading hits", "hits", 0);
    while (status == CALOMU_OK) {
        status = tool_csv_next(csv, value, &more);
        if (status != CALOMU_OK || !more) break;
        job->rows.first[TOOL_ROWS_HITS] = tool_csv_first(csv);
        status = import_hit_row(job, csv, value);
        if ((job->rows.n_hits & 4095) != 0) continue;
        tool_progress_at(&progress, job->rows.n_hits, NULL);
        if (tool_stop) status = CALOMU_STOPPED;
    }
    tool_progress_end(&progress);
    tool_csv_close(csv);
    return status;
}

/* ---- truth, losses */

static calomu_status import_read_table(import_job *job, int table)
{
    tool_column columns[5];
    double value[5];
    uint64_t event;
    int more = 1;
    tool_csv *csv;
    calomu_status status = import_open(job, table, columns, &csv);
    if (status != CALOMU_OK) return status;
    while (status == CALOMU_OK) {
        status = tool_csv_next(csv, value, &more);
        if (status != CALOMU_OK || !more) break;
        job->rows.first[table] = tool_csv_first(csv);
        status = tool_csv_whole(csv, 0, value[0], 0, IMPORT_EVENT_MOST, &event);
        if (status == CALOMU_OK)
            status = import_say(&job->rows, tool_rows_truth(&job->rows, table, event, value + 1));
    }
    tool_csv_close(csv);
    return status == CALOMU_OK ? import_say(&job->rows, tool_rows_number(&job->rows, table))
                               : status;
}

/* ---- out */

static calomu_status import_write_events(calomu *c, import_job *job, calomu_writer *writer,
                                         uint64_t *hits)
{
    calomu_status status = CALOMU_OK;
    calomu_event event;
    size_t i;
    for (i = 0; i < job->rows.n_muons && status == CALOMU_OK; i++) {
        if (tool_stop) return CALOMU_STOPPED;
        status = import_say(&job->rows, tool_rows_muon(&job->rows, i, &event));
        if (status != CALOMU_OK) return status;
        *hits += event.n_hits;
        status = calomu_writer_add(writer, &event);
        if (status != CALOMU_OK) return tool_report(c, status);
    }
    return status;
}

/* Whoever forgets --geometry has muons in a corner of the default calorimeter. */
static void import_corner(const import_job *job)
{
    const calomu_geometry *g = &job->rows.geometry;
    const uint64_t cells[3] = { (uint64_t)g->nz, (uint64_t)g->nx, (uint64_t)g->ny };
    int i, half = 0;
    for (i = 0; i < 3; i++) half |= 2 * job->end[i] <= cells[i];
    if (half && !job->given && job->rows.n_hits >= 1000)
        tool_notice("the hits end with iz %llu, ix %llu, iy %llu, of the %d x %d x %d cells of the"
                    " paper: --geometry gives others", (unsigned long long)job->end[0] - 1,
                    (unsigned long long)job->end[1] - 1, (unsigned long long)job->end[2] - 1,
                    (int)g->nz, (int)g->nx, (int)g->ny);
}

static calomu_status import_write(calomu *c, import_job *job)
{
    calomu_data_info info;
    calomu_writer *writer;
    uint64_t hits = 0;
    char remark[300];
    calomu_status status;
    memset(&info, 0, sizeof info);
    info.geometry = job->rows.geometry;
    info.losses = job->path[TOOL_ROWS_LOSSES] != NULL;
    status = calomu_writer_open(c, job->out, &info, &writer);
    if (status != CALOMU_OK) return tool_report(c, status);
    status = import_write_events(c, job, writer, &hits);
    if (status != CALOMU_OK) {
        calomu_writer_abandon(writer);
        return status;
    }
    status = calomu_writer_close(writer);
    if (status != CALOMU_OK) return tool_report(c, status);
    if (tool_rows_remark(&job->rows, remark)) tool_notice("%s", remark);
    import_corner(job);
    tool_notice("%s: %zu muons, %llu hits", job->out, job->rows.n_muons, (unsigned long long)hits);
    return CALOMU_OK;
}

static calomu_status import_run(import_job *job)
{
    calomu *c = NULL;
    int i;
    calomu_status status = tool_open(&c, 1);
    for (i = TOOL_ROWS_TRUTH; i < TOOL_ROWS_TABLES && status == CALOMU_OK; i++)
        if (job->path[i]) status = import_read_table(job, i);
    if (status == CALOMU_OK) status = import_read_hits(job);
    if (status == CALOMU_OK) status = import_say(&job->rows, tool_rows_finish(&job->rows));
    if (status == CALOMU_OK) status = import_write(c, job);
    calomu_close(c);
    tool_rows_free(&job->rows);
    for (i = 0; i < TOOL_ROWS_TABLES; i++) free(job->renamed[i]);
    if (tool_stop) tool_signals_obey();
    return status;
}

static const char import_notes[] =
    "Tables may have commas, semicolons, tabs or blanks between fields, quotes around\n"
    "them, further columns, and names in a comment (numpy.savetxt, GEANT4's csv); NA\n"
    "and NaN are unknown, as an empty field is.  TRUTH.csv and LOSSES.csv name each\n"
    "event once, in any order and with gaps; muons come by rising event.  Without\n"
    "--truth the largest event of the hits is the last, and truth is unknown.  With\n"
    "--sum energies of a cell are added before --negative is applied.";

int verb_import(int argc, char **argv)
{
    import_job job = { 0 };
    int unit = -1;
    tool_option options[] = {
        { .name = "hits", .type = TOOL_STRING, .target = &job.path[0], .value = "HITS.csv",
          .file = TOOL_READS,
          .help = "hits: columns event,iz,ix,iy,energy; - is standard input", .needed = 1 },
        { .name = "truth", .type = TOOL_STRING, .target = &job.path[1], .value = "TRUTH.csv",
          .file = TOOL_READS,
          .help = "truth: columns event,energy,x,y,charge (GeV, mm); empty fields are unknown" },
        { .name = "losses", .type = TOOL_STRING, .target = &job.path[2], .value = "LOSSES.csv",
          .file = TOOL_READS,
          .help = "where the energy went: columns event,lost,deposited,leaked,unseen (GeV); empty "
          "fields are unknown" },
        { .name = "energy-unit", .type = TOOL_CHOICE, .target = &unit, .value = "GeV|MeV",
          .help = "unit of the energies of the hits; truth and losses are in GeV always",
          .needed = 1 },
        { .name = "out", .type = TOOL_STRING, .target = &job.out, .value = "FILE.cmu",
          .file = TOOL_WRITES,
          .help = "data file to write", .needed = 1 },
        TOOL_OPTION_GEOMETRY(&job.rows.geometry),
        TOOL_OPTIONS_CELLS(job.rows.rules),
        TOOL_OPTION_GAPS(job.rows.rules),
        TOOL_OPTION_COLUMNS("hits-columns", &job.columns[0], "the hits"),
        TOOL_OPTION_COLUMNS("truth-columns", &job.columns[1], "truth"),
        TOOL_OPTION_COLUMNS("losses-columns", &job.columns[2], "losses"),
        { .name = NULL }
    };
    tool_usage usage = {
        .verb = "import",
        .purpose = "Makes a data file from CSV files.  Columns and rows may be in any order.",
        .options = options, .notes = import_notes
    };
    int code, i, standard = 0;
    job.rows.geometry = calomu_geometry_default();
    job.rows.row_word = "line";
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    if (job.path[2] && !job.path[1]) return (int)tool_misuse("--losses needs --truth");
    for (i = 0; i < TOOL_ROWS_TABLES; i++) {
        standard += import_standard(job.path[i]);
        job.rows.name[i] = import_standard(job.path[i]) ? "standard input" : job.path[i];
    }
    if (standard > 1)
        return (int)tool_misuse("--hits, --truth and --losses cannot both be standard input");
    job.scale = unit == 1 ? 0.001 : 1.0;
    job.given = tool_given(&usage, "geometry");
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
