"""Bad input: one clear message, the right exit status, nothing left running."""
import json
import os
import pathlib
import socket

import tempfile
import urllib.error
import urllib.request

import harness

LLAMA = harness.DATA / "golden/llama/model-q4_0.gguf"


def refused(args, *words, code=2, env=None):
    done = harness.run("dovetail", *args, check=False, timeout=60, env=env)
    assert done.returncode == code, (args, done.returncode, done.stderr)
    for word in words:
        assert word in done.stderr, (word, done.stderr)
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        assert not (b"dovetail-worker" in words and str(done.args).encode() in words), "a worker was left running"
    return done.stderr


class Files:
    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *unused):
        self.folder.cleanup()

    def write(self, name, content):
        path = pathlib.Path(self.folder.name) / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


def serve(model, *flags):
    return ["serve", "--model", model, "--port", "0", *flags]


def test_missing_file():
    refused(serve("/no/such/model.gguf"), "/no/such/model.gguf")
    refused(["inspect", "/no/such/model.gguf"], "/no/such/model.gguf")


def test_wrong_magic_and_truncated():
    data = pathlib.Path(harness.need(LLAMA)).read_bytes()
    with Files() as files:
        refused(serve(files.write("text.gguf", "hello, this is no model at all")), "text.gguf", "GGUF")
        refused(serve(files.write("empty.gguf", "")), "empty.gguf")
        refused(serve(files.write("header.gguf", data[:2000])), "header.gguf")
        refused(serve(files.write("short.gguf", data[:len(data) // 2])), "short.gguf", "the file ends at byte")


def test_unsupported_architecture_and_types():
    data = bytearray(pathlib.Path(harness.need(LLAMA)).read_bytes())
    with Files() as files:
        refused(serve(files.write("other.gguf", bytes(data).replace(b"llama", b"starc"))), "starc", "deepseek2, gemma3")
    names = (b"blk.0.attn_q.weight", b"blk.1.ffn_up.weight")
    for name in names:  # behind the name: dimensions, their sizes, the type
        at = data.index(name) + len(name)
        at += 4 + 8 * int.from_bytes(data[at:at + 4], "little")
        data[at:at + 4] = (139).to_bytes(4, "little")
    with Files() as files:
        refused(serve(files.write("ik.gguf", bytes(data))), "IQ4_K", "blk.0.attn_q.weight", "blk.1.ffn_up.weight")


def test_rules():
    model = harness.need(LLAMA)
    with Files() as files:
        rules = files.write("r.yaml", "- match: {layers: 0-40}\n  place: cpu:0\n- match: {role: norm}\n  place: cpu:7\n"
                            "- mtach: {layers: 1}\n  place: cpu:0\n")
        message = refused(serve(model, "--rules", rules, "--workers", "cpu:0"), "r.yaml:5:3", "mtach", "match")
        rules = files.write("s.yaml", "- match: {layers: 0-40}\n  place: cpu:0\n- match: {role: norm}\n  place: cpu:7\n")
        message = refused(serve(model, "--rules", rules, "--workers", "cpu:0"), "s.yaml:1", "40", "cpu:7", "s.yaml:4")
        rules = files.write("t.yaml", "- match: {layers: 0-1}\n  place: cpu:0\n- match: {role: [embedding, norm]}\n  place: cpu:0\n")
        message = refused(serve(model, "--rules", rules, "--workers", "cpu:0"), "model.layers.2", "lm_head")
        refused(serve(model, "--rules", files.write("u.yaml", "- match: [\n"), "--workers", "cpu:0"), "u.yaml:")
        refused(serve(model, "--rules", "/no/rules.yaml"), "/no/rules.yaml")


def test_configuration_lists_all_mistakes():
    model = harness.need(LLAMA)
    with Files() as files:
        config = files.write("c.yaml", f"model: {model}\nprot: 8080\nmax_batch_size: many\nkv_type: q3\n")
        refused(["serve", "--config", config], "c.yaml:2:1", "port", "c.yaml:3:", "max_batch_size", "c.yaml:4:", "kv_type")
    refused(serve(model, "--kv-type", "f99"), "kv-type")
    refused(serve(model, "--workers", "gpu:0"), "gpu:0")


def test_too_little_memory():
    refused(serve(harness.need(LLAMA), "--memory", "cpu:0=4MiB"), "cpu:0", "MiB", code=3)


def test_port_in_use():
    model = harness.need(LLAMA)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(["serve", "--model", model, "--port", port], str(port), "in use", code=1)
        refused(["serve", "--model", model, "--port", harness.free_port(), "--grpc-port", port], str(port), "in use", code=1)


def post(server, path, body):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.http}{path}", data=data, headers={"Content-Type": "application/json"})
    try:
        return 200, json.load(urllib.request.urlopen(request, timeout=30))
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]


def test_http_requests():
    with harness.Server("--workers", "cpu:0", "--context-length", "256", model=harness.need(LLAMA)) as server:
        name = "model-q4_0"
        good = {"model": name, "prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0}
        status, reply = post(server, "/v1/completions", good)
        assert status == 200 and reply["usage"]["completion_tokens"] == 4, reply
        for change, code, words in (
                ({"max_tokens": -4}, 400, ["max_tokens"]),
                ({"model": "nope"}, 404, ["nope"]),
                ({"prompt": [5] * 300}, 400, ["256", "300"]),
                ({"temperature": "hot"}, 400, ["temperature"]),
                ({"n": 0}, 400, ["n"]),
                ({"n": 2, "best_of": 3}, 400, ["best_of"]),
                ({"logprobs": -1}, 400, ["logprobs"]),
        ):
            status, error = post(server, "/v1/completions", {**good, **change})
            assert status == code, (change, status, error)
            for word in words:
                assert word in error["message"] or word == error.get("param"), (change, error)
        for body in (b"{\"model\": ", b"[]", b"\xff\xfe", b""):
            status, error = post(server, "/v1/completions", body)
            assert status == 400 and error["message"], (body, status, error)
        status, reply = post(server, "/v1/completions", {**good, "some_vendor_extra": 1})
        assert status == 200, reply
        status, _ = post(server, "/v1/completions", good)
        assert status == 200


def test_sigterm_leaves_nothing():
    with harness.Server("--workers", "cpu:0,cpu:1", model=harness.need(LLAMA)) as server:
        workers = server.workers()
        assert set(workers) == {"cpu:0", "cpu:1"}, workers
        before = set(os.listdir("/dev/shm"))
        assert server.stop() == 0
        harness.wait_for(lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in workers.values()), 5, "workers gone")
        job = [n for n in before if n.startswith(f"dovetail-{server.process.pid}-")]
        assert job and not any(n in os.listdir("/dev/shm") for n in job), job


harness.main(globals())
