"""Name what is in images: python predict.py --ckpt_path FILE IMAGE_OR_FOLDER ..."""

from mindeit.cli.predict import main

if __name__ == "__main__":
    main()
