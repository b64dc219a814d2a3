/* library.h - the shower library

   Engine L: frozen showers, as E. Barberio et al., J. Phys. Conf. Ser. 160 (2009) 012082, but made
   at the start and turned at random.  */
#ifndef SIM_LIBRARY_H
#define SIM_LIBRARY_H

#include "electron.h"

enum { SIM_HASH = 1 << 15 };

/* Deposits are merged over voxels: 0.2 x 0.2 x 0.3 mm below 10 MeV (coarser ones lose 6% of the
   hits of delta rays), 0.4 x 0.4 x 1.5 mm below 100 MeV, 1 x 1 x 5 mm above; farther than 1 cm from
   the axis, where a cell often holds one deposit only, never over more than 0.3 x 0.3 x 1 mm. */
static void sim_voxels_scale(sim_voxels *v, double energy)
{
    v->across[1] = energy <= 10 ? 50 : energy <= 100 ? 25 : 10;
    v->along[1] = energy <= 10 ? 33 : energy <= 100 ? 7 : 2;
    v->across[0] = energy <= 10 ? 50 : 33;
    v->along[0] = energy <= 10 ? 33 : 10;
}

static uint64_t sim_voxel_key(const sim_voxels *v, const sim_vector *p)
{
    int core = fabs(p->x) < 1 && fabs(p->y) < 1;
    double across = v->across[core], along = v->along[core];
    uint64_t x = (uint64_t)((p->x + 100) * across), y = (uint64_t)((p->y + 100) * across);
    uint64_t z = (uint64_t)((p->z + 100) * along);
    return (uint64_t)core << 63 | z << 36 | x << 18 | y;
}

/* Adds to the voxel's sum.  The order of voxels is that of their first deposit. */
static void sim_voxel_add(sim_voxels *v, const sim_vector *at, double e)
{
    uint64_t key = sim_voxel_key(v, at);
    uint32_t i = (uint32_t)(key * 0x9E3779B97F4A7C15u >> 49);
    struct sim_voxel *p;
    while (v->slot[i] >= 0 && v->spot[v->slot[i]].key != key) i = (i + 1) % SIM_HASH;
    if (v->slot[i] < 0) {
        if (v->n == v->size) return;             /* half of SIM_HASH; never reached at 1 GeV */
        v->slot[i] = v->n;
        p = &v->spot[v->n++];
        p->key = key;
        p->slot = i;
        p->e = p->x = p->y = p->z = 0;
    }
    p = &v->spot[v->slot[i]];
    p->e += e;
    p->x += e * at->x;
    p->y += e * at->y;
    p->z += e * at->z;
}

static void sim_voxels_clear(sim_voxels *v)
{
    int i;
    if (v->n > SIM_HASH / 64) {
        for (i = 0; i < SIM_HASH; i++) v->slot[i] = -1;
    } else {
        for (i = 0; i < v->n; i++) v->slot[v->spot[i].slot] = -1;
    }
    v->n = 0;
}

/* Showers in a bin: many below 100 MeV, where they cost little and differ most.  With 100 in every
   bin the mean square width of TeV muons was 5% off. */
static int sim_library_count(int bin)
{
    return bin <= 2 * SIM_LIB_DECADE ? SIM_LIB_SHOWERS : bin <= 3 * SIM_LIB_DECADE ? 500 : 160;
}

static double sim_library_energy(int bin)
{
    return SIM_LIB_LOW * sim_power(10, (double)bin / SIM_LIB_DECADE);
}

