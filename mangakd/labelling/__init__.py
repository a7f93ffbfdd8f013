"""Texts that a teacher writes, as training data: sequence-level distillation."""
