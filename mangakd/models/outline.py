"""`Outline`: a model as its config and the headers of its weight files describe it. No weight is read.

transformers itself matches the names: `from_pretrained` is given stand-ins of the headers' shapes, which take no memory. Each is
filled with a number of its own: transformers does not tie two weights that differ.
So the outline has the missing, unexpected and mismatched names of a real load, and knows the file of every weight.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.modeling_utils import load_state_dict
from transformers.utils import cached_file
from transformers.utils.hub import get_checkpoint_shard_files

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.models import heads
from mangakd.models.folder import check_depth
from mangakd.models.quiet import quiet

FILES = (  # in the order in which transformers looks for them
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Source:
    """Where a weight is: its file, its name there, and a meta tensor of its shape and dtype."""

    file: str
    name: str
    header: Tensor


@dataclass(frozen=True)
class Outline:
    """model: its weights are stand-ins; weights that the files lack are initialised from torch's seed, as a real load does.

    head: that of `model`. info: transformers' lists of names. sources: name in the model's state_dict → its file. where: folder
    or hub id.
    """

    model: Any
    head: Head
    info: dict[str, Any]
    sources: dict[str, Source]
    where: str

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of the checkpoint; float32 if it has several, or one that no profile has."""
        dtypes = {source.header.dtype for source in self.sources.values() if source.header.is_floating_point()}
        return dtypes.pop() if len(dtypes) == 1 and dtypes <= set(DTYPES) else torch.float32

    def read(self, dtype: torch.dtype) -> Any:
        """The model with its weights."""
        model = heads.auto(self.head.kind, self.model.config).from_pretrained(
            self.where, config=self.model.config, dtype=dtype, ignore_mismatched_sizes=True
        )
        drop_pooler(model, self.info["missing_keys"])
        return model.to(dtype)  # some classes keep a few weights in float32

    def digest(self, dtype: torch.dtype) -> str:
        """`encoder_digest` of the model as read in `dtype`, from its files: one weight at a time is in memory."""
        weights = self._weights(dtype)
        with torch.random.fork_rng(devices=[]):
            head = heads.states_head(self.head.kind, self.model.config)
        return weights if head is None else head.digest(weights)

    def _weights(self, dtype: torch.dtype) -> str:
        """`weights_digest` of the model.

        Weights that are not in the files as the model has them (experts that are put together) are read with the model.
        """
        names = self.model.state_dict().keys() - self.sources.keys()
        if names <= self.info["missing_keys"] | {name for name, *_ in self.info["mismatched_keys"]}:
            return digest_of((name, t.to(dtype) if t.is_floating_point() else t) for name, t in self._tensors())
        with quiet():
            return weights_digest(self.read(dtype))

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The state_dict in the order of its names."""
        readers = {file: _reader(file) for file in {source.file for source in self.sources.values()}}
        for name, tensor in sorted(self.model.state_dict().items()):
            source = self.sources.get(name)
            yield name, tensor if source is None else readers[source.file](source.name)

    def weight(self, parameter: Tensor) -> Tensor:
        """One weight of `model`, read in float32."""
        name = next(name for name, other in self.model.state_dict().items() if _same(other, parameter))
        source = self.sources.get(name)
        return parameter if source is None else _reader(source.file)(source.name).float()


def outline_of(config: Any, head: Head, where: str, path: str, key: str) -> Outline:
    """The model of `config`, which has this head, with the weights of the folder or hub id `where`.

    torch's random state stays as it is.

    Raises UserError where weights of the encoder itself are missing, are of whole numbers or have other shapes than config.json
    says, and where the files have more layers.
    """
    headers = {
        name: Source(file, name, header)
        for file in weight_files(where)
        for name, header in load_state_dict(file, map_location="meta").items()
    }
    stand_ins = {
        name: torch.tensor(i / 2**20).expand(each.header.shape) for i, (name, each) in enumerate(headers.items())
    }
    with torch.random.fork_rng(devices=[]):
        model, info = heads.class_of(config, head.kind).from_pretrained(
            None, config=config, state_dict=stand_ins, output_loading_info=True, dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    drop_pooler(model, info["missing_keys"])
    model.name_or_path = model.config.name_or_path = where
    names = {tensor.untyped_storage().data_ptr(): name for name, tensor in stand_ins.items()}
    pointers = {name: tensor.untyped_storage().data_ptr() for name, tensor in model.state_dict().items()}
    sources = {name: headers[names[pointer]] for name, pointer in pointers.items() if pointer in names}
    outline = Outline(model, head, info, sources, where)
    _check(outline, path, key)
    return outline


def _check(outline: Outline, path: str, key: str) -> None:
    model, info = outline.model, outline.info
    prefix = prefix_of(model)
    for name, given, wanted in sorted(info["mismatched_keys"]):
        if name.startswith(prefix):
            raise UserError(
                f"{key}={path}: {name} is {list(given)} in its weights and {list(wanted)} by the sizes of its config.json. They "
                f"do not belong together; give {key} a folder that save_pretrained wrote whole."
            )
    check_depth(model, info["unexpected_keys"], path, key)
    for name, _ in model.named_parameters():
        source = outline.sources.get(name)
        if source is not None and not source.header.is_floating_point():
            raise UserError(
                f"{key}={path}: {source.name} in {Path(source.file).name} is of dtype {str(source.header.dtype)[6:]}, not of a "
                f"floating one, so it is quantised or damaged. Give {key} the unquantised weights."
            )
    absent = sorted(name for name in info["missing_keys"] if name.startswith(prefix) and not in_pooler(name))
    if absent:
        longer = [name for name in info["unexpected_keys"] if name.endswith(absent[0])]
        instead = f" The file calls it {longer[0]}: save the model without its wrapper." if longer else ""
        raise UserError(
            f"{key}={path} lacks {len(absent)} encoder weights (such as {absent[0]}): damaged or another model.{instead} "
            f"Give {key} a folder that save_pretrained wrote whole."
        )


def weight_files(where: str) -> list[str]:
    """The files of a folder or hub id that hold its weights, several where it is sharded."""
    for name in FILES:
        if file := cached_file(where, name, _raise_exceptions_for_missing_entries=False):
            return list(get_checkpoint_shard_files(where, file)[0]) if name.endswith(".json") else [file]
    raise FileNotFoundError(f"there is no file named {FILES[0]} or {FILES[2]}")


def prefix_of(model: Any) -> str:
    """What the names of the encoder's weights begin with; empty for a model that is nothing but an encoder."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."


def drop_pooler(model: Any, missing: Iterable[str]) -> None:
    """Leave the pooler of a bare encoder out if its weights are missing: random weights would change the digest each time."""
    if model.base_model is model and any(map(in_pooler, missing)):
        model.pooler = None


def in_pooler(name: str) -> bool:
    """Whether a weight of this name is a pooler's."""
    return ".pooler." in f".{name}"


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 over names, shapes and bytes of all weights: changes when the model does, and only then."""
    return digest_of(sorted(model.state_dict().items()))


def digest_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """sha256 over names, shapes and bytes, in this order."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _reader(file: str) -> Callable[[str], Tensor]:
    """name → the tensor of that name, from the mapped file."""
    if file.endswith(".safetensors"):
        return safe_open(file, "pt").get_tensor
    return load_state_dict(file).__getitem__


def _same(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
