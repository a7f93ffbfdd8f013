"""Late interaction: the score by hand, what it must not depend on, the inputs of a batch, and the head and its choice."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from contract.tiny_models import SCORE, WORDS, config, encoder, tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mangakd.core.errors import UserError
from mangakd.core.outputs import LENGTHS
from mangakd.core.requires import Need
from mangakd.core.spec import Head
from mangakd.data.apart import Apart, tokenise_apart
from mangakd.data.encoded import EncodedSplit, Sides, joined
from mangakd.models.encoder import Encoder
from mangakd.models.late import Interaction, Late, mark, of_config
from mangakd.models.pooling import Dense
from mangakd.models.token_head import OWNER, SCORED, TokenHead, max_sim
from mangakd.runs.texts import Tokeniser

X, Y, Z = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]
HALF = [math.sqrt(0.5), math.sqrt(0.5)]
LATE = Late(dims=6, query_prefix="w0", document_prefix="w1")
QUERIES, DOCUMENTS = ["w10 w11 w12", "w20"], ["w30 w31", "w40 w41 w42 w43 w44 w45", "w50"]
FIRST, SECOND = ["w10 w11 w12"] * 3 + ["w20"] * 2, [*DOCUMENTS, DOCUMENTS[1], DOCUMENTS[0]]


def score(query: list, document: list, of_query: list | None = None, of_document: list | None = None) -> float:
    masks = [torch.tensor([m or [1] * len(t)]) for t, m in ((query, of_query), (document, of_document))]
    return max_sim(torch.tensor([query]), torch.tensor([document]), *masks).item()


def test_the_score_by_hand() -> None:
    assert score([X, Y], [X, HALF]) == pytest.approx(1 + math.sqrt(0.5))
    assert score([X], [Y]) == 0.0
    assert score([HALF], [X]) == pytest.approx(math.sqrt(0.5)), "one token beside one"
    assert score([X, X], [Z]) == -2.0, "all similarities are negative"
    assert score([X], [Z, [0.0, 0.0]], of_document=[1, 0]) == -1.0, "padding would win with its 0"
    assert score([X], [Z, X], of_document=[1, 0]) == -1.0, "padding would win as a copy of the query"
    assert score([X, X], [X], of_query=[1, 0]) == 1.0, "padding of a query adds nothing"
    assert score([X, Y], [X], of_document=[0]) == -2.0, "no token: the least similarity for each token of the query"


def vectors(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, 5, generator=generator), dim=-1)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_score_does_not_depend_on(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, documents = vectors(generator, 4, 3), vectors(generator, 4, 6)
    of_query, of_document = torch.rand(4, 3, generator=generator) < 0.7, torch.rand(4, 6, generator=generator) < 0.7
    of_query[:, 0] = of_document[:, 0] = True
    expected = max_sim(queries, documents, of_query, of_document)
    rows, tokens = torch.randperm(4, generator=generator), torch.randperm(6, generator=generator)
    permuted = max_sim(queries[rows], documents[rows][:, tokens], of_query[rows], of_document[rows][:, tokens])
    torch.testing.assert_close(permuted, expected[rows])
    worse = documents.clone()
    worse[~of_document] = torch.nan
    more = torch.cat([worse, torch.full((4, 2, 5), torch.nan)], 1)
    padded = max_sim(queries, more, of_query, torch.cat([of_document, torch.zeros(4, 2, dtype=torch.bool)], 1))
    torch.testing.assert_close(padded, expected)
    alone = [
        max_sim(queries[i : i + 1], documents[i : i + 1], of_query[i : i + 1], of_document[i : i + 1]) for i in range(4)
    ]
    torch.testing.assert_close(torch.cat(alone), expected)
    for i in range(4):  # by the definition
        q, d = queries[i][of_query[i]], documents[i][of_document[i]]
        assert expected[i].item() == pytest.approx(sum(max(float(a @ b) for b in d) for a in q), abs=1e-5)


def test_padding_has_no_gradient() -> None:
    queries, documents = (
        vectors(torch.Generator().manual_seed(0), 1, 2),
        vectors(torch.Generator().manual_seed(1), 1, 3),
    )
    queries.requires_grad_(), documents.requires_grad_()
    max_sim(queries, documents, torch.tensor([[1, 0]]), torch.tensor([[1, 1, 0]])).sum().backward()
    assert queries.grad is not None and documents.grad is not None
    assert not queries.grad[0, 1].any() and not documents.grad[0, 2].any()
    assert queries.grad.isfinite().all() and documents.grad.isfinite().all() and documents.grad.any()
    documents.grad = None
    max_sim(queries, documents, torch.tensor([[1, 1]]), torch.tensor([[0, 0, 0]])).sum().backward()
    assert documents.grad is not None and not documents.grad.any()


def test_the_head_makes_vectors_of_length_one_and_zero_in_padding() -> None:
    head = TokenHead(LATE, Dense(3, 6, bias=False, activation="Identity"))
    states = torch.randn(2, 4, 3)
    states[1, 2:] = torch.nan
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    answer = head(states, mask)
    torch.testing.assert_close(answer.norm(dim=-1), mask.float())
    answer.sum().backward()
    assert head.linear.weight.grad is not None and head.linear.weight.grad.isfinite().all()


# --- what a batch holds ----------------------------------------------------------------------------------------------


def marked(*words: str) -> PreTrainedTokenizerFast:
    made = tokenizer([*WORDS[: -1 - len(words)], *words, "[MASK]"])
    made.mask_token = "[MASK]"
    return made


def apart(
    cache: Path, late: Late = LATE, first: list[str] = FIRST, second: list[str] = SECOND, length: int = 16
) -> Apart:
    return tokenise_apart(first, second, marked("."), late, length, cache, where="row {}".format)


def ids(made: PreTrainedTokenizerFast, *words: str) -> list[int]:
    return [made.get_vocab()[word] for word in words]


def test_each_side_has_its_own_special_tokens(tmp_path: Path) -> None:
    batch, made = apart(tmp_path).inputs(np.arange(5), 0), marked(".")
    assert batch["query_input_ids"].shape == (2, 6), "each query once, whatever the number of its documents"
    assert batch["input_ids"].shape == (5, 9) and batch[OWNER].tolist() == [[0]] * 3 + [[1]] * 2
    assert batch["query_input_ids"][0].tolist() == ids(made, "[CLS]", "w0", "w10", "w11", "w12", "[SEP]")
    assert batch["input_ids"][0].tolist() == [*ids(made, "[CLS]", "w1", "w30", "w31", "[SEP]"), 0, 0, 0, 0]
    assert batch["query_attention_mask"][1].tolist() == [1] * 4 + [0] * 2
    for name in ("", "query_"):
        np.testing.assert_array_equal(batch[f"{name}{SCORED}"], batch[f"{name}attention_mask"])
    assert apart(tmp_path)[0].tolist() == batch["query_input_ids"][0].tolist() + batch["input_ids"][0][:5].tolist()
    bare = apart(tmp_path, Late()).inputs(np.array([4]), 0)
    assert bare["query_input_ids"].tolist() == [ids(made, "[CLS]", "w20", "[SEP]")]


def test_a_document_is_truncated_by_itself_and_a_query_never(tmp_path: Path) -> None:
    pairs = apart(tmp_path, length=6)
    batch, made = pairs.inputs(np.arange(5), 0), marked(".")
    assert batch["input_ids"][1].tolist() == ids(made, "[CLS]", "w1", "w40", "w41", "w42", "[SEP]")
    assert batch["input_ids"][3].tolist() == batch["input_ids"][1].tolist(), "whatever the length of its query"
    with pytest.raises(
        UserError, match=r"row 0.*'w10 w11 w12' has 3 tokens or more, special tokens take 3, and data\.max_length=5"
    ):
        apart(tmp_path, length=5)
    with pytest.raises(UserError, match=r"row 1.*is never truncated"):
        apart(tmp_path, first=["w1", "w2 " * 99], second=["w3", "w4"])


def test_keys_follow_what_is_read(tmp_path: Path) -> None:
    keys = apart(tmp_path).keys
    assert len(set(keys)) == 5 and (apart(tmp_path, first=FIRST[1:], second=SECOND[1:]).keys == keys[1:]).all()
    others = [Late(), Late(6, "w0", "w2"), Late(6, "w0", "w1", skip=(".",)), Late(6, "w0", "w1", query_length=9)]
    assert not any(set(apart(tmp_path, late).keys) & set(keys) for late in others)
    assert (apart(tmp_path, first=SECOND, second=FIRST).keys != keys).all(), "which of them is the query"
    assert not set(apart(tmp_path, length=6).keys[[1, 3]]) & set(keys), "another truncation"


def test_short_queries_get_mask_tokens_and_skipped_tokens_do_not_count(tmp_path: Path) -> None:
    mask = marked(".").mask_token_id
    late = Late(6, query_length=4, skip=(".", "not in the vocabulary"))
    pairs = apart(tmp_path, late, ["w1 w2 w3", "w4"], ["w5 . w6", "w7"])
    batch = pairs.inputs(np.arange(2), 0)
    assert batch["query_input_ids"][1, :4].tolist()[2:] == [marked(".").sep_token_id, mask]
    assert batch["query_attention_mask"].tolist() == [[1] * 5, [1, 1, 1, 0, 0]]
    assert batch["query_scored"].tolist() == [[1] * 5, [1, 1, 1, 1, 0]], "a longer query stays whole"
    assert batch[SCORED].tolist() == [[1, 1, 0, 1, 1], [1, 1, 1, 0, 0]]
    alone = pairs.inputs(np.array([1]), 0)
    assert alone["query_input_ids"].shape == (1, 4) and alone["query_input_ids"][0, 3] == mask
    seen = apart(tmp_path, Late(6, query_length=6, attend=True), ["w4"], ["w7"]).inputs(np.arange(1), 0)
    assert seen["query_attention_mask"].tolist() == seen["query_scored"].tolist() == [[1] * 6]
    with pytest.raises(UserError, match=r"adds mask tokens, and the tokenizer .* has none"):
        tokenise_apart(["w1"], ["w2"], tokenizer(), late, 16, tmp_path)
    with pytest.raises(UserError, match=r"the prefix '\[Q\] ' of late interaction is no token"):
        apart(tmp_path, Late(6, query_prefix="[Q] "))


def test_the_pairs_of_two_splits(tmp_path: Path) -> None:
    one, two = apart(tmp_path), apart(tmp_path, first=["w60"], second=["w61 w62"])
    both = joined([EncodedSplit(Sides(part, part, 0, 0), {}) for part in (one, two)]).student
    assert isinstance(both, Apart) and len(both) == 6
    np.testing.assert_array_equal(both.keys, np.concatenate([one.keys, two.keys]))
    batch = both.inputs(np.array([5, 0]), 0)
    assert batch["input_ids"][0, :4].tolist() == two.inputs(np.array([0]), 0)["input_ids"][0, :4].tolist()
    assert batch["query_input_ids"][batch[OWNER][0, 0], :3].tolist() == two[0][:3].tolist()


def test_a_cross_encoder_beside_late_interaction_reads_pairs(tmp_path: Path) -> None:
    def sides(student: Late | None, teacher: Late | None) -> Sides:
        return Tokeniser(marked(), marked(), 16, tmp_path, student, teacher).pairs(FIRST, SECOND)

    mixed = sides(LATE, None)
    assert isinstance(mixed.student, Apart) and not isinstance(mixed.teacher, Apart) and not mixed.shared
    assert sides(LATE, LATE).shared and not sides(LATE, Late()).shared and sides(None, None).shared


# --- the encoder -----------------------------------------------------------------------------------------------------


def late_encoder(kind: str = "bert", late: Late = LATE, seed: int = 0) -> Encoder:
    return encoder(mark(config(kind), late), Head("score", 1), seed)


def tensors(pairs: Apart, positions: list[int]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(each) for name, each in pairs.inputs(np.array(positions), 0).items()}


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "modernbert"])
def test_a_score_does_not_depend_on_its_batch(kind: str, tmp_path: Path) -> None:
    made, pairs = late_encoder(kind), apart(tmp_path)
    outputs = made(tensors(pairs, [0, 1, 2, 3, 4]))
    assert outputs.logits is not None and outputs.logits.shape == (5, 1) and outputs.vector is None
    assert outputs.logits.std() > 0.01
    for chosen in ([3], [4, 0], [2, 1, 3]):
        torch.testing.assert_close(made(tensors(pairs, chosen)).logits, outputs.logits[chosen], rtol=1e-4, atol=1e-5)


def test_queries_and_documents_are_encoded_apart(tmp_path: Path) -> None:
    """By the definition, from the model's own states."""
    made, pairs, reader = late_encoder(), apart(tmp_path), marked(".")
    head = made.pooling
    assert isinstance(head, TokenHead)

    def tokens(*words: str) -> Tensor:
        row = torch.tensor([ids(reader, *words)])
        states = made.model(input_ids=row, attention_mask=torch.ones_like(row)).last_hidden_state[0]
        return torch.nn.functional.normalize(states @ head.linear.weight.T, dim=-1)

    query, document = tokens("[CLS]", "w0", "w20", "[SEP]"), tokens("[CLS]", "w1", "w30", "w31", "[SEP]")
    expected = (query @ document.T).max(1).values.sum()
    torch.testing.assert_close(made(tensors(pairs, [4])).logits, expected.view(1, 1), rtol=1e-4, atol=1e-5)


