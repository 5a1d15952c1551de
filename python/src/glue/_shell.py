"""What runs cells: IPython's shell if it is installed, else a plain loop of the same face.

With ipykernel the shell is its own class, ZMQInteractiveShell, because notebooks, progress bars and matplotlib look
for it; what it sends goes to the engine instead of a socket.
"""

import ast
import builtins
import codeop
import glob
import importlib.util
import logging
import os
import sys
import traceback
import types

from commworld import _engine

log = logging.getLogger("commworld")


def publish(msg_type, topic, content, metadata=None, buffers=()):
    """Publishes a message of the running request."""
    _engine.call("publish", buffers, msg_type=msg_type, topic=topic, content=content, metadata=metadata or {})


class Failed(Exception):
    """A cell failed. Its error has been published if `published`."""

    def __init__(self, error, lines, published):
        super().__init__(error)
        self.error = error
        self.lines = lines
        self.published = published


class Kernel:
    """What programs look for behind `get_ipython().kernel`."""

    eventloop = None
    iopub_socket = None
    log = log

    def __init__(self, shell, session, engine_id, uuid):
        self.shell = shell
        self.session = session
        self.engine_id = self.int_id = engine_id
        self.ident = uuid

    def get_parent(self, channel=None):
        return {}


def _text(frame):
    return frame.decode("utf-8", "replace") if isinstance(frame, bytes) else frame


def _session_class():
    from ipykernel.jsonutil import json_clean
    from jupyter_client.session import Session

    class EngineSession(Session):
        """Hands messages to the engine, which has the socket."""

        def send(
            self,
            stream,
            msg_or_type,
            content=None,
            parent=None,
            ident=None,
            buffers=None,
            track=False,
            header=None,
            metadata=None,
        ):
            if isinstance(msg_or_type, dict):
                message = msg_or_type
                buffers = buffers or message.get("buffers", [])
            else:
                message = self.msg(msg_or_type, content=content, parent=parent, header=header, metadata=metadata)
            topic = ident[0] if isinstance(ident, list) else ident
            publish(
                message["header"]["msg_type"],
                _text(topic or ""),
                json_clean(message["content"]),
                json_clean(message["metadata"]),
                buffers or (),
            )
            return message

    return EngineSession


def _ipykernel_shell(config, engine_id, uuid):
    from IPython.core.error import UsageError
    from ipykernel.zmqshell import ZMQInteractiveShell

    class EngineShell(ZMQInteractiveShell):
        def enable_gui(self, gui=None):
            if gui not in (None, "inline", "agg", "none"):
                raise UsageError(f"an engine has no window to draw in: the GUI {gui!r} is not possible")

        def init_virtualenv(self):
            pass  # The engine runs in the environment that it was started with.

        def ask_exit(self):
            raise RuntimeError("exit() does not end an engine; a client's shutdown() does")

    # The class by the name that programs look for.
    EngineShell.__name__ = EngineShell.__qualname__ = "ZMQInteractiveShell"
    shell = EngineShell.instance(config=config)
    session = _session_class()(username="engine", key=b"")
    for publisher in (shell.displayhook, shell.display_pub):
        publisher.session = session
    shell.displayhook.topic = f"engine.{engine_id}.execute_result".encode()
    shell.display_pub.topic = f"engine.{engine_id}.displaypub".encode()
    shell.kernel = Kernel(shell, session, engine_id, uuid)
    _use_for_comms(session)
    _offer_data_publication(shell, session)
    return shell


def _use_for_comms(session):
    try:
        import comm
        from comm.base_comm import BaseComm, CommManager
    except ImportError:
        return

    class EngineComm(BaseComm):
        def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
            content = dict(data=data or {}, comm_id=self.comm_id, **keys)
            topic = f"comm-{self.comm_id}".encode()
            session.send(None, msg_type, content, ident=topic, metadata=metadata or {}, buffers=buffers)

    manager = CommManager()
    comm.create_comm = EngineComm
    comm.get_comm_manager = lambda: manager


def _offer_data_publication(shell, session):
    try:
        from ipyparallel.engine.datapub import ZMQDataPublisher
    except ImportError:
        return
    publisher = shell.data_pub = ZMQDataPublisher(parent=shell)
    publisher.session = session


