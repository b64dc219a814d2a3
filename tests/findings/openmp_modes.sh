#!/bin/sh
# openmp_modes.sh - in which rounding mode OpenMP's threads compute
#
# Versions: Debian's libgomp1 12.2.0-14+deb12u1 and libomp5-14 1:14.0.6-12, x86-64.
# Guess:    a parallel region computes in the mode of the thread that starts it; or each thread keeps
#           its own, whatever the library.
# Is so:    libgomp's threads keep the mode that the starting thread had when they were made, in all
#           later regions: a host that rounded upward around its first region (interval arithmetic)
#           gets half of every later loop rounded upward.  libomp copies the starting thread's modes
#           into its threads at every region (KMP_INHERIT_FP_CONTROL), so the same program is right.
# Seen:     libgomp: 0 up, 1 up / 0 nearest, 1 up;  libomp: 0 up, 1 up / 0 nearest, 1 nearest
# calomu:   each thread sets its modes in every parallel loop (cm_shift in calomu.c; bits.sh, mode
#           "workers").
# usage: sh openmp_modes.sh    exit 0: as written here; 1: it has changed; 77: cannot tell
[ "$(uname -m)" = x86_64 ] && command -v gcc >/dev/null && command -v apt-get >/dev/null || exit 77
D=$(mktemp -d) && trap 'rm -rf "$D"' EXIT && cd "$D" || exit 77
apt-get download -q libgomp1=12.2.0-14+deb12u1 libomp5-14=1:14.0.6-12 >/dev/null 2>&1 || exit 77
for p in *.deb; do dpkg -x "$p" . || exit 77; done
cat >modes.c <<'C'
#include <fenv.h>
#include <omp.h>
#include <stdio.h>
static void region(void)
{
    int mode[2] = { -1, -1 }, i;
#pragma omp parallel num_threads(2)
    mode[omp_get_thread_num()] = fegetround();
    for (i = 0; i < 2; i++)
        printf("%s%d %s", i ? ", " : "", i,
               mode[i] == FE_TONEAREST ? "nearest" : mode[i] == FE_UPWARD ? "up" : "other");
}
int main(void)
{
    fesetround(FE_UPWARD);
    region();
    fesetround(FE_TONEAREST);
    printf(" / ");
    region();
    printf("\n");
    return 0;
}
C
gcc -O1 -fopenmp modes.c -lm -o modes || exit 77
mkdir gomp omp
cp usr/lib/x86_64-linux-gnu/libgomp.so.1 gomp
# libomp speaks libgomp's interface too.
cp "$(find . -name 'libomp.so.5' | head -n 1)" omp/libgomp.so.1 || exit 77
LD_LIBRARY_PATH=$D/gomp ./modes >gomp.out && LD_LIBRARY_PATH=$D/omp ./modes >omp.out || exit 77
echo "libgomp: $(cat gomp.out);  libomp: $(cat omp.out)"
[ "$(cat gomp.out)" = "0 up, 1 up / 0 nearest, 1 up" ] &&
    [ "$(cat omp.out)" = "0 up, 1 up / 0 nearest, 1 nearest" ]
