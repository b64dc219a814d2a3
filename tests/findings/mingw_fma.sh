#!/bin/sh
# mingw_fma.sh - fma() of mingw-w64, which C99 says is rounded once
#
# Versions: Debian's gcc-mingw-w64-x86-64-win32 12.2.0-14+deb12u1+25.2+b1, mingw-w64-x86-64-dev
#           10.0.0-3, wine64 8.0~repack-4.
# Guess:    exact; and if not, then the probe that everybody knows, (1 + e)(1 - e) - 1, tells.
# Is so:    the product and the sum are made in x87's 64 bits and rounded to double at the end: twice.
#           The probe passes, because its product fits 64 bits.  321 x 28059810762433 = 2^53 + 1, so
#           321 * (28059810762433 / 2^53) + 2^-120 is above half a step of 1 and must give 1 + 2^-52.
# Seen:     probe -0x1p-54 (right), 0x1p+0 (wrong)
# calomu:   uses an fma of its own where there is no instruction (cm_soft_fma in calomu.c), and looks
#           at this sum when a context is opened; test_engine.c has both.
# usage: sh mingw_fma.sh    exit 0: as written here; 1: it has changed; 77: cannot tell
WINE=$(command -v wine64 || command -v wine || echo /usr/lib/wine/wine64)
command -v x86_64-w64-mingw32-gcc >/dev/null && [ -x "$WINE" ] ||
    apt-get install -y --no-install-recommends \
        gcc-mingw-w64-x86-64-win32=12.2.0-14+deb12u1+25.2+b1 mingw-w64-x86-64-dev=10.0.0-3 \
        wine64=8.0~repack-4 >/dev/null 2>&1
[ -x "$WINE" ] || WINE=/usr/lib/wine/wine64
command -v x86_64-w64-mingw32-gcc >/dev/null && [ -x "$WINE" ] || exit 77
D=$(mktemp -d) && trap 'rm -rf "$D"' EXIT && cd "$D" || exit 77
cat >fma.c <<'C'
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
int main(void)
{
    volatile double e = 0x1p-27, one = 1, a = 321, b = 28059810762433 * 0x1p-53, c = 0x1p-120;
    double x = fma(one + e, one - e, -one), y = fma(a, b, c);
    uint64_t u, v;
    memcpy(&u, &x, sizeof u);
    memcpy(&v, &y, sizeof v);
    printf("probe %016llx, sum %016llx\n", (unsigned long long)u, (unsigned long long)v);
    return 0;
}
C
x86_64-w64-mingw32-gcc -O1 fma.c -o fma.exe 2>err || exit 77
WINEPREFIX=$D/wine WINEDEBUG=-all "$WINE" fma.exe 2>/dev/null | tr -d '\r' >out
[ -s out ] || exit 77
cat out
# -2^-54; and 1 where 1 + 2^-52 (3ff0000000000001) is right
[ "$(cat out)" = "probe bc90000000000000, sum 3ff0000000000000" ]
