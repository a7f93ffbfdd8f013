"""What a reasoning model writes before its answer: `<think>…</think>`, or apart from the answer where the provider says so."""

from dataclasses import replace

from mangakd.core.errors import UserError
from mangakd.labelling.provider import Answer

OPEN, CLOSE = "<think>", "</think>"
WAYS = ("strip", "keep", "column")


def check_way(way: str, parses: bool) -> None:
    """Raises UserError for a way that is unknown, or that a form which parses its answers cannot read."""
    if way not in WAYS:
        raise UserError(f"thought={way} must be one of {', '.join(WAYS)}.")
    if way == "keep" and parses:
        raise UserError(
            "thought=keep leaves the thought in the text, which only writes=answers reads: set thought=column."
        )


def apart(answer: Answer) -> Answer:
    """The answer with its thought apart from its text.

    A chat template may open the thought in the prompt, so that the text has the end of a thought alone. A thought without an end
    is all that the model wrote.
    """
    text = answer.text.lstrip()
    if CLOSE in text:
        thought, _, text = text.removeprefix(OPEN).partition(CLOSE)
    elif text.startswith(OPEN):
        thought, text = text.removeprefix(OPEN), ""
    else:
        return answer
    whole = "\n\n".join(filter(None, (answer.thought, thought.strip())))
    return replace(answer, text=text.strip(), thought=whole)


def together(answer: Answer) -> str:
    """The text with its thought before it, as reasoning models are trained on."""
    return f"{OPEN}\n{answer.thought}\n{CLOSE}\n\n{answer.text}" if answer.thought else answer.text
