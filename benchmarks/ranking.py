"""How much does distillation gain for a reranker? MedQuAD, a fine-tuned MiniLM-L6 → small students, over seeds.

    python benchmarks/medquad.py ../shared/data/medquad FOLDER --train-documents 5
    python benchmarks/ranking.py --data FOLDER --work PATH [--only layers tiny] [--seeds 0 1]

The teacher is fine-tuned once, on all training queries; the students learn from 2,500 of them. Each run is a `python train.py` in
PATH/runs/<recipe>_<seed>. results/ranking.json keeps MRR@10 and NDCG@3 of each test query (seed_runs.py).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from embedding import vectors
from results_file import table
from seed_runs import by_recipe, command, estimates, keep, parsed, runs_of, text, train
from torch import nn
from transformers import AutoModel, AutoTokenizer

from mangakd.evaluation import predictions
from mangakd.models.location import locate
from mangakd.tasks.embedding.scores import unit
from mangakd.tasks.rerank import metrics
from mangakd.tasks.rerank.metrics import Ranking

COMMON = ["task=rerank", "hardware=cpu", "data.max_length=96", "data.val_limit=100", "data.test_limit=500"]
OWN = "STUDENT"  # a folder of layers 1, 3, 5, 6 of MiniLM-L6 as it was published
BOTH = "TEACHERS"  # the teacher and another one, fine-tuned with seed 1
KD = [*COMMON, "teacher.fit.mode=never", "data.train_limit=2500"]
LAYERS = [*KD, "student.layers=[1,3,5,6]", "optim.lr=2e-4", "trainer.max_epochs=1"]
FEW = ["data.labelled_share=0.1", "+stages.distil.texts=[labelled,unlabelled]"]
PRETRAINED = [*KD, "student=pretrained", f"student.path={OWN}", "optim.lr=2e-4", "trainer.max_epochs=1"]
TINY = [*KD, "student=tinybert_4l_312d", "trainer.max_epochs=2"]
SCORES = ["losses=[listwise_kl,margin_mse]", "teacher=cached"]
BASELINE = "baseline=true"
START = [*KD, "student=tinybert_4l_312d", "student.start=teacher", "optim.lr=3e-4", "trainer.max_epochs=1"]
STAGED = [
    "losses=[hidden,attention,listwise_kl,margin_mse]", "~stages.distil",
    "+stages.features={losses:[hidden,attention],epochs:3,lr:1e-3}",
    "+stages.scores={losses:[listwise_kl,margin_mse],epochs:3,lr:3e-4,teacher:stored}",
]  # fmt: skip
RECIPES: dict[str, list[str]] = {
    "layers": [*LAYERS, *SCORES, BASELINE],
    "layers-few": [*LAYERS, *FEW, *SCORES, BASELINE],
    "layers-few_margin_mse": [*LAYERS, *FEW, "losses=[margin_mse]", "teacher=cached"],
    "layers-few_listwise_kl": [*LAYERS, *FEW, "losses=[listwise_kl]", "teacher=cached"],
    "layers-few_hidden": [*LAYERS, *FEW, "losses=[listwise_kl,margin_mse,hidden]"],
    "layers-few_relation": [*LAYERS, *FEW, "losses=[listwise_kl,margin_mse,relation]"],
    "layers-few_ensemble": [*LAYERS, *FEW, *SCORES, f"teacher.paths={BOTH}", "teacher.combine=standardised"],
    "pretrained": [*PRETRAINED, *SCORES, BASELINE],
    "pretrained-few": [*PRETRAINED, *FEW, *SCORES, BASELINE],
    "tiny": [*TINY, *SCORES, BASELINE],
    "tiny_hidden": [*TINY, "losses=[listwise_kl,margin_mse,hidden]"],
    "tiny-start": [*START, *SCORES, BASELINE],
    "tiny-start-few": [*START, *FEW, *SCORES, BASELINE],
    "tiny-staged": [*KD, "student=tinybert_4l_312d", *STAGED, BASELINE],
}  # of one family (before the first underscore), the first also trains the student without KD that all are compared with
MODELS = {"teacher": "teacher", "KD": "student", "no KD": "baseline", "BM25": "BM25", "untrained": "untrained student"}
SHOWN = (*MODELS, "bi-encoder")
MEASURES = ("mrr@10", "ndcg_exp@3")
NOTE = """MedQuAD, test: 500 queries of ten documents, at most 96 tokens of a pair. Grades are constructed: 2 the
question's own answer, 1 another answer about the same disease, 0 another disease; MRR looks for the own answer. The
teacher, MiniLM-L6, was fine-tuned for one epoch of 4,068 queries of five documents. Students learn from 2,500 of these
queries. *no KD*: the same student, from the same weights, in as many steps, from the grades alone. *layers*: layers 1,
3, 5, 6 of the teacher, so that a student without KD starts from what the teacher learnt; *pretrained*: these layers of
MiniLM-L6 as it was published; both one epoch; *-few*: grades for 250 of the queries alone, and the teacher's scores for
all; *tiny*: random weights of TinyBERT's shape (4 layers of 312), two epochs; *tiny-start*: of this
shape, but started from the teacher (`student.start=teacher`), one epoch; *tiny-staged*:
three epochs of hidden states and attention scores, then three of the teacher's scores. Losses are listwise KL and margin-MSE, or
those of the name; *hidden* and *relation* are added to them; *ensemble*: the mean of the standardised scores of this
teacher and of one that was fine-tuned with another seed. *bi-encoder*: cosines of MiniLM-L6's vectors as it was
published, 128 tokens of a text. Means over seeds; 95 % intervals of the bootstrap over
test queries, paired for differences. They say nothing of other seeds, whose differences stand beside them.

