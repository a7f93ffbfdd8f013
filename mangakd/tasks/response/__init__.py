"""Responses: a language model that answers."""
