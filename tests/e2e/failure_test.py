"""Clients that leave, workers that die, many at once, and a server that nobody asks."""
import concurrent.futures
import json
import os
import pathlib
import re
import signal
import socket
import time
import urllib.error
import urllib.request

import grpc
import jsonschema

import harness
from chat_stream import chat, read_stream
from grpc_client import ReflectionClient


def test_eight_clients_at_once():
    questions = [f"Name the capital of {c}." for c in
                 ("France", "Italy", "Spain", "Japan", "Egypt", "Germany", "Greece", "Russia")]
    with harness.Server("--workers", "cpu:0,cpu:1", "--rules", harness.RULES) as server:
        ask = lambda q: json.load(chat(server, q))["choices"][0]["message"]["content"]
        alone = [ask(q) for q in questions]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            together = list(pool.map(ask, questions))
        assert alone == together, list(zip(alone, together))
        assert "Paris" in alone[0], alone[0]
        harness.wait_for(lambda: server.status().get("kv_blocks_used", 0) == 0, 2, "KV blocks free")


def test_preemptions_change_nothing():
    questions = [f"Tell me all about the number {n}, its history and its uses." for n in range(12)]
    fields = {"max_tokens": 100, "ignore_eos": True, "temperature": 0.9, "seed": 3}
    ask = lambda server, q: json.load(chat(server, q, **fields))["choices"][0]["message"]["content"]
    with harness.Server("--workers", "cpu:0") as server:
        alone = [ask(server, q) for q in questions]
    for how in ("swap", "recompute"):
        with harness.Server("--workers", "cpu:0,cpu:1", "--context-length", "512", "--kv-tokens", "640",
                            "--kv-swap-tokens", "2048", "--preemption", how) as server:
            with concurrent.futures.ThreadPoolExecutor(12) as pool:
                together = list(pool.map(lambda q: ask(server, q), questions))
            assert alone == together, [pair for pair in zip(alone, together) if pair[0] != pair[1]][0]
            harness.wait_for(lambda: server.status().get("kv_blocks_used", 0) == 0, 2, "KV blocks free")


def test_client_goes_away():
    with harness.Server("--workers", "cpu:0,cpu:1") as server:
        body = json.dumps({"model": "SmolLM2-135M-Instruct.Q4_1", "prompt": "Once upon a time", "max_tokens": 4000,
                           "stream": True, "ignore_eos": True}).encode()
        host, port = server.http.split(":")
        client = socket.create_connection((host, int(port)))
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                       b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert b"200" in client.recv(4096)
        harness.wait_for(lambda: server.status().get("kv_blocks_used", 0) > 0, 5, "it runs")
        client.close()
        start = time.monotonic()
        harness.wait_for(lambda: server.status().get("kv_blocks_used", 0) == 0, 2, "its blocks are free")
        print(f"  blocks free after {1000 * (time.monotonic() - start):.0f} ms")

        stub = ReflectionClient(server.grpc)
        stream = stub.call("dovetail.v1.InferenceService/Generate", {"prompt": "Once", "ignore_eos": True, "max_tokens": 4000})
        next(stream)
        stub.close()
        harness.wait_for(lambda: server.status().get("kv_blocks_used", 0) == 0, 2, "gRPC client's blocks are free")
        assert "Paris" in json.load(chat(server, "Name the capital of France."))["choices"][0]["message"]["content"]


