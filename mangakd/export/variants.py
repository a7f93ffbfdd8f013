"""The variants of a student and how a folder of each is made: aside, checked against PyTorch, sealed, then renamed.

A folder with a variant's name is whole whenever the export is killed. What was there before is set aside first and thrown
away last, so that a server that restarts in between finds no mixture of two exports. One that is there and would come out the
same is not made again.
"""

import contextlib
import hashlib
import importlib.util
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from mangakd import __version__
from mangakd.core.errors import UserError, near
from mangakd.core.locks import waiting_lock
from mangakd.core.numbers import largest, largest_difference
from mangakd.export import graph, to_onnx, to_openvino
from mangakd.export.graph import Batches, Graph
from mangakd.export.manifest import PARTIAL, place, read, seal, unsealed
from mangakd.export.pooling import Pooling
from mangakd.export.room import check_room, told_when_full
from mangakd.export.spread import spread
from mangakd.runtime.backends import open_model
from mangakd.runtime.manifest import Manifest
from mangakd.runtime.model import Model
from mangakd.runtime.signal_stack import kept_signal_stack
from mangakd.runtime.tokenise import Tokeniser

# (graph, calibration batches, folder that all variants share, folder of this one): writes the model's files, and returns what was
# chosen by measurement, for the manifest
Maker = Callable[[Graph, Batches, Path, Path], dict[str, Any] | None]
WORK = f"work{PARTIAL}"  # files that several variants are made of
CALIBRATION, LEAST = 300, 16  # texts; ranges of activations have settled long before 300, and have not at a handful
CHECKED, BATCH = 64, 7  # texts, in batches of an odd size, that a variant and PyTorch are compared on
LAYOUT = "hugging_face"  # of the folder: variants that were made in another are made again
EXACT = 1e-3  # of the largest output: how far fp32 may be from PyTorch, fp16 ten times that
REFERENCES = ("The quick brown fox jumps over the lazy dog.", "Yes", "where is my order 12345, please? " * 30, "")


@dataclass(frozen=True)
class Variant:
    """One row of the table. needs: package → pip extra. within: largest |Δ| that is no error, in shares of the output."""

    name: str
    backend: str
    model: str
    how: str
    make: Maker
    needs: Mapping[str, str]
    within: float = np.inf
    calibrated: bool = False
    trained: bool = False  # made while the student was trained, so that only some students have it

    @property
    def fp32(self) -> bool:
        return self.within == EXACT


_ORT = {"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx"}
_OV = {"openvino": "openvino", "openvino_tokenizers": "openvino"}
_NNCF = {**_OV, "nncf": "openvino"}
_O, _V = ("onnxruntime", to_onnx.MODEL), ("openvino", to_openvino.MODEL)
VARIANTS = {
    row.name: row
    for row in (
        Variant("onnx_fp32", *_O, "torch.export, torch.onnx", to_onnx.fp32, _ORT, EXACT),
        Variant("onnx_int8", *_O, "dynamic, signed, per channel", to_onnx.int8, _ORT),
        Variant("onnx_int8_static", *_O, "static, calibrated on text", to_onnx.int8_static, _ORT, calibrated=True),
        Variant("onnx_int8_weights", *_O, "weights in INT8, by blocks", to_onnx.int8_weights, _ORT),
        Variant("onnx_int4_weights", *_O, "weights in INT4, by blocks", to_onnx.int4_weights, _ORT),
        Variant("openvino_fp32", *_V, "torch.export, convert_model", to_openvino.fp32, _OV, EXACT),
        Variant("openvino_fp16", *_V, "weights in fp16", to_openvino.fp16, _OV, 10 * EXACT),
        Variant("openvino_int8_weights", *_V, "weights in INT8", to_openvino.int8_weights, _NNCF),
        Variant("openvino_int8", *_V, "NNCF PTQ, TRANSFORMER", to_openvino.int8, _NNCF, calibrated=True),
        Variant("openvino_int8_qat", *_V, "trained with quantisers", to_openvino.int8_qat, _OV, trained=True),
    )
}
ANY_STUDENT = tuple(row.name for row in VARIANTS.values() if not row.trained)


def make(
    student: Path,
    out: Path,
    names: Sequence[str] = ANY_STUDENT,
    calibration: Sequence[str] = (),
    max_length: int | None = None,
    pooling: Pooling | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Path]:
    """Make `names` of the Hugging Face folder `student` in `out`; returns their folders, in that order.

    calibration: training texts, for variants that fix ranges of activations, and to compare with PyTorch on. max_length,
    pooling: as `graph.read`. progress: called with each name before it is made. Raises UserError for unknown names, packages
    that are not installed, too few texts, too little room on the disk, and a precise variant that does not answer as PyTorch
    does.
    """
    rows = known(names)
    check_installed(rows)
    source = graph.read(student, max_length, pooling)
    texts = spread(calibration, CALIBRATION)
    _check_texts(rows, texts, source)
    out.mkdir(parents=True, exist_ok=True)
    with waiting_lock(out / ".lock", "exporting to this folder"):
        _sweep(out)
        parameters = sum(p.numel() for p in source.module.parameters())
        check_room(parameters, out, len(rows))
        folders = []
        try:
            with told_when_full(out, parameters), kept_signal_stack():
                (out / WORK).mkdir()
                for row in rows:
                    progress(row.name)
                    folders.append(_made(row, source, texts, out))
        finally:
            _sweep(out)
    return folders


def with_trained(names: Sequence[str], student: Path) -> list[str]:
    """`names`, and what `student` was trained to become, where other variants of that backend are among them."""
    backends = {row.backend for row in known(names)}
    own = [row.name for row in VARIANTS.values() if row.trained and row.backend in backends and row.name not in names]
    return [*names, *(own if (student / to_openvino.IN_STUDENT).is_dir() else ())]


