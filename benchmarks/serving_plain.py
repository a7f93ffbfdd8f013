"""A minimal service for comparison: FastAPI and one ONNX Runtime session on one thread.

    python benchmarks/serving_plain.py export/onnx_int8_static

`serving.py` compares scripts/serve.py with it. It answers each question when it comes, in FastAPI's thread pool, with the same
model file and tokenizer. It has no queue, no limits, no log and no metrics.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from tokenizers import Tokenizer

options = argparse.ArgumentParser()
options.add_argument("folder", type=Path)
options.add_argument("--port", type=int, default=8000)
arguments = options.parse_args()
folder = arguments.folder
about = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
tokenizer = Tokenizer.from_file(str(folder / about["tokenizer"]["file"]))
tokenizer.enable_truncation(about["tokenizer"]["max_length"])
tokenizer.enable_padding(pad_id=about["tokenizer"]["pad_id"])
one_thread = onnxruntime.SessionOptions()
one_thread.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(str(folder / about["model"]), one_thread, providers=["CPUExecutionProvider"])
app = FastAPI()


class Question(BaseModel):
    texts: list[str]


@app.post("/predict")
def predict(question: Question) -> dict:
    encodings = tokenizer.encode_batch(question.texts)
    arrays = {
        "input_ids": np.array([encoding.ids for encoding in encodings]),
        "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
        "token_type_ids": np.array([encoding.type_ids for encoding in encodings]),
    }
    (logits,) = session.run([about["output"]], {name: arrays[name] for name in about["inputs"]})
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    best = probabilities.argmax(axis=1)
    return {
        "predictions": [
            {"label": about["head"]["names"][i], "probability": float(row[i])}
            for row, i in zip(probabilities, best, strict=True)
        ]
    }


if __name__ == "__main__":
    uvicorn.run(app, port=arguments.port, access_log=False)
