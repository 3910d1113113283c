"""Security groups and their rules, and what a network is told of them."""

from __future__ import annotations

import pytest

from celaje.cloud.ec2.security_groups import NetworkRule, network_groups
from tests.cloud.served import refusal

SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
ANYWHERE = [{"CidrIp": "0.0.0.0/0"}]


@pytest.fixture
def group(ec2):
    return ec2.create_security_group(GroupName="web", Description="of the web servers")["GroupId"]


def inward(ec2, group):
    return ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]


def test_a_new_group_admits_nothing_and_lets_everything_out(ec2, group):
    [found] = ec2.describe_security_groups(GroupNames=["web"])["SecurityGroups"]
    assert found["IpPermissions"] == []
    assert found["IpPermissionsEgress"] == [
        {
            "IpProtocol": "-1",
            "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
            "Ipv6Ranges": [],
            "PrefixListIds": [],
            "UserIdGroupPairs": [],
        }
    ]
    assert found["Description"] == "of the web servers"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"GroupName": "web", "Description": "again"}, "InvalidGroup.Duplicate"),
        ({"GroupName": "default", "Description": "mine"}, "InvalidParameterValue"),
        ({"GroupName": "sg-mine", "Description": "mine"}, "InvalidParameterValue"),
        ({"GroupName": "naïve", "Description": "mine"}, "InvalidParameterValue"),
        ({"GroupName": "x" * 256, "Description": "mine"}, "InvalidParameterValue"),
        ({"GroupName": "x", "Description": ""}, "MissingParameter"),
        ({"GroupName": "x", "Description": "x", "VpcId": "vpc-0123456789abcdef0"}, "InvalidVpcID.NotFound"),
    ],
)
def test_a_group_that_cannot_be_is_refused(ec2, group, request_, code):
    assert refusal(ec2.create_security_group, **request_)[0] == code


def test_rules_have_ids_and_reach_the_network(ec2, served_cloud, group):
    served_cloud.woken.clear()
    answer = ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {**SSH, "IpRanges": [{"CidrIp": "10.1.2.3/8", "Description": "inside"}]},
            {"IpProtocol": "icmp", "FromPort": 8, "ToPort": -1, "IpRanges": ANYWHERE},
            {"IpProtocol": "6", "FromPort": 80, "ToPort": 81, "UserIdGroupPairs": [{"GroupName": "default"}]},
            {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "Ipv6Ranges": [{"CidrIpv6": "2001:DB8::/32"}]},
        ],
        TagSpecifications=[{"ResourceType": "security-group-rule", "Tags": [{"Key": "why", "Value": "test"}]}],
    )
    assert served_cloud.woken == {"networks"}
    assert answer["SecurityGroupRules"][0]["CidrIpv4"] == "10.0.0.0/8"
    ids = [rule["SecurityGroupRuleId"] for rule in answer["SecurityGroupRules"]]
    assert len(set(ids)) == 4
    listed = ec2.describe_security_group_rules(Filters=[{"Name": "tag:why", "Values": ["test"]}])
    assert {rule["SecurityGroupRuleId"] for rule in listed["SecurityGroupRules"]} == set(ids)
    default = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["GroupId"]
    with served_cloud.database.read() as session:
        assert set(network_groups(session, [group])[group].rules) == {
            NetworkRule("out", "any", "0.0.0.0/0"),
            NetworkRule("in", "tcp", "10.0.0.0/8", 22, 22),
            NetworkRule("in", "icmp", "0.0.0.0/0", icmp_type=8),
            NetworkRule("in", "tcp", f"group:{default}", 80, 81),
        }
    by_source = ec2.describe_security_groups(Filters=[{"Name": "ip-permission.group-name", "Values": ["default"]}])
    assert group in [found["GroupId"] for found in by_source["SecurityGroups"]]


