"""Resource-based policies: statement by statement (AddPermission and its kin), and as whole documents."""

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.qualifiers import exists, refuse_missing
from lambstead.core import policies
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.errors import ResourceNotFound, ValidationError
from lambstead.core.functions import refuse_stale_revision
from lambstead.core.policies import Grant, ResourcePolicy, compact
from lambstead.store.port import Reader, Transaction

_NOTHING = "The resource you requested does not exist."


async def add_permission(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    policies.refuse_latest(ref.qualifier)
    grant = Grant(
        sid=request["StatementId"],
        action=request["Action"],
        principal=request["Principal"],
        source_arn=request.get("SourceArn"),
        source_account=request.get("SourceAccount"),
        event_source_token=request.get("EventSourceToken"),
        organization=request.get("PrincipalOrgID"),
        url_auth_type=request.get("FunctionUrlAuthType"),
        via_function_url=request.get("InvokedViaFunctionUrl"),
    )
    statement = grant.statement(ref.arn(context.realm))

    def work(tx: Transaction) -> None:
        refuse_missing(context, tx, ref)
        policy = tx.policy(ref.name, ref.qualifier or "")
        refuse_stale_revision(_revision(tx, ref, policy), request.get("RevisionId"), "GetPolicy")
        before = policy or ResourcePolicy.empty(ref.name, ref.qualifier or "")
        tx.save_policy(before.adding(statement, context.new_revision()))

    await context.store.write(work)
    return {"Statement": compact(statement)}


def _revision(reader: Reader, ref: FunctionRef, policy: ResourcePolicy | None) -> str:
    """The revision that a caller may name: the policy's, or, as long as there is none, that of the alias or version."""
    if policy is not None:
        return policy.revision_id
    alias = reader.alias(ref.name, ref.qualifier or "")
    if alias is not None:
        return alias.revision_id
    version = reader.version(ref.name, ref.qualifier or LATEST)
    return version.revision_id if version else ""


async def remove_permission(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))

    def work(tx: Transaction) -> None:
        if tx.version(ref.name, LATEST) is None:
            raise ResourceNotFound(f"No policy found for: {context.realm.function_arn(ref.name)}")
        refuse_missing(context, tx, ref)
        policy = tx.policy(ref.name, ref.qualifier or "")
        if policy is None:
            raise ResourceNotFound("No policy is associated with the given resource.")
        rest = policy.removing(request["StatementId"], context.new_revision())
        refuse_stale_revision(policy.revision_id, request.get("RevisionId"), "GetPolicy")
        if rest is None:
            tx.delete_policy(ref.name, ref.qualifier or "")
        else:
            tx.save_policy(rest)

    await context.store.write(work)
    return {}


async def get_policy(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    return _answer(await context.store.read(lambda reader: _policy(reader, ref)))


def _policy(reader: Reader, ref: FunctionRef) -> ResourcePolicy:
    policy = reader.policy(ref.name, ref.qualifier or "")
    if policy is None:
        raise ResourceNotFound(_NOTHING)
    return policy


def _answer(policy: ResourcePolicy) -> Response:
    return {"Policy": policy.text, "RevisionId": policy.revision_id}


# --- whole documents ---------------------------------------------------------------------------------------------------------


def _resource(context: Context, arn: str) -> FunctionRef:
    """The function, version or alias with this ARN. Raises ResourceNotFound for customers' runtimes, which nobody can create here."""
    if ":runtime/" in arn:
        raise ResourceNotFound(_NOTHING)
    try:
        return FunctionRef.parse(arn, context.realm)
    except (
        ValidationError
    ) as exc:  # the model's pattern admits qualifiers that nothing can have, such as `$LATEST$LATEST`
        raise ResourceNotFound(_NOTHING) from exc


async def get_resource_policy(context: Context, request: Request, call: Call) -> Response:
    ref = _resource(context, request["ResourceArn"])
    return _answer(await context.store.read(lambda reader: _policy(reader, ref)))


async def put_resource_policy(context: Context, request: Request, call: Call) -> Response:
    ref = _resource(context, request["ResourceArn"])
    policies.refuse_latest(ref.qualifier)
    document = policies.parsed(request["Policy"], ref.arn(context.realm))

    def work(tx: Transaction) -> ResourcePolicy:
        if not exists(tx, ref):
            raise ResourceNotFound(_NOTHING)
        before = tx.policy(ref.name, ref.qualifier or "")
        refuse_stale_revision(before.revision_id if before else "", request.get("RevisionId"), "GetResourcePolicy")
        policy = ResourcePolicy(ref.name, ref.qualifier or "", context.new_revision(), document)
        tx.save_policy(policy)
        return policy

    return _answer(await context.store.write(work))


async def delete_resource_policy(context: Context, request: Request, call: Call) -> Response:
    ref = _resource(context, request["ResourceArn"])

    def work(tx: Transaction) -> None:
        policy = _policy(tx, ref)
        refuse_stale_revision(policy.revision_id, request.get("RevisionId"), "GetResourcePolicy")
        tx.delete_policy(ref.name, ref.qualifier or "")

    await context.store.write(work)
    return {}
