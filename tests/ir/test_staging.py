"""A folder is exchanged as a whole, by one writer at a time."""

import os
from threading import Thread

import pytest

from fxprune.errors import InputError
from fxprune.ir import staging
from fxprune.ir.staging import staged


def write(target, text):
    with staged(target) as part:
        (part / "file").write_text(text)


def test_a_folder_is_made_and_replaced(tmp_path):
    target = tmp_path / "deep" / "folder"
    write(target, "old")
    (target / "more").touch()
    write(target, "new")
    assert os.listdir(target.parent) == ["folder"] and os.listdir(target) == ["file"]
    assert (target / "file").read_text() == "new"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_one(tmp_path, error):
    write(tmp_path / "folder", "old")
    with pytest.raises(type(error)), staged(tmp_path / "folder") as part:
        (part / "file").write_text("half")
        raise error
    assert os.listdir(tmp_path) == ["folder"] and (tmp_path / "folder/file").read_text() == "old"


def test_a_failed_exchange_is_undone(tmp_path, monkeypatch):
    write(tmp_path / "folder", "old")
    rename = os.rename

    def fail(source, target):
        if str(source).endswith("-part"):
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "folder", "new")
    assert os.listdir(tmp_path) == ["folder"] and (tmp_path / "folder/file").read_text() == "old"


@pytest.mark.skipif(staging.fcntl is None, reason="no locks on folders here")
def test_a_second_writer_is_refused(tmp_path):
    target = tmp_path / "folder"
    with staged(target) as part:
        (part / "file").write_text("first")
        with pytest.raises(InputError, match="another one is writing .* wait for it, or name another folder"):
            write(target, "second")
        assert (part / "file").read_text() == "first"
    assert (target / "file").read_text() == "first"


def test_writers_side_by_side(tmp_path):
    """Each is done or refused, and what lies there in the end is one writer's, whole."""
    def work(name):
        for _ in range(20):
            try:
                with staged(tmp_path / "folder") as part:
                    for file in "abc":
                        (part / file).write_text(name)
                done.append(name)
            except InputError:
                pass

    done = []
    threads = [Thread(target=work, args=(str(k),)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done and os.listdir(tmp_path) == ["folder"]
    assert len({(tmp_path / "folder" / file).read_text() for file in "abc"}) == 1
