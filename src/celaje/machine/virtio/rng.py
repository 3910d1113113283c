"""The entropy device (virtio 1.2, 5.4): fills the buffers that the driver offers with random bytes."""

from __future__ import annotations

import os
from collections.abc import Callable

from celaje.machine.virtio.device import VirtioDevice
from celaje.machine.virtio.queue import MalformedQueue, Queue

MAX_BYTES = 4096
"""The most given for one request. A driver copes with less than it asked for (5.4.6.1 promises it one byte), and a
request for gigabytes would otherwise keep a hart waiting."""


class VirtioRng(VirtioDevice):
    """`entropy(n)` returns n unpredictable bytes; the host's by default. Served on the notifying hart's thread."""

    device_id = 4
    queue_sizes = (64,)

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom) -> None:
        super().__init__()
        self._entropy = entropy

    def serve(self, index: int, queue: Queue) -> None:
        for chain in queue.chains():
            if chain.readable:
                raise MalformedQueue("an entropy request with a buffer that the device may only read")
            written = 0
            for buffer in chain.writable:
                count = min(len(buffer), MAX_BYTES - written)
                buffer[:count] = self._entropy(count)
                written += count
            queue.push(chain, written)
            if self.halting:
                break
        if queue.interrupt_due():
            self.transport.interrupt()
