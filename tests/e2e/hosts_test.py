"""Workers of other hosts: processes that share nothing with the coordinator's but a key and TCP, here on one machine.

They see no run directory, and find each other by the addresses that they register with. Results are the bytes of one
worker; losing them is what losing a worker is.
"""
import atexit
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import harness
from chat_stream import chat, read_stream

FAMILY = harness.DATA / "golden/deepseek3"
MODEL = FAMILY / "model-q4_k_m.gguf"
NCCL = {"DOVETAIL_NCCL_LIBRARY": str(harness.BIN.parent / "lib/libnccl_stand_in.so")}
WORK = pathlib.Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, WORK, True)
KEY = WORK / "key"
KEY.write_text("a key of this cluster alone\n".replace(" ", "-"))

EXPERTS_ELSEWHERE = """
- match: {role: experts}
  place: host-b/cpu:0
- match: {}
  place: cpu:0
"""
EXPERTS_ON_BOTH = """
- match: {role: experts, experts: 0-2}
  place: host-b/cpu:0
- match: {}
  place: cpu:0
"""
ROWS_ON_BOTH = """
- match: {}
  split: {cpu:0: 1, host-b/cpu:0: 1}
  by: rows
"""


class Worker:
    """`dovetail-worker` of another host; ended with the block."""

    def __init__(self, name, port, *args, key=KEY, env=None):
        self.name = name
        self.command = [str(harness.BIN / "dovetail-worker"), "--name", name, "--coordinator", f"127.0.0.1:{port}",
                        "--threads", "1", "--cluster-key-file", str(key), "--data-listen", "127.0.0.1:0", *map(str, args)]
        self.env = {**os.environ, **(env or {})}

    def start(self):
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=self.env)

    def text(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *unused):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        if kind is not None:
            print(f"--- {self.name}:\n{self.text()[-2000:]}")


class Workers:
    def __init__(self, names, port, **options):
        self.all = [Worker(name, port, **options) for name in names]

    def __enter__(self):
        for worker in self.all:
            worker.start()
        return self.all

    def __exit__(self, *error):
        for worker in self.all:
            worker.__exit__(*error)


@functools.cache
def golden():
    harness.need(MODEL)
    return json.loads((FAMILY / "golden.json").read_text())


def logits(workers, rules=None, env=None, smollm2=False, **flags):
    """Those of the model over `workers`, of which those of other hosts are started here."""
    port = harness.free_port()
    elsewhere = [name for name in workers.split(",") if "/" in name]
    if elsewhere:
        flags |= {"grpc_port": port, "cluster_key_file": KEY}
    if rules:
        (WORK / "rules.yaml").write_text(rules)
        flags["rules"] = WORK / "rules.yaml"
    model, vocab = (harness.need(harness.SMOLLM2), 49152) if smollm2 else (MODEL, golden()["vocab"])
    lists = [[1, 20, 300, 4000, 17], [5, 6, 7]] if smollm2 else [case["tokens"][:40] for case in golden()["cases"]]
    with Workers(elsewhere, port, env=env):
        return harness.eval_logits(model, lists, vocab, workers=workers, threads=1, env=env or {}, **flags).tobytes()


@functools.cache
def base():
    return logits("cpu:0")


def test_layers_of_several_hosts():
    assert logits("cpu:0,host-b/cpu:0") == base()
    assert logits("host-b/cpu:0") == base(), "none of this host"
    assert logits("host-b/cpu:0,cpu:0,host-c/cpu:0,host-b/cpu:1", lanes=3) == base()


def test_experts_elsewhere():
    assert logits("cpu:0,host-b/cpu:0", EXPERTS_ELSEWHERE) == base()
    assert logits("cpu:0,host-b/cpu:0", EXPERTS_ON_BOTH) == base()


def test_rows_shared_between_hosts():
    alone = logits("cpu:0", smollm2=True)
    assert logits("cpu:0,host-b/cpu:0", ROWS_ON_BOTH, smollm2=True) == alone


def test_gpus_of_several_hosts():
    assert logits("simt:0,host-b/simt:0") == base(), "rows with the frames"
    assert logits("simt:0,host-b/simt:0,host-b/simt:1", gpu_links="ipc") == base(), "IPC within host-b"
    across = functools.partial(logits, "simt:0,host-b/simt:0,host-c/simt:0", gpu_links="nccl")
    assert across(env=NCCL) == base(), "NCCL between hosts"
    harness.expect(AssertionError, "/nowhere.so", lambda: across(env={"DOVETAIL_NCCL_LIBRARY": "/nowhere.so"}))


def serve(port, *args):
    return harness.Server("--workers", "cpu:0,host-b/cpu:0", "--cluster-key-file", KEY, "--grpc-port", port, "--threads", "1",
                          *args)


