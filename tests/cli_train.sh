#!/bin/sh
# cli_train.sh - calomu train: options, kills and signals, resume to the same bytes, ensembles
#
# usage: cli_train.sh PROGRAM [TESTDATA [TMPDIR]]
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_train
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive              # threads that spin would starve each other on a busy machine
export OMP_WAIT_POLICY

# A calorimeter of 6 x 6 x 6 cells.  muons N EMPTY FILE [STEP [FROM]]: the sum of the hits follows
# the true energy, the rest is a linear congruential generator; EMPTY 1 leaves the true energies
# out; STEP 1: in order of energy; muons FROM on: all of one energy.
geometry=6,6,6,40,4,4
muons()
{
    awk -v n="$1" -v empty="$2" -v step="${4:-37}" -v from="${5:-$1}" '
        function uniform() { seed = (seed * 16807) % 2147483647; return seed / 2147483647 }
        BEGIN {
            seed = 12345
            print "event,iz,ix,iy,energy" > "hits.csv"
            print "event,energy,x,y,charge" > "truth.csv"
            for (i = 0; i < n; i++) {
                e = 50 + 7950 * (((i * step) % n) + 0.5) / n
                if (i >= from) e = 1000
                printf "%d,%s,%.3f,%.3f,%d\n", i, empty ? "" : sprintf("%.3f", e),
                    4 * uniform() - 2, 4 * uniform() - 2, i % 2 ? 1 : -1 > "truth.csv"
                for (z = 0; z < 6; z++) for (k = 0; k < 3; k++) printf "%d,%d,%d,%d,%.5f\n", i, z,
                    2 * k, int(6 * uniform()), e * uniform() / 2000 > "hits.csv"
            }
        }'
    "$PROGRAM" import --hits hits.csv --truth truth.csv --energy-unit GeV \
        --geometry "$geometry" --out "$3" 2>err || echo "cannot make $3: $(cat err)"
}
muons 192 0 data.cmu
"$PROGRAM" import --hits hits.csv --truth truth.csv --energy-unit GeV --geometry 6,6,6,41,4,4 \
    --out widetruth.cmu 2>err
muons 192 0 sorted.cmu 1
muons 192 1 blind.cmu
muons 8 0 few.cmu
"$PROGRAM" import --hits hits.csv --energy-unit GeV --geometry 6,6,6,41,4,4 --out wide.cmu 2>err
head -n 1 hits.csv >none.csv
"$PROGRAM" import --hits none.csv --energy-unit GeV --geometry "$geometry" --out none.cmu 2>err

# train OUT ARGUMENT...: 4 epochs of 6 updates, features only
threads=1
small="--folds 4 --batch 16 --bins 4 --fit-bins 4"
train()
{
    train_out=$1
    shift
    # shellcheck disable=SC2086
    $RUN "$PROGRAM" train --data data.cmu --out "$train_out" --inputs features $small --epochs 4 \
        --cycle-epochs 2 --threads $threads "$@"
}
# rows FILE: the epochs of a log, in one line
rows() { sed 1d "$1" | cut -d, -f1 | tr '\n' ' '; }
# start FUNCTION ARGUMENT...: in the background, so that $pid is the program itself.  The shell lets
# its background jobs ignore INT (and nohup HUP), and what a parent ignores stays ignored.
start()
{
    start_run=$1
    shift
    RUN="exec env --default-signal=INT,TERM,HUP,USR1,USR2,XCPU"
    "$start_run" "$@" >out 2>err &
    pid=$!
    RUN=
}
# wait_rows LOG N: until the log has N epochs, up to 5 s
wait_rows()
{
    tries=0
    while [ "$(rows "$1" 2>/dev/null | wc -w)" -lt "$2" ] && [ $tries -lt 500 ]; do
        tries=$((tries + 1))
        sleep 0.01
    done
}
# wait_for FILE: up to 5 s
wait_for()
{
    tries=0
    while [ ! -s "$1" ] && [ $tries -lt 500 ]; do
        tries=$((tries + 1))
        sleep 0.01
    done
}
# wait_end: until $pid has ended; $tries are the looks that it took
wait_end()
{
    tries=0
    while kill -0 $pid 2>/dev/null; do
        tries=$((tries + 1))
        sleep 0.01
    done
    wait $pid
}

# ---------------------------------------------------------------- options

