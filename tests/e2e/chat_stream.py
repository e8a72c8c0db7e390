"""Chat over HTTP as the tests of failures need it: one question, and a stream that is read event by event."""
import json
import time
import urllib.request


def chat(server, text, **fields):
    body = {"model": "SmolLM2-135M-Instruct.Q4_1", "messages": [{"role": "user", "content": text}], "temperature": 0,
            "max_tokens": 40, **fields}
    request = urllib.request.Request(f"http://{server.http}/v1/chat/completions", data=json.dumps(body).encode(),
                                     headers={"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=120)


def read_stream(response, at=None, action=None):
    """The text of a stream of chat chunks, and the longest time between two of them."""
    text, count, longest, last = "", 0, 0.0, time.monotonic()
    for line in response:
        if not line.startswith(b"data: ") or line == b"data: [DONE]\n":
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk:
            raise AssertionError(chunk)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
        text += chunk["choices"][0]["delta"].get("content") or "" if chunk["choices"] else ""
        count += 1
        if count == at:
            action()
    return text, longest
