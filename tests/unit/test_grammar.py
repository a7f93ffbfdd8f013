"""Words that Hydra's grammar refuses: the message names the argument, and what it proposes to type is what was meant."""

import random
import shlex

import pytest

from mangakd.cli.grammar import check_line, check_overrides, parse
from mangakd.cli.words import quoted
from mangakd.core.errors import UserError

# What was typed, as the shell hands it over: words of the message, and the argument that it proposes.
PROPOSED: dict[str, tuple[list[str], str, str]] = {
    "comma and =": (["data.path=a, b=c.csv"], "data.path=a, b=c.csv cannot be read", 'data.path="a, b=c.csv"'),
    "=": (["data.path=a=b.csv"], "needs quotes", 'data.path="a=b.csv"'),
    "brackets in a path": (["data.path=a(b).csv"], "needs quotes", 'data.path="a(b).csv"'),
    "a letter with an accent": (["data.path=résumé.csv"], "needs quotes", 'data.path="résumé.csv"'),
    "a quote within": (['data.path=a"b'], "needs quotes", 'data.path="a\\"b"'),
    "a quote that is not closed": (['data.path="a b'], "its quotes do not match", 'data.path="a b"'),
    "an item of a list": (["teacher.labels=[order,r&b]"], "some items need quotes", 'teacher.labels=[order,"r&b"]'),
    "] is missing": (["losses=[hard_label,output"], "] is missing", "losses=[hard_label,output]"),
    "[ is missing": (["losses=hard_label,output]"], "[ is missing", "losses=[hard_label,output]"),
    "} is missing": (["stages.x={a:{b:1"], "}} is missing", "stages.x={a:{b:1}}"),
    "} of an interpolation": (["seed=${x"], "} is missing", "seed=${x}"),
    ") of a sweep": (["-m", "distill.alpha=range(0,1"], ") is missing", "distill.alpha=range(0,1)"),
    "{} for []": (["losses={hard_label,output}"], "a list takes square brackets", "losses=[hard_label,output]"),
    "two =": (["distill.alpha==0.5"], "one = too many", "distill.alpha=0.5"),
    "a space in a list": (["losses=[hard_label,", "output]"], "the shell splits at spaces", "losses=[hard_label, output]"),
    "a space in a path": (["data.path=my", "file.csv"], "file.csv is no override", "data.path=my file.csv"),
    "a space after =": (["distill.alpha=", "0.5"], "0.5 is no override", "distill.alpha=0.5"),
    "spaces around =": (["distill.alpha", "=", "0.5"], "distill.alpha has no =", "distill.alpha=0.5"),
    "a space before =": (["distill.alpha", "=0.5"], "distill.alpha has no =", "distill.alpha=0.5"),
    "a space for =": (["hardware=cpu", "distill.alpha", "0.5"], "distill.alpha has no =", "distill.alpha=0.5"),
    ": for =": (["distill.alpha:0.5"], "distill.alpha:0.5 has no =", "distill.alpha=0.5"),
    ": and a space for =": (["distill.alpha:", "0.5"], "distill.alpha: has no =", "distill.alpha=0.5"),
    "dashes": (["--distill.alpha=0.5"], "overrides take no dashes", "distill.alpha=0.5"),
}  # fmt: skip
REFUSED = {
    "no value": (["hardware=cpu", "distill.alpha"], "distill.alpha has no value: an override is <key>=<value>"),
    "no key": (["=0.5"], "=0.5 has no key before its ="),
    "a space in a key": (["distill alpha=0.5"], "distill alpha in distill alpha=0.5 is no key"),
    "two in one": (["models=embedded seed=1"], "models=embedded seed=1 is 2 arguments within one pair of quotes"),
    "unknown flag": (["--multirn", "seed=1,2"], "there is no flag --multirn; did you mean --multirun?"),
    "flag of another tool": (["--alpha", "0.5"], "there is no flag --alpha. Overrides take no dashes: alpha=…"),
    "flag without its word": (["--cfg"], "expected one argument"),
    "after a flag": (["seed=1", "--cfg", "job", "seed=2"], "seed=2 stands after a flag"),
}


@pytest.mark.parametrize("mistake", PROPOSED)
def test_the_argument_that_is_proposed(mistake: str) -> None:
    words, expected, proposed = PROPOSED[mistake]
    with pytest.raises(UserError) as told:
        check_line(words)
    assert expected in str(told.value)
    assert str(told.value).endswith(f" {shlex.quote(proposed)}")
    check_line([word for word in words if word == "-m"] + [proposed])


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cannot_be_guessed(mistake: str) -> None:
    words, expected = REFUSED[mistake]
    with pytest.raises(UserError) as told:
        check_line(words)
    assert expected in str(told.value)


def test_what_hydra_takes_passes() -> None:
    check_overrides(
        ["~models", "+x=1", "++a.b=2", "losses=[hard_label,output]", "models=null", "data.path=a b.csv", "seed=1,2"]
    )


def test_quoted_values_are_read_back() -> None:
    letters = random.Random(0)
    for _ in range(300):
        value = "".join(letters.choice("ab\\\"'{}[]()=,: é#&") for _ in range(letters.randrange(7)))
        override = parse(f"key={quoted(value)}")
        assert override is not None and override.value() == value
