"""How this process was started, so that messages name commands that can be typed again."""

import os
import shlex
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CLONE = PACKAGE.parent  # train.py and scripts/ lie here, unless mangakd was installed from a wheel


def command(name: str) -> str:
    """`mangakd <name>`, or `python train.py` and `python scripts/<name>.py` in a process that such a script started.

    name: of a module in mangakd.cli, such as "train" or "check_drift".
    """
    return shlex.join(command_words(name))


def command_words(name: str) -> list[str]:
    started = Path(sys.argv[0])
    script = started.resolve()
    if script == PACKAGE / "__main__.py":
        return ["python", "-m", "mangakd", _typed(name)]
    if script != CLONE / "train.py" and script.parent != CLONE / "scripts":
        return ["mangakd", _typed(name)]
    wanted = CLONE / ("train.py" if name == "train" else f"scripts/{name}.py")
    return ["python", str(wanted) if started.is_absolute() else os.path.relpath(wanted)]


def _typed(name: str) -> str:
    return name.replace("_", "-")
