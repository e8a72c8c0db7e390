#!/usr/bin/env python3
"""Checks of the source text that keep the house rules alive; run by tools/check.

Errors: an include that points upward, a unit test without its source file, a source that no CMakeLists.txt lists, a
missing include guard, a left-over marker, a documented path that does not exist, a file over 600 lines, a weak symbol
outside its namespace in the objects of one instruction set. Information: the largest files and functions, and
places that share eight or more lines.
"""
import collections
import hashlib
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAX_LINES = 600
# What each folder may include besides itself.
LAYERS = {
    "base": set(),
    "kernels": {"base"},
    "model": {"base"},
    "transport": {"base", "dovetail"},       # dovetail/v1: generated protobuf code
    "coordinator": {"base", "model", "transport", "dovetail"},
    "worker": {"base", "model", "kernels", "transport", "dovetail"},
    "tools": {"base", "model", "kernels", "transport", "coordinator", "worker", "dovetail"},
    "tests": {"base", "model", "kernels", "transport", "coordinator", "worker", "tools", "dovetail"},
}
MARKER = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
errors = []


def tracked():
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True, check=True)
    return [ROOT / line for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def rel(path):
    return path.relative_to(ROOT).as_posix()


def check_includes(path, text):
    folder = rel(path).split("/")[0]
    if folder not in LAYERS:
        return
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#include "([^"]+)"', line)
        if not match:
            continue
        target = match.group(1).split("/")[0]
        if target in LAYERS or target == "dovetail":
            if target != folder and target not in LAYERS[folder]:
                errors.append(f"{rel(path)}:{number}: {folder} may not include {match.group(1)}")
            elif target in LAYERS and not (ROOT / match.group(1)).is_file():
                errors.append(f"{rel(path)}:{number}: no such file {match.group(1)}")


def check_guard(path, text):
    if path.suffix != ".h" or ".inl." in path.name:
        return
    guard = "DOVETAIL_" + re.sub(r"[/.]", "_", rel(path)).upper() + "_"
    if f"#ifndef {guard}" not in text or f"#define {guard}" not in text:
        errors.append(f"{rel(path)}: include guard is not {guard}")


def check_registered(files):
    lists = {}
    for path in files:
        if path.name == "CMakeLists.txt":
            lists[path.parent] = path.read_text()
    for path in files:
        if path.suffix not in (".cc", ".cu"):
            continue
        folder = path.parent
        while folder != ROOT and not (folder in lists and re.search(
                rf"(^|[\s(]){re.escape(path.relative_to(folder).as_posix())}", lists[folder], re.M)):
            folder = folder.parent
        if folder == ROOT:
            errors.append(f"{rel(path)}: no CMakeLists.txt lists it")


def check_mirror(path):
    name = rel(path)
    match = re.match(r"tests/unit/(.+)_test\.cc$", name)
    if not match:
        return
    stem = match.group(1)
    folder = ROOT / pathlib.PurePosixPath(stem).parent
    wanted = pathlib.PurePosixPath(stem).name
    stems = [p.name.split(".")[0] for p in folder.rglob("*")] if folder.is_dir() else []
    # A second test of one file or subfolder adds a word to its name: tokenizer_vectors_test.cc.
    if not any(wanted == s or wanted.startswith(s + "_") or s.startswith(wanted.split("_")[0] + "_") for s in stems):
        errors.append(f"{name}: mirrors no source file {stem}.{{h,cc}} (in that folder or below)")


def check_doc_paths(path, text):
    for number, line in enumerate(text.splitlines(), 1):
        for quoted in re.findall(r"`([a-z_]+/[A-Za-z0-9_./-]+)`", line):
            if quoted.split("/")[0] in LAYERS | {"docs": 0, "rules": 0, "deploy": 0, "proto": 0}.keys():
                if not (ROOT / quoted.rstrip("/")).exists():
                    errors.append(f"{rel(path)}:{number}: `{quoted}` does not exist")


def function_lengths(path, lines):
    """(length, name, line) by the brace at column 0 that closes a definition at namespace level."""
    start = None
    for number, line in enumerate(lines, 1):
        if start is None and re.match(r"^[A-Za-z_~].*[)({,]$|^[A-Za-z_].*\{$", line) and not re.match(
                r"^(namespace|class|struct|enum|union|extern|#|typedef|using|constexpr [^(]*=|const [^(]*=|template)", line):
            start = (number, line)
        if line.startswith("}") and start:
            yield number - start[0] + 1, start[1][:60], start[0]
            start = None


def duplicates(texts):
    seen = collections.defaultdict(list)
    size = 8
    for path, lines in texts:
        if "/fuzz/" in rel(path):
            continue
        body = [(n, re.sub(r"\s+", " ", l.strip())) for n, l in enumerate(lines, 1)]
        body = [(n, l) for n, l in body if len(l) > 3 and not l.startswith(("#include", "//", "namespace", "}"))]
        for i in range(len(body) - size + 1):
            key = hashlib.sha1("\n".join(l for _, l in body[i:i + size]).encode()).digest()
            seen[key].append((rel(path), body[i][0]))
    pairs = collections.Counter()
    first = {}
    for places in seen.values():
        if len(places) > 1:
            pair = (places[0][0], places[1][0])
            pairs[pair] += 1
            first.setdefault(pair, (places[0][1], places[1][1]))
    return [(count + size - 1, f"{a}:{first[(a, b)][0]}", f"{b}:{first[(a, b)][1]}") for (a, b), count in pairs.most_common(6)]


def check_isa_objects():
    build = ROOT / "build" / "release"
    for obj in build.glob("kernels/**/*.o"):
        isa = re.search(r"/(avx2|avx512|avxvnni|amx|amx_software)\.cc\.o$", obj.as_posix())
        if not isa:
            continue
        out = subprocess.run(["nm", "-C", obj], text=True, capture_output=True).stdout
        for line in out.splitlines():
            match = re.match(r"^[0-9a-f]+ ([WVu]) (.*)$", line)
            if match and f"::{isa.group(1)}" not in match.group(2) and not match.group(2).startswith("DW.ref"):
                errors.append(f"{obj.name}: weak symbol outside its namespace: {match.group(2)}")


def main():
    files = tracked()
    code, functions = [], []
    for path in files:
        if path.suffix not in (".cc", ".h", ".cu", ".cuh", ".py", ".md", ".proto"):
            continue
        text = path.read_text(errors="replace")
        if path.suffix == ".md":
            check_doc_paths(path, text)
            continue
        lines = text.splitlines()
        if path.suffix in (".cc", ".h", ".cu", ".cuh"):
            check_includes(path, text)
            check_guard(path, text)
            check_mirror(path)
            code.append((path, lines))
            functions += [(length, f"{rel(path)}:{line}", name) for length, name, line in function_lengths(path, lines)]
        if path.name != "tidy.py":
            for number, line in enumerate(lines, 1):
                if MARKER.search(line):
                    errors.append(f"{rel(path)}:{number}: unfinished by its own words: {line.strip()[:80]}")
        if len(lines) > MAX_LINES:
            errors.append(f"{rel(path)}: {len(lines)} lines; split what is over {MAX_LINES}")
    check_registered(files)
    check_isa_objects()

    print("largest files:    ", ", ".join(f"{rel(p)} {len(l)}" for p, l in sorted(code, key=lambda c: -len(c[1]))[:5]))
    print("largest functions:", ", ".join(f"{where} {length}" for length, where, _ in sorted(functions, reverse=True)[:5]))
    for length, a, b in duplicates(code):
        print(f"alike: about {length} lines at {a} and {b}")
    for error in errors:
        print("tidy:", error)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
