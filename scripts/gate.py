"""May the student of a run ship? Exit code 1 when a line fails: python scripts/gate.py outputs/intent/…"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("gate")
