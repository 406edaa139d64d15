#!/usr/bin/env python3
"""Measures Snug beside llama.cpp on the same files and threads, in alternation, and prints a Markdown table.

The peer is built from the source archive of PyPI's llama-cpp-python, outside the tree. --peer adds another
llama-bench (ik_llama.cpp's, which knows -gp where the other has -d).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
from pathlib import Path

VERSION = "0.3.36"
ROOT = Path(__file__).resolve().parent.parent
SNUG = ROOT / "build/release/snug"
MODELS = Path(os.environ.get("SNUG_MODELS") or Path.home() / ".cache/snug/models")
PEERS = Path(os.environ.get("SNUG_PEERS") or Path.home() / ".cache/snug/peers")
GEMMA, QWEN = "gemma-3-270m-q4_k_m.gguf", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"


def say(text):
    print(text, file=sys.stderr, flush=True)


def build_peer():
    program = PEERS / "llama.cpp/bin/llama-bench"
    if program.exists():
        return program
    say(f"building llama.cpp of llama-cpp-python {VERSION}")
    PEERS.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
                    "--dest", PEERS, f"llama-cpp-python=={VERSION}"], check=True, stdout=sys.stderr)
    archive = next(PEERS.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(PEERS)
    source = next(PEERS.glob("llama_cpp_python-*/vendor/llama.cpp"))
    build = PEERS / "llama.cpp"
    subprocess.run(["cmake", "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
                    "-DLLAMA_CURL=OFF", "-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF",
                    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF"], check=True, stdout=sys.stderr)
    subprocess.run(["cmake", "--build", build, "--target", "llama-bench"], check=True, stdout=sys.stderr)
    return program


def peer_rate(program, model, test, kv, threads):
    """Tokens per second of one llama-bench row, the better of flash attention on and off."""
    kind, n, depth = test
    best = 0.0
    has_depth = "-d," in subprocess.run([program, "--help"], capture_output=True, text=True).stdout
    for fa in ("1", "0"):
        if kv != "f16" and fa == "0":
            continue
        command = [str(program), "-m", str(model), "-t", str(threads), "-fa", fa, "-r", "1", "-o", "json", "-ctk", kv, "-ctv", kv]
        if kind == "prefill":
            command += ["-p", str(n), "-n", "0"]
        elif depth == 0:
            command += ["-p", "0", "-n", str(n)]
        elif has_depth:
            command += ["-p", "0", "-n", str(n), "-d", str(depth)]
        else:
            command += ["-p", "0", "-n", "0", "-gp", f"{depth},{n}"]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode == 0:
            best = max([best] + [row["avg_ts"] for row in json.loads(result.stdout)])
    return best


def snug_rate(model, test, kv, threads):
    kind, n, depth = test
    command = [str(SNUG), "bench", str(model), "-t", str(threads), "-r", "1", "--kv", kv, "--json", "--memory", "8GiB"]
    command += ["-p", str(n), "-n", "0"] if kind == "prefill" else ["-p", "1", "-n", str(n), "-d", str(depth)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)["rows"][-1]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="short rows only")
    parser.add_argument("--peer", action="append", default=[], help="another llama-bench")
    parser.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-r", "--repeat", type=int, default=0, help="0: 5 for short rows, 3 for long ones")
    args = parser.parse_args()
    peers = {"llama.cpp": build_peer()}
    for p in args.peer:
        peers[Path(p).resolve().parent.parent.name] = Path(p)
    rows = [(QWEN, ("prefill", 512, 0), "f16"), (QWEN, ("decode", 64, 0), "f16"), (GEMMA, ("prefill", 512, 0), "f16"),
            (GEMMA, ("decode", 64, 0), "f16")]
    if not args.quick:
        rows += [(QWEN, ("prefill", 2048, 0), "f16"), (QWEN, ("prefill", 8192, 0), "f16"), (QWEN, ("prefill", 2048, 0), "q8_0"),
                 (QWEN, ("prefill", 2048, 0), "q4_0"), (QWEN, ("decode", 32, 8192), "f16"), (QWEN, ("decode", 32, 8192), "q8_0"),
                 (GEMMA, ("prefill", 8192, 0), "f16"), (GEMMA, ("decode", 64, 32000), "f16")]
    print("| work | Snug | spread | " + " | ".join(f"{p} | ratio" for p in peers) + " |")
    print("|---" * (3 + 2 * len(peers)) + "|")
    results = []
    for name, test, kv in rows:
        model = MODELS / name
        if not model.exists():
            say(f"{name} is absent: rows skipped")
            continue
        long = test[1] > 2000 or test[2] > 0
        ours, theirs = [], {p: [] for p in peers}
        for _ in range(args.repeat or (3 if long else 5)):
            ours.append(snug_rate(model, test, kv, args.threads)["tps"])
            for p, program in peers.items():
                theirs[p].append(peer_rate(program, model, test, kv, args.threads))
        mine = statistics.median(ours)
        spread = (max(ours) - min(ours)) / mine
        label = f"{'Qwen' if name == QWEN else 'Gemma'} {test[0]} {test[1]}" + (f" at {test[2]}" if test[2] else "") + ("" if kv == "f16" else f", {kv}")
        cells = []
        for p in peers:
            rate = statistics.median(theirs[p])
            cells += [f"{rate:.1f}", f"{mine / rate:.2f}" if rate else "-"]
        print(f"| {label} | {mine:.1f} | {100 * spread:.0f} % | " + " | ".join(cells) + " |", flush=True)
        results.append({"work": label, "snug": ours, "peers": theirs})
    out = ROOT / "build/bench.json"
    out.write_text(json.dumps(results, indent=1) + "\n")
    say(f"every measurement: {out}")


main()
