"""Folders of adapters as peft and others write them: read as base and adapter together, or refused with the reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_language
import torch
from contract.tiny_models import HEAD, LABELS, SCORE, VECTOR, config, inputs, model, tokenizer
from safetensors.torch import load_file, save_file

from mangakd.core.errors import UserError
from mangakd.core.spec import Head
from mangakd.models import heads, load, location
from mangakd.models.adapter_folder import CONFIG

peft = pytest.importorskip("peft", reason="adapters need peft: pip install 'mangakd[lora]'")
KEY = "teacher.path"
EVERY = {
    "bert": ["query"],
    "distilbert": ["q_lin", "lin2"],
    "roberta": ["query", "output.dense"],
    "modernbert": ["Wqkv"],
}
HEADS = {"distilbert": ["pre_classifier", "classifier"], "modernbert": ["head", "classifier"]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MANGAKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def blown_up(adapted: Any) -> Any:
    """What a new adapter does not change, this one changes a lot."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return adapted.eval()


def saved(folder: Path, built: Any, base: Path | str, **options: Any) -> Any:
    """The model with an adapter, whose folder names `base`. options: of LoraConfig."""
    adapted = blown_up(peft.get_peft_model(built, peft.LoraConfig(r=2, **options)))
    adapted.save_pretrained(folder)
    change(folder, base_model_name_or_path=str(base))
    return adapted


def change(folder: Path, **entries: Any) -> None:
    file = folder / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def base_of(folder: Path, built: Any) -> Path:
    built.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def read(folder: Path, head: Head) -> Any:
    outline = load.outline_trained(str(folder), KEY, head.kind)
    assert outline is not None
    return load.read_model(outline, str(folder), KEY).eval()


def classifier_adapter(tmp_path: Path, kind: str = "bert", **options: Any) -> tuple[Path, Any]:
    """(folder of an adapter on an encoder, the classifier with it)."""
    built = model(config(kind))
    base = base_of(tmp_path / "base", built.base_model)
    options = {"task_type": "SEQ_CLS", "target_modules": EVERY[kind], **options}
    return tmp_path / "adapter", saved(tmp_path / "adapter", built, base, **options)


@pytest.mark.parametrize("kind", EVERY)
def test_a_classifier_answers_as_base_and_adapter_together(kind: str, tmp_path: Path) -> None:
    folder, adapted = classifier_adapter(tmp_path, kind, modules_to_save=HEADS.get(kind, ["classifier"]))
    found = read(folder, HEAD)
    torch.testing.assert_close(found(**inputs()).logits, adapted(**inputs()).logits, rtol=1e-5, atol=1e-5)
    outline = load.outline_trained(str(folder), KEY)
    assert outline is not None and outline.info["missing_keys"] == set()
    assert load.load_tokenizer(str(folder)).get_vocab() == tokenizer().get_vocab()


def test_names_of_labels_come_from_a_config_beside_the_adapter(tmp_path: Path) -> None:
    folder, adapted = classifier_adapter(tmp_path)
    file = tmp_path / "base" / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({name: each for name, each in content.items() if name not in ("id2label", "label2id")}))
    unnamed = load.outline_trained(str(folder), KEY)
    assert unnamed is not None and (unnamed.head.outputs, unnamed.head.names) == (len(LABELS), ())
    adapted.config.save_pretrained(folder)
    named = load.outline_trained(str(folder), KEY)
    assert named is not None and named.head.names == LABELS


def test_a_score_of_pairs(tmp_path: Path) -> None:
    built = model(config("bert"), SCORE)
    base = base_of(tmp_path / "base", built.bert)
    adapted = saved(tmp_path / "adapter", built, base, task_type="SEQ_CLS", target_modules=["query"])
    torch.testing.assert_close(read(tmp_path / "adapter", SCORE)(**inputs()).logits, adapted(**inputs()).logits)


