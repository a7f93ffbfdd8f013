"""Prompts as files of Jinja2: what a model is asked, and which files are refused before anything is paid for."""

import hashlib
from pathlib import Path

import pytest
from prepared import Prepared, labelled

from mangakd.core.errors import UserError
from mangakd.labelling.forms import Answers, Rewrites
from mangakd.labelling.forms.expansions import Expansions
from mangakd.labelling.forms.label_names import LabelNames
from mangakd.labelling.forms.labels import Labels
from mangakd.labelling.forms.paraphrases import Paraphrases
from mangakd.labelling.forms.scores import Scores
from mangakd.labelling.templates import OWN, Template

NAMES = LabelNames({"buy": "wants a book", "return": ""}, letters=True)


def template(folder: Path, source: str) -> Template:
    file = folder / "own.jinja"
    file.write_text(source)
    return Template.of(str(file))


def test_blocks_are_system_prompt_and_question(tmp_path: Path) -> None:
    source = "{# why #}\n{% set x = 2 %}{% block system %}\n Be {{ how }}. \n{% endblock %}\n"
    source += "{% block user %}{{ q }}?{% endblock %}\n"
    own = template(tmp_path, source)
    assert own.messages({"how": "kind", "q": "{{ 1 + 1 }} & <b>"}, "row 1") == (
        ("system", "Be kind."), ("user", "{{ 1 + 1 }} & <b>?"),
    )  # fmt: skip
    assert own.sha256 == hashlib.sha256(source.encode()).hexdigest()
    assert template(tmp_path, "{{ q }}!").messages({"q": "one"}, "row 1") == (("user", "one!"),)
    empty = "{% block system %}{% if s %}{{ s }}{% endif %}{% endblock %}{% block user %}u{% endblock %}"
    assert template(tmp_path, empty).messages({"s": ""}, "row 1") == (("user", "u"),)


