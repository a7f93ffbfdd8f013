"""scripts/serve.py with a model that waits: `python gated_serve.py GATE folder …` computes nothing while the file GATE exists."""

import sys
import time
from pathlib import Path

from mangakd.runtime import Model
from mangakd.runtime.serve import main

gate, compute = Path(sys.argv.pop(1)), Model.outputs


def outputs(*words, **more):
    while gate.exists():
        time.sleep(0.005)
    return compute(*words, **more)


Model.outputs = outputs
main()
