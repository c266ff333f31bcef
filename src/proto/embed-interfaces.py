#!/usr/bin/env python3
"""Write interface.c: the Varlink interfaces of the named files as C strings.

Usage: embed-interfaces.py OUTPUT FILE.varlink...
"""

import re
import sys


def c_string(line):
    escaped = line.replace("\\", "\\\\").replace('"', '\\"')
    return '\t\t"%s\\n"' % escaped


def main():
    output, files = sys.argv[1], sys.argv[2:]
    entries = []
    for name in files:
        with open(name, encoding="ascii") as f:
            text = f.read()
        interface = re.search(r"^interface (\S+)$", text, re.M).group(1)
        lines = "\n".join(c_string(line) for line in text.splitlines())
        entries.append('\t{ "%s",\n%s },\n' % (interface, lines))
    with open(output, "w", encoding="ascii") as f:
        f.write("/* Made by embed-interfaces.py. */\n"
                '#include "proto/interface.h"\n\n'
                "#include <string.h>\n\n"
                "const struct interface interfaces[] = {\n"
                + "".join(entries) +
                "};\n"
                "const size_t n_interfaces = ARRAY_SIZE(interfaces);\n\n"
                "const char *interface_description(const char *name)\n"
                "{\n"
                "\tfor (size_t i = 0; i < n_interfaces; i++)\n"
                "\t\tif (!strcmp(interfaces[i].name, name))\n"
                "\t\t\treturn interfaces[i].description;\n"
                "\treturn NULL;\n"
                "}\n")


if __name__ == "__main__":
    main()
