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

   Any compiler of C99 and any of its usual flags will do.  Those that give up the rules of IEEE 754
   (-ffast-math, -Ofast and their parts; x87 registers) are an error of compilation that says what
   to do, or every call that computes is refused with EUSAGE and the reason.

   Conventions.  Energies are GeV, lengths mm, the magnetic field T.  Every function that can fail
   returns a calomu_status; the text of the failure is calomu_message(context).  Outputs go by
   pointer and are not touched on failure unless said.  The library never prints, exits, reads the
   environment or keeps mutable globals.  A context serves one thread at a time; use one per
   thread.  A loaded model and an open data file are read-only: any number of contexts may use them
   at once.  In a child of fork a context of its parent goes on with one thread, and says so to its
   log: gcc's OpenMP never comes back there from a call with several.  A context that the child
   opens itself must have one thread if the parent has computed with more.  Results are the same to
   the last bit for any number of threads, any split of a batch at inference, any instruction set,
   compiler and machine, and on a GPU (cuda/calomu_cuda.h).  Whatever the caller's rounding mode,
   and where it flushes small numbers to zero or traps exceptions (feenableexcept), every call that
   computes rounds to nearest, keeps and traps nothing, and then puts the caller's modes back
   (calomu_modes).  The caller's functions (allocate, release, log) run in between; modes that they
   change hold for themselves alone.  They return: no longjmp, no C++ exception.  */
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
    int plain;               /* 1: computed by the plain layers, one behind the other and muon by */
                             /*   muon, on one thread: the same bits, slower; a training needs */
                             /*   8 MB for each muon of a batch.  A build with -DCALOMU_PLAIN has */
                             /*   only these, and refuses threads, instruction sets and devices */
    int recompute;           /* 1: training keeps less and computes it again: the same bits, */
                             /*   a fifth less memory, a quarter more time */
    int unfused;             /* 1: every layer of the network is computed on its own and its */
                             /*   values are stored: the same bits, slower; to look for faults */
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
/* One line for a person: version, compiler, OpenMP, instruction set in use; a warning if this build
   computes by other rules than IEEE 754 (then every call that computes is refused with the same
   text); a note if this thread's modes (calomu_modes) were others when the context was made. */
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
/* One set of the muons of n sets (n >= 1), one behind the other, which must outlive it: reading,
   training and prediction give what the merged file would.  EFORMAT: not of one geometry
   (calomu_geometry_compare), or features or losses differ in what the files say of them; *misfit
   (NULL: not wanted) is then the number of the first set that does not fit sets[0]. */
calomu_status calomu_data_join(calomu *c, calomu_data *const *sets, int n, int *misfit,
                               calomu_data **data);
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

typedef struct calomu_training calomu_training;

calomu_status calomu_model_load(calomu *c, const char *path, calomu_model **model);
calomu_status calomu_model_save(calomu *c, const calomu_model *model, const char *path);
/* Weights from another program: a state_dict of PyTorch in safetensors, of one network or of an
   ensemble, bare or with the metadata of a model of ours, whatever its checksum.  Menu and sizes
   come from the metadata, else from names and shapes; geometry, feature options and
   standardised_unknown from `base`, or, NULL, from the metadata, else the paper's; standardisation
   from mean and deviation (28 each; 0 and 1 change nothing), or, NULL, from the metadata.  Prefixes
   of wrappers (module., _orig_mod., model.) are taken off, F16, BF16 and F64 converted: the log
   says so.  EFORMAT: tensors that do not fit, all named; features that have weights but no mean and
   deviation. */
calomu_status calomu_model_import(calomu *c, const char *path, const calomu_architecture *base,
                                  const double *mean, const double *deviation,
                                  calomu_model **model);
/* The same for weights that come back: everything else is that of `like`. */
calomu_status calomu_model_import_like(calomu *c, const char *path, const calomu_model *like,
                                       calomu_model **model);
/* One ensemble of the members of n models, at most 1000, of the same architecture (inputs stay the
   caller's).  Members are weighted by 1/(their validation loss), Sec. 3.2.4. */
calomu_status calomu_model_join(calomu *c, calomu_model *const *models, int n,
                                calomu_model **ensemble);
const calomu_model_info *calomu_model_describe(const calomu_model *model);
double calomu_model_loss(const calomu_model *model, int member);  /* of validation; NaN: unknown */
/* How a member was trained, borrowed from the model; NULL: its file does not tell. */
const calomu_training *calomu_model_training(const calomu_model *model, int member);
void calomu_model_free(calomu_model *model);                      /* NULL is allowed */

