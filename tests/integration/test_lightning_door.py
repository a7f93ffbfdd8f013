"""DistillModule in a Lightning user's hands: Hugging Face's models and batches, any Trainer, no config."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from tiny import HEAD, LABELS, encoder, plan, split
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoModelForSequenceClassification, T5Config

from mangakd import DistillModule, Optim, losses, teachers
from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.data.sampler import BucketSampler
from mangakd.losses.loss_set import LossSet
from mangakd.teachers.local import LocalTeacher
from mangakd.training.fit import fit


def terms(*names: str) -> dict[str, Any]:
    made = {
        "hard_label": lambda: losses.HardLabel(weight=0.3),
        "output": lambda: losses.Output(weight=0.7, temperature=2),
        "hidden": losses.Hidden,
        "attention": losses.Attention,
        "relation": losses.Relation,
    }
    return {name: made[name]() for name in names}


class Steps:
    """A batch sampler with the rows of the command's steps, epoch by epoch."""

    def __init__(self, sampler: BucketSampler) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return self._sampler.steps

    def __iter__(self) -> Iterator[list[int]]:
        order = self._sampler.order()
        self._sampler.epoch += 1  # before the last batch: a trainer that knows the length asks for no more
        yield from order


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """As a tokenised `datasets.Dataset` gives them."""
    data = split(count, seed)
    return [
        {"input_ids": data.collate([i])["student"]["input_ids"][0].tolist(), "labels": int(data.columns["labels"][i])}
        for i in range(count)
    ]


def collate(examples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """As DataCollatorWithPadding does it."""
    width = max(len(each["input_ids"]) for each in examples)
    ids = torch.tensor([each["input_ids"] + [0] * (width - len(each["input_ids"])) for each in examples])
    mask = torch.tensor([[1] * len(each["input_ids"]) + [0] * (width - len(each["input_ids"])) for each in examples])
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([each["labels"] for each in examples])}


def trainer(**options: Any) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(accelerator="cpu", devices=1, **{"max_epochs": 1, **quiet, **options})


def module(
    student: Any = None, teacher: Any = None, names: tuple[str, ...] = ("output",), **options: Any
) -> DistillModule:
    return DistillModule(
        student=encoder(1).model if student is None else student,
        teacher=encoder(2, layers=4).model if teacher is None else teacher,
        losses=terms(*names),
        **options,
    )


def loader(count: int = 16) -> DataLoader:
    return DataLoader(rows(count, 1), 8, collate_fn=collate)


def given(batches: list[Any]) -> DataLoader:
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def test_the_same_batches_give_the_command_s_student_bit_for_bit(tmp_path: Path) -> None:
    names = ("hard_label", "output", "hidden", "attention", "relation")
    student, teacher = encoder(1, hidden=8), encoder(2, layers=4)
    same, frozen = copy.deepcopy(student.model), copy.deepcopy(teacher.model)
    settings = plan(tmp_path)
    settings.keep = "last"
    torch.manual_seed(settings.seed)
    ours = LossSet(terms(*names))
    ours.bind(student.spec, teacher.spec)
    fit(student, ours, LocalTeacher(teacher, HEAD), settings)

    own = DistillModule(student=same, teacher=frozen, losses=terms(*names), optim=settings.optim, seed=settings.seed)
    steps = Steps(BucketSampler(settings.train.student.lengths, settings.hardware.step, settings.seed, {}))
    trainer(max_epochs=3).fit(own, DataLoader(rows(100, 1), batch_sampler=steps, collate_fn=collate))
    expected = student.model.state_dict()
    for name, weights in same.state_dict().items():
        assert torch.equal(weights, expected[name]), name


def test_the_student_is_saved_as_any_hugging_face_folder(tmp_path: Path) -> None:
    own = module(names=("output", "attention"))
    trainer().fit(own, loader())
    own.student.save_pretrained(tmp_path / "student")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
    batch = collate(rows(4, 3))
    del batch["labels"]
    with torch.no_grad():
        assert torch.allclose(again(**batch).logits, own.student.model.eval()(**batch).logits, atol=1e-6)


