import os
import signal
import threading
from pathlib import Path

import pytest
from tree import Programs, plant

from kdedge.core.errors import KdedgeError, MissingTool, Unstable
from kdedge.profile.clocks import controlled

MODES = """\
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_5 1
TPC_POWER_GATING TPC_PG_MASK 0
GPU MAX_FREQ 612000000
< POWER_MODEL ID=1 NAME=25W >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_5 1
TPC_POWER_GATING TPC_PG_MASK 0
GPU MAX_FREQ 918000000
< POWER_MODEL ID=2 NAME=7W >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_5 0
TPC_POWER_GATING TPC_PG_MASK 0
< POWER_MODEL ID=3 NAME=MAXN_SUPER >
CPU_ONLINE CORE_0 1
CPU_ONLINE CORE_5 1
TPC_POWER_GATING TPC_PG_MASK 252
"""
NVPMODEL = """\
case "$1" in
-q) read -r mode < "$LOG.mode"
    case "$mode" in 0) name=15W;; 1) name=25W;; *) name=elsewhere;; esac
    printf 'NV Power Mode: %s\\n%s\\n' "$name" "$mode";;
-m) echo "$2" > "$LOG.mode";;
esac"""
STUCK = NVPMODEL.replace('echo "$2" > "$LOG.mode"', ":")
SMI = 'case "$*" in *--query-gpu*) echo 1980;; esac'
GPU, CPU = "sys/class/devfreq/17000000.gpu", "sys/devices/system/cpu/cpu0/cpufreq"


class Board:
    """A Jetson in mode 15W with clocks that are free, and root on it."""

    def __init__(self, folder, monkeypatch):
        self.root = plant(folder / "root", {"etc/nvpmodel.conf": MODES})
        self.programs = Programs(folder, monkeypatch)
        self.mode = Path(f"{self.programs.log}.mode")
        self.mode.write_text("0\n")
        monkeypatch.setattr("kdedge.profile.clocks.os.geteuid", lambda: 0)
        monkeypatch.setattr("tempfile.tempdir", str(folder / "temporary"))
        (folder / "temporary").mkdir()
        self.temporary = folder / "temporary"

    @property
    def calls(self):
        """With the folder of what was stored left out."""
        return [" ".join(Path(word).name for word in call.split()) for call in self.programs.calls]

    def controlled(self, **wanted):
        return controlled(root=self.root, **wanted)


@pytest.fixture
def board(tmp_path, monkeypatch):
    return Board(tmp_path, monkeypatch)


@pytest.fixture
def orin(board):
    board.programs.add("nvpmodel", NVPMODEL)
    board.programs.add("jetson_clocks")
    return board


SET = ["nvpmodel -q", "nvpmodel -m 1", "nvpmodel -q"]
LOCK = ["jetson_clocks --store stored.conf", "jetson_clocks"]
UNLOCK = ["jetson_clocks --restore stored.conf"]
UNSET = ["nvpmodel -m 0", "nvpmodel -q"]
EVERYTHING = SET + LOCK + UNLOCK + UNSET


def test_nothing_is_called_when_nothing_is_asked_for(orin):
    with orin.controlled():
        pass
    assert orin.calls == []


def test_mode_and_clocks_are_set_and_put_back_in_reverse(orin):
    with orin.controlled(lock=True, mode="25W"):
        assert orin.mode.read_text() == "1\n"
    assert orin.calls == EVERYTHING
    assert orin.mode.read_text() == "0\n"
    assert list(orin.temporary.iterdir()) == []


def test_everything_is_put_back_when_the_block_fails(orin):
    with pytest.raises(ZeroDivisionError), orin.controlled(lock=True, mode="25W"):
        raise ZeroDivisionError
    assert orin.calls == EVERYTHING


@pytest.mark.parametrize(
    ("number", "ending"),
    [(signal.SIGTERM, SystemExit), (signal.SIGHUP, SystemExit), (signal.SIGINT, KeyboardInterrupt)],
)
def test_everything_is_put_back_on_a_signal(orin, number, ending):
    before = signal.getsignal(number)
    with pytest.raises(ending) as raised, orin.controlled(lock=True, mode="25W"):
        signal.raise_signal(number)
    assert orin.calls == EVERYTHING
    assert signal.getsignal(number) is before
    assert ending is KeyboardInterrupt or raised.value.code == 128 + number


def test_second_signal_does_not_stop_what_puts_things_back(orin):
    orin.programs.add("jetson_clocks", f'case "$1" in --restore) kill -TERM {os.getpid()};; esac')
    with pytest.raises(SystemExit), orin.controlled(lock=True, mode="25W"):
        signal.raise_signal(signal.SIGTERM)
    assert orin.calls == EVERYTHING


def test_signal_while_things_are_put_back_waits_until_they_are(orin):
    orin.programs.add("jetson_clocks", f'case "$1" in --restore) kill -TERM {os.getpid()};; esac')
    with pytest.raises(SystemExit), orin.controlled(lock=True, mode="25W"):
        pass
    assert orin.calls == EVERYTHING


def test_handlers_of_others_stay(orin):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("theirs"))
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with orin.controlled(lock=True):
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, ignored)
    assert heard == ["theirs"]


def test_control_from_another_thread_is_possible(orin):
    failed = []

    def work():
        try:
            with orin.controlled(mode="25W"):
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert (failed, orin.calls) == ([], SET + UNSET)


def test_mode_that_is_set_already_is_left_alone(orin, monkeypatch):
    monkeypatch.setattr("kdedge.profile.clocks.os.geteuid", lambda: 1000)
    with orin.controlled(mode="15W"):
        pass
    assert orin.calls == ["nvpmodel -q"]


