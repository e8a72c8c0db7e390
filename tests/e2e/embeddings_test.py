"""Embeddings over every API: what they are, that they do not depend on company, and what is refused.

What they should be comes from Hugging Face: the golden logits of a model are lm_head times what its last norm made, and
there are more logits than hidden dimensions, so the hidden states can be had back from them.
"""
import atexit
import base64
import functools
import json
import pathlib
import struct
import urllib.error
import urllib.request

import numpy

import grpc_client
import harness

try:
    import gguf
    import grpc
    import ollama
    import openai
except ImportError as error:
    raise SystemExit(77) from error


@functools.cache
def server():
    running = harness.Server("--workers", "cpu:0,cpu:1")
    running.__enter__()
    atexit.register(running.__exit__)
    return running


def client():
    return openai.OpenAI(base_url=f"http://{server().http}/v1", api_key="none", max_retries=0)


def model():
    return client().models.list().data[0].id


def post(address, path, body):
    request = urllib.request.Request(f"http://{address}{path}", headers={"Content-Type": "application/json"},
                                     data=json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=120 * harness.SLOWNESS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def hidden_from_logits(model_file, logits_file):
    """The last norm's output of every stored row, of unit length."""
    tensors = {t.name: t for t in gguf.GGUFReader(model_file).tensors}
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    weight = gguf.dequantize(head.data, head.tensor_type).astype(numpy.float64)
    logits = numpy.fromfile(logits_file, dtype="<f4").reshape(-1, weight.shape[0]).astype(numpy.float64)
    assert weight.shape[0] > weight.shape[1], weight.shape
    hidden, *_ = numpy.linalg.lstsq(weight, logits.T, rcond=None)
    return (hidden / numpy.linalg.norm(hidden, axis=0)).T


def test_hidden_states_are_those_of_hugging_face():
    for family in ("llama", "qwen3", "qwen3moe", "deepseek2-lite"):
        folder = harness.DATA / "golden" / family
        meta = json.loads(pathlib.Path(harness.need(folder / "golden.json")).read_text())
        expected = hidden_from_logits(folder / "model-bf16.gguf", folder / "logits.f32")
        with harness.Server("--workers", "cpu:0,cpu:1", "--kv-type", "f32", model=folder / "model-bf16.gguf") as running:
            _, answer = post(running.http, "/v1/embeddings", {"input": [case["tokens"] for case in meta["cases"]]})
        begin = 0
        for case, item in zip(meta["cases"], answer["data"]):
            begin += case["rows"]
            if case["first_row"] + case["rows"] != len(case["tokens"]):
                continue  # the last row is not among those stored
            ours = numpy.array(item["embedding"])
            error = float(numpy.linalg.norm(ours - expected[begin - 1]))
            print(f"  {family}: distance {error:.1e}")
            assert error < 1e-3, (family, error)


def test_real_weights_are_near_hugging_face():
    """SmolLM2 with its int8 activations beside the same weights in exact arithmetic."""
    golden = harness.DATA / "golden/smollm2-135m-instruct-q4_1"
    meta = json.loads(pathlib.Path(harness.need(golden / "golden.json")).read_text())
    expected = hidden_from_logits(harness.need(harness.SMOLLM2), golden / meta["last_logits"].split(":")[0])
    _, answer = post(server().http, "/v1/embeddings", {"input": [case["tokens"] for case in meta["cases"]]})
    ours = numpy.array([item["embedding"] for item in answer["data"]])
    assert ours.shape == expected.shape, (ours.shape, expected.shape)
    cosines = ours @ expected.T
    print("  cosine to the reference:", ", ".join(f"{c:.5f}" for c in cosines.diagonal()))
    assert (cosines.diagonal() > 0.99).all(), cosines
    assert (cosines.argmax(axis=1) == numpy.arange(len(ours))).all(), "each is nearest to its own"


def test_openai_client():
    """Floats, and base64, which this client asks for by itself; one text, many texts, token ids."""
    texts = ["The capital of France is Paris.", "Paris is the capital of France.", "A recipe for pancakes."]
    made = client().embeddings.create(model=model(), input=texts)
    assert [item.index for item in made.data] == [0, 1, 2] and made.object == "list" and made.model == model(), made
    vectors = numpy.array([item.embedding for item in made.data])
    assert vectors.shape == (3, 576) and numpy.allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-6), vectors.shape
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2], vectors @ vectors.T
    floats = client().embeddings.create(model=model(), input=texts, encoding_format="float")
    assert (numpy.array([item.embedding for item in floats.data], dtype="<f4") == vectors.astype("<f4")).all()
    alone = client().embeddings.create(model=model(), input=texts[1], encoding_format="float")
    assert alone.data[0].embedding == floats.data[1].embedding
    _, tokens = post(server().http, "/tokenize", {"content": texts[1]})
    ids = client().embeddings.create(model=model(), input=[tokens["tokens"]], encoding_format="float")
    assert ids.data[0].embedding == alone.data[0].embedding
    assert ids.usage.prompt_tokens == ids.usage.total_tokens == len(tokens["tokens"]), ids.usage


