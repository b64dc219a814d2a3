#!/bin/sh
# cli.sh - tests of the program's shell side: usage, info, import, export, features
#
#     sh tests/cli.sh ./calomu testdata build/tmp
LC_ALL=${CLI_LOCALE:-C}
export LC_ALL
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli
cd "$TMP" || exit 1

# ------------------------------------------------------------------ usage

check "no arguments: short help" 2 "Usage: calomu VERB" "$PROGRAM"
check "help" 0 "Exit codes" "$PROGRAM" help
check "--help" 0 "evaluate" "$PROGRAM" --help
check "--version" 0 "calomu 0.1" "$PROGRAM" --version
check "help of a verb" 0 "--energy-unit" "$PROGRAM" help import
check "help of an unknown verb" 2 "no verb 'nothing'" "$PROGRAM" help nothing
check "help with two verbs" 2 "too much" "$PROGRAM" help info import
check "unknown verb with a near one" 2 "did you mean 'train'?" "$PROGRAM" trian
check "prefix of a verb" 2 "did you mean 'evaluate'?" "$PROGRAM" eval
check "unknown verb with none near" 2 "calomu help lists them" "$PROGRAM" qqqqqqqqqq
check "empty verb" 2 "no verb ''" "$PROGRAM" ""
for verb in info import export features train predict evaluate plot model-import model-join bench; do
    check "$verb --help" 0 "Usage: calomu $verb" "$PROGRAM" $verb --help
    check "$verb: unknown option" 2 "no option '--nonsense'" "$PROGRAM" $verb --nonsense
done
check "defaults in the help" 0 "50,32,32,40.64,3.75,3.75,0,-60,-60,2" "$PROGRAM" import --help
check "units in the help" 0 "(default 0.1)" "$PROGRAM" features --help

set -- --hits h.csv --energy-unit GeV --out o.cmu
check "near option" 2 "did you mean '--energy-unit'?" "$PROGRAM" import --energy-unti GeV
check "single dash" 2 "no option '-hits'; did you mean '--hits'?" "$PROGRAM" import -hits h.csv
check "value missing at the end" 2 "--hits needs a value (HITS.csv)" "$PROGRAM" import --hits
check "value missing before an option" 2 "--hits needs a value" "$PROGRAM" import --hits --out x
check "empty value" 2 "--out: the value is empty" "$PROGRAM" import --out=
check "twice" 2 "--hits is given twice" "$PROGRAM" import --hits a --hits=b
check "bad choice" 2 "must be one of GeV|MeV" "$PROGRAM" import --energy-unit TeV
check "needed option" 2 "--energy-unit GeV|MeV is missing" "$PROGRAM" import --hits h --out o
check "operand too many" 2 "'x' is one argument too many" "$PROGRAM" import "$@" x
check "operand missing" 2 "FILE is missing" "$PROGRAM" info
check "both standard input" 2 "cannot both be standard input" \
    "$PROGRAM" import --hits - --truth - --energy-unit GeV --out o.cmu
check "both standard input" 2 "cannot both be standard input" \
    "$PROGRAM" import --hits h --truth - --losses - --energy-unit GeV --out o.cmu
check "losses without truth" 2 "--losses needs --truth" "$PROGRAM" import "$@" --losses l.csv
check "junk behind a number" 2 "not a number" "$PROGRAM" features a --out b --grow 0.1x
check "nan" 2 "not a number" "$PROGRAM" features a --out b --grow nan
check "infinity" 2 "not a number" "$PROGRAM" features a --out b --grow 1e999
check "hexadecimal" 2 "not a number" "$PROGRAM" features a --out b --grow 0x1
check "comma for a point" 2 "not a number" "$PROGRAM" features a --out b --grow 0,1
check "negative" 2 "must be at least 0" "$PROGRAM" features a --out b --grow -1
check "threads 0" 2 "must be from 1 to 4096" "$PROGRAM" features a --out b --threads 0
check "threads not whole" 2 "not a whole number" "$PROGRAM" features a --out b --threads 1.5
check "threads overflow" 2 "must be from 1 to 4096" \
    "$PROGRAM" features a --out b --threads 99999999999999999999999
check "-- ends the options" 4 "./--out" "$PROGRAM" info -- ./--out
for bad in 1,2 50,32,32,40,3.75 0,1,1,1,1,1 1.5,1,1,1,1,1 1,1,1,0,1,1 1,1,1,-1,1,1 1,1,1,1,1,nan \
    1e30,1,1,1,1,1 16777216,2,1,1,1,1 1,1,1,1,1,1,0 1,1,1,1,1,1,0,0,0,2,3 ,,,,, 1,1,1,1,1,1, x; do
    check "geometry $bad" 2 "--geometry $bad: " "$PROGRAM" import "$@" --geometry $bad
