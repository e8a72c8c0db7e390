"""tools/gpu_check where there is no GPU: what it runs, says and writes; with one it is the check itself."""
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import harness

BUILD = harness.BIN.parent
STAND_IN = BUILD / "lib/libnccl_stand_in.so"
MOST_BYTES = 48 << 20
SYSTEM = re.compile(r"/(libc|libm|libdl|libpthread|librt|ld-linux[\w-]*)\.so")
# What llama.cpp's programs print, as far as it is read.
PEER = {"llama-bench": """echo '[{"avg_ts": 0.5}]'""",
        "llama-batched-bench": "echo '|  16 |  4 |  2 |  40 | 0.1 | 1.0 | 0.2 | 1000000.0 | 0.3 | 1.0 |'"}


def need_gpu_binaries():
    if not (harness.BIN / "gpu_kernels_test").exists():
        raise harness.Skip("this build has no GPU kernels: nvcc is not here")


def run(command, code=0, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=1200, **options)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def check(out, *args, code=0, **environment):
    return run([harness.SOURCE / "tools/gpu_check", "--build-dir", BUILD, "--out", out, *args], code, env={**os.environ, **environment})


def results(out):
    """(what was written as JSON, as Markdown); every check is in both, and what is skipped has a reason."""
    result = json.loads((pathlib.Path(out) / "gpu_check.json").read_text())
    table = (pathlib.Path(out) / "gpu_check.md").read_text()
    for entry in result["checks"]:
        if entry["status"] == 77:
            assert re.match("skipped: .", entry["result"]), entry
        assert f"| {entry['name']} | {entry['result']} |" in table, (entry, table)
    assert result["commit"] in table, table
    return result, table


def names(result, status):
    return [entry["name"] for entry in result["checks"] if entry["status"] == status]


def test_every_part_runs_or_says_why_not():
    need_gpu_binaries()
    with tempfile.TemporaryDirectory() as out:
        check(out, "--only", "kernels,golden,processes,nccl,bench,model,hybrid")
        result, _ = results(out)
    found = [entry["name"] for entry in result["checks"]]
    assert found[:2] == ["kernels", "golden models"] and "benchmark" in found and len(found) > 6, result
    assert all(entry["status"] in (0, 77) for entry in result["checks"]), result
    assert result["devices"] or {"processes", "model", "hybrid"} <= set(names(result, 77)), result


def test_a_part_that_fails_is_told():
    with tempfile.TemporaryDirectory() as out:
        broken = pathlib.Path(out) / "build/bin"
        broken.mkdir(parents=True)
        program = broken / "gpu_kernels_test"
        program.write_text("#!/bin/sh\necho one kernel differs\nexit 3\n")
        program.chmod(0o755)
        text = check(out, "--build-dir", str(broken.parent), "--only", "kernels,golden,nccl", code=1)
        result, _ = results(out)
    assert "one kernel differs" in text and result["checks"][0]["result"] == "FAILED (3)", (text, result)
    assert [entry["result"] for entry in result["checks"][1:]] == ["skipped: gpu_golden_test was not built",
                                                                  "skipped: gpu_nccl was not built"], result


def test_a_part_that_breaks_keeps_the_others():
    with tempfile.TemporaryDirectory() as out:
        broken = pathlib.Path(out) / "build/bin"
        broken.mkdir(parents=True)
        for name, script in (("gpu_nccl", "echo no JSON"), ("gpu_kernels_test", "true")):
            (broken / name).write_text(f"#!/bin/sh\n{script}\n")
            (broken / name).chmod(0o755)
        text = check(out, "--build-dir", str(broken.parent), "--only", "nccl,kernels", code=1)
        result, _ = results(out)
    assert "JSONDecodeError" in text and names(result, 1) == ["nccl"] and names(result, 0) == ["kernels"], (text, result)