def test_examples_are_turns_before_the_question(tmp_path: Path) -> None:
    blocks = {
        "user": "{{ q }}",
        "assistant_2": "d",
        "user_2": "c",
        "user_1": "a {{ q }}",
        "assistant_1": "b",
        "system": "s",
    }
    source = "".join(f"{{% block {name} %}}{text}{{% endblock %}}\n" for name, text in blocks.items())
    assert template(tmp_path, source).messages({"q": "now"}, "row 1") == (
        ("system", "s"), ("user", "a now"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "now"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% block user %}{{ q }", r"line 1 of prompt=.* is no Jinja2"),
        ("{% block system %}s{% endblock %}", "has no block user"),
        ("{% block user %}u{% endblock %}{% block example %}e{% endblock %}", "has the block example"),
        ("{% block user %}u{% endblock %}{% block user_1 %}e{% endblock %}", "has no block assistant_1"),
        ("{% block user %}u{% endblock %}\nlost words", r"line 2 .* is beside the blocks"),
        ("{% block user %}u{% endblock %}\n{{ q }}", r"is beside the blocks"),
    ],
)
def test_files_that_are_no_prompt_are_refused(source: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        template(tmp_path, source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ answer }}", r"'answer' is undefined for row 7\. A template may use q"),
        ("{{ q.nothing }}", r"no attribute 'nothing' for row 7"),
        (" {# nothing #} ", r"asks nothing for row 7"),
        ("{{ q.__class__.__mro__ }}", r"unsafe|is undefined"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{% include 'other.jinja' %}", "fails for row 7"),
    ],
)
def test_what_a_row_cannot_fill_is_refused(source: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        template(tmp_path, source).messages({"q": "one"}, "row 7")


def test_a_name_is_one_of_mangakd_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Template.of("grounded").file == OWN / "grounded.jinja"
    with pytest.raises(UserError, match=r"prompt=ground is no file.*did you mean grounded\?"):
        Template.of("ground")
    with pytest.raises(UserError, match=r"prompt=\./labels"):
        Template.of("./labels")


def test_a_prompt_that_fails_asks_nothing(tmp_path: Path) -> None:
    """The second row has no label: the first one is not asked either."""
    provider = Prepared(["a", "b"])
    own = template(tmp_path, "{{ context[0] }} {{ prompt }}")
    with pytest.raises(UserError, match=r"line 2 of data\.path"):
        labelled(tmp_path, Answers(prompt=own), [{"prompt": "a", "context": ["c"]}, {"prompt": "b"}], provider)
    assert provider.requests == [] and not (tmp_path / "out.jsonl").exists()


def test_answers_are_asked_by_the_template_and_keep_their_own_prompt(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Is it in stock?", "context": ["Nana 1: 3 copies.", "Nana 2: none."], "system": "You sell books."},
        {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"},
                      {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And Nana 2?"}]},
    ]  # fmt: skip
    provider = Prepared(["yes", "no"])
    first, second = labelled(tmp_path, Answers(prompt=Template.of("grounded")), rows, provider)[0]
    rule = "Use the passages alone. If they do not hold the answer, say that you do not know."
    assert provider.requests[0].prompt == (
        ("system", f"You sell books.\n{rule}"),
        ("user", "Passage 1:\nNana 1: 3 copies.\n\nPassage 2:\nNana 2: none.\n\nQuestion: Is it in stock?"),
    )
    assert provider.requests[1].prompt == (
        ("system", f"Be short.\n{rule}"), ("user", "Hi"), ("assistant", "Hello"), ("user", "Question: And Nana 2?"),
    )  # fmt: skip
    assert first["prompt"] == "Is it in stock?" and first["context"] == rows[0]["context"] and first["answer"] == "yes"
    assert [each["role"] for each in second["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert first["written_by"]["prompt"] == Template.of("grounded").sha256


def test_a_changed_template_is_another_run(tmp_path: Path) -> None:
    rows = [{"prompt": "a"}]
    labelled(tmp_path, Answers(prompt=template(tmp_path, "{{ prompt }}")), rows, Prepared(["x"]))
    with pytest.raises(UserError, match=r"prompt='[0-9a-f]+.*', and this run has"):
        labelled(tmp_path, Answers(prompt=template(tmp_path, "{{ prompt }} ")), rows, Prepared(["x"]))


def asked(form: object, rows: list[dict[str, object]], folder: Path) -> tuple[tuple[str, str], ...]:
    provider = Prepared([""] * len(rows))
    labelled(folder, form, rows, provider)  # type: ignore[arg-type]
    return provider.requests[0].prompt


def test_the_default_prompts_word_for_word(tmp_path: Path) -> None:
    system, (_, question) = asked(
        Labels(labels=NAMES, prompt=Template.of("labels")), [{"text": "I want Nana"}], tmp_path
    )
    assert system == (
        "system",
        "You classify texts. Answer with the letter of the one label that fits best, and with nothing else.",
    )
    assert question == "Labels:\nA. buy: wants a book\nB. return\n\nText: I want Nana\n\nLetter:"
    rows = [{"query": "nana 1", "documents": ["Nana, volume 1"]}]
    system, (_, question) = asked(Scores(prompt=Template.of("scores")), rows, tmp_path / made(tmp_path, "s"))
    assert "from 0 (not relevant) to 3 (answers the query completely)" in system[1]
    assert question == "Query: nana 1\n\nDocument: Nana, volume 1\n\nRelevance (0 to 3):"
    turns = [{"history": ["Who wrote Nana?", "Ai Yazawa."], "utterance": "When?"}]
    for name, form in (
        ("expansions", Expansions(prompt=Template.of("expansions"))),
        ("rewrites", Rewrites("", "{utterance}", prompt=Template.of("rewrites"))),
    ):
        system, (_, question) = asked(form, turns, tmp_path / made(tmp_path, name))
        assert question == "Conversation:\nWho wrote Nana?\nAi Yazawa.\n\nLast question: When?"
    system, (_, question) = asked(
        Paraphrases(prompt=Template.of("paraphrases")),
        [{"text": "where is it", "label": "status"}],
        tmp_path / made(tmp_path, "p"),
    )
    assert system[1].startswith("You reword texts. Write 5 different texts")
    assert question == "The text is labelled status; so must be every new text.\nText: where is it"


def made(folder: Path, name: str) -> str:
    (folder / name).mkdir()
    return name
