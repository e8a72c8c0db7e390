"""What right means: golden logits, likelihoods and greedy tokens that this project did not compute."""
import functools
import json
import pathlib
import tempfile

import numpy

import harness

GOLDEN = harness.DATA / "golden/smollm2-135m-instruct-q4_1"
VOCAB = 49152


@functools.cache
def golden():
    harness.need(harness.SMOLLM2)
    return json.loads(pathlib.Path(harness.need(GOLDEN / "golden.json")).read_text())


@functools.cache
def f32_copy(model):
    """The same model with every weight dequantised by PyPI's gguf."""
    import gguf
    reader = gguf.GGUFReader(harness.need(model))
    path = pathlib.Path(tempfile.gettempdir()) / f"dovetail-{pathlib.Path(model).stem}-f32-{harness.os.getpid()}.gguf"
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
                          .reshape([int(n) for n in reversed(tensor.shape)]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    import atexit
    atexit.register(path.unlink)
    return path


@functools.cache
def window_logits(which):
    model = f32_copy(harness.SMOLLM2) if which == "f32" else harness.SMOLLM2
    windows = golden()["wikitext_windows"]
    rows = harness.eval_logits(model, windows, VOCAB, kv_type="f32", batch=1)
    return rows.reshape(len(windows), -1, VOCAB)


def log_softmax(rows):
    rows = rows.astype(numpy.float64)
    rows -= rows.max(axis=-1, keepdims=True)
    return rows - numpy.log(numpy.exp(rows).sum(axis=-1, keepdims=True))


def check_nll(windows, logits, golden_nll):
    for window, rows, expected in zip(windows, logits, golden_nll):
        logp = log_softmax(rows[:-1])
        nll = -logp[numpy.arange(len(window) - 1), window[1:]].mean()
        print(f"  nll {nll:.6f} golden {expected:.6f}")
        assert abs(nll - expected) <= 1e-4, (nll, expected)


def window_kl(exact, ours):
    """Of each window, the mean over its rows."""
    kl = []
    for exact_rows, our_rows in zip(exact, ours):
        p, q = log_softmax(exact_rows[:-1]), log_softmax(our_rows[:-1])
        kl.append(float((numpy.exp(p) * (p - q)).sum(axis=-1).mean()))
    return kl


def test_smollm2_f32_nll():
    check_nll(golden()["wikitext_windows"], window_logits("f32"), golden()["nll"])


def test_smollm2_q4_1_kl():
    kl = window_kl(window_logits("f32"), window_logits("q4_1"))
    peer = numpy.mean(golden()["peer_kl"])
    print(f"  mean KL {numpy.mean(kl):.6f}, llama.cpp {peer:.6f}, ratio {numpy.mean(kl) / peer:.3f}")
    assert numpy.mean(kl) <= 1.1 * peer


def test_smollm2_last_rows():
    cases = golden()["cases"]
    exact = numpy.fromfile(GOLDEN / "last_logits.f32", dtype="<f4").reshape(len(cases), VOCAB)
    rows = harness.eval_logits(harness.SMOLLM2, [c["tokens"] for c in cases], VOCAB, kv_type="f32")
    ends = numpy.cumsum([len(c["tokens"]) for c in cases]) - 1
    rms = float(numpy.sqrt(numpy.mean((rows[ends].astype(numpy.float64) - exact) ** 2)))
    peer = float(numpy.sqrt(numpy.mean([c["peer_rms"] ** 2 for c in cases])))
    print(f"  pooled RMS {rms:.5f}, llama.cpp {peer:.5f}, ratio {rms / peer:.3f}")
    assert rms <= 1.5 * peer


def test_smollm2_greedy():
    cases = golden()["cases"]
    with tempfile.TemporaryDirectory() as work:
        ids = pathlib.Path(work) / "ids.json"
        ids.write_text(json.dumps([c["tokens"] for c in cases]))
        done = harness.run("dovetail", "eval", "greedy", "--model", harness.SMOLLM2, "--tokens", ids, "--n", 48,
                           "--kv-type", "f32", "--json")
    for case, tokens in zip(cases, json.loads(done.stdout)["tokens"]):
        assert len(tokens) == 48
        for position, (ours, expected, margin) in enumerate(zip(tokens, case["greedy"], case["greedy_margin"])):
            if margin <= 1.0:
                break
            assert ours == expected, (case["kind"], position, ours, expected, margin)


def test_families_bf16():
    for family in ("llama", "llama-tied"):
        folder = harness.DATA / "golden" / family
        meta = json.loads(pathlib.Path(harness.need(folder / "golden.json")).read_text())
        exact = numpy.fromfile(folder / "logits.f32", dtype="<f4").reshape(-1, meta["vocab"])
        for kv_type, bound in (("f32", 1e-4), ("f16", 5e-3)):
            lists = [c["tokens"] for c in meta["cases"]]
            rows = harness.eval_logits(folder / "model-bf16.gguf", lists, meta["vocab"], kv_type=kv_type)
            begin, ours = 0, []
            for case in meta["cases"]:
                ours.append(rows[begin + case["first_row"]: begin + case["first_row"] + case["rows"]])
                begin += len(case["tokens"])
            rms = float(numpy.sqrt(numpy.mean((numpy.concatenate(ours).astype(numpy.float64) - exact) ** 2)))
            print(f"  {family} {kv_type} RMS {rms:.2e}")
            assert rms <= bound, (family, kv_type, rms)


def test_trained_moe():
    """A small trained model of DeepSeek-V3's architecture, as published and quantised."""
    folder = harness.DATA / "golden/trained-moe"
    meta = json.loads(pathlib.Path(harness.need(folder / "golden.json")).read_text())
    windows, vocab = meta["windows"], meta["vocab"]

    def logits(model):
        return harness.eval_logits(model, windows, vocab, kv_type="f32", batch=1).reshape(len(windows), -1, vocab)

    ours = logits(folder / "model-bf16.gguf")
    check_nll(windows, ours, meta["nll"])
    exact = numpy.fromfile(folder / "logits.f32", dtype="<f4").reshape(len(windows), -1, vocab)
    rms = float(numpy.sqrt(numpy.mean((ours[:, meta["first_row"]:].astype(numpy.float64) - exact) ** 2)))
    print(f"  bf16 RMS {rms:.2e}")
    assert rms <= 1e-4, rms
    # Half of a file's divergence comes from a few rows in which another expert was chosen, so the mean is over all files.
    kl, peer = [], []
    for name, quantised in meta["quantised"].items():
        copy = logits(f32_copy(folder / name))
        check_nll(windows, copy, quantised["nll"])
        kl.append(numpy.mean(window_kl(copy, logits(folder / name))))
        peer.append(numpy.mean(quantised["peer_kl"]))
        print(f"  {name} mean KL {kl[-1]:.6f}, llama.cpp {peer[-1]:.6f}, ratio {kl[-1] / peer[-1]:.3f}")
        assert kl[-1] <= 1.25 * peer[-1], (name, kl, peer)
    print(f"  all files: ratio {numpy.mean(kl) / numpy.mean(peer):.3f}")
    assert numpy.mean(kl) <= 1.05 * numpy.mean(peer), (kl, peer)


def test_stories260k_tells_its_story():
    model = harness.need(harness.DATA / "models/stories260K/stories260Ktok512.gguf")
    with harness.Server("--workers", "cpu:0", model=model) as server:
        import urllib.request
        request = urllib.request.Request(
            f"http://{server.http}/v1/completions", headers={"Content-Type": "application/json"},
            data=json.dumps({"model": "stories260Ktok512", "prompt": "Once upon a time", "max_tokens": 60, "temperature": 0}).encode())
        text = json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["text"]
    print("  Once upon a time" + text)
    # The published model's own greedy story.
    assert text.startswith(", there was a little girl named Lily. She loved to play outside in the park."), text


def test_perplexity_command():
    text = harness.need(harness.DATA / "text")
    source = sorted(p for p in pathlib.Path(text).rglob("*") if p.is_file() and p.suffix in (".txt", ".raw"))
    if not source:
        raise harness.Skip("no text file")
    done = harness.run("dovetail", "eval", "perplexity", "--model", harness.need(harness.SMOLLM2), "--text", source[0],
                       "--context", 256, "--chunks", 2, "--json")
    result = json.loads(done.stdout)
    assert len(result["nll"]) == 2 and result["tokens"] == 2 * 255, result
    assert abs(result["perplexity"] - numpy.exp(numpy.mean(result["nll"]))) < 1e-6 * result["perplexity"]
    assert 2 < result["perplexity"] < 500, result


harness.main(globals())
