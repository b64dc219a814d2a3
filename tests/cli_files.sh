#!/bin/sh
# cli_files.sh - merge, split, select; several files as one set in train and predict
#
#     sh tests/cli_files.sh ./calomu testdata build/tmp
LC_ALL=${CLI_LOCALE:-C}
export LC_ALL
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_files
cd "$TMP" || exit 1

"$PROGRAM" features "$DATA/muons.cmu" --out all.cmu 2>err || fail "features"
n=$("$PROGRAM" export all.cmu --truth - 2>err | tail -n +2 | wc -l)

# ---- split and merge are each other's inverse, byte by byte, features kept
check "split in 3" 0 "" "$PROGRAM" split all.cmu --out part --parts 3
check "merge" 0 "" "$PROGRAM" merge part-000.cmu part-001.cmu part-002.cmu --out merged.cmu
same "merged again" merged.cmu all.cmu
check "split by 50" 0 "" "$PROGRAM" split all.cmu --out by --each 50
[ "$(ls by-*.cmu | wc -l)" -eq $(((n + 49) / 50)) ] && pass || fail "files of 50" "$(ls by-*)"
check "merge of 50s" 0 "" "$PROGRAM" merge by-*.cmu --out merged50.cmu
same "merged again from 50s" merged50.cmu all.cmu
check "simulated, with losses" 0 "" "$PROGRAM" simulate --n 6 --out loss.cmu
check "split with losses" 0 "" "$PROGRAM" split loss.cmu --out loss --parts 4
check "merge with losses" 0 "" "$PROGRAM" merge loss-00?.cmu --out loss2.cmu
same "losses kept" loss2.cmu loss.cmu

# ---- select against awk on the exported tables
truth() { "$PROGRAM" export "$1" --truth - 2>>err | tail -n +2; }
truth all.cmu >all.csv
"$PROGRAM" export all.cmu --features - 2>err | tail -n +2 >features.csv
# selected WHAT AWK-CONDITION OPTIONS...: the truth of muons that awk picks; e: energy, v0: V0
selected()
{
    cli_w=$1 cli_a=$2
    shift 2
    check "$cli_w" 0 "" "$PROGRAM" select all.cmu --out sel.cmu "$@"
    truth sel.cmu | cut -d, -f2- >got.csv
    paste -d, all.csv features.csv | awk -F, '{ k = NR - 1; e = $2; v0 = $7 }
        '"$cli_a"' { print $2 "," $3 "," $4 "," $5 }' >want.csv
    same "$cli_w: which" got.csv want.csv
    [ -s want.csv ] && pass || fail "$cli_w: some"
}
selected "a range" 'k >= 10 && k < 17' --first 10 --count 7
selected "every fifth" 'k >= 3 && (k - 3) % 5 == 0' --first 3 --every 5
selected "a list" 'k == 2 || k >= 7 && k <= 9' --numbers 2,7:9
selected "energies" 'e >= 1000 && e < 4000' --cuts 'energy>=1000,energy<4000'
awk -F, 'NR == 1 { exit !($2 + 0 == $2) }' features.csv || fail "features.csv" "$(head -n 2 features.csv)"
# Between two muons: the tables round to 9 digits.
v=$(cut -d, -f2 features.csv | sort -g | sed -n 100,101p | awk '{ s += $1/2 } END { print s }')
selected "a feature" "v0 > $v" --cuts "V0>$v"
selected "a feature by name" "v0 > $v" --cuts "eabove>$v"

check "shuffled" 0 "" "$PROGRAM" select all.cmu --out s1.cmu --shuffle --seed 5
check "shuffled again" 0 "" "$PROGRAM" select part-00*.cmu --out s2.cmu --shuffle --seed 5
same "the same order from parts" s1.cmu s2.cmu
check "another seed" 0 "" "$PROGRAM" select all.cmu --out s3.cmu --shuffle --seed 6
cmp -s s1.cmu s3.cmu && fail "another order" || pass
truth s1.cmu | cut -d, -f2- | sort >got.csv
cut -d, -f2- all.csv | sort >want.csv
same "every muon once" got.csv want.csv
check "none left" 0 "no muon is left" "$PROGRAM" select all.cmu --out none.cmu --cuts 'energy<0'

# ---- several files are the merged file
model=$DATA/model.safetensors
check "predict" 0 "" "$PROGRAM" predict --model "$model" --data all.cmu --out one.csv
check "predict of parts" 0 "" "$PROGRAM" predict --model "$model" --data part-000.cmu \
    part-001.cmu part-002.cmu --out three.csv
