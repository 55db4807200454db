"""What the log says when a process ends because of an error."""

from io import StringIO

from receiver.service.lifecycle import LoopEnded
from receiver.service.server import run
from tests.receiver.test_secrets import lines  # noqa: F401


def test_reason_of_our_own_is_logged_and_the_words_of_another_error_are_not(
    lines: StringIO,  # noqa: F811
) -> None:
    phone = "+5511999990000"

    async def serve() -> None:
        inner = ExceptionGroup("tasks", [LoopEnded("the embedded PostgreSQL ended with 1"), KeyError(phone)])
        raise ExceptionGroup("tasks", [inner])

    assert run(serve()) == 1

    assert "the embedded PostgreSQL ended with 1" in lines.getvalue()
    assert ", in test_reason_of_our_own_is_logged_and_the_words_of_another_error_are_not" in lines.getvalue()
    assert phone not in lines.getvalue()
