"""Folders of adapters (adapter_config.json of peft): merged once with their base, in fp32, into a folder of the cache.

The classes of transformers and sentence-transformers load the base alone from such a folder, with a line in a log. So peft's
PeftModel loads base and adapter, the merged model is saved, and its answers are compared with those of the two. What reads models
then finds an ordinary folder, whose weights give the fingerprint of base and adapter.
"""

import contextlib
import copy
import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers.modeling_utils import load_state_dict

from mangakd.core.errors import UserError, near
from mangakd.core.locks import made_once
from mangakd.core.spec import Kind
from mangakd.models import heads, seq2seq
from mangakd.models.adapters import check_installed
from mangakd.models.configs import read_config
from mangakd.models.folder import read_json, read_object, write_json
from mangakd.models.language import output_embeddings
from mangakd.models.outline import in_pooler, prefix_of
from mangakd.models.quiet import quiet
from mangakd.models.sentence_transformers import MODULES

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TASKS: dict[str | None, tuple[Kind, ...]] = {
    "SEQ_CLS": ("labels",), "CAUSAL_LM": ("tokens",), "SEQ_2_SEQ_LM": ("tokens",), "FEATURE_EXTRACTION": ("vector",),
    None: ("labels", "tokens", "vector"),
}  # fmt: skip
"""task_type of peft → kinds of head that the model under the adapters may have, in the order in which they are tried."""
SMALL = ("*.json", "*.txt", "*.model", "*.jinja")  # tokenizers and settings
PREFIX = "base_model.model."  # of the names that peft saves
SAME = 1e-5  # largest |Δ output| between base with adapter and merged model, in shares of the largest output
Locate = Callable[[str, str], str]


