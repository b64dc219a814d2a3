/* material.h - the material, PbWO4 of 8.28 g/cm3: constants, elements, density effect */
#ifndef SIM_MATERIAL_H
#define SIM_MATERIAL_H

#include "arithmetic.h"

#define SIM_ME 0.51099895            /* MeV [PDG] */
#define SIM_MMU 105.6583755
#define SIM_MP 938.27208816
#define SIM_ALPHA (1 / 137.035999084)
#define SIM_RE 2.8179403262e-13      /* cm */
#define SIM_HBARC 1.973269804e-11    /* MeV cm */
#define SIM_DENSITY 8.28             /* g/cm3 (NIST as used by GEANT4; the PDG lists 8.30) */
#define SIM_NE 2.060117e24           /* electrons per cm3 */
#define SIM_KD 0.52524               /* 2 pi m_e r_e^2 n_e, MeV/cm */
#define SIM_I 542.74e-6              /* mean excitation, MeV (Bragg: O 95, W 727, Pb 823 eV) */
#define SIM_X0 0.892417              /* cm, [T74] */
#define SIM_TCUT 0.8425              /* thresholds of a 0.7 mm range cut, MeV: electrons, */
#define SIM_KCUT 0.0758              /*   photons */
#define SIM_SQRT_E 1.6487212707001281

enum { SIM_ELEMENTS = 3 };

typedef struct sim_element {
    double z, a;                     /* charge, mass in g/mol */
    double n;                        /* atoms per cm3 */
    double log_z, z13;               /* ln Z, Z^(-1/3) */
    double fc;                       /* Coulomb correction [T74] */
} sim_element;

/* f_c = a2 [0.0083 a4 + 0.20206 + 1/(1 + a2)] - a4 (0.0020 a4 + 0.0369), a2 = (alpha Z)^2: the sum
   of Davies, Bethe and Maximon as fitted in [T74, PDG]. */
static double sim_coulomb(double z)
{
    double a2 = SIM_ALPHA * z * SIM_ALPHA * z, a4 = a2 * a2;
    return a2 * (0.0083 * a4 + 0.20206 + 1 / (1 + a2)) - a4 * (0.0020 * a4 + 0.0369);
}

static void sim_material(sim_element e[SIM_ELEMENTS])
{
    static const double z[] = { 8, 74, 82 }, a[] = { 15.9994, 183.84, 207.2 };
    static const double n[] = { 4.38323e22, 1.09581e22, 1.09581e22 };
    int i;
    for (i = 0; i < SIM_ELEMENTS; i++) {
        e[i].z = z[i];
        e[i].a = a[i];
        e[i].n = n[i];
        e[i].log_z = sim_log(z[i]);
        e[i].z13 = sim_exp(-e[i].log_z / 3);
        e[i].fc = sim_coulomb(z[i]);
    }
}

/* Density effect of Sternheimer as parameterised in [PDG], constants by his recipe for this
   material (C = 1 + 2 ln(I/53.297 eV)), gamma^2 beta^2 = bg2. */
static double sim_density(double bg2)
{
    const double c = 5.64150, x0 = 0.33913, x1 = 3, a = 0.216552;
    double ln = sim_log(bg2) / 2, x = ln / 2.302585092994046, y = x1 - x;
    if (x < x0) return 0;
    return 2 * ln - c + (x < x1 ? a * y * y * y : 0);
}

#endif
