"""Why an ssh process ended, from its exit status and its words."""

import re

from kdedge.core.errors import KdedgeError, MissingTool
from kdedge.profile.address import Address

NOT_FOUND = 127
COMPARE = "compare the fingerprint with the device's own (there: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)"
CHANGED = re.compile("HOST IDENTIFICATION HAS CHANGED")
UNKNOWN = re.compile("Host key verification failed|host key is known for")
REFUSED = re.compile("Permission denied|Too many authentication failures")


def explain(address: Address, status: int, said: str, begun: bool) -> KdedgeError:
    """The error to raise; `begun`: whether the device had answered before."""
    words = said.strip().rpartition("\n")[2].strip() or f"ssh ended with status {status}"
    if begun:
        return KdedgeError(f"the connection to {address.host} was lost", words, "nothing is left running there")
    if status == NOT_FOUND:
        return _no_python(address)
    if CHANGED.search(said):
        return KdedgeError(
            f"the host key of {address.host} is another one than before",
            "it was installed anew, or another machine answers in its place",
            f"{COMPARE}, and only then: ssh-keygen -R {address.host}",
        )
    if UNKNOWN.search(said):
        what, why = f"the host key of {address.host} is not known", "so that another machine could answer in its place"
        return KdedgeError(what, why, f"{address.ssh}   (once; {COMPARE})")
    if REFUSED.search(said):
        fix = " ".join(["ssh-copy-id", *address.arguments])
        return KdedgeError(f"{address.host} refuses every key of this user", words, fix)
    return MissingTool(
        f"{address.host} cannot be reached", words, f"{address.ssh} true   (has to end well, and ask nothing)"
    )


def _no_python(address: Address) -> KdedgeError:
    if address.python:
        what, fix = f"{address.python} on {address.host}", f"{address.ssh} {address.python} --version"
        return MissingTool(what, "it is no Python of 3.8 or newer", fix)
    fix = f"{address.ssh} -t sudo apt-get install python3   (Ubuntu 18.04: python3.8)"
    return MissingTool(f"{address.host} has no Python of 3.8 or newer", "the agent needs one", fix)