/* Energies (GeV, not debiased) of n muons.  data NULL: hits in any order in the model's geometry,
   features computed as the model wants them.  With data, the events must come from it
   (calomu_data_read): its geometry is compared with the model's (calomu_geometry_compare), which is
   the one in use; its features are used where the convention fits and recomputed where not.  out: n
   values; members: n x members values, or NULL.
   Threads: the context's; for one muon only while that is faster than one (where other programs
   take the processors it is not).  The context keeps its memory, but nothing of the model, for the
   next call.  On a device in batches of up to 1,024 (fewer where memory is short, the same bits);
   there the context keeps the model's weights, too. */
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
    double lr;                       /* maximum of the 1cycle; 0: min(5e-3, 3e-5*65280/updates), */
                                     /*   with `start` a tenth of it */
    uint64_t seed;
    double bin_low, bin_high;        /* loss bins: 50, 8000 GeV */
    int32_t bins;                    /* 5 */
    double quantile;                 /* 0.68 */
    double weight_centre, weight_low, weight_high;       /* Eq. (3): 5000, 300, 600 GeV */
    double range_low, range_high;    /* range of the MI on the monitored fold: 100, 4000 GeV */
    int32_t fit_bins, mi_bins;       /* 39, 20 */
    double tracker;                  /* relative resolution per TeV, 0.2 */
    int32_t shuffle;                 /* 1: the muons are shuffled, by `seed`, before they are cut */
                                     /*   into folds; 0: folds are stretches of the data */
    double outside;                  /* part of the muons that may be outside of loss bins or */
                                     /*   weights, 0.2; 1: what is unfit is never an error */
    const calomu_data *validation;   /* muons to monitor in place of fold member + 1, which is */
                                     /*   then trained on; must outlive the trainer; or NULL */
    const calomu_model *start;       /* weights to start from, and their standardisation; of an */
                                     /*   ensemble those of the same member.  NULL: random ones */
    int32_t separate, started;       /* calomu_trainer_options: 1 where these two were given */
} calomu_train_options;

calomu_train_options calomu_train_options_default(void);
/* Loss bins, weights and range of the MI for muons from low to high GeV: the default's, moved and
   stretched as 50 to 8000 GeV is to these (which gives the default's themselves). */
void calomu_train_options_range(calomu_train_options *options, double low, double high);
/* The lowest true energy of the muons trained on or monitored, rounded down to two digits, and the
   highest, rounded up to more than itself, GeV: what calomu_train_options_range wants.  Reads
   nothing else of the muons.  EFORMAT: a muon without true energy, or folds in some order, as for
   calomu_trainer_create. */
calomu_status calomu_train_energies(calomu *c, const calomu_data *data,
                                    const calomu_train_options *options, double *low,
                                    double *high);

/* How a model was trained (calomu_model_training). */
struct calomu_training {
    int32_t known;                   /* 1; in a model, 0: nothing is */
    int32_t version;                 /* CALOMU_VERSION of the program */
    int32_t epoch;                   /* whose state the model is, the best one */
    int32_t changed;                 /* 1: another program may have changed the weights since */
    int32_t epochs, finished;        /* begun; 1: no epoch followed */
    uint64_t muons, fingerprint;     /* of the data: how many, and a checksum of their truth, */
    uint64_t hits;                   /*   and one of their hits (0: unknown) */
    uint64_t validation;             /* muons of a validation set of its own */
    calomu_train_options options;
};

typedef struct calomu_trainer calomu_trainer;

/* A training of one network on `data` (which must outlive it and hold true energies).
   Standardisation is computed over the training folds; features are computed where they lack.
   EUSAGE: no training fold holds a full batch, ...
   EFORMAT where muons and options do not fit together, and nothing would be learnt without a word:
   the energies of fold member + 1 are distributed otherwise than the other folds' (two-sample
   Kolmogorov-Smirnov test, p < 1e-6), which `shuffle` cures; more muons than `outside` lie outside
   the loss bins, have weights below 0.001 or hits that sum up to more than their true energy; four
   fifths of the loss bins or of the MI's range are without a muon; 95% of the muons have no cell
   above 0.1 GeV.  What is less than that is a notice (calomu_options.log). */
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
/* The same where the training has a validation set of its own (NULL: it has none). */
calomu_status calomu_trainer_resume_with(calomu *c, const calomu_data *data,
                                         const calomu_data *validation, const char *path,
                                         calomu_trainer **t);
/* Makes a training longer, also one that has ended: the same bits as if these epochs and this
   stop_after had been its options from the start.  EUSAGE: fewer than it has. */
calomu_status calomu_trainer_extend(calomu *c, calomu_trainer *t, int32_t epochs,
                                    int32_t stop_after);
/* Whether the model file at `path` is the result of a training that has ended: *members are its
   networks, with the (first one's) options and architecture, or 0: it does not tell of such a
   training.  EFORMAT with *members above 0: of one on other muons. */
calomu_status calomu_trainer_ended(calomu *c, const calomu_data *data,
                                   const calomu_data *validation, const char *path,
                                   calomu_train_options *options,
                                   calomu_architecture *architecture, int *members);
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
    int32_t bootstrap;               /* resamplings for the error of a bin's mean, which weighs it
                                        in the debiasing; 0: sd/sqrt(n) */
    uint64_t seed;                   /* of all resamplings */
    int32_t errors;                  /* resamplings of calomu_resolution_errors: 200; 0: none */
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
    double calorimeter_error, combined_error;    /* from calomu_resolution_errors, else absent */
} calomu_bin;

typedef struct calomu_summary {
    double mi;                       /* mean improvement, percent points */
    double worst;                    /* worst combined resolution, percent */
    int32_t used, skipped;           /* bins */
    int32_t points;                  /* 1: at fixed energies */
    double mi_error, worst_error;    /* from calomu_resolution_errors, else absent */
} calomu_summary;

