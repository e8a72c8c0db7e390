"""deploy/compose.yaml and deploy/two-hosts: their services, started as separate processes that share only the run directory and the model."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import yaml

import harness
from grpc_client import ReflectionClient

COMPOSE = harness.SOURCE / "deploy/compose.yaml"
TWO_HOSTS = [harness.SOURCE / "deploy/two-hosts" / name for name in ("coordinator.yaml", "host-b.yaml")]


def command_of(service, run_dir, port, grpc_port):
    """The service's command with the container's paths, names and ports as they are on this machine."""
    words = []
    for word in service["command"]:
        word = word.replace("/models/${DOVETAIL_MODEL:-SmolLM2-135M-Instruct.Q4_1.gguf}", str(harness.SMOLLM2))
        word = word.replace("/usr/share/dovetail/rules", str(harness.SOURCE / "rules"))
        word = word.replace("/run/dovetail/job", f"{run_dir}/job").replace("0.0.0.0", "127.0.0.1")
        word = word.replace("coordinator:8081", f"127.0.0.1:{grpc_port}")
        word = word.replace("${DOVETAIL_COORDINATOR:-10.0.0.1:8081}", f"127.0.0.1:{grpc_port}")
        word = word.replace("${DOVETAIL_ADDRESS:-10.0.0.2}", "127.0.0.1").replace("/run/secrets", run_dir)
        words.append({"8080": str(port), "8081": str(grpc_port)}.get(word, word))
    return [str(harness.BIN / words[0]), *words[1:]]


def test_compose_file_is_accepted():
    if not shutil.which("docker-compose"):
        raise harness.Skip("docker-compose is not installed")
    for file in (COMPOSE, *TWO_HOSTS):
        done = subprocess.run(["docker-compose", "-f", str(file), "config"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (file, done.stderr)


def end_all(processes):
    for process in processes.values():
        if process.poll() is None:
            process.kill()
            process.wait()


def is_serving(client):
    """Also while nobody listens yet: then it is dialled anew."""
    try:
        return client.health() == "SERVING"
    except Exception:
        client.channel.close()
        client.__init__(client.address)
        return False


def start_in_order(order):
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert set(services) == {"coordinator", "worker-0", "worker-1"}
    port, grpc_port = harness.free_port(), harness.free_port()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as run_dir:
        processes = {}
        try:
            for name in order:
                processes[name] = subprocess.Popen(command_of(services[name], run_dir, port, grpc_port), cwd="/",
                                                   stdin=subprocess.DEVNULL, start_new_session=True, close_fds=True,
                                                   env={"PATH": os.environ["PATH"]})
            client = ReflectionClient(f"127.0.0.1:{grpc_port}")

            def ready():
                for name, process in processes.items():
                    assert process.poll() is None, f"{name} ended with {process.returncode}"
                return is_serving(client)

            harness.wait_for(ready, 60, "ready")
            text, _ = client.generate("Name the capital of France.", sampling={"temperature": 0}, max_tokens=40)
            assert "Paris" in text, text

            # The restart policy's part: a worker dies and the same command is started again.
            victim = processes["worker-1"]
            victim.kill()
            victim.wait()
            harness.wait_for(lambda: client.health() != "SERVING", 3, "the loss is noticed")
            processes["worker-1"] = subprocess.Popen(command_of(services["worker-1"], run_dir, port, grpc_port), cwd="/",
                                                     start_new_session=True, env={"PATH": os.environ["PATH"]})
            harness.wait_for(lambda: client.health() == "SERVING", 60, "ready again")
            again, _ = client.generate("Name the capital of France.", sampling={"temperature": 0}, max_tokens=40)
            assert again == text, (again, text)
            client.close()
            for name in ("coordinator", "worker-0", "worker-1"):
                processes[name].send_signal(signal.SIGTERM)
                assert processes[name].wait(20) == 0, name
        finally:
            end_all(processes)


def test_services_start_in_any_order():
    harness.need(harness.SMOLLM2)
    for order in (("coordinator", "worker-0", "worker-1"), ("worker-1", "worker-0", "coordinator")):
        start_in_order(order)


def test_two_hosts():
    """The commands of both files, as processes that share the cluster's key and nothing else."""
    harness.need(harness.SMOLLM2)
    port, grpc_port = harness.free_port(), harness.free_port()
    services = {name: service for file in TWO_HOSTS for name, service in yaml.safe_load(file.read_text())["services"].items()}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as run_dir:
        pathlib.Path(run_dir, "cluster_key").write_text("a-key-of-two-hosts\n")
        processes = {}
        try:
            for name, service in services.items():
                words = [w.replace(":7000", f":{port + 1000 if port < 60000 else port - 1000}")
                         for w in command_of(service, run_dir, port, grpc_port)]
                processes[name] = subprocess.Popen(words, cwd="/", stdin=subprocess.DEVNULL, start_new_session=True,
                                                   env={"PATH": os.environ["PATH"]})
            client = ReflectionClient(f"127.0.0.1:{grpc_port}")
            harness.wait_for(lambda: is_serving(client), 60, "ready")
            text, _ = client.generate("Name the capital of France.", sampling={"temperature": 0}, max_tokens=40)
            assert "Paris" in text, text
            client.close()
            for name in ("coordinator", "worker"):
                if name == "coordinator":
                    processes[name].send_signal(signal.SIGTERM)
                assert processes[name].wait(30) == 0, name
        finally:
            end_all(processes)


harness.main(globals())
