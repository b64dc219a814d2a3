"""Geometry, sets of muons in memory and in .cmu files, features."""
import ctypes as C
import math

import numpy as np

from . import _library as L
from ._library import FEATURES, LOSSES, FormatError, UsageError, context, lib

HIT = np.dtype([("cell", np.uint32), ("energy", np.float32)])
EVENT = np.dtype([("hits", np.uintp), ("n_hits", np.uintp), ("x", np.float32), ("y", np.float32),
                  ("energy", np.float32), ("charge", np.float32), ("features", np.uintp),
                  ("losses", np.uintp)])
UNITS = {"GeV": 1.0, "MeV": 1e-3, "keV": 1e-6, "TeV": 1e3}
LENGTHS = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
CONVENTIONS = ("text", "authors")
FEATURE_NAMES = tuple(lib.feature_name(i).decode() for i in range(FEATURES))
LOSS_NAMES = ("lost", "deposited", "leaked", "unseen")


def unit_factor(unit, table, what):
    if unit not in table:
        raise UsageError(f"{what}: {unit!r} is none of {', '.join(table)}")
    return table[unit]


class Geometry:
    """A cuboid of nz x nx x ny cells.

    Cell (iz, ix, iy) has index (iz*nx + ix)*ny + iy.  pitch, origin: (3,) mm along z, x, y, origin
    the low corner (None: front face z = 0, centred in x and y); field: T along +y.  Without
    arguments: the paper's calorimeter.
    """

    def __init__(self, cells=None, pitch=None, origin=None, field=None):
        g = lib.geometry_default()
        if (cells is None) != (pitch is None):
            raise UsageError("a geometry needs cells and pitch, or neither")
        if cells is not None:
            if len(cells) != 3 or len(pitch) != 3:
                raise UsageError("cells and pitch are 3 numbers each, along z, x, y")
            g.nz, g.nx, g.ny = (L.check_whole("cells", n, 1, 1 << 24) for n in cells)
            g.pitch[:] = [float(p) for p in pitch]
            g.origin[:] = [0, -g.nx * g.pitch[1] / 2, -g.ny * g.pitch[2] / 2]
        if origin is not None:
            g.origin[:] = [float(o) for o in origin]
        if field is not None:
            g.field = float(field)
        context(1).call("geometry_check", C.byref(g))
        self._struct = g

    @classmethod
    def _of(cls, struct):
        self = cls.__new__(cls)
        self._struct = L.Geometry_.from_buffer_copy(struct)
        return self

    @classmethod
    def parse(cls, text):
        """Of the text that the program's --geometry takes: nz,nx,ny,pz,px,py[,z0,x0,y0[,B]]."""
        try:
            x = [float(t) for t in text.split(",")]
        except ValueError:
            x = []
        if len(x) not in (6, 9, 10) or any(n != math.floor(n) for n in x[:3] if math.isfinite(n)) \
                or not all(map(math.isfinite, x)):
            raise UsageError(f"geometry {text!r}: must be 6, 9 or 10 numbers "
                             "nz,nx,ny,pz,px,py[,z0,x0,y0[,B]]")
        return cls([int(n) for n in x[:3]], x[3:6], x[6:9] or None, x[9] if len(x) == 10 else None)

    cells = property(lambda s: (s._struct.nz, s._struct.nx, s._struct.ny))
    pitch = property(lambda s: tuple(s._struct.pitch))
    origin = property(lambda s: tuple(s._struct.origin))
    field = property(lambda s: s._struct.field)
    n_cells = property(lambda s: s._struct.nz * s._struct.nx * s._struct.ny)

    def __eq__(self, other):
        """By calomu_geometry_compare."""
        if not isinstance(other, Geometry):
            return NotImplemented
        try:
            context(1).call("geometry_compare", C.byref(self._struct), C.byref(other._struct))
        except FormatError:
            return False
        return True

    __hash__ = None

    def __repr__(self):
        return (f"Geometry(cells={self.cells}, pitch={self.pitch}, origin={self.origin}, "
                f"field={self.field})")

    def index(self, iz, ix, iy):
        """Cell indices, uint32, of integer arrays of one shape; UsageError outside."""
        at = []
        for name, i, n in zip(("iz", "ix", "iy"), (iz, ix, iy), self.cells):
            i = np.asarray(i)
            if i.dtype.kind not in "iu":
                raise UsageError(f"{name}: type {i.dtype}, must be whole numbers")
            if i.size and (i.min() < 0 or i.max() >= n):
                raise UsageError(f"{name}: from {i.min()} to {i.max()}, must be from 0 to {n - 1}")
            at.append(i.astype(np.int64))
        return ((at[0] * self.cells[1] + at[1]) * self.cells[2] + at[2]).astype(np.uint32)

    def split(self, cell):
        """(iz, ix, iy) of cell indices, int64 each."""
        cell = np.asarray(cell).astype(np.int64)
        rest, iy = np.divmod(cell, self.cells[2])
        iz, ix = np.divmod(rest, self.cells[1])
        return iz, ix, iy


