/* calomu.h - the energy of multi-TeV muons from their pattern of energy in a fine calorimeter

   J. Kieseler, G. C. Strong, F. Chiandotto, T. Dorigo, L. Layer: "Calorimetric Measurement of
   Multi-TeV Muons via Deep Regression", Eur. Phys. J. C (2022) 82:79 ("the paper" below).

   Two files, calomu.h and calomu.c, C99, libc and libm; MIT licence (end of this file).
   A complete program: load a model, give the hits of one muon, get its energy.

       #include "calomu.h"
       #include <stdio.h>

       int main(int argc, char **argv)
       {
           calomu *c = NULL;
           calomu_model *m = NULL;
           calomu_hit hits[] = { { 16 * 32 + 16, 0.031f }, { (32 + 16) * 32 + 16, 1.25f } };
           calomu_event muon = { 0 };
           double energy = 0;
           if (calomu_open(&c, NULL) != CALOMU_OK) return 1;
           muon.hits = hits; muon.n_hits = 2;      // cell = (iz*nx + ix)*ny + iy, energy in GeV
           muon.x = 1.9f; muon.y = 1.9f;           // impact point on the front face, mm
           muon.energy = muon.charge = CALOMU_ABSENT;
           if (calomu_model_load(c, argc > 1 ? argv[1] : "model.safetensors", &m) != CALOMU_OK
               || calomu_predict(c, m, NULL, &muon, 1, &energy, NULL) != CALOMU_OK) {
               fprintf(stderr, "%s\n", calomu_message(c));
               return 1;
           }
           printf("%.1f GeV\n", energy);
           calomu_model_free(m);
           calomu_close(c);
           return 0;
       }

   Build it:  cc -O2 program.c calomu.c -lm        (with -fopenmp to use several threads)

   Conventions.  Energies are GeV, lengths mm, the magnetic field T.  Every function that can fail
   returns a calomu_status; the text of the failure is calomu_message(context).  Outputs go by
   pointer and are not touched on failure unless said.  The library never prints, exits, reads the
   environment or keeps mutable globals.  A context serves one thread at a time; use one per
   thread.  A loaded model and an open data file are read-only: any number of contexts may use them
   at once.  Results are the same to the last bit for any number of threads, any split of a batch
   at inference, any instruction set, and on a GPU (cuda/calomu_cuda.h).  */
#ifndef CALOMU_H
#define CALOMU_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CALOMU_VERSION 100            /* 0.1.0: major*10000 + minor*100 + patch */
#define CALOMU_FEATURES 28            /* high-level features V[0]..V[27], appendix 6 */

#ifndef CALOMU_REAL
#define CALOMU_REAL float             /* type of the network's arithmetic; double for tests */
#endif

/* ---------------------------------------------------------------- status, context, options */

/* Also the exit codes of the program calomu. */
typedef enum calomu_status {
    CALOMU_OK = 0,
    CALOMU_EUSAGE = 2,       /* an argument or option makes no sense */
    CALOMU_EFORMAT = 3,      /* a file or its data are bad, or do not fit together */
    CALOMU_EIO = 4,          /* the operating system failed to read or write (disk full, ...) */
    CALOMU_EMEMORY = 5,      /* no memory */
    CALOMU_ENOTFINITE = 6,   /* a loss or prediction is not finite */
    CALOMU_EDEVICE = 7,      /* no such device, its driver is too old, or a kernel failed */
    CALOMU_STOPPED = 85      /* stopped on request, state kept */
} calomu_status;

/* Instruction sets of the kernels.  All give the same bits. */
typedef enum calomu_isa {
    CALOMU_ISA_BEST = 0,     /* the best that this machine has */
    CALOMU_ISA_PLAIN = 1,    /* plain C; always there */
    CALOMU_ISA_AVX2 = 2,
    CALOMU_ISA_AVX512 = 3
} calomu_isa;

/* Where the network is computed other than on the processor: calomu_cuda of cuda/calomu_cuda.h. */
typedef struct calomu_device calomu_device;

typedef enum calomu_math {
    CALOMU_MATH_EQUAL = 0,   /* the bits of the processor */
    CALOMU_MATH_FAST = 1     /* tensor cores: other bits, the same from run to run; devices only */
} calomu_math;

/* Options of a context; a zero-initialised struct means the defaults. */
typedef struct calomu_options {
    void *(*allocate)(void *user, size_t size);   /* both or neither; default malloc and free; */
    void (*release)(void *user, void *memory);    /*   must be safe in the threads that use them */
    void (*log)(void *user, const char *line);    /* notices (no newline at the end); NULL: none */
    void *user;                                   /* handed to the three functions */
    int threads;                                  /* 0 means 1; more need a build with OpenMP */
    calomu_isa isa;
    int direct;              /* 1: convolutions by the direct sum, never by Winograd's method: */
                             /*   slower, rounds a little less, and its last bits are others */
    int recompute;           /* 1: training keeps less and computes it again: the same bits, */
                             /*   a fifth less memory, a quarter more time */
    const calomu_device *device;     /* NULL: the processor */
    int device_number;               /* of several, from 0 */
    calomu_math math;
} calomu_options;

typedef struct calomu calomu;        /* a context: allocator, threads, message of the last error */

/* Makes a context; options may be NULL.  EUSAGE: bad options or an instruction set that the
   machine lacks.  EMEMORY.  On failure *c is NULL.  A device is opened by the first call that
   computes there, which fails with EDEVICE or EMEMORY if it cannot; the processor never steps in
   silently. */
calomu_status calomu_open(calomu **c, const calomu_options *options);
void calomu_close(calomu *c);                          /* NULL is allowed */
const char *calomu_message(const calomu *c);           /* of the last failure; never NULL */
const char *calomu_status_text(calomu_status status);  /* a few words; never NULL */
int calomu_threads_available(void);                    /* cores OpenMP would use; 1 without it */
/* One line for a person: version, compiler, OpenMP, instruction set in use, and a warning if this
   build breaks the promise of equal bits (fused or reassociated arithmetic: -ffast-math ...). */
