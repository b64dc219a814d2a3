#!/bin/sh
# cli_simulate.sh - calomu simulate and calomu perturb: options, the same bytes for any threads and
# chunks, parts of a set, signals, full disks, electronics
#
# usage: cli_simulate.sh PROGRAM [TESTDATA [TMPDIR]]
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_simulate
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive
export OMP_WAIT_POLICY

# Without the library the start is quick; low energies are, too.
quick="--no-library --energy 10:60"

# ---------------------------------------------------------------- what makes no sense

check "no number" 2 "--n N is missing" "$PROGRAM" simulate --out a.cmu
check "no output" 2 "--out OUT.cmu is missing" "$PROGRAM" simulate --n 1
check "no muons" 2 "must be" "$PROGRAM" simulate --n 0 --out a.cmu
check "negative number" 2 "not a whole number" "$PROGRAM" simulate --n -3 --out a.cmu
check "negative energy" 2 "from 1 to 10000 GeV" "$PROGRAM" simulate --n 1 --out a.cmu --energy=-5:10
check "LOW above HIGH" 2 "LOW is above HIGH" "$PROGRAM" simulate --n 1 --out a.cmu --energy 90:80
check "energy too high" 2 "from 1 to 10000 GeV" "$PROGRAM" simulate --n 1 --out a.cmu \
    --energy 50:20000
check "no range" 2 "must be LOW,HIGH" "$PROGRAM" simulate --n 1 --out a.cmu --energy 50-80
check "energy in letters" 2 "must be LOW,HIGH" "$PROGRAM" simulate --n 1 --out a.cmu --energy nan
check "range and list" 2 "not both" "$PROGRAM" simulate --n 1 --out a.cmu --energy 50:80 \
    --energies 50,60
check "empty list item" 2 "with commas" "$PROGRAM" simulate --n 1 --out a.cmu --energies 50,,60
check "negative in a list" 2 "from 1 to 10000" "$PROGRAM" simulate --n 1 --out a.cmu \
    --energies 50,-60
check "zero cells" 2 "whole and positive" "$PROGRAM" simulate --n 1 --out a.cmu \
    --geometry 0,32,32,40,4,4
check "a calorimeter of 200 m" 2 "20 m" "$PROGRAM" simulate --n 1 --out a.cmu \
    --geometry 50,32,32,4000,4,4
check "charge" 2 "must be one of" "$PROGRAM" simulate --n 1 --out a.cmu --charge neutral
check "convention alone" 2 "needs --features" "$PROGRAM" simulate --n 1 --out a.cmu \
    --convention text
check "active share" 2 "must be" "$PROGRAM" simulate --n 1 --out a.cmu --active 1.5
check "noise below zero" 2 "must be" "$PROGRAM" simulate --n 1 --out a.cmu --noise=-1
check "folder that is not there" 4 "cannot create" "$PROGRAM" simulate --n 1 --out none/a.cmu
absent "nothing was written" a.cmu none

# ---------------------------------------------------------------- the same bytes

check "one thread" 0 "" "$PROGRAM" simulate $quick --n 30 --out one.cmu --threads 1 \
    --features
check "two threads, small chunks" 0 "" "$PROGRAM" simulate $quick --n 30 --out two.cmu \
    --threads 2 --chunk 1 --features
check "seven threads" 0 "" "$PROGRAM" simulate $quick --n 30 --out seven.cmu --threads 7 \
    --chunk 11 --features
same "one and two threads" one.cmu two.cmu
same "one and seven threads" one.cmu seven.cmu
check "verified" 0 "all 30 muons are verified" "$PROGRAM" info one.cmu

# losses: floats, which round by 6e-8 of themselves, add up; what is deposited is in the hits, but
# for cells below 1 keV
check "losses" 0 "" "$PROGRAM" export one.cmu --losses one.csv --hits one_hits.csv \
    --truth one_truth.csv
holds "the columns of the losses" one.csv event,lost,deposited,leaked,unseen
awk -F, 'NR > 1 { d = ($2 - $3 - $4 - $5) / $2; if (!(d < 1e-6 && d > -1e-6 && $2 > 1)) bad++ }
         END { exit bad > 0 || NR != 31 }' one.csv && pass ||
    fail "lost = deposited + leaked + unseen"
awk -F, 'FNR == 1 { file++; next } file == 1 { sum[$1] += $5; next }
         { d = sum[$1] / $3; if (!(d > 0.999 && d < 1.000001)) bad++ }
         END { exit bad > 0 || FNR != 31 }' one_hits.csv one.csv && pass ||
    fail "deposited: the sum of the hits"
check "all of it as CSV and back" 0 "" "$PROGRAM" import --hits one_hits.csv \
    --truth one_truth.csv --losses one.csv --energy-unit GeV --out one_back.cmu
check "with its features" 0 "" "$PROGRAM" features one_back.cmu --out one_back.cmu
same "all of it as CSV and back" one.cmu one_back.cmu
check "their ranges" 0 "energy leaked" "$PROGRAM" info one.cmu

