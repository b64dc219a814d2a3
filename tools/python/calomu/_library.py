"""The shared library: structs of calomu.h and simulate.h, contexts, failures as exceptions.

ctypes releases the GIL for the length of each call (CDLL, never PyDLL)."""
import ctypes as C
import logging
import os
import sys
import threading
from pathlib import Path

FEATURES, LOSSES = 28, 4
logger = logging.getLogger("calomu")
f32, f64, i32, u64, size_t, ptr = C.c_float, C.c_double, C.c_int32, C.c_uint64, C.c_size_t, C.c_void_p


class Error(Exception):
    """A failure of calomu, with the library's text; status: its calomu_status."""
    status = 0


class UsageError(Error, ValueError):
    """An argument or option makes no sense."""
    status = 2


class FormatError(Error, ValueError):
    """A file or its data are bad, or do not fit together."""
    status = 3


class FileError(Error, OSError):
    """The operating system failed to read or write."""
    status = 4


class NoMemoryError(Error, MemoryError):
    status = 5


class NotFiniteError(Error, ArithmeticError):
    """A loss or prediction is not finite."""
    status = 6


class DeviceError(Error, RuntimeError):
    status = 7


ERRORS = {e.status: e for e in (UsageError, FormatError, FileError, NoMemoryError, NotFiniteError,
                                DeviceError)}


def _struct(name, *fields):
    return type(name, (C.Structure,), {"_fields_": list(fields)})


LOG = C.CFUNCTYPE(None, ptr, C.c_char_p)
Options = _struct("Options", ("allocate", ptr), ("release", ptr), ("log", LOG), ("user", ptr),
                  ("threads", C.c_int), ("isa", C.c_int), ("direct", C.c_int), ("plain", C.c_int),
                  ("recompute", C.c_int), ("unfused", C.c_int), ("device", ptr),
                  ("device_number", C.c_int), ("math", C.c_int))
Geometry_ = _struct("Geometry_", ("nz", i32), ("nx", i32), ("ny", i32), ("pitch", f64 * 3),
                    ("origin", f64 * 3), ("field", f64))
FeatureOptions = _struct("FeatureOptions", ("convention", C.c_int), ("grow", f32))
DataInfo = _struct("DataInfo", ("n_events", u64), ("n_hits", u64), ("geometry", Geometry_),
                   ("features", C.c_int), ("feature_options", FeatureOptions),
                   ("mean", f64 * FEATURES), ("deviation", f64 * FEATURES), ("losses", i32))
Event = _struct("Event", ("hits", ptr), ("n_hits", size_t), ("x", f32), ("y", f32),
                ("energy", f32), ("charge", f32), ("features", ptr), ("losses", ptr))
Events = _struct("Events", ("event", ptr), ("n", size_t), ("memory_", ptr * 2),
                 ("size_", size_t * 2), ("owner_", ptr))
Architecture = _struct("Architecture", ("geometry", Geometry_),
                       ("feature_options", FeatureOptions), ("head", i32), ("n_features", i32),
                       ("blocks", i32), ("body", i32), ("growth", f64),
                       ("standardised_unknown", i32))
ModelInfo = _struct("ModelInfo", ("architecture", Architecture), ("members", C.c_int),
                    ("parameters", u64), ("mean", f64 * FEATURES), ("deviation", f64 * FEATURES))
TrainOptions = _struct(
    "TrainOptions", *[(n, i32) for n in "batch folds holdout unique member epochs cycle_epochs "
                      "patience stop_after".split()], ("lr", f64), ("seed", u64),
    ("bin_low", f64), ("bin_high", f64), ("bins", i32), ("quantile", f64),
    ("weight_centre", f64), ("weight_low", f64), ("weight_high", f64), ("range_low", f64),
    ("range_high", f64), ("fit_bins", i32), ("mi_bins", i32), ("tracker", f64), ("shuffle", i32),
    ("outside", f64), ("validation", ptr), ("start", ptr), ("separate", i32), ("started", i32))
