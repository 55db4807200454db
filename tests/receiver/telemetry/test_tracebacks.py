"""An error as frames and types: where it was raised, and not a word of what it says."""

import asyncio
from io import StringIO
from typing import Any, NoReturn

import pytest

from receiver.settings import load_settings
from receiver.telemetry.logs import log_unhandled
from receiver.telemetry.tracebacks import DEPTH, FIRST_FRAMES, LAST_FRAMES, format_error, location_of
from tests.receiver.test_secrets import lines  # noqa: F401

VALUE = "+5511999990000"


def fail(value: str = VALUE) -> NoReturn:
    known: dict[str, str] = {}
    error = KeyError(value)
    error.add_note(value)
    known["phone"] = value
    raise error


def raised(work: Any = fail) -> Exception:
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


def test_frames_name_file_line_function_and_source() -> None:
    error = raised()

    formatted = format_error(error)

    assert 'File "tests/receiver/telemetry/test_tracebacks.py", line ' in formatted
    assert ", in fail\n    raise error\n" in formatted
    assert formatted.splitlines()[-1] == "KeyError"
    assert VALUE not in formatted
    assert location_of(error).startswith("tests/receiver/telemetry/test_tracebacks.py:")


def test_frames_of_the_product_name_their_room() -> None:
    error = raised(lambda: load_settings({"ZAPWATCH_PORT": "no"}))

    assert 'File "receiver/settings.py", line ' in format_error(error)
    assert location_of(error).startswith("receiver/settings.py:")


def test_type_of_another_package_is_named_with_its_module() -> None:
    assert format_error(asyncio.IncompleteReadError(b"", 1)).splitlines()[-1] == (
        "asyncio.exceptions.IncompleteReadError"
    )


def test_cause_and_context_are_shown_and_a_suppressed_one_is_not() -> None:
    def caused() -> None:
        try:
            fail()
        except KeyError as error:
            raise ValueError(VALUE) from error

    def during() -> None:
        try:
            fail()
        except KeyError:
            raise ValueError(VALUE)  # noqa: B904

    def alone() -> None:
        try:
            fail()
        except KeyError:
            raise ValueError(VALUE) from None

    formatted = [format_error(raised(work)) for work in (caused, during, alone)]

    assert ["KeyError" in text for text in formatted] == [True, True, False]
    assert "direct cause" in formatted[0]
    assert "another exception occurred" in formatted[1]
    assert all(text.endswith("ValueError") and VALUE not in text for text in formatted)


def test_each_error_of_a_group_is_shown() -> None:
    def grouped() -> None:
        raise ExceptionGroup(VALUE, [raised(), ExceptionGroup(VALUE, [TypeError(VALUE)])])

    formatted = format_error(raised(grouped))

    for kind in ("ExceptionGroup", "  | KeyError", "  |   | TypeError"):
        assert f"\n{kind}" in formatted
    assert VALUE not in formatted


def test_endless_recursion_and_endless_causes_are_short() -> None:
    def recurse() -> None:
        recurse()

    circular = raised()
    circular.__cause__ = ValueError(VALUE)
    circular.__cause__.__cause__ = circular

    deep = format_error(raised(recurse)).splitlines()

    assert len(deep) <= 2 * (FIRST_FRAMES + LAST_FRAMES) + 5
    assert any("more frames]" in line for line in deep)
    assert len(format_error(circular).split("direct cause")) <= DEPTH + 1


async def test_error_that_no_task_handles_is_logged_without_its_message(lines: StringIO) -> None:  # noqa: F811
    async def work(value: str) -> None:
        fail(value)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_unhandled)
    task = loop.create_task(work(VALUE), name=VALUE)
    await asyncio.wait([task])

    del task

    assert "Task exception was never retrieved" in lines.getvalue()
    assert ", in fail" in lines.getvalue()
    assert VALUE not in lines.getvalue()
