#!/usr/bin/env bash
# safetensors 0.8.0: the bytes of a file with two or more metadata entries differ from save to save, because the entries are written
# in a random order. With one entry they are always the same. Output seen, of 100 saves of the same tensor in one process:
#   0.8.0: 2 different files with two entries, 1 with one entry
# For us: mangakd/teachers/lm_head_file.py names a file by the hash of its content, so it writes one entry, which is JSON.
# Exits with 1 where the behaviour has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/order.py" <<'PY'
import numpy as np
from safetensors import __version__
from safetensors.numpy import save

tensors = {"weight": np.zeros(1, np.float32)}
two, one = (len({save(tensors, entries) for _ in range(100)}) for entries in ({"one": "1", "two": "2"}, {"one": "1"}))
print(f"{__version__}: {two} different files with two entries, {one} with one entry")
PY
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install -q safetensors==0.8.0 numpy==2.3.5 2>/dev/null
"$folder/environment/bin/python" "$folder/order.py" | tee "$folder/seen"
diff <(echo "0.8.0: 2 different files with two entries, 1 with one entry") "$folder/seen"
