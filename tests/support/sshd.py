"""An OpenSSH server on a port of this machine, with keys and a configuration of its own; no root is needed."""

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

SSHD = os.environ.get("KDEDGE_SSHD") or shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
HOW = "set KDEDGE_SSHD to the full path of OpenSSH's sshd, or install it: sudo apt-get install openssh-server"
PRIVILEGE_SEPARATION = Path("/run/sshd")
"""A folder that the server, run by root, wants to be there."""


class Server:
    """A "device": its cache is `folder`/device, and `ssh -F folder/config device` logs in as the current user."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder, self.cache = folder, folder / "device"
        self.config, self.known_hosts = folder / "config", folder / "known_hosts"
        for name in ("host", "user"):
            make_key(folder / name)
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        (folder / "sshd_config").write_text("\n".join([*self._sshd_config(), *settings]) + "\n")
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(exist_ok=True)
        self.port, self.process = self._start()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        self.config.write_text("\n".join(self._ssh_config()) + "\n")

    def _sshd_config(self) -> list[str]:
        return [
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder}/host",
            f"AuthorizedKeysFile {self.folder}/authorized",
            f"SetEnv KDEDGE_CACHE={self.cache} OMP_NUM_THREADS=1",
            "AuthenticationMethods publickey",
            "PermitRootLogin yes",
            "StrictModes no",  # the tests' folder is below /tmp, which everybody may write to
            "UsePAM no",
            "PidFile none",
        ]

    def _ssh_config(self) -> list[str]:
        return [
            "Host device",
            "HostName 127.0.0.1",
            f"Port {self.port}",
            f"User {getpass.getuser()}",
            f"IdentityFile {self.folder}/user",
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f"UserKnownHostsFile {self.known_hosts}",
            "GlobalKnownHostsFile none",
            "PreferredAuthentications publickey",
        ]

    def _start(self) -> tuple[int, "subprocess.Popen[str]"]:
        for _ in range(10):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = int(free.getsockname()[1])
            command = [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config"), "-p", str(port)]
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if line.startswith("Server listening"):
                    return port, process
            if process.wait() and "Address already in use" not in "".join(said):
                break
        raise RuntimeError("".join(said))

    @property
    def command(self) -> str:
        """How SSH is called, for KDEDGE_SSH_COMMAND."""
        return shlex.join(["ssh", "-F", str(self.config)])

    def url(self, python: str = sys.executable) -> str:
        return f"ssh://device?python={python}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