def known(names: Sequence[str]) -> list[Variant]:
    """Their rows. Raises UserError for an unknown name, one that is there twice, and for none."""
    if not names:
        raise UserError(f"there is no variant to make; choose some of {', '.join(VARIANTS)}.")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UserError(f"the variant {twice[0]} is named twice; name it once.")
    return [_row(name) for name in names]


def _check_texts(rows: Sequence[Variant], texts: Sequence[str], source: Graph) -> None:
    """Ranges that are fixed on a handful of texts, or on empty ones, cut off what real texts give."""
    wanting = ", ".join(row.name for row in rows if row.calibrated)
    if not wanting:
        return
    empty = source.encode([""])["input_ids"].shape[1]
    told = len({text for text in texts if source.encode([text])["input_ids"].shape[1] > empty})
    if told < LEAST:
        found = (
            "none were given" if not texts else f"of {len(texts)} texts that were given {told} differ and hold a word"
        )
        raise UserError(
            f"{wanting} needs training texts to calibrate on, {LEAST} or more, and {found}; give more texts, or leave it out."
        )


def check_installed(rows: Sequence[Variant]) -> None:
    """Raises UserError naming all missing packages and the extras that bring them."""
    missing = {
        package: extra
        for row in rows
        for package, extra in row.needs.items()
        if importlib.util.find_spec(package) is None
    }
    if missing:
        extras = ",".join(dict.fromkeys(missing.values()))
        raise UserError(
            f"{', '.join(row.name for row in rows if missing.keys() & row.needs.keys())} cannot be made: "
            f"{', '.join(missing)} not installed. Install with: pip install 'mangakd[{extras}]'"
        )


def _row(name: str) -> Variant:
    if name not in VARIANTS:
        raise UserError(f"there is no variant {name!r}{near(name, VARIANTS)} Known: {', '.join(VARIANTS)}.")
    return VARIANTS[name]


def _made(row: Variant, source: Graph, texts: Sequence[str], out: Path) -> Path:
    content = {
        "variant": row.name, "layout": LAYOUT, "backend": row.backend, "model": row.model, "inputs": list(source.inputs),
        "output": source.output, "head": {**asdict(source.head), "names": list(source.head.names)}, "tokenizer": source.settings,
        "versions": _versions(row), "source": source.source(), "calibration": _digest(texts) if row.calibrated else None,
    }  # fmt: skip
    if _there(out / row.name, content):
        return out / row.name
    folder = out / f"{row.name}{PARTIAL}"
    folder.mkdir()
    batches = [source.encode([text]) for text in texts] if row.calibrated else []
    with _told(row, source), told_when_full(out, sum(p.numel() for p in source.module.parameters())):
        quantisation = row.make(source, batches, out / WORK, folder)
    source.save_settings(folder)
    tolerance = _difference(row, source, unsealed(folder, content), [*REFERENCES, *texts[:CHECKED]])
    seal(folder, {**content, "quantisation": quantisation, "tolerance": tolerance, "metrics": {}})
    return place(folder, out / row.name)


@contextlib.contextmanager
def _told(row: Variant, source: Graph) -> Iterator[None]:
    """Converters raise what they stumble over; a user needs the variant, the architecture and the way out."""
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{row.name} cannot be made of {source.folder} ({source.module.model.config.model_type}): {reason} Leave "
            f"{row.name} out."
        ) from error


def _there(folder: Path, content: dict[str, Any]) -> bool:
    """Whether an earlier export has made this very variant, and it is whole."""
    try:
        found = read(folder).content
    except UserError:
        return False
    return all(found.get(key) == value for key, value in content.items())


def _digest(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _difference(row: Variant, source: Graph, manifest: Manifest, texts: Sequence[str]) -> float:
    """Largest |Δ output| against PyTorch, through the tokenizer and the backend that will serve.

    Raises UserError where a precise variant is further off than rounding explains, or answers in another shape.
    """
    served = opened(manifest)
    worst, size = 0.0, 1e-6
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        wanted, said = source.answer(source.encode(part)), served.outputs(part, BATCH)
        if said.shape != wanted.shape:
            raise UserError(
                f"{row.name} answers in shape {said.shape} where PyTorch answers in {wanted.shape}; not kept."
            )
        worst, size = max(worst, largest_difference(said, wanted)), largest([size, np.abs(wanted).max()])
    if not np.isfinite(worst):
        raise UserError(
            f"{row.name} answers some texts with what is no number (NaN or infinity), where PyTorch answers up to {size:.3g}; "
            "not kept. Leave it out, or report it with the model's config.json."
        )
    if not worst <= row.within * size:
        raise UserError(
            f"{row.name} differs from PyTorch by {worst:.3g} on outputs of up to {size:.3g}; it would not serve what was "
            "trained. Leave it out, or report it with the model's config.json."
        )
    return worst


def opened(manifest: Manifest) -> Model:
    """As mangakd.runtime serves it, on one thread, of a folder that may not be sealed yet."""
    settings = (manifest.max_length, manifest.pad_id, manifest.pad_type_id, manifest.truncation_side)
    model = Model(manifest, Tokeniser(manifest.tokenizer, *settings), open_model(manifest, 1))
    model.check()
    return model


def _sweep(out: Path) -> None:
    """Away with what this or a killed export left."""
    for path in out.glob(f"*{PARTIAL}"):
        shutil.rmtree(path, ignore_errors=True)


def _versions(row: Variant) -> dict[str, str]:
    found = {"mangakd": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "tokenizers", *row.needs):
        try:
            found[package] = version(package.replace("_", "-"))
        except PackageNotFoundError:  # found as a module, installed under another name
            continue
    return found
