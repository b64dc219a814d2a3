#include "G4Stubs.hh"
