"""tools/gpu_check where there is no GPU: what it runs, says and writes; with one it is the check itself."""
import json
import pathlib
import tempfile

import harness

BUILD = harness.BIN.parent


def need_gpu_binaries():
    if not (harness.BIN / "gpu_kernels_test").exists():
        raise harness.Skip("this build has no GPU kernels: nvcc is not here")


def check(out, *args, code=0):
    done = harness.subprocess.run(
        [str(harness.SOURCE / "tools/gpu_check"), "--build-dir", str(BUILD), "--out", str(out), *args],
        capture_output=True, text=True, timeout=1200)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_every_part_runs_or_says_why_not():
    need_gpu_binaries()
    with tempfile.TemporaryDirectory() as out:
        check(out, "--only", "kernels,golden,processes,bench")
        result = json.loads((pathlib.Path(out) / "gpu_check.json").read_text())
        table = (pathlib.Path(out) / "gpu_check.md").read_text()
    names = [entry["name"] for entry in result["checks"]]
    assert names[:2] == ["kernels", "golden models"] and names[-1] == "benchmark" and len(names) > 3, result
    for entry in result["checks"]:
        assert entry["status"] in (0, 77), entry
        if entry["status"] == 77:
            assert entry["result"].startswith("skipped: "), entry
        assert f"| {entry['name']} | {entry['result']} |" in table, table
    assert result["commit"] in table


def test_a_part_that_fails_is_told():
    need_gpu_binaries()
    with tempfile.TemporaryDirectory() as out:
        broken = pathlib.Path(out) / "build/bin"
        broken.mkdir(parents=True)
        program = broken / "gpu_kernels_test"
        program.write_text("#!/bin/sh\necho one kernel differs\nexit 3\n")
        program.chmod(0o755)
        text = check(out, "--build-dir", str(broken.parent), "--only", "kernels", code=1)
        result = json.loads((pathlib.Path(out) / "gpu_check.json").read_text())
    assert "one kernel differs" in text and result["checks"][0]["result"] == "FAILED (3)", (text, result)


def test_wrong_arguments():
    with tempfile.TemporaryDirectory() as out:
        text = check(out, "--only", "kernels,coffee", code=2)
    assert "unknown parts coffee; known: kernels, golden, processes, sanitizer, bench" in text, text


if __name__ == "__main__":
    harness.main(globals())
