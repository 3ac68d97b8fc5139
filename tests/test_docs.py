"""The documents tell the truth where a machine can check it: paths, links, commands with their options, make targets."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from botocore.model import Shape, StructureShape
from tests import operations_page

from lambstead.cli.main import app

CHECKOUT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    [
        *CHECKOUT.glob("*.md"),
        *CHECKOUT.glob("docs/**/*.md"),
        *CHECKOUT.glob("examples/*/README.md"),
        *CHECKOUT.glob("changelog.d/*.md"),
    ]
)
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHELL_LANGUAGES = {"sh", "console"}
STOP_WORDS = {"|", "||", "&&", ";", ">", "<", "(", ")", "&", "$("}


def name_of(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def prose(text: str) -> str:
    return CODE_BLOCK.sub("", text)


def shell_lines(text: str) -> Iterator[str]:
    """Every command line that a document shows: of shell blocks (only after `$ ` in consoles), and inline code."""
    for language, block in CODE_BLOCK.findall(text):
        if language in SHELL_LANGUAGES:
            joined = block.replace("\\\n", " ")
            for line in joined.splitlines():
                if language == "sh" or line.startswith("$ "):
                    yield line.removeprefix("$ ")
    yield from INLINE_CODE.findall(prose(text))


def calls(program: str, text: str) -> Iterator[list[str]]:
    """The words after each call of a program, up to the end of that command."""
    for line in shell_lines(text):
        if program not in line:
            continue
        lexer = shlex.shlex(line.replace('"$(', "$( ").replace(')"', " )"), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words = list(lexer)
        for position, word in enumerate(words):
            if word == program and (position == 0 or words[position - 1] in STOP_WORDS or "=" in words[position - 1]):
                rest = words[position + 1 :]
                end = next((index for index, each in enumerate(rest) if each in STOP_WORDS), len(rest))
                yield rest[:end]


def problem_of(words: list[str]) -> str | None:
    """What is wrong with a call of the command; None if the application would take it."""
    command: object = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, typer.core.TyperGroup) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return f"there is no command {name}"
        command = command.commands[name]
    assert isinstance(command, typer.core.TyperCommand | typer.core.TyperGroup)
    known = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
    unknown = [word for word in rest if word.startswith("-") and word != "-" and word.partition("=")[0] not in known]
    return f"unknown options {unknown}" if unknown else None


def documented(program: str) -> list[tuple[str, list[str]]]:
    return [(name_of(path), words) for path in DOCUMENTS for words in calls(program, path.read_text())]


def table_paths(text: str) -> list[str]:
    """The paths in the last column of the "where to look" table."""
    table = text.partition("## Where to look")[2]
    rows = [line.strip().strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    return [path for row in rows[2:] for path in INLINE_CODE.findall(row[-1])]


def test_every_path_of_the_architecture_table_exists() -> None:
    paths = table_paths((CHECKOUT / "docs" / "architecture.md").read_text())
    assert len(paths) >= 10
    assert [path for path in paths if not (CHECKOUT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(prose(document.read_text()))]
    relative = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    assert [target for target in relative if not (document.parent / target).exists()] == []


@pytest.mark.parametrize(("document", "words"), documented("lambstead"))
def test_every_documented_command_exists_with_its_options(document: str, words: list[str]) -> None:
    assert problem_of(words) is None, f"{document}: lambstead {' '.join(words)}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_no_document_holds_the_marks_of_a_merge(document: Path) -> None:
    lines = document.read_text().splitlines()
    assert [line for line in lines if re.match(r"(<{7}|={7}|>{7})( |$)", line)] == []


def test_every_documented_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE))
    named = [(document, words[0]) for document, words in documented("make") if words]
    assert len(named) >= 5
    assert [(document, target) for document, target in named if target not in targets] == []


def test_the_page_of_operations_is_what_the_registry_and_the_tests_say() -> None:
    """`make docs` writes it anew."""
    assert operations_page.PAGE.read_text() == operations_page.text()


def test_every_gap_is_of_a_member_that_the_operation_has() -> None:
    for served in operations_page.SERVED:
        assert served.gaps.keys() <= served.registry.keys()
        for operation, gaps in served.gaps.items():
            shape = served.api.model.operation_model(operation).input_shape
            for path in [*gaps.recorded, *gaps.refused]:
                place: Shape | None = shape
                for member in path.split("."):
                    assert isinstance(place, StructureShape), (operation, path)
                    place = place.members.get(member)
                assert place is not None, (operation, path)


def test_the_readme_shows_the_commands_of_a_newcomer() -> None:
    commands = {words[0] for document, words in documented("lambstead") if document == "README.md" and words}
    assert commands >= {"up", "env", "status", "invoke", "logs", "doctor", "down"}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["upp"], "there is no command upp"),
        (["runtime", "remove"], "there is no command remove"),
        (["up", "--prot", "1"], "unknown options ['--prot']"),
        (["invoke", "f", "--payload", "-", "--json"], None),
        (["runtime", "list", "--json"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_check_itself_finds_wrong_commands(words: list[str], problem: str | None) -> None:
    assert problem_of(words) == problem


def test_commands_are_found_where_documents_hide_them() -> None:
    text = 'Use `lambstead down`.\n```sh\neval "$(lambstead env)" # lambstead no\necho 1 | lambstead invoke f \\\n  --payload -\n```\n'
    assert list(calls("lambstead", text)) == [["env"], ["invoke", "f", "--payload", "-"], ["down"]]
