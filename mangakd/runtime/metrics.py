"""The service's metrics, in Prometheus's text format 0.0.4.

A counter is a dict, and the client library would be a dependency in place of sixty lines. One thread writes each metric, so there
are no locks. Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import bisect
import math
from collections.abc import Iterable, Mapping

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
Labels = tuple[tuple[str, str], ...]


class Counter:
    """A number for each set of labels; it only grows. start: sets of labels that are 0 before anything is counted."""

    def __init__(self, name: str, help_text: str, start: Iterable[Mapping[str, str]] = ()):
        self.name, self._help = name, help_text
        self.values: dict[Labels, float] = {tuple(labels.items()): 0 for labels in start}

    def add(self, amount: float = 1, **labels: str) -> None:
        key = tuple(labels.items())
        self.values[key] = self.values.get(key, 0) + amount

    def lines(self) -> Iterable[str]:
        yield from _head(self.name, self._help, "counter")
        for key, value in self.values.items():
            yield f"{self.name}{_braces(key)} {_number(value)}"


class Histogram:
    """The number of observations up to each of `bounds`, their total number and their sum."""

    def __init__(self, name: str, help_text: str, bounds: tuple[float, ...]):
        self.name, self._help, self._bounds = name, help_text, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self) -> Iterable[str]:
        yield from _head(self.name, self._help, "histogram")
        yield from self.samples()

    def samples(self, labels: Labels = ()) -> Iterable[str]:
        """The lines without the head, each with `labels`."""
        total = 0
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            total += count
            yield f"{self.name}_bucket{_braces((*labels, ('le', _number(bound))))} {total}"
        yield f"{self.name}_sum{_braces(labels)} {_number(self._sum)}"
        yield f"{self.name}_count{_braces(labels)} {total}"


class Histograms:
    """A histogram for each value of one label."""

    def __init__(self, name: str, help_text: str, label: str, bounds: tuple[float, ...]):
        self.name, self._help, self._label, self._bounds = name, help_text, label, bounds
        self._histograms: dict[str, Histogram] = {}

    def observe(self, value: str, number: float) -> None:
        """value: of the label."""
        if value not in self._histograms:
            self._histograms[value] = Histogram(self.name, self._help, self._bounds)
        self._histograms[value].observe(number)

    def lines(self) -> Iterable[str]:
        yield from _head(self.name, self._help, "histogram")
        for value, histogram in self._histograms.items():
            yield from histogram.samples(((self._label, value),))


def gauge(name: str, help_text: str, value: float, **labels: str) -> Iterable[str]:
    """A number that is read at the time of a scrape."""
    yield from _head(name, help_text, "gauge")
    yield f"{name}{_braces(tuple(labels.items()))} {_number(value)}"


def gauges(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Iterable[str]:
    """A number for each value of one label, read at the time of a scrape."""
    yield from _head(name, help_text, "gauge")
    for value, number in values.items():
        yield f"{name}{_braces(((label, value),))} {_number(number)}"


def page(*families: Iterable[str]) -> str:
    return "\n".join(line for family in families for line in family) + "\n"


def _head(name: str, help_text: str, kind: str) -> Iterable[str]:
    return (f"# HELP {name} {help_text}", f"# TYPE {name} {kind}")


def _braces(labels: Labels) -> str:
    pairs = ",".join(f'{name}="{_escape(value)}"' for name, value in labels)
    return f"{{{pairs}}}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return "+Inf" if value == math.inf else f"{value:g}" if value < 1e6 else repr(value)
