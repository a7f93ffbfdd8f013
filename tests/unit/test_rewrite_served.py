"""How `task=rewrite` judges the texts of a served student: what is asked, which scores decide, and by how many points."""

import numpy as np
import pytest
from rewrite_rows import rows

from mangakd.core.spec import Head
from mangakd.export.choose import choose, judge, measure_of
from mangakd.export.company import Company
from mangakd.export.measure import Measurement
from mangakd.tasks.rewrite.encode import targets, turns, utterances
from mangakd.tasks.rewrite.task import Rewrite

HEAD = Head("tokens", 9, source=True)


def measured(name: str, texts: list[str], ms: float = 1.0) -> Measurement:
    times = {0: {"p50": ms, "p95": ms, "p99": ms}}
    return Measurement(name, np.array(texts, dtype=object), 1.0, 1.0, 1.0, Company(1, 0.0, 0.0, None, True), times, ms)


def test_what_is_asked() -> None:
    data, task = rows(10), Rewrite(separator=" | ", max_target_length=20)
    served = task.served(data)
    assert served.texts == turns(data) and served.texts[1][-1] == utterances(data)[1]
    assert (served.turns.separator, served.max_new_tokens, served.name) == (" | ", 20, "exact_match")  # type: ignore[union-attr]
    assert served.turns.text(served.texts[1]) == " | ".join(served.texts[1])  # type: ignore[union-attr, arg-type]


def test_exact_match_of_later_turns_decides_and_recall_must_not_fall() -> None:
    """Of 20 rows 4 are first turns. A student that is right everywhere; a variant that is wrong in one later turn of 16 loses
    6.25 points; one that is wrong in a first turn loses none."""
    pytest.importorskip("bm25s")
    data, own = rows(20), [texts[0] for texts in targets(rows(20))]
    served = Rewrite().served(data)
    later, first = [*own], [*own]
    later[6], first[5] = "zebra", "zebra"
    given = [measured("same", own), measured("later", later), measured("first", first)]
    student = np.array(own, dtype=object)
    same, worse, unseen = judge(given, student, HEAD, None, None, 0.3, served=served)
    assert same.score.value == 1 and same.passed and same.agreement_student == 1
    assert (
        worse.drop.value == pytest.approx(100 / 16)
        and not worse.passed
        and worse.agreement_student == pytest.approx(0.95)
    )
    assert unseen.drop.value == 0 and unseen.passed and unseen.difference == pytest.approx(0.05)
    assert set(worse.further) == {"recall@10"} and worse.further["recall@10"].value == pytest.approx(100 / 16)
    assert measure_of(HEAD, served)[0] == "exact_match"
    assert (
        choose(
            [measured("later", later, 0.5), measured("fp32", own)], ["fp32"], student, HEAD, None, served=served
        ).name
        == "fp32"
    )


def test_a_variant_that_only_finds_less_fails() -> None:
    """Each text is wrong, so exact match cannot fall, but the search finds fewer answers."""
    pytest.importorskip("bm25s")
    data = rows(20)
    own = [f"{texts[0]} indeed" for texts in targets(data)]
    served = Rewrite().served(data)
    (one,) = judge(
        [measured("int8", ["zebra"] * 20)], np.array(own, dtype=object), HEAD, None, None, 0.3, served=served
    )
    assert one.drop.value == 0 and one.further["recall@10"].value > 50 and not one.passed
    assert "of recall@10" in one.words() and one.metrics()["further"]["recall@10"]["drop_points"] > 50


def test_without_answers_no_search_counts() -> None:
    data = rows(10, answer=[""] * 10)
    served = Rewrite().served(data)
    (one,) = judge(
        [measured("int8", ["zebra"] * 10)], np.array(["a"] * 10, dtype=object), HEAD, None, None, 0.3, served=served
    )
    assert not one.further and one.agreement_student == 0 and one.agreement_teacher is None
