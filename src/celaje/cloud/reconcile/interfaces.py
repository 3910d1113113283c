"""The controller of interfaces: attaches them to machines that are there already, and detaches them.

A machine that starts has those that its instance has (launching.py). At one that runs a card is plugged in after its
document is written, and pulled after that is taken away, so that whichever of the two a kill comes between, the same
step again ends the same way, and so does a start of the machine meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.ec2 import network_interfaces
from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.state.database import Database
from celaje.cloud.state.instances import RUNNING, STOPPED, Instance
from celaje.cloud.state.networks import NetworkInterface
from celaje.errors import CelajeError
from celaje.host import control, messages
from celaje.host.interface_file import remove_interface, write_interface
from celaje.host.record import MachineDirectory
from celaje.network.messages import Attach

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # while something changes

Wake = Callable[[Iterable[str]], None]
DocumentsOf = Callable[[Session, Instance], Mapping[int, Attach]]


class InterfacesController:
    """`documents` says what an instance's interfaces are, by network card."""

    name = "interfaces"

    def __init__(self, database: Database, wake: Wake, documents: DocumentsOf) -> None:
        self._database = database
        self._wake = wake
        self._documents = documents
        self._retries = Retries()
        self._begun = False

    def step(self) -> float | None:
        """One step of every attachment that is becoming something."""
        states = ["attaching", "detaching"]
        if not self._begun:
            # A machine that was started just before the last daemon ended may lack one that is noted as attached.
            states.append("attached")
            self._begun = True
        with self._database.read() as session:
            query = select(NetworkInterface.id).where(
                NetworkInterface.instance != "",
                NetworkInterface.card != 0,
                NetworkInterface.attachment_state.in_(states),
            )
            changing = session.scalars(query).all()
        for identifier in changing:
            self._try(identifier)
        return sooner(self._retries.next(), LOOK_SECONDS if changing else None)

    def _try(self, identifier: str) -> None:
        if not self._retries.due(identifier):
            return
        try:
            self._settle(identifier)
        except (CelajeError, OSError) as error:
            pause = self._retries.failed(identifier)
            log.warning("%s: %s; tried again in %.1f s", identifier, error, pause)
        else:
            self._retries.succeeded(identifier)

    def _settle(self, identifier: str) -> None:
        with self._database.read() as session:
            interface = session.get(NetworkInterface, identifier)
            instance = session.get(Instance, interface.instance) if interface is not None else None
            # While it starts, or stops, its machine is what it was; it is looked at again when that is over.
            if interface is None or instance is None or instance.state not in (RUNNING, STOPPED):
                return
            leaves = interface.attachment_state == "detaching"
            document = None if leaves else self._documents(session, instance).get(interface.card)
        directory = MachineDirectory.of(instance.id)
        if instance.state == RUNNING:
            machine = control.connected(directory)
            if machine is None:
                # It is just being started again, with the interfaces that it had when that began: perhaps not with this
                # one, or still with it.
                return
            with machine:
                if leaves:
                    remove_interface(directory, interface.card)
                    machine.ask(messages.DetachInterface(number=interface.card), messages.Done)
                elif document is not None:
                    write_interface(directory, document, interface.card)
                    machine.ask(messages.AttachInterface(number=interface.card), messages.Done)
                else:
                    return
        elif leaves:
            remove_interface(directory, interface.card)
        self._note(identifier, interface.attachment, interface.attachment_state)

    def _note(self, identifier: str, attachment: str, was: str) -> None:
        """What it was becoming has come about, unless it is becoming something else by now."""
        with self._database.write() as session:
            interface = session.get(NetworkInterface, identifier)
            if interface is None or (interface.attachment, interface.attachment_state) != (attachment, was):
                return
            if was == "attaching":
                interface.attachment_state = "attached"
            elif was == "detaching":
                network_interfaces.detach(session, interface)
        self._wake(("networks",))
