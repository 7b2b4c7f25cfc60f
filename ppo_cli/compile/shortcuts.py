"""What makes building a library quick. Where a new PyTorch or compiler refuses, it is built without."""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

# A library that starts asks std::regex whether its device is "cpu", and compiling the whole of that takes a
# third of the wrapper's time. The folders of CPATH are looked through before the system's.
REGEX = """#pragma once
#include <algorithm>
#include <functional>
#include <map>
#include <string>
namespace std {
struct regex { explicit regex(const char*) {} };
struct ssub_match { string text; bool matched = false; string str() const { return text; } };
struct smatch { ssub_match parts[4]; ssub_match& operator[](int i) { return parts[i]; } };
inline bool regex_match(const string& text, smatch& found, const regex&) {
  found[1] = {text, true};
  return text == "cpu";
}
}
"""


@contextmanager
def shortcuts(work: Path) -> Iterator[None]:
    """Has Inductor build quickly meanwhile; ``work`` is a folder for what that takes.

    It compiles its wrapper and its kernels side by side, and does not try out which of the instruction sets
    for narrower numbers than float32 the compiler knows.
    """
    from torch._inductor import cpp_builder, cpu_vec_isa

    headers = work / "headers"
    headers.mkdir()
    (headers / "regex").write_text(REGEX, encoding="utf-8")
    path = os.pathsep.join([str(headers), *filter(None, [os.environ.get("CPATH")])])
    with (
        ThreadPoolExecutor(1) as pool,
        environment("CPATH", path),
        mock.patch.object(cpu_vec_isa.VecISA, "check_build", lambda *_: False),
        mock.patch.object(cpp_builder.CppBuilder, "build", _side_by_side(pool, cpp_builder.CppBuilder.build)),
    ):
        yield


def _side_by_side(pool: ThreadPoolExecutor, build: Any) -> Any:  # noqa: ANN401 - untyped
    """A `CppBuilder.build` that leaves the first object, the wrapper, to ``pool`` until it is linked."""
    begun: list[Future[None]] = []

    def begin(builder: Any) -> None:  # noqa: ANN401
        if not begun:
            begun.append(pool.submit(build, builder))
            return
        if not builder.get_target_file_path().endswith(".o"):
            begun[0].result()
        build(builder)

    return begin


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Sets an environment variable meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
