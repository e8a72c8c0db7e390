#!/usr/bin/env python3
"""Looks for spills in the hot loops of the kernels of a build: tools/spills.py [BUILD], default build/release.

A spill is a slot of the stack that one pass of a loop which multiplies, without another such loop inside, both stores a
vector register to and loads again. What the compiler cannot avoid is listed in ALLOWED with its count, which may only
become smaller: an entry that says too much is an error too. Reloads alone are not counted: an operand from the
first-level cache costs no more than its instruction. Run by tools/check; needs objdump and c++filt.
"""
import collections
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNITS = ("avx2", "avxvnni", "avx512", "amx")
# Functions whose loops are hot: products, attention. Every instance in every unit, after inlining.
HOT = re.compile(r"::(TileBlock256|FillImage\w+|SumBlocks256|TileSmallBlocks\w*|TileMatmul|FewMatmul|QuantMatmul|"
                 r"AmxMatmul|AmxPanel\w+|AddTiles|AddSmallBlocks|MakeReady|FillSmallImage|FloatMatmul|FloatTile|ScoreSplit|ScoreTile|ScoreBlock|ScoreLatentTile|"
                 r"ValueTile|ValueBlockSum|SumValues|AttendBatch)\b")
MULTIPLIES = re.compile(r"vpdpbusd|vpmaddubsw|vfn?m(add|sub)|vpmulld|tdpb")
# (unit, function, spills in its worst loop, why they stay)
ALLOWED = [
    ("avx2", r"FloatTile<", 10, "no spills: buffers of the last k"),
    ("avx2", r"FewMatmul<FormatIQ[123]", 13, "codebooks: indices and entries on their way through the stack"),
    ("avx2", r"FewMatmul<FormatTQ", 10, "a whole block unrolled"),
    ("avx2", r"FewMatmul<FormatIQ4_", 13, "16 registers: the weights of a chunk alone"),
    ("avx2", r"FewMatmul<FormatQ2_K", 6, "likewise"),
    ("avx2", r"FewMatmul<FormatQ3_K", 28, "likewise; in parts, as Q2_K's and Q6_K's, it was slower"),
    ("avx2", r"FewMatmul<FormatQ4_K", 16, "likewise; with its sums in order it was slower"),
    ("avx2", r"FewMatmul<FormatQ5_", 21, "likewise"),
    ("avx2", r"FewMatmul<FormatQ6_K", 4, "likewise"),
    ("avx2", r"FewMatmul<FormatQ8_0", 6, "likewise"),
    ("avx2", r"FewMatmul<FormatMXFP4", 6, "likewise"),
    ("avx2", r"TileSmallBlocks<", 9, "16 registers: the products of four tokens and what ends a block"),
    ("avxvnni", r"FloatTile<", 10, "no spills: buffers of the last k"),
    ("avxvnni", r"FewMatmul<FormatIQ[123]", 27, "codebooks: indices and entries on their way through the stack"),
    ("avxvnni", r"FewMatmul<FormatTQ", 6, "16 registers: the weights of a chunk alone"),
    ("avxvnni", r"FewMatmul<FormatQ[23]_K", 25, "likewise"),
    ("avxvnni", r"FewMatmul<FormatQ4_K", 6, "likewise"),
    ("avxvnni", r"FewMatmul<FormatQ5_", 14, "likewise"),
    ("avxvnni", r"FewMatmul<FormatQ6_K", 30, "likewise"),
    ("avxvnni", r"FewMatmul<FormatIQ4_", 18, "likewise"),
    ("avxvnni", r"FewMatmul<FormatMXFP4", 7, "likewise"),
    ("avx512", r"FloatTile<", 6, "no spills: buffers of the last k"),
    ("avx512", r"FewMatmul<FormatIQ[123]", 18, "codebooks: indices and entries on their way through the stack"),
    ("avx512", r"FewMatmul<FormatQ[236]_K", 8, "scales of a whole block"),
    ("avx512", r"TileBlock256<.*long long", 10, "sums of integers, which real weights do not need"),
]


