"""A job's mapping, a JMESPath expression: a tool's document in, objects of the contract out.

It is imported only if a job has a mapping, so nobody else pays for jmespath at a cold start.
An evaluation counts what it looks at and builds, so that it always ends.
"""

import math
import time
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jmespath
from jmespath.exceptions import ArityError, JMESPathError, JMESPathTypeError, VariadictArityError
from jmespath.functions import TYPES_MAP, Functions, signature
from jmespath.visitor import Options, TreeInterpreter

from ddg_json_file import TOO_DEEP, RetryError, StatsFileError, kind, show

MAX_STEPS = 2_500_000  # per evaluation: nodes visited, and elements looked at or built
STEP_CHARACTERS = 10  # of a string that count as an element

_ABSENT = object()  # what maybe() makes of null: its member is left out
Node = Mapping[str, Any]  # a node of a parsed expression
# What Python raises if jmespath doesn't check a value's type
_EVALUATION_ERRORS = (ArithmeticError, TypeError, ValueError)
_EAGER = ("function_expression", "comparator", "flatten")  # they need all their children's values
_BUILDERS = ("slice", "multi_select_dict")
# Their work doesn't depend on a value's size; numbers() counts by itself
_AT_ONCE = ("root", "maybe", "type", "length", "not_null", "to_array", "numbers")
# How many levels of a value they look into; the others look at one
_LEVELS = {"flatten": 2, "sort": 2, "join": 2} | dict.fromkeys(
    ("comparator", "to_string", "contains"), math.inf
)


@cache
def compile_mapping(expression: str) -> Node:
    """Parse an expression, and check the names and arguments of its functions.

    Raises:
        RetryError: it isn't JMESPath, or calls a function that doesn't exist.
    """
    try:
        parsed: Node = jmespath.compile(expression).parsed
        _check(parsed)
    except JMESPathError as error:
        problem = str(error).splitlines()[0].removesuffix(", for expression:").rstrip(".:")
    except RecursionError:
        problem = "it is nested too deeply"
    else:
        return parsed
    raise RetryError(f"the job's mapping is wrong: {problem}. Correct it in `jobs`, and apply.")


def map_document(
    mapping: Node, deadline: float, document: object
) -> tuple[str, Iterator[tuple[int, object]]]:
    """Evaluate a compiled mapping.

    Args:
        deadline: of time.monotonic().

    Returns:
        A format string that names an object's place by its number, and the numbered objects.

    Raises:
        StatsFileError: the mapping can't be applied to the document, finds nothing in it, or
            exceeds the limits; while iterating: an object has a null. It shows no value.
        RetryError: the deadline has passed.
    """
    interpreter = _Interpreter(document, deadline)
    try:
        result = interpreter.visit(mapping, document)
    except JMESPathTypeError as error:
        taken = " or ".join(error.expected_types)
        found = TYPES_MAP.get(error.actual_type, error.actual_type)
        problem = f"{error.function_name}() in the mapping expects {taken}, got {found}"
    except StatsFileError:
        raise
    except RecursionError:
        raise StatsFileError(TOO_DEEP) from None
    except _EVALUATION_ERRORS:
        problem = "the mapping compares or computes with values that don't go together"
    else:
        return _numbered(result, interpreter)
    raise StatsFileError(f"{problem}. Correct the mapping, or the file.")


def _numbered(result: Any, interpreter: "_Interpreter") -> tuple[str, Iterator[tuple[int, object]]]:
    """Return the objects of a result as map_document does."""
    if result is None or result == []:
        raise StatsFileError("the mapping finds nothing in the file. Correct the mapping.")
    if isinstance(result, list):
        place = "object {} of the mapping's result: "
    elif isinstance(result, dict):
        place, result = "the mapping's result: ", [result]
    else:
        raise StatsFileError(
            f"the mapping makes {kind(result)} from the file. It must make an object, "
            "such as {rows: numbers.rows}, or a list of objects."
        )
    return place, interpreter.without_nulls(place, result)


def _check(node: Node, parent: Node | None = None, position: int = 0) -> None:
    """Raise errors that jmespath finds only while evaluating, or never."""
    functions = _Functions.FUNCTION_TABLE
    match node:
        case {"type": "function_expression", "value": name, "children": given}:
            if name not in functions:
                raise JMESPathError(f"there is no function {name}()")
            taken = functions[name]["signature"]
            variadic = bool(taken) and taken[-1].get("variadic", False)
            if len(given) < len(taken) or (len(given) > len(taken) and not variadic):
                wrong_number = VariadictArityError if variadic else ArityError
                raise wrong_number(len(taken), len(given), name)
            if name == "maybe" and not (parent and parent["type"] == "key_val_pair"):
                raise JMESPathError("maybe() is for a member's whole value: {a: maybe(b)}")
        case {"type": "expref"}:
            function = parent.get("value") if parent else None
            taken = functions.get(function, {}).get("signature", ())[position : position + 1]
            if not any("expref" in each["types"] for each in taken):
                raise JMESPathError("an expression with & is for functions such as sort_by() only")
        case {"type": "slice", "children": [_, _, 0]}:
            raise JMESPathError("the step of a slice can't be 0")
    for index, child in enumerate(node["children"]):
        if isinstance(child, dict):
            _check(child, node, index)


