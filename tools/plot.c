/* plot.c - figures of predictions, trainings and muons (the paper's Figs. 2, 7, 8, 9, 12) */
#include "plot.h"
#include "scan_fit.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Above this number single points hide each other and make images of many MB: counts per cell are
   drawn instead. */
enum { PLOT_SCATTER = 4000, PLOT_ROWS = 80, PLOT_COLUMNS = 78 };

/* Okabe and Ito's colours, told apart with any colour vision and in grey. */
#define PLOT_BLUE "#0072B2"
#define PLOT_RED "#D55E00"
#define PLOT_GREEN "#009E73"
#define PLOT_BLACK "#000000"

/* ---------------------------------------------------------------- names */

/* Where the files of one call go; FIGURE below is "prediction" and so on. */
typedef struct plot_place {
    calomu *c;
    const char *prefix;
    size_t length;                   /* of the prefix without .svg or .png */
    const char *format;              /* "svg" or "png" */
} plot_place;

size_t plot_stem(const char *prefix)
{
    size_t n = strlen(prefix);
    return n > 4 && (strcmp(prefix + n - 4, ".png") == 0 || strcmp(prefix + n - 4, ".svg") == 0)
        ? n - 4 : n;
}

static calomu_status plot_place_at(plot_place *p, calomu *c, const char *prefix)
{
    size_t i;
    p->c = c;
    p->prefix = prefix;
    p->length = plot_stem(prefix);
    p->format = strcmp(prefix + p->length, ".png") == 0 ? "png" : "svg";
    for (i = 0; i < p->length; i++)
        if (prefix[0] == '-' || (unsigned char)prefix[i] < 32)
            return tool_fail(CALOMU_EUSAGE, "names of plots cannot begin with - or hold control"
                             " characters");
    return CALOMU_OK;
}

/* PREFIX_FIGURE.EXTENSION, to be freed; NULL: no memory, reported. */
static char *plot_path(const plot_place *p, const char *figure, const char *extension)
{
    size_t size = p->length + strlen(figure) + strlen(extension) + 3;
    char *path = malloc(size);
    if (!path) {
        tool_fail(CALOMU_EMEMORY, "no memory for the name of a plot");
        return NULL;
    }
    memcpy(path, p->prefix, p->length);
    (void)snprintf(path + p->length, size - p->length, "_%s.%s", figure, extension);
    return path;
}

static calomu_status plot_open(const plot_place *p, const char *figure, const char *extension,
                               tool_writer **w)
{
    char *path = plot_path(p, figure, extension);
    calomu_status s;
    if (!path) return CALOMU_EMEMORY;
    s = tool_writer_open(p->c, path, w);
    free(path);
    return s;
}

calomu_status plot_claim(tool_file file, const char *prefix, const char *figure)
{
    plot_place p;
    const char *extension[3] = { "csv", "gp", NULL };
    calomu_status s = plot_place_at(&p, NULL, prefix);
    int i;
    extension[2] = p.format;
    for (i = 0; i < 3 && s == CALOMU_OK; i++) {
        char *path = plot_path(&p, figure, extension[i]);
        s = path ? tool_claim(file, "the plot", path) : CALOMU_EMEMORY;
        free(path);
    }
    return s;
}

static const char *const plot_evaluated[] = { "prediction", "ratio", "resolution" };
enum { PLOT_EVALUATED = sizeof plot_evaluated / sizeof plot_evaluated[0] };

static calomu_status plot_claim_all(const char *prefix, const char *const *figure, int n)
{
    calomu_status s = CALOMU_OK;
    int i;
    for (i = 0; i < n && s == CALOMU_OK; i++) s = plot_claim(TOOL_WRITES, prefix, figure[i]);
    return s;
}

calomu_status plot_claim_evaluation(const char *prefix)
{
    return plot_claim_all(prefix, plot_evaluated, PLOT_EVALUATED);
}

calomu_status plot_try(calomu *c, const char *prefix, const char *figure)
{
    plot_place p;
    tool_writer *w = NULL;
    calomu_status s = plot_place_at(&p, c, prefix);
    if (s == CALOMU_OK) s = plot_open(&p, figure, "csv", &w);
    tool_writer_abandon(w);
    return s;
}

/* ---------------------------------------------------------------- pieces of files */

static void plot_row(tool_writer *w, const double *value, int n)
{
    int i;
    for (i = 0; i < n; i++) {
        if (i) tool_write_text(w, ",");
        tool_write_number(w, value[i], 9);
    }
    tool_write_text(w, "\n");
}

/* before x behind; no printf, whose point depends on the locale.  Six digits place anything to
   less than a pixel. */
static void plot_number(tool_writer *w, const char *before, double x, const char *behind)
{
    tool_write_text(w, before);
    tool_write_number(w, x, 6);
    tool_write_text(w, behind);
}

/* The file name of PREFIX_FIGURE.EXTENSION as a gnuplot expression.  In single quotes gnuplot
   replaces nothing, and a quote is written twice; dir keeps a name that begins with < or | from
   being run as a command. */
static void plot_name(tool_writer *w, const plot_place *p, const char *figure,
                      const char *extension)
{
    size_t i = p->length;
    char letter[2] = { 0, 0 };
    while (i > 0 && p->prefix[i - 1] != '/') i--;
    tool_write_text(w, "dir.'");
    for (; i < p->length; i++) {
        letter[0] = p->prefix[i];
        tool_write_text(w, letter[0] == '\'' ? "''" : letter);
    }
    tool_write_format(w, "_%s.%s'", figure, extension);
}

/* What every script begins with.  height of the image; its width is 900.  reset and the decimal
   sign, which it leaves alone, are for those who draw it again by hand without -d: gnuplot then
   reads their ~/.gnuplot first.  No encoding is set, for in the locale C gnuplot 5.4 warns of a
   degree sign then; Greek letters are in UTF-8, which its terminals pass on in any locale. */
static void plot_head(tool_writer *w, const plot_place *p, const char *figure, const char *what,
                      int height)
{
    int png = strcmp(p->format, "png") == 0;
    tool_write_format(w, "# %s\n"
                      "# Made by calomu; `gnuplot -d FILE.gp` draws it beside this file.\n", what);
    tool_write_text(w,
        "reset\nset decimalsign '.'\n"
        "dir = exists('ARG0') ? ARG0 : ''\n"
        "while (strlen(dir) > 0 && dir[strlen(dir):strlen(dir)] ne '/') "
        "{ dir = dir[1:strlen(dir) - 1] }\n"
        "if (dir[1:1] ne '/') { dir = './'.dir }\n");
    tool_write_format(w, "set terminal %s size %d,%d enhanced font '%s' background '#ffffff'\n",
                      png ? "pngcairo" : "svg", 900, height,
                      png ? "Sans,14" : "Helvetica,Arial,sans-serif,18");
    tool_write_text(w, "set output ");
    plot_name(w, p, figure, p->format);
    tool_write_text(w,
        "\nset datafile separator ','\n"
        "set border linewidth 1.2\n"
        "set grid linetype 1 dashtype solid linewidth 1 linecolor rgb '#dddddd'\n"
        "set tics nomirror out\n"
        "set key outside top center horizontal Left reverse samplen 2.5\n");
}

