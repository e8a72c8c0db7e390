"""schemathesis draws requests from OpenAI's own description of its API (shared/data/api) for the routes that we have: whatever
they hold, the answer is never a 500 and always JSON."""
import gzip
import json
import sys

import harness

CLIENT = harness.SOURCE / ".venv/schemathesis"  # in a folder of its own: tools/test installs it there
DESCRIPTION = harness.DATA / "api/openai-openapi.yaml.gz"
ROUTES = ("/chat/completions", "/completions", "/models", "/models/{model}")
EXAMPLES = 30  # of each operation


def operations(base_url):
    sys.path.insert(0, harness.need(CLIENT))
    import schemathesis
    import yaml
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with gzip.open(harness.need(DESCRIPTION)) as file:
        description = yaml.load(file, Loader=loader)
    description["paths"] = {route: description["paths"][route] for route in ROUTES}
    for methods in description["paths"].values():
        methods.pop("delete", None)
    schema = schemathesis.openapi.from_dict(description)
    schema.config.update(base_url=base_url)
    return [operation.ok() for operation in schema.get_all_operations()]


def test_nothing_is_a_500():
    with harness.Server("--workers", "cpu:0", "--max-new-tokens", "4") as server:
        found = operations(f"http://{server.http}/v1")
        import hypothesis
        seen = {}
        for operation in found:
            @hypothesis.settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
                                 suppress_health_check=list(hypothesis.HealthCheck))
            @hypothesis.given(case=operation.as_strategy())
            def check(case):
                response = case.call(timeout=60)
                key = (operation.method, operation.path, response.status_code)
                seen[key] = seen.get(key, 0) + 1
                assert response.status_code < 500, (case.body, response.status_code, response.text)
                if response.status_code != 200 or "event-stream" not in response.headers.get("content-type", [""])[0]:
                    json.loads(response.content)
            check()
        print(sorted(seen.items()))
        assert {path for _, path, _ in seen} == set(ROUTES), seen


if __name__ == "__main__":
    harness.main(globals())
