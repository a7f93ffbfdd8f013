"""Runs side by side, with paired intervals and their curves: python scripts/compare_runs.py <run> <run> …"""

import sys

from mangakd.cli.app import main
from mangakd.cli.words import keyed

if __name__ == "__main__":
    sys.argv[1:] = keyed(sys.argv[1:], "runs", many=True)
    main("compare_runs")
