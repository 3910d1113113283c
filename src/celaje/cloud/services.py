"""All services with all their actions: what a registry of the API is made of.

An action module of EC2, IAM and so on says `ACTIONS`; all modules of these packages are looked at, so that who adds an
action adds it in one place. S3's actions, and those that look into buckets, are made for a store; what tells of the use
of keys is made for what notes it.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import partial

from celaje.cloud import ec2
from celaje.cloud.aws.action import Actions, Registry
from celaje.cloud.ec2.imports import import_actions
from celaje.cloud.iam.key_uses import KeyUses, key_use_actions
from celaje.cloud.organizations.accounts import organizations_actions
from celaje.cloud.reconcile import console_output, console_screenshot
from celaje.cloud.s3.access import readable
from celaje.cloud.s3.actions import s3_actions
from celaje.cloud.s3.store.object_store import ObjectStore

PACKAGES = ("ec2", "iam", "sts", "ssm", "ebs", "servicequotas")


def actions_of(package: str) -> list[Actions]:
    """Those of the modules of one package of the cloud; none where there is no such package."""
    name = f"{ec2.__name__.rpartition('.')[0]}.{package}"
    try:
        found = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return []
    modules = (
        importlib.import_module(each.name) for each in pkgutil.iter_modules(found.__path__, f"{found.__name__}.")
    )
    return [actions for module in modules if isinstance(actions := getattr(module, "ACTIONS", None), Actions)]


def registry(store: ObjectStore, uses: KeyUses) -> Registry:
    """Every action of this cloud."""
    services: dict[str, Actions] = {"s3": s3_actions(store), "organizations": organizations_actions(store)}
    for package in PACKAGES:
        for actions in actions_of(package):
            services.setdefault(actions.service, Actions(actions.service)).include(actions)
    services["ec2"].include(import_actions(partial(readable, store)))
    services["iam"].include(key_use_actions(uses))
    for module in (console_output, console_screenshot):
        services["ec2"].include(module.ACTIONS)
    return Registry(services.values())
