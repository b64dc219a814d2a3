/* scan_fit_verb.c - `calomu scan-fit`: straight lines, regressions, calibration after the model */
#include "scan_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIT_BY_T, FIT_BY_BIC, FIT_OPTIONS = 9 };
enum { TERM_1, TERM_C, TERM_E, TERM_B, TERM_I, TERM_IE, TERM_IB, TERM_CI, TERM_CB, TERM_B0,
       TERM_P, TERM_S, TERMS };

static const char *const fit_term[TERMS] = {
    "1", "s_c", "s_e", "s_b", "I", "I s_e", "I s_b", "s_c I", "s_c s_b", "b0", "P", "S"
};
static const char *const fit_latex[TERMS] = {
    "1", "s_c", "s_e", "s_b", "I", "I s_e", "I s_b", "s_c I", "s_c s_b", "b_0", "P", "S"
};

typedef struct fit_job {
    const char *input, *csv, *latex, *coefficients, *calibration;
    int by;
    double step, cells;              /* MeV (0: 5/6 of the threshold); 0: the file says */
    scan_set set;
    calomu *c;
    tool_writer *tables, *tex;       /* of coefficients; NULL: not wanted */
    double *x, *y;                   /* of one regression */
    double scale;                    /* k of intercept = k S; NaN: not fitted */
} fit_job;

/* ---------------------------------------------------------------- terms */

/* I of Eqs. 2.1 and 2.2: noise alone can fire a cell.  The paper's 0.5 MeV of 0.6, in every unit;
   s_e = 5/6 itself is no such noise, whichever way it is rounded. */
static double fit_indicator(const fit_job *j, const scan_point *p)
{
    const double step = j->step > 0 ? j->step : p->zero * 5 / 6 * (1 + 1e-9);
    return p->noise > step ? 1 : 0;
}

static double fit_value(const fit_job *j, const scan_point *p, int term)
{
    const double on = fit_indicator(j, p);
    switch (term) {
    case TERM_C: return p->miscalibration;
    case TERM_E: return p->noise;
    case TERM_B: return p->bias;
    case TERM_I: return on;
    case TERM_IE: return on * p->noise;
    case TERM_IB: return on * p->bias;
    case TERM_CI: return p->miscalibration * on;
    case TERM_CB: return p->miscalibration * p->bias;
    case TERM_B0: return p->intercept;
    case TERM_P: return p->fires;
    case TERM_S: return p->survives * j->cells / 1000;
    default: return 1;
    }
}

/* Rows are the fitted settings of a model; slope 0: the intercept. */
static lsq_result fit_regress(fit_job *j, int model, int slope, const int *term, int n,
                              lsq_fit *fit)
{
    size_t i, rows = 0;
    int k;
    for (i = 0; i < j->set.n_points; i++) {
        const scan_point *p = &j->set.point[i];
        if (p->model != model || !p->fitted) continue;
        for (k = 0; k < n; k++) j->x[rows * (size_t)n + (size_t)k] = fit_value(j, p, term[k]);
        j->y[rows++] = slope ? p->slope : p->intercept;
    }
    return lsq_solve(j->x, j->y, NULL, rows, n, 0, fit);
}

/* ---------------------------------------------------------------- tables */

/* Of Eqs. 2.1 and 2.2; NaN: no such term. */
static double fit_paper(int slope, int term)
{
    static const double a[4] = { 0.963, -0.299, -0.053, 0.091 }, b[3] = { -680, 1098, 2008 };
    if (slope && term == TERM_1) return a[0];
    if (term == TERM_IE) return slope ? a[1] : b[1];
    if (term == TERM_IB) return slope ? a[2] : b[2];
    if (slope && term == TERM_B) return a[3];
    return !slope && term == TERM_I ? b[0] : (double)NAN;
}

