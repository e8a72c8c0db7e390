"""Coordinator and workers stand still together, as on a laptop that sleeps, and go on as if nothing had been.

Nobody was silent: those who would have spoken stood still as well. A worker that alone stands still is lost.
"""
import concurrent.futures
import contextlib
import os
import signal
import time
import urllib.request

import harness
from chat_stream import chat, read_stream

QUESTIONS = ["Tell a long story.", "What is the sea?", "Name many towns."]
FIELDS = {"stream": True, "ignore_eos": True, "temperature": 0.8, "seed": 11}


@contextlib.contextmanager
def stopped(pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def everyone(server, workers_first):
    workers = list(server.workers().values())
    return workers + [server.process.pid] if workers_first else [server.process.pid] + workers


def metric(server, name):
    """The sum of a metric over its labels."""
    text = urllib.request.urlopen(f"http://{server.http}/metrics", timeout=30).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((name + " ", name + "{")))


def ask_all(server, max_tokens, at=None, action=None):
    """Texts of all questions at once; `action` is called at that event of the first one."""
    def ask(i):
        stream = chat(server, QUESTIONS[i], **FIELDS, max_tokens=max_tokens)
        return read_stream(stream, at, action)[0] if i == 0 else read_stream(stream)[0]
    with concurrent.futures.ThreadPoolExecutor(len(QUESTIONS)) as pool:
        return list(pool.map(ask, range(len(QUESTIONS))))


def assert_nobody_was_lost(server, workers):
    assert server.workers() == workers
    assert server.status()["epoch"] == "1", server.status()
    assert metric(server, "dovetail_worker_restarts_total") == 0 and metric(server, "dovetail_recoveries_total") == 0
    log = server.stderr()
    assert log.count("attached to the coordinator") == len(workers), log
    for words in ("was lost", "were lost", "dialling again", "nothing heard"):
        assert words not in log, log


def suspend_during_streams(seconds, *flags, workers_first=False, max_tokens=100):
    with harness.Server("--workers", "cpu:0,cpu:1", *flags) as server:
        workers = server.workers()
        undisturbed = ask_all(server, max_tokens)
        for pause in seconds:
            def suspend():
                with stopped(everyone(server, workers_first)):
                    time.sleep(pause)
            assert ask_all(server, max_tokens, at=10, action=suspend) == undisturbed, pause
            assert urllib.request.urlopen(f"http://{server.http}/health", timeout=30).status == 200
            print(f"  {pause} s: the same {len(undisturbed)} texts")
        time.sleep(2.5)  # whoever judges late judges now
        assert_nobody_was_lost(server, workers)


def test_streams_outlive_a_pause_of_everyone():
    """Pauses around the timeout, each of which was once the end of an epoch."""
    suspend_during_streams([1.0, 1.4, 1.6, 1.9, 2.5, 4.0], "--worker-timeout", "1500ms", "--rules", harness.RULES)


def test_streams_outlive_a_pause_that_is_longer_than_all_timeouts():
    """Of a step 30 s, of a peer in a ring 30 s, gRPC's keepalive 20 s and 10 s, of a worker 10 s by default."""
    suspend_during_streams([45], "--rules", harness.SOURCE / "rules/rows-shared.yaml", workers_first=True,
                           max_tokens=30)


def test_an_idle_server_outlives_a_pause():
    with harness.Server("--workers", "cpu:0,cpu:1", "--worker-timeout", "1500ms") as server:
        workers = server.workers()
        for workers_first in (False, True, False):
            with stopped(everyone(server, workers_first)):
                time.sleep(3)
            time.sleep(2.5)
        assert_nobody_was_lost(server, workers)


def test_a_worker_that_alone_stands_still_is_lost_in_time():
    """Also right after a pause of everyone: forgiveness is for what was, not for what comes."""
    with harness.Server("--workers", "cpu:0,cpu:1", "--worker-timeout", "1500ms") as server:
        for name, before in (("cpu:1", 0), ("cpu:0", 3)):
            with stopped(everyone(server, False)):
                time.sleep(before)
            assert server.status()["state"] == "SERVING_STATE_READY"
            with stopped([server.workers()[name]]):
                start = time.monotonic()
                harness.wait_for(lambda: server.status().get("state") != "SERVING_STATE_READY", 10, "the hang is noticed")
                took = time.monotonic() - start
                print(f"  {name} after a pause of {before} s: lost after {took:.2f} s")
                assert took < 5, took  # the timeout, and what a busy machine adds
            harness.wait_for(lambda: server.status().get("state") == "SERVING_STATE_READY", 30, "ready again")
        assert server.stderr().count(" W serve: worker ") == 2, server.stderr()


harness.main(globals())
