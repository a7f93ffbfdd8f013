"""Laid out as mangakd's conf/; this file makes it a place that pkg:// finds."""