check "help" 0 "--checkpoint-minutes" "$PROGRAM" train --help
check "no data" 2 "--data FILE.cmu ... is missing" "$PROGRAM" train --out m
check "no out" 2 "--out MODEL.safetensors is missing" "$PROGRAM" train --data data.cmu
check "unknown option" 2 "did you mean '--batch'" train m --batsh 3
for option in "--batch 1" "--batch x" "--epochs 0" "--cycle-epochs 0" "--patience 0" \
    "--stop-after 0" "--lr 0" "--lr nan" "--seed -1" "--folds 1" "--holdout maybe" "--unique=1" \
    "--member -1" "--members 0" "--loss-bins 17" "--loss-range 5,1" "--quantile 2" \
    "--weight-centre -1" "--weight-low 0" "--weight-high 0" "--range 9,9" "--bins 0" \
    "--fit-bins 1" "--tracker 0" "--inputs all" "--blocks 0" "--growth 0" "--body 0" \
    "--convention mine" "--grow -1" "--checkpoint-minutes -1" "--threads 0"; do
    # shellcheck disable=SC2086
    check "option $option" 2 "${option%%[ =]*}" "$PROGRAM" train --data data.cmu --out m $option
done
check "member and members" 2 "give one of them" train m --member 0 --members 2
check "member without fold" 2 "member" train m --member 3
check "members without folds" 2 "too few" train m --members 4
check "unique members" 2 "5 members" "$PROGRAM" train --data data.cmu --out m --members 6 --unique
check "out is data" 2 "--out data.cmu is the same file as --data" train data.cmu
check "log is out" 2 "--log m is the same file as --out" train m --log m
check "checkpoint is out" 2 "--checkpoint m is the same file as --out" train m --checkpoint m
absent "usage errors leave no file" m m.checkpoint m.log.csv

# ---------------------------------------------------------------- data

bad()
{
    "$PROGRAM" train --data "$1" --out m --inputs features --folds 4 --batch 16 --threads 1
}
check "no such file" 4 "nothing.cmu" bad nothing.cmu
check "a folder" 3 "" bad .
mkfifo pipe
check "a pipe" 3 "pipe" bad pipe
check "text for data" 3 "hits.csv" bad hits.csv
check "no muons" 2 "full batch" bad none.cmu
check "too few muons" 2 "full batch" bad few.cmu
check "no truth" 3 "true energy" bad blind.cmu
head -c 3000 data.cmu >cut.cmu
check "cut data" 3 "cut.cmu" bad cut.cmu
absent "bad data leave no model" m m.checkpoint
rm -f m.log.csv

# ---------------------------------------------------------------- outputs

check "no folder" 4 "nowhere/m" train nowhere/m
check "no folder for plots" 4 "nowhere/p_history.csv" train m --plots nowhere/p.png
absent "found before the training" m m.checkpoint m.log.csv
if [ -c /dev/full ]; then
    check "disk full for the log" 4 "/dev/full" train m --log /dev/full
    check "disk full for the checkpoint" 4 "/dev/full" train m --checkpoint /dev/full
    absent "no log without a training" m.log.csv
    check "disk full for the model" 4 "/dev/full" train /dev/full --log l.csv --checkpoint c
    holds "the checkpoint stays" err "go on with: calomu train"
    [ -s c ] && pass || fail "the checkpoint stays" "no file c"
    rm -f c l.csv m m.log.csv
    [ -c /dev/full ] && pass || fail "/dev/full was replaced by a file" ""
else
    skip "no /dev/full"
fi
check "log in a pipe that nobody reads" 4 "pipe" train m --log pipe
rm -f pipe m m.*

# ---------------------------------------------------------------- a training and its files

check "features" 0 "validation loss" train full.st
absent "the checkpoint is removed" full.st.checkpoint
[ "$(rows full.st.log.csv)" = "1 2 3 4 " ] && pass || fail "log" "$(cat full.st.log.csv)"
head -n 1 full.st.log.csv >head
echo "epoch,updates,lr,beta1,training_loss,validation_loss,threshold0,threshold1,threshold2,\
threshold3,threshold4,mi,worst,seconds" | cmp -s - head && pass || fail "header" "$(cat head)"
awk -F, 'NF != 14 || (NR > 1 && ($2 != 12 * ($1 - 0) / 2 || $6 == "")) { exit 1 }' \
    full.st.log.csv && pass || fail "columns of the log" "$(cat full.st.log.csv)"
