"""The command that serves an exported student: mangakd serve export/best --port 8000 [rollout=conf/rollout/canary.yaml]

The command uses argparse, not Hydra: it must start at once, in a container without torch and without the training's configs.
"""

import argparse
import logging
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from mangakd.core.errors import UserError
from mangakd.runtime.drain import PATIENCE

LANGUAGE = (
    ("--slots", int, 1, 4, "requests computed together; each takes memory for --context tokens"),
    ("--context", int, 16, None, "tokens of a prompt and its answer; left out: all that the model reads"),
    ("--max-tokens", int, 1, 512, "that an answer may have, and has if the request names no number"),
)
ENCODERS = ("--max-batch",)  # what language models do not read
QUEUE, QUEUE_OF_LANGUAGE = 256, 32  # an answer of a language model takes seconds
KEY = re.compile(r"[a-z][a-z_-]*(?==)")  # begins key=value, as other commands take their settings


def main(words: Sequence[str] | None = None) -> None:
    words = sys.argv[1:] if words is None else words
    options = parser().parse_args([word if Path(word).exists() else _flag(word) for word in words])
    try:
        _serve(options)
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        sys.exit(1)


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="mangakd serve",
        description="Serve an exported student: POST /predict, /rerank, /embed, /rewrite, /v1/embeddings, "
        "/v1/chat/completions or /v1/completions, GET /health and /metrics.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    arguments.add_argument("folder", help="of an exported variant, such as export/best")
    arguments.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    arguments.add_argument("--port", type=_number(int, 0, 65535), default=8000, help="0 takes a free one")
    arguments.add_argument("--threads", type=_number(int, 1), help="for one batch; left out: 1, or as it was measured")
    arguments.add_argument("--max-batch", type=_number(int, 1), default=32, help="texts computed together")
    arguments.add_argument(
        "--queue",
        type=_number(int, 1),
        help=f"texts that may wait; then 429 (default: {QUEUE}; {QUEUE_OF_LANGUAGE} prompts)",
    )
    arguments.add_argument("--max-texts", type=_number(int, 1), default=64, help="in one question")
    arguments.add_argument("--max-characters", type=_number(int, 1), default=20_000, help="of one text")
    arguments.add_argument("--max-body", type=_number(int, 1), default=1_000_000, help="bytes")
    arguments.add_argument(
        "--linger", type=_number(float, 0), default=1, help="seconds from SIGTERM until the port closes"
    )
    arguments.add_argument(
        "--patience",
        type=_number(float, 0),
        default=PATIENCE,
        help="seconds after that in which running answers may end",
    )
    arguments.add_argument(
        "--rollout", help="a yaml such as conf/rollout/canary.yaml: a share of the questions for the student"
    )
    arguments.add_argument("--incumbent", help="of the rollout: a folder or a URL; instead of the yaml's")
    language = arguments.add_argument_group("language models")
    for name, kind, low, default, words in LANGUAGE:
        language.add_argument(name, type=_number(kind, low), default=default, help=words)
    return arguments


def _serve(options: argparse.Namespace) -> None:
    # Late imports, so that --help and a mistyped option are fast.
    from mangakd.runtime.language_manifest import is_language
    from mangakd.runtime.logs import start_logging

    start_logging()  # before the load, which may log warnings
    if options.rollout is None and options.incumbent is not None:
        raise UserError("--incumbent belongs to a rollout; add rollout=conf/rollout/canary.yaml.")
    _check_port(options.host, options.port)
    language = is_language(options.folder)
    _warn_ignored(options, ENCODERS if language else [option[0] for option in LANGUAGE])
    options.queue = options.queue or (QUEUE_OF_LANGUAGE if language else QUEUE)
    _serve_language(options) if language else _serve_encoder(options)


def _serve_language(options: argparse.Namespace) -> None:
    from mangakd.runtime.language_serve import serve_language

    serve_language(options)


def _serve_encoder(options: argparse.Namespace) -> None:
    from mangakd.runtime.model import load
    from mangakd.runtime.question import Limits
    from mangakd.runtime.service import Settings

    limits = Limits(options.max_texts, options.max_characters, options.max_body)
    settings = Settings(options.max_batch, options.queue, limits=limits)
    from mangakd.runtime.server import serve

    threads = options.threads or 1
    ends = (options.host, options.port, options.linger, options.patience)
    if options.rollout is None:
        serve(load(options.folder, threads), settings, *ends)
        return
    from mangakd.runtime.rollout.start import prepare

    rollout = prepare(options.rollout, options.incumbent, options.folder, settings, threads)
    model = load(options.folder, threads)
    serve(model, rollout.student_settings, *ends, rollout.around(model))


def _check_port(host: str, port: int) -> None:
    """Raises UserError for a port that cannot be opened, before a model is loaded and a rollout begins its log."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as uvicorn: connections that just ended do not count
            trial.bind(address)
    except OSError as error:
        raise UserError(
            f"--host {host} --port {port} cannot be opened: {error.strerror}. Give another --port (0 takes a free one), or "
            "another --host."
        ) from error


def _flag(word: str) -> str:
    """max_batch=8 → --max-batch=8."""
    return KEY.sub(lambda key: f"--{key[0].replace('_', '-')}", word, count=1) if KEY.match(word) else word


def _warn_ignored(options: argparse.Namespace, names: Sequence[str]) -> None:
    defaults = parser()
    for name in names:
        key = name.removeprefix("--").replace("-", "_")
        if getattr(options, key) != defaults.get_default(key):
            logging.getLogger("mangakd.service").warning("%s is ignored: %s does not read it.", name, options.folder)


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
