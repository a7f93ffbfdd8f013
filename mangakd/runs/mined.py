"""What the teacher adds to the training rows before training, such as hard negatives: mined once, then cached."""

from pathlib import Path

import numpy as np

from mangakd.core import ranks
from mangakd.core.locks import waiting_lock
from mangakd.core.requires import Need
from mangakd.data.encoded import EncodedSplit
from mangakd.data.gather import gather
from mangakd.data.loader import EvalBatches
from mangakd.data.rows import Rows
from mangakd.tasks.base import Task
from mangakd.teachers.base import TeacherProvider, digest
from mangakd.training.callbacks.progress import progress
from mangakd.training.hardware import Hardware


def with_mined(
    task: Task, rows: Rows, train: EncodedSplit, teacher: TeacherProvider, hardware: Hardware, cache: Path, data: str
) -> EncodedSplit:
    """The training split with what `task.mine` gives. data: digest of the training rows. All ranks call it together."""
    if task.mining is None:
        return train
    weights = getattr(teacher, "weights", None)
    name = digest(task.mining, teacher.fingerprint, weights, hardware.precision, data, train.teacher.keys.tobytes())
    file = cache / "mined" / f"{name}.npy"

    def answers(positions: np.ndarray) -> np.ndarray:
        teacher.prepare(hardware.device, Need(answer=True))
        with progress("teacher mines negatives", len(positions)) as advance:
            batches = EvalBatches(train.sequences, hardware.eval_batch_size, positions)
            ask = gather(lambda batch: teacher(batch).answer, batches, hardware.device, advance, hardware.precision)
        return ask.numpy()

    with ranks.first_then_others(), waiting_lock(cache / "locks" / name, "mining the same negatives"):
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch = file.with_suffix(".tmp.npy")
            np.save(scratch, task.mine(rows, train, answers))
            scratch.replace(file)
    return train.extended(np.load(file))
