"""Rules of security groups: as requests give them, added, revoked, changed, described."""

from __future__ import annotations

import datetime
import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import select

from celaje.cloud.aws.action import Actions, Answer, Call, Request
from celaje.cloud.aws.errors import AwsError
from celaje.cloud.aws.filters import Filters
from celaje.cloud.aws.tag_specifications import tags_for
from celaje.cloud.ec2.identifiers import is_id
from celaje.cloud.ec2.kinds import Kind, Tagged
from celaje.cloud.ec2.security_groups import PORTED, checked_text, find_group, group_of_name, named_group
from celaje.cloud.state.identifiers import new_id
from celaje.cloud.state.networks import Vpc
from celaje.cloud.state.security_groups import ALL_PROTOCOLS, ANYWHERE, SecurityGroup, SecurityGroupRule
from celaje.cloud.state.tags import answered_tags, remove_tags, set_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2 import type_defs as ec2

ACTIONS = Actions("ec2")
RULES = Kind(
    SecurityGroupRule,
    "sgr",
    "InvalidSecurityGroupRuleId",
    "InvalidSecurityGroupRuleId.NotFound",
    "security group rule ID",
)
RULES_PER_GROUP = 60  # a direction and a version of IP
_NAMES = {"1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6", "all": ALL_PROTOCOLS}
_HIGHEST = {"tcp": 65535, "udp": 65535, "icmp": 255, "icmpv6": 255}


@dataclass(frozen=True, slots=True)
class Match:
    """What a rule admits; the fields are those of its table. Exactly one source is not ""."""

    protocol: str
    first_port: int
    last_port: int
    cidr: str = ""
    cidr6: str = ""
    other_group: str = ""

    def __str__(self) -> str:
        peer = self.cidr or self.cidr6 or self.other_group
        if self.protocol in PORTED:
            first, last = ("from port", "to port") if self.protocol in ("tcp", "udp") else ("type", "code")
            ports = f"{first}: {self.first_port}, {last}: {self.last_port}"
            return f"peer: {peer}, {self.protocol.upper()}, {ports}, ALLOW"
        protocol = "ALL" if self.protocol == ALL_PROTOCOLS else f"PROTOCOL {self.protocol}"
        return f"peer: {peer}, {protocol}, ALLOW"


def _match_of(rule: SecurityGroupRule) -> Match:
    return Match(rule.protocol, rule.first_port, rule.last_port, rule.cidr, rule.cidr6, rule.other_group)


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidParameterValue", message)


