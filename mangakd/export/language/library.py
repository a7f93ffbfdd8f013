"""`Library`: a converter that may live in an environment of its own, because its pins are not those of this environment.

optimum-intel 2.1 wants an older huggingface-hub and safetensors, and llm-compressor a newer transformers, than mangakd is tested
with. So each of them runs as a program in a process: with this Python if the library is installed here, else with the Python
that an environment variable names. The process also keeps their patches of torch, and their memory, out of the export.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mangakd.core.errors import UserError


@dataclass(frozen=True)
class Library:
    """module: what the program imports. package: its name for people. variable: of the environment, with another Python.

    extra: of mangakd, with the library. install: words for pip in an environment of its own.
    """

    module: str
    package: str
    variable: str
    extra: str
    install: str

    def python(self) -> str:
        """Raises UserError where no Python has the library, with both ways to install it."""
        other = os.environ.get(self.variable)
        if other is None:
            if _has(self.module):
                return sys.executable
            place = f".venv-{self.package}"
            raise UserError(
                f"{self.package} is not installed. Install it here with: pip install 'mangakd[{self.extra}]'; or keep this "
                f"environment as it is, and make another one: python -m venv {place}; {place}/bin/pip install {self.install}; "
                f"export {self.variable}={place}/bin/python"
            )
        if reason := _trouble(other, self.module):
            raise UserError(
                f"{self.variable}={other} cannot be used: {reason}. Install {self.package} there with: {other} -m pip install "
                f"{self.install}; or unset {self.variable}."
            )
        return other

    def run(self, program: Path, job: Mapping[str, Any]) -> dict[str, Any]:
        """Run `program job.json`; returns the JSON object of its last line. Raises RuntimeError with its error's last line."""
        python = self.python()
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "job.json"
            file.write_text(json.dumps(job), encoding="utf-8")
            # -P: the program's folder holds modules with common names.
            done = subprocess.run(
                [python, "-P", str(program), str(file)],
                capture_output=True,
                text=True,
                errors="replace",
                env=_variables(python),
            )
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise RuntimeError(f"{self.package}: {lines[-1]}")
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer


def _variables(python: str) -> dict[str, str]:
    """The student is a folder: nothing is asked of the hub. Another environment must not see modules of this one."""
    own = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "OPENVINO_TELEMETRY": "0"}
    if python != sys.executable:
        own.pop("PYTHONPATH", None)
    return own


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent
        return False


@cache
def _trouble(python: str, module: str) -> str:
    """Why a Python has no such module; "" where it has."""
    words = [python, "-c", f"import importlib.util as own; own.find_spec({module!r}).name"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, env=_variables(python))
    except OSError as error:
        return f"it cannot be started ({error.strerror})"
    return f"{module} is not installed there" if done.returncode else ""
