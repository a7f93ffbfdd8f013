"""The student as a plain Hugging Face folder: safetensors, config with label names, tokenizer, model card.

The folder loads with AutoModelForSequenceClassification and without mangakd. It is written under another name and renamed at
the end, so a folder called `student` is always whole.
"""

import copy
import inspect
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoTokenizer

from mangakd import __version__
from mangakd.core.errors import UserError
from mangakd.losses.loss_set import LossSet
from mangakd.models import seq2seq
from mangakd.models.attention import keep_soft_cap
from mangakd.models.folder import read_json, write_json
from mangakd.models.heads import class_of, has_class, states_head
from mangakd.models.load import load_config, quiet
from mangakd.models.pooling import VectorHead, save_head
from mangakd.models.sentence_transformers import Settings, read_activation, write_cross_encoder, write_settings
from mangakd.models.token_head import TokenHead, save_token_head
from mangakd.models.trial import two_texts

SAME = 1e-5  # largest |Δ output| of equal models, in shares of the largest output
log = logging.getLogger(__name__)


def save_student(
    model: Any,
    tokenizer: Any,
    folder: Path,
    card: str,
    quantised: Any = None,
    pooling: VectorHead | TokenHead | None = None,
    activation: nn.Module | None = None,
    settings: Settings | None = None,
) -> None:
    """Save the student. Raises UserError if the reloaded folder answers differently; the folder then stays `student.partial`.

    pooling: of a student that answers with vectors; sentence-transformers loads it as a SentenceTransformer, and PyLate one of
    late interaction as a ColBERT. activation: of the score of a student that reads pairs at once, which sentence-transformers
    loads as a CrossEncoder. settings: of all three.
    quantised: the same model with trained quantisers; it becomes an IR in the folder, for the export. If the conversion fails,
    that is logged and the folder holds the plain student, because the training may have taken hours.
    """
    scratch = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)
    # Our attention function is for training only; the saved config must not name the function.
    model.config._attn_implementation = "sdpa" if model._supports_sdpa else "eager"
    keep_soft_cap(model)
    with quiet():
        model.eval().save_pretrained(scratch)
        if seq2seq.writes(model):
            seq2seq.save_config(model, scratch)
        tokenizer.save_pretrained(scratch)
    if _predicts_tokens(model):
        _read_markup(scratch)
    if isinstance(pooling, TokenHead):
        save_token_head(pooling, scratch, settings)
    elif pooling is not None:
        save_head(pooling, model.config.hidden_size, scratch)
        write_settings(settings or Settings(), scratch, "SentenceTransformer")
    if activation is not None:
        write_cross_encoder(settings or Settings(), activation, scratch)
    if quantised is not None:
        from mangakd.export import quantised as quantisers  # a late import: the module registers an operator

        try:
            quantisers.save(quantised, tokenizer, scratch)
        except UserError as error:
            log.warning("the student is saved, but not as INT8 with the quantisers it was trained with: %s", error)
    (scratch / "README.md").write_text(card)
    check_reloads(model, tokenizer, scratch, pooling, activation)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)


def _predicts_tokens(model: Any) -> bool:
    """Whether a model of transformers is a decoder with the head of a vocabulary."""
    config = model.config
    return (
        not config.is_encoder_decoder and has_class(config, "tokens") and isinstance(model, class_of(config, "tokens"))
    )


def _read_markup(folder: Path) -> None:
    """Let transformers read names of special tokens as these tokens in a language model's folder.

    In training a user's text must hold no markup, so `split_special_tokens` is true, and save_pretrained writes it. A chat
    template writes markup, though, and transformers and servers tokenise what it renders.
    """
    file = folder / "tokenizer_config.json"
    write_json(file, read_json(file) | {"split_special_tokens": False})


