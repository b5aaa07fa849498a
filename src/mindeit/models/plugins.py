"""Python files of users that register models of their own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from mindeit.errors import UserError
from mindeit.files import existing_file


def load(path: str) -> None:
    """Run the file once, as a module that others of its folder may be imported from."""
    file = existing_file(path).resolve()
    name = f"mindeit_plugin_{file.stem}"
    if getattr(sys.modules.get(name), "__file__", None) == str(file):
        return
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise UserError(f"plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    sys.path.insert(0, str(Path(file).parent))
    try:
        found.loader.exec_module(module)
    except UserError as error:
        raise UserError(f"plugin {path}: {error}") from None
    except Exception as error:
        sys.modules.pop(name)
        line = getattr(error, "lineno", None) or _line_in(error, str(file))
        raise UserError(f"plugin {path}, line {line}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(Path(file).parent))


def _line_in(error: BaseException, file: str) -> int:
    """The last line of ``file`` on the way to the error."""
    step, line = error.__traceback__, 0
    while step is not None:
        if step.tb_frame.f_code.co_filename == file:
            line = step.tb_lineno
        step = step.tb_next
    return line
