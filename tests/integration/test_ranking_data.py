"""Public ranking data, where it is there: MedQuAD's groups as the benchmarks write them, and Cranfield as a BEIR folder."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO

from mangakd.data.bm25 import Bm25
from mangakd.data.pairs import tokenise_pairs
from mangakd.data.ranking import Beir
from mangakd.data.rows import Columns
from mangakd.data.sources import Files
from mangakd.models.load import load_tokenizer

RANKED: Columns = {"query": "text", "documents": "texts", "grades": "numbers"}
PublicData = Callable[[str], Path]


@pytest.fixture
def medquad(public_data: PublicData, tmp_path: Path) -> Path:
    source = public_data("medquad")
    spec = importlib.util.spec_from_file_location("medquad", REPO / "benchmarks" / "medquad.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(source, tmp_path)
    return tmp_path


def test_groups_of_medquad(medquad: Path, tmp_path: Path) -> None:
    files = {"path": "dev.jsonl", "val_path": "dev.jsonl", "test_path": "test.jsonl"}
    read = Files(**{key: str(medquad / name) for key, name in files.items()}).load(RANKED)  # type: ignore[arg-type]
    assert (len(read.train), len(read.test)) == (546, 1260)
    assert {len(documents) for documents in read.test["documents"]} == {10}
    assert {max(grades) for grades in read.test["grades"]} == {2.0}

    documents = list(dict.fromkeys(text for each in read.test["documents"] for text in each))
    index, place = Bm25(documents), {text: i for i, text in enumerate(documents)}
    ranks = []
    for query, texts, grades in zip(*(read.test[name] for name in RANKED), strict=True):
        order = np.argsort(-index.scores(query)[[place[text] for text in texts]], kind="stable")
        ranks.append(1 + [grades[i] for i in order].index(2.0))
    assert 0.5 < float(np.mean(1 / np.array(ranks))) < 0.6, "far above .298 of a random order"

    owners = [query for query, texts in zip(read.train["query"], read.train["documents"], strict=True) for _ in texts]
    texts = [text for each in read.train["documents"] for text in each]
    tokenizer = load_tokenizer("embedded")
    pairs = tokenise_pairs(owners, texts, tokenizer, 128, tmp_path / "tokens")
    assert len(pairs) == 5460 and len(pairs.texts) < 1150, "each question and answer once"
    chosen = np.random.default_rng(0).choice(len(pairs), 100, replace=False)
    wanted = tokenizer(
        [owners[i] for i in chosen], [texts[i] for i in chosen], truncation="only_second", max_length=128
    )
    inputs = pairs.inputs(chosen, tokenizer.pad_token_id)
    for row, (ids, types) in enumerate(zip(wanted["input_ids"], wanted["token_type_ids"], strict=True)):
        assert inputs["input_ids"][row, : len(ids)].tolist() == ids
        assert inputs["token_type_ids"][row, : len(ids)].tolist() == types


def test_cranfield_as_a_folder_of_beir(
    public_data: PublicData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = public_data("cranfield")
    (tmp_path / "qrels").mkdir()
    documents = re.findall(
        r"<docno>(.+?)</docno>.*?<text>(.*?)</text>", (source / "cran.all.1400.xml").read_text(), re.S
    )
    queries = re.findall(r"<title>(.*?)</title>", (source / "cran.qry.xml").read_text(), re.S)
    qrels = [line.split() for line in (source / "cranqrel.trec.txt").read_text().splitlines()]
    objects = {"corpus": [{"_id": name.strip(), "text": text} for name, text in documents],
               "queries": [{"_id": str(i), "text": text} for i, text in enumerate(queries, 1)]}  # fmt: skip
    for name, content in objects.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    rows = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t{grade}" for query, _, document, grade in qrels)]
    (tmp_path / "qrels" / "train.tsv").write_text("\n".join(rows))
    with caplog.at_level("INFO"):
        read = Beir(path=str(tmp_path)).load(RANKED)
    assert {name: len(rows) for name, rows in read.splits.items()} == {"train": 181, "validation": 22, "test": 22}
    assert all(len(documents) == 50 for documents in read.test["documents"])
    recalls = [float(percent) for percent in re.findall(r"hold (\d+\.\d) % of the relevant", caplog.text)]
    assert len(recalls) == 3 and all(45 < percent < 75 for percent in recalls)