def test_validation_test_and_prediction(tmp_path: Path) -> None:
    own = module(names=("hard_label", "output"))
    runner = trainer()
    (validated,) = runner.validate(own, loader(), verbose=False)
    assert {"val/loss", "val/loss/hard_label", "val/loss/output"} <= validated.keys()
    weighted = 0.3 * validated["val/loss/hard_label"] + 0.7 * validated["val/loss/output"]
    assert validated["val/loss"] == pytest.approx(weighted, rel=1e-5)
    (tested,) = runner.test(own, loader(), verbose=False)
    assert tested["test/loss"] == validated["val/loss"]
    predicted = torch.cat(runner.predict(own, loader()))  # type: ignore[arg-type]
    assert predicted.shape == (16, 3)


def test_the_teacher_stays_as_it_was_and_out_of_the_checkpoint() -> None:
    teacher = encoder(2, layers=4).model
    before = copy.deepcopy(teacher.state_dict())
    own = module(teacher=teacher)
    trainer().fit(own, loader())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(name.startswith(("student.", "losses.")) for name in own.state_dict())


def test_several_teachers_are_an_ensemble_whose_labels_are_matched_by_name() -> None:
    one, other = encoder(2).model, encoder(3).model
    other.config.update({"id2label": dict(enumerate(reversed(LABELS)))})
    own = module(teacher=[one, other])
    weighted = module(teacher=teachers.ensemble_of([one, other], weights=[1, 3]))
    batch = own.on_before_batch_transfer(collate(rows(4, 3)), 0)
    for each in (own, weighted):
        each._prepare_teacher()
        assert each.teacher is not None
    first = one(**batch["student"] | {"labels": None}).logits.softmax(-1)
    second = other(**batch["student"] | {"labels": None}).logits.softmax(-1).flip(-1)
    assert torch.allclose(own.teacher(batch).log_probs().exp(), (first + second) / 2, atol=1e-6)  # type: ignore[misc]
    assert torch.allclose(weighted.teacher(batch).log_probs().exp(), (first + 3 * second) / 4, atol=1e-6)  # type: ignore[misc]


def test_unlabelled_batches_and_models_with_tokenizers_of_their_own() -> None:
    batch = collate(rows(8, 3))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    longer = {name: torch.cat([value, torch.zeros_like(value[:, :2])], 1) for name, value in inputs.items()}
    own = module()
    trainer().fit(own, given([inputs, {"student": inputs, "teacher": longer}]))


def test_a_temperature_by_class_is_calibrated_on_validation_batches() -> None:
    made = {"output": losses.Output(temperature=4, temperature_by="class")}
    own = DistillModule(student=encoder(1).model, teacher=encoder(2).model, losses=made)
    with pytest.raises(UserError, match="the loss term output is not finite"):
        trainer().fit(own, loader())
    own = DistillModule(student=encoder(1).model, teacher=encoder(2).model, losses=made)
    own.calibrate(loader())
    trainer().fit(own, loader())


def test_the_trainer_s_own_clipping_wins() -> None:
    moved = []
    for clip in (None, 1e-6):
        own = module(optim=Optim(lr=1e-3, clip=None, weight_decay=0))
        trainer(gradient_clip_val=clip).fit(own, loader())
        norms = [p.grad.norm() for p in own.student.parameters() if p.grad is not None]
        moved.append(float(torch.stack(norms).norm()))
    assert moved[0] > 1e-4 > 2e-6 > moved[1]