static void fit_write_term(fit_job *j, int model, int slope, const char *name, int term,
                           const lsq_fit *f, int k)
{
    const double value[6] = { f->coefficient[k], f->error[k], f->t[k], f->r2, f->bic, f->rss };
    int i;
    if (j->tables) {
        tool_write_format(j->tables, "%s,%s,%s,%s", j->set.model[model],
                          slope ? "slope" : "intercept", name, fit_term[term]);
        for (i = 0; i < 6; i++) {
            tool_write_text(j->tables, ",");
            tool_write_number(j->tables, value[i], 17);
        }
        tool_write_text(j->tables, "\n");
    }
    if (j->tex) {
        tool_write_format(j->tex, "%s & %s & $%s$", slope ? "$a$" : "$b_0$", name,
                          fit_latex[term]);
        for (i = 0; i < 3; i++) {
            tool_write_text(j->tex, " & $");
            tool_write_number(j->tex, value[i], 4);
            tool_write_text(j->tex, "$");
        }
        tool_write_text(j->tex, " \\\\\n");
    }
}

static void fit_table(fit_job *j, int model, int slope, const char *name, const int *term, int n,
                      const lsq_fit *f)
{
    double paper;
    int k;
    printf("%s, %s: R2 %.5f, BIC %.2f, %zu settings\n", slope ? "slope" : "intercept (GeV)", name,
           f->r2, f->bic, f->rows);
    printf("  %-8s %13s %12s %9s %10s\n", "term", "coefficient", "error", "t", "the paper");
    for (k = 0; k < n; k++) {
        paper = fit_paper(slope, term[k]);
        printf("  %-8s %13.6g %12.3g %9.4g", fit_term[term[k]], f->coefficient[k], f->error[k],
               f->t[k]);
        if (isnan(paper)) printf(" %10s\n", "-");
        else printf(" %10g\n", paper);
        fit_write_term(j, model, slope, name, term[k], f, k);
    }
}

static void fit_remove(int *term, int *n, int k)
{
    for (--*n; k < *n; k++) term[k] = term[k + 1];
}

/* A fit without the columns that are made of others, which are named once. */
static lsq_result fit_independent(fit_job *j, int model, int slope, int *term, int *n,
                                  lsq_fit *f)
{
    lsq_result result;
    while ((result = fit_regress(j, model, slope, term, *n, f)) == LSQ_DEPENDENT) {
        tool_notice("%s: the scan cannot tell term '%s' from those before it: left out",
                    slope ? "slope" : "intercept", fit_term[term[f->dependent]]);
        fit_remove(term, n, f->dependent);
        if (*n == 0) return result;
    }
    return result;
}

/* Backward elimination: the weakest term goes until all have t >= 2, or none lowers the BIC. */
static lsq_result fit_eliminate(fit_job *j, int model, int slope, int *term, int *n, lsq_fit *f)
{
    lsq_result result = LSQ_OK;
    while (result == LSQ_OK && *n > 1) {
        int trial[TERMS], m = *n, k, weak = 0;
        lsq_fit less;
        for (k = 1; k < *n; k++)
            if (fabs(f->t[k]) < fabs(f->t[weak])) weak = k;
        if (j->by == FIT_BY_T && !(fabs(f->t[weak]) < 2)) break;
        memcpy(trial, term, (size_t)*n * sizeof *term);
        fit_remove(trial, &m, weak);
        result = fit_regress(j, model, slope, trial, m, &less);
        if (j->by == FIT_BY_BIC && result == LSQ_OK && !(less.bic < f->bic)) break;
        memcpy(term, trial, (size_t)m * sizeof *term);
        *n = m;
        *f = less;
    }
    return result;
}

/* Correlation: the root of R2 of a line with a constant. */
static void fit_correlation(fit_job *j, int model, const lsq_fit *f)
{
    const int term[2] = { TERM_1, TERM_S };
    lsq_fit line;
    j->scale = f->coefficient[0];
    if (fit_regress(j, model, 0, term, 2, &line) == LSQ_OK)
        printf("  correlation of intercept and S: %.5f\n",
               copysign(sqrt(fmax(0, line.r2)), line.coefficient[1]));
}

