"""One progress bar for a whole fit: title, losses per term, samples per second, the latest score, remaining time.

On a terminal rich draws the bar. Elsewhere (a log file, CI) a line is printed every half minute and after each epoch.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import lightning as L
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

LINE_EVERY = 30.0  # seconds between lines without a terminal
REFRESH = 0.5  # seconds between two readings of the losses: a reading synchronises with the device


def bar(console: Console | None = None) -> Progress:
    """The layout of all of mangakd's bars."""
    return Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        refresh_per_second=1 / REFRESH,  # rich's default of ten takes 1.5 % of a core from training
    )


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar that counts rows."""
    with bar() as display:
        task = display.add_task(title, total=total, note="rows")
        yield lambda rows: display.update(task, advance=rows)


@contextlib.contextmanager
def noted_progress(title: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar with a note. Call the yielded function with what is done so far. Without a terminal it prints a line at times."""
    with bar() as display:
        task = display.add_task(title, total=total, note="")
        last = start = time.perf_counter()
        first: int | None = None

        def show(count: int, note: str) -> None:
            nonlocal last, first
            first = count if first is None else first
            display.update(task, completed=count, note=note)
            now = time.perf_counter()
            if not display.console.is_terminal and (now - last > LINE_EVERY or count == total):
                last = now
                left = f" · {(now - start) / (count - first) * (total - count):.0f} s left" if count > first else ""
                print(f"{title}: {count}/{total} · {note}{left}", flush=True)

        yield show


@contextlib.contextmanager
def step_progress(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """A bar for `total` steps. Call the yielded function with a step's name before it. Without a terminal it prints a line."""
    with bar() as display:
        task = display.add_task(title, total=total, note="")
        count = 0

        def step(doing: str) -> None:
            nonlocal count
            display.update(task, completed=count, note=doing)
            count += 1
            if not display.console.is_terminal:
                print(f"{title} {count}/{total}: {doing}", flush=True)

        yield step
        display.update(task, completed=total, note="done")


class RunProgress(L.Callback):
    """title: of the fit, for example `distil student`. steps: optimizer steps of the fit. scores: validation scores to show.

    Only the first rank shows the bar. `samples` is the number of this rank's samples, times `world`.
    """

    def __init__(self, title: str, steps: int, world: int = 1, scores: Iterable[str] = ()) -> None:
        self._title, self._total, self._world = title, steps, world
        self._scores = [f"val/{name}" for name in scores]
        self._console = Console()
        self._bar: Progress | None = None
        self._last = self._start_time = 0.0
        self.seconds = 0.0  # in training steps, without validation and checkpoints
        self._step_start = 0.0
        self.samples = 0

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds, "samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.seconds, self.samples = state_dict["seconds"], int(state_dict["samples"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = self._start_time = time.perf_counter()
        if self._console.is_terminal and trainer.is_global_zero:
            self._bar = bar(self._console)
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total, completed=trainer.global_step, note="")
        self._first_step = trainer.global_step

    def on_train_batch_start(self, *_: Any) -> None:
        self._step_start = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        self.seconds += now - self._step_start
        self.samples += len(batch["key"]) * self._world
        if self._bar is not None:
            if now - self._last > REFRESH:
                self._last = now
                self._bar.update(self._task, completed=trainer.global_step, note=self._note(trainer))
        elif now - self._last > LINE_EVERY and trainer.is_global_zero:
            self._last = now
            self._print(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, note=self._note(trainer))
        elif trainer.is_global_zero:
            self._print(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _note(self, trainer: L.Trainer) -> str:
        values = trainer.callback_metrics
        terms = " ".join(
            f"{k.removeprefix('train/loss/')} {float(v):.3f}" for k, v in values.items() if k.startswith("train/loss/")
        )
        loss = f"loss {float(values['train/loss']):.3f}" if "train/loss" in values else ""
        scores = " ".join(f"{key} {float(values[key]):.3f}" for key in self._scores if key in values)
        rate = f"{self.samples / max(self.seconds, 1e-9):.0f} samples/s"
        epoch = f"epoch {min(trainer.current_epoch + 1, trainer.max_epochs or 0)}/{trainer.max_epochs}"
        return " · ".join(part for part in (epoch, f"{loss} ({terms})", rate, scores) if part)

    def _print(self, trainer: L.Trainer) -> None:
        steps = trainer.global_step - self._first_step
        remaining = (time.perf_counter() - self._start_time) / max(steps, 1) * (self._total - trainer.global_step)
        print(
            f"{self._title}: step {trainer.global_step}/{self._total} · {self._note(trainer)} · {remaining:.0f} s left",
            flush=True,
        )
