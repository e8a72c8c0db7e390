"""GGUF files with the shapes of known models: without data, large models to plan for that take no room on a disk; with noise
for weights, models to measure speed with. Needs nothing but Python."""
import array
import random
import struct

F32, Q8_0, Q4_K, Q6_K = 0, 8, 12, 14
BLOCK = {F32: (1, 4), Q8_0: (32, 34), Q4_K: (256, 144), Q6_K: (256, 210)}  # elements, bytes
NOISE_BLOCKS = 65521  # a prime, so that rows and experts differ


def _text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def _metadata(pairs):
    out = b""
    for key, value in pairs:
        if isinstance(value, str):
            out += _text(key) + struct.pack("<I", 8) + _text(value)
        elif isinstance(value, bool):
            out += _text(key) + struct.pack("<IB", 7, value)
        elif isinstance(value, float):
            out += _text(key) + struct.pack("<If", 6, value)
        else:
            out += _text(key) + struct.pack("<II", 4, value)
    return out


def _bytes_of(kind, shape):
    elements = 1
    for n in shape:
        elements *= n
    per_block, block_bytes = BLOCK[kind]
    return elements // per_block * block_bytes


def _noise_blocks(kind, chance):
    """Some megabytes of blocks of random codes, with scales that keep activations finite."""
    size = BLOCK[kind][1]
    data = bytearray(chance.randbytes(NOISE_BLOCKS * size))
    for at in range(0, len(data), size):
        if kind == Q4_K:
            data[at:at + 4] = struct.pack("<ee", 0.0002, 0.0015)
        elif kind == Q8_0:
            data[at:at + 2] = struct.pack("<e", 0.0002)
        else:
            data[at + 192:at + 208] = bytes(value % 64 for value in data[at + 192:at + 208])
            data[at + 208:at + 210] = struct.pack("<e", 0.00005)
    return bytes(data)


