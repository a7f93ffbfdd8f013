"""How an embedder is judged by the vectors that it gives when it is served."""

from collections.abc import Mapping

import numpy as np

from mangakd.data.rows import Rows
from mangakd.evaluation.judge import Judge
from mangakd.evaluation.served import Served
from mangakd.losses.hard_label import IGNORE


def served(rows: Rows, most: float, prompts: Mapping[str, str], judge: Judge) -> Served | None:
    """Each anchor and its second text, with the student's prompts. None for rows of texts alone, which have no score.

    most: the score of two texts that mean the same.
    """
    paired = np.array([bool(text.strip()) for text in rows["positive"]])
    if not paired.any():
        return None
    anchors = [prompts["query"] + text for text in rows["anchor"]]
    seconds = [prompts["document"] + text for text, there in zip(rows["positive"], paired, strict=True) if there]
    score = np.array(rows["score"], dtype=np.float32) / most
    truth = {
        "score": score,
        "labels": np.where(paired & ~np.isfinite(score), 1, IGNORE),
        "anchor_key": _numbers(rows["anchor"]),
        "positive_key": np.where(paired, _numbers(rows["positive"]), 0),
    }

    def arrays(outputs: np.ndarray) -> dict[str, np.ndarray]:
        positive = np.zeros((len(anchors), outputs.shape[1]), dtype=outputs.dtype)
        positive[paired] = outputs[len(anchors) :]
        return {"anchor": outputs[: len(anchors)], "positive": positive}

    return Served([*anchors, *seconds], arrays, judge, truth, True, "likeness")


def _numbers(texts: list[str]) -> np.ndarray:
    """(N) from 1, equal for equal texts."""
    places = {text: i for i, text in enumerate(dict.fromkeys(texts), 1)}
    return np.array([places[text] for text in texts])
