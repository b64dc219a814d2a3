/* bench.c - `calomu bench`: the speed and memory of this machine on real muons, against targets and
   peers; see bench.h and the head of bench_turns.c */
#include "bench.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- figures and their targets */

static const bench_row bench_rows[] = {
    { "train_vs_torch_256", "training step against PyTorch, both at 256", "times", 7, 0 },
    { "train_vs_torch_best", "the same, PyTorch at its best batch", "times", 4.5, 0 },
    { "infer_vs_torch_256", "inference against PyTorch, both at 256", "times", 6, 0 },
    { "infer_vs_torch_best", "the same, PyTorch at its best batch", "times", 4, 0 },
    { "train_vs_newest", "training step against the newest peer at its best", "times", 3, 0 },
    { "infer_vs_newest", "inference against the newest peer at its best", "times", 3, 0 },
    { "conv_forward_peak", "convolutions forward, of the peak", "%", 65, 0 },
    { "conv_backward_input_peak", "convolutions backward to input, of the peak", "%", 65, 0 },
    { "conv_backward_weight_peak", "convolutions backward to weights, of the peak", "%", 65, 0 },
    { "other_share", "all but convolutions, of a training step", "%", 15, 1 },
    { "one_muon_ms", "one muon alone, hits to GeV, 1 thread", "ms", 8, 1 },
    { "sixteen_muons_ms", "16 muons, hits to GeV, 1 thread", "ms", 60, 1 },
    { "train_gb", "memory of training", "GB", 2, 1 },
    { "train_recompute_gb", "memory of training with --recompute", "GB", 1.2, 1 },
    { "features_ms", "28 features of a muon, 1 thread", "ms", 0.3, 1 },
    { "read_gb_per_s", "reading a data file, decoded hits, 1 thread", "GB/s", 1, 0 },
    { "bytes_per_hit", "data file, bytes of a hit", "bytes", 4.2, 1 },
    { "bytes_per_hit_full", "the same, mantissas filled at random", "bytes", 5.3, 1 },
    { "start_ms", "calomu predict on one muon, whole process", "ms", 30, 1 },
    { "two_threads", "2 threads against 1, training or inference", "times", 1.85, 0 }
};

/* On a GPU, in equal and in fast math. */
#define BENCH_GPU_ROWS(train, infer, one) \
    { "gpu_train_256", "training, batch 256", "1/s", train, 0 }, \
    { "gpu_train_best", "training, its best batch", "1/s", train, 0 }, \
    { "gpu_infer_1024", "inference, batch 1024", "1/s", infer, 0 }, \
    { "gpu_one_muon_ms", "one muon alone, hits to GeV", "ms", one, 1 }, \
    { "gpu_train_gb", "memory of training on the device, batch 256", "GB", 3, 1 }, \
    { "gpu_train_vs_torch", "training against PyTorch there, each at its best", "times", 1, 0 }, \
    { "gpu_infer_vs_torch", "inference against PyTorch there, each at its best", "times", 1, 0 }
static const bench_row bench_equal_rows[] = { BENCH_GPU_ROWS(8000, 40000, 2) };
static const bench_row bench_fast_rows[] = { BENCH_GPU_ROWS(16000, 80000, 1) };
enum {
    BENCH_ROWS = sizeof bench_rows / sizeof bench_rows[0],
    BENCH_DEVICE_ROWS = sizeof bench_equal_rows / sizeof bench_equal_rows[0]
};

void bench_set(bench *b, const char *name, double value)
{
    int i;
    for (i = 0; i < b->rows; i++)
        if (strcmp(b->row[i].name, name) == 0) b->value[i] = value;
}

void bench_leave(bench *b, const char *name, const char *why)
{
    int i;
    for (i = 0; i < b->rows; i++)
        if (strcmp(b->row[i].name, name) == 0) b->why[i] = why;
}

int bench_on_device(const bench *b) { return strcmp(b->machine.device, "cpu") != 0; }

static int bench_met(const bench_row *row, double value)
{
    return row->most ? value <= row->target : value >= row->target;
}

static void bench_print(const bench *b)
{
    int i;
    printf("\n%-52s%10s%12s  %s\n", "", "measured", "target", "met");
    for (i = 0; i < b->rows; i++) {
        const bench_row *r = &b->row[i];
        if (isnan(b->value[i]))
            printf("%-52s  LEFT OUT: %s\n", r->text, b->why[i]);
        else
            printf("%-52s%10.3g%5s%7g %-6s %s\n", r->text, b->value[i], r->most ? "<=" : ">=",
                   r->target, r->unit, bench_met(r, b->value[i]) ? "yes" : "no");
    }
}