const char *calomu_build_info(const calomu *c);

/* ---------------------------------------------------------------- geometry and events (Sec. 2) */

/* A cuboid of cells.  Cell (iz, ix, iy) has index (iz*nx + ix)*ny + iy and its centre at
   origin + (index + 0.5)*pitch on each axis; the front face is at z = origin[0]. */
typedef struct calomu_geometry {
    int32_t nz, nx, ny;
    double pitch[3];                 /* mm, along z, x, y */
    double origin[3];                /* mm, low edge along z, x, y */
    double field;                    /* T, along +y */
} calomu_geometry;

/* The paper's: 50 x 32 x 32 cells of 40.64 x 3.75 x 3.75 mm, front face z = 0, centred, 2 T. */
calomu_geometry calomu_geometry_default(void);
/* EUSAGE, with a text, for sizes below 1, more than 2^24 cells, or lengths that are not finite and
   positive. */
calomu_status calomu_geometry_check(calomu *c, const calomu_geometry *g);
/* Whether a and b are the same calorimeter: equal sizes, pitches and low corners within 1e-6 of the
   pitch and the field within 1e-6 of itself, as numbers are that went through a float32 (a large
   corner may lose up to 1e-3 of the pitch there).  EFORMAT: they are not; the text names the first
   length that differs, with a's value before b's.  Whoever compares geometries here does it so. */
calomu_status calomu_geometry_compare(calomu *c, const calomu_geometry *a,
                                      const calomu_geometry *b);

typedef struct calomu_hit {
    uint32_t cell;
    float energy;                    /* GeV, finite, not negative */
} calomu_hit;

#define CALOMU_ABSENT calomu_absent()    /* a quiet NaN: the value of truth that is not known */
float calomu_absent(void);

/* Where the muon's energy went, in GeV, if a simulation tells: values of an event's losses.  Each
   is finite, or CALOMU_ABSENT; lost = deposited + leaked + unseen, but for rounding. */
enum {
    CALOMU_LOST,                     /* by the muon inside the calorimeter */
    CALOMU_DEPOSITED,                /* in the sensitive part of cells, before any threshold */
    CALOMU_LEAKED,                   /* carried out of the calorimeter by secondaries */
    CALOMU_UNSEEN,                   /* nuclear binding, neutrinos; insensitive gaps */
    CALOMU_LOSSES                    /* how many they are */
};

/* One muon.  The pointers are borrowed.  Start from a zeroed struct, which has no features and no
   losses, but is no muon of unknown truth: set energy, charge, x and y to CALOMU_ABSENT where they
   are not known.  Hits: any order where a function takes an event from the caller; strictly rising
   cells where the library gives one.  A cell twice is an error.  In a set either every muon has
   features or none, and the same with losses. */
typedef struct calomu_event {
    const calomu_hit *hits;
    size_t n_hits;
    float x, y;                      /* impact point, mm; CALOMU_ABSENT: the hottest column */
    float energy;                    /* true energy, GeV, or CALOMU_ABSENT */
    float charge;                    /* +1, -1 or CALOMU_ABSENT */
    const float *features;           /* CALOMU_FEATURES values, or NULL */
    const float *losses;             /* CALOMU_LOSSES values, or NULL */
} calomu_event;

/* ---------------------------------------------------------------- features (appendix 6) */

typedef enum calomu_convention {
    CALOMU_CONVENTION_TEXT = 0,      /* the paper's text */
    CALOMU_CONVENTION_AUTHORS = 1    /* the authors' public data set */
} calomu_convention;

typedef struct calomu_feature_options {
    calomu_convention convention;
    float grow;                      /* GeV: clusters grow over cells above this */
} calomu_feature_options;

calomu_feature_options calomu_feature_options_default(void);     /* text, 0.1 */
const char *calomu_feature_name(int i);                          /* "eabove" ...; NULL if no such */
const char *calomu_convention_name(calomu_convention convention);   /* "text", "authors" */

/* The 28 features of one muon, in the units of appendix 6 (GeV, mm), rounded to float, not
   standardised.  options NULL: the defaults.  Without an impact point: from the centre of the
   column with the largest sum.  V24 comes clipped to [0, 10000] GeV (Sec. 3.2.1).  EUSAGE: impact
   point outside the face.  EFORMAT: bad hits.  Allocates its scratch memory for each call. */
calomu_status calomu_features(calomu *c, const calomu_geometry *g, const calomu_event *event,
                              const calomu_feature_options *options,
                              float out[CALOMU_FEATURES]);

/* ---------------------------------------------------------------- data files (.cmu) and sets */

typedef enum calomu_feature_state {
    CALOMU_FEATURES_NONE = 0,
    CALOMU_FEATURES_RAW = 1,
    CALOMU_FEATURES_STANDARDISED = 2,        /* with mean and deviation known */
    CALOMU_FEATURES_STANDARDISED_UNKNOWN = 3 /* the authors' files: mean and deviation unknown */
} calomu_feature_state;

/* What a data file says of itself; start from a zeroed struct. */
typedef struct calomu_data_info {
    uint64_t n_events, n_hits;               /* ignored by calomu_writer_open */
    calomu_geometry geometry;
    calomu_feature_state features;
    calomu_feature_options feature_options;  /* where features are there */
    double mean[CALOMU_FEATURES];            /* where the state is STANDARDISED */
    double deviation[CALOMU_FEATURES];
    int32_t losses;                          /* 1: every muon has its losses, 0: none has */
} calomu_data_info;

typedef struct calomu_writer calomu_writer;

/* Streams events to a .cmu file.  A regular file appears under its name only when complete
   (calomu_writer_close); a target that exists and is no regular file is written directly.
   A writer belongs to the context that opened it.  Borrowed pointers are copied. */
calomu_status calomu_writer_open(calomu *c, const char *path, const calomu_data_info *info,
                                 calomu_writer **writer);
