"""API keys and TLS on both servers, with the clients that people use."""
import pathlib
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request

import grpc
import httpx2
import openai

import harness
from grpc_client import ReflectionClient

KEY = "sk-alice-0123456789"


def make_certificate(folder):
    """A certificate for 127.0.0.1, signed by itself: (certificate, key)."""
    certificate, key = f"{folder}/cert.pem", f"{folder}/key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def test_keys_and_tls():
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = make_certificate(folder)
        keys = pathlib.Path(folder, "keys.yaml")
        keys.write_text(f"alice: {KEY}\n")
        # Two workers, so that one joins over the local socket beside another.
        with harness.Server("--workers", "cpu:0,cpu:1", "--tls-certificate", certificate, "--tls-key", key,
                            "--api-keys-file", keys) as server:
            check_http(server, certificate)
            check_grpc(server, certificate)
            check_command_line(server, certificate)
            assert server.stop() == 0
            assert KEY not in server.stderr(), "a key is in the log"


def get(server, path, context, key=None):
    request = urllib.request.Request(f"https://{server.http}{path}")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def check_http(server, certificate):
    context = ssl.create_default_context(cafile=certificate)
    assert get(server, "/health", context)[0] == 200
    assert get(server, "/v1/models", context)[0] == 401
    assert get(server, "/metrics", context, "sk-wrong-0123456789")[0] == 401
    status, body = get(server, "/metrics", context, KEY)
    assert status == 200 and "dovetail_requests_total" in body
    with httpx2.Client(verify=context) as http:
        client = openai.OpenAI(base_url=f"https://{server.http}/v1", api_key=KEY, http_client=http, max_retries=0)
        model = client.models.list().data[0].id
        stream = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Say hi."}],
                                                max_tokens=4, stream=True)
        assert sum(1 for _ in stream) > 2
        other = openai.OpenAI(base_url=f"https://{server.http}/v1", api_key="sk-wrong-0123456789", http_client=http)
        try:
            other.models.list()
            raise AssertionError("a wrong key was accepted")
        except openai.AuthenticationError as error:
            assert error.code == "invalid_api_key", error


def check_grpc(server, certificate):
    credentials = grpc.ssl_channel_credentials(pathlib.Path(certificate).read_bytes())
    with grpc.secure_channel(server.grpc, credentials) as channel:
        client = ReflectionClient(server.grpc, channel)
        for method in ("dovetail.v1.AdminService/GetStatus", "dovetail.v1.InferenceService/ListModels"):
            for metadata in ([], [("authorization", "Bearer sk-wrong-0123456789")]):
                try:
                    client.call(method, {}, metadata=metadata)
                    raise AssertionError(f"{method} needs no key")
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error
        metadata = [("authorization", f"Bearer {KEY}")]
        status = client.call("dovetail.v1.AdminService/GetStatus", {}, metadata=metadata)
        assert status["state"] == "SERVING_STATE_READY" and len(status["workers"]) == 2, status
        # Probes have no key.
        assert client.health() == "SERVING"


def check_command_line(server, certificate):
    flags = ["--server", server.grpc, "--tls-ca", certificate]
    assert harness.run("dovetail", "status", *flags, "--quiet", check=False).returncode != 0
    done = harness.run("dovetail", "status", *flags, "--quiet", env={"DOVETAIL_API_KEY": KEY})
    assert done.stdout.strip() == "ready", done
    done = harness.run("dovetail", "chat", *flags, "--api-key", KEY, "-m", "Say hi.", "--max-tokens", "3")
    assert done.stdout.strip(), done


def test_mistakes_are_one_line_each():
    model = harness.need(harness.SMOLLM2)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = make_certificate(folder)
        bad_keys = pathlib.Path(folder, "bad.yaml")
        bad_keys.write_text("alice: short\n")
        for flags, words in ([["--tls-certificate", certificate], "needed together"],
                             [["--tls-certificate", key, "--tls-key", key], "no PEM certificate"],
                             [["--api-keys-file", f"{folder}/absent"], "absent"],
                             [["--api-keys-file", bad_keys], "bad.yaml:1:8"],
                             [["--api-keys", "justakey"], "alice=KEY"]):
            done = harness.run("dovetail", "serve", "--model", model, "--port", "0", *flags, check=False)
            lines = done.stderr.strip().splitlines()
            assert done.returncode == 2 and len(lines) == 1 and words in lines[0], (done.returncode, done.stderr)
            assert "short" not in done.stderr.replace("shorter", ""), done.stderr


if __name__ == "__main__":
    harness.main(globals())
