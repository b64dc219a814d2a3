/* peak.h - how many products a device can add in a second, eight sums in registers a thread: for
   the shares of the peak in calomu bench --profile */
#ifndef CM_PEAK_H
#define CM_PEAK_H
#include "launch.h"

enum { CM_PEAK_SUMS = 8, CM_PEAK_ROUNDS = 4096 };

typedef struct cm_args_peak {
    float *out;                      /* one value for each thread */
    float factor;
} cm_args_peak;

CM_EACH(peak)
{
    float sum[CM_PEAK_SUMS];
    int r, k;
    for (k = 0; k < CM_PEAK_SUMS; k++) sum[k] = (float)(i % 64 + (uint32_t)k);
    for (r = 0; r < CM_PEAK_ROUNDS; r++)
        for (k = 0; k < CM_PEAK_SUMS; k++) sum[k] = cm_fmaf(sum[k], a->factor, 1.0f);
    for (k = 1; k < CM_PEAK_SUMS; k++) sum[0] += sum[k];
    a->out[i] = sum[0];
}

#endif
