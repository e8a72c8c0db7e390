"""Dequantisation against PyPI's gguf, bit for bit: every type of ours, on the golden files and on random blocks.

A NaN equals any NaN; all else is compared as bytes, so -0 is not 0.
"""
import random
import subprocess
import sys

import harness

try:
    import gguf
    import numpy
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

# Random bytes are blocks with any scales at all: infinities, NaN, subnormals and negative ones among them.
BLOCKS = 4096
SPECIAL_BYTES = (0x00, 0xFF, 0x7F, 0x80, 0x01, 0x7E)


def our_types():
    return harness.run("dequantize", "--types").stdout.split()


def ours(name, blocks):
    done = subprocess.run([str(harness.BIN / "dequantize"), name], input=blocks, capture_output=True, check=True,
                          timeout=300)
    return numpy.frombuffer(done.stdout, dtype="<f4")


def compare(name, rows, what):
    """`rows`: an array of bytes [rows, bytes of a row]."""
    with numpy.errstate(all="ignore"):
        expected = gguf.dequantize(rows, gguf.GGMLQuantizationType[name]).astype(numpy.float32).ravel()
    actual = ours(name, rows.tobytes())
    assert actual.size == expected.size, (name, what, actual.size, expected.size)
    wrong = (actual.view("<u4") != expected.view("<u4")) & ~(numpy.isnan(actual) & numpy.isnan(expected))
    if wrong.any():
        i = int(numpy.flatnonzero(wrong)[0])
        raise AssertionError(f"{name}, {what}: {int(wrong.sum())} of {wrong.size} differ; element {i}: "
                             f"{actual[i]!r}, gguf has {expected[i]!r}")
    return expected.size, int(numpy.isnan(expected).sum())


def block_bytes(name):
    return gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][1]


def test_random_blocks():
    rng = numpy.random.default_rng(20261121)
    types = our_types()
    assert len(types) >= 26, types
    for name in types:
        if name == "F32":
            continue  # nothing to dequantise
        rows = rng.integers(0, 256, size=(16, BLOCKS // 16 * block_bytes(name)), dtype=numpy.uint8)
        count, nans = compare(name, rows, "random blocks")
        print(f"  {name}: {count} weights equal, {nans} of them NaN")
        assert nans < count


def test_blocks_of_one_byte():
    for name in our_types():
        for byte in SPECIAL_BYTES:
            compare(name, numpy.full((1, 8 * block_bytes(name)), byte, dtype=numpy.uint8), f"all bytes {byte:#x}")


def test_single_special_bytes():
    """Blocks of ordinary bytes with one byte at an extreme, at every place of the block."""
    shuffled = random.Random(7)
    for name in our_types():
        size = block_bytes(name)
        rows = numpy.full((1, size * len(SPECIAL_BYTES) * size), 0x35, dtype=numpy.uint8)
        blocks = rows.reshape(-1, size)
        for i in range(len(blocks)):
            blocks[i] = shuffled.randrange(256)
            blocks[i, i % size] = SPECIAL_BYTES[i // size]
        compare(name, rows, "one special byte")


def test_golden_files():
    supported = set(our_types())
    seen = {}
    files = sorted((harness.DATA / "golden").glob("**/*.gguf"))
    if not files:
        raise harness.Skip(f"{harness.DATA / 'golden'} has no models")
    for path in files:
        for tensor in gguf.GGUFReader(path).tensors:
            name = tensor.tensor_type.name
            assert name in supported, (path, tensor.name, name)
            if name == "F32" or (name in ("F16", "BF16") and seen.get(name, 0) > 10**7):
                continue
            rows = numpy.ascontiguousarray(tensor.data).view(numpy.uint8)
            count, nans = compare(name, rows.reshape(-1, rows.shape[-1]), f"{path} {tensor.name}")
            assert nans == 0
            seen[name] = seen.get(name, 0) + count
    print("  " + ", ".join(f"{name} {count}" for name, count in sorted(seen.items())))
    assert len(seen) >= 20, seen


harness.main(globals())