SCORE = Head("score", 1)
T5 = T5Config(
    vocab_size=50, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, pad_token_id=0, decoder_start_token_id=0,
    id2label=dict(enumerate(LABELS)),
)  # fmt: skip
SAME_SIZE = "vocabularies of different sizes"
REFUSED: dict[str, tuple[Any, str]] = {
    "no classifier": (lambda: module(student=AutoModel.from_config(encoder(1).model.config)), "student is a BertModel; give"),
    "a name": (lambda: module(student="bert-base-uncased"), "student is a str; give a sequence classifier"),
    "one object": (lambda: (m := encoder(1).model) and module(m, m), "teacher and student are the same object"),
    "labels and a score": (
        lambda: module(teacher=encoder(2, head=SCORE).model),
        r"the teacher's is a score \(regression\), the student's 3 labels \(a, b, c\) \(single_label_classification\)",
    ),
    "probabilities of a score": (
        lambda: module(encoder(1, head=SCORE).model, encoder(2, head=SCORE).model),
        r"losses\.output \(OutputLoss\) needs a head of labels; the head is a score .*divergence=mse",
    ),
    "two stacks": (
        lambda: module(AutoModelForSequenceClassification.from_config(T5), names=("hidden",)), "has an encoder and a decoder"
    ),
    "no losses": (lambda: DistillModule(encoder(1).model, encoder(2).model), "there are no losses"),
    "no teacher": (lambda: DistillModule(encoder(1).model, losses=terms("output")), r"losses\.output \(OutputLoss\) learns from"),
    "layer map": (
        lambda: DistillModule(encoder(1).model, encoder(2).model, {"hidden": losses.Hidden(layer_map={9: 1})}),
        r"losses\.hidden\.layer_map",
    ),
    "hidden of an ensemble": (
        lambda: module(teacher=[encoder(2).model, encoder(3).model], names=("hidden",)), "teacher gives no hidden of layers"
    ),
    "no mapping": (lambda: trainer().fit(module(), given([(1, 2)])), "a batch is a (tuple|list); a mapping is needed"),
    "no mask": (
        lambda: trainer().fit(module(), given([{"input_ids": torch.ones(2, 3, dtype=torch.long)}])),
        "a batch has no attention_mask",
    ),
    "schedule": (
        lambda: trainer().fit(module(optim=Optim(schedule="cosin")), loader()),
        r"Optim\(schedule='cosin'\) is unknown. Known: linear, cosine, constant",
    ),
    "nothing to calibrate": (
        lambda: DistillModule(encoder(1).model, losses=terms("hard_label")).calibrate(loader()),
        "calibrate needs a teacher, and no loss uses a teacher",
    ),
    "no end": (lambda: trainer(max_epochs=-1).fit(module(), loader()), "has none: give it max_epochs or max_steps"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_errors_name_the_argument(what: str) -> None:
    act, expected = REFUSED[what]
    with pytest.raises(UserError, match=expected):
        act()


def test_other_labels_are_refused_with_both_names() -> None:
    teacher = encoder(2).model
    teacher.config.update({"id2label": {0: "a", 1: "x", 2: "c"}})
    with pytest.raises(UserError, match=r"'x' and 'b'.*id2label=teacher\.config\.id2label"):
        module(teacher=teacher)


def test_other_vocabularies_need_batches_of_their_own() -> None:
    teacher = encoder(2).model
    teacher.resize_token_embeddings(60)
    with pytest.raises(UserError, match=SAME_SIZE):
        trainer().fit(module(teacher=teacher), loader())


def test_a_teacher_that_nothing_learns_from_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    module(names=("hard_label",))
    assert "teacher is ignored: no loss learns from it (losses: hard_label)." in caplog.messages


class Contrast(losses.Output):
    additive = False


def test_a_loss_that_compares_rows_is_warned_about_with_accumulation(caplog: pytest.LogCaptureFixture) -> None:
    own = DistillModule(student=encoder(1).model, teacher=encoder(2).model, losses={"near": Contrast()})
    words = "losses near compare the rows of a micro-batch, not those of the whole optimizer step, which has 2 micro-batches."
    trainer().fit(own, loader(32))
    assert words not in caplog.messages
    trainer(accumulate_grad_batches=2).fit(own, loader(32))
    assert words in caplog.messages


def test_each_step_and_each_micro_batch_has_dropout_of_its_own() -> None:
    drawn = []

    class Watched(DistillModule):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            super().on_train_batch_start(batch, batch_idx)
            drawn.append(torch.default_generator.initial_seed())

    own = Watched(student=encoder(1).model, teacher=encoder(2).model, losses=terms("output"))
    trainer(accumulate_grad_batches=2).fit(own, loader(32))
    assert len(drawn) == 4 == len(set(drawn))
