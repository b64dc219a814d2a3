#!/bin/sh
# scaling.sh - `make scaling`: cost per muon against batch size, hits and cells of the grid, into
# testdata/scaling.csv and, with gnuplot, testdata/scaling.svg, the plot of tests/bench.md
set -eu
out=testdata/scaling
if [ -z "${PLOT_ONLY:-}" ]; then
    ./calomu bench --scaling $out.csv --batch "${BENCH_LARGEST:-1024}" --seconds 0.5
fi
command -v gnuplot >/dev/null || { echo "LEFT OUT: $out.svg: no gnuplot"; exit 0; }
gnuplot -d <<END
set terminal svg size 900,300 font "sans-serif,12" background "white"
set output "$out.svg"
set datafile separator ","
set logscale xy
set format y "%g"
set grid
set key bottom left
set multiplot layout 1,3
f = "$out.csv"
at(axis, c) = strcol(1) eq axis ? column(c) : NaN
set xlabel "muons in a batch"
set ylabel "ms per muon"
set xtics ("1" 1, "4" 4, "16" 16, "64" 64, "256" 256, "1024" 1024)
plot f u (at("batch", 2)):3 w lp pt 7 ps 0.5 t "training step", \
     f u (at("batch", 2)):4 w lp pt 7 ps 0.5 t "inference"
unset ylabel
set xtics auto
set format x "10^{%T}"
set xlabel "hits of a muon (50 x 32 x 32 cells, batch 64)"
plot f u (at("hits", 2)):3 w lp pt 7 ps 0.5 t "training step", \
     f u (at("hits", 2)):4 w lp pt 7 ps 0.5 t "inference", \
     f u (at("hits", 2)):5 w lp pt 7 ps 0.5 t "features"
set key top left
set xlabel "cells (1 in 9 hit, batch 64)"
plot f u (at("cells", 2)):3 w lp pt 7 ps 0.5 t "training step", \
     f u (at("cells", 2)):5 w lp lt 3 pt 7 ps 0.5 t "features"
END
echo "$out.csv, $out.svg"
