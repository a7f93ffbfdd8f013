"""A run's report.html and report.md: python scripts/report.py outputs/intent/… [latency=true]"""

import sys

from mangakd.cli.app import main
from mangakd.cli.words import keyed

if __name__ == "__main__":
    sys.argv[1:] = keyed(sys.argv[1:], "run")
    main("report")
