"""Hard negatives: within the bound, the most similar first, never a positive's text, and the same again."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from contract.tiny_models import VECTOR, WORDS, tokenizer

from mangakd.core.errors import UserError
from mangakd.data.encoded import EncodedSplit
from mangakd.data.rows import Rows
from mangakd.data.source import Corpus
from mangakd.runs.texts import Tokeniser
from mangakd.tasks.embedding import mining
from mangakd.tasks.embedding.mining import Mining, mine
from mangakd.tasks.embedding.task import Embedding

N = 40
PROMPTS = {"student": {"query": "w99 "}, "teacher": {"query": "w98 "}}


def rows() -> Rows:
    """Row 1 repeats the anchor of row 0 with another positive; row 2's positive is that of row 0, in capitals and with blanks;
    row 3's anchor is also row 4's positive; row 5 has a negative; row 6 a text alone."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[:90], 5, replace=False)) for _ in range(2 * N)]
    anchors, positives, negatives = texts[:N], texts[N:], [()] * N
    anchors[1], positives[2], positives[4] = anchors[0], f" {positives[0].upper()}  ", anchors[3]
    negatives[5], positives[6] = (positives[7], "w1 w2"), ""
    columns = {
        "text": [""] * N,
        "anchor": anchors,
        "positive": positives,
        "negatives": negatives,
        "score": [np.nan] * N,
    }
    return Rows(columns, origin="data.path=a.jsonl")


class Case:
    def __init__(self, cache: Path) -> None:
        self.rows = rows()
        read = Tokeniser(tokenizer(), tokenizer(), 16, cache)
        self.split: EncodedSplit = Embedding(prompts=PROMPTS).encode(self.rows, VECTOR, read)
        self.asked = 0
        ids = [frozenset(self.split.teacher[i].tolist()) - {2, 3} for i in range(len(self.split.teacher))]
        words = np.random.default_rng(1).normal(size=(130, 12))
        self.vectors = np.stack([words[[*each]].sum(0) for each in ids])

    def answers(self, positions: np.ndarray) -> np.ndarray:
        self.asked += len(positions)
        return self.vectors[positions].astype("f4")

    def mine(self, **options: Any) -> np.ndarray:
        return mine(Mining(**options), self.rows, self.split, self.answers)

    def text(self, sequence: int) -> frozenset[int]:
        """Tokens without the prompt."""
        return frozenset(self.split.student[sequence].tolist()) - {2, 3, 103}

    def cosine(self, one: int, other: int) -> float:
        x, y = self.vectors[[one, other]]
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def expected(case: Case, share: float, margin: float) -> dict[int, list[frozenset[int]]]:
    """By brute force over all rows' second texts: each row's negatives, the most similar first."""
    first = case.split.first
    assert first is not None
    documents = {case.text(i): i for row in reversed(range(N)) for i in range(first[row + 1] - 1, first[row], -1)}
    of_anchor: dict[frozenset[int], set[frozenset[int]]] = {}
    paired = [row for row in range(N) if row != 6]
    for row in paired:
        of_anchor.setdefault(case.text(first[row]), set()).add(case.text(first[row] + 1))
    result = {}
    for row in paired:
        anchor, positive = first[row], first[row] + 1
        s = case.cosine(anchor, positive)
        bound = (share * s if s >= 0 else s / share) - margin
        banned = {case.text(i) for i in range(anchor, first[row + 1])} | of_anchor[case.text(anchor)]
        good = [(case.cosine(anchor, i), text) for text, i in documents.items() if text not in banned]
        result[row] = [text for cosine, text in sorted(good, key=lambda each: -each[0]) if cosine <= bound]
    return result


@pytest.mark.parametrize(("share", "margin"), [(0.95, 0.0), (1.0, 0.2), (0.5, 0.05)])
def test_negatives_equal_brute_force(case: Case, share: float, margin: float) -> None:
    reference = expected(case, share, margin)
    mined_rows = case.mine(count=4, share=share, margin=margin)
    assert mined_rows.shape == (N, 4) and (mined_rows[6] == -1).all()
    for row, texts in reference.items():
        assert [case.text(i) for i in mined_rows[row] if i >= 0] == texts[:4]
    assert case.asked < len(case.split.teacher), "equal texts are asked once"
    assert any(case.cosine(case.split.first[row], case.split.first[row] + 1) < 0 for row in reference), (
        "no row is below 0"
    )