/* Resolution (Eq. 4) per bin of debiased predictions; line NULL: predictions as they are.
   bins: room for max_bins; *n_bins: how many there are (EUSAGE if more than max_bins). */
calomu_status calomu_resolution(calomu *c, const calomu_eval_options *options,
                                const calomu_line *line, const double *truth,
                                const double *prediction, size_t n, calomu_bin *bins,
                                int max_bins, int *n_bins, calomu_summary *summary);
/* Fills in the errors of bins and summary that calomu_resolution has just made of the same muons
   with the same options: standard deviations over options->errors resamplings of the muons.  fit_
   are the muons of calomu_debias_fit, whose line is fitted again in each resampling; the same
   pointers as truth and prediction where it was fitted to these; NULL and 0 for none.  Absent
   (isnan) where a bin has fewer than 2 muons, and all of them where the line of some resampling
   cannot be inverted.  Equal bits for any number of threads; the context's share the work.  They do
   not hold what another training would change.  EUSAGE: bins of other muons or options. */
calomu_status calomu_resolution_errors(calomu *c, const calomu_eval_options *options,
                                       const double *fit_truth, const double *fit_prediction,
                                       size_t n_fit, const double *truth, const double *prediction,
                                       size_t n, calomu_bin *bins, int n_bins,
                                       calomu_summary *summary);
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
   process that is killed leaves .NAME.PID.K.tmp, which the library never removes.  It takes no
   lock: of two writers of one name the last to close wins. */
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

/* The modes of the processor that equal bits need: rounding to nearest, numbers below the normal
   ones kept, no traps.  Every function of this header that computes sets them for its own work, in
   each of its threads; these two are for what a program computes beside it, as simulate.c does.
   Both are cheap (30 ns) where the modes are right already. */
typedef struct calomu_modes {
    int changed;                     /* 1: they were others, which `host` holds */
    uint64_t host[8];
} calomu_modes;
int calomu_modes_set(calomu_modes *host);    /* of this thread; 0: they cannot be set, none is */
void calomu_modes_restore(const calomu_modes *host);

/* ---------------------------------------------------------------- internals: no stable interface

   For tests/, cuda/ and the benchmark of single operations only: they, and the calomu.c that is
   linked to them, are compiled with -DCALOMU_INTERNALS.  In any other calomu.c all of this is
   static, so that no name but calomu_* meets those of a host program. */
#ifdef CALOMU_INTERNALS
#include <stdio.h>
#ifndef CM_LOCAL
#define CM_LOCAL                     /* calomu.c defines it as static */
#endif

typedef CALOMU_REAL cm_real;
enum { CM_LANES = 16 };              /* L: muons per group */

/* An activation of B muons: array [group][z][x][y][channel][L], with a zero halo of `lo` sites
   below and `hi` above on every axis.  Interior site (z, x, y), channel c, lane l of group k:
       x[k*group + (z*row_z + x*row_x + y)*nc*L + c*L + l], counted from `origin`.
   Lanes behind the last muon are dead: finite values that reach no result. */
/* One muon in 16 lanes (16.2): its grid in blocks of neighbouring rows, block (i, j) in lane
   i*across + j. */
typedef struct cm_blocks {
    int nz, nx;                      /* rows of the grid */
    int z, x;                        /* rows of a block; the last ones reach outside the grid */
    int along, across;               /* blocks along z and x */
} cm_blocks;

/* Shares of a tensor's gradient that are not added to dx where they arise: the operation that made
   the tensor computes them row by row as it reads its gradient, dx first if anything is there, then
   in this order.  Decided for the whole tape before backward starts (section 16). */
typedef struct cm_unadded {
    struct cm_record *join;          /* of a join or a pooling that reads the tensor, or NULL */
    struct cm_tensor *mean;          /* behind it of the mean with this result, or NULL */
    struct cm_record *norms;         /* of batch norms that read it: this one, and by next_norm */
    int readers;                     /* unadded shares that are computed from this tensor's dx */
    int first_pass;                  /* 1: of a batch norm's result: while its only reader writes */
                                     /*   dx, the norm sums the rows (17.4) */
} cm_unadded;

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
    int reached;                     /* 1: backward comes here: a gradient is set or handed to it */
    int written;                     /* 1: dx holds a gradient, so add to it */
    int users;                       /* operations that read it */
    struct cm_record *producer;      /* the operation that made it, or NULL */
    double *sums;                    /* of its planes, values and squares (17.3), or NULL */
    int swished;                     /* 1: sums are those of Swish of it */
    const cm_blocks *blocks;         /* NULL: a lane is a muon */
    int on_the_fly;                  /* 1: no memory, values are computed when read (17.4) */
    cm_unadded unadded;
    int pending_readers;             /* in inference: deferred joins (17.12) that will read x, */
    int dropped;                     /*   and 1: then nobody needs it */
    struct cm_record *deferred;      /* the join whose rows are still to be computed, or NULL */
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
    int direct, unfused;             /* of the context */
    cm_pack_of *one;
    int n, capacity;
} cm_packs;

typedef struct cm_packed_cache {     /* the same in the memory of a device */
    cm_pack_of *one;
    int n, capacity;
} cm_packed_cache;

