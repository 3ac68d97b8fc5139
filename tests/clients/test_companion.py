"""AWS's other services on the same port, through AWS's own clients: EC2 with the managed instances, S3, SQS; and who is refused."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import pytest
from botocore.exceptions import ClientError
from tests.harness import (
    ROLE,
    Server,
    create_function,
    create_provider,
    invoke,
    package,
    publish_managed,
    running,
    wait_for,
)

ECHO = "def handler(event, context):\n    return event\n"
FAILS = "def handler(event, context):\n    raise ValueError('no')\n"


def client(server: Server, service: str) -> Any:  # Any: boto3's clients are made at run time
    return boto3.client(
        service,
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=botocore.config.Config(retries={"max_attempts": 0}, read_timeout=60, s3={"addressing_style": "path"}),
    )


def aws(server: Server, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The AWS CLI."""
    return subprocess.run(
        [sys.executable, "-m", "awscli", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": server.url,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def shown(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [instance for each in answer["Reservations"] for instance in each["Instances"]]


def code(error: "pytest.ExceptionInfo[ClientError]") -> str:
    return str(error.value.response["Error"]["Code"])


@pytest.fixture(scope="module")
def three(runtimes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with three managed instances in three zones."""
    with running(tmp_path_factory.mktemp("companion") / "d", min_environments="3") as server:
        publish_managed(server.aws, "echo", ECHO, create_provider(server.aws), slots=2)
        wait_for(lambda: len(server.environments("echo")) == 3, "three environments are ready")
        yield server


ARN = "arn:aws:lambda:us-east-1:000000000000:capacity-provider:pool"


def test_ec2_shows_the_managed_instances_as_the_terraform_demo_asks_for_them(three: Server) -> None:
    table = aws(
        three,
        "ec2",
        "describe-instances",
        "--filters",
        "Name=tag:aws:lambda:capacity-provider,Values=*",
        "--query",
        "Reservations[*].Instances[*].[InstanceId,InstanceType,State.Name,Tags[?Key==`aws:lambda:capacity-provider`].Value|[0]]",
        "--output",
        "json",
    )
    assert table.returncode == 0, table.stderr
    rows = [row for reservation in json.loads(table.stdout) for row in reservation]
    known = {i["id"]: i for p in three.status()["providers"] for i in p["instances"]}
    assert {row[0]: (row[1], row[2], row[3]) for row in rows} == {
        id: (i["type"], "running", ARN) for id, i in known.items()
    }
    count = aws(
        three,
        "ec2",
        "describe-instances",
        "--include-managed-resources",
        "--filters",
        "Name=tag:aws:lambda:capacity-provider,Values=*pool",
        "Name=instance-state-name,Values=running,pending",
        "--query",
        "length(Reservations[*].Instances[*][])",
        "--output",
        "text",
    )
    assert count.stdout == "3\n", count.stderr


def test_each_instance_says_where_and_what_it_is_and_every_filter_counts(three: Server) -> None:
    ec2 = client(three, "ec2")
    instances = shown(ec2.describe_instances())
    assert sorted(i["Placement"]["AvailabilityZone"] for i in instances) == ["us-east-1a", "us-east-1b", "us-east-1c"]
    assert len({i["PrivateIpAddress"] for i in instances}) == 3
    first = min(instances, key=lambda i: i["Placement"]["AvailabilityZone"])
    assert first["State"] == {"Code": 16, "Name": "running"}
    assert first["SubnetId"] == "subnet-1"
    assert first["SecurityGroups"] == [{"GroupId": "sg-1"}]
    assert first["Tags"] == [{"Key": "aws:lambda:capacity-provider", "Value": ARN}]
    assert first["Operator"] == {"Managed": True, "Principal": "scaler.lambda.amazonaws.com"}
    assert first["LaunchTime"].tzinfo is not None
    assert shown(ec2.describe_instances(InstanceIds=[first["InstanceId"]])) == [first]

    def found(**filters: str) -> int:
        given = [
            {"Name": name.replace("_", "-").replace("tag-", "tag:", 1), "Values": v.split(",")}
            for name, v in filters.items()
        ]
        return len(shown(ec2.describe_instances(Filters=given)))

    assert found(availability_zone="us-east-1a,us-east-1b") == 2
    assert found(availability_zone="us-east-1a", instance_state_name="terminated") == 0
    assert found(instance_type=first["InstanceType"]) == 3
    assert found(instance_type="c7i.?large") in (0, 3)
    assert found(private_ip_address=first["PrivateIpAddress"]) == 1
    assert len(shown(ec2.describe_instances(Filters=[{"Name": "tag-key", "Values": ["aws:lambda:*"]}]))) == 3
    assert len(shown(ec2.describe_instances(Filters=[{"Name": "tag:none", "Values": ["*"]}]))) == 0
    assert len(shown(ec2.describe_instances(Filters=[{"Name": "operator.managed", "Values": ["false"]}]))) == 0


def test_pages_hold_managed_and_own_instances_each_once(three: Server) -> None:
    ec2 = client(three, "ec2")
    own = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, InstanceType="t3.micro")["Instances"][0]
    others = [
        ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
        for _ in range(5)
    ]
    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
    assert [len(page["Reservations"]) for page in pages] == [5, 4]
    ids = [i["InstanceId"] for page in pages for i in shown(page)]
    assert len(set(ids)) == 9
    assert {own["InstanceId"], *others} < set(ids)
    managed = shown(ec2.describe_instances(Filters=[{"Name": "operator.managed", "Values": ["true"]}]))
    assert len(managed) == 3
    both = ec2.describe_instances(InstanceIds=[own["InstanceId"], managed[0]["InstanceId"]])
    assert len(shown(both)) == 2
    ec2.terminate_instances(InstanceIds=[own["InstanceId"], *others])
    with pytest.raises(ClientError) as unknown:
        ec2.describe_instances(InstanceIds=["i-00000000000000000", managed[0]["InstanceId"]])
    assert code(unknown) == "InvalidInstanceID.NotFound"
    with pytest.raises(ClientError) as size:
        ec2.describe_instances(MaxResults=2)
    assert code(size) == "InvalidParameterValue"
    with pytest.raises(ClientError) as token:
        ec2.describe_instances(NextToken="nonsense")
    assert code(token) == "InvalidParameterValue"


@pytest.mark.parametrize("operation", ["terminate_instances", "stop_instances", "start_instances", "reboot_instances"])
def test_what_would_change_a_managed_instance_is_refused(three: Server, operation: str) -> None:
    ec2 = client(three, "ec2")
    (first, *_) = shown(ec2.describe_instances(Filters=[{"Name": "operator.managed", "Values": ["true"]}]))
    with pytest.raises(ClientError) as refused:
        getattr(ec2, operation)(InstanceIds=[first["InstanceId"]])
    assert code(refused) == "OperationNotPermitted"
    assert "is managed by scaler.lambda.amazonaws.com" in refused.value.response["Error"]["Message"]
    with pytest.raises(ClientError) as tagged:
        ec2.create_tags(Resources=[first["InstanceId"]], Tags=[{"Key": "a", "Value": "b"}])
    assert code(tagged) == "OperationNotPermitted"


def test_what_terraform_looks_up_in_ec2_is_there(three: Server) -> None:
    ec2 = client(three, "ec2")
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    subnets = ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
    assert len(subnets) >= 3
    assert ec2.describe_security_groups()["SecurityGroups"]
    (kind,) = ec2.describe_instance_types(InstanceTypes=["c7i.xlarge"])["InstanceTypes"]
    assert kind["VCpuInfo"]["DefaultVCpus"] == 4
    identity = client(three, "sts").get_caller_identity()
    assert identity["Account"] == "000000000000"


def test_an_instance_that_ended_is_shown_terminated_for_a_while(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path / "d") as server:
        publish_managed(server.aws, "echo", ECHO, create_provider(server.aws), slots=2)
        ec2 = client(server, "ec2")
        (before,) = shown(ec2.describe_instances())
        server.agents()[0].kill()
        wait_for(
            lambda: (
                {"Code": 48, "Name": "terminated"}
                in [i["State"] for i in shown(ec2.describe_instances(InstanceIds=[before["InstanceId"]]))]
            ),
            "it is terminated",
        )
        (gone,) = shown(ec2.describe_instances(InstanceIds=[before["InstanceId"]]))
        assert "PrivateIpAddress" not in gone
        assert gone["Tags"] == before["Tags"]


def test_code_comes_from_s3_and_a_failed_event_goes_to_a_queue(three: Server) -> None:
    s3, sqs, functions = client(three, "s3"), client(three, "sqs"), three.aws
    s3.create_bucket(Bucket="code")
    s3.put_bucket_versioning(Bucket="code", VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket="code", Key="a/b c.zip", Body=package(ECHO))["VersionId"]
    s3.put_object(Bucket="code", Key="a/b c.zip", Body=package(FAILS))
    s3_code = {"S3Bucket": "code", "S3Key": "a/b c.zip"}
    create_function(functions, "stored", "", Code=s3_code)
    wait_for(lambda: functions.get_function_configuration(FunctionName="stored")["State"] == "Active", "it is active")
    assert invoke(functions, "stored", 1).error == "Unhandled"
    queue = sqs.create_queue(QueueName="failures")["QueueUrl"]
    functions.put_function_event_invoke_config(
        FunctionName="stored",
        MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:sqs:us-east-1:000000000000:failures"}},
    )
    functions.invoke(FunctionName="stored", InvocationType="Event", Payload=b'{"n": 1}')
    (message,) = wait_for(
        lambda: sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages"), "the record is in the queue"
    )
    assert json.loads(message["Body"])["requestPayload"] == {"n": 1}
    functions.update_function_code(FunctionName="stored", S3Bucket="code", S3Key="a/b c.zip", S3ObjectVersion=first)
    wait_for(lambda: invoke(functions, "stored", 7).payload == 7, "the older object runs")
    with pytest.raises(ClientError) as missing:
        functions.update_function_code(FunctionName="stored", S3Bucket="code", S3Key="none")
    assert missing.value.response["Error"]["Message"].startswith(
        "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."
    )
    head = s3.head_object(Bucket="code", Key="a/b c.zip")
    assert head["ContentLength"] == len(package(FAILS))


def test_what_is_ours_never_goes_to_moto(three: Server) -> None:
    with pytest.raises(ClientError) as refused:
        client(three, "cloudformation").list_stacks()
    assert code(refused) == "NotImplemented"
    assert "echo" in {f["FunctionName"] for f in client(three, "lambda").list_functions()["Functions"]}


def test_without_the_companion_the_error_says_what_to_do(runtimes: Path, tmp_path: Path) -> None:
    with running(tmp_path / "d", companion="off") as server:
        for service, operation in (
            ("ec2", "describe_instances"),
            ("sqs", "list_queues"),
            ("s3", "list_buckets"),
            ("iam", "list_roles"),
        ):
            with pytest.raises(ClientError) as refused:
                getattr(client(server, service), operation)()
            error = refused.value.response
            assert (error["Error"]["Code"], error["ResponseMetadata"]["HTTPStatusCode"]) == ("NotImplemented", 501)
            assert error["Error"]["Message"] == (
                f"No {service} is served here: the companion is switched off (setting companion)."
            )
        with pytest.raises(ClientError) as nowhere:
            server.aws.create_function(
                FunctionName="f",
                Role=ROLE,
                Runtime="python3.13",
                Handler="app.handler",
                Code={"S3Bucket": "code", "S3Key": "a.zip"},
            )
        assert "This Lambstead has no S3: install lambstead[companion]" in nowhere.value.response["Error"]["Message"]


def test_without_the_extra_the_error_names_it(runtimes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As an interpreter is that has no moto.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['moto'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with running(tmp_path / "d") as server:
        with pytest.raises(ClientError) as refused:
            client(server, "ec2").describe_instances()
        assert "pip install 'lambstead[companion]'" in refused.value.response["Error"]["Message"]


def test_a_service_can_be_somewhere_else(runtimes: Path, tmp_path: Path) -> None:
    asked: list[tuple[str, bytes]] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.headers["X-Amz-Target"], body))
            answer = b'{"TableNames": ["there"]}'
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Elsewhere) as real:
        threading.Thread(target=real.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{real.server_port}"
        with running(
            tmp_path / "d", companion="off", companion_endpoints=f"dynamodb={url},kms=http://127.0.0.1:9"
        ) as server:
            assert client(server, "dynamodb").list_tables()["TableNames"] == ["there"]
            assert asked == [("DynamoDB_20120810.ListTables", b"{}")]
            with pytest.raises(ClientError) as silent:
                client(server, "kms").list_keys()
            assert code(silent) == "ServiceUnavailable"
        real.shutdown()


def test_instances_stand_in_the_zones_of_their_subnets_by_ec2_or_by_the_operator(tmp_path: Path) -> None:
    settings = {"subnet_zones": "subnet-said=us-east-1f", "min_environments": "3"}
    with running(tmp_path / "d", **settings) as server:
        ec2 = client(server, "ec2")
        network = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=network, CidrBlock=f"10.0.{n}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
            for n, zone in enumerate(("us-east-1d", "us-east-1b"))
        ]
        named = [*subnets, "subnet-said", "subnet-unknown"]
        arn = create_provider(server.aws, VpcConfig={"SubnetIds": named, "SecurityGroupIds": []})
        publish_managed(server.aws, "spread", ECHO, arn)
        found = ec2.describe_instances(Filters=[{"Name": "tag:aws:lambda:capacity-provider", "Values": [arn]}])
        there = [i for reservation in found["Reservations"] for i in reservation["Instances"]]
        assert {(i["Placement"]["AvailabilityZone"], i["SubnetId"]) for i in there} == {
            ("us-east-1d", subnets[0]),
            ("us-east-1b", subnets[1]),
            ("us-east-1f", "subnet-said"),
        }
