"""export=[merged,gguf] of a run, `mangakd export` of folders and adapters, and what preflight refuses. Needs gguf and
xllamacpp."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_samples import blank_tokenizer, chat_tokenizer
from conftest import checked
from language_folder import save_exportable
from omegaconf import DictConfig
from tiny_language import CONFIGS
from transformers import AutoModelForCausalLM, AutoTokenizer

from mangakd.cli import export
from mangakd.cli.once import config_of, hydra_ready
from mangakd.core.errors import UserError
from mangakd.export.language import student, variants
from mangakd.runs.audit.finding import State
from mangakd.runs.audit.walk import audit
from mangakd.runtime.language_manifest import read
from mangakd.training.callbacks.export import ONNXExport
from mangakd.training.callbacks.export_language import GGUFExport, data_of_texts

for package in ("gguf", "xllamacpp"):
    pytest.importorskip(package)

Compose = Callable[..., DictConfig]
ONLY, FEW = "export.gguf.variants=[gguf_f16]", "export.tokens=100"


def test_a_run_exports_its_student(
    response_run: list[str], compose: Compose, run_here: Callable[[DictConfig, Path], None], tmp_path: Path
) -> None:
    words = [*response_run, f"paths.cache={tmp_path / 'cache'}", "logger=[]", "baseline=false", "trainer.max_epochs=1"]
    run_here(compose(*words, "export=[gguf]", ONLY, FEW, "export.max_perplexity_ratio=1.2"), tmp_path / "run")
    folder = tmp_path / "run" / "export"
    record = json.loads((folder / "export.json").read_text())
    assert (record["kind"], record["chosen"]) == ("language", "gguf_f16") and record["rows"]["test"] > 0
    assert abs(record["variants"]["gguf_f16"]["perplexity_ratio"] - 1) < 0.01
    assert record["variants"]["gguf_f16"]["tokens_per_second"] > 0
    best = read(folder / "best")
    assert best.engine == "llama.cpp" and best.metrics["test"]["kl"] < 0.01 and best.runtime["threads"] == 1
    # A conversation's markup is read as special tokens, by whatever loads the student or the merged folder.
    for place in (tmp_path / "run" / "student", folder / "merged"):
        reader = AutoTokenizer.from_pretrained(place)
        name = reader.eos_token
        assert reader(f"a{name}")["input_ids"][-1] == reader.eos_token_id
    finding = audit(folder / "best", (), lambda path: None)
    assert "gguf_f16, llama.cpp" in finding.words and finding.count(State.CHANGED) == 0
    assert finding.parts[0].state is State.VERIFIED
    report = (tmp_path / "run" / "report.md").read_text()
    assert "gguf\\_f16 ships" in report or "gguf_f16 ships" in report
    assert "generation, tokens/s" in report and "greedy texts" in report


def test_an_adapter_is_merged_in_the_dtype_of_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peft = pytest.importorskip("peft")
    monkeypatch.setenv("MANGAKD_CACHE", str(tmp_path / "cache"))
    base = save_exportable(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.to(torch.float16).save_pretrained(base)
    adapted = peft.get_peft_model(model.float(), peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(0.3 * torch.randn_like(weight))
    adapted.eval().save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": str(base)}))
    (merged,) = variants.make(student.read(tmp_path / "adapter"), tmp_path / "out", ["merged"])
    own = AutoModelForCausalLM.from_pretrained(merged)
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        expected, bare = (
            adapted(ids).logits,
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)(ids).logits,
        )
        answer = own(ids).logits.float()
    assert own.dtype == torch.float16 and own.lm_head.weight is own.model.embed_tokens.weight
    assert float((answer - expected).abs().max()) < 0.01 * float((bare - expected).abs().max())
    assert "lm_head.weight" not in (merged / "model.safetensors").read_bytes()[:20000].decode(errors="replace")


def test_a_folder_by_the_command(
    run_here: Callable[[DictConfig, Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_exportable(tmp_path / "model")
    rows = [{"prompt": f"where is order {i}?", "answer": f"order {i} is on its way. thank you"} for i in range(20)]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    typed = [f"export.student={folder}", f"validation={file}", "export=[merged]", FEW]
    with hydra_ready():
        export.run(config_of("export", *typed, folder=tmp_path))
    out = capsys.readouterr().out
    assert "merged ships" in out and "generation, tokens/s" in out
    assert f"vllm serve {tmp_path / 'export' / 'best'}" in out  # `mangakd serve` refuses a folder of transformers
    assert read(tmp_path / "export" / "best").engine == "transformers"
    taken = tmp_path / "taken"
    taken.touch()
    refused = [
        (["export=[merged,onnx]", f"validation={file}"], "export=\\[…\\] mixes variants of language models \\(merged\\)"),
        (["export=[onnx]", f"validation={file}"], "A language model has other variants: export=\\[merged,gguf\\]"),
        (["export=[merged]"], "validation is not set"),
        (["export=[merged]", f"validation={file}", "columns.prompt=q"], "none of the columns q, messages and text"),
        (["export=[gguf]", "export.gguf.variants=[gguf_q8]", f"validation={file}"], "no variant 'gguf_q8'"),
        (["export=[merged]", f"validation={file}", "export.max_perplexity_ratio=0.5"], "max_perplexity_ratio=0.5 must be"),
        (["export=[gguf]", "export.gguf.variants=gguf_q8_0", f"validation={file}"], r"must be a list of names: \[gguf_q8_0\]"),
        (["export=[merged]", f"validation={file}", "export.max_length=2"], "2 to 2 tokens .* a larger export.max_length"),
        (["export=[merged]", f"validation={file}", f"out={taken}"], "taken cannot be written: File exists. .* out=<folder>"),
    ]  # fmt: skip
    for words, message in refused:
        with hydra_ready(), pytest.raises(Exception, match=message):
            export.run(config_of("export", f"export.student={folder}", *words, folder=tmp_path))
    assert (tmp_path / "export" / "export.json").is_file()  # an export that was refused leaves the earlier one whole


def test_a_classifier_is_sent_to_its_variants(tmp_path: Path) -> None:
    config = CONFIGS["llama"]()
    config.architectures = ["LlamaForSequenceClassification"]
    folder = save_exportable(tmp_path / "model")
    config.save_pretrained(folder)
    with pytest.raises(UserError, match=r"LlamaForSequenceClassification, no causal .* export=\[openvino,onnx\]"):
        student.read(folder)


def test_preflight_refuses_it_for_another_task(small_run: list[str], compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gguf_f16 is a variant of language models, and task=intent trains none"):
        checked(compose(*small_run, "export=[gguf]"), tmp_path)


@pytest.mark.parametrize(
    ("kind", "entries", "reader", "words"),
    [
        ("gpt2", {}, "bytes", "is a gpt2, of which no GGUF file is written; known: llama, mistral, qwen2, qwen3"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "bytes", "rope_type=dynamic"),
        ("llama", {"hidden_act": "gelu"}, "bytes", "hidden_act=gelu"),
        ("llama", {"vocab_size": 10}, "bytes", "embeddings of 10: tokens lack"),
        ("llama", {}, "unigram", "a tokenizer of the kind Unigram"),
    ],
)  # fmt: skip
def test_students_without_a_gguf_file(kind: str, entries: dict[str, Any], reader: str, words: str) -> None:
    tokenizer = chat_tokenizer("chatml") if reader == "bytes" else blank_tokenizer("mistral", reader)
    config = CONFIGS[kind]()
    config.update({"vocab_size": len(tokenizer), **entries})
    with pytest.raises(UserError, match=words):
        variants.check_student(variants.find_variants(["gguf_q8_0"]), config, tokenizer)
    variants.check_student(variants.find_variants(["merged"]), config, tokenizer)


def test_packages_that_lack_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    row = variants.VARIANTS["gguf_f16"]
    monkeypatch.setitem(row.needs, "no_such_package", "gguf")
    with pytest.raises(UserError, match=r"gguf_f16, .* cannot be made: no_such_package not installed.*mangakd\[gguf\]"):
        GGUFExport()
    assert ONNXExport.language is False


def test_plain_texts_of_a_trainer_are_shared_out(tmp_path: Path) -> None:
    folder = save_exportable(tmp_path / "model")
    data = data_of_texts([f"the book is here {i}" for i in range(20)] + [" "], folder)
    assert len(data.calibration) == 10 and len(data.validation.sequences) == 10
    assert "the book is here 0" in data.texts(AutoTokenizer.from_pretrained(folder))[0]
