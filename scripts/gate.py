"""May the student of a run ship? Exit code 1 when a line fails: python scripts/gate.py outputs/intent/…"""

import sys

from mangakd.cli.app import main
from mangakd.cli.words import keyed

if __name__ == "__main__":
    sys.argv[1:] = keyed(sys.argv[1:], "run")
    main("gate")
