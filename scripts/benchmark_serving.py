"""Cold start and warm latency of a student under Lambda's CPU quotas; benchmarks/cold_start.py says how."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from cold_start import main

if __name__ == "__main__":
    main()
