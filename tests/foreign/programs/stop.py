"""Ends one engine, then everything, as clients can."""

from setting import connect, equal, until

rc, other = connect(3), connect(3)
rc.shutdown(targets=[0], block=True)
until("both clients know", lambda: rc.ids == [1, 2] == other.ids)
equal(rc[:].apply_sync(lambda: "still here"), ["still here"] * 2)
rc.shutdown(hub=True, block=True)
until("the other client lost its engines", lambda: other.ids == [])
other.close()
