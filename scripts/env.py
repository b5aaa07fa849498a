"""Prints versions, devices, and the libraries found and missing: paste it into an issue.

python scripts/env.py
"""

from mindeit.cli.env import main

if __name__ == "__main__":
    main()
