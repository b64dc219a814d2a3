/* cuda.cu - the kernels of the CUDA unit on an NVIDIA GPU

       nvcc -O3 -fmad=false -c cuda/cuda.cu

   Work goes into one stream, in the order of the calls.  The hits of the next batch go through a
   stream of their own, beside it.  The first failure is kept and all later calls do nothing; a
   kernel's fault may be found by a later call: CUDA_LAUNCH_BLOCKING=1 in the environment finds it
   at once.  The device is made the calling thread's current one by every call. */
#include "memory.h"
#include "table.h"
#include "calomu_cuda.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#if CUDART_VERSION < 12000
#error "CUDA 12 or newer is needed"
#endif

enum { CM_STAGE = 1 << 20 };         /* bytes of one of the two parts of pinned memory */

typedef struct cm_cuda {
    cm_unit unit;
    int number;
    cudaStream_t work, beside;
    cudaStream_t launches;           /* the one of both that kernels go into */
    unsigned char *stage;            /* pinned: values on their way to the device, */
    size_t staged;                   /*   so many bytes in the part in use */
    int part;
    cudaEvent_t sent[2];             /* a part may be written again */
} cm_cuda;

typedef struct cm_cuda_hits {
    cm_resident resident;
    unsigned char *stage;            /* pinned: hits, then starts */
    size_t room;                     /* bytes of it */
    cudaEvent_t ready;               /* copied and indexed */
} cm_cuda_hits;

/* ---------------------------------------------------------------- failures */

static void cm_unit_fail(cm_unit *u, calomu_status s, const char *what, const char *why)
{
    if (u->status != CALOMU_OK) return;
    u->status = s;
    snprintf(u->message, sizeof u->message, "%s: %s", what, why);
}

/* 1: all is well. */
static int cm_cuda_check(cm_unit *u, cudaError_t e, const char *what)
{
    char text[96];
    if (e == cudaSuccess) return 1;
    snprintf(text, sizeof text, "the GPU failed at or before %s", what);
    cm_unit_fail(u, e == cudaErrorMemoryAllocation ? CALOMU_EMEMORY : CALOMU_EDEVICE, text,
                 cudaGetErrorString(e));
    (void)cudaGetLastError();        /* said once */
    return 0;
}

/* At the start of every call; 0: nothing to do after a failure. */
static int cm_cuda_begin(cm_unit *u, const char *what)
{
    cm_cuda *d = (cm_cuda *)u;
    return u->status == CALOMU_OK && cm_cuda_check(u, cudaSetDevice(d->number), what);
}

/* ---------------------------------------------------------------- launches */

static cudaStream_t cm_stream(cm_unit *u) { return ((cm_cuda *)u)->launches; }

static int cm_launch_begin(cm_unit *u, size_t blocks)
{
    if (blocks == 0 || !cm_cuda_begin(u, "a launch")) return 0;
    if (blocks > (size_t)INT_MAX) {
        cm_unit_fail(u, CALOMU_EMEMORY, "too large for the GPU",
                     "a kernel of more than 2147483647 blocks; take a smaller batch");
        return 0;
    }
    (void)cudaGetLastError();        /* what others have left */
    return 1;
}

static void cm_launch_end(cm_unit *u, const char *name)
{
    cudaError_t e = cudaGetLastError();
    char text[64];
    if (e == cudaSuccess) return;
    snprintf(text, sizeof text, "kernel '%s'", strncmp(name, "each_", 5) ? name : name + 5);
    (void)cm_cuda_check(u, e, text);
}

/* ---------------------------------------------------------------- memory */

static void *cm_cuda_allocate(cm_unit *u, size_t bytes)
{
    void *memory = NULL;
    cudaError_t e;
    if (!cm_cuda_begin(u, "an allocation")) return NULL;
    e = cudaMalloc(&memory, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();    /* the caller says it */
        return NULL;
    }
    return cm_cuda_check(u, e, "an allocation") ? memory : NULL;
}