typedef struct cm_graph cm_graph;    /* tape and arena */
typedef struct cm_record cm_record;  /* one operation on the tape */
typedef struct cm_kernels cm_kernels;

enum { CM_ROWS = 1, CM_GROUPS };
typedef enum cm_share_kind {              /* what backward hands to an input: */
    CM_SHARE_NONE,
    CM_SHARE_WHOLE,                  /* a gradient that is written in one go, */
    CM_SHARE_CONV,                   /*   that in rows which are complete one by one, */
    CM_SHARE_ROWS,                   /*   one whose rows follow from those of out->dx (joins, */
                                     /*   poolings), */
    CM_SHARE_MEAN,                   /*   the same for all sites, */
    CM_SHARE_NORM                    /*   the second pass of a batch norm (17.4) */
} cm_share_kind;
enum {                               /* what a batch norm keeps: y = A x + B, ... */
    CM_NORM_A, CM_NORM_B, CM_NORM_MEAN, CM_NORM_R, CM_NORM_CLAMPED, CM_NORM_SLOPE, CM_NORM_SHIFT,
    CM_NORM_KINDS
};
enum { CM_NORM_E = 3, CM_NORM_F };   /* columns of the backward pass */
enum { CM_SWISH_BEHIND = 1, CM_SWISH_BEFORE, CM_MEAN = 4 };

struct cm_record {
    void (*backward)(cm_graph *g, cm_record *r);
    void (*again)(cm_graph *g, cm_record *r);    /* makes out->x from the inputs, or NULL */
    void (*share_row)(const cm_graph *g, const cm_record *r, const cm_tensor *t, int k, int z,
                      int i, cm_real *to);       /* a row of what t gets, of CM_SHARE_ROWS */
    cm_tensor *out, *in[4];
    cm_weight w, bias;               /* w.x NULL: every weight is `scale` (sums of hits) */
    cm_norm norm;
    const cm_hits *hits;
    int kernel, stride, pad, first, swish, wino, cheap;
    unsigned char share[4];          /* cm_share_kind, of each input; */
    unsigned char added[4];          /* 1: backward adds it to dx, 0: there is none, or it is */
                                     /*   among the input's unadded ones, */
    cm_record *next_norm;            /*   there before this batch norm */
    int takes_unadded;               /* CM_ROWS, CM_GROUPS: how backward can compute such shares */
    double scale;
    double *saved;                   /* what forward keeps; of a batch norm its transform (17.4), */
    cm_real *column[5];              /*   [kind][channel], and in reals: a, b, mean; */
    double *sums;                    /*   backward e, f; sums of its first pass, once begun */
    cm_real *gate;                   /* of a join, for an unadded share of its path */
    const struct cm_layer *layer, *reads;        /* by its plain function (17.13), or NULL */
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
    cm_operation sparse, conv, pool, point, norm, mean, max, add, concat, scale, join, channel,
        add_scaled;
    void (*norm_prepare)(cm_graph *g, cm_record *r);     /* updates the buffers from in[0], in */
                                     /*   training; then saved and columns A, B, MEAN */
    void (*zero)(cm_graph *g, void *at, size_t bytes);
    void (*zero_halo)(cm_graph *g, const cm_tensor *t, cm_real *x);
} cm_operations;

typedef struct cm_arena_piece {      /* of the arena */
    size_t offset, size;
    int free;
} cm_arena_piece;

struct cm_graph {
    calomu *c;
    struct cm_unit *unit;            /* the device whose memory the arena is, or NULL */
    const cm_operations *o;
    unsigned char *memory;           /* NULL: dry */
    size_t size, used, peak;
    cm_arena_piece *piece;
    int n_pieces, capacity;
    struct cm_small *small;
    cm_record *last;
    int threads, training, split, recompute;
    int wino, fused;                 /* allowed: Winograd's method; what 9.1 to 9.2 save */
    calomu_status status;
    const cm_kernels *k;
    const cm_packs *packs;           /* packed weights to use, or NULL */
    cm_packs *packing;               /* to fill in a dry graph, or NULL */
    cm_packed_cache *packed_cache;   /* on a device: weights do not change; or NULL */
};

#ifndef CALOMU_PLAIN
/* What the operations of a device need of the graph.  cm_cached: memory for what is made of weights
   alone, found again under its key from call to call if the weights do not change; *fresh becomes
   1 if it must be filled.  Else it is the arena's; cm_give_back takes either. */
CM_LOCAL cm_real *cm_cached(cm_graph *g, const void *key, size_t count, int *fresh);
CM_LOCAL int cm_dry(const cm_graph *g);                  /* 1: take memory, compute nothing */
CM_LOCAL cm_real *cm_arena_take(cm_graph *g, size_t count);  /* undefined contents; NULL: failed */
CM_LOCAL void cm_give_back(cm_graph *g, const void *x);
CM_LOCAL int cm_grad_begin(cm_graph *g, cm_tensor *t);   /* t->dx is there; 1: add to it */
CM_LOCAL int cm_cheap(const cm_tensor *t);
CM_LOCAL void cm_forget(cm_graph *g, cm_tensor *t);      /* t->x may go and be made again: */
CM_LOCAL void cm_remember(cm_graph *g, cm_tensor *t);
CM_LOCAL void cm_profile_end(const cm_graph *g, const cm_record *r, const char *part);
#endif

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

