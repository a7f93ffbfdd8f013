"""The console command: `mangakd train …`, `mangakd export …`; and where train.py and scripts/*.py start.

Standard library only: `mangakd --help` answers at once, and `mangakd serve` runs where neither Hydra nor torch is installed.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from mangakd import __version__
from mangakd.cli.words import keyed, under
from mangakd.core.errors import near
from mangakd.core.invocation import command

Words = list[str]


@dataclass(frozen=True)
class Command:
    """summary: its line in `mangakd --help`. translate: what people type → what Hydra takes."""

    summary: str
    translate: Callable[[Words], Words] = list


def _export(words: Words) -> Words:
    return keyed(under(words, "export", ("student",)), "export.student")


def _plan(words: Words) -> Words:
    return ["compare=true" if word == "--compare" else word for word in words]  # Hydra takes no flags of ours


COMMANDS = {  # in the order of their use
    "train": Command("distil a student: <key>=<value> …; -m or sweep=… for many runs"),
    "plan": Command("memory, time and price of a run before it starts: hardware=a100 task=response [--compare]", _plan),
    "cache_teacher": Command("store the teacher's answers: the overrides of the training run [verify=true]"),
    "label": Command(
        "a teacher writes the answers to prompts: provider.path=<model> data.path=<file> out=answers.jsonl"
    ),
    "curate": Command("the rows that are good enough to train on, with a dataset card: data.path=answers.jsonl out=<folder>"),
    "report": Command(
        "report.html and report.md of a run or a sweep: <folder> [latency=true]", lambda words: keyed(words, "run")
    ),
    "compare_runs": Command(
        "runs side by side, with paired intervals: <run> <run> …", lambda words: keyed(words, "runs", many=True)
    ),
    "gate": Command(
        "may the student of a run ship? exit code 1 if a threshold is missed: <run>", lambda words: keyed(words, "run")
    ),
    "export": Command("OpenVINO, ONNX or GGUF variants of a student, and the one that ships: student=<folder>", _export),
    "audit": Command(
        "what made a model or a data set? verifies each hash: <run, export/best, curated folder, answers.jsonl>",
        lambda words: keyed(words, "folder"),
    ),
    "serve": Command("an HTTP service of an exported student: <folder> [--port 8000] [rollout=conf/rollout/canary.yaml]"),
    "monitor": Command(
        "how a rollout goes, table and plots: rollout.jsonl [student=<folder> teacher=<folder>]",
        lambda words: keyed(under(words, "compare", ("student", "teacher", "data")), "log"),
    ),
    "check_drift": Command(
        "does a student still agree with its teacher on new texts? student=<folder> teacher=<folder> data=<file>",
        lambda words: under(words, "compare", ("student", "teacher", "data")),
    ),
}  # fmt: skip


def main() -> None:
    """`mangakd <command> <its words>`."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
    elif words[0] == "--version":
        print(f"mangakd {__version__}")
    elif (name := words[0].replace("-", "_")) in COMMANDS:
        del sys.argv[1]
        start(name)
    else:
        sys.exit(f"error: {unknown(words)}")


def start(name: str) -> None:
    """Run the command on the words in sys.argv. Exits with 1, after one message, for mistakes that the user can correct."""
    if name == "serve":
        from mangakd.runtime.serve import main as serve

        return serve()
    sys.argv[1:] = COMMANDS[name].translate(sys.argv[1:])
    from mangakd.cli.app import main as run

    return run(name)


def usage() -> str:
    names = [name.replace("_", "-") for name in COMMANDS]
    width = max(map(len, names))
    lines = [f"  {name:{width}}  {each.summary}" for name, each in zip(names, COMMANDS.values(), strict=True)]
    return "\n".join(
        [
            "usage: mangakd <command> …", "",
            "mangakd distils a large teacher into a small student.", "",
            *lines, "",
            "mangakd <command> --help lists what it takes. mangakd train experiment=quickstart is a first run.",
        ]
    )  # fmt: skip


def unknown(words: Words) -> str:
    """The message for a first word that is no command."""
    if "=" in words[0]:
        return f"give the command before its overrides: {command('train')} {words[0]} …; mangakd --help lists the commands."
    names = [name.replace("_", "-") for name in COMMANDS]
    return f"{words[0]} is no command{near(words[0].replace('_', '-'), names)} mangakd --help lists the commands."