calomu_status calomu_writer_add(calomu_writer *writer, const calomu_event *event);
/* Ends the file: index, checksums, flush, rename.  Frees the writer in every case. */
calomu_status calomu_writer_close(calomu_writer *writer);
void calomu_writer_abandon(calomu_writer *writer);       /* leaves no file; NULL is allowed */

typedef struct calomu_data calomu_data;      /* a set of muons: a file, or memory */

/* Opens a .cmu file (a regular file) and checks header and index.  EFORMAT, EIO, EMEMORY. */
calomu_status calomu_data_open(calomu *c, const char *path, calomu_data **data);
/* A set over the caller's events, which must outlive it; their hits must have strictly rising
   cells.  info->n_events and n_hits are ignored.  All are checked now. */
calomu_status calomu_data_from_memory(calomu *c, const calomu_data_info *info,
                                      const calomu_event *events, size_t n, calomu_data **data);
const calomu_data_info *calomu_data_describe(const calomu_data *data);
void calomu_data_close(calomu_data *data);               /* NULL is allowed */

/* A batch of events with its memory; zero-initialise before the first use. */
typedef struct calomu_events {
    calomu_event *event;
    size_t n;
    void *memory_[2];
    size_t size_[2];
    calomu *owner_;
} calomu_events;

/* Reads the n events with the given numbers (NULL: first, first+1, ...) into out, reusing its
   memory; every event's checksum is verified.  The pointers stay valid until the next read into
   the same batch. */
calomu_status calomu_data_read(calomu *c, const calomu_data *data, uint64_t first,
                               const uint64_t *numbers, size_t n, calomu_events *out);
void calomu_events_free(calomu_events *events);

/* ---------------------------------------------------------------- models (Sec. 3.1) */

/* What a network is made of; start from calomu_architecture_default(). */
typedef struct calomu_architecture {
    calomu_geometry geometry;
    calomu_feature_options feature_options;
    int32_t head;                    /* 1: convolutional head (Fig. 5), 0: no head */
    int32_t n_features;              /* 28, 3 (energy sums V0, V26, V27) or 0 */
    int32_t blocks;                  /* blocks per resolution, 3 */
    int32_t body;                    /* neurons per layer of the body, 80 */
    double growth;                   /* channels at each down-sampling, 1.5 */
    int32_t standardised_unknown;    /* 1: inputs are features as in the authors' public files */
} calomu_architecture;

calomu_architecture calomu_architecture_default(void);           /* the hybrid, 636,570 */

typedef struct calomu_model calomu_model;    /* one network or an ensemble; read-only */

typedef struct calomu_model_info {
    calomu_architecture architecture;
    int members;                             /* 1, or more for an ensemble */
    uint64_t parameters;                     /* trainable, of one member */
    double mean[CALOMU_FEATURES], deviation[CALOMU_FEATURES];   /* standardisation of inputs */
} calomu_model_info;

calomu_status calomu_model_load(calomu *c, const char *path, calomu_model **model);
calomu_status calomu_model_save(calomu *c, const calomu_model *model, const char *path);
/* A bare PyTorch state_dict in safetensors: menu and sizes come from names and shapes; geometry
   and feature_options from `base`, standardisation from mean and deviation (28 each, or NULL for
   0 and 1). */
calomu_status calomu_model_import(calomu *c, const char *path, const calomu_architecture *base,
                                  const double *mean, const double *deviation,
                                  calomu_model **model);
/* One ensemble of n single networks of the same architecture (inputs stay the caller's).
   Members are weighted by 1/(their validation loss), Sec. 3.2.4. */
calomu_status calomu_model_join(calomu *c, calomu_model *const *models, int n,
                                calomu_model **ensemble);
const calomu_model_info *calomu_model_describe(const calomu_model *model);
double calomu_model_loss(const calomu_model *model, int member);  /* of validation; NaN: unknown */
void calomu_model_free(calomu_model *model);                      /* NULL is allowed */

/* Energies (GeV, not debiased) of n muons.  data NULL: hits in any order in the model's geometry,
   features computed as the model wants them.  With data, the events must come from it
   (calomu_data_read): its geometry is compared with the model's (calomu_geometry_compare), which is
   the one in use; its features are used where the convention fits and recomputed where not.  out: n values; members: n x members values, or NULL.
   Threads: the context's.  On a device in batches of up to 1,024 (fewer where memory is short, the
   same bits); the context keeps the model's weights there for the next call. */
calomu_status calomu_predict(calomu *c, const calomu_model *model, const calomu_data *data,
                             const calomu_event *events, size_t n, double *out, double *members);

/* ---------------------------------------------------------------- training (Secs. 3.2.2-3.2.4) */

typedef struct calomu_train_options {        /* start from calomu_train_options_default() */
    int32_t batch;                   /* 256 */
    int32_t folds;                   /* 36 */
    int32_t holdout;                 /* 1: fold 0 is held out; 0: a separate validation file */
    int32_t unique;                  /* 1: unique-fold training, 0: all-fold */
    int32_t member;                  /* k: monitors fold k+1 */
    int32_t epochs, cycle_epochs;    /* 50, 20 */
    int32_t patience, stop_after;    /* 2, 10: epochs without improvement */
    double lr;                       /* maximum of the 1cycle; 0: min(5e-3, 3e-5*65280/updates) */
    uint64_t seed;
    double bin_low, bin_high;        /* loss bins: 50, 8000 GeV */
    int32_t bins;                    /* 5 */
    double quantile;                 /* 0.68 */
    double weight_centre, weight_low, weight_high;       /* Eq. (3): 5000, 300, 600 GeV */
    double range_low, range_high;    /* range of the MI on the monitored fold: 100, 4000 GeV */
    int32_t fit_bins, mi_bins;       /* 39, 20 */
    double tracker;                  /* relative resolution per TeV, 0.2 */
} calomu_train_options;

calomu_train_options calomu_train_options_default(void);

typedef struct calomu_trainer calomu_trainer;

/* A training of one network on `data` (which must outlive it and hold true energies).
   Standardisation is computed over the training folds; features are computed where they lack.
   EUSAGE: no training fold holds a full batch, ... */
