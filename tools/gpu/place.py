"""Where tools/gpu_check runs: the binaries, the data, the GPU; and how they are run there."""
import json
import os
import pathlib
import subprocess
import time

NO_DEVICE = 77
PATIENCE = 570  # seconds that one program may take
LAST_LINES = 15  # of a program that fails, which are told


class Skip(Exception):
    """What cannot be done here; the text is the reason."""


class Failed(Exception):
    """A program that ended with an error: (status, seconds, text)."""


def output(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def devices():
    """A line for each GPU: name, driver, compute capability, memory."""
    found = output(["nvidia-smi", "--query-gpu=name,driver_version,compute_cap,memory.total", "--format=csv,noheader"])
    return [line for line in found.splitlines() if "," in line]


class Place:
    """`folder`: has bin, and lib if it is a bundle's. `gpu`: cuda, or simt, a GPU that is not there. `run_dir`: of jobs."""

    def __init__(self, folder, data, gpu, bundled, run_dir=None):
        self.folder, self.data, self.gpu, self.bundled = pathlib.Path(folder), pathlib.Path(data), gpu, bundled
        self.job_flags = ("--run-dir", run_dir) if run_dir else ()
        self.devices = devices()

    @property
    def simt(self):
        return self.gpu == "simt"

    def worker(self, number=0):
        return f"{self.gpu}:{number}"

    def has(self, name):
        return (self.folder / "bin" / name).exists()

    def need(self, *binaries, gpu=True):
        """Skips what needs more than is here."""
        if gpu and not self.simt and not self.devices:
            raise Skip("no GPU")
        for name in binaries:
            if not self.has(name):
                raise Skip(f"{name} was not built")

    def run(self, name, *args, before=(), patience=PATIENCE, **environment):
        """(status, seconds, standard output, all output)"""
        environment = dict(os.environ, DOVETAIL_DATA=str(self.data), **environment)
        if self.bundled:  # before what the machine has for its driver
            known = [str(self.folder / "lib"), os.environ.get("LD_LIBRARY_PATH")]
            environment["LD_LIBRARY_PATH"] = ":".join(filter(None, known))
        command = [*map(str, before), str(self.folder / "bin" / name), *map(str, args)]
        start = time.monotonic()
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", timeout=patience)
        except subprocess.TimeoutExpired:
            return 124, time.monotonic() - start, "", f"{name} took longer than {patience} s"
        return done.returncode, time.monotonic() - start, done.stdout, done.stdout + done.stderr

    def json(self, name, *args, **options):
        """(seconds, what it wrote as JSON)"""
        status, seconds, text, everything = self.run(name, *args, **options)
        if status != 0:
            raise Failed(status, seconds, everything)
        return seconds, json.loads(text)


class Report:
    """The checks with their results, printed as they come."""

    def __init__(self):
        self.checks = []

    def add(self, name, status, seconds, text):
        lines = text.strip().splitlines()
        last = lines[-1] if lines else ""
        if status == NO_DEVICE and not last.startswith("skipped: "):
            last = f"skipped: {last}"
        outcome = "ok" if status == 0 else last if status == NO_DEVICE else f"FAILED ({status})"
        self.checks.append({"name": name, "result": outcome, "status": status, "seconds": seconds})
        print(f"{name}: {outcome} ({seconds:.1f} s)", flush=True)
        if status not in (0, NO_DEVICE):
            self.checks[-1]["text"] = lines[-LAST_LINES:]
            print("\n".join(lines[-LAST_LINES:]), flush=True)

    def skip(self, name, reason):
        self.add(name, NO_DEVICE, 0, f"skipped: {reason}")

    def failed(self):
        return any(check["status"] not in (0, NO_DEVICE) for check in self.checks)
