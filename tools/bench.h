/* bench.h - what the files of `calomu bench` share

   bench.c the verb: figures, targets, runs; bench_turns.c processes that take turns; bench_jobs.c
   what they measure; bench_profile.c a training step operation by operation, and the plan.  */
#ifndef CALOMU_BENCH_H
#define CALOMU_BENCH_H

#include "calomu_tool.h"

#include <stdio.h>
#include <sys/types.h>

enum {
    BENCH_FIGURES = 32,              /* rows at most */
    BENCH_MADE = 8,                  /* different muons, if they are made up */
    BENCH_SAMPLES = 1000,
    BENCH_SIDES = 8                  /* in a group */
};

typedef struct bench_row {
    const char *name, *text, *unit;
    double target;
    int most;                        /* 1: the target is an upper bound */
} bench_row;

typedef struct bench bench;
typedef calomu_status (*bench_job)(bench *b, int batch);

typedef struct bench_side {
    char text[100];
    pid_t pid;
    FILE *to, *from;                 /* NULL: lost */
    double units;                    /* of a repetition */
    double sample[BENCH_SAMPLES];    /* seconds */
    int n;
    double memory;                   /* MB */
    calomu_status status;            /* of a process that ended too early */
} bench_side;

struct bench {
    const char *data_path, *model_path, *csv_path, *program, *yardstick, *newest, *batches;
    const char *scaling_path;
    int32_t batch;
    tool_machine machine;
    int profile;
    double seconds;
    calomu *c;                       /* the parent's; a child opens its own */
    const bench_row *row;            /* what is measured: those of the processor or of a GPU */
    int rows;
    double told;                     /* in a child: MB of a device's memory; 0: none */
    double value[BENCH_FIGURES];     /* NaN: left out, for this reason: */
    const char *why[BENCH_FIGURES];
    bench_side side[BENCH_SIDES];    /* the group */
    int n_sides;
    char command[1200];              /* of the next peer */
    calomu_geometry geometry;        /* of the file */
    int made;                        /* hits in made-up muons; 0: muons of the file */
    calomu_geometry made_geometry;
    int in, out;                     /* in a child: where turns come from and answers go */
    int job_threads;                 /* in a child */
    struct bench_profile *profiled;  /* shared with children */
};

/* Sets the row of this name, if this machine has it; says why it is left out. */
void bench_set(bench *b, const char *name, double value);
void bench_leave(bench *b, const char *name, const char *why);
int bench_on_device(const bench *b);

/* ---------------------------------------------------------------- turns (bench_turns.c) */

/* In a child: prepared, a repetition has so many units; whether there is another turn; what it
   took. */
void bench_ready(const bench *b, double units, const char *text);
int bench_turn(const bench *b);
void bench_tell(const bench *b, double seconds);

/* In the parent.  Adds a side to the group and waits until it is ready. */
bench_side *bench_side_add(bench *b, bench_job job, int batch, int threads, const char *text);
bench_side *bench_peer_add(bench *b, const char *command, const char *job, const char *batches);
/* All sides in turn, for the time given to each and for some rounds at least; ends them. */
calomu_status bench_group(bench *b);
double bench_best(const bench_side *s);      /* least seconds per unit; NaN: the side got lost */
/* An own side that got lost ends the run; a peer does not. */
calomu_status bench_lost(const bench_side *s);

/* ---------------------------------------------------------------- jobs (bench_jobs.c) */

/* Muons of the file with features, in the order of their number of hits. */
typedef struct bench_muons {
    calomu_data_info info;
    calomu_events read;
    calomu_event made[BENCH_MADE];   /* for scaling: muons of any size, and their hits */
    calomu_hit *made_hit;
    calomu_event *event;
    float *features;
    int n;
} bench_muons;

typedef struct bench_training {
    calomu *c;
    struct bench_profile *profile;   /* of the update, or NULL */
    bench_muons muons;
    calomu_event *event;
    calomu_data *data;
    calomu_trainer *trainer;
} bench_training;

calomu_status bench_training_begin(const bench *b, bench_training *t, int batch, int threads,
                                   int recompute);
void bench_training_end(bench_training *t);
/* Seconds of the next update; validation in between is not counted. */
calomu_status bench_update(bench_training *t, double *seconds);

calomu_status bench_read_job(bench *b, int batch);
calomu_status bench_features_job(bench *b, int batch);
calomu_status bench_start_job(bench *b, int batch);      /* the program itself on one muon */
calomu_status bench_training_job(bench *b, int batch);
calomu_status bench_recompute_job(bench *b, int batch);
calomu_status bench_infer_job(bench *b, int batch);      /* a data set with features */
calomu_status bench_host_job(bench *b, int batch);       /* hits to GeV, as a host calls it */

calomu_status bench_sizes(bench *b);         /* the rows of bytes per hit */

/* ---------------------------------------------------------------- profile (bench_profile.c) */

typedef struct bench_profile bench_profile;
void bench_profile_begin(bench_profile *p);  /* before a step */
calomu_status bench_profile_share(bench *b);     /* memory for it that children share */
calomu_status bench_profile_visit(bench *b);     /* steps of a side, alone */
/* Behind the last visit: prints, sets rows; s: how the run went. */
void bench_profile_end(bench *b, calomu_status s);
calomu_status bench_profile_run(bench *b);       /* all three */
/* --plan: of the model, or of the paper's network. */
calomu_status bench_plan(bench *b, int given);

#endif /* CALOMU_BENCH_H */
