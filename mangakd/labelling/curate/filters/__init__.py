"""Filters of rows, each in a file of its own. Each has an entry in conf/curate.yaml, and runs in the order of that file."""
