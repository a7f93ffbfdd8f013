"""What Lightning would refuse, asked for before a teacher is trained: its Trainer checks its own arguments."""

import logging
from typing import Any

import lightning as L

from mangakd.core.errors import UserError
from mangakd.training.fit import Hardware


def check_trainer(hardware: Hardware, options: dict[str, Any]) -> None:
    """Raises UserError for `trainer.…` entries or a precision that lightning.Trainer does not take.

    On one CPU: whether this machine has the accelerator is checked elsewhere, in clearer words.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)  # what it found, and tips
    try:
        L.Trainer(
            accelerator="cpu",
            devices=1,
            precision=hardware.precision,  # type: ignore[arg-type]
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
    except Exception as error:  # TypeError, ValueError and Lightning's own MisconfigurationException
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"lightning.Trainer refuses hardware.precision={hardware.precision} with trainer={options}: {reason}. Mend that key."
        ) from error
