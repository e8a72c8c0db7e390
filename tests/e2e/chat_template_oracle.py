#!/usr/bin/env python3
"""Chat templates against the oracle: Python's jinja2 in the environment that Hugging Face renders in.

Every template of $DOVETAIL_DATA/chat-templates (and of a model file, if DOVETAIL_SMOLLM2 names one) is rendered
with generated conversations by jinja2 and by tests/e2e/render_template. Texts must be equal byte for byte, and
where jinja2 raises, we must return an error. Exit status 77: jinja2 or the data is missing.
"""
import datetime
import functools
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

try:
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

NOW = 1_753_800_000

# File (or case) -> why it is not equal yet. A template that is listed and passes fails the test, so the list is true.
KNOWN_GAPS: dict[str, str] = {}


class GenerationTag(jinja2.ext.Extension):
    """{% generation %}: Hugging Face's mark for what the assistant said; it prints its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def hugging_face_environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form):
        return datetime.datetime.fromtimestamp(NOW).strftime(form)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


ENVIRONMENT = hugging_face_environment()


@functools.lru_cache(maxsize=4)
def compiled(source):
    """The template, or the error that compiling it raises."""
    try:
        return ENVIRONMENT.from_string(source)
    except jinja2.TemplateError as error:
        return error


def oracle(source, context):
    """The text, or None and the error."""
    template = compiled(source)
    if isinstance(template, Exception):
        return None, f"{type(template).__name__}: {template}"
    try:
        return template.render(**context), None
    except Exception as error:  # jinja2 lets Python's own errors through
        return None, f"{type(error).__name__}: {error}"


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city, \"now\" <or> later & so on.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name of the city, e.g. 東京"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                    "days": {"type": "integer", "minimum": 1, "description": "How many days"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "where": {
                        "type": "object",
                        "properties": {"lat": {"type": "number"}, "lon": {"type": ["number", "null"]}},
                        "required": ["lat"],
                    },
                },
                "required": ["city"],
            },
            "return": {"type": "string", "description": "A sentence."},
        },
    },
    {
        "type": "function",
        "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
    },
]


def call(name, arguments, number=0):
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}


def conversations():
    """Name and messages."""
    user = {"role": "user", "content": "Name the capital of France."}
    paris = {"role": "assistant", "content": "Paris."}
    system = {"role": "system", "content": "You are terse."}
    yield "user", [user]
    yield "system", [system, user]
    yield "turns", [user, paris, {"role": "user", "content": "And of Italy?"}]
    yield "system turns", [system, user, paris, {"role": "user", "content": "  And of Italy?\n"}]
    yield "ends with assistant", [system, user, paris]
    yield "unicode", [{"role": "system", "content": "Ünïcödé ✓"}, {"role": "user", "content": "日本語 🦙 e\u0301 \u00a0x"}]
    yield "quotes", [{"role": "user", "content": "'a' \"b\" \\n {{ x }} {% y %} <|im_end|> </s> & <b>\n\n\ttab"}]
    yield "empty content", [{"role": "system", "content": ""}, {"role": "user", "content": ""}, paris, user]
    yield "white space", [{"role": "user", "content": " \n "}, {"role": "assistant", "content": "\n x \n"}, user]
    yield "thinking", [
        user,
        {"role": "assistant", "content": "<think>\nA city on the Seine.\n</think>\n\nParis."},
        {"role": "user", "content": "Sure?"},
    ]
    yield "reasoning", [
        user,
        {"role": "assistant", "content": "Paris.", "reasoning_content": "On the Seine.", "reasoning": "On the Seine."},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "Yes.", "thinking": "It is."},
    ]
    yield "content parts", [
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "you."}]},
    ]
    yield "image", [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
    ]
    yield "developer", [{"role": "developer", "content": "Be brief."}, user]
    yield "two users", [user, user]
    yield "assistant first", [paris, user]
    yield "unknown role", [{"role": "poet", "content": "O!"}, user]
    yield "no content", [{"role": "user"}]
    yield "null content", [user, {"role": "assistant", "content": None}, user]
    yield "no messages", []
    weather = {"city": "Paris", "days": 2, "exact": True, "ratio": 0.5, "none": None, "tags": ["a", "ü"], "o": {"k": 1}}
    for arguments in (weather, json.dumps(weather, ensure_ascii=False), {}):
        yield f"tool call {type(arguments).__name__} {len(arguments)}", [
            system,
            {"role": "user", "content": "Weather in Paris?"},
            {"role": "assistant", "content": "", "tool_calls": [call("get_weather", arguments)]},
            {"role": "tool", "name": "get_weather", "tool_call_id": "call00000", "content": "{\"sky\": \"clear\"}"},
            {"role": "assistant", "content": "Clear."},
            {"role": "user", "content": "Thanks."},
        ]
    yield "tool calls in parallel", [
        {"role": "user", "content": "Weather and time?"},
        {"role": "assistant", "content": None, "tool_calls": [call("get_weather", weather, 1), call("now", {}, 2)]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": "clear"},
        {"role": "tool", "name": "now", "tool_call_id": "call00002", "content": "noon"},
    ]
    yield "tool call and text", [
        {"role": "user", "content": "Time?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "I need the time.",
            "tool_calls": [call("now", {}, 3)],
        },
        {"role": "tool", "tool_call_id": "call00003", "content": [{"type": "text", "text": "noon"}]},
    ]


def contexts():
    """Name and context of every rendering that is tried."""
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    for name, messages in conversations():
        for prompt in (True, False):
            yield f"{name}, prompt {prompt}", {"messages": messages, "add_generation_prompt": prompt, **tokens}
        yield f"{name}, tools", {"messages": messages, "add_generation_prompt": True, "tools": TOOLS, **tokens}
        yield f"{name}, no thinking", {
            "messages": messages,
            "add_generation_prompt": True,
            "enable_thinking": False,
            "tools": None,
            "reasoning_effort": "low",
            **tokens,
        }
    yield "nothing", {}
    yield "no tokens", {"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": True}
    documents = [{"title": "A", "text": "Text of A."}, {"title": "B", "text": "Text of B.", "doc_id": 7}]
    yield "documents", {
        "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi"}],
        "add_generation_prompt": True,
        "documents": documents,
        "thinking": True,
        "builtin_tools": ["python", "browser", "code_interpreter"],
        "date_string": "26 Jul 2024",
        "custom_tools": TOOLS,
        "tools_in_user_message": False,
        "model_identity": "I am a test.",
        **tokens,
    }


def render(program, source, cases):
    """What we make of the template: a list of {"text"} or {"error"}."""
    with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8", newline="") as file:
        file.write(source)
        file.flush()
        run = subprocess.run(
            [program, "--lines", file.name, str(NOW)],
            input="\n".join(json.dumps(case) for case in cases) + "\n",
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
    if run.returncode != 0:
        return [{"error": f"exit status {run.returncode}: {run.stderr[-500:]}", "crash": True}] * len(cases)
    return [json.loads(line) for line in run.stdout.split("\n") if line]


def difference(expected, error, got):
    """Why the two do not agree, or None."""
    if got.get("crash"):
        return got["error"]
    if expected is None:
        return None if "error" in got else f"jinja2 raises {error}, we print {got['text'][:200]!r}"
    if "error" in got:
        return f"we fail: {got['error']}"
    if got["text"] == expected:
        return None
    at = next((i for i, (a, b) in enumerate(zip(expected, got["text"])) if a != b), min(len(expected), len(got["text"])))
    return f"at {at}: expected {expected[max(0, at - 40):at + 60]!r}, got {got['text'][max(0, at - 40):at + 60]!r}"


def gguf_chat_template(path):
    """tokenizer.chat_template of a GGUF file, read by hand: it stands in the metadata as a string."""
    data = pathlib.Path(path).read_bytes()[: 64 << 20]
    key = b"tokenizer.chat_template"
    at = data.find(struct.pack("<Q", len(key)) + key)
    if at < 0:
        return None
    at += 8 + len(key) + 4
    (length,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + length].decode("utf-8")


def read_text(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def templates(data):
    """Name, source and contexts of everything to compare."""
    common = list(contexts())
    for path in sorted(data.glob("*.jinja")):
        yield path.name, read_text(path), common
    cases = json.loads((data / "huggingface.js-e2e-53.json").read_text(encoding="utf-8"))
    for group, members in cases.items():
        for name, case in members.items():
            yield f"{group} {name}", case["chat_template"], [("its own", case["data"])] + common
    model = os.environ.get("DOVETAIL_SMOLLM2")
    if model and (source := gguf_chat_template(model)):
        yield "SmolLM2", source, common


def check_published_targets(data, program):
    """huggingface.js says what its 53 cases print; that is a second oracle."""
    failures = []
    cases = json.loads((data / "huggingface.js-e2e-53.json").read_text(encoding="utf-8"))
    for group, members in cases.items():
        for name, case in members.items():
            got = render(program, case["chat_template"], [case["data"]])[0]
            expected, _ = oracle(case["chat_template"], case["data"])
            if expected != case["target"]:
                continue  # its own JavaScript departs from jinja2 here
            if got.get("text") != case["target"]:
                failures.append(f"{group} {name}: {difference(case['target'], None, got)}")
    return failures


def main():
    data = pathlib.Path(os.environ.get("DOVETAIL_DATA", "")) / "chat-templates"
    if not data.is_dir():
        print("skipped: no shared data: chat-templates")
        return 77
    program = os.path.join(os.environ.get("DOVETAIL_BIN", "."), "render_template")
    files = equal = renderings = rendered_texts = 0
    failures = []
    for name, source, cases in templates(data):
        problems = []
        for (case, context), got in zip(cases, render(program, source, [context for _, context in cases]), strict=True):
            expected, error = oracle(source, context)
            renderings += 1
            rendered_texts += expected is not None
            problem = difference(expected, error, got)
            if problem is not None:
                problems.append(f"  {case}: {problem}")
        files += 1
        equal += not problems
        if name in KNOWN_GAPS:
            if not problems:
                failures.append(f"{name}: passes, but is in KNOWN_GAPS: take it out")
        elif problems:
            failures.append(f"{name}: {len(problems)} of {len(cases)}\n" + "\n".join(problems[:3]))
    failures += check_published_targets(data, program)
    print(f"{equal} of {files} templates equal in all of {renderings} renderings ({rendered_texts} texts)")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
