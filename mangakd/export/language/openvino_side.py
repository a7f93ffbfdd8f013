"""Run where optimum-intel is installed, without mangakd: python -P openvino_side.py job.json, {"model": folder, "out": folder}.

Writes openvino_model.xml and .bin, in fp32 and stateful: the keys and values of earlier tokens are variables of the model.
Weights in 16 bits are read as fp32 first, because the IR of such a folder computes in 16 bits here and there.
Prints the version of optimum-intel.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from optimum.intel import OVModelForCausalLM


def main(file: Path) -> None:
    job = json.loads(file.read_text(encoding="utf-8"))
    settings = {"export": True, "compile": False, "load_in_8bit": False, "stateful": True, "local_files_only": True}
    model = OVModelForCausalLM.from_pretrained(job["model"], torch_dtype=torch.float32, **settings)
    if not model.stateful:
        sys.exit("the model has no stateful form")
    model.save_pretrained(job["out"])
    print(json.dumps({"optimum-intel": version("optimum-intel")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
