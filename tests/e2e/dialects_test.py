"""The official clients of Anthropic's and Ollama's APIs, unmodified, against one server, and /tokenize."""
import json
import sys
import urllib.error
import urllib.request

import anthropic
import ollama
import openai

import harness

QUESTION = [{"role": "user", "content": "Name the capital of France."}]
GREEDY = {"temperature": 0}  # the newest client has no such parameter
STATE = {}


def address():
    return STATE["server"].http


def model():
    return STATE["model"]


def post(path, body):
    """(status, parsed answer)"""
    request = urllib.request.Request(f"http://{address()}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def openai_answer(**fields):
    client = openai.OpenAI(base_url=f"http://{address()}/v1", api_key="none", max_retries=0)
    return client.chat.completions.create(model=model(), **{"messages": QUESTION, "temperature": 0, "max_tokens": 24, **fields})


def anthropic_client():
    return anthropic.Anthropic(base_url=f"http://{address()}", api_key="none", max_retries=0)


def test_anthropic_message():
    fields = {"model": model(), "max_tokens": 24, "messages": QUESTION, "extra_body": GREEDY}
    message = anthropic_client().messages.create(**fields)
    reference = openai_answer()
    assert message.type == "message" and message.role == "assistant" and message.id.startswith("msg_"), message
    assert message.content[0].type == "text" and message.content[0].text == reference.choices[0].message.content, message
    assert message.stop_reason == ("end_turn" if reference.choices[0].finish_reason == "stop" else "max_tokens"), message
    assert message.usage.output_tokens == reference.usage.completion_tokens, message
    total = message.usage.input_tokens + message.usage.cache_read_input_tokens
    assert total == reference.usage.prompt_tokens, message
    assert message._request_id, "no request-id"
    counted = anthropic_client().messages.count_tokens(model=model(), messages=QUESTION)
    assert counted.input_tokens == total, counted


def test_anthropic_stream():
    whole = openai_answer().choices[0].message.content
    kinds = []
    with anthropic_client().messages.stream(model=model(), max_tokens=24, messages=QUESTION, extra_body=GREEDY) as stream:
        for event in stream:
            kinds.append(event.type)
        final = stream.get_final_message()
    assert final.content[0].text == whole, final
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop", kinds
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 1, kinds
    assert final.stop_reason in ("end_turn", "max_tokens") and final.usage.output_tokens > 0, final
    with anthropic_client().messages.stream(model=model(), max_tokens=24, messages=QUESTION, extra_body=GREEDY) as stream:
        assert "".join(stream.text_stream) == whole


def test_anthropic_system_blocks_and_stop():
    whole = openai_answer().choices[0].message.content
    stop = whole[len(whole) // 2:][:3]
    message = anthropic_client().messages.create(
        model=model(), max_tokens=24, extra_body=GREEDY, stop_sequences=[stop],
        messages=[{"role": "user", "content": [{"type": "text", "text": "Name the capital of France."}]}])
    assert "".join(b.text for b in message.content) == whole[:whole.index(stop)], (whole, stop, message)
    assert message.stop_reason == "stop_sequence" and message.stop_sequence == stop, message
    with anthropic_client().messages.stream(model=model(), max_tokens=24, messages=QUESTION, extra_body=GREEDY,
                                            stop_sequences=["\n\n\n", stop]) as stream:
        streamed = stream.get_final_message()
    assert streamed.stop_reason == "stop_sequence" and streamed.stop_sequence == stop, streamed
    with_system = anthropic_client().messages.count_tokens(model=model(), messages=QUESTION, system="You are brief.")
    assert with_system.input_tokens != anthropic_client().messages.count_tokens(model=model(), messages=QUESTION).input_tokens


def test_anthropic_errors():
    create = anthropic_client().messages.create
    good = {"model": model(), "max_tokens": 4, "messages": QUESTION}
    harness.expect(anthropic.NotFoundError, "does not exist", lambda: create(**{**good, "model": "no-such-model"}))
    harness.expect(anthropic.BadRequestError, "messages", lambda: create(**{**good, "messages": []}))
    harness.expect(anthropic.BadRequestError, "temperature", lambda: create(**good, extra_body={"temperature": 5.0}))
    error = harness.expect(anthropic.BadRequestError, "thinking",
                   lambda: create(**good, thinking={"type": "enabled", "budget_tokens": 1024}))
    assert error.body["type"] == "error" and error.body["error"]["type"] == "invalid_request_error", error.body
    # The same before a stream: a status and not an event.
    harness.expect(anthropic.BadRequestError, "max_tokens", lambda: create(**{**good, "max_tokens": -1}, stream=True))


TOOL = {"name": "get_weather", "description": "The weather of a city.", "input_schema": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"], "additionalProperties": False}}


def test_anthropic_tools():
    fields = {"model": model(), "max_tokens": 100, "extra_body": {"temperature": 0}, "tools": [TOOL],
              "tool_choice": {"type": "tool", "name": "get_weather"},
              "messages": [{"role": "user", "content": "What is the weather in Paris?"}]}
    message = anthropic_client().messages.create(**fields)
    call = message.content[-1]
    assert message.stop_reason == "tool_use" and call.type == "tool_use" and call.name == "get_weather", message
    assert isinstance(call.input["city"], str) and call.id, message
    with anthropic_client().messages.stream(**fields) as stream:
        streamed = stream.get_final_message()
    assert streamed.content[-1].input == call.input and streamed.stop_reason == "tool_use", streamed
    # The result goes back, and the conversation on.
    after = anthropic_client().messages.create(model=model(), max_tokens=8, tools=[TOOL], tool_choice={"type": "none"}, messages=[
        *fields["messages"], {"role": "assistant", "content": [call.model_dump(include={"type", "id", "name", "input"})]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Sunny."}]}])
    assert after.stop_reason in ("end_turn", "max_tokens"), after


def test_ollama_format():
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"], "additionalProperties": False}
    client = ollama.Client(host=f"http://{address()}")
    answer = client.chat(model=model(), messages=QUESTION, format=schema, options={"temperature": 0, "num_predict": 100})
    assert isinstance(json.loads(answer.message.content)["city"], str), answer


def test_ollama_chat():
    client = ollama.Client(host=f"http://{address()}")
    options = {"temperature": 0, "num_predict": 24}
    whole = client.chat(model=model(), messages=QUESTION, options=options)
    reference = openai_answer()
    assert whole.message.content == reference.choices[0].message.content, whole
    assert whole.done and whole.done_reason == reference.choices[0].finish_reason, whole
    assert whole.eval_count == reference.usage.completion_tokens, whole
    assert whole.prompt_eval_count == reference.usage.prompt_tokens, whole
    assert whole.total_duration >= whole.prompt_eval_duration > 0, whole
    parts = list(client.chat(model=model() + ":latest", messages=QUESTION, options=options, stream=True))
    assert "".join(p.message.content for p in parts) == whole.message.content
    assert [p.done for p in parts] == [False] * (len(parts) - 1) + [True], parts
    assert parts[-1].eval_count == whole.eval_count, parts[-1]


def test_ollama_generate():
    client = ollama.Client(host=f"http://{address()}")
    options = {"temperature": 0, "num_predict": 12}
    chat = client.generate(model=model(), prompt="Name the capital of France.", options=options)
    assert chat.response == openai_answer(max_tokens=12).choices[0].message.content, chat
    raw = client.generate(model=model(), prompt="The capital of France is", raw=True, options=options)
    plain = openai.OpenAI(base_url=f"http://{address()}/v1", api_key="none").completions.create(
        model=model(), prompt="The capital of France is", temperature=0, max_tokens=12)
    assert raw.response == plain.choices[0].text, raw
    parts = list(client.generate(model=model(), prompt="The capital of France is", raw=True, options=options, stream=True))
    assert "".join(p.response for p in parts) == raw.response
    loaded = client.generate(model=model(), prompt="", keep_alive="5m")
    assert loaded.done and loaded.done_reason == "load", loaded


def test_ollama_models():
    client = ollama.Client(host=f"http://{address()}")
    listed = client.list().models
    assert [m.model for m in listed] == [model()] and listed[0].size > 10e6, listed
    assert listed[0].details.family == "llama" and listed[0].details.quantization_level == "Q4_1", listed
    shown = client.show(model())
    assert shown.modelinfo["general.architecture"] == "llama" and "{%" in shown.template, shown
    assert "completion" in shown.capabilities, shown
    running = client.ps().models
    assert running[0].model == model() and running[0].context_length > 0, running
    with urllib.request.urlopen(f"http://{address()}/api/version", timeout=20) as response:
        assert json.load(response)["version"]


def test_ollama_errors():
    client = ollama.Client(host=f"http://{address()}")
    error = harness.expect(ollama.ResponseError, "does not exist", lambda: client.chat(model="none", messages=QUESTION))
    assert error.status_code == 404, error
    harness.expect(ollama.ResponseError, "num_ctx", lambda: client.chat(model=model(), messages=QUESTION, options={"num_ctx": 10**6}))
    harness.expect(ollama.ResponseError, "num_predict", lambda: client.chat(model=model(), messages=QUESTION, options={"num_predict": -4}))
    harness.expect(ollama.ResponseError, "images", lambda: client.chat(model=model(), messages=[{**QUESTION[0], "images": [b"x"]}]))
    assert harness.expect(ollama.ResponseError, "not managed", lambda: client.pull("x")).status_code == 501


def test_tokenize():
    status, answer = post("/tokenize", {"model": model(), "prompt": "Hello, world!"})
    assert status == 200 and answer["count"] == len(answer["tokens"]) > 2, answer
    status, back = post("/detokenize", {"tokens": answer["tokens"]})
    assert status == 200 and back["prompt"] == back["content"] == "Hello, world!", back
    status, chat = post("/tokenize", {"messages": QUESTION})
    assert status == 200 and chat["count"] == openai_answer(max_tokens=1).usage.prompt_tokens, chat
    with urllib.request.urlopen(f"http://{address()}/tokenizer_info", timeout=20) as response:
        info = json.load(response)
    assert info["eos_token"] == "<|im_end|>" and info["vocab_size"] == 49152 and "{%" in info["chat_template"], info
    assert len(post("/tokenize", {"prompt": info["eos_token"], "add_special_tokens": False})[1]["tokens"]) == 1
    for path, body, word in (("/tokenize", {}, "prompt"), ("/tokenize", {"prompt": 7}, "prompt"),
                             ("/tokenize", {"prompt": "x", "model": "none"}, "none"),
                             ("/detokenize", {"tokens": [10**9]}, "tokens[0]"), ("/detokenize", {"tokens": "x"}, "tokens")):
        status, answer = post(path, body)
        assert status in (400, 404) and word in answer["error"]["message"], (path, body, status, answer)


if __name__ == "__main__":
    if not harness.SMOLLM2.exists():
        print(f"skipped: {harness.SMOLLM2} is absent")
        sys.exit(77)
    with harness.Server("--workers", "cpu:0", "--threads", "2") as STATE["server"]:
        with urllib.request.urlopen(f"http://{address()}/v1/models", timeout=20) as listed:
            STATE["model"] = json.load(listed)["data"][0]["id"]
        harness.main(globals())
