"""Models, predictions, training, evaluation."""
import ctypes as C
import os
import sys
import time

import numpy as np

from . import _library as L
from ._library import FEATURES, UsageError, context, lib
from ._muons import DataHandle, File, Geometry, Muons, feature_options

INPUTS = {"hybrid": (1, FEATURES), "hits": (1, 0), "features": (0, FEATURES), "sums": (0, 3)}


class Model:
    """A network or an ensemble, read-only; any number of threads may use it."""

    def __init__(self, handle):
        self._handle = handle
        self._info = lib.model_describe(handle).contents

    def __del__(self, free=lib.model_free):
        if getattr(self, "_handle", None):
            free(self._handle)

    @classmethod
    def load(cls, path):
        """Reads a .safetensors file of calomu."""
        handle = L.ptr()
        context(1).call("model_load", L.path_bytes(path), C.byref(handle))
        return cls(handle)

    @classmethod
    def join(cls, models):
        """One ensemble of the members of models, weighted by 1/(validation loss)."""
        models, handle = list(models), L.ptr()
        table = (L.ptr * len(models))(*[m._handle for m in models])
        context(1).call("model_join", table, len(models), C.byref(handle))
        return cls(handle)

    def save(self, path):
        context(1).call("model_save", self._handle, L.path_bytes(path))

    members = property(lambda s: s._info.members)
    parameters = property(lambda s: s._info.parameters, doc="trainable, of one member")
    geometry = property(lambda s: Geometry._of(s._info.architecture.geometry))
    losses = property(lambda s: [lib.model_loss(s._handle, k) for k in range(s.members)],
                      doc="validation loss of each member, NaN: unknown")

    @property
    def inputs(self):
        a = self._info.architecture
        return {v: k for k, v in INPUTS.items()}.get((a.head, a.n_features), "others")

    def predict(self, data, *, members=False, threads=None, chunk=1024):
        """Energies in GeV, (n,) float64, not debiased, of Muons or a File; with members=True also
        (n, members)."""
        ctx, at, handle = context(threads), 0, DataHandle(data)
        out, each = np.empty(len(data)), np.empty((len(data), self.members))
        parts = data.chunks(chunk) if isinstance(data, File) else [data] if len(data) else []
        for part in parts:
            table, keep = part._events()
            n = len(table)
            ctx.call("predict", self._handle, handle.handle, table.ctypes.data, n,
                     out[at:].ctypes.data, each[at:].ctypes.data)
            at += n
        return (out, each) if members else out

    def __repr__(self):
        return f"<calomu.Model: {self.inputs}, {self.members} member(s) of {self.parameters} values>"


def _bar(report):
    share = report.done / report.total if report.total else 1
    sys.stderr.write(f"\repoch {report.epoch} [{'#' * int(20 * share):20s}] "
                     f"loss {report.batch_loss:.4g}  \033[K")
    if report.kind == 3:
        sys.stderr.write(f"\repoch {report.epoch}: validation loss {report.validation_loss:.6g}, "
                         f"MI {report.mi:.2f}{' *' if report.improved else ''}\033[K\n")
    sys.stderr.flush()


def _architecture(data, inputs, start, blocks, growth, body, convention, grow):
    if start is not None:
        return start._info.architecture
    if inputs not in INPUTS:
        raise UsageError(f"inputs: {inputs!r} is none of {', '.join(INPUTS)}")
    a = lib.architecture_default()
    a.head, a.n_features = INPUTS[inputs]
    for name, value in (("blocks", blocks), ("growth", growth), ("body", body)):
        if value is not None:
            setattr(a, name, value)
    a.geometry = data.info.geometry
    if not a.n_features:
        return a
    a.standardised_unknown = int(data.info.features == 3)
    if a.standardised_unknown and (convention is not None or grow is not None):
        raise UsageError("the data carry standardised features that cannot be computed anew: "
                         "leave out convention and grow")
    if data.info.features:
        a.feature_options = data.info.feature_options
    if convention is not None:
        a.feature_options.convention = feature_options(convention).convention
    if grow is not None:
        a.feature_options.grow = feature_options(grow=grow).grow
    return a


_OPTIONS = {n for n, _ in L.TrainOptions._fields_} - {"validation", "start", "separate", "started"}


