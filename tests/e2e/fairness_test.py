"""Whose turn it is: API keys share a server by what was computed for them, priority comes first, over HTTP and gRPC."""
import contextlib
import json
import re
import threading
import urllib.error
import urllib.request

import harness
from grpc_client import ReflectionClient

KEYS = {name: f"sk-{name}-0123456789" for name in ("alice", "bob", "carol")}
KEY_FLAG = ",".join(f"{name}={key}" for name, key in KEYS.items())
ADMIN = [("authorization", f"Bearer {KEYS['carol']}")]


# Long enough that answers end apart: two lines of the log that are due together may change places.
ANSWER_TOKENS = 60


class Queue:
    """A server that computes one sequence at a time; carol's holds it until release()."""

    def __init__(self, server, stack):
        self.server = server
        self.client = ReflectionClient(server.grpc)
        stack.callback(self.client.close)
        self.threads = []
        self.waiting = 0
        self.over_http = 0
        self.holder = self.open("carol", "Hold", max_tokens=4000, stream=True)
        self.holder.readline()

    def open(self, who, prompt, **fields):
        body = {"prompt": prompt, "max_tokens": ANSWER_TOKENS, "ignore_eos": True, "temperature": 0, **fields}
        request = urllib.request.Request(f"http://{self.server.http}/v1/completions", json.dumps(body).encode(),
                                         {"Authorization": f"Bearer {KEYS[who]}", "X-Request-Id": prompt})
        return urllib.request.urlopen(request, timeout=300)

    def generate(self, who, prompt, **fields):
        request = {"prompt": prompt, "max_tokens": ANSWER_TOKENS, "ignore_eos": True, "sampling": {"temperature": 0}, **fields}
        for _ in self.client.call("dovetail.v1.InferenceService/Generate", request, timeout=300,
                                  metadata=[("authorization", f"Bearer {KEYS[who]}")]):
            pass

    def add(self, who, prompt, over=None, **fields):
        """One more in the queue, and certain to be there: the next one is later."""
        self.threads.append(threading.Thread(target=lambda: (over or self.whole)(who, prompt, **fields), daemon=True))
        self.threads[-1].start()
        self.waiting += 1
        self.over_http += over is None
        harness.wait_for(lambda: len(self.queued()) == self.waiting, 60, f"{prompt} waits")

    def whole(self, who, prompt, **fields):
        self.open(who, prompt, **fields).read()

    def queued(self):
        listed = self.client.call("dovetail.v1.AdminService/ListSequences", {}, metadata=ADMIN).get("sequences", [])
        return [sequence for sequence in listed if not sequence.get("running")]

    def release(self):
        """Lets all be answered; the tenants of the answers in the order in which they ended, as the server logs them."""
        self.holder.close()
        for thread in self.threads:
            thread.join(300)
            assert not thread.is_alive()
        ended = lambda: re.findall(r" 200 .*tokens for (alice|bob)\b", self.server.stderr())
        # A client may have its answer before the line is written.
        harness.wait_for(lambda: len(ended()) >= self.over_http, 10, "a line for each answer")
        return ended()


@contextlib.contextmanager
def queue(*flags):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(harness.Server("--workers", "cpu:0", "--max-batch-size", 1, "--context-length", 4096,
                                                    "--api-keys", KEY_FLAG, *flags))
        yield Queue(server, stack)


def test_keys_take_turns():
    with queue() as q:
        for i in range(6):
            q.add("alice", f"Alice {i}")
        for i in range(3):
            q.add("bob", f"Bob {i}")
        assert {s["tenant"] for s in q.queued()} == {"alice", "bob"}, q.queued()
        order = q.release()
        assert sorted(order) == ["alice"] * 6 + ["bob"] * 3, order
        # All are of one size: by turns, as long as bob has any. An answer may be logged after the next one began, not after it ended.
        assert set(order[:2]) == set(order[2:4]) == set(order[4:6]) == {"alice", "bob"} and set(order[6:]) == {"alice"}, order


def test_priority_comes_before_keys():
    with queue() as q:
        q.add("alice", "Alice 0", priority=100)
        q.add("alice", "Alice 1", priority=100)
        q.add("bob", "Bob 0", priority=100)
        q.add("bob", "Bob 1")
        q.add("bob", "Bob 2")
        by_priority = sorted((s.get("priority", 0), s["tenant"]) for s in q.queued())
        assert by_priority == [(0, "bob"), (0, "bob"), (100, "alice"), (100, "alice"), (100, "bob")], by_priority
        order = q.release()
        # bob's urgent ones; then alice, for whom less was computed; bob's third comes last.
        assert order == ["bob", "bob", "alice", "alice", "bob"], order


def test_keys_may_have_priorities():
    with queue("--key-priority", "bob=-10,carol=50") as q:
        q.add("alice", "Alice 0")
        q.add("alice", "Alice 1", priority=100)
        q.add("bob", "Bob 0", priority=100)
        q.add("bob", "Bob 1")
        assert sorted(s.get("priority", 0) for s in q.queued()) == [-10, 0, 90, 100], q.queued()
        error = harness.expect(urllib.error.HTTPError, "400", lambda: q.open("alice", "Me first", priority=-1))
        assert "`priority` must be at least 0 where API keys have priorities" in json.load(error)["error"]["message"]
        assert q.release() == ["bob", "alice", "bob", "alice"]
    refused = harness.run("dovetail", "serve", "--model", harness.need(harness.SMOLLM2), "--port", 0, "--api-keys", KEY_FLAG,
                          "--key-priority", "dave=3", check=False)
    assert refused.returncode == 2 and "`key_priority`: there is no API key of dave" in refused.stderr, refused.stderr


def test_grpc_waits_in_the_same_queue():
    with queue() as q:
        for i in range(4):
            q.add("alice", f"Alice {i}", over=q.generate)
        q.add("bob", "Bob 0")
        q.add("alice", "Alice 4")
        queued = q.queued()
        assert [s["tenant"] for s in queued].count("alice") == 5, queued
        order = q.release()
        # gRPC calls are not in the log; of HTTP's, bob's had to wait for one of alice's at most.
        assert order == ["bob", "alice"], order


harness.main(globals())