/* ---------------------------------------------------------------- prediction against truth */

/* The muons of an evaluation, and the ranges of the figure. */
typedef struct plot_muons {
    const double *truth, *prediction;
    size_t n;
    const calomu_line *line;         /* or NULL */
    const calomu_bin *bins;
    int n_bins;
    const calomu_summary *summary;
    double high;                     /* end of the axis of all true energies, GeV, from 0 */
    double end;                      /* and of that of the bins */
    double gap;                      /* between fixed energies, the smallest, GeV */
    double bottom, top;              /* of the predictions, GeV, without far outliers */
    double *scratch;                 /* n values */
} plot_muons;

static void plot_ranges(plot_muons *m)
{
    size_t i;
    int b;
    m->high = 0;
    for (i = 0; i < m->n; i++)
        if (m->truth[i] > m->high) m->high = m->truth[i];
    m->high *= 1.02;
    m->end = 1.02 * m->bins[m->n_bins - 1].high;
    m->gap = 0.1 * m->high;
    for (b = 1; b < m->n_bins; b++) m->gap = fmin(m->gap, m->bins[b].low - m->bins[b - 1].low);
    memcpy(m->scratch, m->prediction, m->n * sizeof *m->scratch);
    qsort(m->scratch, m->n, sizeof *m->scratch, tool_rising);
    m->bottom = fmin(0, tool_quantile(m->scratch, m->n, 0.002));
    m->top = fmax(m->high, 1.02 * tool_quantile(m->scratch, m->n, 0.998));
}

/* Column k of the cells: equal widths, or around each of the fixed energies. */
static void plot_column(const plot_muons *m, int k, double *low, double *high)
{
    if (!m->summary->points) {
        *low = m->high * k / PLOT_COLUMNS;
        *high = m->high * (k + 1) / PLOT_COLUMNS;
        return;
    }
    *low = m->bins[k].low - 0.3 * m->gap;
    *high = m->bins[k].low + 0.3 * m->gap;
}

/* The column of a true energy, or columns where there is none. */
static int plot_find(const plot_muons *m, int columns, double energy)
{
    int low = 0, high = columns;
    if (!m->summary->points) {
        low = (int)(energy / m->high * PLOT_COLUMNS);
        return low < PLOT_COLUMNS ? low : PLOT_COLUMNS - 1;
    }
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (m->bins[middle].low < energy) low = middle + 1;
        else high = middle;
    }
    return low < columns && m->bins[low].low == energy ? low : columns;
}

/* Muons per cell, in a grid of columns x PLOT_ROWS; empty cells are left out. */
static calomu_status plot_cells(tool_writer *w, const plot_muons *m)
{
    const int columns = m->summary->points ? m->n_bins : PLOT_COLUMNS;
    const double height = (m->top - m->bottom) / PLOT_ROWS;
    uint64_t *count = calloc((size_t)columns * PLOT_ROWS, sizeof *count);
    size_t i;
    int k, r;
    if (!count) return tool_fail(CALOMU_EMEMORY, "no memory for the cells of a plot");
    for (i = 0; i < m->n; i++) {
        double row = (m->prediction[i] - m->bottom) / height;
        k = plot_find(m, columns, m->truth[i]);
        if (k < columns && row >= 0 && row < PLOT_ROWS) count[k * PLOT_ROWS + (int)row]++;
    }
    tool_write_text(w, "true_low_GeV,true_high_GeV,prediction_low_GeV,prediction_high_GeV,muons\n");
    for (k = 0; k < columns; k++) {
        for (r = 0; r < PLOT_ROWS; r++) {
            double row[5];
            plot_column(m, k, &row[0], &row[1]);
            row[2] = m->bottom + r * height;
            row[3] = m->bottom + (r + 1) * height;
            row[4] = (double)count[k * PLOT_ROWS + r];
            if (row[4] > 0) plot_row(w, row, 5);
        }
    }
    free(count);
    return CALOMU_OK;
}

static calomu_status plot_prediction_data(const plot_place *p, const plot_muons *m)
{
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, "prediction", "csv", &w);
    size_t i;
    if (s != CALOMU_OK) return s;
    if (m->n > PLOT_SCATTER) {
        s = plot_cells(w, m);
        if (s != CALOMU_OK) {
            tool_writer_abandon(w);
            return s;
        }
        return tool_writer_close(w);
    }
    tool_write_text(w, "true_energy_GeV,prediction_GeV\n");
    for (i = 0; i < m->n; i++) {
        const double row[2] = { m->truth[i], m->prediction[i] };
        plot_row(w, row, 2);
    }
    return tool_writer_close(w);
}

static void plot_prediction_layers(tool_writer *w, const plot_place *p, const plot_muons *m)
{
    tool_write_text(w, "plot ");
    plot_name(w, p, "prediction", "csv");
    if (m->n > PLOT_SCATTER) {
        /* a tenth wider than they are: neighbours overlap, and no seams show */
        tool_write_text(w, " skip 1 using 1:3:1:(1.1*$2-0.1*$1):3:(1.1*$4-0.1*$3):5 with"
                        " boxxyerror fillstyle solid noborder linecolor palette notitle, \\\n");
    } else {
        tool_write_format(w, " using 1:2 skip 1 with points pointtype 7 pointsize %s"
                          " linecolor rgb '" PLOT_BLUE "' title 'Muons', \\\n",
                          m->n > 800 ? "0.3" : "0.5");
    }
    tool_write_text(w, "    x with lines linewidth 2 dashtype 2 linecolor rgb '" PLOT_BLACK
                    "' title 'Ideal response'");
    if (m->line) {
        plot_number(w, ", \\\n    (", m->line->intercept, "");
        plot_number(w, " + ", m->line->slope, "*x) with lines linewidth 3 linecolor rgb '");
        tool_write_text(w, PLOT_RED "' title 'Fit: ");
        tool_write_number(w, m->line->intercept, 4);
        tool_write_text(w, " GeV + ");
        tool_write_number(w, m->line->slope, 4);
        tool_write_text(w, " E'");
    }
    tool_write_text(w, "\n");
}

static calomu_status plot_prediction_script(const plot_place *p, const plot_muons *m)
{
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, "prediction", "gp", &w);
    if (s != CALOMU_OK) return s;
    plot_head(w, p, "prediction", "Raw predictions against true energy (Fig. 8).", 760);
    tool_write_text(w, "set xlabel 'True energy E [GeV]'\nset ylabel 'Raw prediction [GeV]'\n");
    plot_number(w, "set xrange [0:", m->high, "]\n");
    plot_number(w, "set yrange [", m->bottom, ":");
    plot_number(w, "", m->top, "]\n");
    if (m->n > PLOT_SCATTER)
        tool_write_text(w, "set cblabel 'Muons per cell'\nset logscale cb\n"
                        "set palette defined (0 '#e8f1f8', 1 '#a6cbe3', 2 '#4a98c9', 3 '#0b5c9e',"
                        " 4 '#08264d')\n");
    plot_prediction_layers(w, p, m);
    return tool_writer_close(w);
}

