"""PyTorch's side of `make bench`: training step and inference of the reference network.

Does what `calomu bench` does, with oracle/torch_model.py of the reference folder: the same muons,
the same thread count, loss and Adam included.  The dense grids are filled before the clock starts,
so PyTorch is not charged for that.  Prints and writes rows `row,value,unit` named like calomu's
with `torch_` in front.
"""
import argparse
import csv
import resource
import statistics
import sys
import time

import numpy as np
import torch


def columns(path, names):
    """The named columns of a CSV file; an empty field is a NaN."""
    with open(path) as f:
        header = f.readline().strip().split(',')
        index = [header.index(name) for name in names]
        return np.genfromtxt(f, delimiter=',', usecols=index, ndmin=2)


def muons(a):
    """Hits per event (cell, energy), features and true energies, by rising number of hits."""
    truth = columns(a.truth, ['energy'])[:, 0]
    features = columns(a.features, open(a.features).readline().strip().split(',')[1:])
    with open(a.hits) as f:
        assert f.readline().strip() == 'event,iz,ix,iy,energy'
        hits = np.loadtxt(f, delimiter=',', ndmin=2)
    order = np.argsort(np.bincount(hits[:, 0].astype(int), minlength=len(truth)), kind='stable')
    hits = hits[np.argsort(hits[:, 0], kind='stable')]
    first = np.searchsorted(hits[:, 0], np.arange(len(truth) + 1))
    return [(hits[first[i]:first[i + 1]], features[i], truth[i]) for i in order]


def batch(events, n, grid):
    """The n muons at the quantiles of the number of hits, as `calomu bench` takes them."""
    x = torch.zeros(n, 1, *grid)
    f, y = np.zeros((n, 28)), np.zeros(n)
    for i in range(n):
        hits, f[i], y[i] = events[(2 * i + 1) * len(events) // (2 * n)]
        cell = hits[:, 1:4].astype(int)
        x[i, 0, cell[:, 0], cell[:, 1], cell[:, 2]] = torch.tensor(hits[:, 4], dtype=torch.float32)
    f = (f - f.mean(0)) / np.where(f.std(0) > 0, f.std(0), 1)
    return x, torch.tensor(f, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]


def repeat(work, seconds, least):
    """Seconds and processor seconds of each repetition, after one that does not count."""
    work()
    times, processor, began = [], [], time.perf_counter()
    while len(times) < least or time.perf_counter() - began < seconds:
        start, cpu = time.perf_counter(), time.process_time()
        work()
        times.append(time.perf_counter() - start)
        processor.append(time.process_time() - cpu)
    return times, processor


def report(out, a, what, times, processor):
    row = 'torch_%s_b%d_t%d' % (what, a.batch, a.threads)
    best, median, cpu = (1e3 * t / a.batch for t in (min(times), statistics.median(times),
                                                     min(processor)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    for kind, value, unit in (('min', best, 'ms/muon'), ('median', median, 'ms/muon'),
                              ('processor', cpu, 'ms/muon'), ('memory', peak, 'MB')):
        out.writerow(['%s_%s' % (row, kind), '%.6g' % value, unit])
    print('%-46s %9.3f %9.3f %9.3f %7.0f MB' % (
        'PyTorch %s, %s, batch %d, %d thread%s' % (torch.__version__, what, a.batch, a.threads,
                                                   's' if a.threads > 1 else ''),
        best, median, cpu, peak))
    sys.stdout.flush()


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--oracle', required=True, help='folder of torch_model.py')
    for name in ('hits', 'truth', 'features', 'csv'):
        p.add_argument('--' + name, required=True, help='file')
    p.add_argument('--batch', type=int, default=256)
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--seconds', type=float, default=3, help='for each measurement, at least')
    p.add_argument('--grid', default='50,32,32', help='cells in z, x, y')
    a = p.parse_args()
    sys.dont_write_bytecode = True
    sys.path.insert(0, a.oracle)
    import torch_model
    torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    x, f, y = batch(muons(a), a.batch, [int(n) for n in a.grid.split(',')])
    net, loss = torch_model.Net(), torch_model.BinnedHuberMFSE()
    adam = torch.optim.Adam(net.parameters(), lr=1e-5, betas=(0.95, 0.999))
    weight = torch_model.weight(y)

    def step():
        adam.zero_grad()
        loss(net(x, f), y, weight).backward()
        adam.step()

    def infer():
        with torch.no_grad():
            net(x, f)

    with open(a.csv, 'w', newline='') as file:
        out = csv.writer(file, lineterminator='\n')
        out.writerow(['row', 'value', 'unit'])
        if a.batch >= 16:
            report(out, a, 'training', *repeat(step, a.seconds, 2))
        else:
            # Batch norm of one muon has no state to learn; any batch fills its buffers.
            net(x.expand(2, -1, -1, -1, -1), f.expand(2, -1)).sum().backward()
        net.eval()
        report(out, a, 'inference', *repeat(infer, a.seconds, 3))


if __name__ == '__main__':
    main()
