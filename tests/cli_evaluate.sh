#!/bin/sh
# cli_evaluate.sh - ranges in either form, the table and its errors, help topics, the progress line
#
#     sh tests/cli_evaluate.sh ./calomu testdata build/tmp
LC_ALL=${CLI_LOCALE:-C}
export LC_ALL
. "$(dirname "$0")/cli_lib.sh"
TESTS=$(cd "$(dirname "$0")" && pwd)
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_evaluate
cd "$TMP" || exit 1

# ---- ranges: 10,500 and 10:500 are the same, whichever verb
awk 'BEGIN { print "event,true_energy,pred"
    for (i = 0; i < 2000; i++)
        print i "," 100 + 1.5 * i "," (50 + 1.2 * i) * (0.8 + 0.4 * (i * 7919 % 1000) / 1000) }' \
    >broad.csv
check "a comma" 0 "" "$PROGRAM" evaluate broad.csv --range 200,3000
mv out comma
check "a colon" 0 "" "$PROGRAM" evaluate broad.csv --range 200:3000
same "evaluate --range" comma out
check "plot, a comma" 0 "" "$PROGRAM" plot --predictions broad.csv --range 2e2,3e3 --out a
check "plot, a colon" 0 "" "$PROGRAM" plot --predictions broad.csv --range=2e2:3e3 --out b
same "plot --range" a_ratio.csv b_ratio.csv
check "simulate, a comma" 0 "" "$PROGRAM" simulate --no-library --n 2 --energy 20,40 --out a.cmu
check "simulate, a colon" 0 "" "$PROGRAM" simulate --no-library --n 2 --energy 20:40 --out b.cmu
same "simulate --energy" a.cmu b.cmu
check "train, a comma" 0 "" "$PROGRAM" train --data "$DATA/muons.cmu" --inputs features --out a.st \
    --folds 4 --batch 16 --epochs 1 --loss-range 40,8000 --range 200,4000
check "train, a colon" 0 "" "$PROGRAM" train --data "$DATA/muons.cmu" --inputs features --out b.st \
    --folds 4 --batch 16 --epochs 1 --loss-range 40:8000 --range 200:4000
same "train --loss-range and --range" a.st b.st
for range in 500 500, :500 500:100 100:100 100-500 "100;500" 100::500 1:2:3 1,2,3 nan:5 5:inf; do
    check "--range $range" 2 "--range $range" "$PROGRAM" evaluate broad.csv --range "$range"
    check "--loss-range $range" 2 "--loss-range $range" "$PROGRAM" train --data a.cmu --out x.st \
        --loss-range "$range"
done
for range in 500, :500 500:100 100-500 "100;500" 100::500 1:2:3 1,2,3 nan:5 5:inf; do
    check "--energy $range" 2 "--energy $range" "$PROGRAM" simulate --n 1 --out x.cmu \
        --energy "$range"
done
# A minus sign is a number's, not an option's.
check "below zero" 2 "range of evaluation must rise from 0" "$PROGRAM" evaluate broad.csv \
    --range -5:500
check "both below zero" 2 "range of evaluation must rise from 0" "$PROGRAM" evaluate broad.csv \
    --range -5,-2
check "below zero, simulate" 2 "from 1 to 10000 GeV" "$PROGRAM" simulate --n 1 --out x.cmu \
    --energy -5:10
check "one energy" 0 "" "$PROGRAM" simulate --no-library --n 1 --energy 20 --out c.cmu
absent "nothing left" x.st x.cmu

# ---- muons of other energies than the range: said, with a way out that is silent
awk -F, -v OFS=, 'NR > 1 { $2 /= 10; $3 /= 10 } 1' broad.csv >low.csv
check "a range that is mostly empty" 0 \
    "low.csv: no muon has a true energy in 94.6% of 100 to 4000 GeV; they have 10 to 309.85 GeV" \
    "$PROGRAM" evaluate low.csv --fit-bins 300
check "its own range" 0 "" "$PROGRAM" evaluate low.csv --range 10,310
grep -q "another --range" err && fail "its own range" "$(cat err)" || pass
check "only the muons to evaluate" 0 "low.csv: no muon has" "$PROGRAM" evaluate low.csv \
    --fit broad.csv --range 100,3000
[ "$(grep -c "no muon has" err)" -eq 1 ] && pass || fail "said of one file" "$(cat err)"
awk -F, -v OFS=, 'NR > 1 { $2 /= 1000 } 1' broad.csv >tev.csv
check "TeV" 3 "no muon has a true energy in 100% of" "$PROGRAM" evaluate tev.csv
check "plot says it" 0 "low.csv: no muon has" "$PROGRAM" plot --predictions low.csv --out a