static calomu_status bench_csv(const bench *b)
{
    tool_writer *w;
    int i;
    calomu_status s = tool_writer_open(b->c, b->csv_path, &w);
    if (s != CALOMU_OK) return s;
    tool_write_text(w, "row,value,unit,target,met\n");
    for (i = 0; i < b->rows; i++) {
        const bench_row *r = &b->row[i];
        if (isnan(b->value[i])) continue;
        tool_write_format(w, "%s,", r->name);
        tool_write_number(w, b->value[i], 6);
        tool_write_format(w, ",%s,", r->unit);
        tool_write_number(w, r->target, 6);
        tool_write_format(w, ",%s\n", bench_met(r, b->value[i]) ? "yes" : "no");
    }
    return tool_writer_close(w);
}

/* ---------------------------------------------------------------- the run */

/* A peer, alone at its best batch (`best`) and at our batch (`same`, may be NULL), and us.  The one
   that tries several goes first: its trials need memory. */
static calomu_status bench_against(bench *b, bench_job job, const char *name, const char *command,
                                   const char *same, const char *best)
{
    bench_side *own, *at_same = NULL, *at_best = bench_peer_add(b, command, name, b->batches);
    char batch[16];
    calomu_status s;
    (void)snprintf(batch, sizeof batch, "%d", (int)b->batch);
    if (same) at_same = bench_peer_add(b, command, name, batch);
    own = bench_side_add(b, job, b->batch, (int)b->machine.threads, name);
    s = bench_group(b);
    if (s == CALOMU_OK) s = bench_lost(own);
    if (s != CALOMU_OK) return s;
    bench_set(b, best, bench_best(at_best) / bench_best(own));
    bench_leave(b, best, "the peer did not run, see above");
    if (!same) return CALOMU_OK;
    bench_set(b, same, bench_best(at_same) / bench_best(own));
    bench_leave(b, same, "the peer did not run, see above");
    return CALOMU_OK;
}

static calomu_status bench_peers(bench *b)
{
    calomu_status s = CALOMU_OK;
    if (b->yardstick)
        s = bench_against(b, bench_training_job, "training", b->yardstick, "train_vs_torch_256",
                          "train_vs_torch_best");
    if (s == CALOMU_OK && b->yardstick)
        s = bench_against(b, bench_infer_job, "inference", b->yardstick, "infer_vs_torch_256",
                          "infer_vs_torch_best");
    if (s == CALOMU_OK && b->newest)
        s = bench_against(b, bench_training_job, "training", b->newest, NULL, "train_vs_newest");
    if (s == CALOMU_OK && b->newest)
        s = bench_against(b, bench_infer_job, "inference", b->newest, NULL, "infer_vs_newest");
    return s;
}

/* Two threads against one; memory of training. */
static calomu_status bench_threads(bench *b)
{
    static const bench_job job[2] = { bench_training_job, bench_infer_job };
    double least = INFINITY;
    int i, both = b->machine.threads >= 2;
    for (i = 0; i < 2; i++) {
        bench_side *many = bench_side_add(b, job[i], b->batch, both ? 2 : 1, "2 threads");
        bench_side *one = bench_side_add(b, job[i], b->batch, 1, "1 thread");
        bench_side *less = i == 0 ? bench_side_add(b, bench_recompute_job, b->batch, both ? 2 : 1,
                                                   "--recompute") : NULL;
        calomu_status s = bench_group(b);
        if (s == CALOMU_OK && less) s = bench_lost(less);
        if (s == CALOMU_OK) s = bench_lost(many);
        if (s == CALOMU_OK) s = bench_lost(one);
        if (s != CALOMU_OK) return s;
        least = fmin(least, bench_best(one) / bench_best(many));
        if (i == 0) bench_set(b, "train_gb", 1e-3 * many->memory);
        if (less) bench_set(b, "train_recompute_gb", 1e-3 * less->memory);
    }
    if (both) bench_set(b, "two_threads", least);
    return CALOMU_OK;
}

