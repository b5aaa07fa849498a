"""Accuracy of a checkpoint on labelled images: python validate.py --data_dir DATA --ckpt_path FILE"""

from mindeit.cli.validate import main

if __name__ == "__main__":
    main()
