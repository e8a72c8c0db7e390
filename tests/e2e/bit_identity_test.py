"""The same bytes of logits wherever and however they are computed: real processes, real weights."""
import functools
import json
import pathlib
import random

import harness

VOCAB = 49152
CPU = open("/proc/cpuinfo").read()


@functools.cache
def prompts():
    harness.need(harness.SMOLLM2)
    golden = json.loads(pathlib.Path(harness.need(
        harness.DATA / "golden/smollm2-135m-instruct-q4_1/golden.json")).read_text())
    return [golden["wikitext_windows"][0][:80]]


def others(count):
    rng = random.Random(5)
    return [[rng.randrange(VOCAB) for _ in range(rng.randrange(1, 90))] for _ in range(count)]


@functools.cache
def base():
    return harness.eval_logits(harness.SMOLLM2, prompts(), VOCAB, threads=2, isa="scalar").tobytes()


def check(expected=None, lists=None, rows=80, **flags):
    got = harness.eval_logits(harness.SMOLLM2, lists or prompts(), VOCAB, **flags)[:rows].tobytes()
    assert got == (expected or base()), f"other bytes with {flags}"


def test_instruction_sets():
    if "avx2" not in CPU:
        raise harness.Skip("this processor has no AVX2")
    check(threads=2, isa="avx2")
    if "avx_vnni" in CPU:
        check(threads=2, isa="avxvnni")
    if "avx512_vnni" in CPU:
        check(threads=2, isa="avx512")
    if "amx_int8" in CPU:
        check(threads=2, isa="amx")


def test_threads():
    check(threads=1)
    check(threads=2)
    check(threads=3)
    check(threads=64)  # many more than processors


def test_chunks():
    for chunk in (1, 7, 64, 512):
        check(threads=2, chunk=chunk)


def test_workers():
    check(workers="cpu:0,cpu:1", threads=1)
    check(workers="cpu:0,cpu:1,cpu:2", threads=1)
    check(workers="cpu:0,cpu:1", threads=1, rules=harness.RULES)


def test_cut_inside_layers():
    import tempfile
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules:
        rules.write("- match: {role: [attention, embedding]}\n  place: cpu:0\n"
                    "- match: {role: mlp}\n  place: cpu:1\n"
                    "- match: {role: [norm, lm_head]}\n  place: cpu:0\n")
        rules.flush()
        check(workers="cpu:0,cpu:1", threads=1, rules=rules.name)


def test_rows_shared():
    import tempfile
    check(workers="cpu:0,cpu:1", threads=1, rules=harness.SOURCE / "rules/rows-shared.yaml")
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as rules:
        rules.write("- match: {layers: 0-9}\n  place: cpu:1\n"
                    "- match: {role: mlp}\n  split: {cpu:1: 5, cpu:0: 2, cpu:2: 1}\n  by: rows\n"
                    "- match: {}\n  split: {cpu:0: 1, cpu:2: 2}\n  by: rows\n")
        rules.flush()
        check(workers="cpu:0,cpu:1,cpu:2", threads=1, rules=rules.name, chunk=33)


def test_batch_of_eight_others():
    check(lists=prompts() + others(8), threads=2)
    check(lists=prompts() + others(8), threads=2, chunk=64, workers="cpu:0,cpu:1", lanes=2)


def test_kv_f32():
    expected = harness.eval_logits(harness.SMOLLM2, prompts(), VOCAB, threads=2, kv_type="f32", isa="scalar").tobytes()
    check(expected=expected, kv_type="f32", threads=1, chunk=33, workers="cpu:0,cpu:1")


harness.main(globals())
