"""Ranking of a query's documents: task.py is the task, judge.py its scores (metrics.py)."""
