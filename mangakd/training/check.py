"""Checks the Trainer's arguments before a teacher is trained: lightning.Trainer validates its own arguments."""

import logging
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments import LightningEnvironment

from mangakd.core.errors import UserError
from mangakd.training.hardware import Hardware

# Arguments of lightning.Trainer that other config keys set.
OWNED = {
    "accelerator": "hardware.accelerator",
    "devices": "hardware.devices",
    "num_nodes": "hardware.nodes",
    "strategy": "hardware.strategy",
    "precision": "hardware.precision",
    "accumulate_grad_batches": "hardware.accumulate",
    "gradient_clip_val": "optim.clip",
    "logger": "logger",
    "default_root_dir": "hydra.run.dir",
}


def check_trainer(hardware: Hardware, options: dict[str, Any]) -> None:
    """Raises UserError for `trainer.…` entries or a precision that lightning.Trainer rejects.

    The check uses one CPU. training/machine.py checks whether this machine has the accelerator, with a clearer message.
    """
    problems = [f"trainer.{name} is set by {OWNED[name]}: set that key." for name in options if name in OWNED]
    if problems:
        raise UserError("\n- ".join(problems))
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(
        logging.WARNING
    )  # hide its list of devices and its tips
    try:
        L.Trainer(
            accelerator="cpu",
            devices=1,
            precision=hardware.precision if hardware.precision != "16-mixed" else None,  # type: ignore[arg-type]
            plugins=[
                LightningEnvironment()
            ],  # without it, Lightning takes a shell inside a SLURM allocation for a job's task
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
    except Exception as error:  # TypeError, ValueError and Lightning's own MisconfigurationException
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"lightning.Trainer refuses hardware.precision={hardware.precision} with trainer={options}: {reason}. Fix that key."
        ) from error
