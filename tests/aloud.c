/* aloud.c - one muon on its way through the network, layer by layer, by the plain table (calomu.c,
   part I): what a teacher shows

   usage: aloud MODEL.safetensors DATA.cmu [NUMBER]
   Features are computed from the hits by the model's convention.  Built by `make aloud`. */
#include "../calomu.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Name, shape, mean and largest value of what layer i has made of the muon. */
static void tell(const cm_pass *p, int i)
{
    int shape[4], at;
    const char *name;
    const cm_real *y = cm_pass_values(p, i, &name, shape);
    size_t n = (size_t)shape[0] * (size_t)shape[1] * (size_t)shape[2] * (size_t)shape[3], k;
    double sum = 0, most = (double)y[0];
    char text[40];
    for (k = 0; k < n; k++) {
        sum += (double)y[k];
        if ((double)y[k] > most) most = (double)y[k];
    }
    at = snprintf(text, sizeof text, "%d x %d x %d x %d", shape[0], shape[1], shape[2], shape[3]);
    printf("%4d  %-34s %-*s %12.5g %12.5g\n", i, name, at < 20 ? 20 : at, text, sum / (double)n,
           most);
}

/* The network's features: (V - mean)/deviation of those that it reads. */
static calomu_status standardise(calomu *c, const calomu_model_info *m, const calomu_event *e,
                                 cm_real *to)
{
    static const int sums[3] = { 0, 26, 27 };
    float v[CALOMU_FEATURES];
    int k, n = m->architecture.n_features;
    calomu_status s = calomu_features(c, &m->architecture.geometry, e,
                                      &m->architecture.feature_options, v);
    for (k = 0; s == CALOMU_OK && k < n; k++) {
        int j = n == 3 ? sums[k] : k;
        to[k] = (cm_real)(((double)v[j] - m->mean[j]) / m->deviation[j]);
    }
    return s;
}

int main(int argc, char **argv)
{
    cm_real features[CALOMU_FEATURES] = { 0 };
    calomu_model *model = NULL;
    calomu_data *data = NULL;
    calomu_events events = { 0 };
    calomu *c = NULL;
    cm_pass *p = NULL;
    calomu_status s = argc < 3 ? CALOMU_EUSAGE : calomu_open(&c, NULL);
    uint64_t number = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;
    int i, n;
    if (s != CALOMU_OK) return fputs("usage: aloud MODEL DATA [NUMBER]\n", stderr) < 0 ? 4 : 2;
    s = calomu_model_load(c, argv[1], &model);
    if (s == CALOMU_OK) s = calomu_data_open(c, argv[2], &data);
    if (s == CALOMU_OK) s = calomu_data_read(c, data, number, NULL, 1, &events);
    if (s == CALOMU_OK) s = standardise(c, &model->info, events.event, features);
    if (s == CALOMU_OK) {
        p = cm_pass_new(c, model->net[0], events.event, features, 1, NULL);
        if (!p) s = CALOMU_EMEMORY;
    }
    printf("muon %llu, %zu hits, %g GeV\nlayer                                  z x x x y x channels"
           "          mean      largest\n", (unsigned long long)number,
           s == CALOMU_OK ? events.event[0].n_hits : 0,
           s == CALOMU_OK ? (double)events.event[0].energy : 0.0);
    for (i = 0, n = p ? cm_pass_layers(p) : 0; i < n && s == CALOMU_OK; i++) {
        s = cm_pass_step(p, i);
        if (s == CALOMU_OK) tell(p, i);
    }
    if (s != CALOMU_OK) fprintf(stderr, "aloud: %s\n", calomu_message(c));
    cm_pass_free(p);
    calomu_events_free(&events);
    calomu_data_close(data);
    calomu_model_free(model);
    calomu_close(c);
    return (int)s;
}
