"""Kinds of head: what a config says of one, models that have it, and what has none."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from contract.tiny_models import HEAD, LABELS, SCORE, SEVERAL, config, encoder, inputs, model, tokenizer
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BertForSequenceClassification,
    LlamaConfig,
    T5Config,
)

from mangakd.core.errors import UserError
from mangakd.core.outputs import Outputs
from mangakd.core.requires import Need
from mangakd.core.spec import KINDS, Head
from mangakd.losses.hidden import HiddenLoss
from mangakd.losses.loss_set import LossSet
from mangakd.losses.output import OutputLoss
from mangakd.models import heads, load
from mangakd.models.encoder import Encoder
from mangakd.models.labels import alignment
from mangakd.students.build import Student
from mangakd.teachers.local import LocalTeacher

SEQ2SEQ = {
    "t5": T5Config(
        vocab_size=50, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=2, pad_token_id=0,
        decoder_start_token_id=0, eos_token_id=1,
    ),
    "bart": BartConfig(
        vocab_size=50, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32, pad_token_id=0, bos_token_id=2, eos_token_id=1,
        decoder_start_token_id=1, forced_eos_token_id=1,
    ),
}  # fmt: skip


# --- what a config says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [HEAD, SEVERAL, SCORE, Head("score", 1), Head("labels", 2)], ids=str)
def test_a_head_survives_its_config(head: Head) -> None:
    settings = config("bert")
    settings.update(heads.entries(head))
    assert heads.trained_head(settings) == head


UNTYPED: list[tuple[dict[int, str], Head | None, Head]] = [
    ({0: "a", 1: "b"}, None, Head.of_labels("ab")),
    ({0: "a", 1: "b"}, SEVERAL, Head.of_labels("ab", several=True)),
    ({0: "a", 1: "b"}, SCORE, Head.of_labels("ab")),
    ({0: "LABEL_0", 1: "LABEL_1"}, None, Head("labels", 2)),
    ({0: "LABEL_1", 1: "LABEL_0"}, None, Head.of_labels(("LABEL_1", "LABEL_0"))),
    ({0: "LABEL_0"}, None, Head("score", 1)),
    ({0: "toxic"}, SEVERAL, Head.of_labels(("toxic",), several=True)),
]


@pytest.mark.parametrize(("names", "task", "expected"), UNTYPED)
def test_a_config_without_problem_type(names: dict[int, str], task: Head | None, expected: Head) -> None:
    """One output is a regression, as in transformers; between one label and several the task decides."""
    settings = config("bert")
    settings.update({"id2label": names, "num_labels": len(names)})
    assert heads.trained_head(settings, task) == expected


def test_a_head_that_cannot_be_is_no_head() -> None:
    for kind, outputs, names in (("labels", 3, ("a", "b")), ("label", 2, ())):
        with pytest.raises(ValueError, match=rf"no head of {outputs} {kind}"):
            Head(kind, outputs, names)  # type: ignore[arg-type]


def test_each_kind_has_a_row() -> None:
    assert set(heads.AUTO) == set(heads.HEADS) == set(KINDS)


def test_a_language_model_has_no_trained_labels(tmp_path: Path) -> None:
    """Its config names LABEL_0 and LABEL_1, as every config does."""
    settings = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0
    )
    heads.AUTO["tokens"].from_config(settings).save_pretrained(tmp_path)
    assert load.load_config(str(tmp_path)).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert load.outline_trained(str(tmp_path), "teacher.path") is None


# --- a head of scores ------------------------------------------------------------------------------------------------


def test_a_score_is_learnt_saved_and_read_again(tmp_path: Path) -> None:
    teacher = LocalTeacher(encoder(config("bert"), SCORE, seed=3), SCORE)
    student = Student(sizes={"model_type": "bert", "num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2,
                             "intermediate_size": 24}).build(None, tokenizer(), SCORE)  # fmt: skip
    losses = LossSet({"output": OutputLoss(divergence="mse"), "hidden": HiddenLoss(layer_map="last")})
    losses.bind(student.spec, teacher.spec)
    student.require(losses.requires.student)
    teacher.prepare(torch.device("cpu"), losses.requires.teacher)
    batch = {"student": inputs(), "teacher": inputs()}
    optimizer = torch.optim.Adam([*student.parameters(), *losses.parameters()], lr=1e-2)
    terms = []
    for _ in range(60):
        out = losses(student(batch["student"]), teacher(batch), batch, 0.0)
        optimizer.zero_grad()
        out.total.backward()
        optimizer.step()
        terms.append(out.terms["output"].item())
    assert terms[-1] < 0.05 * terms[0], terms
    student.eval().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    outline = load.outline_trained(str(tmp_path), "teacher.path", "score")
    assert outline is not None and outline.head == SCORE == student.spec.head
    again = Encoder(outline.read(torch.float32).eval(), student.spec)
    torch.testing.assert_close(again(inputs()).logits, student(inputs()).logits)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert plain.config.problem_type == "regression" and plain.config.num_labels == 1


def test_a_score_teacher_gives_its_head_to_a_student_of_its_layers() -> None:
    taught = encoder(config("bert"), SCORE)
    student = Student(layers=[1, 2, 3]).build(taught, tokenizer(), Head("score", 1)).eval()
    torch.testing.assert_close(student(inputs()).logits, taught(inputs()).logits, rtol=0, atol=0)


def test_a_teacher_of_another_kind_is_refused() -> None:
    for own, task, words in (
        (
            SCORE,
            HEAD,
            r"fine-tuned for regression and answers with a score; the task needs single_label_classification, 5 labels",
        ),
        (
            HEAD,
            SCORE,
            r"fine-tuned for single_label_classification .*; the task needs regression, a score\. Give a teacher of",
        ),
        (
            HEAD,
            SEVERAL,
            r"the task needs multi_label_classification, 5 labels .*any number of them\. Set task\.problem",
        ),
        (Head("score", 3), SCORE, r"different labels: 3 against 1"),
    ):
        with pytest.raises(UserError, match=words):
            alignment(own, task, "x")
    assert alignment(SCORE, Head("score", 1), "x") is None, "the name of a score is for people"


def test_names_of_transformers_are_no_names() -> None:
    with pytest.raises(
        UserError, match=r"LABEL_0 and so on are no names.*teacher\.labels=\[…\].*teacher\.fit\.mode=always"
    ):
        alignment(Head("labels", 5), HEAD, "x")
    numbered = Head.of_labels(("LABEL_1", "LABEL_0"))
    index = alignment(Head("labels", 2), numbered, "x")
    assert index is not None and index.tolist() == [1, 0], "data may well call its labels so"


# --- encoder and decoder ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEQ2SEQ)
def test_a_model_with_two_stacks_answers_and_is_not_tapped(kind: str) -> None:
    """hidden[last] was the logits and the other layers the encoder's, whatever the loss meant."""
    made = encoder(SEQ2SEQ[kind], Head.of_labels("abc"))
    ids = torch.tensor([[5, 9, 7, 1], [4, 6, 1, 0]])
    given = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    with torch.no_grad():
        torch.testing.assert_close(made(given).logits, made.model(**given).logits)
    for need in (Need(hidden=frozenset({2})), Need(attention=frozenset({1}))):
        with pytest.raises(UserError, match=rf"{kind} 0 has an encoder and a decoder.*Losses on logits"):
            made.require(need)


def test_a_model_without_a_head_is_refused() -> None:
    with pytest.raises(UserError, match="teacher is a BertModel; give a sequence classifier"):
        Encoder.of(model(config("bert")).bert, "teacher")


def test_the_encoder_answers_with_its_heads_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(heads.HEADS["labels"], fields=lambda raw: {"logits": raw.logits + 1})
    monkeypatch.setitem(heads.HEADS, "labels", row)
    plain = model(config("bert"))
    assert isinstance(plain, BertForSequenceClassification)
    answer: Outputs = Encoder.of(plain, "teacher")(inputs())
    with torch.no_grad():
        torch.testing.assert_close(answer.logits, plain(**inputs()).logits + 1)
    assert answer.logits.shape == (3, len(LABELS))
