#!/bin/sh
# cli_bench.sh - calomu bench: options, bad files, and the rows of a run on a tiny calorimeter
#
# usage: cli_bench.sh PROGRAM [TESTDATA [TMPDIR]]
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_bench
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive              # threads that spin would starve each other on a busy machine
export OMP_WAIT_POLICY
mkdir left
TMPDIR=$TMP/left                     # where the model of the inference runs lives for a while
export TMPDIR

awk 'BEGIN {
    print "event,iz,ix,iy,energy" > "hits.csv"
    print "event,energy,x,y,charge" > "truth.csv"
    for (i = 0; i < 5; i++) {
        print i "," 100 + 900 * i ",1,1,1" > "truth.csv"
        for (z = 0; z <= i; z++) print i "," z ",2,3," 0.1 + z > "hits.csv"
    }
}'
"$PROGRAM" import --hits hits.csv --truth truth.csv --energy-unit GeV --geometry 6,6,6,40,4,4 \
    --out tiny.cmu 2>err || { echo "cli_bench: no data"; cat err; exit 1; }
head -n 1 truth.csv >none.csv
"$PROGRAM" import --hits hits.csv --energy-unit GeV --geometry 6,6,6,40,4,4 \
    --out untrue.cmu 2>err || { echo "cli_bench: no data"; cat err; exit 1; }
head -n 1 hits.csv >nohits.csv
"$PROGRAM" import --hits nohits.csv --truth none.csv --energy-unit GeV --geometry 6,6,6,40,4,4 \
    --out empty.cmu 2>err || { echo "cli_bench: no data"; cat err; exit 1; }

# ---- arguments and files, all found before anything is measured
check "unknown option" 2 "batch" "$PROGRAM" bench --batches 2
check "batch 0" 2 "whole numbers from 1" "$PROGRAM" bench --batch 0
check "a comma too many" 2 "whole numbers from 1" "$PROGRAM" bench --batch 2,
check "batch too large" 2 "whole numbers from 1" "$PROGRAM" bench --batch 99999999999
check "no time" 2 "seconds" "$PROGRAM" bench --seconds 0
check "no such file" 4 "nofile.cmu" "$PROGRAM" bench --data nofile.cmu --batch 7,1
check "no data file" 3 "truth.csv" "$PROGRAM" bench --data truth.csv
check "no model file" 3 "tiny.cmu" "$PROGRAM" bench --data tiny.cmu --model tiny.cmu
check "no muons" 3 "no muons" "$PROGRAM" bench --data empty.cmu
check "no folder for the CSV" 4 "nowhere" "$PROGRAM" bench --data tiny.cmu --csv nowhere/b.csv

# ---- a run
check "a run" 0 "training step, batch 2 (the least)" "$PROGRAM" bench --data tiny.cmu \
    --batch 1 --threads 2 --seconds 0.01 --operations --csv b.csv
if [ "$(head -n 1 b.csv)" = row,value,unit ]; then pass; else fail "header" "$(head -n 1 b.csv)"; fi
for row in peak_t2_best training_b2_t1_min training_b2_t2_median training_b2_t2_memory \
    inference_b1_t1_min inference_b1_t2_min reading_min features_min \
    conv_3_1_8_8_4x4x4_to_weights_best sparse_conv_4_2_1_8_6x6x6_forward_best \
    join_11_4x4x4_to_input_best; do
    if grep -q "^$row," b.csv; then pass; else fail "row" "no $row"; fi
done
if awk -F, 'NR > 1 && !($2 > 0 && NF == 3) { bad = 1; print } END { exit bad }' b.csv >bad
then pass; else fail "values" "$(head -n 3 bad)"; fi
if [ "$(cut -d, -f1 b.csv | sort | uniq -d | wc -l)" -eq 0 ]
then pass; else fail "names" "$(cut -d, -f1 b.csv | sort | uniq -d | head -n 3)"; fi
# ---- no true energies; and a disk that is full at the end
if [ -w /dev/full ]; then
    check "full disk" 4 "/dev/full" "$PROGRAM" bench --data untrue.cmu --batch 3 --threads 1 \
        --seconds 0.01 --csv /dev/full
else
    skip "no /dev/full"
    check "no CSV" 0 "" "$PROGRAM" bench --data untrue.cmu --batch 3 --threads 1 --seconds 0.01
fi
holds "it was measured" out "training step, batch 3, 1 thread"
if [ -z "$(ls left)" ]; then pass; else fail "nothing is left in TMPDIR" "$(ls left)"; fi

cli_end
