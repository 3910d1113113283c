"""Tells when processes end that are nobody's children here: machines, which outlive whoever started them.

One thread waits for all of them on descriptors of processes (pidfd_open(2)), which are readable once the process has
gone, however it went.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable


class ProcessWatch:
    """Calls `ended` whenever one of the processes that it watches has gone, in a thread of its own."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._poller = select.epoll()
        self._descriptors: dict[int, int] = {}  # process: descriptor
        self._changing = threading.Lock()
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        self._poller.register(self._read, select.EPOLLIN)
        self._thread = threading.Thread(target=self._wait, name="celaje-watch", daemon=True)
        self._thread.start()

    def watch(self, process: int) -> None:
        """Watch `process`; one that is watched, or has gone already, is no mistake."""
        with self._changing:
            if process in self._descriptors:
                return
            try:
                descriptor = os.pidfd_open(process)
            except ProcessLookupError:
                descriptor = -1
            else:
                self._descriptors[process] = descriptor
                self._poller.register(descriptor, select.EPOLLIN)
        if descriptor < 0:
            self._ended()

    def __len__(self) -> int:
        """How many are watched."""
        return len(self._descriptors)

    def close(self) -> None:
        """Watch nobody any more."""
        os.close(self._write)
        self._thread.join()
        with self._changing:
            for descriptor in self._descriptors.values():
                os.close(descriptor)
            self._descriptors.clear()
        self._poller.close()
        os.close(self._read)

    def _wait(self) -> None:
        while True:
            readable = {descriptor for descriptor, _ in self._poller.poll()}
            if self._read in readable:
                return
            with self._changing:
                gone = [process for process, held in self._descriptors.items() if held in readable]
                for process in gone:
                    descriptor = self._descriptors.pop(process)
                    self._poller.unregister(descriptor)
                    os.close(descriptor)
            if gone:
                self._ended()