/* A profile: `mark` is called, by the thread that works with the context, when a part of an
   operation has ended.  All the time since the call before belongs to it.  NULL: no profile. */
typedef struct cm_profile_mark {
    const char *name, *part;         /* "convolution", ...; "forward", "to weights", "to input", */
    const cm_tensor *in, *out;       /*   "backward"; in NULL: the hits are read */
    const cm_hits *hits;
    int kernel, stride;              /* 0: no convolution */
} cm_profile_mark;
CM_LOCAL void cm_profile_set(calomu *c, void (*mark)(void *user, const cm_profile_mark *mark),
                             void *user);

#ifndef CALOMU_PLAIN                 /* part III: the fast engine */
/* A graph in a caller's arena of `size` bytes (64-byte aligned), or, with memory NULL, a dry one:
   it records and counts but does not compute.  training: operations are recorded for backward and
   batch norms update their buffers. */
CM_LOCAL cm_graph *cm_graph_new(calomu *c, void *memory, size_t size, int threads, int training);
CM_LOCAL cm_graph *cm_graph_on(calomu *c, cm_unit *unit, void *memory, size_t size, int threads,
                               int training);  /* the same in a device's memory; NULL: processor */
CM_LOCAL void cm_graph_free(cm_graph *g);
CM_LOCAL void cm_graph_split(cm_graph *g, int split);
                                     /* 1: hits of one muon go into blocks; inference */
CM_LOCAL void cm_graph_reset(cm_graph *g);  /* forgets tensors and records; keeps the memory */
CM_LOCAL size_t cm_graph_peak(const cm_graph *g);        /* bytes of arena used at most so far */
CM_LOCAL calomu_status cm_graph_status(const cm_graph *g);  /* first failure since the reset */

/* Operations.  Each computes now and records itself; a NULL argument or a failure gives NULL, and
   cm_graph_status says which.  halo: lo and hi of the result. */
CM_LOCAL cm_tensor *cm_input(cm_graph *g, int muons, int nz, int nx, int ny, int nc, int lo, int hi,
                             int needs);                 /* zeroed; the caller fills x */
CM_LOCAL cm_tensor *cm_sparse_conv(cm_graph *g, const cm_hits *hits, cm_weight w, int out,
                                   int kernel, int stride, int pad, int halo);
CM_LOCAL cm_tensor *cm_sparse_sum(cm_graph *g, const cm_hits *hits, double scale, int halo);
CM_LOCAL cm_tensor *cm_conv(cm_graph *g, cm_tensor *x, cm_weight w, cm_weight bias, int out,
                            int kernel, int stride, int pad, int halo);
                                     /* bias.x NULL: none; w [out][in][k^3] */
CM_LOCAL cm_tensor *cm_linear(cm_graph *g, cm_tensor *x, cm_weight w, cm_weight bias, int out);
CM_LOCAL cm_tensor *cm_pool(cm_graph *g, cm_tensor *x, int first, int n, double scale, int halo);
                                     /* sums over 2x2x2, stride 2, padding 1, times scale */
CM_LOCAL cm_tensor *cm_batchnorm(cm_graph *g, cm_tensor *x, cm_norm n, int swish, int lo, int hi);
                                     /* swish 1: Swish of the result, in one pass */
CM_LOCAL cm_tensor *cm_batchnorm_by_rows(cm_graph *g, cm_tensor *x, cm_norm n, int swish, int halo);
                                     /* for cm_mean, cm_pool and the path of cm_join, which may */
                                     /*   make its values themselves; swish CM_SWISH_BEFORE: of */
                                     /*   Swish of x */
CM_LOCAL cm_tensor *cm_swish(cm_graph *g, cm_tensor *x);
CM_LOCAL cm_tensor *cm_sigmoid(cm_graph *g, cm_tensor *x);
CM_LOCAL cm_tensor *cm_mean(cm_graph *g, cm_tensor *x);  /* over the sites, per channel */
CM_LOCAL cm_tensor *cm_max(cm_graph *g, cm_tensor *x);   /* ties share the gradient equally */
CM_LOCAL cm_tensor *cm_scale(cm_graph *g, cm_tensor *x, cm_tensor *gate);  /* gate: one site */
CM_LOCAL cm_tensor *cm_add(cm_graph *g, cm_tensor *a, cm_tensor *b);
CM_LOCAL cm_tensor *cm_concat(cm_graph *g, cm_tensor *a, cm_tensor *b);  /* channels */
CM_LOCAL cm_tensor *cm_join(cm_graph *g, cm_tensor *e, double scale, cm_tensor *shortcut,
                            cm_tensor *path, cm_tensor *gate, int halo);
                                /* concat(scale * channel 0 of e, shortcut + gate*path), one pass */
/* Runs the records in reverse; the gradient of the result must be set by the caller before
   (cm_gradient).  Afterwards only inputs (cm_input) and weights hold values and gradients: the
   memory of every result has been used again.  In inference too, results that the plan of the
   network (section 18) has dropped are gone; its final output stays. */
CM_LOCAL void cm_backward(cm_graph *g);
CM_LOCAL cm_real *cm_gradient(cm_graph *g, cm_tensor *t);
                                     /* t->dx, allocated and zeroed if not there */
