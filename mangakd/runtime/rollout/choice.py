"""Who answers a question: decided by a hash of its request id, so that no table is needed and every process chooses alike.

u = the first 53 bits of SHA-256(name : purpose : id) / 2⁵³ is uniform in [0, 1). More bits than the 53 of a float would round u
up to 1 at times. The student answers if u < share. So the same id goes the same way within a step, and an id that is in at 5 % is
in at 25 %.
"""

import hashlib


def place(name: str, purpose: str, request_id: str) -> float:
    """u in [0, 1). Different purposes of one id are independent."""
    digest = hashlib.sha256(f"{name}:{purpose}:{request_id}".encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / 2**53
