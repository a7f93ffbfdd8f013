"""Answers of a teacher as a file: what is written, what is left out, and which files a run goes on with."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from chat_samples import ASK, REPLY, THANKS
from language_folder import save_language_model

from mangakd.core.errors import UserError
from mangakd.data.rows import Rows
from mangakd.data.sources import Files
from mangakd.labelling.forms import Answers
from mangakd.labelling.label import Options, label, read_prompts
from mangakd.labelling.label_manifest import manifest_path, read_manifest
from mangakd.labelling.local import Local
from mangakd.labelling.provider import Answer, Provider, Request
from mangakd.models.generation import Sampling
from mangakd.tasks.response.encode import COLUMNS, chats_of

Objects = list[dict[str, Any]]
PROMPTS: Objects = [
    {"prompt": "one?", "answer": "of somebody else"},
    {"prompt": "two?", "context": ["a passage", "another"], "system": "be kind"},
    {"messages": [{"role": "user", "content": ASK}, {"role": "assistant", "content": REPLY},
                  {"role": "user", "content": THANKS}, {"role": "assistant", "content": "old"}]},
    {"prompt": "four? \u2028 日本"},
]  # fmt: skip
OPTIONS = Options(Sampling())


class Echo(Provider):
    """Answers with the last message, two at a time. wrong: place of a request → its answer."""

    def __init__(self, model: str = "echo", wrong: Mapping[int, Answer] | None = None) -> None:
        self._model, self._wrong = model, wrong or {}
        self.asked: list[Request] = []

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"model": self._model}

    def answers(
        self, requests: Sequence[Request], sampling: Sampling, done: int, advance: Callable[[int], object]
    ) -> Iterator[Sequence[Answer]]:
        for start in range(done, len(requests), 2):
            part = requests[start : start + 2]
            self.asked += part
            yield [self._wrong.get(start + i, Answer(f"to {r.prompt[-1][1]}", "ended", 3)) for i, r in enumerate(part)]


@contextlib.contextmanager
def no_bar(title: str, total: int) -> Iterator[Callable[[int], object]]:
    yield lambda rows: None


def prompts(folder: Path, rows: Objects = PROMPTS, names: Mapping[str, str] | None = None) -> Rows:
    file = folder / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return read_prompts(str(file), names or {}, Answers())


def written(folder: Path, provider: Provider, options: Options = OPTIONS, rows: Objects = PROMPTS) -> Objects:
    out = folder / "out" / "answers.jsonl"
    label(prompts(folder, rows), provider, options, out, folder / "cache", no_bar)
    return [json.loads(line) for line in out.read_text().split("\n")[:-1]]


def test_answers_are_rows_of_the_task(tmp_path: Path) -> None:
    first, second, third, fourth = written(tmp_path, Echo())
    assert first["answer"] == "to one?" and fourth["prompt"] == PROMPTS[3]["prompt"]
    assert second["context"] == ["a passage", "another"] and second["system"] == "be kind"
    assert second["answer"] == "to a passage\n\nanother\n\ntwo?"
    assert third["messages"][:3] == PROMPTS[2]["messages"][:3]
    assert third["messages"][3:] == [{"role": "assistant", "content": f"to {THANKS}"}]
    assert first["written_by"]["model"] == "echo" and first["written_by"]["max_new_tokens"] == 256
    assert [row["row"] for row in (first, second, third, fourth)] == [1, 2, 3, 4]
    source = Files(path=str(tmp_path / "out" / "answers.jsonl"))
    source.needs, source.optional = COLUMNS, tuple(COLUMNS)
    chats = [*chats_of(source.read()["train"], "", "{context}\n\n{prompt}")]
    assert chats[1] == (
        ("system", "be kind"),
        ("user", "a passage\n\nanother\n\ntwo?"),
        ("assistant", second["answer"]),
    )


def test_a_manifest_says_what_made_the_answers(tmp_path: Path) -> None:
    rows, out = prompts(tmp_path), tmp_path / "out" / "answers.jsonl"
    wrong = {1: Answer("", "ended", 1)}
    data = tmp_path / "prompts.jsonl"
    label(rows, Echo(wrong=wrong), Options(Sampling(), seed=7), out, tmp_path / "cache", no_bar, data)
    manifest = read_manifest(out)
    assert manifest is not None
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (out, data)]
    assert manifest["out"] == {"path": "answers.jsonl", "sha256": digests[0], "rows": 3}
    assert manifest["data"] == {"path": str(data), "sha256": digests[1], "rows": 4}
    assert manifest["teacher"] == {"model": "echo"} and manifest["form"]["name"] == "answers"
    assert manifest["sampling"] == {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 256, "min_new_tokens": 0}
    assert (manifest["seed"], manifest["samples"], manifest["ledger"], manifest["template"]) == (7, 1, None, None)
    assert "mangakd" in manifest["versions"]
    manifest_path(out).write_text("[]")
    with pytest.raises(UserError, match="is no manifest that label wrote"):
        read_manifest(out)


def test_seeds_differ_by_prompt_and_sample_and_follow_the_seed(tmp_path: Path) -> None:
    def seeds(name: str, seed: int, rows: Objects = PROMPTS) -> list[int]:
        echo, folder = Echo(), tmp_path / name
        folder.mkdir()
        written(folder, echo, Options(Sampling(1.0), samples=2, seed=seed), rows)
        return [request.seed for request in echo.asked]

    first = seeds("a", 0)
    assert len(set(first)) == 8 and seeds("b", 0) == first and not set(seeds("c", 1)) & set(first)
    assert sorted(seeds("d", 0, PROMPTS[::-1])) == sorted(first)


def test_texts_that_teach_nothing_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = {0: Answer("half a sen", "cut", 9), 1: Answer("", "ended", 1), 3: Answer("", "too long", 0)}
    assert [row["row"] for row in written(tmp_path, Echo(wrong=wrong))] == [3]
    assert [re.search(r": 1 \((row \d)", line)[1] for line in caplog.messages] == ["row 1", "row 2", "row 4"]  # type: ignore[index]
    lines = (tmp_path / "out" / "answers.jsonl.unusable.jsonl").read_text().splitlines()
    assert [(row["row"], row["reason"], row["text"]) for row in map(json.loads, lines)] == [
        (1, "cut", "half a sen"), (2, "empty", ""), (4, "too long", ""),
    ]  # fmt: skip
    (tmp_path / "kept").mkdir()
    rows = written(tmp_path / "kept", Echo(wrong=wrong), Options(Sampling(), cut="keep"))
    assert [(row["row"], row["ended"]) for row in rows] == [(1, False), (3, True)]


@pytest.mark.parametrize("lines", range(5))
@pytest.mark.parametrize("half", ["", '{"prompt": "tw', "\x00"])
def test_a_file_is_completed(lines: int, half: str, tmp_path: Path) -> None:
    whole = written(tmp_path, Echo())
    out, echo = tmp_path / "out" / "answers.jsonl", Echo()
    content = out.read_text()
    out.write_text("".join(line + "\n" for line in content.split("\n")[:lines]) + half)
    assert written(tmp_path, echo) == whole and out.read_text() == content
    assert len(echo.asked) == 4 - lines


def test_more_prompts_may_be_appended(tmp_path: Path) -> None:
    written(tmp_path, Echo())
    assert len(written(tmp_path, Echo(), rows=[*PROMPTS, {"prompt": "five?"}])) == 5


@pytest.mark.parametrize(
    ("provider", "options", "rows", "words"),
    [
        (Echo("other"), OPTIONS, PROMPTS, "line 1 .* model='echo', and this run has 'other'"),
        (Echo(), Options(Sampling(max_new_tokens=9)), PROMPTS, "max_new_tokens='256', and this run has '9'"),
        (Echo(), Options(Sampling(), seed=1), PROMPTS, "seed='0', and this run has '1'"),
        (Echo(), OPTIONS, [*PROMPTS[:2], {"prompt": "x"}, *PROMPTS[3:]], "line 3 .* another prompt"),
        (Echo(), OPTIONS, PROMPTS[:3], "line 4 .* another prompt"),
    ],
)
def test_a_file_of_another_run_is_refused(
    provider: Provider, options: Options, rows: Objects, words: str, tmp_path: Path
) -> None:
    written(tmp_path, Echo())
    before = (tmp_path / "out" / "answers.jsonl").read_bytes()
    with pytest.raises(UserError, match=words):
        written(tmp_path, provider, options, rows)
    assert (tmp_path / "out" / "answers.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prompt": "one?"}\n', "line 1 of out=.* is no row that label wrote"),
        ("[]\n", "is no row"),
        ("\n", "is no row"),
        ('{"row": 1, "sample": [], "written_by": {}}\n', "is no row"),
        ("{0}{0}", "line 2 .* order"),
    ],
)
def test_other_files_are_refused(content: str, words: str, tmp_path: Path) -> None:
    written(tmp_path, Echo())
    out = tmp_path / "out" / "answers.jsonl"
    out.write_text(content.replace("{0}", out.read_text().split("\n")[0] + "\n"))
    with pytest.raises(UserError, match=words):
        written(tmp_path, Echo())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "a"}, {"prompt": " "}], "line 2 .* holds neither messages nor a prompt"),
        ([{"prompt": "a", "messages": [{"role": "user", "content": "b"}]}], "both messages and a prompt"),
        ([{"messages": [{"role": "system", "content": "b"}]}], "without a question"),
        ([{"question": "b"}], "no column 'prompt'"),
    ],
)
def test_rows_that_ask_nothing_are_refused(rows: Objects, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        written(tmp_path, Echo(), rows=rows)


def test_columns_of_other_names(tmp_path: Path) -> None:
    rows = prompts(tmp_path, [{"question": "a?", "passages": "b"}], {"prompt": "question", "context": "passages"})
    assert rows["prompt"] == ["a?"] and rows["context"] == [("b",)]


@pytest.mark.parametrize(
    ("options", "word"), [({"samples": 0}, "samples=0"), ({"samples": 2}, "temperature=0"), ({"cut": "x"}, "cut=x")]
)
def test_options_outside_their_range_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word):
        Options(Sampling(), **options)


def test_a_local_model_writes_what_its_prompt_and_seed_say(tmp_path: Path) -> None:
    """Whatever is done already, and however many tokens a batch has."""
    path = str(save_language_model(tmp_path / "model"))
    talks = [(("user", f"{ASK} {'book ' * i}"),) for i in range(12)]
    requests = [Request(talk, seed) for seed, talk in enumerate(talks)]
    sampling, done = Sampling(2.0, max_new_tokens=8), list[int]()
    local = Local(path=path, tokens=40)
    parts = [*local.answers(requests, sampling, 0, done.append)]
    whole = [answer for part in parts for answer in part]
    assert len(parts) > 2 and done == [len(part) for part in parts] and sum(done) == 12
    assert len({answer.text for answer in whole}) > 6 and {answer.reason for answer in whole} == {"cut"}
    for start in (1, 5, 12):
        assert [each for part in local.answers(requests, sampling, start, print) for each in part] == whole[start:]
    assert [each for part in Local(path=path).answers(requests, sampling, 0, print) for each in part] == whole


def test_a_prompt_that_leaves_no_room_has_no_answer(tmp_path: Path) -> None:
    path = str(save_language_model(tmp_path / "model", positions=40))
    system = ("system", "be kind " * 40)
    requests = [Request((system, ("user", "a")), 0), Request((("user", f"{ASK} " * 20),), 0)]
    ((none, some),) = Local(path=path).answers(requests, Sampling(max_new_tokens=8), 0, print)
    assert none == Answer("", "too long", 0) and some.tokens == 8
    with pytest.raises(UserError, match="max_new_tokens=40 leaves no room"):
        next(Local(path=path).answers(requests, Sampling(max_new_tokens=40), 0, print))


def test_what_wrote_an_answer_is_told_by_content(tmp_path: Path) -> None:
    one, other = (Local(path=str(save_language_model(tmp_path / f"{seed}", seed=seed))).identity for seed in (0, 1))
    again = Local(path=str(save_language_model(tmp_path / "again"))).identity
    assert {name for name in one if one[name] != other[name]} == {"model", "weights"}
    assert {name for name in one if one[name] != again[name]} == {"model"}
    thinking = Local(path=str(tmp_path / "0"), template={"enable_thinking": False}).identity
    assert {name for name in one if one[name] != thinking[name]} == {"template"}
