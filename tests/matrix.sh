#!/bin/sh
# matrix.sh - compiler x flags x machine: in every cell bits.c prints the same hashes (features,
# predictions, weights, checkpoint, evaluation, simulation, numbers as text), or the engine does not
# compile and says what to do, or every call is refused and says what to do.  Anything else fails.
#
# usage: matrix.sh [--native] [--install] [PROGRAM [TESTDATA [TMPDIR]]]
#   --native     only a few cells, with gcc, clang and tcc (bits.sh, a test)
#   --install    gets what is missing: Debian packages (root), zig and wasmtime in a venv
# The reference is the Makefile's build.  Other machines run in qemu-user, wine and wasmtime; what is
# not installed is skipped, and said.  Prints the table of reliability.md.
. "$(dirname "$0")/cli_lib.sh"
top=$(cd "$(dirname "$0")/.." && pwd)
native= install=
while :; do
    case ${1-} in
    --native) native=1 ;;
    --install) install=1 ;;
    *) break ;;
    esac
    shift
done
NAME=matrix
[ -z "$native" ] || NAME=bits
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" $NAME
venv=${MATRIX_VENV:-$top/build/matrix-venv}
if [ -n "$install" ]; then
    apt-get install -y --no-install-recommends gcc clang tcc musl-tools qemu-user wine64 \
        gcc-mingw-w64-x86-64 $(for a in aarch64:arm64 arm:armhf riscv64:riscv64 s390x:s390x \
        powerpc64le:ppc64el i686:i386; do
            case $a in arm:*) echo gcc-arm-linux-gnueabihf ;; *) echo gcc-${a%:*}-linux-gnu ;; esac
            echo libc6-dev-${a#*:}-cross
        done) >"$TMP/apt.log" 2>&1 || skip "apt-get: $(tail -n 1 "$TMP/apt.log")"
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install -q ziglang==0.17.1 wasmtime==50.0.1 2>"$TMP/pip.log" ||
        skip "pip: $(tail -n 1 "$TMP/pip.log")"
fi
cd "$TMP" || exit 1
OMP_WAIT_POLICY=passive WINEDEBUG=-all WINEPREFIX=$TMP/wine
ZIG_GLOBAL_CACHE_DIR=$TMP/zig ZIG_LOCAL_CACHE_DIR=$TMP/zig
export OMP_WAIT_POLICY WINEDEBUG WINEPREFIX ZIG_GLOBAL_CACHE_DIR ZIG_LOCAL_CACHE_DIR
sources="$top/calomu.c $top/tools/simulation/simulate.c"

# ---------------------------------------------------------------- one cell

# Windows ends lines with two characters.
hashes() { tr -d '\r' <"$1"; }

# What cell $1 gave, in words; its files are N.err of the compiler, N.out and N.info.
outcome()
{
    if [ -s $1.code ]; then
        if grep -q '#error.*calomu: \|calomu_constants_are_double' $1.err; then echo error
        else echo "does not compile: $(grep -m1 error $1.err)"; fi
    elif hashes $1.out | cmp -s - reference; then echo equal
    elif grep -q '^refused: this build .*compile' $1.out && [ "$(wc -l <$1.out)" -eq 1 ]; then
        echo refused
    else echo "other: $(hashes $1.out | diff - reference | head -n 2 | tr '\n' ' ')$(tail -n 1 $1.info)"
    fi
}

# run N COMPILER RUNNER FLAGS...: everything with one command, like calomu.h
run()
{
    n=$1 cc=$2 runner=$3
    shift 3
    mkdir $n.tmp
    if $cc "$@" -w -I"$top" -I"$top/tools/simulation" -o $n.exe "$top/tests/bits.c" $sources -lm 2>$n.err
    then $runner ./$n.exe "$DATA" $n.tmp $mode >$n.out 2>$n.info </dev/null
    else echo failed >$n.code; fi
    outcome $n >$n.is
    rm -rf $n.exe $n.tmp
}

# cell MACHINE EXPECTED COMPILER RUNNER FLAGS...: two at a time, for two cores
cells=0 mode=
cell()
{
    machine=$1 expected=$2
    for tool in "$3" "$4"; do
        [ -z "$tool" ] || command -v ${tool%% *} >/dev/null || {
            skip "$machine: no ${tool%% *} ($*)"
            return
        }
    done
    shift 2
    cells=$((cells + 1))
    case $1 in *ziglang*) name="zig cc" ;; *) name=$1 ;; esac
    printf '%s|%s|%s|%s\n' "$machine" "$expected" "$name" \
        "$(shift 2; echo "$*${mode:+, modes of the caller: $mode}")" >$cells.cell
    run $cells "$@" &
    [ $((cells % 2)) -eq 1 ] || wait
}

