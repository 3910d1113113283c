"""Starting a process of celaje's that outlives whoever started it.

    starter                                    python -m MODULE … DESCRIPTOR …
      start                       ->           forks; the parent ends, so that nobody has to reap the child
                                  <-           a byte on the pipe DESCRIPTOR: it is up
      (waits for the parent)

Its output goes to a log (`bounded_log`), whose last line is what a person is told where no byte comes.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from celaje import bounded_log, paths

PATIENCE = 1.0  # seconds after which `waiting` is told

_SOURCE = str(Path(__file__).resolve().parents[1])


def _nothing() -> None:
    pass


def start(
    module: str,
    words: Callable[[int], list[str]],
    log: Path,
    seconds: float,
    settings: Mapping[str, str],
    waiting: Callable[[], None] = _nothing,
) -> bytes:
    """Run `module` with the `words` for a descriptor; returns the byte that it said there, or nothing if it ended
    before or said none for `seconds`. `settings` are set in its environment, beside ours."""
    paths.made(log.parent)
    said, says = os.pipe2(os.O_CLOEXEC)
    try:
        output = bounded_log.opened(log)
        try:
            parent = subprocess.Popen(
                [sys.executable, "-m", module, *words(says)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(says,),
                cwd="/",
                env=_environment(settings),
                start_new_session=True,
            )
        finally:
            os.close(output)
        os.close(says)
        says = -1
        answer = _answer(said, seconds, waiting)
        parent.wait()
        return answer
    finally:
        os.close(said)
        if says >= 0:
            os.close(says)


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Ours, and a way to find this very celaje wherever it was imported from."""
    rest = os.environ.get("PYTHONPATH")
    path = f"{_SOURCE}{os.pathsep}{rest}" if rest else _SOURCE
    return {**os.environ, **settings, "PYTHONPATH": path}


def _answer(said: int, seconds: float, waiting: Callable[[], None]) -> bytes:
    ends = time.monotonic() + seconds
    poller = select.poll()
    poller.register(said, select.POLLIN)
    if not poller.poll(min(PATIENCE, seconds) * 1000):
        waiting()
    while (left := ends - time.monotonic()) > 0:
        if poller.poll(left * 1000):
            return os.read(said, 1)
    return b""


def last_line(log: Path) -> str:
    """What a log ends with, for a message."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError as error:
        return f"(nothing: {error.strerror})"
    return lines[-1] if lines else "(nothing)"
