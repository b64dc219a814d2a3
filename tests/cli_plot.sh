#!/bin/sh
# cli_plot.sh - figures: data, scripts and images of calomu plot and calomu evaluate --plots
#
#     sh tests/cli_plot.sh ./calomu testdata build/tmp
LC_ALL=${CLI_LOCALE:-C}
export LC_ALL
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_plot
cd "$TMP" || exit 1
GNUPLOT=$(command -v gnuplot)

# Made-up muons.  n of them, energies 100 to 3990 GeV or, with step 400, fixed ones; predictions
# 50 GeV + 0.9 E, times 1 -+ 0.1 in turn, so that all quantiles can be told by hand.
muons()
{
    awk -v n="$1" -v step="$2" 'BEGIN {
        print "event,true_energy,pred"
        for (i = 0; i < n; i++) {
            e = step ? 100 + step*(i % 11) : 100 + 10*(i % 390)
            print i "," e "," (50 + 0.9*e)*(int(i/390 + i/11) % 2 ? 1.1 : 0.9)
        }
    }'
}
muons 780 0 >few.csv
muons 7800 0 >many.csv
muons 4400 400 >fixed.csv
awk 'BEGIN {
    print "epoch,updates,lr,beta1,training_loss,validation_loss,threshold1,mi,worst,seconds"
    for (e = 1; e <= 9; e++)
        print e "," 10*e "," 3e-5/e ",0.95," 100/e + 10 "," 100/e + (e > 7 ? 40 : 12) ",7," \
            (e > 1 ? 20 - 10/e : "") ",30,1.5"
}' >log.csv

# ---- data
check "plots of a few muons" 0 "" "$PROGRAM" plot --predictions few.csv --history log.csv --out a
for i in prediction ratio resolution history; do
    if [ -s a_$i.csv ] && [ -s a_$i.gp ]; then pass; else fail "a_$i" "no data or script"; fi
done
holds "one row per muon" a_prediction.csv "100,126"
if [ "$(wc -l <a_prediction.csv)" -eq 781 ]; then pass; else fail "rows" "not 781"; fi
if [ "$(wc -l <a_resolution.csv)" -eq 21 ]; then pass; else fail "bins" "not 20"; fi
if [ "$(wc -l <a_history.csv)" -eq 10 ]; then pass; else fail "epochs" "not 9"; fi
holds "no MI in epoch 1" a_history.csv "1,110,112,3e-05,0.95,"
holds "lowest validation loss" a_history.gp "Best epoch: 7"
holds "tracker at the centre" a_resolution.csv "100,295,200,197.5,38,"
holds "error bars" a_resolution.gp "using 3:6:9 skip 1 with yerrorlines"
if awk -F, 'NR > 1 && !($9 > 0 && $10 > 0) { exit 1 }' a_resolution.csv; then pass
else fail "errors for the bars" "$(cat a_resolution.csv)"; fi
check "no error bars" 0 "" "$PROGRAM" plot --predictions few.csv --errors 0 --out c
holds "lines" c_resolution.gp "using 3:6 skip 1 with linespoints"
holds "mean improvement in the title" a_resolution.gp "set title 'Mean improvement "
check "evaluate makes the same" 0 "" "$PROGRAM" evaluate few.csv --plots b
same "the same data" a_ratio.csv b_ratio.csv
same "the same resolution" a_resolution.csv b_resolution.csv

# ---- many muons: counts per cell, which hold every muon but far outliers
check "plots of many muons" 0 "" "$PROGRAM" plot --predictions many.csv --out m
holds "cells" m_prediction.csv "true_low_GeV,true_high_GeV,prediction_low_GeV"
if awk -F, 'NR > 1 { n += $5 } END { exit n < 7750 || n > 7800 }' m_prediction.csv
then pass; else fail "muons in cells" "not nearly 7800"; fi
check "plots at fixed energies" 0 "" "$PROGRAM" plot --predictions fixed.csv --out f
if [ "$(wc -l <f_ratio.csv)" -eq 12 ]; then pass; else fail "points" "not 11"; fi
holds "a fixed energy" f_ratio.csv "4100,4100,4100,400,"

