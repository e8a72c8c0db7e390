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
    """RssAnon + shared memory + locked, of a process; 0 when it is gone. Segments are allocated whole, whatever has been
    touched of them, so the larger of what they take and what is mapped counts. Before there are any, the most that there
    was: the bandwidth is measured in a moment that is easily missed."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    anonymous, shared, locked, most, files = (
        int(values[key].split()[0]) * 1024 if key in values else 0 for key in ("RssAnon", "RssShmem", "VmLck", "VmHWM", "RssFile"))
    allocated = sum(path.stat().st_blocks * 512 for path in segments if path.exists())
    if not shared and not allocated:
        anonymous = max(anonymous, most - files)
    return anonymous + locked + max(shared, allocated)


class Peaks:
    """Watches the workers of a server from their start: the most that each had since the last take()."""

    def __init__(self, server, names, run_dir):
        self.server, self.names, self.run_dir = server, names, pathlib.Path(run_dir)
        self.workers, self.peak, self.stop = {}, {}, False
        self.thread = threading.Thread(target=self.watch)
        self.lock = threading.Lock()

    def sample(self):
        with self.lock:
            if len(self.workers) < len(self.names):
                self.workers = self.server.workers()
            for name, pid in self.workers.items():
                stem = name.replace(":", "-")
                taken = private_bytes(pid, [self.run_dir / f"{stem}.weights", self.run_dir / f"{stem}.kv"])
                self.peak[name] = max(self.peak.get(name, 0), taken)

    def watch(self):
        while not self.stop:
            self.sample()
            time.sleep(0.004)

    def take(self):
        self.sample()
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
        with harness.Server(*flags, "--weight-memory", "shared", "--run-dir", run_dir, model=model, wait=False) as server, \
                Peaks(server, plan, run_dir) as peaks:
            server.wait_ready()
            loading = peaks.take()
            fill(server, prompt_tokens, sequences)
            running = peaks.take()
    return {name: {"load": loading[name], "run": running[name], "planned": planned} for name, planned in plan.items()}
