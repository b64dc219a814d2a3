#!/bin/sh
# hdf5_virtual_zeros.sh - a virtual dataset whose source file is not there reads as zeros, and
# repacking it makes the zeros its own
#
# h5py 3.16.0 with HDF5 2.0.0; h5repack of Debian's hdf5-tools 1.10.8.
# One would guess: an error at the first read, as for an external link to a file that is not there.
# It does: reading gives the fill value, 0, with success.  h5repack, as it is usually called, keeps
# the virtual dataset (the file that was repacked "into one" still needs the other); told to make the
# layout contiguous (-l CONTI) it writes the zeros as numbers, exit code 0.  A calorimeter of which a
# part was left on another disk shows muons without hits.
# In calomu: virtual datasets are read if every number has a source in the same file; for others
# tools/h5_plain.py looks whether the sources are there (tests/cli_h5.sh, "virtual", "way out").
#
# Needs h5repack (hdf5-tools).  Exit 1 if it behaves otherwise.
set -e
command -v h5repack >/dev/null || apt-get install -y -qq hdf5-tools=1.10.8+repack1-1 >/dev/null
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q h5py==3.16.0 numpy==2.4.6
cd "$dir"
v/bin/python - <<'END'
import h5py, numpy as np
with h5py.File('part.h5', 'w') as f:
    f['energy'] = np.arange(1, 6, dtype='f4')
with h5py.File('all.h5', 'w') as f:
    layout = h5py.VirtualLayout((5,), 'f4')
    layout[:] = h5py.VirtualSource('part.h5', 'energy', (5,))
    f.create_virtual_dataset('energy', layout)
END
v/bin/python - <<'END'
import h5py
with h5py.File('all.h5', 'r') as f:
    raise SystemExit(f['energy'][:].tolist() != [1, 2, 3, 4, 5])
END
mkdir away
mv part.h5 away
h5repack all.h5 repacked.h5
h5repack -l CONTI all.h5 own.h5
v/bin/python - <<'END'
import h5py
seen = []
for name in ('all.h5', 'repacked.h5', 'own.h5'):
    with h5py.File(name, 'r') as f:
        seen.append((name, f['energy'].is_virtual, f['energy'][:].tolist()))
print(seen)
raise SystemExit(seen != [('all.h5', True, [0] * 5), ('repacked.h5', True, [0] * 5),
                          ('own.h5', False, [0] * 5)])
END
