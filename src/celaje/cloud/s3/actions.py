"""The operations of S3 that there are, over one store."""

from __future__ import annotations

from celaje.cloud.aws.action import READING, Actions
from celaje.cloud.s3.buckets import BucketActions
from celaje.cloud.s3.configurations import ConfigurationActions
from celaje.cloud.s3.listing import ListingActions
from celaje.cloud.s3.multipart import MultipartActions
from celaje.cloud.s3.objects import ObjectActions
from celaje.cloud.s3.store.object_store import ObjectStore


def s3_actions(store: ObjectStore) -> Actions:
    """The actions. None runs in a transaction of the cloud's database: objects have a store of their own."""
    actions = Actions("s3")
    groups = (
        BucketActions(store),
        ObjectActions(store),
        MultipartActions(store),
        ListingActions(store),
        ConfigurationActions(store),
    )
    for group in groups:
        for name, function in vars(type(group)).items():
            if not name.startswith("_") and callable(function):
                actions.add(getattr(group, name), reads=name.startswith(READING), transacted=False)
    return actions
