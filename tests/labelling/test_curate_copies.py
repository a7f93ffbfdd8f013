"""Near duplicates and overlap with evaluation sets, on planted copies: what is found, and at what similarity."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO

from mangakd.core.errors import UserError
from mangakd.labelling.curate.filters import signatures
from mangakd.labelling.curate.filters.near_duplicates import NearDuplicates
from mangakd.labelling.curate.filters.overlap import Overlap, tokens_of
from mangakd.labelling.curate.filters.signatures import FILE, Signatures
from mangakd.labelling.curate.record import Record

sys.path.insert(0, str(REPO / "benchmarks"))
import curate as benchmark
from curate_texts import overlaps


def record(number: int, answer: str, prompt: str = "", rest: str = "") -> Record:
    return Record(number, {}, prompt, answer, rest)


TEXT = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
WORDS = TEXT.split()


def test_near_copies_by_their_true_similarity() -> None:
    """The measured table of the benchmark, with 40 copies of each kind."""
    table = benchmark.near_table(40)
    assert table.pop("rows without a copy") == [0, 120]
    shares = {band: hits / every for band, (hits, every) in table.items()}
    assert shares["similarity 0.90 to 1.00"] == 1.0
    assert shares["similarity 0.85 to 0.90"] >= 0.95
    assert shares["similarity 0.80 to 0.85"] >= 0.65
    assert shares["similarity 0.75 to 0.80"] <= 0.35
    assert shares["similarity 0.70 to 0.75"] <= 0.05
    assert shares["similarity 0.00 to 0.70"] == 0.0


def test_the_estimate_is_near_the_similarity_of_the_shingles() -> None:
    """17 words without the last 3 have 14 − 2 of 15 shingles of three words: J = 12 / 15."""
    near = NearDuplicates(shingles="words", size=3, permutations=1024, threshold=0.7)
    assert near.reason(record(4, TEXT)) is None
    reason = near.reason(record(9, " ".join(WORDS[:-3])))
    assert reason is not None and reason.endswith(" of row 4")
    assert abs(float(reason.split()[0]) - 0.8) < 0.05  # four standard errors


def test_the_nearest_earlier_row_decides() -> None:
    """Row 2 shares all but a word with row 1; row 3 is row 2."""
    other = " ".join(["zero", *WORDS[1:]])
    near = NearDuplicates(threshold=0.95)
    assert [near.reason(record(i, text)) for i, text in enumerate((TEXT, other), 1)] == [None, None]
    near.threshold = 0.5
    assert near.reason(record(3, other)) == "1.00 of row 2"


@pytest.mark.parametrize(("threshold", "permutations"), [(1.0, 128), (0.99, 64), (0.8, 1)])
def test_a_threshold_that_leaves_no_two_bands_is_refused(threshold: float, permutations: int) -> None:
    message = rf"filters.near_duplicates.threshold={threshold:g} is too near to 1 for {permutations} permutations"
    with pytest.raises(UserError, match=message):
        NearDuplicates(threshold=threshold, permutations=permutations)
    NearDuplicates(threshold=0.95, permutations=4 * max(permutations, 32))  # what the message proposes


def test_equal_texts_under_other_labels_are_no_copies() -> None:
    near = NearDuplicates()
    assert [near.reason(record(i, TEXT, rest=rest)) for i, rest in enumerate(("a", "b"))] == [None, None]
    assert near.reason(record(2, TEXT, rest="a")) == "1.00 of row 0"


def test_a_text_without_a_shingle_is_no_copy() -> None:
    near = NearDuplicates()
    assert [near.reason(record(i, "yes")) for i in range(2)] == [None, None]


def kept(folder: Path, *texts: str) -> NearDuplicates:
    near = NearDuplicates(keep=True)
    for i, text in enumerate(texts, 1):
        assert near.reason(record(i, text)) is None
    folder.mkdir(exist_ok=True)
    (folder / FILE).write_bytes(near.signatures().content())
    return near


def test_rows_of_an_earlier_folder_count(tmp_path: Path) -> None:
    kept(tmp_path / "march", TEXT)
    april = NearDuplicates(against=[str(tmp_path / "march")])
    assert april.reason(record(1, TEXT + "!")) == f"1.00 of row 1 of {tmp_path / 'march'}"
    assert april.reason(record(2, " ".join(reversed(WORDS)))) is None
    assert april.signatures().rows == ["row 2"], "march's own rows are march's"
    assert np.array_equal(
        april.signatures().values, kept(tmp_path / "own", " ".join(reversed(WORDS))).signatures().values
    )


def test_the_file_of_signatures_has_equal_bytes(tmp_path: Path) -> None:
    contents = [kept(tmp_path / name, TEXT, "another text altogether").signatures().content() for name in "ab"]
    assert contents[0] == contents[1]


def test_signatures_of_another_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(signatures, "version", lambda name: "1.6.5")
        kept(tmp_path / "old", TEXT)
    with pytest.raises(UserError, match=r"was written with datasketch 1\.6\.5, and .* is installed"):
        NearDuplicates(against=[str(tmp_path / "old")])


def test_signatures_of_another_form_are_refused(tmp_path: Path) -> None:
    kept(tmp_path / "old", TEXT)
    with pytest.raises(UserError, match=r"was written with size=5, and this command has 4"):
        NearDuplicates(size=4, against=[str(tmp_path / "old")])
    with pytest.raises(
        UserError, match=r"holds no near_duplicates.npz: curate it with filters.near_duplicates.keep=true"
    ):
        NearDuplicates(against=[str(tmp_path)])
    assert Signatures.read(tmp_path / "old", {}, "key").values.dtype == np.uint32


@pytest.mark.parametrize("option", ["threshold=0", "threshold=1.5", "size=0", "permutations=0"])
def test_options_of_near_duplicates(option: str) -> None:
    name, value = option.split("=")
    with pytest.raises(UserError, match=f"filters.near_duplicates.{option}"):
        NearDuplicates(**{name: float(value) if "." in value else int(value)})


def evaluation(folder: Path, *rows: dict[str, str]) -> Overlap:
    file = folder / "tests.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Overlap(evaluation=[str(file)])


def test_planted_overlap_is_found_and_named(tmp_path: Path) -> None:
    tests, cases = overlaps(40)
    overlap = evaluation(tmp_path, *tests)
    wrong = [
        case.group
        for i, case in enumerate(cases)
        if (overlap.reason(Record(i, {}, case.row["prompt"], case.row["answer"])) is not None) is not case.copy
    ]
    assert len(cases) == 480 and wrong == []


def test_a_run_of_13_words_and_none_of_12(tmp_path: Path) -> None:
    overlap = evaluation(tmp_path, {"prompt": "a question", "answer": "x"}, {"prompt": TEXT, "answer": "y"})
    assert overlap.reason(record(1, f"before {' '.join(WORDS[2:14])} after")) is None
    run = " ".join(WORDS[2:15])
    assert overlap.reason(record(1, f"before {run.upper()}, after")) == f"line 2 of tests.jsonl: {run[:80]}"


def test_short_texts_of_a_test_set(tmp_path: Path) -> None:
    """Ten words are looked for within texts; three must be the whole prompt; short answers never count."""
    ten = " ".join(WORDS[:10])
    overlap = evaluation(tmp_path, {"prompt": ten, "answer": "Yes."}, {"prompt": "where is it", "answer": "No."})
    assert overlap.reason(record(1, f"well, {ten} then")) == f"line 1 of tests.jsonl: {ten}"
    assert overlap.reason(record(1, "On its way.", "Where is it?")) == "equal to line 2 of tests.jsonl"
    assert overlap.reason(record(1, "Yes.", "Tell me, where is it now?")) is None


def test_japanese_runs_have_26_characters(tmp_path: Path) -> None:
    text = "東京の書店で新しい漫画を三冊買って帰りの電車の中で全部読み終えてしまいました"
    overlap = evaluation(tmp_path, {"prompt": text, "answer": "はい"})
    assert overlap.reason(record(1, f"昨日、{text[3:28]}。")) is None
    assert overlap.reason(record(1, f"昨日、{text[3:29]}。")) == f"line 1 of tests.jsonl: {text[3:29]}"


def test_tokens() -> None:
    assert tokens_of("Ｏｎｅ-Piece 第3巻!") == ["one", "piece", "第", "3", "巻"]


def test_an_evaluation_set_that_no_task_reads(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"filters.overlap.evaluation=.*has the columns a, and no task reads them"):
        evaluation(tmp_path, {"a": "b"})
    with pytest.raises(UserError, match=r"filters.overlap.shortest=20 is above filters.overlap.words=13"):
        Overlap(shortest=20)
