import pytest

from kdedge.core.errors import KdedgeError
from kdedge.profile.address import parse_address


@pytest.mark.parametrize(
    ("text", "address", "typed"),
    [
        ("ssh://board", (None, "board", None, None), "ssh board"),
        ("ssh://Nano-2", (None, "Nano-2", None, None), "ssh Nano-2"),
        ("ssh://nano@10.0.0.7:2222/", ("nano", "10.0.0.7", "2222", None), "ssh -p 2222 nano@10.0.0.7"),
        ("ssh://nano@[fe80::1%eth0]:22", ("nano", "fe80::1%eth0", "22", None), "ssh -p 22 nano@fe80::1%eth0"),
        ("ssh://board?python=~/venv/bin/python", (None, "board", None, "~/venv/bin/python"), "ssh board"),
    ],
)
def test_address_names_what_ssh_needs(text, address, typed):
    parsed = parse_address(text)
    assert tuple(parsed) == address
    assert parsed.ssh == typed


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://-oProxyCommand=touch",
        "ssh://-l@board",
        "ssh://user:secret@board",
        "ssh://board/home/nano",
        "ssh://board:port",
        "ssh://board;reboot",
        "ssh://board?python=python3;reboot",
        "ssh://board?python=$(reboot)",
        "ssh://board?python=-c",
        "ssh://board?user=nano",
        "ssh://board\n",
    ],
)
def test_address_that_is_none_or_hides_a_command_is_refused(text):
    with pytest.raises(KdedgeError, match="expected ssh://"):
        parse_address(text)
