"""The documentation names files and tests that exist. `make docs` checks the links between its pages."""

import re
from pathlib import Path

from conftest import REPO

WITH_PATHS = [
    REPO / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml", "mkdocs.yml")
] + [
    file
    for folder in ("mangakd", "conf", "docs", "scripts", "benchmarks", "tests", "notebooks")
    for file in (REPO / folder).rglob("*")
    if file.suffix in {".py", ".yaml", ".md", ".toml", ".ipynb"} and ".ipynb_checkpoints" not in file.parts
]
README = (REPO / "README.md").read_text(encoding="utf-8")
GUARANTEES = (REPO / "docs" / "reference" / "guarantees.md").read_text(encoding="utf-8")


def test_every_page_that_a_file_names_exists() -> None:
    missing = [
        (str(file.relative_to(REPO)), page)
        for file in WITH_PATHS
        for page in re.findall(r"(?<![\w/.])docs/[\w/-]+\.md", file.read_text(encoding="utf-8"))
        if not (REPO / page).is_file()
    ]
    assert not missing


def test_the_readme_is_short_and_its_links_exist() -> None:
    assert len(README.splitlines()) <= 150
    targets = [target for target in re.findall(r"\]\(([^)#]+)", README) if not target.startswith("http")]
    assert len(targets) > 20 and not [target for target in targets if not (REPO / target).exists()]


def test_every_test_that_a_guarantee_names_exists() -> None:
    tests = {file.name: file.read_text(encoding="utf-8") for file in (REPO / "tests").rglob("test_*.py")}
    names = re.findall(r"`((?:tests/|benchmarks/|test_)[\w/.]+)`", GUARANTEES)
    assert len(names) > 30
    for name in names:
        if name.endswith(".py"):
            assert (REPO / name).is_file() or Path(name).name in tests, name
        else:
            assert any(f"def {name}(" in text for text in tests.values()), name
