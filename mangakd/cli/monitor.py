"""`python scripts/monitor.py rollout.jsonl`: how a rollout goes. Its table, and .html and .md beside the log.

With student= and teacher=, which are model folders, the drift check (check_drift.py) then runs on the texts that the rollout
kept.
"""

from pathlib import Path

from omegaconf import DictConfig

from mangakd.cli.logs import start_logging
from mangakd.core.errors import UserError
from mangakd.core.invocation import command
from mangakd.evaluation import rollout
from mangakd.evaluation.report.markdown import page
from mangakd.evaluation.report.write import write


def run(config: DictConfig) -> None:
    """Raises UserError for what is no log; SystemExit(1) when the drift check finds drift."""
    start_logging(None)
    if config.log is None:
        raise UserError(f"log is not set: {command('monitor')} rollout.jsonl. Give the log: of the rollout's yaml.")
    log = Path(str(config.log)).expanduser()
    lines = rollout.read(log)
    parts = rollout.sections(lines)
    write(log.with_suffix(""), f"Rollout {log.name}", parts)
    print(page(f"Rollout {log.name}", parts[:3]))
    print(f"plots: {log.with_suffix('.html')}")
    if config.compare.student is not None or config.compare.teacher is not None:
        _check_drift(config, lines)


def _check_drift(config: DictConfig, lines: list[rollout.Line]) -> None:
    if config.compare.data is None:
        texts = next((line["texts"] for line in reversed(lines) if line.get("texts")), None)
        if texts is None or not Path(texts).expanduser().is_file():
            raise UserError(
                "the rollout kept no texts, so there is nothing to check for drift. Set texts: in its yaml, if the texts' owners "
                "allow it, or give data=<file> with new texts."
            )
        config.compare.data = texts
    from mangakd.cli import check_drift  # torch, which a table does without

    check_drift.run(config)