static void fit_named(fit_job *j, int model, int slope, const char *name, const int *term, int n)
{
    lsq_fit f;
    lsq_result result = fit_regress(j, model, slope, term, n, &f);
    if (result == LSQ_OK) {
        fit_table(j, model, slope, name, term, n, &f);
        if (term[0] == TERM_S) fit_correlation(j, model, &f);
    } else if (result == LSQ_DEPENDENT) {
        printf("%s, %s: not fitted: in this scan '%s' is 0 or made of the other terms\n",
               slope ? "slope" : "intercept", name, fit_term[term[f.dependent]]);
    } else {
        printf("%s, %s: not fitted: too few settings\n", slope ? "slope" : "intercept", name);
    }
}

static void fit_search(fit_job *j, int model, int slope)
{
    int term[TERMS], n = slope ? 10 : 9, k;
    lsq_fit f;
    for (k = 0; k < n; k++) term[k] = k;
    if (fit_independent(j, model, slope, term, &n, &f) != LSQ_OK) {
        printf("%s: no regression: too few settings\n", slope ? "slope" : "intercept");
        return;
    }
    fit_table(j, model, slope, "all terms", term, n, &f);
    if (fit_eliminate(j, model, slope, term, &n, &f) == LSQ_OK)
        fit_table(j, model, slope, j->by == FIT_BY_T ? "eliminated by t" : "eliminated by BIC",
                  term, n, &f);
}

static void fit_second(fit_job *j, int model)
{
    static const int a[] = { TERM_1, TERM_IE, TERM_IB, TERM_B }, b[] = { TERM_I, TERM_IE, TERM_IB };
    static const int physical_a[] = { TERM_1, TERM_B, TERM_P }, physical_b[] = { TERM_S };
    fit_search(j, model, 1);
    fit_named(j, model, 1, "paper", a, 4);
    fit_named(j, model, 1, "physical", physical_a, 3);
    fit_search(j, model, 0);
    fit_named(j, model, 0, "paper", b, 3);
    j->scale = (double)NAN;
    if (j->cells > 0) fit_named(j, model, 0, "physical", physical_b, 1);
    else
        tool_notice("no physical model of the intercept: %s does not say how many cells the grid"
                    " has; --cells does", j->input);
}

/* ---------------------------------------------------------------- settings */

static calomu_status fit_points_csv(const fit_job *j)
{
    tool_writer *w = NULL;
    calomu_status s = tool_writer_open(j->c, j->csv, &w);
    size_t i;
    int k;
    if (s != CALOMU_OK) return s;
    tool_write_text(w, "model,draw,setting,correlation,miscalibration,noise,bias,zero,intercept,"
                    "slope,intercept_error,slope_error,covariance,chi2,energies,quadratic_t,"
                    "residual,residual_energy,fired,noise_energy\n");
    for (i = 0; i < j->set.n_points; i++) {
        const scan_point *p = &j->set.point[i];
        const double value[16] = { p->miscalibration, p->noise, p->bias, p->zero, p->intercept,
            p->slope, p->intercept_error, p->slope_error, p->covariance, p->chi2, p->used,
            p->quadratic_t, p->residual, p->residual_energy, p->fired, p->noise_energy };
        tool_write_format(w, "%s,%d,%d,%d", j->set.model[p->model], p->draw, p->setting,
                          p->correlation);
        for (k = 0; k < 16; k++) {
            tool_write_text(w, ",");
            tool_write_number(w, k > 3 && k < 14 && !p->fitted ? (double)NAN : value[k], 17);
        }
        tool_write_text(w, "\n");
    }
    return tool_writer_close(w);
}

