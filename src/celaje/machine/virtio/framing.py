"""Requests may be cut into buffers anywhere (virtio 1.2, 2.7.4.1): how fixed parts are taken off their ends."""

from __future__ import annotations

from celaje.machine.virtio.block_backend import Buffers
from celaje.machine.virtio.queue import MalformedQueue
from celaje.scatter import Windows


def cut_front(buffers: list[memoryview] | Windows, count: int) -> bytes:
    """Take the first `count` bytes away from `buffers`, as a copy. MalformedQueue if there are not so many."""
    if buffers and len(buffers[0]) == count:
        return bytes(buffers.pop(0))
    return b"".join(cut_front_windows(buffers, count))


def cut_front_windows(buffers: list[memoryview] | Windows, count: int) -> list[memoryview]:
    """Take the first `count` bytes away from `buffers`, as windows. MalformedQueue if there are not so many."""
    if buffers and len(buffers[0]) == count:
        return [buffers.pop(0)]
    taken: list[memoryview] = []
    need = count
    while need:
        if not buffers:
            raise MalformedQueue(f"a request with {count - need} bytes on one side, where {count} are fixed")
        first = buffers[0]
        if len(first) > need:
            buffers[0] = first[need:]
            first = first[:need]
        else:
            del buffers[0]
        taken.append(first)
        need -= len(first)
    return taken


def cut_back(buffers: list[memoryview] | Windows, count: int) -> memoryview:
    """Take the last `count` bytes away from `buffers`, whose last buffer has as many, as a window."""
    last = buffers[-1]
    if len(last) == count:
        return buffers.pop()
    buffers[-1] = last[:-count]
    return last[-count:]


def scatter(buffers: Buffers, data: bytes) -> None:
    """Copy `data` into `buffers`, which hold as many bytes."""
    done = 0
    for buffer in buffers:
        buffer[:] = data[done : done + len(buffer)]
        done += len(buffer)
