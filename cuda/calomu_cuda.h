/* calomu_cuda.h - the optional CUDA unit of calomu: the network on an NVIDIA GPU

       calomu_options o = { 0 };
       o.device = &calomu_cuda;          // o.device_number: which of several, from 0
       if (calomu_open(&c, &o) != CALOMU_OK) ...

   Training and prediction of that context then run on the GPU, with the same bits as on the
   processor (o.math = CALOMU_MATH_FAST: tensor cores, other bits).  Compile calomu.c with its
   internals, which the unit calls, and cuda/cuda.cu with nvcc 12 or newer:

       cc -O2 -DCALOMU_INTERNALS -c calomu.c
       nvcc -O3 -fmad=false -c cuda/cuda.cu
       c++ program.o calomu.o cuda.o -lcudart -lm  */
#ifndef CALOMU_CUDA_H
#define CALOMU_CUDA_H

#include "../calomu.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const calomu_device calomu_cuda;          /* the fast kernels */
extern const calomu_device calomu_cuda_plain;    /* the plain ones: the same bits */

/* The same kernels on the processor, one thread at a time: emulated.c, for tests. */
extern const calomu_device calomu_emulated, calomu_emulated_plain;
/* The emulated device has so many bytes, and the launch after so many fails; 0: no limit. */
void calomu_emulated_limits(size_t bytes, size_t launches);

#ifdef __cplusplus
}
#endif

#endif
