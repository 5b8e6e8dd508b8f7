"""Addresses, and the folders and sockets that they mean."""

from __future__ import annotations

import contextlib
import os
import stat
import threading

import pytest

from mlipcluster.errors import InputError, ServerGoneError
from mlipcluster.serving import address
from mlipcluster.serving.address import Address, bind, connect, default_path, parse


def test_what_is_an_address(tmp_path):
    assert parse("tls://node7:7777") == Address(host="node7", port=7777)
    assert parse("tls://[::1]:7/") == Address(host="::1", port=7)
    assert str(parse("tls://[::1]:7")) == "tls://[::1]:7"
    assert parse("unix:/run/me/s") == parse("unix:///run/me/s") == parse("/run/me/s") == Address("/run/me/s")
    assert parse("~/s").path == os.path.expanduser("~/s")
    assert parse().path == default_path()


@pytest.mark.parametrize("text", ["tcp://host:1", "http://host", "tls://host:99999", "", "ipc:///run/x.ipc"])
def test_what_is_none(text):
    with pytest.raises(InputError, match=r"no address of a server|ports end"):
        parse(text)


def test_a_path_that_the_kernel_does_not_take():
    with pytest.raises(InputError, match="takes 107; give a shorter one"):
        parse("/tmp/" + 110 * "x")


def test_the_default_follows_the_runtime_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_path() == str(tmp_path / "mlipcluster" / "serve.sock")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    assert default_path() == f"/tmp/mlipcluster-{os.getuid()}/serve.sock"


def test_a_folder_that_is_made_is_ones_own(tmp_path):
    with bind(str(tmp_path / "own" / "s")) as listener:
        assert stat.S_IMODE(os.stat(tmp_path / "own").st_mode) == 0o700
        assert os.listdir(tmp_path / "own") == ["s"]
        with connect(str(tmp_path / "own" / "s")):
            listener.accept()[0].close()


def test_a_folder_that_others_may_enter_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(InputError, match=r"not a folder that is yours alone \(mode 0700\)"):
        bind(str(tmp_path / "open" / "s"))


def test_a_link_to_a_folder_is_none(tmp_path):
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    with pytest.raises(InputError, match="yours alone"):
        bind(str(tmp_path / "link" / "s"))


@pytest.mark.skipif(os.getuid() != 0, reason="to have another user's folder takes root")
def test_another_users_folder_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    with pytest.raises(InputError, match="yours alone"):
        bind(str(tmp_path / "theirs" / "s"))


def test_two_at_one_path(tmp_path):
    path = str(tmp_path / "own" / "s")
    with bind(path), pytest.raises(InputError, match=r"listens at .* already.*mlipcluster status"):
        bind(path)


def test_what_a_killed_server_left_is_replaced(tmp_path):
    path = str(tmp_path / "own" / "s")
    bind(path).close()
    assert os.path.exists(path)
    with pytest.raises(ServerGoneError, match="no server answers"):
        connect(path)
    with bind(path), connect(path):
        pass


def test_what_is_no_socket_stays(tmp_path):
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "own" / "s").write_text("mine")
    with pytest.raises(InputError, match="no socket"):
        bind(str(tmp_path / "own" / "s"))
    assert (tmp_path / "own" / "s").read_text() == "mine"


def test_who_comes_second_does_not_take_the_place(tmp_path, monkeypatch):
    path = str(tmp_path / "own" / "s")
    monkeypatch.setattr(address.os.path, "lexists", lambda _: False)  # looked a moment before the other was there
    with bind(path), pytest.raises(InputError, match="cannot be listened at"):
        bind(path)


def test_a_path_as_long_as_the_kernel_takes(tmp_path):
    path = str(tmp_path / "own" / "s")
    path += (107 - len(path)) * "x"
    with bind(path), connect(path):
        assert os.listdir(tmp_path / "own") == [os.path.basename(path)]


def test_of_many_that_find_a_stale_socket_one_takes_its_place(tmp_path):
    path = str(tmp_path / "own" / "s")
    for _ in range(20):
        bind(path).close()
        found, barrier = [], threading.Barrier(8)

        def take(barrier=barrier, found=found):
            barrier.wait()
            with contextlib.suppress(InputError):
                found.append(bind(path))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 1
        connect(path).close()
        found[0].close()
