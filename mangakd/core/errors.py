"""The one exception for mistakes a user can correct.

The command line prints its message without a traceback and exits with 1, so the message must say what was wrong, what
was found, and which key or command fixes it.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """What happened, what was found, and the key or command that fixes it."""


def near(word: str, known: Iterable[object], count: int = 3) -> str:
    """The end of a sentence: `; did you mean a, b?` for the known words closest to `word`, or a full stop."""
    names = [str(name) for name in known]
    hits = difflib.get_close_matches(word, names, n=count, cutoff=0.5)
    return f"; did you mean {', '.join(hits)}?" if hits else "."
