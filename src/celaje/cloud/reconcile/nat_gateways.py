"""States of NAT gateways: available once the network knows of it, deleted once it knows of it no more; failed where
there is no way out of its VPC."""

from __future__ import annotations

import datetime
from collections.abc import Container

from sqlalchemy import select
from sqlalchemy.orm import Session

from celaje.cloud.ec2.nat_gateways import FAILED
from celaje.cloud.ec2.network_interfaces import release
from celaje.cloud.state.database import Database
from celaje.cloud.state.networks import InternetGateway, NatGateway
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
            | (NatGateway.state.in_(("deleted", FAILED)) & (NatGateway.deleted < long_ago))
        )
        with self._database.read() as session:
            ids = [row.id for row in session.scalars(changing) if row.vpc not in untold]
        if not ids:
            return
        with self._database.write() as session:
            for row in session.scalars(changing.where(NatGateway.id.in_(ids))).all():
                match row.state:
                    case "pending":
                        self._begin(session, row)
                    case "deleting":
                        release(session, row.interface)
                        row.state = "deleted"
                    case _:
                        remove_tags(session, row.id)
                        session.delete(row)

    @staticmethod
    def _begin(session: Session, gateway: NatGateway) -> None:
        way_out = select(InternetGateway.id).where(InternetGateway.vpc == gateway.vpc)
        if not gateway.allocation or session.scalars(way_out).first() is not None:
            gateway.state = "available"
            return
        release(session, gateway.interface)
        gateway.state, gateway.deleted = FAILED, datetime.datetime.now(datetime.UTC)
