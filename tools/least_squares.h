/* least_squares.h - weighted linear least squares with covariance, for calomu scan-fit */
#ifndef CALOMU_LEAST_SQUARES_H
#define CALOMU_LEAST_SQUARES_H

#include <stddef.h>

enum { LSQ_COLUMNS = 12 };

typedef enum lsq_result {
    LSQ_OK,
    LSQ_FEW,                         /* fewer rows than columns, or no or too many columns */
    LSQ_DEPENDENT,                   /* fit->dependent: a column made of those before it, or 0 */
    LSQ_RANGE,                       /* numbers that are not finite, or a weight below 0 */
    LSQ_MEMORY
} lsq_result;

typedef struct lsq_fit {
    int columns, dependent;
    size_t rows;
    double coefficient[LSQ_COLUMNS], error[LSQ_COLUMNS], t[LSQ_COLUMNS];
    double covariance[LSQ_COLUMNS][LSQ_COLUMNS];
    double rss;                      /* sum of weight * residual^2: chi2 if weights are 1/error^2 */
    double r2;                       /* 1 - rss / the same about the weighted mean of y */
    double bic;                      /* n ln(rss/n) + columns ln n; -inf if rss is 0 */
} lsq_fit;

/* Fits y[i] = sum_k coefficient[k] x[i * columns + k] by Householder's QR, without the normal
   equations, whose condition is the square.  weight NULL: all 1.  known 1: weights are 1/error^2
   and give the covariance as they are; 0: it is scaled by rss / (rows - columns), NaN where rows
   and columns are equal. */
lsq_result lsq_solve(const double *x, const double *y, const double *weight, size_t rows,
                     int columns, int known, lsq_fit *fit);

#endif /* CALOMU_LEAST_SQUARES_H */
