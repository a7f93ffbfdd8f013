"""MkDocs hook: the API reference, one page for each package of mangakd.

The pages are made from the packages as they are, so that a module that moves needs no change here. mkdocstrings reads the
docstrings without importing anything.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
SECTION = "API"  # its entry in mkdocs.yml, which the pages are added to


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    reference = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    reference.append({SECTION: [{room.name: _uri(room)} for room in _rooms()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for room in _rooms():
        files.append(File.generated(config, _uri(room), content=_content(room)))
    return files


def _rooms() -> list[Path]:
    return sorted(file.parent for file in (ROOT / "mangakd").glob("*/__init__.py"))


def _uri(room: Path) -> str:
    return f"reference/api/{room.name}.md"


def _content(room: Path) -> str:
    files = sorted(file for file in room.rglob("*.py") if not file.name.startswith("_") and file.read_text().strip())
    modules = (".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)
    return "\n".join([f"# mangakd.{room.name}", "", *(f"::: {module}\n" for module in modules)])
