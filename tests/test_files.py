"""Plain files only, to a limit; nothing written through a link."""

import os

import pytest

from ppo_cli.files import (
    NotPlainError,
    make_folder,
    open_own,
    printable,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
    write_whole,
)


def test_what_is_no_plain_file_is_neither_read_nor_waited_for(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match=r"plain file|directory"):
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


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "[" * 100_000, "9" * 5_000, "{", "", b"\xff", '{"a": {"b": 1, "b": 1}}']
)
def test_what_is_no_plain_json_is_a_value_error(tmp_path, text):
    (tmp_path / "file").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError):
        read_json(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x [1]\nb: *x\n", "alias"),
        ("&x a: *x\n", "alias"),
        ("[" * 100_000, "deep"),
        ("a: [\n", "expected"),
        ("a: \x00\n", "special characters|control characters"),
    ],
)
def test_what_is_no_plain_yaml_is_a_value_error(tmp_path, text, said):
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_yaml(tmp_path / "file")


def test_a_folder_that_leads_elsewhere_or_has_what_does_is_refused(tmp_path):
    make_folder(tmp_path / "own")
    (tmp_path / "own" / "file").touch()
    make_folder(tmp_path / "own")
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("link", "gone"):
        with pytest.raises(NotPlainError, match="is a link"):
            make_folder(tmp_path / name)
    (tmp_path / "own" / "train.log").symlink_to(tmp_path / "victim")
    with pytest.raises(NotPlainError, match=r"train\.log is a link"):
        make_folder(tmp_path / "own")
    assert not (tmp_path / "victim").exists()


def test_what_steers_a_terminal_is_an_escape():
    assert printable("clip_ratio=0.1, π") == "clip_ratio=0.1, π"
    assert printable("\x1b[2J\n\u202e\udcff") == r"\x1b[2J\n\u202e\udcff"
