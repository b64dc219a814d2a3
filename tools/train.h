/* train.h - what the files of `calomu train` share

   train.c the verb, train_run.c one network or an ensemble, train_log.c the log, train_files.c
   names of files, train_agree.c options against a file.  All report their failures.  */
#ifndef CALOMU_TRAIN_H
#define CALOMU_TRAIN_H

#include "calomu_tool.h"

typedef struct train_job {           /* the command line, and what all members share */
    calomu *c;
    const tool_usage *usage;
    int argc;
    char **argv;
    tool_files data_files, validation_files;
    tool_set data_set, validation_set;           /* open: data, validation and their paths */
    const char *data_path, *validation_path, *start_path, *out, *log, *checkpoint, *plots;
    const char *energy_range;        /* NULL: not given */
    tool_machine machine;
    int32_t members;                 /* members 0: a single network */
    int inputs, holdout, unique, convention, shuffle, resume, keep, recompute;
    float grow;
    double range[2], loss_range[2], minutes;
    calomu_architecture architecture;
    calomu_train_options options;
    calomu_data *data, *validation;  /* validation NULL: a fold is monitored */
    calomu_model *start;             /* NULL: random weights */
    char *checkpoint_path;           /* of a single network, or of the ensemble's members */
} train_job;

/* ---------------------------------------------------------------- files (train_files.c) */

/* Formatted text in memory of its own; NULL: no memory (said), here and for the names below. */
char *train_text(const char *format, ...) TOOL_PRINTF(1, 2);
/* The model of member k, until all are joined (-1: of a single network): OUT.memberK, OUT. */
char *train_model_path(const train_job *j, int member);
/* The log of member k (-1: of a single network): OUT.log.csv, OUT.memberK.log.csv. */
char *train_log_path(const train_job *j, int member);
/* The losses as a figure: PREFIX, or PREFIX_memberK, where an ending .png or .svg of the prefix is
   the format of the image and stays at the end. */
char *train_plot_prefix(const train_job *j, int member);
calomu_status train_look(const char *path, int *there);  /* whether a regular file is there */
void train_remove(const char *path);         /* a regular file; says so where it cannot */

/* ---------------------------------------------------------------- the log (train_log.c) */

typedef struct train_log {           /* the CSV file, one line per epoch */
    char *path;
    char *final;                     /* its name once the model is in place; NULL: the same */
    int fd;                          /* -1: not open */
    const calomu_train_options *options;
    int n_thresholds;
    int32_t best_epoch;              /* 0: no epoch has ended */
    double best_loss, mi, worst;     /* of the best epoch */
} train_log;

/* last NULL: a fresh start; else what the checkpoint has seen, `completed` epochs in all. */
calomu_status train_log_open(train_log *l, const calomu_train_options *options,
                             const calomu_train_report *last, int32_t completed);
calomu_status train_log_epoch(train_log *l, const calomu_train_report *r, double seconds);
/* The model is in place: its log takes the place of the old one. */
calomu_status train_log_place(train_log *l);
calomu_status train_log_fail(const train_log *l);        /* it cannot be written: errno */

/* ------------------------------------------------- options against a file (train_agree.c) */

typedef struct train_file {          /* what the options are compared with */
    const char *kind, *path;         /* "checkpoint" */
    const char *way_out;             /* besides leaving the option out */
} train_file;

/* The network's options against that of a file. */
calomu_status train_agree_network(const train_job *j, const calomu_architecture *a,
                                  const train_file *file);
/* A training can be made longer, so --epochs and --stop-after are not compared where more is
   wanted.  Of an ensemble earlier members have ended already. */
int train_longer(const train_job *j, const calomu_train_options *o);
/* Options given again must agree with the file; those left out are taken from it. */
calomu_status train_agree(const train_job *j, const calomu_train_options *o,
                          const calomu_architecture *a, const train_file *file);

/* ---------------------------------------------------------------- training (train_run.c) */

/* Trains one network, member k of an ensemble (-1: a single one), to its model file. */
calomu_status train_one(train_job *j, int member, int resume);
/* Trains all members and joins them. */
calomu_status train_members(train_job *j, int resume);
/* Removes what the model's being in place makes useless.  The checkpoint goes first: with it the
   members' models are needed, without it none is. */
void train_clear(const train_job *j);

#endif /* CALOMU_TRAIN_H */