class _Functions(Functions):
    """JMESPath's functions and four more."""

    def __init__(self, interpreter: "_Interpreter") -> None:
        self._interpreter = interpreter

    @signature()
    def _func_root(self) -> object:
        return self._interpreter.document

    @signature({"types": []})
    def _func_maybe(self, value: object) -> object:
        return _ABSENT if value is None else value

    @signature({"types": ["object"]})
    def _func_items(self, value: dict[str, object]) -> list[list[object]]:
        self._interpreter.count(2 * len(value))
        return [[key, member] for key, member in value.items()]

    @signature({"types": ["object"]})
    def _func_numbers(self, value: dict[str, object]) -> dict[str, object]:
        numbers: dict[str, object] = {}
        self._interpreter.count(1 + len(value))
        for name, member in value.items():
            if type(member) is int or type(member) is float:
                numbers[name] = member
            elif isinstance(member, dict) and (inner := self._func_numbers(member)):
                numbers[name] = inner
        return numbers

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, strings: list[str]) -> str:
        # Before building it: many strings may repeat a separator of 10 MB
        self._interpreter.count(len(separator) * len(strings) // STEP_CHARACTERS)
        return separator.join(strings)


class _Interpreter(TreeInterpreter):
    """One evaluation."""

    def __init__(self, document: object, deadline: float) -> None:
        super().__init__(Options(custom_functions=_Functions(self)))
        self.document = document
        self._deadline, self._steps = deadline, 0

    def count(self, steps: int) -> None:
        """Count work, and refuse the file if it is too much."""
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise StatsFileError(
                f"the mapping takes over {MAX_STEPS:,} steps with this file. "
                "Write a simpler mapping, or split the file."
            )
        if time.monotonic() > self._deadline:
            raise RetryError("no time was left to apply its mapping in this invocation")

    def look_at(self, value: object, levels: float) -> None:
        """Count a value's elements, and those of its elements on so many levels."""
        self.count(_size(value))
        if levels > 1 and isinstance(value, list | dict):
            for member in value.values() if isinstance(value, dict) else value:
                self.look_at(member, levels - 1)

    def visit(self, node: Node, value: Any) -> Any:
        """Visit a node of the expression; count what it looks at, then what it has built."""
        self.count(1)
        name = node["value"] if node["type"] == "function_expression" else node["type"]
        is_eager = node["type"] in _EAGER and name not in _AT_ONCE
        if is_eager:
            values = [self.visit(child, value) for child in node["children"]]
            for each in values:
                self.look_at(each, _LEVELS.get(name, 1))
            node = {**node, "children": [{"type": "literal", "value": each} for each in values]}
        result = super().visit(node, value)
        if is_eager or name in _BUILDERS or isinstance(result, str):  # a string may be compared
            self.count(_size(result))
        return result

    def visit_multi_select_dict(self, node: Node, value: object) -> dict[str, object] | None:
        """Build an object without the members whose maybe() is null."""
        built = super().visit_multi_select_dict(node, value)
        return built and {name: each for name, each in built.items() if each is not _ABSENT}

    def without_nulls(self, place: str, objects: list[Any]) -> Iterator[tuple[int, object]]:
        """Yield the numbered objects of a result. Each is a copy: the result may repeat one."""
        for number, value in enumerate(objects, 1):
            try:
                path = self._find_null(value)
            except RecursionError:
                raise StatsFileError(f"{place.format(number)}{TOO_DEEP}") from None
            if path is not None:
                raise StatsFileError(
                    f"{place.format(number)}{show(path[1:]) if path else 'it'} is null. The file "
                    "has no such value: correct the mapping, or write {name: maybe(value)} where "
                    "it may be missing."
                )
            yield number, dict(value) if isinstance(value, dict) else value

    def _find_null(self, value: object) -> str | None:
        """Return the path of the first null in a value; None if there is none."""
        if value is None:
            return ""
        self.count(1 + 2 * _size(value))  # a member becomes a point, which takes memory
        if isinstance(value, dict):
            self.count(sum(map(_size, value)))
        elif not isinstance(value, list):
            return None
        for name, member in value.items() if isinstance(value, dict) else enumerate(value):
            is_number = isinstance(member, int | float)  # as most are: this is faster
            if not is_number and (path := self._find_null(member)) is not None:
                return f".{name}{path}"
        return None


def _size(value: object) -> int:
    """Return a value's size in elements."""
    if isinstance(value, str):
        return len(value) // STEP_CHARACTERS
    return len(value) if isinstance(value, list | dict) else 0
