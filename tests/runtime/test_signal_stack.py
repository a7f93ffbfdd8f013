"""A signal after openvino has come and gone reaches its handler. Each case in a process of its own, which it would end."""

import subprocess
import sys

import made_variant
import pytest

pytest.importorskip("openvino")

MODELS = """
from mangakd.runtime import load
first = load(sys.argv[1]); second = load(sys.argv[1])
del first; gc.collect(); del second; gc.collect()
"""
CORES = """
from mangakd.runtime.signal_stack import keep_signal_stack
import openvino as ov
with keep_signal_stack():
    made = [ov.Core().compile_model(sys.argv[1] + "/model.xml", "CPU") for _ in range(2)]
    del made[0]; gc.collect(); del made[0]; gc.collect()
"""
SIGNAL = """
signal.signal(signal.SIGTERM, lambda number, frame: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""


def run(program: str) -> tuple[int, str]:
    folder = str(made_variant.variant(backend="openvino"))
    command = [sys.executable, "-c", "import gc, os, signal, sys\n" + program + SIGNAL, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("program", [MODELS, CORES], ids=["two models", "two cores"])
def test_the_handler_is_called(program: str) -> None:
    assert run(program) == (0, "handled\n")


@pytest.mark.skipif(sys.platform != "linux", reason="openvino does so on Linux")
def test_a_stack_of_one_s_own_stays() -> None:
    program = "import faulthandler\nfaulthandler.enable()\n" + MODELS
    assert run(program) == (0, "handled\n")
