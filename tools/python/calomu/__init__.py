"""calomu: the energy of multi-TeV muons from their pattern of energy in a fine calorimeter.

Energies are GeV, lengths mm.  Failures are exceptions below calomu.Error, with the library's text;
notices go to logging.getLogger("calomu").  Calls into the library release the GIL.  Results have
the bits of the program calomu, for any number of threads.
"""
from ._library import (DeviceError, Error, FileError, FormatError, NoMemoryError, NotFiniteError,
                       UsageError)
from ._models import Evaluation, Model, Trainer, evaluate, train
from ._muons import (FEATURE_NAMES, HIT, LOSS_NAMES, File, Geometry, Muon, Muons, Writer, features,
                     open, with_features, write)
from ._simulation import simulate

__version__ = "0.1.0"
__all__ = [n for n in dir() if not n.startswith("_")]


def predict(model, data, **options):
    """Energies in GeV, (n,) float64, of Muons or a File; model: a Model or its file's name."""
    return (model if isinstance(model, Model) else Model.load(model)).predict(data, **options)
