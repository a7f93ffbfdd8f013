"""The metrics page is what Prometheus reads: golden text, and its own parser where it is installed."""

import pytest

from mangakd.runtime import metrics


def page() -> str:
    counter = metrics.Counter("requests_total", "Requests.")
    counter.add(path="/predict", status="200")
    counter.add(2, path='a"b\\c\nd', status="429")
    histogram = metrics.Histogram("seconds", "Time.", (0.5, 1.0))
    for value in (0.2, 0.5, 0.7, 3.0):
        histogram.observe(value)
    return metrics.page(counter.lines(), histogram.lines(), metrics.gauge("ready", "Is it?", 1, variant="int8"))


def test_the_text_format() -> None:
    assert (
        page()
        == r"""# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{path="/predict",status="200"} 1
requests_total{path="a\"b\\c\nd",status="429"} 2
# HELP seconds Time.
# TYPE seconds histogram
seconds_bucket{le="0.5"} 2
seconds_bucket{le="1"} 3
seconds_bucket{le="+Inf"} 4
seconds_sum 4.4
seconds_count 4
# HELP ready Is it?
# TYPE ready gauge
ready{variant="int8"} 1
"""
    )


def test_large_numbers_keep_every_digit() -> None:
    counter = metrics.Counter("texts_total", "Texts.")
    counter.add(123_456_789)
    assert list(counter.lines())[-1] in ("texts_total 123456789", "texts_total 123456789.0")


def test_prometheus_reads_it() -> None:
    parser = pytest.importorskip("prometheus_client.parser", reason="pip install prometheus-client")
    families = {family.name: family for family in parser.text_string_to_metric_families(page())}
    assert families["requests"].samples[1].labels["path"] == 'a"b\\c\nd'
    assert families["seconds"].type == "histogram"
