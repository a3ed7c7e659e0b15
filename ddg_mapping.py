"""A job's mapping, a JMESPath expression: a tool's document in, objects of the contract out.

It is imported only if a job has a mapping, so nobody else pays for jmespath at a cold start.
An evaluation counts what it looks at and builds, so that it always ends.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain
from typing import Any

import jmespath
from jmespath.exceptions import (
    ArityError,
    JMESPathError,
    JMESPathTypeError,
    VariadictArityError,
)
from jmespath.functions import TYPES_MAP, Functions, signature
from jmespath.visitor import Options, TreeInterpreter

from ddg_json_file import TOO_DEEP, RetryError, StatsFileError, kind, show

MAX_STEPS = 2_000_000  # per evaluation: nodes visited and values looked at
MAX_ELEMENTS = 2_500_000  # per evaluation: elements of all lists and objects it builds
MAX_LIST_ELEMENTS = 250_000  # per list that it builds
RESULT_ELEMENTS = 2  # for each member of the result, which becomes a point
STEP_ELEMENTS = 10  # that a function looks at in the time of a step
STEPS_A_CALL = 4  # a function call takes as long as this many visits
STEPS_A_LOOK = 20_000  # between two checks of the time, about 0.1 s
STRING_BYTES = 50  # of a string that count as an element
CHARACTER_BYTES = 4  # at most, of a string that isn't ASCII

Node = Mapping[str, Any]  # a node of a parsed expression
# What Python raises if jmespath doesn't check a value's type
_EVALUATION_ERRORS = (ArithmeticError, TypeError, ValueError)
_DEEP = ("to_string", "contains", "sort")  # they look into the elements of a list
# Their time doesn't depend on a value's size; numbers() counts by itself
_AT_ONCE = ("root", "maybe", "type", "length", "not_null", "to_array", "numbers")


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
        raise StatsFileError(
            f"{error.function_name}() in the mapping expects {taken}, got {found}. "
            "Correct the mapping, or the file."
        ) from None
    except StatsFileError:
        raise
    except RecursionError:
        raise StatsFileError(TOO_DEEP) from None
    except _EVALUATION_ERRORS:
        raise StatsFileError(
            "the mapping compares or computes with values that don't go together. "
            "Correct the mapping, or the file."
        ) from None
    if result is None or result == []:
        raise StatsFileError("the mapping finds nothing in the file. Correct the mapping.")
    if isinstance(result, list):
        place = "object {} of the mapping's result: "
        return place, interpreter.without_nulls(place, result)
    if not isinstance(result, dict):
        raise StatsFileError(
            f"the mapping makes {kind(result)} from the file. It must make an object, "
            "such as {rows: numbers.rows}, or a list of objects."
        )
    place = "the mapping's result: "
    return place, interpreter.without_nulls(place, [result])


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

    def call_function(self, name: str, arguments: list[Any]) -> Any:
        """Call a function, and count what it looks at and builds."""
        self._interpreter.count(STEPS_A_CALL)
        if name in _AT_ONCE:
            return super().call_function(name, arguments)
        for argument in arguments:
            self._interpreter.look_at(argument, deep=name in _DEEP)
        return self._interpreter.built(super().call_function(name, arguments))

    @signature()
    def _func_root(self) -> object:
        return self._interpreter.document

    @signature({"types": []})
    def _func_maybe(self, value: object) -> object:
        return value

    @signature({"types": ["object"]})
    def _func_items(self, value: dict[str, object]) -> list[list[object]]:
        self._interpreter.count(0, 2 * len(value))
        return [[key, member] for key, member in value.items()]

    @signature({"types": ["object"]})
    def _func_numbers(self, value: dict[str, object]) -> dict[str, object]:
        numbers: dict[str, object] = {}
        self._interpreter.look_at(value)
        for name, member in value.items():
            if type(member) is int or type(member) is float:
                numbers[name] = member
            elif isinstance(member, dict) and (inner := self._func_numbers(member)):
                numbers[name] = inner
        self._interpreter.count(0, len(numbers))
        return numbers

    @signature({"types": ["string"]}, {"types": ["array-string"]})
    def _func_join(self, separator: str, strings: list[str]) -> str:
        # Before building it: it may repeat a string of 10 MB many times
        characters = len(separator) * len(strings) + sum(map(len, strings))
        self._interpreter.count(0, CHARACTER_BYTES * characters // STRING_BYTES)
        return separator.join(strings)


class _Interpreter(TreeInterpreter):
    """One evaluation."""

    def __init__(self, document: object, deadline: float) -> None:
        super().__init__(Options(custom_functions=_Functions(self)))
        self.document = document
        self._deadline, self._next_look = deadline, MAX_STEPS
        self._steps, self._elements = MAX_STEPS, MAX_ELEMENTS

    def count(self, steps: int, elements: int = 0) -> None:
        """Count work, and refuse the file if it is too much."""
        self._steps -= steps
        self._elements -= elements
        if self._steps < 0 or self._elements < 0:
            raise _over_limits()
        if self._steps < self._next_look:
            self._next_look = self._steps - STEPS_A_LOOK
            if time.monotonic() > self._deadline:
                raise RetryError("no time was left to apply its mapping in this invocation")

    def look_at(self, value: object, *, deep: bool = False) -> None:
        """Count what a function looks at."""
        self.count(1 + _size(value) // STEP_ELEMENTS)
        if isinstance(value, list | dict) and deep:
            for member in value.values() if isinstance(value, dict) else value:
                self.look_at(member, deep=True)

    def built(self, value: Any) -> Any:
        """Count a value that has been built, and return it."""
        self.count(0, _size(value))
        if isinstance(value, list) and len(value) > MAX_LIST_ELEMENTS:
            raise _over_limits()
        return value

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
        self.look_at(value)
        if not isinstance(value, dict | list):
            return None
        names_or_elements = sum(map(_size, value))
        self.count(names_or_elements // STEP_ELEMENTS, RESULT_ELEMENTS * len(value))
        members: Iterable[tuple[object, object]]
        members = value.items() if isinstance(value, dict) else enumerate(value)
        for name, member in members:
            is_number = isinstance(member, int | float)  # as most are: this is faster
            if not is_number and (path := self._find_null(member)) is not None:
                return f".{name}{path}"
        return None

    def visit(self, node: Node, *arguments: Any) -> Any:
        """Visit a node of the expression. A string that it returns may be compared."""
        self.count(1)
        value = super().visit(node, *arguments)
        if isinstance(value, str):
            self.count(_size(value) // STEP_ELEMENTS)
        return value

    def visit_comparator(self, node: Node, value: object) -> object:
        """Compare two values; equality may look into both."""
        left, right = sides = [self.visit(child, value) for child in node["children"]]
        if type(left) is type(right) and _size(left) == _size(right):
            self.look_at(left, deep=True)
        literals = [{"type": "literal", "value": side} for side in sides]
        return super().visit_comparator({**node, "children": literals}, value)

    def visit_flatten(self, node: Node, value: object) -> list[object] | None:
        """Flatten a list, and count its elements before building it."""
        base = self.visit(node["children"][0], value)
        if not isinstance(base, list):
            return None
        self.look_at(base)
        if sum(len(each) if isinstance(each, list) else 1 for each in base) > MAX_LIST_ELEMENTS:
            raise _over_limits()
        parts = (each if isinstance(each, list) else [each] for each in base)
        flat: list[object] = self.built([*chain.from_iterable(parts)])
        return flat

    def visit_slice(self, node: Node, value: object) -> object:
        """Take a slice of a list."""
        return self.built(super().visit_slice(node, value))

    def visit_multi_select_dict(self, node: Node, value: object) -> dict[str, object] | None:
        """Build an object without the members whose maybe() is null."""
        result: dict[str, object] | None = super().visit_multi_select_dict(node, value)
        if result is None:
            return None
        return {
            pair["value"]: result[pair["value"]]
            for pair in node["children"]
            if result[pair["value"]] is not None or not _is_call(pair["children"][0], "maybe")
        }


def _over_limits() -> StatsFileError:
    return StatsFileError(
        f"the mapping takes over {MAX_STEPS:,} steps with this file, or builds over "
        f"{MAX_ELEMENTS:,} elements, or a list of over {MAX_LIST_ELEMENTS:,}. Write a simpler "
        "mapping, or split the file."
    )


def _is_call(node: Node, function: str) -> bool:
    return bool(node["type"] == "function_expression" and node["value"] == function)


def _size(value: object) -> int:
    """Return a value's size in elements."""
    if isinstance(value, str):
        return len(value) * (1 if value.isascii() else CHARACTER_BYTES) // STRING_BYTES
    return len(value) if isinstance(value, list | dict) else 0