def _bare_ipython_shell(config, engine_id):
    from IPython.core.displayhook import DisplayHook
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    class EngineDisplayHook(DisplayHook):
        def start_displayhook(self):
            self._result = {}

        def write_output_prompt(self):
            pass

        def write_format_data(self, format_dict, md_dict=None):
            self._result = {"data": format_dict, "metadata": md_dict or {}}

        def finish_displayhook(self):
            sys.stdout.flush()
            if self._result.get("data"):
                content = dict(self._result, execution_count=self.prompt_count)
                publish("execute_result", f"engine.{engine_id}.execute_result", content)

    class EngineDisplayPublisher(DisplayPublisher):
        def publish(self, data, metadata=None, *, transient=None, update=False, **kwargs):
            kind = "update_display_data" if update else "display_data"
            content = {"data": data, "metadata": metadata or {}, "transient": transient or {}}
            publish(kind, f"engine.{engine_id}.displaypub", content)

        def clear_output(self, wait=False):
            publish("clear_output", f"engine.{engine_id}.displaypub", {"wait": wait})

    class EngineShell(InteractiveShell):
        displayhook_class = EngineDisplayHook
        display_pub_class = EngineDisplayPublisher

        def enable_gui(self, gui=None):
            pass

        def init_virtualenv(self):
            pass

        def run_cell(self, *args, **kwargs):
            self._last_traceback = None
            return super().run_cell(*args, **kwargs)

        def _showtraceback(self, etype, evalue, stb):
            self._last_traceback = stb
            content = {"ename": etype.__name__, "evalue": safe_text(evalue), "traceback": stb}
            publish("error", f"engine.{engine_id}.error", content)

    return EngineShell.instance(config=config)


def safe_text(error):
    """`str(error)`, even if that fails."""
    try:
        return str(error)
    except Exception as why:
        return f"<{type(error).__name__} whose text cannot be made: {type(why).__name__}>"


class IPythonShell:
    """Cells as IPython runs them."""

    def __init__(self, options, engine_id, uuid, profile_dir):
        from traitlets.config import Config
        from traitlets.config.loader import DeferredConfigString

        config = Config()
        # Engines of one user would write one file; and a thread for it in every rank is a thread too many.
        config.HistoryManager.enabled = False
        config.Completer.use_jedi = False
        for option, value in options.items():
            kind, _, trait = option.partition(".")
            config[kind][trait] = DeferredConfigString(value)
        try:
            import ipykernel.zmqshell  # noqa: F401
        except ImportError:
            self.shell = _bare_ipython_shell(config, engine_id)
        else:
            self.shell = _ipykernel_shell(config, engine_id, uuid)
        self._run_startup_files(profile_dir)

    def _run_startup_files(self, profile_dir):
        files = []
        if profile_dir:
            folder = os.path.join(profile_dir, "startup")
            files = sorted(glob.glob(os.path.join(folder, "*.py")) + glob.glob(os.path.join(folder, "*.ipy")))
        python_startup = os.environ.get("PYTHONSTARTUP")
        if python_startup and os.path.isfile(python_startup):
            files.insert(0, python_startup)
        for file in files:
            run = self.shell.safe_execfile_ipy if file.endswith(".ipy") else self._run_file
            run(file)

    def _run_file(self, file):
        self.shell.safe_execfile(file, self.shell.user_ns)

    @property
    def namespace(self):
        return self.shell.user_ns

    @property
    def globals(self):
        return self.shell.user_global_ns

    def execute(self, code, count, silent, store_history):
        """Runs a cell. Raises Failed if it fails."""
        if not silent:
            self.shell.execution_count = count
        result = self.shell.run_cell(code, store_history=store_history and not silent, silent=silent)
        error = result.error_before_exec or result.error_in_exec
        if error is None and getattr(self.shell, "_last_traceback_during_displayhook", False):
            error = sys.exc_info()[1] or RuntimeError("the result could not be displayed")
        if error is not None:
            raise Failed(error, getattr(self.shell, "_last_traceback", None) or [], published=True)

    def user_expressions(self, expressions):
        return self.shell.user_expressions(expressions)

    def payload(self):
        manager = self.shell.payload_manager
        payload = manager.read_payload()
        manager.clear_payload()
        return payload

    def show_error(self):
        """Publishes the error that is being handled; gives the lines of its traceback."""
        self.shell._last_traceback = None
        self.shell.showtraceback()
        return self.shell._last_traceback or []

    def clear(self):
        self.shell.reset(new_session=False)

    def complete(self, line, cursor):
        _, matches = self.shell.complete(None, line, cursor)
        return [match.rpartition(".")[2] if not match.startswith("%") else match for match in matches]

    def inspect(self, name):
        if not self.shell.object_inspect(name)["found"]:
            return None
        return self.shell.object_inspect_text(name)

    def is_complete(self, code):
        return self.shell.check_complete(code)[0]

    def hidden(self):
        return self.shell.user_ns_hidden


