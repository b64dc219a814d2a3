/* memory.h - zeros, and the hits of a batch in the memory of a device */
#ifndef CM_MEMORY_H
#define CM_MEMORY_H
#include "launch.h"

static void cm_device_zero(cm_graph *g, void *at, size_t bytes)
{
    if (!cm_dry(g) && at) g->unit->device->fill(g->unit, at, bytes);
}

/* Zeros in the halo of a tensor: a thread has one column of one row with its halo. */
typedef struct cm_args_halo {
    cm_view t;
    int lo, hi;
} cm_args_halo;

CM_EACH(halo)
{
    cm_view whole = a->t;            /* all sites are interior */
    cm_column o;
    int inside, s;
    float *t;
    whole.nz += a->lo + a->hi;
    whole.nx += a->lo + a->hi;
    o = cm_column_of(&whole, i);
    o.z -= a->lo;
    o.x -= a->lo;
    inside = o.z >= 0 && o.z < a->t.nz && o.x >= 0 && o.x < a->t.nx;
    t = cm_row_at(&a->t, o.k, o.z, o.x) + o.j;
    for (s = -a->lo; s < a->t.ny + a->hi; s++)
        if (!inside || s < 0 || s >= a->t.ny) t[(ptrdiff_t)s * a->t.site] = 0;
}

static void cm_device_zero_halo(cm_graph *g, const cm_tensor *t, float *x)
{
    cm_args_halo a;
    int halo = t->lo + t->hi;
    if (cm_dry(g) || !x || halo == 0) return;
    a.t = cm_view_of(t, x);
    a.lo = t->lo;
    a.hi = t->hi;
    cm_launch_halo(g->unit, &a, (size_t)t->groups * (size_t)((t->nz + halo) * (t->nx + halo))
                                    * (size_t)a.t.site);
}

/* Hits of a batch: those of muon v are hit[start[v]] to hit[start[v + 1] - 1], in rising cells;
   row[v*(rows + 1) + r] is the first one in row r of cells (iz*nx + ix) or behind, so that a row's
   hits end where the next one's begin. */
struct cm_resident {
    calomu_hit *hit;
    uint32_t *start, *row;
    size_t hit_room, start_room, row_room;       /* elements */
    int muons, nz, nx, ny;
};

/* The hits of a batch one behind the other, and the starts. */
static void cm_hits_pack(const cm_hits *hits, calomu_hit *hit, uint32_t *start)
{
    size_t total = 0;
    int v;
    for (v = 0; v < hits->muons; v++) {
        const calomu_event *e = &hits->event[v];
        start[v] = (uint32_t)total;
        if (e->n_hits) memcpy(hit + total, e->hits, e->n_hits * sizeof *hit);
        total += e->n_hits;
    }
    start[v] = (uint32_t)total;
}

typedef struct cm_args_rows {
    const calomu_hit *hit;
    const uint32_t *start;
    uint32_t *row, rows, ny;
} cm_args_rows;

CM_EACH(rows)                                    /* an item is a muon and a row */
{
    uint32_t v = i / (a->rows + 1), cell = (i - v * (a->rows + 1)) * a->ny;
    uint32_t lo = a->start[v], hi = a->start[v + 1];
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (a->hit[mid].cell < cell) lo = mid + 1;
        else hi = mid;
    }
    a->row[i] = lo;
}

static void cm_device_index(cm_unit *u, cm_resident *h)
{
    cm_args_rows a;
    a.hit = h->hit;
    a.start = h->start;
    a.row = h->row;
    a.rows = (uint32_t)(h->nz * h->nx);
    a.ny = (uint32_t)h->ny;
    cm_launch_rows(u, &a, (size_t)h->muons * (a.rows + 1));
}

#endif
