#!/usr/bin/env python3
"""Writes case_tables.cc: how Python maps case, and which characters repr() escapes."""
import sys
import unicodedata

ALL = range(0x110000)


def runs(mapping):
    """(first, last, step, delta): characters `step` apart that move by the same delta."""
    out = []
    for cp, delta in sorted(mapping.items()):
        if out:
            first, last, step, d = out[-1]
            if d == delta and (cp - last == step or (first == last and cp - last in (1, 2))):
                out[-1] = (first, cp, cp - last, d)
                continue
        out.append((cp, cp, 1, delta))
    return out


def simple(fold):
    return {cp: ord(fold(chr(cp))) - cp for cp in ALL
            if not 0xD800 <= cp < 0xE000 and len(fold(chr(cp))) == 1 and fold(chr(cp)) != chr(cp)}


def special(fold):
    return [(cp, fold(chr(cp))) for cp in ALL
            if not 0xD800 <= cp < 0xE000 and len(fold(chr(cp))) > 1]


def escaped():
    out, start = [], None
    for cp in range(0x110001):
        inside = cp < 0x110000 and not chr(cp).isprintable()
        if inside and start is None:
            start = cp
        elif not inside and start is not None:
            out.append((start, cp - 1))
            start = None
    return out


def emit(kind, name, cells, per_line):
    lines = [" ".join(cells[i:i + per_line]) for i in range(0, len(cells), per_line)]
    body = "\n    ".join(lines)
    print(f"const {kind} k{name}[] = {{\n    {body}\n}};\n"
          f"const size_t k{name}Count = std::size(k{name});\n")


def text(s):
    return '"' + "".join(f"\\x{b:02x}" for b in s.encode()) + '"'


print(f"// Unicode {unicodedata.unidata_version} case mappings. Written by make_case_tables.py; "
      "do not edit.")
print('#include <iterator>\n\n#include "text/jinja/chars.h"\n\nnamespace snug::jinja {\n')
for name, fold in (("Upper", str.upper), ("Lower", str.lower), ("Title", str.title), ("Fold", str.casefold)):
    emit("CaseRun", name, [f"{{0x{a:x}, 0x{b:x}, {s}, {d}}}," for a, b, s, d in runs(simple(fold))],
         4)
    emit("CaseText", name + "Text", [f"{{0x{cp:x}, {text(t)}}}," for cp, t in special(fold)], 4)
emit("UnicodeRange", "Escaped", [f"{{0x{a:x}, 0x{b:x}}}," for a, b in escaped()], 5)
print("}  // namespace snug::jinja")
sys.exit(0)
