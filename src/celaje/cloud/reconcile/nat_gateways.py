"""States of NAT gateways: available once the network knows of it, deleted once it knows of it no more."""

from __future__ import annotations

import datetime
from collections.abc import Container

from sqlalchemy import select

from celaje.cloud.ec2.network_interfaces import release
from celaje.cloud.state.database import Database
from celaje.cloud.state.networks import NatGateway
from celaje.cloud.state.tags import remove_tags

LISTED = datetime.timedelta(hours=1)  # after a gateway was deleted


class NatGateways:
    """Of all accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def settle(self, untold: Container[str]) -> None:
        """Take those a step further whose VPC's network has been told of all; those of `untold` have not."""
        long_ago = datetime.datetime.now(datetime.UTC) - LISTED
        changing = select(NatGateway).where(
            NatGateway.state.in_(("pending", "deleting"))
            | ((NatGateway.state == "deleted") & (NatGateway.deleted < long_ago))
        )
        with self._database.read() as session:
            ids = [row.id for row in session.scalars(changing) if row.vpc not in untold]
        if not ids:
            return
        with self._database.write() as session:
            for row in session.scalars(changing.where(NatGateway.id.in_(ids))).all():
                match row.state:
                    case "pending":
                        row.state = "available"
                    case "deleting":
                        release(session, row.interface)
                        row.state = "deleted"
                    case "deleted":
                        remove_tags(session, row.id)
                        session.delete(row)
