#!/bin/sh
# cli_import.sh - tests of calomu import on tables as other tools write them, events with gaps,
# several rows of a cell, energies below 0
#
#     sh tests/cli_import.sh ./calomu testdata build/tmp
#
# The tables are what R 4.2, numpy 2.4, pandas 3.1 and GEANT4 11.4 (geant4_pybind 0.1.3) wrote.
LC_ALL=${CLI_LOCALE:-C}
export LC_ALL
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_import
cd "$TMP" || exit 1

# take FILE OUT OPTION...: hits in GeV
take()
{
    take_file=$1 take_out=$2
    shift 2
    "$PROGRAM" import --hits "$take_file" --energy-unit GeV --out "$take_out" "$@"
}
printf 'event,iz,ix,iy,energy\n0,0,16,16,0.03125\n0,1,16,16,1.25\n2,7,8,9,0.1\n' >plain.csv
check "plain" 0 "3 muons, 3 hits" take plain.csv plain.cmu

# equal WHAT FILE: the same muons as plain.csv
equal()
{
    check "$1" 0 "3 muons, 3 hits" take "$2" got.cmu
    same "$1: the same muons" got.cmu plain.cmu
}
# not_read WHAT FILE TEXT
not_read()
{
    rm -f bad.cmu
    check "$1" 3 "$3" take "$2" bad.cmu
    absent "$1: no file" bad.cmu
}

# ------------------------------------------------------------------ tables of other tools

cat >r.csv <<'END'
"","event","iz","ix","iy","energy"
"1",0,0,16,16,0.03125
"2",0,1,16,16,1.25
"3",2,7,8,9,0.1
END
equal "R: write.csv" r.csv
cat >r_table.txt <<'END'
"event" "iz" "ix" "iy" "energy"
"1" 0 0 16 16 0.03125
"2" 0 1 16 16 1.25
"3" 2 7 8 9 0.1
END
equal "R: write.table" r_table.txt
sed 's/"//g' r_table.txt >r_bare.txt
not_read "R: write.table without quotes" r_bare.txt \
    "r_bare.txt:2: the line has 6 fields, but the header has 5; if the first is a row name of R"
sed '3s/$/ 7/' r_table.txt >r_bad.txt
not_read "R: a field too many" r_bad.txt "r_bad.txt:3: the line has 7 fields, but the header has 6"
cat >r_csv2.csv <<'END'
"";"event";"iz";"ix";"iy";"energy"
"1";0;0;16;16;0,03125
"2";0;1;16;16;1,25
"3";2;7;8;9;0,1
END
not_read "R: write.csv2" r_csv2.csv "r_csv2.csv:2: 'energy' is '0,03125', which has a decimal comma"
tr ',;' '.,' <r_csv2.csv >r_points.csv
equal "the way out of decimal commas" r_points.csv
tr ',' ';' <plain.csv >semicolons.csv
equal "semicolons" semicolons.csv
{ printf '\357\273\277sep=;\r\n'; sed 's/$/\r/' semicolons.csv; } >excel.csv
equal "a spreadsheet's separator line" excel.csv
tr ',' '\t' <plain.csv | sed '1s/[a-z]*/"&"/' >tabs.csv
equal "tabs" tabs.csv
sed 's/,/ , /g' plain.csv >blanks.csv
equal "blanks around commas" blanks.csv

# numpy writes whole numbers like all others
awk -F, 'NR == 1 { print "# event iz ix iy energy"; next }
         { printf "%.18e %.18e %.18e %.18e %.18e\n", $1, $2, $3, $4, $5 }' plain.csv >numpy.txt
equal "numpy: savetxt" numpy.txt
sed '1s/ /,/g; 1s/#,/# /' numpy.txt >numpy_names.txt
equal "numpy: names with commas, numbers with blanks" numpy_names.txt
sed '1!s/ /,/g' numpy.txt >numpy_commas.txt
equal "numpy: names with blanks, numbers with commas" numpy_commas.txt
{ echo '# made by me'; cat numpy.txt; echo '# end'; } >numpy_more.txt
equal "numpy: more lines of comments" numpy_more.txt
{ echo '# made by me'; cat plain.csv; } >comment.csv
equal "a comment before the names" comment.csv
sed '1s/$/\n# GeV/' plain.csv >comment2.csv
equal "a comment behind the names" comment2.csv
sed 1d numpy.txt >numpy_none.txt
not_read "numpy: no names" numpy_none.txt "numpy_none.txt:1: the header has no column 'event': the"
sed '3s/^/# half\n/' plain.csv >comment3.csv
not_read "a comment among rows" comment3.csv "comment3.csv:3: the line is a comment, but the file"
printf '# only a comment\n' >nothing.csv
not_read "only a comment" nothing.csv "the header has no column 'event'"

