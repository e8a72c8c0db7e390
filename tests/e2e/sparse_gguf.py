"""GGUF files with real headers and no data: large models to plan for that take no room on a disk."""
import struct

F32, Q4_K, Q6_K = 0, 12, 14
BLOCK = {F32: (1, 4), Q4_K: (256, 144), Q6_K: (256, 210)}  # elements, bytes


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
