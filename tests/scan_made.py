"""A SCAN.csv of known answers: scan_made.py FILE paper|physical NOISE [DRAWS]

The paper's 120 settings at 11 energies.  paper: responses on the lines of Eqs. 2.1 and 2.2.
physical: intercepts 25.5 S.  NOISE: relative spread of one event; 0: exact means."""
import sys
import random
out, kind, noise = sys.argv[1], sys.argv[2], float(sys.argv[3])
draws = int(sys.argv[4]) if len(sys.argv) > 4 else 1
random.seed(7)


def empty(s, b, z=0.6):
    t = max(-1, min(1, (z - b) / s)) if s > 0 else (-1 if b >= z else 1)
    p = 0.5 - (3*t - t**3) / 4
    return p, 3*s/16*(1 - t*t)**2 + b*p


with open(out, 'w') as f:
    f.write('# calomu: test\n# cells: 50x50x75\n')
    f.write('model,draw,setting,miscalibration,noise,bias,zero,correlation,energy,half,n,mean,'
            'mean_error,sigma,median,q16,q84,fired,noise_energy\n')
    for d in range(draws):
        k = 0
        for c in (0, 0.15, 0.2, 0.25, 0.3):
            for s in (0, 0.1, 0.1, 0.3, 0.4, 0.5, 1, 1.5):
                for b in (0, -0.15, 0.15):
                    p, m = empty(s, b)
                    i = s > 0.5
                    a = 0.963 - 0.299*i*s - 0.053*i*b + 0.091*b + 0.02*c*d
                    b0 = -680*i + 1098*i*s + 2008*i*b
                    if kind == 'physical':
                        b0 = 25.5*m*187.5
                    for e in (10, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500):
                        for h in (0, 1):
                            err = noise*e/100**0.5 if noise else 0.01*e
                            mean = a*e + b0 + (random.gauss(0, err) if noise else 0)
                            f.write('0,%d,%d,%r,%r,%r,0.6,0,%d,%d,100,%r,%r,%r,%r,%r,%r,%r,%r\n' % (
                                d, k, c, s, b, e, h, mean, err, err*10, mean, mean, mean,
                                p*187500, m*187.5))
                    k += 1