/* ---------------------------------------------------------------- ratio */

/* One muon; compared by its true energy. */
typedef struct plot_pair {
    double truth, ratio;
} plot_pair;

static plot_pair *plot_pairs(const plot_muons *m)
{
    plot_pair *pair = malloc((m->n ? m->n : 1) * sizeof *pair);
    size_t i;
    if (!pair) {
        tool_fail(CALOMU_EMEMORY, "no memory to plot %zu muons", m->n);
        return NULL;
    }
    for (i = 0; i < m->n; i++) {
        double p = m->line ? calomu_debias(m->line, m->prediction[i]) : m->prediction[i];
        pair[i].truth = m->truth[i];
        pair[i].ratio = p / m->truth[i];
    }
    /* tool_rising reads the first member */
    qsort(pair, m->n, sizeof *pair, tool_rising);
    return pair;
}

/* Ratios of the muons of a bin into m->scratch, sorted; how many.  *at: where to look, which
   moves on as the bins rise. */
static size_t plot_ratios(const plot_muons *m, const plot_pair *pair, const calomu_bin *b,
                          size_t *at)
{
    const int points = m->summary->points;
    size_t k = 0;
    while (*at < m->n && (points ? pair[*at].truth < b->low : pair[*at].truth <= b->low)) ++*at;
    for (; *at < m->n && pair[*at].truth <= b->high; ++*at) m->scratch[k++] = pair[*at].ratio;
    qsort(m->scratch, k, sizeof *m->scratch, tool_rising);
    return k;
}

/* Quantiles 50 +- 47.7 and 50 +- 34.1 percent as in Fig. 9; *top: where the picture may end. */
static void plot_ratio_rows(tool_writer *w, const plot_muons *m, const plot_pair *pair,
                            double *top)
{
    static const double quantile[5] = { 0.023, 0.159, 0.5, 0.841, 0.977 };
    size_t at = 0;
    int b, q;
    *top = 1.5;
    tool_write_text(w, "low_GeV,high_GeV,true_energy_GeV,muons,q2.3,q15.9,median,q84.1,q97.7\n");
    for (b = 0; b < m->n_bins; b++) {
        double row[9];
        size_t k = plot_ratios(m, pair, &m->bins[b], &at);
        row[0] = m->bins[b].low;
        row[1] = m->bins[b].high;
        row[2] = m->bins[b].energy;
        row[3] = (double)m->bins[b].n;
        for (q = 0; q < 5; q++)
            row[4 + q] = k > 1 ? tool_quantile(m->scratch, k, quantile[q]) : (double)NAN;
        if (k > 1 && 1.05 * row[8] > *top) *top = 1.05 * row[8];
        plot_row(w, row, 9);
    }
    /* a tail at the lowest energies would press all others flat */
    *top = fmin(*top, 3);
}

static calomu_status plot_ratio_data(const plot_place *p, const plot_muons *m, double *top)
{
    tool_writer *w = NULL;
    plot_pair *pair = plot_pairs(m);
    calomu_status s = pair ? plot_open(p, "ratio", "csv", &w) : CALOMU_EMEMORY;
    if (s == CALOMU_OK) {
        plot_ratio_rows(w, m, pair, top);
        s = tool_writer_close(w);
    }
    free(pair);
    return s;
}

static calomu_status plot_ratio_script(const plot_place *p, const plot_muons *m, double top)
{
    const char *band[2][3] = { { "5:9", "#cfe3f1", "95.4% of muons" },
                               { "6:8", "#7fb8dc", "68.2% of muons" } };
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, "ratio", "gp", &w);
    int i;
    if (s != CALOMU_OK) return s;
    plot_head(w, p, "ratio", "Prediction / truth: quantiles per bin (Figs. 9, 11).", 560);
    tool_write_format(w, "set xlabel 'True energy E [GeV]'\nset ylabel '%s / E'\n",
                      m->line ? "Debiased prediction" : "Prediction");
    plot_number(w, "set xrange [0:", m->end, "]\n");
    plot_number(w, "set yrange [0:", top, "]\nplot ");
    for (i = 0; i < 2; i++) {
        plot_name(w, p, "ratio", "csv");
        tool_write_format(w, " using 3:%s skip 1 with filledcurves fillstyle solid noborder"
                          " linecolor rgb '%s' title '%s', \\\n    ", band[i][0], band[i][1],
                          band[i][2]);
    }
    tool_write_text(w, "1 with lines linewidth 2 dashtype 2 linecolor rgb '" PLOT_BLACK
                    "' title 'Ideal response', \\\n    ");
    plot_name(w, p, "ratio", "csv");
    tool_write_text(w, " using 3:7 skip 1 with linespoints linewidth 2.5 pointtype 7"
                    " pointsize 0.6 linecolor rgb '" PLOT_BLUE "' title 'Median'\n");
    return tool_writer_close(w);
}

/* ---------------------------------------------------------------- resolution */

static calomu_status plot_resolution_data(const plot_place *p, const plot_muons *m, double *top)
{
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, "resolution", "csv", &w);
    int b;
    *top = 0;
    if (s != CALOMU_OK) return s;
    tool_write_text(w, "low_GeV,high_GeV,true_energy_GeV,centre_GeV,muons,calorimeter_percent,"
                    "tracker_percent,combination_percent,calorimeter_error_percent,"
                    "combination_error_percent\n");
    for (b = 0; b < m->n_bins; b++) {
        const calomu_bin *bin = &m->bins[b];
        const double row[10] = { bin->low, bin->high, bin->energy, bin->centre, (double)bin->n,
                                 100 * bin->calorimeter, 100 * bin->tracker, 100 * bin->combined,
                                 100 * bin->calorimeter_error, 100 * bin->combined_error };
        *top = fmax(*top, 105 * bin->tracker);
        if (bin->n >= 2) *top = fmax(*top, fmin(105 * bin->calorimeter, 150));
        plot_row(w, row, 10);
    }
    return tool_writer_close(w);
}