calomu_status calomu_trainer_create(calomu *c, const calomu_data *data,
                                    const calomu_architecture *architecture,
                                    const calomu_train_options *options, calomu_trainer **trainer);

typedef enum calomu_train_kind {
    CALOMU_TRAIN_UPDATE = 1,         /* one batch: forward, backward, Adam */
    CALOMU_TRAIN_VALIDATION = 2,     /* one batch of the monitored fold */
    CALOMU_TRAIN_EPOCH = 3,          /* an epoch has ended; the record below is complete */
    CALOMU_TRAIN_DONE = 4            /* nothing left to do */
} calomu_train_kind;

/* What a step did, and after EPOCH one line of the training log. */
typedef struct calomu_train_report {
    calomu_train_kind kind;
    int32_t epoch;                   /* from 1 */
    uint64_t updates;                /* done in all */
    uint64_t done, total;            /* muons of this epoch: done, to do (updates + validation) */
    double batch_loss;
    double lr, beta1;
    double training_loss, validation_loss;
    double thresholds[16];
    int32_t n_thresholds;
    double mi, worst;                /* percent points and percent, monitored fold; NaN: too few */
    int32_t improved;                /* 1: this epoch is the best so far */
} calomu_train_report;

/* Does the next small piece of work (one batch).  ENOTFINITE: the loss is not finite; the best
   state so far is kept and can be taken out with calomu_trainer_model.  The step is done where the
   context computes; a training moves there, to the same bits.  EDEVICE: the device is lost; the
   training is back where it was saved last, or at the end of its last epoch or its start, and goes
   on from there with a context of the processor, or resumed. */
calomu_status calomu_trainer_step(calomu *c, calomu_trainer *t, calomu_train_report *report);
/* The whole state, between two steps; a training resumed from it goes on to the same bits. */
calomu_status calomu_trainer_save(calomu *c, const calomu_trainer *t, const char *path);
calomu_status calomu_trainer_resume(calomu *c, const calomu_data *data, const char *path,
                                    calomu_trainer **t);
/* The options and architecture in force (of use after resume). */
const calomu_train_options *calomu_trainer_options(const calomu_trainer *t);
const calomu_architecture *calomu_trainer_architecture(const calomu_trainer *t);
/* A copy of the best state; EUSAGE before the first epoch has ended. */
calomu_status calomu_trainer_model(calomu *c, const calomu_trainer *t, calomu_model **model);
/* Bytes of a step's arena; on a device all that is taken there, but for the hits. */
size_t calomu_trainer_memory(const calomu_trainer *t);
void calomu_trainer_free(calomu_trainer *t);              /* NULL is allowed */

/* ---------------------------------------------------------------- evaluation (Secs. 4.1, 4.2) */

typedef struct calomu_eval_options {         /* start from calomu_eval_options_default() */
    double low, high;                /* GeV: 100, 4000 */
    int32_t bins, fit_bins;          /* 20, 39 */
    int32_t points;                  /* 1: fixed true energies, 0: bins, -1: by itself */
    double tracker;                  /* 0.2 per TeV */
    int32_t bootstrap;               /* resamplings for the error of a bin's mean; 0: sd/sqrt(n) */
    uint64_t seed;
} calomu_eval_options;

calomu_eval_options calomu_eval_options_default(void);

/* The straight line mean prediction = intercept + slope * true energy, Sec. 4.1. */
typedef struct calomu_line {
    double intercept, slope, intercept_error, slope_error;
    int32_t used, skipped;           /* bins */
} calomu_line;

/* Weighted fit over n muons.  EFORMAT: fewer than 2 usable bins, or a slope that is not finite
   and positive. */
calomu_status calomu_debias_fit(calomu *c, const calomu_eval_options *options, const double *truth,
                                const double *prediction, size_t n, calomu_line *line);
double calomu_debias(const calomu_line *line, double prediction);      /* the inverse, GeV */

typedef struct calomu_bin {
    double low, high;                /* GeV; both the energy at a fixed point */
    double energy;                   /* median true energy */
    double centre;                   /* where the tracker is taken, GeV */
    uint64_t n;
    double median, c68;              /* of the (debiased) predictions, GeV */
    double calorimeter, tracker, combined;       /* relative resolutions */
} calomu_bin;

typedef struct calomu_summary {
    double mi;                       /* mean improvement, percent points */
    double worst;                    /* worst combined resolution, percent */
    int32_t used, skipped;           /* bins */
    int32_t points;                  /* 1: at fixed energies */
} calomu_summary;

/* Resolution (Eq. 4) per bin of debiased predictions; line NULL: predictions as they are.
   bins: room for max_bins; *n_bins: how many there are (EUSAGE if more than max_bins). */
calomu_status calomu_resolution(calomu *c, const calomu_eval_options *options,
                                const calomu_line *line, const double *truth,
                                const double *prediction, size_t n, calomu_bin *bins,
                                int max_bins, int *n_bins, calomu_summary *summary);
/* Whether the true energies look like fixed points: at most 64 distinct values, each with at
   least 10 muons. */
int calomu_is_points(calomu *c, const double *truth, size_t n);

/* ---------------------------------------------------------------- small services */

typedef enum calomu_file_kind {
    CALOMU_FILE_DATA = 1, CALOMU_FILE_MODEL = 2, CALOMU_FILE_CHECKPOINT = 3
} calomu_file_kind;

/* Which of our files this is.  EFORMAT: none of them. */
calomu_status calomu_file_identify(calomu *c, const char *path, calomu_file_kind *kind);
/* Verifies a checkpoint and tells what it holds; any of the outputs may be NULL.  last: of the last
   epoch that ended (its epoch 0: none has); its kind is DONE if the training has ended. */
calomu_status calomu_checkpoint_describe(calomu *c, const char *path, calomu_train_options *options,
                                         calomu_architecture *architecture,
                                         calomu_train_report *last);

