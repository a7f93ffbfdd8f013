"""Wilson's interval of a share, which stays within [0, 1] and is right for few rows and for shares near 1.

With p = k / n and z = 1.96:  (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n)
Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927) 209–212.
"""

import math

Z = 1.959964  # of 95 %


def wilson(hits: int, rows: int) -> tuple[float, float]:
    """The ends of the 95 % interval. rows: at least 1."""
    share, square = hits / rows, Z * Z / rows
    middle = share + square / 2
    half = Z * math.sqrt(share * (1 - share) / rows + square / (4 * rows))
    return max((middle - half) / (1 + square), 0.0), min((middle + half) / (1 + square), 1.0)
