"""The walk over the UNet, on small random networks."""

from __future__ import annotations

import pytest
import torch

from difficmh.sd21.unet import (
    Additions,
    UNetConfig,
    attend,
    build_unet,
    decode,
    encode,
    input_blocks,
    middle_block,
    output_blocks,
    time_embedding,
    time_sinusoid,
)

SMALL = UNetConfig(widths=(32, 64), blocks_per_level=1, head_channels=16, context_width=8)


def test_the_full_size_has_twelve_blocks_each_way() -> None:
    with torch.device("meta"):
        unet = build_unet(UNetConfig())
    assert (len(input_blocks(unet)), len(output_blocks(unet))) == (12, 12)
    listed = {id(p) for block in (*input_blocks(unet), *output_blocks(unet)) for m in block for p in m.parameters()}
    rest = [name for name, parameter in unet.named_parameters() if id(parameter) not in listed]
    assert {name.split(".")[0] for name in rest} == {"time_embedding", "mid_block", "conv_norm_out", "conv_out"}


@torch.inference_mode()
def test_an_addition_goes_where_its_place_is() -> None:
    torch.manual_seed(0)
    unet = build_unet(SMALL).eval()
    x, context = torch.randn(1, 4, 4, 4), torch.randn(1, 3, 8)
    embedding = time_embedding(unet, time_sinusoid(unet, torch.tensor([7])))
    plain = encode(unet, x, embedding, context)
    zeros = [torch.zeros_like(h) for h in plain.encoder]
    enter = [torch.zeros(1, 64, 2, 2), torch.zeros(1, 64, 2, 2), torch.zeros(1, 64, 4, 4), torch.zeros(1, 32, 4, 4)]
    last = Additions((*zeros[:-1], zeros[-1] + 1), torch.zeros_like(plain.middle), tuple(enter))
    found = encode(unet, x, embedding, context, last)
    assert torch.equal(found.encoder[-2], plain.encoder[-2])
    assert torch.equal(found.encoder[-1], plain.encoder[-1] + 1)
    middle = Additions(tuple(zeros), torch.ones_like(plain.middle), tuple(enter))
    assert torch.equal(encode(unet, x, embedding, context, middle).middle, plain.middle + 1)
    enter[0] = torch.ones_like(enter[0])
    entering = Additions(tuple(zeros), torch.zeros_like(plain.middle), tuple(enter))
    assert torch.equal(
        decode(unet, plain, embedding, context, entering),
        decode(unet, encode(unet, x, embedding, context, middle), embedding, context),
    )


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        UNetConfig(widths=(32, 48))
    with pytest.raises(ValueError, match="do not divide"):
        UNetConfig(widths=(64,))


@torch.inference_mode()
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_attention_is_diffusers_own_and_keeps_the_memory_layout(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    attention = middle_block(build_unet(SMALL).eval())[1]
    h, context = torch.randn(2, 64, 4, 6).contiguous(memory_format=layout), torch.randn(2, 3, 8)
    found = attend(attention, h, context)
    assert torch.equal(found, attention(h, encoder_hidden_states=context, return_dict=False)[0])
    assert found.is_contiguous(memory_format=layout)
