"""File operations that survive a power cut."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Flush renames in `folder` to the disk. Without this, the system may write the renames later than the files' content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
