"""Tags of functions and capacity providers."""

from collections.abc import Mapping
from dataclasses import replace

from lambstead.api.context import Call, Context, Request, Response
from lambstead.core.arn import LATEST, TaggedResource
from lambstead.core.errors import InvalidParameterValue, ResourceNotFound
from lambstead.core.functions import refuse_while_settling
from lambstead.store.port import Reader, Transaction

MAX_TAGS = 50


async def tag_resource(context: Context, request: Request, call: Call) -> Response:
    resource = TaggedResource.parse(request["Resource"], context.realm)
    if not request["Tags"]:
        raise InvalidParameterValue("An error occurred and the request cannot be processed.")

    def work(tx: Transaction) -> None:
        _refuse_missing(tx, resource)
        refuse_too_many_tags({**tx.tags(resource.arn), **request["Tags"]})
        _refuse_settling(tx, resource)
        tx.add_tags(resource.arn, request["Tags"])
        _revise(context, tx, resource)

    await context.store.write(work)
    return {}


async def untag_resource(context: Context, request: Request, call: Call) -> Response:
    resource = TaggedResource.parse(request["Resource"], context.realm)

    def work(tx: Transaction) -> None:
        _refuse_missing(tx, resource)
        tx.remove_tags(resource.arn, request["TagKeys"])
        _revise(context, tx, resource)

    await context.store.write(work)
    return {}


async def list_tags(context: Context, request: Request, call: Call) -> Response:
    resource = TaggedResource.parse(request["Resource"], context.realm)

    def work(reader: Reader) -> dict[str, str]:
        _refuse_missing(reader, resource)
        return dict(reader.tags(resource.arn))

    return {"Tags": await context.store.read(work)}


def refuse_too_many_tags(tags: Mapping[str, str]) -> None:
    """Raise InvalidParameterValue for more tags than a resource may have."""
    if len(tags) > MAX_TAGS:
        raise InvalidParameterValue("Number of tags exceeds resource tag limit.")


def _revise(context: Context, tx: Transaction, resource: TaggedResource) -> None:
    """AWS gives a function a new revision with every change of its tags, be it the same tag once more."""
    latest = tx.version(resource.name, LATEST) if resource.kind == "function" else None
    if latest is not None:
        tx.save_version(replace(latest, revision_id=context.new_revision()))


_NOUNS = {
    "function": "Function",
    "capacity-provider": "Capacity provider",
    "event-source-mapping": "Event source mapping",
    "layer": "Layer",
    "code-signing-config": "Code signing config",
}


def _refuse_missing(reader: Reader, resource: TaggedResource) -> None:
    """Raise ResourceNotFound unless the resource exists; kinds that cannot be created yet never do."""
    if not _exists(reader, resource):
        raise ResourceNotFound(f"{_NOUNS[resource.kind]} not found: {resource.arn}")


def _exists(reader: Reader, resource: TaggedResource) -> bool:
    match resource.kind:
        case "function":
            return reader.version(resource.name, LATEST) is not None
        case "capacity-provider":
            return reader.provider(resource.name) is not None
        case "event-source-mapping":
            return reader.event_source_mapping(resource.name) is not None
        case "code-signing-config":
            return reader.code_signing_config(resource.name) is not None
        case _:
            return False


def _refuse_settling(reader: Reader, resource: TaggedResource) -> None:
    latest = reader.version(resource.name, LATEST) if resource.kind == "function" else None
    if latest is not None:
        refuse_while_settling(latest, resource.arn)
