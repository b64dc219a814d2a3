/* main.c - the program calomu: verb table, help, context. */
#include "calomu_tool.h"

#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct tool_verb_entry {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} tool_verb_entry;

static const tool_verb_entry tool_verbs[] = {
    { "info", verb_info, "describe and verify a data, model or checkpoint file" },
    { "import", verb_import, "make a data file from CSV files of hits, truth and losses" },
    { "export", verb_export, "write hits, truth, features or losses of a data file as CSV" },
    { "simulate", verb_simulate, "make muons: a fast simulation of the calorimeter" },
    { "perturb", verb_perturb, "miscalibration, noise, thresholds on a data file" },
    { "scan", verb_scan, "a network's energies at many settings of the electronics" },
    { "merge", verb_merge, "one data file of several" },
    { "split", verb_split, "several data files of one" },
    { "select", verb_select, "muons by number, cut or chance into a data file" },
    { "features", verb_features, "add the 28 high-level features to a data file" },
    { "train", verb_train, "train a network, or resume a training" },
    { "predict", verb_predict, "energies of the muons of a data file" },
    { "evaluate", verb_evaluate, "debiasing, resolution and mean improvement of predictions" },
    { "scan-fit", verb_scan_fit, "lines and regressions of a scan of calibrations" },
    { "plot", verb_plot, "plots of predictions and training logs" },
    { "model-import", verb_model_import, "make a model file from a PyTorch state_dict" },
    { "model-join", verb_model_join, "join models that were trained apart to one ensemble" },
    { "bench", verb_bench, "measure speed and memory on this machine" }
};
enum { TOOL_VERBS = sizeof tool_verbs / sizeof tool_verbs[0] };

/* ---------------------------------------------------------------- context */

static void tool_log(void *user, const char *line)
{
    (void)user;
    tool_notice("%s", line);
}

#ifdef CALOMU_CUDA
#include "../cuda/calomu_cuda.h"
#define TOOL_CUDA &calomu_cuda
#define TOOL_CUDA_TEXT ", CUDA"
#else
#define TOOL_CUDA NULL
#define TOOL_CUDA_TEXT ""
#endif

int tool_device_number(const tool_machine *m)
{
    double number = 0;
    if (strlen(m->device) > 5) (void)calomu_parse(m->device + 5, &number);
    return (int)number;
}

/* --device cpu, cuda or cuda:N. */
static calomu_status tool_device(const tool_machine *m, calomu_options *options)
{
    const char *name = m->device;
    if (strcmp(name, "cpu") == 0) {
        if (m->math != CALOMU_MATH_EQUAL)
            return tool_misuse("--math fast is for a GPU: add --device cuda");
        return CALOMU_OK;
    }
    if (strncmp(name, "cuda", 4) != 0 || (name[4] && name[4] != ':'))
        return tool_misuse("--device %s: there are cpu, cuda and cuda:N", name);
    if (name[4]) {
        size_t digits = strspn(name + 5, "0123456789");
        if (digits == 0 || digits > 4 || name[5 + digits])
            return tool_misuse("--device %s: the number of a GPU is 0, 1, ...", name);
    }
    options->device = TOOL_CUDA;
    options->device_number = tool_device_number(m);
    options->math = (calomu_math)m->math;
    if (options->device) return CALOMU_OK;
    return tool_misuse("--device %s: this calomu was built without CUDA; `make cuda` builds one"
                       " with it", name);
}

calomu_status tool_open(calomu **c, int threads)
{
    tool_machine m = { 0 };
    m.threads = threads;
    m.device = "cpu";
    return tool_open_on(c, &m, 0);
}

calomu_status tool_open_on(calomu **c, const tool_machine *m, int recompute)
{
    calomu_options options = { 0 };
    int threads = (int)m->threads;
    calomu_status status = tool_device(m, &options);
    if (status != CALOMU_OK) return status;
    options.log = tool_log;
    options.recompute = recompute;
    options.unfused = m->unfused;
    options.plain = m->plain;
    options.threads = threads > 0 ? threads : tool_threads_default();
    status = calomu_open(c, &options);
    if (status != CALOMU_OK) return tool_fail(status, "cannot start: %s",
                                              calomu_status_text(status));
#ifndef _OPENMP
    if (threads > 1) tool_notice("this build has no OpenMP: one thread is used, not %d", threads);
#endif
    return CALOMU_OK;
}

