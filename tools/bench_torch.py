"""A peer of `make bench`: the reference network in PyTorch, or exported to onnxruntime.

Does what `calomu bench` does, with oracle/torch_model.py of the reference folder: the same muons,
the same thread count, loss and Adam included.  The dense grids are filled before the clock starts,
so the peer is not charged for that.  Of all variants (batch sizes, and with --engines and
--layouts more) the fastest of a short trial is the one that is measured.  Speaks the lines that
tools/bench_turns.c describes: `ready MUONS TEXT`, then for each `go` one repetition, answered by
`SECONDS MEGABYTES`.
"""
import argparse
import os
import resource
import sys
import tempfile
import time
import warnings

import numpy as np
import torch


def columns(path, names):
    """The named columns of a CSV file; an empty field is a NaN."""
    with open(path) as f:
        header = f.readline().strip().split(',')
        index = [header.index(name) for name in names]
        return np.genfromtxt(f, delimiter=',', usecols=index, ndmin=2)


def muons(folder):
    """Hits per event (cell, energy), features and true energies, by rising number of hits."""
    truth = columns(folder + '/truth.csv', ['energy'])[:, 0]
    with open(folder + '/features.csv') as f:
        features = columns(f.name, f.readline().strip().split(',')[1:])
    with open(folder + '/hits.csv') as f:
        assert f.readline().strip() == 'event,iz,ix,iy,energy'
        hits = np.fromstring(f.read().replace('\n', ','), sep=',').reshape(-1, 5)
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


def torch_work(a, layout, data):
    """A training step or the inference of one batch in PyTorch, as a function, and the network."""
    import torch_model
    x, f, y = (t.to(a.device) for t in data)
    torch.manual_seed(1)
    net, loss = torch_model.Net().to(a.device), torch_model.BinnedHuberMFSE()
    loss.kth = loss.kth.to(a.device)
    if layout == 'channels_last_3d':
        x = x.to(memory_format=torch.channels_last_3d)
        for m in net.modules():
            if isinstance(m, torch.nn.Conv3d):
                m.to(memory_format=torch.channels_last_3d)
    adam = torch.optim.Adam(net.parameters(), lr=1e-5, betas=(0.95, 0.999))
    weight = torch_model.weight(data[2]).to(a.device)

    def wait():
        if a.device != 'cpu':
            torch.cuda.synchronize()

    def step():
        adam.zero_grad()
        loss(net(x, f), y, weight).backward()
        adam.step()
        wait()

    def infer():
        with torch.no_grad():
            net(x, f)
        wait()

    if a.job == 'training':
        return step, net
    with torch.no_grad():
        net(x[:2], f[:2])            # fills the buffers of the batch norms
    net.eval()
    return infer, net


def onnx_work(a, net, data):
    """The same inference by onnxruntime."""
    import onnxruntime
    x, f, _ = data
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'net.onnx')
        torch.onnx.export(net, (x, f), path, input_names=['x', 'f'], dynamo=False)
        o = onnxruntime.SessionOptions()
        o.intra_op_num_threads = a.threads
        o.add_session_config_entry('session.force_spinning_stop', '1')   # others have their turn
        session = onnxruntime.InferenceSession(path, o, providers=['CPUExecutionProvider'])
    feed = {'x': x.numpy(), 'f': f.numpy()}
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, feed)[0], net(x, f), rtol=1e-3, atol=1e-3)
    return lambda: session.run(None, feed)


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def enough_memory(a, n):
    """7 GB at 256 in training; /proc/meminfo in kB."""
    need = n * (28 if a.job == 'training' else 8) + 500
    if a.device != 'cpu':
        return torch.cuda.mem_get_info()[0] / 1e6 > need
    try:
        with open('/proc/meminfo') as f:
            free = next(int(s.split()[1]) / 1024 for s in f if s.startswith('MemAvailable'))
    except (OSError, StopIteration):
        return True
    if free < need:
        print('bench_torch.py: batch %d is left out: it needs about %d MB, %d are free'
              % (n, need, free), file=sys.stderr)
    return free >= need


def variants(a, events, grid):
    """(batch, text, function) one after the other."""
    name = 'PyTorch ' + torch.__version__
    for n in (int(n) for n in a.batch.split(',')):
        if not enough_memory(a, n):
            continue
        data = batch(events, n, grid)
        for layout in a.layouts.split(','):
            work, net = torch_work(a, layout, data)
            yield n, '%s, %s, batch %d' % (name, layout, n), work
        if a.job == 'inference' and 'onnxruntime' in a.engines:
            import onnxruntime
            work, net = torch_work(a, 'contiguous', data)
            yield n, 'onnxruntime %s, batch %d' % (onnxruntime.__version__, n), \
                onnx_work(a, net, data)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--oracle', required=True, help='folder of torch_model.py')
    p.add_argument('--muons', required=True, help='folder of hits.csv, truth.csv, features.csv')
    p.add_argument('--job', choices=['training', 'inference'], required=True)
    p.add_argument('--batch', default='256', help='batches to choose from, with commas')
    p.add_argument('--layouts', default='contiguous', help='contiguous,channels_last_3d')
    p.add_argument('--engines', default='torch', help='torch,onnxruntime (for inference)')
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--device', default='cpu', help='cpu or cuda; there in TF32 too with --tf32')
    p.add_argument('--tf32', action='store_true', help='tensor cores, as --math fast has them')
    p.add_argument('--grid', default='50,32,32', help='cells in z, x, y')
    a = p.parse_args()
    sys.dont_write_bytecode = True
    warnings.simplefilter('ignore')
    sys.path.insert(0, a.oracle)
    torch.set_num_threads(a.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = a.tf32
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)                    # what libraries print is no answer
    events = muons(a.muons)
    best = None
    for n, text, work in variants(a, events, [int(i) for i in a.grid.split(',')]):
        work()
        times = [seconds(work), seconds(work)]
        while sum(times) < 2:
            times.append(seconds(work))
        t = min(times) / n
        print('  trial: %-48s%9.3f ms per muon' % (text, 1e3 * t), file=sys.stderr)
        if best is None or t < best[0]:
            best = t, n, text, work
        del work
    if best is None:
        sys.exit('bench_torch.py: not enough memory')
    _, n, text, work = best
    print('ready %d %s, %s, %d threads' % (n, a.job, text, a.threads), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() != 'go':
            break
        t = seconds(work)
        peak = (torch.cuda.max_memory_allocated() if a.device != 'cpu'
                else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024) / 1e6
        print('%.9g %.6g' % (t, peak), file=answers, flush=True)


if __name__ == '__main__':
    main()