def _options(data, given, energy_range, members):
    o, bad = lib.train_options_default(), sorted(set(given) - _OPTIONS)
    if bad:
        raise UsageError(f"train: no option {', '.join(bad)}; there are {', '.join(sorted(_OPTIONS))}")

    def take():
        for name, value in given.items():
            try:
                setattr(o, name, value)
            except TypeError:
                raise UsageError(f"{name}: {value!r} is no such number") from None
            held = getattr(o, name)
            if held != value:
                raise UsageError(f"{name}: {value!r} is out of range")
    take()
    if energy_range is None:
        return o
    if isinstance(energy_range, str):
        if energy_range != "auto":
            raise UsageError("energy_range: neither 'auto' nor (LOW, HIGH) in GeV")
        low, high, ends = L.f64(), L.f64(), []
        member = o.member
        for k in range(members or 1):
            o.member = k if members else member
            context().call("train_energies", data.handle, C.byref(o), C.byref(low), C.byref(high))
            ends.append((low.value, high.value))
        o.member = member
        energy_range = min(e[0] for e in ends), max(e[1] for e in ends)
    low, high = map(float, energy_range)
    if not 0 <= low < high <= 1e9:
        raise UsageError("energy_range: neither 'auto' nor (LOW, HIGH) in GeV")
    lib.train_options_range(C.byref(o), low, high)
    take()
    return o


class Trainer:
    """A training, step by step; `train` drives it.  step() does the next batch and returns a
    report (fields of calomu_train_report; kind 1 update, 2 validation, 3 epoch, 4 done)."""

    def __init__(self, data, architecture=None, options=None, *, resume=None, validation=None,
                 start=None, threads=None):
        self._ctx, self._handle = L.Context(threads), L.ptr()
        self._keep = [data, validation, start]
        if resume is not None:
            self._ctx.call("trainer_resume_with", data.handle,
                           validation.handle if validation else None, L.path_bytes(resume),
                           C.byref(self._handle))
            return
        self._ctx.call("trainer_create", data.handle, C.byref(architecture), C.byref(options),
                       C.byref(self._handle))

    def __del__(self, free=lib.trainer_free):
        if getattr(self, "_handle", None):
            free(self._handle)

    def step(self):
        report = L.TrainReport()
        self._ctx.call("trainer_step", self._handle, C.byref(report))
        return report

    def save(self, path):
        """The whole state, from which resume=path goes on to the same bits."""
        self._ctx.call("trainer_save", self._handle, L.path_bytes(path))

    def model(self):
        """A copy of the best state, as a Model."""
        handle = L.ptr()
        self._ctx.call("trainer_model", self._handle, C.byref(handle))
        return Model(handle)


def train(data, *, inputs="hybrid", members=None, validation=None, start=None, energy_range=None,
          callback=None, progress=None, checkpoint=None, resume=False, minutes=10, threads=None,
          blocks=None, growth=None, body=None, convention=None, grow=None, **options):
    """Trains on Muons or a File with true energies: a Model, the bytes of `calomu train`.

    inputs: hybrid, hits, features, sums.  options: fields of calomu_train_options (batch, folds,
    holdout, epochs, lr, seed, shuffle, ...).  energy_range: "auto" or (LOW, HIGH) GeV.  members: an
    ensemble of so many.  validation: Muons or a File to monitor instead of a fold.  start: a Model
    to fine-tune.  callback(report): after each batch; True ends the training there, and the best
    state so far is returned.  progress: a bar on stderr (None: on a terminal).  checkpoint: a file
    written at the start, every `minutes` and on an exception, removed when the training has
    ended; resume=True goes on from it, with the options that it holds (others given: ignored
    there, refused with members).
    """
    if members is not None:
        members = L.check_whole("members", members, 1, 1000)
        if checkpoint is not None or resume or "member" in options:
            raise UsageError("members: an ensemble takes no checkpoint, resume or member: train "
                             "member=0, 1, ... apart, each with its checkpoint, and Model.join them")
    if resume and (checkpoint is None or not os.path.exists(checkpoint)):
        raise UsageError(f"resume: no checkpoint {checkpoint!r}")
    if checkpoint is not None and not resume and os.path.exists(checkpoint):
        raise UsageError(f"{checkpoint} is there: give resume=True to go on with it, or remove it")
    handle = DataHandle(data)
    other = DataHandle(validation) if validation is not None else None
    if resume:
        trainer = Trainer(handle, resume=checkpoint, validation=other, threads=threads)
        return _drive(trainer, callback, progress, checkpoint, minutes)
    a = _architecture(handle, inputs, start, blocks, growth, body, convention, grow)
    o = lib.train_options_default()
    o.validation = None
    o = _options(handle, options, energy_range, members)
    if other is not None:
        o.validation = other.handle
    if start is not None:
        o.start = start._handle
    made = []
    for k in range(members or 1):
        if members:
            o.member = k
        trainer = Trainer(handle, a, o, validation=other, start=start, threads=threads)
        made.append(_drive(trainer, callback, progress, checkpoint, minutes))
    return Model.join(made) if members else made[0]


