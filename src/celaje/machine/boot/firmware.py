"""Starting in machine mode: what firmware finds in its registers, and OpenSBI's dynamic information.

Every hart starts at the firmware's first instruction with its number in a0, the device tree's address in a1 and, where
there is a kernel to go on with, the address of this in a2 (OpenSBI, include/sbi/fw_dynamic.h), doublewords:

    0   magic      0x4942534f ("OSBI")
    8   version    2
    16  next_addr  where to go on
    24  next_mode  1: supervisor
    32  options    0
    40  boot_hart  the hart that goes on; the others wait
"""

from __future__ import annotations

import struct

from celaje.engine.protocol import Hart

MAGIC = 0x4942534F
VERSION = 2
SUPERVISOR = 1
MACHINE = 3
FLAT_BASE = 0x80000000
KERNEL_BASE = 0x80200000
DYNAMIC_INFO = struct.Struct("<6Q")


def dynamic_info(kernel: int, boot_hart: int) -> bytes:
    """What a2 points to when firmware is to go on with the kernel that starts at `kernel`."""
    return DYNAMIC_INFO.pack(MAGIC, VERSION, kernel, SUPERVISOR, 0, boot_hart)


def enter_machine_mode(hart: Hart, entry: int, device_tree: int, information: int) -> None:
    """Let `hart` start at `entry`. `information` is 0 where no kernel follows."""
    hart.set("mode", MACHINE)
    hart.set("pc", entry)
    hart.set("x", hart.index, 10)
    hart.set("x", device_tree, 11)
    hart.set("x", information, 12)