def merged(folder: Path, path: str, key: str, locate: Locate) -> Path:
    """The folder of the merged model. folder: with the adapter. path: as the user gave it. locate: of models/location.py.

    Raises UserError for an adapter that cannot be merged, and where its base is missing.
    """
    source = f"{key}={path}"
    config = read_object(folder, CONFIG)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        beside = " The folder's own weights are perhaps the merged ones: then delete adapter_config.json." * _whole(
            folder
        )
        raise UserError(f"{source} holds adapter_config.json and no weights of an adapter ({WEIGHTS[0]}).{beside}")
    base = _base(folder, config.get("base_model_name_or_path"), source, key, locate)
    files = [folder / CONFIG, *sorted(each for each in (*folder.glob("*.*"), *base.rglob("*.*")) if each.is_file())]
    state = [(str(each.resolve()), each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    mark = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
    place = Path(os.environ.get("MANGAKD_CACHE", ".cache")) / "merged" / mark
    return made_once(place, f"merging {folder.name}", partial(_merge, folder, weights, base, source))


def base_of(folder: Path, path: str, key: str, locate: Locate) -> Path | None:
    """The folder of the model under the adapter in `folder`; None where it holds no adapter. path, key, locate: as of
    `merged`."""
    if not (folder / CONFIG).is_file():
        return None
    return _base(folder, read_object(folder, CONFIG).get("base_model_name_or_path"), f"{key}={path}", key, locate)


def _whole(folder: Path) -> bool:
    return any(folder.glob("model*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _base(folder: Path, name: Any, source: str, key: str, locate: Locate) -> Path:
    """The folder of the base: that of the adapter itself, where it names itself or nothing, or another one or a hub id.

    A relative path is one from the current folder, as peft reads it, or from the adapter's.
    """
    if not name or not isinstance(name, str):
        raise UserError(
            f"{source} holds an adapter of an unknown model: base_model_name_or_path of its adapter_config.json is {name}. Write "
            "the base's folder or hub id there."
        )
    places = [Path(name).expanduser(), folder / name]
    place = next((each for each in places if each.is_dir()), None)
    if place is not None and place.resolve() == folder.resolve():
        if not _whole(folder):
            raise UserError(f"{source} holds an adapter that names itself as its base, and no weights of a base.")
        return folder
    try:
        where = locate(str(place or name), key)
        if Path(where).is_dir():
            return Path(where)
        return Path(snapshot_download(where, allow_patterns=[*SMALL, "*.safetensors", "*.bin"]))
    except UserError as error:
        raise UserError(f"{source} holds an adapter of {name}, which cannot be read: {error}") from error
    except Exception as error:  # of the hub, which has errors of many kinds
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
        raise UserError(
            f"{source} holds an adapter of {name}, which is no folder here ({places[0]} or {places[1]}) and cannot be got from "
            f"the hub: {reason}. Put the base in one of these places, or name its folder as base_model_name_or_path in "
            f"{folder / CONFIG}."
        ) from error


def _merge(folder: Path, weights: Path, base: Path, source: str, out: Path) -> None:
    check_installed()
    from peft import PeftModel

    with quiet(), warnings.catch_warnings(action="ignore"), _reasons(source), _bare(base, folder) as bare:
        stored = load_state_dict(str(weights))
        adapter_config = _read_adapter_config(folder, source)
        config = read_config(str(folder if (folder / "config.json").is_file() else base), source)
        if config.is_encoder_decoder:
            seq2seq.keep_tables(config)
        outputs = _outputs(stored)
        if outputs not in (None, config.num_labels):
            config.update({"num_labels": outputs})
        kind = _kind(adapter_config, config, stored.keys(), source)
        model, info = heads.auto(kind, config).from_pretrained(
            bare, config=config, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
        absent = {*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])} - _names(stored)
        _check_absent(model, absent, stored, source)
        _check_tied(model, stored, source)
        adapted = PeftModel.from_pretrained(model, folder).eval()
        expected = _answer(adapted.get_base_model(), bool(absent))
        result = adapted.merge_and_unload(safe_merge=True)
        _copy_small(base, out)
        _copy_small(folder, out)
        result.save_pretrained(
            out, state_dict={name: each for name, each in result.state_dict().items() if name not in absent}
        )
        if seq2seq.writes(result):
            seq2seq.save_config(result, out)
        if absent:  # the head is new: nothing may say that the folder holds one
            write_json(out / "config.json", read_object(out, "config.json") | {"architectures": config.architectures})
        again = heads.auto(kind, config).from_pretrained(out, dtype=torch.float32)
        apart = float((_answer(again, bool(absent)) - expected).abs().max())
    if not apart <= SAME * max(1.0, float(expected.abs().max())):
        raise UserError(
            f"{source} holds an adapter that cannot be merged: the merged model's answers differ by {apart:.3g} from those of "
            f"{base} with the adapter. Give a model without adapters."
        )


@contextlib.contextmanager
def _bare(base: Path, folder: Path) -> Iterator[Path]:
    """The base without the adapter, where both lie in one folder: transformers would load both, and PeftModel another one."""
    if base != folder:
        yield base
        return
    with tempfile.TemporaryDirectory() as scratch:
        for file in (each for each in folder.iterdir() if not each.name.startswith("adapter_")):
            (Path(scratch) / file.name).symlink_to(file.resolve())
        yield Path(scratch)


@contextlib.contextmanager
def _reasons(source: str) -> Iterator[None]:
    """Turns what peft and transformers raise, which is of any kind, into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"{source} holds an adapter that cannot be merged into its base: {type(error).__name__}: {reason}. Give a model "
            "without adapters, or the adapter of another kind."
        ) from error


def _read_adapter_config(folder: Path, source: str) -> Any:
    """Raises UserError for kinds of adapters that are no change of weights, and for kinds that peft does not know."""
    from peft import PeftConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = read_object(folder, CONFIG).get("peft_type")
    known = [str(each.value) for each in PEFT_TYPE_TO_CONFIG_MAPPING]
    if kind not in known:
        raise UserError(
            f"{source} holds an adapter of peft_type={kind}, which the installed peft does not know{near(kind, known)}"
        )
    config = PeftConfig.from_pretrained(str(folder))
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise UserError(
            f"{source} holds an adapter of peft_type={kind}: it adds learned vectors beside each text and changes no weights, so "
            "it cannot be merged into a model. Give a LoRA, or a model without adapters."
        )
    if config.task_type not in TASKS:
        tasks = ", ".join(filter(None, TASKS))
        raise UserError(
            f"{source} holds an adapter of task_type={config.task_type}; known: {tasks}. Its head is of no use here."
        )
    return config


def _outputs(stored: Mapping[str, Tensor]) -> int | None:
    """The number of outputs of the classifier that the adapter was saved with."""
    layers = sorted(name for name in stored if re.search(r"\.(classifier|score)\..*weight$", name))
    return stored[layers[-1]].shape[0] if layers else None


def _names(stored: Iterable[str]) -> set[str]:
    """Names of weights as the model has them. Those of adapters are among them, with names that no model has."""
    return {name.removeprefix(PREFIX) for name in stored}


def _kind(adapter_config: Any, config: Any, stored: Collection[str], source: str) -> Kind:
    """The kind of head of the model that has a place for exactly these weights."""
    from peft import get_peft_model, get_peft_model_state_dict

    trial = copy.deepcopy(adapter_config)
    if hasattr(trial, "init_lora_weights"):
        trial.init_lora_weights = False  # PiSSA and its kin would decompose weights that are not there
    apart: list[str] = []
    # The head that the base calls its own first: a Llama has the same layers with each head.
    for kind in sorted(TASKS[adapter_config.task_type], key=lambda kind: not heads.claims(config, kind)):
        if type(config) not in heads.auto(kind, config)._model_mapping:
            continue
        with torch.device("meta"), contextlib.suppress(ValueError):  # target_modules that are not in this model
            model = get_peft_model(heads.auto(kind, config).from_config(config), copy.deepcopy(trial))
            wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
            apart = sorted(wanted.keys() ^ {name for name in stored if ".base_layer." not in name})
            if not apart:
                return kind
    what = (
        f"{len(apart)} weights are in one of them alone, such as {apart[0]}"
        if apart
        else "its target_modules are not in it"
    )
    raise UserError(
        f"{source} holds an adapter that does not fit its base, a {config.model_type}: {what}. Name the model that it was "
        "trained on as base_model_name_or_path in adapter_config.json."
    )


def _check_absent(model: Any, absent: set[str], stored: Mapping[str, Tensor], source: str) -> None:
    """Raises UserError where neither base nor adapter holds weights that the answer depends on.

    A base without a head is fine if the adapter says nothing of a head: the head is then new.
    """
    prefix = prefix_of(model)
    within = sorted(name for name in absent if name.startswith(prefix) and not in_pooler(name))
    if within:
        raise UserError(
            f"{source} holds an adapter whose base lacks {len(within)} weights, such as {within[0]}: it is damaged."
        )
    of_head = [name for name in _names(stored) if (prefix and not name.startswith(prefix)) or in_pooler(name)]
    if absent and of_head:
        raise UserError(
            f"{source} holds an adapter with {of_head[0]}, and neither it nor its base holds {min(absent)}, which was random in "
            "its training and was not saved. Train it again with the whole head in modules_to_save."
        )


def _check_tied(model: Any, stored: Iterable[str], source: str) -> None:
    """Raises UserError for an adapter on one of two tied tables: merged into it, it would change the other one, too."""
    table, head = model.get_input_embeddings(), output_embeddings(model)
    if head is None or head.weight is not table.weight:
        return
    for name, module in model.named_modules():
        if module in (table, head) and any(each.startswith(f"{name}.") for each in _names(stored)):
            raise UserError(
                f"{source} holds an adapter on {name}, whose weights are those of embeddings and head at once (tied): merging "
                "would change both, and the answers. Train it without this module, or untie the base first."
            )


@torch.no_grad()
def _answer(model: Any, without_head: bool) -> Tensor:
    """Of one text of a few tokens."""
    size, pad = model.config.vocab_size, model.config.pad_token_id
    ids = torch.tensor([[each for each in range(size // 2, size) if each != pad][:8]])
    body = model.base_model if without_head else model
    more = {"decoder_input_ids": ids} if seq2seq.writes(model) else {}
    return body.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), **more)[0].float()


def _copy_small(source: Path, out: Path) -> None:
    """The files of the tokenizer, settings, and the modules of sentence-transformers."""
    for file in (each for pattern in SMALL for each in source.glob(pattern)):
        if file.name != CONFIG and not file.name.endswith(".index.json"):
            shutil.copy(file, out / file.name)
    modules = read_json(source / MODULES) if (source / MODULES).is_file() else []
    for path in filter(None, (module.get("path") for module in modules)):
        if (source / path).is_dir():
            shutil.copytree(source / path, out / path, dirs_exist_ok=True)
