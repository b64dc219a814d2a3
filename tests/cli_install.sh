#!/bin/sh
# cli_install.sh - make install and uninstall; what is installed, used: by the compiler, pkg-config,
# CMake, man, bash and zsh; the engine as a part of CMake projects; the examples
#
#     sh tests/cli_install.sh ./calomu testdata build/tmp
LC_ALL=${CLI_LOCALE:-C}
export LC_ALL
. "$(dirname "$0")/cli_lib.sh"
top=$(cd "$(dirname "$0")/.." && pwd)
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_install
OMP_WAIT_POLICY=passive
export OMP_WAIT_POLICY
unset MAKEFLAGS MAKELEVEL MAKEOVERRIDES
cd "$TMP" || exit 1
model=$DATA/model.safetensors
CC=${CC:-cc}

# A clone of its own, so that another make is not disturbed; built as a reader would.
mkdir src
cp -r "$top/Makefile" "$top/calomu.c" "$top/calomu.h" "$top/tools" "$top/cuda" src
check "make install" 0 "installed in" make -C src -j2 CFLAGS=-O1 HDF5= CC="$CC" install PREFIX=/usr \
    DESTDIR="$TMP/stage"
check "make install into a prefix" 0 "installed in" make -C src CFLAGS=-O1 HDF5= CC="$CC" install \
    PREFIX="$TMP/pre"
absent "nothing is half-copied" "$TMP"/pre/*/*.new "$TMP"/pre/*/*/*.new
pre=$TMP/pre
"$pre/bin/calomu" --version >v 2>&1
version=$(sed -n 's/^calomu \([0-9.]*\).*/\1/p' v)
[ -n "$version" ] && pass || fail "version" "$(cat v)"
[ "$(readlink "$pre/lib/libcalomu.so")" = "libcalomu.so.${version%.*}" ] && pass ||
    fail "the soname is that of the rule" "$(readlink "$pre/lib/libcalomu.so")"
if command -v readelf >/dev/null; then
    check "soname in the file" 0 "[libcalomu.so.${version%.*}]" readelf -d "$pre/lib/libcalomu.so"
else skip "no readelf"; fi

# ---- the opening program of calomu.h, by hand and by pkg-config: the same GeV each way
awk '/^ *\*\// { exit } /^       #include "calomu.h"/ { on = 1 }
    on { sub(/^       /, ""); print } on && /^}/ { exit }' "$pre/include/calomu.h" >program.c
check "linked with the archive" 0 "" $CC program.c -I"$pre/include" "$pre/lib/libcalomu.a" \
    -fopenmp -lm -o by_hand
check "runs" 0 " GeV" ./by_hand "$model"
cp out want
if command -v pkg-config >/dev/null; then
    PKG_CONFIG_PATH=$pre/lib/pkgconfig
    export PKG_CONFIG_PATH
    check "pkg-config" 0 "" sh -c "$CC program.c \$(pkg-config --cflags --libs calomu) -o by_pc"
    check "runs with the shared library" 0 "" env LD_LIBRARY_PATH="$pre/lib" ./by_pc "$model"
    same "the same GeV" out want
    check "its version" 0 "$version" pkg-config --modversion calomu
else skip "NO pkg-config HERE"; fi

# ---- CMake
# project NAME LINES: a project whose CMakeLists has these lines; built and run
project()
{
    mkdir -p "$1"
    cp program.c "$1"
    printf 'cmake_minimum_required(VERSION 3.14)\nproject(p C)\n%s\n' "$2" >"$1/CMakeLists.txt"
    check "cmake $1" 0 "" cmake -S "$1" -B "$1/b" -DCMAKE_C_COMPILER="$CC" \
        ${3:+"$3"} ${4:+"$4"}
    check "build $1" 0 "" cmake --build "$1/b" -- -j2
    check "run $1" 0 "" "$1/b/p" "$model"
    same "the GeV of $1" out want
}
use='add_executable(p program.c)
target_link_libraries(p calomu::'
# Where linking is tested and no flag, the engine is compiled without optimization: seconds.
plain=-DCMAKE_BUILD_TYPE=Debug
if command -v cmake >/dev/null; then
    project package "find_package(calomu $version REQUIRED)
${use}calomu)" "-DCMAKE_PREFIX_PATH=$pre"
    project static "find_package(calomu REQUIRED)
${use}static)" "-DCMAKE_PREFIX_PATH=$pre"
    project subdirectory "add_subdirectory($TMP/src/tools/cmake calomu)
${use}calomu)" "$plain"
    project shared "set(CALOMU_SHARED ON)
set(CALOMU_OPENMP OFF)
add_subdirectory($TMP/src/tools/cmake calomu)
${use}calomu)" -DCMAKE_POLICY_DEFAULT_CMP0077=NEW "$plain"
    project fast_math "add_compile_options(-O2 -ffast-math)
add_subdirectory($TMP/src/tools/cmake calomu)
${use}calomu)"
    project fetch "include(FetchContent)
FetchContent_Declare(calomu URL $TMP/src SOURCE_SUBDIR tools/cmake)
FetchContent_MakeAvailable(calomu)
${use}calomu)" "-DFETCHCONTENT_SOURCE_DIR_CALOMU=$TMP/src" "$plain"
    project sources "add_executable(p program.c)
