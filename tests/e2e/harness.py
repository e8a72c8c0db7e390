"""What the end-to-end tests share: binaries, data, servers that are always stopped, and the closing line.

A test is a function whose name starts with test_; main() runs all of a module (or those named on the command line),
prints "N passed, N failed, N skipped" and exits with 1 on a failure, 77 if everything was skipped.
"""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

SOURCE = pathlib.Path(os.environ.get("DOVETAIL_SOURCE", pathlib.Path(__file__).resolve().parents[2]))
BIN = pathlib.Path(os.environ.get("DOVETAIL_BIN", SOURCE / "build/release/bin"))
DATA = pathlib.Path(os.environ.get("DOVETAIL_DATA", SOURCE / "../shared/data"))
SMOLLM2 = pathlib.Path(os.environ.get("DOVETAIL_SMOLLM2", SOURCE / "models/SmolLM2-135M-Instruct.Q4_1.gguf"))
RULES = SOURCE / "rules/smollm2-two-cpus.yaml"
SLOWNESS = int(os.environ.get("DOVETAIL_TEST_SLOWNESS", "1"))  # limits of time are so many times as long: of sanitizers


class Skip(Exception):
    """Raised by a test that cannot run here; its text is the reason."""


def need(path):
    if not pathlib.Path(path).exists():
        raise Skip(f"{path} is absent")
    return str(path)


def run(*args, timeout=300, check=True, env=None):
    """Runs a Dovetail binary by name; returns the finished process (text)."""
    done = subprocess.run([str(BIN / args[0]), *map(str, args[1:])], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, **(env or {})})
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, args))} exited with {done.returncode}:\n{done.stderr[-2000:]}")
    return done


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(condition, timeout, what):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"timed out after {timeout} s: {what}")


def expect(error_type, words, call):
    """The error of that type that `call` must raise, with these words in it."""
    try:
        call()
    except error_type as error:
        assert words in str(error), (words, str(error))
        return error
    raise AssertionError(f"no {error_type.__name__} with `{words}`")


def eval_logits(model, lists, vocab, **flags):
    """Rows of logits of every list, [rows, vocab] f32, through `dovetail eval logits`."""
    import numpy
    with tempfile.TemporaryDirectory() as work:
        tokens, out = f"{work}/ids.json", f"{work}/out.f32"
        pathlib.Path(tokens).write_text(json.dumps(lists))
        env = flags.pop("env", {}) | ({"DOVETAIL_ISA": flags.pop("isa")} if "isa" in flags else {})
        args = [f"--{k.replace('_', '-')}={v}" for k, v in flags.items()]
        run("dovetail", "eval", "logits", "--model", model, "--tokens", tokens, "--out", out, *args, env=env or None)
        rows = numpy.fromfile(out, dtype="<f4").reshape(-1, vocab)
    assert len(rows) == sum(map(len, lists)), (len(rows), sum(map(len, lists)))
    return rows


class Server:
    """`dovetail serve` on free ports; stopped, and everything it started, when the block ends."""

    def __init__(self, *args, model=None, config=None, wait=True):
        what = ["--config", str(config)] if config else ["--model", str(model or need(SMOLLM2))]
        self.args = ["serve", *what, "--port", "0", *map(str, args)]
        self.wait = wait

    def __enter__(self):
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen([str(BIN / "dovetail"), *self.args], stdout=subprocess.PIPE, stderr=self.log, text=True)
        if self.wait:
            self.wait_ready()
        return self

    def wait_ready(self):
        line = self.process.stdout.readline()
        match = re.search(r"http://([\d.]+:\d+).*grpc ([\d.]+:\d+)", line)
        if not match:
            self.process.wait(10)
            raise AssertionError(f"serve did not become ready: {line!r}\n{self.stderr()}")
        self.http, self.grpc = match.groups()

    def stderr(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def workers(self):
        """Process ids of the workers by name, of those that run; "tiny/cpu:0" where there are several models."""
        found = {}
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int(re.search(r"PPid:\s*(\d+)", (entry / "status").read_text()).group(1))
            except (OSError, AttributeError):
                continue
            if parent == self.process.pid and words[0].endswith(b"dovetail-worker"):
                name = words[words.index(b"--name") + 1].decode()
                model = words[words.index(b"--model") + 1].decode() + "/" if b"--model" in words else ""
                found[model + name] = int(entry.name)
        return found

    def status(self):
        import grpc_client
        return grpc_client.status(self.grpc)

    def stop(self, sig=signal.SIGTERM, timeout=30):
        self.process.send_signal(sig)
        return self.process.wait(timeout)

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()


def main(module_globals):
    wanted = sys.argv[1:]
    passed = failed = skipped = 0
    for name, function in sorted(module_globals.items()):
        if not name.startswith("test_") or (wanted and name not in wanted):
            continue
        start = time.monotonic()
        try:
            function()
            passed += 1
            verdict = "ok"
        except Skip as reason:
            skipped += 1
            verdict = f"skipped: {reason}"
        except Exception:
            failed += 1
            verdict = "FAILED\n" + traceback.format_exc()
        print(f"{name}: {verdict} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 77 if not passed else 0)
