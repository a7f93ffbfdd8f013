"""mangakd: knowledge distillation for NLP models, with pluggable loss callbacks.

Importing this package loads nothing heavy; `python train.py --help` must answer at once.
"""

__version__ = "0.1.0"