def test_unknown_mode_is_answered_with_the_nearest(orin):
    with pytest.raises(KdedgeError, match=r"no such mode, did you mean '25W'\?"), orin.controlled(mode="25"):
        pass
    assert orin.calls == []


@pytest.mark.parametrize(
    ("mode", "change"),
    [("7W", r"CPU_ONLINE CORE_5: 1 -> 0"), ("MAXN_SUPER", r"TPC_POWER_GATING TPC_PG_MASK: 0 -> 252")],
)
def test_mode_that_wants_a_reboot_is_refused_before_anything_changes(orin, mode, change):
    with pytest.raises(KdedgeError, match=f"from 15W it wants a reboot .{change}."), orin.controlled(mode=mode):
        pass
    assert orin.calls == ["nvpmodel -q"]


def test_current_mode_that_the_configuration_does_not_know_is_refused(orin):
    orin.mode.write_text("9\n")
    with pytest.raises(KdedgeError, match="elsewhere, is not in"), orin.controlled(mode="25W"):
        pass
    assert orin.calls == ["nvpmodel -q"]


def test_mode_is_read_back(orin):
    orin.programs.add("nvpmodel", STUCK)
    with pytest.raises(Unstable, match="nvpmodel went well, but the mode is 15W"), orin.controlled(mode="25W"):
        pytest.fail("the block must not run")
    assert orin.calls == SET + UNSET


def test_mode_that_fails_to_be_set_is_put_back(orin):
    orin.programs.add("nvpmodel", NVPMODEL.replace("-m)", "-m) [ $2 = 0 ] || { echo NVPM ERROR: no >&2; exit 7; };"))
    with pytest.raises(KdedgeError, match="status 7: NVPM ERROR: no") as raised, orin.controlled(mode="25W"):
        pytest.fail("the block must not run")
    assert raised.value.fix == "sudo nvpmodel -m 1"
    assert orin.calls == ["nvpmodel -q", "nvpmodel -m 1", *UNSET]


def test_mode_that_cannot_be_put_back_says_how(orin):
    with pytest.raises(Unstable, match="putting back power mode 15W") as raised, orin.controlled(mode="25W"):
        orin.programs.add("nvpmodel", STUCK)
    assert raised.value.fix == "sudo nvpmodel -m 0"


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ({"mode": "25W"}, "sudo nvpmodel -m 1   (then without --power-mode 25W)"),
        ({"lock": True}, "sudo jetson_clocks   (then without --lock-clocks)"),
    ],
)
def test_user_who_is_not_root_is_told_the_line_to_type(orin, monkeypatch, wanted, line):
    monkeypatch.setattr("kdedge.profile.clocks.os.geteuid", lambda: 1000)
    with pytest.raises(KdedgeError, match="needs root, and kdedge does not call sudo") as raised:
        orin.controlled(**wanted).__enter__()
    assert raised.value.fix == line
    assert not [call for call in orin.calls if call != "nvpmodel -q"]


@pytest.mark.parametrize("wanted", [{"mode": "25W"}, {"lock": True}])
def test_machine_without_the_tool_is_told_so(board, wanted):
    with pytest.raises(MissingTool), board.controlled(**wanted):
        pass


def test_clocks_are_read_back(orin):
    clocks = {f"{GPU}/cur_freq": 918, f"{GPU}/min_freq": 306, f"{GPU}/max_freq": 918}
    plant(orin.root, {**clocks, f"{CPU}/scaling_min_freq": 1510, f"{CPU}/scaling_max_freq": 1510})
    with pytest.raises(Unstable, match="clocks are not pinned"), orin.controlled(lock=True):
        pytest.fail("the block must not run")
    assert orin.calls == LOCK + UNLOCK


def test_clocks_that_cannot_be_put_back_keep_what_was_stored(orin):
    orin.programs.add("jetson_clocks", 'case "$1" in --store) echo stored > "$2";; --restore) exit 1;; esac')
    with pytest.raises(KdedgeError, match="clocks could not be put back") as raised, orin.controlled(lock=True):
        pass
    (stored,) = orin.temporary.glob("*/stored.conf")
    assert raised.value.fix == f"sudo jetson_clocks --restore {stored}"


def test_clocks_that_cannot_be_stored_are_not_pinned(orin):
    orin.programs.add("jetson_clocks", "exit 1")
    with pytest.raises(KdedgeError, match="status 1: it said nothing"), orin.controlled(lock=True):
        pass
    assert orin.calls == LOCK[:1]
    assert list(orin.temporary.iterdir()) == []


def test_discrete_gpu_is_pinned_to_its_highest_clock(board, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    board.programs.add("nvidia-smi", SMI)
    with board.controlled(lock=True):
        pass
    assert board.calls == [
        "nvidia-smi -i 1 --query-gpu=clocks.max.graphics --format=csv,noheader,nounits",
        "nvidia-smi -i 1 -lgc 1980,1980",
        "nvidia-smi -i 1 -rgc",
    ]


def test_discrete_gpu_that_does_not_tell_its_clock_is_not_pinned(board):
    board.programs.add("nvidia-smi", "echo '[N/A]'")
    with pytest.raises(KdedgeError, match="does not say how fast"), board.controlled(lock=True):
        pass
    assert len(board.calls) == 1


def test_tool_that_asks_gets_no_answer_and_tool_that_hangs_is_ended(orin, monkeypatch):
    monkeypatch.setattr("kdedge.profile.clocks.SECONDS", 0.05)
    orin.programs.add("jetson_clocks", "read -r answer && exit 3; while :; do :; done")
    with pytest.raises(KdedgeError, match=r"not done after 0\.05 s"), orin.controlled(lock=True):
        pass
