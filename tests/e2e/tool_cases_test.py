"""The calls of shared/data/api/gpt-oss-compat-cases.jsonl (OpenAI's own list for servers of gpt-oss), as far as a model of
135 million parameters can: each function is demanded by name, and what comes must be a call of it with its arguments."""
import json

import harness
import openai

CASES = harness.DATA / "api/gpt-oss-compat-cases.jsonl"


def tool_of(case):
    arguments = json.loads(case["expected_arguments"])
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object"}
    properties = {name: {"type": kinds[type(value)]} for name, value in arguments.items()}
    for name, value in arguments.items():
        if isinstance(value, str):
            properties[name]["maxLength"] = 40
    return {"type": "function", "function": {
        "name": case["tool_name"], "description": case["tool_name"].replace("_", " "),
        "parameters": {"type": "object", "properties": properties, "required": list(properties),
                       "additionalProperties": False}}}


def test_demanded_calls():
    cases = [json.loads(line) for line in open(harness.need(CASES))]
    with harness.Server("--workers", "cpu:0") as server:
        client = openai.OpenAI(base_url=f"http://{server.http}/v1", api_key="unused", max_retries=0, timeout=120)
        model = client.models.list().data[0].id
        for case in cases[::3]:
            tool = tool_of(case)
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": case["input"]}], tools=[tool], max_tokens=400, temperature=0,
                tool_choice={"type": "function", "function": {"name": case["tool_name"]}})
            choice = answer.choices[0]
            call = choice.message.tool_calls[0]
            assert call.function.name == case["tool_name"], call
            if choice.finish_reason == "length":
                continue  # a list or an object without an end
            assert choice.finish_reason == "tool_calls", choice
            assert set(json.loads(call.function.arguments)) == set(json.loads(case["expected_arguments"])), call


if __name__ == "__main__":
    harness.main(globals())
