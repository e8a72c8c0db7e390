"""The official `openai` package against a running server.

usage: openai_client_test.py [--client-path DIR] [--base-url http://HOST:PORT/v1] [NAME ...]
Without --base-url it starts `dovetail serve` itself, over two workers. Prints "N passed, M failed"; exits with 1 on a
failure.
"""
import argparse
import concurrent.futures
import json
import os
import sys
import time
import traceback
import urllib.request

if "--client-path" in sys.argv:  # another version of the client than the environment's
    at = sys.argv.index("--client-path")
    sys.path.insert(0, sys.argv[at + 1])
    if not os.path.isdir(sys.argv[at + 1]):
        print(f"skipped: {sys.argv[at + 1]} is absent")
        sys.exit(77)
    del sys.argv[at:at + 2]
import openai  # noqa: E402

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
        assert getattr(answer, "_request_id", "old clients hide it"), "no x-request-id"

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
        stream = getattr(self.client.chat.completions, "stream", None) or self.client.beta.chat.completions.stream
        with stream(model=self.model, messages=QUESTION, temperature=0, max_tokens=40) as running:
            for _ in running:
                pass
            final = running.get_final_completion()
        assert final.choices[0].message.role == "assistant", final
        assert "Paris" in final.choices[0].message.content, final

    def check_strict_shapes(self):
        """Every answer is what the client's own types say, to the last member."""
        strict = openai.OpenAI(base_url=self.base_url, api_key="unused", max_retries=0, timeout=120,
                               _strict_response_validation=True)
        chat = {"model": self.model, "messages": QUESTION, "temperature": 0, "max_tokens": 6}
        text = {"model": self.model, "prompt": "One, two,", "temperature": 0, "max_tokens": 6}
        tools = {"messages": self.WEATHER, "tools": self.TOOLS, "tool_choice": "required", "max_tokens": 200}
        usage = {"stream": True, "stream_options": {"include_usage": True}}
        for extra in ({}, {"n": 2}, {"logprobs": True, "top_logprobs": 2}, tools):
            assert strict.chat.completions.create(**{**chat, **extra}).usage.total_tokens > 0
            assert len(list(strict.chat.completions.create(**{**chat, **extra}, **usage))) > 2
        for extra in ({}, {"logprobs": 2}, {"echo": True}):
            # Not streamed: its type has no room for the `finish_reason: null` that OpenAI itself sends.
            assert strict.completions.create(**text, **extra).usage.total_tokens > 0
        assert strict.models.retrieve(strict.models.list().data[0].id).created

    def check_message_forms(self):
        parts = [{"role": "developer", "content": "You are brief."},
                 {"role": "user", "content": [{"type": "text", "text": "Name the capital of France."}]}]
        assert self.ask(messages=parts).choices[0].message.content
        talk = [*QUESTION, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "And of Italy?"}]
        assert self.ask(messages=talk, extra_body={"max_completion_tokens": 8}).usage.completion_tokens <= 8

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
        for name, value in (("modalities", ["audio"]), ("functions", [{"name": "f"}]), ("mirostat", 2)):
            error = self.expect(openai.BadRequestError, [f"`{name}`", "not supported"], extra_body={name: value})
            assert error.param == name and error.code == "unsupported_parameter", error.body
        harmless = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0, "logprobs": False, "user": "u",
                    "response_format": {"type": "text"}, "extra_body": {"a_vendor_extra": {"x": 1}}}
        assert self.ask(max_tokens=2, **harmless).choices

    def check_choices(self):
        answer = self.ask(n=3, temperature=1.5, seed=5, max_tokens=12)
        texts = [c.message.content for c in answer.choices]
        assert [c.index for c in answer.choices] == [0, 1, 2] and len(set(texts)) > 1, texts
        alone = self.ask(n=1, temperature=1.5, seed=5, max_tokens=12)
        assert alone.choices[0].message.content == texts[0], "choice 0 depends on the others"
        assert answer.usage.prompt_tokens == alone.usage.prompt_tokens, "the prompt counts once"
        streamed = ["", "", ""]
        for chunk in self.ask(n=3, temperature=1.5, seed=5, max_tokens=12, stream=True):
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
        assert streamed == texts, (streamed, texts)

    def check_logprobs(self):
        answer = self.ask(logprobs=True, top_logprobs=3, max_tokens=5)
        content = answer.choices[0].logprobs.content
        assert len(content) == answer.usage.completion_tokens, content
        for token in content:
            assert len(token.top_logprobs) == 3 and token.logprob <= 0, token
            assert token.logprob == token.top_logprobs[0].logprob, "greedy takes the likeliest"
        assert "".join(t.token for t in content) == answer.choices[0].message.content, content
        hot = self.ask(logprobs=True, temperature=2, seed=1, max_tokens=5).choices[0].logprobs.content
        assert all(t.top_logprobs == [] for t in hot), hot

    def check_penalties_and_bias(self):
        plain = self.ask(logprobs=True, max_tokens=8)
        first = self.client.completions.create(model=self.model, prompt=[100, 101, 102], max_tokens=1, temperature=0,
                                               logprobs=0, echo=True)
        assert first.choices[0].logprobs.token_logprobs[0] is None, first
        looping = {"model": self.model, "prompt": "1 1 1 1 1 1 1 1", "temperature": 0, "max_tokens": 24}
        base = self.client.completions.create(**looping).choices[0].text
        for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}, {"extra_body": {"repetition_penalty": 1.8}}):
            changed = self.client.completions.create(**looping, **penalty).choices[0].text
            assert changed != base, (penalty, base)
        # A token that is pushed up is all that comes; one that is pushed down never comes.
        pushed = self.client.completions.create(**looping, logit_bias={"500": 100}, logprobs=1)
        assert len(set(pushed.choices[0].logprobs.tokens)) == 1, pushed
        assert plain.choices[0].message.content

    def check_min_tokens(self):
        short = [{"role": "user", "content": "Answer with one word: is fire hot?"}]
        answer = self.ask(messages=short, max_tokens=60, extra_body={"min_tokens": 50})
        assert answer.usage.completion_tokens >= 50, answer

    def check_scores_of_prompts(self):
        """The requests of lm-eval's local-completions: prompts as ids, echo, logprobs of what was given."""
        prompts = [[100, 101, 102, 103], [200, 201, 202]]
        for extra in ({"max_tokens": 1}, {"max_tokens": 0}):
            answer = self.client.completions.create(model=self.model, prompt=prompts, temperature=0, logprobs=1, seed=1234,
                                                    echo=True, **extra)
            for prompt, choice in zip(prompts, sorted(answer.choices, key=lambda c: c.index)):
                scores = choice.logprobs.token_logprobs[1:len(prompt)]
                assert len(scores) == len(prompt) - 1 and all(s <= 0 for s in scores), choice
                best = [max(t.values()) for t in choice.logprobs.top_logprobs[1:len(prompt)]]
                assert all(s <= b for s, b in zip(scores, best)), choice
                assert len(choice.logprobs.tokens) == len(prompt) + extra["max_tokens"], choice

    def check_json_formats(self):
        asked = [{"role": "user", "content": "Describe the city of Paris as JSON."}]
        anything = self.ask(messages=asked, response_format={"type": "json_object"}, max_tokens=200)
        if anything.choices[0].finish_reason == "stop":
            assert isinstance(json.loads(anything.choices[0].message.content), dict), anything
        schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
                                                   "millions": {"type": "integer", "minimum": 0, "maximum": 99}},
                  "required": ["name", "millions"], "additionalProperties": False}
        for temperature in (0, 1.5):
            answer = self.ask(messages=asked, temperature=temperature, seed=3, max_tokens=200,
                              response_format={"type": "json_schema",
                                               "json_schema": {"name": "city", "strict": True, "schema": schema}})
            assert answer.choices[0].finish_reason == "stop", answer
            city = json.loads(answer.choices[0].message.content)
            assert list(city) == ["name", "millions"] and isinstance(city["millions"], int), city
        error = self.expect(openai.BadRequestError, ["response_format"],
                            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "x"}}})
        assert error.param == "response_format", error.body
        chosen = self.ask(extra_body={"guided_choice": ["blue", "green"]})
        assert chosen.choices[0].message.content in ("blue", "green"), chosen
        number = self.ask(extra_body={"guided_regex": "[0-9]{3}-[0-9]{2}"}).choices[0].message.content
        assert len(number) == 6 and number[3] == "-", number

    def check_parse(self):
        import pydantic

        class City(pydantic.BaseModel):
            name: str
            capital: bool
        parse = getattr(self.client.chat.completions, "parse", None) or self.client.beta.chat.completions.parse
        answer = parse(model=self.model, messages=QUESTION, temperature=0, max_tokens=300, response_format=City)
        assert isinstance(answer.choices[0].message.parsed, City), answer

    def check_cut_off_answers(self):
        """An answer that ends too early is an exception of its own for who wants it parsed."""
        parse = getattr(self.client.chat.completions, "parse", None) or self.client.beta.chat.completions.parse
        for extra in ({"tools": self.TOOLS, "tool_choice": "required"}, {"response_format": {
                "type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": {
                    "type": "object", "properties": {"s": {"enum": ["x" * 50]}}, "required": ["s"],
                    "additionalProperties": False}}}}):
            try:
                parse(model=self.model, messages=QUESTION, temperature=0, max_tokens=3, **extra)
                raise AssertionError("an answer of three tokens was whole")
            except openai.LengthFinishReasonError as error:
                assert "length" in str(error), error

    TOOLS = [{"type": "function", "function": {
        "name": "get_weather", "description": "The weather of a city.", "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
                                                        "unit": {"enum": ["C", "F"]}},
                       "required": ["city", "unit"], "additionalProperties": False}}}]
    WEATHER = [{"role": "user", "content": "What is the weather in Paris?"}]

    def check_tools(self):
        for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
            fields = {"messages": self.WEATHER, "tools": self.TOOLS, "tool_choice": choice, "max_tokens": 200,
                      "parallel_tool_calls": False}
            answer = self.ask(**fields).choices[0]
            assert answer.finish_reason == "tool_calls" and answer.message.content is None, answer
            call = answer.message.tool_calls[0]
            assert call.type == "function" and call.id and call.function.name == "get_weather", call
            assert set(json.loads(call.function.arguments)) == {"city", "unit"}, call
            name, ids, arguments, finish = "", [], "", None
            for chunk in self.ask(**fields, stream=True):
                delta = chunk.choices[0].delta
                finish = chunk.choices[0].finish_reason or finish
                for piece in delta.tool_calls or []:
                    ids += [piece.id] if piece.id else []
                    name += piece.function.name or ""
                    arguments += piece.function.arguments or ""
            assert finish == "tool_calls" and name == "get_weather" and len(ids) == 1, (finish, name, ids)
            assert arguments == call.function.arguments, (arguments, call)
        talk = [*self.WEATHER, {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function",
             "function": {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "C"}'}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "22 degrees and sunny"}]
        after = self.ask(messages=talk, tools=self.TOOLS, max_tokens=60)
        assert after.choices[0].message.content or after.choices[0].message.tool_calls, after
        none = self.ask(messages=self.WEATHER, tools=self.TOOLS, tool_choice="none")
        assert none.choices[0].message.tool_calls is None and none.choices[0].message.content, none

    def check_tool_stream_helper(self):
        """.stream() parses the arguments of strict tools and fires an event for each piece."""
        stream = getattr(self.client.chat.completions, "stream", None) or self.client.beta.chat.completions.stream
        events = []
        with stream(model=self.model, messages=self.WEATHER, tools=self.TOOLS, tool_choice="required", temperature=0,
                    max_tokens=200, parallel_tool_calls=False) as running:
            for event in running:
                events.append(event.type)
            final = running.get_final_completion()
        assert "tool_calls.function.arguments.delta" in events, set(events)
        assert "tool_calls.function.arguments.done" in events, set(events)
        assert final.choices[0].message.tool_calls[0].function.parsed_arguments["unit"] in ("C", "F"), final

    def check_grammars_do_not_hold_others(self):
        """Free streams go on beside constrained ones, and every one is what it is alone."""
        constrained = {"response_format": {"type": "json_object"}, "max_tokens": 40}
        alone = [self.ask().choices[0].message.content, self.ask(**constrained).choices[0].message.content]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            tasks = [pool.submit(self.ask, **(constrained if i % 2 else {})) for i in range(8)]
            for i, task in enumerate(tasks):
                assert task.result().choices[0].message.content == alone[i % 2], i

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
