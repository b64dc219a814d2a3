#!/bin/sh
# undefined.sh - the readers and writers of files under clang's sanitizer of undefined behaviour,
# which knows what gcc's does not: NULL + 0, and more of pointers
#
# usage: undefined.sh PROGRAM [TESTDATA [TMPDIR]]; skipped without clang and its sanitizer
. "$(dirname "$0")/cli_lib.sh"
top=$(cd "$(dirname "$0")/.." && pwd)
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" undefined
cd "$TMP" || exit 1
flags="-O0 -w -std=c99 -ffp-contract=off -fsanitize=undefined -fno-sanitize-recover=undefined"
echo 'int main(void) { return 0; }' >try.c
# shellcheck disable=SC2086
if ! clang $flags try.c -o try 2>/dev/null || ! ./try; then
    skip "undefined behaviour: no clang with its sanitizer"
    cli_end
    exit
fi
# shellcheck disable=SC2086
check "compiles" 0 "" clang $flags -I"$top" -DCALOMU_INTERNALS "$top/tests/test_files.c" \
    "$top/calomu.c" -lm -o files
TEST_BRIEF=1
export TEST_BRIEF
check "files" 0 "0 failed" ./files "$DATA" "$TMP/files.tmp"
grep -q 'runtime error' err && fail "nothing undefined" "$(grep 'runtime error' err)" || pass
cli_end
