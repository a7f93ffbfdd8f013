"""LoRA: small matrices that learn beside the frozen weights of a model (Hu et al. 2021, arXiv:2106.09685).

    y = W x + (alpha / rank) · B A x        W (out, in) frozen, A (rank, in) random, B (out, rank) zero

B is zero, so training starts from the model itself. peft puts the matrices into the model's own layers: taps, checkpoints, shards
and stages find the names that they know. The task's head learns whole. peft is imported late, because it takes seconds.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from mangakd.core.errors import UserError, near
from mangakd.core.spec import Kind
from mangakd.models import four_bit, heads
from mangakd.models.adapters import Adapters, check_installed
from mangakd.models.encoder import Encoder
from mangakd.models.language import output_embeddings
from mangakd.models.outline import digest_of, in_pooler, prefix_of
from mangakd.models.quiet import quiet

SAME = 1e-5  # largest |Δ output| between a student with adapters and the merged one, in shares of the largest output

TASKS: dict[Kind, str] = {
    "labels": "SEQ_CLS",
    "score": "SEQ_CLS",
    "vector": "FEATURE_EXTRACTION",
    "tokens": "CAUSAL_LM",
}
"""Kind of the head of a model of transformers → how peft calls it."""
AFTER_SOURCE = "SEQ_2_SEQ_LM"  # of tokens that follow a source


@dataclass(frozen=True)
class Lora:
    """rank: r of the matrices. alpha: their scale is alpha / rank; None: 2 · rank. dropout: of what the adapters read, 0…1.

    target_modules: last parts of the names of linear layers, such as q_proj; None: every linear layer but the head. four_bit:
    whether the frozen linear layers are kept in 4 bits (models/four_bit.py).
    Raises UserError for values that LoRA cannot have.
    """

    rank: int
    alpha: float | None = None
    dropout: float = 0.0
    target_modules: Sequence[str] | None = None
    four_bit: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.rank, int) or isinstance(self.rank, bool) or self.rank < 1:
            raise UserError(
                f"student.lora.rank={self.rank} must be a whole number from 1 on, or null to train every weight."
            )
        if not isinstance(self.scale, int | float) or self.scale <= 0:
            raise UserError(f"student.lora.alpha={self.alpha} must be a number above 0, or null for 2 × rank.")
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise UserError(f"student.lora.dropout={self.dropout} must be from 0 to below 1.")
        names = self.target_modules
        if names is not None and (isinstance(names, str) or not names or not all(isinstance(n, str) for n in names)):
            raise UserError(
                f"student.lora.target_modules={names} must be a list of names, such as [q_proj,v_proj], or null."
            )

    @property
    def scale(self) -> float:
        """alpha."""
        return 2 * self.rank if self.alpha is None else self.alpha

    @classmethod
    def of(cls, options: Any, quantise_base: Any = None) -> "Lora | None":
        """Entries of `student.lora`; None without a rank. quantise_base: None or 4bit.

        Raises UserError for entries that LoRA does not have, and for a base in 4 bits without adapters.
        """
        entries, known = {} if options is None else options, cls.__match_args__[:4]
        if quantise_base not in (None, four_bit.NAME):
            raise UserError(f"student.quantise_base={quantise_base} must be {four_bit.NAME} or null.")
        if not isinstance(entries, Mapping):
            raise UserError(f"student.lora={options} must be a dictionary: student.lora.rank=16, or null.")
        if unknown := [name for name in entries if name not in known]:
            raise UserError(f"student.lora has {unknown[0]}, which it does not know{near(unknown[0], known)}")
        if entries.get("rank") is None:
            if quantise_base is not None:
                raise UserError(
                    "student.quantise_base freezes the base in 4 bits, where nothing would learn: set student.lora.rank=16."
                )
            if given := [name for name, value in entries.items() if value not in (None, 0)]:
                raise UserError(f"student.lora.{given[0]} needs student.lora.rank, such as 16.")
            return None
        return cls(**entries, four_bit=quantise_base is not None)


def target_modules(model: Any, names: Sequence[str] | None, whole: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Name → linear layer that gets an adapter. names: as in `Lora`. whole: names of parameters that learn whole.

    Raises UserError for a name that no linear layer has, and for the head of a language model and embeddings: a merged adapter
    would change the other one of two tied tables, and the head's logits are computed from its own weights.
    """
    tables = {id(model.get_input_embeddings()), id(output_embeddings(model))}
    linear = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    free = {name: each for name, each in linear.items() if id(each) not in tables and f"{name}.weight" not in whole}
    if names is None:
        return {name: each for name, each in free.items() if not in_pooler(name)}
    for name in names:
        refused = [full for full, each in model.named_modules() if id(each) in tables and _ends(full, name)]
        if refused:
            raise UserError(
                f"student.lora.target_modules names {name}, which is {refused[0]}: adapters on embeddings and on the head of a "
                "language model are not supported, because merging them changes the answers where the two are tied. Leave it out."
            )
        if not any(_ends(full, name) for full in free):
            why = "learns whole already" if any(_ends(full, name) for full in linear) else "is no linear layer of it"
            last = sorted({full.rpartition(".")[2] for full in free})
            raise UserError(
                f"student.lora.target_modules names {name}, and the student is a {model.config.model_type}: it {why}"
                f"{near(name, last)} Its linear layers end in {', '.join(last)}."
            )
    return {full: each for full, each in free.items() if any(_ends(full, name) for name in names)}


