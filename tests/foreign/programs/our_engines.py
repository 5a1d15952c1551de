"""ipyparallel's client with this project's engines, which run their own language."""

from setting import connect, equal, fails, until

rc = connect(2)
both = rc[:]
both.execute("s = psum(rank() + 1)", block=True)
result = both.execute("print(`rank ${rank()}: ${s}`); s * 2", silent=False, block=True)
equal(sorted(result.stdout), ["rank 0: 3\n", "rank 1: 3\n"])
equal([metadata["execute_result"]["data"]["text/plain"] for metadata in result.metadata], ["6", "6"])
equal([metadata["engine_id"] for metadata in result.metadata], rc.ids)
fails("ZeroDivisionError", rc[0].execute, "1 / 0", block=True)
both.execute("t = psum(1)", block=True)

# What waits for a rank that never comes is interrupted.
alone = rc[0].execute("print(`here`); psum(1)", silent=False, block=False)
until("it runs", lambda: rc.metadata[alone.msg_ids[0]]["stdout"])
rc.send_signal("SIGINT", targets=0, block=True)
fails("KeyboardInterrupt", alone.get, timeout=20)
everyone = rc.broadcast_view().execute("u = psum(1); u", silent=False, block=True)
equal([metadata["execute_result"]["data"]["text/plain"] for metadata in everyone.metadata], ["2", "2"])
rc.close()
