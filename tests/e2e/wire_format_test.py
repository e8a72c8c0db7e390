"""What the official openai client checks or breaks on, as bytes on the wire.

 #  what it needs                                      here and where else
 1  streams are chunked, end with [DONE] and a last    test_01_*; ResponseWireTest, HttpStreamTest.LateErrors...,
    chunk; a failure is an event, a death no end       lifecycle_test (the second signal)
 2  `error` is in an event only if it is one           events_of() for every stream of this file, test_01_late_error
 3  every event has data that is JSON                  raw_http.read_events() for every stream of this file
 4  no `id:`, so that comments are harmless            the same; test_04_keep_alive, HttpStreamTest.KeepAliveComes...
 5  valid UTF-8, no line break inside an event         test_05_*; StreamingDetokenizer, StopMatcherTest
 6  JSON content type, no field missing                test_06_*; openai_client_test check_strict_shapes
 7  deltas can be added up                             events_of(), test_07_*; openai_client_test check_stream_helper,
                                                       check_tool_stream_helper, OpenAiEncoderTest
 8  `choices` and `delta` never null, choice 0 first   events_of(), test_08_*; HttpStreamTest.ChoicesOfOnePrompt...
 9  the first delta of a call has `type`; `length`     test_07_tools; openai_client_test check_cut_off_answers
    and calls can be parsed
10  what may be retried and when                       test_10_*; HttpServerTest.LoadingIs503..., RetryEstimatorTest
11  many connections, kept alive                       test_11_*, test_04_keep_alive; HttpLoadTest
12  `error` is an object with four members             error_of() for every refusal of this file, test_12_*;
                                                       openai_client_test check_errors, security_test (401)
13  usage has three integers                           usage_of(), test_13_*
"""
import http.client
import json
import os
import re
import signal
import threading
import time

import openai

import harness
from raw_http import Connection, ask

STATE = {}
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
QUESTION = {"messages": [{"role": "user", "content": "Name the capital of France."}], "temperature": 0, "max_tokens": 12}
PROMPT = {"prompt": "The capital of France is", "temperature": 0, "max_tokens": 12}
TOOLS = {"tool_choice": "required", "max_tokens": 300, "tools": [
    {"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2]}},
        "required": ["city", "days"], "additionalProperties": False}}} for name in ("get_weather", "get_time")]}
FINISH_REASONS = ("stop", "length", "tool_calls")


def post(path, *bodies, headers=()):
    fields = {k: v for body in bodies for k, v in body.items()}
    return ask(STATE["server"].http, "POST", path, fields, headers)


def usage_of(answer):
    usage = answer["usage"]
    numbers = [usage[k] for k in ("prompt_tokens", "completion_tokens", "total_tokens")]
    assert all(type(n) is int for n in numbers) and numbers[0] + numbers[1] == numbers[2], usage
    return usage


def check_delta(delta):
    """Only what the client adds up rightly: no numbers, and lists of objects that carry an index."""
    for key, value in delta.items():
        assert value is None or isinstance(value, (str, list)), (key, value)
        for item in value if isinstance(value, list) else []:
            assert type(item["index"]) is int, delta


def events_of(response, chat=True):
    """The chunks of a stream that ended well, without [DONE]; checks what holds for all of them."""
    assert response.status == 200, (response.status, response.body)
    *chunks, done = response.events()
    assert done == "[DONE]", done
    first = chunks[0]
    for chunk in chunks:
        assert not chunk.get("error"), chunk
        for key in ("id", "created", "model", "system_fingerprint", "object"):
            assert chunk[key] == first[key], (key, chunk)
        assert chunk["object"] == ("chat.completion.chunk" if chat else "text_completion"), chunk
        assert type(chunk["choices"]) is list, chunk
        for choice in chunk["choices"]:
            assert type(choice["index"]) is int and "finish_reason" in choice and "logprobs" in choice, choice
            assert choice["finish_reason"] in (None, *FINISH_REASONS), choice
            if chat:
                assert type(choice["delta"]) is dict, choice
                check_delta(choice["delta"])
            else:
                assert type(choice["text"]) is str, choice
    return chunks


