"""The second-attention link against its equation, and rows that fork."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from referencenet.links.attach import attach, write
from referencenet.links.bank import ReferenceBank
from referencenet.links.concat import Concat
from referencenet.links.fork import forked
from referencenet.links.second import AdditiveAttention, Second
from referencenet.networks.additive_unet import AdditiveUNet
from tiny import CONTEXT, build, latents, unet_config
from tolerances import ROUNDING, relative_error


@pytest.fixture(scope="module")
def unet() -> AdditiveUNet:
    return build(lambda: AdditiveUNet(**unet_config()), 40)  # pyright: ignore[reportReturnType]


@pytest.fixture(scope="module")
def bank() -> ReferenceBank:
    writer = build(lambda: UNet2DConditionModel(**unet_config()), 41)
    links = [Concat(stages=("mid_block", "up_blocks"))]
    with torch.no_grad():
        return write(
            writer, latents(1, 3, 4, 5, 7), timestep=9, encoder_hidden_states=latents(2, 3, 5, CONTEXT), links=links
        )


@pytest.mark.parametrize("differentiable", [False, True])
def test_a_site_computes_its_equation(unet: AdditiveUNet, bank: ReferenceBank, differentiable: bool):
    """x + A1(y, y) + s A2(y, [y; refs]) + (1 - s) A2(y, y), written out, for strengths from 0 to beyond 1."""
    seen: list[tuple[Tensor, Tensor]] = []
    name = "up_blocks.1.attentions.0.transformer_blocks.0.attn1"
    layer = unet.get_submodule(name)
    assert isinstance(layer, AdditiveAttention)
    hook = layer.register_forward_hook(lambda _, args, output: seen.append((args[0], output)))
    strengths = [0.0, 0.4, 1.0, 1.3]
    sample, context = latents(3, 4, 4, 8, 8).requires_grad_(differentiable), latents(4, 4, 5, CONTEXT)
    with attach(unet, [Second()]) as link, link.reading(bank.joined(), weights=strengths):
        with torch.set_grad_enabled(differentiable):
            unet(sample, 9, encoder_hidden_states=context)
    hook.remove()
    hidden, output = seen[0]
    second = layer.reference
    together = torch.cat([hidden, bank.hidden[name].flatten(0, 1).expand(4, -1, -1)], dim=1)
    share = torch.tensor(strengths).view(-1, 1, 1)
    both = super(AdditiveAttention, layer).forward(hidden)
    both = both + share * second(hidden, together) + (1 - share) * second(hidden)
    assert relative_error(output.detach(), both.detach()) < ROUNDING


def test_a_plain_pass_is_the_network_that_reads_nothing(unet: AdditiveUNet, bank: ReferenceBank):
    arguments = (latents(3, 2, 4, 8, 8), 9, latents(4, 2, 5, CONTEXT))
    with torch.no_grad():
        plain = unet(*arguments).sample
        with attach(unet, [Second()]) as link, link.reading(bank.joined(), weights=[0, 0]):
            assert relative_error(unet(*arguments).sample, plain) < ROUNDING
        assert torch.equal(unet(*arguments).sample, plain)


def test_gradients_reach_the_second_layer_and_the_bank(unet: AdditiveUNet, bank: ReferenceBank):
    weight = unet.mid_block.attentions[0].transformer_blocks[0].attn1.reference.to_k.weight
    part = bank.joined().map(lambda tensor: tensor.clone().requires_grad_())
    weight.requires_grad_()
    with attach(unet, [Second()]) as link, link.reading(part):
        unet(latents(3), 9, latents(4, 1, 5, CONTEXT)).sample.square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.any()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in part.hidden.values())
    weight.requires_grad_(False)
    weight.grad = None


def test_the_link_needs_second_layers_and_attention_is_linked_once(unet: AdditiveUNet):
    plain = build(lambda: UNet2DConditionModel(**unet_config()), 41)
    with pytest.raises(TypeError, match="AdditiveUNet"), attach(plain, [Second()]):
        pass
    with pytest.raises(ValueError, match="one on attention"), attach(unet, [Second(), Concat()]):
        pass


@pytest.mark.parametrize("weight", [-0.1, float("inf"), float("nan")])
def test_a_strength_that_is_no_amount_is_refused(unet: AdditiveUNet, bank: ReferenceBank, weight: float):
    with attach(unet, [Second()]) as link, pytest.raises(ValueError, match="row's weight"):
        with link.reading(bank.joined(), weights=[weight]):
            pass


def test_stages_choose_the_sites_that_are_written(bank: ReferenceBank):
    assert {name.split(".")[0] for name in bank.hidden} == {"mid_block", "up_blocks"}


def test_a_joined_bank_is_one_row_of_all_tokens(bank: ReferenceBank):
    joined = bank.joined()
    assert joined.rows == 1
    for name, tensor in bank.hidden.items():
        assert torch.equal(joined.hidden[name][0], torch.cat(list(tensor)))


def test_forked_rows_are_those_of_the_whole_batch(unet: AdditiveUNet, bank: ReferenceBank):
    sample, context, rows = latents(3, 2, 4, 8, 8), latents(4, 2, 5, CONTEXT), [0, 0, 1]
    with torch.no_grad(), attach(unet, [Second()]) as link, link.reading(bank.joined(), weights=[1.2, 0, 0]):
        whole = unet(sample[rows], 9, context[rows]).sample
        with forked(unet, rows):
            assert relative_error(unet(sample, 9, context).sample, whole) < ROUNDING
        assert relative_error(unet(sample[rows], 9, context[rows]).sample, whole) < ROUNDING


class Order(TorchDispatchMode):
    """Notes forks of maps (r, c, h, w) and convolutions, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name == "convolution" or (name == "index_select" and args[0].ndim == 4):
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_skip_connections_fork_one_by_one(unet: AdditiveUNet):
    with forked(unet, [0, 0, 1]), Order() as order:
        unet(latents(3, 2, 4, 8, 8), 9, latents(4, 2, 5, CONTEXT))
    skips = sum(len(block.resnets) for block in unet.up_blocks)
    assert order.seen.count("index_select") == 1 + skips  # what enters the middle block, and each skip connection
    assert "index_select, index_select" not in ", ".join(order.seen)


@pytest.mark.slow
@torch.no_grad()
def test_a_fork_compiles_whole(unet: AdditiveUNet):
    sample, context = latents(3, 2, 4, 8, 8), latents(4, 2, 5, CONTEXT)
    torch._dynamo.reset()
    compiled = torch.compile(unet, backend="eager", fullgraph=True)
    with forked(unet, [0, 0, 1]):
        assert relative_error(compiled(sample, 9, context).sample, unet(sample, 9, context).sample) < ROUNDING


@pytest.mark.parametrize("rows", [[], [0], [1, 0], [0, 2, 2], [1, 1]])
def test_rows_that_do_not_fork_are_refused(unet: AdditiveUNet, rows: list[int]):
    with pytest.raises(ValueError, match="every row from 0 on"), forked(unet, rows):
        pass
