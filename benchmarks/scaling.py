"""How well training would scale to several GPUs: a calculation, not a measurement.

    python -m benchmarks.scaling --cfg ffhq

Gradients are averaged by a ring: of B bytes, each of n processes sends 2 (n - 1) / n B. Between
machines, the ring's share of a machine passes its one network card. Messages of 25 MiB leave during
the backward pass, which hides all but the last of each phase as long as the network keeps up.
"""

import math
from typing import NamedTuple

import click
import torch
from torch import nn

from dnnlib import Command
from torch_utils.gradients import BUCKET_BYTES
from training.config import Config
from training.networks.discriminator import Discriminator
from training.networks.generator import Generator
from training.presets import build_config

EFFICIENCY = 0.8  # share of a link's rate that large messages reach
CPU_LATENCY = 30e-6  # seconds per hop of the processes' agreement, by Gloo, to go on with a step
BACKWARD = 0.6  # share of the computation that is a backward pass: about twice a forward pass


class Network(NamedTuple):
    """gpus: of the run. rate: bytes per second through the slowest link of the ring. hops: of a
    message. latency: seconds per hop."""

    name: str
    gpus: int
    rate: float
    hops: int
    latency: float


NETWORKS = (
    Network("8 GPUs, NVLink (450 GB/s)", 8, 450e9, 2 * 7, 3e-6),
    Network("8 machines of 1 GPU, Ethernet (200 Gb/s)", 8, 25e9, 2 * 7, 15e-6),
    Network("64 GPUs: NVLink, Ethernet between 8 machines", 64, 25e9, 2 * (7 + 7), 15e-6),
)


class Traffic(NamedTuple):
    """Of one step, on average. size: bytes of gradients. messages, phases: numbers. exposed: bytes
    in the last message of each phase."""

    size: float
    messages: float
    phases: float
    exposed: float


def traffic(config: Config) -> Traffic:
    """What the phases of a step average; a phase that is run every n-th step counts 1 / n."""
    with torch.device("meta"):
        g, d = Generator(config), Discriminator(config)
    loss = config.loss
    density = size_of(g.backbone) + size_of(g.decoder)  # neither poses nor super-resolution
    phases = [(size_of(g), 1.0), (density, 1 / loss.density_every)]
    phases += [(size_of(d), 1.0), (size_of(d) - pose_head_size(d), 1 / loss.r1_every)]
    return Traffic(
        size=sum(size * share for size, share in phases),
        messages=sum(math.ceil(size / BUCKET_BYTES) * share for size, share in phases),
        phases=sum(share for _, share in phases),
        exposed=sum(min(size, BUCKET_BYTES) * share for size, share in phases),
    )


def size_of(network: nn.Module) -> int:
    """Bytes of all gradients."""
    return sum(parameter.nbytes for parameter in network.parameters())


def pose_head_size(d: Discriminator) -> int:
    """Bytes of the gradients that R1, of the score alone, does not reach."""
    return sum(p.nbytes for name, p in d.named_parameters() if "cam_out" in name)


def seconds_sent(size: float, messages: float, network: Network) -> float:
    """For messages of `size` bytes together."""
    ring = 2 * (network.gpus - 1) / network.gpus * size / (EFFICIENCY * network.rate)
    return ring + messages * network.hops * network.latency


def efficiency(found: Traffic, compute: float, network: Network) -> tuple[float, float]:
    """Share of a step's time that is not spent waiting for gradients: without and with overlap."""
    agreement = 2 * (network.gpus - 1) * CPU_LATENCY
    sent = seconds_sent(found.size, found.messages, network)
    last = seconds_sent(found.exposed, found.phases, network)
    hidden = min(sent - last, BACKWARD * compute)
    waiting = agreement + sent
    return compute / (compute + waiting), compute / (compute + waiting - hidden)


@click.command(cls=Command)
@click.option("--cfg", "preset", default="ffhq", show_default=True, help="Preset.")
@click.option("--tflop", default=6.3, show_default=True, help="Of a step, on one GPU.")
@click.option("--rate", default=50.0, show_default=True, help="TFLOP/s that a GPU reaches.")
def main(preset: str, tflop: float, rate: float) -> None:
    """Calculate bytes per step and scaling efficiency."""
    found, compute = traffic(build_config(preset, {})), tflop / rate
    click.echo(
        f"{preset}: {found.size / 1e6:.0f} MB of gradients per step in {found.messages:.1f} "
        f"messages, the last ones of the phases {found.exposed / 1e6:.0f} MB; computing takes "
        f"{1000 * compute:.0f} ms\n"
    )
    click.echo("| | sent, ms | efficiency | with overlap |\n| --- | --- | --- | --- |")
    for network in NETWORKS:
        sent = 1000 * seconds_sent(found.size, found.messages, network)
        without, overlapped = efficiency(found, compute, network)
        click.echo(f"| {network.name} | {sent:.1f} | {without:.1%} | {overlapped:.1%} |")


if __name__ == "__main__":
    main()
