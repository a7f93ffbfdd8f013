"""What made a model or a data set, and is every file as it was recorded? python scripts/audit.py <folder>"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("audit")
