"""Read the config.json of a model, also where another tool wrote it.

transformers checks the type of every entry and stops with an error of its own. Here an entry of another type is converted where
its meaning is clear ("0.1", 1 for 1.0, names of labels as a list, counted from 1, or swapped with their ids). Any other entry
is refused with its key and value.
"""

import codecs
import contextlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import CONFIG_MAPPING, PreTrainedConfig

from mangakd.core.errors import UserError, near
from mangakd.models.labels import label_name

# What every architecture needs at least one of, by the names that it goes by.
SIZES = {
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings", "embedding_size", "head_dim", "dim", "hidden_dim", "n_layers", "n_heads", "d_model", "d_kv",
    "d_ff", "num_heads", "num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers", "encoder_ffn_dim",
    "decoder_ffn_dim", "encoder_attention_heads", "decoder_attention_heads",
}  # fmt: skip
ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")


def size_problem(value: Any) -> str:
    """What is wrong with one of SIZES; empty for a whole number from 1 on, and for null and lists, which some have."""
    wrong = isinstance(value, int | float | str) and (
        not isinstance(value, int) or isinstance(value, bool) or value < 1
    )
    return "must be a whole number from 1 on" if wrong else ""


def read_config(where: str, source: str) -> Any:
    """The config of the folder or hub id `where`. told: `key=path`, how messages call the model.

    Raises UserError for an entry that cannot be read, and transformers' OSError where there is no config.json.
    """
    try:
        content = _with_mark(Path(where) / "config.json") or PreTrainedConfig.get_config_dict(where)[0]
    except (TypeError, AttributeError):  # JSON, but no object; newer versions of transformers return it
        content = None
    if not isinstance(content, dict):
        raise UserError(f"config.json of {source} holds no JSON object, so it describes no model.")
    kind = content.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        what = "has no model_type" if kind is None else f"has model_type={kind!r}, which transformers does not know"
        hint = "." if kind is None else near(str(kind), CONFIG_MAPPING.keys())
        raise UserError(f"config.json of {source} {what}{hint} Write the architecture there, such as bert.")
    for name in ATTENTION:  # hardware.attention decides
        content.pop(name, None)
    if method := content.get("quantization_config"):
        how = method.get("quant_method") if isinstance(method, dict) else method
        raise UserError(
            f"config.json of {source} has quantization_config ({how}): its weights are quantised, and cannot be read as numbers "
            "to learn from. Give the folder or hub id of the unquantised model."
        )
    if isinstance(content.get("architectures"), str):
        content["architectures"] = [content["architectures"]]
    name_labels(content, source)
    config = _build(kind, content, source)
    for name in content.keys() & SIZES:
        if problem := size_problem(getattr(config, name, None)):
            raise UserError(f"config.json of {source} has {name}={_short(getattr(config, name))}, which {problem}.")
    pad, words = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
    if isinstance(pad, int) and isinstance(words, int) and pad >= words:
        raise UserError(
            f"config.json of {source} has pad_token_id={pad}, but vocab_size={words}: ids go from 0 to {words - 1}. Write the id "
            "of its tokenizer's padding token there."
        )
    config.name_or_path = where
    return config


def _with_mark(file: Path) -> dict[str, Any]:
    """The content of a file that begins with a byte-order mark, as editors of Windows write it; else empty."""
    if not file.is_file() or not (text := file.read_bytes()).startswith(codecs.BOM_UTF8):
        return {}
    return dict(json.loads(text.decode("utf-8-sig")))


def name_labels(content: dict[str, Any], source: str) -> None:
    """Replace id2label and label2id of a config's content by id → str and str → id; drop both where neither has names."""
    key = "id2label" if content.get("id2label") else "label2id"
    given = content.get(key)
    for name in ("id2label", "label2id"):
        content.pop(name, None)
    pairs = [*enumerate(given)] if isinstance(given, list) else [*given.items()] if isinstance(given, dict) else []
    if not given or (pairs and all(name is None for _, name in pairs)):
        count = len(pairs) or _whole(content.pop("num_labels", None))
        content |= {"num_labels": count} if count else {}
        return
    swapped = [(value, key) for key, value in pairs]
    names = _names(pairs, swapped) if key == "id2label" else _names(swapped, pairs)
    if names is None:
        raise UserError(
            f"{key} of config.json of {source} is {_short(given)}, which does not name the outputs 0, 1, 2 … of its head. Write "
            'id2label as {"0": "first label", "1": "second label"}.'
        )
    content["id2label"] = names
    content["label2id"] = {name: number for number, name in names.items()}
    content.pop("num_labels", None)


def _names(*readings: list[tuple[Any, Any]]) -> dict[int, str] | None:
    """id → name from the first list of (id, name) whose ids count from 0 or from 1."""
    for pairs in readings:
        numbers = sorted(number for key, _ in pairs if (number := _whole(key)) is not None)
        first = numbers[0] if numbers else None
        if first not in (0, 1) or numbers != list(range(first, first + len(pairs))):
            continue
        with contextlib.suppress(UserError):  # a name that is no scalar
            return {number: label_name(name) for number, (_, name) in enumerate(sorted(pairs, key=_by_number))}
    return None


def _by_number(pair: tuple[Any, Any]) -> int:
    return int(str(pair[0]))


def _whole(value: Any) -> int | None:
    return int(str(value)) if re.fullmatch(r"\d+", str(value)) else None


def _build(kind: str, content: dict[str, Any], source: str) -> Any:
    """The config of `content`. An entry of another type than transformers wants is replaced by its first reading that passes."""
    readings: dict[str, Iterator[Any]] = {}
    given = dict(content)
    while True:
        try:
            return CONFIG_MAPPING[kind](**content)
        except StrictDataclassFieldValidationError as error:
            reason = str(error).splitlines()[-1].strip()
            name = str(error).partition("'")[2].partition("'")[0]
            if name not in content:
                raise UserError(f"config.json of {source} cannot be read: {reason}") from error
            reading = next(readings.setdefault(name, _readings(content[name])), _NONE)
            if reading is _NONE:
                raise UserError(
                    f"config.json of {source} has {name}={_short(given[name])}, which {kind} does not take: {reason}. Correct "
                    "that entry."
                ) from error
            content[name] = reading
        except Exception as error:  # each architecture checks its sizes with errors of its own
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"config.json of {source} describes no {kind}: {lines[-1].strip()}. Correct it.") from error


_NONE = object()


def _readings(value: Any) -> Iterator[Any]:
    """What a value of the wrong type may mean."""
    if isinstance(value, str):
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
            yield value
        if isinstance(value, str):
            yield [value]
            return
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield from (number(value) for number in (int, float) if number(value) == value)
        if value in (0, 1):
            yield bool(value)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}…"
