"""The parts of tools/gpu_check that compare: kernels, models and worker processes with a CPU's bytes; links; sanitizers."""
import importlib.util
import json
import os
import pathlib
import shutil
import tempfile
import time

from place import NO_DEVICE, Failed

SMALL = "QuantizeTest.*:*EveryKernelOnce*:KvAppendTest.*:*EveryShapeOnce:Elementwise*:Device*.*:*SeveralMatrices*"
FIRST = "deepseek3/model-q4_k_m.gguf"  # whose every route is tried


def part_kernels(place, report, options):
    """Each kernel's bytes against the reference."""
    place.need("gpu_kernels_test", gpu=False)
    status, seconds, _, text = place.run("gpu_kernels_test")
    report.add("kernels", status, seconds, text)


def part_golden(place, report, options):
    """Golden models on GPU workers, and on GPU and CPU workers together, against CPU workers."""
    place.need("gpu_golden_test", gpu=False)
    status, seconds, _, text = place.run("gpu_golden_test")
    report.add("golden models", status, seconds, text)


def part_sanitizer(place, report, options):
    """compute-sanitizer on small shapes."""
    tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.path.exists(tool):
        return report.skip("compute-sanitizer", "it is not there")
    place.need("gpu_kernels_test", gpu=False)
    for check in ("memcheck", "racecheck", "synccheck"):
        status, seconds, _, text = place.run("gpu_kernels_test", f"--gtest_filter={SMALL}",
                                             before=(tool, "--tool", check, "--error-exitcode", "9"))
        report.add(check, status, seconds, text)


def golden_models(data):
    """One of each family, the smallest, as paths in the data's golden folder; FIRST comes first."""
    smallest = {}
    for file in sorted((data / "golden").glob("*/model-*.gguf"), key=lambda file: file.stat().st_size):
        smallest.setdefault(file.parent.name, f"{file.parent.name}/{file.name}")
    if (data / "golden" / FIRST).exists():
        smallest = {"deepseek3": FIRST} | {family: name for family, name in smallest.items() if family != "deepseek3"}
    return list(smallest.values())


class Logits:
    """Of one golden model, by worker processes."""

    def __init__(self, place, work, name):
        self.place, self.work, self.model = place, pathlib.Path(work), place.data / "golden" / name
        vocab = json.loads((self.model.parent / "golden.json").read_text()).get("vocab", 250)
        (self.work / "tokens.json").write_text(json.dumps([[i * 37 % min(vocab, 250) for i in range(60)], [3, 1, 4, 1, 5]]))
        self.rules = self.work / "rules.yaml"
        self.rules.write_text(f"- match: {{role: experts}}\n  place: cpu:0\n- match: {{}}\n  place: {place.worker()}\n")

    def run(self, workers, *flags, **environment):
        """(status, seconds, text, bytes)"""
        out = self.work / "logits.f32"
        out.unlink(missing_ok=True)
        status, seconds, _, text = self.place.run(
            "dovetail", "eval", "logits", "--model", self.model, "--tokens", self.work / "tokens.json", "--out", out,
            "--workers", workers, *self.place.job_flags, *flags, patience=240, **environment)
        return status, seconds, text, out.read_bytes() if status == 0 else b""

    def expected(self):
        status, seconds, text, found = self.run("cpu:0")
        if status != 0:
            raise Failed(status, seconds, text)
        return found

    def compare(self, report, what, expected, workers, *flags, **environment):
        status, seconds, text, found = self.run(workers, *flags, **environment)
        if status == 0 and found != expected:
            status, text = 1, "the logits differ from those of a CPU worker"
        report.add(what, status, seconds, text)

    def has_experts(self):
        _, found = self.place.json("dovetail", "inspect", self.model, "--json")
        return any("_exps." in tensor["name"] for tensor in found["tensors"])


def two_on_one(place):
    """Two workers on the one GPU that there is: their names and flags."""
    both = f"{place.worker(0)},{place.worker(1)}"
    return (both,) if place.simt else (both, "--gpus", f"{place.worker(1)}=0")


