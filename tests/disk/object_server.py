"""An S3 server that others wrote (moto's), on loopback, in a process that ends with the block."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator

BUCKET = "my-bucket"


class ObjectServer:
    """Listens at `endpoint`; `BUCKET` is there."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:[0-9]+", line):
                self.endpoint = found[0]
                break
        else:
            raise AssertionError("the server ended at once")
        # It says each request, and would wait for a reader.
        self._reader = threading.Thread(target=self._process.stderr.read)
        self._reader.start()
        self._put(f"/{BUCKET}")

    def _put(self, path: str) -> None:
        request = urllib.request.Request(f"{self.endpoint}{path}", method="PUT")
        with urllib.request.urlopen(request):
            pass

    def end(self) -> None:
        """From here on nobody listens there."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()


@contextlib.contextmanager
def object_server() -> Iterator[ObjectServer]:
    """One that ends with the block."""
    server = ObjectServer()
    try:
        yield server
    finally:
        server.end()