#endif

/* Loss (Sec. 3.2.2) of B predictions (GeV): returns the mean, updates the thresholds if `update`,
   writes the gradient to dp if not NULL (B values). thresholds: options->bins values, -1 unset. */
CM_LOCAL double cm_loss(const calomu_train_options *o, const double *truth, const double *pred,
                        int n, double *thresholds, int update, double *dp);
CM_LOCAL double cm_loss_weight(const calomu_train_options *o, double truth);  /* Eq. (3) */

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

/* A network is a list of plain layers (section 4).  What a layer computes; x, a, b, s, p, q are the
   results of those that it reads. */
typedef enum cm_kind {
    CM_FEATURES,                     /* the features of the muon: an input */
    CM_HITS_CONV,                    /* convolution of the hits, no bias */
    CM_HITS_SUM,                     /* scale times the sum of the hits in 2x2x2 cells */
    CM_CONV,                         /* convolution of x */
    CM_LINEAR,                       /* y[o] = bias[o] + sum w[o][i] x[i], of one site */
    CM_NORM,                         /* running batch norm */
    CM_SWISH,                        /* Swish-1, each value */
    CM_SIGMOID,
    CM_MEAN_OF,                      /* over the sites, per channel */
    CM_MAX_OF,
    CM_POOL,                         /* scale times sums of x over 2x2x2, stride 2, padding 1 */
    CM_CHANNEL,                      /* channel 0 of x */
    CM_ADD_SCALED,                   /* s + q*p, one rounding; q has one site */
    CM_CONCAT,                       /* the channels of a, then those of b */
    CM_WINDOW,                       /* as CM_CONV, with a window that this has no kernels for */
    CM_KINDS
} cm_kind;

typedef struct cm_window {           /* that slides along z, x, y */
    int kernel[3], stride[3], before[3], after[3];       /* cells; padding at either side */
} cm_window;

enum { CM_KERNEL_MOST = 64 };        /* of kernels and strides */

typedef struct cm_list cm_list;      /* of layers, and its plans; networks of a model share one */

/* An empty list for at most `most` layers, which read hits of nz x nx x ny cells and so many
   features; NULL: EMEMORY is set. */
CM_LOCAL cm_list *cm_list_new(calomu *c, int nz, int nx, int ny, int features, int most);
CM_LOCAL void cm_list_free(calomu *c, cm_list *s);
/* Each adds a layer and returns its number.  x, a, ...: numbers of layers before it; x -1 of a
   convolution or a sum: the hits.  name: of its parameters in the state_dict.  What does not fit is
   refused by cm_list_check. */
CM_LOCAL int cm_layer_features(cm_list *s);
CM_LOCAL int cm_layer_conv(cm_list *s, const char *name, int x, int out, int kernel, int stride,
                           int pad, int bias);
CM_LOCAL int cm_layer_window(cm_list *s, const char *name, int x, int out, const cm_window *w,
                             int bias);
CM_LOCAL cm_window cm_window_cube(int kernel, int stride, int pad);
CM_LOCAL int cm_layer_pool(cm_list *s, const char *name, int x, double scale);   /* name "": none */
CM_LOCAL int cm_layer_linear(cm_list *s, const char *name, int x, int out, cm_init init);
CM_LOCAL int cm_layer_norm(cm_list *s, const char *name, int x);
CM_LOCAL int cm_layer_point(cm_list *s, cm_kind kind, int x);        /* CM_SWISH, CM_SIGMOID */
CM_LOCAL int cm_layer_over_sites(cm_list *s, cm_kind kind, int x);   /* CM_MEAN_OF, CM_MAX_OF */
CM_LOCAL int cm_layer_channel(cm_list *s, int x);
CM_LOCAL int cm_layer_add_scaled(cm_list *s, int shortcut, int path, int gate);
CM_LOCAL int cm_layer_concat(cm_list *s, int a, int b);
CM_LOCAL void cm_list_result(cm_list *s, int layer);     /* the network's; else the last layer */
/* EUSAGE: a layer cannot be computed; the message names it and says why. */
CM_LOCAL calomu_status cm_list_check(calomu *c, const cm_list *s);

typedef struct cm_net {              /* one network: list, table and values */
    calomu_architecture arch;
    cm_list *list;
    cm_param *param;
    int n_params;
    size_t n_trained, n_fixed, n_buffers;
    cm_real *trained, *fixed, *buffers;      /* the blocks */
} cm_net;

/* All values 0. */
CM_LOCAL calomu_status cm_net_new(calomu *c, const calomu_architecture *a, cm_net **net);
/* Of a list that is checked first, and the network's from then on; freed if this fails. */
CM_LOCAL calomu_status cm_net_of_list(calomu *c, cm_list *s, cm_net **net);
CM_LOCAL void cm_net_init(cm_net *net, uint64_t seed);   /* Sec. 3.1: Kaiming, Glorot */
CM_LOCAL void cm_net_free(calomu *c, cm_net *net);
CM_LOCAL const cm_param *cm_net_find(const cm_net *net, const char *name);
CM_LOCAL cm_real *cm_net_values(const cm_net *net, const cm_param *p);
#ifndef CALOMU_PLAIN
/* One line for each operation of the plan of inference or training: number, layer, operation, the
   numbers that it reads, shape, where its values are, rules that were applied; 0: no such step. */
