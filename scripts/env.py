"""Prints versions, devices, and the libraries found and missing: paste it into an issue.

python scripts/env.py
"""

from __future__ import annotations

from mindeit.runtime.environment import report

if __name__ == "__main__":
    print(report())
