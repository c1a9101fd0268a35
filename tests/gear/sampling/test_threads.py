"""The number of CPU threads affects only the speed of sampling, not the images.

At published widths, because kernels sum in another order only where channels are many; maps are small.
"""

import pytest
import torch
import torch.nn.functional as F

from gear.ar.packed import PackedLinear
from gear.numerics import cpu_threads, power_of_two_threads
from gear.tokenizers import IBQConfig, LFQConfig, VQConfig, build_tokenizer
from gear.tokenizers.blocks import Conv1x1
from gear.tokenizers.fused import silu_in_place


@torch.inference_mode()
def assert_any_threads(compute, counts=(2, 3, 5)):
    with cpu_threads(1):
        alone = compute()
    for count in counts:
        with cpu_threads(count):
            assert torch.equal(compute(), alone), f"{count} threads"


@pytest.mark.parametrize("config", [VQConfig(), LFQConfig(), IBQConfig()], ids=lambda config: type(config).__name__)
def test_decoded_pixels(config):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(config).eval()
    ids = torch.randint(0, 1000, (2, 64))
    assert_any_threads(lambda: tokenizer.decode_ids(ids))


@pytest.mark.parametrize(("in_channels", "out_channels", "side"), [(8, 256, 16), (512, 512, 16), (256, 128, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_1x1_convolution_is_one(in_channels, out_channels, side, bias):
    torch.manual_seed(0)
    conv = Conv1x1(in_channels, out_channels, bias=bias)
    maps = torch.randn(4, in_channels, side, side)
    assert_any_threads(lambda: conv(maps), counts=(2, 3, 4, 5, 8))
    with torch.no_grad():
        torch.testing.assert_close(conv(maps), F.conv2d(maps, conv.weight, conv.bias), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_silu_in_pieces(layout):
    torch.manual_seed(0)
    maps = (30 * torch.randn(3, 32, 77, 75)).contiguous(memory_format=layout)  # several pieces, the last one odd
    assert_any_threads(lambda: silu_in_place(maps.clone()))
    silu = silu_in_place(maps.clone())
    torch.testing.assert_close(silu, F.silu(maps), rtol=1e-6, atol=1e-6)
    assert silu.is_contiguous(memory_format=layout)
    assert silu_in_place(torch.tensor([[[[-1e4, -200.0, 0.0, 200.0, 1e4]]]])).tolist() == [
        [[[-0.0, -0.0, 0, 200, 1e4]]]
    ]


@pytest.mark.parametrize("shape", [(2304, 768), (768, 2048), (16384, 768)])
def test_a_packed_product(shape):
    torch.manual_seed(0)
    layer, rows = PackedLinear(torch.randn(shape)), torch.randn(16, shape[1])
    assert_any_threads(lambda: layer(rows), counts=(2, 3, 5, 8))


def test_prefixes_are_computed_by_a_power_of_two_of_threads():
    torch.manual_seed(0)
    features = torch.randn(120, 2048)
    used = []

    def gelu():
        with power_of_two_threads():
            used.append(torch.get_num_threads())
            return F.gelu(features, approximate="tanh")

    assert_any_threads(gelu, counts=(2, 3, 4, 5, 7, 8))
    assert used == [1, 2, 2, 4, 4, 4, 8]
