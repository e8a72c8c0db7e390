"""The parts of tools/gpu_check that measure: products, a dense model on the GPU, a mixture of experts beside it; and peers.

Figures beside what was aimed at: a target that is missed is no error.
"""
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import sparse_gguf
from peers import LlamaCpp
from place import Failed, Skip

TINY_DENSE = dict(layers=2, hidden=256, ffn=512, heads=4, kv_heads=2, vocab=512)
TINY_EXPERTS = dict(dense=1, experts=16, hidden=256, heads=4, q_rank=256, ffn=512, expert_ffn=256, vocab=512)
HOP_MODEL = dict(layers=8, hidden=256, ffn=512, heads=4, kv_heads=2, vocab=512)
LAYERS = (4, 3, 2)  # of DeepSeek-V3's shapes, the first without experts; as many as there is room for
ROOM = 1 << 30  # to be left on the disk
MEMORY_FOR_FILE = 2.3  # the file in the page cache, the packed weights, the rest
PEER_ERRORS = (RuntimeError, ValueError, IndexError, KeyError, OSError, subprocess.TimeoutExpired)
PEER_PATIENCE = 240
DEPTH = 16


def part_bench(place, report, options):
    """Products by weight type and rows."""
    place.need("gpu_bench", gpu=False)
    status, seconds, out, text = place.run("gpu_bench")
    report.add("benchmark", status, seconds, text)
    return json.loads(out) if status == 0 else None


def limits(place):
    """What the GPU does at most: copies, uploads, multiplications; nothing where there is none."""
    if place.simt or not place.has("gpu_bench"):
        return {}
    status, _, out, _ = place.run("gpu_bench", "--limits")
    return json.loads(out) if status == 0 else {}


def shapes_of(place, model):
    """What a token's way through a file multiplies (one row of the head for a whole prompt left out), and its experts' bytes."""
    _, found = place.json("dovetail", "inspect", model, "--json")
    value = {key.split(".", 1)[1]: entry["value"] for key, entry in found["metadata"].items() if "." in key}
    products = expert_bytes = 0
    for tensor in found["tensors"]:
        shape, name = tensor["shape"], tensor["name"]
        if len(shape) < 2 or name in ("token_embd.weight", "output.weight"):
            continue
        elements = 1
        for n in shape:
            elements *= n
        if "_exps." in name:
            expert_bytes += tensor["bytes"]
            elements *= value["expert_used_count"] / value["expert_count"]
        products += elements
    return {"multiplications_per_token": products, "expert_bytes": expert_bytes}


@contextlib.contextmanager
def files_folder(options):
    """Where made files lie: kept if --files names it."""
    if options.files:
        os.makedirs(options.files, exist_ok=True)
        yield pathlib.Path(options.files)
    else:
        with tempfile.TemporaryDirectory() as name:
            yield pathlib.Path(name)


def make_file(path, make):
    """make(path, noise) writes it. Skips what the disk has no room for; what is there already is used."""
    done = path.with_suffix(".made")
    if done.exists() and path.exists():
        return path
    size = make(path, False)  # a hole so far
    free = shutil.disk_usage(path.parent).free - ROOM
    if size > free:
        path.unlink()
        raise Skip(f"{path.name} has {size / 1e9:.1f} GB, and {path.parent} has room for {max(free, 0) / 1e9:.1f} GB")
    make(path, True)
    done.touch()
    return path


def synthesised(synth, path):
    """By a generator of its own, as tools/bench_peers has it."""
    if not path.exists():
        done = subprocess.run([sys.executable, synth, "qwen2.5-7b", str(path)], capture_output=True, text=True)
        if done.returncode != 0:
            path.unlink(missing_ok=True)
            raise Skip(f"{synth}: {(done.stderr.strip().splitlines() or ['it failed'])[-1]}")
    return path


def dense_file(place, folder, options):
    if options.model:
        if not os.path.exists(options.model):
            raise Skip(f"{options.model} is not there")
        return pathlib.Path(options.model)
    if place.simt:
        return make_file(folder / "tiny-dense.gguf", lambda path, noise: sparse_gguf.dense_model(path, **TINY_DENSE, noise=noise))
    if options.synth:
        return synthesised(options.synth, folder / "qwen2.5-7b.gguf")
    return make_file(folder / "dense-7b.gguf", lambda path, noise: sparse_gguf.dense_model(path, noise=noise))


