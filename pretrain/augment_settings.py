"""How often, and how far, training windows are changed."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class AugmentSettings:
    """Every ``_share`` is the probability that a window is changed so; zero leaves a step out. ValueError out of range.

    In the order in which they are applied:

    - ``stretch``: half of the windows, and of what is added to them, are stretched in time by up to this factor;
    - ``balance_share``: S up to ``balance_most`` times stronger or weaker against P (``mixing.balance_phases``);
    - ``superpose_share``: a second event, in ``close_share`` of them near the first (``mixing.superpose``); and in
      ``third_share`` a third;
    - ``color_share``: a random site response, ``rate_share``: a lower sampling rate (``coloring.color``);
    - ``instrument_share``: differentiated or integrated (``coloring.change_instrument``);
    - ``noise_share``: noise of a noise record added, which swells in ``swell_share`` of them (``mixing.add_noise``);
    - ``miswire_share``: swapped or reversed components (``faults.miswire``), ``rotate_share``: horizontals turned;
    - ``glitch_share``, ``gain_step_share``, ``clip_share``: spikes and steps, gain steps, saturation;
    - ``drop_share``: missing and dead components; of them, S that is not ``drop_readable`` times as strong as the
      second before it is forgotten (``faults.drop_components``);
    - ``late_share``: data that begin later, at random (``faults.start_late``);
    - ``gap_share``: gaps of up to ``gap_longest_s``.

    Last comes a random gain, always.
    """

    stretch: float = 1.5
    balance_share: float = 0.2
    balance_most: float = 4.0
    superpose_share: float = 0.25
    close_share: float = 0.4
    third_share: float = 0.06
    color_share: float = 0.4
    rate_share: float = 0.2
    instrument_share: float = 0.3
    noise_share: float = 0.4
    swell_share: float = 0.3
    miswire_share: float = 0.1
    rotate_share: float = 0.5
    glitch_share: float = 0.05
    gain_step_share: float = 0.04
    clip_share: float = 0.05
    drop_share: float = 0.25
    drop_readable: float = 1.2
    late_share: float = 0.7
    gap_share: float = 0.15
    gap_longest_s: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_share") and not 0 <= value <= 1:
                raise ValueError(f"{field.name} is {value}; it is a probability, from 0 to 1")
        for name, least in (("stretch", 1.0), ("balance_most", 1.0), ("drop_readable", 0.0), ("gap_longest_s", 0.0)):
            if not least <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least:g}, and finite")


PLAIN = AugmentSettings(
    stretch=1.25,
    balance_share=0.0,
    close_share=0.0,
    third_share=0.0,
    color_share=0.0,
    rate_share=0.0,
    swell_share=0.0,
    miswire_share=0.0,
    gain_step_share=0.0,
    clip_share=0.0,
    drop_readable=0.0,
)
"""What augmentation was before decision 0027: the baseline of an ablation."""