static calomu_status plot_resolution_script(const plot_place *p, const plot_muons *m, double top)
{
    const char *curve[3][3] = {
        { "3:6:9", "pointtype 7 pointsize 0.8 linecolor rgb '" PLOT_BLUE "'", "Calorimeter" },
        { "4:7", "pointtype 4 pointsize 0.8 dashtype 2 linecolor rgb '" PLOT_RED "'", "Tracker" },
        { "3:8:10", "pointtype 9 pointsize 0.9 linecolor rgb '" PLOT_GREEN "'", "Combination" }
    };
    const calomu_summary *sum = m->summary;
    const int errors = isfinite(sum->mi_error);
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, "resolution", "gp", &w);
    int i;
    if (s != CALOMU_OK) return s;
    plot_head(w, p, "resolution",
              "Resolution of calorimeter, tracker and combination (Fig. 12).", 600);
    tool_write_text(w, "set xlabel 'True energy [GeV]'\nset ylabel 'Relative resolution [%]'\n");
    tool_write_format(w, "set title 'Mean improvement %.2f", sum->mi);
    if (errors) tool_write_format(w, " \302\261 %.2f", sum->mi_error);
    tool_write_format(w, " points, worst combined resolution %.2f", sum->worst);
    if (errors) tool_write_format(w, " \302\261 %.2f", sum->worst_error);
    plot_number(w, "%'\nset bars small\nset xrange [0:", m->end, "]\n");
    plot_number(w, "set yrange [0:", top, "]\nplot ");
    for (i = 0; i < 3; i++) {
        plot_name(w, p, "resolution", "csv");
        /* without errors their columns are empty, and a point of error bars would be left out */
        tool_write_format(w, " using %.*s skip 1 with %s linewidth 2.5 %s title '%s'%s",
                          errors ? 6 : 3, curve[i][0], errors && i != 1 ? "yerrorlines"
                          : "linespoints", curve[i][1], curve[i][2], i < 2 ? ", \\\n    " : "\n");
    }
    return tool_writer_close(w);
}

/* ---------------------------------------------------------------- gnuplot */

extern char **environ;               /* POSIX has no header for it */

/* The first gnuplot on the PATH, to be freed; NULL: none. */
static char *plot_find_gnuplot(void)
{
    const char *path = getenv("PATH"), *end;
    for (; path && *path; path = *end ? end + 1 : end) {
        size_t length;
        char *file;
        struct stat info;
        end = path + strcspn(path, ":");
        length = (size_t)(end - path);
        file = malloc(length + sizeof "./gnuplot");
        if (!file) return NULL;
        memcpy(file, path, length);
        /* an empty entry is the working folder */
        strcpy(file + length, length ? "/gnuplot" : "./gnuplot");
        if (stat(file, &info) == 0 && S_ISREG(info.st_mode) && access(file, X_OK) == 0)
            return file;
        free(file);
    }
    return NULL;
}

/* Our environment for gnuplot, to be freed; NULL: no memory.  What sets its terminal, folders or
   fonts, and the locale, is left out: a figure depends on its script alone. */
static char **plot_environment(void)
{
    static const char *const out[] = { "GNUTERM=", "GNUPLOT_", "GDFONTPATH=", "LC_", "LANG" };
    static char plain[] = "LC_ALL=C";
    size_t n = 0, i, k, kept = 0;
    char **copy;
    while (environ && environ[n]) n++;
    copy = malloc((n + 2) * sizeof *copy);
    if (!copy) return NULL;
    for (i = 0; i < n; i++) {
        for (k = 0; k < sizeof out / sizeof out[0]; k++)
            if (strncmp(environ[i], out[k], strlen(out[k])) == 0) break;
        if (k == sizeof out / sizeof out[0]) copy[kept++] = environ[i];
    }
    copy[kept++] = plain;
    copy[kept] = NULL;
    return copy;
}

/* In the child: gnuplot with nothing to read and, by -d, without the person's settings. */
static void plot_exec(const char *gnuplot, char *script, char **environment)
{
    static char name[] = "gnuplot", defaults[] = "-d";
    char *arguments[4];
    int null = open("/dev/null", O_RDONLY);
    arguments[0] = name;
    arguments[1] = defaults;
    arguments[2] = script;
    arguments[3] = NULL;
    if (null >= 0) (void)dup2(null, STDIN_FILENO);
    (void)dup2(STDERR_FILENO, STDOUT_FILENO);
    execve(gnuplot, arguments, environment);
    _exit(127);
}

/* Runs gnuplot on one script; 0, its exit status, 128 + the signal that ended it, or -1 if it
   could not be started. */
