#!/bin/sh
# cuda.sh - on a GPU: kernels and whole trainings against the engine, golden numbers, and short runs
# under compute-sanitizer; fails where there is no GPU
#
# usage: B=build NVCC=nvcc REF=DIR cuda.sh
set -eu
B=${B:-build}
mkdir -p "$B/tmp"
for t in cuda device golden; do
    "$B/test_${t}_gpu" testdata "$B/tmp" ${REF:+"$REF"}
done
tool=$(command -v compute-sanitizer || true)
beside=$(dirname "$(command -v "${NVCC:-nvcc}" || echo nowhere)")/compute-sanitizer
[ -n "$tool" ] || [ ! -x "$beside" ] || tool=$beside
if [ -z "$tool" ]; then
    echo "SKIPPED: memcheck, racecheck, initcheck: NO compute-sanitizer ON THE PATH"
    exit
fi
TEST_BRIEF=1
export TEST_BRIEF
for check in memcheck racecheck initcheck; do
    echo "compute-sanitizer: $check"
    log=$B/tmp/$check.log
    "$tool" --tool $check --error-exitcode 9 "$B/test_cuda_gpu" testdata "$B/tmp" >"$log" 2>&1 ||
        { tail -n 40 "$log"; exit 1; }
    tail -n 2 "$log"
done
