"""Fine-tuning of an encoder–decoder with Hugging Face's Seq2SeqTrainer and DataCollatorForSeq2Seq.

    python benchmarks/peers/hf_seq2seq.py --variant random|by_length --data ROWS --model FOLDER

Prints one JSON line. Batches are padded to their longest source and target. *random*: batches in random order, as it comes.
*by_length*: the trainer's option `group_by_length`, over the lengths of the sources. Changed from the defaults so that all sides
do the same work: no gradient clipping, a constant learning rate, no checkpoint, log or progress bar during the run.
"""

from __future__ import annotations

import tempfile
from typing import Any

import seq2seq_common as common
import transformers
from datasets import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)


class Counted(Seq2SeqTrainer):
    """Keeps the loss and the tokens of each step."""

    losses: list[float]
    tokens: list[int]

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        count = int(inputs["attention_mask"].sum() + (inputs["labels"] != -100).sum())
        loss = super().compute_loss(model, inputs, *args, **more)
        self.losses.append(float((loss[0] if isinstance(loss, tuple) else loss).detach()))
        self.tokens.append(count)
        return loss


def main() -> None:
    options = common.parse(__doc__.splitlines()[0], ("random", "by_length"))
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSeq2SeqLM.from_pretrained(options.model)
    rows = common.rows(options)
    data = tokenizer(
        [common.SEPARATOR.join(row["turns"]) for row in rows], text_target=[row["rewrite"] for row in rows],
        max_length=common.SOURCE, truncation=True,
    )  # fmt: skip
    columns = {name: data[name] for name in ("input_ids", "attention_mask", "labels")}
    columns["length"] = [len(ids) for ids in data["input_ids"]]
    clock = common.StepClock(options.warmup, options.steps)
    with tempfile.TemporaryDirectory() as folder:
        args = Seq2SeqTrainingArguments(
            output_dir=folder, max_steps=clock.last, per_device_train_batch_size=options.batch_size,
            learning_rate=common.LEARNING_RATE, lr_scheduler_type="constant", max_grad_norm=0.0, weight_decay=0.0,
            seed=options.seed, use_cpu=True, bf16=options.bf16, dataloader_drop_last=True, dataloader_pin_memory=False,
            save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
            **({"train_sampling_strategy": "group_by_length"} if options.variant == "by_length" else {}),
        )  # fmt: skip
        collate = DataCollatorForSeq2Seq(tokenizer, model=model)
        trainer = Counted(model, args, collate, Dataset.from_dict(columns), processing_class=tokenizer)
        trainer.losses, trainer.tokens = [], []
        trainer.remove_callback(PrinterCallback)
        with clock.watch_any():
            trainer.train()
    common.report(options, clock, "transformers", transformers.__version__, trainer.losses, trainer.tokens)


if __name__ == "__main__":
    main()
