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
    for (i = 0; i < 2000; i++) print i "," 100 + 1.5 * i "," (50 + 1.2 * i) * (i % 2 ? 1.1 : 0.9) }' \
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
    terminal "a training" "\] .* left  epoch 1/50, loss [0-9]*$" 80 3 "$PROGRAM" train --out t.st \
        --data "$DATA/muons.cmu" --folds 4 --batch 16 --checkpoint-minutes 9999
else
    skip "no pty in $PYTHON: the progress line was not looked at"
fi

cli_end
