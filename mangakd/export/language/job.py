"""`Job`: what the maker of a variant is given. In a file of its own, because the table of variants imports the makers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mangakd.export.language.student import Student


@dataclass(frozen=True)
class Job:
    """What a maker is given. merged: the Hugging Face folder. work: that all variants of an export share. folder: to be filled.

    texts: of training, which calibrate. facts: what makers find out about the student, once for all variants of an export.
    """

    student: Student
    merged: Path
    work: Path
    folder: Path
    texts: Sequence[str]
    facts: dict[str, Any]