check "info of the model" 0 "" "$PROGRAM" info full.st
threads=3
check "three threads" 0 "" train other.st
threads=1
same "threads change no bit" full.st other.st
check "the same again" 0 "" train other.st
same "a training can be repeated" full.st other.st
check "another seed" 0 "" train other.st --seed 2
cmp -s full.st other.st && fail "the seed matters" "" || pass
check "log and plots" 0 "" train x.safetensors --log here.csv --plots figure
[ "$(rows here.csv)" = "1 2 3 4 " ] && pass || fail "--log" "$(cat here.csv)"
absent "no other log" x.log.csv
[ -n "$(ls figure* 2>/dev/null)" ] && pass || fail "plots" "no file"
check "default log" 0 "x.log.csv" train x.safetensors
[ "$(rows x.log.csv)" = "1 2 3 4 " ] && pass || fail "default log" "$(cat x.log.csv)"
for inputs in sums features hits hybrid; do
    before=$(date +%s)
    # shellcheck disable=SC2086
    check "inputs $inputs" 0 "parameters" "$PROGRAM" train --data data.cmu --out i.st $small \
        --inputs $inputs --blocks 1 --body 8 --growth 1.2 --epochs 1 --convention authors \
        --grow 0 --threads 1
    seconds=$(($(date +%s) - before))
    check "info of $inputs" 0 "" "$PROGRAM" info i.st
done
check "no holdout" 0 "" train i.st --holdout no --member 2 --lr 0.001 --loss-bins 2 \
    --loss-range 50,4000 --weight-centre 3000 --weight-low 150 --weight-high 150 --quantile 0.5 \
    --outside 0.6 \
    --range 50,8000 --tracker 0.1 --patience 1 --stop-after 1
[ "$(head -n 1 i.st.log.csv | tr ',' '\n' | grep -c threshold)" -eq 2 ] && pass \
    || fail "thresholds" "$(head -n 1 i.st.log.csv)"
check "unique folds" 0 "" "$PROGRAM" train --data data.cmu --out i.st --inputs sums --unique \
    --folds 11 --batch 8 --epochs 1 --threads 1
rm -f i.st*

# ---------------------------------------------------------------- not finite

# one update an epoch: the first, at a hundredth of the maximum, is finite and the second is not
check "not finite" 6 "kept as nan.st" "$PROGRAM" train --data data.cmu --out nan.st \
    --inputs features --folds 3 --batch 64 --cycle-epochs 10 --lr 1e9 --threads 1
check "the kept model" 0 "" "$PROGRAM" info nan.st
rm -f nan.st*
check "not finite at once" 6 "no model to keep" train nan.st --lr 1e30
absent "no model" nan.st

# ---------------------------------------------------------------- data that teach nothing

# in order of energy: folds are stretches of the file
ordered="--data sorted.cmu --inputs features $small --epochs 4 --cycle-epochs 2 --threads 1"
# shellcheck disable=SC2086
{
check "muons in order" 3 "(--shuffle)" "$PROGRAM" train $ordered --out o.st
absent "muons in order leave nothing" o.st o.st.checkpoint o.st.log.csv
check "an ensemble in order" 3 "(--shuffle)" "$PROGRAM" train $ordered --out o.st --members 2
check "muons in order, a range by themselves" 3 "(--shuffle)" "$PROGRAM" train $ordered --out o.st \
    --energy-range auto
check "muons in order, shuffled" 0 "by seed 1" "$PROGRAM" train $ordered --out o.st --shuffle
}
head -n 2 o.st.log.csv | cut -d, -f15 | tr '\n' ' ' | grep -q "^shuffle 1 $" && pass \
    || fail "the log tells of the shuffle" "$(head -n 2 o.st.log.csv)"
grep -aq '"train.shuffle":"1"' o.st && pass || fail "the model tells of the shuffle" ""
# shellcheck disable=SC2086
check "another shuffle" 0 "" "$PROGRAM" train $ordered --out other.st --shuffle --seed 2
cmp -s o.st other.st && fail "the seed of the shuffle matters" "" || pass
# a file that is late only: members 0 to 1 monitor other folds than member 2
muons 192 0 late.cmu 37 144
check "the last member's fold" 3 "fold 3" "$PROGRAM" train --data late.cmu --out o.st --inputs \
    features --folds 4 --batch 16 --epochs 2 --holdout no --members 3 --threads 1
absent "found before the first member" o.st.member0 o.st.checkpoint.members