def test_streams_outlive_workers():
    """The fourth of four kills at one token would end a stream; these are at many."""
    fields = {"stream": True, "max_tokens": 120, "ignore_eos": True, "temperature": 0.8, "seed": 11}
    with harness.Server("--workers", "cpu:0,cpu:1", "--rules", harness.RULES) as server:
        undisturbed, _ = read_stream(chat(server, "Tell a long story.", **fields))
        stub = ReflectionClient(server.grpc)
        request = {"prompt": "Once", "ignore_eos": True, "max_tokens": 200, "sampling": {"temperature": 0.8, "seed": 5}}
        generate = lambda: stub.call("dovetail.v1.InferenceService/Generate", request, timeout=300)
        expected = "".join(message.get("text", "") for message in generate())
        for name in ("cpu:1", "cpu:0"):
            for at in (1, 2, 40, 100):
                calls = generate()
                next(calls)
                kill = lambda: os.kill(server.workers()[name], signal.SIGKILL)
                text, longest = read_stream(chat(server, "Tell a long story.", **fields), at=at, action=kill)
                assert text == undisturbed, (name, at, text, undisturbed)
                rest = "".join(message.get("text", "") for message in calls)
                assert expected.endswith(rest) and len(rest) > 0, (name, at)
                assert longest < 20, longest  # of a machine that may be busy; quiet ones need less than two seconds
                print(f"  {name} killed at event {at}: same text, longest pause {1000 * longest:.0f} ms")
                harness.wait_for(lambda: server.status().get("state") == "SERVING_STATE_READY", 30, "ready again")
        stub.close()
        harness.wait_for(lambda: server.status().get("kv_blocks_used", 0) == 0, 2, "KV blocks free")


SCHEMA = {"type": "object", "additionalProperties": False, "required": ["name", "born", "towns", "friends"],
          "properties": {"name": {"type": "string", "minLength": 5, "maxLength": 30},
                         "born": {"type": "integer", "minimum": 1000, "maximum": 1999},
                         "towns": {"type": "array", "items": {"enum": ["Rome", "Oslo", "Lima"]}, "minItems": 6, "maxItems": 9},
                         "friends": {"type": "array", "minItems": 3, "maxItems": 4, "items": {
                             "type": "object", "additionalProperties": False, "required": ["name", "age"],
                             "properties": {"name": {"type": "string", "minLength": 3, "maxLength": 20},
                                            "age": {"type": "integer", "minimum": 1, "maximum": 99}}}}}}


def test_structured_streams_outlive_workers():
    """What the grammar allows next belongs to the tokens that were sent, whatever epoch computed them."""
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    fields = {"stream": True, "max_tokens": 400, "temperature": 0.9, "seed": 5, "response_format": form}
    ask = lambda server, **more: chat(server, "Describe a person as JSON.", **fields, **more)
    with harness.Server("--workers", "cpu:0,cpu:1", "--rules", harness.RULES) as server:
        undisturbed, _ = read_stream(ask(server))
        jsonschema.validate(json.loads(undisturbed), SCHEMA)
        for name, at in (("cpu:0", 1), ("cpu:1", 3), ("cpu:0", 25), ("cpu:1", 60)):
            other = ask(server)  # in the same steps, read when the first one has ended
            kill = lambda: os.kill(server.workers()[name], signal.SIGKILL)
            text, _ = read_stream(ask(server), at=at, action=kill)
            assert text == undisturbed, (name, at, text, undisturbed)
            text, _ = read_stream(other)
            assert text == undisturbed, (name, at, text, undisturbed)
            print(f"  {name} killed at event {at}: the same JSON")
            harness.wait_for(lambda: server.status().get("state") == "SERVING_STATE_READY", 30, "ready again")
        assert int(server.status()["epoch"]) >= 5, server.status()
        harness.wait_for(lambda: server.status().get("kv_blocks_used", 0) == 0, 2, "KV blocks free")


def test_streams_outlive_workers_that_share_rows():
    """Either may be killed, while the other waits for its rows."""
    fields = {"stream": True, "max_tokens": 80, "ignore_eos": True, "temperature": 0.8, "seed": 11}
    with harness.Server("--workers", "cpu:0,cpu:1") as server:
        undisturbed, _ = read_stream(chat(server, "Tell a long story.", **fields))
    with harness.Server("--workers", "cpu:0,cpu:1", "--rules", harness.SOURCE / "rules/rows-shared.yaml") as server:
        text, _ = read_stream(chat(server, "Tell a long story.", **fields))
        assert text == undisturbed, (text, undisturbed)
        for name in ("cpu:1", "cpu:0"):
            kill = lambda: os.kill(server.workers()[name], signal.SIGKILL)
            text, longest = read_stream(chat(server, "Tell a long story.", **fields), at=20, action=kill)
            assert text == undisturbed, (name, text, undisturbed)
            assert longest < 20, longest
            print(f"  {name} killed while it shared rows: same text, longest pause {1000 * longest:.0f} ms")
            harness.wait_for(lambda: server.status().get("state") == "SERVING_STATE_READY", 30, "ready again")
        harness.wait_for(lambda: server.status().get("kv_blocks_used", 0) == 0, 2, "KV blocks free")