/* A file that appears under its name only when complete; a target that exists and is no regular
   file (/dev/stdout, a pipe) is written directly.  EIO: also what the disk refuses at the flush.  A
   process that is killed leaves .NAME.PID.K.tmp, which the library never removes.  It takes no lock:
   of two writers of one name the last to close wins. */
typedef struct calomu_output calomu_output;
calomu_status calomu_output_open(calomu *c, const char *path, calomu_output **output);
calomu_status calomu_output_write(calomu_output *output, const void *bytes, size_t n);
calomu_status calomu_output_close(calomu_output *output);  /* flush, rename; frees in every case */
void calomu_output_abandon(calomu_output *output);         /* leaves no file; NULL is allowed */

/* Numbers as text, the same in every locale.  Writes x with `digits` significant digits (at most
   17) like printf's %g, always with a point; "" for a NaN.  Returns text. */
char *calomu_number(char text[32], double x, int digits);
/* Reads one decimal number (no white space, no nan, inf or hex) at text; returns the first
   character behind it, or NULL if there is no number. */
const char *calomu_parse(const char *text, double *x);

/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC'11).  The same (seed, stream,
   counter) gives the same four words on any machine, in any thread, in any order. */
void calomu_random(uint64_t seed, uint64_t stream, uint64_t counter, uint32_t out[4]);

/* ---------------------------------------------------------------- internals: no stable interface

   For tests/, cuda/ and the benchmark of single operations only. */
#ifdef CALOMU_INTERNALS

typedef CALOMU_REAL cm_real;
enum { CM_LANES = 16 };              /* L: muons per group */

/* An activation of B muons: array [group][z][x][y][channel][L], with a zero halo of `lo` sites
   below and `hi` above on every axis.  Interior site (z, x, y), channel c, lane l of group k:
       x[k*group + (z*row_z + x*row_x + y)*nc*L + c*L + l], counted from `origin`.
   Lanes behind the last muon are dead: finite values that reach no result. */
/* One muon in 16 lanes (6.2): its grid in blocks of neighbouring rows, block (i, j) in lane
   i*across + j. */
typedef struct cm_blocks {
    int nz, nx;                      /* rows of the grid */
    int z, x;                        /* rows of a block; the last ones reach outside the grid */
    int along, across;               /* blocks along z and x */
} cm_blocks;

typedef struct cm_tensor {
    int muons, groups;               /* B, ceil(B / L) */
    int nz, nx, ny, nc;              /* interior sites, channels */
    int lo, hi;                      /* halo */
    size_t row_z, row_x;             /* sites from (z, x, y) to (z + 1, x, y) and (z, x + 1, y) */
    size_t group, origin;            /* reals per group; reals before interior site (0, 0, 0) */
    cm_real *x;                      /* values */
    cm_real *dx;                     /* gradient, or NULL while there is none */
    int needs;                       /* 1: a gradient is wanted */
    int edge;                        /* 1: the gradient's halo is read, so it is zeroed */
    int written;                     /* 1: dx holds a gradient, so add to it */
    int users;                       /* operations that read it */
    struct cm_record *made;          /* the operation that made it, or NULL */
    double *sums;                    /* of its planes, values and squares (7.3), or NULL */
    int swished;                     /* 1: sums are those of Swish of it */
    const cm_blocks *blocks;         /* NULL: a lane is a muon */
    int unkept;                      /* 1: no memory, values are made where they are read (7.4) */
    struct cm_record *late, *part;   /* batch norms, and a join or pooling, whose parts of dx are */
    struct cm_tensor *spread;        /*   to come, and the mean behind the latter, or NULL (7.4) */
    int kept;                        /* tensors whose late gradients are made from this dx, or */
                                     /*   joins that wait to read this x (7.12) */
    int dropped;                     /* 1: and then nobody needs x */
    struct cm_record *waits;         /* the join whose rows are still to be made, or NULL */
} cm_tensor;

/* A view of parameters: values and where their gradient is added (NULL: none is wanted). */
typedef struct cm_weight {
    const cm_real *x;
    cm_real *dx;
} cm_weight;

/* A batch norm's learned weight and bias, and its running buffers: sums, squares (nc
   each), count, batch.  The buffers change in training only. */
typedef struct cm_norm {
    cm_weight weight, bias;
    cm_real *sums, *squares, *count, *batch;
} cm_norm;

typedef struct cm_resident cm_resident;      /* hits in the memory of a device */

/* Hits of a batch, borrowed: event i of B.  A graph that records keeps the pointer until
   cm_backward or the reset. */
typedef struct cm_hits {
    const calomu_event *event;
    int muons;
    int nz, nx, ny;
    cm_resident *resident;           /* on a device: the hits there, and event is not read */
} cm_hits;

/* Weights as the kernels of one instruction set want them, kept for inference. */
typedef struct cm_pack_of {
    const cm_real *w;                /* the weights themselves */
    cm_real *p;
} cm_pack_of;

typedef struct cm_packs {
    calomu_isa isa;
    int direct;                      /* made for direct sums */
    cm_pack_of *one;
    int n, room;
} cm_packs;

typedef struct cm_keeper {           /* the same in the memory of a device */
    cm_pack_of *one;
    int n, room;
} cm_keeper;

typedef struct cm_graph cm_graph;    /* tape and arena */
typedef struct cm_record cm_record;  /* one operation on the tape */
typedef struct cm_kernels cm_kernels;

enum { CM_ROWS = 1, CM_GROUPS };
enum { CM_NORM_A, CM_NORM_B, CM_NORM_MEAN, CM_NORM_R, CM_NORM_CLAMPED, CM_NORM_KINDS };
enum { CM_NORM_E = 3, CM_NORM_F };   /* columns of the backward pass */
enum { CM_SWISH_BEHIND = 1, CM_SWISH_BEFORE, CM_MEAN = 4 };

