"""The rules of a network's groups by their names: those that stand in its file of groups, and for other groups those
that were said last."""

from __future__ import annotations

from collections.abc import Iterable

from celaje.network.fingerprint import groups_fingerprint
from celaje.network.group_file import check_groups
from celaje.network.messages import Rule, SecurityGroup
from celaje.network.network import Network
from celaje.network.notation import security_group
from celaje.network.public_ports import AdmittedPorts, admitted_ports
from celaje.network.subnet import Subnet


class GroupRules:
    """`kept` are those of the file, which has been read."""

    def __init__(self, network: Network, kept: Iterable[SecurityGroup]) -> None:
        self._network = network
        self._said: dict[str, SecurityGroup] = {}
        self._kept: dict[str, SecurityGroup] = {}
        self._ports: dict[tuple[Subnet | None, tuple[str, ...]], AdmittedPorts] = {}
        self.changes = 0
        """How often rules have changed."""
        self.fingerprint = ""
        self.keep(kept)

    def say(self, groups: Iterable[SecurityGroup]) -> int:
        """Somebody has said these with an interface; how many flows were cut. InputError, with nothing changed, if one
        of them can be no group."""
        said = tuple(groups)
        check_groups(dict.fromkeys(said))
        changed = [one for one in said if one.name not in self._kept and self._said.get(one.name) != one]
        self._said.update((one.name, one) for one in said)
        return self._set(changed)

    def keep(self, groups: Iterable[SecurityGroup]) -> int:
        """These and no others are in the file now; how many flows were cut."""
        kept = {one.name: one for one in groups}
        was, self._kept = self._kept, kept
        self.fingerprint = groups_fingerprint(kept.values())
        changed = [one for one in kept.values() if was.get(one.name) != one]
        # A group that is in the file no more has no rules: what was said beside the file is out of date.
        gone = was.keys() - kept.keys()
        for name in gone:
            self._said.pop(name, None)
        self._ports.clear()
        self.changes += bool(gone)
        return self._set(changed) + self._network.remove_security_groups(gone)

    def admitted(self, names: tuple[str, ...], clients: Subnet | None) -> AdmittedPorts:
        """What the rules of these groups admit from outside, or from `clients` only."""
        found = self._ports.get((clients, names))
        if found is None:
            rules: list[Rule] = []
            for name in names:
                group = self._kept.get(name) or self._said.get(name)
                rules += group.rules if group is not None else ()
            found = self._ports[clients, names] = admitted_ports(rules, self._network.blocks, clients)
        return found

    def _set(self, changed: list[SecurityGroup]) -> int:
        if not changed:
            return 0
        self._ports.clear()
        self.changes += 1
        return self._network.set_security_groups([security_group(one) for one in changed])
