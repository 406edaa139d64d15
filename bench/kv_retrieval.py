#!/usr/bin/env python3
"""What ways to hold a cache cost in recall: facts are hidden in prompts, which are read once, and each is asked for in a
copy of the cache as the prompt left it, so that methods that go by the prompt's end do not know what will be asked.

    python3 bench/kv_retrieval.py [--model FILE] [--tokens 2048] [--tasks lines,keys,chains] [--prompts 4] [--asked 25] [SPEC...]

Tasks: `lines`, numbered lines of numbers and nothing else (as LongEval has them); `keys`, sentences that give words numbers,
spread over pages of a book; `chains`, variables in such pages that get their value from another one that got a number. A
SPEC is what follows `snug ask`, as "--kv kivi:bits=2"; prompts and questions are the same for all. Prints a Markdown table:
right answers with Wilson's interval of 95 %, and how many of those of the dense cache were lost and others won. Tasks of
which the dense cache answers less than 90 % say little of the others, and are marked.
"""
import argparse
import json
import math
import os
import random
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SNUG = ROOT / "build/release/snug"
MODELS = Path(os.environ.get("SNUG_MODELS") or Path.home() / ".cache/snug/models")
DATA = Path(os.environ.get("SNUG_DATA") or ROOT / "../shared/data")
SPECS = ["--kv k=q8_0,v=q4_0", "--kv kivi:bits=4", "--kv kivi:bits=2", "--kv zipcache", "--kv-keep h2o:budget=0.2",
         "--kv-keep snapkv:budget=0.2", "--kv-keep chelsea:budget=0.2", "--kv-keep sink-window:budget=0.2",
         "--kv-read quest:tokens=1/16", "--kv-share minicache"]
WORDS = """amber anchor apple arrow autumn badge bamboo basket beacon bottle branch bridge bronze bucket butter cabin candle
canyon carpet castle cedar cherry circle clover cobalt copper coral cotton cradle crystal desert dragon eagle ember engine
falcon feather fiddle flower forest fossil garden ginger glacier granite guitar hammer harbor hazel helmet hollow honey
island ivory jacket jasmine jungle kettle ladder lantern lemon linen lizard magnet maple marble meadow mirror monkey mosaic
needle nickel oasis olive orange orchid oyster paddle palace parrot pebble pepper pigeon pillow planet pocket pumpkin quartz
rabbit raven ribbon river rocket saddle salmon scarlet shadow silver spider spring statue summit sunset temple thistle
thunder timber tunnel turtle velvet violet walnut window winter""".split()


