"""The same networks in plain PyTorch, written from the official definition: the other side of ``--verify``.

State dicts equal the official ones name by name, so an official file loads strictly.
Nothing here is shared with the MindSpore models; that is what makes agreement a proof.
"""