def _noise(name, kind, size, blocks, chance):
    """The bytes of a tensor, piece by piece."""
    if kind == F32:
        ones = name.endswith("norm.weight")
        yield array.array("f", (1.0 if ones else chance.uniform(-0.02, 0.02) for _ in range(size // 4))).tobytes()
        return
    if kind not in blocks:
        blocks[kind] = _noise_blocks(kind, chance)
    while size > 0:
        yield blocks[kind][:size]
        size -= len(blocks[kind])


def write(path, metadata, tensors, noise=False):
    """`tensors`: (name, type, shape), columns first. Data is a hole of the right size, or noise."""
    infos, offset, places = b"", 0, []
    for name, kind, shape in tensors:
        infos += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        places.append((name, kind, offset, _bytes_of(kind, shape)))
        offset += (places[-1][3] + 31) // 32 * 32
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + _metadata(metadata) + infos
    start = (len(header) + 31) // 32 * 32
    with open(path, "wb") as file:
        file.write(header)
        blocks, chance = {}, random.Random(1)
        for name, kind, at, size in places if noise else ():
            file.seek(start + at)
            for piece in _noise(name, kind, size, blocks, chance):
                file.write(piece)
        file.truncate(start + offset)
    return start + offset


def experts_model(path, arch="minimax-m2", layers=61, hidden=7168, heads=128, kv_heads=8, head_dim=128, experts=256,
                  used=8, ffn=2048, vocab=129280):
    """All layers with experts; the defaults have 671 billion parameters."""
    metadata = [("general.architecture", arch), ("general.name", "sparse"), ("tokenizer.ggml.model", "no_vocab")]
    metadata += [(f"{arch}.{key}", value) for key, value in (
        ("block_count", layers), ("embedding_length", hidden), ("feed_forward_length", ffn), ("context_length", 163840),
        ("vocab_size", vocab), ("attention.head_count", heads), ("attention.head_count_kv", kv_heads),
        ("attention.key_length", head_dim), ("attention.value_length", head_dim),
        ("attention.layer_norm_rms_epsilon", 1e-6), ("rope.freq_base", 1e4), ("rope.dimension_count", head_dim // 2),
        ("expert_count", experts), ("expert_used_count", used), ("expert_feed_forward_length", ffn))]
    q, kv = heads * head_dim, kv_heads * head_dim
    tensors = [("token_embd.weight", Q4_K, (hidden, vocab))]
    for i in range(layers):
        b = f"blk.{i}."
        tensors += [(b + "attn_norm.weight", F32, (hidden,)), (b + "attn_q.weight", Q4_K, (hidden, q)),
                    (b + "attn_k.weight", Q4_K, (hidden, kv)), (b + "attn_v.weight", Q6_K, (hidden, kv)),
                    (b + "attn_q_norm.weight", F32, (q,)), (b + "attn_k_norm.weight", F32, (kv,)),
                    (b + "attn_output.weight", Q4_K, (q, hidden)), (b + "ffn_norm.weight", F32, (hidden,)),
                    (b + "ffn_gate_inp.weight", F32, (hidden, experts)), (b + "exp_probs_b.bias", F32, (experts,)),
                    (b + "ffn_gate_exps.weight", Q4_K, (hidden, ffn, experts)),
                    (b + "ffn_up_exps.weight", Q4_K, (hidden, ffn, experts)),
                    (b + "ffn_down_exps.weight", Q6_K, (ffn, hidden, experts))]
    tensors += [("output_norm.weight", F32, (hidden,)), ("output.weight", Q6_K, (hidden, vocab))]
    return write(path, metadata, tensors)


def deepseek_model(path, layers=61, dense=3, experts=256, hidden=7168, heads=128, q_rank=1536, ffn=18432, expert_ffn=2048,
                   vocab=129280, noise=False):
    """DeepSeek-V3's shapes: latent attention, dense layers, then layers with experts and a shared one. The defaults have
    671 billion parameters."""
    arch, kv_rank, nope, rope, value = "deepseek2", 512, 128, 64, 128
    metadata = [("general.architecture", arch), ("general.name", "sparse"), ("tokenizer.ggml.model", "no_vocab")]
    metadata += [(f"{arch}.{key}", number) for key, number in (
        ("block_count", layers), ("embedding_length", hidden), ("feed_forward_length", ffn), ("context_length", 163840),
        ("vocab_size", vocab), ("attention.head_count", heads), ("attention.head_count_kv", 1),
        ("attention.key_length", kv_rank + rope), ("attention.value_length", kv_rank),
        ("attention.key_length_mla", nope + rope), ("attention.value_length_mla", value),
        ("attention.q_lora_rank", q_rank), ("attention.kv_lora_rank", kv_rank),
        ("attention.layer_norm_rms_epsilon", 1e-6), ("rope.freq_base", 1e4), ("rope.dimension_count", rope),
        ("leading_dense_block_count", dense), ("expert_count", experts), ("expert_used_count", 8),
        ("expert_feed_forward_length", expert_ffn), ("expert_shared_count", 1), ("expert_group_count", 8),
        ("expert_group_used_count", 4), ("expert_gating_func", 2), ("expert_weights_scale", 2.5),
        ("expert_weights_norm", True))]
    tensors = [("token_embd.weight", Q4_K, (hidden, vocab))]
    for i in range(layers):
        b = f"blk.{i}."
        tensors += [(b + "attn_norm.weight", F32, (hidden,)), (b + "attn_q_a.weight", Q4_K, (hidden, q_rank)),
                    (b + "attn_q_a_norm.weight", F32, (q_rank,)),
                    (b + "attn_q_b.weight", Q4_K, (q_rank, heads * (nope + rope))),
                    (b + "attn_kv_a_mqa.weight", Q8_0, (hidden, kv_rank + rope)),
                    (b + "attn_kv_a_norm.weight", F32, (kv_rank,)), (b + "attn_k_b.weight", Q8_0, (nope, kv_rank, heads)),
                    (b + "attn_v_b.weight", Q8_0, (kv_rank, value, heads)),
                    (b + "attn_output.weight", Q4_K, (heads * value, hidden)), (b + "ffn_norm.weight", F32, (hidden,))]
        if i < dense:
            tensors += _feed_forward(b, "", hidden, ffn)
            continue
        tensors += [(b + "ffn_gate_inp.weight", F32, (hidden, experts)), (b + "exp_probs_b.bias", F32, (experts,))]
        tensors += _feed_forward(b, "_exps", hidden, expert_ffn, experts) + _feed_forward(b, "_shexp", hidden, expert_ffn)
    tensors += [("output_norm.weight", F32, (hidden,)), ("output.weight", Q6_K, (hidden, vocab))]
    return write(path, metadata, tensors, noise)


def dense_model(path, layers=28, hidden=3584, ffn=18944, heads=28, kv_heads=4, vocab=152064, noise=False):
    """Qwen2.5's shapes in the usual Q4_K_M; the defaults have 7 billion parameters."""
    arch = "qwen2"
    metadata = [("general.architecture", arch), ("general.name", "shapes"), ("tokenizer.ggml.model", "no_vocab")]
    metadata += [(f"{arch}.{key}", value) for key, value in (
        ("block_count", layers), ("embedding_length", hidden), ("feed_forward_length", ffn), ("context_length", 32768),
        ("vocab_size", vocab), ("attention.head_count", heads), ("attention.head_count_kv", kv_heads),
        ("attention.layer_norm_rms_epsilon", 1e-6), ("rope.freq_base", 1e6))]
    kv = hidden // heads * kv_heads
    tensors = [("token_embd.weight", Q4_K, (hidden, vocab))]
    for i in range(layers):
        b, wide = f"blk.{i}.", i < layers // 8 or i >= 7 * layers // 8 or (i - layers // 8) % 3 == 2
        tensors += [(b + "attn_norm.weight", F32, (hidden,)), (b + "ffn_norm.weight", F32, (hidden,))]
        for name, rows, kind in (("q", hidden, Q4_K), ("k", kv, Q4_K), ("v", kv, Q6_K if wide else Q4_K)):
            tensors += [(f"{b}attn_{name}.weight", kind, (hidden, rows)), (f"{b}attn_{name}.bias", F32, (rows,))]
        tensors += [(b + "attn_output.weight", Q4_K, (hidden, hidden)), (b + "ffn_gate.weight", Q4_K, (hidden, ffn)),
                    (b + "ffn_up.weight", Q4_K, (hidden, ffn)),
                    (b + "ffn_down.weight", Q6_K if wide else Q4_K, (ffn, hidden))]
    tensors += [("output_norm.weight", F32, (hidden,)), ("output.weight", Q6_K, (hidden, vocab))]
    return write(path, metadata, tensors, noise)


def _feed_forward(block, suffix, hidden, ffn, *experts):
    return [(f"{block}ffn_{name}{suffix}.weight", kind, (*shape, *experts)) for name, kind, shape in (
        ("gate", Q4_K, (hidden, ffn)), ("up", Q4_K, (hidden, ffn)), ("down", Q6_K, (ffn, hidden)))]
