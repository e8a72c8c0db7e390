"""Ways in which engines of this kind are known to fail, and what happens here instead.

| failure elsewhere | here | tests, besides those of this file |
|---|---|---|
| the KV cache is allocated before the weights, which then do not fit | refused with a table before a worker starts | `bad_input_test.test_too_little_memory`, `memory_test`, `memory_plan_test` (WhatIsAllocatedBeforeAWorkerIsReadyBelongsToLoading) |
| a worker cannot allocate, its log has the reason, the engine waits for ever | `serve` ends with the worker's reason | |
| odd batch sizes: "size of tensor a (4) must match b (5)" | every pair of batch and chunk size gives the same tokens | `scheduler_property_test`, `plan_invariance_test` |
| "can't find token_embd.weight": a shard is missing, a download cut off, the wrong folder | all that is missing is one message | `gguf_file_test`, `model_config_test` (ShardsAndTensorsThatAreMissingAreOneMessage) |
| rules lost their indentation or name what is not there: a traceback from the loader | file:line:col, all at once, before a worker starts | `lint_test`, `as_printed_test`, `rule_set_test`, `bad_input_test.test_rules` |
| a long prompt ends the process | 400 with the numbers; longer ones than a chunk are computed | `bad_input_test.test_http_requests` |
"""
import concurrent.futures
import json
import pathlib
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import harness

LLAMA = harness.DATA / "golden/llama/model-q4_0.gguf"
ARTICLES = harness.DATA / "placement/articles"


def serve(model, *flags):
    """The finished process of a `serve` that is to be refused, and how long it took."""
    start = time.monotonic()
    done = subprocess.run([str(harness.BIN / "dovetail"), "serve", "--model", str(model), "--port", "0", *map(str, flags)],
                          capture_output=True, text=True, timeout=60)
    return done, time.monotonic() - start