def _column(name, values, shape, required=False):
    """float32 in C order; None: absent (NaN) or, with required, refused."""
    if values is None:
        return np.full(shape, np.nan, np.float32)
    a = np.asarray(values)
    if a.dtype.kind not in "fiu":
        raise UsageError(f"{name}: type {a.dtype}, must be numbers")
    if a.shape != shape:
        raise UsageError(f"{name}: shape {a.shape}, must be {shape}")
    return np.ascontiguousarray(a, np.float32)


class Muons:
    """Muons in memory.

    hits: (hits of all muons,) of the type HIT (cell uint32, energy float32 in GeV); muon i has
    hits[offsets[i]:offsets[i+1]].  x, y (mm), energy (GeV), charge: (n,) float32, NaN where absent.
    features: (n, 28) float32 or None; losses: (n, 4) float32 GeV or None (LOSS_NAMES).

    m[3] is a muon, m[2:7], m[[5, 1]] and m[mask] are sets.  What comes from a file shares the
    library's memory, read-only, which lives as long as an array on it.
    """

    def __init__(self, hits, offsets, *, x=None, y=None, energy=None, charge=None, features=None,
                 losses=None, geometry=None, convention="text", grow=None):
        hits, offsets = np.asarray(hits), np.asarray(offsets)
        if hits.dtype != HIT or hits.ndim != 1:
            raise UsageError(f"hits: type {hits.dtype}, shape {hits.shape}; must be one-dimensional "
                             "of calomu.HIT: Muons.from_arrays makes them of cells and energies")
        if offsets.ndim != 1 or offsets.size < 1 or offsets.dtype.kind not in "iu":
            raise UsageError("offsets: must be whole numbers, one more than there are muons")
        offsets = offsets.astype(np.int64)
        if offsets[0] != 0 or offsets[-1] != len(hits) or (np.diff(offsets) < 0).any():
            raise UsageError(f"offsets: must rise from 0 to the number of hits, {len(hits)}; they "
                             f"go from {offsets[0]} to {offsets[-1]}")
        n = len(offsets) - 1
        self.geometry = geometry if geometry is not None else Geometry()
        if not isinstance(self.geometry, Geometry):
            raise UsageError(f"geometry: {geometry!r} is no calomu.Geometry")
        self.hits, self.offsets = np.ascontiguousarray(hits), offsets
        for name, v in (("x", x), ("y", y), ("energy", energy), ("charge", charge)):
            setattr(self, name, _column(name, v, (n,)))
        self.features = None if features is None else _column("features", features, (n, FEATURES))
        self.losses = None if losses is None else _column("losses", losses, (n, LOSSES))
        info = L.DataInfo(geometry=self.geometry._struct, features=int(features is not None),
                          feature_options=feature_options(convention, grow),
                          losses=int(losses is not None))
        self._info, self._keep = info, None

    @classmethod
    def from_arrays(cls, cell, hit_energy, counts, *, unit, **truth):
        """Of flat arrays: cell (whole numbers), hit_energy (in `unit`: GeV, MeV, keV, TeV), one
        each per hit, and counts, hits per muon; truth: as Muons, its energy in GeV."""
        factor = unit_factor(unit, UNITS, "unit")
        cell, e, counts = np.asarray(cell), np.asarray(hit_energy), np.asarray(counts)
        for name, a, kinds in (("cell", cell, "iu"), ("hit_energy", e, "fiu"),
                               ("counts", counts, "iu")):
            if a.ndim != 1 or (a.size and a.dtype.kind not in kinds):
                raise UsageError(f"{name}: type {a.dtype}, shape {a.shape}; must be one-dimensional "
                                 + ("numbers" if "f" in kinds else "whole numbers"))
        if len(cell) != len(e):
            raise UsageError(f"{len(cell)} cells and {len(e)} energies: one each per hit")
        if counts.size and counts.min() < 0 or counts.sum() != len(cell):
            raise UsageError(f"counts: sum {counts.sum()} of hits per muon, but {len(cell)} hits")
        geometry = truth.get("geometry") or Geometry()
        if cell.size and (cell.min() < 0 or cell.max() >= geometry.n_cells):
            raise UsageError(f"cell: from {cell.min()} to {cell.max()}, must be from 0 to "
                             f"{geometry.n_cells - 1}")
        if e.size and not (np.isfinite(e).all() and e.min() >= 0):
            raise UsageError("hit_energy: must be finite and not negative")
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        hits = np.empty(len(cell), HIT)
        hits["cell"], hits["energy"] = cell, e.astype(np.float64) * factor
        owner = np.repeat(np.arange(len(counts)), counts)
        order = np.lexsort((hits["cell"], owner))        # files want rising cells
        return cls(hits[order], offsets, **truth)

    @classmethod
    def _of_events(cls, events, info, keep):
        """Views of a batch of the library: nothing is copied."""
        self = cls.__new__(cls)
        n = events.n
        table = _view(events.event, n, EVENT, keep)
        self.offsets = np.concatenate([[0], np.cumsum(table["n_hits"])]).astype(np.int64)
        first = table["hits"][table["n_hits"] > 0]
        self.hits = _view(first[0] if len(first) else None, int(self.offsets[-1]), HIT, keep)
        for name in ("x", "y", "energy", "charge"):
            setattr(self, name, table[name])
        self.features = _rows(table["features"], FEATURES, n, keep) if info.features else None
        self.losses = _rows(table["losses"], LOSSES, n, keep) if info.losses else None
        self.geometry = Geometry._of(info.geometry)
        self._info, self._keep = L.DataInfo.from_buffer_copy(info), keep
        return self

    convention = property(lambda s: CONVENTIONS[s._info.feature_options.convention])
    counts = property(lambda s: np.diff(s.offsets), doc="(n,) int64: hits of each muon")
    shape = property(lambda s: (len(s),))

    def __len__(self):
        return len(self.offsets) - 1

    def __getitem__(self, what):
        if isinstance(what, (int, np.integer)):
            if not -len(self) <= what < len(self):
                raise IndexError(f"muon {what} of {len(self)}")
            return Muon(self, int(what) % len(self))
        if isinstance(what, slice) and what.step in (None, 1):
            lo, hi, _ = what.indices(len(self))
            hi = max(lo, hi)
            hits = self.hits[self.offsets[lo]:self.offsets[hi]]
            return self._part(slice(lo, hi), hits, self.offsets[lo:hi + 1] - self.offsets[lo])
        rows = np.arange(len(self))[what]
        counts = self.counts[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], counts)
        return self._part(rows, self.hits[at], offsets)

    def _part(self, rows, hits, offsets):
        part = Muons.__new__(Muons)
        part.__dict__.update(self.__dict__)
        part.hits, part.offsets = hits, offsets
        for name in ("x", "y", "energy", "charge", "features", "losses"):
            v = getattr(self, name)
            setattr(part, name, None if v is None else v[rows])
        return part

    def _events(self):
        """The table of calomu_event, and what must live as long as it."""
        n, table = len(self), np.zeros(len(self), EVENT)
        hits = np.ascontiguousarray(self.hits)
        table["n_hits"] = self.counts
        table["hits"] = hits.ctypes.data + 8 * self.offsets[:-1]
        keep = [hits]
        for name in ("x", "y", "energy", "charge"):
            table[name] = getattr(self, name)
        for name, width in (("features", FEATURES), ("losses", LOSSES)):
            v = getattr(self, name)
            if v is not None:
                v = _column(name, v, (n, width))
                table[name] = v.ctypes.data + 4 * width * np.arange(n)
                keep.append(v)
        return table, keep

    def __repr__(self):
        return f"<calomu.Muons: {len(self)} muons, {len(self.hits)} hits>"