CM_LOCAL int cm_net_plan(const cm_net *net, int training, int direct, int unfused, int step,
                         char text[320]);
/* Tells line by line, from the last operation to the first, which operations behind it add to its
   gradient (in this order, that of the sum) and which leave it to the operation itself, which then
   adds it row by row (`unadded`); for a training step of so many muons. */
CM_LOCAL calomu_status cm_net_gradients(calomu *c, const cm_net *net, int muons, int threads,
                                        void (*tell)(void *user, const char *line), void *user);
/* Records the network on g, from features and hits (NULL: the list reads none) to its result.
   gradient: a block like net->trained, or NULL. */
CM_LOCAL cm_tensor *cm_net_forward(cm_graph *g, const cm_net *net, const cm_hits *hits,
                                   cm_tensor *features, cm_real *gradient);
#endif

/* The plain pass of a batch (5.9), one layer behind the other: what every other way to
   compute must equal.  Borrows what it is given; gradient NULL: inference, else training, and
   derivatives are added to it.  Functions fail with EMEMORY, or EFORMAT for a network that was
   never trained. */
typedef struct cm_pass cm_pass;
CM_LOCAL cm_pass *cm_pass_new(calomu *c, const cm_net *net, const calomu_event *event,
                              const cm_real *features, int muons, cm_real *gradient);
CM_LOCAL calomu_status cm_pass_step(cm_pass *p, int layer);      /* the next layer */
CM_LOCAL calomu_status cm_pass_forward(cm_pass *p, double *prediction);      /* all, [muon][...] */
CM_LOCAL calomu_status cm_pass_backward(cm_pass *p, const double *dp);   /* d loss/d prediction */
CM_LOCAL void cm_pass_free(cm_pass *p);
CM_LOCAL int cm_pass_layers(const cm_pass *p);
CM_LOCAL int cm_pass_result(const cm_pass *p);   /* the layer that is the network's */
/* What layer i has made, [muon][z][x][y][channel], while it is there; its name, or its kind's. */
CM_LOCAL const cm_real *cm_pass_values(const cm_pass *p, int i, const char **name, int shape[4]);
CM_LOCAL double cm_muon_sum(const double *s, size_t n);
/* One Adam update (Sec. 3.2.3) of n values. step counts from 1. */
CM_LOCAL void cm_adam(cm_real *w, const cm_real *dw, cm_real *m, cm_real *v, size_t n, double lr,
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
CM_LOCAL int cm_plan_epoch(const calomu_train_options *o, cm_plan *plan, double validation_loss);
/* LR and beta1 of update t = 0, 1, ... of the 1cycle with `per_epoch` updates an epoch. */
CM_LOCAL void cm_plan_rate(const calomu_train_options *o, uint64_t per_epoch, uint64_t t,
                           double *lr, double *beta1);
/* Role of each of the o->folds folds. */
CM_LOCAL calomu_status cm_plan_folds(calomu *c, const calomu_train_options *o, uint64_t n_events,
                                     unsigned char *role);
/* Probability that two sorted samples of n and m values (1 or more) are as far apart as these or
   farther if they are of one distribution (Kolmogorov and Smirnov): exact below 4e6 for n m. */
CM_LOCAL calomu_status cm_ks(calomu *c, const double *x, size_t n, const double *y, size_t m,
                             double *p);
/* A random permutation of 0..n-1. */
CM_LOCAL void cm_plan_shuffle(uint64_t seed, uint64_t stream, uint64_t *order, uint64_t n);

/* A model file in memory: single nets with standardisation. */
struct calomu_model {
    calomu_model_info info;
    cm_net **net;                    /* info.members */
    double *loss;                    /* validation losses, NaN unknown */
    calomu_training *training;       /* info.members */
    cm_packs packs;                  /* for inference; cm_model_finish makes them, */
    size_t arena;                    /*   and finds how much an arena takes */
    calomu *own;                     /* cm_clone of the context that made it */
};
CM_LOCAL calomu_status cm_model_new(calomu *c, const calomu_architecture *a, int members,
                                    calomu_model **model);  /* values 0; mean 0, deviation 1 */
/* Packs the weights of a complete model and hands it out; s not CALOMU_OK, or no memory: frees it
   and returns the status. */
CM_LOCAL calomu_status cm_model_finish(calomu *c, calomu_status s, calomu_model *m,
                                       calomu_model **model);

/* Our own functions, the same bits on every machine: right to 3 ulp, the sigmoid in float to
   1.3e-7 + 1.3e-8 |v| of itself.  a*b + c rounded once, without an instruction for it. */
CM_LOCAL double cm_soft_fma(double a, double b, double c);
CM_LOCAL float cm_soft_fmaf(float a, float b, float c);
CM_LOCAL cm_real cm_sigmoid_value(cm_real v);
CM_LOCAL double cm_exp_double(double x);
CM_LOCAL double cm_log_double(double x);
CM_LOCAL double cm_cos_double(double x);
CM_LOCAL uint64_t cm_checksum(uint64_t seed, const void *bytes, size_t n);

/* Tensors of a safetensors file, strictly parsed (design 4).  Types in the order of cm_dtypes; no
   more than these four are written. */
typedef enum cm_dtype {
    CM_F32, CM_F64, CM_I64, CM_U8, CM_F16, CM_BF16, CM_I32, CM_U32, CM_U64, CM_C64, CM_I16, CM_U16,
    CM_I8, CM_BOOL, CM_F8_E4M3, CM_F8_E5M2, CM_F8_E8M0, CM_DTYPES
} cm_dtype;
enum { CM_RANK = 5 };                /* most dimensions of a tensor */
typedef struct cm_st_tensor {        /* 48 bytes: less than its entry in a header takes */
    const char *name;
    const void *data;                /* little-endian in memory, not aligned */
    uint32_t shape[CM_RANK];
    uint32_t count;                  /* elements */
    int rank;
    cm_dtype dtype;
} cm_st_tensor;
typedef struct cm_st_meta { char *key, *value; } cm_st_meta;
typedef struct cm_st {               /* a whole file in memory */
    cm_st_tensor *tensor;            /* of a file that was read: by name, */
    int n_tensors;
    cm_st_meta *meta;                /* __metadata__, by key */
    int n_meta;
    int changed;                     /* 1: a file of ours whose checksum is wrong */
    void *memory;
} cm_st;
CM_LOCAL calomu_status cm_st_read(calomu *c, const char *path, cm_st *st);
/* Atomically; adds a checksum to the metadata. */
CM_LOCAL calomu_status cm_st_write(calomu *c, const char *path, const cm_st *st);
CM_LOCAL void cm_st_free(calomu *c, cm_st *st);
/* In a file that was read; NULL: absent. */
CM_LOCAL const char *cm_st_find_meta(const cm_st *st, const char *key);
CM_LOCAL const cm_st_tensor *cm_st_find(const cm_st *st, const char *name);

/* Services of the context. */
CM_LOCAL void *cm_allocate(calomu *c, size_t count, size_t size); /* zeroed; NULL: EMEMORY is set */
CM_LOCAL void cm_release(calomu *c, void *memory);
/* A private context with the same allocator, for objects that outlive their context; NULL:
   EMEMORY is set in c. */
CM_LOCAL calomu *cm_clone(calomu *c);
CM_LOCAL void cm_clone_free(calomu *own);
#if defined(__MINGW_PRINTF_FORMAT)   /* by stdio.h: what C99 says, not what Windows does */
#define CM_PRINTF(text, first) __attribute__((format(__MINGW_PRINTF_FORMAT, text, first)))
#elif defined(__GNUC__)
#define CM_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define CM_PRINTF(text, first)
#endif
CM_LOCAL calomu_status cm_fail(calomu *c, calomu_status s, const char *format, ...)
    CM_PRINTF(3, 4);
CM_LOCAL void cm_log(calomu *c, const char *format, ...) CM_PRINTF(2, 3);

#endif /* CALOMU_INTERNALS */

#ifdef __cplusplus
}
#endif

