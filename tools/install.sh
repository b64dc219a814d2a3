#!/bin/sh
# install.sh - what `make install` and `make uninstall` do; called by make with B, PREFIX, DESTDIR,
# CC, LIB (a folder below PREFIX), OPENMP and VERSION set
#
# The soname is libcalomu.so.MAJOR.MINOR while MAJOR is 0, libcalomu.so.MAJOR from 1.0.0 on:
# programs that were linked with one go on with every library of the same soname.  Within it
# functions are added, none is taken away or changed, and no public struct grows.
set -eu
: "${B:=build}" "${PREFIX:=/usr/local}" "${DESTDIR:=}" "${LIB:=lib}" "${OPENMP:=}"
to=$DESTDIR$PREFIX
soname=libcalomu.so.$SOVERSION
installed="bin/calomu bin/calomu-import-h5 include/calomu.h $LIB/libcalomu.a
    $LIB/libcalomu.so.$VERSION $LIB/$soname $LIB/libcalomu.so $LIB/pkgconfig/calomu.pc
    $LIB/cmake/calomu/calomuConfig.cmake $LIB/cmake/calomu/calomuConfigVersion.cmake
    share/man/man1/calomu.1 share/bash-completion/completions/calomu
    share/zsh/site-functions/_calomu"

if [ "$1" = uninstall ]; then
    for file in $installed; do rm -f "$to/$file"; done
    rmdir "$to/$LIB/cmake/calomu" 2>/dev/null || :
    exit 0
fi

# put MODE FILE TO: under another name first, so that a running program or library keeps its own
put()
{
    mkdir -p "$to/$(dirname "$3")"
    cp "$2" "$to/$3.new"
    chmod "$1" "$to/$3.new"
    mv -f "$to/$3.new" "$to/$3"
}
sh tools/man.sh ./calomu "$B"
# The libraries' OpenMP goes with those who link the archive; the shared library brings its own.
sed -e "s|@PREFIX@|$PREFIX|g; s|@LIB@|$LIB|g; s|@VERSION@|$VERSION|g; s|@OPENMP@|$OPENMP|g" \
    -e "s|@SOVERSION@|$SOVERSION|g" tools/cmake/calomu.pc.in >"$B/calomu.pc"
for name in calomuConfig calomuConfigVersion; do
    sed -e "s|@VERSION@|$VERSION|g; s|@OPENMP@|$OPENMP|g; s|@SOVERSION@|$SOVERSION|g" \
        tools/cmake/$name.cmake.in >"$B/$name.cmake"
    put 644 "$B/$name.cmake" "$LIB/cmake/calomu/$name.cmake"
done
put 755 calomu bin/calomu
[ ! -x calomu-import-h5 ] || put 755 calomu-import-h5 bin/calomu-import-h5
put 644 calomu.h include/calomu.h
put 644 "$B/libcalomu.a" "$LIB/libcalomu.a"
put 755 "$B/libcalomu.so" "$LIB/libcalomu.so.$VERSION"
ln -sf "libcalomu.so.$VERSION" "$to/$LIB/$soname"
ln -sf "$soname" "$to/$LIB/libcalomu.so"
put 644 "$B/calomu.pc" "$LIB/pkgconfig/calomu.pc"
put 644 "$B/calomu.1" share/man/man1/calomu.1
put 644 "$B/calomu.bash" share/bash-completion/completions/calomu
put 644 "$B/_calomu" share/zsh/site-functions/_calomu
echo "installed in $to: calomu $VERSION"
