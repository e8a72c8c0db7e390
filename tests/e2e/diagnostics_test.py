"""The exact text of diagnostics that no other test has; and that every code of the sources is in some test, text and all."""
import json
import pathlib
import re
import tempfile

import harness
from plan_scenarios_test import DEEPSEEK, QWEN3_30B

KT = "ktransformers.operators"
CUDA = "generate_device: cuda, prefill_device: cuda"
# The text of a rules file; what is said of it, from the line number on.
LINTED = [
    ("- match: [\n", "2:1: error: not valid YAML: end of sequence flow not found [bad-yaml]"),
    ("- {match: {layer: 1}, place: cpu:0}\n", "1:12: error: unknown key `layer` in `match`; did you mean `layers`? [bad-rules]"),
    ("- 5\n- {match: {name: x}, replace: {class: default}}\n",
     "1:3: error: a rule must be a map with `match` and `replace`, got `5` [bad-rule]"),
    ("- {match: {class: ''}, replace: {class: default}}\n",
     "1:19: error: `class` must be the path of a class, got an empty text [bad-class]"),
    ("- {match: {name: lm_head}, replace: {class: [a]}}\n",
     "1:3: error: rule 0 (line 1) gives no `generate_device` to lm_head [no-device]",
     "1:45: error: `class` must be the path of a class or `default`, got a list [bad-class]"),
    ("- {match: {name: '(((.*)*)*)*x'}, replace: {class: default, kwargs: {generate_device: cpu}}}\n",
     "1:18: error: the regular expression `(((.*)*)*)*x` takes too many steps for `model.layers.3.mlp.experts`; write it "
     "without nested repeats [expensive-regex]"),
    (f"- {{match: {{name: lm_head}}, replace: {{class: {KT}.linear.KTransformersLinear, kwargs: {{{CUDA}, "
     "generate_op: KExpertsCPU}}}\n",
     "1:164: warning: `KExpertsCPU` computes experts, which `ktransformers.operators.linear.KTransformersLinear` is not "
     "[op-device]",
     "1:164: warning: `KExpertsCPU` does not run on `cuda:0` in KTransformers; Dovetail takes its own kernels there "
     "[op-device]"),
    (f"- {{match: {{name: 'mlp.experts$'}}, replace: {{class: {KT}.experts.KTransformersExperts, kwargs: {{{CUDA}, "
     "generate_op: KExpertsCPU}}}\n",
     "1:173: warning: `KExpertsCPU` does not run on `cuda:0` in KTransformers; Dovetail takes its own kernels there "
     "[op-device]"),
    (f"- {{match: {{name: 'mlp.experts$'}}, replace: {{class: {KT}.experts.KTransformersExperts, kwargs: {{generate_device: cpu, "
     "prefill_device: 'cuda:0', out_device: 'cuda:1'}}}\n"
     "- {match: {name: .}, replace: {class: default, kwargs: {generate_device: 'cuda:0', prefill_device: 'cuda:0'}}}\n",
     "1:153: note: prefill of steps that `stream_experts` chooses streams these weights to cuda:0; without it prefill runs on cpu "
     "as decode does [prefill-device]",
     "1:175: note: `out_device` is cuda:1, but what reads the result is on cuda:0; Dovetail sends it where it is needed "
     "[out-device]"),
    ("- {match: {class: DeepseekV3MoE}, replace: {class: my.own.Thing, kwargs: {generate_device: cpu}}}\n",
     "1:19: note: `DeepseekV3MoE` is a class without its module, which KTransformers itself refuses; here its last name is "
     "enough [short-class]",
     "1:52: warning: `my.own.Thing` is none of KTransformers' operators; the rule only places its modules [unknown-class]"),
    (f"- {{match: {{name: self_attn$}}, replace: {{class: {KT}.attention.KDeepseekV2Attention, "
     "kwargs: {generate_device: cpu}}}\n",
     "1:48: note: `ktransformers.operators.attention.KDeepseekV2Attention` chooses an implementation in Python; Dovetail has "
     "its own, and the rule only places its modules [own-implementation]"),
    (f"- {{match: {{name: '^model$'}}, replace: {{class: {KT}.models.KDeepseekV2Model, kwargs: {{generate_device: cpu, "
     "prefill_device: cpu, transfer_map: {x: 'cuda:0', 70: 'cuda:1', 30: 'cuda:1'}}}}\n"
     "- {match: {name: .}, replace: {class: default, kwargs: {generate_device: cpu, prefill_device: cpu}}}\n",
     "1:163: warning: `transfer_map` has `x`, which is no layer [transfer-map]",
     "1:176: warning: `transfer_map` names layer 70, which the model does not have [transfer-map]",
     "1:190: warning: `transfer_map` moves to cuda:1 before layer 30, whose attention is on cpu; Dovetail goes by where the "
     "modules are [transfer-map]"),
]


