"""One worker of the kill test: asks a file of prompts through the library, without Hydra and torch, so that it starts quickly.

python asking.py '{"provider": "openai", "base_url": …, "prompts": 1000, "ledger": …, …}'
"""

import json
import sys
from pathlib import Path

from mangakd.labelling.api import provider as providers
from mangakd.labelling.provider import Request
from mangakd.models.sampling import Sampling


def main(options: dict) -> None:  # type: ignore[type-arg]
    make = getattr(providers, options.pop("provider"))
    count, ledger = options.pop("prompts"), Path(options.pop("ledger"))
    api = make(model="m", ledger=ledger, price={"input": 1.0, "output": 2.0}, **options)
    requests = [Request((("user", f"prompt {i}"),), i) for i in range(count)]
    with api.opened(requests, Sampling()) as rows:
        halt = api.ask(rows, Sampling())
    assert halt is None and "torch" not in sys.modules
    print(peak())


def peak() -> int:
    """Resident memory at most, in kB. ru_maxrss would be that of the process which forked this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