struct cm_record {
    void (*backward)(cm_graph *g, cm_record *r);
    void (*again)(cm_graph *g, cm_record *r);    /* makes out->x from the inputs, or NULL */
    void (*make_part)(const cm_graph *g, const cm_record *r, const cm_tensor *t, int k, int z,
                      int i, cm_real *to);       /* a row of what t, an input, gets late (7.4) */
    cm_tensor *out, *in[4];
    cm_weight w, bias;               /* w.x NULL: every weight is `scale` (sums of hits) */
    cm_norm norm;
    const cm_hits *hits;
    int kernel, stride, pad, first, swish, wino, cheap;
    cm_record *later;                /* of the batch norms in in[0]->late, the next */
    int pending;                     /* 1: in that list */
    int takes_late;                  /* CM_ROWS, CM_GROUPS: backward reads late gradients (7.4) */
    double scale;
    double *saved;                   /* what forward keeps; of a batch norm its transform (7.4), */
    cm_real *column[5];              /*   [kind][channel], and in reals: a, b, mean; */
    double *sums;                    /*   backward e, f; sums of its first pass, once begun */
    cm_real *gate;                   /* of a join, kept for the late gradient of its path */
    const char *name;                /* of the operation, for a profile */
    cm_record *before;
};

/* What computes an operation on whole tensors.  forward: the values of r->out (without its halo),
   from those of the inputs.  backward: adds to the gradients of inputs and weights. */
typedef struct cm_operation {
    void (*forward)(cm_graph *g, cm_record *r);
    void (*backward)(cm_graph *g, cm_record *r);
} cm_operation;

/* The one table of operations: the processor's, or a device's. */
typedef struct cm_operations {
    cm_operation sparse, conv, pool, point, norm, mean, max, add, concat, scale, join;
    void (*norm_prepare)(cm_graph *g, cm_record *r);     /* updates the buffers from in[0], in */
                                     /*   training; then saved and columns A, B, MEAN */
    void (*zero)(cm_graph *g, void *at, size_t bytes);
    void (*zero_halo)(cm_graph *g, const cm_tensor *t, cm_real *x);
} cm_operations;

typedef struct cm_block {            /* of the arena */
    size_t offset, size;
    int free;
} cm_block;

struct cm_graph {
    calomu *c;
    struct cm_unit *unit;            /* the device whose memory the arena is, or NULL */
    const cm_operations *o;
    unsigned char *memory;           /* NULL: dry */
    size_t size, used, peak;
    cm_block *block;
    int n_blocks, room;
    struct cm_small *small;
    cm_record *last;
    int threads, training, fast, split, recompute;
    calomu_status status;
    const cm_kernels *k;
    const cm_packs *packs;           /* packed weights to use, or NULL */
    cm_packs *packing;               /* to fill in a dry graph, or NULL */
    cm_keeper *keeper;               /* on a device: weights do not change; or NULL */
};

/* What the operations of a device need of the graph.  cm_kept: memory for what is made of weights
   alone, found again under its key from call to call if the weights do not change; *fresh becomes
   1 if it must be filled.  Else it is the arena's; cm_give_back takes either. */
cm_real *cm_kept(cm_graph *g, const void *key, size_t count, int *fresh);
int cm_dry(const cm_graph *g);                           /* 1: take memory, compute nothing */
cm_real *cm_arena_take(cm_graph *g, size_t count);       /* undefined contents; NULL: failed */
void cm_give_back(cm_graph *g, const void *x);
int cm_grad_begin(cm_graph *g, cm_tensor *t);            /* t->dx is there; 1: add to it */
int cm_cheap(const cm_tensor *t);
void cm_forget(cm_graph *g, cm_tensor *t);               /* t->x may go and be made again: */
void cm_remember(cm_graph *g, cm_tensor *t);
void cm_lap_end(const cm_graph *g, const cm_record *r, const char *part);

/* A device that is open: its own struct begins with this. */
typedef struct cm_unit {
    const calomu_device *device;
    calomu_math math;
    calomu_status status;            /* of the first failure; all calls after it do nothing */
    char message[256];
} cm_unit;

typedef struct cm_loss_job {         /* the loss of a batch; all memory is the device's */
    const calomu_train_options *options;
    cm_tensor *y;                    /* predictions; y->dx gets the gradient */
    const double *truth;             /* GeV, B values */
    double *thresholds;              /* updated */
    double *work;                    /* 4 B + 64 values */
    double *loss;
    int *finite;                     /* becomes 1: loss and predictions are finite, or 0 */
} cm_loss_job;

typedef struct cm_adam_job {         /* cm_adam, unless something is not finite */
    cm_real *w, *m, *v;
    const cm_real *dw;
    size_t n;
    double rate, root, beta1;        /* lr/(1 - beta1^t), sqrt(1 - beta2^t) */
    const int *finite;               /* of the loss */
    int *gradient_finite;            /* becomes 1 or 0; 0 and no update if either is 0 */
} cm_adam_job;

/* A device: its operations, memory and services.  Work is done in the order of the calls, which
   return before it is done unless they say so. */
struct calomu_device {
    const char *name;
    int plain;                       /* 1: the plain kernels, one result a thread */
    cm_operations o;
    calomu_status (*open)(calomu *c, const calomu_device *device, int number, calomu_math math,
                          cm_unit **unit);               /* device: this one */
    void (*close)(cm_unit *u);
    void *(*allocate)(cm_unit *u, size_t bytes);         /* 256-byte aligned; NULL: none */
    void (*release)(cm_unit *u, void *memory);           /* waits; NULL is allowed */
    void (*put)(cm_unit *u, void *to, const void *from, size_t bytes);   /* `from` may change */
    void (*get)(cm_unit *u, void *to, const void *from, size_t bytes);   /* waits */
    void (*copy)(cm_unit *u, void *to, const void *from, size_t bytes);  /* within the device */
    void (*fill)(cm_unit *u, void *at, size_t bytes);    /* with zeros */
    calomu_status (*wait)(cm_unit *u);                   /* the first failure, or OK */
    cm_resident *(*hits_new)(cm_unit *u);
    void (*hits_free)(cm_unit *u, cm_resident *h);
    void (*hits_put)(cm_unit *u, cm_resident *h, const cm_hits *hits);   /* beside the work that */
                                     /*   is under way; `event` may change */
    void (*loss)(cm_unit *u, const cm_loss_job *job);
    void (*adam)(cm_unit *u, const cm_adam_job *job);
    double (*peak)(cm_unit *u);      /* FLOP/s of fused products in registers; 0: unknown */
};

