#!/bin/sh
# hdf5_external_zeros.sh - numbers in an external file that was cut off read as zeros
#
# h5py 3.16.0 with HDF5 2.0.0 (h5py 3.7.0 with HDF5 1.10.8 does the same).
# One would guess: a read error, as for an HDF5 file that was cut off ("truncated file").
# It does: what the external file is too short for is 0, with success; only a file that is not there
# at all is an error.  And it is looked for in the current folder, while an external link or a
# virtual source is looked for beside the HDF5 file: the same data are there or not by `cd`.
# In calomu: external data are refused; tools/h5_plain.py, which reads them, compares sizes
# (tests/cli_h5.sh, "external", "way out").
#
# Exit 1 if it behaves otherwise.
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q h5py==3.16.0 numpy==2.4.6
cd "$dir"
mkdir run
cd run
../v/bin/python - <<'END'
import h5py, numpy as np
np.arange(1, 11, dtype='f4').tofile('energy.raw')
with h5py.File('run.h5', 'w') as f:
    f.create_dataset('energy', (10,), 'f4', external=[('energy.raw', 0, 40)])
END
truncate -s 20 energy.raw
../v/bin/python - <<'END'
import h5py
with h5py.File('run.h5', 'r') as f:
    seen = f['energy'][:].tolist()
print(seen)
raise SystemExit(seen != [1, 2, 3, 4, 5, 0, 0, 0, 0, 0])
END
cd ..
v/bin/python - <<'END'
import h5py
with h5py.File('run/run.h5', 'r') as f:
    try:
        print('read from another folder', f['energy'][:])
    except OSError as error:
        print('from another folder:', error)
        raise SystemExit(0)
raise SystemExit(1)
END
