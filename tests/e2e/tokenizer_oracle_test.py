"""Tokenizers of real models against the libraries that they were published for: Hugging Face's `tokenizers` (Qwen3,
DeepSeek-V3), `tiktoken` (Kimi-K2), `sentencepiece` and mistral_common's recorded prompts (Mistral v1 and v3).

Each vocabulary is written as a GGUF file the way llama.cpp's converters do it, and read by tests/e2e/tokenize. Texts are
rendered conversations, books, what tokenizers are usually tried on, and random characters (the seed is printed). Any
difference is a failure.
"""
import base64
import functools
import gzip
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import harness

try:
    import gguf
    import jinja2
    import sentencepiece
    import tiktoken
    import tokenizers
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

import chat_template_oracle

FOLDER = harness.DATA / "tokenizers"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
RANDOM_TEXTS = 3000


def write_gguf(path, model, pre, tokens, types, merges=None, scores=None, **flags):
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model(model)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if merges is not None:
        writer.add_token_merges(merges)
    if scores is not None:
        writer.add_token_scores(scores)
    writer.add_bos_token_id(flags.get("bos", 0))
    writer.add_eos_token_id(flags.get("eos", 1))
    writer.add_add_space_prefix(flags.get("space_prefix", True))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def ours(path, texts):
    done = subprocess.run([str(harness.BIN / "tokenize"), str(path)], capture_output=True, encoding="utf-8", timeout=300,
                          input="".join(json.dumps(text) + "\n" for text in texts))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def compare(path, texts, expected_ids, expected_text=lambda text, ids: text):
    answers = ours(path, texts)
    assert len(answers) == len(texts)
    tokens, wrong = 0, []
    for text, answer in zip(texts, answers):
        want = expected_ids(text)
        tokens += len(want)
        if answer.get("ids") != want:
            wrong.append(f"{text[:200]!r}\n      want {want[:40]}\n      have {answer.get('ids', answer)}"[:1200])
        elif answer["text"] != expected_text(text, want):
            wrong.append(f"{text[:200]!r} decodes to {answer['text'][:200]!r}")
    print(f"  {len(texts)} texts, {tokens} tokens, {len(wrong)} differ")
    assert not wrong, f"{len(wrong)} of {len(texts)}:\n    " + "\n    ".join(wrong[:8])
    assert tokens > 100_000, tokens


def conversations(template_source):
    """Every conversation of the generator that the template renders."""
    template = chat_template_oracle.hugging_face_environment().from_string(template_source)
    for _, context in chat_template_oracle.contexts():
        try:
            yield template.render(**context)
        except Exception:  # a template refuses some of them
            continue


def books():
    for name in ("gutenberg-2701-moby-dick.txt", "gutenberg-2600-war-and-peace.txt"):
        text = pathlib.Path(harness.need(harness.DATA / "text" / name)).read_text(encoding="utf-8")
        for start in range(0, 400_000, 10_000):
            yield text[start : start + 2_000]