static float sim_share(uint16_t e)
{
    uint32_t u = (uint32_t)e << 16;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* To nearest of the floats whose lower half is zero. */
static uint16_t sim_pack_share(double e)
{
    float x = (float)e;
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return (uint16_t)((u + 0x8000u) >> 16);
}

static int16_t sim_pack(double x, double scale)
{
    return (int16_t)floor(x / scale + 0.5);
}

static double sim_farthest(const sim_voxels *v)
{
    double most = 1e-3;
    int i;
    for (i = 0; i < v->n; i++) {
        const struct sim_voxel *p = &v->spot[i];
        most = fabs(p->x) > most * p->e ? fabs(p->x) / p->e : most;
        most = fabs(p->y) > most * p->e ? fabs(p->y) / p->e : most;
        most = fabs(p->z) > most * p->e ? fabs(p->z) / p->e : most;
    }
    return most;
}

/* The voxels as spots: mean positions and shares of the energy.  What the rounding of the shares
   leaves goes back onto them, so that energy is kept to 1e-4 of a shower. */
static calomu_status sim_library_store(sim *s, const sim_voxels *v, double energy,
                                       sim_shower_spots *out)
{
    size_t n = ((size_t)v->n + SIM_BLOCK - 1) / SIM_BLOCK, i;
    double scale = sim_farthest(v) / 32766, sum = 0, packed = 0;
    out->memory = sim_allocate(s, n * sizeof(sim_block) + 64);
    if (!out->memory) return CALOMU_EMEMORY;
    memset(out->memory, 0, n * sizeof(sim_block) + 64);
    out->block = (sim_block *)(void *)((char *)out->memory
                                       + (64 - (uintptr_t)out->memory % 64) % 64);
    for (i = 0; i < (size_t)v->n; i++) {
        sum += v->spot[i].e;
        packed += (double)sim_share(sim_pack_share(v->spot[i].e / energy));
    }
    for (i = 0; i < (size_t)v->n; i++) {
        const struct sim_voxel *p = &v->spot[i];
        sim_block *b = &out->block[i / SIM_BLOCK];
        b->x[i % SIM_BLOCK] = sim_pack(p->x / p->e, scale);
        b->y[i % SIM_BLOCK] = sim_pack(p->y / p->e, scale);
        b->z[i % SIM_BLOCK] = sim_pack(p->z / p->e, scale);
        b->e[i % SIM_BLOCK] = sim_pack_share(p->e / energy * (sum / energy / packed));
    }
    out->n = (int)n;
    out->scale = (float)scale;
    return CALOMU_OK;
}

/* Shower i of a bin: its own random stream, so that the library is the same for every seed of
   events and any number of threads.  i even: electron, odd: positron. */
static calomu_status sim_library_shower(sim *s, sim_worker *w, int kind, int bin, int i)
{
    sim_vector at = { 0, 0, 0 }, to = { 0, 0, 1 };
    sim_kind what = kind == 0 ? SIM_PHOTON : i % 2 ? SIM_POSITRON : SIM_ELECTRON;
    double energy = sim_library_energy(bin), rest = what == SIM_POSITRON ? 2 * SIM_ME : 0;
    uint64_t number = ((uint64_t)kind * SIM_LIB_BINS + (uint64_t)bin) * SIM_LIB_SHOWERS
                    + (uint64_t)i;
    int k;
    sim_voxels_clear(w->voxels);
    sim_voxels_scale(w->voxels, energy);
    sim_seed(&w->random, 0x6C69627261727900u + SIM_VERSION, SIM_STREAM_TRANSPORT, number);
    for (k = 0; k < 3; k++) w->shift[k] = sim_uniform(&w->random);   /* somewhere in a cell */
    sim_cascade(w, what, energy, &at, &to);
    return sim_library_store(s, w->voxels, energy + rest, &s->library[kind][bin][i]);
}

static void sim_voxels_free(const sim *s, sim_voxels *v)
{
    if (!v) return;
    sim_release(s, v->spot);
    sim_release(s, v->slot);
    sim_release(s, v);
}

static sim_voxels *sim_voxels_new(const sim *s)
{
    sim_voxels *v = sim_allocate(s, sizeof *v);
    if (!v) return NULL;
    v->n = SIM_HASH;                 /* all slots must be cleared at first */
    v->size = SIM_HASH / 2;
    v->spot = sim_allocate(s, (size_t)v->size * sizeof *v->spot);
    v->slot = sim_allocate(s, SIM_HASH * sizeof *v->slot);
    if (v->spot && v->slot) return v;
    sim_voxels_free(s, v);
    return NULL;
}

/* A worker for the library: 28 x 28 cm across, 14 cm backwards (without the backward half space
   hits drop by 1.6%), no end forwards. */
static sim_worker *sim_library_worker(const sim *s)
{
    sim_worker *w = sim_allocate(s, sizeof *w);
    int i;
    if (!w) return NULL;
    memset(w, 0, sizeof *w);
    w->s = s;
    for (i = 0; i < 3; i++) {
        w->low[i] = -14;
        w->high[i] = i < 2 ? 14 : 90;
    }
    w->voxels = sim_voxels_new(s);
    if (w->voxels) return w;
    sim_release(s, w);
    return NULL;
}

/* Makes the showers of bins first..last; particles below `top` come from the bins before. */
static calomu_status sim_library_stage(sim *s, int first, int last, double top)
{
    int failed = 0, n = 2 * (last - first + 1);
#ifdef _OPENMP
#pragma omp parallel num_threads(s->memory.threads) reduction(| : failed)
#endif
    {
        calomu_modes host;
        int modes = calomu_modes_set(&host), k, i;
        sim_worker *w = sim_library_worker(s);
        failed |= !w || !modes;
        if (w) w->library_top = top;
#ifdef _OPENMP
#pragma omp for schedule(dynamic, 1)
#endif
        for (k = 0; k < n; k++)      /* the long ones first */
            for (i = 0; i < sim_library_count(last - k / 2) && w && !failed; i++)
                failed |= sim_library_shower(s, w, k % 2, last - k / 2, i) != CALOMU_OK;
        if (w) sim_voxels_free(s, w->voxels);
        sim_release(s, w);
        calomu_modes_restore(&host);
    }
    return failed ? CALOMU_EMEMORY : CALOMU_OK;
}

/* Three stages: following every electron down to 0.1 MeV is what takes the time, so showers above
   10 and 100 MeV are made with those below. */
static calomu_status sim_library_make(sim *s)
{
    calomu_status status = sim_library_stage(s, 0, 2 * SIM_LIB_DECADE, 0);
    if (status != CALOMU_OK) return status;
    status = sim_library_stage(s, 2 * SIM_LIB_DECADE + 1, 3 * SIM_LIB_DECADE, 10);
    if (status != CALOMU_OK) return status;
    return sim_library_stage(s, 3 * SIM_LIB_DECADE + 1, SIM_LIB_BINS - 1, 100);
}

/* Affine map from a shower's units to cells: c = o + m p; the frame is turned at random about its
   axis and mirrored half of the time. */
static void sim_library_frame(sim_worker *w, const sim_particle *p, double unit, float m[3][3],
                              float o[3])
{
    const sim *s = w->s;
    sim_vector a = p->to, b;
    double phi = sim_uniform(&w->random), sign = sim_uniform(&w->random) < 0.5 ? -1 : 1, scale;
    sim_deflect(&a, 0, 1, phi);                  /* perpendicular to p->to */
    b.x = sign * (p->to.y * a.z - p->to.z * a.y);
    b.y = sign * (p->to.z * a.x - p->to.x * a.z);
    b.z = sign * (p->to.x * a.y - p->to.y * a.x);
    scale = unit * s->inverse[0];
    m[0][0] = (float)(a.x * scale), m[0][1] = (float)(b.x * scale);
    m[0][2] = (float)(p->to.x * scale), o[0] = (float)(p->at.x * s->inverse[0]);
    scale = unit * s->inverse[1];
    m[1][0] = (float)(a.y * scale), m[1][1] = (float)(b.y * scale);
    m[1][2] = (float)(p->to.y * scale), o[1] = (float)(p->at.y * s->inverse[1]);
    scale = unit * s->inverse[2];
    m[2][0] = (float)(a.z * scale), m[2][1] = (float)(b.z * scale);
    m[2][2] = (float)(p->to.z * scale), o[2] = (float)(p->at.z * s->inverse[2]);
}

/* Adds a library shower to the cells.  Spots are mapped in blocks, in a loop without branches that
   compilers make vectors of.  Cells count from 1 here, so that rounding towards zero takes what
   lies below the block to 0. */
static void sim_library_put(sim_worker *w, const sim_shower_spots *l, double energy,
                            float m[3][3], const float o[3])
{
    const sim *s = w->s;
    const unsigned nx = (unsigned)s->cells[0], ny = (unsigned)s->cells[1];
    const unsigned nz = (unsigned)s->cells[2];
    const float scale = (float)energy, active = (float)s->options.active;
    const float ox = o[0] + 1, oy = o[1] + 1, oz = o[2] + 1;
    float inside = 0, gap = 0, depth[SIM_BLOCK];
    int x[SIM_BLOCK], y[SIM_BLOCK], z[SIM_BLOCK], k, j;
    for (k = 0; k < l->n; k++) {
        const sim_block *b = &l->block[k];
        for (j = 0; j < SIM_BLOCK; j++) {
            float bx = (float)b->x[j], by = (float)b->y[j], bz = (float)b->z[j];
            x[j] = (int)(ox + m[0][0] * bx + m[0][1] * by + m[0][2] * bz);
            y[j] = (int)(oy + m[1][0] * bx + m[1][1] * by + m[1][2] * bz);
            depth[j] = oz + m[2][0] * bx + m[2][1] * by + m[2][2] * bz;
            z[j] = (int)depth[j];
        }
        for (j = 0; j < SIM_BLOCK; j++) {
            float add = scale * sim_share(b->e[j]);
            unsigned ix = (unsigned)x[j] - 1, iy = (unsigned)y[j] - 1, iz = (unsigned)z[j] - 1;
            if ((ix >= nx) | (iy >= ny) | (iz >= nz)) continue;
            if (depth[j] - (float)z[j] > active) {
                gap += add;
                continue;
            }
            inside += add;
            w->grid[(iz * nx + ix) * ny + iy] += add;
        }
    }
    w->deposited += (double)inside;
    w->unseen += (double)gap;
    w->leaked += energy - (double)inside - (double)gap;
}

/* The same into the voxels of another shower. */
static void sim_library_nest(sim_worker *w, const sim_shower_spots *l, double energy,
                             const sim_particle *p)
{
    sim_vector a = p->to, b, at;
    double scale = (double)l->scale;
    int k;
    sim_deflect(&a, 0, 1, sim_uniform(&w->random));
    b.x = p->to.y * a.z - p->to.z * a.y;
    b.y = p->to.z * a.x - p->to.x * a.z;
    b.z = p->to.x * a.y - p->to.y * a.x;
    for (k = 0; k < l->n * SIM_BLOCK; k++) {
        const sim_block *q = &l->block[k / SIM_BLOCK];
        int j = k % SIM_BLOCK;
        if (q->e[j] == 0) continue;
        at = sim_ahead(&p->at, &a, scale * q->x[j]);
        at = sim_ahead(&at, &b, scale * q->y[j]);
        at = sim_ahead(&at, &p->to, scale * q->z[j]);
        sim_deposit(w, &at, energy * (double)sim_share(q->e[j]));
    }
}

/* Whether the particle was replaced by a shower of the library.  Never a photon inside a shower
   that is being made: the few far photons of the lower bins, used again and again above, moved the
   mean square width of all 10 GeV showers by 1.5% from one library to another (now 0.7%). */
static int sim_library_use(sim_worker *w, const sim_particle *p)
{
    const sim_shower_spots *l;
    float m[3][3], o[3];
    double a, energy = p->energy + (p->kind == SIM_POSITRON ? 2 * SIM_ME : 0);
    int bin, i;
    if (!(p->energy <= w->library_top) || p->energy < SIM_LIB_LOW) return 0;
    if (w->voxels && p->kind == SIM_PHOTON) return 0;
    a = SIM_LIB_DECADE / 2.302585092994046 * sim_log(p->energy / SIM_LIB_LOW);
    bin = (int)(a + sim_uniform(&w->random));
    bin = bin < SIM_LIB_BINS ? bin : SIM_LIB_BINS - 1;
    i = (int)(sim_uniform(&w->random) * sim_library_count(bin));
    if (p->kind != SIM_PHOTON)       /* even: electrons, odd: positrons */
        i = i - i % 2 + (p->kind == SIM_POSITRON);
    l = &w->s->library[p->kind != SIM_PHOTON][bin][i];
    if (w->voxels) {
        sim_library_nest(w, l, energy, p);
        return 1;
    }
#ifdef __GNUC__
    __builtin_prefetch(l->block);    /* comes while the frame is computed */
    __builtin_prefetch(l->block + 1);
#endif
    sim_library_frame(w, p, (double)l->scale, m, o);
    sim_library_put(w, l, energy, m, o);
    return 1;
}

#endif
