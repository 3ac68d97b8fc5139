"""EC2 with the managed instances in it: our DescribeInstances merged with Moto's, and operations on them refused.

Moto is asked for its own instances with what is left of the request; ours are put after them, and the pages are cut from both together.
"""

import base64
import binascii
import re
import xml.etree.ElementTree as ET
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, urlencode

from lambstead.companion.requests import ForeignRequest, Refusal
from lambstead.core.managed_ec2 import OPERATOR, ManagedInstance, matches
from lambstead.wire.gateway import HttpResponse

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
ET.register_namespace("", NAMESPACE)
MOST_RESULTS = 1000
_READS = ("Describe", "Get")
_NAMES_AN_INSTANCE = re.compile(r"(InstanceId|ResourceId)(\.\d+)?")

Answer = Callable[[ForeignRequest], Awaitable[HttpResponse]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A DescribeInstances request."""

    ids: tuple[str, ...]
    filters: Mapping[str, Sequence[str]]
    size: int | None
    offset: int


class ManagedEc2:
    """See the module."""

    def __init__(
        self, answer: Answer, instances: Callable[[], Awaitable[list[ManagedInstance]]], account_id: str
    ) -> None:
        """`answer` is Moto's, or another EC2's; `instances` are ours as they are now, terminated ones for a while."""
        self._others = answer
        self._instances = instances
        self._account_id = account_id

    async def answer(self, request: ForeignRequest) -> HttpResponse:
        """Raises Refusal."""
        try:
            members = dict(parse_qsl(request.body.decode(), keep_blank_values=True, max_num_fields=10_000))
        except ValueError:
            return await self._others(request)
        action = members.get("Action", "")
        if action == "DescribeInstances" and members.get("DryRun") != "true":
            return await self._describe(request, members)
        if action and not action.startswith(_READS):
            managed = {instance.id for instance in await self._instances()}
            for name, value in members.items():
                if value in managed and _NAMES_AN_INSTANCE.fullmatch(name):
                    raise Refusal(
                        400,
                        "OperationNotPermitted",
                        f"The instance '{value}' is managed by {OPERATOR} and does not take {action}: "
                        "its capacity provider decides over it.",
                    )
        return await self._others(request)

    async def _describe(self, request: ForeignRequest, members: Mapping[str, str]) -> HttpResponse:
        asked = _read(members)
        ours = await self._instances()
        managed = {instance.id for instance in ours}
        wanted = [i for i in ours if (not asked.ids or i.id in asked.ids) and matches(i, asked.filters)]
        others = await self._moto_reservations(request, asked, managed)
        if isinstance(others, HttpResponse):
            return others  # an error: an id that nobody has, a filter that is none
        reservations = [*others, *(_reservation(instance, self._account_id) for instance in wanted)]
        page = reservations if asked.size is None else reservations[asked.offset : asked.offset + asked.size]
        root = ET.Element(_tag("DescribeInstancesResponse"))
        _text(root, "requestId", request.request_id)
        ET.SubElement(root, _tag("reservationSet")).extend(page)
        if asked.size is not None and asked.offset + asked.size < len(reservations):
            _text(root, "nextToken", base64.b64encode(str(asked.offset + asked.size).encode()).decode())
        body = ET.tostring(root, encoding="UTF-8", xml_declaration=True)
        headers = [("Content-Type", "text/xml;charset=UTF-8"), ("x-amzn-RequestId", request.request_id)]
        return HttpResponse(200, headers, body)

    async def _moto_reservations(
        self, request: ForeignRequest, asked: _Asked, managed: set[str]
    ) -> list[ET.Element] | HttpResponse:
        """Reservations of everybody else, all pages of them; the answer itself where that is an error."""
        ids = [id for id in asked.ids if id not in managed]
        filters = {name: values for name, values in asked.filters.items() if not name.startswith("operator.")}
        is_about_managed = any(
            name == "operator.principal" or "false" not in values
            for name, values in asked.filters.items()
            if name not in filters
        )
        if (asked.ids and not ids) or is_about_managed:
            return []
        members = {"Action": "DescribeInstances", "Version": NAMESPACE.rstrip("/").rpartition("/")[2]}
        members |= {f"InstanceId.{n}": id for n, id in enumerate(ids, 1)}
        for n, (name, values) in enumerate(filters.items(), 1):
            members[f"Filter.{n}.Name"] = name
            members |= {f"Filter.{n}.Value.{m}": value for m, value in enumerate(values, 1)}
        found: list[ET.Element] = []
        token = ""
        while True:
            body = urlencode({**members, "NextToken": token} if token else members).encode()
            answer = await self._others(replace(request, body=body))
            if answer.status != 200:
                return answer
            root = ET.fromstring(answer.body)
            space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
            for each in root.iter():
                each.tag = _tag(each.tag.removeprefix(space))
            found += root.findall(f"{_tag('reservationSet')}/{_tag('item')}")
            token = root.findtext(_tag("nextToken")) or ""
            if not token:
                return found


def _read(members: Mapping[str, str]) -> _Asked:
    ids = tuple(value for name, value in members.items() if re.fullmatch(r"InstanceId\.\d+", name))
    filters: dict[str, list[str]] = {}
    for name, value in members.items():
        numbered = re.fullmatch(r"Filter\.(\d+)\.Name", name)
        if numbered:
            values = re.compile(rf"Filter\.{numbered[1]}\.Value\.\d+")
            filters[value] = [each for key, each in members.items() if values.fullmatch(key)]
    size = members.get("MaxResults")
    if size is not None:
        if ids:
            raise Refusal(
                400,
                "InvalidParameterCombination",
                "The parameter instancesSet cannot be used with the parameter maxResults",
            )
        if not size.isdecimal() or not 5 <= int(size) <= MOST_RESULTS:
            raise Refusal(
                400,
                "InvalidParameterValue",
                f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value between 5 and {MOST_RESULTS}.",
            )
    token = members.get("NextToken")
    return _Asked(ids, filters, int(size) if size else MOST_RESULTS if token else None, _offset(token))


def _offset(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(base64.b64decode(token, validate=True).decode("ascii"))
    except (ValueError, binascii.Error, UnicodeDecodeError) as exc:
        raise Refusal(400, "InvalidParameterValue", f"Unable to parse pagination token '{token}'.") from exc


def _reservation(instance: ManagedInstance, account_id: str) -> ET.Element:
    """One instance as EC2 writes it, in a reservation of its own."""
    item = ET.Element(_tag("item"))
    _text(item, "reservationId", "r-" + instance.id.removeprefix("i-"))
    _text(item, "ownerId", account_id)
    _text(item, "requesterId", OPERATOR)
    ET.SubElement(item, _tag("groupSet"))
    there = ET.SubElement(ET.SubElement(item, _tag("instancesSet")), _tag("item"))
    _text(there, "instanceId", instance.id)
    state = ET.SubElement(there, _tag("instanceState"))
    _text(state, "code", str(instance.state_code))
    _text(state, "name", instance.state)
    _text(there, "amiLaunchIndex", "0")
    _text(there, "instanceType", instance.type)
    _text(there, "launchTime", instance.launch_time)
    placement = ET.SubElement(there, _tag("placement"))
    _text(placement, "availabilityZone", instance.zone)
    _text(placement, "tenancy", "default")
    _text(ET.SubElement(there, _tag("monitoring")), "state", "disabled")
    _text(there, "subnetId", instance.subnet)
    _text(there, "privateIpAddress", instance.private_ip)
    if instance.private_ip:
        _text(there, "privateDnsName", f"ip-{instance.private_ip.replace('.', '-')}.ec2.internal")
    _text(there, "architecture", instance.architecture)
    _text(there, "rootDeviceType", "ebs")
    _text(there, "virtualizationType", "hvm")
    groups = ET.SubElement(there, _tag("groupSet"))
    for group in instance.security_groups:
        _text(ET.SubElement(groups, _tag("item")), "groupId", group)
    tags = ET.SubElement(there, _tag("tagSet"))
    for key, value in instance.tags.items():
        tag = ET.SubElement(tags, _tag("item"))
        _text(tag, "key", key)
        _text(tag, "value", value)
    options = ET.SubElement(there, _tag("cpuOptions"))
    threads = 2 if instance.architecture == "x86_64" else 1
    _text(options, "coreCount", str(instance.vcpus // threads))
    _text(options, "threadsPerCore", str(threads))
    operator = ET.SubElement(there, _tag("operator"))
    _text(operator, "managed", "true")
    _text(operator, "principal", OPERATOR)
    return item


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _text(parent: ET.Element, name: str, text: str) -> None:
    """A member with a value; none for an empty one, as EC2 leaves it out."""
    if text:
        ET.SubElement(parent, _tag(name)).text = text
