"""The official `openai` package against a running server.

usage: openai_client_test.py [--base-url http://HOST:PORT/v1] [NAME ...]
Without --base-url it starts `dovetail serve` itself, over two workers. Prints "N passed, M failed"; exits with 1 on a
failure.
"""
import argparse
import concurrent.futures
import json
import sys
import time
import traceback
import urllib.request

import openai

QUESTION = [{"role": "user", "content": "Name the capital of France."}]


class Checks:
    """Every method whose name starts with check_ is one test."""

    def __init__(self, base_url):
        self.base_url = base_url.rstrip("/")
        self.client = openai.OpenAI(base_url=self.base_url, api_key="unused", max_retries=0, timeout=120)
        self.model = self.client.models.list().data[0].id

    def ask(self, **fields):
        return self.client.chat.completions.create(
            **{"model": self.model, "messages": QUESTION, "temperature": 0, "max_tokens": 40, **fields})

    def expect(self, error_type, words, **fields):
        """The request must be refused with this exception, whose text has all the words. Returns the exception."""
        try:
            self.ask(**fields)
        except openai.APIStatusError as error:
            assert isinstance(error, error_type), (type(error), error)
            for word in words:
                assert word in str(error), (word, str(error))
            assert error.request_id, "no x-request-id"
            return error
        raise AssertionError(f"was accepted: {str(fields)[:200]}")

    def health(self):
        with urllib.request.urlopen(self.base_url.removesuffix("/v1") + "/health", timeout=10) as response:
            return json.load(response)

    def check_models(self):
        listed = self.client.models.list()
        assert listed.object == "list" and len(listed.data) == 1, listed
        assert listed.data[0].object == "model" and listed.data[0].owned_by == "dovetail", listed
        assert self.client.models.retrieve(self.model).id == self.model
        try:
            self.client.models.retrieve("no-such-model")
            raise AssertionError("an unknown model was found")
        except openai.NotFoundError as error:
            assert error.code == "model_not_found", error

    def check_chat(self):
        answer = self.ask()
        assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-"), answer
        assert answer.model == self.model and answer.system_fingerprint, answer
        choice = answer.choices[0]
        assert "Paris" in choice.message.content, choice
        assert choice.message.role == "assistant" and choice.finish_reason in ("stop", "length"), choice
        usage = answer.usage
        assert usage.prompt_tokens > 0 and usage.completion_tokens > 0, usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage
        assert answer._request_id, "no x-request-id"

    def check_chat_stream(self):
        whole = self.ask()
        text, roles, finish, usage, ids, created = "", [], [], None, set(), set()
        for chunk in self.ask(stream=True, stream_options={"include_usage": True}):
            ids.add(chunk.id)
            created.add(chunk.created)
            assert usage is None, "usage must be the last chunk"
            if not chunk.choices:
                usage = chunk.usage
                continue
            assert chunk.usage is None, chunk
            choice = chunk.choices[0]
            roles += [choice.delta.role] if choice.delta.role else []
            finish += [choice.finish_reason] if choice.finish_reason else []
            text += choice.delta.content or ""
        assert roles == ["assistant"], roles
        assert finish == [whole.choices[0].finish_reason], finish
        assert len(ids) == 1 and len(created) == 1, (ids, created)
        assert text == whole.choices[0].message.content, (text, whole.choices[0].message.content)
        assert usage is not None and usage.completion_tokens == whole.usage.completion_tokens, usage

    def check_stream_helper(self):
        """.stream() adds deltas up and fails on roles or ids that repeat."""
        with self.client.chat.completions.stream(model=self.model, messages=QUESTION, temperature=0,
                                                 max_tokens=40) as stream:
            for _ in stream:
                pass
            final = stream.get_final_completion()
        assert final.choices[0].message.role == "assistant", final
        assert "Paris" in final.choices[0].message.content, final

    def check_message_forms(self):
        parts = [{"role": "developer", "content": "You are brief."},
                 {"role": "user", "content": [{"type": "text", "text": "Name the capital of France."}]}]
        assert self.ask(messages=parts).choices[0].message.content
        talk = [*QUESTION, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Italy?"}]
        assert self.ask(messages=talk, max_completion_tokens=8).usage.completion_tokens <= 8

    def check_completions(self):
        fields = {"model": self.model, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 12}
        whole = self.client.completions.create(**fields)
        assert whole.object == "text_completion" and whole.id.startswith("cmpl-"), whole
        assert whole.choices[0].text and whole.usage.completion_tokens <= 12, whole
        text = "".join(c.choices[0].text for c in self.client.completions.create(**fields, stream=True) if c.choices)
        assert text == whole.choices[0].text, (text, whole.choices[0].text)
        two = self.client.completions.create(**{**fields, "prompt": [fields["prompt"], "One, two, three,"]})
        assert [c.index for c in two.choices] == [0, 1], two
        assert two.choices[0].text == whole.choices[0].text, two
        ids = self.client.completions.create(**{**fields, "prompt": [100, 101, 102]})
        assert ids.usage.prompt_tokens == 3, ids

    def check_stop_and_length(self):
        whole = self.ask().choices[0].message.content
        stop = whole[len(whole) // 2:][:3]
        cut = self.ask(stop=[stop])
        assert cut.choices[0].message.content == whole[:whole.index(stop)], (whole, stop, cut)
        assert cut.choices[0].finish_reason == "stop", cut
        short = self.ask(max_tokens=2)
        assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 2, short

    def check_seed(self):
        def draw(seed):
            return self.ask(temperature=1.5, seed=seed, messages=[{"role": "user", "content": "Tell me a story."}],
                            max_tokens=24).choices[0].message.content
        assert draw(7) == draw(7), "the same seed gave different answers"
        assert len({draw(seed) for seed in range(4)}) > 1, "every seed gave the same answer"

    def check_sampling_fields(self):
        answer = self.ask(temperature=0.8, top_p=0.9, seed=1, stop="\n\n\n", extra_body={"top_k": 20, "min_p": 0.05})
        assert answer.choices[0].finish_reason in ("stop", "length"), answer
        # A nucleus of almost nothing and one candidate are both the greedy answer.
        greedy = self.ask().choices[0].message.content
        assert self.ask(temperature=1, extra_body={"top_k": 1}).choices[0].message.content == greedy
        assert self.ask(temperature=1, top_p=1e-6).choices[0].message.content == greedy

    def check_errors(self):
        error = self.expect(openai.NotFoundError, ["no-such-model"], model="no-such-model")
        assert error.code == "model_not_found" and error.param == "model", error.body
        error = self.expect(openai.BadRequestError, ["max_tokens", "-4"], max_tokens=-4)
        assert error.param == "max_tokens", error.body
        error = self.expect(openai.BadRequestError, ["temperature"], temperature=5)
        assert error.param == "temperature" and error.type == "invalid_request_error", error.body
        self.expect(openai.BadRequestError, ["messages"], messages=[])
        self.expect(openai.BadRequestError, ["king"], messages=[{"role": "king", "content": "x"}])
        # The same before a stream: a status, not an event.
        self.expect(openai.BadRequestError, ["max_tokens"], max_tokens=0, stream=True)

    def check_context_overflow(self):
        text = "word " * 20000
        error = self.expect(openai.BadRequestError, ["maximum context length"],
                            messages=[{"role": "user", "content": text}])
        assert error.code == "context_length_exceeded", error.body
        numbers = [int(n) for n in "".join(c if c.isdigit() else " " for c in error.message).split()]
        assert any(n >= 20000 for n in numbers) and len(numbers) >= 2, error.message

    def check_unsupported_fields(self):
        for name, value in (("n", 2), ("logprobs", True), ("presence_penalty", 0.5), ("logit_bias", {"5": 1}),
                            ("response_format", {"type": "json_object"}), ("reasoning_effort", "low"),
                            ("tools", [{"type": "function", "function": {"name": "f"}}])):
            error = self.expect(openai.BadRequestError, [f"`{name}`", "not supported"], **{name: value})
            assert error.param == name and error.code == "unsupported_parameter", error.body
        harmless = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False, "user": "u",
                    "response_format": {"type": "text"}, "extra_body": {"a_vendor_extra": {"x": 1}}}
        assert self.ask(max_tokens=2, **harmless).choices

    def check_eight_at_once(self):
        questions = [[{"role": "user", "content": f"Name the capital of {country}."}] for country in
                     ("France", "Italy", "Spain", "Japan", "Egypt", "Germany", "Greece", "Russia")]

        def ask(question):
            return "".join(c.choices[0].delta.content or "" for c in self.ask(messages=question, stream=True))
        alone = [ask(q) for q in questions]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            together = list(pool.map(ask, questions))
        assert alone == together, list(zip(alone, together))
        assert "Paris" in alone[0], alone[0]

    def check_cancel_stream(self):
        """More long streams than one step can hold; had they not been cancelled, the next would wait minutes."""
        for _ in range(40):
            stream = self.ask(messages=[{"role": "user", "content": "Write a very long story."}], max_tokens=2000,
                              stream=True, extra_body={"ignore_eos": True})
            chunks = iter(stream)
            next(chunks), next(chunks)
            stream.close()
        start = time.monotonic()
        assert self.ask(max_tokens=4).usage.completion_tokens == 4
        assert time.monotonic() - start < 5, "the server is still busy with streams that nobody reads"
        assert self.health()["status"] == "ok"

    def check_async_client(self):
        import asyncio

        async def run():
            async with openai.AsyncOpenAI(base_url=self.base_url, api_key="unused", max_retries=0) as client:
                stream = await client.chat.completions.create(model=self.model, messages=QUESTION, temperature=0,
                                                              max_tokens=40, stream=True)
                return "".join([c.choices[0].delta.content or "" async for c in stream])
        assert "Paris" in asyncio.run(run())


def run_checks(base_url, wanted):
    checks = Checks(base_url)
    names = [n for n in dir(checks) if n.startswith("check_") and (not wanted or n in wanted)]
    failed = 0
    for name in names:
        start = time.monotonic()
        try:
            getattr(checks, name)()
            verdict = "ok"
        except Exception:
            failed += 1
            verdict = "FAILED\n" + traceback.format_exc()
        print(f"{name}: {verdict} ({time.monotonic() - start:.1f} s)", flush=True)
    print(f"{len(names) - failed} passed, {failed} failed")
    return 1 if failed or not names else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--base-url")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if arguments.base_url:
        return run_checks(arguments.base_url, arguments.names)
    import harness
    try:
        with harness.Server("--workers", "cpu:0,cpu:1", "--rules", harness.RULES) as server:
            return run_checks(f"http://{server.http}/v1", arguments.names)
    except harness.Skip as reason:
        print(f"skipped: {reason}")
        return 77


if __name__ == "__main__":
    sys.exit(main())
