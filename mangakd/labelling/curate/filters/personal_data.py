"""Personal data: replaced by placeholders, or a reason to leave a row out."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from mangakd.core.errors import UserError, near
from mangakd.labelling.answers import ASKED, BY
from mangakd.labelling.curate.extras import package
from mangakd.labelling.curate.filters.base import Filter
from mangakd.labelling.curate.personal.finder import Finder
from mangakd.labelling.curate.personal.placeholders import Placeholders, texts_in
from mangakd.labelling.curate.personal.recognisers import KINDS, NEED
from mangakd.labelling.curate.record import Record

ACTIONS = ("replace", "leave_out")
NO_TEXTS = frozenset((BY, ASKED))


@dataclass
class PersonalData(Filter):
    """action: replace or leave_out. regions: whose phone numbers count, as US or JP; also which national numbers do.

    kinds: names of placeholders. Raises UserError for a region or kind that there is not.
    """

    title: ClassVar[str] = "rows with personal data"
    action: str = "replace"
    regions: Sequence[str] = ("US", "JP")
    kinds: Sequence[str] = ("EMAIL", "PHONE", "CARD", "IBAN", "IP", "US_SSN", "US_ITIN", "MY_NUMBER")
    values: Counter[str] = field(default_factory=Counter, init=False, repr=False)
    rows: Counter[str] = field(default_factory=Counter, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise UserError(
                f"{NEED}.action={self.action} must be one of {', '.join(ACTIONS)}, or set {NEED}.use=false."
            )
        known = package("phonenumbers", NEED).SUPPORTED_REGIONS
        for region in self.regions:
            if region not in known:
                raise UserError(f"{NEED}.regions has {region!r}, which is no code of a region{near(region, known)}")
        entities = {kind.name: entity for entity, kind in KINDS.items()}
        for kind in self.kinds:
            if kind not in entities:
                raise UserError(
                    f"{NEED}.kinds has {kind!r}; a kind is one of {', '.join(entities)}{near(kind, entities)}"
                )
        self._finder = Finder(tuple(self.regions), [entities[kind] for kind in self.kinds])

    @property
    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("action", "regions", "kinds")}

    def reason(self, record: Record) -> str | None:
        """Names the kinds, never the values."""
        if self.action == "replace":
            return None
        places = self._placeholders(record.cells)
        for name, cell in record.cells.items():
            if name not in NO_TEXTS:
                places.cell(cell)
        counts = places.counts
        return ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items())) or None

    def clean(self, record: Record, order: Sequence[str], fixed: Collection[str], count: bool = True) -> Record:
        """The record with placeholders in all its texts. order: of columns, whose values are numbered in it.

        fixed: columns that hold no free text. count: whether the record counts in the report.
        """
        places = self._placeholders(record.cells)
        columns = [name for name in order if name in record.cells and name not in fixed and name not in NO_TEXTS]
        cells = {name: places.cell(record.cells[name]) for name in columns}
        cleaned = {name: cells.get(name, value) for name, value in record.cells.items()}
        new = replace(record, cells=cleaned, prompt=places.text(record.prompt), answer=places.text(record.answer))
        if count:
            self.values.update(places.counts)
            self.rows.update(dict.fromkeys(places.counts, 1))
        return new

    def text(self, text: str) -> str:
        """A text of a report."""
        return Placeholders(self._finder, [text]).text(text)

    def _placeholders(self, cells: Mapping[str, Any]) -> Placeholders:
        return Placeholders(
            self._finder, [text for name, cell in cells.items() if name not in NO_TEXTS for text in texts_in(cell)]
        )