table()
{
    wait
    echo "| machine | compiler | flags | outcome |"
    echo "|---|---|---|---|"
    i=0
    while [ $i -lt $cells ]; do
        i=$((i + 1))
        IFS='|' read -r machine expected name flags <$i.cell
        is=$(cat $i.is)
        echo "| $machine | $name | ${flags:+\`$flags\`} | $is |"
        if [ "$is" = "$expected" ]; then pass
        else fail "$machine, $name $flags" "$is, expected: $expected"; fi
    done
}

# ---------------------------------------------------------------- the reference

# The objects of the Makefile, which the program consists of; CC is make's.
objects="$top/${B:-build}/calomu.o $top/${B:-build}/tools/simulation/simulate.o"
openmp=
nm -u $objects 2>/dev/null | grep -q GOMP_ && openmp=-fopenmp
nm -u $objects 2>/dev/null | grep -q __kmpc_ && openmp=-fopenmp
# linked WHAT FLAGS...: a host with these objects
linked()
{
    what=$1
    shift
    ${CC:-cc} -std=c99 "$@" -I"$top" -I"$top/tools/simulation" -o $what "$top/tests/bits.c" $objects \
        $openmp -lm 2>$what.err && mkdir -p $what.tmp
}
linked host -O1 $openmp -Wall -Wextra -Wpedantic -Werror || {
    fail "the reference" "$(head -n 3 host.err)"
    cli_end
    exit 1
}
./host "$DATA" host.tmp >reference 2>err
[ "$(grep -c '^[a-z]* [0-9a-f]\{16\}$' reference)" -eq 8 ] && pass || {
    fail "the reference" "$(cat reference)"
    cli_end
    exit 1
}

# ---------------------------------------------------------------- modes of the caller

modes="down flush traps workers callbacks"
[ -n "$native" ] || modes="up zero $modes"
for m in $modes; do
    ./host "$DATA" host.tmp $m >modes.out 2>err
    if grep -q '^no such mode' modes.out; then
        skip "modes: $(cat modes.out)"
        continue
    fi
    same "the caller's modes: $m" modes.out reference
    [ $m = workers ] || [ $m = callbacks ] || holds "it is said: $m" err "rounding mode"
done
# -Ofast in the host alone: the linker adds code that makes the processor flush.
if linked fast -Ofast $openmp; then
    ./fast "$DATA" fast.tmp >fast.out 2>err
    same "a host with -Ofast" fast.out reference
else
    skip "a host with -Ofast: $(head -n 1 fast.err)"
fi

# ---------------------------------------------------------------- native

here=$(uname -m)
wrong="-Ofast|-O2 -ffast-math|-O2 -ffinite-math-only"
parts="-O2 -funsafe-math-optimizations|-O2 -freciprocal-math|-O2 -fno-signed-zeros"
parts="$parts|-O2 -fassociative-math -fno-signed-zeros -fno-trapping-math"
# each EXPECTED COMPILER LIST: a cell for each of FLAGS|FLAGS
each()
{
    IFS='|'
    set -- "$1" "$2" $3
    unset IFS
    expected_all=$1 compiler=$2
    shift 2
    for flags in "$@"; do cell "$here" "$expected_all" "$compiler" "" $flags; done
}
if [ -n "$native" ]; then
    cell "$here" equal gcc "" -O2
    cell "$here" equal clang "" -O2
    cell "$here" equal tcc ""
    cell "$here" equal gcc "" -O2 -DCALOMU_PLAIN
    cell "$here" equal tcc "" -DCALOMU_PLAIN
    for cc in gcc clang; do each error $cc "$wrong"; done
    table
    cli_end
    exit
fi
usual="-O0|-O1|-O2|-O3|-Os|-O3 -march=native|-O2 -march=native -flto|-O2 -std=c99|-O2 -std=gnu11"
usual="$usual|-O2 -std=c17|-O2 -frounding-math"
for cc in gcc clang; do
    each equal $cc "$usual"
    each equal $cc "$parts"
    each error $cc "$wrong"