def test_a_rule_in_the_members_of_old_is_one_of_the_new(ec2, group):
    ec2.authorize_security_group_ingress(GroupName="web", CidrIp="0.0.0.0/0", **SSH)
    assert refusal(
        ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[{**SSH, "IpRanges": ANYWHERE}]
    ) == (
        "InvalidPermission.Duplicate",
        'the specified rule "peer: 0.0.0.0/0, TCP, from port: 22, to port: 22, ALLOW" already exists',
    )
    ec2.revoke_security_group_ingress(GroupName="web", CidrIp="0.0.0.0/0", **SSH)
    assert inward(ec2, group) == []


@pytest.mark.parametrize(
    ("permission", "code", "part"),
    [
        ({**SSH, "IpRanges": [{"CidrIp": "10.0.0.0"}]}, "InvalidParameterValue", "CIDR block 10.0.0.0 is malformed"),
        ({**SSH, "IpRanges": [{"CidrIp": "10.0.0.0/33"}]}, "InvalidParameterValue", "is malformed"),
        ({**SSH, "IpRanges": [{"CidrIp": "::/0"}]}, "InvalidParameterValue", "is malformed"),
        ({**SSH, "Ipv6Ranges": [{"CidrIpv6": "10.0.0.0/8"}]}, "InvalidParameterValue", "is malformed"),
        ({"IpProtocol": "tcp", "IpRanges": ANYWHERE}, "InvalidParameterValue", "both from and to"),
        ({**SSH, "ToPort": 21, "IpRanges": ANYWHERE}, "InvalidParameterValue", "(22-21)"),
        ({**SSH, "ToPort": 65536, "IpRanges": ANYWHERE}, "InvalidParameterValue", "65536"),
        ({"IpProtocol": "gopher", "IpRanges": ANYWHERE}, "InvalidParameterValue", "gopher"),
        ({"IpProtocol": "256", "IpRanges": ANYWHERE}, "InvalidParameterValue", "256"),
        ({**SSH, "IpRanges": [{"CidrIp": "::/0", "Description": "ä"}]}, "InvalidParameterValue", "malformed"),
        ({**SSH, "IpRanges": [{**ANYWHERE[0], "Description": "ä"}]}, "InvalidParameterValue", "rule description"),
        (SSH, "MissingParameter", "Source group ID missing."),
        ({**SSH, "IpRanges": ANYWHERE * 2}, "InvalidParameterValue", "must not appear multiple times"),
        ({**SSH, "UserIdGroupPairs": [{"GroupName": "no"}]}, "InvalidGroup.NotFound", "'no' does not exist"),
        ({**SSH, "UserIdGroupPairs": [{"GroupId": "sg-x"}]}, "InvalidGroupId.Malformed", "sg-x"),
        ({**SSH, "PrefixListIds": [{"PrefixListId": "pl-1"}]}, "InvalidPrefixListID.NotFound", "pl-1"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_and_nothing_of_its_request_stays(ec2, group, permission, code, part):
    good = {"IpProtocol": "udp", "FromPort": 53, "ToPort": 53, "IpRanges": ANYWHERE}
    found = refusal(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=[good, permission])
    assert found[0] == code
    assert part in found[1]
    assert inward(ec2, group) == []


def test_rules_are_revoked_by_their_ids_and_what_is_not_there_is_said(ec2, group):
    made = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{**SSH, "IpRanges": ANYWHERE}])
    rule = made["SecurityGroupRules"][0]["SecurityGroupRuleId"]
    assert refusal(ec2.revoke_security_group_egress, GroupId=group, SecurityGroupRuleIds=[rule])[0] == (
        "InvalidSecurityGroupRuleId.NotFound"
    )
    gone = ec2.revoke_security_group_ingress(GroupId=group, SecurityGroupRuleIds=[rule])
    assert [each["SecurityGroupRuleId"] for each in gone["RevokedSecurityGroupRules"]] == [rule]
    assert inward(ec2, group) == []
    unknown = ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[{**SSH, "IpRanges": ANYWHERE}])
    assert [each["FromPort"] for each in unknown["UnknownIpPermissions"]] == [22]


