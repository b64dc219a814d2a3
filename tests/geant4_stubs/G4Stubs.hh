// G4Stubs.hh - the least of Geant4 that tools/examples/calomu_detector.hh names, with the signatures
// of Geant4 11 as its documentation has them; Geant4's units: MeV and mm are 1
#ifndef G4_STUBS_HH
#define G4_STUBS_HH
#include <string>
using G4String = std::string;
using G4bool = bool;
using G4int = int;
using G4double = double;
static const double MeV = 1, GeV = 1000, mm = 1;
class G4HCofThisEvent {};
class G4TouchableHistory {};
struct G4VTouchable {
    G4int copy;
    G4int GetCopyNumber(G4int depth = 0) const { return depth == 0 ? copy : -1; }
};
using G4TouchableHandle = const G4VTouchable *;
class G4StepPoint {
public:
    G4VTouchable touchable;
    G4TouchableHandle GetTouchableHandle() const { return &touchable; }
};
class G4Step {
public:
    G4StepPoint before;
    G4double deposit;
    G4StepPoint *GetPreStepPoint() { return &before; }
    G4double GetTotalEnergyDeposit() const { return deposit; }
};
class G4VSensitiveDetector {
public:
    explicit G4VSensitiveDetector(G4String name) : name_(name) {}
    virtual ~G4VSensitiveDetector() {}
    virtual void Initialize(G4HCofThisEvent *) {}
    virtual void EndOfEvent(G4HCofThisEvent *) {}
protected:
    virtual G4bool ProcessHits(G4Step *step, G4TouchableHistory *history) = 0;
private:
    G4String name_;
};
#endif
