"""A reflection client, as grpcurl is one, finds and calls everything without proto files."""
import grpc

import harness
from grpc_client import ReflectionClient


def test_reflection_health_generate():
    with harness.Server("--workers", "cpu:0,cpu:1", "--rules", harness.RULES) as server:
        client = ReflectionClient(server.grpc)
        services = client.services()
        for name in ("dovetail.v1.InferenceService", "dovetail.v1.AdminService", "grpc.health.v1.Health",
                     "grpc.reflection.v1alpha.ServerReflection"):
            assert name in services, (name, services)
        assert client.health() == "SERVING"
        assert client.health("dovetail.v1.InferenceService") == "SERVING"
        try:
            client.health("no.such.Service")
            raise AssertionError("an unknown service must be NOT_FOUND")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error

        text, last = client.generate("Name the capital of France.", sampling={"temperature": 0}, max_tokens=48)
        assert "Paris" in text, text
        assert last["finish_reason"] in ("FINISH_REASON_STOP", "FINISH_REASON_LENGTH"), last
        assert last["usage"]["prompt_tokens"] > 0 and last["usage"]["completion_tokens"] > 0, last

        ids = client.call("dovetail.v1.InferenceService/Tokenize", {"text": "Hello, wörld"})["ids"]
        back = client.call("dovetail.v1.InferenceService/Detokenize", {"ids": ids})["text"]
        assert back == "Hello, wörld", back
        models = client.call("dovetail.v1.InferenceService/ListModels", {})["models"]
        assert len(models) == 1 and models[0]["architecture"] == "llama", models

        plan = client.call("dovetail.v1.AdminService/GetPlan", {})
        owners = {m["name"]: m["worker"] for m in plan["modules"]}
        assert owners["model.embed_tokens"] == "cpu:0" and owners["lm_head"] == "cpu:1", owners
        assert owners["model.layers.14.mlp"] == "cpu:0" and owners["model.layers.15.self_attn"] == "cpu:1"
        client.close()


def test_errors_have_codes_and_names():
    with harness.Server("--workers", "cpu:0") as server:
        client = ReflectionClient(server.grpc)
        cases = [
            ({"model": "nope", "prompt": "x"}, grpc.StatusCode.NOT_FOUND, "nope"),
            ({"prompt": "x", "sampling": {"temperature": -1}}, grpc.StatusCode.INVALID_ARGUMENT, "temperature"),
            ({"prompt": "x", "sampling": {"top_p": 3}}, grpc.StatusCode.INVALID_ARGUMENT, "top_p"),
            ({"token_ids": {"ids": [5] * 100000}}, grpc.StatusCode.INVALID_ARGUMENT, "100000"),
            ({"token_ids": {"ids": [99999999]}}, grpc.StatusCode.INVALID_ARGUMENT, "99999999"),
            ({}, grpc.StatusCode.INVALID_ARGUMENT, "token_ids"),
        ]
        for request, code, word in cases:
            try:
                list(client.call("dovetail.v1.InferenceService/Generate", request))
                raise AssertionError(f"{str(request)[:80]} was accepted")
            except grpc.RpcError as error:
                assert error.code() == code and word in error.details(), (str(request)[:80], error.code(), error.details())
        client.close()


def test_drain_ends_in_order():
    with harness.Server("--workers", "cpu:0") as server:
        client = ReflectionClient(server.grpc)
        reply = client.call("dovetail.v1.AdminService/Drain", {"timeout_ms": 2000, "exit": True})
        assert reply.get("unfinished_sequences", 0) == 0, reply
        client.close()
        assert server.process.wait(20) == 0
        assert not server.workers()


harness.main(globals())
