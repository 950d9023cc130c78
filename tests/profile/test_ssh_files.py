"""What a device may make of this machine's files: nothing beyond the folders that were asked for."""

import pytest

from kdedge.core.errors import KdedgeError
from kdedge.profile import ssh
from kdedge.profile.address import parse_address


class Device:
    """Answers as it likes, and gives whatever is asked for."""

    lost = False

    def __init__(self, made):
        self.made, self.given = made, []

    def ask(self, order, limit):
        return {"made": self.made, "status": 0, "stdout": "{}", "stderr": ""}

    def get(self, name, file):
        self.given.append(file)

    def close(self):
        pass


@pytest.mark.parametrize("name", ["../../.bashrc", "a/../../b", "/etc/passwd"])
def test_device_cannot_write_beside_the_folder_that_was_asked_for(name, tmp_path, monkeypatch):
    device = Device(["out-0.kdedge/y.npz", f"out-0.kdedge/{name}"])
    monkeypatch.setattr(ssh, "Connection", lambda *_: device)
    target = ssh.SshTarget(parse_address("ssh://board"))
    with pytest.raises(KdedgeError, match=r"from board: its name leads out of its folder"):
        target.run({"mode": "predict", "outputs": str(tmp_path / "y.npz")})
    assert device.given == [tmp_path / "y.npz"]
