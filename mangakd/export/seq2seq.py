"""An encoder–decoder folder (T5, BART, Marian) as two graphs: a source becomes keys and values, and the decoder writes with them.

    encoder   input_ids, attention_mask (B, S)                         → the decoder's keys and values of cross-attention
    decoder   input_ids (B, 1), attention_mask (B, S), those, the past → logits (B, V) of the next token, and the longer past

A precise variant must give PyTorch's logits, which are computed here in one forward without a cache. The texts of a variant are
compared with those that transformers writes (`greedy`) in mangakd/export/measure.py.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mangakd.core.errors import UserError
from mangakd.core.spec import Head, stacks
from mangakd.export.checks import KEY
from mangakd.export.graph import Graph, length_of
from mangakd.export.seq2seq_modules import SourceReader, Step, Student
from mangakd.export.traced import BATCH, SEQUENCE, Batches, trace
from mangakd.models import attention, load
from mangakd.models.generation import Sampling
from mangakd.models.sentence_transformers import read_settings
from mangakd.models.seq2seq import save_config
from mangakd.models.seq2seq_writer import Seq2SeqWriter
from mangakd.runtime.decoding import BLANK, LOGITS, SOURCE, Decoding
from mangakd.runtime.model import Model
from mangakd.runtime.tokenise import Text, whole
from mangakd.runtime.turns import Turns

ENCODER, DECODER = "encoder", "decoder"  # stems of the files
PROBED = 24  # tokens of a text whose logits are compared with PyTorch's
NEW_TOKENS = 64  # of a text, unless somebody says another number


def greedy(model: Any, arrays: Mapping[str, np.ndarray], about: Decoding) -> np.ndarray:
    """(B, max_new_tokens) token ids that transformers writes after the sources, BLANK after the end of a text.

    As in the scores of a run, penalties and forced tokens of generation_config.json have no part in it.
    """
    there = arrays["attention_mask"].astype(bool)
    sources = [ids[own].tolist() for ids, own in zip(arrays["input_ids"], there, strict=True)]
    writer = Seq2SeqWriter(about.stops, model.config.pad_token_id, about.vocabulary)
    rows = np.full((len(sources), about.max_new_tokens), BLANK, dtype=np.int64)
    written = writer.write(model, sources, Sampling(max_new_tokens=about.max_new_tokens), tokens=sys.maxsize)
    for row, text in zip(rows, written, strict=True):
        row[: len(text.ids)] = text.ids
    return rows


@dataclass(frozen=True)
class Writing:
    """What a folder does not say. max_new_tokens: of a text; None for generation_config.json's, else NEW_TOKENS. turns: how those
    of a conversation become a source; None for students of plain texts.
    """

    max_new_tokens: int | None = None
    turns: Turns | None = None


AS_THE_FOLDER_SAYS = Writing()


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

    def encode(self, texts: Sequence[Text]) -> dict[str, np.ndarray]:
        """Input arrays (B, S); turns that do not fit are left out."""
        return super().encode([self._joined(text) for text in texts])

    def _joined(self, text: Text) -> str:
        if isinstance(text, str):
            return text
        assert self.turns is not None, "turns without a template"
        return self.turns.newest(text, lambda own: len(self.tokenizer(whole(own))["input_ids"]) <= self.max_length)

    def answer(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """(B, max_new_tokens) token ids, BLANK after the end, of transformers' greedy `generate`."""
        return greedy(self.module.model, arrays, self.about)

    @property
    def numbers(self) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
        """Logits of the first token."""
        return lambda arrays: self._logits(arrays, np.full((len(arrays["input_ids"]), 1), BLANK))[:, 0]

    def save_settings(self, folder: Path) -> None:
        super().save_settings(folder)
        save_config(self.module.model, folder)
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


def read(folder: Path, max_length: int | None = None, writing: Writing = AS_THE_FOLDER_SAYS) -> SourceGraph:
    """Read an encoder–decoder folder that writes.

    max_length: of a source in tokens; None reads the folder's setting, 128 without one. Raises UserError for a folder without a
    tokenizer or a start token, for a model that models/seq2seq.py refuses, and for lengths beyond its positions.
    """
    tokenizer = load.load_tokenizer(str(folder), KEY, "tokens")
    outline = load.outline_for(str(folder), Head("tokens", 0, source=True), KEY)
    model = load.read_model(outline, str(folder), KEY)
    attention.keep_finite(model)
    length = length_of(folder, tokenizer, model, max_length)
    module: Any = Student(model.eval()).requires_grad_(False)
    decoding = _decoding(folder, model, tokenizer, writing.max_new_tokens)
    return SourceGraph(
        folder, module, SOURCE, outline.head, tokenizer, length, prompts=read_settings(folder), decoding=decoding,
        turns=writing.turns,
    )  # fmt: skip


def _decoding(folder: Path, model: Any, tokenizer: Any, max_new_tokens: int | None) -> Decoding:
    """All but the name of the decoder's file."""
    config, positions = model.config, load.positions(model)
    most = max_new_tokens or model.generation_config.max_new_tokens or NEW_TOKENS
    if positions is not None and most > positions:
        raise UserError(f"export.max_new_tokens={most}, but the decoder of {folder} has {positions} positions.")
    one = torch.full((1, 1), config.decoder_start_token_id)
    with torch.no_grad():
        _, heads, _, size = SourceReader(model)(one, torch.ones_like(one))[0].shape
    writer = Seq2SeqWriter.of(model, tokenizer)
    vocabulary = min(writer.vocabulary, config.vocab_size)
    return Decoding("", stacks(config)[1], heads, size, config.decoder_start_token_id, writer.stops, vocabulary, most)