done
each equal gcc "-O2 -DCALOMU_PLAIN|-O3 -march=native -DCALOMU_PLAIN|-std=c99 -DCALOMU_PLAIN"
each equal gcc "-O2 -fopenmp|-O2 -fno-builtin|-O2 -march=native -ffp-contract=fast"
each equal gcc "-O2 -ffast-math -fno-finite-math-only"
each error gcc "-O2 -mfpmath=387|-O2 -mfpmath=both|-O2 -fsingle-precision-constant"
each equal clang "-O2 -ffp-model=strict"
each refused clang "-O2 -fno-honor-nans"
each refused clang "-O2 -march=native -ffp-contract=fast -DCALOMU_PLAIN"
each refused clang "-O2 -march=native -ffp-contract=fast|-O2 -ffast-math -fno-finite-math-only"
each error clang "-O2 -ffp-model=fast"
cell "$here" equal tcc ""
cell "$here, musl" equal musl-gcc "" -O2 -static
cell "$here, musl" equal musl-gcc "" -O3 -march=native -static

# ---------------------------------------------------------------- other machines

# gcc for TARGET in QEMU
elsewhere()
{
    target=$1 qemu=qemu-$2
    shift 2
    for flags in "$@"; do cell $target equal $target-gcc $qemu -static $flags; done
}
elsewhere aarch64-linux-gnu aarch64 -O2 "-O3 -flto" "-O2 -std=c99"
elsewhere arm-linux-gnueabihf arm -O2 "-O3 -mfpu=neon-vfpv4"
elsewhere riscv64-linux-gnu riscv64 -O2 -O3
elsewhere powerpc64le-linux-gnu ppc64le -O2 "-O3 -mcpu=power9"
elsewhere s390x-linux-gnu s390x -O2 "-O2 -std=c99" "-O3 -march=z13"
elsewhere i686-linux-gnu i386 -O2 "-O2 -std=c99" "-O2 -msse2 -mfpmath=sse" "-O3 -mfpmath=387"
for m in up down zero; do
    mode=$m
    cell aarch64-linux-gnu equal aarch64-linux-gnu-gcc qemu-aarch64 -static -O2
    cell "$here, musl" equal musl-gcc "" -O2 -static
done
mode=
wine=$(command -v wine64 || command -v wine || echo /usr/lib/wine/wine64)
cell "Windows, x86-64" equal x86_64-w64-mingw32-gcc "$wine" -O2
cell "Windows, x86-64" equal x86_64-w64-mingw32-gcc "$wine" -O0 -mfma
cell "Windows, x86-64" equal x86_64-w64-mingw32-gcc "$wine" -O3 -march=x86-64-v3

zig="$venv/bin/python -m ziglang cc -fno-sanitize=undefined"
cat >wasi.py <<'P'
import sys, wasmtime
engine = wasmtime.Engine()
store, linker, wasi = wasmtime.Store(engine), wasmtime.Linker(engine), wasmtime.WasiConfig()
wasi.argv = sys.argv[1:]
wasi.inherit_stdout()
wasi.inherit_stderr()
for folder in sys.argv[2:4]: wasi.preopen_dir(folder, folder)
store.set_wasi(wasi)
linker.define_wasi()
module = wasmtime.Module.from_file(engine, sys.argv[1])
try: linker.instantiate(store, module).exports(store)["_start"](store)
except wasmtime.ExitTrap as end: sys.exit(end.code)
P
for pair in x86_64: aarch64:qemu-aarch64 arm:qemu-arm riscv64:qemu-riscv64 \
    powerpc64le:qemu-ppc64le s390x:qemu-s390x x86:qemu-i386; do
    target=${pair%:*}-linux-musl
    [ $target != arm-linux-musl ] || target=arm-linux-musleabihf
    cell "$target" equal "$zig -target $target" "${pair#*:}" -O2 -static
done
cell "Windows, x86-64" equal "$zig -target x86_64-windows-gnu" "$wine" -O2
cell "wasm32, wasmtime" equal "$zig -target wasm32-wasi" "$venv/bin/python wasi.py" -O2
for cc in gcc clang tcc musl-gcc x86_64-w64-mingw32-gcc s390x-linux-gnu-gcc qemu-aarch64; do
    command -v $cc >/dev/null && { $cc --version 2>/dev/null || $cc -v 2>&1; } | head -n 1
done >versions
"$venv/bin/python" -m ziglang version 2>/dev/null | sed 's/^/zig /' >>versions
table
echo "$(date -u +%Y-%m-%d), $(uname -m); $(paste -s -d ';' versions | sed 's/;/; /g')"
cli_end