# ---- the table: errors, and at most 79 columns whatever the numbers are
check "errors" 0 "+-: standard deviation over 200 resamplings" "$PROGRAM" evaluate broad.csv \
    --csv table.csv
if grep -q '^mean improvement (MI) [0-9.]* +- [0-9.]* points$' out; then pass; else fail "MI"; fi
if grep -q '^worst combined resolution [0-9.]* +- [0-9.]*%$' out; then pass; else fail "worst"; fi
if grep -q '^295\.\.490  .* [0-9.]* +- [0-9.]* .* [0-9.]* +- [0-9.]*$' out
then pass; else fail "a bin" "$(cat out)"; fi
holds "columns" table.csv "calorimeter,tracker,combined,calorimeter_error,combined_error"
if awk -F, 'NR > 1 && $5 && !($11 > 0 && $11 < $8 && $12 > 0 && $12 < $10) { bad = 1 }
    END { exit bad || NR != 21 }' table.csv; then pass; else fail "errors in the CSV"; fi
if grep -q '^3805,4000,.*,0,.*,,$' table.csv; then pass; else fail "an empty bin"; fi
mv out first
for threads in 1 2 5; do
    check "$threads threads" 0 "" "$PROGRAM" evaluate broad.csv --threads $threads
    same "$threads threads" first out
done
(head -n 1 broad.csv; tail -n +2 broad.csv | sort -t, -k3n) >sorted.csv
check "another order" 0 "" "$PROGRAM" evaluate sorted.csv --csv sorted_table.csv
cut -d, -f11,12 table.csv >a
cut -d, -f11,12 sorted_table.csv >b
# the line's last digits, from sums in the order of the rows, enter through the centre alone
same "errors in another order" a b
check "another seed" 0 "" "$PROGRAM" evaluate broad.csv --seed 5
if cmp -s first out; then fail "another seed" "the same errors"; else pass; fi
check "without errors" 0 "" "$PROGRAM" evaluate broad.csv --errors 0 --csv plain.csv
if grep -q 'MI.*+-\|%.*+-\|resamplings' out; then fail "without errors" "$(cat out)"; else pass; fi
if [ "$(cut -d, -f1-10 table.csv | cksum)" = "$(cut -d, -f1-10 plain.csv | cksum)" ]
then pass; else fail "errors change nothing else" "$(diff table.csv plain.csv)"; fi
if grep -qv ',,$\|combined_error' plain.csv; then fail "empty columns"; else pass; fi
check "a fit to others" 0 "+-: standard" "$PROGRAM" evaluate sorted.csv --fit broad.csv
awk 'BEGIN { print "true_energy,pred"; for (i = 0; i < 4; i++) print 500 "," i * 90 + 1
    for (i = 0; i < 4; i++) print 600 "," i * 80 + 30 }' >flat.csv
check "no errors beside a line that may fall" 0 "no errors: in some of the 200 resamplings" \
    "$PROGRAM" evaluate flat.csv --points
if grep -q '%.*+-' out; then fail "no errors" "$(cat out)"; else pass; fi

# narrow WHAT ARGUMENT...: no line of the table is longer than 79
narrow()
{
    cli_what=$1
    shift
    check "$cli_what" 0 "mean improvement" "$PROGRAM" evaluate "$@"
    if awk 'length > 79 { bad = 1 } END { exit bad }' out; then pass
    else fail "$cli_what" "$(awk 'length > 79' out)"; fi
}
narrow "the usual" broad.csv
narrow "many bins" broad.csv --bins 977 --range 100.123:3000.789 --fit-bins 17
narrow "the usual, to 8 TeV" broad.csv --range 50,8000
# scaled ENERGY-FACTOR PREDICTION-FACTOR
scaled()
{
    awk -F, -v OFS=, -v e="$1" -v p="$2" 'NR > 1 { $2 *= e; $3 = $3 * p * (NR % 7 == 0 ? 9 : 1) }
        { print }' broad.csv >scaled.csv
}
scaled 1000 1
narrow "MeV for truth" scaled.csv --range 100000,4000000
scaled 1 100000
narrow "huge predictions" scaled.csv --range 100,4000
scaled 1e12 1e-12
narrow "huge energies" scaled.csv --range 0,4e15
scaled 1e-6 1e-6
narrow "tiny energies" scaled.csv --range 0.0001,0.004

# ---- help: topics, and no text wider than a terminal of 80 columns
for topic in mi folds features energies files; do
    check "help lists $topic" 0 "    $topic " "$PROGRAM" help
    check "help $topic" 0 "" "$PROGRAM" help $topic
    cp out $topic