same "the same predictions" three.csv one.csv
check "predict of a pattern" 0 "" "$PROGRAM" predict --data 'by-*.cmu' --out five.csv \
    --model "$model"
same "the same by a pattern" five.csv one.csv
check "across files" 0 "" "$PROGRAM" predict --data 'by-*.cmu' --first 45 --count 60 \
    --out some.csv --model "$model"
sed -n '47,106p' one.csv >want.csv
tail -n +2 some.csv >got.csv
same "numbers across files" got.csv want.csv
small="--epochs 2 --cycle-epochs 1 --batch 16 --folds 4 --holdout no --bins 2 --fit-bins 4
    --inputs features"
# shellcheck disable=SC2086
{
    check "train" 0 "" "$PROGRAM" train --data all.cmu --out one.safetensors $small
    check "train on parts" 0 "" "$PROGRAM" train --data part-000.cmu part-001.cmu part-002.cmu \
        --out three.safetensors $small
    same "the same model" three.safetensors one.safetensors
    check "validation of parts" 0 "" "$PROGRAM" train --data all.cmu --validation 'by-*.cmu' \
        --out val.safetensors $small
}

# ---- what does not fit is named, and nothing is left
check "another geometry" 0 "" "$PROGRAM" simulate --n 2 --geometry 50,32,32,40,3.75,3.75 \
    --features --out other.cmu
check "refused by name" 3 "other.cmu does not fit all.cmu" "$PROGRAM" merge all.cmu other.cmu \
    --out no.cmu
check "train refuses too" 3 "other.cmu does not fit all.cmu" "$PROGRAM" train \
    --data all.cmu other.cmu --out no.safetensors
check "no features in the second" 3 "loss.cmu does not fit all.cmu: no features" "$PROGRAM" merge \
    all.cmu loss.cmu --out no.cmu
check "a cut on no features" 3 "no features to cut on" "$PROGRAM" select loss.cmu --out no.cmu \
    --cuts 'V3>1'
check "a cut on no losses" 3 "no losses to cut on" "$PROGRAM" select all.cmu --out no.cmu \
    --cuts 'leaked>1'
cp part-001.cmu broken.cmu
size=$(wc -c <broken.cmu)
printf 'XXXX' | dd of=broken.cmu bs=1 seek=$((size / 2)) conv=notrunc 2>err
check "a broken file in the middle" 3 "broken.cmu" "$PROGRAM" merge part-000.cmu broken.cmu \
    part-002.cmu --out no.cmu
check "predict names it" 3 "broken.cmu" "$PROGRAM" predict --model "$model" --data part-000.cmu \
    broken.cmu --out no.csv
check "a missing file" 4 "gone.cmu" "$PROGRAM" merge all.cmu gone.cmu --out no.cmu
check "a pattern of nothing" 4 "no file is named so" "$PROGRAM" predict --model "$model" \
    --data 'gone*.cmu' --out no.csv
check "output is an input" 2 "is the same file" "$PROGRAM" merge all.cmu part-000.cmu \
    --out ./part-000.cmu
check "split onto an input" 2 "is the same file" "$PROGRAM" split part-000.cmu --out part --parts 2
check "output in a pattern" 2 "is the same file" "$PROGRAM" predict --model "$model" \
    --data 'by-*.cmu' --out by-001.cmu
check "no such quantity" 2 "no quantity 'enrgy'" "$PROGRAM" select all.cmu --out no.cmu \
    --cuts 'enrgy>1'
check "no number" 2 "a number comes here" "$PROGRAM" select all.cmu --out no.cmu --cuts 'energy>a'
check "no operator" 2 "comes <" "$PROGRAM" select all.cmu --out no.cmu --cuts 'energy'
check "numbers beyond" 2 "has muons 0 to" "$PROGRAM" select all.cmu --out no.cmu --numbers 3,100000
check "a range upside down" 2 "LOW:HIGH" "$PROGRAM" select all.cmu --out no.cmu --numbers 9:3
check "too many parts" 2 "there are only" "$PROGRAM" split loss.cmu --out no --parts 900
check "parts or each" 2 "one of --parts" "$PROGRAM" split loss.cmu --out no
piped "disk full" 4 "no.cmu" 'ulimit -f 8; "$PROGRAM" merge all.cmu --out no.cmu'
absent "nothing is left" no.cmu no.csv no.safetensors no-000.cmu
same "inputs stay" merged.cmu all.cmu
for file in *calomu-tmp* .*calomu-lock; do
    [ -e "$file" ] && fail "left behind" "$file"
done
cli_end
