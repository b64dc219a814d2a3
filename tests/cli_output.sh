#!/bin/sh
# cli_output.sh - every verb's outputs: never an input or another output, one writer, nothing lost
# when the system fails, nothing left of killed runs; standard streams, threads, names
#
#     sh tests/cli_output.sh ./calomu testdata build/tmp
. "$(dirname "$0")/cli_lib.sh"
HERE=$(cd "$(dirname "$0")" && pwd)
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_output
CC=${CC:-cc}
H5=$(dirname "$PROGRAM")/calomu-import-h5
cd "$TMP" || exit 1
SANITIZED=
grep -q __asan_init "$PROGRAM" && SANITIZED=yes

small="--inputs features --body 8 --folds 4 --batch 8 --cycle-epochs 1 --bins 4 --fit-bins 4
    --threads 1"
net="$small --epochs 2"
awk 'BEGIN { print "event,iz,ix,iy,energy" > "h.csv"; print "event,energy,x,y,charge" > "t.csv"
    for (i = 0; i < 64; i++) {
        printf "%d,%.1f,0.5,0.5,1\n", i, 100 + 70 * ((i * 37) % 64) > "t.csv"
        for (z = 0; z < 6; z++)
            for (k = 0; k < 3; k++)
                printf "%d,%d,%d,%d,%.5f\n", i, z, 2 * k, (i + z + k) % 6, \
                    0.1 + (i * 7 + z) % 13 / 10 > "h.csv" } }'
unit="--energy-unit GeV --geometry 6,6,6,40,4,4"
# shellcheck disable=SC2086
{
    check "hits" 0 "" "$PROGRAM" import --hits h.csv --truth t.csv $unit --out plain.cmu
    check "features" 0 "" "$PROGRAM" features plain.cmu --out ok.cmu --threads 1
    check "a model" 0 "" "$PROGRAM" train --data ok.cmu --out ok.st $net
    check "predictions" 0 "" "$PROGRAM" predict --model ok.st --data ok.cmu --out ok.csv --threads 1
}
absent "no lock after a normal end" .ok.st.calomu-lock .ok.cmu.calomu-lock .ok.csv.calomu-lock

# ---------------------------------------------------------------- an output that is another file

# Fresh inputs under every kind of name.
fresh()
{
    rm -rf ./in* sub
    cp ok.cmu in.cmu; cp ok.st in.st; cp ok.csv in.csv; cp h.csv in.h.csv
    cp ok.st.log.csv in.log.csv
    cp in.csv in_prediction.csv; cp in.log.csv in_history.csv
    mkdir sub
    for f in in.cmu in.st in.csv in.h.csv in.log.csv; do
        ln -s "$f" "in-soft-$f"
        ln "$f" "in-hard-$f"
    done
    ln -s "$PWD" sub/here
}
# refused WHAT FILE COMMAND...: a usage error, and the file as it was
refused()
{
    refused_file=$2 refused_what=$1
    shift 2
    cp "$refused_file" before
    check "$refused_what" 2 "is the same file as" "$@"
    same "$refused_what: as it was" before "$refused_file"
}
# clash FILE COMMAND... OPTION: OPTION is given all the names of FILE
clash()
{
    clash_file=$1
    shift
    fresh
    for name in "$clash_file" "./$clash_file" "$PWD/$clash_file" "sub/../$clash_file" \
        "sub/here/$clash_file" "in-soft-$clash_file" "in-hard-$clash_file"; do
        refused "$* $name" "$clash_file" "$@" "$name"
    done
}
# shellcheck disable=SC2086
{
    clash in.h.csv "$PROGRAM" import --hits in.h.csv --truth t.csv $unit --out
    clash in.cmu "$PROGRAM" export in.cmu --truth x.csv --hits
    clash in.cmu "$PROGRAM" train --data in.cmu $net --out
    clash in.cmu "$PROGRAM" train --data in.cmu --out n.st $net --log
    clash in.cmu "$PROGRAM" train --data in.cmu --out n.st $net --checkpoint
    clash in.cmu "$PROGRAM" predict --model in.st --data in.cmu --out
    clash in.st "$PROGRAM" predict --model in.st --data in.cmu --out
    clash in.csv "$PROGRAM" evaluate in.csv --csv
    clash in.csv "$PROGRAM" evaluate ok.csv --fit in.csv --csv
    clash in.st "$PROGRAM" model-import in.st --out
    clash in.log.csv "$PROGRAM" evaluate ok.csv --plots p --history in.log.csv --csv
    clash in.st "$PROGRAM" bench --data in.cmu --model in.st --csv
    if [ -x "$H5" ]; then
        cp "$DATA/cut_geant4.h5" in.h5
        refused "import-h5" in.h5 "$H5" in.h5 --no-charge --out ./in.h5
        check "import-h5 says it" 2 "calomu-import-h5: --out" "$H5" in.h5 --no-charge --out in.h5
    fi
    fresh
    refused "plot of what it writes" in_prediction.csv "$PROGRAM" plot --predictions \
        in_prediction.csv --out in
    refused "history of what it writes" in_history.csv "$PROGRAM" plot --history in_history.csv \
        --out ./in.png
    refused "evaluate's figures" in_prediction.csv "$PROGRAM" evaluate in_prediction.csv --plots in
    refused "the log's name" in.log.csv "$PROGRAM" train --data in.cmu --out n.st $net --log n.st
    cp ok.cmu n.st.checkpoint.members
    refused "the checkpoint's name" n.st.checkpoint.members "$PROGRAM" train --resume --members 2 \
        --data n.st.checkpoint.members --out n.st $net
    rm n.st.checkpoint.members
    cp ok.cmu n.st.member1
    refused "a member's name" n.st.member1 "$PROGRAM" train --members 2 --data n.st.member1 \
        --out n.st $net
    cp ok.cmu n.st.member0.log.csv
    refused "a member's log" n.st.member0.log.csv "$PROGRAM" train --members 2 \
        --data n.st.member0.log.csv --out n.st $net
    for log in n.st.log.csv n.log n.st.member1.log.csv; do
        option=
        [ $log = n.log ] && option="--log n.log"
        [ $log = n.st.member1.log.csv ] && option="--members 2"
        cp ok.cmu $log.new; echo old >$log
        refused "the new log's name" $log.new "$PROGRAM" train --data $log.new --out n.st $net \
            $option
    done
    rm -f n.*
    cp ok.cmu n_history.gp
    refused "a figure of the training" n_history.gp "$PROGRAM" train --data n_history.gp \
        --out n.st $net --plots n
    rm -f n.st* n_*
}
check "two tables" 2 "is the same file as --hits x.csv" "$PROGRAM" export ok.cmu --hits x.csv \
    --truth ./x.csv
