"""python_sklearn.py DATA TMP PROGRAM - calomu.sklearn with the real scikit-learn"""
import os
import pickle
import sys

import numpy as np

DATA, TMP, PROGRAM = sys.argv[1:4]
os.chdir(TMP)
try:
    import sklearn
    from sklearn.base import clone
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.utils import estimator_checks as checks
except ImportError:
    print("SKIP: THE REGRESSOR WAS NOT TESTED: no scikit-learn in " + sys.executable)
    sys.exit(0)

import calomu
from calomu.sklearn import MuonRegressor


def test(what, good):
    print(("PASS " if good else "FAIL ") + what)


muons = calomu.with_features(calomu.open(DATA + "/muons.cmu")[:])
y = muons.energy.astype(float)
r = MuonRegressor("features", batch=16, folds=4, epochs=2, cycle_epochs=2)
test("fit returns itself", r.fit(muons, y) is r)
direct = calomu.train(muons, inputs="features", batch=16, folds=4, epochs=2, cycle_epochs=2,
                      holdout=0, shuffle=1)
p = r.predict(muons)
test("the bits of calomu.train", (p == direct.predict(muons)).all())
test("score is R2", abs(r.score(muons, y) - (1 - ((y - p) ** 2).sum()
                                            / ((y - y.mean()) ** 2).sum())) < 1e-12)
test("features as an array: the same bits", (MuonRegressor(**r.get_params()).fit(
    muons.features, y).predict(muons.features) == p).all())
fresh = clone(r)
test("a clone has parameters and no model", fresh.get_params() == r.get_params()
     and not hasattr(fresh, "model_"))
test("a pickle predicts the same bits", (pickle.loads(pickle.dumps(r)).predict(muons) == p).all())
s = cross_val_score(r, muons, y, cv=2)
test("cross_val_score", s.shape == (2,) and np.isfinite(s).all())
g = GridSearchCV(r, {"body": [20, 40]}, cv=2).fit(muons, y)
test("GridSearchCV", g.best_params_["body"] in (20, 40) and len(g.predict(muons)) == len(y))
for what, X, text in (("27 features", np.zeros((40, 27)), "(40, 27)"),
                      ("text", np.full((40, 28), "a"), "<U1")):
    try:
        r.predict(X)
        test(what + " are refused", False)
    except calomu.UsageError as e:
        test(what + " are refused", text in str(e))

# check_estimator fits arrays of 1, 2, 5, 10 columns and of 3 to 30 rows, which are no muons (28
# features, a whole batch).  What asks nothing of X must hold:
for name in ("check_no_attributes_set_in_init", "check_parameters_default_constructible",
             "check_get_params_invariance", "check_set_params", "check_estimator_cloneable",
             "check_estimator_repr", "check_do_not_raise_errors_in_init_or_set_param",
             "check_estimator_get_tags_default_keys"):
    check = getattr(checks, name, None)
    if check is None:                    # of another version of scikit-learn
        continue
    try:
        check("MuonRegressor", MuonRegressor())
        test(name, True)
    except Exception as e:
        test(f"{name}: {type(e).__name__}: {e}", False)