def error_of(response, status):
    assert response.status == status, (response.status, response.body)
    assert response.headers["content-type"].startswith("application/json"), response.headers
    assert response.headers["x-request-id"], response.headers
    body = response.json()
    assert list(body) == ["error"] and set(body["error"]) == {"message", "type", "param", "code"}, body
    error = body["error"]
    assert error["message"] and error["type"], error
    assert all(error[k] is None or type(error[k]) is str for k in error), error
    return error


def text_of(chunks, index=0):
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"] if c["index"] == index)


# 1: how streams end.

def test_01_streams_are_chunked_and_end_with_done():
    with Connection(STATE["server"].http) as connection:
        for path, body in ((CHAT, QUESTION), (COMPLETIONS, PROMPT)) * 2:  # all on one connection: each ends where it says
            response = connection.ask("POST", path, {**body, "stream": True})
            assert response.headers["transfer-encoding"] == "chunked", response.headers
            assert response.headers["content-type"].startswith("text/event-stream"), response.headers
            assert response.headers["cache-control"] == "no-cache" and response.headers["x-accel-buffering"] == "no"
            assert response.headers["connection"] == "keep-alive", response.headers
            events_of(response, chat=path == CHAT)
            assert response.body.endswith(b"\n\ndata: [DONE]\n\n")
            for chunk in response.chunks:  # a client that decodes chunk by chunk sees whole events
                assert chunk.endswith(b"\n\n") and chunk.startswith((b"data: ", b": ")), chunk


def test_01_late_error_is_an_event_and_early_one_a_status():
    long = {**PROMPT, "max_tokens": 8000, "ignore_eos": True}
    with harness.Server("--workers", "cpu:0", "--threads", "2", "--request-timeout", "4s") as server:
        response = ask(server.http, "POST", COMPLETIONS, {**long, "stream": True})
        assert response.status == 200 and len(response.chunks) > 2
        *chunks, last = response.events()
        assert "[DONE]" not in chunks and all("error" not in c for c in chunks)
        assert list(last) == ["error"] and last["error"]["type"] == "timeout", last
        assert set(last["error"]) == {"message", "type", "param", "code"}, last
        # The client says so too, and does not take it for the end.
        client = openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=2, timeout=60)
        try:
            for _ in client.completions.create(model="", **PROMPT | {"max_tokens": 8000}, stream=True,
                                               extra_body={"ignore_eos": True}):
                pass
            raise AssertionError("a stream that failed ended as if nothing were")
        except openai.APIError as error:
            assert error.message == last["error"]["message"], error
        # 10: what failed after so much work is not to be tried again.
        before = deadlines(server.http)
        response = ask(server.http, "POST", COMPLETIONS, long)
        assert error_of(response, 504)["type"] == "timeout"
        assert response.headers["x-should-retry"] == "false", response.headers
        try:
            client.completions.create(model="", **PROMPT | {"max_tokens": 8000}, extra_body={"ignore_eos": True})
            raise AssertionError("no 504")
        except openai.InternalServerError as error:
            assert error.status_code == 504, error
        assert deadlines(server.http) == before + 2, "it was tried again"


def deadlines(address):
    text = ask(address, "GET", "/metrics").body.decode()
    found = re.search(r'^dovetail_requests_total\{model="[^"]*",outcome="deadline"\} (\d+)$', text, re.M)
    return int(found.group(1)) if found else 0


def test_01_the_death_of_the_server_is_no_end_of_a_stream():
    fields = {**PROMPT, "max_tokens": 8000, "ignore_eos": True, "stream": True}
    with harness.Server("--workers", "cpu:0") as server:
        connection = http.client.HTTPConnection(server.http, timeout=60)
        connection.request("POST", COMPLETIONS, json.dumps(fields))
        response = connection.getresponse()
        client = openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=60)
        stream = client.completions.create(model="", **PROMPT | {"max_tokens": 8000}, stream=True,
                                           extra_body={"ignore_eos": True})
        assert response.readline().startswith(b"data: ") and next(iter(stream)).choices
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
        try:
            rest = response.read()
            raise AssertionError(f"the stream looks complete: {rest[-100:]}")
        except (http.client.IncompleteRead, ConnectionError):
            pass
        try:
            for _ in stream:
                pass
            raise AssertionError("the client took it for the end")
        except Exception as error:
            assert not isinstance(error, AssertionError), error


