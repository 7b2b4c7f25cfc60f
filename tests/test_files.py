"""Plain files only, to a limit; nothing written through a link."""

import os

import pytest

from ppo_cli.files import NotPlainError, open_own, read_bytes, read_text, write_whole


def test_what_is_no_plain_file_is_neither_read_nor_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match="plain file|directory"):
            read_bytes(path)


def test_a_file_is_read_to_a_limit(tmp_path):
    (tmp_path / "long").write_bytes(b"x" * 11)
    assert read_text(tmp_path / "long", 11) == "x" * 11
    with pytest.raises(NotPlainError, match="longer than 10 bytes"):
        read_bytes(tmp_path / "long", 10)


def test_nothing_is_written_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("log", "table", ".table.tmp", "new"):
        (tmp_path / name).symlink_to(victim if name != "new" else tmp_path / "not_there")
    for name in ("log", "new"):
        with pytest.raises(NotPlainError, match="is a link"):
            open_own(tmp_path / name)
    write_whole(tmp_path / "table", "µ\n")
    assert (tmp_path / "table").read_bytes() == b"\xc2\xb5\n"
    assert not (tmp_path / "table").is_symlink()
    assert victim.read_text() == "mine"
    assert not (tmp_path / "not_there").exists()
    assert not (tmp_path / ".table.tmp").exists()


def test_a_file_that_is_to_be_new_is(tmp_path):
    with open_own(tmp_path / "file", new=True) as file:
        file.write(b"abc")
    with open_own(tmp_path / "file") as file:
        assert file.read() == b"abc"
    with pytest.raises(FileExistsError):
        open_own(tmp_path / "file", new=True)
