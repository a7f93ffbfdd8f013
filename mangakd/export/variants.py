"""The table of variants, and `make`, which writes a variant to a scratch folder, compares it with PyTorch, seals and renames it.

A folder with a variant's name is whole even if the export is killed. The old folder is renamed first and deleted last, so a
server that restarts in between never reads a mixture of two exports. A variant that would not change is not made again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mangakd.core.code_version import package_versions
from mangakd.core.errors import UserError
from mangakd.core.locks import waiting_lock
from mangakd.core.spec import Head
from mangakd.export import student as students
from mangakd.export import to_onnx, to_openvino
from mangakd.export.cycle import check_names, check_packages, digest, explain_failure, is_made, sweep
from mangakd.export.disk import check_space, explain_full_disk
from mangakd.export.graph import Graph
from mangakd.export.manifest import PARTIAL, draft, place, read, seal
from mangakd.export.parity import difference
from mangakd.export.seq2seq import AS_THE_FOLDER_SAYS, Writing
from mangakd.export.spread import spread
from mangakd.export.traced import Batches, Traced
from mangakd.models.pooling import Pooling
from mangakd.runtime.signal_stack import keep_signal_stack
from mangakd.runtime.tokenise import Text

# (what becomes a file, calibration batches, folder that all variants share, folder of this variant): writes the file. Returns
# settings that were chosen by measurement, for the manifest.
Maker = Callable[[Traced, Batches, Path, Path], dict[str, Any] | None]
WORK = f"work{PARTIAL}"  # base files of several variants
CALIBRATION, LEAST = 300, 16  # texts; ranges of activations settle long before 300, but need more than a handful
CHECKED = 64  # texts for the comparison with PyTorch
LAYOUT = "hugging_face"  # of the folder; a variant with another layout is made again
EXACT = 1e-3  # largest |Δ| of fp32 to PyTorch, in shares of the largest output; fp16 may have ten times as much
PAIRED = (  # REFERENCES of a student that reads pairs
    ("quick fox", "The quick brown fox jumps over the lazy dog."), ("Yes", ""), ("", "No"), ("order", "12345, please? " * 60),
)  # fmt: skip
REFERENCES = ("The quick brown fox jumps over the lazy dog.", "Yes", "where is my order 12345, please? " * 30, "")


@dataclass(frozen=True)
class Variant:
    """One row of the table. file: what becomes a file → its name. needs: package → pip extra.

    within: largest allowed |Δ|, in shares of the output.
    """

    name: str
    backend: str
    file: Callable[[Traced], str]
    how: str
    make: Maker
    needs: Mapping[str, str]
    within: float = np.inf
    calibrated: bool = False
    trained: bool = False  # training makes the variant, so only some students have it
    answers: bool = False  # not of students that write

    @property
    def fp32(self) -> bool:
        return self.within == EXACT


_ORT = {"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx"}
_OV = {"openvino": "openvino", "openvino_tokenizers": "openvino"}
_NNCF = {**_OV, "nncf": "openvino"}
_O, _V = ("onnxruntime", to_onnx.file_of), ("openvino", to_openvino.file_of)
VARIANTS = {
    row.name: row
    for row in (
        Variant("onnx_fp32", *_O, "torch.export, torch.onnx", to_onnx.fp32, _ORT, EXACT),
        Variant("onnx_int8", *_O, "dynamic, signed, per channel", to_onnx.int8, _ORT),
        Variant(
            "onnx_int8_static",
            *_O,
            "static, calibrated on text",
            to_onnx.int8_static,
            _ORT,
            calibrated=True,
            answers=True,
        ),
        Variant("onnx_int8_weights", *_O, "weights in INT8, by blocks", to_onnx.int8_weights, _ORT),
        Variant("onnx_int4_weights", *_O, "weights in INT4, by blocks", to_onnx.int4_weights, _ORT),
        Variant("openvino_fp32", *_V, "torch.export, convert_model", to_openvino.fp32, _OV, EXACT),
        Variant("openvino_fp16", *_V, "weights in fp16", to_openvino.fp16, _OV, 10 * EXACT),
        Variant("openvino_int8_weights", *_V, "weights in INT8", to_openvino.int8_weights, _NNCF),
        Variant("openvino_int8", *_V, "NNCF PTQ, TRANSFORMER", to_openvino.int8, _NNCF, calibrated=True),
        Variant(
            "openvino_int8_qat", *_V, "trained with quantisers", to_openvino.int8_qat, _OV, trained=True, answers=True
        ),
    )
}
ANY_STUDENT = tuple(row.name for row in VARIANTS.values() if not row.trained)


def make(
    student: Path,
    out: Path,
    names: Sequence[str] = ANY_STUDENT,
    calibration: Sequence[Text] = (),
    max_length: int | None = None,
    pooling: Pooling | None = None,
    progress: Callable[[str], None] = lambda name: None,
    pairs: bool | None = None,
    writing: Writing = AS_THE_FOLDER_SAYS,
) -> list[Path]:
    """Make the variants `names` of the Hugging Face folder `student` in `out`; returns their folders, in that order.

    calibration: training texts that calibrate ranges of activations and serve for the comparison with PyTorch. max_length,
    pooling, pairs, writing: as in export/student.py. progress: called with each name before the variant is made. Raises
    UserError for unknown names, missing packages, too few texts, too little disk space, and a precise variant that answers
    differently from PyTorch.
    """
    rows = find_variants(names)
    check_packages(rows)
    source = students.read(student, max_length, pooling, pairs, writing)
    if source.decoding is not None:
        check_has(rows)
    texts = spread(calibration, CALIBRATION)
    _check_texts(rows, texts, source)
    out.mkdir(parents=True, exist_ok=True)
    with waiting_lock(out / ".lock", "exporting to this folder"):
        sweep(out)
        parameters = sum(p.numel() for p in source.module.parameters())
        check_space(parameters, out, len(rows))
        folders = []
        try:
            with explain_full_disk(out, parameters), keep_signal_stack():
                (out / WORK).mkdir()
                for row in rows:
                    progress(row.name)
                    folders.append(_make(row, source, texts, out))
        finally:
            sweep(out)
    return folders


def add_trained(names: Sequence[str], student: Path) -> list[str]:
    """Add to `names` the variants that training has made in `student`, if `names` include other variants of that backend."""
    backends = {row.backend for row in find_variants(names)}
    own = [row.name for row in VARIANTS.values() if row.trained and row.backend in backends and row.name not in names]
    return [*names, *(own if (student / to_openvino.IN_STUDENT).is_dir() else ())]


def find_variants(names: Sequence[str]) -> list[Variant]:
    """The rows of the table. Raises UserError for an unknown name, for a repeated name, and without names."""
    check_names(names, VARIANTS)
    return [VARIANTS[name] for name in names]


def check_has(rows: Sequence[Variant]) -> None:
    """Raises UserError for a variant that a student which writes does not have."""
    if wrong := [row.name for row in rows if row.answers]:
        names = ", ".join(row.name for row in VARIANTS.values() if not row.answers)
        raise UserError(
            f"{wrong[0]} is no variant of a student that writes texts. Remove it; its variants are {names}."
        )


def _check_texts(rows: Sequence[Variant], texts: Sequence[Text], source: Graph) -> None:
    """Raises UserError for too few texts: ranges calibrated on a handful of texts, or on empty texts, clip real activations."""
    wanting = ", ".join(row.name for row in rows if row.calibrated)
    if not wanting:
        return
    empty = source.encode([("", "") if source.pairs else ""])["input_ids"].shape[1]
    usable = len({text for text in texts if source.encode([text])["input_ids"].shape[1] > empty})
    if usable < LEAST:
        reason = "there are none" if not texts else f"of {len(texts)} texts {usable} are different and not empty"
        raise UserError(
            f"{wanting} needs {LEAST} or more training texts for its calibration, and {reason}. Give more texts, or remove it."
        )


def _make(row: Variant, source: Graph, texts: Sequence[Text], out: Path) -> Path:
    content = {
        "variant": row.name, "layout": LAYOUT, "backend": row.backend, "model": row.file(source.parts[0]),
        "inputs": list(source.inputs), "output": source.output,
        "head": _entry(source.head), "tokenizer": source.settings, "pairs": source.pairs,
        "late": source.apart and source.apart.entry(),
        "decoding": source.decoding and replace(source.decoding, model=row.file(source.parts[-1])).entry(),
        "turns": source.turns and source.turns.entry(),
        "prompts": dict(source.prompts.prompts), "default_prompt": source.prompts.default_prompt,
        "dims": list(source.prompts.dims),
        "versions": package_versions(("torch", "transformers", "tokenizers", *row.needs)), "source": source.source(),
        "calibration": digest(texts) if row.calibrated else None,
    }  # fmt: skip
    if is_made(out / row.name, content, read):
        return out / row.name
    folder = out / f"{row.name}{PARTIAL}"
    folder.mkdir()
    quantisation = None
    parameters = sum(p.numel() for p in source.module.parameters())
    model_type = source.module.model.config.model_type
    with explain_failure(row.name, source.folder, model_type), explain_full_disk(out, parameters):
        for part in source.parts:
            batches = [each for text in texts for each in part.readings([text])] if row.calibrated else []
            quantisation = row.make(part, batches, out / WORK, folder) or quantisation
    source.save_settings(folder)
    references: Sequence[Text] = PAIRED if source.pairs else REFERENCES
    asked = [*references, *texts[:CHECKED]]
    tolerance = difference(row.name, row.within, source, draft(folder, content), asked)
    seal(folder, {**content, "quantisation": quantisation, "tolerance": tolerance, "metrics": {}})
    return place(folder, out / row.name)


def _entry(head: Head) -> dict[str, Any]:
    """Without `source`, which earlier versions do not know, of the heads that they serve."""
    entry = {**asdict(head), "names": list(head.names)}
    return entry if entry.pop("source") is False else {**entry, "source": True}