# 4 and 11: silence.

def test_04_keep_alive_is_a_comment_that_the_client_skips():
    server = STATE["server"]
    whole = post(CHAT, QUESTION).json()["choices"][0]["message"]["content"]
    client = openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=60)
    heard = []

    def listen():
        for chunk in client.chat.completions.create(model="", **QUESTION, stream=True):
            heard.append(chunk.choices[0].delta.content or "")
    worker = server.workers()["cpu:0"]
    with Connection(server.http) as idle, Connection(server.http) as connection:
        assert idle.ask("GET", "/health").status == 200
        os.kill(worker, signal.SIGSTOP)
        try:
            connection.send("POST", CHAT, {**QUESTION, "stream": True})
            listener = threading.Thread(target=listen)
            listener.start()
            head = connection.head()  # comes with the first comment
            first = connection.chunk()
        finally:
            os.kill(worker, signal.SIGCONT)
        assert head.status == 200 and first == b": keep-alive\n\n", first
        while data := connection.chunk():
            head.body += data
        assert text_of(events_of(head)) == whole
        listener.join(60)
        assert "".join(heard) == whole, heard
        # 11: the client keeps a connection for longer than a moment, and then uses it.
        assert idle.ask("GET", "/v1/models").status == 200


def test_11_many_connections_at_once():
    address = STATE["server"].http
    connections = [Connection(address) for _ in range(200)]
    for connection in connections:
        connection.send("GET", "/v1/models")
    for connection in connections:
        assert connection.response().status == 200
    for connection in connections[::2]:
        connection.socket.close()
    for connection in connections[1::2]:
        assert connection.ask("GET", "/health").status == 200
        connection.socket.close()


# 5: text.

ODD_TEXT = "naïve \U0001F995\u200d\u2028“quoted” \\ \r\n\t日本\u0085\u0000é."


def test_05_characters_and_lines_are_never_cut():
    fields = {**QUESTION, "max_tokens": 200, "guided_choice": [ODD_TEXT], "logprobs": True}
    response = post(CHAT, fields, {"stream": True})
    chunks = events_of(response)  # each event is valid UTF-8 and one line
    assert text_of(chunks) == ODD_TEXT, text_of(chunks)
    assert "\ufffd" not in text_of(chunks)
    tokens = [t for c in chunks for choice in c["choices"] if choice["logprobs"] for t in choice["logprobs"]["content"]]
    assert bytes(b for t in tokens for b in t["bytes"]).startswith(ODD_TEXT.encode())
    assert any(len(t["bytes"]) < 4 and t["token"] == "\ufffd" for t in tokens), "no character was made of several tokens"
    assert post(CHAT, fields).json()["choices"][0]["message"]["content"] == ODD_TEXT
    # What the client sent comes back as it was.
    for stream in (False, True):
        response = post(COMPLETIONS, {"prompt": ODD_TEXT, "echo": True, "max_tokens": 1, "stream": stream})
        text = response.json()["choices"][0]["text"] if not stream else "".join(
            c["text"] for chunk in events_of(response, chat=False) for c in chunk["choices"])
        assert text.startswith(ODD_TEXT), text


def test_05_an_answer_that_is_cut_inside_a_character_is_valid():
    for length in range(1, 8):
        fields = {**QUESTION, "max_tokens": length, "guided_choice": ["\U0001F995\U0001F996\U0001F997"]}
        whole = post(CHAT, fields).json()["choices"][0]
        assert whole["finish_reason"] in ("length", "stop"), whole
        assert text_of(events_of(post(CHAT, fields, {"stream": True}))) == whole["message"]["content"]


# 6: whole answers.

