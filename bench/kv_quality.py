#!/usr/bin/env python3
"""What ways to hold a cache cost in quality: after a prompt of --prefix tokens of a book, the KL divergence to the dense
f16 cache over the --continue tokens that follow it, which are taken as they are, one by one. Prints a Markdown table of
means over the books, and for methods that drop rows on how many books they beat the baselines.

    python3 bench/kv_quality.py [--model FILE] [--books 5] [--prefix 4096] [--continue 512] [--quick] [SPEC...]

A SPEC is what follows `snug eval`, as "--kv kivi:bits=2". Figures are kept in --results as they come: a run that was
stopped goes on where it was, and `snug plan --results` tells them.
"""
import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SNUG = ROOT / "build/release/snug"
MODELS = Path(os.environ.get("SNUG_MODELS") or Path.home() / ".cache/snug/models")
DATA = Path(os.environ.get("SNUG_DATA") or ROOT / "../shared/data")
BASELINES = ["--kv-keep sink-window:budget=0.2", "--kv-keep random:budget=0.2"]
SPECS = ["--kv q8_0", "--kv k=q8_0,v=q4_0", "--kv kivi:bits=4", "--kv kivi:bits=2"] + BASELINES + [
    "--kv-keep h2o:budget=0.2", "--kv-keep keyformer:budget=0.2", "--kv-keep snapkv:budget=0.2", "--kv-keep tova:budget=0.2",
    "--kv-read quest:tokens=1/16", "--kv-read quest:tokens=1/8", "--kv-read dhsa", "--kv-read block-sparse"]


def evaluate(args, book, more):
    command = [str(SNUG), "eval", args.model, "--text", str(book), "--prefix", str(args.prefix), "--continue", str(args.follow),
               "--chunks", "1", "--memory", "8GiB", "--results", args.results, "--json"] + more
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed: {result.stdout}{result.stderr}")
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(MODELS / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"))
    parser.add_argument("--books", type=int, default=5)
    parser.add_argument("--prefix", type=int, default=4096)
    parser.add_argument("--continue", dest="follow", type=int, default=512)
    parser.add_argument("--quick", action="store_true", help="two books, a prefix of 1024 and 64 tokens")
    parser.add_argument("--results", default=str(ROOT / "build/kv_quality.db"))
    parser.add_argument("specs", nargs="*", metavar="SPEC")
    args = parser.parse_args()
    if args.quick:
        args.books, args.prefix, args.follow = 2, 1024, 64
    specs = args.specs or SPECS
    books = sorted((DATA / "pg19").glob("*.txt"))[:args.books]
    if not books:
        sys.exit(f"no books in {DATA / 'pg19'}: set SNUG_DATA")
    found = {spec: [] for spec in specs}
    dense = []
    with tempfile.TemporaryDirectory() as folder:
        for number, book in enumerate(books):
            reference = Path(folder) / "dense.safetensors"
            print(f"{book.name} ({number + 1} of {len(books)}): dense", file=sys.stderr)
            dense.append(evaluate(args, book, ["--save-reference", str(reference)]))
            for spec in specs:
                print(f"{book.name} ({number + 1} of {len(books)}): {spec}", file=sys.stderr)
                found[spec].append(evaluate(args, book, shlex.split(spec) + ["--reference", str(reference)]))
            reference.unlink()
    mib = 1 << 20
    print(f"{len(books)} books, {args.prefix} + {args.follow} tokens\n")
    print("| | held | mean KL | worst book | top-1 | perplexity | below both baselines |\n|---|---|---|---|---|---|---|")
    print(f"| dense f16 | {dense[0]['kv_held'] / mib:.1f} MiB | - | - | - | {statistics.geometric_mean(d['ppl'] for d in dense):.2f}"
          " | - |")
    for spec, rows in found.items():
        better = "-"
        if spec.startswith("--kv-keep") and spec not in BASELINES and all(b in found for b in BASELINES):
            better = sum(all(row["kl_mean"] < found[b][i]["kl_mean"] for b in BASELINES) for i, row in enumerate(rows))
            better = f"{better} of {len(rows)}"
        print(f"| `{spec}` | {statistics.mean(r['kv_held'] for r in rows) / mib:.1f} MiB | "
              f"{statistics.mean(r['kl_mean'] for r in rows):.4f} | {max(r['kl_mean'] for r in rows):.4f} | "
              f"{statistics.mean(r['top1'] for r in rows):.3f} | {statistics.geometric_mean(r['ppl'] for r in rows):.2f} | {better} |")


main()