static int plot_run(const char *gnuplot, const char *name)
{
    const size_t size = strlen(name) + 3;
    char *script = malloc(size), **environment = plot_environment();
    int status = 0;
    pid_t child = -1;
    if (script && environment) {
        /* gnuplot would run a name that begins with < as a command */
        (void)snprintf(script, size, "%s%s", name[0] == '/' ? "" : "./", name);
        child = fork();
        if (child == 0) plot_exec(gnuplot, script, environment);
    }
    free(script);
    free(environment);
    if (child < 0) return -1;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Draws the n figures; what cannot be drawn is said, and is no failure. */
static calomu_status plot_render(const plot_place *p, const char *const *figure, int n)
{
    char *gnuplot = plot_find_gnuplot(), *script, *image;
    int i, code;
    if (!gnuplot) {
        tool_notice("no gnuplot on the PATH: wrote %d plot%s as data and script; to draw: gnuplot"
                    " -d %.*s_%s.gp", n, n == 1 ? "" : "s", (int)p->length, p->prefix, figure[0]);
        return CALOMU_OK;
    }
    for (i = 0; i < n; i++) {
        script = plot_path(p, figure[i], "gp");
        image = plot_path(p, figure[i], p->format);
        code = script && image ? plot_run(gnuplot, script) : -1;
        if (code == 0 && access(image, F_OK) == 0) {
            tool_notice("wrote %s", image);
        } else if (script && image) {
            /* what is there is half an image, or one of other data */
            (void)unlink(image);
            tool_notice("warning: %s %s ended with status %d: no image, but data and script are"
                        " there", gnuplot, script, code);
        }
        free(script);
        free(image);
    }
    free(gnuplot);
    return CALOMU_OK;
}

/* ---------------------------------------------------------------- an evaluation */

static calomu_status plot_evaluation_files(const plot_place *p, plot_muons *m)
{
    double top = 0;
    calomu_status s;
    plot_ranges(m);
    s = plot_prediction_data(p, m);
    if (s == CALOMU_OK) s = plot_prediction_script(p, m);
    if (s == CALOMU_OK) s = plot_ratio_data(p, m, &top);
    if (s == CALOMU_OK) s = plot_ratio_script(p, m, top);
    if (s == CALOMU_OK) s = plot_resolution_data(p, m, &top);
    if (s == CALOMU_OK) s = plot_resolution_script(p, m, top);
    return s;
}

calomu_status plot_evaluation(calomu *c, const char *prefix, const calomu_line *line,
                              const double *truth, const double *prediction, size_t n,
                              const calomu_bin *bins, int n_bins, const calomu_summary *summary)
{
    plot_place p;
    plot_muons m;
    calomu_status s = plot_place_at(&p, c, prefix);
    if (s != CALOMU_OK) return s;
    memset(&m, 0, sizeof m);
    m.truth = truth;
    m.prediction = prediction;
    m.n = n;
    m.line = line;
    m.bins = bins;
    m.n_bins = n_bins;
    m.summary = summary;
    m.scratch = malloc((n ? n : 1) * sizeof *m.scratch);
    if (!m.scratch) return tool_fail(CALOMU_EMEMORY, "no memory to plot %zu muons", n);
    s = plot_evaluation_files(&p, &m);
    free(m.scratch);
    return s == CALOMU_OK ? plot_render(&p, plot_evaluated, PLOT_EVALUATED) : s;
}

/* ---------------------------------------------------------------- a training */

/* The values of one curve or more; NaN while there is none. */
typedef struct plot_range {
    double low, high;
} plot_range;

/* What the script must know of the log. */
typedef struct plot_log {
    uint64_t rows;
    plot_range epoch, loss, lr, beta1, mi;   /* losses and LR: of those above 0 */
    double best, best_loss;          /* epoch of the lowest validation loss, NaN: none */
} plot_log;

/* fmin and fmax pass over a NaN. */
static void plot_widen(plot_range *r, double x)
{
    r->low = fmin(r->low, x);
    r->high = fmax(r->high, x);
}

static void plot_log_begin(plot_log *l)
{
    const plot_range none = { (double)NAN, (double)NAN };
    l->rows = 0;
    l->epoch = l->loss = l->lr = l->beta1 = l->mi = none;
    l->best = l->best_loss = (double)NAN;
}

/* row: epoch, training loss, validation loss, LR, beta1, MI. */
static void plot_log_row(plot_log *l, const double row[6])
{
    plot_widen(&l->epoch, row[0]);
    if (row[1] > 0) plot_widen(&l->loss, row[1]);
    if (row[2] > 0) plot_widen(&l->loss, row[2]);
    if (row[3] > 0) plot_widen(&l->lr, row[3]);
    plot_widen(&l->beta1, row[4]);
    plot_widen(&l->mi, row[5]);
    if (row[2] < l->best_loss || (isnan(l->best_loss) && !isnan(row[2]))) {
        l->best = row[0];
        l->best_loss = row[2];
    }
    l->rows++;
}

static calomu_status plot_history_copy(tool_csv *csv, tool_writer *w, plot_log *l)
{
    double row[6];
    int more = 0;
    calomu_status s;
    tool_write_text(w, "epoch,training_loss,validation_loss,lr,beta1,mi\n");
    while ((s = tool_csv_next(csv, row, &more)) == CALOMU_OK && more) {
        plot_log_row(l, row);
        plot_row(w, row, 6);
    }
    if (s == CALOMU_OK && l->rows == 0)
        s = tool_csv_fail(csv, CALOMU_EFORMAT, "no epoch to plot");
    return s;
}

static calomu_status plot_history_data(const plot_place *p, const char *log, plot_log *l)
{
    const tool_column columns[6] = {
        { "epoch", TOOL_CELL_NUMBER, 0 }, { "training_loss", TOOL_CELL_MAYBE, 0 },
        { "validation_loss", TOOL_CELL_MAYBE, 0 }, { "lr", TOOL_CELL_MAYBE, 0 },
        { "beta1", TOOL_CELL_MAYBE, 0 }, { "mi", TOOL_CELL_MAYBE, 1 }
    };
    tool_csv *csv = NULL;
    tool_writer *w = NULL;
    calomu_status s = tool_csv_open(log, columns, 6, &csv);
    if (s != CALOMU_OK) return s;
    s = plot_open(p, "history", "csv", &w);
    if (s == CALOMU_OK) {
        s = plot_history_copy(csv, w, l);
        if (s == CALOMU_OK) s = tool_writer_close(w);
        else tool_writer_abandon(w);
    }
    tool_csv_close(csv);
    return s;
}

/* One curve of PREFIX_history.csv: columns and axes, and the style, which ends the clause. */
static void plot_curve(tool_writer *w, const plot_place *p, const char *columns, const char *style)
{
    plot_name(w, p, "history", "csv");
    tool_write_format(w, " skip 1 using %s with linespoints linewidth 2.5 %s", columns, style);
}

/* `set AXIS [low:high]`, if the curve has values. */
static void plot_set_range(tool_writer *w, const char *axis, double low, double high)
{
    if (!(low < high)) return;
    tool_write_format(w, "set %s [", axis);
    plot_number(w, "", low, ":");
    plot_number(w, "", high, "]\n");
}

/* A left axis; logarithmic (then 1 is returned) if the values fall far, with ticks at 1, 2, 5,
   10 ...: the decades alone may be none. */
static int plot_history_axis(tool_writer *w, const plot_range *values, double room)
{
    static const int step[3] = { 1, 2, 5 };
    const double low = values->low / room, high = values->high * room;
    double decade = 1e-12;
    int i, n = 0;
    plot_set_range(w, "yrange", low, high);
    if (!(values->high > 5 * values->low)) return 0;
    tool_write_text(w, "set logscale y\nset ytics (");
    for (; decade <= high && decade < 1e13; decade *= 10)
        for (i = 0; i < 3; i++)
            if (step[i] * decade >= low && step[i] * decade <= high)
                plot_number(w, n++ ? ", " : "", step[i] * decade, "");
    tool_write_text(w, ") nomirror\n");
    return 1;
}

/* Losses above, with the mean improvement on the right. */
static void plot_history_losses(tool_writer *w, const plot_place *p, const plot_log *l)
{
    tool_write_text(w,
        "set multiplot\nset lmargin at screen 0.15\nset rmargin at screen 0.86\n"
        "set tmargin at screen 0.91\nset bmargin at screen 0.45\n"
        "set key at screen 0.5, screen 0.985 center top vertical maxrows 2\n"
        "set format x ''\nset ylabel 'Loss [GeV]'\n");
    plot_set_range(w, "xrange", fmin(0, l->epoch.low), l->epoch.high + 1);
    if (l->epoch.high < 12) tool_write_text(w, "set xtics 1\n");    /* no halves of epochs */
    (void)plot_history_axis(w, &l->loss, 1.1);
    if (!isnan(l->mi.low)) {
        tool_write_text(w, "set y2label 'Mean improvement [points]'\nset y2tics nomirror\n");
        plot_set_range(w, "y2range", l->mi.low - 1, l->mi.high + 1);
    }
    if (!isnan(l->best_loss)) {
        plot_number(w, "set arrow 1 from ", l->best, ", graph 0 to ");
        plot_number(w, "", l->best, ", graph 1 nohead dashtype 3 linewidth 2 linecolor rgb"
                    " '#606060' back\n");
    }
    tool_write_text(w, "plot ");
    plot_curve(w, p, "1:2", "pointtype 7 pointsize 0.5 linecolor rgb '" PLOT_BLUE
               "' title 'Training loss', \\\n    ");
    plot_curve(w, p, "1:3", "pointtype 5 pointsize 0.5 linecolor rgb '" PLOT_RED
               "' title 'Validation loss'");
    if (!isnan(l->mi.low)) {
        tool_write_text(w, ", \\\n    ");
        plot_curve(w, p, "1:6 axes x1y2", "pointtype 9 pointsize 0.6 dashtype 2 linecolor rgb '"
                   PLOT_GREEN "' title 'Mean improvement (right)'");
    }
    if (!isnan(l->best_loss))
        plot_number(w, ", \\\n    NaN with lines dashtype 3 linewidth 2 linecolor rgb '#606060'"
                    " title 'Best epoch: ", l->best, "'");
    tool_write_text(w, "\n");
}

/* Learning rate and beta1 below. */
static void plot_history_schedule(tool_writer *w, const plot_place *p, const plot_log *l)
{
    tool_write_text(w,
        "unset logscale y\nset tmargin at screen 0.36\nset bmargin at screen 0.13\n"
        "set key at screen 0.5, screen 0.415 horizontal\n"
        "set format x '%g'\nset xlabel 'Epoch'\nset ylabel 'Learning rate'\n"
        "set y2label '\316\262\342\202\201' offset -1.5\nset y2tics 0.05 nomirror\n"
        "set yrange [*:*]\nunset logscale y\nset ytics autofreq nomirror\n");
    plot_set_range(w, "y2range", fmin(0.84, l->beta1.low), fmax(0.96, l->beta1.high));
    if (plot_history_axis(w, &l->lr, 1.5))   /* ticks of one digit */
        tool_write_text(w, "set format y '%.0t\303\22710^{%T}'\n");
    tool_write_text(w, "plot ");
    plot_curve(w, p, "1:4", "pointtype 7 pointsize 0.5 linecolor rgb '" PLOT_BLUE
               "' title 'Learning rate', \\\n    ");
    plot_curve(w, p, "1:5 axes x1y2", "pointtype 9 pointsize 0.6 dashtype 2 linecolor rgb '"
               PLOT_RED "' title '\316\262\342\202\201 (right)'\n");
    tool_write_text(w, "unset multiplot\n");
}

static calomu_status plot_history_script(const plot_place *p, const plot_log *l)
{
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, "history", "gp", &w);
    if (s != CALOMU_OK) return s;
    plot_head(w, p, "history", "Losses, mean improvement and schedule of a training (Fig. 7).",
              800);
    plot_history_losses(w, p, l);
    plot_history_schedule(w, p, l);
    return tool_writer_close(w);
}

