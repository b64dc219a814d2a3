/* plot.h - figures: each is data (CSV), a gnuplot script, and the image where gnuplot is there

   PREFIX is a path with the beginning of the names; if it ends with .png or .svg, that is the
   format of the images and no part of the names (default: SVG).  The scripts stand alone:
   `gnuplot -d FILE.gp`, from any folder, makes the image beside the script (-d: without ~/.gnuplot,
   as it is run here).  gnuplot is looked for on the PATH; where it is missing or fails, that is a
   notice and no failure, for data and scripts are there.  Failures are reported by the functions
   themselves.  */
#ifndef CALOMU_PLOT_H
#define CALOMU_PLOT_H

#include "calomu_tool.h"

/* PREFIX_prediction (raw predictions and the fitted line, Fig. 8), PREFIX_ratio (quantiles of
   prediction / truth after debiasing, Figs. 9 and 11) and PREFIX_resolution (calorimeter, tracker,
   combination, Fig. 12), each .csv, .gp and image.  line NULL: nothing was debiased. */
calomu_status plot_evaluation(calomu *c, const char *prefix, const calomu_line *line,
                              const double *truth, const double *prediction, size_t n,
                              const calomu_bin *bins, int n_bins, const calomu_summary *summary);

/* PREFIX_history (Fig. 7): losses, mean improvement, learning rate and beta1 against the epoch,
   from a training log, a CSV with the columns epoch, training_loss, validation_loss, lr, beta1
   and, if there, mi (empty where unknown). */
calomu_status plot_history(calomu *c, const char *prefix, const char *log);

/* PREFIX_event (Fig. 2): the cells of the n muons of a data file that have these numbers, a panel
   for each. */
calomu_status plot_events(calomu *c, const char *prefix, const char *path, const uint64_t *number,
                          int n);

/* PREFIX_response (Akchurin et al. 2021, Fig. 1), PREFIX_scales (Fig. 2), PREFIX_linearity,
   PREFIX_noise, PREFIX_calibration: of a scan, see scan_fit.h. */
calomu_status plot_scan(calomu *c, const char *prefix, const char *path);
calomu_status plot_claim_scan(const char *prefix);

/* Length of the prefix without an ending that is the format. */
size_t plot_stem(const char *prefix);

/* Claims the three files of PREFIX_FIGURE ("prediction" and so on): see tool_claim. */
calomu_status plot_claim(tool_file file, const char *prefix, const char *figure);
calomu_status plot_claim_evaluation(const char *prefix);    /* of each that plot_evaluation makes */

/* Whether they can be written, as far as that is seen before: their folder is looked at. */
calomu_status plot_try(calomu *c, const char *prefix, const char *figure);

#endif /* CALOMU_PLOT_H */
