"""Several processes as one job: who they are, how they meet, and what happens when one dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver

from tfcourse import slurm
from tfcourse.cluster import Cluster, meet, read_cluster

ROOT = Path(__file__).parent.parent
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "40123",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_STEP_NODELIST": "node[08-09],login",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
}


@pytest.mark.parametrize(
    "text", ["a", "n[1-2],m5,o[3-4,6,7-9]", "node[001-003,7]", "x[08-11]", "a,b,c"]
)
def test_lists_of_hosts_are_read_as_tensorflow_reads_them(text):
    assert slurm.expand_hosts(text) == slurm_cluster_resolver.expand_hostlist(text)


def test_hosts_with_two_numbers_and_an_end():
    assert slurm.expand_hosts("r[1-2]n[09-10]-ib,x") == [
        *("r1n09-ib", "r1n10-ib", "r2n09-ib", "r2n10-ib"),
        "x",
    ]


@pytest.mark.parametrize("text", ["", "n[1-", "n]", "n[a-b]", "n[]"])
def test_a_bad_list_of_hosts_is_refused(text):
    with pytest.raises(ValueError, match="SLURM_STEP_NODELIST must be like"):
        slurm.expand_hosts(text)


def test_slurm_tells_the_workers():
    first = 10_000 + 40_123 % 20_000
    assert read_cluster(SLURM) == Cluster(
        (
            *(f"node08:{first}", f"node08:{first + 1}"),
            *(f"node09:{first}", f"node09:{first + 1}"),
            f"login:{first}",
        ),
        3,
    )
    assert read_cluster({}) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SLURM_PROCID": "x"}, "SLURM_PROCID must be a whole number, got 'x'"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "must spread 4 tasks over 3 nodes"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(y2)"}, "must be like 2\\(x3\\),1, got '2\\(y2\\)'"),
        ({"SLURM_NODEID": "0"}, "use srun --distribution=block"),
        ({"SLURM_PROCID": "7"}, "SLURM_PROCID must go through"),
    ],
)
def test_variables_of_slurm_that_contradict_each_other(change, message):
    with pytest.raises(ValueError, match=message):
        read_cluster(SLURM | change)


def test_tf_config_goes_before_slurm_and_may_name_a_chief():
    config = {
        "cluster": {"chief": ["a:1"], "worker": ["b:2", "c:3"]},
        "task": {"type": "worker", "index": 1},
    }
    cluster = read_cluster(SLURM | {"TF_CONFIG": json.dumps(config)})
    assert cluster == Cluster(("a:1", "b:2", "c:3"), 2)
    assert read_cluster({"TF_CONFIG": cluster.tf_config()}) == cluster


def loopback(count):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
    for server in servers:
        server.close()
    return addresses


def test_workers_meet_and_a_stranger_does_not_count():
    addresses = loopback(3)
    left = []

    def come(index, late):
        time.sleep(late)
        meet(Cluster(addresses, index), 20)
        left.append((index, time.monotonic()))

    threads = [threading.Thread(target=come, args=(i, late)) for i, late in enumerate((0.2, 0, 1))]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    with socket.create_connection(("127.0.0.1", int(addresses[0].rpartition(":")[2]))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n")
    for thread in threads:
        thread.join()
    assert sorted(index for index, _ in left) == [0, 1, 2]
    assert min(moment for _, moment in left) - start >= 1  # nobody goes before the last has come


@pytest.mark.parametrize(
    ("index", "message"), [(0, "worker 1, 2 of the 3"), (2, "worker 0 of the 3")]
)
def test_missing_workers_are_named(index, message):
    with pytest.raises(ValueError, match=f"{message} in the cluster did not come within 0.3 s"):
        meet(Cluster(loopback(3), index), 0.3)


def test_a_taken_port_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ValueError, match=f"the chief's port {port} cannot be used: Address"):
            meet(Cluster((f"127.0.0.1:{port}", "b:1"), 0), 1)


LAUNCH = """
import sys
from tfcourse.workers import launch
sys.exit(launch(sys.argv[2:], int(sys.argv[1])))
"""
HEAD = """
import json, os, pathlib, signal, sys, time
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
def note(name):
    with open(name, "a") as file:
        file.write(f"{index} {os.getpid()}\\n")