# ---- single muons on grids of all sizes: round steps, two to four of them, that lie in the grid
echo event,iz,ix,iy,energy >hits.csv
echo 0,0,1,1,0.5 >>hits.csv
echo 1,0,0,0,0.00002 >>hits.csv
printf 'event,energy,x,y,charge\n0,100,,,\n1,,,,\n' >truth.csv
# grid GEOMETRY RANGE-AND-STEP...: one line of the script for each axis
grid()
{
    check "import on $1" 0 "" "$PROGRAM" import --hits hits.csv --truth truth.csv \
        --energy-unit GeV --geometry="$1" --out grid.cmu
    check "a muon on $1" 0 "" "$PROGRAM" plot --event grid.cmu --out g
    for axis in x y z; do
        shift
        holds "$axis axis" g_event.gp "set ${axis}range [${1%%/*}]"
        holds "$axis steps" g_event.gp "set ${axis}tics ${1#*/}"
    done
}
grid 50,32,32,40.64,3.75,3.75 0:2032/1000 -60:60/50 -60:60/50
grid 10,8,8,30,30,30 0:300/100 -120:120/100 -120:120/100
grid 100,10,10,10,10,10 0:1000/500 -50:50/50 -50:50/50
grid 3,64,64,2,2,2 0:6/2 -64:64/50 -64:64/50
grid 1,16,16,10,5,5 0:10/5 -40:40/40 -40:40/40
grid 4,5,6,0.01,0.02,0.03,123456.5,-7,0 123456.5:123456.54/0.02 -7:-6.9/0.05 0:0.18/0.05
check "two muons" 0 "" "$PROGRAM" plot --event grid.cmu --numbers 0,1 --out g
holds "its number" g_event.gp "set title 'Muon 0: 100 GeV'"
holds "no truth" g_event.gp "set title 'Muon 1: energy unknown'"
holds "the scale from 1 MeV on" g_event.gp "set cbrange [0.001:1]"
check "cells below 1 MeV" 0 "" "$PROGRAM" plot --event grid.cmu --numbers 1 --out g
holds "the scale of small energies" g_event.gp "set cbrange [1e-06:0.0001]"
holds "a cell of 20 keV" g_event.csv ",1.99999995e-05"

# ---- failures
check "nothing to plot" 2 "nothing to plot" "$PROGRAM" plot --out x
check "no prefix" 2 "--out" "$PROGRAM" plot --history log.csv
check "fit alone" 2 "--predictions" "$PROGRAM" plot --history log.csv --fit few.csv --out x
check "a prefix like an option" 2 "cannot begin with -" "$PROGRAM" plot --history log.csv --out=-x
check "no such folder" 4 "nodir/x_history.csv" "$PROGRAM" plot --history log.csv --out nodir/x
check "no such log" 4 "nolog.csv" "$PROGRAM" plot --history nolog.csv --out x
check "not a log" 3 "epoch" "$PROGRAM" plot --history few.csv --out x
head -n 1 log.csv >empty.csv
check "a log without epochs" 3 "no epoch" "$PROGRAM" plot --history empty.csv --out x
sed '5s/,0.95,/,zero,/' log.csv >bad.csv
check "a bad number" 3 "bad.csv:5" "$PROGRAM" plot --history bad.csv --out x
check "few bins hold muons" 3 "bins" "$PROGRAM" plot --predictions few.csv --range 5000,6000 --out x
absent "failures leave nothing" x_history.csv x_history.gp x_prediction.csv x_ratio.csv

# ---- gnuplot missing, failing, silent
check "no gnuplot is no failure" 0 "to draw: gnuplot -d n_history.gp" \
    env PATH=/nonexistent "$PROGRAM" plot --history log.csv --out n
absent "no image" n_history.svg
mkdir fake && printf '#!/bin/sh\nexit 3\n' >fake/gnuplot && chmod +x fake/gnuplot
echo old >n_history.svg
check "a failing gnuplot is a warning" 0 "ended with status 3" \
    env "PATH=$TMP/fake:$PATH" "$PROGRAM" plot --history log.csv --out n
absent "no image of old data" n_history.svg
printf '#!/bin/sh\nkill -9 $$\n' >fake/gnuplot
check "a killed gnuplot is a warning" 0 "ended with status 137" \
    env "PATH=$TMP/fake:$PATH" "$PROGRAM" plot --history log.csv --out n
