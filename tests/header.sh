#!/bin/sh
# header.sh - the headers as their readers use them: the program in the opening comment built by the
# command below it and run, the header alone under strict flags, as C and as C++; the same for
# simulate.h and electronics.h with nothing but their folder and calomu's two files
#
# usage: header.sh PROGRAM [TESTDATA [TMPDIR]]
. "$(dirname "$0")/cli_lib.sh"
top=$(cd "$(dirname "$0")/.." && pwd)
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" header
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive              # threads that spin would starve each other on a busy machine
export OMP_WAIT_POLICY
cp "$top/calomu.h" "$top/calomu.c" "$top"/tools/simulation/*.[ch] . || exit 1

# ---------------------------------------------------------------- the opening program

# From the #include of the opening comment to the brace that ends main, without the indentation.
awk '/^ *\*\// { exit } /^       #include "calomu.h"/ { inside = 1 }
    inside { line = $0; sub(/^       /, "", line); print line } inside && /^       }/ { exit }' \
    calomu.h >program.c
holds "the program is there" program.c "int main("
[ "$(wc -l <program.c)" -ge 20 ] && pass || fail "the program is complete"
command=$(sed -n 's/^ *Build it: *\(cc .*-lm\).*/\1/p' calomu.h)
case $command in
    "cc "*" program.c "*) pass ;;
    *) fail "the command below the program" "found: '$command'" ;;
esac
command -v cc >/dev/null || command="${CC:-gcc} ${command#cc }"
# It takes a while: it runs beside the checks of the header.
(eval "$command -o opened") >cc.out 2>&1 &
builder=$!

# ---------------------------------------------------------------- the header alone

strict="-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wundef -Wcast-qual -Werror -fsyntax-only"
c_only="-Wstrict-prototypes"
printf '#include "calomu.h"\n#include "calomu.h"\nextern int none;\n' >alone.c
cp alone.c alone.cc
found=
for cc in gcc clang "${CC:-cc}"; do
    command -v "${cc%% *}" >/dev/null || continue
    found="$found $cc"
    for std in c99 c11 gnu99; do
        check "header alone, $cc $std" 0 "" $cc -std=$std $strict $c_only alone.c
    done
    check "internals alone, $cc" 0 "" $cc -std=c99 -DCALOMU_INTERNALS $strict $c_only alone.c
    check "internals in double, $cc" 0 "" $cc -std=c99 -DCALOMU_INTERNALS -DCALOMU_REAL=double \
        $strict $c_only alone.c
    check "the program without warnings, $cc" 0 "" $cc -std=c99 $strict $c_only program.c
done
[ -n "$found" ] && pass || fail "a C compiler"
# The engine includes itself: from whatever folder it is compiled in, and by a file of the host's.
mkdir -p vendor/calomu away && cp calomu.[ch] vendor/calomu
printf '#include "../vendor/calomu/calomu.c"\n' >away/all.c
cc=${command%% *}
check "the engine in a folder of the host's" 0 "" "$cc" -fsyntax-only vendor/calomu/calomu.c
check "the engine included by another file" 0 "" "$cc" -fsyntax-only away/all.c
found=
for cxx in g++ clang++; do
    command -v $cxx >/dev/null || continue
    found="$found $cxx"
    for std in c++98 c++11 c++17; do
        long=
        [ $std = c++98 ] && long=-Wno-long-long      # uint64_t is needed all the same
        check "header alone, $cxx $std" 0 "" $cxx -std=$std $strict $long alone.cc
        check "internals alone, $cxx $std" 0 "" $cxx -std=$std -DCALOMU_INTERNALS $strict $long \
            alone.cc
    done
    # one initialiser for a whole struct is C++ too, but a warning of -Wextra
    check "the program as C++, $cxx" 0 "" $cxx -x c++ -std=c++11 $strict \
        -Wno-missing-field-initializers program.c
done
[ -n "$found" ] || skip "the header as C++: no g++ or clang++"

# ---------------------------------------------------------------- the engine without OpenMP, -O0

check "calomu.c, -O0, no OpenMP" 0 "" "${CC:-cc}" -std=c99 -O0 -Wall -Wextra \
    -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes -Wundef -Wcast-qual -Werror \
    -c calomu.c -o plain.o
check "the program on it" 0 "" "${CC:-cc}" program.c plain.o -o plain -lm
if command -v g++ >/dev/null; then
    printf '#include "calomu.h"\nint main() { calomu *c = 0; int s = calomu_open(&c, 0);%s' \
        ' calomu_close(c); return s; }' >link.cc
    g++ -c calomu.c -o cxx.o 2>err
    [ "$(grep -c 'error' err)" -le 2 ] && grep -q 'error.*is C, not C++' err && pass ||
        fail "calomu.c as C++: one error that says what to do" "$(head -n 5 err)"
    check "linked into C++" 0 "" g++ -Wall -Wextra link.cc plain.o -o linked -lm
    check "run from C++" 0 "" ./linked
