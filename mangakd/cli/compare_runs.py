"""`python scripts/compare_runs.py A B …`: runs side by side, with paired intervals where they share their test rows."""

from pathlib import Path

from omegaconf import DictConfig

from mangakd.cli import judges
from mangakd.cli.logs import start_logging
from mangakd.evaluation.report import compare, markdown
from mangakd.evaluation.report.blocks import Figure, Section
from mangakd.evaluation.report.write import write


def run(config: DictConfig) -> None:
    """Print the tables, write them with the curves. Raises UserError where a folder holds no finished run."""
    start_logging(None)
    folders = [Path(str(folder)).expanduser() for folder in config.runs]
    runs = compare.read(folders)
    parts = compare.sections(runs, judges.of_runs(folders), config.resamples, config.seed)
    tables = [Section(part.title, [block for block in part.blocks if not isinstance(block, Figure)]) for part in parts]
    title = f"{len(folders)} runs"
    print(markdown.page(title, tables))
    out = Path(str(config.out)).expanduser()
    write(out, title, parts)
    print(f"with curves: {out}.html and {out.name}.md")
