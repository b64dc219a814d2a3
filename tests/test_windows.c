/* test_windows.c - a convolution of any window against its definition

   Kernel, stride and padding differ along the axes and at either side; even kernels, and kernels
   larger than what they slide over.  The reference is in double and goes from inputs to outputs,
   where the engine goes from outputs to inputs: each input cell m is asked which outputs j have it
   under cell k, m = s j + k - before.  Values, and derivatives by weights, biases and (through the
   weights of a convolution in front) by the input. */
#include "test.h"
#include "test_net.h"

enum { IN = 2 };

typedef struct trial {
    cm_window w;
    int cells[3], sites[3], out, bias;
} trial;

static trial random_trial(test_random *r)
{
    trial t;
    int a;
    for (a = 0; a < 3; a++) {
        do {
            t.cells[a] = test_int(r, 1, 8);
            t.w.kernel[a] = test_int(r, 1, 8);
            t.w.stride[a] = test_int(r, 1, 4);
            t.w.before[a] = test_int(r, 0, t.w.kernel[a] - 1);
            t.w.after[a] = test_int(r, 0, t.w.kernel[a] - 1);
        } while (t.cells[a] + t.w.before[a] + t.w.after[a] < t.w.kernel[a]);
        /* counted: the first cell of the window stands on 0, s, 2s, ... while its last is inside */
        for (t.sites[a] = 0; t.sites[a] * t.w.stride[a] + t.w.kernel[a]
                             <= t.cells[a] + t.w.before[a] + t.w.after[a];) t.sites[a]++;
    }
    t.out = test_int(r, 1, 3);
    t.bias = test_int(r, 0, 1);
    return t;
}

/* The output along axis a that has cell k over input m, or -1. */
static int output_of(const trial *t, int a, int m, int k)
{
    int j;
    for (j = 0; j < t->sites[a]; j++)
        if (j * t->w.stride[a] + k - t->w.before[a] == m) return j;
    return -1;
}

static size_t weight_at(const trial *t, int o, int i, const int k[3])
{
    return (((size_t)(o * IN + i) * (size_t)t->w.kernel[0] + (size_t)k[0]) * (size_t)t->w.kernel[1]
            + (size_t)k[1]) * (size_t)t->w.kernel[2] + (size_t)k[2];
}

typedef struct sums { double *y, *dw, *dx; } sums;

/* Input cell m of one muon under cell k of the kernel. */
static void at_cell(const trial *t, const int m[3], const int k[3], const cm_real *w,
                    const cm_real *x, const double *dy, const sums *s)
{
    size_t in = (size_t)((m[0] * t->cells[1] + m[1]) * t->cells[2] + m[2]) * IN, out;
    int j[3], a, o, i;
    for (a = 0; a < 3; a++) {
        j[a] = output_of(t, a, m[a], k[a]);
        if (j[a] < 0) return;
    }
    out = (size_t)((j[0] * t->sites[1] + j[1]) * t->sites[2] + j[2]) * (size_t)t->out;
    for (o = 0; o < t->out; o++)
        for (i = 0; i < IN; i++) {
            size_t at = weight_at(t, o, i, k);
            s->y[out + (size_t)o] += (double)w[at] * (double)x[in + (size_t)i];
            s->dw[at] += dy[out + (size_t)o] * (double)x[in + (size_t)i];
            s->dx[in + (size_t)i] += (double)w[at] * dy[out + (size_t)o];
        }
}

static void one_muon(const trial *t, const cm_real *w, const cm_real *x, const double *dy,
                     const sums *s)
{
    int m[3], k[3];
    for (m[0] = 0; m[0] < t->cells[0]; m[0]++)
        for (m[1] = 0; m[1] < t->cells[1]; m[1]++)
            for (m[2] = 0; m[2] < t->cells[2]; m[2]++)
                for (k[0] = 0; k[0] < t->w.kernel[0]; k[0]++)
                    for (k[1] = 0; k[1] < t->w.kernel[1]; k[1]++)
                        for (k[2] = 0; k[2] < t->w.kernel[2]; k[2]++)
                            at_cell(t, m, k, w, x, dy, s);
}

/* The largest difference, as a share of the largest value. */
static double apart(const cm_real *a, const double *b, size_t n)
{
    double most = 0, worst = 0;
    size_t i;
    for (i = 0; i < n; i++) {
        most = fmax(most, fabs(b[i]));
        if (!(fabs((double)a[i] - b[i]) <= worst)) worst = fabs((double)a[i] - b[i]);
    }
    return most > 0 ? worst / most : worst;
}

typedef struct expected {            /* derivatives, over all muons */
    double *dw, front[IN], dbias[3];
} expected;

