"""The scenarios of docs/scenarios.md, run: small models with the layers of the real ones, cards stood in for by workers.

Every rules file that is shipped for them gives the bytes that one worker gives. Weights are random; those of the experts of
DeepSeek-R1 are in Q2_K or IQ1_S, as in the files that people run on such machines.
"""
import atexit
import functools
import json
import pathlib
import tempfile

import numpy

import harness

try:
    import gguf
except ImportError as error:
    raise SystemExit(77) from error

RULES = harness.SOURCE / "rules"
VOCAB = 320
HIDDEN = 256
TOKENS = [[(i * 37 + j) % VOCAB for i in range(length)] for j, length in enumerate((33, 5, 1))]
SHORT = TOKENS[1:]  # for runs that are many and slow


@functools.cache
def folder():
    made = tempfile.TemporaryDirectory()
    atexit.register(made.cleanup)
    return pathlib.Path(made.name)


class Model:
    """A GGUF file with random weights, tensor by tensor."""

    def __init__(self, name, arch, layers, **metadata):
        self.path, self.arch = folder() / f"{name}.gguf", arch
        self.random = numpy.random.default_rng(7)
        self.writer = gguf.GGUFWriter(str(self.path), arch)
        self.writer.add_tokenizer_model("no_vocab")
        metadata = {"block_count": layers, "context_length": 512, "embedding_length": HIDDEN, "feed_forward_length": 256,
                    "vocab_size": VOCAB, "attention.layer_norm_rms_epsilon": 1e-5, "rope.freq_base": 1e4, **metadata}
        for key, value in metadata.items():
            key = f"{arch}.{key}"
            if isinstance(value, bool):
                self.writer.add_bool(key, value)
            elif isinstance(value, float):
                self.writer.add_float32(key, value)
            else:
                self.writer.add_uint32(key, value)
        self.matrix("token_embd", VOCAB, HIDDEN)
        self.norm("output_norm", HIDDEN)
        self.matrix("output", VOCAB, HIDDEN)

    def matrix(self, name, *shape):
        values = self.random.standard_normal(shape, dtype=numpy.float32) / numpy.sqrt(shape[-1])
        self.writer.add_tensor(name + ".weight", values.astype(numpy.float16))

    def vector(self, name, size, mean=0.0):
        self.writer.add_tensor(name, (mean + 0.1 * self.random.standard_normal(size)).astype(numpy.float32))

    def norm(self, name, size):
        self.vector(name + ".weight", size, mean=1.0)

    def blocks(self, name, kind, *shape):
        """Random codes with scales of a weight's usual size."""
        half = lambda value: numpy.frombuffer(numpy.float16(value).tobytes(), numpy.uint8)
        size = gguf.GGML_QUANT_SIZES[kind][1]
        data = self.random.integers(0, 256, (*shape[:-1], shape[-1] // 256, size), dtype=numpy.uint8)
        if kind == gguf.GGMLQuantizationType.Q2_K:  # d and dmin come last
            data[..., -4:-2], data[..., -2:] = half(0.005), half(0.006)
        else:
            data[..., :2] = half(0.008)
        self.writer.add_tensor(name + ".weight", data.reshape(*shape[:-1], -1), raw_dtype=kind)

    def mlp(self, prefix, suffix="", width=256):
        for part in ("gate", "up"):
            self.matrix(f"{prefix}ffn_{part}{suffix}", width, HIDDEN)
        self.matrix(f"{prefix}ffn_down{suffix}", HIDDEN, width)

    def experts(self, prefix, count, kind=None):
        for part in ("gate", "up", "down"):
            if kind is None:
                self.matrix(f"{prefix}ffn_{part}_exps", count, HIDDEN, HIDDEN)
            else:
                self.blocks(f"{prefix}ffn_{part}_exps", kind, count, HIDDEN, HIDDEN)

    def write(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
        return self.path


def deepseek(name, layers, first_dense, kind, sigmoid, q_rank=64):
    """`q_rank` 0: queries in one matrix, as in the Lite models."""
    heads, nope, rope, value, rank, count = 4, 16, 8, 16, 32, 4
    metadata = {"attention.head_count": heads, "attention.head_count_kv": 1, "attention.kv_lora_rank": rank,
                "attention.key_length": rank + rope, "attention.value_length": rank,
                "attention.key_length_mla": nope + rope, "attention.value_length_mla": value, "rope.dimension_count": rope,
                "leading_dense_block_count": first_dense, "expert_count": count, "expert_used_count": 2,
                "expert_shared_count": 1, "expert_feed_forward_length": HIDDEN, "expert_weights_scale": 1.5,
                "expert_weights_norm": sigmoid, "expert_gating_func": 2 if sigmoid else 1, "expert_group_count": 2,
                "expert_group_used_count": 1}
    if q_rank:
        metadata["attention.q_lora_rank"] = q_rank
    model = Model(name, "deepseek2", layers, **metadata)
    for i in range(layers):
        b = f"blk.{i}."
        for norm, size in (("attn_norm", HIDDEN), ("attn_q_a_norm", q_rank), ("attn_kv_a_norm", rank), ("ffn_norm", HIDDEN)):
            if size:
                model.norm(b + norm, size)
        if q_rank:
            model.matrix(b + "attn_q_a", q_rank, HIDDEN)
            model.matrix(b + "attn_q_b", heads * (nope + rope), q_rank)
        else:
            model.matrix(b + "attn_q", heads * (nope + rope), HIDDEN)
        model.matrix(b + "attn_kv_a_mqa", rank + rope, HIDDEN)
        model.matrix(b + "attn_k_b", heads, rank, nope)
        model.matrix(b + "attn_v_b", heads, value, rank)
        model.matrix(b + "attn_output", HIDDEN, heads * value)
        if i < first_dense:
            model.mlp(b)
            continue
        model.matrix(b + "ffn_gate_inp", count, HIDDEN)
        if sigmoid:
            model.vector(b + "exp_probs_b.bias", count)
        model.mlp(b, "_shexp")
        model.experts(b, count, kind)
    return model.write()


def attention(model, prefix, heads, kv_heads, head_dim, bias):
    for part, rows in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        model.matrix(f"{prefix}attn_{part}", rows * head_dim, HIDDEN)
        if bias:
            model.vector(f"{prefix}attn_{part}.bias", rows * head_dim)
    model.matrix(prefix + "attn_output", HIDDEN, heads * head_dim)
    model.norm(prefix + "attn_norm", HIDDEN)
    model.norm(prefix + "ffn_norm", HIDDEN)


@functools.cache
def deepseek_r1(kind):
    return deepseek(f"r1-{kind.name}", layers=61, first_dense=3, kind=kind, sigmoid=True)


@functools.cache
def deepseek_v25():
    return deepseek("v2.5", layers=60, first_dense=1, kind=gguf.GGMLQuantizationType.Q2_K, sigmoid=False)


@functools.cache
def deepseek_v2_lite():
    return deepseek("v2-lite", layers=27, first_dense=1, kind=None, sigmoid=False, q_rank=0)


@functools.cache
def qwen25_7b():
    model = Model("qwen2.5", "qwen2", 28, **{"attention.head_count": 4, "attention.head_count_kv": 2})
    for i in range(28):
        attention(model, f"blk.{i}.", 4, 2, HIDDEN // 4, bias=True)
        model.mlp(f"blk.{i}.")
    return model.write()


@functools.cache
def qwen2_57b():
    model = Model("qwen2moe", "qwen2moe", 28, **{
        "attention.head_count": 4, "attention.head_count_kv": 2, "expert_count": 4, "expert_used_count": 2,
        "expert_feed_forward_length": HIDDEN, "expert_shared_feed_forward_length": HIDDEN})
    for i in range(28):
        b = f"blk.{i}."
        attention(model, b, 4, 2, HIDDEN // 4, bias=True)
        model.matrix(b + "ffn_gate_inp", 4, HIDDEN)
        model.matrix(b + "ffn_gate_inp_shexp", 1, HIDDEN)
        model.mlp(b, "_shexp")
        model.experts(b, 4)
    return model.write()


@functools.cache
def qwen3_30b():
    model = Model("qwen3moe", "qwen3moe", 48, **{
        "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 32, "attention.value_length": 32,
        "expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": HIDDEN})
    for i in range(48):
        b = f"blk.{i}."
        attention(model, b, 4, 2, 32, bias=False)
        model.norm(b + "attn_q_norm", 32)
        model.norm(b + "attn_k_norm", 32)
        model.matrix(b + "ffn_gate_inp", 4, HIDDEN)
        model.experts(b, 4)
    return model.write()


def logits(model, lists, workers, *flags):
    with tempfile.TemporaryDirectory() as work:
        tokens, out = pathlib.Path(work) / "ids.json", pathlib.Path(work) / "out.f32"
        tokens.write_text(str(lists))
        harness.run("dovetail", "eval", "logits", "--model", model, "--tokens", tokens, "--out", out, "--threads", 1,
                    "--workers", ",".join(workers), *flags)
        data = out.read_bytes()
    values = numpy.frombuffer(data, "<f4")
    assert values.size == sum(map(len, lists)) * VOCAB and numpy.isfinite(values).all() and values.std() > 0.01
    return data


@functools.cache
def alone(model, short=False):
    return logits(model, SHORT if short else TOKENS, ["cpu:0"])


def run(model, rules, cards, maps=None):
    """`cards` GPUs stood in for by as many workers after cpu:0, at most three."""
    workers = [f"cpu:{i}" for i in range(1 + min(cards, 3))]
    maps = maps or ",".join(f"cuda:{i}=cpu:{1 + i % 3}" for i in range(cards))
    assert logits(model, TOKENS, workers, "--rules", rules, "--map", maps) == alone(model), rules
    print(f"  {pathlib.Path(rules).name}: the bytes of one worker, from {len(workers)}")


def placement(model, workers, *flags):
    """The worker of each module."""
    done = harness.run("dovetail", "plan", "--json", "--model", model, "--workers", ",".join(workers), *flags)
    return {m["name"]: m["device"] for m in json.loads(done.stdout)["modules"]}


def run_on_gpus(model, rules, cards, experts=frozenset(), short=False):
    """Cards stood in for by workers with a GPU's kernels, as many as the rules name.

    `experts`: the layers that have theirs on a card; all others have them on the CPU.
    """
    workers = ["cpu:0"] + [f"simt:{i}" for i in range(cards)]
    flags = ["--rules", rules, "--map", "cuda:*=simt:*"]
    placed = placement(model, workers, *flags)
    assert set(placed.values()) == set(workers), (rules, set(placed.values()))
    on_card = {int(name.split(".")[2]) for name, worker in placed.items()
               if ".mlp.experts" in name and worker != "cpu:0"}
    assert on_card == set(experts), (rules, on_card)
    assert logits(model, SHORT if short else TOKENS, workers, *flags) == alone(model, short), rules
    print(f"  {pathlib.Path(rules).name}: the bytes of one CPU worker, from {cards} GPUs and a CPU")


def published(*parts):
    return harness.need(harness.DATA.joinpath("placement", *parts))


def test_hybrid_files_on_gpu_kernels():
    """The article's hybrid file as printed, where its card has experts too, and in an order that does what was meant;
    KTransformers' own for four and eight cards."""
    model = deepseek_r1(gguf.GGMLQuantizationType.Q2_K)
    run_on_gpus(model, published("articles/hybrid-r1.yaml"), 1, experts=range(30, 61))
    run_on_gpus(model, RULES / "deepseek-r1-one-card.ktransformers.yaml", 1)
    for name, cards in (("DeepSeek-V3-Chat-multi-gpu-4", 4), ("DeepSeek-V3-Chat-multi-gpu-8", 8)):
        run_on_gpus(model, published(f"ktransformers/kt-sft/{name}.yaml"), cards)


def test_other_files_of_ktransformers_on_gpu_kernels():
    """Each of its files for several cards that is not above, the one that halves a model between card and CPU, and for each
    family the plain one for a card; with few tokens. Copies of a file in its other package are left out."""
    v3 = deepseek_r1(gguf.GGMLQuantizationType.Q2_K)
    for model, rules, cards, experts in (
            (v3, "ktransformers/DeepSeek-V3-Chat-multi-gpu", 2, []),
            (v3, "ktransformers/DeepSeek-V3-Chat-multi-gpu-fp8-linear-ggml-experts", 2, []),
            (v3, "ktransformers/DeepSeek-V3-Chat-multi-gpu-marlin", 2, [3, 4, 30]),
            (v3, "kt-sft/DeepSeek-V3-Chat-sft-amx-multi-gpu", 2, []),
            (v3, "kt-sft/DeepSeek-V3-Chat-sft-amx-multi-gpu-4", 4, []),
            (deepseek_v25(), "ktransformers/DeepSeek-V2-Chat-multi-gpu", 2, []),
            (deepseek_v25(), "ktransformers/DeepSeek-V2-Chat-multi-gpu-4", 4, []),
            (deepseek_v2_lite(), "ktransformers/DeepSeek-V2-Lite-Chat-gpu-cpu", 1, []),
            (deepseek_v2_lite(), "ktransformers/DeepSeek-V2-Lite-Chat-multi-gpu", 2, []),
            (deepseek_v2_lite(), "kt-sft/DeepSeek-V2-Lite-Chat-multi-gpu", 2, []),
            (deepseek_v2_lite(), "kt-sft/DeepSeek-V2-Lite-Chat-sft-amx-multi-gpu", 2, []),
            (qwen2_57b(), "ktransformers/Qwen2-57B-A14B-Instruct-multi-gpu", 2, []),
            (v3, "ktransformers/DeepSeek-V3-Chat", 1, []),
            (deepseek_v25(), "ktransformers/DeepSeek-V2-Chat", 1, []),
            (deepseek_v2_lite(), "ktransformers/DeepSeek-V2-Lite-Chat", 1, []),
            (qwen2_57b(), "ktransformers/Qwen2-57B-A14B-Instruct", 1, []),
            (qwen3_30b(), "ktransformers/Qwen3Moe-serve", 1, [])):
        run_on_gpus(model, published(f"ktransformers/{rules}.yaml"), cards, experts, short=True)


def test_deepseek_r1_on_one_card():
    """Layers 0-29 on the CPU, of the others the attention on the card; as Q2_K and as IQ1_S."""
    for kind in (gguf.GGMLQuantizationType.Q2_K, gguf.GGMLQuantizationType.IQ1_S):
        for rules in ("deepseek-r1-one-card.yaml", "deepseek-r1-one-card.ktransformers.yaml"):
            run(deepseek_r1(kind), RULES / rules, 1)
    for rules in ("deepseek-one-card-16gb.yaml", "deepseek-one-card-16gb.ktransformers.yaml", "t4.yaml",
                  "t4.ktransformers.yaml"):
        run(deepseek_r1(gguf.GGMLQuantizationType.Q2_K), RULES / rules, 1)


def test_deepseek_r1_as_the_article_printed_it():
    """In the printed order as well: nothing stops it where the memory is there."""
    run(deepseek_r1(gguf.GGMLQuantizationType.Q2_K), published("articles/hybrid-r1.yaml"), 1)


def test_deepseek_r1_on_four_and_eight_cards():
    for kind in (gguf.GGMLQuantizationType.Q2_K, gguf.GGMLQuantizationType.IQ1_S):
        for rules in ("deepseek-four-cards.yaml", "deepseek-four-cards.ktransformers.yaml"):
            run(deepseek_r1(kind), RULES / rules, 4)
    run(deepseek_r1(gguf.GGMLQuantizationType.IQ1_S), RULES / "eight-cards.yaml", 1, maps="cuda:*=cpu:1")


def test_deepseek_v25_on_three_cards():
    for rules in ("deepseek-v2.5-three-cards.yaml", "deepseek-v2.5-three-cards.ktransformers.yaml"):
        run(deepseek_v25(), RULES / rules, 3)


def test_qwen_on_small_cards_and_numa_nodes():
    for form in ("", ".ktransformers"):
        run(qwen25_7b(), RULES / f"qwen2.5-7b-two-small-cards{form}.yaml", 2)
        run(qwen3_30b(), RULES / f"qwen3-30b-experts-on-cpu{form}.yaml", 1)
    run(qwen3_30b(), RULES / "two-numa-nodes.yaml", 1, maps="numa:*=cpu:1")


harness.main(globals())
