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
state extra.st 28 2 ',"n_averaged":{"dtype":"I64","shape":[0],"data_offsets":[0,0]}'
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
check "info of it" 0 "training            unknown" "$PROGRAM" info m.st
check "a model again" 0 "by the file's own metadata" "$PROGRAM" model-import m.st --out n.st
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
check "a tensor too many" 3 "n_averaged is no tensor of the network" import extra.st standard.csv
check "none" 0 "mean 0, deviation 1" "$PROGRAM" model-import bare.st --out p.st \
    --features-mean-std none
same "none" n.st p.st
check "a folder" 3 "" import . standard.csv
check "text" 3 "standard.csv" import standard.csv standard.csv
printf 'PK\003\004 and a pickle of torch.save inside' >zip.pt
check "a file of torch.save" 3 "save_file(network.state_dict(), PATH)" import zip.pt standard.csv
check "the same for a model" 3 "save_file(network.state_dict(), PATH)" "$PROGRAM" info zip.pt
printf '\200\002}q\000(X\003 an older one' >pickle.pt
check "an older file of torch.save" 3 "as torch.save writes" import pickle.pt standard.csv
printf '\211HDF\r\n\032\n and so on' >weights.h5
check "HDF5" 3 "networks as safetensors" import weights.h5 standard.csv
check "data" 3 "is a data file (.cmu)" import "$DATA/valid.cmu" standard.csv
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

# ---------------------------------------------------------------- a model back from Python

