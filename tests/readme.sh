#!/bin/sh
# readme.sh - every command of README and of the pages that it names, in their order: `calomu` ones
# are run, on small data; of `make` ones the targets are looked up
#
# usage: readme.sh PROGRAM [TESTDATA [TMPDIR]]
#
# The programs are called through wrappers that make the work small: they set the options that only
# say how much (epochs, batch, folds, muons, bins) and leave all others as the pages have them.  The
# files that a reader brings are made of testdata.  The commands of import.md for files that its own
# code makes are run by cli_h5.sh.
. "$(dirname "$0")/cli_lib.sh"
top=$(cd "$(dirname "$0")/.." && pwd)
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" readme
cd "$TMP" || exit 1
ln -s "$DATA" testdata
OMP_WAIT_POLICY=passive
H5=$(dirname "$PROGRAM")/calomu-import-h5
export OMP_WAIT_POLICY PROGRAM H5

# ---------------------------------------------------------------- wrappers

cat >calomu <<'END'
#!/bin/sh
# Drops the options that say how much, with their values, and puts small values in.
verb=$1
small=
drop=" "
case $verb in
train) drop=" --epochs --cycle-epochs --batch --folds --member --device "
    small="--epochs 1 --cycle-epochs 1 --batch 2 --folds 4 --bins 2 --fit-bins 2"
    case " $* " in *" --inputs features "*) ;; *) small="$small --blocks 1 --growth 0.5 --body 4" ;; esac ;;
predict) drop=" --device " ;;
simulate) case " $* " in *" --n 1000000 "*) drop=" --n "; small="--n 24" ;; esac ;;
evaluate) case " $* " in *" --points "*) ;; *) drop=" --bins --fit-bins "; small="--bins 4 --fit-bins 6" ;; esac ;;
model-import) [ "$2" != back.safetensors ] || cp model.safetensors back.safetensors ;;
bench) exec "$PROGRAM" bench --help ;;
esac
n=$#
while [ "$n" -gt 0 ]; do
    word=$1
    shift
    n=$((n - 1))
    case $drop in
    *" $word "*) shift; n=$((n - 1)) ;;
    *) set -- "$@" "$word" ;;
    esac
done
# shellcheck disable=SC2086
exec "$PROGRAM" "$@" $small
END
# The samples of study.md are those of testdata.
cat >calomu-import-h5 <<'END'
#!/bin/sh
case $1 in
train.h5) with=muons ;;
valid.h5) with=valid ;;
fixed.h5) with=points ;;
*) exec "$H5" "$@" ;;
esac
[ "$2" = --out ] && "$H5" testdata/cut_geant4.h5 --out "$3" && cp "testdata/$with.cmu" "$3"
END
cat >make <<END
#!/bin/sh
# A target that is not there, or a misspelt variable, is what can go wrong in them.
for word; do
    case \$word in
    CC=*|CFLAGS=*|OPENMP=*|HDF5=*|REF=*|PYTHON=*|PEER_PYTHON=*|DEVICE=*|MATH=*|B=*|ARCHS=*|NVCC=*) ;;
    *=*) echo "make: no variable \$word" >&2; exit 1 ;;
    *) grep -qE "^([a-z-]+ )*\$word( [a-z-]+)*:" "$top/Makefile" "$top/cuda/cuda.mk" ||
        { echo "make: no target \$word" >&2; exit 1; } ;;
    esac
done
END
chmod +x calomu calomu-import-h5 make
PATH=$TMP:$PATH
export PATH

# ---------------------------------------------------------------- what a reader brings

"$PROGRAM" export testdata/muons.cmu --hits gev.csv --truth TRUTH.csv 2>err || fail "HITS.csv"
awk -F, -v OFS=, 'NR > 1 { $5 *= 1000 } 1' gev.csv >HITS.csv         # MeV
cp testdata/cut_geant4.h5 FILE.h5
cp testdata/valid.cmu other.cmu
cp testdata/valid.cmu few.cmu
for name in torch_state member0 member1; do
    cp testdata/model.safetensors $name.safetensors
done
"$PROGRAM" predict --model testdata/model.safetensors --data other.cmu --out validation.csv 2>err ||
    fail "validation.csv"

"$PROGRAM" info testdata/model.safetensors | awk 'BEGIN { print "feature,mean,std" }
    $1 == "standardisation" { on = 1; next }
    on && NF == 3 { print $1 "," $2 "," $3 }' >standard.csv
[ "$(wc -l <standard.csv)" -eq 29 ] && pass || fail "standard.csv" "$(head -n 3 standard.csv)"

# ---------------------------------------------------------------- the commands

# One line "PAGE: COMMAND" of `commands` for each, continuation lines and loops joined; comments go.
(cd "$top" && awk 'FNR == 1 { on = 0 } /^```sh/ { on = 1; next } /^```/ { on = 0 }
    on { sub(/[ ]+#.*$/, ""); if ($0 ~ /^[ ]*$/) next
         line = line $0
         if (line ~ /\\$/) { sub(/\\$/, " ", line); next }
         if (line ~ /^for / && line !~ /done$/) { line = line " "; next }
         if (line !~ /^calomu-import-h5/) print FILENAME ": " line
         line = "" }' README.md tools/study.md tools/import.md tools/simulation/README.md \
    cuda/README.md tests/bench.md) >commands
for page in "README.md 30" "tools/study.md 5" "tools/import.md 3" "tools/simulation/README.md 3" \
    "cuda/README.md 5" "tests/bench.md 5"; do
    n=$(grep -c "^${page% *}: " commands)
    [ "$n" -ge "${page#* }" ] && pass || fail "${page% *} has its commands" "$n found"
done
while IFS= read -r command; do
    page=${command%%: *}
    command=${command#*: }
    case $command in
    *calomu-import-h5*) [ -x "$H5" ] || { skip "no calomu-import-h5: $command"; continue; } ;;
    esac
    piped "$page: $command" 0 "" "set -e; $command"
done <commands
for file in points.csv my.safetensors pred.csv run1_*.svg model.safetensors two.cmu; do
    case $file in *.svg) command -v gnuplot >/dev/null || continue ;; esac
    [ -s "$file" ] && pass || fail "README leaves $file"
done
cli_end
