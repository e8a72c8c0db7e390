"""`dovetail plan` and `explain`: exit codes, the contract of the JSON, speed on a very large model, rules as schema."""
import json
import os
import pathlib
import tempfile
import time

import harness
import sparse_gguf

CARDS = ["--device", "cuda:0:24GiB:sm89:bw=1008GB/s", "--device", "cuda:1:24GiB:sm89:bw=1008GB/s"]
RAM = ["--device", "cpu:0:512GiB:numa0:threads=32:bw=200GB/s"]


def plan(*args, code=0):
    done = harness.run("dovetail", "plan", *args, "--json", check=False, timeout=120)
    assert done.returncode == code, (args, done.returncode, done.stderr[-2000:], done.stdout[-2000:])
    return json.loads(done.stdout)


def test_this_machine():
    model = harness.need(harness.SMOLLM2)
    p = plan("--model", model, "--workers", "cpu:0,cpu:1", "--rules", harness.RULES)
    assert list(p) == ["version", "fits", "devices", "modules", "route", "speed", "diagnostics", "suggestions"], list(p)
    assert p["version"] == 1 and p["fits"] and not p["diagnostics"] and not p["suggestions"]
    assert [d["name"] for d in p["devices"]] == ["cpu:0", "cpu:1"]
    assert [r["device"] for r in p["route"]] == ["cpu:0", "cpu:1"]
    assert p["modules"][0]["rule"] == {"file": str(harness.RULES), "line": 5, "index": 0}, p["modules"][0]
    assert p["speed"]["decode_tokens_per_s"] > 1
    assert all(d["bytes_per_s_basis"] == "given" for d in p["speed"]["devices"]), "measured"


def test_described_devices_and_exit_codes():
    model = harness.need(harness.SMOLLM2)
    assert plan("--model", model, *CARDS)["fits"]
    p = plan("--model", model, "--device", "cpu:0:100MiB", code=3)
    assert not p["fits"] and p["suggestions"]
    p = plan("--model", model, "--device", "gpu:0:24GiB", "--device", "cuda:0:lots", code=2)
    assert len(p["diagnostics"]) == 2 and "unknown kind of device `gpu`" in p["diagnostics"][0]["message"], p["diagnostics"]
    plan("--model", "/no/such.gguf", code=2)
    p = plan("--model", model, "--workers", "cuda:0", code=2)
    assert "the memory of cuda:0 is not known" in p["diagnostics"][0]["message"], p["diagnostics"]


def test_suggestions_are_true():
    model = harness.need(harness.SMOLLM2)
    device = ["--device", "cpu:0:360MiB:threads=2"]
    p = plan("--model", model, *device, code=3)
    tried = 0
    for suggestion in p["suggestions"]:
        if "layers" in suggestion["settings"]:
            continue
        flags = [f"--{k.replace('_', '-')}={v}" for k, v in suggestion["settings"].items()]
        assert plan("--model", model, *device, *flags)["fits"], suggestion
        tried += 1
    assert tried, p["suggestions"]


def test_explain():
    model = harness.need(harness.SMOLLM2)
    done = harness.run("dovetail", "explain", "model.layers.3.mlp", "--model", model, "--rules", harness.RULES,
                       "--workers", "cpu:0,cpu:1")
    assert f"decided by: {harness.RULES}:8:3 (rule 2 of the file)" in done.stdout, done.stdout
    done = harness.run("dovetail", "explain", "model.layers.30", "--model", model, check=False)
    assert done.returncode == 2 and "no module `model.layers.30`" in done.stderr, done.stderr


def two_models(folder, budget, **more):
    """A configuration of a tiny model and of another one with two workers."""
    for name in ("one", "two"):
        harness.run("make-tiny-llama", f"{folder}/{name}.gguf", "--context", 256)
    config = pathlib.Path(folder, "both.yaml")
    entries = [{"model": f"{folder}/one.gguf", "memory": {"cpu:0": budget}},
               {"model": f"{folder}/two.gguf", "model_name": "second", "workers": ["cpu:0", "cpu:1"],
                "memory": {"cpu:0": budget, "cpu:1": budget}, **more}]
    config.write_text(json.dumps({"models": entries, "context_length": 128}))
    return config


