"""`dovetail bench`: the keys that scripts rely on, and the bytes of weights a token reads, counted from the file."""
import json

import harness

PROMPT, GENERATE = 8, 8


def bench(model, streams, *flags):
    done = harness.run("dovetail", "bench", "--model", model, "--prompt", PROMPT, "--generate", GENERATE, "--repeat", 1, "--threads", 1,
                       "--streams", ",".join(map(str, streams)), "--json", *flags)
    return json.loads(done.stdout)


def bytes_a_step(model, streams):
    """Each matrix once; of experts as many as so many rows choose when they choose evenly; no rows of an embedding."""
    found = json.loads(harness.run("dovetail", "inspect", model, "--json").stdout)
    value = {key.split(".", 1)[1]: entry["value"] for key, entry in found["metadata"].items() if "." in key}
    names = {tensor["name"] for tensor in found["tensors"]}
    total = 0
    for tensor in found["tensors"]:
        if tensor["name"] == "token_embd.weight" and "output.weight" in names:
            continue
        share = 1.0
        if "_exps." in tensor["name"]:
            share = 1 - (1 - value["expert_used_count"] / value["expert_count"]) ** streams
        total += share * tensor["bytes"]
    return total


def check(model, *flags):
    model = harness.need(model)
    found = bench(model, [1, 3], *flags)
    assert found["prefill_tokens_per_s"] > 0 and found["prompt"] == PROMPT and found["generate"] == GENERATE, found
    assert [entry["streams"] for entry in found["decode"]] == [1, 3], found
    for entry in found["decode"]:
        assert entry["tokens_per_s"] > 0 and entry["share_of_read_bandwidth"] > 0, entry
        expected = bytes_a_step(model, entry["streams"]) / entry["streams"]
        assert abs(entry["bytes_per_token"] / expected - 1) < 0.02, (entry, expected)


def test_what_each_worker_reads_and_how_long_it_computes():
    found = bench(harness.need(harness.DATA / "golden/qwen3moe/model-bf16.gguf"), [1, 3], "--workers", "cpu:0,cpu:1", "--segments")
    for entry in found["decode"]:
        workers = entry["workers"]
        assert [worker["name"] for worker in workers] == ["cpu:0", "cpu:1"], entry
        total = sum(worker["bytes_per_step"] for worker in workers)
        assert abs(total / (entry["bytes_per_token"] * entry["streams"]) - 1) < 1e-6, entry
        computed = sum(worker["computed_ms_per_step"] for worker in workers)
        assert all(worker["segments"] >= 1 and worker["read_gb_per_s"] > 0 for worker in workers) and computed > 0, entry


def test_all_weights_of_a_dense_model():
    check(harness.SMOLLM2)


def test_only_the_experts_that_are_chosen():
    check(harness.DATA / "golden/qwen3moe/model-bf16.gguf")


def test_on_two_workers():
    check(harness.DATA / "golden/qwen3moe/model-bf16.gguf", "--workers", "cpu:0,cpu:1")


if __name__ == "__main__":
    harness.main(globals())
