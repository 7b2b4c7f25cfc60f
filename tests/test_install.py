""".ci/install.py, by which `make` installs: what it tells of pip's work, and that a failure is one."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parent.parent / ".ci" / "install.py"
SPEC = importlib.util.spec_from_file_location("install", FILE)
install = importlib.util.module_from_spec(SPEC)
sys.modules["install"] = install  # where its dataclass looks for its annotations
SPEC.loader.exec_module(install)

# What pip 23.0 and 25.3 print.
OLD = """\
Collecting torch>=2.8
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (184.6 MB)
Collecting antlr4-python3-runtime==4.9.*
  Downloading antlr4-python3-runtime-4.9.3.tar.gz (117 kB)
  Preparing metadata (setup.py): started
Installing collected packages: mpmath, torch
"""
NEW = """\
Collecting torch>=2.8 (from ppo-cli==0.1.0)
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (30 kB)
  Using cached imageio_ffmpeg-0.8.1-py3-none-manylinux_2_28_x86_64.whl (68.0 MB)
Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (184.6 MB)
"""


def heard(text):
    state = install.Install()
    for line in text.splitlines():
        state.hear(line)
    return state


def test_packages_are_counted_with_their_sizes_as_old_and_new_pip_tell_them():
    old, new = heard(OLD), heard(NEW)
    assert (old.total(), old.doing) == ("2 packages, 185 MB", "installing them")
    assert (new.total(), new.doing) == ("2 packages, 253 MB", "torch 2.13.0")


def test_a_package_file_that_lies_here_has_the_size_that_it_has(tmp_path):
    wheel = tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"
    wheel.write_bytes(b"0" * 3_000_000)
    assert heard(f"Processing {wheel}").total() == "1 package, 3 MB"


def test_of_a_large_file_it_is_said_how_much_there_is(tmp_path):
    (tmp_path / "pip-unpack-1").mkdir()
    (tmp_path / "pip-unpack-1" / "old-1.0-py3-none-any.whl").write_bytes(b"0" * 5_000_000)
    assert install.arrived(tmp_path, heard(NEW).file) == ""
    (tmp_path / "pip-unpack-1" / heard(NEW).file).write_bytes(b"0" * 2_000_000)
    assert install.arrived(tmp_path, heard(NEW).file) == ", 2 MB of it here"
    assert install.arrived(tmp_path, heard(OLD).file) == ""


def test_what_pip_says_of_its_failure_is_printed_and_the_status_is_pips():
    outcome = subprocess.run(
        [sys.executable, FILE, "--no-index", "no-such-package==1"], capture_output=True, text=True
    )
    assert outcome.returncode == 1
    assert "No matching distribution found for no-such-package==1" in outcome.stderr
    assert "done" not in outcome.stdout


@pytest.mark.parametrize("line", ["", "torch", "Downloading nothing", "Processing ./folder"])
def test_other_lines_count_no_package(line):
    assert heard(line).sizes == {}
