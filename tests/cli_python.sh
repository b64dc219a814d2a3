#!/bin/sh
# cli_python.sh - the Python package: built by pip as a user does it, against the program
#
# usage: cli_python.sh PROGRAM [TESTDATA [TMPDIR]].  PYTHON: with numpy, setuptools, venv.
# PYTHON_VENV: a python with uproot, awkward, pyarrow, scikit-learn (and a newer numpy) as well; the
# tests are run there, too.  What is not there is skipped, aloud.
. "$(dirname "$0")/cli_lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here")
cli_begin "${1:-./calomu}" "${2:-testdata}" "${3:-build/tmp}" cli_python
OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
CC=${CC:-cc}
export OMP_WAIT_POLICY PYTHONDONTWRITEBYTECODE PIP_DISABLE_PIP_VERSION_CHECK CC

# counted WHAT COMMAND...: lines PASS and FAIL of a test in Python, which must end with 0
counted()
{
    what=$1
    shift
    "$@" >"$TMP/lines" 2>"$TMP/err" </dev/null || fail "$what ended early" "$(tail -n 1 "$TMP/err")"
    passed=$((passed + $(grep -c '^PASS' "$TMP/lines")))
    grep '^SKIP' "$TMP/lines"
    skipped=$((skipped + $(grep -c '^SKIP' "$TMP/lines")))
    grep '^FAIL' "$TMP/lines" >"$TMP/bad"
    while read -r line; do fail "$what: $line"; done <"$TMP/bad"
}

# a copy: what pip builds in the tree is not the checkout's
mkdir "$TMP/tree" && cp "$root/calomu.c" "$root/calomu.h" "$TMP/tree" &&
    mkdir "$TMP/tree/tools" && cp -R "$root/tools/simulation" "$root/tools/python" \
        "$TMP/tree/tools" || exit 1
rm -rf "$TMP/tree/tools/python/build" "$TMP/tree/tools/python/engine"
package=$TMP/tree/tools/python

# tested PYTHON: a wheel from an sdist, away from the tree, and all tests with it
tested()
{
    python=$1
    name=$(basename "$(mktemp -d "$TMP/install.XXXXXX")")
    check "sdist ($python)" 0 "" "$python" -c "import os, sys; os.chdir(sys.argv[1])
from setuptools import build_meta as b; b.build_sdist(sys.argv[2])" "$package" "$TMP/$name"
    sdist=$(ls "$TMP/$name"/*.tar.gz)
    check "the sdist holds calomu.c ($python)" 0 engine/calomu.c tar -tzf "$sdist"
    check "pip install ($python)" 0 "" "$python" -m pip install -q --no-build-isolation --no-deps \
        --no-index --target "$TMP/$name/lib" "$sdist"
    PYTHONPATH=$TMP/$name/lib
    export PYTHONPATH
    counted "core ($python)" "$python" "$here/python_core.py" "$DATA" "$TMP/$name" "$PROGRAM" \
        "$root"
    for t in sklearn convert; do
        [ -f "$here/python_$t.py" ] || continue
        counted "$t ($python)" "$python" "$here/python_$t.py" "$DATA" "$TMP/$name" "$PROGRAM"
    done
    if "$python" -c 'import matplotlib' 2>/dev/null; then
        mkdir "$TMP/$name/hour" && sed -n '/^```python$/,/^```$/{/^```/d;p}' "$package/README.md" \
            >"$TMP/$name/hour/first_hour.py"
        cd "$TMP/$name/hour" || exit 1
        check "README's first hour ($python)" 0 "calomu.Evaluation: MI" "$python" first_hour.py
        check "and its plots" 0 "" test -s predictions.png -a -s muon.png -a -s model.safetensors
        cd "$root" || exit 1
    else
        skip "README's first hour with $python: no matplotlib"
    fi
    unset PYTHONPATH
}

some=
for p in "${PYTHON:-python3}" ${PYTHON_VENV:-}; do
    if "$p" -c 'import numpy, setuptools, pip, wheel' 2>/dev/null; then
        tested "$p"
        some=1
    else
        skip "the Python package with $p: it needs numpy, setuptools, wheel and pip"
    fi
done
[ -n "$some" ] || skip "the Python package: no test of it was run"
if [ -z "${PYTHON_VENV:-}" ]; then
    skip "the newest numpy, uproot, pyarrow, scikit-learn: no PYTHON_VENV"
fi
cli_end
