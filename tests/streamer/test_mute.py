"""The mute: with hysteresis, in data time, above any real swarm by default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.chunk import StationKey
from streamer.mute import Mute, MuteRule
from streamer.status_settings import MuteSettings

RULE = MuteRule(picks=10, window_s=60.0, release_picks=3, release_s=120.0)
STEP_S = 0.64


def live(one: Mute, per_minute: float, minutes: float) -> list[bool]:
    """Evenly spaced picks; whether it was muted after each step."""
    muted, owed = [], 0.0
    for _ in range(round(minutes * 60 / STEP_S)):
        one.advance(STEP_S)
        owed += per_minute * STEP_S / 60
        while owed >= 1:
            one.pick()
            owed -= 1
        muted.append(one.muted)
    return muted


def test_too_many_picks_mute_and_calm_ends_it() -> None:
    """More than the limit in the window mutes; it ends after so much calm, once each way."""
    one = Mute(RULE)
    assert not any(live(one, 9, 10))
    muted = live(one, 30, 3)
    assert np.flatnonzero(np.diff(muted)).size == 1
    assert muted[-1]
    calm = live(one, 0, 5)
    (end,) = np.flatnonzero(np.diff(calm))
    # The last of the picks has to leave the window down to two, then the calm has to last.
    assert end * STEP_S == pytest.approx(60 - 2 * 2 + 120, abs=3)


def test_between_the_limits_it_stays_as_it_is() -> None:
    """Hysteresis: what does not mute a station does not end its mute either."""
    one = Mute(RULE)
    assert not any(live(one, 6, 20))
    live(one, 30, 2)
    assert all(live(one, 6, 20))
    assert not live(one, 1, 6)[-1]


def test_calm_that_is_broken_counts_from_anew() -> None:
    """A burst of picks during the calm prolongs the mute."""
    one = Mute(RULE)
    live(one, 30, 2)
    live(one, 0, 2.5)
    live(one, 10, 1)
    assert one.muted
    assert all(live(one, 0, 2.5))
    assert not live(one, 0, 1)[-1]


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 6)), max_size=80),
    st.integers(0, 79),
)
def test_restored_at_any_moment_it_goes_on(history: list[tuple[float, int]], cut: int) -> None:
    """Saved and restored in between, the mute is that of an undisturbed run; its memory is bounded."""
    whole, parts = Mute(RULE), Mute(RULE)
    for number, (seconds, picks) in enumerate(history):
        if number == cut:
            parts = Mute.restored(RULE, parts.saved())
        for one in (whole, parts):
            one.advance(seconds)
            for _ in range(picks):
                one.pick()
        assert whole.muted == parts.muted
        assert whole.saved() == parts.saved()
        assert len(whole.saved()["picks_s"]) <= RULE.picks + 1


def test_default_never_mutes_a_swarm() -> None:
    """Off by default; asked for, an earthquake every two seconds for a day (60 picks a minute) does not reach it."""
    station = StationKey("CX", "PB01", "", "HH")
    assert MuteSettings().rule(station) is None
    rule = MuteSettings(enabled=True).rule(station)
    assert rule == MuteRule()
    assert not any(live(Mute(MuteRule()), 60, 1440))
    assert live(Mute(MuteRule()), 150, 15)[-1]


def test_stations_of_their_own() -> None:
    """The first entry that fits a station holds, also to switch the mute off or on there."""
    settings = MuteSettings.model_validate(
        {
            "enabled": True,
            "stations": [
                {"station": "PB01", "enabled": False},
                {"network": "CX", "enabled": True, "picks": 2000, "release_picks": 50},
            ],
        }
    )
    assert settings.rule(StationKey("CX", "PB01", "", "HH")) is None
    assert settings.rule(StationKey("CX", "PB02", "", "HH")) == MuteRule(picks=2000, release_picks=50)
    assert settings.rule(StationKey("BW", "UH1", "", "EH")) == MuteRule()


@pytest.mark.parametrize(
    "wrong",
    [
        {"picks": 50},
        {"picks": 50, "release_picks": 51},
        {"stations": [{"enabled": True, "picks": 99}]},
        {"stations": [{"enabled": True, "release_picks": 1001}]},
    ],
)
def test_limits_without_hysteresis_are_refused(wrong: dict[str, Any]) -> None:
    """A mute that would end as it begins is a mistake in the settings."""
    with pytest.raises(ValueError, match="release_picks must not be above picks"):
        MuteSettings.model_validate(wrong)
    with pytest.raises(ValueError, match="release_picks"):
        MuteRule(picks=5, release_picks=6)