calomu_status plot_history(calomu *c, const char *prefix, const char *log)
{
    static const char *const figures[1] = { "history" };
    plot_place p;
    plot_log l;
    calomu_status s = plot_place_at(&p, c, prefix);
    if (s != CALOMU_OK) return s;
    plot_log_begin(&l);
    s = plot_history_data(&p, log, &l);
    if (s == CALOMU_OK) s = plot_history_script(&p, &l);
    return s == CALOMU_OK ? plot_render(&p, figures, 1) : s;
}

/* ---------------------------------------------------------------- single muons (Fig. 2) */

/* What the panels of a figure share. */
typedef struct plot_display {
    const calomu_geometry *g;
    const calomu_events *batch;
    const uint64_t *number;          /* of the muons, in the file */
    double low, high;                /* GeV, powers of ten: the cells drawn, the end of the scale */
    double dot;                      /* size of a dot against that in the paper's calorimeter */
    int svg;                         /* its dots and the gaps of its labels are larger */
} plot_display;

static int plot_compare_hits(const void *a, const void *b)
{
    const calomu_hit *x = a, *y = b;
    if (x->energy != y->energy) return (x->energy > y->energy) - (x->energy < y->energy);
    return (x->cell > y->cell) - (x->cell < y->cell);
}

/* The scale ends at the power of ten above the highest cell and begins at 1 MeV, or two decades
   below its end: the cells of a sampling calorimeter may all be below 1 MeV. */
static void plot_display_begin(plot_display *d)
{
    const calomu_geometry *g = d->g;
    const int across = g->nx > g->ny ? g->nx : g->ny;
    double most = 0;
    size_t i, k;
    for (i = 0; i < d->batch->n; i++)
        for (k = 0; k < d->batch->event[i].n_hits; k++)
            most = fmax(most, (double)d->batch->event[i].hits[k].energy);
    d->high = most > 0 ? pow(10, ceil(log10(most) - 1e-9)) : 0.1;
    d->low = fmin(1e-3, d->high / 100);
    d->dot = fmax(0.6, fmin(2.5, fmin(32.0 / across, 100.0 / g->nz)));
}

/* One block of rows z, x, y (mm), energy (GeV) per muon, two empty lines behind it.  The highest
   energies come last, and so are drawn over the others. */
static calomu_status plot_event_rows(tool_writer *w, const plot_display *d, const calomu_event *e)
{
    const calomu_geometry *g = d->g;
    const uint32_t ny = (uint32_t)g->ny, nx = (uint32_t)g->nx;
    calomu_hit *hit = malloc((e->n_hits ? e->n_hits : 1) * sizeof *hit);
    double row[4];
    size_t i;
    if (!hit) return tool_fail(CALOMU_EMEMORY, "no memory to plot %zu cells", e->n_hits);
    for (i = 0; i < e->n_hits; i++) hit[i] = e->hits[i];
    qsort(hit, e->n_hits, sizeof *hit, plot_compare_hits);
    for (i = 0; i < e->n_hits; i++) {
        const uint32_t cell = hit[i].cell;
        if (!((double)hit[i].energy > d->low)) continue;
        row[0] = g->origin[0] + (cell / ny / nx + 0.5) * g->pitch[0];
        row[1] = g->origin[1] + (cell / ny % nx + 0.5) * g->pitch[1];
        row[2] = g->origin[2] + (cell % ny + 0.5) * g->pitch[2];
        row[3] = (double)hit[i].energy;
        plot_row(w, row, 4);
    }
    free(hit);
    tool_write_text(w, "\n\n");
    return CALOMU_OK;
}

static calomu_status plot_event_data(const plot_place *p, const plot_display *d)
{
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, "event", "csv", &w);
    size_t i;
    if (s != CALOMU_OK) return s;
    plot_number(w, "# z,x,y (mm),energy (GeV) of cells above ", d->low, " GeV\n");
    for (i = 0; i < d->batch->n && s == CALOMU_OK; i++)
        s = plot_event_rows(w, d, &d->batch->event[i]);
    if (s == CALOMU_OK) return tool_writer_close(w);
    tool_writer_abandon(w);
    return s;
}

/* Range of an axis of n cells, and two to four steps of 1, 2, 4 or 5 times a power of ten. */
static void plot_event_axis(tool_writer *w, char axis, double origin, double pitch, int n)
{
    const double most = n * pitch / 2, decade = pow(10, floor(log10(most)));
    const double digit = most / decade;
    const double step = (digit >= 5 ? 5 : digit >= 4 ? 4 : digit >= 2 ? 2 : 1) * decade;
    tool_write_format(w, "set %crange [", axis);
    tool_write_number(w, origin, 12);
    tool_write_text(w, ":");
    tool_write_number(w, origin + n * pitch, 12);
    tool_write_format(w, "]\nset %ctics ", axis);
    tool_write_number(w, step, 12);
    tool_write_text(w, "\n");
}

