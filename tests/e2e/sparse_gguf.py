"""GGUF files with real headers and no data: large models to plan for that take no room on a disk."""
import struct

F32, Q8_0, Q4_K, Q6_K = 0, 8, 12, 14
BLOCK = {F32: (1, 4), Q8_0: (32, 34), Q4_K: (256, 144), Q6_K: (256, 210)}  # elements, bytes


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


def write(path, metadata, tensors):
    """`tensors`: (name, type, shape), columns first. Data is a hole of the right size."""
    infos, offset = b"", 0
    for name, kind, shape in tensors:
        infos += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        elements = 1
        for n in shape:
            elements *= n
        per_block, block_bytes = BLOCK[kind]
        offset += (elements // per_block * block_bytes + 31) // 32 * 32
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + _metadata(metadata) + infos
    start = (len(header) + 31) // 32 * 32
    with open(path, "wb") as file:
        file.write(header)
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
                   vocab=129280):
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
    return write(path, metadata, tensors)


def _feed_forward(block, suffix, hidden, ffn, *experts):
    return [(f"{block}ffn_{name}{suffix}.weight", kind, (*shape, *experts)) for name, kind, shape in (
        ("gate", Q4_K, (hidden, ffn)), ("up", Q4_K, (hidden, ffn)), ("down", Q6_K, (ffn, hidden)))]
