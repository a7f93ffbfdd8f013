"""A CPU quota like AWS Lambda's: a measured process runs in a control group of its own, where this machine permits it.

Lambda gives a function CPU in proportion to its memory, one vCPU at 1,769 MB
(https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html). Here a process may use that share of every 20 ms, then
it waits for the next. Control groups of version 2 (`cpu.max`) and 1 (`cpu.cfs_quota_us`); only a group that was made here is
written to, and it is removed again. Memory is not limited: the peak is measured instead.
Source: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

ONE_CPU = 1769  # MB of a function that has one vCPU
PERIOD = 20_000  # µs


def share(megabytes: int) -> float:
    """vCPUs of a Lambda function with so much memory."""
    return megabytes / ONE_CPU


@contextlib.contextmanager
def quota(cpus: float, groups: Path = Path("/sys/fs/cgroup"), me: Path = Path("/proc/self/cgroup")) -> Iterator[Path]:
    """The file that a process writes its id into, so that it gets `cpus`. Raises OSError where this machine permits none."""
    parent, limits = _parent(groups, me.read_text())
    group, spent = parent / f"mangakd-benchmark-{os.getpid()}", round(cpus * PERIOD)
    group.mkdir()
    try:
        for name, value in limits.items():
            # Not made when missing: then the controller is not given to this group.
            with (group / name).open("r+") as file:
                file.write(value.format(period=PERIOD, spent=spent))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def _parent(groups: Path, memberships: str) -> tuple[Path, dict[str, str]]:
    """This process' group that counts CPU, and what is written to a child of it. memberships: lines of id:controllers:path."""
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            return groups / "cpu" / path.lstrip("/"), {"cpu.cfs_period_us": "{period}", "cpu.cfs_quota_us": "{spent}"}
    path = next(line.split(":", 2)[2] for line in memberships.splitlines() if line.startswith("0::"))
    return groups / path.lstrip("/"), {"cpu.max": "{spent} {period}"}


def within(processes: Path | None, command: Sequence[str]) -> list[str]:
    """`command`, started inside the group: from its first instruction on it has no more than its share."""
    if processes is None:
        return list(command)
    return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(processes), *command]


def refusal() -> str | None:
    """Why this machine permits no quota; None if it permits one."""
    try:
        with quota(0.5):
            return None
    except (OSError, StopIteration) as error:
        return str(error) or "no control groups"
