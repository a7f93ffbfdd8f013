"""One side of benchmarks/cold_start.py, a separate program: opens a student and answers texts.

    python cold_start_side.py runtime <exported folder> '<texts as JSON>' <runs>
    python cold_start_side.py torch <Hugging Face folder> …

The program answers the first text at once and prints a line of JSON with the answer and the process's CPU seconds. A second line
has the milliseconds of `runs` answers to each text, tokenising included, and the peak of resident memory. One thread. The imports
are those that both sides need anyway.
"""

import json
import sys
import time
from pathlib import Path

WARM_UP = 10  # answers to each text before any is timed
LENGTH = 128  # tokens, PyTorch's side; an export's manifest says its own


def runtime(folder):
    from mangakd.runtime import load

    model = load(folder, threads=1)

    def answer(text):
        prediction = model.predict([text], top=1)[0]
        return prediction["label"], prediction["probability"]

    return answer


def torch(folder):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    @torch.inference_mode()
    def answer(text):
        inputs = tokenizer([text], truncation=True, max_length=LENGTH, return_tensors="pt")
        best = model(**inputs).logits.softmax(-1).max(-1)
        return model.config.id2label[best.indices.item()], best.values.item()

    return answer


def milliseconds(answer, text, runs):
    times = []
    for _ in range(WARM_UP + runs):
        start = time.perf_counter()
        answer(text)
        times.append(1000 * (time.perf_counter() - start))
    return times[WARM_UP:]


def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6


def main(side, folder, texts, runs):
    answer, texts = {"runtime": runtime, "torch": torch}[side](folder), json.loads(texts)
    first = answer(texts[0])
    print(json.dumps({"said": first, "cpu_s": time.process_time()}), flush=True)
    if int(runs):
        warm = [milliseconds(answer, text, int(runs)) for text in texts]
        print(json.dumps({"warm_ms": warm, "peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
