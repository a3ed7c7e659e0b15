"""Interrupt a command at each of its steps."""

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
    """Interrupt a command at its n-th step: before or after a call of AWS or a POST to Datadog.

    dead: every later step fails too, so that nothing is cleaned up, as after a kill.
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
    """Run a command once for each of its steps, and interrupt it there; return their number."""
    shared = cache(Aws)  # to make its clients takes longer than all that they do
    for step in itertools.count():
        prepare()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ddg_ops.stack.Aws", shared)
            interrupt_at(step, patch, dead=dead)
            result = command()
        check()
        if result.code != 130:
            assert result.code == 0, result
            gc.collect()  # close the sockets of interrupted requests here, not in another test
            return step
        assert result.err.endswith(
            "ddg-ops: interrupted. Nothing is lost: run the command again.\n"
        )
    raise AssertionError
