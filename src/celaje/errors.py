"""The one tree of errors.

    CelajeError             every error that celaje raises on purpose; its text is for the person at the terminal
    ├── UsageError          wrong arguments, or a wrong combination of them           (exit status 2)
    ├── InputError          a file or setting that a person gave is not what it must be (exit status 2)
    │   ├── ImageError      a machine image, kernel or package is malformed or fails its hash
    │   └── HostError       the host lacks something: a tool, a right, space on a disk
    ├── NotFound            a name that nothing has; the text says how to list what there is (exit status 2)
    └── GuestError          the guest did what no machine can go on from          (exit status 3)

A message says what was required, what was given, and the command to run next. What a guest does to a device never
becomes an exception: the device refuses it in the device's own terms (a status bit, a reset).
"""


class CelajeError(Exception):
    """Every error that celaje raises on purpose."""

    exit_status = 2


class UsageError(CelajeError):
    """Wrong arguments, or a wrong combination of them."""


class InputError(CelajeError):
    """A file or setting that a person gave is not what it must be."""


class ImageError(InputError):
    """A machine image, kernel or package is malformed, or fails its hash."""


class HostError(InputError):
    """The host lacks something: a tool, a right, space on a disk."""


class NotFound(CelajeError):
    """A name that nothing has."""


class GuestError(CelajeError):
    """The guest did what no machine can go on from."""

    exit_status = 3