int tool_thread(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* ---------------------------------------------------------------- help */

static void tool_print_help(FILE *file)
{
    size_t i;
    fprintf(file, "calomu - the energy of multi-TeV muons from a fine calorimeter\n\n"
                  "Usage: calomu VERB [arguments]\n\nVerbs:\n");
    for (i = 0; i < TOOL_VERBS; i++)
        fprintf(file, "  %-14s%s\n", tool_verbs[i].name, tool_verbs[i].summary);
    fprintf(file, "  %-14s%s\n", "help [WORD]", "this text, the options of a verb, or a topic:");
    for (i = 0; tool_topic_at(i); i++)
        fprintf(file, "    %-12s%s\n", tool_topic_at(i)->name, tool_topic_at(i)->summary);
}

static void tool_print_more(FILE *file)
{
    fprintf(file, "\ncalomu VERB --help lists the options of a verb; calomu --version says how this"
                  "\nprogram was built.  Energies are in GeV, lengths in mm.\n\n"
                  "Exit codes: 0 done, 2 usage, 3 bad or inconsistent file, 4 reading or writing"
                  "\nfailed, 5 no memory, 6 a loss or prediction is not finite, 7 the GPU failed,"
                  "\n85 stopped by a signal after a checkpoint was written.\n");
}

static int tool_version(void)
{
    calomu *c = NULL;
    int code = (int)tool_open(&c, 0);
    if (code != CALOMU_OK) return code;
    printf("%s%s\n", calomu_build_info(c), TOOL_CUDA_TEXT);
    calomu_close(c);
    return 0;
}

static const tool_verb_entry *tool_find_verb(const char *name)
{
    size_t i;
    for (i = 0; i < TOOL_VERBS; i++)
        if (strcmp(tool_verbs[i].name, name) == 0) return &tool_verbs[i];
    return NULL;
}

static const tool_topic *tool_find_topic(const char *name)
{
    size_t i;
    for (i = 0; tool_topic_at(i) && strcmp(tool_topic_at(i)->name, name) != 0; i++) continue;
    return tool_topic_at(i);
}

/* Neither a verb nor, behind help, a topic. */
static int tool_unknown(const char *name, int help)
{
    enum { MOST = 64 };
    const char *names[MOST], *near;
    size_t n = 0, i;
    for (i = 0; i < TOOL_VERBS && n < MOST; i++) names[n++] = tool_verbs[i].name;
    if (!help) names[n++] = "help";
    for (i = 0; help && tool_topic_at(i) && n < MOST; i++) names[n++] = tool_topic_at(i)->name;
    near = tool_nearest(name, names, n);
    if (near)
        return (int)tool_fail(CALOMU_EUSAGE, "no verb '%.64s'%s; did you mean '%s'?", name,
                              help ? ", and no topic" : "", near);
    if (tool_find_topic(name))
        return (int)tool_fail(CALOMU_EUSAGE, "no verb '%s'; calomu help %s explains it", name,
                              name);
    return (int)tool_fail(CALOMU_EUSAGE, "no verb '%.64s'%s; calomu help lists them", name,
                          help ? ", and no topic" : "");
}

static int tool_run(const char *name, int argc, char **argv)
{
    const tool_verb_entry *verb = tool_find_verb(name);
    if (!verb) return tool_unknown(name, 0);
    tool_run_as(verb->name);
    return verb->run(argc, argv);
}

static int tool_help(int argc, char **argv)
{
    static char text[] = "--help";
    const tool_topic *topic = argc > 0 ? tool_find_topic(argv[0]) : NULL;
    const tool_verb_entry *verb = argc > 0 ? tool_find_verb(argv[0]) : NULL;
    char *arguments[3];
    int code = 0;
    if (argc > 1)
        return (int)tool_fail(CALOMU_EUSAGE, "help takes one word; '%.64s' is too much", argv[1]);
    if (argc == 0) {
        tool_print_help(stdout);
        tool_print_more(stdout);
        return 0;
    }
    if (!topic && !verb) return tool_unknown(argv[0], 1);
    arguments[0] = argv[0];
    arguments[1] = text;
    arguments[2] = NULL;
    /* features is both: the options come first, for the end is what a terminal shows */
    if (verb) code = tool_run(argv[0], 2, arguments);
    if (verb && topic) printf("\n");
    if (topic) topic->print();
    return code;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "";
    int code;
    tool_begin("calomu");
    if (argc < 2) {
        tool_print_help(stderr);
        return CALOMU_EUSAGE;
    }
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        code = tool_help(argc - 2, argv + 2);
    else if (strcmp(word, "--version") == 0)
        code = tool_version();
    else
        code = tool_run(word, argc - 1, argv + 1);
    return tool_finish(code);
}
