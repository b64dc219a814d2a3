/* block.h - the block: cells, walls, deposits, the stack of particles */
#ifndef SIM_BLOCK_H
#define SIM_BLOCK_H

#include "state.h"

static void sim_voxel_add(sim_voxels *v, const sim_vector *at, double e);

static int sim_inside(const sim_worker *w, const sim_vector *p)
{
    return p->x >= w->low[0] && p->x < w->high[0] && p->y >= w->low[1] && p->y < w->high[1]
        && p->z >= w->low[2] && p->z < w->high[2];
}

/* Energy at a point: into its cell, its insensitive gap, or out of the block. */
static void sim_deposit(sim_worker *w, const sim_vector *at, double e)
{
    const sim *s = w->s;
    double z;
    int ix, iy, iz;
    if (!sim_inside(w, at)) {
        w->leaked += e;
        return;
    }
    if (w->voxels) {
        sim_voxel_add(w->voxels, at, e);
        return;
    }
    z = at->z * s->inverse[2];
    ix = (int)(at->x * s->inverse[0]);
    iy = (int)(at->y * s->inverse[1]);
    iz = (int)z;
    /* rounding may put the last point of the block into the cell behind it */
    ix = ix < s->cells[0] ? ix : s->cells[0] - 1;
    iy = iy < s->cells[1] ? iy : s->cells[1] - 1;
    iz = iz < s->cells[2] ? iz : s->cells[2] - 1;
    if (z - iz > s->options.active) {
        w->unseen += e;
        return;
    }
    w->grid[((size_t)iz * (size_t)s->cells[0] + (size_t)ix) * (size_t)s->cells[1] + (size_t)iy]
        += (float)e;
    w->deposited += e;
}

static sim_vector sim_ahead(const sim_vector *p, const sim_vector *d, double length)
{
    sim_vector q;
    q.x = p->x + length * d->x;
    q.y = p->y + length * d->y;
    q.z = p->z + length * d->z;
    return q;
}

/* Distance along d to the next wall of one axis; cell: coordinate in cells. */
static double sim_to_wall(double cell, double d, double inverse)
{
    double i = floor(cell), t;
    if (d > 1e-12) t = (i + 1 - cell) / (d * inverse);
    else if (d < -1e-12) t = (cell - i) / (-d * inverse);
    else return 1e30;
    return t;
}

/* Distance from p along d to the next wall of a cell. */
static double sim_next_wall(const sim_worker *w, const sim_vector *p, const sim_vector *d)
{
    const sim *s = w->s;
    double x = sim_to_wall(p->x * s->inverse[0] + w->shift[0], d->x, s->inverse[0]);
    double y = sim_to_wall(p->y * s->inverse[1] + w->shift[1], d->y, s->inverse[1]);
    double z = sim_to_wall(p->z * s->inverse[2] + w->shift[2], d->z, s->inverse[2]);
    x = x < y ? x : y;
    return x < z ? x : z;
}

/* Distance from p to the nearest wall of its cell. */
static double sim_nearest_wall(const sim_worker *w, const sim_vector *p)
{
    const double at[3] = { p->x, p->y, p->z };
    double least = 1e30, cell, t;
    int i;
    for (i = 0; i < 3; i++) {
        cell = at[i] * w->s->inverse[i] + w->shift[i];
        t = cell - floor(cell);
        t = (t < 0.5 ? t : 1 - t) / w->s->inverse[i];
        least = t < least ? t : least;
    }
    return least;
}

/* Energy spread evenly along a straight line, cell by cell.  The point of each piece is its
   middle; 1 um more than a wall's distance makes sure that the next piece starts behind it. */
static void sim_deposit_line(sim_worker *w, const sim_vector *from, const sim_vector *d,
                             double length, double e)
{
    double done = 0, piece;
    while (done < length) {
        sim_vector p = sim_ahead(from, d, done), middle;
        piece = sim_next_wall(w, &p, d) + 1e-4;
        if (piece > length - done) piece = length - done;
        middle = sim_ahead(&p, d, 0.5 * piece);
        sim_deposit(w, &middle, e * piece / length);
        done += piece;
    }
}

/* Puts a particle on the stack, or its energy on the spot where there is no room (never seen). */
static void sim_push(sim_worker *w, sim_kind kind, double energy, const sim_vector *at,
                     const sim_vector *to)
{
    sim_particle *p;
    if (energy <= 0) return;
    if (w->n == SIM_STACK) {
        sim_deposit(w, at, energy);
        return;
    }
    p = &w->stack[w->n++];
    p->kind = kind;
    p->energy = energy;
    p->at = *at;
    p->to = *to;
    p->most = 0;
}

#endif
