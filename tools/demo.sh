#!/bin/sh
# demo.sh - the main job from nothing, as `make demo` runs it: features, training, prediction,
# evaluation, plots, on GEANT4 muons from testdata.  Everything is written to the folder demo.
set -eu
OUT=${OUT:-demo}
EPOCHS=${EPOCHS:-24}
mkdir -p "$OUT"
OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}      # kind to a machine that has other work
export OMP_WAIT_POLICY

say() { printf '\n== %s\n' "$*"; }
run() {
    printf '$'
    printf ' %s' "$@"
    printf '\n'
    "$@"
}

say "220 muons of a full detector simulation (GEANT4), 50 to 8000 GeV"
run ./calomu info testdata/muons.cmu

say "The 28 features of appendix 6 for each of them"
for set in muons valid points; do
    run ./calomu features testdata/$set.cmu --out "$OUT/$set.cmu"
done

say "A hybrid network (636,570 parameters): 3 folds of 55 muons to train on, 1 to monitor"
run ./calomu train --data "$OUT/muons.cmu" --out "$OUT/model.safetensors" --batch 16 --folds 4 \
    --holdout no --epochs "$EPOCHS" --cycle-epochs "$EPOCHS" --bins 5 --fit-bins 5 \
    --plots "$OUT/training"

say "Energies of 70 other muons and of 11 at each of 11 energies: this network, then the" \
    "pre-trained one"
for model in "$OUT/model.safetensors" testdata/model.safetensors; do
    name=own
    [ "$model" = testdata/model.safetensors ] && name=pretrained
    run ./calomu predict --model "$model" --data "$OUT/valid.cmu" --out "$OUT/$name-valid.csv"
    run ./calomu predict --model "$model" --data "$OUT/points.cmu" --out "$OUT/$name-points.csv"
    say "Resolution at the 11 energies, debiased with the 70 muons: $name"
    run ./calomu evaluate "$OUT/$name-points.csv" --fit "$OUT/$name-valid.csv" --fit-bins 6 \
        --points --csv "$OUT/$name-resolution.csv" --plots "$OUT/$name"
done

say "Done. First predictions of the pre-trained network (GeV):"
head -n 6 "$OUT/pretrained-points.csv"
echo "Plots and tables are in the folder $OUT: $(cd "$OUT" && ls ./*.svg 2>/dev/null | tr '\n' ' ')"
