/* emulated.c - the kernels of the CUDA unit on the processor: every block, phase and thread in
   turn.  Launches wait until something waits for them, as on a GPU; only hits that are put do not,
   so that those of the wrong batch show.  For tests: it shows that the kernels compute what
   calomu.c does, whatever the GPU.  Its memory is its own, so that an address of the wrong side is
   found by the address sanitizer or shows in the results. */
#define CM_SCRATCH (1 << 14)         /* so that tests see several parts */
#include "memory.h"
#include "table.h"
#include "calomu_cuda.h"
#include <limits.h>
#include <stdlib.h>

static size_t cm_limit_bytes, cm_limit_launches;         /* calomu_emulated_limits; 0: none */

void calomu_emulated_limits(size_t bytes, size_t launches)
{
    cm_limit_bytes = bytes;
    cm_limit_launches = launches;
}

typedef struct cm_launch {
    cm_call *call;
    void *a;                         /* a copy of its arguments */
    size_t blocks, bytes;
    int phases, backwards;
} cm_launch;

typedef struct cm_emulated {
    cm_unit unit;
    size_t used, launches;           /* bytes, so far */
    cm_launch *queue;
    size_t n, room;
} cm_emulated;

static void cm_unit_fail(cm_unit *u, calomu_status s, const char *text)
{
    if (u->status != CALOMU_OK) return;
    u->status = s;
    strncpy(u->message, text, sizeof u->message - 1);
}

static void cm_run(const cm_launch *l)
{
    ptrdiff_t b;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) if (l->blocks > 100)
#endif
    for (b = 0; b < (ptrdiff_t)l->blocks; b++) {
        void *shared = l->bytes ? malloc(l->bytes) : NULL;       /* sanitizers see an overrun */
        cm_at at;
        at.block = (uint32_t)b;
        if (shared) memset(shared, 0xa5, l->bytes);
        for (at.phase = 0; at.phase < l->phases; at.phase++) {
            int i;
            for (i = 0; i < CM_THREADS; i++) {
                at.thread = l->backwards ? CM_THREADS - 1 - i : i;
                l->call(l->a, at, shared);
            }
        }
        free(shared);
    }
}

/* Runs what waits from launch `first` on, or forgets it after a failure. */
static void cm_finish(cm_unit *u, size_t first)
{
    cm_emulated *e = (cm_emulated *)u;
    size_t i;
    for (i = first; i < e->n; i++) {
        if (u->status == CALOMU_OK) cm_run(&e->queue[i]);
        free(e->queue[i].a);
    }
    e->n = first;
}

/* Every other launch runs its threads backwards: no order may matter. */
static void cm_emulate(cm_unit *u, cm_call *call, const void *a, size_t size, size_t blocks,
                       int phases, size_t bytes)
{
    cm_emulated *e = (cm_emulated *)u;
    cm_launch *l;
    if (u->status != CALOMU_OK) return;
    e->launches++;
    if (blocks > (size_t)INT_MAX)
        cm_unit_fail(u, CALOMU_EMEMORY, "the emulated device: too many blocks for one launch");
    if (cm_limit_launches && e->launches > cm_limit_launches)
        cm_unit_fail(u, CALOMU_EDEVICE, "the emulated device: a kernel failed, as asked for");
    if (e->n == e->room) {
        l = realloc(e->queue, (2 * e->room + 256) * sizeof *l);
        if (l) e->queue = l;
        if (l) e->room = 2 * e->room + 256;
    }
    l = e->n < e->room ? &e->queue[e->n] : NULL;
    if (l) l->a = malloc(size);
    if (!l || !l->a) cm_unit_fail(u, CALOMU_EMEMORY, "the emulated device: no memory to queue");
    if (!l || !l->a) return;
    memcpy(l->a, a, size);
    l->call = call;
    l->blocks = blocks;
    l->bytes = bytes;
    l->phases = phases;
    l->backwards = e->launches % 2 == 0;
    e->n++;
}

static void *cm_emulated_allocate(cm_unit *u, size_t bytes)
{
    cm_emulated *e = (cm_emulated *)u;
    unsigned char *at;
    void *p;
    if (u->status != CALOMU_OK) return NULL;
    if (cm_limit_bytes && bytes > cm_limit_bytes - (e->used < cm_limit_bytes ? e->used
                                                                             : cm_limit_bytes))
        return NULL;
    p = malloc(bytes + 512);
    if (!p) return NULL;
    memset(p, 0xa5, bytes + 512);    /* device memory is not zeroed either */
    at = (unsigned char *)p + 512 - (uintptr_t)p % 256;
    ((size_t *)(void *)at)[-1] = bytes;
    ((void **)(void *)at)[-2] = p;
    e->used += bytes;
    return at;
}

