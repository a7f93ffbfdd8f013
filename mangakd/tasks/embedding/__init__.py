"""Embeddings: task.py is the task, judge.py its scores, scores.py their formulas; the other files are data, loss and report."""