def test_several_models():
    with tempfile.TemporaryDirectory() as folder:
        config = two_models(folder, "100MiB")
        plans = plan("--config", config)
        assert [[d["name"] for d in p["devices"]] for p in plans] == [["cpu:0"], ["cpu:0", "cpu:1"]], plans
        assert all(p["fits"] and d["capacity"] == 100 << 20 for p in plans for d in p["devices"]), plans
        shown = harness.run("dovetail", "plan", "--config", config).stdout
        assert shown.index("model one\n") < shown.index("model second\n"), shown
        why = harness.run("dovetail", "explain", "lm_head", "--config", config).stdout
        one, second = why.removeprefix("model one\n").split("model second\n")
        assert "cpu:0" in one and "cpu:1" in second, why
        # A mistake in one is that entry's; the other is shown all the same.
        bad = two_models(folder, "100MiB", rules=f"{folder}/none.yaml")
        done = harness.run("dovetail", "plan", "--config", bad, check=False)
        assert done.returncode == 2 and "none.yaml" in done.stderr and "model one\n" in done.stdout, done
        done = harness.run("dovetail", "explain", "lm_head", "--config", bad, check=False)
        assert done.returncode == 2 and "none.yaml" in done.stderr and "model one\n" in done.stdout, done
        # One that does not fit its own budget.
        small = two_models(folder, "100MiB", kv_tokens=1 << 20)
        assert [p["fits"] for p in plan("--config", small, code=3)] == [True, False]
        for flag in (("--emit-rules", "-"), ("--model-config", "x")):
            done = harness.run("dovetail", "plan", "--config", config, *flag, check=False)
            assert done.returncode == 2 and "for one model" in done.stderr, done.stderr


def test_budgets_of_several_models_on_each_device():
    """Each device's memory is its own: more on one of them is not made good by another that has more."""
    with tempfile.TemporaryDirectory() as folder:
        config = two_models(folder, "400MiB")
        devices = lambda first: ["--device", f"cpu:0:{first}:numa0", "--device", "cpu:1:64GiB:numa1"]
        plans = plan("--config", config, *devices("1GiB"))
        assert {d["name"]: d["capacity"] for d in plans[1]["devices"]} == {"cpu:0": 400 << 20, "cpu:1": 400 << 20}, plans
        done = harness.run("dovetail", "plan", "--config", config, *devices("600MiB"), check=False)
        assert done.returncode == 3, done
        for words in ("the models' budgets are more than cpu:0 has available", "one          cpu:0  400.0 MiB",
                      "second       cpu:0  400.0 MiB", "together            800.0 MiB", "too little          200.0 MiB"):
            assert words in done.stderr, (words, done.stderr)
        assert "cpu:1" not in done.stderr, done.stderr
        # A device that has less than a budget bounds it.
        assert plan("--config", config, *devices("50MiB"), code=3)[0]["devices"][0]["capacity"] == 50 << 20


def test_chosen_rules_can_be_given_back():
    with tempfile.TemporaryDirectory() as folder:
        model, rules = f"{folder}/m.gguf", f"{folder}/r.yaml"
        sparse_gguf.experts_model(model)
        args = ["--model", model, *CARDS, *RAM]
        chosen = plan(*args, "--emit-rules", rules)
        again = plan(*args, "--rules", rules)
        assert chosen["fits"] and [m["device"] for m in chosen["modules"]] == [m["device"] for m in again["modules"]]
        assert len(pathlib.Path(rules).read_text().splitlines()) < 40, pathlib.Path(rules).read_text()