static void fit_points(const fit_job *j, int model)
{
    size_t i;
    printf("%4s %4s %1s %5s %7s %7s %7s %15s %15s %7s %6s\n", "set", "draw", "v", "s_c", "s_e",
           "s_b", "zero", "slope", "intercept/GeV", "chi2/n", "t");
    for (i = 0; i < j->set.n_points; i++) {
        const scan_point *p = &j->set.point[i];
        char slope[40], intercept[40];
        if (p->model != model || !p->fitted) continue;
        (void)snprintf(slope, sizeof slope, "%.4f+-%.4f", p->slope, p->slope_error);
        (void)snprintf(intercept, sizeof intercept, "%.1f+-%.1f", p->intercept,
                       p->intercept_error);
        printf("%4d %4d %1d %5g %7.4g %7.4g %7.4g %15s %15s %7.2f %6.1f\n", p->setting, p->draw,
               p->correlation, p->miscalibration, p->noise, p->bias, p->zero, slope, intercept,
               p->used > 2 ? p->chi2 / (p->used - 2) : (double)NAN, p->quadratic_t);
    }
}

/* ---------------------------------------------------------------- draws of C */

/* Spread of the slope over the draws of one setting, beside its error: the rest is the draw. */
static void fit_draws(const fit_job *j, int model)
{
    const scan_set *set = &j->set;
    size_t i, k;
    int head = 0;
    for (i = 0; i < set->n_points; i++) {
        const scan_point *p = &set->point[i];
        double n = 0, sum = 0, square = 0, error = 0, spread;
        int first = 1;
        if (p->model != model || !p->fitted || !(p->miscalibration > 0)) continue;
        for (k = 0; k < set->n_points; k++) {
            const scan_point *q = &set->point[k];
            if (q->model != model || !q->fitted || q->setting != p->setting
                || q->correlation != p->correlation) continue;
            if (k < i) first = 0;
            n++;
            sum += q->slope - p->slope;
            square += (q->slope - p->slope) * (q->slope - p->slope);
            error += q->slope_error * q->slope_error;
        }
        if (!first || n < 2) continue;
        if (!head++) printf("draws of C: the slope's spread over them beside its error\n"
                            "  set   s_c draws mean-slope    spread     error  the-draw\n");
        spread = fmax(0, (square - sum * sum / n) / (n - 1));
        printf("%5d %5g %5.0f %10.5f %9.5f %9.5f %9.5f\n", p->setting, p->miscalibration, n,
               p->slope + sum / n, sqrt(spread), sqrt(error / n),
               sqrt(fmax(0, spread - error / n)));
    }
}

/* ---------------------------------------------------------------- calibration */

static calomu_status fit_calibration_csv(const fit_job *j)
{
    tool_writer *w = NULL;
    calomu_status s = tool_writer_open(j->c, j->calibration, &w);
    size_t i;
    int r, k;
    if (s != CALOMU_OK) return s;
    tool_write_text(w, "model,draw,setting,correlation,energy,quadratic_t,bias_before,bias_after,"
                    "resolution_before,resolution_after\n");
    for (i = 0; i < j->set.n_points; i++) {
        const scan_point *p = &j->set.point[i];
        for (r = p->first; r < p->first + p->n; r++) {
            const scan_response *x = &j->set.response[r];
            const double value[6] = { x->energy, p->quadratic_t, x->before, x->after, x->wide,
                                      x->calibrated };
            tool_write_format(w, "%s,%d,%d,%d", j->set.model[p->model], p->draw, p->setting,
                              p->correlation);
            for (k = 0; k < 6; k++) {
                tool_write_text(w, ",");
                tool_write_number(w, value[k], 17);
            }
            tool_write_text(w, "\n");
        }
    }
    return tool_writer_close(w);
}

