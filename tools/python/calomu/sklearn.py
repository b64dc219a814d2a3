"""A regressor that follows scikit-learn: fit, predict, score, clone, grid searches, folds.

X is calomu.Muons (len, shape and indexing are what scikit-learn asks of it), or with
inputs="features" also an array (n, 28) of features in the convention `convention`; y are true
energies in GeV, (n,), and None takes those of X.
"""
import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from ._library import FEATURES, UsageError
from ._models import Model, train
from ._muons import HIT, Muons


class MuonRegressor(RegressorMixin, BaseEstimator):
    """Parameters are those of calomu.train; `shuffle` and no hold-out, as scikit-learn cuts folds
    itself."""

    def __init__(self, inputs="hybrid", batch=256, folds=36, holdout=0, epochs=50,
                 cycle_epochs=20, lr=0.0, seed=1, shuffle=1, energy_range=None, blocks=3,
                 growth=1.5, body=80, convention="text", threads=None):
        self.inputs = inputs
        self.batch = batch
        self.folds = folds
        self.holdout = holdout
        self.epochs = epochs
        self.cycle_epochs = cycle_epochs
        self.lr = lr
        self.seed = seed
        self.shuffle = shuffle
        self.energy_range = energy_range
        self.blocks = blocks
        self.growth = growth
        self.body = body
        self.convention = convention
        self.threads = threads

    def _muons(self, X, y=None):
        if isinstance(X, Muons):
            energy = X.energy if y is None else y
            return Muons(X.hits, X.offsets, x=X.x, y=X.y, energy=energy, charge=X.charge,
                         features=X.features, losses=X.losses, geometry=X.geometry,
                         convention=X.convention, grow=X._info.feature_options.grow)
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != FEATURES or X.dtype.kind not in "fiu":
            raise UsageError(f"X: type {X.dtype}, shape {X.shape}; must be calomu.Muons or an array "
                             f"(n, {FEATURES}) of features")
        if self.inputs not in ("features", "sums"):
            raise UsageError(f"X are features, but inputs={self.inputs!r} reads hits")
        return Muons(np.empty(0, HIT), np.zeros(len(X) + 1, np.int64), features=X, energy=y,
                     convention=self.convention)

    def fit(self, X, y=None):
        muons = self._muons(X, None if y is None else np.asarray(y))
        p = self.get_params()
        architecture = {n: p.pop(n) for n in ("blocks", "growth", "body")}
        if self.inputs == "hits":
            p["convention"] = None
        self.model_ = train(muons, progress=False, **architecture, **p)
        return self

    def predict(self, X):
        """Energies in GeV, (n,) float64, not debiased."""
        from sklearn.utils.validation import check_is_fitted
        check_is_fitted(self)
        return self.model_.predict(self._muons(X), threads=self.threads)

    def __getstate__(self):
        """As bytes of the model's file: pickles go to other processes and machines."""
        state = dict(super().__getstate__())
        if "model_" in state:
            import os
            import tempfile
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "m.safetensors")
                state["model_"].save(path)
                with open(path, "rb") as f:
                    state["model_"] = f.read()
        return state

    def __setstate__(self, state):
        if isinstance(state.get("model_"), bytes):
            import os
            import tempfile
            state = dict(state)
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "m.safetensors")
                with open(path, "wb") as f:
                    f.write(state["model_"])
                state["model_"] = Model.load(path)
        super().__setstate__(state)
