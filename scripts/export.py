"""Variants of a student that serve without torch, and the one that ships: python scripts/export.py student=<folder>"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("export")
