"""Where an operation that is answered does less than AWS: what it only records, and what it refuses. The page of operations is made from this.

A member is named by its path in the request. What is not here acts as on AWS, as far as is known; what AWS refuses itself is no gap. Who closes
a gap, or opens one, changes its line here in the same commit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lambstead.api.configurations import NOT_YET


@dataclass(frozen=True, slots=True)
class Gaps:
    """Members by path, each with what that means for a caller."""

    recorded: Mapping[str, str] = field(default_factory=dict)
    """Kept and shown, without effect."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Answered with a modelled error that names the gap."""
    is_recorded_only: bool = False
    """Nothing that the operation writes has an effect."""


_CONFIGURATION = Gaps(
    recorded={
        "Role": "no IAM judges what the function may do",
        "KMSKeyArn": "environment variables are not encrypted with it",
        "TracingConfig": "no traces are sent to X-Ray",
        "SnapStart": "no snapshot is taken; on managed functions AWS refuses it, and so do we",
        "VpcConfig": "functions use this machine's network; subnets and groups are not looked up, and all are in one VPC",
        "FileSystemConfigs": "nothing is mounted",
        "ImageConfig": "container images are not run",
    },
    refused={
        **{member: f"{noun}: not built" for member, noun in NOT_YET.items()},
        "Runtime": "dotnet* and ruby* have no launcher here; java* needs a JVM and AWS's client in the runtimes folder; refusals name what is missing",
    },
)
_NO_BUCKETS = "there is no S3; send the package inline"
_NO_IMAGES = "images are kept and shown, not run: invoking is refused, and publishing onto a capacity provider fails; a tag's digest is made from the URI"

LAMBDA: Mapping[str, Gaps] = {
    "CreateFunction": Gaps(
        {
            **_CONFIGURATION.recorded,
            "Code.ImageUri": _NO_IMAGES,
            "Code.SourceKMSKeyArn": "packages are not encrypted with it",
        },
        {
            **_CONFIGURATION.refused,
            "Code.S3Bucket": _NO_BUCKETS,
        },
    ),
    "UpdateFunctionConfiguration": _CONFIGURATION,
    "UpdateFunctionCode": Gaps(
        {"ImageUri": _NO_IMAGES, "SourceKMSKeyArn": "packages are not encrypted with it"}, {"S3Bucket": _NO_BUCKETS}
    ),
    "PublishLayerVersion": Gaps(refused={"Content.S3Bucket": _NO_BUCKETS}),
    "CreateCapacityProvider": Gaps(
        {
            "VpcConfig": "the number of subnets decides the zones; nothing is attached to them",
            "PermissionsConfig": "no role is assumed",
            "KmsKeyArn": "nothing is encrypted with it",
            "PropagateTags": "instances here carry no tags",
            "TelemetryConfig": "instances write no telemetry to a log group of their own",
        }
    ),
    "UpdateCapacityProvider": Gaps(
        {
            "PropagateTags": "instances here carry no tags",
            "TelemetryConfig": "instances write no telemetry to a log group of their own",
        }
    ),
    "PutFunctionConcurrency": Gaps(
        {"ReservedConcurrentExecutions": "on managed functions it only takes its part of the account's limit"}
    ),
    "AddPermission": Gaps({"Principal": "policies are enforced on function URLs; any credentials may call Invoke"}),
    "PutResourcePolicy": Gaps({"Policy": "policies are enforced on function URLs; any credentials may call Invoke"}),
    "AddLayerVersionPermission": Gaps({"Principal": "one endpoint serves one account"}, is_recorded_only=True),
    "CreateEventSourceMapping": Gaps({"EventSourceArn": "no source is polled yet"}, is_recorded_only=True),
    "UpdateEventSourceMapping": Gaps({"Enabled": "no source is polled yet"}, is_recorded_only=True),
    "PutRuntimeManagementConfig": Gaps(
        {"RuntimeVersionArn": "each runtime has the one version that is installed"}, is_recorded_only=True
    ),
    "CreateCodeSigningConfig": Gaps({"AllowedPublishers": "no signature can be verified: every package is unsigned"}),
    "UpdateCodeSigningConfig": Gaps({"AllowedPublishers": "no signature can be verified: every package is unsigned"}),
}
LOGS: Mapping[str, Gaps] = {}
