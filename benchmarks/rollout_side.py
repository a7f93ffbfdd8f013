"""`mangakd serve` with a student that is worse than its folder: for benchmarks and tests of a rollout.

    python rollout_side.py SHARE FILE folder …     answers another label to SHARE of the texts, and fails while FILE exists

Which texts is decided by their hash, so a text always gets the same answer. Service, queue and rollout are the real ones.
"""

import sys
from pathlib import Path

import numpy as np

from mangakd.runtime import Model
from mangakd.runtime.rollout.choice import place
from mangakd.runtime.serve import main

share, broken, compute = float(sys.argv.pop(1)), Path(sys.argv.pop(1)), Model.outputs


def outputs(self, texts, *more):
    if broken.exists():
        raise RuntimeError("this student is broken")
    rows = compute(self, texts, *more)
    wrong = [i for i, text in enumerate(texts) if place("worse", "", str(text)) < share]
    rows[wrong] = np.roll(rows[wrong], 1, axis=1)  # the best label becomes the next one
    return rows


Model.outputs = outputs
main()