# other units and ranges.  scaled HITS TRUTH FILE: the muons with these factors
scaled()
{
    awk -F, -v OFS=, -v k="$1" 'NR > 1 { $5 *= k } 1' hits.csv >h.csv
    awk -F, -v OFS=, -v k="$2" 'NR > 1 { $2 *= k } 1' truth.csv >t.csv
    "$PROGRAM" import --hits h.csv --truth t.csv --energy-unit GeV --geometry "$geometry" \
        --out "$3" 2>err || echo "cannot make $3: $(cat err)"
}
muons 192 0 data2.cmu
same "the same muons again" data.cmu data2.cmu
scaled 1 1000 mev.cmu
scaled 1 0.001 tev.cmu
scaled 0.0625 0.0625 low.cmu         # 4.4 to 499 GeV; 7 without the hold-out
scaled 1000 1 large.cmu
scaled 0.001 1 small.cmu
scaled 1 1.2 above.cmu               # 16% above 8000 GeV
scaled 1 1.4 far.cmu                 # 28%
unit()
{
    unit_data=$1
    shift
    # shellcheck disable=SC2086
    "$PROGRAM" train --data "$unit_data" --out u.st --inputs features $small --epochs 2 \
        --cycle-epochs 2 --threads 1 "$@"
}
check "true energies in MeV" 3 "are they MeV?" unit mev.cmu
check "true energies in TeV" 3 "are they TeV?" unit tev.cmu
check "muons of low energy" 3 "4 of 5 loss bins" unit low.cmu
holds "muons of low energy" err "--energy-range auto or LOW,HIGH"
check "hits in MeV taken for GeV" 3 "more than the true energy" unit large.cmu
check "hits in GeV taken for MeV" 3 "no cell above 0.1 GeV" unit small.cmu
check "a quarter too high" 3 "outside the loss bins" unit far.cmu
absent "nothing is left" u.st u.st.checkpoint u.st.log.csv
check "a sixth too high" 0 "of 144 muons are outside the loss bins" unit above.cmu
check "more may be outside" 0 "of 144 muons are outside the loss bins" unit far.cmu --outside 0.4
for range in 1 auto, 5,1 10,10 -1,5 1,2,3 10,x 0,1e99; do
    check "--energy-range $range" 2 "neither auto nor LOW,HIGH" unit low.cmu --energy-range=$range
done
check "a range by hand" 0 "" unit low.cmu --energy-range 4,500
cp u.st hand.st
check "the same range, single options" 0 "" unit low.cmu --loss-range 4,500 \
    --weight-centre 312.830188679245283 --weight-low 18.7169811320754717 \
    --weight-high 37.4339622641509434 --range 7.11949685534591195,250.440251572327044
cut -d, -f1-13 u.st.log.csv | head -n 2 >a
check "a range with a colon" 0 "" unit low.cmu --energy-range 4:500
same "a range with a colon" hand.st u.st
cut -d, -f1-13 u.st.log.csv | head -n 2 >b
awk -F, 'NR == FNR { a[FNR] = $5; next }
    FNR > 1 { d = a[FNR] - $5; exit !(d * d <= 1e-18 * $5 * $5) }' a b && pass \
    || fail "single options against a range" "$(cat a b)"
check "the muons' own range" 0 "energies of 7 to 500 GeV" unit low.cmu --energy-range auto
check "a range that is the default" 0 "" unit data.cmu --energy-range 50,8000
cp u.st hand.st
check "the default" 0 "" unit data.cmu
same "50,8000 is the default" hand.st u.st
check "single options go before" 0 "weights fall at 200," unit low.cmu --energy-range auto \
    --weight-centre 200 --loss-range 0,520
holds "single options go before" err "loss bins from 0 to 520"
check "a range of other muons" 3 "outside the loss bins" unit data.cmu --energy-range 10,500
rm -f u.st* o.st* hand.st

# ---------------------------------------------------------------- the old log

check "a model and its log" 0 "" train old.st
cp old.st model.was
cp old.st.log.csv log.was
check "a failure before any result" 6 "no model to keep" train old.st --lr 1e30
same "the old model stays" model.was old.st
same "the old log stays" log.was old.st.log.csv
rm -f old.st.checkpoint
check "another training" 0 "old.st.log.csv" train old.st --seed 7
[ "$(rows old.st.log.csv)" = "1 2 3 4 " ] && pass || fail "the new log" "$(cat old.st.log.csv)"
cmp -s log.was old.st.log.csv && fail "the new log is the old one" "" || pass
absent "no log is left beside" old.st.log.csv.new
cp old.st model.was
check "best state of a failure" 6 "kept as old.st" "$PROGRAM" train --data data.cmu --out old.st \
    --inputs features --folds 3 --batch 64 --cycle-epochs 10 --lr 1e9 --threads 1