def fake_bench():
    """What gpu_bench writes of two types, one of them too slow with one row, of one prompt, and of an op on rows."""
    types = [{"type": name, "n": 1024, "weight_bytes": 300 << 20, "rows": [
        {"rows": rows, "ms": 1.0, "weights_gb_per_s": share * 4000, "share_of_copy": share, "tera_multiplications_per_s": 30.0,
         "share_of_int8_peak": 0.06, **({"enough_of_copy": share >= 0.75} if rows == 1 else {})} for rows in (1, 8, 512)]}
        for name, share in (("Q4_K", 0.5), ("Q8_0", 0.8))]
    return {"device": "a GPU", "compute_capability": "9.0", "copy_gb_per_s": 4000.0, "upload_gb_per_s": 55.0,
            "int8_peak_tera_multiplications_per_s": 500.0, "f32_peak_tera_multiply_adds_per_s": 30.0, "k": 8192, "types": types,
            "attention": [{"shape": "8 heads of 64, 2 KV heads", "rows": 512, "position": 1024, "ms": 0.25,
                           "tera_multiply_adds_per_s": 15.0, "share_of_f32_peak": 0.5, "cache_gb_per_s": 120.0,
                           "share_of_copy": 0.03}],
            "rows": [{"op": "norm of 256", "rows": 1, "us": 3.25}]}


def test_products_and_their_shares_are_told():
    with tempfile.TemporaryDirectory() as out:
        binaries = pathlib.Path(out) / "build/bin"
        binaries.mkdir(parents=True)
        (binaries / "gpu_bench").write_text(f"#!/bin/sh\necho '{json.dumps(fake_bench())}'\n")
        (binaries / "gpu_bench").chmod(0o755)
        check(out, "--build-dir", str(binaries.parent), "--only", "bench")
        result, table = results(out)
    assert result["bench"] == fake_bench(), result
    assert "With one row below 0.75: Q4_K." in table, table
    assert "| Q4_K | 1024 | 0.50 (below 0.75) | 0.50 | 30.0 (0.06) |" in table and "| Q8_0 | 1024 | 0.80 | 0.80 |" in table, table
    assert "| 8 heads of 64, 2 KV heads | 512 | 1024 | 0.250 | 15.0 | 0.50 | 120 | 0.03 |" in table, table
    assert "| norm of 256 | 1 | 3.2 |" in table, table


def test_the_bound_of_streamed_experts():
    sys.path[:0] = [str(harness.SOURCE / "tools"), str(harness.SOURCE / "tools/gpu")]
    import speed
    most = {"upload_gb_per_s": 50.0, "int8_peak_tera_multiplications_per_s": 500.0}
    shapes = {"expert_bytes": 100e9, "multiplications_per_token": 20e9}
    assert speed.streamed_bound(shapes, most, 2000) == 1000  # two seconds on the bus
    assert speed.streamed_bound(shapes, most, 100000) == 25000  # four of products
    assert speed.streamed_bound(shapes, {}, 2000) is None


def test_release_sees_what_a_program_holds():
    need_gpu_binaries()
    loader = importlib.machinery.SourceFileLoader("release", str(harness.SOURCE / "tools/release"))
    sys.dont_write_bytecode = True
    release = importlib.util.module_from_spec(importlib.util.spec_from_loader("release", loader))
    loader.exec_module(release)
    wanted = re.search(r"DOVETAIL_CUDA_ARCHITECTURES:\w+=(.*)", (BUILD / "CMakeCache.txt").read_text()).group(1)
    code, _ = release.kernels_in(harness.BIN / "dovetail-worker")
    assert sorted(code) == sorted(int(re.sub("-.*", "", name)) for name in wanted.split(";")), (code, wanted)
    assert all(pieces == 4 and size > 100000 for pieces, size in code.values()), code


def test_worker_processes_on_a_gpu_that_is_not_there():
    harness.need(harness.DATA / "golden/deepseek3/model-q4_k_m.gguf")
    with tempfile.TemporaryDirectory() as out:
        check(out, "--gpu", "simt", "--only", "processes,nccl", "--seconds", 3, DOVETAIL_NCCL_LIBRARY=str(STAND_IN))
        result, table = results(out)
    good = names(result, 0)
    assert {f"deepseek3: {what}" for what in ("one GPU worker", "experts on the CPU", "streamed experts",
                                              "two on one GPU, by mapped memory (CUDA IPC)")} <= set(good), result
    assert {"two GPU workers, by NCCL", "two ranks on one GPU are refused, by edge", "NCCL: a communicator of one rank",
            "NCCL: abort of one whose other rank does not come"} <= set(good), result
    assert all("no time is left" in entry["result"] for entry in result["checks"] if entry["status"] == 77), result
    assert result["nccl"]["version"] == 21801 and "NCCL 21801" in table, (result, table)


