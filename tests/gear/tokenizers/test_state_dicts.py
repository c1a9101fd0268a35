"""The keys and shapes of the published architectures, so that public weights load into ours."""

from __future__ import annotations

import pytest
import torch

from harness.scoring.networks.inception import InceptionV3
from tests.gear.published import DIGESTS, build, digest, shapes_of, spec

SPEC_NAMES = {"c2i-LlamaGen-3B": "c2i-original-GPT-3B"}


@pytest.mark.parametrize("name", DIGESTS)
def test_keys_shapes_and_their_order_are_those_of_the_published_weights(name):
    shapes = shapes_of(build(name))
    full = spec(SPEC_NAMES.get(name, name))
    if full is not None:  # says which key differs; the digest only that one does
        assert list(shapes.items()) == list((full.get("shapes") or full["state_dict"]).items())
    assert digest(shapes) == DIGESTS[name]


def test_the_inception_network_has_the_names_of_its_public_weights():
    with torch.device("meta"):
        shapes = shapes_of(InceptionV3())
    full = spec("fid-inception-v3")
    if full is not None:
        assert sorted(shapes.items()) == sorted(full["weights_file_shapes"].items())
    assert digest(dict(sorted(shapes.items()))) == "82883125a963766d7f97a886b5e03b1bc6d3554e117df7d15c54a43989de9349"
