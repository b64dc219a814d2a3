#!/bin/sh
# bits.sh - the cells of matrix.sh that `make test` runs: the compilers of this machine
#
# usage: bits.sh PROGRAM [TESTDATA [TMPDIR]]
exec sh "$(dirname "$0")/matrix.sh" --native "$@"
