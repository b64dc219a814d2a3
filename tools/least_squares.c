/* least_squares.c - Householder's QR (Golub and Van Loan, Matrix Computations, 5.2 and 5.3) */
#include "least_squares.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A column whose part that is new is below this share of its length is taken for dependent.  Sums
   of n products err by some n * 1e-16; scales in decimals leave 1e-15. */
#define LSQ_SHARE 1e-11

static double lsq_length(const double *v, size_t n)
{
    double largest = 0, sum = 0;
    size_t i;
    for (i = 0; i < n; i++) largest = fmax(largest, fabs(v[i]));
    for (i = 0; i < n && largest > 0; i++) sum += v[i] / largest * (v[i] / largest);
    return largest * sqrt(sum);
}

/* Column k becomes (.., -+length, 0, ..), and those behind it are mirrored with it.  a holds
   columns of n numbers one behind the other; y is the last. */
static void lsq_mirror(double *a, size_t n, int k, int columns)
{
    double *v = a + (size_t)k * n, length = lsq_length(v + k, n - (size_t)k), dot, norm = 0;
    const double diagonal = v[k] > 0 ? -length : length;
    size_t i;
    int c;
    v[k] -= diagonal;
    for (i = (size_t)k; i < n; i++) norm += v[i] * v[i];
    for (c = k + 1; c <= columns && norm > 0; c++) {
        double *u = a + (size_t)c * n;
        for (dot = 0, i = (size_t)k; i < n; i++) dot += v[i] * u[i];
        for (i = (size_t)k; i < n; i++) u[i] -= 2 * dot / norm * v[i];
    }
    v[k] = diagonal;
}

/* covariance = R^-1 R^-T; inverse is upper triangular, as R is. */
static void lsq_covariance(const double *a, size_t n, lsq_fit *fit)
{
    double inverse[LSQ_COLUMNS][LSQ_COLUMNS] = { { 0 } };
    const int m = fit->columns;
    int i, j, k;
    for (j = 0; j < m; j++) {
        inverse[j][j] = 1 / a[(size_t)j * n + (size_t)j];
        for (i = j - 1; i >= 0; i--) {
            double sum = 0;
            for (k = i + 1; k <= j; k++) sum += a[(size_t)k * n + (size_t)i] * inverse[k][j];
            inverse[i][j] = -sum / a[(size_t)i * n + (size_t)i];
        }
    }
    for (i = 0; i < m; i++)
        for (j = 0; j < m; j++)
            for (k = i > j ? i : j; k < m; k++)
                fit->covariance[i][j] += inverse[i][k] * inverse[j][k];
}

static void lsq_quality(const double *y, const double *weight, int known, lsq_fit *fit)
{
    const double n = (double)fit->rows, m = (double)fit->columns;
    double mean = 0, total = 0, all = 0, scale;
    size_t i;
    int j, k;
    for (i = 0; i < fit->rows; i++) {
        mean += (weight ? weight[i] : 1) * y[i];
        total += weight ? weight[i] : 1;
    }
    for (i = 0; i < fit->rows; i++)
        all += (weight ? weight[i] : 1) * (y[i] - mean / total) * (y[i] - mean / total);
    fit->r2 = all > 0 ? 1 - fit->rss / all : (double)NAN;
    fit->bic = n * log(fit->rss / n) + m * log(n);
    scale = known ? 1 : n > m ? fit->rss / (n - m) : (double)NAN;
    for (j = 0; j < fit->columns; j++) {
        for (k = 0; k < fit->columns; k++) fit->covariance[j][k] *= scale;
        fit->error[j] = sqrt(fit->covariance[j][j]);
        fit->t[j] = fit->coefficient[j] / fit->error[j];
    }
}

/* Residuals from the rows themselves: the rest of y below R loses what is small. */
static double lsq_rest(const double *x, const double *y, const double *weight, const lsq_fit *fit)
{
    double sum = 0;
    size_t i;
    int k;
    for (i = 0; i < fit->rows; i++) {
        double r = y[i];
        for (k = 0; k < fit->columns; k++)
            r -= x[i * (size_t)fit->columns + (size_t)k] * fit->coefficient[k];
        sum += (weight ? weight[i] : 1) * r * r;
    }
    return sum;
}

static lsq_result lsq_reduce(double *a, lsq_fit *fit)
{
    const size_t n = fit->rows;
    double length[LSQ_COLUMNS], sum;
    int i, k;
    for (k = 0; k < fit->columns; k++) length[k] = lsq_length(a + (size_t)k * n, n);
    for (k = 0; k < fit->columns; k++) {
        lsq_mirror(a, n, k, fit->columns);
        if (!(fabs(a[(size_t)k * n + (size_t)k]) > LSQ_SHARE * length[k])) {
            fit->dependent = k;
            return LSQ_DEPENDENT;
        }
    }
    for (i = fit->columns - 1; i >= 0; i--) {
        sum = a[(size_t)fit->columns * n + (size_t)i];
        for (k = i + 1; k < fit->columns; k++)
            sum -= a[(size_t)k * n + (size_t)i] * fit->coefficient[k];
        fit->coefficient[i] = sum / a[(size_t)i * n + (size_t)i];
    }
    return LSQ_OK;
}

lsq_result lsq_solve(const double *x, const double *y, const double *weight, size_t rows,
                     int columns, int known, lsq_fit *fit)
{
    const size_t m = (size_t)columns;
    double *a, root;
    lsq_result result;
    size_t i, k;
    memset(fit, 0, sizeof *fit);
    fit->columns = columns;
    fit->rows = rows;
    if (columns < 1 || columns > LSQ_COLUMNS || rows < m) return LSQ_FEW;
    if (rows > (size_t)-1 / sizeof *a / (LSQ_COLUMNS + 1)) return LSQ_MEMORY;
    for (i = 0; i < rows; i++) {
        if (!isfinite(y[i]) || (weight && !(weight[i] >= 0 && isfinite(weight[i]))))
            return LSQ_RANGE;
        for (k = 0; k < m; k++)
            if (!isfinite(x[i * m + k])) return LSQ_RANGE;
    }
    a = malloc(rows * (m + 1) * sizeof *a);
    if (!a) return LSQ_MEMORY;
    for (i = 0; i < rows; i++) {
        root = weight ? sqrt(weight[i]) : 1;
        for (k = 0; k < m; k++) a[k * rows + i] = root * x[i * m + k];
        a[m * rows + i] = root * y[i];
    }
    result = lsq_reduce(a, fit);
    if (result == LSQ_OK) {
        lsq_covariance(a, rows, fit);
        fit->rss = lsq_rest(x, y, weight, fit);
        lsq_quality(y, weight, known, fit);
    }
    free(a);
    return result;
}
