"""`Exports`: the callbacks of export=[…] and the options that they share."""

from dataclasses import dataclass

from mangakd.export.run import Options
from mangakd.export.variants import Variant, find_variants
from mangakd.training.callbacks.export import Export


@dataclass(frozen=True)
class Exports:
    """callbacks: none for export=[]."""

    callbacks: list[Export]
    options: Options

    @property
    def rows(self) -> list[Variant]:
        """Raises UserError for variants that are unknown or named twice, and for packages that are not installed."""
        return find_variants([name for callback in self.callbacks for name in callback.variants])
