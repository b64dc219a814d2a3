#!/bin/sh
# mutants.sh - planted one-line bugs: each must make a test fail
#
#   sh tests/mutants.sh [--subset N] [--only TEXT]
#
# Reads tests/mutants.txt.  For each entry its file is copied with the one change, built into
# build/mutants, and the named test is run: a mutant that passes it has survived, and the
# script fails.  So it does if a fragment is not found exactly once, if a mutant does not compile,
# or if a test fails without any change.  --subset N takes every k-th entry, N in all.
set -u
LC_ALL=C
export LC_ALL
cd "$(dirname "$0")/.." || exit 1
CC=${CC:-cc}
subset=0
only=
while [ $# -gt 0 ]; do
    case $1 in
    --subset) subset=${2:?--subset needs a number}; shift 2 ;;
    --only) only=${2:?--only needs a text}; shift 2 ;;
    *) echo "usage: $0 [--subset N] [--only TEXT]" >&2; exit 2 ;;
    esac
done

dir=build/mutants
rm -rf "$dir"                        # nothing of a run before
mkdir -p "$dir/tmp" "$dir/tools/simulation" "$dir/tests" "$dir/cuda" || exit 1
openmp=
echo 'int main(void) { return 0; }' > "$dir/try.c"
$CC -fopenmp -include omp.h "$dir/try.c" -o "$dir/try" 2> /dev/null && openmp=-fopenmp
flags="-std=c99 -ffp-contract=off -w -I. -DCALOMU_INTERNALS $openmp"
limit=
command -v timeout > /dev/null && limit="timeout 300"
OMP_WAIT_POLICY=passive TEST_STOP=1
export OMP_WAIT_POLICY TEST_STOP

real() {                             # the -D of a test in double
    case $1 in *_double) echo -DCALOMU_REAL=double ;; esac
}

test_object() {                      # builds the object of test $1 once
    [ -f "$dir/$1.o" ] && return
    # shellcheck disable=SC2046
    $CC $flags -O1 $(real "$1") -c "tests/test_${1%_double}.c" -o "$dir/$1.o"
}

# Builds test $2 with the copy of file $1 and runs it: 0 passed, 1 failed, 2 no build.  A test
# includes a file of tools itself: it is compiled from a copy beside the copy.  Kernels of cuda run
# on the processor.
try() {
    # shellcheck disable=SC2046
    case $1 in
    calomu.c)
        beside=
        case $2 in cuda | device | lists) beside=$dir/kernels.o ;; esac
        [ -z "$beside" ] || [ -f "$beside" ] ||
            $CC $flags -O2 -march=native -c cuda/emulated.c -o "$beside" || return 2
        $CC $flags -O2 $(real "$2") -c "$dir/calomu.c" -o "$dir/library.o" &&
        $CC $openmp "$dir/$2.o" "$dir/library.o" $beside -lm -o "$dir/test" || return 2 ;;
    cuda/*)
        [ -f "$dir/plain.o" ] || $CC $flags -O2 -c calomu.c -o "$dir/plain.o" || return 2
        for f in calomu.h cuda/*.[ch]; do [ "$f" = "$1" ] || cp "$f" "$dir/$f"; done
        $CC $flags -O2 -march=native -c "$dir/cuda/emulated.c" -o "$dir/emulated.o" &&
        $CC $flags -O1 "tests/test_$2.c" "$dir/plain.o" "$dir/emulated.o" -lm -o "$dir/test" ||
            return 2 ;;
    *)
        [ -f "$dir/plain.o" ] || $CC $flags -O2 -c calomu.c -o "$dir/plain.o" || return 2
        for f in tools/simulation/*.[ch]; do [ "$f" = "$1" ] || cp "$f" "$dir/$f"; done
        cp "tests/test_$2.c" "$dir/tests" &&
        $CC $flags -Itests -Itools -O2 "$dir/tests/test_$2.c" "$dir/plain.o" -lm -o "$dir/test" ||
            return 2 ;;
    esac
    $limit "$dir/test" testdata "$dir/tmp" > "$dir/log" 2>&1 || return 1
}

# Splits the list into $dir/list/N.{name,test,old,new}; the first blank behind the sign is not part
# of a fragment.
rm -rf "$dir/list" "$dir"/*.o
mkdir -p "$dir/list" || exit 1
awk -v to="$dir/list/" -v only="$only" -v file=calomu.c '
    /^@ / { file = $2 }
    /^= / { keep = only == "" || index($0, only) > 0
            if (keep) { n++; name = $0; test = $0; sub(/^= /, "", name); sub(/: [^:]*$/, "", name)
                        sub(/^.*: /, "", test); print name > (to n ".name")
                        print test > (to n ".test"); print file > (to n ".file") } }
    /^- / && keep { print substr($0, 3) > (to n ".old") }
    /^\+ / && keep { print substr($0, 3) > (to n ".new") }
    END { print n + 0 > (to "count") }' tests/mutants.txt
count=$(cat "$dir/list/count")
[ "$count" -gt 0 ] || { echo "mutants: none selected" >&2; exit 1; }
[ "$subset" -gt 0 ] && [ "$subset" -lt "$count" ] || subset=$count

killed=0
bad=0
clean=" "                            # tests known to pass without a change
i=0
while [ $i -lt "$subset" ]; do
    k=$((1 + i * count / subset))
    i=$((i + 1))
    entry="$dir/list/$k"
    name=$(cat "$entry.name")
    test=$(cat "$entry.test")
    file=$(cat "$entry.file")
    [ "$file" != calomu.c ] || test_object "$test" ||
        { echo "mutants: test $test does not compile" >&2; exit 1; }
    case $clean in
    *" $test "*) ;;
    *)
        cp "$file" "$dir/$file"
        try "$file" "$test" || {
            echo "mutants: test $test fails without any change:" >&2
            tail -5 "$dir/log" >&2
            exit 1
        }
        clean="$clean$test " ;;
    esac
    found=$(awk 'NR == FNR { old = $0; next }
                 { line = $0; while ((p = index(line, old)) > 0) {
                       n++; line = substr(line, p + length(old)) } }
                 END { print n + 0 }' "$entry.old" "$file")
    if [ "$found" -ne 1 ]; then
        echo "BROKEN    $name: found $found times: $(cat "$entry.old")"
        bad=$((bad + 1))
        continue
    fi
    awk -v new_file="$entry.new" '
        BEGIN { getline new < new_file }
        NR == FNR { old = $0; next }
        { p = index($0, old)
          if (p) print substr($0, 1, p - 1) new substr($0, p + length(old))
          else print }' "$entry.old" "$file" > "$dir/$file"
    try "$file" "$test"
    case $? in
    0) echo "SURVIVED  $name ($test)"; bad=$((bad + 1)) ;;
    1) echo "caught    $name ($test)"; killed=$((killed + 1)) ;;
    *) echo "BROKEN    $name: does not compile"; bad=$((bad + 1)) ;;
    esac
done
echo "mutants: $killed passed, $bad failed, 0 skipped ($subset of $count planted bugs)"
[ $bad -eq 0 ]
