"""Official PyTorch weights -> MindSpore checkpoint, and back with --to_pt."""

from mindeit.cli.convert import main

if __name__ == "__main__":
    main()
