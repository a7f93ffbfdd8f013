"""Variants of a student that serve without torch, and the one that ships: python scripts/export.py student=<folder>"""

import sys

from mangakd.cli.app import main
from mangakd.cli.words import keyed, under

if __name__ == "__main__":
    sys.argv[1:] = keyed(under(sys.argv[1:], "export", ("student",)), "export.student")
    main("export")