done

# Ranges of options are those of the library: what the parser takes is not refused later.
for range in "blocks 65 64" "growth 0.1 0.2" "growth 8.5 8" "body 4097 4096" "batch 1048577 1048576" \
    "folds 1048577 1048576" "lr 1e301 1e+300" "weight-centre 1e13 1e+12" "weight-low 1e13 1e+12"; do
    set -- $range
    check "--$1 $2" 2 "--$1 $2: must be" "$PROGRAM" train --data none.cmu --out o --$1 $2
    check "--$1 $3" 4 "none.cmu" "$PROGRAM" train --data none.cmu --out o --$1 $3
done
absent "no model" o

# ------------------------------------------------------------------ import and export

cat >hits.csv <<END
event,iz,ix,iy,energy
0,0,16,16,0.03125
0,1,16,16,1.25
0,49,31,31,3.40282347e+38
2,0,0,0,1.40129846e-45
2,0,0,1,0
3,7,8,9,0.100000001
END
cat >truth.csv <<END
event,energy,x,y,charge
0,1000,1.89999998,1.875,1
1,,,,
2,50.5,-20,-0.125,-1
3,7999.99023,,,
END

# import HITS TRUTH OUT: in GeV
import() { "$PROGRAM" import --hits "$1" --truth "$2" --energy-unit GeV --out "$3"; }

check "import" 0 "4 muons, 6 hits" import hits.csv truth.csv a.cmu
check "info of it" 0 "all 4 muons are verified" "$PROGRAM" info a.cmu
check "info: geometry" 0 "50 x 32 x 32" "$PROGRAM" info a.cmu
check "info: muon without hits" 0 "muons without hits  1" "$PROGRAM" info a.cmu
check "export" 0 "" "$PROGRAM" export a.cmu --hits h2.csv --truth t2.csv
same "hits come back" hits.csv h2.csv
same "truth comes back" truth.csv t2.csv
check "import again" 0 "" import h2.csv t2.csv b.cmu
same "the same file again" a.cmu b.cmu
check "export to standard output" 0 "3,7,8,9,0.100000001" "$PROGRAM" export a.cmu --hits -

# Losses: a file with them, the same file without.
cat >losses.csv <<END
event,lost,deposited,leaked,unseen
0,17.3280487,16.662323,0.665725589,0
1,,,,
2,3.40282347e+38,-1.40129846e-45,-0.5,
3,,,2.5,
END
import_losses()
{
    "$PROGRAM" import --hits hits.csv --truth truth.csv --losses "$1" --energy-unit GeV --out "$2"
}
check "losses" 0 "4 muons, 6 hits" import_losses losses.csv l.cmu
check "losses: export" 0 "" \
    "$PROGRAM" export l.cmu --hits lh.csv --truth lt.csv --losses ll.csv
same "losses come back" losses.csv ll.csv
same "losses: hits come back" hits.csv lh.csv
same "losses: truth comes back" truth.csv lt.csv
check "losses: import again" 0 "" import_losses ll.csv l2.cmu
same "losses: the same file again" l.cmu l2.cmu
check "losses: info" 0 "all 4 muons are verified" "$PROGRAM" info l.cmu
holds "losses: range" out "energy leaked       -0.5 to 2.5 GeV; unknown for 1 muons"
holds "losses: one value" out "energy unseen       0 to 0 GeV; unknown for 3 muons"
holds "losses: lost" out "energy lost         17.328 to 3.40282e+38 GeV; unknown for 2 muons"
"$PROGRAM" info a.cmu >without.txt
grep -q "energy lost" without.txt && fail "no losses: info has some" || pass
check "no losses: export" 3 "a.cmu: the file has no losses" "$PROGRAM" export a.cmu --losses x.csv
absent "no losses: no file" x.csv
printf 'event,unseen,leaked,lost,deposited\n3,,2.5,,\n' >o.csv
printf '2,,-0.5,3.40282347e38,-1.40129846e-45\n' >>o.csv
printf '0,0.0,0.665725589,17.3280487,16.662323\n1,,,,\n' >>o.csv
piped "losses from a pipe, in another order" 0 "" 'cat o.csv | import_losses - l3.cmu'
same "losses in another order" l.cmu l3.cmu
check "losses: features" 0 "4 muons with features" "$PROGRAM" features l.cmu --out lf.cmu
check "losses: features keep them" 0 "" "$PROGRAM" export lf.cmu --losses ll.csv
same "losses: features keep them" losses.csv ll.csv
check "losses: perturb" 0 "" "$PROGRAM" perturb lf.cmu --zero 1000 --out lp.cmu
check "losses: perturb keeps them" 0 "" "$PROGRAM" export lp.cmu --losses ll.csv
same "losses: perturb keeps them" losses.csv ll.csv
check "no losses: perturb adds none" 0 "" "$PROGRAM" perturb a.cmu --zero 1000 --out ap.cmu
check "no losses: perturb adds none" 3 "no losses" "$PROGRAM" export ap.cmu --losses x.csv
check "losses: clash" 2 "is the same file as --hits x.csv" "$PROGRAM" export l.cmu --hits x.csv --losses x.csv

