#!/bin/sh
# safetensors_metadata_order.sh - the same tensors and metadata give other bytes at every save
#
# safetensors 0.8.0 with numpy 2.2.6 (0.5.3 does the same).
# One would guess: equal input, equal file, as without metadata; the tensors are even sorted for it.
# It does: the entries of "__metadata__" come in the random order of a hash table, another one at
# every call, within one process too.  A model that went through Python unchanged, metadata and all,
# has another hash of the file each time: whoever keeps models by their sha256 finds none again.
# In calomu: metadata are written in a fixed order, and the checksum inside a model sorts them first,
# so a file that was only written again stays valid (tests/cli_model.sh, "another order").
#
# Exit 1 if it behaves otherwise.
set -e
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/v"
"$dir/v/bin/pip" install -q safetensors==0.8.0 numpy==2.2.6
cat >"$dir/save.py" <<'END'
import numpy as np
from safetensors.numpy import save
tensors = {"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)}
metadata = {"key%d" % i: str(i) for i in range(12)}
bare = {save(tensors) for _ in range(20)}
full = {save(tensors, metadata=metadata) for _ in range(20)}
print(len(bare), "file without metadata,", len(full), "with them, of 20 saves each")
raise SystemExit(not (len(bare) == 1 and len(full) >= 15))
END
"$dir/v/bin/python" "$dir/save.py"
