"""Bundles of tools/gpu_check: all that a machine needs which has a GPU, its driver, the CUDA toolkit and python3."""
import lzma
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

from correct import golden_models
from place import output

BINARIES = ("gpu_kernels_test", "gpu_golden_test", "gpu_bench", "gpu_nccl", "dovetail", "dovetail-worker", "dovetail-coordinator")
MOST_BYTES = 48 << 20
PROGRAMS = "programs.tar.xz"
# One dictionary for all programs: what several of them have, kernels above all, is stored once. More effort than this saves a
# tenth and takes minutes.
PROGRAM_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": 128 << 20}]
LEAST_RATIO = 0.6  # of a model, compressed: no less
MODEL_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lp": 1, "pb": 1}]  # for numbers of two bytes
SYSTEM = re.compile(r"/(libc|libm|libdl|libpthread|librt|ld-linux[\w-]*)\.so")
README = """Dovetail on a GPU: checks and measurements, built from commit {commit} for compute capability {architectures}.

    ./gpu_check [--only PARTS] [--out DIR]      ./gpu_check --help

Needs Linux on x86-64 with glibc 2.36 or later, the NVIDIA driver and python3 (3.9 or later, with its lzma module, no
packages); compute-sanitizer from the CUDA toolkit for the part `sanitizer`, libnccl.so.2 for `nccl`. What is not there is
skipped, with the reason. {models} golden models are in, of {families} families; tests of others skip them.

The programs are packed in {programs} and are unpacked into a temporary folder (TMPDIR) for the time of a run, with some 120
MiB. Without python3 they can be run by hand: unpack it, and start bin/gpu_kernels_test, bin/gpu_golden_test or
bin/gpu_bench with LD_LIBRARY_PATH=lib and DOVETAIL_DATA=data (whose files end in .xz: unpack them, too).
"""


def size_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def pack_programs(build_folder, target):
    """The programs, stripped, and the libraries that they need, but for the system's own."""
    with tempfile.TemporaryDirectory() as name:
        work, libraries = pathlib.Path(name), set()
        for part in ("bin", "lib"):
            (work / part).mkdir()
        for program in BINARIES:
            if not (build_folder / "bin" / program).exists():
                sys.exit(f"gpu_check: {build_folder}/bin/{program} is not there: build the target gpu_binaries where nvcc is")
            subprocess.run(["strip", "-o", str(work / "bin" / program), str(build_folder / "bin" / program)], check=True)
            libraries |= set(re.findall(r"=> (/\S+)", output(["ldd", str(build_folder / "bin" / program)])))
        for library in libraries:
            if not SYSTEM.search(library):
                shutil.copy(library, work / "lib")
        with lzma.open(target, "wb", filters=PROGRAM_FILTERS) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
            for part in ("bin", "lib"):
                archive.add(work / part, arcname=part)


def wanted_models(root, data):
    """First one of each family that the golden test knows, then what else it has, the small ones first."""
    source = (root / "tests" / "property" / "gpu_worker_test.cc").read_text()
    tested = [name for name in re.findall(r'"([\w.-]+/model-[\w.-]+\.gguf)"', source) if (data / "golden" / name).exists()]
    tested.sort(key=lambda name: (data / "golden" / name).stat().st_size)
    families = {name.split("/")[0] for name in tested}
    return list(dict.fromkeys([name for name in golden_models(data) if name.split("/")[0] in families] + tested))


def add_models(root, data, folder):
    """As many as there is room for, each by itself; the names of those that are in."""
    added, families = [], set()
    most = MOST_BYTES - len(README) - (64 << 10)
    for name in wanted_models(root, data):
        family = name.split("/")[0]
        if size_of(folder) + LEAST_RATIO * (data / "golden" / name).stat().st_size > most:
            continue
        files = [name] if family in families else [name, f"{family}/golden.json"]
        packed = {file: lzma.compress((data / "golden" / file).read_bytes(), filters=MODEL_FILTERS) for file in files}
        if size_of(folder) + sum(map(len, packed.values())) > most:
            continue
        for file, content in packed.items():
            target = folder / "data" / "golden" / f"{file}.xz"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        added.append(name)
        families.add(family)
    return added


def make(script, root, data, build_folder, folder, commit, architectures):
    folder = pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "gpu").mkdir(parents=True)
    shutil.copy(script, folder / "gpu_check")
    for module in [*(root / "tools" / "gpu").glob("*.py"), root / "tools" / "peers.py", root / "tests" / "e2e" / "sparse_gguf.py"]:
        shutil.copy(module, folder / "gpu")
    (folder / "commit").write_text(commit + "\n")
    pack_programs(build_folder, folder / PROGRAMS)
    models = add_models(root, data, folder)
    families = len({name.split("/")[0] for name in models})
    (folder / "README.md").write_text(README.format(commit=commit, architectures=architectures, models=len(models), families=families,
                                                    programs=PROGRAMS))
    size = size_of(folder)
    print(f"gpu_check: {folder}: {size / 2**20:.1f} MiB, of them {(folder / PROGRAMS).stat().st_size / 2**20:.1f} MiB programs; "
          f"{len(models)} golden models of {families} families")
    if size > MOST_BYTES:
        sys.exit(f"gpu_check: a bundle has at most {MOST_BYTES >> 20} MiB")


def unpack(bundle, folder):
    """The programs and models of a bundle, into a folder that is there."""
    with lzma.open(bundle / PROGRAMS) as packed, tarfile.open(fileobj=packed) as archive:
        archive.extractall(folder)
    for packed in (bundle / "data").rglob("*.xz"):
        target = folder / packed.relative_to(bundle).with_suffix("")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(lzma.decompress(packed.read_bytes()))