static void cm_cuda_release(cm_unit *u, void *memory)
{
    cm_cuda *d = (cm_cuda *)u;
    if (!memory) return;
    (void)cudaSetDevice(d->number);
    (void)cudaStreamSynchronize(d->beside);
    (void)cudaStreamSynchronize(d->work);
    (void)cm_cuda_check(u, cudaFree(memory), "the release of memory");
}

/* Room for n more bytes of a part, or for some: the part in use, or the other one once it has been
   sent. */
static size_t cm_stage_room(cm_cuda *d, size_t n)
{
    if (d->staged == CM_STAGE) {
        d->part ^= 1;
        d->staged = 0;
        if (!cm_cuda_check(&d->unit, cudaEventSynchronize(d->sent[d->part]), "a copy to it"))
            return 0;
    }
    return n < CM_STAGE - d->staged ? n : CM_STAGE - d->staged;
}

static void cm_cuda_put(cm_unit *u, void *to, const void *from, size_t bytes)
{
    cm_cuda *d = (cm_cuda *)u;
    size_t done, n;
    if (bytes == 0 || !cm_cuda_begin(u, "a copy to it")) return;
    for (done = 0; done < bytes && u->status == CALOMU_OK; done += n) {
        unsigned char *stage;
        if ((n = cm_stage_room(d, bytes - done)) == 0) return;
        stage = d->stage + (size_t)d->part * CM_STAGE + d->staged;
        memcpy(stage, (const unsigned char *)from + done, n);
        d->staged += n;
        (void)cm_cuda_check(u, cudaMemcpyAsync((unsigned char *)to + done, stage, n,
                                               cudaMemcpyHostToDevice, d->work), "a copy to it");
        (void)cm_cuda_check(u, cudaEventRecord(d->sent[d->part], d->work), "a copy to it");
    }
}

static calomu_status cm_cuda_wait(cm_unit *u)
{
    cm_cuda *d = (cm_cuda *)u;
    if (cm_cuda_begin(u, "the end of the work")) {
        (void)cm_cuda_check(u, cudaStreamSynchronize(d->beside), "the end of the copies");
        (void)cm_cuda_check(u, cudaStreamSynchronize(d->work), "the end of the work");
    }
    return u->status;
}

static void cm_cuda_get(cm_unit *u, void *to, const void *from, size_t bytes)
{
    cm_cuda *d = (cm_cuda *)u;
    if (bytes == 0 || !cm_cuda_begin(u, "a copy from it")) return;
    if (cm_cuda_check(u, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, d->work),
                      "a copy from it"))
        (void)cm_cuda_check(u, cudaStreamSynchronize(d->work), "a copy from it");
}

static void cm_cuda_copy(cm_unit *u, void *to, const void *from, size_t bytes)
{
    cm_cuda *d = (cm_cuda *)u;
    if (bytes == 0 || !cm_cuda_begin(u, "a copy within it")) return;
    (void)cm_cuda_check(u, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, d->work),
                        "a copy within it");
}

static void cm_cuda_fill(cm_unit *u, void *at, size_t bytes)
{
    cm_cuda *d = (cm_cuda *)u;
    if (bytes == 0 || !cm_cuda_begin(u, "a fill")) return;
    (void)cm_cuda_check(u, cudaMemsetAsync(at, 0, bytes, d->work), "a fill");
}

/* ---------------------------------------------------------------- hits */

static void cm_cuda_hits_free(cm_unit *u, cm_resident *resident)
{
    cm_cuda_hits *h = (cm_cuda_hits *)resident;
    if (!h) return;
    cm_cuda_release(u, h->resident.hit);
    cm_cuda_release(u, h->resident.start);
    cm_cuda_release(u, h->resident.row);
    if (h->ready) {
        (void)cudaEventSynchronize(h->ready);
        (void)cudaEventDestroy(h->ready);
    }
    if (h->stage) (void)cudaFreeHost(h->stage);
    free(h);
}

