/* training.h - the loss of a batch and Adam (sections 6 and 7 of calomu.c), in double */
#ifndef CM_TRAINING_H
#define CM_TRAINING_H
#include "launch.h"

typedef struct cm_args_loss {
    cm_view y, dy;
    const double *truth;
    double *thresholds;
    double *e, *f, *bin;             /* of every muon: squared error, then its part of the sum; */
    double *loss;                    /*   weight per GeV; bin of the true energy or -1, then sums */
    int *finite;                     /*   of groups */
    int n, bins;
    double low, step, quantile, centre, width_low, width_high;
} cm_args_loss;

CM_DEVICE float *cm_loss_lane(const cm_view *v, uint32_t i)
{
    return v->at + v->group * (size_t)(i / CM_LANES) + i % CM_LANES;
}

CM_DEVICE double cm_loss_difference(const cm_args_loss *a, uint32_t i)
{
    return (double)*cm_loss_lane(&a->y, i) - a->truth[i];
}

CM_DEVICE int cm_loss_bin_of(const cm_args_loss *a, double truth)
{
    int j;
    for (j = 0; j < a->bins; j++)
        if (truth >= cm_fmad((double)j, a->step, a->low)
            && truth < cm_fmad((double)(j + 1), a->step, a->low)) return j;
    return -1;
}

CM_EACH(loss)
{
    double truth = a->truth[i], d = cm_loss_difference(a, i);
    double width = truth > a->centre ? a->width_high : a->width_low;
    double weight = 1 / (1 + cm_exp_double_of((truth - a->centre) / width));
    a->e[i] = d * d;
    a->f[i] = weight / truth;
    a->bin[i] = (double)cm_loss_bin_of(a, truth);
}

/* Pattern of |x|: those of non-negative doubles are in the order of the values, NaN behind. */
CM_DEVICE uint64_t cm_loss_order(double x)
{
    union { double f; uint64_t u; } value;
    value.f = x;
    return value.u & UINT64_C(0x7fffffffffffffff);
}

/* The muon whose squared error has rank k of its bin, of m muons, updates the threshold. */
typedef struct cm_args_loss cm_args_loss_threshold;
CM_EACH(loss_threshold)
{
    double bin = a->bin[i], e = a->e[i];
    uint64_t own = cm_loss_order(e);
    int j = (int)bin, rank = 0, m = 0, k;
    if (j < 0) return;
    for (k = 0; k < a->n; k++) {
        uint64_t other = cm_loss_order(a->e[k]);
        if (a->bin[k] != bin) continue;
        m++;
        rank += other < own || (other == own && (uint32_t)k < i);
    }
    if (rank == (int)rint(a->quantile * (m - 1)))
        a->thresholds[j] = a->thresholds[j] < 0
            ? e : cm_fmad(0.1, e - a->thresholds[j], a->thresholds[j]);
}

/* Eq. (2) and the gradient. */
typedef struct cm_args_loss cm_args_loss_gradient;
CM_EACH(loss_gradient)
{
    double d = cm_loss_difference(a, i), loss = d * d, slope = 2 * d;
    int j = (int)a->bin[i];
    if (j >= 0 && a->thresholds[j] >= 0 && loss > a->thresholds[j]) {
        double root = sqrt(a->thresholds[j]);
        loss = cm_fmad(2 * root, fabs(d) - root, a->thresholds[j]);
        slope = d > 0 ? 2 * root : -2 * root;
    }
    a->e[i] = a->f[i] * loss;
    *cm_loss_lane(&a->dy, i) = (float)(a->f[i] * slope / a->n);
}

/* One block.  A prediction that is not finite makes a loss that is not. */
typedef struct cm_args_loss cm_args_loss_sum;
CM_KERNEL(loss_sum, 2, 0)
{
    int groups = (a->n + CM_LANES - 1) / CM_LANES, k, l;
    (void)shared;
    for (k = at.thread; at.phase == 0 && k < groups; k += CM_THREADS) {
        double s[CM_LANES];
        for (l = 0; l < CM_LANES; l++)
            s[l] = k * CM_LANES + l < a->n ? a->e[k * CM_LANES + l] : 0;
        a->bin[k] = cm_lanes_sum(s);
    }
    if (at.phase == 0 || at.thread > 0) return;
    *a->loss = cm_tree_sum(a->bin, 1, groups) / a->n;
    *a->finite = cm_finite(*a->loss);
}

static void cm_device_loss(cm_unit *u, const cm_loss_job *job)
{
    const calomu_train_options *o = job->options;
    size_t n = (size_t)job->y->muons;
    cm_args_loss a;
    a.y = cm_view_of(job->y, job->y->x);
    a.dy = cm_view_of(job->y, job->y->dx);
    a.truth = job->truth;
    a.thresholds = job->thresholds;
    a.e = job->work;
    a.f = a.e + n;
    a.bin = a.f + n;
    a.loss = job->loss;
    a.finite = job->finite;
    a.n = (int)n;
    a.bins = o->bins;
    a.low = o->bin_low;
    a.step = (o->bin_high - o->bin_low) / o->bins;
    a.quantile = o->quantile;
    a.centre = o->weight_centre;
    a.width_low = o->weight_low;
    a.width_high = o->weight_high;
    cm_launch_loss(u, &a, n);
    cm_launch_loss_threshold(u, &a, n);
    cm_launch_loss_gradient(u, &a, n);
    cm_launch_loss_sum(u, &a, 1);
}

typedef struct cm_args_adam {
    float *w, *m, *v;
    const float *dw;
    const int *finite;
    int *gradient_finite;
    double rate, root, beta1;
} cm_args_adam;

typedef cm_args_adam cm_args_adam_begin, cm_args_adam_check;

CM_EACH(adam_begin)
{
    *a->gradient_finite = *a->finite != 0 && i == 0;
}

CM_EACH(adam_check)                              /* whoever stores stores the same */
{
    if (!cm_finite((double)a->dw[i])) *a->gradient_finite = 0;
}

CM_EACH(adam)
{
    const double beta2 = 0.999, eps = 1e-8;
    double d = (double)a->dw[i], m, v;
    if (!*a->gradient_finite) return;
    a->m[i] = (float)cm_fmad(a->beta1, (double)a->m[i], (1 - a->beta1) * d);
    a->v[i] = (float)cm_fmad(beta2, (double)a->v[i], (1 - beta2) * d * d);
    m = (double)a->m[i];
    v = (double)a->v[i];
    a->w[i] = (float)((double)a->w[i] - a->rate * m / (sqrt(v) / a->root + eps));
}

static void cm_device_adam(cm_unit *u, const cm_adam_job *job)
{
    cm_args_adam a;
    a.w = job->w;
    a.m = job->m;
    a.v = job->v;
    a.dw = job->dw;
    a.finite = job->finite;
    a.gradient_finite = job->gradient_finite;
    a.rate = job->rate;
    a.root = job->root;
    a.beta1 = job->beta1;
    cm_launch_adam_begin(u, &a, 1);
    cm_launch_adam_check(u, &a, job->n);
    cm_launch_adam(u, &a, job->n);
}

#endif
