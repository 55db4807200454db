"""What `localhost` in an address means, inside a container and outside."""

from pathlib import Path

from receiver.outbound.container import localhost

HERE = "127.0.0.1"
NOWHERE = "a" + ".a" * 130
"""Longer than a name may be, so nobody is asked for it."""


def test_outside_of_a_container_localhost_is_itself(tmp_path: Path) -> None:
    assert localhost((tmp_path / "mark",), HERE) == "localhost"


def test_inside_of_a_container_it_is_the_host_around_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()

    assert localhost((tmp_path / "other", mark), HERE) == HERE


def test_a_container_whose_host_has_no_name_keeps_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    mark.touch()

    assert localhost((mark,), NOWHERE) == "localhost"
