#!/bin/sh
# cli_h5.sh - tests of calomu-import-h5: layouts against CSV made with h5py, damaged files
#
#     sh tests/cli_h5.sh ./calomu testdata build/tmp [./calomu-import-h5]
#
# The importer is looked for beside calomu; without it (no libhdf5) the script says so and ends.
# Variants of the cuts in testdata/ are made with h5py; without it they are skipped.
LC_ALL=${CLI_LOCALE:-C}
export LC_ALL
. "$(dirname "$0")/cli_lib.sh"
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_h5
IMPORT=${4:-$(dirname "$PROGRAM")/calomu-import-h5}
case $IMPORT in /*) ;; *) IMPORT=$PWD/$IMPORT ;; esac
TOOLS=$(cd "$(dirname "$0")/../tools" && pwd)
cd "$TMP" || exit 1
if [ ! -x "$IMPORT" ]; then
    skip "calomu-import-h5 was not built (needs libhdf5)"
    cli_end
    exit
fi
for cut in cut_geant4.h5 cut_foldfile.hdf5 cut_perfile.hdf5; do
    cp "$DATA/$cut" "${cut%.*}.h5" || exit 1
done

# refused WHAT PATTERN ARGUMENT...: exit code 3, one line with the reason (after notices about what
# was found), and no file, whole or partly
refused()
{
    refused_what=$1 refused_pattern=$2
    shift 2
    rm -f bad.cmu*
    check "$refused_what" 3 "$refused_pattern" "$IMPORT" "$@" --out bad.cmu
    absent "$refused_what: no file" bad.cmu*
    if [ "$(grep -vc ': layout \|features standardised\|: absent in\|numbered from 0' err)" -eq 1 ]
    then pass
    else fail "$refused_what: one line"; fi
}

# ------------------------------------------------------------------ usage

check "help" 0 "Usage: calomu-import-h5 IN.h5" "$IMPORT" --help
check "no arguments" 2 "IN.h5 is missing" "$IMPORT"
check "no --out" 2 "--out OUT.cmu is missing" "$IMPORT" cut_geant4.h5
check "unknown layout" 2 "must be one of auto|geant4" "$IMPORT" cut_geant4.h5 --out a --layout csv
check "unknown option" 2 "did you mean '--fold'?" "$IMPORT" cut_geant4.h5 --out a --foldd 1
check "unit said twice" 2 "leave out --energy-unit" \
    "$IMPORT" cut_geant4.h5 --out a.cmu --energy-unit MeV
check "unit of a foldfile" 2 "foldfiles are in GeV" \
    "$IMPORT" cut_foldfile.h5 --out a.cmu --energy-unit MeV
check "geometry said twice" 2 "not that of --geometry" \
    "$IMPORT" cut_geant4.h5 --out a.cmu --geometry 50,32,32,40,4,4
check "geometry of another grid" 2 "unlike --geometry" \
    "$IMPORT" cut_perfile.h5 --out a.cmu --geometry 50,32,31,40,4,4
check "past the end" 2 "there are 10 muons" "$IMPORT" cut_geant4.h5 --out a.cmu --first 4 --count 7
check "fold of another layout" 2 "--fold is for the layout foldfile" \
    "$IMPORT" cut_geant4.h5 --out a.cmu --fold 0
check "no such fold" 2 "no group fold_1" "$IMPORT" cut_foldfile.h5 --out a.cmu --fold 1
absent "nothing is written" a.cmu a

# ------------------------------------------------------------------ the three layouts

# equals WHAT FILE.cmu CUT: hits, truth and, for the foldfile, features are those that h5py wrote
equals()
{
    rm -f hits.csv truth.csv features.csv
    if [ "$3" = cut_foldfile ]; then
        check "$1: export" 0 "" "$PROGRAM" export "$2" --hits hits.csv --truth truth.csv \
            --features features.csv
        same "$1: features" features.csv "$DATA/${3}_features.csv"
    else
        check "$1: export" 0 "" "$PROGRAM" export "$2" --hits hits.csv --truth truth.csv
    fi
    same "$1: hits" hits.csv "$DATA/${3}_hits.csv"
    same "$1: truth" truth.csv "$DATA/${3}_truth.csv"
}

for layout in geant4 foldfile perfile; do
    cut=cut_$layout
    check "$layout" 0 "layout $layout, 10 muons, 50 x 32 x 32 cells, hits in GeV" \
        "$IMPORT" $cut.h5 --out $cut.cmu
    equals "$layout" $cut.cmu $cut
    check "$layout: named" 0 "layout $layout" "$IMPORT" $cut.h5 --out named.cmu --layout $layout
    same "$layout: named" named.cmu $cut.cmu
    check "$layout: verified" 0 "" "$PROGRAM" info $cut.cmu
done
check "convention of foldfiles" 0 "authors" "$PROGRAM" info cut_foldfile.cmu
check "state of their features" 0 "unknown" "$PROGRAM" info cut_foldfile.cmu
check "folds in numeric order" 0 "3 folds of different sizes" \
    "$IMPORT" cut_foldfile.h5 --out a.cmu --first 3 --count 4
check "one fold" 0 "4 muons" "$IMPORT" cut_foldfile.h5 --out b.cmu --fold 2
same "fold 2 is muons 3 to 6" a.cmu b.cmu
for layout in geant4 foldfile perfile; do
    check "$layout: muons 2 to 8" 0 "7 muons" \
        "$IMPORT" cut_$layout.h5 --out a.cmu --first 2 --count 7
    check "$layout: export" 0 "" "$PROGRAM" export a.cmu --hits a.csv
    awk -F, -v OFS=, 'NR == 1 || ($1 >= 2 && $1 <= 8) { if (NR > 1) $1 -= 2; print }' \
        "$DATA/cut_${layout}_hits.csv" >b.csv
    same "$layout: hits of muons 2 to 8" a.csv b.csv
done
check "two files as one" 0 "20 muons" "$IMPORT" cut_perfile.h5 cut_perfile.h5 --out a.cmu
check "export" 0 "" "$PROGRAM" export a.cmu --truth a.csv
awk -F, -v OFS=, 'NR > 1 { $1 += 10; print }' "$DATA/cut_perfile_truth.csv" |
    cat "$DATA/cut_perfile_truth.csv" - >b.csv
same "truth of both files" a.csv b.csv
refused "files that do not fit together" "are not those of" cut_geant4.h5 cut_foldfile.h5
refused "another layout than named" "no dataset /event_offset" cut_perfile.h5 --layout geant4
refused "another layout than named" "no dataset /E" cut_foldfile.h5 --layout perfile
refused "another layout than named" "no group fold_0" cut_geant4.h5 --layout foldfile
check "charge left out" 0 "no charge" "$IMPORT" cut_geant4.h5 --out a.cmu --no-charge
check "export" 0 "" "$PROGRAM" export a.cmu --truth a.csv
sed '1!s/[^,]*$//' "$DATA/cut_geant4_truth.csv" >b.csv
same "charge left out" a.csv b.csv

# ------------------------------------------------------------------ where it writes and reads

piped "to a pipe" 0 "" '"$IMPORT" cut_geant4.h5 --out /dev/stdout | cmp - cut_geant4.cmu'
if [ -c /dev/full ]; then
    check "full disk" 4 "/dev/full" "$IMPORT" cut_geant4.h5 --out /dev/full
else
    skip "no /dev/full"
fi
check "no such folder" 4 "none/a.cmu" "$IMPORT" cut_geant4.h5 --out none/a.cmu
check "no such file" 4 "none.h5: No such file" "$IMPORT" none.h5 --out a.cmu
mkfifo fifo
refused "a folder" "not a regular file" .
refused "a FIFO" "not a regular file" fifo
refused "a CSV file" "not an HDF5 file" "$DATA/cut_geant4_truth.csv"
refused "a data file" "not an HDF5 file" cut_geant4.cmu
: >empty.h5
refused "an empty file" "not an HDF5 file" empty.h5
cp cut_geant4.cmu kept.cmu
check "a failure" 3 "not an HDF5 file" "$IMPORT" empty.h5 --out kept.cmu
same "a failure keeps the old file" kept.cmu cut_geant4.cmu

# ------------------------------------------------------------------ damaged files

for layout in geant4 foldfile perfile; do
    file=cut_$layout.h5
    size=$(wc -c <$file)
    for n in 1 7 8 50 100 512 800 1500 2048 3000 $((size / 2)) $((size - 5000)) $((size - 1)); do
        head -c "$n" $file >short.h5
        refused "$layout cut at byte $n" short.h5 short.h5
    done
done

# Overwritten places: the numbers in a file may change without a trace, so that some are accepted;
# but nothing crashes, hangs, or says more than one line.
spoil()
{
    cp "cut_$1.h5" spoilt.h5
    printf "$3" | dd of=spoilt.h5 bs=1 seek="$2" conv=notrunc 2>/dev/null
    "$IMPORT" spoilt.h5 --out spoilt.cmu >out 2>err
    code=$?
    if [ $code -ne 0 ] && [ $code -ne 3 ]; then fail "$1 spoilt at byte $2: exit code $code"
    elif [ "$(grep -c . err)" -gt 3 ]; then fail "$1 spoilt at byte $2: many lines"
    else pass; fi
}
for layout in geant4 foldfile perfile; do
    at=9
    while [ $at -lt 6000 ]; do
        spoil $layout $at '\377\377\377\377'
        spoil $layout $((at + 31)) '\000\001\000\200\010'
        at=$((at + 397))
    done
    size=$(wc -c <cut_$layout.h5)
    for part in 3 4 5 6 7; do
        spoil $layout $((size * part / 8)) '\377\377\377\377\377\377\377\377'
        spoil $layout $((size - 700 + 100 * part)) '\000\340\377\377'
    done
done

# ------------------------------------------------------------------ variants, made with h5py

PYTHON=
for python in python3 /usr/bin/python3; do
    if "$python" -c 'import h5py, numpy' 2>/dev/null; then PYTHON=$python; break; fi
done
if [ -z "$PYTHON" ]; then
    skip "variants of the HDF5 layouts: no python3 with h5py and numpy"
    cli_end
    exit
fi
cat >variants.py <<'END'
import json
import shutil
import h5py
import numpy as np


def variant(name, layout, change):
    shutil.copy('cut_%s.h5' % layout, name + '.h5')
    with h5py.File(name + '.h5', 'r+') as f:
        change(f)


def put(f, name, data, **options):
    if name in f:
        del f[name]
    f.create_dataset(name, data=data, **options)


def setting(name, at, value):
    def change(f):
        data = f[name][:]
        data[at] = value
        put(f, name, data)
    return change


def lacking(name):
    return lambda f: f.__delitem__(name)


def putting(name, make, **options):
    return lambda f: put(f, name, make(f[name][()] if name in f else None), **options)


def attribute(name, value):
    def change(f):
        if value is None:
            del f.attrs[name]
        else:
            f.attrs[name] = value
    return change


def several(*changes):
    return lambda f: [c(f) for c in changes]


def meta(key, **values):
    def change(f):
        text = json.loads(f['meta_data/' + key][()])
        text.update(values)
        put(f, 'meta_data/' + key, json.dumps(text))
    return change


def shuffled(f):
    order = np.random.RandomState(1).permutation(28)
    names = json.loads(f['meta_data/cont_feats'][()])
    put(f, 'meta_data/cont_feats', json.dumps([names[i] for i in order]))
    for fold in ('fold_0', 'fold_2', 'fold_10'):
        put(f, fold + '/inputs', f[fold + '/inputs'][:][:, order])


def swapped(f):
    m = f['fold_0/matrix_inputs'][:]
    put(f, 'fold_0/matrix_inputs', m[:, ::-1])


# The same muons, stored in other ways.
variant('same_geant4_plain', 'geant4', several(
    putting('cell', lambda d: d.astype('>i8')), putting('energy', lambda d: d.astype('>f8')),
    putting('event_offset', lambda d: d.astype('i4'), chunks=(3,)),
    putting('e_true', lambda d: d[:, None].astype('f8')),
    attribute('energy_unit', np.bytes_('GeV'))))
variant('same_geant4_lzf', 'geant4', several(
    putting('cell', lambda d: d, compression='lzf', shuffle=True, chunks=(1000,)),
    putting('energy', lambda d: d, compression='lzf', fletcher32=True, chunks=(700,))))
variant('same_geant4_float', 'geant4', several(
    putting('cell', lambda d: d.astype('f4')), putting('event_offset', lambda d: d.astype('f8')),
    putting('energy', lambda d: d.astype('f8')), putting('charge', lambda d: d.astype('i1'))))
variant('same_geant4_rows', 'geant4', several(
    *[putting(k, lambda d: d[None].astype('f8')) for k in ('e_true', 'x', 'y', 'charge')]))
variant('same_geant4_units', 'geant4', several(
    attribute('energy_unit', None), lambda f: f['energy'].attrs.__setitem__('units', 'GeV')))
variant('same_geant4_unlimited', 'geant4', several(*[
    putting(k, lambda d: d, maxshape=(None,), chunks=(64,)) for k in ('energy', 'cell', 'e_true')]))
variant('float32', 'geant4', several(*[
    lambda f, k=k: f.attrs.__setitem__(k, np.asarray(f.attrs[k], 'f4'))
    for k in ('pitch_mm', 'origin_mm', 'field_T')]))


def compact(f):
    data = f['e_true'][:]
    del f['e_true']
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(f.id, b'e_true', h5py.h5t.IEEE_F32BE, h5py.h5s.create_simple((10,)), plist)
    f['e_true'][:] = data


variant('same_geant4_compact', 'geant4', compact)


# Data behind links and virtual datasets: read in the same file only.
def soft(f):
    f.move('cell', 'data/c')
    f['here'] = h5py.SoftLink('/data')
    f['cell'] = h5py.SoftLink('here/c')


def shown(name, sources):
    """A virtual dataset; sources: file, dataset, and where it is shown."""
    def change(f):
        n = len(f[name])
        f.move(name, 'parts/whole')
        f['parts/low'], f['parts/high'] = f['parts/whole'][:100], f['parts/whole'][100:]
        layout = h5py.VirtualLayout((n,), f['parts/whole'].dtype)
        for file, data, low, high in sources:
            layout[low:high] = h5py.VirtualSource(file, data, (high - low,))
        f.create_virtual_dataset(name, layout)
    return change


def virtual(f, name, file, data, n):
    """A mapping without end, which the library looks after in the other file."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    spaces = []
    for _ in range(2):
        spaces.append(h5py.h5s.create_simple((n,), (h5py.h5s.UNLIMITED,)))
        spaces[-1].select_hyperslab((0,), (1,), block=(h5py.h5s.UNLIMITED,))
    plist.set_virtual(spaces[0], file, data, spaces[1])
    h5py.h5d.create(f.id, name, h5py.h5t.IEEE_F32LE, spaces[0], plist)


variant('same_geant4_soft', 'geant4', soft)
variant('same_geant4_virtual', 'geant4', shown('energy', [
    ('.', 'parts/low', 0, 100), ('.', 'parts/high', 100, 5750)]))
variant('same_foldfile_shuffled', 'foldfile', shuffled)
variant('same_foldfile_gzip', 'foldfile', several(
    putting('fold_2/matrix_inputs', lambda d: d, compression='gzip', chunks=(6, 100)),
    putting('fold_10/matrix_inputs', lambda d: d.astype('f8')),
    putting('fold_0/targets', lambda d: d[:, 0]), meta('matrix_feats', shape=[50, 32, 32])))
variant('same_perfile_four', 'perfile', several(
    putting('E', lambda d: d[:, 0], compression='lzf', chunks=(4, 13, 8, 32)),
    putting('y', lambda d: -d[:, None]), putting('meta', lambda d: '{"a": [1, {"b": null}]}')))
variant('same_perfile_bytes', 'perfile', putting('meta', lambda d: np.bytes_(d)))

# Energies in MeV, and what must come out.
with h5py.File('cut_geant4.h5', 'r') as f:
    mev = (f['energy'][:].astype('f8') * 1000).astype('f4')
    with open('mev.csv', 'w') as out:
        out.writelines('%.9g\n' % np.float32(np.float64(e) * 1e-3) for e in mev)
variant('mev', 'geant4', several(putting('energy', lambda d: mev),
                                 attribute('energy_unit', 'MeV')))
variant('unsaid', 'geant4', several(putting('energy', lambda d: mev),
                                    attribute('energy_unit', None)))
variant('no_truth', 'geant4', several(*map(lacking, ('e_true', 'x', 'y', 'charge'))))
variant('no_geometry', 'geant4', attribute('pitch_mm', None))
variant('none', 'geant4', several(
    putting('event_offset', lambda d: d[:1]), *[putting(k, lambda d: d[:0]) for k in (
        'cell', 'energy', 'e_true', 'x', 'y', 'charge')]))

bad = open('bad.txt', 'w')


def wrong(name, layout, text, change):
    variant('bad_' + name, layout, change)
    bad.write('bad_%s.h5|%s\n' % (name, text))


nan, huge = float('nan'), float('inf')
wrong('unit', 'geant4', "neither GeV nor MeV", attribute('energy_unit', 'keV'))
wrong('unit_kind', 'geant4', "energy_unit is no text", attribute('energy_unit', 3))
wrong('shape', 'geant4', "cells along an axis", attribute('shape', (50, 32, 0)))
wrong('shape_half', 'geant4', "cells along an axis", attribute('shape', (50, 32, 31.5)))
wrong('shape_large', 'geant4', "more than 2^24", attribute('shape', (5000, 3200, 3200)))
wrong('shape_two', 'geant4', "is not 3 numbers", attribute('shape', (50, 32)))
wrong('pitch', 'geant4', "must be positive", attribute('pitch_mm', (40.64, 0, 3.75)))
wrong('pitch_nan', 'geant4', "not finite", attribute('pitch_mm', (40.64, nan, 3.75)))
wrong('no_shape', 'geant4', "no attribute shape; give --geometry", attribute('shape', None))
wrong('no_cell', 'geant4', "no dataset /cell", lacking('cell'))
wrong('no_energy', 'geant4', "no dataset /energy", lacking('energy'))
wrong('no_x', 'geant4', "only one of /x and /y", lacking('x'))
wrong('cell_half', 'geant4', "/cell (5750,): 0.5 at position 3 is no whole number",
      several(putting('cell', lambda d: d.astype('f4')), setting('cell', 3, .5)))
wrong('cell_text', 'geant4', "/cell holds no numbers", putting('cell', lambda d: 'none'))
wrong('cell_group', 'geant4', "/cell is no dataset",
      several(lacking('cell'), lambda f: f.create_group('cell')))
wrong('cell_range', 'geant4', "muon 0 has a hit in cell 51200 of 51200", setting('cell', 7, 51200))
wrong('cell_negative', 'geant4', "hit in cell -1",
      several(putting('cell', lambda d: d.astype('i4')), setting('cell', 7, -1)))
wrong('cell_twice', 'geant4', "twice",
      several(putting('cell', lambda d: np.concatenate([d[:1], d[:1], d[2:]]))))
wrong('energy_nan', 'geant4', "muon 0 has a hit of energy nan", setting('energy', 3, nan))
wrong('energy_inf', 'geant4', "hit of energy inf", setting('energy', 3, huge))
wrong('energy_negative', 'geant4', "hit of energy -1", setting('energy', 3, -1))
wrong('energy_short', 'geant4', "/energy must have the shape of /cell",
      putting('energy', lambda d: d[:-1]))
wrong('energy_square', 'geant4', "/energy must have the shape of /cell",
      putting('energy', lambda d: d[:, None]))
wrong('offset_first', 'geant4', "must begin with 0", setting('event_offset', 0, 1))
wrong('offset_last', 'geant4', "must end with the number of hits", setting('event_offset', 10, 9))
wrong('offset_falls', 'geant4', "must not fall", setting('event_offset', 4, 10))
wrong('offset_high', 'geant4', "must not fall", setting('event_offset', 4, 1 << 62))
wrong('offset_none', 'geant4', "must be (muons + 1,)", putting('event_offset', lambda d: d[:0]))
wrong('truth_short', 'geant4', "/e_true (9,): must be one number per muon",
      putting('e_true', lambda d: d[:9]))
wrong('truth_nan', 'geant4', "/e_true (10,): muon 6 has the value nan", setting('e_true', 6, nan))
wrong('truth_zero', 'geant4', "true energy 0", setting('e_true', 6, 0))
wrong('outside', 'geant4', "outside the face", setting('x', 2, 75))
wrong('charge', 'geant4', "--no-charge", setting('charge', 2, -50))

wrong('dense', 'foldfile', "is_sparse must be true", meta('matrix_feats', is_sparse=False))
wrong('dense_unsaid', 'foldfile', "is_sparse must be true",
      putting('meta_data/matrix_feats', lambda d: '{"shape": [1, 50, 32, 32]}'))
wrong('json', 'foldfile', "no JSON object", putting('meta_data/matrix_feats', lambda d: '{"a": '))
wrong('json_deep', 'foldfile', "no JSON object",
      putting('meta_data/matrix_feats', lambda d: '[' * 100000))
wrong('grid', 'foldfile', "has 40 x 32 x 32 cells, and no sizes: give --geometry",
      meta('matrix_feats', shape=[1, 40, 32, 32]))
wrong('grid_two', 'foldfile', "shape must be [1, nz, nx, ny]",
      meta('matrix_feats', shape=[2, 50, 32, 32]))
wrong('no_meta', 'foldfile', "no text /meta_data/cont_feats", lacking('meta_data'))
wrong('no_folds', 'foldfile', "no group fold_0",
      several(*map(lacking, ('fold_0', 'fold_2', 'fold_10'))))
wrong('same_fold', 'foldfile', "have the same number", lambda f: f.move('fold_10', 'fold_02'))
wrong('meta_number', 'foldfile', "/meta_data/cont_feats is no text",
      putting('meta_data/cont_feats', lambda d: 1.0))
wrong('feature', 'foldfile', "feature 'energy' is none of the 28",
      putting('meta_data/cont_feats', lambda d: d.decode().replace('emeas', 'energy')))
wrong('feature_twice', 'foldfile', "feature 'ea1' is there twice",
      putting('meta_data/cont_feats', lambda d: d.decode().replace('eb1', 'ea1')))
wrong('feature_lacks', 'foldfile', "feature 'ea1' is missing",
      putting('meta_data/cont_feats', lambda d: d.decode().replace(', "ea1"', '')))
wrong('inputs_nan', 'foldfile', "a feature is not finite", setting('fold_2/inputs', (1, 5), nan))
wrong('inputs_narrow', 'foldfile', "must be (muons, 28)",
      putting('fold_2/inputs', lambda d: d[:, :27]))
wrong('inputs_short', 'foldfile', "must be (muons, 28)", putting('fold_2/inputs', lambda d: d[:3]))
wrong('no_inputs', 'foldfile', "no dataset /fold_10/inputs", lacking('fold_10/inputs'))
wrong('no_targets', 'foldfile', "no dataset /fold_2/targets", lacking('fold_2/targets'))
wrong('no_matrix', 'foldfile', "no dataset /fold_2/matrix_inputs", lacking('fold_2/matrix_inputs'))
wrong('targets_wide', 'foldfile', "must be (muons, 1) or (muons,)",
      putting('fold_0/targets', lambda d: np.repeat(d, 2, 1)))
wrong('targets_inf', 'foldfile', "has the value", setting('fold_0/targets', 0, -huge))
wrong('rows', 'foldfile', "must be (6, hits)", putting('fold_0/matrix_inputs', lambda d: d[:5]))
wrong('unsorted', 'foldfile', "not sorted by event", swapped)
wrong('event', 'foldfile', "has event 3", setting('fold_0/matrix_inputs', (1, -1), 3))
wrong('event_half', 'foldfile', "has event 0.5", setting('fold_0/matrix_inputs', (1, 4), 0.5))
wrong('channel', 'foldfile', "has channel 1", setting('fold_0/matrix_inputs', (2, 4), 1))
wrong('z', 'foldfile', "hit 4 has z 50", setting('fold_0/matrix_inputs', (3, 4), 50))
wrong('x', 'foldfile', "hit 4 has x -1", setting('fold_0/matrix_inputs', (4, 4), -1))
wrong('y', 'foldfile', "hit 4 has y nan", setting('fold_0/matrix_inputs', (5, 4), nan))
wrong('hit', 'foldfile', "muon 0 has a hit of energy nan",
      setting('fold_0/matrix_inputs', (0, 4), nan))

wrong('no_y', 'perfile', "no dataset /y", lacking('y'))
wrong('no_json', 'perfile', "no text /meta", lacking('meta'))
wrong('list', 'perfile', "/meta is no JSON object", putting('meta', lambda d: '[]'))
wrong('units', 'perfile', "neither GeV nor MeV", putting('meta', lambda d: '{"units": "J"}'))
wrong('y_short', 'perfile', "must be one number per muon", putting('y', lambda d: d[:9]))
wrong('y_nan', 'perfile', "muon 4 has the value nan", setting('y', 4, nan))
wrong('flat', 'perfile', "must be (muons, 1, nz, nx, ny)",
      putting('E', lambda d: d.reshape(10, -1)))
wrong('channels', 'perfile', "must be (muons, 1, nz, nx, ny)",
      putting('E', lambda d: np.repeat(d, 2, 1), compression='lzf'))
wrong('grid_other', 'perfile', "give --geometry", putting('E', lambda d: d[:, :, :, :31]))
wrong('dense_nan', 'perfile', "muon 3 has a hit of energy nan", setting('E', (3, 0, 9, 9, 9), nan))
wrong('dense_negative', 'perfile', "hit of energy -0.5", setting('E', (3, 0, 9, 9, 9), -.5))


def unfilled(f):
    del f['cell'], f['energy']
    f.create_dataset('cell', (1 << 50,), 'u2', chunks=(1 << 18,), compression='gzip')
    f.create_dataset('energy', (1 << 50,), 'f4', chunks=(1 << 18,), compression='gzip')


wrong('unfilled', 'geant4', "more numbers than the file holds bytes for", unfilled)
wrong('chunk', 'perfile', "chunks of more than 64 MiB", lambda f: [
    f.__delitem__('E'), f.create_dataset('E', (2000, 50, 32, 32), 'f4', chunks=(2000, 50, 32, 32))])
other = "no file is opened because a file says so"


def without(name, link):
    return lambda f: [f.__delitem__(name), f.__setitem__(name, link)]


def external(f):
    data = f['energy'][:]
    data.tofile('energy.raw')
    del f['energy']
    f.create_dataset('energy', data.shape, data.dtype, external=[('energy.raw', 0, data.nbytes)])


def blosc(f):
    """A chunk that says it is packed so."""
    del f['y']
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((10,))
    plist.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 4, 40))
    h5py.h5d.create(f.id, b'y', h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((10,)), plist)
    f['y'].id.write_direct_chunk((0,), b'blosc')


def external_text(f):
    del f['meta']
    f.create_dataset('meta', (1,), 'S20', external=[('/etc/passwd', 0, 20)])


def unwritten(f):
    data = f['energy'][:]
    del f['energy']
    f.create_dataset('energy', data.shape, 'f4', chunks=(500,))[:2000] = data[:2000]


wrong('link', 'geant4', "/cell is a link to '/cell' in another file, 'cut_geant4.h5'; " + other,
      without('cell', h5py.ExternalLink('cut_geant4.h5', '/cell')))
wrong('link_truth', 'geant4', "/e_true is a link to '/e_true' in another file",
      without('e_true', h5py.ExternalLink('cut_geant4.h5', '/e_true')))
wrong('link_behind', 'geant4', "/x is a link to '/there/x', which leads nowhere in this file",
      several(without('x', h5py.SoftLink('/there/x')),
              lambda f: f.__setitem__('there', h5py.ExternalLink('cut_geant4.h5', '/'))))
wrong('link_group', 'foldfile', "/fold_2 is a link to '/fold_2' in another file",
      without('fold_2', h5py.ExternalLink('cut_foldfile.h5', '/fold_2')))
wrong('dangling', 'geant4', "/charge is a link to '/q', which leads nowhere in this file",
      without('charge', h5py.SoftLink('/q')))
wrong('loop', 'geant4', "/y is a link to '/y', which leads nowhere",
      without('y', h5py.SoftLink('/y')))
wrong('external', 'geant4', "its numbers are in another file, 'energy.raw'; " + other, external)
wrong('external_text', 'perfile', "/meta is stored elsewhere; " + other, external_text)
wrong('virtual', 'geant4', "/energy is virtual: its numbers are in another file, 'cut_geant4.h5'; "
      + other, shown('energy', [('cut_geant4.h5', 'energy', 0, 5750)]))
wrong('virtual_end', 'geant4', "in another file, '/etc/passwd'; " + other,
      lambda f: [f.__delitem__('energy'), virtual(f, b'energy', b'/etc/passwd', b'e', 5750)])
wrong('virtual_deep', 'geant4', "/deep is virtual: its numbers are in another file, '/etc/passwd'",
      lambda f: [f.__delitem__('energy'), virtual(f, b'deep', b'/etc/passwd', b'e', 5750),
                 virtual(f, b'energy', b'.', b'deep', 5750)])
wrong('virtual_circle', 'geant4', "/energy is virtual, and its sources cannot be followed",
      lambda f: [f.__delitem__('energy'), virtual(f, b'deep', b'.', b'energy', 5750),
                 virtual(f, b'energy', b'.', b'deep', 5750)])
wrong('virtual_gap', 'geant4', "/energy (5750,): virtual: 5650 of its 5750 numbers have no source",
      shown('energy', [('.', 'parts/low', 0, 100)]))
wrong('virtual_none', 'geant4', "and its source 'parts/none' is not there",
      shown('energy', [('.', 'parts/none', 0, 5750)]))
wrong('virtual_short', 'geant4', "its source 'parts/high' does not hold all that is shown",
      shown('energy', [('.', 'parts/high', 0, 5750)]))
wrong('blosc', 'perfile', "packed with filter 32001", lambda f: blosc(f))
wrong('unwritten', 'geant4', "/energy (5750,): 8 of its 12 chunks were never written", unwritten)
wrong('capitals', 'geant4', "no 'e_true', but 'E_true': rename it",
      lambda f: f.move('e_true', 'E_true'))
for kind in ('i2', 'u1', 'f2'):
    wrong('narrow_' + kind, 'geant4', "cannot count the cells up to 51199, which would wrap",
          putting('cell', lambda d: d.astype(kind)))
wrong('narrow_offset', 'geant4', "its type int8 cannot count the hits up to 5750",
      putting('event_offset', lambda d: d.astype('i1')))
wrong('two_units', 'geant4', "energy_unit is 'GeV', that of the energies 'MeV'",
      lambda f: f['energy'].attrs.__setitem__('units', 'MeV'))
wrong('turned_matrix', 'foldfile', "must be (6, hits); R and MATLAB store arrays with the order",
      putting('fold_0/matrix_inputs', lambda d: d.T))
wrong('turned_inputs', 'foldfile', "with as many muons as targets has; R and MATLAB",
      putting('fold_2/inputs', lambda d: d.T))
wrong('turned_energies', 'perfile', "(muons, nz, nx, ny); R and MATLAB",
      putting('E', lambda d: d.T))
wrong('other', 'geant4', "none of the layouts", lambda f: [
    f.move('event_offset', 'offsets'), f.move('e_true', 'energies')])


def packed(data):
    """The truth of 10 muons as one LZF chunk of the given bytes."""
    def change(f):
        del f['y']
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((10,))
        plist.set_filter(32000, h5py.h5z.FLAG_OPTIONAL, (4, 261, 40))
        h5py.h5d.create(f.id, b'y', h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((10,)), plist)
        f['y'].id.write_direct_chunk((0,), data)
    return change


one = np.float32(1).tobytes()
damaged = "/y (10,): cannot be read"
fine = b'\3' + one + b'\340\33\3'       # a one, and 36 bytes from 4 back
variant('lzf', 'perfile', packed(fine))
wrong('lzf_back', 'perfile', damaged, packed(b'\3' + one + b'\340\33\4'))
wrong('lzf_far', 'perfile', damaged, packed(b'\3' + one + b'\377\33\377'))
wrong('lzf_long', 'perfile', damaged, packed(b'\3' + one + b'\340\34\3'))
wrong('lzf_short', 'perfile', damaged, packed(b'\3' + one + b'\340\32\3'))
wrong('lzf_literal', 'perfile', damaged, packed(b'\3' + one + b'\37' + one * 2))
wrong('lzf_cut', 'perfile', damaged, packed(b'\3' + one + b'\340'))
wrong('lzf_cut_back', 'perfile', damaged, packed(b'\3' + one + b'\340\33'))
for name, size in (('less', 36), ('more', 44), ('huge', 1 << 31), ('none', 0)):
    wrong('lzf_' + name, 'perfile', "filter and chunk differ in size", packed(fine))
    with open('bad_lzf_%s.h5' % name, 'r+b') as f:
        text, values = f.read(), np.array([4, 261, 40], '<u4')
        assert text.count(values.tobytes()) == 1
        values[2] = size
        f.seek(text.find(np.array([4, 261, 40], '<u4').tobytes()))
        f.write(values.tobytes())
bad.close()

# Hits of one cell in several rows, energies below 0.
variant('twice', 'geant4', lambda f: [
    f['cell'].__setitem__(1, f['cell'][0]), f['energy'].__setitem__(slice(0, 2), [.25, .5])])
variant('noise', 'geant4', setting('energy', 3, -1))
variant('twice_fold', 'foldfile', lambda f: f['fold_0/matrix_inputs'].__setitem__(
    (slice(3, 6), 1), f['fold_0/matrix_inputs'][3:6, 0]))
variant('noise_dense', 'perfile', setting('E', (3, 0, 9, 9, 9), -.5))


# Tables, in the ways in which people's programs keep them.
hits = dict(event=np.array([10, 10, 30], 'i8'), iz=np.array([0, 1, 7], 'i4'),
            ix=np.array([16, 16, 8], 'i4'), iy=np.array([16, 16, 9], 'i4'),
            energy=np.array([.03125, 1.25, .1]))
nan3 = np.array([1, nan, 2])
truth = dict(event=np.array([10, 20, 30], 'i8'), energy=np.array([100., 200, 300]), x=nan3, y=nan3,
             charge=np.array([1, -1, nan]))


def attributes(f, unit='GeV'):
    f.attrs.update(energy_unit=unit, shape=(50, 32, 32), pitch_mm=(40.64, 3.75, 3.75),
                   origin_mm=(0., -60., -60.), field_T=2.)


def records(f, name, columns):
    kind = [('index', 'i8')] + [(k, v.dtype) for k, v in columns.items()]
    data = np.zeros(len(next(iter(columns.values()))), kind)
    for k, v in columns.items():
        data[k] = v
    f[name] = data


def groups(f, name, columns):
    for k, v in columns.items():
        f[name + '/' + k] = v


def ntuple(f, name, columns):
    """As g4tools' hdf5/ntuple and hdf5/pages do."""
    group = f.create_group(name)
    group['columns'], group['names'], group['forms'] = '5', 'a b', 'int double'
    for k, v in columns.items():
        column = group.create_group(k)
        column.attrs.update({'class': np.bytes_('tools::hdf5::pages'), 'version': np.int32(1)})
        if len(v):
            column.create_dataset('pages', data=v, maxshape=(None,), chunks=(len(v),))
        column['entries'] = np.uint64(len(v))
    group['entries'] = np.uint64(len(v))


def blocks(f, name, columns):
    """As pandas' fixed format."""
    kinds = sorted({v.dtype for v in columns.values()}, key=str)
    for i, kind in enumerate(kinds):
        names = [k for k, v in columns.items() if v.dtype == kind]
        f['%s/block%d_items' % (name, i)] = np.array(names, 'S')
        values = '%s/block%d_values' % (name, i)
        f[values] = np.stack([columns[k] for k in names], 1)
        f[values].attrs['transposed'] = True


def rows(name, hits=hits, truth=truth, way=records, paths=('hits', 'truth'), unit='GeV', more=None):
    with h5py.File(name + '.h5', 'w') as f:
        attributes(f, unit)
        way(f, paths[0], hits)
        if truth:
            way(f, paths[1], truth)
        if more:
            more(f)


def changed(columns, **values):
    return {k: np.asarray(values.get(k, v)) for k, v in columns.items()}


def renamed(columns, **names):
    return {names.get(k, k): v for k, v in columns.items()}


rows('table_records')
rows('table_pandas', paths=('hits/table', 'truth/table'))
rows('table_groups', way=groups)
rows('table_blocks', way=blocks)
rows('table_ntuple', way=ntuple, paths=('default_ntuples/hits', 'default_ntuples/truth'))
rows('table_order', hits={k: v[[2, 0, 1]] for k, v in hits.items()},
     truth={k: v[::-1] for k, v in truth.items()})
rows('table_floats', hits=changed(hits, **{k: hits[k].astype('f4') for k in hits if k != 'energy'}))
rows('table_mev', hits=changed(hits, energy=hits['energy'] * 1024), unit='MeV')
rows('table_names', hits=renamed(hits, event='EventID', energy='Edep'),
     truth=renamed(truth, energy='E0', event='EventID'), paths=('run/steps', 'run/primaries'))
rows('table_less', truth={k: v for k, v in truth.items() if k not in ('x', 'y', 'charge')})
rows('table_alone', truth=None, more=lambda f: f.create_group('muons'))
rows('table_twice', hits=changed(hits, iz=[0, 0, 7]))
rows('table_noise', hits=changed(hits, energy=[.03125, -1.25, .1]))
none = {k: v[:0] for k, v in hits.items()}
for name, way in (('records', records), ('groups', groups), ('ntuple', ntuple)):
    rows('table_none_' + name, hits=none, truth={k: v[:0] for k, v in truth.items()}, way=way)

bad = open('bad_tables.txt', 'w')


def wrong_rows(name, text, **options):
    rows('bad_table_' + name, **options)
    bad.write('bad_table_%s.h5|%s\n' % (name, text))


wrong_rows('twice', "/hits row 1: event 10 has cell 0,16,16 (iz,ix,iy) twice: it was there in row",
           hits=changed(hits, iz=[0, 0, 7]))
wrong_rows('event', "/hits row 2: event 31 is not in /truth, which has 3",
           hits=changed(hits, event=[10, 10, 31]))
wrong_rows('truth_twice', "/truth row 1: event 10 was there before, in row 0",
           truth=changed(truth, event=[10, 10, 30]))
wrong_rows('truth_energy', "/truth row 0: 'energy' is 0, but must be above 0",
           truth=changed(truth, energy=[0., 1, 2]))
wrong_rows('truth_charge', "/truth row 2: 'charge' is 2, but",
           truth=changed(truth, charge=[1, 1, 2]))
wrong_rows('iz', "/hits iz (3,): row 2: 'iz' is 50, but must be a whole number from 0 to 49",
           hits=changed(hits, iz=[0, 1, 50]))
wrong_rows('half', "row 1: 'ix' is 0.5", hits=changed(hits, ix=[0, .5, 1]))
wrong_rows('negative', "row 0: the energy is negative: -1; --negative zero",
           hits=changed(hits, energy=[-1., 1, 1]))
wrong_rows('nan', "row 0: the energy is nan", hits=changed(hits, energy=[nan, 1, 1]))
wrong_rows('no_column', "/hits has no column 'energy'; --hits-columns energy=NAME",
           hits=renamed(hits, energy='Edep'))
wrong_rows('no_truth', "/truth has no column 'energy'; --truth-columns energy=NAME says which",
           truth=renamed(truth, energy='E0'))
wrong_rows('lengths', "/hits/energy (2,): must have 3 rows", way=groups,
           hits=changed(hits, energy=[1., 2]))
wrong_rows('packed', "pandas has put its columns together; write it with to_hdf(",
           hits=dict(event=hits['event'], values_block_0=hits['iz']))
wrong_rows('float32', "'event' is 16777216, which float32 does not tell from its neighbours",
           hits=changed(hits, event=np.array([10, 10, 1 << 24], 'f4')),
           truth=changed(truth, event=[10, 20, 1 << 24]))
wrong_rows('narrow', "its type uint8 cannot count the events of truth up to 300",
           hits=changed(hits, event=np.array([10, 10, 44], 'u1')),
           truth=changed(truth, event=[10, 20, 300]))
wrong_rows('wrapped', "row 1: 'event' is 255, the largest that uint8 holds",
           hits=changed(hits, event=np.array([254, 255, 0], 'u1')), truth=None)
wrong_rows('narrow_cell', "its type int8 cannot count the cells up to 255",
           hits=changed(hits, ix=np.array([1, 2, 3], 'i1')),
           more=lambda f: f.attrs.__setitem__('shape', (50, 256, 32)))
wrong_rows('killed', "/default_ntuples/hits/iy has no entries: was GEANT4 killed", way=ntuple,
           paths=('default_ntuples/hits', 'default_ntuples/truth'),
           more=lambda f: f.__delitem__('default_ntuples/hits/iy/entries'))
wrong_rows('no_entries', "/default_ntuples/hits/iy (): must have 3 rows, as the columns before it",
           way=ntuple, paths=('default_ntuples/hits', 'default_ntuples/truth'),
           more=lambda f: f['default_ntuples/hits/iy/entries'].__setitem__((), 0))
wrong_rows('entries', "/default_ntuples/hits/iy/pages (3,): must be (4,), as entries says",
           way=ntuple, paths=('default_ntuples/hits', 'default_ntuples/truth'),
           more=lambda f: f['default_ntuples/hits/iy/entries'].__setitem__((), 4))
wrong_rows('text', "/hits energy holds no numbers", hits=changed(hits, energy=np.array(3 * [b'1'])))
wrong_rows('plain', "/truth is no table (records, or a group of columns)",
           way=lambda f, name, columns: f.__setitem__(name, [1, 2]))
wrong_rows('unit', "does not say its energy unit",
           more=lambda f: f.attrs.__delitem__('energy_unit'))
wrong_rows('geometry', "no attribute shape; give --geometry",
           more=lambda f: f.attrs.__delitem__('shape'))
bad.close()
END
if "$PYTHON" variants.py >out 2>err; then pass; else fail "variants.py"; fi

for file in same_*.h5; do
    name=${file%.h5}
    layout=${name#same_}
    layout=${layout%%_*}
    check "$name" 0 "layout $layout, 10 muons" "$IMPORT" "$file" --out "$name.cmu"
    same "$name" "$name.cmu" "cut_$layout.cmu"
done
check "LZF by hand" 0 "10 muons" "$IMPORT" lzf.h5 --out a.cmu
check "LZF by hand: export" 0 "" "$PROGRAM" export a.cmu --truth truth.csv
if [ "$(grep -c ',1,,,$' truth.csv)" -eq 10 ]; then pass; else fail "LZF by hand: ten ones"; fi
check "MeV" 0 "hits in MeV, true energies in GeV" "$IMPORT" mev.h5 --out mev.cmu
check "MeV: export" 0 "" "$PROGRAM" export mev.cmu --hits hits.csv --truth truth.csv
sed '1d; s/.*,//' hits.csv >a.csv
same "MeV: hits" a.csv mev.csv
same "MeV: truth" truth.csv "$DATA/cut_geant4_truth.csv"
refused "no unit" "give --energy-unit" unsaid.h5
check "unit by option" 0 "hits in MeV" "$IMPORT" unsaid.h5 --out a.cmu --energy-unit MeV
same "unit by option" a.cmu mev.cmu
check "no truth" 0 "no e_true: absent" "$IMPORT" no_truth.h5 --out a.cmu
check "no truth: export" 0 "" "$PROGRAM" export a.cmu --truth truth.csv
if [ "$(grep -c ',,,,$' truth.csv)" -eq 10 ]; then pass; else fail "no truth: empty fields"; fi
check "no pitch" 3 "no attribute pitch_mm; give --geometry" "$IMPORT" no_geometry.h5 --out b.cmu
check "pitch by option" 0 "10 muons" "$IMPORT" no_geometry.h5 --out a.cmu \
    --geometry 50,32,32,40.64,3.75,3.75,0,-60,-60,2
same "pitch by option" a.cmu cut_geant4.cmu
check "no muons" 0 "0 muons" "$IMPORT" none.h5 --out a.cmu
check "no muons: info" 0 "" "$PROGRAM" info a.cmu

cat bad.txt bad_tables.txt >all.txt
while IFS='|' read -r file text; do
    refused "${file%.h5}" "$text" "$file"
done <all.txt

check "float32 attributes" 0 "10 muons" "$IMPORT" float32.h5 --out a.cmu \
    --geometry 50,32,32,40.64,3.75,3.75,0,-60,-60,2
same "float32 attributes are --geometry's" a.cmu cut_geant4.cmu
check "float32 attributes beside doubles" 0 "20 muons" \
    "$IMPORT" cut_geant4.h5 float32.h5 --out a.cmu
check "float32 attributes: the doubles are kept" 0 "40.64 x 3.75" "$PROGRAM" info a.cmu
check "another geometry, named" 2 "pitch" "$IMPORT" cut_geant4.h5 --out b.cmu \
    --geometry 50,32,32,40.65,3.75,3.75,0,-60,-60,2

# ------------------------------------------------------------------ several rows of a cell, noise

rm -f b.cmu
check "hits of a cell" 3 "twice: hits 0 and 1; --sum adds" "$IMPORT" twice.h5 --out b.cmu
check "hits of a cell added" 0 "5749 hits" "$IMPORT" twice.h5 --out a.cmu --sum
cell=$("$PROGRAM" export cut_geant4.cmu --hits - | sed -n '2s/,[^,]*$//p')
check "hits of a cell: the sum" 0 "$cell,0.75" "$PROGRAM" export a.cmu --hits -
check "--sum of none" 0 "5750 hits" "$IMPORT" cut_geant4.h5 --out a.cmu --sum
same "--sum of none changes nothing" a.cmu cut_geant4.cmu
check "hits of a cell in a fold" 3 "--sum adds" "$IMPORT" twice_fold.h5 --out b.cmu
check "hits of a cell in a fold added" 0 "10 muons" "$IMPORT" twice_fold.h5 --out a.cmu --sum
for file in noise noise_dense; do
    check "$file" 3 "; --negative zero makes it 0" "$IMPORT" $file.h5 --out b.cmu
    check "$file: zero" 0 "10 muons" "$IMPORT" $file.h5 --out a.cmu --negative zero
done
check "noise: 0 is there" 0 ",9,9,9,0" "$PROGRAM" export a.cmu --hits -
absent "nothing is written" b.cmu

# ------------------------------------------------------------------ files in use, hosts as they are

# A program that has the file open for writing; file systems without locks; killed writers.
cat >writer.py <<'END'
import os
import signal
import sys
import h5py

mode = sys.argv[1]
if mode == 'open':
    with h5py.File(sys.argv[2], 'r+') as f:
        f.attrs['busy'] = 1
        print('open', flush=True)
        sys.stdin.read()
    sys.exit()
if os.fork():
    os.wait()
    sys.exit()
latest = {} if mode == 'old' else {'libver': 'latest'}
with h5py.File('cut_geant4.h5', 'r') as f:
    g = h5py.File(sys.argv[2], 'w', **latest)
    for k in f:
        g.create_dataset(k, data=f[k][()], chunks=True, maxshape=(None,))
    g.attrs.update(f.attrs)
    if mode == 'swmr':
        g.swmr_mode = True
    if mode != 'early':
        g.flush()
os.kill(os.getpid(), signal.SIGKILL)
END
cp cut_geant4.h5 open.h5
mkfifo go ready
"$PYTHON" writer.py open open.h5 <go >ready &
exec 3>go
read -r open_line <ready
check "open for writing elsewhere" 4 "open.h5: another program has it open for writing (libhdf5: " \
    "$IMPORT" open.h5 --out c.cmu
exec 3>&-
wait
check "closed there" 0 "10 muons" "$IMPORT" open.h5 --out a.cmu
same "closed there: the same muons" a.cmu cut_geant4.cmu

# flock that fails as on shared file systems: 37 no locks, 95 not supported; 11 is another's lock.
# Reading that fails behind a byte, as of a disk or a server that goes away.
cat >nolock.c <<'END'
#include <errno.h>
#include <stdlib.h>
#include <sys/types.h>
#include <sys/uio.h>
int flock(int fd, int how);
ssize_t pread(int fd, void *to, size_t n, off_t at);
ssize_t pread64(int fd, void *to, size_t n, off_t at);

ssize_t pread(int fd, void *to, size_t n, off_t at)
{
    struct iovec part = { to, n };
    const char *error = getenv("NOREAD");
    if (error && at + (off_t)n > 9000) {
        errno = atoi(error);
        return -1;
    }
    return preadv(fd, &part, 1, at);
}

ssize_t pread64(int fd, void *to, size_t n, off_t at) { return pread(fd, to, n, at); }

int flock(int fd, int how)
{
    const char *error = getenv("NOLOCK");
    (void)fd;
    (void)how;
    if (!error) return 0;
    errno = atoi(error);
    return -1;
}
END
if [ "$(uname)" = Linux ] && ! nm "$IMPORT" | grep -q __asan_init &&
    ${CC:-cc} -shared -fPIC -o nolock.so nolock.c 2>err; then
    for error in 37 95; do
        check "no locks here ($error)" 0 "read without a lock (libhdf5: unable to lock file, " \
            env NOLOCK=$error LD_PRELOAD="$TMP/nolock.so" "$IMPORT" cut_geant4.h5 --out a.cmu
        same "no locks here ($error): the same muons" a.cmu cut_geant4.cmu
        if [ "$(grep -c 'without a lock' err)" -eq 1 ]; then pass; else fail "said once"; fi
    done
    check "a disk that fails" 4 "cut_geant4.h5: cannot read: Input/output error" \
        env NOREAD=5 LD_PRELOAD="$TMP/nolock.so" "$IMPORT" cut_geant4.h5 --out c.cmu
    absent "a disk that fails: no file" c.cmu
    check "no memory to read" 5 "no memory" \
        env NOREAD=12 LD_PRELOAD="$TMP/nolock.so" "$IMPORT" cut_geant4.h5 --out c.cmu
    check "a lock of another" 4 "another program has it open for writing" \
        env NOLOCK=11 LD_PRELOAD="$TMP/nolock.so" "$IMPORT" cut_geant4.h5 --out c.cmu
else
    skip "file systems without locks: nothing to pretend them with"
fi

for mode in new swmr early; do
    "$PYTHON" writer.py $mode killed.h5
    refused "killed writer ($mode)" "h5clear -s COPY" killed.h5
    if ! command -v h5clear >/dev/null; then
        skip "the way out of killed writers: no h5clear"
        break
    fi
    h5clear -s killed.h5
    if [ $mode = early ]; then
        refused "killed before it wrote" "killed.h5: " killed.h5
    else
        check "killed writer ($mode): the way out" 0 "10 muons" "$IMPORT" killed.h5 --out a.cmu
        same "killed writer ($mode): the same muons" a.cmu cut_geant4.cmu
    fi
done
"$PYTHON" writer.py old killed.h5
check "killed writer (old)" 0 "10 muons" "$IMPORT" killed.h5 --out a.cmu
same "killed writer (old): the same muons" a.cmu cut_geant4.cmu

# ------------------------------------------------------------------ ways out that messages name

PLAIN=$TOOLS/h5_plain.py
for file in link link_truth external virtual; do
    check "way out: $file" 0 "" "$PYTHON" "$PLAIN" bad_$file.h5 plain.h5
    check "way out: $file: read" 0 "10 muons" "$IMPORT" plain.h5 --out a.cmu
    same "way out: $file: the same muons" a.cmu cut_geant4.cmu
done
if "$PYTHON" "$PLAIN" bad_link.h5 ./bad_link.h5 2>err; then fail "way out: onto itself"
else pass; fi
mkdir elsewhere
cp bad_link.h5 bad_external.h5 bad_virtual.h5 elsewhere
for file in link external virtual; do
    rm -f plain.h5
    (cd elsewhere && "$PYTHON" "$PLAIN" bad_$file.h5 ../plain.h5) >out 2>err
    if [ $? -ne 0 ] && grep -q h5_plain err; then pass
    else fail "way out: $file without its file"; fi
    absent "way out: $file: no file" plain.h5 plain.h5.part
done
refused "newer than this library" "the file is newer than this libhdf5" "$DATA/tables/hdf5_2.h5"
if "$PYTHON" -c 'import h5py, sys; h5py.File(sys.argv[1], "r")["cell"][:]' \
    "$DATA/tables/hdf5_2.h5" 2>/dev/null; then
    check "way out: newer" 0 "" "$PYTHON" "$PLAIN" "$DATA/tables/hdf5_2.h5" plain.h5
    check "way out: newer: read" 0 "3 muons, 3 hits" "$IMPORT" plain.h5 --out a.cmu
else
    skip "the way out of a file that is newer: no newer h5py"
fi
refused "packed with another filter" "packed with filter 32001 (Blosc), which" bad_blosc.h5

# ------------------------------------------------------------------ what tools/import.md shows

sed -n '/^```python/,/^```/p' "$TOOLS/import.md" >code.txt
awk '/^```python/ { n++; next } /^```/ { next } { print > ("shown" n ".py") }' code.txt
sed -n '/^```sh/,/^```/p' "$TOOLS/import.md" | grep '^calomu-import-h5' >commands.txt
for n in 1 2 3 4; do
    check "import.md: code $n" 0 "" "$PYTHON" shown$n.py
    command=$(sed -n ${n}p commands.txt)
    check "import.md: $command" 0 "3 muons, 3 hits" "$IMPORT" ${command#calomu-import-h5 }
    check "import.md: code $n: hits" 0 "" \
        "$PROGRAM" export "${command##* }" --hits hits.csv --truth t.csv
    sed 1d hits.csv >h.csv
    printf '0,0,16,16,0.03125\n0,1,16,16,1.25\n2,7,8,9,0.100000001\n' >right.csv
    same "import.md: code $n: the same hits" h.csv right.csv
    if cut -d, -f2 t.csv | tr '\n' ' ' | grep -qx 'energy 1000 60 50.5 '; then pass
    else fail "import.md: code $n: truth"; fi
done
if [ "$(wc -l <commands.txt)" -eq 4 ]; then pass; else fail "import.md: four commands"; fi
check "help: the layouts" 0 "matrix_inputs (6,hits)" "$IMPORT" --help

# ------------------------------------------------------------------ tables

# rows WHAT FILE OPTION...: the hits and the truth of variants.py
printf '0,0,16,16,0.03125\n0,1,16,16,1.25\n2,7,8,9,0.100000001\n' >hits_right.csv
printf '0,100,1,1,1\n1,200,,,-1\n2,300,2,2,\n' >truth_right.csv
rows()
{
    rows_what=$1
    shift
    check "$rows_what" 0 "layout table, 3 muons" "$IMPORT" "$@" --out a.cmu
    holds "$rows_what: numbers" err "muon 0 is event 10, muon 2 event 30"
    check "$rows_what: export" 0 "" "$PROGRAM" export a.cmu --hits hits.csv --truth truth.csv
    sed -i 1d hits.csv truth.csv
    same "$rows_what: hits" hits.csv hits_right.csv
    same "$rows_what: truth" truth.csv truth_right.csv
}
for file in records pandas groups blocks ntuple order floats; do
    rows "table: $file" table_$file.h5
done
G="--energy-unit GeV --geometry 50,32,32,40.64,3.75,3.75"
rows "pandas 3.1: to_hdf" "$DATA/tables/pandas_fixed.h5" $G
rows "R: rhdf5 2.42" "$DATA/tables/rhdf5.h5" $G
rows "R: hdf5r 1.3" "$DATA/tables/hdf5r.h5" --geometry 50,32,32,40.64,3.75,3.75
rows "table: other places and names" table_names.h5 --hits /run/steps --truth run/primaries \
    --hits-columns event=EventID,energy=Edep --truth-columns event=EventID,energy=E0
check "table: no such place" 2 "no table /run1 in it" \
    "$IMPORT" table_names.h5 --hits run1 --out b.cmu
check "table: MeV" 0 "hits in MeV" "$IMPORT" table_mev.h5 --out a.cmu
check "table: MeV: export" 0 "0,0,16,16,0.0320000015" "$PROGRAM" export a.cmu --hits -
check "table: truth that there is not" 3 "--truth-columns x=NAME says which it is, - that there" \
    "$IMPORT" table_less.h5 --out b.cmu
check "table: truth that there is not, said" 0 "3 muons" "$IMPORT" table_less.h5 --out a.cmu \
    --truth-columns x=-,y=-,charge=-
check "table: truth that there is not: export" 0 "1,200,,," "$PROGRAM" export a.cmu --truth -
check "table: an event cannot lack" 2 "'event' must be there" "$IMPORT" table_less.h5 --out b.cmu \
    --truth-columns event=-
check "table: no truth" 0 "no table /truth: absent in the data file; it holds: hits, muons" \
    "$IMPORT" table_alone.h5 --out a.cmu
holds "table: no truth: gaps are said" err "29 of the events 0 to 30 have no hits"
check "table: no truth, gaps left out" 0 "2 muons, 3 hits" "$IMPORT" table_alone.h5 --out a.cmu \
    --gaps skip
check "table: --sum" 0 "3 muons, 2 hits" "$IMPORT" table_twice.h5 --out a.cmu --sum
check "table: --sum: export" 0 "0,0,16,16,1.28125" "$PROGRAM" export a.cmu --hits -
check "table: --negative zero" 0 "3 hits" "$IMPORT" table_noise.h5 --out a.cmu --negative zero
check "table: muons 1 and 2" 0 "2 muons, 1 hits" "$IMPORT" table_records.h5 --out a.cmu --first 1
check "table: no charge" 0 "no charge: absent" "$IMPORT" table_records.h5 --out a.cmu --no-charge
check "table: no charge: export" 0 "0,100,1,1," "$PROGRAM" export a.cmu --truth -
check "table: two files" 0 "6 muons, 6 hits" "$IMPORT" table_records.h5 table_blocks.h5 --out a.cmu
for way in records groups; do
    check "table: no rows: $way" 0 "0 muons" "$IMPORT" table_none_$way.h5 --out a.cmu
done
check "table: no rows: ntuple" 0 "0 muons" "$IMPORT" table_none_ntuple.h5 --out a.cmu
absent "nothing is written" b.cmu

cli_end