/* A panel per muon: a dot per cell. */
static void plot_event_panel(tool_writer *w, const plot_place *p, const plot_display *d, int panel)
{
    const int panels = (int)d->batch->n, columns = panels > 1 ? 2 : 1;
    const int rows = (panels + columns - 1) / columns;
    const calomu_event *e = &d->batch->event[panel];
    const calomu_geometry *g = d->g;
    tool_write_format(w, "set size 0.83/%d, 1.0/%d\nset origin 0.02 + 0.83/%d*%d, 1.0/%d*%d\n",
                      columns, rows, columns, panel % columns, rows, rows - 1 - panel / columns);
    tool_write_text(w, panel + 1 < panels ? "unset colorbox\n"
                    : "set colorbox user origin screen 0.875, 0.2 size screen 0.018, 0.6\n");
    tool_write_format(w, "set title 'Muon %llu: ", (unsigned long long)d->number[panel]);
    if (isnan(e->energy)) tool_write_text(w, "energy unknown");
    else plot_number(w, "", (double)e->energy, " GeV");
    tool_write_text(w, e->n_hits ? "'\n" : ", no hits'\n");
    plot_event_axis(w, 'x', g->origin[0], g->pitch[0], g->nz);
    plot_event_axis(w, 'y', g->origin[1], g->pitch[1], g->nx);
    plot_event_axis(w, 'z', g->origin[2], g->pitch[2], g->ny);
    tool_write_text(w, "splot ");
    plot_name(w, p, "event", "csv");
    tool_write_format(w, " index %d using 1:2:3:(", panel);
    plot_number(w, "", d->svg ? 0.7 * d->dot : d->dot, "*(0.3 + 0.15*log10($4/");
    plot_number(w, "", d->low, "))):4 with points pointtype 7 pointsize variable"
                " linecolor palette\n");
}

static calomu_status plot_event_script(const plot_place *p, const plot_display *d)
{
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, "event", "gp", &w);
    size_t i;
    if (s != CALOMU_OK) return s;
    plot_head(w, p, "event", "Cells, coloured by the logarithm of their energy (Fig. 2).",
              d->batch->n > 2 ? 760 : d->batch->n > 1 ? 400 : 500);
    plot_number(w, "set logscale cb\nset cbrange [", d->low, ":");
    plot_number(w, "", d->high, "]\n");
    tool_write_text(w,
        "set key off\nset format cb '10^{%T}'\n"
        "set border 4095 linewidth 0.6 linecolor rgb '#999999'\nset tics textcolor rgb '#000000'\n"
        "set xyplane 0\nset view 68, 22, 1, 1.25\nset format x '%.9g'\nset format y '%.9g'\n"
        "set format z '%.9g'\nset zlabel 'y [mm]' rotate by 90 offset 1, 0\n"
        "set palette defined (0 '#2c105c', 1 '#711f81', 2 '#b63679', 3 '#ee605e', 4 '#fdae78')\n"
        "set multiplot\n");
    tool_write_format(w, "set xlabel 'z [mm]' offset 0, %s\nset ylabel 'x [mm]' offset %s\n"
                      "set cblabel 'Cell energy [GeV]'%s\n", d->svg ? "0" : "-0.5",
                      d->svg ? "-4, -0.5" : "-0.5, -0.7", d->svg ? " offset -0.3, 0" : "");
    for (i = 0; i < d->batch->n; i++) plot_event_panel(w, p, d, (int)i);
    tool_write_text(w, "unset multiplot\n");
    return tool_writer_close(w);
}

calomu_status plot_events(calomu *c, const char *prefix, const char *path, const uint64_t *number,
                          int n)
{
    static const char *const figures[1] = { "event" };
    calomu_data *data = NULL;
    calomu_events batch;
    plot_place p;
    plot_display d;
    calomu_status s = plot_place_at(&p, c, prefix);
    memset(&batch, 0, sizeof batch);
    if (s != CALOMU_OK) return s;
    s = calomu_data_open(c, path, &data);
    if (s == CALOMU_OK) s = calomu_data_read(c, data, 0, number, (size_t)n, &batch);
    if (s != CALOMU_OK) (void)tool_report(c, s);
    if (s == CALOMU_OK) {
        d.g = &calomu_data_describe(data)->geometry;
        d.batch = &batch;
        d.number = number;
        d.svg = strcmp(p.format, "svg") == 0;
        plot_display_begin(&d);
        s = plot_event_data(&p, &d);
    }
    if (s == CALOMU_OK) s = plot_event_script(&p, &d);
    calomu_events_free(&batch);
    calomu_data_close(data);
    return s == CALOMU_OK ? plot_render(&p, figures, 1) : s;
}

/* ---------------------------------------------------------------- scans (scan_fit.h) */

static const char *const plot_scanned[] = {
    "response", "scales", "linearity", "noise", "calibration"
};
enum { PLOT_SCANNED = sizeof plot_scanned / sizeof plot_scanned[0] };

calomu_status plot_claim_scan(const char *prefix)
{
    return plot_claim_all(prefix, plot_scanned, PLOT_SCANNED);
}

/* A block of lines for each setting: what all figures but the scales draw from. */
static calomu_status plot_scan_data(const plot_place *p, const char *figure, const scan_set *set)
{
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, figure, "csv", &w);
    size_t i;
    int k;
    if (s != CALOMU_OK) return s;
    tool_write_text(w, "# miscalibration,noise_MeV,bias_MeV,correlation,slope,slope_error,"
                    "intercept_GeV,intercept_error_GeV,energy_GeV,mean_GeV,mean_error_GeV,"
                    "residual_in_errors,resolution,bias_before,bias_after,sigma_before,"
                    "sigma_after\n");
    for (i = 0; i < set->n_points; i++) {
        const scan_point *q = &set->point[i];
        const int one = strcmp(figure, "scales") == 0;
        if (!q->fitted) continue;
        for (k = q->first; k < q->first + (one ? 1 : q->n); k++) {
            const scan_response *r = &set->response[k];
            const double row[17] = { q->miscalibration, q->noise, q->bias, q->correlation,
                q->slope, q->slope_error, q->intercept, q->intercept_error, r->energy, r->mean,
                r->error, (r->mean - q->intercept - q->slope * r->energy) / r->error,
                r->sigma / q->slope / r->energy, r->before, r->after, r->wide,
                r->calibrated };
            plot_row(w, row, 17);
        }
        if (!one) tool_write_text(w, "\n");
    }
    return tool_writer_close(w);
}

static void plot_scan_layer(tool_writer *w, const plot_place *p, const char *figure,
                            const char *before, const char *behind)
{
    tool_write_text(w, before);
    plot_name(w, p, figure, "csv");
    tool_write_text(w, behind);
}

static void plot_scan_palette(tool_writer *w)
{
    tool_write_text(w, "set palette defined (0 '#2c105c', 1 '#711f81', 2 '#b63679', 3 '#ee605e',"
                    " 4 '#fdae78')\nset cblabel 'Noise s_e [MeV]'\n");
}

