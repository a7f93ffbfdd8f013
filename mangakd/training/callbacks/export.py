"""Export as Lightning callbacks: what `export=[openvino,onnx]` names, and what any Lightning Trainer can be given.

    trainer = lightning.Trainer(callbacks=[OpenVINOExport(tokenizer=tokenizer, texts=training_texts)])
    trainer.fit(module_that_holds_a_hugging_face_model, …)     # leaves <default_root_dir>/student and /export/best

In a run of mangakd they fire after the last stage, when the student's folder is written, and not at the end of a fit: a recipe
has several fits, the weights that are kept are brought back after the last of them, under FSDP they are whole only then, and one
variant is chosen among those of all callbacks. So `train.py` collects them and calls `export_student` once, on the first rank.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from transformers import PreTrainedModel

from mangakd.core.errors import UserError
from mangakd.evaluation.report import export as report
from mangakd.evaluation.table import show_blocks
from mangakd.export.data import Data, of_texts
from mangakd.export.hf import save_student
from mangakd.export.run import Options, export, steps
from mangakd.export.variants import CALIBRATION, check_installed, known, with_trained
from mangakd.training.callbacks.progress import counted


class Export(L.Callback):
    """variants: names out of mangakd.export.variants. tokenizer, texts, options: for a Trainer of one's own.

    There the variants are compared with the student on those of `texts` that they are not calibrated on; scripts/export.py
    scores them on labels. Raises UserError for unknown variants, and for packages that are not installed.
    """

    variants: tuple[str, ...] = ()

    def __init__(
        self,
        variants: Sequence[str] | None = None,
        tokenizer: Any = None,
        texts: Sequence[str] = (),
        options: Options | None = None,
    ) -> None:
        self.variants = self.variants if variants is None else tuple(variants)
        self._tokenizer, self._texts, self._options = tokenizer, texts, options or Options()
        check_installed(known(self.variants))

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the module's Hugging Face model as it is now, and export it. Raises UserError where there is none, or several."""
        if not trainer.is_global_zero:
            return
        if self._tokenizer is None or not self._texts:
            raise UserError(
                f"{type(self).__name__} in a Trainer of one's own needs tokenizer=… and texts=… (training texts)."
            )
        model = _model(pl_module)
        root = Path(trainer.default_root_dir)
        root.mkdir(parents=True, exist_ok=True)
        save_student(model, self._tokenizer, root / "student", f"# {type(pl_module).__name__}\n")
        data = of_texts(self._texts, CALIBRATION, "texts")
        export_student([self], root / "student", root / report.FOLDER, data, self._options)


class OpenVINOExport(Export):
    """IR in fp32 and fp16, INT8 weights, and full INT8 calibrated on training texts."""

    variants = ("openvino_fp32", "openvino_fp16", "openvino_int8_weights", "openvino_int8")


class ONNXExport(Export):
    """fp32, and INT8 with activations quantised as they come. onnx_int8_static fixes their ranges on training texts."""

    variants = ("onnx_fp32", "onnx_int8")


def export_student(
    callbacks: Sequence[Export], student: Path, out: Path, data: Data, options: Options, pooling: Any = None
) -> dict[str, Any]:
    """The variants of all callbacks, one choice among them, and the table of it. Raises UserError as mangakd.export.run does."""
    names = with_trained([name for callback in callbacks for name in callback.variants], student)
    with counted("export", steps(names)) as progress:
        record = export(student, out, names, data, options, pooling, progress)
    title = f"{out}: variants of the student"
    show_blocks(report.quality(record), title)
    show_blocks(report.cost(record), f"milliseconds: p50 / p95 / p99, {options.threads} thread")
    for line in (report.summary(record), *report.test_sentences(record)):
        print(line, flush=True)
    return record


def _model(module: L.LightningModule) -> PreTrainedModel:
    """The one that learns: a DistillModule's student, or the only one of any module."""
    searched = getattr(module, "student", module)
    found = [each for each in searched.modules() if isinstance(each, PreTrainedModel)]
    outer = [each for each in found if not any(each is not other and each in set(other.modules()) for other in found)]
    if len(outer) != 1:
        raise UserError(
            f"{type(module).__name__} holds {len(outer)} Hugging Face models; an export needs one, or one called student."
        )
    return outer[0]
