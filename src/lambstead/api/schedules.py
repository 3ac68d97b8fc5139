"""Schedules: EventBridge Scheduler's CreateSchedule, GetSchedule, UpdateSchedule, DeleteSchedule and ListSchedules.

Texts of errors are AWS's where users' reports or recordings of others show them ("Schedule x does not exist.", "Invalid Schedule Expression …").
"""

from datetime import timedelta

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.lists import page
from lambstead.api.schedule_requests import DEFAULT_PAGE, existing_group, position, remember, was_carried_out
from lambstead.core.errors import Conflict, ResourceNotFound
from lambstead.core.schedule_targets import DEFAULT_EVENT_AGE, DEFAULT_RETRY_ATTEMPTS, ScheduleTarget, check_target
from lambstead.core.schedules import (
    DEFAULT_GROUP,
    Schedule,
    Timing,
    check_dates,
    parse_expression,
    window_of,
    zone_of,
)
from lambstead.store.port import Reader, Transaction

_OWN_PARAMETERS = ("Arn", "RoleArn", "DeadLetterConfig", "RetryPolicy", "Input")


async def create_schedule(context: Context, request: Request, call: Call) -> Response:
    wanted = _wanted(context, request)

    def work(tx: Transaction) -> None:
        now = context.now()
        existing_group(tx, wanted.group)
        if tx.schedule(wanted.group, wanted.name) is not None:
            if was_carried_out(tx, "CreateSchedule", wanted.arn, request, now):
                return
            raise Conflict(f"Schedule {wanted.name} already exists.")
        tx.save_schedule(wanted.planned(context.draw()))
        remember(tx, "CreateSchedule", wanted.arn, request, now)

    await context.store.write(work)
    context.wake_schedules()
    return {"ScheduleArn": wanted.arn}


async def get_schedule(context: Context, request: Request, call: Call) -> Response:
    group, name = request.get("GroupName", DEFAULT_GROUP), request["Name"]
    return _document(await context.store.read(lambda reader: _existing(reader, group, name)))


async def update_schedule(context: Context, request: Request, call: Call) -> Response:
    wanted = _wanted(context, request)

    def work(tx: Transaction) -> None:
        now = context.now()
        former = _existing(tx, wanted.group, wanted.name)
        if was_carried_out(tx, "UpdateSchedule", wanted.arn, request, now):
            return
        tx.save_schedule(wanted.replacing(former, context.draw()))
        remember(tx, "UpdateSchedule", wanted.arn, request, now)

    await context.store.write(work)
    context.wake_schedules()
    return {"ScheduleArn": wanted.arn}


async def delete_schedule(context: Context, request: Request, call: Call) -> Response:
    group, name = request.get("GroupName", DEFAULT_GROUP), request["Name"]
    arn = context.realm.schedule_arn(group, name)

    def work(tx: Transaction) -> None:
        now = context.now()
        if tx.schedule(group, name) is None and was_carried_out(tx, "DeleteSchedule", arn, request, now):
            return
        _existing(tx, group, name)
        tx.delete_schedule(group, name)
        remember(tx, "DeleteSchedule", arn, request, now)

    await context.store.write(work)
    return {}


async def list_schedules(context: Context, request: Request, call: Call) -> Response:
    group, size = request.get("GroupName"), request.get("MaxResults", DEFAULT_PAGE)
    after_group, after_name = position(request, "", "")

    def work(reader: Reader) -> list[Schedule]:
        if group is not None:
            existing_group(reader, group)
        found = reader.schedules(
            (after_group, after_name), size + 1, group, request.get("State"), request.get("NamePrefix", "")
        )
        return list(found)

    schedules, token = page(await context.store.read(work), size, lambda each: (each.group, each.name))
    return {"Schedules": [_summary(each) for each in schedules], "NextToken": token}


def _existing(reader: Reader, group: str, name: str) -> Schedule:
    schedule = reader.schedule(group, name)
    if schedule is None:
        raise ResourceNotFound(f"Schedule {name} does not exist.")
    return schedule


def _wanted(context: Context, request: Request) -> Schedule:
    """The schedule that a request describes; whatever it leaves out is the default, in updates as well. Raises ValidationError."""
    now = context.now()
    expression = parse_expression(request["ScheduleExpression"])
    timezone = request.get("ScheduleExpressionTimezone", "UTC")
    zone_of(timezone)
    start, end = request.get("StartDate"), request.get("EndDate")
    check_dates(expression, start, end, now)
    flexible = request["FlexibleTimeWindow"]
    group, name = request.get("GroupName", DEFAULT_GROUP), request["Name"]
    return Schedule(
        group=group,
        name=name,
        arn=context.realm.schedule_arn(group, name),
        timing=Timing(
            expression=request["ScheduleExpression"],
            anchor=now,
            timezone=timezone,
            start=start,
            end=end,
            window=window_of(flexible["Mode"], flexible.get("MaximumWindowInMinutes")),
        ),
        target=_target(context, request["Target"]),
        created_at=now,
        modified_at=now,
        is_enabled=request.get("State", "ENABLED") == "ENABLED",
        deletes_itself=request.get("ActionAfterCompletion") == "DELETE",
        description=request.get("Description", ""),
        kms_key_arn=request.get("KmsKeyArn", ""),
    )


def _target(context: Context, given: Request) -> ScheduleTarget:
    retries = given.get("RetryPolicy") or {}
    age = retries.get("MaximumEventAgeInSeconds")
    target = ScheduleTarget(
        arn=given["Arn"],
        role_arn=given["RoleArn"],
        input=given.get("Input"),
        dead_letter_target=(given.get("DeadLetterConfig") or {}).get("Arn"),
        event_age=DEFAULT_EVENT_AGE if age is None else timedelta(seconds=age),
        retry_attempts=retries.get("MaximumRetryAttempts", DEFAULT_RETRY_ATTEMPTS),
    )
    check_target(target, tuple(sorted(set(given) - set(_OWN_PARAMETERS))), context.realm)
    return target


def _document(schedule: Schedule) -> Response:
    timing, target = schedule.timing, schedule.target
    window = None if timing.window is None else timing.window // timedelta(minutes=1)
    return {
        "Arn": schedule.arn,
        "GroupName": schedule.group,
        "Name": schedule.name,
        "ScheduleExpression": timing.expression,
        "ScheduleExpressionTimezone": timing.timezone,
        "StartDate": timing.start,
        "EndDate": timing.end,
        "Description": schedule.description or None,
        "State": schedule.state,
        "CreationDate": schedule.created_at,
        "LastModificationDate": schedule.modified_at,
        "KmsKeyArn": schedule.kms_key_arn or None,
        "Target": {
            "Arn": target.arn,
            "RoleArn": target.role_arn,
            "DeadLetterConfig": None if target.dead_letter_target is None else {"Arn": target.dead_letter_target},
            "RetryPolicy": {
                "MaximumEventAgeInSeconds": target.event_age // timedelta(seconds=1),
                "MaximumRetryAttempts": target.retry_attempts,
            },
            "Input": target.input,
        },
        "FlexibleTimeWindow": {"Mode": "OFF" if window is None else "FLEXIBLE", "MaximumWindowInMinutes": window},
        "ActionAfterCompletion": "DELETE" if schedule.deletes_itself else "NONE",
    }


def _summary(schedule: Schedule) -> Response:
    return {
        "Arn": schedule.arn,
        "Name": schedule.name,
        "GroupName": schedule.group,
        "State": schedule.state,
        "CreationDate": schedule.created_at,
        "LastModificationDate": schedule.modified_at,
        "Target": {"Arn": schedule.target.arn},
    }