class PlainShell:
    """Cells as Python runs them, where IPython is not installed."""

    def __init__(self, options, engine_id, uuid, profile_dir):
        self._engine_id = engine_id
        self._module = types.ModuleType("__main__")
        self._module.__dict__["__builtins__"] = builtins
        sys.modules["__main__"] = self._module
        self.namespace = self.globals = self._module.__dict__
        self._compile = codeop.Compile()
        python_startup = os.environ.get("PYTHONSTARTUP")
        if python_startup and os.path.isfile(python_startup):
            with open(python_startup, encoding="utf-8") as file:
                self._run(file.read(), python_startup, lambda value: None)

    def _run(self, code, name, display):
        import linecache

        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(self._compile(tree, name, "exec"), self.namespace)
        if last is not None:
            display(eval(self._compile(ast.Expression(last.value), name, "eval"), self.namespace))

    def execute(self, code, count, silent, store_history):
        def display(value):
            if value is not None and not silent:
                builtins._ = value
                content = {"data": {"text/plain": repr(value)}, "metadata": {}, "execution_count": count}
                publish("execute_result", f"engine.{self._engine_id}.execute_result", content)

        try:
            self._run(code, f"<cell {count}>", display)
        except BaseException as error:
            raise Failed(error, self._lines(error), published=False) from None

    @staticmethod
    def _lines(error):
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename.startswith("<commworld"):
            trace = trace.tb_next
        lines = traceback.format_exception(type(error), error, trace)
        return "".join(lines).rstrip("\n").split("\n")

    def user_expressions(self, expressions):
        answers = {}
        for name, expression in expressions.items():
            try:
                text = repr(eval(expression, self.namespace))
                answers[name] = {"status": "ok", "data": {"text/plain": text}, "metadata": {}}
            except Exception as error:
                lines = self._lines(error)
                answers[name] = {
                    "status": "error",
                    "ename": type(error).__name__,
                    "evalue": safe_text(error),
                    "traceback": lines,
                }
        return answers

    def payload(self):
        return []

    def show_error(self):
        error = sys.exc_info()[1]
        lines = self._lines(error)
        content = {"ename": type(error).__name__, "evalue": safe_text(error), "traceback": lines}
        publish("error", f"engine.{self._engine_id}.error", content)
        return lines

    def clear(self):
        kept = {name: self.namespace[name] for name in ("__name__", "__builtins__")}
        self.namespace.clear()
        self.namespace.update(kept)

    def complete(self, line, cursor):
        import rlcompleter

        completer = rlcompleter.Completer(self.namespace)
        word = line[:cursor].split()[-1] if line[:cursor].split() else ""
        matches = []
        while len(matches) < 1000:
            match = completer.complete(word, len(matches))
            if match is None:
                break
            matches.append(match)
        return [match.rstrip("( ").rpartition(".")[2] for match in matches]

    def inspect(self, name):
        import inspect as inspection

        try:
            value = eval(name, self.namespace)
        except Exception:
            return None
        return inspection.getdoc(value) or f"{type(value).__name__} without a text of its own"

    def is_complete(self, code):
        try:
            whole = codeop.compile_command(code, "<cell>", "exec")
        except (SyntaxError, ValueError, OverflowError):
            return "invalid"
        return "incomplete" if whole is None else "complete"

    def hidden(self):
        return {"__name__", "__builtins__"}


def start(options, engine_id, uuid, profile_dir):
    """The shell of this engine."""
    if importlib.util.find_spec("IPython") is None:
        return PlainShell(options, engine_id, uuid, profile_dir)
    # Before anything imports matplotlib, as a kernel does it.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    return IPythonShell(options, engine_id, uuid, profile_dir)