def test_each_query_is_encoded_once(tmp_path: Path) -> None:
    documents = [f"w{i} " * (40 if i % 2 else 2) for i in range(20)]
    made, pairs = late_encoder(), apart(tmp_path, first=["w50 w51"] * 10 + ["w52"] * 10, second=documents, length=48)
    shapes: list[tuple[int, ...]] = []
    made.model.register_forward_hook(
        lambda _, __, kwargs, ___: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    inputs = tensors(pairs, [*range(20)])
    whole = made(inputs).logits
    assert shapes == [(2, 5), (20, 43)]
    shapes.clear()
    parts = made({**inputs, LENGTHS: torch.from_numpy(pairs.lengths)}).logits
    assert shapes[0] == (2, 5) and sorted(shapes[1:]) == [(10, 5), (10, 43)], (
        "documents in parts of similar length, queries once"
    )
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_hidden_states_are_those_of_documents(tmp_path: Path) -> None:
    made, inputs = late_encoder(), tensors(apart(tmp_path), [0, 1, 2, 3, 4])
    plain = made(inputs).logits
    tapped = made.require(Need(True, frozenset({1, 3}), frozenset({2})))(inputs)
    assert tapped.hidden[1].shape == (5, 9, 16) and tapped.attention[2].query is not None
    assert tapped.attention[2].query.shape[0] == 5
    torch.testing.assert_close(tapped.logits, plain)


def test_inputs_of_a_cross_encoder_are_no_inputs(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        late_encoder()(
            {name: value for name, value in tensors(apart(tmp_path), [0]).items() if not name.startswith("query")}
        )


# --- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("lat", r"student\.interaction=lat must be null, cross, late"),
        (["late"], "must be null"),
        ({"dim": 8}, r"student\.interaction\.dim is unknown; did you mean dims"),
        ({"dims": "8"}, r"student\.interaction: dims='8' must be of type int"),
        ({"dims": 0}, r"dims=0 must be 1 or more"),
        ({"query_length": -1}, r"query_length=-1 0 or more"),
        ({"attend": 1}, "attend=1 must be of type bool"),
        ({"skip": "."}, r"skip='\.' must be of type tuple"),
    ],
)
def test_choices_that_are_none(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Interaction.of(value, "student.interaction")


def test_a_choice_replaces_what_the_folder_says() -> None:
    def after(value: object, before: Late | None) -> Late | None:
        return of_config(Interaction.of(value, "key").mark(mark(config("bert"), before)))

    assert after(None, None) is None and after(None, LATE) == LATE
    assert after("cross", LATE) is None and after("late", None) == Late() and after("late", LATE) == LATE
    assert after({"dims": 9, "skip": ["."]}, LATE) == Late(9, "w0", "w1", skip=(".",))
    assert not hasattr(mark(mark(config("bert"), LATE), None), "late_interaction"), "no config.json gets an entry of it"
    assert of_config(encoder(config("bert"), SCORE).model.config) is None
