#!/bin/sh
# symbols.sh - what the library exports, needs and keeps
#
#   sh tests/symbols.sh build/calomu.o
#
# Every exported name is declared in the public part of calomu.h and starts with calomu_; every
# function of the public part is there; nothing is needed that prints, exits, reads the environment
# or is a transcendental function of libm; there are no mutable globals.
set -u
LC_ALL=C
export LC_ALL
object=${1:?usage: symbols.sh OBJECT}
here=$(dirname "$0")/..
passed=0
failed=0
check() {                            # text, offenders
    if [ -z "$2" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "symbols: $1:" $2 >&2
    fi
}
command -v nm > /dev/null && command -v size > /dev/null || {
    echo "symbols: SKIPPED: no nm or size" >&2
    echo "symbols: 0 passed, 0 failed, 1 skipped"
    exit 0
}
# The sanitizers add names and data of their own.
if nm "$object" | grep -q '__asan\|__tsan\|__ubsan'; then
    echo "symbols: SKIPPED: built with a sanitizer" >&2
    echo "symbols: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
# OpenMP keeps the locks of critical sections under names of ours behind a prefix.
exported=$(nm -g "$object" | awk '$2 ~ /^[A-TV-Z]$/ { sub(/^[.]gomp_critical_user_/, "", $3)
                                                      if ($3 !~ /^calomu_failures(.var)?$/) print $3 }')
needed=$(nm -u "$object" | awk '{ print $2 }')
declared=$(sed -n '/^#ifdef CALOMU_INTERNALS/q;p' "$here/calomu.h" | sed 's,/\*.*\*/,,' |
           awk '/^ \* |^   / { next } { print }' | grep -o 'calomu_[a-z0-9_]*(' | tr -d '(' | sort -u)

check "exported under a foreign name" \
    "$(echo "$exported" | grep -v '^calomu_')"
check "exported but not declared in calomu.h" \
    "$(for s in $exported; do grep -q "[ *]$s(" "$here/calomu.h" || echo "$s"; done)"
check "declared but not there" \
    "$(for s in $declared; do echo "$exported" | grep -qx "$s" || echo "$s"; done)"
[ "$(echo "$declared" | wc -l)" -ge 40 ] || check "declarations found" "too few"
check "prints, exits, reads the environment or keeps state" \
    "$(echo "$needed" | grep -x '_*exit\|_Exit\|abort\|printf\|puts\|putchar\|perror\|vprintf\|stdout\|stderr\|getenv\|setenv\|setlocale\|rand\|srand\|random\|strtok\|signal\|system\|time\|__assert_fail')"
check "transcendental functions of libm differ from machine to machine" \
    "$(echo "$needed" | grep -x '\(exp\|exp2\|expm1\|log\|log2\|log10\|log1p\|sin\|cos\|tan\|asin\|acos\|atan\|atan2\|sinh\|cosh\|tanh\|pow\|cbrt\|erf\|tgamma\|lgamma\|hypot\)f\?')"
check "mutable globals" \
    "$(size -A "$object" | awk '($1 ~ /^\.(data|bss|tdata|tbss)(\.|$)/ && $1 !~ /^\.data\.rel\.ro/ \
                                 && $2 > 0) { print $1, $2 }')"
echo "symbols: $passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]
