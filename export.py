"""A checkpoint as MindIR or ONNX: python export.py --ckpt_path FILE --format ONNX"""

from mindeit.cli.export import main

if __name__ == "__main__":
    main()