/* A profile: `lap` is called, by the thread that works with the context, when a part of an
   operation has ended.  All the time since the call before belongs to it.  NULL: no profile. */
typedef struct cm_lap {
    const char *name, *part;         /* "convolution", ...; "forward", "to weights", "to input", */
    const cm_tensor *in, *out;       /*   "backward"; in NULL: the hits are read */
    const cm_hits *hits;
    int kernel, stride;              /* 0: no convolution */
} cm_lap;
void cm_lap_set(calomu *c, void (*lap)(void *user, const cm_lap *lap), void *user);

/* A graph in a caller's arena of `size` bytes (64-byte aligned), or, with memory NULL, a dry one:
   it records and counts but does not compute.  training: operations are recorded for backward and
   batch norms update their buffers. */
cm_graph *cm_graph_new(calomu *c, void *memory, size_t size, int threads, int training);
cm_graph *cm_graph_on(calomu *c, cm_unit *unit, void *memory, size_t size, int threads,
                      int training);           /* the same in a device's memory; NULL: processor */
void cm_graph_free(cm_graph *g);
void cm_graph_split(cm_graph *g, int split);   /* 1: hits of one muon go into blocks; inference */
void cm_graph_reset(cm_graph *g);              /* forgets tensors and records; keeps the memory */
size_t cm_graph_peak(const cm_graph *g);       /* bytes of arena used at most so far */
calomu_status cm_graph_status(const cm_graph *g);   /* first failure since the reset */

/* Operations.  Each computes now and records itself; a NULL argument or a failure gives NULL, and
   cm_graph_status says which.  halo: lo and hi of the result. */
cm_tensor *cm_input(cm_graph *g, int muons, int nz, int nx, int ny, int nc, int lo, int hi,
                    int needs);                          /* zeroed; the caller fills x */
cm_tensor *cm_sparse_conv(cm_graph *g, const cm_hits *hits, cm_weight w, int out, int kernel,
                          int stride, int pad, int halo);
cm_tensor *cm_sparse_sum(cm_graph *g, const cm_hits *hits, double scale, int halo);
cm_tensor *cm_conv(cm_graph *g, cm_tensor *x, cm_weight w, cm_weight bias, int out, int kernel,
                   int stride, int pad, int halo);       /* bias.x NULL: none; w [out][in][k^3] */
cm_tensor *cm_linear(cm_graph *g, cm_tensor *x, cm_weight w, cm_weight bias, int out);
cm_tensor *cm_pool(cm_graph *g, cm_tensor *x, int first, int n, double scale, int halo);
                                     /* sums over 2x2x2, stride 2, padding 1, times scale */
cm_tensor *cm_batchnorm(cm_graph *g, cm_tensor *x, cm_norm n, int swish, int lo, int hi);
                                     /* swish 1: Swish of the result, in one pass */
cm_tensor *cm_batchnorm_by_rows(cm_graph *g, cm_tensor *x, cm_norm n, int swish, int halo);
                                     /* for cm_mean, cm_pool and the path of cm_join, which may */
                                     /*   make its values themselves; swish CM_SWISH_BEFORE: of */
                                     /*   Swish of x */
cm_tensor *cm_swish(cm_graph *g, cm_tensor *x);
cm_tensor *cm_sigmoid(cm_graph *g, cm_tensor *x);
cm_tensor *cm_mean(cm_graph *g, cm_tensor *x);           /* over the sites, per channel */
cm_tensor *cm_max(cm_graph *g, cm_tensor *x);            /* ties share the gradient equally */
cm_tensor *cm_scale(cm_graph *g, cm_tensor *x, cm_tensor *gate);     /* gate: one site */
cm_tensor *cm_add(cm_graph *g, cm_tensor *a, cm_tensor *b);
cm_tensor *cm_concat(cm_graph *g, cm_tensor *a, cm_tensor *b);       /* channels */
cm_tensor *cm_join(cm_graph *g, cm_tensor *e, double scale, cm_tensor *shortcut, cm_tensor *path,
                   cm_tensor *gate, int halo);
                                /* concat(scale * channel 0 of e, shortcut + gate*path), one pass */
/* Runs the records in reverse; the gradient of the result must be set by the caller before
   (cm_gradient).  Afterwards only inputs (cm_input) and weights hold values and gradients: the
   memory of every result has been used again.  In inference too, results that the network builder
   has dropped are gone; its final output stays. */
void cm_backward(cm_graph *g);
cm_real *cm_gradient(cm_graph *g, cm_tensor *t);   /* t->dx, allocated and zeroed if not there */

/* Loss (Sec. 3.2.2) of B predictions (GeV): returns the mean, updates the thresholds if `update`,
   writes the gradient to dp if not NULL (B values). thresholds: options->bins values, -1 unset. */
double cm_loss(const calomu_train_options *o, const double *truth, const double *pred, int n,
               double *thresholds, int update, double *dp);
double cm_loss_weight(const calomu_train_options *o, double truth);      /* Eq. (3) */

/* Parameters: one table, from which everything derives. */
typedef enum cm_role { CM_TRAINED, CM_FIXED, CM_BUFFER } cm_role;
typedef enum cm_init { CM_ZERO, CM_ONE, CM_KAIMING, CM_GLOROT } cm_init;
typedef struct cm_param {
    char name[48];                   /* of the PyTorch state_dict */
    int rank, shape[5];
    cm_role role;
    cm_init init;
    int fan_in, fan_out;
    size_t offset, count;            /* reals, in the block of its role */
} cm_param;

typedef struct cm_net {              /* one network: table and values */
    calomu_architecture arch;
    cm_param *param;
    int n_params;
    size_t n_trained, n_fixed, n_buffers;
    cm_real *trained, *fixed, *buffers;      /* the blocks */
} cm_net;

