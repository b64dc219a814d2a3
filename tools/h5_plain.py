"""h5_plain.py IN.h5 OUT.h5

Writes the groups, datasets and attributes of IN into OUT, a file of its own that every libhdf5
since 1.8 reads: links are followed, also into other files; virtual and external datasets become
datasets of their own; whatever filter packed the numbers (with hdf5plugin, if it is installed),
they are packed with gzip.  For files that calomu-import-h5 refuses because it opens no second file
and loads no filter; run it with the Python that wrote the file, on files that you trust.

Numbers that are not there are an error: HDF5 itself shows fill values for sources of virtual
datasets that are missing, and zeros for what an external file is too short for.  Needs h5py."""
import os
import sys

import h5py

try:
    import hdf5plugin                    # noqa: F401: registers its filters
except ImportError:
    pass

ROWS = 1 << 24                           # bytes of a part that is copied at once


def check_virtual(data, path):
    """Sources of a virtual dataset must be there; they are looked for beside the file."""
    folder = os.path.dirname(os.path.abspath(data.file.filename))
    for source in data.virtual_sources():
        if source.file_name == '.':
            there = source.dset_name in data.file
        else:
            name = os.path.join(folder, source.file_name)
            if not os.path.exists(name):
                name = source.file_name
            there = False
            if os.path.exists(name):
                with h5py.File(name, 'r') as other:
                    there = source.dset_name in other
        if not there:
            sys.exit('h5_plain: %s: its source %s in %s is not there'
                     % (path, source.dset_name, source.file_name))


def check_external(data, path):
    """Files of external datasets are looked for in the folder that is the current one."""
    for name, offset, size in data.external or ():
        name = name.decode() if isinstance(name, bytes) else name
        if not os.path.exists(name):
            sys.exit('h5_plain: %s: its file %s is not in this folder' % (path, name))
        if size < 1 << 62 and os.path.getsize(name) < offset + size:
            sys.exit('h5_plain: %s: its file %s is too short' % (path, name))


def copy_dataset(data, group, name, path):
    if data.is_virtual:
        check_virtual(data, path)
    check_external(data, path)
    if data.shape is None or data.ndim == 0 or data.size == 0 or data.dtype.kind == 'O':
        new = group.create_dataset(name, data=data[()], dtype=data.dtype)
    else:
        new = group.create_dataset(name, data.shape, data.dtype, chunks=True, compression='gzip',
                                   shuffle=True)
        rows = max(1, ROWS // max(1, data.dtype.itemsize * (data.size // len(data))))
        for i in range(0, len(data), rows):
            new[i:i + rows] = data[i:i + rows]
    return new


def copy(source, target, path, above):
    for key, value in source.attrs.items():
        target.attrs[key] = value
    if not isinstance(source, h5py.Group):
        return
    for name in source:
        here = path + '/' + name
        try:
            thing = source[name]
        except (KeyError, OSError) as error:
            sys.exit('h5_plain: %s leads nowhere: %s' % (here, error))
        if isinstance(thing, h5py.Dataset):
            copy(thing, copy_dataset(thing, target, name, here), here, above)
        elif isinstance(thing, h5py.Group) and thing not in above:
            copy(thing, target.create_group(name), here, above + [thing])


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if os.path.exists(sys.argv[2]) and os.path.samefile(sys.argv[1], sys.argv[2]):
        sys.exit('h5_plain: %s is both read and written' % sys.argv[1])
    part = sys.argv[2] + '.part'
    try:
        with h5py.File(sys.argv[1], 'r') as source:
            with h5py.File(part, 'w', libver=('earliest', 'v108')) as target:
                copy(source, target, '', [source['/']])
        os.replace(part, sys.argv[2])
    finally:
        if os.path.exists(part):
            os.remove(part)


main()
