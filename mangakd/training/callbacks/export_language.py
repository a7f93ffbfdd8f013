"""Export of language models as Lightning callbacks, for `export=[merged,gguf]` and for any Lightning Trainer.

    trainer = lightning.Trainer(callbacks=[GGUFExport(tokenizer=tokenizer, texts=held_out_texts)])

In a run of mangakd the variants of all callbacks are made once, after the last stage, as those of other students (export.py).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from mangakd.data.chat import ChatTemplate
from mangakd.data.chat_tokens import Marker
from mangakd.export.language.data import CALIBRATION, LanguageData, LanguageSplit
from mangakd.export.language.run import export, steps
from mangakd.export.language.variants import check_installed, find_variants
from mangakd.export.run import Options
from mangakd.export.spread import spread
from mangakd.models import load
from mangakd.training.callbacks.export import Export, show
from mangakd.training.callbacks.progress import step_progress

POSITIONS = 1 << 20  # tokens of a text where its length is limited by the model alone


class LanguageExport(Export):
    """As `Export`. texts: in your own Trainer, plain texts; half of them calibrate, and variants predict the others."""

    language: ClassVar[bool] = True

    def check(self) -> None:
        check_installed(find_variants(self.variants))

    def _export(self, student: Path, out: Path) -> None:
        export_language(self.variants, student, out, data_of_texts(self._texts, student), self._options)


class MergedExport(LanguageExport):
    """A plain folder of transformers, with adapters merged."""

    variants = ("merged",)


class GGUFExport(LanguageExport):
    """Files of llama.cpp in 16, 8 and 4 bits."""

    variants = ("gguf_f16", "gguf_q8_0", "gguf_q4_k_m")


class OpenVINOLanguageExport(LanguageExport):
    """Stateful IRs with weights in 16, 8 and 4 bits."""

    variants = ("openvino_fp16", "openvino_int8", "openvino_int4")


class VLLMExport(LanguageExport):
    """INT4 weights in compressed-tensors' format."""

    variants = ("vllm_int4",)


def export_language(
    names: Sequence[str], student: Path, out: Path, data: LanguageData, options: Options
) -> dict[str, Any]:
    """Export variants, choose one and print the tables. Raises UserError as mangakd.export.language.run does."""
    with step_progress("export", steps(names)) as progress:
        record = export(student, out, names, data, options, progress)
    show(record, out, f"speed of a question alone, {options.threads} thread; milliseconds: p50 / p95")
    return record


def data_of_texts(texts: Sequence[str], student: Path) -> LanguageData:
    """Plain texts as a language model's sequences: half of them, at most CALIBRATION, calibrate; the others decide."""
    tokenizer = load.load_tokenizer(str(student), "student", "tokens")
    marker = Marker(tokenizer, ChatTemplate.of(tokenizer), POSITIONS)
    unique = [text for text in dict.fromkeys(texts) if text.strip()]
    fitting = set(spread(unique, min(CALIBRATION, len(unique) // 2)))
    calibration, others = ([marker.text(text) for text in unique if (text in fitting) is own] for own in (True, False))
    return LanguageData(calibration, LanguageSplit(others, "texts"))
