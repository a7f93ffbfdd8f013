"""What do the exported variants of real students lose, weigh and take? A page of the records that `export` leaves.

    python benchmarks/exports.py NAME=EXPORT_FOLDER [NAME=EXPORT_FOLDER …]

Nothing is measured here: `python train.py … 'export=[openvino,onnx]'` and `python scripts/export.py student=…` did that, on the
machine that this is run on, and wrote export.json. The aims: at most 0.3 points lost, 0.27 of PyTorch's size, and 0.35 of its
median latency on one thread.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

from results_file import write

from mangakd.evaluation.report import export
from mangakd.evaluation.report.markdown import table

PACKAGES = ("torch", "transformers", "onnxruntime", "openvino", "nncf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("students", nargs="+", type=read_student, help="name=folder with an export.json")
    parser.add_argument("--name", default="exports", help="of the result")
    options = parser.parse_args()
    students = dict(options.students)
    body = "\n\n".join(part for name, record in students.items() for part in parts(name, record))
    versions = {package: version(package) for package in PACKAGES}
    print(write(options.name, "Exported students", {"versions": versions, "students": students}, body).read_text())


def read_student(word: str) -> tuple[str, Any]:
    name, _, folder = word.partition("=")
    record = export.read(Path(folder))
    if record is None:
        raise argparse.ArgumentTypeError(f"{folder} has no {export.FILE}")
    return name, record


def parts(name: str, record: export.Record) -> list[str]:
    words = [f"## {name}", export.summary(record), *export.test_sentences(record)]
    return [*words, table(export.quality(record)), export.notes(record), table(export.cost(record))]


if __name__ == "__main__":
    main()