# features: those that the verb features computes
check "without features" 0 "" "$PROGRAM" simulate $quick --n 30 --out bare.cmu --threads 1
check "features afterwards" 0 "" "$PROGRAM" features bare.cmu --out after.cmu --threads 1
same "features now or later" one.cmu after.cmu

# a set in parts: the same muons
check "the first part" 0 "" "$PROGRAM" simulate $quick --n 13 --out part1.cmu --threads 1
check "the second part" 0 "" "$PROGRAM" simulate $quick --n 17 --first 13 --out part2.cmu \
    --threads 1
"$PROGRAM" export bare.cmu --hits whole_hits.csv --truth whole_truth.csv 2>/dev/null
"$PROGRAM" export part1.cmu --hits p1.csv --truth t1.csv 2>/dev/null
"$PROGRAM" export part2.cmu --hits p2.csv --truth t2.csv 2>/dev/null
awk -F, -v OFS=, 'FNR == 1 { if (NR == 1) print; file++; next } file == 2 { $1 += 13 } { print }' \
    p1.csv p2.csv >parts_hits.csv
awk -F, -v OFS=, 'FNR == 1 { if (NR == 1) print; file++; next } file == 2 { $1 += 13 } { print }' \
    t1.csv t2.csv >parts_truth.csv
[ -s whole_hits.csv ] && pass || fail "export"
same "hits of the parts" whole_hits.csv parts_hits.csv
same "truth of the parts" whole_truth.csv parts_truth.csv
"$PROGRAM" export part2.cmu --losses l2.csv 2>/dev/null
awk -F, 'NR > 14 { sub(/^[^,]*/, ""); print }' one.csv >whole_losses.csv
awk -F, 'NR > 1 { sub(/^[^,]*/, ""); print }' l2.csv >parts_losses.csv
[ -s whole_losses.csv ] && pass || fail "export of the losses"
same "losses of a part" whole_losses.csv parts_losses.csv
check "another seed" 0 "" "$PROGRAM" simulate $quick --n 30 --out other.cmu --threads 1 --seed 2
cmp -s bare.cmu other.cmu && fail "another seed, other muons" || pass

# ---------------------------------------------------------------- energies, charge, field

check "energies in turn" 0 "" "$PROGRAM" simulate --no-library --n 7 --first 1 \
    --energies 10,20,40 --charge plus --out turn.cmu --threads 1
"$PROGRAM" export turn.cmu --truth turn.csv 2>/dev/null
awk -F, 'NR > 1 { split("10 20 40", e, " "); if ($2 != e[(NR - 1) % 3 + 1] || $5 != 1) bad++ }
         END { exit bad > 0 || NR != 8 }' turn.csv && pass || fail "energies in turn" \
    "$(head -n 4 turn.csv)"
check "another calorimeter" 0 "" "$PROGRAM" simulate --no-library --n 5 --energy 20:20 \
    --geometry 10,6,7,30,5,6,0,-100,50,1 --field 3 --active 0.9 --charge minus \
    --no-photonuclear --out small.cmu --threads 1
check "its cells" 0 "10 x 6 x 7" "$PROGRAM" info small.cmu
check "its field" 0 "3 T" "$PROGRAM" info small.cmu

# ---------------------------------------------------------------- electronics

electronics="--miscalibrate 0.2 --bias 0.05 --noise 0.4 --zero 0.6 --group-calibration 0.5 \
--group-noise 0.8"
check "electronics in the simulation" 0 "" "$PROGRAM" simulate $quick --n 13 --out now.cmu \
    --threads 2 $electronics
check "electronics afterwards" 0 "" "$PROGRAM" perturb part1.cmu --out later.cmu $electronics
same "now or later" now.cmu later.cmu
check "a part of a set" 0 "" "$PROGRAM" perturb part2.cmu --first 13 --out later2.cmu $electronics
check "losses of perturbed muons" 0 "" "$PROGRAM" export later2.cmu --losses later2.csv
same "losses stay the truth" l2.csv later2.csv
check "with features" 0 "computed again" "$PROGRAM" perturb one.cmu --out later3.cmu --features \
    --zero 1
check "nothing to do" 2 "no effect" "$PROGRAM" perturb one.cmu --out none.cmu
check "no such file" 4 "" "$PROGRAM" perturb nowhere.cmu --out none.cmu --zero 1
absent "nothing was written" none.cmu
check "dense data are announced" 0 "nearly every cell" "$PROGRAM" simulate $quick --n 2 \
    --out dense.cmu --noise 1 --threads 1

