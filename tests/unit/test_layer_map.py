"""Layer maps for any two depths; a map that does not fit is refused with both depths in the message."""

import pytest

from mangakd.core.errors import UserError
from mangakd.core.layer_map import resolve


@pytest.mark.parametrize(
    ("name", "student", "teacher", "pairs"),
    [
        ("uniform", 4, 12, ((0, 0), (1, 3), (2, 6), (3, 9), (4, 12))),
        ("uniform", 4, 6, ((0, 0), (1, 2), (2, 3), (3, 5), (4, 6))),  # 6 → 4; TinyBERT's script asserts divisibility
        ("uniform", 6, 4, ((0, 0), (1, 1), (2, 1), (3, 2), (4, 3), (5, 3), (6, 4))),  # a deeper student
        ("uniform", 3, 3, ((0, 0), (1, 1), (2, 2), (3, 3))),
        ("skip_embedding", 4, 6, ((1, 2), (2, 3), (3, 5), (4, 6))),
        ("skip_embedding", 6, 2, ((2, 1), (3, 1), (4, 1), (5, 2), (6, 2))),  # 1 would go to the teacher's embedding
        ("last", 4, 6, ((1, 3), (2, 4), (3, 5), (4, 6))),
        ("top", 4, 6, ((4, 6),)),
    ],
)
def test_named(name: str, student: int, teacher: int, pairs: tuple) -> None:
    assert resolve(name, student, teacher) == pairs


@pytest.mark.parametrize("name", ["uniform", "skip_embedding", "top", "last"])
def test_named_maps_fit_all_depths(name: str) -> None:
    for student in range(1, 13):
        for teacher in range(student if name == "last" else 1, 25):
            for lowest in (0, 1):
                pairs = resolve(name, student, teacher, lowest=lowest)
                assert pairs and pairs[-1] == (student, teacher)
                assert all(lowest <= s <= student and lowest <= t <= teacher for s, t in pairs)
                assert list(pairs) == sorted(pairs, key=lambda pair: (pair[1], pair[0])), "order is kept"


def test_attention_has_no_embedding_layer() -> None:
    assert resolve("uniform", 2, 4, lowest=1) == ((1, 2), (2, 4))


def test_explicit() -> None:
    assert resolve({1: 2, 4: 6}, 4, 6) == resolve([[1, 2], (4, 6)], 4, 6) == ((1, 2), (4, 6))
    assert resolve([[1, 2], [1, 3]], 4, 6) == ((1, 2), (1, 3))  # one student layer may learn from two


@pytest.mark.parametrize(
    ("layer_map", "words"),
    [
        ({1: 1, 2: 3, 3: 5, 4: 7}, ("[(4, 7)]", "0…4", "0…6")),  # the published map with one added to each
        ([[5, 1]], ("[(5, 1)]", "0…4", "0…6")),
        ([[-1, 1]], ("[(-1, 1)]",)),
        ([], ("is empty",)),
        ([[1, 2, 3]], ("[1, 2, 3]", "pairs")),
        ([1, 2], ("found 1", "pairs")),
        ([["a", "b"]], ("['a', 'b']", "pairs")),
        ([[1, 2], [1, 2]], ("twice",)),
        ("unifrom", ("did you mean uniform",)),
        ("last", ("at least as deep", "0…4", "0…3")),
    ],
)
def test_refused_in_words(layer_map: object, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        resolve(layer_map, 4, 3 if layer_map == "last" else 6, key="losses.hidden.layer_map")
    assert [word for word in ("losses.hidden.layer_map", *words) if word not in str(error.value)] == [], str(
        error.value
    )
