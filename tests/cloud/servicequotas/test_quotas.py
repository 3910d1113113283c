"""Quotas are what is enforced."""

from __future__ import annotations

from celaje.cloud.ec2 import quotas
from celaje.cloud.state.hosts import LOCAL, Host
from tests.cloud.ec2.acting import NOW
from tests.cloud.served import Owner, ServedCloud, refusal


def test_running_vcpus_are_the_hosts(served_cloud: ServedCloud, owner: Owner) -> None:
    with served_cloud.database.write() as session:
        session.merge(Host(id=LOCAL, memory=1024, cpus=48, architectures="riscv64", noted=NOW))
    client = owner.client("service-quotas")
    quota = client.get_service_quota(ServiceCode="ec2", QuotaCode="L-1216C47A")["Quota"]
    assert (quota["Value"], quota["Adjustable"]) == (48, False)
    assert owner.account in quota["QuotaArn"]


def test_quotas_of_a_service_are_listed_in_pages(owner: Owner) -> None:
    client = owner.client("service-quotas")
    codes = [one["ServiceCode"] for one in client.list_services()["Services"]]
    assert codes == ["ebs", "ec2", "vpc"]
    pages = client.get_paginator("list_service_quotas").paginate(ServiceCode="vpc", PaginationConfig={"PageSize": 5})
    assert [len(one["Quotas"]) for one in pages] == [5, 5, 2]
    snapshots, storage = client.list_aws_default_service_quotas(ServiceCode="ebs")["Quotas"]
    assert storage["Value"] == 16
    assert (snapshots["QuotaCode"], snapshots["Value"]) == ("L-309BACF6", quotas.SNAPSHOTS)


def test_what_has_no_quota_is_not_found(owner: Owner) -> None:
    client = owner.client("service-quotas")
    assert refusal(client.list_service_quotas, ServiceCode="lambda")[0] == "NoSuchResourceException"
    assert refusal(client.get_service_quota, ServiceCode="ec2", QuotaCode="L-0")[0] == "NoSuchResourceException"
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A", "DesiredValue": 9.0}
    code, _ = refusal(client.request_service_quota_increase, **asked)
    assert code == "UnsupportedOperation"