done
holds "MI" mi "Mean improvement (MI)"
holds "Eq. (4)" mi "calo = sqrt((median - E)^2 + c68^2) / E"
holds "its combination" mi "comb = 1 / sqrt(1/calo^2 + 1/track^2)"
# options TOPIC VERB: what the topic names is there
options()
{
    "$PROGRAM" "$2" --help >options
    for option in $(grep -o -e '--[a-z-]*' "$1"); do
        grep -q -e "^  $option " options || fail "help $1 names $option" "$2 has none"
    done
    pass
}
options mi evaluate
options folds train
options features features
holds "features: the verb's options too" features "Usage: calomu features"
check "one muon" 0 "" "$PROGRAM" simulate --no-library --n 1 --energy 20 --features --out f.cmu
check "its features" 0 "" "$PROGRAM" export f.cmu --features f.csv
head -n 1 f.csv | tr , '\n' | grep -v '^event$' >names
sed -n 's/^V\([0-9]*\) *\([a-z][a-z0-9_]*\) .*/\2/p' features >names_of_help
same "28 names in order" names names_of_help
if [ "$(grep -c . names)" = 28 ]; then pass; else fail "28 features" "$(cat names)"; fi
if grep -q '^V24 emeas            GeV   momentum' features; then pass; else fail "a unit"; fi
check "a topic is no verb" 2 "no verb 'mi'; calomu help mi explains it" "$PROGRAM" mi
check "nearly a topic" 2 "no verb 'fold', and no topic; did you mean 'folds'?" "$PROGRAM" help fold
check "nearly a verb" 2 "no verb 'trian', and no topic; did you mean 'train'?" "$PROGRAM" help trian
check "neither" 2 "calomu help lists them" "$PROGRAM" help qqqqqq
check "two words" 2 "'mi' is too much" "$PROGRAM" help folds mi
for word in "" mi folds $("$PROGRAM" help | sed -n 's/^  \([a-z-]*\) .*/\1/p' | grep -v help); do
    # shellcheck disable=SC2086
    "$PROGRAM" help $word >out 2>err
    if awk 'length > 79 { bad = 1 } END { exit bad || NR < 5 }' out; then pass
    else fail "help $word" "$(awk 'length > 79' out)"; fi
done

# ---- one word of what failed
(echo true_energy,pred; echo 500,1; echo 500,1) >one.csv
check "debiasing, said once" 3 "one.csv: debiasing: 0 of 39 bins" "$PROGRAM" evaluate one.csv
check "predict says it once too" 3 "one.csv: debiasing: 0 of 39 bins" "$PROGRAM" predict \
    --model a.st --data "$DATA/muons.cmu" --out x.csv --fit one.csv

# ---- the progress line is never wider than the terminal, also after it has been resized
PYTHON=${PYTHON:-python3}
if $PYTHON -c 'import pty, termios' 2>/dev/null; then
    # terminal WHAT PATTERN COLUMNS LINES COMMAND...; the pattern is of grep
    terminal()
    {
        cli_what=$1 cli_pattern=$2
        shift 2
        $PYTHON "$TESTS/terminal.py" "$@" >out 2>err || fail "$cli_what" "$(cat out)"
        if grep -q "$cli_pattern" out; then pass; else fail "$cli_what" "$(cat out)"; fi
    }
    work="$PROGRAM simulate --no-library --n 100000 --energy 100,200 --chunk 1 --out t.cmu"
    # shellcheck disable=SC2086
    {
        terminal "80 columns" "\[[#.]\{24\}\]   0%  .* left$" 80 3 $work
        terminal "narrower" "^40 simulation [[#. ]*\]*   0%  .* left$" 80,40 4 $work
        terminal "20 columns" "^20 simulation   0%  ..$" 20 2 $work
        terminal "2 columns" "^2 s$" 2 2 $work
        terminal "no width" "\[[#.]\{24\}\]   0%" 0 2 $work
        COLUMNS=30 terminal "COLUMNS" "^0 simulation   0%  [0-9:]* l" 0 2 $work
        COLUMNS=none terminal "no number" "\[[#.]\{24\}\]   0%" 0 2 $work
    }
    terminal "a training" "\] .* left  epoch [0-9]*/9999, loss [0-9.]*" 80 3 "$PROGRAM" train \
        --out t.st --data "$DATA/muons.cmu" --inputs features --folds 4 --batch 16 --epochs 9999 \
        --stop-after 9999
else
    skip "no pty in $PYTHON: the progress line was not looked at"
fi

cli_end
