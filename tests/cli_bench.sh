#!/bin/sh
# cli_bench.sh - calomu bench: options, bad files, peers, the rows of a run on a tiny calorimeter
#
# usage: cli_bench.sh PROGRAM [TESTDATA [TMPDIR]]
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_bench
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive              # threads that spin would starve each other on a busy machine
export OMP_WAIT_POLICY
mkdir left
TMPDIR=$TMP/left                     # where a data file lives for a while
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

"$PROGRAM" train --data tiny.cmu --out tiny.safetensors --blocks 1 --body 16 --batch 2 --folds 2 \
    --holdout no --epochs 1 --cycle-epochs 1 >out 2>err || { echo "cli_bench: no model"; exit 1; }
bench() { "$PROGRAM" bench --data tiny.cmu --model tiny.safetensors --program "$PROGRAM" "$@"; }

# A peer that takes 200 s for 2 muons of a batch of 2, 100 s at 1, whatever the clock says.
cat >peer.sh <<'END'
echo "$@" >>peer.log
case "$* " in
*"--batch 2 "*) echo "ready 2 a slow peer" ;;
*) echo "ready 1 a slow peer, batch 1" ;;
esac
while read -r line && [ "$line" = go ]; do echo "1e6 5"; done
END

# ---- arguments and files, all found before anything is measured
check "unknown option" 2 "batch" bench --batches 2
check "batch 1" 2 "batch" bench --batch 1
check "no time" 2 "seconds" bench --seconds 0
check "no such file" 4 "nofile.cmu" "$PROGRAM" bench --data nofile.cmu --model tiny.safetensors
check "no data file" 3 "truth.csv" "$PROGRAM" bench --data truth.csv --model tiny.safetensors
check "no model file" 3 "tiny.cmu" "$PROGRAM" bench --data tiny.cmu --model tiny.cmu
check "no muons" 3 "no muons" "$PROGRAM" bench --data empty.cmu --model tiny.safetensors
check "no program" 4 "--program" "$PROGRAM" bench --data tiny.cmu --model tiny.safetensors \
    --program ./nothing --batch 2 --threads 1 --seconds 0.01

# ---- a run; two peers, of which one breaks
check "a run" 0 "training step, batch 2, 2 threads" bench --batch 2 --threads 2 --seconds 0.01 \
    --yardstick "sh peer.sh" --newest "false" --csv b.csv
holds "the peer that broke" out "LEFT OUT: the peer did not run"
holds "the trials" peer.log "--job training --batch 16,32,64,256 --threads 2"
if [ "$(head -n 1 b.csv)" = row,value,unit,target,met ]
then pass; else fail "header" "$(head -n 1 b.csv)"; fi
for row in train_vs_torch_256 train_vs_torch_best infer_vs_torch_256 infer_vs_torch_best \
    conv_forward_peak conv_backward_input_peak conv_backward_weight_peak other_share one_muon_ms \
    sixteen_muons_ms train_gb train_recompute_gb features_ms read_gb_per_s \
    bytes_per_hit bytes_per_hit_full start_ms two_threads; do
    if grep -q "^$row," b.csv; then pass; else fail "row" "no $row"; fi
done
for row in train_vs_newest infer_vs_newest; do
    if grep -q "^$row," b.csv; then fail "row" "$row"; else pass; fi
done
if awk -F, 'NR > 1 && !($2 > 0 && $4 > 0 && $5 ~ /^(yes|no)$/ && NF == 5) { bad = 1; print }
    END { exit bad }' b.csv >bad
then pass; else fail "values" "$(head -n 3 bad)"; fi
# The same muons' worth of time at 2 and at 1: the best batch is half as slow as the other.
if awk -F, '{ v[$1] = $2; met[$1] = $5 }
    END { r = v["train_vs_torch_best"] / v["train_vs_torch_256"]
          exit !(r > 1.999 && r < 2.001 && met["train_vs_torch_256"] == "yes" \
                 && v["train_vs_torch_256"] > 1000) }' b.csv
