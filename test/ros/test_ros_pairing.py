from __future__ import annotations

import random

from momap_ros.ros.pairing import Pair, StampPairer

MS = 1_000_000


def pairer(tolerance_ms: int = 20, queue_length: int = 10) -> StampPairer[str, str]:
    return StampPairer(tolerance_ns=tolerance_ms * MS, queue_length=queue_length)


def stamps_ms(pair: Pair[str, str] | None) -> tuple[int, int] | None:
    return None if pair is None else (pair.first_stamp_ns // MS, pair.second_stamp_ns // MS)


def feed(streams: StampPairer[str, str], events: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Add (side, stamp in ms) events in order and return the stamps of the pairs."""
    pairs = []
    for side, stamp in events:
        add = streams.add_second if side else streams.add_first
        pair = add(stamp * MS, f"{side}@{stamp}")
        if pair is not None:
            assert (pair.first, pair.second) == (
                f"0@{pair.first_stamp_ns // MS}",
                f"1@{pair.second_stamp_ns // MS}",
            )
            pairs.append((pair.first_stamp_ns // MS, pair.second_stamp_ns // MS))
    return pairs


def test_equal_stamps_pair_at_once_in_either_order() -> None:
    assert feed(pairer(), [(0, 100), (1, 100), (1, 133), (0, 133)]) == [(100, 100), (133, 133)]


def test_equal_stamp_is_preferred_to_a_near_one_that_came_earlier() -> None:
    # Depth at 60 Hz, colour at 30 Hz: the neighbour at 83 is within the tolerance, the equal one is late.
    streams = pairer()
    assert feed(streams, [(1, 83), (0, 100)]) == []
    assert streams.waits
    assert feed(streams, [(1, 100)]) == [(100, 100)]
    assert streams.dropped_second == 1


def test_nearest_partner_is_taken_once_the_other_stream_has_passed() -> None:
    assert feed(pairer(), [(1, 95), (0, 100), (1, 128), (0, 133), (1, 162)]) == [(100, 95), (133, 128)]
    assert feed(pairer(), [(1, 85), (0, 100), (1, 110)]) == [(100, 110)]


def test_a_partner_out_of_tolerance_is_none() -> None:
    streams = pairer()
    assert feed(streams, [(0, 100), (1, 125), (0, 200), (1, 225)]) == []
    assert not streams.waits
    assert streams.settle() is None
    assert streams.offset_ns == -25 * MS


def test_settle_pairs_a_single_shot_whose_depth_is_older() -> None:
    streams = pairer()
    assert feed(streams, [(1, 95), (0, 100)]) == []
    assert stamps_ms(streams.settle()) == (100, 95)
    assert not streams.waits
    assert streams.settle() is None


def test_newest_pair_wins_and_older_items_are_counted() -> None:
    streams = pairer()
    assert feed(streams, [(0, 0), (0, 33), (0, 66), (1, 66)]) == [(66, 66)]
    assert feed(streams, [(1, 0), (1, 33)]) == []
    assert (streams.paired, streams.dropped_first, streams.dropped_second) == (1, 2, 2)


def test_queue_length_bounds_what_waits() -> None:
    streams = pairer(queue_length=3)
    assert feed(streams, [(0, 33 * n) for n in range(10)]) == []
    assert streams.dropped_first == 7
    assert feed(streams, [(1, 0)]) == []
    assert feed(streams, [(1, 33 * 7)]) == [(33 * 7, 33 * 7)]


def test_out_of_order_arrival_within_a_stream_still_pairs() -> None:
    assert feed(pairer(), [(0, 133), (0, 100), (1, 100), (1, 133)]) == [(100, 100), (133, 133)]


def test_rewind_forgets_what_waits_and_pairs_again() -> None:
    rewinds: list[int] = []
    streams = StampPairer[str, str](tolerance_ns=20 * MS, on_rewind=lambda: rewinds.append(1))
    first_pass = [(side, 5000 + 100 * n) for n in range(20) for side in (0, 1)]
    assert len(feed(streams, first_pass)) == 20
    assert len(feed(streams, first_pass)) == 20
    # Once by colour; depth's own jump back finds its stream already forgotten.
    assert len(rewinds) == 1


def test_rewind_with_leftovers_of_the_first_pass_recovers() -> None:
    streams = pairer()
    feed(streams, [(side, 5000 + 100 * n) for n in range(20) for side in (0, 1)])
    # The last depth image of the first pass arrives after the first colour image of the second.
    pairs = feed(streams, [(0, 5000), (1, 7000), (1, 5000), (0, 5100), (1, 5100), (0, 5200), (1, 5200)])
    assert pairs == [(5100, 5100), (5200, 5200)]


def test_streams_on_different_clocks_never_pair_and_state_their_offset() -> None:
    streams = pairer()
    assert feed(streams, [(side, 33 * n + (213 if side else 0)) for n in range(5) for side in (0, 1)]) == []
    assert streams.offset_ns == -(213 - 4 * 33) * MS


def test_random_arrival_order_pairs_equal_stamps_in_rising_order() -> None:
    generator = random.Random(5)
    for _ in range(20):
        # Each stream is delayed by up to four periods, as a whole per message but in order within the stream.
        arrivals = []
        for side in (0, 1):
            due = 0.0
            for n in range(60):
                due = max(due, 33 * n + generator.uniform(0, 120))
                arrivals.append((due, side, 33 * n))
        streams = pairer()
        pairs = feed(streams, [(side, stamp) for _, side, stamp in sorted(arrivals)])
        assert all(first == second for first, second in pairs)
        assert pairs == sorted(set(pairs))
        assert len(pairs) == 60
