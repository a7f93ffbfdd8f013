"""A teacher writes answers as training data: python scripts/label.py provider.path=<model> data.path=<file> out=answers.jsonl"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("label")