def _checked_ports(protocol: str | None, first: int | None, last: int | None) -> Match:
    """A match without its source."""
    if not protocol:
        raise AwsError("MissingParameter", "The request must contain the parameter ipProtocol")
    name = _NAMES.get(protocol.lower(), protocol.lower())
    if name == ALL_PROTOCOLS:
        return Match(name, -1, -1)
    if name not in PORTED:
        if not (name.isascii() and name.isdigit() and int(name) <= 255):
            raise _invalid(f"Invalid value '{protocol}' for IP protocol. Unknown protocol.")
        return Match(str(int(name)), -1, -1)
    highest = _HIGHEST[name]
    if name in ("tcp", "udp"):
        if first is None or last is None:
            raise _invalid("Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
        if first == last == -1:
            first, last = 0, highest
        for port in (first, last):
            if not 0 <= port <= highest:
                raise _invalid(f"Invalid value '{port}' for portRange. Ports are 0 to {highest}.")
        if first > last:
            raise _invalid(f"Invalid {name.upper()} port range ({first}-{last}): the first port is above the last one")
        return Match(name, first, last)
    kind, code = -1 if first is None else first, -1 if last is None else last
    if not (-1 <= kind <= highest and -1 <= code <= highest):
        raise _invalid(f"Invalid value for {name.upper()} type or code ({kind}, {code}): each is -1 to {highest}")
    if kind == -1 and code != -1:
        raise _invalid(f"ICMP code ({code}) must be -1 where the ICMP type is -1, which is all types")
    return Match(name, kind, code)


def _checked_cidr(text: str | None, version: int) -> str:
    try:
        if not text or "/" not in text:
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
        if network.version != version or "%" in text:
            raise ValueError
    except ValueError:
        raise _invalid(f"CIDR block {text or ''} is malformed") from None
    return str(network)


def _checked_description(text: str | None) -> str:
    return checked_text(text or "", "rule description")


def _peer(call: Call, group: SecurityGroup, pair: Mapping[str, object]) -> str:
    """The id of the group that a UserIdGroupPair means: one of the same VPC, by id, or by its name in the default
    VPC."""
    owner = pair.get("UserId")
    group_id, name = pair.get("GroupId"), pair.get("GroupName")
    if not group_id and not name:
        raise AwsError("MissingParameter", "Source group ID missing.")
    if group_id:
        peer = find_group(call.session, call.account, call.region, str(group_id))
    else:
        peer = group_of_name(call.session, call.account, call.region, str(name))
    if owner and owner != call.account:
        raise AwsError("InvalidGroup.NotFound", f"The security group '{group_id or name}' does not exist")
    if peer.vpc != group.vpc:
        raise AwsError(
            "InvalidGroup.NotFound", "You have specified two resources that belong to different networks."
        )
    return peer.id


def _of_permissions(
    call: Call, group: SecurityGroup, given: Sequence[Mapping[str, object]]
) -> list[tuple[Match, str]]:
    """What IpPermissions say, one match a source, with its description."""
    found: list[tuple[Match, str]] = []
    for permission in given:
        protocol, first, last = (permission.get(name) for name in ("IpProtocol", "FromPort", "ToPort"))
        match = _checked_ports(
            None if protocol is None else str(protocol),
            first if isinstance(first, int) else None,
            last if isinstance(last, int) else None,
        )
        before = len(found)
        for entry in _entries(permission, "IpRanges"):
            cidr = _checked_cidr(_text(entry, "CidrIp"), 4)
            found.append((replace(match, cidr=cidr), _checked_description(_text(entry, "Description"))))
        for entry in _entries(permission, "Ipv6Ranges"):
            cidr = _checked_cidr(_text(entry, "CidrIpv6"), 6)
            found.append((replace(match, cidr6=cidr), _checked_description(_text(entry, "Description"))))
        for entry in _entries(permission, "UserIdGroupPairs"):
            peer = _peer(call, group, entry)
            found.append((replace(match, other_group=peer), _checked_description(_text(entry, "Description"))))
        for entry in _entries(permission, "PrefixListIds"):
            raise AwsError(
                "InvalidPrefixListID.NotFound",
                f"The prefix list ID '{_text(entry, 'PrefixListId')}' does not exist",
            )
        if len(found) == before:
            raise AwsError("MissingParameter", "Source group ID missing.")
    seen = [match for match, _ in found]
    if len(set(seen)) != len(seen):
        raise _invalid("The same permission must not appear multiple times")
    return found


def _entries(permission: Mapping[str, object], member: str) -> list[Mapping[str, object]]:
    given = permission.get(member)
    return given if isinstance(given, list) else []


def _text(entry: Mapping[str, object], member: str) -> str | None:
    given = entry.get(member)
    return None if given is None else str(given)


def _asked(call: Call, group: SecurityGroup, request: Request) -> list[tuple[Match, str]]:
    """What a request asks for: IpPermissions, or one rule in the members of old."""
    given = request.get("IpPermissions")
    legacy = {name: request.get(name) for name in ("IpProtocol", "FromPort", "ToPort", "CidrIp")}
    source = request.get("SourceSecurityGroupName")
    if given:
        if any(value is not None for value in legacy.values()) or source:
            raise AwsError(
                "InvalidParameterCombination",
                "The parameter ipPermissions cannot be used together with the parameters of a single rule",
            )
        return _of_permissions(call, group, given)
    if source:
        pair = {"GroupName": source, "UserId": request.get("SourceSecurityGroupOwnerId")}
        permission = {**legacy, "UserIdGroupPairs": [pair]}
        if legacy["IpProtocol"] is None:
            permission["IpProtocol"] = ALL_PROTOCOLS
        return _of_permissions(call, group, [permission])
    if legacy["IpProtocol"] is None:
        raise AwsError("MissingParameter", "The request must contain the parameter ipPermissions")
    if legacy["CidrIp"] is None:
        raise AwsError("MissingParameter", "The request must contain the parameter cidrIp")
    return _of_permissions(call, group, [{**legacy, "IpRanges": [{"CidrIp": legacy["CidrIp"]}]}])


def _rules_of(call: Call, group: SecurityGroup, egress: bool) -> dict[Match, SecurityGroupRule]:
    query = select(SecurityGroupRule).where(
        SecurityGroupRule.security_group == group.id, SecurityGroupRule.egress.is_(egress)
    )
    return {_match_of(rule): rule for rule in call.session.scalars(query)}


def _check_limit(group: SecurityGroup, matches: Iterable[Match]) -> None:
    counts = {"IPv4": 0, "IPv6": 0}
    for match in matches:
        counts["IPv4"] += not match.cidr6
        counts["IPv6"] += not match.cidr
    for version, count in counts.items():
        if count > RULES_PER_GROUP:
            raise AwsError(
                "RulesPerSecurityGroupLimitExceeded",
                f"The maximum number of rules per security group has been reached: {group.id} would have {count} for "
                f"{version} of at most {RULES_PER_GROUP}",
            )


def _authorize(call: Call, request: Request, egress: bool) -> Answer:
    group = named_group(call, request.get("GroupId"), request.get("GroupName"))
    asked = _asked(call, group, request)
    tags = tags_for(request.get("TagSpecifications"), "security-group-rule")
    present = _rules_of(call, group, egress)
    for match, _ in asked:
        if match in present:
            raise AwsError("InvalidPermission.Duplicate", f'the specified rule "{match}" already exists')
    _check_limit(group, [*present, *(match for match, _ in asked)])
    made = []
    for number, (match, description) in enumerate(asked):
        rule = SecurityGroupRule(
            id=new_id("sgr"),
            account=call.account,
            region=call.region,
            created=call.now + datetime.timedelta(microseconds=number),  # they are told in the order of the request
            security_group=group.id,
            egress=egress,
            protocol=match.protocol,
            first_port=match.first_port,
            last_port=match.last_port,
            cidr=match.cidr,
            cidr6=match.cidr6,
            other_group=match.other_group,
            description=description,
        )
        set_tags(call.session, rule.id, "security-group-rule", call.account, call.region, tags)
        made.append(rule)
    call.session.add_all(made)
    call.wake("networks")
    return {"Return": True, "SecurityGroupRules": [_described(Tagged(rule, tags)) for rule in made]}


@ACTIONS.action
def authorize_security_group_ingress(call: Call, request: ec2.AuthorizeSecurityGroupIngressRequestTypeDef) -> Answer:
    """Admit what comes in."""
    return _authorize(call, request, egress=False)


@ACTIONS.action
def authorize_security_group_egress(call: Call, request: ec2.AuthorizeSecurityGroupEgressRequestTypeDef) -> Answer:
    """Admit what goes out."""
    return _authorize(call, request, egress=True)


def _revoke(call: Call, request: Request, egress: bool) -> Answer:
    group = named_group(call, request.get("GroupId"), request.get("GroupName"))
    ids = request.get("SecurityGroupRuleIds")
    unknown: list[dict[str, object]] = []
    if ids:
        if request.get("IpPermissions") or request.get("IpProtocol"):
            raise AwsError(
                "InvalidParameterCombination",
                "The parameters ipPermissions and securityGroupRuleIds cannot be used together",
            )
        gone = [_rule_in(call, group, rule_id, egress) for rule_id in dict.fromkeys(ids)]
    else:
        present = _rules_of(call, group, egress)
        asked = [match for match, _ in _asked(call, group, request)]
        missing = [match for match in asked if match not in present]
        if missing and not _in_default_vpc(call, group):
            raise AwsError(
                "InvalidPermission.NotFound", "The specified rule does not exist in this security group."
            )
        unknown = [_permission(match, call.account) for match in missing]
        gone = [present[match] for match in asked if match in present]
    described = [_described(Tagged(rule, {})) for rule in gone]
    for rule in gone:
        remove_tags(call.session, rule.id)
        call.session.delete(rule)
    call.wake("networks")
    members = "SecurityGroupRuleId GroupId IsEgress IpProtocol FromPort ToPort CidrIpv4 CidrIpv6 Description".split()
    return {
        "Return": True,
        "UnknownIpPermissions": unknown,
        "RevokedSecurityGroupRules": [
            {name: rule[name] for name in members if name in rule}
            | ({"ReferencedGroupId": row.other_group} if row.other_group else {})
            for rule, row in zip(described, gone, strict=True)
        ],
    }


def _in_default_vpc(call: Call, group: SecurityGroup) -> bool:
    return call.session.get_one(Vpc, group.vpc).is_default


def _permission(match: Match, account: str) -> dict[str, object]:
    ported = match.protocol in PORTED
    return {
        "FromPort": match.first_port if ported else None,
        "IpProtocol": match.protocol,
        "IpRanges": [{"CidrIp": match.cidr}] if match.cidr else [],
        "Ipv6Ranges": [{"CidrIpv6": match.cidr6}] if match.cidr6 else [],
        "ToPort": match.last_port if ported else None,
        "UserIdGroupPairs": [{"GroupId": match.other_group, "UserId": account}] if match.other_group else [],
    }


def _rule_in(call: Call, group: SecurityGroup, rule_id: str, egress: bool | None = None) -> SecurityGroupRule:
    rule = RULES.find(call, rule_id)
    if rule.security_group != group.id or egress not in (None, rule.egress):
        raise RULES.missing(rule_id)
    return rule


@ACTIONS.action
def revoke_security_group_ingress(call: Call, request: ec2.RevokeSecurityGroupIngressRequestTypeDef) -> Answer:
    """Admit something no longer, also where it comes in already. In a default VPC what no rule says is answered as
    unknown, elsewhere it is refused; both as at AWS."""
    return _revoke(call, request, egress=False)


@ACTIONS.action
def revoke_security_group_egress(call: Call, request: ec2.RevokeSecurityGroupEgressRequestTypeDef) -> Answer:
    """The same for what goes out."""
    return _revoke(call, request, egress=True)


@ACTIONS.action
def modify_security_group_rules(call: Call, request: ec2.ModifySecurityGroupRulesRequestTypeDef) -> Answer:
    """Replace rules, each under its id."""
    group = find_group(call.session, call.account, call.region, request["GroupId"])
    changed: list[tuple[SecurityGroupRule, Match]] = []
    for update in request["SecurityGroupRules"]:
        rule = _rule_in(call, group, update["SecurityGroupRuleId"])
        wanted: Mapping[str, object] = update.get("SecurityGroupRule") or {}
        source = _only_source(wanted)
        permission: dict[str, object] = {name: wanted.get(name) for name in ("IpProtocol", "FromPort", "ToPort")}
        value = _text(wanted, source)
        description = wanted.get("Description")
        match source:
            case "CidrIpv4":
                permission["IpRanges"] = [{"CidrIp": value, "Description": description}]
            case "CidrIpv6":
                permission["Ipv6Ranges"] = [{"CidrIpv6": value, "Description": description}]
            case "PrefixListId":
                permission["PrefixListIds"] = [{"PrefixListId": value}]
            case _:
                permission["UserIdGroupPairs"] = [{"GroupId": value, "Description": description}]
        [(asked, text)] = _of_permissions(call, group, [permission])
        rule.description = text
        changed.append((rule, asked))
    _replace(call, group, changed)
    call.wake("networks")
    return {"Return": True}


def _only_source(wanted: Mapping[str, object]) -> str:
    """The member that says where the traffic of a replaced rule comes from or goes to. AwsError where that, or what
    goes with it, is missing."""
    protocol = wanted.get("IpProtocol")
    if protocol is None:
        raise _invalid("Invalid value 'null' for protocol. VPC security group rules must specify protocols explicitly.")
    if protocol in ("tcp", "udp", "6", "17") and None in (wanted.get("FromPort"), wanted.get("ToPort")):
        raise _invalid("Invalid value for portRange. Must specify both from and to ports with TCP/UDP.")
    found = [name for name in ("CidrIpv4", "CidrIpv6", "PrefixListId", "ReferencedGroupId") if wanted.get(name)]
    if not found:
        raise AwsError(
            "MissingParameter",
            "The request must contain exactly one of: cidrIp, cidrIpv6, prefixListId, or referencedGroupId",
        )
    if len(found) > 1:
        raise AwsError(
            "InvalidParameterCombination",
            "Only one of cidrIp, cidrIpv6, prefixListId, or referencedGroupId can be specified",
        )
    return found[0]


def _replace(call: Call, group: SecurityGroup, changed: Sequence[tuple[SecurityGroupRule, Match]]) -> None:
    replaced = {rule.id for rule, _ in changed}
    for egress in (False, True):
        kept = [match for match, rule in _rules_of(call, group, egress).items() if rule.id not in replaced]
        after = kept + [match for rule, match in changed if rule.egress is egress]
        for match, count in Counter(after).items():
            if count > 1:
                raise AwsError("InvalidPermission.Duplicate", f'the specified rule "{match}" already exists')
        _check_limit(group, after)
    for number, (rule, _) in enumerate(changed):  # aside first: two rules may change places
        rule.protocol, rule.first_port, rule.cidr = "changing", number, ANYWHERE
    call.session.flush()
    for rule, match in changed:
        rule.protocol, rule.first_port, rule.last_port = match.protocol, match.first_port, match.last_port
        rule.cidr, rule.cidr6, rule.other_group = match.cidr, match.cidr6, match.other_group


def _describe_anew(call: Call, request: Request, egress: bool) -> Answer:
    group = named_group(call, request.get("GroupId"), request.get("GroupName"))
    if given := request.get("SecurityGroupRuleDescriptions"):
        for each in given:
            rule = _rule_in(call, group, str(each.get("SecurityGroupRuleId") or ""), egress)
            rule.description = _checked_description(each.get("Description"))
        return {"Return": True}
    if not request.get("IpPermissions"):
        raise AwsError("MissingParameter", "The request must contain the parameter ipPermissions")
    present = _rules_of(call, group, egress)
    for match, description in _of_permissions(call, group, request["IpPermissions"]):
        if match not in present:
            raise AwsError(
                "InvalidPermission.NotFound", "The specified rule does not exist in this security group."
            )
        present[match].description = description
    return {"Return": True}


@ACTIONS.action
def update_security_group_rule_descriptions_ingress(
    call: Call, request: ec2.UpdateSecurityGroupRuleDescriptionsIngressRequestTypeDef
) -> Answer:
    """New descriptions of rules for what comes in."""
    return _describe_anew(call, request, egress=False)


@ACTIONS.action
def update_security_group_rule_descriptions_egress(
    call: Call, request: ec2.UpdateSecurityGroupRuleDescriptionsEgressRequestTypeDef
) -> Answer:
    """New descriptions of rules for what goes out."""
    return _describe_anew(call, request, egress=True)


_FILTERS = Filters[Tagged[SecurityGroupRule]](
    {
        "group-id": lambda rule: rule.row.security_group,
        "security-group-rule-id": lambda rule: rule.row.id,
    },
    tags=lambda rule: rule.tags,
)


@ACTIONS.action
def describe_security_group_rules(call: Call, request: ec2.DescribeSecurityGroupRulesRequestTypeDef) -> Answer:
    """The rules of all of the account's groups."""
    for given in request.get("Filters") or ():
        if given.get("Name") == "group-id":
            for value in given.get("Values") or ():
                if not is_id(value, "sg") and not set("*?") & set(value):
                    raise AwsError("InvalidGroupId.Malformed", f"The security group ID '{value[:64]}' is malformed")
    found, token = RULES.listed(call, request, request.get("SecurityGroupRuleIds"), _FILTERS)
    return {"SecurityGroupRules": [_described(rule) for rule in found], "NextToken": token}


def _described(rule: Tagged[SecurityGroupRule]) -> dict[str, object]:
    row = rule.row
    found: dict[str, object] = {
        "FromPort": row.first_port,
        "GroupId": row.security_group,
        "GroupOwnerId": row.account,
        "IpProtocol": row.protocol,
        "IsEgress": row.egress,
        "SecurityGroupRuleArn": f"arn:aws:ec2:{row.region}:{row.account}:security-group-rule/{row.id}",
        "SecurityGroupRuleId": row.id,
        "Tags": answered_tags(rule.tags),
        "ToPort": row.last_port,
    }
    if row.description:
        found["Description"] = row.description
    if row.cidr:
        found["CidrIpv4"] = row.cidr
    elif row.cidr6:
        found["CidrIpv6"] = row.cidr6
    else:
        found["ReferencedGroupInfo"] = {"GroupId": row.other_group, "UserId": row.account}
    return found