static void cm_emulated_release(cm_unit *u, void *memory)
{
    cm_emulated *e = (cm_emulated *)u;
    if (!memory) return;
    cm_finish(u, 0);
    e->used -= ((size_t *)memory)[-1];
    free(((void **)memory)[-2]);
}

static void cm_emulated_copy(cm_unit *u, void *to, const void *from, size_t bytes)
{
    cm_finish(u, 0);
    if (u->status == CALOMU_OK && bytes > 0) memcpy(to, from, bytes);
}

static void cm_emulated_fill(cm_unit *u, void *at, size_t bytes)
{
    cm_finish(u, 0);
    if (u->status == CALOMU_OK) memset(at, 0, bytes);
}

static calomu_status cm_emulated_wait(cm_unit *u)
{
    cm_finish(u, 0);
    return u->status;
}

static calomu_status cm_emulated_open(calomu *c, const calomu_device *device, int number,
                                      calomu_math math, cm_unit **unit)
{
    cm_emulated *e;
    *unit = NULL;
    if (number > 0)
        return cm_fail(c, CALOMU_EDEVICE, "no device %d: there is 1, number 0", number);
    e = calloc(1, sizeof *e);
    if (!e) return cm_fail(c, CALOMU_EMEMORY, "no memory for a device");
    e->unit.device = device;
    e->unit.math = math;
    *unit = &e->unit;
    return CALOMU_OK;
}

static void cm_emulated_close(cm_unit *u)
{
    cm_emulated *e = (cm_emulated *)u;
    if (!u) return;
    cm_finish(u, 0);
    free(e->queue);
    free(e);
}

static cm_resident *cm_emulated_hits_new(cm_unit *u)
{
    (void)u;
    return calloc(1, sizeof(cm_resident));
}

static void cm_emulated_hits_free(cm_unit *u, cm_resident *h)
{
    if (!h) return;
    cm_emulated_release(u, h->hit);
    cm_emulated_release(u, h->start);
    cm_emulated_release(u, h->row);
    free(h);
}

/* Room for n elements; what was there is lost. */
static int cm_emulated_room(cm_unit *u, void **p, size_t *room, size_t n, size_t size)
{
    if (*room >= n && *p) return 1;
    cm_emulated_release(u, *p);
    *p = cm_emulated_allocate(u, (n + 1) * size);
    *room = *p ? n : 0;
    if (!*p) cm_unit_fail(u, CALOMU_EMEMORY, "no device memory for the hits of a batch");
    return *p != NULL;
}

static void cm_emulated_hits_put(cm_unit *u, cm_resident *h, const cm_hits *hits)
{
    size_t total = 0, rows = (size_t)(hits->nz * hits->nx) + 1;
    void *hit = h->hit, *start = h->start, *row = h->row;
    size_t waiting;
    int v;
    for (v = 0; v < hits->muons; v++) total += hits->event[v].n_hits;
    if (total > UINT32_MAX || rows * (size_t)hits->muons > UINT32_MAX - CM_THREADS) {
        cm_unit_fail(u, CALOMU_EMEMORY, "too many hits or rows of cells for one batch: 2^32");
        return;
    }
    cm_emulated_room(u, &hit, &h->hit_room, total, sizeof *h->hit);
    h->hit = hit;
    cm_emulated_room(u, &start, &h->start_room, (size_t)hits->muons + 1, sizeof *h->start);
    h->start = start;
    cm_emulated_room(u, &row, &h->row_room, rows * (size_t)hits->muons, sizeof *h->row);
    h->row = row;
    if (u->status != CALOMU_OK) return;
    h->muons = hits->muons;
    h->nz = hits->nz;
    h->nx = hits->nx;
    h->ny = hits->ny;
    cm_hits_pack(hits, h->hit, h->start);
    waiting = ((cm_emulated *)u)->n;
    cm_device_index(u, h);
    cm_finish(u, waiting);           /* beside what waits */
}

static double cm_emulated_peak(cm_unit *u)
{
    (void)u;
    return 0;
}

#define CM_EMULATED(name, plain) { \
    name, plain, CM_DEVICE_OPERATIONS, cm_emulated_open, cm_emulated_close, cm_emulated_allocate, \
    cm_emulated_release, cm_emulated_copy, cm_emulated_copy, cm_emulated_copy, cm_emulated_fill, \
    cm_emulated_wait, cm_emulated_hits_new, cm_emulated_hits_free, cm_emulated_hits_put, \
    cm_device_loss, cm_device_adam, cm_emulated_peak \
}
const calomu_device calomu_emulated = CM_EMULATED("emulated", 0);
const calomu_device calomu_emulated_plain = CM_EMULATED("emulated, plain", 1);
