/* calomu_tool.h - what the verbs of the program calomu share.  Include it first.

   A verb is `int verb_NAME(int argc, char **argv)`: argv[0] is the verb, the result the exit code
   (a calomu_status).  The usual shape:

       int verb_features(int argc, char **argv)
       {
           const char *in = NULL, *out = NULL;
           int threads = 0;
           tool_operand operands[] = { { .name = "IN.cmu", .target = &in }, { .name = NULL } };
           tool_option options[] = {
               { .name = "out", .type = TOOL_STRING, .target = &out, .value = "FILE.cmu",
                 .help = "file to write", .needed = 1 },
               TOOL_OPTION_THREADS(&threads),
               { .name = NULL }
           };
           tool_usage usage = { .verb = "features", .purpose = "Adds ...", .operands = operands,
                                .options = options };
           calomu *c = NULL;
           int code = tool_parse(&usage, argc, argv);
           if (code >= 0) return code;                     // --help, or a usage error: said
           code = (int)tool_threads_start(threads);
           if (code == CALOMU_OK) code = (int)tool_open(&c, threads);
           if (code != CALOMU_OK) return code;             // said
           ...
           if (calomu_data_open(c, in, &data) != CALOMU_OK) code = tool_report(c, status);
           calomu_close(c);
           return code;
       }

   Messages go to stderr, one line each: errors as `calomu VERB: text`, notices as `calomu: text`.
   stdout is checked once, when the program ends.  Names from files, arguments and the system reach
   stderr through these functions, and stdout through tool_shown.  */
#ifndef CALOMU_TOOL_H
#define CALOMU_TOOL_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CALOMU_EQUAL_BITS            /* the tools compute too */
#include "../calomu.h"

#ifdef __GNUC__
#define TOOL_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define TOOL_PRINTF(text, first)
#endif

/* ---------------------------------------------------------------- verbs */

int verb_info(int argc, char **argv);
int verb_import(int argc, char **argv);
int verb_export(int argc, char **argv);
int verb_features(int argc, char **argv);
int verb_train(int argc, char **argv);
int verb_predict(int argc, char **argv);
int verb_evaluate(int argc, char **argv);
int verb_plot(int argc, char **argv);
int verb_model_import(int argc, char **argv);
int verb_model_join(int argc, char **argv);
int verb_bench(int argc, char **argv);
int verb_simulate(int argc, char **argv);
int verb_perturb(int argc, char **argv);
int verb_scan(int argc, char **argv);
int verb_scan_fit(int argc, char **argv);
int verb_merge(int argc, char **argv);
int verb_split(int argc, char **argv);
int verb_select(int argc, char **argv);

/* ---------------------------------------------------------------- messages (messages.c) */

/* Prints `calomu VERB: text` to stderr and returns the status.  Control bytes are printed as \xHH,
   here and below. */
calomu_status tool_fail(calomu_status status, const char *format, ...) TOOL_PRINTF(2, 3);
/* Prints the context's last failure in the same way and returns the status. */
calomu_status tool_report(const calomu *c, calomu_status status);
/* Prints `calomu: text` to stderr. */
void tool_notice(const char *format, ...) TOOL_PRINTF(1, 2);
/* A name for a table on stdout, without its control bytes; good until four more are asked for. */
const char *tool_shown(const char *text);
/* The word of n nearest to `word` by edits; NULL if none is near.  A NULL word is passed over. */
const char *tool_nearest(const char *word, const char *const *words, size_t n);

/* Start and end of main: the standard streams, signals, locks.  tool_finish returns the code, or
   another if standard output could not be written. */
void tool_begin(const char *program);
int tool_finish(int code);
void tool_run_as(const char *verb);          /* as messages name it */
const char *tool_command(void);              /* "calomu VERB" */

/* ---------------------------------------------------------------- context */

typedef struct tool_machine {        /* where a network is computed */
    int32_t threads;                 /* 0: tool_threads_default */
    const char *device;              /* "cpu", "cuda", "cuda:N" */
    int math;                        /* a calomu_math */
    int unfused;                     /* --no-fusion */
    int plain;                       /* --plain */
} tool_machine;

/* Opens a context whose notices go to tool_notice; threads 0: tool_threads_default.  Reports
   failures. */
calomu_status tool_open(calomu **c, int threads);
/* The same where the person wants it: --device and --math, which are checked here. */
calomu_status tool_open_on(calomu **c, const tool_machine *machine, int recompute);
int tool_device_number(const tool_machine *machine);     /* N of cuda:N, checked already */
/* Number of the calling thread in its team, from 0: which of the threads' contexts is its own. */
int tool_thread(void);
/* As many threads as OMP_NUM_THREADS, the process's processors (taskset, a batch system) and the
   quota of its control groups (a container) allow; at least 1. */
