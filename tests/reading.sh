#!/bin/sh
# reading.sh - what is said to readers of calomu.c is true: the lines of README's map, the table of
# contents in its head, what part I does without; and aloud.c tells the way of a muon
#
# usage: reading.sh PROGRAM [TESTDATA [TMPDIR]]
#        reading.sh --write       sets the lines of README's map
cd "$(dirname "$0")/.." || exit 1
top=$(pwd)

# Lines of section $1: from its bar to the line before the next one.
lines()
{
    awk -v n="$1" '
        /^\/\* ={60}/ || /^\/\* ==========/ { bar = NR }
        NR == bar + 1 && match($0, /^   [0-9]+ /) {
            if (first) { print first, bar - 1; found = 1; exit }
            if ($1 == n) first = bar
        }
        NR == bar + 1 && first && /^   =====/ { print first, bar - 1; found = 1; exit }
        END { if (first && !found) print first, NR }' calomu.c
}

# Rows "| ... | N Title | a to b |" of the map: N, a, b.
rows()
{
    awk -F'|' '/^## Reading calomu.c/ { on = 1; next } /^## / { on = 0 }
        on && $3 ~ /^ [0-9]+ / { split($3, s, " "); split($4, l, " "); print s[1], l[1], l[3] }' README.md
}

if [ "${1-}" = --write ]; then
    rows | while read -r n a b; do
        set -- $(lines "$n")
        sed -i "/^## Reading calomu.c/,/^## Words/s/^\(|[^|]*| $n [^|]*| \)$a to $b |/\1$1 to $2 |/" README.md
    done
    exit
fi

. tests/cli_lib.sh
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" reading

# ---------------------------------------------------------------- the map

[ "$(rows | wc -l)" -ge 8 ] && pass || fail "the map" "$(rows | wc -l) rows"
rows >"$TMP/rows"
while read -r n a b; do
    [ "$a $b" = "$(lines "$n")" ] && pass ||
        fail "section $n in README's map" "$a to $b, but it is $(lines "$n"): sh tests/reading.sh --write"
done <"$TMP/rows"

# ---------------------------------------------------------------- the contents in the head

sed -n '2,/^   Letters/p' calomu.c >"$TMP/contents"
for n in $(sed -n 's/^   \([0-9][0-9]*\) [A-Z].*/\1/p' calomu.c | sort -nu); do
    grep -qE "(^|  )[ ]*$n [a-zA-Z]" "$TMP/contents" && pass || fail "section $n is in the contents"
done
for n in $(sed -n 's|^/\* -* \([0-9]*\.[0-9]*\) .*|\1|p; s|^/\* \(17\.[0-9]*\) .*|\1|p' calomu.c | sort -u); do
    grep -q "$n" "$TMP/contents" && pass || fail "$n is in the contents"
done

# ---------------------------------------------------------------- part I

awk '/^   PART I   / { on = 1 } /^   PART II   / { on = 0 } on' calomu.c >"$TMP/part1.c"
[ "$(wc -l <"$TMP/part1.c")" -ge 2500 ] && pass || fail "part I is there"
for word in '#pragma' _Pragma __attribute__ __builtin omp_ CM_PARALLEL cm_thread cm_graph cm_tensor \
    CM_ISA CM_VECTOR calomu_device avx; do
    grep -n "$word" "$TMP/part1.c" >"$TMP/found" && fail "no $word in part I" "$(head -n 3 "$TMP/found")" || pass
done
awk '/^[a-z].*\)$/ { start = NR } /^}/ && start { if (NR - start > 51) print NR - start, start; start = 0 }' \
    calomu.c >"$TMP/long"
[ -s "$TMP/long" ] && fail "no function of calomu.c has more than 50 lines" "$(cat "$TMP/long")" || pass

# ---------------------------------------------------------------- aloud

${CC:-cc} -std=c99 -O1 -w -I. -DCALOMU_INTERNALS -DCALOMU_PLAIN -o "$TMP/aloud" tests/aloud.c calomu.c -lm
"$TMP/aloud" "$DATA/model.safetensors" "$DATA/points.cmu" 3 >"$TMP/aloud.txt" 2>"$TMP/aloud.err"
[ $? -eq 0 ] && pass || fail "aloud" "$(cat "$TMP/aloud.err")"
[ "$(wc -l <"$TMP/aloud.txt")" -eq 199 ] && pass || fail "aloud: 197 layers" "$(wc -l <"$TMP/aloud.txt") lines"
"$PROGRAM" predict --model "$DATA/model.safetensors" --data "$DATA/points.cmu" --out "$TMP/p.csv" 2>"$TMP/err"
told=$(tail -n 1 "$TMP/aloud.txt" | awk '{ printf "%.5g", $NF }')
pred=$(awk -F, '$1 == 3 { printf "%.5g", $3 }' "$TMP/p.csv")
[ -n "$told" ] && [ "$told" = "$pred" ] && pass || fail "aloud ends with the energy" "$told, predict says $pred"
cli_end
