"""The controller of networks: what instances' networks are told follows the database while they run.

Three things are kept as they are to be. A VPC's security groups with their rules stand in one file a network, which its
process reads; its route tables, access lists, gateways and DHCP options in another one (topologies.py). An instance's
interface (groups, public address, metadata) is one document in its machine's directory, which the machine attaches
with. What differs from what a running network has, by its fingerprints, is told to it.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.reconcile.controller import Retries, sooner
from celaje.cloud.reconcile.identity_documents import Signer
from celaje.cloud.reconcile.interface_documents import interface_documents, vpc_groups
from celaje.cloud.reconcile.metadata_facts import MetadataMaterial
from celaje.cloud.reconcile.nat_gateways import NatGateways
from celaje.cloud.reconcile.role_sessions import RoleSessions
from celaje.cloud.reconcile.topologies import vpc_topology
from celaje.cloud.settings import Settings
from celaje.cloud.state.database import Database
from celaje.cloud.state.instances import ON_A_HOST, PENDING, Instance
from celaje.cloud.state.networks import Vpc
from celaje.cloud.state.tags import tags_of
from celaje.cloud.state.volumes import attached_to
from celaje.errors import CelajeError, NotFound
from celaje.host.interface_file import differing, update_interface
from celaje.host.record import MachineDirectory
from celaje.network import client, group_file, spawn, topology
from celaje.network.messages import Attach, SecurityGroup
from celaje.network.topology import Topology

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0


class Documents:
    """Makes the documents of instances' interfaces. Threads may share it."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self._settings = settings
        self._signers = {region: Signer(directory, region) for region in settings.regions}
        self.sessions = RoleSessions()

    def prepare(self) -> None:
        """Make the keys that identity documents are signed with, where there are none yet: that takes a moment."""
        for signer in self._signers.values():
            signer.certificate()

    def of(self, session: Session, instances: Sequence[Instance]) -> dict[str, dict[int, Attach]]:
        """By instance and network card; those whose interface is released have none."""
        ids = [row.id for row in instances]
        tagged = [row.id for row in instances if row.metadata_options.instance_metadata_tags == "enabled"]
        material = MetadataMaterial(
            signers=self._signers,
            volumes=attached_to(session, ids),
            tags=tags_of(session, tagged),
            credentials=self.sessions.of(session, instances, datetime.datetime.now(datetime.UTC)),
        )
        return interface_documents(session, self._settings, instances, material)

    def one(self, session: Session, instance: Instance) -> dict[int, Attach]:
        """Those of one instance, by network card. NotFound if it has no interface."""
        found = self.of(session, [instance]).get(instance.id)
        if found is None:
            raise NotFound(f"{instance.id} has no network interface")
        return found


class NetworksController:
    """See the module."""

    name = "networks"

    def __init__(self, database: Database, documents: Documents) -> None:
        self._database = database
        self._documents = documents
        self._retries = Retries()
        self._gateways = NatGateways(database)
        self._groups: dict[str, list[SecurityGroup]] = {}  # by VPC, as they were told last
        self._topologies: dict[str, Topology] = {}  # the same
        self._running = self._known() & set(spawn.running())  # VPCs whose networks' processes may run

    def step(self) -> float | None:
        """Compare, and tell what differs."""
        with self._database.read() as session:
            by_id = {vpc.id: vpc for vpc in session.scalars(select(Vpc))}
            vpcs = list(by_id)
            rows = session.scalars(select(Instance).where(Instance.state.in_(ON_A_HOST))).all()
            documents = self._documents.of(session, rows)
            used = {row.vpc for row in rows} | (self._groups.keys() & set(vpcs))
            groups = {vpc: vpc_groups(session, vpc) for vpc in used}
            topologies = {vpc: vpc_topology(session, by_id[vpc]) for vpc in used}
        for vpc in self._known() - set(vpcs):
            self._try(vpc, partial(self._forget, vpc))
        for vpc, rules in groups.items():
            self._try(vpc, partial(self._tell_groups, vpc, rules))
            self._try(f"{vpc} (routes)", partial(self._tell_topology, vpc, topologies[vpc]))
        self._gateways.settle({vpc for vpc, told in topologies.items() if self._topologies.get(vpc) != told})
        by_network: dict[str, list[Attach]] = {}
        cards: dict[str, tuple[str, int]] = {}
        for instance, held in documents.items():
            for card, document in held.items():
                by_network.setdefault(document.network.name, []).append(document)
                cards[document.interface] = instance, card
        starting = {row.vpc for row in rows if row.state == PENDING}
        for network, attached in by_network.items():
            if network in starting:  # while disks and machines are made, so that these need not wait for it
                self._try(network, partial(spawn.ensure_running, attached[0].network))
            self._tell_interfaces(network, attached, cards)
        in_use = {row.vpc for row in rows}
        for vpc in self._running - in_use:
            self._try(f"{vpc} (unused)", partial(self._end, vpc))
        self._running |= in_use
        self._documents.sessions.keep(documents)
        renewal = self._documents.sessions.next(datetime.datetime.now(datetime.UTC))
        return sooner(LOOK_SECONDS, self._retries.next(), renewal)

    def _end(self, vpc: str) -> None:
        """A network without instances needs no process. One that is in use all the same is asked again."""
        if client.stop_unused(vpc):
            self._running.discard(vpc)

    def end_unused(self) -> None:
        """No network's process waits for machines when nobody is there to start any: one that has none ends."""
        for vpc in self._known() & set(spawn.running()):
            try:
                client.stop_unused(vpc)
            except CelajeError as error:
                log.warning("%s, which has no machines, may go on for a while: %s", vpc, error)

    def _known(self) -> set[str]:
        """VPCs whose networks have groups, those included that a daemon before this one told."""
        found = group_file.group_file("vpc-0").parent.glob("vpc-*.groups.json")
        return {path.name.removesuffix(".groups.json") for path in found} | self._groups.keys()

    def _tell_groups(self, vpc: str, groups: list[SecurityGroup]) -> None:
        if self._groups.get(vpc) != groups:
            cut = client.set_groups(vpc, groups)
            self._groups[vpc] = groups
            if cut:
                log.info("%s: %d flows that its groups admit no more were cut", vpc, cut)

    def _tell_topology(self, vpc: str, wanted: Topology) -> None:
        if self._topologies.get(vpc) != wanted:
            client.set_topology(vpc, wanted)
            self._topologies[vpc] = wanted

    def _forget(self, vpc: str) -> None:
        client.stop(vpc)  # nobody is in a VPC that is gone; otherwise its process would wait for ten minutes
        group_file.forget_groups(vpc)
        topology.forget_topology(vpc)
        self._groups.pop(vpc, None)
        self._topologies.pop(vpc, None)

    def _tell_interfaces(
        self, network: str, documents: Iterable[Attach], cards: Mapping[str, tuple[str, int]]
    ) -> None:
        try:
            changed = differing(network, documents)
        except (CelajeError, OSError) as error:
            log.warning("%s does not tell what it has: %s", network, error)
            return
        for one in changed:
            self._try(one.interface, partial(self._tell, one, *cards[one.interface]))

    def _tell(self, document: Attach, instance: str, card: int) -> None:
        directory = MachineDirectory.of(instance)
        if directory.exists():
            update_interface(directory, document, card)

    def _try(self, resource: str, task: Callable[[], object]) -> None:
        if not self._retries.due(resource):
            return
        try:
            task()
        except (CelajeError, OSError) as error:
            pause = self._retries.failed(resource)
            log.warning("the network of %s is not as it is to be: %s; tried again in %.1f s", resource, error, pause)
        else:
            self._retries.succeeded(resource)
