"""What the workers of a server take, as the kernel counts it, beside what the plan says."""
import json
import pathlib
import tempfile
import threading
import time
import urllib.request

import harness

MIB = 1 << 20
ANSWER_TOKENS = 8


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
    body = {"model": name, "prompt": prompt, "max_tokens": ANSWER_TOKENS, "temperature": 1, "top_p": 0.9, "top_k": 40}
    request = urllib.request.Request(f"http://{server.http}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["usage"]["prompt_tokens"]


def fill(server, prompt_tokens, sequences):
    """The largest steps, with as many sequences at once. Prompts are token ids, different from their first one on, so
    that none shares a block with another."""
    with urllib.request.urlopen(f"http://{server.http}/v1/models") as answer:
        name = json.load(answer)["data"][0]["id"]
    tokens = []
    threads = [threading.Thread(target=lambda i=i: tokens.append(
        ask(server, name, [20 + (7 * i + j) % 200 for j in range(prompt_tokens)]))) for i in range(sequences)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tokens == [prompt_tokens] * sequences, (tokens, prompt_tokens, sequences)


def bound(planned):
    """How far a measured peak may be from the planned one."""
    return max(0.02 * planned, 16 * MIB)


def measure(model, prompt_tokens, sequences, *flags):
    """Peaks of each worker: {name: {"load", "run", "planned"}}; "planned" is its entry in the plan's JSON. Refused: an
    AssertionError with what was said."""
    done = harness.run("dovetail", "plan", "--model", model, "--json", *flags)
    plan = {d["name"]: d for d in json.loads(done.stdout)["devices"]}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        run_dir = f"{folder}/run"
        with harness.Server(*flags, "--run-dir", run_dir, model=model, wait=False) as server, \
                Peaks(server, plan, run_dir) as peaks:
            server.wait_ready()
            loading = peaks.take()
            fill(server, prompt_tokens, sequences)
            running = peaks.take()
    return {name: {"load": loading[name], "run": running[name], "planned": planned} for name, planned in plan.items()}