def test_the_texts_of_positives_are_never_mined(case: Case) -> None:
    """All candidates, whatever their cosine: a bound of share=1 alone would let equal texts through."""
    mined_rows = case.mine(count=200, candidates=200, share=1.0, margin=0.0)
    first = case.split.first
    assert first is not None
    mined = {row: {case.text(i) for i in mined_rows[row] if i >= 0} for row in range(N)}
    own = {row: case.text(first[row] + 1) for row in range(N) if row != 6}
    assert not any(own[row] in mined[row] for row in own) and own[2] == own[0]
    assert not {own[0], own[1]} & (mined[0] | mined[1]), "another positive of the same anchor"
    assert case.text(first[3]) not in mined[3] and own[4] == case.text(first[3])
    assert not {own[7], frozenset((5, 6))} & mined[5]


def test_the_same_again_in_other_blocks(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"count": 3, "candidates": 10, "draw": "random"}
    one, again, other = case.mine(**options), case.mine(**options), case.mine(**options, seed=1)
    monkeypatch.setattr(mining, "_ROWS", 7)
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one, case.mine(**options))
    assert (one != other).any()
    hardest = case.mine(count=10, candidates=10)
    for row in range(N):
        assert set(one[row]) <= {*hardest[row], -1}


def test_rows_that_got_fewer_are_counted(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        mined_rows = case.mine(count=30, candidates=30, share=0.6)
    counts = np.delete((mined_rows >= 0).sum(1), 6)
    fewer, none = (counts < 30).sum(), (counts == 0).sum()
    words = f"39 rows with a positive; {fewer} rows got fewer than task.hard_negatives.count=30, {none} of them none"
    assert words in caplog.text and (counts == 0).any() and (counts == 30).any()


def test_an_extended_split_holds_them_after_the_rows_own(case: Case) -> None:
    more = case.mine(count=4)
    wide, first = case.split.extended(more), case.split.first
    assert first is not None and wide.first is not None and len(wide) == N
    for row in range(N):
        own = [*range(first[row], first[row + 1]), *more[row][more[row] >= 0]]
        for side in ("student", "teacher"):
            sequences = getattr(wide, side), getattr(case.split, side)
            for place, i in zip(range(wide.first[row], wide.first[row + 1]), own, strict=True):
                assert sequences[0][place].tolist() == sequences[1][i].tolist()
    batch, before = wide.collate([5, 0]), case.split.collate([5, 0])
    assert set(batch["key"].tolist()) >= set(before["key"].tolist()) and len(batch["key"]) == batch["first"][-1]
    assert batch["labels"].tolist() == before["labels"].tolist() == [1, 1]
    assert wide.units["sequences"].sum() == len(wide.student) == len(case.split.student) + (more >= 0).sum()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"count": -1}, r"task\.hard_negatives\.count=-1 must be a whole number from 0 on"),
    ({"count": 60}, r"task\.hard_negatives\.candidates=50 must be a whole number from 60 on"),
    ({"share": 1.2}, r"task\.hard_negatives\.share=1\.2 must lie in \(0, 1\]"),
    ({"margin": -0.1}, r"task\.hard_negatives\.margin=-0\.1 must lie in \[0, 2\)"),
    ({"draw": "hard"}, r"task\.hard_negatives\.draw='hard' is unknown; known: top, random"),
    ({"shares": 1}, r"task\.hard_negatives\.shares is unknown.*share"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_options_that_are_none_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Embedding(hard_negatives=options)


def test_texts_alone_have_nothing_to_mine() -> None:
    task = Embedding(hard_negatives={"count": 2})
    alone = Rows({"text": ["a", "b"], "anchor": ["", ""], "positive": ["", ""], "negatives": [(), ()],
                  "score": [np.nan] * 2}, origin="data.path=a.jsonl")  # fmt: skip
    pairs = Rows({**alone.columns, "text": ["", ""], "anchor": ["a", "b"], "positive": ["c", "d"], "score": [1.0, 0.0]})
    with pytest.raises(UserError, match=r"train has fewer than two \(data\.path=a\.jsonl\)"):
        task.prepare(Corpus("", alone, pairs, pairs, alone.take([])))