cmp -s model.was old.st && fail "the best state is not kept" "" || pass
[ "$(rows old.st.log.csv)" = "1 " ] && pass || fail "the log of the best state" \
    "$(cat old.st.log.csv)"
rm -f old.st*

# ---------------------------------------------------------------- ended, longer

check "a training" 0 "" train end.st
cp end.st model.was
cp end.st.log.csv log.was
ls -i end.st >was
check "resuming what has ended" 0 "has ended: nothing to do" train end.st --resume
check "options from the model" 0 "nothing to do" "$PROGRAM" train --data data.cmu --out end.st \
    --resume --threads 1
ls -i end.st >is
same "the model is not touched" was is
same "the model is not touched" model.was end.st
same "the log is not touched" log.was end.st.log.csv
check "ended, other options" 2 "--seed is not that of the model" train end.st --resume --seed 3
check "ended, other muons" 3 "other muons" "$PROGRAM" train --data above.cmu --out end.st --resume
check "ended, more epochs" 2 "--keep-checkpoint" "$PROGRAM" train --data data.cmu --out end.st \
    --resume --epochs 5
same "the model is still not touched" model.was end.st
check "a single network for an ensemble" 2 "--members" "$PROGRAM" train --data data.cmu \
    --out end.st --resume --members 2
"$PROGRAM" predict --model end.st --data data.cmu --out p.csv 2>/dev/null
cp p.csv foreign.st
check "no model, no checkpoint" 0 "does not tell of a training" train foreign.st --resume
same "trained anew" model.was foreign.st
check "longer from the start" 0 "" "$PROGRAM" train --data data.cmu --out whole.st --inputs \
    features $small --epochs 9 --cycle-epochs 2 --threads 1
for n in 1 2 4; do
    check "$n epochs" 0 "" "$PROGRAM" train --data data.cmu --out more.st --inputs features $small \
        --epochs $n --cycle-epochs 2 --keep-checkpoint --threads 1
    [ -s more.st.checkpoint ] && pass || fail "--keep-checkpoint" "$(ls more.st*)"
    [ $n -eq 1 ] || check "fewer epochs" 2 "--epochs: 1 here but $n in the checkpoint" "$PROGRAM" \
        train --data data.cmu --out more.st --resume --epochs 1
    cp more.st.checkpoint kept
    check "a kept checkpoint that has ended" 0 "more.st.checkpoint stays" "$PROGRAM" train \
        --data data.cmu --out more.st --resume --threads 1
    same "a kept checkpoint is not lost" kept more.st.checkpoint
    check "9 epochs after $n" 0 "" "$PROGRAM" train --data data.cmu --out more.st --resume \
        --epochs 9 --threads 1
    same "9 epochs after $n" whole.st more.st
    cut -d, -f1-13 whole.st.log.csv >a
    cut -d, -f1-13 more.st.log.csv >b
    same "the log of 9 epochs after $n" a b
    absent "the checkpoint goes" more.st.checkpoint
    rm -f more.st*
done
check "no ensemble's checkpoint is kept" 2 "--keep-checkpoint" train m --members 2 \
    --keep-checkpoint

# ---------------------------------------------------------------- what cannot be looked at

ln -s loop.st.checkpoint loop.st.checkpoint
check "a checkpoint that cannot be seen" 4 "loop.st.checkpoint" train loop.st --resume
check "a checkpoint that cannot be seen" 4 "loop.st.checkpoint" train loop.st
rm -f loop.st*
ln -s loop.st loop.st
check "a model that cannot be seen" 4 "loop.st" train loop.st --resume
rm -f loop.st
check "a checkpoint below a file" 4 "data.cmu/c" train n2.st --resume --checkpoint data.cmu/c
absent "nothing was trained" loop.st n2.st

# ---------------------------------------------------------------- start, validation

check "the model to start from" 0 "" train base.st
check "fine-tuning" 0 "validation loss" train tuned.st --start base.st --lr 1e-4
cmp -s base.st tuned.st && fail "fine-tuning changes nothing" "" || pass
for model in base tuned; do
    "$PROGRAM" info $model.st | sed -n '/standardisation/,$p' | sed '/verified/d' >$model.info
done
same "the standardisation stays" base.info tuned.info
check "in place" 2 "--out base.st is the same file as --start base.st" train base.st \
    --start base.st --lr 1e-4
