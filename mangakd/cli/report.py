"""`python scripts/report.py <folder>`: report.html and report.md of a run or of a sweep, made again from what they kept.

latency=true first measures the student: one text at a time, one thread, from text to answer, on this machine.
"""

import json
import re
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mangakd.cli import judges
from mangakd.cli.logs import start_logging
from mangakd.cli.typed import typed_words
from mangakd.core.errors import UserError
from mangakd.evaluation import gate
from mangakd.evaluation.report.measure import LATENCY
from mangakd.evaluation.report.sweep import write_sweep
from mangakd.evaluation.report.write import write_report
from mangakd.evaluation.sweep import is_sweep


def run(config: DictConfig) -> None:
    """Write both files. Raises UserError where the folder holds no finished run."""
    start_logging(None)
    folder = run_folder(config)
    judge = judges.of_run(folder)
    if is_sweep(folder):
        table = write_sweep(folder, judge, config.resamples, config.seed)
        print(f"{table}\nreport: {folder / 'report.html'} and report.md")
        return
    if config.latency:
        from mangakd.cli.latency import latency  # torch and transformers, which nothing else here needs

        times = latency(folder)
        (folder / LATENCY).write_text(json.dumps(times, indent=2) + "\n")
        print("latency of the student: median {p50_ms:.1f} ms, 95th percentile {p95_ms:.1f} ms".format(**times))
    lines = write_report(folder, judge, gate_lines(config, folder), config.resamples, config.seed)
    print(f"gate: {gate.summary(lines)}\nreport: {folder / 'report.html'} and report.md")


def run_folder(config: DictConfig) -> Path:
    if config.run is None:
        raise UserError("give the folder of a run: run=outputs/intent/…")
    return Path(str(config.run)).expanduser()


def gate_lines(config: DictConfig, folder: Path) -> dict[str, Any]:
    """The lines of the run's own gate, with what was typed on top; those of `gate=<name>` where a gate was named."""
    typed = [word.lstrip("+") for word in typed_words()] if HydraConfig.initialized() else []
    file = folder / "config.yaml"
    own = OmegaConf.select(OmegaConf.load(file), "gate") if file.is_file() else None
    if own is None or any(re.match(r"gate[=@]", word) for word in typed):
        return OmegaConf.to_container(config.gate, resolve=True)  # type: ignore[return-value]
    lines: dict[str, Any] = OmegaConf.to_container(own, resolve=True)  # type: ignore[assignment]
    for key in (word.partition("=")[0] for word in typed):
        if key.startswith("~gate."):
            lines.pop(key.split(".")[1], None)
        elif key.startswith("gate."):
            _, name, *entry = key.split(".")
            new = config.gate[name]
            if entry and lines.get(name) is not None:
                lines[name] |= {entry[0]: new[entry[0]]}
            else:
                lines[name] = OmegaConf.to_container(new, resolve=True) if OmegaConf.is_config(new) else new
    return lines
