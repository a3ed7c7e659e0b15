"""Commands that are interrupted at each of their steps."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from botocore.client import BaseClient

from ddg_ops.aws import Aws
from ddg_series_api import SeriesApi
from tests.operated import Result

CUT_OFF = "ignore::pytest.PytestUnraisableExceptionWarning"  # of sockets, see every_interruption


def interrupt_at(step: int, patch: pytest.MonkeyPatch, *, dead: bool) -> None:
    """End a command at its n-th step: before or after a call of AWS or a POST to Datadog.

    With `dead` every later step fails too, so that nothing is tidied up: as if it was killed.
    """
    count = itertools.count()

    def pause() -> None:
        number = next(count)
        if number == step or (dead and number > step):
            raise KeyboardInterrupt

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def with_steps(*arguments: Any, **options: Any) -> Any:
            pause()
            result = function(*arguments, **options)
            pause()
            return result

        return with_steps

    clients: Any = BaseClient
    patch.setattr(clients, "_make_api_call", around(clients._make_api_call))
    api: Any = SeriesApi
    patch.setattr(api, "post", around(api.post))


def every_interruption(
    command: Callable[[], Result],
    prepare: Callable[[], None],
    check: Callable[[], None],
    *,
    dead: bool,
) -> int:
    """Interrupt a command at each of its steps, each time anew; return how many there were."""
    shared = cache(Aws)  # making its clients anew takes longer than all that they do
    for step in itertools.count():
        prepare()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ddg_ops.stack.Aws", shared)
            interrupt_at(step, patch, dead=dead)
            result = command()
        check()
        if result.code != 130:
            assert result.code == 0, result
            gc.collect()  # the sockets of requests that were cut off, here and not in another test
            return step
        assert result.err.endswith(
            "ddg-ops: interrupted. Nothing is lost: run the command again.\n"
        )
    raise AssertionError