check "another network" 2 "--body: 7 here but 80 in the model base.st" train t2.st --start base.st \
    --body 7
check "another calorimeter" 3 "pitch along z: 41 mm against 40 mm" "$PROGRAM" train \
    --data widetruth.cmu --out t2.st --start base.st $small --threads 1
check "no model to start from" 3 "" train t2.st --start data.cmu
check "no such model" 4 "" train t2.st --start nothing.st
check "validation in a file" 0 "validation loss" train v.st --validation data.cmu
grep -aq '"train.separate":"1"' v.st && pass || fail "the model tells of the validation set" ""
cut -d, -f2 v.st.log.csv | tail -n 1 | grep -q "^36$" && pass \
    || fail "three of four folds are trained on" "$(cat v.st.log.csv)"
check "no truth in it" 3 "of the validation set has no true energy" train t2.st \
    --validation blind.cmu
check "no such file" 4 "" train t2.st --validation nothing.cmu
check "validation and unique folds" 2 "--unique" train t2.st --validation data.cmu --unique
check "out is validation" 2 "is the same file as --validation data2.cmu" "$PROGRAM" train \
    --data above.cmu --out data2.cmu --validation data2.cmu
absent "nothing of them" t2.st t2.st.checkpoint

# ---------------------------------------------------------------- signals

# A training long enough to be hit, and what it gives when left alone: a hybrid, or only features
# where sanitizers make the hybrid very slow; as many epochs as take this machine 40 looks, half a
# second.
inputs=hybrid
[ $seconds -ge 2 ] && inputs=features
epochs=6
long()
{
    long_out=$1
    shift
    $RUN "$PROGRAM" train --data data.cmu --out "$long_out" ${long_inputs---inputs $inputs} \
        --blocks 1 --growth 1.1 --body 8 --folds 4 --batch 16 --epochs $epochs --stop-after 1000 \
        --cycle-epochs 3 --bins 4 --fit-bins 4 --threads $threads "$@"
}
start long ref.st
wait_end
while [ $tries -lt 40 ] && [ $epochs -lt 1000 ]; do
    epochs=$((2 * epochs))
    rm -f ref.st*
    start long ref.st
    wait_end
done
all_epochs="$(seq -s ' ' $epochs) "
check "a training left alone" 0 "best epoch" long ref.st
[ "$(rows ref.st.log.csv)" = "$all_epochs" ] && pass || fail "log" "$(cat ref.st.log.csv)"
for signal in INT TERM HUP USR1 USR2 XCPU; do
    code=0
    for try in 1 2 3 4 5; do         # on a busy machine it may have ended before the signal
        [ $code -eq 0 ] || break
        rm -f s.st*
        start long s.st
        wait_for s.st.checkpoint
        kill -$signal $pid
        kill -$signal $pid 2>/dev/null     # as timeout does; one and the same wish
        wait $pid
        code=$?
    done
    if [ $code -eq 85 ]; then pass; else fail "SIG$signal" "exit code $code"; fi
    holds "how to go on" err "go on with: calomu train --data data.cmu"
    holds "how to go on" err "--resume"
    absent "no model after a signal" s.st
    check "info of the checkpoint" 0 "" "$PROGRAM" info s.st.checkpoint
    check "a fresh start beside a checkpoint" 2 "give --resume" long s.st
    check "resume after SIG$signal" 0 "best epoch" long s.st --resume
    same "resumed after SIG$signal" ref.st s.st
    [ "$(rows s.st.log.csv)" = "$all_epochs" ] && pass || fail "log" "$(cat s.st.log.csv)"
done

# A training into a model that is there: killed early, the old model and its log are still a pair.
code=0
for try in 1 2 3 4 5; do
    [ $code -eq 0 ] || break
    rm -f s.st*
    cp full.st s.st
    cp full.st.log.csv s.st.log.csv
    start long s.st
    wait_rows s.st.log.csv.new 1
    kill -TERM $pid
    wait $pid
    code=$?
done
if [ $code -eq 85 ]; then pass; else fail "stopped over an old model" "exit code $code"; fi
same "the old model" full.st s.st
same "the old model's log" full.st.log.csv s.st.log.csv
check "resumed over an old model" 0 "log              s.st.log.csv" long s.st --resume
same "resumed over an old model" ref.st s.st
[ "$(rows s.st.log.csv)" = "$all_epochs" ] && pass || fail "log" "$(cat s.st.log.csv)"
absent "no log is left beside" s.st.log.csv.new s.st.checkpoint

