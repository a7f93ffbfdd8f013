"""Build a student: from a hub id or folder, from sizes, or from the teacher's own layers.

A student from sizes takes the teacher's vocabulary and starts from random weights, or from weights that are fitted to the
teacher's (least_squares.py). A student from layers takes any subset of the teacher's layers in any order, with its embeddings,
pooler and head (as DistilBERT was initialised: Sanh et al. 2019).
"""

import copy
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig

from mangakd.core.errors import UserError, near
from mangakd.core.spec import Head, ModelSpec
from mangakd.models import heads, load, seq2seq
from mangakd.models.configs import SIZES, size_problem
from mangakd.models.encoder import Encoder
from mangakd.models.late import AS_IT_IS, Interaction
from mangakd.models.lora import Lora
from mangakd.models.outline import drop_pooler, in_pooler, prefix_of
from mangakd.students import stacks
from mangakd.students.least_squares import start_from

Texts = Callable[[], Iterable[Mapping[str, torch.Tensor]]]
EACH_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers", "layers_block_type")
"""Entries of configs that hold a value for each layer, such as local or global attention."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Student:
    """What conf/student holds. One of `path`, `layers`, `sizes` says where the student comes from; `path` wins.

    layers: teacher layers 1…L in the order the student shall have them; an encoder's before a decoder's (students/stacks.py).
    sizes: entries of a Hugging Face config with its `model_type`. start: random, or teacher, of a student of sizes. lr: the
    peak learning rate that suits it; conf/optim reads it, nothing here does. interaction: how it reads a query and a document
    (models/late.py); null: as its folder, or the teacher that it takes layers from. lora: entries of models/lora.py; without a
    rank every weight learns. quantise_base: 4bit keeps the weights under the adapters in 4 bits.
    """

    path: str | None = None
    layers: Sequence[int] | None = None
    sizes: dict[str, Any] = field(default_factory=dict)
    start: str = "random"
    lr: float = 5e-4
    interaction: Any = None
    lora: Any = None
    quantise_base: str | None = None

    @property
    def adapters(self) -> Lora | None:
        """What learns in place of all weights. Raises UserError for adapters on random weights."""
        options = Lora.of(self.lora, self.quantise_base)
        if options is not None and self.path is None and self.layers is None:
            raise UserError(
                "student.lora trains adapters beside frozen weights that were trained, and those of student.sizes are not: set "
                "student.path or student.layers, or student.lora.rank=null."
            )
        return options

    @property
    def reads(self) -> Interaction:
        return Interaction.of(self.interaction, "student.interaction")

    def config(self, teacher: Any, tokenizer: Any) -> Any:
        """The student's Hugging Face config; `teacher` is the teacher's, `tokenizer` the one the student will read with."""
        if self.path is not None:
            return load.load_config(self.path, "student.path", self.reads)
        if self.layers is not None:
            return layers_config(teacher, self.layers, self.reads)
        sizes = dict(self.sizes)
        config = _from_sizes(sizes)
        config.vocab_size = max(config.vocab_size, len(tokenizer)) if "vocab_size" in sizes else len(tokenizer)
        config.pad_token_id = tokenizer.pad_token_id
        for name in ("bos_token_id", "eos_token_id"):
            if (token := getattr(tokenizer, name)) is not None:
                setattr(config, name, token)
        if config.is_encoder_decoder:
            seq2seq.name_tokens(config, sizes, tokenizer)
        return self.reads.mark(config)

    @property
    def takes_layers(self) -> bool:
        return self.path is None and self.layers is not None

    @property
    def fits(self) -> bool:
        """Whether its weights are fitted to the teacher's."""
        return self.path is None and self.layers is None and self.start == "teacher"

    @property
    def needs_teacher(self) -> bool:
        """Whether it is built from the weights of the teacher."""
        return self.takes_layers or self.fits

    def build(self, teacher: Encoder | None, tokenizer: Any, head: Head, texts: Texts = tuple) -> Encoder:
        """The student with this head, in train mode, without adapters. Random parts follow torch's seed.

        teacher: None unless the student needs it. texts: batches of training texts, asked for by a student that fits.
        """
        if self.path is not None:
            outline = load.outline_for(self.path, head, "student.path", self.reads)
            model = load.read_model(outline, self.path, "student.path")
        else:
            config = self.config(teacher and teacher.model.config, tokenizer)
            config.update(heads.entries(head))
            source = self._source
            if head.kind == "tokens":
                heads.check_source(head, config, source)
                load.of_tokens(config).check_config(config, source)
            model = heads.auto(head.kind, config).from_config(config, dtype=torch.float32)
            if head.source and not self._ties(teacher):
                seq2seq.untie(model)
            if self.layers is not None and teacher is not None:
                copy_layers(teacher.model, model, self.layers, _head_rows(teacher.spec.head, heads.own(head, config)))
            if head.kind == "tokens" and model.device.type != "meta":
                load.of_tokens(config).check_logits(model, source)
        student = load.encoder(model, head, f"student {model.config.model_type}", tokenizer)
        if self.fits and teacher is not None:
            rows = _head_rows(teacher.spec.head, student.spec.head)
            log.info("student.start=teacher: the student's weights are fitted, which takes a minute or more of a core.")
            share = start_from(teacher, student, texts(), rows)
            log.info("the student starts from the teacher: it explains %.0f %% of its last hidden states.", 100 * share)
        # from_pretrained answers in eval mode and Lightning leaves it so.
        return student.train()

    @property
    def _source(self) -> str:
        """For messages."""
        return (
            f"student.{'layers' if self.takes_layers else 'sizes'}"
            if self.path is None
            else f"student.path={self.path}"
        )

    def _ties(self, teacher: Encoder | None) -> bool:
        """Whether a new model has one table for embeddings and head: as the teacher whose layers it takes, or as sizes say."""
        if self.takes_layers:
            return teacher is None or seq2seq.is_tied(teacher.model)
        return self.sizes.get("tie_word_embeddings") is not False

    def spec(self, teacher: Any, tokenizer: Any, head: Head) -> ModelSpec:
        """The sizes without the weights: what preflight checks."""
        config = self.config(teacher, tokenizer)
        config.update(heads.entries(head))
        own = heads.own(head, config, self._source)
        return ModelSpec.from_config(config, f"student {config.model_type}", own, load.vocabulary_digest(tokenizer))


