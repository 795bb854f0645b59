"""Look for faces where there should be none: every scan in folders of other things than whole heads.

    python bench/deface_others.py FOLDER... [--most 40]

Prints what `ingest --faces remove` and `share` would do with each scan, and how many of each outcome there were. Of
each folder the first MOST scans that may show relief are read; flat ones only cost their header.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

from vesalius.core.errors import UnusableInput
from vesalius.formats.find import find_scans
from vesalius.formats.scan import Scan
from vesalius.privacy.faces import Defaced, look_for_face, shows_no_relief


def outcome(scan: Scan) -> str:
    """What becomes of a scan, in a sentence."""
    if scan.source == "raster":
        return "A plane image."
    flat = shows_no_relief(scan.grid, scan.modality)
    if flat is not None:
        return flat.reason
    try:
        found = look_for_face(scan.pixels.read()[0], scan.grid, scan.modality)
    except UnusableInput as error:
        return f"REFUSED: {error.what}"
    if not isinstance(found, Defaced):
        return found.reason
    return found.unchanged or f"CHANGED: {found.figures['removed_ml']:.0f} ml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--most", type=int, default=40)
    given = parser.parse_args()
    for folder in given.folders:
        counts: Counter[str] = Counter()
        read = 0
        for scan in (found for found in find_scans(folder) if isinstance(found, Scan)):
            relief = scan.source != "raster" and shows_no_relief(scan.grid, scan.modality) is None
            if relief and read >= given.most:
                continue
            began = time.process_time()
            what = outcome(scan)
            counts[what] += 1
            if relief:
                read += 1
                print(scan.modality or "-", scan.grid.shape, what, f"{time.process_time() - began:.1f} s", flush=True)
        print(folder.name, dict(counts.most_common()), flush=True)


if __name__ == "__main__":
    main()
