#!/usr/bin/env python3
"""Writes unicode_tables.cc: sorted ranges of the letters and numbers that pre-tokenizers ask for."""
import sys
import unicodedata


def ranges(major):
    out, start = [], None
    for cp in range(0x110000 + 1):
        inside = cp < 0x110000 and unicodedata.category(chr(cp))[0] == major
        if inside and start is None:
            start = cp
        elif not inside and start is not None:
            out.append((start, cp - 1))
            start = None
    return out


def table(name, items):
    cells = [f"{{0x{a:x}, 0x{b:x}}}," for a, b in items]
    lines = [" ".join(cells[i : i + 5]) for i in range(0, len(cells), 5)]
    body = "\n    ".join(lines)
    return f"const UnicodeRange k{name}[] = {{\n    {body}\n}};\nconst size_t k{name}Count = std::size(k{name});\n"


print(f"// Unicode {unicodedata.unidata_version} categories. Written by make_unicode_tables.py; do not edit.")
print('#include <iterator>\n\n#include "text/unicode.h"\n\nnamespace snug {\n')
print(table("Letters", ranges("L")))
print(table("Numbers", ranges("N")))
print("}  // namespace snug")
sys.exit(0)