class _Block:
    """Memory of the library as numpy's array interface; keeps its owner."""

    def __init__(self, address, n, dtype, keep, shape=None, strides=None):
        self.keep = keep
        self.__array_interface__ = {"version": 3, "data": (int(address), True), "strides": strides,
                                    "shape": shape or (n,), "typestr": dtype.str,
                                    "descr": dtype.descr}


def _view(address, n, dtype, keep):
    return np.asarray(_Block(address, n, dtype, keep)) if n and address else np.empty(0, dtype)


def _rows(addresses, width, n, keep):
    """Rows of floats that lie at even distances, as the library's batches do; else a copy."""
    if n == 0:
        return np.empty((0, width), np.float32)
    step = np.diff(addresses.astype(np.int64))
    if n > 1 and (step != step[0]).any():
        return np.stack([_view(a, width, np.dtype(np.float32), keep) for a in addresses])
    return np.asarray(_Block(addresses[0], n, np.dtype(np.float32), keep, (n, width),
                             (int(step[0]) if n > 1 else 4 * width, 4)))


class Muon:
    """One muon of a set: hits, x, y, energy, charge; draws itself in a notebook."""

    def __init__(self, muons, number):
        self.number, self.geometry = number, muons.geometry
        self.hits = muons.hits[muons.offsets[number]:muons.offsets[number + 1]]
        for name in ("x", "y", "energy", "charge", "features", "losses"):
            v = getattr(muons, name)
            setattr(self, name, None if v is None else v[number])

    def __repr__(self):
        return f"<calomu.Muon: {len(self.hits)} hits, {self.hits['energy'].sum():.4g} GeV in cells>"

    def plot(self, axes=None):
        """Energy summed along y and along x, log color; axes: two of matplotlib, or None."""
        import matplotlib.colors
        if axes is None:
            from matplotlib.figure import Figure
            axes = Figure(figsize=(9, 5), layout="constrained").subplots(2, 1, sharex=True)
        iz, ix, iy = self.geometry.split(self.hits["cell"])
        (nz, nx, ny), p, o = self.geometry.cells, self.geometry.pitch, self.geometry.origin
        for axis, name, i, n, k in ((axes[0], "x", ix, nx, 1), (axes[1], "y", iy, ny, 2)):
            grid = np.zeros((n, nz))
            np.add.at(grid, (i, iz), self.hits["energy"])
            extent = (o[0], o[0] + nz * p[0], o[k], o[k] + n * p[k])
            top = max(grid.max(), 2e-3)
            image = axis.imshow(np.ma.masked_equal(grid, 0), origin="lower", aspect="auto",
                                extent=extent,
                                norm=matplotlib.colors.LogNorm(min(1e-3, top / 2), top))
            axis.set_ylabel(f"{name} (mm)")
            axis.figure.colorbar(image, ax=axis, label="GeV")
        axes[-1].set_xlabel("z (mm)")
        axes[0].set_title(f"{self.energy:.1f} GeV" if self.energy == self.energy else repr(self))
        return axes[0].figure

    def _repr_png_(self):
        import io
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            return None
        out = io.BytesIO()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        FigureCanvasAgg(self.plot()).print_png(out)
        return out.getvalue()


