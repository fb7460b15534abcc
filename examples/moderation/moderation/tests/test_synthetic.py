"""The made data: the same for the same seed, and as hard as it is said to be."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from moderation.copyright.distance import NearestDistance
from moderation.copyright.features import FEATURES, bits
from moderation.synthetic.fingerprints import WORKS, library
from moderation.synthetic.histories import make_histories
from moderation.synthetic.subscribers import followers, subscribers
from moderation.synthetic.texts import grammar
from moderation.synthetic.uploads import make_uploads

UPLOADS = list(make_uploads(2000, seed=7))


def test_the_same_seed_gives_the_same_uploads_and_another_gives_others() -> None:
    assert list(make_uploads(20, seed=7)) == UPLOADS[:20]
    ids = {upload.event.video_id for upload in UPLOADS}
    assert len(ids) == len(UPLOADS)
    assert ids.isdisjoint(upload.event.video_id for upload in make_uploads(100, seed=8))


def test_uploads_are_in_the_order_of_time() -> None:
    times = [upload.event.uploaded_at for upload in UPLOADS]
    assert times == sorted(times)


def test_every_slot_of_the_texts_is_filled() -> None:
    assert not any(set("{}") & set(upload.event.title + upload.event.description) for upload in UPLOADS)


def test_words_of_harmful_topics_are_in_harmless_ones_too() -> None:
    harmless = " ".join(
        line.lower()
        for topic in grammar().topics
        if max(topic.shares.values()) < 0.2
        for line in (*topic.titles, *topic.sentences)
    )
    assert [
        word for word in ("kill", "nude", "naked", "strip", "blood", "brutal", "shot") if word not in harmless
    ] == []


@pytest.mark.parametrize(("rule", "share"), [("nsfw", 0.1), ("violence", 0.15), ("spam", 0.05), ("copyright", 0.15)])
def test_each_rule_is_broken_by_about_this_share_and_moderators_err(rule: str, share: float) -> None:
    violating = {upload.event.video_id for upload in UPLOADS if rule in upload.violations}
    labelled = {upload.event.video_id for upload in UPLOADS if rule in upload.labels}

    assert len(violating) / len(UPLOADS) == pytest.approx(share, abs=0.05)
    assert 0 < len(violating ^ labelled) < 0.15 * len(violating)


def test_copies_are_near_a_work_originals_are_far_and_some_are_between() -> None:
    works = bits(list(map(bytes, library())))
    distances = NearestDistance(works).fit(works).transform(FEATURES.matrix([one.event for one in UPLOADS]))[:, 0]
    copied = np.array(["copyright" in one.violations for one in UPLOADS])

    assert works.shape == (WORKS, 256)
    assert np.median(distances[copied]) < 31
    assert np.median(distances[~copied]) > 75
    assert 0.02 < np.mean((distances > 31) & (distances < 75)) < 0.2
    assert copied[distances <= 31].mean() < 1


def test_a_distance_is_the_number_of_bits_that_differ() -> None:
    work, upload = bytes(32), bytes([0b10110000]) + bytes(30) + bytes([0b1])

    assert NearestDistance(bits([work])).fit(bits([work])).transform(bits([upload, work])).tolist() == [[4.0], [0.0]]


def test_every_follower_follows() -> None:
    assert sum(len(known) for known in followers().values()) == sum(len(one.follows) for one in subscribers())


def test_a_history_tells_followers_only_and_some_open() -> None:
    told = list(make_histories(200, seed=3))

    assert all(one.video.uploader_id in one.subscriber.follows for one in told)
    opened = Counter(one.opened for one in told)
    assert 0.2 < opened[True] / len(told) < 0.6