awk -F, -v OFS=, 'NR == 1 { print "", $0; next }
                  { print NR - 2, $1 ".0", $2 ".0", $3 ".0", $4 ".0", $5 }' plain.csv >pandas.csv
equal "pandas: to_csv" pandas.csv
sed '1s/event/number/' pandas.csv >pandas_index.csv
not_read "pandas: the event is the index" pandas_index.csv "(the first has no name: R's row names"
sed 's/[^,]*/"&"/g; 3s/"1.25"/"1.2""5"/' plain.csv >quote.csv
not_read "a quote in a number" quote.csv "quote.csv:3: 'energy' is '1.2\"5', which is not a number"
sed '3s/16/"16/' plain.csv >quote.csv
not_read "a quote without end" quote.csv "quote.csv:3: a quote has no end in this line"
sed '3s/16/"16"x/' plain.csv >quote.csv
not_read "text behind a quote" quote.csv "quote.csv:3: a quote has no end in this line, or is foll"

# Missing values: unknown where truth may be unknown, an error elsewhere.
cat >na.csv <<'END'
"event","energy","x","y","charge"
0,1000,1.9,1.875,1
1,NA,NA,NA,NA
2,NaN,nan,,<NA>
END
check "NA and NaN in truth" 0 "3 muons" take plain.csv na.cmu --truth na.csv
check "NA and NaN: unknown" 0 "" "$PROGRAM" export na.cmu --truth na_out.csv
printf 'event,energy,x,y,charge\n0,1000,1.89999998,1.875,1\n1,,,,\n2,,,,\n' >na_right.csv
same "NA and NaN: empty" na_out.csv na_right.csv
sed '4s/0.1/NA/' plain.csv >na_hits.csv
not_read "NA in hits" na_hits.csv "na_hits.csv:4: 'energy' is 'NA', which is not a number"

# GEANT4's csv: names in comments; doubles with 6 digits.
geant4()
{
    printf '#class tools::wcsv::ntuple\n#title Hits of muons\n#separator %s\n' "$1"
    printf '#vector_separator 59\n#column %s event\n#column int iz\n#column int ix\n' "$2"
    printf '#column int iy\n#column double energy\n'
}
check "GEANT4 11.4: csv" 0 "muon 0 is event 7, muon 1 event 1234567" \
    take "$DATA/tables/geant4_hits.csv" got.cmu --gaps skip
check "GEANT4 11.4: csv: hits" 0 "1,7,8,9,100" "$PROGRAM" export got.cmu --hits -
check "GEANT4 11.4: doubles" 3 "geant4_rounded.csv:11: 'event' is 1.23457e+06: rounded to the" \
    take "$DATA/tables/geant4_hits.csv" bad.cmu --truth "$DATA/tables/geant4_rounded.csv"
{ geant4 44 int; sed 1d plain.csv; } >geant4.csv
equal "GEANT4: csv" geant4.csv
{ geant4 59 int; sed '1d; s/,/;/g' plain.csv; } >geant4_mark.csv
equal "GEANT4: another separator" geant4_mark.csv
{ geant4 44 double; sed '1d; s/^2/1.23457e+06/' plain.csv; } >rounded.csv
not_read "GEANT4: a rounded event" rounded.csv "rounded.csv:12: 'event' is 1.23457e+06: rounded to"
sed 's/1.23457e+06/1e+06/' rounded.csv >rounded2.csv
not_read "GEANT4: an event that may be rounded" rounded2.csv "CreateNtupleIColumn"
sed 's/^2/1.23457e+06/' plain.csv >rounded3.csv
not_read "a rounded event in any table" rounded3.csv "rounded3.csv:4: 'event' is 1.23457e+06: round"
sed 's/^2/1e+05/' plain.csv >exact.csv
check "R: 100000 is 1e+05" 0 "100001 muons" take exact.csv got.cmu
sed 's/^2/1.2e+08/' plain.csv >exact.csv
check "R: 120000000 is 1.2e+08" 0 "2 muons" take exact.csv got.cmu --gaps skip
{ geant4 44 int; sed '1d; 4s/0.1/0.1;0.2/' plain.csv; } >vector.csv
not_read "GEANT4: a vector" vector.csv "vector.csv:12: 'energy' is '0.1;0.2', several numbers"
{ geant4 44 int; sed -n '2,3p' plain.csv; } >t0.csv
{ geant4 44 int; sed -n '4p' plain.csv; } >t1.csv
cat t0.csv t1.csv >t01.csv
not_read "GEANT4: threads joined with cat" t01.csv "t01.csv:12: the header of a second file"
piped "GEANT4: the way out" 0 "3 muons, 3 hits" \
    '{ cat t0.csv; grep -hv "^#" t1.csv; } | take - got.cmu'
