"""Ids of instances: Azure's rules, derived ids, partitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import InvalidInstanceId
from perdure.model.instances import (
    check_instance_id,
    child_id_of,
    execution_id_of,
    partition_of,
)


@pytest.mark.parametrize("good", ["a", "claim-4711", "Ärger", "a b", "x" * 256, "日本", "a:b", "a@b", "%2F"])
def test_an_id_is_up_to_256_printable_characters(good):
    assert check_instance_id(good) == good


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ("", "0 characters"),
        ("x" * 257, "257 characters"),
        ("@claim", "reserved for entities"),
        ("a/b", "reserved in URLs"),
        ("a\\b", "reserved in URLs"),
        ("a#b", "reserved in URLs"),
        ("a?b", "reserved in URLs"),
        ("a\nb", "control or other unprintable"),
        ("a\0b", "control or other unprintable"),
        ("\ud800", "unprintable"),
        ("parent::1", "is reserved for sub-orchestrations"),
        (5, "must be a string, not int"),
        (None, "must be a string, not NoneType"),
    ],
)
def test_a_bad_id_is_refused_with_the_rule_it_breaks(bad, rule):
    with pytest.raises(InvalidInstanceId, match=rule):
        check_instance_id(bad)


def test_a_refused_id_is_shown_cut():
    with pytest.raises(InvalidInstanceId) as refused:
        check_instance_id("x" * 10_000)

    assert len(str(refused.value)) < 200


@given(st.text(min_size=1, max_size=256), st.integers(0, 10**6))
def test_derived_ids_are_admitted_as_such_and_never_as_a_users(root, task_id):
    child = child_id_of(root, execution_id_of(b"salt" * 4, 1), task_id)

    with pytest.raises(InvalidInstanceId):
        check_instance_id(child)


def test_children_of_children_keep_their_ids_short():
    instance_id = "x" * 256
    for _ in range(50):
        instance_id = child_id_of(instance_id, "00000000-1", 3)

    assert len(instance_id) < 400
    assert check_instance_id(instance_id, derived=True)


FEW = 32  # partitions


@given(st.text(min_size=1, max_size=40))
def test_a_partition_is_stable_and_in_range(instance_id):
    assert partition_of(instance_id, FEW) == partition_of(instance_id, FEW)
    assert 0 <= partition_of(instance_id, FEW) < FEW


def test_a_derived_child_lives_where_its_root_does():
    child = child_id_of("claim-1", "00000000-1", 3)
    grandchild = child_id_of(child, "11111111-1", 0)

    assert len({partition_of(one, FEW) for one in (child, grandchild, "claim-1")}) == 1


def test_children_that_are_spread_hash_by_themselves_and_their_families_like_them() -> None:
    children = [child_id_of("claim-1", "00000000-1", n, spread=True) for n in range(200)]
    assert len({partition_of(child, FEW) for child in children}) == FEW
    for child in children:
        grandchild = child_id_of(child_id_of(child, "11111111-1", 0), "22222222-1", 1)
        assert partition_of(grandchild, FEW) == partition_of(child, FEW)


def test_partitions_do_not_depend_on_the_process():
    assert [partition_of(f"claim-{n}", FEW) for n in range(6)] == [19, 23, 11, 13, 18, 10]
