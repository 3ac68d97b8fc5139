"""Constraints of the service model, checked before anything else and answered in AWS's words.

    N validation error(s) detected: Value 'V' at 'path' failed to satisfy constraint: C; Value …

A checker is compiled per shape: `check(value, path, found)` appends one sentence per broken constraint. Paths are camelCase; items of
lists are `path.1.member`, entries of maps `path.key.member` (seen in answers of DynamoDB and Bedrock). Simple members of a list or map
are not reported one by one: the whole collection is, once, with every constraint its members have. Values of sensitive
shapes are left out, as AWS does (`Value at 'environment.variables' failed …`).

Order: query and header members before path labels before the body (observed: qualifier before functionName), members in model order,
length before pattern. AWS does not promise one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from lambstead.wire import java, overlay

Found = list[str]
Checker = Callable[[Any, str, Found], None]
Constraint = tuple[str, Callable[[Any], bool]]
"""What a value must satisfy, in AWS's words, and whether it does."""

MAX_ECHO_CHARACTERS = 8192
"""Longer values are cut in messages: AWS's longest recorded echo is far below, and a message must not carry an upload."""
MAX_PATTERN_CHARACTERS = 65_536
"""A value above its length limit and longer than this is reported for its length only; no pattern runs on it."""
MAX_ERRORS = 100
"""Further broken constraints of one request are not listed; a million bad items must not become a message of their size."""

_NOT_NULL = "Member must not be null"
_SMALLEST_INTEGER, _LARGEST_INTEGER = -(2**31), 2**31 - 1
_LOCATION_ORDER = {"querystring": 0, "header": 1, "headers": 2, "uri": 3}


def message(found: Found) -> str:
    """The text of the error for these broken constraints; `found` is not empty."""
    plural = "s" if len(found) > 1 else ""
    return f"{len(found)} validation error{plural} detected: {'; '.join(found)}"