check "two tables by a link" 2 "is the same file as" "$PROGRAM" export ok.cmu --hits sub/x.csv \
    --truth sub/here/sub/x.csv
check "table and figure" 2 "is the same file as" "$PROGRAM" evaluate ok.csv --csv p_ratio.gp \
    --plots p
absent "nothing is written" x.csv sub/x.csv p_ratio.csv
piped "two on standard output" 2 "is the same file as" \
    '"$PROGRAM" export ok.cmu --hits - --truth /dev/stdout >x.csv'
fresh
piped "standard output into an input" 2 "is the same file as" \
    '"$PROGRAM" export in.cmu --truth - >>in.cmu'
same "standard output into an input" ok.cmu in.cmu
piped "the table over another output" 2 "standard output" \
    '"$PROGRAM" evaluate ok.csv --csv e.csv >e.csv'
check "features in place" 0 "" "$PROGRAM" features in-soft-in.cmu --out ./in.cmu --threads 1
same "features in place" ok.cmu in.cmu
check "perturb in place" 0 "" "$PROGRAM" perturb in.cmu --noise 0.01 --out ./in.cmu
check "in place: a whole file" 0 "are verified" "$PROGRAM" info in.cmu
check "nowhere, twice" 0 "" "$PROGRAM" export ok.cmu --hits /dev/null --truth /dev/null

