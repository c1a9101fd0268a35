"""A complete generator of your own: coloured noise in place of a model.

    harness run --benchmark adm --generator 'python examples/my_generator.py' --limit 1000

It is called as `COMMAND --requests DIR --out DIR` and writes a sample set. If it is killed, the same command continues
with the first missing shard. Its version is the file itself: after an edit, new samples are drawn. What it imports
or loads is not tracked: change --generator-version, or name the weights on the command line.
"""

import argparse

import numpy as np

from harness.contract import Progress, RequestSet, SampleSetWriter


def draw(request, protocol):
    """(H, W, 3) uint8: a function of the request alone. `protocol` also says cfg_scale, temperature and the like."""
    rng = np.random.default_rng(request.seed)
    size = protocol.image_size
    return rng.integers(0, 256, (size, size, 3), np.uint8)  # of request.label, or of request.prompt


parser = argparse.ArgumentParser()
parser.add_argument("--requests", required=True)
parser.add_argument("--out", required=True)
arguments = parser.parse_args()

requests = RequestSet.read(arguments.requests)
writer = SampleSetWriter(arguments.out, requests, generator={"name": "noise", "version": 1})
shards = writer.missing()
progress = Progress(sum(map(len, shards)), "images")
for shard in shards:
    writer.write(shard, np.stack([draw(request, requests.protocol) for request in shard.requests]))
    progress.advance(len(shard))
writer.finish()
