"""Builds the shared library of calomu.c and tools/simulation/simulate.c with the compiler at hand.

In a checkout the sources are two folders up; they are copied to engine/, which goes into the sdist,
so that one is whole without a checkout."""
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

try:                                     # setuptools >= 70.1 has its own
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:
    try:
        from wheel.bdist_wheel import bdist_wheel
    except ImportError:
        bdist_wheel = None

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1] if len(HERE.parents) > 1 else HERE


def copy_engine():
    if not (ROOT / "calomu.c").is_file() or not (ROOT / "tools/simulation").is_dir():
        if not (HERE / "engine/calomu.c").is_file():
            raise SystemExit("calomu: neither ../../calomu.c nor engine/calomu.c is there: build "
                             "from a whole checkout or from an sdist")
        return
    shutil.rmtree(HERE / "engine", ignore_errors=True)
    (HERE / "engine/simulation").mkdir(parents=True)
    for name in ("calomu.c", "calomu.h"):
        shutil.copy2(ROOT / name, HERE / "engine" / name)
    used = sorted((ROOT / "tools/simulation").glob("*.h"))
    for path in used + [ROOT / "tools/simulation/simulate.c"]:
        shutil.copy2(path, HERE / "engine/simulation" / path.name)


class Build(build_ext):
    """A plain shared library, which ctypes opens: it needs no Python.h and fits every Python."""

    def get_ext_filename(self, name):
        ending = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
        return os.path.join(*name.split(".")) + ending

    def build_extension(self, ext):
        compiler = os.environ.get("CC", "cc").split()
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        flags = ["-O2", "-std=c99", "-ffp-contract=off", "-fPIC", "-Iengine",
                 "-Iengine/simulation"] + os.environ.get("CFLAGS", "").split()
        if self.has_openmp(compiler):
            flags.append("-fopenmp")
        else:
            print("calomu: this compiler has no OpenMP: one thread", file=sys.stderr)
        command = compiler + flags + ["-shared", "-o", str(target)] + ext.sources
        print(" ".join(command + ["-lm"]), file=sys.stderr)
        try:
            subprocess.run(command + ["-lm"], check=True)
        except FileNotFoundError:
            raise SystemExit(f"calomu: no C compiler '{compiler[0]}': install one, or set CC")

    @staticmethod
    def has_openmp(compiler):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "t.c"
            source.write_text("#include <omp.h>\nint main(void) { return omp_get_num_threads() < 1; }\n")
            return subprocess.run(
                compiler + ["-fopenmp", str(source), "-o", str(Path(folder) / "t")],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


commands = {"build_ext": Build}
if bdist_wheel:
    class Wheel(bdist_wheel):
        def get_tag(self):
            return ("py3", "none", super().get_tag()[2])

    commands["bdist_wheel"] = Wheel

os.chdir(HERE)
copy_engine()
setup(cmdclass=commands,
      ext_modules=[Extension("calomu.libcalomu", ["engine/calomu.c",
                                                  "engine/simulation/simulate.c"])])
