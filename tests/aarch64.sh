#!/bin/sh
# aarch64.sh - the program for AArch64, with NEON and in qemu: files, features, trained weights and
# predictions have the bits that they have here
#
# usage: aarch64.sh PROGRAM [TESTDATA [TMPDIR]]
# AARCH64_CC=aarch64-linux-gnu-gcc, QEMU=qemu-aarch64 (Debian: gcc-aarch64-linux-gnu with
# libc6-dev-arm64-cross, qemu-user); skipped where they are missing.
. "$(dirname "$0")/cli_lib.sh"
SOURCE=$(cd "$(dirname "$0")/.." && pwd)
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" aarch64
CC=${AARCH64_CC:-aarch64-linux-gnu-gcc}
QEMU=${QEMU:-qemu-aarch64}
for tool in "$CC" "$QEMU"; do
    if ! command -v "$tool" >/dev/null; then
        skip "AArch64: no $tool"
        cli_end
        exit
    fi
done
cd "$TMP" || exit 1
hash() { cksum <"$1" | cut -d ' ' -f 1; }

# One warning is an error here as everywhere; static, so that qemu needs no system.  The tools take
# no time there, but would take it here.
strict="-std=c99 -Wall -Wextra -Wpedantic -Wconversion -Wshadow \
    -Wstrict-prototypes -Wundef -Wcast-qual -Werror"
if "$CC" $strict -O2 -DCALOMU_INTERNALS -c -o engine.o "$SOURCE/calomu.c" 2>err &&
    "$CC" $strict -O0 -static -o calomu.arm -I"$SOURCE" engine.o \
        $(ls "$SOURCE"/tools/*.c "$SOURCE"/tools/simulation/*.c | grep -v "import_h5\|physics") -lm 2>err
then pass; else fail "build" "$(head -n 5 err)"; cli_end; exit 1; fi
OBJDUMP=${CC%gcc}objdump
if command -v "$OBJDUMP" >/dev/null; then
    n=$("$OBJDUMP" -d calomu.arm | grep -c 'fmla.*\.4s')
    [ "$n" -gt 30 ] && pass || fail "NEON" "$n instructions fmla of four floats"
else
    skip "AArch64: no $OBJDUMP to look for NEON"
fi
printf '#!/bin/sh\nexec "%s" "%s/calomu.arm" "$@"\n' "$(command -v "$QEMU")" "$TMP" >arm
chmod +x arm

# Few muons, a cut calorimeter, a network of one block: qemu is slow.
awk -F, 'NR == 1; $2 < 12 && $3 > 9 && $3 < 22 && $4 > 9 && $4 < 22 {
    print $1 "," $2 "," $3 - 10 "," $4 - 10 "," $5 }' "$DATA/cut_geant4_hits.csv" >hits.csv
for p in "$PROGRAM" ./arm; do
    [ "$p" = ./arm ] && x=.arm || x=
    check "import$x" 0 "" "$p" import --hits hits.csv --truth "$DATA/cut_geant4_truth.csv" \
        --out data$x --energy-unit GeV --geometry 12,12,12,40.64,3.75,3.75
    check "features$x" 0 "" "$p" features data$x --out features$x
    check "training$x" 0 "" "$p" train --data features$x --blocks 1 --body 16 --batch 3 \
        --folds 3 --holdout no --epochs 2 --cycle-epochs 2 --seed 4 --threads 1 \
        --out model$x --log log.raw$x
    sed 's/,[^,]*$//' log.raw$x >log$x           # without the seconds
    check "prediction$x" 0 "" "$p" predict --model model$x --data features$x --out pred$x
    check "one muon alone$x" 0 "" "$p" predict --model model$x --data features$x --first 2 \
        --count 1 --out one$x
    check "version$x" 0 "calomu" "$p" --version
    if grep -q WARNING out; then fail "bits$x" "$(cat out)"; else pass; fi
done
for what in data features model log pred one; do same "$what" $what $what.arm; done
[ "$(wc -l <log)" -eq 3 ] && pass || fail "two epochs" "$(cat log)"
[ "$(sort -u -t, -k3 pred | wc -l)" -gt 5 ] && pass || fail "the predictions are all different"
echo "weights: $(hash model), $(hash model.arm) on AArch64;" \
    "predictions: $(hash pred), $(hash pred.arm)"
cli_end
