"""From the command line to a form: what is refused before a provider is asked, and what is ignored with a warning."""

import json
import logging
from pathlib import Path

import pytest
from conftest import REPO
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import label
from mangakd.cli.app import register_resolvers
from mangakd.cli.label_forms import form_of, warn_of_ignored
from mangakd.core.errors import UserError
from mangakd.labelling.forms.soft_labels import SoftLabels

NAMES = "labels.names=[buy,ask]"
API = ("provider=openai", "provider.model=m", "provider.base_url=http://127.0.0.1:9/v1")


def config(*words: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(REPO / "conf"), version_base="1.3"):
        return compose("label", [*words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["provider=anthropic", "provider.model=m", "writes=soft_labels", NAMES],
            "gives no log-probabilities. .*samples=10",
        ),
        ([*API, "provider.top_logprobs=0", "writes=soft_labels", NAMES], r"with provider\.top_logprobs=0"),
        (
            ["provider=anthropic", "provider.model=m", "writes=scores", "scoring.expected=true"],
            "gives no log-probabilities",
        ),
        ([*API, "writes=labels"], r"labels\.names and labels\.path are both null"),
        ([*API, "writes=labels", NAMES, "labels.answer=digit"], r"labels\.answer=digit must be one of letter, name"),
        ([*API, "writes=labels", NAMES, "thought=keep"], "set thought=column"),
        ([*API, "writes=labels", NAMES, "prompt=nowhere.jinja"], r"prompt=nowhere\.jinja is no file"),
        ([*API, "writes=embeddings"], r"must end with \.parquet or \.npy"),
        (["provider=encoder", "provider.path=x", "writes=answers"], "set writes=embeddings"),
        (["provider=seq2seq", "provider.path=x", "writes=rewrites", "prompt=rewrites"], "reads turns, no prompt"),
    ],
)
def test_what_cannot_be_asked_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    rows = [{"text": "a", "prompt": "a", "utterance": "a", "query": "q", "documents": ["d"]}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    paths = [f"data.path={tmp_path / 'rows.jsonl'}", f"out={tmp_path / 'out.jsonl'}", f"paths.cache={tmp_path}"]
    with pytest.raises(UserError, match=message):
        label.run(config(*words, *paths))
    assert not (tmp_path / "out.jsonl").exists() and not [*tmp_path.glob("*.sqlite")]


def test_an_api_is_asked_for_letters_and_a_model_here_for_names() -> None:
    forms = [form_of(config(*where, "writes=soft_labels", NAMES)) for where in (API, ("provider.path=x",))]
    assert [form.choices for form in forms] == [("A", "B"), ("buy", "ask")]
    assert all(isinstance(form, SoftLabels) and form.least_mass == 0.5 for form in forms)
    named = form_of(config(*API, "writes=soft_labels", "labels.names={buy: wants, ask: null}", "labels.answer=name"))
    assert named.choices == ("buy", "ask") and named.settings["labels"] == {"buy": "wants", "ask": ""}


def test_options_of_other_forms_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    default = OmegaConf.load(REPO / "conf" / "label.yaml")
    with caplog.at_level(logging.WARNING):
        warn_of_ignored(config("provider.path=x", "writes=labels", NAMES), default)  # type: ignore[arg-type]
        assert not caplog.messages
        warn_of_ignored(config("provider.path=x", NAMES, "scoring.most=5"), default)  # type: ignore[arg-type]
    assert caplog.messages == ["labels is ignored with writes=answers.", "scoring is ignored with writes=answers."]


def test_names_that_begin_alike_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    alike = "labels.names=[order_status,order_cancel]"
    form_of(config(*API, "writes=soft_labels", alike))
    form_of(config("provider.path=x", "writes=soft_labels", alike))
    form_of(config(*API, "writes=soft_labels", NAMES, "labels.answer=name"))
    assert not caplog.messages
    form_of(config(*API, "writes=soft_labels", alike, "labels.answer=name"))
    assert len(caplog.messages) == 1 and "some names begin alike" in caplog.messages[0]
