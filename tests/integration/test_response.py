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
from tiny_language import CONFIGS
from transformers import AutoModelForCausalLM, AutoTokenizer
from warm import Command

from mangakd.core.errors import UserError
from mangakd.data.chat import ChatTemplate
from mangakd.data.chat_tokens import Marker
from mangakd.evaluation import predictions
from mangakd.models.embedded_tiny import train_tokenizer
from mangakd.runs.texts import stage_rows
from mangakd.shop.manga_answers import make_split

Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]
COUNTS = {"path": 48, "val_path": 16, "test_path": 20}


def save_model(folder: Path, **entries: object) -> str:
    """A Llama of 3 layers of 16, with the template and a tokenizer of the shop."""
    reader = train_tokenizer(each.answer for each in make_split("train", 60))
    settings = CONFIGS["llama"]()
    ids = {name: getattr(reader, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    settings.update({"vocab_size": len(reader), "max_position_embeddings": 256, **ids, **entries})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    reader.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def typed(model: str, tmp_path: Path) -> list[str]:
    """A run that takes seconds."""
    for i, (key, count) in enumerate(COUNTS.items()):
        lines = [
            json.dumps({"prompt": a.prompt, "answer": a.answer}) for a in make_split("train", 300)[100 * i :][:count]
        ]
        (tmp_path / f"{key}.jsonl").write_text("\n".join(lines) + "\n")
    files = [f"data.{key}={tmp_path / f'{key}.jsonl'}" for key in COUNTS]
    return [
        "task=response", "data=files", *files, f"teacher.path={model}", "teacher.fit={mode: always, epochs: 8, lr: 0.02}",
        "student.layers=[1,3]", "hardware=cpu", "hardware.precision=32-true", "trainer.max_epochs=2", "hardware.batch_size=8",
        "hardware.accumulate=2", "data.max_length=256", "task.system=be kind",
    ]  # fmt: skip


def test_a_run_from_lines_to_a_report(typed: list[str], command: Command, tmp_path: Path) -> None:
    """The student's perplexity is what transformers makes of its folder, answer by answer."""
    folder = tmp_path / "run"
    done = command(
        "train.py", *typed, f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={folder}", "+trainer.log_every_n_steps=1"
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
    nll, rows = [], list(map(json.loads, (tmp_path / "test_path.jsonl").read_text().splitlines()))
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
    typed: list[str], compose: Compose, run_here: Callable[..., None], stopped_at: Callable[..., None], tmp_path: Path
) -> None:
    own = [*typed, "logger=[]", "checkpoint.every_steps=1", "baseline=false"]

    def weights(folder: Path) -> dict[str, torch.Tensor]:
        return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]

    run_here(compose(*own), tmp_path / "whole")
    stopped_at(4, lambda: run_here(compose(*own), tmp_path / "cut"), within="cut")
    run_here(compose(*own, "resume=auto"), tmp_path / "cut")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["losses=[tokens,output]"], r"losses\.output .* needs a head of labels"),
        (["losses=[tokens,vector]"], r"losses\.vector .* needs a head of vector"),
        (["data.max_length=300"], r"data\.max_length=300, but the teacher is a llama for 256 tokens.*task\.too_long=cut"),
        (["hardware.tokens_per_batch=255"], r"255 holds no sequence of data\.max_length=256 .*tokens_per_batch=256"),
        (["hardware.tokens_per_batch=0"], r"hardware\.tokens_per_batch=0 must be a whole number of tokens from 1 on, or null"),
        (["data.max_length=12"], r"no answer fits into data\.max_length=12; the shortest sequence has \d+ tokens"),
        (["export=[onnx]"], r"export=\[…\] makes files of encoders, not of language models"),
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
    change: list[str], words: str, typed: list[str], model: str, compose: Compose, tmp_path: Path
) -> None:
    if change[0].startswith("student.path={"):
        name = change[0].removeprefix("student.path={").removesuffix("}")
        change = [f"student.path={_student(name, model, tmp_path / name)}"]
        typed = [*typed, f"teacher.path={tmp_path / name}"] if name == "mute" else typed
    with pytest.raises(UserError, match=words):
        checked(compose(*typed, *change), tmp_path / "run")


def _student(name: str, model: str, folder: Path) -> str:
    """other: with another tokenizer. wide: with more tokens than the teacher. mute: that cannot end an answer."""
    reader = AutoTokenizer.from_pretrained(model)
    save_model(folder, **({"vocab_size": len(reader) + 8} if name == "wide" else {}))
    if name == "other":
        train_tokenizer(["another language"] * 9).save_pretrained(folder)
    if name == "mute":
        reader.chat_template = reader.eos_token = None
        reader.save_pretrained(folder)
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    return str(folder)


def test_a_student_that_names_reserved_tokens_reads_with_its_teacher(
    typed: list[str], model: str, compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Llama 3.1 and Llama 3."""
    paths = {"teacher": "<|eom_id|>", "student": "<|reserved_special_token_2|>"}
    for name, token in paths.items():
        reader = AutoTokenizer.from_pretrained(model)
        reader.add_special_tokens({"extra_special_tokens": [token]})
        save_model(tmp_path / name, vocab_size=len(reader))
        reader.save_pretrained(tmp_path / name)
    own = [f"{name}.path={tmp_path / name}" for name in paths]
    run = checked(compose(*typed, *own, "student.layers=null"), tmp_path / "run")
    assert "saved with it" in caplog.text and "<|eom_id|>" in run.models.student_tokenizer.get_vocab()


def test_packed_rows_teach_the_same(typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path) -> None:
    for packing in ("false", "true"):
        own = [f"hardware.packing={packing}", "trainer.max_epochs=1", "data.max_length=200"]
        run_here(compose(*typed, *own), tmp_path / packing)
    plain, packed = (
        torch.load(tmp_path / packing / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
        for packing in ("false", "true")
    )
    for name, value in plain.items():
        torch.testing.assert_close(packed[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_unlabelled_texts_are_learnt_beside_answers(typed: list[str], compose: Compose, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("\n".join(f"volume {i} of the manga is here" for i in range(9)))
    own = [f"data.unlabelled_path={tmp_path / 'more.txt'}", "data.labelled_share=0.5"]
    run = checked(compose(*typed, *own, "+stages.distil={texts: [labelled,unlabelled], limit: 30}"), tmp_path / "run")
    splits = run.material.splits
    assert len(splits["train"]) == 24 and len(splits["unlabelled"]) == 9
    assert splits["unlabelled"].units["targets"].min() > 2
    assert len(stage_rows(splits, run.parts.stages[0])) == 30
