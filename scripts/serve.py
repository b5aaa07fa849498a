"""`mindeit serve`, by its file: python scripts/serve.py deit_tiny.onnx --port 3000"""

from mindeit.cli.serve import main

if __name__ == "__main__":
    main()
