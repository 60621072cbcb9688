"""Draw the method: a pose-free generator and a pose-aware discriminator.

python docs/figures/framework.py docs/images/framework.svg
"""

from pathlib import Path

import click
from svg import box, document, line, text

WIDTH, HEIGHT = 1000, 470
NETWORK, DATA, LOSS = "#dbe9f6", "#f4f4f4", "#fbe7c6"


def generator() -> list[str]:
    """From z over w, pose and tri-planes to the image."""
    return [
        text(20, 30, "Generator G", anchor="start"),
        box(20, 95, 50, 40, "z", DATA),
        box(110, 90, 100, 50, "mapping", NETWORK),
        box(250, 95, 50, 40, "w", DATA),
        box(350, 50, 120, 50, "pose head", NETWORK),
        box(350, 130, 120, 50, "backbone", NETWORK),
        box(520, 55, 110, 40, "pose (h, v)", DATA),
        box(520, 135, 110, 40, "tri-planes", DATA),
        box(690, 90, 110, 50, "volume\nrendering", NETWORK),
        box(850, 90, 110, 50, "super-\nresolution", NETWORK),
        line([(70, 115), (110, 115)], arrow=True),
        line([(210, 115), (250, 115)], arrow=True),
        line([(300, 115), (325, 115), (325, 75), (350, 75)], arrow=True),
        line([(325, 115), (325, 155), (350, 155)], arrow=True),
        line([(470, 75), (520, 75)], arrow=True),
        line([(470, 155), (520, 155)], arrow=True),
        line([(630, 75), (660, 75), (660, 105), (690, 105)], arrow=True),
        line([(630, 155), (660, 155), (660, 125), (690, 125)], arrow=True),
        line([(800, 115), (850, 115)], arrow=True),
    ]


def discriminator() -> list[str]:
    """Image -> trunk -> pose and score, the score conditioned on the pose."""
    return [
        text(210, 250, "Discriminator D", anchor="start"),
        box(20, 350, 120, 50, "photographs\n(no labels)", DATA),
        box(20, 272, 120, 50, "generated\nimage", DATA),
        box(210, 315, 110, 50, "trunk", NETWORK),
        box(390, 270, 120, 50, "pose head", NETWORK),
        box(390, 365, 120, 50, "score head", NETWORK),
        box(580, 275, 130, 40, "pose estimate", DATA),
        box(580, 370, 130, 40, "score", DATA),
        box(780, 265, 180, 60, "pose loss: generated\nimages only", LOSS),
        box(780, 360, 180, 60, "adversarial loss:\nreal or generated", LOSS),
        line([(140, 297), (175, 297), (175, 333), (210, 333)], arrow=True),
        line([(140, 375), (175, 375), (175, 347), (210, 347)], arrow=True),
        line([(320, 340), (355, 340), (355, 295), (390, 295)], arrow=True),
        line([(355, 340), (355, 390), (390, 390)], arrow=True),
        line([(510, 295), (580, 295)], arrow=True),
        line([(510, 390), (580, 390)], arrow=True),
        line([(710, 295), (780, 295)], arrow=True),
        line([(710, 390), (780, 390)], arrow=True),
        line([(645, 315), (645, 342), (450, 342), (450, 365)], arrow=True, dashed=True),
        text(548, 337, "condition, no gradient"),
    ]


def between() -> list[str]:
    """What goes from G to D, and back."""
    return [
        line([(905, 140), (905, 215), (80, 215), (80, 272)], arrow=True),
        text(480, 208, "image from the own pose, and from a mirrored camera"),
        line([(575, 55), (575, 25), (985, 25), (985, 295), (960, 295)], dashed=True, arrow=True),
        text(780, 20, "known pose of generated images"),
        text(490, 450, "G also learns from the adversarial loss, and draws its pose toward the "
             "estimate (pose consistency)"),
    ]  # fmt: skip


@click.command()
@click.argument("dest", type=click.Path(path_type=Path))
def main(dest: Path) -> None:
    """Write the drawing to DEST (.svg)."""
    dest.write_text(document(WIDTH, HEIGHT, generator() + discriminator() + between()))


if __name__ == "__main__":
    main()