int tool_threads_default(void);
/* Starts n threads (0: the default) for OpenMP, which would end the program if the system did not
   give them; EMEMORY then, reported.  Not before a fork. */
calomu_status tool_threads_start(int n);

/* ---------------------------------------------------------------- files (files.c) */

typedef enum tool_file {
    TOOL_NO_FILE,
    TOOL_READS,                      /* a file to read */
    TOOL_WRITES,                     /* a file to write: it is no other file of the command */
    TOOL_REPLACES,                   /* the same, but it may be read too: replaced at the end */
    TOOL_DERIVED,                    /* written; named after one that is locked, which is enough */
    TOOL_STREAM                      /* used inside: a file that a standard stream goes to */
} tool_file;

/* Claims a file before it is opened.  tool_parse does so for all operands (they are read) and for
   options that say `.file`; a verb claims the files whose names it makes up.  Fails with EUSAGE if
   it is another file of this command under any name, unless both are read, and with EIO if another
   process is writing it.  What a killed process left half-written beside an output is removed.
   role: how messages name it, "--out".  All failures are reported. */
calomu_status tool_claim(tool_file file, const char *role, const char *path);
void tool_release(void);             /* gives the locks back: done by tool_finish */

/* ---------------------------------------------------------------- options (options.c) */

typedef enum tool_type {             /* what target points at: */
    TOOL_STRING,                     /* const char * (borrowed from argv; never empty) */
    TOOL_INT,                        /* int32_t */
    TOOL_U64,                        /* uint64_t */
    TOOL_DOUBLE,                     /* double; always finite */
    TOOL_FLOAT,                      /* float; always finite */
    TOOL_CHOICE,                     /* int: index in value, which reads "text|authors" */
    TOOL_FLAG,                       /* int: 1 when given; takes no value */
    TOOL_GEOMETRY,                   /* calomu_geometry */
    TOOL_PAIR,                       /* double[2]: "low,high" or "low:high", low < high */
    TOOL_FILES                       /* tool_files: one file or several, or patterns */
} tool_type;

/* What --name A B 'run*.cmu' C names, in order; a word that is no file is a pattern (glob), whose
   files come by name.  Zero-initialise; tool_files_free when tool_parse has let the verb go on. */
typedef struct tool_files {
    char **path;
    int n;
} tool_files;

void tool_files_free(tool_files *files);

/* One option `--name value` or `--name=value`.  The target holds the default before tool_parse;
   --help prints it from there, so that text and behaviour cannot differ. */
typedef struct tool_option {
    const char *name;                /* without dashes; NULL ends the table */
    tool_type type;
    void *target;
    const char *value;               /* as --help shows it: "FILE", "GEV", "text|authors" */
    const char *help;                /* one sentence with units, lower case, no full stop */
    const char *preset;              /* shown as the default instead of the target; "": none */
    double low, high;                /* numbers: inclusive range; both 0: whatever the type holds */
    int needed;                      /* 1: must be given */
    tool_file file;                  /* TOOL_STRING: what the command does with that file */
    int given;                       /* set by tool_parse: 1 if it was */
} tool_option;

/* One positional argument. */
typedef struct tool_operand {
    const char *name;                /* "IN.cmu"; NULL ends the table */
    const char **target;             /* one pointer, or an array of `most` */
    int optional;                    /* 1: may be left out */
    int most;                        /* 0 means 1; more only for the last operand */
    int *count;                      /* how many were given; NULL: not wanted */
} tool_operand;

typedef struct tool_usage {
    const char *verb;
    const char *purpose;             /* what --help says first; lines broken by the author */
    tool_operand *operands;          /* NULL: none */
    tool_option *options;
    const char *notes;               /* what --help says last; NULL: nothing */
    const char *program;             /* what Usage shows; NULL: "calomu VERB" */
} tool_usage;

/* Reads the arguments into the targets.  Returns -1 to go on, or the exit code: 0 after --help
   (printed to stdout), 2 after a usage error (one line to stderr).  `--` ends the options. */
int tool_parse(tool_usage *usage, int argc, char **argv);
int tool_given(const tool_usage *usage, const char *name);      /* 1: the option was given */
/* Finite numbers with one of the characters `between` them into x[most]; how many, or -1 if the
   text is something else or holds more.  For options with words beside numbers; two ends of a range
   have TOOL_PAIR_BETWEEN them, everywhere. */
