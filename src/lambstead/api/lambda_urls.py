"""Function URL configs: create, read, update, delete, list. The URLs themselves are served by `server.function_urls`."""

from dataclasses import replace
from urllib.parse import urlsplit

from lambstead.api.context import Call, Context, Request, Response
from lambstead.api.lists import DEFAULT_PAGE, decode_marker, page
from lambstead.api.qualifiers import exists
from lambstead.core.arn import LATEST, FunctionRef
from lambstead.core.errors import ResourceConflict, ResourceNotFound
from lambstead.core.function_urls import FunctionUrl, address
from lambstead.core.tenancy import refuse_with_tenancy
from lambstead.store.port import Reader, Transaction


async def create_function_url_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    now = _timestamp(context)
    url = FunctionUrl(
        function=ref.name,
        qualifier=ref.qualifier or "",
        url_id=context.new_id(),
        auth_type=request["AuthType"],
        created=now,
        modified=now,
        invoke_mode=request.get("InvokeMode"),
        cors=request.get("Cors"),
    )

    def work(tx: Transaction) -> None:
        _refuse_missing(tx, ref)
        latest = tx.version(ref.name, LATEST)
        refuse_with_tenancy(latest.configuration.tenant_isolation_mode if latest else None, "A function URL")
        if tx.function_url(ref.name, url.qualifier) is not None:
            raise ResourceConflict(
                f"Failed to create function url config for [functionArn = {ref.arn(context.realm)}]. "
                "Error message:  FunctionUrlConfig exists for this Lambda function"
            )
        tx.save_function_url(url)

    await context.store.write(work)
    return {**_common(context, url), "InvokeMode": url.invoke_mode}


def _timestamp(context: Context) -> str:
    """Now, as URL configs spell it: ISO 8601 with microseconds in UTC."""
    return f"{context.now():%Y-%m-%dT%H:%M:%S.%f}Z"


def _refuse_missing(reader: Reader, ref: FunctionRef) -> None:
    if not exists(reader, ref):
        raise ResourceNotFound("Function does not exist")


def _common(context: Context, url: FunctionUrl) -> Response:
    """The members that every answer has."""
    return {
        "FunctionUrl": _address(context, url),
        "FunctionArn": context.realm.function_arn(url.function, url.qualifier or None),
        "CreationTime": url.created,
        "Cors": None if url.cors is None else dict(url.cors),
        "AuthType": url.auth_type,
    }


def _document(context: Context, url: FunctionUrl) -> Response:
    """FunctionUrlConfig as Get and List show it."""
    return {
        **_common(context, url),
        "LastModifiedTime": url.modified,
        "InvokeMode": url.effective_invoke_mode,
    }


def _address(context: Context, url: FunctionUrl) -> str:
    """Where the function is reached."""
    port = urlsplit(context.base_url).port or 80
    return f"http://{address(url.url_id, context.realm.region, port)}/"


async def get_function_url_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))
    return _document(context, await context.store.read(lambda reader: _find(reader, ref)))


def _find(reader: Reader, ref: FunctionRef) -> FunctionUrl:
    url = reader.function_url(ref.name, ref.qualifier or "")
    if url is None:
        raise ResourceNotFound("The resource you requested does not exist.")
    return url


async def update_function_url_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))

    def work(tx: Transaction) -> FunctionUrl:
        _refuse_missing(tx, ref)
        before = _find(tx, ref)
        url = replace(
            before,
            auth_type=request.get("AuthType", before.auth_type),
            cors=request.get("Cors", before.cors),
            invoke_mode=request.get("InvokeMode", before.invoke_mode),
            modified=_timestamp(context),
        )
        tx.save_function_url(url)
        return url

    url = await context.store.write(work)
    return {**_common(context, url), "LastModifiedTime": url.modified, "InvokeMode": url.invoke_mode}


async def delete_function_url_config(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm, request.get("Qualifier"))

    def work(tx: Transaction) -> None:
        _find(tx, ref)
        tx.delete_function_url(ref.name, ref.qualifier or "")

    await context.store.write(work)
    return {}


async def list_function_url_configs(context: Context, request: Request, call: Call) -> Response:
    ref = FunctionRef.parse(request["FunctionName"], context.realm)
    size = request.get("MaxItems", DEFAULT_PAGE)
    marker = request.get("Marker")
    # The unqualified function's key is empty, so a first page must not begin after it.
    after = str(decode_marker(marker, ("",))[0]) if marker else None

    def work(reader: Reader) -> list[FunctionUrl]:
        _refuse_missing(reader, FunctionRef(ref.name))
        return list(reader.function_urls(ref.name, after, size + 1))

    urls, next_marker = page(await context.store.read(work), size, lambda url: (url.qualifier,))
    return {"FunctionUrlConfigs": [_document(context, url) for url in urls], "NextMarker": next_marker}
