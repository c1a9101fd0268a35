"""PSNR, SSIM and L1 from their items; rFID needs features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.recon.evaluation import IMAGE_METRICS, batch_means_interval, image_means
from benchmarks.recon.interface import METRICS
from harness.contract.interface import Metrics
from harness.contract.items import ItemSource, ItemValue, Row
from harness.contract.record import Metric
from harness.metrics.interval import bootstrap_interval


def metrics_from_items(items: Sequence[Row], source: ItemSource) -> list[Metric]:
    """The means over the images, each with a bootstrap interval around the published mean."""
    each = {name: np.array([row[name] for row in items], dtype=np.float64) for name in IMAGE_METRICS}
    batch = int(source.options["mean_batch"])
    intervals = {
        "psnr": batch_means_interval(each["psnr"], batch),
        "ssim": bootstrap_interval(each["ssim"]),
        "l1": batch_means_interval(each["l1"], batch),
    }
    make = Metrics(METRICS).make
    means = image_means(each, batch).items()
    return [make(name, value, n=len(items), interval=intervals[name]) for name, value in means]


def values_from_items(items: Sequence[Row], source: ItemSource) -> Iterator[ItemValue]:
    """The same, image by image."""
    batch = int(source.options["mean_batch"])
    for row in items:
        groups = {"psnr": str(row["row"] // batch), "ssim": "", "l1": str(row["row"] // batch)}
        for name, group in groups.items():
            yield ItemValue(metric=name, item=row["id"], value=row[name], prompt=row["id"], group=group)
