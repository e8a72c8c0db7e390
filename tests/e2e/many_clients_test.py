"""A thousand streams at once, over HTTP and gRPC, beside two thousand connections that are held and say next to nothing.

Every stream must bring the text that its request has alone, whole and ended as streams end; the idle ones stay usable;
in the end nothing is held for anybody.
"""
import asyncio
import json
import os
import re
import resource
import time

import grpc
from google.protobuf import json_format, message_factory

import harness
import raw_http
from grpc_client import ReflectionClient

HTTP_STREAMS, GRPC_STREAMS, IDLE = 800, 200, 2000
KINDS = 20  # different requests
GRPC_CHANNELS = 4
MODEL = harness.DATA / "models/stories260K/stories260Ktok512.gguf"
PATIENCE = 240  # of a machine that may be busy; nothing is timed


def request(kind):
    return {"prompt": f"Once upon a time there were {kind} dogs", "max_tokens": 12 + kind % 9, "temperature": 0.9, "seed": kind,
            "ignore_eos": True}


def raise_file_limit(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        raise harness.Skip(f"{hard} open files are allowed, {wanted} wanted")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def alone(server):
    texts = []
    for kind in range(KINDS):
        with raw_http.Connection(server.http) as connection:
            answer = connection.ask("POST", "/v1/completions", request(kind))
            assert answer.status == 200, answer.body
            choice = answer.json()["choices"][0]
            assert choice["finish_reason"] == "length", choice
            texts.append(choice["text"])
    assert len(set(texts)) > KINDS // 2, texts
    return texts


class Idle:
    """Connections that are kept: a small request each before and after the load, and while it lasts one every half a minute."""

    def __init__(self, server):
        self.host, self.port = server.http.split(":")
        self.ends = []

    async def open(self):
        self.ends.append(await asyncio.open_connection(self.host, int(self.port)))

    async def check(self):
        for first in range(0, IDLE, 100):
            await asyncio.gather(*map(self.probe, self.ends[first:first + 100]))

    async def probe(self, ends):
        reader, writer = ends
        writer.write(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await asyncio.wait_for(reader.readexactly(length), PATIENCE)

    async def hold(self):
        while True:
            await asyncio.sleep(30)
            await self.check()

    async def close(self):
        for _, writer in self.ends:
            writer.close()


async def read_chunks(reader):
    """A chunked body, read to its end."""
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"
    return body


async def http_stream(server, kind, expected):
    host, port = server.http.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({**request(kind), "stream": True, "stream_options": {"include_usage": True}}).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n" % len(body) + body)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    events = raw_http.read_events(await read_chunks(reader))
    writer.close()
    assert events.pop() == "[DONE]", events
    usage = events.pop()["usage"]
    assert usage["completion_tokens"] == request(kind)["max_tokens"], usage
    choices = [choice for event in events for choice in event["choices"]]
    assert "".join(choice["text"] for choice in choices) == expected, (kind, choices)
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["length"], choices


class GrpcCaller:
    """InferenceService.Generate over some channels, its messages as reflection describes them."""

    def __init__(self, server):
        client = ReflectionClient(server.grpc)
        method = client.pool.FindServiceByName("dovetail.v1.InferenceService").FindMethodByName("Generate")
        self.request = message_factory.GetMessageClass(method.input_type)
        reply = message_factory.GetMessageClass(method.output_type)
        client.close()
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [grpc.aio.insecure_channel(server.grpc, options) for _ in range(GRPC_CHANNELS)]
        self.generate = [
            channel.unary_stream("/dovetail.v1.InferenceService/Generate", response_deserializer=reply.FromString,
                                 request_serializer=lambda message: message.SerializeToString())
            for channel in self.channels]

    async def stream(self, number, kind, expected):
        asked = request(kind)
        message = json_format.ParseDict(
            {"prompt": asked["prompt"], "max_tokens": asked["max_tokens"], "ignore_eos": True,
             "sampling": {"temperature": asked["temperature"], "seed": kind}}, self.request())
        text, last = "", None
        async for last in self.generate[number % GRPC_CHANNELS](message, timeout=PATIENCE):
            text += last.text
        assert text == expected, (kind, text, expected)
        assert last.usage.completion_tokens == asked["max_tokens"], last

    async def close(self):
        for channel in self.channels:
            await channel.close()


async def load(server, expected):
    idle = Idle(server)
    for _ in range(IDLE):
        await idle.open()
    await idle.check()
    holding = asyncio.create_task(idle.hold())
    caller = GrpcCaller(server)
    start = time.monotonic()
    streams = [http_stream(server, i % KINDS, expected[i % KINDS]) for i in range(HTTP_STREAMS)]
    streams += [caller.stream(i, i % KINDS, expected[i % KINDS]) for i in range(GRPC_STREAMS)]
    ended = asyncio.gather(*streams)
    most = 0
    while not ended.done():
        status = await asyncio.to_thread(server.status)
        most = max(most, status.get("running_sequences", 0) + status.get("waiting_sequences", 0))
        await asyncio.wait([ended], timeout=0.2)
    await asyncio.wait_for(ended, PATIENCE)
    print(f"  {len(streams)} streams in {time.monotonic() - start:.1f} s, at most {most} seen at once")
    assert most > len(streams) // 2, "they were not concurrent"
    assert not holding.done(), holding.result()
    holding.cancel()
    await idle.check()
    await idle.close()
    await caller.close()


def test_a_thousand_streams_beside_two_thousand_idle_connections():
    total = HTTP_STREAMS + GRPC_STREAMS
    raise_file_limit(IDLE + total + 200)
    with harness.Server("--workers", "cpu:0,cpu:1", "--threads", 1, "--context-length", 128, "--max-batch-size", 64,
                        "--max-queue", total, "--log-level", "warn", model=harness.need(MODEL)) as server:
        files = lambda: len(os.listdir(f"/proc/{server.process.pid}/fd"))
        expected = alone(server)
        before = files()
        asyncio.run(load(server, expected))
        harness.wait_for(lambda: server.status().get("kv_blocks_used", 0) == 0, 20, "KV blocks free")
        harness.wait_for(lambda: files() <= before + 16, 60, "connections closed")
        assert server.status()["state"] == "SERVING_STATE_READY"
        warnings = re.findall(r"^\d{4}-.* [WEC] .*", server.stderr(), re.M)
        assert not warnings, warnings[:20]
        assert alone(server) == expected


harness.main(globals())
