#!/bin/sh
# geant4_csv_digits.sh - GEANT4's csv output rounds doubles to 6 digits, numbers of events too
#
# geant4_pybind 0.1.3 (GEANT4 11.4.1), G4CsvAnalysisManager.
# One would guess: digits enough that a double comes back, as in the same ntuple written as ROOT or
# HDF5; or at least whole numbers that stay whole.
# It does: a column made by CreateNtupleDColumn goes through a C++ stream with its 6 digits.  Event
# 1234567 is 1.23457e+06, 1000001 and 1000002 are both 1e+06: hits of several muons become one.
# Energies keep 6 digits: 1 + 1e-7 MeV is 1.
# In calomu: a whole number that was rounded when it was written is refused, with its line
# (tests/cli_import.sh, "rounded"); 1e+05, which R writes for 100000, is read.
#
# Exit 1 if it behaves otherwise.
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q geant4-pybind==0.1.3
cd "$dir"
# It asks whether to fetch data sets of physics, which are not needed here.
cat >write.py <<'END'
import geant4_pybind as g4
manager = g4.G4CsvAnalysisManager.Instance()
manager.OpenFile('run.csv')
manager.CreateNtuple('hits', 'hits')
manager.CreateNtupleDColumn('event')
manager.CreateNtupleIColumn('event_int')
manager.CreateNtupleDColumn('energy')
manager.FinishNtuple()
for event in (999999, 1000001, 1000002, 1234567):
    manager.FillNtupleDColumn(0, 0, event)
    manager.FillNtupleIColumn(0, 1, event)
    manager.FillNtupleDColumn(0, 2, 1 + 1e-7)
    manager.AddNtupleRow(0)
manager.Write()
manager.CloseFile()
END
echo n | v/bin/python write.py >log 2>&1 || { cat log; exit 1; }
cat run_nt_hits.csv
printf '%s\n' 999999,999999,1 1e+06,1000001,1 1e+06,1000002,1 1.23457e+06,1234567,1 >right
grep -v '^#' run_nt_hits.csv | cmp - right
