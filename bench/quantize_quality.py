#!/usr/bin/env python3
"""What quantizing costs: the KL divergence of quantized files from the float16 file they come of, by
Snug's quantizer and by llama.cpp's, each with the importance matrix of its own tool over the same
text, and by types that Snug chose for the same size.

A file already there is not made again, so an interrupted run goes on. Divergences are measured with
`snug eval` on another text than the calibration's. Memory is the peak resident set of the process,
as the system counts it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def run(command, log):
    """Runs a command; returns its output, seconds, and peak resident bytes."""
    start = time.monotonic()
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [str(c) for c in command], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {status}\n{output}\n{Path(log).read_text()}")
    return output, time.monotonic() - start, usage.ru_maxrss * 1024


class Comparison:
    def __init__(self, args):
        self.args = args
        self.work = Path(args.work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.rows = []
        self.notes = self.work / "made.json"
        self.made = json.loads(self.notes.read_text()) if self.notes.exists() else {}

    def snug(self, *command):
        return [self.args.snug, *command, "-t", self.args.threads, "--json"]

    def llama(self, name, *command):
        return [Path(self.args.peer) / name, *command]

    def make(self, name, command):
        """Makes work/name by the command; seconds and peak memory of the run that made it."""
        path = self.work / name
        if not path.exists() or name not in self.made:
            path.unlink(missing_ok=True)
            print(f"making {name}", file=sys.stderr, flush=True)
            _, seconds, peak = run(command(path), self.work / f"{name}.log")
            self.made[name] = {"seconds": seconds, "peak": peak}
            self.notes.write_text(json.dumps(self.made))
        return path

    def divergence(self, path, reference):
        output, _, _ = run(
            self.snug("eval", path, "--text", self.args.text, "-c", self.args.context,
                      "--chunks", self.args.eval_chunks, "--memory", "6GiB",
                      "--reference", reference),
            self.work / "eval.log",
        )
        return json.loads(output)

    def add(self, what, path, reference):
        score = self.made[path.name].get("score")
        if score is None:
            print(f"scoring {path.name}", file=sys.stderr, flush=True)
            score = self.made[path.name]["score"] = self.divergence(path, reference)
            self.notes.write_text(json.dumps(self.made))
        made = self.made[path.name]
        self.rows.append({"what": what, "file": path.name, "bytes": path.stat().st_size,
                          "peak": made["peak"], "seconds": made["seconds"], **score})

    def compare(self):
        a = self.args
        source = self.make("source-f16.gguf", lambda out: self.snug(
            "quantize", a.model, out, "--type", "f16", "-q"))
        budget = a.budget or source.stat().st_size // 3
        within = ("--memory", f"{budget >> 10}KiB")
        chunks = ("-c", a.context, "--chunks", a.chunks)
        own = self.make("imatrix-snug.gguf", lambda out: self.snug(
            "calibrate", a.model, "--text", a.calibration, "-o", out, *chunks, "--memory", "4GiB"))
        peer = self.make("imatrix-llama.gguf", lambda out: self.llama(
            "llama-imatrix", "-m", a.model, "-f", a.calibration, "-o", out, *chunks, "--no-ppl",
            "-t", a.threads))
        reference = self.make("reference.safetensors", lambda out: self.snug(
            "eval", source, "--text", a.text, "-c", a.context, "--chunks", a.eval_chunks,
            "--memory", "6GiB", "--save-reference", out))
        for kind in a.types:
            mixed = self.make(f"{kind}-snug.gguf", lambda out: self.snug(
                "quantize", source, out, "--type", kind, "--imatrix", own, *within))
            self.add(f"{kind}, snug", mixed, reference)
            theirs = self.make(f"{kind}-llama.gguf", lambda out: self.llama(
                "llama-quantize", "--imatrix", peer, source, out, kind.upper(), a.threads))
            self.add(f"{kind}, llama.cpp", theirs, reference)
            chosen = self.make(f"{kind}-size.gguf", lambda out: self.snug(
                "quantize", source, out, "--target-size", f"{mixed.stat().st_size}B",
                "--text", a.calibration, "--segments", a.segments, "--probes", a.probes,
                "--imatrix", own, *within))
            self.add(f"{kind}'s size, types chosen by snug", chosen, reference)
        return budget

    def print_table(self, budget):
        print(f"budget {budget / 2**20:.0f} MiB")
        print("| file | MiB | KL mean | KL max | same top | peak MiB | seconds |")
        print("|---|---|---|---|---|---|---|")
        for r in self.rows:
            print(f"| {r['what']} | {r['bytes'] / 2**20:.1f} | {r['kl_mean']:.4f} | "
                  f"{r['kl_max']:.2f} | {r['top1']:.3f} | {r['peak'] / 2**20:.0f} | "
                  f"{r['seconds']:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a GGUF file, widened to float16 as the source")
    parser.add_argument("--calibration", required=True, help="text for importance and sensitivity")
    parser.add_argument("--text", required=True, help="another text, that divergence is measured on")
    parser.add_argument("--peer", required=True, help="folder of llama-quantize and llama-imatrix")
    parser.add_argument("--snug", default="build/release/snug")
    parser.add_argument("--work", default="/tmp/quantize_quality")
    parser.add_argument("--types", nargs="+", default=["q3_k_m", "q2_k"])
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=20, help="of the calibration")
    parser.add_argument("--eval-chunks", type=int, default=2)
    parser.add_argument("--segments", type=int, default=1)
    parser.add_argument("--probes", type=int, default=40)
    parser.add_argument("--budget", type=int, help="bytes; default: a third of the source")
    parser.add_argument("--threads", type=int, default=2)
    comparison = Comparison(parser.parse_args())
    budget = comparison.compare()
    comparison.print_table(budget)
    print(json.dumps({"budget": budget, "rows": comparison.rows}))


if __name__ == "__main__":
    main()
