"""python_core.py DATA TMP PROGRAM ROOT - the package calomu against the program and calomu.h

Prints PASS or FAIL with what; cli_python.sh counts the lines."""
import os
import subprocess
import sys
import threading
import time

import numpy as np

import calomu
from calomu import _library as L

DATA, TMP, PROGRAM, ROOT = sys.argv[1:5]
os.chdir(TMP)


def test(what, good):
    print(("PASS " if good else "FAIL ") + what)


def refused(what, kind, text, call):
    try:
        call()
    except kind as e:
        test(what + ("" if text in str(e) else f": says '{e}', not '{text}'"), text in str(e))
    else:
        test(what + ": not refused", False)


def run(*arguments):
    subprocess.run([PROGRAM, *arguments], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)


def same(a, b):
    with open(a, "rb") as x, open(b, "rb") as y:
        return x.read() == y.read()


# ---------------------------------------------------------------- structs as the compiler has them

lines = []
for name, struct in L.STRUCTS.items():
    lines.append(f'printf("%zu\\n", sizeof({name}));')
    lines += [f'printf("%zu\\n", offsetof({name}, {f}));' for f, _ in struct._fields_]
with open("layout.c", "w") as f:
    f.write('#include "calomu.h"\n#include "tools/simulation/simulate.h"\n#include <stdio.h>\n'
            'int main(void) {\n' + "\n".join(lines) + "\nreturn 0; }\n")
subprocess.run([os.environ.get("CC", "cc"), "-I" + ROOT, "layout.c", "-o", "layout"], check=True)
c = list(map(int, subprocess.run(["./layout"], stdout=subprocess.PIPE).stdout.split()))
ours = []
for struct in L.STRUCTS.values():
    import ctypes
    ours += [ctypes.sizeof(struct)] + [getattr(struct, f).offset for f, _ in struct._fields_]
test("structs lie as the C compiler lays them", c == ours and len(c) > 100)

# ---------------------------------------------------------------- files

f = calomu.open(DATA + "/muons.cmu")
m = f[:]
test("a batch shares the library's memory", not m.hits.flags.owndata
     and not m.hits.flags.writeable and not m.x.flags.owndata)
calomu.write("copy.cmu", m)
test("read and written: the same bytes", same("copy.cmu", DATA + "/muons.cmu"))
p = calomu.open(DATA + "/points.cmu")
part = m[50:53]
test("slices of the set and of the file agree", all(
    (a.hits == b.hits).all() and (a.energy == b.energy).all() and (a.offsets == b.offsets).all()
    for a, b in ((part, f[50:53]), (m[[52, 50]], f[[52, 50]]), (m[m.energy > 4000],
                                                               f[m.energy > 4000]))))
kept = f[7:9].hits
before = kept.copy()
for k in range(5):
    f[k:k + 50]
test("an array outlives its batch", (kept == before).all())
test("an empty slice, a negative number", len(f[5:5]) == 0 and len(f[-1].hits) == m.counts[-1])
run("features", DATA + "/muons.cmu", "--out", "program.cmu")
g = calomu.with_features(m)
calomu.write("features.cmu", g)
test("features: the program's bytes", same("features.cmu", "program.cmu"))
test("features from a file", (calomu.open("program.cmu")[3:9].features == g.features[3:9]).all())
again = calomu.Muons.from_arrays(m.hits["cell"][::-1][:m.counts[-1]].astype(int),
                                 m.hits["energy"][::-1][:m.counts[-1]].astype(float) * 1000,
                                 [m.counts[-1]], unit="MeV")
test("hits in any order, in MeV", (again.hits["cell"] == m[219].hits["cell"]).all()
     and np.allclose(again.hits["energy"], m[219].hits["energy"], rtol=1e-6))

# ---------------------------------------------------------------- simulation

run("simulate", "--n", "12", "--seed", "5", "--first", "3", "--features",
    "--out", "simulated.cmu")
calomu.write("one.cmu", calomu.simulate(12, seed=5, first=3, features=True,
                                        threads=1))
calomu.simulate(12, seed=5, first=3, features=True, threads=3, out="three.cmu",
                chunk=5)
test("simulate: the program's bytes", same("one.cmu", "simulated.cmu"))
test("simulate: in chunks, 3 threads", same("three.cmu", "simulated.cmu"))
run("simulate", "--n", "3", "--energies", "100.1,3700", "--out", "fixed.cmu")
calomu.simulate(3, energies=[100.1, 3700], out="fixed2.cmu")
test("simulate: fixed energies", same("fixed2.cmu", "fixed.cmu"))

# ---------------------------------------------------------------- predictions

model = calomu.Model.load(DATA + "/model.safetensors")
run("predict", "--model", DATA + "/model.safetensors", "--data", DATA + "/points.cmu", "--out",
    "p.csv")
table = np.genfromtxt("p.csv", delimiter=",", names=True)
pred = model.predict(p)
test("predict: the program's digits", ["%.9g" % x for x in pred] == [
    line.split(",")[2] for line in open("p.csv").read().split()[1:]])
test("predict: memory and file, chunks, threads", (model.predict(p[:], threads=1) == pred).all()
     and (model.predict(p, chunk=7) == pred).all() and (calomu.predict(model, p[5:9])
                                                        == pred[5:9]).all())
e = calomu.evaluate(p[:].energy, pred)
text = subprocess.run([PROGRAM, "evaluate", "p.csv", "--points"], stdout=subprocess.PIPE,
                      stderr=subprocess.PIPE, universal_newlines=True).stdout
shown = [w for w in text.replace(",", " ").split()]
test("evaluate: the program's mean improvement", f"{e.mi:.2f}" in text or f"{e.mi:.3f}" in text
     or f"{e.mi:.1f}" in shown)
