"""Where `--stats` goes: found to be writable before the machine runs, and filled at once when it has ended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from celaje.errors import InputError


@contextmanager
def statistics_file(path: str | None) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Gives a function that writes its argument to `path` as JSON (and does nothing without a path).

    A file is written aside and renamed, so that there is the whole of it or nothing; what is no plain file (a pipe, a
    link such as /dev/stderr) is written to. InputError, before anything runs, where that cannot be.
    """
    if path is None:
        yield lambda statistics: None
        return
    renamed = path != "" and not os.path.islink(path) and (not os.path.exists(path) or os.path.isfile(path))
    place = f"{path}.{os.getpid()}.part" if renamed else path
    try:
        file = open(place, "w", encoding="utf-8")  # noqa: SIM115 (closed below, and its errors are not these)
    except OSError as error:
        raise InputError(
            f"statistics cannot be written to {path} ({error.strerror}); give --stats a file in a directory of yours"
        ) from error

    def write(statistics: Mapping[str, object]) -> None:
        json.dump(statistics, file, indent=2)
        file.write("\n")
        file.close()
        if renamed:
            os.replace(place, path)

    try:
        with file:
            yield write
    finally:
        if renamed and os.path.exists(place):
            os.unlink(place)