@pytest.mark.parametrize("task", ["FEATURE_EXTRACTION", None])
def test_vectors_keep_the_pooling_of_the_folder_or_of_its_base(task: str | None, tmp_path: Path) -> None:
    built = model(config("bert"), VECTOR)
    base = base_of(tmp_path / "base", built)
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
               {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]  # fmt: skip
    (base / "1_Pooling").mkdir()
    (base / "modules.json").write_text(json.dumps(modules))
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    adapted = saved(tmp_path / "adapter", built, base, task_type=task, target_modules=["query", "output.dense"])
    found = read(tmp_path / "adapter", VECTOR)
    torch.testing.assert_close(found(**inputs())[0], adapted(**inputs())[0], rtol=1e-5, atol=1e-5)

    def pooling() -> str:
        return heads.states_head("vector", load.load_config(str(tmp_path / "adapter"))).settings.pooling  # type: ignore[union-attr]

    assert pooling() == "cls"
    shutil.copytree(base / "1_Pooling", tmp_path / "adapter" / "1_Pooling")
    shutil.copy(base / "modules.json", tmp_path / "adapter")
    (tmp_path / "adapter" / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    assert pooling() == "max"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_language_models(kind: str, tmp_path: Path) -> None:
    built = tiny_language.model(kind)
    base = base_of(tmp_path / "base", built)
    targets = ["c_attn", "c_fc"] if kind == "gpt2" else ["q_proj", "down_proj"]
    adapted = saved(
        tmp_path / "adapter", built, base, task_type="CAUSAL_LM", target_modules=targets, fan_in_fan_out=kind == "gpt2"
    )
    ids = torch.tensor([[5, 9, 11, 30]])
    found = read(tmp_path / "adapter", tiny_language.TOKENS)
    torch.testing.assert_close(found(input_ids=ids).logits, adapted(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", ["beside the adapter", "in the adapter's own folder", "an adapter itself"])
def test_places_of_a_base(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, adapted = classifier_adapter(tmp_path)
    expected = adapted(**inputs()).logits
    if how == "beside the adapter":
        change(folder, base_model_name_or_path="../base")
        monkeypatch.chdir(tmp_path.parent)
    elif how == "in the adapter's own folder":
        shutil.copytree(tmp_path / "base", folder, dirs_exist_ok=True)
        change(folder, base_model_name_or_path=str(folder))
    else:  # an adapter that changes nothing
        first = peft.get_peft_model(model(config("bert")).bert, peft.LoraConfig(r=2, target_modules=["key"]))
        first.save_pretrained(tmp_path / "first")
        change(tmp_path / "first", base_model_name_or_path=str(tmp_path / "base"))
        change(folder, base_model_name_or_path=str(tmp_path / "first"))
    torch.testing.assert_close(read(folder, HEAD)(**inputs()).logits, expected, rtol=1e-5, atol=1e-5)


def test_weights_beside_an_adapter_of_another_base_are_not_read(tmp_path: Path) -> None:
    """As transformers does: the adapter's config names the base."""
    folder, adapted = classifier_adapter(tmp_path)
    model(config("bert"), seed=7).save_pretrained(folder)
    torch.testing.assert_close(read(folder, HEAD)(**inputs()).logits, adapted(**inputs()).logits, rtol=1e-5, atol=1e-5)


def test_an_adapter_without_a_head_is_an_encoder_without_a_head(tmp_path: Path) -> None:
    """Its head would be random: it is new, and fine-tuned as that of any encoder."""
    built = model(config("bert"))
    base = base_of(tmp_path / "base", built.bert)
    saved(tmp_path / "adapter", built, base, target_modules=["query"])
    assert load.outline_trained(str(tmp_path / "adapter"), KEY) is None
    outline = load.outline_for(str(tmp_path / "adapter"), HEAD, KEY)
    merged = load.read_model(outline, str(tmp_path / "adapter"), KEY)
    query = "bert.encoder.layer.0.attention.self.query"
    torch.testing.assert_close(merged.bert.pooler.dense.weight, built.bert.pooler.dense.weight)
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    part = f"base_model.model.{query}.lora_"
    delta = 4 * adapter[f"{part}B.weight"] @ adapter[f"{part}A.weight"]
    before = load_file(base / "model.safetensors")[f"{query[5:]}.weight"]
    torch.testing.assert_close(merged.get_parameter(f"{query}.weight").detach(), before + delta, rtol=1e-5, atol=1e-5)


def test_merged_once_and_again_when_base_or_adapter_changes(tmp_path: Path, cache: Path) -> None:
    folder, _ = classifier_adapter(tmp_path)

    def digest() -> str:
        outline = load.outline_trained(str(folder), KEY)
        assert outline is not None
        return outline.digest(torch.float32)

    first = digest()
    assert digest() == first and len(list((cache / "merged").glob("[!l]*"))) == 1
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, folder / "adapter_model.safetensors")
    second = digest()
    model(config("bert"), seed=4).bert.save_pretrained(tmp_path / "base")
    assert len({first, second, digest()}) == 3


Break = Callable[[Path, Path], object]
BROKEN: dict[str, tuple[Break, str]] = {
    "a base that is not there": (
        lambda folder, base: change(folder, base_model_name_or_path="some/base"),
        r"teacher\.path=.*adapter holds an adapter of some/base, which is no folder here \(some/base or .*adapter/some/base\)",
    ),
    "no base": (lambda folder, base: change(folder, base_model_name_or_path=None), "an unknown model: base_model_name_or_path"),
    "itself, without weights": (
        lambda folder, base: change(folder, base_model_name_or_path=str(folder)), "names itself as its base, and no weights",
    ),
    "a base without a model": (
        lambda folder, base: (base / "config.json").unlink(), r"adapter of .*base, which cannot be read: .*without config\.json",
    ),
    "a damaged base": (
        lambda folder, base: save_file(
            {n: w for n, w in load_file(base / "model.safetensors").items() if "layer.1" not in n}, base / "model.safetensors"
        ), r"whose base lacks \d+ weights, such as bert\.encoder\.layer\.1",
    ),
    "no weights": (
        lambda folder, base: (folder / "adapter_model.safetensors").unlink(), "adapter_config.json and no weights of an adapter",
    ),
    "damaged weights": (
        lambda folder, base: (folder / "adapter_model.safetensors").write_bytes(b"no tensors"), "cannot be merged into its base",
    ),
    "an unknown kind": (lambda folder, base: change(folder, peft_type="LORRA"), r"peft_type=LORRA, .*did you mean LORA"),
    "another task": (lambda folder, base: change(folder, task_type="TOKEN_CLS"), "task_type=TOKEN_CLS; known: SEQ_CLS"),
    "other layers": (
        lambda folder, base: change(folder, target_modules=["query", "value", "key"]),
        r"does not fit its base, a bert: \d+ weights are in one of them alone, such as .*key\.lora_A",
    ),
    "no JSON": (lambda folder, base: (folder / "adapter_config.json").write_text("{"), r"adapter_config\.json is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_merged_is_refused(name: str, tmp_path: Path) -> None:
    folder, _ = classifier_adapter(tmp_path)
    break_it, words = BROKEN[name]
    break_it(folder, tmp_path / "base")
    for reading in (load.load_config, load.load_tokenizer):
        with pytest.raises(UserError, match=words):
            reading(str(folder), KEY)


def test_prompts_are_no_change_of_weights(tmp_path: Path) -> None:
    built = model(config("bert"))
    base = base_of(tmp_path / "base", built)
    prompts = peft.get_peft_model(built, peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2))
    prompts.save_pretrained(tmp_path / "adapter")
    change(tmp_path / "adapter", base_model_name_or_path=str(base))
    with pytest.raises(UserError, match="peft_type=PROMPT_TUNING: it adds learned vectors beside each text"):
        load.load_config(str(tmp_path / "adapter"))


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens"])
def test_tied_tables_are_refused_and_untied_ones_are_merged(name: str, tmp_path: Path) -> None:
    for kind in ("llama", "untied"):
        built = tiny_language.model(kind)
        base = base_of(tmp_path / f"base {kind}", built)
        folder = tmp_path / kind
        adapted = saved(folder, built, base, task_type="CAUSAL_LM", target_modules=["q_proj", name])
        if kind == "llama":
            with pytest.raises(UserError, match=rf"an adapter on .*{name}, whose weights are those of .*\(tied\)"):
                load.load_config(str(folder))
        else:
            ids = torch.tensor([[5, 9, 11, 30]])
            found = read(folder, tiny_language.TOKENS)
            torch.testing.assert_close(found(input_ids=ids).logits, adapted(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_a_random_part_of_a_head_that_was_not_saved_is_refused(tmp_path: Path) -> None:
    """Without task_type peft adapts the new classifier and leaves its random weights out."""
    built = model(config("bert"))
    base = base_of(tmp_path / "base", built.bert)
    saved(tmp_path / "adapter", built, base, target_modules=["query", "classifier"])
    with pytest.raises(
        UserError, match=r"with classifier\.lora_\w.*, and neither it nor its base holds classifier\.bias"
    ):
        load.load_config(str(tmp_path / "adapter"))


def test_an_adapter_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = classifier_adapter(tmp_path)
    monkeypatch.setattr(location, "find_adapter_config_file", lambda where: None if "base" in where else CONFIG)
    monkeypatch.setattr(location, "snapshot_download", lambda where: str(folder))
    trained = load.outline_trained("shop/adapter", KEY)
    assert trained is not None and trained.head.outputs == len(LABELS)

    def gone(where: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr(location, "snapshot_download", gone)
    with pytest.raises(
        UserError, match=r"teacher\.path=shop/adapter holds an adapter that cannot be got from the hub: no network"
    ):
        load.load_config("shop/adapter", KEY)
