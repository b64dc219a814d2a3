#!/bin/sh
# determinism.sh - one hash of the weights after some training steps and one of the predictions,
# for any number of threads; by the program, on GEANT4 muons.  test_model.c and test_api.c do the
# same for each instruction set.
#
# usage: determinism.sh PROGRAM [TESTDATA [TMPDIR]]
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" determinism
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive              # threads that spin would starve each other on a busy machine
export OMP_WAIT_POLICY
hash() { cksum <"$1" | cut -d ' ' -f 1; }

"$PROGRAM" import --hits "$DATA/cut_geant4_hits.csv" --truth "$DATA/cut_geant4_truth.csv" \
    --energy-unit GeV --out ten.cmu 2>err || fail "ten muons"
# Every output is compared: the model, the log but for its seconds, the features, and predictions
# for 33 muons (three groups, the last of one muon).
for threads in 1 2 3 7; do
    check "training, $threads threads" 0 "" "$PROGRAM" train --data ten.cmu --blocks 1 --body 16 \
        --growth 1.2 --batch 3 --folds 3 --holdout no --epochs 2 --cycle-epochs 2 --seed 4 \
        --threads $threads --out model.$threads --log log
    sed 's/,[^,]*$//' log >log.$threads
    check "prediction, $threads threads" 0 "" "$PROGRAM" predict --model model.$threads \
        --data "$DATA/muons.cmu" --count 33 --threads $threads --out pred.$threads
    check "features, $threads threads" 0 "" "$PROGRAM" features ten.cmu --threads $threads \
        --out features.$threads
    for what in model log pred features; do
        same "$what, $threads threads" $what.1 $what.$threads
    done
    rm -f log
done
[ "$(wc -l <log.1)" -eq 3 ] && pass || fail "two epochs" "$(cat log.1)"
[ "$(sort -u -t, -k3 pred.1 | wc -l)" -gt 30 ] && pass || fail "the predictions are all different"
echo "weights after training steps: $(hash model.1), predictions: $(hash pred.1)"

# In pieces, and with other muons before them.
check "two pieces, first" 0 "" "$PROGRAM" predict --model model.1 --data "$DATA/muons.cmu" \
    --count 5 --out a.csv
check "two pieces, second" 0 "" "$PROGRAM" predict --model model.1 --data "$DATA/muons.cmu" \
    --first 5 --count 28 --out b.csv
{ cat a.csv; sed 1d b.csv; } >pieces.csv
same "predictions in pieces" pieces.csv pred.1
cli_end
