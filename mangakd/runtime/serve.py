"""The command that serves an exported student: mangakd serve export/best --port 8000 [rollout=conf/rollout/canary.yaml]

The command uses argparse, not Hydra: it must start at once, in a container without torch and without the training's configs.
"""

import argparse
import sys
from collections.abc import Sequence

from mangakd.core.errors import UserError

KEYS = ("rollout", "incumbent")  # may also be typed as key=value, as in other commands


def main(words: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    options = parser().parse_args([f"--{word}" if word.partition("=")[0] in KEYS else word for word in words])
    try:
        _serve(options)
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="mangakd serve",
        description="Serve an exported student: POST /predict, /rerank, /embed, /rewrite or /v1/embeddings, GET /health and "
        "/metrics.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    arguments.add_argument("folder", help="of an exported variant, such as export/best")
    arguments.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    arguments.add_argument("--port", type=_number(int, 0, 65535), default=8000, help="0 takes a free one")
    arguments.add_argument("--threads", type=_number(int, 1), default=1, help="for one batch")
    arguments.add_argument("--max-batch", type=_number(int, 1), default=32, help="texts computed together")
    arguments.add_argument("--queue", type=_number(int, 1), default=256, help="texts that may wait; then 429")
    arguments.add_argument("--max-texts", type=_number(int, 1), default=64, help="in one question")
    arguments.add_argument("--max-characters", type=_number(int, 1), default=20_000, help="of one text")
    arguments.add_argument("--max-body", type=_number(int, 1), default=1_000_000, help="bytes")
    arguments.add_argument(
        "--linger", type=_number(float, 0), default=1, help="seconds from SIGTERM until the port closes"
    )
    arguments.add_argument(
        "--rollout", help="a yaml such as conf/rollout/canary.yaml: a share of the questions for the student"
    )
    arguments.add_argument("--incumbent", help="of the rollout: a folder or a URL; instead of the yaml's")
    return arguments


def _serve(options: argparse.Namespace) -> None:
    # Late imports, so that --help and a mistyped option are fast.
    from mangakd.runtime.logs import start_logging
    from mangakd.runtime.model import load
    from mangakd.runtime.question import Limits
    from mangakd.runtime.service import Settings

    limits = Limits(options.max_texts, options.max_characters, options.max_body)
    settings = Settings(options.max_batch, options.queue, limits=limits)
    from mangakd.runtime.server import serve

    start_logging()  # before the load, which may log warnings
    if options.rollout is None:
        if options.incumbent is not None:
            raise UserError("--incumbent belongs to a rollout; add rollout=conf/rollout/canary.yaml.")
        serve(load(options.folder, options.threads), settings, options.host, options.port, options.linger)
        return
    from mangakd.runtime.rollout.start import prepare

    rollout = prepare(options.rollout, options.incumbent, options.folder, settings, options.threads)
    model = load(options.folder, options.threads)
    serve(model, rollout.student_settings, options.host, options.port, options.linger, rollout.around(model))


class _number:
    """A number of `kind` from `low` to `high`, for argparse."""

    def __init__(self, kind: type, low: float, high: float = float("inf")):
        self._kind, self._low, self._high = kind, low, high

    def __call__(self, word: str) -> float:
        value = self._kind(word)
        if not self._low <= value <= self._high:
            above = "" if self._high == float("inf") else f" to {self._high}"
            raise argparse.ArgumentTypeError(f"{word}: give a number from {self._low}{above}")
        return value

    def __repr__(self) -> str:
        return "number"  # argparse names it in "invalid number value: 'x'"


if __name__ == "__main__":
    main()