static calomu_status bench_small(bench *b)
{
    bench_side *read = bench_side_add(b, bench_read_job, 0, 1, "reading");
    bench_side *features = bench_side_add(b, bench_features_job, 64, 1, "features");
    bench_side *one = bench_side_add(b, bench_host_job, 1, 1, "one muon");
    bench_side *sixteen = bench_side_add(b, bench_host_job, 16, 1, "16 muons");
    bench_side *start = bench_side_add(b, bench_start_job, 1, 1, "start");
    calomu_status s = bench_group(b);
    if (s == CALOMU_OK) s = bench_lost(read);
    if (s == CALOMU_OK) s = bench_lost(features);
    if (s == CALOMU_OK) s = bench_lost(one);
    if (s == CALOMU_OK) s = bench_lost(sixteen);
    if (s == CALOMU_OK) s = bench_lost(start);
    if (s != CALOMU_OK) return s;
    bench_set(b, "read_gb_per_s", 1 / bench_best(read));
    bench_set(b, "features_ms", 1e3 * bench_best(features));
    bench_set(b, "one_muon_ms", 1e3 * bench_best(one));
    bench_set(b, "sixteen_muons_ms", 16e3 * bench_best(sixteen));
    bench_set(b, "start_ms", 1e3 * bench_best(start));
    return CALOMU_OK;
}

static calomu_status bench_all(bench *b)
{
    calomu_status s = bench_sizes(b);
    if (s == CALOMU_OK) s = bench_profile_share(b);
    printf("%-52s%10s%10s%9s\n", "ms per muon", "least", "median", "MB");
    if (s == CALOMU_OK) s = bench_profile_visit(b);
    if (s == CALOMU_OK) s = bench_small(b);
    if (s == CALOMU_OK) s = bench_threads(b);
    if (s == CALOMU_OK) s = bench_peers(b);
    if (s == CALOMU_OK) s = bench_profile_visit(b);
    bench_profile_end(b, s);
    return s == CALOMU_OK && tool_stop ? CALOMU_STOPPED : s;
}

/* ---------------------------------------------------------------- the run on a GPU */

/* The fastest of several batches, muons/s; one that does not fit into the memory is left out. */
static calomu_status bench_device_job(bench *b, bench_job job, const int *batch, int n,
                                      double *first, double *most, double *memory)
{
    bench_side *side[BENCH_SIDES];
    calomu_status s;
    int i;
    for (i = 0; i < n; i++) {
        side[i] = bench_side_add(b, job, batch[i], (int)b->machine.threads, "on the device");
        if (side[i]->status == CALOMU_EDEVICE) return CALOMU_EDEVICE;        /* said */
    }
    s = bench_group(b);
    *most = 0;
    for (i = 0; i < n && s == CALOMU_OK; i++) {
        if (i > 0 && side[i]->status == CALOMU_EMEMORY) continue;
        s = bench_lost(side[i]);
        *most = fmax(*most, 1 / bench_best(side[i]));
    }
    *first = 1 / bench_best(side[0]);
    *memory = 1e-3 * side[0]->memory;
    return s;
}

static calomu_status bench_device_peer(bench *b, const char *name, const char *row, double ours)
{
    bench_side *peer = bench_peer_add(b, b->yardstick, name, "64,128,256,512,1024");
    calomu_status s = bench_group(b);
    bench_set(b, row, ours * bench_best(peer));
    bench_leave(b, row, "the peer did not run, see above");
    return s;
}

static calomu_status bench_device(bench *b)
{
    static const int train[] = { 256, 128, 512, 1024 }, infer[] = { 1024, 256 }, one[] = { 1 };
    double train_first, train_most, infer_first, infer_most, rate, memory, none;
    calomu_status s;
    printf("%-52s%10s%10s%9s\n", "ms per muon", "least", "median", "MB");
    s = bench_device_job(b, bench_training_job, train, 4, &train_first, &train_most, &memory);
    if (s == CALOMU_OK)
        s = bench_device_job(b, bench_infer_job, infer, 2, &infer_first, &infer_most, &none);
    if (s == CALOMU_OK) s = bench_device_job(b, bench_host_job, one, 1, &rate, &none, &none);
    if (s != CALOMU_OK) return s;
    bench_set(b, "gpu_train_256", train_first);
    bench_set(b, "gpu_train_best", train_most);
    bench_set(b, "gpu_infer_1024", infer_first);
    bench_set(b, "gpu_one_muon_ms", 1e3 / rate);
    bench_set(b, "gpu_train_gb", memory);
    if (b->yardstick) s = bench_device_peer(b, "training", "gpu_train_vs_torch", train_most);
    if (s == CALOMU_OK && b->yardstick)
        s = bench_device_peer(b, "inference", "gpu_infer_vs_torch", infer_most);
    b->profile = 1;                  /* the share of the peak of every operation */
    if (s == CALOMU_OK) s = bench_profile_run(b);
    return s == CALOMU_OK && tool_stop ? CALOMU_STOPPED : s;
}

/* ---------------------------------------------------------------- scaling */

