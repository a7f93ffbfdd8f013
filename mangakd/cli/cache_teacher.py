"""`python scripts/cache_teacher.py`: fill the store that `teacher=cached` reads, or verify it.

The same overrides as the training runs that will read it; what is stored already is not asked for again. All devices of the
hardware profile fill, also those that torchrun or srun start.
"""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from mangakd.cli.given import run_of
from mangakd.cli.logs import start_logging
from mangakd.cli.processes import join, on_each_device, preflight_passes
from mangakd.core import ranks
from mangakd.core.errors import UserError
from mangakd.core.numbers import largest
from mangakd.runs.run import Run
from mangakd.store.manifest import Manifest
from mangakd.teachers.base import TeacherProvider
from mangakd.teachers.cached import Cached
from mangakd.teachers.fill import fill
from mangakd.teachers.options import TeacherContext
from mangakd.teachers.verify import verify

# Nats. Batches of other shapes change the last bits of a forward: by 0.1 in bf16 with MiniLM, while another teacher changes
# whole nats.
TOLERANCE, TOLERANCE_16_BITS = 1e-3, 0.5


def run(config: DictConfig) -> None:
    """Fill or verify. Raises UserError when the store and the live teacher differ."""
    this = run_of(config, Path(HydraConfig.get().runtime.output_dir))
    is_rank = join(config, this)
    if preflight_passes(config, this):
        if not isinstance(this.parts.teacher, Cached):
            name = type(this.parts.teacher).__name__.lower()
            raise UserError(f"cache_teacher fills the store of teacher=cached; teacher={name} has none.")
        on_each_device(cache, config, this, is_rank, folder=None)
    ranks.finish()


def cache(config: DictConfig, this: Run) -> None:
    """On every rank: all of them fill, the first one verifies."""
    start_logging(None)
    options = this.parts.teacher
    assert isinstance(options, Cached)
    with ranks.first_then_others():  # the other ranks find the texts tokenised and the teacher fine-tuned
        context = this.material.context
        teacher = options.live(context)
    manifest = options.manifest(teacher, context)
    folder = options.folder(manifest, context)
    if config.verify:
        if ranks.is_first():
            check(folder, manifest, teacher, context)
        return
    count = fill(folder, manifest, teacher, context)
    if ranks.is_first():
        examples = sum(len(split.sequences) for split in context.splits.values())
        print(f"{count} of {examples} examples written, {manifest.bytes_each}: {folder}")


def check(folder: Path, manifest: Manifest, teacher: TeacherProvider, context: TeacherContext) -> None:
    difference = largest(verify(folder, manifest, teacher, name, context) for name in context.splits)
    what = "Δp" if manifest.of_tokens else "Δ log p"
    tolerance = TOLERANCE if context.precision == "32-true" else TOLERANCE_16_BITS
    if not difference <= tolerance:
        raise UserError(
            f"the store {folder} and the live teacher differ: max |{what}| = {difference:.2e} (at most {tolerance:.0e} "
            "is rounding). Delete the folder and fill it again."
        )
    print(f"verified: every shard's hash, and a sample against the live teacher, max |{what}| = {difference:.1e}")
