"""Distillation of a reranker or an embedding model with sentence-transformers, from scores or vectors that a teacher wrote.

    python benchmarks/peers/sentence_transformers_kd.py --task rerank|embedding --data MEDQUAD --order random|length

Prints one JSON line. The loop is CrossEncoderTrainer with MSELoss, or SentenceTransformerTrainer with MSELoss, the losses its
documentation names for distillation with precomputed labels. Models, texts, batches and the clock are those of rank_common.py.
`--order random` leaves the trainer's order; `--order length` gives it batches of pairs of similar length, which are what its
best settings would be: it offers no such option, but takes a batch sampler.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any, ClassVar

import rank_common
import sentence_transformers
import torch
from datasets import Dataset
from sentence_transformers import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.cross_encoder.losses import MSELoss as ScoreMSE
from sentence_transformers.sentence_transformer.losses import MSELoss as VectorMSE
from transformers import PrinterCallback

MEGA = 50  # batches whose rows are sorted by length together, as in transformers' LengthGroupedSampler


class ByLength(DefaultBatchSampler):
    """Batches of texts of similar length, in random order."""

    lengths: ClassVar[list[int]]

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        size = self.batch_size
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches = []
        for start in range(0, len(order), MEGA * size):
            rows = sorted(order[start : start + MEGA * size], key=self.lengths.__getitem__)
            batches += [rows[i : i + size] for i in range(0, len(rows), size)]
        for i in torch.randperm(len(batches), generator=generator).tolist():
            if len(batches[i]) == size:
                yield batches[i]


def arguments(options: Any, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder, "max_steps": options.warmup + options.steps, "per_device_train_batch_size": options.batch_size,
        "learning_rate": rank_common.LEARNING_RATE, "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
        "seed": options.seed, "use_cpu": True, "bf16": options.bf16, "dataloader_drop_last": True, "dataloader_pin_memory": False,
        "save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True,
        **({"batch_sampler": ByLength} if options.order == "length" else {}),
    }  # fmt: skip


def rerank(options: Any, folder: str) -> tuple[Any, int]:
    pairs = rank_common.pairs(options)
    scores = rank_common.scores(len(pairs))
    data = Dataset.from_dict(
        {"query": [q for q, _ in pairs], "document": [d for _, d in pairs], "label": scores.tolist()}
    )
    ByLength.lengths = [len(q) + len(d) for q, d in pairs]
    model = CrossEncoder(
        rank_common.folder(options.layers, "rerank", folder), max_length=rank_common.MAX_LENGTH, num_labels=1
    )
    args = CrossEncoderTrainingArguments(**arguments(options, folder))
    return CrossEncoderTrainer(model=model, args=args, train_dataset=data, loss=ScoreMSE(model)), options.batch_size


def embedding(options: Any, folder: str) -> tuple[Any, int]:
    texts = rank_common.texts(options)
    vectors = rank_common.vectors(len(texts))
    data = Dataset.from_dict({"sentence": texts, "label": vectors.tolist()})
    ByLength.lengths = [len(text) for text in texts]
    model = SentenceTransformer(rank_common.folder(options.layers, "embedding", folder))
    model.max_seq_length = rank_common.MAX_LENGTH
    args = SentenceTransformerTrainingArguments(**arguments(options, folder))
    trainer = SentenceTransformerTrainer(model=model, args=args, train_dataset=data, loss=VectorMSE(model))
    return trainer, options.batch_size


def main() -> None:
    options = rank_common.parse(__doc__.splitlines()[0], ("random", "length"))
    torch.set_num_threads(1)
    clock = rank_common.StepClock(options.warmup, options.steps)
    with tempfile.TemporaryDirectory() as folder:
        trainer, samples = {"rerank": rerank, "embedding": embedding}[options.task](options, folder)
        trainer.remove_callback(PrinterCallback)
        with clock.watch_any():
            trainer.train()
    rank_common.report(
        options, clock, "sentence-transformers", sentence_transformers.__version__, samples * options.steps
    )


if __name__ == "__main__":
    main()