/* Of one energy, over the settings of a model whose response is a line (linear 1), or not. */
static void fit_energy(const fit_job *j, int model, double energy, int linear)
{
    double n = 0, before = 0, after = 0, worst = 0, wide = 0, calibrated = 0;
    size_t i;
    int r;
    for (i = 0; i < j->set.n_points; i++) {
        const scan_point *p = &j->set.point[i];
        if (p->model != model || (fabs(p->quadratic_t) < 3) != linear) continue;
        for (r = p->first; r < p->first + p->n; r++) {
            const scan_response *x = &j->set.response[r];
            if (x->energy != energy || isnan(x->after) || isnan(x->calibrated)) continue;
            n++;
            before += fabs(x->before);
            after += fabs(x->after);
            worst = fmax(worst, fabs(x->after));
            wide += x->wide;
            calibrated += x->calibrated;
        }
    }
    if (n > 0)
        printf("%9g %6s %8.0f %9.2f %9.2f %9.2f %9.2f %9.2f\n", energy, linear ? "yes" : "no", n,
               100 * before / n, 100 * after / n, 100 * worst, 100 * wide / n,
               100 * calibrated / n);
}

/* Every energy of the model once, rising. */
static void fit_calibrated(const fit_job *j, int model)
{
    double at = 0, next;
    size_t i;
    int r;
    printf("calibration after the model: line of half 0, applied to half 1; means over settings\n"
           "%9s %6s %8s %9s %9s %9s %9s %9s\n", "E/GeV", "linear", "settings", "|bias|/%",
           "after/%", "worst/%", "sigma/%", "after/%");
    for (;; at = next) {
        for (next = INFINITY, i = 0; i < j->set.n_points; i++) {
            const scan_point *p = &j->set.point[i];
            for (r = p->first; p->model == model && r < p->first + p->n; r++)
                if (j->set.response[r].energy > at)
                    next = fmin(next, j->set.response[r].energy);
        }
        if (isinf(next)) break;
        fit_energy(j, model, next, 1);
        fit_energy(j, model, next, 0);
    }
}

/* What of the remedies before the model a scan can tell: the mean of the noise taken off. */
static void fit_remedies(const fit_job *j, int model)
{
    double n = 0, before = 0, form = 0, measured = 0, x;
    size_t i;
    for (i = 0; i < j->set.n_points && isfinite(j->scale); i++) {
        const scan_point *p = &j->set.point[i];
        if (p->model != model || !p->fitted) continue;
        n++;
        before += p->intercept * p->intercept;
        x = p->intercept - j->scale * fit_value(j, p, TERM_S);
        form += x * x;
        x = p->intercept - j->scale * p->noise_energy;
        measured += x * x;
    }
    printf("remedies before the model\n");
    if (n > 0)
        printf("  mean noise subtracted, k = %.4g: the intercept's rms goes from %.4g GeV to %.4g"
               " GeV\n  (closed form), %.4g GeV (noise energy as measured in the scan)\n",
               j->scale, sqrt(before / n), sqrt(form / n), sqrt(measured / n));
    printf("  a higher threshold (bias + noise), the last layers trained again, cells calibrated"
           "\n  with muons: need a new scan, or a training\n");
}

/* ---------------------------------------------------------------- the verb */

static calomu_status fit_open(fit_job *j)
{
    calomu_status s = CALOMU_OK;
    if (j->coefficients) s = tool_writer_open(j->c, j->coefficients, &j->tables);
    if (j->tables)
        tool_write_text(j->tables, "model,of,fit,term,coefficient,error,t,r2,bic,rss\n");
    if (s == CALOMU_OK && j->latex) s = tool_writer_open(j->c, j->latex, &j->tex);
    if (j->tex)
        tool_write_text(j->tex, "\\begin{tabular}{llcrrr}\nof & fit & term & coefficient & error"
                        " & $t$ \\\\\n\\hline\n");
    return s;
}

static calomu_status fit_close(fit_job *j, calomu_status s)
{
    calomu_status other;
    if (s != CALOMU_OK) {
        tool_writer_abandon(j->tables);
        tool_writer_abandon(j->tex);
        return s;
    }
    if (j->tex) tool_write_text(j->tex, "\\hline\n\\end{tabular}\n");
    s = j->tables ? tool_writer_close(j->tables) : CALOMU_OK;
    other = j->tex ? tool_writer_close(j->tex) : CALOMU_OK;
    return s == CALOMU_OK ? other : s;
}

