#!/bin/sh
# cli_model.sh - calomu model-import, predict and evaluate
#
# usage: cli_model.sh PROGRAM [TESTDATA [TMPDIR]]
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_model
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive              # threads that spin would starve each other on a busy machine
export OMP_WAIT_POLICY
geometry=6,6,6,40,4,4

# ---------------------------------------------------------------- a bare state_dict, by hand

# tensors of zeros and a bias of 123.5 in front of the end: every prediction is 123.5
# state FILE WIDTH BODY JSON: BODY neurons, WIDTH inputs, JSON added to the header
state()
{
    w=$2 b=$3 at=0
    f32='{"dtype":"F32","shape":[' off='],"data_offsets":['
    json='{"body.0.weight":'$f32$b,$w$off$at,$((at += 4 * b * w))']}'
    for layer in 0.bias 2.weight 2.bias 4.weight 4.bias; do
        case $layer in
            *bias) shape=$b size=$((4 * b)) ;;
            *) shape=$b,$b size=$((4 * b * b)) ;;
        esac
        json=$json',"body.'$layer'":'$f32$shape$off$at,$((at += size))']}'
    done
    json=$json',"tail.weight":'${f32}1,$b$off$at,$((at += 4 * b))']}'
    json=$json',"tail.bias":'${f32}1$off$at,$((at + 4))']}'$4'}'
    while [ $((${#json} % 8)) -ne 0 ]; do json="$json "; done
    {
        # shellcheck disable=SC2059
        printf "$(printf '\\%03o\\%03o' $((${#json} % 256)) $((${#json} / 256)))"
        head -c 6 /dev/zero
        printf '%s' "$json"
        head -c $at /dev/zero
        printf '\000\000\367\102'
    } >"$1"
}
state bare.st 28 2 ""
state sums.st 3 4 ""
state odd.st 5 2 ""
state half.st 28 2 ',"body.6.bias":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}'
head -c 300 bare.st >cut.st
awk 'BEGIN { print "feature,mean,std"
    n = split("ea1 eb1 maxsum emeas xmom ymom avgcells_off_trk epercell1 eclumax1 ncellmax1 " \
        "nclu1 avgcells epercell maxdepthz maxdepthy maxdepthx eclumax ncellmax nclu r2m5 r2m4 " \
        "r2m3 r2m2 r2m1 r2m rmom1 rmom eabove", name, " ")
    for (i = 1; i <= n; i++) printf "%s,%d.5,%d\n", name[i], i, i - 1 }' >standard.csv
check "help" 0 "--features-mean-std" "$PROGRAM" model-import --help
check "no operand" 2 "STATE.safetensors is missing" "$PROGRAM" model-import --out m
check "no out" 2 "--out" "$PROGRAM" model-import bare.st
check "a state_dict" 0 "28 features only" "$PROGRAM" model-import bare.st --out m.st
holds "neurons" out "2 neurons"
holds "parameters" out "parameters   73 trainable"
holds "standardisation" out "mean 0, deviation 1 (not given)"
check "info of it" 0 "" "$PROGRAM" info m.st
check "a model again" 0 "a model of calomu already" "$PROGRAM" model-import m.st --out n.st
same "a model again" m.st n.st
check "energy sums" 0 "3 energy sums only" "$PROGRAM" model-import sums.st --out s.st
check "standardised" 0 "standard.csv" "$PROGRAM" model-import bare.st --out m.st \
    --features-mean-std standard.csv --convention authors --grow 0.5 --geometry "$geometry"
holds "convention" out "convention authors, clusters grow above 0.5 GeV"
check "out without a name" 2 "--out" "$PROGRAM" model-import bare.st --out
piped "standardisation from a pipe" 0 "" \
    'cat standard.csv | "$PROGRAM" model-import bare.st --out p.st --features-mean-std - \
        --grow 0.5 --convention authors --geometry "$geometry"'
same "standardisation from a pipe" m.st p.st
import() { "$PROGRAM" model-import "$1" --out bad.st --features-mean-std "$2"; }
check "no such state_dict" 4 "nothing.st" import nothing.st standard.csv
check "cut state_dict" 3 "cut.st" import cut.st standard.csv
check "odd width" 3 "odd.st" import odd.st standard.csv
check "half precision" 3 "half.st" import half.st standard.csv
check "a folder" 3 "" import . standard.csv
check "text" 3 "standard.csv" import standard.csv standard.csv
check "no such standardisation" 4 "nothing.csv" import bare.st nothing.csv
sed 3d standard.csv >x.csv
check "a feature missing" 3 "'eb1' is missing" import bare.st x.csv
(cat standard.csv; echo "ea1,1,1") >x.csv
check "a feature twice" 3 "x.csv:30" import bare.st x.csv
(cat standard.csv; echo "eaa,1,1") >x.csv
check "no such feature" 3 "there is no feature 'eaa'" import bare.st x.csv
sed 's/^ea1,.*/ea1,0,-1/' standard.csv >x.csv
check "a negative deviation" 3 "negative" import bare.st x.csv
sed 's/^ea1,.*/ea1,nan,1/' standard.csv >x.csv
check "not a number" 3 "x.csv:2" import bare.st x.csv
sed 's/,std/,sd/' standard.csv >x.csv
check "no column" 3 "std" import bare.st x.csv
absent "a failure leaves no model" bad.st
check "bad geometry" 2 "--geometry" "$PROGRAM" model-import bare.st --out m.st --geometry 1,2
check "bad convention" 2 "--convention" "$PROGRAM" model-import bare.st --out m.st --convention x
[ -c /dev/full ] && check "disk full" 4 "/dev/full" "$PROGRAM" model-import bare.st --out /dev/full

# ---------------------------------------------------------------- predict

awk 'function uniform() { seed = (seed * 16807) % 2147483647; return seed / 2147483647 }
    BEGIN {
        seed = 777
        print "event,iz,ix,iy,energy" > "hits.csv"
        print "event,energy,x,y,charge" > "truth.csv"
        for (i = 0; i < 40; i++) {
            e = 100 + 100 * i
            printf "%d,%s,%.3f,%.3f,1\n", i, i == 7 ? "" : e, 4 * uniform() - 2,
                4 * uniform() - 2 > "truth.csv"
            for (z = 0; z < 6; z++) for (k = 0; k < 3; k++) printf "%d,%d,%d,%d,%.5f\n", i, z,
                2 * k, int(6 * uniform()), e * uniform() / 2000 > "hits.csv"
        }
    }'
# known: all true energies; data: that of event 7 is absent; blind: nothing but the hits
make() { "$PROGRAM" import --hits "$1" --energy-unit GeV --geometry "$2" --out "$3"; }
make_true()
{
    "$PROGRAM" import --hits "$1" --truth "$4" --energy-unit GeV --geometry "$2" --out "$3"
}
sed 's/^7,,/7,800,/' truth.csv >known.csv
head -n 1 hits.csv >none.csv
check "data" 0 "" make_true hits.csv "$geometry" data.cmu truth.csv
check "data for a training" 0 "" make_true hits.csv "$geometry" known.cmu known.csv
check "data of another calorimeter" 0 "" make_true hits.csv 6,6,6,41,4,4 wide.cmu truth.csv
check "data without truth" 0 "" make hits.csv "$geometry" blind.cmu
check "no muons" 0 "" make none.csv "$geometry" none.cmu
check "features" 0 "" "$PROGRAM" features data.cmu --out text.cmu
check "features, authors" 0 "" "$PROGRAM" features data.cmu --out authors.cmu --convention authors
check "a flat model" 0 "" "$PROGRAM" model-import bare.st --out flat.st --geometry "$geometry"
# the muons are in order of energy
small="--blocks 1 --body 8 --folds 4 --batch 8 --epochs 1 --threads 1 --shuffle"
# shellcheck disable=SC2086
check "a small hybrid" 0 "" "$PROGRAM" train --data known.cmu --out small.st $small
# shellcheck disable=SC2086
check "a small one of hits" 0 "" "$PROGRAM" train --data known.cmu --out hits.st $small \
    --inputs hits
# shellcheck disable=SC2086
check "an ensemble" 0 "" "$PROGRAM" train --data known.cmu --out team.st $small --members 2

check "help" 0 "true_energy" "$PROGRAM" predict --help
check "no model" 2 "--model" "$PROGRAM" predict --data data.cmu --out p.csv
check "no data" 2 "--data" "$PROGRAM" predict --model flat.st --out p.csv
check "no out" 2 "--out" "$PROGRAM" predict --model flat.st --data data.cmu
predict()
{
    predict_model=$1 predict_data=$2 predict_out=$3
    shift 3
    "$PROGRAM" predict --model "$predict_model" --data "$predict_data" --out "$predict_out" "$@"
}
line() { sed -n "$2p" "$1"; }
lines() { sed -n '$=' "$1"; }
equal() { if [ "$2" = "$3" ]; then pass; else fail "$1" "got: $2" "expected: $3"; fi; }
check "predict" 0 "data.cmu has no features: they are computed" predict flat.st data.cmu p.csv
equal "said once" "$(grep -c "are computed" err)" 1
equal "header" "$(line p.csv 1)" "event,true_energy,pred"
equal "rows" "$(lines p.csv)" 41
equal "a row" "$(line p.csv 2)" "0,100,123.5"
equal "a row without truth" "$(line p.csv 9)" "7,,123.5"
check "a hybrid" 0 "" predict small.st data.cmu p.csv
awk -F, 'NR > 1 && !($3 + 0 == $3 && NF == 3) { exit 1 }' p.csv && pass \
    || fail "numbers" "$(cat p.csv)"
check "features of the file" 0 "" predict small.st text.cmu q.csv
grep -q "computed" err && fail "no notice where features fit" "" || pass
same "features of the file" p.csv q.csv
check "features of another convention" 0 "computed anew" predict small.st authors.cmu q.csv
same "features of another convention" p.csv q.csv
check "three threads" 0 "" predict small.st data.cmu q.csv --threads 3
same "three threads" p.csv q.csv
check "some of them" 0 "" predict small.st data.cmu q.csv --first 5 --count 17
(head -n 1 p.csv; sed -n 7,23p p.csv) | cmp -s - q.csv && pass \
    || fail "--first --count" "$(cat q.csv)"
check "the last" 0 "" predict small.st data.cmu q.csv --first 39
equal "the last" "$(line q.csv 2)" "$(line p.csv 41)"
check "standard output" 0 "" predict small.st data.cmu -
same "standard output" out p.csv
check "no impact points" 0 "40 of 40 muons have no impact point" predict small.st blind.cmu q.csv
equal "no truth" "$(line q.csv 2 | cut -d, -f1-2)" "0,"
check "hits need no impact point" 0 "" predict hits.st blind.cmu q.csv
grep -q "impact" err && fail "hits need no impact point" "" || pass
check "an ensemble" 0 "" predict team.st data.cmu q.csv
equal "columns of members" "$(line q.csv 1)" "event,true_energy,pred,pred0,pred1"
awk -F, 'NR > 1 { low = $4 < $5 ? $4 : $5; high = $4 < $5 ? $5 : $4
    if ($3 < low || $3 > high || low == high) exit 1 }' q.csv && pass \
    || fail "the mean lies between the members" "$(cat q.csv)"
check "said with both files" 3 "wide.cmu with small.st" predict small.st wide.cmu q.csv
check "no muons" 0 "none.cmu has no muons" predict small.st none.cmu q.csv
equal "header only" "$(cat q.csv)" "event,true_energy,pred"
rm q.csv
check "first behind the end" 2 "--first 40" predict small.st data.cmu q.csv --first 40
check "too many" 2 "--count 41" predict small.st data.cmu q.csv --count 41
check "count is no number" 2 "--count" predict small.st data.cmu q.csv --count -1
check "other calorimeter" 3 "" predict small.st wide.cmu q.csv
check "no such model" 4 "nothing.st" predict nothing.st data.cmu q.csv
check "no such data" 4 "nothing.cmu" predict small.st nothing.cmu q.csv
check "data for a model" 3 "data.cmu" predict data.cmu data.cmu q.csv
check "a model for data" 3 "small.st" predict small.st small.st q.csv
check "a bare state_dict" 3 "bare.st" predict bare.st data.cmu q.csv
size=$(wc -c <small.st)
head -c $((size - 1)) small.st >cut.st
check "a cut model" 3 "cut.st" predict cut.st data.cmu q.csv
(head -c $((size - 9)) small.st; printf '\377'; tail -c 8 small.st) >bent.st
check "a flipped byte in a model" 3 "bent.st" predict bent.st data.cmu q.csv
head -c $(($(wc -c <data.cmu) - 1)) data.cmu >cut.cmu
check "cut data" 3 "cut.cmu" predict small.st cut.cmu q.csv
check "no folder" 4 "nowhere/q.csv" predict small.st data.cmu nowhere/q.csv
absent "a failure leaves no table" q.csv
[ -c /dev/full ] && check "disk full" 4 "/dev/full" predict small.st data.cmu /dev/full
[ -c /dev/full ] && piped "disk full at standard output" 4 "" \
    '"$PROGRAM" predict --model small.st --data data.cmu --out - >/dev/full'
mkdir folder
check "a folder for the table" 4 "folder" predict small.st data.cmu folder

# ---------------------------------------------------------------- evaluate

# Predictions 10 + 0.9 E in pairs 1% of E above and below: after debiasing the median is E within
# a bin's width and c68 is known; fixed points give exact numbers.
awk 'BEGIN {
    print "event,true_energy,pred,pred0" > "points.csv"
    print "pred,other,true_energy" > "broad.csv"
    for (i = 0; i < 10; i++) for (k = 0; k < 20; k++)
        printf "%d,%d,%.6f,%d\n", 20 * i + k, 200 + 400 * i, 10 + 0.9 * (200 + 400 * i) * \
            (1 + (k % 2 ? 0.01 : -0.01)), 0.5 * (200 + 400 * i) + k % 2 > "points.csv"
    for (i = 0; i < 4000; i++) printf "%.6f,x,%.3f\n", 10 + 0.9 * (50 + i) * \
        (1 + (i % 2 ? 0.01 : -0.01)), 50 + i > "broad.csv" }'
