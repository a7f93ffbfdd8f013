"""Quotes, backslashes and line breaks in CSV: where a cell ends, and cures that can be typed."""

import subprocess
from pathlib import Path

import pytest
from data_files import HEAD, rows

from mangakd.core.errors import UserError


@pytest.mark.parametrize("separator", [",", ";"])
def test_the_cure_of_backslash_escapes(separator: str, tmp_path: Path) -> None:
    content = (HEAD + '"say \\"so\\" , a; b in C:\\temp",x\n').replace("text,label", f"text{separator}label")
    content = content.replace(",x\n", f"{separator}x\n")
    with pytest.raises(UserError) as raised:
        rows(tmp_path, "old.csv", content)
    command = str(raised.value).split("Rewrite the file: ")[1]
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert rows(tmp_path, "a.csv", (tmp_path / "new.csv").read_bytes()).texts == ['say "so" , a; b in C:\\temp']
