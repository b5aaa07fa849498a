"""Building blocks, one idea a file. Parameter names and layouts are the official ones."""
