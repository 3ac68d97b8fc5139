"""Clients of other AWS services, made from the settings: what is named is asked there, else the companion on our own port."""

from collections.abc import Awaitable, Callable

from lambstead.companion.moto_services import MotoServices, is_installed
from lambstead.companion.services import Companion
from lambstead.config import Settings
from lambstead.core.managed_ec2 import ManagedInstance
from lambstead.drivers.destinations import AwsDestinations
from lambstead.drivers.objects import S3Objects
from lambstead.drivers.subnets import Ec2Subnets


def companion_of(settings: Settings, instances: Callable[[], Awaitable[list[ManagedInstance]]]) -> Companion:
    """Moto where it is wanted and installed; a companion without it says what is missing."""
    moto, why_not = None, ""
    if settings.companion == "off":
        why_not = "the companion is switched off (setting companion)."
    elif not is_installed():
        why_not = "install the companion with `pip install 'lambstead[companion]'`, or name an endpoint in companion_endpoints."
    else:
        moto = MotoServices(settings.account_id)
    return Companion(moto, why_not, settings.endpoints_by_service, instances, settings.account_id)


def subnets_of(settings: Settings, companion: Companion, url: str) -> Ec2Subnets:
    """Where the zone of a subnet is looked up."""

    def endpoint() -> str:
        return url if companion.serves("ec2") and companion.may_have_subnets else ""

    return Ec2Subnets(
        settings.zones_by_subnet, endpoint, settings.region, settings.access_key_id, settings.secret_access_key
    )


def objects_of(settings: Settings, companion: Companion, url: str) -> S3Objects:
    """Where code packages in S3 are read."""
    endpoint = settings.endpoint_url_s3 or (url if companion.serves("s3") else "")
    return S3Objects(endpoint, settings.region, settings.access_key_id, settings.secret_access_key)


def destinations_of(settings: Settings, companion: Companion, url: str) -> AwsDestinations:
    """Endpoints that are named, else our own port where the companion answers there."""
    named = {
        "sqs": settings.endpoint_url_sqs,
        "sns": settings.endpoint_url_sns,
        "events": settings.endpoint_url_eventbridge,
        "s3": settings.endpoint_url_s3,
    }
    return AwsDestinations(
        {service: given or (url if companion.serves(service) else "") for service, given in named.items()},
        settings.region,
        settings.access_key_id,
        settings.secret_access_key,
    )
