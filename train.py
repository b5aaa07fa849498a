"""Train, distil or fine-tune: python train.py -c deit_t_gpu --data_dir DATA"""

from mindeit.cli.train import main

if __name__ == "__main__":
    main()
