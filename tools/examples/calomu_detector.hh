// calomu_detector.hh - a Geant4 sensitive detector that measures each event's muon with calomu
//
// The cells' logical volume is placed so that the copy number of the touchable is the cell
// (iz*nx + ix)*ny + iy of calomu's geometry.  Give SetSensitiveDetector one detector per thread
// (ConstructSDandField does): each has a context of its own, the loaded model is shared.
//
// calomu's tests compile this against small stubs of the Geant4 classes that it names and run one
// muon through it; it was not tried with Geant4 itself.
#ifndef CALOMU_DETECTOR_HH
#define CALOMU_DETECTOR_HH

#include "calomu.h"

#include <G4HCofThisEvent.hh>
#include <G4Step.hh>
#include <G4SystemOfUnits.hh>
#include <G4TouchableHistory.hh>
#include <G4VSensitiveDetector.hh>

#include <map>
#include <stdexcept>
#include <string>
#include <vector>

class CalomuDetector : public G4VSensitiveDetector {
public:
    // model: outlives the detector; any number of threads may share it.
    CalomuDetector(const G4String &name, const calomu_model *model)
        : G4VSensitiveDetector(name), model_(model)
    {
        if (calomu_open(&context_, nullptr) != CALOMU_OK)
            throw std::runtime_error("calomu: no context");
    }
    ~CalomuDetector() override { calomu_close(context_); }
    CalomuDetector(const CalomuDetector &) = delete;
    CalomuDetector &operator=(const CalomuDetector &) = delete;

    void Initialize(G4HCofThisEvent *) override
    {
        cell_.clear();
        energy_ = -1;
    }

    // Where the muon enters the front face, in the coordinates of calomu (mm): of the primary
    // generator, or of a first step.  Left out, the hottest column is taken.
    void SetImpact(double x, double y)
    {
        x_ = static_cast<float>(x / mm);
        y_ = static_cast<float>(y / mm);
    }

    // Energies are summed in double: the order of steps is that of Geant4, and many are small.
    G4bool ProcessHits(G4Step *step, G4TouchableHistory *) override
    {
        double deposit = step->GetTotalEnergyDeposit() / GeV;
        if (!(deposit > 0)) return false;
        int copy = step->GetPreStepPoint()->GetTouchableHandle()->GetCopyNumber();
        cell_[static_cast<uint32_t>(copy)] += deposit;   // a wrong one calomu_predict refuses
        return true;
    }

    void EndOfEvent(G4HCofThisEvent *) override
    {
        std::vector<calomu_hit> hits;
        calomu_event muon = {};
        for (const auto &c : cell_) hits.push_back({ c.first, static_cast<float>(c.second) });
        muon.hits = hits.data();
        muon.n_hits = hits.size();
        muon.x = x_;
        muon.y = y_;
        muon.energy = muon.charge = CALOMU_ABSENT;
        if (calomu_predict(context_, model_, nullptr, &muon, 1, &energy_, nullptr) != CALOMU_OK)
            throw std::runtime_error(std::string("calomu: ") + calomu_message(context_));
        x_ = y_ = CALOMU_ABSENT;
    }

    double Energy() const { return energy_; }    // GeV, of the event that ended; -1: none did

private:
    const calomu_model *model_;
    calomu *context_ = nullptr;
    std::map<uint32_t, double> cell_;            // cell -> GeV, cells rising
    float x_ = CALOMU_ABSENT, y_ = CALOMU_ABSENT;
    double energy_ = -1;
};

#endif