evaluate() { "$PROGRAM" evaluate "$@"; }
check "help" 0 "--bootstrap" evaluate --help
check "no operand" 2 "PRED.csv is missing" evaluate
check "points" 0 "energy/GeV" evaluate points.csv --range 0,4000 --fit-bins 10
holds "the line" out "(10.000 +- "
holds "its slope" out "(0.90000 +- "
holds "ten points" out "10 points used, 0 skipped"
# c68 = 1% of E, tracker 0.2 E/TeV: combined 1/sqrt(1/0.01^2 + 1/t^2), MI from that
expected=$(awk 'BEGIN { for (i = 0; i < 10; i++) { t = 0.2 * (0.2 + 0.4 * i)
    c = 1 / sqrt(1 / 0.0001 + 1 / t ^ 2); mi += 10 * (t - c); if (100 * c > w) w = 100 * c }
    printf "mean improvement (MI) %.2f points, worst combined resolution %.2f%%", mi, w }')
holds "MI of the points" out "$expected"
check "bins" 0 "bin/GeV" evaluate broad.csv --bins 10 --csv table.csv
holds "slope" out "(0.9000"
holds "its bins" out "10 bins used, 0 skipped"
equal "rows of the table" "$(lines table.csv)" 11
equal "header of the table" "$(line table.csv 1)" \
    "low,high,energy,centre,muons,median,c68,calorimeter,tracker,combined"