# rewrite FILE OUT SED-SCRIPT: the same tensors under an edited header
rewrite()
{
    n=$(od -A n -t u1 -N 3 "$1" | awk '{ print $1 + 256 * ($2 + 256 * $3) }')
    json=$(head -c $((n + 8)) "$1" | tail -c "$n" | sed "$3")
    while [ $((${#json} % 8)) -ne 0 ]; do json="$json "; done
    {
        # shellcheck disable=SC2059
        printf "$(printf '\\%03o\\%03o\\%03o' $((${#json} % 256)) $((${#json} / 256 % 256)) \
            $((${#json} / 65536)))"
        head -c 5 /dev/zero
        printf '%s' "$json"
        tail -c +$((n + 9)) "$1"
    } >"$2"
}
real=$DATA/model.safetensors
alone='s/"__metadata__":{[^}]*},//'
rewrite "$real" bare28.st "$alone"
rewrite "$real" wrapped.st "$alone;"'s/"\([a-z0-9.]*\)":{"dtype"/"module._orig_mod.\1":{"dtype"/g'
rewrite "$real" half-wrapped.st "$alone;"'s/"\(head[a-z0-9.]*\)":{"dtype"/"model.\1":{"dtype"/g'
rewrite "$real" net.st "$alone;"'s/"\([a-z0-9.]*\)":{"dtype"/"net.\1":{"dtype"/g'
rewrite "$real" foreign.st 's/"__metadata__":{[^}]*}/"__metadata__":{"checksum":"sha256:0","x":""}/'
rewrite "$real" touched.st 's/"loss.0":"2/"loss.0":"1/'
back() { "$PROGRAM" model-import "$1" --out back.st --like "$real"; }
rewrite "$real" order.st 's/"calomu":"model","version":"1",\([^}]*\)}/\1,"version":"1","calomu":"model"}/'
check "another order" 0 "" "$PROGRAM" info order.st
cmp -s "$real" order.st && fail "another order" "the file is the same" || pass
check "without mean and deviation" 3 "--features-mean-std FILE.csv or none" \
    "$PROGRAM" model-import bare28.st --out back.st
holds "the way out" err "--like MODEL"
absent "without mean and deviation: no model" back.st
check "asked for" 0 "mean 0, deviation 1" "$PROGRAM" model-import bare28.st --out none.st \
    --features-mean-std none
check "predict says what to do" 3 "--like MODEL" "$PROGRAM" predict --model bare28.st \
    --data "$DATA/valid.cmu" --out x.csv
check "info says what to do" 3 "--like MODEL" "$PROGRAM" info bare28.st
check "like the model that it was" 0 "$real" back bare28.st
values() { "$PROGRAM" predict --model "$1" --data "$DATA/valid.cmu" --count 20 --out "$2"; }
check "its predictions" 0 "" values "$real" real.csv
check "the same after all" 0 "" values back.st back.csv
same "the same after all" real.csv back.csv
check "said by info" 0 "validation loss     263.421064" "$PROGRAM" info back.st
check "wrapped" 0 'have "module._orig_mod." in front' back wrapped.st
check "the same, wrapped" 0 "" values back.st back.csv
same "the same, wrapped" real.csv back.csv
check "half wrapped" 3 "model.head.0.path.0.weight is no tensor of the network" back half-wrapped.st
check "another wrapper" 3 'have "net." in front' back net.st
check "metadata of another program" 0 "" back foreign.st
check "the same, with foreign metadata" 0 "" values back.st back.csv
same "the same, with foreign metadata" real.csv back.csv
check "metadata of ours, changed: predict" 3 "\`calomu model-import\` takes" values touched.st x.csv
check "metadata of ours, changed: import" 0 "its checksum is wrong" \
    "$PROGRAM" model-import touched.st --out back.st
check "the same, changed" 0 "" values back.st back.csv
same "the same, changed" real.csv back.csv
check "its loss" 0 "validation loss     163.421064" "$PROGRAM" info back.st
check "options over the metadata" 0 "above 0.5 GeV" "$PROGRAM" model-import touched.st \
    --out back.st --grow 0.5
check "the rest of the metadata stays" 0 "eabove            71.5971185" "$PROGRAM" info back.st
for option in "--features-mean-std none" "--grow 1" "--convention text" "--geometry 1,1,1,1,1,1"; do
    # shellcheck disable=SC2086
    check "--like and $option" 2 "leave out ${option%% *}" "$PROGRAM" model-import bare28.st \
        --out x.st --like "$real" $option
done
check "like a file that is no model" 3 "hits.none" sh -c "echo no >hits.none; \
    '$PROGRAM' model-import bare28.st --out x.st --like hits.none"
check "like nothing" 4 "nothing.st" "$PROGRAM" model-import bare28.st --out x.st --like nothing.st
check "like another network" 3 "body.0.bias is [80], not [2]" "$PROGRAM" model-import bare28.st \
    --out x.st --like m.st
absent "a failure leaves no model" x.st
# what other programs add to the metadata is no damage; a key of ours that is renamed is
for added in '"format":"pt"' '"meaning":"x","note":"1.version"'; do
    rewrite "$real" added.st 's/"__metadata__":{/&'"$added,/"
    check "with $added" 0 "are verified" "$PROGRAM" info added.st
    check "with $added: the same" 0 "" values added.st back.csv
    same "with $added: the same" real.csv back.csv
done
rewrite "$real" renamed.st 's/"loss.0":/"lost.0":/'
check "a key of ours renamed" 3 "its checksum is wrong" "$PROGRAM" info renamed.st
check "the way out" 3 "--like MODEL" "$PROGRAM" model-import renamed.st --out x.st
check "the way out works" 0 "" back renamed.st
check "the way out works: the same" 0 "" values back.st back.csv
same "the way out works: the same" real.csv back.csv
rewrite "$real" renamed.st 's/"mean":/"meany":/'
check "no mean" 3 "--like MODEL" "$PROGRAM" model-import renamed.st --out x.st
check "no mean, like another" 0 "" back renamed.st
rewrite "$real" renamed.st 's/"__metadata__":{/&"train.note":"x",/'
check "a key of ours added" 3 "its checksum is wrong" "$PROGRAM" info renamed.st
rm order.st bare28.st wrapped.st half-wrapped.st net.st foreign.st touched.st back.st none.st \
    added.st renamed.st

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
awk 'BEGIN { print "event,true_energy,pred" > "points.known.csv"
    print "true_energy,pred" > "falling.csv"
    for (i = 0; i < 200; i++) { e = 500 + 1000 * int(i / 40)
    printf "%d,%d,%.9f\n", i, e, 10 + 0.9 * e * (i % 2 ? 1.01 : 0.99) > "points.known.csv"
    printf "%d,%.9f\n", e, 5000 - e > "falling.csv" } }'
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
equal "header" "$(line p.csv 1)" "event,true_energy,pred,hits"
equal "rows" "$(lines p.csv)" 41
equal "a row" "$(line p.csv 2)" "0,100,123.5,18"
equal "a row without truth" "$(line p.csv 9)" "7,,123.5,18"
check "a hybrid" 0 "" predict small.st data.cmu p.csv
awk -F, 'NR > 1 && !($3 + 0 == $3 && NF == 4) { exit 1 }' p.csv && pass \
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
equal "columns of members" "$(line q.csv 1)" "event,true_energy,pred,pred0,pred1,hits"
awk -F, 'NR > 1 { low = $4 < $5 ? $4 : $5; high = $4 < $5 ? $5 : $4
    if ($3 < low || $3 > high || low == high) exit 1 }' q.csv && pass \
    || fail "the mean lies between the members" "$(cat q.csv)"
check "said with both files" 3 "wide.cmu with small.st" predict small.st wide.cmu q.csv
# a unit that is wrong: with true energies and without them
for factor in 1000 0.001; do
    awk -F, -v OFS=, -v k=$factor 'NR > 1 { $5 *= k } 1' hits.csv >scaled.csv
    check "hits x $factor" 0 "" make_true scaled.csv "$geometry" scaled.cmu truth.csv
    check "hits x $factor, blind" 0 "" make scaled.csv "$geometry" scaledblind.cmu
    text="of 40 muons sum up to more than the true energy"
    [ $factor = 1000 ] || text="40 of 40 muons have no cell above 0.1 GeV"
    check "predict: hits x $factor" 0 "$text" predict small.st scaled.cmu q.csv
    check "predict: hits x $factor, blind" 0 "$text" predict small.st scaledblind.cmu q.csv
    check "the right unit" 0 "" predict small.st data.cmu q.csv
    grep -q "worthless" err && fail "the right unit" "$(cat err)" || pass
done
check "no muons" 0 "none.cmu has no muons" predict small.st none.cmu q.csv
equal "header only" "$(cat q.csv)" "event,true_energy,pred,hits"

# muons without hits: said, and a 0 in the column; a network of features that the file has can do it
sed '/^[37],/d' hits.csv >holes.csv
check "data with holes" 0 "" make_true holes.csv "$geometry" holes.cmu known.csv
check "muons without hits" 0 "2 of 40 muons have no hits (0 in the column hits)" \
    predict small.st holes.cmu q.csv
equal "their rows" "$(awk -F, '$4 == 0 { printf "%s ", $1 }' q.csv)" "3 7 "
equal "a row with hits" "$(line q.csv 2)" "$(line p.csv 2)"
check "only those asked for" 0 "1 of 2 muons have no hits" predict small.st holes.cmu q.csv \
    --first 6 --count 2
check "features with holes" 0 "" "$PROGRAM" features holes.cmu --out holes.cmu
check "the features of the file" 0 "" predict flat.st holes.cmu q.csv
grep -q "no hits" err && fail "a network of features, features in the file" "" || pass
check "evaluate takes the table" 0 "" "$PROGRAM" evaluate points.known.csv --points --range 0,5000 \
    --fit-bins 5

# --fit: the line of evaluate
check "fit" 0 "" predict small.st known.cmu fitted.csv --fit points.known.csv --range 0,5000 \
    --fit-bins 5
equal "columns" "$(line fitted.csv 1)" "event,true_energy,pred,debiased,hits"
check "fit, an ensemble" 0 "" predict team.st known.cmu q.csv --fit points.known.csv \
    --range 0,5000 --fit-bins 5
equal "columns of an ensemble" "$(line q.csv 1)" "event,true_energy,pred,pred0,pred1,debiased,hits"
# points.known.csv is 10 + 0.9 E on average
awk -F, 'NR > 1 { n++; d = $4 - ($3 - 10) / 0.9; if (!(d <= 1e-5 * (1 + $4 * $4) && -d <= 1e-5 * \
    (1 + $4 * $4))) bad++ } END { exit !n || bad }' fitted.csv && pass \
    || fail "debiased energies" "$(head -n 4 fitted.csv)"
awk -F, -v OFS=, 'NR > 1 { $2 /= 10 } 1' points.known.csv >low.csv
check "fit on muons of other energies" 0 "in 91% of 100 to 4000 GeV; they have 50 to 450 GeV" \
    predict small.st known.cmu q.csv --fit low.csv
check "nothing to fit" 3 "none.csv" predict small.st known.cmu q.csv --fit none.csv
check "fit on falling predictions" 3 "falling.csv: debiasing" predict small.st known.cmu q.csv \
    --fit falling.csv --range 0,5000 --fit-bins 5
check "no such fit" 4 "nothing.csv" predict small.st known.cmu q.csv --fit nothing.csv
check "bins without a fit" 2 "--fit VALID.csv" predict small.st known.cmu q.csv --fit-bins 5
check "a range without a fit" 2 "--fit VALID.csv" predict small.st known.cmu q.csv --range 0,5000

# ---------------------------------------------------------------- model-join

# shellcheck disable=SC2086
check "member 1 apart" 0 "" "$PROGRAM" train --data known.cmu --out one.st $small --member 1
join() { "$PROGRAM" model-join "$@"; }
check "help" 0 "validation" join --help
check "nothing to join" 2 "MODEL.safetensors is missing" join --out all.st
check "no out" 2 "--out" join small.st one.st
check "trained apart" 0 "members      2" join small.st one.st --out all.st
same "as if trained together" all.st team.st
check "with an ensemble" 0 "members      3" join one.st team.st --out all.st
holds "the same one twice" err "members 0 and 2 are of the same data, seed and fold"
check "its predictions" 0 "" predict all.st data.cmu q.csv
equal "its columns" "$(line q.csv 1)" "event,true_energy,pred,pred0,pred1,pred2,hits"
check "how it was trained" 0 "member 2            loss " "$PROGRAM" info all.st
holds "the options" out "4, cut after a shuffle by the seed, fold 0 held out"
holds "the options" out "member 1 monitors fold 2; all-fold training"
awk 'length > 79 { exit 1 }' out && pass || fail "info within 80 columns" "$(awk 'length > 79' out)"
holds "the program" out "trained by          calomu 0.1.0"
holds "the data" out "on muons            40, checksum "
rewrite one.st touched.st 's/"loss.0":"/"loss.0":"1/'
check "a training with a stranger between" 0 "its checksum is wrong" "$PROGRAM" model-import \
    touched.st --out x.st
check "its record" 0 "calomu 0.1.0; its weights were in another program since" "$PROGRAM" info x.st
holds "its options" out "member 1 monitors fold 2"
check "joined" 0 "members      2" join small.st x.st --out all.st
check "the member's record" 0 "fold 2, seed 1, in another program since" "$PROGRAM" info all.st
check "losses that are unknown" 0 "of 2 of 2 members is unknown: all weigh the same" \
    join flat.st flat.st --out x.st
rm -f x.st
check "another calorimeter" 3 "flat.st does not fit small.st" join small.st one.st flat.st --out x.st
check "not a model" 3 "data.cmu" join small.st data.cmu --out x.st
check "no such model" 4 "nothing.st" join small.st nothing.st --out x.st
check "no folder for the ensemble" 4 "nowhere/x.st" join small.st one.st --out nowhere/x.st
absent "a failure leaves no ensemble" x.st
[ -c /dev/full ] && check "disk full" 4 "/dev/full" join small.st one.st --out /dev/full
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
    printf "mean improvement (MI) %.2f\nworst combined resolution %.2f", mi, w }')
holds "MI of the points" out "$(printf '%s\n' "$expected" | head -n 1) +- "
holds "the worst of the points" out "$(printf '%s\n' "$expected" | tail -n 1) +- "
check "bins" 0 "bin/GeV" evaluate broad.csv --bins 10 --csv table.csv
holds "slope" out "(0.9000"
holds "its bins" out "10 bins used, 0 skipped"
equal "rows of the table" "$(lines table.csv)" 11
equal "header of the table" "$(line table.csv 1 | cut -d, -f1-10)" \
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
    "--bootstrap 1" "--errors 1" "--errors -1" "--seed x" "--column="; do
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
