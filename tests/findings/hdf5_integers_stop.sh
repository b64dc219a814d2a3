#!/bin/sh
# hdf5_integers_stop.sh - whole numbers that do not fit are written as others, without a word
#
# h5py 3.16.0 with HDF5 2.0.0 (h5py 3.7.0 with HDF5 1.10.8 does the same).
# One would guess: an error, or what numpy does (70000 as uint16 is 4464, and NumPy 2 warns of NaN).
# It does: HDF5 stops at the end of the type: cell 70000 becomes 65535, event -1 becomes 0, and NaN,
# which is how an unknown charge is written, becomes 0.  All cells behind 65535 lie on one cell then,
# and nothing in the file tells.
# In calomu: types that cannot hold what they count are refused, and so is an event that is the
# largest number of its type (tests/cli_h5.sh, "narrow", "wrapped").
#
# Exit 1 if it behaves otherwise.
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q h5py==3.16.0 numpy==2.4.6
cd "$dir"
v/bin/python - <<'END'
import h5py, numpy as np
with h5py.File('a.h5', 'w') as f:
    f.create_dataset('cell', data=np.array([65534, 65536, 70000]), dtype='u2')
    f.create_dataset('event', (3,), 'u4')[:] = np.array([7, -1, 1 << 40])
    f.create_dataset('charge', (3,), 'i1')[:] = np.array([1, -1, np.nan])
with h5py.File('a.h5', 'r') as f:
    seen = {k: f[k][:].tolist() for k in f}
print(h5py.version.hdf5_version, seen)
right = {'cell': [65534, 65535, 65535], 'charge': [1, -1, 0], 'event': [7, 0, 4294967295]}
raise SystemExit(seen != right)
END
