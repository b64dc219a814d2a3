#!/bin/sh
# cli_torch.sh - weights to and from PyTorch: state_dicts of the reference network give calomu the
# predictions that PyTorch makes of the same muons, models of calomu load in PyTorch, and the peer of
# `make bench` runs
#
# usage: cli_torch.sh PROGRAM [TESTDATA [TMPDIR]], environment: REF, the reference folder, with
# oracle/torch_model.py; PYTHON, with torch and numpy.  Without one of them all is skipped.
. "$(dirname "$0")/cli_lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
model=
[ -z "${REF:-}" ] || model=$(cd "$REF" 2>/dev/null && pwd)/oracle/torch_model.py
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_torch
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive              # threads that spin would starve each other on a busy machine
PYTHONDONTWRITEBYTECODE=1
export OMP_WAIT_POLICY PYTHONDONTWRITEBYTECODE

if [ -z "$model" ] || [ ! -f "$model" ]; then
    skip "weights to and from PyTorch: no oracle/torch_model.py in REF='${REF:-}'"
    cli_end
    exit
fi
python=
for p in "${PYTHON:-}" python3 /usr/bin/python3; do
    if [ -n "$p" ] && "$p" -c 'import numpy, torch' 2>/dev/null; then python=$p; break; fi
done
if [ -z "$python" ]; then
    skip "weights to and from PyTorch: no python3 with torch and numpy"
    cli_end
    exit
fi

# ---------------------------------------------------------------- 9 muons by way of CSV

first() { awk -F, 'NR == 1 || $1 < 9 { print; next } { exit }'; }
"$PROGRAM" export "$DATA/muons.cmu" --hits - 2>/dev/null | first >hits.csv
"$PROGRAM" export "$DATA/muons.cmu" --truth - 2>/dev/null | first >truth.csv
check "import of the CSV" 0 "" "$PROGRAM" import --hits hits.csv --truth truth.csv \
    --energy-unit GeV --out plain.cmu
check "features" 0 "" "$PROGRAM" features plain.cmu --out muons.cmu
check "export of the features" 0 "" "$PROGRAM" export muons.cmu --features features.csv
check "networks of PyTorch" 0 "" "$python" "$here/torch_peer.py" make "$model" .

# ---------------------------------------------------------------- PyTorch to calomu and back

# taken NAME TEXT OPTION...: a state_dict, what model-import must find in it; predictions from
# features in the file and from features computed on the fly are the same bytes
taken()
{
    name=$1 text=$2
    shift 2
    check "$name: model-import" 0 "$text" "$PROGRAM" model-import "$name.st" \
        --out "$name.model" "$@"
    check "$name: predict" 0 "" "$PROGRAM" predict --model "$name.model" --data muons.cmu \
        --out "$name.pred"
    check "$name: predict without features" 0 "" "$PROGRAM" predict --model "$name.model" \
        --data plain.cmu --out plain.pred
    same "$name: features on the fly" "$name.pred" plain.pred
}
s="--features-mean-std standard.csv"
taken hybrid1 "1 blocks per resolution, growth 1.5" $s
taken hybrid "parameters   636570 trainable" $s
taken hits "hits only"
taken features "28 features only" $s
taken raw "mean 0, deviation 1" --features-mean-std none --convention text --grow 0.1
taken sums "3 energy sums only" $s
taken other "32 neurons per layer" $s

# ---------------------------------------------------------------- a training of calomu to PyTorch

train()
{
    name=$1
    shift
    check "$name: train" 0 "" "$PROGRAM" train --data muons.cmu --out "$name.model" --batch 3 \
        --folds 3 --holdout no --epochs 1 --cycle-epochs 1 --seed 5 --log "$name.log" "$@"
    check "$name: predict" 0 "" "$PROGRAM" predict --model "$name.model" --data muons.cmu \
        --out "$name.pred"
}
train trained --blocks 1 --growth 1.25 --body 20
train trained_features --inputs features

# ---------------------------------------------------------------- and back

check "a model back from PyTorch" 0 "" "$python" "$here/torch_peer.py" back "$model" .
check "wrapped: refused as it is" 3 "mean and standard deviation are not given" \
    "$PROGRAM" model-import wrapped.st --out x.model
like="--like trained.model"
taken wrapped "trained.model" $like
same "wrapped: nothing is lost" wrapped.pred trained.pred
taken tuned "its checksum is wrong"
taken half "tensors are F16" $like
taken bfloat16 "tensors are BF16" $like

"$python" "$here/torch_peer.py" check "$model" . >verdicts 2>err ||
    fail "comparison with PyTorch" "$(tail -n 3 err)"
while read -r good what; do
    if [ "$good" = ok ]; then pass; else fail "$what"; fi
done <verdicts
n=$(grep -c '^ok' verdicts)
if [ "$n" -eq 19 ]; then pass; else fail "19 comparisons" "$n are good"; fi
cat verdicts

# ---------------------------------------------------------------- the peer of `make bench`

for job in training inference; do
    echo go | "$python" "$here/../tools/bench_torch.py" --oracle "${model%/*}" --muons . \
        --job $job --batch 2 --threads 1 >answers 2>err || fail "peer of make bench, $job" \
        "$(tail -n 3 err)"
    if awk -v job="$job," 'NR == 1 { bad += $1 != "ready" || $2 != 2 || $3 != job }
            NR == 2 { bad += !($1 > 0 && $2 > 0) } END { exit bad || NR != 2 }' answers; then
        pass
    else
        fail "answers of the peer of make bench, $job" "$(cat answers)"
    fi
done
cli_end
