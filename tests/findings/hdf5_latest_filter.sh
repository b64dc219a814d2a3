#!/bin/sh
# hdf5_latest_filter.sh - of one file by HDF5 2, older libraries read half of the datasets
#
# Written by h5py 3.16.0 with HDF5 2.0.0 and libver="latest"; read by h5py 3.12.1 with HDF5 1.14.4.
# One would guess: the file is refused when it is opened (as other formats do by a version in front),
# or is read.
# It does: the file opens, lists its datasets, and gives those without a filter; each one with a
# filter is "Unable to open object (bad version number for layout message)", which does not say that
# a newer library is needed, and reads like damage.  A reader that takes what cannot be opened as
# absent loses truth and keeps hits, or the other way round.
# In calomu: the message says that the file may be newer, and how to write it; what is there but
# cannot be opened is never taken as absent (tests/cli_h5.sh, "newer than this library").
#
# Exit 1 if it behaves otherwise.
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/new"
python3 -m venv "$dir/old"
"$dir/new/bin/pip" install -q h5py==3.16.0 numpy==2.4.6
"$dir/old/bin/pip" install -q h5py==3.12.1 numpy==2.2.6
cd "$dir"
new/bin/python - <<'END'
import h5py, numpy as np
with h5py.File('a.h5', 'w', libver='latest') as f:
    f.create_dataset('plain', data=np.arange(100.))
    f.create_dataset('chunked', data=np.arange(100.), chunks=(50,))
    f.create_dataset('packed', data=np.arange(100.), chunks=(50,), compression='gzip')
END
old/bin/python - <<'END'
import h5py
print(h5py.version.hdf5_version)
seen = {}
with h5py.File('a.h5', 'r') as f:
    for name in f:
        try:
            seen[name] = float(f[name][:].sum())
        except KeyError as error:
            seen[name] = str(error)
print(seen)
raise SystemExit(seen['plain'] != 4950 or 'bad version number' not in str(seen['packed']))
END
