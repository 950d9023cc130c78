import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdedge.core.errors import KdedgeError
from kdedge.core.rundir import (
    RunDir,
    atomic_path,
    cache_folder,
    check_disk,
    digest,
    newest_run,
    sha256_file,
    write_json,
)

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: str | Path) -> "subprocess.Popen[str]":
    """A child that runs `code` and can be spoken to."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


HALF_A_WRITE = """
import sys
from pathlib import Path
from kdedge.core.rundir import atomic_path
with atomic_path(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("written", flush=True)
    sys.stdin.read()
"""


def test_atomic_path_leaves_the_old_file_when_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("whole")
    with python(HALF_A_WRITE, path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "written\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert path.read_text() == "whole"
    with atomic_path(path) as temporary:  # what the dead process left does not stand in the way
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_atomic_path_leaves_nothing_when_the_block_fails(tmp_path: Path) -> None:
    def fail_halfway() -> None:
        with atomic_path(tmp_path / "sub" / "a.onnx") as temporary:
            assert temporary.suffix == ".onnx"
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail_halfway()
    assert list((tmp_path / "sub").iterdir()) == []


def test_atomic_path_obeys_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


HOLD_THE_LOCK = """
import sys
from pathlib import Path
from kdedge.core.rundir import RunDir
with RunDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_keeps_a_second_process_out_until_the_first_ends(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    with python(HOLD_THE_LOCK, run.path) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        holder = re.escape(f"{run.path} is in use: process {child.pid} works in it")
        with pytest.raises(KdedgeError, match=holder), run.locked():
            pytest.fail("two processes hold one run")
        child.kill()
        child.wait()
    with run.locked():
        assert (run / "lock").read_text() == str(os.getpid())


def test_command_is_fresh_while_its_key_and_its_files_are_unchanged(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert not run.fresh("export", "key")
    (tmp_path / "student.onnx").write_bytes(b"model")
    run.record("export", "key", ["student.onnx"])
    assert run.fresh("export", "key")
    assert not run.fresh("export", "other key")
    assert not run.fresh("profile", "key")

    (tmp_path / "student.onnx").write_bytes(b"MODEL")
    assert not run.fresh("export", "key")
    (tmp_path / "student.onnx").unlink()
    assert not run.fresh("export", "key")


def test_record_keeps_what_other_commands_wrote_and_forgets_what_is_gone(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("student.safetensors", "fp32.onnx", "int8.onnx"):
        (tmp_path / name).write_text(name)
    run.record("distill", "a", ["student.safetensors"])
    run.record("export", "b", ["fp32.onnx", "int8.onnx"])
    run.record("export", "c", ["fp32.onnx"])
    assert sorted(run.manifest.artifacts) == ["fp32.onnx", "student.safetensors"]
    assert run.sha256("fp32.onnx") == sha256_file(tmp_path / "fp32.onnx")
    with pytest.raises(KdedgeError, match=r"has no int8\.onnx"):
        run.sha256("int8.onnx")


def test_manifest_that_is_broken_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(KdedgeError, match="is not a manifest") as caught:
        RunDir(tmp_path).fresh("export", "key")
    assert f"rm {tmp_path}/manifest.json" in str(caught.value)


def test_newest_run_is_the_one_that_was_worked_in_last(tmp_path: Path) -> None:
    for age, name in enumerate(("a", "c", "b")):
        write_json(tmp_path / name / "manifest.json", {})
        os.utime(tmp_path / name / "manifest.json", (age, age))
    assert newest_run(tmp_path).path == tmp_path / "b"


def test_newest_run_says_what_to_type_when_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(KdedgeError, match="kdedge run quickstart"):
        newest_run(tmp_path / "runs")


def test_digest_sees_values_and_not_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_sha256_file_agrees_with_the_published_vector(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_file(tmp_path / "abc") == expected


def test_write_json_keeps_the_order_it_is_given(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": None})
    assert (tmp_path / "a.json").read_text() == '{\n  "b": 1,\n  "a": null\n}\n'


def test_write_json_sorted_is_the_same_for_equal_values(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": 2}, sort=True)
    write_json(tmp_path / "b.json", {"a": 2, "b": 1}, sort=True)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_check_disk_refuses_more_than_is_free_even_for_a_folder_to_come(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "yet", 1)
    with pytest.raises(KdedgeError, match="of free disk"):
        check_disk(tmp_path / "not" / "yet", 2**60)


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDEDGE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_folder() == Path("/a")
    monkeypatch.delenv("KDEDGE_CACHE")
    assert cache_folder() == Path("/b/kdedge")
