/* rows.c - rows of hits, truth and losses to muons; see rows.h. */
#include "rows.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const tool_column tool_rows_columns[TOOL_ROWS_TABLES][5] = {
    { { "event", TOOL_CELL_NUMBER, 0 }, { "iz", TOOL_CELL_NUMBER, 0 },
      { "ix", TOOL_CELL_NUMBER, 0 }, { "iy", TOOL_CELL_NUMBER, 0 },
      { "energy", TOOL_CELL_NUMBER, 0 } },
    { { "event", TOOL_CELL_NUMBER, 0 }, { "energy", TOOL_CELL_MAYBE, 0 },
      { "x", TOOL_CELL_MAYBE, 0 }, { "y", TOOL_CELL_MAYBE, 0 }, { "charge", TOOL_CELL_MAYBE, 0 } },
    { { "event", TOOL_CELL_NUMBER, 0 }, { "lost", TOOL_CELL_MAYBE, 0 },
      { "deposited", TOOL_CELL_MAYBE, 0 }, { "leaked", TOOL_CELL_MAYBE, 0 },
      { "unseen", TOOL_CELL_MAYBE, 0 } }
};
const char *const tool_rows_option[TOOL_ROWS_TABLES] = {
    "hits-columns", "truth-columns", "losses-columns"
};

/* ---------------------------------------------------------------- messages, memory */

static calomu_status rows_say(tool_rows *r, calomu_status status, const char *format, ...)
    TOOL_PRINTF(3, 4);
static calomu_status rows_say(tool_rows *r, calomu_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(r->message, sizeof r->message, format, args);
    va_end(args);
    return status;
}

/* The same behind the place of a row: "HITS.csv:7: ..." or "FILE.h5: /hits row 7: ...". */
static calomu_status rows_say_at(tool_rows *r, int table, size_t row, const char *format, ...)
    TOOL_PRINTF(4, 5);
static calomu_status rows_say_at(tool_rows *r, int table, size_t row, const char *format, ...)
{
    char text[500];
    int lines = strcmp(r->row_word, "line") == 0;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return rows_say(r, CALOMU_EFORMAT, "%s%s%zu: %s", r->name[table], lines ? ":" : " row ",
                    r->first[table] + row, text);
}

/* The array with room for one more object; it doubles.  NULL: no memory, and the array is as it
   was. */
static void *rows_grow(tool_rows *r, int table, void *array, size_t *room, size_t n, size_t size)
{
    void *more;
    size_t want = *room ? 2 * *room : 4096;
    if (n < *room) return array;
    more = want > SIZE_MAX / 2 / size ? NULL : realloc(array, want * size);
    if (more)
        *room = want;
    else
        (void)rows_say(r, CALOMU_EMEMORY, "%s: no memory for more than %zu rows", r->name[table],
                       n);
    return more;
}

/* ---------------------------------------------------------------- cells of one muon */

int tool_to_float(double x, float *out)
{
    double most = (double)FLT_MAX, half_place = most / (1 << 25);
    if (!(fabs(x) <= most + half_place)) return 0;
    *out = fabs(x) > most ? (x > 0 ? FLT_MAX : -FLT_MAX) : (float)x;
    return 1;
}

int tool_rules_refuse(const tool_rules *rules, double energy)
{
    return energy < 0 && rules->negative == TOOL_NEGATIVE_REFUSE && !rules->sum;
}

static int rows_by_cell(const void *a, const void *b)
{
    const tool_cell_row *p = a, *q = b;
    if (p->cell != q->cell) return p->cell < q->cell ? -1 : 1;
    return p->row < q->row ? -1 : p->row > q->row;
}

