"""Does a student still say what its teacher says? python scripts/check_drift.py student=<folder> teacher=<folder> data=<file>"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("check_drift")