TrainReport = _struct("TrainReport", ("kind", C.c_int), ("epoch", i32), ("updates", u64),
                      ("done", u64), ("total", u64), ("batch_loss", f64), ("lr", f64),
                      ("beta1", f64), ("training_loss", f64), ("validation_loss", f64),
                      ("thresholds", f64 * 16), ("n_thresholds", i32), ("mi", f64),
                      ("worst", f64), ("improved", i32))
EvalOptions = _struct("EvalOptions", ("low", f64), ("high", f64), ("bins", i32),
                      ("fit_bins", i32), ("points", i32), ("tracker", f64), ("bootstrap", i32),
                      ("seed", u64), ("errors", i32))
Line = _struct("Line", ("intercept", f64), ("slope", f64), ("intercept_error", f64),
               ("slope_error", f64), ("used", i32), ("skipped", i32))
Bin = _struct("Bin", ("low", f64), ("high", f64), ("energy", f64), ("centre", f64), ("n", u64),
              *[(n, f64) for n in "median c68 calorimeter tracker combined calorimeter_error "
                "combined_error".split()])
Summary = _struct("Summary", ("mi", f64), ("worst", f64), ("used", i32), ("skipped", i32),
                  ("points", i32), ("mi_error", f64), ("worst_error", f64))
SimOptions = _struct("SimOptions", ("geometry", Geometry_), ("active", f64),
                     ("photonuclear", C.c_int), ("library", C.c_int), ("seed", u64))
SimMuon = _struct("SimMuon", ("energy", f64), ("x", f64), ("y", f64), ("charge", C.c_int))
SimLoss = _struct("SimLoss", *[(n, f64) for n in "lost deposited leaked unseen".split()])
# names in calomu.h and simulate.h, for the test of the layout
STRUCTS = {
    "calomu_options": Options, "calomu_geometry": Geometry_,
    "calomu_feature_options": FeatureOptions, "calomu_data_info": DataInfo,
    "calomu_event": Event, "calomu_events": Events, "calomu_architecture": Architecture,
    "calomu_model_info": ModelInfo, "calomu_train_options": TrainOptions,
    "calomu_train_report": TrainReport, "calomu_eval_options": EvalOptions, "calomu_line": Line,
    "calomu_bin": Bin, "calomu_summary": Summary, "sim_options": SimOptions,
    "sim_muon": SimMuon, "sim_loss": SimLoss}

P = C.POINTER
_text, _int = C.c_char_p, C.c_int
# name: (result, arguments); result _int is a calomu_status
FUNCTIONS = {
    "open": (_int, ptr, ptr), "close": (None, ptr), "message": (_text, ptr),
    "status_text": (_text, _int), "threads_available": (_int,), "build_info": (_text, ptr),
    "geometry_default": (Geometry_,), "geometry_check": (_int, ptr, P(Geometry_)),
    "geometry_compare": (_int, ptr, P(Geometry_), P(Geometry_)),
    "feature_options_default": (FeatureOptions,), "feature_name": (_text, _int),
    "features": (_int, ptr, P(Geometry_), ptr, P(FeatureOptions), ptr),
    "writer_open": (_int, ptr, _text, P(DataInfo), ptr), "writer_add": (_int, ptr, ptr),
    "writer_close": (_int, ptr), "writer_abandon": (None, ptr),
    "data_open": (_int, ptr, _text, ptr), "data_close": (None, ptr),
    "data_from_memory": (_int, ptr, P(DataInfo), ptr, size_t, ptr),
    "data_describe": (P(DataInfo), ptr),
    "data_read": (_int, ptr, ptr, u64, ptr, size_t, P(Events)), "events_free": (None, P(Events)),
    "architecture_default": (Architecture,), "model_load": (_int, ptr, _text, ptr),
    "model_save": (_int, ptr, ptr, _text), "model_join": (_int, ptr, ptr, _int, ptr),
    "model_describe": (P(ModelInfo), ptr), "model_loss": (f64, ptr, _int),
    "model_free": (None, ptr), "predict": (_int, ptr, ptr, ptr, ptr, size_t, ptr, ptr),
    "train_options_default": (TrainOptions,),
    "train_options_range": (None, P(TrainOptions), f64, f64),
    "train_energies": (_int, ptr, ptr, P(TrainOptions), P(f64), P(f64)),
    "trainer_create": (_int, ptr, ptr, P(Architecture), P(TrainOptions), ptr),
    "trainer_step": (_int, ptr, ptr, P(TrainReport)), "trainer_save": (_int, ptr, ptr, _text),
    "trainer_resume_with": (_int, ptr, ptr, ptr, _text, ptr),
    "trainer_options": (P(TrainOptions), ptr),
    "trainer_architecture": (P(Architecture), ptr), "trainer_model": (_int, ptr, ptr, ptr),
    "trainer_free": (None, ptr), "eval_options_default": (EvalOptions,),
    "debias_fit": (_int, ptr, P(EvalOptions), ptr, ptr, size_t, P(Line)),
    "debias": (f64, P(Line), f64),
    "resolution": (_int, ptr, P(EvalOptions), P(Line), ptr, ptr, size_t, ptr, _int, P(_int),
                   P(Summary)),
    "resolution_errors": (_int, ptr, P(EvalOptions), ptr, ptr, size_t, ptr, ptr, size_t, ptr,
                          _int, P(Summary)),
}
SIM_FUNCTIONS = {
    "options_default": (SimOptions,), "new": (_int, P(Options), P(SimOptions), ptr, P(_text)),
    "free": (None, ptr), "worker_new": (_int, ptr, ptr), "worker_free": (None, ptr),
    "draw": (SimMuon, ptr, u64, f64, f64, _int),
    "run": (_int, ptr, u64, P(SimMuon), P(Event), P(SimLoss)),
}