/* One hit of n rows of the same cell, added in their order, in double. */
static calomu_status rows_join(const tool_rules *rules, const tool_cell_row *row, size_t n,
                               calomu_hit *hit, tool_cells_fault *why)
{
    double sum = row[0].energy;
    size_t i;
    for (i = 1; i < n; i++) sum += row[i].energy;
    if (sum < 0 && rules->negative == TOOL_NEGATIVE_REFUSE) {
        *why = TOOL_CELLS_NEGATIVE;
        return CALOMU_EFORMAT;
    }
    hit->cell = row[0].cell;
    if (tool_to_float(sum < 0 ? 0 : sum, &hit->energy)) return CALOMU_OK;
    *why = TOOL_CELLS_LARGE;
    return CALOMU_EFORMAT;
}

calomu_status tool_cells_settle(const tool_rules *rules, tool_cell_row *row, size_t n,
                                calomu_hit *hit, size_t *hits, size_t *bad, tool_cells_fault *why)
{
    size_t i, end;
    int rising = 1;
    calomu_status status = CALOMU_OK;
    *hits = 0;
    for (i = 1; i < n && rising; i++) rising = row[i].cell > row[i - 1].cell;
    if (!rising) qsort(row, n, sizeof *row, rows_by_cell);
    for (i = 0; i < n && status == CALOMU_OK; i = end) {
        for (end = i + 1; end < n && row[end].cell == row[i].cell; end++) continue;
        *bad = i;
        if (end > i + 1 && !rules->sum) {
            *bad = i + 1;
            *why = TOOL_CELLS_TWICE;
            return CALOMU_EFORMAT;
        }
        status = rows_join(rules, row + i, end - i, &hit[(*hits)++], why);
    }
    return status;
}

/* ---------------------------------------------------------------- truth and losses */

/* Inside the face, by the rule of the library: the low edge belongs to the cell. */
static int rows_on_face(const calomu_geometry *g, int axis, double at)
{
    double index = floor((at - g->origin[axis]) / g->pitch[axis]);
    return index >= 0 && index < (double)(axis == 1 ? g->nx : g->ny);
}

/* What truth must obey; value: energy, x, y, charge, NaN where unknown. */
static calomu_status rows_check_truth(tool_rows *r, const double value[4])
{
    size_t row = r->n[TOOL_ROWS_TRUTH];
    int i, table = TOOL_ROWS_TRUTH;
    if (value[0] <= 0)
        return rows_say_at(r, table, row, "'energy' is %g, but must be above 0 GeV", value[0]);
    if (isnan(value[1]) != isnan(value[2]))
        return rows_say_at(r, table, row, "one of 'x' and 'y' is empty, the other not");
    for (i = 1; i < 3; i++)
        if (!isnan(value[i]) && !rows_on_face(&r->geometry, i, (double)(float)value[i]))
            return rows_say_at(r, table, row, "'%s' is %g mm: outside the front face",
                               i == 1 ? "x" : "y", value[i]);
    if (!isnan(value[3]) && fabs(value[3]) != 1)
        return rows_say_at(r, table, row, "'charge' is %g, but must be 1, -1 or empty", value[3]);
    return CALOMU_OK;
}

calomu_status tool_rows_truth(tool_rows *r, int table, uint64_t event, const double value[4])
{
    calomu_status status = CALOMU_OK;
    tool_truth_row *row = rows_grow(r, table, r->truth[table], &r->room[table], r->n[table],
                                    sizeof *row);
    int i;
    if (!row) return CALOMU_EMEMORY;
    r->truth[table] = row;
    row += r->n[table];
    row->event = event;
    row->row = r->n[table];
    for (i = 0; i < 4; i++) {
        row->value[i] = CALOMU_ABSENT;
        if (isnan(value[i]) || tool_to_float(value[i], &row->value[i])) continue;
        return rows_say_at(r, table, r->n[table], "'%s' is %g, which is too large",
                           tool_rows_columns[table][i + 1].name, value[i]);
    }
    if (table == TOOL_ROWS_TRUTH) status = rows_check_truth(r, value);
    if (status == CALOMU_OK) r->n[table]++;
    return status;
}

static int rows_by_event(const void *a, const void *b)
{
    const tool_truth_row *p = a, *q = b;
    if (p->event != q->event) return p->event < q->event ? -1 : 1;
    return p->row < q->row ? -1 : p->row > q->row;
}