@torch.no_grad()
def check_reloads(
    model: Any, tokenizer: Any, folder: Path, pooling: VectorHead | TokenHead | None = None,
    activation: nn.Module | None = None,
) -> None:  # fmt: skip
    """Raises UserError if the folder cannot be loaded or answers differently from `model`, which is in eval mode."""
    inputs = two_texts(tokenizer)
    names, mask = inspect.signature(model.forward).parameters, inputs["attention_mask"]
    if seq2seq.writes(model):
        inputs["decoder_input_ids"] = inputs["input_ids"]  # any tokens
    inputs = {name: value.to(model.device) for name, value in inputs.items() if name in names}

    def answer(of: Any, head: nn.Module | None, score: nn.Module | None) -> torch.Tensor:
        raw = of(**inputs)[0].float().cpu()
        return head.cpu()(raw, mask) if head is not None else raw if score is None else score(raw)

    try:
        with quiet():
            other = type(model).from_pretrained(folder, dtype=model.dtype).to(model.device).eval()
            keep_soft_cap(other)
            AutoTokenizer.from_pretrained(folder)
        parts = (
            None if pooling is None else states_head("vector", load_config(str(folder))),
            None if activation is None else read_activation(folder),
        )
        expected = answer(model, copy.deepcopy(pooling), activation)
        apart = float((answer(other, *parts) - expected).abs().max())
        fine = apart <= SAME * max(1.0, float(expected.abs().max()))
        reason = "" if fine else f"its outputs differ by {apart:.3g} from those of the model that was saved"
    except Exception as error:  # config, tokenizer and weights of an architecture may raise any exception
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    if reason:
        raise UserError(
            f"the student was trained, but transformers {transformers.__version__} cannot load it again from {folder}: {reason}. "
            "Its weights are there and in checkpoints/; choose another architecture or other student.layers."
        )


CARDS = {  # what reads the student → library, kind of pipeline, example
    "pairs": (
        "sentence-transformers", "text-ranking", """from sentence_transformers import CrossEncoder
CrossEncoder("path/to/this/folder").rank("where is my order?", ["It is on its way.", "We sell manga."])""",
    ),
    "late": (
        "PyLate", "sentence-similarity", """from pylate import models
model = models.ColBERT("path/to/this/folder")
model.encode(["where is my order?"], is_query=True), model.encode(["It is on its way."], is_query=False)""",
    ),
    "vector": (
        "sentence-transformers", "sentence-similarity", """from sentence_transformers import SentenceTransformer
SentenceTransformer("path/to/this/folder").encode(["where is my order?"])""",
    ),
    "tokens": (
        "transformers", "text-generation", """from transformers import pipeline
pipeline("text-generation", "path/to/this/folder")([{"role": "user", "content": "where is my order?"}])""",
    ),
    "source": (
        "transformers", "text2text-generation", """from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model, tokenizer = (each.from_pretrained("path/to/this/folder") for each in (AutoModelForSeq2SeqLM, AutoTokenizer))
written = model.generate(**tokenizer("where is it?", return_tensors="pt"))
tokenizer.decode(written[0], skip_special_tokens=True)""",
    ),
    "labels": (
        "transformers", "text-classification", """from transformers import pipeline
pipeline("text-classification", "path/to/this/folder")("where is my order?")""",
    ),
}  # fmt: skip


def model_card(
    title: str,
    teacher: str,
    data: str,
    losses: LossSet,
    metrics: Mapping[str, float],
    command: str,
    use: str = "labels",
) -> str:
    """Markdown with title, teacher, data, command, scores, losses and citations. use: a key of CARDS, or another kind of head."""
    library, pipeline, example = CARDS.get(use, CARDS["labels"])
    scores = "\n".join(f"| {name} | {value:.4g} |" for name, value in sorted(metrics.items()))
    terms = "\n".join(f"- `{name}`: {loss.config}" for name, loss in losses.callbacks.items())
    sources = "\n".join(
        f"- {text}" for text in dict.fromkeys(loss.citation for loss in losses.callbacks.values()) if text
    )
    return f"""---
library_name: {library}
pipeline_tag: {pipeline}
tags: [knowledge-distillation, mangakd]
---
# {title}

Distilled from {teacher} on {data} with mangakd {__version__}.

    {command}

```python
{example}
```

## Scores
| metric | value |
|---|---|
{scores}

## Losses
{terms}

## Sources
{sources}
"""
