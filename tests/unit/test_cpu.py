"""What is read of /proc/cpuinfo, on x86, on Arm, and where there is none."""

from pathlib import Path

import pytest

from mangakd.core import cpu

CASES: dict[str, tuple[str | None, bool | None]] = {
    "x86 with VNNI": ("model name\t: Xeon\nflags\t\t: fpu avx2 avx512_vnni\n", True),
    "x86 without": ("model name\t: EPYC\nflags\t\t: fpu avx2\nvmx flags\t: avx512_vnni\n", False),
    "Arm with dot products": ("Features\t: fp asimd asimddp\n", True),
    "a system without it": (None, None),
}


@pytest.mark.parametrize("what", CASES)
def test_int8_units_are_told_from_flags(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, expected = CASES[what]
    monkeypatch.setattr(cpu, "INFO", tmp_path / "cpuinfo")
    if text is not None:
        cpu.INFO.write_text(text)
    assert cpu.int8_units() is expected


def test_the_first_cores_name_and_where_none_is_told_the_platforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(cpu.platform, "processor", lambda: "arm")
    assert cpu.name() == "arm"
    cpu.INFO.write_text("model name\t: One: Two\nmodel name\t: Other\n")
    assert cpu.name() == "One: Two"
