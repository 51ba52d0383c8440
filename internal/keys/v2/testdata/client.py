"""Uses the keys API with python-etcd, as an application would."""
import sys
import threading

import etcd

host, port = sys.argv[1].split(":")
c = etcd.Client(host=host, port=int(port), allow_reconnect=True)
assert c.version.startswith("3."), c.version
assert c.machines, c.machines
assert c.leader["name"], c.leader

c.write("/py/a", "eins", ttl=60)
r = c.read("/py/a")
assert r.value == "eins" and 0 < r.ttl <= 60, r
assert c.read("/py", recursive=True, sorted=True).dir
try:
    c.write("/py/a", "x", prevExist=False)
    raise SystemExit("made again")
except etcd.EtcdAlreadyExist:
    pass
try:
    c.test_and_set("/py/a", "x", "zwei")
    raise SystemExit("swapped")
except etcd.EtcdCompareFailed:
    pass
c.refresh("/py/a", 100)
for i in range(3):
    c.write("/py/q", str(i), append=True)
assert [n.value for n in c.read("/py/q", sorted=True).children] == ["0", "1", "2"]

seen = []
since = c.write("/py/w", "0").modifiedIndex + 1
t = threading.Thread(target=lambda: seen.append(c.watch("/py/w", index=since, timeout=20)))
t.start()
c.write("/py/w", "1")
t.join()
assert seen[0].value == "1", seen

lock = etcd.Lock(c, "it")
assert lock.acquire(blocking=True, lock_ttl=30, timeout=10)
other = etcd.Lock(c, "it")
assert not other.acquire(blocking=False)
lock.release()
assert other.acquire(blocking=True, lock_ttl=30, timeout=10)
other.release()

c.delete("/py", recursive=True)
try:
    c.read("/py")
    raise SystemExit("still there")
except etcd.EtcdKeyNotFound:
    pass
print("all is well")
