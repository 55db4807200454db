"""The plugin that lets no test be left out."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPED = "import pytest\n@pytest.mark.skip\ndef test_left(): pass\n"
SKIPPED_WITHIN = "import pytest\ndef test_left(): pytest.skip('later')\n"
SKIPPED_MODULE = "import pytest\npytest.skip('all', allow_module_level=True)\n"
EXPECTED = "import pytest\n@pytest.mark.xfail\ndef test_left(): assert False\n"
UNEXPECTED = "import pytest\n@pytest.mark.xfail(strict=False)\ndef test_left(): pass\n"
PASSING = "def test_left(): pass\n"


def run(folder: Path, text: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-p", "tests.no_skips", "--rootdir", str(folder), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("text", [SKIPPED, SKIPPED_WITHIN, SKIPPED_MODULE, EXPECTED, UNEXPECTED])
def test_a_test_that_is_left_out_fails_the_session_by_name(tmp_path: Path, text: str) -> None:
    code, output = run(tmp_path, text)

    assert code == pytest.ExitCode.TESTS_FAILED
    assert "left out, which counts as a failure here: " in output
    assert "test_it.py" in output.partition("failure here: ")[2]


def test_a_session_that_leaves_nothing_out_passes(tmp_path: Path) -> None:
    assert run(tmp_path, PASSING)[0] == pytest.ExitCode.OK
