#!/bin/sh
# cli_scan.sh - calomu scan: resume, threads, parts, bad input
#
#     sh tests/cli_scan.sh ./calomu testdata build/tmp
LC_ALL=${CLI_LOCALE:-C}
export LC_ALL
. "$(dirname "$0")/cli_lib.sh"
DATA=$(cd "${2:-testdata}" && pwd)
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_scan
cd "$TMP" || exit 1
scan="--model $DATA/model.safetensors --data $DATA/points.cmu --noise 0,70 --zero 42"

check "a scan" 0 "" "$PROGRAM" scan $scan --out one.csv --threads 1
[ "$(grep -c '^0,' one.csv)" -eq 44 ] && pass || fail "two lines per energy and setting"
check "two threads" 0 "" "$PROGRAM" scan $scan --out two.csv --threads 2
same "threads" one.csv two.csv
# as a kill leaves it: within the head, within a line, between the halves
for bytes in 40 1200 2500 3111; do
    head -c $bytes one.csv >torn.csv
    check "goes on after $bytes bytes" 0 "" "$PROGRAM" scan $scan --out torn.csv
    same "the same bytes" one.csv torn.csv
done
: >killed.csv
"$PROGRAM" scan $scan --out killed.csv --threads 1 2>/dev/null &
scanning=$!
tries=0
while [ "$(grep -c '^0,' killed.csv 2>/dev/null)" -lt 6 ] 2>/dev/null && [ $tries -lt 600 ]; do
    sleep 0.05
    tries=$((tries + 1))
done
kill -9 $scanning 2>/dev/null
wait $scanning 2>/dev/null
lines=$(grep -c '^0,' killed.csv)
if [ "$lines" -lt 6 ]; then
    fail "no line within 30 s"
elif [ "$lines" -lt 44 ]; then
    pass
else
    skip "the scan was done before it could be killed"
fi
check "goes on after kill -9" 0 "" "$PROGRAM" scan $scan --out killed.csv
same "the same bytes after kill -9" one.csv killed.csv
cp "$DATA/points.cmu" points.cmu
check "another path to the same file" 0 "" "$PROGRAM" scan --model $DATA/model.safetensors \
    --data points.cmu --noise 0,70 --zero 42 --out killed.csv
same "it is known by its contents" one.csv killed.csv
rm -f points.cmu
check "done already" 0 "" "$PROGRAM" scan $scan --out torn.csv
same "nothing is added" one.csv torn.csv
check "other options" 3 "another model, data or options" "$PROGRAM" scan $scan --seed 2 \
    --out torn.csv
same "it stays" one.csv torn.csv
for k in 1 2 3; do
    check "part $k" 0 "" "$PROGRAM" scan $scan --part $k/3 --out part$k.csv
done
check "join" 0 "" "$PROGRAM" scan --join part1.csv part2.csv part3.csv --out joined.csv
same "parts" one.csv joined.csv
check "a part is missing" 3 "in their order" "$PROGRAM" scan --join part1.csv part3.csv \
    --out none.csv
check "negative noise" 2 "outside" "$PROGRAM" scan --model $DATA/model.safetensors \
    --data $DATA/points.cmu --noise -1 --out none.csv
check "sub-modules" 2 "do not divide" "$PROGRAM" scan $scan --vine c --module 7,8,8 --out none.csv
absent "nothing was written" none.csv
check "no perturbation" 0 "" "$PROGRAM" scan --model $DATA/model.safetensors \
    --data $DATA/points.cmu --noise 0 --out bare.csv
"$PROGRAM" predict --model $DATA/model.safetensors --data $DATA/points.cmu --out p.csv 2>/dev/null
awk -F, 'FNR == 1 { file++ } file == 1 && FNR > 1 { k = $2 "," $1 % 2; sum[k] += $3; n[k]++ }
    file == 2 && /^0,/ { k = $9 "," $10; d = $12 - sum[k] / n[k]; rows++
        if (!(d * d <= 1e-15 * $12 * $12)) bad++ }
    END { exit !(rows == 22 && bad == 0) }' p.csv bare.csv && pass || fail "means of predict"
for v in factor c d; do
    check "perturb --vine $v" 0 "" "$PROGRAM" perturb $DATA/points.cmu --vine $v --noise 20 \
        --zero 15 --family mixed --out $v.cmu
done
cli_end
