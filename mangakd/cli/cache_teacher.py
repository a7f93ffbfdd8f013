"""`python scripts/cache_teacher.py`: fill the store that `teacher=cached` reads, or verify it.

The same overrides as the training runs that will read it; what is stored already is not asked for again.
"""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mangakd.cli import preflight
from mangakd.cli.given import run_of
from mangakd.cli.logs import start_logging
from mangakd.core.errors import UserError
from mangakd.core.numbers import largest
from mangakd.teachers.cached import Cached
from mangakd.teachers.fill import fill, manifest_of, verify

# Nats. Batches of other shapes change the last bits of a forward: by 0.1 in bf16 with MiniLM, while another teacher changes
# whole nats.
TOLERANCE, TOLERANCE_16_BITS = 1e-3, 0.5


def run(config: DictConfig) -> None:
    """Fill or verify. Raises UserError when the store and the live teacher differ."""
    this = run_of(config, Path(HydraConfig.get().runtime.output_dir))
    start_logging(None)
    preflight.check(config, this)
    options, context = this.parts.teacher, this.material.context
    if not isinstance(options, Cached):
        raise UserError(
            f"cache_teacher fills the store of teacher=cached; teacher={type(options).__name__.lower()} has none."
        )
    teacher = options.live(context)
    manifest = manifest_of(teacher, context.precision)
    folder = options.folder(manifest, context)
    if config.verify:
        difference = largest(verify(folder, teacher, name, context) for name in context.splits)
        tolerance = TOLERANCE if manifest.precision == "32-true" else TOLERANCE_16_BITS
        if not difference <= tolerance:
            raise UserError(
                f"the store {folder} and the live teacher differ: max |Δ log p| = {difference:.2e} (at most {tolerance:.0e} "
                "is rounding). Delete the folder and fill it again."
            )
        print(f"verified: every shard's hash, and a sample against the live teacher, max |Δ log p| = {difference:.1e}")
        return
    written = fill(folder, teacher, context)
    rows = sum(len(split) for split in context.splits.values())
    print(f"{written} of {rows} rows written, {manifest.bytes_per_example()} bytes each: {folder}")
