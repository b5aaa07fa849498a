"""Train, distil or fine-tune: python train.py --config configs/deit_t_gpu.yaml --data_dir DATA"""

from mindeit.cli.train import main

if __name__ == "__main__":
    main()