# Rows and columns in another order, CRLF, byte order mark, blanks, a column more, no last newline.
printf '\357\273\277energy, iy ,ix,iz,remark,event\r\n0.1,9,8,7,a,3\r\n1.25,16,16,1,b,0\r\n' >r.csv
printf '3.40282347e38,31,31,49,,0\r\n0,1,0,0,,2\r\n.03125,16,16,0,,0\r\n1e-45,0,0,0,,+2' >>r.csv
printf 'charge,y,x,energy,event\n-1,-0.125,-20,50.5,2\n,,,,1\n1,1.875,1.9,1e3,0\n' >s.csv
printf ',,,7999.99023,3\n\n\n' >>s.csv
check "another order" 0 "" import r.csv s.csv c.cmu
same "another order, same file" a.cmu c.cmu
piped "hits from a pipe" 0 "" 'cat r.csv | import - s.csv d.cmu'
same "hits from a pipe, same file" a.cmu d.cmu
piped "truth from a pipe" 0 "" 'cat s.csv | import r.csv - e.cmu'
same "truth from a pipe, same file" a.cmu e.cmu
if mkfifo fifo.csv 2>/dev/null; then
    piped "hits from a FIFO" 0 "" 'cat r.csv >fifo.csv & import fifo.csv s.csv f.cmu'
    same "hits from a FIFO, same file" a.cmu f.cmu
    check "a FIFO is no data file" 3 "fifo.csv" timeout 10 "$PROGRAM" info fifo.csv
else
    skip "FIFO: mkfifo failed"
fi

# The unit applies to the hits only.
sed 's/1.40129846e-45/1e-3/;s/3.40282347e+38/5/' hits.csv >m.csv
check "MeV" 0 "" "$PROGRAM" import --hits m.csv --truth truth.csv --energy-unit MeV --out m.cmu
check "MeV: hits scaled" 0 "0,1,16,16,0.00124999997" "$PROGRAM" export m.cmu --hits -
check "MeV: truth not scaled" 0 "0,1000,1.89999998" "$PROGRAM" export m.cmu --truth -
check "without truth" 0 "4 muons" "$PROGRAM" import --hits m.csv --energy-unit=GeV --out n.cmu
check "without truth: absent" 0 "1,,,," "$PROGRAM" export n.cmu --truth -
check "without truth: info" 0 "unknown: 4" "$PROGRAM" info n.cmu

# Other calorimeters.
printf 'event,iz,ix,iy,energy\n0,1,2,4,7\n' >g.csv
check "geometry" 0 "" "$PROGRAM" import --hits g.csv --energy-unit GeV --out g.cmu \
    --geometry 2,3,5,10,2,4
check "geometry: cells" 0 "2 x 3 x 5" "$PROGRAM" info g.cmu
check "geometry: centred" 0 "low corner 0, -3, -10 mm" "$PROGRAM" info g.cmu
check "geometry in full" 0 "" "$PROGRAM" import --hits g.csv --energy-unit GeV --out g.cmu \
    --geometry 2,3,5,10,2,4,-5,1,2.5,-0.5
check "geometry in full: corner" 0 "low corner -5, 1, 2.5 mm" "$PROGRAM" info g.cmu
check "geometry in full: field" 0 "-0.5 T" "$PROGRAM" info g.cmu

# Nothing in it.
printf 'event,iz,ix,iy,energy\n' >zero.csv
printf 'event,energy,x,y,charge\n' >zero_t.csv
check "no hits, no truth" 0 "0 muons, 0 hits" "$PROGRAM" import --hits zero.csv \
    --energy-unit GeV --out zero.cmu
