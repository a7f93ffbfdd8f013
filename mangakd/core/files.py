"""What must outlast a power cut."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Renames in `folder` reach the disk: the system may otherwise hold them back longer than the files' content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
