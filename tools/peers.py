"""llama.cpp and its forks beside Dovetail: what their benchmarks say of a file (tools/bench_peers, tools/gpu_check)."""
import json
import os
import re
import subprocess
import tempfile


def capture(command, env=None, errors=False, timeout=900):
    """The standard output (and errors), or an exception with what went wrong. Runs in a folder of its own: some leave logs."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, cwd=folder)
    if done.returncode != 0:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise RuntimeError(f"exit {done.returncode}: {lines[-1] if lines else ''}")
    return done.stdout + (done.stderr if errors else "")


class LlamaCpp:
    """A build folder with bin/llama-bench and bin/llama-batched-bench. `depth`: tokens in the cache before decoding."""

    def __init__(self, name, build, threads, flags, depth, timeout=900):
        self.build, self.threads, self.flags, self.depth, self.timeout = os.path.abspath(build), threads, flags, depth, timeout
        self.name = name + (" " + " ".join(flags) if flags else "")

    def bench(self, file, *args):
        out = capture([os.path.join(self.build, "bin", "llama-bench"), "-m", os.path.abspath(file), "-t", str(self.threads), *self.flags, *args,
                       "-r", "1", "-o", "json"], timeout=self.timeout)
        return json.loads(out[out.index("["):])[0]["avg_ts"]

    def batched_flags(self):
        """As llama-batched-bench has them: of its own for flash attention, the rest of those that it knows."""
        pairs = list(zip(self.flags[::2], self.flags[1::2]))
        return ["-fa", "on"] + (["-rtr"] if ("-rtr", "1") in pairs else []) + [
            word for pair in pairs if pair[0] in ("-ngl", "-ot") for word in pair]

    def prefill(self, file, prompt):
        return self.bench(file, "-p", str(prompt), "-n", "0")

    def decode(self, file, streams, generate):
        if streams == 1:
            return self.bench(file, "-p", "0", "-n", str(generate))
        out = capture([os.path.join(self.build, "bin", "llama-batched-bench"), "-m", os.path.abspath(file), "-t", str(self.threads),
                       *self.batched_flags(), "-c", str(streams * (self.depth + generate + 32)), "-b", "512", "-ub", "512",
                       "-npp", str(self.depth), "-ntg", str(generate), "-npl", str(streams)], errors=True, timeout=self.timeout)
        rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in out.splitlines() if re.match(r"\|\s+\d", line)]
        return float(rows[-1][7])  # S_TG t/s