same "GEANT4: the way out: the same muons" got.cmu plain.cmu
{ geant4 44 int; } >empty_nt.csv
check "GEANT4: no rows" 0 "0 muons" take empty_nt.csv got.cmu
sed 's/energy/Edep/; s/event/EventID/' geant4.csv >names.csv
not_read "GEANT4: other names" names.csv "--hits-columns event=NAME says which it is"
check "GEANT4: other names, named" 0 "3 muons" take names.csv got.cmu \
    --hits-columns energy=Edep,event=EventID
same "GEANT4: other names, named: the same muons" got.cmu plain.cmu
sed 's/ iz/ q/; s/ ix/ iz/; s/ q/ ix/' geant4.csv |
    awk -F, -v OFS=, '!/^#/ { t = $2; $2 = $3; $3 = t } 1' >swap.csv
check "names may be exchanged" 0 "3 muons" take swap.csv got.cmu
same "names may be exchanged: by the header" got.cmu plain.cmu
check "names exchanged by option" 3 "'ix' is 16" take swap.csv got.cmu --hits-columns iz=ix,ix=iz \
    --geometry 16,32,32,40.64,3.75,3.75
printf 'id,E,px,py,q\n0,1000,1,1,1\n1,50,,,\n2,60,,,\n' >t.csv
check "truth with other names" 0 "3 muons" take plain.csv got.cmu --truth t.csv \
    --truth-columns event=id,energy=E,x=px,y=py,charge=q
printf 'event,energy\n0,1000\n1,50\n2,60\n' >less.csv
check "truth without columns" 3 "'x'; --truth-columns x=NAME says which it is, - that there is" \
    take plain.csv bad.cmu --truth less.csv
check "truth without columns, said" 0 "3 muons" take plain.csv got.cmu --truth less.csv \
    --truth-columns x=-,y=-,charge=-
check "truth without columns: unknown" 0 "2,60,,," "$PROGRAM" export got.cmu --truth -
check "an event cannot lack" 2 "'event' must be there" take plain.csv bad.cmu --truth less.csv \
    --truth-columns event=-
for bad in energy energy= =E en=E energy=E,; do
    check "--hits-columns $bad" 2 "--hits-columns" take plain.csv bad.cmu --hits-columns "$bad"
done

# Other line ends, empty lines, a separator too many; cells that are not the paper's.
tr '\n' '\r' <plain.csv >returns.csv
not_read "carriage returns" returns.csv "returns.csv:1: lines end with carriage returns alone"
awk -v ORS='\r' 'BEGIN { for (i = 0; i < 9000; i++) print i ",1,2,3,4" }' >returns.csv
not_read "a long file of carriage returns" returns.csv "returns.csv:1: lines end with carriage"
{ printf '\n\n'; cat plain.csv; } >lead.csv
equal "empty lines in front" lead.csv
printf '\n\n' >lead.csv
not_read "nothing but empty lines" lead.csv "the file is empty"
sed '1!s/$/,/' plain.csv >behind.csv
not_read "a comma behind each row" behind.csv "the last is empty: name it in the header too"
sed '3s/16,16/32,16/' plain.csv >cells.csv
not_read "a cell too far" cells.csv "0 to 31: do numbers begin with 1 here? --geometry gives other"
sed '3s/16,16/63,16/' plain.csv >cells.csv
not_read "many cells too far" cells.csv "'ix' is 63, but must be from 0 to 31: --geometry gives other"
awk 'BEGIN { print "event,iz,ix,iy,energy"
    for (i = 0; i < 1000; i++) print int(i / 20) "," i % 20 ",7,8,1" }' >corner.csv
