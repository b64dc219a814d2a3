"""The peer of cli_torch.sh: networks of PyTorch on one side, calomu's files on the other.

usage: torch_peer.py make  TORCH_MODEL.py FOLDER    networks, their state_dicts and predictions
       torch_peer.py back  TORCH_MODEL.py FOLDER    a model of calomu, as it comes back from Python
       torch_peer.py check TORCH_MODEL.py FOLDER    compares with what calomu has made of them

FOLDER holds hits.csv and features.csv of some muons, as calomu exports them.  Predictions of
PyTorch are in float64, so that the difference is calomu's rounding alone.
"""
import importlib.util
import json
import struct
import sys
from pathlib import Path

import numpy as np
import torch

TOLERANCE = 2e-5                     # norm-wise, of float32 against float64
SUMS = [0, 26, 27]                   # the energy sums among the 28 features

# name: arguments of Net, training passes that fill the buffers of the batch norms (9 muons each;
# below 20 muons the variance is at least 0.01), energy-sum weights in the file, features
# standardised, type of the file
NETS = {
    "hybrid1": (dict(n_blocks=1), 1, True, True, torch.float32),
    "hybrid": (dict(), 3, False, True, torch.float32),
    "hits": (dict(n_blocks=1, n_hl=0), 3, True, True, torch.float32),
    "features": (dict(head=False), 0, True, True, torch.float32),
    "raw": (dict(head=False, fc=24), 0, True, False, torch.float32),
    "sums": (dict(head=False, n_hl=3), 0, True, True, torch.float32),
    "other": (dict(n_blocks=2, c_coef=1.3, fc=32), 2, False, True, torch.float64),
}
# models that calomu has trained itself
TRAINED = {
    "trained": dict(n_blocks=1, c_coef=1.25, fc=20),
    "trained_features": dict(head=False),
}
# the same back from Python: with its metadata and other weights, and in types of half the size, in
# which float16 does not hold the buffers of the batch norms
BACK = ["tuned", "half", "bfloat16"]
DTYPES = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
KINDS = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16"}


def save_safetensors(path, tensors, meta=None):
    header, data, at = {"__metadata__": meta} if meta else {}, b"", 0
    for name, t in tensors.items():
        t = t.detach().contiguous()
        kind = KINDS[t.dtype]
        raw = (t.view(torch.int16) if t.element_size() == 2 else t).numpy().tobytes()
        header[name] = dict(dtype=kind, shape=list(t.shape), data_offsets=[at, at + len(raw)])
        data, at = data + raw, at + len(raw)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def load_safetensors(path):
    raw = path.read_bytes()
    start = 8 + struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:start])
    meta = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        low, high = t["data_offsets"]
        values = np.frombuffer(raw[start + low:start + high], DTYPES[t["dtype"]])
        tensors[name] = torch.from_numpy(values.copy()).reshape(t["shape"])
    return tensors, meta


def read_muons(folder):
    features = np.loadtxt(folder / "features.csv", delimiter=",", skiprows=1)[:, 1:]
    hits = np.loadtxt(folder / "hits.csv", delimiter=",", skiprows=1)
    grid = torch.zeros(len(features), 1, 50, 32, 32)
    event, iz, ix, iy = (torch.from_numpy(hits[:, k].astype(np.int64)) for k in range(4))
    grid[event, 0, iz, ix, iy] = torch.from_numpy(hits[:, 4].astype(np.float32))
    return grid, features


def inputs(features, options, mean, deviation):
    menu = {28: list(range(28)), 3: SUMS, 0: []}[options.get("n_hl", 28)]
    x = (features.astype(np.float32).astype(np.float64) - mean) / deviation
    return torch.from_numpy(x[:, menu]) if menu else None


def predict(net, grid, hl):
    with torch.no_grad():
        return net.double().eval()(grid.double(), hl)[:, 0].numpy()


def train_buffers(net, grid, hl, passes):
    """Running means and variances of real muons; the learned parts of the norms are moved too."""
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad and p.dim() in (1, 4):    # biases and the norms' weights
                p += 0.1 * torch.randn_like(p)
        for _ in range(passes):
            net.train()(grid, None if hl is None else hl.float())