def test_base64_is_little_endian_floats():
    _, answer = post(server().http, "/v1/embeddings", {"input": "x", "encoding_format": "base64"})
    _, floats = post(server().http, "/v1/embeddings", {"input": "x"})
    raw = base64.b64decode(answer["data"][0]["embedding"], validate=True)
    expected = floats["data"][0]["embedding"]
    assert raw == struct.pack(f"<{len(expected)}f", *expected)


def test_same_bytes_in_any_company():
    """Alone, in a long list beside chats, and on one worker: the same."""
    texts = [f"Text number {i}: " + "word " * (i % 60) for i in range(100)]
    alone = [post(server().http, "/v1/embeddings", {"input": text})[1]["data"][0]["embedding"] for text in texts[:12]]
    together = post(server().http, "/v1/embeddings", {"input": texts})[1]
    assert [item["embedding"] for item in together["data"][:12]] == alone
    with harness.Server("--workers", "cpu:0", "--threads", "1") as other:
        again = post(other.http, "/v1/embeddings", {"input": texts[:12]})[1]
    assert [item["embedding"] for item in again["data"]] == alone


def test_ollama_client():
    talk = ollama.Client(host=f"http://{server().http}")
    expected = post(server().http, "/v1/embeddings", {"input": ["a", "b"]})[1]["data"]
    made = talk.embed(model=model(), input=["a", "b"])
    assert [list(v) for v in made.embeddings] == [item["embedding"] for item in expected], made
    assert made.prompt_eval_count >= 2 and made.total_duration > 0, made
    old = talk.embeddings(model=f"{model()}:latest", prompt="a")
    assert list(old.embedding) == expected[0]["embedding"]
    with harness.Server("--workers", "cpu:0", "--context-length", "256") as short:  # longer texts are cut, as Ollama does it
        cut = ollama.Client(host=f"http://{short.http}").embed(model=model(), input="word " * 1000)
        assert cut.prompt_eval_count == 256, cut.prompt_eval_count
    assert "embedding" in talk.show(model()).capabilities


def test_grpc():
    expected = post(server().http, "/v1/embeddings", {"input": ["a", "b c"]})[1]["data"]
    talk = grpc_client.ReflectionClient(server().grpc)
    made = talk.call("dovetail.v1.InferenceService/Embed", {"inputs": [{"text": "a"}, {"text": "b c"}]})
    ours = [numpy.array(e["values"], dtype="<f4") for e in made["embeddings"]]
    for got, want in zip(ours, expected, strict=True):
        assert (got == numpy.array(want["embedding"], dtype="<f4")).all()
    assert made["usage"]["prompt_tokens"] > 0, made


def test_grpc_mistakes():
    talk = grpc_client.ReflectionClient(server().grpc)
    for request, code, text in (
        ({}, "INVALID_ARGUMENT", "`inputs` must have 1 to 2048 elements, got 0"),
        ({"inputs": [{"text": "a"}, {}]}, "INVALID_ARGUMENT", "`input[1]` must not be empty"),
        ({"inputs": [{"token_ids": {"ids": [-1]}}]}, "INVALID_ARGUMENT", "has token id -1"),
        ({"inputs": [{"text": "a"}], "model": "none"}, "NOT_FOUND", "does not exist"),
    ):
        try:
            raise AssertionError(talk.call("dovetail.v1.InferenceService/Embed", request))
        except grpc.RpcError as error:
            assert error.code().name == code and text in error.details(), (request, error)


def test_mistakes():
    for body, status, text in (
        ({}, 400, "`input` is required"),
        ({"input": []}, 400, "must not be empty"),
        ({"input": ""}, 400, "must not be empty"),
        ({"input": ["a", ""]}, 400, "`input[1]` must not be empty"),
        ({"input": 5}, 400, "must be a string, or an array"),
        ({"input": [1, -2]}, 400, "`input[1]` must be a token id"),
        ({"input": [[1, 10**9]]}, 400, "has token id 1000000000"),
        ({"input": ["a", 5]}, 400, "`input[1]` must be a string or an array of token ids"),
        ({"input": ["a"] * 2049}, 400, "at most 2048"),
        ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format"),
        ({"input": "a", "dimensions": 100}, 400, "vectors have 576"),
        ({"input": "word " * 10_000}, 400, "maximum context length is 8192 tokens; it has 10"),
        ({"input": "a", "model": "none"}, 404, "does not exist"),
    ):
        got, answer = post(server().http, "/v1/embeddings", body)
        assert got == status and text in answer["error"]["message"], (body if len(str(body)) < 200 else text, got, answer)
    assert post(server().http, "/v1/embeddings", {"input": "a", "dimensions": 576, "user": "u", "extra": 1})[0] == 200


harness.main(globals())
