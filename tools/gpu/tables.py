"""The results of tools/gpu_check as Markdown."""


def number(value):
    return "-" if value is None else f"{value:.1f}" if value >= 1 else f"{value:.3f}"


def reached(targets):
    words = {True: "yes", False: "no", None: "not known"}
    return ", ".join(f"{entry['target']}: {words[entry['reached']]}" for entry in targets)


def checks_table(checks):
    lines = ["| check | result | seconds |", "|---|---|---|"]
    return lines + [f"| {entry['name']} | {entry['result']} | {entry['seconds']:.1f} |" for entry in checks]


def bench_cell(figures):
    if figures["rows"] == 1:
        return f"{figures['share_of_copy']:.2f}{'' if figures['enough_of_copy'] else ' (below 0.75)'}"
    if figures["rows"] <= 8:
        return f"{figures['share_of_copy']:.2f}"
    return f"{figures['tera_multiplications_per_s']:.1f} ({figures['share_of_int8_peak']:.2f})"


def bench_table(bench):
    rows = [figures["rows"] for figures in bench["types"][0]["rows"]]
    low = [entry["type"] for entry in bench["types"] if not entry["rows"][0]["enough_of_copy"]]
    lines = [f"Products with k = {bench['k']} and matrices of 256 MB and more. A copy reads and writes {bench['copy_gb_per_s']:.0f} GB/s, "
             f"an upload brings {bench['upload_gb_per_s']:.1f} GB/s, products of 8-bit numbers in registers are "
             f"{bench['int8_peak_tera_multiplications_per_s']:.0f} x 10^12 multiplications a second. For 8 rows and less: the weights' GB/s as "
             "a share of the copy's, of which 0.75 is aimed at with one row; for more: 10^12 multiplications a second, and their share of that peak.",
             "", "With one row " + (f"below 0.75: {', '.join(low)}." if low else "every type reaches 0.75."), "",
             "| type | n | " + " | ".join(f"{count} rows" for count in rows) + " |", "|---" * (2 + len(rows)) + "|"]
    lines += [f"| {entry['type']} | {entry['n']} | " + " | ".join(map(bench_cell, entry["rows"])) + " |" for entry in bench["types"]]
    return lines + [""] + attention_table(bench) + [""] + rows_table(bench)


def attention_table(bench):
    lines = [f"Attention, with keys and values in f16. Multiply-adds of f32 in registers: "
             f"{bench['f32_peak_tera_multiply_adds_per_s']:.1f} x 10^12 a second.", "",
             "| heads | rows | tokens before them | ms | 10^12 multiply-adds a second | share | cache, GB/s | share of a copy |",
             "|---" * 8 + "|"]
    return lines + [f"| {entry['shape']} | {entry['rows']} | {entry['position']} | {entry['ms']:.3f} | "
                    f"{entry['tera_multiply_adds_per_s']:.1f} | {entry['share_of_f32_peak']:.2f} | {entry['cache_gb_per_s']:.0f} | "
                    f"{entry['share_of_copy']:.2f} |" for entry in bench["attention"]]


def rows_table(bench):
    lines = ["Ops on rows, several launches after each other.", "", "| op | rows | microseconds |", "|---" * 3 + "|"]
    return lines + [f"| {entry['op']} | {entry['rows']} | {entry['us']:.1f} |" for entry in bench["rows"]]


def speed_table(result):
    lines = [f"| | Dovetail, tokens/s | {result['other']} | ratio | aimed at |", "|---|---|---|---|---|"]
    for entry in result["rows"]:
        lines.append(f"| {entry['what']} | {number(entry['dovetail'])} | {number(entry['other'])} | {number(entry['ratio'])} | "
                     f"{reached(entry['targets'])} |")
    return lines


def model_table(result):
    share = result.get("prefill_share_of_int8_peak")
    lines = [f"{result['model']} on one GPU worker, prompts of {result['prompt']} tokens" +
             (f"; prefill has {share:.2f} of the 8-bit products' peak." if share is not None else "."), ""]
    return lines + speed_table(result)


def hybrid_table(result):
    lines, hop, layers = [], result["hop"], result.get("layers")
    if layers:
        lines += [f"{layers['model']}: experts on `cpu:0`, the rest on the GPU.", ""] + speed_table(layers) + [""]
        for entry in layers["host_shares"]:
            share = entry["share"]
            enough = "" if share is None else f" ({entry['target']} aimed at: {'yes' if share >= entry['target'] else 'no'})"
            lines.append(f"- Decoding, streams: {entry['streams']}: {number(share)} of what the host's memory reads{enough}.")
    if hop:
        lines.append(f"- From the GPU to the CPU and back: {hop['between_us']:.1f} us between the segments, {hop['whole_us']:.1f} us with all that "
                     f"the GPU waits for, copies and starts ({hop['target_us']} us aimed at; {hop['visits']} visits a step of a small model).")
    return lines


def nccl_table(result):
    return [f"NCCL {result['version'] or 'none'}:", ""] + [f"- {check['name']}: {check['text']}" for check in result["checks"]]


TABLES = {"nccl": nccl_table, "bench": bench_table, "model": model_table, "hybrid": hybrid_table}


def markdown(result):
    gpu = "simt: none, kernels in software" if result["gpu"] == "simt" else ", ".join(result["devices"]) or "none"
    lines = [f"GPU: {gpu}; commit {result['commit']}; {result['date']}", ""] + checks_table(result["checks"])
    for part, table in TABLES.items():
        if result.get(part):
            lines += [""] + table(result[part])
    return "\n".join(lines) + "\n"