def layers_config(teacher: Any, layers: Sequence[int], interaction: Interaction = AS_IT_IS) -> Any:
    """The config of a student of the teacher's `layers` (1…L). Raises UserError for layers that the teacher has not."""
    depth = stacks.depth(teacher)
    wrong = [i for i in layers if not isinstance(i, int) or not 1 <= i <= depth]
    if wrong or not layers:
        raise UserError(
            f"student.layers={list(layers)} must name teacher layers 1…{depth}"
            f"{f'; there is no layer {wrong}' if wrong else ''}. Example: student.layers={stacks.example(teacher)}."
        )
    config = copy.deepcopy(teacher)
    if stacks.has_two(teacher):
        stacks.take(config, layers)
    else:
        config.num_hidden_layers = len(layers)
    config._attn_implementation = None  # a teacher that is tapped would hand its own on
    for name in EACH_LAYER:
        if getattr(config, name, None):
            setattr(config, name, [getattr(config, name)[i - 1] for i in layers])
    return interaction.mark(config)


def _from_sizes(sizes: dict[str, Any]) -> Any:
    """A config from `student.sizes`; an entry that the architecture does not know would be ignored without a word."""
    kind = sizes.get("model_type")
    if kind is None:
        raise UserError(
            "the student has neither student.path, student.layers nor student.sizes.model_type; choose student=…"
        )
    if kind not in CONFIG_MAPPING:
        raise UserError(
            f"student.sizes.model_type={kind!r} is unknown{near(kind, CONFIG_MAPPING.keys())} Example: bert."
        )
    default = AutoConfig.for_model(kind)
    known = ("decoder_start_token_id",) if default.is_encoder_decoder else ()  # T5's configs have it, its class has not
    wrong = [name for name in sizes if not hasattr(default, name) and name not in known]
    if wrong:
        raise UserError(f"student.sizes has {wrong}, which {kind} does not know{near(wrong[0], default.to_dict())}")
    for name in sizes:
        if name in SIZES and (problem := size_problem(sizes[name])):
            raise UserError(f"student.sizes.{name}={sizes[name]} {problem}.")
    try:
        return AutoConfig.for_model(**sizes)
    except Exception as error:  # transformers checks types with errors of its own
        raise UserError(f"student.sizes={sizes}: {str(error).splitlines()[-1].strip()}") from error


def copy_layers(teacher: Any, student: Any, layers: Sequence[int], head: list[int] | slice | None) -> None:
    """Copy embeddings, the named layers (1…L, in this order), pooler and classifier into the student.

    head: the teacher's row for each output of the student; None leaves the student a new classifier.
    """
    lists = stacks.stacks_of(teacher)
    source, stems = teacher.state_dict(), tuple(f"{each.stem}." for each in lists)
    weights = {name: tensor for name, tensor in source.items() if not name.startswith(stems)}
    before, after = prefix_of(teacher), prefix_of(student)
    for each in lists:
        weights |= each.weights(source, layers)
    if before != after:  # one of them has its head, and perhaps its pooler, outside of the encoder: late interaction
        head = None
    if not before:
        pass  # all that it has is copied
    elif head is not None:
        last = [name for name, module in teacher.named_modules() if isinstance(module, nn.Linear)][-1]
        weights |= {name: t[head] for name, t in weights.items() if name.startswith(f"{last}.")}
    else:
        log.info("the student's head is new: %s has another head than the task.", teacher.name_or_path or "the teacher")
        weights = {name: t for name, t in weights.items() if name.startswith(before)}
    if before != after:
        weights = {f"{after}{name.removeprefix(before)}": t for name, t in weights.items()}
        weights = {name: t for name, t in weights.items() if name in student.state_dict() or not in_pooler(name)}
    missing, unexpected = student.load_state_dict(weights, strict=False)
    drop_pooler(student, missing)
    missing = [name for name in missing if name in student.state_dict()]
    gaps = [name for name in missing if head is not None or (name.startswith(after) and not in_pooler(name))]
    if gaps or unexpected:
        raise UserError(
            f"student.layers={list(layers)} does not fit {teacher.config.model_type}, whose layers are not all alike: "
            f"{len(gaps)} weights would stay random and {len(unexpected)} have no place, such as "
            f"{(gaps + unexpected)[0]}. Keep a layer of the teacher in its own kind of place, such as layer 1 first."
        )


def _head_rows(teacher: Head, student: Head) -> list[int] | slice | None:
    """Where the teacher's head has each output of the student's; None when the outputs differ."""
    if teacher.kind != student.kind or teacher.outputs != student.outputs:
        return None
    if teacher.names == student.names or teacher.kind != "labels":
        return slice(None)
    if sorted(teacher.names) != sorted(student.names):
        return None
    return [teacher.names.index(name) for name in student.names]
