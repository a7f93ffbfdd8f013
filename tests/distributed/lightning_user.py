"""A Lightning user's own script: lightning_user.py <devices> <folder>. Leaves the student of each rank in the folder."""

import os
import sys
from pathlib import Path

import lightning as L
import torch

from mangakd import DistillModule, Optim, losses
from mangakd.core.outputs import Batch, Outputs
from mangakd.losses.base import LossOutput

INPUTS = ("input_ids", "attention_mask")


class Spread(losses.Output):
    """Logits of a batch lie as far from their mean as the teacher's: it compares the rows of all devices."""

    additive = False
    gathers = ()

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> LossOutput:
        assert teacher is not None
        ours, theirs = (side.answer - side.answer.mean(0) for side in (student, teacher))
        each = (ours - theirs).square().sum(1)
        return LossOutput(each.sum(), each.new_full((), len(each)))


if __name__ == "__main__":  # Lightning starts the second process by running this file again
    sys.path.append(str(Path(__file__).parents[1]))
    from tiny import encoder, split
    from torch.utils.data import DataLoader, DistributedSampler

    devices, folder = int(sys.argv[1]), Path(sys.argv[2])
    data = split(64, 1)
    rows = [data.collate([i]) for i in range(64)]

    def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
        """Three tokens of each: a mean over ranks is then a mean over tokens, too."""
        inputs = {name: torch.cat([each["student"][name][:, :3] for each in examples]) for name in INPUTS}
        return {**inputs, "labels": torch.cat([each["labels"] for each in examples])}

    module = DistillModule(
        student=encoder(1, hidden=8, dropout=0.0).model,
        teacher=encoder(2, layers=4).model,
        losses={
            "hard_label": losses.HardLabel(weight=0.3),
            "output": losses.Output(weight=0.7),
            "hidden": losses.Hidden(),
            "spread": Spread(),
        },
        optim=Optim(lr=1e-3),
    )
    trainer = L.Trainer(
        accelerator="cpu", devices=devices, strategy="ddp" if devices > 1 else "auto", max_epochs=2, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    # Lightning's own sampler shuffles, and then no two numbers of processes take the same rows.
    sampler = DistributedSampler(rows, devices, int(os.environ.get("LOCAL_RANK", 0)), shuffle=False)  # type: ignore[arg-type]
    loader = DataLoader(rows, 8 // devices, sampler=sampler, collate_fn=collate)  # type: ignore[arg-type]
    trainer.fit(module, loader, loader)
    torch.save(module.state_dict(), folder / f"{devices}_{trainer.global_rank}.pt")
    if trainer.is_global_zero:
        module.student.save_pretrained(folder / "student")