check "info of zero muons" 0 "all 0 muons are verified" "$PROGRAM" info zero.cmu
check "truth without rows" 0 "0 muons" import zero.csv zero_t.csv zero2.cmu
same "both are the same" zero.cmu zero2.cmu
printf 'event,lost,deposited,leaked,unseen\n' >zero_l.csv
check "losses without rows" 0 "0 muons" "$PROGRAM" import --hits zero.csv --truth zero_t.csv \
    --losses zero_l.csv --energy-unit GeV --out zero3.cmu
check "info of zero muons with losses" 0 "all 0 muons are verified" "$PROGRAM" info zero3.cmu
check "export of zero losses" 0 "" "$PROGRAM" export zero3.cmu --losses zero_l2.csv
same "export of zero losses" zero_l.csv zero_l2.csv
check "muons without hits" 0 "4 muons, 0 hits" import zero.csv truth.csv zero3.cmu

# ------------------------------------------------------------------ bad CSV

# bad_hits WHAT PATTERN TEXT: the line must be named
bad_hits()
{
    printf "$3" >bad.csv
    check "hits: $1" 3 "$2" import bad.csv truth.csv bad.cmu
    absent "hits: $1: no file" bad.cmu
}
bad_truth()
{
    printf "$3" >bad.csv
    check "truth: $1" 3 "$2" import hits.csv bad.csv bad.cmu
    absent "truth: $1: no file" bad.cmu
}
H='event,iz,ix,iy,energy\n'
bad_hits "empty file" "bad.csv:1: the file is empty" ''
bad_hits "column missing" "bad.csv:1: the header has no column 'energy'" 'event,iz,ix,iy\n0,0,0,0\n'
bad_hits "column misspelt" "(it has 'enrgy')" 'event,iz,ix,iy,enrgy\n0,0,0,0,1\n'
bad_hits "column twice" "names column 'iz' twice" 'event,iz,ix,iy,iz,energy\n0,0,0,0,0,1\n'
bad_hits "no header" "bad.csv:1: the header has no column 'event'" '0,0,0,0,1\n'
bad_hits "too few fields" "bad.csv:3: the line has 4 fields, but the header has 5" \
    "${H}0,0,0,0,1\n0,0,0,1\n"
bad_hits "too many fields" "bad.csv:2: the line has 6 fields" "${H}0,0,0,0,1,2\n"
bad_hits "cut off" "bad.csv:3: " "${H}0,0,0,0,1\n0,0,0"
bad_hits "text" "bad.csv:2: 'energy' is 'much', which is not a number" "${H}0,0,0,0,much\n"
bad_hits "junk behind" "bad.csv:2: 'energy' is '1.0f', which" "${H}0,0,0,0,1.0f\n"
bad_hits "two points" "'1.2.3', which is not a number" "${H}0,0,0,0,1.2.3\n"
bad_hits "hexadecimal" "not a number" "${H}0,0,0,0,0x10\n"
bad_hits "nan" "bad.csv:2: 'energy' is 'nan', which is not a number" "${H}0,0,0,0,nan\n"
bad_hits "inf" "not a number" "${H}0,0,0,0,inf\n"
bad_hits "1e999" "not a number" "${H}0,0,0,0,1e999\n"
bad_hits "too large for a float" "too large" "${H}0,0,0,0,1e39\n"
bad_hits "empty field" "bad.csv:2: 'iz' is empty" "${H}0,,0,0,1\n"
bad_hits "negative energy" "bad.csv:2: 'energy' is negative: -1e-9" "${H}0,0,0,0,-1e-9\n"
bad_hits "cell out of range" "bad.csv:2: 'iz' is 50, but must be from 0 to 49" "${H}0,50,0,0,1\n"
bad_hits "cell out of range" "'iy' is 32, but must be from 0 to 31" "${H}0,0,0,32,1\n"
bad_hits "negative cell" "'ix' is -1, but must be" "${H}0,0,-1,0,1\n"
bad_hits "cell not whole" "'ix' is 0.5, which is not a whole number" "${H}0,0,0.5,0,1\n"
bad_hits "duplicate" "bad.csv:4: event 0 has cell 1,2,3 (iz,ix,iy) twice: it was there in line 2" \
    "${H}0,1,2,3,1\n0,0,0,0,1\n0,1,2,3,5\n"
bad_hits "duplicate far apart" \
    "bad.csv:5: event 1 has cell 1,2,3 (iz,ix,iy) twice: it was there in line 2" \
    "${H}1,1,2,3,1\n0,0,0,0,1\n2,0,0,0,1\n1,1,2,3,5\n"
