"""Protects the thread's signal stack from openvino.

openvino's CPU plugin sets a signal stack for the thread that loads the plugin. If two plugins do not end in the reverse order of
their start, the thread keeps a freed stack. The next signal with a Python handler, such as Ctrl-C, then causes a segmentation
fault instead of a checkpoint (openvino 2026.4, intel_cpu/src/plugin.cpp, SigAltStackSetup).
"""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

SS_DISABLE = 2


class _Stack(ctypes.Structure):
    """Linux's stack_t."""

    _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def keep_signal_stack() -> Iterator[None]:
    """Context that restores this thread's signal stack at its end; no stack, if the system refuses the old stack as too small."""
    if sys.platform != "linux":  # openvino changes the signal stack on Linux only
        yield
        return
    exchange, before = ctypes.CDLL(None).sigaltstack, _Stack()
    exchange(None, ctypes.byref(before))
    try:
        yield
    finally:
        if exchange(ctypes.byref(before), None):
            exchange(ctypes.byref(_Stack(flags=SS_DISABLE)), None)
