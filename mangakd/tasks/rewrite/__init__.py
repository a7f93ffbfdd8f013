"""Rewriting: an encoder–decoder that turns the last turn of a conversation into a query that stands alone."""