def available_memory():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def experts_file(place, folder, options):
    """Some layers of DeepSeek-V3's shapes: as many as memory and disk take."""
    if options.hybrid_model:
        if not os.path.exists(options.hybrid_model):
            raise Skip(f"{options.hybrid_model} is not there")
        return pathlib.Path(options.hybrid_model)
    shapes = TINY_EXPERTS if place.simt else dict(dense=1)
    why = None
    for layers in (2,) if place.simt else LAYERS:
        def make(path, noise):
            size = sparse_gguf.deepseek_model(path, layers=layers, **shapes, noise=noise)
            wanted, free = size * MEMORY_FOR_FILE, available_memory()
            if wanted > free and not noise:
                raise Skip(f"{layers} layers want {wanted / 1e9:.0f} GB of memory, {free / 1e9:.0f} GB are free")
            return size
        path = folder / f"experts-{layers}.gguf"
        try:
            return make_file(path, make)
        except Skip as reason:
            path.unlink(missing_ok=True)
            why = why or reason
    raise why


def bench(place, model, workers, *flags, prompt, generate, streams):
    """`dovetail bench`, as JSON."""
    threads = 1 if place.simt else max(1, (os.cpu_count() or 2) - 1)
    return place.json("dovetail", "bench", "--model", model, "--workers", workers, "--threads", threads, "--prompt", prompt,
                      "--generate", generate, "--streams", ",".join(map(str, streams)), "--depth", 2 if place.simt else DEPTH,
                      "--repeat", 1 if place.simt else 2, "--json", *place.job_flags, *flags)


def row(what, ours, peer=None, targets=()):
    """A line of the table: our figure, a peer's or a bound, their ratio, and which targets it reaches."""
    ratio = ours / peer if peer else None
    return {"what": what, "dovetail": ours, "other": peer, "ratio": ratio,
            "targets": [{"target": target, "reached": None if ratio is None else ratio >= target} for target in targets]}


class Peer:
    """A build of llama.cpp or a fork: its figures, or why it has none."""

    def __init__(self, name, build, flags, report, option):
        self.name, self.report, self.values, self.reason = name, report, {}, ""
        self.peer = None
        if build and os.path.exists(os.path.join(build, "bin", "llama-bench")):
            self.peer = LlamaCpp(name, build, os.cpu_count(), flags, DEPTH, PEER_PATIENCE)
        else:
            self.reason = f"{build} has no bin/llama-bench" if build else f"no build is named ({option})"

    def measure(self, what, run):
        """run(peer), unless it has failed before."""
        if self.peer is None or self.reason:
            return
        try:
            self.values.setdefault(what, []).append(run(self.peer))
        except PEER_ERRORS as error:
            self.reason = f"{what}: {error}"

    def median(self, what):
        return statistics.median(self.values[what]) if what in self.values else None

    def tell(self):
        if self.reason:
            self.report.skip(self.name, self.reason)


def streams_text(count):
    return f"decode, {count} stream{'s' if count > 1 else ''}"


# Of llama.cpp's CUDA build: without graphs and with them.
MODEL_TARGETS = {"prefill": (0.8,), streams_text(1): (1.0, 1.2), streams_text(8): (1.0,), streams_text(32): (1.0,)}


