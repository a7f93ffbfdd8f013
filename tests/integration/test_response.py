"""`task=response` by the command: a tiny Llama is fine-tuned and teaches two of its layers, which are scored and reported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import checked
from omegaconf import DictConfig
from response_run import save_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from warm import Command

from mangakd.core.errors import UserError
from mangakd.data.chat import ChatTemplate
from mangakd.data.chat_tokens import Marker
from mangakd.evaluation import predictions
from mangakd.models.embedded_tiny import train_tokenizer
from mangakd.runs.texts import stage_rows

Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]


def test_a_run_from_lines_to_a_report(
    response_run: list[str], response_files: Path, command: Command, tmp_path: Path
) -> None:
    """The student's perplexity is what transformers makes of its folder, answer by answer."""
    folder = tmp_path / "run"
    done = command(
        "train.py", *response_run, f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={folder}", "+trainer.log_every_n_steps=1"
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    metrics, test = json.loads((folder / "metrics.json").read_text()), predictions.load(folder, "test")
    assert {"baseline/test/kl", "test/agreement", "teacher/test/ece", "val/perplexity"} <= metrics.keys()
    assert (
        metrics["test/kl"] < metrics["baseline/test/kl"]
        and metrics["test/agreement"] > metrics["baseline/test/agreement"]
    )
    reader = AutoTokenizer.from_pretrained(folder / "student")
    student = AutoModelForCausalLM.from_pretrained(folder / "student").eval()
    marker = Marker(reader, ChatTemplate.of(reader), 512)
    nll, rows = [], list(map(json.loads, (response_files / "test_path.jsonl").read_text().splitlines()))
    for row in rows:
        talk = (("system", "be kind"), ("user", row["prompt"]), ("assistant", row["answer"]))
        (marked,) = marker.conversation(talk)
        with torch.no_grad():
            log_q = student(input_ids=torch.tensor([marked.ids])).logits[0].log_softmax(-1)
        nll.append(-sum(float(log_q[i - 1, marked.ids[i]]) for i, target in enumerate(marked.targets) if target))
    assert test.texts == [row["prompt"] for row in rows]
    np.testing.assert_allclose(test.answers["student"]["nll"], nll, rtol=1e-4)
    assert metrics["test/perplexity"] == pytest.approx(np.exp(sum(nll) / test.truth["tokens"].sum()), rel=1e-4)
    report = (folder / "report.md").read_text()
    for words in (
        "perplexity",
        "KL(teacher ‖ student) a token, nats",
        "| closeness |",
        "student without KD",
        "text-generation",
        "Answers that differ most",
    ):
        assert words in report + (folder / "student" / "README.md").read_text(), words
    curves = (folder / "logs" / "metrics.csv").read_text().splitlines()[0]
    for name in ("val/kl", "val/agreement", "train/tokens/divergence", "train/tokens/cross_entropy"):
        assert name in curves
    shutil.copytree(folder, tmp_path / "copy")
    done = command(
        "scripts/compare_runs.py", str(folder), str(tmp_path / "copy"), "resamples=200", f"out={tmp_path / 'two'}"
    )
    assert done.returncode == 0 and "| perplexity | +0.00 [+0.00, +0.00] |" in (tmp_path / "two.md").read_text(), (
        done.stderr
    )
    done = command("scripts/export.py", f"student={folder}", "export=[onnx]")
    assert "generates text; encoders can be exported" in done.stderr


def test_a_run_that_was_stopped_ends_with_the_same_bits(
    response_run: list[str], ends_alike: Callable[..., None]
) -> None:
    ends_alike(*response_run)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["losses=[tokens,output]"], r"losses\.output .* needs a head of labels"),
        (["losses=[tokens,vector]"], r"losses\.vector .* needs a head of vector"),
        (["data.max_length=300"], r"data\.max_length=300, but the teacher is a llama for 256 tokens.*task\.too_long=cut"),
        (["hardware.tokens_per_batch=255"], r"255 holds no sequence of data\.max_length=256 .*tokens_per_batch=256"),
        (["hardware.tokens_per_batch=0"], r"hardware\.tokens_per_batch=0 must be a whole number of tokens from 1 on, or null"),
        (["data.max_length=12"], r"no answer fits into data\.max_length=12; the shortest sequence has \d+ tokens"),
        (["export=[onnx]"], r"onnx_fp32 is no variant of a language model"),
        (["teacher=ensemble"], r"the teacher has 3 members.*Give one: teacher=local"),
        (["hardware.packing=true", "losses=[tokens,hidden]"], r"losses\.hidden compares layers token by token.*packing=false"),
        (["stages=quantised"], r"quantise=int8: quantisers are trained in encoders"),
        (["task.too_long=drop"], r"too_long=drop must be one of leave_out, cut"),
        (["task.monitor=kl"], r"task\.monitor='kl' is no metric.*perplexity, nll, accuracy, ece"),
        (["losses.tokens.divergence=kl"], r"divergence='kl' is unknown"),
        (["data.columns={prompt: question}"], r"path\.jsonl has no column 'question'; .*data\.columns\.prompt"),
        (["student.path={other}"], r"have different tokenizers, and task=response compares them.*distill\.alpha=0"),
        (["student.path={wide}"], r"losses\.tokens compares .* has \d+ tokens and teacher llama \d+\..*vocabulary=common"),
        (["student.path={mute}"], r"has no chat template and no EOS token"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_training(
    change: list[str], words: str, response_run: list[str], response_model: str, compose: Compose, tmp_path: Path
) -> None:
    if change[0].startswith("student.path={"):
        name = change[0].removeprefix("student.path={").removesuffix("}")
        change = [f"student.path={_student(name, response_model, tmp_path / name)}"]
        response_run = [*response_run, f"teacher.path={tmp_path / name}"] if name == "mute" else response_run
    with pytest.raises(UserError, match=words):
        checked(compose(*response_run, *change), tmp_path / "run")


def _student(name: str, source: str, folder: Path) -> str:
    """other: with another tokenizer. wide: with more tokens than the teacher. mute: that cannot end an answer."""
    reader = AutoTokenizer.from_pretrained(source)
    save_model(folder, **({"vocab_size": len(reader) + 8} if name == "wide" else {}))
    if name == "other":
        train_tokenizer(["another language"] * 9).save_pretrained(folder)
    if name == "mute":
        reader.chat_template = reader.eos_token = None
        reader.save_pretrained(folder)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    return str(folder)


def test_a_student_that_names_reserved_tokens_reads_with_its_teacher(
    response_run: list[str], response_model: str, compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Llama 3.1 and Llama 3."""
    paths = {"teacher": "<|eom_id|>", "student": "<|reserved_special_token_2|>"}
    for name, token in paths.items():
        reader = AutoTokenizer.from_pretrained(response_model)
        reader.add_special_tokens({"extra_special_tokens": [token]})
        save_model(tmp_path / name, vocab_size=len(reader))
        reader.save_pretrained(tmp_path / name)
    own = [f"{name}.path={tmp_path / name}" for name in paths]
    run = checked(compose(*response_run, *own, "student.layers=null"), tmp_path / "run")
    assert "saved with it" in caplog.text and "<|eom_id|>" in run.models.student_tokenizer.get_vocab()


def test_packed_rows_teach_the_same(
    response_run: list[str], run_here: RunHere, compose: Compose, tmp_path: Path
) -> None:
    for packing in ("false", "true"):
        own = [f"hardware.packing={packing}", "trainer.max_epochs=1", "data.max_length=200"]
        run_here(compose(*response_run, *own), tmp_path / packing)
    plain, packed = (
        torch.load(tmp_path / packing / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for packing in ("false", "true")
    )
    for name, value in plain.items():
        torch.testing.assert_close(packed[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_unlabelled_texts_are_learnt_beside_answers(response_run: list[str], compose: Compose, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("\n".join(f"volume {i} of the manga is here" for i in range(9)))
    own = [f"data.unlabelled_path={tmp_path / 'more.txt'}", "data.labelled_share=0.5"]
    run = checked(
        compose(*response_run, *own, "+stages.distil={texts: [labelled,unlabelled], limit: 30}"), tmp_path / "run"
    )
    splits = run.material.splits
    assert len(splits["train"]) == 24 and len(splits["unlabelled"]) == 9
    assert splits["unlabelled"].units["targets"].min() > 2
    assert len(stage_rows(splits, run.parts.stages[0])) == 30