def complete(server, prompt, max_tokens=8):
    """(status, tokens' text or the error)"""
    with urllib.request.urlopen(f"http://{server.http}/v1/models") as answer:
        name = json.load(answer)["data"][0]["id"]
    body = {"model": name, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 0}
    request = urllib.request.Request(f"http://{server.http}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return 200, json.load(answer)["choices"][0]["text"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]


def test_a_kv_cache_that_leaves_no_room_for_weights_is_refused_with_the_table():
    done, _ = serve(harness.need(harness.SMOLLM2), "--memory", "cpu:0=200MiB", "--kv-tokens", 40960, "--max-batch-size", 4)
    assert done.returncode == 3, (done.returncode, done.stderr)
    for words in ("the plan needs more memory than its workers have", "kv_tokens 40960", "weights", "KV cache", "92.1 MiB",
                  "900.0 MiB", "too little", "What would fit:", "kv_tokens "):
        assert words in done.stderr, (words, done.stderr)
    assert "loading" not in done.stderr, "a worker was started"


def test_a_worker_that_cannot_allocate_ends_serve_with_the_reason():
    """The plan knows what memory is free, not that a container gives its /dev/shm 60 MB of it."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", folder], capture_output=True, text=True)
        if mounted.returncode != 0:
            raise harness.Skip(f"a file system cannot be mounted: {mounted.stderr.strip()}")
        try:
            done, seconds = serve(harness.need(harness.SMOLLM2), "--run-dir", f"{folder}/run", "--weight-memory", "shared")
        finally:
            subprocess.run(["umount", folder], check=True)
    assert done.returncode == 3 and seconds < 30, (done.returncode, seconds, done.stderr)
    reason = "worker cpu:0 cannot load its share: cpu:0: loading the plan: {}/run/cpu-0.weights: needs {} bytes, but its file"
    assert reason.format(folder, 96580864) in done.stderr, done.stderr


def test_every_pair_of_batch_and_chunk_size_gives_the_same_tokens():
    model = harness.need(LLAMA)
    prompts = [[3 + (5 * i + j) % 400 for j in range(1 + 13 * i % 60)] for i in range(9)]
    expected = None
    for batch in (1, 2, 3, 5, 7):
        for chunk in (1, 3, 64, 1000):
            flags = ["--context-length=100", "--kv-tokens=1000", f"--max-batch-size={batch}", f"--chunk-size={chunk}"]
            with harness.Server(*flags, model=model) as server:
                with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
                    answers = list(pool.map(lambda prompt: complete(server, prompt), prompts))
            assert all(status == 200 for status, _ in answers), (batch, chunk, answers)
            expected = expected or answers
            assert answers == expected, (batch, chunk)
    assert len(set(text for _, text in expected)) > 5, "the prompts are too much alike to tell"


def test_whatever_is_missing_of_a_model_is_one_message():
    source = pathlib.Path(harness.need(harness.DATA / "golden/deepseek2/split"))
    with tempfile.TemporaryDirectory() as folder:
        done, _ = serve(folder)
        assert done.returncode == 2 and f"{folder}: no .gguf file in this directory" in done.stderr, done.stderr
        shards = [pathlib.Path(shutil.copy(shard, folder)) for shard in sorted(source.iterdir())]
        (pathlib.Path(folder) / "model.safetensors").touch()  # changes nothing
        assert harness.run("dovetail", "plan", "--model", folder).returncode == 0
        shards[1].unlink()
        shards[2].write_bytes(shards[2].read_bytes()[:-100])
        for command in ("plan", "serve"):
            done = harness.run("dovetail", command, "--model", folder, check=False)
            assert done.returncode == 2, (command, done.stderr)
            for words in ("shard 2 of 3 is missing", f"{shards[2]}: ", "missing tensors: ", "blk.1.ffn_down_exps.weight",
                          "output_norm.weight"):
                assert words in done.stderr, (command, words, done.stderr)
            assert "token_embd.weight" not in done.stderr, "it is in the first shard"


def test_text_that_lost_its_indentation_is_said_before_anything_starts():
    for name, place in (("hybrid-r1-as-printed-1.txt", "2:1"), ("hybrid-r1-as-printed-2.txt", "1:10"),
                        ("v2.5-three-cards-as-printed.txt", ""), ("t4-linear-torch-as-printed.txt", "")):
        path = pathlib.Path(harness.need(ARTICLES / name))
        done, seconds = serve(harness.need(LLAMA), "--rules", path)
        assert done.returncode == 2 and seconds < 10, (name, done.returncode, done.stderr)
        assert f"{name}:{place}" in done.stderr and "stands where it cannot" in done.stderr, (name, done.stderr)
        assert "Traceback" not in done.stderr and "loading" not in done.stderr


def test_all_mistakes_of_a_rules_file_at_once():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "r.yaml"
        path.write_text("""- match: {name: "^model\\\\.layers\\\\.([0-9"}
  replace: {class: default, kwargs: {generate_device: "cuda:0"}}
- match: {name: "^model\\\\.norm$"}
  replace: {class: default, kwargs: {generate_devise: "cpu"}}
""")
        done = harness.run("dovetail", "plan", "--model", harness.need(LLAMA), "--rules", path, check=False)
        said = [line.removeprefix(folder) for line in done.stderr.splitlines() if ": note: " not in line]
        assert done.returncode == 2 and said == [
            "/r.yaml: error: the rules use cuda:0, but there are no GPU workers; --map cuda:*=cpu:0 uses the CPU for all "
            "[unknown-device]",
            "/r.yaml:1:17: error: bad regular expression `^model\\.layers\\.([0-9`: unterminated character set at offset 17 "
            "[bad-regex]",
            "/r.yaml:3:3: error: rule 1 (line 3) gives no `generate_device` to model.norm [no-device]",
            "/r.yaml:4:38: warning: unknown key `generate_devise` in `kwargs` is ignored; did you mean `generate_device`? "
            "[unknown-key]"], done.stderr
        done, _ = serve(harness.need(LLAMA), "--rules", path)
        assert done.returncode == 2 and "r.yaml:1:17: bad regular expression" in done.stderr, done.stderr
        assert "r.yaml:3:3: rule 1 (line 3) gives no `generate_device`" in done.stderr and "loading" not in done.stderr


def test_long_prompts():
    context = 6400
    with harness.Server(f"--context-length={context}", f"--kv-tokens={2 * context}", "--max-batch-size=3",
                        model=harness.need(harness.SMOLLM2)) as server:
        workers = server.workers()
        for length in (1536, 4097, 5894):
            status, answer = complete(server, [5 + i % 300 for i in range(length)])
            assert status == 200, (length, answer)
        for length in (context + 1, 100000):
            status, error = complete(server, [5] * length)
            assert status == 400 and str(context) in error["message"] and str(length) in error["message"], (length, error)
        assert complete(server, [5, 6, 7])[0] == 200
        assert server.workers() == workers, "a worker was started again"


def test_a_cache_of_one_or_two_tokens():
    for tokens, prompt, expected in ((1, [5], 400), (2, [5], 200), (2, [5, 6], 400), (33, [5] * 32, 200)):
        with harness.Server(f"--cache-lens={tokens}", "--max-batch-size=1", "--chunk-size=1", model=harness.need(LLAMA)) as server:
            status, answer = complete(server, prompt, 1)
            assert status == expected, (tokens, prompt, answer)
            if status == 400:
                assert answer["message"] == (f"`prompt` is too long: this model's maximum context length is {tokens} tokens; "
                                             f"your prompt has {len(prompt)} tokens"), answer


if __name__ == "__main__":
    harness.main(globals())
