# MuJoCo's wheel has no type information: its names come from compiled modules.
from typing import Any

def __getattr__(name: str) -> Any: ...
