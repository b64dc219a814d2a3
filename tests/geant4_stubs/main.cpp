// main.cpp - the muon of calomu.h's opening program through the detector of tools/examples
#include "calomu_detector.hh"

#include <cstdio>

struct Detector : CalomuDetector {               // the kernel calls ProcessHits; here the test does
    using CalomuDetector::CalomuDetector;
    using CalomuDetector::ProcessHits;
};

static void deposit(Detector &d, int cell, double energy)
{
    G4Step step;
    step.before.touchable.copy = cell;
    step.deposit = energy;
    d.ProcessHits(&step, nullptr);
}

int main(int, char **argv)
{
    calomu *c = nullptr;
    calomu_model *model = nullptr;
    if (calomu_open(&c, nullptr) != CALOMU_OK || calomu_model_load(c, argv[1], &model) != CALOMU_OK)
        return 1;
    {
        Detector d("calorimeter", model);
        for (int event = 0; event < 2; event++) {        // the second must not see the first
            d.Initialize(nullptr);
            d.SetImpact(1.9 * mm, 1.9 * mm);
            deposit(d, (32 + 16) * 32 + 16, 0.25 * GeV);
            deposit(d, 16 * 32 + 16, 31 * MeV);
            deposit(d, 5, 0);
            deposit(d, (32 + 16) * 32 + 16, 1000 * MeV);
            d.EndOfEvent(nullptr);
        }
        std::printf("%.1f GeV\n", d.Energy());
    }
    calomu_model_free(model);
    calomu_close(c);
    return 0;
}
