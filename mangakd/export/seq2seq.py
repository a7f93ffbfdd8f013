"""An encoder–decoder folder (T5, BART, Marian) as two graphs: a source becomes keys and values, and the decoder writes with them.

    encoder   input_ids, attention_mask (B, S)                         → the decoder's keys and values of cross-attention
    decoder   input_ids (B, 1), attention_mask (B, S), those, the past → logits (B, V) of the next token, and the past with this one

A precise variant must give PyTorch's logits, which are computed here in one forward without a cache. The texts of a variant are
compared with those that transformers writes (`greedy`) in mangakd/export/measure.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, LogitsProcessorList

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.export.checks import KEY
from mangakd.export.graph import Graph, length_of
from mangakd.export.seq2seq_modules import SourceReader, Step, Student, layers_of
from mangakd.export.traced import BATCH, SEQUENCE, Batches, trace
from mangakd.models import attention, load
from mangakd.models.generation import Known, Writer, settings, writing
from mangakd.models.sentence_transformers import read_settings
from mangakd.runtime.decoding import BLANK, LOGITS, SOURCE, Decoding
from mangakd.runtime.model import Model
from mangakd.runtime.tokenise import Text

ENCODER, DECODER = "encoder", "decoder"  # stems of the files
PROBED = 24  # tokens of a text whose logits are compared with PyTorch's
NEW_TOKENS = 64  # of a text, unless somebody says another number


def greedy(model: Any, arrays: dict[str, np.ndarray], about: Decoding) -> np.ndarray:
    """(B, max_new_tokens) token ids that transformers writes, BLANK after the end of a text.

    Of the model's generation_config only start and end are read, as in the scores of a run: penalties and forced tokens of a
    hub's folder would make other texts.
    """
    options = GenerationConfig(
        max_new_tokens=about.max_new_tokens, do_sample=False, num_beams=1, use_cache=True, pad_token_id=model.config.pad_token_id,
        eos_token_id=[*about.stops] or None, decoder_start_token_id=about.start,
    )  # fmt: skip
    with writing(model), settings(model, options):
        ids = model.generate(
            **{name: torch.from_numpy(arrays[name]) for name in SOURCE},
            logits_processor=LogitsProcessorList([Known(about.vocabulary)]),
        )[:, 1:].numpy()
    rows = np.full((len(ids), about.max_new_tokens), BLANK, dtype=np.int64)
    ended = np.cumsum(np.isin(ids, about.stops), 1)
    before = np.concatenate([np.zeros_like(ended[:, :1]), ended[:, :-1]], 1)
    rows[:, : ids.shape[1]] = np.where(before == 0, ids, BLANK)
    return rows


@dataclass(frozen=True)
class Part:
    """One of the two files (export/traced.py). encode: texts → what calibrates it; None where its weights alone are quantised: a
    decoder reads one token at a time, and the way of its weights from memory takes the time.
    """

    folder: Path
    stem: str
    module: Student
    axes: Mapping[str, Sequence[str | None]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[Tensor, ...]
    encode: Callable[[Sequence[Text]], dict[str, np.ndarray]] | None = None

    @property
    def judged(self) -> tuple[str, ...]:
        """Of the encoder: all its outputs are products of the same states, so the first layer's stand for them."""
        return self.outputs[:2]

    def readings(self, texts: Sequence[Text]) -> Batches:
        return [] if self.encode is None else [self.encode(texts)]

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        dynamic = torch.export.Dim.DYNAMIC
        shapes = [{i: dynamic for i, name in enumerate(self.axes[each]) if name} for each in self.inputs]
        named, rest = shapes[: len(SOURCE)], shapes[len(SOURCE) :]
        return trace(self.module, self.example, (*named, *([tuple(rest)] if rest else [])), self.folder)