bad_hits "event behind the truth" "bad.csv:2: event 4 is not in truth.csv, which has 4 events" "${H}4,0,0,0,1\n"
bad_hits "negative event" "'event' is -1, but must be" "${H}-1,0,0,0,1\n"
bad_hits "empty line inside" "bad.csv:3: the line is empty" "${H}0,0,0,0,1\n\n0,0,0,1,1\n"
bad_hits "NUL" "bad.csv:2: the line has a NUL byte" "${H}0,0,0,0,1\000,\n"
bad_hits "lone CR" "bad.csv:1: lines end with carriage returns" 'event,iz,ix,iy,energy\r0,0,0,0,1\r'
head -c 100000 /dev/zero | tr '\0' 1 >long.csv
check "hits: line without end" 3 "long.csv:1: the line is longer than 65536 bytes" \
    import long.csv truth.csv bad.cmu
{ printf "$H"; head -c 70000 /dev/zero | tr '\0' ' '; echo '0,0,0,0,1'; } >long.csv
check "hits: long line" 3 "long.csv:2: the line is longer" import long.csv truth.csv bad.cmu
{ printf "$H"; head -c 60000 /dev/zero | tr '\0' ' '; echo '0,0,0,0,1'; } >long.csv
check "hits: line that just fits" 0 "4 muons" import long.csv truth.csv long.cmu
head -c 3000 /dev/urandom >noise.csv
check "hits: noise" 3 "noise.csv:" import noise.csv truth.csv bad.cmu

for event in 4000000000000000000 18446744073709551616 9007199254740992 1e300; do
    printf "${H}0,0,0,0,1\n$event,0,0,0,1\n" >absurd.csv
    check "absurd event $event" 3 "absurd.csv:3: 'event' is $event, but must be" \
        "$PROGRAM" import --hits absurd.csv --energy-unit GeV --out bad.cmu
done
printf "${H}0,0,0,0,1\n4294967295,0,0,0,1\n" >absurd.csv
check "event without truth" 3 "absurd.csv:3: event 4294967295: numbers above 4294967294 need" \
    "$PROGRAM" import --hits absurd.csv --energy-unit GeV --out bad.cmu
printf "${H}0,0,0,0,1\n4294967294,0,0,0,1\n" >absurd.csv
check "far event" 3 "absurd.csv:3: event 4294967294, but there are only 2 hits" \
    "$PROGRAM" import --hits absurd.csv --energy-unit GeV --out bad.cmu
absent "absurd events: no file" bad.cmu

T='event,energy,x,y,charge\n'
bad_truth "column missing" "no column 'charge'" 'event,energy,x,y\n0,1,0,0\n'
bad_truth "twice" "bad.csv:3: event 0 was there before, in line 2" "${T}0,1,,,\n0,1,,,\n"
bad_truth "gap" "hits.csv:7: event 3 is not in bad.csv, which has 2 events" "${T}0,1,,,\n2,1,,,\n"
bad_truth "absurd event" "bad.csv:2: 'event' is 4e18" "${T}4e18,1,,,\n"
bad_truth "event empty" "'event' is empty" "${T},1,,,\n"
bad_truth "energy 0" "bad.csv:2: 'energy' is 0, but must be above 0" "${T}0,0,,,\n"
bad_truth "energy negative" "'energy' is -5" "${T}0,-5,,,\n"
bad_truth "energy inf" "not a number" "${T}0,inf,,,\n"
bad_truth "event nan" "bad.csv:2: 'event' is 'nan', which is not a number" "${T}nan,1,,,\n"
bad_truth "energy too large" "too large" "${T}0,1e39,,,\n"
bad_truth "charge 2" "'charge' is 2, but must be 1, -1 or empty" "${T}0,1,,,2\n"
bad_truth "y without x" "one of 'x' and 'y' is empty" "${T}0,1,,1,\n"
bad_truth "x outside" "bad.csv:2: 'x' is 60 mm: outside the front face" "${T}0,1,60,0,1\n"
bad_truth "y outside" "'y' is -60.01 mm: outside" "${T}0,1,0,-60.01,1\n"
# bad_losses WHAT PATTERN TEXT
bad_losses()
{
    printf "$3" >bad.csv
    check "losses: $1" 3 "$2" import_losses bad.csv bad.cmu
    absent "losses: $1: no file" bad.cmu
}
L='event,lost,deposited,leaked,unseen\n'
bad_losses "column missing" "no column 'unseen'" 'event,lost,deposited,leaked\n0,1,1,0\n'
bad_losses "too few" "bad.csv has no event 3, which is in truth.csv (bad.csv has 3 events, truth.csv" "${L}0,,,,\n1,,,,\n2,,,,\n"
bad_losses "too many" "bad.csv:6: event 4 is not in truth.csv (bad.csv has 5 events, truth.csv 4)" \
    "${L}0,,,,\n1,,,,\n2,,,,\n3,,,,\n4,,,,\n"
