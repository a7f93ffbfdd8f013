"""The one exception for mistakes that a user can correct.

The command line prints the message without a traceback and exits with 1. So the message must say what was wrong, what was
found, and which key or command fixes it.
"""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user. The message says what was wrong, what was found, and which key or command fixes it."""


def near(word: object, vocabulary: Iterable[object], count: int = 3) -> str:
    """The end of a sentence: `; did you mean a, b?` with the closest words of the vocabulary, or a full stop."""
    names = [str(name) for name in vocabulary]
    hits = difflib.get_close_matches(str(word), names, n=count, cutoff=0.5)
    return f"; did you mean {', '.join(hits)}?" if hits else "."
