// reconstruction.cpp - energies of the muons of a file by a loaded model on several std::thread's
//
//     c++ -std=c++11 reconstruction.cpp -lcalomu -pthread
//     ./a.out MODEL.safetensors FILE.cmu [THREADS]      prints event,GeV
//
// A loaded model and an open file are read-only and shared; each thread has a context of its own, of
// one thread.  Muons are given out in groups of 16, the lanes of the engine; the energies are the
// same to the last bit however they are given out.
#include "calomu.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

struct Close {
    void operator()(calomu *c) const { calomu_close(c); }
    void operator()(calomu_model *m) const { calomu_model_free(m); }
    void operator()(calomu_data *d) const { calomu_data_close(d); }
};
using Context = std::unique_ptr<calomu, Close>;
using Model = std::unique_ptr<calomu_model, Close>;
using Data = std::unique_ptr<calomu_data, Close>;

void must(const calomu *c, calomu_status status)
{
    if (status != CALOMU_OK) throw std::runtime_error(calomu_message(c));
}

Context open_context()
{
    calomu *c = nullptr;
    calomu_status status = calomu_open(&c, nullptr);
    if (status != CALOMU_OK) throw std::runtime_error(calomu_status_text(status));
    return Context(c);
}

// Takes groups of muons until none is left.  No exception may leave a thread: it ends in `error`.
void work(const calomu_model *model, const calomu_data *data, std::atomic<uint64_t> &next,
          std::vector<double> &energy, std::string &error)
{
    calomu_events batch = {};
    try {
        Context c = open_context();
        for (;;) {
            uint64_t first = next.fetch_add(16);
            if (first >= energy.size()) break;
            size_t n = std::min<size_t>(16, energy.size() - first);
            must(c.get(), calomu_data_read(c.get(), data, first, nullptr, n, &batch));
            must(c.get(), calomu_predict(c.get(), model, data, batch.event, n, &energy[first],
                                         nullptr));
        }
    } catch (const std::exception &e) {
        error = e.what();
    }
    calomu_events_free(&batch);
}

void run(const char *model_path, const char *data_path, unsigned threads)
{
    Context c = open_context();
    calomu_model *m = nullptr;
    calomu_data *d = nullptr;
    must(c.get(), calomu_model_load(c.get(), model_path, &m));
    Model model(m);
    must(c.get(), calomu_data_open(c.get(), data_path, &d));
    Data data(d);
    std::vector<double> energy(calomu_data_describe(d)->n_events);
    std::vector<std::string> error(threads);
    std::vector<std::thread> team;
    std::atomic<uint64_t> next(0);
    for (unsigned i = 0; i < threads; i++)
        team.emplace_back(work, m, d, std::ref(next), std::ref(energy), std::ref(error[i]));
    for (std::thread &t : team) t.join();
    for (const std::string &e : error)
        if (!e.empty()) throw std::runtime_error(e);
    for (size_t i = 0; i < energy.size(); i++) std::printf("%zu,%.9g\n", i, energy[i]);
}

}  // namespace

int main(int argc, char **argv)
{
    int threads = argc > 3 ? std::atoi(argv[3]) : (int)std::thread::hardware_concurrency();
    if (argc < 3 || threads < 0 || threads > 1024) {
        std::fprintf(stderr, "usage: %s MODEL.safetensors FILE.cmu [THREADS]\n", argv[0]);
        return 2;
    }
    try {
        run(argv[1], argv[2], std::max(threads, 1));
    } catch (const std::exception &e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}
