"""Ranking of a query's documents: metrics.py its scores."""
