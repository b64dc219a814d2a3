/* rows.h - rows of hits, truth and losses, in any order, to muons: what `calomu import` and
   calomu-import-h5 share.

   A table of truth says which events there are, and every other table is matched to it by the
   number of the event; muons come by rising number, so that the order of the rows does not matter.
   Without truth every number from 0 to the largest of a hit is a muon, or with skip only those that
   have hits.

   All functions leave a message on failure, which names table and row, and print nothing.  */
#ifndef CALOMU_ROWS_H
#define CALOMU_ROWS_H

#include "calomu_tool.h"

enum { TOOL_ROWS_HITS, TOOL_ROWS_TRUTH, TOOL_ROWS_LOSSES, TOOL_ROWS_TABLES };
enum { TOOL_NEGATIVE_REFUSE, TOOL_NEGATIVE_ZERO };
enum { TOOL_GAPS_EMPTY, TOOL_GAPS_SKIP };

typedef struct tool_rules {          /* what a person may choose */
    int sum;                         /* 1: rows of one cell are added; 0: they are refused */
    int negative, gaps;
} tool_rules;

/* The columns of each table under their usual names, and the option that gives them others. */
extern const tool_column tool_rows_columns[TOOL_ROWS_TABLES][5];
extern const char *const tool_rows_option[TOOL_ROWS_TABLES];

#define TOOL_OPTIONS_CELLS(rules) \
    { .name = "sum", .type = TOOL_FLAG, .target = &(rules).sum, \
      .help = "add up several rows of one cell, in their order; else they are refused" }, \
    { .name = "negative", .type = TOOL_CHOICE, .target = &(rules).negative, \
      .value = "refuse|zero", .help = "what becomes of energies of cells below 0 (noise)" }
#define TOOL_OPTION_GAPS(rules) \
    { .name = "gaps", .type = TOOL_CHOICE, .target = &(rules).gaps, .value = "empty|skip", \
      .help = "without truth, numbers of events that no hit has: muons without hits, or none" }

/* 1 if a row of this energy is refused by itself; with sum its cell's sum is looked at. */
int tool_rules_refuse(const tool_rules *rules, double energy);

typedef struct tool_cell_row {       /* what one row adds to a cell */
    uint32_t cell;
    double energy;                   /* GeV */
    size_t row;
} tool_cell_row;

/* Sorts n rows of one muon by cell and turns them into hits by the rules; *hits is how many there
   are then.  EFORMAT: of the sorted rows that at *bad (for a cell that is there twice, the one
   before too) is at fault, as *why says. */
typedef enum tool_cells_fault { TOOL_CELLS_TWICE, TOOL_CELLS_NEGATIVE, TOOL_CELLS_LARGE }
    tool_cells_fault;
calomu_status tool_cells_settle(const tool_rules *rules, tool_cell_row *row, size_t n,
                                calomu_hit *hit, size_t *hits, size_t *bad, tool_cells_fault *why);

/* x as a float; 0 if it is too large for one.  The largest float, written with 9 digits, is a
   little more than itself, so up to half of its last place is rounded down to it. */
int tool_to_float(double x, float *out);

typedef struct tool_hit_row {
    uint32_t muon, cell;
    double energy;
} tool_hit_row;

typedef struct tool_truth_row {      /* truth: energy, x, y, charge; losses: the four of them */
    uint64_t event;
    size_t row;
    float value[4];
} tool_truth_row;

typedef struct tool_rows {           /* zero-initialise, then set what has no comment of ours */
    tool_rules rules;
    calomu_geometry geometry;
    const char *name[TOOL_ROWS_TABLES];      /* of a table in messages; NULL: there is none */
    const char *row_word;            /* "line": HITS.csv:7 ... line 7, or "row": /hits row 7 */
    size_t first[TOOL_ROWS_TABLES];  /* number of the first row in messages */
    tool_hit_row *hit;               /* ours from here on */
    size_t n_hits, room_hits;
    tool_truth_row *truth[TOOL_ROWS_TABLES];     /* sorted by event once numbered */
    size_t n[TOOL_ROWS_TABLES], room[TOOL_ROWS_TABLES];
    uint64_t *event;                 /* of muon i; NULL: it is i */
    size_t n_muons, empty;           /* empty: muons that are there for a gap only */
    uint64_t largest;                /* event of a hit, and its row */
    size_t largest_row, last;        /* last: muon of the hit before */
    size_t *start, *order;           /* hits of muon i: rows order[start[i]] ... start[i + 1] */
    int unsorted;                    /* 1: hits did not come by rising muon: order is needed */
    size_t most;                     /* hits of one muon */
    tool_cell_row *cell;             /* of the muon at hand */
    calomu_hit *out;
    char message[700];
} tool_rows;

/* Truth or losses first: append rows, then number them.  Losses must name the events of truth. */
calomu_status tool_rows_truth(tool_rows *r, int table, uint64_t event, const double value[4]);
calomu_status tool_rows_number(tool_rows *r, int table);
/* Then hits; the cell is inside the geometry and the event below 2^53, as the caller has checked;
   energies are finite.  Then finish. */
calomu_status tool_rows_hit(tool_rows *r, uint64_t event, uint32_t cell, double energy);
calomu_status tool_rows_finish(tool_rows *r);
/* Muon i; its hits are valid until the next call. */
calomu_status tool_rows_muon(tool_rows *r, size_t i, calomu_event *event);
/* What a person should know of gaps and numbers, into text; 0: nothing. */
int tool_rows_remark(const tool_rows *r, char text[300]);
void tool_rows_free(tool_rows *r);

#endif /* CALOMU_ROWS_H */
