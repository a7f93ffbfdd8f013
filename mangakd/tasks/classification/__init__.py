"""Text classification: task.py is the task, judge.py its scores; the other files are the report's sections and the meters."""