def test_a_rule_is_changed_under_its_id_and_two_may_change_places(ec2, group):
    made = ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": n, "ToPort": n, "IpRanges": ANYWHERE} for n in (1, 2)],
    )["SecurityGroupRules"]
    updates = [
        {
            "SecurityGroupRuleId": rule["SecurityGroupRuleId"],
            "SecurityGroupRule": {
                "IpProtocol": "tcp",
                "FromPort": 3 - rule["FromPort"],
                "ToPort": 3 - rule["ToPort"],
                "CidrIpv4": "0.0.0.0/0",
                "Description": "moved",
            },
        }
        for rule in made
    ]
    ec2.modify_security_group_rules(GroupId=group, SecurityGroupRules=updates)
    ids = [rule["SecurityGroupRuleId"] for rule in made]
    after = ec2.describe_security_group_rules(SecurityGroupRuleIds=ids)["SecurityGroupRules"]
    assert {rule["SecurityGroupRuleId"]: rule["FromPort"] for rule in after} == dict(zip(ids, (2, 1), strict=True))
    assert {rule["Description"] for rule in after} == {"moved"}
    updates[0]["SecurityGroupRule"] = updates[1]["SecurityGroupRule"]
    code, _ = refusal(ec2.modify_security_group_rules, GroupId=group, SecurityGroupRules=updates)
    assert code == "InvalidPermission.Duplicate"


def test_descriptions_of_rules_are_replaced(ec2, group):
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{**SSH, "IpRanges": ANYWHERE}])
    new = [{**SSH, "IpRanges": [{"CidrIp": "0.0.0.0/0", "Description": "new"}]}]
    ec2.update_security_group_rule_descriptions_ingress(GroupId=group, IpPermissions=new)
    assert inward(ec2, group)[0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0", "Description": "new"}]


def test_a_group_has_sixty_rules_a_direction_and_no_more(ec2, group):
    def permissions(first, last):
        return [{"IpProtocol": "tcp", "FromPort": n, "ToPort": n, "IpRanges": ANYWHERE} for n in range(first, last)]

    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=permissions(0, 60))
    found = refusal(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=permissions(60, 61))
    assert found[0] == "RulesPerSecurityGroupLimitExceeded"