static cm_resident *cm_cuda_hits_new(cm_unit *u)
{
    cm_cuda_hits *h = (cm_cuda_hits *)calloc(1, sizeof *h);
    if (!h) return NULL;
    if (cm_cuda_begin(u, "an event")
        && cm_cuda_check(u, cudaEventCreateWithFlags(&h->ready, cudaEventDisableTiming),
                         "an event")) return &h->resident;
    free(h);
    return NULL;
}

/* Room for n elements with some to spare; what was there is lost. */
static void cm_cuda_room(cm_unit *u, void **p, size_t *room, size_t n, size_t size)
{
    if (*room >= n && *p) return;
    cm_cuda_release(u, *p);
    *room = n + n / 4 + 1;
    *p = cm_cuda_allocate(u, *room * size);
    if (*p) return;
    *room = 0;
    cm_unit_fail(u, CALOMU_EMEMORY, "no GPU memory for the hits of a batch",
                 "take a smaller batch");
}

static void cm_cuda_stage(cm_unit *u, cm_cuda_hits *h, size_t bytes)
{
    if (h->room >= bytes || u->status != CALOMU_OK) return;
    if (h->stage) (void)cudaFreeHost(h->stage);
    h->stage = NULL;
    h->room = 0;
    if (cm_cuda_check(u, cudaMallocHost((void **)&h->stage, bytes + bytes / 4),
                      "pinned memory for hits")) h->room = bytes + bytes / 4;
}

static void cm_cuda_send(cm_unit *u, cm_cuda_hits *h, const cm_hits *hits, size_t total)
{
    cm_cuda *d = (cm_cuda *)u;
    cm_resident *r = &h->resident;
    size_t bytes = total * sizeof *r->hit, starts = ((size_t)hits->muons + 1) * sizeof *r->start;
    cm_hits_pack(hits, (calomu_hit *)(void *)h->stage, (uint32_t *)(void *)(h->stage + bytes));
    if (bytes)
        (void)cm_cuda_check(u, cudaMemcpyAsync(r->hit, h->stage, bytes, cudaMemcpyHostToDevice,
                                               d->beside), "a copy of hits");
    (void)cm_cuda_check(u, cudaMemcpyAsync(r->start, h->stage + bytes, starts,
                                           cudaMemcpyHostToDevice, d->beside), "a copy of hits");
    d->launches = d->beside;
    cm_device_index(u, r);
    d->launches = d->work;
    (void)cm_cuda_check(u, cudaEventRecord(h->ready, d->beside), "a copy of hits");
    (void)cm_cuda_check(u, cudaStreamWaitEvent(d->work, h->ready, 0), "a copy of hits");
}

/* No work that reads these hits may be under way. */
static void cm_cuda_hits_put(cm_unit *u, cm_resident *r, const cm_hits *hits)
{
    cm_cuda_hits *h = (cm_cuda_hits *)r;
    size_t total = 0, muons = (size_t)hits->muons, rows;
    void *hit = r->hit, *start = r->start, *row = r->row;
    int v;
    if (!cm_cuda_begin(u, "a copy of hits")) return;
    for (v = 0; v < hits->muons; v++) total += hits->event[v].n_hits;
    rows = ((size_t)hits->nz * (size_t)hits->nx + 1) * muons;
    if (total > (size_t)INT_MAX || rows > (size_t)UINT32_MAX) {
        cm_unit_fail(u, CALOMU_EMEMORY, "too large for the GPU",
                     "a batch of more than 2147483647 hits or 4294967295 rows of cells; take a "
                     "smaller batch");
        return;
    }
    (void)cm_cuda_check(u, cudaEventSynchronize(h->ready), "a copy of hits");
    cm_cuda_room(u, &hit, &r->hit_room, total, sizeof *r->hit);
    r->hit = (calomu_hit *)hit;
    cm_cuda_room(u, &start, &r->start_room, muons + 1, sizeof *r->start);
    r->start = (uint32_t *)start;
    cm_cuda_room(u, &row, &r->row_room, rows, sizeof *r->row);
    r->row = (uint32_t *)row;
    cm_cuda_stage(u, h, total * sizeof *r->hit + (muons + 1) * sizeof *r->start);
    if (u->status != CALOMU_OK) return;
    r->muons = hits->muons;
    r->nz = hits->nz;
    r->nx = hits->nx;
    r->ny = hits->ny;
    cm_cuda_send(u, h, hits, total);
}

