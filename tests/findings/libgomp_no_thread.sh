#!/bin/sh
# libgomp_no_thread.sh - OpenMP of gcc where the system gives fewer threads than are asked for
#
# Versions   libgomp1 12.2.0-14+deb12u1 (Debian 12), unpacked in a temporary folder; any C compiler
# Guess      a parallel region that cannot have all the threads that it asks for runs with those that
#            there are (omp_get_num_threads is there to be asked), or the program is told
# Behaviour  libgomp ends the whole program from inside the region, with exit code 1 and a line of
#            its own; a host program that only calls a library is ended too
# Seen       below a limit of memory that holds the stacks of 2 of 8 threads: exit code 1, "libgomp:
#            Thread creation failed: Resource temporarily unavailable", nothing of the program's own
# In calomu  tools/threads.c makes the threads before OpenMP does: code 5, and which limit to raise
#
# usage: sh libgomp_no_thread.sh; exit 1 if this behaviour changes, 77 if the package cannot be had
set -u
package=libgomp1=12.2.0-14+deb12u1
dir=$(mktemp -d) || exit 77
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 77
apt-get download "$package" >log 2>&1 || { cat log; exit 77; }
dpkg -x libgomp1_*.deb root || exit 77
cat >try.c <<'C'
#include <omp.h>
#include <stdio.h>
int main(void)
{
    int n = 0;
    #pragma omp parallel num_threads(8) reduction(+ : n)
    n++;
    printf("%d threads\n", n);
    return 0;
}
C
${CC:-gcc} -fopenmp try.c -o try || exit 77
LD_LIBRARY_PATH=$(dirname "$(find "$PWD/root" -name libgomp.so.1)")
export LD_LIBRARY_PATH
bad=0
[ "$(./try)" = "8 threads" ] || { echo "changed: without a limit: $(./try)"; bad=1; }
out=$(ulimit -v 3000000; OMP_DYNAMIC=false OMP_STACKSIZE=1G ./try 2>err)
code=$?
echo "exit code $code, '$out', $(tr -d '\n' <err)"
[ $code -eq 1 ] && [ -z "$out" ] && grep -q "libgomp: Thread creation failed" err || bad=1
[ $bad -eq 0 ] && echo "as described" || echo "changed"
exit $bad
