"""Runs side by side, with paired intervals and their curves: python scripts/compare_runs.py <run> <run> …"""

from mangakd.cli.console import start

if __name__ == "__main__":
    start("compare_runs")
