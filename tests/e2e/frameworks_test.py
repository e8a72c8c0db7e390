"""LangChain's ChatOpenAI and LiteLLM, unmodified, against one server; both read more out of answers than the client below them."""
import asyncio
import json
import os
import sys
import urllib.request

import harness

CLIENTS = harness.SOURCE / ".venv/frameworks"  # in a folder of its own: tools/test installs it there
if not CLIENTS.is_dir():
    print(f"skipped: {CLIENTS} is absent")
    sys.exit(77)
sys.path.insert(0, str(CLIENTS))
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}  # neither asks the network for anything

import langchain_core.messages  # noqa: E402
import langchain_core.output_parsers  # noqa: E402
import langchain_core.prompts  # noqa: E402
import langchain_core.tools  # noqa: E402
import langchain_openai  # noqa: E402
import litellm  # noqa: E402
import openai  # noqa: E402
import pydantic  # noqa: E402

litellm.suppress_debug_info = True
TEXT = "Name the capital of France."
QUESTION = [{"role": "user", "content": TEXT}]
WEATHER = "What is the weather in Paris?"
STATE = {}


class City(pydantic.BaseModel):
    """A city."""
    name: str = pydantic.Field(max_length=12)
    capital: bool


@langchain_core.tools.tool
def get_weather(city: str, days: int) -> str:
    """The weather of a city on the next days."""
    return f"{city}: sunny for {days} days"


TOOL = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
    "additionalProperties": False}}}


def url(path="/v1"):
    return f"http://{STATE['server'].http}{path}"