@dataclass(frozen=True)
class SourceGraph(Graph):
    """A student that writes."""

    @property
    def about(self) -> Decoding:
        assert self.decoding is not None
        return self.decoding

    def answer(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """(B, max_new_tokens) token ids, BLANK after the end, of transformers' greedy `generate`."""
        return greedy(self.module.model, arrays, self.about)

    @property
    def numbers(self) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        """Logits of the first token."""
        return lambda arrays: self._logits(arrays, np.full((len(arrays["input_ids"]), 1), BLANK))[:, 0]

    def save_settings(self, folder: Path) -> None:
        super().save_settings(folder)
        self.module.model.generation_config.save_pretrained(folder)

    @cached_property
    def _known(self) -> dict[tuple[Text, ...], tuple[np.ndarray, np.ndarray]]:
        return {}

    def compared(self, model: Model, texts: Sequence[Text]) -> tuple[np.ndarray, np.ndarray]:
        """Logits (B, N, V) of the tokens that PyTorch writes: PyTorch's, all at once and without a cache, and the variant's."""
        if tuple(texts) not in self._known:
            arrays = self.encode(texts)
            ids = self.answer(arrays)[:, :PROBED]
            self._known[tuple(texts)] = ids, self._logits(arrays, ids)
        ids, expected = self._known[tuple(texts)]
        there = (ids != BLANK)[:, :, None]
        return np.where(there, expected, 0), np.where(there, model.logits(texts, ids), 0)

    @torch.no_grad()
    def _logits(self, arrays: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
        start = self.about.start
        before = np.concatenate([np.full((len(ids), 1), start), np.where(ids == BLANK, start, ids)[:, :-1]], 1)
        raw = self.module.model(
            **{name: torch.from_numpy(arrays[name]) for name in SOURCE}, decoder_input_ids=torch.from_numpy(before)
        )
        return raw.logits.float().numpy()  # type: ignore[no-any-return]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        about, model = self.about, self.module.model
        ids = torch.tensor([[about.start] * 5] * 2)
        mask = torch.tensor([[1] * 5, [1, 1, 1, 0, 0]])
        reader, step = SourceReader(model), Step(model)
        with torch.no_grad():
            crossed = reader(ids, mask)
        past = [tensor[:, :, :3].clone() for tensor in crossed]
        own: dict[str, Sequence[str | None]] = dict.fromkeys(SOURCE, (BATCH, SEQUENCE))
        own |= dict.fromkeys(about.crossed, (BATCH, None, SEQUENCE, None))
        steps = {**own, "input_ids": (BATCH, None), LOGITS: (BATCH, None)}
        steps |= dict.fromkeys(about.past, (BATCH, None, "past", None))
        steps |= dict.fromkeys(about.outputs[1:], (BATCH, None, "past_and_one", None))
        return (
            Part(self.folder, ENCODER, reader, own, SOURCE, tuple(about.crossed), (ids, mask), self.encode),
            Part(
                self.folder, DECODER, step, steps, tuple(about.inputs), tuple(about.outputs),
                (ids[:, :1], mask, *crossed, *past),
            ),
        )  # fmt: skip


def read(folder: Path, max_length: int | None = None, max_new_tokens: int | None = None) -> SourceGraph:
    """Read an encoder–decoder folder that writes.

    max_length: of a source in tokens; None reads the folder's setting, 128 without one. max_new_tokens: of a text; None reads
    generation_config.json, 64 without an entry. Raises UserError for a folder without a tokenizer, a start token or an end, and
    for lengths beyond the model's positions.
    """
    tokenizer, model = load.load_tokenizer(str(folder), KEY), _model(folder)
    attention.keep_finite(model)
    length = length_of(folder, tokenizer, model, max_length)
    module: Any = Student(model.eval()).requires_grad_(False)
    decoding = _decoding(folder, model, tokenizer, max_new_tokens)
    head = Head("tokens", model.config.vocab_size)
    return SourceGraph(
        folder, module, SOURCE, head, tokenizer, length, prompts=read_settings(folder), decoding=decoding
    )


def _decoding(folder: Path, model: Any, tokenizer: Any, max_new_tokens: int | None) -> Decoding:
    """All but the name of the decoder's file."""
    config, own = model.config, model.generation_config
    start = own.decoder_start_token_id if config.decoder_start_token_id is None else config.decoder_start_token_id
    stops = Writer.of(model, tokenizer).stops
    for name, entry in (("decoder_start_token_id", start), ("eos_token_id", stops or None)):
        if entry is None:
            raise UserError(
                f"{KEY}={folder} does not say how a text {'begins' if entry is start else 'ends'}: write {name} into its "
                "config.json."
            )
    most, positions = max_new_tokens or own.max_new_tokens or NEW_TOKENS, load.positions(model)
    if positions is not None and most > positions:
        raise UserError(f"export.max_new_tokens={most}, but the decoder of {folder} has {positions} positions.")
    one = torch.full((1, 1), start)
    with torch.no_grad():
        _, heads, _, size = SourceReader(model)(one, torch.ones_like(one))[0].shape
    return Decoding("", layers_of(model), heads, size, start, stops, min(len(tokenizer), config.vocab_size), most)


def _model(folder: Path) -> Any:
    with load.quiet():
        return AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)


def writes(config: Any) -> bool:
    """Whether a config is that of an encoder–decoder with a head that writes."""
    known = AutoModelForSeq2SeqLM._model_mapping
    return type(config) in known and known[type(config)].__name__ in (config.architectures or ())