def random_texts(seed, specials):
    """Strings of characters that belong together, with everything between them that splits words."""
    rng = random.Random(seed)
    alphabets = [
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "'s't're've'm'll'dS'T", " \t\n\r\u00a0\u3000",
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "éüñßœçøåæÀÖĐŁİıſ", "абвгдежзийклмнопЁЖЮЯ", "αβγδεζηθλΣςΩ", "אבגדהוזח",
        "ابتثجحخدذرز٠١٢٣", "नमस्तेदुनियाकखगघङ१२३", "ก็ไม่ใช่สวัสดีครับ๑๒", "日本語漢字仮名かなカナー々〇", "한국어조선말가각힣", "中文简体繁體字，。！？",
        "\u0301\u0300\u0308\u0327\u0323\u0302", "🦙🚀👩‍👩‍👧‍👦🏳️‍🌈✓→∑≤½²", "ⅷⅣ①ⓐ㊀", "\u200b\u200d\ufeff\u2028", "ᄀ까ᅢᆨᆩ",
    ]
    for _ in range(RANDOM_TEXTS):
        parts = []
        for _ in range(rng.randint(1, 12)):
            if specials and rng.random() < 0.05:
                parts.append(rng.choice(specials))
                continue
            alphabet = rng.choice(alphabets)
            parts.append("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 6))))
        yield "".join(parts)


@functools.lru_cache(maxsize=1)
def usual_texts():
    return json.loads(pathlib.Path(harness.need(FOLDER / "pre-tokenizers/expected.json")).read_text())["texts"]


def all_texts(template_source, specials, seed):
    print(f"  seed {seed}")
    return [*usual_texts(), *books(), *conversations(template_source), *random_texts(seed, specials)]


def hugging_face(name, pre, seed):
    published = json.loads(gzip.decompress(pathlib.Path(harness.need(FOLDER / name / "tokenizer.json.gz")).read_bytes()))
    vocabulary = published["model"]["vocab"]
    added = {token["id"]: token for token in published["added_tokens"]}
    names = {number: token for token, number in vocabulary.items()}
    names.update({number: token["content"] for number, token in added.items()})
    tokens, types = [], []
    for number in range(max(names) + 1):
        tokens.append(names.get(number, f"[PAD{number}]"))
        types.append(NORMAL if number not in added else CONTROL if added[number]["special"] else USER_DEFINED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in published["model"]["merges"]]
    oracle = tokenizers.Tokenizer.from_str(json.dumps(published))
    config = json.loads((FOLDER / name / "tokenizer_config.json").read_text())
    specials = [token["content"] for token in published["added_tokens"]]

    def decoded(_, ids):
        return oracle.decode(ids, skip_special_tokens=False)

    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vocabulary.gguf"
        write_gguf(path, "gpt2", pre, tokens, types, merges)
        compare(path, all_texts(config["chat_template"], specials, seed),
                lambda text: oracle.encode(text, add_special_tokens=False).ids, decoded)


def test_qwen3():
    hugging_face("qwen3", "qwen2", 20261127)


def test_deepseek_v3():
    hugging_face("deepseek_v3", "deepseek-v3", 20261128)


def bytes_to_symbols():
    """GPT-2's printable stand-ins for bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def two_parts(ranks, token):
    """The merge that makes `token`: what is left of it when only earlier ranks may merge."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], 1 << 60))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


# As tokenization_kimi.py of the model has it.
KIMI_PATTERN = "|".join([
    r"""[\p{Han}]+""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""",
    r""" ?[^\s\p{L}\p{N}]+[\r\n]*""",
    r"""\s*[\r\n]+""",
    r"""\s+(?!\S)""",
    r"""\s+""",
])


def test_kimi_k2():
    lines = pathlib.Path(harness.need(FOLDER / "kimi-k2/tiktoken.model")).read_text().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines if line)}
    config = json.loads((FOLDER / "kimi-k2/tokenizer_config.json").read_text())
    special = {token["content"]: int(number) for number, token in config["added_tokens_decoder"].items()}
    oracle = tiktoken.Encoding("kimi-k2", pat_str=KIMI_PATTERN, mergeable_ranks=ranks, special_tokens=special)
    symbols = bytes_to_symbols()
    size = max(max(ranks.values()), *special.values()) + 1
    tokens, types = [f"[PAD{i}]" for i in range(size)], [CONTROL] * size
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        tokens[rank], types[rank] = "".join(symbols[byte] for byte in token), NORMAL
        if len(token) > 1:
            merges.append(" ".join("".join(symbols[byte] for byte in part) for part in two_parts(ranks, token)))
    for token, number in special.items():
        tokens[number] = token
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vocabulary.gguf"
        write_gguf(path, "gpt2", "kimi-k2", tokens, types, merges, bos=special["[BOS]"], eos=special["[EOS]"])
        compare(path, all_texts(config["chat_template"], list(special), 20261129),
                lambda text: oracle.encode(text, allowed_special="all"))


def mistral(name, version, seed):
    model = sentencepiece.SentencePieceProcessor(model_file=harness.need(FOLDER / "mistral" / name))
    tokens, types, scores = [], [], []
    for number in range(model.vocab_size()):
        tokens.append(model.id_to_piece(number))
        scores.append(model.get_score(number))
        types.append(UNKNOWN if model.is_unknown(number) else CONTROL if model.is_control(number)
                     else BYTE if model.is_byte(number) else NORMAL)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "vocabulary.gguf"
        write_gguf(path, "llama", None, tokens, types, scores=scores, bos=model.bos_id(), eos=model.eos_id())
        # SentencePiece itself never parses control tokens in a text, so there is none in these.
        template = (FOLDER / "mistral/chat_templates" / f"{version}_spm.jinja").read_text()
        texts = [text for text in all_texts(template, [], seed) if not any(s in text for s in ("<s>", "</s>", "[INST]", "[/INST]", "<unk>", "[TOOL", "[AVAIL"))]
        compare(path, texts, model.encode, lambda _, ids: model.decode(ids))


def test_mistral_v1():
    mistral("tokenizer.model.v1", "v1", 20261130)


def test_mistral_v3():
    mistral("mistral_instruct_tokenizer_240323.model.v3", "v3", 20261201)


harness.main(globals())
