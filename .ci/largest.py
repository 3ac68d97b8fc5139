"""Print the ten largest source files and functions: for the eye, not as a gate."""

import ast
from pathlib import Path

SOURCES = sorted(Path("src").rglob("*.py"))


def main() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in SOURCES}
    print("Ten largest files (lines):")
    for path, count in sorted(lines.items(), key=lambda item: -item[1])[:10]:
        print(f"  {count:5} {path}")
    functions = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.lineno} {node.name}")
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    print("Ten largest functions (lines):")
    for length, where in sorted(functions, reverse=True)[:10]:
        print(f"  {length:5} {where}")


if __name__ == "__main__":
    main()
