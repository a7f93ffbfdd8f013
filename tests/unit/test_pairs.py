"""Pairs of texts are what the tokenizer makes of them: ids, types and truncation of every family, each text tokenised once."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from contract.tiny_models import WORDS
from contract.tiny_models import tokenizer as words_tokenizer
from tokenizers.processors import BertProcessing, TemplateProcessing

from mangakd.core.errors import UserError
from mangakd.core.outputs import LENGTHS
from mangakd.data import tokenising
from mangakd.data.encoded import EncodedSplit, joined
from mangakd.data.pairs import Pairs, tokenise_pairs
from mangakd.runs.texts import Tokeniser
from mangakd.runtime.tokenise import read_as_text

MOST = 32
CORPUS = [f"where is my order number {i}, the {thing} is late" for i, thing in enumerate(["teapot", "lamp", "coat"])]
QUERIES = ["where is my lamp", "", "the order", "late [SEP] </s> <s>", "é 東京 🎌"]
DOCUMENTS = [
    "the coat is late",
    "my lamp " * 30,
    " ",
    "a",
    "[CLS] order [SEP] number",
    "the teapot \ud83d",
    "is my order " * 6,
]
FIRST, SECOND = [q for q in QUERIES for _ in DOCUMENTS], DOCUMENTS * len(QUERIES)


def of(name: str) -> Any:
    """A tokenizer class of transformers, trained on CORPUS."""
    return getattr(transformers, name)().train_new_from_iterator(CORPUS * 3, 400, show_progress=False)


def framed(made: Any, processor: Any, names: list[str] | None = None) -> Any:
    made.backend_tokenizer.post_processor = processor
    made.model_input_names = names or made.model_input_names
    return made


def of_llama() -> Any:
    made = of("LlamaTokenizer")
    marks = [("<s>", made.bos_token_id)]
    return framed(made, TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", special_tokens=marks))


def of_modernbert() -> Any:
    """Its template has types, its model reads none."""
    made = of("DebertaTokenizer")
    marks = [("[CLS]", made.cls_token_id), ("[SEP]", made.sep_token_id)]
    template = TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=marks)
    return framed(made, template, ["input_ids", "attention_mask"])


def of_old_bert() -> Any:
    made = of("BertTokenizer")
    return framed(made, BertProcessing(("[SEP]", made.sep_token_id), ("[CLS]", made.cls_token_id)))


def reversed_pair() -> Any:
    made = words_tokenizer([*WORDS, "lamp", "my"])
    marks = [("[CLS]", 2), ("[SEP]", 3)]
    return framed(made, TemplateProcessing("$A:0 [SEP]:0", "$B:2 [SEP]:2 [SEP]:1 $A:0 [CLS]:1", special_tokens=marks))


READERS: dict[str, Callable[[], Any]] = {
    **{f"{n.lower()}": lambda n=n: of(f"{n}Tokenizer") for n in ("Bert", "Roberta", "XLMRoberta", "Deberta", "DebertaV2")},
    **{f"{n.lower()}": lambda n=n: of(f"{n}Tokenizer") for n in ("MPNet", "XLNet", "T5", "GPT2")},
    "llama": of_llama, "modernbert": of_modernbert, "bert with BertProcessing": of_old_bert, "second first": reversed_pair,
    "words without [UNK]": lambda: words_tokenizer(["lamp", "my", *WORDS], closed=False),
}  # fmt: skip


@pytest.fixture(scope="module", params=READERS)
def reader(request: pytest.FixtureRequest) -> Any:
    made = READERS[request.param]()
    made.split_special_tokens = True  # as models.load does it
    read_as_text(made.backend_tokenizer)
    return made


def whole(texts: list[str]) -> list[str]:
    return [text.replace("\ud83d", "\ufffd") for text in texts]


def read(made: Pairs, positions: list[int]) -> list[dict[str, list[int]]]:
    inputs = made.inputs(np.array(positions), 7)
    rows = []
    for i, mask in enumerate(inputs["attention_mask"].astype(bool)):
        rows.append({name: values[i][mask].tolist() for name, values in inputs.items()})
        padding = {name: {*values[i][~mask].tolist()} for name, values in inputs.items()}
        assert all(found <= {7 if name == "input_ids" else 0} for name, found in padding.items())
    return rows


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_pair_is_read_as_the_tokenizer_reads_it(reader: Any, side: str, tmp_path: Path) -> None:
    reader.truncation_side = side
    made = tokenise_pairs(FIRST, SECOND, reader, MOST, tmp_path)
    wanted = reader(whole(FIRST), whole(SECOND), truncation="only_second", max_length=MOST, return_token_type_ids=True)
    rows = read(made, list(range(len(FIRST))))
    assert [row["input_ids"] for row in rows] == wanted["input_ids"] == [made[i].tolist() for i in range(len(FIRST))]
    if "token_type_ids" in reader.model_input_names:
        zeros = [[0] * len(ids) for ids in wanted["input_ids"]]
        assert [row.get("token_type_ids", zero) for row, zero in zip(rows, zeros, strict=True)] == wanted[
            "token_type_ids"
        ]
    else:
        assert "token_type_ids" not in rows[0]
    assert made.lengths.tolist() == [len(ids) for ids in wanted["input_ids"]] and max(made.lengths) == MOST
    chosen = [9, 3, 30]
    assert read(made, chosen) == [rows[i] for i in chosen], "in any order, padded to these alone"


def bert() -> Any:
    return words_tokenizer([*WORDS, "lamp", "my"])


def test_each_text_is_tokenised_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    chunks = tokenising._chunks
    monkeypatch.setattr(tokenising, "_chunks", lambda texts: chunks(seen.extend(texts) or texts))  # type: ignore[func-returns-value]
    made = tokenise_pairs(FIRST, SECOND, bert(), MOST, tmp_path)
    assert len(made) == 35 and len(made.texts) == len({*FIRST, *SECOND})
    assert {seen.count(text) for text in {*FIRST, *SECOND}} == {2}, "once for the name of the file, once for the tokens"
    again = tokenise_pairs(FIRST, SECOND, bert(), MOST, tmp_path)
    assert read(again, [0, 34]) == read(made, [0, 34]) and len(list(tmp_path.glob("*.arrow"))) == 1
    assert isinstance(made.texts.ids, np.ndarray) and not made.texts.ids.flags.owndata, "a view of the mapped file"


def test_equal_pairs_have_equal_keys_and_no_others(tmp_path: Path) -> None:
    first, second = ["my", "lamp", "my", "w1", "my lamp"], ["lamp", "my", "lamp", "w2 w3 w4 " * 12, "lamp"]
    keys = tokenise_pairs(first, second, bert(), MOST, tmp_path).keys
    assert keys.dtype == np.int64 and keys[0] == keys[2] and len(set(keys.tolist())) == 4, "order matters"
    assert tokenise_pairs(["other", *first], ["w9", *second], bert(), MOST, tmp_path).keys[1:].tolist() == keys.tolist()
    shorter = tokenise_pairs(first, second, bert(), MOST - 1, tmp_path).keys
    assert (shorter == keys).tolist() == [True, True, True, False, True], "of what was truncated elsewhere"
    others = [reversed_pair(), words_tokenizer(["my", "lamp", *WORDS])]
    for other in others:
        assert not {*tokenise_pairs(first, second, other, MOST, tmp_path).keys.tolist()} & {*keys.tolist()}
    many = tokenise_pairs([w for w in WORDS for _ in WORDS], WORDS * len(WORDS), bert(), MOST, tmp_path).keys
    assert len(np.unique(many)) == len(WORDS) ** 2
    halves = [np.unpackbits(many.view(np.uint8)).mean(), np.unpackbits((many[1:] ^ many[:-1]).view(np.uint8)).mean()]
    assert halves == pytest.approx([0.5, 0.5], abs=0.01), "all bits are used"


def test_a_key_that_is_in_the_stores(tmp_path: Path) -> None:
    """Stores keep keys for years: this one must not change with Python, numpy or the machine."""
    assert tokenise_pairs(
        ["my lamp"], ["w1 w2"], words_tokenizer(["my", "lamp", "w1", "w2"]), MOST, tmp_path
    ).keys.tolist() == [KEY]


KEY = 8008633777631149906


def test_a_query_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    first = ["my", "my lamp", "w1 " * 13, "w1 " * 14, "w2 " * 40]
    places = "line {} of data.path=a.jsonl".format
    with pytest.raises(UserError, match=r"line 3 of data\.path=a\.jsonl: 'w1 w1 .*' leaves no room .* it has 14 tokens or more, "
                       r"special tokens take 2, and data\.max_length=16.*raise data\.max_length"):  # fmt: skip
        tokenise_pairs(first, ["lamp"] * 5, framed_pair(), 16, tmp_path, where=places)
    made = tokenise_pairs(first[:3], ["lamp lamp"] * 3, framed_pair(), 16, tmp_path)
    assert made.lengths.tolist() == [5, 6, 16] and made[2][-2:].tolist() == [bert().convert_tokens_to_ids("lamp"), 3]


def framed_pair() -> Any:
    return framed(
        bert(), TemplateProcessing("[CLS] $A", "[CLS] $A $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    )


def test_a_tokenizer_that_leaves_a_text_out_is_refused(tmp_path: Path) -> None:
    broken = framed(bert(), TemplateProcessing("$A", "$A $B $A", special_tokens=[]))
    with pytest.raises(UserError, match=r"does not find each text once"):
        tokenise_pairs(["my"], ["lamp"], broken, MOST, tmp_path)


def test_two_models_read_their_own_pairs(tmp_path: Path) -> None:
    first, second = ["my", "w1", "w2"], ["lamp", "my lamp", "w1"]
    same = Tokeniser(bert(), bert(), MOST, tmp_path).pairs(first, second)
    assert same.shared
    other = Tokeniser(framed_pair(), bert(), MOST, tmp_path).pairs(first, second)
    assert not other.shared, "the vocabulary is the same and the template is not"
    assert other.student[0].tolist() != other.teacher[0].tolist() == same.teacher[0].tolist()
    with pytest.raises(UserError, match="query 1: 'w1"):
        Tokeniser(of_old_bert(), of_old_bert(), 4, tmp_path).pairs(["", "w1"], ["lamp"] * 2, "query {}".format)


def test_splits_of_pairs_are_joined(tmp_path: Path) -> None:
    read_pairs = Tokeniser(of_old_bert(), of_old_bert(), MOST, tmp_path).pairs
    parts = [EncodedSplit(read_pairs(FIRST[:7], SECOND[:7]), {}, None, np.array([0, 3, 7])),
             EncodedSplit(read_pairs(FIRST[7:9], SECOND[7:9]), {})]  # fmt: skip
    both = joined(parts)
    batch, alone = both.collate([3, 1, 2]), [parts[1].collate([1]), parts[0].collate([1]), parts[1].collate([0])]
    assert batch["first"].tolist() == [0, 1, 5, 6]
    at = 0
    for each in alone:
        for name, values in each["student"].items():
            rows = batch["student"][name][at : at + len(values)]
            if name == LENGTHS:  # of the sequences that own rows; a split without owners has one a row and names none
                assert rows.tolist() == values.tolist()
                continue
            assert rows[:, : values.shape[1]].tolist() == values.tolist() and not rows[:, values.shape[1] :].any()
        assert batch["key"][at : at + len(each["key"])].tolist() == each["key"].tolist()
        at += len(each["key"])


def test_no_warning_about_long_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tokenise_pairs(FIRST, SECOND, of("BertTokenizer"), MOST, tmp_path)
    assert not caplog.messages