# calibration: one factor per cell, the same for every muon, in [0.8, 1.2], its variance s^2/5
check "calibration alone" 0 "" "$PROGRAM" perturb bare.cmu --out factor.cmu --miscalibrate 0.2
"$PROGRAM" export factor.cmu --hits factor.csv 2>/dev/null
paste -d, whole_hits.csv factor.csv | awk -F, 'NR > 1 {
        if ($2 != $7 || $3 != $8 || $4 != $9) bad++
        r = $10 / $5; cell = $2 "," $3 "," $4
        if (!(r > 0.7999 && r < 1.2001)) bad++
        if (cell in f) { if (!(r / f[cell] < 1.0001 && r / f[cell] > 0.9999)) bad++ }
        else { f[cell] = r; n++; s += r; q += r * r } }
    END { v = q / n - (s / n)^2
          if (!(v > 0.0072 && v < 0.0088 && s / n > 0.99 && s / n < 1.01)) bad++
          exit bad > 0 || n < 1000 }' && pass || fail "calibration factors"
# zero suppression drops what is below, and nothing else
check "suppression alone" 0 "" "$PROGRAM" perturb bare.cmu --out cut.cmu --zero 1
"$PROGRAM" export cut.cmu --hits cut.csv 2>/dev/null
awk -F, 'NR == 1 || $5 >= 0.001' whole_hits.csv >expected.csv
same "suppression" expected.csv cut.csv

# ---------------------------------------------------------------- full disks, signals

if [ -w /dev/full ]; then
    check "a full disk" 4 "No space" "$PROGRAM" simulate $quick --n 40 --out /dev/full --threads 1
else
    skip "no /dev/full"
fi

# begun FILE: waits until 100 kB of its muons are written, 20 s at most
begun()
{
    cli_n=0
    while [ "$(cat ".$1".*.tmp 2>/dev/null | wc -c)" -lt 100000 ] && [ $cli_n -lt 200 ]; do
        sleep 0.1
        cli_n=$((cli_n + 1))
    done
}
"$PROGRAM" simulate $quick --n 100000 --out stop.cmu --threads 2 2>stop.log &
pid=$!
begun stop.cmu
kill -USR1 $pid
wait $pid
code=$?
[ $code -eq 85 ] && pass || fail "stopped: code $code" "$(tail -n 2 stop.log)"
holds "how to go on" stop.log "makes the rest"
check "what was complete is there" 0 "are verified" "$PROGRAM" info stop.cmu
n=$("$PROGRAM" info stop.cmu 2>/dev/null | awk '$1 == "muons" && NF == 2 { print $2 }')
[ "${n:-0}" -gt 0 ] && pass || fail "muons before the stop" "$n"
check "the same without a stop" 0 "" "$PROGRAM" simulate $quick --n "${n:-1}" --out again.cmu \
    --threads 2
same "stopped or not" stop.cmu again.cmu
"$PROGRAM" simulate $quick --n 100000 --out killed.cmu --threads 1 2>/dev/null &
pid=$!
begun killed.cmu
kill -9 $pid
wait $pid 2>/dev/null
absent "killed: nothing under the name" killed.cmu
check "after the killed one" 0 "" "$PROGRAM" simulate $quick --n 1 --out killed.cmu --threads 1
absent "what it left is swept" .killed.cmu.*

# ---------------------------------------------------------------- pictures

check "two muons as a picture" 0 "" "$PROGRAM" plot --event bare.cmu --numbers 3,29 --out muons
holds "their cells" muons_event.csv "z,x,y (mm),energy (GeV)"
holds "their energies" muons_event.gp "set title 'Muon 29: "
awk -F, '/^#/ { next } NF == 0 { if (last) blocks++; last = 0; next }
         { last = 1; if (!($4 > 0.001 && $1 > 0 && $1 < 2032 && $2 > -60 && $2 < 60)) bad++ }
         END { exit bad > 0 || blocks != 2 }' muons_event.csv && pass || fail "rows of the picture"
check "no such muon" 2 "" "$PROGRAM" plot --event bare.cmu --numbers 30 --out muons
check "numbers in letters" 2 "one to four" "$PROGRAM" plot --event bare.cmu --numbers a --out muons

# ---------------------------------------------------------------- the library, memory

check "with the library" 0 "3 muons" "$PROGRAM" simulate --n 3 --out library.cmu --threads 2
check "on one thread" 0 "" "$PROGRAM" simulate --n 3 --out library1.cmu --threads 1
same "the library for any threads" library.cmu library1.cmu
if grep -q __asan_init "$PROGRAM" || grep -q __tsan_init "$PROGRAM"; then
    skip "a limit on memory under a sanitizer"
else
    piped "200 MB" 0 "" 'ulimit -v 200000 && "$PROGRAM" simulate --n 5 --out m.cmu --threads 1'
    # muons go to the file as they are made: with noise in every cell these are 82 MB of hits
    for n in 40 400; do
        piped "80 MB for $n muons" 0 "$n muons" 'ulimit -v 80000 && "$PROGRAM" simulate \
            --no-library --energy 10:10 --n $n --noise 0.1 --out m.cmu --threads 1'
    done
    rm -f m.cmu
fi
cli_end
