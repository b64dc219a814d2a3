"""make_testdata.py REF=DIR [OUT=testdata] [IMPORT=./calomu-import-h5]

Makes the muons of testdata/ from the GEANT4 sample in DIR (train.h5, valid.h5, fixed.h5,
foldfile.hdf5, perfile.hdf5): cut_* are 10 muons in each HDF5 layout, with their numbers as CSV,
written here with h5py and independent of calomu; muons.cmu, valid.cmu and points.cmu are made by
calomu-import-h5.  Needs numpy and h5py.  The same input gives the same bytes."""
import json
import os
import subprocess
import sys
import tempfile

import h5py
import numpy as np

TRAIN, VALID, PER_POINT = 220, 70, 11    # muons in the .cmu files
SHAPE = (50, 32, 32)                     # z, x, y


def number(x):
    return '%.9g' % x


def write_csv(path, header, rows):
    with open(path, 'w', newline='\n') as f:
        f.write(header + '\n')
        f.writelines(','.join(row) + '\n' for row in rows)


def write_hits(path, muons):
    """muons: per muon (cell numbers, energies)."""
    rows = []
    for event, (cell, energy) in enumerate(muons):
        iz, ix, iy = np.unravel_index(cell, SHAPE)
        rows += [(str(event), str(z), str(x), str(y), number(e))
                 for z, x, y, e in zip(iz, ix, iy, energy)]
    write_csv(path, 'event,iz,ix,iy,energy', rows)


def write_truth(path, energy, x=None, y=None, charge=None):
    columns = [energy, x, y, charge]
    write_csv(path, 'event,energy,x,y,charge',
              [(str(i), *('' if c is None else number(c[i]) for c in columns))
               for i in range(len(energy))])


# ---- geant4

def read_geant4(path, chosen):
    """Truth (n, 4) and hits of the chosen muons; chosen(n_hits, e_true) gives their numbers."""
    with h5py.File(path, 'r') as f:
        offset = f['event_offset'][:].astype('i8')
        events = chosen(np.diff(offset), f['e_true'][:])
        truth = np.stack([f[k][:][events] for k in ('e_true', 'x', 'y', 'charge')], 1)
        hits = [(f['cell'][offset[i]:offset[i + 1]], f['energy'][offset[i]:offset[i + 1]])
                for i in events]
        return truth, hits, dict(f.attrs)


def write_geant4(path, truth, hits, attributes):
    offset = np.concatenate([[0], np.cumsum([len(c) for c, _ in hits])]).astype('u8')
    packed = dict(compression='gzip', compression_opts=9, shuffle=True, chunks=(1 << 12,))
    with h5py.File(path, 'w', track_order=False) as f:
        f['event_offset'] = offset
        f.create_dataset('cell', data=np.concatenate([c for c, _ in hits]), **packed)
        f.create_dataset('energy', data=np.concatenate([e for _, e in hits]), **packed)
        for i, name in enumerate(('e_true', 'x', 'y', 'charge')):
            f[name] = truth[:, i]
        f.attrs.update(attributes)


def cut_geant4(ref, out):
    """Muons with few hits, to keep the CSV small; muon 5 has its hits taken away."""
    truth, hits, attributes = read_geant4(
        ref + '/train.h5', lambda n, e: np.flatnonzero(n < 1000)[:10])
    hits[5] = (hits[5][0][:0], hits[5][1][:0])
    write_geant4(out + '/cut_geant4.h5', truth, hits, attributes)
    write_hits(out + '/cut_geant4_hits.csv', hits)
    write_truth(out + '/cut_geant4_truth.csv', *truth.T)


# ---- foldfile

