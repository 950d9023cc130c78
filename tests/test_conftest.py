import socket
from collections.abc import Callable

import pytest

Needs = Callable[[object, str], None]


def test_needs_skips_with_what_to_do(needs: Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDEDGE_STRICT", raising=False)
    needs("here", "set X")
    with pytest.raises(pytest.skip.Exception, match="set X"):
        needs(None, "set X")


def test_needs_fails_when_strict(needs: Needs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDEDGE_STRICT", "1")
    with pytest.raises(pytest.fail.Exception, match="set X"):
        needs("", "set X")


def test_no_network_stops_a_connection_before_it_is_made() -> None:
    with socket.socket() as client, pytest.raises(pytest.fail.Exception, match="connects to"):
        client.connect(("192.0.2.1", 80))


def test_no_network_lets_this_machine_talk_to_itself() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
