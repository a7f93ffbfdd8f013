"""How a ranker is judged by the scores that it gives when it is served, one for each pair of query and document."""

import numpy as np

from mangakd.data.rows import Rows
from mangakd.evaluation.judge import Judge
from mangakd.evaluation.served import Served
from mangakd.tasks.rerank.encode import truth_of, widths


def served(rows: Rows, judge: Judge) -> Served:
    """Without grades the score is how often the student's first document stays the first."""
    sizes = widths(rows)
    there = np.arange(sizes.max(initial=0)) < sizes[:, None]

    def arrays(outputs: np.ndarray) -> dict[str, np.ndarray]:
        logits = np.full(there.shape, -np.inf)
        logits[there] = outputs[:, 0]
        return {"logits": logits}

    pairs = [(query, document) for query, own in zip(rows["query"], rows["documents"], strict=True) for document in own]
    return Served(pairs, arrays, judge, truth_of(rows), "grades" in rows, "agreement")