class _Batch:
    """A calomu_events and the context whose memory it is."""

    def __init__(self, ctx):
        self.ctx, self.events = ctx, L.Events()

    def __del__(self, free=lib.events_free):
        if self.events.owner_:
            free(C.byref(self.events))


class File:
    """An open .cmu file; len(f), f.geometry, f.features (state).  f[2:7], f[[5, 1]] and f[mask]
    read these muons (each checksum verified) as Muons, without a copy; f[3] reads one."""

    STATES = ("none", "raw", "standardised", "standardised, unknown")

    def __init__(self, path):
        self.path, self._ctx, self._handle = path, L.Context(1), L.ptr()
        self._ctx.call("data_open", L.path_bytes(path), C.byref(self._handle))
        self._info = lib.data_describe(self._handle).contents

    def __del__(self, close=lib.data_close):
        if getattr(self, "_handle", None):
            close(self._handle)

    geometry = property(lambda s: Geometry._of(s._info.geometry))
    features = property(lambda s: s.STATES[s._info.features])
    losses = property(lambda s: bool(s._info.losses))
    n_hits = property(lambda s: s._info.n_hits)
    convention = property(lambda s: CONVENTIONS[s._info.feature_options.convention])
    shape = property(lambda s: (len(s),))

    def __len__(self):
        return self._info.n_events

    def __repr__(self):
        return f"<calomu.File {self.path!r}: {len(self)} muons, {self.n_hits} hits>"

    def __getitem__(self, what):
        if isinstance(what, (int, np.integer)):
            if not -len(self) <= what < len(self):
                raise IndexError(f"{self.path}: muon {what} of {len(self)}")
            return self._read(int(what) % len(self), None, 1)[0]
        if isinstance(what, slice) and what.step in (None, 1):
            lo, hi, _ = what.indices(len(self))
            return self._read(lo, None, max(0, hi - lo))
        rows = np.arange(len(self), dtype=np.uint64)[what]
        return self._read(0, np.ascontiguousarray(rows), len(rows))

    def _read(self, first, numbers, n):
        batch = _Batch(L.Context(1))
        batch.ctx.call("data_read", self._handle, first if n else 0,
                       None if numbers is None else numbers.ctypes.data, n, C.byref(batch.events))
        return Muons._of_events(batch.events, self._info, (batch, self))

    def chunks(self, n=1000):
        """Muons of the whole file, n at a time."""
        for first in range(0, len(self), n):
            yield self[first:first + n]


