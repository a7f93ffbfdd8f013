"""What `mangakd label` wrote about a file of answers, if the file is still that one."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mangakd.labelling.label_manifest import manifest_path, read_manifest

log = logging.getLogger(__name__)


def label_manifest(file: Path, digest: str) -> Mapping[str, Any] | None:
    """None where there is none, or where the file has changed since: then a warning says so. digest: SHA-256 of the file."""
    content, place = read_manifest(file), manifest_path(file)
    if content is None:
        log.info("%s does not exist: the card says nothing of a teacher.", place)
    elif content["out"]["sha256"] != digest:
        log.warning("%s is about other bytes than %s holds now: the card says nothing of a teacher.", place, file)
        return None
    # Digests of its rows stay beside the file.
    return None if content is None else {name: value for name, value in content.items() if name != "digests"}
