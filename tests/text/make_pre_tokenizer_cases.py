#!/usr/bin/env python3
"""Writes tests/data/pre_tokenizer.json: how two independent engines cut texts by the expressions of
published pre-tokenizers. Needs the PyPI packages `regex` and `tokenizers`."""
import json
import pathlib
import random

import regex
import tokenizers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
FIRST = r"[^\r\n\p{L}\p{N}]?"
OTHERS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|"

EXPRESSIONS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "qwen2": f"{CONTRACTIONS}|{FIRST}\\p{{L}}+|\\p{{N}}|{OTHERS}{SPACES}",
    "qwen35": CONTRACTIONS + "|" + FIRST
    + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + SPACES,
    "llama3": f"{CONTRACTIONS}|{FIRST}\\p{{L}}+|\\p{{N}}{{1,3}}|{OTHERS}{SPACES}",
    "seed_coder": f"{CONTRACTIONS}|{FIRST}\\p{{L}}+|\\p{{N}}{{1}}| ?[^\\s\\p{{L}}\\p{{N}}\\r\\n]+|{SPACES}",
    "tekken": f"{FIRST}{UPPER}*{LOWER}+|{FIRST}{UPPER}+{LOWER}*|"
    + r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES,
    "gpt4o": f"{FIRST}{UPPER}*{LOWER}+{CONTRACTIONS}?|{FIRST}{UPPER}+{LOWER}*{CONTRACTIONS}?|"
    + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES,
    "deepseek3": r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"""
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|" + SPACES,
    "deepseek_punctuation": r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    "trailing_space": r"\s+$",
    "deepseek_cjk": "[一-龥ࠀ-一가-\ud7ff]+",
    "deepseek_kana": "[一-龥\u3040-ゟ゠-ヿ]+",
    "letters": r"\s?\p{L}+",
    "marks": r"\s?\p{P}+",
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "newline": r"[\r\n]",
    "digit": r"\p{N}",
    "digits": r"\p{N}+",
    "digits3": r"\p{N}{1,3}",
    "ascii_digits3": r"[0-9][0-9][0-9]",
    "space": r"\s",
    "word": r"\w+|[^\w\s]+",
}
# As the `regex` package spells what Oniguruma spells differently: a class in a class is a union,
# and $ without a flag ends the text only, which is what the files mean, newlines being cut before.
SPELLED = {"bloom": r" ?[^(\s|.,!?…。，、।۔،)]+", "trailing_space": r"\s+\Z"}
ALPHABET = (
    list("aabZs'''   ..//7!_$+`(|") + ["\n", "\r", "\t", "ll", "RE", "'s", "'LL", "123", "  ", "\n\n"]
    + list("éÉǅʰ中ひカ한اſΩß²Ⅷ٣。،‘＋😀𐐀𝔘")
    + ["\u0301", "\u0903", "\u20dd", "\u00a0", "\u3000", "\u2028", "\u0085", "\u0001", "\u200d",
       "\ufeff", "\u203f", "Ⓐ", "\ufffd"]
)


def texts():
    draw = random.Random(7)
    out = ["I'll  go 42x!\n\n  y", "HELLO'S world'LL 1234567 ", "a  \n  b  ", "\t\tx = y//2 \r\n"]
    for _ in range(120):
        part = draw.sample(ALPHABET, draw.randint(3, 12))
        out.append("".join(draw.choice(part) for _ in range(draw.randint(4, 24))))
    return out


def pieces(expression, text):
    """Bytes of each piece; of a piece between matches, negative."""
    out, end = [], 0
    for match in regex.finditer(expression, text):
        if match.start() > end:
            out.append(-len(text[end : match.start()].encode()))
        out.append(len(match.group().encode()))
        end = match.end()
    return out + ([-len(text[end:].encode())] if end < len(text) else [])


def checked(name, text):
    mine = pieces(SPELLED.get(name, EXPRESSIONS[name]), text)
    if name == "trailing_space" and "\n" in text:
        return mine
    if name == "word":  # the type Whitespace, which drops white space
        split = tokenizers.pre_tokenizers.Whitespace()
        assert [n for n in mine if n > 0] == [
            len(piece.encode()) for piece, _ in split.pre_tokenize_str(text)], (text, mine)
        return mine
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(EXPRESSIONS[name]), "isolated")
    theirs = [len(piece.encode()) for piece, _ in split.pre_tokenize_str(text)]
    assert [abs(n) for n in mine] == theirs, (name, text, mine, theirs)
    return mine


def main():
    source = pathlib.Path(__file__).parents[2]
    listed = (source / "src/text/pre_tokenizer.cc").read_text()
    listed = listed.split("kDeepSeekLetters[] = {")[1].split("};")[0]
    ranges = [[chr(int(c, 16)) for c in regex.findall(r"0x([0-9A-F]+)", r)]
              for r in regex.findall(r"\{([^}]*)\}", listed)]
    EXPRESSIONS["deepseek_word"] = "\\s?[" + "".join(
        a if a == b else f"{a}-{b}" for a, b in ranges) + "]+"
    cases = texts()
    lines = [f'{json.dumps(name)}: {{"expression": {json.dumps(expression)},\n"pieces": '
             + json.dumps([checked(name, text) for text in cases], separators=(",", ":")) + "}"
             for name, expression in sorted(EXPRESSIONS.items())]
    out = source / "tests/data/pre_tokenizer.json"
    out.write_text('{"texts": ' + json.dumps(cases) + ',\n"cuts": {' + ",\n".join(lines) + "}}\n")


main()
