"""`Run`: a run before it starts, as four groups: what the command gives, the config's objects, the models' sizes, and what
fits work on.

`preflight.check` and `distillation` take a whole run. Every function below them takes the values that it needs.
"""

from dataclasses import dataclass

from mangakd.runs.given import Given
from mangakd.runs.material import Material
from mangakd.runs.models import Models
from mangakd.runs.parts import Parts


@dataclass(frozen=True)
class Run:
    given: Given
    parts: Parts
    models: Models
    material: Material

    @classmethod
    def of(cls, given: Given) -> "Run":
        parts = Parts(given)
        models = Models(parts)
        return cls(given, parts, models, Material(given, parts, models))
