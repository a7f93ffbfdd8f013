"""A Hugging Face encoder folder as one graph: int64 arrays in, float32 logits or embeddings out.

torch.export traces the model once, with dynamic batch size and length. ONNX and OpenVINO both convert that program. So two
variants differ in backend and precision, never in the model.
Source: torch.export, https://docs.pytorch.org/docs/stable/export.html
"""

import copy
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.tokenising import makes_types
from mangakd.export.checks import KEY, check_late, check_names, check_no_head, check_pairs
from mangakd.export.late import Apart
from mangakd.export.manifest import TOKENIZER_FILE
from mangakd.export.traced import BATCH, SEQUENCE, Batches, Traced, trace
from mangakd.models import attention, load
from mangakd.models.heads import AUTO, states_head
from mangakd.models.late import of_folder
from mangakd.models.outline import weights_digest
from mangakd.models.pooling import Pooling, VectorHead, read_head
from mangakd.models.sentence_transformers import Settings, kind_of, read_settings
from mangakd.models.token_head import TokenHead
from mangakd.runtime.decoding import Decoding
from mangakd.runtime.late import VECTORS
from mangakd.runtime.manifest import OUTPUT
from mangakd.runtime.model import Model
from mangakd.runtime.tokenise import Text, whole
from mangakd.runtime.turns import Turns
from mangakd.store.files import sha256

DEFAULT_LENGTH = 128
MODEL = "model"  # stem of the file
_ALWAYS = ("input_ids", "attention_mask")


class Answer(nn.Module):
    """forward(input_ids, attention_mask, token_type_ids) → (B, C) logits, (B, D) of a VectorHead, (B, T, D) of a TokenHead."""

    def __init__(self, model: Any, pooling: VectorHead | TokenHead | None) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        raw = self.model(input_ids=input_ids, attention_mask=attention_mask, **more)
        # Mask tokens of a query count, and attention may not see them: the runtime knows which tokens count.
        mask = torch.ones_like(attention_mask) if isinstance(self.pooling, TokenHead) else attention_mask
        answer = raw.logits if self.pooling is None else self.pooling(raw.last_hidden_state, mask)
        return answer.float()