def part_model(place, report, options):
    """A dense model of seven billion parameters in Q4_K_M on one GPU worker, beside llama.cpp's CUDA build."""
    place.need("dovetail", "dovetail-worker")
    prompt, generate, streams = (16, 4, (1, 2)) if place.simt else (512, 64, (1, 8, 32))
    ours, most = {}, limits(place)
    peer = Peer("llama.cpp", options.llama, ["-ngl", "99", "-fa", "1"], report, "--llama")
    with files_folder(options) as folder:
        model = dense_file(place, folder, options)
        shapes = shapes_of(place, model)
        for _ in range(options.rounds):
            seconds, found = bench(place, model, place.worker(), prompt=prompt, generate=generate, streams=streams)
            report.add(f"model: {model.name}", 0, seconds, "")
            ours.setdefault("prefill", []).append(found["prefill_tokens_per_s"])
            peer.measure("prefill", lambda program: program.prefill(str(model), prompt))
            for entry in found["decode"]:
                count = entry["streams"]
                ours.setdefault(streams_text(count), []).append(entry["tokens_per_s"])
                peer.measure(streams_text(count), lambda program: program.decode(str(model), count, generate))
    peer.tell()
    rows = [row(what, statistics.median(values), peer.median(what), MODEL_TARGETS.get(what, ())) for what, values in ours.items()]
    result = {"model": model.name, "prompt": prompt, "rows": rows, "other": "llama.cpp", "reason": peer.reason, **shapes}
    if most:
        result["prefill_share_of_int8_peak"] = (rows[0]["dovetail"] * shapes["multiplications_per_token"] * 1e-12 /
                                                most["int8_peak_tera_multiplications_per_s"])
    return result


def figures_of(entry, worker):
    return next(found for found in entry["workers"] if found["name"] == worker)


def host_read(runs):
    """GB/s that the host's memory reads: what the CPU workers measured when they started, the best of all runs; a host that
    was busy for a moment measures less."""
    return max((figures_of(entry, "cpu:0")["read_gb_per_s"] for run in runs.values() for entry in run["decode"]), default=0)


def host_share(entry, read_gb_per_s):
    """Of that, what a decoding step reads of experts, as if choices were even."""
    reads = figures_of(entry, "cpu:0")["bytes_per_step"] * entry["tokens_per_s"] / entry["streams"]
    return reads * 1e-9 / read_gb_per_s if read_gb_per_s > 0 else None


def hop(place, work):
    """Microseconds of the way from the GPU to the CPU and back, on a small model whose every layer takes it (mlp on the CPU).

    `between`: what of a step is no segment's time, less the same of a step without a CPU worker: rings, waking up. `whole`:
    what a step takes longer than without a CPU worker, less what that computed: the GPU's waits, downloads, uploads and starts,
    too, and less what the GPU would have computed of the mlps.
    """
    model, rules = work / "hop.gguf", work / "hop.yaml"
    sparse_gguf.dense_model(model, **HOP_MODEL, noise=True)
    rules.write_text(f"- match: {{role: mlp}}\n  place: cpu:0\n- match: {{}}\n  place: {place.worker()}\n")
    steps = {}
    for name, workers, *flags in (("alone", place.worker()), ("apart", f"cpu:0,{place.worker()}", "--rules", rules)):
        seconds, found = bench(place, model, workers, *flags, "--lanes", "1", "--segments", prompt=16, streams=(1,),
                               generate=4 if place.simt else 400)
        entry = found["decode"][0]
        steps[name] = {"ms": 1e3 / entry["tokens_per_s"], "computed_ms": sum(w["computed_ms_per_step"] for w in entry["workers"]),
                       "seconds": seconds}
    cpu_ms, visits = figures_of(entry, "cpu:0")["computed_ms_per_step"], HOP_MODEL["layers"]
    alone, apart = steps["alone"], steps["apart"]
    between = (apart["ms"] - apart["computed_ms"]) - (alone["ms"] - alone["computed_ms"])
    return {"between_us": 1e3 * between / visits, "whole_us": 1e3 * (apart["ms"] - cpu_ms - alone["ms"]) / visits, "visits": visits,
            "steps": steps, "target_us": 10}


def streamed_bound(shapes, most, chunk):
    """Tokens a second at most when a chunk's experts come over the bus while the one before is multiplied; None: not known."""
    if not most:
        return None
    bus = shapes["expert_bytes"] * 1e-9 / most["upload_gb_per_s"]
    products = shapes["multiplications_per_token"] * chunk * 1e-12 / most["int8_peak_tera_multiplications_per_s"]
    return chunk / max(bus, products)


