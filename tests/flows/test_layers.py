"""Layers in functions: their modules are imported, their tools and libraries found, in AWS's order, and they outlive their deletion."""

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from tests.harness import (
    Server,
    create_function,
    create_provider,
    invoke,
    package,
    publish_managed,
    running,
    wait_active,
    wait_for,
)

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

LOOK = """
import os, subprocess, sys

def handler(event, context):
    import colour, shade
    run = subprocess.run(['hue'], capture_output=True, text=True)
    return {'colour': colour.NAME, 'shade': shade.NAME, 'hue': run.stdout.strip(), 'path': sys.path,
            'libraries': os.environ['LD_LIBRARY_PATH']}
"""
SITE = "python/lib/python3.13/site-packages"


@pytest.fixture
def aws(server: Server) -> "LambdaClient":
    return server.aws


def archive(**files: str) -> bytes:
    """A zip; files below `bin` are executable."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as opened:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o755 if name.startswith("bin/") else 0o644) << 16
            opened.writestr(entry, text)
    return data.getvalue()


def publish(aws: "LambdaClient", layer: str, **files: str) -> str:
    """A layer version with these files; its ARN."""
    return aws.publish_layer_version(LayerName=layer, Content={"ZipFile": archive(**files)})["LayerVersionArn"]


def hue(text: str) -> str:
    return f"#!/bin/sh\necho {text}\n"


def deploy(aws: "LambdaClient", name: str, *layers: str, source: str = LOOK, **members: Any) -> None:
    create_function(aws, name, source, Layers=list(layers), Timeout=10, **members)
    wait_active(aws, name, "$LATEST")


def test_layers_are_laid_over_one_another_in_their_order(server: Server, aws: "LambdaClient") -> None:
    lower = publish(
        aws,
        "lower",
        **{"python/colour.py": "NAME = 'lower'", f"{SITE}/shade.py": "NAME = 'lower'", "bin/hue": hue("lower")},
    )
    upper = publish(aws, "upper", **{"python/colour.py": "NAME = 'upper'", "bin/hue": hue("upper")})
    deploy(aws, "layered", lower, upper)
    seen = invoke(aws, "layered").payload
    assert (seen["colour"], seen["shade"], seen["hue"]) == ("upper", "lower", "upper")
    task_root, site, modules, client, *_ = seen["path"]
    opt = modules.removesuffix("/python")
    assert site == f"{opt}/{SITE}", "the site folder of layers comes first"
    assert Path(opt).parent == server.data / "packages"
    assert client.endswith("/python3.13"), "then the runtime's own modules"
    assert seen["libraries"].endswith(f"{task_root}/lib:{opt}/lib")
    aws.update_function_configuration(FunctionName="layered", Layers=[upper, lower])
    wait_active(aws, "layered", "$LATEST")
    assert invoke(aws, "layered").payload["colour"] == "lower"


def test_the_function_s_own_modules_win_over_layers_and_layers_over_the_runtime(aws: "LambdaClient") -> None:
    layer = publish(aws, "winner", **{"python/colour.py": "NAME = 'layer'", "python/boto3.py": "NAME = 'layer'"})
    source = "import boto3, colour\ndef handler(event, context):\n    return [colour.NAME, getattr(boto3, 'NAME', 'runtime')]\n"
    code = package(source, colour="")
    with zipfile.ZipFile(buffer := io.BytesIO(code), "a") as opened:
        opened.writestr("colour.py", "NAME = 'function'")
    create_function(aws, "winning", source, Code={"ZipFile": buffer.getvalue()}, Layers=[layer])
    wait_active(aws, "winning", "$LATEST")
    assert invoke(aws, "winning").payload == ["function", "layer"]


def test_managed_functions_have_layers_too(aws: "LambdaClient") -> None:
    layer = publish(
        aws, "for-managed", **{"python/colour.py": "NAME = 'c'", "python/shade.py": "NAME = 's'", "bin/hue": hue("h")}
    )
    publish_managed(aws, "managed", LOOK, create_provider(aws), slots=2, Layers=[layer])
    seen = invoke(aws, "managed").payload
    assert (seen["colour"], seen["shade"], seen["hue"]) == ("c", "s", "h")


def test_a_layer_s_files_and_folders_may_take_each_other_s_place(aws: "LambdaClient") -> None:
    one = publish(aws, "one", **{"python/colour.py": "NAME = 'file'", "python/shade/__init__.py": "NAME = 'folder'"})
    two = publish(
        aws,
        "two",
        **{"python/colour.py/x": "", "python/colour/__init__.py": "NAME = 'folder'", "python/shade": "no module"},
    )
    source = "import colour\ndef handler(event, context):\n    import os, sys\n    root = sys.path[2]\n    return [colour.NAME, os.path.isfile(root + '/shade')]\n"
    deploy(aws, "swapped", one, two, source=source)
    assert invoke(aws, "swapped").payload == ["folder", True]


def test_functions_report_their_layers_and_an_empty_list_removes_them(aws: "LambdaClient") -> None:
    data = archive(**{"python/colour.py": "NAME = 1"})
    layer = aws.publish_layer_version(LayerName="reported", Content={"ZipFile": data})["LayerVersionArn"]
    deploy(aws, "reporting", layer)
    listed = [{"Arn": layer, "CodeSize": len(data)}]
    assert aws.get_function_configuration(FunctionName="reporting")["Layers"] == listed
    one = aws.publish_version(FunctionName="reporting")
    assert one["Layers"] == listed
    changed = aws.update_function_configuration(FunctionName="reporting", Layers=[])
    assert "Layers" not in changed
    wait_active(aws, "reporting", "$LATEST")
    assert aws.publish_version(FunctionName="reporting")["Version"] == "2", "other layers are another configuration"
    assert aws.get_function_configuration(FunctionName="reporting", Qualifier="1")["Layers"] == listed
    update = aws.update_function_configuration(FunctionName="reporting", Timeout=9)
    assert "Layers" not in update


def test_a_function_keeps_a_layer_that_is_deleted_through_restarts(runtimes: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as server:
        kept = publish(
            server.aws,
            "kept",
            **{"python/colour.py": "NAME = 'kept'", "python/shade.py": "NAME = 's'", "bin/hue": hue("h")},
        )
        publish(server.aws, "unused", **{"python/other.py": ""})
        deploy(server.aws, "keeping", kept)
        for layer in ("kept", "unused"):
            server.aws.delete_layer_version(LayerName=layer, VersionNumber=1)
        with pytest.raises(ClientError, match="ResourceNotFoundException"):
            server.aws.get_layer_version(LayerName="kept", VersionNumber=1)
        packages = sorted(path.name for path in (data / "packages").iterdir())
        assert server.stop() == 0
    with running(data) as again:
        left = sorted(path.name for path in (data / "packages").iterdir())
        assert len(left) == len(packages) - 2, "the zip and the folder of the unused layer are gone, nothing else"
        assert invoke(again.aws, "keeping").payload["colour"] == "kept"
        again.aws.delete_function(FunctionName="keeping")
        assert again.stop() == 0
    with running(data):
        wait_for(lambda: list((data / "packages").iterdir()) == [], "nothing is kept for nobody")


def test_function_and_layers_together_have_a_limit_unzipped(aws: "LambdaClient") -> None:
    def zeros(name: str, size: int) -> bytes:
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
            opened.writestr(name, bytes(size))
            opened.writestr("app.py", "def handler(event, context):\n    return 1\n")
        return data.getvalue()

    layer = aws.publish_layer_version(LayerName="large", Content={"ZipFile": zeros("zeros", 130_000_000)})
    create_function(aws, "small", "def handler(e, c):\n    return 1\n", Layers=[layer["LayerVersionArn"]])
    wait_active(aws, "small", "$LATEST")
    with pytest.raises(ClientError) as caught:
        aws.update_function_code(FunctionName="small", ZipFile=zeros("zeros", 133_000_000))
    error = caught.value.response["Error"]
    assert error["Code"] == "InvalidParameterValueException"
    assert error["Message"].startswith(
        "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. The actual size is 2630"
    )
    for name, layers in (("large-1", [layer["LayerVersionArn"]]),):
        with pytest.raises(ClientError, match="Function code combined with layers exceeds"):
            create_function(aws, name, "", Code={"ZipFile": zeros("zeros", 133_000_000)}, Layers=layers)


def test_a_layer_can_be_downloaded_again(aws: "LambdaClient") -> None:
    import urllib.request

    data = archive(**{"python/colour.py": "NAME = 1"})
    aws.publish_layer_version(LayerName="downloaded", Content={"ZipFile": data})
    location = aws.get_layer_version(LayerName="downloaded", VersionNumber=1)["Content"]["Location"]
    with urllib.request.urlopen(location, timeout=10) as answer:
        assert answer.read() == data
