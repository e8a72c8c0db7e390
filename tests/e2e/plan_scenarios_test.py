"""The scenarios of docs/scenarios.md: rules that are shipped, planned for on the devices that people have."""
import json
import pathlib
import tempfile

import harness

RULES = harness.SOURCE / "rules"
DEEPSEEK = {"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
            "num_attention_heads": 128, "num_key_value_heads": 128, "num_hidden_layers": 61, "n_routed_experts": 256,
            "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "q_lora_rank": 1536,
            "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_group": 8,
            "topk_group": 4, "norm_topk_prob": True, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
            "vocab_size": 129280, "max_position_embeddings": 163840}
QWEN3_30B = {"model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
             "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_hidden_layers": 48,
             "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936, "max_position_embeddings": 40960}
QWEN25_7B = {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
             "num_key_value_heads": 4, "num_hidden_layers": 28, "vocab_size": 152064, "max_position_embeddings": 32768}
QWEN25_72B = {**QWEN25_7B, "hidden_size": 8192, "intermediate_size": 29568, "num_attention_heads": 64,
              "num_key_value_heads": 8, "num_hidden_layers": 80}


def plan(config, devices, *flags, weights="Q4_K"):
    """(exit status, the plan); 2 is never expected."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "config.json"
        path.write_text(json.dumps(config))
        args = [word for device in devices for word in ("--device", device)]
        done = harness.run("dovetail", "plan", "--json", "--model-config", path, "--weight-type", weights, *args, *flags,
                           check=False, timeout=120)
    if done.returncode == 2 and "deepseek" in config["model_type"] and "not supported" in done.stdout:
        raise harness.Skip("the deepseek2 family is not there")
    assert done.returncode in (0, 3), done.stdout[-3000:] + done.stderr[-3000:]
    p = json.loads(done.stdout)
    assert p["fits"] == (done.returncode == 0)
    return done.returncode, p


def devices_of(p, what):
    return {m["device"] for m in p["modules"] if what in m["name"]}


def lint(path, *flags):
    """Lines about the file, without its folder."""
    done = harness.run("dovetail", "rules", "lint", path, *flags, check=False)
    assert done.returncode in (0, 2), done.stderr
    return [line.replace(str(path), path.name) for line in done.stdout.splitlines()]


def test_published_rules_whose_order_hides_three():
    """DeepSeek-R1 on one 24 GB card and much memory: in the printed order the card would have all experts of 31 layers."""
    article = pathlib.Path(harness.need(harness.DATA / "placement/articles/hybrid-r1.yaml"))
    devices = ["cuda:0:24GiB:sm89", "cpu:0:512GiB"]
    code, p = plan(DEEPSEEK, devices, "--rules", article)
    card = next(d for d in p["devices"] if d["name"] == "cuda:0")
    assert code == 3 and card["capacity"] == 23 << 30 and card["peak_run"] > 180 << 30, card
    offered = {s["message"]: s["settings"] for s in p["suggestions"]}
    assert "the experts of layers 30-58 on cpu:0 instead of cuda:0" in offered, offered
    said = [f"{d['line']}: {d['message']} [{d['code']}]" for d in p["diagnostics"] if d["severity"] != "note"
            or d["code"] == "better-order"]
    expected = [
        "8: all experts of layers 30-60 (31 layers, 183.09 GiB) go to cuda:0 by rule 1 (line 8), which does not name experts; "
        "a rule for `\\.mlp\\.experts$` before the others keeps them on the CPU [experts-on-gpu]",
        "22: rule 3 (line 22) never matches: all 30 modules that it names are taken by the earlier rule 0 (line 1) "
        "[shadowed-rule]",
        "22: in the order 3, 5, 0, 4, 1, 2 every rule matches (0 is the first of the file); put narrow rules before broad ones "
        "[better-order]",
        "30: rule 4 (line 30) never matches: all 31 modules that it names are taken by the earlier rule 1 (line 8) "
        "[shadowed-rule]",
        "37: rule 5 (line 37) never matches: all 27 modules that it names are taken by the earlier rule 0 (line 1) "
        "[shadowed-rule]"]
    assert said == expected, said

    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "config.json"
        config.write_text(json.dumps(DEEPSEEK))
        linted = lint(article, "--model-config", config, *(w for d in devices for w in ("--device", d)))
        for line in expected:
            line = line.replace(", 183.09 GiB", "")  # a configuration has no bytes
            number, message = line.split(": ", 1)
            assert any(l.startswith(f"hybrid-r1.yaml:{number}:3: ") and l.endswith(message) for l in linted), (line, linted)
        # What is offered does what was meant: the order, and the rule for the experts before the others.
        rules = article.read_text().split("- match:")[1:]
        order = [int(n) for n in linted[2].split("in the order ")[1].split(" every")[0].split(", ")]
        better = pathlib.Path(folder) / "better.yaml"
        experts = rules[5].replace(rules[5].splitlines()[1].split('"')[1], r"\\.mlp\\.experts$")
        better.write_text("".join("- match:" + rule for rule in [experts, *(rules[i] for i in order)]))
        code, p = plan(DEEPSEEK, devices, "--rules", better)
        assert code == 0 and devices_of(p, "mlp.experts") == {"cpu:0"}, p["suggestions"]
        assert {m["name"] for m in p["modules"] if m["device"] == "cuda:0" and m["name"].endswith("self_attn")} == {
            f"model.layers.{n}.self_attn" for n in range(30, 61)}
        assert not [l for l in lint(better, "--model-config", config) if "[experts-on-gpu]" in l]
    for shipped in ("deepseek-r1-one-card.yaml", "deepseek-r1-one-card.ktransformers.yaml"):
        code, p = plan(DEEPSEEK, devices, "--rules", RULES / shipped)
        assert code == 0 and devices_of(p, "mlp.experts") == {"cpu:0"}, shipped


def test_lint_of_our_own_rules_is_what_a_plan_would_say():
    with tempfile.TemporaryDirectory() as folder:
        rules = pathlib.Path(folder) / "r.yaml"
        rules.write_text("- {match: {layers: 0-40}, place: cpu:0}\n- {match: {layers: 2, role: mlp}, place: cpu:1}\n"
                         "- {match: {role: norm}, place: cpu:0}\n- {match: {role: lm_head}, place: cuda:7}\n")
        devices = ["--device", "cpu:0:400GiB", "--device", "cpu:1:400GiB"]
        config = pathlib.Path(folder) / "config.json"
        config.write_text(json.dumps(QWEN25_7B))
        models = {30: ["--model", harness.need(harness.SMOLLM2)], 28: ["--model-config", config]}
        for layers, model in models.items():
            assert lint(rules, *model, *devices) == [
                "r.yaml: error: no rule places model.embed_tokens; a last rule `match: {}` takes what is left [unplaced]",
                f"r.yaml:1:20: error: the rule names layer 40, but the model has {layers} layers (0-{layers - 1}) "
                "[no-such-layer]",
                "r.yaml:2:3: warning: the rule never decides: all that it matches is taken by the earlier rule at line 1 "
                "[shadowed-rule]",
                "r.yaml:4:35: error: unknown worker `cuda:7`; known: cpu:0, cpu:1 [unknown-device]"]
        rules.write_text("- {match: {layers: 0-14}, place: cpu:0}\n- {match: {layers: 10-29}, place: cpu:1}\n"
                         "- {match: {role: lm_head}, place: cpu:1, op: imma}\n- {match: {role: experts}, place: cpu:1}\n"
                         "- {match: {}, place: cpu:0}\n")
        assert lint(rules, *models[30], *devices) == [
            "r.yaml:2:20: warning: layers 10-14 belong to the earlier rule at line 1 as well, which decides [layer-overlap]",
            "r.yaml:3:3: warning: lm_head is on cpu:1 and model.norm on cpu:0: one hop more for each step, with 2304 bytes for "
            "each sequence [head-away-from-norm]",
            "r.yaml:3:46: warning: cpu:1 cannot run `imma`; it takes `p16`, with the same results [op-fallback]",
            "r.yaml:4:3: warning: the rule matches no module of the model [never-matches]"], lint(rules, *models[30], *devices)
        for flags in ([], models[30], devices):
            assert lint(rules, *flags) == [
                "r.yaml: note: only the text was judged; with --model or --model-config, and --device, this says what a plan "
                "would [text-only]"], flags
        rules.write_text("- {match: {layer: 0-14}, place: cpu:0}\n")
        assert lint(rules) == ["r.yaml:1:12: error: unknown key `layer` in `match`; did you mean `layers`? [bad-rules]"], lint(rules)


def test_one_card_of_16_gb():
    rules = ["--rules", RULES / "deepseek-one-card-16gb.yaml"]
    devices = ["cuda:0:16GiB:sm89", "cpu:0:512GiB"]
    settings = {"chunk_size": 128, "cache_lens": 28000, "max_batch_size": 3, "max_new_tokens": 8192}

    def run(**changed):
        flags = [f"--{k.replace('_', '-')}={v}" for k, v in {**settings, **changed}.items()]
        return plan(DEEPSEEK, devices, *rules, *flags)
    code, p = run()
    assert code == 0, p["suggestions"]
    card = next(d for d in p["devices"] if d["name"] == "cuda:0")
    assert card["capacity"] == 15 << 30 and card["peak_run"] <= card["capacity"], "1 GiB stays free"
    assert devices_of(p, "mlp.experts") == {"cpu:0"} and devices_of(p, "self_attn") == {"cuda:0"}
    for changed in ({"max_new_tokens": 4096}, {"cache_lens": 40960}, {"cache_lens": 20480}, {"max_batch_size": 4},
                    {"max_batch_size": 2}, {"chunk_size": 1}, {"chunk_size": 8192}, {"cache_lens": 1}, {"max_batch_size": 17}):
        code, p = run(**changed)
        assert code == 0 or p["suggestions"], (changed, "refused without figures")
    code, p = run(cache_lens=160000)
    assert code == 3 and p["suggestions"], "it cannot hold so much"


def test_beside_another_model():
    flags = ["--rules", RULES / "deepseek-one-card-16gb.yaml", "--chunk-size=128", "--cache-lens=28000", "--max-batch-size=3"]
    code, p = plan(DEEPSEEK, ["cuda:0:24GiB:sm89:reserve=8GiB", "cpu:0:512GiB"], *flags)
    card = next(d for d in p["devices"] if d["name"] == "cuda:0")
    assert card["peak_run"] < 16 << 30


def largest_context(devices, *flags, weights="Q4_K"):
    low, high = 0, 1 << 24
    while high - low > 1024:
        middle = (low + high) // 2
        code, _ = plan(DEEPSEEK, devices, f"--kv-tokens={middle}", "--max-batch-size=8", *flags, weights=weights)
        low, high = (middle, high) if code == 0 else (low, middle)
    return low


def test_every_card_adds_context_and_speed():
    with tempfile.TemporaryDirectory() as folder:
        for weights in ("Q2_K", "IQ1_S"):
            contexts, speeds = [], []
            for cards in (1, 2, 3, 4):
                devices = [f"cuda:{i}:24GiB:sm89:bw=1008GB/s" for i in range(cards)] + ["cpu:0:1TiB:bw=400GB/s:threads=64"]
                # As deepseek-four-cards.yaml, for so many cards.
                rules = pathlib.Path(folder) / "rules.yaml"
                rules.write_text("- {match: {role: [experts, embedding]}, place: cpu:0}\n- {match: {}, place: cuda:*}\n")
                if cards == 4:
                    rules = RULES / "deepseek-four-cards.yaml"
                contexts.append(largest_context(devices, "--rules", rules, weights=weights))
                # Without rules: with all experts in memory, that is what sets the pace, however many cards there are.
                _, p = plan(DEEPSEEK, devices, "--kv-tokens=16384", "--max-batch-size=8", weights=weights)
                speeds.append(p["speed"]["batched_decode_tokens_per_s"])
            print(f"  {weights}: contexts {contexts}, tokens/s with 8 requests {[round(s, 1) for s in speeds]}")
            assert sorted(set(contexts)) == contexts, contexts
            assert sorted(set(speeds)) == speeds, speeds


def test_small_cards_and_experts_in_memory():
    code, p = plan(QWEN25_7B, ["cuda:0:6GiB:sm75", "cuda:1:6GiB:sm75", "cpu:0:16GiB"],
                   "--rules", RULES / "qwen2.5-7b-two-small-cards.yaml")
    assert code == 0 and [r["device"] for r in p["route"]] == ["cpu:0", "cuda:0", "cuda:1"]
    code, p = plan(QWEN3_30B, ["cuda:0:8GiB:sm89", "cpu:0:32GiB"], "--rules", RULES / "qwen3-30b-experts-on-cpu.yaml")
    assert code == 0 and len(p["route"]) == 2 + 2 * 48, "embedding, then card and memory once per layer, then the head"


def test_cards_of_two_generations_and_sizes():
    """Whichever comes first: each has what fits it, and falls back from a kernel that it lacks by itself."""
    small, large = "8GiB:sm75:bw=448GB/s", "80GiB:sm90:bw=3350GB/s"
    marlin = harness.need(harness.DATA / "placement/ktransformers/ktransformers/DeepSeek-V3-Chat-multi-gpu.yaml")
    with tempfile.TemporaryDirectory() as folder:
        spread = pathlib.Path(folder) / "rules.yaml"
        spread.write_text("- {match: {role: embedding}, place: cpu:0}\n- {match: {}, place: cuda:*}\n")
        for sizes in ((small, large), (large, small)):
            cards = [f"cuda:{i}:{size}" for i, size in enumerate(sizes)]
            old, new = f"cuda:{sizes.index(small)}", f"cuda:{sizes.index(large)}"
            # Without rules the fast card has what it can hold and the other the rest; a group's cards have their proportions.
            for flags, least in ((["--kv-tokens=32768"], {old: 0.4, new: 0.95}),
                                 (["--kv-tokens=4096", "--rules", spread], {old: 0.8, new: 0.8})):
                code, p = plan(QWEN25_72B, [*cards, "cpu:0:64GiB"], *flags, weights="Q8_0")
                assert code == 0 and [r["device"] for r in p["route"]] == ["cpu:0", "cuda:0", "cuda:1"], p["route"]
                used = {d["name"]: d["peak_run"] / d["capacity"] for d in p["devices"]}
                assert all(least[card] <= used[card] <= 1 for card in least), used
            alone = [f"cuda:0:{large}", "cpu:0:64GiB"]
            assert plan(QWEN25_72B, alone, "--rules", spread, "--kv-tokens=32768", weights="Q8_0")[0] == 3
            code, p = plan(DEEPSEEK, [*cards, "cpu:0:512GiB"], "--rules", marlin, "--kv-tokens=4096", "--chunk-size=128")
            assert code == 0 and devices_of(p, "self_attn") == {"cuda:0", "cuda:1"} and devices_of(p, "experts[") == {"cpu:0"}
            said = [d["message"] for d in p["diagnostics"] if d["code"] == "op-fallback"]
            assert said == [f"`KLinearMarlin` needs compute capability 8.0 and {old} has 7.5; Dovetail's own kernels run there "
                            "instead, with the weights as the file has them"], said
            ops = {m["op"] for m in p["modules"] if "self_attn" in m["name"]}
            assert ops == {"attention.imma"}, "our own run from 7.5 on"


def test_both_forms_place_alike():
    """NUMA nodes and "what fits into each card" cannot be said in KTransformers' form; everything else is shipped in both."""
    cards = lambda count, size: [*(f"cuda:{n}:{size}GiB:sm89" for n in range(count)), "cpu:0:1TiB"]
    for name, config, devices in (("deepseek-four-cards", DEEPSEEK, cards(4, 24)),
                                  ("deepseek-one-card-16gb", DEEPSEEK, cards(1, 16)),
                                  ("qwen2.5-7b-two-small-cards", QWEN25_7B, cards(2, 6)),
                                  ("qwen3-30b-experts-on-cpu", QWEN3_30B, cards(1, 8))):
        flags = ("--context-length", "1024", "--kv-tokens", "1024", "--max-batch-size", "3")
        ours, theirs = (plan(config, devices, "--rules", RULES / f"{name}{form}.yaml", *flags) for form in ("", ".ktransformers"))
        assert ours[0] == theirs[0] == 0, (name, ours[1]["suggestions"], theirs[1]["suggestions"])
        place = lambda p: {m["name"]: m["device"] for m in p["modules"]}
        assert place(ours[1]) == place(theirs[1]), (name, set(place(ours[1]).items()) ^ set(place(theirs[1]).items()))
        assert not [d for d in theirs[1]["diagnostics"] if d["severity"] not in ("note",)], theirs[1]["diagnostics"]


def test_numa_nodes_and_eight_cards():
    code, p = plan(QWEN3_30B, ["cpu:0:256GiB:numa0", "cpu:1:256GiB:numa1"], "--rules", RULES / "two-numa-nodes.yaml")
    assert code == 0 and [r["device"] for r in p["route"]] == ["cpu:0", "cpu:1"]
    devices = [f"cuda:{i}:24GiB:sm89" for i in range(8)] + ["cpu:0:512GiB"]
    code, p = plan(QWEN3_30B, devices, "--rules", RULES / "eight-cards.yaml")
    # By bytes: the last layer with the head is more than an eighth of what is not experts, so seven cards hold all.
    assert code == 0 and devices_of(p, "self_attn") >= {f"cuda:{i}" for i in range(7)}


if __name__ == "__main__":
    harness.main(globals())