def _ends(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")


def head_parameters(model: Any, kind: Kind) -> list[str]:
    """Names of the parameters of a classifier's head, with the pooler that the head reads."""
    prefix = prefix_of(model)
    if kind not in ("labels", "score") or not prefix:
        return []
    return [name for name, _ in model.named_parameters() if not name.startswith(prefix) or in_pooler(name)]


def learning(model: Any, kind: Kind, options: Lora) -> int:
    """How many numbers learn in the model: adapters and head. model: without adapters, perhaps on the meta device."""
    whole = head_parameters(model, kind)
    targets = target_modules(model, options.target_modules, whole).values()
    matrices = sum(sum(each.weight.shape) for each in targets)  # type: ignore[misc,arg-type]
    return options.rank * matrices + sum(model.get_parameter(name).numel() for name in whole)


def adapt(encoder: Encoder, options: Lora, trains: bool = True) -> Encoder:
    """The encoder with adapters, in place: its base is frozen, adapters and the task's head learn.

    trains: false for a base that adapters are merged into: its weights are rounded to 4 bits, not kept in them. The random A
    matrices follow torch's seed. Raises UserError without peft and for wrong target_modules.
    """
    check_installed()
    from peft import LoraConfig, inject_adapter_in_model

    model = encoder.model
    whole = head_parameters(model, encoder.spec.head.kind)
    base = digest_of((name, each) for name, each in sorted(model.state_dict().items()) if name not in whole)
    targets = target_modules(model, options.target_modules, whole)
    config = LoraConfig(
        r=options.rank, lora_alpha=options.scale,  # type: ignore[arg-type] # peft takes fractions, too
        lora_dropout=options.dropout, target_modules=[*targets],
        fan_in_fan_out=any(isinstance(each, Conv1D) for each in targets.values()),
    )  # fmt: skip
    if options.four_bit:
        (four_bit.quantise if trains else four_bit.round_weights)(model, target_modules(model, None, whole))
    inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if name in whole:
            parameter.requires_grad_(True)
    learned = {f"model.{name}" for name, parameter in model.named_parameters() if parameter.requires_grad}
    pooling = set() if encoder.pooling is None else {f"pooling.{name}" for name in encoder.pooling.state_dict()}
    encoder.adapters = Adapters(frozenset(learned | pooling), base)
    return encoder


def store_base(encoder: Encoder, dtype: torch.dtype) -> None:
    """Keep the frozen weights in another dtype, but those in 4 bits; adapters and head stay in fp32."""
    for parameter in encoder.model.parameters():
        if not parameter.requires_grad and not hasattr(parameter, "quant_state"):
            parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def merge(base: Encoder, trained: Encoder, options: Lora, inputs: Mapping[str, Tensor]) -> Encoder:
    """`base` with what `trained` has learned, merged in its own dtype: W + (alpha / rank) · B A.

    base: read anew, without adapters. The weights under the trained adapters may have been rounded for training.
    inputs: of two texts. Raises UserError where the base is another one than that of the training, and where the merged model
    answers differently from the one with adapters.
    """
    adapt(base, options, trains=False)
    assert trained.adapters is not None and base.adapters is not None
    if base.adapters.base != trained.adapters.base:
        raise UserError(
            "the model under the adapters is not the one that they were trained on: its files changed during the run. Put them "
            "back and resume with resume=auto."
        )
    learned = trained.adapters.learned(trained.state_dict())
    missing, _ = base.load_state_dict(learned, strict=False)
    assert not base.adapters.names & set(missing)
    base.eval()
    before = _answer(base, inputs)
    for module, name in list(_adapted(base.model)):
        layer = getattr(module, name)
        layer.merge(safe_merge=True)
        setattr(module, name, layer.get_base_layer())
    base.adapters = None
    apart = float((_answer(base, inputs) - before).abs().max())
    if not apart <= SAME * max(1.0, float(before.abs().max())):
        raise UserError(
            f"the student with merged adapters answers differently from the trained one (by {apart:.3g}). The adapters are in "
            "checkpoints/. Lower student.lora.alpha or optim.lr: weights this large lose digits in the sum."
        )
    del base.model.peft_config
    return base.requires_grad_(True)


def save_adapter(trained: Encoder, tokenizer: Any, base: str, folder: Path) -> None:
    """The adapters, the head, the config and the tokenizer as a folder that peft loads. base: folder or hub id under them."""
    from peft import get_peft_model_state_dict

    assert trained.adapters is not None
    model, head, prefix = trained.model, trained.spec.head, "base_model.model."
    adapters = {f"{prefix}{name}": each for name, each in get_peft_model_state_dict(model).items()}
    whole = {name for name in head_parameters(model, head.kind) if f"model.{name}" in trained.adapters.names}
    weights = adapters | {f"{prefix}{name}": each for name, each in model.state_dict().items() if name in whole}
    config = copy.copy(model.peft_config["default"])
    config.base_model_name_or_path = base
    config.task_type = AFTER_SOURCE if head.source else TASKS[heads.made_as(head.kind, model.config)]
    config.modules_to_save = sorted({_module(name) for name in whole}) or None
    config.inference_mode = True
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: each.float().cpu().contiguous() for name, each in weights.items()}, folder / "adapter_model.safetensors"
    )
    with quiet():
        config.save_pretrained(folder)
        model.config.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    trained.save_pooling(folder)


def _module(parameter: str) -> str:
    """The part of a head that peft saves whole: bert.pooler of bert.pooler.dense.weight, classifier of classifier.weight."""
    before, pooler, _ = parameter.partition("pooler.")
    return f"{before}pooler" if pooler else parameter.partition(".")[0]


def _answer(encoder: Encoder, inputs: Mapping[str, Tensor]) -> Tensor:
    outputs = encoder(encoder.of_texts(inputs))
    return outputs.answer if outputs.tokens is None else outputs.tokens.states  # type: ignore[attr-defined]


def _adapted(model: Any) -> Iterator[tuple[nn.Module, str]]:
    """(parent, name) of every layer with an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for parent in model.modules():
        if not isinstance(parent, BaseTunerLayer):
            yield from ((parent, name) for name, each in parent.named_children() if isinstance(each, BaseTunerLayer))
