"""Keeps what is good enough to train on: python scripts/curate.py data.path=answers.jsonl out=<folder>"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("curate")
