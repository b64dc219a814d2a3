#!/bin/sh
# run.sh BINARIES SCRIPTS - runs every test, as many at once as there are cores, and adds up their
# closing lines.  run.sh --one TEST runs one.
# Environment: B build folder, REF reference folder (may be empty), CC for the tests that compile,
# PYTHON, JOBS.
# A test that ends without its closing line, or not with 0, counts as a failure.
set -u
B=${B:-build}
REF=${REF:-}
CC=${CC:-cc}
OMP_WAIT_POLICY=passive            # spinning threads slow a shared machine down
export B REF CC OMP_WAIT_POLICY
TMP=$B/tmp

if [ "$1" = --one ]; then
    name=$(basename "$2")
    mkdir -p "$TMP/$name"
    begin=$(date +%s)
    case $2 in
    */test_*) "./$2" testdata "$TMP/$name" ${REF:+"$REF"} ;;
    symbols) sh tests/symbols.sh "$B/calomu.o" ;;
    *) sh "tests/$2.sh" ./calomu testdata "$TMP" ;;
    esac >"$TMP/$name.out" 2>&1
    echo $? >"$TMP/$name.code"
    echo "$(($(date +%s) - begin)) $name" >"$TMP/$name.seconds"
    exit 0
fi

rm -rf "$TMP"
mkdir -p "$TMP"
printf '%s\n' $1 $2 |
    xargs -n 1 -P "${JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)}" sh "$0" --one

passed=0 failed=0 skipped=0
for test in $1 $2; do
    name=$(basename "$test")
    code=$(cat "$TMP/$name.code" 2>/dev/null)
    line=$(grep -E ': [0-9]+ passed, [0-9]+ failed' "$TMP/$name.out" | tail -n 1)
    set -- $(printf '%s\n' "$line" |
        sed -E 's/.*: ([0-9]+) passed, ([0-9]+) failed(, ([0-9]+) skipped)?.*/\1 \2 \4/')
    grep -E 'SKIP' "$TMP/$name.out"
    if [ -z "$line" ] || { [ "$code" != 0 ] && [ "$2" -eq 0 ]; }; then
        cat "$TMP/$name.out"
        echo "FAIL $name: ended with code ${code:-none}"
        failed=$((failed + 1))
    elif [ "$2" -ne 0 ]; then
        cat "$TMP/$name.out"
    else
        echo "$name: ${line##*: }"
    fi
    passed=$((passed + ${1:-0})) failed=$((failed + ${2:-0})) skipped=$((skipped + ${3:-0}))
done
echo "longest, in seconds: $(cat "$TMP"/*.seconds | sort -rn | head -n 8 | tr '\n' ',')"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
