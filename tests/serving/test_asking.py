"""What is said where somebody asks a server, and it is none."""

from __future__ import annotations

import socket
import threading

import pytest

from mlipcluster.errors import InputError
from mlipcluster.serving.asking import ask


def test_what_is_no_server_of_ours_is_named(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def play():
            with listener.accept()[0] as sock:
                sock.recv(1 << 16)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 2)

        thread = threading.Thread(target=play)
        thread.start()
        with pytest.raises(InputError, match=f"the server at {path} and this side do not understand each other"):
            ask("status", path)
        thread.join()
