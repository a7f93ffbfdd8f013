"""mangakd: knowledge distillation for NLP models, with pluggable loss callbacks.

Importing this package loads nothing heavy; `mangakd --help` must answer at once.
"""

import importlib
import sys

__version__ = "0.1.0"

# openvino and nncf tell a statistics server what they are used for, from their import on, in processes that threads fork: nobody
# was asked, and a process that trains or serves must not be forked like that. Without this package they send nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


_OFFERED = {
    "DistillModule": "mangakd.training.module",
    "Optim": "mangakd.training.optim",
    "losses": "mangakd.losses",
    "teachers": "mangakd.teachers",
}


def __getattr__(name: str) -> object:
    """`from mangakd import DistillModule, losses, teachers`: imported when they are asked for."""
    if name not in _OFFERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_OFFERED[name])
    return getattr(module, name, module)