"""


def main() -> None:
    options = parsed(__doc__, "what medquad.py wrote", RECIPES)
    places = [f"{key}={options.data / file}.jsonl" for key, file in FILES.items()] + [
        f"paths.cache={options.work / 'cache'}"
    ]
    teacher = teacher_of(options, places, 0)
    own = published(options.work / "student")
    for seed in options.seeds:
        for recipe in options.only:
            folder = options.work / "runs" / f"{recipe}_{seed}"
            if folder.name not in runs_of("ranking"):
                words = [word.replace(OWN, str(own)) for word in RECIPES[recipe]]
                if any(BOTH in word for word in words):
                    both = f"[{teacher},{teacher_of(options, places, 1)}]"
                    words = [word.replace(BOTH, both) for word in words]
                train(folder, [*words, f"seed={seed}", f"teacher.path={teacher}", *places], source=options.source)
                keep("ranking", "Rerankers", folder.name, record(folder), body)


def published(folder: Path) -> Path:
    """Writes a pretrained student of four layers."""
    model, tokenizer = (each.from_pretrained(locate("embedded")) for each in (AutoModel, AutoTokenizer))
    model.encoder.layer = nn.ModuleList([model.encoder.layer[i] for i in (0, 2, 4, 5)])
    model.config.num_hidden_layers = 4
    for each in (model, tokenizer):
        each.save_pretrained(folder)
    return folder


FILES = {"data.path": "train", "data.val_path": "dev", "data.test_path": "test"}


def teacher_of(options: argparse.Namespace, places: Sequence[str], seed: int) -> Path:
    """The folder of the teacher that was fine-tuned with this seed."""
    cache = options.work / ("cache" if seed == 0 else f"cache_{seed}")
    words = [*COMMON, "teacher.fit.epochs=1", "student.layers=[1,3,5,6]", *places]
    words += [f"paths.cache={cache}", f"teacher.fit.seed={seed}"]
    folders = cache / "teachers"
    if not any(folders.glob("*/config.json")):
        train(cache, words, "scripts/cache_teacher.py", options.source)
    return next(folders.glob("*/config.json")).parent


def bi_encoder(test: predictions.Predictions, file: Path) -> np.ndarray:
    """(N, G) cosines of questions and answers by MiniLM-L6 as it was published, of at most 128 tokens; computed once."""
    if not file.is_file():
        texts = [
            text for query, each in zip(test.texts, test.lists["documents"], strict=True) for text in (query, *each)
        ]
        units = unit(vectors(locate("embedded"), texts, 128), None).reshape(len(test.texts), -1, 384)
        np.save(file, (units[:, 1:] * units[:, :1]).sum(2))
    return np.load(file)


def record(folder: Path) -> dict[str, Any]:
    scores = json.loads((folder / "metrics.json").read_text())
    test = predictions.load(folder, "test")
    grades = test.truth["grades"]
    answers = {model: test.answers[name]["logits"] for model, name in MODELS.items() if name in test.answers}
    answers["bi-encoder"] = bi_encoder(test, folder.parents[1] / "bi_encoder.npy")
    rows = {
        model: {measure: each.tolist() for measure, each in measured(given, grades).items()}
        for model, given in answers.items()
    }
    return {"command": command(folder), "scores": scores, "queries": rows}


def measured(answers: np.ndarray, grades: np.ndarray) -> dict[str, np.ndarray]:
    """measure → (N): each query's value."""
    ranking = Ranking.of(answers, grades)
    statistics = {"mrr@10": metrics.mrr(ranking, 10, None), "ndcg_exp@3": metrics.ndcg(ranking, 3, exponential=True)}
    return {measure: statistic.features[:, 0].round(6) for measure, statistic in statistics.items()}


def body(runs: Mapping[str, Any]) -> str:
    lines = [line for recipe in by_recipe(runs) for line in rows(recipe, runs)]
    head = ["recipe", "seeds", "score", *SHOWN, "KD / teacher", "KD − no KD", "of each seed"]
    return NOTE + table(head, lines)


def rows(recipe: str, runs: Mapping[str, Any]) -> Iterator[list[str]]:
    family = recipe.partition("_")[0]
    seeds = [
        seed for name, _, seed in (key.rpartition("_") for key in runs) if name == recipe and f"{family}_{seed}" in runs
    ]
    queries = [runs[f"{family}_{seed}"]["queries"] | runs[f"{recipe}_{seed}"]["queries"] for seed in seeds]
    for measure in MEASURES if seeds else ():
        of = {model: np.array([each[model][measure] for each in queries]) for model in SHOWN}
        all_seeds = estimates({model: values.mean(0) for model, values in of.items()})
        gaps = [f"{gap:+.3f}" for gap in (of["KD"] - of["no KD"]).mean(1)]
        yield [
            recipe, str(len(seeds)), measure, *(f"{all_seeds[model].value:.3f}" for model in SHOWN),
            text(all_seeds["KD"] / all_seeds["teacher"]), text(all_seeds["KD"] - all_seeds["no KD"], "{:+.3f}"), ", ".join(gaps),
        ]  # fmt: skip


if __name__ == "__main__":
    main()
