#!/bin/sh
# cli_scanfit.sh - calomu scan-fit: known answers, numpy, bad files
#
#     sh tests/cli_scanfit.sh ./calomu testdata build/tmp
LC_ALL=${CLI_LOCALE:-C}
export LC_ALL
. "$(dirname "$0")/cli_lib.sh"
HERE=$(cd "$(dirname "$0")" && pwd)
BUILT=$(cd "${B:-build}" && pwd)
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_scanfit
cd "$TMP" || exit 1
PYTHON=${PYTHON:-python3}

if ! command -v "$PYTHON" >/dev/null; then
    skip "no python3 makes scans"
    cli_end
    exit $?
fi
if ! "$PYTHON" -c 'import numpy' 2>/dev/null; then
    skip "no numpy to compare with"
elif [ -x "$BUILT/test_scanfit" ]; then
    "$BUILT/test_scanfit" --numbers >numbers
    check "numpy: 1e-10" 0 "12 designs" "$PYTHON" "$HERE/scan_numpy.py" numbers
fi

# coefficient FILE OF FIT TERM VALUE TOLERANCE
coefficient()
{
    if awk -F, -v of="$2" -v fit="$3" -v term="$4" -v want="$5" -v tol="$6" '
        $2 == of && $3 == fit && $4 == term { d = $5 - want; found = d <= tol && -d <= tol }
        END { exit !found }' "$1"; then pass; else fail "$2 $3 $4: $5" "$(grep "$2,$3" "$1")"; fi
}

"$PYTHON" "$HERE/scan_made.py" exact.csv paper 0
check "Eqs. 2.1 and 2.2" 0 "120 settings" "$PROGRAM" scan-fit exact.csv --coefficients c.csv \
    --csv s.csv --calibration cal.csv --latex t.tex
for line in "slope 1 0.963" "slope I_s_e -0.299" "slope I_s_b -0.053" "slope s_b 0.091" \
            "intercept I -680" "intercept I_s_e 1098" "intercept I_s_b 2008"; do
    set -- $line
    coefficient c.csv "$1" paper "$(echo "$2" | sed 's/^I_/I /')" "$3" 1e-9
done
coefficient c.csv intercept physical S 25.5 0.1
check "correlation with S" 0 "correlation of intercept and S: 0.998" "$PROGRAM" scan-fit exact.csv
check "LaTeX" 0 'end{tabular}' cat t.tex
[ "$(wc -l <s.csv)" -eq 121 ] && pass || fail "lines of settings"
[ "$(wc -l <cal.csv)" -eq 1321 ] && pass || fail "lines of the calibration"

"$PYTHON" "$HERE/scan_made.py" noisy.csv physical 0.05
check "the physical model, with noise" 0 "physical" "$PROGRAM" scan-fit noisy.csv \
    --coefficients n.csv --calibration cal.csv --by bic
coefficient n.csv intercept physical S 25.5 0.2
# half 1 after half 0's line: below 5 of its errors (5% / 10 and the line's own)
if awk -F, 'NR > 1 && ($8 > 0.04 || $8 < -0.04) { bad = 1 } END { exit bad || NR < 1000 }' cal.csv
then pass; else fail "calibration on the other half"; fi

"$PYTHON" "$HERE/scan_made.py" draws.csv paper 0 3
check "several draws" 0 "draws of C" "$PROGRAM" scan-fit draws.csv
# slopes differ by 0.02 s_c between draws: 0.3 -> spread 0.006
check "the draw's own spread" 0 "0.00600" "$PROGRAM" scan-fit draws.csv

head -n 200 exact.csv >part.csv
check "an unfinished scan is fitted" 0 "not finished" "$PROGRAM" scan-fit part.csv
check "and nothing is made of few" 0 "left out" "$PROGRAM" scan-fit part.csv
head -n 3 exact.csv >none.csv
check "no lines" 3 "none.csv" "$PROGRAM" scan-fit none.csv
check "no file" 4 "missing.csv" "$PROGRAM" scan-fit missing.csv
sed 's/,mean,/,meen,/' exact.csv >bad.csv
check "a missing column" 3 "no column 'mean'" "$PROGRAM" scan-fit bad.csv
# broken LINE FIELD VALUE TEXT
broken()
{
    awk -F, -v OFS=, -v line="$1" -v field="$2" -v value="$3" \
        'NR == line { $field = value } { print }' exact.csv >bad.csv
    check "field $2: $3" 3 "$4" "$PROGRAM" scan-fit bad.csv
    if grep -q "bad.csv:$1" err; then pass; else fail "field $2: $3: the line" ""; fi
}
broken 9 12 nan "mean"
broken 9 12 inf "mean"
broken 9 12 word "mean"
broken 9 5 -1 "noise"
broken 9 10 2 "half"
broken 9 2 1.5 "draw"
broken 9 9 0 "energy"
broken 9 13 -1 "mean_error"
broken 9 4 0.7 "miscalibration"
(cat exact.csv; sed -n 9p exact.csv) >twice.csv
check "an equal line" 0 "1 lines are there twice" "$PROGRAM" scan-fit twice.csv
(cat exact.csv; sed -n 9p exact.csv | awk -F, -v OFS=, '{ $12 = 77; print }') >bad.csv
check "another line of one key" 3 "with other numbers" "$PROGRAM" scan-fit bad.csv
(head -n 9 exact.csv; head -c 70000 /dev/zero | tr '\0' 1; echo) >bad.csv
check "a giant line" 3 "longer than" "$PROGRAM" scan-fit bad.csv
check "an output that is the input" 2 "" "$PROGRAM" scan-fit exact.csv --csv exact.csv

"$PROGRAM" plot --scan draws.csv --out f >out 2>err
for figure in response scales linearity noise calibration; do
    if [ -s f_$figure.csv ] && [ -s f_$figure.gp ] && { ! command -v gnuplot >/dev/null ||
        [ -s f_$figure.svg ]; }; then pass; else fail "figure $figure" ""; fi
done
if grep -qi "warning" err; then fail "gnuplot warns" "$(cat err)"; else pass; fi
check "figures of a bad scan" 3 "bad.csv" "$PROGRAM" plot --scan bad.csv --out g
cli_end
