"""A task of the shop's own: how urgent a question is, as a number. task.py is the task, judge.py its scores, loss.py its loss."""