chmod -x fake/gnuplot
check "not a program" 0 "no gnuplot" env "PATH=$TMP/fake" "$PROGRAM" plot --history log.csv --out n

# ---- images
if [ -z "$GNUPLOT" ]; then
    skip "no gnuplot: images not drawn"
    cli_end
    exit
fi
for i in a_prediction a_ratio a_resolution a_history m_prediction f_prediction f_ratio; do
    if grep -q "</svg>" $i.svg; then pass; else fail "$i.svg" "no complete SVG"; fi
done
holds "axis" a_resolution.svg "Relative resolution [%]"
if grep -qi "warning" err; then fail "gnuplot warns" "$(cat err)"; else pass; fi
# Names that gnuplot or a shell could take for a command or a quote; the script works from afar.
name="<touch pwned; it's \`touch pwned\` @x"
check "an odd name" 0 "wrote" "$PROGRAM" plot --predictions few.csv --out "$name.svg"
rm -f "${name}_ratio.svg"
mkdir -p away
check "a script from another folder" 0 "" sh -c 'cd away && gnuplot "$1"' sh "$TMP/${name}_ratio.gp"
if [ -s "${name}_ratio.svg" ]; then pass; else fail "odd name" "no image"; fi
absent "no command ran" pwned away/pwned
check "PNG" 0 "wrote p_history.png" "$PROGRAM" plot --history log.csv --out p.png
if [ "$(head -c 4 p_history.png | tail -c 3)" = PNG ]; then pass; else fail "PNG" "is none"; fi
beta=$(printf '\316\262\342\202\201')
holds "beta as a letter" a_history.svg ">$beta</tspan>"
if grep -q Symbol a_history.svg; then fail "beta" "a b, without a font Symbol"; else pass; fi

# ---- settings of the person, which interactive users have, are not those of our figures
mkdir -p home/.config/gnuplot lib
for line in "set terminal qt" "set terminal dumb" "set logscale xy" "set polar" "set xdata time" \
    "set datafile missing '1'" "set monochrome" "set multiplot" "set table 't'" "exit" \
    "set dashtype 2 (9,9)" "set datafile columnheaders" "set terminal svg rounded size 9,9"; do
    for file in home/.gnuplot home/.config/gnuplot/gnuplotrc; do
        echo "$line" >$file
        check "$line in $file" 0 "wrote u_history.svg" env HOME="$TMP/home" \
            XDG_CONFIG_HOME="$TMP/home/.config" "$PROGRAM" plot --history log.csv --out u
        same "$line in $file" a_history.svg u_history.svg
        rm -f u_history.svg $file
    done
done
for variable in GNUTERM=qt GNUTERM=none GNUPLOT_LIB="$TMP/lib" GNUPLOT_FONTPATH=/none \
    GDFONTPATH=/none LC_ALL=C LC_ALL=de_DE.UTF-8 LC_ALL=none LANG=C.UTF-8 COLUMNS=5; do
    check "$variable" 0 "wrote u_history.svg" env "$variable" "$PROGRAM" plot --history log.csv \
        --out u
    same "$variable" a_history.svg u_history.svg
    if [ "$(wc -l <err)" -eq 1 ]; then pass; else fail "$variable" "gnuplot speaks"; fi
    rm -f u_history.svg
done
# A script by hand, without -d: what changes a figure most is undone.
for line in "set logscale xy" "set polar" "set xdata time" "set decimalsign ','" "set parametric" \
    "set size 0.5,0.5" "unset key" "set samples 3" "set format '%x'" "set label 'x' at 1,1"; do
    echo "$line" >home/.gnuplot
    check "by hand, $line" 0 "" env HOME="$TMP/home" gnuplot u_history.gp
    same "by hand, $line" a_history.svg u_history.svg
    rm -f u_history.svg home/.gnuplot
done
head -n 2 log.csv >one.csv
check "a single epoch" 0 "wrote" "$PROGRAM" plot --history one.csv --out o
if grep -qi "warning" err; then fail "a single epoch" "gnuplot warns"; else pass; fi
cut -d, -f1-7 log.csv >nomi.csv
check "a log without MI" 0 "wrote" "$PROGRAM" plot --history nomi.csv --out q
cli_end
