#!/usr/bin/env python3
"""Writes unicode_tables.cc (categories, white space, lower case) or, with the argument `forms`,
normal_forms_tables.cc (decompositions, combining classes), from the interpreter's
own Unicode data."""
import sys
import unicodedata as u

KINDS = ["Cc Cf Cn Co Cs", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc Me", "Nd", "Nl", "No", "Pc",
         "Pd Pe Pf Pi Po Ps", "Sc Sk Sm So", "Zl Zp Zs"]
KIND_OF = {category: i for i, names in enumerate(KINDS) for category in names.split()}
# White_Space (PropList.txt); kinds from 16 up have it.
SPACE = {*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
         0x205F, 0x3000}
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by arithmetic


def rows(cells, width=96):
    lines, line = [], ""
    for cell in cells:
        if line and len(line) + 1 + len(cell) > width:
            lines.append("    " + line)
            line = ""
        line = f"{line} {cell}" if line else cell
    return "\n".join(lines + ["    " + line])


def table(kind, name, cells):
    print(f"const {kind} k{name}[] = {{\n{rows(cells)}\n}};")
    print(f"const size_t k{name}Count = std::size(k{name});\n")


def header(include):
    print(f"// Unicode {u.unidata_version}. Written by make_unicode_tables.py; do not edit.\n// clang-format off")
    print(f'#include <iterator>\n\n#include "text/{include}.h"\n\nnamespace snug {{\n')


def kinds():
    cells, last = [], None
    for cp in range(0x110000):
        kind = KIND_OF[u.category(chr(cp))] + (16 if cp in SPACE else 0)
        if kind != last:
            cells.append(f"0x{cp << 8 | kind:x},")
        last = kind
    return cells


def runs(pairs):
    """Runs of code points `step` apart that map to code points equally far off."""
    out = []
    for cp, to in pairs:
        if out and out[-1][3] == to - cp:
            first, last, step, delta = out[-1]
            if cp - last == step or (first == last and cp - last <= 2):
                out[-1] = (first, cp, cp - last, delta)
                continue
        out.append((cp, cp, 1, to - cp))
    return [f"{{0x{a:x}, 0x{b:x}, {step}, {delta}}}," for a, b, step, delta in out]


def lower():
    pairs = [(cp, chr(cp).lower()) for cp in range(0x110000)]
    return runs([(cp, ord(low)) for cp, low in pairs if low != chr(cp) and len(low) == 1])


def canonical():
    cells = []
    for cp in range(0x110000):
        parts = u.decomposition(chr(cp)).split()
        if cp in HANGUL or not parts or parts[0].startswith("<"):
            continue
        first, second = int(parts[0], 16), int(parts[1], 16) if len(parts) > 1 else 0
        composes = "true" if u.normalize("NFC", chr(cp)) == chr(cp) else "false"
        cells.append(f"{{0x{cp:x}, 0x{first:x}, 0x{second:x}, {composes}}},")
    return cells


def compatible():
    single, cells, pool = [], [], []
    for cp in range(0x110000):
        full = u.normalize("NFKD", chr(cp))
        if full == u.normalize("NFD", chr(cp)):
            continue
        if len(full) == 1:
            single.append((cp, ord(full)))
        else:
            cells.append(f"{{0x{cp:x}, {len(pool)}, {len(full)}}},")
            pool += [f"0x{ord(c):x}," for c in full]
    return runs(single), cells, pool


def combining():
    runs = []
    for cp in range(0x110000):
        value = u.combining(chr(cp))
        if not value:
            continue
        if runs and runs[-1][1] == cp - 1 and runs[-1][2] == value:
            runs[-1][1] = cp
        else:
            runs.append([cp, cp, value])
    return [f"{{0x{a:x}, 0x{b:x}, {value}}}," for a, b, value in runs]


forms = sys.argv[1:] == ["forms"]
header("normal_forms" if forms else "unicode")
if forms:
    single, cells, pool = compatible()
    table("CanonicalPair", "CanonicalPairs", canonical())
    table("MapRun", "CompatibleRuns", single)
    table("CompatibleText", "CompatibleTexts", cells)
    table("uint32_t", "CompatiblePool", pool)
    table("CombiningRun", "CombiningRuns", combining())
else:
    table("uint32_t", "KindRuns", kinds())
    table("MapRun", "LowerRuns", lower())
print("}  // namespace snug")