int tool_numbers(const char *text, const char *between, double *x, int most);
int tool_rising(const void *a, const void *b);   /* for qsort, of doubles or what begins with one */
/* The q-quantile of n > 0 sorted numbers, linear between neighbours. */
double tool_quantile(const double *x, size_t n, double q);
#define TOOL_PAIR_BETWEEN ",:"
/* A usage error found after parsing: prints it with a hint to --help; returns CALOMU_EUSAGE. */
calomu_status tool_misuse(const char *format, ...) TOOL_PRINTF(1, 2);

/* Options that several verbs share. */
#define TOOL_OPTION_THREADS(pointer_to_int32) \
    { .name = "threads", .type = TOOL_INT, .target = (pointer_to_int32), .value = "N", \
      .help = "threads", .preset = "as OMP_NUM_THREADS, processors and container allow", \
      .low = 1, .high = 4096 }
#define TOOL_OPTIONS_MACHINE(machine) \
    { .name = "device", .type = TOOL_STRING, .target = &(machine).device, \
      .value = "cpu|cuda[:N]", .help = "where the network is computed; N: which GPU" }, \
    { .name = "math", .type = TOOL_CHOICE, .target = &(machine).math, .value = "equal|fast", \
      .help = "on a GPU: the bits of the processor, or tensor cores" }, \
    { .name = "no-fusion", .type = TOOL_FLAG, .target = &(machine).unfused, \
      .help = "every layer is computed on its own: equal bits, slower; to look for faults" }, \
    { .name = "plain", .type = TOOL_FLAG, .target = &(machine).plain, \
      .help = "by the plain layers, muon by muon: equal bits, many times slower" }, \
    TOOL_OPTION_THREADS(&(machine).threads)
#define TOOL_OPTION_GEOMETRY(pointer_to_geometry) \
    { .name = "geometry", .type = TOOL_GEOMETRY, .target = (pointer_to_geometry), \
      .value = "nz,nx,ny,pz,px,py[,z0,x0,y0[,B]]", \
      .help = "cells, pitches (mm), low corner (mm; centred in x and y), field (T)" }
#define TOOL_OPTION_CONVENTION(pointer_to_int) \
    { .name = "convention", .type = TOOL_CHOICE, .target = (pointer_to_int), \
      .value = "text|authors", .help = "convention of the 28 features" }
#define TOOL_OPTION_GROW(pointer_to_float) \
    { .name = "grow", .type = TOOL_FLOAT, .target = (pointer_to_float), .value = "GEV", \
      .help = "clusters grow over cells above this energy (GeV)", .high = 1e30 }

/* ---------------------------------------------------------------- sets of files (sets.c) */

/* The muons of several data files as one set.  Zero-initialise. */
typedef struct tool_set {
    calomu_data *data;               /* of all */
    calomu_data **file;              /* n, open */
    int n;
    char name[160];                  /* for messages: the path, or "A.cmu and 3 others" */
} tool_set;

/* EFORMAT where files do not fit together: the first that does not is named.  Reports. */
calomu_status tool_set_open(calomu *c, const char *const *path, int n, tool_set *set);
void tool_set_close(tool_set *set);

/* ---------------------------------------------------------------- evaluation (evaluate.c) */

/* The line fitted to a table of predict, from its columns true_energy and pred.  Reports. */
calomu_status tool_debias_line(calomu *c, const char *path, const calomu_eval_options *options,
                               calomu_line *line);
/* What `calomu evaluate` does with predictions (and, not NULL, those that the debiasing is fitted
   on), but only its plots: see plot_evaluation.  Reports. */
calomu_status tool_plot_predictions(calomu *c, const char *predictions, const char *fit,
                                    const char *column, const calomu_eval_options *options,
                                    const char *prefix);

/* ---------------------------------------------------------------- topics of help (topics.c) */

typedef struct tool_topic {
    const char *name;
    void (*print)(void);             /* to stdout, at most 79 columns */
    const char *summary;
} tool_topic;

const tool_topic *tool_topic_at(size_t i);   /* NULL behind the last */

/* ---------------------------------------------------------------- progress (progress.c) */

/* Progress on stderr: a bar with rate and time left on a terminal, elsewhere a line at every 10%
   or 10 s, and nothing for work that ends within a second.  Zero-initialise; one at a time. */
typedef struct tool_progress {
    const char *what, *unit;         /* "features", "muons" */
    uint64_t total, done;
    double start, shown;
    uint64_t shown_done;
    int terminal, printed;
} tool_progress;