bad_losses "none" "bad.csv has 0 events" "$L"
bad_losses "twice" "bad.csv:3: event 0 was there before, in line 2" "${L}0,1,,,\n0,1,,,\n"
bad_losses "gap" "bad.csv has no event 1, which is in truth.csv" "${L}0,1,,,\n2,1,,,\n"
bad_losses "absurd event" "bad.csv:2: 'event' is 4e18" "${L}4e18,1,,,\n"
bad_losses "inf" "bad.csv:2: 'lost' is 'inf', which is not a number" "${L}0,inf,,,\n"
bad_losses "too large" "bad.csv:2: 'leaked' is -1e+39, which is too large" "${L}0,,,-1e39,\n"
bad_losses "text" "not a number" "${L}0,,,,much\n"
check "losses missing" 4 "none.csv: cannot open" import_losses none.csv bad.cmu
check "low edge is inside" 0 "" sh -c "printf '${T}0,1,-60,-60,1\n' >edge.csv
    '$PROGRAM' import --hits zero.csv --truth edge.csv --energy-unit GeV --out edge.cmu"

# ------------------------------------------------------------------ what is no file of ours

mkdir folder
check "hits missing" 4 "none.csv: cannot open" import none.csv truth.csv bad.cmu
check "hits a folder" 4 "folder: cannot read: it is a directory" import folder truth.csv bad.cmu
check "folder missing" 4 "nowhere" import hits.csv truth.csv nowhere/bad.cmu
check "out is a folder" 4 "folder" import hits.csv truth.csv folder
check "info: missing" 4 "none.cmu" "$PROGRAM" info none.cmu
check "info: a folder" 3 "folder" "$PROGRAM" info folder
check "info: CSV" 3 "hits.csv" "$PROGRAM" info hits.csv
check "info: device" 3 "/dev/null" "$PROGRAM" info /dev/null
: >empty.cmu
check "info: empty file" 3 "empty.cmu" "$PROGRAM" info empty.cmu
check "export: missing" 4 "none.cmu" "$PROGRAM" export none.cmu --hits x.csv
check "export: nothing" 2 "nothing to write" "$PROGRAM" export a.cmu
check "export: clash" 2 "is the same file as --hits x.csv" "$PROGRAM" export a.cmu --hits x.csv --truth x.csv
check "export: no features" 3 "calomu features adds them" "$PROGRAM" export a.cmu --features x.csv
check "export: one output fails" 4 "nowhere" \
    "$PROGRAM" export a.cmu --hits x.csv --truth nowhere/y.csv
absent "export: the other is not written" x.csv
if [ -c /dev/full ]; then
    check "import to a full disk" 4 "/dev/full" import hits.csv truth.csv /dev/full
    check "export to a full disk" 4 "/dev/full" "$PROGRAM" export a.cmu --truth /dev/full
    check "losses to a full disk" 4 "/dev/full" "$PROGRAM" export l.cmu --losses /dev/full
    check "features to a full disk" 4 "/dev/full" "$PROGRAM" features g.cmu --out /dev/full
    piped "info to a full disk" 4 "standard output" '"$PROGRAM" info a.cmu >/dev/full'
    piped "help to a full disk" 4 "standard output" '"$PROGRAM" help >/dev/full'
    piped "export to stdout that is full" 4 "standard output" \
        '"$PROGRAM" export a.cmu --hits - >/dev/full'
    [ -c /dev/full ] && pass || fail "/dev/full was replaced by a file"
else
    skip "full disk: no /dev/full"
fi
piped "closed standard output" 4 "standard output" '"$PROGRAM" info a.cmu >&-'
piped "closed standard input" 4 "standard input" 'import - truth.csv bad.cmu <&-'
piped "closed standard error" 2 "" '"$PROGRAM" nonsense 2>&-; code=$?; echo calomu >&2; exit $code'
piped "to a device" 0 "" '"$PROGRAM" export a.cmu --truth /dev/stdout | cat >o.csv'
same "to a device: all of it" o.csv truth.csv
nobody=                              # nothing stops root: be nobody for this
[ "$(id -u)" -ne 0 ] || nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
mkdir locked && chmod a-w locked
if $nobody test -x "$PROGRAM" 2>/dev/null && $nobody test -r "$TMP/hits.csv"; then
    check "read-only folder" 4 "locked" $nobody "$PROGRAM" import --hits hits.csv \
        --truth truth.csv --energy-unit GeV --out locked/a.cmu
    chmod 444 a.cmu
    check "read-only source" 0 "" $nobody "$PROGRAM" info a.cmu
    chmod u+w a.cmu