equal "the first bin" "$(line table.csv 2 | cut -d, -f1,2,4,5)" "100,490,295,390"
check "twice the tracker" 0 "" evaluate broad.csv --bins 10 --tracker 0.4 --csv twice.csv
equal "twice the tracker" "$(line twice.csv 2 | cut -d, -f9)" \
    "$(line table.csv 2 | awk -F, '{ printf "%.9g", 2 * $9 }')"
check "bins beyond the muons" 0 "6 bins used, 4 skipped" evaluate broad.csv --bins 10 \
    --range 50,8000 --fit-bins 20
check "forced points" 0 "points used" evaluate points.csv --points
check "a member's column" 0 "(0.50000 +- " evaluate points.csv --column pred0 --range 0,4000 \
    --fit-bins 10
check "the fit from other muons" 0 "debiasing (broad.csv" evaluate points.csv --fit broad.csv
grep -q "on points.csv itself" err && fail "no notice with --fit" "" || pass
check "the fit from the same" 0 "fitted on broad.csv itself" evaluate broad.csv
check "bootstrap" 0 "" evaluate broad.csv --bootstrap 20 --seed 5
cp out first
check "bootstrap again" 0 "" evaluate broad.csv --bootstrap 20 --seed 5
same "the seed decides" out first
piped "from a pipe" 0 "bins used" 'cat broad.csv | "$PROGRAM" evaluate - --bins 10'
check "plots" 0 "" evaluate broad.csv --plots figure
[ -s figure_resolution.csv ] && pass || fail "plots" "$(ls figure*)"
log="epoch,updates,lr,beta1,training_loss,validation_loss,mi,worst,seconds"
(echo $log; echo 1,6,0.1,0.9,2,3,,,1; echo 2,12,0.1,0.9,1,2,5,6,1) >log.csv
check "history" 0 "" evaluate broad.csv --plots figure --history log.csv
ls figure_history* >/dev/null 2>&1 && pass || fail "history" "$(ls figure*)"
(cat broad.csv; echo "5,x,"; echo "6,x,") >gaps.csv
check "rows without truth" 0 "2 of 4002 muons have no true energy" evaluate gaps.csv