def spread(pages, facts):
    """Facts in order, evenly among the sentences of pages."""
    sentences = pages.replace("\r", "").split(". ")
    for i in range(len(facts) - 1, -1, -1):
        sentences.insert((2 * i + 1) * len(sentences) // (2 * len(facts)), facts[i].rstrip("."))
    return ". ".join(sentences)


def numbers(draw, n):
    return draw.sample(range(10000, 100000), n)


def lines(draw, pages, size, n):
    names = [f"{a}-{b}" for a, b in draw.sample([(a, b) for a in WORDS for b in WORDS if a != b], size // 60)]
    values = numbers(draw, len(names))
    text = "Below is a record of lines, each with a number.\n\n"
    text += "".join(f"line {name}: the number is {value}\n" for name, value in zip(names, values))
    asked = [(f"\nThe number in line {name} is", f" {value}")
             for name, value in sorted(draw.sample(list(zip(names, values)), n))]
    return text, asked


def keys(draw, pages, size, n):
    words, values = draw.sample(WORDS, n), numbers(draw, n)
    text = spread(pages, [f"The secret number of the {w} is {v}." for w, v in zip(words, values)])
    return text, [(f"\n\nThe secret number of the {w} is", f" {v}") for w, v in zip(words, values)]


def chains(draw, pages, size, n):
    words, values = draw.sample(WORDS, 2 * n), numbers(draw, n)
    facts = [f"The secret number of the {w} is {v}." for w, v in zip(words, values)]
    facts += [f"The secret number of the {b} is that of the {a}." for a, b in zip(words, words[n:])]
    draw.shuffle(facts)
    return spread(pages, facts), [(f"\n\nAs a number, the secret number of the {b} is", f" {v}") for b, v in zip(words[n:], values)]


TASKS = {"lines": lines, "keys": keys, "chains": chains}


def wilson(right, n):
    z, p = 1.959964, right / n
    middle, half = (p + z * z / (2 * n)) / (1 + z * z / n), z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def ask(args, text, questions, spec):
    command = [str(SNUG), "ask", args.model, "--text", str(text), "--questions", str(questions), "-c",
               str(args.tokens * 5 // 4 + 30 * args.asked + 256), "--parallel", str(args.parallel), "--memory", args.memory, "--json"]
    result = subprocess.run(command + shlex.split(spec), capture_output=True, text=True)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(command)} {spec} failed: {result.stdout}{result.stderr}")
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(MODELS / "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"))
    parser.add_argument("--tokens", type=int, default=2048, help="of a prompt, about")
    parser.add_argument("--tasks", default="lines,keys,chains")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--asked", type=int, default=25, help="questions of each prompt")
    parser.add_argument("--parallel", type=int, default=8)
    parser.add_argument("--memory", default="8GiB")
    parser.add_argument("specs", nargs="*", metavar="SPEC")
    args = parser.parse_args()
    tasks = args.tasks.split(",")
    if unknown := [t for t in tasks if t not in TASKS]:
        parser.error(f"no task {unknown[0]}: {', '.join(TASKS)}")
    if args.asked > len(WORDS) // 2 or args.asked > args.tokens // 15:
        parser.error(f"--asked {args.asked} is too many for prompts of {args.tokens} tokens")
    books = sorted((DATA / "pg19").glob("*.txt"))
    if not books:
        sys.exit(f"no books in {DATA / 'pg19'}: set SNUG_DATA")
    print(f"{args.prompts} prompts of about {args.tokens} tokens for each task, {args.asked} questions each\n")
    print("| | held | " + " | ".join(f"{t} | lost, won" for t in tasks) + " |")
    print("|---|---|" + "---|---|" * len(tasks), flush=True)
    dense = {}
    for spec in [""] + (args.specs or SPECS):
        cells, held = [], 0
        for task in tasks:
            right = []
            with tempfile.TemporaryDirectory() as folder:
                text, questions = Path(folder) / "text.txt", Path(folder) / "questions.jsonl"
                for number in range(args.prompts):
                    print(f"{spec or 'dense'}: {task}, {number + 1} of {args.prompts}", file=sys.stderr)
                    draw = random.Random(f"{task} {number}")
                    book, size = books[number % len(books)].read_text(errors="replace"), args.tokens * 4
                    begin = len(book) // 3 + number // len(books) * size
                    prompt, asked = TASKS[task](draw, book[begin:begin + size], size, args.asked)
                    text.write_text(prompt)
                    questions.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in asked))
                    answer = ask(args, text, questions, spec)
                    right += answer["answers"]
                    held = max(held, answer["kv_held"])
            dense.setdefault(task, right)
            low, high = wilson(sum(right), len(right))
            mark = "" if sum(dense[task]) >= 0.9 * len(right) else " (dense is below 90 %)"
            lost = sum(d and not r for d, r in zip(dense[task], right))
            won = sum(r and not d for d, r in zip(dense[task], right))
            cells.append(f"{sum(right)} of {len(right)} ({100 * low:.0f}-{100 * high:.0f} %){mark} | {lost}, {won}")
        print(f"| `{spec or 'dense'}` | {held / (1 << 20):.1f} MiB | " + " | ".join(cells) + " |", flush=True)


main()
