"""Run where llm-compressor is installed, without mangakd: python -P compressed_side.py job.json.

job: {"model": folder, "out": folder, "dtype": of what is not quantised, "group": int, "ids": tokens of the calibration texts,
"ignore": names of modules that stay}. GPTQ rounds the weights of a matrix one column after the other, and moves the error of each
column into the next ones by the Hessian of the texts. Computes in fp32, then casts. Prints the versions of both packages.
Source: Frantar et al., GPTQ (https://arxiv.org/abs/2210.17323), by llm-compressor.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from transformers import AutoModelForCausalLM


def main(file: Path) -> None:
    job = json.loads(file.read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32, local_files_only=True)
    strategy = {"strategy": "group", "group_size": job["group"]} if job["group"] > 0 else {"strategy": "channel"}
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, **strategy)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in job["ids"]]
    recipe = GPTQModifier(config_groups={"group_0": scheme}, ignore=job["ignore"])
    longest = max(map(len, job["ids"]))
    oneshot(
        model=model,
        dataset=Dataset.from_list(rows),
        recipe=recipe,
        num_calibration_samples=len(rows),
        max_seq_length=longest,
    )
    model.to(getattr(torch, job["dtype"])).save_pretrained(job["out"], save_compressed=True)
    print(json.dumps({name: version(name) for name in ("llmcompressor", "compressed-tensors")}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
