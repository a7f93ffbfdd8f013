"""The report's section on exported variants, from a made-up export.json."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_run import JUDGE, RESAMPLES, made, read

from mangakd.core.errors import UserError
from mangakd.evaluation.report import export
from mangakd.evaluation.report.blocks import Figure
from mangakd.evaluation.report.write import write_report


def row(backend: str, score: float, drop: float, mb: float, p50: float, passed: bool = True) -> dict[str, Any]:
    times = {length: {"p50": p50 * k, "p95": p50 * k + 1, "p99": p50 * k + 2} for length, k in (("32", 1), ("64", 2))}
    return {
        "backend": backend, "how": f"how of {backend}", "score": score, "score_interval": [score - 0.02, score + 0.02],
        "drop_points": drop, "drop_interval": [drop - 0.5, drop + 0.5], "agreement_student": 0.987, "agreement_teacher": 0.912,
        "max_difference": 0.0123, "passed": passed, "megabytes": mb, "load_seconds": 0.21, "peak_rss_mb": 123.4,
        "latency_ms": times, "batch_ms": p50 / 2,
        "company": {"independent": passed, "texts": 500, "moved": 0.0, "max_difference": 0.04,
                    "max_probability_difference": 0.003},
    }  # fmt: skip


def record(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1, "problem": "single_label", "score": "accuracy", "labelled": True, "max_drop": 0.3, "batch_size": 8,
        "threads": 1, "max_length": 64, "rows": {"calibration": 300, "validation": 500, "test": 1000}, "chosen": "onnx_int8",
        "reason": "onnx_int8 loses 0.20 points [-0.30, 0.70]; the limit is 0.3, and no faster variant passes.",
        "pytorch": row("pytorch", 0.9, 0.0, 40, 8.0),
        "variants": {
            "onnx_int8": row("onnxruntime", 0.898, 0.2, 10, 2.0), "openvino_int8": row("openvino", 0.88, 2.0, 11, 1.5, False),
        },
        "test": row("onnxruntime", 0.885, -0.001, 10, 2.0), **changes,
    }  # fmt: skip


def written(run: Path, content: dict[str, Any] | str) -> Path:
    (run / "export").mkdir()
    (run / "export" / "export.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return run


def test_the_section_says_what_ships_and_why_and_its_test_score_once(tmp_path: Path) -> None:
    run = written(made(tmp_path / "run"), record())
    write_report(run, JUDGE, {}, RESAMPLES)
    page, text, markdown = read(run)
    assert page.headings[-2:] == ["Export", "Configuration"]
    part = markdown[markdown.index("## Export") : markdown.index("## Configuration")]
    assert "onnx_int8 ships. onnx_int8 loses 0.20 points" in part
    assert (
        part.count("88.5%") == 1
        and "On 1,000 test rows, asked once, of onnx_int8 alone: accuracy 88.5%, 0.00 points" in part
    )
    lines = {
        line.split(" | ")[0].strip("| ").replace("\\", ""): line for line in part.splitlines() if line.startswith("|")
    }
    quality = next(line for line in part.splitlines() if line.startswith("| openvino") and "FAIL" in line)
    assert "Δp 0.003: text by text" in quality and part.count("text by text |") == 1, (
        "the other one's rows are independent"
    )
    assert "2.00 [1.50, 2.50]" in quality and "98.7%" in quality and "91.2%" in quality and "0.012" in quality
    head = next(line for line in part.splitlines() if line.startswith("| on validation"))
    assert head.count("|") == quality.count("|"), "nothing in a header ends a cell"
    costs = [line for line in part.splitlines() if line.startswith("| onnx") and "×" in line]
    assert costs == [next(line for line in costs if "10.0 0.25 ×" in line and "4.0 / 5.0 / 6.0 0.25 ×" in line)]
    assert "1.00 0.25 ×" in costs[0]
    assert "PyTorch fp32" in lines and "**" not in part
    assert "ms at 64 tokens" in part and "ships: onnx_int8" in text


def test_the_plot_has_labelled_axes_and_every_backend(tmp_path: Path) -> None:
    (section,) = export.section(written(tmp_path, record()))
    (figure,) = (block for block in section.blocks if isinstance(block, Figure))
    words = [
        element.text for element in ElementTree.fromstring(figure.svg).iter() if element.text and element.text.strip()
    ]
    for word in ("MB", "p50, ms", "PyTorch fp32", "ONNX Runtime", "OpenVINO", "ships: onnx_int8"):
        assert word in words
    assert [list(map(str, line)) for line in figure.numbers.rows][1] == ["onnx_int8", "10.0", "4.00"]


def test_without_labels_the_score_is_the_agreement_and_is_said_once(tmp_path: Path) -> None:
    (section,) = export.section(
        written(tmp_path, record(labelled=False, score="agreement with the student", test=None))
    )
    headers = section.blocks[1].headers  # type: ignore[union-attr]
    assert headers.count("agreement with the student") == 1 and "agrees with student" not in headers
    assert all(len(line) == len(headers) for line in section.blocks[1].rows)  # type: ignore[union-attr]


def test_a_record_of_before_has_no_time_in_batches_and_no_company(tmp_path: Path) -> None:
    old = record()
    for each in (old["pytorch"], *old["variants"].values()):
        del each["batch_ms"], each["company"]
    (section,) = export.section(written(tmp_path, old))
    assert [line[-1] for line in section.blocks[4].rows] == ["–"] * 3  # type: ignore[union-attr]


def test_no_export_no_section_and_a_damaged_record_is_told(tmp_path: Path) -> None:
    assert export.section(tmp_path) == []
    with pytest.raises(UserError, match=r"is damaged .*export the student again"):
        export.section(written(tmp_path, '{"format": 1, "chos'))


@pytest.mark.parametrize(("units", "told"), [(True, False), (False, True), (None, False)])
def test_a_cpu_without_units_for_int8_is_named(units: bool | None, told: bool) -> None:
    words = export.notes(record(cpu="Old One", int8_units=units))
    assert ("Old One has no units for INT8" in words) == told


@pytest.mark.parametrize(
    ("drop", "said"), [(0.5, "0.50 points below the student [0.00,"), (-0.5, "0.50 points above the student [0.00,")]
)
def test_the_test_score_is_below_or_above_the_students(drop: float, said: str) -> None:
    (sentence,) = export.test_sentences(record(test=row("onnxruntime", 0.9, drop, 10, 2.0)))
    assert said in sentence and "-" not in sentence.partition("points")[2]
