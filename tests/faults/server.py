"""Runs `ppo-train` command lines fast, each in a fork of a process that has imported everything.

Started with the shim preloaded; reads requests and writes replies, JSON, one a line. A request has ``cwd``,
``arguments``, what the shim is to do (``folder``, ``mode``, ``at``, ``number``), a signal that is sent after
some seconds (``signal``, ``after``), and how long a file may become (``longest_file``, in bytes, 0 for any).
"""

import atexit
import ctypes
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback

LONGEST = 120.0  # seconds


def become_command(request, out, err, log):
    """Makes this process the command line."""
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(err)
    os.chdir(request["cwd"])
    sys.argv = ["ppo-train", *request["arguments"]]
    if request["longest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["longest_file"],) * 2)
    log = os.dup(log)  # stays open to the very end
    at, number = ctypes.c_long(request["at"]), request["number"]
    ctypes.CDLL(None).fault_arm(os.fsencode(request["folder"]), log, request["mode"], at, number)


def read_to_end(pipe, pid, number, after):
    """What the process and all that it started wrote, until the last of them is gone."""
    os.read(pipe, 1)  # when it begins
    began, data = time.monotonic(), b""
    while True:
        passed = time.monotonic() - began
        if number and passed >= after:
            os.kill(pid, number)
            number = 0
        if passed > LONGEST:
            os.killpg(pid, signal.SIGKILL)
            return data + b"it hung"
        if select.select([pipe], [], [], max(0.0, after - passed) if number else LONGEST)[0]:
            more = os.read(pipe, 1 << 16)
            if not more:
                return data
            data += more


def run_and_end(main):
    """Runs the command line, and ends this process as the interpreter does, but for taking all of it down."""
    try:
        main()
        status = 0
    except SystemExit as ended:
        status = ended.code
    except BaseException:
        traceback.print_exc()
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve(request, main):
    """The reply to a request."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            become_command(request, out.fileno(), write, log.fileno())
            os.write(2, b"\0")
            run_and_end(main)
        os.close(write)
        err = read_to_end(read, pid, request["signal"], request["after"])
        os.close(read)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = []
        for file in (out, log):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return {"status": status, "out": texts[0], "err": err.decode(errors="replace"), "log": texts[1]}


def serve_all(warm_up):
    """Imports what a run needs, by one, and replies to requests until there are no more."""
    from ppo_cli.cli.train import main

    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["ppo-train", *warm_up]
        try:
            main()
        except SystemExit as ended:
            print(json.dumps({"status": ended.code}), file=replies, flush=True)
        for line in sys.stdin:
            print(json.dumps(serve(json.loads(line), main)), file=replies, flush=True)


if __name__ == "__main__":
    serve_all(sys.argv[1:])