else
    skip "read-only folder: root may write anywhere, and nobody cannot read this folder"
fi

# ------------------------------------------------------------------ damaged files

# damage N FILE OUT: flips a bit of byte N
damage()
{
    byte=$(od -An -tu1 -j"$1" -N1 "$2" | tr -d ' ')
    head -c "$1" "$2" >"$3"
    printf "\\$(printf %03o $((byte ^ 16)))" >>"$3"
    tail -c +$(($1 + 2)) "$2" >>"$3"
}
for file in a.cmu l.cmu; do          # without losses and with
    size=$(($(wc -c <$file)))
    at=0
    while [ $at -lt $size ]; do
        damage $at $file broken.cmu
        check "$file: bit flipped in byte $at" 3 "broken.cmu" "$PROGRAM" info broken.cmu
        head -c $at $file >broken.cmu
        check "$file: cut off after $at bytes" 3 "broken.cmu" "$PROGRAM" info broken.cmu
        at=$((at + 1 + size / 60))
    done
done
at=592                               # the losses of muon 0: behind header and truth
while [ $at -lt 608 ]; do
    damage $at l.cmu broken.cmu
    check "losses: bit flipped in byte $at" 3 "event 0, at byte 568, is damaged" \
        "$PROGRAM" export broken.cmu --losses x.csv
    at=$((at + 1))
done
absent "losses of a damaged file: no file" x.csv
size=$(($(wc -c <a.cmu)))
{ cat a.cmu; echo; } >broken.cmu
check "bytes behind the end" 3 "broken.cmu" "$PROGRAM" info broken.cmu
damage $((size / 2)) a.cmu broken.cmu
check "export of a damaged file" 3 "broken.cmu" \
    "$PROGRAM" export broken.cmu --hits x.csv --truth y.csv
absent "export of a damaged file: no files" x.csv y.csv
check "features of a damaged file" 3 "broken.cmu" "$PROGRAM" features broken.cmu --out x.cmu
absent "features of a damaged file: no file" x.cmu

# ------------------------------------------------------------------ features

check "features" 0 "4 muons with features (convention text, grow 0.1 GeV)" \
    "$PROGRAM" features m.cmu --out f.cmu
check "features: impact points" 0 "2 of 4 muons have no impact point" \
    "$PROGRAM" features m.cmu --out f.cmu
check "features: info" 0 "text, clusters grow over cells above 0.1 GeV" "$PROGRAM" info f.cmu
check "features: hits stay" 0 "" \
    "$PROGRAM" export f.cmu --hits h3.csv --truth t3.csv --features f3.csv
check "features: as before" 0 "" "$PROGRAM" export m.cmu --hits h4.csv --truth t4.csv
same "features: hits stay" h3.csv h4.csv
same "features: truth stays" t3.csv t4.csv
holds "features: names" f3.csv "event,eabove,rmom,rmom1,r2m,"
[ "$(wc -l <f3.csv)" -eq 5 ] && pass || fail "features: 5 lines in f3.csv"
check "features: V0 of muon 3" 0 "" grep -q '^3,0,' f3.csv
check "features: 3 threads" 0 "" "$PROGRAM" features m.cmu --out f2.cmu --threads 3
same "features: any number of threads" f.cmu f2.cmu
check "features: in place" 0 "replaced" "$PROGRAM" features f2.cmu --out f2.cmu
same "features: in place" f.cmu f2.cmu
check "features: options" 0 "convention authors, grow 0 GeV" \
    "$PROGRAM" features f.cmu --out f5.cmu --convention authors --grow 0
check "features: options in info" 0 "authors, clusters grow over cells above 0 GeV" \
    "$PROGRAM" info f5.cmu
check "features: zero muons" 0 "0 muons with features" "$PROGRAM" features zero.cmu --out zf.cmu
check "features: missing file" 4 "none.cmu" "$PROGRAM" features none.cmu --out x.cmu
check "features: folder missing" 4 "nowhere" "$PROGRAM" features m.cmu --out nowhere/x.cmu

# ------------------------------------------------------------------ many muons; kill

