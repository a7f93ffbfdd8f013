"""Memory, time and price before a run: python scripts/plan.py hardware=a100 task=response [--compare]"""

import sys

from mangakd.cli.app import main

if __name__ == "__main__":
    sys.argv = ["compare=true" if word == "--compare" else word for word in sys.argv]  # Hydra takes no flags of ours
    main("plan")