def test_a_very_large_model_takes_less_than_a_second():
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/m.gguf"
        size = sparse_gguf.experts_model(model)
        assert size > 350e9 and pathlib.Path(model).stat().st_blocks * 512 < 10e6, "not sparse"
        devices = [flag for i in range(7) for flag in ("--device", f"cuda:{i}:24GiB:sm89")] + RAM
        best = 1e9
        for _ in range(5):  # other processes may want the processor
            start = time.monotonic()
            p = plan("--model", model, *devices)
            best = min(best, time.monotonic() - start)
        print(f"  {best:.3f} s for 8 devices and {len(p['modules'])} modules")
        assert p["fits"] and best < 1.0 * harness.SLOWNESS, best
        start = time.monotonic()
        plan("--model", model, "--device", "cpu:0:64GiB", code=3)
        assert time.monotonic() - start < 5, "suggestions are computed"


def test_the_longest_rules_for_a_very_large_model_take_less_than_a_second_of_one_core():
    rules = harness.need(harness.DATA / "placement/ktransformers/ktransformers/DeepSeek-V3-Chat-multi-gpu-8.yaml")
    assert pathlib.Path(rules).read_text().count("\n") == 733
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/m.gguf"
        size = sparse_gguf.deepseek_model(model)
        assert size > 400e9 and pathlib.Path(model).stat().st_blocks * 512 < 10e6, "not sparse"
        devices = [flag for i in range(8) for flag in ("--device", f"cuda:{i}:24GiB:sm89")] + RAM
        times = []
        os.sched_setaffinity(0, {min(cores)})  # what it starts inherits that
        try:
            for _ in range(5):  # other processes may want the processor
                start = time.monotonic()
                p = plan("--model", model, "--rules", rules, *devices)
                times.append(time.monotonic() - start)
        finally:
            os.sched_setaffinity(0, cores)
    print(f"  {sorted(round(t, 3) for t in times)} s for 9 devices and {len(p['modules'])} modules")
    assert p["fits"] and min(times) < 1.0 * harness.SLOWNESS, times
    assert {m["device"] for m in p["modules"] if "mlp.experts" in m["name"]} == {"cpu:0"}


def test_a_configuration_in_place_of_a_model():
    config = {"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
              "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_hidden_layers": 48,
              "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "max_position_embeddings": 40960}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        p = plan("--model-config", path, "--device", "cuda:0:24GiB", "--device", "cpu:0:64GiB")
        stored = sum(d["weights_stored"] for d in p["devices"])
        assert 16e9 < stored < 18e9, stored  # 30.5 billion weights of 4.5 bits
        assert plan("--model-config", path, "--weight-type", "F16", "--device", "cpu:0:64GiB", code=0)["fits"]
        plan("--model-config", path, "--weight-type", "Q9", "--device", "cpu:0:64GiB", code=2)


def test_shipped_rules_and_documented_ones_fit_the_schema():
    try:
        import jsonschema
        import yaml
    except ImportError as missing:
        raise harness.Skip(str(missing))
    schema = json.loads((harness.SOURCE / "rules/schema.json").read_text())
    check = jsonschema.Draft7Validator(schema)
    own = [p for p in sorted((harness.SOURCE / "rules").rglob("*.yaml")) if "replace:" not in p.read_text()]
    assert own
    for path in own:
        errors = [e.message for e in check.iter_errors(yaml.safe_load(path.read_text()))]
        assert not errors, (path, errors)
    for block in (harness.SOURCE / "docs/rules.md").read_text().split("```yaml")[1:]:
        assert not list(check.iter_errors(yaml.safe_load(block.split("```")[0]))), block
    for bad in ({"match": {}}, {"match": {"layer": 1}, "place": "cpu:0"}, {"match": {}, "place": "cpu"},
                {"match": {}, "split": {"cpu:0": 0}}, {"match": {"role": "mlps"}, "place": "cpu:0"},
                {"match": {}, "place": "cpu:0", "op": "marlin"}, {"match": {"experts": "hot:32"}, "place": "cpu:0"}):
        assert list(check.iter_errors([bad])), bad


if __name__ == "__main__":
    harness.main(globals())