# No option that names a file is left out: its line, or those up to the next, have .file.
awk 'function look() {
        if (text ~ /value *= *"[A-Za-z]*(FILE|\.csv|\.cmu|\.safetensors|\.h5)/ \
            && text !~ /\.file = /) print from ": " text
        text = "" }
    FNR == 1 || /\{ \.name = / { look() }
    /\.type = TOOL_STRING/ { from = FILENAME ":" FNR; text = " " }
    text != "" { text = text $0 }
    END { look() }' "$HERE"/../tools/*.c >unclaimed
[ -s unclaimed ] && fail "options without .file" "$(cat unclaimed)" || pass

# ---------------------------------------------------------------- one writer

# until_there FILE: 10 s at most
until_there()
{
    n=0
    while [ ! -e "$1" ] && [ $n -lt 200 ]; do
        sleep 0.05
        n=$((n + 1))
    done
}
long="$PROGRAM train --data ok.cmu --out j.st $small --epochs"
$long 100000 --stop-after 100000 >/dev/null 2>job.err &
job=$!
until_there j.st.checkpoint
# shellcheck disable=SC2086
{
    check "the same training" 4 "process $job (calomu train)" $long 2
    check "its log" 4 "another run is writing it" "$PROGRAM" train --data ok.cmu --out k.st $net \
        --log j.st.log.csv
    check "its checkpoint" 4 "another run is writing it" "$PROGRAM" train --data ok.cmu --out k.st \
        $net --checkpoint ./j.st.checkpoint
    check "its model, of another verb" 4 "another run is writing it" "$PROGRAM" predict \
        --model ok.st --data ok.cmu --out sub/../j.st --threads 1
    check "another training meanwhile" 0 "" "$PROGRAM" train --data ok.cmu --out k.st $net
}
same "another training meanwhile" ok.st k.st
kill -9 $job
wait $job 2>/dev/null
[ -e .j.st.calomu-lock ] && pass || fail "a killed run cannot remove its lock" "$(ls -A)"
rm -f j.st.checkpoint
check "after kill -9, at once" 0 "" $long 100000 --stop-after 3
rm -f j.st*
absent "no lock is left" .j.st.calomu-lock .j.st.log.csv.calomu-lock .j.st.checkpoint.calomu-lock
mkfifo pipe.csv
"$PROGRAM" import --hits pipe.csv $unit --out i.cmu >/dev/null 2>&1 &
job=$!
until_there .i.cmu.calomu-lock
check "a second import" 4 "process $job (calomu import)" "$PROGRAM" import --hits h.csv $unit \
    --out i.cmu
sed 's/^host .*/host elsewhere/' .i.cmu.calomu-lock >lock
kill -9 $job
wait $job 2>/dev/null
cp lock .i.cmu.calomu-lock
check "of another host" 4 "counts as dead" "$PROGRAM" import --hits h.csv $unit --out i.cmu
touch -d '-3 minutes' .i.cmu.calomu-lock
check "of another host, long ago" 0 "" "$PROGRAM" import --hits h.csv $unit --out i.cmu
absent "the lock is gone" .i.cmu.calomu-lock

# ---------------------------------------------------------------- signals, limits of the system

(trap '' HUP; $long 100000 --stop-after 100000 >/dev/null 2>&1; echo $? >code) &
until_there j.st.checkpoint
job=$(sed -n 's/^pid //p' .j.st.calomu-lock)
kill -HUP "$job"
sleep 0.3
kill -0 "$job" && pass || fail "nohup: HUP ended it"
kill -USR2 "$job"
wait
[ "$(cat code)" -eq 85 ] && pass || fail "nohup, then USR2" "$(cat code)"
rm -f j.st*
"$PROGRAM" evaluate pipe.csv --csv e.csv >/dev/null 2>&1 &
job=$!
until_there .e.csv.calomu-lock
kill $job
wait $job
code=$?
[ $code -eq 143 ] && pass || fail "TERM ends evaluate" "$code"
absent "TERM: nothing is left" .e.csv.calomu-lock
piped "a limit of file sizes" 4 "File too large" \
    'ulimit -f 8; "$PROGRAM" export ok.cmu --hits big.csv'
absent "a limit of file sizes: nothing is left" big.csv .big.csv.*
name=$(printf 'no\033[31msuch\nfile\233')
check "control bytes in a message" 4 'no\x1b[31msuch\x0afile\x9b' "$PROGRAM" info "$name"
grep -q "$(printf '\033')" err && fail "an escape sequence on stderr" || pass
cp ok.cmu "$name"
check "control bytes in a table" 0 'no\x1b[31msuch\x0afile\x9b: data' "$PROGRAM" info "$name"
grep -q "$(printf '\033')" out && fail "an escape sequence on stdout" || pass

# closed: every combination of closed standard streams; the data are as ever, the code is right
for closed in "0<&-" "1>&-" "2>&-" "0<&- 1>&-" "0<&- 2>&-" "1>&- 2>&-" "0<&- 1>&- 2>&-"; do
    rm -f c.cmu
    (eval "exec $closed"; exec "$PROGRAM" features plain.cmu --out c.cmu --threads 1)
    [ $? -eq 0 ] && pass || fail "closed $closed"
    same "closed $closed" ok.cmu c.cmu
    [ -x "$H5" ] || continue
    [ -s h5.cmu ] || "$H5" "$DATA/cut_geant4.h5" --no-charge --out h5.cmu 2>/dev/null
    (eval "exec $closed"; exec "$H5" "$DATA/cut_geant4.h5" --no-charge --out c.cmu)
    [ $? -eq 0 ] && pass || fail "import-h5, closed $closed"
    same "import-h5, closed $closed" h5.cmu c.cmu
done 2>/dev/null
if [ -x "$H5" ]; then
    piped "import-h5: help into a closed stream" 4 "standard output" '"$H5" --help >&-'
fi

# ---------------------------------------------------------------- calls that fail

if [ -n "$SANITIZED" ] ||
    ! $CC -shared -fPIC -w -o faults.so "$HERE/faults.c" -ldl 2>/dev/null; then
    skip "failing calls: a sanitizer, or no preloading here"
    cli_end
    exit
fi

# fails KIND CODE MOST COMMAND...: the n-th call of the kind fails, n = 1, 2 ...: CODE or harmless,
# with nothing half-written left
fails()
{
    kind=$1 code=$2 most=$3 n=0 bad=
    shift 3
    while [ $n -lt "$most" ] && [ -z "$bad" ]; do
        n=$((n + 1))
        rm -rf mark f
        mkdir f
        LD_PRELOAD=$PWD/faults.so FAULT=$kind FAULT_AT=$n FAULT_MARK=mark "$@" >out 2>err </dev/null
        got=$?
        [ -e mark ] || break
        [ $got -eq 0 ] || [ $got -eq "$code" ] || bad="exit code $got: $(tail -n 1 err)"
        left=$(ls -A f | grep 'tmp$')
        [ -z "$left" ] || bad="left: $left"
    done
    if [ -n "$bad" ]; then fail "call $n of $kind fails: $*" "$bad"; else pass; fi
    if [ $n -le 1 ]; then fail "no call of $kind failed: $*"; fi
}
# shellcheck disable=SC2086
for kind in m r o w f; do
    code=4
    [ $kind = m ] && code=5
    fails $kind $code 25 "$PROGRAM" features plain.cmu --out f/f.cmu --threads 1
    fails $kind $code 30 "$PROGRAM" import --hits h.csv --truth t.csv $unit --out f/i.cmu
    fails $kind $code 20 "$PROGRAM" export ok.cmu --hits f/h.csv --truth f/t.csv
    fails $kind $code 20 "$PROGRAM" train --data ok.cmu --out f/m.st $net
    fails $kind $code 25 "$PROGRAM" predict --model ok.st --data ok.cmu --out f/p.csv --threads 1
    fails $kind $code 25 "$PROGRAM" evaluate ok.csv --csv f/e.csv
    if [ -x "$H5" ]; then
        fails $kind $code 30 "$H5" "$DATA/cut_geant4.h5" --no-charge --out f/h.cmu
    fi
done
if [ -x "$H5" ]; then
    export FAULT_FROM=libhdf5
    fails r 4 100 "$H5" "$DATA/cut_geant4.h5" --no-charge --out f/h.cmu
    fails o 4 100 "$H5" "$DATA/cut_geant4.h5" --no-charge --out f/h.cmu
    unset FAULT_FROM
fi
fault()
{
    LD_PRELOAD=$PWD/faults.so FAULT=$1 FAULT_AT=$2 "$PROGRAM" features plain.cmu --threads "$3" \
        --out "$4"
}
check "no threads" 5 "the system gives 1 of 2 threads" fault t 0 2 x.cmu
piped "fsync of a redirected file" 4 "Input/output error" 'LD_PRELOAD=$PWD/faults.so FAULT=f \
    FAULT_AT=0 "$PROGRAM" export ok.cmu --truth /dev/stdout >o.csv'
piped "fsync of standard output" 4 "Input/output error" 'LD_PRELOAD=$PWD/faults.so FAULT=f \
    FAULT_AT=0 "$PROGRAM" export ok.cmu --truth - >o.csv'
piped "a pipe cannot be flushed" 0 "" '"$PROGRAM" export ok.cmu --truth /dev/stdout | cat >o.csv'
rm -f x.cmu
(fault k 1 1 x.cmu) >/dev/null 2>&1
[ "$(ls -A | grep -c '^\.x\.cmu\.')" -eq 2 ] && pass || fail "killed before the name" "$(ls -A)"
check "after the killed one" 0 "" "$PROGRAM" features plain.cmu --out x.cmu --threads 1
absent "what it left is swept" .x.cmu.*
same "after the killed one" ok.cmu x.cmu
cli_end
