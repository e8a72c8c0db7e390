"""Copies a GGUF file without a tokenizer and gives the copy one, for programs that refuse files without (tools/bench_peers)."""
import gzip
import json

import gguf


def read_tokenizer(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as f:
        return json.load(f)


def give_tokenizer(source, tokenizer_json, target):
    """The tensors of `source` and the byte-level BPE of a tokenizer.json; ids that it has not are fillers."""
    reader, tokenizer = gguf.GGUFReader(source), read_tokenizer(tokenizer_json)
    arch = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, arch)
    for key, field in reader.fields.items():
        if key.startswith(("GGUF.", "tokenizer.")) or key in ("general.architecture", "general.file_type"):
            continue
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=field.types[-1] if array else None)
    writer.add_uint32("general.file_type", gguf.LlamaFileType.MOSTLY_Q4_K_M)
    count = reader.fields[f"{arch}.vocab_size"].contents()
    tokens = [f"[filler {i}]" for i in range(count)]
    types = [gguf.TokenType.UNUSED] * count
    for text, i in tokenizer["model"]["vocab"].items():
        tokens[i], types[i] = text, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], kind
    last = max(added["id"] for added in tokenizer["added_tokens"] if added["special"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    for add in (writer.add_eos_token_id, writer.add_bos_token_id, writer.add_pad_token_id):
        add(last)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
