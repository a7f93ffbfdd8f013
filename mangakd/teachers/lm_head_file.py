"""The head of a stored language model, saved once beside its stored states.

The file's name holds the hash of its content, so that damage shows when it is read.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save

from mangakd.core.errors import UserError
from mangakd.core.token_logits import LmHead
from mangakd.store.files import sha256, write_atomic
from mangakd.store.manifest import REFILL

PREFIX, SUFFIX, ENTRY = "lm_head-", ".safetensors", "settings"


def save_head(folder: Path, head: LmHead) -> None:
    """Write the weights in the dtype of their products."""
    ready = head.ready()
    tensors = {"weight": ready.weight, **({} if ready.bias is None else {"bias": ready.bias})}
    settings = json.dumps({"scale": head.scale, "soft_cap": head.soft_cap})
    # Of several entries safetensors changes the order from process to process, and with it the bytes of the file.
    content = save({name: each.cpu().contiguous() for name, each in tensors.items()}, {ENTRY: settings})
    name = f"{PREFIX}{hashlib.sha256(content).hexdigest()[:16]}{SUFFIX}"
    write_atomic(folder / name, lambda file: file.write(content))


def head_file(folder: Path) -> Path | None:
    """The undamaged file in a store; None if there is none."""
    files = folder.glob(f"{PREFIX}*{SUFFIX}")
    return next((path for path in files if path.name == f"{PREFIX}{sha256(path)[:16]}{SUFFIX}"), None)


def read_head(folder: Path, device: torch.device) -> LmHead:
    """Raises UserError for a missing or damaged file."""
    path = head_file(folder)
    if path is None:
        raise UserError(
            f"the store {folder} holds states of a teacher and no undamaged {PREFIX}*{SUFFIX}, the head that they need. Write it "
            f"again: {REFILL}"
        )
    with safe_open(path, "pt", str(device)) as file:
        settings = json.loads(file.metadata()[ENTRY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return LmHead(**tensors, **settings, dtype=tensors["weight"].dtype)
