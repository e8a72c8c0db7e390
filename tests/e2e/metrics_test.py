"""/metrics of a running server, read by Prometheus's own parsers, before, during and after requests."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

import harness

FETCHED = harness.SOURCE / ".venv/bin/promtool"  # tools/fetch_promtool
PROMTOOL = os.environ.get("DOVETAIL_PROMTOOL") or shutil.which("promtool") or (FETCHED.exists() and str(FETCHED))


def scrape(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4"), response.headers
        return response.read().decode()


def values(text):
    """{(name, labels as sorted pairs): value} of all samples of a server with one model."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name != "model"}
            key = (sample.name, tuple(sorted(labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def lint(text):
    """What promtool complains about, for where it is not there, and then promtool."""
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    helps = re.findall(r"^# HELP (\S+) (.+)$", text, re.M)
    assert len(dict(helps)) == len(helps) == len(types), "help and type once for each family"
    for name, kind in types.items():
        assert re.fullmatch(r"dovetail_[a-z0-9_]+", name), name
        assert (kind == "counter") == name.endswith("_total"), (name, kind)
        # Base units only, none abbreviated, and no suffix that belongs to the parts of a histogram or to a type.
        words = name.split("_")
        assert not set(words) & {"milliseconds", "microseconds", "minutes", "hours", "kilobytes", "megabytes", "ms", "us", "s",
                                 "sec", "kb", "mb", "gb", "b", "percent", kind}, name
        assert words[-1] not in ("count", "sum", "bucket", "info") or name == "dovetail_build_info", name
    if PROMTOOL:
        check_with_promtool(text)


def check_with_promtool(text):
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True, capture_output=True)
    assert done.returncode == 0 and not (done.stdout + done.stderr).strip(), done.stdout + done.stderr


def complete(address, tokens, **fields):
    body = json.dumps({"prompt": "Once upon a time", "max_tokens": tokens, "temperature": 0, "ignore_eos": True, **fields}).encode()
    request = urllib.request.Request(f"http://{address}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)["usage"]


def test_metrics():
    with harness.Server("--workers", "cpu:0,cpu:1", "--threads", "1") as server:
        before = scrape(server.http)
        lint(before)
        start = values(before)
        assert start["dovetail_state", (("state", "ready"),)] == 1
        used = [complete(server.http, n) for n in (1, 20)]
        # Workers tell their figures with their heartbeats, each with its own.
        def done():
            now = values(scrape(server.http))
            steps = [now["dovetail_worker_steps_total", (("worker", worker),)] for worker in ("cpu:0", "cpu:1")]
            return now if min(steps) >= 21 else None
        now = harness.wait_for(done, 20, "the workers' figures")
        lint(scrape(server.http))
        assert now["dovetail_requests_total", (("outcome", "length"),)] == 2
        assert now["dovetail_generation_tokens_total", ()] == 21
        assert now["dovetail_prompt_tokens_total", ()] == sum(u["prompt_tokens"] for u in used)
        assert now["dovetail_time_to_first_token_seconds_count", ()] == 2
        assert now["dovetail_inter_token_latency_seconds_count", ()] == 19
        assert 0 < now["dovetail_inter_token_latency_seconds_sum", ()] <= now["dovetail_e2e_request_latency_seconds_sum", ()]
        for phase in ("queue", "prefill", "decode"):
            assert now[f"dovetail_request_{phase}_seconds_count", ()] == 2, phase
        assert now["dovetail_request_queue_seconds_sum", ()] + now["dovetail_request_prefill_seconds_sum", ()] <= now[
            "dovetail_time_to_first_token_seconds_sum", ()] + 0.01
        assert now["dovetail_requests_running", ()] == 0
        for worker in ("cpu:0", "cpu:1"):
            memory = {kind: now["dovetail_worker_memory_bytes", (("kind", kind), ("worker", worker))]
                      for kind in ("used", "planned", "peak")}
            assert 0 < memory["used"] <= memory["peak"] and memory["planned"] > 0, memory
        segments = [(k, v) for k, v in now.items() if k[0] == "dovetail_segment_seconds_total"]
        assert len(segments) >= 2 and all(v > 0 for _, v in segments), segments
        for key, value in start.items():
            if key[0].endswith(("_total", "_count", "_sum", "_bucket")):
                assert now[key] >= value, f"{key} fell from {value} to {now[key]}"


def first_scrape():
    """Of a server that has just been started; None where its ports were taken by somebody else meanwhile."""
    http, grpc = harness.free_port(), harness.free_port()
    with harness.Server("--port", str(http), "--grpc-port", str(grpc), wait=False) as server:
        def answer():
            try:
                return scrape(f"127.0.0.1:{http}")
            except OSError:
                return "" if server.process.poll() is None else "ended"
        text = harness.wait_for(answer, 30, "the first scrape")
    return None if text == "ended" else text


def test_figures_from_the_first_byte():
    """A server that is still loading answers, and shows what is in use so far."""
    text = first_scrape() or first_scrape() or first_scrape()
    lint(text)
    assert "dovetail_worker_memory_bytes" in text and "dovetail_worker_loaded_bytes" in text


def test_promtool_accepts_several_models():
    if not PROMTOOL:
        raise harness.Skip("promtool is not there (tools/fetch_promtool)")
    with tempfile.TemporaryDirectory() as folder:
        models = [f"{folder}/{name}.gguf" for name in ("one", "two")]
        for model in models:
            harness.run("make-tiny-llama", model, "--context", 256)
        config = pathlib.Path(folder, "both.yaml")
        config.write_text(json.dumps({"models": [{"model": m, "memory": {"cpu:0": "200MiB"}} for m in models], "threads": 1}))
        with harness.Server(config=config) as server:
            for model in ("one", "two"):
                complete(server.http, 5, model=model)
            text = scrape(server.http)
            assert 'model="one"' in text and 'model="two"' in text
            lint(text)
        # It does complain where there is something.
        bad = text.replace("# HELP dovetail_uptime_seconds", "# HELP dovetail_other", 1)
        harness.expect(AssertionError, "dovetail_uptime_seconds no help text", lambda: check_with_promtool(bad))


if __name__ == "__main__":
    harness.main(globals())
