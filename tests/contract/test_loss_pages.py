"""Every loss of losses_table.py has a page in docs/reference/losses: formula, shapes, when, when not, example, source.

The page renders the docstrings of the loss's module, which hold formula, shapes, source and deviations. The page's examples run.
"""

import inspect
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from conftest import REPO
from losses_table import ROWS
from omegaconf import DictConfig

from mangakd.losses.base import LossCallback
from mangakd.losses.loss_set import LossSet

PAGES = REPO / "docs" / "reference" / "losses"
LOSSES = sorted({row.cls for row in ROWS}, key=lambda cls: cls.__name__)
each_loss = pytest.mark.parametrize("cls", LOSSES, ids=lambda cls: cls.__name__)
OF_THE_PAGE = ("When to use it", "When not", "Example", "Formula, shapes and source")
OF_THE_DOCSTRING = (r"^Formula\b.*:\n\n {4}\S", r"^Shapes: .*\(B, ", r"^Source: .*arXiv", r"^Deviations: ")


def name(cls: type[LossCallback]) -> str:
    return cls.__module__.rpartition(".")[2]


def page(cls: type[LossCallback]) -> str:
    return (PAGES / f"{name(cls)}.md").read_text(encoding="utf-8")


def block(cls: type[LossCallback], language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", page(cls), re.DOTALL)
    assert match, f"no {language} example"
    return match[1]


@each_loss
def test_a_page_has_all_parts_and_text_in_each(cls: type[LossCallback]) -> None:
    parts = dict(part.split("\n", 1) for part in re.split(r"^## ", page(cls), flags=re.MULTILINE)[1:])
    assert not set(OF_THE_PAGE) - set(parts)
    assert all(len(parts[part].split()) > 1 for part in OF_THE_PAGE)
    assert f"::: {cls.__module__}\n" in parts["Formula, shapes and source"]


@each_loss
@pytest.mark.parametrize("part", OF_THE_DOCSTRING)
def test_the_docstring_has_all_parts(cls: type[LossCallback], part: str) -> None:
    module = inspect.getmodule(cls)
    assert module and module.__doc__ and re.search(part, module.__doc__, re.MULTILINE | re.DOTALL)


@each_loss
def test_every_option_is_explained(cls: type[LossCallback]) -> None:
    options = set(inspect.signature(cls).parameters) - {"weight"}
    assert not {option for option in options if not re.search(rf"\b{option}\b[,:]", cls.__doc__ or "")}


@each_loss
def test_the_command_composes(cls: type[LossCallback], compose: Callable[..., DictConfig]) -> None:
    program, command, *overrides = shlex.split(block(cls, "bash"))
    assert (program, command) == ("mangakd", "train")
    assert compose(*overrides).losses[name(cls)]._target_ == f"{cls.__module__}.{cls.__qualname__}"


@each_loss
def test_the_python_runs(cls: type[LossCallback]) -> None:
    names: dict[str, Any] = {}
    exec(block(cls, "python"), names)
    assert isinstance(names["losses"], LossSet) and type(names["losses"].callbacks[name(cls)]) is cls


def test_no_page_is_left_over_and_the_index_links_to_all() -> None:
    assert {file.stem for file in PAGES.glob("*.md")} - {"index"} == {name(cls) for cls in LOSSES}
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    assert all(f"({name(cls)}.md)" in index for cls in LOSSES)
