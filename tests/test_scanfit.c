/* test_scanfit.c - least squares: known answers, properties; numpy's are in cli_scanfit.sh

   usage: test_scanfit [TESTDATA [TMP [SEED]]]
   test_scanfit --numbers: rows of x, y, weight and the fits of them, for numpy */
#include "../tools/least_squares.c"
#include "test.h"

enum { ROWS = 40 };

static void draw(test_random *r, double *x, double *y, double *w, int columns)
{
    int i, k;
    for (i = 0; i < ROWS; i++) {
        for (k = 0; k < columns; k++) x[i * columns + k] = k ? test_normal(r) * pow(10, k % 3) : 1;
        y[i] = test_normal(r) + 3 * x[i * columns + columns - 1];
        w[i] = test_uniform(r, 0.1, 5);
    }
}

/* Residuals are orthogonal to all columns: true of the least squares and of nothing else. */
static void test_normal_equations(uint64_t seed)
{
    test_random r = test_seed(seed);
    double x[ROWS * LSQ_COLUMNS], y[ROWS], w[ROWS];
    int columns, i, j, k;
    for (columns = 1; columns <= LSQ_COLUMNS; columns++) {
        lsq_fit f;
        draw(&r, x, y, w, columns);
        CHECK(lsq_solve(x, y, w, ROWS, columns, 1, &f) == LSQ_OK, "%d columns", columns);
        for (k = 0; k < columns; k++) {
            double dot = 0, size = 0, inverse = 0;
            for (i = 0; i < ROWS; i++) {
                double rest = y[i];
                for (j = 0; j < columns; j++) rest -= f.coefficient[j] * x[i * columns + j];
                dot += w[i] * rest * x[i * columns + k];
                size += fabs(w[i] * rest * x[i * columns + k]);
            }
            CHECK_NEAR(dot / size, 0, 1e-11);
            /* row k of X'WX times column k of the covariance is 1 */
            for (j = 0; j < columns; j++)
                for (i = 0; i < ROWS; i++)
                    inverse += w[i] * x[i * columns + k] * x[i * columns + j] * f.covariance[j][k];
            CHECK_NEAR(inverse, 1, 1e-10);
            CHECK_NEAR(f.t[k] * f.error[k], f.coefficient[k], 1e-12 * fabs(f.coefficient[k]));
        }
    }
}

static void test_faults(void)
{
    const double x[12] = { 1, 2, 4, 1, 3, 6, 1, 4, 8, 1, 5, 10 }, y[4] = { 1, 2, 3, 5 };
    double w[4] = { 1, 1, 1, 1 }, bad[4] = { 1, 2, NAN, 4 }, zero[4] = { 0, 0, 0, 0 };
    lsq_fit f;
    CHECK(lsq_solve(x, y, w, 4, 3, 0, &f) == LSQ_DEPENDENT && f.dependent == 2, "4 = 2 x 2");
    CHECK(lsq_solve(zero, y, w, 4, 1, 0, &f) == LSQ_DEPENDENT && f.dependent == 0, "zeros");
    CHECK(lsq_solve(x, y, w, 2, 3, 0, &f) == LSQ_FEW, "two rows of three");
    CHECK(lsq_solve(x, y, w, 4, 0, 0, &f) == LSQ_FEW, "no columns");
    CHECK(lsq_solve(x, y, w, 4, 13, 0, &f) == LSQ_FEW, "too many columns");
    CHECK(lsq_solve(x, bad, w, 4, 1, 0, &f) == LSQ_RANGE, "NaN in y");
    CHECK(lsq_solve(bad, y, w, 4, 1, 0, &f) == LSQ_RANGE, "NaN in x");
    w[1] = -1;
    CHECK(lsq_solve(x, y, w, 4, 1, 0, &f) == LSQ_RANGE, "a weight below 0");
    CHECK(lsq_solve(x, y, NULL, 2, 2, 0, &f) == LSQ_FEW || isnan(f.error[0]), "no freedom");
}

static void print_fit(const lsq_fit *f)
{
    int i, k;
    for (k = 0; k < f->columns; k++) printf("%.17g %.17g ", f->coefficient[k], f->t[k]);
    for (i = 0; i < f->columns; i++)
        for (k = 0; k < f->columns; k++) printf("%.17g ", f->covariance[i][k]);
    printf("%.17g %.17g %.17g\n", f->rss, f->r2, f->bic);
}

static int print_numbers(void)
{
    test_random r = test_seed(19);
    double x[ROWS * LSQ_COLUMNS], y[ROWS], w[ROWS];
    int columns, known, i, k;
    for (columns = 1; columns <= LSQ_COLUMNS; columns++) {
        draw(&r, x, y, w, columns);
        printf("%d %d\n", ROWS, columns);
        for (i = 0; i < ROWS; i++) {
            for (k = 0; k < columns; k++) printf("%.17g ", x[i * columns + k]);
            printf("%.17g %.17g\n", y[i], w[i]);
        }
        for (known = 0; known < 2; known++) {
            lsq_fit f;
            if (lsq_solve(x, y, w, ROWS, columns, known, &f) != LSQ_OK) return 1;
            print_fit(&f);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--numbers") == 0) return print_numbers();
    test_begin(argc, argv);
    test_normal_equations(test_seed_of(argc, argv, 5));
    test_faults();
    return test_end("scanfit");
}