/* Losses that name other events than truth does: the first of those that only one of them has. */
static calomu_status rows_compare(tool_rows *r)
{
    const tool_truth_row *t = r->truth[TOOL_ROWS_TRUTH], *l = r->truth[TOOL_ROWS_LOSSES];
    size_t i, n = r->n[TOOL_ROWS_TRUTH], m = r->n[TOOL_ROWS_LOSSES];
    const char *truth = r->name[TOOL_ROWS_TRUTH], *losses = r->name[TOOL_ROWS_LOSSES];
    for (i = 0; i < n && i < m && t[i].event == l[i].event; i++) continue;
    if (i == n && i == m) return CALOMU_OK;
    if (i < m && (i == n || l[i].event < t[i].event))
        return rows_say_at(r, TOOL_ROWS_LOSSES, l[i].row, "event %llu is not in %s (%s has %zu "
                           "events, %s %zu)", (unsigned long long)l[i].event, truth, losses, m,
                           truth, n);
    return rows_say(r, CALOMU_EFORMAT, "%s has no event %llu, which is in %s (%s has %zu events, "
                    "%s %zu)", losses, (unsigned long long)t[i].event, truth, losses, m, truth, n);
}

calomu_status tool_rows_number(tool_rows *r, int table)
{
    tool_truth_row *t = r->truth[table];
    size_t i, n = r->n[table];
    if (n > 1) qsort(t, n, sizeof *t, rows_by_event);
    for (i = 1; i < n; i++)
        if (t[i].event == t[i - 1].event)
            return rows_say_at(r, table, t[i].row, "event %llu was there before, in %s %zu",
                               (unsigned long long)t[i].event, r->row_word,
                               r->first[table] + t[i - 1].row);
    if (table == TOOL_ROWS_LOSSES) return rows_compare(r);
    r->n_muons = n;
    r->event = malloc((n + 1) * sizeof *r->event);
    if (!r->event) return rows_say(r, CALOMU_EMEMORY, "%s: no memory", r->name[table]);
    for (i = 0; i < n; i++) r->event[i] = t[i].event;
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- hits */

/* Index of an event among n rising ones; n if it is not there.  `near` is looked at first: rows of
   one event mostly stand together. */
static size_t rows_find(const uint64_t *event, size_t n, uint64_t wanted, size_t near)
{
    size_t low = 0, high = n, middle;
    if (near < n && event[near] == wanted) return near;
    if (near + 1 < n && event[near + 1] == wanted) return near + 1;
    while (low < high) {
        middle = low + (high - low) / 2;
        if (event[middle] < wanted) low = middle + 1;
        else high = middle;
    }
    return low < n && event[low] == wanted ? low : n;
}

calomu_status tool_rows_hit(tool_rows *r, uint64_t event, uint32_t cell, double energy)
{
    size_t muon = (size_t)event;
    tool_hit_row *hit;
    if (r->event) {
        muon = rows_find(r->event, r->n_muons, event, r->last);
        if (muon == r->n_muons)
            return rows_say_at(r, TOOL_ROWS_HITS, r->n_hits, "event %llu is not in %s, which has "
                               "%zu events", (unsigned long long)event, r->name[TOOL_ROWS_TRUTH],
                               r->n_muons);
    } else if (event > UINT32_MAX - 1) {
        return rows_say_at(r, TOOL_ROWS_HITS, r->n_hits, "event %llu: numbers above %lu need a "
                           "table of truth", (unsigned long long)event,
                           (unsigned long)(UINT32_MAX - 1));
    }
    hit = rows_grow(r, TOOL_ROWS_HITS, r->hit, &r->room_hits, r->n_hits, sizeof *hit);
    if (!hit) return CALOMU_EMEMORY;
    r->hit = hit;
    hit += r->n_hits;
    hit->muon = (uint32_t)muon;
    hit->cell = cell;
    hit->energy = energy;
    if (r->n_hits > 0 && muon < r->last) r->unsorted = 1;
    if (r->n_hits == 0 || event > r->largest) {
        r->largest = event;
        r->largest_row = r->n_hits;
    }
    r->last = muon;
    r->n_hits++;
    return CALOMU_OK;
}

static int rows_by_number(const void *a, const void *b)
{
    uint64_t p = *(const uint64_t *)a, q = *(const uint64_t *)b;
    return p < q ? -1 : p > q;
}

/* The events that hits have, instead of all numbers up to the largest. */
static calomu_status rows_skip(tool_rows *r)
{
    size_t i, n = 0, kept = 0, runs = 0;
    for (i = 0; i < r->n_hits; i++) runs += i == 0 || r->hit[i].muon != r->hit[i - 1].muon;
    r->event = malloc((runs + 1) * sizeof *r->event);
    if (!r->event)
        return rows_say(r, CALOMU_EMEMORY, "%s: no memory", r->name[TOOL_ROWS_HITS]);
    for (i = 0; i < r->n_hits; i++)
        if (i == 0 || r->hit[i].muon != r->hit[i - 1].muon) r->event[n++] = r->hit[i].muon;
    if (r->unsorted) qsort(r->event, n, sizeof *r->event, rows_by_number);
    for (i = 0; i < n; i++)
        if (kept == 0 || r->event[i] != r->event[kept - 1]) r->event[kept++] = r->event[i];
    r->n_muons = kept;
    for (i = 0, n = 0; i < r->n_hits; i++) {
        n = rows_find(r->event, kept, r->hit[i].muon, n);
        r->hit[i].muon = (uint32_t)n;
    }
    return CALOMU_OK;
}

/* Without truth, n is the largest event + 1.  A number that is far from the count of hits is a
   mistake in the file, and would otherwise make a huge file of empty events. */
static calomu_status rows_number_hits(tool_rows *r)
{
    uint64_t most = 1000000 + 100 * (uint64_t)r->n_hits;
    if (r->event) return CALOMU_OK;
    if (r->rules.gaps == TOOL_GAPS_SKIP) return rows_skip(r);
    r->n_muons = r->n_hits ? (size_t)r->largest + 1 : 0;
    if (r->n_muons <= most) return CALOMU_OK;
    return rows_say_at(r, TOOL_ROWS_HITS, r->largest_row, "event %llu, but there are only %zu "
                       "hits; if numbers have gaps, name all events with --truth, or give "
                       "--gaps skip", (unsigned long long)r->largest, r->n_hits);
}

/* A stable counting sort of the rows by muon. */
static calomu_status rows_sort(tool_rows *r)
{
    size_t i, n = r->n_muons, *next;
    r->start = n < SIZE_MAX / 16 ? calloc(n + 2, sizeof *r->start) : NULL;
    if (r->unsorted) r->order = malloc((r->n_hits + 1) * sizeof *r->order);
    if (!r->start || (r->unsorted && !r->order))
        return rows_say(r, CALOMU_EMEMORY, "no memory to sort %zu hits", r->n_hits);
    /* start is filled one place further on, so that it serves as the place of the next hit while
       the rows are dealt out, and is the start of each muon afterwards. */
    next = r->start + 1;
    for (i = 0; i < r->n_hits; i++) next[r->hit[i].muon + 1]++;
    for (i = 1; i <= n; i++) next[i] += next[i - 1];
    if (!r->unsorted) {
        memmove(r->start, next, (n + 1) * sizeof *next);
        return CALOMU_OK;
    }
    for (i = 0; i < r->n_hits; i++) r->order[next[r->hit[i].muon]++] = i;
    return CALOMU_OK;
}

calomu_status tool_rows_finish(tool_rows *r)
{
    size_t i, n;
    calomu_status status = rows_number_hits(r);
    if (status == CALOMU_OK) status = rows_sort(r);
    if (status != CALOMU_OK) return status;
    r->most = 1;
    for (i = 0; i < r->n_muons; i++) {
        n = r->start[i + 1] - r->start[i];
        r->empty += n == 0 && !r->event;
        if (n > r->most) r->most = n;
    }
    r->cell = calloc(r->most, sizeof *r->cell);
    r->out = calloc(r->most, sizeof *r->out);
    if (r->cell && r->out) return CALOMU_OK;
    return rows_say(r, CALOMU_EMEMORY, "no memory for %zu hits", r->most);
}

static calomu_status rows_fault(tool_rows *r, size_t muon, size_t bad, tool_cells_fault why)
{
    const tool_cell_row *c = &r->cell[bad];
    unsigned long nx = (unsigned long)r->geometry.nx, ny = (unsigned long)r->geometry.ny;
    unsigned long long event = r->event ? r->event[muon] : muon;
    char cell[100];
    (void)snprintf(cell, sizeof cell, "event %llu has cell %lu,%lu,%lu (iz,ix,iy)", event,
                   c->cell / (nx * ny), c->cell / ny % nx, c->cell % ny);
    if (why == TOOL_CELLS_TWICE)
        return rows_say_at(r, TOOL_ROWS_HITS, c->row, "%s twice: it was there in %s %zu; --sum "
                           "adds the rows of a cell", cell, r->row_word,
                           r->first[TOOL_ROWS_HITS] + c[-1].row);
    if (why == TOOL_CELLS_NEGATIVE)
        return rows_say_at(r, TOOL_ROWS_HITS, c->row, "%s with an energy below 0: %g GeV; "
                           "--negative zero makes it 0", cell, c->energy);
    return rows_say_at(r, TOOL_ROWS_HITS, c->row, "%s with an energy that is too large", cell);
}

calomu_status tool_rows_muon(tool_rows *r, size_t i, calomu_event *event)
{
    const tool_truth_row *truth = r->truth[TOOL_ROWS_TRUTH], *losses = r->truth[TOOL_ROWS_LOSSES];
    size_t k, row, n = r->start[i + 1] - r->start[i], bad = 0;
    tool_cells_fault why = TOOL_CELLS_TWICE;
    for (k = 0; k < n; k++) {
        row = r->start[i] + k;
        if (r->order) row = r->order[row];
        r->cell[k].cell = r->hit[row].cell;
        r->cell[k].energy = r->hit[row].energy;
        r->cell[k].row = row;
    }
    memset(event, 0, sizeof *event);
    if (tool_cells_settle(&r->rules, r->cell, n, r->out, &event->n_hits, &bad, &why) != CALOMU_OK)
        return rows_fault(r, i, bad, why);
    event->hits = r->out;
    event->energy = truth ? truth[i].value[0] : CALOMU_ABSENT;
    event->x = truth ? truth[i].value[1] : CALOMU_ABSENT;
    event->y = truth ? truth[i].value[2] : CALOMU_ABSENT;
    event->charge = truth ? truth[i].value[3] : CALOMU_ABSENT;
    event->losses = losses ? losses[i].value : NULL;
    return CALOMU_OK;
}

int tool_rows_remark(const tool_rows *r, char text[300])
{
    size_t n = r->n_muons;
    if (r->empty) {
        (void)snprintf(text, 300, "%zu of the events 0 to %zu have no hits, and are muons without "
                       "hits; if they are gaps: --truth names the events that there are, --gaps "
                       "skip leaves them out", r->empty, n - 1);
        return 1;
    }
    if (!r->event || n == 0 || r->event[n - 1] == n - 1) return 0;
    (void)snprintf(text, 300, "muons are numbered from 0 by rising event: muon 0 is event %llu, "
                   "muon %zu event %llu", (unsigned long long)r->event[0], n - 1,
                   (unsigned long long)r->event[n - 1]);
    return 1;
}

void tool_rows_free(tool_rows *r)
{
    int i;
    for (i = 0; i < TOOL_ROWS_TABLES; i++) free(r->truth[i]);
    free(r->hit);
    free(r->event);
    free(r->start);
    free(r->order);
    free(r->cell);
    free(r->out);
}
