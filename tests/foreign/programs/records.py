"""What the controller remembers of tasks: results for other clients, history, queries, purging, running again."""

import datetime
import time

import ipyparallel as ipp
from setting import connect, equal, fails, until

rc, other = connect(2), connect(2)
both, balanced = rc[:], rc.load_balanced_view()

# Results of one client for another, of any kind.
direct = both.apply_async(lambda x: x + 1, 5)
task = balanced.apply_async(lambda: list(range(2000)))
cell = rc[0].execute("print('printed'); 6 * 7", silent=False, block=False)
failed = rc[1].apply_async(lambda: 1 / 0)
for result in (direct, task, cell):
    result.get(timeout=30)
fails("ZeroDivisionError", failed.get, timeout=30)
equal(other.get_result(direct.msg_ids, owner=False).get(timeout=30), [6, 6])
equal(other.get_result(task.msg_ids[0], owner=False).get(timeout=30), list(range(2000)))
fails("ZeroDivisionError", other.get_result(failed.msg_ids[0], owner=False).get, timeout=30)
seen = other.get_result(cell.msg_ids[0], owner=False)
seen.get(timeout=30)
equal(seen.stdout, "printed\n")
equal(seen.execute_result["data"]["text/plain"], "42")
for ours, theirs in zip(direct.metadata, other.get_result(direct.msg_ids, owner=False).metadata):
    equal([theirs[key] for key in ("engine_id", "engine_uuid", "status")],
          [ours[key] for key in ("engine_id", "engine_uuid", "status")])

# Results that are not there yet.
pending = rc[0].apply_async(lambda: (__import__("time").sleep(1.5), "at last")[1])
until("the controller has it", lambda: other.queue_status()[0]["queue"] == 1)
waits = other.get_result(pending.msg_ids[0], owner=False, block=False)
equal(waits.ready(), False)
status = other.result_status(pending.msg_ids + direct.msg_ids, status_only=True)
equal((status["pending"], sorted(status["completed"])), (pending.msg_ids, sorted(direct.msg_ids)))
equal(waits.get(timeout=30), "at last")
fails("KeyError", other.result_status, ["no such id"])

# Queues.
held = [rc[0].apply_async(time.sleep, 1) for _ in range(3)]
queues = until("all were given to it", lambda: (queue := other.queue_status(verbose=True))[0]["queue"] == sum((ar.msg_ids for ar in held), []) and queue)
equal(queues[1], {**queues[1], "queue": [], "tasks": []})
equal(set(queues[1]["completed"]) >= {direct.msg_ids[1], failed.msg_ids[0]}, True)
equal(other.queue_status(targets=1, verbose=False)["queue"], 0)
rc.wait(held, timeout=30)

# History is in the order of submission.
submitted = [balanced.apply_async(lambda x: x, number) for number in range(10)]
rc.wait(submitted, timeout=30)
ids = sum((result.msg_ids for result in submitted), [])
history = until("all are recorded", lambda: (listed := other.hub_history())[-10:] == ids and listed)
equal(history.index(direct.msg_ids[0]) < history.index(task.msg_ids[0]) < history.index(failed.msg_ids[0]), True)

# Queries, with every operator.
find = lambda query, keys=None: other.db_query(query, keys=keys)  # noqa: E731
found = lambda query: [record["msg_id"] for record in find(query, ["msg_id"])]  # noqa: E731
equal(set(found({"msg_id": {"$in": ids[:3]}})), set(ids[:3]))
equal(found({"msg_id": ids[4]}), [ids[4]])
equal(set(found({"msg_id": {"$in": ids, "$nin": ids[2:]}})), set(ids[:2]))
equal(set(found({"msg_id": {"$in": ids}, "queue": "task"})), set(ids))
equal(found({"msg_id": ids[0], "queue": "mux"}), [])
equal(found({"msg_id": ids[0], "queue": "task"}), [ids[0]])
equal(set(found({"msg_id": {"$ne": ids[0]}})), set(history) - {ids[0]})
equal(set(found({"client_uuid": rc.session.session})) >= set(ids), True)
equal(found({"client_uuid": other.session.session}), [])
[middle] = find({"msg_id": ids[5]}, ["submitted"])
middle = middle["submitted"]
equal(isinstance(middle, datetime.datetime), True)
within = {"msg_id": {"$in": ids}}
equal(found({**within, "submitted": {"$lt": middle}}), ids[:5])
equal(found({**within, "submitted": {"$lte": middle}}), ids[:6])
equal(found({**within, "submitted": {"$gt": middle}}), ids[6:])
equal(found({**within, "submitted": {"$gte": middle}}), ids[5:])
equal(found({**within, "submitted": {"$gt": middle, "$lt": middle + datetime.timedelta(hours=1)}}), ids[6:])
equal(set(found({"msg_id": {"$glob": rc.session.session + "*"}})) >= set(ids), True)
fails("KeyError", find, {"msg_id": {"$no_such_operator": 1}})
[record] = find({"msg_id": cell.msg_ids[0]})
equal((record["stdout"], record["queue"], record["engine_uuid"]), ("printed\n", "mux", cell.metadata["engine_uuid"]))
equal("buffers" in record or "result_buffers" in record, False)
[record] = find({"msg_id": task.msg_ids[0]}, ["buffers", "result_buffers"])
equal(sum(len(buffer) for buffer in record["result_buffers"]) > 2000, True)
assert all(record["started"] <= record["completed"] <= record["received"]
           for record in find({"msg_id": {"$in": ids}}, ["started", "completed", "received"]))

# Labels travel into the record.
with balanced.temp_flags(label="the label"):
    labelled = balanced.apply_async(lambda: "labelled")
labelled.get(timeout=30)
until("it is recorded", lambda: found({"label": "the label"}) == labelled.msg_ids)

# Running again, in the same client and from another; the old record points to the new.
again = other.resubmit(task.msg_ids, block=False)
equal(again.get(timeout=30), [list(range(2000))])
until("the old record says so",
      lambda: find({"msg_id": task.msg_ids[0]}, ["resubmitted"])[0]["resubmitted"] == again.msg_ids[0])
[old] = find({"msg_id": task.msg_ids[0]}, ["header"])
[new] = find({"msg_id": again.msg_ids[0]}, ["header"])
varies = ("msg_id", "date")
equal({key: value for key, value in new["header"].items() if key not in varies},
      {key: value for key, value in old["header"].items() if key not in varies})
fails("KeyError", other.resubmit, ["no such id"])

# Purging: by id, by engine, everything.
running = rc[0].apply_async(time.sleep, 1)
until("it runs", lambda: other.queue_status()[0]["queue"] == 1)
fails("IndexError", other.purge_hub_results, running.msg_ids)
other.purge_hub_results(ids[:2])
equal(set(other.hub_history()) & set(ids), set(ids[2:]))
running.get(timeout=30)
other.purge_hub_results(targets=[1])
left = set(other.hub_history())
equal({direct.msg_ids[1], failed.msg_ids[0]} & left, set())
equal({direct.msg_ids[0], cell.msg_ids[0]} <= left, True)
other.purge_hub_results("all")
equal(other.hub_history(), [])
fails("KeyError", other.result_status, labelled.msg_ids, status_only=False)

# What was purged does not hinder what comes.
equal(balanced.apply_async(lambda: "new").get(timeout=30), "new")
until("it is recorded", lambda: len(other.hub_history()) == 1)
rc.close()
other.close()