check "the paper's cells by mistake" 0 \
    "the hits end with iz 19, ix 7, iy 8, of the 50 x 32 x 32 cells of the paper: --geometry" \
    take corner.csv got.cmu
check "asked for" 0 "" take corner.csv got.cmu --geometry 50,32,32,40.64,3.75,3.75
grep -q "cells of the paper" err && fail "asked for" "$(cat err)" || pass

# What is no table.
gzip -c plain.csv >plain.csv.gz
not_read "gzip" plain.csv.gz "plain.csv.gz: no table: it is packed with gzip"
piped "gzip: the way out" 0 "3 muons" 'zcat plain.csv.gz | take - got.cmu'
piped "gzip through a pipe" 3 "standard input: no table" 'take - bad.cmu <plain.csv.gz'
if iconv -f UTF-8 -t UTF-16 plain.csv >utf16.csv 2>/dev/null; then
    not_read "UTF-16" utf16.csv "utf16.csv: no table: it is a text in UTF-16"
    iconv -f UTF-16 -t UTF-8 utf16.csv >utf8.csv
    equal "UTF-16: the way out" utf8.csv
else
    skip "UTF-16: no iconv"
fi
not_read "HDF5" "$DATA/cut_geant4.h5" "an HDF5 file: calomu-import-h5 reads it"
printf 'root\000\000\367' >a.root
not_read "ROOT" a.root "a ROOT file; in Python: uproot"
printf 'PAR1\025\004' >a.parquet
not_read "Parquet" a.parquet "a Parquet file"
printf '\223NUMPY\001\000' >a.npy
not_read "numpy's npy" a.npy "numpy.savetxt"
printf 'PK\003\004\024\000' >a.npz
not_read "a spreadsheet" a.npz "a ZIP file"
for n in 1 2 3 7; do
    head -c $n plain.csv >short.csv
    not_read "cut at byte $n" short.csv "short.csv:1: the header has no column"
done

# ------------------------------------------------------------------ events with gaps

T='event,energy,x,y,charge\n'
printf "${T}30,300,,,\n10,100,,,\n9007199254740991,400,,,\n20,200,,,\n" >gaps.csv
printf 'event,iz,ix,iy,energy\n30,0,0,0,3\n10,0,0,0,1\n30,0,0,1,3.5\n' >gap_hits.csv
echo 9007199254740991,1,2,3,4 >>gap_hits.csv
check "gaps" 0 "muon 0 is event 10, muon 3 event 9007199254740991" \
    take gap_hits.csv gaps.cmu --truth gaps.csv
check "gaps: export" 0 "" "$PROGRAM" export gaps.cmu --hits h.csv --truth t.csv
printf 'event,iz,ix,iy,energy\n0,0,0,0,1\n2,0,0,0,3\n2,0,0,1,3.5\n3,1,2,3,4\n' >h_right.csv
printf 'event,energy,x,y,charge\n0,100,,,\n1,200,,,\n2,300,,,\n3,400,,,\n' >t_right.csv
same "gaps: hits by event" h.csv h_right.csv
same "gaps: truth by event; a muon without hits stays" t.csv t_right.csv
printf 'event,lost,deposited,leaked,unseen\n20,2,,,\n30,3,,,\n10,1,,,\n' >gl.csv
echo 9007199254740991,4,,, >>gl.csv
check "gaps: losses" 0 "4 muons" take gap_hits.csv gaps.cmu --truth gaps.csv --losses gl.csv
check "gaps: losses" 0 "2,3,,," "$PROGRAM" export gaps.cmu --losses -
sed 's/^20/21/' gl.csv >gl_bad.csv
check "gaps: losses of another event" 3 "gl_bad.csv has no event 20, which is in gaps.csv" \
    take gap_hits.csv bad.cmu --truth gaps.csv --losses gl_bad.csv
sed 's/^30,0,0,1/31,0,0,1/' gap_hits.csv >gh_bad.csv
check "gaps: a hit of another event" 3 "gh_bad.csv:4: event 31 is not in gaps.csv, which has 4" \
    take gh_bad.csv bad.cmu --truth gaps.csv
