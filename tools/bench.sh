#!/bin/sh
# bench.sh - `make bench`: calomu's speed, memory and files against the targets and, where they are,
# against PyTorch and the newest peers.  Writes build/bench.csv; its inputs are in build/bench.
#
#   REF=DIR              the reference folder, with oracle/torch_model.py: the peers' network
#   PYTHON=python3       a Python with torch and numpy, the yardstick (Debian's python3-torch);
#                        /usr/bin/python3 is tried too
#   PEER_PYTHON=FILE     a Python with the newest torch and onnxruntime, of a venv say:
#                        pip install torch onnxruntime onnx numpy
#   BENCH_DATA=FILE.cmu  muons (testdata/muons.cmu)
#   DEVICE=cuda[:N]      measures on a GPU, PyTorch too, with MATH=equal or fast; results in
#                        build/bench_cuda.csv, the program is that of `make cuda`
#   BENCH_OPTIONS=...    more for calomu bench
#
# bench.sh --check       (`make bench-check`) measures, and fails where a ratio is 15% worse than in
#                        tests/bench.csv
# bench.sh --compare OLD.csv NEW.csv    the comparison alone
set -u
# compare OLD.csv NEW.csv: ratios only, which hardly depend on the machine; of other_share less is
# better.
compare()
{
    awk -F, '
        FNR == 1 || ($3 != "times" && $3 != "%") { next }
        NR == FNR { committed[$1] = $2; next }
        !($1 in committed) { print "bench-check: " $1 " is not in " ARGV[1]; next }
        {
            change = $5 == "" ? 0 : $1 == "other_share" ? committed[$1] / $2 : $2 / committed[$1]
            worse = !(change >= 0.85)
            bad += worse
            seen[$1] = 1
            printf "bench-check: %-28s%9.3g%9.3g%7.0f%%  %s\n", $1, committed[$1], $2,
                100 * change - 100, worse ? "WORSE" : "ok"
        }
        END {
            for (name in committed)
                if (!(name in seen)) print "bench-check: LEFT OUT: " name
            if (bad) print "calomu bench-check: " bad " worse by 15% or more" >"/dev/stderr"
            exit bad > 0
        }' "$1" "$2"
}
if [ "${1:-}" = --compare ]; then
    compare "$2" "$3"
    exit
fi

REF=${REF:-}
PYTHON=${PYTHON:-python3}
PEER_PYTHON=${PEER_PYTHON:-}
DEVICE=${DEVICE:-cpu}
MATH=${MATH:-equal}
DATA=${BENCH_DATA:-testdata/muons.cmu}
B=${B:-build}
OUT=$B/bench
mkdir -p "$OUT" || exit 4

load() { [ -r /proc/loadavg ] && echo "load average: $(cut -d' ' -f1-3 /proc/loadavg)"; }
left_out() { echo "LEFT OUT: $1" >&2; }
has() { "$1" -c "import $2" 2>/dev/null; }

yardstick= newest=
if [ ! -r "$REF/oracle/torch_model.py" ]; then
    left_out "all peers: give REF=DIR with oracle/torch_model.py"
else
    ./calomu features "$DATA" --out "$OUT/muons.cmu" 2>"$OUT/err" &&
        ./calomu export "$OUT/muons.cmu" --hits "$OUT/hits.csv" --truth "$OUT/truth.csv" \
            --features "$OUT/features.csv" 2>>"$OUT/err" ||
        { code=$?; cat "$OUT/err" >&2; exit $code; }
    grid=$(./calomu info "$OUT/muons.cmu" |
        sed -n 's/^ *cells *\([0-9]*\) x \([0-9]*\) x \([0-9]*\).*/\1,\2,\3/p')
    peer="tools/bench_torch.py --oracle '$REF/oracle' --muons '$OUT' --grid $grid"
    if [ "$DEVICE" != cpu ]; then
        peer="$peer --device $DEVICE --layouts contiguous,channels_last_3d"
        [ "$MATH" = fast ] && peer="$peer --tf32"
    fi
    for p in "$PYTHON" "${PEER_PYTHON:-/usr/bin/python3}" /usr/bin/python3; do
        [ -n "$yardstick" ] || ! has "$p" torch,numpy || {
            [ "$DEVICE" != cpu ] &&
                ! "$p" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'
        } || yardstick="'$p' $peer"
    done
    [ -n "$yardstick" ] ||
        left_out "PyTorch: neither $PYTHON nor /usr/bin/python3 has torch and numpy"
    if [ "$DEVICE" != cpu ]; then
        :                            # the yardstick is the newest that is there
    elif [ -n "$PEER_PYTHON" ] && has "$PEER_PYTHON" torch,numpy,onnx,onnxruntime; then
        newest="'$PEER_PYTHON' $peer --layouts contiguous,channels_last_3d"
        newest="$newest --engines torch,onnxruntime"
    else
        left_out "the newest peers: PEER_PYTHON=${PEER_PYTHON:-} has no torch, numpy, onnx and" \
            "onnxruntime"
    fi
fi

sed -n 's/^model name[^:]*: */machine: /p' /proc/cpuinfo 2>/dev/null | head -n 1
load
csv=$B/bench.csv
[ "$DEVICE" = cpu ] || csv=$B/bench_cuda.csv
./calomu bench --data "$DATA" --csv "$csv" --device "$DEVICE" --math "$MATH" ${yardstick:+--yardstick "$yardstick"} \
    ${newest:+--newest "$newest"} ${BENCH_OPTIONS:-} || exit $?
load
[ "${1:-}" = --check ] || exit 0
compare tests/bench.csv "$B/bench.csv"

