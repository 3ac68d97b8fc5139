"""What a function's configuration may say beyond the model, in AWS's words."""

import pytest

from lambstead.core.configuration_rules import (
    MAX_VARIABLES_BYTES,
    RESERVED_VARIABLES,
    check_standard_size,
    check_variables,
    logging_config,
)
from lambstead.core.configurations import Logging
from lambstead.core.errors import InvalidParameterValue, ValidationError
from lambstead.core.runtimes import MANAGED, RETIRED, check_runtime

TEXT = Logging("Text", "/aws/lambda/f")
JSON = Logging("JSON", "/aws/lambda/f", "INFO", "INFO")


@pytest.mark.parametrize("variables", [{}, {"A": "b"}, {"AWS_LAMBDA_LOG_LEVEL": "x"}, {"TZ": "UTC"}, {"é": "ü"}])
def test_variables_of_the_customer(variables: dict[str, str]) -> None:
    check_variables(variables)


@pytest.mark.parametrize("name", sorted(RESERVED_VARIABLES))
def test_reserved_variables_are_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        check_variables({"MINE": "x", name: "y"})
    assert str(refusal.value) == (
        "Lambda was unable to configure your environment variables because the environment variables you have provided "
        "contains reserved keys that are currently not supported for modification. "
        f"Reserved keys used in this request: {name}"
    )


def test_several_reserved_variables_are_all_named() -> None:
    with pytest.raises(InvalidParameterValue, match=r"Reserved keys used in this request: AWS_REGION, _HANDLER$"):
        check_variables({"_HANDLER": "", "AWS_REGION": ""})


def test_variables_are_measured_as_compact_json() -> None:
    overhead = len('{"A":""}')
    check_variables({"A": "x" * (MAX_VARIABLES_BYTES - overhead)})
    with pytest.raises(InvalidParameterValue) as refusal:
        check_variables({"A": "x" * (MAX_VARIABLES_BYTES - overhead + 1)})
    assert str(refusal.value).startswith(
        "Lambda was unable to configure your environment variables because the environment variables you have provided "
        'exceeded the 4KB limit. String measured: {"A":"xxx'
    )


def test_a_variable_cannot_hold_a_nul() -> None:
    with pytest.raises(InvalidParameterValue, match="environment variable B contains a NUL"):
        check_variables({"A": "x", "B": "x\0y"})


@pytest.mark.parametrize("sizes", [(128, 3, 512), (10_240, 900, 10_240)])
def test_sizes_of_standard_functions(sizes: tuple[int, int, int]) -> None:
    check_standard_size(*sizes)


@pytest.mark.parametrize(
    ("sizes", "member", "most"),
    [
        ((10_241, 3, 512), "MemorySize", 10_240),
        ((128, 901, 512), "Timeout", 900),
        ((128, 3, 10_241), "EphemeralStorage.Size", 10_240),
    ],
)
def test_sizes_that_only_managed_functions_may_have(sizes: tuple[int, int, int], member: str, most: int) -> None:
    with pytest.raises(ValidationError) as refusal:
        check_standard_size(*sizes)
    assert str(refusal.value) == (
        f"'{member}' value failed to satisfy constraint: Member must have value less than or equal to {most}"
    )


@pytest.mark.parametrize(
    ("asked", "before", "managed", "after"),
    [
        ({}, None, False, TEXT),
        ({}, None, True, JSON),
        ({"LogFormat": "JSON"}, None, False, JSON),
        ({"LogFormat": "JSON"}, TEXT, False, JSON),
        (
            {"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"},
            TEXT,
            False,
            Logging("JSON", TEXT.group, "DEBUG", "INFO"),
        ),
        ({"LogFormat": "Text"}, JSON, False, TEXT),
        ({"SystemLogLevel": "WARN"}, JSON, True, Logging("JSON", JSON.group, "INFO", "WARN")),
        ({"LogGroup": "mine"}, None, False, Logging("Text", "mine")),
        ({"LogGroup": "mine"}, Logging("JSON", "x", "DEBUG", "WARN"), True, Logging("JSON", "mine", "DEBUG", "WARN")),
        ({"LogFormat": "JSON"}, Logging("Text", "mine"), False, Logging("JSON", "mine", "INFO", "INFO")),
    ],
)
def test_logging_is_laid_over_what_it_was(
    asked: dict[str, str], before: Logging | None, managed: bool, after: Logging
) -> None:
    assert logging_config("f", asked, before, managed=managed) == after


@pytest.mark.parametrize(
    ("asked", "before", "managed"),
    [
        ({"LogFormat": "Text"}, JSON, True),
        ({"LogFormat": "Text"}, None, True),
        ({"LogFormat": "Text", "ApplicationLogLevel": "INFO"}, JSON, False),
        ({"SystemLogLevel": "INFO"}, TEXT, False),
    ],
)
def test_text_has_no_levels_and_managed_functions_have_no_text(
    asked: dict[str, str], before: Logging | None, managed: bool
) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        logging_config("f", asked, before, managed=managed)
    assert str(refusal.value) == (
        'LogLevel is not supported when LogFormat is set to "Text". '
        'Remove LogLevel from your request or change the LogFormat to "JSON" and try again.'
    )


@pytest.mark.parametrize("runtime", sorted(RETIRED))
@pytest.mark.parametrize("managed", [True, False])
def test_retired_runtimes_are_refused_in_awss_words(runtime: str, managed: bool) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        check_runtime(runtime, managed=managed)
    assert str(refusal.value) == (
        f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
        "We recommend you use a supported runtime while creating or updating functions."
    )


@pytest.mark.parametrize("runtime", ["python3.12", "nodejs20.x", "java17", "ruby3.4", "provided.al2"])
def test_runtimes_too_old_for_managed_instances(runtime: str) -> None:
    with pytest.raises(InvalidParameterValue) as refusal:
        check_runtime(runtime, managed=True)
    assert str(refusal.value) == f"Runtime Enum {runtime} does not support specified feature: Lambda Managed Instances"


@pytest.mark.parametrize("runtime", sorted(r for r in MANAGED if r.startswith("python")))
def test_python_runs_here(runtime: str) -> None:
    check_runtime(runtime, managed=True)
    check_runtime(runtime, managed=False)