def test_without_nccl_its_part_is_skipped():
    with tempfile.TemporaryDirectory() as out:
        check(out, "--gpu", "simt", "--only", "nccl", DOVETAIL_NCCL_LIBRARY="/nowhere/libnccl.so.2")
        result, _ = results(out)
    assert all(entry["status"] == 77 and "/nowhere/libnccl.so.2" in entry["result"] for entry in result["checks"]), result


def peer(folder):
    """A build folder whose programs print a figure."""
    (folder / "bin").mkdir(parents=True)
    for name, script in PEER.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


def test_speed_on_a_gpu_that_is_not_there():
    with tempfile.TemporaryDirectory() as out:
        check(out, "--gpu", "simt", "--only", "model,hybrid", "--files", f"{out}/files", "--run-dir", out, "--rounds", 1,
              "--llama", peer(pathlib.Path(out) / "llama"), "--ik", f"{out}/nowhere")
        result, table = results(out)
    rows = {entry["what"]: entry for entry in result["model"]["rows"]}
    first, more = rows["decode, 1 stream"], rows["decode, 2 streams"]
    assert first["other"] == 0.5 and more["other"] == 1e6, rows
    assert first["ratio"] > 1.2 > more["ratio"] and all(target["reached"] for target in first["targets"]), rows
    assert result["model"]["multiplications_per_token"] > 1e5, result["model"]
    hybrid, hop = result["hybrid"]["layers"], result["hybrid"]["hop"]
    assert "nowhere has no bin/llama-bench" in hybrid["reason"] and hop["visits"] == 8, (hybrid, hop)
    assert hop["steps"]["apart"]["ms"] > 0 and hop["steps"]["apart"]["computed_ms"] > 0, hop
    assert len(hybrid["rows"]) == 4 and all(entry["dovetail"] > 0 for entry in hybrid["rows"]), hybrid
    assert [entry["share"] > 0 for entry in hybrid["host_shares"]] == [True, True], hybrid
    assert names(result, 77) == ["ik_llama.cpp"] and not names(result, 1), result
    assert "From the GPU to the CPU and back" in table and "| 1.0: yes, 1.2: yes |" in table, table


def alone(bundle, out, *args):
    """Runs a bundle without the environment and the folder of this test."""
    run([bundle / "gpu_check", "--out", out, *args], cwd="/", env={"PATH": "/usr/bin:/bin"})
    return results(out)


def test_layers_for_which_there_is_no_room_leave_the_hop():
    with tempfile.TemporaryDirectory() as out:
        check(out, "--gpu", "simt", "--only", "hybrid", "--hybrid-model", f"{out}/nowhere.gguf")
        result, table = results(out)
    assert names(result, 0) == ["hybrid: hops"] and names(result, 77) == ["hybrid: layers"], result
    assert "From the GPU to the CPU and back" in table, table


def test_a_bundle_needs_nothing_else():
    need_gpu_binaries()
    if harness.SLOWNESS > 1:
        raise harness.Skip("programs with sanitizers are too large")
    with tempfile.TemporaryDirectory() as name:
        bundle, out, unpacked = (pathlib.Path(name) / part for part in ("bundle", "out", "unpacked"))
        text = check(out, "--bundle", bundle)
        size = sum(file.stat().st_size for file in bundle.rglob("*") if file.is_file())
        assert size <= MOST_BYTES and re.search(r"[1-9]\d* golden models", text), (size, text)
        assert "python3" in (bundle / "README.md").read_text()
        result, _ = alone(bundle, out)
        assert all(entry["status"] in (0, 77) for entry in result["checks"]) and len(result["checks"]) >= 8, result
        result, _ = alone(bundle, out, "--gpu", "simt", "--only", "processes,model", "--seconds", 1)
        assert "deepseek3: streamed experts" in names(result, 0) and not names(result, 1), result
        # Of libraries none but the system's own is another's than the bundle's.
        unpacked.mkdir()
        run(["tar", "-xJf", bundle / "programs.tar.xz", "-C", unpacked])
        for program in (unpacked / "bin").iterdir():
            for library in re.findall(r"=> (\S.*)", run(["ldd", program], env={"LD_LIBRARY_PATH": str(unpacked / "lib")})):
                assert library.startswith(str(unpacked)) or SYSTEM.search(library), (program, library)


def test_wrong_arguments():
    with tempfile.TemporaryDirectory() as out:
        text = check(out, "--only", "kernels,coffee", code=2)
    assert "unknown parts coffee; known: kernels, golden, processes, nccl, sanitizer, bench, model, hybrid" in text, text


if __name__ == "__main__":
    harness.main(globals())
