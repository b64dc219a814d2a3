#!/bin/sh
# A Greek letter of gnuplot is a Greek letter in PNG and a Latin one in SVG.
#
# Versions   gnuplot-nox 5.4.4+dfsg1-2+b2, gnuplot-data 5.4.4+dfsg1-2, librsvg2-bin
#            2.54.7+dfsg-1~deb12u1 (Debian 12)
# Guess      enhanced text {/Symbol b} is what gnuplot's manual gives for a beta: any terminal that
#            takes enhanced text draws one, or warns.
# Behaviour  pngcairo turns it into the letter, pixel by pixel what the UTF-8 letter gives.  svg
#            writes the Latin letter b and asks the viewer for a font named Symbol; where there is
#            none, as with most browsers and librsvg, the axis reads "b".  No warning.
# Output     pngcairo: {/Symbol b} and the UTF-8 letter: the same image; b: another
#            svg: <tspan font-family="Symbol" >b</tspan>; drawn by librsvg: the same image as b
# For us     our figures have their letters in UTF-8 (tests/cli_plot.sh, "beta as a letter").
#
#     sh tests/findings/gnuplot_svg_symbol.sh      0: still so, 1: it has changed, 77: cannot tell
T=$(mktemp -d) && trap 'rm -rf "$T"' EXIT && cd "$T" || exit 77
apt-get download gnuplot-nox=5.4.4+dfsg1-2+b2 gnuplot-data=5.4.4+dfsg1-2 \
    librsvg2-bin=2.54.7+dfsg-1~deb12u1 >log 2>&1 || { cat log; exit 77; }
for package in *.deb; do dpkg -x "$package" root || exit 77; done
GNUPLOT=$T/root/usr/bin/gnuplot-nox RSVG=$T/root/usr/bin/rsvg-convert
ldd "$GNUPLOT" "$RSVG" | grep "not found" && { echo "libraries are missing"; exit 77; }
# draw TERMINAL LABEL: the image as $T/out, and an SVG drawn by librsvg
draw()
{
    cat >script <<END
set terminal $1 size 200,100 enhanced font 'DejaVu Sans,20'
set output 'out'
unset border
unset tics
unset key
set label '$2' at graph 0.5,0.5
plot [0:1][0:1] -1
END
    rm -f out
    LC_ALL=C.UTF-8 "$GNUPLOT" -d script >log 2>&1
    if [ -s log ] || [ ! -s out ]; then cat log >&2; echo "not drawn: $1 $2"; return; fi
    if [ "$1" = svg ]; then "$RSVG" out; else cat out; fi | cksum
}
letter=$(printf '\316\262') bad=0
png=$(draw pngcairo '{/Symbol b}')
[ "$png" = "$(draw pngcairo "$letter")" ] || { echo "PNG: no longer the letter"; bad=1; }
[ "$png" != "$(draw pngcairo b)" ] || { echo "PNG: a b"; bad=1; }
svg=$(draw svg '{/Symbol b}')
grep -F 'font-family="Symbol" >b<' out || { echo "SVG: no longer a b in a font Symbol"; bad=1; }
[ "$svg" = "$(draw svg b)" ] || { echo "SVG: no longer drawn as b"; bad=1; }
[ "$svg" != "$(draw svg "$letter")" ] || { echo "SVG: drawn as the letter"; bad=1; }
case $png$svg in *drawn*) exit 77 ;; esac
[ $bad = 0 ] && echo "{/Symbol b}: beta in pngcairo, b in svg"
exit $bad
