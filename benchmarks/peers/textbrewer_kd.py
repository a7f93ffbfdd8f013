"""Distillation with TextBrewer's GeneralDistiller: samples per second of a training step.

    python benchmarks/peers/textbrewer_kd.py --data PATH --padding max|dynamic --steps 40 --warmup 5

Prints one JSON line. The training loop is `GeneralDistiller.train(num_steps=...)` with `kd_loss_type="ce"` at
temperature 4 and adaptors that return logits and the label loss, as its documentation shows.
`--padding max` pads every text to 64 tokens when tokenising, `--padding dynamic` pads to the longest of the batch.

TextBrewer's soft cross entropy is not multiplied by T². T² goes into `kd_loss_weight` here, which gives the same
gradients as the other peers' T² times KL divergence (they differ by the teacher's entropy, a constant).
The labels are part of the batch that TextBrewer hands to both models, so the teacher works out a label loss too.
"""

from __future__ import annotations

import tempfile
from typing import Any

import textbrewer
import torch
from common import ALPHA, TEMPERATURE, SeededOrder, Setup, make_optimizer, parse_settings, prepare, report
from torch.utils.data import DataLoader


def adaptor(_batch: dict[str, torch.Tensor], outputs: Any) -> dict[str, Any]:
    """What TextBrewer reads from a model's output, for the teacher and the student alike."""
    return {"logits": outputs.logits, "losses": outputs.loss}


def make_distiller(setup: Setup, folder: str) -> textbrewer.GeneralDistiller:
    train_config = textbrewer.TrainingConfig(
        device="cpu",
        output_dir=folder,
        log_dir=None,
        ckpt_steps=setup.settings.total_steps,  # it must save at least once: after the last step, off the clock
    )
    distill_config = textbrewer.DistillationConfig(
        temperature=TEMPERATURE,
        kd_loss_type="ce",
        kd_loss_weight=ALPHA * TEMPERATURE**2,
        hard_label_weight=1 - ALPHA,
    )
    return textbrewer.GeneralDistiller(train_config, distill_config, setup.teacher, setup.student, adaptor, adaptor)


def main() -> None:
    setup = prepare(parse_settings(__doc__.splitlines()[0]))
    settings = setup.settings
    order = SeededOrder(setup.train, settings.seed)
    loader = DataLoader(setup.train, settings.batch_size, sampler=order, drop_last=True, collate_fn=setup.collate)
    with tempfile.TemporaryDirectory() as folder:
        distiller = make_distiller(setup, folder)
        with distiller:  # sets train and eval mode; yields nothing
            # It passes a batch by keyword only if its type is exactly dict; the padding collator gives a BatchEncoding.
            distiller.train(make_optimizer(setup), loader, num_steps=settings.total_steps, batch_postprocessor=dict)
    report(setup, "TextBrewer", textbrewer.__version__)


if __name__ == "__main__":
    main()