# A shuffled one, stopped and resumed; without the option it would be another training.
check "shuffled, left alone" 0 "by seed 1" long shuffled.st --shuffle
cmp -s ref.st shuffled.st && fail "a shuffle changes the folds" "" || pass
code=0
for try in 1 2 3 4 5; do
    [ $code -eq 0 ] || break
    rm -f s.st*
    start long s.st --shuffle
    wait_rows s.st.log.csv 1
    kill -TERM $pid
    wait $pid
    code=$?
done
if [ $code -eq 85 ]; then pass; else fail "stopped when shuffled" "exit code $code"; fi
check "info of the shuffled" 0 "cut after a shuffle by the seed" "$PROGRAM" info s.st.checkpoint
check "resumed and shuffled" 0 "by seed 1" "$PROGRAM" train --data data.cmu --out s.st --resume \
    --threads 1
same "resumed and shuffled" shuffled.st s.st
cut -d, -f1-13,15 shuffled.st.log.csv >a
cut -d, -f1-13,15 s.st.log.csv >b
same "the shuffled log" a b

# ---------------------------------------------------------------- kill -9

# killed MINUTES DELAY: killed at once, then each time that an epoch more has ended, DELAY s later;
# the whole state must come through.
killed()
{
    rm -f k.st*
    for epoch in 0 1 2 3 4; do
        start long k.st --resume --checkpoint-minutes "$1"
        wait_rows k.st.log.csv $epoch
        sleep "$2"
        kill -9 $pid 2>/dev/null
        wait $pid 2>/dev/null || kills=$((kills + 1))
    done
    check "resumed after kill -9" 0 "" long k.st --resume
    same "resumed after kill -9 $2 s into an epoch" ref.st k.st
    [ "$(rows k.st.log.csv)" = "$all_epochs" ] && pass || fail "log" "$(cat k.st.log.csv)"
    cut -d, -f1-13 ref.st.log.csv >a
    cut -d, -f1-13 k.st.log.csv >b
    same "the log is that of one run" a b
    absent "nothing is left over" k.st.checkpoint .k.st.checkpoint.*
}
kills=0
killed 10 0
killed 0 0.005
killed 0.0001 0.02
[ $kills -ge 3 ] && pass || fail "runs were killed" "only $kills of 15: all others had ended before"

# ---------------------------------------------------------------- resume

# state: a checkpoint after some epochs, in t.st.checkpoint
state()
{
    for try in 1 2 3 4 5; do
        rm -f t.st*
        start long t.st
        wait_rows t.st.log.csv 2
        kill -TERM $pid
        wait $pid
        [ -e t.st.checkpoint ] && break
    done
    cp t.st.checkpoint state
    cp t.st.log.csv state.log
}
restore() { rm -f t.st*; cp state t.st.checkpoint; cp state.log t.st.log.csv; }
state
check "nothing to resume" 0 "starts from the beginning" train n.st --resume
same "from the beginning" full.st n.st
for option in "--seed 9" "--lr 0.3" "--convention authors" "--grow 0.5" \
    "--holdout no" "--unique" "--range 1,2" "--loss-range 1,2" "--patience 5" \
    "--loss-bins 3" "--weight-centre 1" "--member 1"; do
    # shellcheck disable=SC2086
    check "conflict $option" 2 "${option%% *}" long t.st --resume $option
done
check "conflict --batch" 2 "--batch: 8 here but 16" "$PROGRAM" train --data data.cmu --out t.st \
    --resume --batch 8
long_inputs=
check "conflict --inputs" 2 "--inputs is not that of" long t.st --resume --inputs sums
unset long_inputs
check "conflict --growth" 2 "--growth: 2 here but 1.1" "$PROGRAM" train --data data.cmu --out t.st \
    --resume --growth 2
check "an ensemble's name" 2 "leave out --members" long t.st --resume --members 2
check "other data" 3 "" "$PROGRAM" train --data wide.cmu --out t.st --resume
check "a shuffle now" 2 "--shuffle is not that of" long t.st --resume --shuffle
check "a range now" 2 "--energy-range" long t.st --resume --energy-range 50,9000
check "a validation file now" 2 "--validation is not that of" long t.st --resume \
    --validation data.cmu
check "a model to start from now" 2 "--start is not that of" long t.st --resume --start ref.st
awk -F, -v OFS=, 'NR == 1001 { $5 += 0.001 } 1' hits.csv >h.csv      # data.cmu's: made last
"$PROGRAM" import --hits h.csv --truth truth.csv --energy-unit GeV --geometry "$geometry" \
    --out touched.cmu 2>err