def test_a_group_that_is_used_cannot_be_deleted(ec2, served_cloud, group):
    other = ec2.create_security_group(GroupName="db", Description="of the databases")["GroupId"]
    pair = [{**SSH, "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=other, IpPermissions=pair)
    assert refusal(ec2.delete_security_group, GroupId=group) == (
        "DependencyViolation",
        f"resource {group} has a dependent object",
    )
    ec2.revoke_security_group_ingress(GroupId=other, IpPermissions=pair)
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    made = ec2.create_network_interface(SubnetId=subnet, Groups=[group])["NetworkInterface"]
    assert made["Groups"] == [{"GroupId": group, "GroupName": "web"}]
    assert refusal(ec2.delete_security_group, GroupId=group)[0] == "DependencyViolation"
    ec2.modify_network_interface_attribute(NetworkInterfaceId=made["NetworkInterfaceId"], Groups=[other])
    ec2.delete_security_group(GroupId=group)
    assert refusal(ec2.describe_security_groups, GroupIds=[group])[0] == "InvalidGroup.NotFound"
    default = ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["GroupId"]
    assert refusal(ec2.delete_security_group, GroupId=default)[0] == "CannotDelete"


def test_an_interface_is_in_five_groups_at_most(ec2):
    groups = [
        ec2.create_security_group(GroupName=f"g{n}", Description="one of many")["GroupId"] for n in range(6)
    ]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    assert refusal(ec2.create_network_interface, SubnetId=subnet, Groups=groups)[0] == (
        "SecurityGroupsPerInterfaceLimitExceeded"
    )


def test_a_group_has_a_name_in_the_default_vpc_alone(ec2):
    default = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    inside = ec2.create_security_group(GroupName="inside", Description="d", VpcId=vpc)["GroupId"]
    missing = ("InvalidGroup.NotFound", f"The security group 'inside' does not exist in default VPC '{default}'")
    assert refusal(ec2.describe_security_groups, GroupNames=["inside"]) == missing
    assert refusal(ec2.delete_security_group, GroupName="inside") == missing
    pair = [{**SSH, "UserIdGroupPairs": [{"GroupName": "inside"}]}]
    assert refusal(ec2.authorize_security_group_ingress, GroupId=inside, IpPermissions=pair) == missing
    ec2.create_security_group(GroupName="inside", Description="d")
    assert refusal(ec2.authorize_security_group_ingress, GroupId=inside, IpPermissions=pair) == (
        "InvalidGroup.NotFound", "You have specified two resources that belong to different networks.",
    )  # fmt: skip
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.9.1.0/24")["Subnet"]["SubnetId"]
    launch = {"ImageId": "ami-00000000000000bad", "InstanceType": "t3.micro", "MinCount": 1, "MaxCount": 1}
    code, _ = refusal(ec2.run_instances, **launch, SubnetId=subnet, SecurityGroups=["inside"])
    assert code in ("InvalidParameterCombination", "InvalidAMIID.NotFound")


def test_where_there_is_no_default_vpc_groups_have_no_names(owner):
    ec2 = owner.client()
    [vpc] = ec2.describe_vpcs()["Vpcs"]
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for gateway in ec2.describe_internet_gateways()["InternetGateways"]:
        ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc["VpcId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])
    assert refusal(ec2.describe_security_groups, GroupNames=["default"])[0] == "VPCIdNotSpecified"


def test_rules_are_looked_for_by_an_identifier_that_could_be_a_groups(ec2):
    described = ec2.describe_security_group_rules
    code, message = refusal(described, Filters=[{"Name": "group-id", "Values": ["foobar"]}])
    assert (code, message) == ("InvalidGroupId.Malformed", "The security group ID 'foobar' is malformed")
    unknown = [{"Name": "group-id", "Values": ["sg-005216b55886f0fdc"]}]
    assert described(Filters=unknown)["SecurityGroupRules"] == []
    assert described(Filters=[{"Name": "group-id", "Values": ["sg-*"]}])["SecurityGroupRules"]


def test_rules_are_told_in_the_order_in_which_they_were_given(ec2, group):
    given = [f"10.0.{number}.0/24" for number in (7, 3, 9, 1, 8, 2)]
    permission = {**SSH, "IpRanges": [{"CidrIp": cidr} for cidr in given]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission])
    [found] = inward(ec2, group)
    assert [one["CidrIp"] for one in found["IpRanges"]] == given


@pytest.mark.parametrize(
    ("rule", "code", "message"),
    [
        ({"FromPort": 1, "ToPort": 2, "CidrIpv4": "2.3.4.5/32"}, "InvalidParameterValue", "'null' for protocol"),
        ({"IpProtocol": "udp", "ToPort": 2, "CidrIpv4": "2.3.4.5/32"}, "InvalidParameterValue", "both from and to"),
        ({"IpProtocol": "udp", "FromPort": 1, "ToPort": 2}, "MissingParameter", "exactly one of: cidrIp"),
        (
            {"IpProtocol": "udp", "FromPort": 1, "ToPort": 2, "CidrIpv4": "2.3.4.5/32", "CidrIpv6": "2001:db8::/32"},
            "InvalidParameterCombination", "Only one of cidrIp",
        ),
    ],
)  # fmt: skip
def test_a_rule_is_replaced_by_a_whole_one_only(ec2, group, rule, code, message):
    ec2.authorize_security_group_ingress(GroupId=group, CidrIp="0.0.0.0/0", **SSH)
    [before] = inward(ec2, group)
    of_group = [{"Name": "group-id", "Values": [group]}]
    found = ec2.describe_security_group_rules(Filters=of_group)["SecurityGroupRules"][0]
    update = [{"SecurityGroupRuleId": found["SecurityGroupRuleId"], "SecurityGroupRule": rule}]
    told = refusal(ec2.modify_security_group_rules, GroupId=group, SecurityGroupRules=update)
    assert told[0] == code
    assert message in told[1]
    assert inward(ec2, group) == [before]