def hybrid_runs(place, report, model, rules):
    """`dovetail bench` with one lane, with two, and with streamed experts; the size of a chunk."""
    small = place.simt
    chunk, generate, many = (16, 4, 2) if small else (4096, 48, 8)
    prompt = 16 if small else 512
    runs = {}
    for what, *flags, sizes in (
            ("one lane", "--lanes", "1", dict(prompt=prompt, generate=generate, streams=(1, many))),
            ("two lanes", "--lanes", "2", dict(prompt=prompt, generate=generate, streams=(many,))),
            ("streamed", "--chunk", chunk, "--stream-experts", chunk // 2, "--stream-buffer", "64KiB" if small else "512MiB",
             dict(prompt=2 * chunk, generate=2, streams=(1,)))):
        try:
            seconds, runs[what] = bench(place, model, f"cpu:0,{place.worker()}", "--rules", rules, *flags, "--segments", **sizes)
            streamed = what != "streamed" or runs[what]["streamed_steps"] > 0
            report.add(f"hybrid: {what}", 0 if streamed else 1, seconds, "" if streamed else "no step was streamed")
        except Failed as failure:  # the others have their figures still
            report.add(f"hybrid: {what}", *failure.args)
    return runs, chunk


def hybrid_rows(runs, chunk, peer, bound):
    """Of the runs that there are."""
    rows = []
    if "one lane" in runs:
        one, many = runs["one lane"]["decode"]
        rows += [row("decode, 1 stream, beside ik_llama.cpp", one["tokens_per_s"], peer.median("decode"), (1.3,)),
                 row("prefill, experts on the CPU, beside ik_llama.cpp", runs["one lane"]["prefill_tokens_per_s"],
                     peer.median("prefill"))]
        if "two lanes" in runs:
            two = runs["two lanes"]["decode"][0]
            rows.append(row(f"decode, {two['streams']} streams, two lanes beside one", two["tokens_per_s"], many["tokens_per_s"], (1.3,)))
    if "streamed" in runs:
        rows.append(row(f"prefill, streamed in chunks of {chunk}, beside what bus and GPU allow", runs["streamed"]["prefill_tokens_per_s"],
                        bound, (0.8,)))
    return rows


def hybrid_hop(place, report, work):
    """The hop, or None where it failed."""
    try:
        found = hop(place, work)
    except Failed as failure:
        return report.add("hybrid: hops", *failure.args)
    report.add("hybrid: hops", 0, sum(step["seconds"] for step in found["steps"].values()), "")
    return found


def hybrid_layers(place, report, options, work, folder):
    """Figures of a file with DeepSeek-V3's shapes."""
    peer = Peer("ik_llama.cpp", options.ik, ["-ngl", "99", "-fa", "1", "-fmoe", "1", "-ot", "exps=CPU"], report, "--ik")
    most = limits(place)
    rules = work / "rules.yaml"
    rules.write_text(f"- match: {{role: experts}}\n  place: cpu:0\n- match: {{}}\n  place: {place.worker()}\n")
    model = experts_file(place, folder, options)
    shapes = shapes_of(place, model)
    runs, chunk = hybrid_runs(place, report, model, rules)
    peer.measure("prefill", lambda program: program.prefill(str(model), 512))
    peer.measure("decode", lambda program: program.decode(str(model), 1, 48))
    peer.tell()
    shares = [{"streams": entry["streams"], "share": host_share(entry, host_read(runs)), "target": 0.85}
              for entry in runs.get("one lane", {}).get("decode", ())]
    return {"model": model.name, "rows": hybrid_rows(runs, chunk, peer, streamed_bound(shapes, most, chunk)), "other": "the other",
            "reason": peer.reason, "runs": runs, "host_shares": shares, **shapes}


def part_hybrid(place, report, options):
    """Layers of DeepSeek-V3's shapes, experts in the host's memory and the rest on the GPU, beside ik_llama.cpp; hops."""
    place.need("dovetail", "dovetail-worker")
    with tempfile.TemporaryDirectory() as name, files_folder(options) as folder:
        result = {"hop": hybrid_hop(place, report, pathlib.Path(name))}
        try:
            result["layers"] = hybrid_layers(place, report, options, pathlib.Path(name), folder)
        except Skip as reason:  # there is the hop
            report.skip("hybrid: layers", reason)
    return result
