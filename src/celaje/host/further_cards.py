"""A machine's network cards beyond its first: each in a slot of the board, with a document of its own
(interface_file.py), plugged in when the machine starts or while it runs.
"""

from __future__ import annotations

import threading
from functools import partial

from celaje.errors import InputError, NotFound, UsageError
from celaje.host.interface_file import further_interfaces, read_interface
from celaje.host.network_card import NetworkCard
from celaje.host.record import MachineDirectory
from celaje.machine.machine import Machine
from celaje.machine.virtio.device import VirtioDevice


class FurtherCards:
    """Those of the machine of `directory`, which has room for `room` of them. Interface N is in slot N - 1.

    Those that have documents are plugged into their networks when this is made: InputError, HostError where that cannot
    be, and then none is. `machine` must be set before `attach` and `detach`; it closes the cards' devices.
    """

    def __init__(self, directory: MachineDirectory, room: int) -> None:
        self._directory = directory
        self._room = room
        self._cards: dict[int, NetworkCard] = {}
        self._changing = threading.RLock()
        self.machine: Machine
        try:
            for number in further_interfaces(directory):
                self._cards[number] = self._plugged_in(number)
        except BaseException:
            for card in self._cards.values():
                card.close()
                card.device.close()
            raise

    @property
    def devices(self) -> dict[int, VirtioDevice]:
        """By slot, for a machine that is about to start."""
        return {number - 1: card.device for number, card in self._cards.items()}

    def close(self) -> None:
        """Attach none again."""
        for card in self._cards.values():
            card.close()

    def attach(self, number: int) -> None:
        """Interface `number` is there as its document says, or was already. UsageError, NotFound, InputError,
        HostError."""
        with self._changing:
            if number in self._cards:
                return
            card = self._plugged_in(number)
            try:
                self.machine.plug(card.device, number - 1)
            except BaseException:
                card.close()
                card.device.close()
                raise
            self._cards[number] = card

    def detach(self, number: int) -> None:
        """Interface `number` is cut off its network, and its card leaves the guest. UsageError while it has a
        document: it would be back with the next start."""
        with self._changing:
            if number in further_interfaces(self._directory):
                raise UsageError(f"interface {number} of {self._directory.name} is to be there; remove its document")
            card = self._cards.pop(number, None)
            if card is not None:
                card.pull()
                self.machine.unplug(number - 1)

    def cards(self) -> dict[int, NetworkCard]:
        """By their interfaces' numbers, as they are now."""
        with self._changing:
            return dict(self._cards)

    def _plugged_in(self, number: int) -> NetworkCard:
        if not 1 <= number <= self._room:
            raise UsageError(
                f"{self._directory.name} has room for {self._room} network cards beyond its first, and interface "
                f"{number} is none of them"
            )
        document = read_interface(self._directory, number)
        if document is None:
            raise NotFound(f"interface {number} of {self._directory.name} has no document; write it first")
        other = next((one for one in self._cards.values() if one.mac == document.mac), None)
        if other is not None:
            raise InputError(f"two network cards of {self._directory.name} have the address {document.mac}")
        return NetworkCard(document, partial(read_interface, self._directory, number))
