"""`python scripts/audit.py <folder>`: what made a model or a data set, and whether every file has the hash that was recorded.

Exit code 0: all is verified. 1: something changed. 2: nothing changed, and something is missing or was not recorded.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from mangakd.cli.logs import start_logging
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.data.source import READ_BY_SOME
from mangakd.runs.audit.finding import Finding, State
from mangakd.runs.audit.walk import KINDS, audit

STYLES = {State.VERIFIED: "green", State.CHANGED: "bold red", State.MISSING: "yellow", State.UNRECORDED: "yellow"}


def run(config: DictConfig) -> None:
    """Print the tree. Raises SystemExit with 1 or 2, UserError for a folder that nothing is recorded of."""
    start_logging(None)
    if config.folder is None:
        raise UserError(f"folder is not set: {command('audit')} <folder>. Give {KINDS}.")
    search = [Path(str(each)).expanduser() for each in config.search]
    if absent := [each for each in search if not each.is_dir()]:
        raise UserError(f"search names {absent[0]}, which is no folder.")
    finding = audit(Path(str(config.folder)).expanduser(), search, digests)
    # A log file has no width; names in it must not be folded there.
    console = Console(width=None if Console().is_terminal else 240, highlight=False)
    console.print(tree(finding), soft_wrap=True)
    console.print(summary(finding))
    if code := finding.exit_code:
        sys.exit(code)


def tree(finding: Finding) -> Tree:
    """As rich prints it."""
    branch = Tree(_line(finding))
    for part in finding.parts:
        branch.children.append(tree(part))
    return branch


def _line(finding: Finding) -> Text:
    line = Text(finding.name)
    if finding.state is not State.NOTE:
        line.append(f"  {finding.state.value}", STYLES[finding.state])
    return line.append(f"  {finding.words}" if finding.words else "")


def summary(finding: Finding) -> str:
    """Counts, and the names of what is not verified."""
    states = (State.CHANGED, State.MISSING, State.UNRECORDED)
    lines = [
        f"{state.value}: {each.name}  {each.words}".rstrip()
        for state in states
        for each in finding.all()
        if each.state is state
    ]
    counts = ", ".join(f"{finding.count(state)} {state.value}" for state in (State.VERIFIED, *states))
    return "\n".join([*lines, f"audit: {counts}"])


def digests(folder: Path) -> Mapping[str, str] | None:
    """Run folder → digests of its splits, where a source of mangakd makes the rows without a file."""
    file = folder / "config.yaml"
    if not file.is_file():
        return None
    settings = OmegaConf.load(file)
    try:
        source, task = instantiate(settings.data), instantiate(settings.task)
        if {*source.reads} & {*READ_BY_SOME}:
            return None
        corpus = task.prepare(source.load(task.columns, task.optional))
    except Exception:  # settings of another version, or a plugin that is not here
        return None
    return {name: corpus.digest(name) for name in corpus.splits}