/* ---------------------------------------------------------------- opening */

/* Why there is no GPU to use, and what can be done. */
static calomu_status cm_cuda_none(calomu *c, cudaError_t e)
{
    int driver = 0, own = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&own);
    (void)cudaGetLastError();
    if (driver == 0)
        return cm_fail(c, CALOMU_EDEVICE, "no NVIDIA GPU can be used: %s: there is no driver; this "
                       "program needs one for CUDA %d.%d (nvidia-smi shows GPU and driver)",
                       cudaGetErrorString(e), own / 1000, own % 1000 / 10);
    return cm_fail(c, CALOMU_EDEVICE, "no NVIDIA GPU can be used: %s: the driver is for CUDA %d.%d,"
                   " this program for CUDA %d.%d (nvidia-smi shows GPU and driver)",
                   cudaGetErrorString(e), driver / 1000, driver % 1000 / 10, own / 1000,
                   own % 1000 / 10);
}

/* Can GPU `number` run the kernels?  It becomes the current one. */
static calomu_status cm_cuda_look(calomu *c, int number, calomu_math math)
{
    cudaDeviceProp is;
    cudaFuncAttributes code;
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaSuccess && n == 0) e = cudaErrorNoDevice;
    if (e != cudaSuccess) return cm_cuda_none(c, e);
    if (number < 0 || number >= n)
        return cm_fail(c, CALOMU_EDEVICE, n == 1 ? "no GPU %d: there is %d, number 0"
                       : "no GPU %d: there are %d, numbered from 0", number, n);
    e = cudaSetDevice(number);
    if (e == cudaSuccess) e = cudaGetDeviceProperties(&is, number);
    if (e != cudaSuccess) return cm_cuda_none(c, e);
    if (is.major < 7)
        return cm_fail(c, CALOMU_EDEVICE, "GPU %d, %.64s, has compute capability %d.%d; 7.0 or "
                       "higher is needed", number, is.name, is.major, is.minor);
    if (math == CALOMU_MATH_FAST && is.major < 8)
        return cm_fail(c, CALOMU_EDEVICE, "GPU %d, %.64s, has compute capability %d.%d; fast math "
                       "needs 8.0 or higher (TF32): take equal math", number, is.name, is.major,
                       is.minor);
    e = cudaFuncGetAttributes(&code, cm_global_each_halo);
    if (e == cudaSuccess) return CALOMU_OK;
    (void)cudaGetLastError();
    return cm_fail(c, CALOMU_EDEVICE, "no kernels for GPU %d, %.64s, of compute capability %d.%d: "
                   "%s; build for it", number, is.name, is.major, is.minor, cudaGetErrorString(e));
}

static void cm_cuda_close(cm_unit *u)
{
    cm_cuda *d = (cm_cuda *)u;
    int i;
    if (!d) return;
    (void)cudaSetDevice(d->number);
    if (d->beside) (void)cudaStreamSynchronize(d->beside);
    if (d->work) (void)cudaStreamSynchronize(d->work);
    for (i = 0; i < 2; i++)
        if (d->sent[i]) (void)cudaEventDestroy(d->sent[i]);
    if (d->stage) (void)cudaFreeHost(d->stage);
    if (d->beside) (void)cudaStreamDestroy(d->beside);
    if (d->work) (void)cudaStreamDestroy(d->work);
    (void)cudaGetLastError();
    free(d);
}