def every_route(place, report, name):
    """One model: GPU workers alone, two on one GPU, and beside a CPU worker, which computes experts or keeps them."""
    with tempfile.TemporaryDirectory() as work:
        logits = Logits(place, work, name)
        expected, family = logits.expected(), name.split("/")[0]
        apart = (f"cpu:0,{place.worker()}", "--rules", logits.rules)
        for what, *flags in (
                ("one GPU worker", place.worker()),
                ("two on one GPU, by the host", *two_on_one(place)),
                ("two on one GPU, by mapped memory (CUDA IPC)", *two_on_one(place), "--gpu-links", "ipc"),
                ("experts on the CPU", *apart),
                ("streamed experts", *apart, "--stream-experts", "8", "--stream-buffer", "64KiB")):
            logits.compare(report, f"{family}: {what}", expected, *flags)


def part_processes(place, report, options):
    """Workers as processes: two on one GPU with a link by CUDA IPC, experts that are streamed; then the other families."""
    place.need("dovetail", "dovetail-worker")
    names = golden_models(place.data)
    if not names:
        return report.skip("processes", "no golden models here")
    begin = time.monotonic()
    every_route(place, report, names[0])
    for at, name in enumerate(names[1:], 1):
        if time.monotonic() - begin > options.seconds:
            return report.skip(f"{len(names) - at} more families", f"no time is left of {options.seconds} s (--seconds)")
        with tempfile.TemporaryDirectory() as work:
            logits, family = Logits(place, work, name), name.split("/")[0]
            expected = logits.expected()
            logits.compare(report, f"{family}: one GPU worker", expected, place.worker())
            if logits.has_experts():
                logits.compare(report, f"{family}: experts on the CPU", expected, f"cpu:0,{place.worker()}", "--rules", logits.rules)


def nccl_library():
    """Which library to name: that of Python's package where there is one and nobody says; none: where the linker looks."""
    if "DOVETAIL_NCCL_LIBRARY" in os.environ:
        return {}
    try:
        found = importlib.util.find_spec("nvidia.nccl")
    except ImportError:
        return {}
    for folder in found.submodule_search_locations or () if found else ():
        library = pathlib.Path(folder) / "lib" / "libnccl.so.2"
        if library.exists():
            return {"DOVETAIL_NCCL_LIBRARY": str(library)}
    return {}


def two_ranks(place, report, library):
    """Two workers on one GPU, which NCCL refuses; the stand-in joins them, and refuses them if it is told to."""
    names = golden_models(place.data)
    if not names:
        return report.skip("two ranks", "no golden models here")
    edge = f"{place.worker(0)} -> {place.worker(1)}"
    with tempfile.TemporaryDirectory() as work:
        logits = Logits(place, work, names[0])
        flags = (*two_on_one(place), "--gpu-links", "nccl")
        if place.simt:
            logits.compare(report, "two GPU workers, by NCCL", logits.expected(), *flags, **library)
        status, seconds, text, _ = logits.run(*flags, NCCL_STAND_IN_HAS_ONE_GPU="1", **library)
        named = status not in (0, 124) and any(edge in line and "NCCL refuses" in line for line in text.splitlines())
        if not named:
            text += f"\nexpected a refusal that names {edge}"
        report.add("two ranks on one GPU are refused, by edge", 0 if named else 1, seconds, text)


def part_nccl(place, report, options):
    """The NCCL that is here, as far as one GPU goes."""
    place.need("gpu_nccl", gpu=False)
    library = nccl_library()
    seconds, found = place.json("gpu_nccl", place.worker(), patience=240, **library)
    for check in found["checks"]:
        report.add(f"NCCL: {check['name']}", check["status"], seconds, check["text"])
        seconds = 0
    if all(check["status"] == 0 for check in found["checks"]):
        place.need("dovetail", "dovetail-worker")
        two_ranks(place, report, library)
    elif all(check["status"] in (0, NO_DEVICE) for check in found["checks"]):
        report.skip("NCCL: two ranks on one GPU", found["checks"][-1]["text"])
    return found