def test_06_content_types_and_members():
    for path, fields, kind in ((CHAT, QUESTION, "chat.completion"), (COMPLETIONS, PROMPT, "text_completion")):
        response = post(path, fields)
        assert response.headers["content-type"].startswith("application/json"), response.headers
        answer = response.json()
        assert answer["object"] == kind and type(answer["created"]) is int and type(answer["id"]) is str, answer
        assert type(answer["model"]) is str and type(answer["system_fingerprint"]) is str, answer
        choice = answer["choices"][0]
        assert choice["index"] == 0 and choice["finish_reason"] in FINISH_REASONS and choice["logprobs"] is None, choice
        if path == CHAT:
            assert set(choice["message"]) == {"role", "content", "refusal"}, choice
        else:
            assert type(choice["text"]) is str, choice
        usage_of(answer)
    for path in ("/v1/models", "/health"):
        response = ask(STATE["server"].http, "GET", path)
        assert response.headers["content-type"].startswith("application/json") and response.json(), path
        head = ask(STATE["server"].http, "HEAD", path)
        assert head.status == 200 and head.headers["content-length"] == response.headers["content-length"], path
    model = ask(STATE["server"].http, "GET", "/v1/models").json()["data"][0]
    assert set(model) >= {"id", "object", "created", "owned_by"} and type(model["created"]) is int, model


# 7, 8, 9: deltas.

def test_07_role_once_and_text_alone():
    chunks = events_of(post(CHAT, QUESTION, {"stream": True, "logprobs": True, "top_logprobs": 2}))
    deltas = [c["delta"] for chunk in chunks for c in chunk["choices"]]
    assert deltas[0] == {"role": "assistant", "content": ""} and deltas[-1] == {}, deltas
    assert all(list(d) == ["content"] for d in deltas[1:-1]), deltas
    finish = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]]
    assert [f for f in finish if f] == finish[-1:], finish


def test_07_tools():
    for parallel in (True, False):
        chunks = events_of(post(CHAT, QUESTION, TOOLS, {"stream": True, "parallel_tool_calls": parallel}))
        calls = {}
        for choice in (c for chunk in chunks for c in chunk["choices"]):
            for piece in choice["delta"].get("tool_calls", []):
                if piece["index"] not in calls:
                    assert piece["index"] == len(calls), (piece, calls)
                    assert piece["type"] == "function" and piece["id"] and piece["function"]["name"], piece
                    calls[piece["index"]] = ""
                else:
                    assert set(piece) == {"index", "function"} and set(piece["function"]) == {"arguments"}, piece
                assert type(piece["function"]["arguments"]) is str, piece
                calls[piece["index"]] += piece["function"]["arguments"]
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls", chunks[-1]
        assert calls and all(set(json.loads(a)) == {"city", "days"} for a in calls.values()), calls
        assert parallel or len(calls) == 1, calls


def test_08_choices_begin_in_order():
    chunks = events_of(post(CHAT, QUESTION, {"stream": True, "n": 3, "temperature": 1.5, "seed": 1}))
    heads = [chunk["choices"][0] for chunk in chunks[:3]]
    assert [c["index"] for c in heads] == [0, 1, 2], heads
    assert all(c["delta"] == {"role": "assistant", "content": ""} for c in heads), heads
    assert all("role" not in c["delta"] for chunk in chunks[3:] for c in chunk["choices"])
    for index in range(3):
        ends = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert ends[-1] in FINISH_REASONS and not any(ends[:-1]), ends


# 10: what the client does by itself.

def test_10_a_full_queue_says_when_to_come_again():
    slow = {**PROMPT, "max_tokens": 8000, "ignore_eos": True, "stream": True}
    with harness.Server("--workers", "cpu:0", "--threads", "2", "--max-batch-size", "1", "--max-queue", "1") as server:
        busy = [Connection(server.http) for _ in range(2)]
        busy[0].send("POST", COMPLETIONS, slow)
        assert busy[0].head().status == 200
        busy[1].send("POST", COMPLETIONS, slow)  # waits
        refused = harness.wait_for(lambda: next((r for r in [ask(server.http, "POST", COMPLETIONS, PROMPT)]
                                                 if r.status == 429), None), 20, "a full queue")
        assert error_of(refused, 429)["type"] == "rate_limit_error"
        assert 1 <= int(refused.headers["retry-after"]) <= 120, refused.headers
        assert "x-should-retry" not in refused.headers, refused.headers
        client = openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="none", max_retries=0, timeout=120)
        try:
            client.completions.create(model="", **PROMPT)
            raise AssertionError("a full queue accepted")
        except openai.RateLimitError as error:
            assert error.response.headers["retry-after"] and error.type == "rate_limit_error", error
        patient = client.with_options(max_retries=8)
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(patient.completions.create(model="", **PROMPT)))
        waiting.start()
        time.sleep(0.5)
        for connection in busy:
            connection.socket.close()
        waiting.join(100)
        assert answers and answers[0].choices[0].text, "the client did not come again"