/* The values of all muons; what the derivatives must be. */
static void reference(const trial *t, const cm_net *net, const test_batch *b, const cm_pass *p,
                      const double *dy, expected *e)
{
    const cm_param *weight = &net->param[1];
    size_t in = (size_t)(t->cells[0] * t->cells[1] * t->cells[2] * IN), i, h;
    size_t out = (size_t)(t->sites[0] * t->sites[1] * t->sites[2] * t->out);
    const cm_real *x, *y;
    const char *name;
    int shape[4], v;
    x = cm_pass_values(p, 0, &name, shape);
    y = cm_pass_values(p, 1, &name, shape);
    CHECK(shape[0] == t->sites[0] && shape[1] == t->sites[1] && shape[2] == t->sites[2],
          "%d x %d x %d sites", shape[0], shape[1], shape[2]);
    for (v = 0; v < b->n; v++, x += in, y += out, dy += out) {
        sums s;
        s.dw = e->dw;
        s.y = test_memory(out, sizeof *s.y);
        s.dx = test_memory(in, sizeof *s.dx);
        for (i = 0; i < out; i++) {
            int o = (int)(i % (size_t)t->out);
            if (t->bias) s.y[i] = (double)cm_net_values(net, weight + 1)[o];
            e->dbias[o] += dy[i];
        }
        one_muon(t, cm_net_values(net, weight), x, dy, &s);
        CHECK(apart(y, s.y, out) <= 1e-5, "values: %g", apart(y, s.y, out));
        for (h = 0; h < b->event[v].n_hits; h++) {
            const calomu_hit *hit = &b->event[v].hits[h];
            for (i = 0; i < IN; i++)
                e->front[i] += (double)hit->energy * s.dx[(size_t)hit->cell * IN + i];
        }
        free(s.y);
        free(s.dx);
    }
}

static void check_gradients(const trial *t, const cm_net *net, const cm_real *gradient,
                            const expected *e)
{
    const cm_param *p = net->param;
    double by_input = apart(gradient + p[0].offset, e->front, IN);
    double by_weight = apart(gradient + p[1].offset, e->dw, p[1].count);
    CHECK(by_weight <= 2e-5, "derivatives by weights: %g", by_weight);
    CHECK(by_input <= 2e-5, "derivatives by the input: %g", by_input);
    if (t->bias)
        CHECK(apart(gradient + p[2].offset, e->dbias, p[2].count) <= 2e-5, "by biases");
}

static void run(calomu *c, const trial *t, const cm_net *net, const test_batch *b)
{
    size_t n = (size_t)(b->n * t->sites[0] * t->sites[1] * t->sites[2] * t->out), i;
    cm_real *gradient = test_memory(net->n_trained, sizeof *gradient);
    double *y = test_memory(n, sizeof *y);
    cm_pass *p = cm_pass_new(c, net, b->event, NULL, b->n, gradient);
    expected e;
    memset(&e, 0, sizeof e);
    e.dw = test_memory(net->param[1].count, sizeof *e.dw);
    if (CHECK(p != NULL, "%s", calomu_message(c)) && CHECK_OK(c, cm_pass_forward(p, y))) {
        for (i = 0; i < n; i++) y[i] = (double)(i * 2654435761u % 1024) / 512 - 1;
        reference(t, net, b, p, y, &e);
        if (CHECK_OK(c, cm_pass_backward(p, y))) check_gradients(t, net, gradient, &e);
    }
    cm_pass_free(p);
    free(e.dw);
    free(y);
    free(gradient);
}

static void check_window(calomu *c, test_random *r)
{
    trial t = random_trial(r);
    cm_list *s = cm_list_new(c, t.cells[0], t.cells[1], t.cells[2], 0, 2);
    calomu_geometry g = calomu_geometry_default();
    test_batch b;
    cm_net *net = NULL;
    size_t i;
    int x;
    if (!CHECK(s != NULL, "%s", calomu_message(c))) return;
    x = cm_layer_conv(s, "front", -1, IN, 1, 1, 0, 0);
    (void)cm_layer_window(s, "window", x, t.out, &t.w, t.bias);
    if (!CHECK_OK(c, cm_net_of_list(c, s, &net))) return;
    cm_net_init(net, test_bits(r));
    for (i = 0; i < net->n_trained; i++)                 /* biases begin at 0 */
        if (net->trained[i] == 0) net->trained[i] = (cm_real)test_normal(r);
    g.nz = t.cells[0];
    g.nx = t.cells[1];
    g.ny = t.cells[2];
    b = test_muons(&g, test_int(r, 1, 3), 0, test_bits(r));
    run(c, &t, net, &b);
    test_muons_free(&b);
    cm_net_free(c, net);
}

int main(int argc, char **argv)
{
    uint64_t seed = test_seed_of(argc, argv, 20221201);
    test_random r = test_seed(seed);
    calomu *c = NULL;
    int i;
    test_begin(argc, argv);
    printf("test_windows: seed %llu\n", (unsigned long long)seed);
    if (CHECK(calomu_open(&c, NULL) == CALOMU_OK, "no context")) {
        for (i = 0; i < 400; i++) check_window(c, &r);
        calomu_close(c);
    }
    return test_end("test_windows");
}
