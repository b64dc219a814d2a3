#!/bin/sh
# bench.sh - `make bench`: calomu's speed and memory and, with PyTorch and the reference folder, the
# same work by PyTorch in the same run.  Everything it writes goes to build/bench.
#
#   REF=DIR                the reference folder, with oracle/torch_model.py
#   PYTHON=python3         a Python with torch and numpy; /usr/bin/python3 is tried too
#   BENCH_BATCHES=256,64,1 muons in a batch
#   BENCH_THREADS=N        threads of both (all cores)
#   BENCH_SECONDS=3        for each measurement, at least
#   BENCH_OPERATIONS=yes   no: leaves the single operations out
#   BENCH_DATA=FILE.cmu    muons (testdata/muons.cmu)
set -u
REF=${REF:-}
PYTHON=${PYTHON:-python3}
BATCHES=${BENCH_BATCHES:-256,64,1}
SECONDS_EACH=${BENCH_SECONDS:-3}
DATA=${BENCH_DATA:-testdata/muons.cmu}
OUT=${B:-build}/bench
threads=${BENCH_THREADS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}
operations=--operations
[ "${BENCH_OPERATIONS:-yes}" = no ] && operations=
rm -rf "$OUT"
mkdir -p "$OUT" || exit 4

load() { [ -r /proc/loadavg ] && echo "load average: $(cut -d' ' -f1-3 /proc/loadavg)"; }
skip() { echo; echo "SKIPPED: comparison with PyTorch: $1"; }

# calomu BATCHES CSV OPTION...
calomu()
{
    list=$1 file=$2
    shift 2
    ./calomu bench --data "$DATA" --batch "$list" --threads "$threads" \
        --seconds "$SECONDS_EACH" --csv "$file" "$@"
}

sed -n 's/^model name[^:]*: */machine: /p' /proc/cpuinfo 2>/dev/null | head -n 1
load
calomu "$BATCHES" "$OUT/calomu.csv" $operations || exit $?

# ---- is there a PyTorch to compare with?
if [ -z "$REF" ]; then
    skip "no reference folder; give REF=DIR with oracle/torch_model.py"
    load
    exit 0
fi
if [ ! -r "$REF/oracle/torch_model.py" ]; then
    skip "no $REF/oracle/torch_model.py"
    load
    exit 0
fi
python=
for p in "$PYTHON" /usr/bin/python3; do
    [ -z "$python" ] && "$p" -c 'import torch, numpy' 2>/dev/null && python=$p
done
if [ -z "$python" ]; then
    skip "neither $PYTHON nor /usr/bin/python3 has torch and numpy (Debian: python3-torch)"
    load
    exit 0
fi

# ---- the same muons as CSV
echo
./calomu features "$DATA" --out "$OUT/muons.cmu" 2>"$OUT/err" &&
    ./calomu export "$OUT/muons.cmu" --hits "$OUT/hits.csv" --truth "$OUT/truth.csv" \
        --features "$OUT/features.csv" 2>>"$OUT/err" || { code=$?; cat "$OUT/err"; exit $code; }
grid=$(./calomu info "$OUT/muons.cmu" |
    sed -n 's/^ *cells *\([0-9]*\) x \([0-9]*\) x \([0-9]*\).*/\1,\2,\3/p')

# ---- PyTorch and calomu in turn, so that both see the same machine
failed=
for b in $(echo "$BATCHES" | tr , ' '); do
    need=$((b * 28 + 600))           # MB; 7 GB at 256
    free=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo 2>/dev/null)
    if [ -n "$free" ] && [ "$free" -lt "$need" ]; then
        skip "batch $b needs about $need MB, $free MB are free"
        continue
    fi
    # The repetitions of a slow step are few anyway: one to warm up and two that count.
    if ! "$python" tools/bench_torch.py --oracle "$REF/oracle" --hits "$OUT/hits.csv" \
        --truth "$OUT/truth.csv" --features "$OUT/features.csv" --batch "$b" --grid "$grid" \
        --threads "$threads" --seconds "$SECONDS_EACH" --csv "$OUT/torch_$b.csv"; then
        skip "PyTorch failed at batch $b"
        failed=yes
        continue
    fi
    calomu "$b" "$OUT/again_$b.csv" >"$OUT/again_$b.txt" || exit $?
    sed -n "/^training\|^inference/p" "$OUT/again_$b.txt"
done
load

# ---- ratios of the fastest repetitions
cat "$OUT"/calomu.csv "$OUT"/again_*.csv "$OUT"/torch_*.csv 2>/dev/null |
awk -F, -v t="$threads" -v list="$BATCHES" -v csv="$OUT/compare.csv" '
    $1 ~ "_b[0-9]+_t" t "_(min|processor)$" && $2 > 0 {
        if (!($1 in best) || $2 + 0 < best[$1]) best[$1] = $2 + 0
    }
    function name(who, what, b, kind) { return who what "_b" b "_t" t "_" kind }
    function line(what, row, text, b, at, x, y, cpu) {
        x = best[name("", what, b, "min")]
        y = best[name("torch_", what, at, "min")]
        cpu = best[name("torch_", what, at, "processor")] / best[name("", what, b, "processor")]
        printf "%-10s batch %-9s%11.3f%11.3f%9.2f%18.2f\n", what, text, x, y, y / x, cpu
        print "ratio_" what "_" row "," y / x ",times" >csv
        print "ratio_" what "_" row "_processor," cpu ",times" >csv
    }
    function compare(what, i, n, b, at) {
        n = split(list, b, ",")
        at = 0
        for (i = 1; i <= n; i++) {
            if (!(name("torch_", what, b[i], "min") in best)) continue
            if (name("", what, b[i], "min") in best) line(what, "b" b[i], b[i], b[i], b[i])
            if (!at || best[name("torch_", what, b[i], "min")] \
                       < best[name("torch_", what, at, "min")]) at = b[i]
        }
        if (at && at != 256 && (name("", what, 256, "min") in best))
            line(what, "b256_to_torch_best", "256, " at, 256, at)
    }
    END {
        print "row,value,unit" >csv
        printf "\n%-26s%11s%11s%9s%18s\n", "best ms/muon, " t (t > 1 ? " threads" : " thread"),
            "calomu", "PyTorch", "ratio", "of processor time"
        compare("training")
        compare("inference")
        print "A line \"256, N\" compares calomu at 256 with PyTorch at its best batch, N."
        print "On a busy machine the ratio of processor time is the one to trust."
    }'
cp "$OUT/calomu.csv" "$OUT/all.csv"
for f in "$OUT"/torch_*.csv "$OUT/compare.csv"; do
    [ -r "$f" ] && tail -n +2 "$f" >>"$OUT/all.csv"
done
echo "all numbers: $OUT/all.csv"
[ -z "$failed" ]
