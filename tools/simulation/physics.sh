#!/bin/sh
# physics.sh - `make physics REF=DIR`: the simulation side by side with GEANT4 at eleven energies.
# Everything it writes goes to build: physics.csv, physics_histograms.svg, and what it needs.
#
#   REF=DIR            the reference folder, with geant4/fixed.h5 (and geant4/g4ref)
#   PHYSICS_MUONS=1000 simulated muons per energy
#   PHYSICS_G4=500     GEANT4 muons that g4ref adds at 100, 500, 900, 1300, 2100, 3300 and 4100 GeV,
#                      about 15 minutes of a core; kept in build/g4 (put your own there as EGeV.bin)
#   PHYSICS_THREADS=N  threads of the simulation
#   PHYSICS_SEED=N     its seed
set -u
REF=${REF:-}
OUT=${B:-build}
muons=${PHYSICS_MUONS:-1000}
extra=${PHYSICS_G4:-500}
energies=100,500,900,1300,1700,2100,2500,2900,3300,3700,4100
if [ -z "$REF" ] || [ ! -r "$REF/geant4/fixed.h5" ] || [ ! -x ./calomu-import-h5 ]; then
    echo "physics: needs REF=DIR with geant4/fixed.h5, and libhdf5 for calomu-import-h5" >&2
    exit 2
fi
mkdir -p "$OUT/g4" || exit 4
[ -s "$OUT/g4/fixed.cmu" ] ||
    ./calomu-import-h5 "$REF/geant4/fixed.h5" --out "$OUT/g4/fixed.cmu" || exit $?
for e in 100 500 900 1300 2100 3300 4100; do
    [ "$extra" -gt 0 ] && [ ! -s "$OUT/g4/${e}GeV.bin" ] && [ -x "$REF/geant4/g4ref" ] &&
        echo "physics: GEANT4, $extra muons of $e GeV" &&
        "$REF/geant4/g4ref" "$OUT/g4/part.bin" "$extra" "$e" "$e" "$e" mu >/dev/null 2>&1 &&
        mv "$OUT/g4/part.bin" "$OUT/g4/${e}GeV.bin"
done
./calomu simulate --n $((11 * muons)) --energies $energies --no-photonuclear \
    --seed "${PHYSICS_SEED:-20220082}" --out "$OUT/physics.cmu" \
    ${PHYSICS_THREADS:+--threads "$PHYSICS_THREADS"} || exit $?
set --
for f in "$OUT"/g4/*GeV.bin; do [ -s "$f" ] && set -- "$@" "$f"; done
"$OUT/physics" "$OUT/physics.cmu" "$OUT/g4/fixed.cmu" "$OUT/physics" "$@"
code=$?
if command -v gnuplot >/dev/null; then
    (cd "$OUT" && gnuplot -d physics_histograms.gp) && echo "$OUT/physics_histograms.svg"
fi
exit $code
