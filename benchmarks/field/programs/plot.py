"""The plot of a run: requests per second over requests in flight, a panel per work and transport.

python plot.py results.json plot.png
"""

# ruff: noqa: ANN001, ANN201, B905 - runs in its own environment

import json
import statistics
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

COLUMNS = 2
MARKERS = "osD^vP*X<>h"


def main(source, target):
    """Draw the medians on logarithmic axes."""
    content = json.loads(Path(source).read_text())
    results = [one for one in content["results"] if one["rounds"] and not one["rate"]]
    panels = list(dict.fromkeys((one["title"], one["transport"]) for one in results))
    servers = list(dict.fromkeys(one["server"] for one in results))
    styles = {name: (MARKERS[index % len(MARKERS)], f"C{index % 10}") for index, name in enumerate(servers)}
    rows = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(11, 3.4 * rows), squeeze=False)
    for axis, panel in zip(axes.flat, panels):
        of_panel = [one for one in results if (one["title"], one["transport"]) == panel]
        for server in servers:
            points = sorted(
                (one["in_flight"], statistics.median(got["requests_per_s"] for got in one["rounds"]))
                for one in of_panel
                if one["server"] == server
            )
            if points:
                marker, colour = styles[server]
                width = 2.4 if server == "trygon" else 1.2
                axis.plot(*zip(*points), marker=marker, color=colour, linewidth=width, label=server)
        axis.set(title=", ".join(panel), xscale="log", yscale="log", xlabel="in flight", ylabel="requests/s")
        axis.grid(visible=True, which="both", alpha=0.3)
        ticks = sorted({one["in_flight"] for one in of_panel})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.xaxis.minorticks_off()
        axis.legend(fontsize=7)
    for axis in list(axes.flat)[len(panels) :]:
        axis.remove()
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