class CheckerCompiler:
    """Compiles checkers of one service. None stands for shapes where nothing can be wrong."""

    def __init__(self, service: str) -> None:
        self._named: dict[str, Checker | None] = {}
        self._patterns: dict[str, java.JavaPattern] = {}
        self._unchecked_enums = overlay.UNCHECKED_ENUMS.get(service, frozenset())
        self._unreported_null = overlay.UNREPORTED_NULL.get(service, frozenset())
        self._unreported_null_keys = overlay.UNREPORTED_NULL_KEYS.get(service, frozenset())
        self._whole_list_enums = overlay.WHOLE_LIST_ENUMS.get(service, frozenset())

    def input_checker(self, operation: str, shape: StructureShape) -> Callable[[Mapping[str, Any]], Found]:
        """A function from the parameters of an operation to the sentences of its broken constraints."""
        members = sorted(
            shape.members.items(), key=lambda item: _LOCATION_ORDER.get(item[1].serialization.get("location", ""), 4)
        )
        check = self._members(
            shape,
            [
                (name, member, self._scalar(member, enum=f"{operation}.{name}" not in self._unchecked_enums))
                if not isinstance(member, StructureShape | ListShape | MapShape)
                else (name, member, self._checker(member))
                for name, member in members
            ],
        )

        def checked(parameters: Mapping[str, Any]) -> Found:
            found: Found = []
            check(parameters, "", found)
            return found

        return checked

    def _checker(self, shape: Shape) -> Checker | None:
        match shape:
            case StructureShape() | ListShape() | MapShape():
                return self._aggregate(shape)
            case _:
                return self._scalar(shape)

    def _aggregate(self, shape: StructureShape | ListShape | MapShape) -> Checker | None:
        if shape.name in self._named:
            return self._named[shape.name]
        finished: list[Checker | None] = []

        def recurring(value: Any, path: str, found: Found) -> None:
            if finished[0] is not None:
                finished[0](value, path, found)

        self._named[shape.name] = recurring
        match shape:
            case StructureShape():
                checker = self._structure(shape)
            case ListShape():
                checker = self._list(shape)
            case MapShape():
                checker = self._map(shape)
        finished.append(checker)
        self._named[shape.name] = checker
        return checker

    def _structure(self, shape: StructureShape) -> Checker | None:
        if shape.is_document_type:
            return None
        return self._members(shape, [(name, member, self._checker(member)) for name, member in shape.members.items()])

    def _members(self, shape: StructureShape, members: Iterable[tuple[str, Shape, Checker | None]]) -> Checker:
        required = frozenset(shape.required_members)
        relevant = tuple(
            (name, java.member_path(name), name in required, checker)
            for name, _, checker in members
            if checker is not None or name in required
        )

        def check(value: Mapping[str, Any], path: str, found: Found) -> None:
            for name, wire, needed, checker in relevant:
                item = value.get(name)
                if item is None:
                    if needed:
                        _append(found, f"Value null at '{path}{wire}' failed to satisfy constraint: {_NOT_NULL}")
                elif checker is not None:
                    checker(item, f"{path}{wire}", found)

        return _beneath(check, "")

    def _scalar(self, shape: Shape, *, enum: bool = True) -> Checker | None:
        return _reporter(shape, self._constraints(shape, enum=enum) + _type_constraints(shape))

    def _inner(self, shape: Shape) -> Checker | None:
        """What is left to check of the members of a collection, whose own constraints the collection has reported."""
        match shape:
            case StructureShape():
                return self._aggregate(shape)
            case ListShape():
                return self._list(shape, nested=True)
            case MapShape():
                return self._map(shape, nested=True)
            case _:
                return None

    def _list(self, shape: ListShape, *, nested: bool = False) -> Checker | None:
        own = None if nested else _reporter(shape, self._constraints(shape))
        items = self._collection(shape, shape.member, "Member must satisfy constraint", list)
        inner = self._inner(shape.member)

        def check_inner(value: list[Any], path: str, found: Found) -> None:
            if inner is not None:
                for position, item in enumerate(value, 1):
                    if item is not None:
                        inner(item, f"{path}.{position}.member", found)

        return _all_of([own, items, None if inner is None else check_inner])

    def _map(self, shape: MapShape, *, nested: bool = False) -> Checker | None:
        own = None if nested else _reporter(shape, self._constraints(shape))
        keys = self._collection(
            shape, shape.key, "Map keys must satisfy constraint", list, unreported=self._unreported_null_keys
        )
        values = self._collection(
            shape, shape.value, "Map value must satisfy constraint", lambda value: list(value.values())
        )
        inner = self._inner(shape.value)

        def check_inner(value: dict[str, Any], path: str, found: Found) -> None:
            if inner is not None:
                for key, item in value.items():
                    if item is not None:
                        inner(item, f"{path}.{key}.member", found)

        return _all_of([own, keys, values, None if inner is None else check_inner])

    def _collection(
        self,
        whole: Shape,
        member: Shape,
        words: str,
        members: Callable[[Any], list[Any]],
        unreported: frozenset[str] | None = None,
    ) -> Checker | None:
        """One sentence about the whole collection if any of its members breaks a constraint of its own or is null.

        Of the shapes named in `unreported`, by default the service's, the sentence does not mention null.
        """
        constraints = [] if isinstance(member, StructureShape) else self._constraints(member)
        texts = [text for text, _ in constraints]
        if whole.name not in (self._unreported_null if unreported is None else unreported):
            texts.append(_NOT_NULL)
        constraints = constraints + _type_constraints(member)

        def satisfied(item: Any) -> bool:
            return item is not None and all(holds(item) for _, holds in constraints)

        text = f"{words}: [{', '.join(texts)}]"
        if whole.name in self._whole_list_enums:
            text, _ = _enum_constraint(overlay.current_runtimes(member.metadata["enum"]))
        return _reporter(whole, [(text, lambda value: all(map(satisfied, members(value))))])

    def _constraints(self, shape: Shape, *, enum: bool = True) -> list[Constraint]:
        metadata = shape.metadata
        match shape.type_name:
            case "string" | "list" | "map" | "blob":
                constraints = _length_constraints(metadata.get("min"), metadata.get("max"))
            case "integer" | "long" | "float" | "double":
                constraints = _range_constraints(shape.type_name, metadata.get("min"), metadata.get("max"))
            case _:
                constraints = []
        if (pattern := metadata.get("pattern")) is not None and pattern not in overlay.UNTRANSLATED_PATTERNS:
            constraints.append(self._pattern_constraint(pattern, metadata.get("max")))
        if enum and "enum" in metadata:
            constraints.append(_enum_constraint(metadata["enum"], overlay.PRINTED_ORDER.get(shape.name)))
        return constraints

    def _pattern_constraint(self, text: str, longest: int | None) -> Constraint:
        pattern = self._patterns.setdefault(text, java.JavaPattern(text))

        def holds(value: str) -> bool:
            if longest is not None and len(value) > max(longest, MAX_PATTERN_CHARACTERS):
                return True
            return pattern.matches(value)

        return f"Member must satisfy regular expression pattern: {text}", holds