def write(folder, name, content):
    path = pathlib.Path(folder) / name
    path.write_text(content)
    return path


def test_of_rules():
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        config = write(folder, "config.json", json.dumps(DEEPSEEK))
        for text, *expected in LINTED:
            path = write(folder, "r.yaml", text)
            done = harness.run("dovetail", "rules", "lint", path, "--model-config", config, check=False)
            lines = [line.removeprefix(f"{path}:") for line in done.stdout.splitlines()]
            codes = {line[line.rindex("["):] for line in expected}
            said = [line for line in lines if line[line.rindex("["):] in codes]
            if said != expected or done.returncode != (2 if any(": error: " in line for line in lines) else 0):
                wrong.append((expected, lines, done.returncode, done.stderr))
    assert not wrong, "\n".join(map(str, wrong))


def test_of_plans():
    own = "- {match: {experts: 0-199}, place: cpu:0}\n- {match: {}, place: cpu:0}\n"
    with tempfile.TemporaryDirectory() as folder:
        config = write(folder, "config.json", json.dumps(QWEN3_30B))
        path = write(folder, "r.yaml", own)
        plan = ["plan", "--model-config", config, "--rules", path, "--device", "cpu:0:64GiB"]
        done = harness.run("dovetail", *plan, check=False)
        assert done.returncode == 2 and done.stderr == (
            f"{path}:1:21: error: the rule names expert 199, but the model's layers have 128 (0-127) [no-such-expert]\n"), done
        done = harness.run("dovetail", "plan", "--model", harness.need(harness.SMOLLM2), *plan[3:], check=False)
        assert done.returncode == 2 and done.stderr == (
            f"{path}:1:21: error: the rule places experts, but the model is dense [no-such-expert]\n"), done
        done = harness.run("dovetail", *plan[:-1], "gpu:0:64GiB", "--json", check=False)
        said = json.loads(done.stdout)["diagnostics"]
        assert done.returncode == 2 and [(d["code"], d["severity"]) for d in said] == [("bad-input", "error")], said


def test_every_code_has_its_text_somewhere():
    codes = set()
    for folder in ("coordinator/placement", "tools/dovetail"):
        for source in (harness.SOURCE / folder).rglob("*.cc"):
            text = source.read_text()
            codes |= set(re.findall(r'(?:\.code = |(?:Report|Error|Warn|Note)\(\s*|Diagnostic \w*\{|push_back\(\s*\{|\{)'
                                    r'"([a-z]+(?:-[a-z]+)+)",\s*(?:Severity|\.?severity|At\(|node|\*|\{|rule|context_|[a-z_]+,)',
                                    text))
    assert len(codes) > 30, codes
    sources = (p for suffix in ("cc", "py", "sh") for p in (harness.SOURCE / "tests").rglob(f"*_test.{suffix}"))
    tests = "".join(p.read_text() for p in sources)
    elsewhere = {"bad-input": "the text of whatever was wrong", "weight-type": "plan_test has the text without the code",
                 "no-tree": "cannot be reached: every architecture has a tree"}
    untold = sorted(code for code in codes if f"[{code}]" not in tests)
    assert untold == sorted(elsewhere), untold


if __name__ == "__main__":
    harness.main(globals())
