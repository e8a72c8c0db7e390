"""GPU workers as processes: the same bytes as a CPU worker, on kernels that run on the SIMT shim (simt:N)."""
import atexit
import concurrent.futures
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import tempfile
import time
import urllib.request

import harness
import worker_memory

FAMILY = harness.DATA / "golden/deepseek3"
MODEL = FAMILY / "model-q4_k_m.gguf"
EXPERTS_ON_CPU = """
- match: {role: experts}
  place: cpu:0
- match: {}
  place: simt:0
"""


@functools.cache
def lists():
    harness.need(MODEL)
    return [case["tokens"][:40] for case in json.loads((FAMILY / "golden.json").read_text())["cases"]]


@functools.cache
def vocab():
    return json.loads((FAMILY / "golden.json").read_text())["vocab"]


def logits(**flags):
    return harness.eval_logits(harness.need(MODEL), lists(), vocab(), **flags).tobytes()


@functools.cache
def base():
    return logits(workers="cpu:0", threads=1)


def completions(server, prompts, **fields):
    """The choices of a request with a prompt or several, in their order."""
    body = json.dumps({"model": "", "prompt": prompts, "temperature": 0, "ignore_eos": True, **fields}).encode()
    request = urllib.request.Request(f"http://{server.http}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)["choices"]


def test_alone_and_in_a_row():
    assert logits(workers="simt:0", threads=1) == base()
    assert logits(workers="simt:0,simt:1", threads=1) == base()


def test_beside_a_cpu_worker():
    assert logits(workers="cpu:0,simt:0", threads=1) == base(), "placed automatically"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules:
        rules.write(EXPERTS_ON_CPU)
        rules.flush()
        assert logits(workers="cpu:0,simt:0", threads=1, rules=rules.name) == base(), "experts on the CPU"


def test_streams_experts():
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules:
        rules.write(EXPERTS_ON_CPU)
        rules.flush()
        assert logits(workers="cpu:0,simt:0", threads=1, rules=rules.name, stream_experts=8, stream_buffer="64KiB") == base()
        done = harness.run("dovetail", "plan", "--model", MODEL, "--workers=cpu:0,simt:0", f"--rules={rules.name}",
                           "--stream-experts=8", "--stream-buffer=4KiB", check=False)
        assert done.returncode != 0 and "`stream_buffer` is 4.0 KiB" in done.stdout + done.stderr, done
        with harness.Server("--workers", "cpu:0,simt:0", "--threads", "1", "--rules", rules.name, "--stream-experts", "16",
                            "--stream-buffer", "1MiB", model=MODEL) as server:
            completions(server, lists()[-1], max_tokens=3)
            # A step is counted when its answer is on its way already.
            harness.wait_for(lambda: step_counts(server)["dovetail_steps_total"] == 3, 10, "three steps")
            assert step_counts(server)["dovetail_streamed_steps_total"] == 1, step_counts(server)


def step_counts(server):
    with urllib.request.urlopen(f"http://{server.http}/metrics") as answer:
        metrics = answer.read().decode()
    return {line.split("{")[0]: float(line.split()[-1]) for line in metrics.splitlines() if "_steps_total{" in line}


def test_two_lanes_of_a_hybrid():
    """Attention on the GPU worker and experts on the CPU, with another lane's step on its way meanwhile."""
    eight = [lists()[-1][i:i + 9] for i in range(8)]
    expected = harness.eval_logits(MODEL, eight, vocab(), workers="cpu:0", threads=1, lanes=1).tobytes()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules:
        rules.write(EXPERTS_ON_CPU)
        rules.flush()
        got = harness.eval_logits(MODEL, eight, vocab(), workers="cpu:0,simt:0", threads=1, rules=rules.name, lanes=2, chunk=20)
        assert got.tobytes() == expected
        answers, steps = [], []
        for workers in (["--workers=cpu:0", "--lanes=1"], ["--workers=cpu:0,simt:0", "--lanes=2", f"--rules={rules.name}"]):
            with harness.Server(*workers, "--threads=1", "--max-batch-size=8", model=MODEL) as server:
                answers.append(completions(server, eight, max_tokens=12, logprobs=2))
                steps.append(int(server.status()["steps"]))
    assert len(answers[0]) == 8 and answers[0] == answers[1], answers
    # A prompt's step and eleven of decodes at the least; each of two lanes has its own.
    assert 12 <= steps[0] < 22 <= steps[1], steps


def test_status_says_where_a_steps_time_goes():
    """Sums by worker and kind of segment, once the workers' heartbeats have them."""
    lines = [rf"{what} +[\d.]+ ms " for what in ("cpu:0 +experts +2", "simt:0 +attention, router, shared_experts +1",
                                                "simt:0 +norm, lm_head +1")]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules:
        rules.write(EXPERTS_ON_CPU)
        rules.flush()
        with harness.Server("--workers=cpu:0,simt:0", "--threads=1", f"--rules={rules.name}", model=MODEL) as server:
            show = lambda: harness.run("dovetail", "status", "--server", server.grpc).stdout
            assert "a step's time" not in show(), "before the first step"
            completions(server, lists()[-1], max_tokens=2)
            harness.wait_for(lambda: all(re.search(line, show()) for line in lines), 10, f"{lines} in `dovetail status`")


def test_rows_go_by_links():
    for links in ("ipc", "auto", "nccl"):
        env = {"DOVETAIL_NCCL_LIBRARY": str(harness.BIN.parent / "lib/libnccl_stand_in.so")}
        assert logits(workers="simt:0,simt:1", threads=1, gpu_links=links, env=env) == base(), links


def test_without_nccl_the_edge_is_named():
    with tempfile.NamedTemporaryFile("w", suffix=".json") as tokens:
        tokens.write(json.dumps(lists()[:1]))
        tokens.flush()
        done = harness.run("dovetail", "eval", "logits", "--model", MODEL, "--tokens", tokens.name, "--out", "/dev/null", "--workers=simt:0,simt:1",
                           "--gpu-links=nccl", check=False, env={"DOVETAIL_NCCL_LIBRARY": "/nowhere/libnccl.so.2"})
    assert done.returncode != 0 and "/nowhere/libnccl.so.2" in done.stderr, done


def test_a_worker_that_dies_with_its_links_comes_back():
    library = str(harness.BIN.parent / "lib/libnccl_stand_in.so")
    os.environ["DOVETAIL_NCCL_LIBRARY"] = library
    with harness.Server("--workers", "simt:0,simt:1", "--threads", "1", "--gpu-links", "nccl", "--context-length", "400",
                        model=tiny("--hidden", 256, "--ffn", 256, "--type", "Q8_0")) as server:
        def answer(tokens):
            return completions(server, "What is it?", max_tokens=tokens)[0]["text"]
        expected = answer(100)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            running = pool.submit(answer, 100)
            time.sleep(0.3)
            os.kill(server.workers()["simt:1"], signal.SIGKILL)
            assert running.result() == expected
        assert answer(100) == expected
        log = server.stderr()
    assert log.count("simt:0 -> simt:1: rows go by NCCL") == 2, log
    lost = [line for line in log.splitlines() if " W serve: worker simt:1 was lost: " in line]
    edges = "its edges are closed: simt:0 -> simt:1 (nccl), simt:1 -> coordinator (ring)"
    assert len(lost) == 1 and lost[0].endswith(edges), log
    del os.environ["DOVETAIL_NCCL_LIBRARY"]


def test_ktransformers_file_of_a_card():
    rules = harness.SOURCE / "rules/deepseek-r1-one-card.ktransformers.yaml"
    assert logits(workers="cpu:0,simt:0", threads=1, rules=rules, map="cuda:*=simt:*") == base()


@functools.cache
def tiny(*options):
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    model = pathlib.Path(folder) / "tiny.gguf"
    harness.run("make-tiny-llama", model, "--context", 512, *options)
    return model


def completion(workers):
    model = tiny("--hidden", 256, "--ffn", 256, "--type", "Q8_0")
    with harness.Server("--workers", workers, "--threads", "1", model=model) as server:
        return completions(server, "What is it?", max_tokens=12, seed=7, temperature=1, logprobs=2, ignore_eos=False)[0]


def test_serves_the_same_answers():
    choice = completion("simt:0")
    assert choice["text"] and choice == completion("cpu:0"), choice


def test_memory_is_what_the_plan_says():
    model = tiny("--hidden", 256, "--heads", 8, "--kv-heads", 2, "--ffn", 512, "--layers", 4, "--vocab", 30000, "--type", "F16")
    worker = worker_memory.measure(model, 56, 2, "--workers=simt:0", "--threads=1", "--token-target=1h", "--context-length=64",
                                   "--kv-tokens=4096", "--max-batch-size=2", "--chunk-size=64")["simt:0"]
    for phase in ("load", "run"):
        measured, planned = worker[phase], worker["planned"][f"peak_{phase}"]
        print(f"  {phase} {measured / worker_memory.MIB:.1f} of {planned / worker_memory.MIB:.1f} MiB")
        assert abs(measured - planned) <= worker_memory.bound(planned), (phase, measured, planned)


def test_without_a_gpu_a_gpu_worker_says_why():
    if pathlib.Path("/dev/nvidiactl").exists():
        raise harness.Skip("there is a GPU")
    done = harness.run("dovetail", "bench", "--model", tiny(), "--workers", "cuda:0", "--prompt", "16",
                       "--generate", "4", check=False)
    assert done.returncode != 0, done
    text = done.stdout + done.stderr
    assert "no NVIDIA driver" in text or "no GPU kernels" in text or "no GPU" in text, text


# What the CUDA runtime asks a driver first, in a library that is older than it.
OLD_DRIVER = """
int cuDriverGetVersion(int* version) { *version = 11020; return 0; }
int cuInit(unsigned flags) { return 0; }
int cuGetProcAddress(const char* name, void** address, int version, unsigned long flags) { *address = 0; return 500; }
"""


def test_a_driver_that_is_too_old_is_named():
    if not (harness.BIN / "gpu_kernels_test").exists():
        raise harness.Skip("this build has no GPU kernels: nvcc is not here")
    with tempfile.TemporaryDirectory() as folder:
        library = pathlib.Path(folder) / "libcuda.so.1"
        harness.subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)], input=OLD_DRIVER, text=True, check=True)
        done = harness.run("dovetail-worker", "--name", "cuda:0", "--coordinator", "127.0.0.1:1", "--run-dir", folder, check=False,
                           env={"LD_LIBRARY_PATH": folder})
    assert done.returncode == 1 and "the NVIDIA driver is too old: it is for CUDA 11.2" in done.stderr, done.stderr


if __name__ == "__main__":
    harness.main(globals())
