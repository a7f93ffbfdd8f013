"""The result files of all benchmarks: a .json with every number and a short .md, each with machine, versions and command.

Commands contain no paths of the machine: an absolute path becomes PATH/TO/<name>.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from mangakd.core import cpu

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, Any]:
    """CPU model, cores that this process may use, load, operating system, Python.

    load: mean number of running processes over the last 15 minutes; well above 1, the machine had other work meanwhile.
    """
    return {
        "cpu": cpu.name(),
        "cores": cpu.cores(),
        "load": round(os.getloadavg()[2], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def command() -> str:
    """This program's command line, from the repository root."""
    script = Path(sys.argv[0]).resolve().relative_to(RESULTS.parents[1]).as_posix()
    return shlex.join(["python", script, *(_without_path(word) for word in sys.argv[1:])])


def _without_path(word: str) -> str:
    key, sign, value = word.rpartition("=")
    return f"{key}{sign}PATH/TO/{Path(value).name}" if Path(value).is_absolute() else word


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, first column left, the others right."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(name: str, title: str, content: dict[str, Any], body: str, threads: str = "one thread computes") -> Path:
    """results/<name>.json and .md; returns the latter. content: plain data, `versions` among it."""
    RESULTS.mkdir(exist_ok=True)
    where, versions = machine(), content["versions"]
    full = {"date": date.today().isoformat(), "machine": where, "command": command(), **content}
    (RESULTS / f"{name}.json").write_text(json.dumps(full, indent=2) + "\n", encoding="utf-8")
    text = f"""# {title}

{body}

- Machine: {where["cpu"]}, {where["cores"]} cores, {where["system"]}; {threads}. Load average at the end:
  {where["load"]} (1 is this benchmark alone).
- Versions: {", ".join(f"{package} {version}" for package, version in versions.items())}, Python {where["python"]}.
- Date: {full["date"]}. Command, from the repository root: `{full["command"]}`
- Every number: `{name}.json` beside this file.
"""
    file = RESULTS / f"{name}.md"
    file.write_text(text, encoding="utf-8")
    return file
