#!/bin/sh
# run.sh BINARIES SCRIPTS - runs every test and adds up their closing lines.
# Environment: B build folder, REF reference folder (may be empty), CC for the tests that compile.
# A test that ends without its closing line, or not with 0, counts as a failure.
set -u
B=${B:-build}
REF=${REF:-}
export REF B
export OMP_WAIT_POLICY=passive            # spinning threads slow a shared machine down
CC=${CC:-cc}
export CC
TMP=$B/tmp
rm -rf "$TMP"
mkdir -p "$TMP"
passed=0 failed=0 skipped=0

run() { # NAME COMMAND...
    name=$1
    shift
    "$@" >"$TMP/$name.out" 2>&1
    code=$?
    line=$(grep -E ': [0-9]+ passed, [0-9]+ failed' "$TMP/$name.out" | tail -n 1)
    set -- $(printf '%s\n' "$line" | sed -E 's/.*: ([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?.*/\1 \2 \4/')
    grep -E 'SKIP|skipped:' "$TMP/$name.out"
    if [ -z "$line" ] || { [ "$code" -ne 0 ] && [ "${2:-0}" -eq 0 ]; }; then
        cat "$TMP/$name.out"
        echo "FAIL $name: ended with code $code"
        failed=$((failed + 1))
    elif [ "$2" -ne 0 ]; then
        cat "$TMP/$name.out"
    else
        echo "$line"
    fi
    [ -n "$line" ] || return 0
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + ${3:-0}))
}

for binary in $1; do
    run "$(basename "$binary")" "./$binary" testdata "$TMP" ${REF:+"$REF"}
done
for script in $2; do
    case $script in
    symbols) run symbols sh tests/symbols.sh "$B/calomu.o" ;;
    *) run "$script" sh "tests/$script.sh" ./calomu testdata "$TMP" ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
