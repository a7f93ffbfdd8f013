"""Personal data of US and Japanese forms: recall and false positives on planted sets, placeholders, and no network."""

import socket
import sys
from collections import Counter

import pytest
from conftest import REPO

from mangakd.core.errors import UserError
from mangakd.labelling.curate.filters.personal_data import PersonalData
from mangakd.labelling.curate.personal.finder import ascii_copy
from mangakd.labelling.curate.personal.recognisers import my_number_agrees
from mangakd.labelling.curate.record import Record

sys.path.insert(0, str(REPO / "benchmarks"))
import curate as benchmark

FINDER = PersonalData()


def test_recall_and_false_positives_on_the_planted_sets() -> None:
    """The values that were measured (benchmarks/results/curate.md), with 60 cases of each kind."""
    recall, alarms = benchmark.personal_tables(60)
    shares = {kind: hits / every for kind, (hits, every) in recall.items()}
    less = {
        "US SSN": 0.8,
        "US phone, no word": 0.7,
    }  # SSN next to letters; ten digits that nothing calls a phone number
    assert all(every == 60 for _, every in recall.values())
    for kind, share in shares.items():
        assert share >= less.get(kind, 1.0), kind
    alarmed = {kind: hits for kind, (hits, _) in alarms.items() if hits}
    assert (
        set(alarmed) <= {"4-4-4 digits, no word"} and alarmed.get("4-4-4 digits, no word", 0) <= 9
    )  # 1 in 11 has the check digit


def test_my_number_check_digit_by_hand() -> None:
    """1·2 + 0·3 + 9·4 + 8·5 + 7·6 + 6·7 + 5·2 + 4·3 + 3·4 + 2·5 + 1·6 = 212 = 19 · 11 + 3, and 11 − 3 = 8."""
    assert my_number_agrees("123456789018")
    assert [digit for digit in "0123456789" if my_number_agrees("12345678901" + digit)] == ["8"]
    assert not my_number_agrees("111111111111")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Call (212) 555-0123 or +1 415-555-2671.", "Call <PHONE_1> or <PHONE_2>."),
        ("電話は090-1234-5678です。０３－１２３４－５６７８も", "電話は<PHONE_1>です。<PHONE_2>も"),
        ("ＴＡＲＯ＠ｅｘａｍｐｌｅ．ｃｏ．ｊｐまで", "<EMAIL_1>まで"),
        ("カード4111111111111111、4111 1111 1111 1112ではない", "カード<CARD_1>、4111 1111 1111 1112ではない"),
        ("マイナンバー：1234 5678 9018、1234 5678 9019", "マイナンバー：<MY_NUMBER_1>、1234 5678 9019"),
        ("SSN 536-90-4399", "SSN <US_SSN_1>"),
        ("IBAN DE89 3704 0044 0532 0130 00", "IBAN <IBAN_1>"),
        ("from 192.168.10.20 with version 1.2.3.4", "from <IP_1> with version 1.2.3.4"),
        (
            "Order 112-7654321-1234567, ISBN 4088820118, ¥212,555,0123",
            "Order 112-7654321-1234567, ISBN 4088820118, ¥212,555,0123",
        ),
        ("std::vector<int> at 10:30", "std::vector<int> at 10:30"),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert FINDER.text(text) == expected


def test_the_copy_that_is_searched_keeps_places() -> None:
    text = "電話０３ー１２３４（x）\U0001f600é"
    assert ascii_copy(text) == "\n\n03-1234(x)\né" and len(ascii_copy(text)) == len(text)


def row(**cells: object) -> Record:
    return Record(1, cells, str(cells.get("prompt", "")), str(cells.get("answer", "")))


def test_one_value_has_one_placeholder_in_all_texts_of_a_row() -> None:
    finder = PersonalData()
    record = row(
        prompt="I am a@example.com, call 090-1234-5678",
        messages=[
            {"role": "user", "content": "A@Example.com"},
            {"role": "assistant", "content": "+81 90 1234 5678 or b@example.com"},
        ],
        answer="Mail to b@example.com",
        label="a@example.com",
        written_by={"model": "c@example.com"},
    )
    new = finder.clean(record, ["prompt", "messages", "answer", "label"], {"label"})
    assert new.cells["prompt"] == "I am <EMAIL_1>, call <PHONE_1>" == new.prompt
    assert [each["content"] for each in new.cells["messages"]] == ["<EMAIL_1>", "<PHONE_1> or <EMAIL_2>"]
    assert new.cells["messages"][0]["role"] == "user"
    assert new.cells["answer"] == "Mail to <EMAIL_2>" == new.answer
    assert new.cells["label"] == "a@example.com" and new.cells["written_by"] == {"model": "c@example.com"}
    assert finder.values == Counter(EMAIL=2, PHONE=1) and finder.rows == Counter(EMAIL=1, PHONE=1)
    assert finder.clean(row(answer="c@example.com"), ["answer"], set()).answer == "<EMAIL_1>", (
        "names are those of a row"
    )


def test_placeholders_that_are_there_are_not_given_again() -> None:
    new = PersonalData().clean(row(prompt="<EMAIL_1> wrote", answer="to a@example.com"), ["prompt", "answer"], set())
    assert new.cells["answer"] == "to <EMAIL_2>" and new.cells["prompt"] == "<EMAIL_1> wrote"


def test_a_row_can_be_left_out_and_the_reason_has_no_value() -> None:
    finder = PersonalData(action="leave_out")
    assert finder.reason(row(answer="a@example.com and b@example.com, 212-555-0123")) == "EMAIL 2, PHONE 1"
    assert finder.reason(row(answer="nobody")) is None
    assert PersonalData().reason(row(answer="a@example.com")) is None


def test_regions_and_kinds() -> None:
    german = "Tel. 030 901820"
    assert FINDER.text(german) == german and PersonalData(regions=["DE"]).text(german) == "Tel. <PHONE_1>"
    assert PersonalData(regions=["JP"]).text("SSN 536-90-4399") == "SSN 536-90-4399"
    assert PersonalData(kinds=["URL"]).text("see https://example.com/a or a@example.com").startswith("see <URL_1> or")
    assert PersonalData(kinds=["EMAIL"]).text("a@example.com 212-555-0123") == "<EMAIL_1> 212-555-0123"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "hide"}, "filters.personal_data.action=hide must be one of replace, leave_out"),
        ({"regions": ["USA"]}, "filters.personal_data.regions has 'USA', which is no code of a region"),
        ({"kinds": ["NAME"]}, "filters.personal_data.kinds has 'NAME'; a kind is one of EMAIL"),
    ],
)
def test_options_that_are_none(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PersonalData(**options)  # type: ignore[arg-type]


def test_no_network_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """presidio's own recogniser of e-mail addresses fetches the list of top-level domains."""
    calls: list[object] = []

    def connect(self: socket.socket, address: object) -> None:
        calls.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: connect(None, words))  # type: ignore[arg-type]
    assert (
        PersonalData(regions=["US"]).text("a@example.com, a@example.nosuchdomain")
        == "<EMAIL_1>, a@example.nosuchdomain"
    )
    assert calls == []
