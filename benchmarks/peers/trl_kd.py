"""Distillation of a language model with TRL, from a live teacher and the answers of a data set.

    python benchmarks/peers/trl_kd.py --variant gkd|distillation --data GSM8K --teacher FOLDER [--by-length]

Prints one JSON line. *gkd*: GKDTrainer with lmbda=0 (all answers are the data's) and beta=0 (forward KL). *distillation*:
DistillationTrainer with beta=0; it writes all answers itself, so this script hands it the data's in place of generated ones:
the rest of its step is as it comes. `--by-length` is the trainer's own option for batches of similar length.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import token_common
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import DistillationConfig, DistillationTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer


class Counted:
    """Keeps the loss of each step, and counts tokens that are no padding."""

    losses: list[float]

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        result = super().compute_loss(model, inputs, *args, **more)  # type: ignore[misc]
        self.losses = [
            *getattr(self, "losses", ()),
            float((result[0] if isinstance(result, tuple) else result).detach()),
        ]
        return result


class Gkd(Counted, GKDTrainer):
    pass


class OffPolicy(Counted, DistillationTrainer):
    """Answers of the data set in place of the student's own."""

    answers: dict[tuple[int, ...], list[int]]

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any) -> list[list[int]]:
        return [self.answers[tuple(ids)] for ids in prompt_ids]


def arguments(options: Any, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder, "max_steps": options.warmup + options.steps, "per_device_train_batch_size": options.batch_size,
        "learning_rate": token_common.LEARNING_RATE, "lr_scheduler_type": "constant", "max_grad_norm": 0.0,
        "seed": options.seed, "use_cpu": True, "bf16": options.bf16, "dataloader_drop_last": True,
        "dataloader_pin_memory": False, "save_strategy": "no", "logging_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "beta": 0.0, "gradient_checkpointing": False, "weight_decay": 0.0,
        **({"train_sampling_strategy": "group_by_length"} if options.by_length else {}),
    }  # fmt: skip


def gkd(options: Any, scratch: str, models: list[Any], tokenizer: Any) -> tuple[GKDTrainer, int]:
    messages = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        for question, answer in token_common.rows(options)
    ]
    lengths = [len(tokenizer.apply_chat_template(each, return_dict=True)["input_ids"]) for each in messages]
    data = Dataset.from_dict({"messages": messages, "length": lengths})
    args = GKDConfig(**arguments(options, scratch), lmbda=0.0, max_length=token_common.MAX_LENGTH)
    trainer = Gkd(models[0], models[1], args=args, train_dataset=data, processing_class=tokenizer)
    return trainer, sum(lengths)


def distillation(options: Any, scratch: str, models: list[Any], tokenizer: Any) -> tuple[DistillationTrainer, int]:
    prompts, answers, lengths = [], {}, []
    for question, answer in token_common.rows(options):
        prompt = [{"role": "user", "content": question}]
        whole = [*prompt, {"role": "assistant", "content": answer}]
        start, every = (
            tokenizer.apply_chat_template(messages, add_generation_prompt=generation, return_dict=True)["input_ids"]
            for messages, generation in ((prompt, True), (whole, False))
        )
        prompts.append(prompt)
        answers[tuple(start)] = every[len(start) :]
        lengths.append(len(every))
    args = DistillationConfig(**arguments(options, scratch), max_completion_length=token_common.MAX_LENGTH)
    data = Dataset.from_dict({"prompt": prompts, "length": lengths})
    trainer = OffPolicy(models[0], models[1], args=args, train_dataset=data, processing_class=tokenizer)
    trainer.answers = answers
    return trainer, sum(lengths)


def main() -> None:
    options = token_common.parse(__doc__.splitlines()[0], ("gkd", "distillation"))
    with tempfile.TemporaryDirectory() as scratch:
        folders = [token_common.student(options, scratch), options.teacher]
        models = [AutoModelForCausalLM.from_pretrained(folder) for folder in folders]
        tokenizer = AutoTokenizer.from_pretrained(options.teacher)
        trainer, tokens = {"gkd": gkd, "distillation": distillation}[options.variant](
            options, scratch, models, tokenizer
        )
        trainer.remove_callback(PrinterCallback)
        clock = token_common.StepClock(options.warmup, options.steps)
        with clock.watch_any():
            trainer.train()
        share = options.steps / (options.warmup + options.steps)
        token_common.report(options, clock, "trl", trl.__version__, trainer.losses, round(tokens * share))


if __name__ == "__main__":
    main()
