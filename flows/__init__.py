"""Prefect flows: the only code that imports prefect.

Prefect and DVC read their switches when they are imported, so this package sets them before any module in
it can import Prefect: nothing is reported to anyone, and a server of a run's own has time to start on a machine that is
busy. A value that is in the environment already stays.
"""

import os

for _name, _value in {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}.items():
    os.environ.setdefault(_name, _value)
