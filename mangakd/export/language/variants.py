"""The table of variants of a language model, and `make`: write to `<name>.partial`, check against `merged`, seal, rename.

The life cycle is that of mangakd/export/variants.py: a folder with a variant's name is whole even if the export is killed, and a
variant that would not change is not made again. `merged` is always made first: the others are made from it and compared with it.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from mangakd.core.code_version import package_versions
from mangakd.core.locks import waiting_lock
from mangakd.export.cycle import check_names, check_packages, digest, explain_failure, is_made, sweep
from mangakd.export.disk import check_space, explain_full_disk
from mangakd.export.language import compressed, merged, openvino_model, parity, to_gguf
from mangakd.export.language.job import Job
from mangakd.export.language.library import Library
from mangakd.export.language.llama_engine import RUNTIME
from mangakd.export.language.manifest import seal
from mangakd.export.language.openvino_layout import MODEL, settings
from mangakd.export.language.process import EngineProcess
from mangakd.export.language.quantise import check_k_quants
from mangakd.export.language.student import Student
from mangakd.export.language.torch_engine import read_engine
from mangakd.export.language.weight_groups import WHOLE_ROW
from mangakd.export.manifest import PARTIAL, place
from mangakd.runtime.language_manifest import Engine, LanguageManifest, read

MERGED = "merged"
WORK = f"work{PARTIAL}"  # base files of several variants
Check = Callable[[Any, Any], None]


@dataclass(frozen=True)
class Variant:
    """One row of the table. model: the file in the folder that the engine opens, "." for the folder. needs: package → pip extra.

    make: fills the folder of a job; returns the choices that it made, for the manifest. check: (config, tokenizer) of a student,
    maybe before it is trained; raises UserError for one that has no such variant. runtime: config of the student → settings of
    the engine beside threads. within: nats of a near-tie (parity.py). calibrated: whether training texts change it. library: a
    converter that may live in an environment of its own.
    """

    name: str
    engine: Engine
    how: str
    model: str
    make: Callable[[Job], Mapping[str, Any]]
    needs: Mapping[str, str] = field(default_factory=dict)
    check: Check = lambda config, tokenizer: None
    runtime: Callable[[Any], Mapping[str, Any]] = lambda config: {}
    within: float = 0.0
    calibrated: bool = False
    library: Library | None = None


def _merge(job: Job) -> Mapping[str, Any]:
    return merged.save(job.student, job.folder)


def _gguf(name: str, how: str, within: float, check: Check = to_gguf.check) -> Variant:
    return Variant(
        name, "llama.cpp", how, to_gguf.FILE, partial(to_gguf.write, name=name), to_gguf.NEEDS, check, lambda config: RUNTIME,
        within,
    )  # fmt: skip


def _check_k_quants(config: Any, tokenizer: Any) -> None:
    to_gguf.check(config, tokenizer)
    check_k_quants(config, tokenizer)


def _openvino(
    name: str, how: str, make: Callable[[Job], Mapping[str, Any]], group: Callable[[Any], int | None], **more: Any
) -> Variant:
    """group: config → the group size of the weights; None where they are not quantised."""
    return Variant(
        name, "openvino", how, MODEL, make, check=openvino_model.check, runtime=lambda config: settings(group(config)),
        library=openvino_model.OPTIMUM, **{"needs": openvino_model.NNCF, **more},
    )  # fmt: skip


VARIANTS = {
    row.name: row
    for row in (
        Variant(MERGED, "transformers", "Hugging Face folder, adapters merged in fp32", ".", _merge),
        _gguf("gguf_f16", "weights in F16", 0.1),
        _gguf("gguf_q8_0", "weights in Q8_0, blocks of 32", 0.5),
        _gguf("gguf_q6_k", "weights in Q6_K", inf, _check_k_quants),
        _gguf("gguf_q5_k_m", "weights in Q5_K, some in Q6_K", inf, _check_k_quants),
        _gguf("gguf_q4_k_m", "weights in Q4_K, some in Q6_K", inf, _check_k_quants),
        _openvino(
            "openvino_fp16", "weights in fp16", openvino_model.fp16, lambda config: None, needs=openvino_model.NEEDS, within=0.1
        ),
        _openvino("openvino_int8", "weights in INT8", openvino_model.int8, lambda config: WHOLE_ROW, within=0.5),
        _openvino(
            "openvino_int4", "weights in INT4 by groups, calibrated on text", openvino_model.int4, openvino_model.int4_group,
            within=inf, calibrated=True,
        ),
        Variant(
            "vllm_int4", "transformers", "GPTQ, compressed-tensors, calibrated on text", ".", compressed.save, compressed.NEEDS,
            compressed.check, within=inf, calibrated=True, library=compressed.LLM_COMPRESSOR,
        ),
    )
}  # fmt: skip


def make(
    student: Student,
    out: Path,
    names: Sequence[str],
    texts: Sequence[str] = (),
    threads: int = 1,
    context: int | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> list[Path]:
    """Make `merged` and the variants `names` in `out`; returns their folders, `merged` first.

    texts: of training, which calibrate. threads, context: of the engines; None for the student's context. progress: called with
    each name before the variant is made. Raises UserError for unknown names, missing packages, a student that has no such
    variant, too little disk space, and a variant that differs from `merged`.
    """
    rows = find_variants(names)
    check_installed(rows)
    check_student(rows, student.config, student.tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    tokens = min(context or student.context, student.context)
    with waiting_lock(out / ".lock", "exporting to this folder"), contextlib.ExitStack() as stack:
        sweep(out)
        stack.callback(sweep, out)
        parameters = student.source["parameters"]
        check_space(parameters, out, len(rows))
        stack.enter_context(explain_full_disk(out, parameters))
        (out / WORK).mkdir()
        maker = _Maker(student, out, texts, threads, tokens)
        folders = []
        for row in rows:
            progress(row.name)
            folders.append(maker.make(row))
    return folders


@dataclass
class _Maker:
    """_facts: see `Job`."""

    student: Student
    out: Path
    texts: Sequence[str]
    threads: int
    context: int
    _reference: parity.Reference | None = None
    _facts: dict[str, Any] = field(default_factory=dict)

    def make(self, row: Variant) -> Path:
        content = self._content(row)
        if is_made(self.out / row.name, content, read):
            return self.out / row.name
        folder = self.out / f"{row.name}{PARTIAL}"
        folder.mkdir()
        job = Job(self.student, self.out / MERGED, self.out / WORK, folder, self.texts, self._facts)
        with explain_failure(row.name, self.student.folder, self.student.config.model_type):
            recipe = row.make(job)
        checked = {} if row.name == MERGED else self._check(row, folder, content)
        seal(folder, {**content, "recipe": recipe, "parity": checked, "metrics": {}})
        return place(folder, self.out / row.name)

    def _content(self, row: Variant) -> dict[str, Any]:
        """What tells whether a variant that is there would be made again."""
        return {
            "variant": row.name, "engine": row.engine, "model": row.model, "context": self.context, "chat": self.student.chat,
            "runtime": {"threads": self.threads, **row.runtime(self.student.config)},
            "versions": package_versions(("torch", "transformers", "tokenizers", *row.needs)),
            "source": self.student.source, "calibration": digest(self.texts) if row.calibrated else None,
        }  # fmt: skip

    def _check(self, row: Variant, folder: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
        with EngineProcess(row.engine, folder / row.model, content["runtime"], self.context) as engine:
            return parity.check(row.name, engine, self.reference, row.within)

    @property
    def reference(self) -> parity.Reference:
        """`merged` in PyTorch, in this process; read for the first variant that is made."""
        if self._reference is None:
            self._reference = parity.Reference(self.student, read_engine(self.out / MERGED))
        return self._reference


def open_variant(folder: Path) -> tuple[LanguageManifest, EngineProcess]:
    """A finished variant with its engine. Raises UserError for a folder that holds none, and where the engine cannot open it."""
    manifest = read(folder)
    return manifest, EngineProcess(manifest.engine, manifest.model, manifest.runtime, manifest.context)


def find_variants(names: Sequence[str]) -> list[Variant]:
    """`merged` and the rows of the names. Raises UserError for an unknown name, for a repeated name, and without names."""
    check_names(names, VARIANTS)
    return [VARIANTS[name] for name in dict.fromkeys((MERGED, *names))]


def check_student(rows: Sequence[Variant], config: Any, tokenizer: Any) -> None:
    """Raises UserError for a student that has no such variant, with the architecture or the tokenizer that is in the way."""
    for row in rows:
        row.check(config, tokenizer)


def check_installed(rows: Sequence[Variant]) -> None:
    """Raises UserError that names all missing packages and the extras that install them, and for a missing library."""
    check_packages(rows)
    for library in {row.library: None for row in rows if row.library is not None}:
        library.python()
