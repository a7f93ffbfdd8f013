"""Every notebook runs from a clean kernel, and what is committed of it can be read on the web.

A notebook asserts its own numbers; here it is only run, by the Python that runs the tests, in an empty folder.
"""

import re
from pathlib import Path

import nbformat
import pytest
from conftest import REPO
from nbclient import NotebookClient

NOTEBOOKS = [pytest.param(file, id=file.stem) for file in sorted((REPO / "notebooks").glob("*.ipynb"))]
SECONDS, BYTES = 600, 300_000


@pytest.mark.parametrize("file", NOTEBOOKS)
def test_it_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this Python, not one of the user's
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # nor the user's start-up files
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # what it leaves goes with the test
    here = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(nbformat.read(file, as_version=4), timeout=SECONDS, resources=here).execute()


@pytest.mark.parametrize("file", NOTEBOOKS)
def test_it_is_committed_whole_small_and_of_no_machine(file: Path) -> None:
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it from the top, then save it"
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert kinds <= {"display_data", "execute_result"}, "no errors, and no warnings or progress of one machine"
    assert file.stat().st_size < BYTES
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert not any("execution" in cell.metadata for cell in notebook.cells), "times of execution"
    assert not re.search(r"/(home|root|tmp|Users|work)/", file.read_text()), "a path of somebody's machine"
