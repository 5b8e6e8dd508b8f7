from __future__ import annotations

import pytest

from mlipcluster.deploy.devices import handed_out


@pytest.mark.parametrize(
    ("gpus", "processes", "said", "shares"),
    [
        (4, 4, "0,1,2,3", ["0", "1", "2", "3"]),
        (4, 2, "4,5,6,7", ["4,5", "6,7"]),
        (2, 4, "2,3", ["2", "2", "3", "3"]),
        (1, 3, "5", ["5", "5", "5"]),
        (2, 2, "GPU-8932f937,MIG-1/2/3", ["GPU-8932f937", "MIG-1/2/3"]),
    ],
)
def test_what_the_batch_system_gave_is_divided(gpus, processes, said, shares):
    given = handed_out(gpus, processes, {"CUDA_VISIBLE_DEVICES": said})
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables, _ in given] == shares
    assert [count for _, count in given] == [share.count(",") + 1 for share in shares]


def test_where_it_said_nothing_they_are_counted():
    given = handed_out(2, 2, {"CUDA_VISIBLE_DEVICES": ""})
    assert given == [({"CUDA_VISIBLE_DEVICES": "0"}, 1), ({"CUDA_VISIBLE_DEVICES": "1"}, 1)]


def test_other_makers_cards_are_told_by_their_own_names():
    given = handed_out(2, 2, {"ROCR_VISIBLE_DEVICES": "6,7", "HIP_VISIBLE_DEVICES": "0,1"})
    assert [variables for variables, _ in given] == [
        {"HIP_VISIBLE_DEVICES": "0", "ROCR_VISIBLE_DEVICES": "6"},
        {"HIP_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "7"},
    ]


def test_without_gpus_nothing_is_said():
    assert handed_out(0, 2, {"CUDA_VISIBLE_DEVICES": "0,1"}) == [({}, 0), ({}, 0)]
