"""A run's report.html and report.md: python scripts/report.py outputs/intent/… [latency=true]"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("report")
