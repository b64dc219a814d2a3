"""The fits of `test_scanfit --numbers` (a file) against numpy, to 1e-10."""
import sys
import numpy as np
lines = iter(open(sys.argv[1]))
worst, blocks = 0, 0
for head in lines:
    n, m = map(int, head.split())
    rows = np.array([next(lines).split() for _ in range(n)], float)
    x, y, w = rows[:, :m], rows[:, m], rows[:, m + 1]
    root = np.sqrt(w)
    beta = np.linalg.lstsq(x*root[:, None], y*root, rcond=None)[0]
    rss = np.sum(w*(y - x @ beta)**2)
    inverse = np.linalg.pinv(x*root[:, None])
    mean = np.average(y, weights=w)
    for known in (0, 1):
        got = np.array(next(lines).split(), float)
        cov = inverse @ inverse.T * (1 if known else rss/(n - m))
        t = beta/np.sqrt(np.diag(cov))
        want = np.concatenate([np.column_stack([beta, t]).ravel(), cov.ravel(),
                               [rss, 1 - rss/np.sum(w*(y - mean)**2),
                                n*np.log(rss/n) + m*np.log(n)]])
        size = np.abs(want)
        d = np.sqrt(np.diag(cov))
        size[2*m:2*m + m*m] = np.outer(d, d).ravel()
        size[0:2*m:2] = np.maximum(size[0:2*m:2], d)
        size[1:2*m:2] = np.maximum(size[1:2*m:2], 1)
        size[-2] = 1
        worst = max(worst, np.max(np.abs(got - want)/size))
    blocks += 1
print('%d designs, worst difference %.2g' % (blocks, worst))
sys.exit(0 if blocks == 12 and worst <= 1e-10 else 1)
