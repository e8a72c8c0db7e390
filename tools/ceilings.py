"""What a machine could do at most with a GGUF file, from its own peaks (tools/bench_peers).

A token's products at the rate of 8-bit products in a loop of nothing else, or its bytes at the rate at which memory is
read by loops of nothing else (`machine_bench`), whichever takes longer: no program can be faster.
"""
import json
import os
import subprocess

import gguf


def read_peaks(machine_bench, threads, isa):
    """(8-bit multiplications a second, bytes read a second) of `threads` threads together, the best that was seen."""
    out = subprocess.run(
        [machine_bench, f"--benchmark_filter=int8_peak/.*/threads:{threads}|read/2MiB/threads:{threads}/ahead:(0|4096)/",
         "--benchmark_format=json", "--benchmark_min_time=0.2"], capture_output=True, text=True, check=True).stdout
    products, read = {}, 0.0
    for run in json.loads(out)["benchmarks"]:
        part = run["name"].split("/")
        if part[0] == "int8_peak":
            products[part[1]] = run["GMAC/s"] * 1e9
        else:
            read = max(read, run["GB/s"] * 1e9)
    return products.get(isa) or max(products.values()), read


class TokenWork:
    """Multiplications for a token: `prompt` without the output matrix, which a prompt needs once, and `decode` with it."""

    def __init__(self, file):
        reader = gguf.GGUFReader(file)
        arch = reader.fields["general.architecture"].contents()

        def number(key):
            field = reader.fields.get(f"{arch}.{key}")
            return field.contents() if field else None

        used = (number("expert_used_count") or 1) / (number("expert_count") or 1)
        self.prompt = head = embedding = 0
        for tensor in reader.tensors:
            if len(tensor.shape) < 2:
                continue
            elements = int(tensor.n_elements)
            if tensor.name == "token_embd.weight":
                embedding = elements
            elif tensor.name == "output.weight":
                head = elements
            else:
                self.prompt += elements * (used if "_exps" in tensor.name else 1)
        self.decode = self.prompt + (head or embedding)


class Ceilings:
    """The best peaks of all rounds, and what share of the ceiling a rate is."""

    def __init__(self, machine_bench, threads, isa):
        self.command = (machine_bench, threads, isa)
        self.products = self.read = 0.0
        self.known = os.path.exists(machine_bench)

    def measure(self):
        if self.known:
            products, read = read_peaks(*self.command)
            self.products, self.read = max(self.products, products), max(self.read, read)

    def share(self, tokens_per_s, multiplications, weight_bytes):
        """And which of both bounds it is: `of products` or `of reading`."""
        if not self.known:
            return ""
        products, reading = tokens_per_s * multiplications / self.products, tokens_per_s * weight_bytes / self.read
        return f"{products:.2f} of products" if products > reading else f"{reading:.2f} of reading"