def cut_foldfile(ref, out):
    """Folds 0, 2 and 10 of 3, 4 and 3 muons (10 sorts before 2 as a text); the second muon of fold
    2 and the last of fold 10 have their hits taken away; targets of fold 2 have the shape (n,), and
    the first of fold 10 is negative."""
    with h5py.File(ref + '/foldfile.hdf5', 'r') as f:
        names = json.loads(f['meta_data/cont_feats'][()])
        meta = {k: f['meta_data'][k][()] for k in f['meta_data']}
        found = []
        for fold in ('fold_0', 'fold_1', 'fold_2'):
            matrix = f[fold + '/matrix_inputs'][:]
            for i in range(len(f[fold + '/targets'])):
                m = matrix[:, matrix[1] == i]
                if m.shape[1] < 1000 and len(found) < 10:
                    found.append((m, f[fold + '/inputs'][i], f[fold + '/targets'][i, 0]))
    lzf = dict(compression='lzf')
    hits, begin = [], 0
    with h5py.File(out + '/cut_foldfile.hdf5', 'w') as f:
        for fold, n in (('fold_0', 3), ('fold_2', 4), ('fold_10', 3)):
            group, part = f.create_group(fold), found[begin:begin + n]
            matrices = []
            for i, (m, _, _) in enumerate(part):
                m = m[:, :0] if (fold, i) in (('fold_2', 1), ('fold_10', 2)) else m.copy()
                m[1] = i
                matrices.append(m)
                cell = np.ravel_multi_index(m[3:].astype(int), SHAPE)
                hits.append((cell, m[0]))
            target = np.array([t for _, _, t in part], 'f4')
            if fold == 'fold_10':
                target[0] = -target[0]
            group.create_dataset('targets', data=target if n == 4 else target[:, None], **lzf)
            group.create_dataset('inputs', data=np.array([v for _, v, _ in part], 'f4'), **lzf)
            group.create_dataset('matrix_inputs', data=np.concatenate(matrices, 1),
                                 chunks=(1, 512), **lzf)
            begin += n
        for key, text in meta.items():
            f['meta_data/' + key] = text.decode()
    write_hits(out + '/cut_foldfile_hits.csv', hits)
    write_truth(out + '/cut_foldfile_truth.csv', [t for _, _, t in found])
    write_csv(out + '/cut_foldfile_features.csv', 'event,' + ','.join(names),
              [(str(i), *map(number, v)) for i, (_, v, _) in enumerate(found)])


# ---- perfile

def cut_perfile(ref, out):
    """The 10 muons with the fewest hits; muon 7 has its hits taken away."""
    with h5py.File(ref + '/perfile.hdf5', 'r') as f:
        energy, target = f['E'][:], f['y'][:]
    n = np.count_nonzero(energy.reshape(len(energy), -1), 1)
    events = np.sort(np.argsort(n, kind='stable')[:10])
    energy, target = energy[events], target[events]
    energy[7] = 0
    with h5py.File(out + '/cut_perfile.hdf5', 'w') as f:
        f.create_dataset('E', data=energy, compression='lzf', chunks=(1, 1) + SHAPE)
        f.create_dataset('y', data=target, compression='lzf')
        f['meta'] = json.dumps({'n': len(target), 'units': 'GeV'})
    cells = [np.flatnonzero(e) for e in energy.reshape(len(energy), -1)]
    write_hits(out + '/cut_perfile_hits.csv',
               [(c, e[c]) for c, e in zip(cells, energy.reshape(len(energy), -1))])
    write_truth(out + '/cut_perfile_truth.csv', target)


# ---- .cmu

def make_cmu(ref, out, program):
    def cut(source, target, *options):
        subprocess.run([program, source, '--out', target, *options], check=True)
    cut(ref + '/train.h5', out + '/muons.cmu', '--count', str(TRAIN))
    cut(ref + '/valid.h5', out + '/valid.cmu', '--count', str(VALID))
    with tempfile.TemporaryDirectory() as folder:
        truth, hits, attributes = read_geant4(
            ref + '/fixed.h5', lambda n, e: np.concatenate(
                [np.flatnonzero(e == point)[:PER_POINT] for point in np.unique(e)]))
        write_geant4(folder + '/points.h5', truth, hits, attributes)
        cut(folder + '/points.h5', out + '/points.cmu')


def main():
    options = dict(OUT='testdata', IMPORT='./calomu-import-h5')
    for argument in sys.argv[1:]:
        key, _, value = argument.partition('=')
        if key not in ('REF', 'OUT', 'IMPORT') or not value:
            sys.exit(__doc__)
        options[key] = value
    if 'REF' not in options:
        sys.exit(__doc__)
    os.makedirs(options['OUT'], exist_ok=True)
    cut_geant4(options['REF'], options['OUT'])
    cut_foldfile(options['REF'], options['OUT'])
    cut_perfile(options['REF'], options['OUT'])
    make_cmu(options['REF'], options['OUT'], options['IMPORT'])


main()