"""


def start(tmp_path, body, count=2, *flags):
    (tmp_path / "worker.py").write_text(HEAD + textwrap.dedent(body))
    command = [sys.executable, "-c", LAUNCH, str(count), sys.executable, "worker.py", *flags]
    environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launch(tmp_path, body, count=2, *flags):
    process = start(tmp_path, body, count, *flags)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def noted(tmp_path, name):
    path = tmp_path / name
    return (
        [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
        if path.exists()
        else []
    )


def gone(pid):
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_worker_0_is_shown(tmp_path):
    status, out, err = launch(tmp_path, "note('ran'); print('I am', index)", 3)
    assert (status, out, err) == (0, "I am 0\n", "")
    assert sorted(index for index, _ in noted(tmp_path, "ran")) == [0, 1, 2]


def test_a_killed_worker_restarts_the_job_without_fresh(tmp_path):
    body = """
    note("ran")
    runs = pathlib.Path("ran").read_text().count("1 ")
    assert ("--fresh" in sys.argv) == (not pathlib.Path("killed").exists())
    if index == 1 and not pathlib.Path("killed").exists():
        time.sleep(0.5)
        note("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    if index == 0 and not pathlib.Path("killed").exists():
        time.sleep(60)  # lost without its peer
    print("finished")
    """
    status, out, err = launch(tmp_path, body, 2, "--fresh", "--x")
    assert (status, out) == (0, "finished\n"), err
    assert err == "worker 1 was killed by SIGKILL: all start again (3 more times at most)\n"
    assert all(gone(pid) for _, pid in noted(tmp_path, "ran"))


def test_restarts_come_to_an_end(tmp_path):
    status, _, err = launch(tmp_path, "note('ran'); os.kill(os.getpid(), signal.SIGSEGV)", 1)
    assert status == 128 + signal.SIGSEGV
    assert len(noted(tmp_path, "ran")) == 4
    assert err.splitlines()[-1] == "worker 0 was killed by SIGSEGV: giving up"


def test_a_worker_that_left_after_sigterm_counts_as_killed(tmp_path):
    body = "note('ran'); sys.exit(0 if pathlib.Path('ran').read_text().count('0 ') > 1 else 143)"
    status, _, err = launch(tmp_path, body, 1)
    assert status == 0
    assert err.startswith("worker 0 was killed by SIGTERM: all start again")


def test_an_error_that_all_have_is_shown_once_and_not_tried_again(tmp_path):
    body = "note('ran'); time.sleep((1 - index) / 2); sys.exit(f'bad input')"
    status, _, err = launch(tmp_path, body, 2)
    assert (status, err) == (1, "bad input\n")
    assert len(noted(tmp_path, "ran")) == 2


def test_an_error_of_another_worker_is_shown_with_its_number(tmp_path):
    body = "note('ran'); sys.exit('no room') if index else time.sleep(60)"
    status, _, err = launch(tmp_path, body, 2)
    assert (status, err) == (1, "worker 1: no room\n")
    assert all(gone(pid) for _, pid in noted(tmp_path, "ran"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_let_the_workers_save(tmp_path, number):
    body = """
    signal.signal(signal.SIGTERM, lambda *_: (note("saved"), sys.exit(143)))
    note("ran")
    time.sleep(60)
    """
    process = start(tmp_path, body)
    until(lambda: len(noted(tmp_path, "ran")) == 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (128 + number, "")
    assert len(noted(tmp_path, "saved")) == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux ends the children")
def test_no_worker_outlives_a_killed_launcher(tmp_path):
    process = start(tmp_path, "note('ran'); time.sleep(60)")
    until(lambda: len(noted(tmp_path, "ran")) == 2)
    process.kill()
    process.communicate()
    until(lambda: all(gone(pid) for _, pid in noted(tmp_path, "ran")))


@pytest.mark.slow
def test_two_real_workers_share_gradients_and_survive_a_kill(tmp_path):
    """Each sees half of the rows; the sum is the gradient of all; the second try finds the peer."""
    body = """
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np
    from tfcourse import training
    from tfcourse.training.strategies import is_chief, sum_over_workers
    strategy = training.strategy("multi-worker")
    import tensorflow as tf
    assert is_chief(strategy) == (index == 0)
    assert sum_over_workers(strategy, index + 1) == 3
    if index == 1 and not pathlib.Path("killed").exists():
        note("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    assert sum_over_workers(strategy, index == 0) == 1
    x = tf.constant(np.arange(12, dtype="float32").reshape(4, 3))
    with strategy.scope():
        weights = tf.Variable([1.0, -2.0, 0.5])
    @tf.function
    def gradient():
        def on_replica():
            context = tf.distribute.get_replica_context()
            first = 2 * context.replica_id_in_sync_group
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.linalg.matvec(x[first : first + 2], weights) ** 2)
            return context.all_reduce("SUM", tape.gradient(loss, weights))
        return strategy.run(on_replica)
    np.save(f"gradient{index}.npy", strategy.experimental_local_results(gradient())[0])
    """
    status, _, err = launch(tmp_path, body)
    assert status == 0, err
    assert err.count("worker 1 was killed by SIGKILL: all start again") == 1
    x = np.arange(12, dtype="float32").reshape(4, 3)
    expected = 2 * x.T @ (x @ np.array([1.0, -2.0, 0.5], "float32"))
    for index in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"gradient{index}.npy"), expected, rtol=1e-6)


def test_only_the_chief_writes_the_folder_of_a_run(tmp_path):
    body = """
    from tfcourse import cli, runs
    parser = cli.flags("A run.", epochs=1, batch_size=2, learning_rate=0.1)
    run = runs.start(parser, "name")
    if index == 1:
        time.sleep(0.3)
    run.open({"data": "digest"} if index == 0 else {"data": "not looked at"})
    (run.results / f"{index}.txt").write_text("found")
    run.report("accuracy", index, expected=0.0, tolerance=0.1)
    print(run.results)
    """
    status, out, err = launch(tmp_path, body, 2, "--workdir", "out", "--strategy", "multi-worker")
    assert (status, err) == (0, "")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"flags.json", "report.json", "0.txt"}
    assert json.loads((tmp_path / "out/report.json").read_text())["value"] == 0
    assert out.splitlines()[-1] == "out"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0"], "argument --workers: must be a whole number of at least 1, got '0'"),
        (["--workers", "2", "--strategy", "cpu"], "--workers means --strategy multi-worker"),
    ],
)
def test_bad_flags_are_one_line(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "tfcourse", "run", "fine_tune_hub_model", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
