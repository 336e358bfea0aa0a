"""Application Insights: its exporters.

Importing this module takes nearly a second. Only the setting `telemetry=azure-monitor` does.
"""

from __future__ import annotations

from typing import Any

from azure.monitor.opentelemetry.exporter import (
    AzureMonitorLogExporter,
    AzureMonitorMetricExporter,
    AzureMonitorTraceExporter,
)


def exporters() -> tuple[Any, Any, Any]:
    """The exporters for spans, metrics and log records, from the environment. Raises ValueError."""
    return AzureMonitorTraceExporter(), AzureMonitorMetricExporter(), AzureMonitorLogExporter()


__all__ = ["exporters"]
