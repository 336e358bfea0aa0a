"""The prices of the page on Azure Storage are those that the benchmark computes."""

import re
from pathlib import Path

import pytest

from benchmarks.azure_prices import ALONE, BUSY, MANY, Prices, azure, shown

PAGE = (Path(__file__).parents[2] / "docs" / "concepts" / "azure-storage.md").read_text()


def test_the_table_is_computed() -> None:
    assert shown() in PAGE


def test_the_prices_of_the_page_are_those_of_the_computation() -> None:
    prices = Prices()
    told = [
        f"is one | {prices.table_requests:.5f} |",
        f"locally redundant | {prices.table_gb} |",
        f"| {prices.blob_writes}; {prices.blob_gb} |",
        f"| {prices.disk} |",
    ]
    assert [row for row in told if row not in PAGE] == []
    assert prices.postgres == pytest.approx(
        sum(map(float, re.findall(r"\| ([\d.]+) \+ ([\d.]+) \|", PAGE)[0]))
    )


def test_the_counted_requests_of_the_page_are_those_of_the_computation() -> None:
    assert f"{BUSY.requests} a claim: {BUSY.requests * MANY:,.0f} for" in PAGE
    assert f"{ALONE.requests:g} a claim: {ALONE.requests * MANY:,.0f} for" in PAGE


def test_more_requests_and_more_bytes_cost_more() -> None:
    assert azure(0, BUSY) == azure(0, ALONE) < azure(MANY, BUSY) < azure(MANY, ALONE)
