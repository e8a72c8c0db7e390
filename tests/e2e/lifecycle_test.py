"""How a server begins, with cores for its workers, and how it ends: draining on the first signal, quick on the second."""
import http.client
import json
import os
import pathlib
import signal
import threading
import time
import urllib.error
import urllib.request

import harness
from grpc_client import ReflectionClient


class Stream(threading.Thread):
    """A completion that is read as it comes."""

    def __init__(self, address, tokens):
        super().__init__(daemon=True)
        self.text = ""
        self.begun = threading.Event()
        self.connection = http.client.HTTPConnection(address, timeout=120)
        body = {"prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "stream": True, "temperature": 0}
        self.connection.request("POST", "/v1/completions", json.dumps(body))
        self.start()

    def run(self):
        response = self.connection.getresponse()
        while line := response.readline():
            self.text += line.decode()
            self.begun.set()

    def tokens(self):
        return self.text.count('"text"') - self.text.count('"finish_reason":"')


def health(server):
    client = ReflectionClient(server.grpc)
    try:
        return client.health("dovetail.v1.InferenceService")
    finally:
        client.close()


def status_of(address, path, body=None):
    try:
        request = urllib.request.Request(f"http://{address}{path}", body and json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def pinned_to(pid):
    """The processors that single threads of a process are pinned to."""
    lists = [line.split()[1] for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status")
             for line in status.read_text().splitlines() if line.startswith("Cpus_allowed_list:")]
    return {int(cpus) for cpus in lists if cpus.isdigit()}


def test_cpu_infer_gives_workers_cores_of_their_own():
    if len(os.sched_getaffinity(0)) < 2:
        raise harness.Skip("this machine has one processor")
    with harness.Server("--workers", "cpu:0,cpu:1", "--cpu_infer", "2") as server:
        first, second = (pinned_to(pid) for pid in server.workers().values())
        print(f"  cpu:0 on {first}, cpu:1 on {second}")
        assert len(first) == len(second) == 1 and not first & second, (first, second)
    with harness.Server("--workers", "cpu:0,cpu:1", "--threads", "1") as server:
        assert [pinned_to(pid) for pid in server.workers().values()] == [set(), set()]


def test_numa_binds_workers_to_nodes():
    with harness.Server("--workers", "cpu:0", "--threads", 1, "--numa", "cpu:0=0") as server:
        worker = server.workers()["cpu:0"]
        assert "--numa 0" in pathlib.Path(f"/proc/{worker}/cmdline").read_text().replace("\0", " ")
        assert pinned_to(worker), "its thread is not pinned"
    done = harness.run("dovetail", "serve", "--model", harness.SMOLLM2, "--numa", "cpu:0=977", "--port", harness.free_port(), check=False)
    assert done.returncode != 0 and "`numa` binds cpu:0 to node 977" in done.stderr, done


def test_the_first_signal_drains():
    with harness.Server("--drain-timeout", f"{60 * harness.SLOWNESS}s") as server:
        stream = Stream(server.http, 600)
        assert stream.begun.wait(60)
        server.process.send_signal(signal.SIGTERM)
        harness.wait_for(lambda: health(server) == "NOT_SERVING", 10, "NOT_SERVING")
        # Not serving is said while the stream still runs, and nobody new gets in.
        assert stream.is_alive() and server.process.poll() is None
        assert status_of(server.http, "/health") == 503
        assert status_of(server.http, "/v1/completions", {"prompt": "x"}) == 503
        assert server.process.wait(90 * harness.SLOWNESS) == 0
        stream.join(10)
        assert "data: [DONE]" in stream.text and stream.tokens() >= 590, stream.text[-300:]
        assert "draining" in server.stderr() and "draining: " not in server.stderr(), server.stderr()[-500:]


def test_the_second_signal_is_quick():
    with harness.Server("--drain-timeout", "10m") as server:
        stream = Stream(server.http, 8000)
        assert stream.begun.wait(60)
        server.process.send_signal(signal.SIGTERM)
        harness.wait_for(lambda: health(server) == "NOT_SERVING", 10, "NOT_SERVING")
        time.sleep(0.3)
        assert server.process.poll() is None
        start = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert time.monotonic() - start < 10
        stream.join(10)
        assert '"error"' in stream.text, "the stream did not end with an error event"
        assert not server.workers(), "a worker was left"


def test_drain_over_grpc_and_log_level():
    with harness.Server() as server:
        client = ReflectionClient(server.grpc)
        client.call("dovetail.v1.AdminService/SetLogLevel", {"level": "debug"})
        assert status_of(server.http, "/health") == 200  # a probe is logged at this level
        stream = Stream(server.http, 40)
        assert stream.begun.wait(60)
        listed = client.call("dovetail.v1.AdminService/ListSequences", {})
        assert len(listed.get("sequences", [])) <= 1, listed
        drained = client.call("dovetail.v1.AdminService/Drain", {"timeout_ms": 60000, "exit": True})
        assert drained.get("unfinished_sequences", 0) == 0, drained
        client.close()
        assert server.process.wait(60) == 0
        stream.join(10)
        assert "data: [DONE]" in stream.text
        assert " D serve: " in server.stderr(), "the log level was not changed"


if __name__ == "__main__":
    harness.main(globals())