def make(model, folder):
    torch.manual_seed(20220079)
    grid, features = read_muons(folder)
    names = (folder / "features.csv").read_text().split("\n", 1)[0].split(",")[1:]
    mean, deviation = features.mean(0), features.std(0)
    rows = zip(names, mean, deviation)
    (folder / "standard.csv").write_text(
        "feature,mean,std\n" + "".join(f"{n},{m:.17g},{d:.17g}\n" for n, m, d in rows))
    deviation[deviation == 0] = 1
    for name, (options, passes, sums, standardised, dtype) in NETS.items():
        hl = inputs(features, options, mean if standardised else 0,
                    deviation if standardised else 1)
        net = model.Net(**options)
        train_buffers(net, grid, hl, passes)
        state = {k: v.to(dtype) for k, v in net.state_dict().items() if sums or "esum" not in k}
        save_safetensors(folder / f"{name}.st", state)
        np.save(folder / f"{name}.npy", predict(net, grid, hl))


def back(model, folder):
    grid, features = read_muons(folder)
    options = TRAINED["trained"]
    tensors, meta = load_safetensors(folder / "trained.model")
    mean, deviation = (np.array([float(x) for x in meta[k].split(" ")])
                       for k in ("mean", "deviation"))
    hl = inputs(features, options, mean, deviation)
    net = model.Net(**options)
    net.load_state_dict(tensors)
    save_safetensors(folder / "wrapped.st", torch.nn.DataParallel(net).state_dict())
    tuned = {k: 1.01 * v if "esum" not in k else v for k, v in tensors.items()}
    half = {k: v.half() if k.split(".")[-1] in ("weight", "bias") else v
            for k, v in tensors.items()}
    bfloat16 = {k: v.bfloat16() for k, v in tensors.items()}
    for name, state in zip(BACK, (tuned, half, bfloat16)):
        save_safetensors(folder / f"{name}.st", state, meta if name == "tuned" else None)
        net = model.Net(**options)
        net.load_state_dict({k: v.float() for k, v in state.items()})
        np.save(folder / f"{name}.npy", predict(net, grid, hl))


def compare(name, got, expected):
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    spread = np.std(expected) / np.linalg.norm(expected)
    good = error <= TOLERANCE and spread > 100 * TOLERANCE
    print(f"{'ok' if good else 'BAD'} {name}: off by {error:.2g}, spread {spread:.2g}")


def check_tensors(name, folder, state, tensors):
    """What came from PyTorch must go back with the same bits, the fixed energy sums added."""
    sent, _ = load_safetensors(folder / f"{name}.st")
    same = all(torch.equal(tensors[k].double(), t.double()) for k, t in sent.items())
    fixed = all(torch.equal(tensors[k], state[k]) for k in state if "esum" in k)
    print(f"{'ok' if same and fixed else 'BAD'} {name}, to PyTorch: the same tensors")


def check(model, folder):
    grid, features = read_muons(folder)
    options = {name: net[0] for name, net in NETS.items()}
    for name, net_options in {**options, **TRAINED}.items():
        table = folder / f"{name}.pred"
        if not table.exists():
            print(f"BAD {name}: calomu has made no predictions")
            continue
        got = np.loadtxt(table, delimiter=",", skiprows=1, ndmin=2)[:, 2]
        tensors, meta = load_safetensors(folder / f"{name}.model")
        net = model.Net(**net_options)
        fresh = {k: v.clone() for k, v in net.state_dict().items()}
        net.load_state_dict(tensors, strict=True)
        if name in NETS:
            compare(f"{name}, from PyTorch", got, np.load(folder / f"{name}.npy"))
            check_tensors(name, folder, fresh, tensors)
            continue
        mean = np.array([float(x) for x in meta["mean"].split(" ")])
        deviation = np.array([float(x) for x in meta["deviation"].split(" ")])
        hl = inputs(features, net_options, mean, deviation)
        compare(f"{name}, to PyTorch", got, predict(net, grid, hl))
    for name in BACK:
        got = np.loadtxt(folder / f"{name}.pred", delimiter=",", skiprows=1, ndmin=2)[:, 2]
        compare(f"{name}, back from PyTorch", got, np.load(folder / f"{name}.npy"))


def main():
    verb, path, folder = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("torch_model", path)
    model = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(model)
    torch.set_num_threads(1)
    {"make": make, "back": back, "check": check}[verb](model, Path(folder))


if __name__ == "__main__":
    main()
