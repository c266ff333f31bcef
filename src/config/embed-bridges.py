#!/usr/bin/env python3
"""Write bridges.c: data/bridges.json as a C string.

Usage: embed-bridges.py OUTPUT FILE.json
"""

import json
import sys


def main():
    output, name = sys.argv[1:]
    with open(name, encoding="ascii") as f:
        text = json.dumps(json.load(f), separators=(",", ":"))
    # A string literal of C11 may be limited to 4095 bytes: an array is not.
    rows = [", ".join("0x%02x" % c for c in text[i:i + 12].encode())
            for i in range(0, len(text), 12)]
    with open(output, "w", encoding="ascii") as f:
        f.write("/* Made by embed-bridges.py. */\n"
                '#include "config/builtin.h"\n\n'
                "const char config_builtin_json[] = {\n\t"
                + ",\n\t".join(rows) + ", 0x00\n};\n"
                "const size_t config_builtin_json_len = %d;\n" % len(text))


if __name__ == "__main__":
    main()