def open(path):
    """Opens a .cmu file: a File."""
    return File(path)


class Writer:
    """Streams muons to a .cmu file, which appears under its name when the block ends without an
    exception:  with Writer(path, like=muons) as w: w.add(muons)"""

    def __init__(self, path, *, like):
        self._ctx, self._handle, self._info = L.Context(1), L.ptr(), like._info
        self._path = path
        self._ctx.call("writer_open", L.path_bytes(path), C.byref(self._info),
                       C.byref(self._handle))

    def add(self, muons):
        if not self._handle:
            raise UsageError(f"{self._path}: the writer is closed")
        if muons.geometry != Geometry._of(self._info.geometry):
            raise UsageError(f"{self._path}: muons of another geometry: {muons.geometry}")
        info = muons._info
        if (info.features, info.losses) != (self._info.features, self._info.losses):
            raise UsageError(f"{self._path}: either every muon has features and losses or none has")
        if info.features and (
                info.feature_options.convention != self._info.feature_options.convention
                or info.feature_options.grow != self._info.feature_options.grow
                or list(info.mean) != list(self._info.mean)
                or list(info.deviation) != list(self._info.deviation)):
            raise UsageError(f"{self._path}: features of another convention, grow or "
                             "standardisation")
        table, keep = muons._events()
        for i in range(len(table)):
            status = lib.writer_add(self._handle, table.ctypes.data + EVENT.itemsize * i)
            self._ctx.check(status, f"muon {i}" if status == 3 else "")

    def close(self):
        handle, self._handle = self._handle, L.ptr()
        if handle:
            self._ctx.check(lib.writer_close(handle))

    def abandon(self, abandon=lib.writer_abandon):
        handle, self._handle = getattr(self, "_handle", None), None
        if handle:
            abandon(handle)

    __del__ = abandon

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.abandon() if kind else self.close()


def write(path, muons):
    """Writes Muons as a .cmu file."""
    with Writer(path, like=muons) as w:
        w.add(muons)


def feature_options(convention="text", grow=None):
    o = lib.feature_options_default()
    if convention not in CONVENTIONS:
        raise UsageError(f"convention: {convention!r} is none of {', '.join(CONVENTIONS)}")
    o.convention = CONVENTIONS.index(convention)
    if grow is not None:
        if not (math.isfinite(grow) and grow >= 0):
            raise UsageError(f"grow: {grow!r} GeV is not finite and positive")
        o.grow = grow
    return o


def features(muons, *, convention="text", grow=None):
    """The 28 features (FEATURE_NAMES; GeV, mm), (n, 28) float32, of Muons."""
    o, (table, keep) = feature_options(convention, grow), muons._events()
    out, ctx, g = np.empty((len(table), FEATURES), np.float32), context(1), muons.geometry._struct
    for i in range(len(table)):
        ctx.call("features", C.byref(g), table.ctypes.data + EVENT.itemsize * i, C.byref(o),
                 out.ctypes.data + 4 * FEATURES * i, where=f"muon {i}")
    return out


def with_features(muons, *, convention="text", grow=None):
    """The same muons with their features."""
    return Muons(muons.hits, muons.offsets, x=muons.x, y=muons.y, energy=muons.energy,
                 charge=muons.charge, losses=muons.losses, geometry=muons.geometry,
                 features=features(muons, convention=convention, grow=grow),
                 convention=convention, grow=grow)


class DataHandle:
    """A calomu_data over a File or Muons, for as long as it lives."""

    def __init__(self, data):
        self.keep, self.ctx, self.own = [data], None, False
        if isinstance(data, File):
            self.handle, self.info = data._handle, data._info
        elif isinstance(data, Muons):
            table, keep = data._events()
            self.keep += [table, keep]
            self.ctx, self.handle, self.own = L.Context(1), L.ptr(), True
            self.ctx.call("data_from_memory", C.byref(data._info), table.ctypes.data, len(table),
                          C.byref(self.handle))
            self.info = data._info
        else:
            raise UsageError(f"{type(data).__name__}: must be calomu.Muons or a calomu.File "
                             "(calomu.open)")

    def __del__(self, close=lib.data_close):
        if getattr(self, "own", False) and self.handle:
            close(self.handle)
