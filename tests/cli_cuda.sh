#!/bin/sh
# cli_cuda.sh - --device, --math and --no-fusion of calomu train, predict, bench: bad values, a program
# without the CUDA unit, one with it but without a GPU; with both, the files of the processor
#
# usage: cli_cuda.sh PROGRAM [TESTDATA [TMPDIR]]
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_cuda
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive              # threads that spin would starve each other on a busy machine
export OMP_WAIT_POLICY

"$PROGRAM" import --hits "$DATA/cut_geant4_hits.csv" --truth "$DATA/cut_geant4_truth.csv" \
    --energy-unit GeV --out ten.cmu 2>err || fail "ten muons"
train() { "$PROGRAM" train --data ten.cmu --out x.safetensors --log x.log --blocks 1 --body 16 \
    --growth 1.2 --batch 3 --folds 3 --holdout no --epochs 1 --cycle-epochs 1 --seed 4 "$@"; }
predict() { "$PROGRAM" predict --model m.safetensors --data ten.cmu --out x.csv "$@"; }
bench() { "$PROGRAM" bench --data ten.cmu --model m.safetensors --program "$PROGRAM" --batch 2 \
    --seconds 0.01 --csv x.csv "$@"; }
check "training" 0 "" train
mv x.safetensors m.safetensors
mv x.log m.log
check "prediction" 0 "" predict
mv x.csv m.csv
nothing() { absent "$1: no file" x.safetensors x.log x.csv; }

for verb in train predict bench; do
    check "$verb: help" 0 "--device" "$PROGRAM" $verb --help
    for bad in gpu CUDA cuda: cuda:x cuda:-1 cuda:1x cuda:99999999999 cpu:0 ""; do
        check "$verb: device '$bad'" 2 "device" $verb --device "$bad"
    done
    for bad in quick EQUAL 1 ""; do
        check "$verb: math '$bad'" 2 "math" $verb --math "$bad"
    done
    check "$verb: fast math of the processor" 2 "math" $verb --device cpu --math fast
    nothing "$verb: bad values"
done
check "prediction, cpu" 0 "" predict --device cpu --math equal
same "prediction, cpu" x.csv m.csv
check "prediction without fusion" 0 "" predict --no-fusion
same "prediction without fusion" x.csv m.csv
check "training without fusion" 0 "" train --no-fusion --recompute
same "training without fusion" x.safetensors m.safetensors
check "plain prediction" 0 "" predict --plain
same "plain prediction" x.csv m.csv
check "plain training" 0 "" train --plain
same "plain training" x.safetensors m.safetensors
rm -f x.*

"$PROGRAM" predict --model m.safetensors --data ten.cmu --out x.csv --device cuda >out 2>err
case $? in
0)                                   # the unit and a GPU
    same "prediction, cuda" x.csv m.csv
    check "training, cuda" 0 "" train --device cuda:0
    same "training, cuda" x.safetensors m.safetensors
    rm -f x.*
    code=7 text="no GPU 4000"
    ;;
7)                                   # the unit, no GPU
    skip "predictions and weights of the GPU: NO GPU HERE: $(tail -n 1 err)"
    check "prediction, cuda" 7 "no NVIDIA GPU can be used" predict --device cuda
    check "training, cuda" 7 "no NVIDIA GPU can be used" train --device cuda
    check "prediction, cuda, fast" 7 "GPU" predict --device cuda --math fast
    code=7 text=GPU
    ;;
*)
    check "prediction, cuda" 2 "make cuda" predict --device cuda
    check "training, cuda" 2 "make cuda" train --device cuda
    check "prediction, cuda, fast" 2 "make cuda" predict --device cuda --math fast
    code=2 text="make cuda"
    ;;
esac
nothing "cuda"
for verb in train predict bench; do
    check "$verb: GPU 4000" $code "$text" $verb --device cuda:4000
    nothing "$verb: GPU 4000"
done
cli_end