check "history without plots" 2 "--history" evaluate broad.csv --history log.csv
check "both from standard input" 2 "standard input" evaluate - --fit -
for option in "--bins 0" "--fit-bins 1" "--range 5,5" "--range x" "--tracker 0" "--bootstrap -1" \
    "--bootstrap 1" "--seed x" "--column="; do
    # shellcheck disable=SC2086
    check "option $option" 2 "" evaluate broad.csv $option
done
check "no such file" 4 "nothing.csv" evaluate nothing.csv
check "no such fit" 4 "nothing.csv" evaluate broad.csv --fit nothing.csv
check "a folder" 4 "" evaluate .
: >empty.csv
check "an empty file" 3 "empty.csv" evaluate empty.csv
head -n 1 broad.csv >x.csv
check "a header only" 3 "no muon with a true energy" evaluate x.csv
(head -n 1 broad.csv; echo "1,x,"; echo "2,x,") >x.csv
check "no truth at all" 3 "no muon with a true energy" evaluate x.csv
check "no such column" 3 "pred9" evaluate broad.csv --column pred9
(cat broad.csv; echo "1,x,0") >x.csv
check "a true energy of 0" 3 "x.csv:4002" evaluate x.csv
(cat broad.csv; echo "nan,x,5") >x.csv
check "not a number" 3 "x.csv:4002" evaluate x.csv
(cat broad.csv; echo "1,x") >x.csv
check "too few fields" 3 "x.csv:4002" evaluate x.csv
awk -F, -v OFS=, 'NR > 1 { $1 = 9000 - $1 } { print }' broad.csv >x.csv
check "predictions that fall" 3 "x.csv: debiasing" evaluate x.csv
awk -F, -v OFS=, 'NR > 1 { $1 = 5 } { print }' broad.csv >x.csv
check "constant predictions" 3 "x.csv: debiasing" evaluate x.csv
head -n 2 points.csv >x.csv
check "one muon" 3 "x.csv: debiasing" evaluate x.csv
check "nothing in range" 3 "debiasing" evaluate points.csv --range 5000,6000
[ -c /dev/full ] && check "disk full" 4 "/dev/full" evaluate broad.csv --csv /dev/full
[ -c /dev/full ] && piped "disk full at standard output" 4 "standard output" \
    '"$PROGRAM" evaluate broad.csv >/dev/full'
check "no folder for the table" 4 "nowhere/t.csv" evaluate broad.csv --csv nowhere/t.csv
check "no folder for plots" 4 "nowhere/t" evaluate broad.csv --plots nowhere/t

cli_end
