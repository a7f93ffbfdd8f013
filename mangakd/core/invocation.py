"""The command that started this process, so that messages name commands that a user can type."""

import os
import shlex
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
CLONE = PACKAGE.parent  # the folder of train.py and scripts/, unless mangakd was installed from a wheel


def command(name: str) -> str:
    """`mangakd <name>`, or `python train.py` and `python scripts/<name>.py` in a process that such a script started.

    name: of a module in mangakd.cli, such as "train" or "check_drift".
    """
    return shlex.join(command_words(name))


def command_words(name: str) -> list[str]:
    program = Path(sys.argv[0])
    script = program.resolve()
    if script == PACKAGE / "__main__.py":
        return ["python", "-m", "mangakd", _command_name(name)]
    if script != CLONE / "train.py" and script.parent != CLONE / "scripts":
        return ["mangakd", _command_name(name)]
    file = CLONE / ("train.py" if name == "train" else f"scripts/{name}.py")
    return ["python", str(file) if program.is_absolute() else os.path.relpath(file)]


def _command_name(name: str) -> str:
    return name.replace("_", "-")
