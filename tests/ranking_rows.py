"""Made-up lists of documents that a word puts in order."""

import json
import random
from pathlib import Path

TOPICS = ("order", "refund", "shipping", "track")


def rows(count: int, seed: int) -> list[dict]:
    """A query names a topic, and one document of three has its word. Every fifth grade is wrong; one list has one document."""
    chance, made = random.Random(seed), []
    for i in range(count):
        topic, *others = chance.sample(TOPICS, 4)
        documents = [f"the {topic} number {i}", f"where is my {others[0]}", f"{others[1]} number {i}"]
        best = 1 if i % 5 == 0 else 0
        order = chance.sample(range(3), 3)[: 1 if i == 3 else 3]
        grades = [2 * (place == best) for place in order]
        made.append({"query": f"my {topic} {seed} {i}", "documents": [documents[j] for j in order], "grades": grades})
    return made


def written(file: Path, content: list[dict]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in content))
    return str(file)
