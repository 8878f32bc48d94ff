"""Prints the picture of the floors, then the modules and lines of each part, then circles.

python -m tests.layers
"""

from __future__ import annotations

from collections import Counter

from tests.layers.floors import FLOORS, circles, house, modules, part_of, picture

if __name__ == "__main__":
    print(picture())
    files, lines = Counter(), Counter()
    for path, name, _ in modules():
        files[part_of(name)] += 1
        lines[part_of(name)] += len(path.read_text("utf-8").splitlines())
    for floor in sorted(set(FLOORS.values()), reverse=True):
        parts = sorted(part for part, its in FLOORS.items() if its == floor)
        print(f"{floor}  " + ", ".join(f"{part} {files[part]}/{lines[part]}" for part in parts))
    found = circles(house())
    print(f"{sum(files.values())} modules, {sum(lines.values())} lines, {len(found)} circles")
    for circle in found:
        print("   " + " -> ".join([*circle, circle[0]]))
