"""Rows that a teacher or people wrote → what is good enough to train on: filters, personal data, a judge, a split and a card."""
