"""`task=rewrite` by the command: a tiny T5 is fine-tuned and teaches some of its layers, whose texts are scored and reported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import checked
from omegaconf import DictConfig
from rewrite_rows import ASKED, PEOPLE, rewrite_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig, LlamaConfig, T5Config
from warm import Command

from mangakd.core.errors import UserError
from mangakd.evaluation import predictions
from mangakd.tasks.rewrite.scores import scored

Compose = Callable[..., DictConfig]
RunHere = Callable[[DictConfig, Path], None]
COUNTS = {"path": 192, "val_path": 16, "test_path": 20}


def save_model(folder: Path, config: object, make: object = AutoModelForSeq2SeqLM) -> str:
    torch.manual_seed(0)
    make.from_config(config).save_pretrained(folder)  # type: ignore[attr-defined]
    rewrite_tokenizer().save_pretrained(folder)
    return str(folder)


def t5(folder: Path, **entries: object) -> str:
    """A T5 of 2 + 3 layers of 32."""
    sizes = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "dropout_rate": 0.0,
    }
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "vocab_size": len(rewrite_tokenizer())}
    return save_model(folder, T5Config(**{**sizes, **ids, **entries}))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return t5(tmp_path_factory.mktemp("models") / "t5")


def lines(seed: int, count: int) -> list[dict[str, object]]:
    """Conversations about people; a third are first turns, and each third of the others has two rewrites."""
    rng, rows = np.random.default_rng(seed), []
    for i in range(count):
        number = int(rng.integers(len(PEOPLE) * len(ASKED)))
        person, asked = PEOPLE[number % 6], ASKED[number // 6]
        rewrite, later = asked.format(person), i % 3 > 0
        rows.append(
            {
                "history": [f"Who was {person}?", f"{person} was a scientist."] if later else [],
                "utterance": asked.format("this person") if later else rewrite,
                "rewrite": [rewrite, f"{rewrite} Facts"] if i % 9 == 1 else rewrite,
                "answer": f"{person} {asked.split()[0]} {number}", "kind": "xy"[i % 2],
            }
        )  # fmt: skip
    return rows


@pytest.fixture
def typed(model: str, tmp_path: Path) -> list[str]:
    """A run that takes seconds."""
    for i, (key, count) in enumerate(COUNTS.items()):
        (tmp_path / f"{key}.jsonl").write_text("\n".join(map(json.dumps, lines(i, count))) + "\n")
    files = [f"data.{key}={tmp_path / f'{key}.jsonl'}" for key in COUNTS]
    return [
        "task=rewrite", "data=files", "baseline=false", *files, "data.columns.source=kind", f"teacher.path={model}",
        "data.max_length=80",
        "teacher.fit={mode: always, epochs: 10, lr: 0.01}", "student.layers=[2,3,5]", "hardware=cpu",
        "hardware.precision=32-true", "hardware.batch_size=16", "hardware.accumulate=1", "trainer.max_epochs=2", "optim.lr=0.01",
        "task.max_target_length=24",
    ]  # fmt: skip


def test_a_run_from_lines_to_a_report(typed: list[str], command: Command, tmp_path: Path) -> None:
    """The student's scores are those of the texts that transformers makes with its folder, row by row."""
    folder = tmp_path / "run"
    done = command(
        "train.py", *typed, f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={folder}", "baseline=true",
        "task.generate_every=1", "task.monitor=token_f1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    metrics, test = json.loads((folder / "metrics.json").read_text()), predictions.load(folder, "test")
    assert {
        "teacher/test/mrr@10",
        "baseline/test/exact_match",
        "reference/copy/test/token_f1",
        "val/token_f1",
    } <= metrics.keys()
    reader = AutoTokenizer.from_pretrained(folder / "student")
    student = AutoModelForSeq2SeqLM.from_pretrained(folder / "student").eval()
    assert (len(student.encoder.block), len(student.decoder.block)) == (1, 2)
    rows = lines(2, COUNTS["test_path"])
    expected = []
    for row in rows:
        source = reader(" ||| ".join([*row["history"], row["utterance"]]), return_tensors="pt")
        ids = student.generate(**source, max_new_tokens=24, do_sample=False, use_cache=False)
        expected.append(reader.decode(ids[0], skip_special_tokens=True).strip())
    firsts = [i for i, texts in enumerate(test.written["student"]) if texts]
    assert [test.written["student"][i] for i in firsts] == [[text] for text in expected]
    assert len(test.texts) > len(firsts) == len(rows)  # a second rewrite is a row, and nobody writes for it again
    targets = [row["rewrite"] if isinstance(row["rewrite"], list) else [row["rewrite"]] for row in rows]
    own = [scored([text], each, row["utterance"]) for text, each, row in zip(expected, targets, rows, strict=True)]
    later = [i for i, row in enumerate(rows) if row["history"]]
    for name in ("exact_match", "token_f1", "rouge_l"):
        assert metrics[f"test/{name}"] == pytest.approx(np.mean([own[i][name] for i in later]), abs=1e-6), name
    assert metrics["reference/human/test/exact_match"] == 1.0
    report = (folder / "report.md").read_text()
    for words in (
        "recall of the terms that the targets add", "By source, and first turns apart", "| source x (", "| first turns (7) |",
        "Rewrites side by side", "| history | utterance | human | teacher | student without KD | student |", "| gain |",
    ):  # fmt: skip
        assert words in report, words
    assert "val/token_f1" in (folder / "logs" / "metrics.csv").read_text().splitlines()[0]
    shutil.copytree(folder, tmp_path / "copy")
    typed_again = [str(folder), str(tmp_path / "copy"), "resamples=200", f"out={tmp_path / 'two'}"]
    done = command("scripts/compare_runs.py", *typed_again)
    assert done.returncode == 0, done.stderr
    assert "| exact match, points | +0.0 [+0.0, +0.0] |" in (tmp_path / "two.md").read_text()
    done = command("scripts/gate.py", f"run={folder}")
    assert "lines pass" in done.stdout and "exact_match" in done.stdout, done.stderr
    done = command(
        "train.py", *typed, f"paths.cache={tmp_path / 'cache'}", f"hydra.run.dir={tmp_path / 'planned'}", "plan=true"
    )
    assert done.returncode == 0 and "planning estimate: rewrite" in done.stdout, done.stderr


def test_a_stored_teacher_writes_too(typed: list[str], run_here: RunHere, compose: Compose, tmp_path: Path) -> None:
    own = [
        "teacher=cached",
        "teacher.stored_as=topk",
        "task.beams=3",
        "task.expansions=2",
        "task.generate=5",
        "baseline=false",
    ]
    run_here(compose(*typed, *own), tmp_path / "run")
    test = predictions.load(tmp_path / "run", "test")
    sizes = {name: [len(texts) for texts in each if texts] for name, each in test.written.items()}
    assert sizes.keys() == {"teacher", "student"} and all(len(each) == 5 and max(each) <= 2 for each in sizes.values())
    assert all(len(set(texts)) == len(texts) for texts in test.written["teacher"])
    assert np.isfinite(test.answers["teacher"]["exact_match"]).sum() == 5
    assert np.isfinite(test.answers["copy"]["exact_match"]).sum() == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["data.columns.rewrite=answer", "data.columns.answer=rewrite"], r"holds a list, not a text\. Set data\.columns\.answer"),
        (["data.columns.rewrite=rewritten"], r"has no column 'rewritten'|names a column that no file has"),
        (["data.max_length=3"], r"no source fits into data\.max_length=3 with a target of task\.max_target_length=24"),
        (["task.max_target_length=3"], r"no source fits into .*task\.max_target_length=3 tokens"),
        (["task.search.corpus=nowhere"], r"task\.search\.corpus=nowhere"),
        (["task.template=abc"], r"task\.template='abc' must hold \{turns\} once"),
        (["task.monitor=recall@10"], r"set task\.generate_every=1, or task\.monitor=perplexity"),
        (["task.monitor=kl"], r"task\.monitor='kl' is no metric.*exact_match"),
        (
            ["task.generate_every=1", "hardware.strategy=fsdp", "hardware.devices=2"],
            r"task\.generate_every=1 needs a student that is whole on each device",
        ),
        (["data.columns.rewrite=url"], r"data\.columns\.rewrite=url names a column that no file has"),
        (["distill.lmbda=0.5"], r"distill\.lmbda=0\.5: the student would write its own targets"),
        (
            ["teacher.path={bart}", "data.max_length=40", "task.max_target_length=60"],
            r"task\.max_target_length=60, but the teacher is a bart that writes 48 tokens at most",
        ),
        (["teacher.path={bart}", "data.max_length=64"], r"data\.max_length=64, but the teacher has positions for 48 tokens"),
        (["teacher.path={llama}", "student.layers=[1]"], r"llama"),
        (["student.path={other}"], r"have different tokenizers, and task=rewrite compares them"),
        (["losses=[tokens,attention]"], r"losses\.attention reads attention.*encoder and decoder"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_training(
    change: list[str], words: str, typed: list[str], compose: Compose, tmp_path: Path
) -> None:
    makers = {"bart": _bart, "llama": _llama, "other": _other}
    for name, make in makers.items():
        if any(f"{{{name}}}" in text for text in change):
            change = [text.replace(f"{{{name}}}", make(tmp_path / name)) for text in change]
    with pytest.raises(UserError, match=words):
        checked(compose(*typed, *change), tmp_path / "run")


def _bart(folder: Path) -> str:
    sizes = {
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    ids = {
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 1,
        "decoder_start_token_id": 1,
        "forced_eos_token_id": 1,
    }
    own = {"vocab_size": len(rewrite_tokenizer()), "max_position_embeddings": 48}
    return save_model(folder, BartConfig(**sizes, **ids, **own, encoder_ffn_dim=16, decoder_ffn_dim=16))


def _llama(folder: Path) -> str:
    config = LlamaConfig(
        vocab_size=len(rewrite_tokenizer()), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=1,
    )  # fmt: skip
    return save_model(folder, config, AutoModelForCausalLM)


def _other(folder: Path) -> str:
    """With another tokenizer of equally many tokens."""
    path = t5(folder)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"<unk>"', '"<unknown>"'))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (file := folder / name).is_file():
            file.write_text(file.read_text().replace('"<unk>"', '"<unknown>"'))
    return path
