"""One coordinator with two models, and two coordinators on one machine."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request

import grpc

import harness
from grpc_client import ReflectionClient

SMOL, TINY = "smol", "tiny"
READY = "SERVING_STATE_READY"


class Models:
    """A directory with a tiny model, and configurations of it and of SmolLM2."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.tiny = self.directory / "tiny.gguf"
        harness.run("make-tiny-llama", self.tiny, "--context", 4096)

    def config(self, budget="700MiB", **server):
        """Both models; keys of the server may be added."""
        path = self.directory / "both.yaml"
        path.write_text(json.dumps({
            "models": [
                {"model": harness.need(harness.SMOLLM2), "model_name": SMOL, "model_aliases": ["big", "gpt-4"],
                 "rules": str(harness.RULES), "workers": ["cpu:0", "cpu:1"], "context_length": 2048,
                 "memory": {"cpu:0": budget, "cpu:1": budget}},
                {"model": str(self.tiny), "memory": {"cpu:0": budget}, "kv_type": "f32"},
            ],
            "threads": 1, **server}))
        return path


@contextlib.contextmanager
def models():
    with tempfile.TemporaryDirectory() as directory:
        yield Models(directory)


def ask(address, path, body=None):
    request = urllib.request.Request(f"http://{address}{path}", body and json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)


def refused(address, path, body=None):
    try:
        ask(address, path, body)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers
    raise AssertionError(f"{path} was answered")


def body(seed, tokens=40, **fields):
    return {"prompt": f"Once upon a time {seed}", "max_tokens": tokens, "ignore_eos": True, "temperature": 0.9, "seed": seed,
            **fields}


def complete(address, seed, **fields):
    return ask(address, "/v1/completions", body(seed, **fields))["choices"][0]["text"]


class Stream(threading.Thread):
    """A completion that is read as it comes."""

    def __init__(self, address, **fields):
        super().__init__(daemon=True)
        request = urllib.request.Request(f"http://{address}/v1/completions", json.dumps(body(5, stream=True, **fields)).encode())
        self.response = urllib.request.urlopen(request, timeout=300)
        self.raw = self.response.readline().decode()
        self.start()

    def run(self):
        while line := self.response.readline():
            self.raw += line.decode()

    def text(self):
        self.join(300)
        events = [line.removeprefix("data: ") for line in self.raw.split("\n\n") if line.startswith("data: ")]
        assert events[-1] == "[DONE]", events[-1]
        return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])


