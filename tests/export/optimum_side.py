"""Run where optimum-intel is installed, without mangakd: python optimum_side.py STUDENT OUT FOLDER…  < texts as JSON

Exports STUDENT into OUT as optimum-intel does, and prints what OVModelForSequenceClassification and a pipeline answer from each
FOLDER, as JSON: folder → {"logits": (N, C), "pipeline": N dicts of label → score}.
"""

import json
import sys

from optimum.intel import OVModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

# optimum-intel leaves the precision to OpenVINO, which computes in bf16 where the CPU has units for it.
PRECISE = {"INFERENCE_PRECISION_HINT": "f32"}


def main(student: str, out: str, *folders: str) -> None:
    texts = json.load(sys.stdin)
    exported = OVModelForSequenceClassification.from_pretrained(student, export=True)
    exported.save_pretrained(out)
    AutoTokenizer.from_pretrained(student).save_pretrained(out)
    print(json.dumps({folder: answers(folder, texts) for folder in folders}))


def answers(folder: str, texts: list[str]) -> dict[str, object]:
    model = OVModelForSequenceClassification.from_pretrained(folder, ov_config=PRECISE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    logits = model(**tokenizer(texts, truncation=True, padding=True, return_tensors="pt")).logits
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    scores = classify(texts, truncation=True, top_k=None)
    return {"logits": logits.tolist(), "pipeline": [{s["label"]: s["score"] for s in row} for row in scores]}


if __name__ == "__main__":
    main(*sys.argv[1:])