calomu_status cm_net_new(calomu *c, const calomu_architecture *a, cm_net **net);  /* values 0 */
void cm_net_init(cm_net *net, uint64_t seed);            /* Sec. 3.1: Kaiming, Glorot */
void cm_net_free(calomu *c, cm_net *net);
const cm_param *cm_net_find(const cm_net *net, const char *name);
cm_real *cm_net_values(const cm_net *net, const cm_param *p);
/* Records the network on g: features (may be NULL without features) and hits (NULL without a
   head) to one output per muon.  gradient: a block like net->trained, or NULL. */
cm_tensor *cm_net_forward(cm_graph *g, const cm_net *net, const cm_hits *hits,
                          cm_tensor *features, cm_real *gradient);
/* One Adam update (Sec. 3.2.3) of n values. step counts from 1. */
void cm_adam(cm_real *w, const cm_real *dw, cm_real *m, cm_real *v, size_t n, double lr,
             double beta1, uint64_t step);

/* The plan of a training (Secs. 3.2.3, 3.2.4), apart from the network. */
typedef struct cm_plan {
    int32_t epoch;                   /* the one in progress, from 1 */
    int32_t finished;                /* 1: no epoch follows */
    int32_t waited, idle;            /* epochs after the 1cycle without improvement: since the */
    int32_t best_epoch;              /*   last reload, in all; best_epoch 0: no epoch has ended */
    double lr, beta1;                /* after the 1cycle: in use; within: of the last update */
    double best_loss, best_lr, best_beta1;
} cm_plan;
enum { CM_PLAN_BEST = 1, CM_PLAN_RELOAD = 2 };
enum { CM_FOLD_UNUSED, CM_FOLD_TRAINING, CM_FOLD_MONITORED };
/* Ends an epoch: CM_PLAN_BEST, the state is the best so far; CM_PLAN_RELOAD, take the best back. */
int cm_plan_epoch(const calomu_train_options *o, cm_plan *plan, double validation_loss);
/* LR and beta1 of update t = 0, 1, ... of the 1cycle with `per_epoch` updates an epoch. */
void cm_plan_rate(const calomu_train_options *o, uint64_t per_epoch, uint64_t t, double *lr,
                  double *beta1);
/* Role of each of the o->folds folds. */
calomu_status cm_plan_folds(calomu *c, const calomu_train_options *o, uint64_t n_events,
                            unsigned char *role);
/* A random permutation of 0..n-1. */
void cm_plan_shuffle(uint64_t seed, uint64_t stream, uint64_t *order, uint64_t n);

/* A model file in memory: single nets with standardisation. */
struct calomu_model {
    calomu_model_info info;
    cm_net **net;                    /* info.members */
    double *loss;                    /* validation losses, NaN unknown */
    cm_packs packs;                  /* for inference; cm_model_finish makes them, */
    size_t arena;                    /*   and finds how much an arena takes */
    calomu *own;                     /* cm_clone of the context that made it */
};
calomu_status cm_model_new(calomu *c, const calomu_architecture *a, int members,
                           calomu_model **model);        /* values 0; mean 0, deviation 1 */
/* Packs the weights of a complete model and hands it out; s not CALOMU_OK, or no memory: frees it
   and returns the status. */
calomu_status cm_model_finish(calomu *c, calomu_status s, calomu_model *m, calomu_model **model);

/* Our own functions, the same bits on every machine: right to 3 ulp, the sigmoid in float to
   1.3e-7 + 1.3e-8 |v| of itself. */
cm_real cm_sigmoid_value(cm_real v);
double cm_exp_double(double x);
double cm_log_double(double x);
double cm_cos_double(double x);
uint64_t cm_checksum(uint64_t seed, const void *bytes, size_t n);

/* Tensors of a safetensors file, strictly parsed (design 4). */
typedef enum cm_dtype { CM_F32, CM_F64, CM_I64, CM_U8 } cm_dtype;
typedef struct cm_st_tensor {
    char name[64];
    cm_dtype dtype;
    int rank;
    uint64_t shape[8];
    uint64_t count;                  /* elements */
    const void *data;                /* little-endian in memory, not aligned */
} cm_st_tensor;
typedef struct cm_st_meta { char *key, *value; } cm_st_meta;
typedef struct cm_st {               /* a whole file in memory */
    cm_st_tensor *tensor;
    int n_tensors;
    cm_st_meta *meta;                /* __metadata__ */
    int n_meta;
    void *memory;
} cm_st;
calomu_status cm_st_read(calomu *c, const char *path, cm_st *st);
calomu_status cm_st_write(calomu *c, const char *path, const cm_st *st); /* atomically; adds a */
void cm_st_free(calomu *c, cm_st *st);                   /*   checksum to the metadata */
const char *cm_st_find_meta(const cm_st *st, const char *key);          /* NULL: absent */
const cm_st_tensor *cm_st_find(const cm_st *st, const char *name);      /* NULL: absent */

/* Services of the context. */
void *cm_allocate(calomu *c, size_t count, size_t size);   /* zeroed; NULL: EMEMORY is set */
void cm_release(calomu *c, void *memory);
calomu *cm_clone(calomu *c);     /* a private context with the same allocator, for objects that */
void cm_clone_free(calomu *own); /*   outlive their context; NULL: EMEMORY is set in c */
calomu_status cm_fail(calomu *c, calomu_status s, const char *format, ...)
#ifdef __GNUC__
    __attribute__((format(printf, 3, 4)))
#endif
    ;
void cm_log(calomu *c, const char *format, ...)
#ifdef __GNUC__
    __attribute__((format(printf, 2, 3)))
#endif
    ;

#endif /* CALOMU_INTERNALS */

#ifdef __cplusplus
}
#endif

#endif /* CALOMU_H */

/* MIT License

   Copyright (c) 2026 the calomu authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software
   and associated documentation files (the "Software"), to deal in the Software without
   restriction, including without limitation the rights to use, copy, modify, merge, publish,
   distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
   Software is furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or
   substantial portions of the Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
   BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
   NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
   DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
   OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.  */