void tool_progress_begin(tool_progress *p, const char *what, const char *unit, uint64_t total);
void tool_progress_at(tool_progress *p, uint64_t done, const char *note);    /* note may be NULL */
void tool_progress_end(tool_progress *p);
double tool_seconds(void);           /* a monotonic clock */

/* ---------------------------------------------------------------- signals (signals.c) */

extern volatile sig_atomic_t tool_stop;      /* the signal that asked for an end, or 0 */
void tool_signals_ignore(void);      /* a closed pipe and a limit of file sizes: write errors */
/* From here on INT, TERM, HUP, USR1, USR2 and XCPU set tool_stop, unless the parent ignores them;
   a second INT or TERM kills. */
void tool_signals_catch(void);
/* Calls handler, once, where such a signal would end the program. */
void tool_signals_end(void (*handler)(int));
void tool_signals_default(void);     /* in a child: they end it, as before */
/* For verbs that keep no state: after cleaning up, ends the program by the signal that came. */
void tool_signals_obey(void);

/* ---------------------------------------------------------------- CSV (csv.c) */

typedef enum tool_cell {
    TOOL_CELL_NUMBER,                /* a number; empty is an error */
    TOOL_CELL_MAYBE,                 /* a number, or empty: NaN */
    TOOL_CELL_TEXT                   /* tool_csv_text; its value is NaN */
} tool_cell;

typedef struct tool_column {
    const char *name;
    tool_cell cell;
    int optional;                    /* 1: the column may be missing; its values are then NaN */
} tool_column;

/* Reads a CSV file, pipe or standard input (path "-") row by row.  The header names the columns,
   in any order; columns not asked for are passed over.  All failures are reported, with file and
   line, by the functions themselves. */
typedef struct tool_csv tool_csv;
calomu_status tool_csv_open(const char *path, const tool_column *columns, int n, tool_csv **csv);
/* The same where an option gives columns other names; messages name it. */
calomu_status tool_csv_open_as(const char *path, const tool_column *columns, int n,
                               const char *option, tool_csv **csv);
/* The columns of `usual` under the names of the text "energy=Edep,event=EventID" (NULL: none),
   whose left sides are names in `usual`.  A column named - becomes optional.  The new names lie in
   *names, which is the caller's to free, after failures too.  Reports misuse of the option. */
calomu_status tool_columns_rename(tool_column *columns, const tool_column *usual, int n,
                                  const char *option, const char *text, char **names);
#define TOOL_OPTION_COLUMNS(option, pointer_to_string, table) \
    { .name = (option), .type = TOOL_STRING, .target = (pointer_to_string), \
      .value = "NAME=COLUMN,...", \
      .help = "columns of " table " that have other names; - for one that is not there" }
/* One row into value[n], in the order of `columns`; *more 0 at the end. */
calomu_status tool_csv_next(tool_csv *csv, double *value, int *more);
const char *tool_csv_name(const tool_csv *csv, int column);     /* in this file */
const char *tool_csv_text(const tool_csv *csv, int column);     /* of this row; "" if missing */
size_t tool_csv_first(const tool_csv *csv);  /* line of the first row, once it is read */
/* Reports `PATH:LINE: text` and returns the status. */
calomu_status tool_csv_fail(const tool_csv *csv, calomu_status status, const char *format, ...)
    TOOL_PRINTF(3, 4);
/* Checks that value is a whole number in [low, high] (at most 2^53). */
calomu_status tool_csv_whole(const tool_csv *csv, int column, double value, uint64_t low,
                             uint64_t high, uint64_t *out);
void tool_csv_close(tool_csv *csv);          /* NULL is allowed */

/* Writes text, usually CSV, through calomu_output; path "-" is standard output.  A failure is kept
   and reported by tool_writer_close, so the field functions return nothing; a loop may look at
   tool_writer_status to stop early.  digits: significant digits, 9 for floats, 17 for doubles. */
typedef struct tool_writer tool_writer;
calomu_status tool_writer_open(calomu *c, const char *path, tool_writer **writer);   /* reports */
void tool_write_text(tool_writer *w, const char *text);         /* as it is */
void tool_write_format(tool_writer *w, const char *format, ...) TOOL_PRINTF(2, 3);
void tool_write_number(tool_writer *w, double x, int digits);   /* NaN: empty */
void tool_write_whole(tool_writer *w, uint64_t x);
calomu_status tool_writer_status(const tool_writer *w);
calomu_status tool_writer_close(tool_writer *w);                /* reports; frees in every case */
void tool_writer_abandon(tool_writer *w);                       /* leaves no file; NULL allowed */

#endif /* CALOMU_TOOL_H */
