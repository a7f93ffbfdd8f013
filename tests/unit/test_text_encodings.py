"""Text files that are not UTF-8 are refused, with the letters that each plausible encoding reads and the command."""

import re
import subprocess
from pathlib import Path

import pytest
from data_files import HEAD, rows

from mangakd.core.errors import UserError

# encoding, text, the encoding that is named first
ENCODINGS = [
    ("cp932", "注文はどこですか", "cp932"),
    ("cp932", "返品", "cp932"),
    ("cp932", "注文 確認", "cp932"),
    ("cp932", "ﾃｽﾄ", "cp932"),
    ("euc-jp", "注文はどこですか", ""),
    ("gb18030", "我的订单在哪里", ""),
    ("big5", "我的訂單在哪裡", ""),
    ("cp949", "주문은 어디에", ""),
    ("cp1251", "где мой заказ", ""),
    ("cp1251", "ВОЗВРАТ", ""),
    ("koi8-r", "где мой заказ", ""),
    ("cp1253", "πού είναι", ""),
    ("cp1256", "أين طلبي", ""),
    ("cp874", "สั่งซื้อที่ไหน", ""),
    ("cp1252", "a 5 €", "cp1252"),
    ("cp1252", "où est-il", "cp1252"),
    ("cp1250", "gdzie są moje łyżki", ""),
    ("iso-8859-2", "gdzie są moje łyżki", ""),
    ("cp1254", "sipariş nerede değil", ""),
    ("macintosh", "déjà", ""),
    ("cp850", "déjà", ""),
    ("iso-2022-jp", "注文はどこですか", "iso-2022-jp"),
    ("iso-2022-kr", "주문은 어디에", "iso-2022-kr"),
    ("hz", "我的订单", "hz"),
    ("utf-7", "注文はどこですか", "utf-7"),
    ("utf-7", "où est-il", "utf-7"),
]


@pytest.mark.parametrize("name", ["a.csv", "a b.jsonl"])
@pytest.mark.parametrize(("encoding", "text", "first"), ENCODINGS)
def test_refused_with_how_it_reads(encoding: str, text: str, first: str, name: str, tmp_path: Path) -> None:
    content = f"{HEAD}{text},x\n" if name == "a.csv" else f'{{"text": "{text}", "label": "x"}}\n'
    with pytest.raises(UserError) as raised:
        rows(tmp_path, name, content.encode(encoding))
    message = str(raised.value)
    readings = re.findall(r"^  ([\w-]+): '(.*)'$", message, re.MULTILINE)
    assert text in "".join(shown for _, shown in readings), message
    assert not first or readings[0][0] == first, message
    command = message[message.rindex("python -c" if encoding == "hz" else "iconv") :]
    assert ("ENCODING" in command) == (len(readings) > 1), message
    names = [name for name, shown in readings if text in shown]
    subprocess.run(command.replace("ENCODING", names[0]), shell=True, cwd=tmp_path, check=True)
    assert (tmp_path / f"utf8-{name}").read_text() == content


@pytest.mark.parametrize("text", ["call +49301234-5", "C++ 1+1-2", "~{not hz~}?", "a+abc-d", "\x1b[31mred"])
def test_ascii_that_is_no_other_encoding(text: str, tmp_path: Path) -> None:
    assert rows(tmp_path, "a.csv", f"{HEAD}{text},x\n")["text"] == [text]


def test_utf_16_without_a_mark(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"utf-16le: '本文.*\n.*\n?.*iconv -f"):
        rows(tmp_path, "a.tsv", "本文\tラベル\n".encode("utf-16-le"))


def test_no_encoding_fits(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its encoding is unknown: line 2 holds the byte 0x81.*Save it as UTF-8"):
        rows(tmp_path, "a.csv", HEAD.encode() + b"\x81\x9e\xfd\xfe\xff,x\n")