/* ms per muon of a job, alone; NaN where it fails for want of memory. */
static calomu_status bench_alone(bench *b, bench_job job, int batch, double *ms)
{
    bench_side *side = bench_side_add(b, job, batch, (int)b->machine.threads, "scaling");
    calomu_status s = bench_group(b);
    *ms = 1e3 * bench_best(side);
    if (s != CALOMU_OK || side->status == CALOMU_EMEMORY) return s;
    return bench_lost(side);
}

/* One line: cost per muon where `axis` has this value. */
static calomu_status bench_scaling_line(bench *b, tool_writer *w, const char *axis, double value,
                                        int batch)
{
    static const bench_job job[3] = { bench_training_job, bench_infer_job, bench_features_job };
    calomu_status s = CALOMU_OK;
    int i;
    printf("%s %g\n", axis, value);
    tool_write_format(w, "%s,", axis);
    tool_write_number(w, value, 9);
    for (i = 0; i < 3 && s == CALOMU_OK; i++) {
        double ms = (double)CALOMU_ABSENT;
        /* batch norm learns from 2 and more; a model is of one grid; features come one by one */
        int absent = (i == 0 && batch < 2) || (i == 1 && strcmp(axis, "cells") == 0)
            || (i == 2 && strcmp(axis, "batch") == 0);
        if (!absent) s = bench_alone(b, job[i], batch, &ms);
        tool_write_text(w, ",");
        tool_write_number(w, ms, 6);
    }
    tool_write_text(w, "\n");
    return s;
}

/* Made-up muons of so many hits in a grid of f times as many cells on each axis. */
static int bench_make(bench *b, double f, double share)
{
    calomu_geometry *g = &b->made_geometry;
    *g = b->geometry;
    g->nz = (int32_t)fmax(round(f * g->nz), 1);
    g->nx = (int32_t)fmax(round(f * g->nx), 1);
    g->ny = (int32_t)fmax(round(f * g->ny), 1);
    g->origin[1] = -0.5 * g->nx * g->pitch[1];
    g->origin[2] = -0.5 * g->ny * g->pitch[2];
    b->made = (int)fmax(share * g->nz * g->nx * g->ny, 1);
    return g->nz * g->nx * g->ny;
}

/* Cost per muon against batch size (up to --batch), hits, and cells of the grid. */
static calomu_status bench_scaling(bench *b)
{
    static const double share[] = { 0.002, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1 };   /* hit */
    static const double factor[] = { 0.25, 0.5, 0.75, 1, 1.25, 1.5 };
    enum { SHARES = sizeof share / sizeof share[0], SIZES = sizeof factor / sizeof factor[0] };
    tool_writer *w = NULL;
    int n, batch = b->batch < 64 ? b->batch : 64;
    calomu_status s = tool_writer_open(b->c, b->scaling_path, &w);
    if (s != CALOMU_OK) return s;
    tool_write_text(w, "axis,value,training_ms,inference_ms,features_ms\n");
    for (n = 1; n <= b->batch && s == CALOMU_OK; n *= 2)
        s = bench_scaling_line(b, w, "batch", n, n);
    for (n = 0; n < SHARES && s == CALOMU_OK; n++) {
        (void)bench_make(b, 1, share[n]);
        s = bench_scaling_line(b, w, "hits", b->made, batch);
    }
    for (n = 0; n < SIZES && s == CALOMU_OK; n++) {
        int cells = bench_make(b, factor[n], 0.11);      /* as GEANT4 muons hit them */
        s = bench_scaling_line(b, w, "cells", cells, batch);
    }
    if (s == CALOMU_OK) return tool_writer_close(w);
    tool_writer_abandon(w);
    return s;
}

/* Bad files are found before anything is measured. */
static calomu_status bench_check(bench *b)
{
    calomu_data *data = NULL;
    calomu_model *model = NULL;
    calomu_status s = calomu_data_open(b->c, b->data_path, &data);
    if (s == CALOMU_OK) s = calomu_model_load(b->c, b->model_path, &model);
    if (s != CALOMU_OK)
        (void)tool_report(b->c, s);
    else if (calomu_data_describe(data)->n_events == 0)
        s = tool_fail(CALOMU_EFORMAT, "%s holds no muons", b->data_path);
    else b->geometry = calomu_data_describe(data)->geometry;
    calomu_model_free(model);
    calomu_data_close(data);
    return s;
}

