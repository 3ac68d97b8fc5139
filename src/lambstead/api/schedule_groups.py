"""Schedule groups and their tags: the rest of EventBridge Scheduler's API."""

from dataclasses import replace

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.lists import page
from lambstead.api.schedule_requests import DEFAULT_PAGE, existing_group, position, remember, was_carried_out
from lambstead.core.errors import Conflict, ResourceNotFound, ServiceQuotaExceeded, ValidationError
from lambstead.core.schedules import DEFAULT_GROUP, MAX_GROUPS, ScheduleGroup
from lambstead.store.port import Reader, Transaction

MAX_TAGS = 200
"""The model's limit on one request, kept as the limit of a group."""


async def create_schedule_group(context: Context, request: Request, call: Call) -> Response:
    name = request["Name"]
    arn = context.realm.schedule_group_arn(name)

    def work(tx: Transaction) -> None:
        now = context.now()
        if tx.schedule_group(name) is not None:
            if was_carried_out(tx, "CreateScheduleGroup", arn, request, now):
                return
            raise Conflict(f"Schedule group {name} already exists.")
        if tx.schedule_group_count() >= MAX_GROUPS:
            raise ServiceQuotaExceeded(f"The limit of {MAX_GROUPS} schedule groups has been reached.")
        tx.save_schedule_group(ScheduleGroup(name, now, now))
        tx.add_tags(arn, {tag["Key"]: tag["Value"] for tag in request.get("Tags") or ()})
        remember(tx, "CreateScheduleGroup", arn, request, now)

    await context.store.write(work)
    return {"ScheduleGroupArn": arn}


async def get_schedule_group(context: Context, request: Request, call: Call) -> Response:
    return _document(context, await context.store.read(lambda reader: existing_group(reader, request["Name"])))


async def delete_schedule_group(context: Context, request: Request, call: Call) -> Response:
    """Delete a group with its schedules. On AWS it is DELETING for a while; here it is gone when the call returns."""
    name = request["Name"]
    arn = context.realm.schedule_group_arn(name)
    if name == DEFAULT_GROUP:
        raise ValidationError("The default schedule group cannot be deleted.")

    def work(tx: Transaction) -> None:
        now = context.now()
        if tx.schedule_group(name) is None and was_carried_out(tx, "DeleteScheduleGroup", arn, request, now):
            return
        existing_group(tx, name)
        tx.delete_schedule_group(name)
        tx.remove_tags(arn)
        remember(tx, "DeleteScheduleGroup", arn, request, now)

    await context.store.write(work)
    return {}


async def list_schedule_groups(context: Context, request: Request, call: Call) -> Response:
    size = request.get("MaxResults", DEFAULT_PAGE)
    (after,) = position(request, "")
    found = await context.store.read(
        lambda reader: reader.schedule_groups(after, size + 1, request.get("NamePrefix", ""))
    )
    groups, token = page(found, size, lambda each: (each.name,))
    return {"ScheduleGroups": [_document(context, each) for each in groups], "NextToken": token}


async def tag_resource(context: Context, request: Request, call: Call) -> Response:
    arn = request["ResourceArn"]

    def work(tx: Transaction) -> None:
        group = _tagged(context, tx, arn)
        tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        if len({**tx.tags(arn), **tags}) > MAX_TAGS:
            raise ValidationError(f"A schedule group can have at most {MAX_TAGS} tags.")
        tx.add_tags(arn, tags)
        tx.save_schedule_group(replace(group, modified_at=context.now()))

    await context.store.write(work)
    return {}


async def untag_resource(context: Context, request: Request, call: Call) -> Response:
    arn = request["ResourceArn"]

    def work(tx: Transaction) -> None:
        group = _tagged(context, tx, arn)
        tx.remove_tags(arn, request["TagKeys"])
        tx.save_schedule_group(replace(group, modified_at=context.now()))

    await context.store.write(work)
    return {}


async def list_tags_for_resource(context: Context, request: Request, call: Call) -> Response:
    arn = request["ResourceArn"]

    def work(reader: Reader) -> list[dict[str, str]]:
        _tagged(context, reader, arn)
        return [{"Key": key, "Value": value} for key, value in reader.tags(arn).items()]

    return {"Tags": await context.store.read(work)}


def _tagged(context: Context, reader: Reader, arn: str) -> ScheduleGroup:
    """The group with this ARN. Raises ResourceNotFound, for other accounts and Regions as well."""
    name = arn.rpartition("/")[2]
    if arn != context.realm.schedule_group_arn(name):
        raise ResourceNotFound(f"Schedule group {arn} does not exist here.")
    return existing_group(reader, name)


def _document(context: Context, group: ScheduleGroup) -> Response:
    return {
        "Arn": context.realm.schedule_group_arn(group.name),
        "Name": group.name,
        "State": "ACTIVE",
        "CreationDate": group.created_at,
        "LastModificationDate": group.modified_at,
    }