def _drive(trainer, callback, progress, checkpoint, minutes):
    if progress is None:
        progress = sys.stderr.isatty()
    saved = time.monotonic()
    if checkpoint is not None:
        trainer.save(checkpoint)
    try:
        while True:
            report = trainer.step()
            if report.kind == 4:
                break
            if progress:
                _bar(report)
            if callback is not None and callback(report) is True:
                break
            if checkpoint is not None and time.monotonic() - saved > 60 * minutes:
                trainer.save(checkpoint)
                saved = time.monotonic()
    except BaseException:            # Ctrl-C, too: between two steps the state is whole
        if checkpoint is not None:
            trainer.save(checkpoint)
        raise
    model = trainer.model()
    if checkpoint is not None and report.kind == 4:
        os.remove(checkpoint)
    return model


class Evaluation:
    """What evaluate returns: line (debiasing: intercept GeV, slope, errors), bins (structured
    array; energies in GeV, resolutions relative), mi (percent points), worst (percent), mi_error,
    worst_error, debiased (n,) GeV."""

    def __repr__(self):
        return f"<calomu.Evaluation: MI {self.mi:.2f} +- {self.mi_error:.2f} points>"


def _pair(truth, prediction, what):
    out = []
    for name, a in (("true", truth), ("predicted", prediction)):
        a = np.asarray(a)
        if a.ndim != 1 or a.dtype.kind not in "fiu":
            raise UsageError(f"{what}: {name} energies of type {a.dtype}, shape {a.shape}; must be "
                             "one-dimensional numbers, GeV")
        out.append(np.ascontiguousarray(a, np.float64))
    if len(out[0]) != len(out[1]):
        raise UsageError(f"{what}: {len(out[0])} true and {len(out[1])} predicted energies")
    return out


def evaluate(truth, prediction, *, fit=None, range=(100, 4000), threads=None, **options):
    """Debiasing, resolution and mean improvement (Secs. 4.1, 4.2); all energies GeV, (n,).

    fit: (truth, prediction) of other muons for the debiasing line; None: these.  options: fields
    of calomu_eval_options (bins, fit_bins, points, tracker, bootstrap, seed, errors).
    """
    o, ctx = lib.eval_options_default(), context(threads)
    o.low, o.high = map(float, range)
    known = {n for n, _ in L.EvalOptions._fields_} - {"low", "high"}
    for name, value in options.items():
        if name not in known:
            raise UsageError(f"evaluate: no option {name}; there are {', '.join(sorted(known))}")
        setattr(o, name, value)
    t, p = _pair(truth, prediction, "evaluate")
    ft, fp = _pair(*fit, "fit") if fit is not None else (t, p)
    line, summary, count = L.Line(), L.Summary(), C.c_int()
    ctx.call("debias_fit", C.byref(o), ft.ctypes.data, fp.ctypes.data, len(ft), C.byref(line))
    room = max(o.bins, 64)
    bins = (L.Bin * room)()
    ctx.call("resolution", C.byref(o), C.byref(line), t.ctypes.data, p.ctypes.data, len(t), bins,
             room, C.byref(count), C.byref(summary))
    if o.errors:
        ctx.call("resolution_errors", C.byref(o), ft.ctypes.data, fp.ctypes.data, len(ft),
                 t.ctypes.data, p.ctypes.data, len(t), bins, count.value, C.byref(summary))
    e = Evaluation()
    e.line, e.bins = line, np.array(bins[:count.value] and np.ctypeslib.as_array(bins)[:count.value])
    for name, _ in L.Summary._fields_:
        setattr(e, name, getattr(summary, name))
    e.debiased = np.array([lib.debias(C.byref(line), v) for v in p])
    return e