check "one other hit" 3 "other muons" "$PROGRAM" train --data touched.cmu --out t.st --resume
check "options from the checkpoint" 0 "resuming from t.st.checkpoint" "$PROGRAM" train \
    --data data.cmu --out t.st --resume --threads 1
same "options from the checkpoint" ref.st t.st
restore
printf '3,18,0.0' >>t.st.log.csv
check "half a line in the log" 0 "" long t.st --resume
[ "$(rows t.st.log.csv)" = "$all_epochs" ] && pass || fail "log" "$(cat t.st.log.csv)"
restore
echo "what is this" >t.st.log.csv
check "a strange log" 3 "t.st.log.csv" long t.st --resume
holds "a strange log is left alone" t.st.log.csv "what is this"
restore
echo "x,y" >>t.st.log.csv
sed '2,$d' state.log >t.st.log.csv
echo "1,what" >>t.st.log.csv
check "a strange line" 3 "t.st.log.csv:2" long t.st --resume
restore
rm t.st.log.csv
check "no log" 0 "earlier epochs are not there" long t.st --resume
same "no log" ref.st t.st
restore
head -c 2000 state >t.st.checkpoint
check "a cut checkpoint" 3 "t.st.checkpoint" long t.st --resume
restore
cp ref.st t.st.checkpoint
check "a model for a checkpoint" 3 "t.st.checkpoint" long t.st --resume
restore
check "checkpoint elsewhere" 0 "" long t.st --resume --checkpoint state --log state.log
same "checkpoint elsewhere" ref.st t.st

# ---------------------------------------------------------------- ensembles

team() { long "$1" --members 2 --resume; }
check "an ensemble" 0 "members          2" team e.st
absent "members are joined" e.st.member0 e.st.member1 e.st.checkpoint.members
[ "$(rows e.st.member1.log.csv)" = "$all_epochs" ] && pass || fail "log" "$(ls e.st*)"
check "info of the ensemble" 0 "" "$PROGRAM" info e.st
for try in 1 2 3 4 5; do
    rm -f f.st*
    start long f.st --members 2
    wait_rows f.st.member1.log.csv 1
    kill -9 $pid
    wait $pid 2>/dev/null
    [ -e f.st.checkpoint.members ] && break
done
check "an ensemble as one network" 2 "give --members" long f.st --resume
check "fewer members than the checkpoint has" 2 "is of member 1" long f.st --resume --members 1
mv f.st.member0 away
check "a member's model is gone" 4 "f.st.member0" team f.st
mv away f.st.member0
check "an ensemble goes on" 0 "members          2" team f.st
same "an ensemble resumed" e.st f.st
check "an ensemble that has ended" 0 "nothing to do" team e.st
check "fewer members than it has" 2 "--members: e.st is 2 networks" long e.st --members 1 --resume
cp e.st.member0.log.csv log.was
for try in 1 2 3 4 5; do
    start long e.st --members 2 --seed 3
    wait_rows e.st.member1.log.csv.new 1
    kill -TERM $pid
    wait $pid 2>/dev/null
    [ -e e.st.checkpoint.members ] && break
done
same "the old ensemble" e.st f.st
same "its log" log.was e.st.member0.log.csv
check "a new ensemble over it" 0 "members          2" long e.st --members 2 --seed 3 --resume
cmp -s e.st f.st && fail "the new ensemble is the old one" "" || pass
cmp -s log.was e.st.member0.log.csv && fail "its log is the old one" "" || pass
absent "no log is left beside" e.st.member0.log.csv.new e.st.member1.log.csv.new
cp f.st e.st
# Member 0's standardisation is the ensemble's; the others' weights are scaled to it and rounded.
check "member 1 alone" 0 "" long one.st --member 1
for model in e ref one; do
    check "predictions of $model" 0 "" "$PROGRAM" predict --model $model.st --data data.cmu \
        --out $model.csv
done
cut -d, -f4 e.csv | sed 1d >a
cut -d, -f3 ref.csv | sed 1d >b
same "member 0 of the ensemble" a b
# Single predictions pass through 0: compared by their norm.
paste -d, e.csv one.csv | awk -F, 'NR > 1 { d += ($5 - $9) ^ 2; x += $9 ^ 2 }
    END { exit !(x > 0 && d <= 1e-10 * x) }' \
    && pass || fail "member 1 of the ensemble" "$(paste -d, e.csv one.csv | head -n 3)"

cli_end
