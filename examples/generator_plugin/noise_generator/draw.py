"""The program that draws: a request set in, a sample set out."""

import argparse

import numpy as np

from harness.contract import RequestSet, SampleSetWriter
from noise_generator import __version__


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--amplitude", type=int, required=True)
    arguments = parser.parse_args()
    requests = RequestSet.read(arguments.requests)
    identity = {"name": "noise", "version": __version__, "amplitude": arguments.amplitude}
    writer = SampleSetWriter(arguments.out, requests, identity)
    for shard in writer.missing():
        writer.write(shard, np.stack([draw(request.seed, requests, arguments.amplitude) for request in shard.requests]))
    writer.finish()


def draw(seed, requests, amplitude):
    """(H, W, 3) uint8, a function of the seed of the image alone."""
    size = requests.protocol.image_size
    noise = np.random.default_rng(seed).integers(-amplitude, amplitude + 1, (size, size, 1))
    return np.repeat(128 + noise, 3, axis=2).astype(np.uint8)


if __name__ == "__main__":
    main()