test("evaluate: bins", e.bins["n"].sum() <= len(pred) and len(e.bins) > 1 and e.points == 1)

# ---------------------------------------------------------------- training

options = ["--batch", "16", "--folds", "4", "--epochs", "3", "--cycle-epochs", "2"]
ours = dict(batch=16, folds=4, epochs=3, cycle_epochs=2)
run("train", "--data", "program.cmu", "--out", "a.safetensors", "--inputs", "features",
    "--members", "2", "--energy-range", "auto", "--shuffle", *options)
seen = []
both = calomu.train(g, inputs="features", members=2, energy_range="auto", shuffle=1,
                    callback=lambda r: seen.append(r.kind) and None, **ours)
both.save("b.safetensors")
test("train: an ensemble has the program's bytes", same("a.safetensors", "b.safetensors"))
test("train: the callback saw 6 epochs", seen.count(3) == 6)
run("train", "--data", DATA + "/muons.cmu", "--out", "h.safetensors", "--batch", "16", "--folds",
    "4", "--epochs", "1", "--cycle-epochs", "1", "--blocks", "1")
hybrid = dict(batch=16, folds=4, epochs=1, cycle_epochs=1, blocks=1)


class Halt(Exception):
    pass


def halt(report):
    if report.updates == 3:
        raise Halt


try:
    calomu.train(f, checkpoint="h.checkpoint", callback=halt, **hybrid)
    test("train: an exception of the callback comes out", False)
except Halt:
    test("train: an exception of the callback comes out", os.path.exists("h.checkpoint"))
refused("train: a checkpoint in the way", calomu.UsageError, "resume=True",
        lambda: calomu.train(f, checkpoint="h.checkpoint", **hybrid))
calomu.train(f, checkpoint="h.checkpoint", resume=True).save("h2.safetensors")
test("train: stopped and resumed, the hybrid has the program's bytes",
     same("h2.safetensors", "h.safetensors"))
test("train: the checkpoint is gone", not os.path.exists("h.checkpoint"))
run("train", "--data", "program.cmu", "--out", "s.safetensors", "--start", "b.safetensors",
    *options)
calomu.train(g, start=both, **ours).save("s2.safetensors")
test("train: fine-tuned, the program's bytes", same("s2.safetensors", "s.safetensors"))

# ---------------------------------------------------------------- the GIL

ticks, going = [], True


def tick():
    while going:
        ticks.append(time.monotonic())
        time.sleep(0.001)


thread = threading.Thread(target=tick)
thread.start()
begin = time.monotonic()
L.sim.new(None, ctypes.byref(L.sim.options_default()), ctypes.byref(L.ptr()), None)
length = time.monotonic() - begin
inside = sum(begin < t < begin + length for t in ticks)
going = False
thread.join()
test(f"the GIL is released: {inside} ticks in a call of {length:.2f} s", inside > 20)

# ---------------------------------------------------------------- refusals

usage, fmt = calomu.UsageError, calomu.FormatError
arrays = calomu.Muons.from_arrays
refused("no such file", calomu.FileError, "nowhere.cmu", lambda: calomu.open("nowhere.cmu"))
refused("no .cmu", fmt, "model.safetensors", lambda: calomu.open(DATA + "/model.safetensors"))
refused("no unit", TypeError, "unit", lambda: arrays([1], [1.0], [1]))
refused("a wrong unit", usage, "'eV'", lambda: arrays([1], [1.0], [1], unit="eV"))
refused("cells as floats", usage, "cell: type float64", lambda: arrays([1.], [1.], [1], unit="GeV"))
refused("text for energies", usage, "hit_energy: type <U1",
        lambda: arrays([1], ["a"], [1], unit="GeV"))
refused("lengths", usage, "2 cells and 1 energies", lambda: arrays([1, 2], [1.], [2], unit="GeV"))
refused("counts", usage, "counts: sum 3", lambda: arrays([1, 2], [1., 2.], [3], unit="GeV"))
refused("a cell outside", usage, "51200", lambda: arrays([51200], [1.], [1], unit="GeV"))
refused("a negative cell", usage, "-1", lambda: arrays([-1], [1.], [1], unit="GeV"))
refused("a NaN", usage, "finite", lambda: arrays([1], [np.nan], [1], unit="GeV"))
refused("shape of x", usage, "x: shape (2,)",
        lambda: arrays([1], [1.], [1], unit="GeV", x=[1., 2.]))
refused("shape of features", usage, "features: shape (1, 27)",
        lambda: arrays([1], [1.], [1], unit="GeV", features=np.zeros((1, 27))))
refused("a cell twice", fmt, "twice",
        lambda: calomu.write("twice.cmu", arrays([1, 1], [1., 1.], [2], unit="GeV")))
test("and leaves no file", not [n for n in os.listdir(".") if "twice" in n])
refused("hits of another type", usage, "calomu.HIT", lambda: calomu.Muons(np.zeros(3), [0, 3]))
refused("an unknown option", usage, "no option batches", lambda: calomu.train(g, batches=3))
refused("an option that is none", usage, "batch", lambda: calomu.train(g, batch=2**40))
refused("training without muons enough", calomu.Error, "batch", lambda: calomu.train(m[:3]))
refused("two geometries", fmt, "mm",
        lambda: model.predict(calomu.Muons(m.hits[:0], [0, 0], geometry=calomu.Geometry(
            (50, 32, 32), (40.64, 3.7, 3.75)))))
refused("predictions of other lengths", usage, "2 true and 1",
        lambda: calomu.evaluate([1., 2.], [1.]))
refused("a geometry", usage, "geometry", lambda: calomu.Geometry.parse("1,2"))
