"""Does a student still say what its teacher says? python scripts/check_drift.py student=<folder> teacher=<folder> data=<file>"""

import sys

from mangakd.cli.app import main
from mangakd.cli.words import under

if __name__ == "__main__":
    sys.argv[1:] = under(sys.argv[1:], "compare", ("student", "teacher", "data"))
    main("check_drift")
