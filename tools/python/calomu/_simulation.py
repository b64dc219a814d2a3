"""Simulated muons, by tools/simulation."""
import ctypes as C
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from . import _library as L
from ._library import LOSSES, UsageError, lib, sim
from ._muons import HIT, Geometry, Muons, Writer, _view, with_features

CHARGES = {"minus": -1, "plus": 1, "both": 0}


class _Simulation:
    def __init__(self, options, threads):
        self.handle, why = L.ptr(), C.c_char_p()
        memory = L.Options(threads=threads)
        status = sim.new(C.byref(memory), C.byref(options), C.byref(self.handle), C.byref(why))
        if status:
            raise L.ERRORS[status]((why.value or lib.status_text(status)).decode())
        self.workers = []
        for _ in range(threads):
            worker = L.ptr()
            status = sim.worker_new(self.handle, C.byref(worker))
            if status:
                raise L.ERRORS[status](lib.status_text(status).decode())
            self.workers.append(worker)

    def __del__(self, worker_free=sim.worker_free, free=sim.free):
        for w in getattr(self, "workers", []):
            worker_free(w)
        if getattr(self, "handle", None):
            free(self.handle)

    def muon(self, worker, number, low, high, charge):
        muon = sim.draw(self.handle, number, low, high, charge)
        event, loss = L.Event(), L.SimLoss()
        status = sim.run(worker, number, C.byref(muon), C.byref(event), C.byref(loss))
        if status:
            raise L.ERRORS[status](f"muon {number}: {lib.status_text(status).decode()}")
        hits = _view(event.hits, event.n_hits, HIT, None).copy()
        return (hits, event.x, event.y, event.energy, event.charge,
                (loss.lost, loss.deposited, loss.leaked, loss.unseen))


def simulate(n, *, energy=(50, 8000), energies=None, seed=1, first=0, charge="both",
             geometry=None, active=1.0, photonuclear=True, library=True, features=False,
             convention="text", grow=None, threads=None, out=None, chunk=1000):
    """n simulated muons, as `calomu simulate` with ideal electronics makes them.

    energy: (low, high), momentum in GeV, uniform; or energies: fixed ones, in turn.  charge: minus,
    plus, both.  A muon depends on seed and number (first, first + 1, ...) alone, not on threads.
    Returns Muons; with out=FILE.cmu writes them, chunk at a time, and returns None.
    """
    n = L.check_whole("n", n, 1, 10**15)
    first = L.check_whole("first", first, 0, 2**62)
    threads = L.default_threads() if threads is None else L.check_whole("threads", threads, 1, 4096)
    if charge not in CHARGES:
        raise UsageError(f"charge: {charge!r} is none of {', '.join(CHARGES)}")
    ends = [float(np.float32(e)) for e in energies] if energies is not None else None
    low, high = map(float, energy)
    if ends == [] or not all(1 <= e <= 10000 for e in (ends or [low, high])) or low > high:
        raise UsageError("energies must be from 1 to 10000 GeV, LOW not above HIGH")
    o = sim.options_default()
    if geometry is not None:
        o.geometry = geometry._struct
    o.active, o.photonuclear, o.library = active, bool(photonuclear), bool(library)
    o.seed = L.check_whole("seed", seed, 0, 2**64 - 1)
    job = _Simulation(o, threads)

    def share(k, numbers):           # each thread has its worker; ctypes lets go of the GIL
        made = {}
        for i in numbers[k::threads]:
            lo, hi = (ends[i % len(ends)],) * 2 if ends else (low, high)
            made[i] = job.muon(job.workers[k], i, lo, hi, CHARGES[charge])
        return made

    def chunk_of(pool, numbers):
        made = {}
        for part in pool.map(lambda k: share(k, numbers), range(threads)):
            made.update(part)
        rows = [made[i] for i in numbers]
        offsets = np.concatenate([[0], np.cumsum([len(r[0]) for r in rows])])
        x, y, e, q = np.array([r[1:5] for r in rows], np.float32).T
        m = Muons(np.concatenate([r[0] for r in rows]), offsets.astype(np.int64), x=x, y=y,
                  energy=e, charge=q, geometry=Geometry._of(o.geometry),
                  losses=np.array([r[5] for r in rows], np.float32).reshape(-1, LOSSES),
                  convention=convention, grow=grow)
        return with_features(m, convention=convention, grow=grow) if features else m

    with ThreadPoolExecutor(threads) as pool:
        if out is None:
            return chunk_of(pool, range(first, first + n))
        writer = None
        try:
            for at in range(first, first + n, chunk):
                part = chunk_of(pool, range(at, min(at + chunk, first + n)))
                writer = writer or Writer(out, like=part)
                writer.add(part)
            writer.close()
        finally:
            if writer:
                writer.abandon()