def reference(**fields):
    """The answer as it is on the wire."""
    body = {"messages": QUESTION, "temperature": 0, "max_tokens": 24, **fields}
    request = urllib.request.Request(url("/v1/chat/completions"), json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


# LangChain.

def chat(**fields):
    return langchain_openai.ChatOpenAI(**{"model": STATE["model"], "base_url": url(), "api_key": "none", "temperature": 0,
                                          "max_tokens": 24, "max_retries": 0, "timeout": 120, **fields})


def test_langchain_invoke():
    wire = reference()
    answer = chat().invoke(TEXT)
    assert answer.content == wire["choices"][0]["message"]["content"], (answer, wire)
    assert answer.response_metadata["finish_reason"] == wire["choices"][0]["finish_reason"], answer
    assert answer.response_metadata["model_name"] == STATE["model"] and answer.id, answer
    assert answer.usage_metadata["input_tokens"] == wire["usage"]["prompt_tokens"], answer
    assert answer.usage_metadata["output_tokens"] == wire["usage"]["completion_tokens"], answer
    assert answer.usage_metadata["input_token_details"]["cache_read"] >= 0, answer
    chain = (langchain_core.prompts.ChatPromptTemplate.from_messages([("human", "Name the capital of {country}.")])
             | chat() | langchain_core.output_parsers.StrOutputParser())
    assert chain.invoke({"country": "France"}) == answer.content
    assert chain.batch([{"country": "France"}] * 3) == [answer.content] * 3
    logprobs = chat().bind(logprobs=True, top_logprobs=2).invoke(TEXT).response_metadata["logprobs"]["content"]
    assert len(logprobs) == wire["usage"]["completion_tokens"] and len(logprobs[0]["top_logprobs"]) == 2, logprobs
    cut = chat(stop_sequences=[answer.content[4:8]]).invoke(TEXT)
    assert cut.content == answer.content[:answer.content.index(answer.content[4:8])], cut


def test_langchain_stream():
    whole = chat().invoke(TEXT)
    parts = list(chat(stream_usage=True).stream(TEXT))
    total = parts[0]
    for part in parts[1:]:
        total += part
    assert len(parts) > 3 and total.content == whole.content, total
    assert total.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"], total
    assert total.response_metadata["finish_reason"] == whole.response_metadata["finish_reason"], total

    async def run():
        return "".join([part.content async for part in chat().astream(TEXT)])
    assert asyncio.run(run()) == whole.content


def test_langchain_tools():
    messages = [langchain_core.messages.HumanMessage(WEATHER)]
    for choice in ("any", "get_weather"):
        bound = chat(max_tokens=200).bind_tools([get_weather], tool_choice=choice, parallel_tool_calls=False)
        answer = bound.invoke(messages)
        assert len(answer.tool_calls) == 1 and not answer.invalid_tool_calls, answer
        call = answer.tool_calls[0]
        assert call["name"] == "get_weather" and call["id"] and type(call["args"]["days"]) is int, call
        total = None
        for part in bound.stream(messages):
            total = part if total is None else total + part
        assert [c["args"] for c in total.tool_calls] == [call["args"]], total
        assert total.response_metadata["finish_reason"] == "tool_calls", total
    result = get_weather.invoke(call)  # a ToolMessage
    assert chat().bind_tools([get_weather], tool_choice="none").invoke([*messages, answer, result]).content


def test_langchain_structured_output():
    model = chat(max_tokens=200)
    for method in ("json_schema", "function_calling"):
        city = model.with_structured_output(City, method=method).invoke("Describe the city of Paris.")
        assert isinstance(city, City), (method, city)
    both = model.with_structured_output(City, method="json_schema", include_raw=True).invoke("Describe the city of Paris.")
    assert isinstance(both["parsed"], City) and both["parsing_error"] is None and both["raw"].content, both
    plain = model.with_structured_output({"title": "number", "type": "object", "properties": {"n": {"enum": [7]}},
                                          "required": ["n"], "additionalProperties": False}).invoke("Seven?")
    assert plain == {"n": 7}, plain


def test_langchain_completions():
    fields = {"model": STATE["model"], "base_url": url(), "api_key": "none", "temperature": 0, "max_tokens": 8, "max_retries": 0}
    model = langchain_openai.OpenAI(**fields)
    text = model.invoke("The capital of France is")
    assert text and "".join(model.stream("The capital of France is")) == text, text


def test_langchain_errors():
    harness.expect(openai.NotFoundError, "no-such-model", lambda: chat(model="no-such-model").invoke(TEXT))
    harness.expect(openai.BadRequestError, "temperature", lambda: chat(temperature=9).invoke(TEXT))
    harness.expect(openai.BadRequestError, "temperature", lambda: list(chat(temperature=9).stream(TEXT)))
    harness.expect(openai.BadRequestError, "maximum context length", lambda: chat().invoke("word " * 20000))


# LiteLLM.

def complete(**fields):
    return litellm.completion(**{"model": f"openai/{STATE['model']}", "api_base": url(), "api_key": "none", "num_retries": 0,
                                 "temperature": 0, "max_tokens": 24, "messages": QUESTION, "timeout": 120, **fields})


def test_litellm_completion():
    wire = reference()
    answer = complete()
    assert answer.choices[0].message.content == wire["choices"][0]["message"]["content"], answer
    assert answer.choices[0].finish_reason == wire["choices"][0]["finish_reason"], answer
    assert answer.usage.total_tokens == wire["usage"]["total_tokens"], answer
    assert [c.index for c in complete(n=2).choices] == [0, 1]

    async def run():
        return await litellm.acompletion(model=f"openai/{STATE['model']}", api_base=url(), api_key="none", temperature=0,
                                         max_tokens=24, messages=QUESTION)
    assert asyncio.run(run()).choices[0].message.content == answer.choices[0].message.content
    text = litellm.text_completion(model=f"text-completion-openai/{STATE['model']}", api_base=url(), api_key="none",
                                   prompt="The capital of France is", temperature=0, max_tokens=8)
    assert text.choices[0].text and text.usage.completion_tokens == 8, text


def test_litellm_stream():
    whole = complete()
    parts = list(complete(stream=True, stream_options={"include_usage": True}))
    text = "".join(c.delta.content or "" for part in parts for c in part.choices)
    assert len(parts) > 3 and text == whole.choices[0].message.content, text
    built = litellm.stream_chunk_builder(parts)
    assert built.choices[0].message.content == text and built.choices[0].finish_reason == whole.choices[0].finish_reason, built
    assert built.usage.completion_tokens == whole.usage.completion_tokens, built


def test_litellm_tools_and_formats():
    fields = {"messages": [{"role": "user", "content": WEATHER}], "tools": [TOOL], "tool_choice": "required",
              "parallel_tool_calls": False, "max_tokens": 200}
    call = complete(**fields).choices[0].message.tool_calls[0]
    assert call.function.name == "get_weather" and set(json.loads(call.function.arguments)) == {"city"}, call
    built = litellm.stream_chunk_builder(list(complete(**fields, stream=True)))
    streamed = built.choices[0].message.tool_calls[0]
    assert streamed.function.arguments == call.function.arguments and built.choices[0].finish_reason == "tool_calls", built
    city = complete(response_format=City, max_tokens=200).choices[0].message.content
    assert City.model_validate_json(city), city


def test_litellm_errors():
    harness.expect(litellm.NotFoundError, "no-such-model", lambda: complete(model="openai/no-such-model"))
    harness.expect(litellm.BadRequestError, "temperature", lambda: complete(temperature=9))
    long = [{"role": "user", "content": "word " * 20000}]  # LiteLLM knows it by the words of the message
    harness.expect(litellm.ContextWindowExceededError, "maximum context length", lambda: complete(messages=long))
    harness.expect(litellm.ContextWindowExceededError, "maximum context length", lambda: list(complete(messages=long, stream=True)))
    with harness.Server("--workers", "cpu:0", "--api-keys", "alice=sk-alice-0123456789") as server:
        base = f"http://{server.http}/v1"
        harness.expect(litellm.AuthenticationError, "API key", lambda: complete(api_base=base, api_key="sk-wrong-0123456789"))
        assert complete(api_base=base, api_key="sk-alice-0123456789").choices[0].message.content


def test_litellm_other_dialects():
    """The same server as a server of vLLM, Anthropic and Ollama."""
    whole = complete().choices[0].message.content
    for model, base in ((f"hosted_vllm/{STATE['model']}", url()), (f"anthropic/{STATE['model']}", url("")),
                        (f"ollama_chat/{STATE['model']}", url(""))):
        answer = complete(model=model, api_base=base)
        assert answer.choices[0].message.content == whole, (model, answer)
        assert answer.usage.completion_tokens > 0, (model, answer)
        text = "".join(c.delta.content or "" for part in complete(model=model, api_base=base, stream=True) for c in part.choices)
        assert text == whole, (model, text)


if __name__ == "__main__":
    try:
        with harness.Server("--workers", "cpu:0", "--threads", "2") as STATE["server"]:
            with urllib.request.urlopen(url("/v1/models"), timeout=20) as listed:
                STATE["model"] = json.load(listed)["data"][0]["id"]
            harness.main(globals())
    except harness.Skip as reason:
        print(f"skipped: {reason}")
        sys.exit(77)