static void cm_cuda_start(cm_cuda *d)
{
    cm_unit *u = &d->unit;
    int i;
    if (!cm_cuda_check(u, cudaStreamCreateWithFlags(&d->work, cudaStreamNonBlocking), "its start")
        || !cm_cuda_check(u, cudaStreamCreateWithFlags(&d->beside, cudaStreamNonBlocking),
                          "its start")) return;
    for (i = 0; i < 2; i++)
        if (!cm_cuda_check(u, cudaEventCreateWithFlags(&d->sent[i], cudaEventDisableTiming),
                           "its start")) return;
    (void)cm_cuda_check(u, cudaMallocHost((void **)&d->stage, 2 * CM_STAGE), "its start");
    d->launches = d->work;
}

static calomu_status cm_cuda_open(calomu *c, const calomu_device *device, int number,
                                  calomu_math math, cm_unit **unit)
{
    cm_cuda *d;
    calomu_status s;
    *unit = NULL;
    s = cm_cuda_look(c, number, math);
    if (s != CALOMU_OK) return s;
    d = (cm_cuda *)calloc(1, sizeof *d);
    if (!d) return cm_fail(c, CALOMU_EMEMORY, "no memory for a device");
    d->unit.device = device;
    d->unit.math = math;
    d->number = number;
    cm_cuda_start(d);
    s = d->unit.status;
    if (s == CALOMU_OK) {
        *unit = &d->unit;
        return s;
    }
    cm_fail(c, s, "%s", d->unit.message);
    cm_cuda_close(&d->unit);
    return s;
}

/* The best of five runs, of enough threads for any GPU of today. */
static double cm_cuda_peak(cm_unit *u)
{
    enum { ITEMS = 1 << 20 };
    cm_cuda *d = (cm_cuda *)u;
    cm_args_peak a;
    cudaEvent_t at[2] = { NULL, NULL };
    float ms = 0, best = 0;
    int i;
    a.factor = 0.5f;
    a.out = (float *)cm_cuda_allocate(u, ITEMS * sizeof *a.out);
    if (!a.out) return 0;
    for (i = 0; i < 2; i++) (void)cm_cuda_check(u, cudaEventCreate(&at[i]), "an event");
    for (i = 0; i < 5 && u->status == CALOMU_OK; i++) {
        (void)cm_cuda_check(u, cudaEventRecord(at[0], d->work), "an event");
        cm_launch_peak(u, &a, ITEMS);
        (void)cm_cuda_check(u, cudaEventRecord(at[1], d->work), "an event");
        (void)cm_cuda_check(u, cudaEventSynchronize(at[1]), "kernel 'peak'");
        if (u->status == CALOMU_OK
            && cm_cuda_check(u, cudaEventElapsedTime(&ms, at[0], at[1]), "an event")
            && (best <= 0 || ms < best)) best = ms;
    }
    for (i = 0; i < 2; i++)
        if (at[i]) (void)cudaEventDestroy(at[i]);
    cm_cuda_release(u, a.out);
    return best > 0 ? 2.0 * ITEMS * CM_PEAK_SUMS * CM_PEAK_ROUNDS / (1e-3 * best) : 0;
}

#define CM_CUDA(name, plain) { \
    name, plain, CM_DEVICE_OPERATIONS, cm_cuda_open, cm_cuda_close, cm_cuda_allocate, \
    cm_cuda_release, cm_cuda_put, cm_cuda_get, cm_cuda_copy, cm_cuda_fill, cm_cuda_wait, \
    cm_cuda_hits_new, cm_cuda_hits_free, cm_cuda_hits_put, cm_device_loss, cm_device_adam, \
    cm_cuda_peak \
}
extern "C" {
const calomu_device calomu_cuda = CM_CUDA("cuda", 0);
const calomu_device calomu_cuda_plain = CM_CUDA("cuda, plain", 1);
}
