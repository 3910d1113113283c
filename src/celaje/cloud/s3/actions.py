"""The operations of S3 that there are, over one store."""

from __future__ import annotations

import errno
import functools
import logging

from celaje.cloud.aws.action import READING, Actions, Answer, Handler
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.s3.access_control_lists import AclActions
from celaje.cloud.s3.buckets import BucketActions
from celaje.cloud.s3.configurations import ConfigurationActions
from celaje.cloud.s3.cross_origin import CorsActions
from celaje.cloud.s3.encryption import EncryptionActions
from celaje.cloud.s3.left_out import LeftOutActions
from celaje.cloud.s3.lifecycle import LifecycleActions
from celaje.cloud.s3.listing import ListingActions
from celaje.cloud.s3.multipart import MultipartActions
from celaje.cloud.s3.objects import ObjectActions
from celaje.cloud.s3.public_access import PublicAccessActions
from celaje.cloud.s3.store.encryption import KeyUnusable
from celaje.cloud.s3.store.object_store import ObjectStore
from celaje.cloud.s3.tagging import TaggingActions
from celaje.cloud.s3.versioning import VersioningActions

log = logging.getLogger(__name__)


def s3_actions(store: ObjectStore) -> Actions:
    """The actions. None runs in a transaction of the cloud's database: objects have a store of their own."""
    actions = Actions("s3")
    groups = (
        BucketActions(store),
        ObjectActions(store),
        MultipartActions(store),
        ListingActions(store),
        AclActions(store),
        PublicAccessActions(store),
        ConfigurationActions(store),
        CorsActions(store),
        EncryptionActions(store),
        LifecycleActions(store),
        LeftOutActions(store),
        TaggingActions(store),
        VersioningActions(store),
    )
    for group in groups:
        for name, function in vars(type(group)).items():
            if not name.startswith("_") and callable(function):
                handler = _told_of_host(getattr(group, name))
                actions.add(handler, reads=name.startswith(READING), transacted=False)
    return actions


def _told_of_host(handler: Handler) -> Handler:
    """The handler, whose caller is told when the host has no room: 507, which SDKs do not try again at once; and when
    the key of what is encrypted is not to be had, of which the log tells the cloud's owner more."""

    @functools.wraps(handler)
    def told(*given: object) -> Answer:
        try:
            return handler(*given)
        except KeyUnusable as error:
            log.error("%s", error)
            raise AwsError(
                "InternalError",
                "The key that this object store encrypts with cannot be used: what is encrypted cannot be read or put"
                " until the owner of this cloud has put it back; the log of the cloud tells more",
                500,
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise AwsError(
                "InsufficientStorage",
                "The disk of the host of this object store is full: delete what is not needed, and try again",
                507,
            ) from error

    return told
