"""Removing a machine, so that a kill at any moment leaves nothing for ever.

The directory gets a hidden name first, in one step: from then on there is no such machine. Then go the volumes that are
its own (its root disk, and those that a restore made and that are still attached to it), by what its record says, and
the directory last: as long as it is there, somebody knows what is still to go. `sweep` goes on where a process was
killed; it is called by whoever looks at the machines, removes one, or starts the template. A directory that somebody is
making or removing just now is locked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from pathlib import Path

from celaje.errors import CelajeError, InputError
from celaje.host import disks
from celaje.host.record import MachineDirectory, Record, hidden
from celaje.host.volume_users import users_of

log = logging.getLogger(__name__)

YOUNG_SECONDS = 60.0  # a directory without a lock may be one that is being made


def remove(directory: MachineDirectory) -> None:
    """Take a machine that is off away, with the volumes that are its own. HostError if it runs; InputError for a volume
    that somebody has open: the machine is gone then, and the next sweep tries again."""
    with directory.hidden() as doomed:
        _finish(doomed)
    sweep()


def sweep() -> None:
    """Finish what processes that were killed have begun."""
    for left in hidden():
        if not _young(left.path):
            with contextlib.suppress(CelajeError, OSError):  # somebody's, or not now: the next one finds it again
                _sweep(left)


def _young(path: Path) -> bool:
    """Whether whoever makes it may not have locked it yet."""
    try:
        return not (path / "lock").exists() and time.time() - path.stat().st_mtime < YOUNG_SECONDS
    except FileNotFoundError:
        return True


def _sweep(left: MachineDirectory) -> None:
    lock = left.lock(patience=0)
    try:
        _finish(left)
        log.info("what was left of a machine in %s is removed", left.path)
    finally:
        os.close(lock)


def _finish(doomed: MachineDirectory) -> None:
    volumes: list[str] = []
    with contextlib.suppress(CelajeError):  # a record that cannot be read tells of no volumes
        volumes = _own(doomed.record())
    for volume in volumes:
        try:
            disks.remove_volume(volume)
        except InputError as error:
            raise InputError(f"the machine is removed, and the next celaje vm ls removes its disk: {error}") from error
    shutil.rmtree(doomed.path)


def _own(record: Record) -> list[str]:
    """The volumes that go with a machine: no other has them."""
    attached = {disk.source for disk in record.attached}
    own = [] if record.root is None else [record.root]
    return own + [volume for volume in record.brought if volume in attached and not users_of(volume)]
