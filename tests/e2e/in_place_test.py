"""Weights that stay in the file: the same bytes as packed ones, in memory that packed ones do not fit."""
import functools
import json
import re
import tempfile
import urllib.request

import harness

# Quantised in several types: dense with biases and tied, experts, latent attention with shared experts, biases of experts.
FAMILIES = ("llama/model-q4_0.gguf", "qwen2/model-bf16.gguf", "llama-tied/model-bf16.gguf", "mixtral/model-q5_0.gguf",
            "deepseek3/model-q4_k_m.gguf", "deepseek3/model-iq1_m-mix.gguf", "gpt-oss/model-bf16.gguf")
LATENT = ("deepseek3",)


@functools.cache
def family(name):
    folder, file = name.split("/")
    path = harness.DATA / "golden" / folder
    meta = json.loads(open(harness.need(path / "golden.json")).read())
    return harness.need(path / file), [case["tokens"] for case in meta["cases"]][:4], meta["vocab"]


@functools.cache
def packed(name):
    model, lists, vocab = family(name)
    return harness.eval_logits(model, lists, vocab, threads=2).tobytes()


def check(name, **flags):
    model, lists, vocab = family(name)
    got = harness.eval_logits(model, lists, vocab, weights="in_place", **flags).tobytes()
    assert got == packed(name), f"other bytes of {name} with {flags}"


def test_families():
    for name in FAMILIES:
        check(name, threads=2)
        check(name, threads=1, chunk=7)


def test_instruction_sets():
    for isa in ("scalar", *(i for i in ("avx2", "avx512_vnni") if i in open("/proc/cpuinfo").read())):
        check("mixtral/model-q5_0.gguf", threads=2, isa=isa.removesuffix("_vnni"))


def test_experts_on_two_workers():
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules:
        rules.write("- match: {role: experts}\n  split: {cpu:0: 1, cpu:1: 2}\n  by: experts\n"
                    "- match: {}\n  place: cpu:0\n")
        rules.flush()
        for name in ("mixtral/model-q5_0.gguf", "deepseek3/model-q4_k_m.gguf"):
            check(name, workers="cpu:0,cpu:1", threads=1, rules=rules.name)


def test_rows_shared():
    for name in FAMILIES:
        if not name.startswith(LATENT):
            check(name, workers="cpu:0,cpu:1", threads=1, rules=harness.SOURCE / "rules/rows-shared.yaml")


@functools.cache
def plan(*flags, code=0):
    done = harness.run("dovetail", "plan", "--json", "--model", harness.need(harness.SMOLLM2), "--context-length=512",
                       "--device=cpu:0:60MiB", "--chunk-size=64", "--max-batch-size=2", *flags, check=False)
    assert done.returncode == code, (done.returncode, done.stderr)
    return json.loads(done.stdout)


def test_plan_fits_what_does_not_fit_packed():
    refused, fits = plan(code=3), plan("--weights=in_place")
    assert {"weights": "in_place"} in [s["settings"] for s in refused["suggestions"]], refused["suggestions"]
    [before], [after] = refused["devices"], fits["devices"]
    assert before["weights_mapped"] == 0
    assert after["weights_packed"] < before["weights_packed"] / 100
    assert after["weights_stored"] == before["weights_stored"]
    assert after["weights_stored"] > after["weights_mapped"] > 0.99 * after["weights_stored"], after
    assert after["peak_run"] < 60 << 20


def test_serves_in_the_memory_of_its_plan():
    """The refusal names the way out, and the way leads out."""
    flags = ["--memory=cpu:0=60MiB", "--context-length=512", "--chunk-size=64", "--max-batch-size=2", "--threads=1"]
    refused = harness.run("dovetail", "serve", "--model", harness.need(harness.SMOLLM2), "--port=0", *flags, check=False)
    assert refused.returncode == 3 and "weights in_place" in refused.stderr, refused.stderr
    with harness.Server("--weights=in_place", *flags) as server:
        text = urllib.request.urlopen(f"http://{server.http}/metrics", timeout=20).read().decode()
        memory = dict(re.findall(r'dovetail_worker_memory_bytes\{.*kind="(\w+)"\} (\S+)', text))
        assert float(memory["mapped"]) > 60e6 > float(memory["planned"]) > 0, memory
        status = harness.run("dovetail", "status", "--server", server.grpc).stdout
        assert "in place" in status, status


if __name__ == "__main__":
    harness.main(globals())
