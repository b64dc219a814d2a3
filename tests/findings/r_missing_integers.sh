#!/bin/sh
# r_missing_integers.sh - a missing whole number of R is -2147483648 in HDF5, with no mark in tables
#
# Debian's r-bioc-rhdf5 2.42.0 and r-cran-hdf5r 1.3.8 (R 4.2.2), read with python3-h5py 3.7.0.
# One would guess: what rhdf5 does for a plain vector, where an attribute (rhdf5-NA.OK) says that the
# number may mean "missing"; or a fill value; or an error.
# It does: in a data frame NA of an integer column is written as -2147483648 by both packages, and
# nothing in the file says so; NA of a real column is NaN.  The charge of a muon for which it is
# unknown is minus two thousand million to any other program.
# In calomu: that number in a column of int32 is unknown in truth, and an error in hits
# (tests/cli_h5.sh, "R: rhdf5", "R: hdf5r", with files that these packages wrote).
#
# Exit 1 if it behaves otherwise.
set -e
Rscript -e 'library(rhdf5); library(hdf5r)' >/dev/null 2>&1 ||
    apt-get install -y -qq --no-install-recommends r-bioc-rhdf5=2.42.0+dfsg-1 \
        r-cran-hdf5r=1.3.8+dfsg-1 python3-h5py=3.7.0-8 >/dev/null
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
Rscript - >/dev/null 2>&1 <<'END'
truth <- data.frame(event = 1:3, energy = c(100, NA, 300), charge = c(1L, NA, -1L))
rhdf5::h5createFile("rhdf5.h5")
rhdf5::h5write(truth, "rhdf5.h5", "truth")
rhdf5::h5write(c(1L, NA, -1L), "rhdf5.h5", "plain")
f <- hdf5r::H5File$new("hdf5r.h5", "w")
f[["truth"]] <- truth
f$close_all()
END
/usr/bin/python3 - <<'END'
import h5py, math
good = True
for name in ('rhdf5.h5', 'hdf5r.h5'):
    with h5py.File(name, 'r') as f:
        data = f['truth'][:]
        marks = list(f['truth'].attrs) + list(f.attrs)
        print(name, data.tolist(), 'marks:', marks)
        good = good and data['charge'].tolist() == [1, -2147483648, -1] and not marks
        good = good and math.isnan(data['energy'][1])
        if 'plain' in f:
            print('a plain vector has', list(f['plain'].attrs))
            good = good and 'rhdf5-NA.OK' in f['plain'].attrs
raise SystemExit(not good)
END