target_sources(p PRIVATE $TMP/src/calomu.c)
target_include_directories(p PRIVATE $TMP/src)
target_link_libraries(p m)"
    mkdir -p later
    printf 'cmake_minimum_required(VERSION 3.14)\nproject(p C)\nfind_package(calomu 99 REQUIRED)\n' \
        >later/CMakeLists.txt
    check "a version that is not there" 0 "requested version \"99\"" sh -c '! cmake -S later \
        -B later/b -DCMAKE_PREFIX_PATH="$0"' "$pre"
else skip "NO cmake HERE: THE CMAKE PATHS WERE NOT TRIED"; fi

# ---- manual page and completions say what the help says
page=$pre/share/man/man1/calomu.1
for verb in $("$PROGRAM" help | awk '/^  [a-z]/ && $1 != "help" { print $1 }'); do
    grep -q "^.SH \"CALOMU $(echo "$verb" | tr a-z A-Z)\"" "$page" && pass || fail "page: $verb"
done
if command -v groff >/dev/null || command -v mandoc >/dev/null; then
    check "the page is set" 0 "select" sh -c "groff -man -Tascii -wall '$page' 2>warnings ||
        mandoc '$page'"
    [ ! -s warnings ] && pass || fail "without warnings" "$(head -n 3 warnings)"
else skip "NO groff OR mandoc HERE: THE MANUAL PAGE WAS NOT SET"; fi
if command -v bash >/dev/null; then
    # completed WORD... : what bash offers for the last word
    completed()
    {
        bash -c '. "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _calomu
            echo "${COMPREPLY[*]}"' "$pre/share/bash-completion/completions/calomu" "$@"
    }
    check "a verb" 0 "select" completed calomu sel
    check "an option" 0 "--shuffle" completed calomu select --shu
    check "a value" 0 "equal fast" completed calomu train --math ""
    check "a topic" 0 "folds" completed calomu help fol
else skip "NO bash HERE"; fi
if command -v zsh >/dev/null; then
    check "zsh reads its completion" 0 "" zsh -n "$pre/share/zsh/site-functions/_calomu"
else skip "NO zsh HERE: ITS COMPLETION WAS NOT READ"; fi

# ---- examples
if command -v "${CXX:-c++}" >/dev/null; then
    CXX=${CXX:-c++}
    check "reconstruction builds" 0 "" $CXX -std=c++11 -Wall -Wextra -Werror -I"$pre/include" \
        "$top/tools/examples/reconstruction.cpp" "$pre/lib/libcalomu.a" -fopenmp -pthread -lm \
        -o reconstruction
    "$PROGRAM" predict --model "$model" --data "$DATA/points.cmu" --out p.csv 2>err
    tail -n +2 p.csv | awk -F, '{ printf "%d,%.6g\n", $1, $3 }' >want.csv
    for threads in 1 3; do
        check "reconstruction, $threads threads" 0 "" ./reconstruction "$model" \
            "$DATA/points.cmu" $threads
        awk -F, '{ printf "%d,%.6g\n", $1, $2 }' out >got.csv
        same "energies of predict, $threads threads" got.csv want.csv
    done
    check "a model that is none" 0 "points.cmu" sh -c '! ./reconstruction "$0" "$0" 2' \
        "$DATA/points.cmu"
    check "the Geant4 detector, against stubs" 0 "" $CXX -std=c++17 -Wall -Wextra -Werror \
        -I"$pre/include" -I"$top/tests/geant4_stubs" -I"$top/tools/examples" \
        "$top/tests/geant4_stubs/main.cpp" "$pre/lib/libcalomu.a" -fopenmp -lm -o detector
    check "a muon through the detector" 0 " GeV" ./detector "$model"
    sed 's/^/detector: /' out >got
    sed 's/^/detector: /' want >want2
    same "the energy of the opening program" got want2
else skip "NO C++ COMPILER HERE: THE EXAMPLES WERE NOT BUILT"; fi

# ---- the first hour of tools/examples/README.md, as it stands
if command -v cmake >/dev/null && command -v git >/dev/null && command -v c++ >/dev/null; then
    mkdir hour
    cp -r src hour/origin
    cp -r "$DATA" hour/origin/testdata
    rm -rf hour/origin/build hour/origin/calomu
    (cd hour/origin && git init -q && git add . && git -c user.name=t -c user.email=t@t \
        -c commit.gpgsign=false commit -qm t) >out 2>err || fail "a repository"
    awk '/^```sh/ { on = 1; next } /^```/ { on = 0 } on' "$top/tools/examples/README.md" >hour/all.sh
    [ "$(wc -l <hour/all.sh)" -ge 9 ] && pass || fail "commands of the first hour"
    # Its make finds the objects of the same sources: newer than the clone, so only linked.
    check "the first hour" 0 "0," env CALOMU_URL="$TMP/hour/origin" CFLAGS=-O1 HDF5= CC="$CC" \
        sh -c 'make() { [ -d calomu/build ] || cp -r ../src/build calomu/; command make "$@"; }
            cd hour && set -e && . ./all.sh'
    [ ! -e hour/local/bin/calomu ] && [ -x hour/mine/build/mine ] && pass || fail "what it leaves"
else skip "NO cmake, git OR c++ HERE: THE FIRST HOUR WAS NOT TRIED"; fi

# ---- uninstall takes all of it, and nothing else
touch "$pre/lib/mine"
check "uninstall" 0 "" make -C src HDF5= uninstall PREFIX="$pre"
[ "$(find "$pre" -type f -o -type l)" = "$pre/lib/mine" ] && pass ||
    fail "uninstall leaves what is not its own alone" "$(find "$pre" -type f)"
cli_end
