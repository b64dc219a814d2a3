"""Golden numbers of tests/test_scan.c: h functions and inverses of pyvinecopulib 1.0.1.

    pip install pyvinecopulib==1.0.1 numpy; python3 tests/scan_copulas.py"""
import numpy as np
import pyvinecopulib as pv

UV = np.array([[.1, .2], [.3, .9], [.7, .5]])
FAMILIES = ((pv.BicopFamily.gaussian, .5), (pv.BicopFamily.clayton, 1.5),
            (pv.BicopFamily.frank, -4.))
for k, (family, q) in enumerate(FAMILIES):
    c = pv.Bicop(family=family, parameters=np.array([[q]]))
    for uv, h, inverse in zip(UV, c.hfunc2(UV), c.hinv2(UV)):
        print("{ %d, %.17g, %.17g, %.17g, %.17g, %.17g }," % (k, q, *uv, h, inverse))