class _Namespace:
    pass


def _open_library():
    ending = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    path = Path(__file__).with_name("libcalomu" + ending)
    if not path.is_file():
        raise ImportError(f"{path} is not there: install the package (pip install ./tools/python), "
                          "do not import it from its source folder")
    dll = C.CDLL(str(path))
    spaces = []
    for prefix, table in (("calomu_", FUNCTIONS), ("sim_", SIM_FUNCTIONS)):
        space = _Namespace()
        for name, (result, *arguments) in table.items():
            function = getattr(dll, prefix + name)
            function.restype, function.argtypes = result, arguments
            setattr(space, name, function)
        spaces.append(space)
    return spaces


lib, sim = _open_library()


@LOG
def _log(_, line):
    logger.warning("%s", line.decode("utf-8", "replace"))


def default_threads():
    """Cores that this process may use; 1 without OpenMP."""
    n = lib.threads_available()
    if hasattr(os, "sched_getaffinity"):
        n = min(n, len(os.sched_getaffinity(0)))
    return max(n, 1)


class Context:
    """One calomu_context.  The library allows one thread at a time: the lock keeps to it."""

    def __init__(self, threads=None):
        self.options = Options(log=_log, threads=check_whole("threads", threads, 1, 4096)
                               if threads is not None else default_threads())
        self.handle, self.lock = ptr(), threading.RLock()
        status = lib.open(C.byref(self.handle), C.byref(self.options))
        if status:
            raise ERRORS[status](lib.status_text(status).decode())

    def call(self, name, *arguments, where=""):
        """Calls calomu_NAME with this context; raises what it fails with."""
        with self.lock:
            self.check(getattr(lib, name)(self.handle, *arguments), where)

    def check(self, status, where=""):
        if status:
            text = lib.message(self.handle).decode("utf-8", "replace")
            raise ERRORS.get(status, Error)(f"{where}: {text}" if where else text)

    def __del__(self, close=lib.close):
        if getattr(self, "handle", None):
            close(self.handle)


_contexts = threading.local()


def context(threads=None):
    """This thread's context of so many threads: it keeps its memory from call to call."""
    made = _contexts.__dict__.setdefault("made", {})
    key = (threads if threads is not None else default_threads(), os.getpid())
    if key not in made:
        made[key] = Context(key[0])
    return made[key]


def check_whole(name, value, low, high):
    import operator
    try:
        n = operator.index(value)
    except TypeError:
        raise UsageError(f"{name}: {value!r} is not a whole number") from None
    if not low <= n <= high:
        raise UsageError(f"{name}: {n} is not from {low} to {high}")
    return n


def path_bytes(path):
    path = os.fsencode(path)
    if b"\0" in path:
        raise UsageError("a file name cannot hold a zero byte")
    return path
