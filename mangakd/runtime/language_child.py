"""The child process of a served GGUF: llama.cpp's own server on a free port of 127.0.0.1. Its parent is language_engine.py.

    python -P language_child.py '{"model": "model.gguf", "context": 2048, "slots": 4, "threads": 1, …}'

It prints its address, and lives as long as its stdin is open. The parent holds the other end of that pipe, so that the child ends
with its parent, even if the parent is killed by SIGKILL; a child that reads the model ends when it has read it. The child ignores
SIGTERM and SIGINT, which a service manager or a terminal may send to every process, because the parent drains first. The file
imports nothing of mangakd, so that it starts from its path alone.
"""

import json
import os
import signal
import sys
from typing import Any


def main(words: list[str]) -> None:
    for ignored in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ignored, signal.SIG_IGN)
    import xllamacpp

    server = xllamacpp.Server(parameters(xllamacpp.CommonParams(), **json.loads(words[0])))
    print(server.listening_address, flush=True)
    os.dup2(2, 1)  # nobody reads stdout from here on
    sys.stdin.buffer.read()
    os._exit(0)  # llama.cpp's own end may wait for running answers


def parameters(
    params: Any, model: str, name: str, context: int, slots: int, threads: int, runtime: dict[str, Any]
) -> Any:
    """context: tokens of one request. runtime: further settings by their names in llama.cpp's common_params.

    Raises AttributeError for an unknown setting, TypeError for a wrong value.
    """
    params.model.path, params.model_alias = model, {name}
    params.n_ctx, params.n_parallel, params.kv_unified = context * slots, slots, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    # The default keeps up to 8 GiB of old prompts in RAM: the process would grow with each different prompt.
    params.cache_ram_mib = 0
    params.fit_params = False  # it would lower the context silently to what memory holds
    for key, value in runtime.items():
        *path, last = key.split(".")
        owner = params
        for part in path:
            owner = getattr(owner, part)
        getattr(owner, last)  # an unknown name fails here; setting it might not
        setattr(owner, last, value)
    params.port, params.verbosity = 0, 0
    params.ui = params.endpoint_slots = False  # slots would show the prompts of others
    return params


if __name__ == "__main__":
    main(sys.argv[1:])
