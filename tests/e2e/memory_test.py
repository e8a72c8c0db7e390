"""The plan's bytes against the workers' memory: while loading, and at the largest step with the whole KV cache in use."""
import os
import tempfile
import time

import harness
from worker_memory import ANSWER_TOKENS, MIB, bound, fill, measure


def check(model, context, sequences, *flags):
    workers = measure(model, context - ANSWER_TOKENS, sequences, *flags, "--token-target=1h", f"--context-length={context}",
                      f"--kv-tokens={context * sequences}", f"--max-batch-size={sequences}")
    wrong = []
    for name, worker in workers.items():
        for phase in ("load", "run"):
            measured, planned = worker[phase], worker["planned"][f"peak_{phase}"]
            print(f"  {os.path.basename(str(model))} {name}: {phase} {measured / MIB:.1f} of {planned / MIB:.1f} MiB")
            if abs(measured - planned) > bound(planned):
                wrong.append((name, phase))
    assert not wrong, wrong


def test_one_worker():
    check(harness.need(harness.SMOLLM2), 1024, 2, "--chunk-size=256")


def test_two_workers_with_the_head_on_one():
    check(harness.need(harness.SMOLLM2), 512, 4, "--workers=cpu:0,cpu:1", f"--rules={harness.RULES}", "--chunk-size=128")


def test_weights_in_place():
    check(harness.need(harness.SMOLLM2), 512, 2, "--chunk-size=128", "--weights=in_place")


def test_large_chunk_and_f32_cache():
    check(harness.need(harness.SMOLLM2), 512, 3, "--chunk-size=1024", "--kv-type=f32", "--threads=1")


def test_other_shapes():
    shapes = {"wide": ["--hidden", 1024, "--heads", 16, "--kv-heads", 4, "--ffn", 4096, "--layers", 4, "--type", "Q8_0"],
              "deep": ["--hidden", 256, "--heads", 4, "--kv-heads", 4, "--ffn", 512, "--layers", 40, "--type", "F32"],
              "words": ["--hidden", 256, "--heads", 8, "--kv-heads", 2, "--ffn", 256, "--layers", 2, "--vocab", 60000]}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in shapes.items():
            model = f"{folder}/{name}.gguf"
            harness.run("make-tiny-llama", model, "--context", 2048, *options)
            check(model, 512, 3, "--chunk-size=256")
            os.unlink(model)


def figures_of(worker):
    return [int(worker[key]) for key in ("resident_bytes", "peak_resident_bytes", "planned_bytes")]


def last_figures(server):
    """Of all workers: what they say when all is in use has come with their heartbeats, or does not come any more."""
    end = time.monotonic() + 20
    while True:
        workers = server.status()["workers"]
        figures = map(figures_of, workers)
        if all(planned - used <= bound(planned) for used, _, planned in figures) or time.monotonic() > end:
            return workers
        time.sleep(0.2)


def check_status(*flags):
    """What operators see (`status`, `top`, `/metrics`) are the plan's own terms: never more than planned, and not much less."""
    settings = ["--context-length=512", "--kv-tokens=1536", "--max-batch-size=3", "--chunk-size=256", "--token-target=1h"]
    with harness.Server(*flags, *settings) as server:
        fill(server, 512 - ANSWER_TOKENS, 3)
        workers = last_figures(server)
    wrong = []
    for worker in workers:
        used, peak, planned = figures_of(worker)
        print(f"  {' '.join(flags)} {worker['name']}: {used / MIB:.1f}, at most {peak / MIB:.1f} of {planned / MIB:.1f} MiB")
        if not used <= peak <= planned or planned - used > bound(planned):
            wrong.append(worker)
    assert not wrong, wrong


def test_status_shows_what_was_planned():
    """Also where workers write into several rings, which are in the plans of those who read them."""
    for rules in ("attention-and-mlp-apart.yaml", "rows-shared.yaml"):
        check_status("--workers=cpu:0,cpu:1", f"--rules={harness.SOURCE / 'rules' / rules}")
    check_status("--weight-memory=private", "--workers=cpu:0,cpu:1")
    check_status("--weight-memory=shared", "--threads=2")


if __name__ == "__main__":
    harness.main(globals())
