"""llama.cpp's server on a free port of 127.0.0.1, as an API of chat completions. It prints its address and serves until it is
killed.

python llama_server.py file.gguf chat|embeddings
"""

import sys
import time

import xllamacpp


def main(file: str, what: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_ctx, params.n_parallel, params.port = 1024, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = 0
    if what == "embeddings":
        params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)  # it lives as long as this name
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(*sys.argv[1:])