def test_streams_outlive_a_host():
    """The worker of another host is killed, and another process takes its place, elsewhere."""
    fields = {"stream": True, "max_tokens": 80, "ignore_eos": True, "temperature": 0.8, "seed": 11}
    port = harness.free_port()
    far = Worker("host-b/cpu:0", port)
    with far, serve(port) as server:
        undisturbed, _ = read_stream(chat(server, "Tell a long story.", **fields))
        for at in (1, 30):
            def replace():
                far.kill()
                far.start()
            text, longest = read_stream(chat(server, "Tell a long story.", **fields), at=at, action=replace)
            assert text == undisturbed, (at, text, undisturbed)
            print(f"  killed at event {at}: same text, longest pause {1000 * longest:.0f} ms")
        log = server.stderr()
        assert re.search(r"worker host-b/cpu:0 was lost: .*; its edges are closed: .*\(tcp\)", log), log
        workers = {w["name"]: w for w in server.status()["workers"]}
        assert workers["host-b/cpu:0"]["restarts"] >= 2, workers
        for worker in workers.values() if harness.SLOWNESS == 1 else ():  # a sanitizer's own memory is in no plan
            assert int(worker["peak_resident_bytes"]) <= int(worker["planned_bytes"]), worker


def test_a_silent_host_is_lost():
    """As one that lost its network: nothing is closed, nothing comes."""
    port = harness.free_port()
    with Worker("host-b/cpu:0", port) as far, serve(port, "--worker-timeout", "2s") as server:
        os.kill(far.process.pid, signal.SIGSTOP)
        harness.wait_for(lambda: server.status()["state"] != "SERVING_STATE_READY", 60, "the loss is noticed")
        assert "no sign of life for 2s" in server.status()["message"], server.status()
        os.kill(far.process.pid, signal.SIGCONT)
        harness.wait_for(lambda: server.status()["state"] == "SERVING_STATE_READY", 60, "it is back")
        assert json.load(chat(server, "Name the capital of France."))


def test_workers_outlive_the_coordinator():
    port = harness.free_port()
    with Worker("host-b/cpu:0", port) as far:
        for _ in range(2):
            with serve(port) as server:
                text = json.load(chat(server, "Name the capital of France."))["choices"][0]["message"]["content"]
                assert "Paris" in text, text
                server.process.kill()
                server.process.wait()
        assert far.process.poll() is None, far.text()
        assert far.text().count("attached to the coordinator") == 2, far.text()


def test_an_orderly_end():
    port = harness.free_port()
    with Worker("host-b/cpu:0", port) as far:
        with serve(port) as server:
            assert server.stop() == 0, server.stderr()
        assert far.process.wait(30) == 0 and "shutting down" in far.text(), far.text()


def test_who_is_not_let_in():
    port = harness.free_port()
    other = WORK / "other-key"
    other.write_text("another-key-than-that-one")
    with Worker("host-b/cpu:0", port), serve(port) as server:
        for name, key, words in (("host-b/cpu:0", other, "does not show the cluster's key"),
                                 ("host-c/cpu:0", KEY, "is not one of the configured workers"),
                                 ("host-b/cpu:0", KEY, "already attached")):
            with Worker(name, port, key=key) as intruder:
                harness.wait_for(lambda: words in intruder.text(), 30, words)
        assert server.status()["state"] == "SERVING_STATE_READY"


def test_an_address_that_nobody_can_reach():
    """The edge says so; the job does not hang."""
    port = harness.free_port()
    nowhere = harness.free_port()
    with Worker("host-b/cpu:0", port, "--data-address", f"127.0.0.1:{nowhere}"), \
            harness.Server("--workers", "cpu:0,host-b/cpu:0", "--cluster-key-file", KEY, "--grpc-port", port, wait=False) as server:
        harness.wait_for(lambda: f"connect to 127.0.0.1:{nowhere}: Connection refused" in server.stderr(), 60, "the reason")
        assert server.process.poll() is None


def test_mistakes_on_the_command_line():
    worker = lambda *args: harness.run("dovetail-worker", "--coordinator", "127.0.0.1:1", *args, check=False).stderr
    assert "--cluster-key-file: a worker of another host needs it" in worker("--name", "b/cpu:0")
    both = worker("--name", "b/cpu:0", "--run-dir", "/x", "--memory", "shared")
    assert "--run-dir: a worker of another host has none" in both and "--memory: " in both and "--cluster-key-file" in both, both
    assert "--run-dir is required" in worker("--name", "cpu:0")
    assert "only a worker of another host" in worker("--name", "cpu:0", "--run-dir", "/x", "--cluster-key-file", KEY)
    assert "--data-listen: `x` is not HOST:PORT" in worker("--name", "b/cpu:0", "--cluster-key-file", KEY, "--data-listen", "x")
    short = WORK / "short"
    short.write_text("short")
    assert "a cluster's key has 16 to 512 characters" in worker("--name", "b/cpu:0", "--cluster-key-file", short)
    done = harness.run("dovetail", "serve", "--model", harness.need(harness.SMOLLM2), "--workers", "b/cpu:0", check=False)
    assert done.returncode == 2 and "give `cluster_key_file`" in done.stderr, done


if __name__ == "__main__":
    harness.main(globals())