fi

# ---------------------------------------------------------------- in a program or plugin of others

printf '%s\n' '#include "calomu.h"' '#include <stdio.h>' 'int cm_log(int x); int cm_add(int x);' \
    'int cm_log(int x) { return x; }' 'int cm_add(int x) { return x + 1; }' \
    'int plugin(void);' \
    'int plugin(void) { calomu *c = NULL; int s = calomu_open(&c, NULL); calomu_close(c);' \
    '                   return s + cm_log(1) - cm_add(0); }' >plugin.c
case ${B:-build} in /*) lib=$B/libcalomu.a ;; *) lib=$top/${B:-build}/libcalomu.a ;; esac
if [ -f "$lib" ] && ! nm "$lib" 2>/dev/null | grep -q '__asan\|__tsan\|__ubsan'; then
    check "libcalomu.a in a shared object, beside names of the host's" 0 "" "${CC:-cc}" -shared \
        -fPIC -fopenmp plugin.c "$lib" -o plugin.so -lm
else
    skip "a plugin: no $lib, or it has a sanitizer"
fi
if command -v x86_64-w64-mingw32-gcc >/dev/null; then
    x86_64-w64-mingw32-gcc -std=c99 -ffp-contract=off -Wall -Wextra -Wformat -fsyntax-only calomu.c \
        2>err
    if [ -s err ]; then fail "warnings of mingw" "$(head -n 5 err)"; else pass; fi
else
    skip "mingw: no x86_64-w64-mingw32-gcc"
fi

# ---------------------------------------------------------------- the simulation in a host program

{
    printf '#include "simulate.h"\n#include <stdio.h>\nint main(void)\n{\n'
    awk '/^       sim \*s/ { inside = 1 } inside && NF == 0 { exit }
        inside { gsub(/\/\/.*/, ""); print }' simulate.h
    printf '       return 0;\n}\n'
} >host.c
holds "the muon is there" host.c "sim_run("
printf '#include "%s.h"\n' simulate electronics copula simulate electronics copula >alone.c
echo 'extern int none;' >>alone.c
cp alone.c alone.cc
all="-std=c99 -pedantic -O2 $(echo "$strict" | sed s/-fsyntax-only//) $c_only"
for cc in gcc clang; do
    command -v $cc >/dev/null || continue
    check "its headers alone, $cc" 0 "" $cc -std=c99 $strict $c_only alone.c
    check "a host of the simulation, $cc" 0 "" $cc $all host.c simulate.c electronics.c copula.c \
        plain.o -o host_$cc -lm
    check "it prints, $cc" 0 " cells" ./host_$cc
    mv out host_$cc.out
done
[ ! -f host_gcc.out ] || [ ! -f host_clang.out ] ||
    same "the same muon by both compilers" host_gcc.out host_clang.out
for cxx in g++ clang++; do
    command -v $cxx >/dev/null || continue
    check "its headers alone, $cxx" 0 "" $cxx -std=c++98 $strict -Wno-long-long alone.cc
done

# ---------------------------------------------------------------- its output

# The model: that of the test data, or one of a very short training on ten muons.
model=$DATA/model.safetensors
if [ ! -f "$model" ]; then
    model=$TMP/short.safetensors
    check "muons" 0 "" "$PROGRAM" import --hits "$DATA/cut_geant4_hits.csv" \
        --truth "$DATA/cut_geant4_truth.csv" --energy-unit GeV --out ten.cmu
    check "a short training" 0 "" "$PROGRAM" train --data ten.cmu --blocks 1 --batch 4 --folds 2 \
        --holdout no --epochs 1 --cycle-epochs 1 --lr 0.005 --out "$model" --log short.csv
fi
wait $builder && pass || fail "$command" "$(head -n 5 cc.out)"
if [ -s cc.out ]; then fail "no warnings of: $command" "$(head -n 5 cc.out)"; else pass; fi
printf 'event,iz,ix,iy,energy\n0,0,16,16,0.031\n0,1,16,16,1.25\n' >hits.csv
printf 'event,energy,x,y,charge\n0,,1.9,1.9,\n' >truth.csv
check "the same muon as CSV" 0 "" "$PROGRAM" import --hits hits.csv --truth truth.csv \
    --energy-unit GeV --out one.cmu
check "its prediction" 0 "" "$PROGRAM" predict --model "$model" --data one.cmu --out one.csv
awk -F, 'NR == 2 { printf "%.1f GeV\n", $3 }' one.csv >expected
[ "$(wc -c <expected)" -gt 5 ] && pass || fail "a prediction" "$(cat one.csv)"
for how in opened plain; do
    check "the program ($how)" 0 " GeV" ./$how "$model"
    same "it prints the prediction ($how)" out expected
done
./opened nothing.safetensors >out 2>err
[ $? -eq 1 ] && grep -q nothing.safetensors err && pass || fail "without a model it says so"
cli_end
