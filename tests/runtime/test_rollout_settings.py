"""The yaml of a rollout: the two of conf/rollout are the defaults, documented line by line, and mistakes are named."""

import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

try:
    import yaml
except ImportError as missing:
    pytest.skip(f"reads a rollout: pip install pyyaml ({missing})", allow_module_level=True)

from mangakd.core.errors import UserError
from mangakd.runtime.rollout.settings import Risks, Settings, read

CONF = Path(__file__).resolve().parents[2] / "conf" / "rollout"


@pytest.mark.parametrize("name", ["canary", "shadow"])
def test_the_yamls_name_every_key_and_say_what_it_does(name: str) -> None:
    file = CONF / f"{name}.yaml"
    settings, content = read(file, "http://incumbent"), yaml.safe_load(file.read_text())
    known = asdict(settings)
    assert content.keys() | ({"steps"} if name == "shadow" else set()) == known.keys()
    assert {key: value.keys() for key, value in content.items() if isinstance(value, dict)} == {
        key: value.keys() for key, value in known.items() if isinstance(value, dict)
    }
    lines = [line for line in file.read_text().splitlines() if line.strip()]
    assert all("#" in line for line in lines)
    assert not [line for line in lines if re.search(r"\s$", line)]


def test_the_canary_is_the_default() -> None:
    assert read(CONF / "canary.yaml", "x") == Settings(incumbent="x")
    shadow = read(CONF / "shadow.yaml", "x")
    assert (shadow.shadow, shadow.steps, shadow.compare) == (True, (0.0,), 1.0)
    assert shadow.hypotheses == Settings(incumbent="x").hypotheses


def test_the_hypotheses_of_the_canary() -> None:
    """Disagreement 3 % is fine, 5 % holds, 8 % rolls back; the two ways back share alpha."""
    tests = {name: asdict(test) for name, test in Settings(incumbent="x").hypotheses.items()}
    assert tests == {
        "quality": pytest.approx({"f0": 0.03, "f1": 0.05, "alpha": 0.05, "beta": 0.05}),
        "agreement": pytest.approx({"f0": 0.05, "f1": 0.08, "alpha": 0.025, "beta": 0.05}),
        "errors": pytest.approx({"f0": 0.002, "f1": 0.01, "alpha": 0.025, "beta": 0.05}),
    }


def test_the_risks_are_those_of_every_family() -> None:
    tests = Settings(incumbent="x", test=Risks(alpha=0.04, beta=0.2)).hypotheses.values()
    assert [(test.alpha, test.beta) for test in tests] == [(0.04, 0.2), (0.02, 0.2), (0.02, 0.2)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "names no incumbent, which answers today"),
        ({"steps": [0.5, 0.25]}, r"steps is \[0.5, 0.25\]; give rising shares"),
        ({"steps": 0.5}, "steps is 0.5; give a list of shares"),
        ({"step": 3}, "step is 3; give its keys: samples, seconds"),
        ({"step": {"sampels": 3}}, "unknown key step.sampels; did you mean samples"),
        ({"step": {"samples": 3.5}}, "step.samples is 3.5; give a whole number"),
        ({"compare": "half"}, "compare is 'half'; give a number"),
        ({"compare": 0}, "without comparisons nothing is raised"),
        ({"agreement": {"hold": 0.1}}, "agreement.hold 0.1 and agreement.rollback 0.05 must be"),
        ({"agreement": {"expected": 1.0}}, "agreement.expected is 1.0; give a share under 1"),
        ({"errors": {"expected": 0}}, "errors.expected 0 and errors.rollback 0.01"),
        ({"test": {"alpha": 0.5}}, "test.alpha 0.5"),
        ({"mode": "blue"}, "mode is 'blue'; give canary or shadow"),
        ({"mode": "shadow", "steps": [1]}, "mode: shadow has no steps"),
        ({"log": "rollout.txt"}, "give a file that ends in .jsonl"),
        ({"timeout": 0, "waiting": 0}, "waiting, .* must be 1 or more; every, timeout"),
        ({"incumbnet": "x"}, "unknown key incumbnet; did you mean incumbent"),
        ("a word", "holds no keys"),
    ],
)
def test_mistakes(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "rollout.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=message):
        read(file, None if content == {} else "http://incumbent")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"is no file. Copy canary.yaml or shadow.yaml from {CONF} "):
        read(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(UserError, match="is no YAML"):
        read(tmp_path / "broken.yaml")


def test_a_service_without_a_rollout_imports_none_of_it() -> None:
    program = (
        "import sys, mangakd.runtime.server, mangakd.runtime.serve; print([m for m in sys.modules if 'rollout' in m])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"
