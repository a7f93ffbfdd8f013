"""Export as Lightning callbacks, for `export=[openvino,onnx]` and for any Lightning Trainer.

    trainer = lightning.Trainer(callbacks=[OpenVINOExport(tokenizer=tokenizer, texts=training_texts)])
    trainer.fit(module_that_holds_a_hugging_face_model, …)     # leaves <default_root_dir>/student and /export/best

In a run of mangakd the callbacks do not fire at the end of a fit. A recipe has several fits; the student gets its final weights
after the last fit, and under FSDP only then are they whole. Also, one variant is chosen among the variants of all callbacks. So
`train.py` collects the callbacks and calls `export_student` once, on the first rank, after it has written the student's folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
from transformers import PreTrainedModel

from mangakd.core.errors import UserError
from mangakd.evaluation.report import export as report
from mangakd.evaluation.table import show_blocks
from mangakd.export.cycle import check_packages
from mangakd.export.data import Data, of_texts
from mangakd.export.hf import save_student
from mangakd.export.run import Options, export, steps
from mangakd.export.variants import CALIBRATION, add_trained, find_variants
from mangakd.training.callbacks.progress import step_progress


class Export(L.Callback):
    """variants: names from mangakd.export.variants. tokenizer, texts, options: for your own Trainer.

    In your own Trainer the variants are compared with the student on the `texts` that did not calibrate them; scripts/export.py
    scores variants on labels. Raises UserError for unknown variants and for missing packages.
    """

    variants: tuple[str, ...] = ()
    language: ClassVar[bool] = False  # whether its variants are those of language models

    def __init__(
        self,
        variants: Sequence[str] | None = None,
        tokenizer: Any = None,
        texts: Sequence[str] = (),
        options: Options | None = None,
    ) -> None:
        if isinstance(variants, str):
            raise UserError(f"variants={variants} must be a list of names: [{variants}].")
        self.variants = self.variants if variants is None else tuple(variants)
        self._tokenizer, self._texts, self._options = tokenizer, texts, options or Options()
        self.check()

    def check(self) -> None:
        """Raises UserError for unknown variants and for missing packages."""
        check_packages(find_variants(self.variants))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the module's Hugging Face model and export it. Raises UserError unless the module has exactly one."""
        if not trainer.is_global_zero:
            return
        if self._tokenizer is None or not self._texts:
            raise UserError(
                f"{type(self).__name__} in your own Trainer needs tokenizer=… and texts=… (training texts)."
            )
        model = _model(pl_module)
        root = Path(trainer.default_root_dir)
        root.mkdir(parents=True, exist_ok=True)
        save_student(model, self._tokenizer, root / "student", f"# {type(pl_module).__name__}\n")
        self._export(root / "student", root / report.FOLDER)

    def _export(self, student: Path, out: Path) -> None:
        data = of_texts(self._texts, CALIBRATION, "texts")
        export_student([self], student, out, data, self._options)


class OpenVINOExport(Export):
    """IR in fp32 and fp16, INT8 weights, and full INT8 calibrated on training texts."""

    variants = ("openvino_fp32", "openvino_fp16", "openvino_int8_weights", "openvino_int8")


class ONNXExport(Export):
    """fp32, and INT8 with dynamic activation ranges. onnx_int8_static takes the ranges from training texts."""

    variants = ("onnx_fp32", "onnx_int8")


def export_student(
    callbacks: Sequence[Export],
    student: Path,
    out: Path,
    data: Data,
    options: Options,
    pooling: Any = None,
    pairs: bool | None = None,
) -> dict[str, Any]:
    """Export the variants of all callbacks, choose one and print the table. Raises UserError as mangakd.export.run does."""
    names = add_trained([name for callback in callbacks for name in callback.variants], student)
    with step_progress("export", steps(names)) as progress:
        record = export(student, out, names, data, options, pooling, progress, pairs)
    show(record, out, f"milliseconds: p50 / p95 / p99, {options.threads} thread")
    return record


def show(record: dict[str, Any], out: Path, cost: str) -> None:
    """Print the tables of an export. cost: the title of the second one."""
    show_blocks(report.quality(record), f"{out}: variants of the student")
    show_blocks(report.cost(record), cost)
    for line in (report.summary(record), *report.test_sentences(record)):
        print(line, flush=True)


def _model(module: L.LightningModule) -> PreTrainedModel:
    """The model to export: a DistillModule's student, or the only Hugging Face model of another module."""
    root = getattr(module, "student", module)
    models = [each for each in root.modules() if isinstance(each, PreTrainedModel)]
    outer = [each for each in models if not any(each is not other and each in set(other.modules()) for other in models)]
    if len(outer) != 1:
        raise UserError(
            f"{type(module).__name__} holds {len(outer)} Hugging Face models; an export needs one, or an attribute `student`."
        )
    return outer[0]