awk 'BEGIN {
    print "event,iz,ix,iy,energy"
    for (e = 0; e < 3000; e++)
        for (i = 0; i < 40; i++)
            printf "%d,%d,%d,%d,%.9g\n", e, (e + i) % 50, (7 * e + i) % 32, (i * i) % 32,
                   (1 + (e * 31 + i * 17) % 1000) / 1024
}' >many.csv
check "many" 0 "3000 muons, 120000 hits" \
    "$PROGRAM" import --hits many.csv --energy-unit GeV --out many.cmu
{ head -n 1 many.csv; tail -n +2 many.csv | sort -t, -k5,5 -k1,1r; } >mixed.csv
check "many, mixed" 0 "3000 muons" \
    "$PROGRAM" import --hits mixed.csv --energy-unit GeV --out mixed.cmu
same "many, mixed: same file" many.cmu mixed.cmu

# GEANT4 muons: every float comes back.
for name in muons valid points; do
    if [ ! -f "$DATA/$name.cmu" ]; then
        skip "$name.cmu through CSV: it is not in $DATA"
        continue
    fi
    check "$name: export" 0 "" "$PROGRAM" export "$DATA/$name.cmu" --hits gh.csv --truth gt.csv
    check "$name: import" 0 "" import gh.csv gt.csv g4.cmu
    same "$name.cmu through CSV" "$DATA/$name.cmu" g4.cmu
done
rm -f gh.csv gt.csv g4.cmu

models=0
for file in "$DATA"/*.safetensors; do
    [ -f "$file" ] || continue
    models=$((models + 1))
    check "info of a model" 0 "metadata and all tensors are verified" "$PROGRAM" info "$file"
    check "info of a model: members" 0 "members" "$PROGRAM" info "$file"
    size=$(($(wc -c <"$file")))
    damage $((size - 7)) "$file" broken.safetensors
    check "info of a damaged model" 3 "broken.safetensors" "$PROGRAM" info broken.safetensors
    head -c $((size / 2)) "$file" >broken.safetensors
    check "info of half a model" 3 "broken.safetensors" "$PROGRAM" info broken.safetensors
done
[ $models -gt 0 ] || skip "info of a model: none in $DATA"

# A killed program leaves the old file, or none.
cp a.cmu target.cmu
mkfifo kill.csv 2>/dev/null
("$PROGRAM" import --hits kill.csv --energy-unit GeV --out target.cmu >out 2>err &
    echo $! >pid
    wait $!
    echo $? >code) 2>/dev/null &
job=$!
{ head -n 100000 many.csv; sleep 1; kill -9 "$(cat pid)"; } >kill.csv
wait $job
same "kill -9 while reading: the old file stays" a.cmu target.cmu
for wait in 0.02 0.05 0.1 0.2 0.4; do
    "$PROGRAM" features many.cmu --out target.cmu --threads 1 >out 2>err &
    job=$!
    sleep $wait
    kill -9 $job 2>/dev/null
    wait $job 2>/dev/null
    check "kill -9 after $wait s: a whole file" 0 "are verified" "$PROGRAM" info target.cmu
done 2>/dev/null
rm -f target.cmu* .target.cmu*
"$PROGRAM" import --hits kill.csv --energy-unit GeV --out target.cmu >out 2>err &
job=$!
(exec 9>kill.csv; head -n 50000 many.csv >&9; sleep 0.3; kill -TERM $job; sleep 1) &
{ wait $job; code=$?; } 2>/dev/null
[ $code -eq 143 ] && pass || fail "SIGTERM while reading a FIFO: not ended by the signal"
absent "SIGTERM: no file" target.cmu
left=$(ls -A | grep target)
[ -z "$left" ] && pass || fail "SIGTERM: a temporary file is left" "$left"

# ------------------------------------------------------------------ locale

if [ -z "$CLI_LOCALE" ]; then
    comma=$(locale -a 2>/dev/null | grep -i -m 1 -E '^(de_DE|fr_FR|pl_PL)')
    if [ -n "$comma" ]; then
        check "locale $comma" 0 "" \
            env LC_ALL="$comma" "$PROGRAM" export a.cmu --hits l.csv --truth lt.csv
        same "locale $comma: hits" l.csv h2.csv
        same "locale $comma: truth" lt.csv t2.csv
        check "locale $comma: import" 0 "" env LC_ALL="$comma" "$PROGRAM" import --hits hits.csv \
            --truth truth.csv --energy-unit GeV --out l.cmu
        same "locale $comma: data" l.cmu a.cmu
    else
        skip "locale with a decimal comma: none is installed"
    fi
fi

cli_end