static calomu_status bench_run(bench *b)
{
    int i, profile = b->profile;
    calomu_status s = bench_check(b);
    if (s != CALOMU_OK) return s;
    b->row = bench_rows;
    b->rows = BENCH_ROWS;
    if (bench_on_device(b)) {
        b->row = b->machine.math == CALOMU_MATH_FAST ? bench_fast_rows : bench_equal_rows;
        b->rows = BENCH_DEVICE_ROWS;
    }
    for (i = 0; i < b->rows; i++) {
        b->value[i] = (double)CALOMU_ABSENT;
        b->why[i] = strstr(b->row[i].name, "_torch") ? "no --yardstick is given"
            : strstr(b->row[i].name, "_newest") ? "no --newest is given" : "";
    }
    bench_leave(b, "two_threads", "there is one thread");
    printf("%s\nmuons: %s\n\n", calomu_build_info(b->c), tool_shown(b->data_path));
    if (b->scaling_path) return bench_scaling(b);
    if (profile) s = bench_profile_run(b);
    else s = bench_on_device(b) ? bench_device(b) : bench_all(b);
    if (s != CALOMU_OK) return s;
    if (!profile) bench_print(b);
    return b->csv_path ? bench_csv(b) : CALOMU_OK;
}

enum { BENCH_OPTIONS = 24 };

/* The table ends with what follows, which is 0. */
static void bench_options(bench *b, int *plan, tool_option *to)
{
    const tool_option options[] = {
        { .name = "data", .type = TOOL_STRING, .target = &b->data_path, .value = "FILE.cmu",
          .file = TOOL_READS,
          .help = "muons to work on, again and again where a batch needs more" },
        { .name = "model", .type = TOOL_STRING, .target = &b->model_path, .value = "FILE",
          .file = TOOL_READS,
          .help = "model for the inference runs" },
        { .name = "batch", .type = TOOL_INT, .target = &b->batch, .value = "N",
          .help = "muons in a batch", .low = 2, .high = 65536 },
        TOOL_OPTIONS_MACHINE(b->machine),
        { .name = "seconds", .type = TOOL_DOUBLE, .target = &b->seconds, .value = "S",
          .help = "time for each measurement, at least (s)", .low = 0.01, .high = 3600 },
        { .name = "profile", .type = TOOL_FLAG, .target = &b->profile,
          .help = "only a training step, operation by operation" },
        { .name = "plan", .type = TOOL_FLAG, .target = plan,
          .help = "only how the network is computed, of the paper or --model: each operation" },
        { .name = "scaling", .type = TOOL_STRING, .target = &b->scaling_path, .value = "OUT.csv",
          .file = TOOL_WRITES,
          .help = "only cost per muon against batch size up to --batch, hits and cells" },
        { .name = "yardstick", .type = TOOL_STRING, .target = &b->yardstick, .value = "COMMAND",
          .help = "a peer to compare with, at our batch and at its best" },
        { .name = "newest", .type = TOOL_STRING, .target = &b->newest, .value = "COMMAND",
          .help = "another, at its best" },
        { .name = "peer-batches", .type = TOOL_STRING, .target = &b->batches, .value = "N,M,...",
          .help = "batches among which a peer finds its best" },
        { .name = "program", .type = TOOL_STRING, .target = &b->program, .value = "FILE",
          .file = TOOL_READS,
          .help = "the program whose start is timed" },
        { .name = "csv", .type = TOOL_STRING, .target = &b->csv_path, .value = "OUT.csv",
          .file = TOOL_WRITES,
          .help = "results as row,value,unit,target,met" }
    };
    memcpy(to, options, sizeof options);
}

int verb_bench(int argc, char **argv)
{
    static bench b;
    int plan = 0;
    tool_option options[BENCH_OPTIONS];
    tool_usage usage = {
        .verb = "bench",
        .purpose = "Measures training, inference, features and files on this machine, against the\n"
                   "targets.",
        .options = options,
        .notes = "The least time of all repetitions counts: what the machine can do when nothing\n"
                 "disturbs it.  A peer is a command such as tools/bench_torch.py, which is given\n"
                 "--job training|inference --batch N,M,... --threads N and speaks the lines that\n"
                 "tools/bench_turns.c describes.  Ends with 0 whether targets are met or not."
    };
    int code;
    memset(options, 0, sizeof options);
    b.data_path = "testdata/muons.cmu";
    b.model_path = "testdata/model.safetensors";
    b.program = "./calomu";
    b.batches = "16,32,64,256";
    b.batch = 256;
    b.seconds = 10;                  /* a step of 256 muons takes 1 to 3: several of each */
    b.machine.device = "cpu";
    bench_options(&b, &plan, options);
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    if (b.machine.threads == 0) b.machine.threads = tool_threads_default();
    code = (int)tool_open_on(&b.c, &b.machine, 0);
    if (code != CALOMU_OK) return code;
    tool_signals_catch();
    code = (int)(plan ? bench_plan(&b, tool_given(&usage, "model")) : bench_run(&b));
    calomu_close(b.c);
    if (tool_stop) tool_signals_obey();
    return code;
}