def test_streams_end_when_a_worker_does_not_come_back():
    with harness.Server("--workers", "cpu:0,cpu:1", "--worker-timeout", "1500ms", "--recovery-timeout", "1s") as server:
        stream = chat(server, "Tell a long story.", stream=True, max_tokens=4000, ignore_eos=True)
        assert stream.readline().startswith(b"data: ")
        stub = ReflectionClient(server.grpc)
        calls = stub.call("dovetail.v1.InferenceService/Generate", {"prompt": "Once", "ignore_eos": True, "max_tokens": 4000})
        next(calls)
        stopped = server.workers()["cpu:1"]
        os.kill(stopped, signal.SIGSTOP)  # hangs; nobody starts another one
        try:
            events = [line for line in stream.read().split(b"\n\n") if line]
            assert json.loads(events[-1].removeprefix(b"data: ")).get("error"), events[-1]
            try:
                for _ in calls:
                    pass
                raise AssertionError("the gRPC stream ended well")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
        finally:
            os.kill(stopped, signal.SIGCONT)
        stub.close()
        harness.wait_for(lambda: server.status().get("state") == "SERVING_STATE_READY", 30, "ready again")
        assert "Paris" in json.load(chat(server, "Name the capital of France."))["choices"][0]["message"]["content"]


def test_unavailable_while_a_worker_is_missing():
    with harness.Server("--workers", "cpu:0,cpu:1", "--worker-timeout", "1500ms") as server:
        os.kill(server.workers()["cpu:0"], signal.SIGSTOP)  # hangs; is not dead
        stopped = server.workers()["cpu:0"]
        try:
            harness.wait_for(lambda: server.status().get("state") != "SERVING_STATE_READY", 5, "the hang is noticed")
            try:
                chat(server, "x")
                raise AssertionError("a request was accepted")
            except urllib.error.HTTPError as error:
                assert error.code == 503 and "Retry-After" in error.headers, (error.code, dict(error.headers))
            try:
                urllib.request.urlopen(f"http://{server.http}/health", timeout=5)
                raise AssertionError("healthy without a worker")
            except urllib.error.HTTPError as error:
                assert error.code == 503, error
        finally:
            if pathlib.Path(f"/proc/{stopped}").exists():
                os.kill(stopped, signal.SIGCONT)
        harness.wait_for(lambda: server.status().get("state") == "SERVING_STATE_READY", 30, "ready again")


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wakeups(pid):
    """How often its threads have waited for something."""
    count = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        count += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.M)[1])
    return count


def test_idle_uses_no_cpu():
    with harness.Server("--workers", "cpu:0,cpu:1") as server:
        chat(server, "Hello").read()
        time.sleep(1)
        pids = [server.process.pid, *server.workers().values()]
        cpu, waits = sum(map(cpu_seconds, pids)), sum(map(wakeups, pids))
        time.sleep(5)
        cpu, waits = sum(map(cpu_seconds, pids)) - cpu, sum(map(wakeups, pids)) - waits
        print(f"  {1000 * cpu / 5:.1f} ms of CPU and {waits / 5:.0f} wake-ups a second in {len(pids)} processes")
        # Heartbeats of three processes. A wake-up takes 0.1 to 0.4 ms of CPU, by the machine (all caches are cold); a thread
        # that spins takes 5 s.
        assert cpu <= 0.5, cpu
        assert waits <= 1000, waits


harness.main(globals())
