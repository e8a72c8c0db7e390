"""The plan's bytes against the workers' memory: while loading, and at the largest step with the whole KV cache in use."""
import json
import os
import pathlib
import tempfile
import threading
import time
import urllib.request

import harness

MIB = 1 << 20


def private_bytes(pid, segments):
    """(RssAnon + shared memory + locked, RssShmem) of a process; zeros when it is gone. Segments are allocated whole,
    whatever has been touched of them, so the larger of what they take and what is mapped counts."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    kib = {key: int(values[key].split()[0]) for key in ("RssAnon", "RssShmem", "VmLck") if key in values}
    shared = kib.get("RssShmem", 0) * 1024
    allocated = sum(path.stat().st_blocks * 512 for path in segments if path.exists())
    return sum(kib.values()) * 1024 - shared + max(shared, allocated), shared


class Peaks:
    """Watches the workers of a server: the most that each had since the last take()."""

    def __init__(self, server, names, run_dir):
        self.server, self.names, self.run_dir = server, names, pathlib.Path(run_dir)
        self.peak, self.stop = {}, False
        self.thread = threading.Thread(target=self.watch)

    def watch(self):
        workers = {}
        while not self.stop:
            if len(workers) < len(self.names):
                workers = self.server.workers()
            for name, pid in workers.items():
                stem = name.replace(":", "-")
                total, shared = private_bytes(pid, [self.run_dir / f"{stem}.weights", self.run_dir / f"{stem}.kv"])
                if shared:  # it has begun to load; before that it measured its bandwidth
                    self.peak[name] = max(self.peak.get(name, 0), total)
            time.sleep(0.004)

    def take(self):
        taken, self.peak = self.peak, {}
        return taken

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.stop = True
        self.thread.join()


def ask(server, name, prompt):
    body = {"model": name, "prompt": prompt, "max_tokens": 8, "temperature": 1, "top_p": 0.9, "top_k": 40}
    request = urllib.request.Request(f"http://{server.http}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["usage"]["prompt_tokens"]


def fill(server, context, sequences):
    """The largest steps, and nearly every block of the KV cache in use at once."""
    with urllib.request.urlopen(f"http://{server.http}/v1/models") as answer:
        name = json.load(answer)["data"][0]["id"]
    words = context // 4
    words = int((context - 16) / ask(server, name, " a" * words) * words)
    tokens = []
    # Different from their first word on, so that none shares a block with another.
    threads = [threading.Thread(target=lambda i=i: tokens.append(ask(server, name, f"{i}" + " a" * words)))
               for i in range(sequences)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == sequences and min(tokens) > 0.9 * context, (tokens, context)


def check(model, context, sequences, *flags):
    flags = [*flags, "--token-target=1h", f"--context-length={context}", f"--kv-tokens={context * sequences}",
             f"--max-batch-size={sequences}"]
    done = harness.run("dovetail", "plan", "--model", model, "--json", *flags)
    plan = {d["name"]: d for d in json.loads(done.stdout)["devices"]}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        run_dir = f"{folder}/run"
        with harness.Server(*flags, "--run-dir", run_dir, model=model, wait=False) as server, \
                Peaks(server, plan, run_dir) as peaks:
            server.wait_ready()
            loading = peaks.take()
            fill(server, context, sequences)
            running = peaks.take()
    wrong = []
    for name, planned in plan.items():
        load, run = loading[name], running[name]
        print(f"  {os.path.basename(str(model))} {name}: loading {load / MIB:.1f} of {planned['peak_load'] / MIB:.1f} MiB, "
              f"running {run / MIB:.1f} of {planned['peak_run'] / MIB:.1f} MiB")
        bound = {key: max(0.02 * planned[key], 16 * MIB) for key in ("peak_load", "peak_run")}
        # A small share loads in less than what measuring the bandwidth took before.
        if load > max(planned["peak_load"], planned["peak_run"]) + bound["peak_load"]:
            wrong.append((name, "loading"))
        if abs(run - planned["peak_run"]) > bound["peak_run"]:
            wrong.append((name, "running"))
    assert not wrong, wrong


def test_one_worker():
    check(harness.need(harness.SMOLLM2), 1024, 2, "--chunk-size=256")


def test_two_workers_with_the_head_on_one():
    check(harness.need(harness.SMOLLM2), 512, 4, "--workers=cpu:0,cpu:1", f"--rules={harness.RULES}", "--chunk-size=128")


def test_large_chunk_and_f32_cache():
    check(harness.need(harness.SMOLLM2), 512, 3, "--chunk-size=1024", "--kv-type=f32", "--threads=1")


def test_other_shapes():
    shapes = {"wide": ["--hidden", 1024, "--heads", 16, "--kv-heads", 4, "--ffn", 4096, "--layers", 4, "--type", "Q8_0"],
              "deep": ["--hidden", 256, "--heads", 4, "--kv-heads", 4, "--ffn", 512, "--layers", 40, "--type", "F32"],
              "words": ["--hidden", 256, "--heads", 8, "--kv-heads", 2, "--ffn", 256, "--layers", 2, "--vocab", 60000]}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in shapes.items():
            model = f"{folder}/{name}.gguf"
            harness.run("make-tiny-llama", model, "--context", 2048, *options)
            check(model, 512, 3, "--chunk-size=256")
            os.unlink(model)


if __name__ == "__main__":
    harness.main(globals())