static calomu_status fit_run(fit_job *j)
{
    int m;
    calomu_status s = scan_read(j->input, &j->set);
    if (s != CALOMU_OK) return s;
    if (!(j->cells > 0)) j->cells = j->set.cells;
    j->x = malloc(j->set.n_points * (LSQ_COLUMNS + 1) * sizeof *j->x);
    if (!j->x) return tool_fail(CALOMU_EMEMORY, "%s: no memory", j->input);
    j->y = j->x + j->set.n_points * LSQ_COLUMNS;
    s = fit_open(j);
    for (m = 0; m < j->set.n_models && s == CALOMU_OK; m++) {
        printf("model %s\n", tool_shown(j->set.model[m]));
        fit_points(j, m);
        fit_draws(j, m);
        fit_second(j, m);
        fit_calibrated(j, m);
        fit_remedies(j, m);
    }
    if (s == CALOMU_OK && j->csv) s = fit_points_csv(j);
    if (s == CALOMU_OK && j->calibration) s = fit_calibration_csv(j);
    return fit_close(j, s);
}

static void fit_options(fit_job *j, tool_option *to)
{
    const tool_option options[] = {
        { .name = "by", .type = TOOL_CHOICE, .target = &j->by, .value = "t|bic",
          .help = "terms are left out while one has t < 2, or while that lowers the BIC" },
        { .name = "csv", .type = TOOL_STRING, .target = &j->csv, .value = "FILE",
          .file = TOOL_WRITES, .help = "write the line of each setting here (CSV)" },
        { .name = "coefficients", .type = TOOL_STRING, .target = &j->coefficients,
          .value = "FILE", .file = TOOL_WRITES, .help = "write the regressions here (CSV)" },
        { .name = "calibration", .type = TOOL_STRING, .target = &j->calibration,
          .value = "FILE", .file = TOOL_WRITES,
          .help = "write bias and resolution before and after calibration here (CSV)" },
        { .name = "latex", .type = TOOL_STRING, .target = &j->latex, .value = "FILE",
          .file = TOOL_WRITES, .help = "write the regressions here as a LaTeX table" },
        { .name = "step", .type = TOOL_DOUBLE, .target = &j->step, .value = "MEV",
          .help = "I is 1 above this noise", .preset = "5/6 of the threshold, as in the paper",
          .low = 1e-9, .high = 1e9 },
        { .name = "cells", .type = TOOL_DOUBLE, .target = &j->cells, .value = "N",
          .help = "cells of the grid", .preset = "as the file says", .low = 1, .high = 1e12 }
    };
    memcpy(to, options, sizeof options);
}

int verb_scan_fit(int argc, char **argv)
{
    fit_job j;
    int code;
    tool_operand operands[] = { { .name = "SCAN.csv", .target = &j.input }, { .name = NULL } };
    tool_option options[FIT_OPTIONS];
    tool_usage usage = {
        .verb = "scan-fit",
        .purpose = "Fits the response of each setting of a scan by a straight line, explains slopes"
                   "\nand intercepts by the scales of the scan (all terms, eliminated, the paper's,"
                   "\nphysical), and calibrates after the model.",
        .operands = operands, .options = options,
        .notes = "An unfinished scan is fitted as far as it is there.  Scales are in MeV but for\n"
                 "s_c, intercepts in GeV.  t of a setting: of a quadratic term; above 3 its\n"
                 "response counts as not linear.  S: the noise energy of empty cells that passes\n"
                 "the threshold (GeV); P: the probability of an empty cell to pass it."
    };
    memset(options, 0, sizeof options);
    memset(&j, 0, sizeof j);
    fit_options(&j, options);
    code = tool_parse(&usage, argc, argv);
    if (code >= 0) return code;
    code = (int)tool_open(&j.c, 1);
    if (code != CALOMU_OK) return code;
    code = (int)fit_run(&j);
    free(j.x);
    scan_free(&j.set);
    calomu_close(j.c);
    return code;
}