def _beneath(check: Checker, root: str) -> Checker:
    """Members of a structure at `path` live at `path.member`; those of the input itself have no prefix."""
    return lambda value, path, found: check(value, f"{path}." if path else root, found)


def _all_of(checkers: list[Checker | None]) -> Checker | None:
    present = [checker for checker in checkers if checker is not None]
    if len(present) < 2:
        return present[0] if present else None

    def check(value: Any, path: str, found: Found) -> None:
        for checker in present:
            checker(value, path, found)

    return check


def _append(found: Found, sentence: str) -> None:
    if len(found) < MAX_ERRORS:
        found.append(sentence)


def _reporter(shape: Shape, constraints: list[Constraint]) -> Checker | None:
    if not constraints:
        return None
    sensitive = bool(shape.metadata.get("sensitive"))

    def check(value: Any, path: str, found: Found) -> None:
        for text, holds in constraints:
            if not holds(value):
                echo = "Value" if sensitive else f"Value '{_echo(value, shape)}'"
                _append(found, f"{echo} at '{path}' failed to satisfy constraint: {text}")

    return check


def _echo(value: Any, shape: Shape) -> str:
    text = java.text(value, shape)
    return text if len(text) <= MAX_ECHO_CHARACTERS else f"{text[:MAX_ECHO_CHARACTERS]}..."


def _length_constraints(shortest: int | None, longest: int | None) -> list[Constraint]:
    constraints: list[Constraint] = []
    if longest is not None:
        constraints.append(
            (f"Member must have length less than or equal to {longest}", lambda value: len(value) <= longest)
        )
    if shortest is not None:
        constraints.append(
            (f"Member must have length greater than or equal to {shortest}", lambda value: len(value) >= shortest)
        )
    return constraints


def _range_constraints(type_name: str, smallest: float | None, largest: float | None) -> list[Constraint]:
    exact = type_name in ("integer", "long")
    constraints: list[Constraint] = []
    if largest is not None:
        top = int(largest) if exact else float(largest)
        words = f"Member must have value less than or equal to {java.number_text(top)}"
        constraints.append((words, lambda value: value <= top))
    if smallest is not None:
        bottom = int(smallest) if exact else float(smallest)
        words = f"Member must have value greater than or equal to {java.number_text(bottom)}"
        constraints.append((words, lambda value: value >= bottom))
    return constraints


def _type_constraints(shape: Shape) -> list[Constraint]:
    """Bounds of a Java int where the model has none: a larger number can be held neither by AWS nor by a store's column."""
    if shape.type_name != "integer":
        return []
    smallest = _SMALLEST_INTEGER if shape.metadata.get("min") is None else None
    largest = _LARGEST_INTEGER if shape.metadata.get("max") is None else None
    return _range_constraints("integer", smallest, largest)


def _enum_constraint(values: list[str], printed: Sequence[str] | None = None) -> Constraint:
    allowed = frozenset(values)
    return f"Member must satisfy enum value set: [{', '.join(printed or java.set_order(values))}]", allowed.__contains__
