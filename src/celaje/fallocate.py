"""Linux's fallocate(2): holes and zeros in files, which Python cannot ask for."""

from __future__ import annotations

import ctypes
import errno
import os

FALLOCATE_KEEP_SIZE = 1
FALLOCATE_PUNCH_HOLE = 2
FALLOCATE_ZERO_RANGE = 16

_libc = ctypes.CDLL(None, use_errno=True)


def fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """Do it. False where the host or the file system has no such mode; OSError if it fails."""
    if not hasattr(_libc, "fallocate"):
        return False
    while _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        if number in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
