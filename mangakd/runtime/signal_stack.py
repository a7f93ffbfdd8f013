"""The stack that signals are handled on, kept from openvino.

Its CPU plugin gives the thread that loads it a signal stack of its own. Two that do not end in the reverse order of their start
leave one behind that is gone, and then the next signal with a Python handler, Ctrl-C, say, is a segmentation fault instead of a
checkpoint (openvino 2026.4, intel_cpu/src/plugin.cpp, SigAltStackSetup).
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
def kept_signal_stack() -> Iterator[None]:
    """Afterwards this thread has the signal stack that it had before; none, where the system refuses that one as too small."""
    if sys.platform != "linux":  # elsewhere openvino leaves it alone
        yield
        return
    exchange, before = ctypes.CDLL(None).sigaltstack, _Stack()
    exchange(None, ctypes.byref(before))
    try:
        yield
    finally:
        if exchange(ctypes.byref(before), None):
            exchange(ctypes.byref(_Stack(flags=SS_DISABLE)), None)