@dataclass(frozen=True)
class Graph:
    """A student for the export: its module in eval mode, its inputs and its outputs.

    pairs: it scores a query with a document. prompts: what sentence-transformers' settings say. apart: of late interaction.
    decoding, turns: how it writes (export/seq2seq.py).
    """

    folder: Path
    module: Answer
    inputs: tuple[str, ...]
    head: Head
    tokenizer: Any
    max_length: int
    pairs: bool = False
    prompts: Settings = field(default_factory=Settings)
    apart: Apart | None = None
    decoding: Decoding | None = None
    turns: Turns | None = None

    @property
    def output(self) -> str:
        return VECTORS if self.apart else OUTPUT[self.head.kind]

    @property
    def stem(self) -> str:
        """Of the file's name."""
        return MODEL

    @property
    def outputs(self) -> tuple[str, ...]:
        return (self.output,)

    @property
    def judged(self) -> tuple[str, ...]:
        return self.outputs

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """A vector for each token has a sequence, too."""
        of_output = (BATCH, SEQUENCE) if self.apart else (BATCH,)
        return {**dict.fromkeys(self.inputs, (BATCH, SEQUENCE)), self.output: of_output}

    @property
    def parts(self) -> Sequence[Traced]:
        """Each becomes a file."""
        return (self,)

    @property
    def settings(self) -> dict[str, Any]:
        """The manifest's tokenizer entry. Padding is on the right, whatever the side in training: masks hide padding."""
        tokenizer = self.tokenizer
        return {
            "file": TOKENIZER_FILE, "max_length": self.max_length, "truncation_side": tokenizer.truncation_side,
            "pad_id": tokenizer.pad_token_id, "pad_type_id": tokenizer.pad_token_type_id,
        }  # fmt: skip

    def source(self) -> dict[str, Any]:
        """The manifest's source entry: the origin of the weights."""
        weights = self.folder / "model.safetensors"
        digest = sha256(weights) if weights.is_file() else weights_digest(self.module.model)
        identity = {"folder": self.folder.resolve().name, "sha256": digest}
        pooling = self.module.pooling
        head: dict[str, Any] = {} if pooling is None else {"head": pooling.digest("")}
        if isinstance(pooling, VectorHead):
            head |= {"pooling": pooling.settings.pooling, "normalize": pooling.settings.normalize}
        return {**identity, "parameters": sum(p.numel() for p in self.module.parameters()), **head}

    def encode(self, texts: Sequence[Text]) -> dict[str, np.ndarray]:
        """Input arrays (B, T) int64, T the length of the longest text, or of the longest pair, whose document is cut."""
        if self.apart is not None:
            return self.apart.encode(texts)  # type: ignore[arg-type]
        columns: Any = zip(*texts, strict=True) if self.pairs else [texts]
        batch = self.tokenizer(
            *([whole(text) for text in column] for column in columns),
            truncation="only_second" if self.pairs else True, max_length=self.max_length, padding=True, padding_side="right",
            return_token_type_ids="token_type_ids" in self.inputs, return_attention_mask=True, return_tensors="np",
        )  # fmt: skip
        arrays = {name: np.asarray(batch[name], dtype=np.int64) for name in self.inputs}
        return _at_least_one_token(arrays, self.tokenizer)

    @torch.no_grad()
    def answer(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """PyTorch's outputs, the reference for every variant."""
        if self.apart is not None:
            return self.apart.scores(arrays, self._run)
        return self._run(arrays).numpy()

    @property
    def numbers(self) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        """Answers as numbers that vary with the input, such as logits."""
        return self.answer

    def _run(self, arrays: dict[str, np.ndarray]) -> Tensor:
        return self.module(*(torch.from_numpy(arrays[name]) for name in self.inputs))  # type: ignore[no-any-return]

    def compared(self, model: Model, texts: Sequence[Text]) -> tuple[np.ndarray, np.ndarray]:
        """What PyTorch answers to the texts, and a variant."""
        return self.answer(self.encode(texts)), model.outputs(texts, len(texts))

    def readings(self, texts: Sequence[Text]) -> Batches:
        """What the graph reads of them."""
        arrays = self.encode(texts)
        return [arrays] if self.apart is None else self.apart.readings(arrays)

    @cached_property
    def served_tokenizer(self) -> Any:
        """A copy that truncates and pads as the runtime does, for tools that read the folder without the manifest."""
        tokenizer = copy.deepcopy(self.tokenizer)
        tokenizer.model_max_length, tokenizer.padding_side = self.max_length, "right"
        return tokenizer

    def save_settings(self, folder: Path) -> None:
        """Save config.json and the tokenizer's files, which transformers and optimum-intel expect beside a model.

        tokenizer.json neither truncates nor pads. The runtime reads both settings from the manifest, transformers from
        tokenizer_config.json.
        """
        config = copy.deepcopy(self.module.model.config)
        if self.head.problem_type is not None:
            config.problem_type = self.head.problem_type
        config.save_pretrained(folder)
        self.served_tokenizer.save_pretrained(folder)
        content = json.loads(self.tokenizer.backend_tokenizer.to_str())
        content |= {"truncation": None, "padding": None}
        (folder / TOKENIZER_FILE).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The traced program. The example has two rows of different length; torch raises if a size cannot be dynamic."""
        arrays = self.encode([("a b c", "d e"), ("a", "b")] if self.pairs else ["a b c d e", "a b"])
        open_sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        example = tuple(torch.from_numpy(arrays[name]) for name in self.inputs)
        return trace(self.module, example, dict.fromkeys(self.inputs, open_sizes), self.folder)


def read(
    folder: Path, max_length: int | None = None, pooling: Pooling | None = None, pairs: bool | None = None
) -> Graph:
    """Read any encoder folder, including folders that mangakd did not train.

    max_length: in tokens; None reads the folder's setting, 128 without one. pooling: in place of that of modules.json, whose
    dense layers stay; for a folder without a classification head. pairs: whether it scores pairs; None: as `reads_pairs` says.
    Raises UserError for a folder that is no encoder or has no tokenizer, for an untrained or unknown head, for labels without
    names, for pairs with another head than one score, and for a length beyond the model's positions.
    """
    late = of_folder(folder)
    if late is not None:
        check_late(pooling, pairs, folder)
    tokenizer = load.load_tokenizer(str(folder), KEY)
    outline = load.outline_trained(str(folder), KEY)
    if outline is None:
        config = load.load_config(str(folder), KEY)
        check_no_head(config, folder)
        vector = _vector_head(folder, pooling)
        model, head = _encoder(folder, config), Head("vector", vector.settings.width(config.hidden_size))
        own: VectorHead | TokenHead | None = vector
    else:
        own = states_head(outline.head.kind, outline.model.config)
        model, head = load.read_model(outline, str(folder), KEY), outline.head
        check_names(head, folder)
    settings, pairs = read_settings(folder), reads_pairs(folder) if pairs is None else pairs
    check_pairs(pairs, head, settings, folder)
    config = model.config
    load.pad_alike(model, tokenizer)
    attention.keep_finite(model)
    config.use_cache = False  # the cache of decoders; some of its operators cannot be converted
    module = Answer(model.eval(), own).requires_grad_(False)
    length = length_of(folder, tokenizer, model, max_length)
    inputs = inputs_of(model, tokenizer)
    apart = None if late is None else Apart(late[0], tokenizer, length, inputs)
    return Graph(folder, module, inputs, head, tokenizer, length, pairs, settings, apart)


def reads_pairs(folder: Path) -> bool:
    """Whether a folder is a CrossEncoder of sentence-transformers, or one of late interaction."""
    return kind_of(folder) == "CrossEncoder" or of_folder(folder) is not None


def _vector_head(folder: Path, pooling: Pooling | None) -> VectorHead:
    head = read_head(folder)
    if pooling is not None:
        head.settings = replace(head.settings, pooling=pooling.pooling, normalize=pooling.normalize)
    return head


def _encoder(folder: Path, config: Any) -> Any:
    with load.quiet():
        try:
            model, info = AUTO["vector"].from_pretrained(
                str(folder), config=config, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(f"{KEY}={folder} could not be loaded: {str(error).strip().splitlines()[0]}") from error
    missing = sorted(str(name) for name in info["missing_keys"] if "pooler." not in str(name))
    if missing:
        raise UserError(
            f"{KEY}={folder} lacks {len(missing)} encoder weights (such as {missing[0]}): damaged or another model."
        )
    return model


def inputs_of(model: Any, tokenizer: Any) -> tuple[str, ...]:
    """The model's inputs. token_type_ids belong to them if the model reads them and the tokenizer makes several types."""
    reads = "token_type_ids" in inspect.signature(model.forward).parameters
    several = "token_type_ids" in tokenizer.model_input_names and getattr(model.config, "type_vocab_size", 0) > 1
    return (*_ALWAYS, "token_type_ids") if reads and (several or makes_types(tokenizer)) else _ALWAYS


def _at_least_one_token(arrays: dict[str, np.ndarray], tokenizer: Any) -> dict[str, np.ndarray]:
    """Replace a text without tokens by one visible padding token, as mangakd/runtime/tokenise.py does."""
    if not arrays["attention_mask"].shape[1]:
        fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
        arrays = {name: np.full((len(rows), 1), fill.get(name, 0)) for name, rows in arrays.items()}
    mask = arrays["attention_mask"]
    mask[~mask.any(1), 0] = 1
    return arrays


def length_of(folder: Path, tokenizer: Any, model: Any, max_length: int | None) -> int:
    """Tokens to which a text is cut. Raises UserError for a length that the model does not have."""
    most = load.positions(model)
    if max_length is not None:
        if max_length < 2 or (most is not None and max_length > most):
            raise UserError(
                f"max_length={max_length}, but {folder} takes texts of 2 to {most or 'any number of'} tokens."
            )
        return max_length
    length = read_settings(folder).max_length
    return min(length or DEFAULT_LENGTH, most or tokenizer.model_max_length, tokenizer.model_max_length)
