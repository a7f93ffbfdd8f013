"""What trec_eval says of a made-up ranking without ties, in tests/trec_eval_golden.json; test_rank_metrics.py compares ours.

To make the file again, in an environment of its own:

    pip install pytrec_eval-terrier==0.5.11 && python tests/trec_eval_golden.py
"""

import json
import random
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")
MEASURES = {"ndcg_cut.3,10", "recip_rank", "recall.3,10"}


def lists(count: int = 40) -> list[tuple[list[float], list[int]]]:
    """(scores, grades 0 … 3) of each query; the scores of a query differ, and some queries have no relevant document."""
    chance = random.Random(0)
    made = []
    for _ in range(count):
        size = chance.randint(2, 12)
        scores = [place + chance.random() / 2 for place in chance.sample(range(-20, 20), size)]
        made.append((scores, chance.choices([0, 1, 2, 3], [6, 2, 1, 1], k=size)))
    return made


def trec_eval(least: int, exponential: bool) -> dict[str, list[float]]:
    """Measure → the value of each query. least: grade of a relevant document. exponential: its gains are 2^grade − 1."""
    from pytrec_eval import RelevanceEvaluator

    gain = (lambda grade: 2**grade - 1) if exponential else (lambda grade: grade)
    qrels = {f"q{q}": {f"d{d}": gain(g) for d, g in enumerate(grades)} for q, (_, grades) in enumerate(lists())}
    run = {f"q{q}": {f"d{d}": s for d, s in enumerate(scores)} for q, (scores, _) in enumerate(lists())}
    values = RelevanceEvaluator(qrels, MEASURES, relevance_level=least).evaluate(run)
    return {measure: [round(values[q][measure], 8) for q in qrels] for measure in sorted(values["q0"])}


if __name__ == "__main__":
    content = {f"least {least}": trec_eval(least, exponential=False) for least in (1, 2)}
    content["exponential"] = trec_eval(1, exponential=True)
    FILE.write_text(json.dumps(content).replace("], ", "],\n ").replace("}, ", "},\n") + "\n")