#endif /* CALOMU_H */

/* For files that define CALOMU_EQUAL_BITS before this header, as calomu.c does: compilers are told
   to compute what is written.  Without it gcc fuses products with sums (where the machine can),
   which gives other bits.  What a pragma does not undo is an error here, or else found when the
   program runs (calomu_build_info). */
#if defined(CALOMU_EQUAL_BITS) && !defined(CALOMU_EQUAL_BITS_SET)
#define CALOMU_EQUAL_BITS_SET
#include <float.h>
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0)
#error "calomu: compile this file without -ffast-math, -Ofast and -ffinite-math-only (they take \
NaN for a number); the rest of a program may keep them"
#endif
#if FLT_RADIX != 2 || FLT_MANT_DIG != 24 || DBL_MANT_DIG != 53 || DBL_MAX_EXP != 1024
#error "calomu: float and double must be those of IEEE 754, of 32 and 64 bits"
#endif
/* Fails with -fsingle-precision-constant, which takes 0.1 for 0.1f: compile without. */
typedef char calomu_constants_are_double[sizeof 1.0 == sizeof(double) ? 1 : -1];
#if defined(__clang__)
#if __clang_major__ >= 12
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wignored-pragmas"     /* of machines that do not know it */
#pragma float_control(precise, on)
#pragma clang diagnostic pop
#endif
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-unsafe-math-optimizations", "no-associative-math", \
                     "no-reciprocal-math", "signed-zeros")
#else
#pragma STDC FP_CONTRACT OFF
#endif
/* Wider registers: x87 (2) gives way to SSE2; s390x with -std=c99 takes double for float (1). */
#if defined(__i386__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SSE2_MATH__)
#pragma GCC target("sse2,fpmath=sse")
#elif defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 1 && defined(__GNUC__) && __GNUC__ >= 12
#pragma GCC optimize("excess-precision=fast")
#elif defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 \
    && FLT_EVAL_METHOD != 32
#if defined(__i386__) || defined(__x86_64__)
#error "calomu: x87 registers are wider than double: add -msse2 -mfpmath=sse"
#else
#error "calomu: float must be computed in float: add -fexcess-precision=fast or -std=gnu99"
#endif
#endif
#endif

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