/* Range of a horizontal axis with a margin, and about three steps in it, of 1, 2 or 5. */
static void plot_scan_axis(tool_writer *w, double low, double high)
{
    const double width = high > low ? high - low : fmax(fabs(high), 1);
    const double decade = pow(10, floor(log10(width / 3))), digit = width / 3 / decade;
    plot_number(w, "set xrange [", low - 0.08 * width, ":");
    plot_number(w, "", high + 0.08 * width, "]\n");
    plot_number(w, "set xtics ", (digit >= 5 ? 5 : digit >= 2 ? 2 : 1) * decade, "\n");
}

/* One of the three scales, from its least to its largest. */
static void plot_scan_scale_axis(tool_writer *w, const scan_set *set, int scale)
{
    double low = INFINITY, high = -INFINITY, x;
    size_t i;
    for (i = 0; i < set->n_points; i++) {
        const scan_point *q = &set->point[i];
        x = scale == 0 ? q->miscalibration : scale == 1 ? q->noise : q->bias;
        low = fmin(low, x);
        high = fmax(high, x);
    }
    plot_scan_axis(w, low, high);
}

static void plot_scan_scales(tool_writer *w, const plot_place *p, const scan_set *set)
{
    static const char *const label[3] = { "Miscalibration s_c", "Noise s_e [MeV]",
                                          "Bias s_b [MeV]" };
    int column, row;
    tool_write_text(w, "unset colorbox\nset key off\nset bars 0\n"
                    "set multiplot layout 2,3 title 'Colour: noise s_e, rising from dark to"
                    " light'\n");
    for (row = 0; row < 2; row++) {
        for (column = 0; column < 3; column++) {
            char columns[120];
            plot_scan_scale_axis(w, set, column);
            tool_write_format(w, "set xlabel '%s'\nset ylabel '%s'\n", label[column],
                              column ? "" : row ? "Intercept [GeV]" : "Slope");
            (void)snprintf(columns, sizeof columns, " using %d:%d:%d:2 with yerrorbars pointtype 7"
                           " pointsize 0.5 linecolor palette\n", column + 1, row ? 7 : 5,
                           row ? 8 : 6);
            plot_scan_layer(w, p, "scales", "plot ", columns);
        }
    }
    tool_write_text(w, "unset multiplot\n");
}

static void plot_scan_bias(tool_writer *w, const plot_place *p, const scan_set *set)
{
    static const char *const title[4] = { "Bias [%], as the model says",
        "Bias [%], calibrated on the other half", "{/Symbol s} / E [%], as the model says",
        "{/Symbol s} / E [%], calibrated" };
    double high = 0;
    char columns[120];
    size_t i;
    int k;
    for (i = 0; i < set->n_responses; i++) high = fmax(high, set->response[i].energy);
    plot_scan_axis(w, 0, high);
    tool_write_text(w, "set key off\nunset colorbox\nset multiplot layout 2,2\n");
    for (k = 0; k < 4; k++) {
        tool_write_format(w, "set title '%s'\nset xlabel '%s'\n", title[k],
                          k > 1 ? "True energy E [GeV]" : "");
        if (k == 2) tool_write_text(w, "set yrange [0:*]\n");
        (void)snprintf(columns, sizeof columns, " using 9:(100*$%d):2 with points pointtype 7"
                       " pointsize 0.5 linecolor palette\n", 14 + k);
        plot_scan_layer(w, p, "calibration", "plot ", columns);
    }
    tool_write_text(w, "unset multiplot\n");
}

/* At the energy in the middle. */
static void plot_scan_noise(tool_writer *w, const plot_place *p, const scan_set *set)
{
    const scan_point *q = &set->point[0];
    char columns[200];
    int correlation;
    double e = set->response[q->first + q->n / 2].energy;
    plot_number(w, "e = ", e, "\n");
    tool_write_text(w, "set xlabel 'Noise s_e [MeV]'\nset offsets graph 0.04, graph 0.04, 0, 0\n"
                    "set ylabel sprintf('{/Symbol s} / (a E) at %g GeV [%%]', e)\n");
    for (correlation = 0; correlation < 2; correlation++) {
        (void)snprintf(columns, sizeof columns, " using ($4 == %d && $9 == e ? $2 : NaN):"
                       "(100*$13) with points pointtype %d pointsize 0.9 linecolor rgb '%s' title"
                       " '%s'%s", correlation, correlation ? 9 : 7,
                       correlation ? PLOT_RED : PLOT_BLUE,
                       correlation ? "With the vine" : "Independent cells",
                       correlation ? "\n" : ", \\\n    ");
        plot_scan_layer(w, p, "noise", correlation ? "" : "plot ", columns);
    }
}

static calomu_status plot_scan_script(const plot_place *p, int figure, const scan_set *set)
{
    static const char *const what[PLOT_SCANNED] = {
        "Response at all settings.", "Slopes and intercepts against the scales.",
        "Residuals from the straight lines.", "Resolution against noise.",
        "Bias before and after calibration."
    };
    static const int height[PLOT_SCANNED] = { 640, 700, 520, 560, 720 };
    const char *name = plot_scanned[figure];
    tool_writer *w = NULL;
    calomu_status s = plot_open(p, name, "gp", &w);
    if (s != CALOMU_OK) return s;
    plot_head(w, p, name, what[figure], height[figure]);
    plot_scan_palette(w);
    if (figure == 1) plot_scan_scales(w, p, set);
    if (figure == 3) plot_scan_noise(w, p, set);
    if (figure == 4) plot_scan_bias(w, p, set);
    if (figure == 0) {
        tool_write_text(w, "set xlabel 'True energy E [GeV]'\nset ylabel 'Mean prediction [GeV]'\n"
                        "set key off\n");
        plot_scan_layer(w, p, name, "plot ", " using 9:10:2 with linespoints pointtype 7"
                        " pointsize 0.4 linewidth 1.2 linecolor palette, \\\n"
                        "    x with lines linewidth 2 dashtype 2 linecolor rgb '#000000'\n");
    } else if (figure == 2) {
        tool_write_text(w, "set xlabel 'True energy E [GeV]'\n"
                        "set ylabel 'Residual from the line, in errors'\nset key off\n"
                        "set offsets graph 0.03, graph 0.03, 0, 0\n");
        plot_scan_layer(w, p, name, "plot ", " using 9:12:2 with points pointtype 7 pointsize 0.5"
                        " linecolor palette\n");
    }
    return tool_writer_close(w);
}

calomu_status plot_scan(calomu *c, const char *prefix, const char *path)
{
    plot_place p;
    scan_set set;
    calomu_status s = plot_place_at(&p, c, prefix);
    int i;
    if (s != CALOMU_OK) return s;
    s = scan_read(path, &set);
    for (i = 0; i < PLOT_SCANNED && s == CALOMU_OK; i++) {
        s = plot_scan_data(&p, plot_scanned[i], &set);
        if (s == CALOMU_OK) s = plot_scan_script(&p, i, &set);
    }
    scan_free(&set);
    return s == CALOMU_OK ? plot_render(&p, plot_scanned, PLOT_SCANNED) : s;
}