then pass; else fail "ratios" "$(grep torch b.csv)"; fi
check "a peer that talks nonsense" 0 "not 'ready" bench --batch 2 --threads 1 --seconds 0.01 \
    --newest "echo hello"
check "a profile" 0 "all of a kind" bench --profile --batch 3 --threads 2 --seconds 0.01
for text in "convolution 3/1 to weights 8 > 8, 4x4x4" "convolution 4/2 to input 11 > 16, 4x4x4" \
    "batch norm " "sparse convolution 4/2 forward 1 > 8, 4x4x4" "loss, Adam" "join "; do
    holds "the profile" out "$text"
done

check "scaling" 0 "cells 729" bench --scaling s.csv --batch 2 --threads 1 --seconds 0.01
if [ "$(head -n 1 s.csv)" = axis,value,training_ms,inference_ms,features_ms ] &&
    awk -F, 'NR > 1 { n[$1]++; for (i = 3; i <= NF; i++) if ($i != "" && !($i > 0)) bad = 1
        empty = empty ($3 == "") ($4 == "") ($5 == "") " " }
    END { exit bad || n["batch"] != 2 || n["hits"] != 8 || n["cells"] != 6 ||
        substr(empty, 1, 12) != "101 001 000 " || substr(empty, 41, 4) != "010 " }' s.csv
then pass; else fail "scaling" "$(cat s.csv)"; fi

# ---- the regression guard: ratios only, 15%, and of other_share less is better
bench_sh=$(dirname "$PROGRAM")/tools/bench.sh
[ -r "$bench_sh" ] || bench_sh=$(dirname "$DATA")/tools/bench.sh
guard() { printf 'row,value,unit,target,met\n%s\n' "$1" >"$2"; }
guard "train_vs_torch_256,4,times,7,no
other_share,20,%,15,no
train_vs_newest,3,times,3,yes
one_muon_ms,5,ms,8,yes" old.csv
guard "train_vs_torch_256,3.45,times,7,no
other_share,23,%,15,no
one_muon_ms,9,ms,8,no" new.csv
check "nothing is worse" 0 "LEFT OUT: train_vs_newest" sh "$bench_sh" --compare old.csv new.csv
guard "train_vs_torch_256,3.35,times,7,no" new.csv
check "a ratio that fell by 16%" 1 "WORSE" sh "$bench_sh" --compare old.csv new.csv
guard "other_share,24,%,15,no" new.csv
check "a share that rose by 20%" 1 "WORSE" sh "$bench_sh" --compare old.csv new.csv

# ---- no true energies; and a disk that is full at the end
if [ -w /dev/full ]; then
    check "full disk" 4 "/dev/full" "$PROGRAM" bench --data untrue.cmu --model tiny.safetensors \
        --profile --batch 3 --threads 1 --seconds 0.01 --csv /dev/full
else
    skip "no /dev/full"
fi
if [ -z "$(ls left)" ]; then pass; else fail "nothing is left in TMPDIR" "$(ls left)"; fi

# ---------------------------------------------------------------- the plan

# That of the paper's network is stored: a change of a rule shows here, and is meant or mended.
check "the plan" 0 "" "$PROGRAM" bench --plan --threads 1
same "the plan of the paper's network" out "$DATA/plan.txt"
check "the plan without fusion" 0 "add scaled" "$PROGRAM" bench --plan --no-fusion --threads 1
if grep -Eq "by groups|by rows|joins|join,|on the way|deferred|in place|same sums|leaves" out; then
    fail "the plan without fusion" "$(grep -m 1 -E 'joins|by rows' out)"
else
    pass
fi
check "the plan of a model" 0 "head.3.esum" "$PROGRAM" bench --plan --model tiny.safetensors
check "a plan of nothing" 4 "nothing.safetensors" "$PROGRAM" bench --plan --model nothing.safetensors

cli_end