def metrics(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as response:
        return response.read().decode()


def test_concurrent_answers_are_those_of_each_alone():
    with models() as m:
        seeds = range(4)
        alone = {}
        with harness.Server("--model-name", SMOL, "--rules", harness.RULES, "--workers", "cpu:0,cpu:1", "--threads", 1,
                            "--context-length", 2048) as server:
            alone[SMOL] = [complete(server.http, seed) for seed in seeds]
        with harness.Server("--kv-type", "f32", "--threads", 1, model=m.tiny) as server:
            alone[TINY] = [complete(server.http, seed) for seed in seeds]
        assert alone[SMOL] != alone[TINY]
        with harness.Server(config=m.config()) as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in range(2):
                asked = {(name, seed): pool.submit(complete, server.http, seed, model=name)
                         for seed in seeds for name in (SMOL, TINY)}
                for (name, seed), answer in asked.items():
                    assert answer.result() == alone[name][seed], (name, seed)


def check_http(address):
    assert [model["id"] for model in ask(address, "/v1/models")["data"]] == [SMOL, TINY]
    assert [model["name"] for model in ask(address, "/api/tags")["models"]] == [SMOL, TINY]
    answer = ask(address, "/v1/completions", body(1, model="gpt-4"))
    assert answer["model"] == SMOL and answer["choices"][0]["text"] == complete(address, 1, model=SMOL)
    code, text, _ = refused(address, "/v1/completions", body(1))
    assert code == 400 and "`smol`, `tiny`" in text, (code, text)
    code, text, _ = refused(address, "/v1/completions", body(1, model="gpt-5"))
    assert code == 404 and json.loads(text)["error"]["code"] == "model_not_found", (code, text)
    # The same text is other tokens for another vocabulary.
    tokens = [ask(address, "/tokenize", {"model": name, "prompt": "Hello there"})["tokens"] for name in (SMOL, TINY)]
    assert tokens[0] != tokens[1]
    assert ask(address, "/health") == {"status": "ok", "models": {SMOL: "ok", TINY: "ok"}}
    text = metrics(address)
    for line in ('dovetail_requests_total{model="smol",outcome="length"} 2', 'dovetail_model_state{model="tiny",state="ready"} 1',
                 'dovetail_worker_up{model="smol",worker="cpu:1"} 1', 'dovetail_worker_up{model="tiny",worker="cpu:0"} 1'):
        assert line in text, (line, text)


def check_grpc(client):
    call = lambda method, request: client.call(f"dovetail.v1.{method}", request)
    listed = call("InferenceService/ListModels", {})["models"]
    assert [model["id"] for model in listed] == [SMOL, TINY] and listed[0]["aliases"] == ["big", "gpt-4"], listed
    assert call("InferenceService/Tokenize", {"model": "big", "text": "Hello"})["ids"]
    error = harness.expect(grpc.RpcError, "`smol`, `tiny`", lambda: call("InferenceService/Tokenize", {"text": "Hello"}))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    status = call("AdminService/GetStatus", {})
    assert status["state"] == READY and "model" not in status and len(status["workers"]) == 3, status
    assert [(model["model"], len(model["workers"])) for model in status["models"]] == [(SMOL, 2), (TINY, 1)]
    assert call("AdminService/GetStatus", {"model": TINY})["model"] == TINY
    plan = call("AdminService/GetPlan", {"model": "gpt-4"})
    assert plan["model"] == SMOL and len(plan["workers"]) == 2, plan
    assert call("AdminService/ExplainPlacement", {"model": TINY, "module": "lm_head"})["modules"][0]["rule"] == "auto"
    error = harness.expect(grpc.RpcError, "`smol`, `tiny`", lambda: call("AdminService/GetPlan", {}))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    for service in ("", "dovetail.v1.InferenceService", "model/smol", "model/tiny"):
        assert client.health(service) == "SERVING", service


def test_every_door_knows_both():
    with models() as m, harness.Server(config=m.config()) as server:
        check_http(server.http)
        client = ReflectionClient(server.grpc)
        check_grpc(client)
        streams = [Stream(server.http, model=name, tokens=300, priority=2) for name in (SMOL, TINY)]
        listed = client.call("dovetail.v1.AdminService/ListSequences", {}).get("sequences", [])
        assert all(s["priority"] == 2 and s["model"] in (SMOL, TINY) for s in listed) and listed, listed
        only = client.call("dovetail.v1.AdminService/ListSequences", {"model": SMOL}).get("sequences", [])
        assert {s["model"] for s in only} <= {SMOL}, only
        client.close()
        shown = harness.run("dovetail", "status", "--server", server.grpc).stdout
        assert "ready  2 models" in shown and "model smol" in shown and "model tiny" in shown, shown
        assert harness.run("dovetail", "status", "--server", server.grpc, "--quiet").stdout == "ready\n"
        top = harness.run("dovetail", "top", "--server", server.grpc, "--count", 1, "--interval", 0.2).stdout
        assert "2 models" in top and "smol" in top and "tiny" in top, top
        said = harness.run("dovetail", "chat", "--server", server.grpc, "--model", "big", "--temperature", 0,
                           "--message", "Name the capital of France.").stdout
        assert "Paris" in said, said
        assert set(server.workers()) == {"smol/cpu:0", "smol/cpu:1", "tiny/cpu:0"}
        for stream in streams:
            stream.text()
        assert " tiny/cpu:0: " in server.stderr(), "a worker's log does not say whose it is"


def test_a_lost_worker_is_its_models_alone():
    with models() as m, harness.Server(config=m.config(worker_timeout="4s")) as server:
        whole = {name: complete(server.http, 5, model=name, tokens=250) for name in (SMOL, TINY)}
        for lost, other in ((TINY, SMOL), (SMOL, TINY)):
            client = ReflectionClient(server.grpc)
            streams = {name: Stream(server.http, model=name, tokens=250) for name in (SMOL, TINY)}
            epoch = lambda name: int(client.call("dovetail.v1.AdminService/GetStatus", {"model": name})["epoch"])
            before = epoch(other)
            stopped = server.workers()[f"{lost}/cpu:0"]
            os.kill(stopped, signal.SIGSTOP)  # hangs; is not dead, and nobody starts another one
            try:
                harness.wait_for(lambda: client.health(f"model/{lost}") == "NOT_SERVING", 60, "the hang is noticed")
                assert client.health(f"model/{other}") == "SERVING" and client.health() == "NOT_SERVING"
                code, _, headers = refused(server.http, "/v1/completions", body(1, model=lost))
                assert code == 503 and "Retry-After" in headers, code
                code, text, _ = refused(server.http, "/health")
                health = json.loads(text)
                assert code == 503 and health["models"][other] == "ok" and health["models"][lost] != "ok", health
                assert complete(server.http, 2, model=other)
            finally:
                os.kill(stopped, signal.SIGCONT)
            for name, stream in streams.items():
                assert stream.text() == whole[name], (lost, name)
            harness.wait_for(lambda: client.health() == "SERVING", 120, "ready again")
            assert epoch(other) == before, "the other model had a new epoch"
            # A killed one is started again.
            os.kill(server.workers()[f"{lost}/cpu:0"], signal.SIGKILL)
            streams = {name: Stream(server.http, model=other, tokens=200) for name in (1, 2)}
            for stream in streams.values():
                assert stream.text()
            harness.wait_for(lambda: client.health() == "SERVING", 120, "ready again")
            client.close()


def test_budgets_are_checked_before_anything_is_read():
    with models() as m:
        server = harness.run("dovetail", "serve", "--config", m.config(budget="900GiB"), "--port", 0, check=False)
        assert server.returncode == 3, (server.returncode, server.stderr)
        for words in ("smol         cpu:1  900.00 GiB", "tiny         cpu:0  900.00 GiB", "2.64 TiB", "available", "too little"):
            assert words in server.stderr, (words, server.stderr)
        assert "loading" not in server.stderr and "attached" not in server.stderr, server.stderr
        # Within the machine, but not enough for what a model needs.
        server = harness.run("dovetail", "serve", "--config", m.config(budget="20MiB"), "--port", 0, check=False)
        assert server.returncode == 3 and "too little" in server.stderr, (server.returncode, server.stderr)


def test_two_coordinators_share_a_machine():
    with models() as m, contextlib.ExitStack() as stack:
        start = lambda run_dir, *flags: stack.enter_context(harness.Server(
            "--memory", "cpu:0=100MiB", "--threads", 1, "--run-dir", m.directory / run_dir, *flags, model=m.tiny))
        first, second = start("run-1"), start("run-2", "--model-name", "other")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [list(pool.map(lambda seed, s=server: complete(s.http, seed), range(4))) for server in (first, second)]
        assert answers[0] == answers[1]
        assert first.workers() != second.workers()
        first.stop()
        assert complete(second.http, 1) == answers[1][1], "the end of one is none of the other's business"
        assert not (m.directory / "run-1").exists() and (m.directory / "run-2").exists()


def test_drain_ends_both():
    with models() as m, harness.Server(config=m.config(run_dir=str(m.directory / "run"), weight_memory="shared")) as server:
        names = {path.name for path in (m.directory / "run").iterdir()}
        assert {"smol%2Fcpu-1.weights", "tiny%2Fcpu-0.kv", "exchange-smol-1", "exchange-tiny-1"} <= names, names
        streams = [Stream(server.http, model=name, tokens=200) for name in (SMOL, TINY)]
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(120) == 0
        for stream in streams:
            assert stream.text()
        assert not server.workers() and not (m.directory / "run").exists()


def test_workers_that_are_started_elsewhere():
    with models() as m, contextlib.ExitStack() as stack:
        http, port = harness.free_port(), harness.free_port()
        run_dir = m.directory / "run"

        def start(*args):
            process = subprocess.Popen([str(harness.BIN / args[0]), *map(str, args[1:])], stderr=subprocess.PIPE, text=True)
            stack.callback(process.stderr.close)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            return process
        start("dovetail-coordinator", "--config", m.config(run_dir=str(run_dir)), "--port", http, "--grpc-port", port)
        worker = lambda *args: start("dovetail-worker", "--coordinator", f"127.0.0.1:{port}", "--run-dir", run_dir,
                                     "--threads", 1, *args)
        for name, args in ((SMOL, ("--name", "cpu:0")), (SMOL, ("--name", "cpu:1")), (TINY, ())):
            worker("--model", name, *args)
        for wrong in ((), ("--model", "other")):
            refused_worker = worker(*wrong)
            _, text = refused_worker.communicate(timeout=60)
            assert refused_worker.returncode == 1 and "one of smol, tiny" in text, text
        def ready():
            try:
                return ask(f"127.0.0.1:{http}", "/health")
            except OSError:
                return None
        harness.wait_for(ready, 60, "ready")
        assert complete(f"127.0.0.1:{http}", 1, model=TINY) and complete(f"127.0.0.1:{http}", 1, model=SMOL)


harness.main(globals())