def test_10_equal_requests_are_two():
    first, second = post(CHAT, QUESTION), post(CHAT, QUESTION, headers=["x-stainless-retry-count: 1"])
    assert first.json()["id"] != second.json()["id"], "answered from memory"
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.json()["choices"] == second.json()["choices"]
    assert post(CHAT, QUESTION, headers=["X-Request-ID: mine-1"]).headers["x-request-id"] == "mine-1"


# 12: refusals.

def test_12_every_refusal_has_the_same_form():
    address = STATE["server"].http
    for stream in (False, True):  # the same before a stream: a status and JSON
        assert error_of(post(CHAT, QUESTION, {"temperature": 9, "stream": stream}), 400)["param"] == "temperature"
        assert error_of(post(CHAT, QUESTION, {"model": "none", "stream": stream}), 404)["code"] == "model_not_found"
        error = error_of(post(CHAT, QUESTION, {"stream": stream, "messages": [{"role": "user", "content": "a " * 20000}]}), 400)
        assert error["code"] == "context_length_exceeded", error
        assert re.search(r"maximum context length is \d+ tokens", error["message"]), error
    error_of(ask(address, "POST", CHAT, b'{"messages": '), 400)
    error_of(ask(address, "POST", CHAT, b"\xff\xfe{}"), 400)
    error_of(ask(address, "POST", CHAT, b"[]"), 400)
    error_of(ask(address, "GET", "/v1/nothing"), 404)
    wrong = ask(address, "GET", CHAT)
    error_of(wrong, 405)
    assert "POST" in wrong.headers["allow"], wrong.headers
    with Connection(address) as connection:  # announced too large: not read
        connection.send("POST", CHAT, headers=["Content-Length: 999999999"])
        error_of(connection.response(), 413)
    with Connection(address) as connection:
        connection.send("POST", CHAT, b"{}", headers=["Content-Encoding: gzip"])
        error_of(connection.response(), 415)


# 13: usage.

def test_13_usage():
    plain = usage_of(post(CHAT, QUESTION).json())
    chunks = events_of(post(CHAT, QUESTION, {"stream": True, "stream_options": {"include_usage": True}}))
    assert all(c["usage"] is None for c in chunks[:-1]) and chunks[-1]["choices"] == [], chunks[-2:]
    streamed = usage_of(chunks[-1])
    assert [streamed[k] for k in ("prompt_tokens", "completion_tokens")] == [
        plain[k] for k in ("prompt_tokens", "completion_tokens")], (plain, streamed)
    assert type(streamed["prompt_tokens_details"]["cached_tokens"]) is int, streamed
    assert type(streamed["completion_tokens_details"]["reasoning_tokens"]) is int, streamed
    assert all("usage" not in c for c in events_of(post(CHAT, QUESTION, {"stream": True})))
    chunks = events_of(post(COMPLETIONS, PROMPT, {"stream": True, "stream_options": {"include_usage": True}}), chat=False)
    assert usage_of(chunks[-1]) and chunks[-1]["choices"] == [], chunks[-1]


if __name__ == "__main__":
    try:
        # A worker is stopped for longer than a comment takes: that is no reason to give it up.
        with harness.Server("--workers", "cpu:0", "--threads", "2", "--worker-timeout", "60s") as STATE["server"]:
            harness.main(globals())
    except harness.Skip as reason:
        print(f"skipped: {reason}")
        raise SystemExit(77)
