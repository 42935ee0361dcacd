"""The control module's sizes and its start from the UNet's weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from difficmh.sd21.control import ControlConfig, ControlModule, initialize_from_unet, largest_divisor
from difficmh.sd21.unet import UNetConfig, build_unet

SMALL = UNetConfig(widths=(32, 64), blocks_per_level=1, head_channels=16, context_width=8)


def test_largest_divisor() -> None:
    assert [largest_divisor(n, 32) for n in (320, 6, 48, 37, 34)] == [32, 6, 24, 1, 17]


def test_the_full_size_convolutions_have_the_released_channels() -> None:
    with torch.device("meta"):
        control = ControlModule(UNetConfig(), ControlConfig())
    encoder = [(conv.in_channels, conv.out_channels) for conv in control.enc_out]
    decoder = [(conv.in_channels, conv.out_channels) for conv in control.dec_out]
    assert encoder == [(c, c) for c in (320,) * 4 + (640,) * 3 + (1280,) * 5]
    assert decoder == ([(1280, 1280)] * 5 + [(640, 1280)] * 2 + [(640, 640)] + [(320, 640)] * 2 + [(320, 320)] * 2)
    assert (control.mid_out.in_channels, control.mid_out.out_channels) == (1280, 1280)


def test_a_ratio_that_leaves_nothing_is_refused() -> None:
    for ratio in (0.0, 0.01, 1.5):
        with pytest.raises(ValueError, match="control ratio"):
            ControlModule(SMALL, ControlConfig(ratio=ratio))
    with pytest.raises(ValueError, match="no multiples"):
        ControlModule(UNetConfig(widths=(64, 96), head_channels=16), ControlConfig())


@torch.inference_mode()
def test_it_adds_nothing_before_training() -> None:
    control = ControlModule(SMALL, ControlConfig(ratio=0.5, head_channels=8))
    added = control(torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4), torch.randn(1, 32), torch.randn(1, 3, 8))
    assert all(not value.any() for value in (*added.encoder, added.middle, *added.decoder))


def test_scale_multiplies_what_is_added() -> None:
    torch.manual_seed(0)
    control = ControlModule(SMALL, ControlConfig())
    nn.init.normal_(control.mid_out.weight)
    inputs = (torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4), torch.randn(1, 32), torch.randn(1, 3, 8))
    once = control(*inputs).middle
    control.get_buffer("scale_list").fill_(0.5)
    torch.testing.assert_close(control(*inputs).middle, once / 2)


def test_at_full_width_it_starts_as_the_unets_encoder() -> None:
    unet, control = build_unet(SMALL), ControlModule(SMALL, ControlConfig())
    initialize_from_unet(control, unet)
    first = control.get_parameter("input_blocks.0.0.weight")
    assert torch.equal(first, torch.cat((unet.conv_in.weight, unet.conv_in.weight), dim=1))
    theirs = {name: value for name, value in unet.state_dict().items() if "up_blocks" not in name}
    assert torch.equal(control.get_parameter("time_embedding.linear_2.bias"), theirs["time_embedding.linear_2.bias"])
    ours = control.get_parameter("middle_block.1.transformer_blocks.0.attn2.to_k.weight")
    assert torch.equal(ours, theirs["mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"])
    ours = control.get_parameter("input_blocks.2.0.conv.weight")
    assert torch.equal(ours, theirs["down_blocks.0.downsamplers.0.conv.weight"])
    assert not any(conv.weight.any() for conv in (*control.enc_out, *control.dec_out))


def test_a_narrower_module_starts_with_the_leading_channels() -> None:
    unet, control = build_unet(SMALL), ControlModule(SMALL, ControlConfig(ratio=0.5, head_channels=8))
    initialize_from_unet(control, unet)
    source = unet.down_blocks[1].resnets[0]
    assert torch.equal(control.get_parameter("input_blocks.3.0.conv1.weight"), source.conv1.weight[:32, :16])
    assert torch.equal(control.get_parameter("input_blocks.3.0.norm1.bias"), source.norm1.bias[:16])
    # 8 input channels from 4: the kernel twice, of which nothing is cut.
    assert torch.equal(control.get_parameter("input_blocks.0.0.weight")[:, 4:], unet.conv_in.weight[:16])
