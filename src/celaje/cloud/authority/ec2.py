"""The questions of EC2's calls (Service Authorization Reference, Amazon EC2).

An action is asked for each resource that the request names and each that it makes; reading actions for none (`*`).
Which these are follows from the names of the request's members, so an action that is new is asked for as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from sqlalchemy import select

from celaje.cloud.authority.ec2_names import BY_NAMES, BY_OTHER_IDS, Named, associated_with
from celaje.cloud.authority.facts import requested_tags
from celaje.cloud.aws.action import Call
from celaje.cloud.aws.question import Fact, Question, Values
from celaje.cloud.state.base import Resource
from celaje.cloud.state.images import Image
from celaje.cloud.state.instances import Instance
from celaje.cloud.state.networks import NetworkInterface, Subnet
from celaje.cloud.state.roles import InstanceProfile, Role
from celaje.cloud.state.security_groups import SecurityGroup
from celaje.cloud.state.snapshots import Snapshot
from celaje.cloud.state.tags import Tag
from celaje.cloud.state.volumes import Volume
from celaje.cloud.state.zones import zone_of_id

# By the prefix of identifiers: AWS's word for the sort of resource.
SORTS = {
    "acl": "network-acl",
    "ami": "image",
    "dopt": "dhcp-options",
    "eipalloc": "elastic-ip",
    "eni": "network-interface",
    "i": "instance",
    "igw": "internet-gateway",
    "key": "key-pair",
    "lt": "launch-template",
    "nat": "natgateway",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "snap": "snapshot",
    "subnet": "subnet",
    "vgw": "vpn-gateway",
    "vol": "volume",
    "vpc": "vpc",
    "pcx": "vpc-peering-connection",
    "import-ami": "import-image-task",
    "import-snap": "import-snapshot-task",
}
# What an action makes.
_MADE: dict[str, tuple[str, ...]] = {
    "AllocateAddress": ("elastic-ip",),
    "CopyImage": ("image",),
    "CopySnapshot": ("snapshot",),
    "CreateDhcpOptions": ("dhcp-options",),
    "CreateImage": ("image", "snapshot"),
    "CreateInternetGateway": ("internet-gateway",),
    "CreateKeyPair": ("key-pair",),
    "CreateLaunchTemplate": ("launch-template",),
    "CreateNatGateway": ("natgateway",),
    "CreateNetworkAcl": ("network-acl",),
    "CreateNetworkInterface": ("network-interface",),
    "CreateRouteTable": ("route-table",),
    "CreateSecurityGroup": ("security-group",),
    "CreateSnapshot": ("snapshot",),
    "CreateSnapshots": ("snapshot",),
    "CreateSubnet": ("subnet",),
    "CreateVolume": ("volume",),
    "CreateVpc": ("vpc",),
    "ImportImage": ("image", "import-image-task"),
    "ImportKeyPair": ("key-pair",),
    "ImportSnapshot": ("snapshot", "import-snapshot-task"),
    "RegisterImage": ("image",),
    "RunInstances": ("instance", "volume", "network-interface"),
}
_NAMING = ("CreateSecurityGroup", "CreateLaunchTemplate")
ALL_SAID = "SubnetIds"  # a member that a launch has once its template and its defaults are known
_OF_NOBODY = ("image", "snapshot")  # their ARNs have no account
# Members that name resources which nothing is done to.
_PASSED_OVER = (
    "Filters",
    "IpPermissions",
    "LaunchTemplateData",  # it is asked for when it is launched
    "SecurityGroupRules",
    "TagSpecifications",
    "Tags",
)
_ONLY = dict.fromkeys(("CreateRoute", "ReplaceRoute", "DeleteRoute"), ("route-table",))
_COPYING = ("CopyImage", "CopySnapshot")
_DEEPEST = 6
_TABLES: dict[str, type[Resource]] = {
    "image": Image,
    "instance": Instance,
    "network-interface": NetworkInterface,
    "security-group": SecurityGroup,
    "snapshot": Snapshot,
    "subnet": Subnet,
    "volume": Volume,
}
_PASSING = ("RunInstances", "AssociateIamInstanceProfile", "ReplaceIamInstanceProfileAssociation")


def questions(call: Call, members: Mapping[str, object]) -> Iterator[Question]:
    """What the call asks for."""
    operation = call.operation
    action = f"ec2:{operation}"
    common: dict[str, Fact] = {"ec2:region": (call.region,)}
    if _reads(operation):
        yield Question(action, "*", common)
        return
    given = _tags_given(members)
    made = _MADE.get(operation, ())
    named = dict.fromkeys(_named(call, members))
    if operation in ("CreateTags", "DeleteTags"):
        common |= requested_tags((tag, value) for tag, value in _pairs(members.get("Tags")))
        named = dict.fromkeys(_identified(call, members.get("Resources")))
    if operation == "DisassociateAddress":
        named |= dict.fromkeys(each for one in named if one[0] == "elastic-ip" for each in associated_with(call, one))
    if operation in _ONLY:
        named = {each: None for each in named if each[0] in _ONLY[operation]}
    if operation == "RunInstances" and ALL_SAID not in members:
        # What is made, and what a template or a default says besides, is asked for by the action, which asks once more.
        made = ()
        if members.get("LaunchTemplate"):
            named = {each: None for each in named if each[0] == "launch-template"}
    # A key pair is made under the name that it is asked for by; a group and a template have an identifier only then.
    wanted = [each for each in named if not (each[0] in made and operation in _NAMING)]
    wanted += [(sort, "*", "") for sort in made if sort != "key-pair" or not any(each[0] == sort for each in named)]
    # What is copied is where it is; the copy, and all else, is in the region of the request.
    source = str(members.get("SourceRegion") or call.region) if operation in _COPYING else call.region
    for sort, identifier, row in wanted:
        tagged = requested_tags(given.get(sort, ())) if sort in made else {}
        facts = common | tagged | _of_request(call, sort, members)
        yield _question(call, action, sort, identifier, row, facts, source if row else call.region)
    if not wanted:
        yield Question(action, "*", common)
    for sort, tags in given.items():
        if tags:
            facts = common | requested_tags(tags) | {"ec2:createaction": (operation,)}
            yield _question(call, "ec2:CreateTags", sort, "*", "", facts, call.region)
    if operation in _PASSING and (passed := _passed_role(call, members)) is not None:
        yield Question("iam:PassRole", passed, {"iam:passedtoservice": ("ec2.amazonaws.com",)})


def _reads(operation: str) -> bool:
    return operation.startswith(("Describe", "List")) and not operation.endswith("Attribute")


def arn_of(call: Call, sort: str, identifier: str, region: str = "") -> str:
    """The ARN of a resource of the caller's, in the request's region if no other is said."""
    account = "" if sort in _OF_NOBODY else call.account
    return f"arn:aws:ec2:{region or call.region}:{account}:{sort}/{identifier}"


def _identified(call: Call, value: object) -> Iterator[Named]:
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str):
            continue
        prefix = text.rpartition("-")[0]
        if prefix in BY_OTHER_IDS:
            yield from BY_OTHER_IDS[prefix](call, text)
        elif (sort := SORTS.get(prefix)) is not None:
            yield sort, text, text


def _named(call: Call, members: Mapping[str, object], depth: int = 0) -> Iterator[Named]:
    """Each resource that the request names, wherever in it."""
    for name, value in members.items():
        if name in _PASSED_OVER or value is None:
            continue
        if isinstance(value, Mapping):
            if depth < _DEEPEST:
                yield from _named(call, value, depth + 1)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            if depth < _DEEPEST:
                for each in value:
                    yield from _named(call, each, depth + 1)
        elif name in BY_NAMES:
            for text in value if isinstance(value, list) else [value]:
                yield from BY_NAMES[name](call, str(text))
        elif name.endswith(("Id", "Ids", "Groups")):
            yield from _identified(call, value)


def _pairs(tags: object) -> Iterator[tuple[str, str]]:
    for tag in tags if isinstance(tags, list) else ():
        yield str(tag.get("Key") or ""), str(tag.get("Value") or "")


def _tags_given(members: Mapping[str, object]) -> dict[str, list[tuple[str, str]]]:
    """The tags for what is made, by its sort."""
    found: dict[str, list[tuple[str, str]]] = {}
    specifications = members.get("TagSpecifications")
    for each in specifications if isinstance(specifications, list) else ():
        found.setdefault(str(each.get("ResourceType") or ""), []).extend(_pairs(each.get("Tags")))
    return found


def _of_request(call: Call, sort: str, members: Mapping[str, object]) -> dict[str, Fact]:
    """What the request says of that which it makes."""
    if sort == "volume" and members.get("AvailabilityZoneId"):
        said = str(members["AvailabilityZoneId"])
        zone = zone_of_id(call.region, call.settings.regions.get(call.region, ()), said)
        members = {**members, "AvailabilityZone": zone or said}
    keys = {
        "instance": {
            "ec2:availabilityzone": "AvailabilityZone",
            "ec2:ebsoptimized": "EbsOptimized",
            "ec2:instancetype": "InstanceType",
            "ec2:metadatahttpendpoint": "MetadataHttpEndpoint",
            "ec2:metadatahttpputresponsehoplimit": "MetadataHttpPutResponseHopLimit",
            "ec2:metadatahttptokens": "MetadataHttpTokens",
        },
        "network-interface": {"ec2:availabilityzone": "AvailabilityZone"},
        "volume": {
            "ec2:volumetype": "VolumeType",
            "ec2:volumesize": "Size",
            "ec2:volumeiops": "Iops",
            "ec2:encrypted": "Encrypted",
            "ec2:availabilityzone": "AvailabilityZone",
        },
    }.get(sort, {})
    return {key: (_word(members[name]),) for key, name in keys.items() if members.get(name) is not None}


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _question(
    call: Call, action: str, sort: str, identifier: str, row: str, facts: Mapping[str, Fact], region: str
) -> Question:
    arn = arn_of(call, sort, identifier, region)
    if not row:
        return Question(action, arn, facts)
    of_row = _ROW_FACTS.get(sort, {})
    known: dict[str, Fact] = {key: partial(_asked, call, sort, row, read, region) for key, read in of_row.items()}
    return Question(action, arn, {**known, **facts}, partial(_tags, call, row))


def _tags(call: Call, identifier: str) -> Mapping[str, str]:
    rows = select(Tag.key, Tag.value).where(Tag.resource == identifier, Tag.account == call.account)
    return dict(call.session.execute(rows).all())


def _asked(call: Call, sort: str, identifier: str, read: Callable[[Call, object], str], region: str) -> Values:
    row = call.session.get(_TABLES[sort], identifier)
    if row is None or row.region != region:
        return None
    if row.account != call.account and not (isinstance(row, Image | Snapshot) and row.public):
        return None
    value = read(call, row)
    return (value,) if value else None


def _attribute(name: str) -> Callable[[Call, object], str]:
    return lambda call, row: _word(getattr(row, name))


def _vpc_arn(call: Call, row: object) -> str:
    return arn_of(call, "vpc", str(getattr(row, "vpc", "")))


_ROW_FACTS: dict[str, dict[str, Callable[[Call, object], str]]] = {
    "image": {"ec2:owner": _attribute("account"), "ec2:public": _attribute("public")},
    "instance": {
        "ec2:availabilityzone": _attribute("zone"),
        "ec2:instanceprofile": _attribute("profile"),
        "ec2:instancetype": _attribute("instance_type"),
    },
    "network-interface": {
        "ec2:availabilityzone": _attribute("zone"),
        "ec2:subnet": lambda call, row: arn_of(call, "subnet", str(getattr(row, "subnet", ""))),
        "ec2:vpc": _vpc_arn,
    },
    "security-group": {"ec2:vpc": _vpc_arn},
    "snapshot": {"ec2:owner": _attribute("account"), "ec2:volumesize": _attribute("size")},
    "subnet": {"ec2:availabilityzone": _attribute("zone"), "ec2:vpc": _vpc_arn},
    "volume": {
        "ec2:availabilityzone": _attribute("zone"),
        "ec2:volumesize": _attribute("size"),
        "ec2:volumetype": _attribute("kind"),
    },
}


def _passed_role(call: Call, members: Mapping[str, object]) -> str | None:
    """The ARN of the role that an instance is to have, None where the request gives none that there is."""
    given = members.get("IamInstanceProfile")
    if not isinstance(given, Mapping):
        return None
    name = str(given.get("Name") or str(given.get("Arn") or "").rpartition("/")[2])
    profile = select(InstanceProfile.role).where(
        InstanceProfile.account == call.account, InstanceProfile.folded == name.lower()
    )
    role = call.session.get(Role, call.session.scalar(profile) or "")
    return None if role is None else f"arn:aws:iam::{role.account}:role{role.path}{role.name}"