class Function:
    def __init__(self, name):
        self.name = name
        self.code = []  # (address, instruction)

    def innermost_loops(self):
        """Bodies of the loops that multiply and have no other such loop inside."""
        spans = set()
        for address, text in self.code:
            jump = re.match(r"j\w+\s+([0-9a-f]+)\b", text)
            if jump and self.code[0][0] <= int(jump.group(1), 16) <= address:
                spans.add((int(jump.group(1), 16), address))
        bodies = {s: [text for address, text in self.code if s[0] <= address <= s[1]] for s in spans}
        spans = {s for s in spans if any(MULTIPLIES.search(text) for text in bodies[s])}
        return [bodies[s] for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]

    def worst_loop(self):
        """The largest number of spilled slots in one loop."""
        frame = "sb" if any(re.match(r"mov\s+%rsp,%rbp", text) for _, text in self.code) else "s"
        slot = rf"((?:-?0x[0-9a-f]+)?\(%r[{frame}]p\))"
        store = re.compile(rf"(?:\{{\w+\}} )?vmov\w+\s+%[xyz]mm\d+,{slot}$")
        worst = 0
        for body in self.innermost_loops():
            stored, loaded = set(), set()
            for text in body:
                to = store.match(text)
                of = re.search(slot, text)
                if to:
                    stored.add(to.group(1))
                elif of and re.search(r"%[xyz]mm", text):
                    loaded.add(of.group(1))
            worst = max(worst, len(stored & loaded))
        return worst


def functions(disassembly):
    current = None
    for line in disassembly.splitlines():
        begin = re.match(r"[0-9a-f]+ <(.*)>:$", line)
        instruction = re.match(r"\s+([0-9a-f]+):\t(.*?)\s*(#.*)?$", line)
        if begin:
            if current and current.code:
                yield current
            current = Function(begin.group(1))
        elif instruction and current:
            current.code.append((int(instruction.group(1), 16), instruction.group(2)))
    if current and current.code:
        yield current


def readable(names):
    """Demangled, without what all have in common: avx512::FewMatmul<FormatQ4_K, 2>."""
    text = subprocess.run(["c++filt"], input="\n".join(names), text=True, capture_output=True, check=True).stdout
    for name in text.splitlines():
        name = re.sub(r"dovetail::kernels::|\(anonymous namespace\)::", "", name)
        unit = re.search(r"(\w+)::", name)
        name = re.sub(r"\(.*", "", name)
        yield re.sub(rf"(?<=[<, ]){unit.group(1)}::", "", re.sub(r"^[\w ]*? (?=\w+::)", "", name)) if unit else name


def spills_of(path):
    """{function: spills in its worst loop} of the hot functions of an object."""
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", path], text=True, capture_output=True, check=True).stdout
    found = list(functions(text))
    worst = collections.Counter()
    for name, function in zip(readable([f.name for f in found]), found):
        if HOT.search(name):
            worst[name] = max(worst[name], function.worst_loop())
    return worst


def compare(unit, worst):
    errors = []
    for name, count in sorted(worst.items()):
        bounds = [a for a in ALLOWED if a[0] == unit and re.search(a[1], name)]
        if count > (bounds[0][2] if bounds else 0):
            errors.append(f"{name}: {count} spills in a loop, {bounds[0][2] if bounds else 0} allowed")
    for entry in ALLOWED:
        counts = [count for name, count in worst.items() if entry[0] == unit and re.search(entry[1], name)]
        if entry[0] == unit and max(counts, default=0) < entry[2]:
            errors.append(f"ALLOWED has {entry[2]} for {unit} {entry[1]}: write {max(counts, default=0)}")
    return errors


SAMPLE = """
0000000000000000 <f>:
   0:\tvmovdqa64 %zmm1,0x40(%rsp)
   8:\tvpdpbusd 0x80(%rsp),%zmm2,%zmm3
  10:\tvmovdqa64 %zmm3,0xc0(%rsp)
  18:\tvpaddd 0xc0(%rsp),%zmm4,%zmm4
  20:\tjne    8 <f+0x8>
  28:\tvmovdqa64 0x40(%rsp),%zmm1
  30:\tjmp    0 <f>
  38:\tret
"""


def main():
    assert [f.worst_loop() for f in functions(SAMPLE)] == [1], "tools/spills.py does not find a spill that is there"
    build = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "release"
    errors, looked = [], 0
    for unit in UNITS:
        path = build / f"kernels/CMakeFiles/dovetail_kernels_{unit}.dir/cpu/{unit}.cc.o"
        if not path.is_file():
            print(f"spills: no {path.relative_to(build)}: not looked at")
            continue
        worst = spills_of(path)
        looked += len(worst)
        errors += compare(unit, worst) if worst else [f"{unit}: no hot function was recognised"]
    for error in errors:
        print("spills:", error)
    print(f"spills: looked at {looked} hot functions")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
