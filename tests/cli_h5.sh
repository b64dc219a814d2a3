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
    if [ "$(grep -vc ': layout \|features standardised\|: absent in' err)" -eq 1 ]; then pass
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
wrong('cell_float', 'geant4', "/cell holds no whole numbers",
      putting('cell', lambda d: d.astype('f4')))
wrong('cell_text', 'geant4', "/cell holds no whole numbers", putting('cell', lambda d: 'none'))
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
wrong('link', 'geant4', "no dataset /cell", lambda f: [
    f.__delitem__('cell'), f.__setitem__('cell', h5py.ExternalLink('cut_geant4.h5', '/cell'))])
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

while IFS='|' read -r file text; do
    refused "${file%.h5}" "$text" "$file"
done <bad.txt

cli_end
