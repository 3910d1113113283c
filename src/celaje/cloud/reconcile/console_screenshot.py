"""GetConsoleScreenshot: the console as a terminal would show it now, as a picture.

What the guest said last goes through a terminal of 80 by 25 characters (pyte), and what that shows is drawn (Pillow).
Both are imported by the first that asks: nobody else waits for them.
"""

from __future__ import annotations

import base64
import io
import logging
from typing import TYPE_CHECKING

from celaje.cloud.aws.action import Actions, Answer, Call
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.ec2.instance_lookup import find_instance
from celaje.cloud.state.instances import RUNNING
from celaje.errors import CelajeError

if TYPE_CHECKING:
    import pyte
    from mypy_boto3_ec2 import type_defs as ec2

log = logging.getLogger(__name__)

ACTIONS = Actions("ec2")
COLUMNS, LINES = 80, 25
FED_BYTES = 16_384  # of the console's end: more than a screen of anything but pictures in text
QUALITY = 90
_TEST_PICTURE = b"\x1b#8"
_BACKGROUND, _FOREGROUND = (0, 0, 0), (200, 200, 200)
_COLOURS = {
    "black": (0, 0, 0),
    "red": (205, 49, 49),
    "green": (13, 188, 121),
    "brown": (229, 229, 16),
    "blue": (36, 114, 200),
    "magenta": (188, 63, 188),
    "cyan": (17, 168, 205),
    "white": (229, 229, 229),
}


@ACTIONS.action
def get_console_screenshot(call: Call, request: ec2.GetConsoleScreenshotRequestTypeDef) -> Answer:
    """Of a running one. WakeUp is taken as it is: a serial console does not sleep."""
    from celaje.cloud.reconcile import machines  # what it imports would make the first answer of a cloud wait

    instance = find_instance(call, request["InstanceId"])
    if instance.state != RUNNING:
        raise AwsError("IncorrectInstanceState", f"The instance '{instance.id}' is not in the 'running' state.")
    try:
        said = machines.console_output(instance.id)
    except CelajeError:
        said = b""
    picture = base64.b64encode(drawn(shown(said))).decode("ascii")
    return {"InstanceId": instance.id, "ImageData": picture}


def shown(said: bytes) -> pyte.Screen:
    """A terminal to which a guest has written `said`, whatever that is."""
    import pyte

    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    # Each test picture (DECALN) takes pyte milliseconds: a guest could keep this process busy with nothing else.
    for line in said[-FED_BYTES:].replace(_TEST_PICTURE, b" ").splitlines(keepends=True):
        try:
            stream.feed(line)
        except Exception as error:  # a sequence that the terminal does not know how to take: it takes the next line
            log.debug("a console's line is left out: %s", error)
            stream = pyte.ByteStream(screen)
    return screen


def drawn(screen: pyte.Screen) -> bytes:
    """The terminal's screen as a JPEG."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default_imagefont()
    _, top, wide, bottom = font.getbbox("M")
    width, height = int(wide), int(bottom - top) + 2
    picture = Image.new("RGB", (COLUMNS * width, LINES * height), _BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for line in range(LINES):
        for column in range(COLUMNS):
            cell = screen.buffer[line][column]
            front, behind = _colour(cell.fg, _FOREGROUND), _colour(cell.bg, _BACKGROUND)
            if cell.reverse != (not screen.cursor.hidden and (screen.cursor.y, screen.cursor.x) == (line, column)):
                front, behind = behind, front
            x, y = column * width, line * height
            if behind != _BACKGROUND:
                pen.rectangle((x, y, x + width - 1, y + height - 1), fill=behind)
            if cell.data.strip():
                pen.text((x, y), cell.data[0].encode("latin-1", "replace").decode("latin-1"), fill=front, font=font)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=QUALITY)
    return written.getvalue()


def _colour(name: str, default: tuple[int, int, int]) -> tuple[int, int, int]:
    """A colour of pyte's: a name, six hexadecimal digits, or `default`."""
    known = _COLOURS.get(name.removeprefix("bright"))
    if known is not None:
        return known
    if len(name) == 6:
        try:
            red, green, blue = bytes.fromhex(name)
        except ValueError:
            return default
        return red, green, blue
    return default
