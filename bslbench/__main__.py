"""``python -m bslbench``: the program of this very Python, whatever the path has."""

from bslbench.cli import main

if __name__ == "__main__":
    main()
