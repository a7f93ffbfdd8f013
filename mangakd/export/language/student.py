"""`Student`: what is known of a folder with a causal language model before its weights are read."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.export.checks import KEY
from mangakd.models import language, load
from mangakd.models.adapter_folder import base_of
from mangakd.models.folder import check_tokenizer_files
from mangakd.models.heads import has_class
from mangakd.models.location import locate, source_of
from mangakd.models.outline import Outline
from mangakd.models.quiet import quiet
from mangakd.store.files import sha256


@dataclass(frozen=True)
class Student:
    """folder: as it was given. where: the same, or a folder of the cache with its adapters merged. dtype: of the export's
    weights.

    tokenizer: which reads names of special tokens as these tokens, as servers do.
    """

    folder: Path
    where: Path
    config: Any
    tokenizer: Any
    dtype: torch.dtype

    @property
    def context(self) -> int:
        """Tokens of a text that the model was made for."""
        positions = getattr(self.config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        window = getattr(self.config, "sliding_window", None) if _slides(self.config) else None
        return int(min(positions, window or positions))

    @property
    def chat(self) -> bool:
        return bool(self.tokenizer.chat_template)

    @property
    def outline(self) -> Outline:
        return load.outline_for(str(self.where), Head("tokens", 0), KEY)

    def read(self) -> Any:
        """The model in fp32, with a head that is tied if its weights are those of the embeddings."""
        model = load.read_model(self.outline, str(self.where), KEY)
        language.prepare(model)
        return model

    @cached_property
    def source(self) -> dict[str, Any]:
        """The manifest's source entry: the origin of the weights, and the tokenizer's files."""
        weights = self.folder / "model.safetensors"
        whole = weights.is_file() and self.where == self.folder  # without an adapter
        digest = sha256(weights) if whole else self.outline.digest(torch.float32)
        names = (
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "generation_config.json",
            "config.json",
        )
        files = {name: sha256(self.where / name)[:16] for name in names if (self.where / name).is_file()}
        return {
            "folder": self.folder.resolve().name, "sha256": digest, "files": files,
            "parameters": sum(p.numel() for p in self.outline.model.parameters()),
        }  # fmt: skip


def is_language(config: Any) -> bool:
    """Whether a config is that of a decoder whose architecture predicts the next token."""
    named = " ".join(config.architectures or ())
    return not config.is_encoder_decoder and has_class(config, "tokens") and ("CausalLM" in named or "LMHead" in named)


def read(folder: Path) -> Student:
    """Raises UserError for a folder without a causal language model, without a tokenizer, or with an adapter that has no base."""
    base = base_of(folder, str(folder), KEY, locate)
    with source_of(str(folder), KEY) as found:
        where = Path(found)
        check_tokenizer_files(where, str(folder), KEY)
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(where, split_special_tokens=False)
    config = load.load_config(str(where), KEY)
    if "For" in " ".join(config.architectures or ()) and not is_language(config):
        raise UserError(
            f"{KEY}={folder} is a {', '.join(config.architectures)}, no causal language model, which these variants are of. "
            "Others are exported with export=[openvino,onnx]."
        )
    language.check_config(config, f"{KEY}={folder}")
    if not tokenizer.is_fast:
        raise UserError(
            f"{KEY}={folder} holds no tokenizer.json. Save one beside the model with tokenizer.save_pretrained."
        )
    student = Student(folder, where, config, tokenizer, torch.float32)
    dtype = (student if base is None else Student(folder, base, config, tokenizer, torch.float32)).outline.dtype
    return Student(folder, where, config, tokenizer, dtype)


def _slides(config: Any) -> bool:
    return bool(getattr(config, "use_sliding_window", True))
