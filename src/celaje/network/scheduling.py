"""Asking the host's scheduler for short time slices (sched_setattr(2), Linux 6.12 and later).

A network's process works for a few dozen microseconds and waits again, and two machines wait for it. Whoever asks for
a short slice gets its turn sooner where processors are contended, and no more of them than before. It takes no right.

    struct sched_attr  size u32, policy u32, flags u64, nice s32, priority u32, runtime u64, deadline u64, period u64
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

SLICE_NANOSECONDS = 100_000  # the shortest that Linux gives

_SCHED_OTHER = 0
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_SYSTEM_CALLS = {"x86_64": 314, "aarch64": 274, "riscv64": 274}


def ask_for_short_slices() -> str | None:
    """For the calling thread. Why the host gives none, None if it does."""
    number = _SYSTEM_CALLS.get(platform.machine())
    if number is None:
        return f"the number of sched_setattr is not known on {platform.machine()}"
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, _SCHED_OTHER, 0, nice, 0, SLICE_NANOSECONDS, 0, 0)
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(number, 0, attributes, 0) != 0:
        return os.strerror(ctypes.get_errno())
    return None
