"""What the runtime imports: it must run where neither torch nor transformers is installed, and start at once."""

import subprocess
import sys

import made_variant
import pytest

HEAVY = ("torch", "transformers", "lightning", "hydra", "omegaconf", "pyarrow", "pandas", "sklearn", "safetensors")


def run(program: str, *words: str) -> str:
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Any import of a heavy package, also one that is caught or undone, ends the process.
GUARD = f"""
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY!r}:
            sys.exit(f"imported {{name}}")
sys.meta_path.insert(0, Guard())
"""


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    loaded = run(GUARD + "import mangakd.runtime, mangakd.runtime.serve\nprint(*sys.modules)").split()
    assert "tokenizers" in loaded and "numpy" in loaded
    assert not {"onnxruntime", "openvino", "fastapi", "uvicorn"} & set(loaded)
    ours = {name for name in loaded if name.startswith("mangakd.") and not name.startswith("mangakd.runtime")}
    assert ours == {"mangakd.core", "mangakd.core.errors", "mangakd.core.spec"}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_predicting_loads_nothing_heavy(backend: str) -> None:
    folder = str(made_variant.variant(backend=backend))
    answer = "import mangakd.runtime as r\nprint(r.load(sys.argv[1], threads=1).predict(['where is my order?'], top=1))"
    assert "probability" in run(GUARD + answer, folder)


def test_the_service_loads_nothing_heavy() -> None:
    pytest.importorskip("fastapi", reason="the service: pip install fastapi uvicorn")
    pytest.importorskip("uvicorn", reason="the service: pip install fastapi uvicorn")
    run(GUARD + "import mangakd.runtime.server")
    pytest.importorskip("httpx", reason="the service of language models: pip install httpx")
    run(
        GUARD
        + "import mangakd.runtime.language_serve, mangakd.runtime.language_engine, mangakd.runtime.language_service"
    )


def test_help_answers_without_numpy() -> None:
    words = "import sys, mangakd.runtime.serve as s\ntry: s.main(['--help'])\nexcept SystemExit: pass\n"
    # mangakd.runtime itself imports numpy; what is not loaded is the backend and the service.
    out = run(words + "print(sorted({'onnxruntime', 'openvino', 'fastapi', 'uvicorn'} & set(sys.modules)))")
    assert "--max-batch" in out and out.rstrip().endswith("[]")