absent "gaps: no file" bad.cmu
sed 's/^30,0,0,1/30,0,0,0/' gap_hits.csv >gh_bad.csv
check "gaps: twice" 3 "gh_bad.csv:4: event 30 has cell 0,0,0 (iz,ix,iy) twice" \
    take gh_bad.csv bad.cmu --truth gaps.csv
sed '$d' gap_hits.csv >few.csv
check "no truth: gaps are muons, and said" 0 "29 of the events 0 to 30 have no hits" \
    take few.csv got.cmu
check "no truth: gaps left out" 0 "2 muons, 3 hits" take few.csv got.cmu --gaps skip
check "no truth: gaps left out: hits" 0 "1,0,0,1,3.5" "$PROGRAM" export got.cmu --hits -
printf 'event,iz,ix,iy,energy\n4294967294,0,0,0,1\n5,0,0,0,1\n4294967294,1,0,0,1\n' >far.csv
check "far events" 3 "far.csv:2: event 4294967294, but there are only 3 hits; if numbers have" \
    take far.csv bad.cmu
check "far events left out" 0 "muon 0 is event 5, muon 1 event 4294967294" \
    take far.csv got.cmu --gaps skip

# ------------------------------------------------------------------ several rows of a cell; noise

H='event,iz,ix,iy,energy\n'
printf "${H}0,1,2,3,0.1\n0,0,0,0,1\n0,1,2,3,0.2\n1,1,2,3,5\n" >twice.csv
check "twice" 3 "twice: it was there in line 2; --sum adds" take twice.csv bad.cmu
holds "twice: where" err "twice.csv:4: event 0 has cell 1,2,3 (iz,ix,iy)"
check "--sum" 0 "2 muons, 3 hits" take twice.csv got.cmu --sum
check "--sum: export" 0 "0,1,2,3,0.300000012" "$PROGRAM" export got.cmu --hits -
printf "${H}0,1,2,3,1e16\n0,1,2,3,1\n0,1,2,3,-1e16\n" >order.csv
check "--sum in the order of rows, in double" 0 "" take order.csv got.cmu --sum
check "--sum: 1 is lost beside 1e16" 0 "0,1,2,3,0" "$PROGRAM" export got.cmu --hits -
printf "${H}0,1,2,3,1e16\n0,1,2,3,-1e16\n0,1,2,3,1\n" >order.csv
check "--sum in another order" 0 "" take order.csv got.cmu --sum
check "--sum: 1 is left" 0 "0,1,2,3,1" "$PROGRAM" export got.cmu --hits -
check "--sum of none" 0 "3 muons, 3 hits" take plain.csv got.cmu --sum
same "--sum of none changes nothing" got.cmu plain.cmu
printf "${H}0,1,2,3,3e38\n0,1,2,3,3e38\n" >large.csv
check "--sum too large" 3 "large.csv:2: event 0 has cell 1,2,3 (iz,ix,iy) with an energy" \
    take large.csv bad.cmu --sum
printf "${H}0,0,0,0,1\n0,1,2,3,-0.25\n" >noise.csv
check "negative" 3 "noise.csv:3: 'energy' is negative: -0.25; --negative" take noise.csv bad.cmu
check "negative refused by name" 3 "--negative zero" take noise.csv bad.cmu --negative refuse
check "--negative zero" 0 "1 muons, 2 hits" take noise.csv got.cmu --negative zero
check "--negative zero: export" 0 "0,1,2,3,0" "$PROGRAM" export got.cmu --hits -
check "--negative other" 2 "must be one of refuse|zero" take noise.csv bad.cmu --negative drop
printf "${H}0,1,2,3,-1\n0,1,2,3,1.5\n" >mixed.csv
check "a negative part of a sum" 0 "" take mixed.csv got.cmu --sum
check "a negative part of a sum: export" 0 "0,1,2,3,0.5" "$PROGRAM" export got.cmu --hits -
printf "${H}0,1,2,3,-1\n0,1,2,3,0.5\n" >mixed.csv
check "a negative sum" 3 "mixed.csv:2: event 0 has cell 1,2,3 (iz,ix,iy) with an energy below 0" \
    take mixed.csv bad.cmu --sum
check "a negative sum made 0" 0 "1 hits" take mixed.csv got.cmu --sum --negative zero
absent "nothing is left" bad.cmu

cli_end
