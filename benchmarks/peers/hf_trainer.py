"""Distillation with the Hugging Face Trainer and a hand-written loss: samples per second of a training step.

    python benchmarks/peers/hf_trainer.py --data PATH --padding max|dynamic --steps 40 --warmup 5

Prints one JSON line. The training loop is `transformers.Trainer.train()`; only `compute_loss` is ours, as its
documentation tells a user to do for a custom loss: KL divergence at temperature T times T², plus cross entropy.
`--padding max` pads every text to 64 tokens when tokenising, `--padding dynamic` uses `DataCollatorWithPadding`.
Three defaults are changed so that all peers do the same work: no gradient clipping, a constant learning rate, and
no checkpoint, log or progress bar during the run.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from common import (
    ALPHA,
    LEARNING_RATE,
    TEMPERATURE,
    SeededOrder,
    Setup,
    make_optimizer,
    parse_settings,
    prepare,
    report,
)
from transformers import PrinterCallback, Trainer, TrainingArguments


class DistillationTrainer(Trainer):
    """The Trainer with a live teacher in its loss, and the order of texts that all peers share."""

    def __init__(self, *args: Any, teacher: torch.nn.Module, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        with torch.no_grad():
            target = F.softmax(self.teacher(**inputs).logits / TEMPERATURE, dim=-1)
        log_probs = F.log_softmax(outputs.logits / TEMPERATURE, dim=-1)
        soft = F.kl_div(log_probs, target, reduction="batchmean") * TEMPERATURE**2
        loss = ALPHA * soft + (1 - ALPHA) * F.cross_entropy(outputs.logits, labels)
        return (loss, outputs) if return_outputs else loss

    def _get_train_sampler(self, train_dataset: Any = None) -> SeededOrder:
        return SeededOrder(train_dataset or self.train_dataset, self.args.seed)


def training_arguments(setup: Setup, folder: str) -> TrainingArguments:
    settings = setup.settings
    return TrainingArguments(
        output_dir=folder,
        max_steps=settings.total_steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        seed=settings.seed,
        use_cpu=True,
        dataloader_drop_last=True,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def main() -> None:
    setup = prepare(parse_settings(__doc__.splitlines()[0]))
    with tempfile.TemporaryDirectory() as folder:
        trainer = DistillationTrainer(
            model=setup.student,
            args=training_arguments(setup, folder),
            train_dataset=setup.train,
            data_collator=setup.collate,
            optimizers=(make_optimizer(setup), None),
            teacher=setup.teacher,
        )
        trainer.remove_callback(PrinterCallback)  # it would print a summary beside our JSON line
        trainer.train()
    report(setup, "transformers.Trainer", transformers.__version__)


if __name__ == "__main__":
    main()
