#!/bin/sh
# valgrind.sh - under valgrind: a short training of a small hybrid network on a small calorimeter,
# its predictions, two simulated muons
#
# usage: B=build valgrind.sh
set -eu
B=${B:-build}
V=$B/tmp/valgrind
run() { echo "valgrind: calomu $1"; valgrind -q --error-exitcode=9 --leak-check=full \
    --errors-for-leak-kinds=definite ./calomu "$@"; }
mkdir -p "$B/tmp"
rm -f "$V".*
awk -F, 'NR == 1; $2 < 12 && $3 > 9 && $3 < 22 && $4 > 9 && $4 < 22 {
    print $1 "," $2 "," $3 - 10 "," $4 - 10 "," $5 }' testdata/cut_geant4_hits.csv >"$V.csv"
run import --hits "$V.csv" --truth testdata/cut_geant4_truth.csv --out "$V.cmu" \
    --energy-unit GeV --geometry 12,12,12,40.64,3.75,3.75
run train --data "$V.cmu" --out "$V.safetensors" --blocks 1 --body 16 --batch 2 \
    --folds 5 --holdout no --epochs 1 --cycle-epochs 1 --threads 1
run predict --model "$V.safetensors" --threads 1 --data "$V.cmu" --out "$V.pred.csv"
run simulate --n 2 --no-library --energy 10:20 --features --noise 0.1 --zero 1 \
    --out "$V.sim.cmu" --threads 1
