"""A private address that an attached interface has, with what belongs to it alone: its flows, its public address, and
where on the host that is listened on. An interface's first address has the owner's forwards besides.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from celaje.errors import HostError
from celaje.network.destinations import Opened
from celaje.network.group_rules import GroupRules
from celaje.network.interface import Interface
from celaje.network.messages import Forward
from celaje.network.nat import InterfaceFlows, Nat
from celaje.network.notation import address_number
from celaje.network.public_pool import PublicPool
from celaje.network.public_ports import LOOPBACK, AdmittedPorts, PublicPorts

log = logging.getLogger(__name__)


class HeldAddress:
    """That of `interface`, with `public` (None: none). HostError or InputError if that cannot be had; then nothing of
    it is left."""

    def __init__(
        self,
        interface: Interface,
        nat: Nat,
        rules: GroupRules,
        pool: PublicPool | None,
        public: str | None,
        forwards: Iterable[Forward],
        opened: Opened,
    ) -> None:
        self.interface = interface
        self.public_address = public
        self._nat = nat
        self._rules = rules
        self._pool = pool
        self.flows: InterfaceFlows = nat.attached(interface)
        self.flows.opened = opened
        nat.network.set_public_address(interface, public)
        try:
            is_real = self._join_pool(public)
            self.ports = PublicPorts(self.flows, public, forwards, self._admitted(public), is_real)
        except BaseException:
            self._leave()
            raise

    def close(self) -> None:
        """Nothing of it is left, beside the address itself."""
        self.ports.close()
        self._leave()

    def _leave(self) -> None:
        if self._pool is not None:
            self._pool.remove(self.interface)
        self._nat.detached(self.interface)

    def rules_changed(self) -> None:
        """Of groups that the interface is in, perhaps: its ports and NAT's flows follow."""
        try:
            self.ports.set_admitted(self._admitted(self.public_address))
        except HostError as error:
            # The rules hold all the same; what is missing is a place on the host.
            log.warning("%s: %s", self.interface.name, error)
        self._nat.reconsider(self.flows)

    def set_public_address(self, now: str | None) -> int:
        """The public address is `now`; how many flows of the former one were cut. HostError if it cannot be had: then
        it is the former one."""
        was = self.public_address
        if now == was:
            return 0
        former_exit = self.flows.exit
        is_real = self._join_pool(now)
        try:
            cut = self.ports.set_address(now, is_real, self._admitted(now))
        except HostError:
            self.flows.exit = former_exit
            self._leave_pool(now if is_real else None)
            self.ports.set_address(was, former_exit is not None, self._admitted(was))
            raise
        self.public_address = now
        self._nat.network.set_public_address(self.interface, now)
        if not is_real:
            self.flows.exit = None
        self._leave_pool(was if former_exit is not None else None)
        return cut

    def _join_pool(self, public: str | None) -> bool:
        """Whether the public address is one of the pool's, and this interface's now."""
        if self._pool is None or public is None or not self._pool.has(address_number(public)):
            return False
        self.flows.exit = self._pool.add(address_number(public), self.interface)
        return True

    def _leave_pool(self, public: str | None) -> None:
        if self._pool is not None and public is not None:
            self._pool.remove_address(address_number(public))

    def _admitted(self, public: str | None) -> AdmittedPorts:
        """What the interface's rules admit at a public address."""
        clients = LOOPBACK if public is not None and LOOPBACK.has(address_number(public)) else None
        return self._rules.admitted(self.interface.groups, clients)
